//! The calls to the file system that each operation makes, and the order of its syncs.
use super::*;
use crate::file_system::pretending;

#[test]
fn a_load_opens_reads_and_does_nothing_else() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let token = session.to_token();
    check_calls(&["open session", "read"], || fixture.store.load(&token));
    // An absent file is looked up once more, through its directory.
    let unknown = SessionId::random().unwrap().to_token();
    check_calls(&["open session", "open shard", "open session in shard"], || fixture.store.load(&unknown));
    let malformed = Token::parse("../../etc/passwd").unwrap();
    check_calls(&[], || fixture.store.load(&malformed));
    put(&fixture.store, &session, &"x".repeat(SLOT_MIN), false).unwrap();
    check_calls(&["open session", "read"], || fixture.store.load(&token));
    // A file that is larger than the usual buffer is read in more calls: its size is asked for, and the rest is read.
    put(&fixture.store, &session, &big("x"), false).unwrap();
    check_calls(&["open session", "read", "stat file", "read"], || fixture.store.load(&token));
}

#[test]
fn a_load_from_memory_computes_no_digest() {
    let dir = directory();
    let store = FileStore::open(dir.path()).unwrap();
    let saved = store.create(&record("old"), Durability::Relaxed).unwrap();
    let asked = |token: &Token| token.session_id().unwrap().has_digest();
    assert!(asked(&saved.token), "a creation has computed it");
    let token = Token::parse(saved.token.expose()).unwrap();
    assert!(matches!(store.load(&token).unwrap(), Lookup::Live(_)) && !asked(&token));
    let unknown = SessionId::random().unwrap().to_token();
    assert!(matches!(store.load(&unknown).unwrap(), Lookup::Absent(_)) && asked(&unknown));
    let malformed = Token::parse("x").unwrap();
    assert!(matches!(store.load(&malformed).unwrap(), Lookup::Absent(Absent::Malformed)));
}

#[test]
fn a_relaxed_save_opens_reads_and_writes_the_other_slot() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let other = SessionId::random().unwrap();
    check_calls(&["open session", "lock", "read", "write", "invalidate"], || {
        put(&fixture.store, &session, "x", false)
    });
    let calls = ["append", "stat file", "open session", "lock", "stat file", "stat session", "write"];
    check_calls(&calls, || fixture.store.create_file(SessionRef::Id(&other), record("x"), false));
}

#[test]
fn the_first_session_of_an_hour_makes_its_bucket() {
    let fixture = Fixture::new();
    let create = |deadline: u64| {
        let mut record = record("x");
        record.set_timing(Timing {
            deadline: record.deadline() + Duration::from_secs(3600 * deadline),
            ..record.timing()
        });
        let session = SessionId::random().unwrap();
        fixture.store.create_file(SessionRef::Id(&session), record, false)
    };
    let rest = ["append", "stat file", "open session", "lock", "stat file", "stat session", "write"];
    let opened = [&["open directory", "open file in directory"][..], &rest].concat();
    check_calls(&opened, || create(1));
    check_calls(&rest, || create(1));
    check_calls(&opened, || create(2));
    // The buckets for the two ages are both open, so neither is opened again.
    check_calls(&rest, || create(1));
    fs::remove_dir_all(fixture.dir.path().join(DUE)).unwrap();
    // The bucket has lost its name, so the entry is inserted once more, in a new bucket.
    let lost = ["append", "stat file", "open directory", "make directory", "stat in root", "open directory"];
    let lost =
        [&lost[..], &["stat in directory", "open directory", "make directory", "stat in root"]].concat();
    check_calls(&[&lost[..], &opened].concat(), || create(1));
}

#[test]
fn a_save_indexes_its_session_only_for_an_earlier_hour() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let move_by = |hours: i64| {
        let mut change = |record: &mut Record| {
            let by = Duration::from_secs(3600 * hours.unsigned_abs());
            let deadline = if hours < 0 { record.deadline() - by } else { record.deadline() + by };
            record.set_timing(Timing { deadline, ..record.timing() });
            Ok(Verdict::Write)
        };
        fixture.store.update_file(&session, &mut change, false)
    };
    let save = ["open session", "lock", "read", "write"];
    check_calls(&then_invalidated(&save), || move_by(20));
    let inserted = [
        "open session",
        "lock",
        "read",
        "open directory",
        "open file in directory",
        "append",
        "stat file",
        "open shard",
        "sync file",
        "write",
        "sync file",
        "sync shard",
        "write",
    ];
    // Each save that moves a deadline to an earlier time is power-safe.
    check_calls(&then_invalidated(&inserted), || move_by(-3));
}

