//! The cache: decoded records of sessions that were read or saved lately, in a bounded number of bytes. The session
//! files remain the authority.
//!
//! This module reads no files. The caller decides whether an entry may be returned, in a closure that runs under the
//! lock of the entry's segment. Each segment has a reference to the generation counters for that closure. So the
//! counters can be replaced under the locks that loads take anyway. Three promises: memory stays within its limit,
//! entries that were not used lately are evicted first, and an older entry never replaces a newer one that may be
//! returned.
//!
//! ```text
//! key          its hash selects the segment and the place in the index
//! segment      lock, counters, sizes
//!   index      positions, 4 bytes a place, open addressing                         index.rs
//!   entries    key, stamp, times, public id, version, record: 128 bytes each       entry_array.rs
//! record       one block of memory, shared with the callers that loaded it
//! ```
//!
//! - A hit waits for main memory twice: for the entry, and then for the record and the session's counters, which are
//!   fetched at the same time. The indexes of 50,000 sessions take 280 KB, which stay in the processor's cache.
//! - Eviction approximates least recently used by CLOCK: one flag in each entry, and no list. Hit ratios in a
//!   simulation of 50,000 sessions:
//!
//!   | load | LRU | CLOCK | SIEVE | S3-FIFO |
//!   |---|--:|--:|--:|--:|
//!   | popularity by Zipf (0.99), cache for a tenth | 71.0 % | 71.9 % | 76.6 % | 76.5 % |
//!   | visitors come, load 8 times and leave | 88.7 % | 88.7 % | 76.2 % | 86.3 % |
//!   | the same, with half as large a cache | 85.5 % | 84.8 % | 51.2 % | 77.7 % |
//!
//! - There are up to 256 segments, each with a lock of its own, so that threads seldom wait for each other. Each
//!   segment gets an equal share of the limit, at least 64 KiB: segments that hold only a dozen sessions lower the last
//!   of CLOCK's figures from 84.8 % to 76.3 %. A record larger than its segment is not kept.
//! - The limit is exact. It covers records, entries, indexes and the segments themselves, in block sizes of glibc's
//!   allocator. The memory of one more segment is reserved for an index or array that is copied while it grows; only
//!   one segment grows at a time. Segments are small, so no request waits for a large table to be copied.
//! - Keys are session ids. Only ids of existing sessions are inserted, and this library drew those at random. A visitor
//!   therefore cannot choose keys that collide, and a fast hash without a seed is safe.
//! - A replaced or evicted record is dropped after the lock is released, because freeing a large record takes longer
//!   than finding one.
mod entry_array;
mod index;
mod key;
mod segment;

pub(super) use key::Key;

use super::cut_offs::View;
use super::generations::{Counters, Stamp};
use super::slot::Version;
use super::slots::Known;
use crate::id::PublicId;
use crate::record::Record;
use crate::sync::Mutex;
use segment::{Moving, Segment};
use std::sync::Arc;

/// The largest number of segments: enough for tens of threads.
const SEGMENTS_MAX: usize = 256;
/// The cache has one segment for each so many bytes of its limit, rounded down to a power of two. One more share is
/// reserved for growth, so a segment gets at least about half of this.
const BYTES_PER_SEGMENT: usize = 128 << 10;

/// One version of a session, and the stamp that shows whether it is still the newest.
#[derive(Clone, Debug)]
pub(super) struct Cached {
    pub(super) record: Record,
    /// The deadline that the record has, in microseconds since 1970. It is copied here so that a hit need not read the
    /// record.
    pub(super) deadline: u64,
    saves: u64,
    ends: u64,
    /// The time at which the stamp was taken, by the store's clock, in microseconds since 1970.
    pub(super) read_at: u64,
    pub(super) version: Version,
    pub(super) id: PublicId,
    marks: Marks,
}

/// Two flags and a view of the cut-offs, packed into four bytes, so that an entry takes 128 bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Marks(u32);

