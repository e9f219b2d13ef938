//! Requests and operations of several processes at random instants. No update is lost. An ended session stays ended,
//! whatever operation is under way. Every load returns the last acknowledged save or a newer one.
use crate::figures::Figures;
use crate::rounds::Rounds;
use crate::stage::store_in;
use crate::support::dice::Dice;
use crate::support::process::{Parent, Start, Worker, hear_from_all, say_to_all};
use crate::support::texts::files_in_shards;
use crate::support::versions;
use sessile::{
    Cookies, Durability, ErrorKind, FileStore, FileStoreOptions, Lifetime, Record, Sessions, Store, Token,
    Verdict,
};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::tempdir_in;

trials! {
    increments_by_eight_threads_of_two_processes_all_count,
    saves_in_flight_resurrect_no_destroyed_session,
    saves_in_flight_reach_the_successor_of_a_rotation_or_fail,
    of_two_rotations_at_once_one_succeeds,
    a_delete_is_not_undone_by_a_writer_stopped_at_any_instant,
    processes_that_open_one_new_directory_at_once_make_one_store,
    loads_beside_a_writer_are_whole_and_never_go_back,
}

pub(crate) const WORKERS: &[(&str, Worker)] = &[
    ("increment by requests", increment),
    ("save until gone", save_until_gone),
    ("rotate", rotate),
    ("work until gone", work_until_gone),
    ("open stores", open_stores),
    ("write versions", write_versions),
    ("read versions", read_versions),
];

/// A wait limit far longer than any operation here holds a lock.
const LONG_WAIT: Duration = Duration::from_secs(60);

fn open(dir: &Path, lock_wait: Duration) -> FileStore {
    FileStoreOptions::new().lock_wait(lock_wait).open(store_in(dir)).unwrap()
}

/// The trials in this file are about locks and names, so logouts are not synced.
fn sessions(dir: &Path) -> Sessions {
    let options = FileStoreOptions::new().lock_wait(LONG_WAIT).sync_security_events(false);
    Sessions::new(options.open(store_in(dir)).unwrap(), Cookies::plain_http()).unwrap()
}

fn dir_of(parent: &Parent) -> PathBuf {
    parent.argument("DIR").into()
}

fn start(worker: &'static str, dir: &Path) -> Start {
    Start::of(worker).with("DIR", dir)
}

fn token(text: &str) -> Token {
    Token::parse(text).unwrap()
}

/// The files in all shards: sessions, and leftovers of unfinished operations.
fn files(dir: &Path) -> Vec<PathBuf> {
    files_in_shards(&store_in(dir))
}

/// Creates a session with one entry. Returns its token.
fn create(sessions: &Sessions, name: &str, value: u64) -> Token {
    let mut session = sessions.session([]);
    session.insert(name, value).unwrap();
    session.save().unwrap();
    session.token().unwrap().unwrap()
}

/// The ways in which the threads of a round increment a number.
const WAYS: [&str; 3] = ["update and save", "update_now", "update and save, growing"];
/// The number of threads of each process, and that of the increments of each thread in a round.
const THREADS: u64 = 4;
const INCREMENTS: u64 = 60;

/// Each round has a new session, so that it needs a larger file again.
fn increments_by_eight_threads_of_two_processes_all_count(dir: &Path, time: Duration) -> Figures {
    let sessions = sessions(dir);
    let mut children = [(); 2].map(|()| start("increment by requests", dir).start());
    let rounds = Rounds::new(time, &WAYS);
    while let Some(round) = rounds.next() {
        let way = WAYS[usize::try_from(round % 3).unwrap()];
        let shared = create(&sessions, "n", 0);
        say_to_all(&mut children, format_args!("{} {way}", shared.expose()));
        hear_from_all(&children, "done");
        let sum: Option<u64> = sessions.session([shared.clone()]).get("n").unwrap();
        assert_eq!(sum, Some(2 * THREADS * INCREMENTS), "round {round}, by {way}");
        sessions.session([shared]).destroy().unwrap();
        rounds.count(way, 1);
    }
    for mut child in children {
        child.say("end");
        assert_eq!(child.finish(), [""; 0]);
    }
    rounds.figures()
}

