//! The data about a record beside its entries: its times, its expiry setting, and its last login.
use crate::clock::{from_micros, micros};
use std::time::{Duration, SystemTime};

/// The longest duration of an expiry setting or of a lifetime's option.
pub(crate) const THOUSAND_YEARS: Duration = Duration::from_secs(1000 * 365 * 86_400);

/// How one session expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// The session expires by the program's [`Lifetime`](crate::Lifetime).
    #[default]
    Default,
    /// The session expires this long after its last activity, instead of the program's age. Zero ends the session when
    /// it is saved.
    After(Duration),
    /// The session expires at this instant, whatever its activity. A past instant ends the session when it is saved.
    At(SystemTime),
    /// The cookie ends when the browser closes (it has neither `Max-Age` nor `Expires`). On the server, the program's
    /// age applies.
    BrowserClose,
}

impl Expiry {
    /// The setting as it can be stored: in whole microseconds, with durations of at most a thousand years.
    pub(crate) fn normalized(self) -> Self {
        match self {
            Self::After(age) => Self::After(whole_micros(age)),
            Self::At(instant) => Self::At(from_micros(micros(instant))),
            other => other,
        }
    }

    /// Whether the setting ends the session at once.
    pub(crate) fn is_over(self, now: SystemTime) -> bool {
        match self {
            Self::After(age) => age.is_zero(),
            Self::At(instant) => instant <= now,
            Self::Default | Self::BrowserClose => false,
        }
    }
}

fn whole_micros(span: Duration) -> Duration {
    let span = span.min(THOUSAND_YEARS);
    Duration::new(span.as_secs(), span.subsec_micros() * 1000)
}

/// The data about a session that the policy needs: its times and its expiry setting. A record keeps whole microseconds;
/// finer times are rounded down when they are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The creation of the session, or its last login: the absolute limit counts from here.
    pub created: SystemTime,
    /// The last activity that moved the deadline: age and idle limit count from here.
    pub touched: SystemTime,
    /// The instant from which on the session is expired; the only time that a store compares.
    pub deadline: SystemTime,
    /// The session's own expiry setting.
    pub expiry: Expiry,
    /// Whether the last cookie ends with the browser because the program's [`Lifetime`](crate::Lifetime) said so;
    /// always false with a setting of the session's own. A change of that policy reaches the browser with the next
    /// save.
    pub ends_with_browser: bool,
    /// Whether the visitor has come only once and has not logged in: until the second visit,
    /// [`Lifetime::first_age`](crate::Lifetime::first_age) applies.
    pub came_once: bool,
}

/// The times of a [`Timing`] as they are stored: in microseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Micros {
    pub(crate) created: u64,
    pub(crate) touched: u64,
    pub(crate) deadline: u64,
}

impl Timing {
    /// The times of a session that is created at `now`.
    ///
    /// ```
    /// use sessile::record::Timing;
    /// use std::time::{Duration, UNIX_EPOCH};
    /// let timing = Timing::new(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(60));
    /// assert!(timing.created == timing.touched && timing.touched < timing.deadline);
    /// ```
    #[must_use]
    pub fn new(now: SystemTime, deadline: SystemTime) -> Self {
        Self {
            created: now,
            touched: now,
            deadline,
            expiry: Expiry::Default,
            ends_with_browser: false,
            came_once: false,
        }
    }
}

/// The marks of a session's last login; all empty if there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// The time of the login; the first instant of 1970 is stored as none.
    pub at: Option<SystemTime>,
    /// The number of the last cut-off when the session began or its user logged in; 0 for none. A store sets it: see
    /// [`Store::delete_of`](crate::Store::delete_of).
    pub cut_off: u64,
    /// A digest of the user. It follows [`Record::set_user`](crate::Record::set_user), and cannot be set alone.
    pub user_digest: Option<[u8; 16]>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn at(micros: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(micros)
    }

    #[test]
    fn a_setting_is_rounded_down_to_microseconds() {
        let finer = Duration::from_nanos(1_999);
        let whole = Duration::from_micros(1);
        let day = Duration::from_secs(86_400);
        for (setting, want) in [
            (Expiry::Default, Expiry::Default),
            (Expiry::BrowserClose, Expiry::BrowserClose),
            (Expiry::After(day + finer), Expiry::After(day + whole)),
            (Expiry::After(THOUSAND_YEARS), Expiry::After(THOUSAND_YEARS)),
            (Expiry::After(Duration::MAX), Expiry::After(THOUSAND_YEARS)),
            (Expiry::At(at(7) + finer), Expiry::At(at(7) + whole)),
            (Expiry::At(UNIX_EPOCH - day), Expiry::At(UNIX_EPOCH)),
        ] {
            assert_eq!(setting.normalized(), want);
        }
    }

    #[test]
    fn a_setting_ends_a_session_at_once_if_nothing_is_left_of_it() {
        let moment = Duration::from_micros(1);
        for (setting, over) in [
            (Expiry::Default, false),
            (Expiry::BrowserClose, false),
            (Expiry::After(Duration::ZERO), true),
            (Expiry::After(moment), false),
            (Expiry::At(at(5) - moment), true),
            (Expiry::At(at(5)), true),
            (Expiry::At(at(5) + moment), false),
        ] {
            assert_eq!(setting.is_over(at(5)), over, "{setting:?}");
        }
    }
}
