//! A thread that sweeps at intervals, for as long as its [`Reaper`] lives.
//!
//! - **It keeps no store open.** The thread has a weak reference; when the store is dropped, the thread ends as soon as
//!   it wakes.
//! - **Only that and its handle end the thread**: an error is counted and reported, a panic in the observer is
//!   contained.
//! - **No failure is silent**: without an observer, a failed sweep is one line on standard error.
//! - **Any number of processes** may each have a reaper on the same store: one sweeps at a time, and the others skip
//!   that sweep.
//! - **It may be killed at any point**, as a sweep may; a server that never returns need not stop it.
use crate::admin::{Admin, SweepOptions, SweepOutcome, SweepProgress, SweepReport};
use crate::contained::contained;
use crate::error::{Error, ErrorKind, Result};
use crate::event::write_line;
use crate::fork::ForkGuard;
use crate::random;
use crate::shown::with_causes;
use crate::sync::channel::{Receiver, Sender, TryRecvError, after, bounded, never, select};
use crate::sync::thread::{self, JoinHandle};
use std::fmt;
use std::ops::ControlFlow::{Break, Continue};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The longest time before the first sweep of a reaper. It is short, so that a server that is restarted often sweeps,
/// too.
const FIRST_WITHIN: Duration = Duration::from_secs(10);

type Observer = dyn FnMut(&Result<SweepReport>) + Send;

/// Options of a [`Reaper`].
///
/// ```
/// use sessile::{FileStore, Reaper, ReaperOptions};
/// use std::sync::Arc;
/// # let dir = tempfile::tempdir()?;
/// let store = Arc::new(FileStore::open(dir.path())?);
/// let options = ReaperOptions::new().observer(|swept| match swept {
///     Ok(report) => println!("{} expired sessions removed", report.removed),
///     Err(error) => eprintln!("{error}"),
/// });
/// let reaper = Reaper::start(&store, options)?;
/// // … serve; and at the end, or never:
/// let done = reaper.close();
/// # assert_eq!(done.errors, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ReaperOptions {
    interval: Duration,
    sweep: SweepOptions,
    observer: Option<Box<Observer>>,
}

impl Default for ReaperOptions {
    fn default() -> Self {
        Self { interval: Duration::from_secs(300), sweep: SweepOptions::default(), observer: None }
    }
}

impl fmt::Debug for ReaperOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaperOptions")
            .field("interval", &self.interval)
            .field("sweep", &self.sweep)
            .finish_non_exhaustive()
    }
}

impl ReaperOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The time from the end of a sweep to the beginning of the next: 100 ms to 30 days, default 5 minutes. Up to a
    /// tenth is added at random, so that processes that were started together do not sweep at the same time. The first
    /// sweep begins at a random time within 10 seconds, or within the interval if that is shorter.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Options of each sweep; default [`SweepOptions::new`].
    #[must_use]
    pub fn sweep(mut self, options: SweepOptions) -> Self {
        self.sweep = options;
        self
    }

    /// Called with the result of each sweep, in the reaper's thread. A panic in it is contained and counted. Without an
    /// observer, a sweep that failed, or could not read or remove some files, is one line on standard error.
    #[must_use]
    pub fn observer(mut self, observer: impl FnMut(&Result<SweepReport>) + Send + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    fn check(&self) -> Result<()> {
        self.sweep.check()?;
        if (Duration::from_millis(100)..=Duration::from_secs(30 * 86_400)).contains(&self.interval) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Config, "start a reaper")
            .with_reason("the interval must be 100 ms to 30 days"))
    }
}

/// Counts of a reaper from its start to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReaperStats {
    /// Sweeps, also those that were stopped or failed.
    pub sweeps: u64,
    /// Sweeps that were skipped, because another sweep was running.
    pub skipped: u64,
    /// Sessions that were removed.
    pub removed: u64,
    /// Sizes of the files that were removed.
    pub bytes_freed: u64,
    /// Sweeps that failed, and files and directories that could not be read or removed.
    pub errors: u64,
    /// Panics that were contained.
    pub panics: u64,
}

/// A thread that sweeps a store; see [`start`](Self::start). Dropping the handle stops the thread and waits until
/// it has ended: 0.2 s at most, unless a call to the file system or to the server takes longer.
#[derive(Debug)]
#[must_use = "dropped, it stops"]
pub struct Reaper {
    /// Dropping the sender closes the channel, which stops the thread. No message is sent.
    stop: Option<Sender<()>>,
    requests: Option<Sender<()>>,
    thread: Option<JoinHandle<ReaperStats>>,
    fork_guard: ForkGuard,
}

