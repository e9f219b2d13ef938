//! Creating, updating and moving a row: the change runs here, and a lost answer is looked up here (rules 1 to 5 of the
//! [module](super)).
use super::retry::Attempts;
use super::row::{CutOffs, MovedRow, Row, Stored, Tags, random_tag};
use super::store::State;
use super::{Move, RowStore, Rows, Selected, Swap};
use crate::contained::{Panicked, contained};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PublicId, SessionId};
use crate::record::Record;
use crate::store::{Change, Durability, GRACE_MAX, Rotation, Verdict};
use std::time::{Duration, SystemTime};

/// The lost races after which a write takes the lock of the back end.
const RACES_MAX: u32 = 3;

/// A change of a session.
pub(super) struct Write<'a> {
    pub(super) change: Change<'a>,
    pub(super) durability: Durability,
    /// The new id of a rotation.
    pub(super) target: Option<Target>,
}

/// Where a rotation moves a session.
pub(super) struct Target {
    pub(super) successor: SessionId,
    is_login: bool,
    grace: Duration,
}

/// How a write of a row ended.
pub(super) enum Written {
    /// It is stored as this record.
    Saved(Record),
    /// There is no live session, or the change was aborted.
    Absent,
    /// The id is moved.
    Moved(MovedRow),
}

/// How a swap ended.
enum Swapped {
    /// It was done. With the cut-offs of the new row if it is the newest still.
    Done(Option<CutOffs>),
    /// It was not done and never will be.
    Lost,
}

/// What the row says of a swap without an answer.
enum Trace {
    Done(Option<CutOffs>),
    Lost,
    /// It was not done, and the same swap may be sent again.
    NotYet,
    Unknown,
}

impl Target {
    pub(super) fn new(successor: SessionId, how: &Rotation<'_>) -> Self {
        Self { successor, is_login: how.login.is_some(), grace: how.grace.min(GRACE_MAX) }
    }

    /// The row that the old id gets.
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
                // Rule 4. A panic on a version that is not stored any more is not the program's fault.
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
            let record = changed.record.clone();
            match self.swap((id, row.tags.newest()), changed, write, attempts)? {
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
            // A relaxed version becomes power-safe by being written again.
            Verdict::Keep if write.target.is_none() && write.durability != Durability::PowerSafe => {
                return Ok(Changed::Nothing(Written::Saved(row.record.clone())));
            }
            Verdict::Keep => record = row.record.clone(),
            Verdict::Write => record.set_cut_off(0),
        }
        self.check_limits(&record, Some(&row.record))?;
        let is_same_user = record.user_digest() == row.record.user_digest();
        // A user that the change has set has not logged in, so each earlier cut-off of that user ends the session.
        let of_user = if is_same_user { row.cut_offs.of_user } else { 0 };
        let tags = row.tags.followed_by(random_tag()?);
        Ok(Changed::Row(Row { tags, cut_offs: CutOffs { of_user, ..row.cut_offs }, record }))
    }

    /// Sends a swap of a session that was seen with a tag, until it is known whether it was done.
    fn swap(
        &self,
        (id, seen): (&PublicId, u64),
        mut row: Row,
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
                let is_worth_another = attempts.again(&error);
                if error.kind() == ErrorKind::Unanswered {
                    lost_answer.get_or_insert(error);
                } else if !is_worth_another {
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

    /// Looks up what became of a swap whose answer was lost (rule 2).
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
            // Without a grace period, only the new id tells.
            (None, Some(to)) => match self.select(to.successor, attempts)? {
                Some(_) => Trace::Done(None),
                None => Trace::Lost,
            },
            // The session was moved or ended since; the update may be in its successor.
            (_, None) => Trace::Unknown,
        })
    }

    /// Stores a new session under a random id. Returns the id and the record as it is stored.
    pub(super) fn create_row(&self, record: &Record, how: Durability) -> Result<(SessionId, Record)> {
        let mut attempts = self.attempts()?;
        let mut record = record.clone();
        record.set_cut_off(0);
        self.check_limits(&record, None)?;
        let row = Row::new(Tags::first(random_tag()?), CutOffs::default(), record);
        loop {
            let session = SessionId::random()?;
            let id = session.public_id();
            let inserted = self.rows.insert(&id, &row, how, attempts.until());
            let found = match inserted {
                Ok(Some(cut_offs)) => self.answered(Some(cut_offs)),
                // Another session has this id, which the generator of random ids must not draw twice.
                Ok(None) => {
                    return Err(
                        Error::new(ErrorKind::Random, "store a session").with_reason("the id is taken")
                    );
                }
                Err(error) if attempts.again(&error) => {
                    self.note(&error);
                    if error.kind() != ErrorKind::Unanswered {
                        continue;
                    }
                    // Rule 3: found, it is done; not found, it is made again under another id.
                    match self.select(&id, &mut attempts) {
                        Ok(Some(Selected { stored: Stored::Session(row), .. })) => Some(row.cut_offs),
                        Ok(_) => continue,
                        Err(_) => return Err(error),
                    }
                }
                Err(error) => {
                    self.note(&error);
                    return Err(error);
                }
            };
            if let Some(cut_offs) = found {
                self.known.put(id, Row { cut_offs, ..row.clone() });
                return Ok((session, row.record));
            }
        }
    }

    /// Refuses a record above a limit that is larger than before.
    fn check_limits(&self, record: &Record, before: Option<&Record>) -> Result<()> {
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

/// The result of a change.
enum Changed {
    Row(Row),
    /// Nothing is to be written.
    Nothing(Written),
}

#[cold]
fn unanswered(id: &PublicId, lost: Error) -> Error {
    Error::new(ErrorKind::Unanswered, format!("save session {id}"))
        .with_reason("the server did not answer, so the change may or may not be stored")
        .with_source(lost)
}
