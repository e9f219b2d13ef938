//! The promises of [`Admin`], as one suite for each storage mode that can list its sessions: scans, operations by
//! public id, imports, counts and sweeps. For a new mode, a line is added to the list of [`admin_contract`].
use super::{HOUR, add_one, create, put, record, refuse, rotate, update};
use crate::reaper::in_child;
use crate::support::memory::{made_up_token, secs, start};
use crate::support::rerun::{again, stage};
use crate::support::texts::directory_in_memory;
use sessile::admin::{Cursor, ScanPage, Scanned, StateCounts, Stats, SweepOutcome, SweepProgress};
use sessile::database::SqliteOptions;
use sessile::record::Login;
use sessile::rows::{MemoryRows, RowStoreOptions};
use sessile::store::GRACE_MAX;
use sessile::{
    Absent, Admin, Clock, Durability, ErrorKind, FileStoreOptions, Lookup, PublicId, Record, Rotation, Saved,
    SweepOptions, SweepReport, Timing, Token, Verdict,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow::{Break, Continue};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// Makes a test of each of these promises for one storage mode.
macro_rules! admin_contract {
    ($mode:ident, $stage:expr) => {
        mod $mode {
            use super::*;
            admin_contract! { @ $stage;
                a_scan_finds_each_session_once_in_order_and_in_its_state,
                each_session_that_exists_throughout_a_scan_is_found,
                a_cursor_of_another_kind_is_refused,
                a_session_is_loaded_and_deleted_by_its_public_id,
                a_deletion_by_id_follows_rotations_and_no_logins,
                an_imported_session_is_opened_by_its_secret,
                an_import_leaves_live_sessions_alone_and_replaces_others,
                a_moved_id_makes_room_for_an_import_after_its_grace_period,
                an_import_keeps_the_ends_of_the_target,
                the_store_is_healthy,
                each_call_is_counted_once,
                a_sweep_removes_what_is_over_and_a_dry_run_nothing,
                progress_stops_a_sweep_and_the_next_one_goes_on,
                a_panic_in_progress_is_an_error_and_ends_no_store,
            }
        }
    };
    (@ $stage:expr; $($promise:ident,)*) => { $(#[test] fn $promise() { super::$promise(&$stage); })* };
}

admin_contract!(files, AdminStage::files());
admin_contract!(rows, AdminStage::rows());
admin_contract!(sqlite, AdminStage::sqlite());

/// A microsecond before the end of the longest grace period.
const ALMOST_GRACE_MAX: Duration = Duration::from_micros(600_000_000 - 1);
const _: () = assert!(GRACE_MAX.as_micros() == ALMOST_GRACE_MAX.as_micros() + 1);

/// An empty store whose clock stands at [`start`], opened twice.
struct AdminStage {
    clock: Clock,
    store: Arc<dyn Admin>,
    /// The same storage, opened a second time, as by another process.
    second: Arc<dyn Admin>,
    /// Whether the store answers loads from memory.
    has_cache: bool,
    _dir: Option<TempDir>,
}

impl AdminStage {
    fn files() -> Self {
        let dir = directory_in_memory();
        let stage = Self::files_in(dir.path());
        Self { _dir: Some(dir), ..stage }
    }

    fn files_in(dir: &Path) -> Self {
        let clock = Clock::manual(start());
        let options = FileStoreOptions::new().clock(clock.clone()).watch(false);
        let [store, second] =
            [(); 2].map(|()| -> Arc<dyn Admin> { Arc::new(options.clone().open(dir).unwrap()) });
        Self { clock, store, second, has_cache: true, _dir: None }
    }

    fn rows() -> Self {
        let clock = Clock::manual(start());
        let rows = Arc::new(MemoryRows::new(clock.clone()));
        let [store, second] = [(); 2].map(|()| -> Arc<dyn Admin> {
            Arc::new(RowStoreOptions::new().open(Arc::clone(&rows)).unwrap())
        });
        Self { clock, store, second, has_cache: false, _dir: None }
    }

    fn sqlite() -> Self {
        let dir = directory_in_memory();
        let stage = Self::sqlite_in(dir.path());
        Self { _dir: Some(dir), ..stage }
    }

    fn sqlite_in(dir: &Path) -> Self {
        let clock = Clock::manual(start());
        let options = SqliteOptions::new().clock(clock.clone());
        let [store, second] = [(); 2]
            .map(|()| -> Arc<dyn Admin> { Arc::new(options.clone().open(dir.join("sessions.db")).unwrap()) });
        Self { clock, store, second, has_cache: false, _dir: None }
    }

    /// Creates a session at the present time, which lives for this time.
    fn session(&self, age: Duration, user: Option<&str>) -> Saved {
        let record = session_at(self.clock.now(), age, user);
        self.store.create(&record, Durability::OfStore).unwrap()
    }

    /// Gives the session another token, and keeps the old one as a moved id for the longest time.
    fn rotate(&self, token: &Token) -> Token {
        let how = Rotation::default().grace(GRACE_MAX);
        self.store.rotate(token, &mut |_| Ok(Verdict::Keep), &how).unwrap().unwrap().token
    }

    /// By both openings of the storage, which agree.
    #[track_caller]
    fn is_live(&self, token: &Token) -> bool {
        let [one, other] =
            [&self.store, &self.second].map(|store| matches!(store.load(token).unwrap(), Lookup::Live(_)));
        assert_eq!(one, other);
        one
    }

    #[track_caller]
    fn scan(&self, limit: usize) -> Vec<Scanned> {
        scan(&*self.second, limit, |page| {
            assert!(page.sessions.len() <= limit.max(1), "{} in a page of {limit}", page.sessions.len());
            assert!(page.failures.is_empty(), "{:?}", page.failures);
        })
    }

    #[track_caller]
    fn sweep(&self, options: &SweepOptions) -> SweepReport {
        // The expiry index of files is not what is tested here.
        let report = self.store.sweep(&options.clone().full(true).cpu_percent(100)).unwrap();
        assert_eq!((report.outcome, report.failed), (SweepOutcome::Completed, 0));
        report
    }
}

fn session_at(now: SystemTime, age: Duration, user: Option<&str>) -> Record {
    let record = Record::new(now, now + age);
    match user {
        Some(user) => record.with_user(user).unwrap(),
        None => record,
    }
}

/// What all pages have, from the first to the last.
#[track_caller]
fn scan(store: &dyn Admin, limit: usize, mut check: impl FnMut(&ScanPage)) -> Vec<Scanned> {
    let (mut found, mut from, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = store.scan(from.as_ref(), limit).unwrap();
        check(&page);
        let ScanPage { sessions, next, .. } = page;
        found.extend(sessions);
        let Some(next) = next else { return found };
        assert_ne!(from, Some(next.clone()), "the scan does not advance");
        from = Some(next);
        pages += 1;
        assert!(pages < 10_000, "the scan does not end");
    }
}

fn id_of(token: &Token) -> PublicId {
    PublicId::digest(token.expose().as_bytes())
}

fn state_of(found: &Scanned) -> &'static str {
    match found {
        Scanned::Live(_) => "live",
        Scanned::Expired(_) => "expired",
        Scanned::CutOff(_) => "cut off",
        Scanned::Moved(_) => "moved",
        _ => "damaged",
    }
}

fn a_scan_finds_each_session_once_in_order_and_in_its_state(stage: &AdminStage) {
    assert_eq!((stage.scan(7).len(), stage.store.count().unwrap()), (0, 0));
    let mut expected = BTreeMap::new();
    for n in 0..40 {
        let saved = stage.session(HOUR, (n % 4 == 0).then_some("ada"));
        expected.insert(saved.live.id, ("live", Some(saved.live.record)));
        let saved = stage.session(secs(10), (n % 2 == 0).then_some("bob"));
        expected.insert(saved.live.id, ("expired", None));
        let saved = stage.session(HOUR, Some("bob"));
        expected.insert(saved.live.id, ("cut off", None));
        let saved = stage.session(HOUR, None);
        expected.insert(saved.live.id, ("moved", None));
        let successor = id_of(&stage.rotate(&saved.token));
        expected.insert(successor, ("live", Some(saved.live.record)));
    }
    stage.store.delete_of("bob", None).unwrap();
    stage.clock.advance(secs(10));
    let ids: Vec<_> = expected.keys().copied().collect();
    for limit in [0, 1, 7, 200, 1000] {
        let found = stage.scan(limit);
        assert_eq!(found.iter().map(Scanned::id).collect::<Vec<_>>(), ids, "pages of {limit}");
        for found in &found {
            let (wanted, record) = &expected[&found.id()];
            assert_eq!(state_of(found), *wanted);
            if let (Scanned::Live(live), Some(record)) = (found, record) {
                assert_eq!(&live.record, record);
            }
        }
    }
    assert_eq!(stage.store.count().unwrap(), 200);
    let mut counts = StateCounts::default();
    (counts.live, counts.logged_in, counts.expired, counts.cut_off, counts.moved) = (80, 10, 40, 40, 40);
    assert_eq!(stage.store.count_by_state().unwrap(), counts);
}

fn each_session_that_exists_throughout_a_scan_is_found(stage: &AdminStage) {
    let stay: Vec<_> = (0..200).map(|_| stage.session(HOUR, None).live.id).collect();
    let ended: Vec<_> = (0..20).map(|_| stage.session(HOUR, None)).collect();
    for saved in &ended {
        stage.store.delete(&saved.token).unwrap().unwrap();
    }
    let (is_over, passing) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for store in [&stage.store, &stage.second] {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let token = create(&**store, &record(1));
                    let token = rotate(&**store, &token, add_one).unwrap().unwrap().token;
                    assert!(store.delete(&token).unwrap().is_some());
                    passing.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        // If a check fails, the others stop as well.
        let _stop = StopAtEnd(&is_over);
        // Pages of one session list a shard of files anew for each.
        for limit in [1, 7, 30, 1000, 7] {
            let before = passing.load(Ordering::SeqCst);
            let found: Vec<_> = stage.scan(limit).iter().map(Scanned::id).collect();
            assert!(found.is_sorted_by(|one, next| one < next), "once and in order, by {limit}");
            for id in &stay {
                assert!(found.binary_search(id).is_ok(), "{id} is missing, by {limit}");
            }
            assert!(ended.iter().all(|saved| found.binary_search(&saved.live.id).is_err()));
            while passing.load(Ordering::SeqCst) < before + 10 {
                std::thread::yield_now();
            }
        }
    });
    assert_eq!(stage.store.count().unwrap(), 200);
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn a_cursor_of_another_kind_is_refused(stage: &AdminStage) {
    stage.session(HOUR, None);
    for text in ["288", "", "0-0", &"z".repeat(40)] {
        let error = stage.store.scan(Some(&Cursor::new(text)), 10).unwrap_err();
        let want = "failed to scan a store: the cursor is of a store of another kind; begin without one";
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Value, want));
    }
    assert_eq!(stage.scan(10).len(), 1);
}

