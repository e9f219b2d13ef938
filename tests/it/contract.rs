//! The promises of every storage mode (see the module documentation of `store`), as one suite of tests that runs for
//! each mode. For a new mode, a line is added to the list of [`store_contract`], and one for its guarantees. A promise
//! that a mode does not guarantee is not tested for it. The suite also checks that each mode keeps the guarantees that
//! it states. The promises about moved tokens, and those of
//! `Admin`, have files and lists of their own, `moved` and `admin`.
mod admin;
mod moved;

use crate::support::memory::{Stage, made_up_token, secs, start};
use serde_json::json;
use sessile::record::Login;
use sessile::{
    Absent, Durability, Error, ErrorKind, Expiry, FileStore, FileStoreOptions, Guarantees, Live, Lookup,
    PublicId, Record, Result, Saved, Store, Timing, Token, Value, Verdict,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};
use tempfile::TempDir;

/// Makes a test of each promise for one storage mode.
macro_rules! store_contract {
    ($mode:ident, $stage:expr) => {
        mod $mode {
            use super::*;
            store_contract! { @ $stage;
                every_field_of_a_record_is_found_again_as_it_was_stored,
                what_a_call_returns_is_what_the_next_load_finds,
                every_durability_stores_the_same,
                a_record_is_filed_under_the_digest_of_its_token,
                a_token_that_nobody_was_given_is_absent_everywhere,
                a_malformed_token_is_absent_everywhere,
                a_record_is_absent_from_its_deadline_on_by_the_clock_of_the_store,
                a_deadline_is_the_one_of_the_newest_version,
                creation_gives_a_token_of_its_own_and_disturbs_no_other_record,
                update_hands_over_the_newest_version,
                keep_writes_nothing_whatever_the_change_did_to_its_copy,
                abort_writes_and_moves_nothing_as_if_there_were_no_session,
                an_error_of_the_change_is_returned_and_nothing_is_written,
                a_panic_in_the_change_writes_nothing_and_releases_the_lock,
                no_lock_outlives_its_call,
                rotation_moves_the_record_and_kills_the_old_token,
                of_two_rotations_at_once_one_succeeds,
                updates_acknowledged_before_a_rotation_are_in_its_result,
                a_deletion_gives_its_id_once_and_is_final,
                a_deletion_gives_the_id_of_the_session_that_it_ended,
                after_a_deletion_nothing_in_flight_brings_the_session_back,
                of_a_deletion_and_a_rotation_at_once_one_wins,
                concurrent_updates_all_count,
                concurrent_updates_all_count_while_the_record_outgrows_its_place,
                a_reader_beside_a_writer_sees_whole_versions_and_never_an_older_one,
                a_record_keeps_its_contents_while_it_grows_and_shrinks,
                many_and_large_entries_are_kept,
                a_cut_off_ends_the_sessions_of_its_user_and_no_others,
                the_excepted_session_of_a_cut_off_stays_with_its_successors,
                a_session_that_is_not_the_users_cannot_be_excepted,
                an_update_or_a_mere_rotation_is_no_login,
                of_a_cut_off_and_a_login_at_once_none_that_had_returned_lives,
            }
        }
    };
    (@ $stage:expr; $($promise:ident,)*) => { $(#[test] fn $promise() { super::$promise(&$stage); })* };
}

mod cut_offs;
use cut_offs::*;

store_contract!(memory, Stage::memory());
store_contract!(rows, Stage::rows());
store_contract!(sqlite, Stage::sqlite());
store_contract!(files_relaxed, Stage::light_files());
store_contract!(files_power_safe, Stage::files(Durability::PowerSafe));

#[test]
fn every_mode_guarantees_what_it_is_known_for() {
    let full = Guarantees::all();
    for (mode, stage, guarantees) in [
        ("memory", Stage::memory(), full),
        ("rows", Stage::rows(), full),
        ("sqlite", Stage::sqlite(), full),
        ("files", Stage::files(Durability::Relaxed), full),
    ] {
        assert_eq!(stage.store.guarantees(), guarantees, "{mode}");
    }
}

const HOUR: Duration = secs(3600);
const THREADS: u64 = 8;

/// A record that is created at the stage's time, lives for an hour, and holds `n`.
fn record(n: u64) -> Record {
    let mut record = Record::new(start(), start() + HOUR);
    put(&mut record, "n", n);
    record
}

fn put(record: &mut Record, name: &str, value: impl serde::Serialize) {
    record.insert(name, &Value::new(&value).unwrap()).unwrap();
}

#[track_caller]
fn n(record: &Record) -> u64 {
    record.entries().get("n").unwrap().get().unwrap()
}

fn create(store: &dyn Store, record: &Record) -> Token {
    store.create(record, Durability::OfStore).unwrap().token
}

fn update(
    store: &dyn Store,
    token: &Token,
    mut change: impl FnMut(&mut Record) -> Result<Verdict>,
) -> Result<Option<Saved>> {
    store.update(token, &mut change, Durability::OfStore)
}

fn rotate(
    store: &dyn Store,
    token: &Token,
    mut change: impl FnMut(&mut Record) -> Result<Verdict>,
) -> Result<Option<Saved>> {
    store.rotate(token, &mut change, &Durability::OfStore.into())
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of a change")]
fn add_one(record: &mut Record) -> Result<Verdict> {
    let next = n(record) + 1;
    put(record, "n", next);
    Ok(Verdict::Write)
}

#[track_caller]
fn absent(store: &dyn Store, token: &Token) -> Absent {
    match store.load(token).unwrap() {
        Lookup::Absent(why) => why,
        Lookup::Live(live) => panic!("session {} is live: {:?}", live.id, live.record),
    }
}

/// Asserts that an update and a rotation of this token find no session, do not call the function, and create no
/// session.
#[track_caller]
fn check_nothing_to_change(stage: &Stage, token: &Token) {
    let before = stage.stored();
    let change = |_: &mut Record| -> Result<Verdict> { panic!("the change must not be called") };
    assert!(update(&*stage.store, token, change).unwrap().is_none(), "an update of what is absent is None");
    assert!(rotate(&*stage.store, token, change).unwrap().is_none(), "a rotation of what is absent is None");
    assert_eq!(stage.stored(), before, "and creates no session");
}

fn every_field_of_a_record_is_found_again_as_it_was_stored(stage: &Stage) {
    let expiries = [
        Expiry::Default,
        Expiry::After(Duration::from_micros(1)),
        Expiry::After(secs(300)),
        Expiry::At(UNIX_EPOCH),
        Expiry::At(start() + Duration::from_micros(123_456)),
        Expiry::BrowserClose,
    ];
    let users = [None, Some("a".to_owned()), Some("ü ".repeat(128))];
    let entries = [
        json!({}),
        json!({ "n": 0 }),
        json!({
            "null": null, "yes": true, "min": i64::MIN, "max": u64::MAX, "float": -0.5,
            "text": "naïve 🦀 \u{0}", "list": [1, [2.5, [null]], {}],
            "object": { "b": { "": [] }, "a": "" }, "_reserved": 1,
        }),
    ];
    for (number, expiry) in expiries.into_iter().enumerate() {
        for user in users.clone() {
            for entries in &entries {
                let mut record = Record::new(UNIX_EPOCH, start() + Duration::from_micros(1));
                let touched = start() - Duration::from_micros(number as u64);
                record.set_timing(Timing { touched, expiry, ..record.timing() });
                if let Some(user) = &user {
                    record.set_user(user).unwrap();
                    record.set_login(Login {
                        at: Some(touched),
                        // The store sets this field itself.
                        cut_off: 0,
                        user_digest: None,
                    });
                    record.set_device_note(&"ü ".repeat(number)).unwrap();
                }
                for (name, value) in entries.as_object().unwrap() {
                    put(&mut record, name, value);
                }
                let token = create(&*stage.store, &record);
                assert_eq!(stage.record(&token), record, "after creation");
                let other = create(&*stage.store, &Record::new(start(), start() + HOUR));
                let overwrite = |stored: &mut Record| {
                    stored.clone_from(&record);
                    Ok(Verdict::Write)
                };
                update(&*stage.store, &other, overwrite).unwrap().unwrap();
                assert_eq!(stage.record(&other), record, "after an update");
            }
        }
    }
}

fn what_a_call_returns_is_what_the_next_load_finds(stage: &Stage) {
    let store = &*stage.store;
    let check = |saved: &Saved, operation: &str| {
        assert_eq!(saved.live.record, stage.record(&saved.token), "{operation}");
    };
    // A time with more digits than the microseconds that are stored.
    let fine = Duration::from_nanos(1_234_567_891);
    let mut record = Record::new(start() + fine, start() + HOUR + fine);
    record.set_timing(Timing { expiry: Expiry::After(fine), ..record.timing() });
    put(&mut record, "n", 1);
    let created = store.create(&record, Durability::OfStore).unwrap();
    check(&created, "create");
    let refine = |record: &mut Record| {
        record.set_timing(Timing { touched: start() + fine, ..record.timing() });
        record.set_timing(Timing { expiry: Expiry::At(start() + fine), ..record.timing() });
        Ok(Verdict::Write)
    };
    check(&update(store, &created.token, refine).unwrap().unwrap(), "update");
    let keep = |record: &mut Record| {
        put(record, "n", 2);
        Ok(Verdict::Keep)
    };
    check(&update(store, &created.token, keep).unwrap().unwrap(), "update that keeps");
    let moved = rotate(store, &created.token, refine).unwrap().unwrap();
    check(&moved, "rotate");
    check(&rotate(store, &moved.token, keep).unwrap().unwrap(), "rotate that keeps");
}

fn every_durability_stores_the_same(stage: &Stage) {
    let levels = [Durability::OfStore, Durability::Relaxed, Durability::PowerSafe];
    for made in levels {
        let token = stage.store.create(&record(0), made).unwrap().token;
        let mut expected = 0;
        // Each level of durability follows each other one, twice, so that each slot of the file is written at each
        // level.
        for how in levels.iter().flat_map(|&level| levels.map(|next| [level, next])).flatten() {
            stage.store.update(&token, &mut add_one, how).unwrap().unwrap();
            expected += 1;
            assert_eq!(n(&stage.record(&token)), expected, "made {made:?}, then saved {how:?}");
            stage.store.update(&token, &mut |_| Ok(Verdict::Keep), how).unwrap().unwrap();
        }
        let moved = stage.store.rotate(&token, &mut add_one, &made.into()).unwrap().unwrap();
        assert_eq!(n(&stage.record(&moved.token)), expected + 1, "rotated {made:?}");
    }
}

fn a_record_is_filed_under_the_digest_of_its_token(stage: &Stage) {
    let check = |saved: &Saved| {
        assert!(stage.store.is_well_formed(&saved.token), "a store's own token is well-formed");
        let digest = PublicId::digest(saved.token.expose().as_bytes());
        assert_eq!(saved.live.id, digest);
        match stage.store.load(&saved.token).unwrap() {
            Lookup::Live(live) => assert_eq!(live.id, digest),
            Lookup::Absent(why) => panic!("{why:?}"),
        }
        assert!(!format!("{saved:?}").contains(saved.token.expose()), "the secret is not shown");
    };
    let created = stage.store.create(&record(1), Durability::OfStore).unwrap();
    check(&created);
    let updated = update(&*stage.store, &created.token, add_one).unwrap().unwrap();
    check(&updated);
    check(&rotate(&*stage.store, &updated.token, add_one).unwrap().unwrap());
}

fn a_token_that_nobody_was_given_is_absent_everywhere(stage: &Stage) {
    let token = made_up_token();
    let id = PublicId::digest(token.expose().as_bytes());
    assert_eq!(absent(&*stage.store, &token), Absent::NotFound(id));
    check_nothing_to_change(stage, &token);
    assert!(stage.store.delete(&token).unwrap().is_none());
    assert_eq!(absent(&*stage.store, &token), Absent::NotFound(id), "the load did not create it");
    assert_eq!(stage.stored(), 0);
}

fn a_malformed_token_is_absent_everywhere(stage: &Stage) {
    let token = create(&*stage.store, &record(1));
    let id = PublicId::digest(token.expose().as_bytes()).to_string();
    for text in [
        "x".into(),
        "a".repeat(31),
        "a".repeat(33),
        "x".repeat(Token::BYTES_MAX),
        "../".repeat(10) + "aa",
        "%2f".repeat(10) + "aa",
        token.expose().to_uppercase(),
        format!("{}=", &token.expose()[1..]),
        format!("{}a", token.expose()),
        id.clone(),
        id[..32].to_owned(),
    ] {
        let bad = Token::parse(&text).unwrap();
        assert!(!stage.store.is_well_formed(&bad), "{text:?}");
        assert_eq!(absent(&*stage.store, &bad), Absent::Malformed, "{text:?}");
        check_nothing_to_change(stage, &bad);
        assert!(stage.store.delete(&bad).unwrap().is_none(), "{text:?}");
    }
    assert_eq!(n(&stage.record(&token)), 1, "the existing session is unchanged");
}

fn a_record_is_absent_from_its_deadline_on_by_the_clock_of_the_store(stage: &Stage) {
    let deadline = start() + HOUR;
    let just_before = deadline - Duration::from_micros(1);
    for (now, lives) in [(just_before, true), (deadline, false), (deadline + HOUR, false)] {
        let make = || {
            stage.clock.set(start());
            let token = create(&*stage.store, &record(1));
            stage.clock.set(now);
            assert_eq!(stage.store.now(), now);
            token
        };
        let token = make();
        let id = PublicId::digest(token.expose().as_bytes());
        if lives {
            assert_eq!(n(&stage.record(&token)), 1);
            assert!(update(&*stage.store, &token, add_one).unwrap().is_some());
            assert!(rotate(&*stage.store, &token, add_one).unwrap().is_some());
        } else {
            assert_eq!(absent(&*stage.store, &token), Absent::Expired(id));
            check_nothing_to_change(stage, &token);
        }
        let deleted = stage.store.delete(&make()).unwrap();
        assert_eq!(deleted.is_some(), lives, "only a live session is returned");
    }
    // The deadline is compared at each load, also if the version was read just before the deadline.
    stage.clock.set(just_before);
    let mut expiring = record(1);
    expiring.set_timing(Timing { deadline, ..expiring.timing() });
    let token = create(&*stage.store, &expiring);
    assert!(matches!(stage.store.load(&token).unwrap(), Lookup::Live(_)));
    stage.clock.set(deadline);
    let id = PublicId::digest(token.expose().as_bytes());
    assert_eq!(absent(&*stage.store, &token), Absent::Expired(id));
}

fn a_deadline_is_the_one_of_the_newest_version(stage: &Stage) {
    let move_to = |token: &Token, deadline| {
        let change = |record: &mut Record| {
            record.set_timing(Timing { deadline, ..record.timing() });
            Ok(Verdict::Write)
        };
        update(&*stage.store, token, change).unwrap().unwrap();
    };
    let shortened = create(&*stage.store, &record(1));
    let prolonged = create(&*stage.store, &record(2));
    move_to(&shortened, start() + secs(10));
    move_to(&prolonged, start() + HOUR * 2);
    stage.clock.set(start() + secs(10));
    stage.check_absent(&shortened);
    stage.clock.set(start() + HOUR);
    assert_eq!(n(&stage.record(&prolonged)), 2);
    // A change may set a deadline that has passed, which ends the session.
    move_to(&prolonged, start() + HOUR);
    stage.check_absent(&prolonged);
}

fn creation_gives_a_token_of_its_own_and_disturbs_no_other_record(stage: &Stage) {
    let tokens: Vec<_> = (0..300).map(|number| create(&*stage.store, &record(number))).collect();
    for (number, token) in (0..).zip(&tokens) {
        assert_eq!(n(&stage.record(token)), number);
    }
    assert_eq!(stage.stored(), tokens.len());
}

fn update_hands_over_the_newest_version(stage: &Stage) {
    let token = create(&*stage.store, &record(1));
    for version in 1..20 {
        // The two openings of the storage are used in turn, so that neither can rely on its own writes.
        let store = if version % 2 == 0 { &stage.store } else { &stage.second };
        let mut seen = None;
        let saved = update(&**store, &token, |record| {
            seen = Some(record.clone());
            add_one(record)
        });
        assert_eq!(seen, Some(record(version)), "the change receives the newest version");
        let saved = saved.unwrap().unwrap();
        assert_eq!(saved.live.record, record(version + 1), "and its result is stored");
        assert_eq!(saved.token, token, "under the same token");
        assert_eq!(stage.record(&token), record(version + 1));
    }
}

fn keep_writes_nothing_whatever_the_change_did_to_its_copy(stage: &Stage) {
    let token = create(&*stage.store, &record(1));
    let spoil_and_keep = |record: &mut Record| {
        put(record, "n", 99);
        record.set_timing(Timing { deadline: start(), ..record.timing() });
        record.set_user("mallory").unwrap();
        Ok(Verdict::Keep)
    };
    for how in [Durability::Relaxed, Durability::PowerSafe] {
        let saved = stage.store.update(&token, &mut { spoil_and_keep }, how).unwrap().unwrap();
        assert_eq!(saved.live.record, record(1));
        assert_eq!(stage.record(&token), record(1));
    }
    update(&*stage.store, &token, add_one).unwrap();
    assert_eq!(stage.record(&token), record(2), "the next change starts from the stored version");
    let saved = rotate(&*stage.store, &token, spoil_and_keep).unwrap().unwrap();
    assert_eq!(saved.live.record, record(2), "a rotation that keeps moves the stored version");
    assert_eq!(stage.record(&saved.token), record(2));
    stage.check_absent(&token);
}

fn abort_writes_and_moves_nothing_as_if_there_were_no_session(stage: &Stage) {
    let token = create(&*stage.store, &record(1));
    let spoil_and_abort = |record: &mut Record| {
        put(record, "n", 99);
        record.set_timing(Timing { deadline: start(), ..record.timing() });
        Ok(Verdict::Abort)
    };
    for how in [Durability::Relaxed, Durability::PowerSafe] {
        assert!(stage.store.update(&token, &mut { spoil_and_abort }, how).unwrap().is_none());
        assert!(stage.store.rotate(&token, &mut { spoil_and_abort }, &how.into()).unwrap().is_none());
        assert_eq!(stage.record(&token), record(1));
        let Lookup::Live(live) = stage.store.load(&token).unwrap() else { panic!("it is alive") };
        assert_eq!(live.record, record(1), "neither on the disk nor in memory");
        assert_eq!(stage.stored(), 1, "nothing was made");
    }
    update(&*stage.second, &token, add_one).unwrap().unwrap();
    update(&*stage.store, &token, add_one).unwrap().unwrap();
    assert_eq!(
        stage.record(&token),
        record(3),
        "no lock is kept, and the next change starts from what is stored"
    );
}

fn refuse(record: &mut Record) -> Result<Verdict> {
    put(record, "n", 99);
    Err(Error::new(ErrorKind::Storage, "agree with it").with_reason("no"))
}

fn an_error_of_the_change_is_returned_and_nothing_is_written(stage: &Stage) {
    let token = create(&*stage.store, &record(1));
    let check = |result: Result<Option<Saved>>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage);
        assert_eq!(error.to_string(), "failed to agree with it: no");
        assert_eq!(stage.record(&token), record(1));
        assert_eq!(stage.stored(), 1, "no further session was created");
    };
    check(update(&*stage.store, &token, refuse));
    check(rotate(&*stage.store, &token, refuse));
}

fn a_panic_in_the_change_writes_nothing_and_releases_the_lock(stage: &Stage) {
    let token = create(&*stage.store, &record(1));
    let panicking = |record: &mut Record| -> Result<Verdict> {
        put(record, "n", 99);
        std::panic::resume_unwind(Box::new("the change gives up"));
    };
    let store = &*stage.store;
    catch_unwind(AssertUnwindSafe(|| update(store, &token, panicking))).unwrap_err();
    catch_unwind(AssertUnwindSafe(|| rotate(store, &token, panicking))).unwrap_err();
    assert_eq!(stage.record(&token), record(1));
    assert_eq!(stage.stored(), 1, "no further session was created");
    update(&*stage.second, &token, add_one).unwrap().unwrap();
    update(store, &token, add_one).unwrap().unwrap();
    assert_eq!(stage.record(&token), record(3));
}

fn no_lock_outlives_its_call(stage: &Stage) {
    let store = &*stage.store;
    let token = create(store, &record(0));
    let calls: [(&str, &dyn Fn()); 9] = [
        ("create", &|| drop(store.create(&record(1), Durability::OfStore).unwrap())),
        ("load", &|| drop(store.load(&token).unwrap())),
        ("update", &|| drop(update(store, &token, add_one).unwrap())),
        ("update that keeps", &|| drop(update(store, &token, |_| Ok(Verdict::Keep)).unwrap())),
        ("update that fails", &|| drop(update(store, &token, refuse).unwrap_err())),
        ("rotation that fails", &|| drop(rotate(store, &token, refuse).unwrap_err())),
        ("update of nothing", &|| drop(update(store, &made_up_token(), add_one).unwrap())),
        ("rotation of nothing", &|| drop(rotate(store, &made_up_token(), add_one).unwrap())),
        ("delete of nothing", &|| assert!(store.delete(&made_up_token()).unwrap().is_none())),
    ];
    for (name, call) in calls {
        call();
        // Operations of another thread and of another opening; they return `Busy` if a lock is still held.
        std::thread::scope(|scope| {
            for handle in [store, &*stage.second] {
                let saved = scope.spawn(|| update(handle, &token, add_one)).join().unwrap();
                assert!(saved.unwrap().is_some(), "after {name}");
            }
        });
    }
    // The successor of a rotation is not locked either, and neither are the sessions of failed calls.
    let moved = rotate(store, &token, add_one).unwrap().unwrap();
    assert!(update(&*stage.second, &moved.token, add_one).unwrap().is_some());
    assert!(stage.second.delete(&moved.token).unwrap().is_some());
}

fn rotation_moves_the_record_and_kills_the_old_token(stage: &Stage) {
    let mut old = create(&*stage.store, &record(0));
    for round in 1..6 {
        let mut seen = None;
        let saved = rotate(&*stage.store, &old, |record| {
            seen = Some(n(record));
            add_one(record)
        });
        let saved = saved.unwrap().unwrap();
        assert_eq!(seen, Some(round - 1));
        assert_ne!(saved.token, old);
        assert_eq!(saved.live.record, record(round));
        assert_eq!(stage.record(&saved.token), record(round));
        if stage.store.guarantees().ends_every_copy {
            let id = PublicId::digest(old.expose().as_bytes());
            assert_eq!(absent(&*stage.store, &old), Absent::NotFound(id));
            check_nothing_to_change(stage, &old);
            assert!(stage.store.delete(&old).unwrap().is_none());
            assert_eq!(stage.stored(), 1);
        }
        old = saved.token;
    }
}

fn of_two_rotations_at_once_one_succeeds(stage: &Stage) {
    for round in 1..=20 {
        let token = create(&*stage.store, &record(round));
        let barrier = Barrier::new(4);
        let successors: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = [&stage.store, &stage.second, &stage.store, &stage.second]
                .into_iter()
                .map(|store| {
                    scope.spawn(|| {
                        barrier.wait();
                        rotate(&**store, &token, |_| Ok(Verdict::Keep)).unwrap()
                    })
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        if stage.store.guarantees().atomic_update {
            assert_eq!(successors.len(), 1);
            assert_eq!(stage.stored(), usize::try_from(round).unwrap(), "one session, one record");
        }
        for saved in successors {
            assert_eq!(stage.record(&saved.token), record(round));
        }
    }
}

fn updates_acknowledged_before_a_rotation_are_in_its_result(stage: &Stage) {
    for _ in 0..20 {
        let token = create(&*stage.store, &record(0));
        let acknowledged = AtomicU64::new(0);
        let count = |store: &dyn Store| {
            while update(store, &token, add_one).unwrap().is_some() {
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        };
        let saved = std::thread::scope(|scope| {
            for store in [&stage.store, &stage.store, &stage.second] {
                scope.spawn(|| count(&**store));
            }
            while acknowledged.load(Ordering::SeqCst) < 10 {
                std::thread::yield_now();
            }
            rotate(&*stage.second, &token, |_| Ok(Verdict::Keep)).unwrap().unwrap()
        });
        let (stored, acknowledged) = (n(&stage.record(&saved.token)), acknowledged.into_inner());
        if stage.store.guarantees().atomic_update {
            assert_eq!(stored, acknowledged);
        } else {
            assert!(stored <= acknowledged, "{stored} of {acknowledged}");
        }
    }
}

fn a_deletion_gives_its_id_once_and_is_final(stage: &Stage) {
    let (token, bystander) = (create(&*stage.store, &record(1)), create(&*stage.store, &record(2)));
    let id = PublicId::digest(token.expose().as_bytes());
    assert_eq!(stage.store.delete(&token).unwrap(), Some(id));
    if stage.store.guarantees().ends_every_copy {
        assert_eq!(stage.store.delete(&token).unwrap(), None);
        for store in [&stage.store, &stage.second] {
            assert_eq!(absent(&**store, &token), Absent::NotFound(id));
        }
        check_nothing_to_change(stage, &token);
        assert_eq!(stage.stored(), 1);
    }
    assert_eq!(n(&stage.record(&bystander)), 2);
}

fn a_deletion_gives_the_id_of_the_session_that_it_ended(stage: &Stage) {
    type Delete = fn(&dyn Store, &Saved) -> Option<PublicId>;
    let by_token: Delete = |store, saved| store.delete(&saved.token).unwrap();
    let of_user: Delete = |store, saved| store.delete_session_of("ada", &saved.live.id).unwrap();
    for (name, delete) in [("by token", by_token), ("of a user", of_user)] {
        stage.clock.set(start());
        let [ended, expired, cut_off] = [1, 2, 3].map(|number| {
            let mut record = record(number);
            record.set_user("ada").unwrap();
            stage.store.create(&record, Durability::OfStore).unwrap()
        });
        assert_eq!(delete(&*stage.second, &ended), Some(ended.live.id), "{name}");
        if stage.store.guarantees().ends_every_copy {
            assert_eq!(delete(&*stage.store, &ended), None, "{name}: it has ended");
        }
        let absent = Live::new(record(4), PublicId::digest(b"no session"));
        let absent = Saved::new(made_up_token(), absent);
        assert_eq!(delete(&*stage.store, &absent), None, "{name}: there was none");
        stage.store.delete_of("ada", Some(&expired.token)).unwrap();
        assert_eq!(delete(&*stage.second, &cut_off), None, "{name}: a cut-off has ended it");
        stage.clock.set(start() + HOUR);
        assert_eq!(delete(&*stage.store, &expired), None, "{name}: it has expired");
    }
}

fn after_a_deletion_nothing_in_flight_brings_the_session_back(stage: &Stage) {
    for round in 0..30_usize {
        let token = create(&*stage.store, &record(0));
        let deleted = AtomicBool::new(false);
        let running = AtomicU64::new(0);
        // Saves of different sizes, so that some of them replace the session's file when the deletion comes.
        let save = |store: &dyn Store, seed: usize| {
            for step in seed.. {
                let was_deleted = deleted.load(Ordering::SeqCst);
                let saved = update(store, &token, |record| {
                    put(record, "blob", "x".repeat(1 << (step % 16)));
                    Ok(Verdict::Write)
                });
                running.fetch_add(1, Ordering::SeqCst);
                if saved.unwrap().is_none() {
                    return;
                }
                assert!(!was_deleted, "an update that began after the deletion found the session");
            }
        };
        let was_there = std::thread::scope(|scope| {
            scope.spawn(|| save(&*stage.store, round));
            scope.spawn(|| save(&*stage.second, round + 7));
            while running.load(Ordering::SeqCst) < 4 {
                std::thread::yield_now();
            }
            let was_there = stage.store.delete(&token).unwrap().is_some();
            deleted.store(true, Ordering::SeqCst);
            if stage.store.guarantees().ends_every_copy {
                stage.check_absent(&token);
            }
            was_there
        });
        assert!(was_there);
        if stage.store.guarantees().ends_every_copy {
            stage.check_absent(&token);
            assert_eq!(stage.stored(), 0, "and no file is left");
        }
    }
}

fn of_a_deletion_and_a_rotation_at_once_one_wins(stage: &Stage) {
    for _ in 0..30 {
        let token = create(&*stage.store, &record(1));
        let barrier = Barrier::new(2);
        let (successor, deleted) = std::thread::scope(|scope| {
            let rotation = scope.spawn(|| {
                barrier.wait();
                rotate(&*stage.store, &token, |_| Ok(Verdict::Keep)).unwrap()
            });
            barrier.wait();
            let deleted = stage.second.delete(&token).unwrap().is_some();
            (rotation.join().unwrap(), deleted)
        });
        if stage.store.guarantees().ends_every_copy {
            stage.check_absent(&token);
            assert_eq!(successor.is_none(), deleted, "an ended session has no successor");
            assert_eq!(stage.stored(), usize::from(!deleted));
        }
        if let Some(saved) = successor {
            stage.store.delete(&saved.token).unwrap();
        }
    }
}

fn concurrent_updates_all_count(stage: &Stage) {
    const EACH: u64 = 60;
    let tokens: Vec<_> = (0..3).map(|_| create(&*stage.store, &record(0))).collect();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = if thread % 2 == 0 { &stage.store } else { &stage.second };
            let tokens = &tokens;
            scope.spawn(move || {
                for _ in 0..EACH {
                    for token in tokens {
                        update(&**store, token, add_one).unwrap().unwrap();
                    }
                }
            });
        }
    });
    for token in &tokens {
        let count = n(&stage.record(token));
        if stage.store.guarantees().atomic_update {
            assert_eq!(count, THREADS * EACH);
        } else {
            assert!((1..=THREADS * EACH).contains(&count), "{count}");
        }
    }
}

fn concurrent_updates_all_count_while_the_record_outgrows_its_place(stage: &Stage) {
    const EACH: u64 = 12;
    for _ in 0..10 {
        let token = create(&*stage.store, &record(0));
        let grow = |record: &mut Record| {
            let length = 600 * usize::try_from(n(record)).unwrap();
            put(record, "blob", "x".repeat(length));
            add_one(record)
        };
        std::thread::scope(|scope| {
            for store in [&stage.store, &stage.second, &stage.store, &stage.second] {
                let token = &token;
                scope.spawn(move || {
                    for _ in 0..EACH {
                        update(&**store, token, grow).unwrap().unwrap();
                    }
                });
            }
        });
        if stage.store.guarantees().atomic_update {
            assert_eq!(n(&stage.record(&token)), 4 * EACH);
        }
        assert!(stage.store.delete(&token).unwrap().is_some());
    }
    assert_eq!(stage.stored(), 0, "no file is left");
}

fn a_reader_beside_a_writer_sees_whole_versions_and_never_an_older_one(stage: &Stage) {
    /// A record whose size depends on its version, and of which every entry states the version.
    fn version(number: u64) -> Record {
        let mut record = record(number);
        let length = usize::try_from(number * 997 % 6000).unwrap();
        put(&mut record, "parts", vec![number; length / 8]);
        record.set_user(&number.to_string()).unwrap();
        record.set_timing(Timing { touched: start() + secs(number), ..record.timing() });
        record
    }
    const VERSIONS: u64 = 400;
    let token = create(&*stage.store, &version(0));
    let acknowledged = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for store in [&stage.store, &stage.second, &stage.second] {
            scope.spawn(|| {
                let mut last = 0;
                while last < VERSIONS {
                    last = last.max(acknowledged.load(Ordering::SeqCst));
                    let Lookup::Live(live) = store.load(&token).unwrap() else {
                        panic!("a session that is only saved was absent");
                    };
                    let number = n(&live.record);
                    assert_eq!(live.record, version(number), "all parts are of one version");
                    assert!(number >= last, "version {number} was read after version {last}");
                    last = number;
                }
            });
        }
        for number in 1..=VERSIONS {
            let store = if number % 2 == 0 { &stage.store } else { &stage.second };
            let write = |record: &mut Record| {
                record.clone_from(&version(number));
                Ok(Verdict::Write)
            };
            update(&**store, &token, write).unwrap().unwrap();
            acknowledged.store(number, Ordering::SeqCst);
        }
    });
}

