//! What the making of a store takes beside what its use does: the directory itself, and a file that has its name only when it
//! is complete.
use super::{Root, Sharing, call, gate, sync_data, write_at};
use crate::file::layout::TEMPORARY;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::io;
use std::os::unix::fs::PermissionsExt;
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
    Ok(call("change mode", || fs::chmod(path, sharing.directory()))?)
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

    /// Puts a file with its mode under a name in the root, complete and synced before it has the name, unless something has that
    /// name.
    pub(in crate::file) fn put_new(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        gate("make temporary file")?;
        let file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .permissions(std::fs::Permissions::from_mode(self.sharing.file().as_raw_mode()))
            .tempfile_in(&self.path)?;
        // Once more: the umask may have taken bits away.
        self.sharing.set_mode(file.as_file())?;
        write_at(file.as_file(), bytes, 0)?;
        sync_data(file.as_file())?;
        let (_, temporary) = file.into_parts();
        let name_now = temporary.file_name().unwrap_or_default();
        let name_now = CString::new(name_now.as_encoded_bytes()).expect("a name has no zeros");
        // Where a rename takes no flags, two that make a store at once may both put theirs there, which are the same.
        let here = self.open_directory(".")?;
        match here.move_to(&name_now, &here, name) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }
}
