//! The index of a segment: finds the position of the entry with a given key in the array of entries. It is a hash table
//! with open addressing, four bytes a place.
//!
//! ```text
//! table    one word for each place     0, or: position + 1 in the lower 24 bits, 8 bits of the hash (the tag) above
//! home     the place of an entry       upper half of the hash × places / 2³²: any number of places will do
//! ```
//!
//! - An entry lies at its home or in a later place (wrapping at the end), with no empty place in between, so a search
//!   ends at the first empty place.
//! - A removal moves later entries back into the gap (backward shift), so the table needs no marks of removed entries.
//! - At most four fifths of the places are in use. A full table grows by half.
//! - The table stores no whole hashes. A rebuild or a removal asks the caller for the hash of the entry at a position
//!   (`hash_at`).
use super::heap_block;

/// The number of places of the smallest table.
const PLACES_MIN: usize = 8;
const TAG_SHIFT: u32 = 24;
/// The largest number of entries of a segment: 16 million, as many as 24 bits can number. In tests so few that a test
/// can fill the table.
pub(super) const POSITIONS_MAX: usize = if cfg!(test) { 3_500 } else { (1 << TAG_SHIFT) - 1 };

#[derive(Default)]
pub(super) struct Index {
    table: Box<[u32]>,
    len: usize,
}

fn word(hash: u64, position: usize) -> u32 {
    let position = u32::try_from(position + 1).expect("no more positions than a word has room for");
    debug_assert!(position >> TAG_SHIFT == 0);
    tag(hash) | position
}

/// The lowest 8 bits of the hash, in the upper 8 bits of a word.
#[inline]
fn tag(hash: u64) -> u32 {
    ((hash & 0xff) as u32) << TAG_SHIFT
}

#[inline]
fn position_in(word: u32) -> usize {
    (word & ((1 << TAG_SHIFT) - 1)) as usize - 1
}

impl Index {
    /// The position of the entry with this hash. Several entries may have the same tag; `is_it` compares the key of the
    /// entry at a position.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl FnMut(usize) -> bool) -> Option<usize> {
        self.place(hash, is_it).map(|place| position_in(self.table[place]))
    }

    #[inline]
    fn place(&self, hash: u64, mut is_it: impl FnMut(usize) -> bool) -> Option<usize> {
        if self.table.is_empty() {
            return None;
        }
        let (tag, mut place) = (tag(hash), self.home(hash));
        loop {
            match self.table[place] {
                0 => return None,
                word if word >> TAG_SHIFT == tag >> TAG_SHIFT && is_it(position_in(word)) => {
                    return Some(place);
                }
                _ => place = self.after(place),
            }
        }
    }

    /// Adds an entry by its position, which must not be in the table. A full table grows first.
    pub(super) fn insert(&mut self, hash: u64, position: usize, hash_at: impl Fn(usize) -> u64) {
        if self.is_full() {
            self.rebuild(self.places_for_one_more(), hash_at);
        }
        self.add(hash, position);
        self.len += 1;
    }

    fn add(&mut self, hash: u64, position: usize) {
        let mut place = self.home(hash);
        while self.table[place] != 0 {
            place = self.after(place);
        }
        self.table[place] = word(hash, position);
    }

    /// Removes an entry by its position, which must be in the table.
    pub(super) fn remove(&mut self, hash: u64, position: usize, hash_at: impl Fn(usize) -> u64) {
        let mut gap = self.place_of(hash, position);
        let mut next = self.after(gap);
        while self.table[next] != 0 {
            // The entry at `next` moves into the gap, unless its home lies between the gap and `next`.
            let home = self.home(hash_at(position_in(self.table[next])));
            if self.distance(home, next) >= self.distance(gap, next) {
                self.table[gap] = self.table[next];
                gap = next;
            }
            next = self.after(next);
        }
        self.table[gap] = 0;
        self.len -= 1;
    }

    /// Notes that an entry has moved from one position to another.
    pub(super) fn change(&mut self, hash: u64, from: usize, to: usize) {
        let place = self.place_of(hash, from);
        self.table[place] = word(hash, to);
    }

    fn place_of(&self, hash: u64, position: usize) -> usize {
        self.place(hash, |there| there == position).expect("every entry is in the index")
    }

    /// Whether less than a quarter of the table is in use.
    pub(super) fn is_sparse(&self) -> bool {
        4 * self.len.max(PLACES_MIN) < self.table.len() || self.len == 0
    }

    /// Makes the table smaller, to fit the entries.
    pub(super) fn shrink(&mut self, hash_at: impl Fn(usize) -> u64) {
        let places = if self.len == 0 { 0 } else { (2 * self.len).max(PLACES_MIN) };
        self.rebuild(places, hash_at);
    }

    /// The bytes of memory that the table takes.
    pub(super) fn bytes(&self) -> usize {
        table_bytes(self.table.len())
    }

    /// The bytes of memory that the table would take with one more entry.
    pub(super) fn bytes_with_one_more(&self) -> usize {
        table_bytes(self.places_for_one_more())
    }

    /// Whether one more entry needs a larger table.
    pub(super) fn is_full(&self) -> bool {
        self.len >= self.table.len() - self.table.len() / 5
    }

    fn places_for_one_more(&self) -> usize {
        let places = self.table.len();
        if self.is_full() { (places + places / 2).max(PLACES_MIN) } else { places }
    }

    fn rebuild(&mut self, places: usize, hash_at: impl Fn(usize) -> u64) {
        let old = std::mem::replace(&mut self.table, vec![0; places].into_boxed_slice());
        let positions = old.iter().filter(|word| **word != 0).map(|word| position_in(*word));
        positions.for_each(|position| self.add(hash_at(position), position));
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.table.len() as u64) >> 32) as usize
    }

    #[inline]
    fn after(&self, place: usize) -> usize {
        if place + 1 == self.table.len() { 0 } else { place + 1 }
    }

    /// The number of places from `from` to `to`, wrapping at the end.
    fn distance(&self, from: usize, to: usize) -> usize {
        if from <= to { to - from } else { to + self.table.len() - from }
    }
}

fn table_bytes(places: usize) -> usize {
    heap_block(places * size_of::<u32>())
}

#[cfg(test)]
impl Index {
    /// The number of entries; asserts that the table holds as many.
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.table.iter().filter(|word| **word != 0).count(), self.len);
        self.len
    }
}
