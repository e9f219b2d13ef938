//! The sessions of a user: a creation and a login with the entry in the user index, beside a creation without a user;
//! a list of ten sessions among many.
mod common;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use sessile::{Durability, FileStoreOptions, Page, Rotation, Store, Verdict};
use std::hint::black_box;

/// The sessions of the user that is listed.
const OWN: usize = 10;

fn options() -> FileStoreOptions {
    FileStoreOptions::new().cache_bytes(0).watch(false)
}

/// Measures [`Store::create`] without and with a user, relaxed; each session has a user of its own.
fn create(c: &mut Criterion) {
    let mut group = c.benchmark_group("create-relaxed");
    for (name, has_user) in [("without-user/512", false), ("with-user/512", true)] {
        let dir = common::directory();
        let store = options().open(dir.path()).expect("a store");
        let record = common::record(&store);
        let mut n = 0_u64;
        let mut next = || {
            n += 1;
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
        let dir = common::directory();
        let store = options().open(dir.path()).expect("a store");
        let guest = common::record(&store).with_user("").expect("short");
        let mut n = 0_u64;
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    n += 1;
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
        let dir = common::directory();
        let store = options().sync_security_events(false).open(dir.path()).expect("a store");
        let record = common::record(&store);
        for n in 0..others {
            let record = record.clone().with_user(&format!("user-{}", n / OWN)).expect("short");
            store.create(&record, Durability::Relaxed).expect("a session");
        }
        let list = || store.sessions_of("user-7", &Page::default()).expect("a list");
        assert!(list().complete && list().sessions.len() == OWN);
        group.bench_function(format!("ten/among-{others}"), |b| b.iter(|| black_box(list())));
    }
    group.finish();
}

criterion_group! { name = benches; config = common::criterion(); targets = create, login, list }
criterion_main!(benches);
