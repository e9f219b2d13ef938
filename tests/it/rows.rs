//! Stores on servers: what is sent for each operation, how a failing server is met, and for how long.
use parking_lot::Mutex;
use sessile::admin::{Scanned, SweepOutcome};
use sessile::record::Login;
use sessile::rows::{
    CutOff, CutOffs, MemoryRows, MemoryStore, Row, RowPage, RowStore, RowStoreOptions, Rows, Selected, Swap,
    Swept,
};
use sessile::{
    Absent, Admin, Clock, Durability, Error, ErrorKind, Lookup, PublicId, Record, Result, Rotation, Store,
    SweepOptions, Token, Value, Verdict,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Rows that list the operations, and fail those that a plan names.
pub(crate) struct Line {
    rows: Arc<MemoryRows>,
    sent: Mutex<Vec<&'static str>>,
    plan: Mutex<VecDeque<Failure>>,
    /// Runs before the next operation of this name.
    before: Mutex<Option<(&'static str, Meanwhile)>>,
    /// Runs before each operation of a name, and may refuse it.
    guard: Mutex<Option<(&'static str, Guard)>>,
    /// The sessions that were to be inserted.
    inserts: Mutex<Vec<(PublicId, Row)>>,
    /// The id of a row that fails its checks in scans.
    damaged: Mutex<Option<PublicId>>,
}

type Meanwhile = Box<dyn FnOnce() + Send>;
type Guard = Box<dyn Fn() -> Result<()> + Send>;

/// The failure of the next operation of a name.
struct Failure {
    of: &'static str,
    kind: ErrorKind,
    is_done: bool,
}

impl Line {
    pub(crate) fn new() -> Arc<Self> {
        let rows = Arc::new(MemoryRows::new(Clock::manual(now())));
        Arc::new(Self {
            rows,
            sent: Mutex::default(),
            plan: Mutex::default(),
            before: Mutex::default(),
            guard: Mutex::default(),
            inserts: Mutex::default(),
            damaged: Mutex::default(),
        })
    }

    /// Runs `guard` before each operation of this name. If it fails, so does the operation.
    pub(crate) fn guard(&self, of: &'static str, guard: impl Fn() -> Result<()> + Send + 'static) {
        *self.guard.lock() = Some((of, Box::new(guard)));
    }

    /// The operations since the last call.
    fn sent(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.sent.lock())
    }

    fn fail(&self, of: &'static str, kind: ErrorKind, is_done: bool) {
        self.plan.lock().push_back(Failure { of, kind, is_done });
    }

    fn pass<T>(&self, name: &'static str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        self.sent.lock().push(name);
        if let Some((_, guard)) = self.guard.lock().as_ref().filter(|(of, _)| *of == name) {
            guard()?;
        }
        let meanwhile = self.before.lock().take_if(|(of, _)| *of == name);
        if let Some((_, meanwhile)) = meanwhile {
            meanwhile();
        }
        let mut plan = self.plan.lock();
        if plan.front().is_none_or(|failure| failure.of != name) {
            drop(plan);
            return run();
        }
        let failure = plan.pop_front().unwrap();
        drop(plan);
        if failure.is_done {
            drop(run());
        }
        Err(Error::new(failure.kind, "use the server"))
    }
}

impl Rows for Line {
    fn now(&self) -> SystemTime {
        self.rows.now()
    }
    fn select(&self, id: &PublicId, until: Instant) -> Result<Option<Selected>> {
        self.pass("select", || self.rows.select(id, until))
    }
    fn insert(&self, id: &PublicId, row: &Row, how: Durability, until: Instant) -> Result<Option<CutOffs>> {
        self.inserts.lock().push((*id, row.clone()));
        self.pass("insert", || self.rows.insert(id, row, how, until))
    }
    fn swap(&self, swap: &Swap<'_>, until: Instant) -> Result<Option<CutOffs>> {
        self.pass("swap", || self.rows.swap(swap, until))
    }
    fn remove(&self, id: &PublicId, until: Instant) -> Result<Option<Selected>> {
        self.pass("remove", || self.rows.remove(id, until))
    }
    fn sweep(&self, limit: usize, gives_sessions: bool, until: Instant) -> Result<Swept> {
        self.pass("sweep", || self.rows.sweep(limit, gives_sessions, until))
    }
    fn import(&self, id: &PublicId, row: &Row, how: Durability, until: Instant) -> Result<bool> {
        self.pass("import", || self.rows.import(id, row, how, until))
    }
    fn scan(&self, from: Option<&str>, limit: usize, until: Instant) -> Result<RowPage> {
        let mut page = self.pass("scan", || self.rows.scan(from, limit, until))?;
        if let Some(damaged) = *self.damaged.lock() {
            page.damaged = page.rows.extract_if(.., |(id, _)| *id == damaged).map(|(id, _)| id).collect();
        }
        Ok(page)
    }
    fn count(&self, until: Instant) -> Result<u64> {
        self.pass("count", || self.rows.count(until))
    }
    fn cut_offs(&self, user: Option<&[u8; 16]>, until: Instant) -> Result<CutOffs> {
        self.pass("cut_offs", || self.rows.cut_offs(user, until))
    }
    fn cut_off(&self, cut_off: &CutOff<'_>, until: Instant) -> Result<bool> {
        self.pass("cut_off", || self.rows.cut_off(cut_off, until))
    }
    fn lock(&self, id: &PublicId, until: Instant) -> Result<Option<Box<dyn Send + '_>>> {
        self.pass("lock", || self.rows.lock(id, until))
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn record(n: u64) -> Record {
    let mut record = Record::new(now(), now() + Duration::from_secs(3600));
    record.insert("n", &Value::new(&n).unwrap()).unwrap();
    record
}

#[track_caller]
fn n(record: &Record) -> u64 {
    record.entries().get("n").unwrap().get().unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of a change")]
fn add_one(record: &mut Record) -> Result<Verdict> {
    let next = n(record) + 1;
    record.insert("n", &Value::new(&next).unwrap()).unwrap();
    Ok(Verdict::Write)
}

pub(crate) fn store(line: &Arc<Line>) -> RowStore<Arc<Line>> {
    RowStoreOptions::new().wait(Duration::from_millis(200)).open(Arc::clone(line)).unwrap()
}

/// Two stores on one server, as in two processes, and a session that both have read.
fn two() -> (Arc<Line>, [RowStore<Arc<Line>>; 2], Token) {
    let line = Line::new();
    let stores = [store(&line), store(&line)];
    let token = stores[0].create(&record(0), Durability::OfStore).unwrap().token;
    assert_eq!(load(&stores[1], &token), Some(0));
    line.sent();
    (line, stores, token)
}

fn load(store: &impl Store, token: &Token) -> Option<u64> {
    match store.load(token).unwrap() {
        Lookup::Live(live) => Some(n(&live.record)),
        Lookup::Absent(_) => None,
    }
}

fn update(store: &impl Store, token: &Token) -> Result<Option<u64>> {
    let saved = store.update(token, &mut add_one, Durability::OfStore)?;
    Ok(saved.map(|saved| n(&saved.live.record)))
}

fn rotate(store: &impl Store, token: &Token, grace: Duration) -> Result<Option<Token>> {
    let how = Rotation::new(Durability::OfStore).grace(grace);
    Ok(store.rotate(token, &mut add_one, &how)?.map(|saved| saved.token))
}

#[test]
fn each_operation_takes_one_round_trip_where_it_can() {
    let (line, [store, other], token) = two();
    assert_eq!(load(&store, &token), Some(0));
    assert_eq!(line.sent(), ["select"]);
    for expected in 1..4 {
        assert_eq!(update(&store, &token).unwrap(), Some(expected));
        assert_eq!(line.sent(), ["swap"]);
    }
    // Another process has changed it since.
    assert_eq!(update(&other, &token).unwrap(), Some(4));
    assert_eq!(line.sent(), ["swap", "select", "swap"]);
    let token = rotate(&other, &token, Duration::from_secs(60)).unwrap().unwrap();
    assert_eq!(line.sent(), ["swap"]);
    assert_eq!(update(&other, &token).unwrap(), Some(6), "the successor is known");
    assert!(other.delete(&token).unwrap().is_some());
    assert_eq!(line.sent(), ["swap", "remove"]);
    other.create(&record(0), Durability::OfStore).unwrap();
    assert_eq!(line.sent(), ["insert"]);
    other.delete_all().unwrap();
    assert_eq!(line.sent(), ["cut_offs", "cut_off"]);
}

#[test]
fn no_answer_but_a_save_comes_from_a_version_that_may_be_old() {
    type Change = fn(&mut Record) -> Result<Verdict>;
    let changes: [(&str, Change); 4] = [
        ("keep", |_| Ok(Verdict::Keep)),
        ("abort", |record| if n(record) == 0 { Ok(Verdict::Abort) } else { add_one(record) }),
        (
            "error",
            |record| if n(record) == 0 { Err(Error::new(ErrorKind::Value, "x")) } else { add_one(record) },
        ),
        ("panic", |record| if n(record) == 0 { panic!("an old version") } else { add_one(record) }),
    ];
    for (name, mut change) in changes {
        let (line, [store, other], token) = two();
        assert_eq!(update(&other, &token).unwrap(), Some(1));
        line.sent();
        let saved = store.update(&token, &mut change, Durability::OfStore).unwrap().unwrap();
        assert_eq!(n(&saved.live.record), if name == "keep" { 1 } else { 2 }, "{name}");
        assert_eq!(line.sent()[0], "select", "{name}");
        // One that has ended since.
        let (_, [store, other], token) = two();
        assert!(other.delete(&token).unwrap().is_some());
        assert!(store.update(&token, &mut change, Durability::OfStore).unwrap().is_none(), "{name}");
    }
}

#[test]
fn a_relaxed_version_becomes_power_safe_without_a_change() {
    let (line, [store, _], token) = two();
    let keep = |how| store.update(&token, &mut |_| Ok(Verdict::Keep), how).unwrap().unwrap();
    keep(Durability::OfStore);
    assert_eq!(line.sent(), ["select"]);
    keep(Durability::PowerSafe);
    assert_eq!(line.sent(), ["swap"]);
}

/// Whether it was done or not, by the row: never twice, never lost.
#[test]
fn a_lost_answer_is_looked_up() {
    for is_done in [true, false] {
        let (line, [store, _], token) = two();
        line.fail("swap", ErrorKind::Unanswered, is_done);
        assert_eq!(update(&store, &token).unwrap(), Some(1));
        assert_eq!(load(&store, &token), Some(1), "{is_done}");
        let expected: &[_] =
            if is_done { &["swap", "select", "select"] } else { &["swap", "select", "swap", "select"] };
        assert_eq!(line.sent(), expected);
        for grace in [0, 60].map(Duration::from_secs) {
            let (line, [store, _], token) = two();
            line.fail("swap", ErrorKind::Unanswered, is_done);
            let new = rotate(&store, &token, grace).unwrap().unwrap();
            assert_eq!((load(&store, &token), load(&store, &new)), (None, Some(1)), "{is_done}");
            line.fail("remove", ErrorKind::Unanswered, is_done);
            let ended = store.delete(&new).unwrap();
            assert_eq!(ended, Some(PublicId::digest(new.expose().as_bytes())), "{is_done}");
            assert_eq!(load(&store, &new), None);
        }
        let line = Line::new();
        let store = self::store(&line);
        line.fail("insert", ErrorKind::Unanswered, is_done);
        let token = store.create(&record(7), Durability::OfStore).unwrap().token;
        assert_eq!((load(&store, &token), line.rows.len()), (Some(7), 1), "{is_done}");
        let record = record(0).with_user("ada").unwrap();
        let [ada, kept] = [(); 2].map(|()| store.create(&record, Durability::OfStore).unwrap().token);
        line.fail("cut_off", ErrorKind::Unanswered, is_done);
        store.delete_of("ada", Some(&kept)).unwrap();
        assert_eq!((load(&store, &ada), load(&store, &kept)), (None, Some(0)), "{is_done}");
        let later = store.create(&record, Durability::OfStore).unwrap().token;
        assert_eq!((load(&store, &later), load(&store, &kept)), (Some(0), Some(0)), "{is_done}: once");
    }
}

/// The line carries the creation out once more, after the session has ended.
#[test]
fn a_creation_that_arrives_twice_revives_no_session() {
    for is_done in [true, false] {
        let line = Line::new();
        let store = store(&line);
        line.fail("insert", ErrorKind::Unanswered, is_done);
        let token = store.create(&record(7), Durability::OfStore).unwrap().token;
        assert_eq!(line.sent(), ["insert", "remove", "insert"]);
        assert_eq!(line.rows.len(), 1, "no list shows the first one");
        store.delete(&token).unwrap().unwrap();
        let (id, row) = line.inserts.lock()[0].clone();
        let soon = Instant::now() + Duration::from_secs(5);
        line.rows.insert(&id, &row, Durability::OfStore, soon).unwrap().unwrap();
        assert_eq!(load(&store, &token), None, "{is_done}");
    }
}

#[test]
fn a_save_that_others_have_followed_is_found_again_and_no_further() {
    for (followers, is_known) in [(7, true), (8, false)] {
        let (line, [store, other], token) = two();
        line.fail("swap", ErrorKind::Unanswered, true);
        let (direct, followed) = (line_store(&line), token.clone());
        let follow = move || {
            for _ in 0..followers {
                update(&direct, &followed).unwrap().unwrap();
            }
        };
        meanwhile(&line, "select", follow);
        match update(&store, &token) {
            Ok(saved) => assert!(is_known && saved == Some(1), "{saved:?}"),
            Err(error) => assert!(!is_known && error.kind() == ErrorKind::Unanswered, "{error}"),
        }
        assert_eq!(load(&other, &token), Some(1 + followers));
    }
}

/// A store past the line.
fn line_store(line: &Arc<Line>) -> RowStore<Arc<MemoryRows>> {
    RowStoreOptions::new().open(Arc::clone(&line.rows)).unwrap()
}

/// Something that happens between a lost answer and the look at the row.
fn meanwhile(line: &Line, of: &'static str, run: impl FnOnce() + Send + 'static) {
    *line.before.lock() = Some((of, Box::new(run)));
}

#[test]
fn a_save_without_an_answer_whose_session_was_cut_off_finds_no_session() {
    let line = Line::new();
    let (store, other) = (store(&line), line_store(&line));
    let ada = record(0).with_user("ada").unwrap();
    let token = store.create(&ada, Durability::OfStore).unwrap().token;
    line.fail("swap", ErrorKind::Unanswered, false);
    meanwhile(&line, "select", move || other.delete_of("ada", None).unwrap());
    assert_eq!(update(&store, &token).unwrap(), None);
}

#[test]
fn of_two_rotations_the_one_without_an_answer_does_not_win_as_well() {
    let (line, [store, _], token) = two();
    let other = line_store(&line);
    line.fail("swap", ErrorKind::Unanswered, false);
    let (first, minute) = (token.clone(), Duration::from_secs(60));
    meanwhile(&line, "select", move || drop(rotate(&other, &first, minute).unwrap().unwrap()));
    assert_eq!(rotate(&store, &token, minute).unwrap(), None);
}

#[test]
fn a_cut_off_without_an_answer_is_made_once() {
    for is_done in [true, false] {
        let line = Line::new();
        let store = store(&line);
        line.fail("cut_off", ErrorKind::Unanswered, is_done);
        store.delete_of("ada", None).unwrap();
        store.delete_all().unwrap();
        let ada = record(0).with_user("ada").unwrap();
        let counted = line.rows.cut_offs(ada.login().user_digest.as_ref(), Instant::now()).unwrap();
        assert_eq!(counted, CutOffs { of_user: 1, of_all: 1 }, "{is_done}");
    }
}

#[test]
fn a_change_cannot_set_the_number_of_a_cut_off() {
    let (_, [store, _], token) = two();
    let mut set = |record: &mut Record| {
        record.set_login(Login { cut_off: 7, ..record.login() });
        Ok(Verdict::Write)
    };
    let saved = store.update(&token, &mut set, Durability::OfStore).unwrap().unwrap();
    assert_eq!(saved.live.record.login().cut_off, 0);
}

#[test]
fn a_server_that_stays_away_is_an_error_in_time() {
    let (line, [store, _], token) = two();
    let away = |of| (0..10_000).for_each(|_| line.fail(of, ErrorKind::Unavailable, false));
    let check = |of, run: &dyn Fn() -> Result<()>| {
        away(of);
        let began = Instant::now();
        assert_eq!(run().unwrap_err().kind(), ErrorKind::Unavailable, "{of}");
        assert!(began.elapsed() < Duration::from_millis(400), "{of}: {:?}", began.elapsed());
        line.plan.lock().clear();
    };
    check("select", &|| store.load(&token).map(drop));
    check("swap", &|| update(&store, &token).map(drop));
    check("remove", &|| store.delete(&token).map(drop));
    check("insert", &|| store.create(&record(0), Durability::OfStore).map(drop));
    check("cut_offs", &|| store.delete_all());
    // A reading without an answer has changed nothing, a save may have.
    line.fail("select", ErrorKind::Unanswered, true);
    assert_eq!(load(&store, &token), Some(0), "it is read again");
    (0..10_000).for_each(|_| line.fail("select", ErrorKind::Unanswered, true));
    assert_eq!(store.load(&token).unwrap_err().kind(), ErrorKind::Unavailable);
    line.plan.lock().clear();
    line.fail("swap", ErrorKind::Unanswered, true);
    away("select");
    let error = update(&store, &token).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unanswered, "{error}");
    line.plan.lock().clear();
    assert_eq!(load(&store, &token), Some(1));
}

#[test]
fn threads_behind_one_that_finds_no_server_learn_it_too() {
    let (line, [store, _], token) = two();
    (0..10_000).for_each(|_| line.fail("swap", ErrorKind::Unavailable, false));
    let kinds: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..3).map(|_| scope.spawn(|| update(&store, &token).unwrap_err().kind())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(kinds, [ErrorKind::Unavailable; 3]);
    // The second attempt of one of them takes longer than the next one waits in the queue.
    let again = Arc::clone(&line);
    let take_long = || thread::sleep(Duration::from_secs(1));
    meanwhile(&line, "swap", move || meanwhile(&again, "swap", take_long));
    thread::scope(|scope| {
        line.sent();
        let first = scope.spawn(|| update(&store, &token).unwrap_err().kind());
        while !line.sent.lock().contains(&"swap") {
            thread::yield_now();
        }
        assert_eq!(update(&store, &token).unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(first.join().unwrap(), ErrorKind::Unavailable);
    });
}

#[test]
fn a_refusal_of_the_server_is_returned_at_once() {
    for kind in [ErrorKind::Full, ErrorKind::Corrupt, ErrorKind::Permissions] {
        let (line, [store, _], token) = two();
        line.fail("swap", kind, false);
        assert_eq!(update(&store, &token).unwrap_err().kind(), kind);
        assert_eq!(line.sent(), ["swap"]);
        assert_eq!(update(&store, &token).unwrap(), Some(1));
    }
}

#[test]
fn a_write_that_loses_three_races_takes_the_lock_of_the_server() {
    let (line, [store, other], token) = two();
    let mut runs = 0;
    let mut change = |record: &mut Record| {
        runs += 1;
        if runs <= 4 {
            update(&other, &token).unwrap().unwrap();
        }
        add_one(record)
    };
    let saved = store.update(&token, &mut change, Durability::OfStore).unwrap().unwrap();
    // The first was a guess, which is no race.
    assert_eq!((n(&saved.live.record), runs), (5, 5));
    let sent = line.sent();
    assert_eq!(sent.iter().filter(|name| **name == "lock").count(), 1, "{sent:?}");
}

#[test]
fn a_record_may_exceed_its_limit_only_if_it_does_not_grow() {
    let line = Line::new();
    let text = |bytes: usize| {
        let mut record = record(0);
        record.insert("text", &Value::new(&"x".repeat(bytes)).unwrap()).unwrap();
        record
    };
    let token = store(&line).create(&text(1000), Durability::OfStore).unwrap().token;
    let small = RowStoreOptions::new().record_bytes_max(900).entries_max(1).open(Arc::clone(&line)).unwrap();
    assert_eq!(small.create(&text(1000), Durability::OfStore).unwrap_err().kind(), ErrorKind::TooManyEntries);
    let mut grow = |record: &mut Record| {
        *record = text(1001);
        Ok(Verdict::Write)
    };
    let error = small.update(&token, &mut grow, Durability::OfStore).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    let mut keep_size = |record: &mut Record| {
        record.insert("text", &Value::new(&"y".repeat(1000)).unwrap()).unwrap();
        Ok(Verdict::Write)
    };
    small.update(&token, &mut keep_size, Durability::OfStore).unwrap().unwrap();
    for wait in [Duration::from_millis(99), Duration::from_secs(61)] {
        let refused = RowStoreOptions::new().wait(wait).open(Arc::clone(&line)).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Config);
    }
    let refused = RowStoreOptions::new().record_bytes_max(usize::MAX).open(Arc::clone(&line)).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Config);
}

#[test]
fn a_sweep_removes_what_is_over_and_nothing_else() {
    let clock = Clock::manual(now());
    let store = RowStoreOptions::new().open(MemoryRows::new(clock.clone())).unwrap();
    let ada = record(0).with_user("ada").unwrap();
    let of_ada: Vec<_> = (0..300).map(|_| store.create(&ada, Durability::OfStore).unwrap().token).collect();
    let token = store.create(&record(0), Durability::OfStore).unwrap().token;
    let token = rotate(&store, &token, Duration::from_secs(60)).unwrap().unwrap();
    assert_eq!(store.sweep(&SweepOptions::new()).unwrap().removed, 0);
    store.delete_of("ada", Some(&of_ada[7])).unwrap();
    assert_eq!(store.sweep(&SweepOptions::new()).unwrap().removed, 299);
    clock.advance(Duration::from_secs(60));
    assert_eq!(store.sweep(&SweepOptions::new()).unwrap().removed, 1, "the moved id");
    assert_eq!((load(&store, &token), load(&store, &of_ada[7])), (Some(1), Some(0)));
    clock.advance(Duration::from_secs(3600));
    assert!(matches!(store.load(&token).unwrap(), Lookup::Absent(Absent::Expired(_))));
    assert_eq!((store.sweep(&SweepOptions::new()).unwrap().removed, store.rows().len()), (2, 0));
}

/// The sessions of a program's own tests.
#[test]
fn sessions_in_memory_are_shared_by_all_requests_of_a_store() {
    let store = Arc::new(MemoryStore::new());
    let tokens: Vec<_> =
        (0..8).map(|n| store.create(&fresh(n), Durability::OfStore).unwrap().token).collect();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for token in &tokens {
                    for _ in 0..100 {
                        update(&store, token).unwrap().unwrap();
                    }
                }
            });
        }
    });
    for (token, n) in tokens.iter().zip(0..) {
        assert_eq!(load(&store, token), Some(n + 400));
    }
    assert_eq!(store.guarantees(), MemoryStore::default().guarantees());
}

