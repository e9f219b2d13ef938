//! Create, update, grow, rotate, delete: each step by step, in the order that survives a kill at any instant and a
//! power cut. The reasons are in [`design`](crate::design).
use super::FileStore;
use super::disk::{self, Access, Shard};
use super::generations::{News, Stamp};
use super::layout::{SessionPath, TEMPORARY};
use super::lock::{LockedFile, Turn, busy};
use super::options::LOCK_WAIT_MIN;
use super::read_cache::Cached;
use super::slots::{self, View};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{FileId, SessionId};
use crate::record::{self, Decoded, Record, STATE_AT, State, Version};
use crate::store::{Change, Live, Store, Verdict};
use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// A session's file with its lock and its newest version.
///
/// Whatever becomes of the act under the lock, those who have copies are told before the lock is given back: somebody
/// may have been killed after changing the session and before telling. What no act tells itself, the drop does.
///
/// The fields drop in this order: the file's lock before the turn, so that the next thread of this process finds the
/// file free.
struct Locked<'a> {
    store: &'a FileStore,
    session: &'a SessionId,
    id: FileId,
    /// What the session's cell said before its path was opened. From then on no end of it goes unnoticed.
    noted: Stamp,
    /// When that was, in microseconds since 1970.
    noted_at: u64,
    told: Cell<bool>,
    file: LockedFile,
    /// The file that has taken this one's place, locked before it did: whoever saves next waits for it, until we have
    /// told.
    successor: OnceCell<LockedFile>,
    _turn: Turn<'a>,
    path: SessionPath,
    /// Where the newest version is: 0 or 1.
    slot: usize,
    slot_size: usize,
    newest: Decoded,
    /// What was known of the session before its file was read.
    known: Option<Cached>,
    /// When the lock was got: a `delete` that runs into its wait limit does not respect it any longer.
    since: Instant,
}

/// How a save under the lock ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Yes,
    /// The session was ended by somebody who could not wait for the lock; nothing was brought back.
    Gone,
}

impl Locked<'_> {
    fn offset(&self, slot: usize) -> u64 {
        (slot * self.slot_size) as u64
    }

    /// Brings the newest version to the disk, if it is not known to be there. Whether it is: after a failed sync of this
    /// inode, also one by somebody else, no other can tell.
    fn sync_newest(&self) -> bool {
        let state = self.newest.state;
        !state.has(State::SYNC_FAILED)
            && (state.has(State::DATA_SYNCED) || disk::sync_data(&self.file).is_ok())
    }

    /// Tells whoever waits for this file's lock to look whether the path still leads here.
    fn retire(&self) -> io::Result<()> {
        let state = self.newest.state.and(State::RETIRING);
        disk::write_at(&self.file, &[state.to_byte()], self.offset(self.slot) + STATE_AT as u64)
    }

    /// Ends the session for whoever has the file open.
    fn entomb(&self) {
        entomb(&self.file, self.offset(self.slot));
    }

    /// Tells that a version was written, after the last look at the file. What copies of it are dated with: `saves` as
    /// it is now, for whoever saves next waits for our lock; `ends` as it was before we opened the path, for whoever ends
    /// the session need not wait for it.
    fn tell_saved(&self) -> Result<Stamp> {
        let saves = self.store.announce(self.session, &self.id, News::Saved)?;
        self.told.set(true);
        Ok(Stamp { saves, ends: self.noted.ends })
    }

    /// Tells that the session ended, after its name is gone.
    fn tell_ended(&self) -> Result<()> {
        self.store.announce(self.session, &self.id, News::Ended)?;
        self.told.set(true);
        Ok(())
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if !self.told.get() {
            // Nothing was changed by us, or the error that came of it is already on its way to the caller.
            let _ = self.store.announce(self.session, &self.id, News::Ended);
        }
    }
}

