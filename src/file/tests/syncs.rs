//! After a failed sync, the result of the next sync of that file proves nothing.
use super::*;

/// The calls from the failed sync on: the file gets the flag "a sync failed", and the version is written to a new file,
/// which is synced.
const REBUILD: [&str; 15] = [
    "write",
    "open shard",
    "create file",
    "lock",
    "stat file",
    "write",
    "sync file",
    "write",
    "write",
    "stat file",
    "stat session",
    "exchange",
    "unlink",
    "sync shard",
    "write",
];

#[track_caller]
fn check_rebuilt(fixture: &Fixture, session: &SessionId, operation: Operation, before: &[&'static str]) {
    let inode = fixture.inode(session);
    let (result, calls) =
        during(failing_syncs(|n| n == 0, &[]), || operation.run(&fixture.store, session, session));
    assert!(result.unwrap());
    assert_eq!(calls, then_invalidated(&[before, &REBUILD].concat()));
    assert_ne!(
        fixture.inode(session),
        inode,
        "the kernel has marked its pages clean: it must not be used again"
    );
    assert_eq!(fixture.text(session), Some(operation.new_text()));
    // The state byte of the new file is right: the next save makes the same calls as after any power-safe save.
    let calls = ["open session", "lock", "read", "write", "sync file", "write"];
    check_calls(&then_invalidated(&calls), || put(&fixture.store, session, "next", true));
}

#[test]
fn a_sync_that_failed_is_not_tried_again_on_the_same_file() {
    let fixture = Fixture::new();
    // The sync of the new version fails. Its slot is marked as well, and voided.
    let session = fixture.session(true);
    let before = ["open session", "lock", "read", "write", "sync file", "write", "write"];
    check_rebuilt(&fixture, &session, Operation::Update { power_safe: true }, &before);
    // The sync of the version before fails, which a relaxed save has left unsynced.
    put(&fixture.store, &session, "relaxed", false).unwrap();
    let before = ["open session", "lock", "read", "sync file"];
    check_rebuilt(&fixture, &session, Operation::Update { power_safe: true }, &before);
    // The sync of a version that is kept fails.
    put(&fixture.store, &session, "old", false).unwrap();
    let before = ["open session", "lock", "read", "open shard", "sync file"];
    check_rebuilt(&fixture, &session, Operation::Keep, &before);
}

#[test]
fn a_failed_sync_and_rewrite_leave_durability_unknown() {
    let fixture = Fixture::new();
    let begin = ["open session", "lock", "read", "write", "sync file"].len();
    let calls_after = 2 + REBUILD.len();
    let mut unknown = 0;
    for second in begin..begin + calls_after {
        let session = fixture.session(true);
        let fail = move |n, call| {
            (n == begin - 1 && call == "sync file" || n == second).then(|| Errno::IO.raw_os_error())
        };
        let (result, calls) = during(fail, || put(&fixture.store, &session, "new", true));
        let context = format!("the second fault was call {second}, `{}`", calls[second]);
        let text = fixture.text(&session).unwrap();
        match result {
            Ok(_) => assert_eq!(text, "new", "{context}"),
            Err(error) => {
                unknown += 1;
                assert_eq!(error.kind(), ErrorKind::DurabilityUnknown, "{context}");
                let want = format!(
                    "failed to save session after a failed sync `{}`: rewriting it failed as well",
                    fixture.path(&session).display()
                );
                assert_eq!(error.to_string(), want);
                check_error(&error, fixture.dir.path(), Errno::IO, &context);
                // The new version has the session's name before the shard is synced.
                let want = if calls[second] == "sync shard" { "new" } else { "old" };
                assert_eq!(text, want, "{context}");
            }
        }
        assert_eq!(fixture.temporary_beside(&session), usize::from(calls[second] == "unlink"), "{context}");
        put(&fixture.store, &session, "next", true).unwrap();
        assert_eq!(fixture.text(&session).as_deref(), Some("next"), "{context}");
    }
    assert_eq!(unknown, 11, "all but undoing the failed write, noting what is known, and tidying up");
}

/// A second sync of the file would succeed without writing the data that the first one failed to write.
#[test]
fn a_failed_sync_is_remembered_after_a_failed_rewrite() {
    let fixture = Fixture::new();
    for relaxed in [false, true] {
        let session = fixture.session(true);
        if relaxed {
            put(&fixture.store, &session, "relaxed", false).unwrap();
        }
        let inode = fixture.inode(&session);
        let fail = failing_syncs(|n| n == 0, &["create file"]);
        let (result, _) = during(fail, || put(&fixture.store, &session, "new", true));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::DurabilityUnknown);
        // A relaxed save in between does not change the result.
        put(&fixture.store, &session, "relaxed again", false).unwrap();
        assert_eq!(fixture.inode(&session), inode);
        put(&fixture.store, &session, "next", true).unwrap();
        assert_ne!(fixture.inode(&session), inode, "relaxed before: {relaxed}");
        assert_eq!(fixture.text(&session).as_deref(), Some("next"));
        let calls = ["open session", "lock", "read", "write", "sync file", "write"];
        check_calls(&then_invalidated(&calls), || put(&fixture.store, &session, "trusted", true));
    }
}

