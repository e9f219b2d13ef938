//! [`RowStore`]: reading and ending sessions, and the cut-offs of users. `write` changes sessions.
use super::known::Known;
use super::options::RowStoreOptions;
use super::retry::Attempts;
use super::row::{MovedRow, RandomTags, Row, Stored};
use super::write::{Target, Write, Written};
use super::{CutOff, CutOffs, Rows, Selected, Swap};
use crate::admin::Tally;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PublicId, SessionId, Token};
use crate::queue::{Queues, Turn};
use crate::record::{Record, user_digest};
use crate::store::{
    Absent, Change, Durability, EndReason, EndedSession, Guarantees, HOPS_MAX, Live, Lookup, Page, Rotation,
    Saved, Store, UserSessions,
};
use crate::sync::Instant;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

/// Sessions on a server that [`Rows`] speaks to. See the [module](super) for its rules.
///
/// If the answer to a deletion was lost and the session is gone, [`delete`](Store::delete) returns the id of the row
/// that it tried to remove last: it cannot know whether its own first attempt has ended the session.
/// [`FileStoreOptions::sessions_per_user`] has no counterpart here.
///
/// [`FileStoreOptions::sessions_per_user`]: crate::FileStoreOptions::sessions_per_user
pub struct RowStore<R> {
    pub(super) rows: R,
    pub(super) options: RowStoreOptions,
    pub(super) queues: Queues,
    pub(super) known: Known,
    /// Whether the last call could not reach the server. A thread that waits in a queue reads it.
    is_down: AtomicBool,
    pub(super) tags: RandomTags,
    pub(super) tally: Tally,
    loads: AtomicU64,
}

/// What is stored under an id.
pub(super) enum State {
    Live(Row),
    Moved(MovedRow),
    Absent(Absent),
}

impl<R: Rows> RowStore<R> {
    pub(super) fn with_options(rows: R, options: RowStoreOptions) -> Self {
        let known = Known::new(options.known_bytes);
        Self {
            rows,
            options,
            queues: Queues::new(),
            known,
            is_down: AtomicBool::new(false),
            tags: RandomTags::default(),
            tally: Tally::default(),
            loads: AtomicU64::new(0),
        }
    }

    /// The back end.
    ///
    /// ```
    /// let store = sessile::rows::MemoryStore::new();
    /// assert!(store.rows().is_empty());
    /// ```
    #[must_use]
    pub fn rows(&self) -> &R {
        &self.rows
    }

    /// The attempts of a call that begins now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`] in a child of the process that opened the store.
    pub(super) fn attempts(&self) -> Result<Attempts> {
        self.queues.check_process()?;
        Ok(Attempts::new(self.options.wait))
    }

