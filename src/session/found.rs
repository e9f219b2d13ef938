//! The session that a request's tokens lead to. It is looked up once, when the session is first used.
use super::Session;
use crate::error::Result;
use crate::event::{Event, User};
use crate::id::{PublicId, Token};
use crate::record::Record;
use crate::store::{Absent, Lookup, Moved};

/// The number of tokens of a request that are looked up, at most, because each lookup costs a read of the disk.
const LOOKED_UP_MAX: usize = 4;

/// The session that the request's tokens lead to.
pub(super) enum Found {
    /// The session of the first token that has a live one.
    Live(Current),
    /// No token has a live session. A rotation or a login has moved this one, and its grace period has not ended: the
    /// request was sent before the browser had the new token. It opens no session, and only a login stores anything.
    Moved(Token),
    /// No token has a live session, and none is moved. If the request stores anything, it creates a session.
    Nothing,
}

/// A live session, with the record that was loaded or saved last.
pub(super) struct Current {
    pub(super) token: Token,
    pub(super) record: Record,
    pub(super) id: PublicId,
}

impl Session {
    /// The live session, for a method that counts as a read.
    pub(super) fn load(&self) -> Result<Option<&Current>> {
        self.read.set(true);
        self.look()
    }

    /// The live session, for a method that does not count as a read.
    pub(super) fn look(&self) -> Result<Option<&Current>> {
        self.accessed.set(true);
        self.find()
    }

    /// The live session, if there is one. The result of the lookup is remembered; an error is not.
    pub(super) fn find(&self) -> Result<Option<&Current>> {
        if self.found.get().is_none() {
            let found = self.look_up()?;
            // `found` is still empty: `look_up` calls the store and the observer, and neither can reach this session.
            let _ = self.found.set(found);
        }
        Ok(self.current())
    }

    /// The live session, if it was looked up and found.
    pub(super) fn current(&self) -> Option<&Current> {
        match self.found.get() {
            Some(Found::Live(current)) => Some(current),
            _ => None,
        }
    }

    /// The token that was moved, if the lookup found that and no live session.
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

    /// Reports to the observer why a token was not found. A token that was moved within its grace period is not
    /// reported, because requests beside a login have one. Returns whether the token is such a one.
    #[cold]
    fn note_absent(&self, absent: Absent, token: &Token) -> bool {
        match absent {
            Absent::Moved(moved) if moved.is_within_grace(self.context.store.now()) => return true,
            Absent::Malformed => self.observe_malformed(),
            Absent::NotFound(id) => self.context.observe(&Event::NotFound(id)),
            Absent::Expired(id) => self.context.observe(&Event::Expired(id)),
            Absent::Damaged(id) => self.context.observe(&Event::Damaged(id)),
            Absent::Moved(Moved { id, .. }) => {
                // The user is for the log only. So if it cannot be found, the request does not fail.
                let successor = self.context.store.successor(token).ok().flatten();
                let user = successor.as_ref().and_then(|live| live.record.user()).map(User::new);
                self.context.observe(&Event::Reused { id, user });
            }
        }
        false
    }
}
