//! The database file and its directory, before SQLite opens them: owners, permissions, and the file system.
//!
//! This module never opens the database file. A process that closes any descriptor of a file loses all locks that its
//! SQLite connections have on it.
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::file_system::Kind;
use rustix::fs::{self as unix, Access, FileType, Mode};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

const OPEN: &str = "open session database";
const WRITABLE_BY_OTHERS: u32 = 0o022;
const OPEN_TO_OTHERS: u32 = 0o077;
/// The ends of the names of the files that SQLite keeps beside the database, and none for the database itself.
const SUFFIXES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// The identity of a file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inode {
    device: u64,
    number: u64,
}

/// The file of a path now; `None` if there is none.
pub(super) fn inode(path: &Path) -> Result<Option<Inode>> {
    Ok(metadata(path)?.map(|found| Inode { device: found.dev(), number: found.ino() }))
}

/// The absolute path of a database file. Its directory must exist; links to that are followed, links to the file are
/// refused.
pub(super) fn locate(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(Error::new(ErrorKind::Config, OPEN).with_path(path).with_reason("it names no file"));
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = fs::canonicalize(dir).map_err(|error| io_error(dir, error))?;
    Ok(dir.join(name))
}

/// Refuses a directory in which other users could replace the file, and one on a file system that other hosts share.
pub(super) fn check_directory(path: &Path) -> Result<()> {
    let dir = directory_of(path);
    let stat = fs::metadata(dir).map_err(|error| io_error(dir, error))?;
    let (mode, user) = (stat.mode() & 0o7777, geteuid().as_raw());
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(refused(
            dir,
            format!("other users may write to it (mode {mode:04o}); use a directory of mode 0700 inside it"),
        ));
    }
    if ![0, user].contains(&stat.uid()) && user != 0 {
        return Err(refused(
            dir,
            format!("it belongs to user {}, this process runs as user {user}", stat.uid()),
        ));
    }
    let opened = File::open(dir).map_err(|error| io_error(dir, error))?;
    match Kind::of(&opened).map_err(|errno| io_error(dir, errno.into()))?.remote_name() {
        None => Ok(()),
        Some(name) => Err(Error::new(ErrorKind::Unsupported, OPEN).with_path(path).with_reason(format!(
            "it is on {name}, where processes do not see each other's locks or writes in memory; use a local disk, or \
             a database server"
        ))),
    }
}

/// Makes an empty file, which only this user can read; without effect if there is one. It is made without opening it.
pub(super) fn make(path: &Path) -> Result<()> {
    match make_empty(path) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOSPC | Errno::DQUOT) => Err(Error::new(ErrorKind::Full, OPEN).with_path(path)),
        Err(errno) => Err(io_error(path, errno.into())),
    }
}

#[cfg(not(any(target_vendor = "apple", target_os = "espidf", target_os = "horizon")))]
fn make_empty(path: &Path) -> std::result::Result<(), Errno> {
    unix::mknodat(unix::CWD, path, FileType::RegularFile, Mode::RUSR | Mode::WUSR, 0)
}

/// Such systems have no call that makes a file without opening it. The descriptor is closed at once, so two stores of
/// one process must not make the same file at the same time.
#[cfg(any(target_vendor = "apple", target_os = "espidf", target_os = "horizon"))]
fn make_empty(path: &Path) -> std::result::Result<(), Errno> {
    let flags = unix::OFlags::CREATE | unix::OFlags::EXCL | unix::OFlags::RDWR | unix::OFlags::CLOEXEC;
    unix::open(path, flags, Mode::RUSR | Mode::WUSR).map(drop)
}

/// Refuses files of other users, and makes those private that other users have access to, or refuses them with
/// `keep_modes`.
pub(super) fn check_files(path: &Path, keep_modes: bool, observer: &Observer) -> Result<()> {
    let (user, mut open) = (geteuid().as_raw(), Vec::new());
    for suffix in SUFFIXES {
        let file = beside(path, suffix);
        let Some(stat) = metadata(&file)? else { continue };
        if !stat.is_file() || stat.nlink() > 1 && suffix.is_empty() {
            return Err(Error::new(ErrorKind::NotASessionFile, OPEN)
                .with_path(file)
                .with_reason("a link, pipe, directory or device is in its place, or it has a second name"));
        }
        if stat.uid() != user && user != 0 {
            let reason = format!("it belongs to user {}, this process runs as user {user}", stat.uid());
            return Err(refused(&file, reason));
        }
        if stat.mode() & OPEN_TO_OTHERS != 0 {
            open.push((file, stat.mode()));
        }
    }
    if let Some((file, mode)) = open.first().filter(|_| keep_modes) {
        let (mode, shown) = (mode & 0o7777, path.display());
        let reason =
            format!("other users have access to it (mode {mode:04o}); make it private: chmod go= {shown}*");
        return Err(refused(file, reason));
    }
    for (file, _) in &open {
        fs::set_permissions(file, Permissions::from_mode(0o600)).map_err(|error| io_error(file, error))?;
    }
    if !open.is_empty() {
        let writable = open.iter().filter(|(_, mode)| mode & WRITABLE_BY_OTHERS != 0).count() as u64;
        observer.notify(&Event::MadePrivate { path, count: open.len() as u64, writable });
    }
    Ok(())
}

/// Refuses files that this process cannot write to.
pub(super) fn check_rights(path: &Path) -> Result<()> {
    if is_denied(path) { Err(refused(path, DENIED.to_owned())) } else { Ok(()) }
}

/// The reason of an error if this process lacks a right.
pub(super) const DENIED: &str =
    "this process may not write to the file, to one of those beside it, or to its directory";

/// Whether this process lacks the right to write to the file, or to make files beside it.
pub(super) fn is_denied(path: &Path) -> bool {
    let lacks = |path: &Path, rights| {
        matches!(unix::access(path, rights), Err(Errno::ACCESS | Errno::ROFS | Errno::PERM))
    };
    let of_file = Access::READ_OK | Access::WRITE_OK;
    lacks(directory_of(path), Access::WRITE_OK | Access::EXEC_OK)
        || SUFFIXES.iter().any(|suffix| lacks(&beside(path, suffix), of_file))
}

/// The size of the write-ahead log.
pub(super) fn log_bytes(path: &Path) -> Result<u64> {
    Ok(metadata(&beside(path, "-wal"))?.map_or(0, |found| found.len()))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().expect("an absolute path of a file has a directory")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn metadata(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path, error)),
    }
}

#[cold]
fn refused(path: &Path, reason: String) -> Error {
    Error::new(ErrorKind::Permissions, OPEN).with_path(path).with_reason(reason)
}

#[cold]
fn io_error(path: &Path, error: io::Error) -> Error {
    let kind =
        if error.kind() == io::ErrorKind::PermissionDenied { ErrorKind::Permissions } else { ErrorKind::Io };
    Error::new(kind, OPEN).with_path(path).with_source(error)
}
