//! The codec alone, without a file: a slot's bytes from a record and a record from a slot's bytes, for the
//! usual session of 512 bytes and for one of 4 KiB. The floors are the checksum of the same bytes, which is
//! the minimum cost of an intact record, and a copy of them.
mod common;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sessile::file::internals::{checksum, decode, encode};
use sessile::{FileStore, PublicId, Record, Value};
use std::hint::black_box;

/// The usual session, and the same with a longer text.
fn records() -> [(usize, Record); 2] {
    let dir = common::directory();
    let usual = common::record(&FileStore::open(dir.path()).expect("a store"));
    let mut long = usual.clone();
    long.insert("zz_filler", &Value::new(&"x".repeat(278 + 4096 - 512)).expect("a value")).expect("it fits");
    [(512, usual), (4096, long)]
}

/// Measures [`encode`] and [`decode`].
fn record(c: &mut Criterion) {
    let id = PublicId::digest(b"a session");
    for (bytes, record) in records() {
        let encoded = encode(&record, &id).expect("it fits");
        let mut slot = encoded.clone();
        slot.resize(encoded.len().next_power_of_two().max(2048), 0);
        assert_eq!(decode(&slot, &id).expect("intact"), record);

        let mut group = c.benchmark_group("record");
        group.throughput(Throughput::Bytes(encoded.len() as u64));
        group.bench_function(BenchmarkId::new("floor-checksum", bytes), |b| {
            b.iter(|| checksum(black_box(&encoded), &id));
        });
        group.bench_function(BenchmarkId::new("floor-copy", bytes), |b| {
            b.iter(|| black_box(encoded.as_slice()).to_vec());
        });
        group.bench_function(BenchmarkId::new("sessile-encode", bytes), |b| {
            b.iter(|| encode(black_box(&record), &id).expect("it fits"));
        });
        group.bench_function(BenchmarkId::new("sessile-decode", bytes), |b| {
            b.iter(|| decode(black_box(&slot), &id).expect("intact"));
        });
        group.finish();
    }
}

criterion_group!(name = benches; config = common::criterion(); targets = record);
criterion_main!(benches);
