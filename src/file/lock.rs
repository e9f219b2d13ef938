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
use crate::error::{Error, ErrorKind, Result};
use crate::id::PublicId;
use crate::sync::thread::{self, ThreadId};
use crate::sync::{ArcMutexGuard, Instant, Mutex, RawMutex, step};
use fs2::FileExt;
use hashlink::DefaultHashBuilder;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// Parts of the queue table, so that threads writing different sessions seldom meet: 64 for tens of threads.
const PARTS: usize = 64;
/// First and longest pause between two tries of a file lock that another process holds.
const PAUSE_MIN: Duration = Duration::from_micros(20);
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// The threads of this process that want to write one session.
#[derive(Debug, Default)]
struct Queue {
    lock: Arc<Mutex<()>>,
    /// The thread that has the lock, from just after it got it. Only that thread asks whether it is itself.
    holder: Option<ThreadId>,
}

/// The queues of one part. With the cache's hasher: a save looks here three times, and each look with the hasher of the standard
/// library would take about 180 instructions more.
type Queued = std::collections::HashMap<PublicId, Queue, DefaultHashBuilder>;

/// The queues of this process: one for each session that a thread is writing or waits to write.
#[derive(Debug)]
pub(super) struct Queues {
    parts: [Mutex<Queued>; PARTS],
    fork_guard: ForkGuard,
}

/// A place at the head of a session's queue.
pub(super) struct Turn<'a> {
    queues: &'a Queues,
    id: PublicId,
    guard: Option<ArcMutexGuard<RawMutex, ()>>,
}

impl Queues {
    pub(super) fn new() -> Self {
        Self { parts: std::array::from_fn(|_| Mutex::default()), fork_guard: ForkGuard::new() }
    }

    /// Waits for this thread's turn to write the session.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] at the deadline; [`ErrorKind::Reentrant`] at once if this thread has the turn already, and so
    /// would wait for itself; [`ErrorKind::Forked`] in a process that inherited the store, where the queues may hold turns
    /// of threads that do not exist.
    pub(super) fn turn(&self, id: &PublicId, deadline: Instant) -> Result<Turn<'_>> {
        self.check_process()?;
        let me = thread::current().id();
        let lock = self.join(id, me)?;
        if let Some(guard) = lock.try_lock_arc_until(deadline) {
            self.part(id).lock().entry(*id).or_default().holder = Some(me);
            return Ok(Turn { queues: self, id: *id, guard: Some(guard) });
        }
        drop(lock);
        self.leave(id);
        Err(busy())
    }

    /// The lock of a session's queue, which stays in the table as long as the copy lives.
    fn join(&self, id: &PublicId, me: ThreadId) -> Result<Arc<Mutex<()>>> {
        let mut part = self.part(id).lock();
        let queue = part.entry(*id).or_default();
        if queue.holder == Some(me) { Err(reentrant()) } else { Ok(Arc::clone(&queue.lock)) }
    }

    /// # Errors
    ///
    /// [`ErrorKind::Forked`] in a process other than the one that opened the store.
    pub(super) fn check_process(&self) -> Result<()> {
        if self.fork_guard.same_process() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Forked, "use a session store")
            .with_reason("this store was opened before the process was forked; open it in the child"))
    }

    fn part(&self, id: &PublicId) -> &Mutex<Queued> {
        // The second byte: the first is the shard, and one shard's sessions shall spread as well.
        &self.parts[usize::from(id.as_bytes()[1]) % PARTS]
    }

    /// Ends this thread's part in a queue, whether it had the turn or gave up, and drops the queue if it is empty. Counts are
    /// exact: copies are made under the part's lock.
    fn leave(&self, id: &PublicId) {
        let mut part = self.part(id).lock();
        let Some(queue) = part.get_mut(id) else { return };
        // The next thread may have the turn already.
        if queue.holder == Some(thread::current().id()) {
            queue.holder = None;
        }
        if Arc::strong_count(&queue.lock) == 1 {
            part.remove(id);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().len()).sum()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            // Fair: handed to whoever waits longest, instead of being up for grabs.
            ArcMutexGuard::unlock_fair(guard);
        }
        self.queues.leave(&self.id);
    }
}

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

