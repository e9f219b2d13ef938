//! Shared counters that tell whether a cached copy is still the newest.
//!
//! ```text
//! root/generations    2 MiB: 512 cells for each of the 256 shards, in order
//! cell                [ saves | ends ], 8 bytes each, little-endian
//!                     which of the 512: bytes 2 and 3 of the FileId, little-endian, mod 512
//! ```
//!
//! Every process that keeps copies maps the file *read-only*. Whoever changed a session announces it: a `pwrite` of a
//! value that never repeats into the session's cell. Whoever reads a session notes the cell's [`Stamp`] first, and trusts
//! the copy only while the cell still says the same. A hit costs two loads and no system call.
//!
//! Invariants; the argument built on them is in [`design`](crate::design):
//!
//! - **A value is never written twice** while anybody may remember it. Each open store counts on from a point drawn at
//!   random, and multiplies by an odd number, which keeps different counts different, and neighbours different in both
//!   halves: also a reading torn between two values is like no third one.
//! - **`saves` moves with every save, under the session's lock; `ends` with everything that ends a session**, with or
//!   without its lock. So a writer that was passed by a logout, and goes on, cannot overwrite the logout's announcement.
//! - **The file is never resized, and never written through a mapping.** On a full disk a store through a mapping kills
//!   the process; a `pwrite` fails politely. It is written full of zeros when it is made, so that there is no hole that
//!   would need space later, and on btrfs without copy-on-write, for the same reason.
//! - **It is made, or made anew, only under the exclusive lock of the root**: processes with different files could not
//!   hear each other.
//!
//! Several sessions share a cell; one's save then costs the others' copies one more look at their files. With w saves
//! on the host between two loads of a session, that happens to w of 131,072 loads: with a thousand saves a second and a
//! visitor who returns every ten seconds, 8 %.
use super::disk::{self, Root, counters};
use super::io_error;
use super::layout::{GENERATIONS, SHARDS};
use crate::error::Result;
use crate::id::FileId;
use crate::random;
use crate::sync::step;
use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Miri, which opens no shared counters, takes half a minute to make that many; the fuzzer has a page of them, so that sessions
/// also share a cell.
const CELLS_PER_SHARD: usize = if cfg!(miri) {
    2
} else if cfg!(sessile_fuzzing) {
    64
} else {
    512
};
const COUNTERS_PER_SHARD: usize = 2 * CELLS_PER_SHARD;
const COUNTERS: usize = COUNTERS_PER_SHARD * SHARDS as usize;
const COUNTER_BYTES: usize = size_of::<u64>();
pub(super) const FILE_BYTES: usize = COUNTERS * COUNTER_BYTES;
/// Odd, and without a pattern: the golden ratio's digits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a session's cell said at some instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) saves: u64,
    pub(super) ends: u64,
}

/// What is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// There is a new version, or may be.
    Saved,
    /// The session ended, or may have.
    Ended,
}

/// The counters of one open store.
#[derive(Debug)]
pub(super) struct Generations {
    seen: Seen,
    /// How many values this store has written, from a random start.
    written: AtomicU64,
}

/// Where the counters are.
#[derive(Debug)]
enum Seen {
    /// In the file, mapped.
    Mapped(File, MmapRaw),
    /// In the file; this store asks each session's file instead.
    Unmapped(File),
    /// In this process, which has the directory to itself.
    Own(Box<[AtomicU64]>),
}

impl Generations {
    /// Counters for a store that has its directory to itself.
    pub(super) fn own() -> Result<Self> {
        Self::new(Seen::Own((0..COUNTERS).map(|_| AtomicU64::new(0)).collect()))
    }

    /// Opens the shared counters; `None` if there are none, or none of the right size. The root must be locked.
    pub(super) fn open(root: &Root, mapped: bool) -> Result<Option<Self>> {
        const ACT: &str = "open the generations of session store";
        let error = |error| io_error(ACT, error).with_path(root.path().join(GENERATIONS));
        let file = match root.open_generations() {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            // Its making was cut short before its mode was set, under a umask that takes the owner's rights away.
            Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
            Err(cause) => return Err(error(cause)),
        };
        if counters::regular_size(&file).map_err(error)? != FILE_BYTES as u64 {
            return Ok(None);
        }
        if !mapped {
            return Self::new(Seen::Unmapped(file)).map(Some);
        }
        let map = counters::map(MmapOptions::new().len(FILE_BYTES), &file).map_err(error)?;
        // Nor shall reading ahead bring the pages in as one.
        counters::expect_random_access(&file, &map);
        Self::new(Seen::Mapped(file, map)).map(Some)
    }

