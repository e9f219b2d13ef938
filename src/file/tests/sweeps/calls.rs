//! The system calls of a sweep, and their order.
use super::*;
use crate::admin::Admin;

/// The first calls of every pass: it opens the index, locks it, and reads the hour of the last walk; then the marker of
/// a complete user index.
const BEGIN: [&str; 11] = [
    "open directory",
    "open file in directory",
    "lock",
    "stat file",
    "touch",
    "stat file",
    "read",
    "open directory",
    "stat in directory",
    "open file in directory",
    "read",
];
/// The calls for due entries: the list of buckets, and, for each bucket, its size, its entries and its end.
const LIST: &str = "list directory";
const SIZE: &str = "stat in directory";
const ENTRIES: [&str; 3] = ["open file in directory", "read", "read"];
const SHARD: &str = "open shard";
/// The calls for an expired session. Under its lock, its file gets the flag "retiring" for waiting writers, the session
/// is invalidated, and the name is unlinked if it still leads to the file.
const REMOVED: [&str; 8] =
    ["open session in shard", "lock", "read", "write", "invalidate", "stat file", "stat session", "unlink"];
const GONE: [&str; 1] = ["open session in shard"];
/// The calls for a live session. Every lock holder invalidates before it unlocks.
const ALIVE: [&str; 4] = ["open session in shard", "lock", "read", "invalidate"];
/// The calls of an insertion in a bucket that is not open yet.
const INSERTED: [&str; 4] = ["open directory", "open file in directory", "append", "stat file"];
const STRUCK: &str = "write";
const END_OF_BUCKET: &str = "read";

impl Stage {
    #[track_caller]
    fn check_calls(&self, want: &[&[&str]]) -> SweepReport {
        let (report, calls) = during(|_, _| None, || self.sweep_without_failures(&unrested(), "alone"));
        assert_eq!(calls, want.concat());
        report
    }
}

#[test]
fn a_pass_with_nothing_due_costs_a_look_at_the_index() {
    let stage = Stage::new();
    stage.check_calls(&[&BEGIN, &[LIST]]);
    // The calls do not depend on the number of live sessions in later hours.
    for _ in 0..10 {
        stage.session(Where::Elsewhere, at(SWEPT, 1), "x");
    }
    stage.check_calls(&[&BEGIN, &[LIST]]);
}

#[test]
fn a_due_session_costs_one_read_and_a_later_one_none() {
    let stage = Stage::new();
    for _ in 0..10 {
        stage.session(Where::Elsewhere, at(MADE, 50), "not yet");
    }
    let bucket = [&BEGIN[..], &[LIST, SIZE], &ENTRIES].concat();
    stage.check_calls(&[&bucket, &[END_OF_BUCKET]]);

    stage.session(Where::Elsewhere, at(MADE, 35), "expired");
    stage.clock.set(at(MADE, 36));
    let report = stage.check_calls(&[&bucket, &[SHARD], &REMOVED, &[STRUCK, END_OF_BUCKET]]);
    assert_eq!((report.files.examined, report.removed), (1, 1));
    // The session is read only once.
    stage.check_calls(&[&bucket, &[END_OF_BUCKET]]);

    let gone = stage.session(Where::Elsewhere, at(MADE, 37), "gone");
    stage.store().delete_by_id(&gone.public_id()).unwrap();
    stage.clock.set(at(MADE, 38));
    let report = stage.check_calls(&[&bucket, &[SHARD], &GONE, &[STRUCK, END_OF_BUCKET]]);
    assert_eq!((report.files.examined, report.removed), (0, 0));
    stage.check_calls(&[&bucket, &[END_OF_BUCKET]]);

    let renewed = stage.renewed(Where::Elsewhere, at(MADE, 39), at(MADE + 9, 0), "renewed");
    stage.clock.set(at(MADE, 40));
    let report = stage.check_calls(&[&bucket, &[SHARD], &ALIVE, &INSERTED, &[STRUCK, END_OF_BUCKET]]);
    assert_eq!((report.files.examined, report.files.renewed), (1, 1));
    // The session is not read until its new hour.
    stage.check_calls(&[&BEGIN, &[LIST, SIZE], &ENTRIES, &[END_OF_BUCKET]]);
    assert_eq!(stage.text(&renewed).as_deref(), Some("renewed"));
}

/// The session is due and locked. The sweep does not wait for the lock, and the entry stays for the next pass.
#[test]
fn a_session_in_use_is_left_without_waiting() {
    let stage = Stage::new();
    let session = stage.session(Where::Elsewhere, at(MADE, 35), "x");
    stage.clock.set(at(MADE, 36));
    let file = fs::File::options().read(true).write(true).open(stage.fixture.path(&session)).unwrap();
    let held = LockedFile::acquire(file, Instant::now()).unwrap().unwrap();
    let bucket = [&BEGIN[..], &[LIST, SIZE], &ENTRIES].concat();
    let left = stage.check_calls(&[&bucket, &[SHARD, "open session in shard", "lock", END_OF_BUCKET]]);
    assert!(left.elapsed < Duration::from_secs(4), "it waited for {:?}", left.elapsed);
    drop(held);
    stage.check_calls(&[&bucket, &[SHARD], &REMOVED, &[STRUCK, END_OF_BUCKET]]);
}

