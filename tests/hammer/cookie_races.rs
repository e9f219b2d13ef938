//! Three overlapping requests of one browser, in every order of their steps: sessions and cookie jar end as they
//! should, but for what no server can mend.
//!
//! All orders together are as many as [`RUNS`]: the choices of three operations, with repetition, times the orders of
//! their twelve steps, for an anonymous visitor and for one who is logged in. Rounds jump about among them, so that a
//! short trial is a sample; a trial that is long enough takes each once, ends, and compares the counts with a table.
//! (Some minutes of two cores, optimised.)
use crate::figures::Figures;
use crate::rounds::Rounds;
use crate::support::memory_store::MemoryStore;
use crate::support::overlaps::{Finding, OPERATIONS, Operation, Run, Site, orders};
use sessile::Clock;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

trials! {
    three_overlapping_requests_lose_only_what_no_server_can_mend,
}

const THREADS: usize = 2;
/// The number of all runs: combinations of three out of six operations, times the orders of twelve steps, times two
/// kinds of visitors.
const RUNS: u64 = 56 * 34_650 * 2;
/// The number of runs in one store. A round uses one store.
const ROUND: u64 = 50;
/// The distance between the numbers of two successive runs. It has no common divisor with [`RUNS`], so its multiples
/// reach every run.
const STRIDE: u64 = 1_234_577;

/// The number of runs that lead to each finding, if all runs are made.
const ALL: [(Finding, u64); 8] = [
    (Finding::LoginReplacedByLogin, 303_168),
    (Finding::LoginReplacedByRotationOfAnother, 800),
    (Finding::LoginReplacedByStoreAfterLogout, 5_292),
    (Finding::LoginRemovedByLogout, 164_200),
    (Finding::LoginOvertaken, 315_736),
    (Finding::RotationOvertaken, 20_300),
    (Finding::ChangeNotInBrowser, 165_136),
    (Finding::ChangeWithoutCookie, 1_136),
];

type Tally = BTreeMap<Finding, u64>;

fn three_overlapping_requests_lose_only_what_no_server_can_mend(_: &Path, time: Duration) -> Figures {
    let (operations, orders) = (combinations(), orders(3));
    assert_eq!((operations.len() * orders.len() * 2) as u64, RUNS);
    let rounds = Rounds::new(time, &[]);
    let (mut figures, mut tally) = (Figures::default(), Tally::new());
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|_| scope.spawn(|| take_rounds(&rounds, &operations, &orders))).collect();
        for thread in threads {
            let (more, counts) = thread.join().unwrap();
            figures.add(more);
            for (finding, count) in counts {
                *tally.entry(finding).or_default() += count;
            }
        }
    });
    figures.rounds = rounds.done();
    println!("  findings: {tally:?}");
    if rounds.done() * ROUND >= RUNS && tally != Tally::from(ALL) {
        figures.fault(format!("all orders have led to {tally:?}"));
    }
    figures
}

fn take_rounds(rounds: &Rounds, operations: &[[Operation; 3]], orders: &[Vec<usize>]) -> (Figures, Tally) {
    let (mut figures, mut tally) = (Figures::default(), Tally::new());
    while let Some(round) = rounds.next().filter(|round| round * ROUND < RUNS) {
        let clock = Clock::manual(UNIX_EPOCH);
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let site = Site::new(store, clock, Duration::from_secs(60));
        for number in round * ROUND..((round + 1) * ROUND).min(RUNS) {
            let number = usize::try_from(number * STRIDE % RUNS).unwrap();
            let (number, order) = (number / orders.len(), &orders[number % orders.len()]);
            let begin = if number % 2 == 0 { None } else { Some("ada") };
            let run = Run { begin, operations: &operations[number / 2], users: &["ada"; 3], order };
            figures.check(|| {
                for finding in run.findings(&site) {
                    assert!(finding.is_unmendable(), "{finding:?} of {run:?}");
                    *tally.entry(finding).or_default() += 1;
                }
            });
        }
    }
    (figures, tally)
}

/// All combinations of three operations. An operation may occur twice; their order does not matter.
fn combinations() -> Vec<[Operation; 3]> {
    let mut all = Vec::new();
    for first in OPERATIONS {
        for second in OPERATIONS.into_iter().filter(|second| *second >= first) {
            all.extend(
                OPERATIONS.into_iter().filter(|third| *third >= second).map(|third| [first, second, third]),
            );
        }
    }
    all
}