#[test]
fn a_power_safe_save_after_a_power_safe_one_syncs_once() {
    let fixture = Fixture::new();
    let session = fixture.session(true);
    for text in ["a", "b", "c"] {
        let calls = ["open session", "lock", "read", "write", "sync file", "write"];
        check_calls(&then_invalidated(&calls), || put(&fixture.store, &session, text, true));
    }
}

/// After a relaxed save, the disk may only have the older slot.
#[test]
fn the_newest_version_is_synced_before_the_older_is_overwritten() {
    let fixture = Fixture::new();
    let session = fixture.session(true);
    put(&fixture.store, &session, "relaxed", false).unwrap();
    let calls = ["open session", "lock", "read", "sync file", "write", "sync file", "write"];
    check_calls(&then_invalidated(&calls), || put(&fixture.store, &session, "x", true));
    // The newest version is synced once. The state byte records that it is on the disk.
    let calls = ["open session", "lock", "read", "write", "sync file", "write"];
    check_calls(&then_invalidated(&calls), || put(&fixture.store, &session, "y", true));
}

#[test]
fn a_power_safe_save_syncs_a_killed_writers_version_first() {
    let fixture = Fixture::new();
    let session = fixture.session(true);
    let killed = dying_in_call(4, || put(&fixture.store, &session, "killed", true));
    assert!(killed.is_none(), "the fifth call of a power-safe save is the sync");
    assert_eq!(fixture.text(&session).as_deref(), Some("killed"), "it was written, and not synced");
    let calls = ["open session", "lock", "read", "sync file", "write", "sync file", "write"];
    check_calls(&then_invalidated(&calls), || put(&fixture.store, &session, "x", true));
}

#[test]
fn the_first_power_safe_save_syncs_the_sessions_name() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    // The directory is opened before anything is written. Otherwise a save could write and then find that it cannot be
    // power-safe.
    let calls = [
        "open session",
        "lock",
        "read",
        "open shard",
        "sync file",
        "write",
        "sync file",
        "sync shard",
        "write",
    ];
    check_calls(&then_invalidated(&calls), || put(&fixture.store, &session, "x", true));
    // A relaxed save clears the flag "data synced" of its slot, and keeps the flag "name synced" of the inode.
    put(&fixture.store, &session, "y", false).unwrap();
    let calls = ["open session", "lock", "read", "sync file", "write", "sync file", "write"];
    check_calls(&then_invalidated(&calls), || put(&fixture.store, &session, "z", true));
}

#[test]
fn a_power_safe_save_without_changes_syncs_the_stored_version() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let keep = || Operation::Keep.run(&fixture.store, &session, &session);
    let calls = ["open session", "lock", "read", "open shard", "sync file", "sync shard", "write"];
    check_calls(&then_invalidated(&calls), keep);
    check_calls(&then_invalidated(&["open session", "lock", "read"]), keep);
    put(&fixture.store, &session, "relaxed", false).unwrap();
    check_calls(
        &then_invalidated(&["open session", "lock", "read", "open shard", "sync file", "write"]),
        keep,
    );
}

#[test]
fn a_power_safe_creation_syncs_the_file_then_its_name() {
    let fixture = Fixture::new();
    fixture.session(false);
    let session = SessionId::random().unwrap();
    let calls = [
        "open shard",
        // The entry in the index is written before the file.
        "append",
        "stat file",
        "open session",
        "lock",
        "stat file",
        "stat session",
        "write",
        "sync file",
        "sync shard",
        "write",
    ];
    check_calls(&calls, || fixture.store.create_file(SessionRef::Id(&session), record("x"), true));
}

