//! `kill -9` at any instant: every session is at its last acknowledged version or at the one that was being
//! written, an ended session stays ended, no unexpected file appears, no lock stays held, and the next save
//! works.
//!
//! A kill never loses data that the kernel has received, so this tests atomicity and locks, not power cuts.
use crate::processes::{Act, files, holder};
use crate::support::process::{Dice, Parent, Start, Worker, rounds};
use crate::support::versions;
use sessile::{Durability, FileStore, FileStoreOptions, PublicId, Record, Store, Token, Value, Verdict};
use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

pub(crate) const WORKERS: &[(&str, Worker)] =
    &[("work until killed", work_until_killed), ("save all", save_all)];

/// Sessions of each writer that is killed.
const SESSIONS: usize = 8;
/// Writers that run, and are killed, at the same time.
const WRITERS: u64 = 2;

fn id_of(token: &Token) -> PublicId {
    PublicId::digest(token.expose().as_bytes())
}

fn open(dir: &Path) -> FileStore {
    FileStoreOptions::new().lock_wait(Duration::from_secs(20)).open(dir).unwrap()
}

/// A store without a cache, which returns the state of the files: a killed writer may not have invalidated
/// its last save.
fn open_without_cache(dir: &Path) -> FileStore {
    FileStoreOptions::new().lock_wait(Duration::from_secs(20)).cache_bytes(0).open(dir).unwrap()
}

/// A session as of its last acknowledgement.
type Known = Option<(Token, u64)>;

/// The next step of a writer, which it reports before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create(usize),
    Update(usize),
    Rotate(usize),
    Delete(usize),
    /// Increments this writer's entry of the session that all writers share.
    Count,
}

/// State of a sequence of killed writers that worked on the same sessions.
struct Ledger {
    writer: u64,
    shared: Token,
    sessions: [Known; SESSIONS],
    counted: u64,
    in_flight: Option<Step>,
    /// Tokens that must never be found live again.
    dead: Vec<Token>,
    /// Sessions ended by a rotation whose new token was lost with the killed writer.
    moved: Vec<PublicId>,
    /// Number of kills during a creation or a rotation: each may leave a session whose token is unknown.
    lost_most: usize,
    kills_amid: [u32; 5],
}

#[test]
fn after_kills_each_session_is_at_its_last_version_or_the_next() {
    let dir = TempDir::new().unwrap();
    let store = open_without_cache(dir.path());
    let shared = store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token;
    let kills = rounds(500).div_ceil(WRITERS);
    let ledgers = thread::scope(|scope| {
        let (store, shared, dir) = (&store, &shared, dir.path());
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || kill_again_and_again(dir, store, Ledger::new(writer, shared), kills))
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });

    let mut known = HashSet::from([id_of(&shared)]);
    for ledger in &ledgers {
        ledger.check_dead(&store, 0);
        known.extend(ledger.sessions.iter().flatten().map(|(token, _)| id_of(token)));
        // The file of an ended session may be there, without a version, if the kill came before the file was
        // unlinked.
        known.extend(ledger.dead.iter().map(id_of));
    }
    let lost_most: usize = ledgers.iter().map(|ledger| ledger.lost_most).sum();
    // Other files: temporary ones, and sessions whose token is unknown.
    let mut on_their_way = 0;
    let mut nameless = Vec::new();
    for path in files(dir.path()) {
        match PublicId::parse(&path.replacen('/', "", 1)) {
            Some(id) if known.contains(&id) => {}
            Some(_) => nameless.push(std::fs::read(dir.path().join(path)).unwrap()),
            None if path[2..].starts_with("/.new-") => on_their_way += 1,
            None => panic!("{path}"),
        }
    }
    assert!(on_their_way <= kills * WRITERS, "at most one for each kill");
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

    // A process that has seen none of this can save every session.
    let tokens: Vec<_> = ledgers.iter().flat_map(|ledger| ledger.sessions.iter().flatten()).collect();
    let mut fresh = Start::of("save all").with("DIR", dir.path()).start();
    fresh.say(tokens.len());
    for (token, version) in tokens {
        fresh.say(token.expose());
        assert_eq!(fresh.line(), format!("{}", version + 2));
    }
    fresh.finish();
}

