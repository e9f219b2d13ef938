//! One segment of the cache: its entries, its size in bytes, and the choice of the entry to evict. All functions are
//! called under the segment's lock.
//!
//! The choice is made by CLOCK. A hand goes round the positions of the entries. If an entry was used since the hand
//! last passed it, its flag is cleared and it stays. Otherwise it is evicted. The new entry takes its position, which
//! the hand reaches last.
use super::entry_array::{Entry, EntryArray};
use super::index::{Index, POSITIONS_MAX};
use super::key::Key;
use super::{Cached, Found, Fresh, Marks, Trust};
use crate::file::cut_offs::View;
use crate::file::generations::Counters;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The entries of one segment, and the counters with which their stamps are compared.
pub(super) struct Segment {
    pub(super) counters: Arc<Counters>,
    index: Index,
    entries: EntryArray,
    /// The bytes of memory that the records take, without entries and index.
    records_bytes: usize,
    bytes_max: usize,
    /// The position that CLOCK's hand looks at next.
    hand: usize,
    pub(super) trusted: u64,
    pub(super) evicted: u64,
}

/// The entries that were removed from a segment in one call. The caller drops them after it has released the lock,
/// because freeing a large record takes longer than a lookup. One entry is kept without an allocation: most saves
/// replace one and evict none.
#[derive(Default)]
pub(super) struct Removed {
    first: Option<Cached>,
    others: Vec<Cached>,
}

impl Removed {
    fn push(&mut self, cached: Cached) {
        match self.first {
            None => self.first = Some(cached),
            Some(_) => self.others.push(cached),
        }
    }
}

/// The lock that a segment takes while its array or index moves to a larger or smaller block of memory. Both blocks
/// exist meanwhile, and the cache has reserved memory for one such move only.
///
/// The lock is the standard library's, also under the scheduler of the proofs, for which it is no step. Whether a
/// segment moves depends on the earlier content of the cache, whereas a model must take the same steps each time.
#[derive(Default)]
pub(super) struct Moving(Mutex<()>);

