//! The limit on the live sessions of a user: exact at each login, whatever other threads and processes do.
use crate::admin::set_format;
use crate::support::memory::sessions_in;
use crate::support::process::{Child, Parent, Start, Worker, hear_from_all, say_to_all};
use crate::support::server::Reply;
use crate::support::sweeping::HOUR;
use crate::support::texts::{directory_in_memory, path_of};
use fs2::FileExt;
use sessile::file::AtLimit;
use sessile::http;
use sessile::{
    Admin, Clock, Durability, ErrorKind, FileStore, FileStoreOptions, Page, PublicId, Record, Result,
    Rotation, Saved, Session, Store, Token, Verdict,
};
use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};
use tempfile::TempDir;

pub(crate) const WORKERS: &[(&str, Worker)] = &[("log in again and again", log_in_again_and_again)];

const LIMIT: usize = 3;

struct Fixture {
    dir: TempDir,
    clock: Clock,
}

impl Fixture {
    fn new() -> Self {
        Self { dir: directory_in_memory(), clock: Clock::manual(UNIX_EPOCH + HOUR * 500_000) }
    }
    fn store(&self, at_limit: AtLimit) -> FileStore {
        options(at_limit).clock(self.clock.clone()).open(self.dir.path()).unwrap()
    }
    /// A store of the same directory that has no limit.
    fn unlimited(&self) -> FileStore {
        FileStoreOptions::new().clock(self.clock.clone()).open(self.dir.path()).unwrap()
    }
}

fn options(at_limit: AtLimit) -> FileStoreOptions {
    FileStoreOptions::new()
        .sessions_per_user(LIMIT, at_limit)
        .sync_security_events(false)
        .lock_wait(Duration::from_secs(60))
}

/// A login by a new session, a microsecond after the one before.
fn create(store: &FileStore, user: &str) -> Result<Saved> {
    let now = store.now();
    let mut record = Record::new(now, now + 24 * HOUR).with_user(user).unwrap();
    record.set_login(sessile::record::Login { at: Some(now), ..record.login() });
    store.create(&record, Durability::Relaxed)
}

/// A login of a session that exists; `None` if it is gone.
fn move_to(store: &FileStore, token: &Token, user: &str) -> Result<Option<Saved>> {
    let now = store.now();
    let mut change = |record: &mut Record| {
        record.set_user(user)?;
        record.set_login(sessile::record::Login { at: Some(now), ..record.login() });
        Ok(Verdict::Write)
    };
    store.rotate(token, &mut change, &Rotation::new(Durability::Relaxed).login(user))
}

fn rotate(store: &FileStore, token: &Token) -> Result<Option<Saved>> {
    store.rotate(token, &mut |_| Ok(Verdict::Keep), &Durability::Relaxed.into())
}

/// The ids of a user's live sessions, by a complete list.
#[track_caller]
fn live(store: &FileStore, user: &str) -> Vec<PublicId> {
    let page = store.sessions_of(user, &Page::default()).unwrap();
    assert!(page.complete);
    page.sessions.iter().map(|session| session.id).collect()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(login: Result<T>) {
    let error = login.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooManySessions);
    assert_eq!(error.to_string(), "failed to log in: the user has 3 sessions, where the limit is 3");
}

fn sorted(mut ids: Vec<PublicId>) -> Vec<PublicId> {
    ids.sort_unstable();
    ids
}

