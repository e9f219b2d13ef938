//! Administration of any store: sweeps, operations by public id, a scan of all sessions, counts.
//!
//! [`Admin`] is a [`Store`] with the operations that operators and the [`Reaper`](crate::Reaper) need. Every storage
//! mode that can list its sessions implements it, so that the command `sessile`, a move from one mode to another and a
//! metrics page are written once.
//!
//! # Rules of an implementation
//!
//! 1. **A public id opens no session to a visitor.** It is the digest of the secret id; operators see it in logs.
//! 2. **A sweep removes only what no load finds any more.** It may be stopped or killed at any time.
//! 3. **A scan finds each session that exists from its beginning to its end**, at least once. A session that is
//!    created, removed or rotated meanwhile may be found or not.
//! 4. **An import keeps ends.** A session that a cut-off of this store has ended since its last login is not alive
//!    after the import.
mod pace;
mod scan;
mod stats;
mod sweep;

pub(crate) use pace::Pace;
pub use pace::SweepProgressFn;
pub use scan::{Cursor, ScanPage, Scanned, StateCounts};
pub(crate) use stats::Tally;
pub use stats::{FileStats, Stats};
#[cfg(all(feature = "rows", not(all(test, shuttle))))]
pub(crate) use sweep::Budget;
pub use sweep::{FilesSwept, SweepOptions, SweepOutcome, SweepPhase, SweepProgress, SweepReport};

use crate::error::Result;
use crate::id::PublicId;
use crate::record::Record;
use crate::store::{Deleted, Durability, Lookup, Store};
use std::ops::ControlFlow::Continue;
use std::sync::Arc;

/// A store that can be administered. See the [module](self) for the rules of an implementation.
///
/// ```
/// use sessile::{Admin, Clock, Record, Store, SweepOptions, rows::{MemoryRows, RowStoreOptions}};
/// use std::time::{Duration, UNIX_EPOCH};
/// let clock = Clock::manual(UNIX_EPOCH);
/// let store = RowStoreOptions::new().open(MemoryRows::new(clock.clone()))?;
/// let saved = store.create(&Record::new(store.now(), store.now() + Duration::from_secs(60)), Default::default())?;
/// assert_eq!(store.count()?, 1);
/// clock.advance(Duration::from_secs(61));
/// assert_eq!(store.sweep(&SweepOptions::new())?.removed, 1);
/// # let _ = saved;
/// # Ok::<(), sessile::Error>(())
/// ```
pub trait Admin: Store {
    /// Removes what is over: expired sessions, sessions that a cut-off has ended, moved ids whose grace period is over,
    /// and leftovers of interrupted operations. It may run at any time, while other threads and processes use the
    /// store.
    ///
    /// A live session is never removed, also if it is renewed during the sweep. Sweeps only free space: an expired
    /// session cannot be loaded, whether it was removed or not. A store of files reads each session that is due, and,
    /// once an hour, the sessions of one shard in 256.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for options out of bounds; errors of other kinds if the store
    /// cannot be reached or locked. A failure with one part of it is counted in the report, and the sweep goes on.
    fn sweep(&self, options: &SweepOptions) -> Result<SweepReport> {
        self.sweep_with(options, &mut |_| Continue(()))
    }

