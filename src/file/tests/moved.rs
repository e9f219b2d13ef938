//! The marks of moved ids: how they are written, completed, followed and swept, also if a call fails or the process
//! dies.
use super::sweeps::unrested;
use super::*;
use crate::admin::{Admin, SweepOptions};
use crate::clock::Clock;
use crate::file::slot::{self, Mark, PREFIX_LEN, State};
use crate::id::PublicId;
use crate::store::{EndedSession, GRACE_MAX};
use std::time::UNIX_EPOCH;

const GRACE: Duration = Duration::from_secs(3600);

fn rotate(store: &FileStore, session: &SessionId, how: &Rotation<'_>) -> Result<Option<SessionId>> {
    let successor = SessionId::random().unwrap();
    let moved = store.rotate_file(session, &successor, &mut |_| Ok(Verdict::Keep), how)?;
    Ok(moved.map(|_| successor))
}

fn move_on(store: &FileStore, session: &SessionId) -> SessionId {
    rotate(store, session, &Rotation::default().grace(GRACE)).unwrap().unwrap()
}

fn end(store: &FileStore, session: &SessionId) -> Option<PublicId> {
    EndedSession::live_id(store.delete_file(SessionRef::Id(session)).unwrap())
}

fn impatient() -> Fixture {
    Fixture::with(FileStoreOptions::new().lock_wait(Duration::from_millis(1)))
}

/// The first bytes of both slots of a session's file, which name the kind of each slot.
fn magics(fixture: &Fixture, session: &SessionId) -> [String; 2] {
    let bytes = fs::read(fixture.path(session)).unwrap();
    [0, bytes.len() / 2].map(|at| String::from_utf8_lossy(&bytes[at..at + 4]).into_owned())
}

const COMPLETE: [&str; 2] = ["MOVE", "GONE"];

/// Fails the call of this name with this number, counted from 0.
fn fail_nth(name: &'static str, nth: usize) -> impl FnMut(usize, &'static str) -> Option<i32> + 'static {
    let mut seen = 0;
    move |_, call| {
        let fails = call == name && seen == nth;
        seen += usize::from(call == name);
        fails.then(|| Errno::IO.raw_os_error())
    }
}

/// The numbers of the write and of the sync of a mark, among the writes and the syncs of a rotation.
const MARK_WRITE: usize = 2;
const MARK_SYNC: usize = 1;

#[test]
fn a_move_leaves_a_mark_and_a_tombstone_and_no_version() {
    let fixture = Fixture::new();
    let warm = warm(&fixture);
    let session = fixture.session(true);
    assert_eq!(served(&warm, &session).as_deref(), Some("old"));
    let successor = move_on(&fixture.store, &session);
    // The newest version was in the second slot.
    assert_eq!(magics(&fixture, &session), COMPLETE);
    assert_eq!(served(&warm, &session), None, "it is served from memory");
    assert_eq!(served(&warm, &successor).as_deref(), Some("old"));
    // The same for a session whose newest version is in the first slot.
    let last = move_on(&fixture.store, &successor);
    assert_eq!(magics(&fixture, &successor), ["GONE", "MOVE"]);
    let found = warm.successor(&session.to_token()).unwrap().unwrap();
    assert_eq!((found.id, text_of(&found.record)), (last.public_id(), "old".to_owned()));
}

#[test]
fn a_mark_that_is_damaged_shows_no_older_version() {
    let fixture = Fixture::new();
    for byte in [0, 3, 4, 6, 16, 24, PREFIX_LEN, PREFIX_LEN + 28] {
        let session = fixture.session(true);
        move_on(&fixture.store, &session);
        let mut bytes = fs::read(fixture.path(&session)).unwrap();
        bytes[byte] ^= 0xff;
        fs::write(fixture.path(&session), bytes).unwrap();
        let found = fixture.store.load(&session.to_token()).unwrap();
        assert!(matches!(found, Lookup::Absent(Absent::NotFound(_))), "byte {byte}: {found:?}");
        assert_eq!(end(&fixture.store, &session), None, "byte {byte}");
        assert!(!fixture.path(&session).exists(), "byte {byte}");
    }
}