    /// Makes the file anew: another inode, for what is there may be a link to somebody's file. The root must be locked
    /// exclusively.
    pub(super) fn make(root: &Root) -> Result<()> {
        let made = root.make_generations().and_then(|file| {
            root.sharing().set_mode(&file)?;
            counters::avoid_copy_on_write(&file);
            // Page by page: the kernel keeps what is written at once as one folio, and then goes through all of it, which
            // takes 4 µs, at every announcement.
            let page = [0; 4096];
            (0..FILE_BYTES).step_by(page.len()).try_for_each(|at| disk::write_at(&file, &page, at as u64))
        });
        made.map_err(|error| {
            // A part of it would be made anew as well; it need not take the space until then.
            let _ = root.remove_generations();
            io_error("make the generations of session store", error).with_path(root.path().join(GENERATIONS))
        })
    }

    fn new(seen: Seen) -> Result<Self> {
        let start = random::bytes("draw a starting point for generations")?;
        Ok(Self { seen, written: AtomicU64::new(u64::from_le_bytes(start)) })
    }

    /// What the session's cell says now. Read before the session's file is opened, it dates what is then read there.
    pub(super) fn stamp(&self, id: &FileId) -> Stamp {
        let at = counter_of(id);
        let stamp = match &self.seen {
            Seen::Mapped(_, map) => {
                Stamp { saves: super::mapped::load(map, at), ends: super::mapped::load(map, at + 1) }
            }
            Seen::Own(counters) => {
                let load = |at: usize| {
                    step();
                    counters[at].load(Ordering::Relaxed)
                };
                Stamp { saves: load(at), ends: load(at + 1) }
            }
            Seen::Unmapped(_) => Stamp::default(),
        };
        // What is read after this is not older than what was announced before it.
        fence(Ordering::Acquire);
        stamp
    }

    /// Tells everybody who has a copy of the session to look at its file. Returns what `saves` is now.
    ///
    /// # Errors
    ///
    /// Nobody was told.
    pub(super) fn announce(&self, id: &FileId, news: News) -> io::Result<u64> {
        let (at, saves) = (counter_of(id), self.fresh());
        match news {
            News::Saved => self.write(at, [saves])?,
            News::Ended => self.write(at, [saves, self.fresh()])?,
        }
        Ok(saves)
    }

    /// Tells everybody who has a copy of a session of this shard.
    ///
    /// # Errors
    ///
    /// Some were not told.
    #[cfg(feature = "watch")]
    pub(super) fn announce_shard(&self, shard: u16) -> io::Result<()> {
        let first = COUNTERS_PER_SHARD * usize::from(shard);
        self.write::<COUNTERS_PER_SHARD>(first, std::array::from_fn(|_| self.fresh()))
    }

    /// Sets counters that lie one after the other.
    fn write<const N: usize>(&self, first: usize, values: [u64; N]) -> io::Result<()> {
        match &self.seen {
            Seen::Mapped(file, _) | Seen::Unmapped(file) => {
                let bytes = values.map(u64::to_le_bytes);
                disk::announce_at(file, bytes.as_flattened(), (first * COUNTER_BYTES) as u64)
            }
            Seen::Own(counters) => {
                for (counter, value) in counters[first..].iter().zip(values) {
                    step();
                    counter.store(value, Ordering::Release);
                }
                Ok(())
            }
        }
    }

    fn fresh(&self) -> u64 {
        self.written.fetch_add(1, Ordering::Relaxed).wrapping_mul(SPREAD)
    }
}

