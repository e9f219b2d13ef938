//! The lock on the root of a store, held for as long as the store is open: `flock`, shared by all processes that use
//! the store.
//!
//! This version never locks a root exclusively; an opening waits for a program that does. A forked child does not
//! unlock, because the lock belongs to the open file, which the child shares with its parent.
use super::flock::wait_for;
use crate::fork::ForkGuard;
use crate::sync::Instant;
use fs2::FileExt;
use std::fs::File;
use std::io;

/// The root of an open store, locked until dropped; the lock is shared by all processes that use the store.
#[derive(Debug)]
pub(super) struct LockedRoot {
    root: File,
    fork_guard: ForkGuard,
}

impl LockedRoot {
    /// Waits until no process holds the root exclusively; `None` at the deadline.
    pub(super) fn share(root: File, deadline: Instant) -> io::Result<Option<Self>> {
        let locked = wait_for(deadline, || FileExt::try_lock_shared(&root))?;
        Ok(locked.then(|| Self { root, fork_guard: ForkGuard::new() }))
    }

    /// Waits until no process uses the root, and locks it exclusively; `None` at the deadline.
    #[cfg(test)]
    pub(super) fn acquire(root: File, deadline: Instant) -> io::Result<Option<Self>> {
        let locked = wait_for(deadline, || FileExt::try_lock_exclusive(&root))?;
        Ok(locked.then(|| Self { root, fork_guard: ForkGuard::new() }))
    }
}

impl Drop for LockedRoot {
    fn drop(&mut self) {
        // A forked child shares the open file, to which the lock belongs. Closing the child's copy does not affect the
        // parent; unlocking would.
        if self.fork_guard.same_process() {
            let _ = FileExt::unlock(&self.root);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(30)
    }

    #[test]
    fn a_root_is_shared_by_all_or_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let root = || File::open(dir.path()).unwrap();
        let shared = [LockedRoot::share(root(), soon()), LockedRoot::share(root(), soon())];
        assert!(shared.iter().all(|lock| lock.as_ref().unwrap().is_some()));
        assert!(LockedRoot::acquire(root(), soon()).unwrap().is_none());
        drop(shared);
        let alone = LockedRoot::acquire(root(), soon()).unwrap();
        assert!(alone.is_some());
        assert!(LockedRoot::share(root(), soon()).unwrap().is_none());
        drop(alone);
        // A copy of the descriptor keeps no lock that was given back, and a child does not give its parent's lock back.
        let descriptor = root();
        let copy = descriptor.try_clone().unwrap();
        drop(LockedRoot::acquire(descriptor, soon()).unwrap().unwrap());
        let mut lock = LockedRoot::acquire(root(), soon()).unwrap().unwrap();
        drop(copy);
        let copy = lock.root.try_clone().unwrap();
        lock.fork_guard = ForkGuard::of_another_process();
        drop(lock);
        assert!(LockedRoot::acquire(root(), soon()).unwrap().is_none());
        drop(copy);
        assert!(LockedRoot::acquire(root(), soon()).unwrap().is_some());
    }
}
