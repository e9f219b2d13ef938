//! The cost of a sweep for concurrent loads: percentiles of loads in one thread, alone and while another
//! thread sweeps with the default budget. Prints a table, because Criterion reports means and medians only.
//!
//! `SESSILE_BENCH_SESSIONS` live sessions (default 50,000), `SESSILE_BENCH_DUE` expired ones (default 2,000).
mod common;

use common::Visits;
use sessile::{
    Admin, Clock, Durability, FileStore, FileStoreOptions, Lookup, Store, SweepOptions, Timing, Token,
};
use std::time::{Duration, Instant, SystemTime};

/// How long loads are measured without a sweep.
const ALONE: Duration = Duration::from_secs(2);
const DAY: Duration = Duration::from_secs(86_400);

fn main() {
    let live = common::sessions();
    let is_test = std::env::args().any(|arg| arg == "--test");
    let due = std::env::var("SESSILE_BENCH_DUE").map_or(if is_test { live } else { 2000 }, |text| {
        text.parse().expect("SESSILE_BENCH_DUE is a number")
    });
    println!(
        "{:32} {:>9} {:>9} {:>9} {:>9} {:>11}",
        "loads", "p50 ns", "p99 ns", "p99.9 ns", "max us", "loads"
    );
    for (operation, cache_bytes) in [("cached", 1 << 30), ("uncached", 0)] {
        let (dir, clock) = (common::directory(), Clock::manual(SystemTime::now()));
        let options = FileStoreOptions::new().clock(clock.clone()).cache_bytes(cache_bytes);
        let store = options.open(dir.path()).expect("a store");
        let tokens = fill(&store, live, 14 * DAY);
        fill(&store, due, Duration::from_micros(1));
        clock.advance(Duration::from_micros(1));
        // The sessions that a sweep removes were written to the disk earlier.
        rustix::fs::sync();
        let mut visits = Visits::uniform(&tokens);
        for token in &tokens {
            store.load(token).expect("a load");
        }

        let until = Instant::now() + if is_test { Duration::from_millis(20) } else { ALONE };
        let alone = measure(&store, &mut visits, || Instant::now() < until);
        report(&format!("{operation}/alone"), alone);

        let beside = std::thread::scope(|scope| {
            let sweep = scope.spawn(|| store.sweep(&SweepOptions::new()).expect("a sweep"));
            let beside = measure(&store, &mut visits, || !sweep.is_finished());
            let swept = sweep.join().expect("the sweep does not panic");
            assert_eq!(swept.removed, due as u64);
            println!("{:32} {:?}", "  removed all in", swept.elapsed);
            beside
        });
        report(&format!("{operation}/beside-a-sweep"), beside);
    }
}

/// Creates sessions that live for `age`.
fn fill(store: &FileStore, sessions: usize, age: Duration) -> Vec<Token> {
    let mut record = common::record(store);
    record.set_timing(Timing { deadline: store.now() + age, ..record.timing() });
    (0..sessions).map(|_| store.create(&record, Durability::Relaxed).expect("a session").token).collect()
}

/// Loads for as long as `go_on` returns true. Returns the time of each load, in nanoseconds.
fn measure(store: &FileStore, visits: &mut Visits, go_on: impl Fn() -> bool) -> Vec<u32> {
    let mut took = Vec::new();
    loop {
        for _ in 0..8 {
            let token = visits.next();
            let began = Instant::now();
            let found = store.load(token).expect("a load");
            let nanos = began.elapsed().as_nanos();
            assert!(matches!(found, Lookup::Live(_)), "all sessions are live");
            took.push(u32::try_from(nanos).unwrap_or(u32::MAX));
        }
        if !go_on() {
            return took;
        }
    }
}

fn report(what: &str, mut took: Vec<u32>) {
    took.sort_unstable();
    let at = |per_mille: usize| took[(took.len() - 1) * per_mille / 1000];
    let max = took[took.len() - 1] / 1000;
    println!("{what:32} {:>9} {:>9} {:>9} {max:>9} {:>11}", at(500), at(990), at(999), took.len());
}
