//! The rounds of one trial: until its time is over, one at least, and on until each required event has occurred.
use crate::figures::Figures;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Longest extension of a trial in which a required event has not occurred: on a busy machine some are rare.
pub(crate) const EXTENSION_MAX: Duration = Duration::from_secs(100);

/// Lists the trials of a file: the names of their functions.
macro_rules! trials {
    ($($name:ident,)*) => {
        pub(crate) const TRIALS: crate::Trials =
            &[$((concat!(module_path!(), "::", stringify!($name)), $name)),*];
    };
}

/// Several threads may take rounds from it.
pub(crate) struct Rounds {
    /// The next round begins before then.
    until: Instant,
    done: Mutex<Done>,
}

struct Done {
    rounds: u64,
    /// How often each required event has occurred.
    events: Vec<(&'static str, u64)>,
}

impl Done {
    /// A required event that occurred too rarely so far.
    fn missing(&self) -> Option<&(&'static str, u64)> {
        let least = self.rounds.div_ceil(10_000);
        self.events.iter().find(|(_, count)| *count < least)
    }
}

impl Rounds {
    /// Rounds for this time. A search for a race proves nothing if the race never occurs: each of `required` has to
    /// occur once, and in a long run once in ten thousand rounds.
    pub(crate) fn new(time: Duration, required: &[&'static str]) -> Self {
        let events = required.iter().map(|event| (*event, 0)).collect();
        Self { until: Instant::now() + time, done: Mutex::new(Done { rounds: 0, events }) }
    }

    /// The number of the next round; `None` if all are done.
    pub(crate) fn next(&self) -> Option<u64> {
        let (now, mut done) = (Instant::now(), self.done.lock().unwrap());
        let is_over = now >= self.until && (done.missing().is_none() || now >= self.until + EXTENSION_MAX);
        if is_over && done.rounds > 0 {
            return None;
        }
        done.rounds += 1;
        Some(done.rounds - 1)
    }

    /// Counts occurrences of a required event.
    pub(crate) fn count(&self, event: &str, occurrences: u64) {
        let mut done = self.done.lock().unwrap();
        let of = done.events.iter_mut().find(|(required, _)| *required == event).expect(event);
        of.1 += occurrences;
    }

    /// Number of rounds so far.
    pub(crate) fn done(&self) -> u64 {
        self.done.lock().unwrap().rounds
    }

    /// The figures of all rounds.
    #[track_caller]
    pub(crate) fn figures(self) -> Figures {
        let done = self.done.into_inner().unwrap();
        assert_eq!(
            done.missing(),
            None,
            "occurred too rarely in {} rounds, of {:?}",
            done.rounds,
            done.events
        );
        let mut figures = Figures::default();
        figures.rounds = done.rounds;
        figures.events = done.events;
        figures
    }
}
