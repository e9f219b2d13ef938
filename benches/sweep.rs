//! Removing expired sessions: the cost of finding them among live ones, and of removing them.
//!
//! `SESSILE_BENCH_SWEEP` says how many live sessions the larger store holds (default 50,000; the smaller one has a
//! twentieth of it). No sweep sleeps.
mod common;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rustix::fs::{AtFlags, Mode, OFlags};
use sessile::admin::SweepOptions;
use sessile::{Admin, Clock, Durability, FileStore, FileStoreOptions, PublicId, Record, Store, Timing};
use std::cell::LazyCell;
use std::time::{Duration, Instant, UNIX_EPOCH};
use tempfile::TempDir;

/// Number of sessions that expire at once.
const DUE: usize = 1000;

fn unthrottled() -> SweepOptions {
    SweepOptions::new().cpu_percent(100)
}

fn large() -> usize {
    let text = std::env::var("SESSILE_BENCH_SWEEP").unwrap_or_else(|_| {
        // A test run has small stores.
        let usual = if common::sessions() < 50_000 { 20 * common::sessions() } else { 50_000 };
        usual.to_string()
    });
    text.parse().expect("SESSILE_BENCH_SWEEP is a number")
}

/// A store whose clock stands still.
struct Fixture {
    store: FileStore,
    clock: Clock,
    record: Record,
    dir: TempDir,
}

impl Fixture {
    /// With `live` sessions that live for two weeks.
    fn with(live: usize) -> Self {
        // The beginning of an hour: so the full sweep, once an hour, does not run.
        let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(500_000 * 3600));
        let dir = common::directory();
        let options = FileStoreOptions::new().clock(clock.clone()).cache_bytes(0);
        let store = options.open(dir.path()).expect("a store");
        let record = common::record(&store);
        let fixture = Self { store, clock, record, dir };
        fixture.create(live, Duration::from_secs(1_209_600));
        fixture
    }

    /// Creates sessions with this lifetime.
    fn create(&self, sessions: usize, age: Duration) -> Vec<PublicId> {
        let mut record = self.record.clone();
        record.set_timing(Timing { deadline: self.store.now() + age, ..record.timing() });
        let create = || self.store.create(&record, Durability::Relaxed).expect("a session").live.id;
        (0..sessions).map(|_| create()).collect()
    }

    /// Creates sessions, lets them expire in the hour of the sweep, and syncs them to the disk.
    fn let_expire(&self, sessions: usize) -> Vec<PublicId> {
        let ids = self.create(sessions, Duration::from_micros(1));
        self.clock.advance(Duration::from_micros(1));
        rustix::fs::sync();
        ids
    }

    /// Sweeps. Returns how many sessions were removed.
    fn sweep(&self, options: &SweepOptions) -> u64 {
        let report = self.store.sweep(options).expect("a sweep");
        assert_eq!(report.failed, 0, "{report:?}");
        report.removed
    }
}

/// Measures a sweep of 1,000 expired sessions among few live ones and among many; beside it, reading every file, which
/// is the way without an index.
fn due_among_live(c: &mut Criterion) {
    let (small, large) = (large() / 20, large());
    let mut group = c.benchmark_group("sweep-1000-due");
    group.sample_size(10).throughput(Throughput::Elements(DUE as u64));
    let stores = [small, large].map(|live| (live, LazyCell::new(move || Fixture::with(live))));
    for (live, fixture) in &stores {
        group.bench_function(format!("sessile/{live}"), |b| {
            b.iter_custom(|rounds| {
                let round = |_| {
                    fixture.let_expire(DUE);
                    let began = Instant::now();
                    let removed = fixture.sweep(&unthrottled());
                    let took = began.elapsed();
                    assert_eq!(removed, DUE as u64);
                    took
                };
                (0..rounds).map(round).sum()
            });
        });
    }
    let (live, fixture) = &stores[1];
    group.bench_function(format!("decode-all/{live}"), |b| {
        b.iter(|| fixture.sweep(&unthrottled().full(true).dry_run(true)));
    });
    group.finish();
}

/// Measures removing expired sessions; beside it, `unlinkat` of as many files of the same store, in the order
/// of their names.
fn removal(c: &mut Criterion) {
    let sessions = common::sessions().min(DUE);
    let fixture = LazyCell::new(|| Fixture::with(0));
    let mut group = c.benchmark_group("remove");
    group.sample_size(10).throughput(Throughput::Elements(sessions as u64));
    group.bench_function("floor/512", |b| {
        let root = rustix::fs::open(fixture.dir.path(), OFlags::RDONLY, Mode::empty()).expect("the root");
        let unlink = |mut ids: Vec<PublicId>| {
            ids.sort_unstable();
            for id in ids {
                let hex = id.to_string();
                let path = format!("{}/{}", &hex[..2], &hex[2..]);
                rustix::fs::unlinkat(&root, path, AtFlags::empty()).expect("unlinkat");
            }
        };
        b.iter_batched(|| fixture.let_expire(sessions), unlink, BatchSize::PerIteration);
        // A sweep erases their entries in the index.
        fixture.sweep(&unthrottled());
    });
    group.bench_function("sessile/512", |b| {
        let sweep = |ids: Vec<PublicId>| assert_eq!(fixture.sweep(&unthrottled()), ids.len() as u64);
        b.iter_batched(|| fixture.let_expire(sessions), sweep, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(name = benches; config = common::criterion(); targets = due_among_live, removal);
criterion_main!(benches);
