//! Cache invalidation between processes: shared counters that show whether a cached copy of a session is still its
//! newest version.
//!
//! The file `run/generations` holds the counters. The public id of a session selects its *cell*, a pair of counters:
//! `saves` changes with every save of the session, `ends` when the session ends. Several sessions share a cell. The
//! bytes of the file are in [`format`](crate::_documentation::format).
//!
//! Every process with a cache maps the file *read-only*. A process that reads a session file first reads the session's
//! cell; these two values are the copy's [`Stamp`]. A process that changes a session *invalidates* all copies of it: it
//! writes a value that never repeats into the cell, with `pwrite`. A copy is returned only while its stamp equals the
//! cell. So a hit costs two loads of memory and no system call.
//!
//! Invariants; the argument built on them is in [`design`](crate::_documentation::design):
//!
//! - **A value is never written twice** while a copy may have it in its stamp. Each open store counts up from a random
//!   start, and writes the count times an odd number. The product keeps different counts different. It also makes two
//!   consecutive values differ in both halves. So if a reader sees one half of the old value and one half of the new
//!   one, this mixture equals no third value.
//! - **`saves` changes with every save, under the session's lock; `ends` with every operation that ends a session**,
//!   with or without its lock. So a writer that was stopped while a logout ended its session, and then continues,
//!   cannot overwrite the logout's invalidation.
//! - **The file is never resized, and never written through a mapping.** On a full disk, a write through a mapping
//!   kills the process, whereas `pwrite` returns an error. A new file is filled with zeros, so that it has no hole that
//!   would need space later. On btrfs it is made without copy-on-write, for the same reason.
//! - **Only the file that has the name counts.** A restored backup may replace the file while processes have it mapped.
//!   Therefore an invalidation is complete only if its file still has a name afterwards. Each process compares the name
//!   with its file once a second, while it loads or saves. A stamp from one file never equals a stamp from another.
//!
//! Because sessions share cells, a save of one makes the next load of the others read their files. With w saves on the
//! host between two loads of a session, that happens to w of 131,072 loads: with a thousand saves a second and a
//! visitor who returns every ten seconds, 8 %.
mod counters;

pub(super) use counters::{Counters, Stamp};

use super::disk::Root;
use crate::clock::CoarseTime;
use crate::error::Result;
use crate::id::PublicId;
use crate::random;
use crate::sync::RwLock;
use counters::{COUNTERS_PER_SHARD, CUT_OFFS_AT, counter_of};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The factor by which a store multiplies its count of values: the digits of the golden ratio, an odd number without a
/// pattern in its bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// How long a store uses its generations file before it checks again that the file still has the name. One second costs
/// three system calls a second, and bounds the time for which copies are compared with a replaced file. Unit tests and
/// the fuzzer count system calls, so they never make this check because time has passed.
const CHECK_MICROS: u64 = if cfg!(any(test, sessile_fuzzing)) { u64::MAX - 1 } else { 1_000_000 };

/// The cause of an invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A save may have written a new version.
    Saved,
    /// The session may have ended.
    Ended,
}

/// The result of an invalidation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Invalidated {
    /// The new value of `saves`.
    pub(super) saves: u64,
    /// The number of the [`Counters`] that were written to.
    pub(super) counters: u64,
    /// Whether the write went to this store's current counters, in a file that still had a name afterwards.
    pub(super) is_current: bool,
}

/// The counters that one open store uses. Their file may be replaced while the store is open.
#[derive(Debug)]
pub(super) struct Generations {
    current: Current,
    /// The number of values that this store has written, plus a random start.
    written: AtomicU64,
    /// The time of the last check that the file still has the name, in microseconds since 1970.
    checked_at: AtomicU64,
}

/// Where a store has its counters.
#[derive(Debug)]
enum Current {
    /// The counters are in no shared file: the store is read-only, and has none, or is a test's.
    Fixed(Arc<Counters>),
    /// The counters are in the file `run/generations`. `mapped` is false for a store without a cache, which only writes
    /// to it. `counters` is replaced when another file gets the name.
    Shared { root: Root, mapped: bool, counters: RwLock<Arc<Counters>> },
}