#[test]
fn a_login_beyond_the_limit_is_refused_and_changes_nothing() {
    let fixture = Fixture::new();
    let store = fixture.store(AtLimit::Refuse);
    let guest = store.create(&Record::new(store.now(), store.now() + HOUR), Durability::Relaxed).unwrap();
    let three = [(); LIMIT].map(|()| create(&store, "ada").unwrap());
    refused(create(&store, "ada"));
    refused(move_to(&store, &guest.token, "ada"));
    assert_eq!(live(&store, "ada"), sorted(three.iter().map(|saved| saved.live.id).collect()));
    let is_there = |token| matches!(store.load(token).unwrap(), sessile::Lookup::Live(_));
    assert!(is_there(&guest.token), "the session of the refused login stays");
    // Another user, a session without one, and a session that this user has already, are not refused.
    create(&store, "bob").unwrap();
    store.create(&Record::new(store.now(), store.now() + HOUR), Durability::Relaxed).unwrap();
    let again = move_to(&store, &three[0].token, "ada").unwrap().unwrap();
    assert!(rotate(&store, &again.token).unwrap().is_some());
    refused(create(&store, "ada"));
    // A session that has ended makes room, and so does one that has expired.
    store.delete(&three[1].token).unwrap();
    create(&store, "ada").unwrap();
    refused(create(&store, "ada"));
    fixture.clock.advance(24 * HOUR);
    (0..LIMIT).for_each(|_| drop(create(&store, "ada").unwrap()));
    refused(create(&store, "ada"));
}

#[test]
fn at_the_limit_the_sessions_with_the_oldest_login_end() {
    let fixture = Fixture::new();
    let (store, unlimited) = (fixture.store(AtLimit::EndOldest), fixture.unlimited());
    let login = |store: &FileStore| {
        fixture.clock.advance(Duration::from_secs(1));
        create(store, "ada").unwrap()
    };
    let mut sessions: Vec<_> = (0..6).map(|_| login(&unlimited)).collect();
    let ids = |sessions: &[Saved]| sorted(sessions.iter().map(|saved| saved.live.id).collect());
    assert_eq!(live(&store, "ada"), ids(&sessions), "a limit that is new ends nothing by itself");
    // The first has logged in again, so the second is the oldest.
    fixture.clock.advance(Duration::from_secs(1));
    sessions[0] = move_to(&unlimited, &sessions[0].token, "ada").unwrap().unwrap();
    sessions.push(login(&store));
    let left = [sessions[5].clone(), sessions[0].clone(), sessions[6].clone()];
    assert_eq!(live(&store, "ada"), ids(&left));
    for ended in &sessions[1..5] {
        assert!(matches!(unlimited.load(&ended.token).unwrap(), sessile::Lookup::Absent(_)));
    }
    // A login of a session that is gone ends nothing.
    assert!(move_to(&store, &sessions[1].token, "ada").unwrap().is_none());
    assert_eq!(live(&store, "ada"), ids(&left));
    // A login of one of its own sessions ends none.
    let moved = move_to(&store, &left[0].token, "ada").unwrap().unwrap();
    assert_eq!(live(&store, "ada"), ids(&[moved, left[1].clone(), left[2].clone()]));
}

/// The login button of a page that was rotated meanwhile: the session that the login moves does not count.
#[test]
fn a_login_with_a_rotated_id_counts_as_that_of_its_successor() {
    for at_limit in [AtLimit::Refuse, AtLimit::EndOldest] {
        let fixture = Fixture::new();
        let store = fixture.store(at_limit);
        let mut three = [(); LIMIT].map(|()| create(&store, "ada").unwrap());
        let how = Rotation::new(Durability::Relaxed).grace(Duration::from_secs(60));
        let old = three[0].token.clone();
        three[0] = store.rotate(&old, &mut |_| Ok(Verdict::Keep), &how).unwrap().unwrap();
        three[0] = move_to(&store, &old, "ada").unwrap().unwrap();
        assert_eq!(live(&store, "ada"), sorted(three.iter().map(|saved| saved.live.id).collect()));
    }
}

#[test]
fn a_limit_is_exact_without_an_index() {
    for lost in ["run", "run/users", "run/users/complete", "run/users/made"] {
        let fixture = Fixture::new();
        let store = fixture.store(AtLimit::Refuse);
        (0..LIMIT).for_each(|_| drop(create(&store, "ada").unwrap()));
        let path = fixture.dir.path().join(lost);
        fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path)).unwrap();
        refused(create(&store, "ada"));
        assert_eq!(live(&store, "ada").len(), LIMIT, "{lost}: the count has completed the index");
    }
}

