//! Loading one session: from memory, and from a file that is in the page cache.
//!
//! The floor of a load from memory is a bare look-up in a map of the same kind. The floor of a load from a
//! file is the fewest system calls that could do it; the floor of a load that finds no session is the system
//! calls that fail. `benches/peers` compares databases.
mod common;

use common::{Full, Round, Visits};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hashlink::LruCache;
use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};
use sessile::{
    Absent, Admin, Clock, Durability, FileStoreOptions, Lookup, PublicId, Record, SessionId, Store, Token,
};
use std::cell::LazyCell;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Room for all sessions: every load is a hit.
fn with_cache() -> FileStoreOptions {
    FileStoreOptions::new().cache_bytes(usize::MAX)
}

/// No cache: every load reads a file.
fn without_cache() -> FileStoreOptions {
    FileStoreOptions::new().cache_bytes(0)
}

/// The bare look-up: an LRU map in 32 parts, each behind a lock, keyed by the id.
struct Map([Mutex<LruCache<[u8; 32], Record>>; 32]);

impl Map {
    fn of(full: &Full) -> Self {
        let map = Self(std::array::from_fn(|_| Mutex::new(LruCache::new_unbounded())));
        for token in &full.tokens {
            let Ok(Lookup::Live(live)) = full.store.load(token) else { panic!("a session is not live") };
            // A separate copy, so that this look-up does not warm the store's entry.
            map.part(token)
                .lock()
                .insert(key(token), Record::from_bytes(live.record.as_bytes()).expect("it was stored"));
        }
        map
    }
    fn part(&self, token: &Token) -> &Mutex<LruCache<[u8; 32], Record>> {
        let [.., a, b, c] = key(token);
        &self.0[(usize::from(a) * 49 + usize::from(b) * 7 + usize::from(c)) % 32]
    }
    fn load(&self, token: &Token) -> usize {
        let record = self.part(token).lock().get(&key(token)).cloned();
        record.expect("every session was inserted").entries().len()
    }
}

fn key(token: &Token) -> [u8; 32] {
    token.expose().as_bytes().try_into().expect("an id of this store")
}

fn entries(full: &Full, token: &Token) -> usize {
    match full.store.load(token) {
        Ok(Lookup::Live(live)) => live.record.entries().len(),
        other => panic!("a session is not live: {other:?}"),
    }
}

/// Lets `threads` threads share `loads` loads. Each has its own order, which begins with the `first`. Returns
/// the total time.
fn in_threads(
    threads: usize,
    loads: u64,
    visits: &Visits,
    first: usize,
    load: impl Fn(&Token) -> usize + Sync,
) -> Duration {
    let start = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let each = loads.div_ceil(threads as u64);
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (start, load, mut visits) = (&start, &load, visits.from(first + thread * 77_777));
                scope.spawn(move || {
                    start.wait();
                    (0..each).map(|_| black_box(load(visits.next()))).sum::<usize>()
                })
            })
            .collect();
        start.wait();
        let began = Instant::now();
        for worker in workers {
            assert_ne!(black_box(worker.join().expect("no load panics")), 0);
        }
        began.elapsed()
    })
}

/// Measures [`Store::load`] of sessions that are in memory, by one thread and by two. In one order every
/// session is equally likely; in the other a few sessions are loaded often (Zipf, exponent 0.99).
fn cached(c: &mut Criterion) {
    let full = LazyCell::new(|| {
        let full = Full::with(with_cache(), common::sessions(), Durability::Relaxed);
        full.tokens.iter().for_each(|token| assert_eq!(entries(&full, token), 8));
        full
    });
    let map = LazyCell::new(|| Map::of(&full));
    let orders = [("uniform", Visits::uniform as fn(&[Token]) -> Visits), ("zipf", Visits::zipf)];
    for (order, visits) in orders {
        let mut group = c.benchmark_group(format!("load-cached-{order}"));
        group.throughput(Throughput::Elements(1));
        let visits = LazyCell::new(|| visits(&full.tokens));
        for threads in [1, 2] {
            let id = |who| BenchmarkId::new(who, format!("512/{threads}-threads"));
            let mut at = 0;
            let mut next = |loads: u64| {
                at += usize::try_from(loads).expect("fits");
                at
            };
            group.bench_function(id("floor"), |b| {
                let map = &*map;
                b.iter_custom(|n| in_threads(threads, n, &visits, next(n), |token| map.load(token)));
            });
            group.bench_function(id("sessile"), |b| {
                let full = &*full;
                // Entries that are a minute old are read again; after this most are fresh.
                full.tokens.iter().for_each(|token| assert_eq!(entries(full, token), 8));
                let before = full.store.stats();
                b.iter_custom(|n| in_threads(threads, n, &visits, next(n), |token| entries(full, token)));
                let after = full.store.stats();
                let (hits, misses) = (after.hits - before.hits, after.files.misses - before.files.misses);
                assert!(misses <= full.tokens.len() as u64 + hits / 50, "{hits} hits, {misses} misses");
            });
        }
        group.finish();
    }
}

