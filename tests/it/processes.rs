//! Several processes, one directory: no update is lost, an ended session stays ended in the middle of
//! any operation, and every load sees the last acknowledged save or something newer.
use crate::support::memory::sessions_in;
use crate::support::process::{
    Child, Dice, Parent, Start, Worker, assert_met, hear_from_all, rounds, say_to_all,
};
use crate::support::versions;
use sessile::{
    Durability, ErrorKind, FileStore, FileStoreOptions, Record, Saved, Sessions, Store, Token, Verdict,
};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) const WORKERS: &[(&str, Worker)] = &[
    ("increment", increment),
    ("set own entries", set_own_entries),
    ("save until gone", save_until_gone),
    ("rotate", rotate),
    ("hold", hold),
    ("work until gone", work_until_gone),
    ("open stores", open_stores),
    ("write versions", write_versions),
    ("read versions", read_versions),
];

/// Far longer than any operation here holds a lock, unless a test holds it.
const LONG_WAIT: Duration = Duration::from_secs(60);
const SHORT_WAIT: Duration = Duration::from_millis(100);
/// Time limit for an operation on a busy machine, where the lock wait is [`SHORT_WAIT`].
const SOON: Duration = Duration::from_secs(10);

fn open(dir: &Path, lock_wait: Duration) -> FileStore {
    FileStoreOptions::new().lock_wait(lock_wait).open(dir).unwrap()
}

/// The races here are about locks and names; none needs its logouts on the disk.
fn sessions(dir: &Path) -> Sessions {
    let options = FileStoreOptions::new().lock_wait(LONG_WAIT).sync_security_events(false);
    sessions_in(options.open(dir).unwrap())
}

fn dir_of(parent: &Parent) -> PathBuf {
    parent.argument("DIR").into()
}

fn start(worker: &'static str, dir: &TempDir) -> Start {
    Start::of(worker).with("DIR", dir.path())
}

fn token(text: &str) -> Token {
    Token::parse(text).unwrap()
}

/// The files in the shards: sessions and leftovers of unfinished operations.
pub(crate) fn files(dir: &Path) -> Vec<String> {
    let relative = |path: PathBuf| path.strip_prefix(dir).unwrap().display().to_string();
    crate::support::texts::files_in_shards(dir).into_iter().map(relative).collect()
}

/// A new session with one entry.
fn create(sessions: &Sessions, name: &str, value: u64) -> Token {
    let mut session = sessions.session([]);
    session.insert(name, value).unwrap();
    session.save().unwrap();
    session.token().unwrap().unwrap()
}

#[test]
fn increments_by_eight_threads_of_two_processes_all_count() {
    check_increments("update and save", rounds(500));
    check_increments("update_now", rounds(500));
    for _ in 0..rounds(3) {
        check_increments("update and save, growing", 60);
    }
}

const THREADS: u64 = 4;

#[track_caller]
fn check_increments(how: &str, each: u64) {
    let dir = TempDir::new().unwrap();
    let sessions = sessions(dir.path());
    let shared = create(&sessions, "n", 0);
    let mut children: Vec<_> = (0..2)
        .map(|_| {
            let start = start("increment", &dir).with("TOKEN", shared.expose()).with("HOW", how);
            start.with("EACH", each.to_string()).start()
        })
        .collect();
    hear_from_all(&children, "ready");
    say_to_all(&mut children, "go");
    for child in children {
        assert_eq!(child.finish(), [""; 0]);
    }
    let sum: Option<u64> = sessions.session([shared]).get("n").unwrap();
    assert_eq!(sum, Some(2 * THREADS * each), "by {how}");
}

