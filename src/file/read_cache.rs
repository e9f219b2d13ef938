//! Decoded records of sessions that were read or saved lately, bounded in bytes; never the authority.
//!
//! Knows nothing of files and of what counters say: whether a copy may be trusted is asked of the caller, under the lock
//! of the part that holds it. The counters to ask are kept there too: that lock is the one that each load from memory takes
//! anyway, so that they can be exchanged without another one. What is promised here is only that memory stays within its limit, that the least recently used
//! copies go first, and that a copy is not replaced by an older one that is no better.
//!
//! - Recency is kept to a tenth of a second: a copy that is used again within one is not moved, which spares writing to
//!   two neighbours that are elsewhere in memory. No cache turns over in so short a time: filling it means reading files.
//! - Copies lie in 32 parts, each with a lock of its own, so that threads seldom meet. A part has its share of the
//!   limit; a record larger than that is not kept.
//! - Keys are session ids. Only ids that were found alive are ever inserted, and those were drawn at random by us: a
//!   visitor cannot choose what lies in one bucket, so a fast hash would do even if it were not seeded, which the
//!   map's default is.
//! - What is replaced or evicted is dropped after the lock: freeing a large record takes longer than finding one.
use super::generations::{Counters, Stamp};
use super::slot::Version;
use super::slots::Known;
use crate::clock::CoarseTime;
use crate::id::PublicId;
use crate::record::Record;
use crate::sync::Mutex;
use hashlink::linked_hash_map::RawEntryMut;
use hashlink::{DefaultHashBuilder, LinkedHashMap};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const PARTS: usize = 32;
const RECENT_MICROS: u64 = 100_000;
/// What one copy takes beside its record, in bytes: list node, hash slot (tables are between half and full), the counts
/// of the `Arc`.
const COPY_BYTES: usize = 224;

/// A session id as bytes; it has been looked up, not checked.
pub(super) type Key = [u8; 32];

/// One version of a session, and when it was the newest.
#[derive(Clone, Debug)]
pub(super) struct Cached {
    pub(super) record: Record,
    /// The record's deadline, in microseconds since 1970: here, so that a hit need not look into the record.
    pub(super) deadline: u64,
    /// What the session's cell said before its file was opened.
    pub(super) stamp: Stamp,
    /// When that was, by the store's clock, in microseconds since 1970.
    pub(super) read_at: u64,
    pub(super) id: PublicId,
    pub(super) version: Version,
}

impl Cached {
    pub(super) fn new(record: Record, id: PublicId, version: Version, stamp: Stamp, read_at: u64) -> Self {
        Self { deadline: record.deadline_micros(), record, stamp, read_at, id, version }
    }

    /// What need not be verified again.
    pub(super) fn known(&self) -> Known<'_> {
        Known { version: self.version, record: &self.record }
    }
}

/// What became of a look into the cache.
pub(super) enum Found {
    Trusted(Record, PublicId),
    /// It may have been overtaken.
    Doubtful(Cached),
    Nothing,
}

/// The cache of one open store.
pub(super) struct ReadCache {
    parts: Box<[Part; PARTS]>,
    hasher: DefaultHashBuilder,
    /// The share of one part.
    bytes_max: usize,
    /// How many copies had to make room.
    evicted: AtomicU64,
}

/// Alone in its cache lines: a lock beside it that is taken by another thread would cost as much as a shared one.
#[repr(align(128))]
struct Part(Mutex<Copies>);

struct Copies {
    /// The counters that copies are held against.
    counters: Arc<Counters>,
    /// With the hasher that the cache chooses the part with: one hash serves both.
    map: LinkedHashMap<Key, Kept, DefaultHashBuilder>,
    bytes: usize,
    /// Nodes that the map has in use or keeps for later: it gives none back by itself.
    nodes: usize,
    trusted: u64,
}