impl Generations {
    /// The counters of a read-only store: it has none, and invalidates nothing.
    pub(super) fn none() -> Result<Self> {
        Self::fixed(Counters::none())
    }

    #[cfg(test)]
    pub(super) fn own() -> Result<Self> {
        Self::fixed(Counters::private())
    }

    fn fixed(counters: Counters) -> Result<Self> {
        Self::new(Current::Fixed(Arc::new(counters)), 0)
    }

    /// Opens the shared counters. Makes the file if it is missing or has the wrong size. The caller has locked the
    /// root.
    pub(super) fn open(root: &Root, mapped: bool, now: CoarseTime) -> Result<Self> {
        let counters = RwLock::new(Arc::new(Counters::open_or_make(root, mapped, 0)?));
        Self::new(Current::Shared { root: root.clone(), mapped, counters }, now.micros())
    }

    fn new(current: Current, checked_at: u64) -> Result<Self> {
        let start = random::bytes("draw a starting point for generations")?;
        let written = AtomicU64::new(u64::from_le_bytes(start));
        Ok(Self { current, written, checked_at: AtomicU64::new(checked_at) })
    }

    /// The counters with which stamps are compared now.
    pub(super) fn counters(&self) -> Arc<Counters> {
        match &self.current {
            Current::Fixed(counters) => Arc::clone(counters),
            Current::Shared { counters, .. } => Arc::clone(&counters.read()),
        }
    }

    /// Reads the session's cell. The result is the stamp of a copy that is read from the session file after this call.
    pub(super) fn stamp(&self, id: &PublicId) -> Stamp {
        match &self.current {
            Current::Fixed(counters) => counters.stamp(id),
            Current::Shared { counters, .. } => counters.read().stamp(id),
        }
    }

    /// Invalidates the copies of a session in all processes.
    ///
    /// # Errors
    ///
    /// No copy was invalidated.
    pub(super) fn invalidate(&self, id: &PublicId, cause: Cause) -> io::Result<Invalidated> {
        let (counters, at, saves) = (self.counters(), counter_of(id), self.fresh());
        let is_named = match cause {
            Cause::Saved => counters.write(at, [saves])?,
            Cause::Ended => counters.write(at, [saves, self.fresh()])?,
        };
        let is_current = is_named && self.are_current(&counters);
        Ok(Invalidated { saves, counters: counters.number(), is_current })
    }

    /// Changes the counter of cut-offs, so that each process reads the log of cut-offs again before it returns another
    /// copy.
    ///
    /// # Errors
    ///
    /// The counter did not change.
    pub(super) fn move_cut_offs(&self) -> io::Result<Invalidated> {
        let (counters, value) = (self.counters(), self.fresh());
        let is_current = counters.write(CUT_OFFS_AT, [value])? && self.are_current(&counters);
        Ok(Invalidated { saves: value, counters: counters.number(), is_current })
    }

    /// Invalidates the copies of all sessions of a shard. Returns whether the write went to this store's current
    /// counters, in a file that still had a name afterwards.
    pub(super) fn invalidate_shard(&self, shard: u16) -> io::Result<bool> {
        let counters = self.counters();
        let first = COUNTERS_PER_SHARD * usize::from(shard);
        let is_named = counters.write::<COUNTERS_PER_SHARD>(first, std::array::from_fn(|_| self.fresh()))?;
        Ok(is_named && self.are_current(&counters))
    }

    /// Whether the store still uses these counters. Another thread may have switched to another file meanwhile.
    fn are_current(&self, written: &Arc<Counters>) -> bool {
        matches!(self.current, Current::Fixed(_)) || Arc::ptr_eq(written, &self.counters())
    }

