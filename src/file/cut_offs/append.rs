//! Writing a cut-off: its entry is appended under the log's lock and synced, and then the counter moves.
//!
//! If a sync of the file failed, the log is written to a new file, because a second sync of the same one proves nothing
//! (rule 4 for crashes in [`design`](crate::_documentation::design)). The same happens when most entries are
//! superseded. A new file has the flag "name unsynced" until a writer has synced its name: each writer that finds the
//! flag syncs the name before it acknowledges its entry, because a power cut could give the name back to the older
//! file.
use super::bytes::{Entry, FLAGS_AT, LINE, NAME_UNSYNCED, SYNC_FAILED};
use super::log::Log;
use super::{CutOffs, MISSING};
use crate::error::{Error, ErrorKind, Result};
use crate::file::disk::{self, Access, Directory, IfExists, Root};
use crate::file::errors::io_error;
use crate::file::flock::LockedFile;
use crate::file::layout::CUT_OFFS;
use crate::id::PublicId;
use crate::queue::busy;
use crate::record::Record;
use crate::sync::Instant;
use std::fs::File;
use std::io;

/// Appends to files that lost their name meanwhile, before the call fails. A backup is not restored twice in one call.
const ATTEMPTS_MAX: u32 = 8;
/// A log with fewer entries is not rewritten: 64 KiB. None is in proofs, whose runs share a log and must take the same
/// steps.
const ENTRIES_MIN: u64 = if cfg!(shuttle) {
    u64::MAX
} else if cfg!(test) {
    16
} else {
    1024
};
/// The largest log: 16 million users.
const BYTES_MAX: u64 = if cfg!(all(test, not(shuttle))) { 1 << 13 } else { 1 << 30 };

/// A cut-off that is to be written.
#[derive(Clone, Copy)]
pub(in crate::file) struct CutOff<'a> {
    /// The digest of the user; `None` for all sessions.
    pub(in crate::file) user: Option<[u8; 16]>,
    /// In microseconds since 1970.
    pub(in crate::file) time: u64,
    /// The session that stays: its newest version. The caller holds its lock.
    pub(in crate::file) except: Option<(&'a Record, PublicId)>,
}

/// Where an entry was written.
enum Written {
    /// To the file that has the name.
    Yes,
    /// To a file that has lost its name.
    Elsewhere,
}

