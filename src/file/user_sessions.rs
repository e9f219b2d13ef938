//! The sessions of a user: lists, and the end of one of them by its public id.
//!
//! The index says which files to read (`user_index`); each listed session is verified by its record: live, and this
//! user's.
use super::FileStore;
use super::errors::is_of_another_version;
use super::layout::USERS;
use super::session_lock::{LockResult, Locked, SessionRef};
use super::slots::View;
use super::user_index::{Digest, Insertion, Listed};
use crate::admin::Admin;
use crate::error::{ErrorKind, Result};
use crate::id::PublicId;
use crate::record::{Record, user_digest};
use crate::store::{Absent, EndedSession, HOPS_MAX, Live, Lookup, Page, Store, UserSession, UserSessions};
use crate::sync::Instant;

impl FileStore {
    /// A page of the live sessions of a user.
    pub(super) fn list_sessions_of(&self, user: &str, page: &Page) -> Result<UserSessions> {
        self.queues.check_process()?;
        let Some(digest) = user_digest(user) else {
            return Ok(UserSessions { complete: true, ..UserSessions::default() });
        };
        let listed = self.listed(&digest)?;
        let from = page.after.map_or(0, |after| listed.ids.partition_point(|id| *id <= after));
        let mut is_complete = listed.is_complete;
        let sessions = listed.ids[from..].iter().filter_map(|id| match self.live_of(user, id) {
            Ok(live) => live.map(|live| Ok(UserSession::of(&live))),
            // This version cannot tell whether the session is live.
            Err(error) if is_of_another_version(&error) => {
                is_complete = false;
                None
            }
            Err(error) => Some(Err(error)),
        });
        let mut of_page = UserSessions::page(page, true, sessions)?;
        of_page.complete = is_complete;
        Ok(of_page)
    }

    /// The sessions that the index lists for a user.
    pub(super) fn listed(&self, digest: &Digest) -> Result<Listed> {
        let listed = self
            .user_index
            .find(&self.root, digest)
            .map_err(|error| self.root.error_at("read user index", USERS, error))?;
        if listed.is_damaged && !self.options.read_only {
            self.user_index.set_incomplete(&self.root);
        }
        Ok(listed)
    }

    /// The session if it is live and this user's.
    pub(super) fn live_of(&self, user: &str, id: &PublicId) -> Result<Option<Live>> {
        Ok(match self.load_by_id(id)? {
            Lookup::Live(live) if live.record.user() == Some(user) => Some(live),
            _ => None,
        })
    }

    /// Deletes a session if it is live and this user's.
    pub(super) fn delete_session_of_user(&self, user: &str, id: &PublicId) -> Result<Option<EndedSession>> {
        self.check_may_write()?;
        for _ in 0..=HOPS_MAX {
            let Some(meant) = self.session_meant(*id)? else { return Ok(None) };
            let (session, shard) = (SessionRef::PublicId(meant), self.open_shard(&meant)?);
            return match self.lock_session(session, Some(&shard), Instant::now() + self.options.lock_wait) {
                Ok(LockResult::Session(locked)) if self.is_live_of(user, &locked)? => {
                    let ended = EndedSession::live(meant, Some(locked.newest.record.clone()));
                    self.delete_locked(&shard, &locked, None).map(|was_there| was_there.then_some(ended))
                }
                Ok(LockResult::Moved(_)) => continue,
                Ok(LockResult::Session(_) | LockResult::Missing | LockResult::Unreadable(_)) => Ok(None),
                // A writer that keeps its lock does not keep the session alive. (The session can only have become
                // another user's by a save that it makes just now.)
                Err(error) if error.kind() == ErrorKind::Busy && self.live_of(user, &meant)?.is_some() => {
                    self.delete_file(session)
                }
                Err(error) => Err(error),
            };
        }
        Ok(None)
    }

    /// Whether a locked session is live and this user's.
    pub(super) fn is_live_of(&self, user: &str, locked: &Locked<'_>) -> Result<bool> {
        let record = &locked.newest.record;
        self.coherence.cut_off_view()?;
        Ok(record.user() == Some(user)
            && !record.is_expired(self.now())
            && !self.is_cut_off(record, &locked.id)?)
    }

    /// The live session that is meant by an id: rotations are followed, within their grace periods.
    pub(super) fn session_meant(&self, mut id: PublicId) -> Result<Option<PublicId>> {
        for _ in 0..=HOPS_MAX {
            let next = match self.load_by_id(&id)? {
                Lookup::Live(_) => return Ok(Some(id)),
                Lookup::Absent(Absent::Moved(_)) => match self.read(SessionRef::PublicId(id), &id, None)? {
                    Some(View::Moved(moved)) => self.next_hop(&moved.mark),
                    _ => None,
                },
                Lookup::Absent(_) => None,
            };
            let Some(next) = next else { return Ok(None) };
            id = next;
        }
        Ok(None)
    }

    /// Lists a session that is about to be created under its user.
    pub(super) fn list_under_user(&self, id: PublicId, record: &Record) -> Option<Insertion<'_>> {
        record.user_digest().map(|digest| self.user_index.insert(&self.root, &digest, id))
    }

    /// Lists a session under another user that a save is about to set.
    pub(super) fn list_under_new_user(
        &self,
        id: PublicId,
        before: &Record,
        record: &Record,
    ) -> Option<Insertion<'_>> {
        if record.has_user_of(before) { None } else { self.list_under_user(id, record) }
    }
}
