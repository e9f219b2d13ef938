//! The fair queues among the threads of this process, one for each session that is being written.
//!
//! A lock between processes alone would starve threads, because waiting for one means polling. With a queue in front,
//! only one thread of a process polls.
//!
//! - In the file engine, a thread takes its turn here first, and then the lock of the file (`flock`), always in this
//!   order.
//! - A queue knows the thread that has the turn. A thread that would wait for itself is refused at once.
//! - Every wait has a deadline: the wait for this queue and for the lock of the file together take at most
//!   the wait limit of the store (default 5 s); then the operation fails with `Busy`.
//! - A thread that ends its turn passes it on to the thread that has waited longest, and wakes it. No other thread can
//!   come in between.
//! - The table holds no queue that no thread uses.
use crate::error::{Error, ErrorKind, Result};
use crate::fork::ForkGuard;
use crate::id::PublicId;
use crate::sync::thread::{self, Thread, ThreadId};
use crate::sync::{Instant, Mutex};
use std::collections::VecDeque;

/// The number of parts of the queue table, so that threads that write different sessions seldom meet: 64 for tens of
/// threads. One under the checker of orders, so that the random ids of a model do not decide which threads meet.
const PARTS: usize = if cfg!(all(test, shuttle)) { 1 } else { 64 };

/// A session that a thread of this process is writing. Most writers meet no other, so a queue without a waiting thread
/// needs no allocation.
#[derive(Debug)]
struct Queue {
    id: PublicId,
    /// The thread that has the turn.
    holder: ThreadId,
    /// The threads that wait, the one that has waited longest first.
    waiting: VecDeque<Thread>,
}

/// The queues of one part, in no order: there is at most one for each thread that is writing, so a part has a few.
#[derive(Debug, Default)]
struct Part(Vec<Queue>);

impl Part {
    fn position(&self, id: &PublicId) -> Option<usize> {
        self.0.iter().position(|queue| queue.id == *id)
    }
}

/// The queues of this process: one for each session that a thread is writing.
#[derive(Debug)]
pub(crate) struct Queues {
    parts: [Mutex<Part>; PARTS],
    fork_guard: ForkGuard,
}

/// A turn to write a session.
pub(crate) struct Turn<'a> {
    queues: &'a Queues,
    id: PublicId,
}

impl Queues {
    pub(crate) fn new() -> Self {
        Self { parts: std::array::from_fn(|_| Mutex::default()), fork_guard: ForkGuard::new() }
    }

    /// Waits for this thread's turn to write the session.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] at the deadline; [`ErrorKind::Reentrant`] at once if this thread has the turn already, and
    /// so would wait for itself; [`ErrorKind::Forked`] in a forked child, where the queues may hold turns of threads
    /// that do not exist.
    pub(crate) fn turn(&self, id: &PublicId, deadline: Instant) -> Result<Turn<'_>> {
        self.check_process()?;
        let me = thread::current();
        let must_wait = {
            let mut part = self.part(id).lock();
            if let Some(at) = part.position(id) {
                let queue = &mut part.0[at];
                if queue.holder == me.id() {
                    return Err(reentrant());
                }
                queue.waiting.push_back(me.clone());
                true
            } else {
                part.0.push(Queue { id: *id, holder: me.id(), waiting: VecDeque::new() });
                false
            }
        };
        if must_wait {
            self.wait(id, me.id(), deadline)?;
        }
        Ok(Turn { queues: self, id: *id })
    }

    /// Waits until the thread that had the turn has passed it on to this one.
    #[cold]
    fn wait(&self, id: &PublicId, me: ThreadId, deadline: Instant) -> Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Returns at once if the turn was passed on before. It may also return for no reason.
            thread::park_timeout(left);
            let mut part = self.part(id).lock();
            let at = part.position(id).expect("a queue stays while a thread waits in it");
            let queue = &mut part.0[at];
            if queue.holder == me {
                return Ok(());
            }
            if left.is_zero() {
                queue.waiting.retain(|waiting| waiting.id() != me);
                return Err(busy());
            }
        }
    }

    /// # Errors
    ///
    /// [`ErrorKind::Forked`] in a process other than the one that opened the store.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.fork_guard.same_process() { Ok(()) } else { Err(forked()) }
    }

    fn part(&self, id: &PublicId) -> &Mutex<Part> {
        // The second byte of the id chooses the part, because the first is the shard, and the sessions of one shard
        // must spread too.
        &self.parts[usize::from(id.as_bytes()[1]) % PARTS]
    }

    /// Passes the turn on to the thread that has waited longest; a queue without one is removed.
    fn pass_on(&self, id: &PublicId) {
        let mut part = self.part(id).lock();
        let Some(at) = part.position(id) else { return };
        if let Some(next) = part.0[at].waiting.pop_front() {
            part.0[at].holder = next.id();
            drop(part);
            next.unpark();
        } else {
            part.0.swap_remove(at);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().0.len()).sum()
    }

    /// How many threads wait for a session.
    #[cfg(test)]
    fn waiting(&self, id: &PublicId) -> usize {
        let part = self.part(id).lock();
        part.position(id).map_or(0, |at| part.0[at].waiting.len())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.queues.pass_on(&self.id);
    }
}

/// The error in a forked child.
#[cold]
fn forked() -> Error {
    Error::new(ErrorKind::Forked, "use a session store")
        .with_reason("this store was opened before the process was forked; open it in the child")
}

/// The error for a thread that would wait for itself.
fn reentrant() -> Error {
    Error::new(ErrorKind::Reentrant, "lock a session").with_reason(
        "this thread is changing that session already: a function given to `update_now`, `update` or `Store::update` must \
         not save, change or end the same session; do that before or after it",
    )
}

/// The error at the end of a wait, for a queue or a file lock.
pub(crate) fn busy() -> Error {
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
    fn the_thread_that_has_waited_longest_is_next() {
        let (queues, id) = (Queues::new(), PublicId::digest(b"hot"));
        let order = std::sync::Mutex::new(Vec::new());
        thread::scope(|scope| {
            let held = queues.turn(&id, soon()).unwrap();
            for n in 0..6 {
                let (queues, order, id) = (&queues, &order, &id);
                scope.spawn(move || {
                    // The fourth gives up before the others get their turn.
                    let wait = Duration::from_millis(if n == 3 { 1 } else { 30_000 });
                    let turn = queues.turn(id, Instant::now() + wait);
                    assert_eq!(turn.is_err(), n == 3);
                    order.lock().unwrap().push(n);
                });
                let waiting = if n == 3 { 3 } else { n - usize::from(n > 3) + 1 };
                while queues.waiting(id) != waiting || n == 3 && order.lock().unwrap().is_empty() {
                    thread::yield_now();
                }
            }
            drop(held);
        });
        assert_eq!(order.into_inner().unwrap(), [3, 0, 1, 2, 4, 5]);
        assert_eq!(queues.len(), 0);
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
