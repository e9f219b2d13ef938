//! Operations on a session between two calls of a sweep, and sweeps between two calls of other operations.
use super::*;
use crate::admin::Admin;

/// Runs an operation in another thread before the call with this number, if there are as many calls.
fn in_call(
    n: usize,
    operation: impl FnOnce() + Send + 'static,
) -> impl FnMut(usize, &'static str) -> Option<i32> + 'static {
    let mut operation = Some(operation);
    move |call, _| {
        if call == n {
            thread::spawn(operation.take().expect("calls are counted up")).join().unwrap();
        }
        None
    }
}

/// An operation on a session during a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    Renew,
    Grow,
    Keep,
    Rotate,
    Move,
    Delete,
}

impl Other {
    const ALL: [Self; 6] = [Self::Renew, Self::Grow, Self::Keep, Self::Rotate, Self::Move, Self::Delete];

    /// Runs the operation. Returns whether it was acknowledged.
    fn run(self, store: &FileStore, session: &SessionId, successor: &SessionId) -> Result<bool> {
        let until = at(MADE + 9, 0);
        let done = match self {
            Self::Renew => renew(store, session, until, "new"),
            Self::Grow => renew(store, session, until, &big("new")),
            Self::Keep => store.update_file(session, &mut |_| Ok(Verdict::Keep), false),
            Self::Rotate | Self::Move => {
                let mut change = |record: &mut Record| {
                    record.set_timing(Timing { deadline: until, ..record.timing() });
                    record.insert("text", &Value::new("new").unwrap()).unwrap();
                    Ok(Verdict::Write)
                };
                let how = if self == Self::Move { moving() } else { Rotation::default() };
                store.rotate_file(session, successor, &mut change, &how)
            }
            Self::Delete => return store.delete_file(SessionRef::Id(session)).map(|ended| ended.is_some()),
        };
        done.map(|live| live.is_some())
    }

    /// The expected texts afterwards, under the session's id and its successor's. `there` is the text before.
    fn leaves(self, acknowledged: bool, there: Option<&str>) -> [Option<String>; 2] {
        match self {
            _ if !acknowledged => [there.map(str::to_owned), None],
            Self::Renew => [Some("new".into()), None],
            Self::Grow => [Some(big("new")), None],
            Self::Keep => [there.map(str::to_owned), None],
            Self::Rotate | Self::Move => [None, Some("new".into())],
            Self::Delete => [None, None],
        }
    }
}

/// The deadline of the swept session: hour and minute. Its entry in the index has an earlier deadline.
const DEADLINE: (u64, u64) = (SWEPT, 31);

/// Times of the clock, in minutes: at the beginning of the sweep, during the other operation, and afterwards.
#[derive(Clone, Copy, Debug)]
struct Times {
    swept: u64,
    met: u64,
    after: u64,
}

fn sweep_met_in_every_call(place: Where, other: Other, times: Times) {
    let stage = Stage::new();
    let other_store = stage.other();
    for call in 0.. {
        stage.reset();
        let session = stage.renewed(place, at(MADE, 50), at(DEADLINE.0, DEADLINE.1), "old");
        let successor = stage.id(Where::Elsewhere);
        stage.clock.set(at(SWEPT, times.swept));
        let answer = Arc::new(Mutex::new(None));
        let operation = {
            let (answer, clock, other_store) =
                (Arc::clone(&answer), stage.clock.clone(), Arc::clone(&other_store));
            let (session, successor) = (session.clone(), successor.clone());
            move || {
                clock.set(at(SWEPT, times.met));
                *answer.lock().unwrap() = Some(other.run(&other_store, &session, &successor));
                clock.set(at(SWEPT, times.after));
            }
        };
        let (report, calls) = during(in_call(call, operation), || stage.sweep());
        let context = format!("{other:?} in call {call} of {calls:?}, {place:?}, {times:?}");
        let report = report.unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(report.failed, 0, "{context}: {report:?}");
        let Some(answer) = answer.lock().unwrap().take() else {
            assert!(call > 10, "{context}");
            return;
        };
        let acknowledged = match answer {
            Ok(done) => done,
            // The sweep holds the lock.
            Err(error) if error.kind() == ErrorKind::Busy => false,
            Err(error) => panic!("{context}: {error}"),
        };
        let got = [stage.text(&session), stage.text(&successor)];
        // If the save was refused, the session may be swept or may stay. It expires in either case.
        let there = (times.after < DEADLINE.1 && stage.exists(&session)).then_some("old");
        let want = if acknowledged && other == Other::Keep && times.after >= DEADLINE.1 {
            [None, None]
        } else {
            other.leaves(acknowledged, there)
        };
        assert_eq!(got, want, "{context}, acknowledged: {acknowledged}");
        // Setting the clock back does not bring a deleted session back either.
        stage.clock.set(at(SWEPT, 29));
        if acknowledged && [Other::Rotate, Other::Move, Other::Delete].contains(&other) {
            assert_eq!(stage.text(&session), None, "{context}: it came back");
        }
        assert_eq!(stage.fixture.temporary_beside(&session), 0, "{context}");
        // The index has not lost the session.
        stage.clock.set(at(MADE + 9, 1));
        stage.sweep_without_failures(&unrested(), &context);
        assert!(
            !stage.exists(&session) && !stage.exists(&successor),
            "{context}: the index has forgotten it"
        );
        stage.check_nothing_is_held(&context);
    }
}

