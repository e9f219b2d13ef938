//! Detects whether this process opened the store, or was forked by the process that did. A check costs one load from
//! memory and no system call.
//!
//! A forked child has a copy of the store's memory. Locks in that copy may be held by threads that do not exist in the
//! child. The child also shares the parent's descriptors, and the `flock`s that belong to them. So every operation in a
//! child is refused, and a child unlocks nothing.
//!
//! The check reads a page that the kernel fills with zeros in a child. If the kernel cannot do that (before Linux 4.14,
//! and on other systems), the check compares process ids. Limit: a later process may reuse an id.
#![expect(unsafe_code, reason = "what the kernel does to memory is outside the language")]
use memmap2::MmapMut;

/// Distinguishes the process that called [`new`](Self::new) from forked children of that process.
#[derive(Debug)]
pub(crate) struct ForkGuard {
    /// A page whose first byte is 1 in this process, and 0 in a forked child; `None` if the kernel cannot wipe pages on
    /// fork.
    page: Option<MmapMut>,
    process: u32,
}

impl ForkGuard {
    pub(crate) fn new() -> Self {
        Self { page: page_wiped_by_fork(), process: std::process::id() }
    }

    /// Whether this is the process that made the guard.
    #[inline]
    pub(crate) fn same_process(&self) -> bool {
        match &self.page {
            Some(page) => page[0] == 1,
            None => self.process == std::process::id(),
        }
    }

    #[cfg(test)]
    pub(crate) fn of_another_process() -> Self {
        Self { page: None, process: std::process::id() + 1 }
    }
}

#[cfg(target_os = "linux")]
fn page_wiped_by_fork() -> Option<MmapMut> {
    use rustix::mm::{Advice, madvise};
    let mut page = MmapMut::map_anon(1).ok()?;
    // SAFETY: the range is that of the mapping, to which no other code has a reference. The advice changes the memory
    // of forked children only, and before they run: the byte that is 1 here is 0 there, and both are valid.
    unsafe { madvise(page.as_mut_ptr().cast(), page.len(), Advice::LinuxWipeOnFork) }.ok()?;
    page[0] = 1;
    Some(page)
}

#[cfg(not(target_os = "linux"))]
fn page_wiped_by_fork() -> Option<MmapMut> {
    None
}
