//! Several threads that share the work of a pass.
//!
//! Items are handed out one by one to whoever is free; one item is done by one thread. What each thread did is added to
//! the pass after each of its items, so that its progress is told by the thread that began it, which alone asks whether
//! to stop.
use super::pace::Pace;
use super::{Pass, SweepProgress, SweepReport};
use crate::sync::atomic::{AtomicBool, AtomicUsize};
use crate::sync::{Mutex, thread};
use std::ops::ControlFlow::{self, Break, Continue};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How long the thread that began it waits for the others before it looks around.
const WAIT: Duration = Duration::from_millis(5);

/// What the threads have in common.
struct Shared<'a, T> {
    items: &'a [T],
    next: AtomicUsize,
    stop: AtomicBool,
    /// What the helpers did since it was last taken from here.
    done: Mutex<SweepReport>,
}

/// Stops the helpers if the pass ends early, be it by a panic.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl<T> Shared<'_, T> {
    /// Does something with one item after the other, as long as there are any.
    fn work<R>(&self, mut each: impl FnMut(&T) -> (R, ControlFlow<()>)) -> (Vec<R>, ControlFlow<()>) {
        let mut results = Vec::new();
        while let Some(item) = self.items.get(self.next.fetch_add(1, Relaxed)) {
            let (result, end) = each(item);
            results.push(result);
            if end.is_break() {
                return (results, end);
            }
        }
        (results, Continue(()))
    }

    /// What the helpers did since the last time.
    fn news(&self) -> SweepReport {
        std::mem::take(&mut self.done.lock())
    }
}

impl Pass<'_> {
    /// Does something with each item, in as many threads as the budget takes. What came of the items, in any order, also of
    /// those that were begun when it was told to stop; and whether it was.
    pub(super) fn together<T: Sync, R: Send>(
        &mut self,
        items: &[T],
        each: impl Fn(&mut Pass<'_>, &T) -> (R, ControlFlow<()>) + Sync,
    ) -> (Vec<R>, ControlFlow<()>) {
        let (next, stop, done) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::default());
        let shared = Shared { items, next, stop, done };
        let Self { store, index, options, now, disk_now, walked, .. } = *self;
        let (budget, count) = (self.pace.budget, &Arc::clone(&self.pace.done));
        let beginner = thread::current();
        let help = || {
            let mut tell = |_: &SweepProgress<'_>| {
                if shared.stop.load(Relaxed) { Break(()) } else { Continue(()) }
            };
            let mut pace = Pace::new(budget, &mut tell);
            pace.done = Arc::clone(count);
            let (index_failures, report) = (0, SweepReport::default());
            let mut pass =
                Pass { store, index, options, now, disk_now, walked, index_failures, report, pace };
            let (results, _) = shared.work(|item| {
                let result = each(&mut pass, item);
                shared.done.lock().add(std::mem::take(&mut pass.report));
                result
            });
            beginner.unpark();
            (results, pass.index_failures)
        };
        let threads = usize::try_from(budget.threads()).expect("a few").min(items.len());
        thread::scope(|scope| {
            let start =
                |_| thread::Builder::new().name("sessile-sweep".into()).spawn_scoped(scope, help).ok();
            // One that cannot be started leaves its work to the others.
            let helpers: Vec<_> = (1..threads).map_while(start).collect();
            let _stop = StopOnDrop(&shared.stop);
            let (mut results, mut end) = shared.work(|item| {
                let result = each(self, item);
                self.report.add(shared.news());
                result
            });
            // The last items may take the others long: who is told of it is to be asked meanwhile.
            while end.is_continue() && !helpers.iter().all(thread::ScopedJoinHandle::is_finished) {
                thread::park_timeout(WAIT);
                self.report.add(shared.news());
                end = self.pace.wait(&self.report);
            }
            if end.is_break() {
                shared.stop.store(true, Relaxed);
            }
            for helper in helpers {
                let (more, index_failures) = helper.join().unwrap_or_else(|panic| resume_unwind(panic));
                results.extend(more);
                self.index_failures += index_failures;
            }
            self.report.add(shared.news());
            (results, end)
        })
    }
}
