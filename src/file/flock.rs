//! The lock of a session file among processes: `flock` (fs2).
//!
//! - Never `fcntl`: its locks vanish when *any* descriptor of the file is closed. An `flock` belongs to the open file,
//!   so every lock is taken on a freshly opened file.
//! - Every wait has a deadline, and polls, because the kernel offers no `flock` with a time limit.
//! - Unlocking is explicit: a child that is forked meanwhile holds a copy of the descriptor, and without an explicit
//!   unlock the lock lasts until the last copy is closed.
use super::disk;
use crate::sync::{Instant, step, thread};
use fs2::FileExt;
use std::borrow::Borrow;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::time::Duration;

/// First and longest pause between two tries of a file lock that another process holds.
const PAUSE_MIN: Duration = Duration::from_micros(20);
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// A session file, locked exclusively among processes until dropped.
#[derive(Debug)]
pub(super) struct LockedFile(File);

impl LockedFile {
    /// Waits for the lock of a freshly opened file.
    ///
    /// # Errors
    ///
    /// `Ok(Err(file))` at the deadline: the file, without the lock. An I/O error if the file cannot be locked at all.
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
        // Closing the file would unlock it too, unless a forked child has a copy of the descriptor.
        let _ = FileExt::unlock(&self.0);
    }
}

/// Waits until no writer has the file locked, and keeps writers away until the guard drops; `None` at the deadline.
pub(super) fn share<F: Borrow<File>>(file: F, deadline: Instant) -> io::Result<Option<SharedFile<F>>> {
    let locked = wait_for(deadline, || FileExt::try_lock_shared(file.borrow()))?;
    Ok(locked.then(|| SharedFile(file)))
}

/// A file under a shared lock, so that no writer has it locked.
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

/// Tries until it succeeds, or until the deadline has passed, which is checked after the first try. Returns whether it
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
