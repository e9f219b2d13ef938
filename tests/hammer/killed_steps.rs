//! Writers that report each step before they begin it and after it is done, and are killed with SIGKILL at any instant:
//! every session is at its last acknowledged version or at the one that was being written, an ended session stays
//! ended, no unexpected file appears, no lock stays held, and the next save works.
//!
//! A kill never loses data that the kernel has received, so this tests atomicity and locks, not power cuts.
use crate::figures::Figures;
use crate::rounds::Rounds;
use crate::stage::store_in;
use crate::support::dice::Dice;
use crate::support::process::{Parent, Start, Worker};
use crate::support::texts::files_in_shards;
use crate::support::versions;
use sessile::{Durability, FileStore, FileStoreOptions, PublicId, Record, Store, Token, Value, Verdict};
use std::collections::HashSet;
use std::path::Path;
use std::thread;
use std::time::Duration;

trials! {
    after_kills_each_session_is_at_its_last_version_or_the_next,
}

pub(crate) const WORKERS: &[(&str, Worker)] =
    &[("take steps until killed", take_steps_until_killed), ("save all", save_all)];

/// Options with all syncs, as most programs use them.
fn options() -> FileStoreOptions {
    FileStoreOptions::new().lock_wait(Duration::from_secs(20))
}

fn open(dir: &Path) -> FileStore {
    options().open(store_in(dir)).unwrap()
}

/// Opens a store without a cache, which returns what the files contain: a killed process may not have invalidated its
/// last save.
fn open_without_cache(dir: &Path) -> FileStore {
    options().cache_bytes(0).open(store_in(dir)).unwrap()
}

/// The number of sessions of each writer.
const SESSIONS: usize = 8;
/// The number of writers that run, and are killed, at the same time.
const WRITERS: u64 = 2;

fn id_of(token: &Token) -> PublicId {
    PublicId::digest(token.expose().as_bytes())
}

/// The token and the version of a session by its last acknowledgement; `None` if it has ended.
type Known = Option<(Token, u64)>;

/// The next step of a writer, which reports the step before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create(usize),
    Update(usize),
    Rotate(usize),
    Delete(usize),
    /// Increments this writer's entry in the session that all writers share.
    Count,
}

/// The names of the counts of kills during each step, in the order of [`Step::index`].
const KILLS_AMID: [&str; 5] = [
    "kills amid a creation",
    "kills amid an update",
    "kills amid a rotation",
    "kills amid a deletion",
    "kills amid a count",
];

impl Step {
    fn index(self) -> usize {
        match self {
            Self::Create(_) => 0,
            Self::Update(_) => 1,
            Self::Rotate(_) => 2,
            Self::Delete(_) => 3,
            Self::Count => 4,
        }
    }
}

/// What is known about the sessions of a sequence of writers. When one is killed, the next one goes on with the same
/// sessions.
struct Ledger {
    writer: u64,
    shared: Token,
    sessions: [Known; SESSIONS],
    counted: u64,
    in_flight: Option<Step>,
    /// Tokens of ended sessions. None may open a session again.
    dead: Vec<Token>,
    /// Sessions whose rotation has ended them, while the new token was lost with the killed writer.
    moved: Vec<PublicId>,
    /// The number of kills during a creation or a rotation. Each may leave a session whose token is unknown.
    lost_most: usize,
}

fn after_kills_each_session_is_at_its_last_version_or_the_next(dir: &Path, time: Duration) -> Figures {
    let store = open_without_cache(dir);
    let shared = store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token;
    let rounds = Rounds::new(time, &KILLS_AMID);
    let ledgers = thread::scope(|scope| {
        let (store, shared, rounds) = (&store, &shared, &rounds);
        let kill = |writer| kill_again_and_again(dir, store, Ledger::new(writer, shared), rounds);
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || kill(writer))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });

    let mut known = HashSet::from([id_of(&shared)]);
    for ledger in &ledgers {
        ledger.check_dead(&store, 0);
        known.extend(ledger.sessions.iter().flatten().map(|(token, _)| id_of(token)));
        // The file of an ended session may be left, without a version, if the process was killed before it unlinked the
        // file.
        known.extend(ledger.dead.iter().map(id_of));
    }
    let lost_most: usize = ledgers.iter().map(|ledger| ledger.lost_most).sum();
    // Counts the other files: temporary ones, and sessions whose token is unknown.
    let mut on_their_way = 0;
    let mut nameless = Vec::new();
    for path in files_in_shards(store.path()) {
        let name = path.strip_prefix(store.path()).unwrap().to_str().unwrap();
        match PublicId::parse(&name.replacen('/', "", 1)) {
            Some(id) if known.contains(&id) => {}
            Some(_) => nameless.push(std::fs::read(path).unwrap()),
            None if name[2..].starts_with("/.new-") => on_their_way += 1,
            None => panic!("{name}"),
        }
    }
    assert!(on_their_way <= rounds.done(), "at most one for each kill");
    assert!(
        nameless.len() <= lost_most,
        "{} sessions without a known token, at most {lost_most} expected",
        nameless.len()
    );
    for old in ledgers.iter().flat_map(|ledger| &ledger.moved) {
        let old = old.to_string();
        let is_successor = |bytes: &Vec<u8>| bytes.windows(old.len()).any(|part| part == old.as_bytes());
        assert!(nameless.iter().any(is_successor), "a rotation ended {old} before its successor was there");
    }

    // A process that starts now can save every session.
    let tokens: Vec<_> = ledgers.iter().flat_map(|ledger| ledger.sessions.iter().flatten()).collect();
    let mut fresh = Start::of("save all").with("DIR", dir).start();
    fresh.say(tokens.len());
    for (token, version) in tokens {
        fresh.say(token.expose());
        assert_eq!(fresh.line(), format!("{}", version + 2));
    }
    fresh.finish();
    rounds.figures()
}

