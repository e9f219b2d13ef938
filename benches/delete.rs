//! Deleting a session: relaxed, and with its directory synced, beside `unlinkat` alone.
mod common;

use common::Full;
use criterion::{Criterion, criterion_group, criterion_main};
use rustix::fs::{AtFlags, Mode, OFlags};
use sessile::{Durability, FileStoreOptions, PublicId, Store, Token};
use std::cell::LazyCell;
use std::time::{Duration, Instant};

/// How many sessions are created before they are deleted.
const BATCH: u64 = 500;

/// Measures [`Store::delete`]; its floor is `unlinkat`, and `fsync` of the directory where the deletion is
/// synced.
fn delete(c: &mut Criterion) {
    for (name, synced) in [("delete-relaxed", false), ("delete-power-safe", true)] {
        // Without a cache, and so without a watcher, which would be notified of the floor's removals as well.
        let options = FileStoreOptions::new().cache_bytes(0).sync_security_events(synced);
        let full = LazyCell::new(|| Full::with(options.clone(), common::sessions(), Durability::Relaxed));
        // Measures `end` for a batch of sessions, which were created and written to the disk before the
        // measurement, as ending sessions usually were.
        let in_batches = |count: u64, end: &dyn Fn(&[Token]) -> Duration| -> Duration {
            let batch = |size: u64| {
                let record = common::record(&full.store);
                let make = |_| full.store.create(&record, Durability::Relaxed).expect("a session").token;
                let tokens: Vec<_> = (0..size).map(make).collect();
                rustix::fs::sync();
                end(&tokens)
            };
            (0..count.div_ceil(BATCH)).map(|n| batch(BATCH.min(count - n * BATCH))).sum()
        };
        let mut group = c.benchmark_group(name);
        if synced {
            group.sample_size(20);
        }
        group.bench_function("floor/512", |b| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let root = rustix::fs::open(full.path(), flags, Mode::empty()).expect("the root");
            let path_and_shard = |token: &Token| {
                let hex = PublicId::digest(token.expose().as_bytes()).to_string();
                let shard = synced
                    .then(|| rustix::fs::openat(&root, &hex[..2], flags, Mode::empty()).expect("a shard"));
                (format!("{}/{}", &hex[..2], &hex[2..]), shard)
            };
            b.iter_custom(|count| {
                in_batches(count, &|tokens| {
                    let files: Vec<_> = tokens.iter().map(path_and_shard).collect();
                    let began = Instant::now();
                    for (path, shard) in &files {
                        rustix::fs::unlinkat(&root, path, AtFlags::empty()).expect("unlinkat");
                        shard.as_ref().inspect(|shard| rustix::fs::fsync(shard).expect("fsync"));
                    }
                    began.elapsed()
                })
            });
        });
        group.bench_function("sessile/512", |b| {
            b.iter_custom(|count| {
                in_batches(count, &|tokens| {
                    let began = Instant::now();
                    for token in tokens {
                        assert!(full.store.delete(token).expect("a deletion").is_some(), "it was there");
                    }
                    began.elapsed()
                })
            });
        });
        group.finish();
    }
}

criterion_group!(name = benches; config = common::criterion(); targets = delete);
criterion_main!(benches);
