//! A process that dies at a system call: the kernel kills it when it is about to make the call, which is then not made.
//!
//! So a writer dies exactly between writing and syncing, between two names, or before it tells anybody; a kill from outside
//! hits such an instant once in a thousand times.
use anyhow::{Context, Result};
use clap::ValueEnum;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fmt;

/// Where a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Death {
    /// Before it syncs a file: what it wrote is in the kernel's memory and nowhere else.
    Fdatasync,
    /// Before it syncs a directory: the file is on the disk, its name may not be.
    Fsync,
    /// Before it removes a name.
    Unlinkat,
    /// Before it puts a larger file in place.
    Renameat2,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no death is hidden");
        f.write_str(value.get_name())
    }
}

impl Death {
    /// Each of them once.
    pub(crate) const ALL: [Self; 4] = [Self::Fdatasync, Self::Fsync, Self::Unlinkat, Self::Renameat2];

    /// All of them; the one that drafts of the engine did not survive comes most often.
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

    /// From now on this process dies there.
    ///
    /// # Errors
    ///
    /// The kernel has no such filters, or does not let us set one.
    pub(crate) fn await_it(self) -> Result<()> {
        let calls = match self {
            Self::Fdatasync => &[libc::SYS_fdatasync][..],
            Self::Fsync => &[libc::SYS_fsync],
            Self::Unlinkat => &[libc::SYS_unlinkat],
            Self::Renameat2 => &[libc::SYS_renameat2],
        };
        let rules: BTreeMap<_, _> = calls.iter().map(|call| (*call, Vec::new())).collect();
        let target = ARCH.try_into().context("find out the processor")?;
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::KillProcess, target)
            .context("make a filter of system calls")?;
        let program: BpfProgram = filter.try_into().context("translate a filter of system calls")?;
        seccompiler::apply_filter(&program).context("set a filter of system calls")
    }
}
