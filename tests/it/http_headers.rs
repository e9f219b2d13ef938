//! The headers of a response for every operation of a handler: exact header pairs, without a server.
//!
//! The promises: `Vary` if the handler has looked at the session. `Set-Cookie` only for a new token or a moved
//! deadline; it removes the cookie only after a logout that sent an id, or if the session has expired in this request.
//! `no-store` beside every cookie and every failure, `private` beside a live session. Nothing at all for a request that
//! left its session alone. And no text that is printed on the way contains the id.
use crate::support::cookie_jar::{Jar, SetCookie};
use crate::support::memory::files_but_moved;
use crate::support::probe::{Call, Probe, quick_directory};
use sessile::store::EndReason;
use sessile::{
    Clock, Cookies, Destroyed, Durability, ErrorKind, Event, Expiry, FileStore, FileStoreOptions, Lifetime,
    Lookup, PublicId, Record, Renewal, SameSite, Sessions, Store, Token, Verdict, Visit,
};
use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// The time at which every session here is created (Tue, 14 Nov 2023 22:13:20 GMT), plus `seconds`.
fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

/// A tenth of the default age of two weeks, in seconds. From here on, a renewal is saved.
const STEP: u64 = 120_960;

type Pair = (&'static str, &'static str);
/// A name and value of a response's header.
type Owned = (&'static str, Cow<'static, str>);
const VARY: Pair = ("Vary", "Cookie");
const PRIVATE: Pair = ("Cache-Control", "private");
const NO_STORE: Pair = ("Cache-Control", "no-store");
/// A header with `NEW` in place of an id that was not seen before and can be loaded. `OLD` stands for the id that the
/// request sent.
const NEW: Pair = (
    "Set-Cookie",
    "session=NEW; HttpOnly; SameSite=Lax; Path=/; Max-Age=1209600; Expires=Tue, 28 Nov 2023 22:13:20 GMT",
);
const NEW_A_STEP_LATER: Pair = (
    "Set-Cookie",
    "session=NEW; HttpOnly; SameSite=Lax; Path=/; Max-Age=1209600; Expires=Thu, 30 Nov 2023 07:49:20 GMT",
);
const OLD_A_STEP_LATER: Pair = (
    "Set-Cookie",
    "session=OLD; HttpOnly; SameSite=Lax; Path=/; Max-Age=1209600; Expires=Thu, 30 Nov 2023 07:49:20 GMT",
);
const REMOVAL: Pair = (
    "Set-Cookie",
    "session=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
);

/// The `Sessions` of a program, with its store, its clock and the events that it reported.
struct Site {
    dir: TempDir,
    clock: Clock,
    store: Arc<Probe<FileStore>>,
    sessions: Sessions,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// An event, with the data that it borrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Created(PublicId),
    Rotated(PublicId, PublicId),
    LoggedIn(Option<PublicId>, PublicId),
    Ended(PublicId, EndReason),
    Expired(PublicId),
    Malformed,
    NotFound(PublicId),
    Damaged(PublicId),
    Failed(ErrorKind),
    NotRenewed(ErrorKind),
}

impl Site {
    fn new() -> Self {
        Self::with(Cookies::plain_http(), Lifetime::new())
    }

    fn with(cookies: Cookies, lifetime: Lifetime) -> Self {
        Self::in_store(cookies, lifetime, FileStoreOptions::new())
    }

    /// A site whose store has no cache, so that it sees changes of files by other programs at once.
    fn without_cache(lifetime: Lifetime) -> Self {
        Self::in_store(Cookies::plain_http(), lifetime, FileStoreOptions::new().cache_bytes(0))
    }