/// A newer version of this crate has served the user's sessions, and they wait for its return.
#[test]
fn a_session_of_another_version_does_not_count() {
    let fixture = Fixture::new();
    let store = fixture.store(AtLimit::Refuse);
    let [newer, others @ ..] = [(); LIMIT].map(|()| create(&store, "ada").unwrap().live.id);
    set_format(&path_of(fixture.dir.path(), newer), 9);
    let fourth = create(&store, "ada").unwrap().live.id;
    refused(create(&store, "ada"));
    let page = store.sessions_of("ada", &Page::default()).unwrap();
    assert!(!page.complete, "it may be the user's");
    let listed: Vec<_> = page.sessions.iter().map(|session| session.id).collect();
    assert_eq!(listed, sorted([&others[..], &[fourth]].concat()));
}

#[test]
fn limits_out_of_bounds_are_refused() {
    let dir = TempDir::new().unwrap();
    for most in [0, 1001] {
        let opened = FileStoreOptions::new().sessions_per_user(most, AtLimit::Refuse).open(dir.path());
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().ends_with("the limit on the sessions of a user must be 1 to 1,000"));
    }
}

#[test]
fn a_refused_login_is_409_and_sends_no_cookie() {
    let fixture = Fixture::new();
    let sessions = sessions_in(fixture.store(AtLimit::Refuse)).with_observer(|_| {});
    for n in 0..=LIMIT {
        let log_in = |session: &mut Session| -> Result<Reply> {
            session.login("ada")?;
            Ok(Reply(200, "hello"))
        };
        let (Reply(status, text), headers) = http::serve(&sessions, "theme=dark", |session: &mut Session| {
            log_in(session).unwrap_or(Reply(500, "it failed"))
        });
        let has_cookie = headers.iter().any(|(name, _)| *name == "Set-Cookie");
        if n < LIMIT {
            assert_eq!((status, has_cookie), (200, true), "{text}");
        } else {
            let refusal = "You are logged in on too many devices. Please log out on one of them.\n";
            assert_eq!((status, text, has_cookie), (409, refusal, false));
        }
    }
}

/// The logins of one thread: by new sessions, and by sessions that another login may have ended meanwhile. Between two
/// logins, it rotates its session, so that others count a session while it moves. Returns the logins that were
/// admitted.
fn log_in_often(store: &FileStore, rounds: usize, most: &AtomicUsize) -> usize {
    let (mut admitted, mut own): (_, Option<Saved>) = (0, None);
    for round in 0..rounds {
        let login = match &own {
            Some(saved) if round % 2 == 0 => move_to(store, &saved.token, "ada").transpose(),
            _ => Some(create(store, "ada")),
        };
        match login {
            Some(Ok(saved)) => {
                admitted += 1;
                own = rotate(store, &saved.token).unwrap().or(Some(saved));
            }
            Some(Err(error)) => assert_eq!(error.kind(), ErrorKind::TooManySessions, "{error}"),
            None => own = None,
        }
        if round % 5 == 4
            && let Some(saved) = own.take()
        {
            store.delete(&saved.token).unwrap();
        }
        most.fetch_max(most_at_once(store), Ordering::Relaxed);
    }
    admitted
}

/// The number of live sessions of "ada" at one instant, or fewer: those that exist at the end of the listing too.
fn most_at_once(store: &FileStore) -> usize {
    let page = store.sessions_of("ada", &Page::default()).unwrap();
    let is_live = |id| matches!(store.load_by_id(id).unwrap(), sessile::Lookup::Live(_));
    // A rotation and a login of a session have two for a moment, and both may be seen. They began at one time.
    let mut logins: Vec<_> =
        page.sessions.iter().filter(|session| is_live(&session.id)).map(|session| session.created).collect();
    logins.sort_unstable();
    logins.dedup();
    logins.len()
}