fn kill_again_and_again(dir: &Path, store: &FileStore, mut ledger: Ledger, rounds: &Rounds) -> Ledger {
    let mut dice = Dice::new(100 + ledger.writer);
    while let Some(kill) = rounds.next() {
        let start = Start::of("take steps until killed").with("DIR", dir).with("SEED", kill.to_string());
        let start = start.with("WRITER", ledger.writer.to_string()).with("SHARED", ledger.shared.expose());
        let mut child = start.start();
        for known in &ledger.sessions {
            match known {
                Some((token, version)) => child.say(format_args!("{version} {}", token.expose())),
                None => child.say("none"),
            }
        }
        ledger.note(&child.line());
        thread::sleep(Duration::from_micros(dice.roll(20_000)));
        for line in child.kill() {
            ledger.note(&line);
        }
        if let Some(step) = ledger.check(store, kill) {
            rounds.count(KILLS_AMID[step.index()], 1);
        }
        ledger.save(store, &mut dice);
    }
    ledger
}

impl Ledger {
    fn new(writer: u64, shared: &Token) -> Self {
        Self {
            writer,
            shared: shared.clone(),
            sessions: [const { None }; SESSIONS],
            counted: 0,
            in_flight: None,
            dead: Vec::new(),
            moved: Vec::new(),
            lost_most: 0,
        }
    }

    /// Processes a writer's report: `begin operation session`, or `done version token` for the step that it began last.
    #[track_caller]
    fn note(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        let step = match words[..] {
            ["begin", operation, session] => {
                assert_eq!(self.in_flight, None, "{line}");
                let session = session.parse().unwrap();
                self.in_flight = Some(match operation {
                    "create" => Step::Create(session),
                    "update" => Step::Update(session),
                    "rotate" => Step::Rotate(session),
                    "delete" => Step::Delete(session),
                    _ => Step::Count,
                });
                return;
            }
            ["done", ..] => self.in_flight.take().expect(line),
            _ => panic!("{line}"),
        };
        let ended = match (step, &words[1..]) {
            (Step::Create(session) | Step::Update(session) | Step::Rotate(session), [version, token]) => {
                let now = (Token::parse(token).unwrap(), version.parse().unwrap());
                let before = self.sessions[session].replace(now.clone());
                before.filter(|before| before.0 != now.0)
            }
            (Step::Delete(session), []) => self.sessions[session].take(),
            (Step::Count, []) => {
                self.counted += 1;
                None
            }
            _ => panic!("{step:?}: {line}"),
        };
        self.dead.extend(ended.map(|(token, _)| token));
    }

    /// Compares the sessions with the store after a kill. Returns the step that was under way, and records whether it
    /// has taken effect.
    #[track_caller]
    fn check(&mut self, store: &FileStore, kill: u64) -> Option<Step> {
        let in_flight = self.in_flight.take();
        for (n, known) in self.sessions.iter_mut().enumerate() {
            let Some((token, acknowledged)) = known else { continue };
            let found = versions::stored(store, token);
            let context =
                || format!("kill {kill}, session {n}, amid {in_flight:?}: {found:?}, was {acknowledged}");
            match (found, in_flight) {
                (Some(version), _) if version == *acknowledged => {}
                (Some(version), Some(Step::Update(amid))) if amid == n => {
                    assert_eq!(version, *acknowledged + 1, "{}", context());
                    *acknowledged = version;
                }
                (None, Some(step @ (Step::Delete(amid) | Step::Rotate(amid)))) if amid == n => {
                    if step == Step::Rotate(n) {
                        self.moved.push(id_of(token));
                    }
                    self.dead.extend(known.take().map(|(token, _)| token));
                }
                _ => panic!("{}", context()),
            }
        }
        let counted = counted(store, &self.shared, self.writer);
        let may_be = self.counted..=self.counted + u64::from(in_flight == Some(Step::Count));
        assert!(
            may_be.contains(&counted),
            "kill {kill}, amid {in_flight:?}: counted {counted}, not {may_be:?}"
        );
        self.counted = counted;
        self.lost_most += usize::from(matches!(in_flight, Some(Step::Create(_) | Step::Rotate(_))));
        self.check_dead(store, self.dead.len().saturating_sub(20));
        in_flight
    }

