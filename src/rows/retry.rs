//! The attempts of one call: which failures are worth another one, the pauses between them, and the end of the time.
use crate::error::{Error, ErrorKind};
use crate::random;
use crate::sync::{Instant, thread};
use std::time::Duration;

/// The first pause after a conflict, and the longest one.
const CONFLICT: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(20));
/// The longest pause while the server cannot be reached.
const DOWN_MAX: Duration = Duration::from_millis(100);

/// The attempts of one call of the store.
pub(super) struct Attempts {
    until: Instant,
    pause: Duration,
}

impl Attempts {
    pub(super) fn new(wait: Duration) -> Self {
        Self { until: Instant::now() + wait, pause: CONFLICT.0 }
    }

    /// The time at which the call ends.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Pauses before the next attempt after a failure. Returns false, without a pause, if the failure is not worth
    /// another attempt, or if there is no time for one.
    pub(super) fn again(&mut self, failure: &Error) -> bool {
        let longest = match failure.kind() {
            ErrorKind::Busy => CONFLICT.1,
            ErrorKind::Unavailable | ErrorKind::Unanswered => DOWN_MAX,
            _ => return false,
        };
        self.pause_up_to(longest)
    }

    /// Pauses after another writer has changed the row first. Returns false, without a pause, if there is no time left.
    pub(super) fn after_race(&mut self) -> bool {
        self.pause_up_to(CONFLICT.1)
    }

    fn pause_up_to(&mut self, longest: Duration) -> bool {
        let pause = jittered(self.pause.min(longest));
        if Instant::now() + pause >= self.until {
            return false;
        }
        thread::sleep(pause);
        self.pause = (self.pause * 2).min(DOWN_MAX);
        true
    }
}

/// A random time between half of the pause and the whole, so that callers that have failed together do not try again
/// together.
pub(crate) fn jittered(pause: Duration) -> Duration {
    // If the random generator fails, the pause is the half. No promise depends on it.
    let [part] = random::bytes("draw a pause").unwrap_or_default();
    pause / 2 + pause * u32::from(part) / 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again_and_not_beyond_the_limit() {
        let failure = |kind| Error::new(kind, "test");
        let mut attempts = Attempts::new(Duration::from_millis(30));
        for kind in [ErrorKind::Corrupt, ErrorKind::Full, ErrorKind::Config, ErrorKind::Io] {
            assert!(!attempts.again(&failure(kind)), "{kind:?}");
        }
        for kind in [ErrorKind::Busy, ErrorKind::Unavailable, ErrorKind::Unanswered] {
            let mut attempts = Attempts::new(Duration::from_millis(100));
            let tries = std::iter::from_fn(|| attempts.again(&failure(kind)).then_some(())).count();
            assert!((1..30).contains(&tries), "{kind:?}: {tries}");
        }
    }

    #[test]
    fn a_pause_is_at_least_a_half_and_never_more() {
        let whole = Duration::from_millis(512);
        for _ in 0..100 {
            assert!((whole / 2..whole).contains(&jittered(whole)));
        }
    }
}