    /// Waits for this thread's turn to write a session.
    pub(super) fn turn(&self, id: &PublicId, attempts: &Attempts) -> Result<Turn<'_>> {
        self.queues.turn(id, attempts.until()).map_err(|error| {
            if error.kind() == ErrorKind::Busy && self.is_down.load(Ordering::Relaxed) {
                return Error::new(ErrorKind::Unavailable, "lock a session")
                    .with_reason("the writer before it found no server");
            }
            error
        })
    }

    /// Runs an operation until it is answered or the time is over. The operation must have no effect the second time.
    pub(super) fn repeat<T>(
        &self,
        attempts: &mut Attempts,
        mut run: impl FnMut(Instant) -> Result<T>,
    ) -> Result<T> {
        loop {
            match run(attempts.until()) {
                Ok(done) => return Ok(self.answered(done)),
                Err(error) if attempts.again(&error) => self.note(&error),
                Err(error) => {
                    self.note(&error);
                    return Err(error);
                }
            }
        }
    }

    /// Notes that the server has answered. Returns the answer.
    pub(super) fn answered<T>(&self, answer: T) -> T {
        if self.is_down.load(Ordering::Relaxed) {
            self.is_down.store(false, Ordering::Relaxed);
        }
        answer
    }

    /// Notes after a failure whether the server may be unreachable.
    pub(super) fn note(&self, failure: &Error) {
        if matches!(failure.kind(), ErrorKind::Unavailable | ErrorKind::Unanswered) {
            self.is_down.store(true, Ordering::Relaxed);
        }
    }

    /// Reads a row. If the answer is lost, the operation is repeated, because it changes nothing.
    pub(super) fn select(&self, id: &PublicId, attempts: &mut Attempts) -> Result<Option<Selected>> {
        self.repeat(attempts, |until| self.rows.select(id, until)).map_err(|error| match error.kind() {
            ErrorKind::Unanswered => Error::new(ErrorKind::Unavailable, format!("read session {id}"))
                .with_reason("the server did not answer")
                .with_source(error),
            _ => error,
        })
    }

    pub(super) fn state(&self, id: &PublicId, attempts: &mut Attempts) -> Result<State> {
        let Some(Selected { stored, cut_offs }) = self.select(id, attempts)? else {
            return Ok(State::Absent(Absent::NotFound(*id)));
        };
        Ok(match stored {
            Stored::Moved(moved) => State::Moved(moved),
            Stored::Session(row) if row.record.is_expired(self.rows.now()) => {
                State::Absent(Absent::Expired(*id))
            }
            Stored::Session(row) if !row.cut_offs.stands(cut_offs) => State::Absent(Absent::NotFound(*id)),
            Stored::Session(row) => State::Live(row),
        })
    }

    /// The id to which a logout or a login under a moved id applies: that of the successor, if the grace period has not
    /// ended and the rotation was not a login.
    pub(super) fn next_hop(&self, id: &PublicId, moved: &MovedRow) -> Option<PublicId> {
        let follows = !moved.by_login && moved.to_moved(*id).is_within_grace(self.rows.now());
        follows.then_some(moved.successor)
    }

    /// Removes a row. Returns what it held. If an answer was lost, and the row is gone now, returns `Removed::Unknown`.
    pub(super) fn remove(&self, id: &PublicId, attempts: &mut Attempts) -> Result<Removed> {
        let mut was_unanswered = false;
        let selected = self.repeat(attempts, |until| {
            let removed = self.rows.remove(id, until);
            was_unanswered |= matches!(&removed, Err(error) if error.kind() == ErrorKind::Unanswered);
            removed
        })?;
        self.known.forget(id);
        Ok(match selected {
            None if was_unanswered => Removed::Unknown,
            None => Removed::Nothing,
            Some(Selected { stored: Stored::Moved(moved), .. }) => Removed::Moved(moved),
            Some(Selected { stored: Stored::Session(row), cut_offs }) => {
                let over = self.over(&row, cut_offs);
                Removed::Session(EndedSession { id: *id, record: Some(row.record), over })
            }
        })
    }

    /// Why a row's session is over, if it is.
    pub(super) fn over(&self, row: &Row, cut_offs: CutOffs) -> Option<EndReason> {
        if !row.cut_offs.stands(cut_offs) {
            return Some(EndReason::CutOff);
        }
        row.record.is_expired(self.rows.now()).then_some(EndReason::Expired)
    }

    /// Removes a session, or the one to which rotations have moved it.
    pub(super) fn remove_session(
        &self,
        mut id: PublicId,
        attempts: &mut Attempts,
    ) -> Result<Option<EndedSession>> {
        for _ in 0..=HOPS_MAX {
            match self.remove(&id, attempts)? {
                Removed::Session(removed) => return Ok(Some(removed)),
                Removed::Moved(moved) => match self.next_hop(&id, &moved) {
                    Some(next) => id = next,
                    None => return Ok(None),
                },
                Removed::Nothing => return Ok(None),
                // The session was ended by the first attempt of this call, whose answer was lost, or by another call.
                Removed::Unknown => return Ok(Some(EndedSession::live(id, None))),
            }
        }
        Ok(None)
    }

    /// Adds a cut-off of a user, or of all users, at some instant of this call.
    fn cut_off(&self, user: Option<&[u8; 16]>, except: Option<&PublicId>) -> Result<()> {
        let mut attempts = self.attempts()?;
        // While this thread has the turn, no other writer of this process changes the excepted session.
        let _turn = except.map(|id| self.turn(id, &attempts)).transpose()?;
        loop {
            let seen = self.repeat(&mut attempts, |until| self.rows.cut_offs(user, until))?;
            let row = except.map(|id| self.excepted(id, user, seen, &mut attempts)).transpose()?;
            let except = except.zip(row.as_ref()).map(|(id, (seen, row))| Swap {
                id,
                seen: *seen,
                row,
                to: None,
                durability: Durability::PowerSafe,
            });
            let cut_off = CutOff { user, seen, except };
            // The operation names the numbers that it replaces, so it has no effect the second time. If the first
            // answer was lost, or another call was faster, the numbers show that.
            let done = self.repeat(&mut attempts, |until| self.rows.cut_off(&cut_off, until))?;
            if let Some(swap) = &cut_off.except {
                self.known.forget(swap.id);
            }
            if done {
                return Ok(());
            }
            let now = self.repeat(&mut attempts, |until| self.rows.cut_offs(user, until))?;
            let is_later = if user.is_some() { now.of_user > seen.of_user } else { now.of_all > seen.of_all };
            if is_later {
                // This call's own cut-off, or another one since the call began. It has ended all sessions that this one
                // must end, and perhaps the excepted session as well.
                let Some(swap) = &cut_off.except else { return Ok(()) };
                return match self.state(swap.id, &mut attempts)? {
                    State::Live(_) => Ok(()),
                    State::Moved(_) | State::Absent(_) => Err(not_theirs(swap.id)),
                };
            }
            if !attempts.after_race() {
                return Err(Error::new(ErrorKind::Busy, "end the sessions of a user")
                    .with_reason("other calls changed them for the whole time limit"));
            }
        }
    }

    /// The row that the excepted session gets with the cut-off, and the tag of the row that it replaces.
    fn excepted(
        &self,
        id: &PublicId,
        user: Option<&[u8; 16]>,
        seen: CutOffs,
        attempts: &mut Attempts,
    ) -> Result<(u64, Row)> {
        let State::Live(row) = self.state(id, attempts)? else { return Err(not_theirs(id)) };
        if row.record.user_digest().as_ref() != user {
            return Err(not_theirs(id));
        }
        let Some(of_user) = seen.of_user.checked_add(1) else {
            return Err(Error::new(ErrorKind::Full, "end the sessions of a user")
                .with_reason("the user has had more cut-offs than can be counted"));
        };
        let seen = row.tags.newest();
        let cut_offs = CutOffs { of_user, ..row.cut_offs };
        Ok((seen, Row { tags: row.tags.followed_by(self.tags.draw()?), cut_offs, ..row }))
    }

    fn write(&self, token: &Token, write: &mut Write<'_>) -> Result<Option<Saved>> {
        let Some(session) = token.session_id() else { return Ok(None) };
        let mut attempts = self.attempts()?;
        let mut id = session.public_id();
        for _ in 0..=HOPS_MAX {
            match self.write_row(&id, write, &mut attempts)? {
                Written::Saved(record) => {
                    let (token, id) = match &write.target {
                        Some(target) => (target.successor.to_token(), target.successor.public_id()),
                        None => (token.clone(), id),
                    };
                    return Ok(Some(Saved { token, live: Live { record, id } }));
                }
                Written::Absent => return Ok(None),
                Written::Moved(moved) => match self.next_hop(&id, &moved) {
                    Some(next) if write.is_login() => id = next,
                    _ => return Ok(None),
                },
            }
        }
        Ok(None)
    }
}

