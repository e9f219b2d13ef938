//! Waiting for the ends of sessions: one thread polls the store for all waits of a program.
//!
//! ```text
//!   wait_ended   a first look (Store::poll)  ──► ended: returns at once
//!       │ joins
//!       ▼
//!    thread      polls the store for all waits ──► an end or an error wakes its wait
//!       │                                      └─► a rotated id: the wait goes on with the successor
//!       ▼
//!    ends with the last wait
//! ```
//!
//! - **No end is missed between the first look and the first poll**: the note of the first look goes on to the thread.
//! - **A wait belongs to its caller**, which keeps the store open and measures the timeout.
//! - **An end is never a guess**: an error of the store ends a wait with that error.
//! - **The thread holds no lock while it calls the store**, so a slow store delays no wait that joins, leaves or is
//!   stopped. The thread pauses at least twice as long as the last poll took, so it uses a slow store for a third of
//!   the time at most.
//! - **Time**: timeouts are measured by the monotonic clock, deadlines of sessions by the store's. If that one is set
//!   forward, sessions expire; if it is set back, they expire later.
//! - **A forked child** has no such thread, and every wait there is refused.
use crate::contained::{Panicked, contained};
use crate::error::{Error, ErrorKind, Result};
use crate::fork::ForkGuard;
use crate::id::PublicId;
use crate::lifetime::Lifetime;
use crate::store::{Absent, HOPS_MAX, Poll, Polled, Store};
use crate::sync::channel::{Receiver, Sender, TryRecvError, after, bounded, never, select};
use crate::sync::{Instant, Mutex, thread};
use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use std::{fmt, mem, slice};

/// The longest timeout, a hundred years; a longer one counts as that.
const TIMEOUT_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);
/// The shortest time between two polls.
const INTERVAL_MIN: Duration = Duration::from_millis(50);
const OPERATION: &str = "wait for the end of a session";

/// The result of [`Sessions::wait_ended`](crate::Sessions::wait_ended).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitOutcome {
    /// The session has ended: by a logout, a limit, the end of all sessions of its user or of all, an operator or a
    /// sweep; or there is no session of this id.
    Ended,
    /// The session has expired.
    Expired,
    /// A login has given the session another id, and ended the one that was waited for.
    LoggedIn,
    /// The session is alive, and the timeout is over.
    TimedOut,
    /// [`Sessions::stop_waiting`](crate::Sessions::stop_waiting) was called. The session may be alive.
    Stopped,
}

impl WaitOutcome {
    /// Whether the session is over: [`Ended`](Self::Ended), [`Expired`](Self::Expired) or [`LoggedIn`](Self::LoggedIn).
    ///
    /// ```
    /// use sessile::WaitOutcome;
    /// assert!(WaitOutcome::LoggedIn.is_end() && !WaitOutcome::TimedOut.is_end());
    /// ```
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Ended | Self::Expired | Self::LoggedIn)
    }
}

/// The waits of a program on one store. Costs nothing before the first wait.
#[derive(Default)]
pub(crate) struct Waits(OnceLock<Arc<Shared>>);

/// The state that the waits and the thread share.
struct Shared {
    state: Mutex<State>,
    /// Wakes the thread, so that it ends with the last wait.
    wake: Sender<()>,
    woken: Receiver<()>,
    /// Closed when the waits are to stop; no message is sent.
    stopped: Receiver<()>,
    fork_guard: ForkGuard,
}

#[derive(Default)]
struct State {
    /// Waits that the thread has not taken over yet.
    joining: Vec<(Poll, Waiting)>,
    /// The keys of waits that have left since the thread looked last.
    left: Vec<u64>,
    /// The number of waits, with those that are joining.
    waits: usize,
    next_key: u64,
    /// Whether there is a thread.
    is_running: bool,
    /// Dropped to stop all waits.
    stop: Option<Sender<()>>,
}

/// A wait, as the thread has it beside its poll.
struct Waiting {
    key: u64,
    /// The instant from which on the session is expired, as far as it is known.
    deadline: SystemTime,
    lifetime: Lifetime,
    result: Arc<Place>,
    /// Dropped when the result is there; no message is sent.
    _done: Sender<()>,
}

/// Where the thread leaves the result of a wait.
type Place = Mutex<Option<Result<WaitOutcome>>>;

