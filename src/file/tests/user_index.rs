//! The user index under faults, kills and compaction: no list that says that it is complete lacks a session.
use super::*;
use crate::admin::{Admin, SweepOptions};
use crate::file::layout::{COMPLETE, USERS, user_bucket_name};
use crate::file::user_index::{ENTRY_BYTES, bucket_of, compact_now};
use crate::id::PublicId;
use crate::record::user_digest;
use crate::store::Page;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

fn of_ada() -> Record {
    record("x").with_user("ada").unwrap()
}

fn create(store: &FileStore) -> Result<PublicId> {
    store.create(&of_ada(), Durability::Relaxed).map(|saved| saved.live.id)
}

/// The sessions of "ada" that are listed, and whether the list is complete.
fn listed(store: &FileStore) -> (BTreeSet<PublicId>, bool) {
    let page = store.sessions_of("ada", &Page { after: None, limit: usize::MAX }).unwrap();
    (page.sessions.iter().map(|session| session.id).collect(), page.complete)
}

fn bucket() -> u16 {
    bucket_of(&user_digest("ada").unwrap())
}

fn entries(fixture: &Fixture) -> usize {
    let path = fixture.dir.path().join(USERS).join(user_bucket_name(bucket()));
    usize::try_from(fs::metadata(path).map_or(0, |file| file.len())).unwrap() / ENTRY_BYTES
}

/// Under the bucket's shared lock: open, lock, whether it has its name, append.
const LISTED: [&str; 4] = ["open user bucket", "lock", "stat file", "append"];

#[test]
fn a_session_with_a_user_is_listed_before_its_file_is_made() {
    let fixture = Fixture::new();
    create(&fixture.store).unwrap();
    let made = ["open session", "lock", "stat file", "stat session", "write"];
    check_calls(&[&["append", "stat file"][..], &LISTED, &made].concat(), || create(&fixture.store));
    // The first session in a bucket makes it, and notes it in the map.
    let bob = record("x").with_user("bob").unwrap();
    let made_bucket = [
        "open user bucket",
        "open directory",
        "open file in directory",
        "open file in directory",
        "stat file",
        "lock",
        "stat in directory",
        "open file in directory",
        "stat file",
        "read",
        "write",
    ];
    let calls = [&["append", "stat file"][..], &made_bucket, &LISTED, &made].concat();
    check_calls(&calls, || fixture.store.create(&bob, Durability::Relaxed));
    // A save lists only another user.
    let saved = fixture.store.create(&of_ada(), Durability::Relaxed).unwrap();
    let set = |user: &str| {
        let mut change = |record: &mut Record| record.set_user(user).map(|()| Verdict::Write);
        fixture.store.update(&saved.token, &mut change, Durability::Relaxed)
    };
    let save = ["open session", "lock", "read"];
    let written = ["write", "invalidate"];
    check_calls(&[&save[..], &written].concat(), || set("ada"));
    check_calls(&[&save[..], &LISTED, &written].concat(), || set("bob"));
    check_calls(&[&save[..], &written].concat(), || set(""));
}

#[test]
fn a_list_reads_the_marker_the_map_the_bucket_and_the_sessions() {
    let fixture = Fixture::new();
    (0..2).for_each(|_| assert!(create(&fixture.store).is_ok()));
    let calls = [
        "open directory",
        // The marker comes first, and the map before the bucket.
        "stat in directory",
        "open file in directory",
        "read",
        "open directory",
        "open file in directory",
        "read",
        "open file in directory",
        "stat file",
        "read",
        "open session",
        "read",
        "open session",
        "read",
    ];
    check_calls(&calls, || fixture.store.sessions_of("ada", &Page::default()));
}

/// Which sessions were created at all: those that have a file with a version.
fn existing(fixture: &Fixture) -> BTreeSet<PublicId> {
    let files = fixture.store.files().map(|file| file.unwrap().content);
    files.filter_map(|content| if let Content::Live(live) = content { Some(live.id) } else { None }).collect()
}

/// After an operation with faults: a complete list has every session.
#[track_caller]
fn check_list(fixture: &Fixture, context: &str) {
    for store in [&fixture.store, &fixture.reopened(FileStoreOptions::new())] {
        let (found, is_complete) = listed(store);
        let existing = existing(fixture);
        assert!(!is_complete || found == existing, "{context}: {found:?} of {existing:?}");
        assert!(found.is_subset(&existing), "{context}");
    }
}