impl FileStore {
    /// Makes a session's file. On an error, it does not exist, or holds no version.
    pub(super) fn create_file(
        &self,
        session: &SessionId,
        record: Arc<Record>,
        power_safe: bool,
    ) -> Result<Live> {
        self.queues.check_process()?;
        let id = session.file_id();
        let path = SessionPath::of(&id);
        let bytes = self.encode(&record, &id, 1, State::WRITTEN, 0)?;
        let version = Version::claimed(&bytes);
        // Nobody has a copy, so there is nobody to be told; our own copy is dated as one that is read.
        let (stamp, read_at) = (self.generations.stamp(&id), self.options.clock.glance().micros());
        // Whatever will be needed is opened before anything is changed.
        let shard = if power_safe { Some(self.open_shard(&id)?) } else { None };
        let file = match self.root.open_session(&path, Access::Create) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::new(ErrorKind::Random, "create session file")
                    .with_path(self.path().join(path.as_str()))
                    .with_reason("the random generator repeated an id"));
            }
            Err(error) => return Err(self.error("create session file", &path, error)),
        };
        let made = self.fill(file, &path, bytes, shard.as_ref());
        if made.is_err() {
            // What cannot be removed holds no version, or one under an id that nobody was told; the sweep finds it.
            let _ =
                shard.map_or_else(|| self.open_shard(&id), Ok).map(|shard| shard.unlink(path.below_shard()));
        }
        made?;
        self.remember(session, Cached::new(Arc::clone(&record), id, version, stamp, read_at));
        Ok(Live { record, id })
    }

    /// Writes a new file's first version, and syncs it and its name if its shard is given.
    fn fill(&self, file: File, path: &SessionPath, bytes: Vec<u8>, shard: Option<&Shard>) -> Result<()> {
        let io = |act| move |error| self.error(act, path, error);
        // From here on a sweep sees that the file is not a dead one.
        let file = LockedFile::acquire(file, Instant::now() + self.options.lock_wait)
            .map_err(io("lock new session file"))?
            .map_err(|_| busy())?;
        let (inode, mode) = disk::inode_of(&file).map_err(io("examine new session file"))?;
        if mode != 0o600 {
            disk::make_private(&file).map_err(io("set the permissions of new session file"))?;
        }
        // Before the lock it might have been swept, had this process been stopped for an hour.
        if self.root.inode_at(path).map_err(io("find new session file again"))? != inode {
            let error = io::Error::from(io::ErrorKind::NotFound);
            return Err(io("find new session file again")(error));
        }
        disk::write_at(&file, &whole_file(bytes), 0).map_err(io("write new session file"))?;
        let Some(shard) = shard else { return Ok(()) };
        let synced = disk::sync_data(&file)
            .map_err(io("sync new session file"))
            .and_then(|()| shard.sync().map_err(io("sync the directory of new session file")));
        match synced {
            Ok(()) => raise(&file, 0, State::DATA_SYNCED.and(State::NAME_SYNCED)),
            // It may refuse to be removed; then at least it holds no version.
            Err(_) => entomb(&file, 0),
        }
        synced
    }

    /// Reads, changes and writes a session under its lock. Returns what is stored afterwards.
    pub(super) fn update_file(
        &self,
        session: &SessionId,
        change: Change<'_>,
        power_safe: bool,
    ) -> Result<Option<Live>> {
        let Some(mut locked) = self.lock_live(session)? else { return Ok(None) };
        let id = locked.id;
        if locked.newest.record.is_expired(self.now()) {
            return Ok(None);
        }
        if change(Arc::make_mut(&mut locked.newest.record))? == Verdict::Keep {
            let Some(record) = self.stored(&locked)? else { return Ok(None) };
            let kept = !power_safe || self.make_safe(&locked, &record)? == Written::Yes;
            return Ok(kept.then_some(Live { record, id }));
        }
        Arc::make_mut(&mut locked.newest.record).cut();
        let sequence = locked.newest.version.sequence + 1;
        let state = locked.newest.state.inherited();
        let bytes = self.encode(&locked.newest.record, &id, sequence, state, locked.slot_size)?;
        let version = Version::claimed(&bytes);
        let written = if record::slot_size(&bytes) > locked.slot_size {
            self.replace(&locked, bytes, power_safe)?
        } else {
            self.overwrite(&locked, bytes, power_safe)?
        };
        if written == Written::Gone {
            return Ok(None);
        }
        let stamp = locked.tell_saved()?;
        let record = Arc::clone(&locked.newest.record);
        // Still under the lock: the next writer's copy is not to be replaced by ours.
        self.remember(session, Cached::new(Arc::clone(&record), id, version, stamp, locked.noted_at));
        Ok(Some(Live { record, id }))
    }

    /// Writes the next version over the older slot.
    fn overwrite(&self, locked: &Locked<'_>, bytes: Vec<u8>, power_safe: bool) -> Result<Written> {
        let older = locked.offset(1 - locked.slot);
        let write = || {
            disk::write_at(&locked.file, &bytes, older).map_err(|error| {
                invalidate(&locked.file, older);
                self.error("write session file", &locked.path, error)
            })
        };
        if !power_safe {
            write()?;
            return self.unless_deleted(locked);
        }
        let name_synced = locked.newest.state.has(State::NAME_SYNCED);
        let shard = if name_synced { None } else { Some(self.open_shard(&locked.id)?) };
        // The older slot may be the only one on the disk: it must not be touched before the newest one is there too.
        if !locked.sync_newest() {
            return self.rebuild(locked, bytes);
        }
        write()?;
        if disk::sync_data(&locked.file).is_err() {
            invalidate(&locked.file, older);
            return self.rebuild(locked, bytes);
        }
        if let Some(shard) = shard {
            shard
                .sync()
                .map_err(|error| self.unknown("sync the directory of session file", &locked.path, error))?;
        }
        raise(&locked.file, older, State::DATA_SYNCED.and(State::NAME_SYNCED));
        self.unless_deleted(locked)
    }

    /// A save that held the lock for longer than the shortest wait limit may have been passed by a `delete`, and have
    /// written to a file without a name: then nothing was saved.
    fn unless_deleted(&self, locked: &Locked<'_>) -> Result<Written> {
        let passed = locked.since.elapsed() >= LOCK_WAIT_MIN
            && !self.leads_to(&locked.path, &locked.file).map_err(|error| {
                Error::new(ErrorKind::DurabilityUnknown, "look for session file after saving")
                    .with_path(self.path().join(locked.path.as_str()))
                    .with_reason("it was written, and may have been removed before")
                    .with_source(error)
            })?;
        Ok(if passed { Written::Gone } else { Written::Yes })
    }

    /// Brings the newest version to the disk as it is.
    fn make_safe(&self, locked: &Locked<'_>, stored: &Record) -> Result<Written> {
        let state = locked.newest.state;
        let safe = State::DATA_SYNCED.and(State::NAME_SYNCED);
        if state.has(safe) {
            return Ok(Written::Yes);
        }
        let shard = self.open_shard(&locked.id)?;
        if !locked.sync_newest() {
            let sequence = locked.newest.version.sequence + 1;
            let bytes = self.encode(stored, &locked.id, sequence, State::WRITTEN, 0)?;
            return self.rebuild(locked, bytes);
        }
        if !state.has(State::NAME_SYNCED) {
            shard
                .sync()
                .map_err(|error| self.unknown("sync the directory of session file", &locked.path, error))?;
        }
        raise(&locked.file, locked.offset(locked.slot), state.and(safe));
        self.unless_deleted(locked)
    }

    /// After a failed sync, which must not be tried again on the same inode: the kernel has marked the pages clean, and
    /// a second sync would succeed without having written them.
    #[cold]
    fn rebuild(&self, locked: &Locked<'_>, bytes: Vec<u8>) -> Result<Written> {
        // Also the slot that could not be synced, if it could not be voided either: it would pass for the newest.
        let other = locked.offset(1 - locked.slot);
        raise(&locked.file, other, State::RETIRING);
        self.replace(locked, bytes, true).map_err(|error| {
            // For later saves, by whomever: this inode is not to be trusted, and it may have been replaced after all.
            let state = locked.newest.state.and(State::SYNC_FAILED).and(State::RETIRING);
            raise(&locked.file, locked.offset(locked.slot), state);
            Error::new(ErrorKind::DurabilityUnknown, "save session after a failed sync")
                .with_path(self.path().join(locked.path.as_str()))
                .with_reason("writing it anew failed as well")
                .with_source(error)
        })
    }

    /// Puts the next version into a new file of the size it needs, in place of the old one.
    fn replace(&self, locked: &Locked<'_>, mut bytes: Vec<u8>, power_safe: bool) -> Result<Written> {
        let io = |act| move |error| self.error(act, &locked.path, error);
        // What was known of the old inode is not true of the new one.
        bytes[STATE_AT] = State::WRITTEN.to_byte();
        let shard = self.open_shard(&locked.id)?;
        let temporary = temporary_name()?;
        let file = shard.create(&temporary).map_err(io("make a larger file for session"))?;
        let replaced = (|| {
            // Locked before it has the name: whoever opens it by the name waits until it is what they may rely on.
            let file = LockedFile::acquire(file, Instant::now() + self.options.lock_wait)
                .map_err(io("lock the larger file for session"))?
                .map_err(|_| busy())?;
            if disk::inode_of(&file).map_err(io("examine the larger file for session"))?.1 != 0o600 {
                disk::make_private(&file)
                    .map_err(io("set the permissions of the larger file for session"))?;
            }
            disk::write_at(&file, &whole_file(bytes), 0).map_err(io("write the larger file for session"))?;
            // At every durability: a name must never point at bytes the disk may still lose.
            disk::sync_data(&file).map_err(io("sync the larger file for session"))?;
            raise(&file, 0, State::DATA_SYNCED);
            locked.retire().map_err(io("mark session file"))?;
            match shard.put_in_place(&temporary, locked.path.below_shard()) {
                Ok(()) => Ok(Some(file)),
                // Ended by a `delete` that could not wait for our lock.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound
                        && !self.leads_to(&locked.path, &locked.file)? =>
                {
                    Ok(None)
                }
                Err(error) => Err(io("replace session file")(error)),
            }
        })();
        // After the exchange the temporary name has the old file, after a failure the new one. If it stays, it is the
        // sweep's; nobody reads it.
        let _ = shard.unlink(&temporary);
        let Some(file) = replaced? else { return Ok(Written::Gone) };
        let file = locked.successor.get_or_init(|| file);
        if power_safe {
            shard
                .sync()
                .map_err(|error| self.unknown("sync the directory of session file", &locked.path, error))?;
            raise(file, 0, State::DATA_SYNCED.and(State::NAME_SYNCED));
        }
        Ok(Written::Yes)
    }

    /// Changes a session and moves it to `successor`. The old file is gone when this returns a record.
    pub(super) fn rotate_file(
        &self,
        session: &SessionId,
        successor: &SessionId,
        change: Change<'_>,
    ) -> Result<Option<Live>> {
        let shard = self.open_shard(&session.file_id())?;
        let Some(mut locked) = self.lock_live(session)? else { return Ok(None) };
        if locked.newest.record.is_expired(self.now()) {
            return Ok(None);
        }
        if change(Arc::make_mut(&mut locked.newest.record))? == Verdict::Keep {
            let Some(stored) = self.stored(&locked)? else { return Ok(None) };
            locked.newest.record = stored;
        }
        Arc::make_mut(&mut locked.newest.record).cut();
        // Synced with its name at every durability: else a power cut may lose both.
        let live = self.create_file(successor, Arc::clone(&locked.newest.record), true)?;
        let path = &locked.path;
        let ended = (|| {
            locked.retire().map_err(|error| self.error("mark session file", path, error))?;
            let was_there = shard
                .unlink(path.below_shard())
                .map_err(|error| self.error("remove old session file", path, error))?;
            if was_there {
                locked.entomb();
                locked.tell_ended()?;
                // Whoever has the successor now must not lose it in silence, nor keep it while the old one may return.
                self.sync_ended(&shard, path).map_err(|error| {
                    error.with_reason("the session was ended by it, and may come back after a power cut")
                })?;
            }
            Ok(was_there)
        })();
        self.forget(session);
        match ended {
            Ok(true) => Ok(Some(live)),
            // Ended by a `delete` that could not wait for our lock: what is gone has no successor.
            Ok(false) => self.delete_file(successor).map(|_| None),
            Err(error) => {
                let _ = self.delete_file(successor);
                Err(error)
            }
        }
    }

    /// Ends a session. Whether a live one was there.
    pub(super) fn delete_file(&self, session: &SessionId) -> Result<bool> {
        let id = session.file_id();
        let shard = self.open_shard(&id)?;
        let path = SessionPath::of(&id);
        let locked = self.lock(session);
        let was_live = match &locked {
            Ok(Some(locked)) => {
                locked.entomb();
                let there = self.unlink(&shard, &path)?;
                there && !locked.newest.record.is_expired(self.now())
            }
            // Absent, or without a version: a name that is left goes too.
            Ok(None) => {
                self.unlink(&shard, &path)?;
                false
            }
            // Somebody holds the session and does not let go (a stopped process, say), or it cannot be read: a logout
            // waits for neither. Whatever the holder still writes, it writes to a file without a name.
            Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::TooLarge | ErrorKind::Io) => {
                let file = self.open_file(&id, &path, Access::Write);
                let was_there = self.unlink(&shard, &path)?;
                if let Ok(Some(file)) = file {
                    self.entomb_unlocked(&id, &path, &file);
                }
                was_there
            }
            // What is not ours is left alone: another kind of file, or a newer version's session.
            Err(_) => return locked.map(|_| false),
        };
        // Also when there was nothing: somebody may have been killed between their unlink and their telling, or their
        // sync.
        let told = match &locked {
            Ok(Some(locked)) => locked.tell_ended(),
            _ => self.announce(session, &id, News::Ended).map(drop),
        };
        drop(locked);
        self.forget(session);
        self.sync_ended(&shard, &path)?;
        told.map(|()| was_live)
    }

    /// Ends the session for whoever waits for the lock of its file, which has just lost its name. Its holder may be
    /// anywhere in a save: that writes the other slot, and a tombstone in either ends the session.
    fn entomb_unlocked(&self, id: &FileId, path: &SessionPath, file: &File) {
        let look = self.look(file, path, |bytes| (slots::view(bytes, id, None), bytes.len() / 2));
        if let Ok((Ok(View::Valid { slot, .. }), slot_size)) = look {
            entomb(file, (slot * slot_size) as u64);
        }
    }

    /// Locks a session for a save; `None` if it has no version, which is told to those who have copies of one.
    fn lock_live<'a>(&'a self, session: &'a SessionId) -> Result<Option<Locked<'a>>> {
        let locked = self.lock(session)?;
        if locked.is_none() {
            self.announce(session, &session.file_id(), News::Ended)?;
        }
        Ok(locked)
    }

    /// Locks a session for writing; `None` if it has no version.
    fn lock<'a>(&'a self, session: &'a SessionId) -> Result<Option<Locked<'a>>> {
        let known = self.cache.as_ref().and_then(|cache| cache.peek(session.as_bytes()));
        let id = known.as_ref().map_or_else(|| session.file_id(), |known| known.id);
        let deadline = Instant::now() + self.options.lock_wait;
        let turn = self.queues.turn(&id, deadline)?;
        let path = SessionPath::of(&id);
        loop {
            let (noted, noted_at) = (self.generations.stamp(&id), self.options.clock.glance().micros());
            let Some(file) = self.open_file(&id, &path, Access::Write)? else { return Ok(None) };
            let file = LockedFile::acquire(file, deadline)
                .map_err(|error| self.error("lock session file", &path, error))?
                .map_err(|_| busy().with_path(self.path().join(path.as_str())))?;
            let look =
                |bytes: &[u8]| (slots::view(bytes, &id, known.as_ref().map(Cached::known)), bytes.len());
            let (view, size) = self.look(&file, &path, look)?;
            match self.located(view, &path)? {
                View::Valid { slot, newest, .. }
                    if !newest.state.has(State::RETIRING) || self.leads_to(&path, &file)? =>
                {
                    return Ok(Some(Locked {
                        store: self,
                        session,
                        id,
                        noted,
                        noted_at,
                        told: Cell::new(false),
                        file,
                        successor: OnceCell::new(),
                        _turn: turn,
                        path,
                        slot,
                        slot_size: size / 2,
                        newest,
                        known,
                        since: Instant::now(),
                    }));
                }
                View::Empty | View::Damaged if self.leads_to(&path, &file)? => return Ok(None),
                // The file was replaced or removed between our opening and our lock: start again by the path.
                _ if Instant::now() > deadline => return Err(busy()),
                _ => {}
            }
        }
    }

    /// The newest version once more, after a change to the first copy that is not wanted; `None` if a `delete` that
    /// could not wait has ended the session since.
    fn stored(&self, locked: &Locked<'_>) -> Result<Option<Arc<Record>>> {
        let known = locked.known.as_ref().map(Cached::known);
        let look = |bytes: &[u8]| slots::view(bytes, &locked.id, known);
        let view = self.look(&locked.file, &locked.path, look)?;
        match self.located(view, &locked.path)? {
            View::Valid { newest, .. } if newest.version == locked.newest.version => Ok(Some(newest.record)),
            View::Empty => Ok(None),
            View::Valid { .. } | View::Damaged => {
                Err(Error::new(ErrorKind::Corrupt, "read session file again")
                    .with_path(self.path().join(locked.path.as_str()))
                    .with_reason("it changed while it was locked"))
            }
        }
    }

    /// Whether a session's path leads to this file, and not to one that has taken its place.
    pub(super) fn leads_to(&self, path: &SessionPath, file: &File) -> Result<bool> {
        let (inode, _) =
            disk::inode_of(file).map_err(|error| self.error("examine session file", path, error))?;
        match self.root.inode_at(path) {
            Ok(there) => Ok(there == inode),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.error("examine session file", path, error)),
        }
    }

    fn unlink(&self, shard: &Shard, path: &SessionPath) -> Result<bool> {
        shard.unlink(path.below_shard()).map_err(|error| self.error("remove session file", path, error))
    }

    /// Brings the end of a session to the disk.
    fn sync_ended(&self, shard: &Shard, path: &SessionPath) -> Result<()> {
        if self.options.sync_security_events {
            shard.sync().map_err(|error| self.unknown("sync the end of session", path, error))?;
        }
        Ok(())
    }

    /// What was written can be read now, but may not survive a power cut.
    fn unknown(&self, act: &'static str, path: &SessionPath, error: io::Error) -> Error {
        let error = self.error(act, path, error);
        Error::new(ErrorKind::DurabilityUnknown, act)
            .with_path(self.path().join(path.as_str()))
            .with_reason("what was changed is visible, and may not survive a power cut")
            .with_source(error)
    }

    fn encode(
        &self,
        record: &Record,
        id: &FileId,
        sequence: u64,
        state: State,
        slot_size: usize,
    ) -> Result<Vec<u8>> {
        let entries = record.entries.len();
        if entries > self.options.entries_max {
            let reason = format!("{entries} entries, where the limit is {}", self.options.entries_max);
            return Err(Error::new(ErrorKind::TooManyEntries, "encode session record").with_reason(reason));
        }
        record::encode(record, id, sequence, state, slot_size, self.options.record_bytes_max)
    }
}

