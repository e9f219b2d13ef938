//! The bytes of a disk in memory: the durable bytes, and an overlay of later writes. Writes go to the overlay and never
//! to the bytes below it. So dropping the overlay reverts all that a check writes to its disk.
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// The unit of the overlay. If a write covers only a part of a block, the rest is copied from the durable bytes.
const BLOCK: usize = 4096;

/// The bytes of a disk. An address beyond the end is a bug of the caller, and panics.
pub(crate) struct Image {
    durable: Vec<u8>,
    overlay: HashMap<usize, Box<[u8]>>,
    /// The blocks that may have changed since the last call of [`take_changed`](Self::take_changed).
    changed: BTreeSet<usize>,
}

impl Image {
    /// A disk with these bytes; their number is rounded down to whole blocks.
    pub(crate) fn new(mut durable: Vec<u8>) -> Self {
        durable.truncate(durable.len() / BLOCK * BLOCK);
        Self { durable, overlay: HashMap::new(), changed: BTreeSet::new() }
    }

    /// A disk of zeroes, except for these extents.
    pub(crate) fn from_extents(bytes: u64, extents: &[(u64, Vec<u8>)]) -> Self {
        // Zeroed memory that was never written takes no physical memory.
        let mut image = Self::new(vec![0; index(bytes)]);
        for (offset, bytes) in extents {
            image.settle(*offset, bytes);
        }
        image
    }

    /// The size of the disk in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.durable.len() as u64
    }

    /// The current content of the disk.
    pub(crate) fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        for (block, within, part) in blocks(offset, length) {
            let source = self.overlay.get(&block).map_or_else(|| self.below(block), |over| &**over);
            bytes.extend_from_slice(&source[within..within + part]);
        }
        bytes
    }

    /// Writes to the overlay.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for (block, within, part) in blocks(offset, bytes.len()) {
            let (now, later) = rest.split_at(part);
            let below = &self.durable[block * BLOCK..][..BLOCK];
            let over = self.overlay.entry(block).or_insert_with(|| below.into());
            over[within..within + part].copy_from_slice(now);
            self.changed.insert(block);
            rest = later;
        }
    }

    /// Makes bytes durable that were never in the overlay.
    pub(crate) fn settle(&mut self, offset: u64, bytes: &[u8]) {
        self.durable[index(offset)..][..bytes.len()].copy_from_slice(bytes);
        self.changed.extend(blocks(offset, bytes.len()).map(|(block, ..)| block));
    }

    /// Makes all bytes of the overlay durable.
    pub(crate) fn settle_all(&mut self) {
        for (block, bytes) in self.overlay.drain() {
            self.durable[block * BLOCK..][..BLOCK].copy_from_slice(&bytes);
        }
    }

    /// Discards all writes that did not become durable.
    pub(crate) fn forget_writes(&mut self) {
        self.changed.extend(self.overlay.drain().map(|(block, _)| block));
    }

    /// Ranges of addresses that may have changed since the last call, because they were written or discarded.
    pub(crate) fn take_changed(&mut self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for block in std::mem::take(&mut self.changed) {
            let (start, end) = ((block * BLOCK) as u64, ((block + 1) * BLOCK) as u64);
            match ranges.last_mut() {
                Some(range) if range.end == start => range.end = end,
                _ => ranges.push(start..end),
            }
        }
        ranges
    }

    /// The durable blocks that are not zero: the argument of [`from_extents`](Self::from_extents).
    pub(crate) fn extents(&self) -> Vec<(u64, Vec<u8>)> {
        let mut extents: Vec<(u64, Vec<u8>)> = Vec::new();
        for (block, bytes) in self.durable.chunks(BLOCK).enumerate() {
            let offset = (block * BLOCK) as u64;
            if bytes.iter().all(|&byte| byte == 0) {
                continue;
            }
            match extents.last_mut() {
                Some((start, run)) if *start + run.len() as u64 == offset => run.extend_from_slice(bytes),
                _ => extents.push((offset, bytes.to_vec())),
            }
        }
        extents
    }

    fn below(&self, block: usize) -> &[u8] {
        &self.durable[block * BLOCK..][..BLOCK]
    }
}

/// The blocks that a range covers. For each: its number, the offset in it at which the range begins, and the number of
/// bytes.
fn blocks(offset: u64, length: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let (start, end) = (index(offset), index(offset) + length);
    (start / BLOCK..end.div_ceil(BLOCK)).map(move |block| {
        let from = start.max(block * BLOCK);
        (block, from - block * BLOCK, end.min((block + 1) * BLOCK) - from)
    })
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a disk in memory is addressed by a usize")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_until_it_is_forgotten() {
        let mut image = Image::from_extents(4 * BLOCK as u64, &[(4090, vec![1; 12])]);
        assert_eq!(image.read(4088, 16), [&[0; 2][..], &[1; 12], &[0; 2]].concat());
        image.write(4094, &[2; 4]);
        let over = [&[1; 4][..], &[2; 4], &[1; 4]].concat();
        assert_eq!(image.read(4090, 12), over);
        image.forget_writes();
        assert_eq!(image.read(4090, 12), [1; 12]);
        image.write(4094, &[2; 4]);
        image.settle_all();
        image.forget_writes();
        assert_eq!(image.read(4090, 12), over);
    }

    #[test]
    fn what_changes_is_told_once_and_again_when_it_is_forgotten() {
        let mut image = Image::new(vec![0; 8 * BLOCK]);
        image.settle(0, &[1]);
        image.write(4095, &[2; 2]);
        image.write(5 * BLOCK as u64, &[3]);
        let block = BLOCK as u64;
        assert_eq!(image.take_changed(), [0..2 * block, 5 * block..6 * block]);
        assert!(image.take_changed().is_empty());
        image.forget_writes();
        assert_eq!(image.take_changed(), [0..2 * block, 5 * block..6 * block]);
        image.forget_writes();
        assert!(image.take_changed().is_empty());
    }

    #[test]
    fn extents_make_the_same_image_again() {
        let mut image = Image::new(vec![0; 8 * BLOCK]);
        image.settle(BLOCK as u64 - 1, &[7; 2]);
        image.settle(5 * BLOCK as u64, &[9]);
        let extents = image.extents();
        assert_eq!(extents.len(), 2, "neighbours are joined, zeroes are left out");
        let again = Image::from_extents(image.len(), &extents);
        assert_eq!(again.read(0, 8 * BLOCK), image.read(0, 8 * BLOCK));
    }
}