#[test]
fn eight_threads_that_log_in_never_exceed_the_limit() {
    for at_limit in [AtLimit::Refuse, AtLimit::EndOldest] {
        let dir = directory_in_memory();
        let stores = [(); 2].map(|()| options(at_limit).open(dir.path()).unwrap());
        let (most, admitted) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for n in 0..8 {
                let (store, most, admitted) = (&stores[n % 2], &most, &admitted);
                scope.spawn(move || admitted.fetch_add(log_in_often(store, 25, most), Ordering::Relaxed));
            }
        });
        let (most, admitted) = (most.into_inner(), admitted.into_inner());
        assert!(most <= LIMIT, "{at_limit:?}: {most} at once");
        assert!(admitted > LIMIT, "{at_limit:?}: {admitted} logins");
        // Nothing hinders the user afterwards.
        let left = live(&stores[0], "ada");
        assert!(left.len() <= LIMIT, "{at_limit:?}: {left:?}");
        for id in &left {
            assert!(stores[0].delete_session_of("ada", id).unwrap().is_some());
        }
        (0..LIMIT).for_each(|_| drop(create(&stores[1], "ada").unwrap()));
        assert_eq!(live(&stores[0], "ada").len(), LIMIT);
    }
}

/// Rotates a session without a pause until it is gone, or until the test is over. Returns the session if it is alive
/// then.
fn rotate_on(store: &FileStore, mut saved: Saved, is_over: &AtomicBool) -> Option<Saved> {
    while !is_over.load(Ordering::Relaxed) {
        saved = rotate(store, &saved.token).unwrap()?;
    }
    rotate(store, &saved.token).unwrap()
}

/// Runs `operation` while a session rotates without a pause. Returns the result, and the session if it is alive then.
fn beside_rotations<R>(store: &FileStore, first: Saved, operation: impl FnOnce() -> R) -> (R, Option<Saved>) {
    /// Ends the rotations also if the operation panics.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let rotating = scope.spawn(|| rotate_on(store, first, &is_over));
        let over = Over(&is_over);
        let result = operation();
        drop(over);
        (result, rotating.join().unwrap())
    })
}

/// As many logins at once as there is room for are all admitted, and one more is not, while a session of the user
/// rotates.
#[test]
fn logins_beside_rotations_are_admitted_up_to_the_limit() {
    let dir = directory_in_memory();
    let stores = [(); 2].map(|()| options(AtLimit::Refuse).open(dir.path()).unwrap());
    let first = create(&stores[0], "ada").unwrap();
    let log_in_at_once = |round: usize| {
        let start = &Barrier::new(4);
        let log_in = |n: usize| {
            start.wait();
            create(&stores[n % 2], "ada")
        };
        let log_in = &log_in;
        let logins: Vec<_> = thread::scope(|scope| {
            let logins: Vec<_> = (0..4).map(|n| scope.spawn(move || log_in(n))).collect();
            logins.into_iter().map(|login| login.join().unwrap()).collect()
        });
        let saved: Vec<_> = logins.iter().filter_map(|login| login.as_ref().ok()).collect();
        assert_eq!(saved.len(), LIMIT - 1, "round {round}: {logins:?}");
        for saved in saved {
            stores[0].delete(&saved.token).unwrap();
        }
    };
    let ((), last) = beside_rotations(&stores[0], first, || (0..20).for_each(log_in_at_once));
    assert!(last.is_some(), "no login may end it");
}

/// The session with the oldest login has another id each time that it is to be ended.
#[test]
fn a_session_that_rotates_all_the_time_is_ended_by_a_login() {
    for round in 0..20 {
        let dir = directory_in_memory();
        let stores = [(); 2].map(|()| options(AtLimit::EndOldest).open(dir.path()).unwrap());
        let mut sessions = [(); LIMIT].map(|()| create(&stores[0], "ada").unwrap());
        sessions.sort_by_key(|saved| saved.live.record.login().at);
        let [oldest, others @ ..] = sessions;
        let (saved, last) = beside_rotations(&stores[0], oldest, || create(&stores[1], "ada").unwrap());
        assert!(last.is_none(), "round {round}: the oldest session lives on: {last:?}");
        let left = sorted(others.iter().chain([&saved]).map(|saved| saved.live.id).collect());
        assert_eq!(live(&stores[0], "ada"), left, "round {round}");
    }
}

