//! A disk, a loop device on it and a mount point: the base of a recording and of a check.
//!
//! All parts are removed in reverse order when the rig is dropped. The kernel keeps a device's pages until its last
//! user closes it, which may be a service that examines every changed device. So the kernel is instructed to discard
//! them before each mount, which then sees an image that was exchanged meanwhile.
use crate::disk::{Disk, Pages};
use crate::filesystem::{FileSystem, run};
use crate::image::Image;
use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// The number of attempts to unmount, 10 ms apart, while another process still has the mount open.
const UNMOUNT_TRIES: u32 = 300;

/// A disk that can be mounted.
pub(crate) struct Rig {
    filesystem: FileSystem,
    mountpoint: PathBuf,
    // The loop device is dropped before the disk, because it has the disk's file open.
    device: LoopDevice,
    /// The disk that this process serves.
    pub(crate) disk: Disk,
}

impl Rig {
    /// Makes a disk, and a loop device on it, below a directory.
    ///
    /// # Errors
    ///
    /// The disk cannot be served, or no loop device is free.
    pub(crate) fn new(filesystem: FileSystem, image: Image, pages: Pages, below: &Path) -> Result<Self> {
        let mountpoint = below.join("mounted");
        fs::create_dir_all(&mountpoint).with_context(|| format!("create {}", mountpoint.display()))?;
        let disk = Disk::serve(image, &below.join("served"), pages)?;
        let device = LoopDevice::attach(&disk.path())?;
        Ok(Self { filesystem, mountpoint, device, disk })
    }

    /// Mounts the disk as it is now.
    ///
    /// # Errors
    ///
    /// The kernel refuses: the journal cannot repair the file system.
    pub(crate) fn mount(&self) -> Result<Mounted<'_>> {
        run(Command::new("blockdev").args(["--flushbufs", &self.device.path]))
            .context("discard the pages of a loop device")?;
        let flags = MountFlags::NOATIME | MountFlags::NOSUID | MountFlags::NODEV;
        mount(
            &*self.device.path,
            &*self.mountpoint,
            self.filesystem.name(),
            flags,
            self.filesystem.mount_options(),
        )
        .with_context(|| format!("mount the {} file system", self.filesystem.name()))?;
        Ok(Mounted { path: &self.mountpoint, is_mounted: true })
    }
}

/// A mounted file system. It is unmounted when this value is dropped.
pub(crate) struct Mounted<'a> {
    path: &'a Path,
    is_mounted: bool,
}

impl Mounted<'_> {
    /// The mount point.
    pub(crate) fn path(&self) -> &Path {
        self.path
    }

    /// Unmounts the file system, as dropping does.
    ///
    /// # Errors
    ///
    /// The file system is still in use. It is unmounted when that ends, and until then its disk must not be changed.
    pub(crate) fn unmount(mut self) -> Result<()> {
        self.unmount_now()
    }

    fn unmount_now(&mut self) -> Result<()> {
        self.is_mounted = false;
        for _ in 0..UNMOUNT_TRIES {
            if unmount(self.path, UnmountFlags::empty()).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = unmount(self.path, UnmountFlags::DETACH);
        bail!("{} is still in use; it is unmounted when that ends", self.path.display())
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if self.is_mounted
            && let Err(error) = self.unmount_now()
        {
            eprintln!("{error:#}");
        }
    }
}

struct LoopDevice {
    path: String,
}

impl LoopDevice {
    fn attach(file: &Path) -> Result<Self> {
        let printed = run(Command::new("losetup").args(["--find", "--show"]).arg(file))
            .context("attach a loop device")?;
        Ok(Self { path: printed.trim().to_owned() })
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("losetup").args(["--detach", &self.path])) {
            eprintln!("{} stays attached: {error:#}", self.path);
        }
    }
}