#[test]
fn a_mark_that_cannot_be_written_or_synced_ends_the_old_id() {
    for (call, nth) in [("write", MARK_WRITE), ("sync file", MARK_SYNC)] {
        let fixture = Fixture::new();
        let session = fixture.session(true);
        let (moved, calls) = during(fail_nth(call, nth), || {
            rotate(&fixture.store, &session, &Rotation::default().grace(GRACE))
        });
        let successor = moved.unwrap().unwrap_or_else(|| panic!("{call}: {calls:?}"));
        let found = fixture.store.load(&session.to_token()).unwrap();
        assert!(matches!(found, Lookup::Absent(Absent::NotFound(_))), "{call}: {found:?}");
        assert!(!fixture.path(&session).exists(), "{call}");
        assert_eq!(fixture.text(&successor).as_deref(), Some("old"), "{call}");
        // After a failed sync of the mark, the old session is ended by moving its file, and the move is synced.
        assert_eq!(calls.contains(&"rename"), call == "sync file", "{calls:?}");
    }
    // The same if a sync of the inode had failed before.
    let fixture = Fixture::new();
    let session = fixture.session(true);
    let (_, _) = during(failing_syncs(|n| n == 0, &["create file"]), || {
        put(&fixture.store, &session, "new", true).unwrap_err()
    });
    let (moved, calls) =
        during(|_, _| None, || rotate(&fixture.store, &session, &Rotation::default().grace(GRACE)));
    moved.unwrap().unwrap();
    assert!(calls.contains(&"rename") && !fixture.path(&session).exists(), "{calls:?}");
}

/// A tombstone beside the mark would claim that the mark is on the disk.
#[test]
fn a_mark_that_may_not_be_on_the_disk_has_no_tombstone_beside_it() {
    let fixture = Fixture::new();
    let session = fixture.session(true);
    let mut mark_sync = fail_nth("sync file", MARK_SYNC);
    let mut name = fail_nth("rename", 0);
    let (moved, calls) = during(
        move |n, call| mark_sync(n, call).or_else(|| name(n, call)),
        || rotate(&fixture.store, &session, &Rotation::default().grace(GRACE)),
    );
    assert_eq!(moved.unwrap_err().kind(), ErrorKind::DurabilityUnknown, "{calls:?}");
    assert_eq!(magics(&fixture, &session), ["MOVE", "SESS"]);
    assert!(fixture.is_moved(&session));
    let (ended, calls) = during(|_, _| None, || end(&fixture.store, &session));
    assert!(
        calls.contains(&"sync file") && ended.is_none(),
        "the rotation has failed, so no session is there: {calls:?}"
    );
    assert_eq!(magics(&fixture, &session), COMPLETE);
}

/// Without the sync of the shard, a power cut might give the name back to the smaller file.
#[test]
fn the_name_of_a_grown_session_is_synced_before_its_mark() {
    let fixture = Fixture::new();
    let session = fixture.session(true);
    put(&fixture.store, &session, &big("x"), false).unwrap().unwrap();
    let (moved, calls) =
        during(|_, _| None, || rotate(&fixture.store, &session, &Rotation::default().grace(GRACE)));
    moved.unwrap().unwrap();
    let marked: Vec<_> = calls.iter().rev().take(6).rev().copied().collect();
    assert_eq!(marked, ["write", "sync file", "invalidate", "write", "stat file", "stat session"]);
    assert_eq!(calls[calls.len() - 7], "sync shard", "{calls:?}");
    assert_eq!(
        calls.iter().filter(|call| **call == "sync shard").count(),
        2,
        "the successor's, and this one"
    );
    // The state of the file says that the name is synced, so it is not synced again.
    let is_known_as_synced =
        |bytes: &[u8]| bytes[slot::STATE_AT] == State::REPLACES.and(State::NAME_SYNCED).to_byte();
    let bytes = fs::read(fixture.path(&session)).unwrap();
    let mark = [0, bytes.len() / 2].map(|at| &bytes[at..]).into_iter().find(|slot| slot.starts_with(b"MOVE"));
    assert!(is_known_as_synced(mark.unwrap()));
}