fn a_record_keeps_its_contents_while_it_grows_and_shrinks(stage: &Stage) {
    let token = create(&*stage.store, &record(0));
    let up = (0..=10).map(|power| 100 << power);
    let down = (0..=10).rev().map(|power| 100 << power);
    // Every size around 2 and 4 KiB, where a small file becomes too small.
    let steps = (1850..1930).chain(3890..3980).chain((0..3).flat_map(|_| [100, 100_000, 1]));
    for (number, length) in (1..).zip(up.chain(down).chain(steps)) {
        let text: String = ('a'..='z').cycle().take(length).collect();
        let resize = |record: &mut Record| {
            put(record, "n", number);
            put(record, "text", &text);
            Ok(Verdict::Write)
        };
        let store = if number % 3 == 0 { &stage.second } else { &stage.store };
        update(&**store, &token, resize).unwrap().unwrap();
        let found = stage.record(&token);
        assert_eq!(n(&found), number);
        assert_eq!(found.entries().get("text").unwrap().get::<String>().unwrap(), text);
    }
    assert_eq!(stage.stored(), 1, "no further file is left");
}

fn many_and_large_entries_are_kept(stage: &Stage) {
    let mut large = record(1);
    for number in 0..1000 {
        put(&mut large, &format!("entry {number}"), number);
    }
    put(&mut large, &"n".repeat(128), "a long name");
    put(&mut large, "blob", "x".repeat(500_000));
    put(&mut large, "deep", (0..64).fold(json!(1), |inner, _| json!([inner])));
    let created = create(&*stage.store, &large);
    assert_eq!(stage.record(&created), large);
    let grown = create(&*stage.store, &record(1));
    let grow = |record: &mut Record| {
        record.clone_from(&large);
        Ok(Verdict::Write)
    };
    update(&*stage.store, &grown, grow).unwrap().unwrap();
    assert_eq!(stage.record(&grown), large);
    let moved = rotate(&*stage.store, &grown, add_one).unwrap().unwrap();
    put(&mut large, "n", 2);
    assert_eq!(stage.record(&moved.token), large);
}