impl Waits {
    /// Waits until a session ends; see [`Sessions::wait_ended`](crate::Sessions::wait_ended).
    pub(crate) fn wait_ended(
        &self,
        store: &Arc<dyn Store>,
        lifetime: &Lifetime,
        id: &PublicId,
        timeout: Duration,
    ) -> Result<WaitOutcome> {
        let end = Instant::now() + timeout.min(TIMEOUT_MAX);
        let shared = self.shared();
        shared.check_process()?;
        if shared.is_stopped() {
            return Ok(WaitOutcome::Stopped);
        }
        let mut poll = Poll::new(*id);
        let (interval, deadline) = match contained(|| first_look(&**store, &mut poll, lifetime)) {
            Ok(Ok((_, Seen::Over(outcome)))) => return Ok(outcome),
            Ok(Ok((interval, Seen::Alive { until }))) => (interval, until),
            Ok(Err(error)) => return Err(error),
            Err(Panicked) => return Err(panicked()),
        };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(WaitOutcome::TimedOut);
        }
        let (done, is_done) = bounded(0);
        let result = Arc::new(Place::default());
        let (lifetime, place) = (lifetime.clone(), Arc::clone(&result));
        let waiting = Waiting { key: 0, deadline, lifetime, result: place, _done: done };
        let joined = shared.join(store, poll, waiting, interval)?;
        select! {
            recv(is_done) -> _ => {},
            recv(shared.stopped) -> _ => {},
            recv(after(left)) -> _ => {}
        }
        drop(joined);
        let result = result.lock().take();
        let early = if shared.is_stopped() { WaitOutcome::Stopped } else { WaitOutcome::TimedOut };
        result.unwrap_or(Ok(early))
    }

    /// Stops all waits, also those that begin later.
    pub(crate) fn stop(&self) {
        let shared = self.shared();
        if shared.fork_guard.same_process() {
            let stop = shared.state.lock().stop.take();
            drop(stop);
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        self.0.get_or_init(|| Arc::new(Shared::new()))
    }
}

impl fmt::Debug for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waits")
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        // In a forked child, a thread that does not exist may hold a lock of a channel, for which the drop would wait.
        if let Some(shared) = self.0.take()
            && !shared.fork_guard.same_process()
        {
            mem::forget(shared);
        }
    }
}

impl Shared {
    fn new() -> Self {
        let (wake, woken) = bounded(1);
        let (stop, stopped) = bounded(0);
        let state = Mutex::new(State { stop: Some(stop), ..State::default() });
        Self { state, wake, woken, stopped, fork_guard: ForkGuard::new() }
    }

    fn check_process(&self) -> Result<()> {
        if self.fork_guard.same_process() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Forked, OPERATION)
            .with_reason("the thread that polls the store is in the parent process"))
    }

    fn is_stopped(&self) -> bool {
        matches!(self.stopped.try_recv(), Err(TryRecvError::Disconnected))
    }

    /// Passes a wait to the thread. Starts the thread if there is none.
    fn join<'a>(
        self: &'a Arc<Self>,
        store: &Arc<dyn Store>,
        poll: Poll,
        waiting: Waiting,
        interval: Duration,
    ) -> Result<Joined<'a>> {
        let mut state = self.state.lock();
        if !state.is_running {
            let poller = Poller {
                shared: Arc::clone(self),
                store: Arc::clone(store),
                polls: Vec::new(),
                waits: Vec::new(),
            };
            thread::Builder::new()
                .name("sessile-waits".into())
                .spawn(move || poller.run(interval))
                .map_err(|error| Error::new(ErrorKind::Io, OPERATION).with_source(error))?;
            state.is_running = true;
        }
        let key = state.next_key;
        state.next_key += 1;
        state.waits += 1;
        state.joining.push((poll, Waiting { key, ..waiting }));
        Ok(Joined { shared: self, key })
    }
}

/// A wait that the thread knows, until it is dropped.
struct Joined<'a> {
    shared: &'a Shared,
    key: u64,
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        let is_last = {
            let mut state = self.shared.state.lock();
            state.left.push(self.key);
            state.waits -= 1;
            state.waits == 0
        };
        if is_last {
            // If the channel is full, the thread is about to wake.
            let _ = self.shared.wake.try_send(());
        }
    }
}

/// The thread. Its polls are one slice, as the store takes them, in the order of its waits.
struct Poller {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    polls: Vec<Poll>,
    waits: Vec<Waiting>,
}

impl Poller {
    /// Polls until the last wait has left.
    fn run(mut self, mut interval: Duration) {
        let nothing_else = never::<()>();
        loop {
            select! {
                recv(self.shared.woken) -> _ => {},
                recv(nothing_else) -> _ => {},
                recv(after(interval)) -> _ => {}
            }
            if !self.take_over() {
                return;
            }
            let began = Instant::now();
            let asked = contained(|| self.poll()).unwrap_or_else(|Panicked| {
                self.fail_all(panicked);
                Duration::ZERO
            });
            interval = asked.max(INTERVAL_MIN).max(2 * began.elapsed());
        }
    }

