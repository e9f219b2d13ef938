//! The columns of a row, the same in every dialect, and the row that they stand for.
//!
//! | column | has |
//! |---|---|
//! | `id` | the public id, 20 bytes |
//! | `tag`, `tags` | the newest tag, which every write names; the last eight tags, 64 bytes |
//! | `deadline` | the instant from which on the row is over, in microseconds since 1970 |
//! | `due` | the deadline rounded [down](due): the indexed column of sweeps |
//! | `owner` | the digest of the user, 16 bytes; null without a user |
//! | `cut_user`, `cut_all` | the numbers of [cut-offs](CutOffs) at the login |
//! | `moved_to` | the successor of a moved id, 20 bytes; null for a session |
//! | `payload` | the record, or the whole row of a moved id, with its keyed checksum |
//!
//! # Which of them is believed
//!
//! The payload, because its checksum covers it and the id. `deadline`, `owner` and `moved_to` are copies of what it
//! has, for the conditions of statements; `tag` is a copy of the first of `tags`. A row in which a copy differs is
//! [`Corrupt`](ErrorKind::Corrupt), and is never served. The numbers of cut-offs have no copy, but one that is greater
//! than the present number was never stored: such a row is corrupt as well, and a number that is too small ends the
//! session. So a damaged number keeps no ended session alive, unless it happens to be the present number exactly.
use crate::clock::micros;
use crate::error::{ErrorKind, Result};
use crate::id::PublicId;
use crate::rows::{
    CutOffs, MovedRow, Row, Selected, Stored, Tags, decode, decode_moved, encode, encode_moved, refused,
};
use std::time::SystemTime;

/// The owner in the row of `cutoffs` that counts the cut-offs of all users. It is the digest of no user: the digest
/// would have to be zero.
pub(super) const ALL_USERS: [u8; 16] = [0; 16];

/// The steps to which `due` is rounded, in minutes.
const STEPS: [u64; 7] = [60, 32, 16, 8, 4, 2, 1];
const MINUTE: u64 = 60_000_000;

/// The columns of a row that is to be written, except its id.
pub(super) struct Columns {
    pub(super) tag: i64,
    pub(super) tags: [u8; 8 * Tags::LEN],
    pub(super) deadline: i64,
    pub(super) due: i64,
    pub(super) owner: Option<[u8; 16]>,
    pub(super) cut_user: i64,
    pub(super) cut_all: i64,
    pub(super) moved_to: Option<[u8; PublicId::LEN]>,
    pub(super) payload: Vec<u8>,
}

impl Columns {
    pub(super) fn of_row(id: &PublicId, row: &Row, now: SystemTime) -> Self {
        let deadline = row.record.deadline_micros();
        Self {
            tag: signed(row.tags.newest()),
            tags: row.tags.to_bytes(),
            deadline: signed(deadline),
            due: due(deadline, now),
            owner: row.record.user_digest(),
            cut_user: row.cut_offs.of_user.into(),
            cut_all: row.cut_offs.of_all.into(),
            moved_to: None,
            payload: encode(id, &row.record),
        }
    }

    /// The row of a moved id has the tag 0, which no write names.
    pub(super) fn of_moved(id: &PublicId, moved: &MovedRow, now: SystemTime) -> Self {
        let until = micros(moved.until);
        Self {
            tag: 0,
            tags: [0; 8 * Tags::LEN],
            deadline: signed(until),
            due: due(until, now),
            owner: None,
            cut_user: 0,
            cut_all: 0,
            moved_to: Some(*moved.successor.as_bytes()),
            payload: encode_moved(id, moved),
        }
    }
}

/// The columns of a row that was read, and the present numbers of its user's cut-offs.
pub(super) struct Found<'a> {
    pub(super) tag: i64,
    pub(super) tags: &'a [u8],
    pub(super) deadline: i64,
    pub(super) owner: Option<&'a [u8]>,
    pub(super) cut_user: i64,
    pub(super) cut_all: i64,
    pub(super) moved_to: Option<&'a [u8]>,
    pub(super) payload: &'a [u8],
    pub(super) now_user: i64,
    pub(super) now_all: i64,
}

impl Found<'_> {
    /// The row that the columns stand for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if a copy differs from the payload, and those of [`decode`].
    pub(super) fn decode(&self, id: &PublicId) -> Result<Selected> {
        let refuse = |reason| Err(refused(id, ErrorKind::Corrupt, reason));
        let numbers = [(self.cut_user, self.cut_all), (self.now_user, self.now_all)].map(numbers);
        let [Some(cut_offs), Some(now)] = numbers else {
            return refuse("a number of its cut-offs is out of bounds");
        };
        if let Some(successor) = self.moved_to {
            let moved = decode_moved(id, self.payload)?;
            if successor != moved.successor.as_bytes() || self.deadline != signed(micros(moved.until)) {
                return refuse("its columns differ from its payload");
            }
            return Ok(Selected::new(Stored::Moved(moved), CutOffs::default()));
        }
        let record = decode(id, self.payload)?;
        let owner = record.user_digest();
        if self.deadline != signed(record.deadline_micros())
            || self.owner != owner.as_ref().map(<[u8; 16]>::as_slice)
        {
            return refuse("its columns differ from its payload");
        }
        let Ok(tags) = self.tags.try_into().map(Tags::from_bytes) else {
            return refuse("its tags have another length");
        };
        if self.tag != signed(tags.newest()) || self.tag == 0 {
            return refuse("its tag is not the first of its tags");
        }
        if cut_offs.of_user > now.of_user || cut_offs.of_all > now.of_all {
            return refuse("it has seen more cut-offs than there were");
        }
        Ok(Selected::new(Stored::Session(Row::new(tags, cut_offs, record)), now))
    }
}

