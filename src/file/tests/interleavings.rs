//! Operations of other processes between one call of an operation and the next.
use super::*;
use crate::admin::Admin;

/// A logout meets a save at each of the save's calls. The logout runs in a thread of the same process or in another
/// process, and cannot wait for the save.
fn delete_in_every_call(operation: Operation) {
    let impatient = || FileStoreOptions::new().lock_wait(Duration::from_millis(1));
    let fixture = Fixture::with(impatient());
    let deleters = [Arc::clone(&fixture.store), fixture.reopened(impatient())];
    for (deleter, call) in
        deleters.into_iter().flat_map(|deleter| (0..).map(move |call| (deleter.clone(), call)).take(20))
    {
        let (session, successor) = (fixture.session(false), SessionId::random().unwrap());
        let met = Arc::new(Mutex::new(None));
        let (ended, report) = (session.clone(), Arc::clone(&met));
        let interrupt = move |n, _: &str| {
            if n == call {
                let (deleter, ended) = (Arc::clone(&deleter), ended.clone());
                let was_there = thread::spawn(move || deleter.delete_file(SessionRef::Id(&ended)))
                    .join()
                    .unwrap()
                    .unwrap()
                    .is_some();
                *report.lock().unwrap() = Some(was_there);
            }
            None
        };
        let (result, calls) = during(interrupt, || operation.run(&fixture.store, &session, &successor));
        let Some(was_there) = *met.lock().unwrap() else { continue };
        let context = format!("{operation:?}, met in call {call} of {calls:?}");
        assert_eq!(fixture.text(&session), None, "{context}: it came back");
        assert!(!fixture.path(&session).exists(), "{context}");
        let done = match result {
            // The logout has used the whole wait limit, so the operation failed, and is run again.
            Err(error) if error.kind() == ErrorKind::Busy => false,
            other => other.unwrap_or_else(|error| panic!("{context}: {error}")),
        };
        if operation.rotates() {
            // If the logout came before the rotation, nothing was rotated. If it came after the rotation, the old id
            // was dead already.
            let made = fixture.text(&successor);
            assert_eq!(
                (done, made.as_deref()),
                if was_there { (false, None) } else { (true, Some("new")) },
                "{context}"
            );
        }
        assert_eq!(fixture.temporary_beside(&session), 0, "{context}: a temporary file is left");
        assert!(put(&fixture.store, &session, "later", true).unwrap().is_none(), "{context}");
    }
}

#[test]
fn a_save_revives_no_session_ended_during_any_of_its_calls() {
    for operation in [
        Operation::Update { power_safe: false },
        Operation::Update { power_safe: true },
        Operation::Grow { power_safe: false },
        Operation::Grow { power_safe: true },
        Operation::Keep,
        Operation::Rotate,
        Operation::Move,
    ] {
        delete_in_every_call(operation);
    }
}

/// A save whose sync has failed writes the session to a new file. That does not bring an ended session back either.
#[test]
fn a_rewrite_after_a_failed_sync_revives_no_ended_session() {
    let fixture = Fixture::with(FileStoreOptions::new().lock_wait(Duration::from_millis(1)));
    let session = fixture.session(true);
    let (deleter, ended) = (Arc::clone(&fixture.store), session.clone());
    let mut fail = failing_syncs(|n| n == 0, &[]);
    let interrupt = move |n, call| {
        if call == "exchange" {
            let (deleter, ended) = (Arc::clone(&deleter), ended.clone());
            assert!(
                thread::spawn(move || deleter.delete_file(SessionRef::Id(&ended)))
                    .join()
                    .unwrap()
                    .unwrap()
                    .is_some()
            );
        }
        fail(n, call)
    };
    let (result, _) = during(interrupt, || put(&fixture.store, &session, "new", true));
    assert!(result.unwrap().is_none());
    assert_eq!(fixture.text(&session), None);
    assert_eq!(fixture.temporary_beside(&session), 0);
}

