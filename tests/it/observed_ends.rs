//! Observers of the life of sessions: each login and each end is observed once, with its reason and the session's
//! record, by the observer of the requests or by that of the store.
use crate::lifecycle::{elsewhere, loaded, stored, stored_for, token_of};
use crate::support::memory::{Call, Stage, files_but_moved, on_every_storage, secs, sessions_in, start};
use crate::support::told::told;
use parking_lot::Mutex;
use serde_json::json;
use sessile::database::SqliteOptions;
use sessile::file::AtLimit;
use sessile::rows::{MemoryRows, RowStoreOptions};
use sessile::store::EndedSession;
use sessile::{
    Admin, Clock, Cookies, Durability, ErrorKind, Event, Expiry, FileStore, FileStoreOptions, PublicId,
    Record, Rotation, Saved, Session, Sessions, Store, SweepOptions, Timing, Token, Value, Verdict,
};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

on_every_storage! {
    each_login_is_observed_once_with_its_record,
    each_end_by_a_request_is_observed_once_with_its_record,
    the_end_of_all_sessions_of_a_user_is_one_event,
    a_logout_of_a_session_that_is_over_has_the_earlier_reason,
    a_save_that_is_tried_again_is_observed_once,
    of_a_failed_logout_only_what_failed_is_observed_again,
    of_logouts_at_once_one_is_observed,
}

fn digest(token: &Token) -> PublicId {
    PublicId::digest(token.expose().as_bytes())
}

/// What an observer was told since the last look.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn observer(&self) -> impl Fn(&Event<'_>) + Clone + Send + Sync + 'static {
        let log = self.clone();
        move |event| log.0.lock().push(told(event))
    }

    #[track_caller]
    fn check(&self, expected: &[String]) {
        assert_eq!(std::mem::take(&mut *self.0.lock()), expected);
    }
}

fn observed(stage: &Stage) -> (Sessions, Log) {
    let log = Log::default();
    (stage.sessions().with_observer(log.observer()), log)
}

#[track_caller]
fn id_of(session: &Session) -> String {
    format!("{:?}", session.public_id().unwrap().unwrap())
}

fn each_login_is_observed_once_with_its_record(stage: &Stage) {
    let (sessions, log) = observed(stage);
    // A login that makes a session, one that moves it, and one that `update_now` carries out.
    let mut session = sessions.session([]);
    session.login_from("ada", "Firefox").unwrap();
    log.check(&[]);
    session.save().unwrap();
    let first = id_of(&session);
    log.check(&[format!("Created({first}, of ada)"), format!("LoggedIn(None, {first}, of ada)")]);
    session.save().unwrap();
    log.check(&[]);
    session.login("bob").unwrap();
    session.save().unwrap();
    let second = id_of(&session);
    log.check(&[format!("LoggedIn(Some({first}), {second}, of bob)")]);
    session.rotate_id();
    session.save().unwrap();
    let third = id_of(&session);
    log.check(&[format!("Rotated({second}, {third}, of bob)")]);
    session.login("bob").unwrap();
    session.update_now("n", |n: &mut u32| *n += 1).unwrap();
    log.check(&[format!("LoggedIn(Some({third}), {}, of bob)", id_of(&session))]);
    // A login under an id that another request has rotated meanwhile.
    let old = stored(stage, &json!({ "n": 1 }));
    let mut late = sessions.session([old.clone()]);
    let new = elsewhere(&stage.others(), &old, |s| {
        s.rotate_id();
        s.save().unwrap();
        token_of(s)
    });
    late.login("ada").unwrap();
    late.save().unwrap();
    log.check(&[format!("LoggedIn(Some({:?}), {}, of ada)", digest(&old), id_of(&late))]);
    stage.check_absent(&new);
}