/// A rotation is killed in any of its calls, and then a logout is made with the old id. Afterwards neither id is found,
/// whatever is cached, and the mark is on the disk.
#[test]
fn a_move_killed_in_any_call_is_whole_after_a_logout() {
    let mut seen = [0; 3];
    for call in 0.. {
        let fixture = Fixture::new();
        let (session, warm) = (fixture.session(true), warm(&fixture));
        assert_eq!(served(&warm, &session).as_deref(), Some("old"));
        let successor = SessionId::random().unwrap();
        let moved =
            dying_in_call(call, || Operation::Move.run(&fixture.store, &session, &successor).unwrap());
        let (is_moved, made) = (fixture.is_moved(&session), fixture.text(&successor).is_some());
        let is_complete = is_moved && magics(&fixture, &session) == COMPLETE;
        let (ended, calls) = during(|_, _| None, || end(&fixture.store, &session));
        let context =
            format!("died in call {call}, moved: {is_moved}, complete: {is_complete}, then {calls:?}");
        let present = if is_moved { &successor } else { &session };
        assert_eq!(ended, Some(present.public_id()), "{context}");
        assert_eq!(served(&warm, &session), None, "{context}: it is served from memory");
        assert_eq!(served(&fixture.store, &successor).is_some(), made && !is_moved, "{context}");
        let looks = ["open shard", "open session in shard", "lock", "read", "stat file", "stat session"];
        let completion = ["read", "write", "sync file", "invalidate", "write"];
        let next = ["open shard", "open session in shard", "lock", "read", "write", "sync file"];
        if is_moved {
            let want = [&looks[..], if is_complete { &[] } else { &completion }, &next].concat();
            // If the mark is in the first slot, the size of the file is asked for.
            let calls: Vec<_> = calls.iter().copied().take(want.len() + 1).collect();
            let asked = [&looks[..4], &["stat file"], &want[4..]].concat();
            assert_eq!(calls, asked, "{context}");
            assert_eq!(magics(&fixture, &session), COMPLETE, "{context}");
            assert_eq!(end(&fixture.store, &session), None, "{context}: once more");
        }
        seen[usize::from(is_moved) + usize::from(is_complete)] += 1;
        if moved.is_some() {
            assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
            return;
        }
    }
}

/// The tombstone beside a mark only says that the move is complete.
#[test]
fn a_mark_without_its_tombstone_is_completed_by_a_login() {
    let fixture = Fixture::new();
    let session = fixture.session(true);
    let (moved, _) = during(fail_nth("write", MARK_WRITE + 1), || {
        rotate(&fixture.store, &session, &Rotation::default().grace(GRACE))
    });
    let successor = moved.unwrap().unwrap();
    assert_eq!(magics(&fixture, &session), ["MOVE", "SESS"]);
    assert!(fixture.is_moved(&session));
    let login = Rotation::default().grace(GRACE).login("ada");
    let (login, calls) = during(|_, _| None, || rotate(&fixture.store, &session, &login));
    assert_eq!(fixture.text(&login.unwrap().unwrap()).as_deref(), Some("old"));
    assert_eq!(calls.iter().filter(|call| **call == "sync file").count(), 3, "{calls:?}");
    assert_eq!(magics(&fixture, &session), COMPLETE);
    assert!(fixture.is_moved(&successor));
}

#[test]
fn a_mark_that_cannot_be_completed_is_an_error_of_the_logout() {
    let fixture = Fixture::before_the_end_of_an_hour();
    for failing in ["sync file", "invalidate"] {
        let session = fixture.session(true);
        let successor = SessionId::random().unwrap();
        let mark_sync = 18;
        assert!(
            dying_in_call(mark_sync, || Operation::Move.run(&fixture.store, &session, &successor)).is_none()
        );
        assert_eq!(magics(&fixture, &session), ["MOVE", "SESS"]);
        let delete = || fixture.store.delete_file(SessionRef::Id(&session));
        let (ended, _) = during(fail_nth(failing, 0), delete);
        assert!(ended.is_err(), "{failing}");
        assert_eq!(fixture.text(&successor).as_deref(), Some("new"), "{failing}: it is there");
        assert_eq!(EndedSession::live_id(delete().unwrap()), Some(successor.public_id()), "{failing}");
        assert_eq!(fixture.text(&successor), None, "{failing}");
    }
}

