//! The promises of every storage mode.
//!
//! A [`Store`] keeps records under tokens. The file engine is one; a database, a cache server and a sealed cookie are
//! others. The session layer above uses nothing else of a storage mode. So every rule that it relies on is written
//! here, and one test suite runs over every storage mode.
//!
//! # The promise
//!
//! 1. **One version.** [`load`](Store::load) returns one complete record that some call wrote, or says that there is
//!    none; after a call that wrote returned, that version or a newer one.
//! 2. **Creation never overwrites.** [`create`](Store::create) stores the record under a new, unused token.
//! 3. **Update is read-modify-write.** [`update`](Store::update) hands the change the newest record and writes the
//!    result, with no other write in between (where [`Guarantees::atomic_update`] says so). It never creates: on a
//!    token that is absent or expired it is `None`. A change that answers [`Verdict::Abort`] makes it `None` as well,
//!    with nothing written.
//! 4. **Rotation is one step.** [`rotate`](Store::rotate) is an update whose result lives under a new token. When it
//!    returns, the old token is dead; before that, the new one already exists. Of two rotations of one token, one
//!    succeeds. If the old one cannot be removed, the new one is, and the call is an error. For a [grace
//!    period](Rotation::grace) the store remembers that the old token is *moved*: see [`Absent::Moved`].
//! 5. **Gone is gone.** After [`delete`](Store::delete) returned `Ok`, no call finds the token alive again, whatever
//!    was in flight (where [`Guarantees::ends_every_copy`] says so).
//! 6. **Expired is absent.** A record whose deadline is reached, by the store's own clock, is absent for load, update
//!    and rotate. The deadline is all a store looks at; policy is the session's.
//! 7. **A failure is an error.** Only a token that is certainly not there is [`Absent`]; a failed read is an error.
//!    After an error the old version stands, unless the error's kind says otherwise.
//! 8. **No lock outlives its call.**
//! 9. **A moved token opens nothing.** [`load`](Store::load) and [`update`](Store::update) find no session under it.
//!    Only a logout and a login go on to the session that has its place: [`delete`](Store::delete) and a
//!    [login](Rotation::login) follow rotations to the last successor, within the grace period, at most [`HOPS_MAX`] of
//!    them. Neither follows a login. The token of a successor is never given out.
mod ended_session;
mod rotation;
mod user_sessions;

pub use ended_session::{EndReason, EndedSession};
pub use rotation::Rotation;
pub use user_sessions::{Page, UserSession, UserSessions};

use crate::error::{Error, ErrorKind, Result};
use crate::id::{PublicId, Token};
pub use crate::lifetime::GRACE_MAX;
use crate::lifetime::Lifetime;
use crate::record::Record;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Keeps sessions. See the [module](self) for the promises of an implementation.
pub trait Store: Send + Sync {
    /// The time of the store's clock. Every comparison with a time of this store's records uses it.
    fn now(&self) -> SystemTime;

    /// Whether a token has the form of this store's tokens. Does no I/O, and does not tell whether the store has the
    /// token.
    fn is_well_formed(&self, token: &Token) -> bool;

    /// Finds the record of `token`.
    ///
    /// # Errors
    ///
    /// The storage could not be read. An absent session is [`Lookup::Absent`], not an error.
    fn load(&self, token: &Token) -> Result<Lookup>;

    /// Stores `record` under a new token. The session begins now: of the [cut-offs](Self::delete_of), only later ones
    /// end it.
    ///
    /// # Errors
    ///
    /// Nothing was stored: no room, record too large, no random bits, or a failed storage.
    fn create(&self, record: &Record, how: Durability) -> Result<Saved>;