/// A new file's bytes: the first version in slot 0, slot 1 empty. Written whole, so that no later save changes the size.
fn whole_file(mut bytes: Vec<u8>) -> Vec<u8> {
    let slot_size = record::slot_size(&bytes);
    bytes.resize(2 * slot_size, 0);
    bytes
}

/// Writes down what is known of a slot. A failure costs the next power-safe save a sync, and nothing else.
fn raise(file: &File, offset: u64, state: State) {
    let _ = disk::write_at(file, &[state.to_byte()], offset + STATE_AT as u64);
}

/// Ends the session for whoever has the file open. Best effort: the file has lost its name, or is about to.
fn entomb(file: &File, offset: u64) {
    let _ = disk::write_at(file, &record::tombstone(), offset);
}

/// Voids a slot after a failed write, so that no reader takes it for one that was never written. Best effort: one that
/// cannot be voided stays torn, which says the same.
fn invalidate(file: &File, offset: u64) {
    let _ = disk::write_at(file, &record::void(), offset);
}

/// A name that no other file on its way has.
fn temporary_name() -> Result<String> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(|error| {
        Error::new(ErrorKind::Random, "name a temporary file").with_reason(error.to_string())
    })?;
    Ok(format!("{TEMPORARY}{:032x}", u128::from_le_bytes(bits)))
}
