//! Loads from memory beside LMDB, by processor time: a load through `dyn Store` and the reading of one number of the
//! session, and a read transaction of LMDB that reads the same number. Both take turns in one process, and visit the
//! same sessions in the same order. The ids lie in memory in that order, so that a load does not wait for its id: a
//! server has just read it from a request.
//!
//! The processor time of a thread leaves out the time in which other programs run. Their effect on the processor's
//! caches remains, so a figure is the median of the rounds, and a ratio the median of the ratios of the rounds.
use crate::Args;
use crate::mix::EXPONENT;
use crate::peer::{Peer, Setting};
use crate::peers::{PeerName, Sessile, token};
use crate::report::{new_table, right};
use crate::workload::{Durability, Key, payload};
use comfy_table::Cell;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};
use rustix::time::{ClockId, clock_gettime};
use sessile::admin::Admin;
use sessile::{Lookup, Store, Token};
use sessile_peers::{Stop, median};
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

/// The largest number of loads of one thread in one turn: a second or two, far less than the minute for which an entry
/// of the cache is used.
const LOADS_MAX: usize = 1 << 20;
/// The number of loads for each session, up to that number.
const LOADS_PER_SESSION: usize = 20;
/// How often a round is tried, on average. One in which entries of the cache became a minute old does not count,
/// because they were read from their files again.
const ATTEMPTS: usize = 4;
/// The number of sessions in the order that visits a few only.
const HOT: u32 = 64;

/// Compares the loads of all orders, and returns the figures as a table.
///
/// # Errors
///
/// The tool was asked to stop.
pub(crate) fn table(args: &Args, dir: &Path, stop: &Stop) -> io::Result<String> {
    let site = Site::new(args, dir);
    let mut table = new_table(
        ["sessions", "order", "sessile", "LMDB", "ratio", "2 threads, by processor", "2 threads, elapsed"]
            .map(str::to_owned),
    );
    for (name, order) in orders(args.sessions) {
        let visits = site.visits(&order);
        let mut rounds = Vec::new();
        let rounds_wanted = usize::from(args.rounds);
        for _ in 0..ATTEMPTS * rounds_wanted {
            stop.check()?;
            if rounds.len() < rounds_wanted {
                rounds.extend(site.round(&visits));
            }
        }
        assert_eq!(rounds.len(), rounds_wanted, "the cache was read from the files again and again");
        let of = |figure: fn(&Round) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
        table.add_row([
            right(args.sessions.to_string()),
            Cell::new(name),
            right(format!("{:.0} ns", of(|round| round.sessile.processor))),
            right(format!("{:.0} ns", of(|round| round.lmdb.processor))),
            right(format!("{:.2}", of(|round| round.lmdb.processor / round.sessile.processor))),
            right(format!("{:.2}", of(|round| 2.0 * round.sessile.processor / round.two_threads.processor))),
            right(format!("{:.2}", of(|round| 2.0 * round.sessile.elapsed / round.two_threads.elapsed))),
        ]);
    }
    Ok(format!("{table}\n{}", crate::about::machine(dir)))
}

/// The orders in which sessions are visited, as their places.
fn orders(sessions: u32) -> [(&'static str, Vec<u32>); 3] {
    let mut dice = StdRng::seed_from_u64(13);
    let loads = LOADS_MAX.min(LOADS_PER_SESSION * sessions as usize);
    let ranks = Zipf::new(f64::from(sessions), EXPONENT).expect("a distribution");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "places, far below 2^32")]
    let zipf = (0..loads).map(|_| ranks.sample(&mut dice) as u32 - 1).collect();
    let mut below = |end: u32| (0..loads).map(|_| dice.random_range(0..end)).collect();
    [("64 of them", below(HOT.min(sessions))), ("Zipf", zipf), ("each equally likely", below(sessions))]
}

/// The same sessions in both stores.
struct Site {
    keys: Vec<Key>,
    tokens: Vec<Token>,
    sessile: Sessile,
    lmdb: Box<dyn Peer>,
}

