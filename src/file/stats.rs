//! Statistics of one open store: cache hits and misses, evictions, memory, failed insertions into the expiry index.
use super::read_cache::ReadCache;
use std::sync::atomic::{AtomicU64, Ordering};

/// How the loads of one open store were answered, and the contents of its cache.
///
/// A snapshot: while other threads work, the numbers may be of slightly different instants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Loads answered by a copy in memory.
    pub hits: u64,
    /// Loads of well-formed ids that read the session's record from its file, or found none.
    pub misses: u64,
    /// Misses with a stale copy in the cache: the session was saved or ended since, or one that shares its counter was,
    /// or the copy had reached the age limit, or it had expired.
    pub invalidations: u64,
    /// Copies that were dropped to stay within [`cache_bytes`](super::FileStoreOptions::cache_bytes).
    pub evictions: u64,
    /// Copies in memory now.
    pub copies: usize,
    /// Memory that the cached sessions take, in bytes, with the cache's tables.
    pub copies_bytes: usize,
    /// Sessions that could not be inserted in the expiry index or in the user index (a full disk, say). A sweep finds
    /// them up to 256 hours later.
    pub index_failures: u64,
}

/// The counts of loads that read a file; the cache has the others.
#[derive(Debug, Default)]
pub(super) struct Tally {
    misses: AtomicU64,
    invalidations: AtomicU64,
}

impl Tally {
    /// Counts a load that read a session file, and whether there was a copy.
    pub(super) fn count_read(&self, had_copy: bool) {
        self.misses.fetch_add(1, Ordering::Relaxed);
        self.invalidations.fetch_add(u64::from(had_copy), Ordering::Relaxed);
    }

    pub(super) fn stats(&self, cache: Option<&ReadCache>) -> Stats {
        let counts = cache.map(ReadCache::counts).unwrap_or_default();
        Stats {
            hits: counts.trusted,
            misses: self.misses.load(Ordering::Relaxed),
            invalidations: self.invalidations.load(Ordering::Relaxed),
            evictions: counts.evicted,
            copies: counts.copies,
            copies_bytes: counts.bytes,
            index_failures: 0,
        }
    }
}