#[track_caller]
fn absent(store: &dyn Admin, id: &PublicId) -> Absent {
    match store.load_by_id(id).unwrap() {
        Lookup::Absent(why) => why,
        Lookup::Live(live) => panic!("session {} is live", live.id),
    }
}

fn a_session_is_loaded_and_deleted_by_its_public_id(stage: &AdminStage) {
    let (store, second) = (&*stage.store, &*stage.second);
    let saved = stage.session(HOUR, Some("ada"));
    let [brief, cut] = [stage.session(secs(10), None), stage.session(HOUR, Some("bob"))];
    assert!(stage.is_live(&saved.token), "both openings have read it");
    update(store, &saved.token, |record| {
        put(record, "n", 7);
        Ok(Verdict::Write)
    })
    .unwrap()
    .unwrap();
    let Lookup::Live(live) = second.load_by_id(&saved.live.id).unwrap() else { panic!("it is live") };
    assert_eq!((live.id, super::n(&live.record), live.record.user()), (saved.live.id, 7, Some("ada")));
    store.delete_of("bob", None).unwrap();
    assert_eq!(absent(second, &cut.live.id), Absent::NotFound(cut.live.id));
    stage.clock.advance(secs(10));
    assert_eq!(absent(second, &brief.live.id), Absent::Expired(brief.live.id));
    let unknown = id_of(&made_up_token());
    assert_eq!(absent(second, &unknown), Absent::NotFound(unknown));
    for id in [brief.live.id, cut.live.id, unknown] {
        assert!(second.delete_by_id(&id).unwrap().is_none(), "no live session was there");
    }
    assert!(second.delete_by_id(&saved.live.id).unwrap().is_some());
    assert!(!stage.is_live(&saved.token));
    assert_eq!(absent(store, &saved.live.id), Absent::NotFound(saved.live.id));
    assert!(store.delete_by_id(&saved.live.id).unwrap().is_none());
    assert!(update(store, &saved.token, add_one).unwrap().is_none());
}