impl Reaper {
    /// Starts a thread that [sweeps](Admin::sweep) a store at intervals until its handle is dropped. The store may be
    /// dropped first; the thread then ends by itself.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for options out of bounds, [`ErrorKind::Forked`] in a process that inherited the store,
    /// [`ErrorKind::Io`] if the system can start no thread.
    ///
    /// ```
    /// use sessile::{FileStore, Reaper, ReaperOptions};
    /// use std::sync::Arc;
    /// # let dir = tempfile::tempdir()?;
    /// let store = Arc::new(FileStore::open(dir.path())?);
    /// let _reaper = Reaper::start(&store, ReaperOptions::new())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start<S: Admin + ?Sized + 'static>(store: &Arc<S>, options: ReaperOptions) -> Result<Self> {
        options.check()?;
        store.check_process()?;
        let (stop, stopped) = bounded(0);
        let (requests, requested) = bounded(1);
        let worker = Worker {
            store: Arc::downgrade(store),
            options,
            stopped,
            requested,
            stats: ReaperStats::default(),
        };
        let thread = thread::Builder::new()
            .name("sessile-reaper".into())
            .spawn(|| worker.run_and_drop())
            .map_err(|error| Error::new(ErrorKind::Io, "start a reaper").with_source(error))?;
        Ok(Self {
            stop: Some(stop),
            requests: Some(requests),
            thread: Some(thread),
            fork_guard: ForkGuard::new(),
        })
    }

    /// Requests a sweep now, and does not wait for its end. A sweep that is requested during another one follows it.
    pub fn sweep_now(&self) {
        if let Some(requests) = self.requests.as_ref().filter(|_| self.fork_guard.same_process()) {
            // If the channel is full, a request is waiting already. If it is closed, the store was dropped.
            let _ = requests.try_send(());
        }
    }

    /// Stops the thread, waits until it has ended, and returns its counts.
    pub fn close(mut self) -> ReaperStats {
        self.stop()
    }

    fn stop(&mut self) -> ReaperStats {
        let (stop, requests) = (self.stop.take(), self.requests.take());
        let Some(thread) = self.thread.take() else { return ReaperStats::default() };
        if !self.fork_guard.same_process() {
            // A forked child has no such thread to wait for. It must not drop the channels either: the thread may have
            // held a lock of a channel at the fork, and the drop would wait for that lock for ever.
            std::mem::forget((stop, requests, thread));
            return ReaperStats::default();
        }
        drop(stop);
        if thread.thread().id() == thread::current().id() {
            // The handle is dropped by the reaper's own thread, in its observer. The thread ends when the observer
            // returns.
            return ReaperStats::default();
        }
        thread.join().unwrap_or_default()
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Worker<S: ?Sized> {
    store: Weak<S>,
    options: ReaperOptions,
    stopped: Receiver<()>,
    requested: Receiver<()>,
    stats: ReaperStats,
}

impl<S: Admin + ?Sized> Worker<S> {
    /// Runs until the reaper is stopped. Returns the counts, also if dropping the observer panics.
    fn run_and_drop(mut self) -> ReaperStats {
        let stats = self.run();
        let _ = contained(|| drop(self));
        stats
    }

    fn run(&mut self) -> ReaperStats {
        let mut wait = random_part_of(FIRST_WITHIN.min(self.options.interval));
        // If the handle was forgotten (`mem::forget`), its channel for requests is closed, which is not a request.
        let mut requested = self.requested.clone();
        loop {
            select! {
                recv(self.stopped) -> _ => return self.stats,
                recv(requested) -> message => if message.is_err() { requested = never(); continue },
                recv(after(wait)) -> _ => {}
            }
            let Some(store) = self.store.upgrade() else { return self.stats };
            // The store may have been dropped meanwhile. Then this thread has the last reference, and closes the store.
            self.sweep(&store);
            drop(store);
            if self.store.strong_count() == 0 {
                return self.stats;
            }
            wait = self.options.interval + random_part_of(self.options.interval / 10);
        }
    }

    fn sweep(&mut self, store: &Arc<S>) {
        let Self { options, stopped, stats, .. } = self;
        let mut go_on = |_: &SweepProgress<'_>| match stopped.try_recv() {
            // If this is the only reference to the store, the program has dropped the store. The sweep stops, so that
            // the store is closed now.
            Err(TryRecvError::Empty) if Arc::strong_count(store) > 1 => Continue(()),
            _ => Break(()),
        };
        let swept = contained(|| store.sweep_with(&options.sweep, &mut go_on)).unwrap_or_else(|_| {
            stats.panics += 1;
            let reason = "it panicked, which is a fault of the library; please report it";
            Err(Error::new(ErrorKind::Panicked, "sweep session store").with_reason(reason))
        });
        stats.count(&swept);
        match &mut options.observer {
            Some(observer) => stats.panics += u64::from(contained(|| observer(&swept)).is_err()),
            None => failure_line(&swept).into_iter().for_each(|line| write_line(&line)),
        }
    }
}

/// The line that is written to standard error if there is no observer; `None` if nothing failed.
fn failure_line(swept: &Result<SweepReport>) -> Option<String> {
    match swept {
        Err(error) => Some(with_causes(error)),
        Ok(report) if report.failed == 0 => None,
        Ok(report) => {
            let first = report.errors.first().map_or_else(String::new, |error| with_causes(error));
            Some(format!(
                "a sweep could not read or remove {} files or directories; the first: {first}",
                report.failed
            ))
        }
    }
}

impl ReaperStats {
    fn count(&mut self, swept: &Result<SweepReport>) {
        match swept {
            Ok(report) if report.outcome == SweepOutcome::AlreadyRunning => self.skipped += 1,
            Ok(report) => {
                self.sweeps += 1;
                self.removed += report.removed;
                self.bytes_freed += report.files.bytes_freed;
                self.errors += report.failed;
            }
            Err(_) => {
                self.sweeps += 1;
                self.errors += 1;
            }
        }
    }
}

/// A random part of a duration; the whole duration if the random generator fails.
fn random_part_of(time: Duration) -> Duration {
    let Ok(bits) = random::bytes("choose a time to sweep at") else { return time };
    time.mul_f64(f64::from(u32::from_le_bytes(bits)) / f64::from(u32::MAX))
}
