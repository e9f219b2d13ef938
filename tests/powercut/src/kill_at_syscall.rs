//! A process that is killed at a chosen system call: the kernel kills it when it is about to make the call, which is
//! not made then. So a writer dies exactly between write and sync, between two changes of names, or before its
//! invalidation. A kill from another process hits such an instant once in a thousand times.
use anyhow::{Context, Result};
use clap::ValueEnum;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fmt;

/// The system call at which a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum KillPoint {
    /// Before it syncs a file: the written bytes are only in the kernel's memory.
    Fdatasync,
    /// Before it syncs a directory: the file is on the disk, its name may not be.
    Fsync,
    /// Before it removes a file's name.
    Unlinkat,
    /// Before it exchanges or renames a larger file into place.
    Renameat2,
}

impl fmt::Display for KillPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no kill point is hidden");
        f.write_str(value.get_name())
    }
}

impl KillPoint {
    /// Each of these system calls.
    pub(crate) const ALL: [Self; 4] = [Self::Fdatasync, Self::Fsync, Self::Unlinkat, Self::Renameat2];

    /// The calls for a random choice. `fdatasync` comes most often, because most drafts of the engine failed there.
    pub(crate) const CHOICES: [Self; 8] = [
        Self::Fdatasync,
        Self::Fdatasync,
        Self::Fdatasync,
        Self::Fdatasync,
        Self::Fsync,
        Self::Fsync,
        Self::Unlinkat,
        Self::Renameat2,
    ];

    /// Installs a filter with which the kernel kills this process at this call.
    ///
    /// # Errors
    ///
    /// The kernel does not support such filters, or does not permit one.
    pub(crate) fn arm(self) -> Result<()> {
        let calls = match self {
            Self::Fdatasync => &[libc::SYS_fdatasync][..],
            Self::Fsync => &[libc::SYS_fsync],
            Self::Unlinkat => &[libc::SYS_unlinkat],
            Self::Renameat2 => &[libc::SYS_renameat2],
        };
        let rules: BTreeMap<_, _> = calls.iter().map(|call| (*call, Vec::new())).collect();
        let target = ARCH.try_into().context("find out the processor")?;
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::KillProcess, target)
            .context("create a filter of system calls")?;
        let program: BpfProgram = filter.try_into().context("compile a filter of system calls")?;
        seccompiler::apply_filter(&program).context("set a filter of system calls")
    }
}