impl Marks {
    /// Whether the entry was used since CLOCK's hand last passed it.
    const USED: u32 = 1 << 31;
    /// Whether the stamp was read from the counters that the segment has now.
    const OF_COUNTERS: u32 = 1 << 30;
    const FLAGS: u32 = Self::USED | Self::OF_COUNTERS;
    const _FIT: () = assert!(Self::OF_COUNTERS == 1 << View::BITS);

    fn set(&mut self, flag: u32, yes: bool) {
        self.0 = if yes { self.0 | flag } else { self.0 & !flag };
    }
}

/// A version that is to be put into the cache, with the number of the counters of its stamp. An entry has no room for
/// that number, so the segment compares it with the number of its own counters, and stores the result as a flag.
#[derive(Clone, Debug)]
pub(super) struct Fresh {
    cached: Cached,
    counters: u64,
}

impl Fresh {
    /// `stamp` was read from the counters before the session file was opened, at the time `read_at`. The version was
    /// not yet compared with the log of cut-offs.
    pub(super) fn new(record: Record, id: PublicId, version: Version, stamp: Stamp, read_at: u64) -> Self {
        let Stamp { saves, ends, counters } = stamp;
        let deadline = record.deadline_micros();
        let marks = Marks::default();
        Self { cached: Cached { record, deadline, saves, ends, read_at, version, id, marks }, counters }
    }

    /// The same version, after it was compared with the cut-offs up to `view`.
    pub(super) fn checked(mut self, view: View) -> Self {
        self.cached.set_view(view);
        self
    }
}

impl Cached {
    /// The stamp of this version. `counters` is the number of the segment's counters; it belongs to this stamp only if
    /// [`is_of_counters`](Self::is_of_counters).
    #[inline]
    pub(super) fn stamp(&self, counters: u64) -> Stamp {
        Stamp { saves: self.saves, ends: self.ends, counters }
    }

    /// Whether the stamp was read from the counters that the segment has now. If not, the store has switched to another
    /// generations file since.
    #[inline]
    pub(super) fn is_of_counters(&self) -> bool {
        self.marks.0 & Marks::OF_COUNTERS != 0
    }

    /// The state of the log of cut-offs with which the version was last compared.
    #[inline]
    pub(super) fn view(&self) -> View {
        View::from_bits(self.marks.0 & !Marks::FLAGS)
    }

    fn set_view(&mut self, view: View) {
        self.marks = Marks(self.marks.0 & Marks::FLAGS | view.to_bits());
    }

    fn is_used(&self) -> bool {
        self.marks.0 & Marks::USED != 0
    }

    /// The version, for a reader of the session file: if the file still has it, its checksum need not be verified
    /// again.
    pub(super) fn known(&self) -> Known<'_> {
        Known { version: self.version, record: &self.record }
    }

    /// The bytes of memory that the record takes.
    fn record_bytes(&self) -> usize {
        heap_block(self.record.allocated_bytes())
    }
}

/// The size of the block that glibc's allocator takes from the heap for an allocation of `bytes`.
fn heap_block(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
}

/// The answer of the caller's closure to the question whether an entry may be returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    Yes,
    /// The entry has the newest version, but was not yet compared with the last cut-offs.
    CutOffsUnchecked,
    No,
}

/// The result of a lookup in the cache.
pub(super) enum Found {
    Trusted(Record, PublicId),
    /// The entry is the newest version, but was not yet compared with the last cut-offs.
    CutOffsUnchecked(Cached),
    /// The entry may be stale, so the session file must be read.
    Unverified(Cached),
    Nothing,
}

/// The cache of one open store.
pub(super) struct ReadCache {
    segments: Box<[Locked]>,
    moving: Moving,
    bytes_max: usize,
}

/// A segment with its lock, aligned so that no two locks share a cache line. If they did, threads that take different
/// locks would slow each other down as if they took the same one.
#[repr(align(128))]
struct Locked(Mutex<Segment>);

/// The size of a cache, and counts of hits and evictions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) trusted: u64,
    pub(super) evicted: u64,
    pub(super) copies: usize,
    pub(super) bytes: usize,
}

