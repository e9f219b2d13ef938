//! Stores on a server that loses answers, is away, and carries operations out late or twice: no update is lost or
//! counted twice, one of several rotations wins, and what was ended stays ended.
//!
//! Two stores, which stand for two processes, and four threads share a few sessions. A round is over when all threads
//! are done; then the line is repaired, what is late arrives, and the sessions are compared with the answers: an
//! acknowledged increment is there once, a refused one is not there, and of one whose end is unknown
//! (`Unanswered`) either may be true. Broken servers and stores are noticed within 100,000 operations.
use crate::figures::Figures;
use crate::rounds::Rounds;
use crate::support::dice::Dice;
use crate::support::faulty_rows::{Broken, FaultyRows};
use parking_lot::Mutex;
use sessile::database::SqliteOptions;
use sessile::rows::{MemoryRows, RowStore, RowStoreOptions, Rows};
use sessile::{Clock, Durability, ErrorKind, Lookup, Record, Result, Rotation, Store, Token, Value, Verdict};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

trials! {
    a_server_that_loses_answers_loses_and_doubles_nothing,
    a_database_whose_answers_are_lost_loses_and_doubles_nothing,
    a_swap_that_replaces_what_it_has_not_seen_is_noticed,
    a_row_with_one_tag_is_noticed,
    a_change_that_runs_again_after_a_lost_answer_is_noticed,
}

const SESSIONS: usize = 4;
const THREADS: usize = 4;
/// Operations of each thread in a round.
const OPERATIONS: usize = 100;
const HOUR: Duration = Duration::from_secs(3600);
const USERS: [&str; 2] = ["ada", "bob"];

type Faulty = RowStore<Arc<FaultyRows>>;

/// A session that all threads use, by the answers they got.
#[derive(Default)]
struct Expected {
    /// Its tokens; the last one may be alive.
    tokens: Vec<Token>,
    user: Option<&'static str>,
    /// Increments that were acknowledged, and those of which nothing is known.
    acknowledged: u64,
    unknown: u64,
    /// A rotation or an end was unanswered, so it may have another token or none.
    is_uncertain: bool,
    /// An end was acknowledged.
    is_ended: bool,
}

fn a_server_that_loses_answers_loses_and_doubles_nothing(_: &Path, time: Duration) -> Figures {
    all_rounds(time, |clock| Arc::new(MemoryRows::new(clock)))
}

/// Each round in new tables of one file.
fn a_database_whose_answers_are_lost_loses_and_doubles_nothing(dir: &Path, time: Duration) -> Figures {
    let tables = AtomicU64::new(0);
    all_rounds(time, |clock| {
        let prefix = format!("round{}_", tables.fetch_add(1, Ordering::SeqCst));
        let options = SqliteOptions::new().clock(clock).table_prefix(&prefix);
        Arc::new(options.open_rows(dir.join("sessions.db")).unwrap())
    })
}

fn all_rounds(time: Duration, rows: impl Fn(Clock) -> Arc<dyn Rows>) -> Figures {
    let rounds = Rounds::new(time, &[]);
    let mut figures = Figures::default();
    let mut sum = Done::default();
    while let Some(round) = rounds.next() {
        sum.add(&run_round(round, None, &mut figures, &rows));
        if figures.has_faults() {
            break;
        }
    }
    figures.rounds = rounds.done();
    figures.events = vec![
        ("operations", sum.operations),
        ("lost answers", sum.lost_answers),
        ("unknown updates of the session that nothing ends", sum.unknown),
    ];
    sum.check_unknown(&mut figures);
    figures
}

fn a_swap_that_replaces_what_it_has_not_seen_is_noticed(_: &Path, _: Duration) -> Figures {
    notices(Broken::Upsert)
}

fn a_row_with_one_tag_is_noticed(_: &Path, _: Duration) -> Figures {
    notices(Broken::OneTag)
}

fn a_change_that_runs_again_after_a_lost_answer_is_noticed(_: &Path, _: Duration) -> Figures {
    notices(Broken::Rerun)
}

