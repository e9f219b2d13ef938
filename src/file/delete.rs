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
//! id deletes the session under its present id.
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
use crate::record::Record;
use crate::store::{EndReason, EndedSession, HOPS_MAX};
use crate::sync::Instant;
use std::fs::File;
use std::io;

/// The result of a delete under one id.
enum Deletion {
    /// The session that was found under the id, and is deleted now.
    Done(Option<EndedSession>),
    /// A rotation has moved the session to this id.
    Moved(PublicId),
}

/// What was in a file that was renamed to `.end-…`.
#[derive(Default)]
pub(super) struct Ending {
    /// The mark of a rotation that was under way, or had just returned.
    pub(super) mark: Option<Mark>,
    /// The session's newest version, as it was read without the lock.
    pub(super) record: Option<Record>,
}

/// A damaged file in a session's place.
fn damaged(id: PublicId) -> EndedSession {
    EndedSession::over(id, None, EndReason::Damaged)
}

/// The result of writing the mark of a moved session, which names the session's new id.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Marked {
    /// The mark is written, and synced if ends of sessions are synced.
    Synced,
    /// The mark was not written, or only a part of it.
    NotWritten,
    /// The mark is written, and its sync failed. A further sync of the file would prove nothing.
    NotSynced,
}

/// A session that is being deleted or moved: its locked file, and what is written into it.
#[derive(Clone, Copy)]
struct PendingDelete<'a> {
    session: SessionRef<'a>,
    shard: &'a Directory,
    path: &'a SessionPath,
    file: &'a File,
    /// The offset of the slot that the tombstone is written to: the newest one.
    offset: u64,
    /// The flags of the file's inode.
    state: State,
    /// If the session is moved and not ended: the bytes of the mark, and the offset of the slot that the mark is
    /// written to, which is the older one.
    mark: Option<([u8; MARK_LEN], u64)>,
}

impl FileStore {
    /// Deletes a session. Returns the session that was deleted, with its present id, if rotations have moved it.
    ///
    /// For an id without a session this costs lookups only: no write, no lock, no sync. If rotations have moved the id,
    /// the session under its present id is deleted, as long as each rotation's grace period lasts.
    pub(super) fn delete_file(&self, session: SessionRef<'_>) -> Result<Option<EndedSession>> {
        self.delete_until(session, Instant::now() + self.options.lock_wait)
    }

    /// [`delete_file`](Self::delete_file) that waits for locks until the deadline.
    pub(super) fn delete_until(
        &self,
        mut session: SessionRef<'_>,
        deadline: Instant,
    ) -> Result<Option<EndedSession>> {
        for _ in 0..=HOPS_MAX {
            match self.delete_under(session, deadline)? {
                Deletion::Done(ended) => return Ok(ended),
                Deletion::Moved(next) => session = SessionRef::PublicId(next),
            }
        }
        Ok(None)
    }