fn increment(parent: &Parent) {
    let sessions = sessions(&dir_of(parent));
    let shared = token(parent.argument("TOKEN"));
    let how = parent.argument("HOW");
    parent.report("ready");
    parent.line();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for done in 0..parent.number("EACH") {
                    let mut session = sessions.session([shared.clone()]);
                    match how {
                        "update and save" => {
                            session.update("n", |n: &mut u64| *n += 1).unwrap();
                            session.save().unwrap();
                        }
                        // From 2 KiB to 64: at each doubling, seven other threads wait for the file that is
                        // replaced.
                        "update and save, growing" => {
                            session.update("n", |n: &mut u64| *n += 1).unwrap();
                            session
                                .insert("text", "x".repeat(usize::try_from(done * 1000).unwrap()))
                                .unwrap();
                            session.save().unwrap();
                        }
                        _ => session.update_now("n", |n: &mut u64| *n += 1).unwrap(),
                    }
                }
            });
        }
    });
}

/// Each of the eight requests has read the session before the first of them saves.
#[test]
fn eight_requests_that_set_different_entries_at_once_all_win() {
    let dir = TempDir::new().unwrap();
    let sessions = sessions(dir.path());
    let mut children =
        [0, 1].map(|process| start("set own entries", &dir).with("PROCESS", process.to_string()).start());
    for round in 0..rounds(100) {
        let shared = create(&sessions, "round", round);
        say_to_all(&mut children, shared.expose());
        hear_from_all(&children, "all have read");
        say_to_all(&mut children, "save");
        hear_from_all(&children, "all have saved");
        let session = sessions.session([shared]);
        for request in 0..2 * THREADS {
            assert_eq!(session.get(&format!("of {request}")).unwrap(), Some(round), "round {round}");
        }
        assert_eq!(session.names().unwrap().len() as u64, 2 * THREADS + 1);
    }
    for mut child in children {
        child.say("end");
        child.finish();
    }
}

fn set_own_entries(parent: &Parent) {
    let sessions = sessions(&dir_of(parent));
    let first = parent.number("PROCESS") * THREADS;
    loop {
        let line = parent.line();
        if line == "end" {
            return;
        }
        let mut requests: Vec<_> = (0..THREADS)
            .map(|n| {
                let session = sessions.session([token(&line)]);
                let round: u64 = session.get("round").unwrap().unwrap();
                (session, format!("of {}", first + n), round)
            })
            .collect();
        parent.report("all have read");
        parent.line();
        thread::scope(|scope| {
            for (session, name, round) in &mut requests {
                scope.spawn(|| {
                    session.insert(name, *round).unwrap();
                    session.save().unwrap();
                });
            }
        });
        parent.report("all have saved");
    }
}

#[test]
fn saves_in_flight_resurrect_no_destroyed_session() {
    let dir = TempDir::new().unwrap();
    let sessions = sessions(dir.path());
    check_against_saves(&dir, &sessions, 2_000, |old| {
        let mut session = sessions.session([old]);
        session.destroy().unwrap();
        None
    });
    assert_eq!(files(dir.path()), [""; 0], "no file is left of destroyed sessions");
}

#[test]
fn saves_in_flight_reach_the_successor_of_a_rotation_or_fail() {
    let dir = TempDir::new().unwrap();
    let sessions = sessions(dir.path());
    let mut successors = 0;
    check_against_saves(&dir, &sessions, 800, |old| {
        let mut session = sessions.session([old.clone()]);
        session.rotate_id();
        session.save().unwrap();
        successors += 1;
        let new = session.token().unwrap().unwrap();
        assert_ne!(new, old);
        Some(new)
    });
    assert_eq!(files(dir.path()).len(), successors, "one file for each session, and no other file");
}

