//! The statements that an operation sends, their syncs and indexes, and the failures of the file itself.
use super::*;
use crate::error::ErrorKind;
use crate::record::Record;
use crate::store::{Change, Lookup, Rotation, Store, Verdict};
use crate::value::Value;
use crate::{Admin, SweepOptions, Token};
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use std::sync::atomic::AtomicUsize;
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn opened() -> (TempDir, Clock, SqliteStore) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(now()));
    let options = SqliteOptions::new().clock(clock.clone()).wait(Duration::from_millis(300));
    let store = options.open(dir.path().join("sessions.db")).unwrap();
    (dir, clock, store)
}

fn record(user: Option<&str>) -> Record {
    let record = Record::new(now(), now() + Duration::from_secs(3600));
    user.map_or(record.clone(), |user| record.with_user(user).unwrap())
}

fn create(store: &SqliteStore, user: Option<&str>) -> Token {
    store.create(&record(user), Durability::OfStore).unwrap().token
}

fn write(text: &'static str) -> impl FnMut(&mut Record) -> Result<Verdict> {
    move |record| {
        record.insert("text", &Value::new(text)?)?;
        Ok(Verdict::Write)
    }
}

fn update(store: &SqliteStore, token: &Token, change: Change<'_>) -> Result<bool> {
    Ok(store.update(token, change, Durability::OfStore)?.is_some())
}

fn is_live(store: &SqliteStore, token: &Token) -> bool {
    matches!(store.load(token).unwrap(), Lookup::Live(_))
}

/// Runs `run` with the connection that writes.
fn with_writer<T>(store: &SqliteStore, run: impl FnOnce(&mut Connection) -> T) -> T {
    store.rows().writer.with(Instant::now() + SOON, |connection| Ok(run(connection))).unwrap()
}

fn execute(store: &SqliteStore, text: &str) {
    with_writer(store, |connection| connection.sql_mut().execute_batch(text).unwrap());
}

/// The statements, as SQLite counts them.
fn traced(store: &SqliteStore) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let trace = move |event: TraceEvent<'_>| {
        if let TraceEvent::Stmt(..) = event {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    };
    with_writer(store, |connection| {
        connection.sql_mut().trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(trace)).unwrap();
    });
    count
}

#[test]
fn an_update_of_a_known_row_is_one_statement() {
    let (_dir, clock, store) = opened();
    let token = create(&store, Some("ada"));
    let count = traced(&store);
    let sent = |run: &mut dyn FnMut()| {
        count.store(0, Ordering::SeqCst);
        run();
        count.load(Ordering::SeqCst)
    };
    for text in ["a", "b", "c"] {
        clock.advance(Duration::from_secs(5));
        let statements = sent(&mut || assert!(update(&store, &token, &mut write(text)).unwrap()));
        assert_eq!(statements, 1, "{text}");
    }
    assert_eq!(sent(&mut || drop(create(&store, None))), 1);
    assert_eq!(sent(&mut || assert!(is_live(&store, &token))), 0, "reads have connections of their own");
    // BEGIN, the new row of the old id, the row of the new id, COMMIT; and the mode of syncs.
    let rotated = sent(&mut || {
        store.rotate(&token, &mut write("d"), &Rotation::default()).unwrap().unwrap();
    });
    assert_eq!(rotated, 5);
}

/// `PRAGMA synchronous` of the connection that writes: 1 is NORMAL, 2 is FULL.
fn synchronous(store: &SqliteStore) -> i64 {
    with_writer(store, |connection| connection.number("PRAGMA synchronous").unwrap())
}

#[test]
fn ends_rotations_and_power_safe_saves_are_synced_and_relaxed_saves_are_not() {
    const NORMAL: i64 = 1;
    const FULL: i64 = 2;
    let (_dir, _, store) = opened();
    assert_eq!(synchronous(&store), FULL, "the tables are made synced");
    let relax = || {
        let token = create(&store, Some("ada"));
        assert_eq!(synchronous(&store), NORMAL);
        token
    };
    let token = relax();
    assert!(update(&store, &token, &mut write("a")).unwrap());
    assert_eq!(synchronous(&store), NORMAL);
    store.update(&token, &mut write("b"), Durability::PowerSafe).unwrap().unwrap();
    assert_eq!(synchronous(&store), FULL);
    let token = relax();
    let how = Rotation::new(Durability::Relaxed);
    let token = store.rotate(&token, &mut write("c"), &how).unwrap().unwrap().token;
    assert_eq!(synchronous(&store), FULL);
    relax();
    store.delete(&token).unwrap().unwrap();
    assert_eq!(synchronous(&store), FULL);
    relax();
    store.delete_of("ada", None).unwrap();
    assert_eq!(synchronous(&store), FULL);
    relax();
    store.delete_all().unwrap();
    assert_eq!(synchronous(&store), FULL);
}

#[test]
fn a_full_file_refuses_saves_and_keeps_the_old_version() {
    let (_dir, _, store) = opened();
    let token = create(&store, None);
    assert!(update(&store, &token, &mut write("old")).unwrap());
    let pages = with_writer(&store, |connection| connection.number("PRAGMA page_count").unwrap());
    let limit = |pages: i64| execute(&store, &format!("PRAGMA max_page_count = {pages}"));
    limit(pages);
    let large = "x".repeat(100_000);
    let mut grow = |record: &mut Record| {
        record.insert("large", &Value::new(&large)?)?;
        Ok(Verdict::Write)
    };
    let kinds = [update(&store, &token, &mut grow).unwrap_err().kind(), {
        limit(pages);
        store.rotate(&token, &mut grow, &Rotation::default()).map(drop).unwrap_err().kind()
    }];
    assert_eq!(kinds, [ErrorKind::Full; 2]);
    let Lookup::Live(live) = store.load(&token).unwrap() else { panic!("it is live") };
    let text: String = live.record.entries().get("text").unwrap().get().unwrap();
    assert_eq!((text.as_str(), live.record.entry_count()), ("old", 1));
    // The connection that has failed is not used again, and so the limit is gone with it.
    assert!(update(&store, &token, &mut grow).unwrap());
    assert!(store.delete(&token).unwrap().is_some());
}

