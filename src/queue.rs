//! The queues in which the threads of this process wait to write a session: one queue for each session that is being
//! written.
//!
//! Waiting for a lock between processes means polling, and a thread that polls may be overtaken again and again. With a
//! queue, only the first thread of a process polls, and the threads write in the order in which they came.
//!
//! - In the file engine, a thread first waits in the queue for its turn, and then for the lock of the session file
//!   (`flock`). The order is always this one.
//! - A queue knows the thread that has the turn. If that thread asks for another turn, it would wait for itself, so it
//!   is refused at once.
//! - Every wait has a deadline: the waits for the queue and for the file lock together take at most the wait limit of
//!   the store (default 5 s). Then the operation fails with `Busy`.
//! - A thread that ends its turn gives it to the thread that has waited longest, and wakes that thread. No other thread
//!   can take the turn in between.
//! - A queue is removed when its last thread has ended its turn.
use crate::error::{Error, ErrorKind, Result};
use crate::fork::ForkGuard;
use crate::id::PublicId;
use crate::sync::thread::{self, Thread, ThreadId};
use crate::sync::{Instant, Mutex};
use std::collections::VecDeque;

/// The number of segments of the queue table. Each has a lock of its own, so that threads that write different sessions
/// seldom wait for each other; 64 are enough for tens of threads. In the models that the scheduler of `shuttle` checks
/// there is one, so that the random ids of sessions do not decide which threads meet at a lock.
const SEGMENTS: usize = if cfg!(all(test, shuttle)) { 1 } else { 64 };

/// The queue of a session that a thread of this process is writing. A queue in which no thread waits, as most are,
/// needs no allocation.
#[derive(Debug)]
struct Queue {
    id: PublicId,
    /// The thread that has the turn.
    holder: ThreadId,
    /// The waiting threads; the first one has waited longest.
    waiting: VecDeque<Thread>,
}

/// The queues of one segment, unsorted. There is at most one queue for each thread that is writing, so a linear search
/// finds one quickly.
#[derive(Debug, Default)]
struct Segment(Vec<Queue>);

impl Segment {
    fn position(&self, id: &PublicId) -> Option<usize> {
        self.0.iter().position(|queue| queue.id == *id)
    }
}

/// The table of all queues.
#[derive(Debug)]
pub(crate) struct Queues {
    segments: [Mutex<Segment>; SEGMENTS],
    fork_guard: ForkGuard,
}

/// The turn of a thread to write a session, until it is dropped.
pub(crate) struct Turn<'a> {
    queues: &'a Queues,
    id: PublicId,
}

impl Queues {
    pub(crate) fn new() -> Self {
        Self { segments: std::array::from_fn(|_| Mutex::default()), fork_guard: ForkGuard::new() }
    }

    /// Waits until it is this thread's turn to write the session.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] at the deadline. [`ErrorKind::Reentrant`] at once if this thread has the turn already, and
    /// so would wait for itself. [`ErrorKind::Forked`] in a forked child, where the queues may hold turns of threads
    /// that do not exist.
    pub(crate) fn turn(&self, id: &PublicId, deadline: Instant) -> Result<Turn<'_>> {
        self.check_process()?;
        let me = thread::current();
        let must_wait = {
            let mut segment = self.segment(id).lock();
            if let Some(at) = segment.position(id) {
                let queue = &mut segment.0[at];
                if queue.holder == me.id() {
                    return Err(reentrant());
                }
                queue.waiting.push_back(me.clone());
                true
            } else {
                segment.0.push(Queue { id: *id, holder: me.id(), waiting: VecDeque::new() });
                false
            }
        };
        if must_wait {
            self.wait(id, me.id(), deadline)?;
        }
        Ok(Turn { queues: self, id: *id })
    }

    /// Waits until the turn is passed on to this thread, which is in the queue already.
    #[cold]
    fn wait(&self, id: &PublicId, me: ThreadId, deadline: Instant) -> Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // `park_timeout` returns at once if this thread was woken before the call. It may also return without a
            // reason, so the loop checks.
            thread::park_timeout(left);
            let mut segment = self.segment(id).lock();
            let at = segment.position(id).expect("a queue stays while a thread waits in it");
            let queue = &mut segment.0[at];
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

    fn segment(&self, id: &PublicId) -> &Mutex<Segment> {
        // The second byte of the id selects the segment. The first one is the shard, and the sessions of one shard must
        // spread over the segments, too.
        &self.segments[usize::from(id.as_bytes()[1]) % SEGMENTS]
    }

    /// Gives the turn to the thread that has waited longest. If no thread waits, removes the queue.
    fn pass_on(&self, id: &PublicId) {
        let mut segment = self.segment(id).lock();
        let Some(at) = segment.position(id) else { return };
        if let Some(next) = segment.0[at].waiting.pop_front() {
            segment.0[at].holder = next.id();
            drop(segment);
            next.unpark();
        } else {
            segment.0.swap_remove(at);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.lock().0.len()).sum()
    }

    /// The number of threads that wait for a session.
    #[cfg(test)]
    fn waiting(&self, id: &PublicId) -> usize {
        let segment = self.segment(id).lock();
        segment.position(id).map_or(0, |at| segment.0[at].waiting.len())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.queues.pass_on(&self.id);
    }
}

/// The error of an operation in a forked child.
#[cold]
fn forked() -> Error {
    Error::new(ErrorKind::Forked, "use a session store")
        .with_reason("this store was opened before the process was forked; open it in the child")
}

/// The error of an operation inside another one on the same session, by the same thread.
fn reentrant() -> Error {
    Error::new(ErrorKind::Reentrant, "lock a session").with_reason(
        "this thread is changing that session already: a function given to `update_now`, `update` or `Store::update` must \
         not save, change or end the same session; do that before or after it",
    )
}

/// The error of an operation whose wait, in the queue or for the file lock, has reached its deadline.
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
        // The thread that gave up waiting has not changed the holder.
        thread::scope(|scope| drop(scope.spawn(|| queues.turn(&a, soon()).map(drop)).join()));
        assert_eq!(queues.turn(&a, minute()).err().map(|error| error.kind()), Some(ErrorKind::Reentrant));
        drop(held);
        drop(queues.turn(&a, minute()).unwrap());
        assert!(begun.elapsed() < Duration::from_secs(30), "it waited");
        assert_eq!(queues.len(), 0);
    }

    /// After the turn has passed from thread to thread, each is refused a second turn exactly while it has one: the
    /// holder is neither the thread before nor the next one.
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
    fn sessions_spread_over_all_segments() {
        let queues = Queues::new();
        let segment = |n: u32| std::ptr::from_ref(queues.segment(&PublicId::digest(&n.to_le_bytes())));
        let segments: HashSet<_> = (0..4000).map(segment).collect();
        assert_eq!(segments.len(), SEGMENTS);
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
                    // The fourth thread gives up before the others get their turn.
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
