//! Sessions on a server: the promises of [`Store`](crate::Store), once for all databases and cache servers.
//!
//! A back end implements [`Rows`]: five short operations (select, insert, swap, remove, sweep), each one statement,
//! script or transaction on the server, two for the cut-offs of users, and three that it may leave out. [`RowStore`]
//! makes a [`Store`](crate::Store) of them. [`MemoryRows`] is the smallest back end: sessions in this process, for
//! tests and as an example.
//!
//! # A row
//!
//! A [`Row`] is one session: its record; a random [tag](Tags), new with each write; the seven tags before that one; and
//! the numbers of the [cut-offs](CutOffs) that were there when its user logged in. The row of a moved id has no record
//! but the successor's id ([`MovedRow`]).
//!
//! # Rules
//!
//! 1. **No write without the tag that it replaces.** A swap is done only if the stored row still has the tag that the
//!    writer has seen, and no cut-off has ended the session. No write inserts *or* replaces. So a write that arrives
//!    late, twice, or after the session has ended does nothing.
//! 2. **A lost answer is looked up, not guessed.** If the row has the tag of the write, then the write was done. If it
//!    still has the tag that the write was to replace, then the write was not done, and is sent again as it was. If a
//!    tag that is stored shows that another write has replaced that one, then the write was not done and never will be.
//!    Otherwise the call is [`Unanswered`](crate::ErrorKind::Unanswered). The change of the caller never runs again for
//!    a write that may have been done.
//! 3. **An id is used once.** A creation whose answer was lost is made again under another id, whether it was done or
//!    not: it may arrive late, or once more after its session has ended, and then makes a session whose token no client
//!    has. (A creation cannot name the tag that it replaces, so it does not refuse to be done twice.)
//! 4. **A guess is checked before it is believed.** An update may begin with the row that this process has seen last
//!    (`known`), which saves one round trip. The swap refuses a wrong guess. An update that writes nothing because of
//!    such a row (the change kept it, failed, panicked, or found it expired) is made again with the row on the server.
//! 5. **Nothing is locked while the change runs**, except this process's queue of that session, and after three lost
//!    races the lock by which the back end keeps other processes away, if it has one.
//! 6. **One time limit**, [`RowStoreOptions::wait`], for the whole call: waiting in the queue, retries, and the server.
mod admin;
mod bytes;
mod known;
mod memory;
mod options;
mod poll;
mod pool;
mod retry;
mod row;
mod store;
mod user_sessions;
mod write;

pub use admin::{RowPage, Swept};
pub use bytes::{decode, encode};
#[cfg(feature = "sqlite")]
pub(crate) use bytes::{decode_moved, encode_moved, refused};
pub use memory::{MemoryRows, MemoryStore};
pub use options::RowStoreOptions;
pub use poll::Peeked;
pub use pool::Pool;
#[cfg(feature = "sqlite")]
pub(crate) use retry::jittered;
pub use row::{CutOffs, MovedRow, Row, Stored, Tags};
pub use store::RowStore;
pub use user_sessions::UserRows;

use crate::error::Result;
use crate::id::PublicId;
#[cfg(doc)]
use crate::record::Record;
use crate::store::{Durability, unsupported};
use crate::sync::Instant;
use std::sync::Arc;
use std::time::SystemTime;

/// The operations of a server that keeps sessions. [`RowStore`] makes a [`Store`](crate::Store) of them.
///
/// Each operation is done as a whole or not at all, and is seen by every operation that begins after it has returned,
/// in every process.
///
/// # Errors
///
/// Every operation returns before `until`, or soon after it. [`RowStore`] repeats an operation after these kinds, as
/// long as there is time:
///
/// * [`Busy`](crate::ErrorKind::Busy): a conflict on the server, or no connection is free. The operation was not done.
/// * [`Unavailable`](crate::ErrorKind::Unavailable): there is no connection to the server, so nothing was sent.
/// * [`Unanswered`](crate::ErrorKind::Unanswered): the operation was sent and no answer came. It may be done, now or
///   later.
///
/// Every other kind is returned to the caller, and says that the operation was not done.
pub trait Rows: Send + Sync {
    /// The time of the server's clock, as far as this process knows it. Every deadline is compared with it.
    fn now(&self) -> SystemTime;

    /// Reads the row of an id and, as of the same instant, the cut-offs of its user; `None` if there is none.
    ///
    /// # Errors
    ///
    /// See [`Rows`]. [`Corrupt`](crate::ErrorKind::Corrupt) if the row fails its checks.
    fn select(&self, id: &PublicId, until: Instant) -> Result<Option<Selected>>;

    /// Stores a new session, which begins now: with the cut-offs of its user at this instant. `None` if there is a row
    /// of this id.
    ///
    /// # Errors
    ///
    /// See [`Rows`].
    fn insert(&self, id: &PublicId, row: &Row, how: Durability, until: Instant) -> Result<Option<CutOffs>>;

