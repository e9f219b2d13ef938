//! The kind of the file system that a store is on, and the resource that is exhausted when it is full.
use super::{Root, call};
use rustix::fs;
use std::io;

impl Root {
    /// The name of the file system if a mapped file may not show the writes of other processes there: other hosts write
    /// to a network file system, and a user process implements FUSE. `None` for local file systems.
    pub(in crate::file) fn remote_file_system(&self) -> Option<&'static str> {
        self.kind.remote_name()
    }

    /// Syncs the whole file system.
    pub(super) fn sync_file_system(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        call("sync file system", || fs::syncfs(&self.fd))?;
        // Other kernels have no call that syncs one file system.
        #[cfg(not(target_os = "linux"))]
        fs::sync();
        Ok(())
    }

    /// The resource that an `ENOSPC` means, for the error message. Some file systems run out of inodes long before they
    /// run out of bytes.
    pub(in crate::file) fn enospc_reason(&self) -> &'static str {
        match call("stat file system", || fs::fstatvfs(&self.fd)) {
            Ok(stat) if stat.f_files > 0 && stat.f_favail == 0 => "no inodes left on the file system",
            _ => "no space left on the file system",
        }
    }
}
