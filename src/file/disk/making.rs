//! Calls that only the creation of a store makes: for the root directory, and for files that get their names when they are
//! complete.
use super::{Directory, Root, Sharing, call, failpoint, sharing};
use crate::error::Result as CrateResult;
use crate::file::layout::TEMPORARY;
use crate::random;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::Path;

/// Makes the directory of a store. Whether it did; not if something has its name.
pub(in crate::file) fn make_root(path: &Path) -> io::Result<bool> {
    match call("make root", || fs::mkdir(path, Sharing::Private.directory())) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Gives the directory that was just made its mode: the umask may have taken bits away.
pub(in crate::file) fn set_mode_of_root(path: &Path, sharing: Sharing) -> io::Result<()> {
    // Without a slash at its end, after which a link would be followed.
    let path = path.components().as_path();
    Ok(sharing::set_mode_in(fs::CWD, path, sharing.directory())?)
}

impl Root {
    /// Brings the name of the root itself to the disk.
    ///
    /// The parent may be closed to this user (0711, as of homes), or lie on a file system that syncs no directory (images that
    /// are read only, `/proc`). Then everything on the root's own file system is synced: the root's name is among it, unless
    /// the root is where a file system is mounted, and such a name this process has not made.
    ///
    /// # Errors
    ///
    /// Any other I/O error; the name may be lost in a power cut.
    pub(in crate::file) fn sync_name(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Not by the path: that may lead through a link, or end in a dot.
        let parent = call("open parent", || fs::openat(&self.fd, "..", flags, Mode::empty()));
        match parent.and_then(|parent| call("sync parent", || fs::fsync(&parent))) {
            Err(
                Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP,
            ) => self.sync_file_system(),
            synced => Ok(synced?),
        }
    }
}

/// A name that no other file on its way has.
pub(in crate::file) fn temporary_name() -> CrateResult<String> {
    let bits = random::bytes("name a temporary file")?;
    Ok(format!("{TEMPORARY}{:032x}", u128::from_le_bytes(bits)))
}

/// Whether a new file replaces the file that has its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::file) enum Taken {
    Kept,
    Replaced,
}

impl Directory {
    /// Puts a file with its mode under a name. It is made and gets its contents under a temporary one, so that it is complete when it has
    /// its own. Whether it was put there: not if the name was taken, and what has it is to be kept.
    pub(in crate::file) fn put(
        &self,
        temporary: &str,
        name: &str,
        taken: Taken,
        contents: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<bool> {
        let file = self.create(temporary)?;
        let put = (|| {
            // The umask may have taken bits away.
            self.sharing.set_mode(&file)?;
            contents(&file)?;
            if taken == Taken::Replaced {
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
