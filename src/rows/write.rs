//! Creates, updates and moves rows: runs the change of a session, and finds out what became of a write whose answer was
//! lost (rules 1 to 5 of the [module](super)).
use super::retry::Attempts;
use super::row::{CutOffs, MovedRow, Row, Stored, Tags};
use super::store::State;
use super::{Move, RowStore, Rows, Selected, Swap};
use crate::contained::{Panicked, contained};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PublicId, SessionId};
use crate::record::Record;
use crate::store::{Change, Durability, GRACE_MAX, Rotation, Verdict};
use std::time::{Duration, SystemTime};

/// The number of times that another writer may be faster before a write takes the lock of the back end.
const RACES_MAX: u32 = 3;

/// A change of a session.
pub(super) struct Write<'a> {
    pub(super) change: Change<'a>,
    pub(super) durability: Durability,
    /// The new id, if the write is a rotation.
    pub(super) target: Option<Target>,
}

/// The new id of a session that is rotated.
pub(super) struct Target {
    pub(super) successor: SessionId,
    is_login: bool,
    grace: Duration,
}

/// The outcome of a write.
pub(super) enum Written {
    /// The session is stored with this record.
    Saved(Record),
    /// There is no live session, or the change was aborted.
    Absent,
    /// A rotation or a login has moved the id.
    Moved(MovedRow),
}

/// The outcome of a swap.
enum Swapped {
    /// The swap was done. The cut-offs are those of the new row, if it is still the newest one.
    Done(Option<CutOffs>),
    /// The swap was not done, and will never be.
    Lost,
}

/// What the stored row shows about a swap whose answer was lost.
enum Trace {
    Done(Option<CutOffs>),
    Lost,
    /// The swap was not done, and may be sent again.
    NotYet,
    Unknown,
}

impl Target {
    pub(super) fn new(successor: SessionId, how: &Rotation<'_>) -> Self {
        Self { successor, is_login: how.login.is_some(), grace: how.grace.min(GRACE_MAX) }
    }

    /// The row that the old id gets; `None` if it is removed.
    fn moved(&self, now: SystemTime) -> Option<MovedRow> {
        let until = now + self.grace;
        (!self.grace.is_zero()).then(|| MovedRow::new(self.successor.public_id(), until, self.is_login))
    }
}

impl Write<'_> {
    pub(super) fn is_login(&self) -> bool {
        self.target.as_ref().is_some_and(|target| target.is_login)
    }
}

impl<R: Rows> RowStore<R> {
    /// Changes the row of an id, or moves it.
    pub(super) fn write_row(
        &self,
        id: &PublicId,
        write: &mut Write<'_>,
        attempts: &mut Attempts,
    ) -> Result<Written> {
        let _turn = self.turn(id, attempts)?;
        let mut guess = self.known.take(id);
        let (mut races, mut lock) = (0, None);
        loop {
            let is_guess = guess.is_some();
            let row = match guess.take() {
                Some(row) => row,
                None => match self.state(id, attempts)? {
                    State::Live(row) => row,
                    State::Moved(moved) => return Ok(Written::Moved(moved)),
                    State::Absent(_) => return Ok(Written::Absent),
                },
            };
            let changed = if is_guess {
                // Rule 4: the change may panic on a version that is not stored any more. Then the panic is not the
                // program's fault, and the change is run again.
                match contained(|| self.changed(&row, write)) {
                    Ok(Ok(Changed::Row(changed))) => changed,
                    Ok(Ok(Changed::Nothing(_)) | Err(_)) | Err(Panicked) => continue,
                }
            } else {
                match self.changed(&row, write)? {
                    Changed::Row(changed) => changed,
                    Changed::Nothing(written) => {
                        self.known.put(*id, row);
                        return Ok(written);
                    }
                }
            };
            let record = changed.row.record.clone();
            match self.swap(id, changed, write, attempts)? {
                Swapped::Done(_) => return Ok(Written::Saved(record)),
                Swapped::Lost if is_guess => continue,
                Swapped::Lost => {}
            }
            races += 1;
            if !attempts.after_race() {
                return Err(Error::new(ErrorKind::Busy, format!("save session {id}"))
                    .with_reason("other processes changed it first for the whole time limit"));
            }
            if races >= RACES_MAX && lock.is_none() {
                lock = self.repeat(attempts, |until| self.rows.lock(id, until))?;
            }
        }
    }