/// A stopped process has the lock of a moved id. A logout does not wait for it.
#[test]
fn a_logout_by_a_moved_id_waits_for_no_stopped_process() {
    let fixture = impatient();
    for login in [false, true] {
        let session = fixture.session(true);
        let how = Rotation::default().grace(GRACE);
        let how = if login { how.login("ada") } else { how };
        let successor = rotate(&fixture.store, &session, &how).unwrap().unwrap();
        let file = fs::File::options().read(true).write(true).open(fixture.path(&session)).unwrap();
        let stopped = LockedFile::acquire(file, Instant::now()).unwrap().unwrap();
        let ended = end(&fixture.store, &session);
        drop(stopped);
        assert_eq!(ended, (!login).then(|| successor.public_id()), "a live session was there");
        assert_eq!(fixture.text(&successor).is_some(), login, "a logout does not go on from a login");
        assert!(!fixture.path(&session).exists());
    }
}

#[test]
fn a_logout_goes_on_from_a_mark_that_a_killed_one_moved_away() {
    let fixture = impatient();
    let session = fixture.session(true);
    let successor = move_on(&fixture.store, &session);
    let file = fs::File::options().read(true).write(true).open(fixture.path(&session)).unwrap();
    let stopped = LockedFile::acquire(file, Instant::now()).unwrap().unwrap();
    assert!(dies_at("sync shard", || end(&fixture.store, &session)));
    drop(stopped);
    assert_eq!(fixture.text(&successor).as_deref(), Some("old"), "it died before");
    assert_eq!(end(&fixture.store, &session), Some(successor.public_id()));
    assert_eq!(fixture.text(&successor), None);
}

/// Such marks may be crafted, or be restored from backups of different ages.
#[test]
fn marks_that_lead_in_a_circle_end_every_walk() {
    let fixture = Fixture::new();
    let ids: Vec<_> = (0..2).map(|_| fixture.session(true)).collect();
    for (id, next) in [(&ids[0], &ids[1]), (&ids[1], &ids[0])] {
        let until = fixture.store.now_micros() + 60_000_000;
        let mark = Mark { successor: next.public_id(), until, by_login: false };
        let own = id.public_id();
        let header = slot::Header { id: &own, sequence: 3, state: State::WRITTEN, slot_size_min: SLOT_MIN };
        let mut bytes = fs::read(fixture.path(id)).unwrap();
        let mark = slot::encode_mark(&mark, &header);
        bytes[..mark.len()].copy_from_slice(&mark);
        fs::write(fixture.path(id), bytes).unwrap();
    }
    assert_eq!(end(&fixture.store, &ids[0]), None);
    assert!(rotate(&fixture.store, &ids[0], &Rotation::default().login("ada")).unwrap().is_none());
    assert!(fixture.store.successor(&ids[0].to_token()).unwrap().is_none());
}

#[test]
fn without_synced_security_events_a_mark_is_not_synced() {
    let fixture = Fixture::with(FileStoreOptions::new().sync_security_events(false));
    let session = fixture.session(true);
    let (moved, calls) =
        during(|_, _| None, || rotate(&fixture.store, &session, &Rotation::default().grace(GRACE)));
    moved.unwrap().unwrap();
    assert_eq!(calls.iter().filter(|call| **call == "sync file").count(), 1, "the successor's: {calls:?}");
    assert_eq!(magics(&fixture, &session), COMPLETE);
}

// ------------------------------------------------------------------------------------------ administration, sweeps

/// A store with a manual clock, and the time at which it stands.
fn clocked() -> (Fixture, Clock, SystemTime) {
    let begin = UNIX_EPOCH + Duration::from_secs(500_000 * 3600 + 60);
    let clock = Clock::manual(begin);
    (Fixture::with(FileStoreOptions::new().clock(clock.clone())), clock, begin)
}

const MINUTE: Duration = Duration::from_secs(60);
/// The deadline is so late that within the test, only the entry for the mark makes a sweep examine the file.
const LIFETIME: Duration = Duration::from_secs(30 * 3600);

fn moved_at(fixture: &Fixture, now: SystemTime) -> (SessionId, SessionId) {
    let session = SessionId::random().unwrap();
    let mut record = Record::new(now, now + LIFETIME);
    record.insert("text", &Value::new("old").unwrap()).unwrap();
    fixture.store.create_file(SessionRef::Id(&session), record, false).unwrap();
    let successor = rotate(&fixture.store, &session, &Rotation::default().grace(MINUTE)).unwrap().unwrap();
    (session, successor)
}

fn contents(fixture: &Fixture) -> Vec<Content> {
    fixture.store.files().map(|file| file.unwrap().content).collect()
}