fn a_deletion_by_id_follows_rotations_and_no_logins(stage: &AdminStage) {
    let (store, second) = (&*stage.store, &*stage.second);
    let now = Duration::ZERO;
    for (later, by_login, follows) in [(now, false, true), (GRACE_MAX, false, false), (now, true, false)] {
        let saved = stage.session(3 * HOUR, Some("ada"));
        let how = Rotation::default().grace(GRACE_MAX);
        let how = if by_login { how.login("ada") } else { how };
        let moved = store.rotate(&saved.token, &mut |_| Ok(Verdict::Keep), &how).unwrap().unwrap();
        let until = stage.clock.now() + GRACE_MAX;
        let Absent::Moved(found) = absent(second, &saved.live.id) else { panic!("it is moved") };
        assert_eq!((found.id, found.by_login, found.until), (saved.live.id, by_login, until));
        stage.clock.advance(later);
        assert_eq!(second.delete_by_id(&saved.live.id).unwrap().is_some(), follows, "{later:?} {by_login}");
        assert_eq!(stage.is_live(&moved.token), !follows);
    }
}

/// A session of another store: its secret, and its record.
fn from_elsewhere(record: &Record) -> (Token, PublicId) {
    let elsewhere = AdminStage::rows();
    let saved = elsewhere.store.create(record, Durability::OfStore).unwrap();
    (saved.token, saved.live.id)
}

