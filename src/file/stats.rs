//! Statistics of one open store: cache hits and misses, evictions, memory, failed insertions into the expiry index.
use super::read_cache::ReadCache;
use std::sync::atomic::{AtomicU64, Ordering};

/// The numbers of loads of one open store, and the contents of its cache. While other threads work, the numbers may be
/// from slightly different instants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Loads that were answered from the cache.
    pub hits: u64,
    /// Loads of well-formed ids that read the session file, or found none.
    pub misses: u64,
    /// Misses for which the cache had a copy that could not be returned: the session was saved or ended since, or
    /// another one that shares its counter was, or the copy was a minute old or had expired.
    pub invalidations: u64,
    /// Copies that were evicted to stay within [`cache_bytes`](super::FileStoreOptions::cache_bytes).
    pub evictions: u64,
    /// Copies in the cache now.
    pub copies: usize,
    /// Bytes of memory that the cache takes, with its tables.
    pub copies_bytes: usize,
    /// Sessions that could not be inserted in the expiry index or in the user index (a full disk, say). A sweep finds
    /// them up to 256 hours later.
    pub index_failures: u64,
}

/// The counts of loads that read a file. The other counts are in the cache.
#[derive(Debug, Default)]
pub(super) struct Tally {
    misses: AtomicU64,
    invalidations: AtomicU64,
}

impl Tally {
    /// Counts a load that read a session file. `had_copy` tells whether the cache had a copy that could not be
    /// returned.
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
