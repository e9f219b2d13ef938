//! Sweeps in which one call fails, or in which the process dies in one call.
use super::*;
use crate::admin::Admin;

/// The sessions that must not be lost, with their deadlines and texts.
type Alive = Vec<(SessionId, SystemTime, &'static str)>;

/// Files of each kind, which are swept at half past the hour [`SWEPT`].
struct Scene {
    /// Live sessions that the index lists.
    indexed: Alive,
    /// Live sessions in the walked shard that the index lacks.
    unindexed: Alive,
    /// Expired sessions that the index lists.
    expired: Vec<SessionId>,
    /// An expired session in the walked shard that the index lacks.
    expired_unindexed: SessionId,
    /// Old leftovers of interrupted operations.
    leftovers: Vec<PathBuf>,
    /// Damaged files and unknown files.
    kept: Vec<PathBuf>,
}

const UNTIL: (u64, u64) = (MADE + 9, 30);

impl Scene {
    fn new(stage: &Stage) -> Self {
        use Where::{Elsewhere, Walked};
        stage.reset();
        let until = at(UNTIL.0, UNTIL.1);
        let (over, this_hour) = (at(MADE, 50), at(SWEPT, 20));
        let expired = [(Elsewhere, this_hour), (Elsewhere, over), (Walked, over)]
            .map(|(place, deadline)| stage.session(place, deadline, "expired"));
        let gone = stage.session(Elsewhere, over, "gone");
        stage.store().delete_by_id(&gone.public_id()).unwrap();
        let indexed = vec![
            (stage.renewed(Elsewhere, over, until, "a"), until, "a"),
            (stage.renewed(Walked, over, until, "b"), until, "b"),
            (stage.renewed(Elsewhere, this_hour, until, "c"), until, "c"),
            (stage.session(Elsewhere, until, "d"), until, "d"),
        ];
        let expired_unindexed = stage.session(Walked, over, "expired");
        stage.erase_entries(&expired_unindexed);
        let unindexed = vec![(stage.session(Walked, until, "e"), until, "e")];
        stage.erase_entries(&unindexed[0].0);

        let root = stage.fixture.dir.path();
        let shard = root.join(shard_name(WALKED));
        let place = || stage.fixture.path(&stage.id(Walked));
        let leftovers = vec![shard.join(".new-0a"), root.join(".new-0b"), place()];
        for path in &leftovers {
            fs::write(path, "").unwrap();
            age(path);
        }
        let kept = vec![place(), shard.join("readme"), root.join("readme")];
        for path in &kept {
            fs::write(path, [0xa5; 2 * SLOT_MIN]).unwrap();
        }
        stage.clock.set(at(SWEPT, 30));
        Self { indexed, unindexed, expired: expired.into(), expired_unindexed, leftovers, kept }
    }

    /// Asserts that a sweep with a fault has lost nothing, and that one more sweep completes the work.
    #[track_caller]
    fn check(&self, stage: &Stage, context: &str) {
        let alive = || self.indexed.iter().chain(&self.unindexed);
        let check_alive = |context: &str| {
            for (session, _, text) in alive() {
                assert_eq!(stage.text(session).as_deref(), Some(*text), "{context}: lost");
            }
            self.kept.iter().for_each(|path| assert!(path.exists(), "{context}: {} is lost", path.display()));
        };
        check_alive(context);
        for session in self.expired.iter().chain([&self.expired_unindexed]) {
            assert_eq!(stage.text(session), None, "{context}: an expired session is readable");
        }
        stage.check_nothing_is_held(context);

        // Files that could not be read are tried again some minutes later.
        stage.clock.set(at(SWEPT, 41));
        stage.sweep_without_failures(&unrested(), context);
        check_alive(context);
        for session in &self.expired {
            assert!(!stage.exists(session), "{context}: an expired session is left");
        }
        for (session, deadline, text) in &self.indexed {
            assert!(stage.is_indexed_by(session, *deadline), "{context}: the index has forgotten `{text}`");
        }

        // Files that the index lacks wait for the next walk.
        let report = stage.sweep_without_failures(&unrested().full(true), context);
        assert_eq!((report.files.damaged, report.files.unknown), (1, 2), "{context}");
        check_alive(context);
        assert!(!stage.exists(&self.expired_unindexed), "{context}");
        for path in &self.leftovers {
            assert!(!path.exists(), "{context}: {} is left", path.display());
        }
        for (session, deadline, text) in &self.unindexed {
            assert!(stage.is_indexed_by(session, *deadline), "{context}: the index has not found `{text}`");
        }

        // The shards of these files are not walked before the files expire, so they are found by the index.
        stage.clock.set(at(UNTIL.0, UNTIL.1 + 10));
        let report = stage.sweep_without_failures(&unrested(), context);
        assert_eq!(report.removed, alive().count() as u64, "{context}");
        for (session, _, text) in alive() {
            assert!(!stage.exists(session), "{context}: `{text}` is left");
        }
        self.kept.iter().for_each(|path| fs::remove_file(path).unwrap());
    }
}

/// The calls of a pass over a [`Scene`] before the walked shard. A call marked with "?" may fail without an error: no
/// work is lost, or a later pass does it.
const BEFORE_THE_SHARD: [(&str, &str); 8] = [
    ("the index and its lock", "open directory, open file in directory, lock, stat file, touch, stat file"),
    ("without the hour of the last walk, everything is walked", "read?"),
    ("the user index is complete", "open directory, stat in directory, open file in directory, read"),
    (
        "files beside the shards wait for the next hour",
        "list root?, open directory?, list directory?, open directory?, list directory?, open directory?, list directory?",
    ),
    ("a file without a date is not old", "stat in root?, stat in root?"),
    ("an old one", "open directory, open file in directory, lock, stat in directory, stat file, unlink"),
    (
        "sizes: how far it has come, and memory",
        "list directory, stat in directory?, stat in directory?, stat in directory?",
    ),
    ("three buckets", "open file in directory, read, read, read"),
];
/// The write of the hour, between the walked shard and the due entries.
const AFTER_THE_SHARD: (&str, &str) =
    ("sizes", "write, list directory, stat in directory?, stat in directory?");

fn parse(calls: &str) -> Vec<(String, bool)> {
    calls.split(", ").map(|call| (call.trim_end_matches('?').to_owned(), call.ends_with('?'))).collect()
}

/// Whether each call of a pass without faults may fail without an error.
#[track_caller]
fn silent_calls(calls: &[&'static str]) -> Vec<bool> {
    let mut before: Vec<_> = BEFORE_THE_SHARD.iter().flat_map(|(_, calls)| parse(calls)).collect();
    let bucket = before.split_off(before.len() - 4);
    (0..3).for_each(|_| before.extend_from_slice(&bucket));
    let after = parse(AFTER_THE_SHARD.1);
    let names = |calls: &[(String, bool)]| calls.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let names_before = names(&before);
    assert_eq!(calls[..before.len()], names_before);
    let names_after = names(&after);
    let is_after = |n: &usize| calls[*n..].iter().zip(&names_after).all(|(a, b)| a == b);
    let after_at = (before.len()..calls.len() - after.len()).find(is_after).expect("the hour is recorded");
    let other = |n: usize| match calls[n] {
        // The write of the flag for waiting writers, or the erasure of an entry. If it fails, the session is read once
        // more.
        "write" => true,
        // The sweep has changed nothing, so a failed invalidation is harmless.
        "invalidate" => calls[n - 1] == "read",
        _ => false,
    };
    (0..calls.len())
        .map(|n| match n {
            n if n < before.len() => before[n].1,
            n if (after_at..after_at + after.len()).contains(&n) => after[n - after_at].1,
            n => other(n),
        })
        .collect()
}

/// Runs a sweep with a fault. Returns whether a call has failed.
fn meet_fault(stage: &Stage, fault: Fault, silent: &[bool]) -> bool {
    let scene = Scene::new(stage);
    let (result, calls) = during(fault.plan(), || stage.sweep());
    let met = calls.len() > fault.call;
    let context = format!("{fault:?}, after calls {calls:?}");
    let root = stage.fixture.dir.path();
    let is_reported = match &result {
        Err(error) => {
            check_error(error, root, fault.errno, &context);
            true
        }
        Ok(report) => {
            assert_eq!(report.outcome, SweepOutcome::Completed, "{context}");
            assert_eq!(report.failed.min(16), report.errors.len() as u64, "{context}");
            report.errors.iter().for_each(|error| check_error(error, root, fault.errno, &context));
            report.failed > 0
        }
    };
    assert!(met || !is_reported, "{context}: {result:?}");
    if met && !silent[fault.call] {
        assert!(is_reported, "{context}: no error was reported");
    }
    scene.check(stage, &context);
    met
}

fn fail_every_call(then: Then) {
    let stage = Stage::new();
    let scene = Scene::new(&stage);
    let (report, calls) =
        during(|_, _| None, || stage.sweep_without_failures(&unrested(), "without a fault"));
    let counts = [
        report.files.examined,
        report.removed,
        report.files.renewed,
        report.files.damaged,
        report.files.temporary,
    ];
    assert_eq!((counts, report.files.unknown), ([10, 4, 3, 1, 3], 2));
    let silent = silent_calls(&calls);
    scene.check(&stage, "without a fault");
    for errno in REFUSALS {
        for call in 0.. {
            if !meet_fault(&stage, Fault { call, errno, then }, &silent) {
                assert_eq!(call, calls.len());
                break;
            }
        }
    }
}

#[test]
fn a_failing_call_is_reported_and_the_next_sweep_finishes() {
    fail_every_call(Then::Works);
}

#[test]
fn a_failing_disk_is_reported_and_the_next_sweep_finishes() {
    fail_every_call(Then::Fails);
}

#[test]
fn a_killed_sweep_loses_nothing_and_the_next_one_finishes() {
    let stage = Stage::new();
    for call in 0.. {
        let scene = Scene::new(&stage);
        let survived = dying_in_call(call, || stage.sweep().unwrap()).is_some();
        // The hour is written at the end of the walk, so the next pass repeats the whole walk.
        let marker = fs::read_to_string(stage.fixture.dir.path().join(DUE).join(SWEEP)).unwrap();
        if marker.trim() == MADE.to_string() {
            stage.sweep_without_failures(&unrested(), &format!("died in call {call}"));
        }
        let walked =
            scene.leftovers.iter().all(|path| !path.exists()) && !stage.exists(&scene.expired_unindexed);
        assert!(
            walked && stage.first_bucket(&scene.unindexed[0].0).is_some(),
            "died in call {call}: the walk is not done"
        );
        scene.check(&stage, &format!("died in call {call}"));
        if survived {
            assert!(call > 60, "{call}");
            return;
        }
    }
}

#[test]
fn a_bucket_that_cannot_be_read_stays() {
    let stage = Stage::new();
    let session = stage.session(Where::Elsewhere, at(MADE, 50), "x");
    stage.clock.set(at(SWEPT, 0));
    let mut reads = 0;
    // Every read fails except that of the hour of the last walk.
    let fail = move |_, call: &str| {
        reads += usize::from(call == "read");
        (call == "read" && reads > 1).then_some(libc::EIO)
    };
    let (report, _) = during(fail, || stage.sweep());
    assert!(report.unwrap().failed > 0);
    assert!(stage.first_bucket(&session).is_some(), "its entry is missing");
    assert_eq!(stage.sweep_without_failures(&unrested(), "readable").removed, 1);
}

#[test]
fn a_replaced_or_just_written_temporary_file_stays() {
    for replaced in [false, true] {
        let stage = Stage::new();
        stage.clock.set(at(SWEPT, 0));
        let path = stage.fixture.dir.path().join(shard_name(WALKED)).join(".new-0a");
        fs::write(&path, "").unwrap();
        age(&path);
        let (changed, mut listed, mut opened) = (path.clone(), false, false);
        let interfere = move |_, call: &str| {
            if opened && call == "stat in directory" {
                opened = false;
                if replaced {
                    fs::write(changed.with_extension("other"), "").unwrap();
                    age(&changed.with_extension("other"));
                    fs::rename(changed.with_extension("other"), &changed).unwrap();
                } else {
                    fs::write(&changed, "at work").unwrap();
                }
            }
            // The sweep examines the file, opens and locks it, and examines it again.
            opened |= listed && call == "open file in directory";
            listed |= call == "stat in directory";
            None
        };
        let (report, calls) = during(interfere, || stage.sweep());
        assert_eq!(report.unwrap().failed, 0);
        assert!(path.exists(), "replaced: {replaced}, {calls:?}");
    }
}

#[test]
fn the_walk_leaves_locked_and_unreadable_files_to_the_next_pass() {
    for locked in [false, true] {
        let stage = Stage::new();
        let session = stage.session(Where::Walked, at(MADE, 50), "x");
        stage.erase_entries(&session);
        stage.clock.set(at(SWEPT, 0));
        let file = fs::File::options().read(true).write(true).open(stage.fixture.path(&session)).unwrap();
        let held = locked.then(|| LockedFile::acquire(file, Instant::now()).unwrap().unwrap());
        let fail = move |_, call: &str| (!locked && call == "open session").then_some(libc::EIO);
        let (report, _) = during(fail, || stage.sweep());
        assert_eq!(report.unwrap().removed, 0);
        drop(held);
        stage.clock.advance(Duration::from_micros(1));
        assert_eq!(stage.sweep_without_failures(&unrested(), "the next pass").removed, 1, "locked: {locked}");
    }
}
