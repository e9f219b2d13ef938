//! The metadata of a file. Its times are read only where they are needed, because reading them makes the next write
//! slower.
//!
//! On Linux 6.13 and later, a file whose times were read gets a new time, to the nanosecond, with its next write; other
//! files get one once a clock tick. So a `pwrite` after an `fstat` also changes the inode. On ext4 the two together
//! take 2.8 µs, whereas `pwrite` and a `statx` that asks for no time take 1.7.
use rustix::fs::{self, AtFlags, FileType};
use rustix::io::Errno;
use rustix::path::Arg;
use std::os::fd::AsFd;

/// The identity of a file: device and inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::file) struct Inode {
    pub(super) device: u64,
    pub(super) number: u64,
}

impl Inode {
    pub(in crate::file) fn number(self) -> u64 {
        self.number
    }
}

/// The metadata of a file, without its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::file) struct Stat {
    pub(in crate::file) inode: Inode,
    pub(in crate::file) is_file: bool,
    pub(in crate::file) is_directory: bool,
    pub(in crate::file) owner: u32,
    pub(in crate::file) group: u32,
    /// The number of the file's names (hard links); 0 if all were removed.
    pub(in crate::file) links: u64,
    pub(in crate::file) mode: u32,
    pub(in crate::file) bytes: u64,
}

/// The metadata of a file, with the time of its last write.
#[derive(Clone, Copy, Debug)]
pub(in crate::file) struct StatWithTimes {
    pub(in crate::file) stat: Stat,
    /// The modification time, in seconds since 1970 by the file system's clock.
    pub(in crate::file) changed: i64,
    /// The nanoseconds of that second.
    pub(in crate::file) changed_nanos: u32,
}

impl From<fs::Stat> for StatWithTimes {
    #[expect(clippy::useless_conversion, reason = "the field's type differs from target to target")]
    fn from(stat: fs::Stat) -> Self {
        let changed_nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        Self { changed: stat.st_mtime.into(), changed_nanos, stat: stat.into() }
    }
}

impl std::ops::Deref for StatWithTimes {
    type Target = Stat;
    fn deref(&self) -> &Stat {
        &self.stat
    }
}

impl From<fs::Stat> for Stat {
    #[expect(clippy::useless_conversion, reason = "the fields' types differ from target to target")]
    fn from(stat: fs::Stat) -> Self {
        Self {
            inode: Inode { device: stat.st_dev, number: stat.st_ino },
            is_file: FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
            is_directory: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            owner: stat.st_uid,
            group: stat.st_gid,
            links: stat.st_nlink.into(),
            mode: stat.st_mode & 0o7777,
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
        }
    }
}

/// The metadata of the open file `file` if `name` is empty, otherwise of the file `name` in the open directory `file`.
#[cfg(target_os = "linux")]
pub(super) fn stat(file: impl AsFd, name: impl Arg + Copy, flags: AtFlags) -> Result<Stat, Errno> {
    use rustix::fs::StatxFlags;
    let asked = StatxFlags::TYPE
        .union(StatxFlags::MODE)
        .union(StatxFlags::NLINK)
        .union(StatxFlags::UID)
        .union(StatxFlags::GID)
        .union(StatxFlags::INO)
        .union(StatxFlags::SIZE);
    match fs::statx(&file, name, flags, asked) {
        Ok(stat) => {
            let mode = u32::from(stat.stx_mode);
            let (device, number) = (fs::makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino);
            Ok(Stat {
                inode: Inode { device, number },
                is_file: FileType::from_raw_mode(mode) == FileType::RegularFile,
                is_directory: FileType::from_raw_mode(mode) == FileType::Directory,
                owner: stat.stx_uid,
                group: stat.stx_gid,
                links: stat.stx_nlink.into(),
                mode: mode & 0o7777,
                bytes: stat.stx_size,
            })
        }
        // Kernels before 4.11 have no `statx`, and the system-call filters of some containers forbid it.
        Err(Errno::NOSYS | Errno::PERM) => with_times(file, name, flags),
        Err(errno) => Err(errno),
    }
}

/// The number of an open file's names. It is read alone, without the other metadata, because each save asks for it.
pub(super) fn links(file: impl AsFd) -> Result<u64, Errno> {
    #[cfg(target_os = "linux")]
    if let Ok(stat) = fs::statx(&file, c"", AtFlags::EMPTY_PATH, fs::StatxFlags::NLINK) {
        return Ok(stat.stx_nlink.into());
    }
    stat(file, "", AtFlags::EMPTY_PATH).map(|stat| stat.links)
}

#[cfg(not(target_os = "linux"))]
pub(super) use with_times as stat;

fn with_times(file: impl AsFd, name: impl Arg + Copy, flags: AtFlags) -> Result<Stat, Errno> {
    Ok(fs::statat(file, name, flags)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::symlink;

    /// One process may get its metadata from both calls, because a container's filter of system calls may differ from
    /// thread to thread. So both must give the same answer.
    #[test]
    fn both_calls_say_the_same_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "text").unwrap();
        std::fs::hard_link(dir.path().join("file"), dir.path().join("other")).unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        for root in [dir.path().to_str().unwrap(), "/", "/proc", "/dev", "/dev/shm", "/sys"] {
            let Ok(directory) = File::open(root) else { continue };
            for name in ["", ".", "file", "other", "link", "null", "self"] {
                let flags = if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW };
                let (narrow, whole) = (stat(&directory, name, flags), with_times(&directory, name, flags));
                // The link count of `/proc` changes when any process starts or ends.
                let without_links = |stat: Stat| Stat { links: 0, ..stat };
                assert_eq!(narrow.map(without_links), whole.map(without_links), "{name:?} in {root}");
            }
        }
        let file = File::open(dir.path().join("file")).unwrap();
        let found = stat(&file, "", AtFlags::EMPTY_PATH).unwrap();
        assert_eq!((found.links, found.bytes, found.is_file), (2, 4, true));
        assert_eq!(links(&file), Ok(2));
    }
}
