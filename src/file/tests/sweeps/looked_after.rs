//! Finding, ending, bringing in, setting aside and listing sessions by their files: each call fails, is the last one of a
//! dying process, or is met by somebody else.
use super::*;

/// What is done by those who know sessions by their files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    BringIn { power_safe: bool },
    BringInAgain,
    SetAside,
    SetAsideHealthy,
    End,
    Find,
    Files,
}

const TASKS: [Task; 8] = [
    Task::BringIn { power_safe: false },
    Task::BringIn { power_safe: true },
    Task::BringInAgain,
    Task::SetAside,
    Task::SetAsideHealthy,
    Task::End,
    Task::Find,
    Task::Files,
];

const DAMAGED: [u8; 2 * SLOT_MIN] = [0xa5; 2 * SLOT_MIN];

/// Three sessions' places: one that is alive, one that is damaged, one that is free.
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

    /// Whether what there was to be done was done.
    fn run(&self, task: Task, store: &FileStore) -> Result<bool> {
        let durability = |power_safe| if power_safe { Durability::PowerSafe } else { Durability::Relaxed };
        match task {
            Task::BringIn { power_safe } => {
                store.import(&self.free.public_id(), &record("brought in"), durability(power_safe))
            }
            Task::BringInAgain => {
                let there =
                    store.import(&self.alive.public_id(), &record("brought in"), Durability::PowerSafe);
                there.map(|brought_in| !brought_in)
            }
            Task::SetAside => store.quarantine(&self.damaged.public_id()).map(|path| path.is_some()),
            Task::SetAsideHealthy => store.quarantine(&self.alive.public_id()).map(|path| path.is_none()),
            Task::End => store.delete_by_id(&self.alive.public_id()),
            Task::Find => store.load_by_id(&self.alive.public_id()).map(|found| match found {
                Lookup::Live(live) => text_of(&live.record) == "old" && live.id == self.alive.public_id(),
                Lookup::Absent(_) => false,
            }),
            Task::Files => {
                let files = store.files().collect::<Result<Vec<_>>>()?;
                let is = |live: &Live| live.id == self.alive.public_id() && text_of(&live.record) == "old";
                let alive =
                    files.iter().filter(|file| matches!(&file.content, Content::Live(live) if is(live)));
                let damaged = |file: &&ScannedFile| matches!(file.content, Content::Damaged(id) if id == self.damaged.public_id());
                Ok((files.len(), alive.count(), files.iter().filter(damaged).count()) == (2, 1, 1))
            }
        }
    }

    /// What is damaged, wherever it is: in its place, or aside.
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

    /// After trouble: nothing is lost.
    #[track_caller]
    fn check(&self, task: Task, result: Option<&Result<bool>>, fixture: &Fixture, context: &str) {
        if let Some(Ok(done)) = result {
            assert!(done, "{context}: trouble is an error, never another answer");
        }
        let kind = result.and_then(|result| result.as_ref().err()).map(Error::kind);
        let done = matches!(result, Some(Ok(true)));
        let (alive, free) = (fixture.text(&self.alive), fixture.text(&self.free));
        match task {
            Task::End if done => assert_eq!(alive, None, "{context}"),
            Task::End => assert!([None, Some("old")].contains(&alive.as_deref()), "{context}: {alive:?}"),
            _ => assert_eq!(alive.as_deref(), Some("old"), "{context}"),
        }
        match task {
            Task::BringIn { .. } if done => assert_eq!(free.as_deref(), Some("brought in"), "{context}"),
            // Killed, or failing so that it cannot be removed either, or not announced: it may be there.
            Task::BringIn { .. } => {
                assert!([None, Some("brought in")].contains(&free.as_deref()), "{context}: {free:?}");
            }
            _ => assert_eq!(free, None, "{context}"),
        }
        match (task, self.damaged(fixture)) {
            (Task::SetAside, [false, true]) => {
                assert!(result.is_none() || done || kind == Some(ErrorKind::InvalidationFailed), "{context}");
            }
            (_, places) => assert!(places == [true, false] && (task != Task::SetAside || !done), "{context}"),
        }
        fixture.check_nothing_is_held(context);
    }

    /// And what works without trouble works again.
    #[track_caller]
    fn check_again(&self, task: Task, fixture: &Fixture, context: &str) {
        let again = match self.run(task, &fixture.store) {
            Err(error) if error.kind() == ErrorKind::Busy && matches!(task, Task::BringIn { .. }) => {
                // A creation that was cut short is in its place, for an hour.
                assert_eq!(fixture.text(&self.free), None, "{context}");
                age(&fixture.path(&self.free));
                fixture.store.sweep(&unrested().full(true)).unwrap();
                self.run(task, &fixture.store)
            }
            again => again,
        };
        let again = again.unwrap_or_else(|error| panic!("{context}: {error}"));
        match task {
            Task::BringIn { .. } => {
                assert_eq!(fixture.text(&self.free).as_deref(), Some("brought in"), "{context}");
            }
            Task::SetAside => assert_eq!(self.damaged(fixture), [false, true], "{context}"),
            Task::End => assert!(!fixture.path(&self.alive).exists(), "{context}"),
            _ => assert!(again, "{context}"),
        }
    }
}