/// What was in a row that was removed.
pub(super) enum Removed {
    Nothing,
    Session(EndedSession),
    Moved(MovedRow),
    Unknown,
}

#[cold]
fn not_theirs(id: &PublicId) -> Error {
    Error::new(ErrorKind::Gone, "end the sessions of a user")
        .with_reason(format!("session {id}, which is to stay, is not a live session of that user"))
}

impl<R: Rows> RowStore<R> {
    fn load_row(&self, token: &Token) -> Result<Lookup> {
        let Some(session) = token.session_id() else { return Ok(Lookup::Absent(Absent::Malformed)) };
        let id = session.public_id();
        self.loads.fetch_add(1, Ordering::Relaxed);
        Ok(match self.state(&id, &mut self.attempts()?)? {
            State::Live(row) => {
                let record = row.record.clone();
                self.known.put(id, row);
                Lookup::Live(Live { record, id })
            }
            State::Moved(moved) => Lookup::Absent(Absent::Moved(moved.to_moved(id))),
            State::Absent(absent) => Lookup::Absent(absent),
        })
    }

    fn successor_row(&self, token: &Token) -> Result<Option<Live>> {
        let Some(session) = token.session_id() else { return Ok(None) };
        let mut attempts = self.attempts()?;
        let mut id = session.public_id();
        for hops in 0..=HOPS_MAX {
            match self.state(&id, &mut attempts)? {
                State::Moved(moved) => id = moved.successor,
                State::Live(row) if hops > 0 => return Ok(Some(Live { record: row.record, id })),
                State::Live(_) | State::Absent(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    fn cut_off_user(&self, user: &str, except: Option<&Token>) -> Result<()> {
        let Some(digest) = user_digest(user) else {
            return Err(
                Error::new(ErrorKind::Value, "end the sessions of a user").with_reason("the user is empty")
            );
        };
        match except {
            None => self.cut_off(Some(&digest), None),
            Some(token) => match token.session_id() {
                Some(session) => self.cut_off(Some(&digest), Some(&session.public_id())),
                None => Err(Error::new(ErrorKind::Gone, "end the sessions of a user")
                    .with_reason("the session that is to stay has no token of this store")),
            },
        }
    }

    /// The number of loads of well-formed tokens.
    pub(super) fn loads(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }
}

impl<R: Rows> Store for RowStore<R> {
    fn now(&self) -> SystemTime {
        self.rows.now()
    }

    fn is_well_formed(&self, token: &Token) -> bool {
        token.session_id().is_some()
    }

    fn load(&self, token: &Token) -> Result<Lookup> {
        self.tally.read(self.load_row(token))
    }

    fn create(&self, record: &Record, how: Durability) -> Result<Saved> {
        let (session, record) = self.tally.save(self.create_row(record, self.resolved(how)), |_| true)?;
        let (token, id) = (session.to_token(), session.public_id());
        Ok(Saved { token, live: Live { record, id } })
    }

    fn update(&self, token: &Token, change: Change<'_>, how: Durability) -> Result<Option<Saved>> {
        let durability = self.resolved(how);
        let written = self.write(token, &mut Write { change, durability, target: None });
        self.tally.save(written, Option::is_some)
    }

    fn rotate(&self, token: &Token, change: Change<'_>, how: &Rotation<'_>) -> Result<Option<Saved>> {
        let target = Target::new(SessionId::random()?, how);
        let durability = self.resolved(how.durability);
        let written = self.write(token, &mut Write { change, durability, target: Some(target) });
        self.tally.save(written, Option::is_some)
    }

    fn delete(&self, token: &Token) -> Result<Option<PublicId>> {
        self.end(token).map(EndedSession::live_id)
    }

    fn end(&self, token: &Token) -> Result<Option<EndedSession>> {
        let Some(session) = token.session_id() else { return Ok(None) };
        self.end_by_id(session.public_id())
    }

    fn successor(&self, token: &Token) -> Result<Option<Live>> {
        self.tally.read(self.successor_row(token))
    }

    fn delete_of(&self, user: &str, except: Option<&Token>) -> Result<()> {
        self.tally.end(self.cut_off_user(user, except), |()| true)
    }

    fn delete_all(&self) -> Result<()> {
        self.tally.end(self.cut_off(None, None), |()| true)
    }

    fn sessions_of(&self, user: &str, page: &Page) -> Result<UserSessions> {
        self.tally.read(self.list_sessions_of(user, page))
    }

    fn delete_session_of(&self, user: &str, id: &PublicId) -> Result<Option<PublicId>> {
        self.end_session_of(user, id).map(EndedSession::live_id)
    }

    fn end_session_of(&self, user: &str, id: &PublicId) -> Result<Option<EndedSession>> {
        self.tally.end_session(self.delete_session_of_user(user, *id))
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::all()
    }

    fn durability(&self) -> Durability {
        self.options.durability
    }

    fn record_bytes_max(&self) -> Option<usize> {
        Some(self.options.record_bytes_max)
    }
}

impl<R: Rows> RowStore<R> {
    pub(super) fn resolved(&self, how: Durability) -> Durability {
        if how == Durability::OfStore { self.options.durability } else { how }
    }
}
