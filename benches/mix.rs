//! The mix: the life of sessions of 512 bytes as one number. 90 % loads that read one entry, 8 % changes of one entry,
//! 1 % creations, 1 % ends, of sessions of which a few are used often (`common/mix.rs`).
//!
//! *relaxed*: neither saves nor ends wait for the disk, and there is memory for all sessions. *power-safe*: both wait.
//! *defaults*: a store that is opened without options: ends wait, and there are 32 MiB of memory. Times are per
//! operation of one thread; the throughput is that of all threads.
mod common;
#[path = "common/mix.rs"]
mod mix;

use common::Full;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mix::{Order, Population};
use sessile::{Durability, FileStore, FileStoreOptions, Lookup, Record, Store, Token};
use std::cell::LazyCell;

/// Operations whose results are asserted before the measurement. Among them are creations and ends.
const FIRST: usize = 500;

/// A store, as one thread uses it.
struct Client<'a> {
    store: &'a FileStore,
    record: &'a Record,
}

impl mix::Client<Token> for Client<'_> {
    fn load(&mut self, token: &Token) -> bool {
        let Lookup::Live(live) = self.store.load(token).expect("a load") else { return false };
        live.record.entries().get("visits").expect("it has one").get::<u64>().expect("a number") > 0
    }
    fn update(&mut self, token: &Token) -> bool {
        common::count_visit(self.store, token, Durability::OfStore).is_some()
    }
    fn create(&mut self) -> Token {
        self.store.create(self.record, Durability::OfStore).expect("a session").token
    }
    fn end(&mut self, token: &Token) -> bool {
        self.store.delete(token).expect("an end").is_some()
    }
}

/// Sessions in use, in a store.
struct Life {
    full: Full,
    record: Record,
    population: Population<Token>,
}

impl Life {
    fn new(options: FileStoreOptions, how: Durability, order: &Order) -> Self {
        let full = Full::with(options, common::sessions(), how);
        let population = Population::new(full.tokens.iter().cloned());
        let this = Self { record: common::record(&full.store), full, population };
        let mut client = this.client();
        let mut worker = this.population.worker(order, 0);
        (0..FIRST).for_each(|_| worker.step(&mut client));
        assert!(!this.population.ended.lock().is_empty());
        this.assert_no_end_is_undone();
        this
    }

    fn client(&self) -> Client<'_> {
        Client { store: &self.full.store, record: &self.record }
    }

    fn assert_no_end_is_undone(&self) {
        assert!(self.population.take_revived(&mut self.client()).is_empty(), "an ended session is alive");
    }
}

fn mix(c: &mut Criterion) {
    let all_in_memory = FileStoreOptions::new().cache_bytes(usize::MAX);
    let settings = [
        ("relaxed", all_in_memory.clone().sync_security_events(false), Durability::Relaxed),
        ("power-safe", all_in_memory, Durability::PowerSafe),
        ("defaults", FileStoreOptions::new(), Durability::Relaxed),
    ];
    let order = LazyCell::new(|| Order::new(common::sessions()));
    let mut group = c.benchmark_group("mix");
    group.sample_size(20);
    for (name, options, how) in settings {
        let life = LazyCell::new(|| Life::new(options, how, &order));
        let mut at = FIRST;
        for threads in [1, 8] {
            group.throughput(Throughput::Elements(threads as u64));
            let id = BenchmarkId::new("sessile", format!("{name}/512/{threads}-threads"));
            group.bench_function(id, |b| {
                let (life, order) = (&*life, &*order);
                b.iter_custom(|operations| {
                    let took = common::in_threads(threads, operations, |thread| {
                        let mut worker = life.population.worker(order, at + thread * 77_777);
                        let mut client = life.client();
                        move |_| worker.step(&mut client)
                    });
                    // The next sample continues where this one ended.
                    at += usize::try_from(operations).expect("fits");
                    took
                });
                life.assert_no_end_is_undone();
            });
        }
    }
    group.finish();
}

criterion_group!(name = benches; config = common::criterion(); targets = mix);
criterion_main!(benches);