fn an_imported_session_is_opened_by_its_secret(stage: &AdminStage) {
    let mut record = record(5).with_user("ada").unwrap();
    put(&mut record, "list", [1, 2, 3]);
    record.set_device_note("Firefox").unwrap();
    for how in [Durability::OfStore, Durability::Relaxed, Durability::PowerSafe] {
        let (token, id) = from_elsewhere(&record);
        assert!(stage.store.import(&id, &record, how).unwrap());
        for store in [&stage.store, &stage.second] {
            let Lookup::Live(live) = store.load(&token).unwrap() else { panic!("it is live") };
            assert_eq!((live.id, &live.record), (id, &record));
        }
        let saved = update(&*stage.second, &token, add_one).unwrap().unwrap();
        assert_eq!(super::n(&saved.live.record), 6);
        let saved = rotate(&*stage.store, &token, add_one).unwrap().unwrap();
        assert!(!stage.is_live(&token) && stage.is_live(&saved.token));
    }
    // The sessions of a user are found by later ends, and listed.
    let listed = stage.second.sessions_of("ada", &sessile::Page::default()).unwrap();
    assert_eq!(listed.sessions.len(), 3);
    stage.clock.advance(secs(1));
    stage.second.delete_of("ada", None).unwrap();
    assert_eq!(stage.store.count_by_state().unwrap().live, 0);
}