    /// Runs the change on a copy of a row.
    fn changed(&self, row: &Row, write: &mut Write<'_>) -> Result<Changed> {
        if row.record.is_expired(self.rows.now()) {
            return Ok(Changed::Nothing(Written::Absent));
        }
        let mut record = row.record.clone();
        match (write.change)(&mut record)? {
            Verdict::Abort => return Ok(Changed::Nothing(Written::Absent)),
            // A version that was saved relaxed is written again, so that it becomes power-safe.
            Verdict::Keep if write.target.is_none() && write.durability != Durability::PowerSafe => {
                return Ok(Changed::Nothing(Written::Saved(row.record.clone())));
            }
            Verdict::Keep => record = row.record.clone(),
            Verdict::Write => record.set_cut_off(0),
        }
        self.check_limits(&record, Some(&row.record))?;
        let is_same_user = record.user_digest() == row.record.user_digest();
        // If the change has set another user, that user has not logged in. So the session gets the number 0, and every
        // earlier cut-off of that user ends it.
        let of_user = if is_same_user { row.cut_offs.of_user } else { 0 };
        let tags = row.tags.followed_by(self.tags.draw()?);
        let seen = row.tags.newest();
        let row = Row { tags, cut_offs: CutOffs { of_user, ..row.cut_offs }, record };
        Ok(Changed::Row(Replacement { seen, row }))
    }

    /// Sends a swap again until its outcome is known.
    fn swap(
        &self,
        id: &PublicId,
        Replacement { seen, mut row }: Replacement,
        write: &Write<'_>,
        attempts: &mut Attempts,
    ) -> Result<Swapped> {
        let target = write.target.as_ref();
        let successor = target.map(|target| target.successor.public_id());
        let moved = target.and_then(|target| target.moved(self.rows.now()));
        let to = target.zip(successor.as_ref()).map(|(target, successor)| Move {
            successor,
            is_login: target.is_login,
            moved: moved.as_ref(),
        });
        let swap = Swap { id, seen, row: &row, to, durability: write.durability };
        let swapped = self.settled(&swap, attempts)?;
        if let Swapped::Done(Some(cut_offs)) = swapped {
            row.cut_offs = cut_offs;
            self.known.put(successor.unwrap_or(*id), row);
        }
        Ok(swapped)
    }

    fn settled(&self, swap: &Swap<'_>, attempts: &mut Attempts) -> Result<Swapped> {
        let mut lost_answer: Option<Error> = None;
        loop {
            let failure = match self.rows.swap(swap, attempts.until()) {
                Ok(Some(cut_offs)) => return Ok(self.answered(Swapped::Done(Some(cut_offs)))),
                Ok(None) if lost_answer.is_none() => return Ok(self.answered(Swapped::Lost)),
                Ok(None) => None,
                Err(error) => Some(error),
            };
            if let Some(error) = failure {
                self.note(&error);
                // A lost answer is looked up at once, before other writes have replaced its tag.
                if error.kind() == ErrorKind::Unanswered {
                    lost_answer.get_or_insert(error);
                } else if !attempts.again(&error) {
                    return Err(lost_answer.map_or(error, |lost| unanswered(swap.id, lost)));
                }
            }
            let Some(lost) = lost_answer.take() else { continue };
            let Ok(trace) = self.trace(swap, attempts) else { return Err(unanswered(swap.id, lost)) };
            match trace {
                Trace::Done(cut_offs) => return Ok(Swapped::Done(cut_offs)),
                Trace::Lost => return Ok(Swapped::Lost),
                Trace::NotYet if attempts.after_race() => lost_answer = Some(lost),
                Trace::NotYet | Trace::Unknown => return Err(unanswered(swap.id, lost)),
            }
        }
    }