/// Where the session's cell begins, in counters.
fn counter_of(id: &FileId) -> usize {
    // The second byte chooses the queue among writers, and has no part in this.
    let [shard, _, a, b, ..] = *id.as_bytes();
    COUNTERS_PER_SHARD * usize::from(shard) + 2 * (usize::from(u16::from_le_bytes([a, b])) % CELLS_PER_SHARD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use std::collections::HashSet;

    fn id(n: u32) -> FileId {
        FileId::digest(&n.to_le_bytes())
    }
    fn store() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }
    /// Every kind of counters in which a stamp means something.
    fn kinds(root: &Root) -> [Generations; 2] {
        Generations::make(root).unwrap();
        [Generations::own().unwrap(), Generations::open(root, true).unwrap().unwrap()]
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn an_announcement_moves_the_stamp_of_its_session_as_far_as_it_says_and_no_others() {
        let (_dir, root) = store();
        for generations in kinds(&root) {
            let (told, other) = (id(1), id(2));
            assert_ne!(counter_of(&told), counter_of(&other));
            let before = [generations.stamp(&told), generations.stamp(&other)];
            let fresh = generations.announce(&told, News::Saved).unwrap();
            let after_save = generations.stamp(&told);
            assert_eq!((after_save.saves, after_save.ends), (fresh, before[0].ends));
            assert_ne!(after_save.saves, before[0].saves);
            generations.announce(&told, News::Ended).unwrap();
            let after_end = generations.stamp(&told);
            assert!(after_end.saves != after_save.saves && after_end.ends != after_save.ends);
            assert_eq!(generations.stamp(&other), before[1]);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn whoever_has_the_file_open_hears_what_others_announce_whether_they_have_it_in_memory_or_not() {
        let (_dir, root) = store();
        let [_, hears] = kinds(&root);
        for mapped in [true, false] {
            let tells = Generations::open(&root, mapped).unwrap().unwrap();
            let before = hears.stamp(&id(7));
            let saves = tells.announce(&id(7), News::Saved).unwrap();
            assert_eq!(hears.stamp(&id(7)), Stamp { saves, ends: before.ends });
        }
    }

    #[cfg(feature = "watch")]
    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn a_shards_announcement_moves_the_stamps_of_all_its_sessions_and_no_others() {
        let (_dir, root) = store();
        let ids: Vec<_> = (0..2000).map(id).collect();
        for generations in kinds(&root) {
            for shard in [0, 0x7f, 0xff] {
                let before: Vec<_> = ids.iter().map(|id| generations.stamp(id)).collect();
                generations.announce_shard(shard).unwrap();
                for (id, before) in ids.iter().zip(before) {
                    let now = generations.stamp(id);
                    let [saves, ends] = [now.saves != before.saves, now.ends != before.ends];
                    let mine = u16::from(id.as_bytes()[0]) == shard;
                    assert_eq!([saves, ends], [mine, mine], "{id} in shard {shard}");
                }
            }
        }
    }

    /// For Miri, which lets a thread see whatever old values the orderings allow. Elsewhere it can hardly fail.
    #[test]
    fn what_is_read_after_a_stamp_is_as_new_as_what_was_announced_before_it() {
        let (generations, id) = (Generations::own().unwrap(), id(1));
        for news in [News::Saved, News::Ended].into_iter().cycle().take(200) {
            let (file, before) = (AtomicU64::new(0), generations.stamp(&id));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    file.store(1, Ordering::Relaxed);
                    generations.announce(&id, news).unwrap();
                });
                while generations.stamp(&id) == before {
                    std::thread::yield_now();
                }
                assert_eq!(file.load(Ordering::Relaxed), 1, "a copy of before is dated with {news:?}");
            });
        }
    }

    #[test]
    fn sessions_are_spread_over_all_cells() {
        let ids = if cfg!(miri) { 100 } else { 1_000_000 };
        let cells: HashSet<_> = (0..ids).map(|n| counter_of(&id(n))).collect();
        assert!(cells.iter().all(|counter| counter % 2 == 0 && counter + 1 < COUNTERS));
        if cfg!(miri) {
            return;
        }
        // Of 131,072 cells, a million ids miss one with a chance of 1 in 2,000.
        assert!(cells.len() > COUNTERS / 2 - 300, "{} cells are used", cells.len());
    }

    #[test]
    fn values_do_not_repeat_and_share_no_half_with_their_neighbours() {
        let generations = Generations::own().unwrap();
        let values: Vec<_> =
            (0..if cfg!(miri) { 100 } else { 100_000 }).map(|_| generations.fresh()).collect();
        assert_eq!(values.iter().collect::<HashSet<_>>().len(), values.len());
        for pair in values.windows(2) {
            let difference = pair[0] ^ pair[1];
            assert!(difference << 32 != 0 && difference >> 32 != 0, "{pair:x?}");
        }
        assert_ne!(Generations::own().unwrap().fresh(), values[0], "each open store begins elsewhere");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn the_file_is_made_full_size_without_a_hole_and_any_other_size_is_not_taken_for_it() {
        use std::os::unix::fs::MetadataExt;
        let (dir, root) = store();
        let path = dir.path().join(GENERATIONS);
        assert!(Generations::open(&root, true).unwrap().is_none());
        Generations::make(&root).unwrap();
        let made = std::fs::metadata(&path).unwrap();
        assert_eq!((made.len(), made.mode() & 0o7777), (FILE_BYTES as u64, 0o600));
        assert!(made.blocks() * 512 >= FILE_BYTES as u64, "it has holes");
        for length in [0, 1, FILE_BYTES as u64 - 1, FILE_BYTES as u64 + 1] {
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
            assert!(Generations::open(&root, true).unwrap().is_none(), "{length} bytes");
            Generations::make(&root).unwrap();
            assert!(Generations::open(&root, true).unwrap().is_some(), "{length} bytes, made anew");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn a_directory_in_its_place_is_an_error_that_names_it_and_stays() {
        let (dir, root) = store();
        let path = dir.path().join(GENERATIONS);
        std::fs::create_dir(&path).unwrap();
        let error = Generations::make(&root).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Foreign, Some(&*path)));
        assert!(path.is_dir());
    }
}