/// Ends sessions at random instants while another process saves them as fast as it can. `end` returns the id
/// of the successor, if there is one.
fn check_against_saves(
    dir: &TempDir,
    sessions: &Sessions,
    usual: u64,
    mut end: impl FnMut(Token) -> Option<Token>,
) {
    let mut saver = start("save until gone", dir).start();
    let mut dice = Dice::new(3);
    let mut in_all = 0;
    let rounds = rounds(usual);
    for round in 0..rounds {
        let old = create(sessions, "saved", 0);
        saver.say(old.expose());
        assert_eq!(saver.line(), "saving");
        dice.pause(400);
        let successor = end(old.clone());
        let here = sessions.session([old.clone()]);
        assert_eq!(here.get::<u64>("saved").unwrap(), None, "round {round}: alive after it was ended");
        // The other process goes on until it is told that the session is gone, and then tries once more.
        let acknowledged: u64 = saver.line().parse().unwrap();
        in_all += acknowledged;
        let here = sessions.session([old]);
        assert_eq!(here.public_id().unwrap(), None, "round {round}: alive after a late save");
        if let Some(successor) = successor {
            let session = sessions.session([successor]);
            assert_eq!(
                session.get("saved").unwrap(),
                Some(acknowledged),
                "round {round}: acknowledged, but absent"
            );
        }
    }
    assert_met("saves in flight", in_all, rounds);
    saver.say("end");
    saver.finish();
}

/// Saves a session, in varying ways, until it is gone; every load meanwhile returns the version that was
/// saved last.
fn save_until_gone(parent: &Parent) {
    let sessions = sessions(&dir_of(parent));
    let mut dice = Dice::new(4);
    loop {
        let line = parent.line();
        if line == "end" {
            return;
        }
        let brought = token(&line);
        let mut late = sessions.session([brought.clone()]);
        assert_eq!(late.get("saved").unwrap(), Some(0_u64));
        let mut saved = 0_u64;
        parent.report("saving");
        loop {
            let mut session = sessions.session([brought.clone()]);
            let Some(found) = session.get::<u64>("saved").unwrap() else { break };
            assert_eq!(found, saved, "a load saw another version than the last one that was saved");
            // In place; in place, at once; gradually larger.
            let result = match dice.roll(8) {
                0..4 => session.update("saved", |n: &mut u64| *n += 1).and_then(|_| session.save()),
                4..7 => session.update_now("saved", |n: &mut u64| *n += 1),
                _ => {
                    let text = "x".repeat(usize::try_from(dice.roll(9_000)).unwrap());
                    session.insert("text", text).unwrap();
                    session.update("saved", |n: &mut u64| *n += 1).and_then(|_| session.save())
                }
            };
            match result {
                Ok(()) => saved += 1,
                Err(error) if error.kind() == ErrorKind::Gone => break,
                Err(error) => panic!("{error}"),
            }
        }
        late.update("saved", |n: &mut u64| *n += 1).unwrap();
        assert_eq!(late.save().unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(sessions.session([brought]).public_id().unwrap(), None, "alive after a late save");
        parent.report(saved);
    }
}

#[test]
fn of_two_rotations_at_once_one_succeeds() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), LONG_WAIT);
    let mut rival = start("rotate", &dir).start();
    let mut dice = Dice::new(5);
    let mut won = 0;
    let rounds = rounds(500);
    for round in 0..rounds {
        let old = store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token;
        rival.say(old.expose());
        dice.pause(200);
        let ours = rotate_once(&store, &old);
        let theirs = match rival.line().as_str() {
            "lost" => None,
            text => Some(token(text)),
        };
        won += u64::from(ours.is_some());
        let ((Some(successor), None) | (None, Some(successor))) = (ours, theirs) else {
            panic!("round {round}: both rotations succeeded, or none")
        };
        assert_eq!(versions::stored(&store, &old), None);
        assert_eq!(versions::stored(&store, &successor), Some(2), "changed once");
    }
    let files = files(dir.path());
    assert_eq!(files.len() as u64, rounds, "one successor a round, and no other file");
    assert_met("rotations that were won here", won, rounds);
    assert_met("rotations that were won there", rounds - won, rounds);
    rival.say("end");
    rival.finish();
}

fn rotate_once(store: &FileStore, old: &Token) -> Option<Token> {
    let change = &mut |record: &mut Record| {
        let version = versions::of(record);
        versions::put(record, version + 1, 10);
        Ok(Verdict::Write)
    };
    store.rotate(old, change, Durability::OfStore).unwrap().map(|saved| saved.token)
}

