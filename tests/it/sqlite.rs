//! Sessions in a database file: several processes on one file, damage, permissions, removed files, and other versions.
//! The promises of every store are in `contract`, the random tests in `tests/hammer/sqlite.rs`.
use crate::support::process::{Parent, Start, Worker, hear_from_all, say_to_all};
use crate::support::rerun::{again_as_nobody, stage};
use crate::support::texts::directory_in_memory;
use parking_lot::Mutex;
use rusqlite::Connection;
use sessile::admin::Scanned;
use sessile::database::{SqliteOptions, SqliteStore};
use sessile::store_url::StoreUrl;
use sessile::{
    Admin, Cookies, Durability, ErrorKind, Event, Lookup, PublicId, Record, Result, Rotation, Sessions,
    Store, SweepOptions, Token, Value, Verdict,
};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

pub(crate) const WORKERS: &[(&str, Worker)] =
    &[("increment rows", increment_rows), ("open a database", open_a_database)];

const HOUR: Duration = Duration::from_secs(3600);

fn file_in(dir: &TempDir) -> PathBuf {
    dir.path().join("sessions.db")
}

fn record(user: Option<&str>) -> Record {
    let now = SystemTime::now();
    let mut record = Record::new(now, now + HOUR);
    if let Some(user) = user {
        record.set_user(user).unwrap();
    }
    record.insert("n", &Value::new(&0_u64).unwrap()).unwrap();
    record
}

fn create(store: &dyn Store, user: Option<&str>) -> Token {
    store.create(&record(user), Durability::OfStore).unwrap().token
}

fn n(record: &Record) -> u64 {
    record.entries().get("n").unwrap().get().unwrap()
}

fn add_one(record: &mut Record) -> Result<Verdict> {
    let next = n(record) + 1;
    record.insert("n", &Value::new(&next)?)?;
    Ok(Verdict::Write)
}

fn load(store: &dyn Store, token: &Token) -> Result<Option<u64>> {
    Ok(match store.load(token)? {
        Lookup::Live(live) => Some(n(&live.record)),
        Lookup::Absent(_) => None,
    })
}

fn update(store: &dyn Store, token: &Token) -> Result<Option<u64>> {
    Ok(store.update(token, &mut add_one, Durability::OfStore)?.map(|saved| n(&saved.live.record)))
}

fn id_of(token: &Token) -> PublicId {
    PublicId::digest(token.expose().as_bytes())
}

const PROCESSES: u64 = 2;
const THREADS: u64 = 4;
const INCREMENTS: u64 = 500;

/// Four threads increment one session.
fn increment_rows(parent: &Parent) {
    let options = SqliteOptions::new().wait(Duration::from_secs(60));
    let store = options.open(parent.argument("FILE")).unwrap();
    parent.report("ready");
    let token = Token::parse(&parent.line()).unwrap();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..INCREMENTS).for_each(|_| assert!(update(&store, &token).unwrap().is_some())));
        }
    });
    parent.report("done");
}

#[test]
fn increments_of_two_processes_and_their_threads_all_count() {
    let dir = directory_in_memory();
    let store = SqliteStore::open(file_in(&dir)).unwrap();
    let token = create(&store, Some("ada"));
    let start = |_| Start::of("increment rows").with("FILE", file_in(&dir)).start();
    let mut children: Vec<_> = (0..PROCESSES).map(start).collect();
    hear_from_all(&children, "ready");
    say_to_all(&mut children, token.expose());
    hear_from_all(&children, "done");
    assert_eq!(load(&store, &token).unwrap(), Some(PROCESSES * THREADS * INCREMENTS));
}

fn open_a_database(parent: &Parent) {
    parent.report("ready");
    assert_eq!(parent.line(), "go");
    let store = SqliteStore::open(parent.argument("FILE")).unwrap();
    let token = create(&store, None);
    parent.report(token.expose());
}

#[test]
fn four_processes_may_make_the_file_at_once() {
    for _ in 0..5 {
        let dir = directory_in_memory();
        let start = |_| Start::of("open a database").with("FILE", file_in(&dir)).start();
        let mut children: Vec<_> = (0..4).map(start).collect();
        hear_from_all(&children, "ready");
        say_to_all(&mut children, "go");
        let tokens: Vec<_> = children.iter().map(|child| Token::parse(&child.line()).unwrap()).collect();
        let store = SqliteOptions::new().create(false).open(file_in(&dir)).unwrap();
        for token in &tokens {
            assert_eq!(load(&store, token).unwrap(), Some(0));
        }
        assert_eq!(store.count().unwrap(), 4);
    }
}

