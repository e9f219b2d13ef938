//! Load, delete, import, quarantine and scan by public id: in each run, one call fails, or is the last one of a
//! process, or another process works on the session before it.
use super::*;
use crate::admin::Admin;

/// An operation by public id, or a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Import { power_safe: bool },
    ImportExisting,
    Quarantine,
    QuarantineLive,
    Delete,
    Load,
    Scan,
}

const TASKS: [Task; 8] = [
    Task::Import { power_safe: false },
    Task::Import { power_safe: true },
    Task::ImportExisting,
    Task::Quarantine,
    Task::QuarantineLive,
    Task::Delete,
    Task::Load,
    Task::Scan,
];

const DAMAGED: [u8; 2 * SLOT_MIN] = [0xa5; 2 * SLOT_MIN];

/// Three public ids: of a live session, of a damaged file, and one that is not in use.
struct Places {
    alive: SessionId,
    damaged: SessionId,
    free: SessionId,
}

impl Places {
    fn new(fixture: &Fixture) -> Self {
        let places = Self {
            alive: fixture.session(false),
            damaged: SessionId::random().unwrap(),
            free: SessionId::random().unwrap(),
        };
        fs::write(fixture.path(&places.damaged), DAMAGED).unwrap();
        places
    }

    /// Runs the operation. Returns whether it has done something.
    fn run(&self, task: Task, store: &FileStore) -> Result<bool> {
        let durability = |power_safe| if power_safe { Durability::PowerSafe } else { Durability::Relaxed };
        match task {
            Task::Import { power_safe } => {
                store.import(&self.free.public_id(), &record("imported"), durability(power_safe))
            }
            Task::ImportExisting => {
                let there = store.import(&self.alive.public_id(), &record("imported"), Durability::PowerSafe);
                there.map(|imported| !imported)
            }
            Task::Quarantine => store.quarantine(&self.damaged.public_id()).map(|path| path.is_some()),
            Task::QuarantineLive => store.quarantine(&self.alive.public_id()).map(|path| path.is_none()),
            Task::Delete => store.delete_by_id(&self.alive.public_id()).map(|ended| ended.is_some()),
            Task::Load => store.load_by_id(&self.alive.public_id()).map(|found| match found {
                Lookup::Live(live) => text_of(&live.record) == "old" && live.id == self.alive.public_id(),
                Lookup::Absent(_) => false,
            }),
            Task::Scan => {
                let files = store.files().collect::<Result<Vec<_>>>()?;
                let is = |live: &Live| live.id == self.alive.public_id() && text_of(&live.record) == "old";
                let alive =
                    files.iter().filter(|file| matches!(&file.content, Content::Live(live) if is(live)));
                let damaged = |file: &&ScannedFile| matches!(file.content, Content::Damaged(id) if id == self.damaged.public_id());
                Ok((files.len(), alive.count(), files.iter().filter(damaged).count()) == (2, 1, 1))
            }
        }
    }

    /// Whether the damaged bytes are in the file's place, and whether they are in quarantine.
    fn damaged(&self, fixture: &Fixture) -> [bool; 2] {
        let aside = fixture.dir.path().join("damaged").join(self.damaged.public_id().to_string());
        [fixture.path(&self.damaged), aside].map(|path| {
            let bytes = fs::read(path).ok();
            assert!(bytes.as_ref().is_none_or(|bytes| *bytes == DAMAGED));
            bytes.is_some()
        })
    }

    fn clear(&self, fixture: &Fixture) {
        let aside = fixture.dir.path().join("damaged").join(self.damaged.public_id().to_string());
        for path in [fixture.path(&self.alive), fixture.path(&self.damaged), fixture.path(&self.free), aside]
        {
            let _ = fs::remove_file(path);
        }
    }

    /// Asserts that after a fault nothing was lost.
    #[track_caller]
    fn check(&self, task: Task, result: Option<&Result<bool>>, fixture: &Fixture, context: &str) {
        if let Some(Ok(done)) = result {
            assert!(done, "{context}: a fault is an error, never another answer");
        }
        let kind = result.and_then(|result| result.as_ref().err()).map(Error::kind);
        let done = matches!(result, Some(Ok(true)));
        let (alive, free) = (fixture.text(&self.alive), fixture.text(&self.free));
        match task {
            Task::Delete if done => assert_eq!(alive, None, "{context}"),
            Task::Delete => assert!([None, Some("old")].contains(&alive.as_deref()), "{context}: {alive:?}"),
            _ => assert_eq!(alive.as_deref(), Some("old"), "{context}"),
        }
        match task {
            Task::Import { .. } if done => assert_eq!(free.as_deref(), Some("imported"), "{context}"),
            // The session may be there: the import was killed, its file could not be removed, or the invalidation
            // failed.
            Task::Import { .. } => {
                assert!([None, Some("imported")].contains(&free.as_deref()), "{context}: {free:?}");
            }
            _ => assert_eq!(free, None, "{context}"),
        }
        match (task, self.damaged(fixture)) {
            (Task::Quarantine, [false, true]) => {
                assert!(result.is_none() || done || kind == Some(ErrorKind::InvalidationFailed), "{context}");
            }
            (_, places) => {
                assert!(places == [true, false] && (task != Task::Quarantine || !done), "{context}");
            }
        }
        fixture.check_nothing_is_held(context);
    }

