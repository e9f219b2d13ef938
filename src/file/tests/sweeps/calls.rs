//! What a sweep costs, and in which order it does things.
use super::*;

/// Every pass: the index, its lock, and the hour of the last walk.
const BEGIN: [&str; 7] =
    ["open directory", "open file in directory", "lock", "stat file", "touch", "stat file", "read"];
/// What is due: which buckets there are, and, for each, how many entries, what they are, and whether that was all.
const LIST: &str = "list directory";
const SIZE: &str = "stat in directory";
const ENTRIES: [&str; 3] = ["open file in directory", "read", "read"];
const SHARD: &str = "open shard";
/// A session that has expired, under its lock: marked, for those that wait for the lock; told; removed, if the name is its still.
const REMOVED: [&str; 8] =
    ["open session in shard", "lock", "read", "write", "invalidate", "stat file", "stat session", "unlink"];
const GONE: [&str; 1] = ["open session in shard"];
/// Whoever gave up its lock says so.
const ALIVE: [&str; 4] = ["open session in shard", "lock", "read", "invalidate"];
/// In a bucket that is new to the store.
const FILED: [&str; 4] = ["open directory", "open file in directory", "append", "stat file"];
const STRUCK: &str = "write";
const END_OF_BUCKET: &str = "read";

impl House {
    #[track_caller]
    fn check_calls(&self, want: &[&[&str]]) -> SweepReport {
        let (report, calls) = during(|_, _| None, || self.sweep_well(&unrested(), "alone"));
        assert_eq!(calls, want.concat());
        report
    }
}

#[test]
fn a_pass_with_nothing_due_costs_a_look_at_the_index() {
    let house = House::new();
    house.check_calls(&[&BEGIN, &[LIST]]);
    // Also if any number of sessions is alive, in hours that have not come.
    for _ in 0..10 {
        house.session(Where::Elsewhere, at(SWEPT, 1), "x");
    }
    house.check_calls(&[&BEGIN, &[LIST]]);
}

#[test]
fn what_is_due_this_hour_costs_a_look_each_and_what_is_not_yet_due_none() {
    let house = House::new();
    for _ in 0..10 {
        house.session(Where::Elsewhere, at(MADE, 50), "not yet");
    }
    let bucket = [&BEGIN[..], &[LIST, SIZE], &ENTRIES].concat();
    house.check_calls(&[&bucket, &[END_OF_BUCKET]]);

    house.session(Where::Elsewhere, at(MADE, 35), "expired");
    house.clock.set(at(MADE, 36));
    let report = house.check_calls(&[&bucket, &[SHARD], &REMOVED, &[STRUCK, END_OF_BUCKET]]);
    assert_eq!((report.examined, report.removed), (1, 1));
    // Once only.
    house.check_calls(&[&bucket, &[END_OF_BUCKET]]);

    let gone = house.session(Where::Elsewhere, at(MADE, 37), "gone");
    house.store().delete_by_id(&gone.public_id()).unwrap();
    house.clock.set(at(MADE, 38));
    let report = house.check_calls(&[&bucket, &[SHARD], &GONE, &[STRUCK, END_OF_BUCKET]]);
    assert_eq!((report.examined, report.removed), (0, 0));
    house.check_calls(&[&bucket, &[END_OF_BUCKET]]);

    let renewed = house.renewed(Where::Elsewhere, at(MADE, 39), at(MADE + 9, 0), "renewed");
    house.clock.set(at(MADE, 40));
    let report = house.check_calls(&[&bucket, &[SHARD], &ALIVE, &FILED, &[STRUCK, END_OF_BUCKET]]);
    assert_eq!((report.examined, report.renewed), (1, 1));
    // Not looked at until its new hour.
    house.check_calls(&[&BEGIN, &[LIST, SIZE], &ENTRIES, &[END_OF_BUCKET]]);
    assert_eq!(house.text(&renewed).as_deref(), Some("renewed"));
}

/// Due, and in use: the entry stays for the next pass, and the wait is none.
#[test]
fn a_session_in_use_is_left_without_waiting() {
    let house = House::new();
    let session = house.session(Where::Elsewhere, at(MADE, 35), "x");
    house.clock.set(at(MADE, 36));
    let file = fs::File::options().read(true).write(true).open(house.fixture.path(&session)).unwrap();
    let held = LockedFile::acquire(file, Instant::now()).unwrap().unwrap();
    let bucket = [&BEGIN[..], &[LIST, SIZE], &ENTRIES].concat();
    let left = house.check_calls(&[&bucket, &[SHARD, "open session in shard", "lock", END_OF_BUCKET]]);
    assert!(left.elapsed < Duration::from_secs(4), "it waited for {:?}", left.elapsed);
    drop(held);
    house.check_calls(&[&bucket, &[SHARD], &REMOVED, &[STRUCK, END_OF_BUCKET]]);
}

