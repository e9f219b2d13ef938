//! The sessions of a user: a creation and a login with the entry in the user index, beside a creation without a user;
//! a list of ten sessions among many; the end of all sessions of a user, beside a power-safe save.
mod common;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use sessile::{Durability, FileStore, FileStoreOptions, Lookup, Page, Rotation, Store, Verdict};
use std::cell::LazyCell;
use std::hint::black_box;
use std::time::Instant;

/// The sessions of the user that is listed.
const OWN: usize = 10;
/// The users who log in. Each has logged in before, because the first login in a bucket of the index makes its file.
const USERS: u64 = 500;

fn options() -> FileStoreOptions {
    FileStoreOptions::new().cache_bytes(0).watch(false)
}

/// A store in which each of the users has a session.
fn with_users() -> (tempfile::TempDir, FileStore) {
    let dir = common::directory();
    let store = options().open(dir.path()).expect("a store");
    for n in 0..USERS {
        let record = common::record(&store).with_user(&format!("user-{n}")).expect("short");
        store.create(&record, Durability::Relaxed).expect("a session");
    }
    (dir, store)
}

/// Measures [`Store::create`] without and with a user, relaxed.
fn create(c: &mut Criterion) {
    let mut group = c.benchmark_group("create-relaxed");
    for (name, has_user) in [("without-user/512", false), ("with-user/512", true)] {
        let (_dir, store) = with_users();
        let record = common::record(&store);
        let mut n = 0;
        let mut next = || {
            n = (n + 1) % USERS;
            record
                .clone()
                .with_user(&if has_user { format!("user-{n}") } else { String::new() })
                .expect("short")
        };
        assert_eq!(next().user().is_some(), has_user);
        group.bench_function(name, |b| {
            b.iter_batched(
                &mut next,
                |record| store.create(&record, Durability::Relaxed).expect("a session"),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Measures a login: [`Store::rotate`] of a session without a user, with and without setting one.
fn login(c: &mut Criterion) {
    let mut group = c.benchmark_group("rotate");
    group.sample_size(20);
    for (name, logs_in) in [("without-user/512", false), ("login/512", true)] {
        let (_dir, store) = with_users();
        let guest = common::record(&store).with_user("").expect("short");
        let mut n = 0;
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    n = (n + 1) % USERS;
                    (store.create(&guest, Durability::Relaxed).expect("a session").token, format!("user-{n}"))
                },
                |(token, user)| {
                    let how = Rotation::new(Durability::OfStore);
                    let how = if logs_in { how.login(&user) } else { how };
                    let mut change = |record: &mut sessile::Record| {
                        record.set_user(if logs_in { &user } else { "" }).map(|()| Verdict::Write)
                    };
                    store.rotate(&token, &mut change, &how).expect("a rotation").expect("it is live")
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Measures [`Store::sessions_of`] for a user with ten sessions, among few and among many sessions of other users. (The
/// target: at most 1 ms, and no slower among many than among few.)
fn list(c: &mut Criterion) {
    let mut group = c.benchmark_group("sessions-of");
    for others in [4_000, 8 * common::sessions()] {
        // Made only if it is measured, because that takes a minute.
        let filled = LazyCell::new(|| {
            let dir = common::directory();
            let store = options().sync_security_events(false).open(dir.path()).expect("a store");
            let record = common::record(&store);
            for n in 0..others {
                let record = record.clone().with_user(&format!("user-{}", n / OWN)).expect("short");
                store.create(&record, Durability::Relaxed).expect("a session");
            }
            (dir, store)
        });
        group.bench_function(format!("ten/among-{others}"), |b| {
            let list = || filled.1.sessions_of("user-7", &Page::default()).expect("a list");
            assert!(list().complete && list().sessions.len() == OWN);
            b.iter(|| black_box(list()));
        });
    }
    group.finish();
}

/// Measures [`Store::delete_of`] for a user with one session and with many, beside a power-safe save. (The target: as
/// fast for many as for one, and at most twice a power-safe save.) The first call, which ends all sessions of the user,
/// is timed and printed: the later ones end none.
fn delete_of(c: &mut Criterion) {
    let mut group = c.benchmark_group("delete-of");
    for sessions in [1, 2 * common::sessions()] {
        // Made only if it is measured. The saved session is another user's.
        let filled = LazyCell::new(|| {
            let dir = common::directory();
            let store = options().open(dir.path()).expect("a store");
            let record = common::record(&store);
            let saved = store.create(&record, Durability::PowerSafe).expect("a session").token;
            let record = record.with_user("ada").expect("short");
            let last = (0..sessions)
                .map(|_| store.create(&record, Durability::Relaxed).expect("a session").token)
                .last()
                .expect("one at least");
            // The sessions are written to the disk before the measurement. Nor is the first cut-off in a new log
            // measured, which syncs the log's name.
            rustix::fs::sync();
            store.delete_of("eve", None).expect("a cut-off");
            let began = Instant::now();
            store.delete_of("ada", None).expect("a cut-off");
            println!("delete-of/{sessions}: the first call took {:?}", began.elapsed());
            assert!(matches!(store.load(&last), Ok(Lookup::Absent(_))));
            (dir, store, saved)
        });
        group.bench_function(format!("save-power-safe/beside-{sessions}"), |b| {
            let (_, store, saved) = &*filled;
            b.iter(|| common::count_visit(store, saved, Durability::PowerSafe).expect("it is live"));
        });
        group.bench_function(format!("sessions-{sessions}"), |b| {
            b.iter(|| filled.1.delete_of("ada", None).expect("a cut-off"));
        });
    }
    group.finish();
}

criterion_group! { name = benches; config = common::criterion(); targets = create, login, list, delete_of }
criterion_main!(benches);
