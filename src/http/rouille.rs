//! Glue for [rouille](https://docs.rs/rouille) 3.6.
//!
//! ```no_run
//! use rouille::{Response, router};
//! use sessile::{Cookies, FileStore, Sessions};
//! use sessile::http::rouille::serve;
//!
//! let sessions = Sessions::new(FileStore::open("sessions")?, Cookies::plain_http())?;
//! rouille::start_server("127.0.0.1:8000", move |request| {
//!     serve(&sessions, request, |request, session| -> sessile::Result<_> {
//!         router!(request,
//!             (GET) (/) => {
//!                 let visits = session.update_now("visits", |n: &mut u64| { *n += 1; *n })?;
//!                 Ok(Response::text(format!("visits: {visits}\n")))
//!             },
//!             _ => Ok(Response::empty_404())
//!         )
//!     })
//! });
//! # #[expect(unreachable_code, reason = "the server never returns")]
//! # Ok::<(), sessile::Error>(())
//! ```
//!
//! The session is saved, and every lock released, before the response is returned to rouille.
use super::Sessions;
use super::handler::{self, Answer, Failure, Handled};
use crate::error::Error;
use crate::session::Session;
use rouille::{Request, Response};
use std::error::Error as StdError;

/// What a handler may return: a response, or a `Result` of one whose error renders a response too.
///
/// Such errors are [`Error`], `Box<dyn Error + Send + Sync>` for a handler that meets errors of several kinds, and the program's
/// own types that implement this trait.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "this is what the handler returns",
    note = "a handler returns a `rouille::Response`, or a `Result` of one",
    note = "the error of that `Result` is a `sessile::Error`, a `Box<dyn std::error::Error + Send + Sync>` (for which `?` takes any \
            error), or a type of your own that implements `sessile::http::rouille::IntoResponse`"
)]
pub trait IntoResponse {
    /// Whether this is the handler's error: then what it changed is dropped.
    fn is_error(&self) -> bool {
        false
    }
    /// The failure of the session behind it, for the observer: the visitor sees no details.
    fn session_error(&self) -> Option<&Error> {
        None
    }
    /// The program's own failure behind it, for the observer, which is told its text as an
    /// [`ErrorKind::Handler`](crate::ErrorKind::Handler). Not asked if there is a [`session_error`](Self::session_error).
    fn program_error(&self) -> Option<&(dyn StdError + 'static)> {
        None
    }
    /// The response.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl<T: IntoResponse, E: IntoResponse> IntoResponse for Result<T, E> {
    fn is_error(&self) -> bool {
        self.as_ref().map_or(true, T::is_error)
    }
    fn session_error(&self) -> Option<&Error> {
        match self {
            Ok(response) => response.session_error(),
            Err(error) => error.session_error(),
        }
    }
    fn program_error(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Ok(response) => response.program_error(),
            Err(error) => error.program_error(),
        }
    }
    fn into_response(self) -> Response {
        match self {
            Ok(response) => response.into_response(),
            Err(error) => error.into_response(),
        }
    }
}

/// Rendered without details, which are for logs: 409 for a session that is gone, 503 for a busy one, 507 for a full
/// disk, else 500.
impl IntoResponse for Error {
    fn is_error(&self) -> bool {
        true
    }
    fn session_error(&self) -> Option<&Error> {
        Some(self)
    }
    fn into_response(self) -> Response {
        render(&handler::failure(&self))
    }
}

/// Rendered without details, as 500, or with the status of the [`Error`] that it is or that caused it.
///
/// The observer is told its text, as [`Event::Failed`](crate::Event::Failed).
impl IntoResponse for Box<dyn StdError + Send + Sync> {
    fn is_error(&self) -> bool {
        true
    }
    fn session_error(&self) -> Option<&Error> {
        handler::session_error(&**self)
    }
    fn program_error(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&**self)
    }
    fn into_response(self) -> Response {
        render(&handler::failure_of(&*self))
    }
}

/// Runs `handler` with the request's session, saves it, and returns the response with the session's headers. A handler
/// that panics is answered with 500.
pub fn serve<R: IntoResponse>(
    sessions: &Sessions,
    request: &Request,
    handler: impl FnOnce(&Request, &mut Session) -> R,
) -> Response {
    // `Request::header` would see the first Cookie line only.
    let cookies = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("Cookie"));
    let visit = handler::visit(sessions, cookies.map(|(_, value)| value));
    let answer = handler::run(visit, |session| {
        let result = handler(request, session);
        handler::observe(sessions, result.session_error(), result.program_error());
        let keep = !result.is_error();
        let response = result.into_response();
        Handled { status: response.status_code, response, keep }
    });
    let Answer { response, headers } = answer;
    let mut response = response.unwrap_or_else(|failure| render(&failure));
    headers.apply_to(&mut response.headers);
    response
}

fn render(failure: &Failure) -> Response {
    Response::text(failure.text).with_status_code(failure.status)
}