    fn in_store(cookies: Cookies, lifetime: Lifetime, options: FileStoreOptions) -> Self {
        let dir = quick_directory();
        let clock = Clock::manual(at(0));
        let options = options.clock(clock.clone()).record_bytes_max(4096);
        let store = Probe::new(options.open(dir.path()).unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let diary = seen.clone();
        let sessions = Sessions::new(store.clone(), cookies)
            .unwrap()
            .with_lifetime(lifetime)
            .unwrap()
            .with_observer(move |event| diary.lock().unwrap().push(Seen::of(event)));
        Self { dir, clock, store, sessions, seen }
    }

    /// Creates a session with one entry at the time [`at`]`(0)`. Returns its token.
    fn session(&self) -> Token {
        self.session_with(|_| {})
    }

    fn session_with(&self, prepare: impl FnOnce(&mut Visit)) -> Token {
        self.clock.set(at(0));
        let mut visit = self.sessions.visit([]);
        visit.insert("a", 1).unwrap();
        prepare(&mut visit);
        visit.save().unwrap();
        let token = visit.token().unwrap().unwrap();
        drop(visit.discard());
        self.store.calls();
        self.seen.lock().unwrap().clear();
        token
    }

    /// The names of a session's entries, as the next request reads them.
    fn names(&self, token: &Token) -> Vec<String> {
        self.sessions.visit([&*header(token)]).names().unwrap()
    }

    #[track_caller]
    fn deadline(&self, token: &Token) -> SystemTime {
        match self.store.inner.load(token).unwrap() {
            Lookup::Live(live) => live.record.deadline(),
            Lookup::Absent(absent) => panic!("{absent:?}"),
        }
    }

    fn is_live(&self, token: &Token) -> bool {
        match self.store.inner.load(token).unwrap() {
            Lookup::Live(_) => true,
            Lookup::Absent(_) => false,
        }
    }

    /// The number of stored sessions, also of those that have ended.
    fn files(&self) -> usize {
        files_but_moved(&self.store.inner)
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// Replaces the ids in headers by `OLD` and `NEW`. Asserts first that they are what these names stand for.
    #[track_caller]
    fn masked(&self, headers: &[Owned], presented: Option<&Token>) -> Vec<Owned> {
        let has = |name: &str| headers.iter().any(|(n, _)| *n == name);
        assert!(has("Vary") || !has("Set-Cookie"), "a cookie without Vary: {headers:?}");
        headers
            .iter()
            .map(|(name, value)| {
                let Some(token) = token_of(&self.sessions, name, value) else {
                    return (*name, value.clone());
                };
                let word = if Some(&token) == presented { "OLD" } else { "NEW" };
                assert!(self.is_live(&token), "the cookie's session does not load");
                (*name, value.replacen(token.expose(), word, 1).into())
            })
            .collect()
    }
}

impl Seen {
    fn of(event: &Event<'_>) -> Self {
        match event {
            Event::Created { id, .. } => Self::Created(*id),
            Event::Rotated { from, to, .. } => Self::Rotated(*from, *to),
            Event::LoggedIn { from, to, .. } => Self::LoggedIn(*from, *to),
            Event::Ended { id, reason, .. } => Self::Ended(*id, *reason),
            Event::Expired(id) => Self::Expired(*id),
            Event::Malformed => Self::Malformed,
            Event::NotFound(id) => Self::NotFound(*id),
            Event::Damaged(id) => Self::Damaged(*id),
            Event::Failed(error) => Self::Failed(error.kind()),
            Event::NotRenewed(error) => Self::NotRenewed(error.kind()),
            other => panic!("an event this test does not know: {other:?}"),
        }
    }
}

/// The token that a `Set-Cookie` header gives to the browser.
fn token_of(sessions: &Sessions, name: &str, value: &str) -> Option<Token> {
    let value = value.split(';').next().filter(|_| name == "Set-Cookie")?.split_once('=')?.1;
    Token::parse(value).filter(|token| sessions.store().is_well_formed(token))
}

fn header(token: &Token) -> String {
    format!("session={}", token.expose())
}

fn id_of(token: &Token) -> PublicId {
    PublicId::digest(token.expose().as_bytes())
}

/// An id that no session has.
const UNKNOWN: &str = "abcdefghijklmnopqrstuvwxyz234567";

/// The cookie of a request.
#[derive(Clone, Copy, Debug)]
enum Visitor {
    /// No cookie.
    Nobody,
    /// The id that no session has.
    Stranger,
    /// The id of a session that was just created.
    Known,
    /// The id of a session that was created this many seconds ago.
    After(u64),
}
use Visitor::{After, Known, Nobody, Stranger};

/// An operation of a handler on its session.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Read,
    ReadUser,
    ReadDeadline,
    /// Sets the entry that the session has to its present value.
    InsertSame,
    Insert,
    InsertTooMuch,
    /// Removes the only entry of the session.
    Remove,
    RemoveMissing,
    Clear,
    Update,
    UpdateNow,
    TestCookie,
    Login,
    Rotate,
    Expire(Expiry),
    Destroy,
    Save,
}
use Operation::{
    Clear, Destroy, Expire, Insert, InsertSame, InsertTooMuch, Login, Read, ReadDeadline, ReadUser, Remove,
    RemoveMissing, Rotate, Save, TestCookie, Update, UpdateNow,
};

impl Operation {
    fn on(self, visit: &mut Visit) -> sessile::Result<()> {
        match self {
            Read => visit.get::<u32>("a").map(drop),
            ReadUser => visit.user().map(drop),
            ReadDeadline => visit.deadline().map(drop),
            InsertSame => visit.insert("a", 1),
            Insert => visit.insert("b", 2),
            // Each value alone is within the limit; together they exceed it.
            InsertTooMuch => {
                visit.insert("blob", "x".repeat(2500))?;
                visit.insert("glob", "x".repeat(2500))
            }
            Remove => visit.remove("a").map(drop),
            RemoveMissing => visit.remove("missing").map(drop),
            Update => visit.update("n", |n: &mut u32| *n += 1).map(drop),
            UpdateNow => visit.update_now("n", |n: &mut u32| *n += 1),
            TestCookie => visit.set_test_cookie(),
            Login => visit.login("ada"),
            Destroy => visit.destroy().map(drop),
            Save => visit.save(),
            Clear => {
                visit.clear();
                Ok(())
            }
            Rotate => {
                visit.rotate_id();
                Ok(())
            }
            Expire(expiry) => {
                visit.set_expiry(expiry);
                Ok(())
            }
        }
    }
}

/// Runs a request of this visitor, whose handler performs these operations.
#[track_caller]
fn arrive(site: &Site, visitor: Visitor, operations: &[Operation]) -> (Visit, Option<Token>) {
    let token = match visitor {
        Nobody => None,
        Stranger => Token::parse(UNKNOWN),
        Known | After(_) => Some(site.session()),
    };
    site.clock.set(at(if let After(seconds) = visitor { seconds } else { 0 }));
    let cookie = token.as_ref().map(header);
    let mut visit = site.sessions.visit(cookie.as_deref());
    for operation in operations {
        operation.on(&mut visit).unwrap();
    }
    (visit, token)
}

/// Runs such a request to its response, once for each status, and asserts the headers.
#[track_caller]
fn check(site: &Site, visitor: Visitor, operations: &[Operation], statuses: &[u16], want: &[Pair]) {
    for &status in statuses {
        let (visit, token) = arrive(site, visitor, operations);
        let headers = visit.finish(status).unwrap();
        let context = format!("{visitor:?} {operations:?}, status {status}");
        assert_eq!(site.masked(&headers, token.as_ref()), owned(want), "{context}");
    }
}

/// Runs such a request whose session cannot be saved, and asserts the error and the headers.
#[track_caller]
fn check_unsaved(site: &Site, visitor: Visitor, operations: &[Operation], kind: ErrorKind, want: &[Pair]) {
    let (visit, token) = arrive(site, visitor, operations);
    let unsaved = visit.finish(200).unwrap_err();
    assert_eq!(unsaved.error.kind(), kind);
    assert_eq!(site.masked(&unsaved.headers, token.as_ref()), owned(want), "{visitor:?} {operations:?}");
}

fn owned(pairs: &[Pair]) -> Vec<Owned> {
    pairs.iter().map(|(name, value)| (*name, Cow::Borrowed(*value))).collect()
}

const GOOD: &[u16] = &[200, 303, 409, 499];
const BAD: &[u16] = &[500, 503, 599];
const ALL: &[u16] = &[200, 303, 409, 499, 500, 503, 599];

#[test]
fn an_untouched_session_costs_no_call_and_leaves_no_header() {
    let site = Site::new();
    for visitor in [Nobody, Stranger, Known, After(STEP)] {
        check(&site, visitor, &[], ALL, &[]);
        assert_eq!(site.store.calls(), [], "{visitor:?}");
        assert_eq!(site.seen(), [], "{visitor:?}");
    }
    let hostile = ["session=../../etc; session=; session", "session=\"x\""];
    assert_eq!(site.sessions.visit(hostile).finish(200).unwrap(), []);
    assert_eq!(site.store.calls(), []);
}

#[test]
fn a_read_is_varied_and_private_if_it_found_a_session() {
    let site = Site::new();
    for operation in [Read, ReadUser, ReadDeadline, InsertSame, RemoveMissing] {
        check(&site, Known, &[operation], ALL, &[VARY, PRIVATE]);
        check(&site, After(STEP), &[operation], ALL, &[VARY, PRIVATE]);
    }
    for operation in [Read, ReadUser, ReadDeadline, RemoveMissing] {
        check(&site, Nobody, &[operation], ALL, &[VARY]);
        check(&site, Stranger, &[operation], ALL, &[VARY]);
    }
    let calls = site.store.calls();
    assert!(!calls.contains(&Call::Update) && !calls.contains(&Call::Rotate), "reads write nothing");
}

#[test]
fn an_expired_session_is_a_new_visitor() {
    let site = Site::new();
    check(&site, After(1_209_599), &[Read], ALL, &[VARY, PRIVATE]);
    check(&site, After(1_209_600), &[Read], ALL, &[VARY]);
    check(&site, After(1_209_600), &[Destroy], ALL, &[VARY, REMOVAL, NO_STORE]);
}

#[test]
fn a_new_session_sends_its_cookie_once_with_exactly_its_age() {
    let site = Site::new();
    for operation in [Insert, Update, UpdateNow, TestCookie, Login] {
        check(&site, Nobody, &[operation], GOOD, &[VARY, NEW, NO_STORE]);
        check(&site, Stranger, &[operation], GOOD, &[VARY, NEW, NO_STORE]);
    }
    for operation in [Insert, Update, UpdateNow, TestCookie] {
        check(&site, Known, &[operation], GOOD, &[VARY, PRIVATE]);
        check(&site, After(STEP - 1), &[operation], GOOD, &[VARY, PRIVATE]);
        check(&site, After(STEP), &[operation], GOOD, &[VARY, OLD_A_STEP_LATER, NO_STORE]);
    }
}

#[test]
fn a_visitor_who_stores_nothing_gets_no_cookie() {
    let site = Site::new();
    let fruitless: [&[Operation]; 10] = [
        &[Save],
        &[Destroy],
        &[Clear],
        &[Rotate],
        &[Expire(Expiry::After(Duration::from_secs(5)))],
        &[InsertSame, Remove],
        &[InsertSame, Clear],
        &[Insert, Destroy],
        &[UpdateNow, Destroy],
        &[Insert, Expire(Expiry::At(UNIX_EPOCH))],
    ];
    for operations in fruitless {
        check(&site, Nobody, operations, ALL, &[VARY]);
        let logout = operations.iter().any(|operation| matches!(operation, Destroy));
        check(&site, Stranger, operations, ALL, if logout { &[VARY, REMOVAL, NO_STORE] } else { &[VARY] });
    }
    assert_eq!(site.files(), 0);
}

#[test]
fn a_failed_request_saves_nothing_but_what_was_saved_explicitly() {
    let site = Site::new();
    for operation in [Insert, Update, Login] {
        check(&site, Nobody, &[operation], BAD, &[VARY]);
    }
    assert_eq!(site.files(), 0);
    for operation in [Insert, Update, Login, Remove] {
        check(&site, Known, &[operation], BAD, &[VARY, PRIVATE]);
        check(&site, After(STEP), &[operation], BAD, &[VARY, PRIVATE]);
    }
    for operation in [Rotate, Clear, Expire(Expiry::BrowserClose), Expire(Expiry::At(UNIX_EPOCH))] {
        check(&site, Known, &[operation], BAD, &[VARY]);
    }
    let calls = site.store.calls();
    assert!(
        calls.iter().all(|call| [Call::Load, Call::Create].contains(call)),
        "only made and read: {calls:?}"
    );

    check(&site, Nobody, &[Insert, Save], ALL, &[VARY, NEW, NO_STORE]);
    check(&site, Known, &[Insert, Save], ALL, &[VARY, PRIVATE]);
    check(&site, After(STEP), &[Insert, Save], ALL, &[VARY, OLD_A_STEP_LATER, NO_STORE]);
    check(&site, Known, &[Login, Save], ALL, &[VARY, NEW, NO_STORE]);
    check(&site, Known, &[Rotate, Save], ALL, &[VARY, NEW, NO_STORE]);
    check(&site, Nobody, &[UpdateNow], ALL, &[VARY, NEW, NO_STORE]);
    check(&site, Known, &[UpdateNow], ALL, &[VARY, PRIVATE]);
    // The change is saved. The response has an error status, so the session is not renewed.
    check(&site, After(STEP), &[UpdateNow], BAD, &[VARY, PRIVATE]);
    // Changes after an explicit save are lost if the response is an error.
    let (visit, token) = arrive(&site, Known, &[Insert, Save, Update, Remove]);
    visit.finish(500).unwrap();
    assert_eq!(site.names(&token.unwrap()), ["a", "b"]);
}

#[test]
fn discard_is_a_failed_request() {
    let site = Site::new();
    let check = |visitor, operations: &[Operation], want: &[Pair]| {
        let (visit, token) = arrive(&site, visitor, operations);
        assert_eq!(site.masked(&visit.discard(), token.as_ref()), owned(want), "{visitor:?} {operations:?}");
    };
    check(Nobody, &[Insert], &[VARY]);
    check(Known, &[Insert], &[VARY, PRIVATE]);
    check(Known, &[], &[]);
    check(Nobody, &[UpdateNow], &[VARY, NEW, NO_STORE]);
    check(Known, &[Destroy], &[VARY, REMOVAL, NO_STORE]);
}

#[test]
fn a_logout_removes_the_presented_cookie_on_any_status() {
    let site = Site::new();
    let endings: [&[Operation]; 7] = [
        &[Destroy],
        &[Read, Insert, Destroy],
        &[Destroy, Destroy],
        &[Destroy, Read],
        &[Login, Save, Destroy],
        &[UpdateNow, Destroy],
        // The request creates a session and ends it. The browser never had its id, but the id that it sent is dead,
        // too.
        &[Destroy, UpdateNow, Destroy],
    ];
    for operations in endings {
        check(&site, Known, operations, ALL, &[VARY, REMOVAL, NO_STORE]);
    }
    // The handler stores something after the logout: a new session, whose cookie replaces the old one.
    check(&site, Known, &[Destroy, Insert], GOOD, &[VARY, NEW, NO_STORE]);
    check(&site, Known, &[Destroy, Insert], BAD, &[VARY, REMOVAL, NO_STORE]);
    check(&site, Known, &[Destroy, UpdateNow], ALL, &[VARY, NEW, NO_STORE]);
    // An expiry setting that has passed ends the session when it is saved.
    for expiry in [Expiry::After(Duration::ZERO), Expiry::At(at(0)), Expiry::At(UNIX_EPOCH)] {
        check(&site, Known, &[Expire(expiry)], GOOD, &[VARY, REMOVAL, NO_STORE]);
        check(&site, Known, &[Expire(expiry)], BAD, &[VARY]);
    }
    // The request has sent an id, and the session may have been read or not, before or after the logout. In each case
    // the cookie is removed.
    for operations in [&[Destroy][..], &[Read, Destroy], &[Destroy, Read, Destroy], &[UpdateNow, Destroy]] {
        check(&site, Stranger, operations, ALL, &[VARY, REMOVAL, NO_STORE]);
        // If the request sent no id, the cookie is not removed. Otherwise another site could log visitors out, because
        // its requests carry no `SameSite` cookie.
        check(&site, Nobody, operations, ALL, &[VARY]);
    }
    for value in ["", "A", "../x", &"a".repeat(33)] {
        let mut visit = site.sessions.visit(format!("session={value}").as_str());
        assert_eq!(visit.destroy().unwrap(), Destroyed::WasGone);
        assert_eq!(visit.finish(200).unwrap(), owned(&[VARY]), "{value:?} is no id");
    }
}

/// Another request has given the browser a new id, or is about to. The logout must remove it.
#[test]
fn a_logout_that_meets_a_rotation_removes_the_cookie() {
    for operation in [Rotate, Login, Destroy] {
        let site = Site::new();
        let (mut visit, token) = arrive(&site, Known, &[Read]);
        let mut other = site.sessions.visit(header(&token.unwrap()).as_str());
        operation.on(&mut other).unwrap();
        other.finish(200).unwrap();
        // A rotated session is ended. A session into which another request has logged in is not.
        let expected = if matches!(operation, Rotate) { Destroyed::Ended } else { Destroyed::WasGone };
        assert_eq!(visit.destroy().unwrap(), expected, "{operation:?}");
        assert_eq!(visit.finish(200).unwrap(), owned(&[VARY, REMOVAL, NO_STORE]), "{operation:?}");
    }
}

/// If a session could not be ended, the browser keeps the cookie, so that the logout can be tried again. This holds for
/// an id that this request has made, too.
#[test]
fn a_logout_that_failed_takes_no_cookie_away() {
    let site = Site::new();
    let fail_deletions = |passes: usize| {
        let left = AtomicUsize::new(passes);
        site.store.before(move |call| {
            let passes = |n: usize| n.checked_sub(1);
            if call != Call::Delete || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, passes).is_ok() {
                return Ok(());
            }
            Err(sessile::Error::new(ErrorKind::Io, "remove session file"))
        });
    };
    // The request sends two ids. Ending the first session does not remove the cookie, because the second session is
    // alive.
    let tokens = [site.session(), site.session()];
    let lines = tokens.each_ref().map(header);
    let mut visit = site.sessions.visit(lines.iter().map(String::as_str));
    fail_deletions(1);
    visit.destroy().unwrap_err();
    site.store.leave_alone();
    assert_eq!(visit.finish(500).unwrap(), owned(&[VARY, NO_STORE]));
    assert_eq!(tokens.each_ref().map(|token| site.is_live(token)), [false, true]);

