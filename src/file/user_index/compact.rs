//! Compaction: writes a bucket anew without the entries of sessions that have no file.
//!
//! It holds the bucket's exclusive lock, and every appender holds the shared one until its session exists. So no
//! creation is under way, and an entry whose session has no file is dead, or is that of a writer that was killed before
//! the creation. Under the lock it waits for nothing: it looks for the sessions' names only, and reads no session.
use super::bucket::{ENTRY_BYTES, Entry, parse};
use crate::file::disk::{self, Access, IfExists, Root};
use crate::file::flock::LockedFile;
use crate::file::layout::{SessionPath, USERS, user_bucket_name};
use crate::sync::Instant;
use std::fs::File;
use std::io;

/// A bucket of fewer entries is not compacted.
const ENTRIES_MIN: u64 = 64;

/// Whether an appender that finds this many bytes compacts the bucket afterwards: at 64, 96, 128, 192, 256 … entries,
/// so that the looks at names are a constant number for each append. A number that is skipped, because two appended at
/// once, costs nothing but space.
pub(super) fn is_due(bytes: u64) -> bool {
    let entries = bytes / ENTRY_BYTES as u64;
    entries >= ENTRIES_MIN && entries.trailing_zeros() + 1 >= entries.ilog2()
}

/// The bytes of a bucket.
pub(super) fn read(file: &File) -> io::Result<Vec<u8>> {
    let bytes = usize::try_from(disk::stat(file)?.bytes).map_err(io::Error::other)?;
    disk::read_at(file, 0, bytes)
}

/// Compacts a bucket if at least half of it is dead, or if it is `damaged`. Leaves it as it is if the lock is not free
/// before the deadline. Returns whether the bucket was written anew.
pub(super) fn compact(root: &Root, bucket: u16, damaged: bool, deadline: Instant) -> io::Result<bool> {
    let index = root.open_directory(USERS)?;
    let name = user_bucket_name(bucket);
    let file = index.open_named(&name, Access::Write)?;
    let Ok(file) = LockedFile::acquire(file, deadline)? else { return Ok(false) };
    if disk::stat(&file)?.links == 0 {
        // Another process has compacted it.
        return Ok(true);
    }
    let (entries, _) = parse(&read(&file)?);
    let all = entries.len();
    let live = live_of(root, entries);
    if !damaged && 2 * live.len() > all {
        return Ok(false);
    }
    let bytes: Vec<u8> = live.into_iter().flat_map(Entry::to_bytes).collect();
    let temporary = disk::temporary_name().map_err(io::Error::other)?;
    index.put(&temporary, &name, IfExists::Replace, |file| disk::write_at(file, &bytes, 0))
}

/// The entries, each once, of sessions that have a file, or may have one.
fn live_of(root: &Root, mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_unstable();
    entries.dedup();
    entries.retain(|entry| {
        let found = root.inode_at(&SessionPath::of(&entry.id));
        !found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    });
    entries
}