    #[track_caller]
    fn check_dead(&self, store: &FileStore, first: usize) {
        for token in &self.dead[first..] {
            assert_eq!(versions::stored(store, token), None, "live after its end");
        }
    }

    /// Asserts that the next save of every session succeeds.
    #[track_caller]
    fn save(&mut self, store: &FileStore, dice: &mut Dice) {
        for (token, version) in self.sessions.iter_mut().flatten() {
            versions::save(store, token, *version, text_bytes(dice), durability(dice));
            *version += 1;
            assert_eq!(versions::stored(store, token), Some(*version));
        }
        count(store, &self.shared, self.writer, durability(dice));
        self.counted += 1;
    }
}

/// The number of bytes of the next text. One in sixteen is too large for the session's first file.
fn text_bytes(dice: &mut Dice) -> usize {
    let bytes = if dice.roll(16) == 0 { dice.roll(20_000) } else { dice.roll(1_500) };
    usize::try_from(bytes).unwrap()
}

fn durability(dice: &mut Dice) -> Durability {
    if dice.roll(3) == 0 { Durability::PowerSafe } else { Durability::Relaxed }
}

fn counter(record: &Record, writer: u64) -> u64 {
    record.entries().get(format!("writer {writer}").as_str()).map_or(0, |value| value.get().unwrap())
}

#[track_caller]
fn counted(store: &FileStore, shared: &Token, writer: u64) -> u64 {
    let sessile::Lookup::Live(live) = store.load(shared).unwrap() else {
        panic!("the shared session is gone")
    };
    counter(&live.record, writer)
}

#[track_caller]
fn count(store: &FileStore, shared: &Token, writer: u64, how: Durability) {
    let change = &mut |record: &mut Record| {
        let next = Value::new(&(counter(record, writer) + 1)).unwrap();
        record.insert(&format!("writer {writer}"), &next).unwrap();
        Ok(Verdict::Write)
    };
    store.update(shared, change, how).unwrap().expect("it is live");
}

fn take_steps_until_killed(parent: &Parent) {
    let store = open(Path::new(parent.argument("DIR")));
    let shared = Token::parse(parent.argument("SHARED")).unwrap();
    let mut dice = Dice::new(parent.number("SEED"));
    let mut sessions: [Known; SESSIONS] = std::array::from_fn(|_| {
        let line = parent.line();
        line.split_once(' ').map(|(version, token)| (Token::parse(token).unwrap(), version.parse().unwrap()))
    });
    loop {
        let n = usize::try_from(dice.roll(SESSIONS as u64)).unwrap();
        let (bytes, how) = (text_bytes(&mut dice), durability(&mut dice));
        let operation = dice.roll(20);
        let Some((token, version)) = &mut sessions[n] else {
            parent.report(format_args!("begin create {n}"));
            let token = store.create(&versions::new(&store, 1, bytes), how).unwrap().token;
            parent.report(format_args!("done 1 {}", token.expose()));
            sessions[n] = Some((token, 1));
            continue;
        };
        match operation {
            0 => {
                parent.report(format_args!("begin delete {n}"));
                assert!(store.delete(token).unwrap().is_some());
                parent.report("done");
                sessions[n] = None;
            }
            1 => {
                parent.report(format_args!("begin rotate {n}"));
                let old = Value::new(&id_of(token).to_string()).unwrap();
                let change = &mut |record: &mut Record| {
                    versions::put(record, *version + 1, bytes);
                    record.insert("moved from", &old).unwrap();
                    Ok(Verdict::Write)
                };
                *token = store.rotate(token, change, &how.into()).unwrap().unwrap().token;
                *version += 1;
                parent.report(format_args!("done {version} {}", token.expose()));
            }
            2..6 => {
                parent.report("begin count 0");
                count(&store, &shared, parent.number("WRITER"), how);
                parent.report("done");
            }
            _ => {
                parent.report(format_args!("begin update {n}"));
                versions::save(&store, token, *version, bytes, how);
                *version += 1;
                parent.report(format_args!("done {version} {}", token.expose()));
            }
        }
    }
}

fn save_all(parent: &Parent) {
    let store = open(Path::new(parent.argument("DIR")));
    for _ in 0..parent.line().parse().unwrap() {
        let token = Token::parse(&parent.line()).unwrap();
        for how in [Durability::Relaxed, Durability::PowerSafe] {
            let version = versions::stored(&store, &token).expect("it is live");
            versions::save(&store, &token, version, 10, how);
        }
        parent.report(versions::stored(&store, &token).expect("it is live"));
    }
}
