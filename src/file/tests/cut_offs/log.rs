//! The log itself: read again after errors, replaced, written over by an older one, lost, full, at the end of its
//! numbers.
use super::*;
use crate::admin::Admin;
use crate::file::cut_offs::CutOffs;
use crate::file::disk::Root;

/// The entries of a log in a test before it is full, and before superseded ones are left out.
const ENTRIES_MAX: u64 = (1 << 13) / 64 - 1;

/// Gives the log's name to a copy of it, as a restored backup has.
fn replace_by_copy(log: &Path) {
    let copy = log.with_file_name("copy");
    fs::copy(log, &copy).unwrap();
    fs::rename(copy, log).unwrap();
}

#[test]
fn a_log_that_cannot_be_read_again_ends_no_session_less() {
    for is_longer in [false, true] {
        for call in 0.. {
            let stores = Stores::new();
            let [ada, eve] = [of("ada"), of("eve")].map(|record| stores.create(&record));
            let store = &stores.all[0];
            let Lookup::Live(live) = store.load(&ada).unwrap() else { panic!("it is alive") };
            stores.all[1].delete_of("ada", None).unwrap();
            // More than one part of a log.
            for n in 0..7 {
                stores.all[1].delete_of(&format!("user {n}"), None).unwrap();
            }
            // A copy of eve's session is checked in the present view.
            assert_eq!([stores.alive(&ada), stores.alive(&eve)], [[false; 3], [true; 3]]);
            let last = store.coherence.last_cut_off(true).unwrap();
            if is_longer {
                let other = &stores.all[1];
                // Six entries fill two parts, and the reading of the third one may fail.
                (0..5).for_each(|n| other.delete_of(&format!("later {n}"), None).unwrap());
                other.delete_of("eve", None).unwrap();
            } else {
                replace_by_copy(&stores.log());
                stores.look();
            }
            let fault = Fault { call, errno: Errno::IO, then: Then::Works };
            let (read, calls) = during_with_looks(fault.plan(), || store.coherence.cut_off_view());
            let context = format!("in call {call} of {calls:?}");
            // Another thread may have looked at the counter before.
            assert_eq!(store.coherence.standing(&live.record, &live.id), None, "{context}");
            let read = read.is_ok();
            assert_eq!(stores.alive(&ada), [false; 3], "{context}");
            assert_eq!(stores.alive(&eve), [!is_longer; 3], "{context}");
            assert!(store.coherence.last_cut_off(true).unwrap() >= last, "{context}");
            if read && calls.len() <= call {
                break;
            }
        }
    }
}

#[test]
fn a_view_is_never_that_of_a_log_that_is_not_read_yet() {
    let stores = Stores::new();
    let store = &stores.all[0];
    stores.all[1].delete_of("ada", None).unwrap();
    let before = store.coherence.cut_off_view().unwrap();
    assert_eq!(store.coherence.cut_off_view().unwrap(), before);
    // An entry without a move of the counter, as of a process that was killed.
    let dying = FileStoreOptions::new().watch(false).open(stores.dir.path()).unwrap();
    assert!(dies_at("sync file", || dying.delete_of("eve", None)));
    assert_eq!(store.coherence.cut_off_view().unwrap(), before);
    stores.look();
    assert_ne!(store.coherence.cut_off_view().unwrap(), before);
}

#[test]
fn a_look_at_a_log_that_is_as_it_was_doubts_no_session() {
    let deeds: [fn(&Path); 4] = [
        |_| {},
        |log| {
            let bytes = fs::read(log).unwrap();
            fs::write(log, [&bytes[..], &bytes[64..70]].concat()).unwrap();
        },
        |log| flip(log, 70),
        |log| fs::remove_file(log).unwrap(),
    ];
    for (n, deed) in deeds.into_iter().enumerate() {
        let stores = Stores::new();
        (0..3).for_each(|_| stores.all[0].delete_of("ada", None).unwrap());
        deed(&stores.log());
        let stores = Stores::in_dir(stores.dir);
        for store in &stores.all {
            let before = store.coherence.cut_off_view().unwrap();
            store.coherence.look_at_cut_offs();
            let (after, calls) = during_with_looks(|_, _| None, || store.coherence.cut_off_view().unwrap());
            assert_eq!(after, before, "deed {n}");
            assert!(calls.iter().all(|call| *call == "stat cut-offs"), "deed {n}: {calls:?}");
        }
    }
}