impl Moving {
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Segment {
    pub(super) fn new(bytes_max: usize, counters: Arc<Counters>) -> Self {
        Self {
            counters,
            index: Index::default(),
            entries: EntryArray::default(),
            records_bytes: 0,
            bytes_max,
            hand: 0,
            trusted: 0,
            evicted: 0,
        }
    }

    #[inline]
    fn position(&self, key: &Key) -> Option<usize> {
        self.index.find(key.hash(), |position| self.entries.at(position).key == *key)
    }

    #[inline]
    pub(super) fn get(&mut self, key: &Key, trust: impl FnOnce(&Cached, &Counters) -> Trust) -> Found {
        let Some(position) = self.position(key) else { return Found::Nothing };
        let cached = &mut self.entries.at_mut(position).cached;
        // The flag is written only if it is not set. A line of memory that is not written stays in other processors'
        // caches.
        if !cached.is_used() {
            cached.marks.set(Marks::USED, true);
        }
        // The prefetch lets the processor fetch the record from memory while it waits for the counters that `trust`
        // reads. Without it the record would be fetched later: cloning an `Arc` is an atomic operation, which waits for
        // all earlier reads.
        cached.record.prefetch();
        match trust(cached, &self.counters) {
            Trust::Yes => {
                self.trusted += 1;
                Found::Trusted(cached.record.clone(), cached.id)
            }
            Trust::CutOffsUnchecked => Found::CutOffsUnchecked(cached.clone()),
            Trust::No => Found::Unverified(cached.clone()),
        }
    }

    /// Replaces the counters. Entries whose stamps were read from other counters may not be returned any more.
    pub(super) fn set_counters(&mut self, counters: &Arc<Counters>) {
        if self.counters.number() != counters.number() {
            for position in 0..self.len() {
                self.entries.at_mut(position).cached.marks.set(Marks::OF_COUNTERS, false);
            }
        }
        self.counters = Arc::clone(counters);
    }

    pub(super) fn mark_checked(&mut self, key: &Key, checked: &Cached, view: View) {
        let Some(position) = self.position(key) else { return };
        let cached = &mut self.entries.at_mut(position).cached;
        // If the version is still the same, the record is the one that was compared.
        if cached.version == checked.version {
            cached.set_view(view);
        }
    }

    pub(super) fn peek(&self, key: &Key) -> Option<Cached> {
        self.position(key).map(|position| self.entries.at(position).cached.clone())
    }

    /// Puts an entry in, unless the segment has a newer one that may be returned. Returns the entries that were
    /// replaced or evicted.
    #[must_use]
    pub(super) fn put(
        &mut self,
        key: &Key,
        fresh: Fresh,
        moving: &Moving,
        trust: impl FnOnce(&Cached, &Counters) -> Trust,
    ) -> Removed {
        let Fresh { mut cached, counters } = fresh;
        cached.marks.set(Marks::OF_COUNTERS, counters == self.counters.number());
        let (bytes, position, mut out) = (cached.record_bytes(), self.position(key), Removed::default());
        let bytes_before = position.map_or(0, |position| self.entries.at(position).cached.record_bytes());
        // Most saves replace a record of the same size or a larger one. Then the record fits, and the segment's size
        // need not be computed.
        let fits = bytes <= bytes_before || bytes <= self.record_bytes_max();
        if let Some(position) = position {
            let there = &self.entries.at(position).cached;
            if fits
                && there.version.sequence > cached.version.sequence
                && trust(there, &self.counters) != Trust::No
            {
                return out;
            }
            let fits_there =
                bytes <= bytes_before || fits && self.bytes() - bytes_before + bytes <= self.bytes_max;
            if fits_there {
                cached.marks.set(Marks::USED, true);
                out.push(std::mem::replace(&mut self.entries.at_mut(position).cached, cached));
                self.records_bytes = self.records_bytes - bytes_before + bytes;
                return out;
            }
            out.push(self.remove(position, moving));
        }
        if fits {
            let gap = self.make_room(bytes, moving, &mut out);
            cached.marks.set(Marks::USED, position.is_some());
            self.insert(gap, Entry { cached, key: *key }, moving);
        }
        out
    }

    #[must_use]
    pub(super) fn forget(&mut self, key: &Key, moving: &Moving) -> Option<Cached> {
        let position = self.position(key)?;
        Some(self.remove(position, moving))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The bytes of memory in use by records, entries and index; 0 without entries.
    pub(super) fn bytes(&self) -> usize {
        self.records_bytes + self.entries.bytes() + self.index.bytes()
    }

    /// The size of the largest record that fits into an otherwise empty segment.
    pub(super) fn record_bytes_max(&self) -> usize {
        let least = EntryArray::default().bytes_with_one_more() + Index::default().bytes_with_one_more();
        self.bytes_max.saturating_sub(least)
    }

    /// Evicts entries until a record of `record_bytes`, which is not larger than the segment, fits. Returns the
    /// position of the last evicted entry, which is empty now.
    fn make_room(&mut self, record_bytes: usize, moving: &Moving, out: &mut Removed) -> Option<usize> {
        let mut gap = None;
        loop {
            let entries = match gap {
                Some(_) => self.entries.bytes(),
                None => self.entries.bytes_with_one_more(),
            };
            let bytes = self.records_bytes + record_bytes + entries + self.index.bytes_with_one_more();
            if bytes <= self.bytes_max && (gap.is_some() || self.len() < POSITIONS_MAX) {
                return gap;
            }
            if let Some(position) = gap.take() {
                self.close(position, moving);
            } else {
                let position = self.next_to_evict();
                out.push(self.take(position));
                self.evicted += 1;
                gap = Some(position);
            }
        }
    }

    /// Advances the hand to the next entry that was not used since the hand last passed it, and returns its position.
    /// Clears the flags of the entries before it.
    fn next_to_evict(&mut self) -> usize {
        loop {
            let position = if self.hand < self.entries.len() { self.hand } else { 0 };
            self.hand = position + 1;
            let cached = &mut self.entries.at_mut(position).cached;
            if !cached.is_used() {
                return position;
            }
            cached.marks.set(Marks::USED, false);
        }
    }

    fn insert(&mut self, gap: Option<usize>, entry: Entry, moving: &Moving) {
        let position = gap.unwrap_or(self.entries.len());
        let is_moving = gap.is_none() && self.entries.is_full() || self.index.is_full();
        let _alone = is_moving.then(|| moving.lock());
        self.records_bytes += entry.cached.record_bytes();
        self.index.insert(entry.key.hash(), position, |position| self.entries.at(position).key.hash());
        self.entries.set(position, entry);
        debug_assert!(self.bytes() <= self.bytes_max, "{} bytes of {}", self.bytes(), self.bytes_max);
    }

    fn remove(&mut self, position: usize, moving: &Moving) -> Cached {
        let cached = self.take(position);
        self.close(position, moving);
        cached
    }

    /// Takes an entry out of the index and the array. Its position in the array is empty afterwards.
    fn take(&mut self, position: usize) -> Cached {
        let hash = self.entries.at(position).key.hash();
        self.index.remove(hash, position, |position| self.entries.at(position).key.hash());
        let Entry { cached, .. } = self.entries.take(position);
        self.records_bytes -= cached.record_bytes();
        cached
    }

    /// Moves the last entry into the empty position `gap`, so that the array has no gap, and frees memory when much of
    /// it is not in use.
    fn close(&mut self, gap: usize, moving: &Moving) {
        let last = self.entries.len() - 1;
        if gap != last {
            let entry = self.entries.take(last);
            self.index.change(entry.key.hash(), last, gap);
            self.entries.set(gap, entry);
        }
        self.entries.pop();
        if self.entries.is_sparse() {
            let _alone = moving.lock();
            self.entries.shrink();
        }
        if self.index.is_sparse() {
            let _alone = moving.lock();
            self.index.shrink(|position| self.entries.at(position).key.hash());
        }
    }
}

#[cfg(test)]
impl Segment {
    pub(super) fn records_bytes(&self) -> usize {
        self.records_bytes
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Asserts that the index has exactly the positions of all entries, and that the size limit is kept.
    pub(super) fn check(&self) {
        for position in 0..self.len() {
            assert_eq!(self.position(&self.entries.at(position).key), Some(position));
        }
        assert_eq!(self.index.len(), self.len());
        assert!(self.bytes() <= self.bytes_max, "{} bytes of {}", self.bytes(), self.bytes_max);
    }
}