    /// Finds out what became of a swap whose answer was lost (rule 2).
    fn trace(&self, swap: &Swap<'_>, attempts: &mut Attempts) -> Result<Trace> {
        let mine = swap.row.tags.newest();
        let found = self.select(swap.id, attempts)?;
        Ok(match (found, &swap.to) {
            (Some(Selected { stored: Stored::Session(row), cut_offs }), to) => {
                let tags = row.tags;
                if to.is_none() && tags.contains(mine) {
                    Trace::Done((tags.newest() == mine).then_some(row.cut_offs))
                } else if tags.newest() == swap.seen && row.cut_offs.stands(cut_offs) {
                    Trace::NotYet
                } else if to.is_some() || tags.newest() == swap.seen || tags.contains(swap.seen) {
                    // A cut-off has ended the session, or another write has replaced the row that was seen.
                    Trace::Lost
                } else {
                    Trace::Unknown
                }
            }
            (Some(Selected { stored: Stored::Moved(moved), .. }), Some(to)) => {
                if moved.successor == *to.successor { Trace::Done(None) } else { Trace::Lost }
            }
            // Without a grace period the old row is gone. Only the row of the new id shows whether the swap was done.
            (None, Some(to)) => match self.select(to.successor, attempts)? {
                Some(_) => Trace::Done(None),
                None => Trace::Lost,
            },
            // The session was moved or ended since. The update may be in its successor.
            (_, None) => Trace::Unknown,
        })
    }

    /// Stores a new session under a random id. Returns the id and the record as it is stored.
    pub(super) fn create_row(&self, record: &Record, how: Durability) -> Result<(SessionId, Record)> {
        let mut attempts = self.attempts()?;
        let mut record = record.clone();
        record.set_cut_off(0);
        self.check_limits(&record, None)?;
        let row = Row::new(Tags::first(self.tags.draw()?), CutOffs::default(), record);
        loop {
            let session = SessionId::random()?;
            let id = session.public_id();
            let failure = match self.rows.insert(&id, &row, how, attempts.until()) {
                Ok(Some(cut_offs)) => {
                    self.known.put(id, Row { cut_offs, ..row.clone() });
                    return Ok(self.answered((session, row.record)));
                }
                // The id exists already, although it is random. That must not happen.
                Ok(None) => {
                    return Err(
                        Error::new(ErrorKind::Random, "store a session").with_reason("the id is taken")
                    );
                }
                Err(failure) => failure,
            };
            self.note(&failure);
            if failure.kind() == ErrorKind::Unanswered {
                // Rule 3: no client gets this id. If its row is there already, it is removed, so that no list shows it.
                let _ = self.rows.remove(&id, attempts.until());
            }
            if !attempts.again(&failure) {
                return Err(failure);
            }
        }
    }

    /// Refuses a record that exceeds a limit, unless it does not exceed the record before it.
    pub(super) fn check_limits(&self, record: &Record, before: Option<&Record>) -> Result<()> {
        let bytes_of = |record: &Record| record.as_bytes().len() - record.login_bytes();
        let refuse = |kind, reason| Err(Error::new(kind, "encode session record").with_reason(reason));
        let (entries, limit) = (record.entry_count(), self.options.entries_max);
        if entries > limit.max(before.map_or(0, Record::entry_count)) {
            return refuse(
                ErrorKind::TooManyEntries,
                format!("{entries} entries, where the limit is {limit}"),
            );
        }
        let (bytes, limit) = (bytes_of(record), self.options.record_bytes_max);
        if bytes > limit.max(before.map_or(0, bytes_of)) {
            return refuse(ErrorKind::TooLarge, format!("{bytes} bytes, where the limit is {limit}"));
        }
        Ok(())
    }
}

/// The next version of a row, and the tag of the version that it replaces.
struct Replacement {
    seen: u64,
    row: Row,
}

/// The outcome of running a change.
enum Changed {
    Row(Replacement),
    /// Nothing is to be written.
    Nothing(Written),
}

#[cold]
fn unanswered(id: &PublicId, lost: Error) -> Error {
    Error::new(ErrorKind::Unanswered, format!("save session {id}"))
        .with_reason("the server did not answer, so the change may or may not be stored")
        .with_source(lost)
}