/// A store that has not looked since before an older log was written over the file, while other processes ended
/// sessions.
#[test]
fn an_idle_store_sees_the_cut_offs_that_follow_an_older_log() {
    for (more, by_name) in (0..4).flat_map(|more| [false, true].map(|by_name| (more, by_name))) {
        let stores = Stores::new();
        stores.all[0].delete_of("bob", None).unwrap();
        let backup = fs::read(stores.log()).unwrap();
        let idle = [1 << 20, 0].map(|bytes| {
            let options = FileStoreOptions::new().cache_bytes(bytes).watch(false);
            options.open(stores.dir.path()).unwrap()
        });
        for user in ["mallory", "trent"] {
            stores.all[0].delete_of(user, None).unwrap();
        }
        let [ada, eve] = [of("ada"), of("eve")].map(|record| stores.create(&record));
        assert!(idle.iter().all(|store| is_alive(store, &ada) && is_alive(store, &eve)));
        // The idle stores have read three entries.
        if by_name {
            fs::remove_file(stores.log()).unwrap();
        }
        fs::write(stores.log(), &backup).unwrap();
        stores.look();
        stores.all[0].delete_of("ada", None).unwrap();
        for n in 0..more {
            stores.all[0].delete_of(&format!("user {n}"), None).unwrap();
        }
        stores.all[0].delete_of("eve", None).unwrap();
        for store in &idle {
            assert!(!is_alive(store, &ada) && !is_alive(store, &eve), "{more} more, by name: {by_name}");
        }
    }
}

/// All sessions that a lost log had ended stay dead, whichever call of the remedy is the last one.
#[test]
fn ending_all_without_a_log_brings_no_session_back_on_its_way() {
    let losses: [fn(&Path); 2] = [|log| fs::remove_file(log).unwrap(), |log| flip(log, 70)];
    for (lose, dies) in losses.into_iter().flat_map(|lose| [true, false].map(|dies| (lose, dies))) {
        for call in 0.. {
            let stores = Stores::new();
            let [ada, bob] = [of("ada"), of("bob")].map(|record| stores.create(&record));
            for user in ["ada", "eve", "mallory"] {
                stores.all[0].delete_of(user, None).unwrap();
            }
            lose(&stores.log());
            let stores = Stores::in_dir(stores.dir);
            let acting = FileStoreOptions::new().watch(false).open(stores.dir.path()).unwrap();
            let done = if dies {
                dying_in_call(call, || acting.delete_all())
            } else {
                let fault = Fault { call, errno: Errno::NOSPC, then: Then::Works };
                let (done, calls) = during_with_looks(fault.plan(), || acting.delete_all());
                (calls.len() <= call || done.is_err()).then_some(done)
            };
            stores.look();
            assert_eq!(
                [stores.alive(&ada), stores.alive(&bob)],
                [[false; 3]; 2],
                "call {call}, dies: {dies}"
            );
            let reopened = Stores::in_dir(stores.dir);
            assert_eq!([reopened.alive(&ada), reopened.alive(&bob)], [[false; 3]; 2], "call {call}");
            if done.is_some_and(|done| done.is_ok()) {
                break;
            }
        }
    }
}

