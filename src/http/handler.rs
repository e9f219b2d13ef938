//! The part that all adapters share: opens the session, runs the handler, contains its panics, saves, and turns a
//! failure into a response. It depends on no server.
use super::into_response::{IntoResponse, ServerResponse, failure};
use super::{CookieHeaders, Headers, SaveError, Sessions, Visit};
use crate::contained::contained;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::session::Session;
use crate::shown::with_causes;

/// The largest number of characters of a handler's error that the observer gets.
const ERROR_CHARS_MAX: usize = 1000;

/// Runs `handler` with the session of a request that has these `Cookie` header lines, and saves the session. Returns
/// the response to send, and the session's headers, which [`Headers::apply_to`] merges into the response's own. For
/// adapters: see the [module](super#another-server).
///
/// If the handler panics or the session cannot be saved, the response is 500 (409, 503 or 507 for a failed save whose
/// reason has a status of its own). After a handler's error, or with a response of status 500 or above, nothing is
/// saved. When this returns, the session is saved and no lock is held.
pub fn serve<'h, Form, T, R>(
    sessions: &Sessions,
    cookies: impl CookieHeaders<'h, Form>,
    handler: impl FnOnce(&mut Session) -> T,
) -> (R, Headers)
where
    T: IntoResponse<R>,
    R: ServerResponse,
{
    answer(sessions, open(sessions, cookies), handler)
}

/// Opens the session of a request with these `Cookie` header lines. A store that the program has implemented itself may
/// panic.
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

/// The part of [`serve`] after the session was opened. An adapter whose handler borrows the request mutably reads the
/// cookies first, and then calls this.
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
            // Dropping the response may run code of the program, which may panic. The result is ignored, because the
            // request has failed already.
            let _ = contained(|| drop(made.response));
            failed(*error)
        }
    }
}

/// The response that a handler has made.
struct Made<R> {
    response: R,
    status: u16,
    /// Whether the handler returned an error. Then its changes are dropped, whatever the status is.
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
