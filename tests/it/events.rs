//! Events of sessions: each beginning, login, rotation and end is observed once, with the session's record.
use crate::lifecycle::{loaded, stored, stored_for, token_of};
use crate::support::memory::{Call, Stage, on_every_storage, secs, sessions_in, start};
use crate::support::probe::quick_directory;
use crate::support::waiting::eventually;
use parking_lot::Mutex;
use serde_json::json;
use sessile::file::AtLimit;
use sessile::rows::{MemoryRows, RowStoreOptions};
use sessile::{
    Admin, Clock, Destroyed, EndReason, Event, Expiry, FileStoreOptions, PublicId, Reaper, ReaperOptions,
    Record, Session, Sessions, SweepOptions, Token,
};
use std::sync::Arc;
use std::time::Duration;

on_every_storage! {
    each_step_is_observed_once_with_the_record,
    a_login_is_observed_with_its_user,
    a_logout_shows_the_record_as_it_was_at_the_end,
    a_past_expiry_is_an_end_by_expiry,
    an_end_from_another_device_is_observed,
    the_end_of_many_sessions_is_one_event,
    a_save_that_is_tried_again_is_observed_once,
    a_logout_that_is_tried_again_is_observed_once,
    an_observer_that_panics_harms_nothing,
}

/// An event of a session, with the data that it borrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Created(PublicId),
    LoggedIn(Option<PublicId>, PublicId),
    Rotated(PublicId, PublicId),
    Ended(PublicId, EndReason),
    CutOff(Option<String>, Option<PublicId>),
}

/// The events that an observer has got: each with the entry `n` and the user of its record.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Entry>>>);

type Entry = (Seen, Option<(Option<u64>, Option<String>)>);

impl Log {
    fn note(&self, event: &Event<'_>) {
        let seen = match event {
            Event::Created { id, .. } => Seen::Created(*id),
            Event::LoggedIn { from, id, .. } => Seen::LoggedIn(*from, *id),
            Event::Rotated { from, to, .. } => Seen::Rotated(*from, *to),
            Event::Ended { id, reason, .. } => Seen::Ended(*id, *reason),
            Event::CutOff { user, except } => {
                Seen::CutOff(user.map(|user| user.as_str().to_owned()), *except)
            }
            _ => return,
        };
        let shown = |record: &Record| {
            let n = record.entries().iter().find(|(name, _)| *name == "n");
            let n = n.map(|(_, value)| value.get::<u64>().unwrap());
            (n, record.user().map(str::to_owned))
        };
        self.0.lock().push((seen, event.record().map(shown)));
    }

    fn observer(&self) -> impl Fn(&Event<'_>) + Send + Sync + 'static + use<> {
        let log = self.clone();
        move |event| log.note(event)
    }

    fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.0.lock())
    }

    #[track_caller]
    fn check(&self, expected: impl IntoIterator<Item = Entry>) {
        assert_eq!(self.take(), expected.into_iter().collect::<Vec<_>>());
    }
}

fn observed(stage: &Stage) -> (Sessions, Log) {
    let log = Log::default();
    (stage.sessions().with_observer(log.observer()), log)
}

fn with(n: u64, user: Option<&str>) -> Option<(Option<u64>, Option<String>)> {
    Some((Some(n), user.map(str::to_owned)))
}

fn id(session: &Session) -> PublicId {
    session.public_id().unwrap().unwrap()
}

fn id_of(token: &Token) -> PublicId {
    PublicId::digest(token.expose().as_bytes())
}

fn each_step_is_observed_once_with_the_record(stage: &Stage) {
    let (sessions, log) = observed(stage);
    let mut session = sessions.session([]);
    session.insert("n", 1).unwrap();
    log.check([]);
    session.save().unwrap();
    let first = id(&session);
    log.check([(Seen::Created(first), with(1, None))]);
    session.insert("n", 2).unwrap();
    session.save().unwrap();
    session.save().unwrap();
    log.check([]);
    session.rotate_id();
    session.save().unwrap();
    let second = id(&session);
    log.check([(Seen::Rotated(first, second), with(2, None))]);
    assert_eq!(session.destroy().unwrap(), Destroyed::Ended);
    log.check([(Seen::Ended(second, EndReason::Logout), with(2, None))]);
    assert_eq!(session.destroy().unwrap(), Destroyed::WasGone);
    log.check([]);
}