fn increment(parent: &Parent) {
    let sessions = sessions(&dir_of(parent));
    loop {
        let line = parent.line();
        let Some((shared, way)) = line.split_once(' ') else { return };
        let shared = token(shared);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    (0..INCREMENTS).for_each(|done| increment_once(&sessions, &shared, way, done));
                });
            }
        });
        parent.report("done");
    }
}

fn increment_once(sessions: &Sessions, shared: &Token, way: &str, done: u64) {
    let mut session = sessions.session([shared.clone()]);
    if way == "update_now" {
        return session.update_now("n", |n: &mut u64| *n += 1).unwrap();
    }
    session.update("n", |n: &mut u64| *n += 1).unwrap();
    // The session grows from 2 to 64 KiB. Each time its size has doubled, it gets a larger file, while seven other
    // threads wait for the lock of the old one.
    if way == "update and save, growing" {
        session.insert("text", "x".repeat(usize::try_from(done * 1000).unwrap())).unwrap();
    }
    session.save().unwrap();
}

fn saves_in_flight_resurrect_no_destroyed_session(dir: &Path, time: Duration) -> Figures {
    let sessions = sessions(dir);
    let rounds = check_against_saves(dir, time, &sessions, |old| {
        let mut session = sessions.session([old]);
        session.destroy().unwrap();
        None
    });
    assert_eq!(files(dir), [""; 0].map(PathBuf::from), "files of destroyed sessions");
    rounds.figures()
}

fn saves_in_flight_reach_the_successor_of_a_rotation_or_fail(dir: &Path, time: Duration) -> Figures {
    // Without a grace period, no mark of a moved id is left.
    let sessions = sessions(dir).with_lifetime(Lifetime::new().grace(Duration::ZERO)).unwrap();
    let rounds = check_against_saves(dir, time, &sessions, |old| {
        let mut session = sessions.session([old.clone()]);
        session.rotate_id();
        session.save().unwrap();
        let new = session.token().unwrap().unwrap();
        assert_ne!(new, old);
        Some(new)
    });
    assert_eq!(files(dir), [""; 0].map(PathBuf::from), "files beside those of the successors");
    rounds.figures()
}

/// Ends sessions by `end` at random instants, while another process saves them as fast as it can. `end` returns the id
/// of the successor, if there is one.
fn check_against_saves(
    dir: &Path,
    time: Duration,
    sessions: &Sessions,
    mut end: impl FnMut(Token) -> Option<Token>,
) -> Rounds {
    let mut saver = start("save until gone", dir).start();
    let mut dice = Dice::new(3);
    let rounds = Rounds::new(time, &["saves in flight"]);
    while let Some(round) = rounds.next() {
        let old = create(sessions, "saved", 0);
        saver.say(old.expose());
        assert_eq!(saver.line(), "saving");
        dice.pause(400);
        let successor = end(old.clone());
        let here = sessions.session([old.clone()]);
        assert_eq!(here.get::<u64>("saved").unwrap(), None, "round {round}: alive after it was ended");
        // The other process saves until it is told that the session has ended, and then tries once more.
        let acknowledged: u64 = saver.line().parse().unwrap();
        rounds.count("saves in flight", acknowledged);
        let here = sessions.session([old]);
        assert_eq!(here.public_id().unwrap(), None, "round {round}: alive after a late save");
        if let Some(successor) = successor {
            let mut session = sessions.session([successor]);
            assert_eq!(
                session.get("saved").unwrap(),
                Some(acknowledged),
                "round {round}: acknowledged, but absent"
            );
            session.destroy().unwrap();
        }
    }
    saver.say("end");
    saver.finish();
    rounds
}

/// A worker process: saves a session in different ways until it has ended. Every load meanwhile must return the version
/// that was saved last.
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
            // The save is in place, in place by a change at once, or larger each time.
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