fn rotate(parent: &Parent) {
    let store = open(&dir_of(parent), LONG_WAIT);
    loop {
        let line = parent.line();
        if line == "end" {
            return;
        }
        let won = rotate_once(&store, &token(&line));
        parent.report(won.as_ref().map_or("lost", Token::expose));
    }
}

/// The operation that a holder of the lock is about to complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Overwrite,
    Grow,
    Rotate,
}

impl Act {
    pub(crate) const ALL: [Self; 3] = [Self::Overwrite, Self::Grow, Self::Rotate];

    pub(crate) fn run(
        self,
        store: &FileStore,
        token: &Token,
        mut inside: impl FnMut(),
    ) -> sessile::Result<Option<Saved>> {
        let change = &mut |record: &mut Record| {
            inside();
            let bytes = if self == Self::Grow { 5_000 } else { 10 };
            versions::put(record, 2, bytes);
            Ok(Verdict::Write)
        };
        match self {
            Self::Overwrite | Self::Grow => store.update(token, change, Durability::OfStore),
            Self::Rotate => store.rotate(token, change, Durability::OfStore),
        }
    }
}

/// Starts a process that is in the middle of an update or a rotation, and stays there until it is sent a
/// line.
pub(crate) fn holder(dir: &TempDir, held: &Token, act: Act) -> Child {
    let child = start("hold", dir).with("TOKEN", held.expose()).with("ACT", format!("{act:?}")).start();
    assert_eq!(child.line(), "inside");
    child
}

fn hold(parent: &Parent) {
    let store = open(&dir_of(parent), LONG_WAIT);
    let act = Act::ALL.into_iter().find(|act| format!("{act:?}") == parent.argument("ACT")).unwrap();
    let saved = act.run(&store, &token(parent.argument("TOKEN")), || {
        parent.report("inside");
        parent.line();
    });
    match saved.unwrap() {
        Some(saved) => parent.report(saved.token.expose()),
        None => parent.report("gone"),
    }
}

#[test]
fn a_delete_does_not_wait_for_a_stopped_writer() {
    for act in Act::ALL {
        check_delete_beside(act);
    }
}

#[track_caller]
fn check_delete_beside(act: Act) {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), SHORT_WAIT);
    let held = store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token;
    let mut holder = holder(&dir, &held, act);
    // A save of a third process, which has opened the file and waits for the holder.
    let waiter = start("hold", &dir).with("TOKEN", held.expose()).with("ACT", format!("{act:?}")).start();
    thread::sleep(SHORT_WAIT);
    holder.stop();
    let begun = Instant::now();
    assert!(store.delete(&held).unwrap(), "{act:?}: the session was live");
    let took = begun.elapsed();
    assert!(took >= SHORT_WAIT && took < SOON, "{act:?}: a delete took {took:?}");
    assert_eq!(versions::stored(&store, &held), None, "{act:?}: live after its deletion");

    holder.say("go on");
    holder.go_on();
    let [outcome] = &holder.finish()[..] else { panic!("{act:?}: one outcome") };
    // An update in place began before the deletion and may count as earlier; the session is gone in any case.
    if act != Act::Overwrite {
        assert_eq!(outcome, "gone", "{act:?}");
    }
    assert_eq!(versions::stored(&store, &held), None, "{act:?}: revived by the holder");
    let mut outcome = waiter.line();
    if outcome == "inside" {
        let mut waiter = waiter;
        waiter.say("go on");
        outcome = waiter.line();
        waiter.finish();
    }
    if act != Act::Overwrite {
        assert_eq!(outcome, "gone", "{act:?}");
    }
    assert_eq!(
        versions::stored(&store, &held),
        None,
        "{act:?}: revived by the process that waited for the holder"
    );
    assert_eq!(files(dir.path()), [""; 0], "{act:?}: neither the session nor a successor is left");
    assert!(!store.delete(&held).unwrap(), "{act:?}: it was gone already");
}