fn a_login_is_observed_with_its_user(stage: &Stage) {
    let (sessions, log) = observed(stage);
    // A new session.
    let mut session = sessions.session([]);
    session.insert("n", 1).unwrap();
    session.login("ada").unwrap();
    session.save().unwrap();
    let first = id(&session);
    log.check([
        (Seen::Created(first), with(1, Some("ada"))),
        (Seen::LoggedIn(None, first), with(1, Some("ada"))),
    ]);
    // The session of a visitor who had one.
    session.login("ada").unwrap();
    session.save().unwrap();
    let second = id(&session);
    log.check([(Seen::LoggedIn(Some(first), second), with(1, Some("ada")))]);
    // A session that was rotated beside this request, which finds it under its old id.
    let old = token_of(&session);
    let mut beside = stage.others().session([old.clone()]);
    beside.rotate_id();
    beside.save().unwrap();
    let mut session = sessions.session([old]);
    session.login("bob").unwrap();
    session.insert("n", 3).unwrap();
    session.update_now("m", |m: &mut u8| *m += 1).unwrap();
    let third = id(&session);
    let heard = log.take();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(heard[0].0, Seen::LoggedIn(Some(second), third));
    session.save().unwrap();
    log.check([]);
}

fn a_logout_shows_the_record_as_it_was_at_the_end(stage: &Stage) {
    let token = stored_for(stage, "ada", &json!({ "n": 1 }));
    let (sessions, log) = observed(stage);
    let mut session = sessions.session([token.clone()]);
    assert_eq!(session.get("n").unwrap(), Some(1));
    let mut beside = stage.others().session([token.clone()]);
    beside.insert("n", 2).unwrap();
    beside.save().unwrap();
    session.destroy().unwrap();
    log.check([(Seen::Ended(id_of(&token), EndReason::Logout), with(2, Some("ada")))]);
}

fn a_past_expiry_is_an_end_by_expiry(stage: &Stage) {
    let token = stored(stage, &json!({ "n": 1 }));
    let (sessions, log) = observed(stage);
    let mut session = sessions.session([token.clone()]);
    session.set_expiry(Expiry::At(start() - secs(1)));
    session.save().unwrap();
    log.check([(Seen::Ended(id_of(&token), EndReason::Expired), with(1, None))]);
}

fn an_end_from_another_device_is_observed(stage: &Stage) {
    let token = stored_for(stage, "ada", &json!({ "n": 1 }));
    let (sessions, log) = observed(stage);
    assert_eq!(sessions.end_session_of("bob", &id_of(&token)).unwrap(), None);
    log.check([]);
    assert_eq!(sessions.end_session_of("ada", &id_of(&token)).unwrap(), Some(id_of(&token)));
    log.check([(Seen::Ended(id_of(&token), EndReason::Remote), with(1, Some("ada")))]);
    assert_eq!(sessions.end_session_of("ada", &id_of(&token)).unwrap(), None);
    log.check([]);
}

fn the_end_of_many_sessions_is_one_event(stage: &Stage) {
    let [token, _] = [1, 2].map(|n| stored_for(stage, "ada", &json!({ "n": n })));
    let (sessions, log) = observed(stage);
    let own = sessions.session([token.clone()]);
    sessions.delete_of("ada", Some(&own)).unwrap();
    log.check([(Seen::CutOff(Some("ada".into()), Some(id_of(&token))), None)]);
    sessions.delete_of("ada", None).unwrap();
    sessions.delete_all().unwrap();
    log.check([(Seen::CutOff(Some("ada".into()), None), None), (Seen::CutOff(None, None), None)]);
    // A call that fails has ended nothing.
    assert!(sessions.delete_of("ada", Some(&own)).is_err());
    log.check([]);
}

fn a_save_that_is_tried_again_is_observed_once(stage: &Stage) {
    let (sessions, log) = observed(stage);
    let mut session = sessions.session([]);
    session.insert("n", 1).unwrap();
    stage.rig.fail(Call::Create, 0);
    session.save().unwrap_err();
    log.check([]);
    stage.rig.rerun_changes();
    session.save().unwrap();
    let first = id(&session);
    log.check([(Seen::Created(first), with(1, None))]);
    session.login("ada").unwrap();
    stage.rig.fail(Call::Rotate, 0);
    session.save().unwrap_err();
    log.check([]);
    session.save().unwrap();
    log.check([(Seen::LoggedIn(Some(first), id(&session)), with(1, Some("ada")))]);
}

