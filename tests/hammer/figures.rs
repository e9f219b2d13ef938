//! Results of a trial: counters, and descriptions of broken promises. Children report theirs to the process that
//! started them.
use crate::support::checker::{Count, Findings};
use crate::support::process::{Child, Parent};
use indicatif::HumanCount;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

/// The number of faults that are described. Further faults are only counted.
const DESCRIBED_MAX: usize = 8;

#[derive(Clone, Default)]
pub(crate) struct Figures {
    /// The number of rounds, in trials that count them, and of the events in them.
    pub(crate) rounds: u64,
    pub(crate) events: Vec<(&'static str, u64)>,
    pub(crate) reads: u64,
    /// Loads of sessions that had ended, in trials that count them.
    pub(crate) dead_reads: u64,
    /// Loads that were answered from the cache, in trials that count them.
    pub(crate) hits: u64,
    pub(crate) saves: u64,
    /// Saves that needed a larger file than the smallest one, in trials that count them.
    pub(crate) large_saves: u64,
    pub(crate) ends: u64,
    pub(crate) rotations: u64,
    pub(crate) sweeps: u64,
    /// Sessions that sweeps have removed.
    pub(crate) removed: u64,
    /// Kills of processes that had begun their work.
    pub(crate) kills: u64,
    /// Kills during a sweep.
    pub(crate) kills_in_sweeps: u64,
    /// Kills of processes that had not begun their work.
    pub(crate) early_kills: u64,
    /// Loads that returned an older version than was acknowledged. Each is a fault.
    pub(crate) stale: u64,
    pub(crate) revived: u64,
    pub(crate) foreign: u64,
    pub(crate) lost: u64,
    faults: u64,
    described: Vec<String>,
}

impl Figures {
    pub(crate) fn fault(&mut self, text: impl Into<String>) {
        self.faults += 1;
        if self.described.len() < DESCRIBED_MAX {
            self.described.push(text.into());
        }
    }

    /// Runs a check, which panics if a promise is broken. Counts that as a fault.
    pub(crate) fn check(&mut self, check: impl FnOnce()) {
        if let Err(thrown) = catch_unwind(AssertUnwindSafe(check)) {
            self.fault(words(&*thrown));
        }
    }

    /// Asserts that each operation was done often enough for the result to mean anything: once, and in a longer run
    /// once in ten seconds, which any machine reaches. A run of less than a second is exempt.
    pub(crate) fn check_met(&mut self, time: Duration, met: &[(&str, u64)]) {
        if time < Duration::from_secs(1) || self.has_faults() {
            return;
        }
        let least = (time.as_secs() / 10).max(1);
        for (what, count) in met.iter().filter(|(_, count)| *count < least) {
            self.fault(format!(
                "too little was done for a result: {count} {what}, at least {least} are required"
            ));
        }
    }

    pub(crate) fn add(&mut self, mut more: Self) {
        for ((_, sum), (_, more)) in self.counts().into_iter().zip(more.counts()) {
            *sum += *more;
        }
        self.events.append(&mut more.events);
        let described =
            std::mem::take(&mut self.described).into_iter().chain(more.described).take(DESCRIBED_MAX);
        self.described = described.collect();
    }

    /// Waits for the end of a child, and adds its report. A failure of the child is a fault; the child prints the
    /// message to standard error.
    pub(crate) fn add_child(&mut self, child: Child) {
        match catch_unwind(AssertUnwindSafe(|| Self::of(&child.finish()))) {
            Ok(figures) => self.add(figures),
            Err(thrown) => self.fault(words(&*thrown)),
        }
    }

    /// Adds the results of a thread. A thread that panicked is a fault.
    pub(crate) fn add_thread(&mut self, thread: ScopedJoinHandle<'_, Self>) {
        match thread.join() {
            Ok(figures) => self.add(figures),
            Err(thrown) => self.fault(words(&*thrown)),
        }
    }

