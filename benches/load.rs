//! Loading one session whose file is in the page cache. The floor is the fewest system calls that could do it.
mod common;

use common::{Full, Round};
use criterion::{Criterion, criterion_group, criterion_main};
use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};
use sessile::{Durability, Lookup, SessionId, Store};
use std::cell::LazyCell;
use std::hint::black_box;

/// Measures `openat`, `pread` of the whole file, `close`: beside it, [`Store::load`] of the same files, which adds
/// finding the newest slot, verifying and decoding it.
fn uncached(c: &mut Criterion) {
    let full = LazyCell::new(|| Full::new(Durability::Relaxed));
    let mut group = c.benchmark_group("load-uncached");

    group.bench_function("floor/512", |b| {
        let (root, paths) = full.paths();
        let mut round = Round::of(&paths);
        let mut bytes = Vec::with_capacity(4096);
        let mut floor = || {
            bytes.clear();
            let path = paths[round.next()].as_str();
            let file = rustix::fs::openat(&root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .expect("open");
            rustix::io::pread(&file, spare_capacity(&mut bytes), 0).expect("pread")
        };
        assert_eq!(floor(), 4096);
        b.iter(|| black_box(floor()));
    });

    group.bench_function("sessile/512", |b| {
        let mut round = Round::of(&full.tokens);
        let mut load = || match full.store.load(&full.tokens[round.next()]) {
            Ok(Lookup::Live(live)) => live.record.entries.len(),
            other => panic!("a session is not live: {other:?}"),
        };
        assert_eq!(load(), 8);
        b.iter(|| black_box(load()));
    });
    group.finish();
}

/// Measures finding out that a well-formed id is unknown: `openat`, which fails, and a look whether the shard is there.
fn absent(c: &mut Criterion) {
    let full = LazyCell::new(|| Full::new(Durability::Relaxed));
    c.bench_function("load-absent/sessile/512", |b| {
        let unknown: Vec<_> =
            (0..1000).map(|_| SessionId::random().expect("random bits").to_token()).collect();
        let mut round = Round::of(&unknown);
        let mut load = || matches!(full.store.load(&unknown[round.next()]), Ok(Lookup::Absent(_)));
        assert!(load());
        b.iter(|| black_box(load()));
    });
}

criterion_group!(benches, uncached, absent);
criterion_main!(benches);