// The tests below are for the file engine only: limits, and files that other programs can change.

/// Asserts the error of an operation, and that it has left the stored version and no other file.
#[track_caller]
fn check_refused(result: Result<Option<Saved>>, kind: ErrorKind, text: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind);
    assert_eq!(error.to_string(), text);
}

/// A change that exceeds a limit, and the kind of the expected error.
type Limit<'a> = (&'a dyn Fn(&mut Record) -> Result<Verdict>, ErrorKind, &'a str);

#[test]
fn a_record_beyond_a_limit_is_refused_and_the_old_one_kept() {
    let dir = TempDir::new().unwrap();
    let options = FileStoreOptions::new().record_bytes_max(4096).entries_max(10);
    let store = options.open(dir.path()).unwrap();
    let mut small = Record::new(store.now(), store.now() + HOUR);
    put(&mut small, "n", 1);
    let token = create(&store, &small);
    let large = |record: &mut Record| {
        put(record, "blob", "x".repeat(5000));
        Ok(Verdict::Write)
    };
    let many = |record: &mut Record| {
        (0..10).for_each(|number| put(record, &format!("entry {number}"), number));
        Ok(Verdict::Write)
    };
    let limits: [Limit<'_>; 2] = [
        (&large, ErrorKind::TooLarge, "failed to encode session record: 5146 bytes, where the limit is 4096"),
        (
            &many,
            ErrorKind::TooManyEntries,
            "failed to encode session record: 11 entries, where the limit is 10",
        ),
    ];
    for (change, kind, text) in limits {
        check_refused(update(&store, &token, change), kind, text);
        check_refused(rotate(&store, &token, change), kind, text);
        let mut beyond = small.clone();
        change(&mut beyond).unwrap();
        check_refused(store.create(&beyond, Durability::OfStore).map(Some), kind, text);
        match store.load(&token).unwrap() {
            Lookup::Live(live) => assert_eq!(live.record, small),
            Lookup::Absent(why) => panic!("{why:?}"),
        }
        assert_eq!(session_files(&dir), [file_of(&dir, &token)]);
    }
    let at_the_limit = |record: &mut Record| {
        (0..9).for_each(|number| put(record, &format!("entry {number}"), number));
        Ok(Verdict::Write)
    };
    assert!(update(&store, &token, at_the_limit).unwrap().is_some());
}

