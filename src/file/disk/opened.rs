//! System calls on an open file: its metadata, reading, writing, syncing.
use super::{Stat, StatWithTimes, call, failpoint_len};
use rustix::fs::{self, AtFlags};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;

/// The metadata of an open file.
pub(in crate::file) fn stat(file: &File) -> io::Result<Stat> {
    Ok(call("stat file", || super::stat::stat(file, "", AtFlags::EMPTY_PATH))?)
}

/// The metadata of an open file, with the time of its last write. After this call the next write to the file takes
/// longer, as the module [`stat`](mod@super::stat) explains.
pub(in crate::file) fn stat_with_times(file: &File) -> io::Result<StatWithTimes> {
    Ok(call("stat file", || fs::fstat(file))?.into())
}

/// Sets the file's modification time to now, by the file system's clock. Returns that time.
pub(in crate::file) fn touch(file: &File) -> io::Result<i64> {
    let now = fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW };
    call("touch", || fs::futimens(file, &fs::Timestamps { last_access: now, last_modification: now }))?;
    Ok(stat_with_times(file)?.changed)
}

/// Writes all of `bytes` at `offset`.
///
/// # Errors
///
/// A part may have been written.
pub(in crate::file) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    write_all("write", file, bytes, offset)
}

/// Writes counters to the generations file. Returns whether the file still had a name afterwards; `false` also if that
/// cannot be determined. The write and the check of the name pass one failpoint.
pub(in crate::file) fn invalidate_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<bool> {
    write_all("invalidate", file, bytes, offset)?;
    Ok(retry_on_intr(|| super::stat::links(file)).is_ok_and(|links| links > 0))
}

fn write_all(name: &'static str, file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let write = || rustix::io::pwrite(file, &bytes[..failpoint_len(name, bytes.len())?], offset);
        let written = retry_on_intr(write)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}

/// Writes several byte slices one after the other, in one system call and without copying them into one buffer.
///
/// # Errors
///
/// Some of the bytes may have been written.
pub(in crate::file) fn write_parts_at<const N: usize>(
    file: &File,
    parts: [&[u8]; N],
    mut offset: u64,
) -> io::Result<()> {
    let mut left: usize = parts.iter().map(|part| part.len()).sum();
    let mut slices = parts.map(IoSlice::new);
    let mut slices = &mut slices[..];
    while left > 0 {
        let written = retry_on_intr(|| match failpoint_len("write", left)? {
            most if most < left => {
                let first: Vec<u8> = slices.iter().flat_map(|part| part.iter().copied()).take(most).collect();
                rustix::io::pwrite(file, &first, offset)
            }
            _ => rustix::io::pwritev(file, slices, offset),
        })?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        if written == left {
            break;
        }
        IoSlice::advance_slices(&mut slices, written);
        left -= written;
        offset += written as u64;
    }
    Ok(())
}

/// Appends `bytes` to a file that was opened with [`Access::Append`](super::Access::Append). The bytes are adjacent in
/// the file, even if other processes append at the same time.
///
/// # Errors
///
/// Some of the bytes may have been written.
pub(in crate::file) fn append(file: &File, bytes: &[u8]) -> io::Result<()> {
    match retry_on_intr(|| rustix::io::write(file, &bytes[..failpoint_len("append", bytes.len())?]))? {
        written if written == bytes.len() => Ok(()),
        // Only some of the bytes were written. A second append would not be adjacent to the first, because another
        // process may have appended in between.
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Reads `bytes_max` bytes at `offset`; fewer only at the end of the file.
pub(in crate::file) fn read_at(file: &File, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
    let (mut bytes, mut length) = (vec![0; bytes_max], 0);
    while length < bytes_max {
        let read = || {
            let most = failpoint_len("read", bytes_max - length)?;
            rustix::io::pread(file, &mut bytes[length..length + most], offset + length as u64)
        };
        match retry_on_intr(read)? {
            0 => break,
            read => length += read,
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Syncs a file's contents: they survive a power cut.
///
/// # Errors
///
/// The contents must be presumed lost. The call must not be repeated on this file, because the kernel marks the pages
/// clean after a failed sync: a second sync would succeed without writing them.
pub(in crate::file) fn sync_data(file: &File) -> io::Result<()> {
    // The standard library chooses the right call for each kind of Unix (`fdatasync`, `F_FULLFSYNC`).
    Ok(call("sync file", || {
        file.sync_data().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    })?)
}

/// A file of up to this size (a session of up to 7 KiB) is read with one system call into a buffer on the stack.
/// Allocating a heap block of a page would cost as much as the rest of the decoding.
const USUAL_SIZE: usize = 16 * 1024;

/// Reads a whole session file and calls `look` with its bytes. `None` if the file has more than `bytes_max` bytes.
///
/// One `pread` may return only the beginning of a file: before an unreadable page, or over a network. `is_whole` tells
/// whether the bytes that were read state a length equal to their number. If not, their number is compared with the
/// file's size, and the file is read again if it is larger.
pub(in crate::file) fn read_whole<R>(
    file: &File,
    bytes_max: usize,
    is_whole: impl FnOnce(&[u8]) -> bool,
    look: impl FnOnce(&[u8]) -> R,
) -> io::Result<Option<R>> {
    // The buffer has one byte more than the usual size: if a read fills that byte, the file is larger. The buffer is
    // not initialized, because filling it with zeros would cost more than the read.
    #[expect(
        clippy::large_stack_arrays,
        reason = "threads have megabytes, and it is not touched beyond what is read"
    )]
    let mut buffer = [MaybeUninit::uninit(); USUAL_SIZE + 1];
    let read =
        failpoint_len("read", buffer.len()).and_then(|most| rustix::io::pread(file, &mut buffer[..most], 0));
    let (bytes, _) = match read {
        Ok(read) => read,
        Err(Errno::INTR) => return read_whole(file, bytes_max, is_whole, look),
        Err(errno) => return Err(errno.into()),
    };
    if bytes.len() <= USUAL_SIZE.min(bytes_max) && is_whole(bytes) {
        return Ok(Some(look(bytes)));
    }
    let size = usize::try_from(stat(file)?.bytes).unwrap_or(usize::MAX);
    if size > bytes_max {
        return Ok(None);
    }
    if size == bytes.len() {
        return Ok(Some(look(bytes)));
    }
    let bytes = read_at(file, 0, size)?;
    Ok(Some(look(&bytes)))
}
