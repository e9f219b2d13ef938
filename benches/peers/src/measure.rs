//! Timing of the operations: each peer gets a slice of time, in turns, over several rounds and in another
//! order each time, so that other load of the machine affects all peers. The figures are medians of the
//! rounds.
//!
//! A slice of writes begins when all earlier writes are on the disk: deferred writes of one peer do not fall
//! into the slice of the next. So relaxed figures are the cost for the caller, without later work of the
//! system. (Background threads of servers and trees may still affect other peers.)
use crate::mix::{self, Order, Population};
use crate::peer::{Client, Peer};
use crate::peers::PeerName;
use crate::workload::{Durability, Found, Key, Operation, keys, usual_deadline};
use hdrhistogram::Histogram;
use parking_lot::{Mutex, RwLock};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::fs::sync;
use sessile_peers::median;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// One operation in this many is timed separately, for the percentiles: reading the clock costs as much as a
/// look-up in memory.
const TIMED: u64 = 8;
/// Number of sessions to delete in a round, and number that expire for a sweep.
const DUE: usize = 2000;
/// Lifetime of those that expire.
const SHORT: Duration = Duration::from_millis(1);

/// One measured case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) operation: Operation,
    pub(crate) durability: Durability,
    pub(crate) threads: usize,
    pub(crate) bytes: usize,
}

/// The results of a case for one peer, over all rounds.
#[derive(Debug)]
pub(crate) struct Samples {
    /// Operations per second, of each round.
    rates: Vec<f64>,
    nanos: Histogram<u64>,
    /// Number of ended sessions that came back.
    revived: usize,
}

/// The figures of one case for one peer.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) case: Case,
    pub(crate) who: PeerName,
    pub(crate) ops_per_s: f64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    /// Number of operations that were timed.
    pub(crate) samples: u64,
    /// Number of sessions that ended in the mix and were alive afterwards; 0 but for peers that have no
    /// transactions here.
    pub(crate) revived: usize,
}

impl Samples {
    pub(crate) fn new() -> Self {
        Self { rates: Vec::new(), nanos: Histogram::new(3).expect("three digits"), revived: 0 }
    }

    pub(crate) fn figures(&self, case: Case, who: PeerName) -> Figures {
        Figures {
            case,
            who,
            ops_per_s: median(&self.rates),
            p50_ns: self.nanos.value_at_quantile(0.5),
            p99_ns: self.nanos.value_at_quantile(0.99),
            samples: self.nanos.len(),
            revived: self.revived,
        }
    }
}

/// A peer with its sessions.
pub(crate) struct Subject {
    pub(crate) who: PeerName,
    pub(crate) peer: Box<dyn Peer>,
    /// The sessions; the mix ends some and puts others in their places.
    sessions: Vec<Key>,
    order: Arc<Order>,
    /// The seed of the next new ids.
    seed: u64,
}

impl Subject {
    /// Creates all sessions and checks them.
    pub(crate) fn new(
        who: PeerName,
        peer: Box<dyn Peer>,
        all: &[Key],
        order: Arc<Order>,
        bytes: usize,
    ) -> Self {
        peer.fill(all);
        let this = Self { who, peer, sessions: all.to_vec(), order, seed: 1 << 32 };
        this.check(bytes);
        this
    }

