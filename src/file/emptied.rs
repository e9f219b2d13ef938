//! A store whose directory was emptied while it is open: `rm -rf DIR/*` logs all visitors out. The first operation that meets a
//! missing shard looks at the root. If the parameters file `sessile.json` and all other shards are missing too, it recreates the store.
//!
//! One missing shard beside `sessile.json` is an error, because the shard may be on its way to another place. For a minute after this
//! process has recreated the store or some shards, such a shard is recreated with an event: the removal may still be running. A
//! removed root is an error: nothing can be made in it.
//!
//! No session comes back by this: the new shards are other directories, and an operation that has a file of an old shard open
//! finds that its path does not lead to that file any more. Cached copies become invalid with the shared counters (`run/generations`),
//! which were removed too. If that file survived, all its cells are invalidated.
use super::FileStore;
use super::disk::Directory;
use super::errors::io_error;
use super::flock::LockedFile;
use super::frame;
use super::layout::{RUN, SHARDS, shard_name};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::sync::{Instant, Mutex};
use std::io;
use std::time::Duration;

/// If the parameters file is missing and some shards are left, their number must be the same for so long before the removal is
/// taken to have ended: `rm` leaves a directory into which a session was written at that moment.
const LEFT: Duration = Duration::from_secs(5);

/// For so long after this process has recreated the store, a missing shard is recreated at once: the `rm` may still be running.
const REMOVAL: Duration = Duration::from_secs(60);

/// The removals that one open store has met. Locked while the store is recreated.
#[derive(Debug, Default)]
pub(super) struct MadeAgain(Mutex<Removals>);

#[derive(Debug, Default)]
struct Removals {
    /// When this process last recreated the store, or some of its shards.
    made_again: Option<Instant>,
    /// If a removal seems to be running: the number of shards that are left, and since when it has been this number.
    left: Option<(usize, Instant)>,
}

impl Removals {
    /// Whether a removal has ended that has left `left` shards and no parameters file. Until then no shard is recreated: a rotation
    /// could put its new session there, and the removal would take it.
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

impl MadeAgain {
    /// Of a store that is opened, some of whose shards were missing or not.
    pub(super) fn at_opening(were_missing: bool) -> Self {
        Self(Mutex::new(Removals { made_again: were_missing.then(Instant::now), left: None }))
    }
}

impl FileStore {
    /// Opens a shard directory that was not there a moment ago, after making the store again if it is gone.
    #[cold]
    pub(super) fn open_missing_shard(&self, name: &str) -> Result<Directory> {
        let open = || self.root.open_directory(name);
        let error =
            |error: io::Error| io_error("open shard directory", error).with_path(self.path().join(name));
        let mut removals = self.made_again.0.lock();
        // Another thread or process may have been faster.
        let missing = match open() {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => missing,
            opened => return opened.map_err(error),
        };
        if self.root.is_removed().map_err(error)? {
            return Err(error(missing).with_reason(
                "the session directory itself was removed while the store was open; make it again and restart the program",
            ));
        }
        let is_recent = removals.made_again.is_some_and(|at| at.elapsed() < REMOVAL);
        let has_parameters = frame::has_parameters(&self.root)?;
        // A store that is only read makes nothing, and a repair reads so before it knows which format the sessions have.
        if self.options.read_only {
            return Err(error(missing).with_reason(frame::LOST_SHARD));
        }
        if !self.options.create || !is_recent && has_parameters {
            return Err(error(missing));
        }
        // Another process may be making it.
        let making = self.lock_making()?;
        if let Ok(made) = open() {
            return Ok(made);
        }
        let names = self.root.names().map_err(error)?;
        let lost: Vec<_> = (0..SHARDS).map(shard_name).filter(|shard| !names.contains(shard)).collect();
        if !is_recent && !removals.has_ended(usize::from(SHARDS) - lost.len()) {
            return Err(error(missing));
        }
        let is_ours = frame::make(&self.root, &self.options.clock)?;
        *removals = Removals { made_again: Some(Instant::now()), left: None };
        // All visitors are logged out, also if the invalidation fails.
        let doubted = self.doubt_all();
        let opened = open().map_err(error);
        drop((making, removals));
        if is_ours {
            self.options.observer.notify_and_print(&Event::StoreRecreated { path: self.path() });
        } else if has_parameters {
            self.options.observer.notify(&Event::ShardsRecreated { path: self.path(), shards: &lost });
        }
        doubted.and(opened)
    }

    /// Keeps other processes from making the store at the same time, and from taking what is half made for what is half removed:
    /// by a lock on `run`, for that of the root is shared by all.
    fn lock_making(&self) -> Result<LockedFile> {
        let error = |error| io_error("lock run directory", error).with_path(self.path().join(RUN));
        self.root.make_directory(RUN).map_err(error)?;
        let run = self.root.open_file(RUN).map_err(error)?;
        let locked = LockedFile::acquire(run, Instant::now() + self.options.lock_wait).map_err(error)?;
        locked.map_err(|_| {
            Error::new(ErrorKind::Busy, "make the session store again")
                .with_path(self.path())
                .with_reason("another process was making it for the whole wait limit")
        })
    }

    /// Lets no process trust a copy that it has by now.
    fn doubt_all(&self) -> Result<()> {
        self.coherence.invalidate_all().map_err(|error| {
            Error::new(
                ErrorKind::InvalidationFailed,
                "invalidate all copies after the session store was made again",
            )
            .with_path(self.path())
            .with_reason("other processes may serve what was before for a minute")
            .with_source(error)
        })
    }
}
