//! Which users a store is for, the modes that follow from it, and the calls that set them.
//!
//! A mode is set through an open descriptor, which was opened without following a link: another user of the group, or of the
//! directory above the store, can put a link in the place of a name at any time.
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
    /// All users of the root's group: directories 2770, files 0660. The set-group-id bit gives what is made in a directory
    /// the directory's group, whatever the first group of the process that makes it.
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

    /// Gives a file that this process has made its mode, whatever the umask made of it.
    pub(in crate::file) fn set_mode(self, file: &File) -> io::Result<()> {
        Ok(call("change mode", || fs::fchmod(file, self.file()))?)
    }

    /// The same for a file that another process may have made, if the mode is another one. In a store of a group it may be
    /// another user's, who alone may change the mode, and has.
    pub(in crate::file) fn mend_mode(self, file: &File, found: &Stat) -> io::Result<()> {
        let is_anothers = || self == Self::Group && found.owner != rustix::process::geteuid().as_raw();
        if found.mode == self.file().as_raw_mode() || is_anothers() { Ok(()) } else { self.set_mode(file) }
    }
}

/// Gives an open file or directory a group, if it is to have another one, and a mode.
///
/// # Errors
///
/// Any I/O error; [`Errno::PERM`] also if the file system, or the kernel, kept another mode without saying so.
pub(in crate::file) fn set_rights(file: impl AsFd, group: Option<u32>, mode: Mode) -> io::Result<()> {
    let group = group.map(Gid::from_raw);
    // Before the mode: a change of the group takes the set-group-id bit away.
    if group.is_some() {
        call("change group", || fs::fchown(&file, None, group))?;
    }
    call("change mode", || fs::fchmod(&file, mode))?;
    let kept = Stat::from(call("stat file", || fs::fstat(&file))?);
    if kept.mode == mode.as_raw_mode() { Ok(()) } else { Err(Errno::PERM.into()) }
}

/// Gives a directory below an open one its mode, and nothing else that has its name by now.
pub(super) fn set_mode_in(
    parent: BorrowedFd<'_>,
    name: impl rustix::path::Arg + Copy,
    mode: Mode,
) -> Result<(), Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |access| call("open directory", || fs::openat(parent, name, flags | access, Mode::empty()));
    match open(OFlags::RDONLY) {
        Ok(directory) => call("change mode", || fs::fchmod(&directory, mode)),
        // The umask may have left a directory that not even its owner can open.
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
