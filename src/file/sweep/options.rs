//! Options, progress and report of a sweep.
use crate::error::{Error, ErrorKind, Result};
use std::time::Duration;

/// The limit on the share of the machine that a sweep uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Budget {
    FilesPerSecond(u32),
    /// A share of one core's time, in percent.
    CpuPercent(u16),
}

/// Options of a sweep.
///
/// ```
/// # use sessile::{FileStore, file::SweepOptions};
/// # let dir = tempfile::tempdir()?;
/// # let store = FileStore::open(dir.path())?;
/// let report = store.sweep(&SweepOptions::new())?;
/// println!("{} expired sessions removed", report.removed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SweepOptions {
    pub(super) full: bool,
    pub(super) dry_run: bool,
    pub(super) budget: Budget,
    pub(super) keep_damaged: Duration,
}

impl Default for SweepOptions {
    fn default() -> Self {
        Self {
            full: false,
            dry_run: false,
            budget: Budget::CpuPercent(25),
            keep_damaged: Duration::from_secs(14 * 86_400),
        }
    }
}

impl SweepOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to read every file, instead of those that the expiry index lists as due and those of a few shards;
    /// default no.
    ///
    /// Costs a read of each session. It is never necessary: a lost index is recreated, and ordinary sweeps read one of
    /// the 256 shards for each hour, so that every file is read once within 256 hours.
    #[must_use]
    pub fn full(mut self, yes: bool) -> Self {
        self.full = yes;
        self
    }

    /// Whether to count only, and to change no stored session; default no. A dry run takes the lock of sweeps, so it
    /// does not run beside another sweep.
    #[must_use]
    pub fn dry_run(mut self, yes: bool) -> Self {
        self.dry_run = yes;
        self
    }

    /// Share of one core's time, 1 to 100 percent, default 25: after each few milliseconds of work, the sweep sleeps.
    /// 100 never sleeps. A sweep is one thread, so more than 100 is refused.
    #[must_use]
    pub fn cpu_percent(mut self, percent: u16) -> Self {
        self.budget = Budget::CpuPercent(percent);
        self
    }

    /// Files read per second, at most, instead of a share of one core: 1 or more.
    #[must_use]
    pub fn files_per_second(mut self, files: u32) -> Self {
        self.budget = Budget::FilesPerSecond(files);
        self
    }

    /// How long damaged files are kept for inspection after they were last written; at least an hour, default two
    /// weeks, the usual age of a session.
    #[must_use]
    pub fn keep_damaged(mut self, time: Duration) -> Self {
        self.keep_damaged = time;
        self
    }

    pub(in crate::file) fn check(&self) -> Result<()> {
        let reason = if matches!(self.budget, Budget::CpuPercent(percent) if !(1..=100).contains(&percent)) {
            "`cpu_percent` must be 1 to 100"
        } else if self.budget == Budget::FilesPerSecond(0) {
            "`files_per_second` must be 1 or more"
        } else if self.keep_damaged < Duration::from_secs(3600) {
            "`keep_damaged` must be an hour or more"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Config, "sweep session store").with_reason(reason))
    }
}

/// How a sweep ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SweepOutcome {
    /// The sweep did all of its work.
    #[default]
    Completed,
    /// `progress` stopped it; the next sweep continues.
    Cancelled,
    /// Another sweep of this store was running, in this process or another; nothing was done.
    AlreadyRunning,
}

/// The result of a sweep. A dry run reports the result that a sweep would have had.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SweepReport {
    /// How the sweep ended.
    pub outcome: SweepOutcome,
    /// Session files that were read.
    pub examined: u64,
    /// Sessions that were removed because they had expired or a cut-off had ended them, and damaged files that had been
    /// kept long enough.
    pub removed: u64,
    /// Sessions that a cut-off had ended, among those that were removed.
    pub cut_off: u64,
    /// Marks of moved ids that were removed, because their grace periods were over.
    pub moved: u64,
    /// Sessions that were due by the index, and had been renewed. A session in two buckets of the index counts twice,
    /// here, in `examined` and in `damaged`.
    pub renewed: u64,
    /// Damaged files, also those that were removed.
    pub damaged: u64,
    /// Leftovers of interrupted operations that were removed, an hour after they were written.
    pub temporary: u64,
    /// Files and directories that are not this crate's, or that another version of it wrote; they were left alone.
    pub unknown: u64,
    /// Files and directories that could not be read or removed.
    pub failed: u64,
    /// Sizes of the files that were removed.
    pub bytes_freed: u64,
    /// Duration of the sweep.
    pub elapsed: Duration,
    /// The first 16 errors of those counted in `failed`.
    pub errors: Vec<Error>,
}

impl SweepReport {
    /// The most errors that a report keeps.
    const ERRORS_MAX: usize = 16;

    pub(super) fn fail(&mut self, error: Error) {
        self.failed += 1;
        if self.errors.len() < Self::ERRORS_MAX {
            self.errors.push(error);
        }
    }
}

/// One of the two parts of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SweepPhase {
    /// Reading all files of some shards; counted in shards.
    Walk,
    /// Reading the sessions that the index lists as due; counted in sessions.
    Due,
}

/// The progress of a sweep, as its callback gets it.
#[derive(Debug)]
#[non_exhaustive]
pub struct SweepProgress<'a> {
    /// The part of the sweep that is under way.
    pub phase: SweepPhase,
    /// How much of this part is done, in shards or sessions.
    pub done: u64,
    /// The size of this part, in shards or sessions.
    pub total: u64,
    /// The counts since the sweep began.
    pub report: &'a SweepReport,
}