#[test]
fn a_save_or_delete_during_a_sweep_prevails() {
    for place in [Where::Walked, Where::Elsewhere] {
        for other in Other::ALL {
            // The session is alive at the beginning of the sweep, and expires soon after the other operation.
            sweep_met_in_every_call(place, other, Times { swept: 30, met: 30, after: 32 });
        }
    }
}

/// The sweep has found the session expired. Then the clock is set back, and the session is alive again.
#[test]
fn a_clock_set_back_during_a_sweep_loses_and_revives_nothing() {
    for place in [Where::Walked, Where::Elsewhere] {
        for other in Other::ALL {
            for after in [30, 32] {
                sweep_met_in_every_call(place, other, Times { swept: 32, met: 30, after });
            }
        }
    }
}

/// A waiter opens the session file before a sweep removes it, and gets the lock after the sweep. Meanwhile the clock
/// may be set back, and the session imported again.
fn check_waiter(place: Where, other: Other, set_back: bool, imported: bool) {
    let stage = Stage::new();
    let context = format!("{other:?}, {place:?}, set back: {set_back}, imported: {imported}");
    let session = stage.session(place, at(MADE, 50), "old");
    let successor = stage.id(Where::Elsewhere);
    stage.clock.set(at(SWEPT, 0));
    let waiting = stage.fixture.reopened(FileStoreOptions::new().clock(stage.clock.clone()));
    let third = stage.other();
    let (sender, receiver) = mpsc::channel();
    let path = stage.fixture.path(&session);
    let meet = {
        let (session, successor, clock) = (session.clone(), successor.clone(), stage.clock.clone());
        let mut met = false;
        move |_, call: &'static str| {
            if call == "unlink" && !std::mem::replace(&mut met, true) {
                let (waiting, session, successor) =
                    (Arc::clone(&waiting), session.clone(), successor.clone());
                let (third, id, gone) = (Arc::clone(&third), session.public_id(), path.clone());
                // When the waiter gets the lock, another session has the name.
                let import = move |_, call: &str| {
                    if call == "read" && imported && !gone.exists() {
                        let (third, record) = (Arc::clone(&third), record_until(at(MADE + 9, 0), "imported"));
                        let import = thread::spawn(move || third.import(&id, &record, Durability::Relaxed));
                        assert!(import.join().unwrap().unwrap());
                    }
                    None
                };
                let waiter =
                    thread::spawn(move || during(import, || other.run(&waiting, &session, &successor)).0);
                // Waits until both processes have the file open: one descriptor belongs to the sweep.
                let began = Instant::now();
                while descriptors(|open| open == path) < 2 {
                    assert!(began.elapsed() < Duration::from_secs(10), "the waiter never opened the file");
                    thread::sleep(Duration::from_millis(1));
                }
                sender.send(waiter).unwrap();
                if set_back {
                    clock.set(at(MADE, 40));
                }
            }
            None
        }
    };
    let (report, _) = during(meet, || stage.sweep());
    assert_eq!(report.unwrap().removed, 1, "{context}");
    let acknowledged = receiver.recv().unwrap().join().unwrap();
    let acknowledged = acknowledged.unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(imported || !acknowledged, "{context}: acknowledged, and removed before");
    let want = other.leaves(acknowledged, imported.then_some("imported"));
    assert_eq!([stage.text(&session), stage.text(&successor)], want, "{context}: {acknowledged}");
}

#[test]
fn a_save_that_waited_for_a_sweep_is_not_acknowledged() {
    for place in [Where::Walked, Where::Elsewhere] {
        for other in Other::ALL {
            for (set_back, imported) in [(false, false), (true, false), (false, true), (true, true)] {
                check_waiter(place, other, set_back, imported);
            }
        }
    }
}

