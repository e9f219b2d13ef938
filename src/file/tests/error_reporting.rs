//! A failed operation returns an error. It invalidates the sessions that it has changed, and those that a killed
//! operation before it has changed.
use super::sweeps::unrested;
use super::*;
use crate::admin::Admin;

/// Whether the operation may succeed although this call failed and all others worked.
fn may_be_silent(operation: Operation, calls: &[&'static str], n: usize) -> bool {
    let before = |k: usize| n.checked_sub(k).map_or("", |n| calls[n]);
    match calls[n] {
        // A failed insertion in the index is counted, and fails no operation.
        "append" | "open directory" | "open file in directory" | "make directory" => true,
        "stat file" => before(1) == "append",
        // The write of the state byte after a sync. If it fails, later saves sync once more. A tombstone that cannot be
        // written is replaced by moving the file.
        "write" if operation.rotates() && before(1) == "stat session" => before(3) == "write",
        // The tombstone beside the mark of a moved id. The next operation that meets the mark writes it.
        "write" if operation == Operation::Move && before(1) == "invalidate" => true,
        "write" => ["sync file", "sync shard"].contains(&before(1)) || operation == Operation::Delete,
        "sync file" if operation.rotates() => before(4) == "write",
        // After a failed sync, the version is written to another file.
        "sync file" => matches!(operation, Operation::Update { .. } | Operation::Keep | Operation::Delete),
        // A file that cannot be removed has a tombstone, or has lost the session's name.
        "unlink" => matches!(operation, Operation::Grow { .. } | Operation::Rotate | Operation::Delete),
        // The operation has changed nothing that must be invalidated.
        "invalidate" => operation == Operation::Keep,
        // A logout succeeds although the session cannot be read or locked.
        "open session in shard" | "lock" | "read" => operation == Operation::Delete,
        _ => false,
    }
}

#[test]
fn every_failed_call_is_reported_unless_it_may_be_silent() {
    let fixture = Fixture::new();
    for (operation, power_safe) in
        WRITING.into_iter().flat_map(|operation| [(operation, false), (operation, true)])
    {
        for call in 0.. {
            let (session, successor) = (fixture.session(power_safe), SessionId::random().unwrap());
            let index_failures = fixture.store.stats().files.index_failures;
            let fault = Fault { call, errno: Errno::IO, then: Then::Works };
            let (result, calls) =
                during(fault.plan(), || operation.run(&fixture.store, &session, &successor));
            if calls.len() <= call {
                break;
            }
            let context = format!(
                "{operation:?} of a session that is power-safe: {power_safe}, `{}`, call {call} of {calls:?}",
                calls[call]
            );
            assert!(result.is_err() || may_be_silent(operation, &calls, call), "{context}: no error");
            if calls[call] == "append" {
                assert_eq!(fixture.store.stats().files.index_failures, index_failures + 1, "{context}");
            }
            let unread = operation == Operation::Delete
                && ["open session in shard", "lock", "read"].contains(&calls[call]);
            assert!(!unread || matches!(result, Ok(true)), "{context}: what cannot be read cannot be ended");
        }
    }
}

#[test]
fn an_operation_that_finds_no_session_invalidates_it() {
    let fixture = Fixture::new();
    let warm = warm(&fixture);
    for operation in [
        Operation::Update { power_safe: false },
        Operation::Keep,
        Operation::Rotate,
        Operation::Move,
        Operation::Delete,
    ] {
        let (session, successor) = (fixture.session(false), SessionId::random().unwrap());
        assert_eq!(served(&warm, &session).as_deref(), Some("old"));
        // The process is killed between the unlink and the invalidation of an end.
        assert!(dies_at("invalidate", || fixture.store.delete_file(SessionRef::Id(&session))));
        assert_eq!(served(&warm, &session).as_deref(), Some("old"), "no invalidation");
        assert!(!operation.run(&fixture.store, &session, &successor).unwrap());
        assert_eq!(served(&warm, &session), None, "{operation:?}");
    }
}

#[test]
fn a_failed_operation_invalidates_possibly_changed_sessions() {
    let fixture = Fixture::new();
    let warm = warm(&fixture);
    for (operation, call, want) in [
        // The process is killed before the first change, and after the last one.
        (Operation::Grow { power_safe: true }, "create file", "killed".to_owned()),
        (Operation::Grow { power_safe: false }, "exchange", "killed".to_owned()),
        (Operation::Grow { power_safe: true }, "sync shard", big("new")),
        (Operation::Update { power_safe: true }, "sync shard", "new".to_owned()),
        (Operation::Keep, "sync shard", "killed".to_owned()),
    ] {
        let session = fixture.session(false);
        assert_eq!(served(&warm, &session).as_deref(), Some("old"));
        assert!(dies_at("invalidate", || put(&fixture.store, &session, "killed", false)));
        assert_eq!(served(&warm, &session).as_deref(), Some("old"), "no invalidation");
        let fail = move |_, name| (name == call).then(|| Errno::IO.raw_os_error());
        let (result, _) = during(fail, || operation.run(&fixture.store, &session, &session));
        assert!(result.is_err(), "{operation:?}");
        assert_eq!(served(&warm, &session), Some(want), "{operation:?}, {call}");
    }
}

#[test]
fn a_failed_invalidation_drops_the_writers_own_entry() {
    let fixture = Fixture::new();
    let warm = warm(&fixture);
    for operation in [
        Operation::Update { power_safe: true },
        Operation::Grow { power_safe: false },
        Operation::Delete,
        Operation::Rotate,
    ] {
        let (session, successor) = (fixture.session(false), SessionId::random().unwrap());
        assert_eq!(served(&warm, &session).as_deref(), Some("old"));
        let fail = |_, call| (call == "invalidate").then(|| Errno::IO.raw_os_error());
        let (result, _) = during(fail, || operation.run(&warm, &session, &successor));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidationFailed, "{operation:?}");
        let want = if [Operation::Delete, Operation::Rotate].contains(&operation) {
            None
        } else {
            Some(operation.new_text())
        };
        assert_eq!(served(&warm, &session), want, "{operation:?}");
    }
}