    /// Asserts that each operation works again without faults.
    #[track_caller]
    fn check_again(&self, task: Task, fixture: &Fixture, context: &str) {
        let again = match self.run(task, &fixture.store) {
            Err(error) if error.kind() == ErrorKind::Busy && matches!(task, Task::Import { .. }) => {
                // For an hour, the file of an interrupted creation blocks the name.
                assert_eq!(fixture.text(&self.free), None, "{context}");
                age(&fixture.path(&self.free));
                fixture.store.sweep(&unrested().full(true)).unwrap();
                self.run(task, &fixture.store)
            }
            again => again,
        };
        let again = again.unwrap_or_else(|error| panic!("{context}: {error}"));
        match task {
            Task::Import { .. } => {
                assert_eq!(fixture.text(&self.free).as_deref(), Some("imported"), "{context}");
            }
            Task::Quarantine => assert_eq!(self.damaged(fixture), [false, true], "{context}"),
            Task::Delete => assert!(!fixture.path(&self.alive).exists(), "{context}"),
            _ => assert!(again, "{context}"),
        }
    }
}

#[test]
fn quarantine_overwrites_no_earlier_file() {
    let fixture = Fixture::new();
    let id = SessionId::random().unwrap().public_id();
    let place = fixture.dir.path().join(SessionPath::of(&id).as_str());
    let aside = |n: u32| {
        let name = if n == 0 { id.to_string() } else { format!("{id}.{n}") };
        fixture.dir.path().join("damaged").join(name)
    };
    for n in 0..3 {
        fs::write(&place, DAMAGED).unwrap();
        assert_eq!(fixture.store.quarantine(&id).unwrap(), Some(aside(n)));
        assert_eq!(fixture.store.quarantine(&id).unwrap(), None, "there is none any more");
    }
    // All numbers are in use by files of earlier quarantines.
    (3..1000).for_each(|n| fs::write(aside(n), "").unwrap());
    fs::write(&place, DAMAGED).unwrap();
    let error = fixture.store.quarantine(&id).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let named = format!("failed to quarantine session file `{}`", place.display());
    assert!(error.to_string().starts_with(&named), "{error}");
    assert_eq!(fs::read(&place).unwrap(), DAMAGED, "it stays where it is");
    assert!((0..3).all(|n| fs::read(aside(n)).unwrap() == DAMAGED), "and so do the others");
    fixture.check_nothing_is_held("after 1,000 of them");
}

#[test]
fn a_failing_call_of_an_admin_operation_loses_nothing() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.dir.path().join("damaged")).unwrap();
    for task in TASKS {
        for (errno, then) in refusals().take(if task == Task::Scan { 1 } else { usize::MAX }) {
            for call in 0.. {
                let (places, fault) = (Places::new(&fixture), Fault { call, errno, then });
                let (result, calls) = during(fault.plan(), || places.run(task, &fixture.store));
                let met = calls.len() > call;
                let context = format!("{task:?} with {fault:?}, after {:?}", &calls[..calls.len().min(20)]);
                if let Err(error) = &result {
                    assert!(met, "{context}: {error}");
                    check_error(error, fixture.dir.path(), errno, &context);
                }
                if task == Task::Scan && met {
                    assert!(result.is_err(), "{context}: it was left out in silence");
                }
                if matches!(task, Task::Load | Task::QuarantineLive | Task::ImportExisting) && met {
                    // A failed call makes the operation fail, except for the invalidation at the unlock, which is the
                    // last call.
                    assert!(result.is_err() || calls[call] == "invalidate", "{context}");
                }
                if matches!(task, Task::Import { .. })
                    && result.is_err()
                    && then == Then::Works
                    && !["unlink", "invalidate"].contains(&calls[call])
                {
                    assert!(!fixture.path(&places.free).exists(), "{context}: a file is left");
                }
                places.check(task, Some(&result), &fixture, &context);
                if task != Task::Scan {
                    places.check_again(task, &fixture, &context);
                }
                places.clear(&fixture);
                if !met {
                    assert!(call > 0, "{context}");
                    break;
                }
            }
        }
    }
}