    /// Deletes the session under this id, without going on to a successor.
    fn delete_under(&self, session: SessionRef<'_>, deadline: Instant) -> Result<Deletion> {
        let id = session.public_id();
        let shard = self.open_shard(&id)?;
        let next_hop = |mark: Option<Mark>, ended| {
            mark.and_then(|mark| self.next_hop(&mark)).map_or(Deletion::Done(ended), Deletion::Moved)
        };
        let ended = match self.lock_session(session, Some(&shard), deadline) {
            Ok(LockResult::Session(locked)) => {
                let ended = self.to_be_ended(&locked);
                let was_there = self.delete_locked(&shard, &locked, None);
                was_there.map(|was_there| Deletion::Done(was_there.then_some(ended)))
            }
            Ok(LockResult::Moved(moved)) => {
                self.complete_mark(&shard, &moved).map(|()| next_hop(Some(moved.view.mark), None))
            }
            Ok(LockResult::Unreadable(unreadable)) => {
                let ended = self.delete_unreadable(session, &shard, &unreadable);
                ended.map(|was_damaged| Deletion::Done(was_damaged.then(|| damaged(id))))
            }
            Ok(LockResult::Missing) => {
                self.delete_missing(session, &id, &shard).map(|mark| next_hop(mark, None))
            }
            // Another writer, for example a stopped process, has had the lock for the whole wait limit, or the file
            // cannot be read. A logout must not fail for either reason.
            Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::TooLarge | ErrorKind::Io) => {
                self.delete_unlocked(session, &id, &shard).map(|(was_there, Ending { mark, record })| {
                    let was_session = was_there && mark.is_none();
                    next_hop(mark, was_session.then(|| EndedSession::live(id, record)))
                })
            }
            // A file that is not a session of this version is not deleted: a link, pipe, directory or device, or a
            // session in another format.
            Err(error) => return Err(error),
        };
        session.session_id().inspect(|session| self.coherence.forget(session));
        ended
    }

    /// A locked session that is about to be deleted.
    fn to_be_ended(&self, locked: &Locked<'_>) -> EndedSession {
        let (id, record) = (locked.id, locked.newest.record.clone());
        // If the log of cut-offs cannot be read, the session is deleted all the same.
        let over = if self.is_cut_off(&record, &id).unwrap_or(false) {
            Some(EndReason::CutOff)
        } else {
            self.is_expired(&record).then_some(EndReason::Expired)
        };
        EndedSession { id, record: Some(record), over }
    }

    /// Deletes a file that has no readable version. It may be left by an interrupted delete, which is completed.
    /// Returns whether a damaged file had the session's name.
    fn delete_unreadable(
        &self,
        session: SessionRef<'_>,
        shard: &Directory,
        unreadable: &UnreadableFile<'_>,
    ) -> Result<bool> {
        let id = session.public_id();
        let path = &SessionPath::of(&id);
        let invalidate = || self.coherence.invalidate(&id, session.session_id(), Cause::Ended).map(drop);
        if !unreadable.is_damaged {
            // The flags of the file are unknown, because it has no readable version. It may have replaced an older
            // file, to which a power cut could give the name back. The flag `REPLACES` makes the deletion sync the
            // shard first.
            let pending = PendingDelete {
                session,
                shard,
                path,
                file: &unreadable.file,
                offset: 0,
                state: State::REPLACES,
                mark: None,
            };
            return self.delete_in_place(&pending, invalidate).map(|_| false);
        }
        // No tombstone is written into a damaged file, because the file may be a hard link to another session's file.
        // After a power cut the name may lead to the damaged file again.
        invalidate()?;
        let was_there = self.unlink(shard, path)?;
        self.sync_name(shard, path).map(|()| was_there)
    }

    /// Deletes a session that has no file: completes a forced delete that was interrupted, if there was one. Returns
    /// the mark in the file of that delete.
    fn delete_missing(
        &self,
        session: SessionRef<'_>,
        id: &PublicId,
        shard: &Directory,
    ) -> Result<Option<Mark>> {
        let Ending { mark, .. } = self.delete_ending(session, id, shard)?;
        // If the cache has a copy, the session's file was removed outside the library, and no process was notified. An
        // invented id never has a copy.
        if session.session_id().is_some_and(|session| self.coherence.peek_copy(session).is_some()) {
            self.coherence.invalidate(id, session.session_id(), Cause::Ended)?;
        }
        Ok(mark)
    }

    /// Deletes a session whose file is locked, or, if `mark` is given, marks it as moved. Returns whether the session's
    /// name still led to the file.
    pub(super) fn delete_locked(
        &self,
        shard: &Directory,
        locked: &Locked<'_>,
        mark: Option<&Mark>,
    ) -> Result<bool> {
        let older = locked.offset(1 - locked.slot);
        let pending = PendingDelete {
            session: locked.session,
            shard,
            path: &locked.path,
            file: &locked.file,
            offset: locked.offset(locked.slot),
            state: locked.state(),
            mark: mark.and_then(|mark| locked.encode_mark(mark)).map(|mark| (mark, older)),
        };
        self.delete_in_place(&pending, || locked.invalidate_ended())
    }

    /// Deletes a session in its file, whose lock is held, or marks it as moved. Removes the name last. Returns whether
    /// the session's name still led to the file.
    fn delete_in_place(
        &self,
        pending: &PendingDelete<'_>,
        invalidate: impl Fn() -> Result<()>,
    ) -> Result<bool> {
        let syncs = self.options.sync_security_events;
        // The file may have replaced an older one, to which a power cut may give the name back. So the name of the
        // present file is synced before it is removed.
        let name = if syncs && pending.state.name_may_fall_back() {
            pending.shard.sync_changed_name()
        } else {
            Ok(())
        };
        let marked = if name.is_ok() { self.mark_as_moved(pending) } else { Marked::NotWritten };
        if marked == Marked::Synced {
            invalidate()?;
            return self.complete_move(pending).map_err(|error| self.left_behind(pending.path, error));
        }
        let is_unsynced = marked == Marked::NotSynced;
        let state = if is_unsynced { pending.state.and(State::SYNC_FAILED) } else { pending.state };
        let pending = &PendingDelete { state, ..*pending };
        // A tombstone beside a mark says that the mark is on the disk. So no tombstone is written if the sync of the
        // mark failed.
        let is_ended = !is_unsynced && name.is_ok() && write_tombstone(pending.file, pending.offset).is_ok();
        let ended = if is_ended && self.sync_tombstone(pending) {
            invalidate()?;
            self.remove_ended(pending)
        } else {
            self.delete_by_moving(pending, invalidate)
        };
        match (name, ended) {
            (Err(error), Ok(_)) => Err(self.delete_unknown(pending.path, error)),
            // No process finds the session any more, but its file may be left.
            (_, Err(error))
                if (is_ended || is_unsynced)
                    && !matches!(
                        error.kind(),
                        ErrorKind::DurabilityUnknown | ErrorKind::InvalidationFailed
                    ) =>
            {
                Err(self.left_behind(pending.path, error))
            }
            (_, ended) => ended,
        }
    }

    /// Writes the mark of a moved session into the older slot, if there is one to write, and syncs it if ends of
    /// sessions are synced.
    fn mark_as_moved(&self, pending: &PendingDelete<'_>) -> Marked {
        let Some((mark, offset)) = &pending.mark else { return Marked::NotWritten };
        // A sync of this inode has failed before. So no later sync would prove that the mark is on the disk.
        if self.options.sync_security_events && pending.state.has(State::SYNC_FAILED) {
            return Marked::NotWritten;
        }
        if disk::write_at(pending.file, mark, *offset).is_err() {
            return Marked::NotWritten;
        }
        if self.sync_tombstone(pending) { Marked::Synced } else { Marked::NotSynced }
    }

    /// Writes a tombstone over the newest version, beside a mark that is synced. The tombstone says that all copies
    /// were invalidated. Returns whether the session's name still leads to the file.
    fn complete_move(&self, pending: &PendingDelete<'_>) -> Result<bool> {
        // A failure is ignored: the next delete, login or sweep that finds the mark without a tombstone writes it.
        let _ = write_tombstone(pending.file, pending.offset);
        self.is_current_file(pending.path, pending.file)
    }

    /// The error of a delete that has ended the session in every process, while its file may be left.
    fn left_behind(&self, path: &SessionPath, error: Error) -> Error {
        Error::new(ErrorKind::DurabilityUnknown, "remove the file of an ended session")
            .with_path(self.path().join(path.as_str()))
            .with_reason("the session was ended, and its file may be left")
            .with_source(error)
    }

    /// Removes the name of a session that has ended: its tombstone is written, and its copies are invalidated. Returns
    /// whether the name still led to the file.
    fn remove_ended(&self, pending: &PendingDelete<'_>) -> Result<bool> {
        if !self.is_current_file(pending.path, pending.file)? {
            return Ok(false);
        }
        // If the name cannot be removed, it leads to a tombstone. The session has ended all the same, and a sweep
        // removes the file.
        Ok(pending.shard.unlink(pending.path.below_shard()).unwrap_or(true))
    }

    /// Deletes a session by renaming its file to `.end-…`, because a tombstone could not be written or synced. The lock
    /// is held. Returns whether the session's name still led to the file.
    fn delete_by_moving(
        &self,
        pending: &PendingDelete<'_>,
        invalidate: impl Fn() -> Result<()>,
    ) -> Result<bool> {
        // A forced delete may have removed the name, and another session may have been imported under it.
        if !self.is_current_file(pending.path, pending.file)?
            || !self.move_away(pending.shard, pending.path)?
        {
            // The process of that forced delete may have been killed since, so its work is completed.
            self.delete_ending(pending.session, &pending.session.public_id(), pending.shard)?;
            return Ok(false);
        }
        let _ = write_tombstone(pending.file, pending.offset);
        self.finish_delete(pending.shard, pending.path, Some(pending.file), invalidate)?;
        Ok(true)
    }

    /// Syncs the file with its tombstone or mark, if ends of sessions are synced. Returns whether it is on the disk, or
    /// need not be.
    fn sync_tombstone(&self, pending: &PendingDelete<'_>) -> bool {
        let is_reliable = !pending.state.has(State::SYNC_FAILED);
        !self.options.sync_security_events || is_reliable && disk::sync_data(pending.file).is_ok()
    }

    /// Syncs the directory after a session's name was removed, if ends of sessions are synced.
    pub(super) fn sync_name(&self, shard: &Directory, path: &SessionPath) -> Result<()> {
        if !self.options.sync_security_events {
            return Ok(());
        }
        shard.sync_changed_name().map_err(|error| self.delete_unknown(path, error))
    }

    /// Removes the file of a session that has expired or was ended by a cut-off, and whose lock is held. Returns
    /// whether the session's name still led to the file.
    pub(super) fn remove(&self, shard: &Directory, locked: &Locked<'_>) -> Result<bool> {
        // With the flag "retiring", writers that wait for this lock look the path up again when they get it. They need
        // the flag, because by then the clock may have been set back, or the session may have been imported again. A
        // failure is ignored, so that a sweep works on a full disk, too.
        let _ = locked.retire();
        locked.invalidate_ended()?;
        Ok(self.is_current_file(&locked.path, &locked.file)? && self.unlink(shard, &locked.path)?)
    }

    pub(super) fn unlink(&self, shard: &Directory, path: &SessionPath) -> Result<bool> {
        shard.unlink(path.below_shard()).map_err(|error| self.root.error("remove session file", path, error))
    }

    /// The error of a delete that has ended the session in every process, but that a power cut may undo.
    fn delete_unknown(&self, path: &SessionPath, error: io::Error) -> Error {
        self.root
            .unknown("sync the end of session", path, error)
            .with_reason("the session was ended, and may come back after a power cut")
    }
}