#[test]
fn a_grown_file_is_synced_before_it_takes_the_name() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    check_calls(&then_invalidated(&GROW), || put(&fixture.store, &session, &big("x"), false));
    // The shard is synced as well, because the new file's name was not synced yet.
    let calls = [
        "open session",
        "lock",
        "read",
        "stat file",
        "read",
        "open shard",
        "write",
        "sync file",
        "sync shard",
        "write",
    ];
    check_calls(&then_invalidated(&calls), || put(&fixture.store, &session, "y", true));

    let session = fixture.session(true);
    let calls = [&GROW[..], &["sync shard", "write"]].concat();
    check_calls(&then_invalidated(&calls), || put(&fixture.store, &session, &big("x"), true));
}

/// Without the lock, the next save could invalidate before this one. The copy of this save would then count as the
/// newest version.
#[test]
fn a_grown_file_stays_locked_until_the_invalidation() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let other = fixture.reopened(FileStoreOptions::new().lock_wait(Duration::from_millis(20)));
    let (next, met) = (session.clone(), Arc::new(Mutex::new(None)));
    let report = Arc::clone(&met);
    let interrupt = move |_, call| {
        if call == "invalidate" {
            let (other, next) = (Arc::clone(&other), next.clone());
            let saved = thread::spawn(move || put(&other, &next, "next", false)).join().unwrap();
            *report.lock().unwrap() = Some(saved.map(drop).map_err(|error| error.kind()));
        }
        None
    };
    let (grown, _) = during(interrupt, || put(&fixture.store, &session, &big("x"), false));
    assert!(grown.unwrap().is_some());
    assert_eq!(*met.lock().unwrap(), Some(Err(ErrorKind::Busy)));
    assert_eq!(fixture.text(&session), Some(big("x")));
}

#[test]
fn flags_of_a_file_are_not_taken_for_those_of_its_successor() {
    let fixture = Fixture::new();
    let session = fixture.session(true);
    // The same if the state byte of the larger file cannot be written.
    let note = GROW.iter().position(|call| *call == "sync file").unwrap() + 1;
    let fault = Fault { call: note, errno: Errno::IO, then: Then::Works };
    let (grown, calls) = during(fault.plan(), || put(&fixture.store, &session, &big("x"), false));
    assert!(grown.unwrap().is_some());
    assert_eq!(calls, then_invalidated(&GROW));
    let (saved, calls) = during(|_, _| None, || put(&fixture.store, &session, "y", true));
    assert!(saved.unwrap().is_some());
    let syncs: Vec<_> = calls.into_iter().filter(|call| call.starts_with("sync")).collect();
    assert_eq!(syncs, ["sync file", "sync file", "sync shard"]);
}

const ROTATE: [&str; 23] = [
    "open shard",
    "open session in shard",
    "lock",
    "read",
    // The successor and its name are synced first.
    "open shard",
    "append",
    "stat file",
    "open session",
    "lock",
    "stat file",
    "stat session",
    "write",
    "sync file",
    "sync shard",
    "write",
    // The old session is ended after that, and its name is removed last.
    "stat file",
    "stat session",
    "write",
    "sync file",
    "invalidate",
    "stat file",
    "stat session",
    "unlink",
];

#[test]
fn a_rotation_syncs_the_successor_before_it_ends_the_old_file() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let successor = SessionId::random().unwrap();
    check_calls(&ROTATE, || Operation::Rotate.run(&fixture.store, &session, &successor));
}

#[test]
fn a_move_syncs_and_invalidates_its_mark_and_keeps_the_name() {
    let fixture = Fixture::before_the_end_of_an_hour();
    let (session, successor) = (fixture.session(false), SessionId::random().unwrap());
    // The tombstone over the newest version is written last, because it says that the move is complete.
    let moving = [&ROTATE[..20], &["write", "stat file", "stat session"]].concat();
    check_calls(&moving, || Operation::Move.run(&fixture.store, &session, &successor));
    // A logout under the moved id ends the successor. Two calls ask for the size of the moved file, because its first
    // slot has no version.
    let looks =
        ["open shard", "open session in shard", "lock", "read", "stat file", "stat file", "stat session"];
    let end = [&MARK[..], &["sync file"], &REMOVE].concat();
    check_calls(&[&looks[..], &end].concat(), || delete(&fixture, &session));
    check_calls(&[&looks[..], &LOOKS].concat(), || delete(&fixture, &session));
}

