//! What somebody does who looks after a store and knows sessions by their files: find, end, bring in from elsewhere,
//! set aside what is damaged. A [`PublicId`] is no secret and opens no session to a visitor.
use super::FileStore;
use super::disk::Directory;
use super::generations::News;
use super::layout::{DAMAGED, SessionPath};
use super::lock::busy;
use super::locked::{Held, Whose};
use super::slots::View;
use crate::error::{Error, ErrorKind, Result};
use crate::id::PublicId;
use crate::record::Record;
use crate::store::{Absent, Durability, Live, Lookup, Store};
use crate::sync::{Instant, thread};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a creation takes at most, if its creator lives and is not stopped.
const CREATION: Duration = Duration::from_millis(100);

impl FileStore {
    /// Finds the session that has this file, as [`load`](Store::load) finds it by its secret; always from the file.
    ///
    /// # Errors
    ///
    /// As for [`load`](Store::load).
    pub fn load_by_id(&self, id: &PublicId) -> Result<Lookup> {
        self.queues.check_process()?;
        let id = *id;
        Ok(match self.read(Whose::Digest(id), &id, None)? {
            Some(View::Valid { newest, .. }) if newest.record.is_expired(self.now()) => {
                Lookup::Absent(Absent::Expired(id))
            }
            Some(View::Valid { newest, .. }) => Lookup::Live(Live { record: newest.record, id }),
            Some(View::Damaged) => Lookup::Absent(Absent::Damaged(id)),
            None | Some(View::Empty) => Lookup::Absent(Absent::NotFound(id)),
        })
    }

    /// Ends the session that has this file, as [`delete`](Store::delete) ends it by its secret: at once, in every process
    /// that uses the store. Whether a live one was there.
    ///
    /// # Errors
    ///
    /// As for [`delete`](Store::delete).
    pub fn delete_by_id(&self, id: &PublicId) -> Result<bool> {
        self.end_file(Whose::Digest(*id))
    }

    /// Brings a session in that was in another store: whoever has its secret has it here. Whether it was; `false` if there is
    /// a live session in its place, which is left alone. One that has expired is replaced.
    ///
    /// # Errors
    ///
    /// As for [`create`](Store::create). [`ErrorKind::Corrupt`] if a damaged file is in its place;
    /// [`quarantine`](Self::quarantine) makes room. [`ErrorKind::Busy`] if somebody has it locked for the whole
    /// [`lock_wait`](super::FileStoreOptions::lock_wait), or if its creation was cut short, which [`delete_by_id`](Self::delete_by_id) clears
    /// away, as does a sweep after an hour. [`ErrorKind::InvalidationFailed`] if it is in, and those who remember what was there before
    /// could not be told.
    pub fn import(&self, id: &PublicId, record: &Record, how: Durability) -> Result<bool> {
        let mut record = record.clone();
        record.truncate_to_micros();
        let (whose, record) = (Whose::Digest(*id), Arc::new(record));
        let path = SessionPath::of(id);
        let in_the_way = |kind, reason| {
            let error = Error::new(kind, "bring a session in").with_path(self.path().join(path.as_str()));
            error.with_reason(reason)
        };
        let began = Instant::now();
        loop {
            // A look first: a creation files the session in the index.
            if self.open_file(id, &path, super::Access::Read)?.is_none() {
                match self.create_file(whose, Arc::clone(&record), self.options.is_power_safe(how)) {
                    Ok(_) => return Ok(true),
                    // Somebody else was faster.
                    Err(error) if error.kind() == ErrorKind::Random => {}
                    Err(error) => return Err(error),
                }
            }
            match self.hold(whose, None, began + self.options.lock_wait)? {
                Held::Nothing => {}
                Held::Version(locked) if locked.newest.record.is_expired(self.now()) => {
                    self.remove(&self.open_shard(id)?, &locked)?;
                }
                Held::Version(_) => return Ok(false),
                Held::Remains(remains) if remains.is_damaged => {
                    return Err(in_the_way(ErrorKind::Corrupt, "a damaged file is in its place"));
                }
                // Its creator may be at work, between making the file and locking it.
                Held::Remains(remains) if began.elapsed() < CREATION => {
                    drop(remains);
                    thread::sleep(CREATION / 20);
                }
                Held::Remains(_) => {
                    return Err(in_the_way(ErrorKind::Busy, "its creation is under way, or was cut short"));
                }
            }
            if began.elapsed() > self.options.lock_wait.max(CREATION) {
                return Err(busy());
            }
        }
    }

    /// Moves a session's file to the directory `damaged` of the store, if it is damaged, for an operator to look at; also a
    /// link, pipe or directory in its place. Where it is now; `None` if there is no such file (any more).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] if somebody has it locked for the whole [`lock_wait`](super::FileStoreOptions::lock_wait).
    /// [`ErrorKind::Io`], and the file stays where it is.
    pub fn quarantine(&self, id: &PublicId) -> Result<Option<PathBuf>> {
        self.queues.check_process()?;
        self.check_may_write()?;
        let path = SessionPath::of(id);
        let shard = self.open_shard(id)?;
        match shard.stat(path.below_shard()) {
            Ok(stat) if stat.is_file => {}
            // It cannot be locked, and no session has its name while it is there.
            Ok(_) => return self.move_aside(id, &shard, &path, || Ok(true)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.error("examine session file", &path, error)),
        }
        let held = self.hold(Whose::Digest(*id), Some(&shard), Instant::now() + self.options.lock_wait)?;
        let Held::Remains(remains) = held else { return Ok(None) };
        if !remains.is_damaged {
            return Ok(None);
        }
        // Without the lock, a `delete` that could not wait for it may end it meanwhile.
        self.move_aside(id, &shard, &path, || Ok(!self.leads_to(&path, &remains.file)?))
    }

    /// Moves what has a session's name. If it is not there, `None` if it `may_be_gone`.
    fn move_aside(
        &self,
        id: &PublicId,
        shard: &Directory,
        path: &SessionPath,
        may_be_gone: impl Fn() -> Result<bool>,
    ) -> Result<Option<PathBuf>> {
        let error = |error| self.error("set damaged session file aside", path, error);
        self.root.make_directory(DAMAGED).map_err(error)?;
        let aside = self.root.open_directory(DAMAGED).map_err(error)?;
        // An earlier one of the same name stays.
        for n in 0..1000 {
            let name = if n == 0 { id.to_string() } else { format!("{id}.{n}") };
            match shard.move_to(path.below_shard(), &aside, &name) {
                Ok(()) => {
                    // Somebody may have a copy of what it was before it was damaged.
                    self.announce(Whose::Digest(*id), id, News::Ended)?;
                    return Ok(Some(self.root.path().join(DAMAGED).join(name)));
                }
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
                Err(cause) if cause.kind() == io::ErrorKind::NotFound && may_be_gone()? => return Ok(None),
                Err(cause) => return Err(error(cause)),
            }
        }
        Err(error(io::ErrorKind::AlreadyExists.into()))
    }
}