fn an_import_leaves_live_sessions_alone_and_replaces_others(stage: &AdminStage) {
    let store = &*stage.store;
    let imported = |n| {
        let now = stage.clock.now();
        let mut record = session_at(now, HOUR, Some("ada"));
        put(&mut record, "n", n);
        record
    };
    let import = |id: &PublicId, n: u64| store.import(id, &imported(n), Durability::OfStore).unwrap();
    let n_of = |id: &PublicId| match stage.second.load_by_id(id).unwrap() {
        Lookup::Live(live) => Some(super::n(&live.record)),
        Lookup::Absent(_) => None,
    };
    let (token, id) = from_elsewhere(&imported(1));
    assert!(import(&id, 1) && !import(&id, 2));
    assert_eq!(n_of(&id), Some(1));
    stage.clock.advance(HOUR);
    assert!(import(&id, 3), "the one in its place had expired");
    assert!(!import(&id, 4));
    assert_eq!(n_of(&id), Some(3));
    store.delete_of("ada", None).unwrap();
    assert_eq!(n_of(&id), None);
    stage.clock.advance(secs(1));
    assert!(import(&id, 5), "a cut-off had ended the one in its place");
    assert_eq!(n_of(&id), Some(5));
    assert!(stage.second.delete(&token).unwrap().is_some());
    assert!(import(&id, 6), "there was none");
    assert_eq!(n_of(&id), Some(6));
    assert!(stage.is_live(&token));
    assert_eq!(store.count().unwrap(), 1);
    // An import writes nothing that no load may find: a record that has expired stays so.
    let (token, id) = from_elsewhere(&imported(7));
    let mut old = imported(7);
    old.set_timing(Timing { deadline: stage.clock.now(), ..old.timing() });
    assert!(store.import(&id, &old, Durability::OfStore).unwrap());
    assert!(!stage.is_live(&token));
}

fn a_moved_id_makes_room_for_an_import_after_its_grace_period(stage: &AdminStage) {
    let saved = stage.session(3 * HOUR, None);
    let successor = stage.rotate(&saved.token);
    let import = || {
        let record = session_at(stage.clock.now(), HOUR, None);
        stage.second.import(&saved.live.id, &record, Durability::OfStore).unwrap()
    };
    assert!(!import(), "its session lives under another id");
    stage.clock.advance(ALMOST_GRACE_MAX);
    assert!(!import());
    stage.clock.advance(Duration::from_micros(1));
    assert!(import());
    assert!(stage.is_live(&saved.token) && stage.is_live(&successor));
}

/// A cut-off comes at the tenth second. Each case has the times of the creation, and of the last login if there was
/// one.
fn an_import_keeps_the_ends_of_the_target(stage: &AdminStage) {
    let store = &*stage.store;
    let at = |second: u64| start() + secs(second);
    let cut_offs: [(&str, &dyn Fn()); 2] = [
        ("delete_of", &|| store.delete_of("ada", None).unwrap()),
        ("delete_all", &|| stage.second.delete_all().unwrap()),
    ];
    for (number, (name, cut_off)) in (0_u64..).zip(cut_offs) {
        let began = 100 * number;
        stage.clock.set(at(began + 5));
        store.delete_of("ada", None).unwrap();
        stage.clock.set(at(began + 10));
        cut_off();
        stage.clock.set(at(began + 20));
        let mut alive = Vec::new();
        for (user, created, login, is_ended) in [
            (Some("ada"), 1, None, true),
            (Some("ada"), 7, None, true),
            (Some("ada"), 1, Some(9), true),
            (Some("ada"), 1, Some(10), true),
            (Some("ada"), 1, Some(11), false),
            (Some("ada"), 11, None, false),
            (Some("ada"), 11, Some(12), false),
            (Some("bob"), 1, Some(9), name == "delete_all"),
            (Some("bob"), 11, None, false),
            (None, 9, None, name == "delete_all"),
            (None, 10, None, name == "delete_all"),
            (None, 11, None, false),
        ] {
            let case = format!("{name}: {user:?} created at {created}, logged in at {login:?}");
            let mut record = session_at(at(began + created), 24 * HOUR, user);
            let login = login.map(|login| at(began + login));
            record.set_login(Login { at: login, ..record.login() });
            let (token, id) = from_elsewhere(&record);
            assert!(store.import(&id, &record, Durability::OfStore).unwrap(), "{case}");
            assert_eq!(stage.is_live(&token), !is_ended, "{case}");
            let found = stage.scan(1000);
            let found = found.iter().find(|found| found.id() == id).expect("it is stored");
            assert_eq!(state_of(found), if is_ended { "cut off" } else { "live" }, "{case}");
            assert_eq!(update(store, &token, |_| Ok(Verdict::Write)).unwrap().is_some(), !is_ended, "{case}");
            if !is_ended {
                let moved = rotate(&*stage.second, &token, |_| Ok(Verdict::Write)).unwrap().unwrap().token;
                alive.push((user, moved));
            }
        }
        // Later cut-offs end the imported sessions, however they were changed since.
        for user in ["ada", "bob"] {
            store.delete_of(user, None).unwrap();
            alive.retain(|(of, token)| {
                assert_eq!(stage.is_live(token), *of != Some(user), "{name}: {of:?}");
                *of != Some(user)
            });
        }
        store.delete_all().unwrap();
        assert!(!alive.is_empty() && alive.iter().all(|(_, token)| !stage.is_live(token)), "{name}");
    }
}