#[test]
fn a_crash_in_an_admin_operation_loses_and_blocks_nothing() {
    let fixture = Fixture::new();
    for task in TASKS.into_iter().filter(|task| *task != Task::Scan) {
        for call in 0.. {
            let places = Places::new(&fixture);
            let survived = dying_in_call(call, || places.run(task, &fixture.store)).is_some();
            let context = format!("{task:?} died in call {call}");
            places.check(task, None, &fixture, &context);
            places.check_again(task, &fixture, &context);
            places.clear(&fixture);
            if survived {
                assert!(call > 0, "{context}");
                break;
            }
        }
    }
}

/// Runs a task while another process, with the shortest lock wait, runs an operation in each of its calls.
fn meet_in_every_call<R: Send + 'static>(
    task: Task,
    other: impl Fn(&FileStore, &[SessionId; 3]) -> R + Clone + Send + 'static,
    check: impl Fn(&Fixture, &Places, Result<bool>, R, &str),
) {
    let fixture = Fixture::with(FileStoreOptions::new().lock_wait(Duration::from_millis(1)));
    let other_store = fixture.reopened(FileStoreOptions::new().lock_wait(Duration::from_millis(1)));
    for call in 0.. {
        let places = Places::new(&fixture);
        let ids = [&places.alive, &places.damaged, &places.free].map(Clone::clone);
        let answer = Arc::new(Mutex::new(None));
        let (other, slot, other_store) = (other.clone(), Arc::clone(&answer), Arc::clone(&other_store));
        let mut operation = Some(move || *slot.lock().unwrap() = Some(other(&other_store, &ids)));
        let interrupt = move |n, _: &str| {
            if n == call {
                thread::spawn(operation.take().unwrap()).join().unwrap();
            }
            None
        };
        let (result, calls) = during(interrupt, || places.run(task, &fixture.store));
        let Some(answer) = answer.lock().unwrap().take() else { return };
        check(&fixture, &places, result, answer, &format!("{task:?} met in call {call} of {calls:?}"));
        places.clear(&fixture);
    }
}

#[test]
fn one_of_two_imports_of_the_same_session_wins() {
    for power_safe in [false, true] {
        let other = |store: &FileStore, [_, _, free]: &[SessionId; 3]| {
            match store.import(&free.public_id(), &record("other"), Durability::Relaxed) {
                // The first import was stopped in this call for the whole wait limit.
                Err(error) if error.kind() == ErrorKind::Busy => false,
                imported => imported.unwrap(),
            }
        };
        meet_in_every_call(Task::Import { power_safe }, other, |fixture, places, result, other, context| {
            assert_ne!(result.unwrap(), other, "{context}");
            let want = if other { "other" } else { "imported" };
            assert_eq!(fixture.text(&places.free).as_deref(), Some(want), "{context}");
        });
    }
}

/// A store with a cache.
fn remembering(dir: &Path) -> FileStore {
    FileStoreOptions::new().watch(false).lock_wait(Duration::from_millis(5)).open(dir).unwrap()
}
/// A process was killed after a forced delete had removed the session, and before its invalidation.
#[test]
fn an_import_replaces_the_cached_earlier_session() {
    let dir = directory();
    let (here, there) = (remembering(dir.path()), remembering(dir.path()));
    let session = SessionId::random().unwrap();
    here.create_file(SessionRef::Id(&session), record("old"), false).unwrap();
    assert_eq!(served(&here, &session).as_deref(), Some("old"));
    let path = dir.path().join(SessionPath::of(&session.public_id()).as_str());
    let stopped = fs::File::options().read(true).write(true).open(path).unwrap();
    let stopped = LockedFile::acquire(stopped, Instant::now()).unwrap().unwrap();
    assert!(dies_at("invalidate", || there.delete_file(SessionRef::Id(&session))));
    drop(stopped);
    assert!(there.import(&session.public_id(), &record("imported"), Durability::PowerSafe).unwrap());
    assert_eq!(served(&here, &session).as_deref(), Some("imported"));
}

