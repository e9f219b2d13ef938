//! Cache coherence: no load in any process returns less than was acknowledged to any process before the load began.
//!
//! Mostly loads of a few sessions, nearly all answered from memory.
use crate::figures::Figures;
use crate::rounds::Rounds;
use crate::stage::{ledger, open};
use crate::support::checker::{Mix, Saving};
use crate::support::ledger::Life;
use crate::support::process::{Parent, Start, Worker};
use crate::support::versions;
use crate::workers::{Counters, Workers};
use sessile::{Admin, Durability, FileStore, Store, Token};
use std::path::Path;
use std::time::Duration;

trials! {
    no_process_loads_less_than_was_acknowledged_to_any,
    no_thread_loads_less_than_was_acknowledged_to_any,
    processes_without_a_cache_need_no_invalidation,
    without_invalidations_the_checker_finds_stale_loads,
    after_a_logout_no_warm_cache_serves_the_session,
    after_a_rotation_every_process_finds_the_new_id_only,
}

pub(crate) const WORKERS: &[(&str, Worker)] = &[
    ("load and save", |parent| PROCESSES.work(parent)),
    ("load and save in threads", |parent| THREADS.work(parent)),
    ("load and save without a cache", |parent| WITHOUT_A_CACHE.work(parent)),
    ("load and save unheard", |parent| UNHEARD.work(parent)),
    ("meet the end", meet_the_end),
];

/// Three processes with a cache, and one without. The process without a cache must invalidate the entries of the
/// others.
const PROCESSES: Workers = Workers {
    worker: WORKERS[0].0,
    have_caches: &[true, true, false, true],
    counters: Counters::Shared,
    threads: 2,
    places: 200,
    mix: Mix { saves: 30, ends: 4, rotations: 2 },
    steps_min: 1_000,
    saving: Saving { safe: false, renews: false, large: false },
    sweeps: false,
};
const THREADS: Workers = Workers { worker: WORKERS[1].0, have_caches: &[true], threads: 8, ..PROCESSES };
/// Processes that do not share the counters, and read the file at every load.
const WITHOUT_A_CACHE: Workers =
    Workers { worker: WORKERS[2].0, have_caches: &[false; 4], counters: Counters::Separate, ..PROCESSES };
const UNHEARD: Workers = Workers { worker: WORKERS[3].0, have_caches: &[true; 4], ..WITHOUT_A_CACHE };

fn no_process_loads_less_than_was_acknowledged_to_any(dir: &Path, time: Duration) -> Figures {
    from_memory(PROCESSES.run(dir, time))
}

fn no_thread_loads_less_than_was_acknowledged_to_any(dir: &Path, time: Duration) -> Figures {
    from_memory(THREADS.run(dir, time))
}

/// Asserts that many loads were answered from the cache.
fn from_memory(mut figures: Figures) -> Figures {
    if !figures.has_faults() && figures.hits * 3 < figures.reads {
        figures.fault("the caches answered too few loads");
    }
    figures
}

fn processes_without_a_cache_need_no_invalidation(dir: &Path, time: Duration) -> Figures {
    let mut figures = WITHOUT_A_CACHE.run(dir, time);
    if figures.hits > 0 {
        figures.fault("a cache answered");
    }
    figures
}

/// Shows that the trials above can fail: if processes do not share the counters, stale loads are found, and no other
/// fault.
fn without_invalidations_the_checker_finds_stale_loads(dir: &Path, time: Duration) -> Figures {
    let figures = UNHEARD.run(dir, time);
    assert!(figures.reads > 1_000 && figures.stale > figures.reads / 20 && figures.revived > 0, "{figures}");
    // Loads from files, and changes under the lock of a file, are right without shared counters.
    figures.forgive_stale_loads()
}

/// The way in which a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Logout,
    Rotation,
}

/// How often the other process loads a session before the session ends.
const LOADS_BEFORE: u64 = 20;

fn after_a_logout_no_warm_cache_serves_the_session(dir: &Path, time: Duration) -> Figures {
    check_ends(dir, time, End::Logout)
}

fn after_a_rotation_every_process_finds_the_new_id_only(dir: &Path, time: Duration) -> Figures {
    check_ends(dir, time, End::Rotation)
}

/// This process ends sessions, and another one loads them: often before they end, without a pause while they end, and
/// once after the ledger says that they have ended.
#[track_caller]
fn check_ends(dir: &Path, time: Duration, end: End) -> Figures {
    let (store, ledger) = (open(dir), ledger(dir));
    let mut other = Start::of("meet the end").with("DIR", dir).start();
    let rounds = Rounds::new(time, &[]);
    while let Some(round) = rounds.next() {
        let old = store.create(&versions::new(&store, 1, 10), Durability::Relaxed).unwrap().token;
        let [before, after] = [2 * round, 2 * round + 1].map(|n| Life::of(0, n));
        ledger.begin(before, &old, 0, 1);
        other.say(before.0);
        assert_eq!(other.line(), "warm", "{end:?}, round {round}");
        let new = match end {
            End::Logout => {
                assert!(store.delete(&old).unwrap().is_some());
                None
            }
            End::Rotation => Some(rotate(&store, &old)),
        };
        if let Some(new) = &new {
            ledger.begin(after, new, 0, 2);
        }
        ledger.ended(before);
        let found = other.line();
        let want = if end == End::Logout { "None, None" } else { "None, Some(2)" };
        assert_eq!(
            found, want,
            "{end:?}, round {round}: what the other process found under the old id, the new"
        );
        if let Some(new) = new {
            assert!(store.delete(&new).unwrap().is_some(), "round {round}");
        }
    }
    other.say("end");
    let [hits] = &other.finish()[..] else { panic!("one report") };
    let hits: u64 = hits.parse().unwrap();
    let loads = LOADS_BEFORE * rounds.done();
    assert!(hits * 10 >= loads * 9, "{end:?}: its cache was warm: {hits} hits of {loads} loads");
    rounds.figures()
}

fn rotate(store: &FileStore, old: &Token) -> Token {
    let change = &mut versions::next(10);
    store.rotate(old, change, &Durability::Relaxed.into()).unwrap().expect("it is alive").token
}

fn meet_the_end(parent: &Parent) {
    let dir = Path::new(parent.argument("DIR"));
    let (store, ledger) = (open(dir), ledger(dir));
    let mut hits = 0;
    loop {
        let line = parent.line();
        if line == "end" {
            return parent.report(hits);
        }
        let old = Life(line.parse().unwrap());
        let new = Life(old.0 + Life::of(0, 1).0);
        let token = ledger.token(old);
        let before = store.stats().hits;
        for _ in 0..LOADS_BEFORE {
            assert_eq!(versions::stored(&store, &token), Some(1));
        }
        hits += store.stats().hits - before;
        parent.report("warm");
        let found = loop {
            let ended = ledger.row(old).ended;
            let found = versions::stored(&store, &token);
            if ended {
                break found;
            }
        };
        let new = ledger.has(new).then(|| versions::stored(&store, &ledger.token(new))).flatten();
        parent.report(format_args!("{found:?}, {new:?}"));
    }
}