#[test]
fn a_moved_id_whose_grace_is_over_costs_lookups_only() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let how = Rotation::default().grace(Duration::from_micros(1));
    let keep = &mut |_: &mut Record| Ok(Verdict::Keep);
    let successor = SessionId::random().unwrap();
    fixture.store.rotate_file(&session, &successor, keep, &how).unwrap().unwrap();
    thread::sleep(Duration::from_millis(1));
    let looks =
        ["open shard", "open session in shard", "lock", "read", "stat file", "stat file", "stat session"];
    check_calls(&looks, || delete(&fixture, &session));
    check_calls(&["open session", "read", "stat file"], || fixture.store.load(&session.to_token()));
    assert_eq!(fixture.text(&successor).as_deref(), Some("old"));
}

/// The calls of an end up to the sync of the tombstone.
const MARK: [&str; 5] = ["open shard", "open session in shard", "lock", "read", "write"];
/// The calls of an end after that sync.
const REMOVE: [&str; 4] = ["invalidate", "stat file", "stat session", "unlink"];
/// The calls of an end if the session does not exist.
const LOOKS: [&str; 3] = ["open shard", "open session in shard", "open file in directory"];

fn delete(fixture: &Fixture, session: &SessionId) -> Result<bool> {
    fixture.store.delete_file(SessionRef::Id(session)).map(|ended| ended.is_some())
}

#[test]
fn a_deletion_syncs_and_invalidates_before_the_name_goes() {
    let fixture = Fixture::new();
    for power_safe in [false, true] {
        let session = fixture.session(power_safe);
        check_calls(&[&MARK[..], &["sync file"], &REMOVE].concat(), || delete(&fixture, &session));
    }
}

#[test]
fn a_deletion_of_an_absent_session_looks_and_does_nothing_else() {
    let fixture = Fixture::new();
    let (ended, rotated) = (fixture.session(false), fixture.session(false));
    delete(&fixture, &ended).unwrap();
    Operation::Rotate.run(&fixture.store, &rotated, &SessionId::random().unwrap()).unwrap();
    let made_up = SessionId::random().unwrap();
    for session in [&ended, &rotated, &made_up] {
        check_calls(&LOOKS, || delete(&fixture, session));
    }
}

/// On btrfs, when a larger file loses its name, the smaller file may get it back, although the shard was synced after
/// the exchange.
#[test]
fn on_btrfs_the_file_system_is_synced_once_a_name_has_changed() {
    const BTRFS: u32 = 0x9123_683e;
    let elsewhere = Fixture::new();
    let on_btrfs = pretending(BTRFS, || elsewhere.reopened(FileStoreOptions::new()));
    for (store, changed) in [(&elsewhere.store, "sync shard"), (&on_btrfs, "sync file system")] {
        let name_syncs = |operation: &mut dyn FnMut()| {
            let ((), calls) = during(|_, _| None, operation);
            let is_of_a_name = |call: &&str| ["sync shard", "sync file system"].contains(call);
            calls.into_iter().filter(is_of_a_name).collect::<Vec<_>>()
        };
        let session = |larger: bool| {
            let session = elsewhere.session(false);
            if larger {
                put(store, &session, &"x".repeat(SLOT_MIN), false).unwrap().unwrap();
            }
            session
        };
        let save = |session: &SessionId, text: &str| {
            name_syncs(&mut || assert!(put(store, session, text, true).unwrap().is_some()))
        };
        let keep = |session: &SessionId| {
            let mut keep = |_: &mut Record| Ok(Verdict::Keep);
            name_syncs(&mut || assert!(store.update_file(session, &mut keep, true).unwrap().is_some()))
        };
        let end = |session: &SessionId| {
            name_syncs(&mut || assert!(store.delete_file(SessionRef::Id(session)).is_ok()))
        };

        assert_eq!(end(&session(true)), [changed]);
        let nothing: [&str; 0] = [];
        let larger = session(true);
        assert_eq!(save(&larger, "small"), [changed]);
        assert_eq!(end(&larger), nothing);
        let larger = session(true);
        assert_eq!(keep(&larger), [changed]);
        assert_eq!(end(&larger), nothing);
        let larger = session(false);
        assert_eq!(save(&larger, &big("x")), [changed]);
        assert_eq!(end(&larger), nothing);

        // If a file was never replaced, the sync of its directory is enough.
        let small = session(false);
        assert_eq!(save(&small, "x"), ["sync shard"]);
        assert_eq!(end(&small), nothing);
        // The state of a damaged file is unknown, so it may have replaced another file.
        let damaged = session(false);
        fs::write(elsewhere.path(&damaged), "damage").unwrap();
        assert_eq!(end(&damaged), [changed]);
    }
}

