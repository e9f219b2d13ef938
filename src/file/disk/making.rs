//! Calls for creation only: of the root directory, and of files that get their final name when they are complete.
use super::{Directory, Root, Sharing, call, failpoint, sharing};
use crate::error::Result as CrateResult;
use crate::file::layout::TEMPORARY;
use crate::random;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::Path;

/// Makes the directory of a store. Returns whether it did; `false` if the name is taken.
pub(in crate::file) fn make_root(path: &Path) -> io::Result<bool> {
    match call("make root", || fs::mkdir(path, Sharing::Private.directory())) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Sets the mode of the directory that was just made, because the umask may have cleared bits.
pub(in crate::file) fn set_mode_of_root(path: &Path, sharing: Sharing) -> io::Result<()> {
    // `components` removes a slash at the end of the path: a link before a slash would be followed.
    let path = path.components().as_path();
    Ok(sharing::set_mode_in(fs::CWD, path, sharing.directory())?)
}

impl Root {
    /// Syncs the name of the root itself, by syncing its parent directory.
    ///
    /// The parent may be unreadable to this user (0711, as home directories are), or lie on a file system that syncs no
    /// directory (read-only images, `/proc`). Then the root's own file system is synced as a whole. That includes the
    /// root's name, unless the root is a mount point; this process has not made the name of a mount point.
    ///
    /// # Errors
    ///
    /// Any other I/O error; the name may be lost in a power cut.
    pub(in crate::file) fn sync_name(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // The parent is opened as `..`, because the path may lead through a link or end in a dot.
        let parent = call("open parent", || fs::openat(&self.fd, "..", flags, Mode::empty()));
        match parent.and_then(|parent| call("sync parent", || fs::fsync(&parent))) {
            Err(
                Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP,
            ) => self.sync_file_system(),
            synced => Ok(synced?),
        }
    }
}

/// A random name for a temporary file, which no other file has.
pub(in crate::file) fn temporary_name() -> CrateResult<String> {
    let bits = random::bytes("name a temporary file")?;
    Ok(format!("{TEMPORARY}{:032x}", u128::from_le_bytes(bits)))
}

/// Whether a new file replaces the file that has its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::file) enum IfExists {
    Keep,
    Replace,
}

impl Directory {
    /// Makes a file under a temporary name, sets its mode, writes its contents, and renames it to `name`, so that the
    /// file is complete when it has that name. Returns whether it was renamed; `false` if the name was taken and is to
    /// be kept.
    pub(in crate::file) fn put(
        &self,
        temporary: &str,
        name: &str,
        if_exists: IfExists,
        contents: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<bool> {
        let file = self.create(temporary)?;
        let put = (|| {
            // The umask may have cleared bits.
            self.sharing.set_mode(&file)?;
            contents(&file)?;
            if if_exists == IfExists::Replace {
                failpoint("rename")?;
                fs::renameat(&self.fd, temporary, &self.fd, name)?;
                return Ok(true);
            }
            match self.move_to(temporary, self, name) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(error),
            }
        })();
        if !matches!(put, Ok(true)) {
            let _ = self.unlink(temporary);
        }
        put
    }
}
