//! A move of all sessions from one store to another, as an operator makes it: [`Admin::scan`] on the one side,
//! [`Admin::import`] on the other, into another directory, into a store on a server and into a database file. Afterwards each live session is
//! there with the same record under the same id, its secret opens it, no ended one is alive, and a cut-off that the
//! target had before stays in force. Then eight threads go on working with the target.
//!
//! There is one round, of 3,000 sessions for each second of the trial's time: `--seconds 67` moves 200,000.
use crate::figures::Figures;
use crate::stage;
use crate::support::dice::Dice;
use sessile::admin::{ScanPage, Scanned};
use sessile::database::SqliteStore;
use sessile::record::Login;
use sessile::rows::{MemoryRows, RowStoreOptions};
use sessile::{
    Admin, Clock, Durability, FileStore, Lookup, Page, PublicId, Record, Result, Rotation, Store, Token,
    Value, Verdict,
};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

trials! {
    a_moved_store_has_the_same_sessions_and_the_same_ends,
}

const THREADS: usize = 8;
const HOUR: Duration = Duration::from_secs(3600);
/// The number of sessions in a page of the scan.
const PAGE: usize = 1000;

/// What the source has made of a session before the move, and what the target must make of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Lives,
    /// Its deadline was reached in the source.
    Expired,
    /// It was ended in the source by its id, or by a cut-off of its user.
    Ended,
    /// The target has had a cut-off of its user since its login.
    CutOffByTarget,
}

struct Made {
    token: Token,
    /// The token that a rotation has replaced.
    old: Option<Token>,
    user: Option<String>,
    fate: Fate,
    /// The present token in the target, if a rotation has replaced it there.
    there: Option<Token>,
    /// Increments that the target has acknowledged; `u64::MAX` if the session has ended there.
    increments: u64,
}

impl Made {
    fn is_live(&self) -> bool {
        self.fate == Fate::Lives && self.increments != u64::MAX
    }

    fn token(&self) -> &Token {
        self.there.as_ref().unwrap_or(&self.token)
    }
}

