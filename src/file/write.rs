//! Create, update, grow: each step by step, in the order that survives a kill at any instant and a
//! power cut. The reasons are in [`design`](crate::_documentation::design).
use super::FileStore;
use super::disk::{self, Access, Directory, temporary_name};
use super::generations::News;
use super::layout::SessionPath;
use super::lock::{LockedFile, busy};
use super::locked::{Locked, Whose, entomb, invalidate, raise};
use super::read_cache::Cached;
use super::slot::{self, Extent, STATE_AT, State, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PublicId, SessionId};
use crate::record::Record;
use crate::store::{Change, Live, Store, Verdict};
use crate::sync::Instant;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// How a save under the lock ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Yes,
    /// The session was ended by somebody who could not wait for the lock; nothing was brought back.
    Gone,
}

impl FileStore {
    /// Makes a session's file. On an error, it does not exist, or holds no version, unless all that failed was telling of it
    /// ([`ErrorKind::InvalidationFailed`]).
    pub(super) fn create_file(
        &self,
        whose: Whose<'_>,
        record: Arc<Record>,
        power_safe: bool,
    ) -> Result<Live> {
        self.create_beside(whose, record, power_safe, None)
    }

    /// The same for a session that takes the place of one that had this much.
    pub(super) fn create_beside(
        &self,
        whose: Whose<'_>,
        record: Arc<Record>,
        power_safe: bool,
        had: Option<Extent>,
    ) -> Result<Live> {
        self.queues.check_process()?;
        self.check_may_write()?;
        let id = whose.id();
        let path = SessionPath::of(&id);
        let bytes = self.encode(&record, had, &id, 1, State::WRITTEN, 0)?;
        let version = Version::claimed(&bytes);
        // Nobody has a copy, so there is nobody to be told; our own copy is dated as one that is read.
        let (stamp, read_at) = (self.generations.stamp(&id), self.options.clock.glance().micros());
        // Whatever will be needed is opened before anything is changed.
        let shard = if power_safe { Some(self.open_shard(&id)?) } else { None };
        self.due.file(&self.root, &id, record.deadline, self.now());
        let file = match self.root.open_session(&path, Access::Create) {
            // The shard is gone, and perhaps all of the store: then it is made again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.open_shard(&id)?.open(&path, Access::Create)
            }
            created => created,
        };
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::new(ErrorKind::Random, "create session file")
                    .with_path(self.path().join(path.as_str()))
                    .with_reason("the random generator repeated an id"));
            }
            Err(error) => return Err(self.error("create session file", &path, error)),
        };
        let made = self.fill(file, &path, bytes, shard.as_ref());
        if made.as_ref().is_err_and(|unmade| unmade.has_the_name) {
            // What cannot be removed holds no version, or one under an id that nobody was told; the sweep finds it.
            let _ =
                shard.map_or_else(|| self.open_shard(&id), Ok).map(|shard| shard.unlink(path.below_shard()));
        }
        // An id that was not drawn just now may have been ended by somebody who was killed before telling, and what was made for
        // a moment may have been read.
        let told = match whose {
            Whose::Secret(_) => Ok(()),
            Whose::Digest(_) => self.announce(whose, &id, News::Ended).map(drop),
        };
        made.map_err(|unmade| unmade.error)?;
        let now = self.now();
        if record.is_expired(now) {
            // A sweep may have come to its entry before there was a file, and have been done with it.
            self.due.file(&self.root, &id, record.deadline, now);
        }
        told?;
        whose.secret().inspect(|session| {
            self.remember(session, Cached::new(Arc::clone(&record), id, version, stamp, read_at));
        });
        Ok(Live { record, id })
    }

    /// Writes a new file's first version, and syncs it and its name if its shard is given.
    fn fill(
        &self,
        file: File,
        path: &SessionPath,
        bytes: Vec<u8>,
        shard: Option<&Directory>,
    ) -> Result<(), Unmade> {
        let io = |act| move |error| Unmade { error: self.error(act, path, error), has_the_name: true };
        // From here on a sweep sees that the file is not a dead one.
        let file = LockedFile::acquire(file, Instant::now() + self.options.lock_wait)
            .map_err(io("lock new session file"))?
            .map_err(|file| {
                let has_the_name = self.leads_to(path, &file).unwrap_or(false);
                Unmade { error: busy(), has_the_name }
            })?;
        let made = disk::stat(&file).map_err(io("examine new session file"))?;
        self.root.sharing().mend_mode(&file, &made).map_err(io("set the permissions of new session file"))?;
        // Before the lock it might have been swept, had this process been stopped for an hour. (A count of its names would
        // cost less, and be fooled by a backup that makes hard links.)
        let find = io("find new session file again");
        match self.root.inode_at(path) {
            Ok(there) if there == made.inode => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(find(error)),
            _ => return Err(Unmade { has_the_name: false, ..find(io::ErrorKind::NotFound.into()) }),
        }
        disk::write_at(&file, &whole_file(bytes), 0).map_err(io("write new session file"))?;
        let Some(shard) = shard else { return Ok(()) };
        let synced = disk::sync_data(&file)
            .map_err(io("sync new session file"))
            .and_then(|()| shard.sync().map_err(io("sync the directory of new session file")));
        match synced {
            Ok(()) => raise(&file, 0, State::DATA_SYNCED.and(State::NAME_SYNCED)),
            // It may refuse to be removed; then at least it holds no version.
            Err(_) => drop(entomb(&file, 0)),
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
        let Some(mut locked) = self.lock_live(session, None)? else { return Ok(None) };
        let id = locked.id;
        let now = self.now();
        let deadline = locked.newest.record.deadline;
        if deadline <= now {
            return Ok(None);
        }
        let had = Extent::of(&locked.newest.record, locked.newest.length);
        if change(Arc::make_mut(&mut locked.newest.record))? == Verdict::Keep {
            let Some(record) = self.stored(&locked)? else { return Ok(None) };
            let kept = !power_safe || self.make_safe(&locked, &record)? == Written::Yes;
            return Ok(kept.then_some(Live { record, id }));
        }
        Arc::make_mut(&mut locked.newest.record).cut();
        // The name of an expired session is removed without a sync: no older version that a power cut brings back may live
        // longer.
        let shortens = locked.newest.record.deadline < deadline;
        let power_safe = power_safe || shortens && self.options.sync_security_events;
        let sequence = self.next_sequence(&locked)?;
        let state = locked.newest.state.inherited();
        let bytes = self.encode(&locked.newest.record, Some(had), &id, sequence, state, locked.slot_size)?;
        let version = Version::claimed(&bytes);
        self.due.file_if_sooner(&self.root, &id, deadline, locked.newest.record.deadline, now);
        let written = if slot::slot_size(&bytes) > locked.slot_size {
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
                invalidate(&locked.file, older, locked.slot_size);
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
            locked.distrust_both();
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
        let is_there = locked.has_its_name().map_err(|error| {
            Error::new(ErrorKind::DurabilityUnknown, "look for session file after saving")
                .with_path(self.path().join(locked.path.as_str()))
                .with_reason("it was written, and may have been removed before")
                .with_source(error)
        })?;
        Ok(if is_there { Written::Yes } else { Written::Gone })
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
            let sequence = self.next_sequence(locked)?;
            let had = Extent::of(stored, locked.newest.length);
            let bytes = self.encode(stored, Some(had), &locked.id, sequence, State::WRITTEN, 0)?;
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
        self.replace(locked, bytes, true).map_err(|error| {
            // For later saves, by whomever: this inode is not to be trusted, and it may have been replaced after all.
            let _ = locked.retire();
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
        let state = State::REPLACES;
        bytes[STATE_AT] = state.to_byte();
        let shard = self.open_shard(&locked.id)?;
        let temporary = temporary_name()?;
        let file = shard.create(&temporary).map_err(io("make a larger file for session"))?;
        let replaced = (|| {
            // Locked before it has the name: whoever opens it by the name waits until it is what they may rely on.
            let file = LockedFile::acquire(file, Instant::now() + self.options.lock_wait)
                .map_err(io("lock the larger file for session"))?
                .map_err(|_| busy())?;
            let made = disk::stat(&file).map_err(io("examine the larger file for session"))?;
            self.root
                .sharing()
                .mend_mode(&file, &made)
                .map_err(io("set the permissions of the larger file for session"))?;
            disk::write_at(&file, &whole_file(bytes), 0).map_err(io("write the larger file for session"))?;
            // At every durability: a name must never point at bytes the disk may still lose.
            disk::sync_data(&file).map_err(io("sync the larger file for session"))?;
            raise(&file, 0, state.and(State::DATA_SYNCED));
            locked.retire().map_err(io("mark session file"))?;
            // Not over a session that was brought in since this one was ended.
            if !self.leads_to(&locked.path, &locked.file)? {
                return Ok(None);
            }
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

    /// What was written can be read now, but may not survive a power cut.
    pub(super) fn unknown(&self, act: &'static str, path: &SessionPath, error: io::Error) -> Error {
        let error = self.error(act, path, error);
        Error::new(ErrorKind::DurabilityUnknown, act)
            .with_path(self.path().join(path.as_str()))
            .with_reason("what was changed is visible, and may not survive a power cut")
            .with_source(error)
    }

    /// The sequence of the next version.
    ///
    /// # Errors
    ///
    /// There is none. No number of saves leads there: somebody made the file who knows its checksum.
    fn next_sequence(&self, locked: &Locked<'_>) -> Result<u64> {
        locked.newest.version.next_sequence().ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "save session file")
                .with_path(self.path().join(locked.path.as_str()))
                .with_reason("its sequence is one that no save reaches")
        })
    }

    /// Lays a record out, if it is within the limits, or holds no more than it `had` before: a limit that was lowered since
    /// takes nothing from a visitor.
    fn encode(
        &self,
        record: &Record,
        had: Option<Extent>,
        id: &PublicId,
        sequence: u64,
        state: State,
        slot_size: usize,
    ) -> Result<Vec<u8>> {
        let (bytes_limit, entries_limit) = (self.options.record_bytes_max, self.options.entries_max);
        let entries = record.entries.len();
        let had_entries = had.map_or(0, |had| had.entries);
        if entries > entries_limit.max(had_entries) {
            let beside = if had_entries > entries_limit {
                format!(" and {had_entries} were stored")
            } else {
                String::new()
            };
            let reason = format!("{entries} entries, where the limit is {entries_limit}{beside}");
            return Err(Error::new(ErrorKind::TooManyEntries, "encode session record").with_reason(reason));
        }
        let had_bytes = had.map_or(0, |had| had.bytes);
        let encoded = slot::encode(record, id, sequence, state, slot_size, bytes_limit.max(had_bytes));
        encoded.map_err(|error| {
            if error.kind() != ErrorKind::TooLarge || had_bytes <= bytes_limit {
                return error;
            }
            let reason =
                format!("it grows, where the limit is {bytes_limit} bytes and {had_bytes} were stored");
            error.with_reason(reason)
        })
    }
}

/// Why a new file could not be filled.
struct Unmade {
    error: Error,
    /// Whether the path leads to it, as far as is known; else it is not ours to remove what is there.
    has_the_name: bool,
}

/// A new file's bytes: the first version in slot 0, slot 1 empty. Written whole, so that no later save changes the size.
fn whole_file(mut bytes: Vec<u8>) -> Vec<u8> {
    let slot_size = slot::slot_size(&bytes);
    bytes.resize(2 * slot_size, 0);
    bytes
}
