//! The file systems under test: how they are created and mounted, and in which units their disk tears writes.
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::ffi::CStr;
use std::fs::File;
use std::path::Path;
use std::process::Command;

/// A file system that promises to survive power cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum FileSystem {
    /// ext4 with its journal, and data that is written before its metadata, as by default.
    Ext4,
    /// xfs, version 5.
    Xfs,
    /// btrfs with its default for one disk: metadata is stored twice.
    Btrfs,
}

impl FileSystem {
    /// The name of the file system, as `mount` takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// The size of a small disk for the file system: the minimum that `mkfs` accepts, and room for the workload.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::Ext4 => 64 << 20,
            Self::Xfs => 320 << 20,
            Self::Btrfs => 256 << 20,
        }
    }

    /// The unit that the disk writes there as a whole or not at all. Btrfs assumes that a superblock of 4 KiB is not
    /// torn, and all its other writes are as large. The logs and metadata of the others are made for sectors, except
    /// ext4's superblock, which is two sectors with one checksum.
    pub(crate) fn sector_at(self, offset: u64) -> usize {
        match self {
            Self::Ext4 if offset < 4096 => 4096,
            Self::Ext4 | Self::Xfs => 512,
            Self::Btrfs => 4096,
        }
    }

    /// The mount options of the file system. Several disks with copies of the same file system are mounted at the same
    /// time, which xfs permits only with `nouuid`.
    pub(crate) fn mount_options(self) -> Option<&'static CStr> {
        match self {
            Self::Ext4 | Self::Btrfs => None,
            Self::Xfs => Some(c"nouuid"),
        }
    }

    /// Creates a file system in a file.
    ///
    /// # Errors
    ///
    /// `mkfs` is not installed or fails; its message is in the error.
    pub(crate) fn make(self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        file.set_len(self.bytes()).with_context(|| format!("set the size of {}", path.display()))?;
        let arguments: &[&str] = match self {
            // The kernel must not initialise any part of the disk while the workload runs.
            Self::Ext4 => {
                &["-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"]
            }
            Self::Xfs | Self::Btrfs => &["-q", "-f", "-K"],
        };
        run(Command::new(format!("mkfs.{}", self.name())).args(arguments).arg(path)).map(drop)
    }
}

/// Runs a command to its end and returns its output.
///
/// # Errors
///
/// The command cannot be started or fails; its message is in the error.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("start {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed ({}): {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