fn each_end_by_a_request_is_observed_once_with_its_record(stage: &Stage) {
    let (sessions, log) = observed(stage);
    let ada = || stored_for(stage, "ada", &json!({ "n": 1 }));
    let token = ada();
    let mut session = sessions.session([token.clone()]);
    session.destroy().unwrap();
    log.check(&[format!("Ended({:?}, logout, of ada)", digest(&token))]);
    session.destroy().unwrap();
    log.check(&[]);

    let token = ada();
    assert_eq!(sessions.end_session_of("bob", &digest(&token)).unwrap(), None);
    log.check(&[]);
    assert_eq!(sessions.end_session_of("ada", &digest(&token)).unwrap(), Some(digest(&token)));
    log.check(&[format!("Ended({:?}, other device, of ada)", digest(&token))]);
    assert_eq!(sessions.end_session_of("ada", &digest(&token)).unwrap(), None);
    log.check(&[]);

    let token = ada();
    let mut session = sessions.session([token.clone()]);
    session.set_expiry(Expiry::At(start()));
    session.save().unwrap();
    log.check(&[format!("Ended({:?}, expired, of ada)", digest(&token))]);
    stage.check_absent(&token);
}

fn the_end_of_all_sessions_of_a_user_is_one_event(stage: &Stage) {
    let (sessions, log) = observed(stage);
    let tokens = [(); 3].map(|()| stored_for(stage, "ada", &json!({ "n": 1 })));
    let own = loaded(stage, &tokens[0]);
    sessions.delete_of("ada", Some(&own)).unwrap();
    log.check(&[format!("CutOff(Some(\"ada\"), Some({}))", id_of(&own))]);
    sessions.delete_of("ada", None).unwrap();
    log.check(&["CutOff(Some(\"ada\"), None)".into()]);
    sessions.delete_of("", None).unwrap_err();
    sessions.delete_of("ada", Some(&sessions.session([]))).unwrap_err();
    log.check(&[]);
    sessions.delete_all().unwrap();
    log.check(&["CutOff(None, None)".into()]);
}

/// The record of such a session is removed by the logout, so no sweep finds it any more.
fn a_logout_of_a_session_that_is_over_has_the_earlier_reason(stage: &Stage) {
    let (sessions, log) = observed(stage);
    let token = stored_for(stage, "ada", &json!({ "n": 1 }));
    stage.second.delete_of("ada", None).unwrap();
    sessions.session([token.clone()]).destroy().unwrap();
    log.check(&[format!("Ended({:?}, cut-off, of ada)", digest(&token))]);
    let token = stored_for(stage, "ada", &json!({ "n": 1 }));
    stage.clock.advance(secs(1_209_600));
    sessions.session([token.clone()]).destroy().unwrap();
    log.check(&[format!("Ended({:?}, expired, of ada)", digest(&token))]);
    sessions.session([token]).destroy().unwrap();
    log.check(&[]);
}

fn a_save_that_is_tried_again_is_observed_once(stage: &Stage) {
    let (sessions, log) = observed(stage);
    let mut session = sessions.session([]);
    session.insert("n", 1).unwrap();
    stage.rig.fail(Call::Create, 0);
    session.save().unwrap_err();
    log.check(&[]);
    session.save().unwrap();
    let first = id_of(&session);
    log.check(&[format!("Created({first})")]);
    session.login("ada").unwrap();
    stage.rig.fail(Call::Rotate, 0);
    session.save().unwrap_err();
    log.check(&[]);
    session.save().unwrap();
    log.check(&[format!("LoggedIn(Some({first}), {}, of ada)", id_of(&session))]);
}

