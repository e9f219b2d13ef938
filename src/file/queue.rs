//! The fair queues among the threads of this process, one for each session that is being written (parking_lot).
//!
//! A file lock alone would starve threads, because waiting for one means polling. With a queue in front, only one
//! thread of a process polls.
//!
//! - A thread takes its turn here first, and then the lock of the file (`flock`), always in this order.
//! - A queue knows the thread that has the turn. A thread that would wait for itself is refused at once.
//! - The thread that has waited longest is next. Every wait has a deadline: the wait for this queue and for the lock of
//!   the file together take at most `FileStoreOptions::lock_wait` (default 5 s); then the operation fails with `Busy`.
//! - The table holds no queue that no thread uses.
use super::fork::ForkGuard;
use crate::error::{Error, ErrorKind, Result};
use crate::id::PublicId;
use crate::sync::thread::{self, ThreadId};
use crate::sync::{ArcMutexGuard, Instant, Mutex, RawMutex};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// The number of parts of the queue table, so that threads that write different sessions seldom meet: 64 for tens of
/// threads.
const PARTS: usize = 64;

/// The threads of this process that write one session or wait to.
#[derive(Debug, Default)]
struct Queue {
    lock: Arc<Mutex<()>>,
    /// The thread that has the lock, set just after it got the lock. A thread compares this only with its own id.
    holder: Option<ThreadId>,
}

/// The queues of one part; a save looks a queue up three times. The ids are digests, so no further hash is needed. The
/// table has at most one queue per thread, so a visitor gains nothing by trying ids until their digests collide.
type Queued = HashMap<PublicId, Queue, BuildHasherDefault<DigestBytes>>;

/// Uses eight bytes of the digest as its hash.
#[derive(Default)]
struct DigestBytes(u64);

impl Hasher for DigestBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(bytes) = bytes.last_chunk() {
            self.0 = u64::from_le_bytes(*bytes);
        }
    }
    /// The length of a digest is always the same, so it is not hashed.
    fn write_usize(&mut self, _: usize) {}
    fn finish(&self) -> u64 {
        self.0
    }
}

/// The queues of this process: one for each session that a thread is writing or waits to write.
#[derive(Debug)]
pub(super) struct Queues {
    parts: [Mutex<Queued>; PARTS],
    fork_guard: ForkGuard,
}

/// A turn to write a session.
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
    /// [`ErrorKind::Busy`] at the deadline; [`ErrorKind::Reentrant`] at once if this thread has the turn already, and
    /// so would wait for itself; [`ErrorKind::Forked`] in a forked child, where the queues may hold turns of threads
    /// that do not exist.
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

    /// The lock of a session's queue. The queue stays in the table while the returned clone lives.
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
        // The second byte of the id chooses the part, because the first is the shard, and the sessions of one shard
        // must spread too.
        &self.parts[usize::from(id.as_bytes()[1]) % PARTS]
    }

    /// Takes this thread out of a queue, whether it had the turn or gave up, and removes the queue if no thread uses
    /// it. The strong count is exact, because clones are made under the part's lock.
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
            // Fair: the thread that has waited longest gets the lock.
            ArcMutexGuard::unlock_fair(guard);
        }
        self.queues.leave(&self.id);
    }
}

/// The error for a thread that would wait for itself.
fn reentrant() -> Error {
    Error::new(ErrorKind::Reentrant, "lock a session").with_reason(
        "this thread is changing that session already: a function given to `update_now`, `update` or `Store::update` must \
         not save, change or end the same session; do that before or after it",
    )
}

/// The error at the end of a wait, for a queue or a file lock.
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
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(30)
    }

    #[test]
    fn writers_of_one_session_queue_and_others_do_not() {
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
        assert_eq!(queues.len(), 0, "queues without a waiting thread are dropped");
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
    fn a_forked_process_is_refused_and_takes_no_place_in_the_queue() {
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
    fn the_hash_of_a_digest_is_its_last_bytes() {
        use std::hash::BuildHasher;
        let mut bytes = [1; PublicId::LEN];
        bytes[12..].copy_from_slice(&7_u64.to_le_bytes());
        let hasher = BuildHasherDefault::<DigestBytes>::default();
        assert_eq!(hasher.hash_one(PublicId::from_bytes(bytes)), 7);
        assert_eq!(hasher.hash_one(PublicId::from_bytes([0xff; PublicId::LEN])), u64::MAX);
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
}
