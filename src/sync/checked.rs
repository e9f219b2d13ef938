//! The same names under the checker: replacements for locks, threads, channels and time in the proofs.
//!
//! - The model runs on one thread of the system, and only one thread of the model runs at a time. Memory behaves as if
//!   each access were sequentially consistent; Miri covers the effects of weaker orderings.
//! - **Time** is the count of the calls that read it, a millisecond each. So every wait with a limit ends: short ones
//!   after one try, and long ones after thousands, during which all other threads finish. A model is repeatable.
//! - **A timer** may expire at any instant that the checker chooses, but not more often than [`set_timers`] says.
use shuttle::future::batch_semaphore::{BatchSemaphore, Fairness};
use shuttle::rand::{RngCore, thread_rng};
use std::cell::Cell;
use std::fmt;
use std::ops::{Add, Deref, DerefMut, Sub};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{self, Arc};
use std::time::Duration;

/// A point at which the scheduler may let another thread run.
pub(crate) fn step() {
    shuttle::thread::sleep(Duration::ZERO);
}

/// A choice between two results. The scheduler tries both.
fn choose() -> bool {
    thread_rng().next_u64() == 1
}

// All threads of a model run on one thread of the system, so each model has its own values. Other proofs have others.
std::thread_local! {
    static READINGS: Cell<u64> = const { Cell::new(0) };
    static TIMERS: Cell<usize> = const { Cell::new(0) };
}

/// Sets how often timers may expire from now on.
pub(crate) fn set_timers(times: usize) {
    TIMERS.set(times);
}

/// An instant of the model's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        // The clock does not start at zero, because a caller may subtract from an instant.
        Self(Duration::from_secs(86_400) + Duration::from_millis(READINGS.replace(READINGS.get() + 1)))
    }
    pub(crate) fn elapsed(&self) -> Duration {
        Self::now() - *self
    }
    pub(crate) fn saturating_duration_since(&self, earlier: Self) -> Duration {
        *self - earlier
    }
    pub(crate) fn checked_sub(&self, by: Duration) -> Option<Self> {
        self.0.checked_sub(by).map(Self)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0 + by)
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Replaces parking_lot's `Mutex`.
pub(crate) struct Mutex<T> {
    free: BatchSemaphore,
    value: sync::Mutex<T>,
}

pub(crate) struct MutexGuard<'a, T> {
    free: &'a BatchSemaphore,
    value: Option<sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { free: BatchSemaphore::new(1, Fairness::Unfair), value: sync::Mutex::new(value) }
    }
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.free.acquire_blocking(1).expect("it is never closed");
        self.guard()
    }
    pub(crate) fn try_lock_until(&self, deadline: Instant) -> Option<MutexGuard<'_, T>> {
        while self.free.try_acquire(1).is_err() {
            // The lock may be released only after the last wait has ended, so the wait goes on.
            step();
            if Instant::now() >= deadline {
                return None;
            }
            shuttle::thread::yield_now();
        }
        Some(self.guard())
    }
    fn guard(&self) -> MutexGuard<'_, T> {
        let value = self.value.try_lock().unwrap_or_else(|error| match error {
            sync::TryLockError::Poisoned(value) => value.into_inner(),
            sync::TryLockError::WouldBlock => unreachable!("two threads have one lock"),
        });
        MutexGuard { free: &self.free, value: Some(value) }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_ref().expect("held until it is dropped")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("held until it is dropped")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        self.free.release(1);
    }
}

/// Replaces parking_lot's `RwLock`. One reader at a time is enough, because a reader changes nothing that other readers
/// could see.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(Mutex<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }
    pub(crate) fn read(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }
    pub(crate) fn write(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }
}

pub(crate) mod thread {
    pub(crate) use shuttle::thread::{JoinHandle, Thread, ThreadId, current};
    use std::io;
    use std::time::Duration;

    /// In a model, threads have no names, and spawning always succeeds.
    pub(crate) struct Builder;

    impl Builder {
        pub(crate) fn new() -> Self {
            Self
        }
        pub(crate) fn name(self, _: String) -> Self {
            self
        }
        pub(crate) fn spawn<T: Send + 'static>(
            self,
            run: impl FnOnce() -> T + Send + 'static,
        ) -> io::Result<JoinHandle<T>> {
            Ok(shuttle::thread::spawn(run))
        }
    }

    /// A sleeping thread lets all other threads run.
    pub(crate) fn sleep(_: Duration) {
        shuttle::thread::yield_now();
    }

    /// A parked thread lets all other threads run, and then wakes without a reason. The scheduler's own `park` has no
    /// time limit.
    pub(crate) fn park_timeout(_: Duration) {
        shuttle::thread::yield_now();
    }
}

