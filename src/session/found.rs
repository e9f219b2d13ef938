//! The session that a request's tokens lead to: looked up once, when the session is first used.
use super::Session;
use crate::error::Result;
use crate::event::{Event, User};
use crate::id::{PublicId, Token};
use crate::record::Record;
use crate::store::{Absent, Lookup, Moved};

/// The most candidates that are looked up to find the live one, because each lookup costs a read of the disk.
const LOOKED_UP_MAX: usize = 4;

/// The session that the candidates lead to.
pub(super) enum Found {
    /// The first live session.
    Live(Current),
    /// No session is live. A rotation or a login has moved this token, and its grace period is not over: the request
    /// was sent before the browser had the new token. It opens nothing, and nothing is stored for it but a login.
    Moved(Token),
    /// No session is live, and no token is moved: something that is stored makes a new session.
    Nothing,
}

/// A live session as it was loaded or last saved.
pub(super) struct Current {
    pub(super) token: Token,
    pub(super) record: Record,
    pub(super) id: PublicId,
}

impl Session {
    /// The live session among the candidates, for a method that counts as a read.
    pub(super) fn load(&self) -> Result<Option<&Current>> {
        self.read.set(true);
        self.look()
    }

    /// The live session among the candidates, for a method that does not count as a read.
    pub(super) fn look(&self) -> Result<Option<&Current>> {
        self.accessed.set(true);
        self.find()
    }

    /// The live session among the candidates, if there is one. The result is remembered; a failure is not.
    pub(super) fn find(&self) -> Result<Option<&Current>> {
        if self.found.get().is_none() {
            let found = self.look_up()?;
            // The cell is still empty, because `look_up` calls the store and the observer, and neither has this
            // session.
            let _ = self.found.set(found);
        }
        Ok(self.current())
    }

    /// The session if it is loaded and live.
    pub(super) fn current(&self) -> Option<&Current> {
        match self.found.get() {
            Some(Found::Live(current)) => Some(current),
            _ => None,
        }
    }

    /// The moved token, if the session is loaded and that is what was found.
    pub(super) fn moved(&self) -> Option<&Token> {
        match self.found.get() {
            Some(Found::Moved(token)) => Some(token),
            _ => None,
        }
    }

    fn look_up(&self) -> Result<Found> {
        let mut moved = None;
        for token in self.candidates.iter().take(LOOKED_UP_MAX) {
            let store = &self.context.store;
            match store.load(token)? {
                Lookup::Live(live) if !self.context.lifetime.is_over(&live.record, store.now()) => {
                    return Ok(Found::Live(Current {
                        token: token.clone(),
                        record: live.record,
                        id: live.id,
                    }));
                }
                Lookup::Live(live) => self.context.observe(&Event::Expired(live.id)),
                Lookup::Absent(absent) => {
                    let is_moved = self.note_absent(absent, token);
                    moved = moved.or(is_moved.then_some(token));
                }
            }
        }
        Ok(moved.cloned().map_or(Found::Nothing, Found::Moved))
    }

    /// Reports why a token was not found, unless it is moved within its grace period, which is expected of a request
    /// beside a login. Returns whether it is.
    #[cold]
    fn note_absent(&self, absent: Absent, token: &Token) -> bool {
        match absent {
            Absent::Moved(moved) if moved.is_within_grace(self.context.store.now()) => return true,
            Absent::Malformed => self.observe_malformed(),
            Absent::NotFound(id) => self.context.observe(&Event::NotFound(id)),
            Absent::Expired(id) => self.context.observe(&Event::Expired(id)),
            Absent::Damaged(id) => self.context.observe(&Event::Damaged(id)),
            Absent::Moved(Moved { id, .. }) => {
                // The user is for the log only, so a failure to find it is no failure of the request.
                let successor = self.context.store.successor(token).ok().flatten();
                let user = successor.as_ref().and_then(|live| live.record.user()).map(User::new);
                self.context.observe(&Event::Reused { id, user });
            }
        }
        false
    }
}