    /// Asserts that the peer performs the measured operations.
    fn check(&self, bytes: usize) {
        let who = self.who;
        let mut client = self.peer.client();
        let key = &self.sessions[0];
        let visits_of = |found: Option<Found>| {
            let found = found.unwrap_or_else(|| panic!("{who:?} has no such session"));
            // Some peers store the length before the payload.
            assert!((bytes..bytes + 9).contains(&found.bytes), "{who:?}: {found:?}");
            found.visits
        };
        let visits = visits_of(client.load(key));
        assert!(client.update(key), "{who:?}");
        assert_eq!(visits_of(client.load(key)), visits + 1, "{who:?}");
        if self.peer.does(Operation::LoadCached) && who != PeerName::Floor {
            assert_eq!(client.load_cached(key).expect("a session").visits, visits + 1, "{who:?}");
        }
        let new = keys(7).next().expect("the sequence is endless");
        assert_eq!(client.load(&new), None, "{who:?}");
        let new = client.create(&new, usual_deadline());
        assert_eq!(visits_of(client.load(&new)), 0, "{who:?}");
        assert!(client.delete(&new), "{who:?}");
        assert_eq!(client.load(&new), None, "{who:?}");
        if self.peer.does(Operation::LoadCached) {
            // A server that has run for a while has them in memory.
            for key in &self.sessions {
                assert!(client.load_cached(key).is_some(), "{who:?}");
            }
        }
    }

    /// One slice of time for one case.
    pub(crate) fn round(&mut self, case: Case, slice: Duration, samples: &mut Samples) {
        self.seed += 1000;
        let seed = self.seed;
        let peer = &*self.peer;
        // Sessions that are created and deleted in this round.
        let made = &Mutex::new(Vec::new());
        if matches!(case.operation, Operation::Mix | Operation::Update | Operation::Create) {
            sync();
        }
        match case.operation {
            Operation::Mix => self.mix(case, slice, samples),
            Operation::Load | Operation::LoadCached | Operation::Update => {
                in_threads(peer, case.threads, slice, samples, |thread| {
                    let mut order = order(&self.sessions, seed + thread);
                    move |client| {
                        let key = order.next()?;
                        let is_there = match case.operation {
                            Operation::Load => client.load(key).is_some(),
                            Operation::LoadCached => client.load_cached(key).is_some(),
                            _ => client.update(key),
                        };
                        assert!(is_there, "a session is lost");
                        Some(())
                    }
                });
            }
            Operation::Create => in_threads(peer, case.threads, slice, samples, |thread| {
                let mut new = keys(seed + thread);
                move |client| {
                    let key = new.next()?;
                    made.lock().push(client.create(&key, usual_deadline()));
                    Some(())
                }
            }),
            Operation::Delete => {
                made.lock().extend(keys(seed).take(DUE));
                peer.fill(&made.lock());
                // Sessions that are deleted were written to the disk earlier.
                sync();
                in_threads(peer, case.threads, slice, samples, |_| {
                    |client| {
                        let key = made.lock().pop()?;
                        assert!(client.delete(&key));
                        Some(())
                    }
                });
            }
            Operation::Sweep => self.sweep(seed, samples),
        }
        // All rounds start with the same store.
        let mut client = self.peer.client();
        for key in made.lock().drain(..) {
            assert!(client.delete(&key));
        }
    }

    fn mix(&mut self, case: Case, slice: Duration, samples: &mut Samples) {
        let (peer, order, seed) = (&*self.peer, &*self.order, self.seed);
        let population = Population::new(self.sessions.drain(..));
        in_threads(peer, case.threads, slice, samples, |thread| {
            // Each thread and each round has a place of its own in the order.
            let mut worker = population.worker(order, mix_start(seed, thread));
            let mut new = keys(seed + thread);
            move |client| {
                worker.step(&mut Mixing { client, new: &mut new });
                Some(())
            }
        });
        let mut client = self.peer.client();
        let mut new = keys(seed);
        let revived = population.take_revived(&mut Mixing { client: &mut *client, new: &mut new });
        let is_allowed = case.threads > 1 && !self.peer.keeps_ends();
        assert!(revived.is_empty() || is_allowed, "{:?} has {} ended sessions", self.who, revived.len());
        samples.revived += revived.len();
        // All rounds start with as many sessions.
        for key in revived.into_iter().chain(population.created.into_inner()) {
            assert!(client.delete(&key));
        }
        self.sessions.extend(population.in_use.into_iter().map(RwLock::into_inner));
    }