#[test]
fn another_writer_is_waited_for_until_the_limit_and_stops_no_reader() {
    let (dir, _, store) = opened();
    let token = create(&store, None);
    let other = rusqlite::Connection::open(dir.path().join("sessions.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = Instant::now();
    let ends: [Result<bool>; 4] = [
        update(&store, &token, &mut write("a")),
        store.create(&record(None), Durability::OfStore).map(|_| true),
        store.rotate(&token, &mut write("a"), &Rotation::default()).map(|saved| saved.is_some()),
        store.delete(&token).map(|ended| ended.is_some()),
    ];
    for (number, end) in ends.into_iter().enumerate() {
        assert_eq!(end.unwrap_err().kind(), ErrorKind::Busy, "call {number}");
    }
    assert!(began.elapsed() >= Duration::from_secs(1), "each has waited for about its limit");
    assert!(is_live(&store, &token));
    other.execute_batch("ROLLBACK").unwrap();
    assert!(update(&store, &token, &mut write("b")).unwrap());
    // It is waited for, and then done.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|scope| {
        let saved = scope.spawn(|| update(&store, &token, &mut write("c")).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        other.execute_batch("COMMIT").unwrap();
        assert!(saved.join().unwrap());
    });
}

#[test]
fn sweeps_and_lists_go_by_an_index_and_sort_nothing() {
    let (_dir, _, store) = opened();
    let statements = Arc::clone(&store.rows().statements);
    for (statement, index) in [
        (&statements.sweeps.due, "sessions_due (due<?)"),
        (&statements.of_user, "sessions_owner (owner=? AND id>?)"),
        (&statements.sweeps.cut_off_of_user, "sessions_owner (owner=?)"),
        (&statements.select, "PRIMARY KEY (id=?)"),
        (&statements.scan, "PRIMARY KEY (id>?)"),
        (&statements.sweeps.remove, "PRIMARY KEY (id=?)"),
    ] {
        let plan = with_writer(&store, |connection| {
            let mut prepared =
                connection.sql_mut().prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
            let nothing = vec![rusqlite::types::Null; prepared.parameter_count()];
            let rows = prepared.query_map(rusqlite::params_from_iter(nothing), |row| row.get::<_, String>(3));
            rows.unwrap().map(|row| row.unwrap()).collect::<Vec<_>>().join("; ")
        });
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{statement}\n{plan}");
    }
}

#[test]
fn a_sweep_reads_the_sessions_of_a_cut_off_user_once() {
    let (_dir, _, store) = opened();
    let stale =
        || with_writer(&store, |connection| connection.number("SELECT sum(stale) FROM sessile_cutoffs").ok());
    let sweep = || store.sweep(&SweepOptions::new()).unwrap().removed;
    let tokens: Vec<_> = (0..500).map(|_| create(&store, Some("ada"))).collect();
    create(&store, Some("bob"));
    assert_eq!(sweep(), 0);
    store.delete_of("ada", Some(&tokens[7])).unwrap();
    assert_eq!((sweep(), store.count().unwrap(), stale()), (499, 2, Some(0)));
    // A session that was given to a user without a login has begun before all cut-offs of that user.
    let token = create(&store, None);
    let mut change = |record: &mut Record| record.set_user("ada").map(|()| Verdict::Write);
    assert!(update(&store, &token, &mut change).unwrap());
    assert_eq!((is_live(&store, &token), stale()), (false, Some(1)));
    assert_eq!((sweep(), stale()), (1, Some(0)));
    store.delete_all().unwrap();
    assert_eq!((sweep(), store.count().unwrap(), stale()), (2, 0, Some(0)));
}

#[test]
fn a_store_on_a_file_system_of_other_hosts_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sessions.db");
    for (magic, name) in [(0x6969, "NFS"), (0x6573_5546, "FUSE"), (0xff53_4d42, "SMB")] {
        let refused = crate::file_system::pretending(magic, || SqliteStore::open(&path)).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
        assert!(refused.to_string().contains(name), "{refused}");
        assert!(!path.exists());
    }
}

#[test]
fn a_child_of_a_fork_closes_no_connection() {
    let (dir, _, store) = opened();
    create(&store, None);
    // The connections as a child would have them. (If one of them were closed, the log would be removed with the last.)
    let path: Arc<Path> = std::fs::canonicalize(dir.path()).unwrap().join("sessions.db").into();
    drop(store);
    assert!(!dir.path().join("sessions.db-wal").exists(), "the last one has removed it");
    let guard = Arc::new(crate::fork::ForkGuard::of_another_process());
    let until = Instant::now() + SOON;
    let child = Connection::open(&path, connection::Role::Writer, &guard, until).unwrap();
    child.execute("UPDATE sessile_schema SET version = 1", &[]).unwrap();
    drop(child);
    assert!(dir.path().join("sessions.db-wal").exists());
}