/// The flag must be in the old file before the new file exists.
#[test]
fn a_death_after_a_failed_sync_leaves_the_file_marked() {
    let fixture = Fixture::new();
    let update = Operation::Update { power_safe: true };
    for (operation, relaxed) in [(Operation::Keep, true), (update, true), (update, false)] {
        for after in 1.. {
            let session = fixture.session(true);
            if relaxed {
                put(&fixture.store, &session, "old", false).unwrap();
            }
            let inode = fixture.inode(&session);
            let mut failed_at = None;
            let fail = move |n, call: &str| match failed_at {
                None if call != "sync file" => None,
                None => {
                    failed_at = Some(n);
                    Some(Errno::IO.raw_os_error())
                }
                Some(failed) if n == failed + after => resume_unwind(Box::new("killed")),
                Some(failed) => (n > failed + after).then(|| Errno::IO.raw_os_error()),
            };
            let run = || operation.run(&fixture.store, &session, &session);
            let died = catch_unwind(AssertUnwindSafe(|| during(fail, run).0)).is_err();
            during(|_, _| None, || ());
            let context =
                format!("{operation:?}, relaxed before: {relaxed}, killed {after} calls after the sync");
            assert!(fixture.text(&session).is_some(), "{context}");
            put(&fixture.store, &session, "next", true).unwrap().unwrap();
            // If the process dies in the call that writes the flag, there is none.
            let is_anew = fixture.inode(&session) != inode;
            assert!(is_anew || after == 1, "{context}: a second sync of the same file was believed");
            if !died {
                assert!(after > 10, "{context}");
                break;
            }
        }
    }
}

/// The version has more entries than this store allows. It is written to a new file all the same.
#[test]
fn a_version_beyond_a_limit_whose_sync_failed_is_rewritten() {
    let fixture = Fixture::new();
    let session = fixture.session(true);
    let mut two = |record: &mut Record| {
        record.insert("more", &Value::new("x").unwrap()).unwrap();
        Ok(Verdict::Write)
    };
    fixture.store.update_file(&session, &mut two, false).unwrap().unwrap();
    let strict = fixture.reopened(FileStoreOptions::new().entries_max(1));
    let keep = |fails: bool| {
        let fail = failing_syncs(move |_| fails, &[]);
        during(fail, || Operation::Keep.run(&strict, &session, &session)).0.map_err(|error| error.kind())
    };
    let inode = fixture.inode(&session);
    assert_eq!(keep(true), Err(ErrorKind::DurabilityUnknown));
    assert_eq!(fixture.inode(&session), inode);
    assert_eq!(keep(false), Ok(true));
    assert_ne!(fixture.inode(&session), inode, "a second sync of the same file was trusted");
    assert_eq!(keep(false), Ok(true));
}

/// If another call fails after the sync (the write of the flag, the voiding, or the new file), the next save does not
/// rely on the file either.
#[test]
fn a_file_whose_sync_failed_is_never_synced_again() {
    let fixture = Fixture::new();
    for failing in 1..=4 {
        let session = fixture.session(true);
        let inode = fixture.inode(&session);
        let mut failed_at = None;
        let fail = move |n, call: &str| {
            let fails = match call {
                "sync file" if failed_at.is_none() => {
                    failed_at = Some(n);
                    true
                }
                "write" => failed_at.is_some_and(|failed| n == failed + failing),
                "create file" => true,
                _ => false,
            };
            fails.then(|| Errno::IO.raw_os_error())
        };
        let (saved, calls) = during(fail, || put(&fixture.store, &session, "new", true));
        let context = format!("the {failing}th call after the sync, of {calls:?}");
        assert_eq!(saved.unwrap_err().kind(), ErrorKind::DurabilityUnknown, "{context}");
        put(&fixture.store, &session, "next", true).unwrap().unwrap();
        assert_ne!(fixture.inode(&session), inode, "{context}: a second sync of the same file was believed");
        assert_eq!(fixture.text(&session).as_deref(), Some("next"), "{context}");
    }
}

#[test]
fn durability_is_unknown_until_the_directory_is_synced() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    for text in ["a", "b"] {
        let fail = |_, call| (call == "sync shard").then(|| Errno::IO.raw_os_error());
        let (result, _) = during(fail, || put(&fixture.store, &session, text, true));
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DurabilityUnknown);
        let path = fixture.path(&session);
        let want = format!(
            "failed to sync the directory of session file `{}`: what was changed is visible, and \
             may not survive a power cut",
            path.display()
        );
        assert_eq!(error.to_string(), want);
        assert_eq!(fixture.text(&session).as_deref(), Some(text), "what was changed is visible");
    }
    let (result, calls) = during(|_, _| None, || put(&fixture.store, &session, "c", true));
    assert!(result.unwrap().is_some() && calls.contains(&"sync shard"), "{calls:?}");
}

#[test]
fn a_failed_directory_sync_is_repeated_by_the_next_operation() {
    let fixture = Fixture::new();
    for operation in
        [Operation::Keep, Operation::Grow { power_safe: true }, Operation::Update { power_safe: true }]
    {
        let session = fixture.session(false);
        let fail = |_, call| (call == "sync shard").then(|| Errno::IO.raw_os_error());
        let (result, _) = during(fail, || operation.run(&fixture.store, &session, &session));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::DurabilityUnknown, "{operation:?}");
        let (result, calls) = during(|_, _| None, || put(&fixture.store, &session, "c", true));
        assert!(result.unwrap().is_some() && calls.contains(&"sync shard"), "{operation:?}: {calls:?}");
    }
}
