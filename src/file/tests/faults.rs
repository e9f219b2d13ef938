//! Each call of each operation fails: the file holds the old version or the new one, and the error says which.
use super::*;
use crate::admin::Admin;

/// Fails call 0, 1, 2 … of an operation, until a run meets no fault. Each call fails alone, together with all later
/// calls, and together with each single later call. The sessions are a usual one and one whose file is larger than one
/// read; the stores are a usual one, one that does not sync ends, and one without copies.
fn fail_every_call(operation: Operation, power_safe: bool) {
    let unsynced = Fixture::with(FileStoreOptions::new().sync_security_events(false));
    let uncached = Fixture::with(FileStoreOptions::new().cache_bytes(0));
    let usual = [Fixture::new(), unsynced, uncached].map(|fixture| (fixture, String::new()));
    // Two calls read the large file, and the save makes a larger one.
    let large = "large".repeat(SLOT_MIN);
    for (fixture, size) in usual.into_iter().chain([(Fixture::new(), large)]) {
        let calls_with = |fault: Fault| {
            let session = fixture.session(power_safe);
            if !size.is_empty() {
                put(&fixture.store, &session, &size, power_safe).unwrap().unwrap();
                put(&fixture.store, &session, "old", power_safe).unwrap().unwrap();
            }
            meet_fault(&fixture, operation, &session, fault)
        };
        for errno in REFUSALS {
            for call in 0.. {
                let calls = calls_with(Fault { call, errno, then: Then::Works });
                if calls <= call {
                    assert!(call > 1, "no operation makes fewer than two calls");
                    break;
                }
                calls_with(Fault { call, errno, then: Then::Fails });
                // The second fault can only change the calls after it.
                for later in call + 1..calls {
                    calls_with(Fault { call, errno, then: Then::FailsOnceMore(later) });
                }
            }
        }
    }
}

/// The calls that remove the file of a failed creation.
const TIDYING: [&str; 5] = ["open shard", "open session in shard", "lock", "read", "unlink"];

