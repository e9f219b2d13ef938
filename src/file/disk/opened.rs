//! Calls on an open file.
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

/// The metadata of an open file, and the time of its last write. After this call the file's next write takes longer;
/// see [`stat`](mod@super::stat).
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

/// Writes to the generations file. Returns whether the file is known to have had a name afterwards. (The two calls pass
/// one failpoint.)
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

/// Writes several parts behind each other, in one call and without copying them together.
///
/// # Errors
///
/// A part may have been written.
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

/// Appends `bytes` to a file that was opened with [`Access::Append`](super::Access::Append). Entries that others append
/// meanwhile come before or after them, not in between.
///
/// # Errors
///
/// A part may have been written.
pub(in crate::file) fn append(file: &File, bytes: &[u8]) -> io::Result<()> {
    match retry_on_intr(|| rustix::io::write(file, &bytes[..failpoint_len("append", bytes.len())?]))? {
        written if written == bytes.len() => Ok(()),
        // A second append would not be adjacent to the first.
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Reads up to `bytes_max` bytes at `offset`, fewer only at the end.
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

/// Forces a file's contents to the disk.
///
/// # Errors
///
/// The contents must be presumed lost, and a second call would lie: the kernel marks the pages clean after a failed
/// sync.
pub(in crate::file) fn sync_data(file: &File) -> io::Result<()> {
    // The standard library's call, because it knows which call syncs on each kind of Unix.
    Ok(call("sync file", || {
        file.sync_data().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    })?)
}

/// Files up to this size (sessions of up to 7 KiB) are read with one call, onto the stack, because allocating a heap
/// block of a page costs as much as the rest of the decoding.
const USUAL_SIZE: usize = 16 * 1024;

/// Reads a whole session file and hands its bytes to `look`; `None` if it has more than `bytes_max` bytes.
///
/// One call may return only a part of a file: before an unreadable page, or over a network. So unless `is_whole`
/// confirms the bytes, their number is compared with the file's size.
pub(in crate::file) fn read_whole<R>(
    file: &File,
    bytes_max: usize,
    is_whole: impl FnOnce(&[u8]) -> bool,
    look: impl FnOnce(&[u8]) -> R,
) -> io::Result<Option<R>> {
    // The buffer has one byte more than the usual size. A read that fills this byte shows that the file is larger. The
    // buffer is left uninitialized before the read.
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
