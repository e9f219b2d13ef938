//! A store on a server whose server costs nothing: rows in the memory of this process. It is the ceiling of what the
//! same store can do on a real server, and its own share of the time there.
mod common;

use common::Visits;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sessile::rows::MemoryStore;
use sessile::{Durability, Lookup, Store, Token};
use std::hint::black_box;

fn filled() -> (Box<dyn Store>, Vec<Token>) {
    let store: Box<dyn Store> = Box::new(MemoryStore::new());
    let record = common::record(&*store);
    let tokens = (0..common::sessions())
        .map(|_| store.create(&record, Durability::Relaxed).expect("a session").token)
        .collect();
    (store, tokens)
}

fn rows(c: &mut Criterion) {
    let (store, tokens) = filled();
    let mut group = c.benchmark_group("rows");
    let hot = &tokens[..tokens.len().min(64)];
    for (name, of) in [("hot", hot), ("uniform", &tokens[..])] {
        let mut visits = Visits::uniform(of);
        group.bench_function(BenchmarkId::new("load", name), |b| {
            b.iter(|| {
                let found = store.load(visits.next()).expect("a load");
                assert!(matches!(black_box(found), Lookup::Live(_)));
            });
        });
        group.bench_function(BenchmarkId::new("update", name), |b| {
            b.iter(|| {
                let saved = common::count_visit(&*store, visits.next(), Durability::Relaxed);
                assert!(black_box(saved).is_some());
            });
        });
    }
    let record = common::record(&*store);
    group.bench_function("create and delete", |b| {
        b.iter(|| {
            let token = store.create(&record, Durability::Relaxed).expect("a session").token;
            assert!(store.delete(&token).expect("a deletion").is_some());
        });
    });
    group.finish();
}

criterion_group! { name = benches; config = common::criterion(); targets = rows }
criterion_main!(benches);
