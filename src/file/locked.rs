//! A session under its lock: getting it, what is known of it then, the marks on its file, and telling those who have
//! copies before it is given back.
use super::FileStore;
use super::disk::{self, Access, Directory};
use super::flock::LockedFile;
use super::generations::{News, Stamp};
use super::layout::SessionPath;
use super::queue::{Turn, busy};
use super::read_cache::Cached;
use super::slot::{self, Decoded, STATE_AT, State};
use super::slots::{self, View};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PublicId, SessionId};
use crate::sync::Instant;
use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::io;

/// Whose session is meant: its visitor's, by the secret, or that of a file, by the digest, as those mean it who look after
/// the files and know no secrets.
#[derive(Clone, Copy)]
pub(super) enum Whose<'a> {
    Secret(&'a SessionId),
    Digest(PublicId),
}

impl<'a> Whose<'a> {
    pub(super) fn id(self) -> PublicId {
        match self {
            Self::Secret(session) => session.public_id(),
            Self::Digest(id) => id,
        }
    }
    /// Whether a file was not read because it is larger than any session's ever is.
    pub(super) fn is_beyond_any(self, error: &Error) -> bool {
        error.kind() == ErrorKind::TooLarge && matches!(self, Self::Digest(_))
    }
    /// Copies in memory are filed under the secret; without it they are told to be old, and not dropped.
    pub(super) fn secret(self) -> Option<&'a SessionId> {
        match self {
            Self::Secret(session) => Some(session),
            Self::Digest(_) => None,
        }
    }
}

/// A session's file with its lock and its newest version.
///
/// Whatever becomes of the act under the lock, those who have copies are told before the lock is given back: somebody
/// may have been killed after changing the session and before telling. What no act tells itself, the drop does.
///
/// The fields drop in this order: the file's lock before the turn, so that the next thread of this process finds the
/// file free.
pub(super) struct Locked<'a> {
    pub(super) store: &'a FileStore,
    pub(super) whose: Whose<'a>,
    pub(super) id: PublicId,
    /// What the session's cell said before its path was opened. From then on no end of it goes unnoticed.
    pub(super) noted: Stamp,
    /// When that was, in microseconds since 1970.
    pub(super) noted_at: u64,
    pub(super) told: Cell<bool>,
    /// What was found out about the inode under this lock: whether a sync of it failed.
    pub(super) found: Cell<State>,
    pub(super) file: LockedFile,
    /// The file that has taken this one's place, locked before it did: whoever saves next waits for it, until we have
    /// told.
    pub(super) successor: OnceCell<LockedFile>,
    _turn: Turn<'a>,
    pub(super) path: SessionPath,
    /// Where the newest version is: 0 or 1.
    pub(super) slot: usize,
    pub(super) slot_size: usize,
    pub(super) newest: Decoded,
    /// When the lock was got: a `delete` that runs into its wait limit does not respect it any longer.
    pub(super) since: Instant,
}

impl Locked<'_> {
    pub(super) fn offset(&self, slot: usize) -> u64 {
        (slot * self.slot_size) as u64
    }

    /// Brings the newest version to the disk, if it is not known to be there. Whether it is: after a failed sync of this
    /// inode, also one by somebody else, no other can tell.
    pub(super) fn sync_newest(&self) -> bool {
        let state = self.newest.state;
        if state.has(State::SYNC_FAILED) {
            return false;
        }
        let is_synced = state.has(State::DATA_SYNCED) || disk::sync_data(&self.file).is_ok();
        if !is_synced {
            self.distrust();
        }
        is_synced
    }

    /// Notes that a sync of this inode failed, for whoever saves next, and at once: we may be killed before there is
    /// another inode.
    pub(super) fn distrust(&self) {
        self.found.set(State::SYNC_FAILED);
        raise(&self.file, self.offset(self.slot), self.state());
    }

    /// The same where the other slot has a version that was written and not synced. That one would pass for the newest, also
    /// to whoever waits for our lock; it is marked first, then voided.
    pub(super) fn distrust_both(&self) {
        let other = self.offset(1 - self.slot);
        raise(&self.file, other, State::SYNC_FAILED.and(State::RETIRING));
        self.distrust();
        invalidate(&self.file, other, self.slot_size);
    }

    /// What is known of the inode by now.
    pub(super) fn state(&self) -> State {
        self.newest.state.and(self.found.get())
    }

    /// Tells whoever waits for this file's lock to look whether the path still leads here.
    pub(super) fn retire(&self) -> io::Result<()> {
        let state = self.state().and(State::RETIRING);
        disk::write_at(&self.file, &[state.to_byte()], self.offset(self.slot) + STATE_AT as u64)
    }

    /// Tells that a version was written, after the last look at the file. What copies of it are dated with: `saves` as
    /// it is now, for whoever saves next waits for our lock; `ends` as it was before we opened the path, for whoever ends
    /// the session need not wait for it.
    pub(super) fn tell_saved(&self) -> Result<Stamp> {
        let saves = self.store.announce(self.whose, &self.id, News::Saved)?;
        self.told.set(true);
        // The number too: what was noted in other counters dates nothing.
        Ok(Stamp { saves, ..self.noted })
    }

    /// Tells that the session ended, when nothing can be read of it any more.
    pub(super) fn tell_ended(&self) -> Result<()> {
        self.store.announce(self.whose, &self.id, News::Ended)?;
        self.told.set(true);
        Ok(())
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if !self.told.get() {
            // Nothing was changed by us, or the error that came of it is already on its way to the caller.
            let _ = self.store.announce(self.whose, &self.id, News::Ended);
        }
    }
}