#[test]
fn a_rotation_that_cannot_end_the_old_file_leaves_no_successor() {
    let dir = TempDir::new().unwrap();
    let store = FileStore::open(dir.path()).unwrap();
    let token = create(&store, &Record::new(store.now(), store.now() + HOUR));
    let (file, aside) = (file_of(&dir, &token), dir.path().join("aside"));
    let obstruct = |_: &mut Record| {
        // A directory in place of the file: no user, not even root, can unlink it.
        std::fs::rename(&file, &aside).unwrap();
        std::fs::create_dir(&file).unwrap();
        Ok(Verdict::Write)
    };
    let error = rotate(&store, &token, obstruct).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotASessionFile);
    assert_eq!(error.path(), Some(&*file));
    assert_eq!(session_files(&dir), [&*file], "the successor was removed");
    std::fs::remove_dir(&file).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    assert!(rotate(&store, &token, |_| Ok(Verdict::Keep)).unwrap().is_some(), "the old session is unchanged");
}

#[test]
fn a_rotation_of_a_removed_file_makes_no_successor() {
    let dir = TempDir::new().unwrap();
    let store = FileStore::open(dir.path()).unwrap();
    let token = create(&store, &Record::new(store.now(), store.now() + HOUR));
    let remove = |_: &mut Record| {
        // The file is gone, as after a deletion that could not wait for the lock.
        std::fs::remove_file(file_of(&dir, &token)).unwrap();
        Ok(Verdict::Write)
    };
    assert!(rotate(&store, &token, remove).unwrap().is_none());
    assert_eq!(session_files(&dir), Vec::<PathBuf>::new());
}