/// Runs the operation once with a fault. Returns the number of calls that were made.
fn meet_fault(fixture: &Fixture, operation: Operation, session: &SessionId, fault: Fault) -> usize {
    let successor = SessionId::random().unwrap();
    let (result, calls) = during(fault.plan(), || operation.run(&fixture.store, session, &successor));
    let met = calls.len() > fault.call;
    let context = format!("{operation:?} with {fault:?}, after calls {calls:?}");
    // If the removal of a file has failed, the file may be left.
    let is = |call: usize, names: &[&str]| calls.get(call).is_some_and(|call| names.contains(call));
    let removable = match fault.then {
        Then::Works => !is(fault.call, &["unlink"]),
        Then::Fails => !met,
        Then::FailsOnceMore(later) => !is(fault.call, &["unlink"]) && !is(later, &TIDYING),
    };
    let may_stay = fault.then != Then::Works && !removable;

    if let Err(error) = &result {
        assert!(met, "{context}: {error}");
        check_error(error, fixture.dir.path(), fault.errno, &context);
    }
    let kind = result.as_ref().err().map(Error::kind);
    let (old, made) = (fixture.text(session), fixture.text(&successor));
    let (is_old, is_new) = (old.as_deref() == Some("old"), old == Some(operation.new_text()));
    match (operation, &result) {
        (Operation::Load, _) => assert!(is_old && result.is_ok() != met, "{context}"),
        (Operation::Create { .. }, Ok(_)) => assert!(is_old && made.as_deref() == Some("new"), "{context}"),
        (Operation::Create { .. }, Err(_)) => {
            assert!(is_old, "{context}");
            assert!(made.is_none() || may_stay, "{context}: what was not made can be loaded");
            assert!(!fixture.path(&successor).exists() || !removable, "{context}: its file is left");
        }
        (Operation::Update { .. } | Operation::Grow { .. } | Operation::Keep, Ok(_)) => {
            assert!(is_new, "{context}: {old:?}");
        }
        (Operation::Update { .. } | Operation::Grow { .. } | Operation::Keep, Err(_)) => {
            let visible = is_new && kind.is_some_and(may_be_visible);
            assert!(is_old || visible, "{context}: {old:?}");
        }
        (Operation::Rotate | Operation::Move, Ok(_)) => {
            assert!(old.is_none() && made.as_deref() == Some("new"), "{context}");
        }
        (Operation::Rotate | Operation::Move, Err(_)) => {
            assert!(is_old || old.is_none() && kind.is_some_and(may_be_visible), "{context}");
            // A successor that could not be removed was not acknowledged, and may stay.
            assert!(made.is_none() || may_stay, "{context}: two are alive");
        }
        (Operation::Delete, Ok(_)) => assert!(old.is_none(), "{context}"),
        (Operation::Delete, Err(_)) => assert!(is_old || old.is_none(), "{context}: {old:?}"),
    }
    if let Ok(there) = result {
        assert!(there, "{context}: a failure is an error, never \"there is no such session\"");
    }
    let temporary = fixture.temporary_beside(session);
    assert!(temporary == 0 || !removable, "{context}: a temporary file is left");

    // No lock, turn or descriptor is held, and the operations work again without faults.
    fixture.check_nothing_is_held(&context);
    // The successor is ended first, because ending a moved id ends its successor.
    for (session, alive) in [(&successor, made.is_some()), (session, old.is_some())] {
        assert_eq!(put(&fixture.store, session, "next", true).unwrap().is_some(), alive, "{context}");
        assert_eq!(fixture.text(session).is_some(), alive, "{context}");
        assert_eq!(fixture.store.delete_file(SessionRef::Id(session)).unwrap().is_some(), alive, "{context}");
        assert_eq!(fixture.text(session), None, "{context}");
        assert!(!fixture.path(session).exists() || fixture.is_moved(session), "{context}");
    }
    // A sweep removes the remaining files when they are an hour old.
    let shard = shard_of(&session.public_id());
    let (directory, names) = fixture.store.list_shard(&shard).unwrap();
    for name in names {
        let file = fixture.store.file_at(&shard, &directory, &name).unwrap().unwrap();
        assert!(
            matches!(file.content, Content::Temporary | Content::Unfinished(_) | Content::Moved(_)),
            "{context}: {file:?} is left"
        );
        fs::remove_file(file.path).unwrap();
    }
    let grows = matches!(operation, Operation::Grow { .. });
    assert!(met || !grows || calls.contains(&"exchange"), "{context}: it did not grow");
    calls.len()
}

/// A read or write that transfers only a part of its bytes is continued, and an interrupted call is repeated. Two calls
/// are exceptions. An append to the index is not continued, because the rest would not lie behind its beginning; a walk
/// finds the session. A change of a name is not repeated, because the second call would report that the name does not
/// exist; no local file system interrupts such a call.
#[test]
fn calls_that_do_a_part_or_nothing_are_continued() {
    let fixture = Fixture::new();
    let operations = || WRITING.into_iter().chain([Operation::Load]);
    let interrupted = Errno::INTR.raw_os_error();
    for (operation, part) in
        operations().flat_map(|operation| [SHORT, PAGE, interrupted].map(|part| (operation, part)))
    {
        for text in ["old", &big("old")] {
            for call in 0.. {
                let (session, successor) = (fixture.session(true), SessionId::random().unwrap());
                put(&fixture.store, &session, text, true).unwrap().unwrap();
                let in_part = move |n, _: &str| (n == call).then_some(part);
                let (result, calls) = during(in_part, || operation.run(&fixture.store, &session, &successor));
                if calls.len() <= call {
                    break;
                }
                let context =
                    format!("{operation:?} of {} bytes, {part} in call {call} of {calls:?}", text.len());
                if part == interrupted && ["unlink", "exchange"].contains(&calls[call]) && result.is_err() {
                    let left = [fixture.text(&session), fixture.text(&successor)];
                    let old = [Some(text.to_owned()), None];
                    // The file has a tombstone before it loses its name.
                    assert!(
                        left == old || operation == Operation::Delete && left == [None, None],
                        "{context}: {left:?}"
                    );
                    continue;
                }
                assert!(result.unwrap_or_else(|error| panic!("{context}: {error}")), "{context}");
                let kept = Some(text.to_owned());
                let want = match operation {
                    Operation::Load | Operation::Keep => (kept, None),
                    Operation::Create { .. } => (kept, Some("new".into())),
                    Operation::Update { .. } | Operation::Grow { .. } => (Some(operation.new_text()), None),
                    Operation::Rotate | Operation::Move => (None, Some("new".into())),
                    Operation::Delete => (None, None),
                };
                assert_eq!((fixture.text(&session), fixture.text(&successor)), want, "{context}");
            }
        }
    }
}

