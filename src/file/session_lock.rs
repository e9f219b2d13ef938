//! The lock of one session: acquiring it, the version and flags that are read under it, and the marks on the file.
//!
//! A writer waits for its turn among the threads (`queue`), then for the lock of the file (`flock`). A lock is on an
//! inode, and a name may change its inode meanwhile. So the file is read under the lock. If its slot is marked
//! *retiring*, or it has no version, the writer checks whether the path still leads to the file; if not, the writer
//! opens the path again.
//!
//! - Every lock holder invalidates the session's copies before it unlocks, whatever the result, because another process
//!   may have been killed between changing the session and invalidating it. If the operation did not invalidate,
//!   dropping the lock does.
//! - A forced delete does not wait for this lock (`force_delete`).
use super::FileStore;
use super::coherence::{Cached, Cause, Stamp};
use super::disk::{self, Access, Directory};
use super::flock::LockedFile;
use super::layout::SessionPath;
use super::options::LOCK_WAIT_MIN;
use super::slot::{self, Decoded, STATE_AT, State};
use super::slots::{self, MovedView, View};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PublicId, SessionId};
use crate::queue::{Turn, busy};
use crate::store::EndReason;
use crate::sync::Instant;
use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::io;

/// How a caller names a session: requests by the secret id, administration by the public id.
#[derive(Clone, Copy)]
pub(super) enum SessionRef<'a> {
    Id(&'a SessionId),
    PublicId(PublicId),
}

impl<'a> SessionRef<'a> {
    pub(super) fn public_id(self) -> PublicId {
        match self {
            Self::Id(session) => session.public_id(),
            Self::PublicId(id) => id,
        }
    }
    /// Whether an error of an operation by public id means that the file is larger than that of any session.
    pub(super) fn is_oversized(self, error: &Error) -> bool {
        error.kind() == ErrorKind::TooLarge && matches!(self, Self::PublicId(_))
    }
    /// The secret id, which is the key of the cache. With a public id alone, an entry can be invalidated, but not
    /// removed.
    pub(super) fn session_id(self) -> Option<&'a SessionId> {
        match self {
            Self::Id(session) => Some(session),
            Self::PublicId(_) => None,
        }
    }
}

/// A locked session file, with its newest version. The fields are dropped in this order: the lock of the file before
/// the turn in the queue, so that the next thread of this process finds the file unlocked.
pub(super) struct Locked<'a> {
    pub(super) store: &'a FileStore,
    pub(super) session: SessionRef<'a>,
    pub(super) id: PublicId,
    /// The stamp of the session, read before the file was opened. So every later end of the session makes it differ
    /// from the counters.
    pub(super) stamp_before_open: Stamp,
    /// The time at which that stamp was read, in microseconds since 1970.
    pub(super) opened_at: u64,
    pub(super) invalidated: Cell<bool>,
    /// Flags of the inode that were set under this lock: that a sync failed.
    pub(super) new_flags: Cell<State>,
    pub(super) file: LockedFile,
    /// The larger file that has replaced this one. It was locked before it got the name, and stays locked until the
    /// copies are invalidated.
    pub(super) successor: OnceCell<LockedFile>,
    _turn: Turn<'a>,
    pub(super) path: SessionPath,
    /// The slot of the newest version: 0 or 1.
    pub(super) slot: usize,
    pub(super) slot_size: usize,
    pub(super) newest: Decoded,
    /// Until this time no forced delete can have ignored the lock, because its own wait for the lock is at least as
    /// long.
    pub(super) unforced_until: Instant,
}

impl FileStore {
    /// Why a locked session is over, if it is. A cut-off comes first, because it is the earlier end.
    pub(super) fn over(&self, locked: &Locked<'_>) -> Result<Option<EndReason>> {
        let record = &locked.newest.record;
        let is_expired = self.is_expired(record);
        match self.coherence.has_ended(record, &locked.id) {
            Ok(true) => Ok(Some(EndReason::CutOff)),
            Err(error) if !is_expired => Err(error),
            Ok(false) | Err(_) => Ok(is_expired.then_some(EndReason::Expired)),
        }
    }
}

