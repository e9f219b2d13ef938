//! System calls on the generations file (`run/generations`), the only file of a store that is mapped.
use super::{Root, SAFE, StatWithTimes, call, failpoint};
use crate::file::layout::{GENERATIONS, RUN};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;

impl Root {
    /// Opens the generations file for reading and writing, or for reading alone if the file system is read-only. A
    /// symbolic link in its place is an error.
    pub(in crate::file) fn open_generations(&self) -> io::Result<File> {
        let run = self.open_directory_fd("open run directory", RUN)?;
        let open = |flags| fs::openat(&run, GENERATIONS, flags | SAFE, Mode::empty());
        let file = match call("open generations", || open(OFlags::RDWR)) {
            Err(Errno::ROFS) => call("open generations", || open(OFlags::RDONLY)),
            file => file,
        };
        Ok(file?.into())
    }

    /// The metadata of the file that has the name `run/generations` now. It may be another file than the one this store
    /// has open.
    pub(in crate::file) fn stat_generations(&self) -> io::Result<StatWithTimes> {
        let run = self.directory_at(self.open_directory_fd("look for generations", RUN)?);
        run.stat_with_times(GENERATIONS)
    }
}

/// The size of a file.
///
/// # Errors
///
/// [`Errno::NXIO`] if the file is a pipe, a device or another kind that has no size.
pub(in crate::file) fn regular_size(file: &File) -> io::Result<u64> {
    let stat = call("stat file", || fs::fstat(file))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::NXIO.into());
    }
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// Turns copy-on-write off for an empty file on btrfs, so that later writes reuse its blocks and succeed on a full
/// disk. Best effort: most file systems reuse blocks anyway, and have no such flag.
pub(in crate::file) fn avoid_copy_on_write(file: &File) {
    #[cfg(target_os = "linux")]
    if let Ok(flags) = call("get flags", || fs::ioctl_getflags(file)) {
        let _ = call("set flags", || fs::ioctl_setflags(file, flags | fs::IFlags::NOCOW));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Maps a file for reading.
pub(in crate::file) fn map(options: &MmapOptions, file: &File) -> io::Result<MmapRaw> {
    failpoint("map")?;
    options.map_raw_read_only(file)
}

/// Turns read-ahead off for a mapped file, because a store reads single counters at random places in it. Best effort.
pub(in crate::file) fn expect_random_access(file: &File, map: &MmapRaw) {
    #[cfg(target_os = "linux")]
    let _ = call("advise", || fs::fadvise(file, 0, None, fs::Advice::Random));
    #[cfg(not(target_os = "linux"))]
    let _ = file;
    let _ = failpoint("advise").map(|()| map.advise(memmap2::Advice::Random));
}
