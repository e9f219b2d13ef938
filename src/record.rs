//! One session at rest, as every storage mode keeps it.
use crate::clock::{from_micros, micros};
use crate::value::Value;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::time::{Duration, SystemTime};

/// The entries of a session, ordered by name so that equal sessions have equal bytes. Looked up by `&str`.
pub type Entries = BTreeMap<Name, Value>;

/// An entry's name. Up to 23 bytes lie side by side with the others' in the map: a look-up compares several, and would wait
/// for memory at each.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(SmolStr);

impl Name {
    /// Heap bytes owned.
    fn heap_size(&self) -> usize {
        if self.0.is_heap_allocated() { 2 * size_of::<usize>() + self.0.len() } else { 0 }
    }
}

impl<T: AsRef<str>> From<T> for Name {
    fn from(name: T) -> Self {
        Self(SmolStr::new(name))
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One session as a store keeps it. Times are whole microseconds; finer ones are rounded down when stored.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The visitor's data.
    pub entries: Entries,
    /// When it was created, or its last login: the absolute limit counts from here.
    pub created: SystemTime,
    /// The last activity that moved the deadline: age and idle limit count from here.
    pub touched: SystemTime,
    /// How this session expires, if not by the program's default.
    pub expiry: Expiry,
    /// Whether the cookie sent last ends with the browser because the program's [`Lifetime`](crate::Lifetime) said so; always
    /// false with a setting of the session's own. A change of that policy reaches the browser with the next save.
    pub ends_with_browser: bool,
    /// From this instant on the session is expired. The one time a store compares.
    pub deadline: SystemTime,
    /// The user that is logged in.
    pub user: Option<String>,
}

/// Longest duration that a setting or a policy may have.
pub(crate) const THOUSAND_YEARS: Duration = Duration::from_secs(1000 * 365 * 86_400);

/// How one session expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// By the program's [`Lifetime`](crate::Lifetime).
    #[default]
    Default,
    /// This long after the last activity, instead of the program's age; zero ends the session when it is saved.
    After(Duration),
    /// At this instant, whatever the activity; one in the past ends the session when it is saved.
    At(SystemTime),
    /// When the browser closes (the cookie has neither `Max-Age` nor `Expires`); the server keeps its age.
    BrowserClose,
}

impl Expiry {
    /// The setting as it can be stored: whole microseconds, durations of at most a thousand years.
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

impl Record {
    /// A record without entries, created and touched at `now`.
    #[must_use]
    pub fn new(now: SystemTime, deadline: SystemTime) -> Self {
        Self {
            entries: Entries::new(),
            created: now,
            touched: now,
            expiry: Expiry::Default,
            ends_with_browser: false,
            deadline,
            user: None,
        }
    }

    /// Rounds times down to microseconds, so that a save returns exactly the record that the next load reads.
    pub(crate) fn truncate_to_micros(&mut self) {
        for time in [&mut self.created, &mut self.touched, &mut self.deadline] {
            *time = from_micros(micros(*time));
        }
        self.expiry = self.expiry.normalized();
        self.ends_with_browser &= self.expiry == Expiry::Default;
    }

    /// The record without its entries and user: enough for the policy.
    pub(crate) fn metadata(&self) -> Self {
        Self { entries: Entries::new(), user: None, ..*self }
    }

    /// About how many bytes of memory it takes behind an `Arc`, as blocks of glibc's allocator.
    pub(crate) fn heap_size(&self) -> usize {
        let block = |bytes: usize| if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) };
        // A node of the map has room for eleven entries, and is at least half full if it is not the only one.
        let node = 11 * (size_of::<Name>() + size_of::<Value>()) + 16;
        let nodes = match self.entries.len() {
            0 => 0,
            1..=11 => 1,
            many => many.div_ceil(5),
        };
        let entry = |(name, value): (&Name, &Value)| block(name.heap_size()) + block(value.heap_size());
        block(2 * size_of::<usize>() + size_of::<Self>())
            + block(self.user.as_ref().map_or(0, String::capacity))
            + nodes * block(node)
            + self.entries.iter().map(entry).sum::<usize>()
    }

    /// Whether the session is expired at `now`: its deadline is reached.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.deadline <= now
    }
}

