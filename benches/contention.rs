//! Several threads at the same time: each on its own sessions, and all on the same session.
//!
//! Times are per operation of one thread: with as many cores as threads and no shared data they stay the
//! same.
mod common;

use common::Full;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sessile::{Durability, FileStoreOptions, Lookup, Store, Token};
use std::cell::LazyCell;
use std::hint::black_box;

const THREADS: [usize; 4] = [1, 2, 4, 8];

fn load(full: &Full, token: &Token) {
    match full.store.load(token) {
        Ok(Lookup::Live(live)) => assert_eq!(black_box(live.record.entries().len()), 8),
        other => panic!("a session is not live: {other:?}"),
    }
}

fn update(full: &Full, token: &Token) {
    assert!(common::count_visit(&full.store, token, Durability::Relaxed).is_some());
}

type Operation = fn(&Full, &Token);

/// Measures loads from memory and relaxed updates.
fn contention(c: &mut Criterion) {
    let full = LazyCell::new(|| {
        let options = FileStoreOptions::new().cache_bytes(usize::MAX);
        let full = Full::with(options, common::sessions(), Durability::Relaxed);
        full.tokens.iter().for_each(|token| load(&full, token));
        full
    });
    for (name, operation) in [("load", load as Operation), ("update", update as Operation)] {
        for hot in [false, true] {
            let mut group =
                c.benchmark_group(format!("contention-{name}-{}", if hot { "one" } else { "distinct" }));
            group.sample_size(20);
            for threads in THREADS {
                let mut done = 0;
                group.bench_function(BenchmarkId::new("sessile", format!("{threads}-threads")), |b| {
                    let full = &*full;
                    let part = (full.tokens.len() / THREADS[3]).max(1);
                    let own = |thread: usize, n: usize| &full.tokens[thread * part + n * 7919 % part];
                    let token = |thread, n| if hot { &full.tokens[0] } else { own(thread, n) };
                    b.iter_custom(|operations| {
                        let took = common::in_threads(threads, operations, |thread| {
                            move |n| operation(full, token(thread, done + n))
                        });
                        // The next sample continues where this one ended.
                        done += usize::try_from(operations).expect("fits");
                        took
                    });
                });
            }
            group.finish();
        }
    }
}

criterion_group!(name = benches; config = common::criterion(); targets = contention);
criterion_main!(benches);