#[test]
fn a_delete_ends_a_session_that_a_stuck_writer_holds() {
    type Write =
        fn(&FileStore, &Token, &mut dyn FnMut(&mut Record) -> Result<Verdict>) -> Result<Option<Saved>>;
    let dir = TempDir::new().unwrap();
    let open = || FileStoreOptions::new().lock_wait(Duration::from_millis(30)).open(dir.path()).unwrap();
    let (holder, other) = (open(), open());
    let kinds: [(&str, Write, usize); 3] = [
        ("update", |store, token, change| store.update(token, change, Durability::Relaxed), 10),
        (
            "update that grows",
            |store, token, change| store.update(token, change, Durability::Relaxed),
            10_000,
        ),
        ("rotation", |store, token, change| store.rotate(token, change, &Durability::Relaxed.into()), 10),
    ];
    // The session is ended by a thread of the lock holder's process, or by another process.
    for deleter in [&holder, &other] {
        for (name, write, length) in kinds {
            let token = create(&holder, &Record::new(holder.now(), holder.now() + HOUR));
            let saved = write(&holder, &token, &mut |record| {
                put(record, "blob", "x".repeat(length));
                let from_elsewhere = || {
                    let refused = update(deleter, &token, |_| Ok(Verdict::Keep));
                    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Busy, "{name}: a save stops waiting");
                    assert!(
                        deleter.delete(&token).unwrap().is_some(),
                        "{name}: a logout does not wait for it"
                    );
                    assert_eq!(session_files(&dir), Vec::<PathBuf>::new());
                };
                std::thread::scope(|scope| scope.spawn(from_elsewhere).join().unwrap());
                Ok(Verdict::Write)
            });
            // An update that was under way may count as completed before the end. An operation that needs the file's
            // name may not.
            assert!(saved.unwrap().is_none() || name == "update", "{name}");
            assert_eq!(session_files(&dir), Vec::<PathBuf>::new(), "{name}");
            assert!(update(&holder, &token, |_| Ok(Verdict::Keep)).unwrap().is_none(), "{name}");
        }
    }
}

fn file_of(dir: &TempDir, token: &Token) -> PathBuf {
    let id = PublicId::digest(token.expose().as_bytes()).to_string();
    dir.path().join(&id[..2]).join(&id[2..])
}

fn session_files(dir: &TempDir) -> Vec<PathBuf> {
    crate::support::texts::files_in_shards(dir.path())
}
