//! The entries of one segment: an array without gaps, which grows by an eighth. An entry takes two cache lines.
use super::key::Key;
use super::{Cached, heap_block};

/// One session in the cache: two adjacent cache lines with all that a hit reads, except the record and the counters.
#[repr(align(64))]
pub(super) struct Entry {
    pub(super) cached: Cached,
    pub(super) key: Key,
}

const _: () = assert!(size_of::<Option<Entry>>() <= 128);

/// The number of entries by which an array grows at least.
const GROWTH_MIN: usize = 4;

/// An array of entries. A position is empty only between [`take`](Self::take) and [`set`](Self::set) or
/// [`pop`](Self::pop).
#[derive(Default)]
pub(super) struct EntryArray {
    entries: Vec<Option<Entry>>,
}

impl EntryArray {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(super) fn at(&self, position: usize) -> &Entry {
        self.entries[position].as_ref().expect("there is an entry at each position")
    }

    #[inline]
    pub(super) fn at_mut(&mut self, position: usize) -> &mut Entry {
        self.entries[position].as_mut().expect("there is an entry at each position")
    }

    /// Takes an entry out. Its position is empty afterwards.
    pub(super) fn take(&mut self, position: usize) -> Entry {
        self.entries[position].take().expect("there is an entry at each position")
    }

    /// Fills an empty position, or appends one.
    pub(super) fn set(&mut self, position: usize, entry: Entry) {
        if position == self.entries.len() {
            let capacity = self.capacity_for_one_more();
            self.entries.reserve_exact(capacity - self.entries.len());
            self.entries.push(Some(entry));
        } else {
            self.entries[position] = Some(entry);
        }
    }

    /// Removes the last position, which must be empty.
    pub(super) fn pop(&mut self) {
        self.entries.pop();
    }

    /// Whether less than half of the allocated positions is in use.
    pub(super) fn is_sparse(&self) -> bool {
        2 * (self.len() + GROWTH_MIN) < self.entries.capacity() || self.entries.is_empty()
    }

    /// Makes the array smaller, to fit the entries.
    pub(super) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// The bytes of memory that the array takes, without the records.
    pub(super) fn bytes(&self) -> usize {
        array_bytes(self.entries.capacity())
    }

    /// The bytes of memory that the array would take with one more entry, without the records.
    pub(super) fn bytes_with_one_more(&self) -> usize {
        array_bytes(self.capacity_for_one_more())
    }

    /// Whether one more entry needs a larger array.
    pub(super) fn is_full(&self) -> bool {
        self.len() == self.entries.capacity()
    }

    fn capacity_for_one_more(&self) -> usize {
        let capacity = self.entries.capacity();
        if self.is_full() { capacity + (capacity / 8).max(GROWTH_MIN) } else { capacity }
    }
}

fn array_bytes(capacity: usize) -> usize {
    heap_block(capacity * size_of::<Option<Entry>>())
}
