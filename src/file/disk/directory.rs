//! System calls in an open directory: they change names in it, and open its files.
use super::{Access, Sharing, Stat, StatWithTimes, call, failpoint, names, stat, without_atime};
use crate::file::layout::SessionPath;
use crate::file_system::Kind;
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// An open directory below the root: a shard, `run`, the expiry index, or the root itself.
#[derive(Debug)]
pub(in crate::file) struct Directory {
    pub(super) fd: OwnedFd,
    pub(super) kind: Kind,
    pub(super) sharing: Sharing,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Directory {
    /// Opens a session file in its shard, which is this directory.
    pub(in crate::file) fn open(&self, path: &SessionPath, access: Access) -> io::Result<File> {
        let mode = access.mode(self.sharing);
        let open = |flags| fs::openat(&self.fd, path.below_shard(), flags, mode);
        Ok(call("open session in shard", || without_atime(access.flags(), open))?.into())
    }

    /// Creates a file; fails if the name exists.
    pub(in crate::file) fn create(&self, name: &str) -> io::Result<File> {
        let mode = Access::Create.mode(self.sharing);
        Ok(call("create file", || fs::openat(&self.fd, name, Access::Create.flags(), mode))?.into())
    }

    /// Exchanges the names of a new file and of the file at `place`, in one step. FUSE, and file systems that cannot
    /// exchange names, get a plain rename instead.
    ///
    /// Fails if there is no file at `place`. Then a forced delete has removed the session meanwhile, and a rename would
    /// bring it back.
    ///
    /// # Errors
    ///
    /// Any I/O error; nothing has changed.
    pub(in crate::file) fn exchange_or_rename(&self, name: &str, place: &CStr) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.kind.keeps_rename_flags() {
            match failpoint("exchange")
                .and_then(|()| fs::renameat_with(&self.fd, name, &self.fd, place, fs::RenameFlags::EXCHANGE))
            {
                Err(errno) if refuses_flags(errno) => {}
                result => return Ok(result?),
            }
        }
        self.stat(place)?;
        failpoint("rename")?;
        Ok(fs::renameat(&self.fd, name, &self.fd, place)?)
    }