/// The same when the session's hour is over and the bucket is removed, and also if the shard is walked. Each pass tries
/// the session once.
#[test]
fn a_locked_session_is_tried_again_by_the_next_pass() {
    for place in [Where::Elsewhere, Where::Walked] {
        let stage = Stage::new();
        let session = stage.session(place, at(MADE, 50), "x");
        stage.clock.set(at(SWEPT, 0));
        let file = fs::File::options().read(true).write(true).open(stage.fixture.path(&session)).unwrap();
        let held = LockedFile::acquire(file, Instant::now()).unwrap().unwrap();
        for pass in 0..3 {
            let (report, calls) = during(|_, _| None, || stage.sweep_without_failures(&unrested(), "in use"));
            assert_eq!(report.removed, 0, "{place:?}");
            let tried = calls.iter().filter(|call| **call == "open session in shard").count();
            // The first pass tries the session in its walk and by its entry; later passes try it by the entry only.
            let looks = if (place, pass) == (Where::Walked, 0) { 2 } else { 1 };
            assert_eq!(tried, looks, "{place:?}: {calls:?}");
            stage.clock.advance(Duration::from_micros(1));
        }
        drop(held);
        assert_eq!(stage.sweep_without_failures(&unrested(), "at rest").removed, 1, "{place:?}");
    }
}

/// The calls of the hour's walk of an empty shard: files beside the shards, entries of the index, the shard, the record
/// of the walk.
const WALK_OF_ONE_BUCKET: [&str; 14] = [
    "list root",
    "open directory",
    "list directory",
    "open directory",
    "list directory",
    "open directory",
    "list directory",
    LIST,
    SIZE,
    "open file in directory",
    "read",
    END_OF_BUCKET,
    "open directory",
    "list directory",
];

#[test]
fn a_bucket_is_unlinked_before_its_tail_is_read() {
    let stage = Stage::new();
    stage.session(Where::Elsewhere, at(MADE, 50), "x");
    stage.clock.set(at(SWEPT, 0));
    let ended = [
        &BEGIN[..],
        &WALK_OF_ONE_BUCKET[..11],
        &["read"],
        &WALK_OF_ONE_BUCKET[11..],
        &["write", LIST, SIZE],
        &ENTRIES,
        &[SHARD],
        &REMOVED,
        // The entry is not erased, because the whole bucket is removed.
        &[END_OF_BUCKET, "unlink", END_OF_BUCKET],
    ];
    stage.check_calls(&ended);
    assert!(stage.buckets().is_empty());
    stage.check_calls(&[&BEGIN, &[LIST]]);
}

/// If a power cut reverts a removal, the session that comes back has expired.
#[test]
fn a_sweep_syncs_nothing_and_opens_due_or_walked_sessions_only() {
    let stage = Stage::new();
    for place in [Where::Walked, Where::Elsewhere] {
        for deadline in [at(MADE, 40), at(SWEPT, 10), at(SWEPT, 50), at(MADE + 9, 0)] {
            stage.session(place, deadline, "x");
            stage.renewed(place, deadline, at(MADE + 9, 30), "renewed");
        }
    }
    stage.clock.set(at(SWEPT, 30));
    let (report, calls) = during(|_, _| None, || stage.sweep_without_failures(&unrested(), "alone"));
    assert!(calls.iter().all(|call| !call.starts_with("sync")), "{calls:?}");
    // All sessions in the walked shard are opened, and two of them once more for their removal. Sessions due at 10 and
    // 40 minutes past the hour are opened in both shards.
    let opened = |by| calls.iter().filter(|call| **call == by).count();
    assert_eq!((opened("open session"), opened("open session in shard")), (8, 2 + 4 + 4), "{report:?}");
    assert_eq!((report.files.examined, report.removed), (8 + 4, 4), "{report:?}");
}

/// An absent name must mean that the invalidation was made.
#[test]
fn a_removal_invalidates_before_the_name_is_gone() {
    for place in [Where::Elsewhere, Where::Walked] {
        let stage = Stage::new();
        let session = stage.session(place, at(MADE, 50), "x");
        stage.clock.set(at(SWEPT, 0));
        let path = stage.fixture.path(&session);
        let open = || fs::File::options().read(true).write(true).open(&path).unwrap();
        let (at_removal, at_invalidation, afterwards) = (open(), open(), open());
        let is_locked = |file: fs::File| LockedFile::acquire(file, Instant::now()).unwrap().is_err();
        let report = Arc::new(Mutex::new(Vec::new()));
        let (seen, watched) = (Arc::clone(&report), path.clone());
        let (mut at_removal, mut at_invalidation) = (Some(at_removal), Some(at_invalidation));
        let watch = move |_, call| {
            let file = match call {
                "unlink" => at_removal.take(),
                "invalidate" => at_invalidation.take(),
                _ => None,
            };
            if let Some(file) = file {
                seen.lock().unwrap().push((call, watched.exists(), is_locked(file)));
            }
            None
        };
        let (swept, _) = during(watch, || stage.sweep());
        assert_eq!(swept.unwrap().removed, 1);
        assert_eq!(
            *report.lock().unwrap(),
            [("invalidate", true, true), ("unlink", true, true)],
            "{place:?}"
        );
        assert!(!path.exists(), "{place:?}: it was not removed");
        assert!(!is_locked(afterwards), "{place:?}: the lock was not given back");
    }
}
