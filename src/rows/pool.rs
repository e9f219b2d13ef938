//! A bounded pool of connections, for back ends of [`Rows`](super::Rows).
//!
//! The pool is a channel with one permit for each connection that there may be at most, and a stack of idle connections.
//! So the bound, the wait for a permit and its order are the channel's.
//!
//! - **The connection that was used last is used first**: what it keeps in memory is most recent, and a program of one
//!   thread opens one connection.
//! - **No thread, and no ping before a use.** A connection that the server has closed fails at its next use, and the
//!   store repeats the operation, where that is safe.
//! - **A connection is never used again after an error**, except after [`Busy`](ErrorKind::Busy), which says that the
//!   server has answered: an answer that arrives late must not be taken for that of the next operation.
//! - **After the first loss, no idle connection is used again**: they went to the same server.
//! - **A panic loses a connection, not its slot.**
use crate::error::{Error, ErrorKind, Result};
use crate::fork::ForkGuard;
use crate::sync::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use crate::sync::{Instant, Mutex};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A bounded number of connections to a server. See the [module](super) for the store that repeats what fails.
///
/// ```
/// use sessile::rows::Pool;
/// use std::time::{Duration, Instant};
/// // A real one connects to a server before the given instant.
/// let pool = Pool::new(4, |_until| Ok(String::from("connected")));
/// let until = Instant::now() + Duration::from_secs(5);
/// assert_eq!(pool.with(until, |connection| Ok(connection.len()))?, 9);
/// # Ok::<(), sessile::Error>(())
/// ```
pub struct Pool<C> {
    permits: Receiver<()>,
    freed: Sender<()>,
    /// Idle connections, that used last at the end, each with the number of losses before it was opened.
    idle: Mutex<Vec<(C, u64)>>,
    open: Box<Open<C>>,
    /// The number of losses so far. A connection that was opened before the last one is not used again.
    losses: AtomicU64,
    /// Whether the last connection could not be opened, or was lost.
    is_down: AtomicBool,
    fork_guard: ForkGuard,
}

type Open<C> = dyn Fn(Instant) -> Result<C> + Send + Sync;

/// A permit that a thread has taken. When it is dropped, also by a panic, it goes back to the pool with the connection.
struct Taken<'a, C> {
    pool: &'a Pool<C>,
    connection: Option<(C, u64)>,
}

impl<C> Drop for Taken<'_, C> {
    fn drop(&mut self) {
        self.pool.idle.lock().extend(self.connection.take());
        // The channel has room for every permit.
        let _ = self.pool.freed.try_send(());
    }
}

/// A forked child closes no connection: the parent still uses it, and a child that says goodbye to the server, or
/// releases the locks of a file, does so in the parent's name.
impl<C> Drop for Pool<C> {
    fn drop(&mut self) {
        if !self.fork_guard.same_process() {
            std::mem::forget(std::mem::take(self.idle.get_mut()));
        }
    }
}

impl<C> Pool<C> {
    /// A pool of at most `size` connections (1 or more), which are opened by `open` when they are needed.
    pub fn new(size: usize, open: impl Fn(Instant) -> Result<C> + Send + Sync + 'static) -> Self {
        let (freed, permits) = bounded(size.max(1));
        for _ in 0..size.max(1) {
            let _ = freed.try_send(());
        }
        Self {
            permits,
            freed,
            idle: Mutex::default(),
            open: Box::new(open),
            losses: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
            fork_guard: ForkGuard::new(),
        }
    }

    /// Runs an operation with a connection.
    ///
    /// # Errors
    ///
    /// Those of the operation, and of opening a connection. [`ErrorKind::Busy`] if no connection was free before
    /// `until`; [`ErrorKind::Unavailable`] instead if the server could not be reached lately. [`ErrorKind::Forked`] in
    /// a child of the process that made the pool.
    pub fn with<T>(&self, until: Instant, run: impl FnOnce(&mut C) -> Result<T>) -> Result<T> {
        let mut taken = self.take(until)?;
        let losses = self.losses.load(Ordering::SeqCst);
        let idle = self.idle.lock().pop().filter(|(_, opened)| *opened == losses);
        let (mut connection, opened) = match idle {
            Some(idle) => idle,
            None => ((self.open)(until).inspect_err(|_| self.is_down.store(true, Ordering::SeqCst))?, losses),
        };
        let result = run(&mut connection);
        let kind = result.as_ref().err().map(Error::kind);
        match kind {
            None | Some(ErrorKind::Busy) => {
                self.is_down.store(false, Ordering::SeqCst);
                taken.connection = Some((connection, opened));
            }
            Some(ErrorKind::Unavailable | ErrorKind::Unanswered) => {
                self.is_down.store(true, Ordering::SeqCst);
                self.losses.fetch_add(1, Ordering::SeqCst);
            }
            Some(_) => {}
        }
        result
    }

    fn take(&self, until: Instant) -> Result<Taken<'_, C>> {
        if !self.fork_guard.same_process() {
            return Err(Error::new(ErrorKind::Forked, "use a connection")
                .with_reason("the process that opened it was forked; open the store after the fork"));
        }
        match self.permits.recv_deadline(until) {
            Ok(()) => Ok(Taken { pool: self, connection: None }),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let error = |kind, reason| Err(Error::new(kind, "wait for a connection").with_reason(reason));
                if self.is_down.load(Ordering::SeqCst) {
                    error(ErrorKind::Unavailable, "the server cannot be reached")
                } else {
                    error(
                        ErrorKind::Busy,
                        "all connections are in use; more may be allowed, or the server is slow",
                    )
                }
            }
        }
    }
}

