//! The destruction of a session by a request: in the store at once, and in the browser by the response.
use super::Session;
use super::found::Found;
use crate::error::Result;
use crate::store::{EndReason, EndedSession};
use std::cell::OnceCell;

/// Whether [`Session::destroy`] found a live session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destroyed {
    /// A live session was found and is ended now. Also returned if an earlier, failed `destroy` of this request had
    /// ended it.
    Ended,
    /// No live session: the request presented no id, or no session is stored under it any more (another request ended
    /// it or has logged a user in, it has expired, or the id was made up).
    WasGone,
}

impl Session {
    /// Ends the session at once, in the store, for every token that the request presented; drops the entries and
    /// forgets the id. An entry that is stored afterwards makes a new session. No later operation of the request undoes
    /// the end.
    ///
    /// If another request has rotated the session's id meanwhile, the session with the new id is ended: that is the one
    /// in which the visitor pressed the button. A session that another request's login has made is not.
    ///
    /// If the request presented a token, the response removes the cookie, even if no session was found. Otherwise a
    /// logout that comes after another request has moved or ended the session would leave a cookie in the browser.
    ///
    /// # Errors
    ///
    /// The storage failed, and the session may still be alive. The session keeps its state and the cookie stays, so
    /// that the call can be tried again.
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
        let destroyed = self.destroy_in_store(EndReason::Logout);
        let destroyed = self.note_failure(destroyed)?;
        if self.presented_token {
            self.remove_cookie();
        }
        Ok(destroyed)
    }

    /// Deletes the sessions of all tokens that the request has sent, and one that this request has created. The state
    /// of this session changes only if all could be deleted.
    pub(super) fn destroy_in_store(&mut self, reason: EndReason) -> Result<Destroyed> {
        let current = self.current();
        let own = current.map(|current| &current.token).filter(|token| !self.candidates.contains(token));
        let (mut failure, mut failed) = (None, Vec::new());
        let mut ended = false;
        let mut cookie_is_dead = false;
        for token in self.candidates.iter().chain(own) {
            let removed = self.context.store.end(token);
            cookie_is_dead |= removed.is_ok() && self.cookie.carries(token);
            match removed {
                Ok(removed) => {
                    // The session may be absent because an earlier, failed attempt of this request has ended it, under
                    // an id that is not known here.
                    let presented = || {
                        let of_current = current.filter(|current| current.token == *token);
                        match of_current {
                            Some(current) => EndedSession::live(current.id, Some(current.record.clone())),
                            None => EndedSession::live(token.public_id(), None),
                        }
                    };
                    let had_failed = self.failed_ends.contains(token);
                    if let Some(removed) = removed.or_else(|| had_failed.then(presented)) {
                        ended |= removed.was_live();
                        self.context.observer.notify_ends([&removed], reason);
                    }
                }
                Err(error) => {
                    failure = failure.or(Some(error));
                    failed.push(token.clone());
                }
            }
        }
        self.failed_ends = failed;
        if cookie_is_dead {
            self.drop_cookie();
        }
        if let Some(error) = failure {
            return Err(error);
        }
        self.candidates.clear();
        self.found = OnceCell::from(Found::Nothing);
        self.clear_pending();
        Ok(if ended { Destroyed::Ended } else { Destroyed::WasGone })
    }
}
