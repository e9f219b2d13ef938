//! The core of every adapter: open the session, run the handler, contain its panics, save, and turn a failure into a response.
//! Knows no server.
use super::into_response::{IntoResponse, ServerResponse, failure};
use super::{CookieHeaders, Headers, SaveError, Sessions, Visit};
use crate::contained::contained;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::session::Session;
use crate::shown::with_causes;

/// Longest text of a handler's error that the observer gets, in characters.
const ERROR_CHARS_MAX: usize = 1000;

/// Runs `handler` with the session of a request that has these `Cookie` header lines, and saves the session. Returns the
/// response to send, and the headers to lay over its own with [`Headers::apply_to`]. For adapters: see the
/// [module](super#another-server).
///
/// A handler that panics is answered with 500, and so is a session that cannot be saved (409, 503 or 507 where the reason has a
/// status of its own). A handler's error and a response of status 500 or above save nothing. When this returns, the session is
/// saved and no lock is held.
pub fn serve<'h, Form, T, R>(
    sessions: &Sessions,
    cookies: impl CookieHeaders<'h, Form>,
    handler: impl FnOnce(&mut Session) -> T,
) -> (R, Headers)
where
    T: IntoResponse<R>,
    R: ServerResponse,
{
    // A store that is not ours may panic at a token.
    answer(sessions, open(sessions, cookies), handler)
}

/// The visit of a request with these `Cookie` header lines. A foreign store may panic at a token.
pub(super) fn open<'h, Form>(
    sessions: &Sessions,
    cookies: impl CookieHeaders<'h, Form>,
) -> Result<Visit, Error> {
    contained(|| sessions.visit(cookies)).map_err(|_| {
        let error = panicked("look at the request's cookies");
        sessions.observe(&Event::Failed(&error));
        error
    })
}

/// [`serve`] from the visit on: an adapter whose handler borrows the request reads the cookies first.
pub(super) fn answer<T: IntoResponse<R>, R: ServerResponse>(
    sessions: &Sessions,
    visit: Result<Visit, Error>,
    handler: impl FnOnce(&mut Session) -> T,
) -> (R, Headers) {
    let mut visit = match visit {
        Ok(visit) => visit,
        Err(error) => return (failure(&error), Headers::default()),
    };
    let Ok(made) = contained(|| run(sessions, &mut visit, handler)) else {
        return failed(*visit.fail(panicked("run the handler")));
    };
    if made.is_error {
        return (made.response, visit.discard());
    }
    let saved = contained(|| visit.complete(made.status))
        .unwrap_or_else(|_| Err(visit.fail(panicked("save session"))));
    match saved {
        Ok(headers) => (made.response, headers),
        Err(error) => {
            // Its destructor may be the program's code; the answer is a failure already.
            let _ = contained(|| drop(made.response));
            failed(*error)
        }
    }
}

/// A handler's response.
struct Made<R> {
    response: R,
    status: u16,
    /// Whether it is the handler's error: its changes are dropped, whatever status it is rendered with.
    is_error: bool,
}

/// Runs the handler, reports its error to the observer and renders its response.
fn run<T: IntoResponse<R>, R: ServerResponse>(
    sessions: &Sessions,
    visit: &mut Visit,
    handler: impl FnOnce(&mut Session) -> T,
) -> Made<R> {
    let result = handler(visit);
    if let Some(error) = result.session_error() {
        sessions.observe(&Event::Failed(error));
    } else if let Some(error) = result.program_error() {
        let text: String = with_causes(error).chars().take(ERROR_CHARS_MAX).collect();
        let error = Error::new(ErrorKind::Handler, "handle the request").with_reason(text);
        sessions.observe(&Event::Failed(&error));
    }
    let is_error = result.is_error();
    let response = result.into_response();
    Made { status: response.status(), response, is_error }
}

fn panicked(operation: &'static str) -> Error {
    Error::new(ErrorKind::Panicked, operation).with_reason("it panicked; its changes were dropped")
}

fn failed<R: ServerResponse>(save: SaveError) -> (R, Headers) {
    (failure(&save.error), save.headers)
}
