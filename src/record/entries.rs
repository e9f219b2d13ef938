//! The entries of a record, in its block: lookup and iteration without a copy. Changes nothing.
use super::block::{self, HEADER_LEN, ROW};
use crate::value::ValueRef;
use std::cmp::Ordering;
use std::fmt;

/// The entries of a record, in the order of their names.
///
/// ```
/// use sessile::{Record, Value};
/// use std::time::UNIX_EPOCH;
///
/// let mut record = Record::new(UNIX_EPOCH, UNIX_EPOCH);
/// record.insert("theme", &Value::new("dark")?)?;
/// let entries = record.entries();
/// assert_eq!(entries.get("theme").map(|value| value.get::<String>()).transpose()?.as_deref(), Some("dark"));
/// assert!(entries.get("language").is_none());
/// # Ok::<(), sessile::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Entries<'a> {
    table: &'a [[u8; ROW]],
    names: &'a [u8],
    values: &'a [u8],
}

impl<'a> Entries<'a> {
    /// The entries of a block that was checked.
    #[inline]
    pub(super) fn of(block: &'a [u8]) -> Self {
        let text_at = block::text_at(block);
        let (table, _) = block[HEADER_LEN..text_at].as_chunks();
        let names_at = text_at + block::user_len(block) + block::note_len(block);
        let names_len = table.last().map_or(0, |last| block::ends(*last).0);
        let (names, values) = block[names_at..].split_at(names_len);
        Self { table, names, values }
    }

    /// The number of entries.
    ///
    /// ```
    /// # use sessile::{Record, Value};
    /// # let mut record = Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH);
    /// record.insert("visits", &Value::new(&3)?)?;
    /// assert_eq!(record.entries().len(), 1);
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn len(self) -> usize {
        self.table.len()
    }

    /// Whether there are no entries.
    ///
    /// ```
    /// let record = sessile::Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH);
    /// assert!(record.entries().is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.table.is_empty()
    }

    /// The number of bytes of all values together.
    ///
    /// ```
    /// # use sessile::{Record, Value};
    /// # let mut record = Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH);
    /// let (three, text) = (Value::new(&3)?, Value::new("abc")?);
    /// record.extend([("visits", &three), ("name", &text)])?;
    /// assert_eq!(record.entries().value_bytes(), three.as_bytes().len() + text.as_bytes().len());
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn value_bytes(self) -> usize {
        self.values.len()
    }

    /// The value of the entry of this name.
    ///
    /// ```
    /// # use sessile::{Record, Value};
    /// # let mut record = Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH);
    /// record.insert("visits", &Value::new(&3)?)?;
    /// let visits = record.entries().get("visits").expect("just inserted");
    /// assert_eq!(visits.get::<u32>()?, 3);
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn get(self, name: &str) -> Option<ValueRef<'a>> {
        self.find(name.as_bytes(), 0).ok().map(|index| self.value(index))
    }

    /// Whether there is an entry of this name.
    ///
    /// ```
    /// let record = sessile::Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH);
    /// assert!(!record.entries().contains("visits"));
    /// ```
    #[must_use]
    pub fn contains(self, name: &str) -> bool {
        self.find(name.as_bytes(), 0).is_ok()
    }

    /// The name and value of each entry.
    ///
    /// ```
    /// # use sessile::{Record, Value};
    /// # let mut record = Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH);
    /// let value = Value::new(&1)?;
    /// record.extend([("b", &value), ("a", &value)])?;
    /// let names: Vec<&str> = record.entries().iter().map(|(name, _)| name).collect();
    /// assert_eq!(names, ["a", "b"]);
    /// # Ok::<(), sessile::Error>(())
    /// ```
    pub fn iter(self) -> impl ExactSizeIterator<Item = (&'a str, ValueRef<'a>)> + DoubleEndedIterator {
        (0..self.len()).map(move |index| (block::text(self.name(index)), self.value(index)))
    }

    /// The name of each entry.
    ///
    /// ```
    /// # use sessile::{Record, Value};
    /// # let mut record = Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH);
    /// record.insert("visits", &Value::new(&1)?)?;
    /// assert!(record.entries().names().eq(["visits"]));
    /// # Ok::<(), sessile::Error>(())
    /// ```
    pub fn names(self) -> impl ExactSizeIterator<Item = &'a str> + DoubleEndedIterator {
        self.iter().map(|(name, _)| name)
    }

    /// Searches the entry with this name from position `from` on. Returns its position, or else the position where it
    /// would be inserted.
    #[inline]
    pub(super) fn find(self, name: &[u8], from: usize) -> Result<usize, usize> {
        let (mut low, mut high) = (from, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match compare(self.name(middle), name) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// The offsets at which an entry's name and value begin: the ends of the name and value before it.
    #[inline]
    pub(super) fn starts(self, index: usize) -> (usize, usize) {
        index.checked_sub(1).map_or((0, 0), |before| block::ends(self.table[before]))
    }

    pub(super) fn table(self) -> &'a [[u8; ROW]] {
        self.table
    }

    pub(super) fn name_region(self) -> &'a [u8] {
        self.names
    }

    pub(super) fn value_region(self) -> &'a [u8] {
        self.values
    }

    #[inline]
    fn name(self, index: usize) -> &'a [u8] {
        &self.names[self.starts(index).0..block::ends(self.table[index]).0]
    }

    #[inline]
    fn value(self, index: usize) -> ValueRef<'a> {
        ValueRef::of_bytes(&self.values[self.starts(index).1..block::ends(self.table[index]).1])
    }
}

/// The order of two names. Their first bytes usually decide, which saves a call of the C library.
#[inline]
fn compare(first: &[u8], second: &[u8]) -> Ordering {
    match (first, second) {
        ([a, ..], [b, ..]) if a != b => a.cmp(b),
        _ => first.cmp(second),
    }
}

/// Entries are equal if their names and values are equal.
impl PartialEq for Entries<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.table, self.names, self.values) == (other.table, other.names, other.values)
    }
}

impl Eq for Entries<'_> {}

/// Shows only the number and the size of the entries, because names and values do not belong in a log.
impl fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("len", &self.len()).field("bytes", &self.value_bytes()).finish()
    }
}