/// Rounds until the fault is noticed.
fn notices(broken: Broken) -> Figures {
    let (mut sum, mut result) = (Done::default(), Figures::default());
    for round in 0.. {
        let mut figures = Figures::default();
        sum.add(&run_round(round, Some(broken), &mut figures, |clock| Arc::new(MemoryRows::new(clock))));
        sum.check_unknown(&mut figures);
        if figures.has_faults() {
            result.events = vec![("operations until it was noticed", sum.operations)];
            return result;
        }
        if sum.operations > 100_000 {
            result.fault(format!("{broken:?} was not noticed in {} operations", sum.operations));
            return result;
        }
    }
    unreachable!("the rounds end above")
}

#[derive(Default)]
struct Done {
    operations: u64,
    lost_answers: u64,
    /// Updates of the first session whose end is unknown.
    unknown: u64,
}

impl Done {
    fn add(&mut self, more: &Self) {
        self.operations += more.operations;
        self.lost_answers += more.lost_answers;
        self.unknown += more.unknown;
    }

    /// An update of a session that nothing ends is unknown only if eight others have followed it, or the server was
    /// away for the whole time limit.
    fn check_unknown(&self, figures: &mut Figures) {
        if self.unknown > self.operations / 400 + 5 {
            figures.fault(format!(
                "{} updates of {} operations have an unknown end",
                self.unknown, self.operations
            ));
        }
    }
}

fn run_round(
    round: u64,
    broken: Option<Broken>,
    figures: &mut Figures,
    rows: impl Fn(Clock) -> Arc<dyn Rows>,
) -> Done {
    // The clock stands still, so that no grace period ends because the machine is busy with other work.
    let rows = rows(Clock::manual(SystemTime::now()));
    let lines = [0, 1].map(|line| Arc::new(FaultyRows::new(Arc::clone(&rows), 2 * round + line, 20, broken)));
    let stores = lines.each_ref().map(|line| RowStoreOptions::new().open(Arc::clone(line)).unwrap());
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|n| {
            // The first one only counts, so that its sum is exact in each round.
            let user = (n > 1).then(|| USERS[n % 2]);
            let record = record_of(user);
            let tokens = vec![retried(|| stores[0].create(&record, Durability::OfStore)).token];
            Mutex::new(Expected { tokens, user, ..Expected::default() })
        })
        .collect();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, sessions) = (&stores[thread % 2], &sessions);
            scope.spawn(move || work(store, sessions, round * THREADS as u64 + thread as u64));
        }
    });
    for line in &lines {
        line.repair();
    }
    let fresh = RowStoreOptions::new().open(Arc::clone(&rows)).unwrap();
    for session in &sessions {
        figures.check(|| check(&fresh, &session.lock()));
    }
    let lost_answers = lines.iter().map(|line| line.lost_answers()).sum();
    let unknown = sessions[0].lock().unknown;
    Done { operations: (THREADS * OPERATIONS) as u64, lost_answers, unknown }
}

fn record_of(user: Option<&str>) -> Record {
    let now = SystemTime::now();
    let mut record = Record::new(now, now + HOUR);
    if let Some(user) = user {
        record.set_user(user).unwrap();
    }
    record
}

fn count(record: &Record) -> u64 {
    record.entries().get("n").map_or(0, |value| value.get().unwrap())
}

fn increment(record: &mut Record) -> Result<Verdict> {
    record.insert("n", &Value::new(&(count(record) + 1))?)?;
    Ok(Verdict::Write)
}

/// Until there is an answer.
fn retried<T>(mut run: impl FnMut() -> Result<T>) -> T {
    loop {
        match run() {
            Ok(done) => return done,
            Err(error) => assert!(is_of_the_line(error.kind()), "{error:?}"),
        }
    }
}

fn is_of_the_line(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Busy | ErrorKind::Unavailable | ErrorKind::Unanswered)
}