#[test]
fn what_is_set_aside_takes_the_place_of_nothing_that_was_set_aside_before() {
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
    // Somebody damages it again and again, and nobody looks.
    (3..1000).for_each(|n| fs::write(aside(n), "").unwrap());
    fs::write(&place, DAMAGED).unwrap();
    let error = fixture.store.quarantine(&id).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let named = format!("failed to set damaged session file aside `{}`", place.display());
    assert!(error.to_string().starts_with(&named), "{error}");
    assert_eq!(fs::read(&place).unwrap(), DAMAGED, "it stays where it is");
    assert!((0..3).all(|n| fs::read(aside(n)).unwrap() == DAMAGED), "and so do the others");
    fixture.check_nothing_is_held("after 1,000 of them");
}

#[test]
fn whichever_call_fails_of_what_is_done_by_file_it_is_an_error_or_the_right_answer_and_nothing_is_lost() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.dir.path().join("damaged")).unwrap();
    for task in TASKS {
        for (errno, then) in refusals().take(if task == Task::Files { 1 } else { usize::MAX }) {
            for call in 0.. {
                let (places, fault) = (Places::new(&fixture), Fault { call, errno, then });
                let (result, calls) = during(fault.plan(), || places.run(task, &fixture.store));
                let met = calls.len() > call;
                let context = format!("{task:?} with {fault:?}, after {:?}", &calls[..calls.len().min(20)]);
                if let Err(error) = &result {
                    assert!(met, "{context}: {error}");
                    check_error(error, fixture.dir.path(), errno, &context);
                }
                if task == Task::Files && met {
                    assert!(result.is_err(), "{context}: it was left out in silence");
                }
                if matches!(task, Task::Find | Task::SetAsideHealthy | Task::BringInAgain) && met {
                    // What cannot be looked at is not said to be there. (The last call tells those who have copies that
                    // nothing was changed.)
                    assert!(result.is_err() || calls[call] == "invalidate", "{context}");
                }
                if matches!(task, Task::BringIn { .. })
                    && result.is_err()
                    && then == Then::Works
                    && !["unlink", "invalidate"].contains(&calls[call])
                {
                    assert!(!fixture.path(&places.free).exists(), "{context}: a file is left");
                }
                places.check(task, Some(&result), &fixture, &context);
                if task != Task::Files {
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
fn who_dies_in_any_call_of_what_is_done_by_file_loses_nothing_and_leaves_nothing_in_the_way() {
    let fixture = Fixture::new();
    for task in TASKS.into_iter().filter(|task| *task != Task::Files) {
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

/// Runs a task while somebody else, who waits for nobody, does something in each of its calls.
fn meet_in_every_call<R: Send + 'static>(
    task: Task,
    other: impl Fn(&FileStore, &[SessionId; 3]) -> R + Clone + Send + 'static,
    check: impl Fn(&Fixture, &Places, Result<bool>, R, &str),
) {
    let fixture = Fixture::with(FileStoreOptions::new().lock_wait(Duration::from_millis(1)));
    let somebody = fixture.reopened(FileStoreOptions::new().lock_wait(Duration::from_millis(1)));
    for call in 0.. {
        let places = Places::new(&fixture);
        let ids = [&places.alive, &places.damaged, &places.free].map(Clone::clone);
        let answer = Arc::new(Mutex::new(None));
        let (other, slot, somebody) = (other.clone(), Arc::clone(&answer), Arc::clone(&somebody));
        let mut act = Some(move || *slot.lock().unwrap() = Some(other(&somebody, &ids)));
        let interrupt = move |n, _: &str| {
            if n == call {
                thread::spawn(act.take().unwrap()).join().unwrap();
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
fn of_two_who_bring_in_the_same_session_one_does_and_his_is_there() {
    for power_safe in [false, true] {
        let other = |store: &FileStore, [_, _, free]: &[SessionId; 3]| {
            match store.import(&free.public_id(), &record("other"), Durability::Relaxed) {
                // The first one stood still in it for the whole of the wait.
                Err(error) if error.kind() == ErrorKind::Busy => false,
                brought_in => brought_in.unwrap(),
            }
        };
        meet_in_every_call(Task::BringIn { power_safe }, other, |fixture, places, result, other, context| {
            assert_ne!(result.unwrap(), other, "{context}");
            let want = if other { "other" } else { "brought in" };
            assert_eq!(fixture.text(&places.free).as_deref(), Some(want), "{context}");
        });
    }
}

/// A store with copies in memory.
fn remembering(dir: &Path) -> FileStore {
    FileStoreOptions::new().watch(false).lock_wait(Duration::from_millis(5)).open(dir).unwrap()
}
/// A process was killed that had ended it without its lock, before it could say so.
#[test]
fn what_is_brought_in_is_found_by_those_who_remember_what_was_there_before() {
    let dir = directory();
    let (here, there) = (remembering(dir.path()), remembering(dir.path()));
    let session = SessionId::random().unwrap();
    here.create_file(Whose::Secret(&session), Arc::new(record("old")), false).unwrap();
    assert_eq!(served(&here, &session).as_deref(), Some("old"));
    let path = dir.path().join(SessionPath::of(&session.public_id()).as_str());
    let stopped = fs::File::options().read(true).write(true).open(path).unwrap();
    let stopped = LockedFile::acquire(stopped, Instant::now()).unwrap().unwrap();
    assert!(dies_at("invalidate", || there.end_file(Whose::Secret(&session))));
    drop(stopped);
    assert!(there.import(&session.public_id(), &record("brought in"), Durability::PowerSafe).unwrap());
    assert_eq!(served(&here, &session).as_deref(), Some("brought in"));
}

#[test]
fn what_could_not_be_brought_in_is_not_served_by_those_who_saw_it_for_a_moment() {
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

/// It was ended while it was made, and brought in by somebody else.
#[test]
fn bringing_in_what_fails_does_not_take_away_what_somebody_else_brought_in() {
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
    let (brought_in, _) = during(replace, || here.import(&id, &record("ours"), Durability::PowerSafe));
    assert_eq!(brought_in.unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(served(&there, &session).as_deref(), Some("theirs"));
}

#[test]
fn a_session_that_is_ended_while_it_is_brought_in_is_there_or_not_as_both_were_told() {
    for power_safe in [false, true] {
        let other =
            |store: &FileStore, [_, _, free]: &[SessionId; 3]| store.delete_by_id(&free.public_id()).unwrap();
        meet_in_every_call(Task::BringIn { power_safe }, other, |fixture, places, result, _, context| {
            // An end before the beginning ended nothing.
            let text = fixture.text(&places.free);
            assert!(text.is_none() || result.is_ok_and(|brought_in| brought_in), "{context}: {text:?}");
            assert_eq!(text.is_some(), fixture.path(&places.free).exists(), "{context}");
        });
    }
}

#[test]
fn a_sweep_during_any_call_leaves_alone_what_is_brought_in_and_what_is_damaged() {
    for task in
        [Task::BringIn { power_safe: false }, Task::BringIn { power_safe: true }, Task::SetAside, Task::End]
    {
        let other = |store: &FileStore, _: &[SessionId; 3]| store.sweep(&unrested().full(true)).unwrap();
        meet_in_every_call(task, other, |fixture, places, result, report, context| {
            assert_eq!((report.removed, report.failed), (0, 0), "{context}: {report:?}");
            places.check(task, Some(&result), fixture, context);
        });
    }
}

#[test]
fn a_damaged_session_that_is_ended_while_it_is_set_aside_is_gone_or_aside_and_that_is_no_error() {
    let other = |store: &FileStore, [_, damaged, _]: &[SessionId; 3]| {
        store.delete_by_id(&damaged.public_id()).unwrap()
    };
    meet_in_every_call(Task::SetAside, other, |fixture, places, result, _, context| {
        let is_aside = match result {
            // The meeting took all of its wait, and it had to begin again.
            Err(error) if error.kind() == ErrorKind::Busy => false,
            result => result.unwrap_or_else(|error| panic!("{context}: {error}")),
        };
        assert_eq!(places.damaged(fixture), [false, is_aside], "{context}");
    });
}

#[test]
fn who_finds_a_session_that_is_saved_or_ended_meanwhile_finds_one_of_its_versions_or_none() {
    let save =
        |store: &FileStore, [alive, ..]: &[SessionId; 3]| drop(put(store, alive, "old", true).unwrap());
    meet_in_every_call(Task::Find, save, |_, _, result, (), context| assert!(result.unwrap(), "{context}"));
    let grow = |store: &FileStore, [alive, ..]: &[SessionId; 3]| {
        put(store, alive, &big("new"), true).unwrap().unwrap();
        put(store, alive, "old", true).unwrap().unwrap();
    };
    meet_in_every_call(Task::Find, grow, |_, _, result, (), context| assert!(result.unwrap(), "{context}"));
    let end = |store: &FileStore, [alive, ..]: &[SessionId; 3]| {
        assert!(store.delete_by_id(&alive.public_id()).unwrap());
    };
    meet_in_every_call(Task::Find, end, |fixture, places, result, (), context| {
        result.unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(fixture.text(&places.alive), None, "{context}");
    });
}
