//! The promise: a load that begins after a save or an end has returned sees its result or a newer one, in every
//! process; and an end is final. Each model runs some operations at the same time on one session, in the stores of one
//! process or of several, and then loads the session in each store once more. In a negative model, one operation breaks
//! a rule of `design`, and the model must find a stale load.
use super::*;
use crate::file::SessionRef;
use crate::file::disk;
use crate::file::generations::{Cause, Stamp};
use crate::file::read_cache::{Found, Fresh, Key, Trust};
use crate::file::session_lock::{Locked, write_tombstone};
use crate::file::slot::{self, Mark, State, Version};
use crate::file::slots::View;
use crate::store::{Live, Rotation, Saved};
use crate::sync::step;
use std::sync::atomic::AtomicU64;

/// The acknowledged state of a session.
#[derive(Default)]
struct Acknowledged {
    /// The newest version that was acknowledged.
    version: AtomicU64,
    saves: AtomicU64,
    is_ended: AtomicBool,
    /// Whether a logout has returned.
    is_logged_out: AtomicBool,
    /// The tokens to which the session was moved.
    successors: std::sync::Mutex<Vec<Token>>,
}

/// An operation that is under way.
struct Acting<'a> {
    store: &'a FileStore,
    token: &'a Token,
    acknowledged: &'a Acknowledged,
}

impl Acting<'_> {
    fn session(&self) -> SessionId {
        session(self.token)
    }

    /// Changes the session, and records the version that was acknowledged to the caller.
    fn update(&self, verdict: Verdict) {
        let was_ended = self.acknowledged.is_ended.load(SeqCst);
        let step = u64::from(verdict == Verdict::Write);
        let mut next = |record: &mut Record| {
            let version = version_of(record) + step;
            record.insert("version", &Value::new(&version).unwrap()).unwrap();
            Ok(verdict)
        };
        match self.store.update(self.token, &mut next, Durability::Relaxed) {
            Ok(Some(Saved { live, .. })) => {
                assert!(!was_ended, "revived: a session is saved after its end");
                self.acknowledge(version_of(&live.record), step);
            }
            Ok(None) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
        }
    }

    fn acknowledge(&self, version: u64, saves: u64) {
        self.acknowledged.saves.fetch_add(saves, SeqCst);
        self.acknowledged.version.fetch_max(version, SeqCst);
    }

    fn acknowledge_end(&self) {
        self.acknowledged.is_ended.store(true, SeqCst);
    }

    fn acknowledge_move(&self, successor: Token) {
        self.acknowledged.successors.lock().unwrap().push(successor);
        self.acknowledge_end();
    }

    /// Runs a load by the given function. It must not return a version older than the one that was acknowledged when
    /// the load began.
    fn check_load(&self, load: impl FnOnce() -> Option<u64>) {
        let floor = self.acknowledged.version.load(SeqCst);
        let was_ended = self.acknowledged.is_ended.load(SeqCst);
        step();
        let seen = load();
        assert!(!(was_ended && seen.is_some()), "stale: an ended session is served");
        let is_ended = self.acknowledged.is_ended.load(SeqCst);
        assert!(seen.is_none_or(|seen| seen >= floor), "stale: {seen:?} after version {floor}");
        assert!(seen.is_some() || was_ended || is_ended || self.is_being_ended(), "lost");
    }

    /// Whether the session file is gone, or has a tombstone or a mark. Its end may not have returned yet.
    fn is_being_ended(&self) -> bool {
        let bytes = std::fs::read(self.store.path().join(path_of(self.token))).unwrap_or_default();
        let is_end = |slot: &[u8]| slot.starts_with(b"GONE") || slot.starts_with(b"MOVE");
        bytes.is_empty() || [0, bytes.len() / 2].iter().any(|&slot| is_end(&bytes[slot..]))
    }

    /// Locks the session and writes its next version, as a relaxed save does, without the invalidation.
    fn write<'a>(&'a self, session: &'a SessionId) -> Option<(Locked<'a>, Record, Version)> {
        let locked = self.store.lock_live(session, None).unwrap()?;
        locked.invalidated.set(true);
        let next = record(version_of(&locked.newest.record) + 1, UNIX_EPOCH, Duration::from_secs(1 << 33));
        let (sequence, id) = (locked.newest.version.sequence + 1, locked.id);
        let bytes = slot::encode(
            &next,
            &slot::Header { id: &id, sequence, state: State::WRITTEN, slot_size_min: locked.slot_size },
            1 << 20,
        )
        .unwrap();
        disk::write_parts_at(&locked.file, bytes.parts(), locked.offset(1 - locked.slot)).unwrap();
        Some((locked, next, bytes.version()))
    }
}

