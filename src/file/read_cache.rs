//! Decoded records of sessions that were read or saved lately, bounded in bytes; never the authority.
//!
//! Knows nothing of files and of what counters say: whether an entry may be trusted is asked of the caller, under the lock of the
//! part that holds it. The counters to ask are kept there too: that lock is the one that each load from memory takes anyway, so
//! that they can be exchanged without another one. The promises are that memory stays within its limit, that entries which were
//! not used lately go first, and that an entry is not replaced by an older one that is no better.
//!
//! ```text
//! key          its hash chooses the part and the place in the index
//! part         lock, counters, sizes
//!   index      positions, 4 bytes a place, open addressing                         index.rs
//!   entries    key, stamp, times, public id, version, record: 128 bytes each       entry_array.rs
//! record       one block of memory, shared with the callers that loaded it
//! ```
//!
//! - A hit waits for memory twice: for the entry; then for the record and the session's counters, which are fetched side by side.
//!   The indexes of 50,000 sessions are 280 KB, which stay in the processor's cache.
//! - Least recently used goes first, approximated by CLOCK: one mark in each entry and no list. With a cache for a tenth of 50,000
//!   sessions, strict LRU answers 71.0 % of the loads from memory where popularity is Zipf's (0.99), CLOCK 71.9 %, SIEVE 76.6 % and
//!   S3-FIFO 76.5 %. Where visitors come, load a session eight times and leave, as on most sites, it is the reverse: 88.7 %, 88.7 %,
//!   76.2 % and 86.3 %; with half as large a cache 85.5 %, 84.8 %, 51.2 % and 77.7 %.
//! - Up to 256 parts, each with a lock of its own, so that threads seldom meet. A part has its share of the limit, about 64 KiB at
//!   least: with parts for a dozen sessions each, these 84.8 % are 76.3 %. A record larger than its part is not kept.
//! - The limit is exact. It covers records, entries, indexes and the parts themselves, as blocks of glibc's allocator, and one share
//!   more for the time in which an array or an index grows: parts do that one after the other. As they are small, no request waits
//!   for a large table to be moved.
//! - Keys are session ids. Only ids that were found alive are ever inserted, and those were drawn at random by us: a visitor cannot
//!   choose what lies at one place of a table, so a fast hash without a seed will do.
//! - What is replaced or evicted is dropped after the lock: freeing a large record takes longer than finding one.
mod entry_array;
mod index;
mod key;
mod part;

pub(super) use key::Key;

use super::generations::{Counters, Stamp};
use super::slot::Version;
use super::slots::Known;
use crate::clock::micros;
use crate::id::PublicId;
use crate::record::Record;
use crate::sync::Mutex;
use part::{Moving, Part};
use std::sync::Arc;

/// For tens of threads.
const PARTS_MAX: usize = 256;
/// A power of two, as the number of parts is.
const PART_BYTES_MIN: usize = 64 << 10;

/// One version of a session, and when it was the newest.
#[derive(Clone, Debug)]
pub(super) struct Cached {
    pub(super) record: Arc<Record>,
    /// The record's deadline, in microseconds since 1970: here, so that a hit need not look into the record.
    pub(super) deadline: u64,
    saves: u64,
    ends: u64,
    /// When the session's cell said that, by the store's clock, in microseconds since 1970.
    pub(super) read_at: u64,
    pub(super) version: Version,
    pub(super) id: PublicId,
    /// The number in the stamp, of three bytes: see [`stamp`](Self::stamp).
    counters: [u8; 3],
    /// Whether the entry was used since CLOCK's hand passed it. It is the part's, and lies here where a byte is free.
    is_used: bool,
}

/// Stands for all higher numbers of counters.
const COUNTERS_MAX: u64 = (1 << 24) - 1;

impl Cached {
    /// `stamp` is what the session's cell said before its file was opened, and `read_at` when that was.
    pub(super) fn new(
        record: Arc<Record>,
        id: PublicId,
        version: Version,
        stamp: Stamp,
        read_at: u64,
    ) -> Self {
        let Stamp { saves, ends, counters } = stamp;
        let [a, b, c, ..] = counters.min(COUNTERS_MAX).to_le_bytes();
        let counters = [a, b, c];
        let deadline = micros(record.deadline);
        Self { record, deadline, saves, ends, read_at, version, id, counters, is_used: false }
    }

