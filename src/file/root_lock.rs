//! The lock on the root directory of a store: an `flock` that each process that uses the store shares while it has the
//! store open.
//!
//! This version of the crate never locks a root exclusively. Another program may do so to have the store for itself; an
//! opening waits for it. A forked child does not unlock: the lock belongs to the open file, which the child shares with
//! its parent.
use super::flock::wait_for;
use crate::fork::ForkGuard;
use crate::sync::Instant;
use fs2::FileExt;
use std::fs::File;
use std::io;

/// The root of an open store with a shared lock, which is released when this value is dropped.
#[derive(Debug)]
pub(super) struct LockedRoot {
    root: File,
    fork_guard: ForkGuard,
}

impl LockedRoot {
    /// Takes a shared lock, when no process has an exclusive one; `None` if one has kept it until the deadline.
    pub(super) fn share(root: File, deadline: Instant) -> io::Result<Option<Self>> {
        let locked = wait_for(deadline, || FileExt::try_lock_shared(&root))?;
        Ok(locked.then(|| Self { root, fork_guard: ForkGuard::new() }))
    }

    /// Takes an exclusive lock, when no process has a lock; `None` if one has kept it until the deadline.
    #[cfg(test)]
    pub(super) fn acquire(root: File, deadline: Instant) -> io::Result<Option<Self>> {
        let locked = wait_for(deadline, || FileExt::try_lock_exclusive(&root))?;
        Ok(locked.then(|| Self { root, fork_guard: ForkGuard::new() }))
    }
}

impl Drop for LockedRoot {
    fn drop(&mut self) {
        // A forked child shares the open file to which the lock belongs. If the child unlocked, the parent would lose
        // its lock. Closing the child's descriptor does not affect the parent.
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
        // A copy of the descriptor, as a forked child has it, does not keep a lock that the parent has released. And a
        // child does not release the lock of its parent.
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
