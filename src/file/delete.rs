//! Deleting a session, so that it stays deleted.
//!
//! **The name is removed last.** Under the session's lock, the tombstone is written into its file and synced, all
//! caches are invalidated, and only then is the name removed (rule 6 for crashes in
//! [`design`](crate::_documentation::design)): an absent name proves that the deletion is complete. If the tombstone
//! cannot be written or synced, the file is first *moved* to a name that marks an unfinished deletion; that name is
//! removed last. If the session cannot be locked or its file cannot be read, `force_delete` applies.
//!
//! - An id without a session costs lookups only: no write, no lock, no sync.
//! - A link, pipe, directory or device, and a file of a newer version, are refused and stay.
use super::FileStore;
use super::coherence::Cause;
use super::disk::{self, Directory};
use super::layout::SessionPath;
use super::session_lock::{LockResult, Locked, SessionRef, UnreadableFile, write_tombstone};
use super::slot::State;
use crate::error::{Error, ErrorKind, Result};
use crate::id::PublicId;
use crate::sync::Instant;
use std::fs::File;
use std::io;

/// The locked file of a session that is being deleted.
struct Dying<'a> {
    session: SessionRef<'a>,
    shard: &'a Directory,
    path: &'a SessionPath,
    file: &'a File,
    /// The offset of the tombstone in the file.
    offset: u64,
    /// The flags of the inode.
    state: State,
}

impl FileStore {
    /// Deletes a session. Returns whether a live session was there.
    ///
    /// An id without a session costs lookups only: no write, no lock, no sync.
    pub(super) fn delete_file(&self, session: SessionRef<'_>) -> Result<bool> {
        let id = session.public_id();
        let shard = self.open_shard(&id)?;
        let result = self.lock_session(session, Some(&shard), Instant::now() + self.options.lock_wait);
        let ended = match result {
            Ok(LockResult::Session(locked)) => {
                let is_live = !self.is_expired(&locked.newest.record);
                self.delete_locked(&shard, &locked).map(|was_there| was_there && is_live)
            }
            Ok(LockResult::Unreadable(unreadable)) => {
                self.delete_unreadable(session, &shard, &unreadable).map(|()| false)
            }
            Ok(LockResult::Missing) => self.delete_missing(session, &id, &shard).map(|()| false),
            // Another writer has the lock for too long (a stopped process, say), or the file cannot be read. A logout
            // waits for neither.
            Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::TooLarge | ErrorKind::Io) => {
                self.delete_unlocked(session, &id, &shard)
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
            // The flags of the inode were lost with its versions. So the file is treated as one that replaced another,
            // and its shard is synced.
            let dying =
                Dying { session, shard, path, file: &unreadable.file, offset: 0, state: State::REPLACES };
            return self.delete_in_place(&dying, invalidate).map(drop);
        }
        // No tombstone is written, because the file may be a hard link to another session's file. After a power cut the
        // name may lead to the damaged file again.
        invalidate()?;
        self.unlink(shard, path)?;
        self.sync_name(shard, path)
    }

    /// Deletes a session that has no file: finishes a deletion that was begun without the lock, if there is one.
    fn delete_missing(&self, session: SessionRef<'_>, id: &PublicId, shard: &Directory) -> Result<()> {
        self.delete_moved(session, id, shard)?;
        // A session that was removed outside the library was not invalidated. A made-up id never has a copy.
        if session.session_id().is_some_and(|session| self.coherence.known(session).is_some()) {
            self.coherence.invalidate(id, session.session_id(), Cause::Ended)?;
        }
        Ok(())
    }

    /// Deletes a session under its lock. Returns whether its name was still there.
    pub(super) fn delete_locked(&self, shard: &Directory, locked: &Locked<'_>) -> Result<bool> {
        let dying = Dying {
            session: locked.session,
            shard,
            path: &locked.path,
            file: &locked.file,
            offset: locked.offset(locked.slot),
            state: locked.state(),
        };
        self.delete_in_place(&dying, || locked.invalidate_ended())
    }

    /// Deletes the session of a file that is locked; the name is removed last. Returns whether the name was still
    /// there.
    fn delete_in_place(&self, dying: &Dying<'_>, invalidate: impl FnOnce() -> Result<()>) -> Result<bool> {
        let syncs = self.options.sync_security_events;
        // A power cut may give the name back to an older file. So the name of this file is made durable before it is
        // removed.
        let name =
            if syncs && dying.state.name_may_fall_back() { dying.shard.sync_changed_name() } else { Ok(()) };
        let is_marked = name.is_ok() && write_tombstone(dying.file, dying.offset).is_ok();
        let ended = if is_marked && self.sync_tombstone(dying) {
            invalidate()?;
            self.remove_ended(dying)
        } else {
            self.delete_by_moving(dying, invalidate)
        };
        match (name, ended) {
            (Err(error), Ok(_)) => Err(self.delete_unknown(dying.path, error)),
            // The session cannot be read any more; whether its file is gone is not known.
            (_, Err(error))
                if is_marked
                    && !matches!(
                        error.kind(),
                        ErrorKind::DurabilityUnknown | ErrorKind::InvalidationFailed
                    ) =>
            {
                Err(Error::new(ErrorKind::DurabilityUnknown, "remove the file of an ended session")
                    .with_path(self.path().join(dying.path.as_str()))
                    .with_reason("the session was ended, and its file may be left")
                    .with_source(error))
            }
            (_, ended) => ended,
        }
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
    fn delete_by_moving(&self, dying: &Dying<'_>, invalidate: impl FnOnce() -> Result<()>) -> Result<bool> {
        // After a forced delete, another session may have been imported under this name.
        if !self.is_current_file(dying.path, dying.file)? || !self.move_away(dying.shard, dying.path)? {
            // The `delete` that moved the file away may have been killed since.
            self.delete_moved(dying.session, &dying.session.public_id(), dying.shard)?;
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