fn fresh(n: u64) -> Record {
    let mut record = Record::new(SystemTime::now(), SystemTime::now() + Duration::from_secs(3600));
    record.insert("n", &Value::new(&n).unwrap()).unwrap();
    record
}

/// A server that cannot be reached is not healthy, and a scan of it is refused as a whole.
#[test]
fn the_health_of_a_store_is_that_of_its_server() {
    let (line, [store, _], _) = two();
    store.health().unwrap();
    assert_eq!(line.sent(), ["cut_offs"]);
    line.fail("cut_offs", ErrorKind::Unavailable, false);
    store.health().unwrap();
    assert_eq!(line.sent(), ["cut_offs"; 2], "one more attempt");
    for kind in [ErrorKind::Storage, ErrorKind::Corrupt] {
        for of in ["cut_offs", "scan", "count"] {
            line.fail(of, kind, false);
        }
        let before = store.stats().refused;
        let refused = [store.health(), store.scan(None, 10).map(drop), store.count().map(drop)];
        for refused in refused {
            assert_eq!(refused.unwrap_err().kind(), kind);
        }
        assert_eq!(store.stats().refused, before + 3);
    }
}

/// A batch that fails ends the sweep. The report counts the batches before it, and the failure. If there are none, the
/// failure is the result.
#[test]
fn a_sweep_that_fails_half_way_reports_its_batches() {
    let line = Line::new();
    let store = store(&line);
    for _ in 0..500 {
        store.create(&Record::new(now(), now()), Durability::OfStore).unwrap();
    }
    let failure = Arc::clone(&line);
    line.fail("sweep", ErrorKind::Storage, false);
    assert_eq!(store.sweep(&SweepOptions::new()).unwrap_err().kind(), ErrorKind::Storage);
    let swept = store.sweep_with(&SweepOptions::new().per_second(1000), &mut move |progress| {
        if progress.report.removed > 0 {
            failure.fail("sweep", ErrorKind::Storage, false);
        }
        std::ops::ControlFlow::Continue(())
    });
    let (report, left) = (swept.unwrap(), store.count().unwrap());
    assert!(left < 500, "a batch was done");
    let kinds: Vec<_> = report.errors.iter().map(Error::kind).collect();
    let expected = (SweepOutcome::Failed, 500 - left, 1);
    assert_eq!((report.outcome, report.removed, report.failed), expected);
    assert_eq!(kinds, [ErrorKind::Storage]);
    assert_eq!(store.stats().swept, 500 - left);
    line.plan.lock().clear();
    assert_eq!(store.sweep(&SweepOptions::new()).unwrap().removed, left);
}

#[test]
fn damaged_rows_are_scanned_in_the_order_of_their_ids() {
    let line = Line::new();
    let store = store(&line);
    let ids: Vec<_> =
        (0..21).map(|n| store.create(&record(n), Durability::OfStore).unwrap().live.id).collect();
    *line.damaged.lock() = Some(ids[20]);
    let page = store.scan(None, 100).unwrap();
    assert!(page.sessions.is_sorted_by_key(Scanned::id));
    let damaged: Vec<_> =
        page.sessions.iter().filter(|found| matches!(found, Scanned::Damaged(_))).map(Scanned::id).collect();
    assert_eq!((damaged, page.sessions.len()), (vec![ids[20]], 21));
    let counts = store.count_by_state().unwrap();
    assert_eq!((counts.live, counts.damaged), (20, 1));
}
