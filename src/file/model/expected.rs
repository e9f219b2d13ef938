//! The map of a model test: the expected state of each session, and the cut-offs so far. Uses no store.
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
    /// The stored record; `None` if the session was ended or swept, and must never be found again.
    pub(super) record: Option<Record>,
    /// The latest time at which the expiry index lists the session as due.
    pub(super) indexed: SystemTime,
    /// The mark under the session's id, if the id was moved and the mark was not removed yet.
    pub(super) mark: Option<Mark>,
}

/// The expected mark of a moved id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) until: SystemTime,
    pub(super) by_login: bool,
    /// The session to which the id has moved; `None` if a rotation failed after it had written the mark.
    pub(super) successor: Option<usize>,
}

impl Mark {
    pub(super) fn is_within_grace(&self, now: SystemTime) -> bool {
        self.until > now && self.until <= now + 2 * GRACE_MAX
    }
}

impl Expected {
    /// The time of the entry that a sweep inserts in the index after it has examined the session.
    pub(super) fn examined_at(&self) -> SystemTime {
        let deadline = self.record.as_ref().map(Record::deadline);
        deadline.or(self.mark.map(|mark| mark.until)).unwrap_or(self.indexed)
    }

    /// Notes a saved deadline. The session is inserted in the index if the new deadline is in an earlier hour. If it is
    /// later, the earlier entry stays.
    pub(super) fn save_deadline(&mut self, deadline: SystemTime, now: SystemTime) {
        let bucket = |deadline| bucket_of(micros(deadline), micros(now));
        if deadline < self.indexed && bucket(deadline) < bucket(self.indexed) {
            self.indexed = deadline;
        }
    }
}

/// The number and the time of the last cut-off of each user, and of that of all sessions (`None`).
#[derive(Default)]
pub(super) struct CutOffs {
    pub(super) last: u64,
    of: HashMap<Option<String>, (u64, u64)>,
    latest: u64,
    /// The number of sessions that were ended by a cut-off, and whose files may still be there.
    pub(super) files: usize,
}

impl CutOffs {
    /// Takes in a cut-off. The clock may have been set back since an earlier one of the same user, or of any.
    pub(super) fn put(&mut self, user: Option<String>, time: u64) {
        self.latest = self.latest.max(time);
        let time = if user.is_none() {
            self.of.clear();
            self.latest
        } else {
            time.max(self.of.get(&user).map_or(0, |(_, before)| *before))
        };
        self.of.insert(user, (self.last, time));
    }

    /// The cut-offs that apply to a record.
    fn of(&self, record: &Record) -> impl Iterator<Item = (u64, u64)> {
        let of_user = record.user().and_then(|user| self.of.get(&Some(user.to_owned())));
        self.of.get(&None).into_iter().chain(of_user).copied()
    }

    pub(super) fn has_ended(&self, record: &Record) -> bool {
        self.of(record).any(|(number, _)| number > record.login().cut_off)
    }

    /// The cut-off number that an imported record gets.
    pub(super) fn at_login(&self, record: &Record) -> u64 {
        let created = micros(record.timing().created);
        let later = self.of(record).filter(|(_, time)| *time >= created);
        later.map(|(number, _)| number - 1).min().unwrap_or(self.last)
    }
}
