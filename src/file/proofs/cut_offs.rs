//! No order of a cut-off and other operations leaves an ended session alive, in the process of the cut-off or in
//! another one.
use super::*;
use crate::file::read_cache::{Found, Key, Trust};
use crate::store::{Rotation, Saved};
use crate::sync::step;
use std::sync::Mutex;

/// What the operations of one run share.
struct Run {
    /// Two sessions of ada, who had logged in, and one of no user.
    ada: Token,
    kept: Token,
    anonymous: Token,
    /// Whether a cut-off has returned.
    is_cut: AtomicBool,
    /// The successors of `ada`.
    rotated: Mutex<Vec<Token>>,
    /// The logins that have returned, each with whether a cut-off had returned before it began.
    logged_in: Mutex<Vec<(Token, bool)>>,
}

type Operation = fn(&FileStore, &Run);

const CUT_OFF: Operation = |store, run| {
    store.delete_of("ada", None).unwrap();
    run.is_cut.store(true, SeqCst);
};
const CUT_OFF_OTHERS: Operation = |store, run| {
    store.delete_of("ada", Some(&run.kept)).unwrap();
    run.is_cut.store(true, SeqCst);
};
const LOAD: Operation = |store, run| {
    let was_cut = run.is_cut.load(SeqCst);
    step();
    let seen = load(store, &run.ada);
    assert!(!(was_cut && seen.is_some()), "an ended session is served");
};
const SAVE: Operation = |store, run| {
    let was_cut = run.is_cut.load(SeqCst);
    let saved = store.update(&run.ada, &mut |_| Ok(Verdict::Write), Durability::Relaxed).unwrap();
    assert!(!(was_cut && saved.is_some()), "an ended session is saved");
};
const ROTATE: Operation = |store, run| {
    let rotated = store.rotate(&run.ada, &mut |_| Ok(Verdict::Keep), &Rotation::default()).unwrap();
    run.rotated.lock().unwrap().extend(rotated.map(|Saved { token, .. }| token));
};
const LOG_IN: Operation = |store, run| {
    let was_cut = run.is_cut.load(SeqCst);
    let mut change = |record: &mut Record| record.set_user("ada").map(|()| Verdict::Write);
    let how = Rotation::new(Durability::Relaxed).login("ada");
    let Saved { token, .. } = store.rotate(&run.anonymous, &mut change, &how).unwrap().unwrap();
    run.logged_in.lock().unwrap().push((token, was_cut));
};
/// Without a look at the counter.
const LOAD_UNCHECKED: Operation = |store, run| {
    let was_cut = run.is_cut.load(SeqCst);
    step();
    let found = store.coherence.cache().get(&Key::of(&session(&run.ada)), |_, _| Trust::Yes);
    assert!(!(was_cut && matches!(found, Found::Trusted(..))), "an ended session is served");
};

fn model(operations: &'static [(usize, Operation)], excepts: bool) {
    let stores = OnceLock::new();
    check(2, move || {
        let (_, stores) = stores.get_or_init(|| {
            let fixture = Fixture::new();
            let stores = [fixture.open(LONG), fixture.open(LONG)];
            // The first one also syncs the name of the log.
            stores[0].delete_of("eve", None).unwrap();
            (fixture, stores)
        });
        let create = |user: &str| {
            let mut record = record(1, stores[0].now(), Duration::from_secs(86_400));
            record.set_user(user).unwrap();
            stores[0].create(&record, Durability::Relaxed).unwrap().token
        };
        let run = Arc::new(Run {
            ada: create("ada"),
            kept: create("ada"),
            anonymous: create(""),
            is_cut: AtomicBool::default(),
            rotated: Mutex::default(),
            logged_in: Mutex::default(),
        });
        // All have a copy.
        for (store, token) in
            stores.iter().flat_map(|store| [&run.ada, &run.kept].map(|token| (store, token)))
        {
            assert_eq!(load(store, token), Some(1));
        }
        let start = |(at, operation): &(usize, Operation)| {
            let (store, run, operation) = (Arc::clone(&stores[*at]), Arc::clone(&run), *operation);
            shuttle::thread::spawn(move || operation(&store, &run))
        };
        let threads: Vec<_> = operations.iter().map(start).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let (rotated, logged_in) = (run.rotated.lock().unwrap(), run.logged_in.lock().unwrap());
        for store in stores {
            assert_eq!(load(store, &run.ada), None);
            assert_eq!(load(store, &run.kept).is_some(), excepts);
            assert!(rotated.iter().all(|token| load(store, token).is_none()), "a successor is alive");
            let mut later = logged_in.iter().filter(|(_, began_later)| *began_later);
            assert!(later.all(|(token, _)| load(store, token).is_some()), "a later login is dead");
            assert_eq!(store.queues.len(), 0, "a queue is left");
        }
        let all = [&run.ada, &run.kept, &run.anonymous];
        for token in all.into_iter().chain(rotated.iter()).chain(logged_in.iter().map(|(token, _)| token)) {
            stores[0].delete(token).unwrap();
        }
    });
}

#[test]
fn no_process_serves_or_saves_a_session_after_its_cut_off() {
    model(&[(0, CUT_OFF), (1, LOAD), (0, LOAD)], false);
    model(&[(0, CUT_OFF), (1, SAVE), (1, LOAD)], false);
    model(&[(0, CUT_OFF_OTHERS), (1, LOAD)], true);
}

#[test]
fn no_successor_of_an_ended_session_lives_and_every_later_login_does() {
    model(&[(0, CUT_OFF), (1, ROTATE)], false);
    model(&[(0, CUT_OFF), (1, LOG_IN)], false);
    model(&[(0, CUT_OFF_OTHERS), (0, ROTATE)], true);
}

#[test]
#[should_panic(expected = "an ended session is served")]
fn a_copy_returned_without_a_look_at_the_counter_is_detected() {
    model(&[(0, CUT_OFF), (1, LOAD_UNCHECKED)], false);
}
