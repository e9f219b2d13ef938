//! Calls on the log of cut-offs.
use super::{Access, Root, Stat, call};
use crate::file::layout::CUT_OFFS;
use rustix::fs::{self, AtFlags, Mode};
use rustix::io::Errno;
use std::fs::File;
use std::io;

impl Root {
    /// Opens the log, not following a link; for reading, or also for writing.
    pub(in crate::file) fn open_cut_offs(&self, access: Access) -> io::Result<File> {
        let open = || fs::openat(&self.fd, CUT_OFFS, access.flags(), Mode::empty());
        Ok(call("open cut-offs", open)?.into())
    }

    /// The metadata of the file that has the name of the log now. On a network file system the server is asked, because
    /// this host may keep old metadata for a minute.
    pub(in crate::file) fn stat_cut_offs(&self) -> io::Result<Stat> {
        let stat = |flags| super::stat::stat(&self.fd, CUT_OFFS, flags);
        Ok(call("stat cut-offs", || {
            #[cfg(target_os = "linux")]
            if self.remote_file_system().is_some() {
                match stat(AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_FORCE_SYNC) {
                    // A kernel without `statx` does not know the flag.
                    Err(Errno::INVAL) => {}
                    found => return found,
                }
            }
            stat(AtFlags::SYMLINK_NOFOLLOW)
        })?)
    }
}

/// Cuts a file off behind its first `bytes` bytes.
pub(in crate::file) fn truncate(file: &File, bytes: u64) -> io::Result<()> {
    Ok(call("truncate", || fs::ftruncate(file, bytes))?)
}
