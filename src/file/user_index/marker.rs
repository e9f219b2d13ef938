//! The marker of a complete index, and the map of the buckets that have a file.
//!
//! - **The marker** says that every live session of every user is listed. It holds the boot's id and the inode of the
//!   index's directory: entries are not synced, so a reboot may have lost some; and a copied index is as old as the
//!   copy.
//! - **A walk writes the marker under a temporary name before it begins, and renames it when it is done.** An entry
//!   that cannot be appended removes both names, before its session is created and again afterwards. So either the walk
//!   began after the session was created, and lists it, or the walk's rename fails.
//! - **The map** has a byte for each bucket, set after the bucket's file was made, under the map's lock. A set byte
//!   without a file shows that the file was removed.
use crate::file::disk::{self, Access, Directory, Root};
use crate::file::flock::LockedFile;
use crate::file::layout::{
    COMPLETE, MADE, USER_BUCKETS, USERS, is_temporary, user_bucket_name, user_bucket_named,
};
use crate::sync::Instant;
use std::io;

const MAP_BYTES: usize = USER_BUCKETS as usize;

/// The text of a valid marker; `None` if the boot's id is unknown.
fn text_of(index: &Directory) -> io::Result<Option<String>> {
    let Some(boot) = disk::boot_id() else { return Ok(None) };
    Ok(Some(format!("{boot} {}\n", index.stat(".")?.inode.number())))
}

/// Whether the index lists every live session of every user.
pub(super) fn is_complete(index: &Directory) -> io::Result<bool> {
    let Some(valid) = text_of(index)? else { return Ok(false) };
    let file = match index.open_named(COMPLETE, Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    Ok(disk::read_at(&file, 0, valid.len())? == valid.as_bytes())
}

/// Removes the marker, and those of the walks that are running.
pub(super) fn remove(root: &Root) -> io::Result<()> {
    let index = match root.open_directory(USERS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    // The walks' markers go first: a walk that ends in between renames its marker to the name that is removed next.
    for name in index.names()?.iter().filter(|name| is_temporary(name)) {
        index.unlink(name)?;
    }
    index.unlink(COMPLETE).map(drop)
}

/// Removes the marker, and leaves those of the walks that are running. For a walk that repairs what it finds lost.
pub(super) fn remove_published(root: &Root) -> io::Result<()> {
    root.open_directory(USERS)?.unlink(COMPLETE).map(drop)
}

/// The marker of a walk that is running.
#[derive(Debug)]
pub(in crate::file) struct PendingMarker(String);

impl PendingMarker {
    /// Writes the marker under a temporary name, before any session is read; `None` if the boot's id is unknown.
    pub(super) fn write(root: &Root) -> io::Result<Option<Self>> {
        let index = root.open_directory(USERS)?;
        let Some(text) = text_of(&index)? else { return Ok(None) };
        let name = disk::temporary_name().map_err(io::Error::other)?;
        let file = index.create(&name)?;
        root.sharing().repair_mode(&file, &disk::stat(&file)?)?;
        disk::write_at(&file, text.as_bytes(), 0)?;
        Ok(Some(Self(name)))
    }

    /// Makes the marker valid, unless it was removed meanwhile. Returns whether it is valid.
    pub(super) fn publish(&self, root: &Root) -> io::Result<bool> {
        let name = std::ffi::CString::new(self.0.as_str()).expect("hexadecimal");
        root.open_directory(USERS)?.rename(&name, COMPLETE)
    }

    /// Removes the marker of a walk that was stopped.
    pub(in crate::file) fn abandon(&self, root: &Root) {
        // A sweep removes one that is left.
        let _ = root.open_directory(USERS).and_then(|index| index.unlink(&*self.0));
    }
}

/// Whether a bucket has been made; `None` if the map is lost.
pub(super) fn is_made(index: &Directory, bucket: u16) -> io::Result<Option<bool>> {
    let map = match index.open_named(MADE, Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    Ok(disk::read_at(&map, bucket.into(), 1)?.first().map(|byte| *byte != 0))
}

/// The map, opened for writing and locked.
fn lock_map(root: &Root, index: &Directory, deadline: Instant) -> io::Result<LockedFile> {
    let map = index.open_named(MADE, Access::WriteOrCreate)?;
    root.sharing().repair_mode(&map, &disk::stat(&map)?)?;
    LockedFile::acquire(map, deadline)?.map_err(|_| io::ErrorKind::TimedOut.into())
}

/// Makes a bucket. Returns whether it, or the map, was there before and has been removed.
pub(super) fn make_bucket(
    root: &Root,
    index: &Directory,
    bucket: u16,
    deadline: Instant,
) -> io::Result<bool> {
    let map = lock_map(root, index, deadline)?;
    let name = user_bucket_name(bucket);
    match index.stat(&*name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Another thread or process has made it.
        made => return made.map(|_| false),
    }
    let file = index.open_named(&name, Access::Append)?;
    root.sharing().repair_mode(&file, &disk::stat(&file)?)?;
    let mut bytes = disk::read_at(&map, 0, MAP_BYTES)?;
    let is_whole = bytes.len() == MAP_BYTES;
    bytes.resize(MAP_BYTES, 0);
    let was_made = bytes[usize::from(bucket)] != 0;
    if is_whole {
        disk::write_at(&map, &[1], bucket.into())?;
    } else {
        bytes[usize::from(bucket)] = 1;
        disk::write_at(&map, &bytes, 0)?;
    }
    Ok(was_made || !is_whole)
}

/// Writes the map anew, from the files that are there.
pub(super) fn write_map(root: &Root, deadline: Instant) -> io::Result<()> {
    let index = root.open_directory(USERS)?;
    let map = lock_map(root, &index, deadline)?;
    let mut bytes = vec![0; MAP_BYTES];
    for bucket in index.names()?.iter().filter_map(|name| user_bucket_named(name)) {
        bytes[usize::from(bucket)] = 1;
    }
    disk::write_at(&map, &bytes, 0)
}