fn of_two_rotations_at_once_one_succeeds(dir: &Path, time: Duration) -> Figures {
    let store = open(dir, LONG_WAIT);
    let mut rival = start("rotate", dir).start();
    let mut dice = Dice::new(5);
    let rounds = Rounds::new(time, &["rotations that were won here", "rotations that were won there"]);
    while let Some(round) = rounds.next() {
        let old = store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token;
        rival.say(old.expose());
        dice.pause(200);
        let ours = rotate_once(&store, &old);
        let theirs = match rival.line().as_str() {
            "lost" => None,
            text => Some(token(text)),
        };
        let winner = if ours.is_some() { "here" } else { "there" };
        rounds.count(&format!("rotations that were won {winner}"), 1);
        let ((Some(successor), None) | (None, Some(successor))) = (ours, theirs) else {
            panic!("round {round}: both rotations succeeded, or none")
        };
        assert_eq!(versions::stored(&store, &old), None);
        assert_eq!(versions::stored(&store, &successor), Some(2), "changed once");
        assert!(store.delete(&successor).unwrap().is_some(), "round {round}");
    }
    assert_eq!(files(dir), [""; 0].map(PathBuf::from), "files beside those of the successors");
    rival.say("end");
    rival.finish();
    rounds.figures()
}

fn rotate_once(store: &FileStore, old: &Token) -> Option<Token> {
    let change = &mut versions::next(10);
    store.rotate(old, change, &Durability::OfStore.into()).unwrap().map(|saved| saved.token)
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

/// The writer is stopped anywhere: between any two system calls of an update, of a save that needs a larger file, or of
/// a rotation.
fn a_delete_is_not_undone_by_a_writer_stopped_at_any_instant(dir: &Path, time: Duration) -> Figures {
    let store = open(dir, Duration::from_millis(10));
    let mut worker = start("work until gone", dir).start();
    let mut dice = Dice::new(7);
    let rounds = Rounds::new(time, &["sessions that were still live"]);
    while let Some(round) = rounds.next() {
        let old = store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token;
        worker.say(old.expose());
        assert_eq!(worker.line(), "at work");
        dice.pause(3_000);
        worker.stop();
        let was_live = store.delete(&old).unwrap().is_some();
        assert_eq!(versions::stored(&store, &old), None, "round {round}: live after its deletion");
        worker.go_on();
        let outcome = worker.line();
        assert_eq!(versions::stored(&store, &old), None, "round {round}: revived");
        // The session has a successor only if the rotation was complete before the deletion began.
        assert_eq!(outcome == "gone", was_live, "round {round}");
        if was_live {
            rounds.count("sessions that were still live", 1);
        } else {
            assert!(store.delete(&token(&outcome)).unwrap().is_some(), "round {round}: the new id is live");
        }
        assert_eq!(files(dir), [""; 0].map(PathBuf::from), "round {round}: was live: {was_live}");
    }
    worker.say("end");
    worker.finish();
    rounds.figures()
}

/// A worker process: saves a session, sometimes in a larger file, and at the end rotates it. Stops when the session has
/// ended or has a new id.
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
            let change = &mut versions::next(bytes);
            let saved = if rotates {
                store.rotate(&presented, change, &Durability::OfStore.into())
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

fn processes_that_open_one_new_directory_at_once_make_one_store(dir: &Path, time: Duration) -> Figures {
    let mut rival = Start::of("open stores").start();
    let rounds = Rounds::new(time, &[]);
    while let Some(round) = rounds.next() {
        let dir = tempdir_in(dir).unwrap();
        rival.say(dir.path().display());
        let store = open(dir.path(), LONG_WAIT);
        let ours = store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token;
        let theirs = token(&rival.line());
        assert_eq!(
            versions::stored(&store, &theirs),
            Some(1),
            "round {round}: the processes created two stores"
        );
        rival.say(ours.expose());
        assert_eq!(rival.line(), "Some(1)", "round {round}: the processes created two stores");
        let mut names: Vec<_> = std::fs::read_dir(store.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let mut want: Vec<_> = (0..256).map(|shard| format!("{shard:02x}")).collect();
        want.extend(["cutoffs".into(), "run".into(), "sessile.json".into()]);
        want.sort();
        assert_eq!(names, want, "round {round}: shards, log, counters and parameters, and no leftovers");
    }
    rival.say("end");
    rival.finish();
    rounds.figures()
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

/// A small file in which a writer publishes its last acknowledgement, for readers in any process.
struct Board(File);

/// The contents of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Notice {
    /// The number of the session that is being written.
    session: u64,
    /// The last acknowledged version of that session.
    version: u64,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// The session is live.
    Alive,
    /// An operation that ends the session has begun.
    Ending,
    /// The session was ended.
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

    /// Reads the board, again if a write came in between.
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

/// The number of sessions in a round, which has a store of its own.
const SESSIONS: u64 = 20;

/// One process writes one session after the other, as fast as it can: in place, larger, and smaller again. At the end
/// it deletes or rotates each. Another process and this one load the session that is being written.
fn loads_beside_a_writer_are_whole_and_never_go_back(dir: &Path, time: Duration) -> Figures {
    let rounds = Rounds::new(time, &["loads here", "loads there"]);
    while let Some(round) = rounds.next() {
        let dir = tempdir_in(dir).unwrap();
        let store = open(dir.path(), LONG_WAIT);
        let tokens: Vec<_> = (0..SESSIONS)
            .map(|_| store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token)
            .collect();
        let board = Board::open(&dir.path().join("board"));
        board.put(Notice { session: 0, version: 1, end: End::Alive });
        let mut children = ["read versions", "write versions"]
            .map(|worker| start(worker, dir.path()).with("SEED", round.to_string()).start());
        for child in &mut children {
            child.say(tokens.len());
            for token in &tokens {
                child.say(token.expose());
            }
            assert_eq!(child.line(), "ready");
        }
        say_to_all(&mut children, "go");
        rounds.count("loads here", read_along(&store, &tokens, &board));
        let [reader, writer] = children;
        assert_eq!(writer.finish(), [""; 0]);
        let [there] = &reader.finish()[..] else { panic!("the reader reports once") };
        rounds.count("loads there", there.parse().unwrap());
    }
    rounds.figures()
}

/// Loads the session on the board until all have ended. Returns the number of loads.
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

/// The tokens that the test sends to a reader or a writer before it starts.
fn received_tokens(parent: &Parent) -> Vec<Token> {
    let count = parent.line().parse().unwrap();
    let tokens = (0..count).map(|_: u64| token(&parent.line())).collect();
    parent.report("ready");
    parent.line();
    tokens
}

fn read_versions(parent: &Parent) {
    let dir = dir_of(parent);
    let store = open(&dir, LONG_WAIT);
    let tokens = received_tokens(parent);
    parent.report(read_along(&store, &tokens, &Board::open(&dir.join("board"))));
}

fn write_versions(parent: &Parent) {
    const VERSIONS: u64 = 60;
    let dir = dir_of(parent);
    let store = open(&dir, LONG_WAIT);
    let board = Board::open(&dir.join("board"));
    let mut dice = Dice::new(parent.number("SEED"));
    for (token, session) in received_tokens(parent).iter().zip(0..) {
        let mut notice = Notice { session, version: 1, end: End::Alive };
        for version in 2..=VERSIONS {
            board.put(notice);
            // The text has 2 KiB at first, then 4, 8, and 16 at most. At times it is small again.
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
            assert!(store.delete(token).unwrap().is_some());
        } else {
            store.rotate(token, &mut |_| Ok(Verdict::Keep), &Durability::Relaxed.into()).unwrap().unwrap();
        }
        board.put(Notice { end: End::Ended, ..notice });
    }
    board.put(Notice { session: 0, version: 0, end: End::AllEnded });
}
