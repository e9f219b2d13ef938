//! Ends that are interrupted, or whose system calls fail. An absent name must prove that the end is complete.
use super::sweeps::unrested;
use super::*;
use crate::admin::Admin;

/// The way in which a session is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    UnderItsLock,
    /// A stopped writer has the session's lock.
    WithoutItsLock,
    /// The tombstone cannot be synced, so the file is moved instead.
    ByItsName,
}

const WAYS: [How; 3] = [How::UnderItsLock, How::WithoutItsLock, How::ByItsName];

/// A store with a short wait limit.
fn impatient() -> Fixture {
    Fixture::with(FileStoreOptions::new().lock_wait(Duration::from_millis(1)))
}

fn end(store: &FileStore, session: &SessionId) -> Result<bool> {
    store.delete_file(SessionRef::Id(session)).map(|ended| ended.is_some())
}

/// The lock of a session, as a stopped writer has it.
fn stopped(fixture: &Fixture, session: &SessionId) -> LockedFile {
    let file = fs::File::options().read(true).write(true).open(fixture.path(session)).unwrap();
    LockedFile::acquire(file, Instant::now()).unwrap().unwrap()
}

/// Ends a session in the given way, in a process that dies in its n-th call. Returns the calls that were made, and
/// whether the process survived.
fn end_dying_in(n: usize, how: How, fixture: &Fixture, session: &SessionId) -> (Vec<&'static str>, bool) {
    let _stopped = (how == How::WithoutItsLock).then(|| stopped(fixture, session));
    let made = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&made);
    let mut has_failed = false;
    let die = move |call: usize, name: &'static str| {
        if call > n {
            return Some(Errno::IO.raw_os_error());
        }
        if call == n {
            resume_unwind(Box::new("killed"));
        }
        if how == How::ByItsName && name == "sync file" && !has_failed {
            has_failed = true;
            return Some(Errno::IO.raw_os_error());
        }
        seen.lock().unwrap().push(name);
        None
    };
    let ended = catch_unwind(AssertUnwindSafe(|| during(die, || end(&fixture.store, session)).0));
    during(|_, _| None, || ());
    let survived = ended.is_ok_and(|ended| ended.unwrap());
    let made = made.lock().unwrap().clone();
    (made, survived)
}

/// Whether these calls, in this order, are safe: no power cut brings the session back. Either a tombstone is synced
/// before the name is removed, or the change of the name is synced.
fn are_durable(calls: &[&str]) -> bool {
    let at = |name: &str| calls.iter().rposition(|call| *call == name);
    let first = |name: &str| calls.iter().position(|call| *call == name);
    if let Some(moved) = first("rename") {
        return at("sync shard").is_some_and(|synced| synced > moved);
    }
    let marked = first("write");
    first("sync file").is_some_and(|synced| marked < Some(synced) && Some(synced) < at("unlink"))
}

#[test]
fn an_end_killed_in_any_call_is_whole_when_tried_again() {
    for how in WAYS {
        for call in 0.. {
            let fixture = impatient();
            let (session, warm) = (fixture.session(false), warm(&fixture));
            assert_eq!(served(&warm, &session).as_deref(), Some("old"));
            let (before, survived) = end_dying_in(call, how, &fixture, &session);
            let (again, after) = during(|_, _| None, || end(&fixture.store, &session));
            let calls = [&before[..], &after].concat();
            let context = format!("{how:?} died in call {call}: {before:?}, then {after:?}");
            again.unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(served(&warm, &session), None, "{context}: it is served from memory");
            assert!(are_durable(&calls), "{context}: a power cut brings it back");
            let left = fs::read_dir(fixture.path(&session).parent().unwrap()).unwrap().count();
            assert_eq!(left, 0, "{context}: something is left");
            if survived {
                let looks = ["open shard", "open session in shard", "open file in directory"];
                assert_eq!(after, looks, "{context}");
                assert!(call > 8, "{context}");
                break;
            }
        }
    }
}

#[test]
fn a_sweep_finishes_an_end_that_was_begun_without_the_lock() {
    let fixture = impatient();
    let (session, warm) = (fixture.session(false), warm(&fixture));
    assert_eq!(served(&warm, &session).as_deref(), Some("old"));
    let stopped = stopped(&fixture, &session);
    assert!(dies_at("invalidate", || end(&fixture.store, &session)));
    drop(stopped);
    let path = fixture.path(&session);
    let left = path.with_file_name(SessionPath::of(&session.public_id()).ending());
    assert!(left.exists() && !path.exists());
    let sweep = |options| fixture.store.sweep(&options).unwrap();
    let full = || unrested().full(true);
    assert_eq!(sweep(full()).files.temporary, 0);
    let file = fs::File::options().write(true).open(&left).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
    assert_eq!((sweep(full().dry_run(true)).files.temporary, left.exists()), (1, true));
    assert_eq!(served(&warm, &session).as_deref(), Some("old"), "no invalidation");
    let report = sweep(full());
    assert_eq!((report.files.temporary, report.files.unknown, report.failed), (1, 0, 0));
    assert!(!left.exists());
    assert_eq!(served(&warm, &session), None);
}

