//! Adapter for [rouille](https://docs.rs/rouille) 3.6.
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
use super::{IntoResponse, ServerResponse, Sessions};
use crate::session::Session;
use rouille::{Request, Response};

impl ServerResponse for Response {
    fn status(&self) -> u16 {
        self.status_code
    }
    fn plain_text(status: u16, text: &'static str) -> Self {
        Self::text(text).with_status_code(status)
    }
}

impl IntoResponse<Self> for Response {
    fn into_response(self) -> Self {
        self
    }
}

/// Runs `handler` with the request's session, saves the session, and returns the response with the session's headers.
/// If the handler panics, the response is 500.
pub fn serve<T: IntoResponse<Response>>(
    sessions: &Sessions,
    request: &Request,
    handler: impl FnOnce(&Request, &mut Session) -> T,
) -> Response {
    // `Request::header` would return the first Cookie line only.
    let cookies = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("Cookie"));
    let cookies = cookies.map(|(_, value)| value);
    let (mut response, headers) = super::serve(sessions, cookies, |session| handler(request, session));
    headers.apply_to(&mut response.headers);
    response
}
