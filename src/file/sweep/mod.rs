//! Sweeping: one pass over a store that removes expired sessions and leftovers, and reports the result.
//!
//! A pass has two parts:
//!
//! 1. **The walk** reads every file of a few shards: one shard for each hour since the last walk, so that 256 hours
//!    cover all of them, whether sweeps run each minute or each night. It removes expired sessions, sessions that a
//!    cut-off has ended, and leftovers of interrupted operations, and inserts live sessions that the indexes lack. The
//!    walk covers all shards if the expiry index was lost, once after a cut-off of all sessions, and if the user index
//!    is not complete (`users`).
//! 2. **Due entries** are the sessions that the index lists for hours that have come. A missing session is skipped, an
//!    expired one removed, a renewed one inserted again, and a locked one left for the next pass. The mark of a moved
//!    id is removed once its grace period is over.
//!
//! Invariants:
//!
//! - **A file is removed only under its session's lock**, after it was read again under that lock. The index, and
//!   readings without the lock, only tell which files to examine.
//! - **Each removed session is invalidated** in all caches before its lock is released, as by a delete.
//! - **A sweep that is killed loses nothing.** An entry is erased after its session was handled, a bucket is removed
//!   after all of its entries were, and the hour of the walk is written after the walk. The next pass repeats the work
//!   that is not recorded.
//! - **A bucket loses its name before its end is read.** A process that appends to it checks afterwards whether it
//!   still has a name (see `expiry_index`). So either the sweep reads the entry, or that process inserts it in another
//!   bucket.
//! - **One sweep at a time.** The file `run/due/sweep` is locked for the whole pass, which runs on one thread. A second
//!   sweep returns at once.
mod buckets;
mod marker;
mod remove;
mod shards;
mod users;

use super::FileStore;
use super::disk::Directory;
use super::expiry_index::{self, BUCKET_MICROS};
use super::layout::{DUE, SHARDS};
use crate::admin::{Pace, SweepOptions, SweepOutcome, SweepProgressFn, SweepReport};
use crate::clock::micros;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{EndedSession, Store};
use crate::sync::Instant;
use marker::Marker;
use std::io;
use std::ops::ControlFlow;
use std::time::SystemTime;
use users::UserWalk;

/// The number of shards, as the type in which hours are counted.
const ALL: u64 = SHARDS as u64;

impl FileStore {
    /// Sweeps once; see [`Admin::sweep_with`](crate::Admin::sweep_with).
    pub(super) fn sweep_files(
        &self,
        options: &SweepOptions,
        progress: SweepProgressFn<'_>,
    ) -> Result<SweepReport> {
        let began = Instant::now();
        options.check()?;
        self.queues.check_process()?;
        if !options.dry_run {
            self.check_may_write()?;
        }
        let index = self.open_index()?;
        let mut report = match Marker::lock(self, &index)? {
            None => SweepReport { outcome: SweepOutcome::AlreadyRunning, ..SweepReport::default() },
            Some(marker) => {
                let now = self.now();
                let mut pass = Pass {
                    store: self,
                    index: &index,
                    options,
                    now,
                    disk_now: marker.touch(self)?,
                    walked: [false; SHARDS as usize],
                    index_failures: 0,
                    users: UserWalk::default(),
                    removed: None,
                    report: SweepReport::default(),
                    pace: Pace::new(options.budget, progress),
                };
                if pass.run(&marker).is_break() {
                    pass.report.outcome = SweepOutcome::Cancelled;
                }
                if !options.dry_run {
                    self.tally.add_swept(pass.report.removed);
                }
                if pass.pace.panicked {
                    let reason = "the `progress` function panicked; the work until then is done";
                    return Err(Error::new(ErrorKind::Panicked, "sweep session store").with_reason(reason));
                }
                pass.report
            }
        };
        report.elapsed = began.elapsed();
        Ok(report)
    }