fn a_logout_that_is_tried_again_is_observed_once(stage: &Stage) {
    let tokens = [1, 2, 3].map(|n| stored(stage, &json!({ "n": n })));
    let (sessions, log) = observed(stage);
    let mut session = sessions.session(tokens.clone());
    assert_eq!(session.get("n").unwrap(), Some(1));
    // The second of three fails.
    stage.rig.fail(Call::Delete, 1);
    session.destroy().unwrap_err();
    let ended = |n: usize| (Seen::Ended(id_of(&tokens[n - 1]), EndReason::Logout), with(n as u64, None));
    log.check([ended(1), ended(3)]);
    assert_eq!(session.destroy().unwrap(), Destroyed::Ended);
    log.check([ended(2)]);
    assert_eq!(session.destroy().unwrap(), Destroyed::WasGone);
    log.check([]);
}

fn an_observer_that_panics_harms_nothing(stage: &Stage) {
    let sessions = stage.sessions().with_observer(|_| panic_quietly());
    let mut session = sessions.session([]);
    session.insert("n", 1).unwrap();
    session.save().unwrap();
    session.login("ada").unwrap();
    session.save().unwrap();
    let token = token_of(&session);
    assert_eq!(loaded(stage, &token).user().unwrap().as_deref(), Some("ada"));
    sessions.delete_of("bob", None).unwrap();
    assert_eq!(session.destroy().unwrap(), Destroyed::Ended);
    stage.check_absent(&token);
}

fn panic_quietly() {
    std::panic::resume_unwind(Box::new("an observer's panic"));
}

// ------------------------------------------------------------------------------------ sweeps

/// Runs `check` with a store that can be swept, of each kind, and its clock.
fn on_every_admin(check: impl Fn(&Arc<dyn Admin>, &Clock)) {
    let clock = Clock::manual(start());
    check(&(Arc::new(RowStoreOptions::new().open(MemoryRows::new(clock.clone())).unwrap()) as _), &clock);
    let (dir, clock) = (quick_directory(), Clock::manual(start()));
    check(&(Arc::new(FileStoreOptions::new().clock(clock.clone()).open(dir.path()).unwrap()) as _), &clock);
}

fn saved(sessions: &Sessions, n: u64, user: Option<&str>) -> PublicId {
    let mut session = sessions.session([]);
    session.insert("n", n).unwrap();
    if let Some(user) = user {
        session.login(user).unwrap();
    }
    session.save().unwrap();
    id(&session)
}

/// A sweep that finds all that is over, and reports it to the log.
fn sweeping(log: &Log) -> SweepOptions {
    SweepOptions::new().full(true).cpu_percent(100).observer(log.observer())
}

#[test]
fn a_sweep_reports_each_session_that_it_removes() {
    on_every_admin(|store, clock| {
        let sessions = sessions_in(Arc::clone(store));
        let (first, second) = (saved(&sessions, 1, None), saved(&sessions, 2, Some("ada")));
        let log = Log::default();
        store.sweep(&sweeping(&log)).unwrap();
        log.check([]);
        sessions.delete_of("ada", None).unwrap();
        store.sweep(&sweeping(&log).dry_run(true)).unwrap();
        log.check([]);
        store.sweep(&sweeping(&log)).unwrap();
        log.check([(Seen::Ended(second, EndReason::CutOff), with(2, Some("ada")))]);
        clock.advance(secs(15 * 86_400));
        let third = saved(&sessions, 3, None);
        assert_eq!(store.sweep(&sweeping(&log)).unwrap().removed, 1);
        log.check([(Seen::Ended(first, EndReason::Expired), with(1, None))]);
        store.sweep(&sweeping(&log)).unwrap();
        log.check([]);
        assert!(matches!(store.load_by_id(&third).unwrap(), sessile::Lookup::Live(_)));
    });
}

