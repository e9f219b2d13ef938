//! A process that dies in any call of any act.
use super::*;

fn die_in_every_call(act: Act, power_safe: bool) {
    let fixture = Fixture::new();
    for call in 0.. {
        let (session, successor) = (fixture.session(power_safe), SessionId::random().unwrap());
        let survived = dying_in_call(call, || act.run(&fixture.store, &session, &successor).unwrap());
        let context = format!("{act:?} died in call {call}");
        let (old, made) = (fixture.text(&session), fixture.text(&successor));
        match act {
            Act::Rotate => {
                assert!([None, Some("old")].contains(&old.as_deref()), "{context}: {old:?}");
                assert!([None, Some("new")].contains(&made.as_deref()), "{context}: {made:?}");
                assert!(old.is_some() || made.is_some(), "{context}: both ids are dead");
            }
            // Not "ancient": an end that was begun uncovers no older version.
            Act::Delete => assert!([None, Some("old")].contains(&old.as_deref()), "{context}: {old:?}"),
            Act::Create { .. } => assert!([None, Some("new")].contains(&made.as_deref()), "{context}"),
            _ => {
                let old = old.as_deref().unwrap_or_else(|| panic!("{context}: the session is gone"));
                assert!(old == "old" || old == act.new_text(), "{context}: {old:?}");
            }
        }
        // The next process finds nothing in its way.
        let other = fixture.reopened(FileStoreOptions::new().lock_wait(Duration::from_millis(200)));
        for (session, alive) in [(&session, old.is_some()), (&successor, made.is_some())] {
            assert_eq!(put(&other, session, &big("next"), true).unwrap().is_some(), alive, "{context}");
            assert_eq!(fixture.text(session), alive.then(|| big("next")), "{context}");
            assert_eq!(other.end_file(Whose::Secret(session)).unwrap(), alive, "{context}");
            assert_eq!(fixture.text(session), None, "{context}");
            assert!(!fixture.path(session).exists(), "{context}");
        }
        assert_eq!(fixture.store.queues.len(), 0, "{context}: a queue is left");
        if survived.is_some() {
            assert!(call > 2, "no act makes fewer than three calls");
            return;
        }
    }
}

#[test]
fn a_process_that_dies_in_any_call_leaves_the_old_version_or_the_new_one() {
    for act in WRITING {
        for power_safe in [false, true] {
            die_in_every_call(act, power_safe);
        }
    }
}

/// The mark is only a reason to look; it must neither kill the session nor stay.
#[test]
fn a_file_marked_by_a_writer_that_died_before_it_replaced_it_goes_on() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let exchange = GROW.iter().position(|call| *call == "exchange").unwrap();
    assert!(dying_in_call(exchange, || put(&fixture.store, &session, &big("x"), false)).is_none());
    assert_eq!(fixture.text(&session).as_deref(), Some("old"));
    let calls = ["open session", "lock", "read", "stat file", "stat session", "write"];
    check_calls(&told(&calls), || put(&fixture.store, &session, "a", false));
    check_calls(&["open session", "lock", "read", "write", "announce"], || {
        put(&fixture.store, &session, "b", false)
    });
    assert_eq!(fixture.text(&session).as_deref(), Some("b"));
}
