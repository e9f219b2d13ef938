//! Which users a store is for, the modes of its files, and the system calls that set them.
//!
//! A mode is set through a descriptor that was opened without following a link. By its path, a mode could be set on a
//! foreign file: another user of the group, or of the directory above the store, can put a link in place of a file at
//! any time.
use super::{Stat, call};
use rustix::fs::{self, Gid, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Which users may read and write the files of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::file) enum Sharing {
    /// The one user that the process runs as: directories 0700, files 0600.
    Private,
    /// All users of the root's group: directories 2770, files 0660. The set-group-id bit gives a new file its
    /// directory's group, instead of the first group of the process that makes it.
    Group,
}

impl Sharing {
    pub(in crate::file) fn directory(self) -> Mode {
        Mode::from_raw_mode(match self {
            Self::Private => 0o700,
            Self::Group => 0o2770,
        })
    }

    pub(in crate::file) fn file(self) -> Mode {
        Mode::from_raw_mode(match self {
            Self::Private => 0o600,
            Self::Group => 0o660,
        })
    }

    /// Sets the mode of a file that this process has made, because the umask may have cleared bits.
    pub(in crate::file) fn set_mode(self, file: &File) -> io::Result<()> {
        Ok(call("change mode", || fs::fchmod(file, self.file()))?)
    }

    /// Sets the mode of a file if it is wrong. In a group's store, a file of another user is left alone: only its owner
    /// may set its mode, and the owner's process has done so, or is about to.
    pub(in crate::file) fn repair_mode(self, file: &File, found: &Stat) -> io::Result<()> {
        let is_anothers = || self == Self::Group && found.owner != rustix::process::geteuid().as_raw();
        if found.mode == self.file().as_raw_mode() || is_anothers() { Ok(()) } else { self.set_mode(file) }
    }
}

/// Sets the mode of an open file or directory, and its group if `group` is given.
///
/// # Errors
///
/// Any I/O error; [`Errno::PERM`] also if the file system ignored the new mode without an error.
pub(in crate::file) fn set_rights(file: impl AsFd, group: Option<u32>, mode: Mode) -> io::Result<()> {
    let group = group.map(Gid::from_raw);
    // The group is changed before the mode, because changing the group clears the set-group-id bit.
    if group.is_some() {
        call("change group", || fs::fchown(&file, None, group))?;
    }
    call("change mode", || fs::fchmod(&file, mode))?;
    let kept = Stat::from(call("stat file", || fs::fstat(&file))?);
    if kept.mode == mode.as_raw_mode() { Ok(()) } else { Err(Errno::PERM.into()) }
}

/// Sets the mode of a directory below an open one. Fails if the name leads to anything but a directory.
pub(super) fn set_mode_in(
    parent: BorrowedFd<'_>,
    name: impl rustix::path::Arg + Copy,
    mode: Mode,
) -> Result<(), Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |access| call("open directory", || fs::openat(parent, name, flags | access, Mode::empty()));
    match open(OFlags::RDONLY) {
        Ok(directory) => call("change mode", || fs::fchmod(&directory, mode)),
        // The umask may have cleared the owner's read permission of a new directory. Such a directory can be opened
        // with `O_PATH` only, and its mode set only through `/proc/self/fd`.
        #[cfg(target_os = "linux")]
        Err(Errno::ACCESS) => {
            let directory = open(OFlags::PATH)?;
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&directory));
            call("change mode", || fs::chmod(&path, mode))
        }
        #[cfg(not(target_os = "linux"))]
        Err(Errno::ACCESS) => {
            call("change mode", || fs::chmodat(parent, name, mode, fs::AtFlags::SYMLINK_NOFOLLOW))
        }
        Err(errno) => Err(errno),
    }
}