/// On the disk, the name may still lead to the smaller file, which has no tombstone.
#[test]
fn an_end_syncs_a_larger_files_name_before_the_tombstone() {
    let fixture = Fixture::new();
    let grown = |then_saved: bool, power_safe: bool| {
        let session = fixture.session(false);
        put(&fixture.store, &session, &"x".repeat(SLOT_MIN), power_safe).unwrap().unwrap();
        if then_saved {
            put(&fixture.store, &session, "small", false).unwrap().unwrap();
        }
        session
    };
    let end = |syncs: &[&'static str]| [&MARK[..4], &syncs[1..], &MARK[4..], &syncs[..1], &REMOVE].concat();
    for then_saved in [false, true] {
        let session = grown(then_saved, false);
        check_calls(&end(&["sync file", "sync shard"]), || delete(&fixture, &session));
        let session = grown(then_saved, true);
        check_calls(&end(&["sync file"]), || delete(&fixture, &session));
    }
    // A writer that is killed between the exchange and the sync leaves the same state.
    let session = fixture.session(true);
    assert!(
        dying_in_call(GROW.len(), || put(&fixture.store, &session, &"x".repeat(SLOT_MIN), true)).is_none()
    );
    check_calls(&end(&["sync file", "sync shard"]), || delete(&fixture, &session));
    // If an end was interrupted, no flag tells whether the file had replaced another one.
    let session = grown(false, false);
    assert!(dying_in_call(MARK.len() + 1, || delete(&fixture, &session)).is_none());
    check_calls(
        &[
            "open shard",
            "open session in shard",
            "lock",
            "read",
            "stat file",
            "stat file",
            "stat session",
            "sync shard",
            "write",
            "sync file",
            "invalidate",
            "stat file",
            "stat session",
            "unlink",
        ],
        || delete(&fixture, &session),
    );
}

#[test]
fn without_synced_security_events_only_successors_are_synced() {
    let fixture = Fixture::with(FileStoreOptions::new().sync_security_events(false));
    let (session, successor) = (fixture.session(false), SessionId::random().unwrap());
    let unsynced = [&ROTATE[..18], &ROTATE[19..]].concat();
    check_calls(&unsynced, || Operation::Rotate.run(&fixture.store, &session, &successor));
    check_calls(&[&MARK[..], &REMOVE].concat(), || delete(&fixture, &successor));
    check_calls(&LOOKS, || delete(&fixture, &successor));
}

/// A sweep syncs no removal: a version that comes back after a power cut must have expired too.
#[test]
fn a_save_that_shortens_the_deadline_is_power_safe() {
    let save = |store: &FileStore, session: &SessionId, sooner: bool| {
        let mut change = |record: &mut Record| {
            let by = Duration::from_secs(1);
            let deadline = if sooner { record.deadline() - by } else { record.deadline() + by };
            record.set_timing(Timing { deadline, ..record.timing() });
            Ok(Verdict::Write)
        };
        let (saved, calls) = during(|_, _| None, || store.update_file(session, &mut change, false));
        saved.unwrap().unwrap();
        calls.into_iter().filter(|call| call.starts_with("sync")).collect::<Vec<_>>()
    };
    let fixture = Fixture::new();
    let session = fixture.session(true);
    assert_eq!(save(&fixture.store, &session, false), [""; 0]);
    assert_eq!(save(&fixture.store, &session, true), ["sync file"; 2]);
    let lax = fixture.reopened(FileStoreOptions::new().sync_security_events(false));
    assert_eq!(save(&lax, &session, true), [""; 0]);
}
