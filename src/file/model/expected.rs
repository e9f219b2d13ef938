//! The map of a model: the expected state of each session, and the cut-offs so far. Knows no store.
use crate::clock::micros;
use crate::file::expiry_index::bucket_of;
use crate::id::{PublicId, Token};
use crate::record::Record;
use crate::store::GRACE_MAX;
use std::collections::HashMap;
use std::time::SystemTime;

/// The expected state of one session.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) token: Token,
    pub(super) id: PublicId,
    /// `None` if it was ended, or swept: it must never be found again.
    pub(super) record: Option<Record>,
    /// The latest time at which the index leads a sweep to it.
    pub(super) indexed: SystemTime,
    /// The mark under its id, if that was moved and the mark is there.
    pub(super) mark: Option<Mark>,
}

/// The expected mark of a moved id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) until: SystemTime,
    pub(super) by_login: bool,
    /// The session that has the place of the id; `None` if a rotation failed after the mark.
    pub(super) successor: Option<usize>,
}

impl Mark {
    pub(super) fn is_within_grace(&self, now: SystemTime) -> bool {
        self.until > now && self.until <= now + GRACE_MAX
    }
}

impl Expected {
    /// The time of the next entry in the index, after a sweep has examined it.
    pub(super) fn examined_at(&self) -> SystemTime {
        let deadline = self.record.as_ref().map(Record::deadline);
        deadline.or(self.mark.map(|mark| mark.until)).unwrap_or(self.indexed)
    }

    /// Records a saved deadline. An earlier one is inserted in the index if its hour is earlier; the entry for a later
    /// time is looked at first anyway.
    pub(super) fn save_deadline(&mut self, deadline: SystemTime, now: SystemTime) {
        let bucket = |deadline| bucket_of(micros(deadline), micros(now));
        if deadline < self.indexed && bucket(deadline) < bucket(self.indexed) {
            self.indexed = deadline;
        }
    }
}

/// The cut-offs so far: number and time of the last one of each user, and of all (`None`).
#[derive(Default)]
pub(super) struct CutOffs {
    pub(super) last: u64,
    pub(super) of: HashMap<Option<String>, (u64, u64)>,
    /// Sessions that were ended so, whose files may be there.
    pub(super) files: usize,
}

impl CutOffs {
    /// Those that count for a record.
    pub(super) fn of(&self, record: &Record) -> impl Iterator<Item = (u64, u64)> {
        let of_user = record.user().and_then(|user| self.of.get(&Some(user.to_owned())));
        self.of.get(&None).into_iter().chain(of_user).copied()
    }

    pub(super) fn has_ended(&self, record: &Record) -> bool {
        self.of(record).any(|(number, _)| number > record.login().cut_off)
    }

    /// The number that an imported record gets.
    pub(super) fn at_login(&self, record: &Record) -> u64 {
        let created = micros(record.timing().created);
        let later = self.of(record).filter(|(_, time)| *time > created);
        later.map(|(number, _)| number - 1).min().unwrap_or(self.last)
    }
}
