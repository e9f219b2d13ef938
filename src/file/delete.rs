//! Deleting a session, so that it stays deleted.
//!
//! **The name is removed last.** Under the session's lock, the tombstone is written into its file and synced, all
//! caches are invalidated, and only then is the name removed (rule 6 for crashes in
//! [`design`](crate::_documentation::design)): an absent name proves that the deletion is complete. If the tombstone
//! cannot be written or synced, the file is first *moved* to a name that marks an unfinished deletion; that name is
//! removed last. If the session cannot be locked or its file cannot be read, `force_delete` applies.
//!
//! A rotation ends the old session in the same way, but for a grace period it writes the mark of a moved session
//! instead of the tombstone, and leaves the name (`moved`). If that fails, it ends the old session. A delete of a moved
//! id goes on to the session that has its place.
//!
//! - An id without a session costs lookups only: no write, no lock, no sync.
//! - A link, pipe, directory or device, and a file of a newer version, are refused and stay.
use super::FileStore;
use super::coherence::Cause;
use super::disk::{self, Directory};
use super::layout::SessionPath;
use super::session_lock::{LockResult, Locked, SessionRef, UnreadableFile, write_tombstone};
use super::slot::{MARK_LEN, Mark, State};
use crate::error::{Error, ErrorKind, Result};
use crate::id::PublicId;
use crate::store::HOPS_MAX;
use crate::sync::Instant;
use std::fs::File;
use std::io;

/// The result of deleting under one id.
enum Deletion {
    /// Whether a live session was there.
    Done(bool),
    /// The id was moved; the session is under this one.
    Moved(PublicId),
}

/// The result of writing the mark of a moved session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Marked {
    /// The mark is on the disk, as far as required.
    Synced,
    /// The mark is not written, or in part.
    NotWritten,
    /// The mark is written, and a sync failed, so that another one proves nothing.
    NotSynced,
}

/// The locked session file of a session that is being deleted.
#[derive(Clone, Copy)]
struct Dying<'a> {
    session: SessionRef<'a>,
    shard: &'a Directory,
    path: &'a SessionPath,
    file: &'a File,
    /// The offset of the tombstone in the file.
    offset: u64,
    /// The flags of the inode.
    state: State,
    /// The mark of a session that is moved and not ended, and the offset of the slot for it: the older one.
    mark: Option<([u8; MARK_LEN], u64)>,
}

impl FileStore {
    /// Deletes a session. Returns whether a live session was there.
    ///
    /// An id without a session costs lookups only: no write, no lock, no sync. From an id that a rotation has moved,
    /// the way goes on to the session that has its place, within the grace period.
    pub(super) fn delete_file(&self, session: SessionRef<'_>) -> Result<bool> {
        self.delete_until(session, Instant::now() + self.options.lock_wait)
    }

    /// [`delete_file`](Self::delete_file) that waits for locks until the deadline.
    pub(super) fn delete_until(&self, mut session: SessionRef<'_>, deadline: Instant) -> Result<bool> {
        for _ in 0..=HOPS_MAX {
            match self.delete_under(session, deadline)? {
                Deletion::Done(was_live) => return Ok(was_live),
                Deletion::Moved(next) => session = SessionRef::PublicId(next),
            }
        }
        Ok(false)
    }