/// A session is imported in place of an expired session that is being swept.
#[test]
fn a_session_imported_during_a_sweep_stays() {
    for place in [Where::Walked, Where::Elsewhere] {
        let stage = Stage::new();
        let third = stage.other();
        let mut imported = 0;
        for call in 0.. {
            stage.reset();
            let session = stage.session(place, at(MADE, 50), "old");
            stage.clock.set(at(SWEPT, 0));
            let answer = Arc::new(Mutex::new(None));
            let operation = {
                let (answer, third, id) = (Arc::clone(&answer), Arc::clone(&third), session.public_id());
                let record = record_until(at(MADE + 9, 0), "imported");
                move || {
                    *answer.lock().unwrap() = Some(third.import(&id, &record, Durability::Relaxed));
                }
            };
            let (report, calls) = during(in_call(call, operation), || stage.sweep());
            let context = format!("in call {call} of {calls:?}, {place:?}");
            let removed = report.unwrap().removed;
            let Some(answer) = answer.lock().unwrap().take() else { break };
            let was = match answer {
                // The sweep was stopped, and held the lock for the whole wait limit.
                Err(error) if error.kind() == ErrorKind::Busy => false,
                answer => answer.unwrap(),
            };
            // An import that came before the sweep had the lock has replaced the expired session.
            assert!(removed == 1 || (was && removed == 0), "{context}: {removed}");
            imported += usize::from(was);
            assert_eq!(stage.text(&session).as_deref(), was.then_some("imported"), "{context}");
            stage.clock.set(at(MADE + 9, 1));
            assert_eq!(
                stage.sweep_without_failures(&unrested(), &context).removed,
                u64::from(was),
                "{context}"
            );
        }
        assert!(imported > 20, "{imported}");
    }
}

/// The inserting process has read the clock before the hour ended.
#[test]
fn an_insertion_during_a_bucket_removal_is_not_lost() {
    let stage = Stage::new();
    let late = Clock::manual(at(MADE, 55));
    let other_store = stage.fixture.reopened(FileStoreOptions::new().clock(late));
    for call in 0.. {
        stage.reset();
        stage.session(Where::Elsewhere, at(MADE, 50), "x");
        stage.clock.set(at(SWEPT, 0));
        // The bucket is open, as in a process that inserts sessions all the time.
        let before = stage.id(Where::Elsewhere);
        let filed_late = stage.id(Where::Elsewhere);
        let make = |store: &FileStore, session: &SessionId| {
            let record = record_until(at(MADE, 58), "x");
            store.create_file(SessionRef::Id(session), record, false).unwrap();
            renew(store, session, at(MADE + 9, 0), "late").unwrap().unwrap();
        };
        make(&other_store, &before);
        let operation = {
            let (other_store, filed_late) = (Arc::clone(&other_store), filed_late.clone());
            move || make(&other_store, &filed_late)
        };
        let (report, calls) = during(in_call(call, operation), || stage.sweep());
        let context = format!("in call {call} of {calls:?}");
        assert_eq!(report.unwrap().failed, 0, "{context}");
        let met = stage.exists(&filed_late);
        stage.clock.set(at(MADE + 9, 1));
        assert_eq!(
            stage.sweep_without_failures(&unrested(), &context).removed,
            1 + u64::from(met),
            "{context}"
        );
        if !met {
            assert!(call > 20, "{context}");
            return;
        }
    }
}

// --------------------------------------------------------------------------------------- sweeps beside operations