/// A change of a column that a failing disk or another program could make.
const DAMAGES: [&str; 12] = [
    "payload = substr(payload, 1, length(payload) - 1)",
    "payload = zeroblob(length(payload))",
    "payload = (SELECT payload FROM sessile_sessions WHERE id = ?2)",
    "tag = tag + 1",
    "tags = zeroblob(64)",
    "deadline = deadline + 1",
    "owner = NULL",
    "owner = zeroblob(16)",
    "cut_user = cut_user + 1",
    "cut_all = 7",
    "cut_user = -1",
    "moved_to = zeroblob(20)",
];

#[test]
fn a_damaged_row_is_never_served_and_disturbs_no_other() {
    let dir = directory_in_memory();
    let (store, other) =
        (SqliteStore::open(file_in(&dir)).unwrap(), SqliteStore::open(file_in(&dir)).unwrap());
    let raw = Connection::open(file_in(&dir)).unwrap();
    for damage in DAMAGES {
        let [token, whole] = [(); 2].map(|()| create(&store, Some("ada")));
        let [id, beside] = [&token, &whole].map(|token| id_of(token).as_bytes().to_vec());
        let statement = format!("UPDATE sessile_sessions SET {damage} WHERE id = ?1 AND (?2 = ?2)");
        assert_eq!(raw.execute(&statement, (&id, &beside)).unwrap(), 1);
        // The other store has not seen the row, and so makes no guess.
        for refused in [
            load(&other, &token).map(drop),
            update(&other, &token).map(drop),
            other.rotate(&token, &mut add_one, &Rotation::default()).map(drop),
        ] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt, "{damage}");
        }
        let page = other.scan(None, 10).unwrap();
        let damaged: Vec<_> =
            page.sessions.iter().filter(|found| matches!(found, Scanned::Damaged(_))).collect();
        assert_eq!((damaged.len(), damaged[0].id()), (1, id_of(&token)), "{damage}");
        let listed = other.sessions_of("ada", &sessile::Page::default()).unwrap().sessions;
        assert_eq!(listed.iter().map(|session| session.id).collect::<Vec<_>>(), [id_of(&whole)], "{damage}");
        assert_eq!(update(&other, &whole).unwrap(), Some(1), "{damage}");
        // It ends as others do.
        assert_eq!(other.delete(&token).unwrap(), None, "{damage}: it was not live");
        assert_eq!(load(&other, &token).unwrap(), None, "{damage}");
        assert!(other.delete(&whole).unwrap().is_some());
        assert_eq!(other.count().unwrap(), 0, "{damage}");
    }
}

/// A smaller number of cut-offs ends a session, and a sweep removes it: nothing revives one.
#[test]
fn a_damaged_number_of_cut_offs_revives_no_session() {
    let dir = directory_in_memory();
    let store = SqliteStore::open(file_in(&dir)).unwrap();
    let raw = Connection::open(file_in(&dir)).unwrap();
    let ended = create(&store, Some("ada"));
    store.delete_of("ada", None).unwrap();
    store.delete_of("ada", None).unwrap();
    let live = create(&store, Some("ada"));
    for number in [0, 1, 3, 70_000] {
        raw.execute("UPDATE sessile_sessions SET cut_user = ?1", [number]).unwrap();
        for token in [&ended, &live] {
            assert!(!matches!(load(&store, token), Ok(Some(_))), "{number}");
        }
    }
}