#[test]
fn a_logout_is_not_reported_again_by_a_sweep() {
    on_every_admin(|store, clock| {
        let log = Log::default();
        let sessions = sessions_in(Arc::clone(store)).with_observer(log.observer());
        let mut session = sessions.session([]);
        session.insert("n", 1).unwrap();
        session.save().unwrap();
        session.rotate_id();
        session.save().unwrap();
        session.destroy().unwrap();
        log.take();
        clock.advance(secs(15 * 86_400));
        store.sweep(&sweeping(&log)).unwrap();
        log.check([]);
    });
}

#[test]
fn a_sweep_goes_on_after_its_observer_has_panicked() {
    on_every_admin(|store, clock| {
        let sessions = sessions_in(Arc::clone(store));
        for n in 0..3 {
            saved(&sessions, n, None);
        }
        clock.advance(secs(15 * 86_400));
        let options = SweepOptions::new().full(true).observer(|_| panic_quietly());
        let report = store.sweep(&options).unwrap();
        assert_eq!((report.removed, report.failed, store.count().unwrap()), (3, 0, 0));
    });
}

/// The observer may use the session's id: no lock of the session is held.
#[test]
fn an_observer_of_a_sweep_may_use_the_store() {
    on_every_admin(|store, clock| {
        let sessions = sessions_in(Arc::clone(store));
        let removed = saved(&sessions, 1, None);
        clock.advance(secs(15 * 86_400));
        let (weak, found) = (Arc::downgrade(store), Arc::new(Mutex::new(Vec::new())));
        let results = Arc::clone(&found);
        let options = SweepOptions::new().full(true).observer(move |event| {
            let Event::Ended { id, .. } = event else { panic!("{event:?}") };
            let store = weak.upgrade().unwrap();
            results.lock().push(store.delete_by_id(id).is_ok_and(|there| there.is_none()));
            results.lock().push(store.health().is_ok());
        });
        store.sweep(&options).unwrap();
        assert_eq!(*found.lock(), [true, true], "{removed}");
    });
}

#[test]
fn a_reaper_reports_the_sessions_that_it_removes() {
    on_every_admin(|store, clock| {
        let sessions = sessions_in(Arc::clone(store));
        let removed = saved(&sessions, 1, None);
        clock.advance(secs(15 * 86_400));
        let log = Log::default();
        let options = ReaperOptions::new().interval(Duration::from_millis(100)).sweep(sweeping(&log));
        let reaper = Reaper::start(store, options).unwrap();
        eventually("a sweep", || !log.0.lock().is_empty());
        let done = reaper.close();
        assert_eq!((done.removed, done.panics), (1, 0));
        log.check([(Seen::Ended(removed, EndReason::Expired), with(1, None))]);
    });
}

// ------------------------------------------------------------------------------------ the limit of a user

#[test]
fn a_session_that_a_login_ends_is_reported_without_its_locks() {
    let dir = quick_directory();
    let log = Log::default();
    let (noted, second) = (log.clone(), FileStoreOptions::new().open(dir.path()).unwrap());
    let second = sessions_in(second);
    let store = FileStoreOptions::new()
        .sessions_per_user(2, AtLimit::EndOldest)
        .observer(move |event| {
            noted.note(event);
            // A login of the same user does not wait for this one.
            saved(&second, 9, Some("bob"));
        })
        .open(dir.path())
        .unwrap();
    let sessions = sessions_in(store);
    let first = saved(&sessions, 1, Some("ada"));
    saved(&sessions, 2, Some("ada"));
    log.check([]);
    saved(&sessions, 3, Some("ada"));
    log.check([(Seen::Ended(first, EndReason::Limit), with(1, Some("ada")))]);
}

/// The debug output of an event shows neither the user nor a value.
#[test]
fn an_event_shows_no_user_and_no_value() {
    let store = sessile::rows::MemoryStore::new();
    let shown = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&shown);
    let sessions = sessions_in(store).with_observer(move |event| log.lock().push(format!("{event:?}")));
    let mut session = sessions.session([]);
    session.insert("secret-name", "secret-value").unwrap();
    session.login_from("secret-user", "secret-device").unwrap();
    session.save().unwrap();
    session.rotate_id();
    session.save().unwrap();
    sessions.delete_of("secret-user", None).unwrap();
    session.destroy().unwrap();
    let shown = shown.lock();
    assert_eq!(shown.len(), 4, "{shown:?}");
    assert!(shown.iter().all(|text| !text.contains("secret")), "{shown:?}");
}
