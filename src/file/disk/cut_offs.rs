//! System calls on the file `cutoffs`, the log that says which sessions were ended all at once.
use super::{Access, Root, StatWithTimes, call};
use crate::file::layout::CUT_OFFS;
use rustix::fs::{self, AtFlags, Mode};
use rustix::io::Errno;
use std::fs::File;
use std::io;

impl Root {
    /// Opens the log. A symbolic link in its place is an error.
    pub(in crate::file) fn open_cut_offs(&self, access: Access) -> io::Result<File> {
        let open = || fs::openat(&self.fd, CUT_OFFS, access.flags(), Mode::empty());
        Ok(call("open cut-offs", open)?.into())
    }

    /// The metadata of the file that has the name of the log now. On a network file system, `STATX_FORCE_SYNC` asks the
    /// server, because this host may keep old metadata for a minute.
    pub(in crate::file) fn stat_cut_offs(&self) -> io::Result<StatWithTimes> {
        let stat = |flags| fs::statat(&self.fd, CUT_OFFS, flags).map(StatWithTimes::from);
        Ok(call("stat cut-offs", || {
            #[cfg(target_os = "linux")]
            if self.remote_file_system().is_some() {
                match stat(AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_FORCE_SYNC) {
                    // A kernel without `statx` refuses the flag.
                    Err(Errno::INVAL) => {}
                    found => return found,
                }
            }
            stat(AtFlags::SYMLINK_NOFOLLOW)
        })?)
    }
}

/// Shortens a file to its first `bytes` bytes.
pub(in crate::file) fn truncate(file: &File, bytes: u64) -> io::Result<()> {
    Ok(call("truncate", || fs::ftruncate(file, bytes))?)
}