    /// The operations that every [`Checker`](crate::support::checker::Checker) performs, with their counts.
    pub(crate) fn of_checkers(&self) -> [(&'static str, u64); 6] {
        [
            ("reads", self.reads),
            ("reads of ended sessions", self.dead_reads),
            ("saves", self.saves),
            ("large saves", self.large_saves),
            ("ends", self.ends),
            ("rotations", self.rotations),
        ]
    }

    /// For a trial that has to find stale and revived loads: removes these faults, and keeps all others.
    pub(crate) fn forgive_stale_loads(mut self) -> Self {
        if self.faults == self.stale + self.revived {
            self.faults = 0;
            self.described.clear();
        }
        self
    }

    /// Whether a fault was counted. A process may have been killed after it had counted a fault and before it described
    /// the fault.
    pub(crate) fn has_faults(&self) -> bool {
        self.faults > 0
    }

    /// The descriptions of the first faults, and the number of further ones.
    pub(crate) fn descriptions(&self) -> String {
        let omitted = self.faults.saturating_sub(self.described.len() as u64);
        let omitted = (omitted > 0).then(|| format!("{} not described", HumanCount(omitted)));
        self.described.iter().cloned().chain(omitted).collect::<Vec<_>>().join("\n  ")
    }

    fn counts(&mut self) -> [(&'static str, &mut u64); 18] {
        [
            ("rounds", &mut self.rounds),
            ("reads", &mut self.reads),
            ("of ended sessions", &mut self.dead_reads),
            ("from memory", &mut self.hits),
            ("saves", &mut self.saves),
            ("large ones", &mut self.large_saves),
            ("ends", &mut self.ends),
            ("rotations", &mut self.rotations),
            ("sweeps", &mut self.sweeps),
            ("removed", &mut self.removed),
            ("kills", &mut self.kills),
            ("during a sweep", &mut self.kills_in_sweeps),
            ("kills before the work", &mut self.early_kills),
            ("stale", &mut self.stale),
            ("revived", &mut self.revived),
            ("foreign", &mut self.foreign),
            ("lost", &mut self.lost),
            ("faults", &mut self.faults),
        ]
    }

    pub(crate) fn report_to(mut self, parent: &Parent) {
        parent.report(self.counts().map(|(_, count)| count.to_string()).join(" "));
        for fault in &self.described {
            parent.report(fault.replace('\n', " "));
        }
    }

    /// Parses the report of a child process.
    #[track_caller]
    pub(crate) fn of(lines: &[String]) -> Self {
        let [counts, described @ ..] = lines else { panic!("a child reported no figures") };
        let mut figures = Self { described: described.to_vec(), ..Self::default() };
        let mut numbers = counts.split(' ').map(|number| number.parse().unwrap());
        for (_, count) in figures.counts() {
            *count = numbers.next().expect("as many as there are counts");
        }
        figures
    }
}

impl From<Findings> for Figures {
    fn from(findings: Findings) -> Self {
        let counts = findings.counts;
        let violations = [Count::Stale, Count::Revived, Count::Foreign, Count::Lost];
        let [stale, revived, foreign, lost] = violations.map(|count| counts[count]);
        Self {
            reads: counts[Count::Loads],
            dead_reads: counts[Count::DeadLoads],
            hits: counts[Count::Hits],
            saves: counts[Count::Saves],
            large_saves: counts[Count::LargeSaves],
            ends: counts[Count::Ends],
            rotations: counts[Count::Rotations],
            stale,
            revived,
            foreign,
            lost,
            faults: stale + revived + foreign + lost,
            described: findings.faults,
            ..Self::default()
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Counts that the trial does not use are left out.
        let is_shown = |(name, count): &(&str, u64)| *count > 0 || *name == "faults";
        let mut figures = self.clone();
        let counts = figures.counts().map(|(name, count)| (name, *count));
        let shown = self.events.iter().copied().chain(counts).filter(is_shown);
        let shown: Vec<_> = shown.map(|(name, count)| format!("{} {name}", HumanCount(count))).collect();
        f.write_str(&shown.join(", "))
    }
}

/// The text of a panic.
pub(crate) fn words(thrown: &(dyn std::any::Any + Send)) -> String {
    let text = thrown.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| thrown.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}