#[test]
fn a_quarantined_or_swept_session_is_not_served_from_memory() {
    let fixture = Fixture::new();
    let warm = warm(&fixture);
    for swept in [false, true] {
        let session = fixture.session(false);
        assert_eq!(served(&warm, &session).as_deref(), Some("old"));
        fs::write(fixture.path(&session), vec![0xa5; 2 * SLOT_MIN]).unwrap();
        if swept {
            let file = fs::File::options().write(true).open(fixture.path(&session)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(1 << 22)).unwrap();
            assert_eq!(fixture.store.sweep(&unrested().full(true)).unwrap().removed, 1);
        } else {
            assert!(fixture.store.quarantine(&session.public_id()).unwrap().is_some());
        }
        assert_eq!(served(&warm, &session), None, "swept: {swept}");
    }
}

#[test]
fn a_recreated_store_is_observed_if_its_invalidation_fails() {
    let dir = directory();
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let hear = move |event: &crate::Event<'_>| heard.lock().unwrap().push(format!("{event:?}"));
    let store = FileStoreOptions::new().watch(false).observer(hear).open(dir.path()).unwrap();
    let session = SessionId::random().unwrap();
    store.create_file(SessionRef::Id(&session), record("old"), false).unwrap();
    for path in fs::read_dir(dir.path()).unwrap().map(|name| name.unwrap().path()) {
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    let fail = |_: usize, call: &'static str| (call == "invalidate").then(|| Errno::IO.raw_os_error());
    let (ended, _) = during(fail, || store.delete_file(SessionRef::Id(&session)));
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::InvalidationFailed);
    assert_eq!(*events.lock().unwrap(), [format!("StoreRecreated {{ path: {:?} }}", dir.path())]);
}