    /// Stores a session of another store. As [`insert`](Self::insert), but the session does not begin now: it gets the
    /// cut-offs that were there at its [last login](Record::login), or at its creation if there was none. If the last
    /// cut-off of the user, or of all users, is not earlier than that, it gets one less than the present number, and so
    /// is not alive. Returns whether it was stored; not if there is a row of this id.
    ///
    /// An import that arrives once more after its session has ended would revive it, because it names no tag: a back
    /// end must not repeat one by itself.
    ///
    /// # Errors
    ///
    /// See [`Rows`].
    fn import(&self, id: &PublicId, row: &Row, how: Durability, until: Instant) -> Result<bool>;

    /// Replaces a row, if its newest tag is still [`Swap::seen`] and no cut-off has ended the session; otherwise
    /// returns `None` and does nothing. Returns the cut-offs of the new row.
    ///
    /// # Errors
    ///
    /// See [`Rows`].
    fn swap(&self, swap: &Swap<'_>, until: Instant) -> Result<Option<CutOffs>>;

    /// Removes the row of a session, and returns it; a removal is never lost in a crash. The row of a moved id stays,
    /// and is returned. The cut-offs are those of the same instant.
    ///
    /// # Errors
    ///
    /// See [`Rows`].
    fn remove(&self, id: &PublicId, until: Instant) -> Result<Option<Selected>>;

    /// Removes some rows that are over: expired sessions, sessions that a cut-off has ended, and moved ids whose grace
    /// period is over. At most `limit` rows; returns how many, and with `gives_sessions` also the sessions among them.
    /// If it removes fewer than `limit`, no more are there.
    ///
    /// # Errors
    ///
    /// See [`Rows`].
    fn sweep(&self, limit: usize, gives_sessions: bool, until: Instant) -> Result<Swept>;

    /// The number of cut-offs of all users and, if the digest of a user is given, of that user.
    ///
    /// # Errors
    ///
    /// See [`Rows`].
    fn cut_offs(&self, user: Option<&[u8; 16]>, until: Instant) -> Result<CutOffs>;

    /// Adds one to the number of cut-offs of a user (of all users if there is none), if these numbers are still those
    /// that were `seen`; in the same step makes the swap of the session that is excepted. Returns whether that was
    /// done. A cut-off is never lost in a crash.
    ///
    /// # Errors
    ///
    /// See [`Rows`].
    fn cut_off(&self, cut_off: &CutOff<'_>, until: Instant) -> Result<bool>;

    /// Reads about `limit` rows, from a place at which an earlier page has ended, or from the beginning. Each row that
    /// exists from the first page to the last is in one of them, at least. If the back end has an order of ids, the
    /// rows are in that order, and the place is the last id.
    ///
    /// # Errors
    ///
    /// See [`Rows`]. [`Value`](crate::ErrorKind::Value) if the place is not one of this back end's.
    fn scan(&self, from: Option<&str>, limit: usize, until: Instant) -> Result<RowPage>;

    /// The number of rows, those that are over and those of moved ids included.
    ///
    /// # Errors
    ///
    /// See [`Rows`].
    fn count(&self, until: Instant) -> Result<u64>;

    /// Reads the sessions of a user, by the user's digest, in the order of their ids: those after an id, and at most
    /// `limit`. If they are fewer, no more are there. By default [`Unsupported`](crate::ErrorKind::Unsupported), for a
    /// back end that keeps no lists.
    ///
    /// # Errors
    ///
    /// See [`Rows`].
    fn of_user(
        &self,
        user: &[u8; 16],
        after: Option<PublicId>,
        limit: usize,
        until: Instant,
    ) -> Result<UserRows> {
        let _ = (user, after, limit, until);
        Err(unsupported("list the sessions of a user"))
    }

    /// What tells whether rows have changed, without their records: for each of these ids, in their order. It is called
    /// every 0.8 s, with up to 500 ids, while a program waits for the ends of sessions. By default it selects them one
    /// by one.
    ///
    /// # Errors
    ///
    /// See [`Rows`].
    fn peek(&self, ids: &[PublicId], until: Instant) -> Result<Vec<Option<Peeked>>> {
        ids.iter().map(|id| Ok(self.select(id, until)?.as_ref().map(Peeked::of))).collect()
    }

    /// Waits for a lock on this id, which one process has at a time, until the returned value is dropped. It is
    /// advisory: every operation works without it. By default, and for a back end without such locks, `None`.
    ///
    /// # Errors
    ///
    /// See [`Rows`].
    fn lock(&self, id: &PublicId, until: Instant) -> Result<Option<Box<dyn Send + '_>>> {
        let _ = (id, until);
        Ok(None)
    }
}

/// A row as it was read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Selected {
    /// The row.
    pub stored: Stored,
    /// The cut-offs of the row's user, at the instant of the reading.
    pub cut_offs: CutOffs,
}

impl Selected {
    /// A row, and the cut-offs of its user at the same instant.
    ///
    /// ```
    /// use sessile::rows::{CutOffs, Row, Selected, Stored, Tags};
    /// let record = sessile::Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH);
    /// let row = Row::new(Tags::first(7), CutOffs::default(), record);
    /// let selected = Selected::new(Stored::Session(row), CutOffs::default());
    /// assert!(matches!(selected.stored, Stored::Session(_)));
    /// ```
    #[must_use]
    pub fn new(stored: Stored, cut_offs: CutOffs) -> Self {
        Self { stored, cut_offs }
    }
}