#[test]
fn other_files_and_versions_are_refused_and_left_alone() {
    let dir = directory_in_memory();
    let path = file_in(&dir);
    let open = || SqliteStore::open(&path).err().map(|error| (error.kind(), error.to_string()));
    fs::write(&path, "no database, but a long text ".repeat(1000)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let before = fs::read(&path).unwrap();
    assert_eq!(open().unwrap().0, ErrorKind::Corrupt);
    assert_eq!(fs::read(&path).unwrap(), before);
    fs::remove_file(&path).unwrap();
    // Tables of a program's own are left alone, and are no tables of sessions.
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch("CREATE TABLE a (b)").unwrap();
    let refused = SqliteOptions::new().create(false).open(&path).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::NotASessionStore, "{refused}");
    assert_eq!(open(), None);
    for (version, kind) in [(2, ErrorKind::NewerFormat), (0, ErrorKind::Corrupt), (-1, ErrorKind::Corrupt)] {
        raw.execute("UPDATE sessile_schema SET version = ?1", [version]).unwrap();
        let (found, text) = open().unwrap();
        assert_eq!(found, kind, "{text}");
        assert!(text.contains(&version.to_string()), "{text}");
    }
    raw.execute("UPDATE sessile_schema SET version = 1", []).unwrap();
    assert_eq!(open(), None);
    // A store that is not there is not made by a tool.
    let missing = dir.path().join("missing.db");
    let refused = SqliteOptions::new().create(false).open(&missing).err().unwrap();
    assert_eq!((refused.kind(), missing.exists()), (ErrorKind::NotASessionStore, false));
}

#[test]
fn two_prefixes_in_one_file_are_two_stores() {
    let dir = directory_in_memory();
    let open = |prefix| SqliteOptions::new().table_prefix(prefix).open(file_in(&dir)).unwrap();
    let (one, other) = (open("one_"), open("other_"));
    let token = create(&one, Some("ada"));
    assert_eq!((load(&one, &token).unwrap(), load(&other, &token).unwrap()), (Some(0), None));
    other.delete_all().unwrap();
    assert_eq!((one.count().unwrap(), load(&one, &token).unwrap()), (1, Some(0)));
    for hostile in ["x; DROP TABLE one_sessions; --", "\"", "'", "", "sqlite_", "Ä", "one_\0"] {
        let refused = SqliteOptions::new().table_prefix(hostile).open(file_in(&dir)).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Config, "{hostile}");
        assert_eq!(
            SqliteOptions::new().table_prefix(hostile).schema().unwrap_err().kind(),
            ErrorKind::Config
        );
    }
    assert_eq!(one.count().unwrap(), 1);
    for connections in [0, 257] {
        let refused = SqliteOptions::new().connections(connections).open(file_in(&dir)).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Config);
    }
    let refused = SqliteOptions::new().wait(Duration::ZERO).open(dir.path().join("b.db")).err().unwrap();
    assert_eq!((refused.kind(), dir.path().join("b.db").exists()), (ErrorKind::Config, false));
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

#[test]
fn the_file_and_those_beside_it_are_private() {
    let dir = directory_in_memory();
    let path = file_in(&dir);
    let store = SqliteStore::open(&path).unwrap();
    create(&store, None);
    let files = ["", "-wal", "-shm"].map(|suffix| beside(&path, suffix));
    assert_eq!(files.each_ref().map(|file| mode(file)), [0o600; 3]);
    drop(store);
    // Closed by the last user, the log is in the file.
    assert!(path.exists() && !files[1].exists());
    let open = |keep_modes| {
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&events);
        let observer = move |event: &Event<'_>| {
            if let Event::MadePrivate { count, writable, .. } = event {
                seen.lock().push((*count, *writable));
            }
        };
        let opened = SqliteOptions::new().keep_modes(keep_modes).observer(observer).open(&path);
        (opened.map(drop).map_err(|error| error.kind()), std::mem::take(&mut *events.lock()))
    };
    assert_eq!(open(false), (Ok(()), vec![]));
    for (wrong, writable) in [(0o640, 0), (0o604, 0), (0o666, 1)] {
        fs::set_permissions(&path, Permissions::from_mode(wrong)).unwrap();
        assert_eq!(open(true), (Err(ErrorKind::Permissions), vec![]));
        assert_eq!(mode(&path), wrong, "a tool changes no mode");
        assert_eq!(open(false), (Ok(()), vec![(1, writable)]), "{wrong:o}");
        assert_eq!(mode(&path), 0o600);
    }
}