    // The login of this request has made a new id. It is sent although the logout failed, because otherwise no request
    // could end that session.
    let (mut visit, token) = arrive(&site, Known, &[Login, Save]);
    fail_deletions(0);
    visit.destroy().unwrap_err();
    site.store.leave_alone();
    let headers = visit.finish(500).unwrap();
    assert_eq!(site.masked(&headers, token.as_ref()), owned(&[VARY, NEW, NO_STORE]));
}

#[test]
fn a_failed_logout_promises_nothing_and_can_be_tried_again() {
    let site = Site::new();
    let (mut visit, token) = arrive(&site, Known, &[]);
    site.store.before(|call| match call {
        Call::Delete => Err(sessile::Error::new(ErrorKind::Io, "remove session file")),
        _ => Ok(()),
    });
    assert_eq!(visit.destroy().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(visit.finish(500).unwrap(), owned(&[VARY, NO_STORE]));
    let token = token.unwrap();
    assert!(site.is_live(&token));

    let mut visit = site.sessions.visit([&*header(&token)]);
    visit.destroy().unwrap_err();
    site.store.leave_alone();
    visit.destroy().unwrap();
    assert_eq!(visit.finish(200).unwrap(), owned(&[VARY, REMOVAL, NO_STORE]));
    assert!(!site.is_live(&token));
}

/// The session may have ended although the logout failed, because the last step is a sync. A second logout finds
/// nothing, and removes the cookie all the same.
#[test]
fn a_retried_logout_removes_the_cookie_of_an_ended_session() {
    let site = Site::new();
    let (mut visit, token) = arrive(&site, Known, &[]);
    let token = token.unwrap();
    let (store, presented) = (site.store.clone(), token.clone());
    site.store.before(move |call| match call {
        Call::Delete => {
            store.inner.delete(&presented)?;
            Err(sessile::Error::new(ErrorKind::DurabilityUnknown, "sync the end of session"))
        }
        _ => Ok(()),
    });
    assert_eq!(visit.destroy().unwrap_err().kind(), ErrorKind::DurabilityUnknown);
    assert!(!site.is_live(&token));
    site.store.leave_alone();
    visit.destroy().unwrap();
    assert_eq!(visit.finish(200).unwrap(), owned(&[VARY, REMOVAL, NO_STORE]));
}

#[test]
fn login_and_rotation_send_the_new_id_and_the_old_one_is_dead() {
    let site = Site::new();
    for (operation, user) in [(Login, Some("ada")), (Rotate, None)] {
        let (visit, token) = arrive(&site, Known, &[operation]);
        let headers = visit.finish(200).unwrap();
        assert_eq!(site.masked(&headers, token.as_ref()), owned(&[VARY, NEW, NO_STORE]));
        assert!(!site.is_live(&token.unwrap()));
        let next = site.sessions.visit([headers[1].1.split(';').next().unwrap()]);
        assert_eq!(next.user().unwrap().as_deref(), user);
        assert_eq!(next.get::<u32>("a").unwrap(), Some(1));
        // If a renewal is due, the deadline moves, too.
        check(&site, After(STEP), &[operation], GOOD, &[VARY, NEW_A_STEP_LATER, NO_STORE]);
    }
    // If not, a rotated session keeps its deadline, and the new cookie states the remaining time.
    let left = NEW.1.replace("Max-Age=1209600", "Max-Age=1209599").leak();
    check(&site, After(1), &[Rotate], GOOD, &[VARY, ("Set-Cookie", left), NO_STORE]);
}

#[test]
fn removing_or_clearing_all_entries_leaves_a_live_session() {
    let site = Site::new();
    for operation in [Remove, Clear] {
        check(&site, Known, &[operation], GOOD, &[VARY, PRIVATE]);
        let (visit, token) = arrive(&site, Known, &[operation]);
        visit.finish(200).unwrap();
        let token = token.unwrap();
        assert_eq!(site.names(&token), [""; 0], "{operation:?}");
        assert!(site.is_live(&token), "{operation:?}");
    }
}

#[test]
fn a_new_expiry_is_advertised_exactly() {
    let site = Site::new();
    let cases = [
        (Expiry::After(Duration::from_secs(300)), "; Max-Age=300; Expires=Tue, 14 Nov 2023 22:18:20 GMT"),
        // `Max-Age` is rounded up, so that the browser does not drop the cookie before the session expires.
        (Expiry::After(Duration::from_millis(1500)), "; Max-Age=2; Expires=Tue, 14 Nov 2023 22:13:22 GMT"),
        (Expiry::At(at(86_400)), "; Max-Age=86400; Expires=Wed, 15 Nov 2023 22:13:20 GMT"),
        (Expiry::BrowserClose, ""),
    ];
    for (expiry, end) in cases {
        let cookie = |word| &*format!("session={word}; HttpOnly; SameSite=Lax; Path=/{end}").leak();
        check(&site, Known, &[Expire(expiry)], GOOD, &[VARY, ("Set-Cookie", cookie("OLD")), NO_STORE]);
        let new = [VARY, ("Set-Cookie", cookie("NEW")), NO_STORE];
        check(&site, Nobody, &[Insert, Expire(expiry)], GOOD, &new);
    }
    // The session has this setting already, so no cookie is sent.
    check(&site, Known, &[Expire(Expiry::Default)], GOOD, &[VARY, PRIVATE]);
}

#[test]
fn max_age_and_expires_come_from_one_reading_of_the_clock() {
    let site = Site::new();
    let clock = site.clock.clone();
    // The clock moves with each reading. If the time were read twice, `Max-Age` would be a second less.
    site.store.before(move |call| {
        if call == Call::Now {
            clock.advance(Duration::from_secs(1));
        }
        Ok(())
    });
    let two_weeks = Expiry::After(Duration::from_secs(1_209_600));
    let saves: [&[Operation]; 5] =
        [&[Insert], &[UpdateNow], &[Insert, Save], &[Login], &[Insert, Expire(two_weeks)]];
    for operations in saves {
        for visitor in [Nobody, After(STEP)] {
            let (visit, _) = arrive(&site, visitor, operations);
            let headers = visit.finish(200).unwrap();
            let cookie = SetCookie::parse(&headers[1].1);
            assert_eq!(cookie.attributes["max-age"], "1209600", "{visitor:?} {operations:?}");
            let deadline = site.deadline(&Token::parse(&cookie.value).unwrap());
            assert_eq!(cookie.expires(), Some(deadline), "{visitor:?} {operations:?}");
        }
    }
}

#[test]
fn the_stored_deadline_is_the_one_last_advertised() {
    let site = Site::new();
    let mut jar = Jar::http();
    let mut advertised = None;
    for hour in 0..24 * 20 {
        site.clock.set(at(hour * 3600));
        let mut visit = site.sessions.visit(jar.header().as_deref());
        visit.update("n", |n: &mut u64| *n += 1).unwrap();
        for (name, value) in visit.finish(200).unwrap() {
            if name == "Set-Cookie" {
                jar.receive([&*value]);
                let max_age = SetCookie::parse(&value).attributes["max-age"].parse().unwrap();
                advertised = Some(site.clock.now() + Duration::from_secs(max_age));
            }
        }
        let token = Token::parse(jar.get("session").unwrap()).unwrap();
        assert_eq!(Some(site.deadline(&token)), advertised, "hour {hour}");
    }
}

#[test]
fn reads_renew_where_the_policy_says_so_but_never_on_a_failure() {
    let idle = Lifetime::new().idle_limit(Duration::from_secs(1_209_600));
    for lifetime in [Lifetime::new().renewal(Renewal::OnRead), idle] {
        let site = Site::with(Cookies::plain_http(), lifetime);
        check(&site, After(STEP), &[Read], GOOD, &[VARY, OLD_A_STEP_LATER, NO_STORE]);
        check(&site, After(STEP), &[Read], BAD, &[VARY, PRIVATE]);
        check(&site, After(STEP - 1), &[Read], ALL, &[VARY, PRIVATE]);
        check(&site, After(STEP), &[], ALL, &[]);
        check(&site, Nobody, &[Read], ALL, &[VARY]);
        check(&site, Stranger, &[Read], ALL, &[VARY]);
    }
}

#[test]
fn every_request_renews_also_an_untouched_session_and_makes_none() {
    let site = Site::with(Cookies::plain_http(), Lifetime::new().renewal(Renewal::EveryRequest));
    check(&site, After(STEP), &[], GOOD, &[VARY, OLD_A_STEP_LATER, NO_STORE]);
    check(&site, After(STEP), &[], BAD, &[]);
    check(&site, After(STEP - 1), &[], ALL, &[]);
    check(&site, After(STEP), &[Read], GOOD, &[VARY, OLD_A_STEP_LATER, NO_STORE]);
    let files = site.files();
    check(&site, Nobody, &[], ALL, &[]);
    check(&site, Stranger, &[], ALL, &[]);
    check(&site, Stranger, &[Read], ALL, &[VARY]);
    assert_eq!(site.files(), files);
    site.store.calls();
    check(&site, Stranger, &[], BAD, &[]);
    assert_eq!(site.store.calls(), [], "a failed request looks at nothing");
}

#[test]
fn a_changed_visit_that_is_dropped_unfinished_is_observed() {
    let site = Site::new();
    let unfinished = [Seen::Failed(ErrorKind::Unfinished)];
    let failures = || {
        let seen = site.seen().into_iter();
        seen.filter(|seen| matches!(seen, Seen::Failed(_))).collect::<Vec<_>>()
    };
    let expire = Expire(Expiry::After(Duration::from_secs(60)));
    for operation in [Insert, Remove, Clear, Update, TestCookie, Login, Rotate, expire, Destroy] {
        drop(arrive(&site, Known, &[operation]).0);
        assert_eq!(failures(), unfinished, "{operation:?}");
        drop(arrive(&site, Known, &[operation]).0.discard());
        drop(arrive(&site, Known, &[operation]).0.finish(200));
        drop(arrive(&site, Known, &[operation]).0.finish(500));
        assert_eq!(failures(), [], "finished: {operation:?}");
        let visit = arrive(&site, Known, &[operation]).0;
        let panics = std::panic::AssertUnwindSafe(move || {
            let _visit = visit;
            std::panic::resume_unwind(Box::new("the handler gives up"));
        });
        std::panic::catch_unwind(panics).unwrap_err();
        assert_eq!(failures(), [], "in a panic: {operation:?}");
    }
    // The request saves its session and is dropped without a response, so the browser does not get the new id.
    for operation in [UpdateNow, Save] {
        drop(arrive(&site, Nobody, &[Insert, operation]).0);
        assert_eq!(failures(), unfinished, "{operation:?}");
    }
    for operations in
        [&[][..], &[Read], &[ReadDeadline], &[InsertSame], &[RemoveMissing], &[UpdateNow], &[Insert, Save]]
    {
        drop(arrive(&site, Known, operations).0);
        assert_eq!(failures(), [], "{operations:?}");
    }
    for visitor in [Nobody, Stranger] {
        drop(arrive(&site, visitor, &[Read]).0);
        assert_eq!(failures(), [], "{visitor:?}");
    }
}

#[test]
fn a_session_of_many_years_sends_its_cookie_again_each_30_days() {
    let years = Duration::from_secs(5_000 * 86_400);
    let lifetime = Lifetime::new().age(years).renewal(Renewal::OnRead);
    // The cookie is also sent again if no activity moves the deadline, because browsers drop a cookie after 400 days.
    for (lifetime, max_age) in
        [(lifetime.clone(), 5_000 * 86_400), (lifetime.absolute_limit(years), 4_970 * 86_400)]
    {
        let site = Site::with(Cookies::plain_http(), lifetime);
        check(&site, After(30 * 86_400 - 1), &[Read], GOOD, &[VARY, PRIVATE]);
        let (visit, _) = arrive(&site, After(30 * 86_400), &[Read]);
        let headers = visit.finish(200).unwrap();
        let max_age = format!("; Max-Age={max_age};");
        assert!(headers[1].1.contains(&max_age), "{}", headers[1].1);
    }
}

#[test]
fn a_change_of_browser_close_reaches_cookies_at_the_next_save() {
    let bare = ("Set-Cookie", "session=OLD; HttpOnly; SameSite=Lax; Path=/");
    for save in [Insert, Update, UpdateNow, Remove] {
        let site = Site::new();
        let token = site.session();
        site.clock.set(at(STEP));
        let answer = |yes: bool, operation: Operation| {
            let sessions = site.sessions.clone().with_lifetime(Lifetime::new().expire_at_browser_close(yes));
            let mut visit = sessions.unwrap().visit([&*header(&token)]);
            operation.on(&mut visit).unwrap();
            let headers = visit.finish(200).unwrap();
            site.masked(&headers, Some(&token))
        };
        assert_eq!(answer(true, Read), owned(&[VARY, PRIVATE]), "{save:?}");
        assert_eq!(answer(true, save), owned(&[VARY, bare, NO_STORE]), "{save:?}");
        assert_eq!(answer(true, Insert), owned(&[VARY, PRIVATE]), "once: {save:?}");
        // The setting is off again, and the next change sends a cookie with dates. It sets another entry, because
        // setting this one to its present value would be no change.
        assert_eq!(answer(false, TestCookie), owned(&[VARY, OLD_A_STEP_LATER, NO_STORE]), "{save:?}");
        assert_eq!(answer(false, Read), owned(&[VARY, PRIVATE]), "{save:?}");
    }
}

#[test]
fn a_browser_bound_cookie_has_no_dates_and_no_renewals() {
    let bare = ("Set-Cookie", "session=NEW; HttpOnly; SameSite=Lax; Path=/");
    let policy = Lifetime::new().expire_at_browser_close(true).renewal(Renewal::OnRead);
    let site = Site::with(Cookies::plain_http(), policy);
    check(&site, Nobody, &[Insert], GOOD, &[VARY, bare, NO_STORE]);
    check(&site, Known, &[Login], GOOD, &[VARY, bare, NO_STORE]);
    check(&site, After(STEP), &[Rotate], GOOD, &[VARY, bare, NO_STORE]);
    // The server renews the session. The browser's cookie has no date, so none is sent.
    for operation in [Read, Insert, UpdateNow] {
        check(&site, After(STEP), &[operation], GOOD, &[VARY, PRIVATE]);
        let (visit, token) = arrive(&site, After(STEP), &[operation]);
        visit.finish(200).unwrap();
        assert_eq!(site.deadline(&token.unwrap()), at(STEP + 1_209_600), "{operation:?}");
    }
    // One session has no date in its cookie, in a program whose other sessions have dates.
    let site = Site::with(Cookies::plain_http(), Lifetime::new().renewal(Renewal::OnRead));
    let token = site.session_with(|visit| visit.set_expiry(Expiry::BrowserClose));
    site.clock.set(at(STEP));
    let mut visit = site.sessions.visit([&*header(&token)]);
    Read.on(&mut visit).unwrap();
    assert_eq!(visit.finish(200).unwrap(), owned(&[VARY, PRIVATE]));
    // The session gets the program's default again, so its cookie has dates now.
    let mut visit = site.sessions.visit([&*header(&token)]);
    visit.set_expiry(Expiry::Default);
    let headers = visit.finish(200).unwrap();
    assert_eq!(site.masked(&headers, Some(&token)), owned(&[VARY, OLD_A_STEP_LATER, NO_STORE]));
}

#[test]
fn a_failed_save_sends_no_cookie_but_of_an_earlier_save() {
    let site = Site::new();
    let refused = ErrorKind::TooLarge;
    check_unsaved(&site, Nobody, &[InsertTooMuch], refused, &[VARY, NO_STORE]);
    assert_eq!(site.files(), 0);
    assert_eq!(site.seen(), [Seen::Failed(refused)]);
    check_unsaved(&site, Known, &[InsertTooMuch], refused, &[VARY, NO_STORE]);
    check_unsaved(&site, After(STEP), &[InsertTooMuch], refused, &[VARY, NO_STORE]);
    check_unsaved(&site, Known, &[Login, InsertTooMuch], refused, &[VARY, NO_STORE]);
    // `UpdateNow` has created a session. Its id is sent although the later save fails, because otherwise no request
    // could reach that session.
    check_unsaved(&site, Nobody, &[UpdateNow, InsertTooMuch], refused, &[VARY, NEW, NO_STORE]);
    check_unsaved(&site, Known, &[Destroy, InsertTooMuch], refused, &[VARY, REMOVAL, NO_STORE]);
}

/// Changes of the handler were lost, even if a later save succeeds. So no cache may keep the response.
#[test]
fn no_later_save_or_renewal_forgets_that_a_save_failed() {
    let eager = Lifetime::new().renewal(Renewal::EveryRequest);
    let site = Site::with(Cookies::plain_http(), eager);
    let fail_once = |failing: Call| {
        let is_first = AtomicBool::new(true);
        site.store.before(move |call| {
            if call != failing || !is_first.swap(false, Ordering::SeqCst) {
                return Ok(());
            }
            Err(sessile::Error::new(ErrorKind::Full, "save session"))
        });
    };
    for (visitor, failing) in [(Known, Call::Update), (Nobody, Call::Create)] {
        // If no renewal was due, the response sends no cookie, so `no-store` can only come from the failed save.
        for later in [&[][..], &[Read], &[UpdateNow], &[Insert, Save]] {
            let (mut visit, token) = arrive(&site, visitor, &[]);
            fail_once(failing);
            assert_eq!(UpdateNow.on(&mut visit).unwrap_err().kind(), ErrorKind::Full);
            for operation in later {
                operation.on(&mut visit).unwrap();
            }
            let headers = site.masked(&visit.finish(200).unwrap(), token.as_ref());
            assert_eq!(headers.last(), Some(&owned(&[NO_STORE])[0]), "{visitor:?}, then {later:?}");
        }
    }
    // The same if the save failed before it called the store.
    let (mut visit, _) = arrive(&site, Known, &[]);
    fail_once(Call::Load);
    UpdateNow.on(&mut visit).unwrap_err();
    assert_eq!(visit.finish(200).unwrap(), owned(&[VARY, NO_STORE]));
    let (mut visit, _) = arrive(&site, Known, &[Update]);
    fail_once(Call::Update);
    Save.on(&mut visit).unwrap_err();
    visit.discard_changes();
    assert_eq!(visit.finish(200).unwrap(), owned(&[VARY, NO_STORE]));
    // The renewal sends no cookie, because the browser keeps this one until it is closed.
    let token = site.session_with(|visit| visit.set_expiry(Expiry::BrowserClose));
    let deadline = site.deadline(&token);
    site.clock.set(at(STEP));
    let mut visit = site.sessions.visit(header(&token).as_str());
    fail_once(Call::Update);
    UpdateNow.on(&mut visit).unwrap_err();
    assert_eq!(visit.finish(200).unwrap(), owned(&[VARY, NO_STORE]));
    assert!(site.deadline(&token) > deadline, "it was renewed");
    // A failed renewal loses no change of the handler.
    let (visit, _) = arrive(&site, After(STEP), &[Read]);
    fail_once(Call::Update);
    assert_eq!(visit.finish(200).unwrap(), owned(&[VARY, PRIVATE]));
}

/// Runs a request whose session is ended by another request between two operations of the handler.
#[track_caller]
fn check_gone(site: &Site, before: &[Operation], after: &[Operation]) {
    let (mut visit, _) = arrive(site, After(STEP), before);
    assert!(site.store.inner.delete(&visit.token().unwrap().unwrap()).unwrap().is_some());
    for operation in after {
        operation.on(&mut visit).unwrap();
    }
    let unsaved = visit.finish(200).unwrap_err();
    assert_eq!(unsaved.error.kind(), ErrorKind::Gone);
    assert_eq!(unsaved.headers, owned(&[VARY, NO_STORE]));
    assert_eq!(site.seen().last(), Some(&Seen::Failed(ErrorKind::Gone)));
    assert_eq!(site.files(), 0, "nothing was resurrected");
}

#[test]
fn a_session_that_went_away_meanwhile_is_gone_without_a_cookie() {
    let site = Site::new();
    for operation in [Insert, Remove, Clear, Update, Rotate, Expire(Expiry::BrowserClose)] {
        check_gone(&site, &[Read], &[operation]);
    }
}

/// A save that moves the deadline has a cookie to send. If the session ends after that, the cookie is not sent: it
/// would replace the cookie that the other request gave to the browser by a dead id.
#[test]
fn a_session_that_ends_after_a_save_is_gone_without_a_cookie() {
    let site = Site::new();
    check_gone(&site, &[Insert, Save], &[Update]);
    check_gone(&site, &[Rotate, Save], &[Insert]);
    check_gone(&site, &[Login, Save], &[Insert]);

    // The same if an operation of the handler finds that the session has ended.
    let (mut visit, token) = arrive(&site, After(STEP), &[Insert, Save]);
    site.store.inner.delete(&token.unwrap()).unwrap();
    assert_eq!(UpdateNow.on(&mut visit).unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(visit.discard(), owned(&[VARY, NO_STORE]));

    // The same if the renewal at the end of the request finds that the session has ended.
    let eager = Lifetime::new().renewal(Renewal::OnRead).renewal_step_percent(0);
    let site = Site::with(Cookies::plain_http(), eager);
    let (visit, token) = arrive(&site, After(STEP), &[Insert, Save]);
    site.store.inner.delete(&token.unwrap()).unwrap();
    site.clock.set(at(STEP + 1));
    assert_eq!(visit.finish(200).unwrap(), owned(&[VARY, PRIVATE]));
}

#[test]
fn update_now_on_a_session_that_went_away_is_gone_and_makes_none() {
    let site = Site::new();
    let (mut visit, token) = arrive(&site, Known, &[Read]);
    site.store.inner.delete(&token.unwrap()).unwrap();
    assert_eq!(UpdateNow.on(&mut visit).unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(visit.finish(409).unwrap(), owned(&[VARY, NO_STORE]));
    assert_eq!(site.files(), 0);
}

#[test]
fn a_lost_renewal_is_nobodys_loss() {
    let site = Site::with(Cookies::plain_http(), Lifetime::new().renewal(Renewal::OnRead));
    let (visit, token) = arrive(&site, After(STEP), &[Read]);
    site.store.inner.delete(&token.unwrap()).unwrap();
    assert_eq!(visit.finish(200).unwrap(), owned(&[VARY, PRIVATE]));
    assert_eq!(site.seen(), []);

    // A renewal that the store refuses is reported to the observer only.
    let (visit, _) = arrive(&site, After(STEP), &[Read]);
    site.store.before(|call| match call {
        Call::Update => Err(sessile::Error::new(ErrorKind::Full, "save session")),
        _ => Ok(()),
    });
    assert_eq!(visit.finish(200).unwrap(), owned(&[VARY, PRIVATE]));
    assert_eq!(site.seen(), [Seen::NotRenewed(ErrorKind::Full)]);
}

#[test]
fn of_several_cookies_the_first_live_one_of_four_wins() {
    let site = Site::new();
    let live: Vec<_> =
        (0..6).map(|n| header(&site.session_with(|visit| visit.insert("n", n).unwrap()))).collect();
    let dead: Vec<_> = ["a", "b", "c", "d"].map(|c| format!("session={}", c.repeat(32))).into();
    let check = |lines: &[&str], found: Option<u32>, tries: usize| {
        site.store.calls();
        let visit = site.sessions.visit(lines.iter().copied());
        assert_eq!(visit.get::<u32>("n").unwrap(), found, "{lines:?}");
        assert_eq!(site.store.calls(), vec![Call::Load; tries], "{lines:?}");
    };
    check(&[&live[0], &live[1]], Some(0), 1);
    check(&[&live[1], &live[0]], Some(1), 1);
    check(&[&format!("{}; x=y; {}", dead[0], live[2])], Some(2), 2);
    check(&["theme=dark", &dead[0], &format!("{}; {}", dead[1], dead[2]), &live[3]], Some(3), 4);
    check(&[&dead[0], &dead[1], &dead[2], &dead[3], &live[3]], None, 4);
    // Values that cannot be ids, and repeated values, are not looked up.
    check(&["session=; session=../x; session=A", "session=\"a\"", &dead[0], &live[4]], Some(4), 2);
    check(&[&dead[0], &dead[0], &dead[0], &dead[0], &dead[0], &live[5]], Some(5), 2);
}

/// A header of megabytes. Its cost is bounded by the number of cookies that are read, not by the number that is sent.
#[test]
fn a_header_of_62_500_cookies_cost_one_event_and_a_bounded_search() {
    let site = Site::new();
    let live = header(&site.session());
    let made_up = |n: usize| {
        let digit = |place: u32| char::from(b'a' + u8::try_from(n / 26_usize.pow(place) % 26).unwrap());
        format!("session={}{}", (0..4).map(digit).collect::<String>(), "a".repeat(28))
    };
    let malformed = vec!["session=x".to_owned(); 62_500].join("; ");
    let well_formed = (0..62_500).map(made_up).collect::<Vec<_>>().join("; ");
    for (flood, tries, ended, events) in [(malformed, 0, 0, 1), (well_formed, 4, 32, 4)] {
        let mut visit = site.sessions.visit([flood.as_str(), &live]);
        assert_eq!(visit.user().unwrap(), None);
        assert_eq!(site.store.calls(), vec![Call::Load; tries]);
        assert_eq!(site.seen().len(), events);
        assert_eq!(visit.destroy().unwrap(), Destroyed::WasGone);
        assert_eq!(site.store.calls(), vec![Call::Delete; ended]);
        assert_eq!(site.seen(), []);
        // Cookies that are not read cost nothing either.
        let read = AtomicUsize::new(0);
        let lines = flood.split("; ").inspect(|_| {
            read.fetch_add(1, Ordering::SeqCst);
        });
        drop(site.sessions.visit(lines));
        assert_eq!(read.into_inner(), 64);
        site.seen();
    }
}

#[test]
fn logout_ends_every_session_that_the_request_presented() {
    let site = Site::new();
    let tokens: Vec<_> = (0..3).map(|_| site.session()).collect();
    let lines: Vec<_> = tokens.iter().map(header).collect();
    let mut visit = site.sessions.visit(lines.iter().map(String::as_str));
    visit.destroy().unwrap();
    assert_eq!(visit.finish(500).unwrap(), owned(&[VARY, REMOVAL, NO_STORE]));
    assert!(tokens.iter().all(|token| !site.is_live(token)));
    assert_eq!(
        site.seen(),
        tokens.iter().map(|token| Seen::Ended(id_of(token), EndReason::Logout)).collect::<Vec<_>>()
    );
}

#[test]
fn the_cookie_has_its_attributes_and_the_removal_repeats_them() {
    let strict = Cookies::plain_http().name("sid").same_site(SameSite::Strict);
    let embedded = Cookies::https().same_site(SameSite::None).partitioned(true);
    let (host, secure) = ("__Host-session", "__Secure-session");
    let cases = [
        (Cookies::plain_http(), "session", "HttpOnly; SameSite=Lax; Path=/"),
        (strict, "sid", "HttpOnly; SameSite=Strict; Path=/"),
        (Cookies::https(), host, "HttpOnly; SameSite=Lax; Secure; Path=/"),
        (embedded, host, "HttpOnly; SameSite=None; Partitioned; Secure; Path=/"),
        (Cookies::https().path("/app"), secure, "HttpOnly; SameSite=Lax; Secure; Path=/app"),
        (Cookies::https().domain("a.org"), secure, "HttpOnly; SameSite=Lax; Secure; Path=/; Domain=a.org"),
    ];
    for (cookies, name, attributes) in cases {
        let site = Site::with(cookies, Lifetime::new());
        let mut jar = if name.starts_with("__") { Jar::https() } else { Jar::http() };
        let (visit, _) = arrive(&site, Nobody, &[Insert]);
        let set = visit.finish(200).unwrap()[1].1.clone();
        let (pair, rest) = set.split_once("; ").unwrap();
        let end = "; Max-Age=1209600; Expires=Tue, 28 Nov 2023 22:13:20 GMT";
        assert_eq!(rest, format!("{attributes}{end}"));
        assert_eq!(pair.split_once('=').unwrap().0, name);
        jar.receive([&*set]);

        let mut visit = site.sessions.visit(jar.header().as_deref());
        assert_eq!(visit.get::<u32>("b").unwrap(), Some(2), "{name} comes back");
        visit.destroy().unwrap();
        let removal = visit.finish(200).unwrap()[1].1.clone();
        assert_eq!(
            removal,
            format!("{name}=; {attributes}; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT")
        );
        jar.receive([&*removal]);
        assert_eq!(jar.header(), None, "{name} is removed");
    }
}

#[test]
fn a_cookie_of_another_name_is_nobodys() {
    let site = Site::with(Cookies::https(), Lifetime::new());
    let token = site.session();
    for name in
        ["session", "__host-session", "__Secure-session", "__Host-Session", "__Host-session2", "Host-session"]
    {
        let cookie = format!("{name}={}", token.expose());
        let visit = site.sessions.visit([cookie.as_str()]);
        assert_eq!(visit.public_id().unwrap(), None, "{name}");
    }
    let cookie = format!("__Host-session={}", token.expose());
    assert_eq!(site.sessions.visit([cookie.as_str()]).public_id().unwrap(), Some(id_of(&token)));
}

#[test]
fn every_turn_in_a_sessions_life_is_observed_by_its_public_id() {
    let site = Site::without_cache(Lifetime::new().renewal(Renewal::OnRead));
    let mut visit = site.sessions.visit([]);
    Insert.on(&mut visit).unwrap();
    assert_eq!(site.seen(), [], "nothing happened yet");
    visit.save().unwrap();
    let created = visit.public_id().unwrap().unwrap();
    assert_eq!(site.seen(), [Seen::Created(created)]);
    visit.insert("c", 3).unwrap();
    visit.save().unwrap();
    assert_eq!(site.seen(), [], "an update is no turn");
    visit.rotate_id();
    visit.save().unwrap();
    let rotated = visit.public_id().unwrap().unwrap();
    assert_eq!(site.seen(), [Seen::Rotated(created, rotated)]);
    visit.login("ada").unwrap();
    visit.save().unwrap();
    let moved = visit.public_id().unwrap().unwrap();
    assert_eq!(site.seen(), [Seen::LoggedIn(Some(rotated), moved)]);
    visit.destroy().unwrap();
    assert_eq!(site.seen(), [Seen::Ended(moved, EndReason::Logout)]);
    visit.destroy().unwrap();
    assert_eq!(site.seen(), [], "nothing was there to end");

    // Tokens of a request that the library refuses.
    let brings = |cookie: &str| {
        let visit = site.sessions.visit([cookie]);
        Read.on(&mut { visit }).unwrap();
        site.seen()
    };
    assert_eq!(brings("session=../../etc/passwd"), [Seen::Malformed]);
    assert_eq!(brings("session=; session=x y; session=é"), [Seen::Malformed], "once a request");
    let unknown = Token::parse(UNKNOWN).unwrap();
    assert_eq!(brings(&header(&unknown)), [Seen::NotFound(id_of(&unknown))]);
    let token = site.session();
    site.clock.set(at(1_209_600));
    assert_eq!(brings(&header(&token)), [Seen::Expired(id_of(&token))]);
    // The session has expired by a new, shorter lifetime, while the store still has it.
    let token = site.session();
    let strict = site.sessions.clone().with_lifetime(Lifetime::new().age(Duration::from_secs(60))).unwrap();
    site.clock.set(at(60));
    let visit = strict.visit([&*header(&token)]);
    assert_eq!(visit.get::<u32>("a").unwrap(), None);
    assert_eq!(site.seen(), [Seen::Expired(id_of(&token))]);
    // The session file was damaged by another program.
    let token = site.session();
    let name = id_of(&token).to_string();
    std::fs::write(site.dir.path().join(&name[..2]).join(&name[2..]), [0x5a; 4096]).unwrap();
    assert_eq!(brings(&header(&token)), [Seen::Damaged(id_of(&token))]);
    // An expiry setting that ends the session.
    let token = site.session();
    let mut visit = site.sessions.visit([&*header(&token)]);
    visit.set_expiry(Expiry::At(UNIX_EPOCH));
    visit.finish(200).unwrap();
    assert_eq!(site.seen(), [Seen::Ended(id_of(&token), EndReason::Expired)]);
}

/// Prints every public type, for a session whose token is known to the test.
#[test]
fn the_id_is_in_no_text_that_the_library_makes() {
    let site = Site::without_cache(Lifetime::new());
    let mut said: Vec<String> = Vec::new();
    let mut tokens: Vec<Token> = Vec::new();
    let events = Arc::new(Mutex::new(Vec::new()));
    let diary = events.clone();
    let sessions =
        site.sessions.clone().with_observer(move |event| diary.lock().unwrap().push(format!("{event:?}")));

    // All steps in the life of a session, printed after each.
    let mut visit = sessions.visit([]);
    UpdateNow.on(&mut visit).unwrap();
    let token = visit.token().unwrap().unwrap();
    said.push(format!("{visit:?} {sessions:?} {token:?}"));
    tokens.push(token.clone());
    InsertTooMuch.on(&mut visit).unwrap();
    // The text that a failed `unwrap` prints.
    let unsaved = visit.finish(200).unwrap_err();
    assert!(unsaved.headers.iter().any(|(_, value)| value.contains(token.expose())), "it carries the cookie");
    said.push(format!("{unsaved:?} {unsaved} {unsaved:#?}"));

    let mut visit = sessions.visit([&*header(&token)]);
    said.push(format!("{visit:?}"));
    visit.login("ada").unwrap();
    visit.save().unwrap();
    let token = visit.token().unwrap().unwrap();
    said.push(format!("{visit:#?} {:?} {:?}", *visit, visit.public_id()));
    tokens.push(token.clone());

    // Errors of the store.
    let store = &site.store.inner;
    said.push(format!("{store:?} {:?} {:?}", store.load(&token).unwrap(), store.path()));
    let saved = store.update(&token, &mut |_| Ok(Verdict::Write), Durability::OfStore).unwrap();
    said.push(format!("{saved:?}"));
    let created = store.create(&Record::new(at(0), at(60)), Durability::OfStore).unwrap();
    said.push(format!("{created:?}"));
    tokens.push(created.token);

    // Errors of every kind that names a session: in its entries, at its end, in its file.
    visit.insert("b", "text").unwrap();
    said.push(format!("{0:?} {0}", visit.get::<u32>("b").unwrap_err()));
    said.push(format!("{0:?} {0}", visit.get::<u32>("").unwrap_err()));
    store.delete(&token).unwrap();
    let unsaved = visit.finish(200).unwrap_err();
    assert_eq!(unsaved.error.kind(), ErrorKind::Gone);
    said.push(format!("{unsaved:?} {unsaved} {0:?} {0}", unsaved.error));
    let token = site.session();
    let name = id_of(&token).to_string();
    let shard = site.dir.path().join(&name[..2]);
    std::fs::remove_file(shard.join(&name[2..])).unwrap();
    std::fs::create_dir(shard.join(&name[2..])).unwrap();
    let mut visit = sessions.visit([&*header(&token)]);
    for error in [Read, UpdateNow, Destroy].map(|operation| operation.on(&mut visit).unwrap_err()) {
        said.push(format!("{error:?} {error} {:?}", error.path()));
    }
    said.push(format!("{visit:?}"));
    tokens.push(token);
    std::fs::remove_dir(shard.join(&name[2..])).unwrap();
    std::fs::remove_dir(&shard).unwrap();
    said.push(format!("{0:?} {0}", Read.on(&mut visit).unwrap_err()));

    said.extend(events.lock().unwrap().iter().cloned());
    assert!(said.len() > 12);
    for text in &said {
        for token in &tokens {
            assert!(!text.contains(token.expose()), "the id is in {text}");
            // The texts have no part of the id either that would be of use.
            assert!(
                !token
                    .expose()
                    .as_bytes()
                    .windows(12)
                    .any(|part| { text.contains(std::str::from_utf8(part).unwrap()) })
            );
        }
    }
}
