//! A thread that sweeps at its own pace, for as long as its [`Reaper`] lives.
//!
//! - **It keeps no store open.** It has a weak reference; when the store is dropped, it ends with its next turn.
//! - **Nothing ends it** but that and its handle: an error is counted and told, a panic in the observer is contained.
//! - **It fails aloud**: without an observer, a sweep that failed is one line on standard error.
//! - **Any number of processes** may have one on the same store: one sweeps at a time, the others leave it to that one.
//! - **It may be killed anywhere**, as a sweep may; a server that never returns needs not stop it.
use super::mapped::Birthmark;
use super::{FileStore, SweepOptions, SweepOutcome, SweepProgress, SweepReport};
use crate::contained::contained;
use crate::error::{Error, ErrorKind, Result};
use crate::event::write_line;
use crate::random;
use crate::shown::with_causes;
use crate::sync::channel::{Receiver, Sender, TryRecvError, after, bounded, never, select};
use crate::sync::thread::{self, JoinHandle};
use std::fmt;
use std::ops::ControlFlow::{Break, Continue};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The first sweep of a reaper comes after this time at most, so that a server that is started often sweeps as well.
const FIRST_WITHIN: Duration = Duration::from_secs(10);

type Observer = dyn FnMut(&Result<SweepReport>) + Send;

/// How a [`Reaper`] works.
///
/// ```
/// # use sessile::{FileStore, file::ReaperOptions};
/// # use std::sync::Arc;
/// # let dir = tempfile::tempdir()?;
/// let store = Arc::new(FileStore::open(dir.path())?);
/// let reaper = store.start_reaper(ReaperOptions::new().observer(|swept| match swept {
///     Ok(report) => println!("{} expired sessions removed", report.removed),
///     Err(error) => eprintln!("{error}"),
/// }))?;
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

    /// From the end of a sweep to the beginning of the next: 100 ms to 30 days, default 5 minutes. Up to a tenth is added by
    /// chance, so that processes started together do not meet; the first sweep comes by chance within 10 seconds, or
    /// within the interval if that is shorter.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How each sweep is done; default [`SweepOptions::new`].
    #[must_use]
    pub fn sweep(mut self, options: SweepOptions) -> Self {
        self.sweep = options;
        self
    }

    /// Is told of each sweep, in the reaper's thread. A panic in it is contained and counted. Without an observer, a sweep
    /// that failed, or left files behind that it could not look at or remove, is one line on standard error.
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

/// What a reaper did between its start and its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReaperStats {
    /// Sweeps that it made, also those that were stopped or failed.
    pub sweeps: u64,
    /// Sweeps that it left to somebody else.
    pub elsewhere: u64,
    /// Sessions that it removed.
    pub removed: u64,
    /// Sizes of the files that it removed.
    pub bytes_freed: u64,
    /// Sweeps that could not be made, and files and directories that could not be looked at or removed.
    pub errors: u64,
    /// Panics that were contained.
    pub panics: u64,
}

/// A thread that sweeps a store; see [`FileStore::start_reaper`]. Dropping it stops the thread and waits until it has
/// ended: 0.2 s at most, unless a call to the file system takes longer.
#[derive(Debug)]
#[must_use = "dropped, it stops"]
pub struct Reaper {
    /// Nothing is sent: it closes when the thread is to end.
    stop: Option<Sender<()>>,
    now: Option<Sender<()>>,
    thread: Option<JoinHandle<ReaperStats>>,
    birthmark: Birthmark,
}

impl FileStore {
    /// Starts a thread that [sweeps](Self::sweep) this store again and again until its handle is dropped. The store may be
    /// dropped first; the thread then ends by itself.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for options out of bounds, [`ErrorKind::Forked`] in a process that inherited the store,
    /// [`ErrorKind::Io`] if the system has no thread left.
    pub fn start_reaper(self: &Arc<Self>, options: ReaperOptions) -> Result<Reaper> {
        options.check()?;
        self.queues.check_process()?;
        let (stop, stopped) = bounded(0);
        let (now, asked) = bounded(1);
        let worker =
            Worker { store: Arc::downgrade(self), options, stopped, asked, reaped: ReaperStats::default() };
        let thread = thread::Builder::new()
            .name("sessile-reaper".into())
            .spawn(|| worker.run_and_end())
            .map_err(|error| Error::new(ErrorKind::Io, "start a reaper").with_source(error))?;
        Ok(Reaper { stop: Some(stop), now: Some(now), thread: Some(thread), birthmark: Birthmark::new() })
    }
}

