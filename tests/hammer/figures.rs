//! What a hammer has to show: counts, and broken promises in words. Children report theirs to the process that started
//! them.
use crate::support::checker::{Count, Findings};
use crate::support::process::{Child, Parent};
use indicatif::HumanCount;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

/// Faults that are told in words; the others are only counted.
const TOLD_MOST: usize = 8;

#[derive(Clone, Default)]
pub(crate) struct Figures {
    pub(crate) reads: u64,
    /// Reads of sessions that were known to have ended, where that is counted.
    pub(crate) dead_reads: u64,
    /// Reads that were answered from memory, where that is counted.
    pub(crate) hits: u64,
    pub(crate) saves: u64,
    /// Saves that do not fit the smallest file, where that is counted.
    pub(crate) large_saves: u64,
    pub(crate) ends: u64,
    pub(crate) rotations: u64,
    pub(crate) sweeps: u64,
    /// Sessions that sweeps removed.
    pub(crate) removed: u64,
    /// Of processes that had begun their work.
    pub(crate) kills: u64,
    /// Those of them that came amid a sweep.
    pub(crate) kills_in_sweeps: u64,
    /// Of processes that had not.
    pub(crate) early_kills: u64,
    faults: u64,
    told: Vec<String>,
}

impl Figures {
    pub(crate) fn fault(&mut self, text: impl Into<String>) {
        self.faults += 1;
        if self.told.len() < TOLD_MOST {
            self.told.push(text.into());
        }
    }

    /// Runs a check that panics if a promise is broken.
    pub(crate) fn check(&mut self, check: impl FnOnce()) {
        if let Err(thrown) = catch_unwind(AssertUnwindSafe(check)) {
            self.fault(words(&*thrown));
        }
    }

    /// Asserts that something was done often enough to say anything by it: once, and once in ten seconds of a longer run,
    /// which any machine does. A run of less than two seconds may do little.
    pub(crate) fn check_met(&mut self, time: Duration, met: &[(&str, u64)]) {
        if time < Duration::from_secs(2) || self.has_faults() {
            return;
        }
        let least = (time.as_secs() / 10).max(1);
        for (what, count) in met.iter().filter(|(_, count)| *count < least) {
            self.fault(format!(
                "too little was done to say anything: {count} {what}, at least {least} are to be"
            ));
        }
    }

    pub(crate) fn add(&mut self, mut more: Self) {
        for ((_, sum), (_, more)) in self.counts().into_iter().zip(more.counts()) {
            *sum += *more;
        }
        let told = std::mem::take(&mut self.told).into_iter().chain(more.told).take(TOLD_MOST);
        self.told = told.collect();
    }

    /// Adds what a child reports at its end. One that fails is a fault; what it had to say about it is on the standard error.
    pub(crate) fn add_child(&mut self, child: Child) {
        match catch_unwind(AssertUnwindSafe(|| Self::of(&child.finish()))) {
            Ok(figures) => self.add(figures),
            Err(thrown) => self.fault(words(&*thrown)),
        }
    }

    /// Adds what a thread found. One that panicked is a fault.
    pub(crate) fn add_thread(&mut self, thread: ScopedJoinHandle<'_, Self>) {
        match thread.join() {
            Ok(figures) => self.add(figures),
            Err(thrown) => self.fault(words(&*thrown)),
        }
    }

    /// What every checker does.
    pub(crate) fn of_checkers(&self) -> [(&'static str, u64); 6] {
        [
            ("reads", self.reads),
            ("reads of the dead", self.dead_reads),
            ("saves", self.saves),
            ("large saves", self.large_saves),
            ("ends", self.ends),
            ("rotations", self.rotations),
        ]
    }

    /// By their number: whoever counted one may have been killed before it told of it.
    pub(crate) fn has_faults(&self) -> bool {
        self.faults > 0
    }

    /// The first faults, in words, and how many there are without.
    pub(crate) fn told(&self) -> String {
        let untold = self.faults.saturating_sub(self.told.len() as u64);
        let untold = (untold > 0).then(|| format!("{} without words", HumanCount(untold)));
        self.told.iter().cloned().chain(untold).collect::<Vec<_>>().join("\n  ")
    }

    fn counts(&mut self) -> [(&'static str, &mut u64); 13] {
        [
            ("reads", &mut self.reads),
            ("of the dead", &mut self.dead_reads),
            ("from memory", &mut self.hits),
            ("saves", &mut self.saves),
            ("large ones", &mut self.large_saves),
            ("ends", &mut self.ends),
            ("rotations", &mut self.rotations),
            ("sweeps", &mut self.sweeps),
            ("removed", &mut self.removed),
            ("kills", &mut self.kills),
            ("amid a sweep", &mut self.kills_in_sweeps),
            ("kills before the work", &mut self.early_kills),
            ("faults", &mut self.faults),
        ]
    }

    pub(crate) fn report_to(mut self, parent: &Parent) {
        parent.report(self.counts().map(|(_, count)| count.to_string()).join(" "));
        for fault in &self.told {
            parent.report(fault.replace('\n', " "));
        }
    }

    /// What a child reported.
    #[track_caller]
    pub(crate) fn of(lines: &[String]) -> Self {
        let [counts, told @ ..] = lines else { panic!("a child without figures") };
        let mut figures = Self { told: told.to_vec(), ..Self::default() };
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
        let faults = [Count::Stale, Count::Revived, Count::Foreign, Count::Lost];
        Self {
            reads: counts[Count::Loads],
            dead_reads: counts[Count::DeadLoads],
            hits: counts[Count::Hits],
            saves: counts[Count::Saves],
            large_saves: counts[Count::LargeSaves],
            ends: counts[Count::Ends],
            rotations: counts[Count::Rotations],
            faults: faults.map(|count| counts[count]).iter().sum(),
            told: findings.faults,
            ..Self::default()
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not every hammer counts all of them.
        let is_told = |(name, count): &(&str, &mut u64)| **count > 0 || *name == "faults";
        let mut figures = self.clone();
        let told = figures.counts().into_iter().filter(is_told);
        let told: Vec<_> = told.map(|(name, count)| format!("{} {name}", HumanCount(*count))).collect();
        f.write_str(&told.join(", "))
    }
}

/// What a panic said.
pub(crate) fn words(thrown: &(dyn std::any::Any + Send)) -> String {
    let text = thrown.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| thrown.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".into())
}
