//! Processes with several [`Checker`] threads each. They perform every operation on the same sessions at the same time,
//! and check all results.
use crate::figures::{Figures, words};
use crate::stage::{Going, ledger, open_without_cache, options, store_in, wait};
use crate::support::apart::keep_apart;
use crate::support::checker::{Checker, Findings, Mix, Saving, check_at_rest};
use crate::support::ledger::Ledger;
use crate::support::process::{Parent, Start, say_to_all};
use crate::support::texts::files_in_shards;
use sessile::admin::SweepOptions;
use sessile::{Admin, Clock, FileStore};
use std::ops::ControlFlow::{Break, Continue};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

/// Whether processes share the counters by which they invalidate each other's cache entries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counters {
    Shared,
    /// An operation of one process invalidates no cache entry of another.
    Separate,
}

#[derive(Clone, Copy)]
pub(crate) struct Workers {
    /// The name of the worker function that runs [one process](Self::work).
    pub(crate) worker: &'static str,
    /// For each process, whether it has a cache.
    pub(crate) have_caches: &'static [bool],
    pub(crate) counters: Counters,
    pub(crate) threads: usize,
    pub(crate) places: u64,
    pub(crate) mix: Mix,
    /// The number of steps that each thread makes at least, whatever time they take. It is enough for every kind of
    /// operation to occur.
    pub(crate) steps_min: u64,
    pub(crate) saving: Saving,
    /// Whether each process has one more thread, which sweeps the store again and again.
    pub(crate) sweeps: bool,
}

impl Workers {
    pub(crate) fn run(&self, dir: &Path, time: Duration) -> Figures {
        let ledger = ledger(dir);
        let files = open_without_cache(dir);
        // The writer with the number 0 creates the sessions.
        let mut maker = Checker::new(&files, &ledger, 0, 0);
        (0..self.places).for_each(|place| maker.create_in(place));
        let start = |process: usize| {
            if self.counters == Counters::Separate {
                keep_apart(&store_in(dir));
            }
            let start = Start::of(self.worker).with("DIR", dir).with("PROCESS", process.to_string());
            let child = start.with("MILLIS", time.as_millis().to_string()).start();
            assert_eq!(child.line(), "ready");
            child
        };
        let mut children: Vec<_> = (0..self.have_caches.len()).map(start).collect();
        say_to_all(&mut children, "go");
        let mut figures = Figures::default();
        wait(&ledger, time);
        for child in children {
            figures.add_child(child);
        }
        figures.check(|| check_at_rest(&files, &ledger, self.places));
        figures.check(|| check_heirs(&files, &ledger, self.places));
        let mut met = figures.of_checkers().to_vec();
        if self.sweeps {
            met.push(("sweeps", figures.sweeps));
        }
        figures.check_met(time, &met);
        figures
    }

    /// The work of one process.
    pub(crate) fn work(&self, parent: &Parent) {
        let dir = Path::new(parent.argument("DIR"));
        let process = usize::try_from(parent.number("PROCESS")).unwrap();
        let time = Duration::from_millis(parent.number("MILLIS"));
        let mut options = options();
        if !self.have_caches[process] {
            options = options.cache_bytes(0);
        }
        if self.counters == Counters::Separate {
            options = options.clock(Clock::manual(SystemTime::now()));
        }
        let (store, ledger) = (options.open(store_in(dir)).unwrap(), ledger(dir));
        parent.report("ready");
        parent.line();
        let mut figures = thread::scope(|scope| {
            let (store, ledger) = (&store, &ledger);
            let first = 1 + self.threads * process;
            let threads: Vec<_> = (first..first + self.threads)
                .map(|writer| scope.spawn(move || self.check(store, ledger, writer, time)))
                .collect();
            let sweeper = self.sweeps.then(|| scope.spawn(|| walk(store, &Going::on_for(ledger, time))));
            let mut findings = Findings::default();
            let mut figures = Figures::default();
            for thread in threads {
                match thread.join() {
                    Ok(found) => findings.add(found),
                    Err(thrown) => figures.fault(words(&*thrown)),
                }
            }
            if !figures.has_faults() {
                findings.add_stats(store);
            }
            figures.add(findings.into());
            if let Some(sweeper) = sweeper {
                figures.add_thread(sweeper);
            }
            figures
        });
        figures
            .check(|| assert_eq!(store.stats().files.index_failures, 0, "failed writes to the expiry index"));
        figures.report_to(parent);
    }

    fn check(&self, store: &FileStore, ledger: &Ledger, writer: usize, time: Duration) -> Findings {
        let going = Going::on_for(ledger, time);
        let mut checker = Checker::new(store, ledger, writer, writer as u64);
        checker.saving = self.saving;
        let mut steps = 0_u64;
        while going.on_until(steps >= self.steps_min) {
            checker.step(0, self.places, self.mix);
            steps += 1;
            // If the counters are not shared, stale loads are expected, and do not stop the trial.
            if self.counters == Counters::Shared && !checker.findings.faults.is_empty() {
                going.stop();
            }
        }
        checker.findings
    }
}

/// Sweeps all files, none of which has expired.
fn walk(store: &FileStore, going: &Going<'_>) -> Figures {
    let mut figures = Figures::default();
    let options = SweepOptions::new().full(true).cpu_percent(25);
    while going.on_until(figures.sweeps > 0) {
        let is_enough = figures.sweeps > 0;
        let report = store
            .sweep_with(&options, &mut |_| if going.on_until(is_enough) { Continue(()) } else { Break(()) });
        let report = report.unwrap();
        figures.sweeps += u64::from(report.files.examined > 0);
        figures.removed += report.removed;
        let wrong = [
            report.removed,
            report.files.damaged,
            report.files.temporary,
            report.files.unknown,
            report.failed,
        ];
        if wrong != [0; 5] {
            figures.fault(format!("a sweep that had nothing to remove: {report:?}"));
            going.stop();
        }
        thread::sleep(Duration::from_millis(2));
    }
    figures
}

/// Asserts that each session that has not ended is in a place, and that there is no other file: no session has two
/// successors.
#[track_caller]
fn check_heirs(store: &FileStore, ledger: &Ledger, places: u64) {
    let in_place: Vec<_> = (0..places).map(|place| ledger.life_in(place)).collect();
    for life in ledger.lives().filter(|life| !ledger.row(*life).ended) {
        assert!(in_place.contains(&life), "{life:?} has not ended and is in no place: a second successor");
    }
    let files = files_in_shards(store.path());
    assert_eq!(files.len() as u64, places, "number of files and number of live sessions: {files:?}");
}
