//! Reads one counter in a mapped file. This file and `fork` have the only `unsafe` code of the crate.
#![expect(unsafe_code, reason = "memory that other processes change is outside the language")]
use crate::sync::step;
use memmap2::MmapRaw;
use std::sync::atomic::{AtomicU32, Ordering};

/// The value of the counter with this index. If another process writes the counter during the call, the result may have
/// one half of the old value and one half of the new one.
///
/// # Panics
///
/// If the mapping has no such counter.
#[inline]
#[expect(clippy::cast_ptr_alignment, reason = "a mapping begins at a page")]
pub(super) fn load(map: &MmapRaw, index: usize) -> u64 {
    assert!(index < map.len() / size_of::<u64>(), "no counter {index} in a mapping of {} bytes", map.len());
    let halves = map.as_ptr().cast::<AtomicU32>();
    let half = |n: usize| {
        step();
        // SAFETY: (1) The pointer is valid: the assertion keeps the index within the mapping, and `map` keeps the
        // mapping in place. (2) It is aligned, because the mapping begins at a page. (3) Other processes change the
        // memory at any instant, which a shared reference to an atomic allows. This process never writes to it. (4) The
        // mapping is read-only. An atomic load from read-only memory is allowed if it is relaxed and of at most 4 bytes
        // (std::sync::atomic, "Atomic accesses to read-only memory"); callers that need an order set a fence. (5) If
        // another program makes the file shorter, the load ends the process (SIGBUS) instead of returning. This crate
        // never makes the file shorter.
        unsafe { &*halves.add(n) }.load(Ordering::Relaxed)
    };
    // The file holds the counters as little-endian integers.
    let [low, high] = [half(2 * index), half(2 * index + 1)].map(u32::from_le);
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use memmap2::{MmapMut, MmapOptions};
    use std::os::unix::fs::FileExt;

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no file")]
    fn a_counter_reads_the_last_value_written_to_its_place() {
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
    #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins at a page")]
    fn a_counter_is_read_while_another_thread_writes_it() {
        let map = MmapRaw::from(MmapMut::map_anon(8192).unwrap());
        let written = if cfg!(miri) { 50 } else { 100_000 };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // SAFETY: the index is below the 2,048 halves of the mapping, which outlives the scope. Both threads
                // use atomics alone.
                let half = unsafe { &*map.as_mut_ptr().cast::<AtomicU32>().add(2 * 5) };
                (1..=written).for_each(|n: u32| half.store(n.to_le(), Ordering::Relaxed));
            });
            let mut last = 0;
            while last < u64::from(written) {
                let read = load(&map, 5);
                assert!((last..=u64::from(written)).contains(&read), "{read} after {last}");
                last = read;
            }
        });
        for other in (0..1024).filter(|index| *index != 5) {
            assert_eq!(load(&map, other), 0);
        }
    }

    #[test]
    #[should_panic(expected = "no counter 1024")]
    fn a_counter_beyond_the_end_is_refused() {
        load(&MmapRaw::from(MmapMut::map_anon(8192).unwrap()), 1024);
    }
}