impl Locked<'_> {
    pub(super) fn offset(&self, slot: usize) -> u64 {
        (slot * self.slot_size) as u64
    }

    /// Syncs the directory, so that after a power cut the session's name leads to this file.
    pub(super) fn sync_name(&self, shard: &Directory) -> Result<()> {
        let synced = if self.state().has(State::REPLACES) { shard.sync_changed_name() } else { shard.sync() };
        synced
            .map_err(|error| self.store.root.unknown("sync the directory of session file", &self.path, error))
    }

    /// Syncs the newest version, unless the flags say that it is on the disk. Returns whether it is there. If a sync of
    /// this inode has failed, in any process, the result is `false`, because a later sync proves nothing.
    pub(super) fn sync_newest(&self) -> bool {
        let state = self.newest.state;
        if state.has(State::SYNC_FAILED) {
            return false;
        }
        let is_synced = state.has(State::DATA_SYNCED) || disk::sync_data(&self.file).is_ok();
        if !is_synced {
            self.mark_sync_failed();
        }
        is_synced
    }

    /// Sets the flag "a sync failed" in the file, for later saves. The flag is written at once, because this process
    /// may be killed before it has written the session to another file.
    pub(super) fn mark_sync_failed(&self) {
        self.new_flags.set(State::SYNC_FAILED);
        write_state(&self.file, self.offset(self.slot), self.state());
    }

    /// Sets the flag "a sync failed" in both slots, if the other slot has a version that was written and not synced.
    /// Another process would take that version for the newest. So its slot is flagged first, and then voided.
    pub(super) fn mark_both_sync_failed(&self) {
        let other = self.offset(1 - self.slot);
        write_state(&self.file, other, State::SYNC_FAILED.and(State::RETIRING));
        self.mark_sync_failed();
        void_slot(&self.file, other, self.slot_size);
    }

    /// The flags of the inode, with those that were set under this lock.
    pub(super) fn state(&self) -> State {
        self.newest.state.and(self.new_flags.get())
    }

    /// Sets the flag "retiring". Writers that wait for this lock then check whether the path still leads to the file.
    pub(super) fn retire(&self) -> io::Result<()> {
        let state = self.state().and(State::RETIRING);
        disk::write_at(&self.file, &[state.to_byte()], self.offset(self.slot) + STATE_AT as u64)
    }

    /// Invalidates the copies of older versions. Called after the last check that the path leads to this file. Returns
    /// the stamp for the writer's own copy. Its `saves` is the value that was just written: no other writer can save
    /// before this lock is released, so the copy is the newest version. Its `ends` is the value from before the path
    /// was opened: a forced delete does not wait for this lock, and if it has run since, the copy must not match.
    pub(super) fn invalidate_saved(&self) -> Result<Stamp> {
        let saves = self.store.coherence.invalidate(&self.id, self.session.session_id(), Cause::Saved)?;
        self.invalidated.set(true);
        // The stamp keeps the number of the generations file from which `ends` was read. If it had the number of a
        // newer file, it would be compared with counters in which `ends` has another start.
        Ok(Stamp { saves, ..self.stamp_before_open })
    }

    /// Invalidates all copies of a session that has ended: no process can read a version of it any more.
    pub(super) fn invalidate_ended(&self) -> Result<()> {
        self.store.coherence.invalidate(&self.id, self.session.session_id(), Cause::Ended)?;
        self.invalidated.set(true);
        Ok(())
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if !self.invalidated.get() {
            // A failure is ignored: either nothing was changed, or the caller gets the error of the change.
            let _ = self.store.coherence.invalidate(&self.id, self.session.session_id(), Cause::Ended);
        }
    }
}

/// The result of locking the file under a session's name.
pub(super) enum LockResult<'a> {
    /// There is no file under the name.
    Missing,
    /// The file has no version, or none whose checksum verifies.
    Unreadable(UnreadableFile<'a>),
    /// The file has the mark of a session that has moved to another id.
    Moved(MovedFile<'a>),
    /// The file has a session.
    Session(Locked<'a>),
}

/// A locked file that has a session's name and no readable version.
pub(super) struct UnreadableFile<'a> {
    pub(super) file: LockedFile,
    _turn: Turn<'a>,
    /// Whether the file has held a session. If not, its creation was interrupted, or its session was ended.
    pub(super) is_damaged: bool,
}

/// A locked file with the mark of a moved session.
pub(super) struct MovedFile<'a> {
    pub(super) id: PublicId,
    pub(super) file: LockedFile,
    _turn: Turn<'a>,
    pub(super) path: SessionPath,
    pub(super) view: MovedView,
}