/// A call transfers the first page, or half of the bytes, and fails when it is continued.
#[test]
fn a_call_that_fails_half_way_ends_no_session() {
    let fixture = Fixture::new();
    let updates = [false, true].map(|power_safe| Operation::Update { power_safe });
    let operations =
        || [Operation::Load, Operation::Keep, Operation::Rotate, Operation::Move].into_iter().chain(updates);
    for (operation, part) in operations().flat_map(|operation| [(operation, SHORT), (operation, PAGE)]) {
        for call in 0.. {
            let (session, successor) = (fixture.session(true), SessionId::random().unwrap());
            put(&fixture.store, &session, &big("old"), true).unwrap().unwrap();
            let half = move |n: usize, _: &str| match n.checked_sub(call) {
                Some(0) => Some(part),
                Some(1) => Some(Errno::IO.raw_os_error()),
                _ => None,
            };
            let (result, calls) = during(half, || operation.run(&fixture.store, &session, &successor));
            if calls.len() <= call + 1 {
                break;
            }
            let context = format!("{operation:?}, {part} in call {call} of {calls:?}: {result:?}");
            let alive = [fixture.text(&session), fixture.text(&successor)];
            let texts: Vec<_> = alive.iter().flatten().collect();
            // If the invalidation of a session failed, a store may have neither version.
            let is_neither =
                texts.is_empty() && result.as_ref().is_err_and(|error| may_be_visible(error.kind()));
            let is_one = texts == [&big("old")] || texts == [&operation.new_text()];
            assert!(is_one || is_neither, "{context}: {texts:?}");
            assert!(result.unwrap_or(true), "{context}: a failure is not the end of the session");
        }
    }
}

#[test]
fn any_failed_call_of_a_load_is_an_error_never_absence() {
    fail_every_call(Operation::Load, true);
}

#[test]
fn whichever_call_of_a_creation_fails_nothing_is_left() {
    fail_every_call(Operation::Create { power_safe: false }, false);
    fail_every_call(Operation::Create { power_safe: true }, false);
}

#[test]
fn any_failed_call_of_a_save_leaves_old_or_new() {
    fail_every_call(Operation::Update { power_safe: false }, true);
    fail_every_call(Operation::Update { power_safe: true }, true);
    // The session has had no power-safe save yet.
    fail_every_call(Operation::Update { power_safe: true }, false);
    fail_every_call(Operation::Keep, false);
}

#[test]
fn any_failed_call_of_a_growing_save_leaves_old_or_new() {
    fail_every_call(Operation::Grow { power_safe: false }, true);
    fail_every_call(Operation::Grow { power_safe: true }, false);
}

#[test]
fn any_failed_call_of_a_rotation_leaves_one_id_at_most() {
    fail_every_call(Operation::Rotate, true);
    fail_every_call(Operation::Rotate, false);
}

#[test]
fn any_failed_call_of_a_move_leaves_one_id_at_most() {
    fail_every_call(Operation::Move, true);
    fail_every_call(Operation::Move, false);
}

#[test]
fn any_failed_call_of_a_delete_is_an_error_or_the_end() {
    fail_every_call(Operation::Delete, true);
    fail_every_call(Operation::Delete, false);
}