/// Measures `openat`, `pread` of the whole file, `close`; beside it, [`Store::load`] of the same files, which
/// also finds the newest slot, verifies it and decodes it.
fn uncached(c: &mut Criterion) {
    let full = LazyCell::new(|| Full::with(without_cache(), common::sessions(), Durability::Relaxed));
    let mut group = c.benchmark_group("load-uncached");

    let paths = LazyCell::new(|| full.paths());
    let mut round = Round::below(common::sessions());
    group.bench_function("floor/512", |b| {
        let (root, paths) = &*paths;
        let mut bytes = Vec::with_capacity(4096);
        let mut floor = || {
            bytes.clear();
            let path = paths[round.next()].as_str();
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOATIME;
            let file = rustix::fs::openat(root, path, flags, Mode::empty()).expect("open");
            rustix::io::pread(&file, spare_capacity(&mut bytes), 0).expect("pread")
        };
        assert_eq!(floor(), 4096);
        b.iter(|| black_box(floor()));
    });

    group.bench_function("sessile/512", |b| {
        let mut load = || entries(&full, &full.tokens[round.next()]);
        assert_eq!(load(), 8);
        b.iter(|| black_box(load()));
    });

    // The same while a watcher of changes outside the library runs; a store without a cache has none.
    #[cfg(feature = "watch")]
    group.bench_function("sessile-watched/512", |b| {
        let watching = with_cache().open(full.path()).expect("the same store");
        assert_eq!(watching.watch_error().map(ToString::to_string), None);
        b.iter(|| black_box(entries(&full, &full.tokens[round.next()])));
    });
    group.finish();
}

/// Measures a load of a well-formed id that is unknown: `openat`, which fails.
fn absent(c: &mut Criterion) {
    let full = LazyCell::new(|| Full::with(with_cache(), common::sessions(), Durability::Relaxed));
    let mut group = c.benchmark_group("load-absent");
    let paths = LazyCell::new(|| full.paths());
    let unknown: Vec<_> = (0..1000).map(|_| SessionId::random().expect("random bits").to_token()).collect();
    group.bench_function("floor/512", |b| {
        let (root, _) = &*paths;
        let path = |token: &Token| {
            let hex = PublicId::digest(token.expose().as_bytes()).to_string();
            format!("{}/{}", &hex[..2], &hex[2..])
        };
        let paths: Vec<_> = unknown.iter().map(path).collect();
        let mut round = Round::below(paths.len());
        let mut floor = || {
            let path = paths[round.next()].as_str();
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOATIME;
            rustix::fs::openat(root, path, flags, Mode::empty()).is_err()
        };
        assert!(floor());
        b.iter(|| black_box(floor()));
    });
    group.bench_function("sessile/512", |b| {
        let mut round = Round::below(unknown.len());
        let mut load = || matches!(full.store.load(&unknown[round.next()]), Ok(Lookup::Absent(_)));
        assert!(load());
        b.iter(|| black_box(load()));
    });
    group.finish();
}

/// Measures a load of a session that has expired, in memory and in its file.
fn expired(c: &mut Criterion) {
    let mut group = c.benchmark_group("load-expired");
    for (name, options) in [("in-memory", with_cache()), ("in-its-file", without_cache())] {
        let full = LazyCell::new(|| {
            let clock = Clock::manual(SystemTime::now());
            let full = Full::with(options.clock(clock.clone()), 1000, Durability::Relaxed);
            full.tokens.iter().for_each(|token| assert_eq!(entries(&full, token), 8));
            clock.advance(Duration::from_secs(15 * 86_400));
            full
        });
        group.bench_function(format!("sessile/{name}"), |b| {
            let mut round = Round::below(full.tokens.len());
            let mut load = || {
                let found = full.store.load(&full.tokens[round.next()]);
                matches!(found, Ok(Lookup::Absent(Absent::Expired(_))))
            };
            assert!(load());
            b.iter(|| black_box(load()));
        });
    }
    group.finish();
}

criterion_group!(name = benches; config = common::criterion(); targets = cached, uncached, absent, expired);
criterion_main!(benches);