impl Reaper {
    /// Asks for a sweep now, and does not wait for it. One that is asked for while another is under way follows it.
    pub fn sweep_now(&self) {
        if let Some(now) = self.now.as_ref().filter(|_| self.birthmark.is_here()) {
            // Full: it was asked already. Closed: the store was dropped.
            let _ = now.try_send(());
        }
    }

    /// Stops the thread, waits until it has ended, and says what it did.
    pub fn close(mut self) -> ReaperStats {
        self.end()
    }

    fn end(&mut self) -> ReaperStats {
        let (stop, now) = (self.stop.take(), self.now.take());
        let Some(thread) = self.thread.take() else { return ReaperStats::default() };
        if !self.birthmark.is_here() {
            // In a forked child there is no such thread to be waited for, and what it had is not to be given back: it may
            // have held a channel's lock at the fork, which closing the channel would wait for.
            std::mem::forget((stop, now, thread));
            return ReaperStats::default();
        }
        drop(stop);
        if thread.thread().id() == thread::current().id() {
            // The observer has the handle: the thread ends when it returns.
            return ReaperStats::default();
        }
        thread.join().unwrap_or_default()
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.end();
    }
}

struct Worker {
    store: Weak<FileStore>,
    options: ReaperOptions,
    stopped: Receiver<()>,
    asked: Receiver<()>,
    reaped: ReaperStats,
}

impl Worker {
    /// Runs until it is stopped, and says what was done, also if dropping the observer panics.
    fn run_and_end(mut self) -> ReaperStats {
        let reaped = self.run();
        let _ = contained(|| drop(self));
        reaped
    }

    fn run(&mut self) -> ReaperStats {
        let mut wait = part_of(FIRST_WITHIN.min(self.options.interval));
        // When its handle is forgotten, nobody asks any more, and that is no reason to sweep.
        let mut asked = self.asked.clone();
        loop {
            select! {
                recv(self.stopped) -> _ => return self.reaped,
                recv(asked) -> message => if message.is_err() { asked = never(); continue },
                recv(after(wait)) -> _ => {}
            }
            let Some(store) = self.store.upgrade() else { return self.reaped };
            // Whoever drops the last reference closes the store; that may be this thread, here.
            self.sweep(&store);
            drop(store);
            if self.store.strong_count() == 0 {
                return self.reaped;
            }
            wait = self.options.interval + part_of(self.options.interval / 10);
        }
    }

    fn sweep(&mut self, store: &Arc<FileStore>) {
        let Self { options, stopped, reaped, .. } = self;
        let go_on = |_: &SweepProgress<'_>| match stopped.try_recv() {
            // Nobody else has the store any more: it is to be closed now, not when the sweep is done.
            Err(TryRecvError::Empty) if Arc::strong_count(store) > 1 => Continue(()),
            _ => Break(()),
        };
        let swept = contained(|| store.sweep_with(&options.sweep, go_on)).unwrap_or_else(|_| {
            reaped.panics += 1;
            let reason = "it panicked, which is a fault of the library; please report it";
            Err(Error::new(ErrorKind::Panicked, "sweep session store").with_reason(reason))
        });
        reaped.count(&swept);
        match &mut options.observer {
            Some(observer) => reaped.panics += u64::from(contained(|| observer(&swept)).is_err()),
            None => failure(&swept).into_iter().for_each(|line| write_line(&line)),
        }
    }
}

/// The line that standard error gets where there is no observer; `None` if nothing failed.
fn failure(swept: &Result<SweepReport>) -> Option<String> {
    match swept {
        Err(error) => Some(with_causes(error)),
        Ok(report) if report.failed == 0 => None,
        Ok(report) => {
            let first = report.errors.first().map_or_else(String::new, |error| with_causes(error));
            Some(format!("a sweep left {} files or directories behind; the first: {first}", report.failed))
        }
    }
}

impl ReaperStats {
    fn count(&mut self, swept: &Result<SweepReport>) {
        match swept {
            Ok(report) if report.outcome == SweepOutcome::AlreadyRunning => self.elsewhere += 1,
            Ok(report) => {
                self.sweeps += 1;
                self.removed += report.removed;
                self.bytes_freed += report.bytes_freed;
                self.errors += report.failed;
            }
            Err(_) => {
                self.sweeps += 1;
                self.errors += 1;
            }
        }
    }
}

/// Some part of a time, by chance.
fn part_of(time: Duration) -> Duration {
    // Without chance, all of it.
    let Ok(bits) = random::bytes("choose a time to sweep at") else { return time };
    time.mul_f64(f64::from(u32::from_le_bytes(bits)) / f64::from(u32::MAX))
}