#[test]
fn a_mark_is_swept_when_its_grace_period_is_over_and_not_before() {
    for options in [unrested(), unrested().full(true)] {
        let (fixture, clock, begin) = clocked();
        let (session, successor) = moved_at(&fixture, begin);
        // The age of the file plays no part.
        let file = fs::File::options().write(true).open(fixture.path(&session)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(30 * 86_400)).unwrap();
        let sweep = |options: &SweepOptions| {
            let report = fixture.store.sweep(options).unwrap();
            let others = (
                report.removed,
                report.files.renewed,
                report.files.damaged,
                report.files.temporary,
                report.files.unknown,
            );
            assert_eq!((others, report.failed), ((0, 0, 0, 0, 0), 0), "{report:?}");
            report.files.moved
        };
        clock.set(begin + MINUTE - Duration::from_micros(1));
        assert_eq!((sweep(&options), fixture.path(&session).exists()), (0, true));
        clock.set(begin + MINUTE);
        assert_eq!((sweep(&options.clone().dry_run(true)), fixture.path(&session).exists()), (1, true));
        assert_eq!((sweep(&options), fixture.path(&session).exists()), (1, false));
        assert_eq!((sweep(&options), fixture.text(&successor).as_deref()), (0, Some("old")));
        let found = fixture.store.load(&session.to_token()).unwrap();
        assert!(matches!(found, Lookup::Absent(Absent::NotFound(_))), "{found:?}");
    }
}

/// The index has lost the entry, as after a failed append. The walk inserts it again.
#[test]
fn a_mark_that_the_index_lost_is_found_by_the_walk() {
    let (fixture, clock, begin) = clocked();
    let (session, _) = moved_at(&fixture, begin);
    for bucket in fs::read_dir(fixture.dir.path().join(DUE)).unwrap() {
        let path = bucket.unwrap().path();
        if !path.ends_with("sweep") {
            fs::remove_file(path).unwrap();
        }
    }
    assert_eq!(fixture.store.sweep(&unrested().full(true)).unwrap().files.moved, 0);
    clock.set(begin + MINUTE);
    // In this hour, no walk is due.
    assert_eq!(fixture.store.sweep(&unrested()).unwrap().files.moved, 1);
    assert!(!fixture.path(&session).exists());
}

/// The entry for the session's deadline is due before the grace period is over.
#[test]
fn a_mark_that_outlives_the_sessions_deadline_is_filed_again() {
    let (fixture, clock, begin) = clocked();
    let session = SessionId::random().unwrap();
    // The time is near the end of an hour, so that the grace period ends in the next hour.
    let begin = begin + 54 * MINUTE;
    clock.set(begin);
    let record = Record::new(begin, begin + MINUTE);
    fixture.store.create_file(SessionRef::Id(&session), record, false).unwrap();
    rotate(&fixture.store, &session, &Rotation::default().grace(GRACE_MAX)).unwrap().unwrap();
    for (minutes, moved) in [(1, 0), (6, 0), (9, 0), (10, 1)] {
        clock.set(begin + minutes * MINUTE);
        let report = fixture.store.sweep(&unrested()).unwrap();
        assert_eq!((report.files.moved, report.failed), (moved, 0), "{minutes}: {report:?}");
    }
    assert!(!fixture.path(&session).exists());
}

#[test]
fn a_sweep_completes_the_mark_of_a_killed_rotation_first() {
    let (fixture, clock, begin) = clocked();
    let warm = FileStoreOptions::new().watch(false).clock(clock.clone()).open(fixture.dir.path()).unwrap();
    let session = SessionId::random().unwrap();
    let mut record = Record::new(begin, begin + LIFETIME);
    record.insert("text", &Value::new("old").unwrap()).unwrap();
    fixture.store.create_file(SessionRef::Id(&session), record, true).unwrap();
    assert_eq!(served(&warm, &session).as_deref(), Some("old"));
    let die = || rotate(&fixture.store, &session, &Rotation::default().grace(Duration::from_secs(30)));
    assert!(dies_at("invalidate", die));
    assert_eq!(served(&warm, &session).as_deref(), Some("old"), "no invalidation");
    clock.set(begin + Duration::from_secs(30));
    // If the removal fails, the name stays.
    let sweep = || fixture.store.sweep(&unrested()).unwrap();
    for failing in ["sync file", "invalidate"] {
        let (report, _) = during(fail_nth(failing, 0), sweep);
        assert_eq!((report.files.moved, report.failed), (0, 1), "{failing}: {report:?}");
        assert!(fixture.path(&session).exists(), "{failing}");
    }
    let (report, calls) = during(|_, _| None, sweep);
    assert_eq!(report.files.moved, 1, "{report:?}");
    let order: Vec<_> =
        calls.into_iter().filter(|call| ["sync file", "invalidate", "unlink"].contains(call)).collect();
    assert_eq!(order, ["sync file", "invalidate", "unlink"]);
    assert_eq!(served(&warm, &session), None);
}

