//! Saving one existing session of 512 bytes. The floors write the same number of bytes to files of the same
//! size, in place.
mod common;

use common::{Full, Round};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use sessile::{Durability, FileStoreOptions, PublicId, Record, Result, Store, Timing, Token, Value, Verdict};
use std::cell::LazyCell;
use std::hint::black_box;
use std::time::Duration;

/// The used bytes of a slot of these sessions: 128 bytes of prefix and 512 of payload.
const SLOT: [u8; 128 + 512] = [1; 640];

fn open(root: &OwnedFd, path: &str) -> OwnedFd {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOATIME;
    rustix::fs::openat(root, path, flags, Mode::empty()).expect("open")
}

/// Counts a visit. The number of entries of the session.
fn count_visit(full: &Full, token: &Token, how: Durability) -> usize {
    common::count_visit(&full.store, token, how).expect("a live session").live.record.entries().len()
}

/// Measures a save that only reaches the kernel: `openat`, `pwrite`, `close`, and the same with the `pread`
/// that a read-modify-write needs; beside them, [`Store::update`] with [`Durability::Relaxed`].
fn relaxed(c: &mut Criterion) {
    let raw = LazyCell::new(|| Full::with(FileStoreOptions::new(), common::sessions(), Durability::Relaxed));
    let full = LazyCell::new(|| {
        Full::with(FileStoreOptions::new().cache_bytes(0), common::sessions(), Durability::Relaxed)
    });
    let in_memory = LazyCell::new(|| {
        Full::with(FileStoreOptions::new().cache_bytes(usize::MAX), common::sessions(), Durability::Relaxed)
    });
    let mut group = c.benchmark_group("update-relaxed");
    let paths = LazyCell::new(|| raw.paths());
    let mut round = Round::below(common::sessions());

    group.bench_function("floor-write/512", |b| {
        let (root, paths) = &*paths;
        b.iter(|| {
            let file = open(root, &paths[round.next()]);
            rustix::io::pwrite(&file, black_box(&SLOT), 2048).expect("pwrite")
        });
    });

    group.bench_function("floor-read-write/512", |b| {
        let (root, paths) = &*paths;
        let mut bytes = [0; 4096];
        b.iter(|| {
            let file = open(root, &paths[round.next()]);
            rustix::io::pread(&file, &mut bytes, 0).expect("pread");
            rustix::io::pwrite(&file, black_box(&SLOT), 2048).expect("pwrite")
        });
    });

    group.bench_function("sessile/512", |b| {
        assert_eq!(count_visit(&full, &full.tokens[0], Durability::Relaxed), 8);
        b.iter(|| count_visit(&full, &full.tokens[round.next()], Durability::Relaxed));
    });

    // The store has every session in memory, so it verifies and decodes no version.
    group.bench_function("sessile-in-memory/512", |b| {
        assert_eq!(count_visit(&in_memory, &in_memory.tokens[0], Durability::Relaxed), 8);
        b.iter(|| count_visit(&in_memory, &in_memory.tokens[round.next()], Durability::Relaxed));
    });
    group.finish();
}

/// Measures a save that reaches the disk: `openat`, `pwrite`, `fdatasync`, `close`; beside it,
/// [`Store::update`] with [`Durability::PowerSafe`]. The disk determines the time.
fn power_safe(c: &mut Criterion) {
    // Few sessions, saved repeatedly: the first power-safe save after a relaxed one has to sync twice.
    const HOT: usize = 200;
    let raw = LazyCell::new(|| Full::with(FileStoreOptions::new(), HOT, Durability::PowerSafe));
    let full = LazyCell::new(|| Full::with(FileStoreOptions::new(), HOT, Durability::PowerSafe));
    let mut group = c.benchmark_group("update-power-safe");
    let paths = LazyCell::new(|| raw.paths());
    let mut round = Round::below(HOT);

    group.bench_function("floor/512", |b| {
        let (root, paths) = &*paths;
        b.iter(|| {
            let file = open(root, &paths[round.next()]);
            rustix::io::pwrite(&file, black_box(&SLOT), 2048).expect("pwrite");
            rustix::fs::fdatasync(&file).expect("fdatasync");
        });
    });

    group.bench_function("sessile/512", |b| {
        assert_eq!(count_visit(&full, &full.tokens[0], Durability::PowerSafe), 8);
        b.iter(|| count_visit(&full, &full.tokens[round.next()], Durability::PowerSafe));
    });
    group.finish();
}

