//! The environment of a trial: a store, a ledger beside it, and a flag that stops all threads after a fault.
use crate::rounds::EXTENSION_MAX;
use crate::support::ledger::Ledger;
use sessile::{FileStore, FileStoreOptions};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The number of the ledger's cell that has the stop flag.
const STOP: u64 = 0;
/// The number of cells that this file uses.
pub(crate) const CELLS_TAKEN: u64 = 1;
/// A wait limit far longer than any operation here holds a lock.
const LOCK_WAIT: Duration = Duration::from_secs(30);

/// Options without a watcher, because nothing is changed outside the library, and without syncs of ends, because the
/// trials are not about power cuts.
pub(crate) fn options() -> FileStoreOptions {
    FileStoreOptions::new().lock_wait(LOCK_WAIT).sync_security_events(false).watch(false)
}

pub(crate) fn open(dir: &Path) -> FileStore {
    options().open(store_in(dir)).unwrap()
}

/// Opens a store with or without a cache. In some trials, one of several processes has no cache.
pub(crate) fn open_in(dir: &Path, has_cache: bool) -> FileStore {
    if has_cache { open(dir) } else { open_without_cache(dir) }
}

/// Opens a store without a cache, which returns what the files contain.
pub(crate) fn open_without_cache(dir: &Path) -> FileStore {
    options().cache_bytes(0).open(store_in(dir)).unwrap()
}

pub(crate) fn store_in(dir: &Path) -> PathBuf {
    dir.join("store")
}

pub(crate) fn ledger(dir: &Path) -> Ledger {
    Ledger::open(&dir.join("ledger"))
}

/// Tells a loop before each step whether to continue.
pub(crate) struct Going<'a> {
    ledger: &'a Ledger,
    until: Option<Instant>,
}

impl<'a> Going<'a> {
    /// Continues until the time is over or the stop flag is set.
    pub(crate) fn on_for(ledger: &'a Ledger, time: Duration) -> Self {
        Self { ledger, until: Some(Instant::now() + time) }
    }

    /// Continues until the stop flag is set.
    pub(crate) fn on(ledger: &'a Ledger) -> Self {
        Self { ledger, until: None }
    }

    /// Whether the loop should go on.
    pub(crate) fn on_still(&self) -> bool {
        self.on_until(true)
    }

    /// Like [`on_still`](Self::on_still), and goes on until `is_enough`: a busy machine may need more time, up to
    /// [`EXTENSION_MAX`].
    pub(crate) fn on_until(&self, is_enough: bool) -> bool {
        let extension = if is_enough { Duration::ZERO } else { EXTENSION_MAX };
        self.until.is_none_or(|until| Instant::now() < until + extension) && !is_stopped(self.ledger)
    }

    /// Sets the stop flag.
    pub(crate) fn stop(&self) {
        stop(self.ledger);
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        // If this thread has failed, the other threads stop as well.
        if thread::panicking() {
            stop(self.ledger);
        }
    }
}

/// Lets the children work for `time`, or until the stop flag is set.
pub(crate) fn wait(ledger: &Ledger, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until && !is_stopped(ledger) {
        thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn stop(ledger: &Ledger) {
    ledger.set_cell(STOP, 1);
}

fn is_stopped(ledger: &Ledger) -> bool {
    ledger.cell(STOP) != 0
}
