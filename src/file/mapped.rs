//! Reading one counter in a mapped file: the crate's only `unsafe` code.
#![expect(unsafe_code, reason = "memory that other processes change cannot be read through a reference")]
use memmap2::MmapRaw;
use std::sync::atomic::{AtomicU32, Ordering};

/// The value of the counter with this index at some instant during the call; it may be torn between two values if it is
/// written meanwhile.
///
/// # Panics
///
/// If the mapping has no such counter.
#[expect(clippy::cast_ptr_alignment, reason = "a mapping begins at a page")]
pub(super) fn load(map: &MmapRaw, index: usize) -> u64 {
    assert!(index < map.len() / size_of::<u64>(), "no counter {index} in a mapping of {} bytes", map.len());
    let halves = map.as_ptr().cast_mut().cast::<u32>();
    let half = |n: usize| {
        // SAFETY: the assertion keeps the index within the mapping, which `map` keeps in place; it begins at a page, so
        // every half is aligned. Others change the memory at any instant, hence the atomics; no reference to it exists in
        // this process, and nobody here writes to it: the mapping is read-only. On read-only memory an atomic load is
        // allowed if it is relaxed and small, and 4 bytes are on every target (std::sync::atomic, "Atomic accesses to
        // read-only memory"); who needs an order sets a fence. We never make the file shorter: if somebody does, the load
        // ends the process (SIGBUS), it does not return.
        unsafe { AtomicU32::from_ptr(halves.add(n)).load(Ordering::Relaxed) }
    };
    // Files hold little-endian integers.
    let [low, high] = [half(2 * index), half(2 * index + 1)].map(u32::from_le);
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use memmap2::MmapOptions;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_counter_says_what_was_last_written_to_its_place_in_the_file() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[0; 8192], 0).unwrap();
        let map = MmapOptions::new().len(8192).map_raw_read_only(&file).unwrap();
        for (index, value) in [(0, 1), (1, u64::MAX), (1023, 0x0102_0304_0506_0708), (0, 7)] {
            file.write_all_at(&u64::to_le_bytes(value), 8 * index as u64).unwrap();
            assert_eq!(load(&map, index), value);
        }
        assert_eq!(load(&map, 2), 0);
    }

    #[test]
    #[should_panic(expected = "no counter 1024")]
    fn a_counter_beyond_the_end_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        load(&MmapOptions::new().len(8192).map_raw_read_only(&file).unwrap(), 1024);
    }
}