impl Copies {
    fn new(hasher: DefaultHashBuilder, counters: Arc<Counters>) -> Self {
        Self { counters, map: LinkedHashMap::with_hasher(hasher), bytes: 0, nodes: 0, trusted: 0 }
    }
}

struct Kept {
    copy: Cached,
    /// When it was last made the most recently used one.
    moved_at: u64,
    bytes: usize,
}

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
        let hasher = DefaultHashBuilder::default();
        let part = |_| Part(Mutex::new(Copies::new(hasher.clone(), Arc::clone(counters))));
        Self {
            parts: Box::new(std::array::from_fn(part)),
            hasher,
            bytes_max: bytes_max / PARTS,
            evicted: AtomicU64::new(0),
        }
    }

    /// From now on, copies are held against these counters.
    pub(super) fn heed(&self, counters: &Arc<Counters>) {
        for part in self.parts.iter() {
            part.0.lock().counters = Arc::clone(counters);
        }
    }

    /// Looks a session up; its copy becomes the most recently used one. `trust` says whether it may be returned.
    pub(super) fn get(
        &self,
        key: &Key,
        now: CoarseTime,
        trust: impl FnOnce(&Cached, &Counters) -> bool,
    ) -> Found {
        let (part, hash) = self.part(key);
        let mut guard = part.0.lock();
        let copies = &mut *guard;
        let RawEntryMut::Occupied(mut entry) = copies.map.raw_entry_mut().from_key_hashed_nocheck(hash, key)
        else {
            return Found::Nothing;
        };
        let kept = entry.get_mut();
        let found = if trust(&kept.copy, &copies.counters) {
            Found::Trusted(kept.copy.record.clone(), kept.copy.id)
        } else {
            Found::Doubtful(kept.copy.clone())
        };
        if now.micros().abs_diff(kept.moved_at) >= RECENT_MICROS {
            kept.moved_at = now.micros();
            entry.to_back();
        }
        copies.trusted += u64::from(matches!(found, Found::Trusted(..)));
        found
    }

    /// The copy of a session, fresh or stale, for an operation that is about to read its file; it is not counted as used.
    pub(super) fn peek(&self, key: &Key) -> Option<Cached> {
        let (part, hash) = self.part(key);
        let copies = part.0.lock();
        copies.map.raw_entry().from_key_hashed_nocheck(hash, key).map(|(_, kept)| kept.copy.clone())
    }

    /// Files a copy, unless a newer one is there that is trusted.
    pub(super) fn put(&self, key: &Key, copy: Cached, trust: impl FnOnce(&Cached, &Counters) -> bool) {
        let bytes = COPY_BYTES + copy.record.heap_size();
        if bytes > self.bytes_max {
            return self.forget(key);
        }
        let (part, hash) = self.part(key);
        let (kept, mut out) = (Kept { moved_at: copy.read_at, copy, bytes }, Vec::new());
        let mut guard = part.0.lock();
        let copies = &mut *guard;
        match copies.map.raw_entry_mut().from_key_hashed_nocheck(hash, key) {
            RawEntryMut::Vacant(entry) => {
                entry.insert_hashed_nocheck(hash, *key, kept);
            }
            RawEntryMut::Occupied(mut entry) => {
                let there = &entry.get().copy;
                if there.version.sequence > kept.copy.version.sequence && trust(there, &copies.counters) {
                    return;
                }
                entry.to_back();
                out.push(entry.replace_value(kept));
            }
        }
        copies.bytes += bytes;
        copies.bytes -= out.iter().map(|kept| kept.bytes).sum::<usize>();
        let mut evicted = 0;
        while copies.bytes > self.bytes_max {
            let (_, oldest) = copies.map.pop_front().expect("bytes are those of copies that are there");
            copies.bytes -= oldest.bytes;
            out.push(oldest);
            evicted += 1;
        }
        copies.nodes = copies.nodes.max(copies.map.len() + 1);
        // Large sessions took the place of many small ones.
        if copies.nodes > 2 * copies.map.len() + 64 {
            copies.map.shrink_to_fit();
            copies.nodes = copies.map.len();
        }
        drop(guard);
        self.evicted.fetch_add(evicted, Ordering::Relaxed);
    }

    /// Drops the copy of a session that is not alive any more, or of which it is not known.
    pub(super) fn forget(&self, key: &Key) {
        let (part, hash) = self.part(key);
        let mut copies = part.0.lock();
        let entry = copies.map.raw_entry_mut().from_key_hashed_nocheck(hash, key);
        let RawEntryMut::Occupied(entry) = entry else { return };
        let out = entry.remove();
        copies.bytes -= out.bytes;
        drop(copies);
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts { evicted: self.evicted.load(Ordering::Relaxed), ..Counts::default() };
        for part in self.parts.iter() {
            let copies = part.0.lock();
            counts.trusted += copies.trusted;
            counts.copies += copies.map.len();
            counts.bytes += copies.bytes;
        }
        counts
    }

    fn part(&self, key: &Key) -> (&Part, u64) {
        let hash = self.hasher.hash_one(key);
        // Bits that the map uses neither for the place in its table (low) nor for its tag (high).
        (&self.parts[(hash >> 40) as usize % PARTS], hash)
    }
}

