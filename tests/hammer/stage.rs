//! Where a hammer works: a store, beside it a ledger, and the word that everybody stops when somebody has found a fault.
use crate::support::ledger::Ledger;
use sessile::{FileStore, FileStoreOptions};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The cell of the ledger that says that all are to stop.
const STOP: u64 = 0;
/// How many cells are taken by this file.
pub(crate) const CELLS_TAKEN: u64 = 1;
/// Far above what any lock here is held for.
const LOCK_WAIT: Duration = Duration::from_secs(30);

/// Who sweeps is told of nothing done by hand, and none of the races here needs its logouts on the disk.
pub(crate) fn options() -> FileStoreOptions {
    FileStoreOptions::new().lock_wait(LOCK_WAIT).sync_security_events(false).watch(false)
}

pub(crate) fn open(dir: &Path) -> FileStore {
    options().open(store_in(dir)).unwrap()
}

/// One process of several keeps no copies.
pub(crate) fn open_in(dir: &Path, has_cache: bool) -> FileStore {
    if has_cache { open(dir) } else { open_without_cache(dir) }
}

/// One that says what the files say.
pub(crate) fn open_without_cache(dir: &Path) -> FileStore {
    options().cache_bytes(0).open(store_in(dir)).unwrap()
}

pub(crate) fn store_in(dir: &Path) -> PathBuf {
    dir.join("store")
}

pub(crate) fn ledger(dir: &Path) -> Ledger {
    Ledger::open(&dir.join("ledger"))
}

/// Asked before each step whether to go on.
pub(crate) struct Going<'a> {
    ledger: &'a Ledger,
    until: Option<Instant>,
}

impl<'a> Going<'a> {
    /// Until the time is over or somebody stops.
    pub(crate) fn on_for(ledger: &'a Ledger, time: Duration) -> Self {
        Self { ledger, until: Some(Instant::now() + time) }
    }

    /// Until somebody stops.
    pub(crate) fn on(ledger: &'a Ledger) -> Self {
        Self { ledger, until: None }
    }

    /// Whether to go on.
    pub(crate) fn on_still(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until) && !is_stopped(self.ledger)
    }

    /// Lets everybody stop.
    pub(crate) fn stop(&self) {
        stop(self.ledger);
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        // What has failed here is not to be waited for by the others.
        if thread::panicking() {
            stop(self.ledger);
        }
    }
}

/// Lets the children work for so long, or until one stops.
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
