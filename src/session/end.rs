//! How a request ends its session: in the store, at once, and in the browser, with its response.
use super::{CookieNews, Session};
use crate::error::Result;
use crate::event::Event;
use crate::id::PublicId;
use std::cell::OnceCell;

/// What [`Session::destroy`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destroyed {
    /// A live session, which is ended now. Also if an earlier `destroy` of this request was an error and had ended it.
    Ended,
    /// No live session: the request brought no id, or nothing is stored under it any more (it was ended or moved by another
    /// request, it has expired, or it was made up).
    WasGone,
}

impl Session {
    /// Ends the session at once, in the store, for every token the request brought; drops the entries and forgets the
    /// id. What is stored afterwards makes a new session. Nothing that happens later in the request undoes it.
    ///
    /// If the request brought a token, the response removes the cookie, whatever was found under it: else a logout that
    /// comes after another request has moved or ended the session would leave a cookie in the browser.
    ///
    /// # Errors
    ///
    /// The storage's trouble: the session may still be alive. Nothing is forgotten and the cookie stays, so that it can be
    /// tried again.
    ///
    /// ```
    /// use sessile::{Cookies, Destroyed, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// let mut visit = sessions.visit([]);
    /// visit.insert("cart", ["apple"])?;
    /// visit.save()?;
    /// assert_eq!(visit.destroy()?, Destroyed::Ended);
    /// assert_eq!(visit.destroy()?, Destroyed::WasGone);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "flush")]
    #[doc(alias = "logout")]
    pub fn destroy(&mut self) -> Result<Destroyed> {
        self.accessed.set(true);
        self.modified = true;
        let destroyed = self.end();
        let destroyed = self.noting_failure(destroyed)?;
        if self.came_with_token {
            self.remove_cookie();
        }
        Ok(destroyed)
    }

    /// Ends the session because its own expiry setting has passed. That is no logout: the cookie is removed only if it is
    /// the ended session's.
    pub(super) fn expire(&mut self) -> Result<()> {
        let held = self.found.get().and_then(Option::as_ref);
        let was_brought = held.is_some_and(|held| self.brought.contains(&held.token));
        if self.end()? == Destroyed::Ended && was_brought {
            self.remove_cookie();
        }
        Ok(())
    }

    /// Ends in the store what the request brought or made. Forgets nothing unless all of it is ended.
    fn end(&mut self) -> Result<Destroyed> {
        let held = self.found.get().and_then(Option::as_ref);
        let own = held.map(|held| &held.token).filter(|token| !self.brought.contains(token));
        let mut failure = None;
        let mut ended = false;
        let mut news_are_dead = false;
        for token in self.brought.iter().chain(own) {
            let deleted = self.context.store.delete(token);
            news_are_dead |= deleted.is_ok() && self.cookie.carries(token);
            match deleted {
                // After a failed attempt, "not there" may be that attempt's work.
                Ok(was_live) if was_live || self.end_failed => {
                    ended = true;
                    let digest = || PublicId::digest(token.expose().as_bytes());
                    let id = held.filter(|held| held.token == *token).map_or_else(digest, |held| held.id);
                    self.context.observe(&Event::Destroyed(id));
                }
                Ok(_) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        self.end_failed = failure.is_some();
        if news_are_dead {
            self.forget_token();
        }
        if let Some(error) = failure {
            return Err(error);
        }
        self.brought.clear();
        self.found = OnceCell::from(None);
        self.settle();
        Ok(if ended { Destroyed::Ended } else { Destroyed::WasGone })
    }

    fn remove_cookie(&mut self) {
        self.removes_cookie = true;
        self.cookie = CookieNews::Removed;
    }

    /// What the cookie was to carry is dead: a late response must not put it over a fresh login's.
    pub(super) fn forget_token(&mut self) {
        if matches!(self.cookie, CookieNews::Token { .. }) {
            self.cookie = if self.removes_cookie { CookieNews::Removed } else { CookieNews::Nothing };
        }
    }
}