/// What is found under a session's name, and its lock.
#[expect(
    clippy::large_enum_variant,
    reason = "each save makes one, and a place on the heap would cost more than the copy"
)]
pub(super) enum Held<'a> {
    /// No file.
    Nothing,
    /// A file without a version, or whose versions do not verify.
    Remains(Remains<'a>),
    /// A session.
    Version(Locked<'a>),
}

/// A file, locked, in a session's place, that holds none.
pub(super) struct Remains<'a> {
    pub(super) file: LockedFile,
    _turn: Turn<'a>,
    /// Whether it once held a session; if not, its creation was cut short or its session ended.
    pub(super) is_damaged: bool,
}

impl FileStore {
    /// Locks a session for a save; `None` if it has no version, which is told to those who have copies of one. Who has its shard
    /// open finds it faster there.
    pub(super) fn lock_live<'a>(
        &'a self,
        session: &'a SessionId,
        shard: Option<&Directory>,
    ) -> Result<Option<Locked<'a>>> {
        let whose = Whose::Secret(session);
        match self.hold(whose, shard, Instant::now() + self.options.lock_wait)? {
            Held::Version(locked) => Ok(Some(locked)),
            // The caller had a copy, so others may have one, also if the file was removed by hand.
            Held::Nothing | Held::Remains(_) => self.announce(whose, &whose.id(), News::Ended).map(|_| None),
        }
    }

    /// Locks what is under a session's name, and looks what it is.
    pub(super) fn hold<'a>(
        &'a self,
        whose: Whose<'a>,
        shard: Option<&Directory>,
        deadline: Instant,
    ) -> Result<Held<'a>> {
        // Before a look into the cache: a part of it may be locked by a thread that does not exist in a forked child.
        self.queues.check_process()?;
        self.check_may_write()?;
        let known = whose.secret().zip(self.cache.as_ref());
        let known = known.and_then(|(session, cache)| cache.peek(session.as_bytes()));
        let id = known.as_ref().map_or_else(|| whose.id(), |known| known.id);
        let turn = self.queues.turn(&id, deadline)?;
        let path = SessionPath::of(&id);
        loop {
            let (noted, noted_at) = (self.generations.stamp(&id), self.options.clock.glance().micros());
            let opened = match shard {
                Some(shard) => self.opened(shard.open(&path, Access::Write), &path)?,
                None => self.open_file(&id, &path, Access::Write)?,
            };
            let Some(file) = opened else { return Ok(Held::Nothing) };
            let file = LockedFile::acquire(file, deadline)
                .map_err(|error| self.error("lock session file", &path, error))?
                .map_err(|_| busy().with_path(self.path().join(path.as_str())))?;
            let since = Instant::now();
            let looked = self.look_under_lock(whose, &id, &path, &file, known.as_ref());
            let (view, size, is_here) = looked.inspect_err(|_| {
                // Whoever had it before may not have told.
                let _ = self.announce(whose, &id, News::Ended);
            })?;
            match view {
                View::Valid { slot, newest, .. } if is_here => {
                    return Ok(Held::Version(Locked {
                        store: self,
                        whose,
                        id,
                        noted,
                        noted_at,
                        told: Cell::new(false),
                        found: Cell::default(),
                        file,
                        successor: OnceCell::new(),
                        _turn: turn,
                        path,
                        slot,
                        slot_size: size / 2,
                        newest,
                        since,
                    }));
                }
                View::Empty | View::Damaged if is_here => {
                    let is_damaged = matches!(view, View::Damaged);
                    return Ok(Held::Remains(Remains { file, _turn: turn, is_damaged }));
                }
                // The file was replaced or removed between our opening and our lock: start again by the path.
                _ if Instant::now() > deadline => return Err(busy()),
                _ => {}
            }
        }
    }

    /// What a file is that is locked, of how many bytes, and whether the path leads to it: to one with a version that is not
    /// marked it does.
    fn look_under_lock(
        &self,
        whose: Whose<'_>,
        id: &PublicId,
        path: &SessionPath,
        file: &File,
        known: Option<&Cached>,
    ) -> Result<(View, usize, bool)> {
        let look = |bytes: &[u8]| (slots::view(bytes, id, known.map(Cached::known)), bytes.len());
        let (view, size) = match self.look(file, path, look) {
            Err(error) if whose.is_beyond_any(&error) => (Ok(View::Damaged), 0),
            looked => looked?,
        };
        let view = self.located(view, path)?;
        let is_unmarked = matches!(&view, View::Valid { newest, .. } if !newest.state.has(State::RETIRING));
        Ok((view, size, is_unmarked || self.leads_to(path, file)?))
    }

    /// Whether a session's path leads to this file, and not to one that has taken its place.
    pub(super) fn leads_to(&self, path: &SessionPath, file: &File) -> Result<bool> {
        let inode = disk::stat(file).map_err(|error| self.error("examine session file", path, error))?.inode;
        match self.root.inode_at(path) {
            Ok(there) => Ok(there == inode),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.error("examine session file", path, error)),
        }
    }
}

/// Writes down what is known of a slot. A failure costs the next power-safe save a sync; if it was a sync that failed which could
/// not be noted, and the file cannot be written anew either, nothing tells the next one.
pub(super) fn raise(file: &File, offset: u64, state: State) {
    let _ = disk::write_at(file, &[state.to_byte()], offset + STATE_AT as u64);
}

/// Ends the session for all that have the file open or find it by its name.
pub(super) fn entomb(file: &File, offset: u64) -> io::Result<()> {
    disk::write_at(file, &slot::tombstone(), offset)
}

/// Voids a slot after a failed write, so that no reader takes it for one that was never written. Best effort: one that
/// cannot be voided stays torn, which says the same.
pub(super) fn invalidate(file: &File, offset: u64, slot_size: usize) {
    let _ = disk::write_at(file, &slot::void(slot_size), offset);
}
