//! The file systems that are tested: how they are made and mounted, and in what units their disk tears.
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::ffi::CStr;
use std::fs::File;
use std::path::Path;
use std::process::Command;

/// A file system that promises something about power cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum FileSystem {
    /// With its journal, data ordered, as by default.
    Ext4,
    /// Version 5.
    Xfs,
    /// As by default on one disk: metadata twice.
    Btrfs,
}

impl FileSystem {
    /// Its name, as `mount` takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// A small disk for it: what its maker still accepts, and room for the workload.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::Ext4 => 64 << 20,
            Self::Xfs => 320 << 20,
            Self::Btrfs => 256 << 20,
        }
    }

    /// What the disk writes there as a whole or not at all. Btrfs takes it for granted that a superblock of 4 KiB is not
    /// torn, and everything else it writes is as large; the others' logs and metadata are made for sectors, but for ext4's
    /// superblock, which is two of them with one checksum.
    pub(crate) fn sector_at(self, offset: u64) -> usize {
        match self {
            Self::Ext4 if offset < 4096 => 4096,
            Self::Ext4 | Self::Xfs => 512,
            Self::Btrfs => 4096,
        }
    }

    /// How it is mounted. Several lanes mount the same file system at the same time, which xfs has to be told.
    pub(crate) fn mount_options(self) -> Option<&'static CStr> {
        match self {
            Self::Ext4 | Self::Btrfs => None,
            Self::Xfs => Some(c"nouuid"),
        }
    }

    /// Makes one in a file.
    ///
    /// # Errors
    ///
    /// The maker is not installed or refuses; its message is in the error.
    pub(crate) fn make(self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        file.set_len(self.bytes()).with_context(|| format!("set the size of {}", path.display()))?;
        let arguments: &[&str] = match self {
            // Nothing is left to be initialised by a thread of the kernel while the workload runs.
            Self::Ext4 => {
                &["-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"]
            }
            Self::Xfs | Self::Btrfs => &["-q", "-f", "-K"],
        };
        run(Command::new(format!("mkfs.{}", self.name())).args(arguments).arg(path)).map(drop)
    }
}

/// Runs a command to its end; what it printed.
///
/// # Errors
///
/// It cannot be started or fails; what it said is in the error.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("start {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed ({}): {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