/// Shows no connection: its address may have a password.
impl<C> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("free", &self.permits.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::thread;
    use std::time::Duration;

    /// A pool whose connections are numbered from 1, and the count of those that are open.
    fn numbered(size: usize) -> (Pool<Connection>, Arc<AtomicUsize>) {
        let (made, open) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&open);
        let pool = Pool::new(size, move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            let number = made.fetch_add(1, Ordering::SeqCst) + 1;
            Ok(Connection { number, open: Arc::clone(&counted) })
        });
        (pool, open)
    }

    struct Connection {
        number: usize,
        open: Arc<AtomicUsize>,
    }

    impl Drop for Connection {
        fn drop(&mut self) {
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn number(pool: &Pool<Connection>) -> usize {
        pool.with(soon(), |connection| Ok(connection.number)).unwrap()
    }

    fn fail(pool: &Pool<Connection>, kind: ErrorKind) -> ErrorKind {
        pool.with(soon(), |_| Err::<(), _>(Error::new(kind, "use it"))).unwrap_err().kind()
    }

    #[test]
    fn no_more_connections_are_open_than_allowed() {
        let (pool, open) = numbered(3);
        let most = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let used = pool.with(soon(), |_| {
                            most.fetch_max(open.load(Ordering::SeqCst), Ordering::SeqCst);
                            thread::yield_now();
                            Ok(())
                        });
                        used.unwrap();
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        assert_eq!((pool.permits.len(), open.load(Ordering::SeqCst) <= 3), (3, true));
    }

    #[test]
    fn a_connection_is_used_again_after_success_and_after_a_conflict_only() {
        let (pool, open) = numbered(1);
        assert_eq!([number(&pool), number(&pool)], [1, 1]);
        assert_eq!((fail(&pool, ErrorKind::Busy), number(&pool)), (ErrorKind::Busy, 1));
        for (at, kind) in [ErrorKind::Io, ErrorKind::Corrupt, ErrorKind::Unanswered].into_iter().enumerate() {
            assert_eq!((fail(&pool, kind), number(&pool)), (kind, at + 2), "{kind:?}");
        }
        let panicked =
            catch_unwind(AssertUnwindSafe(|| pool.with(soon(), |_| -> Result<()> { panic!("its own") })));
        assert!(panicked.is_err());
        assert_eq!((number(&pool), open.load(Ordering::SeqCst)), (5, 1), "the slot is free again");
    }

    #[test]
    fn a_loss_makes_all_idle_connections_useless() {
        let (pool, _) = numbered(3);
        pool.with(soon(), |_| pool.with(soon(), |_| Ok(number(&pool)))).unwrap();
        assert_eq!(fail(&pool, ErrorKind::Unavailable), ErrorKind::Unavailable);
        let after: Vec<_> = (0..6).map(|_| number(&pool)).collect();
        assert!(after.iter().all(|number| *number > 3), "{after:?}");
    }

    #[test]
    fn a_wait_ends_with_the_reason_for_it() {
        let (pool, _) = numbered(1);
        let wait = |pool: &Pool<Connection>| {
            let until = Instant::now() + Duration::from_millis(20);
            pool.with(until, |_| Ok(())).unwrap_err().kind()
        };
        pool.with(soon(), |_| {
            assert_eq!(wait(&pool), ErrorKind::Busy);
            Ok(())
        })
        .unwrap();
        assert_eq!(fail(&pool, ErrorKind::Unavailable), ErrorKind::Unavailable);
        pool.with(soon(), |_| {
            assert_eq!(wait(&pool), ErrorKind::Unavailable);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_server_that_is_away_takes_no_slot() {
        let pool: Pool<()> = Pool::new(2, |_| Err(Error::new(ErrorKind::Unavailable, "connect")));
        for _ in 0..5 {
            assert_eq!(pool.with(soon(), |()| Ok(())).unwrap_err().kind(), ErrorKind::Unavailable);
        }
        assert_eq!(pool.permits.len(), 2);
    }

    #[test]
    fn the_connection_that_was_used_last_is_used_first() {
        let (pool, open) = numbered(4);
        assert_eq!((0..6).map(|_| number(&pool)).collect::<Vec<_>>(), [1; 6]);
        assert_eq!(open.load(Ordering::SeqCst), 1);
        pool.with(soon(), |first| {
            assert_eq!((first.number, number(&pool), number(&pool)), (1, 2, 2));
            Ok(())
        })
        .unwrap();
        assert_eq!(number(&pool), 1);
    }

    #[test]
    fn a_forked_child_gets_no_connection_and_closes_none() {
        let (mut pool, open) = numbered(1);
        assert_eq!(number(&pool), 1);
        pool.fork_guard = ForkGuard::of_another_process();
        assert_eq!(fail(&pool, ErrorKind::Busy), ErrorKind::Forked);
        drop(pool);
        assert_eq!(open.load(Ordering::SeqCst), 1);
        let (pool, open) = numbered(1);
        assert_eq!(number(&pool), 1);
        drop(pool);
        assert_eq!(open.load(Ordering::SeqCst), 0);
    }
}