    /// Reads, changes and writes one record as one step; `None` if the record is absent or expired, or if the change
    /// returns [`Verdict::Abort`].
    ///
    /// # Errors
    ///
    /// The error of the change, or the storage failed; the old version stands.
    fn update(&self, token: &Token, change: Change<'_>, how: Durability) -> Result<Option<Saved>>;

    /// Updates a record, and moves the result to a new token, even if the change returns [`Verdict::Keep`]. The
    /// rotation of a moved token is `None`, except that a login follows rotations (promise 9).
    ///
    /// # Errors
    ///
    /// As for [`update`](Self::update). The old token still holds the old version, or (if that could be neither removed
    /// nor kept) is dead.
    fn rotate(&self, token: &Token, change: Change<'_>, how: &Rotation<'_>) -> Result<Option<Saved>>;

    /// Ends a session. If its token was moved by a rotation, ends the last successor (promise 9). Returns the public id
    /// of the live session that was ended: that of the successor, if one was ended. `None` if no live session was
    /// there.
    ///
    /// # Errors
    ///
    /// The session may still be alive; try again.
    fn delete(&self, token: &Token) -> Result<Option<PublicId>>;

    /// The same as [`delete`](Self::delete), for callers that act on the end: returns the session that was removed,
    /// with its last record. That is also a session that had expired or that a cut-off had ended, if this has removed
    /// what was left of it. By default calls `delete` and gives no record.
    ///
    /// # Errors
    ///
    /// Those of [`delete`](Self::delete).
    fn end(&self, token: &Token) -> Result<Option<EndedSession>> {
        Ok(self.delete(token)?.map(|id| EndedSession::live(id, None)))
    }

    /// The live session to which rotations *and logins* have moved a token, for a copy of its entries; its token is not
    /// given out. `None` if the token is not moved, or if its successor is not live. Follows at most [`HOPS_MAX`]
    /// successors, whether their grace periods are over or not. By default `None`, for a store that does not know the
    /// successors of its tokens.
    ///
    /// # Errors
    ///
    /// The storage could not be read.
    fn successor(&self, token: &Token) -> Result<Option<Live>> {
        let _ = token;
        Ok(None)
    }

    /// Ends every session of a user whose login had returned when this was called, in every process, wherever a copy of
    /// it is; a login that begins after this has returned is not affected. The session of `except` stays.
    ///
    /// The store is told of a login by [`create`](Self::create) and by [`Rotation::login`]. A user that the change of
    /// an update or of a mere rotation sets has not logged in: an earlier call of this function for that user ends the
    /// session.
    ///
    /// # Errors
    ///
    /// Nothing was ended after [`ErrorKind::Gone`] (`except` is not a live session of the user; perhaps another request
    /// has just given it a new id), [`ErrorKind::Value`] (the user is empty), [`ErrorKind::Unsupported`] (the store
    /// cannot do this) and [`ErrorKind::Busy`] (a lock was not free in time). After [`ErrorKind::DurabilityUnknown`]
    /// the sessions are ended, and a power cut may bring them back. Otherwise the storage failed, and the sessions may
    /// still be alive. Try again in each case but the first three.
    fn delete_of(&self, user: &str, except: Option<&Token>) -> Result<()> {
        let _ = (user, except);
        Err(unsupported("end the sessions of a user"))
    }

    /// Ends every session that was created before this was called, as [`delete_of`](Self::delete_of) does for one user.
    ///
    /// # Errors
    ///
    /// Those of [`delete_of`](Self::delete_of).
    fn delete_all(&self) -> Result<()> {
        Err(unsupported("end all sessions"))
    }

    /// A page of the live sessions of a user, ordered by their ids. Each is verified by its record: it was live, and
    /// this user's, when it was read. A session that begins or is rotated meanwhile may be missing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if the store keeps no such list. Otherwise the storage failed.
    fn sessions_of(&self, user: &str, page: &Page) -> Result<UserSessions> {
        let _ = (user, page);
        Err(unsupported("list the sessions of a user"))
    }

    /// Ends a session by the digest of its id, if it is a session of this user; rotations are followed as by
    /// [`delete`](Self::delete). Returns the public id of the live session that was ended, as `delete` does. `None` if
    /// no live session of the user was there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if the store cannot do this. Otherwise the session may still be alive; try again.
    fn delete_session_of(&self, user: &str, id: &PublicId) -> Result<Option<PublicId>> {
        let _ = (user, id);
        Err(unsupported("end a session of a user"))
    }

    /// The same as [`delete_session_of`](Self::delete_session_of), with the session that was ended and its last record.
    /// By default calls it and gives no record.
    ///
    /// # Errors
    ///
    /// Those of [`delete_session_of`](Self::delete_session_of).
    fn end_session_of(&self, user: &str, id: &PublicId) -> Result<Option<EndedSession>> {
        Ok(self.delete_session_of(user, id)?.map(|id| EndedSession::live(id, None)))
    }

    /// Whether sessions of this lifetime, under a cookie of this name, can be kept here. Asked when
    /// [`Sessions`](crate::Sessions) is made; by default they can.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] with the reason.
    fn accepts(&self, lifetime: &Lifetime, cookie_name: &str) -> Result<()> {
        let _ = (lifetime, cookie_name);
        Ok(())
    }

    /// The promises that not every storage mode can make.
    fn guarantees(&self) -> Guarantees;

    /// The durability that [`Durability::OfStore`] means in this store; by default [`Durability::Relaxed`]. If a
    /// request asks for more, its earlier saves are made power-safe by one more call.
    fn durability(&self) -> Durability {
        Durability::Relaxed
    }

    /// The largest record, in bytes; by default there is no limit. A value that alone exceeds the limit is refused when
    /// it is set, instead of when it is saved.
    fn record_bytes_max(&self) -> Option<usize> {
        None
    }
}

/// The number of successors of a moved token that a store follows, at most.
pub const HOPS_MAX: usize = 32;

#[cold]
pub(crate) fn unsupported(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, operation).with_reason("this kind of store cannot do it")
}

