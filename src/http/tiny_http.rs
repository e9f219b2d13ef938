//! Glue for [tiny_http](https://docs.rs/tiny_http) 0.12.
//!
//! ```no_run
//! use sessile::{Cookies, FileStore, Sessions};
//! use sessile::http::tiny_http::serve;
//! use tiny_http::{Response, Server};
//!
//! let sessions = Sessions::new(FileStore::open("sessions")?, Cookies::plain_http())?;
//! let server = Server::http("127.0.0.1:8000")?;
//! for request in server.incoming_requests() {
//!     let answered = serve(&sessions, request, |_request, session| -> sessile::Result<_> {
//!         let visits = session.update_now("visits", |n: &mut u64| { *n += 1; *n })?;
//!         Ok(Response::from_string(format!("visits: {visits}\n")))
//!     });
//!     answered.unwrap_or_else(|error| eprintln!("could not send a response: {error}"));
//! }
//! # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
//! ```
//!
//! The session is saved, and every lock released, before the response is sent: tiny_http answers the pipelined requests
//! of a connection in order, and a worker that waited for a lock held by an unanswered one would wait forever.
//!
//! tiny_http hangs up on a header that is not ASCII, and trims VT and FF (not only SP and HTAB) from the ends of a header
//! before this adapter sees it. So the first name of a `Cookie` line may have had those before it; no browser of today
//! stores such a cookie.
use super::handler::{self, Answer, Failure, Handled};
use super::headers::{CACHE_CONTROL, is_cache_control};
use super::{Headers, Sessions};
use crate::contained::contained;
use crate::error::Error;
use crate::session::Session;
use std::error::Error as StdError;
use std::io::{self, Read};
use tiny_http::{Header, Request, Response, StatusCode};

/// A response of any kind of body.
pub type AnyResponse = Response<Box<dyn Read + Send>>;

/// What a handler may return: a response, or a `Result` of one whose error renders a response too.
///
/// Such errors are [`Error`], `Box<dyn Error + Send + Sync>` for a handler that meets errors of several kinds, and the program's
/// own types that implement this trait.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "this is what the handler returns",
    note = "a handler returns a `tiny_http::Response`, or a `Result` of one",
    note = "the error of that `Result` is a `sessile::Error`, a `Box<dyn std::error::Error + Send + Sync>` (for which `?` takes any \
            error), or a type of your own that implements `sessile::http::tiny_http::IntoResponse`"
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
    fn into_response(self) -> AnyResponse;
}

impl<R: Read + Send + 'static> IntoResponse for Response<R> {
    fn into_response(self) -> AnyResponse {
        self.boxed()
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
    fn into_response(self) -> AnyResponse {
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
    fn into_response(self) -> AnyResponse {
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
    fn into_response(self) -> AnyResponse {
        render(&handler::failure_of(&*self))
    }
}

/// Runs `handler` with the request's session, saves it, and responds. A handler that panics is answered with 500.
///
/// # Errors
///
/// The response could not be sent (tiny_http keeps to itself that a visitor has left; this is other trouble), also
/// because reading its body panicked. What was saved stays saved.
pub fn serve<R: IntoResponse>(
    sessions: &Sessions,
    mut request: Request,
    handler: impl FnOnce(&mut Request, &mut Session) -> R,
) -> io::Result<()> {
    let cookies = request.headers().iter().filter(|header| header.field.equiv("Cookie"));
    let visit = handler::visit(sessions, cookies.map(|header| header.value.as_str()));
    let answer = handler::run(visit, |session| {
        let result = handler(&mut request, session);
        handler::observe(sessions, result.session_error(), result.program_error());
        let keep = !result.is_error();
        let response = result.into_response();
        Handled { status: response.status_code().0, response, keep }
    });
    let Answer { response, headers } = answer;
    let response = apply(response.unwrap_or_else(|failure| render(&failure)), headers);
    // The body is read there, which may be the program's code.
    contained(|| request.respond(response))
        .unwrap_or_else(|_| Err(io::Error::other("the response's body panicked while it was sent")))
}

fn render(failure: &Failure) -> AnyResponse {
    Response::from_string(failure.text).with_status_code(StatusCode(failure.status)).boxed()
}

/// The response with the session's headers.
fn apply(response: AnyResponse, headers: Headers) -> AnyResponse {
    let (mut response, own) = without_cache_control(response, &headers);
    let mut pairs: Vec<_> = own.into_iter().map(|line| (CACHE_CONTROL, line)).collect();
    headers.apply_to(&mut pairs);
    for (name, value) in pairs {
        // Names are ours; every value was ASCII already, or was checked or formatted by `http::cookie`.
        response.add_header(Header::from_bytes(name, value).expect("checked header"));
    }
    response
}

/// The response without its `Cache-Control` lines, and these, if the session has something to say there.
fn without_cache_control(response: AnyResponse, headers: &Headers) -> (AnyResponse, Vec<String>) {
    let is_ours = |header: &Header| is_cache_control(header.field.as_str().as_str());
    let (own, others): (Vec<_>, Vec<_>) = response.headers().iter().cloned().partition(is_ours);
    if own.is_empty() || !headers.iter().any(|(name, _)| is_cache_control(name)) {
        return (response, Vec::new());
    }
    // A response's headers can be added to only: it is made again, with the same body.
    let (status, length, chunked) =
        (response.status_code(), response.data_length(), response.chunked_threshold());
    let made = Response::new(status, others, response.into_reader(), length, None);
    let lines = own.into_iter().map(|header| header.value.into()).collect();
    (made.with_chunked_threshold(chunked), lines)
}