/// One thread's operations.
fn work(store: &Faulty, sessions: &[Mutex<Expected>], seed: u64) {
    let mut dice = Dice::new(seed ^ 0x5e55);
    for _ in 0..OPERATIONS {
        let at = dice.below(SESSIONS);
        let session = &sessions[at];
        let token = session.lock().tokens.last().unwrap().clone();
        let operation = if at == 0 { 0 } else { dice.roll(24) };
        match operation {
            20 => rotate(store, session, &token),
            21 => delete(store, session, &token),
            22 => delete_of(store, sessions, USERS[at % 2]),
            23 => load(store, session, &token),
            _ => update(store, session, &token),
        }
    }
}

fn update(store: &Faulty, session: &Mutex<Expected>, token: &Token) {
    let saved = store.update(token, &mut increment, Durability::OfStore);
    let mut expected = session.lock();
    match saved {
        Ok(Some(_)) => expected.acknowledged += 1,
        Ok(None) => {}
        Err(error) if error.kind() == ErrorKind::Unanswered => expected.unknown += 1,
        Err(error) => assert!(is_of_the_line(error.kind()), "{error:?}"),
    }
}

fn rotate(store: &Faulty, session: &Mutex<Expected>, token: &Token) {
    let how = Rotation::new(Durability::OfStore).grace(Duration::from_secs(60));
    let rotated = store.rotate(token, &mut |_| Ok(Verdict::Keep), &how);
    let mut expected = session.lock();
    match rotated {
        Ok(Some(saved)) => {
            assert_eq!(expected.tokens.last(), Some(token), "two rotations of one token have succeeded");
            expected.tokens.push(saved.token);
        }
        Ok(None) => {}
        Err(error) if error.kind() == ErrorKind::Unanswered => expected.is_uncertain = true,
        Err(error) => assert!(is_of_the_line(error.kind()), "{error:?}"),
    }
}

fn delete(store: &Faulty, session: &Mutex<Expected>, token: &Token) {
    match store.delete(token) {
        // Whether it was live is not known to this thread: a rotation of another one may be unanswered.
        Ok(_) => session.lock().is_ended = true,
        Err(error) => {
            assert!(is_of_the_line(error.kind()), "{error:?}");
            session.lock().is_uncertain = true;
        }
    }
}

fn delete_of(store: &Faulty, sessions: &[Mutex<Expected>], user: &'static str) {
    match store.delete_of(user, None) {
        Ok(()) => {
            let theirs = sessions.iter().map(|session| session.lock());
            theirs
                .filter(|session| session.user == Some(user))
                .for_each(|mut session| session.is_ended = true);
        }
        Err(error) => {
            assert!(is_of_the_line(error.kind()), "{error:?}");
            for session in sessions {
                session.lock().is_uncertain = true;
            }
        }
    }
}

fn load(store: &Faulty, session: &Mutex<Expected>, token: &Token) {
    let was_ended = session.lock().is_ended;
    match store.load(token) {
        Ok(Lookup::Live(live)) => {
            assert!(!was_ended, "a session is alive that was ended before");
            let expected = session.lock();
            let most = expected.acknowledged + expected.unknown + THREADS as u64;
            assert!(
                count(&live.record) <= most,
                "{} increments, at most {most} are possible",
                count(&live.record)
            );
        }
        Ok(Lookup::Absent(_)) => {}
        Err(error) => assert!(is_of_the_line(error.kind()), "{error:?}"),
    }
}

/// What is stored when all is done, by a store without faults.
fn check(store: &RowStore<Arc<dyn Rows>>, expected: &Expected) {
    let (last, former) = expected.tokens.split_last().unwrap();
    for token in former {
        assert!(matches!(store.load(token).unwrap(), Lookup::Absent(_)), "a replaced token is alive");
    }
    match store.load(last).unwrap() {
        Lookup::Live(live) => {
            assert!(!expected.is_ended, "a session is alive that was ended");
            let (increments, fewest) = (count(&live.record), expected.acknowledged);
            let most = fewest + expected.unknown;
            assert!((fewest..=most).contains(&increments), "{increments} increments, of {fewest} to {most}");
        }
        Lookup::Absent(absent) => {
            assert!(expected.is_ended || expected.is_uncertain, "it is {absent:?}, and nothing has ended it");
        }
    }
}