/// Another process opens the session file and waits for its lock while this process is in `call` of `operation`; some
/// calls of the operation fail. Returns the result of the operation, and the result of the other process's save, which
/// appends "+".
fn wait_during(
    fixture: &Fixture,
    operation: Operation,
    call: &'static str,
    mut fail: impl FnMut(usize, &'static str) -> Option<i32> + 'static,
    [session, successor]: [&SessionId; 2],
) -> (Result<bool>, Option<Record>) {
    let other = fixture.reopened(FileStoreOptions::new());
    let (sender, receiver) = mpsc::channel();
    let (waited_for, path) = (session.clone(), fixture.path(session));
    let wait = move |n, this: &'static str| {
        if this == call {
            let (other, waited_for) = (Arc::clone(&other), waited_for.clone());
            let waiter = thread::spawn(move || {
                let mut append = |record: &mut Record| {
                    let text = text_of(record) + "+";
                    record.insert("text", &Value::new(&text).unwrap()).unwrap();
                    Ok(Verdict::Write)
                };
                other.update_file(&waited_for, &mut append, false)
            });
            // One descriptor belongs to this process. The other one is that of the waiting thread, which cannot
            // continue until the lock is released.
            let began = Instant::now();
            while descriptors(|open| open == path) < 2 {
                assert!(began.elapsed() < Duration::from_secs(10), "the waiter never opened the file");
                thread::sleep(Duration::from_millis(1));
            }
            sender.send(waiter).unwrap();
        }
        fail(n, this)
    };
    let (result, calls) = during(wait, || operation.run(&fixture.store, session, successor));
    let waiter = receiver.try_recv().unwrap_or_else(|_| panic!("`{call}` is not among {calls:?}"));
    (result, waiter.join().unwrap().unwrap().map(|live| live.record))
}