/// Its times and how much it holds: neither the entries nor the user belong in a log.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entries, created, touched, expiry, ends_with_browser, deadline, user } = self;
        f.debug_struct("Record")
            .field("entries", &entries.len())
            .field("bytes", &entries.values().map(|value| value.as_bytes().len()).sum::<usize>())
            .field("created", created)
            .field("touched", touched)
            .field("expiry", expiry)
            .field("ends_with_browser", ends_with_browser)
            .field("deadline", deadline)
            .field("has_user", &user.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn at(micros: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(micros)
    }

    #[test]
    fn a_record_is_expired_from_its_deadline_on() {
        let record = Record::new(at(0), at(5));
        assert_eq!([4, 5, 6].map(|now| record.is_expired(at(now))), [false, true, true]);
    }

    #[test]
    fn times_are_rounded_down_to_microseconds() {
        let finer = Duration::from_nanos(999);
        let mut record = Record::new(at(1) + finer, at(3) + finer);
        record.touched = at(2) + finer;
        record.expiry = Expiry::After(Duration::from_micros(4) + finer);
        record.truncate_to_micros();
        assert_eq!((record.created, record.touched, record.deadline), (at(1), at(2), at(3)));
        assert_eq!(record.expiry, Expiry::After(Duration::from_micros(4)));
    }

    #[test]
    fn the_times_of_a_record_are_those_of_the_whole_one() {
        let mut record = Record::new(at(1), at(3));
        record.touched = at(2);
        record.expiry = Expiry::At(at(4));
        let times = record.clone();
        record.user = Some("ada".into());
        record.entries.insert("n".into(), Value::new(&1).unwrap());
        assert_eq!(record.metadata(), times);
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

    /// As glibc's `malloc` has them: 8 bytes more than were asked for, a multiple of 16, 32 at least.
    #[cfg(target_pointer_width = "64")]
    #[test]
    fn the_heap_size_counts_the_blocks_of_every_part() {
        let mut record = Record::new(at(0), at(1));
        let mut before = record.heap_size();
        assert_eq!(before, (16 + size_of::<Record>() + 8).next_multiple_of(16));
        let mut grown = |record: &Record| {
            let bytes = record.heap_size();
            bytes - std::mem::replace(&mut before, bytes)
        };
        record.user = Some("a".into());
        assert_eq!(grown(&record), 32);
        record.user = Some("a".repeat(104));
        assert_eq!(grown(&record), 112 - 32);
        record.user = Some("a".repeat(105));
        assert_eq!(grown(&record), 128 - 112);
        let value = Value::new(&"v".repeat(50)).unwrap();
        assert_eq!((value.as_bytes().len(), size_of::<Name>(), size_of::<Value>()), (52, 24, 24));
        let (node, entry) = ((11 * (24 + 24) + 16 + 8_usize).next_multiple_of(16), 64);
        for (entries, nodes) in [(1, 1), (2, 0), (3, 0), (11, 0), (12, 2), (13, 0), (15, 0), (16, 1)] {
            let there = record.entries.len();
            record.entries.extend((there..entries).map(|n| (format!("{n:02}").into(), value.clone())));
            assert_eq!(grown(&record), (entries - there) * entry + nodes * node, "{entries} entries");
        }
        // A short name and a small value lie in the node; longer ones have blocks of their own.
        let small = Value::new(&7).unwrap();
        record.entries.insert("n".repeat(23).into(), small.clone());
        assert_eq!(grown(&record), 0);
        record.entries.insert("n".repeat(24).into(), small);
        assert_eq!(grown(&record), 48);
    }
}
