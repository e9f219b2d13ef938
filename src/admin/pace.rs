//! The rate limit of a sweep, and the calls of its progress callback. This module sleeps, and calls no store.
use super::sweep::{Budget, SweepPhase, SweepProgress, SweepReport};
use crate::contained::contained;
use crate::sync::{Instant, thread};
use std::ops::ControlFlow;
use std::time::Duration;

/// The interval between two calls of the progress callback, which can stop the sweep. The sweep stops within twice this
/// interval and the time that one file takes.
const REPORT_EVERY: Duration = Duration::from_millis(50);
/// The time for which the sweep works between two sleeps, if its limit is a share of a core. It is too short to be
/// noticed, and long compared with the inaccuracy of a sleep.
const WORK_SLICE: Duration = Duration::from_millis(2);

/// The progress callback; `Break` stops the sweep.
pub type SweepProgressFn<'a> = &'a mut dyn FnMut(&SweepProgress<'_>) -> ControlFlow<()>;

pub(crate) struct Pace<'a> {
    budget: Budget,
    progress: SweepProgressFn<'a>,
    /// Whether the callback has panicked.
    pub(crate) panicked: bool,
    pub(crate) phase: SweepPhase,
    /// The amount of this phase that is done, in shards or sessions.
    pub(crate) done: u64,
    pub(crate) total: u64,
    /// The time of the last call of the callback.
    reported_at: Instant,
    /// The end of the last sleep.
    working_since: Instant,
    /// The earliest time for the next file or row, if the limit is in those per second.
    next_file: Instant,
}

impl<'a> Pace<'a> {
    pub(crate) fn new(budget: Budget, progress: SweepProgressFn<'a>) -> Self {
        let now = Instant::now();
        let phase = SweepPhase::Walk;
        Self {
            budget,
            progress,
            panicked: false,
            phase,
            done: 0,
            total: 0,
            reported_at: now,
            working_since: now,
            next_file: now,
        }
    }

    /// Begins a phase of the sweep, of `total` shards or sessions, and calls the callback.
    pub(crate) fn begin(&mut self, phase: SweepPhase, total: u64, report: &SweepReport) -> ControlFlow<()> {
        (self.phase, self.done, self.total) = (phase, 0, total);
        self.report(Instant::now(), report)
    }

    /// Called after each file: sleeps if the limit is reached. Returns `Break` if the callback stopped the sweep.
    pub(crate) fn after_file(&mut self, report: &SweepReport) -> ControlFlow<()> {
        self.after(1, report)
    }

    /// Called after some files or rows, as [`after_file`](Self::after_file) is after one.
    pub(crate) fn after(&mut self, count: u32, report: &SweepReport) -> ControlFlow<()> {
        if let Budget::PerSecond(files) = self.budget {
            // A slow file makes the sweep late. At most REPORT_EVERY of that delay is made up for, so that no burst of
            // files follows.
            let now = Instant::now();
            self.next_file = self.next_file.max(now.checked_sub(REPORT_EVERY).unwrap_or(now))
                + Duration::from_secs(1) * count / files;
        }
        self.checkpoint(report)
    }

    /// Called every few milliseconds during work that is not about single files. Sleeps if the limit is reached, and
    /// calls the callback at its interval.
    pub(crate) fn checkpoint(&mut self, report: &SweepReport) -> ControlFlow<()> {
        let now = Instant::now();
        let worked = now - self.working_since;
        let pause = match self.budget {
            Budget::CpuPercent(percent) if worked >= WORK_SLICE => {
                worked * u32::from(100 - percent) / u32::from(percent)
            }
            Budget::PerSecond(_) => self.next_file.saturating_duration_since(now),
            Budget::CpuPercent(_) => Duration::ZERO,
        };
        if pause > Duration::ZERO {
            self.sleep_until(now + pause, report)
        } else {
            self.maybe_report(now, report)
        }
    }

    fn sleep_until(&mut self, until: Instant, report: &SweepReport) -> ControlFlow<()> {
        loop {
            let now = Instant::now();
            self.maybe_report(now, report)?;
            let left = until.saturating_duration_since(now);
            // A remainder of less than 0.2 ms is skipped. A sleep takes a little longer than asked, which makes up for
            // it.
            if left < Duration::from_micros(200) {
                self.working_since = Instant::now();
                return ControlFlow::Continue(());
            }
            thread::sleep(left.min(REPORT_EVERY));
        }
    }

    fn maybe_report(&mut self, now: Instant, report: &SweepReport) -> ControlFlow<()> {
        if now - self.reported_at < REPORT_EVERY {
            ControlFlow::Continue(())
        } else {
            self.report(now, report)
        }
    }

    /// Calls the callback; no other function calls it. If the callback panics, the sweep stops and returns an error.
    fn report(&mut self, now: Instant, report: &SweepReport) -> ControlFlow<()> {
        self.reported_at = now;
        let (phase, done, total) = (self.phase, self.done, self.total);
        contained(|| (self.progress)(&SweepProgress { phase, done, total, report })).unwrap_or_else(|_| {
            self.panicked = true;
            ControlFlow::Break(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// The number of files that a sweep with this budget handles in `time`, if each takes the time `each`.
    fn files_in(budget: Budget, each: Duration, time: Duration) -> u32 {
        let began = Instant::now();
        let mut progress = |_: &SweepProgress<'_>| ControlFlow::Continue(());
        let mut pace = Pace::new(budget, &mut progress);
        let mut files = 0;
        while began.elapsed() < time {
            let until = Instant::now() + each;
            while Instant::now() < until {}
            files += 1;
            assert!(pace.after_file(&SweepReport::default()).is_continue());
        }
        files
    }

    /// On a busy machine the thread gets less time than it asks for, so only the upper bounds are tight.
    #[test]
    fn a_budget_is_not_exceeded() {
        let time = Duration::from_millis(400);
        let files = files_in(Budget::PerSecond(100), Duration::ZERO, time);
        assert!((2..=47).contains(&files), "{files} files in 0.4 s, at 100 a second");
        let worked = files_in(Budget::CpuPercent(25), Duration::from_millis(1), time);
        assert!((2..=120).contains(&worked), "{worked} ms of work in 400, at a quarter");
    }

    #[test]
    fn a_sleeping_sweep_can_be_stopped() {
        let asked = Cell::new(0);
        let mut stop = |_: &SweepProgress<'_>| {
            asked.set(asked.get() + 1);
            if asked.get() < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let began = Instant::now();
        let mut pace = Pace::new(Budget::PerSecond(1), &mut stop);
        let report = SweepReport::default();
        assert!((0..10).any(|_| pace.after_file(&report).is_break()));
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
