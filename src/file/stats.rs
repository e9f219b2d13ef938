//! The counts of the loads of one open store: cache hits and misses.
use super::read_cache::ReadCache;
use crate::admin::{FileStats, Stats};
use std::sync::atomic::{AtomicU64, Ordering};

/// The counts of loads that read a file. The other counts are in the cache.
#[derive(Debug, Default)]
pub(super) struct LoadTally {
    misses: AtomicU64,
    invalidations: AtomicU64,
}

impl LoadTally {
    /// Counts a load that read a session file. `had_copy` tells whether the cache had a copy that could not be
    /// returned.
    pub(super) fn count_read(&self, had_copy: bool) {
        self.misses.fetch_add(1, Ordering::Relaxed);
        self.invalidations.fetch_add(u64::from(had_copy), Ordering::Relaxed);
    }

    /// The counts of loads and of the cache; all other counts are 0.
    pub(super) fn stats(&self, cache: Option<&ReadCache>) -> Stats {
        let counts = cache.map(ReadCache::counts).unwrap_or_default();
        let (hits, misses) = (counts.trusted, self.misses.load(Ordering::Relaxed));
        let mut stats = Stats::default();
        (stats.loads, stats.hits) = (hits + misses, hits);
        stats.files = FileStats {
            misses,
            invalidations: self.invalidations.load(Ordering::Relaxed),
            evictions: counts.evicted,
            copies: counts.copies,
            copies_bytes: counts.bytes,
            ..FileStats::default()
        };
        stats
    }
}