#[test]
fn a_file_that_others_could_replace_is_refused() {
    let dir = directory_in_memory();
    let refused = |path: &Path, kind: ErrorKind| {
        let error = SqliteStore::open(path).err().unwrap();
        assert_eq!(error.kind(), kind, "{error}");
    };
    for wrong in [0o777, 0o1777, 0o770, 0o702] {
        let open = dir.path().join(format!("{wrong:o}"));
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(wrong)).unwrap();
        refused(&open.join("a.db"), ErrorKind::Permissions);
        assert!(!open.join("a.db").exists());
        assert_eq!(mode(&open), wrong, "the directory is not the library's");
    }
    let path = file_in(&dir);
    drop(SqliteStore::open(&path).unwrap());
    let (link, second) = (dir.path().join("link.db"), dir.path().join("second.db"));
    symlink(&path, &link).unwrap();
    refused(&link, ErrorKind::NotASessionFile);
    fs::hard_link(&path, &second).unwrap();
    refused(&path, ErrorKind::NotASessionFile);
    fs::remove_file(&second).unwrap();
    fs::create_dir(&second).unwrap();
    refused(&second, ErrorKind::NotASessionFile);
    // A directory behind a link is that directory.
    let behind = dir.path().join("behind");
    symlink(dir.path(), &behind).unwrap();
    let store = SqliteStore::open(behind.join("sessions.db")).unwrap();
    assert_eq!(store.rows().path(), fs::canonicalize(dir.path()).unwrap().join("sessions.db"));
}

/// As a user that is not the superuser, for whom permissions mean nothing.
#[test]
fn without_the_right_to_write_the_reason_is_the_permissions() {
    let Some(stage) = stage() else {
        let dir = directory_in_memory();
        return again_as_nobody(
            "sqlite::without_the_right_to_write_the_reason_is_the_permissions",
            dir.path(),
        );
    };
    let dir = stage.join("own");
    fs::create_dir(&dir).unwrap();
    let path = dir.join("a.db");
    drop(SqliteStore::open(&path).unwrap());
    for (of_dir, of_file) in [(0o500, 0o600), (0o700, 0o400), (0o700, 0)] {
        fs::set_permissions(&path, Permissions::from_mode(of_file)).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(of_dir)).unwrap();
        let refused = SqliteStore::open(&path).map(drop).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Permissions, "{of_dir:o} {of_file:o}: {refused}");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    drop(SqliteStore::open(&path).unwrap());
}

#[test]
fn a_removed_file_is_noticed_and_a_restored_one_is_used() {
    let dir = directory_in_memory();
    let path = file_in(&dir);
    let options = SqliteOptions::new().wait(Duration::from_millis(500));
    let store = options.clone().open(&path).unwrap();
    let kept = create(&store, Some("ada"));
    let backup = dir.path().join("backup.db");
    let raw = Connection::open(&path).unwrap();
    raw.execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    fs::set_permissions(&backup, Permissions::from_mode(0o600)).unwrap();
    let lost = create(&store, Some("ada"));
    let remove = || {
        for file in ["", "-wal", "-shm"].map(|suffix| beside(&path, suffix)) {
            fs::remove_file(file).unwrap();
        }
    };
    remove();
    let refused: [Result<()>; 5] = [
        update(&store, &lost).map(drop),
        store.create(&record(None), Durability::Relaxed).map(drop),
        store.delete(&lost).map(drop),
        store.sweep(&SweepOptions::new()).map(drop).and_then(|()| store.delete_all()),
        {
            thread::sleep(Duration::from_millis(110));
            load(&store, &kept).map(drop)
        },
    ];
    for (number, refused) in refused.into_iter().enumerate() {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "call {number}: {error}");
        assert!(error.to_string().contains("was removed"), "{error}");
    }
    assert!(!path.exists(), "no file is made in its place while the store is open");
    drop(raw);
    fs::rename(&backup, &path).unwrap();
    assert_eq!(load(&store, &lost).unwrap(), None);
    assert_eq!(update(&store, &kept).unwrap(), Some(1));
    assert_eq!(load(&options.clone().open(&path).unwrap(), &kept).unwrap(), Some(1));
    // Another database takes its place while connections are idle.
    remove();
    drop(options.clone().open(&path).unwrap());
    thread::sleep(Duration::from_millis(110));
    assert_eq!((load(&store, &kept).unwrap(), update(&store, &kept).unwrap()), (None, None));
}