#[test]
fn a_log_that_is_restored_while_all_are_ended_is_kept() {
    let stores = Stores::new();
    let bob = stores.create(&of("bob"));
    stores.all[0].delete_of("ada", None).unwrap();
    let whole = fs::read(stores.log()).unwrap();
    fs::remove_file(stores.log()).unwrap();
    let (log, bytes) = (stores.log(), whole.clone());
    let restore = move |_, name: &str| {
        if name == "move file" {
            fs::write(&log, &bytes).unwrap();
        }
        None
    };
    let (done, calls) = during(restore, || stores.all[0].delete_all());
    done.unwrap();
    assert_eq!(calls.iter().filter(|call| **call == "move file").count(), 1, "{calls:?}");
    // All but the flags in its header.
    assert!(fs::read(stores.log()).unwrap()[64..].starts_with(&whole[64..]));
    stores.look();
    assert_eq!(stores.alive(&bob), [false; 3]);
}

/// The log is lost after its writer has read it: a log in its place without the earlier entries would hide the loss.
#[test]
fn a_log_that_is_lost_while_it_is_rewritten_is_not_replaced_by_an_empty_one() {
    let stores = Stores::new();
    let ada = stores.create(&of("ada"));
    stores.all[0].delete_of("ada", None).unwrap();
    let entries = || fs::metadata(stores.log()).unwrap().len() / 64;
    let mut reads_of_one = 0;
    while entries() < 17 {
        let (done, calls) = during(|_, _| None, || stores.all[0].delete_of("bob", None));
        done.unwrap();
        reads_of_one = calls.iter().filter(|call| **call == "read").count();
    }
    let (log, store) = (stores.log(), Arc::clone(&stores.all[0]));
    let mut reads = 0;
    let lose = move |_, name: &str| {
        reads += usize::from(name == "read");
        // The flags are read last, and no lock of the log in memory is held.
        if reads == reads_of_one && name == "read" {
            let (log, store) = (log.clone(), Arc::clone(&store));
            let lose = move || {
                fs::remove_file(log).unwrap();
                store.coherence.look_at_cut_offs();
                store.coherence.cut_off_view().unwrap();
            };
            thread::spawn(lose).join().unwrap();
        }
        None
    };
    let (done, calls) = during_with_looks(lose, || stores.all[0].delete_of("bob", None));
    assert_eq!(done.unwrap_err().kind(), ErrorKind::Corrupt, "{calls:?}");
    stores.look();
    assert_eq!(stores.alive(&ada), [false; 3]);
}

#[test]
fn a_full_log_refuses_users_and_ending_all_makes_room() {
    let stores = Stores::new();
    let [ada, bob] = [of("ada"), of("bob")].map(|record| stores.create(&record));
    stores.all[0].delete_of("ada", None).unwrap();
    let refused = (1..).find_map(|n| Some((n, stores.all[0].delete_of(&format!("user {n}"), None).err()?)));
    let (entries, error) = refused.unwrap();
    assert_eq!((entries, error.kind()), (ENTRIES_MAX, ErrorKind::Full), "{error}");
    assert_eq!([stores.alive(&ada), stores.alive(&bob)], [[false; 3], [true; 3]]);
    stores.all[1].delete_all().unwrap();
    assert_eq!(fs::metadata(stores.log()).unwrap().len(), 128);
    assert_eq!([stores.alive(&ada), stores.alive(&bob)], [[false; 3]; 2]);
    stores.all[2].delete_of("user 1", None).unwrap();
}

#[test]
fn the_last_number_is_an_error_and_no_number_comes_twice() {
    let stores = Stores::new();
    let ada = stores.create(&of("ada"));
    fs::remove_file(stores.log()).unwrap();
    CutOffs::make(&Root::open(stores.dir.path()).unwrap(), u64::MAX).unwrap();
    stores.look();
    let whole = fs::read(stores.log()).unwrap();
    for store in &stores.all {
        assert_eq!(store.delete_of("ada", None).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(store.delete_all().unwrap_err().kind(), ErrorKind::Corrupt);
    }
    assert_eq!(fs::read(stores.log()).unwrap(), whole);
    assert_eq!(stores.alive(&ada), [true; 3]);
    // The clock stands still, and is set back.
    let dir = directory();
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + HOUR);
    let store = FileStoreOptions::new().watch(false).clock(clock.clone()).open(dir.path()).unwrap();
    for back in [0, 0, 1, 1_000_000] {
        clock.set(SystemTime::UNIX_EPOCH + HOUR - Duration::from_micros(back));
        let token = store.create(&of("ada"), Durability::Relaxed).unwrap().token;
        store.delete_of("ada", None).unwrap();
        let later = store.create(&of("ada"), Durability::Relaxed).unwrap().token;
        assert!(!is_alive(&store, &token) && is_alive(&store, &later), "{back} µs back");
    }
}