#[test]
fn a_failed_import_is_not_served_from_a_cache() {
    let dir = directory();
    let (here, there) = (Arc::new(remembering(dir.path())), remembering(dir.path()));
    for failing in ["sync file", "sync shard"] {
        let session = SessionId::random().unwrap();
        let (reader, read) = (Arc::clone(&here), session.clone());
        let see_and_fail = move |_, call: &str| {
            if call != failing {
                return None;
            }
            let (reader, read) = (Arc::clone(&reader), read.clone());
            thread::spawn(move || assert!(served(&reader, &read).is_some())).join().unwrap();
            Some(Errno::IO.raw_os_error())
        };
        let import = || there.import(&session.public_id(), &record("x"), Durability::PowerSafe);
        assert!(during(see_and_fail, import).0.is_err(), "{failing}");
        assert_eq!(served(&here, &session), None, "{failing}: it was refused, and is served");
    }
}

/// The session is deleted during its import, and another process imports it.
#[test]
fn a_failed_import_does_not_remove_another_import() {
    let dir = directory();
    let (here, there) = (remembering(dir.path()), Arc::new(remembering(dir.path())));
    let session = SessionId::random().unwrap();
    let id = session.public_id();
    let path = dir.path().join(SessionPath::of(&id).as_str());
    let (other, mut is_done) = (Arc::clone(&there), false);
    let replace = move |_, call: &str| {
        if call == "stat file" && path.exists() && !std::mem::replace(&mut is_done, true) {
            let other = Arc::clone(&other);
            let replace = move || {
                other.delete_by_id(&id).unwrap();
                assert!(other.import(&id, &record("theirs"), Durability::PowerSafe).unwrap());
            };
            thread::spawn(replace).join().unwrap();
        }
        None
    };
    let (imported, _) = during(replace, || here.import(&id, &record("ours"), Durability::PowerSafe));
    assert_eq!(imported.unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(served(&there, &session).as_deref(), Some("theirs"));
}

#[test]
fn a_delete_during_an_import_agrees_with_both_results() {
    for power_safe in [false, true] {
        let other =
            |store: &FileStore, [_, _, free]: &[SessionId; 3]| store.delete_by_id(&free.public_id()).unwrap();
        meet_in_every_call(Task::Import { power_safe }, other, |fixture, places, result, _, context| {
            // A delete before the import has deleted nothing.
            let text = fixture.text(&places.free);
            assert!(text.is_none() || result.is_ok_and(|imported| imported), "{context}: {text:?}");
            assert_eq!(text.is_some(), fixture.path(&places.free).exists(), "{context}");
        });
    }
}

#[test]
fn a_sweep_leaves_imported_and_damaged_files_alone() {
    for task in [
        Task::Import { power_safe: false },
        Task::Import { power_safe: true },
        Task::Quarantine,
        Task::Delete,
    ] {
        let other = |store: &FileStore, _: &[SessionId; 3]| store.sweep(&unrested().full(true)).unwrap();
        meet_in_every_call(task, other, |fixture, places, result, report, context| {
            assert_eq!((report.removed, report.failed), (0, 0), "{context}: {report:?}");
            places.check(task, Some(&result), fixture, context);
        });
    }
}

#[test]
fn a_delete_during_a_quarantine_is_no_error() {
    let other = |store: &FileStore, [_, damaged, _]: &[SessionId; 3]| {
        store.delete_by_id(&damaged.public_id()).unwrap()
    };
    meet_in_every_call(Task::Quarantine, other, |fixture, places, result, _, context| {
        let is_aside = match result {
            // The other operation has used the whole wait limit, so the task failed, and is run again.
            Err(error) if error.kind() == ErrorKind::Busy => false,
            result => result.unwrap_or_else(|error| panic!("{context}: {error}")),
        };
        assert_eq!(places.damaged(fixture), [false, is_aside], "{context}");
    });
}

#[test]
fn a_load_by_id_during_a_change_returns_one_version_or_none() {
    let save =
        |store: &FileStore, [alive, ..]: &[SessionId; 3]| drop(put(store, alive, "old", true).unwrap());
    meet_in_every_call(Task::Load, save, |_, _, result, (), context| assert!(result.unwrap(), "{context}"));
    let grow = |store: &FileStore, [alive, ..]: &[SessionId; 3]| {
        put(store, alive, &big("new"), true).unwrap().unwrap();
        put(store, alive, "old", true).unwrap().unwrap();
    };
    meet_in_every_call(Task::Load, grow, |_, _, result, (), context| assert!(result.unwrap(), "{context}"));
    let end = |store: &FileStore, [alive, ..]: &[SessionId; 3]| {
        assert!(store.delete_by_id(&alive.public_id()).unwrap().is_some());
    };
    meet_in_every_call(Task::Load, end, |fixture, places, result, (), context| {
        result.unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(fixture.text(&places.alive), None, "{context}");
    });
}