#[test]
fn a_save_that_waited_on_a_replaced_file_starts_again() {
    let fixture = Fixture::new();
    let check = |operation: Operation,
                 fail: Box<dyn FnMut(usize, &'static str) -> Option<i32>>,
                 want: Option<ErrorKind>| {
        let session = fixture.session(true);
        let (result, waited) = wait_during(&fixture, operation, "exchange", fail, [&session, &session]);
        assert_eq!(result.err().map(|error| error.kind()), want, "{operation:?}");
        assert_eq!(waited.as_ref().map(text_of), Some(operation.new_text() + "+"), "{operation:?}");
        assert_eq!(fixture.text(&session), Some(operation.new_text() + "+"), "{operation:?}");
    };
    check(Operation::Grow { power_safe: false }, Box::new(|_, _| None), None);
    check(Operation::Update { power_safe: true }, Box::new(failing_syncs(|n| n == 0, &[])), None);
    // The file was replaced before the error. So the new file is the session.
    let unknown = Some(ErrorKind::DurabilityUnknown);
    check(Operation::Grow { power_safe: true }, Box::new(failing_syncs(|_| false, &["sync shard"])), unknown);
    check(
        Operation::Update { power_safe: true },
        Box::new(failing_syncs(|n| n == 0, &["sync shard"])),
        unknown,
    );
}

#[test]
fn a_save_that_waited_on_a_removed_file_finds_no_session() {
    let fixture = Fixture::new();
    let (session, successor) = (fixture.session(false), SessionId::random().unwrap());
    let (rotated, waited) =
        wait_during(&fixture, Operation::Rotate, "unlink", |_, _| None, [&session, &successor]);
    assert_eq!((rotated.unwrap(), waited), (true, None));
    assert_eq!(fixture.text(&successor).as_deref(), Some("new"));
    // A save that waited while its session's id was moved fails as well, whether the mark was written yet or not.
    for call in ["sync shard", "invalidate"] {
        let (session, successor) = (fixture.session(false), SessionId::random().unwrap());
        let (moved, waited) =
            wait_during(&fixture, Operation::Move, call, |_, _| None, [&session, &successor]);
        assert_eq!((moved.unwrap(), waited), (true, None), "{call}");
        assert_eq!(fixture.text(&successor).as_deref(), Some("new"), "{call}");
    }
    let (deleted, waited) =
        wait_during(&fixture, Operation::Delete, "unlink", |_, _| None, [&successor, &successor]);
    assert_eq!((deleted.unwrap(), waited), (true, None));
    assert_eq!(fixture.text(&session), None);
    assert_eq!(fixture.text(&successor), None);
}

/// The holder of the lock is stopped. A logout does not wait for it, but other writers do.
#[test]
fn a_waiting_save_overtaken_by_a_logout_finds_no_session() {
    for operation in [
        Operation::Update { power_safe: false },
        Operation::Grow { power_safe: true },
        Operation::Keep,
        Operation::Rotate,
        Operation::Move,
    ] {
        let fixture = Fixture::new();
        let (session, successor) = (fixture.session(false), SessionId::random().unwrap());
        let impatient = fixture.reopened(FileStoreOptions::new().lock_wait(Duration::from_millis(1)));
        let path = fixture.path(&session);
        let stopped = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let stopped = LockedFile::acquire(stopped, Instant::now()).unwrap().unwrap();
        let waited = thread::scope(|scope| {
            let waiter = scope.spawn(|| operation.run(&fixture.store, &session, &successor));
            let began = Instant::now();
            while descriptors(|open| open == path) < 2 {
                assert!(began.elapsed() < Duration::from_secs(10), "the waiter never opened the file");
                thread::sleep(Duration::from_millis(1));
            }
            assert!(impatient.delete_file(SessionRef::Id(&session)).unwrap().is_some());
            drop(stopped);
            waiter.join().unwrap()
        });
        assert!(!waited.unwrap(), "{operation:?} found a session that had been ended");
        assert_eq!((fixture.text(&session), fixture.text(&successor)), (None, None), "{operation:?}");
    }
}

#[test]
fn a_reader_that_finds_no_settled_file_takes_a_shared_lock() {
    let fixture = Fixture::with(FileStoreOptions::new().lock_wait(Duration::from_millis(20)));
    let session = fixture.session(false);
    let (token, path) = (session.to_token(), fixture.path(&session));
    // Each read returns other bytes than the one before.
    let restless = move |_, call| {
        if call == "read" {
            tear_newer_slot(&path);
        }
        None
    };
    let (found, calls) = during(restless.clone(), || fixture.store.load(&token));
    let readings = ["open session", "read"].repeat(9);
    let paused = ["open session", "lock", "stat file", "stat session", "read"];
    assert_eq!(calls, [&readings[..], &paused].concat());
    let Lookup::Live(live) = found.unwrap() else { panic!("the older version is there") };
    assert_eq!(text_of(&live.record), "ancient");

    let writer = fs::OpenOptions::new().write(true).read(true).open(fixture.path(&session)).unwrap();
    let held = LockedFile::acquire(writer, Instant::now()).unwrap().unwrap();
    let (found, _) = during(restless, || fixture.store.load(&token));
    assert_eq!(found.unwrap_err().kind(), ErrorKind::Busy);
    drop(held);
}

#[test]
fn a_reader_that_waited_on_a_replaced_file_reads_its_successor() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let path = fixture.path(&session);
    let before = fs::read(&path).unwrap();
    let mut replaced = false;
    let restless = move |_, call: &str| {
        if call == "read" && !replaced {
            tear_newer_slot(&path);
        }
        if call == "stat file" {
            replaced = true;
            fs::remove_file(&path).unwrap();
            fs::write(&path, &before).unwrap();
        }
        None
    };
    let (text, calls) = during(restless, || fixture.text(&session));
    assert!(calls.contains(&"stat session"), "{calls:?}");
    assert_eq!(text.as_deref(), Some("old"));
}

// ------------------------------------------------------------------------------------------------ overtaken readers

/// A reader may copy the first slot before a save, and the second slot in the middle of the next save. Then its copy
/// has a torn slot, and a version that was replaced before the load began.
#[test]
fn a_load_overtaken_by_two_saves_finds_the_newest() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let path = fixture.path(&session);
    let before = fs::read(&path).unwrap();
    for text in ["second", "third", "fourth"] {
        put(&fixture.store, &session, text, false).unwrap().unwrap();
    }
    let after = fs::read(&path).unwrap();
    let half = after.len() / 2;
    let mut copied = [&before[..half], &after[half..]].concat();
    copied[half + 128] ^= 1;
    fs::write(&path, copied).unwrap();
    let mut opened = 0;
    let second_look_sees_it_whole = move |_, call: &str| {
        opened += u32::from(call == "open session");
        if call == "open session" && opened == 2 {
            fs::write(&path, &after).unwrap();
        }
        None
    };
    let (text, _) = during(second_look_sees_it_whole, || fixture.text(&session));
    assert_eq!(text.as_deref(), Some("fourth"));
}