    /// Takes over the waits that have joined, and drops those that have left. Returns whether this thread goes on; if
    /// not, there are no waits, and the next one starts another thread.
    fn take_over(&mut self) -> bool {
        let (joining, left, goes_on) = {
            let mut state = self.shared.state.lock();
            state.is_running = state.waits > 0;
            (mem::take(&mut state.joining), mem::take(&mut state.left), state.is_running)
        };
        for (poll, waiting) in joining {
            self.polls.push(poll);
            self.waits.push(waiting);
        }
        if !left.is_empty() {
            let left: HashSet<_> = left.into_iter().collect();
            let mut at = 0;
            while let Some(waiting) = self.waits.get(at) {
                if left.contains(&waiting.key) { self.remove(at) } else { at += 1 }
            }
        }
        goes_on
    }

    fn remove(&mut self, at: usize) {
        self.polls.swap_remove(at);
        self.waits.swap_remove(at);
    }

    /// Ends a wait with a result.
    fn finish(&mut self, at: usize, result: Result<WaitOutcome>) {
        *self.waits[at].result.lock() = Some(result);
        self.remove(at);
    }

    fn fail_all(&mut self, error: impl Fn() -> Error) {
        while !self.waits.is_empty() {
            self.finish(0, Err(error()));
        }
    }

    /// Polls the store once. Returns the time after which the store is to be polled again.
    fn poll(&mut self) -> Duration {
        if self.waits.is_empty() {
            return Duration::ZERO;
        }
        let now = self.store.now();
        for (poll, waiting) in self.polls.iter_mut().zip(&self.waits) {
            if waiting.deadline <= now {
                poll.make_due();
            }
        }
        match self.store.poll(&mut self.polls) {
            Ok(interval) => {
                self.settle_all();
                interval
            }
            Err(error) => {
                let (kind, error) = (error.kind(), Arc::new(error));
                self.fail_all(|| Error::new(kind, OPERATION).with_source(Arc::clone(&error)));
                Duration::ZERO
            }
        }
    }

    /// Ends the waits for which the last poll shows an end or an error.
    fn settle_all(&mut self) {
        let mut at = 0;
        while let Some(waiting) = self.waits.get_mut(at) {
            let poll = &mut self.polls[at];
            if !poll.is_answered() && !poll.is_due() {
                at += 1;
                continue;
            }
            match settle(&*self.store, poll, &waiting.lifetime) {
                Ok(Seen::Alive { until }) => {
                    waiting.deadline = until;
                    at += 1;
                }
                Ok(Seen::Over(outcome)) => self.finish(at, Ok(outcome)),
                Err(error) => self.finish(at, Err(error)),
            }
        }
    }
}

/// What a look at a session has shown.
enum Seen {
    Over(WaitOutcome),
    Alive { until: SystemTime },
}

/// The first look of a wait. Returns also the time after which the store is to be polled.
fn first_look(store: &dyn Store, poll: &mut Poll, lifetime: &Lifetime) -> Result<(Duration, Seen)> {
    let interval = store.poll(slice::from_mut(poll))?;
    Ok((interval, settle(store, poll, lifetime)?))
}

/// What the answer to a poll says about the session. If rotations have moved the id, looks at its successor.
fn settle(store: &dyn Store, poll: &mut Poll, lifetime: &Lifetime) -> Result<Seen> {
    for _ in 0..=HOPS_MAX {
        let Some(found) = poll.take_answer(Instant::now()) else {
            return Err(Error::new(ErrorKind::Storage, OPERATION)
                .with_reason("the store has not looked at a session that was due"));
        };
        match found? {
            Polled::Live(record) if lifetime.is_over(&record, store.now()) => {
                return Ok(Seen::Over(WaitOutcome::Expired));
            }
            Polled::Live(record) => {
                return Ok(Seen::Alive { until: lifetime.current_deadline(&record.timing()) });
            }
            Polled::Moved { by_login: true, .. } => return Ok(Seen::Over(WaitOutcome::LoggedIn)),
            Polled::Moved { to, .. } => {
                *poll = Poll::new(to);
                store.poll(slice::from_mut(poll))?;
            }
            Polled::Absent(Absent::Expired(_)) => return Ok(Seen::Over(WaitOutcome::Expired)),
            Polled::Absent(_) => return Ok(Seen::Over(WaitOutcome::Ended)),
        }
    }
    // The next poll goes on from the last id that was reached.
    Ok(Seen::Alive { until: store.now() })
}

fn panicked() -> Error {
    Error::new(ErrorKind::Panicked, OPERATION).with_reason("the store panicked")
}