#[test]
fn an_imported_session_is_ended_though_the_clock_was_set_back_since() {
    let dir = directory();
    let start = SystemTime::UNIX_EPOCH + 1000 * HOUR;
    let clock = Clock::manual(start);
    let store = FileStoreOptions::new().watch(false).clock(clock.clone()).open(dir.path()).unwrap();
    let imported = |user: &str, began: SystemTime| {
        let record = Record::new(began, start + 2000 * HOUR).with_user(user).unwrap();
        let session = SessionId::random().unwrap();
        assert!(store.import(&session.public_id(), &record, Durability::Relaxed).unwrap());
        is_alive(&store, &session.to_token())
    };
    let micro = Duration::from_micros(1);
    store.delete_of("ada", None).unwrap();
    // A login of the same microsecond may have returned before.
    assert_eq!([start - micro, start, start + micro].map(|at| imported("ada", at)), [false, false, true]);
    // The clock was wrong by an hour when the first one happened.
    clock.set(start - HOUR);
    store.delete_of("ada", None).unwrap();
    assert_eq!([start - micro, start, start + micro].map(|at| imported("ada", at)), [false, false, true]);
    assert!(imported("bob", start - 2 * HOUR));
    let reopened = FileStoreOptions::new().watch(false).clock(clock.clone()).open(dir.path()).unwrap();
    drop(store);
    let store = reopened;
    store.delete_all().unwrap();
    let imported = |user: &str, began: SystemTime| {
        let record = Record::new(began, start + 2000 * HOUR).with_user(user).unwrap();
        let session = SessionId::random().unwrap();
        assert!(store.import(&session.public_id(), &record, Durability::Relaxed).unwrap());
        is_alive(&store, &session.to_token())
    };
    for user in ["ada", "bob"] {
        assert_eq!([start - micro, start, start + micro].map(|at| imported(user, at)), [false, false, true]);
    }
}

#[test]
fn a_reader_waits_for_a_writer_before_it_reports_damage() {
    let stores = Stores::new();
    let ada = stores.create(&of("ada"));
    (0..2).for_each(|_| stores.all[0].delete_of("bob", None).unwrap());
    let whole = fs::read(stores.log()).unwrap();
    let file = fs::OpenOptions::new().write(true).open(stores.log()).unwrap();
    let held = LockedFile::acquire(file, Instant::now()).unwrap().unwrap();
    fs::write(stores.log(), &whole[..20]).unwrap();
    stores.look();
    let (store, token) = (Arc::clone(&stores.all[1]), ada.clone());
    let reader = thread::spawn(move || is_alive(&store, &token));
    thread::sleep(Duration::from_millis(100));
    assert!(!reader.is_finished());
    fs::write(stores.log(), &whole).unwrap();
    drop(held);
    assert!(reader.join().unwrap());
    assert_eq!((stores.alive(&ada), stores.lost.load(Ordering::SeqCst)), ([true; 3], 0));
}

/// The file grows after its size was read, in each call of a reading.
#[test]
fn a_log_that_grows_while_it_is_read_is_read_to_its_end() {
    for (call, more) in (0..8).flat_map(|call| (1..6).map(move |more| (call, more))) {
        let stores = Stores::new();
        stores.all[0].delete_of("bob", None).unwrap();
        let ada = stores.create(&of("ada"));
        stores.all[0].delete_of("eve", None).unwrap();
        let other = Arc::clone(&stores.all[0]);
        let grow = move |n, _: &str| {
            if n == call {
                let other = Arc::clone(&other);
                let cut = move || (0..more).for_each(|_| other.delete_of("ada", None).unwrap());
                thread::spawn(cut).join().unwrap();
            }
            None
        };
        let (read, calls) = during_with_looks(grow, || stores.all[1].coherence.cut_off_view());
        read.unwrap();
        assert!(calls.len() <= call || stores.alive(&ada) == [false; 3], "{more} entries in call {call}");
    }
}