fn the_store_is_healthy(stage: &AdminStage) {
    stage.session(HOUR, None);
    for store in [&stage.store, &stage.second] {
        store.health().unwrap();
        store.check_process().unwrap();
    }
    assert_eq!(stage.store.count().unwrap(), 1, "it leaves nothing behind");
}

/// The counts that each storage mode has.
fn counted(stats: Stats) -> [u64; 6] {
    [stats.loads, stats.hits, stats.saves, stats.ends, stats.refused, stats.swept]
}

fn each_call_is_counted_once(stage: &AdminStage) {
    let store = &*stage.store;
    let mut before = counted(store.stats());
    assert_eq!(before, [0; 6]);
    let mut check = |case: &str, added: [u64; 6]| {
        let now = counted(store.stats());
        let difference: Vec<_> = now.iter().zip(before).map(|(now, before)| now - before).collect();
        assert_eq!(difference, added, "loads, hits, saves, ends, refused, swept of {case}");
        before = now;
    };
    let hit = u64::from(stage.has_cache);
    let [ada, bob, gone, moving] =
        [Some("ada"), Some("bob"), None, None].map(|user| stage.session(HOUR, user));
    check("creations", [0, 0, 4, 0, 0, 0]);
    store.load(&ada.token).unwrap();
    check("a load", [1, hit, 0, 0, 0, 0]);
    store.load(&made_up_token()).unwrap();
    check("a load of nothing", [1, 0, 0, 0, 0, 0]);
    store.load(&Token::parse("malformed").unwrap()).unwrap();
    check("a malformed token", [0; 6]);
    for id in [&ada.live.id, &id_of(&made_up_token())] {
        store.load_by_id(id).unwrap();
    }
    store.count().unwrap();
    store.count_by_state().unwrap();
    store.health().unwrap();
    store.sessions_of("ada", &sessile::Page::default()).unwrap();
    assert!(store.successor(&ada.token).unwrap().is_none());
    check("calls that only read", [0; 6]);
    update(store, &ada.token, |_| Ok(Verdict::Write)).unwrap().unwrap();
    update(store, &ada.token, |_| Ok(Verdict::Keep)).unwrap().unwrap();
    check("updates", [0, 0, 2, 0, 0, 0]);
    assert!(update(store, &made_up_token(), add_one).unwrap().is_none());
    assert!(update(store, &ada.token, |_| Ok(Verdict::Abort)).unwrap().is_none());
    check("updates that write nothing", [0; 6]);
    let moved = stage.rotate(&moving.token);
    check("a rotation", [0, 0, 1, 0, 0, 0]);
    assert!(store.delete(&gone.token).unwrap().is_some());
    assert!(store.delete(&gone.token).unwrap().is_none());
    check("deletions, of which one ended a session", [0, 0, 0, 1, 0, 0]);
    assert!(store.delete_by_id(&id_of(&moved)).unwrap().is_some());
    assert!(store.delete_by_id(&gone.live.id).unwrap().is_none());
    check("deletions by id, of which one ended a session", [0, 0, 0, 1, 0, 0]);
    let other = stage.session(HOUR, Some("bob"));
    assert!(store.delete_session_of("bob", &other.live.id).unwrap().is_some());
    assert!(store.delete_session_of("bob", &ada.live.id).unwrap().is_none());
    check("a creation, and the end of it as a session of its user", [0, 0, 1, 1, 0, 0]);
    store.delete_of("bob", None).unwrap();
    check("the end of a user's sessions", [0, 0, 0, 1, 0, 0]);
    let (_, id) = from_elsewhere(&record(1));
    assert!(store.import(&id, &record(1), Durability::OfStore).unwrap());
    assert!(!store.import(&id, &record(1), Durability::OfStore).unwrap());
    check("imports, of which one was made", [0, 0, 1, 0, 0, 0]);
    stage.session(secs(1), None);
    stage.clock.advance(secs(1));
    let dry = stage.sweep(&SweepOptions::new().dry_run(true)).removed;
    assert_eq!(dry, 2, "the cut off and the expired one");
    check("a creation and a dry run", [0, 0, 1, 0, 0, 0]);
    assert_eq!(stage.sweep(&SweepOptions::new()).removed, 2);
    check("a sweep", [0, 0, 0, 0, 0, 2]);
    store.delete_all().unwrap();
    check("the end of all sessions", [0, 0, 0, 1, 0, 0]);
    check_refusals_are_counted(stage, &bob.token, &mut check);
    assert_eq!(counted(stage.second.stats()), [0; 6], "each open store has counts of its own");
}

