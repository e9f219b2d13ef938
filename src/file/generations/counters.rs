//! One set of counters: the generations file, opened and mapped, and the cell of each session in it. Knows neither
//! which file a store uses now nor the values that are written.
use crate::error::Result;
use crate::file::disk::{self, Inode, Root, Taken, counters};
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

/// Two under Miri, which opens no shared counters and would take half a minute to create all cells; 64 under the
/// fuzzer, so that its sessions share cells.
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
/// The counter that moves with each cut-off lies behind all cells, in a page of its own.
pub(super) const CUT_OFFS_AT: usize = COUNTERS;
pub(super) const FILE_BYTES: usize = COUNTERS * COUNTER_BYTES + 4096;

/// The values of a session's cell at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::file) struct Stamp {
    pub(in crate::file) saves: u64,
    pub(in crate::file) ends: u64,
    /// The number of the [`Counters`] that were read.
    pub(in crate::file) counters: u64,
}

/// One set of counters.
#[derive(Debug)]
pub(in crate::file) struct Counters {
    /// No two sets that a store has used have the same number.
    number: u64,
    backing: Backing,
}

/// The storage of the counters.
#[derive(Debug)]
enum Backing {
    /// In a file, mapped.
    Mapped(Named, MmapRaw),
    /// In a file; this store keeps no copies.
    File(Named),
    /// In a file that has lost its name, and no other file could be opened. Invalidations are written to it, and no
    /// copy is trusted.
    Lost(Arc<File>),
    /// No counters: the store is read-only, has no cache and changes nothing.
    Nowhere,
    /// In this process; for tests where no file can be mapped.
    #[cfg(test)]
    Private(Box<[AtomicU64]>),
}

/// A file that had the name of the generations file when it was opened.
#[derive(Debug)]
struct Named {
    file: Arc<File>,
    inode: Inode,
    /// The latest modification time seen. A backup that is written over the file sets the time back.
    changed: AtomicI64,
}

/// The file under the counters' name.
enum Found {
    Counters(Counters),
    Nothing,
    /// A file of another size, or one that may not be opened.
    Unfit,
}

impl Counters {
    /// The counters of a read-only store: there are none.
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

    /// Opens the file that has the name, if it is usable.
    fn open(root: &Root, mapped: bool, number: u64) -> Result<Found> {
        const OPERATION: &str = "open the generations of session store";
        let error = |error| io_error(OPERATION, error).with_path(root.path().join(GENERATIONS_PATH));
        let file = match root.open_generations() {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            // The owner has no permissions on the file. It belongs to the store, and its contents are not worth
            // keeping.
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
        // Without read-ahead the kernel brings in single pages; otherwise it would bring in many as one folio.
        counters::expect_random_access(&file, &map);
        Ok(Found::Counters(Self { number, backing: Backing::Mapped(named, map) }))
    }

    /// Opens the file that has the name; makes it if it is missing or unusable.
    pub(super) fn open_or_make(root: &Root, mapped: bool, number: u64) -> Result<Self> {
        loop {
            match Self::open(root, mapped, number)? {
                Found::Counters(counters) => return Ok(counters),
                Found::Nothing => Self::make(root, Taken::Kept)?,
                Found::Unfit => Self::make(root, Taken::Replaced)?,
            }
        }
    }

    /// Makes the file as a new inode. The inode that has the name is not reused, because it may be a link to a foreign
    /// file, and processes may have it mapped.
    fn make(root: &Root, taken: Taken) -> Result<()> {
        let temporary = disk::temporary_name()?;
        let made = run::make(root).and_then(|()| root.open_directory(RUN)).and_then(|run| {
            run.put(&temporary, GENERATIONS, taken, |file| {
                counters::avoid_copy_on_write(file);
                // Written page by page: the kernel would keep one large write as one folio, and walk through all of it,
                // which takes 4 µs, at every invalidation.
                let page = [0; 4096];
                (0..FILE_BYTES).step_by(page.len()).try_for_each(|at| disk::write_at(file, &page, at as u64))
            })
        });
        made.map(drop).map_err(|error| {
            io_error("make the generations of session store", error)
                .with_path(root.path().join(GENERATIONS_PATH))
        })
    }

    /// The counters that replace these, whose file has lost its name; and an error if no other file could be opened.
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
        // If no file has the name, no process can have opened a newer file, so using the old counters is no error.
        let is_nowhere = root.stat_generations().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        (lost, if is_nowhere { Ok(()) } else { Err(io::Error::other(error)) })
    }

    /// Whether the name leads to this file, and the file was not overwritten by an older one.
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

    pub(super) fn stamp(&self, id: &PublicId) -> Stamp {
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
        // A file that is read after this fence is not older than the invalidation that the stamp shows.
        fence(Ordering::Acquire);
        stamp
    }

    /// The counter of cut-offs; `None` if this process does not see other processes move it. The caller sets a fence
    /// before it reads the log.
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

    /// Whether a copy of the session with this stamp is still valid.
    #[inline]
    pub(in crate::file) fn confirm(&self, id: &PublicId, stamp: Stamp) -> bool {
        !matches!(self.backing, Backing::File(_) | Backing::Lost(_) | Backing::Nowhere)
            && self.stamp(id) == stamp
    }

    /// Sets adjacent counters. Returns whether the file still had a name afterwards. If it had none, processes that
    /// open the generations file later do not see the change.
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

/// The index of the first counter of the session's cell.
pub(super) fn counter_of(id: &PublicId) -> usize {
    // The second byte of the id is not used here, because it chooses the queue among writers.
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
