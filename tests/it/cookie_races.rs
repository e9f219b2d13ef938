//! Two requests of one browser that overlap, in every order, and the final contents of its cookie jar.
//!
//! Both are sent with the cookie of the same live session. Each is opened by the server, first reads its
//! session, is finished, and its response reaches the jar; 70 orders interleave these four steps of both.
//! They run for all 25 ordered pairs of login, logout, save, renewal and rotation, once with a deadline that
//! is due to move (so that saves and renewals send the cookie again) and once without: 3,500 runs, each on a
//! store of files.
//!
//! # Promises of every run
//!
//! - An id that was destroyed or rotated away does not load; one that was not, does.
//! - A request that is too late (`Gone`) sends no cookie. A login is never too late: it makes a new session.
//! - Every login that was acknowledged is alive on the server, with its user, whatever the jar holds.
//!
//! # The only losses of the jar
//!
//! The jar has lost something if it held an id that is still alive and ends with an older one or none, or if
//! it does not end with the id of the last login that was acknowledged. In three classes of orders that
//! happens:
//!
//! - **Overtaken**: a response that set or removed the cookie was finished *before* one that gave a newer id,
//!   and reached the browser *after* it. At the time the server sent it, it was right; HTTP has no way to
//!   tell a browser "unless you have something newer". A server could avoid it only by never sending the
//!   cookie again, which would let the browser forget sessions that live.
//! - **Stranger**: a request arrived with an id that a login had already rotated away, stored something, and
//!   so, as every visitor with an unknown id, got a session of its own; its response was the last to arrive.
//!   Nothing on the disk says that the unknown id was rotated rather than made up or expired; the login lives
//!   on, under an id that the browser has dropped.
//! - **Logged out**: a logout was finished after a login or rotation that it does not follow, and its response
//!   was the last to arrive. It removes the cookie all the same: the visitor saw a logout
//!   succeed, and the jar agrees.
use crate::support::cookie_jar::Jar;
use crate::support::probe::quick_directory;
use sessile::{
    Clock, Cookies, ErrorKind, FileStore, FileStoreOptions, Headers, Lifetime, Lookup, SaveError, Sessions,
    Store, Token, Visit,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    Login,
    Logout,
    Save,
    Renewal,
    Rotation,
}
use Operation::{Login, Logout, Renewal, Rotation, Save};

const OPERATIONS: [Operation; 5] = [Login, Logout, Save, Renewal, Rotation];
/// The user of a login by the first or the second request.
const USERS: [&str; 2] = ["ada", "ben"];

const OPEN: usize = 0;
const LOAD: usize = 1;
const FINISH: usize = 2;
const DELIVER: usize = 3;

/// The request of each of the eight steps; each request takes its own four in order.
type Order = [usize; 8];

fn orders() -> Vec<Order> {
    let order = |bits: u32| std::array::from_fn(|step| usize::from(bits >> step & 1 == 1));
    (0..256_u32).filter(|bits| bits.count_ones() == 4).map(order).collect()
}

/// The requests in the order in which they finish.
fn by_finish(order: &Order) -> [usize; 2] {
    if time(order, 0, FINISH) < time(order, 1, FINISH) { [0, 1] } else { [1, 0] }
}

/// When a request takes a step.
fn time(order: &Order, who: usize, step: usize) -> usize {
    let mine = (0..8).filter(|at| order[*at] == who);
    mine.into_iter().nth(step).expect("four steps each")
}

/// The world both requests live in.
struct Site {
    _dir: TempDir,
    clock: Clock,
    store: Arc<FileStore>,
    sessions: Sessions,
}

impl Site {
    fn new() -> Self {
        let dir = quick_directory();
        let clock = Clock::manual(UNIX_EPOCH);
        let options = FileStoreOptions::new().clock(clock.clone()).sync_security_events(false);
        let store = Arc::new(options.open(dir.path()).unwrap());
        let lifetime = Lifetime::new().renewal(sessile::Renewal::OnRead);
        let sessions = Sessions::new(store.clone(), Cookies::plain_http()).unwrap();
        Self { _dir: dir, clock, store, sessions: sessions.with_lifetime(lifetime).unwrap() }
    }

    fn is_alive(&self, id: &str) -> bool {
        match self.store.load(&Token::parse(id).unwrap()).unwrap() {
            Lookup::Live(_) => true,
            Lookup::Absent(_) => false,
        }
    }

    /// The user that is logged in with this id.
    fn user_of(&self, id: &str) -> Option<String> {
        self.sessions.visit([format!("session={id}").as_str()]).user().unwrap()
    }
}