/// A session reaches its deadline in the middle of an operation on it, and is swept at that instant.
fn expire_and_sweep_in_every_call(operation: Operation, until: SystemTime) {
    let stage = Stage::new();
    let sweeper = stage.other();
    let deadline = at(SWEPT, 31);
    for call in 0.. {
        stage.reset();
        let session = stage.renewed(Where::Elsewhere, at(MADE, 50), deadline, "old");
        let successor = stage.id(Where::Elsewhere);
        stage.clock.set(at(SWEPT, 30));
        let met = Arc::new(Mutex::new(false));
        let sweep = {
            let (met, clock, sweeper) = (Arc::clone(&met), stage.clock.clone(), Arc::clone(&sweeper));
            move || {
                clock.set(deadline);
                let report = sweeper.sweep(&unrested()).unwrap();
                assert_eq!((report.outcome, report.failed), (SweepOutcome::Completed, 0), "{report:?}");
                *met.lock().unwrap() = true;
            }
        };
        let mut change = |record: &mut Record| {
            record.set_timing(Timing { deadline: until, ..record.timing() });
            let text = if matches!(operation, Operation::Grow { .. }) { big("new") } else { "new".into() };
            record.insert("text", &Value::new(&text).unwrap()).unwrap();
            Ok(Verdict::Write)
        };
        let store = stage.store();
        let (result, calls) = during(in_call(call, sweep), || match operation {
            Operation::Create { power_safe } => {
                let record = record_until(until, "new");
                store.create_file(SessionRef::Id(&successor), record, power_safe).map(|_| true)
            }
            Operation::Update { power_safe } | Operation::Grow { power_safe } => {
                store.update_file(&session, &mut change, power_safe).map(|live| live.is_some())
            }
            Operation::Keep => {
                store.update_file(&session, &mut |_| Ok(Verdict::Keep), true).map(|live| live.is_some())
            }
            Operation::Rotate | Operation::Move => {
                let how = if operation == Operation::Move { moving() } else { Rotation::default() };
                store.rotate_file(&session, &successor, &mut change, &how).map(|live| live.is_some())
            }
            Operation::Delete => store.delete_file(SessionRef::Id(&session)).map(|ended| ended.is_some()),
            Operation::Load => unreachable!(),
        });
        if !*met.lock().unwrap() {
            assert!(call > 2);
            return;
        }
        let context = format!("{operation:?} until {until:?}, swept in call {call} of {calls:?}");
        let acknowledged = result.unwrap_or_else(|error| panic!("{context}: {error}"));
        let lives = acknowledged && until > deadline;
        let [old, made] = [stage.text(&session), stage.text(&successor)];
        let want = match operation {
            Operation::Create { .. } | Operation::Rotate | Operation::Move => {
                [None, lives.then(|| "new".into())]
            }
            Operation::Update { .. } | Operation::Grow { .. } => [lives.then(|| operation.new_text()), None],
            _ => [None, None],
        };
        assert_eq!([old, made], want, "{context}: {acknowledged}");
        assert_eq!(stage.fixture.temporary_beside(&session), 0, "{context}");
        // If an operation has reported the session as deleted or expired, it does not come back when the clock is set
        // back.
        if acknowledged && [Operation::Delete, Operation::Rotate, Operation::Move].contains(&operation) {
            stage.clock.set(at(SWEPT, 30));
            assert_eq!(stage.text(&session), None, "{context}: it came back");
        }
        stage.clock.set(at(MADE + 9, 31));
        stage.sweep_without_failures(&unrested().full(true), &context);
        assert!(!stage.exists(&session) && !stage.exists(&successor), "{context}");
        stage.check_nothing_is_held(&context);
    }
}

#[test]
fn an_acknowledged_renewal_survives_a_sweep_at_the_deadline() {
    for operation in WRITING {
        // The operation moves the deadline to a later time, or does not.
        for until in [at(MADE + 9, 30), at(SWEPT, 31)] {
            expire_and_sweep_in_every_call(operation, until);
        }
    }
}

#[test]
fn a_session_that_expires_during_its_creation_is_indexed() {
    let stage = Stage::new();
    let sweeper = stage.other();
    let deadline = at(SWEPT, 31);
    for call in 0..12 {
        stage.reset();
        stage.clock.set(at(SWEPT, 30));
        let session = stage.id(Where::Elsewhere);
        let (clock, sweeper) = (stage.clock.clone(), Arc::clone(&sweeper));
        let mut sweep = Some(move || {
            clock.set(deadline);
            sweeper.sweep(&unrested()).unwrap();
        });
        let plan = move |n, _: &str| {
            if n == call {
                thread::spawn(sweep.take().unwrap()).join().unwrap();
            }
            None
        };
        let create = || {
            let record = record_until(deadline, "x");
            stage.store().create_file(SessionRef::Id(&session), record, false)
        };
        let (made, calls) = during(plan, create);
        made.unwrap();
        stage.clock.set(at(SWEPT + 1, 31));
        stage.sweep_without_failures(&unrested(), "an hour later");
        assert!(!stage.exists(&session), "swept in call {call} of {calls:?}: the index has forgotten it");
    }
}

#[test]
fn a_session_revived_by_the_clock_is_read_once_a_pass() {
    let stage = Stage::new();
    let session = stage.session(Where::Elsewhere, at(MADE, 35), "x");
    stage.clock.set(at(MADE, 36));
    let clock = stage.clock.clone();
    let set_back = move |n, call: &str| {
        if call == "open session in shard" {
            clock.set(at(MADE, 34));
        }
        assert!(n < 1000, "it comes up again and again");
        None
    };
    let (report, _) = during(set_back, || stage.sweep_without_failures(&unrested(), "set back"));
    assert_eq!(report.removed, 0);
    assert_eq!(stage.text(&session).as_deref(), Some("x"));
    stage.clock.set(at(MADE, 37));
    assert_eq!(stage.sweep_without_failures(&unrested(), "put right").removed, 1);
}
