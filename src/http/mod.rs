//! The web front: `Cookie` header values in, header pairs out. Knows no server; `tiny_http` and `rouille`, features of the
//! same names, are thin layers over it, and any server that can hand over header strings can do without them.
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
#[cfg(any(feature = "tiny_http", feature = "rouille"))]
mod handler;
mod headers;
#[cfg(feature = "rouille")]
pub mod rouille;
#[cfg(feature = "tiny_http")]
pub mod tiny_http;

pub use cookie::{Cookies, SameSite};
pub use headers::Headers;

use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::lifetime::Lifetime;
use crate::session::{CookieNews, Session, SessionManager};
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
#[derive(Clone, Debug)]
pub struct Sessions {
    manager: SessionManager,
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
    pub fn new(store: impl Store + 'static, cookies: Cookies) -> Result<Self> {
        Ok(Self { manager: SessionManager::new(Arc::new(store)), jar: Arc::new(Jar::new(cookies)?) })
    }

    /// Sets how long sessions live.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] names the option that is out of its bounds.
    pub fn with_lifetime(mut self, lifetime: Lifetime) -> Result<Self> {
        self.manager = self.manager.with_lifetime(lifetime)?;
        Ok(self)
    }

    /// Calls `observer` whenever something happens to a session: log it, count it, raise an alarm. It runs on the
    /// request's thread: keep it short. A panic in it is contained. Without an observer, failures are one line each on
    /// standard error.
    #[must_use]
    pub fn with_observer(mut self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.manager = self.manager.with_observer(observer);
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
        let session = self.manager.open_brought(tokens);
        Visit { session, jar: self.jar.clone(), finished: false }
    }

    /// The manager below, for work outside of requests.
    #[must_use]
    pub fn manager(&self) -> &SessionManager {
        &self.manager
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
    #[must_use]
    pub fn discard(mut self) -> Headers {
        self.finished = true;
        self.headers(false).unwrap_or_else(|error| self.fail(error).headers)
    }

    /// Reports a failure and says what its response must carry.
    fn fail(&mut self, error: Error) -> SaveError {
        self.finished = true;
        self.session.manager().observe(&Event::Failed(&error));
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
        self.session.manager().observe(&Event::Failed(&error));
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