#[test]
fn a_load_beside_a_torn_slot_fails_when_any_of_its_calls_does() {
    let fixture = Fixture::new();
    let session = fixture.session(true);
    tear_newer_slot(&fixture.path(&session));
    let token = session.to_token();
    let calls = ["open session", "read", "open session", "read"];
    check_calls(&calls, || fixture.store.load(&token));
    for call in 0..calls.len() {
        let fault = Fault { call, errno: Errno::IO, then: Then::Works };
        let (result, _) = during(fault.plan(), || fixture.store.load(&token));
        check_error(&result.unwrap_err(), fixture.dir.path(), Errno::IO, &format!("call {call}"));
    }
    assert_eq!(fixture.text(&session).as_deref(), Some("ancient"));
}

/// The sync of the new file fails. Its session must not be loadable, even if the file cannot be removed.
#[test]
fn a_creation_neither_synced_nor_removed_is_not_loadable() {
    for unsynced in ["sync file", "sync shard"] {
        let fixture = Fixture::new();
        let session = SessionId::random().unwrap();
        let fail = move |_, call| [unsynced, "unlink"].contains(&call).then(|| Errno::IO.raw_os_error());
        let (result, _) =
            during(fail, || fixture.store.create_file(SessionRef::Id(&session), record("new"), true));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(fixture.text(&session), None, "after `{unsynced}` failed");
    }
}

/// The failpoint fails a call before it writes any byte. A disk that becomes full fails a write in the middle.
#[test]
fn a_torn_write_is_voided_or_stays_harmless() {
    let fixture = Fixture::new();
    for undone in [true, false] {
        let session = fixture.session(true);
        let path = fixture.path(&session);
        let mut writes = 0;
        let tear = move |_, call| {
            if call != "write" {
                return None;
            }
            writes += 1;
            if writes == 1 {
                let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all_at(&[0x55; 300], 0).unwrap();
            }
            (writes == 1 || !undone).then(|| Errno::NOSPC.raw_os_error())
        };
        let (result, calls) = during(tear, || put(&fixture.store, &session, "new", true));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(
            calls,
            ["open session", "lock", "read", "write", "write", "stat file system", "invalidate"]
        );
        // The slot is torn or voided. It must not look like a slot that was never written, so the reader reads twice.
        check_calls(&["open session", "read", "stat file"].repeat(2), || {
            fixture.store.load(&session.to_token())
        });
        assert_eq!(fixture.text(&session).as_deref(), Some("old"));
        put(&fixture.store, &session, "next", true).unwrap();
        check_calls(&["open session", "read"], || fixture.store.load(&session.to_token()));
        assert_eq!(fixture.text(&session).as_deref(), Some("next"));
    }
}

#[test]
fn creation_refuses_an_id_that_exists_and_leaves_it_alone() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    for power_safe in [false, true] {
        let error =
            fixture.store.create_file(SessionRef::Id(&session), record("new"), power_safe).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Random);
        let path = fixture.path(&session);
        let text = format!(
            "failed to create session file `{}`: the random generator repeated an id",
            path.display()
        );
        assert_eq!(error.to_string(), text);
        assert_eq!(fixture.text(&session).as_deref(), Some("old"));
    }
    // A rotation to an id that exists already ends neither session.
    let other = fixture.session(false);
    let error = Operation::Rotate.run(&fixture.store, &session, &other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Random);
    assert_eq!(fixture.text(&session).as_deref(), Some("old"));
    assert_eq!(fixture.text(&other).as_deref(), Some("old"));
}

#[test]
fn without_random_bits_nothing_is_created_or_changed() {
    let fixture = Fixture::new();
    let session = fixture.session(true);
    let fails = |to_do: &str, operation: &dyn Fn() -> Result<bool>| {
        let (result, _) = during(|_, _| None, || without_random_bits(operation));
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Random, "{to_do}");
        assert!(error.to_string().starts_with(&format!("failed to {to_do}: ")), "{error}");
        assert_eq!(fixture.text(&session).as_deref(), Some("old"), "{to_do}");
        fixture.check_nothing_is_held(to_do);
    };
    let (store, token) = (&fixture.store, session.to_token());
    fails("name a temporary file", &|| put(store, &session, &big("new"), true).map(|saved| saved.is_some()));
    fails("draw a session id", &|| store.create(&record("new"), Durability::Relaxed).map(|_| true));
    fails("draw a session id", &|| {
        let rotated = store.rotate(&token, &mut |_| Ok(Verdict::Write), &Durability::Relaxed.into());
        rotated.map(|saved| saved.is_some())
    });
    // The counters begin at a random number.
    fails("draw a starting point for generations", &|| FileStore::open(store.path()).map(|_| true));
    let files = fs::read_dir(fixture.dir.path().join(shard_of(&session.public_id()))).unwrap().count();
    assert_eq!(files, 1, "something was made");
    // An operation that needs no random bytes works.
    without_random_bits(|| put(store, &session, "new", true)).unwrap().unwrap();
    assert_eq!(fixture.text(&session).as_deref(), Some("new"));
}