    /// Whether [`CHECK_MICROS`] have passed since the last check of the name by
    /// [`reopen_if_replaced`](Self::reopen_if_replaced). Costs one load of memory.
    #[inline]
    pub(super) fn is_check_due(&self, now: CoarseTime) -> bool {
        // If the clock was set back, the difference wraps around to a large number, and the check is due.
        now.micros().wrapping_sub(self.checked_at.load(Ordering::Relaxed)) >= CHECK_MICROS
    }

    /// Makes the next load or save check the name at once.
    #[cfg(feature = "watch")]
    pub(super) fn make_check_due(&self) {
        self.checked_at.store(0, Ordering::Relaxed);
    }

    /// Checks whether this store's file still has the name `run/generations`. If not, switches to the file that has the
    /// name, or makes one. The new counters are passed to `hand_over` before any thread can write to them. Returns the
    /// number of the current counters.
    ///
    /// # Errors
    ///
    /// Another file has the name, and cannot be opened. Processes that use that file do not see the invalidations of
    /// this process, and this process does not see theirs.
    pub(super) fn reopen_if_replaced(
        &self,
        now: CoarseTime,
        hand_over: impl FnOnce(&Arc<Counters>),
    ) -> io::Result<u64> {
        let outcome = match &self.current {
            Current::Fixed(counters) => Ok(counters.number()),
            Current::Shared { counters, root, .. } if counters.read().has_the_name(root) => {
                Ok(counters.read().number())
            }
            Current::Shared { counters, root, mapped } => {
                let mut current = counters.write();
                // Another thread may have switched to the file while this thread waited for the lock.
                if current.has_the_name(root) {
                    Ok(current.number())
                } else {
                    let (next, outcome) = current.successor(root, *mapped);
                    if let Some(next) = next {
                        *current = Arc::new(next);
                        hand_over(&current);
                    }
                    outcome.map(|()| current.number())
                }
            }
        };
        self.checked_at.store(now.micros(), Ordering::Relaxed);
        outcome
    }

    fn fresh(&self) -> u64 {
        self.written.fetch_add(1, Ordering::Relaxed).wrapping_mul(SPREAD)
    }
}