impl ReadCache {
    pub(super) fn new(bytes_max: usize, counters: &Arc<Counters>) -> Self {
        let segments: usize = 1 << (bytes_max / BYTES_PER_SEGMENT).clamp(1, SEGMENTS_MAX).ilog2();
        // One share of the limit is reserved for the segment that is growing.
        let segment_bytes_max = (bytes_max / (segments + 1)).saturating_sub(size_of::<Locked>());
        let segment = |_| Locked(Mutex::new(Segment::new(segment_bytes_max, Arc::clone(counters))));
        Self { segments: (0..segments).map(segment).collect(), moving: Moving::default(), bytes_max }
    }

    /// Replaces the counters with which the stamps of entries are compared.
    pub(super) fn set_counters(&self, counters: &Arc<Counters>) {
        for segment in &self.segments {
            segment.0.lock().set_counters(counters);
        }
    }

    /// Looks a session up, and marks its entry as used. `trust` decides whether the entry may be returned.
    #[inline]
    pub(super) fn get(&self, key: &Key, trust: impl FnOnce(&Cached, &Counters) -> Trust) -> Found {
        self.segment(key).lock().get(key, trust)
    }

    /// The entry of a session, fresh or stale, for an operation that is about to read the session file. It is not
    /// marked as used.
    pub(super) fn peek(&self, key: &Key) -> Option<Cached> {
        self.segment(key).lock().peek(key)
    }

    /// Notes that the version `checked` was compared with the cut-offs up to `view`, if the entry still has that
    /// version.
    pub(super) fn mark_checked(&self, key: &Key, checked: &Cached, view: View) {
        self.segment(key).lock().mark_checked(key, checked, view);
    }

    /// Puts an entry in, unless the cache has a newer one that may be returned.
    pub(super) fn put(&self, key: &Key, fresh: Fresh, trust: impl FnOnce(&Cached, &Counters) -> Trust) {
        let removed = self.segment(key).lock().put(key, fresh, &self.moving, trust);
        drop(removed);
    }

    /// Removes the entry of a session.
    pub(super) fn forget(&self, key: &Key) {
        let out = self.segment(key).lock().forget(key, &self.moving);
        drop(out);
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for segment in &self.segments {
            let segment = segment.0.lock();
            counts.trusted += segment.trusted;
            counts.evicted += segment.evicted;
            counts.copies += segment.len();
            counts.bytes += segment.bytes();
        }
        counts
    }

    #[inline]
    fn segment(&self, key: &Key) -> &Mutex<Segment> {
        // These bits of the hash select neither the place in the index (which uses higher bits) nor the tag (lower
        // bits). The number of segments is a power of two.
        &self.segments[(key.hash() >> 40) as usize & (self.segments.len() - 1)].0
    }
}