fn of_a_failed_logout_only_what_failed_is_observed_again(stage: &Stage) {
    let (sessions, log) = observed(stage);
    let tokens = [(); 3].map(|()| stored(stage, &json!({ "n": 1 })));
    let ids = tokens.each_ref().map(|token| format!("Ended({:?}, logout)", digest(token)));
    let mut session = sessions.session(tokens.clone());
    stage.rig.fail(Call::Delete, 1);
    session.destroy().unwrap_err();
    log.check(&[ids[0].clone(), ids[2].clone()]);
    session.destroy().unwrap();
    log.check(&ids[1..2]);
    // The second attempt finds the session gone, because the first has ended it and its answer was lost.
    let token = stored(stage, &json!({ "n": 1 }));
    let mut session = sessions.session([token.clone()]);
    session.contains("n").unwrap();
    stage.rig.fail(Call::Delete, 0);
    session.destroy().unwrap_err();
    stage.second.delete(&token).unwrap();
    session.destroy().unwrap();
    log.check(&[format!("Ended({:?}, logout)", digest(&token))]);
}

fn of_logouts_at_once_one_is_observed(stage: &Stage) {
    let (sessions, log) = observed(stage);
    let others = stage.others().with_observer(log.observer());
    for _ in 0..50 {
        let token = stored_for(stage, "ada", &json!({ "n": 1 }));
        let barrier = Barrier::new(3);
        thread::scope(|scope| {
            for sessions in [&sessions, &others] {
                let (token, barrier) = (token.clone(), &barrier);
                scope.spawn(move || {
                    let mut session = sessions.session([token]);
                    barrier.wait();
                    session.destroy().unwrap();
                });
            }
            barrier.wait();
        });
        log.check(&[format!("Ended({:?}, logout, of ada)", digest(&token))]);
    }
}

/// A store whose own observer writes a log.
struct Observed {
    store: Arc<dyn Admin>,
    /// The same storage, with another observer.
    second: Arc<dyn Admin>,
    clock: Clock,
    log: Log,
    other_log: Log,
    _dir: TempDir,
}

impl Observed {
    fn files_with(options: impl Fn(FileStoreOptions) -> FileStoreOptions) -> Self {
        let (dir, clock) = (TempDir::new().unwrap(), Clock::manual(start()));
        let [(store, log), (second, other_log)] = [(); 2].map(|()| {
            let log = Log::default();
            let options = options(FileStoreOptions::new().clock(clock.clone()).observer(log.observer()));
            (Arc::new(options.open(dir.path()).unwrap()) as Arc<dyn Admin>, log)
        });
        Self { store, second, clock, log, other_log, _dir: dir }
    }

    fn files() -> Self {
        Self::files_with(|options| options)
    }

    fn rows() -> Self {
        let (dir, clock) = (TempDir::new().unwrap(), Clock::manual(start()));
        let rows = Arc::new(MemoryRows::new(clock.clone()));
        let [(store, log), (second, other_log)] = [(); 2].map(|()| {
            let log = Log::default();
            let options = RowStoreOptions::new().observer(log.observer());
            (Arc::new(options.open(Arc::clone(&rows)).unwrap()) as Arc<dyn Admin>, log)
        });
        Self { store, second, clock, log, other_log, _dir: dir }
    }

    fn sqlite() -> Self {
        let (dir, clock) = (TempDir::new().unwrap(), Clock::manual(start()));
        let [(store, log), (second, other_log)] = [(); 2].map(|()| {
            let log = Log::default();
            let options = SqliteOptions::new().clock(clock.clone()).observer(log.observer());
            (Arc::new(options.open(dir.path().join("a.db")).unwrap()) as Arc<dyn Admin>, log)
        });
        Self { store, second, clock, log, other_log, _dir: dir }
    }

    /// A session that lives for this many seconds.
    fn session(&self, user: &str, seconds: u64) -> Saved {
        let mut record = Record::new(self.clock.now(), self.clock.now() + secs(seconds));
        record.set_user(user).unwrap();
        record.insert("upload", &Value::new("/tmp/17").unwrap()).unwrap();
        self.store.create(&record, Durability::OfStore).unwrap()
    }
}

#[test]
fn a_sweep_of_files_observes_each_session_it_removes() {
    a_sweep_observes_each_session_it_removes(&Observed::files());
}

#[test]
fn a_sweep_of_rows_observes_each_session_it_removes() {
    a_sweep_observes_each_session_it_removes(&Observed::rows());
    a_sweep_observes_each_session_it_removes(&Observed::sqlite());
}

