//! One pass: remove what is dead, and say what was done.
//!
//! A pass has two parts:
//!
//! 1. **The walk** looks at every file of a few shards: one for each hour since the last walk, so that 256 hours see all
//!    of them, whether somebody sweeps each minute or each night. It removes what is expired, files live sessions that
//!    the index has lost, and clears what belongs to nobody. If the index says nothing of a last walk, it is new or was
//!    lost, and the walk covers everything.
//! 2. **What is due**: sessions that the index has in a bucket whose time has come. Gone: skipped.
//!    Expired: removed. Renewed: filed anew. In use this very moment: left for the next pass.
//!
//! Invariants:
//!
//! - **Nothing is removed on hearsay.** Whatever the index, the walk or a reading without a lock says, a file is removed
//!   under its session's lock, after another look at it.
//! - **What was removed is told** to those who have copies, before the lock is given back, as every end of a session.
//! - **Killed anywhere, nothing is lost.** An entry is struck out when its session is done with, a bucket is removed when all
//!   of its entries are, the hour of the walk is written when the walk is done. The next pass does again what is not
//!   written down, and finds it done.
//! - **A bucket loses its name before its end is read.** Who appends to it looks afterwards whether it still has one
//!   (`due`): either the entry is read here, or it is filed elsewhere there.
//! - **One at a time.** The lock is held for the whole pass, which is one thread's; a second sweep leaves.
mod buckets;
mod marker;
mod options;
mod pace;
mod remove;
mod shards;

pub use options::{SweepOptions, SweepOutcome, SweepPhase, SweepProgress, SweepReport};

use super::FileStore;
use super::disk::Directory;
use super::expiry_index::{self, BUCKET_MICROS};
use super::layout::{DUE, SHARDS};
use crate::clock::micros;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Store;
use crate::sync::Instant;
use marker::Marker;
use pace::Pace;
use std::io;
use std::ops::ControlFlow::{self, Continue};
use std::time::SystemTime;

/// How many shards there are to be walked.
const ALL: u64 = SHARDS as u64;

impl FileStore {
    /// Removes what is dead: one pass, as often as one likes, beside any number of users of the store.
    ///
    /// Costs a look at each session that is due, and, once an hour, at one of 256. Nothing that is alive is removed, also if
    /// it is renewed this very moment, and nothing needs a sweep but the disk's space: expired sessions cannot be read,
    /// swept or not.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for options out of bounds. Others if the index cannot be opened or locked. What is wrong with
    /// one file or directory is counted in the report and stops nothing.
    pub fn sweep(&self, options: &SweepOptions) -> Result<SweepReport> {
        self.sweep_with(options, |_| Continue(()))
    }

    /// The same, telling `progress` 20 times a second how far it has come, also while it rests. If that returns `Break`, the
    /// sweep stops within 0.2 s, unless a single call to the file system takes longer.
    ///
    /// # Errors
    ///
    /// As for [`sweep`](Self::sweep); [`ErrorKind::Panicked`] if `progress` panics, which stops the sweep as `Break` does.
    pub fn sweep_with(
        &self,
        options: &SweepOptions,
        mut progress: impl FnMut(&SweepProgress<'_>) -> ControlFlow<()>,
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
                    report: SweepReport::default(),
                    pace: Pace::new(options.budget, &mut progress),
                };
                if pass.run(&marker).is_break() {
                    pass.report.outcome = SweepOutcome::Cancelled;
                }
                if pass.pace.panicked {
                    let reason = "the function that is told of its progress panicked; what was done until then is done";
                    return Err(Error::new(ErrorKind::Panicked, "sweep session store").with_reason(reason));
                }
                pass.report
            }
        };
        report.elapsed = began.elapsed();
        Ok(report)
    }

    /// Opens the expiry index; makes it if it is lost.
    fn open_index(&self) -> Result<Directory> {
        let opened = match self.root.open_directory(DUE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.options.read_only => {
                expiry_index::make_directory(&self.root).and_then(|()| self.root.open_directory(DUE))
            }
            opened => opened,
        };
        opened.map_err(|error| {
            let is_lost = error.kind() == io::ErrorKind::NotFound;
            let error = self.error_at("open expiry index", DUE, error);
            if is_lost {
                error.with_reason("it is lost; a sweep that is no dry run makes it anew")
            } else {
                error
            }
        })
    }
}

/// What became of a session that was due.
enum EntryOutcome {
    /// Nothing is left to be done.
    Done,
    /// It lives until then.
    Renewed(SystemTime),
    /// It is in use, or cannot be read: another time.
    Retry,
}

struct Pass<'a> {
    store: &'a FileStore,
    index: &'a Directory,
    options: &'a SweepOptions,
    /// When it began.
    now: SystemTime,
    /// The same by the file system's clock, in seconds since 1970.
    disk_now: i64,
    /// Shards of which every file was looked at.
    walked: [bool; SHARDS as usize],
    /// How many sessions could not be filed again.
    index_failures: u64,
    report: SweepReport,
    pace: Pace<'a>,
}

impl Pass<'_> {
    fn run(&mut self, marker: &Marker) -> ControlFlow<()> {
        let hour = micros(self.now) / BUCKET_MICROS;
        let last = marker.walked();
        // The hours whose shards are to be walked. In their order, so that a walk that is stopped can be gone on with.
        let hours = match last {
            Some(last) if !self.options.full && hour < last.saturating_add(ALL) => {
                last.saturating_add(1)..=hour
            }
            _ => hour + 1..=hour + ALL,
        };
        let shards: Vec<u64> = hours.map(|hour| hour % ALL).collect();
        if !shards.is_empty() {
            let (seen, end) = self.walk(&shards);
            if end.is_break() {
                self.note_stop(marker, last, hour.checked_sub((shards.len() - seen) as u64));
                return end;
            }
        }
        // Also if the clock was set back: the walk goes on from here.
        if last != Some(hour)
            && !self.options.dry_run
            && let Err(error) = marker.set_walked(self.store, hour)
        {
            self.report.fail(error);
        }
        self.sweep_due(hour)
    }

    /// Notes how far a walk has come that was stopped: as if it had been made in this hour.
    fn note_stop(&self, marker: &Marker, last: Option<u64>, hour: Option<u64>) {
        if let Some(hour) = hour.filter(|_| !self.options.dry_run)
            && last.is_none_or(|last| last < hour)
        {
            // What cannot be noted is walked once more.
            let _ = marker.set_walked(self.store, hour);
        }
    }
}