/// Nanoseconds of a load.
#[derive(Clone, Copy)]
struct Nanos {
    /// Of the processor.
    processor: f64,
    elapsed: f64,
}

/// The ids of the sessions in the order of the visits.
struct Visits {
    tokens: Vec<Token>,
    keys: Vec<Key>,
}

struct Round {
    sessile: Nanos,
    lmdb: Nanos,
    /// sessile's, when two threads load at the same time.
    two_threads: Nanos,
}

impl Site {
    fn new(args: &Args, dir: &Path) -> Self {
        let payload = payload(usize::try_from(args.bytes[0]).expect("at most 7,000"));
        let setting =
            |name| Setting { dir: dir.join(name), durability: Durability::Relaxed, payload: payload.clone() };
        let keys = args.keys();
        let lmdb = PeerName::Lmdb.open(setting("lmdb"));
        lmdb.fill(&keys);
        std::fs::create_dir_all(dir.join("sessile")).expect("a new directory");
        let sessile = Sessile::open(setting("sessile"));
        sessile.fill(&keys);
        rustix::fs::sync();
        Self { tokens: keys.iter().map(token).collect(), keys, sessile, lmdb }
    }

    fn visits(&self, order: &[u32]) -> Visits {
        let places = || order.iter().map(|place| *place as usize);
        Visits {
            tokens: places().map(|place| self.tokens[place].clone()).collect(),
            keys: places().map(|place| self.keys[place]).collect(),
        }
    }

    /// One round; `None` if too many loads were no hits.
    fn round(&self, visits: &Visits) -> Option<Round> {
        let store: &dyn Store = black_box(self.sessile.store());
        let reader = || |token: &Token| number(store, token);
        // Entries that are a minute old are read from their files again here.
        self.tokens.iter().for_each(|token| assert_eq!(number(store, token), 0));
        let before = self.sessile.store().stats();
        let (sessile, two_threads) = (turn(1, &visits.tokens, reader), turn(2, &visits.tokens, reader));
        let after = self.sessile.store().stats();
        let (hits, misses) = (after.hits - before.hits, after.files.misses - before.files.misses);
        if misses > hits / 1000 {
            return None;
        }
        let lmdb = turn(1, &visits.keys, || {
            let mut client = self.lmdb.client();
            move |key: &Key| client.load(key).expect("a session").visits
        });
        Some(Round { sessile, lmdb, two_threads })
    }
}

/// Loads a session, and reads the number of its visits.
fn number(store: &dyn Store, token: &Token) -> u64 {
    let Lookup::Live(live) = store.load(token).expect("a load") else { panic!("a session is lost") };
    live.record.entries().get("visits").expect("it has one").get().expect("a number")
}

/// Lets each thread visit all sessions in this order, beginning at another place. Returns the mean time of a load in
/// one thread.
fn turn<Id: Sync, R: FnMut(&Id) -> u64>(
    threads: usize,
    order: &[Id],
    reader: impl Fn() -> R + Sync,
) -> Nanos {
    let (start, reader) = (&Barrier::new(threads), &reader);
    let work = |thread: usize| {
        let mut read = reader();
        let (last, first) = order.split_at(thread * order.len() / threads);
        start.wait();
        let (began, processor) = (Instant::now(), processor_nanos());
        let visits: u64 = first.iter().chain(last).map(&mut read).sum();
        let took =
            Nanos { processor: processor_nanos() - processor, elapsed: began.elapsed().as_secs_f64() * 1e9 };
        assert_eq!(visits, 0, "no session was changed");
        took
    };
    let took: Vec<Nanos> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        workers.into_iter().map(|worker| worker.join().expect("no load fails")).collect()
    });
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let loads = (threads * order.len()) as f64;
    let sum = |time: fn(&Nanos) -> f64| took.iter().map(time).sum::<f64>() / loads;
    Nanos { processor: sum(|nanos| nanos.processor), elapsed: sum(|nanos| nanos.elapsed) }
}

/// The processor time of this thread.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn processor_nanos() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
