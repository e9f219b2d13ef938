//! The kind of the file system that a store is on, and what it means for files that processes share.
use rustix::fs;
use std::fs::File;

/// The kind of a file system: the number `f_type` of statfs(2), or `None` if that is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind(Option<u32>);

impl Kind {
    #[cfg(target_os = "linux")]
    pub(crate) fn of(directory: &File) -> rustix::io::Result<Self> {
        #[cfg(test)]
        if let Some(magic) = PRETENDED.get() {
            return Ok(Self(Some(magic)));
        }
        // The type of the field `f_type` differs between targets in width and sign. The numbers of all kinds have 32
        // bits.
        let magic = i128::from(fs::fstatfs(directory)?.f_type) & 0xffff_ffff;
        Ok(Self(u32::try_from(magic).ok()))
    }

    /// Other operating systems do not report the kind.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn of(_: &File) -> rustix::io::Result<Self> {
        Ok(Self(None))
    }

    /// Whether a `renameat2` that succeeds has done what its flags ask for. Not on FUSE, where a server implements the
    /// call: the shared folder of a virtual machine on a Mac accepted an exchange of names, and lost one of the two
    /// files.
    pub(crate) fn keeps_rename_flags(self) -> bool {
        self != Self::FUSE
    }

    /// Whether a power cut after the removal of a name can bring back the file that had the name before an exchange,
    /// although the exchange was synced. So it is on btrfs.
    pub(crate) fn forgets_synced_exchanges(self) -> bool {
        self == Self::BTRFS
    }

    /// The name of the file system if a mapped file may not show the writes of other processes there: other hosts write
    /// to a network file system, and a user process implements FUSE. `None` for local file systems.
    pub(crate) fn remote_name(self) -> Option<&'static str> {
        self.0.and_then(remote_name)
    }

    const FUSE: Self = Self(Some(0x6573_5546));
    const BTRFS: Self = Self(Some(0x9123_683e));
}

#[cfg(test)]
thread_local! { static PRETENDED: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) }; }

/// Runs `operation`. Each directory that it asks about on this thread appears to be on a file system of the kind
/// `magic`.
#[cfg(all(test, not(shuttle)))]
pub(crate) fn pretending<R>(magic: u32, operation: impl FnOnce() -> R) -> R {
    PRETENDED.set(Some(magic));
    let result = operation();
    PRETENDED.set(None);
    result
}

/// The name of a file system that other hosts share or that runs outside the kernel, by its number in statfs(2). `None`
/// for all others.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn file_systems_that_cannot_share_memory_are_known_by_name() {
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
        let dir = File::open(tempfile::tempdir().unwrap().path()).unwrap();
        assert_eq!(Kind::of(&dir).unwrap().remote_name(), None);
    }
}
