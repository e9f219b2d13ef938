//! Adapter for [tiny_http](https://docs.rs/tiny_http) 0.12.
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
//! of a connection in order, so a worker that waited for the lock of an unanswered request would wait forever.
//!
//! tiny_http closes the connection on a header that is not ASCII, and trims VT and FF (not only SP and HTAB) from the
//! ends of a header before this adapter reads it. So the first name of a `Cookie` line may have had those before it; no
//! browser of today stores such a cookie.
use super::headers::{CACHE_CONTROL, is_cache_control};
use super::{Headers, IntoResponse, ServerResponse, Sessions, handler};
use crate::contained::contained;
use crate::session::Session;
use std::borrow::Cow;
use std::io::{self, Read};
use tiny_http::{Header, Request, Response};

/// A response with any kind of body.
pub type AnyResponse = Response<Box<dyn Read + Send>>;

impl ServerResponse for AnyResponse {
    fn status(&self) -> u16 {
        self.status_code().0
    }
    fn plain_text(status: u16, text: &'static str) -> Self {
        Response::from_string(text).with_status_code(status).boxed()
    }
}

impl<B: Read + Send + 'static> IntoResponse<AnyResponse> for Response<B> {
    fn into_response(self) -> AnyResponse {
        self.boxed()
    }
}

/// Runs `handler` with the request's session, saves the session, and responds. If the handler panics, the response is
/// 500.
///
/// # Errors
///
/// The response could not be sent, or reading its body panicked. (tiny_http does not report that a visitor has
/// disconnected.) Saved changes stay saved.
pub fn serve<T: IntoResponse<AnyResponse>>(
    sessions: &Sessions,
    mut request: Request,
    handler: impl FnOnce(&mut Request, &mut Session) -> T,
) -> io::Result<()> {
    let cookies = request.headers().iter().filter(|header| header.field.equiv("Cookie"));
    let visit = handler::open(sessions, cookies.map(|header| header.value.as_str()));
    let (response, headers) = handler::answer(sessions, visit, |session| handler(&mut request, session));
    let response = apply(response, headers);
    // `respond` reads the body, which may run the program's code.
    contained(|| request.respond(response))
        .unwrap_or_else(|_| Err(io::Error::other("the response's body panicked while it was sent")))
}

/// The response with the session's headers.
fn apply(response: AnyResponse, headers: Headers) -> AnyResponse {
    let (mut response, own) = without_cache_control(response, &headers);
    let mut pairs: Vec<_> = own.into_iter().map(|line| (CACHE_CONTROL, line)).collect();
    headers.apply_to(&mut pairs);
    for (name, value) in pairs {
        // The names are constants; every value was ASCII already, or was checked or formatted by `http::cookie`.
        response.add_header(Header::from_bytes(name, value.into_owned()).expect("checked header"));
    }
    response
}

/// Removes the response's `Cache-Control` lines if the session's headers have one. Returns the response and those
/// lines.
fn without_cache_control(response: AnyResponse, headers: &Headers) -> (AnyResponse, Vec<Cow<'static, str>>) {
    let is_cache = |header: &Header| is_cache_control(header.field.as_str().as_str());
    let replaces = headers.iter().any(|(name, _)| is_cache_control(name));
    if !replaces || !response.headers().iter().any(is_cache) {
        return (response, Vec::new());
    }
    let (own, others): (Vec<_>, Vec<_>) = response.headers().iter().cloned().partition(is_cache);
    // Headers can only be added to a response, so the response is rebuilt with the same body.
    let (status, length, chunked) =
        (response.status_code(), response.data_length(), response.chunked_threshold());
    let made = Response::new(status, others, response.into_reader(), length, None);
    let lines = own.into_iter().map(|header| String::from(header.value).into()).collect();
    (made.with_chunked_threshold(chunked), lines)
}
