//! Several processes on one directory. Concurrent requests all keep their changes. An ended session stays ended,
//! whatever operation is under way. A save that waits too long for the lock fails and loses no earlier change. Random
//! operations are tried in `tests/hammer`.
use crate::support::memory::sessions_in;
use crate::support::process::{Child, Parent, Start, Worker, hear_from_all, say_to_all};
use crate::support::versions;
use sessile::{
    Durability, ErrorKind, FileStore, FileStoreOptions, Record, Saved, Sessions, Store, Token, Verdict,
};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) const WORKERS: &[(&str, Worker)] = &[("set own entries", set_own_entries), ("hold", hold)];

/// A wait limit far longer than any operation here holds a lock, unless a test makes it do so.
const LONG_WAIT: Duration = Duration::from_secs(60);
const SHORT_WAIT: Duration = Duration::from_millis(100);
/// The time in which an operation must return on a busy machine, with the wait limit [`SHORT_WAIT`].
const SOON: Duration = Duration::from_secs(10);

fn open(dir: &Path, lock_wait: Duration) -> FileStore {
    FileStoreOptions::new().lock_wait(lock_wait).open(dir).unwrap()
}

/// The tests in this file are about locks and names, so logouts are not synced.
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

/// The files in all shards: sessions, and leftovers of unfinished operations.
pub(crate) fn files(dir: &Path) -> Vec<String> {
    let relative = |path: PathBuf| path.strip_prefix(dir).unwrap().display().to_string();
    crate::support::texts::files_in_shards(dir).into_iter().map(relative).collect()
}

/// Creates a session with one entry. Returns its token.
fn create(sessions: &Sessions, name: &str, value: u64) -> Token {
    let mut session = sessions.session([]);
    session.insert(name, value).unwrap();
    session.save().unwrap();
    session.token().unwrap().unwrap()
}

/// The number of threads of each process.
const THREADS: u64 = 4;
/// The number of rounds in which requests overlap.
const ROUNDS: u64 = 20;

/// All eight requests have read the session before the first of them saves.
#[test]
fn eight_requests_that_set_different_entries_at_once_all_win() {
    let dir = TempDir::new().unwrap();
    let sessions = sessions(dir.path());
    let mut children =
        [0, 1].map(|process| start("set own entries", &dir).with("PROCESS", process.to_string()).start());
    for round in 0..ROUNDS {
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

/// The operation that the holder of the lock is about to complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Overwrite,
    Grow,
    Rotate,
}

impl Operation {
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
            Self::Rotate => store.rotate(token, change, &Durability::OfStore.into()),
        }
    }
}

/// Starts a process that is in the middle of an update or a rotation, until it is sent a line.
pub(crate) fn holder(dir: &TempDir, held: &Token, operation: Operation) -> Child {
    let child =
        start("hold", dir).with("TOKEN", held.expose()).with("OPERATION", format!("{operation:?}")).start();
    assert_eq!(child.line(), "inside");
    child
}