#[test]
fn a_failed_insertion_fails_no_login_and_no_complete_list_lacks_it() {
    for prepared in [false, true] {
        let (mut failed, mut calls_made) = (0, 0);
        for call in 0.. {
            let fixture = Fixture::new();
            if prepared {
                create(&fixture.store).unwrap();
            }
            let fault = Fault { call, errno: Errno::IO, then: Then::Works };
            let (created, calls) = during(fault.plan(), || create(&fixture.store));
            let context = format!("call {call}, {:?}", calls.get(call));
            if calls.len() <= call {
                break;
            }
            calls_made += 1;
            let failures = fixture.store.stats().files.index_failures;
            if created.is_ok() && failures > 0 {
                let of_users = !fixture.dir.path().join(USERS).join(COMPLETE).exists();
                failed += usize::from(of_users);
            }
            check_list(&fixture, &context);
            fixture.check_nothing_is_held(&context);
            // A sweep makes the list complete, and finds the session.
            fixture.store.sweep(&SweepOptions::new().cpu_percent(100)).unwrap();
            let (found, is_complete) = listed(&fixture.store);
            assert!(is_complete && found == existing(&fixture), "{context}");
        }
        assert!(
            failed >= LISTED.len() && calls_made > failed,
            "{failed} insertions of {calls_made} calls failed"
        );
    }
}

#[test]
fn a_process_killed_in_any_call_of_a_login_leaves_a_sound_list() {
    for prepared in [false, true] {
        for call in 0.. {
            let fixture = Fixture::new();
            if prepared {
                create(&fixture.store).unwrap();
            }
            let is_alive = dying_in_call(call, || create(&fixture.store)).is_some();
            check_list(&fixture, &format!("killed in call {call}"));
            let next = create(&fixture.reopened(FileStoreOptions::new())).unwrap();
            let (found, is_complete) = listed(&fixture.store);
            assert!(is_complete && found.contains(&next), "killed in call {call}");
            if is_alive {
                break;
            }
        }
    }
}

/// The rotation of a session with a user: one of its ids is listed, whatever fails.
#[test]
fn any_failed_call_of_a_rotation_leaves_the_session_listed() {
    for call in 0.. {
        let fixture = Fixture::new();
        let saved = fixture.store.create(&of_ada(), Durability::Relaxed).unwrap();
        let fault = Fault { call, errno: Errno::IO, then: Then::Works };
        let rotate =
            || fixture.store.rotate(&saved.token, &mut |_| Ok(Verdict::Keep), &Durability::Relaxed.into());
        let (_, calls) = during(fault.plan(), rotate);
        check_list(&fixture, &format!("call {call}"));
        if calls.len() <= call {
            break;
        }
    }
}

#[test]
fn a_bucket_is_not_compacted_while_a_creation_is_under_way() {
    let fixture = Fixture::new();
    let other = fixture.reopened(FileStoreOptions::new());
    for _ in 0..10 {
        other.delete_by_id(&create(&fixture.store).unwrap()).unwrap();
    }
    let results = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&results);
    let compact = {
        let other = Arc::clone(&other);
        move || compact_now(&other.root, bucket()).unwrap()
    };
    let interrupt = {
        let compact = compact.clone();
        move |_, call| {
            // The entry is there, and the session is not.
            if call == "open session" {
                seen.lock().unwrap().push(compact());
            }
            None
        }
    };
    let created = during(interrupt, || create(&fixture.store)).0.unwrap();
    assert_eq!(*results.lock().unwrap(), [false], "it must wait for the creation");
    assert!(compact(), "nothing hinders it now");
    assert_eq!(entries(&fixture), 1);
    assert_eq!(listed(&fixture.store), (BTreeSet::from([created]), true));
}

/// A compaction between the opening of the bucket and its lock: the entry goes to the bucket that has the name.
#[test]
fn an_entry_never_goes_to_a_bucket_that_was_replaced() {
    let fixture = Fixture::new();
    let other = fixture.reopened(FileStoreOptions::new());
    fixture.store.delete_by_id(&create(&fixture.store).unwrap()).unwrap();
    for times in [1, 2] {
        let (root, mut left) = (other.root.clone(), times);
        let interrupt = move |_, call| {
            if call == "lock" && left > 0 {
                left -= 1;
                assert!(compact_now(&root, bucket()).unwrap());
            }
            None
        };
        let created = during(interrupt, || create(&fixture.store)).0.unwrap();
        assert_eq!(listed(&fixture.store), (BTreeSet::from([created]), true));
        fixture.store.delete_by_id(&created).unwrap();
    }
}

