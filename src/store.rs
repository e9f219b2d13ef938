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
//!    succeeds. If the old one cannot be removed, the new one is, and the call is an error.
//! 5. **Gone is gone.** After [`delete`](Store::delete) returned `Ok`, no call finds the token alive again, whatever
//!    was in flight (where [`Guarantees::shared_state`] says so).
//! 6. **Expired is absent.** A record whose deadline is reached, by the store's own clock, is absent for load, update
//!    and rotate. The deadline is all a store looks at; policy is the session's.
//! 7. **A failure is an error.** Only a token that is certainly not there is [`Absent`]; a failed read is an error.
//!    After an error the old version stands, unless the error's kind says otherwise.
//! 8. **No lock outlives its call.**
use crate::error::Result;
use crate::id::{PublicId, Token};
use crate::record::Record;
use std::sync::Arc;
use std::time::SystemTime;

/// Keeps sessions. See the [module](self) for the promises of an implementation.
pub trait Store: Send + Sync {
    /// The time of the store's clock. Every comparison with a time of this store's records uses it.
    fn now(&self) -> SystemTime;

    /// Whether a token could be one of this store's, by its form alone: no I/O, and no promise that the store has it.
    fn is_well_formed(&self, token: &Token) -> bool;

    /// Finds the record of `token`.
    ///
    /// # Errors
    ///
    /// The storage could not be read. An absent session is [`Lookup::Absent`], not an error.
    fn load(&self, token: &Token) -> Result<Lookup>;

    /// Stores `record` under a new token.
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

    /// Updates a record, and moves the result to a new token, even if the change returns [`Verdict::Keep`].
    ///
    /// # Errors
    ///
    /// As for [`update`](Self::update). The old token still holds the old version, or (if that could be neither removed
    /// nor kept) is dead.
    fn rotate(&self, token: &Token, change: Change<'_>, how: Durability) -> Result<Option<Saved>>;

    /// Ends a session. Returns whether a live one was there.
    ///
    /// # Errors
    ///
    /// The session may still be alive; try again.
    fn delete(&self, token: &Token) -> Result<bool>;

    /// The promises that not every storage mode can make.
    fn guarantees(&self) -> Guarantees;

    /// The meaning of [`Durability::OfStore`] here; by default [`Durability::Relaxed`]. If a request asks for more, its
    /// earlier saves are made power-safe by one more call.
    fn durability(&self) -> Durability {
        Durability::Relaxed
    }

    /// The largest record, in bytes; by default there is no limit. A value that alone exceeds the limit is refused when
    /// it is set, instead of when it is saved.
    fn record_bytes_max(&self) -> Option<usize> {
        None
    }
}

/// A shared store is a store.
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
    fn rotate(&self, token: &Token, change: Change<'_>, how: Durability) -> Result<Option<Saved>> {
        (**self).rotate(token, change, how)
    }
    fn delete(&self, token: &Token) -> Result<bool> {
        (**self).delete(token)
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
/// It may run several times, each time on a fresh copy, so its result must depend on its argument alone. It must not
/// call the store; the file engine refuses a nested change of the same session with
/// [`ErrorKind::Reentrant`](crate::ErrorKind::Reentrant). If it returns an error or panics, nothing is written.
pub type Change<'a> = &'a mut dyn FnMut(&mut Record) -> Result<Verdict>;

/// The result of a change: whether its record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write the changed record.
    Write,
    /// Leave the stored record as it is. A rotation still moves it.
    Keep,
    /// Write and move nothing: [`update`](Store::update) and [`rotate`](Store::rotate) return `Ok(None)`, as if the
    /// session were absent. For a record that the caller's policy does not accept any more.
    Abort,
}

/// The failures that a save survives, once it has returned.
///
/// Every level survives the death of the process. They differ in a power cut or a crash of the kernel.
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
    /// Needs a journaling or copy-on-write file system (ext4 with its journal, xfs, btrfs) and a disk that does not
    /// lie about flushes.
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

/// The reason why a token was not found. A visitor gets a new session in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The token has not the form of this store's tokens.
    Malformed,
    /// No record is stored under the token.
    NotFound(PublicId),
    /// The record's deadline is reached.
    Expired(PublicId),
    /// The stored record fails its checks.
    Damaged(PublicId),
}

/// A record that was found.
#[derive(Clone, Debug)]
pub struct Live {
    /// The record; it shares its bytes with the store's cache, if there is one.
    pub record: Record,
    /// The digest of the session's id, for logs.
    pub id: PublicId,
}

/// A record that was written.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The token from now on; differs from the given token for rotations and for sealed cookies.
    pub token: Token,
    /// The record that is stored under the token now.
    pub live: Live,
}

/// The promises that not every storage mode can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarantees {
    /// Concurrent updates of one session are serialised, so none is lost.
    pub atomic_update: bool,
    /// A session has one state, on the server, so deleting it ends it everywhere.
    pub shared_state: bool,
}
