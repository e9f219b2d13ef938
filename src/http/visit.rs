//! One request's session: opened from its cookie, and saved before its response, with the headers that the response
//! must carry.
use super::cookie::Jar;
use super::{Headers, Sessions};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::session::{PendingCookie, Session};
use std::error::Error as StdError;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// One request's session, from its cookie to its response's headers. Use it as a [`Session`].
///
/// End it with [`finish`](Self::finish) or [`discard`](Self::discard). Dropping a visit saves nothing; if that loses
/// changes, or a cookie that the browser needs, the observer gets [`Event::Failed`]. (Not during a panic, which is
/// reported anyway.)
#[must_use = "a visit that is dropped saves nothing; call `finish`"]
#[derive(Debug)]
pub struct Visit {
    session: Session,
    jar: Arc<Jar>,
    /// Whether the headers of the response were returned to the caller.
    finished: bool,
}

impl Visit {
    /// Not inlined, so that the visit is built where the caller keeps it. It has some 600 bytes, and moving it would
    /// cost more than making it.
    #[inline(never)]
    pub(super) fn new(sessions: &Sessions) -> Self {
        let session = Session::new(Arc::clone(&sessions.context));
        Self { session, jar: Arc::clone(&sessions.jar), finished: false }
    }

    /// Saves the session and returns the headers that the response must carry. `status` is the response's; at 500 and
    /// above nothing is saved. Call it *before* the response is sent.
    ///
    /// # Errors
    ///
    /// [`SaveError`], with the headers that the error's response must carry. If its kind is [`ErrorKind::Gone`],
    /// another request ended the session or gave it a new id, and the changes of this one (never a login) are lost;
    /// respond with 409.
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
    pub fn finish(mut self, status: u16) -> Result<Headers, Box<SaveError>> {
        self.complete(status)
    }

    /// The same as [`finish`](Self::finish), for adapters, which can go on after a panic in it.
    pub(super) fn complete(&mut self, status: u16) -> Result<Headers, Box<SaveError>> {
        self.finished = true;
        if status < 500
            && let Err(error) = self.session.commit()
        {
            return Err(self.fail(error));
        }
        match self.set_cookie() {
            Ok(cookie) => Ok(self.headers(cookie, false)),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Drops the changes, and returns the headers that the response must carry all the same, because of operations that
    /// were made at once (`destroy`, `save`, `update_now`). For failed requests.
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// # let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// let mut visit = sessions.visit("theme=dark");
    /// visit.insert("cart", ["apple"])?;
    /// let headers = visit.discard(); // the cart is not stored, and no cookie is set
    /// assert_eq!(headers, [("Vary", "Cookie".into())]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn discard(mut self) -> Headers {
        self.finished = true;
        match self.set_cookie() {
            Ok(cookie) => self.headers(cookie, false),
            Err(error) => self.fail(error).headers,
        }
    }

    /// Reports a failure and returns the headers that its response must carry.
    pub(super) fn fail(&mut self, error: Error) -> Box<SaveError> {
        self.finished = true;
        self.session.observe(&Event::Failed(&error));
        let headers = if let Ok(cookie) = self.set_cookie() {
            self.headers(cookie, true)
        } else {
            // The session's cookie is left out, because it cannot be made.
            let mut headers = Headers::default();
            headers.push("Vary", "Cookie");
            headers.push("Cache-Control", "no-store");
            headers
        };
        Box::new(SaveError { error, headers })
    }

    /// The value of the response's `Set-Cookie`.
    ///
    /// # Errors
    ///
    /// The token does not fit into a cookie.
    fn set_cookie(&self) -> Result<Option<String>> {
        Ok(match self.session.pending_cookie() {
            PendingCookie::Nothing => None,
            PendingCookie::Token { token, until } => Some(self.jar.set(token, *until)?),
            PendingCookie::Removed => Some(self.jar.removal()),
        })
    }

    /// The headers of a response with this cookie. `failed` tells whether the response reports a failure.
    fn headers(&self, cookie: Option<String>, failed: bool) -> Headers {
        let mut headers = Headers::default();
        // `Vary` is sent even if the request has only moved the deadline: a response that a cache keeps for one visitor
        // must not be sent to another one.
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
        headers
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
    /// The error of the save.
    pub error: Error,
    /// The headers that the error's response must carry.
    pub headers: Headers,
}

impl fmt::Debug for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A failed `unwrap` prints this text. `Headers` prints no cookie.
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