    /// The same as [`sweep`](Self::sweep), and calls `progress` 20 times a second, also while the sweep sleeps. If
    /// `progress` returns `Break`, the sweep stops within 0.2 s, unless a single call to the file system or to the
    /// server takes longer.
    ///
    /// # Errors
    ///
    /// As for [`sweep`](Self::sweep); [`ErrorKind::Panicked`](crate::ErrorKind::Panicked) if `progress` panics, which
    /// stops the sweep as `Break` does.
    fn sweep_with(&self, options: &SweepOptions, progress: SweepProgressFn<'_>) -> Result<SweepReport>;

    /// Loads a session by its public id, as [`load`](Store::load) does by its secret id; never from a cache.
    ///
    /// # Errors
    ///
    /// As for [`load`](Store::load).
    fn load_by_id(&self, id: &PublicId) -> Result<Lookup>;

    /// Deletes a session by its public id, as [`delete`](Store::delete) does by its secret id: at once, in every
    /// process that uses the store. If a rotation has moved the id, deletes the session under its present id. Returns
    /// the live session that was deleted, with its present id, not the given one. `None` if no live session was
    /// there.
    ///
    /// # Errors
    ///
    /// As for [`delete`](Store::delete).
    fn delete_by_id(&self, id: &PublicId) -> Result<Option<Deleted>>;

    /// Imports a session of another store under its public id, so that its secret id opens it here. Returns whether it
    /// was imported; `false` if a live session is in its place, which is left alone. An expired one is replaced, and
    /// one that a cut-off has ended. An id that was moved counts as a live session until its grace period is over,
    /// because its session lives under another id.
    ///
    /// Cut-offs of this store that are later than the session's last login (its creation, if there was none) end it: it
    /// is stored, and no load finds it.
    ///
    /// # Errors
    ///
    /// As for [`create`](Store::create). [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if a damaged record is in
    /// its place; [`FileStore::quarantine`](crate::FileStore::quarantine) makes room.
    /// [`ErrorKind::Busy`](crate::ErrorKind::Busy) if the session is locked for the whole wait limit, or if an earlier
    /// creation was interrupted: [`delete_by_id`](Self::delete_by_id) removes its leftover, or a sweep does after an
    /// hour. [`ErrorKind::InvalidationFailed`](crate::ErrorKind::InvalidationFailed) if the session is imported, and
    /// cache entries of an earlier session under the same id could not be invalidated.
    fn import(&self, id: &PublicId, record: &Record, how: Durability) -> Result<bool>;

    /// Reads about `limit` sessions (1 or more), from a cursor or from the beginning. The last page has no
    /// [`next`](ScanPage::next) cursor.
    ///
    /// # Errors
    ///
    /// The store cannot be reached, or the cursor is of another kind of store. A failure that concerns one session or
    /// one directory is in [`failures`](ScanPage::failures), and the scan goes on after it.
    ///
    /// ```
    /// use sessile::{Admin, admin::Scanned};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// let (mut live, mut from) = (0, None);
    /// loop {
    ///     let page = store.scan(from.as_ref(), 1000)?;
    ///     live += page.sessions.iter().filter(|found| matches!(found, Scanned::Live(_))).count();
    ///     from = page.next;
    ///     if from.is_none() {
    ///         break;
    ///     }
    /// }
    /// # assert_eq!(live, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn scan(&self, from: Option<&Cursor>, limit: usize) -> Result<ScanPage>;

    /// The number of stored sessions, expired ones and moved ids included, without reading their records.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    fn count(&self) -> Result<u64>;

    /// The number of sessions in each state. By default, reads every session.
    ///
    /// # Errors
    ///
    /// As for [`scan`](Self::scan).
    ///
    /// ```
    /// use sessile::Admin;
    /// # let dir = tempfile::tempdir()?;
    /// let store = sessile::FileStore::open(dir.path())?;
    /// assert_eq!(store.count_by_state()?.live, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn count_by_state(&self) -> Result<StateCounts> {
        let (mut counts, mut from) = (StateCounts::default(), None);
        loop {
            let page = self.scan(from.as_ref(), 1000)?;
            counts.count(&page);
            match page.next {
                Some(next) => from = Some(next),
                None => return Ok(counts),
            }
        }
    }

    /// Counts of the calls of this store since it was opened in this process.
    fn stats(&self) -> Stats;

    /// Whether the store can be used now, for a readiness probe: one short operation of the storage.
    ///
    /// # Errors
    ///
    /// The reason for which it cannot be used.
    ///
    /// ```
    /// use sessile::Admin;
    /// # let dir = tempfile::tempdir()?;
    /// let store = sessile::FileStore::open(dir.path())?;
    /// assert!(store.health().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn health(&self) -> Result<()>;

    /// Whether this process may use the store.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`](crate::ErrorKind::Forked) in a child of the process that opened it, for stores that do not
    /// survive a fork.
    fn check_process(&self) -> Result<()> {
        Ok(())
    }
}

/// An `Arc` of a store is a store, so that a store can be shared.
impl<S: Admin + ?Sized> Admin for Arc<S> {
    fn sweep(&self, options: &SweepOptions) -> Result<SweepReport> {
        (**self).sweep(options)
    }
    fn sweep_with(&self, options: &SweepOptions, progress: SweepProgressFn<'_>) -> Result<SweepReport> {
        (**self).sweep_with(options, progress)
    }
    fn load_by_id(&self, id: &PublicId) -> Result<Lookup> {
        (**self).load_by_id(id)
    }
    fn delete_by_id(&self, id: &PublicId) -> Result<Option<Deleted>> {
        (**self).delete_by_id(id)
    }
    fn import(&self, id: &PublicId, record: &Record, how: Durability) -> Result<bool> {
        (**self).import(id, record, how)
    }
    fn scan(&self, from: Option<&Cursor>, limit: usize) -> Result<ScanPage> {
        (**self).scan(from, limit)
    }
    fn count(&self) -> Result<u64> {
        (**self).count()
    }
    fn count_by_state(&self) -> Result<StateCounts> {
        (**self).count_by_state()
    }
    fn stats(&self) -> Stats {
        (**self).stats()
    }
    fn health(&self) -> Result<()> {
        (**self).health()
    }
    fn check_process(&self) -> Result<()> {
        (**self).check_process()
    }
}