    /// Deletes the session under one id.
    fn delete_under(&self, session: SessionRef<'_>, deadline: Instant) -> Result<Deletion> {
        let id = session.public_id();
        let shard = self.open_shard(&id)?;
        let next_hop = |mark: Option<Mark>, was_live| {
            mark.and_then(|mark| self.next_hop(&mark)).map_or(Deletion::Done(was_live), Deletion::Moved)
        };
        let ended = match self.lock_session(session, Some(&shard), deadline) {
            Ok(LockResult::Session(locked)) => {
                let record = &locked.newest.record;
                // A log that cannot be read keeps no session from being ended.
                let is_live = !self.is_expired(record) && !self.is_cut_off(record, &id).unwrap_or(false);
                self.delete_locked(&shard, &locked, None)
                    .map(|was_there| Deletion::Done(was_there && is_live))
            }
            Ok(LockResult::Moved(moved)) => {
                self.complete_mark(&shard, &moved).map(|()| next_hop(Some(moved.view.mark), false))
            }
            Ok(LockResult::Unreadable(unreadable)) => {
                self.delete_unreadable(session, &shard, &unreadable).map(|()| Deletion::Done(false))
            }
            Ok(LockResult::Missing) => {
                self.delete_missing(session, &id, &shard).map(|mark| next_hop(mark, false))
            }
            // Another writer has the lock for too long (a stopped process, say), or the file cannot be read. A logout
            // waits for neither.
            Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::TooLarge | ErrorKind::Io) => {
                self.delete_unlocked(session, &id, &shard)
                    .map(|(was_there, mark)| next_hop(mark, was_there && mark.is_none()))
            }
            // A foreign file is left alone: another kind of file, or the session of another version's format.
            Err(error) => return Err(error),
        };
        session.session_id().inspect(|session| self.coherence.forget(session));
        ended
    }

    /// Deletes a file without a readable version, and finishes the session's deletion if it was interrupted.
    fn delete_unreadable(
        &self,
        session: SessionRef<'_>,
        shard: &Directory,
        unreadable: &UnreadableFile<'_>,
    ) -> Result<()> {
        let id = session.public_id();
        let path = &SessionPath::of(&id);
        let invalidate = || self.coherence.invalidate(&id, session.session_id(), Cause::Ended).map(drop);
        if !unreadable.is_damaged {
            // The file has no readable version, so its flags are unknown. It may have replaced an older file, to which
            // a power cut could give the name back. With this flag, the deletion syncs the shard first.
            let dying = Dying {
                session,
                shard,
                path,
                file: &unreadable.file,
                offset: 0,
                state: State::REPLACES,
                mark: None,
            };
            return self.delete_in_place(&dying, invalidate).map(drop);
        }
        // No tombstone is written, because the file may be a hard link to another session file. After a power cut the
        // name may lead to the damaged file again.
        invalidate()?;
        self.unlink(shard, path)?;
        self.sync_name(shard, path)
    }

    /// Deletes a session that has no file: finishes a deletion that was begun without the lock, if there is one.
    /// Returns the mark in that file.
    fn delete_missing(
        &self,
        session: SessionRef<'_>,
        id: &PublicId,
        shard: &Directory,
    ) -> Result<Option<Mark>> {
        let mark = self.delete_ending(session, id, shard)?;
        // A session that was removed outside the library was not invalidated. A made-up id never has a copy.
        if session.session_id().is_some_and(|session| self.coherence.known(session).is_some()) {
            self.coherence.invalidate(id, session.session_id(), Cause::Ended)?;
        }
        Ok(mark)
    }

    /// Deletes a session under its lock, or marks it as moved. Returns whether its name was still there.
    pub(super) fn delete_locked(
        &self,
        shard: &Directory,
        locked: &Locked<'_>,
        mark: Option<&Mark>,
    ) -> Result<bool> {
        let older = locked.offset(1 - locked.slot);
        let dying = Dying {
            session: locked.session,
            shard,
            path: &locked.path,
            file: &locked.file,
            offset: locked.offset(locked.slot),
            state: locked.state(),
            mark: mark.and_then(|mark| locked.encode_mark(mark)).map(|mark| (mark, older)),
        };
        self.delete_in_place(&dying, || locked.invalidate_ended())
    }

    /// Deletes the session of a file that is locked, or marks it as moved; the name is removed last. Returns whether
    /// the name was still there.
    fn delete_in_place(&self, dying: &Dying<'_>, invalidate: impl Fn() -> Result<()>) -> Result<bool> {
        let syncs = self.options.sync_security_events;
        // A power cut may give the name back to an older file. So the name of this file is made durable before it is
        // removed.
        let name =
            if syncs && dying.state.name_may_fall_back() { dying.shard.sync_changed_name() } else { Ok(()) };
        let marked = if name.is_ok() { self.mark_as_moved(dying) } else { Marked::NotWritten };
        if marked == Marked::Synced {
            invalidate()?;
            return self.complete_move(dying).map_err(|error| self.left_behind(dying.path, error));
        }
        let is_unsynced = marked == Marked::NotSynced;
        let state = if is_unsynced { dying.state.and(State::SYNC_FAILED) } else { dying.state };
        let dying = &Dying { state, ..*dying };
        // Beside a mark that is not on the disk, a tombstone would say that the mark is complete.
        let is_ended = !is_unsynced && name.is_ok() && write_tombstone(dying.file, dying.offset).is_ok();
        let ended = if is_ended && self.sync_tombstone(dying) {
            invalidate()?;
            self.remove_ended(dying)
        } else {
            self.delete_by_moving(dying, invalidate)
        };
        match (name, ended) {
            (Err(error), Ok(_)) => Err(self.delete_unknown(dying.path, error)),
            // The session cannot be read any more; whether its file is gone is not known.
            (_, Err(error))
                if (is_ended || is_unsynced)
                    && !matches!(
                        error.kind(),
                        ErrorKind::DurabilityUnknown | ErrorKind::InvalidationFailed
                    ) =>
            {
                Err(self.left_behind(dying.path, error))
            }
            (_, ended) => ended,
        }
    }

    /// Marks a session as moved, if it is to be: the mark into the older slot, synced if ends are synced.
    fn mark_as_moved(&self, dying: &Dying<'_>) -> Marked {
        let Some((mark, offset)) = &dying.mark else { return Marked::NotWritten };
        // After a failed sync of this inode, no later one proves that the mark is on the disk.
        if self.options.sync_security_events && dying.state.has(State::SYNC_FAILED) {
            return Marked::NotWritten;
        }
        if disk::write_at(dying.file, mark, *offset).is_err() {
            return Marked::NotWritten;
        }
        if self.sync_tombstone(dying) { Marked::Synced } else { Marked::NotSynced }
    }

    /// Completes a mark that is synced, when the copies are invalidated: a tombstone over the newest version says so.
    /// Returns whether the session's name still leads to the file.
    fn complete_move(&self, dying: &Dying<'_>) -> Result<bool> {
        // If this fails, the next deletion, login or sweep that meets the mark completes it again.
        let _ = write_tombstone(dying.file, dying.offset);
        self.is_current_file(dying.path, dying.file)
    }

    /// The error of an end that all processes see, while its file may be left.
    fn left_behind(&self, path: &SessionPath, error: Error) -> Error {
        Error::new(ErrorKind::DurabilityUnknown, "remove the file of an ended session")
            .with_path(self.path().join(path.as_str()))
            .with_reason("the session was ended, and its file may be left")
            .with_source(error)
    }

    /// Removes the name of a session whose copies are invalidated and whose tombstone is synced, if ends are synced.
    /// Returns whether the name was still there.
    fn remove_ended(&self, dying: &Dying<'_>) -> Result<bool> {
        if !self.is_current_file(dying.path, dying.file)? {
            return Ok(false);
        }
        // A name that cannot be removed leads to a tombstone: the session is ended, and a sweep removes the file.
        Ok(dying.shard.unlink(dying.path.below_shard()).unwrap_or(true))
    }

    /// Deletes a session under its lock if a tombstone cannot be written or synced. Returns whether its name was still
    /// there.
    fn delete_by_moving(&self, dying: &Dying<'_>, invalidate: impl Fn() -> Result<()>) -> Result<bool> {
        // After a forced delete, another session may have been imported under this name.
        if !self.is_current_file(dying.path, dying.file)? || !self.move_away(dying.shard, dying.path)? {
            // The `delete` that moved the file away may have been killed since.
            self.delete_ending(dying.session, &dying.session.public_id(), dying.shard)?;
            return Ok(false);
        }
        let _ = write_tombstone(dying.file, dying.offset);
        self.finish_delete(dying.shard, dying.path, Some(dying.file), invalidate)?;
        Ok(true)
    }

    /// Syncs the tombstone, if ends are synced. Returns whether it is durable, as far as required.
    fn sync_tombstone(&self, dying: &Dying<'_>) -> bool {
        let is_reliable = !dying.state.has(State::SYNC_FAILED);
        !self.options.sync_security_events || is_reliable && disk::sync_data(dying.file).is_ok()
    }

    /// Syncs the removal of a session's name, if ends are synced.
    pub(super) fn sync_name(&self, shard: &Directory, path: &SessionPath) -> Result<()> {
        if !self.options.sync_security_events {
            return Ok(());
        }
        shard.sync_changed_name().map_err(|error| self.delete_unknown(path, error))
    }

    /// Removes a session that is locked and has expired. Returns whether its name was still there.
    pub(super) fn remove(&self, shard: &Directory, locked: &Locked<'_>) -> Result<bool> {
        // The mark makes writers that wait for the lock look the path up again: when they get the lock, the clock may
        // have been set back, or the session imported again. Best effort, because a sweep must also work on a disk that
        // is too full for the mark.
        let _ = locked.retire();
        locked.invalidate_ended()?;
        Ok(self.is_current_file(&locked.path, &locked.file)? && self.unlink(shard, &locked.path)?)
    }

    pub(super) fn unlink(&self, shard: &Directory, path: &SessionPath) -> Result<bool> {
        shard.unlink(path.below_shard()).map_err(|error| self.root.error("remove session file", path, error))
    }

    /// The error of a delete that all processes see, but that a power cut may undo.
    fn delete_unknown(&self, path: &SessionPath, error: io::Error) -> Error {
        self.root
            .unknown("sync the end of session", path, error)
            .with_reason("the session was ended, and may come back after a power cut")
    }
}