/// The same, stopped anywhere: between any two system calls of an update, a growth or a rotation.
#[test]
fn a_delete_is_not_undone_by_a_writer_stopped_at_any_instant() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), Duration::from_millis(10));
    let mut worker = start("work until gone", &dir).start();
    let mut dice = Dice::new(7);
    let mut deleted = 0;
    let rounds = rounds(150);
    for round in 0..rounds {
        let old = store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token;
        worker.say(old.expose());
        assert_eq!(worker.line(), "at work");
        dice.pause(3_000);
        worker.stop();
        let was_live = store.delete(&old).unwrap();
        assert_eq!(versions::stored(&store, &old), None, "round {round}: live after its deletion");
        worker.go_on();
        let outcome = worker.line();
        assert_eq!(versions::stored(&store, &old), None, "round {round}: revived");
        // Only a rotation that was complete before the deletion began has a successor.
        assert_eq!(outcome == "gone", was_live, "round {round}");
        if was_live {
            deleted += 1;
        } else {
            assert!(store.delete(&token(&outcome)).unwrap(), "round {round}: the new id is live");
        }
        assert_eq!(files(dir.path()), [""; 0], "round {round}: was live: {was_live}");
    }
    assert_met("sessions that were still live", deleted, rounds);
    worker.say("end");
    worker.finish();
}

/// Saves a session, sometimes growing it, and finally rotates it, until it is gone or has a new id.
fn work_until_gone(parent: &Parent) {
    let store = open(&dir_of(parent), LONG_WAIT);
    let mut dice = Dice::new(8);
    loop {
        let line = parent.line();
        if line == "end" {
            return;
        }
        let presented = token(&line);
        let mut bytes = 10;
        parent.report("at work");
        loop {
            let rotates = dice.roll(4) == 0;
            if dice.roll(3) == 0 && bytes < 100_000 {
                bytes = (bytes * 2).max(2_000);
            }
            let change = &mut |record: &mut Record| {
                let version = versions::of(record);
                versions::put(record, version + 1, bytes);
                Ok(Verdict::Write)
            };
            let saved = if rotates {
                store.rotate(&presented, change, Durability::OfStore)
            } else {
                store.update(&presented, change, Durability::OfStore)
            };
            match saved.unwrap() {
                Some(saved) if rotates => break parent.report(saved.token.expose()),
                Some(_) => {}
                None => break parent.report("gone"),
            }
        }
    }
}

#[test]
fn a_writer_that_waits_too_long_is_busy_and_loses_nothing() {
    for act in Act::ALL {
        check_busy(act);
    }
}

/// `act` must be refused while another thread, then another process, is in the middle of an update.
#[track_caller]
fn check_busy(act: Act) {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), SHORT_WAIT);
    let held = store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token;
    let check_refused = |by: &str| {
        let begun = Instant::now();
        let error = act.run(&store, &held, || panic!("it has no lock")).unwrap_err();
        let took = begun.elapsed();
        assert_eq!(error.kind(), ErrorKind::Busy, "{act:?} beside {by}: {error}");
        assert!(took >= SHORT_WAIT && took < SOON, "{act:?} beside {by}: refused after {took:?}");
        // Loads do not wait for a lock.
        assert_eq!(versions::stored(&store, &held), Some(1), "{act:?} beside {by}");
        assert_eq!(files(dir.path()).len(), 1, "{act:?} beside {by}");
    };

    let (entered, inside) = channel();
    let (leave, left) = channel();
    thread::scope(|scope| {
        let (store, held) = (&store, &held);
        scope.spawn(move || {
            let change = &mut |_: &mut Record| {
                entered.send(()).unwrap();
                // An error here means that the test has failed, and the test reports it.
                let _ = left.recv();
                Ok(Verdict::Keep)
            };
            store.update(held, change, Durability::OfStore).unwrap().unwrap();
        });
        inside.recv().unwrap();
        check_refused("a thread");
        leave.send(()).unwrap();
    });

    let mut holder = holder(&dir, &held, Act::Overwrite);
    check_refused("a process");
    holder.say("go on");
    holder.finish();
    // The same call succeeds when the holder is done.
    assert_eq!(versions::stored(&store, &held), Some(2));
    assert!(act.run(&store, &held, || {}).unwrap().is_some());
}