/// Measures a new session: `openat` of a file that must not exist, `pwrite` of both its slots, `close`;
/// beside it, [`Store::create`], which also inserts the session into the expiry index.
fn create(c: &mut Criterion) {
    let full = LazyCell::new(|| {
        Full::with(FileStoreOptions::new().cache_bytes(0), common::sessions(), Durability::Relaxed)
    });
    let mut group = c.benchmark_group("create");
    let paths = LazyCell::new(|| full.paths());
    let mut made = 0_u64;
    group.bench_function("floor/512", |b| {
        let (root, _) = &*paths;
        b.iter(|| {
            made += 1;
            let id = PublicId::digest(&made.to_le_bytes()).to_string();
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let path = format!("{}/{}", &id[..2], &id[2..]);
            let file = rustix::fs::openat(root, path, flags, Mode::RUSR | Mode::WUSR).expect("create");
            rustix::io::pwrite(&file, black_box(&[1; 4096]), 0).expect("pwrite")
        });
    });
    group.bench_function("sessile/512", |b| {
        let record = common::record(&full.store);
        b.iter(|| full.store.create(black_box(&record), Durability::Relaxed).expect("a session"));
    });
    // As in a program: with a cache, and with a watcher, which is notified of each new file.
    #[cfg(feature = "watch")]
    group.bench_function("sessile-watched/512", |b| {
        let watching = FileStoreOptions::new().open(full.path()).expect("the same store");
        assert_eq!(watching.watch_error().map(ToString::to_string), None);
        let record = common::record(&watching);
        b.iter(|| watching.create(black_box(&record), Durability::Relaxed).expect("a session"));
    });
    group.finish();
}

/// Measures saves of other shapes: one entry of 50, a save that needs a larger file, and a save that only
/// moves the deadline.
fn shapes(c: &mut Criterion) {
    const RELAXED: Durability = Durability::Relaxed;
    let store = LazyCell::new(|| Full::with(FileStoreOptions::new(), 10, RELAXED));
    let create = |record: &Record| store.store.create(record, RELAXED).expect("a session").token;
    let update = |token: &Token, change: &mut dyn FnMut(&mut Record) -> Result<Verdict>| {
        store.store.update(token, change, RELAXED).expect("an update").expect("it is live")
    };
    let mut group = c.benchmark_group("update-shapes");

    group.bench_function("sessile/one-of-50-entries", |b| {
        let mut record = Record::new(store.store.now(), common::record(&store.store).deadline());
        for n in 0..50_u64 {
            record.insert(&format!("entry {n}"), &Value::new(&n).expect("a value")).expect("it fits");
        }
        let token = create(&record);
        b.iter(|| {
            update(&token, &mut |record| {
                let n: u64 = record.entries().get("entry 25").expect("it has one").get()?;
                record.insert("entry 25", &Value::new(&(n + 1))?)?;
                Ok(Verdict::Write)
            })
        });
    });

    group.bench_function("sessile/grow", |b| {
        // A file never shrinks, so each round grows a new session.
        let grow = |token: Token| {
            let text = Value::new(&"x".repeat(6000)).expect("a value");
            update(&token, &mut |record| {
                record.insert("text", &text)?;
                Ok(Verdict::Write)
            })
        };
        b.iter_batched(|| create(&common::record(&store.store)), grow, BatchSize::NumIterations(100));
    });

    group.bench_function("sessile/renewal", |b| {
        let token = create(&common::record(&store.store));
        b.iter(|| {
            update(&token, &mut |record| {
                record.set_timing(Timing {
                    deadline: record.timing().deadline + Duration::from_secs(1),
                    ..record.timing()
                });
                Ok(Verdict::Write)
            })
        });
    });
    group.finish();
}

criterion_group!(name = benches; config = common::criterion(); targets = relaxed, power_safe, create, shapes);
criterion_main!(benches);