/// A replacement of one row by another.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Swap<'a> {
    /// The id of the row.
    pub id: &'a PublicId,
    /// The newest tag that the stored row must have.
    pub seen: u64,
    /// The new row.
    pub row: &'a Row,
    /// The new id of the session, if it gets one. There is no row of this id.
    pub to: Option<Move<'a>>,
    /// The failures that the new row survives. A move survives a crash at every durability.
    pub durability: Durability,
}

impl<'a> Swap<'a> {
    /// A replacement under the same id, as durable as the store is.
    ///
    /// ```
    /// use sessile::rows::{CutOffs, Row, Swap, Tags};
    /// use std::time::UNIX_EPOCH;
    /// let id = sessile::SessionId::random()?.public_id();
    /// let row = Row::new(Tags::first(7).followed_by(9), CutOffs::default(), sessile::Record::new(UNIX_EPOCH, UNIX_EPOCH));
    /// let swap = Swap::new(&id, 7, &row);
    /// assert!(swap.to.is_none());
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn new(id: &'a PublicId, seen: u64, row: &'a Row) -> Self {
        Self { id, seen, row, to: None, durability: Durability::OfStore }
    }
}

/// A new id of a session.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Move<'a> {
    /// The new id.
    pub successor: &'a PublicId,
    /// Whether a user logs in: the new row gets the cut-offs of its user at this instant, not those of [`Swap::row`].
    pub is_login: bool,
    /// The row that the old id gets; without one, the old row is removed.
    pub moved: Option<&'a MovedRow>,
}

impl<'a> Move<'a> {
    /// A mere rotation to this id, which leaves no row under the old one.
    ///
    /// ```
    /// let successor = sessile::SessionId::random()?.public_id();
    /// assert!(!sessile::rows::Move::new(&successor).is_login);
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn new(successor: &'a PublicId) -> Self {
        Self { successor, is_login: false, moved: None }
    }
}

/// A cut-off of a user, or of all users.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CutOff<'a> {
    /// The digest of the user; `None` for all users.
    pub user: Option<&'a [u8; 16]>,
    /// The numbers of cut-offs that were read before.
    pub seen: CutOffs,
    /// The swap of the session that stays.
    pub except: Option<Swap<'a>>,
}

impl<'a> CutOff<'a> {
    /// A cut-off that excepts no session.
    ///
    /// ```
    /// let of_all = sessile::rows::CutOff::new(None, sessile::rows::CutOffs::default());
    /// assert!(of_all.except.is_none());
    /// ```
    #[must_use]
    pub fn new(user: Option<&'a [u8; 16]>, seen: CutOffs) -> Self {
        Self { user, seen, except: None }
    }
}

/// Shared rows are rows: several stores of one process on the same back end.
impl<R: Rows + ?Sized> Rows for Arc<R> {
    fn now(&self) -> SystemTime {
        (**self).now()
    }
    fn select(&self, id: &PublicId, until: Instant) -> Result<Option<Selected>> {
        (**self).select(id, until)
    }
    fn insert(&self, id: &PublicId, row: &Row, how: Durability, until: Instant) -> Result<Option<CutOffs>> {
        (**self).insert(id, row, how, until)
    }
    fn import(&self, id: &PublicId, row: &Row, how: Durability, until: Instant) -> Result<bool> {
        (**self).import(id, row, how, until)
    }
    fn swap(&self, swap: &Swap<'_>, until: Instant) -> Result<Option<CutOffs>> {
        (**self).swap(swap, until)
    }
    fn remove(&self, id: &PublicId, until: Instant) -> Result<Option<Selected>> {
        (**self).remove(id, until)
    }
    fn sweep(&self, limit: usize, gives_sessions: bool, until: Instant) -> Result<Swept> {
        (**self).sweep(limit, gives_sessions, until)
    }
    fn cut_offs(&self, user: Option<&[u8; 16]>, until: Instant) -> Result<CutOffs> {
        (**self).cut_offs(user, until)
    }
    fn cut_off(&self, cut_off: &CutOff<'_>, until: Instant) -> Result<bool> {
        (**self).cut_off(cut_off, until)
    }
    fn scan(&self, from: Option<&str>, limit: usize, until: Instant) -> Result<RowPage> {
        (**self).scan(from, limit, until)
    }
    fn count(&self, until: Instant) -> Result<u64> {
        (**self).count(until)
    }
    fn of_user(
        &self,
        user: &[u8; 16],
        after: Option<PublicId>,
        limit: usize,
        until: Instant,
    ) -> Result<UserRows> {
        (**self).of_user(user, after, limit, until)
    }
    fn peek(&self, ids: &[PublicId], until: Instant) -> Result<Vec<Option<Peeked>>> {
        (**self).peek(ids, until)
    }
    fn lock(&self, id: &PublicId, until: Instant) -> Result<Option<Box<dyn Send + '_>>> {
        (**self).lock(id, until)
    }
}