/// Numbers of cut-offs, if they are in their bounds.
pub(super) fn numbers((of_user, of_all): (i64, i64)) -> Option<CutOffs> {
    Some(CutOffs { of_user: of_user.try_into().ok()?, of_all: of_all.try_into().ok()? })
}

/// A number as databases store it. A deadline beyond their range is that of the year 294,247; the payload has it whole.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A deadline, rounded down to a step of at most a sixteenth of the time until it (1 minute to 1 hour). An index on it
/// stays as it is when the deadline moves by less than a step, and a sweep reads the rows up to now: all that are over,
/// and at most one step of rows that are not.
fn due(deadline: u64, now: SystemTime) -> i64 {
    let minutes = deadline.saturating_sub(micros(now)) / MINUTE / 16;
    let step = STEPS.into_iter().find(|step| *step <= minutes).unwrap_or(1) * MINUTE;
    signed(deadline - deadline % step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;
    use std::time::{Duration, UNIX_EPOCH};

    const NOW: SystemTime = UNIX_EPOCH;

    fn found(columns: &Columns, now: (i64, i64)) -> Found<'_> {
        Found {
            tag: columns.tag,
            tags: &columns.tags,
            deadline: columns.deadline,
            owner: columns.owner.as_ref().map(<[u8; 16]>::as_slice),
            cut_user: columns.cut_user,
            cut_all: columns.cut_all,
            moved_to: columns.moved_to.as_ref().map(<[u8; 20]>::as_slice),
            payload: &columns.payload,
            now_user: now.0,
            now_all: now.1,
        }
    }

    #[test]
    fn due_is_not_after_the_deadline_and_at_most_a_step_before() {
        let at = |minutes: u64| due(minutes * MINUTE + 59_999_999, NOW) / i64::try_from(MINUTE).unwrap();
        for (minutes, want) in
            [(0, 0), (15, 15), (33, 32), (100, 100), (333, 320), (600, 576), (1027, 1020), (20_001, 19_980)]
        {
            assert_eq!(at(minutes), want, "{minutes} minutes");
        }
        assert_eq!(due(u64::MAX, NOW), i64::MAX);
    }

    #[test]
    fn a_row_whose_columns_differ_from_its_payload_is_corrupt() {
        let id = PublicId::digest(b"a");
        let record = Record::new(NOW, NOW + Duration::from_secs(60)).with_user("ada").unwrap();
        let row = Row::new(Tags::first(7).followed_by(9), CutOffs { of_user: 2, of_all: 1 }, record);
        let columns = Columns::of_row(&id, &row, NOW);
        let selected = found(&columns, (2, 1)).decode(&id).unwrap();
        assert_eq!(selected.stored, Stored::Session(row));
        let moved = MovedRow::new(PublicId::digest(b"b"), NOW, true);
        let of_moved = Columns::of_moved(&id, &moved, NOW);
        let selected = found(&of_moved, (0, 0)).decode(&id).unwrap();
        assert_eq!(selected.stored, Stored::Moved(moved));
        let bob = [1; 16];
        let changes: [fn(&mut Found<'_>); 11] = [
            |found| found.tag += 1,
            |found| found.tags = &[0; 64],
            |found| found.tags = &[0; 63],
            |found| found.deadline += 1,
            |found| found.owner = None,
            |found| found.payload = b"",
            |found| found.cut_user = 3,
            |found| found.cut_all = 2,
            |found| found.cut_all = -1,
            |found| found.now_user = 1 << 32,
            |found| found.moved_to = Some(&[0; 20]),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut found = found(&columns, (2, 1));
            change(&mut found);
            assert_eq!(found.decode(&id).unwrap_err().kind(), ErrorKind::Corrupt, "change {number}");
        }
        let mut anothers = found(&columns, (2, 1));
        anothers.owner = Some(&bob);
        assert_eq!(anothers.decode(&id).unwrap_err().kind(), ErrorKind::Corrupt);
        let changes: [fn(&mut Found<'_>); 3] = [
            |found| found.deadline += 1,
            |found| found.moved_to = Some(&[0; 20]),
            |found| found.moved_to = None,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut found = found(&of_moved, (0, 0));
            change(&mut found);
            assert_eq!(found.decode(&id).unwrap_err().kind(), ErrorKind::Corrupt, "moved, change {number}");
        }
        // A number that is too small ends the session, and is no damage that can be told.
        let cut = found(&columns, (3, 1)).decode(&id).unwrap();
        assert!(matches!(cut.stored, Stored::Session(row) if !row.cut_offs.stands(cut.cut_offs)));
    }
}
