//! System calls that create: the root directory, and files that get their final name when they are complete.
use super::{Directory, Root, Sharing, call, failpoint, sharing};
use crate::error::Result as CrateResult;
use crate::file::layout::TEMPORARY;
use crate::random;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::Path;

/// Makes the directory of a store. Returns whether it was made; `false` if the name exists already.
pub(in crate::file) fn make_root(path: &Path) -> io::Result<bool> {
    match call("make root", || fs::mkdir(path, Sharing::Private.directory())) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Sets the mode of the directory that was just made, because the umask may have cleared bits.
pub(in crate::file) fn set_mode_of_root(path: &Path, sharing: Sharing) -> io::Result<()> {
    // `components` removes a slash at the end of the path. With that slash, the kernel would follow a symbolic link at
    // the end.
    let path = path.components().as_path();
    Ok(sharing::set_mode_in(fs::CWD, path, sharing.directory())?)
}

impl Root {
    /// Syncs the name of the root, by syncing its parent directory.
    ///
    /// The parent may be unreadable to this user (as home directories with mode 0711 are), or on a file system that
    /// cannot sync a directory (read-only images, `/proc`). Then the file system of the root is synced as a whole. That
    /// includes the root's name, unless the root is a mount point; but then its name was there before this process made
    /// the store.
    ///
    /// # Errors
    ///
    /// Any other I/O error; a power cut may then remove the name.
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

/// A name for a temporary file: 128 random bits, so that no other file has it.
pub(in crate::file) fn temporary_name() -> CrateResult<String> {
    let bits = random::bytes("name a temporary file")?;
    Ok(format!("{TEMPORARY}{:032x}", u128::from_le_bytes(bits)))
}

/// What happens to a file that has the name of a new file already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::file) enum IfExists {
    Keep,
    Replace,
}

impl Directory {
    /// Makes a file under the name `temporary`, sets its mode, writes its contents, and renames it to `name`. So no
    /// process sees the file under `name` before it is complete. Returns whether the file got the name; `false` if a
    /// file has that name already and `if_exists` is [`IfExists::Keep`].
    pub(in crate::file) fn put(
        &self,
        temporary: &str,
        name: &str,
        if_exists: IfExists,
        contents: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<bool> {
        let file = self.create(temporary)?;
        let put = (|| {
            // The umask may have cleared bits of the new file's mode.
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