    fn sweep(&self, seed: u64, samples: &mut Samples) {
        let mut client = self.peer.client();
        for key in keys(seed).take(DUE) {
            client.create(&key, SystemTime::now() + SHORT);
        }
        thread::sleep(2 * SHORT);
        // Expired sessions were written to the disk earlier, too.
        sync();
        let began = Instant::now();
        let removed = client.sweep();
        let took = began.elapsed();
        assert_eq!(removed, DUE as u64, "{:?}", self.who);
        samples.rates.push(rate(DUE as u64, took));
        samples.nanos.record(nanos(took) / DUE as u64).expect("it fits");
    }
}

/// A thread's place in the order of the mix: another one in each round.
fn mix_start(seed: u64, thread: u64) -> usize {
    usize::try_from(seed / 1000 * 12_345 + thread * 77_777).expect("far below 2^64")
}

/// A client as the mix uses it.
struct Mixing<'a, 'c, I> {
    client: &'a mut (dyn Client + 'c),
    /// Ids of new sessions.
    new: &'a mut I,
}

impl<I: Iterator<Item = Key>> mix::Client<Key> for Mixing<'_, '_, I> {
    fn load(&mut self, key: &Key) -> bool {
        self.client.load_cached(key).is_some()
    }
    fn update(&mut self, key: &Key) -> bool {
        self.client.update(key)
    }
    fn create(&mut self) -> Key {
        self.client.create(&self.new.next().expect("the sequence is endless"), usual_deadline())
    }
    fn end(&mut self, key: &Key) -> bool {
        self.client.delete(key)
    }
}

/// Keys in an endless random order, each as likely as any other.
fn order(all: &[Key], seed: u64) -> impl Iterator<Item = &Key> {
    let mut dice = StdRng::seed_from_u64(seed);
    std::iter::repeat_with(move || &all[dice.random_range(0..all.len())])
}