fn check_refusals_are_counted(stage: &AdminStage, gone: &Token, check: &mut impl FnMut(&str, [u64; 6])) {
    let store = &*stage.store;
    let large = {
        let mut record = record(1);
        put(&mut record, "large", "x".repeat(2 << 20));
        record
    };
    let token = create(store, &record(1));
    check("a creation", [0, 0, 1, 0, 0, 0]);
    let mut panicking = |_: &SweepProgress<'_>| panic!("the callback gives up");
    let refused: [(&str, Option<sessile::Error>); 9] = [
        ("create", store.create(&large, Durability::OfStore).err()),
        ("import", store.import(&id_of(&made_up_token()), &large, Durability::OfStore).err()),
        ("update", update(store, &token, refuse).err()),
        ("rotate", rotate(store, &token, refuse).err()),
        ("delete_of", store.delete_of("", None).err()),
        ("delete_of but one", store.delete_of("ada", Some(gone)).err()),
        ("scan", store.scan(Some(&Cursor::new("288")), 1).err()),
        ("sweep", store.sweep(&SweepOptions::new().cpu_percent(0)).err()),
        ("sweep with a panic", store.sweep_with(&SweepOptions::new(), &mut panicking).err()),
    ];
    for (call, error) in &refused {
        assert!(error.is_some(), "{call} is refused");
    }
    check("refused calls", [0, 0, 0, 0, refused.len() as u64, 0]);
}

fn a_sweep_removes_what_is_over_and_a_dry_run_nothing(stage: &AdminStage) {
    let lives: Vec<_> = (0..30).map(|n| stage.session(3 * HOUR, (n < 5).then_some("ada"))).collect();
    let moved: Vec<_> = (0..15).map(|_| stage.rotate(&stage.session(3 * HOUR, None).token)).collect();
    for n in 0..450 {
        let (age, user) = if n < 400 { (secs(10), None) } else { (3 * HOUR, Some("bob")) };
        stage.session(age, user);
    }
    assert_eq!(stage.sweep(&SweepOptions::new()).removed, 0, "all are live");
    stage.store.delete_of("bob", None).unwrap();
    stage.clock.advance(ALMOST_GRACE_MAX);
    let (before, seen) = (stage.store.count().unwrap(), stage.scan(1000).len());
    assert_eq!((before, seen), (510, 510));
    let dry = stage.sweep(&SweepOptions::new().dry_run(true));
    assert_eq!((dry.removed, dry.files.moved, stage.store.count().unwrap()), (450, 0, before));
    assert_eq!(stage.second.sweep(&SweepOptions::new().full(true)).unwrap().removed, 450);
    assert_eq!(stage.store.count().unwrap(), 60);
    assert!(lives.iter().map(|saved| &saved.token).chain(&moved).all(|token| stage.is_live(token)));
    // The marks of moved ids, at the end of their grace period.
    stage.clock.advance(Duration::from_micros(1));
    for is_dry in [true, false] {
        let report = stage.sweep(&SweepOptions::new().dry_run(is_dry));
        assert_eq!(report.removed + report.files.moved, 15, "dry: {is_dry}");
    }
    assert_eq!(stage.store.count().unwrap(), 45);
    assert!(lives.iter().map(|saved| &saved.token).chain(&moved).all(|token| stage.is_live(token)));
    assert_eq!(stage.sweep(&SweepOptions::new()).removed, 0);
}