type Operation = fn(&Acting<'_>);

const SAVE: Operation = |acting| acting.update(Verdict::Write);
const KEEP: Operation = |acting| acting.update(Verdict::Keep);
const LOAD: Operation = |acting| acting.check_load(|| load(acting.store, acting.token));
/// A load in a process that has no copy of the session.
const LOAD_ANEW: Operation = |acting| {
    acting.store.coherence.forget(&acting.session());
    LOAD(acting);
};
const END: Operation = |acting| {
    acting.store.delete(acting.token).unwrap();
    acting.acknowledge_end();
    acting.acknowledged.is_logged_out.store(true, SeqCst);
};
/// An end in a process that has no copy of the session, and so depends on the files only.
const END_ANEW: Operation = |acting| {
    acting.store.coherence.forget(&acting.session());
    END(acting);
};
/// A save for which the session needs a larger file.
const GROW: Operation = |acting| {
    let mut next = |record: &mut Record| {
        let version = version_of(record) + 1;
        record.insert("version", &Value::new(&version).unwrap()).unwrap();
        record.insert("text", &Value::new(&"x".repeat(4096)).unwrap()).unwrap();
        Ok(Verdict::Write)
    };
    if let Some(Saved { live, .. }) =
        acting.store.update(acting.token, &mut next, Durability::Relaxed).unwrap()
    {
        acting.acknowledge(version_of(&live.record), 1);
    }
};
const ROTATE: Operation = |acting| {
    let mut same = |_: &mut Record| Ok(Verdict::Keep);
    if acting.store.rotate(acting.token, &mut same, &Durability::Relaxed.into()).unwrap().is_some() {
        acting.acknowledge_end();
    }
};
/// A rotation with a grace period.
const MOVE: Operation = |acting| {
    let mut same = |_: &mut Record| Ok(Verdict::Keep);
    let how = Rotation::default().grace(LONG);
    match acting.store.rotate(acting.token, &mut same, &how) {
        Ok(saved) => drop(saved.map(|saved| acting.acknowledge_move(saved.token))),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
    }
};
/// A login under a moved id, which applies to the successor.
const LOG_IN: Operation = |acting| {
    let mut same = |_: &mut Record| Ok(Verdict::Keep);
    let how = Rotation::default().grace(LONG).login("ada");
    let saved = acting.store.rotate(acting.token, &mut same, &how).unwrap();
    acting.acknowledge_move(saved.expect("lost: a login finds the session, whatever its id").token);
};
/// A writer that is killed after its write and before its invalidation.
const DIE_AFTER_WRITING: Operation = |acting| drop(acting.write(&acting.session()));

/// A deleter that is killed after it has written the tombstone and before its invalidation.
const DIE_AFTER_MARKING: Operation = |acting| {
    let session = acting.session();
    let Some(locked) = acting.store.lock_live(&session, None).unwrap() else { return };
    locked.invalidated.set(true);
    write_tombstone(&locked.file, locked.offset(locked.slot)).unwrap();
};

/// Runs operations at the same time, each in the store with the given number. Each store has one of the wait limits.
fn model(preemptions_max: usize, waits: &'static [Duration], operations: &'static [(usize, Operation)]) {
    // The stores are opened in the first run, for all runs, because opening one takes longer than a run.
    let stores = OnceLock::new();
    check(preemptions_max, move || {
        let (_, stores) = stores.get_or_init(|| {
            let fixture = Fixture::new();
            let stores: Vec<_> = waits.iter().map(|wait| fixture.open(*wait)).collect();
            // Each store opens a bucket of the index at its first insertion. That step is made before the runs, because
            // later runs do not make it.
            for store in &stores {
                create(store);
                store.create(&record(1, store.now(), LONG), Durability::Relaxed).unwrap();
            }
            (fixture, stores)
        });
        let token = create(&stores[0]);
        // Each store gets a cached copy of the session.
        for store in stores {
            assert_eq!(load(store, &token), Some(1));
        }
        let acknowledged = Arc::new(Acknowledged::default());
        let threads: Vec<_> = operations
            .iter()
            .map(|(store, operation)| {
                let (store, token) = (Arc::clone(&stores[*store]), token.clone());
                let acknowledged = Arc::clone(&acknowledged);
                shuttle::thread::spawn(move || {
                    operation(&Acting { store: &store, token: &token, acknowledged: &acknowledged });
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let (saves, is_ended) = (acknowledged.saves.load(SeqCst), acknowledged.is_ended.load(SeqCst));
        for store in stores {
            let acting = Acting { store, token: &token, acknowledged: &acknowledged };
            acting.check_load(|| load(store, &token));
            let seen = load(store, &token);
            assert!(is_ended || seen >= Some(1 + saves), "lost: {seen:?} after {saves} saves");
            assert_eq!(store.queues.len(), 0, "a queue is left");
        }
        let successors = acknowledged.successors.lock().unwrap();
        let alive = |store: &FileStore| {
            successors.iter().filter(|successor| load(store, successor).is_some()).count()
        };
        for store in stores {
            let expected = !successors.is_empty() && !acknowledged.is_logged_out.load(SeqCst);
            assert_eq!(
                alive(store),
                usize::from(expected),
                "a logout ends the last successor, nothing else does"
            );
        }
        for token in successors.iter().chain([&token]) {
            stores[0].delete(token).unwrap();
            // The mark of the moved id stays until its grace period is over. It is removed here, so that the next run
            // begins without it.
            let _ = std::fs::remove_file(stores[0].path().join(path_of(token)));
        }
    });
}

fn path_of(token: &Token) -> String {
    crate::file::layout::SessionPath::of(&session(token).public_id()).as_str().to_owned()
}

// ------------------------------------------------------------------------------------------------ the engine as it is

#[test]
fn threads_of_one_process_see_each_save_and_lose_none() {
    model(2, &[LONG], &[(0, SAVE), (0, END), (0, LOAD)]);
    model(2, &[LONG], &[(0, SAVE), (0, LOAD), (0, LOAD_ANEW)]);
    model(2, &[LONG], &[(0, SAVE), (0, SAVE), (0, LOAD_ANEW)]);
}

#[test]
fn other_processes_see_each_save_and_lose_none() {
    model(2, &[LONG, LONG], &[(0, SAVE), (1, LOAD), (1, LOAD_ANEW)]);
    model(2, &[LONG, LONG], &[(0, SAVE), (1, SAVE), (0, LOAD)]);
}

#[test]
fn no_process_serves_or_revives_an_ended_session() {
    model(2, &[LONG, LONG], &[(0, SAVE), (1, END), (0, LOAD)]);
    model(2, &[LONG, LONG], &[(0, ROTATE), (1, SAVE), (1, LOAD)]);
    model(2, &[LONG, LONG], &[(0, MOVE), (1, SAVE), (1, LOAD)]);
}

#[test]
fn a_logout_by_a_moved_id_leaves_no_successor_alive() {
    model(2, &[LONG, LONG], &[(0, MOVE), (1, END)]);
    // The logout has a short wait limit, so it does not wait for the lock.
    model(2, &[LONG, SHORT], &[(0, MOVE), (1, END)]);
    model(2, &[SHORT], &[(0, MOVE), (0, END), (0, LOAD)]);
}

#[test]
fn a_login_beside_a_move_finds_the_session() {
    model(2, &[LONG, LONG], &[(0, MOVE), (1, LOG_IN)]);
}

#[test]
fn an_end_that_finds_no_session_leaves_no_stale_entry() {
    model(2, &[LONG, LONG], &[(0, END), (1, END), (1, LOAD)]);
    model(2, &[LONG, SHORT], &[(0, END), (1, END)]);
}

#[test]
fn a_writer_overtaken_by_a_logout_does_not_serve_its_entry() {
    model(2, &[LONG, SHORT], &[(0, SAVE), (1, END), (0, LOAD)]);
    model(2, &[SHORT], &[(0, SAVE), (0, END), (0, LOAD)]);
    model(2, &[LONG, SHORT], &[(0, GROW), (1, END)]);
    model(2, &[LONG, SHORT], &[(0, ROTATE), (1, END)]);
}

#[test]
fn a_save_into_another_file_is_seen_and_waited_for() {
    model(2, &[LONG, LONG], &[(0, GROW), (1, SAVE), (1, LOAD)]);
}

#[test]
fn a_killed_writers_version_reaches_every_process() {
    model(2, &[LONG, LONG, LONG], &[(0, DIE_AFTER_WRITING), (1, KEEP), (2, LOAD)]);
}

#[test]
fn the_next_delete_invalidates_for_a_killed_one() {
    model(2, &[LONG, LONG, LONG], &[(0, DIE_AFTER_MARKING), (1, END_ANEW), (2, LOAD)]);
}

// ------------------------------------------------------------------------------------------- each rule broken once

/// Breaks rule 1: takes the stamp after the file was opened.
const LOAD_STAMPED_AFTERWARDS: Operation = |acting| {
    let (store, session) = (acting.store, acting.session());
    store.coherence.forget(&session);
    acting.check_load(|| {
        let id = session.public_id();
        let Some(View::Valid { newest, .. }) = store.read(SessionRef::Id(&session), &id, None).unwrap()
        else {
            return None;
        };
        let stamp = store.coherence.generations().stamp(&id);
        let read_at = store.options.clock.now_coarse().micros();
        store
            .coherence
            .remember(&session, Fresh::new(newest.record.clone(), id, newest.version, stamp, read_at));
        Some(version_of(&newest.record))
    });
};

#[test]
#[should_panic(expected = "stale: Some(1) after version 2")]
fn a_stamp_taken_after_the_file_is_read_is_detected() {
    model(2, &[LONG, LONG], &[(0, LOAD_STAMPED_AFTERWARDS), (1, SAVE)]);
}

/// Breaks rule 2: invalidates after the lock was released.
const SAVE_INVALIDATED_WITHOUT_THE_LOCK: Operation = |acting| {
    let session = acting.session();
    let Some((locked, record, version)) = acting.write(&session) else { return };
    let (id, ends, opened_at) = (locked.id, locked.stamp_before_open.ends, locked.opened_at);
    drop(locked);
    let saves = acting.store.coherence.generations().invalidate(&id, Cause::Saved).unwrap().saves;
    let (saved, stamp) = (version_of(&record), Stamp { saves, ends, counters: 0 });
    acting.store.coherence.remember(&session, Fresh::new(record, id, version, stamp, opened_at));
    acting.acknowledge(saved, 1);
};

#[test]
#[should_panic(expected = "stale: Some(2) after version 3")]
fn an_invalidation_after_unlocking_is_detected() {
    model(2, &[LONG, LONG], &[(0, SAVE_INVALIDATED_WITHOUT_THE_LOCK), (1, SAVE)]);
}

/// Breaks rule 2: does not invalidate if the operation changes nothing.
const KEEP_WITHOUT_INVALIDATION: Operation = |acting| {
    let session = acting.session();
    let Some(locked) = acting.store.lock_live(&session, None).unwrap() else { return };
    locked.invalidated.set(true);
    let version = version_of(&locked.newest.record);
    drop(locked);
    acting.acknowledge(version, 0);
};

#[test]
#[should_panic(expected = "stale: Some(1) after version 2")]
fn an_unchanged_save_without_invalidation_is_detected() {
    model(2, &[LONG, LONG, LONG], &[(0, DIE_AFTER_WRITING), (1, KEEP_WITHOUT_INVALIDATION), (2, LOAD)]);
}

/// Breaks rule 3: the stamp of the writer's copy is the value of its own invalidation, as if there were one counter
/// instead of two. By the rule, it has the `ends` from before the path was opened.
const SAVE_WITH_ONE_COUNTER: Operation = |acting| {
    let session = acting.session();
    let Some((locked, record, version)) = acting.write(&session) else { return };
    if !acting.store.is_current_file(&locked.path, &locked.file).unwrap() {
        return;
    }
    let saves = acting.store.coherence.generations().invalidate(&locked.id, Cause::Saved).unwrap().saves;
    let stamp = Stamp { saves, ..acting.store.coherence.generations().stamp(&locked.id) };
    let (id, opened_at) = (locked.id, locked.opened_at);
    acting.store.coherence.remember(&session, Fresh::new(record, id, version, stamp, opened_at));
};

#[test]
#[should_panic(expected = "stale: an ended session is served")]
fn one_counter_in_place_of_two_is_detected() {
    model(2, &[LONG, SHORT], &[(0, SAVE_WITH_ONE_COUNTER), (1, END)]);
}

/// Breaks rule 6 for crashes: removes the name first. If the process is then killed before the invalidation, the next
/// process cannot detect that copies must be invalidated.
const DIE_AFTER_REMOVING: Operation = |acting| {
    let id = acting.session().public_id();
    let path = crate::file::layout::SessionPath::of(&id);
    acting.store.unlink(&acting.store.open_shard(&id).unwrap(), &path).unwrap();
};

#[test]
#[should_panic(expected = "stale: an ended session is served")]
fn a_name_removed_before_the_invalidation_is_detected() {
    model(2, &[LONG, LONG], &[(0, DIE_AFTER_REMOVING), (1, END_ANEW)]);
}

/// Breaks rule 4: invalidates before the end, while a version can still be read.
const END_INVALIDATED_FIRST: Operation = |acting| {
    let id = acting.session().public_id();
    acting.store.coherence.generations().invalidate(&id, Cause::Ended).unwrap();
    let path = crate::file::layout::SessionPath::of(&id);
    acting.store.unlink(&acting.store.open_shard(&id).unwrap(), &path).unwrap();
    acting.acknowledge_end();
};

#[test]
#[should_panic(expected = "stale: an ended session is served")]
fn an_end_invalidated_before_it_is_done_is_detected() {
    model(2, &[LONG, LONG], &[(0, LOAD_ANEW), (1, END_INVALIDATED_FIRST)]);
}

/// A rotation that looks for its name before it writes the mark. By rule 3 for locks it looks afterwards, and a logout
/// that does not wait for the lock reads the mark after it has renamed the file. So one of them sees the other.
const MOVE_CHECKED_BEFORE_THE_MARK: Operation = |acting| {
    let (store, session) = (acting.store, acting.session());
    let Some(locked) = store.lock_live(&session, None).unwrap() else { return };
    let successor = SessionId::random().unwrap();
    store.create_file(SessionRef::Id(&successor), locked.newest.record.clone(), true).unwrap();
    if !store.is_current_file(&locked.path, &locked.file).unwrap() {
        store.delete_file(SessionRef::Id(&successor)).unwrap();
        return;
    }
    let mark = Mark { successor: successor.public_id(), until: u64::MAX, by_login: false };
    let bytes = locked.encode_mark(&mark).unwrap();
    disk::write_at(&locked.file, &bytes, locked.offset(1 - locked.slot)).unwrap();
    locked.invalidate_ended().unwrap();
    acting.acknowledge_move(successor.to_token());
};

#[test]
#[should_panic(expected = "a logout ends the last successor, nothing else does")]
fn a_move_that_looks_for_its_name_too_early_is_detected() {
    model(2, &[LONG, SHORT], &[(0, MOVE_CHECKED_BEFORE_THE_MARK), (1, END)]);
}

/// Breaks rule 5: returns a copy without comparing its stamp with the cell.
const LOAD_WITHOUT_A_CHECK: Operation = |acting| {
    let store = acting.store;
    acting.check_load(|| {
        let cache = store.coherence.cache();
        match cache.get(&Key::of(&acting.session()), |_, _| Trust::Yes) {
            Found::Trusted(record, id) => Some(version_of(&Live { record, id }.record)),
            Found::CutOffsUnchecked(_) | Found::Unverified(_) | Found::Nothing => load(store, acting.token),
        }
    });
};

#[test]
#[should_panic(expected = "stale: Some(1) after version 2")]
fn a_copy_returned_without_checking_its_stamp_is_detected() {
    model(2, &[LONG, LONG], &[(0, LOAD_WITHOUT_A_CHECK), (1, SAVE)]);
}
