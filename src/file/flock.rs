//! The lock on a session file among processes: `flock`, called through the crate `fs2`.
//!
//! - `flock` and not `fcntl`: the `fcntl` locks of a file vanish when the process closes *any* of its descriptors of
//!   that file. An `flock` belongs to the open file, so every lock is taken on a freshly opened file.
//! - Every wait has a deadline. It polls, because the kernel offers no `flock` with a time limit.
//! - Unlocking is explicit. A child that is forked while a lock is held has a copy of the descriptor, and without an
//!   explicit unlock the lock would last until the child has closed its copy.
use super::disk;
use crate::sync::{Instant, step, thread};
use fs2::FileExt;
use std::borrow::Borrow;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::time::Duration;

/// The pause between two tries of a lock that another process holds: the first one, and the longest. Each is twice as
/// long as the one before.
const PAUSE_MIN: Duration = Duration::from_micros(20);
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// A session file with an exclusive lock, which is released when this value is dropped.
#[derive(Debug)]
pub(super) struct LockedFile(File);

impl LockedFile {
    /// Waits until the deadline for the exclusive lock on a freshly opened file. Returns `Ok(Err(file))`, the file
    /// without a lock, if another process has kept it locked until then.
    ///
    /// # Errors
    ///
    /// An I/O error if the file cannot be locked at all.
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
        // Closing the file would unlock it too, but not if a forked child has a copy of the descriptor.
        let _ = FileExt::unlock(&self.0);
    }
}

/// Waits until no writer has the file locked, and takes a shared lock, which keeps writers away until the guard is
/// dropped. `None` if a writer has kept it locked until the deadline.
pub(super) fn share<F: Borrow<File>>(file: F, deadline: Instant) -> io::Result<Option<SharedFile<F>>> {
    let locked = wait_for(deadline, || FileExt::try_lock_shared(file.borrow()))?;
    Ok(locked.then(|| SharedFile(file)))
}

/// A file with a shared lock, which is released when this value is dropped. Meanwhile no writer has the file locked.
#[derive(Debug)]
pub(super) struct SharedFile<F: Borrow<File>>(F);

impl<F: Borrow<File>> Deref for SharedFile<F> {
    type Target = File;
    fn deref(&self) -> &File {
        self.0.borrow()
    }
}

impl<F: Borrow<File>> Drop for SharedFile<F> {
    fn drop(&mut self) {
        step();
        let _ = FileExt::unlock(self.0.borrow());
    }
}

/// Calls `try_lock` until it succeeds, or the deadline has passed. Calls it at least once. Returns whether it
/// succeeded.
pub(super) fn wait_for(deadline: Instant, mut try_lock: impl FnMut() -> io::Result<()>) -> io::Result<bool> {
    let contended = fs2::lock_contended_error().raw_os_error();
    let mut pause = PAUSE_MIN;
    loop {
        match disk::failpoint("lock").map_err(io::Error::from).and_then(|()| try_lock()) {
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
    fn a_lock_is_released_while_a_copy_of_its_descriptor_is_open() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let descriptor = file.reopen().unwrap();
        let copy = descriptor.try_clone().unwrap();
        drop(LockedFile::acquire(descriptor, soon()).unwrap().unwrap());
        drop(LockedFile::acquire(file.reopen().unwrap(), soon()).unwrap().unwrap());
        drop(share(&copy, soon()).unwrap().unwrap());
        assert!(LockedFile::acquire(file.reopen().unwrap(), soon()).unwrap().is_ok());
    }

    #[test]
    fn an_interrupted_wait_goes_on_until_its_deadline() {
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