/// An `Arc` of a store is a store, so that a store can be shared.
impl<S: Store + ?Sized> Store for Arc<S> {
    fn now(&self) -> SystemTime {
        (**self).now()
    }
    fn is_well_formed(&self, token: &Token) -> bool {
        (**self).is_well_formed(token)
    }
    fn load(&self, token: &Token) -> Result<Lookup> {
        (**self).load(token)
    }
    fn create(&self, record: &Record, how: Durability) -> Result<Saved> {
        (**self).create(record, how)
    }
    fn update(&self, token: &Token, change: Change<'_>, how: Durability) -> Result<Option<Saved>> {
        (**self).update(token, change, how)
    }
    fn rotate(&self, token: &Token, change: Change<'_>, how: &Rotation<'_>) -> Result<Option<Saved>> {
        (**self).rotate(token, change, how)
    }
    fn delete(&self, token: &Token) -> Result<Option<PublicId>> {
        (**self).delete(token)
    }
    fn end(&self, token: &Token) -> Result<Option<EndedSession>> {
        (**self).end(token)
    }
    fn successor(&self, token: &Token) -> Result<Option<Live>> {
        (**self).successor(token)
    }
    fn delete_of(&self, user: &str, except: Option<&Token>) -> Result<()> {
        (**self).delete_of(user, except)
    }
    fn delete_all(&self) -> Result<()> {
        (**self).delete_all()
    }
    fn sessions_of(&self, user: &str, page: &Page) -> Result<UserSessions> {
        (**self).sessions_of(user, page)
    }
    fn delete_session_of(&self, user: &str, id: &PublicId) -> Result<Option<PublicId>> {
        (**self).delete_session_of(user, id)
    }
    fn end_session_of(&self, user: &str, id: &PublicId) -> Result<Option<EndedSession>> {
        (**self).end_session_of(user, id)
    }
    fn accepts(&self, lifetime: &Lifetime, cookie_name: &str) -> Result<()> {
        (**self).accepts(lifetime, cookie_name)
    }
    fn guarantees(&self) -> Guarantees {
        (**self).guarantees()
    }
    fn durability(&self) -> Durability {
        (**self).durability()
    }
    fn record_bytes_max(&self) -> Option<usize> {
        (**self).record_bytes_max()
    }
}

/// A change of a record. The store runs it on the newest record.
///
/// It may run several times, each time on a fresh copy, and also on a version that another process has replaced since;
/// the result is then dropped. So its result must depend on its argument alone. It must not call the store; the file
/// engine refuses a nested change of the same session with [`ErrorKind::Reentrant`]. If it returns an error or panics,
/// nothing is written.
pub type Change<'a> = &'a mut dyn FnMut(&mut Record) -> Result<Verdict>;

/// The result of a change: whether its record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The changed record is written.
    Write,
    /// The stored record stays as it is. A rotation still moves it.
    Keep,
    /// Nothing is written or moved: [`update`](Store::update) and [`rotate`](Store::rotate) return `Ok(None)`, as if
    /// the session were absent. For a record that the caller's policy does not accept any more.
    Abort,
}

/// The failures that a save survives once it has returned. At every level it survives the death of the process. The
/// levels differ in a power cut or a crash of the kernel: that of this machine for a store of files, that of the server
/// for a store on one (whose module says which failures of the server each level survives). A store in memory has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The durability that the store was opened with.
    #[default]
    OfStore,
    /// Handed to the kernel, which writes it to the disk later (Linux: within about 30 seconds). After a power cut the
    /// session is at this version, at an older one, or gone; it is never torn, never another session's, and never alive
    /// again after its destruction.
    Relaxed,
    /// On the disk: after a power cut the session is at this version or a newer one.
    ///
    /// Needs a journaling or copy-on-write file system (ext4 with its journal, xfs, btrfs) and a disk that does not lie
    /// about flushes.
    PowerSafe,
}

/// The result of looking up a token.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// The token was found, and its session is not expired.
    Live(Live),
    /// The token was not found.
    Absent(Absent),
}