/// Replaces the channels of `crossbeam`, as far as the engine uses them: their messages have no contents.
pub(crate) mod channel {
    use super::{Arc, AtomicUsize, SeqCst, TIMERS, choose, step};
    pub(crate) use crate::select_checked as select;
    use std::time::Duration;

    #[derive(Debug)]
    struct Shared {
        capacity: usize,
        waiting: AtomicUsize,
        senders: AtomicUsize,
        receivers: AtomicUsize,
    }

    #[derive(Debug)]
    pub(crate) struct Sender<T>(Arc<Shared>, std::marker::PhantomData<T>);
    #[derive(Debug)]
    pub(crate) struct Receiver<T>(Option<Arc<Shared>>, std::marker::PhantomData<T>);

    #[derive(Debug)]
    pub(crate) enum TryRecvError {
        Empty,
        Disconnected,
    }

    pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        let [senders, receivers] = [1, 1].map(AtomicUsize::new);
        let shared = Arc::new(Shared { capacity, waiting: AtomicUsize::new(0), senders, receivers });
        (
            Sender(Arc::clone(&shared), std::marker::PhantomData),
            Receiver(Some(shared), std::marker::PhantomData),
        )
    }

    /// The timer of a `select`. Each `select` has at most one.
    pub(crate) fn after(_: Duration) {}

    pub(crate) fn never<T>() -> Receiver<T> {
        Receiver(None, std::marker::PhantomData)
    }

    impl Sender<()> {
        pub(crate) fn try_send(&self, (): ()) -> Result<(), ()> {
            step();
            if self.0.receivers.load(SeqCst) == 0 || self.0.waiting.load(SeqCst) == self.0.capacity {
                return Err(());
            }
            self.0.waiting.fetch_add(1, SeqCst);
            Ok(())
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            step();
            self.0.senders.fetch_sub(1, SeqCst);
        }
    }

    impl Receiver<()> {
        pub(crate) fn try_recv(&self) -> Result<(), TryRecvError> {
            step();
            self.take()
        }

        fn take(&self) -> Result<(), TryRecvError> {
            let Some(shared) = &self.0 else { return Err(TryRecvError::Empty) };
            if shared.waiting.load(SeqCst) > 0 {
                shared.waiting.fetch_sub(1, SeqCst);
                return Ok(());
            }
            if shared.senders.load(SeqCst) == 0 {
                Err(TryRecvError::Disconnected)
            } else {
                Err(TryRecvError::Empty)
            }
        }

        fn is_ready(&self) -> bool {
            let open =
                |shared: &Arc<Shared>| shared.waiting.load(SeqCst) == 0 && shared.senders.load(SeqCst) > 0;
            self.0.as_ref().is_some_and(|shared| !open(shared))
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            if let Some(shared) = &self.0 {
                shared.receivers.fetch_add(1, SeqCst);
            }
            Self(self.0.clone(), std::marker::PhantomData)
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            if let Some(shared) = &self.0 {
                shared.receivers.fetch_sub(1, SeqCst);
            }
        }
    }

    /// What a `select` has found ready.
    pub(crate) enum Ready {
        #[expect(dead_code, reason = "a stopped thread does not ask how")]
        First(Result<(), TryRecvError>),
        Second(Result<(), TryRecvError>),
        Timer,
    }

    /// Waits for one of two channels or a timer. If several are ready, the scheduler tries each. If no other thread can
    /// run, time passes until the timer expires, if it may.
    pub(crate) fn wait(first: &Receiver<()>, second: &Receiver<()>) -> Ready {
        step();
        let may_go_off = || TIMERS.get() > 0;
        let goes_off = || {
            TIMERS.set(TIMERS.get() - 1);
            Ready::Timer
        };
        if may_go_off() && choose() {
            return goes_off();
        }
        for patience in (0..1000).rev() {
            match (first.is_ready(), second.is_ready()) {
                (true, true) if choose() => return Ready::First(first.take()),
                (_, true) => return Ready::Second(second.take()),
                (true, false) => return Ready::First(first.take()),
                (false, false) if patience < 900 && may_go_off() => return goes_off(),
                (false, false) => shuttle::thread::yield_now(),
            }
        }
        panic!("no thread will ever wake it");
    }
}

/// The only form of `select!`, of the crate `crossbeam`, that the engine uses.
#[macro_export]
#[doc(hidden)]
macro_rules! select_checked {
    (
        recv($first:expr) -> $a:pat => $on_first:expr,
        recv($second:expr) -> $b:pat => $on_second:expr,
        recv($after:expr) -> $c:pat => $on_timer:expr
    ) => {
        match ($after, $crate::sync::channel::wait(&$first, &$second)).1 {
            $crate::sync::channel::Ready::First($a) => $on_first,
            $crate::sync::channel::Ready::Second($b) => $on_second,
            $crate::sync::channel::Ready::Timer => $on_timer,
        }
    };
}
