//! A store on a server whose server costs nothing: rows in the memory of this process. It is the ceiling of what the
//! same store can do on a real server, and its own share of the time there. Beside it, a store in a database file, and
//! the floor of that: the same statements on a connection, without a store.
mod common;

use common::Visits;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rusqlite::Connection;
use sessile::database::SqliteStore;
use sessile::rows::MemoryStore;
use sessile::{Durability, Lookup, PublicId, Store, Token};
use std::hint::black_box;

fn fill(store: &dyn Store) -> Vec<Token> {
    let record = common::record(store);
    let create = |_| store.create(&record, Durability::Relaxed).expect("a session").token;
    (0..common::sessions()).map(create).collect()
}

fn hot(tokens: &[Token]) -> &[Token] {
    &tokens[..tokens.len().min(64)]
}

fn measure(c: &mut Criterion, name: &str, store: &dyn Store, tokens: &[Token]) {
    let mut group = c.benchmark_group(name);
    for (name, of) in [("hot", hot(tokens)), ("uniform", tokens)] {
        let mut visits = Visits::uniform(of);
        group.bench_function(BenchmarkId::new("load", name), |b| {
            b.iter(|| {
                let found = store.load(visits.next()).expect("a load");
                assert!(matches!(black_box(found), Lookup::Live(_)));
            });
        });
        group.bench_function(BenchmarkId::new("update", name), |b| {
            b.iter(|| {
                let saved = common::count_visit(store, visits.next(), Durability::Relaxed);
                assert!(black_box(saved).is_some());
            });
        });
    }
    let record = common::record(store);
    group.bench_function("create and delete", |b| {
        b.iter(|| {
            let token = store.create(&record, Durability::Relaxed).expect("a session").token;
            assert!(store.delete(&token).expect("a deletion").is_some());
        });
    });
    group.finish();
}

fn rows(c: &mut Criterion) {
    let store = MemoryStore::new();
    let tokens = fill(&store);
    measure(c, "rows", &store, &tokens);
}

const SELECT: &str = "SELECT s.id, s.tag, s.tags, s.deadline, s.owner, s.cut_user, s.cut_all, s.moved_to, s.payload, \
    coalesce((SELECT c.n FROM sessile_cutoffs AS c WHERE c.owner = s.owner), 0), \
    coalesce((SELECT c.n FROM sessile_cutoffs AS c WHERE c.owner = zeroblob(16)), 0) \
    FROM sessile_sessions AS s WHERE s.id = ?1";
const UPDATE: &str = "UPDATE sessile_sessions AS s SET tag = ?2, tags = ?3, deadline = ?4, cut_user = 0, cut_all = 0, \
    payload = ?5 WHERE s.id = ?1 AND s.tag <> ?2 AND s.due <= ?4 \
    AND s.cut_user >= coalesce((SELECT c.n FROM sessile_cutoffs AS c WHERE c.owner = s.owner), 0) \
    AND s.cut_all >= coalesce((SELECT c.n FROM sessile_cutoffs AS c WHERE c.owner = zeroblob(16)), 0)";

/// The statements of a load and an update, and nothing else: no checksum, no codec, no look at the file's name.
fn bare(c: &mut Criterion, path: &std::path::Path, tokens: &[Token]) {
    let sql = Connection::open(path).expect("a database");
    sql.execute_batch("PRAGMA synchronous = NORMAL").expect("a setting");
    let mut group = c.benchmark_group("sqlite statements");
    let payload = vec![7; 560];
    let id_of = |token: &Token| *PublicId::digest(token.expose().as_bytes()).as_bytes();
    let mut tag = 1_i64 << 62;
    for (name, of) in [("hot", hot(tokens)), ("uniform", tokens)] {
        let mut visits = Visits::uniform(of);
        group.bench_function(BenchmarkId::new("load", name), |b| {
            b.iter(|| {
                let mut statement = sql.prepare_cached(SELECT).expect("a statement");
                let id = id_of(visits.next());
                let mut rows = statement.query([&id[..]]).expect("a query");
                let row = rows.next().expect("a row").expect("a row");
                assert!(black_box(row.get_ref(8).expect("a payload").as_blob().expect("bytes").len()) > 100);
            });
        });
        group.bench_function(BenchmarkId::new("update", name), |b| {
            b.iter(|| {
                tag += 1;
                let (id, deadline) = (id_of(visits.next()), i64::MAX);
                let mut statement = sql.prepare_cached(UPDATE).expect("a statement");
                let parameters = (&id[..], tag, &[1_u8; 64][..], deadline, &payload);
                assert_eq!(statement.execute(parameters).expect("an update"), 1);
            });
        });
    }
    group.finish();
}

fn sqlite(c: &mut Criterion) {
    let dir = common::directory();
    let path = dir.path().join("sessions.db");
    let store = SqliteStore::open(&path).expect("a store");
    let tokens = fill(&store);
    measure(c, "sqlite", &store, &tokens);
    bare(c, &path, &tokens);
}

criterion_group! { name = benches; config = common::criterion(); targets = rows, sqlite }
criterion_main!(benches);
