//! Counts of the calls of one open store.
use crate::error::Result;
use crate::store::EndedSession;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts of the calls of one open store since it was opened in this process. While other threads work, the numbers may
/// be from slightly different instants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Loads of well-formed tokens, also those that found no session.
    pub loads: u64,
    /// Loads that were answered from the memory of this process.
    pub hits: u64,
    /// Creations, imports, and updates and rotations of sessions that were there.
    pub saves: u64,
    /// Live sessions that were ended one by one, and calls that ended all sessions of a user or all of the store.
    pub ends: u64,
    /// Calls that returned an error.
    pub refused: u64,
    /// What sweeps have removed, as [`SweepReport::removed`](crate::SweepReport::removed) counts it; dry runs remove
    /// nothing.
    pub swept: u64,
    /// The counts that only a store of files has; zero for others.
    pub files: FileStats,
}

/// The part of [`Stats`] that only stores of files have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileStats {
    /// Loads of well-formed ids that read the session file, or found none.
    pub misses: u64,
    /// Misses for which the cache had a copy that could not be returned: the session was saved or ended since, or
    /// another one that shares its counter was, or the copy was a minute old or had expired.
    pub invalidations: u64,
    /// Copies that were evicted to stay within
    /// [`FileStoreOptions::cache_bytes`](crate::FileStoreOptions::cache_bytes).
    pub evictions: u64,
    /// Copies in the cache now.
    pub copies: usize,
    /// Bytes of memory that the cache takes, with its tables.
    pub copies_bytes: usize,
    /// Sessions that could not be inserted in the expiry index or in the user index (a full disk, say). A sweep finds
    /// them up to 256 hours later.
    pub index_failures: u64,
}

/// The counters behind [`Stats`], but for loads.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    saves: AtomicU64,
    ends: AtomicU64,
    refused: AtomicU64,
    swept: AtomicU64,
}

impl Tally {
    /// Counts a write, if the result tells that one was made.
    pub(crate) fn save<T>(&self, result: Result<T>, is_made: impl FnOnce(&T) -> bool) -> Result<T> {
        self.count(&self.saves, result, is_made)
    }

    /// Counts an end, if the result tells that a session was ended.
    pub(crate) fn end<T>(&self, result: Result<T>, is_ended: impl FnOnce(&T) -> bool) -> Result<T> {
        self.count(&self.ends, result, is_ended)
    }

    /// Counts the end of one session, if it was live until then.
    pub(crate) fn end_session(&self, result: Result<Option<EndedSession>>) -> Result<Option<EndedSession>> {
        self.end(result, |ended| ended.as_ref().is_some_and(EndedSession::was_live))
    }

    /// Adds to the count of what sweeps have removed, also those that fail later.
    pub(crate) fn add_swept(&self, removed: u64) {
        self.swept.fetch_add(removed, Relaxed);
    }

    /// Counts a call that has no count of its own, if it was refused.
    pub(crate) fn read<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.refused.fetch_add(1, Relaxed);
        }
        result
    }

    fn count<T>(&self, counter: &AtomicU64, result: Result<T>, counts: impl FnOnce(&T) -> bool) -> Result<T> {
        match &result {
            Ok(done) => drop(counter.fetch_add(u64::from(counts(done)), Relaxed)),
            Err(_) => drop(self.refused.fetch_add(1, Relaxed)),
        }
        result
    }

    /// The counts, without loads.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            saves: self.saves.load(Relaxed),
            ends: self.ends.load(Relaxed),
            refused: self.refused.load(Relaxed),
            swept: self.swept.load(Relaxed),
            ..Stats::default()
        }
    }
}
