//! Detects whether this process opened the store, or is a forked child of the process that did. Costs one load from
//! memory, and no system call.
//!
//! A forked child has a copy of the store's memory, in which locks may be held by threads that do not exist in the
//! child. It also shares the descriptors, and with them the parent's `flock`s. So every call in a child is refused, and
//! a child releases no lock.
//!
//! Limit: if the kernel cannot wipe a page in children (before Linux 4.14, and on other systems), the process id
//! decides, and a later process may reuse that id.
#![expect(unsafe_code, reason = "what the kernel does to memory is outside the language")]
use memmap2::MmapMut;

/// Distinguishes the process that made it from forked children of that process.
#[derive(Debug)]
pub(crate) struct ForkGuard {
    /// One page that holds 1 in this process, and 0 in a child; `None` if the kernel cannot wipe pages on fork.
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
    // SAFETY: the range is that of the mapping, which is ours alone. The advice changes the memory of
    // children only, before they run: the page reads as written here and as zeros there, and both are valid bytes.
    unsafe { madvise(page.as_mut_ptr().cast(), page.len(), Advice::LinuxWipeOnFork) }.ok()?;
    page[0] = 1;
    Some(page)
}

#[cfg(not(target_os = "linux"))]
fn page_wiped_by_fork() -> Option<MmapMut> {
    None
}