fn a_sweep_observes_each_session_it_removes(stage: &Observed) {
    let full = SweepOptions::new().full(true).cpu_percent(100);
    let mut expected = Vec::new();
    for n in 0..120 {
        let id = stage.session(&format!("user {n}"), 10).live.id;
        expected.push(format!("Ended({id:?}, expired, of user {n})"));
    }
    let cut_off = stage.session("bob", 10_000);
    expected.push(format!("Ended({:?}, cut-off, of bob)", cut_off.live.id));
    stage.store.delete_of("bob", None).unwrap();
    let live = stage.session("ada", 10_000);
    // A moved id is no session.
    let how = Rotation::new(Durability::OfStore).grace(secs(10));
    let live = stage.store.rotate(&live.token, &mut |_| Ok(Verdict::Keep), &how).unwrap().unwrap();
    stage.clock.advance(secs(11));
    stage.log.check(&[]);
    assert_eq!(stage.store.sweep(&full.clone().dry_run(true)).unwrap().failed, 0);
    stage.log.check(&[]);
    let report = stage.store.sweep(&full).unwrap();
    assert!(report.removed >= 121, "{report:?}");
    stage.log.0.lock().sort();
    expected.sort();
    stage.log.check(&expected);
    stage.second.sweep(&full).unwrap();
    stage.store.sweep(&full).unwrap();
    stage.log.check(&[]);
    stage.other_log.check(&[]);
    assert!(stage.store.delete(&live.token).unwrap().is_some());
    stage.log.check(&[]);
}

#[test]
fn of_a_sweep_and_a_logout_at_once_one_is_observed() {
    for stage in [Observed::files(), Observed::rows(), Observed::sqlite()] {
        let sessions = sessions_in(Arc::clone(&stage.second)).with_observer(stage.log.observer());
        for _ in 0..20 {
            let saved = stage.session("ada", 10);
            stage.clock.advance(secs(11));
            let mut session = sessions.session([saved.token]);
            thread::scope(|scope| {
                scope.spawn(|| stage.store.sweep(&SweepOptions::new().cpu_percent(100)).unwrap());
                scope.spawn(|| session.destroy().unwrap());
            });
            stage.store.sweep(&SweepOptions::new().cpu_percent(100)).unwrap();
            stage.log.check(&[format!("Ended({:?}, expired, of ada)", saved.live.id)]);
        }
    }
}

#[test]
fn an_operators_act_in_files_is_observed_by_the_store() {
    an_operators_act_is_observed_by_the_store(&Observed::files());
}

#[test]
fn an_operators_act_in_rows_is_observed_by_the_store() {
    an_operators_act_is_observed_by_the_store(&Observed::rows());
    an_operators_act_is_observed_by_the_store(&Observed::sqlite());
}

fn an_operators_act_is_observed_by_the_store(stage: &Observed) {
    let saved = stage.session("ada", 10_000);
    assert_eq!(stage.store.delete_by_id(&saved.live.id).unwrap(), Some(saved.live.id));
    stage.log.check(&[format!("Ended({:?}, operator, of ada)", saved.live.id)]);
    assert_eq!(stage.store.delete_by_id(&saved.live.id).unwrap(), None);
    stage.log.check(&[]);
    // An import replaces what is over.
    for (reason, seconds) in [("expired", 10), ("cut-off", 10_000)] {
        let saved = stage.session("ada", seconds);
        stage.clock.advance(secs(20));
        stage.second.delete_of(if seconds > 10 { "ada" } else { "nobody" }, None).unwrap();
        let record = Record::new(stage.clock.now(), stage.clock.now() + secs(10));
        assert!(stage.store.import(&saved.live.id, &record, Durability::OfStore).unwrap());
        stage.log.check(&[format!("Ended({:?}, {reason}, of ada)", saved.live.id)]);
        assert!(!stage.store.import(&saved.live.id, &record, Durability::OfStore).unwrap(), "it is live");
        stage.log.check(&[]);
    }
}