/// The effect of a response on the cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SentCookie {
    Nothing,
    Id(String),
    Removal,
}

/// The result of a run.
struct Outcome {
    first_id: String,
    saved: [Result<(), ErrorKind>; 2],
    cookies: [SentCookie; 2],
    /// The contents of the jar, from the beginning on.
    held: Vec<Option<String>>,
}

fn run(site: &Site, operations: [Operation; 2], order: &Order, due: bool) -> Outcome {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    site.clock.set(start);
    let mut jar = Jar::http();
    let mut visit = site.sessions.visit([]);
    visit.insert("cart", ["apple"]).unwrap();
    jar.receive(set_cookies(&visit.finish(200).unwrap()));
    site.clock.set(start + Duration::from_secs(if due { 200_000 } else { 1 }));

    let sent = jar.header();
    let first_id = jar.get("session").unwrap().to_owned();
    let mut held = vec![Some(first_id.clone())];
    let mut visits = [None, None];
    let mut answers: [Option<(Result<(), ErrorKind>, Headers)>; 2] = [None, None];
    let mut steps = [0; 2];
    for &who in order {
        match steps[who] {
            OPEN => visits[who] = Some(site.sessions.visit(sent.as_deref())),
            LOAD => drop(visits[who].as_ref().unwrap().user().unwrap()),
            FINISH => {
                answers[who] = Some(match operation(visits[who].take().unwrap(), operations[who], who) {
                    Ok(headers) => (Ok(()), headers),
                    Err(unsaved) => (Err(unsaved.error.kind()), unsaved.headers),
                });
            }
            _ => {
                jar.receive(set_cookies(&answers[who].as_ref().unwrap().1));
                held.push(jar.get("session").map(str::to_owned));
            }
        }
        steps[who] += 1;
    }
    let answers = answers.map(Option::unwrap);
    let cookies = answers.each_ref().map(|(_, headers)| cookie_of(headers));
    Outcome { first_id, saved: answers.map(|(saved, _)| saved), cookies, held }
}

fn operation(mut visit: Visit, operation: Operation, who: usize) -> Result<Headers, Box<SaveError>> {
    match operation {
        Login => visit.login(USERS[who]).unwrap(),
        Logout => assert!(visit.destroy().is_ok()),
        Save => visit.insert("note", who).unwrap(),
        Renewal => {}
        Rotation => visit.rotate_id(),
    }
    visit.finish(200)
}

fn set_cookies(headers: &Headers) -> impl Iterator<Item = &str> {
    headers.iter().filter(|(name, _)| *name == "Set-Cookie").map(|(_, value)| &**value)
}

fn cookie_of(headers: &Headers) -> SentCookie {
    let mut jar = Jar::http();
    jar.put("session", "before");
    jar.receive(set_cookies(headers));
    match jar.get("session") {
        Some("before") => SentCookie::Nothing,
        Some(id) => SentCookie::Id(id.to_owned()),
        None => SentCookie::Removal,
    }
}

/// Why a run may lose something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Excuse {
    Overtaken,
    Stranger,
    LoggedOut,
}
use Excuse::{LoggedOut, Overtaken, Stranger};

/// The three classes, said by the order of the steps alone: nothing here looks at the run.
fn excuse(operations: [Operation; 2], order: &Order, due: bool) -> Option<Excuse> {
    let at = |who, step| time(order, who, step);
    let [early, late] = by_finish(order);
    // The one that finishes first always finds the session alive.
    let ends_it = matches!(operations[early], Login | Logout | Rotation);
    let finds_it_ended = ends_it && at(late, LOAD) > at(early, FINISH);
    let gives_newer_id = match operations[late] {
        Login => true,
        Save => finds_it_ended,
        Rotation => !ends_it,
        Logout | Renewal => false,
    };
    let has_a_cookie = ends_it || due;
    let overtaken = at(late, DELIVER) < at(early, DELIVER);
    match (gives_newer_id, overtaken) {
        (true, true) => has_a_cookie.then_some(Overtaken),
        (true, false) => (operations[early] == Login && operations[late] == Save).then_some(Stranger),
        (false, false) if operations[late] == Logout => {
            matches!(operations[early], Login | Rotation).then_some(LoggedOut)
        }
        (false, _) => None,
    }
}

