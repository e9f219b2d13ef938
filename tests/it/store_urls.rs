//! `Sessions::open` and `StoreUrl`: one text names the store, the reaper lives as long as its sessions, and whatever is
//! refused leaves nothing behind. A store that does not accept a lifetime or a cookie is never used with them.
use crate::support::memory::Stage;
use crate::support::rerun::{again, stage};
use crate::support::texts::directory_in_memory;
use crate::support::waiting::eventually;
use sessile::store_url::StoreUrl;
use sessile::{
    Admin, Change, Cookies, Durability, Error, ErrorKind, Guarantees, Lifetime, Lookup, Record, Result,
    Rotation, Saved, Sessions, Store, Token,
};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(86_400);

/// Whether no process has the store open.
fn is_closed(dir: &Path) -> bool {
    // An open store has its root locked.
    File::open(dir).unwrap().try_lock().is_ok()
}

/// The number of this process's threads that are reapers.
fn reapers() -> usize {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let name = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("comm")).ok();
    let names = threads.filter_map(|thread| name(thread.unwrap()));
    names.filter(|name| name == "sessile-reaper\n").count()
}

/// A visit that saves an entry, and another one that finds it.
#[track_caller]
fn check_works(sessions: &Sessions) {
    let mut visit = sessions.visit([]);
    visit.insert("n", 7).unwrap();
    visit.save().unwrap();
    let token = visit.token().unwrap();
    assert_eq!(sessions.session(token).get::<u64>("n").unwrap(), Some(7));
}

/// In a process of its own, whose threads are counted.
#[test]
fn the_reaper_ends_and_the_directory_is_free_with_the_last_clone() {
    let Some(stage) = stage() else {
        let dir = directory_in_memory();
        let name = "store_urls::the_reaper_ends_and_the_directory_is_free_with_the_last_clone";
        return again(name, dir.path());
    };
    let dir = stage.join("sessions");
    for place in [dir.clone(), PathBuf::from(format!("file:{}", dir.display()))] {
        let sessions = Sessions::open(&place, Cookies::plain_http()).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o700);
        eventually("a reaper runs", || reapers() == 1);
        // A clone that is changed, or made from a changed one, has the same reaper.
        let week = Lifetime::new().age(7 * DAY);
        let clones = [
            sessions.clone(),
            sessions.clone().with_lifetime(week).unwrap(),
            sessions.clone().with_observer(|_| {}),
        ];
        check_works(&sessions);
        drop(sessions);
        for clone in clones {
            check_works(&clone);
            assert_eq!((reapers(), is_closed(&dir)), (1, false));
        }
        // Both are so when the last drop has returned; nothing has to be waited for. (The kernel lists a thread that
        // has been joined for a moment.)
        assert!(is_closed(&dir));
        eventually("the reaper has ended", || reapers() == 0);
    }
    // What is refused after the reaper has started ends it.
    let sessions = Sessions::open(&dir, Cookies::plain_http()).unwrap();
    let refused = sessions.with_lifetime(Lifetime::new().age(Duration::ZERO)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert!(is_closed(&dir));
    eventually("the reaper has ended", || reapers() == 0);
}

#[test]
fn the_reaper_of_open_removes_expired_sessions() {
    let dir = directory_in_memory();
    let sessions = Sessions::open(dir.path(), Cookies::plain_http()).unwrap();
    let reader = StoreUrl::parse(dir.path()).unwrap().open().unwrap();
    let now = SystemTime::now();
    sessions.store().create(&Record::new(now, now), Durability::Relaxed).unwrap();
    assert_eq!(reader.count().unwrap(), 1);
    // The first sweep begins within ten seconds.
    eventually("it is removed", || reader.count().unwrap() == 0);
}

