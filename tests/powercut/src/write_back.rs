//! Makes the kernel write a file's pages back as it does by itself after a while: without waiting, and
//! without a flush of the disk. The tool's only `unsafe` code, because no library that it uses has this call.
#![expect(unsafe_code, reason = "a system call that is in libc only")]
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Starts writing the file's dirty pages to the disk.
///
/// # Errors
///
/// The kernel refuses.
pub(crate) fn begin_write_back(file: &File) -> io::Result<()> {
    // SAFETY: the call takes numbers only, and touches no memory of this process; the descriptor is open for as long as
    // `file` is borrowed.
    let returned = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