/// 500 expired sessions, and options of a sweep that takes more than a second for them.
fn slow_sweep(stage: &AdminStage) -> SweepOptions {
    (0..500).for_each(|_| drop(stage.session(secs(1), None)));
    stage.clock.advance(secs(1));
    SweepOptions::new().full(true).per_second(300)
}

fn progress_stops_a_sweep_and_the_next_one_goes_on(stage: &AdminStage) {
    let options = slow_sweep(stage);
    let at_once = stage.store.sweep_with(&options, &mut |_| Break(())).unwrap();
    assert_eq!((at_once.outcome, at_once.removed), (SweepOutcome::Cancelled, 0));
    let (mut calls, mut most) = (0, 0);
    let stopped = stage.store.sweep_with(&options, &mut |progress| {
        calls += 1;
        assert!(progress.report.removed >= most, "the counts only grow");
        most = progress.report.removed;
        if most > 0 { Break(()) } else { Continue(()) }
    });
    let stopped = stopped.unwrap();
    assert_eq!(stopped.outcome, SweepOutcome::Cancelled);
    assert!(calls >= 2 && (1..500).contains(&stopped.removed), "{calls} calls, {stopped:?}");
    assert_eq!(stage.store.count().unwrap(), 500 - stopped.removed);
    assert_eq!(stage.sweep(&SweepOptions::new()).removed, 500 - stopped.removed);
    assert_eq!((stage.store.count().unwrap(), stage.store.stats().swept), (0, 500));
}

fn a_panic_in_progress_is_an_error_and_ends_no_store(stage: &AdminStage) {
    let options = slow_sweep(stage);
    let error = stage.store.sweep_with(&options, &mut |progress| {
        assert_eq!(progress.report.removed, 0, "the callback gives up");
        Continue(())
    });
    let error = error.unwrap_err();
    let want = "failed to sweep session store: the `progress` function panicked; the work until then is done";
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Panicked, want));
    let left = stage.store.count().unwrap();
    assert!((1..500).contains(&left), "{left}");
    // The removed ones are counted, although there was no report of them.
    assert_eq!(stage.store.stats().swept, 500 - left);
    let token = stage.session(HOUR, None).token;
    assert_eq!(stage.sweep(&SweepOptions::new()).removed, left, "no lock was left behind");
    assert!(stage.is_live(&token));
}

#[test]
fn a_forked_child_is_refused_every_call_of_an_administrator() {
    let Some(dir) = stage() else {
        let dir = directory_in_memory();
        let name = "contract::admin::a_forked_child_is_refused_every_call_of_an_administrator";
        return again(name, dir.path());
    };
    let stages = [AdminStage::files_in(&dir.join("store")), AdminStage::rows(), AdminStage::sqlite_in(&dir)];
    for stage in stages {
        let saved = stage.session(HOUR, Some("ada"));
        let stats = counted(stage.store.stats());
        let stage = in_child(Some(stage), |stage| {
            let (store, id) = (&*stage.store, &saved.live.id);
            let refused: [sessile::Result<()>; 9] = [
                store.check_process(),
                store.health(),
                store.scan(None, 10).map(drop),
                store.count().map(drop),
                store.count_by_state().map(drop),
                store.load_by_id(id).map(drop),
                store.delete_by_id(id).map(drop),
                store.import(id, &saved.live.record, Durability::OfStore).map(drop),
                store.sweep(&SweepOptions::new()).map(drop),
            ];
            for (number, refused) in refused.into_iter().enumerate() {
                assert_eq!(refused.unwrap_err().kind(), ErrorKind::Forked, "call {number}");
            }
            assert!(store.stats().saves >= 1, "counts are no use of the store");
        });
        let stage = stage.expect("the parent keeps it");
        assert_eq!(counted(stage.store.stats()), stats);
        assert!(stage.is_live(&saved.token));
        assert_eq!(stage.store.count().unwrap(), 1);
        stage.store.health().unwrap();
    }
}
