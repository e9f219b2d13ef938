//! Who may write this session now: one thread of one process.
//!
//! Two locks, always in this order:
//!
//! 1. A fair queue among the threads of this process, one per session that is being written (parking_lot). Polling a
//!    file lock alone starves: with it, one thread of a process polls at a time.
//! 2. `flock` on the session's file (fs2), among processes. Never `fcntl`, whose locks vanish when *any* descriptor of
//!    the file is closed. A flock belongs to the open file: every lock is taken on a fresh one.
//!
//! And one lock for as long as a store is open: `flock` on its root, shared by all that use it. It is exclusive for the moment in
//! which an opening removes what an earlier version left.
//!
//! Every wait has a deadline. Unlocking is explicit: a child forked meanwhile holds a copy of the descriptor, and a
//! lock lasts until the last copy is closed.
use super::disk;
use super::fork::ForkGuard;
use crate::sync::{Instant, step, thread};
use fs2::FileExt;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::time::Duration;

/// First and longest pause between two tries of a file lock that another process holds.
const PAUSE_MIN: Duration = Duration::from_micros(20);
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// A session's file, locked exclusively among processes until dropped.
#[derive(Debug)]
pub(super) struct LockedFile(File);

impl LockedFile {
    /// Waits for the lock of a freshly opened file.
    ///
    /// # Errors
    ///
    /// `Ok(Err(file))` at the deadline: the file, not locked. An I/O error if the file cannot be locked at all.
    pub(super) fn acquire(file: File, deadline: Instant) -> io::Result<Result<Self, File>> {
        wait_for(deadline, || FileExt::try_lock_exclusive(&file))
            .map(|locked| if locked { Ok(Self(file)) } else { Err(file) })
    }
}

impl Deref for LockedFile {
    type Target = File;
    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        step();
        // Closing would unlock too, but for copies of the descriptor in forked children.
        let _ = FileExt::unlock(&self.0);
    }
}

/// The root of an open store, locked among processes until dropped: shared by all that use the store, or exclusively by an
/// opening that must be alone.
#[derive(Debug)]
pub(super) struct LockedRoot {
    root: File,
    fork_guard: ForkGuard,
}

impl LockedRoot {
    /// Waits until nobody has the root to himself. Whether it came to that.
    pub(super) fn share(root: File, deadline: Instant) -> io::Result<Option<Self>> {
        let locked = wait_for(deadline, || FileExt::try_lock_shared(&root))?;
        Ok(locked.then(|| Self { root, fork_guard: ForkGuard::new() }))
    }

    /// Waits until nobody uses the root. Whether it came to that.
    pub(super) fn acquire(root: File, deadline: Instant) -> io::Result<Option<Self>> {
        let locked = wait_for(deadline, || FileExt::try_lock_exclusive(&root))?;
        Ok(locked.then(|| Self { root, fork_guard: ForkGuard::new() }))
    }
}

impl Drop for LockedRoot {
    fn drop(&mut self) {
        // The lock is the open file's, which a forked child shares: closing its copy changes nothing for the parent,
        // unlocking it would.
        if self.fork_guard.same_process() {
            let _ = FileExt::unlock(&self.root);
        }
    }
}

/// Waits until no writer holds the file, and keeps writers away until the guard drops. Whether it came to that.
pub(super) fn share(file: &File, deadline: Instant) -> io::Result<Option<SharedFile<'_>>> {
    wait_for(deadline, || FileExt::try_lock_shared(file)).map(|locked| locked.then_some(SharedFile(file)))
}

/// A file that no writer holds.
pub(super) struct SharedFile<'a>(&'a File);

impl Drop for SharedFile<'_> {
    fn drop(&mut self) {
        step();
        let _ = FileExt::unlock(self.0);
    }
}

/// Tries until it succeeds or the deadline has passed, which is checked after the first try.
fn wait_for(deadline: Instant, mut try_lock: impl FnMut() -> io::Result<()>) -> io::Result<bool> {
    let contended = fs2::lock_contended_error().raw_os_error();
    let mut pause = PAUSE_MIN;
    loop {
        match disk::gate("lock").map_err(io::Error::from).and_then(|()| try_lock()) {
            Ok(()) => return Ok(true),
            Err(error) if error.raw_os_error() == contended => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(30)
    }

    #[test]
    fn a_file_lock_keeps_others_out_until_it_is_dropped() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let held = LockedFile::acquire(file.reopen().unwrap(), soon()).unwrap().unwrap();
        assert!(LockedFile::acquire(file.reopen().unwrap(), soon()).unwrap().is_err());
        let reader = file.reopen().unwrap();
        assert!(share(&reader, soon()).unwrap().is_none());
        drop(held);
        let shared = share(&reader, soon()).unwrap();
        assert!(shared.is_some());
        assert!(LockedFile::acquire(file.reopen().unwrap(), soon()).unwrap().is_err());
        drop(shared);
        assert!(LockedFile::acquire(file.reopen().unwrap(), soon()).unwrap().is_ok());
    }

    #[test]
    fn a_root_is_shared_by_all_or_one_has_it_to_himself() {
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
        // A copy of its descriptor keeps no lock that was given back, and a child's is not his to give back.
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

    #[test]
    fn a_lock_is_given_back_also_while_a_copy_of_its_descriptor_is_open() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let descriptor = file.reopen().unwrap();
        let copy = descriptor.try_clone().unwrap();
        drop(LockedFile::acquire(descriptor, soon()).unwrap().unwrap());
        drop(LockedFile::acquire(file.reopen().unwrap(), soon()).unwrap().unwrap());
        drop(share(&copy, soon()).unwrap().unwrap());
        assert!(LockedFile::acquire(file.reopen().unwrap(), soon()).unwrap().is_ok());
    }

    #[test]
    fn a_wait_tries_once_more_when_it_is_interrupted_ends_at_its_deadline_and_does_not_spin() {
        let tries = AtomicU32::new(0);
        let outcomes = |errors: &'static [i32]| {
            tries.store(0, Ordering::Relaxed);
            let tries = &tries;
            move || match errors.get(tries.fetch_add(1, Ordering::Relaxed) as usize) {
                Some(error) => Err(io::Error::from_raw_os_error(*error)),
                None => Ok(()),
            }
        };
        let passed = Instant::now();
        assert!(wait_for(passed, outcomes(&[])).unwrap(), "the first try is before the look at the clock");
        assert!(wait_for(passed, outcomes(&[libc::EINTR, libc::EINTR])).unwrap());
        assert!(!wait_for(passed, outcomes(&[libc::EWOULDBLOCK])).unwrap());
        let later = Instant::now() + Duration::from_secs(30);
        assert!(wait_for(later, outcomes(&[libc::EWOULDBLOCK; 3])).unwrap());
        let error = wait_for(later, outcomes(&[libc::EWOULDBLOCK, libc::EBADF])).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        // Pauses of 20 µs, 40 µs … 1 ms: about 55 tries in 50 ms.
        let held = || Err(fs2::lock_contended_error());
        tries.store(0, Ordering::Relaxed);
        let began = Instant::now();
        let count = || {
            tries.fetch_add(1, Ordering::Relaxed);
            held()
        };
        assert!(!wait_for(began + Duration::from_millis(50), count).unwrap());
        assert!(began.elapsed() >= Duration::from_millis(50));
        assert!((2..=60).contains(&tries.load(Ordering::Relaxed)), "{tries:?} tries in 50 ms");
    }
}