fn kill_again_and_again(dir: &Path, store: &FileStore, mut ledger: Ledger, kills: u64) -> Ledger {
    let mut dice = Dice::new(100 + ledger.writer);
    for kill in 0..kills {
        let seed = (kill * WRITERS + ledger.writer).to_string();
        let start = Start::of("work until killed").with("DIR", dir).with("SEED", seed);
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
        ledger.check(store, kill);
        ledger.save(store, &mut dice);
    }
    let amid = ledger.kills_amid;
    assert!(kills < 100 || amid.iter().all(|kills| *kills > 0), "a step that no kill interrupted: {amid:?}");
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
            kills_amid: [0; 5],
        }
    }

    /// Processes a writer's report: `begin act session`, or `done version token` for the step that began
    /// last.
    #[track_caller]
    fn note(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        let step = match words[..] {
            ["begin", act, session] => {
                assert_eq!(self.in_flight, None, "{line}");
                let session = session.parse().unwrap();
                self.in_flight = Some(match act {
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

    /// Compares the sessions with the store after a kill, and records whether the step in progress took
    /// effect.
    #[track_caller]
    fn check(&mut self, store: &FileStore, kill: u64) {
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
        let amid = match in_flight {
            Some(Step::Create(_)) => 0,
            Some(Step::Update(_)) => 1,
            Some(Step::Rotate(_)) => 2,
            Some(Step::Delete(_)) => 3,
            Some(Step::Count) => 4,
            None => return,
        };
        self.kills_amid[amid] += 1;
        self.lost_most += usize::from(amid == 0 || amid == 2);
        self.check_dead(store, self.dead.len().saturating_sub(20));
    }

    #[track_caller]
    fn check_dead(&self, store: &FileStore, first: usize) {
        for token in &self.dead[first..] {
            assert_eq!(versions::stored(store, token), None, "live after its end");
        }
    }

    /// The next save of every session works.
    #[track_caller]
    fn save(&mut self, store: &FileStore, dice: &mut Dice) {
        for (token, version) in self.sessions.iter_mut().flatten() {
            save(store, token, *version, text_bytes(dice), durability(dice));
            *version += 1;
            assert_eq!(versions::stored(store, token), Some(*version));
        }
        count(store, &self.shared, self.writer, durability(dice));
        self.counted += 1;
    }
}

/// One save in sixteen does not fit the session's first file.
fn text_bytes(dice: &mut Dice) -> usize {
    let bytes = if dice.roll(16) == 0 { dice.roll(20_000) } else { dice.roll(1_500) };
    usize::try_from(bytes).unwrap()
}

fn durability(dice: &mut Dice) -> Durability {
    if dice.roll(3) == 0 { Durability::PowerSafe } else { Durability::Relaxed }
}

/// Saves the version after `version` of a session.
#[track_caller]
fn save(store: &FileStore, token: &Token, version: u64, text_bytes: usize, how: Durability) {
    let change = &mut |record: &mut Record| {
        assert_eq!(versions::of(record), version);
        versions::put(record, version + 1, text_bytes);
        Ok(Verdict::Write)
    };
    store.update(token, change, how).unwrap().expect("it is live");
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

fn work_until_killed(parent: &Parent) {
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
        let act = dice.roll(20);
        let Some((token, version)) = &mut sessions[n] else {
            parent.report(format_args!("begin create {n}"));
            let token = store.create(&versions::new(&store, 1, bytes), how).unwrap().token;
            parent.report(format_args!("done 1 {}", token.expose()));
            sessions[n] = Some((token, 1));
            continue;
        };
        match act {
            0 => {
                parent.report(format_args!("begin delete {n}"));
                assert!(store.delete(token).unwrap());
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
                *token = store.rotate(token, change, how).unwrap().unwrap().token;
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
                save(&store, token, *version, bytes, how);
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
            save(&store, &token, version, 10, how);
        }
        parent.report(versions::stored(&store, &token).expect("it is live"));
    }
}

#[test]
fn a_holder_that_is_killed_leaves_the_old_version_and_no_lock() {
    for act in Act::ALL {
        check_killed_holder(act);
    }
}

#[track_caller]
fn check_killed_holder(act: Act) {
    let dir = TempDir::new().unwrap();
    let store = open_without_cache(dir.path());
    let held = store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token;
    let holder = holder(&dir, &held, act);
    thread::scope(|scope| {
        // Waits like another process: it polls for the lock while the holder is killed.
        let waiter = scope.spawn(|| save(&store, &held, 1, 10, Durability::OfStore));
        thread::sleep(Duration::from_millis(20));
        assert_eq!(versions::stored(&store, &held), Some(1), "{act:?}: changed before the change was made");
        assert_eq!(holder.kill(), [""; 0]);
        waiter.join().unwrap();
    });
    assert_eq!(versions::stored(&store, &held), Some(2), "{act:?}");
    assert_eq!(files(dir.path()).len(), 1, "{act:?}: no successor");
    assert!(act.run(&store, &held, || {}).unwrap().is_some(), "{act:?}");
}

/// Flags of a slot's state byte, and where it is: see `docs/format.md`.
const DATA_SYNCED: u8 = 1;
const NAME_SYNCED: u8 = 2;
const RETIRING: u8 = 4;
const STATE_AT: usize = 7;
const SLOT: usize = 2048;

/// A killed writer may leave any of these flags in the newest slot. The next save must not assume more than
/// they state, and must not set flags for syncs it did not make.
#[test]
fn a_power_safe_save_after_a_kill_ends_synced() {
    let dir = TempDir::new().unwrap();
    let store = open_without_cache(dir.path());
    for left in [0, DATA_SYNCED, NAME_SYNCED, DATA_SYNCED | NAME_SYNCED] {
        for left in [left, left | RETIRING] {
            check_state(&store, left, Durability::PowerSafe, DATA_SYNCED | NAME_SYNCED);
            check_state(&store, left, Durability::Relaxed, left & NAME_SYNCED);
        }
    }
}

#[track_caller]
fn check_state(store: &FileStore, left: u8, how: Durability, want: u8) {
    let token = store.create(&versions::new(store, 1, 10), Durability::Relaxed).unwrap().token;
    save(store, &token, 1, 10, Durability::Relaxed);
    let id = id_of(&token).to_string();
    let path = store.path().join(&id[..2]).join(&id[2..]);
    // The second version is in the second slot, the third will be in the first.
    File::options().write(true).open(&path).unwrap().write_all_at(&[left], (SLOT + STATE_AT) as u64).unwrap();
    save(store, &token, 2, 10, how);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes[STATE_AT], want, "after {left}, {how:?}");
    assert_eq!(versions::stored(store, &token), Some(3), "after {left}, {how:?}");
}