impl std::fmt::Debug for ReadCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Prints no keys, because they are secrets; and no counts, because reading them would wait for locks, which in
        // a forked child may be held by threads that do not exist there.
        f.debug_struct("ReadCache").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::index::POSITIONS_MAX;
    use super::*;
    use crate::clock::Clock;
    use crate::file::disk::Root;
    use crate::file::generations::Generations;
    use crate::file::slot::{self, State};
    use crate::id::SessionId;
    use crate::value::Value;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::{LazyLock, mpsc};
    use std::time::{Duration, UNIX_EPOCH};

    fn counters() -> Arc<Counters> {
        Generations::own().unwrap().counters()
    }

    /// Versions with the sequences 0 to 7.
    static VERSIONS: LazyLock<[Version; 8]> = LazyLock::new(|| {
        let record = Record::new(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(1));
        std::array::from_fn(|sequence| {
            let (id, sequence) = (PublicId::digest(b""), sequence as u64);
            let header = slot::Header { id: &id, sequence, state: State::WRITTEN, slot_size_min: 0 };
            slot::encode(&record, &header, 1 << 20).unwrap().version()
        })
    });

    fn trust(yes: bool) -> Trust {
        if yes { Trust::Yes } else { Trust::No }
    }

    /// A version with this sequence number, whose record has a text of this many bytes.
    fn cached(sequence: usize, text_bytes: usize) -> Fresh {
        let mut record = Record::new(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(1));
        record.insert("text", &Value::new(&"x".repeat(text_bytes)).unwrap()).unwrap();
        let id = PublicId::from_bytes([0; PublicId::LEN]);
        Fresh::new(record, id, VERSIONS[sequence], Stamp::default(), 0)
    }

    fn record_bytes(text_bytes: usize) -> usize {
        cached(1, text_bytes).cached.record_bytes()
    }

    fn key(n: usize) -> Key {
        // The hashes of the keys are spread as those of random ids.
        static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
            let bytes = |n: usize| *PublicId::digest(&n.to_le_bytes()).as_bytes();
            let letter = |byte: u8| char::from(b'a' + byte % 26);
            let text =
                |n| bytes(n).into_iter().chain(bytes(n + 4000)).take(32).map(letter).collect::<String>();
            (0..4000).map(|n| Key::of(&SessionId::parse(&text(n)).unwrap())).collect()
        });
        KEYS[n]
    }

    /// A segment, and the lock for moving its memory.
    struct One {
        segment: Segment,
        moving: Moving,
    }

    impl One {
        fn of(bytes_max: usize) -> Self {
            Self { segment: Segment::new(bytes_max, counters()), moving: Moving::default() }
        }
        /// A segment whose limit is exactly the size of this many entries with texts of this length.
        fn with_room_for(entries: usize, text_bytes: usize) -> Self {
            let mut large = Self::of(usize::MAX / 2);
            (0..entries).for_each(|n| large.put(n, 1, text_bytes));
            Self::of(large.segment.bytes())
        }
        fn put(&mut self, n: usize, sequence: usize, text_bytes: usize) {
            drop(self.segment.put(&key(n), cached(sequence, text_bytes), &self.moving, |_, _| Trust::Yes));
        }
        fn load(&mut self, n: usize, trusted: bool) -> Found {
            self.segment.get(&key(n), |_, _| trust(trusted))
        }
        fn forget(&mut self, n: usize) -> bool {
            self.segment.forget(&key(n), &self.moving).is_some()
        }
        fn sequence(&self, n: usize) -> Option<u64> {
            self.segment.peek(&key(n)).map(|cached| cached.version.sequence)
        }
        /// Which of the first entries are still in the segment.
        fn present<const N: usize>(&self) -> [bool; N] {
            std::array::from_fn(|n| self.sequence(n).is_some())
        }
    }

    #[test]
    fn an_entry_that_was_used_outlives_one_that_was_not() {
        let mut one = One::with_room_for(3, 100);
        (0..3).for_each(|n| one.put(n, 1, 100));
        assert_eq!(one.present(), [true, true, true, false, false, false]);
        // A load marks the entry as used, whether the entry may be returned or not; a save does so, too. A peek does
        // not.
        assert!(matches!(one.load(0, true), Found::Trusted(..)));
        assert!(one.segment.peek(&key(1)).is_some());
        one.put(3, 1, 100);
        assert_eq!(one.present(), [true, false, true, true, false, false]);
        assert!(matches!(one.load(2, false), Found::Unverified(_)));
        one.put(4, 1, 100);
        assert_eq!(one.present(), [false, false, true, true, true, false], "the hand has passed 0 once");
        one.put(3, 2, 100);
        one.put(5, 1, 100);
        assert_eq!(
            one.present(),
            [false, false, false, true, true, true],
            "the hand has passed 2 since it was used"
        );
        assert!(matches!(one.load(0, true), Found::Nothing));
        assert_eq!((one.segment.evicted, one.segment.len(), one.segment.trusted), (3, 3, 1));
    }

    /// A segment whose array has shrunk has room for a record that is larger than the largest one that it accepts.
    #[test]
    fn an_older_version_too_large_to_keep_replaces_no_newer_one() {
        let mut one = One::of(20_000);
        (0..12).for_each(|n| one.put(n, 5, 10));
        (1..12).for_each(|n| _ = one.forget(n));
        let max = one.segment.record_bytes_max();
        let text_bytes = (max - 400..max + 400).find(|bytes| record_bytes(*bytes) > max).unwrap();
        one.put(0, 3, text_bytes);
        assert_ne!(one.sequence(0), Some(3));
    }

    #[test]
    fn a_save_that_evicts_others_counts_as_a_use() {
        let mut one = One::with_room_for(4, 100);
        (0..4).for_each(|n| one.put(n, 1, 100));
        one.put(0, 2, 200);
        assert_eq!((one.segment.evicted, one.segment.len()), (1, 3));
        (4..7).for_each(|n| one.put(n, 1, 100));
        assert_eq!((one.sequence(0), one.sequence(4)), (Some(2), None));
    }

    #[test]
    fn entries_that_are_not_used_go_in_the_order_they_came() {
        let mut one = One::with_room_for(20, 100);
        (0..20).for_each(|n| one.put(n, 1, 100));
        for n in 20..70 {
            one.put(n, 1, 100);
            assert_eq!((one.sequence(n - 20), one.sequence(n - 19)), (None, Some(1)), "{n}");
        }
        // All entries are marked as used. So the hand goes round once and clears the marks, and then the oldest entry
        // is evicted.
        (50..70).for_each(|n| drop(one.load(n, true)));
        one.put(70, 1, 100);
        assert_eq!((one.sequence(50), one.sequence(51)), (None, Some(1)));
    }

    #[test]
    fn eviction_makes_room_for_one_entry_and_no_more() {
        let large = 5 * record_bytes(100);
        let mut one = One::with_room_for(30, 100);
        (0..30).for_each(|n| one.put(n, 1, 100));
        assert_eq!(one.segment.evicted, 0);
        let limit = one.segment.bytes();
        one.put(30, 1, large);
        assert_eq!(one.segment.len() as u64, 31 - one.segment.evicted);
        assert!(
            one.segment.bytes() <= limit && one.segment.bytes() + record_bytes(100) > limit,
            "{}",
            one.segment.bytes()
        );
        assert!(
            (0..usize::try_from(one.segment.evicted).unwrap()).all(|n| one.sequence(n).is_none()),
            "the oldest have gone"
        );
        assert_eq!(one.sequence(30), Some(1));
    }

    #[test]
    fn an_entry_larger_than_its_part_is_not_cached() {
        for (short_by, want) in [(0, Some(2)), (1, None)] {
            let mut one = One::with_room_for(1, 1000);
            one.segment = Segment::new(one.segment.bytes_max() - short_by, counters());
            one.put(1, 1, 10);
            one.put(2, 1, 10);
            one.put(1, 2, 1000);
            assert_eq!(one.sequence(1), want, "{short_by} bytes short");
            assert_eq!(one.sequence(2).is_some(), want.is_none(), "nothing makes room in vain");
            assert_eq!(one.segment.evicted, u64::from(want.is_some()));
        }
    }

    #[test]
    fn memory_that_is_not_in_use_any_more_is_given_back() {
        let many = if cfg!(miri) { 100 } else { 1000 };
        let mut one = One::with_room_for(many, 10);
        (0..many).for_each(|n| one.put(n, 1, 10));
        let overhead = |one: &One| one.segment.bytes() - one.segment.records_bytes();
        let full = overhead(&one);
        // Each of the large entries takes as much memory as a tenth of the small ones.
        let text_bytes = one.segment.bytes() / 11;
        (many..many + 60).for_each(|n| one.put(n, 1, text_bytes));
        assert!((8..=11).contains(&one.segment.len()), "{} large ones", one.segment.len());
        assert!(overhead(&one) < full / 8, "{} of {full}", overhead(&one));
        (0..many + 60).for_each(|n| _ = one.forget(n));
        assert_eq!((one.segment.len(), one.segment.bytes()), (0, 0));
    }

    /// The payload is the memory of the records, with the allocator's overhead. A record of 200 bytes is that of a
    /// session with one number.
    #[test]
    fn a_cached_session_takes_at_most_its_payload_and_a_fifth_and_128() {
        let mut large = One::of(usize::MAX / 2);
        for entries in 1..=(if cfg!(miri) { 100 } else { 3000 }) {
            large.put(entries, 1, 10);
            let (bytes, payload) = (large.segment.bytes(), large.segment.records_bytes());
            let least = 200 * entries;
            let allowed = payload + least / 5 + 128 * entries;
            assert!(
                entries < 32 || bytes <= allowed,
                "{entries} entries: {bytes} bytes, where {allowed} are allowed"
            );
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "too many for Miri")]
    fn a_part_has_no_more_entries_than_its_index_can_number() {
        let mut one = One::of(usize::MAX / 2);
        (0..=POSITIONS_MAX).for_each(|n| one.put(n, 1, 0));
        assert_eq!((one.segment.len(), one.segment.evicted), (POSITIONS_MAX, 1));
        assert_eq!((one.sequence(0), one.sequence(POSITIONS_MAX)), (None, Some(1)));
    }

    #[test]
    fn the_limit_holds_for_all_parts_and_one_that_grows() {
        for bytes_max in [0, 1, 1000, 65_536, 1 << 17, 1 << 20, 3 << 20, 32 << 20, 1 << 30, usize::MAX] {
            let cache = ReadCache::new(bytes_max, &counters());
            let segments = cache.segments.len();
            assert!(segments.is_power_of_two() && segments <= 256);
            let segment = cache.segments[0].0.lock().bytes_max();
            let of_segments = segments * (segment + size_of::<Locked>());
            // A segment takes some memory itself, even if the limit leaves no room for an entry.
            assert!(
                segment == 0 || of_segments + segment <= bytes_max,
                "{bytes_max}: {segments} segments of {segment}"
            );
            assert!(bytes_max < 1 << 20 || segment >= BYTES_PER_SEGMENT / 2);
            assert!(
                segment == 0 || bytes_max - of_segments - segment < 1024,
                "{bytes_max}: much is not used"
            );
        }
    }

    #[test]
    fn a_cache_without_room_keeps_nothing() {
        for bytes_max in [0, 1, 100, 1000] {
            let cache = ReadCache::new(bytes_max, &counters());
            cache.put(&key(1), cached(1, 0), |_, _| Trust::Yes);
            assert_eq!(cache.counts(), Counts::default(), "{bytes_max} bytes");
        }
    }

    #[test]
    fn the_cache_adds_up_its_parts() {
        let sessions = if cfg!(miri) { 30 } else { 2000 };
        let cache = ReadCache::new(64 << 20, &counters());
        (0..sessions).for_each(|n| cache.put(&key(n), cached(1, 10), |_, _| Trust::Yes));
        let segments = || cache.segments.iter().map(|segment| segment.0.lock());
        let counts = cache.counts();
        assert_eq!((counts.copies, counts.evicted, counts.trusted), (sessions, 0, 0));
        assert_eq!(counts.bytes, segments().map(|segment| segment.bytes()).sum::<usize>());
        let longest = segments().map(|segment| segment.len()).max().unwrap();
        assert!(cfg!(miri) || longest < 40, "{longest} of {sessions} sessions are in one segment of 256");
        for n in 0..sessions {
            assert!(matches!(
                cache.get(&key(n), |_, _| trust(n % 2 == 0)),
                Found::Trusted(..) | Found::Unverified(_)
            ));
        }
        assert_eq!(cache.counts().trusted, sessions as u64 / 2);
        (0..sessions + 5).for_each(|n| cache.forget(&key(n)));
        assert_eq!(cache.counts(), Counts { trusted: sessions as u64 / 2, ..Counts::default() });
    }

    #[test]
    fn an_older_version_replaces_a_stale_entry_only() {
        #[track_caller]
        fn check(there: usize, comes: usize, trusted: bool, want: usize) {
            let mut one = One::of(1 << 20);
            one.put(1, there, 10);
            drop(one.segment.put(&key(1), cached(comes, 20), &one.moving, |asked, _| {
                assert_eq!(asked.version.sequence, there as u64);
                trust(trusted)
            }));
            assert_eq!(one.sequence(1), Some(want as u64), "{comes} onto {there}, trusted: {trusted}");
            let text_bytes = if want == comes { 20 } else { 10 };
            assert_eq!((one.segment.records_bytes(), one.segment.len()), (record_bytes(text_bytes), 1));
        }
        check(5, 4, true, 5);
        check(5, 4, false, 4);
        check(5, 6, true, 6);
        check(5, 6, false, 6);
        // The same version, read at a later time.
        let mut one = One::of(1 << 20);
        one.put(1, 5, 10);
        let mut later = cached(5, 10);
        later.cached.read_at = 9;
        drop(one.segment.put(&key(1), later, &one.moving, |_, _| Trust::Yes));
        assert_eq!(one.segment.peek(&key(1)).unwrap().read_at, 9);
    }

    #[test]
    fn an_entry_is_of_the_parts_counters_until_others_are_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let generations = Generations::open(&root, false, Clock::manual(UNIX_EPOCH).now_coarse()).unwrap();
        let cache = ReadCache::new(1 << 20, &generations.counters());
        let of_counters = || cache.peek(&key(1)).unwrap().is_of_counters();
        let put = |counters| cache.put(&key(1), Fresh { counters, ..cached(1, 10) }, |_, _| Trust::No);
        for (counters, want) in [(0, true), (1, false), (1 << 32, false), (u64::MAX, false), (0, true)] {
            put(counters);
            assert_eq!(of_counters(), want, "{counters}");
        }
        std::fs::remove_dir_all(dir.path().join("run")).unwrap();
        let checked = generations
            .reopen_if_replaced(Clock::manual(UNIX_EPOCH).now_coarse(), |next| cache.set_counters(next));
        assert_eq!(checked.unwrap(), 1);
        assert!(!of_counters(), "it was read by the earlier counters");
        put(0);
        assert!(!of_counters(), "it comes late");
        put(1);
        assert!(of_counters());
        cache.set_counters(&generations.counters());
        assert!(of_counters(), "these are the same");
    }

    #[test]
    fn an_entry_keeps_its_stamp_its_view_and_its_mark_apart() {
        let stamp = Stamp { saves: 1, ends: u64::MAX, counters: 0 };
        let Cached { record, id, version, .. } = cached(1, 1).cached;
        let highest = View::from_bits((1 << View::BITS) - 1);
        let mut one = One::of(1 << 20);
        for view in [View::NONE, View::from_bits(1), highest] {
            let fresh = Fresh::new(record.clone(), id, version, stamp, 0);
            drop(one.segment.put(&key(1), fresh.checked(view), &one.moving, |_, _| Trust::No));
            let there = one.segment.peek(&key(1)).unwrap();
            assert_eq!((there.view(), there.stamp(0), there.is_of_counters()), (view, stamp, true));
            one.segment.mark_checked(&key(1), &there, highest);
            drop(one.load(1, true));
            let there = one.segment.peek(&key(1)).unwrap();
            assert_eq!((there.view(), there.stamp(0), there.is_used()), (highest, stamp, true));
        }
        // This call names another version than the entry has, so it changes nothing.
        one.segment.mark_checked(&key(1), &cached(2, 1).cached, View::NONE);
        assert_eq!(one.segment.peek(&key(1)).unwrap().view(), highest);
    }

    #[test]
    fn entries_are_held_against_the_counters_that_were_taken_up_last() {
        let (old, new) = (counters(), counters());
        let cache = ReadCache::new(1 << 20, &old);
        let asks = |want: &Arc<Counters>| {
            let found = cache.get(&key(1), |_, asked| trust(std::ptr::eq(asked, &raw const **want)));
            assert!(matches!(found, Found::Trusted(..)));
        };
        cache.put(&key(1), cached(1, 10), |_, _| Trust::Yes);
        asks(&old);
        cache.set_counters(&new);
        asks(&new);
    }

    #[test]
    fn one_part_at_a_time_moves_its_entries_and_loads_go_on() {
        let cache = ReadCache::new(32 << 20, &counters());
        cache.put(&key(1), cached(1, 10), |_, _| Trust::Yes);
        let moving = cache.moving.lock();
        let (is_done, done) = mpsc::channel();
        std::thread::scope(|scope| {
            let other = (2..100)
                .map(key)
                .find(|other| !std::ptr::eq(cache.segment(other), cache.segment(&key(1))))
                .unwrap();
            let cache = &cache;
            scope.spawn(move || {
                cache.put(&other, cached(1, 10), |_, _| Trust::Yes);
                is_done.send(()).unwrap();
            });
            assert!(done.recv_timeout(Duration::from_millis(50)).is_err(), "it grows beside another one");
            assert!(matches!(cache.get(&key(1), |_, _| Trust::Yes), Found::Trusted(..)));
            cache.put(&key(1), cached(2, 20), |_, _| Trust::Yes);
            drop(moving);
            done.recv_timeout(Duration::from_secs(20)).unwrap();
        });
        assert_eq!(cache.counts().copies, 2);
    }

    #[test]
    fn debug_output_shows_no_session_id() {
        let cache = ReadCache::new(32 << 20, &counters());
        let id = "k".repeat(32);
        cache.put(&Key::of(&SessionId::parse(&id).unwrap()), cached(1, 10), |_, _| Trust::Yes);
        let text = format!("{cache:?}");
        assert!(text.contains("bytes_max: 33554432"), "{text}");
        // The key is not printed, neither as a text nor as a list of bytes.
        assert!(!text.contains("kkkk") && !text.contains("107, 107"), "{text}");
    }

    /// An operation on a segment.
    #[derive(Clone, Debug)]
    enum Step {
        Put { n: usize, sequence: usize, text_bytes: usize, trusted: bool },
        Load { n: usize },
        Forget { n: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        let n = 0..60_usize;
        prop_oneof![
            6 => (n.clone(), 1..4_usize, prop_oneof![4 => 0..300_usize, 1 => 0..9000_usize], any::<bool>())
                .prop_map(|(n, sequence, text_bytes, trusted)| Step::Put { n, sequence, text_bytes, trusted }),
            3 => n.clone().prop_map(|n| Step::Load { n }),
            2 => n.prop_map(|n| Step::Forget { n }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        #[cfg_attr(miri, ignore = "too many for Miri")]
        fn a_part_answers_as_a_map_does_but_for_what_it_evicted(
            bytes_max in 1000..40_000_usize,
            steps in proptest::collection::vec(step(), 1..300),
        ) {
            let mut one = One::of(bytes_max);
            // The model: for each entry, its sequence number and the size of its text.
            let mut model = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Put { n, sequence, text_bytes, trusted } => {
                        let evicted = one.segment.evicted;
                        drop(one.segment.put(&key(n), cached(sequence, text_bytes), &one.moving, |_, _| trust(trusted)));
                        let there = model.get(&n).copied();
                        if record_bytes(text_bytes) > one.segment.record_bytes_max() {
                            prop_assert_eq!(one.sequence(n), None);
                            prop_assert_eq!(one.segment.evicted, evicted);
                            model.remove(&n);
                        } else {
                            let is_kept = there.is_some_and(|(before, _)| trusted && before > sequence);
                            let next = there.filter(|_| is_kept).unwrap_or((sequence, text_bytes));
                            prop_assert_eq!(one.sequence(n), Some(next.0 as u64));
                            model.insert(n, next);
                        }
                        let before = model.len();
                        model.retain(|n, _| one.sequence(*n).is_some());
                        prop_assert_eq!((before - model.len()) as u64, one.segment.evicted - evicted);
                    }
                    Step::Load { n } => {
                        let sequence = match one.load(n, true) {
                            Found::Trusted(record, _) => Some(record.entries().get("text").unwrap().get::<String>().unwrap().len()),
                            Found::CutOffsUnchecked(_) | Found::Unverified(_) | Found::Nothing => None,
                        };
                        prop_assert_eq!(sequence, model.get(&n).map(|(_, text_bytes)| *text_bytes));
                    }
                    Step::Forget { n } => prop_assert_eq!(one.forget(n), model.remove(&n).is_some()),
                }
                one.segment.check();
                prop_assert_eq!(one.segment.len(), model.len());
                let records_bytes: usize = model.values().map(|(_, text_bytes)| record_bytes(*text_bytes)).sum();
                prop_assert_eq!(one.segment.records_bytes(), records_bytes);
                for (n, (sequence, _)) in &model {
                    prop_assert_eq!(one.sequence(*n), Some(*sequence as u64));
                }
            }
        }
    }
}