/// The longest wait for locks of a login here. A wait for each of several locks would be seen.
const SHORT_WAIT: Duration = Duration::from_millis(400);

/// A process that was stopped while it rotated a session holds locks for ever.
#[test]
fn a_login_waits_for_stopped_processes_no_longer_than_the_lock_limit() {
    let dir = directory_in_memory();
    let open = |most, at_limit| {
        let options = FileStoreOptions::new().lock_wait(SHORT_WAIT).sync_security_events(false);
        options.sessions_per_user(most, at_limit).open(dir.path()).unwrap()
    };
    let [refusing, ending] = [open(8, AtLimit::Refuse), open(1, AtLimit::EndOldest)];
    let sessions = [(); 6].map(|()| create(&refusing, "ada").unwrap());
    let waits = |log_in: &dyn Fn() -> Result<Saved>| {
        let begun = Instant::now();
        let result = log_in();
        let waited = begun.elapsed();
        assert!(SHORT_WAIT <= waited && waited < 3 * SHORT_WAIT, "{waited:?}");
        result
    };
    for is_held in [|name: &str| name.len() == "fff".len(), |name: &str| name.len() == "ff.lock".len()] {
        let in_index = fs::read_dir(dir.path().join("run/users")).unwrap().map(|file| file.unwrap());
        let held: Vec<_> = in_index.filter(|file| is_held(file.file_name().to_str().unwrap())).collect();
        let [held] = &held[..] else { panic!("one user has one of these: {held:?}") };
        let held = fs::File::open(held.path()).unwrap();
        FileExt::lock_shared(&held).unwrap();
        assert_eq!(waits(&|| create(&refusing, "ada")).unwrap_err().kind(), ErrorKind::Busy);
    }
    // A login that ends sessions waits once for all of them, and then ends them without their locks.
    let held = sessions.each_ref().map(|saved| fs::File::open(path_of(dir.path(), saved.live.id)).unwrap());
    for file in &held {
        FileExt::lock_exclusive(file).unwrap();
    }
    let saved = waits(&|| create(&ending, "ada")).unwrap();
    assert_eq!(live(&ending, "ada"), [saved.live.id]);
}

fn log_in_again_and_again(parent: &Parent) {
    let at_limit = if parent.argument("AT_LIMIT") == "refuse" { AtLimit::Refuse } else { AtLimit::EndOldest };
    let store = options(at_limit).open(Path::new(&parent.argument("DIR"))).unwrap();
    parent.report("ready");
    parent.line();
    let most = AtomicUsize::new(0);
    let admitted = log_in_often(&store, 30, &most);
    parent.report(format!("{} {admitted}", most.into_inner()));
}

#[test]
fn processes_that_log_in_never_exceed_the_limit() {
    for (name, at_limit) in [("refuse", AtLimit::Refuse), ("end oldest", AtLimit::EndOldest)] {
        let dir = directory_in_memory();
        let store = options(at_limit).open(dir.path()).unwrap();
        let start =
            || Start::of("log in again and again").with("DIR", dir.path()).with("AT_LIMIT", name).start();
        let mut children: Vec<Child> = (0..4).map(|_| start()).collect();
        hear_from_all(&children, "ready");
        say_to_all(&mut children, "go");
        let mut logins = 0;
        for child in &children {
            let line = child.line();
            let (most, admitted) = line.split_once(' ').unwrap();
            let (most, admitted): (usize, usize) = (most.parse().unwrap(), admitted.parse().unwrap());
            assert!(most <= LIMIT, "{name}: {line}");
            logins += admitted;
        }
        assert!(logins >= LIMIT && live(&store, "ada").len() <= LIMIT, "{name}: {logins} logins");
        for child in children {
            child.finish();
        }
    }
}