#[test]
fn a_bucket_of_ended_sessions_stays_small() {
    let fixture = Fixture::with(FileStoreOptions::new().sync_security_events(false));
    let kept = create(&fixture.store).unwrap();
    for _ in 0..1000 {
        fixture.store.delete_by_id(&create(&fixture.store).unwrap()).unwrap();
        assert!(entries(&fixture) <= 96, "{} entries", entries(&fixture));
    }
    assert_eq!(listed(&fixture.store), (BTreeSet::from([kept]), true));
}

#[test]
fn a_bucket_of_live_sessions_is_not_rewritten() {
    let fixture = Fixture::new();
    let path = fixture.dir.path().join(USERS).join(user_bucket_name(bucket()));
    create(&fixture.store).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    (0..300).for_each(|_| assert!(create(&fixture.store).is_ok()));
    assert_eq!((fs::metadata(&path).unwrap().ino(), entries(&fixture)), (inode, 301));
    assert_eq!(listed(&fixture.store).0.len(), 301);
}

/// Sessions that live all the time are in every list, while others come and go, rotate, and the bucket is compacted.
#[test]
fn no_list_lacks_a_session_while_its_bucket_is_compacted() {
    let fixture = Fixture::with(FileStoreOptions::new().sync_security_events(false));
    let kept: BTreeSet<_> = (0..5).map(|_| create(&fixture.store).unwrap()).collect();
    let (is_over, lists) = (AtomicBool::new(false), Mutex::new(0));
    let stores: Vec<_> =
        (0..4).map(|_| fixture.reopened(FileStoreOptions::new().sync_security_events(false))).collect();
    thread::scope(|scope| {
        let workers: Vec<_> = stores[..3]
            .iter()
            .map(|store| {
                scope.spawn(|| {
                    for _ in 0..150 {
                        let saved = store.create(&of_ada(), Durability::Relaxed).unwrap();
                        // A session that has just been created is in the next list, of any process.
                        assert!(listed(store).0.contains(&saved.live.id));
                        store.delete(&saved.token).unwrap();
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let _ = compact_now(&stores[3].root, bucket()).unwrap();
            }
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let (found, is_complete) = listed(&fixture.store);
                assert!(is_complete && kept.is_subset(&found), "{found:?}");
                *lists.lock().unwrap() += 1;
            }
        });
        let ended: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
    assert_eq!(listed(&fixture.store), (kept, true));
    assert!(*lists.lock().unwrap() > 0);
    fixture.check_nothing_is_held("at the end");
}

/// A walk that would complete the index while an insertion fails: the session's shard may have been walked already.
#[test]
fn a_walk_beside_a_failed_insertion_completes_nothing() {
    let fixture = Fixture::new();
    let other = fixture.reopened(FileStoreOptions::new());
    fs::remove_file(fixture.dir.path().join(USERS).join(COMPLETE)).unwrap();
    let mut shards = 0;
    let interrupt = move |_, call| {
        shards += usize::from(call == "list directory");
        // Behind all shards, before the buckets.
        if call == "list directory" && shards == 4 + 256 + 1 {
            let fail = |_, call| (call == "append").then_some(libc::EIO);
            // Both indexes fail; only the user index is looked at.
            during_nested(fail, || create(&other).unwrap());
        }
        None
    };
    let options = SweepOptions::new().cpu_percent(100);
    let (swept, _) = during(interrupt, || fixture.store.sweep(&options));
    swept.unwrap();
    assert_eq!(listed(&fixture.store), (BTreeSet::new(), false));
    fixture.store.sweep(&options.full(true)).unwrap();
    assert_eq!(listed(&fixture.store).0.len(), 1);
    assert!(listed(&fixture.store).1);
}

/// Runs an operation with a plan of its own inside a plan: on another thread.
fn during_nested<R: Send>(
    fail: impl FnMut(usize, &'static str) -> Option<i32> + Send + 'static,
    operation: impl FnOnce() -> R + Send,
) -> R {
    thread::scope(|scope| scope.spawn(|| during(fail, operation).0).join().unwrap())
}
