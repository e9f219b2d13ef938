//! The web front: `Cookie` header values in, header pairs out. Knows no server. The modules `tiny_http` and `rouille`, features
//! of the same names, are adapters of about 40 lines of code each over one core, [`serve`].
//!
//! # Another server
//!
//! An adapter for a third server costs 40 lines too. It implements [`ServerResponse`] for the server's response (a type of its own
//! around it, because neither the trait nor the response is the program's) and [`IntoResponse`] for what handlers return, and calls
//! [`serve`]:
//!
//! ```
//! use sessile::http::{self, IntoResponse, ServerResponse};
//! use sessile::{Cookies, FileStore, Session, Sessions};
//! # mod server {
//! #     pub struct Request { pub headers: Vec<(String, String)> }
//! #     pub struct Response { pub status: u16, pub headers: Vec<(String, String)>, pub body: String }
//! # }
//!
//! /// The response of the server, which has public fields `status`, `headers` (pairs of strings) and `body`.
//! struct Reply(server::Response);
//!
//! impl ServerResponse for Reply {
//!     fn status(&self) -> u16 {
//!         self.0.status
//!     }
//!     fn plain_text(status: u16, text: &'static str) -> Self {
//!         let headers = vec![("Content-Type".into(), "text/plain; charset=utf-8".into())];
//!         Self(server::Response { status, headers, body: text.into() })
//!     }
//! }
//!
//! impl IntoResponse<Reply> for server::Response {
//!     fn into_response(self) -> Reply {
//!         Reply(self)
//!     }
//! }
//!
//! fn serve<T: IntoResponse<Reply>>(
//!     sessions: &Sessions,
//!     request: &server::Request,
//!     handler: impl FnOnce(&server::Request, &mut Session) -> T,
//! ) -> server::Response {
//!     // Every `Cookie` line of the request.
//!     let cookies = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Cookie"));
//!     let cookies = cookies.map(|(_, value)| value.as_str());
//!     let (Reply(mut response), headers) = http::serve(sessions, cookies, |session| handler(request, session));
//!     headers.apply_to(&mut response.headers);
//!     response
//! }
//!
//! # let dir = tempfile::tempdir()?;
//! let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
//! let request = server::Request { headers: vec![("cookie".into(), "theme=dark".into())] };
//! let response = serve(&sessions, &request, |_request, session| -> sessile::Result<_> {
//!     let visits = session.update_now("visits", |n: &mut u64| { *n += 1; *n })?;
//!     Ok(server::Response { status: 200, headers: Vec::new(), body: format!("visits: {visits}\n") })
//! });
//! assert_eq!((response.status, &*response.body), (200, "visits: 1\n"));
//! assert!(response.headers[1].1.starts_with("session="));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A program whose handlers are not functions of one type does without [`serve`]:
//!
//! ```
//! use sessile::{Cookies, FileStore, Sessions};
//! # let dir = tempfile::tempdir()?;
//! let store = FileStore::open(dir.path())?;
//! let sessions = Sessions::new(store, Cookies::plain_http())?;
//!
//! // For each request: its Cookie header values in …
//! let mut visit = sessions.visit(["theme=dark; lang=en"]);
//! visit.insert("cart", ["apple"])?;
//! // … and, when the response's status is known, headers for it. `Headers::apply_to` adds them to the response's own.
//! let headers = visit.finish(200)?;
//! assert_eq!(headers[0], ("Vary", "Cookie".to_owned()));
//! assert!(headers[1].1.starts_with("session="));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
mod cookie;
mod handler;
mod headers;
mod into_response;
#[cfg(feature = "rouille")]
pub mod rouille;
#[cfg(feature = "tiny_http")]
pub mod tiny_http;

pub use cookie::{Cookies, SameSite};
pub use handler::serve;
pub use headers::Headers;
pub use into_response::{IntoResponse, ServerResponse};

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::id::Token;
use crate::lifetime::Lifetime;
use crate::session::{Context, CookieNews, Session};
use crate::store::Store;
use cookie::Jar;
use std::error::Error as StdError;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// The values of a request's `Cookie` header lines: one `&str`, an `Option` of one, or any iterator over them.
///
/// `Form` only tells the compiler which of the two implementations is meant; it is always inferred.
pub trait CookieHeaders<'h, Form> {
    /// The values, in the order of their lines.
    fn values(self) -> impl Iterator<Item = &'h str>;
}

/// The [`CookieHeaders`] of one line.
#[derive(Debug)]
pub enum OneLine {}

/// The [`CookieHeaders`] of any number of lines.
#[derive(Debug)]
pub enum ManyLines {}

impl<'h> CookieHeaders<'h, OneLine> for &'h str {
    fn values(self) -> impl Iterator<Item = &'h str> {
        std::iter::once(self)
    }
}