#[cfg(test)]
mod tests {
    use super::counters::FILE_BYTES;
    use super::*;
    use crate::clock::Clock;
    use crate::error::ErrorKind;
    use crate::file::disk::faults::during;
    use crate::file::layout::{GENERATIONS_PATH, RUN};
    use std::cell::Cell;
    use std::collections::HashSet;
    use std::fs::File;
    use std::path::Path;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    fn id(n: u32) -> PublicId {
        PublicId::digest(&n.to_le_bytes())
    }
    fn store() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }
    /// The time of a manual clock that was not moved: the beginning of 1970.
    fn start() -> CoarseTime {
        Clock::manual(UNIX_EPOCH).now_coarse()
    }
    fn opened(root: &Root, mapped: bool) -> Generations {
        Generations::open(root, mapped, start()).unwrap()
    }
    /// The two kinds of counters that can be read: those in this process's memory, and those in a mapped file.
    fn kinds(root: &Root) -> [Generations; 2] {
        [Generations::own().unwrap(), opened(root, true)]
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn an_invalidation_moves_the_stamp_of_its_session_and_no_other() {
        let (_dir, root) = store();
        for generations in kinds(&root) {
            let (changed, other) = (id(1), id(2));
            assert_ne!(counter_of(&changed), counter_of(&other));
            let before = [generations.stamp(&changed), generations.stamp(&other)];
            let Invalidated { saves: fresh, is_current, .. } =
                generations.invalidate(&changed, Cause::Saved).unwrap();
            assert!(is_current);
            let after_save = generations.stamp(&changed);
            assert_eq!((after_save.saves, after_save.ends), (fresh, before[0].ends));
            assert_ne!(after_save.saves, before[0].saves);
            generations.invalidate(&changed, Cause::Ended).unwrap();
            let after_end = generations.stamp(&changed);
            assert!(after_end.saves != after_save.saves && after_end.ends != after_save.ends);
            assert_eq!(generations.stamp(&other), before[1]);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn an_invalidation_is_seen_by_all_who_have_the_file_mapped() {
        let (_dir, root) = store();
        let [_, reader] = kinds(&root);
        for mapped in [true, false] {
            let writer = opened(&root, mapped);
            let before = reader.stamp(&id(7));
            let saves = writer.invalidate(&id(7), Cause::Saved).unwrap().saves;
            assert_eq!(reader.stamp(&id(7)), Stamp { saves, ..before });
        }
    }

    #[cfg(feature = "watch")]
    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn a_shards_invalidation_moves_the_stamps_of_its_sessions_only() {
        let (_dir, root) = store();
        let ids: Vec<_> = (0..2000).map(id).collect();
        for generations in kinds(&root) {
            for shard in [0, 0x7f, 0xff] {
                let before: Vec<_> = ids.iter().map(|id| generations.stamp(id)).collect();
                generations.invalidate_shard(shard).unwrap();
                for (id, before) in ids.iter().zip(before) {
                    let now = generations.stamp(id);
                    let [saves, ends] = [now.saves != before.saves, now.ends != before.ends];
                    let mine = u16::from(id.as_bytes()[0]) == shard;
                    assert_eq!([saves, ends], [mine, mine], "{id} in shard {shard}");
                }
            }
        }
    }

    /// This test is for Miri, which lets a thread see every old value that the memory orderings allow. On a real
    /// processor the test would pass even with weaker orderings.
    #[test]
    fn what_is_read_after_a_stamp_is_as_new_as_its_invalidation() {
        let (generations, id) = (Generations::own().unwrap(), id(1));
        for cause in [Cause::Saved, Cause::Ended].into_iter().cycle().take(200) {
            let (file, before) = (AtomicU64::new(0), generations.stamp(&id));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    file.store(1, Ordering::Relaxed);
                    generations.invalidate(&id, cause).unwrap();
                });
                while generations.stamp(&id) == before {
                    std::thread::yield_now();
                }
                assert_eq!(file.load(Ordering::Relaxed), 1, "an older copy has the stamp of {cause:?}");
            });
        }
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
    fn the_counters_file_has_full_size_and_no_hole() {
        use std::os::unix::fs::MetadataExt;
        let (dir, root) = store();
        let path = dir.path().join(GENERATIONS_PATH);
        opened(&root, true);
        let look = || std::fs::metadata(&path).unwrap();
        let made = look();
        assert_eq!((made.len(), made.mode() & 0o7777), (FILE_BYTES as u64, 0o600));
        assert!(made.blocks() * 512 >= FILE_BYTES as u64, "it has holes");
        for length in [0, 1, FILE_BYTES as u64 - 1, FILE_BYTES as u64 + 1] {
            let before = look().ino();
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
            opened(&root, true);
            assert_eq!(look().len(), FILE_BYTES as u64, "{length} bytes");
            assert_ne!(look().ino(), before, "{length} bytes: processes may have it mapped");
        }
    }

    /// Ways in which another program can remove or replace the file while stores use it.
    const REPLACEMENTS: [fn(&Path); 5] = [
        |path| std::fs::remove_file(path).unwrap(),
        |path| std::fs::remove_dir_all(path.parent().unwrap()).unwrap(),
        |path| {
            std::fs::write(path.with_file_name("restored"), vec![0; FILE_BYTES]).unwrap();
            std::fs::rename(path.with_file_name("restored"), path).unwrap();
        },
        |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::write(path, vec![0; FILE_BYTES]).unwrap();
        },
        |path| {
            std::fs::rename(path, path.with_file_name("aside")).unwrap();
            std::fs::write(path, vec![0; FILE_BYTES]).unwrap();
        },
    ];

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn followers_of_a_replaced_file_trust_nothing_older() {
        for replace in REPLACEMENTS {
            let (dir, root) = store();
            let all = [true, true, false].map(|mapped| opened(&root, mapped));
            let before = all[0].stamp(&id(1));
            assert!(all[0].counters().confirm(&id(1), before).is_some());
            replace(&dir.path().join(GENERATIONS_PATH));
            for generations in &all {
                let handed = Cell::new(false);
                assert_eq!(generations.reopen_if_replaced(start(), |_| handed.set(true)).unwrap(), 1);
                assert!(handed.get());
                assert_eq!(
                    generations.reopen_if_replaced(start(), |_| panic!("there are no others")).unwrap(),
                    1
                );
            }
            assert!(all[0].counters().confirm(&id(1), before).is_none(), "the values may be the same");
            let later = opened(&root, true);
            for writer in all.iter().chain([&later]) {
                let invalidated = writer.invalidate(&id(1), Cause::Saved).unwrap();
                assert!(invalidated.is_current);
                assert!(
                    all[..2]
                        .iter()
                        .chain([&later])
                        .all(|reader| reader.stamp(&id(1)).saves == invalidated.saves)
                );
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn an_invalidation_in_a_file_without_a_name_is_not_complete() {
        for replace in &REPLACEMENTS[..4] {
            let (dir, root) = store();
            let generations = opened(&root, true);
            replace(&dir.path().join(GENERATIONS_PATH));
            let invalidated = generations.invalidate(&id(1), Cause::Saved).unwrap();
            assert_eq!((invalidated.is_current, invalidated.counters), (false, 0));
            generations.reopen_if_replaced(start(), |_| ()).unwrap();
            assert!(generations.invalidate(&id(1), Cause::Saved).unwrap().is_current);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn a_backup_written_over_the_file_is_noticed_by_its_time() {
        let (dir, root) = store();
        let generations = opened(&root, true);
        let before = generations.stamp(&id(1));
        let file = File::options().write(true).open(dir.path().join(GENERATIONS_PATH)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        assert_eq!(generations.reopen_if_replaced(start(), |_| ()).unwrap(), 1);
        assert!(generations.counters().confirm(&id(1), before).is_none());
        // The store has noted the new time, so the next check finds nothing changed.
        assert_eq!(generations.reopen_if_replaced(start(), |_| ()).unwrap(), 1);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn without_a_file_no_copy_is_trusted_and_others_are_invalidated() {
        let (dir, root) = store();
        let [alone, other] = [true, true].map(|mapped| opened(&root, mapped));
        std::fs::remove_dir_all(dir.path().join(RUN)).unwrap();
        // A file in place of the directory `run`: not even root can make the directory again.
        std::fs::write(dir.path().join(RUN), "").unwrap();
        let before = alone.stamp(&id(1));
        assert!(alone.reopen_if_replaced(start(), |_| ()).is_err(), "another process may have another file");
        assert!(alone.counters().confirm(&id(1), before).is_none());
        let stamp = alone.stamp(&id(1));
        assert!(alone.counters().confirm(&id(1), stamp).is_none(), "no invalidation is seen");
        let invalidated = alone.invalidate(&id(1), Cause::Saved).unwrap();
        assert_eq!((invalidated.is_current, other.stamp(&id(1)).saves), (false, invalidated.saves));
        std::fs::remove_file(dir.path().join(RUN)).unwrap();
        // The creation of each file is refused with `ENOSPC`.
        let refuse = |_, call: &str| (call == "create file").then_some(libc::ENOSPC);
        let (checked, _) =
            during(refuse, || alone.reopen_if_replaced(start(), |_| panic!("there are no others")));
        assert_eq!(checked.unwrap(), 1, "where there is no file, no process has another one");
        assert_eq!(alone.reopen_if_replaced(start(), |_| ()).unwrap(), 2);
        assert!(alone.invalidate(&id(1), Cause::Saved).unwrap().is_current);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn a_directory_in_its_place_is_an_error_that_names_it_and_stays() {
        let (dir, root) = store();
        let path = dir.path().join(GENERATIONS_PATH);
        std::fs::create_dir_all(&path).unwrap();
        let error = Generations::open(&root, true, start()).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::NotASessionFile, Some(&*path)));
        assert!(path.is_dir());
    }
}