/// After many removals the next sessions use the pages again.
#[test]
fn the_examination_of_a_file_tells_its_size_and_its_damage() {
    let dir = directory_in_memory();
    let path = file_in(&dir);
    let store = SqliteStore::open(&path).unwrap();
    for _ in 0..200 {
        create(&store, Some("ada"));
    }
    store.delete_all().unwrap();
    assert_eq!(store.sweep(&SweepOptions::new()).unwrap().removed, 200);
    let examined = store.rows().examine().unwrap();
    assert_eq!((examined.journal_mode.as_str(), examined.damage.len()), ("wal", 0));
    assert!(examined.free_pages > 5 && examined.free_pages < examined.pages, "{examined:?}");
    assert!(examined.log_bytes > 0);
    for _ in 0..200 {
        create(&store, Some("ada"));
    }
    let again = store.rows().examine().unwrap();
    assert!(again.pages <= examined.pages + 2, "free pages are used first: {again:?}");
    drop(store);
    // The first pages have the tables' beginnings.
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 * 8..].fill(0x55);
    fs::write(&path, bytes).unwrap();
    let store = SqliteStore::open(&path).unwrap();
    assert!(!store.rows().examine().unwrap().damage.is_empty());
    let refused = store.count_by_state().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
}

/// Sessions of files move into the database and back, with their tokens.
#[test]
fn sessions_move_from_files_to_a_database_and_back() {
    let dir = directory_in_memory();
    let url = |text: &str| format!("{text}{}", dir.path().join("x").display());
    let open = |url: String| StoreUrl::parse(url).unwrap().open().unwrap();
    let [files, database, back] =
        [url("file:") + "-files", url("sqlite:") + ".db", url("file:") + "-back"].map(open);
    let tokens: Vec<_> = (0..50).map(|n| create(&*files, (n % 2 == 0).then_some("ada"))).collect();
    let ended = create(&*files, Some("bob"));
    files.delete_of("bob", None).unwrap();
    for (from, to) in [(&files, &database), (&database, &back)] {
        for found in from.scan(None, 1000).unwrap().sessions {
            let Scanned::Live(live) = found else { continue };
            assert!(to.import(&live.id, &live.record, Durability::Relaxed).unwrap());
        }
        assert_eq!(to.count().unwrap(), 50);
        for token in &tokens {
            assert!(update(&**to, token).unwrap().is_some());
        }
        assert_eq!(load(&**to, &ended).unwrap(), None);
    }
    assert!(tokens.iter().all(|token| load(&*back, token).unwrap() == Some(2)));
}

#[test]
fn sessions_open_by_the_url_of_a_database() {
    let dir = directory_in_memory();
    let url = format!("sqlite:{}", file_in(&dir).display());
    let sessions = Sessions::open(&url, Cookies::plain_http()).unwrap();
    let mut visit = sessions.visit([]);
    visit.login("ada").unwrap();
    visit.save().unwrap();
    let token = visit.token().unwrap();
    drop((visit, sessions));
    let sessions = Sessions::open(&url, Cookies::plain_http()).unwrap();
    assert_eq!(sessions.session(token).user().unwrap().as_deref(), Some("ada"));
}

/// A save beside a logout either came before it, or finds no session.
#[test]
fn after_a_logout_no_save_in_flight_revives_the_session() {
    let dir = directory_in_memory();
    let [one, other] = [(); 2].map(|()| SqliteStore::open(file_in(&dir)).unwrap());
    for round in 0..100 {
        let token = create(&one, Some("ada"));
        thread::scope(|scope| {
            for store in [&one, &other] {
                scope.spawn(|| while update(store, &token).unwrap().is_some() {});
            }
            thread::sleep(Duration::from_micros(round * 20));
            if round % 2 == 0 {
                assert!(other.delete(&token).unwrap().is_some());
            } else {
                other.delete_of("ada", None).unwrap();
            }
            assert_eq!(load(&one, &token).unwrap(), None, "round {round}");
        });
        assert_eq!((load(&one, &token).unwrap(), load(&other, &token).unwrap()), (None, None));
    }
}

#[test]
fn of_two_rotations_of_two_processes_one_wins() {
    let dir = directory_in_memory();
    let stores = [(); 2].map(|()| SqliteStore::open(file_in(&dir)).unwrap());
    for round in 0..50 {
        let token = create(&stores[0], None);
        let rotated: Vec<_> = thread::scope(|scope| {
            let rotate = |store| {
                let token = &token;
                move || SqliteStore::rotate(store, token, &mut add_one, &Rotation::default()).unwrap()
            };
            let threads: Vec<_> = stores.iter().map(|store| scope.spawn(rotate(store))).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(rotated.len(), 1, "round {round}");
        for store in &stores {
            assert_eq!(
                (load(store, &token).unwrap(), load(store, &rotated[0].token).unwrap()),
                (None, Some(1))
            );
        }
    }
}