impl<'h, I: IntoIterator<Item = &'h str>> CookieHeaders<'h, ManyLines> for I {
    fn values(self) -> impl Iterator<Item = &'h str> {
        self.into_iter()
    }
}

/// The sessions of a web program: a store, a cookie, a lifetime. Cheap to clone; share it between threads.
///
/// Work outside of requests (a job, a message from a queue, a command) has the [`store`](Self::store), and opens a session by
/// its token with [`session`](Self::session).
#[derive(Clone)]
pub struct Sessions {
    context: Arc<Context>,
    jar: Arc<Jar>,
}

impl Sessions {
    /// Sessions kept in `store`, carried by `cookies`, living by the default [`Lifetime`].
    ///
    /// Takes a store, or an `Arc` of one that is used elsewhere too (by a reaper, say).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for cookie attributes that are malformed or contradict each
    /// other.
    ///
    /// ```
    /// use sessile::{Cookies, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::https())?;
    /// # let _ = sessions;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(store: impl Store + 'static, cookies: Cookies) -> Result<Self> {
        let jar = Arc::new(Jar::new(cookies)?);
        let (lifetime, observer) = (Lifetime::default(), Observer::default());
        Ok(Self { context: Arc::new(Context { store: Arc::new(store), lifetime, observer }), jar })
    }

    /// Sets how long sessions live.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] names the option that is out of its bounds.
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Sessions};
    /// use sessile::Lifetime;
    /// use std::time::Duration;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = FileStore::open(dir.path())?;
    /// let month = Lifetime::new().age(Duration::from_secs(30 * 24 * 3600));
    /// let sessions = Sessions::new(store, Cookies::https())?.with_lifetime(month)?;
    /// # let _ = sessions;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_lifetime(mut self, lifetime: Lifetime) -> Result<Self> {
        lifetime.check()?;
        Arc::make_mut(&mut self.context).lifetime = lifetime;
        Ok(self)
    }

    /// Calls `observer` whenever something happens to a session: log it, count it, raise an alarm. It runs on the
    /// request's thread: keep it short. A panic in it is contained. Without an observer, failures are one line each on
    /// standard error.
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Sessions};
    /// use sessile::Event;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = FileStore::open(dir.path())?;
    /// let sessions = Sessions::new(store, Cookies::https())?.with_observer(|event| match event {
    ///     Event::Failed(error) => eprintln!("a request failed: {error}"),
    ///     Event::Created(id) => println!("new session {id}"), // an id for logs, no secret
    ///     _ => {}
    /// });
    /// # let _ = sessions;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_observer(mut self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.context).observer = Observer::new(observer);
        self
    }

    /// The session of a request, from the values of *all* its `Cookie` header lines. Cannot fail and does no I/O: a
    /// request that never uses its session costs this parse and nothing else.
    ///
    /// Takes one header value, an `Option` of one, or any number of them:
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// let visit = sessions.visit("theme=dark; lang=en");
    /// # visit.finish(200)?;
    /// let header: Option<&str> = None; // no Cookie header
    /// let visit = sessions.visit(header);
    /// # visit.finish(200)?;
    /// let visit = sessions.visit(["theme=dark", "lang=en"]); // two Cookie lines
    /// # visit.finish(200)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn visit<'h, Form>(&self, cookie_headers: impl CookieHeaders<'h, Form>) -> Visit {
        let tokens = cookie_headers.values().flat_map(|header| self.jar.tokens(header));
        let session = self.context.open_tokens(tokens);
        Visit { session, jar: self.jar.clone(), finished: false }
    }

    /// The session of the first live token among `tokens`, or a new session: for work outside of requests, and for programs
    /// that carry the token by other means than a cookie. Does no I/O. No response follows, so
    /// [`save`](Session::save) it yourself; one that is dropped saves nothing, and no event says so.
    ///
    /// The first 64 tokens are read; those that cannot be of this store are dropped. Of the others the first 32 are kept: four
    /// are looked up when the session is first used, and all are ended by [`Session::destroy`].
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// # let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// let mut session = sessions.session([]); // a new one
    /// session.insert("report", "is being written")?;
    /// session.save()?;
    /// let token = session.token()?; // a secret: keep it where the job can find it
    ///
    /// let mut session = sessions.session(token);
    /// session.insert("report", "is ready")?;
    /// session.save()?;
    /// # assert_eq!(session.get::<String>("report")?.as_deref(), Some("is ready"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn session(&self, tokens: impl IntoIterator<Item = Token>) -> Session {
        self.context.open_tokens(tokens.into_iter().map(Some))
    }

    /// The store.
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// # let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// assert!(sessions.store().guarantees().atomic_update);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.context.store
    }

    /// How long sessions live.
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Lifetime, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// # let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// assert_eq!(*sessions.lifetime(), Lifetime::default());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn lifetime(&self) -> &Lifetime {
        &self.context.lifetime
    }

    fn observe(&self, event: &Event<'_>) {
        self.context.observe(event);
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("lifetime", &self.context.lifetime)
            .field("cookies", &self.jar)
            .finish_non_exhaustive()
    }
}