/// The same race as seen by the save: a logout reaches its wait limit while the save holds the lock. The save then
/// writes to a file that has lost its name, and must not be acknowledged.
#[test]
fn a_save_overtaken_at_its_wait_limit_is_not_acknowledged() {
    let fixture = Fixture::new();
    let impatient = FileStoreOptions::new().lock_wait(Duration::from_millis(1));
    let other = impatient.open(fixture.dir.path()).unwrap();
    for power_safe in [false, true] {
        for verdict in [Verdict::Write, Verdict::Keep] {
            let session = fixture.session(false);
            let mut change = |record: &mut Record| {
                assert!(
                    other.delete_file(SessionRef::Id(&session)).unwrap().is_some(),
                    "it does not wait for this lock"
                );
                record.insert("text", &Value::new("late").unwrap()).unwrap();
                Ok(verdict)
            };
            let saved = fixture.store.update_file(&session, &mut change, power_safe).unwrap();
            assert!(saved.is_none(), "{verdict:?}, power-safe: {power_safe}");
            assert_eq!(fixture.text(&session), None);
        }
    }
}

/// A logout may spend its wait limit on earlier holders of the lock. So it may overtake a holder that has had the lock
/// for a moment only.
#[test]
fn a_save_overtaken_by_a_logout_is_not_acknowledged() {
    let fixture = Fixture::new();
    let impatient = fixture.reopened(FileStoreOptions::new().lock_wait(Duration::from_millis(1)));
    for _ in 0..30 {
        let session = fixture.session(false);
        let stopped = fs::OpenOptions::new().read(true).write(true).open(fixture.path(&session)).unwrap();
        let stopped = LockedFile::acquire(stopped, Instant::now()).unwrap().unwrap();
        let (passes, is_passing) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let (returned, has_returned) = mpsc::channel();
        let (deleter, ended) = (Arc::clone(&impatient), session.clone());
        let logout = thread::spawn(move || {
            let wait_in_rename = move |_, call: &str| {
                if call == "rename" {
                    passes.send(()).unwrap();
                    may_go.recv().unwrap();
                }
                None
            };
            let was_live = during(wait_in_rename, || deleter.delete_file(SessionRef::Id(&ended))).0.unwrap();
            returned.send(()).unwrap();
            was_live.is_some()
        });
        is_passing.recv().unwrap();
        drop(stopped);
        let mut has_read = false;
        let let_it_pass = move |_, call: &str| {
            if call == "write" && !std::mem::replace(&mut has_read, true) {
                go.send(()).unwrap();
                has_returned.recv().unwrap();
            }
            None
        };
        let (saved, _) = during(let_it_pass, || put(&fixture.store, &session, "late", false));
        assert!(logout.join().unwrap(), "it ended a live session");
        assert!(saved.unwrap().is_none(), "it wrote after the logout had returned, and was acknowledged");
        assert_eq!(fixture.text(&session), None);
    }
}

/// A forced delete has overtaken the holder of a lock. Another session may have been imported under the path since.
#[test]
fn an_overtaken_writer_leaves_an_imported_session_alone() {
    for (operation, at) in [
        (Operation::Update { power_safe: false }, "write"),
        (Operation::Update { power_safe: true }, "sync file"),
        (Operation::Grow { power_safe: false }, "sync file"),
        (Operation::Keep, "sync file"),
        (Operation::Rotate, "open shard"),
        (Operation::Rotate, "sync file"),
        (Operation::Move, "sync file"),
        (Operation::Move, "invalidate"),
    ] {
        let fixture = Fixture::new();
        let other = fixture.reopened(FileStoreOptions::new().lock_wait(Duration::from_millis(1)));
        // In some cases the version is on the disk already, so that it is kept without a sync.
        let session = fixture.session(operation != Operation::Keep);
        let successor = SessionId::random().unwrap();
        let (id, mut calls_to_come) = (session.public_id(), if at == "open shard" { 2 } else { 1 });
        let replace = move |_, call: &str| {
            if call == at && calls_to_come > 0 {
                calls_to_come -= 1;
                if calls_to_come == 0 {
                    let other = Arc::clone(&other);
                    let replace = move || {
                        assert!(other.delete_by_id(&id).unwrap().is_some());
                        assert!(other.import(&id, &record("theirs"), Durability::PowerSafe).unwrap());
                    };
                    thread::spawn(replace).join().unwrap();
                }
            }
            None
        };
        let (done, calls) = during(replace, || operation.run(&fixture.store, &session, &successor));
        let context = format!("{operation:?}, passed in `{at}` of {calls:?}");
        assert!(!done.unwrap(), "{context}: what it changed was ended");
        assert_eq!(fixture.text(&session).as_deref(), Some("theirs"), "{context}");
        assert_eq!(fixture.text(&successor), None, "{context}");
        assert_eq!(fixture.temporary_beside(&session), 0, "{context}");
    }
}

