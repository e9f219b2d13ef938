//! The time source: the system's clock, or one that a test sets. A store has one clock, with which it makes every
//! comparison of times, so that the `Max-Age` of a cookie and the session's deadline come from the same clock.
#[cfg(target_os = "linux")]
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A source of the current time. Readings are whole microseconds, the granularity of stored times.
///
/// Clones of a manual clock share its time.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// The time of a manual clock, in microseconds since 1970; `None` for the system's clock.
    manual: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still at `now` until it is set or advanced; for tests.
    #[must_use]
    pub fn manual(now: SystemTime) -> Self {
        Self { manual: Some(Arc::new(AtomicU64::new(micros(now)))) }
    }

    /// The current time, in whole microseconds; times before 1970 read as 1970.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        from_micros(self.now_micros())
    }

    /// The current time in microseconds since 1970, as records store it. It is compared with a stored time without a
    /// conversion to [`SystemTime`].
    pub(crate) fn now_micros(&self) -> u64 {
        match &self.manual {
            Some(manual) => manual.load(Ordering::SeqCst),
            #[cfg(target_os = "linux")]
            None => whole_micros(clock_gettime(ClockId::Realtime)),
            #[cfg(not(target_os = "linux"))]
            None => micros(SystemTime::now()),
        }
    }

    /// The current time as of the last tick of the system's clock, a few milliseconds ago, at a quarter of the cost.
    pub(crate) fn now_coarse(&self) -> CoarseTime {
        CoarseTime(match &self.manual {
            Some(manual) => manual.load(Ordering::SeqCst),
            #[cfg(target_os = "linux")]
            None => whole_micros(clock_gettime(ClockId::RealtimeCoarse)),
            #[cfg(not(target_os = "linux"))]
            None => micros(SystemTime::now()),
        })
    }

    /// Sets a manual clock, forwards or backwards; without effect on the system's.
    pub fn set(&self, now: SystemTime) {
        if let Some(manual) = &self.manual {
            manual.store(micros(now), Ordering::SeqCst);
        }
    }

    /// Moves a manual clock forward; without effect on the system's.
    pub fn advance(&self, by: Duration) {
        self.set(self.now() + by);
    }
}

/// A time that may be behind the current time by one tick of the system's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CoarseTime(u64);

impl CoarseTime {
    /// The most that such a time can be behind, in microseconds: a second, far more than a tick. There are 100 to 1,000
    /// ticks in a second.
    const BEHIND_MAX: u64 = 1_000_000;

    /// The time in microseconds since 1970.
    pub(crate) fn micros(self) -> u64 {
        self.0
    }

    /// Whether an instant is certainly in the future, although this time may be behind. If the instant is near, the
    /// result is `false`, and the caller must read the clock.
    pub(crate) fn certainly_before(self, instant: u64) -> bool {
        instant > self.0.saturating_add(Self::BEHIND_MAX)
    }
}

/// Converts a reading of the system's clock to whole microseconds. Times before 1970 count as 1970.
#[cfg(target_os = "linux")]
fn whole_micros(reading: Timespec) -> u64 {
    // The nanoseconds count up from the second, also in times before 1970.
    let Ok(seconds) = u64::try_from(reading.tv_sec) else { return 0 };
    seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(reading.tv_nsec).unwrap_or(0) / 1000)
}

/// Whole microseconds since 1970, saturating at both ends.
pub(crate) fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The time from which [`micros`] computed the number.
pub(crate) fn from_micros(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_set_and_its_clones_agree() {
        let start = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        let clock = Clock::manual(start);
        let other = clock.clone();
        assert_eq!(clock.now(), UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_000));
        clock.advance(Duration::from_secs(5));
        assert_eq!(other.now().duration_since(UNIX_EPOCH).unwrap().as_secs(), 1_700_000_005);
        other.set(UNIX_EPOCH);
        assert_eq!(clock.now(), UNIX_EPOCH);
    }

    #[test]
    fn a_coarse_time_is_behind_by_less_than_it_admits_and_never_ahead() {
        let clock = Clock::system();
        for _ in 0..1000 {
            let (before, coarse, after) = (micros(clock.now()), clock.now_coarse(), micros(clock.now()));
            assert!(coarse.micros() <= after, "{} is after {after}", coarse.micros());
            assert!(
                before < coarse.micros() + CoarseTime::BEHIND_MAX / 2,
                "{} is long before {before}",
                coarse.micros()
            );
            assert!(
                !coarse.certainly_before(after)
                    && !coarse.certainly_before(after + CoarseTime::BEHIND_MAX / 2)
            );
            assert!(coarse.certainly_before(after + 2 * CoarseTime::BEHIND_MAX));
        }
        let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(9));
        assert_eq!(clock.now_coarse().micros(), 9_000_000);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_reading_of_the_system_before_1970_is_1970() {
        let reading = |tv_sec, tv_nsec| whole_micros(Timespec { tv_sec, tv_nsec });
        assert_eq!(
            (reading(-1, 999_999_999), reading(0, 999_999_999), reading(7, 1999)),
            (0, 999_999, 7_000_001)
        );
        assert_eq!(reading(i64::MAX, 0), u64::MAX);
    }

    #[test]
    fn stored_times_read_back_at_both_ends() {
        for micros_since in [0, 1, 1_700_000_000_000_000, u64::MAX] {
            assert_eq!(micros(from_micros(micros_since)), micros_since);
        }
        assert_eq!(micros(UNIX_EPOCH - Duration::from_secs(1)), 0);
    }
}
