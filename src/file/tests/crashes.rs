//! A process that dies in any call of any operation.
use super::sweeps::unrested;
use super::*;
use crate::admin::Admin;
use std::collections::HashSet;

fn die_in_every_call(operation: Operation, power_safe: bool) {
    let fixture = Fixture::new();
    for call in 0.. {
        let (session, successor) = (fixture.session(power_safe), SessionId::random().unwrap());
        let survived = dying_in_call(call, || operation.run(&fixture.store, &session, &successor).unwrap());
        let context = format!("{operation:?} died in call {call}");
        let (old, made) = (fixture.text(&session), fixture.text(&successor));
        match operation {
            Operation::Rotate | Operation::Move => {
                assert!([None, Some("old")].contains(&old.as_deref()), "{context}: {old:?}");
                assert!([None, Some("new")].contains(&made.as_deref()), "{context}: {made:?}");
                assert!(old.is_some() || made.is_some(), "{context}: both ids are dead");
            }
            // The result is never the oldest version: an end that was interrupted does not bring back an older version.
            Operation::Delete => assert!([None, Some("old")].contains(&old.as_deref()), "{context}: {old:?}"),
            Operation::Create { .. } => assert!([None, Some("new")].contains(&made.as_deref()), "{context}"),
            _ => {
                let old = old.as_deref().unwrap_or_else(|| panic!("{context}: the session is gone"));
                assert!(old == "old" || old == operation.new_text(), "{context}: {old:?}");
            }
        }
        // The next process can use the session at once.
        let other = fixture.reopened(FileStoreOptions::new().lock_wait(Duration::from_millis(200)));
        // The successor is ended first, because ending a moved id ends its successor.
        for (session, alive) in [(&successor, made.is_some()), (&session, old.is_some())] {
            assert_eq!(put(&other, session, &big("next"), true).unwrap().is_some(), alive, "{context}");
            assert_eq!(fixture.text(session), alive.then(|| big("next")), "{context}");
            assert_eq!(other.delete_file(SessionRef::Id(session)).unwrap().is_some(), alive, "{context}");
            assert_eq!(fixture.text(session), None, "{context}");
            assert!(!fixture.path(session).exists() || fixture.is_moved(session), "{context}");
        }
        assert_eq!(fixture.store.queues.len(), 0, "{context}: a queue is left");
        if survived.is_some() {
            assert!(call > 2, "no operation makes fewer than three calls");
            return;
        }
    }
}

#[test]
fn a_death_in_any_call_leaves_the_old_version_or_the_new() {
    for operation in WRITING {
        for power_safe in [false, true] {
            die_in_every_call(operation, power_safe);
        }
    }
}

/// The flag "retiring" only makes writers check the path. It must neither end the session nor stay.
#[test]
fn a_file_that_a_killed_writer_marked_retiring_stays_usable() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let exchange = GROW.iter().position(|call| *call == "exchange").unwrap();
    assert!(dying_in_call(exchange, || put(&fixture.store, &session, &big("x"), false)).is_none());
    assert_eq!(fixture.text(&session).as_deref(), Some("old"));
    let calls = ["open session", "lock", "read", "stat file", "stat session", "write"];
    check_calls(&then_invalidated(&calls), || put(&fixture.store, &session, "a", false));
    check_calls(&["open session", "lock", "read", "write", "invalidate"], || {
        put(&fixture.store, &session, "b", false)
    });
    assert_eq!(fixture.text(&session).as_deref(), Some("b"));
}

/// A signal that kills the process may cut a write of more than a page short.
#[test]
fn a_death_amid_a_write_leaves_the_old_version_or_the_new() {
    struct Death;
    for (operation, part) in WRITING.into_iter().flat_map(|operation| [(operation, SHORT), (operation, PAGE)])
    {
        for text in ["old".to_owned(), big("old")] {
            let fixture = Fixture::new();
            for call in 0.. {
                let (session, successor) = (fixture.session(true), SessionId::random().unwrap());
                put(&fixture.store, &session, &text, true).unwrap().unwrap();
                let die = move |n: usize, _: &str| match n.checked_sub(call) {
                    None => None,
                    Some(0) => Some(part),
                    Some(1) => resume_unwind(Box::new(Death)),
                    Some(_) => Some(Errno::IO.raw_os_error()),
                };
                let big_record = || {
                    let record = record(&big("new"));
                    fixture.store.create_file(SessionRef::Id(&successor), record, true).map(|_| true)
                };
                let run = || match operation {
                    Operation::Create { power_safe: true } => big_record(),
                    _ => operation.run(&fixture.store, &session, &successor),
                };
                let ended = catch_unwind(AssertUnwindSafe(|| during(die, run)));
                during(|_, _| None, || ());
                let context = format!("{operation:?} of {} bytes, {part}, call {call}", text.len());
                let (old, made) = (fixture.text(&session), fixture.text(&successor));
                let new = match operation {
                    Operation::Create { .. } | Operation::Keep => vec![Some(text.clone())],
                    Operation::Rotate | Operation::Move | Operation::Delete => vec![Some(text.clone()), None],
                    _ => vec![Some(text.clone()), Some(operation.new_text())],
                };
                assert!(new.contains(&old), "{context}: {:?}", old.map(|t| t.len()));
                let made_text = if operation == (Operation::Create { power_safe: true }) {
                    big("new")
                } else {
                    "new".into()
                };
                assert!(made.as_ref().is_none_or(|made| *made == made_text), "{context}");
                if operation.rotates() {
                    assert!(old.is_some() || made.is_some(), "{context}: both are dead");
                }
                // The file that is left is removed as a leftover, and is not kept as a damaged file.
                let shards: HashSet<_> =
                    [&session, &successor].map(|id| fixture.path(id).parent().unwrap().to_owned()).into();
                let files = || shards.iter().flat_map(|shard| fs::read_dir(shard).unwrap());
                for file in files() {
                    let file = fs::File::options().write(true).open(file.unwrap().path()).unwrap();
                    file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
                }
                let report = fixture.store.sweep(&unrested().full(true)).unwrap();
                let done = (report.files.damaged, report.failed, report.removed);
                assert_eq!(done, (0, 0, 0), "{context}: {report:?}");
                let alive = usize::from(old.is_some()) + usize::from(made.is_some());
                let moved = usize::from(fixture.is_moved(&session));
                assert_eq!(files().count(), alive + moved, "{context}");
                for id in [&session, &successor] {
                    fixture.store.delete_file(SessionRef::Id(id)).unwrap();
                }
                let _ = fs::remove_file(fixture.path(&session));
                if ended.is_ok() {
                    break;
                }
            }
        }
    }
}