/// Also if other processes may not know it for a second.
#[test]
fn the_store_of_a_cut_off_that_is_visible_knows_it_at_once() {
    let mut kinds = Vec::new();
    for call in 0.. {
        let stores = Stores::new();
        let ada = stores.create(&of("ada"));
        let fault = Fault { call, errno: Errno::IO, then: Then::Works };
        let (done, calls) = during(fault.plan(), || stores.all[0].delete_of("ada", None));
        if calls.len() <= call {
            break;
        }
        let kind = done.map_err(|error| error.kind()).err();
        let is_over = kind.is_none_or(may_be_visible);
        assert!(!is_over || !is_alive(&stores.all[0], &ada), "{kind:?}");
        kinds.extend(kind);
    }
    assert!(kinds.contains(&ErrorKind::InvalidationFailed) && kinds.contains(&ErrorKind::DurabilityUnknown));
}

#[test]
fn the_first_cut_off_in_a_file_syncs_its_name_and_a_failure_is_not_forgotten() {
    let stores = Stores::new();
    let syncs = |calls: &[&str]| calls.iter().filter(|call| **call == "sync shard").count();
    let (done, calls) =
        during(failing_syncs(|_| false, &["sync shard"]), || stores.all[0].delete_of("bob", None));
    assert_eq!(done.unwrap_err().kind(), ErrorKind::DurabilityUnknown, "{calls:?}");
    for (store, want) in stores.all.iter().zip([1, 0, 0]) {
        let (done, calls) = during(|_, _| None, || store.delete_of("bob", None));
        done.unwrap();
        assert_eq!(syncs(&calls), want, "{calls:?}");
    }
}

#[test]
fn an_entry_in_a_file_that_lost_its_name_meanwhile_is_written_again() {
    let stores = Stores::new();
    let ada = stores.create(&of("ada"));
    let (log, copy) = (stores.log(), stores.dir.path().join("copy"));
    fs::copy(&log, &copy).unwrap();
    let restore = move |_, name: &str| {
        if name == "sync file" && copy.exists() {
            fs::rename(&copy, &log).unwrap();
        }
        None
    };
    during(restore, || stores.all[0].delete_of("ada", None)).0.unwrap();
    stores.look();
    assert_eq!(stores.alive(&ada), [false; 3]);
}

#[test]
fn a_log_that_is_lost_while_its_sync_fails_is_not_replaced() {
    let stores = Stores::new();
    let ada = stores.create(&of("ada"));
    stores.all[0].delete_of("ada", None).unwrap();
    let (log, store) = (stores.log(), Arc::clone(&stores.all[0]));
    let lose = move |_, name: &str| {
        let is_first = name == "sync file" && log.exists();
        is_first.then(|| {
            fs::remove_file(&log).unwrap();
            store.coherence.look_at_cut_offs();
            store.coherence.cut_off_view().unwrap();
            Errno::IO.raw_os_error()
        })
    };
    let (done, _) = during(lose, || stores.all[0].delete_of("bob", None));
    assert_eq!(done.unwrap_err().kind(), ErrorKind::DurabilityUnknown);
    stores.look();
    assert_eq!(stores.alive(&ada), [false; 3]);
}

#[test]
fn a_user_who_is_set_without_a_login_was_cut_off_in_every_store() {
    let stores = Stores::new();
    let token = stores.create(&record("old"));
    stores.all[1].delete_of("bob", None).unwrap();
    let mut change = |record: &mut Record| record.set_user("bob").map(|()| Verdict::Write);
    stores.all[0].update(&token, &mut change, Durability::Relaxed).unwrap().unwrap();
    assert_eq!(stores.alive(&token), [false; 3]);
}
