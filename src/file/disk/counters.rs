//! Calls to the one file that is mapped, and to the file system on whether it can be.
use super::{FILE, Root, SAFE, gate};
use crate::file::layout::GENERATIONS;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

impl Root {
    /// Opens the counters, not following a link: for writing, unless the file system is read-only.
    pub(in crate::file) fn open_generations(&self) -> io::Result<File> {
        gate("open generations")?;
        let open = |flags| retry_on_intr(|| fs::openat(&self.fd, GENERATIONS, flags | SAFE, Mode::empty()));
        let file = match open(OFlags::RDWR) {
            Err(Errno::ROFS) => open(OFlags::RDONLY),
            file => file,
        };
        Ok(file?.into())
    }

    /// Makes the file of the counters in place of what has its name.
    pub(in crate::file) fn make_generations(&self) -> io::Result<File> {
        gate("make generations")?;
        match fs::unlinkat(&self.fd, GENERATIONS, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | SAFE;
        Ok(retry_on_intr(|| fs::openat(&self.fd, GENERATIONS, flags, FILE))?.into())
    }

    /// Removes the counters. Best effort.
    pub(in crate::file) fn remove_generations(&self) {
        let _ = fs::unlinkat(&self.fd, GENERATIONS, AtFlags::empty());
    }

    /// Whether other hosts may write to the file system behind our kernel's back, or the file system lives in a process:
    /// what one process writes to a file there, another may not see in a mapping of it. Its name.
    #[cfg(target_os = "linux")]
    pub(in crate::file) fn remote_file_system(&self) -> io::Result<Option<&'static str>> {
        gate("stat file system")?;
        // Its type differs from target to target, in width and sign; 32 bits are used.
        let magic = i128::from(fs::fstatfs(&self.fd)?.f_type) & 0xffff_ffff;
        Ok(remote_name(u32::try_from(magic).expect("32 bits")))
    }

    /// Elsewhere nobody says.
    #[cfg(not(target_os = "linux"))]
    pub(in crate::file) fn remote_file_system(&self) -> io::Result<Option<&'static str>> {
        Ok(None)
    }
}

/// Whether a directory lies on btrfs.
#[cfg(target_os = "linux")]
pub(in crate::file) fn is_btrfs(directory: impl AsFd) -> io::Result<bool> {
    gate("stat file system")?;
    Ok(i128::from(fs::fstatfs(directory)?.f_type) & 0xffff_ffff == 0x9123_683e)
}

/// Elsewhere there is none.
#[cfg(not(target_os = "linux"))]
pub(in crate::file) fn is_btrfs(_: impl AsFd) -> io::Result<bool> {
    Ok(false)
}

/// The file systems of statfs(2) that are not the kernel's own, or not this host's alone.
#[cfg(target_os = "linux")]
fn remote_name(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x0102_1997 => "9p",
        0x6573_5546 => "FUSE",
        0x00c3_6400 => "Ceph",
        0x0bd0_0bd0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x7461_636f => "OCFS2",
        0x0116_1970 => "GFS2",
        0x2003_0528 => "OrangeFS",
        0xbacb_acbc => "VMware shared folder",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x786f_4256 => "VirtualBox shared folder",
        _ => return None,
    })
}

/// The size of a file.
///
/// # Errors
///
/// [`Errno::NXIO`] if it is a pipe, a device or something else that has none.
pub(in crate::file) fn regular_size(file: &File) -> io::Result<u64> {
    gate("stat file")?;
    let stat = fs::fstat(file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::NXIO.into());
    }
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// On btrfs, lets later writes to an empty file go to the blocks it has, so that they need no space. Best effort: most
/// file systems do that anyway, and know no such flag.
pub(in crate::file) fn avoid_copy_on_write(file: &File) {
    #[cfg(target_os = "linux")]
    if let Ok(flags) = fs::ioctl_getflags(file) {
        let _ = fs::ioctl_setflags(file, flags | fs::IFlags::NOCOW);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Maps a file for reading.
pub(in crate::file) fn map(options: &MmapOptions, file: &File) -> io::Result<MmapRaw> {
    gate("map")?;
    options.map_raw_read_only(file)
}

/// Lets the kernel bring in single pages of a mapped file, and none ahead. Best effort.
pub(in crate::file) fn expect_random_access(file: &File, map: &MmapRaw) {
    #[cfg(target_os = "linux")]
    let _ = fs::fadvise(file, 0, None, fs::Advice::Random);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
    let _ = map.advise(memmap2::Advice::Random);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn file_systems_of_other_hosts_and_of_processes_are_known_by_name_and_the_kernels_own_are_not_among_them()
    {
        for (magic, name) in [
            (0x6969, Some("NFS")),
            // SMB 1, CIFS, SMB 2 and 3
            (0x517b, Some("SMB")),
            (0xff53_4d42, Some("SMB")),
            (0xfe53_4d42, Some("SMB")),
            (0x0102_1997, Some("9p")),
            (0x6573_5546, Some("FUSE")),
            (0x00c3_6400, Some("Ceph")),
            // the kernel's AFS client, OpenAFS
            (0x6b41_4653, Some("AFS")),
            (0x5346_414f, Some("AFS")),
            (0x786f_4256, Some("VirtualBox shared folder")),
            (0xbacb_acbc, Some("VMware shared folder")),
            (0x0bd0_0bd0, Some("Lustre")),
            (0x4750_4653, Some("GPFS")),
            (0x7461_636f, Some("OCFS2")),
            (0x0116_1970, Some("GFS2")),
            (0x2003_0528, Some("OrangeFS")),
            // ext4, xfs, btrfs, tmpfs, f2fs, overlayfs, zfs, none
            (0xef53, None),
            (0x5846_5342, None),
            (0x9123_683e, None),
            (0x0102_1994, None),
            (0xf2f5_2010, None),
            (0x794c_7630, None),
            (0x2fc1_2fc1, None),
            (0, None),
        ] {
            assert_eq!(remote_name(magic), name, "{magic:#x}");
        }
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Root::open(dir.path()).unwrap().remote_file_system().unwrap(), None);
    }
}