/// The same when its hour is over and the bucket goes, also if its shard is walked: no pass looks again and again, and the next one
/// does.
#[test]
fn a_session_in_use_at_the_end_of_its_hour_is_looked_at_by_the_next_pass() {
    for place in [Where::Elsewhere, Where::Walked] {
        let house = House::new();
        let session = house.session(place, at(MADE, 50), "x");
        house.clock.set(at(SWEPT, 0));
        let file = fs::File::options().read(true).write(true).open(house.fixture.path(&session)).unwrap();
        let held = LockedFile::acquire(file, Instant::now()).unwrap().unwrap();
        for pass in 0..3 {
            let (report, calls) = during(|_, _| None, || house.sweep_well(&unrested(), "in use"));
            assert_eq!(report.removed, 0, "{place:?}");
            let tried = calls.iter().filter(|call| **call == "open session in shard").count();
            // In the walk, and where it is filed; from then on only there.
            let looks = if (place, pass) == (Where::Walked, 0) { 2 } else { 1 };
            assert_eq!(tried, looks, "{place:?}: {calls:?}");
            house.clock.advance(Duration::from_micros(1));
        }
        drop(held);
        assert_eq!(house.sweep_well(&unrested(), "at rest").removed, 1, "{place:?}");
    }
}

/// The hour's walk of an empty shard: what lies beside the shards, what is filed, the shard, the note that it was walked.
const WALK_OF_ONE_BUCKET: [&str; 12] = [
    "list root",
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
fn a_bucket_whose_hour_is_over_loses_its_name_before_its_end_is_read() {
    let house = House::new();
    house.session(Where::Elsewhere, at(MADE, 50), "x");
    house.clock.set(at(SWEPT, 0));
    let ended = [
        &BEGIN[..],
        &WALK_OF_ONE_BUCKET[..9],
        &["read"],
        &WALK_OF_ONE_BUCKET[9..],
        &["write", LIST, SIZE],
        &ENTRIES,
        &[SHARD],
        &REMOVED,
        // Not struck out: the bucket goes as a whole.
        &[END_OF_BUCKET, "unlink", END_OF_BUCKET],
    ];
    house.check_calls(&ended);
    assert!(house.buckets().is_empty());
    house.check_calls(&[&BEGIN, &[LIST]]);
}

/// What expired is no loss after a power cut, and comes back as expired.
#[test]
fn a_sweep_syncs_nothing_and_opens_no_session_that_is_neither_due_nor_in_the_walked_shard() {
    let house = House::new();
    for place in [Where::Walked, Where::Elsewhere] {
        for filed in [at(MADE, 40), at(SWEPT, 10), at(SWEPT, 50), at(MADE + 9, 0)] {
            house.session(place, filed, "x");
            house.renewed(place, filed, at(MADE + 9, 30), "renewed");
        }
    }
    house.clock.set(at(SWEPT, 30));
    let (report, calls) = during(|_, _| None, || house.sweep_well(&unrested(), "alone"));
    assert!(calls.iter().all(|call| !call.starts_with("sync")), "{calls:?}");
    // All in the walked shard, two of them once more, to be removed. What is filed for 40 and 10 past, there and elsewhere.
    let opened = |by| calls.iter().filter(|call| **call == by).count();
    assert_eq!((opened("open session"), opened("open session in shard")), (8, 2 + 4 + 4), "{report:?}");
    assert_eq!((report.examined, report.removed), (8 + 4, 4), "{report:?}");
}

/// A name that is absent says that nothing is left to be told.
#[test]
fn a_removal_is_announced_before_the_name_is_gone() {
    for place in [Where::Elsewhere, Where::Walked] {
        let house = House::new();
        let session = house.session(place, at(MADE, 50), "x");
        house.clock.set(at(SWEPT, 0));
        let path = house.fixture.path(&session);
        let open = || fs::File::options().read(true).write(true).open(&path).unwrap();
        let (at_removal, at_announcement, afterwards) = (open(), open(), open());
        let is_locked = |file: fs::File| LockedFile::acquire(file, Instant::now()).unwrap().is_err();
        let report = Arc::new(Mutex::new(Vec::new()));
        let (seen, watched) = (Arc::clone(&report), path.clone());
        let (mut at_removal, mut at_announcement) = (Some(at_removal), Some(at_announcement));
        let watch = move |_, call| {
            let file = match call {
                "unlink" => at_removal.take(),
                "invalidate" => at_announcement.take(),
                _ => None,
            };
            if let Some(file) = file {
                seen.lock().unwrap().push((call, watched.exists(), is_locked(file)));
            }
            None
        };
        let (swept, _) = during(watch, || house.sweep());
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
