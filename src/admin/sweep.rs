//! Options, progress and report of a sweep, for all stores. Figures that only stores of files have are apart.
use crate::error::{Error, ErrorKind, Result};
use std::time::Duration;

/// The limit on the share of the machine that a sweep uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Budget {
    PerSecond(u32),
    /// A share of one core's time, in percent.
    CpuPercent(u16),
}

/// Options of a sweep.
///
/// ```
/// # use sessile::FileStore;
/// use sessile::{Admin, SweepOptions};
/// # let dir = tempfile::tempdir()?;
/// # let store = FileStore::open(dir.path())?;
/// let report = store.sweep(&SweepOptions::new())?;
/// println!("{} expired sessions removed", report.removed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SweepOptions {
    pub(crate) dry_run: bool,
    pub(crate) budget: Budget,
    pub(crate) full: bool,
    pub(crate) keep_damaged: Duration,
}

impl Default for SweepOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            budget: Budget::CpuPercent(25),
            full: false,
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

    /// Whether to count only, and to change no stored session; default no. A dry run of a store of files takes the lock
    /// of sweeps, so it does not run beside another sweep. A store on a server reads all of its rows.
    #[must_use]
    pub fn dry_run(mut self, yes: bool) -> Self {
        self.dry_run = yes;
        self
    }

    /// Share of one core's time, 1 to 100 percent, default 25: after each few milliseconds of work (on a server, after
    /// each batch of 200 rows), the sweep sleeps. 100 never sleeps. A sweep is one thread, so more than 100 is refused.
    #[must_use]
    pub fn cpu_percent(mut self, percent: u16) -> Self {
        self.budget = Budget::CpuPercent(percent);
        self
    }

    /// Files read, or rows removed, per second, at most, instead of a share of one core: 1 or more.
    #[must_use]
    pub fn per_second(mut self, count: u32) -> Self {
        self.budget = Budget::PerSecond(count);
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let reason = if matches!(self.budget, Budget::CpuPercent(percent) if !(1..=100).contains(&percent)) {
            "`cpu_percent` must be 1 to 100"
        } else if self.budget == Budget::PerSecond(0) {
            "`per_second` must be 1 or more"
        } else if self.keep_damaged < Duration::from_secs(3600) {
            "`keep_damaged` must be an hour or more"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Config, "sweep session store").with_reason(reason))
    }
}

/// # Only for stores of files
///
/// Other stores have no use for these options: each of their sweeps finds all that is over, and a server keeps its own
/// files in order.
impl SweepOptions {
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

    /// How long damaged files are kept for inspection after they were last written; at least an hour, default two
    /// weeks, the usual age of a session.
    #[must_use]
    pub fn keep_damaged(mut self, time: Duration) -> Self {
        self.keep_damaged = time;
        self
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
    /// A failure stopped it after a part of its work, and is the last one that the report counts; the next sweep
    /// continues.
    Failed,
    /// Another sweep of this store was running, in this process or another; nothing was done.
    AlreadyRunning,
}

/// The result of a sweep. A dry run reports the result that a sweep would have had.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SweepReport {
    /// How the sweep ended.
    pub outcome: SweepOutcome,
    /// What was removed because it was over: expired sessions, and sessions that a cut-off had ended. A store of files
    /// also counts damaged files here that had been kept long enough; a store on a server also counts moved ids whose
    /// grace periods were over.
    pub removed: u64,
    /// Files and directories, or batches of rows, that could not be read or removed.
    pub failed: u64,
    /// The first 16 errors of those counted in `failed`.
    pub errors: Vec<Error>,
    /// Duration of the sweep.
    pub elapsed: Duration,
    /// The counts that only a store of files has; zero for others.
    pub files: FilesSwept,
}

/// The part of a [`SweepReport`] that only stores of files have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilesSwept {
    /// Session files that were read.
    pub examined: u64,
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
    /// Sizes of the files that were removed.
    pub bytes_freed: u64,
}

impl SweepReport {
    /// The most errors that a report keeps.
    const ERRORS_MAX: usize = 16;

    /// The report of a sweep that has not begun, for implementors of [`Admin`](super::Admin).
    ///
    /// ```
    /// use sessile::SweepReport;
    /// assert_eq!(SweepReport::new().removed, 0);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a failure, and keeps its error if there is room.
    ///
    /// ```
    /// use sessile::{Error, ErrorKind, SweepReport};
    /// let mut report = SweepReport::new();
    /// report.fail(Error::new(ErrorKind::Busy, "remove a row"));
    /// assert_eq!((report.failed, report.errors.len()), (1, 1));
    /// ```
    pub fn fail(&mut self, error: Error) {
        self.failed += 1;
        if self.errors.len() < Self::ERRORS_MAX {
            self.errors.push(error);
        }
    }
}

/// The part of a sweep that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SweepPhase {
    /// Reading all files of some shards; counted in shards.
    Walk,
    /// Reading the sessions that the index of files lists as due; counted in sessions.
    Due,
    /// Removing rows on a server; counted in rows. Their total is not known, and is 0.
    Rows,
}

/// The progress of a sweep, as its callback gets it.
#[derive(Debug)]
#[non_exhaustive]
pub struct SweepProgress<'a> {
    /// The part of the sweep that is under way.
    pub phase: SweepPhase,
    /// How much of this part is done, in shards, sessions or rows.
    pub done: u64,
    /// The size of this part, in shards or sessions.
    pub total: u64,
    /// The counts since the sweep began.
    pub report: &'a SweepReport,
}