/// If the clock was set back, a mark is not kept for years.
#[test]
fn a_mark_from_the_future_is_over() {
    let (fixture, clock, begin) = clocked();
    let (session, successor) = moved_at(&fixture, begin);
    // The clock is set back a little, as time servers do.
    clock.set(begin - MINUTE);
    assert!(fixture.is_moved(&session));
    assert_eq!(fixture.store.sweep(&unrested().full(true)).unwrap().files.moved, 0);
    clock.set(begin - Duration::from_secs(365 * 86_400));
    let found = fixture.store.load(&session.to_token()).unwrap();
    let Lookup::Absent(Absent::Moved(moved)) = found else { panic!("it is {found:?}") };
    assert!(!moved.is_within_grace(clock.now()) && moved.is_within_grace(begin));
    assert_eq!(end(&fixture.store, &session), None);
    let login = Rotation::default().grace(GRACE).login("ada");
    assert!(rotate(&fixture.store, &session, &login).unwrap().is_none());
    assert_eq!(fixture.store.sweep(&unrested().full(true)).unwrap().files.moved, 1);
    assert!(!fixture.path(&session).exists());
    assert!(fixture.path(&successor).exists());
}

#[test]
fn a_complete_mark_is_swept_without_a_sync() {
    let (fixture, clock, begin) = clocked();
    moved_at(&fixture, begin);
    clock.set(begin + MINUTE);
    let (report, calls) = during(|_, _| None, || fixture.store.sweep(&unrested()).unwrap());
    assert_eq!(report.files.moved, 1);
    assert!(calls.iter().all(|call| !call.starts_with("sync")), "{calls:?}");
}

#[test]
fn an_import_replaces_a_mark_only_after_its_grace_period() {
    let (fixture, clock, begin) = clocked();
    let (session, successor) = moved_at(&fixture, begin);
    let id = session.public_id();
    let theirs = Record::new(begin, begin + LIFETIME);
    let import = || fixture.store.import(&id, &theirs, Durability::PowerSafe).unwrap();
    clock.set(begin + MINUTE - Duration::from_micros(1));
    assert!(!import());
    assert!(fixture.is_moved(&session));
    clock.set(begin + MINUTE);
    assert!(import());
    assert!(matches!(fixture.store.load_by_id(&id).unwrap(), Lookup::Live(live) if live.record == theirs));
    assert_eq!(fixture.text(&successor).as_deref(), Some("old"));
}

#[test]
fn administration_tells_a_mark_from_damage_and_sessions() {
    let (fixture, _, begin) = clocked();
    let (session, successor) = moved_at(&fixture, begin);
    let id = session.public_id();
    let is_it =
        |moved: &crate::store::Moved| (moved.id, moved.by_login, moved.until) == (id, false, begin + MINUTE);
    let found = fixture.store.load_by_id(&id).unwrap();
    assert!(matches!(&found, Lookup::Absent(Absent::Moved(moved)) if is_it(moved)), "{found:?}");
    assert_eq!(fixture.store.quarantine(&id).unwrap(), None);
    let marks = contents(&fixture)
        .into_iter()
        .filter(|content| matches!(content, Content::Moved(moved) if is_it(moved)));
    assert_eq!((marks.count(), contents(&fixture).len()), (1, 2));
    let ids: Vec<PublicId> = contents(&fixture)
        .into_iter()
        .filter_map(|content| if let Content::Live(live) = content { Some(live.id) } else { None })
        .collect();
    assert_eq!(ids, [successor.public_id()]);
    let ended = fixture.store.delete_by_id(&id).unwrap();
    assert_eq!(ended, Some(successor.public_id()), "it goes on to the successor");
    assert_eq!(fixture.text(&successor), None);
}