/// The refusal of a wait that could not end.
fn reentrant() -> Error {
    Error::new(ErrorKind::Reentrant, "lock a session").with_reason(
        "this thread is changing that session already: a function given to `update_now`, `update` or `Store::update` must \
         not save, change or end the same session; do that before or after it",
    )
}

/// The refusal at the end of a wait.
pub(super) fn busy() -> Error {
    Error::new(ErrorKind::Busy, "lock a session")
        .with_reason("another writer held it for the whole wait limit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(30)
    }

    #[test]
    fn a_second_writer_of_one_session_waits_and_a_writer_of_another_does_not() {
        let queues = Queues::new();
        let (a, b) = (PublicId::digest(b"a"), PublicId::digest(b"b"));
        let held = queues.turn(&a, soon()).unwrap();
        let other = |id: &PublicId| {
            thread::scope(|scope| scope.spawn(|| queues.turn(id, soon()).map(drop)).join().unwrap())
        };
        assert_eq!(other(&a).err().map(|error| error.kind()), Some(ErrorKind::Busy));
        other(&b).unwrap();
        drop(queues.turn(&b, soon()).unwrap());
        drop(held);
        drop(queues.turn(&a, soon()).unwrap());
        assert_eq!(queues.len(), 0, "queues that nobody stands in are dropped");
    }

    #[test]
    fn a_thread_that_would_wait_for_itself_is_refused_at_once() {
        let queues = Queues::new();
        let (a, b) = (PublicId::digest(b"a"), PublicId::digest(b"b"));
        let minute = || Instant::now() + Duration::from_secs(60);
        let begun = Instant::now();
        let held = queues.turn(&a, minute()).unwrap();
        for _ in 0..2 {
            let error = queues.turn(&a, minute()).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Reentrant);
            assert!(
                error.to_string().starts_with("failed to lock a session: this thread is changing"),
                "{error}"
            );
        }
        drop(queues.turn(&b, minute()).unwrap());
        // A thread that gave up waiting has changed nothing of that.
        thread::scope(|scope| drop(scope.spawn(|| queues.turn(&a, soon()).map(drop)).join()));
        assert_eq!(queues.turn(&a, minute()).err().map(|error| error.kind()), Some(ErrorKind::Reentrant));
        drop(held);
        drop(queues.turn(&a, minute()).unwrap());
        assert!(begun.elapsed() < Duration::from_secs(30), "it waited");
        assert_eq!(queues.len(), 0);
    }

    /// The thread that has the turn after this one is not taken for it, nor this one for the thread before.
    #[test]
    fn a_turn_that_was_handed_over_is_the_next_threads() {
        let queues = Queues::new();
        let id = PublicId::digest(b"hot");
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let far = Instant::now() + Duration::from_secs(30);
                        let held = queues.turn(&id, far).unwrap();
                        let again = queues.turn(&id, far).err().map(|error| error.kind());
                        assert_eq!(again, Some(ErrorKind::Reentrant));
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(queues.len(), 0);
    }

    #[test]
    fn a_process_that_did_not_open_the_store_is_refused_and_takes_no_place() {
        let queues = Queues { fork_guard: ForkGuard::of_another_process(), ..Queues::new() };
        let error = queues.turn(&PublicId::digest(b"a"), soon()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Forked);
        assert_eq!(
            error.to_string(),
            "failed to use a session store: this store was opened before the process was forked; open it in the child"
        );
        assert_eq!(queues.len(), 0);
    }

    #[test]
    fn sessions_spread_over_all_parts() {
        let queues = Queues::new();
        let part = |n: u32| std::ptr::from_ref(queues.part(&PublicId::digest(&n.to_le_bytes())));
        let parts: HashSet<_> = (0..4000).map(part).collect();
        assert_eq!(parts.len(), PARTS);
    }

    #[test]
    fn the_queue_excludes_and_leaves_nothing_behind() {
        let queues = Queues::new();
        let (inside, id) = (AtomicU32::new(0), PublicId::digest(b"hot"));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let _turn = queues.turn(&id, Instant::now() + Duration::from_secs(30)).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two threads are inside");
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(queues.len(), 0);
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