#[test]
fn a_busy_save_keeps_its_changes_for_a_later_save() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), SHORT_WAIT);
    let held = store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token;
    let sessions = sessions_in(store);
    let mut session = sessions.session([held.clone()]);
    session.insert("mine", 7).unwrap();
    let mut holder = holder(&dir, &held, Act::Overwrite);
    assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Busy);
    holder.say("go on");
    holder.finish();
    session.save().unwrap();
    let session = sessions.session([held]);
    assert_eq!(session.get("mine").unwrap(), Some(7));
    assert_eq!(session.get("version").unwrap(), Some(2), "the holder's change is there as well");
}

#[test]
fn processes_that_open_one_new_directory_at_once_make_one_store() {
    let parent = TempDir::new().unwrap();
    let mut rival = Start::of("open stores").start();
    for round in 0..rounds(15) {
        let dir = parent.path().join(round.to_string());
        rival.say(dir.display());
        let store = open(&dir, LONG_WAIT);
        let ours = store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token;
        let theirs = token(&rival.line());
        assert_eq!(
            versions::stored(&store, &theirs),
            Some(1),
            "round {round}: the processes created two stores"
        );
        rival.say(ours.expose());
        assert_eq!(rival.line(), "Some(1)", "round {round}: the processes created two stores");
        let mut names: Vec<_> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let mut want: Vec<_> = (0..256).map(|shard| format!("{shard:02x}")).collect();
        want.extend(["run".into(), "sessile.json".into()]);
        want.sort();
        assert_eq!(names, want, "round {round}: shards, counters and parameters, and no leftovers");
        std::fs::remove_dir_all(dir).unwrap();
    }
    rival.say("end");
    rival.finish();
}

fn open_stores(parent: &Parent) {
    loop {
        let line = parent.line();
        if line == "end" {
            return;
        }
        let store = open(Path::new(&line), LONG_WAIT);
        let ours = store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token;
        parent.report(ours.expose());
        let theirs = token(&parent.line());
        parent.report(format_args!("{:?}", versions::stored(&store, &theirs)));
    }
}

/// Acknowledgements of a writer, for readers in any process: one small file, changed in place.
struct Board(File);

/// One state of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Notice {
    /// The session that is being written.
    session: u64,
    /// Its last acknowledged version.
    version: u64,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// It is live.
    Alive,
    /// An operation is ending it.
    Ending,
    /// It was ended.
    Ended,
    /// All sessions were ended.
    AllEnded,
}

impl Board {
    fn open(path: &Path) -> Self {
        Self(File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap())
    }

    fn put(&self, notice: Notice) {
        let words = [notice.session, notice.version, notice.end as u64];
        let bytes: Vec<u8> =
            words.iter().chain([&check(words)]).flat_map(|word| word.to_le_bytes()).collect();
        self.0.write_all_at(&bytes, 0).unwrap();
    }

    /// The last notice. A read that overlaps a write is repeated.
    fn get(&self) -> Notice {
        loop {
            let mut bytes = [0; 32];
            self.0.read_exact_at(&mut bytes, 0).unwrap();
            let [session, version, end, sum] =
                std::array::from_fn(|n| u64::from_le_bytes(bytes[8 * n..][..8].try_into().unwrap()));
            if sum == check([session, version, end]) {
                let end = match end {
                    0 => End::Alive,
                    1 => End::Ending,
                    2 => End::Ended,
                    _ => End::AllEnded,
                };
                return Notice { session, version, end };
            }
        }
    }
}

fn check(words: [u64; 3]) -> u64 {
    words.into_iter().fold(1, |sum, word| (sum ^ word).wrapping_mul(0x0123_4567_89ab_cdef).rotate_left(29))
}