/// Whether the jar has lost something: by its contents and the live sessions, not by the order of events.
fn lost(site: &Site, operations: [Operation; 2], order: &Order, outcome: &Outcome) -> bool {
    let by_finish = by_finish(order);
    let mut ids = vec![outcome.first_id.clone()];
    for who in by_finish {
        if let SentCookie::Id(id) = &outcome.cookies[who]
            && !ids.contains(id)
        {
            ids.push(id.clone());
        }
    }
    let age = |id: &String| ids.iter().position(|known| known == id).expect("an id that a browser was sent");
    let last = outcome.held.last().unwrap().as_ref();
    let lost_a_live_one = outcome
        .held
        .iter()
        .flatten()
        .any(|id| site.is_alive(id) && last.is_none_or(|last| age(last) < age(id)));
    let last_login =
        by_finish.into_iter().rfind(|who| operations[*who] == Login && outcome.saved[*who].is_ok());
    let lost_the_login =
        last_login.is_some_and(|who| last.is_none_or(|id| site.user_of(id).as_deref() != Some(USERS[who])));
    lost_a_live_one || lost_the_login
}

/// Checks the promises of every run.
#[track_caller]
fn check_the_server(site: &Site, operations: [Operation; 2], outcome: &Outcome) {
    for (who, operation) in operations.into_iter().enumerate() {
        match (&outcome.saved[who], &outcome.cookies[who]) {
            (Err(kind), news) => {
                assert_eq!((*kind, news), (ErrorKind::Gone, &SentCookie::Nothing));
                assert!(![Login, Logout, Renewal].contains(&operation), "{operation:?} cannot come too late");
            }
            (Ok(()), SentCookie::Id(id)) if operation == Login => {
                assert_eq!(site.user_of(id).as_deref(), Some(USERS[who]), "the login is not alive");
            }
            (Ok(()), news) => assert!(operation != Login, "an acknowledged login sent {news:?}"),
        }
    }
    // The first login, logout or rotation to be finished ends it; nothing brings it back, and nothing else
    // ends it.
    let ended = operations.iter().any(|operation| [Login, Logout, Rotation].contains(operation));
    assert_eq!(!site.is_alive(&outcome.first_id), ended, "the first id");
    // Every id that was handed out instead of it is alive: no other request knew it.
    for news in &outcome.cookies {
        if let SentCookie::Id(id) = news
            && *id != outcome.first_id
        {
            assert!(site.is_alive(id), "a new id is dead");
        }
    }
}

/// Runs every pair in every order, and compares the losses with the table: which request finished first, which
/// second, why something was lost, in how many orders of both placements together.
#[track_caller]
fn check(due: bool, table: &[(Operation, Operation, Excuse, usize)]) {
    let site = Site::new();
    let mut losses = BTreeMap::new();
    for operations in OPERATIONS.into_iter().flat_map(|first| OPERATIONS.map(|second| [first, second])) {
        for order in orders() {
            let outcome = run(&site, operations, &order, due);
            check_the_server(&site, operations, &outcome);
            let excuse = excuse(operations, &order, due);
            let lost = lost(&site, operations, &order, &outcome);
            assert_eq!(lost, excuse.is_some(), "{operations:?} in order {order:?}: {excuse:?}");
            if let Some(excuse) = excuse {
                let [early, late] = by_finish(&order).map(|who| operations[who]);
                *losses.entry((early, late, excuse)).or_insert(0) += 1;
            }
        }
    }
    let table = table.iter().map(|(early, late, why, count)| ((*early, *late, *why), *count));
    assert_eq!(losses, table.collect::<BTreeMap<_, _>>());
}

/// The losses that no single cookie can prevent, whether or not a renewal is due.
const LOST: [(Operation, Operation, Excuse, usize); 9] = [
    (Login, Login, Overtaken, 20),
    (Logout, Login, Overtaken, 20),
    (Rotation, Login, Overtaken, 20),
    (Login, Save, Overtaken, 8),
    (Logout, Save, Overtaken, 8),
    (Rotation, Save, Overtaken, 8),
    (Login, Save, Stranger, 26),
    (Login, Logout, LoggedOut, 50),
    (Rotation, Logout, LoggedOut, 50),
];

#[test]
fn a_late_response_takes_a_newer_session_away_in_three_cases() {
    check(false, &LOST);
}

#[test]
fn a_late_renewal_hides_a_newer_session_only_if_overtaken() {
    // These send the cookie they came with, with a new end.
    let renewing = [
        (Save, Login, Overtaken, 20),
        (Renewal, Login, Overtaken, 20),
        (Save, Rotation, Overtaken, 20),
        (Renewal, Rotation, Overtaken, 20),
    ];
    check(true, &[&LOST[..], &renewing].concat());
}