#[test]
fn a_session_that_a_limit_ends_is_observed_by_the_store() {
    let stage = Observed::files_with(|options| {
        options.sessions_per_user(2, AtLimit::EndOldest).record_bytes_max(4096)
    });
    let mut ids = Vec::new();
    let log_in = || {
        stage.clock.advance(secs(1));
        stage.session("ada", 10_000).live.id
    };
    ids.extend([log_in(), log_in()]);
    stage.log.check(&[]);
    ids.push(log_in());
    stage.log.check(&[format!("Ended({:?}, limit, of ada)", ids[0])]);
    // A login of a request.
    let requests = Log::default();
    let sessions = sessions_in(Arc::clone(&stage.store)).with_observer(requests.observer());
    stage.clock.advance(secs(1));
    let mut session = sessions.session([]);
    session.login("ada").unwrap();
    session.save().unwrap();
    stage.log.check(&[format!("Ended({:?}, limit, of ada)", ids[1])]);
    let own = id_of(&session);
    requests.check(&[format!("Created({own}, of ada)"), format!("LoggedIn(None, {own}, of ada)")]);
    // A login that fails after it has ended a session.
    let mut record = Record::new(stage.clock.now(), stage.clock.now() + secs(10)).with_user("ada").unwrap();
    record.insert("large", &Value::new(&"x".repeat(10_000)).unwrap()).unwrap();
    let error = stage.store.create(&record, Durability::OfStore).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    stage.log.check(&[format!("Ended({:?}, limit, of ada)", ids[2])]);
}

/// An observer may use the store, also for the same session and the same user.
#[test]
fn no_lock_is_held_while_an_end_is_observed() {
    let (dir, clock) = (TempDir::new().unwrap(), Clock::manual(start()));
    let own: Arc<OnceLock<Arc<FileStore>>> = Arc::default();
    let (in_observer, results) = (Arc::clone(&own), Arc::new(Mutex::new(Vec::new())));
    let done = Arc::clone(&results);
    let is_nested = Mutex::new(false);
    let options = FileStoreOptions::new().clock(clock.clone()).lock_wait(Duration::from_millis(200));
    let options = options.sessions_per_user(1, AtLimit::EndOldest).observer(move |event| {
        let Event::Ended { id, record: Some(record), .. } = event else { panic!("{event:?}") };
        if std::mem::replace(&mut *is_nested.lock(), true) {
            return;
        }
        let store = in_observer.get().unwrap();
        let timing = record.timing();
        let live = (*record).clone().with_timing(Timing { deadline: store.now() + secs(100), ..timing });
        done.lock().push(store.import(id, &live, Durability::OfStore).map_err(|error| error.kind()));
        done.lock()
            .push(store.create(&live, Durability::OfStore).map(|_| true).map_err(|error| error.kind()));
        *is_nested.lock() = false;
    });
    let store = own.get_or_init(|| Arc::new(options.open(dir.path()).unwrap()));
    let record = |seconds| Record::new(clock.now(), clock.now() + secs(seconds)).with_user("ada").unwrap();
    store.create(&record(10), Durability::OfStore).unwrap();
    clock.advance(secs(11));
    assert_eq!(store.sweep(&SweepOptions::new().full(true)).unwrap().removed, 1);
    assert_eq!(*results.lock(), [Ok(true), Ok(true)], "while a sweep removes it");
    results.lock().clear();
    clock.advance(secs(1));
    store.create(&record(10), Durability::OfStore).unwrap();
    assert_eq!(*results.lock(), [Ok(true), Ok(true)], "while a login ends it");
}

