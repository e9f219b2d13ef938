//! The counters in one generations file, opened and mapped, and the mapping of sessions to cells. `generations` decides
//! which file a store uses, and which values are written.
use crate::error::Result;
use crate::file::disk::{self, IfExists, Inode, Root, counters};
use crate::file::errors::io_error;
use crate::file::layout::{GENERATIONS, GENERATIONS_PATH, RUN, SHARDS};
use crate::file::{mapped, run};
use crate::id::PublicId;
#[cfg(test)]
use crate::sync::step;
use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicI64, Ordering, fence};

/// The number of cells of a shard: 512, so 131,072 in all. Two under Miri, which opens no shared counters and would
/// need half a minute to create all cells. 64 under the fuzzer, so that its sessions share cells.
const CELLS_PER_SHARD: usize = if cfg!(miri) {
    2
} else if cfg!(sessile_fuzzing) {
    64
} else {
    512
};
pub(super) const COUNTERS_PER_SHARD: usize = 2 * CELLS_PER_SHARD;
const COUNTERS: usize = COUNTERS_PER_SHARD * SHARDS as usize;
const COUNTER_BYTES: usize = size_of::<u64>();
/// The index of the counter that changes with each cut-off. It is in a page of its own, after all cells.
pub(super) const CUT_OFFS_AT: usize = COUNTERS;
pub(super) const FILE_BYTES: usize = COUNTERS * COUNTER_BYTES + 4096;

/// The values of a session's cell, as a reader has seen them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::file) struct Stamp {
    pub(in crate::file) saves: u64,
    pub(in crate::file) ends: u64,
    /// The number of the [`Counters`] that the cell was read from.
    pub(in crate::file) counters: u64,
}

/// The counters in one file.
#[derive(Debug)]
pub(in crate::file) struct Counters {
    /// How many files this store has used before this one. It is part of each stamp, so that stamps of two files
    /// differ.
    number: u64,
    backing: Backing,
}

/// The storage of the counters.
#[derive(Debug)]
enum Backing {
    /// The counters are in a mapped file.
    Mapped(Named, MmapRaw),
    /// The counters are in a file that is not mapped. The store has no cache, and only writes to them.
    File(Named),
    /// The counters are in a file that has lost its name, and no other file could be opened. Invalidations are still
    /// written to it, for processes that have it mapped. No copy is returned.
    Lost(Arc<File>),
    /// The store is read-only: it has no cache and invalidates nothing.
    Nowhere,
    /// The counters are in the memory of this process, for tests that can map no file.
    #[cfg(test)]
    Private(Box<[AtomicU64]>),
}

/// A file that had the name of the generations file when it was opened.
#[derive(Debug)]
struct Named {
    file: Arc<File>,
    inode: Inode,
    /// The latest modification time that was seen. A smaller one shows that a backup was written over the file.
    changed: AtomicI64,
}

/// The result of opening the file that has the name `run/generations`.
enum Found {
    Counters(Counters),
    Nothing,
    /// A file of another size, or one that may not be opened.
    Unfit,
}

impl Counters {
    /// The counters of a read-only store, which has none.
    pub(super) fn none() -> Self {
        Self { number: 0, backing: Backing::Nowhere }
    }

    #[cfg(test)]
    pub(super) fn private() -> Self {
        let values = (0..=CUT_OFFS_AT).map(|_| AtomicU64::new(0));
        Self { number: 0, backing: Backing::Private(values.collect()) }
    }

    #[inline]
    pub(in crate::file) fn number(&self) -> u64 {
        self.number
    }