/// In a process of its own, whose working directory is watched.
#[test]
fn what_is_refused_leaves_no_directory_behind() {
    let Some(stage) = stage() else {
        let dir = directory_in_memory();
        let stage = dir.path().join("stage");
        fs::create_dir(&stage).unwrap();
        return again("store_urls::what_is_refused_leaves_no_directory_behind", &stage);
    };
    let dir = stage.join("sessions");
    for cookies in [
        Cookies::plain_http().name("two words"),
        Cookies::plain_http().name(""),
        Cookies::https().domain("exa mple"),
    ] {
        let case = format!("{cookies:?}");
        assert_eq!(Sessions::open(&dir, cookies).unwrap_err().kind(), ErrorKind::Config, "{case}");
        assert!(!dir.exists(), "{case}");
    }
    for (place, kind) in [
        ("", ErrorKind::Config),
        ("file:", ErrorKind::Config),
        ("file://host/sessions", ErrorKind::Config),
        ("memory:sessions", ErrorKind::Config),
        ("http://ada:hunter2@host", ErrorKind::Config),
        (" postgres://ada:hunter2@host/shop", ErrorKind::Config),
        ("postgres://ada:hunter2@host/shop", ErrorKind::Unsupported),
        ("redis:sessions", ErrorKind::Unsupported),
    ] {
        let error = Sessions::open(place, Cookies::plain_http()).unwrap_err();
        assert_eq!(error.kind(), kind, "{place}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    let left =
        |dir: &Path| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(left(&stage), [""; 0]);
    assert_eq!(left(Path::new(".")), ["stage"], "the working directory");
    // A relative path is a directory in the working directory, whatever is in its name.
    let sessions = Sessions::open("./memory:", Cookies::plain_http()).unwrap();
    check_works(&sessions);
    assert!(Path::new("memory:/sessile.json").exists());
}

#[test]
fn sessions_in_memory_end_with_the_store_and_are_apart() {
    let open = || Sessions::open("memory:", Cookies::plain_http()).unwrap();
    let [one, other] = [open(), open()];
    check_works(&one);
    let mut visit = one.visit([]);
    visit.login("ada").unwrap();
    visit.save().unwrap();
    let token = visit.token().unwrap();
    assert_eq!(one.clone().session(token.clone()).user().unwrap().as_deref(), Some("ada"));
    assert_eq!(other.session(token).user().unwrap(), None);
    assert_eq!(one.store().guarantees(), Guarantees::all());
    assert_eq!(StoreUrl::parse("MEMORY:").unwrap().to_string(), "memory:");
}

/// A store that accepts lifetimes of at most a day, and one name of the cookie.
struct Strict {
    inner: Arc<dyn Store>,
    cookie: &'static str,
}

impl Store for Strict {
    fn accepts(&self, lifetime: &Lifetime, cookie_name: &str) -> Result<()> {
        let reason = if *lifetime != Lifetime::new().age(DAY) {
            "a session lasts for a day"
        } else if cookie_name != self.cookie {
            "another cookie"
        } else {
            return Ok(());
        };
        let cause = Error::new(ErrorKind::Storage, "read the keys");
        Err(Error::new(ErrorKind::Config, "use a strict store").with_reason(reason).with_source(cause))
    }
    fn now(&self) -> SystemTime {
        self.inner.now()
    }
    fn is_well_formed(&self, token: &Token) -> bool {
        self.inner.is_well_formed(token)
    }
    fn load(&self, token: &Token) -> Result<Lookup> {
        self.inner.load(token)
    }
    fn create(&self, record: &Record, how: Durability) -> Result<Saved> {
        self.inner.create(record, how)
    }
    fn update(&self, token: &Token, change: Change<'_>, how: Durability) -> Result<Option<Saved>> {
        self.inner.update(token, change, how)
    }
    fn rotate(&self, token: &Token, change: Change<'_>, how: &Rotation<'_>) -> Result<Option<Saved>> {
        self.inner.rotate(token, change, how)
    }
    fn delete(&self, token: &Token) -> Result<Option<sessile::store::Deleted>> {
        self.inner.delete(token)
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[track_caller]
fn check_refused(made: Result<Sessions>, reason: &str) {
    let error = made.map(drop).unwrap_err();
    let want = format!("failed to use a strict store: {reason}");
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Config, want));
    let cause = std::error::Error::source(&error).expect("the error passes through as it was");
    assert_eq!(cause.to_string(), "failed to read the keys");
}

#[test]
fn a_store_is_asked_whether_it_accepts_lifetime_and_cookie() {
    let strict = |cookie| Strict { inner: Stage::memory().store, cookie };
    let (day, week) = (Lifetime::new().age(DAY), Lifetime::new().age(7 * DAY));
    let (plain, https) = (Cookies::plain_http, Cookies::https);
    let too_long = "a session lasts for a day";
    check_refused(Sessions::new(strict("session"), plain()), too_long);
    check_refused(Sessions::lasting(week.clone(), strict("session"), plain()), too_long);
    let sessions = Sessions::lasting(day.clone(), strict("session"), plain()).unwrap();
    check_works(&sessions);
    check_refused(sessions.clone().with_lifetime(week.clone()), too_long);
    check_works(&sessions.with_lifetime(day.clone()).unwrap());
    // The name is the one that the browser sees, with its prefix.
    for (cookies, name) in [(https(), "__Host-session"), (plain().name("shop"), "shop")] {
        check_refused(Sessions::lasting(day.clone(), strict("session"), cookies.clone()), "another cookie");
        check_works(&Sessions::lasting(day.clone(), strict(name), cookies).unwrap());
    }
    // A shared store is asked as well.
    let shared: Arc<dyn Store> = Arc::new(strict("session"));
    check_refused(Sessions::new(Arc::clone(&shared), plain()), too_long);
    check_works(&Sessions::lasting(day, Arc::new(shared), plain()).unwrap());
    // A lifetime that is out of bounds, and wrong cookies, are refused before the store is asked.
    let zero = Lifetime::new().age(Duration::ZERO);
    let error = Sessions::lasting(zero, strict("session"), plain()).unwrap_err();
    assert!(!error.to_string().contains("strict store"), "{error}");
}
