//! [`RowStore`]: looking at sessions for the waits for their ends ([`Store::poll`](crate::Store::poll)). One operation
//! asks for the tags and cut-offs of up to 500 rows; a row whose tag has changed is selected.
use super::row::{CutOffs, Stored};
use super::store::State;
use super::{RowStore, Rows, Selected};
use crate::error::{Error, ErrorKind, Result};
use crate::id::PublicId;
use crate::store::{POLL_INTERVAL, Poll, Polled};
use std::time::Duration;

/// The most rows of one [`Rows::peek`].
const BATCH_MAX: usize = 500;

/// What tells whether a row has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peeked {
    /// The newest tag of a session's row; 0 for the row of a moved id.
    pub tag: u64,
    /// The cut-offs of the row's user, at the instant of the reading.
    pub cut_offs: CutOffs,
}

impl Peeked {
    /// The newest tag of a row, and the cut-offs of its user at the same instant.
    ///
    /// ```
    /// use sessile::rows::{CutOffs, Peeked};
    /// assert_eq!(Peeked::new(7, CutOffs::default()).tag, 7);
    /// ```
    #[must_use]
    pub fn new(tag: u64, cut_offs: CutOffs) -> Self {
        Self { tag, cut_offs }
    }

    /// That of a row that was read whole.
    ///
    /// ```
    /// use sessile::rows::{CutOffs, Peeked, Row, Selected, Stored, Tags};
    /// let record = sessile::Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH);
    /// let row = Row::new(Tags::first(7), CutOffs::default(), record);
    /// assert_eq!(Peeked::of(&Selected::new(Stored::Session(row), CutOffs::default())).tag, 7);
    /// ```
    #[must_use]
    pub fn of(selected: &Selected) -> Self {
        let tag = match &selected.stored {
            Stored::Session(row) => row.tags.newest(),
            Stored::Moved(_) => 0,
        };
        Self { tag, cut_offs: selected.cut_offs }
    }
}

/// The state of a row when it was selected last: its newest tag and its own cut-offs.
fn note(tag: u64, cut_offs: CutOffs) -> [u64; 8] {
    [tag, u64::from(cut_offs.of_user), u64::from(cut_offs.of_all), 0, 0, 0, 0, 0]
}

/// Whether a row is the one of the note, and no cut-off has ended its session.
fn is_unchanged([tag, of_user, of_all, ..]: [u64; 8], peeked: Peeked) -> bool {
    let now = peeked.cut_offs;
    tag != 0 && tag == peeked.tag && u64::from(now.of_user) <= of_user && u64::from(now.of_all) <= of_all
}

impl<R: Rows> RowStore<R> {
    /// Answers each question that is due, and each whose row has changed since it was selected last.
    pub(super) fn poll_rows(&self, polls: &mut [Poll]) -> Result<Duration> {
        for batch in polls.chunks_mut(BATCH_MAX) {
            let ids: Vec<_> = batch.iter().filter(|poll| !poll.is_due()).map(|poll| *poll.id()).collect();
            let mut peeked = self.peek(&ids)?.into_iter();
            for poll in batch {
                let is_unchanged = !poll.is_due()
                    && peeked.next().flatten().is_some_and(|peeked| is_unchanged(poll.note, peeked));
                if !is_unchanged {
                    self.look_at(poll);
                }
            }
        }
        Ok(POLL_INTERVAL)
    }

    /// The tags and cut-offs of rows. If a row among them fails its checks, nothing is known about any of them.
    fn peek(&self, ids: &[PublicId]) -> Result<Vec<Option<Peeked>>> {
        let mut attempts = self.attempts()?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        match self.repeat(&mut attempts, |until| self.rows.peek(ids, until)) {
            Ok(peeked) if peeked.len() == ids.len() => Ok(peeked),
            Ok(_) => Err(Error::new(ErrorKind::Storage, "look at sessions")
                .with_reason("the back end has returned another number of rows")),
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(vec![None; ids.len()]),
            Err(error) => Err(error),
        }
    }

    /// Answers a question by the row itself.
    fn look_at(&self, poll: &mut Poll) {
        let id = *poll.id();
        let found = self.attempts().and_then(|mut attempts| self.state(&id, &mut attempts));
        let found = found.map(|state| match state {
            State::Live(row) => {
                poll.note = note(row.tags.newest(), row.cut_offs);
                Polled::Live(row.record)
            }
            State::Moved(moved) => Polled::Moved { to: moved.successor, by_login: moved.by_login },
            State::Absent(absent) => Polled::Absent(absent),
        });
        poll.answer(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_unchanged_with_its_tag_and_without_a_later_cut_off() {
        let cut_offs = |of_user, of_all| CutOffs { of_user, of_all };
        let check = |tag, now| is_unchanged(note(7, cut_offs(2, 3)), Peeked::new(tag, now));
        assert!(check(7, cut_offs(2, 3)));
        assert!(!check(8, cut_offs(2, 3)));
        assert!(!check(7, cut_offs(3, 3)) && !check(7, cut_offs(2, 4)));
        assert!(!is_unchanged([0; 8], Peeked::new(0, cut_offs(0, 0))), "no row was selected yet");
    }
}