impl std::fmt::Debug for ReadCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No keys: they are secrets. No counts: that would wait for locks, also for those of threads that do not exist here.
        f.debug_struct("ReadCache").field("bytes_max", &(self.bytes_max * PARTS)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::file::generations::Generations;
    use crate::file::slot::{self, State};
    use crate::value::Value;
    use std::time::{Duration, UNIX_EPOCH};

    fn cache_of(bytes_max: usize) -> ReadCache {
        ReadCache::new(bytes_max, &Generations::own().unwrap().counters())
    }
    /// A version that has this sequence, with a text of so many bytes.
    fn copy(sequence: u64, text_bytes: usize) -> Cached {
        let mut record = Record::new(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(1));
        record.insert("text", &Value::new(&"x".repeat(text_bytes)).unwrap()).unwrap();
        let id = PublicId::digest(b"");
        let header = slot::Header { id: &id, sequence, state: State::WRITTEN, slot_size_min: 0 };
        let version = slot::encode(&record, &header, 1 << 20).unwrap().version();
        Cached::new(record, id, version, Stamp::default(), 0)
    }
    /// So many seconds after the copies were read.
    fn second(n: u64) -> CoarseTime {
        Clock::manual(UNIX_EPOCH + Duration::from_secs(n)).now_coarse()
    }
    fn bytes_of(copy: &Cached) -> usize {
        COPY_BYTES + copy.record.heap_size()
    }
    fn key(n: u32) -> Key {
        let mut key = [b'k'; 32];
        key[..8].copy_from_slice(format!("{n:08}").as_bytes());
        key
    }
    /// So many keys that share one part.
    fn keys(cache: &ReadCache, count: usize) -> Vec<Key> {
        let part = cache.part(&key(0)).0;
        let all = (0..).map(key).filter(|key| std::ptr::eq(cache.part(key).0, part));
        all.take(count).collect()
    }
    fn put(cache: &ReadCache, key: &Key, copy: Cached) {
        cache.put(key, copy, |_, _| true);
    }
    fn sequence(cache: &ReadCache, key: &Key) -> Option<u64> {
        cache.peek(key).map(|copy| copy.version.sequence)
    }

    #[test]
    #[cfg_attr(miri, ignore = "too many for Miri")]
    fn the_cache_shrinks_its_table_when_entries_become_few() {
        let small = bytes_of(&copy(1, 10));
        let cache = cache_of(PARTS * 1000 * small);
        let keys = keys(&cache, 1020);
        let room = || cache.part(&keys[0]).0.0.lock().map.capacity();
        let (small_ones, large_ones) = keys.split_at(1000);
        for key in small_ones {
            put(&cache, key, copy(1, 10));
        }
        let full = room();
        assert!(full >= 1000);
        // Each takes the place of a hundred.
        let put_large = |keys: &[Key]| keys.iter().for_each(|key| put(&cache, key, copy(1, 100 * small)));
        put_large(&large_ones[..3]);
        assert!(room() > full / 4 * 3, "half of it is in use, and there is room for {} only", room());
        put_large(&large_ones[3..]);
        assert!(room() < full / 8, "room for {} is kept", room());
        assert!(cache.part(&keys[0]).0.0.lock().nodes < 200);
    }

    #[test]
    fn the_least_recently_loaded_goes_first_and_a_peek_is_no_load() {
        let bytes = bytes_of(&copy(1, 100));
        let cache = cache_of(PARTS * (3 * bytes + bytes / 2));
        let keys = keys(&cache, 6);
        let there = || keys.iter().map(|key| cache.peek(key).is_some()).collect::<Vec<_>>();
        for key in &keys[..3] {
            put(&cache, key, copy(1, 100));
        }
        assert_eq!(there(), [true, true, true, false, false, false]);
        // Loaded, trusted or not, or saved: not the next to go. Looked at: the next to go all the same.
        assert!(matches!(cache.get(&keys[0], second(1), |_, _| true), Found::Trusted(..)));
        cache.peek(&keys[1]).unwrap();
        put(&cache, &keys[3], copy(1, 100));
        assert_eq!(there(), [true, false, true, true, false, false]);
        assert!(matches!(cache.get(&keys[2], second(1), |_, _| false), Found::Doubtful(_)));
        put(&cache, &keys[4], copy(1, 100));
        assert_eq!(there(), [false, false, true, true, true, false]);
        put(&cache, &keys[2], copy(2, 100));
        put(&cache, &keys[3], copy(2, 100));
        put(&cache, &keys[5], copy(1, 100));
        assert_eq!(there(), [false, false, true, true, false, true]);
        assert!(matches!(cache.get(&keys[0], second(1), |_, _| true), Found::Nothing));
        let counts = cache.counts();
        assert_eq!((counts.evicted, counts.copies, counts.trusted), (3, 3, 1));
    }

    #[test]
    fn eviction_makes_room_for_one_entry_and_no_more() {
        let (small, large) = (bytes_of(&copy(1, 100)), bytes_of(&copy(1, 1000)));
        let cache = cache_of(PARTS * (large + 2 * small));
        let keys = keys(&cache, 10);
        let fit = (large + 2 * small) / small;
        assert!(fit < 9, "{fit}");
        for key in &keys[..fit] {
            put(&cache, key, copy(1, 100));
        }
        assert_eq!(cache.counts().evicted, 0);
        put(&cache, &keys[9], copy(1, 1000));
        assert_eq!(cache.counts().copies, 3, "the large one and as many as fit beside it");
        assert_eq!(cache.counts().bytes, large + 2 * small);
    }

    #[test]
    fn an_entry_larger_than_its_part_is_not_cached() {
        let bytes = bytes_of(&copy(1, 1000));
        let (just, short) = (cache_of(PARTS * bytes), cache_of(PARTS * bytes - 1));
        for (cache, want) in [(just, 1), (short, 0)] {
            put(&cache, &key(1), copy(1, 10));
            put(&cache, &key(1), copy(2, 1000));
            assert_eq!(cache.counts().copies, want);
            assert_eq!(cache.counts().bytes, want * bytes);
            assert_eq!(cache.counts().evicted, 0);
        }
    }

    #[test]
    fn the_cache_counts_the_bytes_of_its_entries() {
        let copies = if cfg!(miri) { 30 } else { 1000 };
        let cache = cache_of(PARTS << 20);
        let counted = || (cache.counts().copies, cache.counts().bytes);
        let mut want = 0;
        for n in 0..copies {
            let copy = copy(1, n as usize);
            want += bytes_of(&copy);
            put(&cache, &key(n), copy);
        }
        assert_eq!(counted(), (copies as usize, want));
        // What is replaced gives its bytes back, whether it was larger or smaller.
        for (n, text_bytes) in [(7, 5000), (copies - 1, 0), (8, 8)] {
            want = want + bytes_of(&copy(2, text_bytes)) - bytes_of(&copy(1, n as usize));
            put(&cache, &key(n), copy(2, text_bytes));
            assert_eq!(counted(), (copies as usize, want), "{n}");
        }
        // What is refused costs nothing.
        put(&cache, &key(7), copy(1, 1));
        assert_eq!(counted(), (copies as usize, want));
        for n in (0..copies).chain([1, 5000]) {
            cache.forget(&key(n));
        }
        assert_eq!(counted(), (0, 0));
    }

    #[test]
    fn an_older_version_replaces_a_stale_entry_only() {
        #[track_caller]
        fn check(there: u64, comes: u64, trusted: bool, want: u64) {
            let cache = cache_of(PARTS << 20);
            put(&cache, &key(1), copy(there, 10));
            cache.put(&key(1), copy(comes, 20), |asked, _| {
                assert_eq!(asked.version.sequence, there);
                trusted
            });
            assert_eq!(sequence(&cache, &key(1)), Some(want), "{comes} onto {there}, trusted: {trusted}");
            let text_bytes = if want == comes { 20 } else { 10 };
            assert_eq!(cache.counts().bytes, bytes_of(&copy(want, text_bytes)));
        }
        check(5, 4, true, 5);
        check(5, 4, false, 4);
        check(5, 6, true, 6);
        check(5, 6, false, 6);
        // As of a later reading.
        let cache = cache_of(PARTS << 20);
        put(&cache, &key(1), copy(5, 10));
        let later = Cached { read_at: 9, ..copy(5, 10) };
        put(&cache, &key(1), later.clone());
        assert_eq!(cache.peek(&key(1)).unwrap().read_at, later.read_at);
    }

    #[test]
    fn a_cache_without_room_keeps_nothing() {
        for bytes in [0, 1, PARTS - 1, PARTS] {
            let cache = cache_of(bytes);
            put(&cache, &key(1), copy(1, 0));
            assert_eq!(cache.counts(), Counts::default(), "{bytes} bytes");
        }
    }

    #[test]
    fn debug_output_shows_no_session_id() {
        let cache = cache_of(PARTS << 20);
        put(&cache, &key(1), copy(1, 10));
        let text = format!("{cache:?}");
        assert!(text.contains("bytes_max: 33554432"), "{text}");
        // Neither as text nor as a list of bytes.
        assert!(!text.contains("kkkk") && !text.contains("107, 107"), "{text}");
    }

    #[test]
    fn a_copy_that_was_moved_a_moment_ago_is_not_moved_again() {
        let bytes = bytes_of(&copy(1, 100));
        let cache = cache_of(PARTS * (2 * bytes + bytes / 2));
        let keys = keys(&cache, 4);
        for key in &keys[..2] {
            put(&cache, key, copy(1, 100));
            cache.get(key, second(1), |_, _| true);
        }
        // The first is behind the second, and stays there within the same tenth of a second.
        cache.get(&keys[0], second(1), |_, _| true);
        put(&cache, &keys[2], copy(1, 100));
        assert_eq!([sequence(&cache, &keys[0]), sequence(&cache, &keys[1])], [None, Some(1)]);
        // Later it is moved; also if the clock was set back.
        for now in [second(2), second(1)] {
            cache.get(&keys[1], now, |_, _| true);
            put(&cache, &keys[3], copy(1, 100));
            assert_eq!(sequence(&cache, &keys[1]), Some(1));
        }
    }
}