    /// Opens the file that has the name `run/generations`, if it is usable.
    fn open(root: &Root, mapped: bool, number: u64) -> Result<Found> {
        const OPERATION: &str = "open the generations of session store";
        let error = |error| io_error(OPERATION, error).with_path(root.path().join(GENERATIONS_PATH));
        let file = match root.open_generations() {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            // The store's own user has no permissions on the file. Its contents are not worth keeping, so it will be
            // replaced.
            Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => return Ok(Found::Unfit),
            Err(cause) => return Err(error(cause)),
        };
        if counters::regular_size(&file).map_err(error)? != FILE_BYTES as u64 {
            return Ok(Found::Unfit);
        }
        let stat = disk::stat_with_times(&file).map_err(error)?;
        let file = Arc::new(file);
        let named = Named { file: Arc::clone(&file), inode: stat.inode, changed: stat.changed.into() };
        if !mapped {
            return Ok(Found::Counters(Self { number, backing: Backing::File(named) }));
        }
        let map = counters::map(MmapOptions::new().len(FILE_BYTES), &file).map_err(error)?;
        // With read-ahead, the kernel would read many pages as one large folio, which makes each later write slower.
        counters::expect_random_access(&file, &map);
        Ok(Found::Counters(Self { number, backing: Backing::Mapped(named, map) }))
    }

    /// Opens the file that has the name `run/generations`. Makes it if it is missing or unusable.
    pub(super) fn open_or_make(root: &Root, mapped: bool, number: u64) -> Result<Self> {
        loop {
            match Self::open(root, mapped, number)? {
                Found::Counters(counters) => return Ok(counters),
                Found::Nothing => Self::make(root, IfExists::Keep)?,
                Found::Unfit => Self::make(root, IfExists::Replace)?,
            }
        }
    }

    /// Makes a new file. A file that has the name is never reused: it may be a hard link to a foreign file, and
    /// processes may have it mapped.
    fn make(root: &Root, if_exists: IfExists) -> Result<()> {
        let temporary = disk::temporary_name()?;
        let made = run::make(root).and_then(|()| root.open_directory(RUN)).and_then(|run| {
            run.put(&temporary, GENERATIONS, if_exists, |file| {
                counters::avoid_copy_on_write(file);
                // The zeros are written page by page. The kernel would keep the pages of one large write together in a
                // folio, and search all of it at every invalidation, which takes 4 µs.
                let page = [0; 4096];
                (0..FILE_BYTES).step_by(page.len()).try_for_each(|at| disk::write_at(file, &page, at as u64))
            })
        });
        made.map(drop).map_err(|error| {
            io_error("make the generations of session store", error)
                .with_path(root.path().join(GENERATIONS_PATH))
        })
    }

    /// The counters to use instead of these, whose file has lost its name; `None` to go on with these. Returns also an
    /// error if another file has the name and could not be opened.
    pub(super) fn successor(&self, root: &Root, mapped: bool) -> (Option<Self>, io::Result<()>) {
        let number = self.number + 1;
        let error = match Self::open_or_make(root, mapped, number) {
            Ok(next) => return (Some(next), Ok(())),
            Err(error) => error,
        };
        let lost = match &self.backing {
            Backing::Mapped(Named { file, .. }, _) | Backing::File(Named { file, .. }) => {
                Some(Self { number, backing: Backing::Lost(Arc::clone(file)) })
            }
            _ => None,
        };
        // If no file has the name, no process can have opened a newer file. Then all processes still use the old
        // counters, and this is no error.
        let is_nowhere = root.stat_generations().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        (lost, if is_nowhere { Ok(()) } else { Err(io::Error::other(error)) })
    }

    /// Whether the name `run/generations` leads to this file, and the file was not overwritten by a backup.
    pub(super) fn has_the_name(&self, root: &Root) -> bool {
        match &self.backing {
            Backing::Lost(_) => false,
            Backing::Nowhere => true,
            #[cfg(test)]
            Backing::Private(_) => true,
            Backing::Mapped(named, _) | Backing::File(named) => root.stat_generations().is_ok_and(|there| {
                there.is_file
                    && there.inode == named.inode
                    && there.bytes == FILE_BYTES as u64
                    && there.changed >= named.changed.fetch_max(there.changed, Ordering::Relaxed)
            }),
        }
    }