/// One request's session, from its cookie to its response's headers. Use it as a [`Session`].
///
/// End it with [`finish`](Self::finish) or [`discard`](Self::discard). One that is dropped saves nothing; if that loses
/// changes, or a cookie that the browser needs, it is observed as [`Event::Failed`]. (Not in a panic, which says enough.)
#[must_use = "a visit that is dropped saves nothing; call `finish`"]
#[derive(Debug)]
pub struct Visit {
    session: Session,
    jar: Arc<Jar>,
    /// Whether the response's headers were asked for.
    finished: bool,
}

impl Visit {
    /// Saves the session and says what the response must carry. `status` is the response's: at 500 and above nothing is
    /// saved. Call it *before* the response is sent.
    ///
    /// # Errors
    ///
    /// [`SaveError`], with the headers that the error's response must carry. If its error is
    /// [`ErrorKind::Gone`], another request ended the session and this one's changes (never a
    /// login) are lost: answer 409.
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// # let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// # let mut response: Vec<(String, String)> = Vec::new();
    /// let mut visit = sessions.visit("theme=dark");
    /// visit.insert("cart", ["apple"])?;
    /// match visit.finish(200) {
    ///     Ok(headers) => headers.apply_to(&mut response),
    ///     // A response of status 500 or 409, with these headers.
    ///     Err(failed) => failed.headers.apply_to(&mut response),
    /// }
    /// # assert_eq!(response.len(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn finish(mut self, status: u16) -> Result<Headers, SaveError> {
        self.settle(status)
    }

    /// [`finish`](Self::finish), for adapters that survive a panic in it.
    fn settle(&mut self, status: u16) -> Result<Headers, SaveError> {
        self.finished = true;
        let saved = if status < 500 { self.session.commit() } else { Ok(()) };
        saved.and_then(|()| self.headers(false)).map_err(|error| self.fail(error))
    }

    /// Drops what was changed, and says what the response must carry all the same: cookies of what was already done
    /// (`destroy`, `save`, `update_now`). For failed requests.
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// # let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// let mut visit = sessions.visit("theme=dark");
    /// visit.insert("cart", ["apple"])?;
    /// let headers = visit.discard(); // the cart is not stored, and no cookie is set
    /// assert_eq!(headers, [("Vary", "Cookie".to_owned())]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn discard(mut self) -> Headers {
        self.finished = true;
        self.headers(false).unwrap_or_else(|error| self.fail(error).headers)
    }

    /// Reports a failure and says what its response must carry.
    fn fail(&mut self, error: Error) -> SaveError {
        self.finished = true;
        self.session.observe(&Event::Failed(&error));
        // Without the cookie, if that is what cannot be made.
        let without_cookie = |_| {
            let mut headers = Headers::default();
            headers.push("Vary", "Cookie");
            headers.push("Cache-Control", "no-store");
            headers
        };
        let headers = self.headers(true).unwrap_or_else(without_cookie);
        SaveError { error, headers }
    }

    /// # Errors
    ///
    /// The token does not fit into a cookie.
    fn headers(&self, failed: bool) -> Result<Headers> {
        let cookie = match self.session.cookie_news() {
            CookieNews::Nothing => None,
            CookieNews::Token { token, until } => Some(self.jar.set(token, *until)?),
            CookieNews::Removed => Some(self.jar.removal()),
        };
        let mut headers = Headers::default();
        // Also if only the deadline was moved: what a cache keeps for one visitor must not reach another.
        if self.session.accessed() || cookie.is_some() {
            headers.push("Vary", "Cookie");
        }
        let private = self.session.accessed() && self.session.is_live();
        let has_cookie = cookie.is_some();
        if let Some(cookie) = cookie {
            headers.push("Set-Cookie", cookie);
        }
        if has_cookie || failed || self.session.save_failed() {
            headers.push("Cache-Control", "no-store");
        } else if private {
            headers.push("Cache-Control", "private");
        }
        Ok(headers)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.finished || !self.session.is_unfinished() || std::thread::panicking() {
            return;
        }
        let reason = "its visit was dropped, with changes or a cookie for the browser; call `finish` before the response is \
                      sent, or `discard`";
        let error = Error::new(ErrorKind::Unfinished, "save session").with_reason(reason);
        self.session.observe(&Event::Failed(&error));
    }
}

impl Deref for Visit {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Visit {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}

/// A session that could not be saved, with the headers that the response to it must carry.
pub struct SaveError {
    /// Why.
    pub error: Error,
    /// To append to the response that says so.
    pub headers: Headers,
}

impl fmt::Debug for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The headers show no cookie: an `unwrap` prints this.
        f.debug_struct("SaveError").field("error", &self.error).field("headers", &self.headers).finish()
    }
}

impl fmt::Display for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl StdError for SaveError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}