fn a_moved_store_has_the_same_sessions_and_the_same_ends(dir: &Path, time: Duration) -> Figures {
    let count = u64::try_from(time.as_millis() * 3).unwrap().clamp(800, 1_000_000);
    let source = stage::options().open(dir.join("source")).unwrap();
    let targets: [(&'static str, Arc<dyn Admin>); 3] = [
        ("moved to a directory", Arc::new(stage::options().open(dir.join("target")).unwrap())),
        (
            "moved to a server",
            Arc::new(RowStoreOptions::new().open(MemoryRows::new(Clock::system())).unwrap()),
        ),
        ("moved to a database", Arc::new(SqliteStore::open(dir.join("sessions.db")).unwrap())),
    ];
    let mut made = fill(&source, count, 0);
    source.delete_of("gone", None).unwrap();
    for (_, target) in &targets {
        target.delete_of("banned", None).unwrap();
        target.delete_of("back", None).unwrap();
    }
    // Their logins are later than the cut-offs of the targets.
    made.extend(fill(&source, count / 10, 1));
    let mut figures = Figures::default();
    figures.rounds = 1;
    for (name, target) in &targets {
        let began = Instant::now();
        let imported = move_all(&source, &**target);
        figures.events.push((name, imported));
        let millis = u64::try_from(began.elapsed().as_millis()).unwrap();
        figures.events.push(("ms", millis));
        figures.check(|| check(&source, &**target, &made, imported));
        figures.check(|| {
            let done = work_on(&**target, &mut made);
            check_work(&**target, &made);
            assert!(done >= THREADS as u64, "{done} operations on the target");
        });
        for session in &mut made {
            (session.there, session.increments) = (None, 0);
        }
    }
    let ended = made.iter().filter(|session| session.fate != Fate::Lives).count();
    figures.events.push(("of these alive nowhere afterwards", ended as u64));
    figures
}

/// The user of a session, and what becomes of it before the move.
fn plan(n: u64, generation: u64) -> (Option<String>, Fate) {
    match (n % 20, generation) {
        (0 | 1, 0) => (Some("gone".into()), Fate::Ended),
        (2, 0) => (Some("banned".into()), Fate::CutOffByTarget),
        (3, _) => (Some("back".into()), if generation == 0 { Fate::CutOffByTarget } else { Fate::Lives }),
        (4 | 5, _) => (None, Fate::Expired),
        (6, _) => (None, Fate::Ended),
        (7..=12, _) => (Some(format!("user {}", n / 200)), Fate::Lives),
        _ => (None, Fate::Lives),
    }
}

/// Makes sessions by all threads.
fn fill(source: &FileStore, count: u64, generation: u64) -> Vec<Made> {
    thread::scope(|scope| {
        let make = |thread| {
            move || {
                let numbers = (thread..count).step_by(THREADS);
                numbers.map(|n| make(source, n, generation)).collect::<Vec<_>>()
            }
        };
        let threads: Vec<_> = (0..THREADS as u64).map(|thread| scope.spawn(make(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn make(source: &FileStore, n: u64, generation: u64) -> Made {
    let (user, fate) = plan(n, generation);
    let now = source.now();
    let mut record = Record::new(now, if fate == Fate::Expired { now } else { now + HOUR });
    put(&mut record, "n", 0_u64);
    put(&mut record, "list", (0..n % 40).collect::<Vec<_>>());
    if let Some(user) = &user {
        record.set_user(user).unwrap();
        record.set_device_note(&format!("device {n}")).unwrap();
        record.set_login(Login { at: Some(now), ..record.login() });
    }
    let mut token = source.create(&record, Durability::OfStore).unwrap().token;
    let mut old = None;
    if n.is_multiple_of(3) && fate != Fate::Expired {
        let how = Rotation::default().grace(HOUR);
        let moved = source.rotate(&token, &mut |_| Ok(Verdict::Keep), &how).unwrap().unwrap();
        old = Some(std::mem::replace(&mut token, moved.token));
    }
    if fate == Fate::Ended && user.is_none() {
        assert!(source.delete(&token).unwrap().is_some());
    }
    Made { token, old, user, fate, there: None, increments: 0 }
}

fn put(record: &mut Record, name: &str, value: impl serde::Serialize) {
    record.insert(name, &Value::new(&value).unwrap()).unwrap();
}

/// Imports all live sessions. Returns how many.
fn move_all(source: &FileStore, target: &dyn Admin) -> u64 {
    let (mut imported, mut from) = (0, None);
    loop {
        let ScanPage { sessions, failures, next, .. } = source.scan(from.as_ref(), PAGE).unwrap();
        assert!(failures.is_empty(), "{failures:?}");
        thread::scope(|scope| {
            let import = |part: &[Scanned]| part.iter().filter(|found| import(target, found)).count() as u64;
            let parts = sessions.chunks(PAGE.div_ceil(THREADS));
            let threads: Vec<_> = parts.map(|part| scope.spawn(move || import(part))).collect();
            imported += threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>();
        });
        let Some(next) = next else { return imported };
        from = Some(next);
    }
}

fn import(target: &dyn Admin, found: &Scanned) -> bool {
    // Of the others, a target could not know that they have ended.
    let Scanned::Live(live) = found else { return false };
    assert!(target.import(&live.id, &live.record, Durability::Relaxed).unwrap(), "{} is new there", live.id);
    true
}

fn live(store: &dyn Admin, token: &Token) -> Option<(PublicId, Record)> {
    match store.load(token).unwrap() {
        Lookup::Live(live) => Some((live.id, live.record)),
        Lookup::Absent(_) => None,
    }
}

/// A record without the number that each store sets itself.
fn comparable(record: &Record) -> Record {
    let mut record = record.clone();
    record.set_login(Login { cut_off: 0, ..record.login() });
    record
}

fn check(source: &FileStore, target: &dyn Admin, made: &[Made], imported: u64) {
    for session in made {
        let (before, after) = (live(source, &session.token), live(target, &session.token));
        match session.fate {
            Fate::Lives => {
                let ((id, before), (new_id, after)) = before.zip(after).expect("it is alive in both stores");
                assert_eq!((id, comparable(&before)), (new_id, comparable(&after)));
            }
            Fate::CutOffByTarget => assert!(before.is_some() && after.is_none(), "{:?}", session.user),
            Fate::Expired | Fate::Ended => assert!(before.is_none() && after.is_none(), "{:?}", session.fate),
        }
        if let Some(old) = &session.old {
            assert!(live(target, old).is_none(), "a replaced token opens a session");
        }
    }
    let of = |fate| made.iter().filter(|session| session.fate == fate).count() as u64;
    let counts = target.count_by_state().unwrap();
    assert_eq!((counts.live, counts.cut_off), (of(Fate::Lives), of(Fate::CutOffByTarget)));
    assert_eq!((counts.expired, counts.moved, counts.damaged, counts.failed), (0, 0, 0, 0));
    assert_eq!(target.count().unwrap(), imported);
    for user in ["user 0", "user 1", "back"] {
        assert!(!listed(target, user).is_empty(), "{user}");
        let there = listed(source, user).into_iter().filter(|id| {
            matches!(target.load_by_id(id).unwrap(), Lookup::Live(_)) //
        });
        assert_eq!(listed(target, user), there.collect::<Vec<_>>(), "{user}");
    }
}

/// The sessions of a user, by pages.
fn listed(store: &dyn Admin, user: &str) -> Vec<PublicId> {
    let (mut ids, mut page) = (Vec::new(), Page::default());
    loop {
        let list = store.sessions_of(user, &page).unwrap();
        ids.extend(list.sessions.iter().map(|session| session.id));
        let Some(next) = list.next else { return ids };
        page.after = Some(next);
    }
}

fn increment(record: &mut Record) -> Result<Verdict> {
    let n: u64 = record.entries().get("n").unwrap().get()?;
    put(record, "n", n + 1);
    Ok(Verdict::Write)
}

/// All threads change, rotate and end sessions of the target. Returns the number of operations.
fn work_on(target: &dyn Admin, made: &mut [Made]) -> u64 {
    let operations = thread::scope(|scope| {
        let parts = made.chunks_mut(made.len().div_ceil(THREADS)).enumerate();
        let threads: Vec<_> = parts
            .map(|(thread, part)| {
                scope.spawn(move || {
                    let mut dice = Dice::new(thread as u64);
                    let steps = part.len().min(20_000);
                    (0..steps).for_each(|_| step(target, &mut part[dice.below(part.len())], dice.roll(10)));
                    steps as u64
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    // A cut-off of the target itself ends what was imported.
    target.delete_of("user 0", None).unwrap();
    for session in made.iter_mut().filter(|session| session.user.as_deref() == Some("user 0")) {
        session.increments = u64::MAX;
    }
    operations
}

fn step(target: &dyn Admin, session: &mut Made, operation: u64) {
    let (is_live, token) = (session.is_live(), session.token().clone());
    let is_done = match operation {
        0 => target.delete_by_id(&id_of(&token)).unwrap().is_some(),
        1 => {
            let rotated = target.rotate(&token, &mut increment, &Rotation::default()).unwrap();
            let is_done = rotated.is_some();
            session.there = rotated.map(|saved| saved.token).or(session.there.take());
            is_done
        }
        _ => target.update(&token, &mut increment, Durability::OfStore).unwrap().is_some(),
    };
    assert_eq!(is_done, is_live, "{:?}", session.fate);
    if is_live {
        session.increments = if operation == 0 { u64::MAX } else { session.increments + 1 };
    }
}

fn id_of(token: &Token) -> PublicId {
    PublicId::digest(token.expose().as_bytes())
}

fn check_work(target: &dyn Admin, made: &[Made]) {
    for session in made {
        let found = live(target, session.token());
        let n = found.map(|(_, record)| record.entries().get("n").unwrap().get::<u64>().unwrap());
        assert_eq!(n, session.is_live().then_some(session.increments), "{:?}", session.fate);
        if session.there.is_some() {
            assert!(live(target, &session.token).is_none(), "a replaced token opens a session");
        }
    }
    let alive = made.iter().filter(|session| session.is_live()).count() as u64;
    assert_eq!(target.count_by_state().unwrap().live, alive);
}
