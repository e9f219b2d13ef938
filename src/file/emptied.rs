//! Recreates a store whose directory was emptied while it is open. `rm -rf DIR/*` is a way to log all visitors out. The
//! first operation that misses a shard directory examines the root. If the parameters file `sessile.json` and all other
//! shards are missing too, the operation recreates the store.
//!
//! If only one shard is missing, and `sessile.json` is there, the operation fails: another program may be moving the
//! shard. There is one exception. For a minute after this process has recreated the store or some shards, it recreates
//! a missing shard, with an event, because the `rm` may still be running. If the root itself was removed, the operation
//! fails, because no file can be made in it.
//!
//! No session comes back. The new shards are other directories, so an operation that has a file of an old shard open
//! finds that its path no longer leads to that file. Cached copies become invalid because the generations file was
//! removed too. If that file survived, all its counters are changed.
use super::FileStore;
use super::disk::Directory;
use super::errors::io_error;
use super::flock::LockedFile;
use super::frame;
use super::layout::{RUN, SHARDS, shard_name};
use crate::clock::micros;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::sync::{Instant, Mutex};
use std::io;
use std::time::Duration;

/// How long the number of the remaining shards must not have changed, while the parameters file is missing, before an
/// `rm -rf DIR/*` counts as ended. Shards can remain, because `rm` cannot remove a directory into which a session is
/// written meanwhile.
const LEFT: Duration = Duration::from_secs(5);

/// For how long after it has recreated the store this process recreates a missing shard at once, because the `rm` may
/// still be running.
const REMOVAL: Duration = Duration::from_secs(60);

/// What one open store knows about removals of its directories. The mutex is held while the store is recreated.
#[derive(Debug, Default)]
pub(super) struct Recreated(Mutex<Removals>);

#[derive(Debug, Default)]
struct Removals {
    /// The time at which this process last recreated the store, or some of its shards.
    recreated_at: Option<Instant>,
    /// If a removal seems to be running: the number of the remaining shards, and the time since which it has not
    /// changed.
    left: Option<(usize, Instant)>,
}

impl Removals {
    /// Whether the removal has ended, if `left` shards remain now and the parameters file is missing. No shard is
    /// recreated before that: a rotation could put its new session there, and the removal would delete it.
    fn has_ended(&mut self, left: usize) -> bool {
        match self.left {
            _ if left == 0 => true,
            Some((before, since)) if before == left => since.elapsed() >= LEFT,
            _ => {
                self.left = Some((left, Instant::now()));
                false
            }
        }
    }
}

impl Recreated {
    /// The state of a store that is being opened. `were_missing` tells whether the opening has recreated shards.
    pub(super) fn at_opening(were_missing: bool) -> Self {
        Self(Mutex::new(Removals { recreated_at: were_missing.then(Instant::now), left: None }))
    }
}

impl FileStore {
    /// Opens a shard directory that was missing a moment ago. Recreates the store first, if it was emptied.
    #[cold]
    pub(super) fn open_missing_shard(&self, name: &str) -> Result<Directory> {
        let open = || self.root.open_directory(name);
        let error =
            |error: io::Error| io_error("open shard directory", error).with_path(self.path().join(name));
        let mut removals = self.recreated.0.lock();
        // Another thread or process may have recreated the shard meanwhile.
        let missing = match open() {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => missing,
            opened => return opened.map_err(error),
        };
        if self.root.is_removed().map_err(error)? {
            return Err(error(missing).with_reason(
                "the session directory itself was removed while the store was open; recreate it and restart the program",
            ));
        }
        let is_recent = removals.recreated_at.is_some_and(|at| at.elapsed() < REMOVAL);
        let has_parameters = frame::has_parameters(&self.root)?;
        // A read-only store recreates nothing. A repair also opens the store read-only, to check the format of the
        // sessions before it makes anything.
        if self.options.read_only {
            return Err(error(missing).with_reason(frame::LOST_SHARD));
        }
        if !self.options.create || !is_recent && has_parameters {
            return Err(error(missing));
        }
        // Another process may be recreating the store.
        let making = self.lock_making()?;
        if let Ok(made) = open() {
            return Ok(made);
        }
        let names = self.root.names().map_err(error)?;
        let lost: Vec<_> = (0..SHARDS).map(shard_name).filter(|shard| !names.contains(shard)).collect();
        if !is_recent && !removals.has_ended(usize::from(SHARDS) - lost.len()) {
            return Err(error(missing));
        }
        // The log of cut-offs is removed too. The new one begins with the present time as the number of its first
        // entry, so that processes that have read the old log do not take an old entry for a later one.
        let is_ours = frame::make(&self.root, &self.options.clock, micros(self.options.clock.now()))?;
        *removals = Removals { recreated_at: Some(Instant::now()), left: None };
        // The result of the invalidation is returned at the end. The event is reported in any case, because all
        // visitors are logged out.
        let invalidated = self.invalidate_all_copies();
        let opened = open().map_err(error);
        drop((making, removals));
        if is_ours {
            self.options.observer.notify_and_print(&Event::StoreRecreated { path: self.path() });
        } else if has_parameters {
            self.options.observer.notify(&Event::ShardsRecreated { path: self.path(), shards: &lost });
        }
        invalidated.and(opened)
    }

    /// Takes the lock under which a process recreates the store. Other processes wait for it, and so do not take a half
    /// recreated store for a half removed one. The locked file is the directory `run`: every open store holds a shared
    /// lock on the root, so the root cannot be locked exclusively.
    fn lock_making(&self) -> Result<LockedFile> {
        let error = |error| io_error("lock run directory", error).with_path(self.path().join(RUN));
        self.root.make_directory(RUN).map_err(error)?;
        let run = self.root.open_file(RUN).map_err(error)?;
        let locked = LockedFile::acquire(run, Instant::now() + self.options.lock_wait).map_err(error)?;
        locked.map_err(|_| {
            Error::new(ErrorKind::Busy, "recreate the session store")
                .with_path(self.path())
                .with_reason("another process was recreating it for the whole wait limit")
        })
    }

    /// Invalidates the cached copies of all sessions in all processes.
    fn invalidate_all_copies(&self) -> Result<()> {
        self.coherence.invalidate_all().map_err(|error| {
            Error::new(
                ErrorKind::InvalidationFailed,
                "invalidate all copies after the session store was recreated",
            )
            .with_path(self.path())
            .with_reason("other processes may serve what was before for a minute")
            .with_source(error)
        })
    }
}
