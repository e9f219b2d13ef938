//! A sweep each of whose calls fails, or is the last one of a dying process.
use super::*;

/// A text for each session that must not be lost.
type Alive = Vec<(SessionId, SystemTime, &'static str)>;

/// One of each kind, to be swept at half past [`SWEPT`].
struct Scene {
    /// Alive, and in the index.
    filed: Alive,
    /// Alive, and lost by the index; in the shard that is walked.
    index_failures: Alive,
    /// Expired, and in the index.
    expired: Vec<SessionId>,
    /// Expired, and lost by the index; in the shard that is walked.
    expired_unfiled: SessionId,
    /// Old, and nobody's.
    leftovers: Vec<PathBuf>,
    /// Damaged, and unknown.
    kept: Vec<PathBuf>,
}

const UNTIL: (u64, u64) = (MADE + 9, 30);

impl Scene {
    fn new(house: &House) -> Self {
        use Where::{Elsewhere, Walked};
        house.begin_again();
        let until = at(UNTIL.0, UNTIL.1);
        let (over, this_hour) = (at(MADE, 50), at(SWEPT, 20));
        let expired = [(Elsewhere, this_hour), (Elsewhere, over), (Walked, over)]
            .map(|(place, deadline)| house.session(place, deadline, "expired"));
        let gone = house.session(Elsewhere, over, "gone");
        house.store().delete_by_id(&gone.public_id()).unwrap();
        let filed = vec![
            (house.renewed(Elsewhere, over, until, "a"), until, "a"),
            (house.renewed(Walked, over, until, "b"), until, "b"),
            (house.renewed(Elsewhere, this_hour, until, "c"), until, "c"),
            (house.session(Elsewhere, until, "d"), until, "d"),
        ];
        let expired_unfiled = house.session(Walked, over, "expired");
        house.unfile(&expired_unfiled);
        let index_failures = vec![(house.session(Walked, until, "e"), until, "e")];
        house.unfile(&index_failures[0].0);

        let root = house.fixture.dir.path();
        let shard = root.join(shard_name(WALKED));
        let place = || house.fixture.path(&house.id(Walked));
        let leftovers = vec![shard.join(".new-0a"), root.join(".new-0b"), place()];
        for path in &leftovers {
            fs::write(path, "").unwrap();
            age(path);
        }
        let kept = vec![place(), shard.join("readme"), root.join("readme")];
        for path in &kept {
            fs::write(path, [0xa5; 2 * SLOT_MIN]).unwrap();
        }
        house.clock.set(at(SWEPT, 30));
        Self { filed, index_failures, expired: expired.into(), expired_unfiled, leftovers, kept }
    }

    /// After a sweep that met trouble: nothing is lost, and one more sweep finishes.
    #[track_caller]
    fn check(&self, house: &House, context: &str) {
        let alive = || self.filed.iter().chain(&self.index_failures);
        let check_alive = |context: &str| {
            for (session, _, text) in alive() {
                assert_eq!(house.text(session).as_deref(), Some(*text), "{context}: lost");
            }
            self.kept.iter().for_each(|path| assert!(path.exists(), "{context}: {} is lost", path.display()));
        };
        check_alive(context);
        for session in self.expired.iter().chain([&self.expired_unfiled]) {
            assert_eq!(house.text(session), None, "{context}: an expired session is readable");
        }
        house.check_nothing_is_held(context);

        // What could not be looked at is tried again some minutes later.
        house.clock.set(at(SWEPT, 41));
        house.sweep_well(&unrested(), context);
        check_alive(context);
        for session in &self.expired {
            assert!(!house.exists(session), "{context}: an expired session is left");
        }
        for (session, deadline, text) in &self.filed {
            assert!(house.is_filed_by(session, *deadline), "{context}: the index has forgotten `{text}`");
        }

        // What the index does not know waits for the next walk.
        let report = house.sweep_well(&unrested().full(true), context);
        assert_eq!((report.damaged, report.unknown), (1, 2), "{context}");
        check_alive(context);
        assert!(!house.exists(&self.expired_unfiled), "{context}");
        for path in &self.leftovers {
            assert!(!path.exists(), "{context}: {} is left", path.display());
        }
        for (session, deadline, text) in &self.index_failures {
            assert!(house.is_filed_by(session, *deadline), "{context}: the index has not found `{text}`");
        }

        // Their shards are not walked before they expire, so that it is the index that finds them.
        house.clock.set(at(UNTIL.0, UNTIL.1 + 10));
        let report = house.sweep_well(&unrested(), context);
        assert_eq!(report.removed, alive().count() as u64, "{context}");
        for (session, _, text) in alive() {
            assert!(!house.exists(session), "{context}: `{text}` is left");
        }
        self.kept.iter().for_each(|path| fs::remove_file(path).unwrap());
    }
}

/// What a pass over a [`Scene`] calls before it comes to the walked shard. One marked with "?" may fail without being
/// told: nothing is left undone by it, or a later pass does it.
const BEFORE_THE_SHARD: [(&str, &str); 7] = [
    ("the index and its lock", "open directory, open file in directory, lock, stat file, touch, stat file"),
    ("without the hour of the last walk, everything is walked", "read?"),
    (
        "what lies beside the shards waits for the next hour",
        "list root?, open directory?, list directory?, open directory?, list directory?",
    ),
    ("a file without a date is not old", "stat in root?, stat in root?"),
    ("an old one", "open directory, open file in directory, lock, stat in directory, stat file, unlink"),
    (
        "sizes: how far it has come, and memory",
        "list directory, stat in directory?, stat in directory?, stat in directory?",
    ),
    ("three buckets", "open file in directory, read, read, read"),
];
/// And between the shard and what is due: the hour is noted.
const AFTER_THE_SHARD: (&str, &str) =
    ("sizes", "write, list directory, stat in directory?, stat in directory?");

fn parse(calls: &str) -> Vec<(String, bool)> {
    calls.split(", ").map(|call| (call.trim_end_matches('?').to_owned(), call.ends_with('?'))).collect()
}

/// Whether each call of a pass without trouble may fail without being told.
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
    let after_at = (before.len()..calls.len() - after.len()).find(is_after).expect("the hour is noted");
    let other = |n: usize| match calls[n] {
        // The mark for those who wait for the lock, or what is done in a bucket that stays: it is looked at once more.
        "write" => true,
        // Nothing was changed, so there is nothing to be told.
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

/// One run. Whether it met the fault.
fn meet_fault(house: &House, fault: Fault, silent: &[bool]) -> bool {
    let scene = Scene::new(house);
    let (result, calls) = during(fault.plan(), || house.sweep());
    let met = calls.len() > fault.call;
    let context = format!("{fault:?}, after calls {calls:?}");
    let root = house.fixture.dir.path();
    let is_told = match &result {
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
    assert!(met || !is_told, "{context}: {result:?}");
    if met && !silent[fault.call] {
        assert!(is_told, "{context}: nobody was told");
    }
    scene.check(house, &context);
    met
}

fn fail_every_call(then: Then) {
    let house = House::new();
    let scene = Scene::new(&house);
    let (report, calls) = during(|_, _| None, || house.sweep_well(&unrested(), "without a fault"));
    let counts = [report.examined, report.removed, report.renewed, report.damaged, report.temporary];
    assert_eq!((counts, report.unknown), ([10, 4, 3, 1, 3], 2));
    let silent = silent_calls(&calls);
    scene.check(&house, "without a fault");
    for errno in REFUSALS {
        for call in 0.. {
            if !meet_fault(&house, Fault { call, errno, then }, &silent) {
                assert_eq!(call, calls.len());
                break;
            }
        }
    }
}

#[test]
fn whichever_call_of_a_sweep_fails_it_is_told_and_the_next_one_finishes() {
    fail_every_call(Then::Works);
}

#[test]
fn from_whichever_call_of_a_sweep_on_all_fail_it_is_told_and_the_next_one_finishes() {
    fail_every_call(Then::Fails);
}

#[test]
fn a_sweep_that_dies_in_any_call_loses_nothing_and_the_next_one_finishes() {
    let house = House::new();
    for call in 0.. {
        let scene = Scene::new(&house);
        let survived = dying_in_call(call, || house.sweep().unwrap()).is_some();
        // The hour of the walk is written when the walk is done: until then, the next pass does all of it.
        let marker = fs::read_to_string(house.fixture.dir.path().join(DUE).join(SWEEP)).unwrap();
        if marker.trim() == MADE.to_string() {
            house.sweep_well(&unrested(), &format!("died in call {call}"));
        }
        let walked =
            scene.leftovers.iter().all(|path| !path.exists()) && !house.exists(&scene.expired_unfiled);
        assert!(
            walked && house.filed(&scene.index_failures[0].0).is_some(),
            "died in call {call}: the walk is not done"
        );
        scene.check(&house, &format!("died in call {call}"));
        if survived {
            assert!(call > 60, "{call}");
            return;
        }
    }
}

#[test]
fn a_bucket_that_cannot_be_read_stays() {
    let house = House::new();
    let session = house.session(Where::Elsewhere, at(MADE, 50), "x");
    house.clock.set(at(SWEPT, 0));
    let mut reads = 0;
    // All but the hour of the last walk.
    let fail = move |_, call: &str| {
        reads += usize::from(call == "read");
        (call == "read" && reads > 1).then_some(libc::EIO)
    };
    let (report, _) = during(fail, || house.sweep());
    assert!(report.unwrap().failed > 0);
    assert!(house.filed(&session).is_some(), "the index has forgotten it");
    assert_eq!(house.sweep_well(&unrested(), "readable").removed, 1);
}

#[test]
fn a_temporary_file_that_is_another_or_was_written_to_just_now_stays() {
    for replaced in [false, true] {
        let house = House::new();
        house.clock.set(at(SWEPT, 0));
        let path = house.fixture.dir.path().join(shard_name(WALKED)).join(".new-0a");
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
            // Looked at, then opened and locked, then looked at again.
            opened |= listed && call == "open file in directory";
            listed |= call == "stat in directory";
            None
        };
        let (report, calls) = during(interfere, || house.sweep());
        assert_eq!(report.unwrap().failed, 0);
        assert!(path.exists(), "replaced: {replaced}, {calls:?}");
    }
}

#[test]
fn what_the_walk_finds_expired_and_in_use_or_cannot_look_at_is_filed_for_the_next_pass() {
    for locked in [false, true] {
        let house = House::new();
        let session = house.session(Where::Walked, at(MADE, 50), "x");
        house.unfile(&session);
        house.clock.set(at(SWEPT, 0));
        let file = fs::File::options().read(true).write(true).open(house.fixture.path(&session)).unwrap();
        let held = locked.then(|| LockedFile::acquire(file, Instant::now()).unwrap().unwrap());
        let fail = move |_, call: &str| (!locked && call == "open session").then_some(libc::EIO);
        let (report, _) = during(fail, || house.sweep());
        assert_eq!(report.unwrap().removed, 0);
        drop(held);
        house.clock.advance(Duration::from_micros(1));
        assert_eq!(house.sweep_well(&unrested(), "the next pass").removed, 1, "locked: {locked}");
    }
}