/// The reason for which a token was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Absent {
    /// The token has not the form of this store's tokens.
    Malformed,
    /// No record is stored under the token.
    NotFound(PublicId),
    /// The record's deadline is reached.
    Expired(PublicId),
    /// The stored record fails its checks.
    Damaged(PublicId),
    /// A rotation or a login has given the session another token.
    Moved(Moved),
}

/// A token that a rotation or a login has replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moved {
    /// The digest of the replaced id, for logs.
    pub id: PublicId,
    /// Whether a login replaced it, and not a mere rotation.
    pub by_login: bool,
    /// The end of the grace period. A store may forget the token from then on.
    pub until: SystemTime,
}

impl Moved {
    /// A replaced token: the digest of its id, the end of its grace period, and whether a login has replaced it.
    ///
    /// ```
    /// let id = sessile::SessionId::random()?.public_id();
    /// assert!(!sessile::store::Moved::new(id, std::time::UNIX_EPOCH, false).by_login);
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn new(id: PublicId, until: SystemTime, by_login: bool) -> Self {
        Self { id, by_login, until }
    }

    /// Whether the grace period is not over. If the clock was set back by more than [`GRACE_MAX`], the period is over,
    /// so that it does not last until the clock has caught up.
    ///
    /// ```
    /// use sessile::store::{GRACE_MAX, Moved};
    /// use std::time::{Duration, UNIX_EPOCH};
    /// let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    /// let id = sessile::SessionId::random()?.public_id();
    /// let moved = Moved::new(id, now + Duration::from_secs(60), false);
    /// assert!(moved.is_within_grace(now) && !moved.is_within_grace(moved.until));
    /// assert!(!moved.is_within_grace(now - 2 * GRACE_MAX), "the clock was set back");
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn is_within_grace(&self, now: SystemTime) -> bool {
        is_within_grace(self.until, now)
    }
}

/// Whether a grace period that ends at `until` is not over; see [`Moved::is_within_grace`].
pub(crate) fn is_within_grace(until: SystemTime, now: SystemTime) -> bool {
    // The longest grace period, and the longest that the clock may have been set back meanwhile.
    until.duration_since(now).is_ok_and(|left| !left.is_zero() && left <= 2 * GRACE_MAX)
}

/// A stored record that was found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Live {
    /// The record; it shares its bytes with the store's cache, if there is one.
    pub record: Record,
    /// The digest of the session's id, for logs.
    pub id: PublicId,
}

impl Live {
    /// A record, and the digest of its session's id.
    ///
    /// ```
    /// use sessile::{Live, Record, SessionId};
    /// let id = SessionId::random()?.public_id();
    /// let live = Live::new(Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH), id);
    /// assert_eq!(live.id, id);
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn new(record: Record, id: PublicId) -> Self {
        Self { record, id }
    }
}

/// A record that was written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Saved {
    /// The token from now on; differs from the given token for rotations and for sealed cookies.
    pub token: Token,
    /// The record that is stored under the token now.
    pub live: Live,
}

impl Saved {
    /// A record that is stored under a token.
    ///
    /// ```
    /// use sessile::{Live, Record, Saved, SessionId};
    /// let session = SessionId::random()?;
    /// let live = Live::new(Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH), session.public_id());
    /// assert_eq!(Saved::new(session.to_token(), live).token, session.to_token());
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn new(token: Token, live: Live) -> Self {
        Self { token, live }
    }
}

/// The promises that not every storage mode can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guarantees {
    /// Concurrent updates of one session are made one after the other, so none is lost.
    pub atomic_update: bool,
    /// A load shows the newest version, whatever token of the session is brought. (A sealed cookie shows the version
    /// that it holds.)
    pub newest_only: bool,
    /// A deletion ends every copy of the session, in every process and in every browser.
    pub ends_every_copy: bool,
    /// How old the version may be that a load shows; zero if a load shows every save that had returned before it.
    pub stale_by: Duration,
}

impl Guarantees {
    /// All promises.
    ///
    /// ```
    /// use sessile::Guarantees;
    /// let mut of_a_cookie = Guarantees::all();
    /// of_a_cookie.atomic_update = false;
    /// of_a_cookie.newest_only = false;
    /// assert!(of_a_cookie.ends_every_copy && of_a_cookie.stale_by.is_zero());
    /// ```
    #[must_use]
    pub fn all() -> Self {
        Self { atomic_update: true, newest_only: true, ends_every_copy: true, stale_by: Duration::ZERO }
    }
}