    /// What the session's cell said. Counters get a number one higher each time another file of them is taken up. From the last one
    /// that three bytes hold, an entry's stamp equals none: nothing is trusted any more.
    #[inline]
    pub(super) fn stamp(&self) -> Stamp {
        let [a, b, c] = self.counters;
        let counters = match u64::from(u32::from_le_bytes([a, b, c, 0])) {
            COUNTERS_MAX => u64::MAX,
            counters => counters,
        };
        Stamp { saves: self.saves, ends: self.ends, counters }
    }

    /// What need not be verified again.
    pub(super) fn known(&self) -> Known<'_> {
        Known { version: self.version, record: &self.record }
    }

    /// Bytes of memory that the record takes.
    fn record_bytes(&self) -> usize {
        self.record.heap_size()
    }
}

/// A block of memory of so many bytes, as glibc's allocator makes it.
fn heap_block(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
}

/// What became of a look into the cache.
pub(super) enum Found {
    Trusted(Arc<Record>, PublicId),
    /// It may have been overtaken.
    Doubtful(Cached),
    Nothing,
}

/// The cache of one open store.
pub(super) struct ReadCache {
    parts: Box<[Locked]>,
    moving: Moving,
    bytes_max: usize,
}

/// Alone in its cache lines: a lock beside it that is taken by another thread would cost as much as a shared one.
#[repr(align(128))]
struct Locked(Mutex<Part>);

/// How much is in a cache, and how often it was of use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) trusted: u64,
    pub(super) evicted: u64,
    pub(super) copies: usize,
    pub(super) bytes: usize,
}

impl ReadCache {
    pub(super) fn new(bytes_max: usize, counters: &Arc<Counters>) -> Self {
        let parts: usize = 1 << (bytes_max / PART_BYTES_MIN).clamp(1, PARTS_MAX).ilog2();
        // One share more is for the part that grows.
        let part_bytes_max = (bytes_max / (parts + 1)).saturating_sub(size_of::<Locked>());
        let part = |_| Locked(Mutex::new(Part::new(part_bytes_max, Arc::clone(counters))));
        Self { parts: (0..parts).map(part).collect(), moving: Moving::default(), bytes_max }
    }

    /// From now on, entries are held against these counters.
    pub(super) fn heed(&self, counters: &Arc<Counters>) {
        for part in &self.parts {
            part.0.lock().counters = Arc::clone(counters);
        }
    }

    /// Looks a session up; its entry counts as used. `trust` says whether it may be returned.
    #[inline]
    pub(super) fn get(&self, key: &Key, trust: impl FnOnce(&Cached, &Counters) -> bool) -> Found {
        self.part(key).lock().get(key, trust)
    }

    /// The entry of a session, fresh or stale, for an operation that is about to read its file; it is not counted as used.
    pub(super) fn peek(&self, key: &Key) -> Option<Cached> {
        self.part(key).lock().peek(key)
    }

    /// Keeps an entry, unless a newer one is there that is trusted.
    pub(super) fn put(&self, key: &Key, cached: Cached, trust: impl FnOnce(&Cached, &Counters) -> bool) {
        let out = self.part(key).lock().put(key, cached, &self.moving, trust);
        drop(out);
    }

    /// Drops the entry of a session that is not alive any more, or of which it is not known.
    pub(super) fn forget(&self, key: &Key) {
        let out = self.part(key).lock().forget(key, &self.moving);
        drop(out);
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for part in &self.parts {
            let part = part.0.lock();
            counts.trusted += part.trusted;
            counts.evicted += part.evicted;
            counts.copies += part.len();
            counts.bytes += part.bytes();
        }
        counts
    }

    #[inline]
    fn part(&self, key: &Key) -> &Mutex<Part> {
        // Bits that neither the place in the index (higher) nor its tag (lower) depends on; the number of parts is a power of two.
        &self.parts[(key.hash() >> 40) as usize & (self.parts.len() - 1)].0
    }
}

impl std::fmt::Debug for ReadCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No keys: they are secrets. No counts: that would wait for locks, also for those of threads that do not exist here.
        f.debug_struct("ReadCache").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