impl FileStore {
    /// Locks a session for a save; `None` if its file has no version, which also invalidates its copies. The file is
    /// opened faster if the caller has opened its `shard`.
    pub(super) fn lock_live<'a>(
        &'a self,
        session: &'a SessionId,
        shard: Option<&Directory>,
    ) -> Result<Option<Locked<'a>>> {
        let session = SessionRef::Id(session);
        match self.lock_session(session, shard, Instant::now() + self.options.lock_wait)? {
            LockResult::Session(locked) => Ok(Some(locked)),
            // The caller has found the session before, so other processes may have cached it. Its file may have been
            // removed outside the library, without an invalidation.
            LockResult::Missing | LockResult::Unreadable(_) | LockResult::Moved(_) => {
                self.invalidate_absent(session).map(|()| None)
            }
        }
    }

    /// Invalidates the copies of a session whose file has no version.
    pub(super) fn invalidate_absent(&self, session: SessionRef<'_>) -> Result<()> {
        self.coherence.invalidate(&session.public_id(), session.session_id(), Cause::Ended).map(drop)
    }

    /// Locks the file under a session's name, and reads it.
    pub(super) fn lock_session<'a>(
        &'a self,
        session: SessionRef<'a>,
        shard: Option<&Directory>,
        deadline: Instant,
    ) -> Result<LockResult<'a>> {
        // Checked before the cache is used, because in a forked child a thread that does not exist may hold a lock of
        // the cache.
        self.queues.check_process()?;
        self.check_may_write()?;
        let copy = session.session_id().and_then(|session| self.coherence.peek_copy(session));
        let id = copy.as_ref().map_or_else(|| session.public_id(), |copy| copy.id);
        let (turn, path) = (self.queues.turn(&id, deadline)?, SessionPath::of(&id));
        loop {
            let (stamp_before_open, opened_at) =
                (self.coherence.stamp(&id), self.options.clock.now_coarse().micros());
            let Some(file) = self.open_locked(&id, &path, shard, deadline)? else {
                return Ok(LockResult::Missing);
            };
            let unforced_until = Instant::now() + LOCK_WAIT_MIN;
            let view = |bytes: &[u8]| slots::view(bytes, &id, copy.as_ref().map(Cached::known));
            let looked = self.look_under_lock(session, &path, &file, view);
            let (view, size, is_here) = looked.inspect_err(|_| {
                // The previous holder of the lock may have been killed before it invalidated the copies.
                let _ = self.coherence.invalidate(&id, session.session_id(), Cause::Ended);
            })?;
            match view {
                View::Valid { slot, newest, .. } if is_here => {
                    return Ok(LockResult::Session(Locked {
                        store: self,
                        session,
                        id,
                        stamp_before_open,
                        opened_at,
                        invalidated: Cell::new(false),
                        new_flags: Cell::default(),
                        file,
                        successor: OnceCell::new(),
                        _turn: turn,
                        path,
                        slot,
                        slot_size: size / 2,
                        newest,
                        unforced_until,
                    }));
                }
                View::Empty | View::Damaged if is_here => {
                    let is_damaged = matches!(view, View::Damaged);
                    return Ok(LockResult::Unreadable(UnreadableFile { file, _turn: turn, is_damaged }));
                }
                View::Moved(view) if is_here => {
                    return Ok(LockResult::Moved(MovedFile { id, file, _turn: turn, path, view }));
                }
                // The path leads to another file now, or to none: the file was replaced or removed between opening and
                // locking it. So the path is opened again.
                _ if Instant::now() > deadline => return Err(busy()),
                _ => {}
            }
        }
    }

    /// Opens a session's file and locks it; `None` if there is no file.
    fn open_locked(
        &self,
        id: &PublicId,
        path: &SessionPath,
        shard: Option<&Directory>,
        deadline: Instant,
    ) -> Result<Option<LockedFile>> {
        let opened = match shard {
            Some(shard) => self.opened(shard.open(path, Access::Write), path)?,
            None => self.open_file(id, path, Access::Write)?,
        };
        let Some(file) = opened else { return Ok(None) };
        let locked = LockedFile::acquire(file, deadline)
            .map_err(|error| self.root.error("lock session file", path, error))?;
        locked.map(Some).map_err(|_| busy().with_path(self.path().join(path.as_str())))
    }

    /// Reads a locked file: its contents, its size, and whether the path leads to it. If its version does not have the
    /// flag "retiring", the path does.
    fn look_under_lock(
        &self,
        session: SessionRef<'_>,
        path: &SessionPath,
        file: &File,
        view: impl Fn(&[u8]) -> Result<View>,
    ) -> Result<(View, usize, bool)> {
        let look = |bytes: &[u8]| (view(bytes), bytes.len());
        let (view, size) = match self.look(file, path, look) {
            Err(error) if session.is_oversized(&error) => (Ok(View::Damaged), 0),
            looked => looked?,
        };
        let view = self.root.located(view, path)?;
        let is_unmarked = matches!(&view, View::Valid { newest, .. } if !newest.state.has(State::RETIRING));
        Ok((view, size, is_unmarked || self.is_current_file(path, file)?))
    }

    /// Whether a session's path leads to this file, and not to another one.
    pub(super) fn is_current_file(&self, path: &SessionPath, file: &File) -> Result<bool> {
        let inode =
            disk::stat(file).map_err(|error| self.root.error("examine session file", path, error))?.inode;
        match self.root.inode_at(path) {
            Ok(there) => Ok(there == inode),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.root.error("examine session file", path, error)),
        }
    }
}

/// Writes the state byte of a slot. If that fails, the next power-safe save syncs once more than necessary. One case is
/// worse: if the flag "a sync failed" cannot be written, and the session cannot be written to another file either, the
/// next save does not know of the failed sync.
pub(super) fn write_state(file: &File, offset: u64, state: State) {
    let _ = disk::write_at(file, &[state.to_byte()], offset + STATE_AT as u64);
}

/// Writes a tombstone into a slot. It ends the session for every process that has the file open or opens it by its
/// name.
pub(super) fn write_tombstone(file: &File, offset: u64) -> io::Result<()> {
    disk::write_at(file, &slot::tombstone(), offset)
}

/// Voids a slot after a failed write, so that readers do not take it for a slot that was never written. Best effort: if
/// it cannot be voided, the slot stays torn, which readers treat in the same way.
pub(super) fn void_slot(file: &File, offset: u64, slot_size: usize) {
    let _ = disk::write_at(file, &slot::void(slot_size), offset);
}