/// If the file cannot be examined at the end of a save, the save may have gone to a file without a name.
#[test]
fn a_save_that_cannot_check_its_link_reports_unknown_durability() {
    let fixture = Fixture::new();
    for (look, power_safe) in [("stat file", false), ("stat session", false), ("stat session", true)] {
        let session = fixture.session(true);
        let fail = move |_, call| (call == look).then(|| Errno::IO.raw_os_error());
        let mut change = |record: &mut Record| {
            // The pause is longer than the shortest wait limit of a logout.
            thread::sleep(Duration::from_millis(2));
            record.insert("text", &Value::new("new").unwrap()).unwrap();
            Ok(Verdict::Write)
        };
        let (saved, _) = during(fail, || fixture.store.update_file(&session, &mut change, power_safe));
        assert_eq!(saved.unwrap_err().kind(), ErrorKind::DurabilityUnknown, "{look}");
        assert_eq!(fixture.text(&session).as_deref(), Some("new"), "{look}");
    }
}

/// The file is damaged after the save has verified its version. The save continues with the version in memory.
#[test]
fn an_unchanged_update_returns_the_stored_version() {
    let dir = directory();
    let store = FileStoreOptions::new().watch(false).open(dir.path()).unwrap();
    for operation in [Operation::Keep, Operation::Rotate] {
        let (session, successor) = (SessionId::random().unwrap(), SessionId::random().unwrap());
        store.create_file(SessionRef::Id(&session), record("ancient"), true).unwrap();
        put(&store, &session, "old", true).unwrap().unwrap();
        let path = dir.path().join(SessionPath::of(&session.public_id()).as_str());
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        // The damage is in the payload of the second slot, which holds the second version.
        file.write_all_at(&[0xff; 4], (SLOT_MIN + crate::file::slot::PREFIX_LEN) as u64).unwrap();
        let mut keep = |_: &mut Record| Ok(Verdict::Keep);
        let kept = match operation {
            Operation::Rotate => store.rotate_file(&session, &successor, &mut keep, &Rotation::default()),
            _ => store.update_file(&session, &mut keep, true),
        };
        assert_eq!(text_of(&kept.unwrap().unwrap().record), "old", "{operation:?}");
    }
}

/// The creating process is stopped for an hour before it locks the new file, and a sweep removes the file as a
/// leftover.
#[test]
fn a_creation_whose_file_was_swept_before_it_was_locked_says_so() {
    let fixture = Fixture::new();
    fixture.session(false);
    // In the second round, a foreign file is put in its place.
    for replaced in [false, true] {
        let session = SessionId::random().unwrap();
        let path = fixture.path(&session);
        let mut swept = false;
        let sweep = move |_, call: &str| {
            if call == "stat file" && path.exists() && !std::mem::replace(&mut swept, true) {
                fs::remove_file(&path).unwrap();
                if replaced {
                    fs::write(&path, "").unwrap();
                }
            }
            None
        };
        let create = || fixture.store.create_file(SessionRef::Id(&session), record("x"), false);
        let (made, calls) = during(sweep, create);
        let error = made.map(|_| calls).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().starts_with("failed to find new session file again"), "{error}");
        assert_eq!(fixture.text(&session), None);
    }
}