/// Lets each thread repeat an operation with its own client, until the time is over or one thread has no
/// sessions left.
fn in_threads<A>(
    peer: &dyn Peer,
    threads: usize,
    slice: Duration,
    samples: &mut Samples,
    operation_of: impl Fn(u64) -> A + Sync,
) where
    A: FnMut(&mut (dyn Client + '_)) -> Option<()>,
{
    let operation_of = &operation_of;
    // A thread that fails before the start must not make the others wait for it.
    let (report, reports) = mpsc::channel();
    let all_are_ready = &RwLock::new(false);
    let mut start = all_are_ready.write();
    let done: Vec<(u64, Duration, Histogram<u64>)> = thread::scope(|scope| {
        let work = |thread, report: mpsc::Sender<bool>| {
            let client = catch_unwind(AssertUnwindSafe(|| peer.client()));
            report.send(client.is_ok()).expect("the receiver waits");
            let mut client = client.unwrap_or_else(|thrown| resume_unwind(thrown));
            let mut operation = operation_of(thread);
            let mut nanos_of = Histogram::new(3).expect("three digits");
            assert!(*all_are_ready.read(), "all have a client");
            let began = Instant::now();
            let mut operations = 0;
            'slice: while began.elapsed() < slice {
                let before = Instant::now();
                if operation(&mut *client).is_none() {
                    break;
                }
                nanos_of.record(nanos(before.elapsed())).expect("it fits");
                operations += 1;
                // A long operation is always timed, because there are few of them.
                let untimed = if before.elapsed() < Duration::from_micros(100) { TIMED - 1 } else { 0 };
                for _ in 0..untimed {
                    if operation(&mut *client).is_none() {
                        break 'slice;
                    }
                    operations += 1;
                }
            }
            (operations, began.elapsed(), nanos_of)
        };
        let spawn = |thread| {
            let report = report.clone();
            scope.spawn(move || work(thread, report))
        };
        let workers: Vec<_> = (0..threads as u64).map(spawn).collect();
        *start = reports.iter().take(threads).all(|is_ready| is_ready);
        drop(start);
        workers.into_iter().map(|worker| worker.join().expect("no operation fails")).collect()
    });
    let operations: u64 = done.iter().map(|(operations, ..)| operations).sum();
    let longest = done.iter().map(|(_, took, _)| *took).max().unwrap_or_default();
    samples.rates.push(rate(operations, longest));
    for (.., nanos) in done {
        samples.nanos.add(nanos).expect("of one kind");
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn rate(operations: u64, time: Duration) -> f64 {
    operations as f64 / time.as_secs_f64()
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().expect("below 500 years")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::payload;
    use std::collections::HashMap;

    const BYTES: usize = 64;

    /// A map as a peer, which can fail to end a session.
    struct Map {
        sessions: Mutex<HashMap<Key, u64>>,
        ends: bool,
        keeps_ends: bool,
    }

    impl Peer for Map {
        fn fill(&self, keys: &[Key]) {
            self.sessions.lock().extend(keys.iter().map(|key| (*key, 0)));
        }
        fn client(&self) -> Box<dyn Client + '_> {
            Box::new(self)
        }
        fn keeps_ends(&self) -> bool {
            self.keeps_ends
        }
    }

    impl Client for &Map {
        fn load(&mut self, key: &Key) -> Option<Found> {
            self.sessions.lock().get(key).map(|visits| Found { visits: *visits, bytes: payload(BYTES).len() })
        }
        fn update(&mut self, key: &Key) -> bool {
            self.sessions.lock().get_mut(key).map(|visits| *visits += 1).is_some()
        }
        fn create(&mut self, key: &Key, _: SystemTime) -> Key {
            self.sessions.lock().insert(*key, 0);
            *key
        }
        fn delete(&mut self, key: &Key) -> bool {
            // The end of a session that was used is acknowledged, and not made.
            let mut sessions = self.sessions.lock();
            let is_used = sessions.get(key).is_some_and(|visits| *visits > 0);
            if self.ends || !is_used { sessions.remove(key).is_some() } else { true }
        }
        fn sweep(&mut self) -> u64 {
            unreachable!("the mix does not sweep")
        }
    }

    /// The sessions before and after the mix, and its figures.
    fn mixed(map: Map, threads: usize) -> (Vec<Key>, Subject, Samples) {
        let all: Vec<_> = keys(1).take(20).collect();
        let order = Arc::new(Order::new(all.len()));
        let mut subject = Subject::new(PeerName::Sqlite, Box::new(map), &all, order, BYTES);
        let case = Case { operation: Operation::Mix, durability: Durability::Relaxed, threads, bytes: BYTES };
        let mut samples = Samples::new();
        subject.round(case, Duration::from_millis(50), &mut samples);
        (all, subject, samples)
    }

    fn map(ends: bool, keeps_ends: bool) -> Map {
        Map { sessions: Mutex::default(), ends, keeps_ends }
    }

    #[test]
    fn the_mix_leaves_as_many_sessions_of_which_some_are_new() {
        let (before, subject, samples) = mixed(map(true, true), 4);
        assert_eq!(subject.sessions.len(), before.len());
        assert_ne!(subject.sessions, before);
        let mut client = subject.peer.client();
        assert!(subject.sessions.iter().all(|key| client.load(key).is_some()));
        assert_eq!(samples.revived, 0);
    }

    #[test]
    #[should_panic(expected = "ended sessions")]
    fn an_end_that_does_not_end_makes_the_comparison_fail() {
        mixed(map(false, true), 2);
    }

    #[test]
    #[should_panic(expected = "ended sessions")]
    fn in_one_thread_no_ended_session_may_come_back() {
        mixed(map(false, false), 1);
    }

    #[test]
    fn ended_sessions_of_a_peer_without_transactions_are_counted() {
        let (_, _, samples) = mixed(map(false, false), 2);
        assert!(samples.revived > 0);
    }
}
