//! The only module that calls the file system: every system call on a store is made here or in a submodule. Two kinds
//! of calls are made elsewhere: `flock` makes the lock calls, which pass this module's failpoint, and the `notify`
//! crate makes the calls of the watcher.
//!
//! - Paths are relative to the root's descriptor, and no symbolic link below the root is followed: session files are
//!   opened with `RESOLVE_NO_SYMLINKS`, or, where `openat2` is missing, shard by shard with `O_NOFOLLOW`.
//! - A fifo in place of a file opens without blocking (`O_NONBLOCK`), and reading it at an offset fails.
//! - In unit tests, and under the fuzzer, every call first passes a failpoint that can count it and make it fail.
mod boot;
pub(super) mod counters;
mod cut_offs;
mod directory;
#[cfg(any(test, sessile_fuzzing))]
pub(super) mod faults;
mod file_system;
mod making;
mod opened;
mod root;
mod sharing;
mod stat;

pub(super) use boot::boot_id;
pub(super) use cut_offs::truncate;
pub(super) use directory::Directory;
pub(super) use making::{IfExists, make_root, set_mode_of_root, temporary_name};
pub(super) use opened::{
    append, invalidate_at, read_at, read_whole, stat, stat_with_times, sync_data, touch, write_at,
    write_parts_at,
};
pub(super) use root::Root;
pub(super) use sharing::{Sharing, set_rights};
pub(super) use stat::{Inode, Stat, StatWithTimes};

use rustix::fs::{self, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The flags with which every file below the root is opened: no link is followed, a fifo does not block, and a child
/// program does not inherit the descriptor.
const SAFE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// The purpose for which a file below the root is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    /// Creates the file for writing; fails if it exists.
    Create,
    /// Opens the file for appending; creates it if it is missing.
    Append,
    /// Opens a file that must exist for appending.
    AppendExisting,
    /// Opens the file for reading and writing; creates it if it is missing.
    WriteOrCreate,
}

impl Access {
    fn flags(self) -> OFlags {
        SAFE | match self {
            Self::Read => OFlags::RDONLY,
            Self::Write => OFlags::RDWR,
            Self::Create => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            Self::Append => OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND,
            Self::AppendExisting => OFlags::RDWR | OFlags::APPEND,
            Self::WriteOrCreate => OFlags::RDWR | OFlags::CREATE,
        }
    }
    fn mode(self, sharing: Sharing) -> Mode {
        match self {
            Self::Read | Self::Write | Self::AppendExisting => Mode::empty(),
            Self::Create | Self::Append | Self::WriteOrCreate => sharing.file(),
        }
    }
}

/// Opens a file with `O_NOATIME`. Without that flag, the first read after every save writes the time of the read into
/// the inode, which costs more than the read. The kernel refuses the flag for files of another owner (`EPERM`); these
/// are opened without it.
#[cfg(target_os = "linux")]
fn without_atime(flags: OFlags, open: impl Fn(OFlags) -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        opened => opened,
    }
}

#[cfg(not(target_os = "linux"))]
fn without_atime(flags: OFlags, open: impl Fn(OFlags) -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    open(flags)
}

/// The names in a directory, without `.` and `..`.
fn names(directory: impl AsFd) -> io::Result<Vec<String>> {
    let entries = fs::Dir::read_from(directory)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.filter(|name: &io::Result<String>| !matches!(name.as_deref(), Ok("." | ".."))).collect()
}

/// Makes the system call `make` behind the failpoint `name`, and repeats it while signals interrupt it (`EINTR`).
fn call<T>(name: &'static str, make: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    retry_on_intr(|| failpoint(name).and_then(|()| make()))
}

/// The failpoint that each system call passes first. This version is for release builds, where it does nothing;
/// `faults` has the version for tests.
#[cfg(not(any(test, sessile_fuzzing)))]
#[inline(always)]
#[expect(clippy::inline_always, clippy::unnecessary_wraps, reason = "it must vanish, and its twin can fail")]
pub(super) fn failpoint(_call: &'static str) -> Result<(), Errno> {
    Ok(())
}

/// The failpoint of a system call that transfers `bytes` bytes. Returns the number of bytes that the call may transfer;
/// less than `bytes` only in tests.
#[cfg(not(any(test, sessile_fuzzing)))]
#[inline(always)]
#[expect(clippy::inline_always, clippy::unnecessary_wraps, reason = "it must vanish, and its twin can fail")]
fn failpoint_len(_call: &'static str, bytes: usize) -> Result<usize, Errno> {
    Ok(bytes)
}

#[cfg(any(test, sessile_fuzzing))]
pub(super) use faults::failpoint;
#[cfg(any(test, sessile_fuzzing))]
use faults::failpoint_len;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// The kernel grants `O_NOATIME` only to the owner of a file. The closure stands for a kernel that refuses the flag
    /// with `refusal`.
    #[test]
    fn a_file_opens_where_noatime_is_not_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let open = |refusal: Option<Errno>| {
            without_atime(SAFE, |flags| match refusal {
                Some(errno) if flags.contains(OFlags::NOATIME) => Err(errno),
                _ => root.open_directory_fd("open", "."),
            })
        };
        assert!(open(None).is_ok() && open(Some(Errno::PERM)).is_ok());
        assert_eq!(open(Some(Errno::NOENT)).err(), Some(Errno::NOENT));
    }
}