/// On a file system that cannot exchange names, the exchange is replaced by two calls.
#[test]
fn without_exchange_a_growing_save_renames_and_revives_nothing() {
    let fixture = Fixture::new();
    for refusal in [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::PERM] {
        let refuse = move |call: &'static str| (call == "exchange").then(|| refusal.raw_os_error());
        let session = fixture.session(true);
        let grow = || put(&fixture.store, &session, &big("new"), true);
        let (grown, calls) = during(move |_, call| refuse(call), grow);
        grown.unwrap().unwrap();
        let in_two = calls.windows(3).any(|calls| calls == ["exchange", "stat in directory", "rename"]);
        assert!(in_two, "{calls:?}");
        assert_eq!((fixture.text(&session), fixture.temporary_beside(&session)), (Some(big("new")), 0));
        // In each run, one of the two calls fails.
        for failing in ["stat in directory", "rename"] {
            let session = fixture.session(true);
            let fail =
                move |_, call| refuse(call).or_else(|| (call == failing).then(|| Errno::IO.raw_os_error()));
            let (grown, _) = during(fail, || put(&fixture.store, &session, &big("new"), true));
            check_error(&grown.unwrap_err(), fixture.dir.path(), Errno::IO, failing);
            assert_eq!(fixture.text(&session).as_deref(), Some("old"), "{failing}");
            assert_eq!(fixture.temporary_beside(&session), 0, "{failing}");
            fixture.check_nothing_is_held(failing);
        }
        // A forced delete has removed the name just before.
        let session = fixture.session(true);
        let path = fixture.path(&session);
        let remove = move |_, call: &'static str| {
            if call == "stat in directory" {
                fs::remove_file(&path).unwrap();
            }
            refuse(call)
        };
        let (grown, _) = during(remove, || put(&fixture.store, &session, &big("new"), true));
        assert!(grown.unwrap().is_none(), "it is gone");
        assert_eq!((fixture.text(&session), fixture.temporary_beside(&session)), (None, 0));
    }
}

#[test]
fn any_failed_call_of_an_unknown_ids_load_is_an_error() {
    let fixture = Fixture::new();
    let unknown = SessionId::random().unwrap();
    for errno in REFUSALS {
        for call in 0..3 {
            let fault = Fault { call, errno, then: Then::Works };
            let (result, calls) = during(fault.plan(), || fixture.store.load(&unknown.to_token()));
            check_error(&result.unwrap_err(), fixture.dir.path(), errno, &format!("{calls:?}"));
        }
    }
}

#[test]
fn a_bucket_that_refuses_an_append_is_closed_and_counted() {
    let fixture = Fixture::new();
    let open = || descriptors(|open| open.starts_with(fixture.dir.path().join(DUE)));
    for errno in [Errno::IO.raw_os_error(), SHORT] {
        let index_failures = fixture.store.stats().files.index_failures;
        for n in 1..=10 {
            // The store has not opened a bucket yet.
            let mut record = record("x");
            record.set_timing(Timing {
                deadline: record.deadline() + Duration::from_secs(3600 * n),
                ..record.timing()
            });
            let fail = move |_, call| (call == "append").then_some(errno);
            let session = SessionId::random().unwrap();
            let create = || fixture.store.create_file(SessionRef::Id(&session), record, false);
            during(fail, create).0.unwrap();
        }
        assert_eq!(fixture.store.stats().files.index_failures, index_failures + 10);
        assert_eq!(open(), 0, "a bucket leaked");
    }
}
