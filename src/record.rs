//! One session at rest, as every storage mode keeps it.
use crate::clock::{from_micros, micros};
use crate::lifetime::Expiry;
use crate::value::Value;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::time::SystemTime;

/// The entries of a session, ordered by name so that equal sessions have equal bytes. Looked up by `&str`.
pub type Entries = BTreeMap<Name, Value>;

/// An entry's name. Up to 23 bytes lie side by side with the others' in the map: a look-up compares several, and would wait
/// for memory at each.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(SmolStr);

impl Name {
    /// How many bytes it takes elsewhere.
    fn heap_bytes(&self) -> usize {
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

/// One session as a store keeps it. Times are whole microseconds; finer ones are cut when stored.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// From this instant on the session is expired. The one time a store compares.
    pub deadline: SystemTime,
    /// Who is logged in.
    pub user: Option<String>,
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
            deadline,
            user: None,
        }
    }

    /// Cuts what a slot has no room for: what is returned of a save is what the next load finds.
    pub(crate) fn cut(&mut self) {
        for time in [&mut self.created, &mut self.touched, &mut self.deadline] {
            *time = from_micros(micros(*time));
        }
        self.expiry = self.expiry.normalized();
    }

    /// The record without its entries and user: enough to ask the policy.
    pub(crate) fn clone_times(&self) -> Self {
        Self { entries: Entries::new(), user: None, ..*self }
    }

    /// About how many bytes of memory it takes behind an `Arc`, as blocks of glibc's allocator.
    pub(crate) fn heap_bytes(&self) -> usize {
        let block = |bytes: usize| if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) };
        // A node of the map has room for eleven entries, and is at least half full if it is not the only one.
        let node = 11 * (size_of::<Name>() + size_of::<Value>()) + 16;
        let nodes = match self.entries.len() {
            0 => 0,
            1..=11 => 1,
            many => many.div_ceil(5),
        };
        let entry = |(name, value): (&Name, &Value)| block(name.heap_bytes()) + block(value.heap_bytes());
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