impl CutOffs {
    /// Makes the log of a new store; an existing one is left alone. The caller syncs the root. No entry gets a number
    /// up to `first`.
    pub(in crate::file) fn make(root: &Root, first: u64) -> Result<()> {
        let made = match root.stat_cut_offs() {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::put(root, &Log::beginning_at(first), IfExists::Keep)
            }
            Err(error) => Err(error),
        };
        made.map(drop).map_err(|error| {
            io_error("make the log of cut-offs", error).with_path(root.path().join(CUT_OFFS))
        })
    }

    /// Appends a cut-off, and calls `publish`, which moves the counter.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Gone`] if a cut-off has ended the excepted session; [`ErrorKind::Corrupt`] if the log is lost,
    /// unless all sessions are to be ended; [`ErrorKind::Busy`]; those of the disk. After
    /// [`ErrorKind::DurabilityUnknown`] the sessions are ended, and may be alive again after a power cut.
    pub(in crate::file) fn append(
        &self,
        cut_off: &CutOff<'_>,
        deadline: Instant,
        publish: impl Fn() -> Result<()>,
    ) -> Result<()> {
        let _turn = self.turn.try_lock_until(deadline).ok_or_else(busy)?;
        for _ in 0..ATTEMPTS_MAX {
            // Opened before anything is changed.
            let directory =
                self.root.open_directory(".").map_err(|error| self.error("open the directory of", error))?;
            let locked = self.lock(deadline)?;
            let written = if let Some(file) = &locked {
                self.read_again(|| None, true)?;
                self.write(cut_off, file, &directory)
            } else if cut_off.user.is_some() {
                return Err(self.lost("end the sessions of a user", MISSING));
            } else {
                // With its entry: a log without it would bring back the sessions that the lost log had ended.
                self.next_entry(cut_off).and_then(|entry| self.rewrite(entry, None, IfExists::Keep))
            };
            // Also after an error, because the entry may be visible.
            self.doubt();
            let published = publish();
            match written? {
                Written::Yes => return published,
                Written::Elsewhere => {}
            }
        }
        Err(self.error("write", io::Error::other("it was replaced again and again")))
    }

    /// Opens and locks the file that has the name; `None` if there is none.
    fn lock(&self, deadline: Instant) -> Result<Option<LockedFile>> {
        loop {
            let file = match self.root.open_cut_offs(Access::Write) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(self.error("open", error)),
            };
            let locked = LockedFile::acquire(file, deadline).map_err(|error| self.error("lock", error))?;
            let file = locked.map_err(|_| busy().with_path(self.root.path().join(CUT_OFFS)))?;
            if self.has_the_name(&file)? {
                return Ok(Some(file));
            }
            if Instant::now() > deadline {
                return Err(busy().with_path(self.root.path().join(CUT_OFFS)));
            }
        }
    }

    fn has_the_name(&self, file: &File) -> Result<bool> {
        let inode = disk::stat(file).map_err(|error| self.error("examine", error))?.inode;
        match self.root.stat_cut_offs() {
            Ok(there) => Ok(there.inode == inode),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.error("examine", error)),
        }
    }

    /// Writes the entry to the locked file, or with the whole log to a new one.
    fn write(&self, cut_off: &CutOff<'_>, file: &LockedFile, directory: &Directory) -> Result<Written> {
        let flags = disk::read_at(file, FLAGS_AT as u64, 1).map_err(|error| self.error("read", error))?;
        let flags = flags.first().copied().unwrap_or_default();
        let entry = self.next_entry(cut_off)?;
        let (bytes, is_sparse) = {
            let read = self.read.read();
            if let Some(reason) = read.lost {
                if cut_off.user.is_some() {
                    return Err(self.lost("end the sessions of a user", reason));
                }
                drop(read);
                return self.rewrite(entry, None, IfExists::Replace);
            }
            if cut_off.except.is_some_and(|(record, id)| read.log.standing(record, &id).is_none()) {
                return Err(gone());
            }
            // A cut-off of all supersedes all entries.
            let needed = cut_off.user.map_or(0, |_| read.log.entries());
            let entries = read.log.bytes / LINE as u64;
            (read.log.bytes, entries > ENTRIES_MIN && entries > 2 * needed)
        };
        if flags & SYNC_FAILED != 0 || is_sparse {
            match self.rewrite_whole(entry) {
                // The old file will do.
                Err(error) if flags & SYNC_FAILED == 0 && error.kind() != ErrorKind::DurabilityUnknown => {}
                written => return written,
            }
        }
        if bytes + LINE as u64 > BYTES_MAX {
            return Err(Error::new(ErrorKind::Full, "append to the log of cut-offs")
                .with_path(self.root.path().join(CUT_OFFS))
                .with_reason("it has 16 million users; FileStore::delete_all makes room"));
        }
        self.write_in_place(entry, bytes, file)?;
        if disk::sync_data(file).is_err() {
            // Written at once, because this process may be killed before the log is in another file.
            let _ = disk::write_at(file, &[flags | SYNC_FAILED], FLAGS_AT as u64);
            return self.rewrite_whole(entry).map_err(|error| unknown(&self.root, error));
        }
        if flags & NAME_UNSYNCED != 0 {
            let synced = directory.sync_changed_name();
            synced.map_err(|error| unknown(&self.root, self.error("sync the directory of", error)))?;
            let _ = disk::write_at(file, &[flags & !NAME_UNSYNCED], FLAGS_AT as u64);
        }
        Ok(if self.has_the_name(file)? { Written::Yes } else { Written::Elsewhere })
    }

    /// Appends the entry behind the last valid one.
    fn write_in_place(&self, entry: Entry, bytes: u64, file: &LockedFile) -> Result<()> {
        let written = (|| {
            if disk::stat(file)?.bytes != bytes {
                // A torn entry, which was not acknowledged.
                disk::truncate(file, bytes)?;
            }
            disk::write_at(file, &entry.to_line(), bytes)
        })();
        written.map_err(|error| {
            let _ = disk::truncate(file, bytes);
            self.error("append to", error)
        })
    }

    /// The entry of a cut-off, whose number is greater than those of all entries in memory.
    fn next_entry(&self, cut_off: &CutOff<'_>) -> Result<Entry> {
        let CutOff { user, time, except } = *cut_off;
        // No clock reaches the last number, so the log was made outside the library, by a program that knows the check.
        let after_last = self.read.read().log.last.checked_add(1).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "append to the log of cut-offs")
                .with_path(self.root.path().join(CUT_OFFS))
                .with_reason("its last number is one that no clock reaches; restore it from a backup")
        })?;
        Ok(Entry { number: time.max(after_last), user, time, except: except.map(|(_, id)| id) })
    }

    /// Writes the log with the entry, and without those that are superseded, to a new file in the place of the old one.
    fn rewrite_whole(&self, entry: Entry) -> Result<Written> {
        let bytes = {
            let read = self.read.read();
            // Another thread may have found it lost since the entry was made.
            if let Some(reason) = read.lost {
                return Err(self.lost("rewrite it", reason));
            }
            read.log.compacted(0)
        };
        self.rewrite(entry, Some(bytes), IfExists::Replace)
    }

    /// Writes the bytes of a log, if there is one, and the entry to a new file.
    fn rewrite(&self, entry: Entry, before: Option<Vec<u8>>, if_exists: IfExists) -> Result<Written> {
        let mut log = Log::beginning_at(entry.number - 1);
        log.take(&before.unwrap_or_default());
        log.put(entry);
        if !Self::put(&self.root, &log, if_exists).map_err(|error| self.error("rewrite", error))? {
            return Ok(Written::Elsewhere);
        }
        let directory = self.root.open_directory(".");
        let synced = directory.and_then(|directory| directory.sync_changed_name());
        synced.map_err(|error| unknown(&self.root, self.error("sync the directory of", error)))?;
        Ok(Written::Yes)
    }

    /// Makes a file of the log and gives it the name.
    fn put(root: &Root, log: &Log, if_exists: IfExists) -> io::Result<bool> {
        let temporary = disk::temporary_name().map_err(io::Error::other)?;
        let bytes = log.compacted(NAME_UNSYNCED);
        root.open_directory(".")?.put(&temporary, CUT_OFFS, if_exists, |file| {
            disk::write_at(file, &bytes, 0)?;
            disk::sync_data(file)
        })
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Gone, "end the sessions of a user")
        .with_reason("the excepted session is not alive; none was ended")
}

/// The error of a cut-off that is visible, and that a power cut may undo.
fn unknown(root: &Root, error: Error) -> Error {
    Error::new(ErrorKind::DurabilityUnknown, "sync the log of cut-offs")
        .with_path(root.path().join(CUT_OFFS))
        .with_reason("the sessions were ended, and may come back after a power cut")
        .with_source(error)
}
