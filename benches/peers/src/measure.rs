//! Timing of the operations: each peer gets a slice of time, in turns, over several rounds and in another
//! order each time, so that other load of the machine affects all peers. The figures are medians of the
//! rounds.
//!
//! A slice of writes begins when all earlier writes are on the disk: deferred writes of one peer do not fall
//! into the slice of the next. So relaxed figures are the cost for the caller, without later work of the
//! system. (Background threads of servers and trees may still affect other peers.)
use crate::peer::{Client, Peer};
use crate::peers::PeerName;
use crate::workload::{Act, Durability, Found, Key, keys, usual_deadline};
use hdrhistogram::Histogram;
use parking_lot::{Mutex, RwLock};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::fs::sync;
use sessile_peers::median;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
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
    pub(crate) act: Act,
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
}

impl Samples {
    pub(crate) fn new() -> Self {
        Self { rates: Vec::new(), nanos: Histogram::new(3).expect("three digits") }
    }

    pub(crate) fn figures(&self, case: Case, who: PeerName) -> Figures {
        Figures {
            case,
            who,
            ops_per_s: median(&self.rates),
            p50_ns: self.nanos.value_at_quantile(0.5),
            p99_ns: self.nanos.value_at_quantile(0.99),
            samples: self.nanos.len(),
        }
    }
}

/// A peer with its sessions.
pub(crate) struct Subject {
    pub(crate) who: PeerName,
    pub(crate) peer: Box<dyn Peer>,
    /// The seed of the next new ids.
    seed: u64,
}

impl Subject {
    /// Creates all sessions and checks them.
    pub(crate) fn new(who: PeerName, peer: Box<dyn Peer>, all: &[Key], bytes: usize) -> Self {
        peer.fill(all);
        let this = Self { who, peer, seed: 1 << 32 };
        this.check(all, bytes);
        this
    }

    /// Asserts that the peer performs the measured operations.
    fn check(&self, all: &[Key], bytes: usize) {
        let who = self.who;
        let mut client = self.peer.client();
        let key = &all[0];
        let visits_of = |found: Option<Found>| {
            let found = found.unwrap_or_else(|| panic!("{who:?} has no such session"));
            // Some peers store the length before the payload.
            assert!((bytes..bytes + 9).contains(&found.bytes), "{who:?}: {found:?}");
            found.visits
        };
        let visits = visits_of(client.load(key));
        assert!(client.update(key), "{who:?}");
        assert_eq!(visits_of(client.load(key)), visits + 1, "{who:?}");
        if self.peer.does(Act::LoadCached) && who != PeerName::Floor {
            assert_eq!(client.load_cached(key).expect("a session").visits, visits + 1, "{who:?}");
        }
        let new = keys(7).next().expect("the sequence is endless");
        assert_eq!(client.load(&new), None, "{who:?}");
        client.create(&new, usual_deadline());
        assert_eq!(visits_of(client.load(&new)), 0, "{who:?}");
        assert!(client.delete(&new), "{who:?}");
        assert_eq!(client.load(&new), None, "{who:?}");
        if self.peer.does(Act::LoadCached) {
            // A server that has run for a while has them in memory.
            for key in all {
                assert!(client.load_cached(key).is_some(), "{who:?}");
            }
        }
    }

    /// One slice of time for one case.
    pub(crate) fn round(&mut self, case: Case, all: &[Key], slice: Duration, samples: &mut Samples) {
        self.seed += 1000;
        let seed = self.seed;
        let peer = &*self.peer;
        // Sessions that are created and deleted in this round.
        let made = &Mutex::new(Vec::new());
        if matches!(case.act, Act::Update | Act::Create) {
            sync();
        }
        match case.act {
            Act::Load | Act::LoadCached | Act::Update => {
                in_threads(peer, case.threads, slice, samples, |thread| {
                    let mut order = order(all, seed + thread);
                    move |client| {
                        let key = order.next()?;
                        let is_there = match case.act {
                            Act::Load => client.load(key).is_some(),
                            Act::LoadCached => client.load_cached(key).is_some(),
                            _ => client.update(key),
                        };
                        assert!(is_there, "a session is lost");
                        Some(())
                    }
                });
            }
            Act::Create => in_threads(peer, case.threads, slice, samples, |thread| {
                let mut new = keys(seed + thread);
                move |client| {
                    let key = new.next()?;
                    client.create(&key, usual_deadline());
                    made.lock().push(key);
                    Some(())
                }
            }),
            Act::Delete => {
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
            Act::Sweep => self.sweep(seed, samples),
        }
        // All rounds start with the same store.
        let mut client = self.peer.client();
        for key in made.lock().drain(..) {
            assert!(client.delete(&key));
        }
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
    act_of: impl Fn(u64) -> A + Sync,
) where
    A: FnMut(&mut (dyn Client + '_)) -> Option<()>,
{
    let act_of = &act_of;
    // A thread that fails before the start must not make the others wait for it.
    let (report, reports) = mpsc::channel();
    let all_are_ready = &RwLock::new(false);
    let mut start = all_are_ready.write();
    let done: Vec<(u64, Duration, Histogram<u64>)> = thread::scope(|scope| {
        let work = |thread, report: mpsc::Sender<bool>| {
            let client = catch_unwind(AssertUnwindSafe(|| peer.client()));
            report.send(client.is_ok()).expect("the receiver waits");
            let mut client = client.unwrap_or_else(|thrown| resume_unwind(thrown));
            let mut act = act_of(thread);
            let mut nanos_of = Histogram::new(3).expect("three digits");
            assert!(*all_are_ready.read(), "all have a client");
            let began = Instant::now();
            let mut operations = 0;
            'slice: while began.elapsed() < slice {
                let before = Instant::now();
                if act(&mut *client).is_none() {
                    break;
                }
                nanos_of.record(nanos(before.elapsed())).expect("it fits");
                operations += 1;
                // A long operation is always timed, because there are few of them.
                let untimed = if before.elapsed() < Duration::from_micros(100) { TIMED - 1 } else { 0 };
                for _ in 0..untimed {
                    if act(&mut *client).is_none() {
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
