//! Changes of a record's entries: makes a new block from the old one and the changes, in one pass.
//!
//! The names and the values between two changes are each copied as a whole. Their ends in the table move by the number
//! of bytes that the changes before them added.
use super::block::{self, BYTES_MAX, HEADER_LEN, ROW};
use super::entries::Entries;
use crate::value::ValueRef;
use std::iter::repeat_n;
use std::sync::Arc;

/// One change: an entry's name, and its new value; `None` removes it.
pub(crate) type Edit<'a> = (&'a str, Option<ValueRef<'a>>);

/// The error of a change after which the block would be larger than any record may be.
#[derive(Debug)]
pub(super) struct TooLarge;

/// Applies changes in the order of their names, at most one of each name. A removal of an absent entry changes nothing.
pub(super) fn splice(block: &[u8], edits: &[Edit<'_>]) -> Result<Arc<[u8]>, TooLarge> {
    let old = Entries::of(block);
    debug_assert!(edits.is_sorted_by(|(a, _), (b, _)| a < b), "each name once, in order");
    if let [(name, Some(value))] = edits
        && let Some(block) = overwrite(block, old, name, value.as_bytes())
    {
        return Ok(block);
    }
    let size = Size::after(old, edits)?;
    let text_at = block::text_at(block);
    let fixed = &block[text_at..][..block::user_len(block) + block::note_len(block)];
    let total = HEADER_LEN + ROW * size.count + fixed.len() + size.names + size.values;
    if total > BYTES_MAX {
        return Err(TooLarge);
    }
    let mut spliced: Arc<[u8]> = repeat_n(0, total).collect();
    let (header, rest) =
        Arc::get_mut(&mut spliced).expect("a new block has one owner").split_at_mut(HEADER_LEN);
    let (table, rest) = rest.split_at_mut(ROW * size.count);
    let (text, rest) = rest.split_at_mut(fixed.len());
    let (names, values) = rest.split_at_mut(size.names);
    header.copy_from_slice(&block[..HEADER_LEN]);
    block::put_count(header, size.count);
    text.copy_from_slice(fixed);
    let (table, _) = table.as_chunks_mut();
    let mut writer = Writer { old, table, names, values, rows: 0, name_at: 0, value_at: 0 };
    let mut next = 0;
    for (name, value) in edits {
        let (found, behind) = place(old, name, next);
        writer.copy(next, found);
        if let Some(value) = value {
            writer.push(name.as_bytes(), value.as_bytes());
        }
        next = behind;
    }
    writer.copy(next, old.len());
    Ok(spliced)
}

/// Replaces a value by another one of the same length (a counter, a flag, a time): the block is copied and the value
/// overwritten. That takes a quarter of the instructions.
fn overwrite(block: &[u8], old: Entries<'_>, name: &str, value: &[u8]) -> Option<Arc<[u8]>> {
    let index = old.find(name.as_bytes(), 0).ok()?;
    let (start, end) = (old.starts(index).1, old.starts(index + 1).1);
    if end - start != value.len() {
        return None;
    }
    let values_at = block.len() - old.value_region().len();
    let mut copy = Arc::from(block);
    let bytes: &mut [u8] = Arc::make_mut(&mut copy);
    bytes[values_at + start..values_at + end].copy_from_slice(value);
    Some(copy)
}

/// The position of the entry with a name, or the position where it would be inserted; and the position of the entry
/// after it.
fn place(old: Entries<'_>, name: &str, from: usize) -> (usize, usize) {
    match old.find(name.as_bytes(), from) {
        Ok(index) => (index, index + 1),
        Err(index) => (index, index),
    }
}

/// The number and the sizes of the entries of a block.
struct Size {
    count: usize,
    names: usize,
    values: usize,
}

impl Size {
    fn after(old: Entries<'_>, edits: &[Edit<'_>]) -> Result<Self, TooLarge> {
        let mut size =
            Self { count: old.len(), names: old.name_region().len(), values: old.value_region().len() };
        let mut next = 0;
        for (name, value) in edits {
            let (found, behind) = place(old, name, next);
            let ((name_at, value_at), (name_end, value_end)) = (old.starts(found), old.starts(behind));
            size.count -= behind - found;
            size.names -= name_end - name_at;
            size.values -= value_end - value_at;
            if let Some(value) = value {
                size.count += 1;
                size.names = size.names.checked_add(name.len()).ok_or(TooLarge)?;
                size.values = size.values.checked_add(value.as_bytes().len()).ok_or(TooLarge)?;
            }
            // Each sum is compared with the bound in each step, so that the total cannot overflow.
            if size.names.max(size.values) > 2 * BYTES_MAX {
                return Err(TooLarge);
            }
            next = behind;
        }
        Ok(size)
    }
}

/// The new block, and how much of its entries has been written.
struct Writer<'a> {
    old: Entries<'a>,
    table: &'a mut [[u8; ROW]],
    names: &'a mut [u8],
    values: &'a mut [u8],
    rows: usize,
    name_at: usize,
    value_at: usize,
}

impl Writer<'_> {
    /// Copies the old entries in a range of positions.
    fn copy(&mut self, from: usize, to: usize) {
        if from == to {
            return;
        }
        let ((name_at, value_at), (name_end, value_end)) = (self.old.starts(from), self.old.starts(to));
        for row in &self.old.table()[from..to] {
            let (name, value) = block::ends(*row);
            self.table[self.rows] =
                block::row(name - name_at + self.name_at, value - value_at + self.value_at);
            self.rows += 1;
        }
        self.append(
            &self.old.name_region()[name_at..name_end],
            &self.old.value_region()[value_at..value_end],
        );
    }

    /// Writes one new entry.
    fn push(&mut self, name: &[u8], value: &[u8]) {
        self.append(name, value);
        self.table[self.rows] = block::row(self.name_at, self.value_at);
        self.rows += 1;
    }

    fn append(&mut self, names: &[u8], values: &[u8]) {
        self.names[self.name_at..][..names.len()].copy_from_slice(names);
        self.values[self.value_at..][..values.len()].copy_from_slice(values);
        self.name_at += names.len();
        self.value_at += values.len();
    }
}
