//! Ending a session: relaxed, and with its directory synced, beside `unlinkat` alone.
mod common;

use common::Full;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rustix::fs::{AtFlags, Mode, OFlags};
use sessile::{Durability, FileId, FileStoreOptions, Store, Token};
use std::cell::LazyCell;

/// How many are made before so many are ended: criterion measures them together.
const BATCH: u64 = 500;

fn token_of(full: &Full) -> Token {
    let record = common::record(&full.store);
    full.store.create(&record, Durability::Relaxed).expect("a session").token
}

/// Measures [`Store::delete`]; its floor is `unlinkat`, and `fsync` of the directory where the end is brought to the disk.
fn delete(c: &mut Criterion) {
    for (name, synced) in [("delete-relaxed", false), ("delete-power-safe", true)] {
        let options = FileStoreOptions::new().sync_security_events(synced);
        let full = LazyCell::new(|| Full::with(options.clone(), common::sessions(), Durability::Relaxed));
        let mut group = c.benchmark_group(name);
        if synced {
            group.sample_size(20);
        }
        let batches = BatchSize::NumIterations(if synced { 50 } else { BATCH });
        group.bench_function("floor/512", |b| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let root = rustix::fs::open(full.path(), flags, Mode::empty()).expect("the root");
            let setup = || {
                let hex = FileId::digest(token_of(&full).expose().as_bytes()).to_string();
                let shard = synced
                    .then(|| rustix::fs::openat(&root, &hex[..2], flags, Mode::empty()).expect("a shard"));
                (format!("{}/{}", &hex[..2], &hex[2..]), shard)
            };
            let unlink = |(path, shard): (String, Option<_>)| {
                rustix::fs::unlinkat(&root, path, AtFlags::empty()).expect("unlinkat");
                shard.inspect(|shard| rustix::fs::fsync(shard).expect("fsync"))
            };
            b.iter_batched(setup, unlink, batches);
        });
        group.bench_function("sessile/512", |b| {
            let end = |token: Token| assert!(full.store.delete(&token).expect("an end"), "it was there");
            b.iter_batched(|| token_of(&full), end, batches);
        });
        group.finish();
    }
}

criterion_group!(benches, delete);
criterion_main!(benches);