    /// Removes a name. Returns whether it existed.
    pub(in crate::file) fn unlink(&self, name: impl rustix::path::Arg) -> io::Result<bool> {
        failpoint("unlink")?;
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Renames a file. A file that has the new name already is replaced. Returns whether the file existed.
    pub(in crate::file) fn rename(&self, name: &CStr, new_name: &str) -> io::Result<bool> {
        failpoint("rename")?;
        match fs::renameat(&self.fd, name, &self.fd, new_name) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The names in this directory.
    pub(in crate::file) fn names(&self) -> io::Result<Vec<String>> {
        failpoint("list directory")?;
        names(&self.fd)
    }

    /// The kind, inode and mode of a file in this directory.
    pub(in crate::file) fn stat(&self, name: impl rustix::path::Arg + Copy) -> io::Result<Stat> {
        failpoint("stat in directory")?;
        Ok(stat::stat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// The metadata of a file in this directory, with the time of its last write.
    pub(in crate::file) fn stat_with_times(&self, name: &str) -> io::Result<StatWithTimes> {
        failpoint("stat in directory")?;
        Ok(fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?.into())
    }

    /// Opens a subdirectory. A symbolic link in its place is an error.
    pub(in crate::file) fn open_directory(&self, name: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || fs::openat(&self.fd, name, flags, Mode::empty());
        Ok(Self { fd: call("open directory", open)?, ..*self })
    }

    /// Opens a file in this directory by its name.
    pub(in crate::file) fn open_named(&self, name: &str, access: Access) -> io::Result<File> {
        let open = || fs::openat(&self.fd, name, access.flags(), access.mode(self.sharing));
        Ok(call("open file in directory", open)?.into())
    }

    /// Moves a file to the directory `other`. Fails if the new name exists there.
    pub(super) fn move_to(
        &self,
        name: impl rustix::path::Arg + Copy,
        other: &Self,
        new_name: &str,
    ) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.kind.keeps_rename_flags() {
            let flags = fs::RenameFlags::NOREPLACE;
            match failpoint("move file")
                .and_then(|()| fs::renameat_with(&self.fd, name, &other.fd, new_name, flags))
            {
                Err(errno) if refuses_flags(errno) => {}
                result => return Ok(result?),
            }
        }
        self.move_step_by_step(name, other, new_name)
    }

    /// Moves a file to another directory, under the first of `new_names` that is free. Returns that name; the error is
    /// `AlreadyExists` if none is free.
    pub(in crate::file) fn move_to_free(
        &self,
        name: impl rustix::path::Arg + Copy,
        other: &Self,
        new_names: impl Iterator<Item = String>,
    ) -> io::Result<String> {
        for new_name in new_names {
            match self.move_to(name, other, &new_name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                moved => return moved.map(|()| new_name),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Moves a file in two calls (look for the new name, then rename), for file systems without `RENAME_NOREPLACE`. A
    /// file that gets the new name between the two calls is replaced.
    fn move_step_by_step(
        &self,
        name: impl rustix::path::Arg,
        other: &Self,
        new_name: &str,
    ) -> io::Result<()> {
        match other.stat(new_name) {
            Ok(_) => Err(Errno::EXIST.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                failpoint("rename")?;
                Ok(fs::renameat(&self.fd, name, &other.fd, new_name)?)
            }
            Err(error) => Err(error),
        }
    }

    /// Syncs the directory: the names in it survive a power cut.
    pub(in crate::file) fn sync(&self) -> io::Result<()> {
        Ok(call("sync shard", || fs::fsync(&self.fd))?)
    }

    /// Syncs the directory after a rename replaced a file, or a name was removed. Afterwards, no power cut gives the
    /// name back to the earlier file, even if the later file has lost the name too. On btrfs a sync of the directory
    /// does not achieve that, so the whole file system is synced.
    pub(in crate::file) fn sync_changed_name(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.kind.forgets_synced_exchanges() {
            return Ok(call("sync file system", || fs::syncfs(&self.fd))?);
        }
        self.sync()
    }
}

/// Whether the errno of a `renameat2` means that its flags are not supported: by an old kernel (`ENOSYS`, `EINVAL`), by
/// the file system (`EOPNOTSUPP`), or by a container's filter of system calls (`EPERM`). If `EPERM` means that the
/// rename is forbidden, the plain rename that follows fails with the same error.
#[cfg(target_os = "linux")]
fn refuses_flags(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::disk::Root;

    /// A file system without `RENAME_NOREPLACE` needs two calls, with the same results.
    #[test]
    fn moving_step_by_step_does_what_moving_at_once_does() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        for name in ["from", "to"] {
            root.make_directory(name).unwrap();
        }
        let [from, to] = ["from", "to"].map(|name| root.open_directory(name).unwrap());
        let too_long = "x".repeat(300);
        for step_by_step in [false, true] {
            let go = |name| {
                let moved = if step_by_step {
                    from.move_step_by_step(c"file", &to, name)
                } else {
                    from.move_to(c"file", &to, name)
                };
                moved.map_err(|error| error.kind())
            };
            std::fs::write(dir.path().join("to/taken"), "theirs").unwrap();
            std::fs::write(dir.path().join("from/file"), "ours").unwrap();
            assert_eq!(go("taken"), Err(io::ErrorKind::AlreadyExists));
            assert_eq!(go(&too_long), Err(io::ErrorKind::InvalidFilename));
            assert_eq!(std::fs::read(dir.path().join("to/taken")).unwrap(), b"theirs");
            assert_eq!(go("free"), Ok(()));
            assert_eq!(std::fs::read(dir.path().join("to/free")).unwrap(), b"ours");
            std::fs::remove_file(dir.path().join("to/free")).unwrap();
            assert_eq!(go("free"), Err(io::ErrorKind::NotFound), "there is nothing to move");
        }
    }
}