#[test]
fn a_sweep_goes_on_after_a_panic_in_the_observer() {
    let (dir, clock) = (TempDir::new().unwrap(), Clock::manual(start()));
    let rows = Arc::new(MemoryRows::new(clock.clone()));
    let files = FileStoreOptions::new().clock(clock.clone());
    let stores: [Arc<dyn Admin>; 2] = [
        Arc::new(files.observer(|_| panic_quietly()).open(dir.path()).unwrap()),
        Arc::new(RowStoreOptions::new().observer(|_| panic_quietly()).open(rows).unwrap()),
    ];
    for store in &stores {
        for _ in 0..3 {
            store.create(&Record::new(start(), start() + secs(1)), Durability::OfStore).unwrap();
        }
    }
    clock.advance(secs(2));
    for store in stores {
        let report = store.sweep(&SweepOptions::new().full(true)).unwrap();
        assert_eq!((report.removed, report.failed, store.count().unwrap()), (3, 0, 0));
    }
}

/// A panic that prints no message.
fn panic_quietly() {
    std::panic::resume_unwind(Box::new("in the observer"));
}

#[test]
fn a_damaged_session_has_an_end_without_a_record() {
    let dir = TempDir::new().unwrap();
    let log = Log::default();
    let store =
        Arc::new(FileStoreOptions::new().cache_bytes(0).observer(log.observer()).open(dir.path()).unwrap());
    let sessions = sessions_in(Arc::clone(&store)).with_observer(log.observer());
    let mut session = sessions.session([]);
    session.insert("n", 1).unwrap();
    session.save().unwrap();
    let (token, id) = (token_of(&session), id_of(&session));
    let path = store.files().next().unwrap().unwrap().path;
    std::fs::write(&path, [7; 8192]).unwrap();
    log.check(&[format!("Created({id})")]);
    sessions.session([token.clone()]).destroy().unwrap();
    log.check(&[format!("Ended({id}, damaged, no record)")]);
    assert_eq!(files_but_moved(&store), 0);
    sessions.session([token]).destroy().unwrap();
    log.check(&[]);
}

/// A logout that cannot wait for a stuck writer has read the record all the same.
#[test]
fn a_forced_logout_is_observed_with_the_record() {
    let dir = TempDir::new().unwrap();
    let options = FileStoreOptions::new().lock_wait(Duration::from_millis(20));
    let [holder, store] = [(); 2].map(|()| Arc::new(options.clone().open(dir.path()).unwrap()));
    let log = Log::default();
    let sessions = sessions_in(store).with_observer(log.observer());
    let mut session = sessions.session([]);
    session.login("ada").unwrap();
    session.save().unwrap();
    let (token, id) = (token_of(&session), id_of(&session));
    log.0.lock().clear();
    let written = holder.update(
        &token,
        &mut |_| {
            session.destroy().unwrap();
            Ok(Verdict::Write)
        },
        Durability::OfStore,
    );
    assert!(written.unwrap().is_none(), "the session was ended meanwhile");
    log.check(&[format!("Ended({id}, logout, of ada)")]);
}

/// `Sessions::open` opens the store itself, so its observer is that of the store as well.
#[test]
fn the_observer_of_opened_sessions_hears_their_store() {
    let dir = TempDir::new().unwrap();
    let place = dir.path().join("sessions");
    let sessions = Sessions::open(&place, Cookies::plain_http()).unwrap();
    let (log, later) = (Log::default(), Log::default());
    let clone = sessions.clone();
    let sessions = sessions.with_observer(log.observer());
    let _other = clone.with_observer(later.observer());
    for entry in std::fs::read_dir(&place).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
    }
    let mut session = sessions.session([]);
    session.insert("n", 1).unwrap();
    session.save().unwrap();
    let told = log.0.lock().clone();
    assert!(told.iter().any(|event| event.starts_with("StoreRecreated")), "{told:?}");
    later.check(&[]);
}

#[test]
fn an_ended_session_shows_no_user_and_no_values() {
    let record = Record::new(start(), start()).with_user("ada").unwrap();
    let ended = EndedSession::live(PublicId::digest(b"a"), Some(record));
    assert!(!format!("{ended:?}").contains("ada"));
}