#[test]
fn a_sweep_syncs_and_invalidates_before_a_tombstone_goes() {
    let fixture = Fixture::new();
    let (session, warm) = (fixture.session(false), warm(&fixture));
    assert_eq!(served(&warm, &session).as_deref(), Some("old"));
    assert!(dies_at("sync file", || end(&fixture.store, &session)));
    let file = fs::File::options().write(true).open(fixture.path(&session)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
    let (report, calls) = during(|_, _| None, || fixture.store.sweep(&unrested().full(true)));
    assert_eq!(report.unwrap().files.temporary, 1);
    let order: Vec<_> =
        calls.into_iter().filter(|call| ["sync file", "invalidate", "unlink"].contains(call)).collect();
    assert_eq!(order, ["sync file", "invalidate", "unlink"]);
    assert_eq!(served(&warm, &session), None);
}

#[test]
fn an_end_that_is_not_invalidated_keeps_its_name() {
    let fixture = Fixture::new();
    let (session, warm) = (fixture.session(false), warm(&fixture));
    assert_eq!(served(&warm, &session).as_deref(), Some("old"));
    let fail = |_, call| (call == "invalidate").then(|| Errno::IO.raw_os_error());
    let (result, calls) = during(fail, || end(&fixture.store, &session));
    assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidationFailed);
    assert!(calls.contains(&"sync file") && !calls.contains(&"unlink"), "{calls:?}");
    assert_eq!(fixture.text(&session), None);
    // The next end does the remaining steps.
    assert!(!end(&fixture.store, &session).unwrap());
    assert!(!fixture.path(&session).exists());
    assert_eq!(served(&warm, &session), None);
}

#[test]
fn without_a_tombstone_an_end_is_synced_by_its_name() {
    let moved = ["stat file", "stat session", "rename"];
    for failing in ["write", "sync file", "marked before"] {
        let fixture = Fixture::new();
        let session = fixture.session(true);
        if failing == "marked before" {
            let (_, _) = during(failing_syncs(|n| n == 0, &["create file"]), || {
                put(&fixture.store, &session, "new", true).unwrap_err()
            });
        }
        let mut has_failed = false;
        let fail = move |_, call| {
            let fails = call == failing && !std::mem::replace(&mut has_failed, call == failing);
            fails.then(|| Errno::IO.raw_os_error())
        };
        let (ended, calls) = during(fail, || end(&fixture.store, &session));
        assert!(ended.unwrap(), "{failing}");
        let at = calls.windows(3).position(|calls| calls == moved).unwrap();
        assert!(calls[at..].contains(&"sync shard"), "{failing}: {calls:?}");
        if failing == "marked before" {
            assert!(!calls[..at].contains(&"sync file"), "{calls:?}");
        }
        let left = fs::read_dir(fixture.path(&session).parent().unwrap()).unwrap().count();
        assert_eq!(left, 0, "{failing}");
    }
}

#[test]
fn an_end_that_cannot_be_synced_is_synced_by_the_next() {
    let fixture = Fixture::new();
    let fail = |_, call: &str| call.starts_with("sync").then(|| Errno::IO.raw_os_error());
    for grown in [false, true] {
        let session = fixture.session(true);
        if grown {
            put(&fixture.store, &session, &big("x"), false).unwrap().unwrap();
        }
        let error = during(fail, || end(&fixture.store, &session)).0.unwrap_err();
        let want = format!(
            "failed to sync the end of session `{}`: the session was ended, and may come back after a power cut",
            fixture.path(&session).display()
        );
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::DurabilityUnknown, want));
        assert_eq!(fixture.text(&session), None);
        let (again, calls) = during(|_, _| None, || end(&fixture.store, &session));
        assert!(!again.unwrap() && calls.contains(&"sync shard"), "{calls:?}");
        check_calls(&["open shard", "open session in shard", "open file in directory"], || {
            end(&fixture.store, &session)
        });
    }
}

/// The session is in a directory to which this user may not write. A tombstone is left.
#[test]
fn a_session_whose_name_cannot_be_removed_is_ended_all_the_same() {
    let fixture = Fixture::new();
    for operation in [Operation::Delete, Operation::Rotate] {
        let (session, successor) = (fixture.session(true), SessionId::random().unwrap());
        let fail = |_, call| (call == "unlink").then(|| Errno::ACCESS.raw_os_error());
        assert!(during(fail, || operation.run(&fixture.store, &session, &successor)).0.unwrap());
        assert_eq!((fixture.text(&session), fixture.path(&session).exists()), (None, true));
        assert_eq!(fixture.text(&successor).is_some(), operation == Operation::Rotate);
        assert!(!end(&fixture.store, &session).unwrap());
        assert!(!fixture.path(&session).exists());
    }
}

/// A deleter that does not wait for the lock has moved the file, and is killed. Another deleter has the lock, and
/// cannot sync its tombstone.
#[test]
fn an_end_finishes_that_of_a_killed_deleter_that_moved_the_file() {
    let fixture = impatient();
    let session = fixture.session(false);
    let path = fixture.path(&session);
    let left = path.with_file_name(SessionPath::of(&session.public_id()).ending());
    let (from, to) = (path, left.clone());
    let move_away = move |_: usize, call: &'static str| {
        if call != "sync file" || !from.exists() {
            return None;
        }
        fs::rename(&from, &to).unwrap();
        Some(Errno::IO.raw_os_error())
    };
    let (ended, calls) = during(move_away, || end(&fixture.store, &session));
    assert!(matches!(ended, Ok(false)), "{ended:?}");
    assert!(calls.contains(&"sync shard") && !left.exists(), "nothing is left to be done: {calls:?}");
}