/// One process writes session after session, as fast as it can: in place, growing, shrinking, and finally
/// ends each by a deletion or a rotation. Another process and this one load the session that is being
/// written.
#[test]
fn loads_beside_a_writer_are_whole_and_never_go_back() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir.path().join("store"), LONG_WAIT);
    let tokens: Vec<_> = (0..rounds(150))
        .map(|_| store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token)
        .collect();
    let board = Board::open(&dir.path().join("board"));
    board.put(Notice { session: 0, version: 1, end: End::Alive });
    let mut children = ["read versions", "write versions"].map(|worker| start(worker, &dir).start());
    for child in &mut children {
        child.say(tokens.len());
        for token in &tokens {
            child.say(token.expose());
        }
        assert_eq!(child.line(), "ready");
    }
    say_to_all(&mut children, "go");
    let here = read_along(&store, &tokens, &board);
    let [reader, writer] = children;
    assert_eq!(writer.finish(), [""; 0]);
    let [there] = &reader.finish()[..] else { panic!("the reader reports once") };
    let there: u64 = there.parse().unwrap();
    assert!(here.min(there) > rounds(150), "both were reading: {here} and {there} loads");
}

/// Loads the session on the board until all are ended. Returns the number of loads.
fn read_along(store: &FileStore, tokens: &[Token], board: &Board) -> u64 {
    let mut loads = 0;
    let mut last = (0, 0);
    let mut moved = (board.get(), Instant::now());
    loop {
        let before = board.get();
        if before != moved.0 {
            moved = (before, Instant::now());
        }
        assert!(moved.1.elapsed() < LONG_WAIT, "the writer is stuck at {before:?}");
        if before.end == End::AllEnded {
            return loads;
        }
        let found = versions::stored(store, &tokens[usize::try_from(before.session).unwrap()]);
        loads += 1;
        let after = board.get();
        let Some(found) = found else {
            let ended = after.session != before.session || after.end >= End::Ending;
            assert!(ended, "absent while it was live: {before:?}, {after:?}");
            continue;
        };
        assert!(before.end < End::Ended, "live after its end: {found} of {before:?}");
        assert!(found >= before.version, "{found} was loaded after {before:?} was acknowledged");
        assert!(last <= (before.session, found), "{found} of {before:?} was loaded after {last:?}");
        last = (before.session, found);
    }
}

/// The tokens that the test sends to a reader or a writer, before they start.
fn received_tokens(parent: &Parent) -> Vec<Token> {
    let count = parent.line().parse().unwrap();
    let tokens = (0..count).map(|_: u64| token(&parent.line())).collect();
    parent.report("ready");
    parent.line();
    tokens
}

fn read_versions(parent: &Parent) {
    let dir = dir_of(parent);
    let store = open(&dir.join("store"), LONG_WAIT);
    let tokens = received_tokens(parent);
    parent.report(read_along(&store, &tokens, &Board::open(&dir.join("board"))));
}

fn write_versions(parent: &Parent) {
    const VERSIONS: u64 = 60;
    let dir = dir_of(parent);
    let store = open(&dir.join("store"), LONG_WAIT);
    let board = Board::open(&dir.join("board"));
    let mut dice = Dice::new(6);
    for (token, session) in received_tokens(parent).iter().zip(0..) {
        let mut notice = Notice { session, version: 1, end: End::Alive };
        for version in 2..=VERSIONS {
            board.put(notice);
            // 2 KiB at first, then 4, 8, and 16; at times the session is small again.
            let most = 1_500 << (version * 4 / (VERSIONS + 1));
            let bytes = usize::try_from(dice.roll(most)).unwrap();
            let change = &mut |record: &mut Record| {
                assert_eq!(versions::of(record), notice.version);
                versions::put(record, version, bytes);
                Ok(Verdict::Write)
            };
            store.update(token, change, Durability::Relaxed).unwrap().unwrap();
            notice.version = version;
        }
        board.put(Notice { end: End::Ending, ..notice });
        if session % 2 == 0 {
            assert!(store.delete(token).unwrap());
        } else {
            store.rotate(token, &mut |_| Ok(Verdict::Keep), Durability::Relaxed).unwrap().unwrap();
        }
        board.put(Notice { end: End::Ended, ..notice });
    }
    board.put(Notice { session: 0, version: 0, end: End::AllEnded });
}
