//! The rounds of one trial. There is one at least. They go on until the trial's time is over and each required event
//! has occurred.
use crate::figures::Figures;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The longest extension of a trial in which a required event has not occurred. On a busy machine some events are rare.
pub(crate) const EXTENSION_MAX: Duration = Duration::from_secs(100);

/// Lists the trials of a file by the names of their functions.
macro_rules! trials {
    ($($name:ident,)*) => {
        pub(crate) const TRIALS: crate::Trials =
            &[$((concat!(module_path!(), "::", stringify!($name)), $name)),*];
    };
}

/// The rounds of a trial, which several threads may run at the same time.
pub(crate) struct Rounds {
    /// No round begins after this time.
    until: Instant,
    done: Mutex<Done>,
}

struct Done {
    rounds: u64,
    /// How often each required event has occurred.
    events: Vec<(&'static str, u64)>,
}

impl Done {
    /// A required event that has not occurred often enough so far.
    fn missing(&self) -> Option<&(&'static str, u64)> {
        let least = self.rounds.div_ceil(10_000);
        self.events.iter().find(|(_, count)| *count < least)
    }
}

impl Rounds {
    /// Rounds for this time. If a trial searches for a race, it proves nothing unless the race occurs. So each of the
    /// `required` events has to occur once, and in a long run once in ten thousand rounds.
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

    /// Adds occurrences of a required event.
    pub(crate) fn count(&self, event: &str, occurrences: u64) {
        let mut done = self.done.lock().unwrap();
        let of = done.events.iter_mut().find(|(required, _)| *required == event).expect(event);
        of.1 += occurrences;
    }

    /// The number of rounds so far.
    pub(crate) fn done(&self) -> u64 {
        self.done.lock().unwrap().rounds
    }

    /// The results of all rounds.
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