    #[inline]
    pub(in crate::file) fn stamp(&self, id: &PublicId) -> Stamp {
        let at = counter_of(id);
        let counters = self.number;
        let stamp = match &self.backing {
            Backing::Mapped(_, map) => {
                Stamp { saves: mapped::load(map, at), ends: mapped::load(map, at + 1), counters }
            }
            #[cfg(test)]
            Backing::Private(values) => {
                let load = |at: usize| {
                    step();
                    values[at].load(Ordering::Relaxed)
                };
                Stamp { saves: load(at), ends: load(at + 1), counters }
            }
            Backing::File(_) | Backing::Lost(_) | Backing::Nowhere => Stamp { counters, ..Stamp::default() },
        };
        // After this fence, a read of the session file sees at least the version whose invalidation the stamp shows.
        fence(Ordering::Acquire);
        stamp
    }

    /// The value of the counter of cut-offs; `None` if this process cannot see other processes change it. The caller
    /// sets an acquire fence before it reads the log of cut-offs.
    #[inline]
    pub(in crate::file) fn cut_offs(&self) -> Option<u64> {
        match &self.backing {
            Backing::Mapped(_, map) => Some(mapped::load(map, CUT_OFFS_AT)),
            #[cfg(test)]
            Backing::Private(values) => {
                step();
                Some(values[CUT_OFFS_AT].load(Ordering::Acquire))
            }
            Backing::File(_) | Backing::Lost(_) | Backing::Nowhere => None,
        }
    }

    /// The counter of cut-offs, if a copy of the session with this stamp is still valid.
    #[inline]
    pub(in crate::file) fn confirm(&self, id: &PublicId, stamp: Stamp) -> Option<u64> {
        self.cut_offs().filter(|_| self.stamp(id) == stamp)
    }

    /// Writes adjacent counters, from the index `first` on. Returns whether the file still had a name afterwards. If it
    /// had none, processes that open the generations file later do not see the change.
    pub(super) fn write<const N: usize>(&self, first: usize, values: [u64; N]) -> io::Result<bool> {
        match &self.backing {
            Backing::Mapped(Named { file, .. }, _)
            | Backing::File(Named { file, .. })
            | Backing::Lost(file) => {
                let bytes = values.map(u64::to_le_bytes);
                disk::invalidate_at(file, bytes.as_flattened(), (first * COUNTER_BYTES) as u64)
            }
            Backing::Nowhere => Err(io::Error::other("the store is only read")),
            #[cfg(test)]
            Backing::Private(counters) => {
                for (counter, value) in counters[first..].iter().zip(values) {
                    step();
                    counter.store(value, Ordering::Release);
                }
                Ok(true)
            }
        }
    }
}

/// The index of the session's first counter, `saves`; `ends` is the next one.
#[inline]
pub(super) fn counter_of(id: &PublicId) -> usize {
    // The first byte of the id selects the shard's cells, the third and fourth select one of them. The second byte is
    // left out, because it selects the segment in the table of writers' queues.
    let [shard, _, a, b, ..] = *id.as_bytes();
    COUNTERS_PER_SHARD * usize::from(shard) + 2 * (usize::from(u16::from_le_bytes([a, b])) % CELLS_PER_SHARD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn sessions_are_spread_over_all_cells() {
        let ids = if cfg!(miri) { 100 } else { 1_000_000 };
        let cells: HashSet<_> =
            (0..ids).map(|n| counter_of(&PublicId::digest(&u32::to_le_bytes(n)))).collect();
        assert!(cells.iter().all(|counter| counter % 2 == 0 && counter + 1 < COUNTERS));
        if cfg!(miri) {
            return;
        }
        // Of 131,072 cells, a million ids miss one with a chance of 1 in 2,000.
        assert!(cells.len() > COUNTERS / 2 - 300, "{} cells are used", cells.len());
    }
}