fn hold(parent: &Parent) {
    let store = open(&dir_of(parent), LONG_WAIT);
    let operation = Operation::ALL
        .into_iter()
        .find(|operation| format!("{operation:?}") == parent.argument("OPERATION"))
        .unwrap();
    let saved = operation.run(&store, &token(parent.argument("TOKEN")), || {
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
    for operation in Operation::ALL {
        check_delete_beside(operation);
    }
}

#[track_caller]
fn check_delete_beside(operation: Operation) {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), SHORT_WAIT);
    let held = store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token;
    let mut holder = holder(&dir, &held, operation);
    // A third process has opened the file for a save, and waits for the lock.
    let waiter =
        start("hold", &dir).with("TOKEN", held.expose()).with("OPERATION", format!("{operation:?}")).start();
    thread::sleep(SHORT_WAIT);
    holder.stop();
    let begun = Instant::now();
    assert!(store.delete(&held).unwrap().is_some(), "{operation:?}: the session was live");
    let took = begun.elapsed();
    assert!(took >= SHORT_WAIT && took < SOON, "{operation:?}: a delete took {took:?}");
    assert_eq!(versions::stored(&store, &held), None, "{operation:?}: live after its deletion");

    holder.say("go on");
    holder.go_on();
    let [outcome] = &holder.finish()[..] else { panic!("{operation:?}: one outcome") };
    // An update in place that began before the deletion may count as completed before it. The session is gone in any
    // case.
    if operation != Operation::Overwrite {
        assert_eq!(outcome, "gone", "{operation:?}");
    }
    assert_eq!(versions::stored(&store, &held), None, "{operation:?}: revived by the holder");
    let mut outcome = waiter.line();
    if outcome == "inside" {
        let mut waiter = waiter;
        waiter.say("go on");
        outcome = waiter.line();
        waiter.finish();
    }
    if operation != Operation::Overwrite {
        assert_eq!(outcome, "gone", "{operation:?}");
    }
    assert_eq!(
        versions::stored(&store, &held),
        None,
        "{operation:?}: revived by the process that waited for the holder"
    );
    assert_eq!(files(dir.path()), [""; 0], "{operation:?}: neither the session nor a successor is left");
    assert!(store.delete(&held).unwrap().is_none(), "{operation:?}: it was gone already");
}

#[test]
fn a_writer_that_waits_too_long_is_busy_and_loses_nothing() {
    for operation in Operation::ALL {
        check_busy(operation);
    }
}

/// Asserts that `operation` is refused while another thread, and then another process, is in the middle of an update.
#[track_caller]
fn check_busy(operation: Operation) {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), SHORT_WAIT);
    let held = store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token;
    let check_refused = |by: &str| {
        let begun = Instant::now();
        let error = operation.run(&store, &held, || panic!("it has no lock")).unwrap_err();
        let took = begun.elapsed();
        assert_eq!(error.kind(), ErrorKind::Busy, "{operation:?} beside {by}: {error}");
        assert!(took >= SHORT_WAIT && took < SOON, "{operation:?} beside {by}: refused after {took:?}");
        // Loads wait for no lock.
        assert_eq!(versions::stored(&store, &held), Some(1), "{operation:?} beside {by}");
        assert_eq!(files(dir.path()).len(), 1, "{operation:?} beside {by}");
    };

    let (entered, inside) = channel();
    let (leave, left) = channel();
    thread::scope(|scope| {
        let (store, held) = (&store, &held);
        scope.spawn(move || {
            let change = &mut |_: &mut Record| {
                entered.send(()).unwrap();
                // The channel is closed if the test has failed. Then the failure is reported elsewhere.
                let _ = left.recv();
                Ok(Verdict::Keep)
            };
            store.update(held, change, Durability::OfStore).unwrap().unwrap();
        });
        inside.recv().unwrap();
        check_refused("a thread");
        leave.send(()).unwrap();
    });

    let mut holder = holder(&dir, &held, Operation::Overwrite);
    check_refused("a process");
    holder.say("go on");
    holder.finish();
    // The same operation succeeds when the holder has released the lock.
    assert_eq!(versions::stored(&store, &held), Some(2));
    assert!(operation.run(&store, &held, || {}).unwrap().is_some());
}

#[test]
fn a_busy_save_keeps_its_changes_for_a_later_save() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), SHORT_WAIT);
    let held = store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token;
    let sessions = sessions_in(store);
    let mut session = sessions.session([held.clone()]);
    session.insert("mine", 7).unwrap();
    let mut holder = holder(&dir, &held, Operation::Overwrite);
    assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Busy);
    holder.say("go on");
    holder.finish();
    session.save().unwrap();
    let session = sessions.session([held]);
    assert_eq!(session.get("mine").unwrap(), Some(7));
    assert_eq!(session.get("version").unwrap(), Some(2), "the holder's change is there as well");
}