    /// Opens the directory of the expiry index, or recreates it if it is missing.
    fn open_index(&self) -> Result<Directory> {
        let opened = match self.root.open_directory(DUE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.options.read_only => {
                expiry_index::make_directory(&self.root).and_then(|()| self.root.open_directory(DUE))
            }
            opened => opened,
        };
        opened.map_err(|error| {
            let is_lost = error.kind() == io::ErrorKind::NotFound;
            let error = self.root.error_at("open expiry index", DUE, error);
            if is_lost {
                error.with_reason("it is lost; a sweep without dry run recreates it")
            } else {
                error
            }
        })
    }
}

/// The result of examining one session file.
enum EntryOutcome {
    /// The session needs no entry in the index: its file was removed, or is none that a sweep removes.
    Done,
    /// The session is alive, and has this deadline.
    Renewed(SystemTime),
    /// The session has moved to another id. The file, with the mark that names the other id, is kept until this time.
    Moved(SystemTime),
    /// The session is locked or cannot be read; the next pass tries again.
    Retry,
}

struct Pass<'a> {
    store: &'a FileStore,
    index: &'a Directory,
    options: &'a SweepOptions,
    /// The time at the beginning of the pass.
    now: SystemTime,
    /// The time at the beginning of the pass, by the file system's clock, in seconds since 1970. The ages of files are
    /// measured with it.
    disk_now: i64,
    /// For each shard, whether the walk has read every file of it.
    walked: [bool; SHARDS as usize],
    /// The number of sessions that could not be inserted in the index again.
    index_failures: u64,
    users: UserWalk,
    /// The session that was removed last, until the observer has heard of it.
    removed: Option<EndedSession>,
    report: SweepReport,
    pace: Pace<'a>,
}

impl Pass<'_> {
    fn run(&mut self, marker: &Marker) -> ControlFlow<()> {
        let hour = micros(self.now) / BUCKET_MICROS;
        let last = marker.last_walk();
        // After a cut-off of all sessions, all shards are walked once. (The sessions of one user are removed when their
        // shard is walked, or when they are due. A walk of all shards for each such user would cost more disk reads
        // than their files are worth.)
        let cut_off = self.store.coherence.last_cut_off_of_all().unwrap_or(0);
        let is_cut_off = cut_off > 0 && cut_off > marker.walked_cut_off();
        let is_full = self.options.full || is_cut_off || self.needs_user_walk(hour);
        // The hours whose shards are walked now. They are in order, so that the progress of a stopped walk can be
        // recorded as an earlier hour.
        let hours = match last {
            Some(last) if !is_full && hour < last.saturating_add(ALL) => last.saturating_add(1)..=hour,
            _ => hour + 1..=hour + ALL,
        };
        let shards: Vec<u64> = hours.map(|hour| hour % ALL).collect();
        if !shards.is_empty() {
            let (walked, end) = self.walk(&shards);
            if end.is_break() {
                self.record_stop(marker, last, hour.checked_sub((shards.len() - walked) as u64));
                return end;
            }
        }
        if is_cut_off
            && !self.options.dry_run
            && let Err(error) = marker.set_walked_cut_off(self.store, cut_off)
        {
            self.report.fail(error);
        }
        // The hour is written if it has changed, also to an earlier one: if the clock was set back, the next walk
        // continues from there.
        if last != Some(hour)
            && !self.options.dry_run
            && let Err(error) = marker.set_last_walk(self.store, hour)
        {
            self.report.fail(error);
        }
        self.sweep_due(hour)
    }

    /// Records the progress of a stopped walk, as if the walk had been completed in the earlier `hour`. The next pass
    /// walks the remaining shards.
    fn record_stop(&self, marker: &Marker, last: Option<u64>, hour: Option<u64>) {
        if let Some(hour) = hour.filter(|_| !self.options.dry_run)
            && last.is_none_or(|last| last < hour)
        {
            // A failure is ignored: the next pass walks these shards again.
            let _ = marker.set_last_walk(self.store, hour);
        }
    }
}
