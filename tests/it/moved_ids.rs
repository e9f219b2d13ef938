//! Requests with an id that a rotation or a login has replaced, such as one that was sent at the same time as a login,
//! or by a second click on a button.
use crate::lifecycle::{Operation, add_one, elsewhere, entries, loaded, stored, stored_for, token_of};
use crate::support::memory::{Call, Stage, made_up_token, on_every_storage, secs};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use sessile::{
    Absent, Destroyed, ErrorKind, Event, Expiry, Headers, Lifetime, Lookup, Moved, PublicId, Renewal,
    Session, Token, Visit,
};
use std::sync::Arc;
use std::time::Duration;

on_every_storage! {
    the_lifetime_says_how_long_an_id_is_known_as_moved,
    a_moved_id_shows_no_session,
    a_change_under_a_moved_id_is_refused_and_stores_nothing,
    a_change_at_once_under_a_moved_id_is_refused,
    a_request_with_a_moved_id_renews_nothing,
    a_live_id_beside_a_moved_one_is_the_session,
    a_login_under_a_rotated_id_moves_the_session,
    a_login_beside_one_of_the_same_user_starts_from_a_copy,
    a_login_beside_one_of_another_user_takes_nothing_of_theirs,
    a_login_pressed_twice_on_the_page_of_another_user_keeps_the_cart,
    a_login_takes_no_copy_of_a_session_that_a_policy_has_ended,
    of_two_moved_ids_a_login_goes_on_from_the_first,
    a_login_under_a_rotated_id_may_end_its_session_and_cookie,
    a_login_whose_successor_has_ended_makes_a_new_session,
    a_login_under_a_moved_id_keeps_its_changes_if_it_fails,
    a_login_under_a_moved_id_that_expires_at_once_leaves_no_session,
    a_logout_under_a_rotated_id_ends_the_session,
    a_logout_under_a_rotated_id_is_observed_by_the_id_it_ended,
    a_logout_beside_a_login_removes_the_cookie_only,
    a_moved_id_is_that_of_a_stranger_after_the_grace_period,
    a_login_takes_no_copy_after_the_grace_period,
    the_use_of_a_moved_id_is_reported_after_its_grace_period_only,
}

const GRACE: Duration = secs(60);

/// The ways in which an id is replaced, with their names.
const MOVES: [Operation; 2] = [("rotation", Session::rotate_id), ("login", |s| s.login("ada").unwrap())];

/// Makes a session whose id another request then replaces. Returns the old and the new token.
fn moved(stage: &Stage, what: &Json, by: fn(&mut Session)) -> (Token, Token) {
    let old = stored(stage, what);
    let mut other = stage.others().session([old.clone()]);
    by(&mut other);
    other.save().unwrap();
    stage.rig.calls();
    (old, token_of(&other))
}

fn id_of(token: &Token) -> PublicId {
    PublicId::digest(token.expose().as_bytes())
}

fn visit(stage: &Stage, token: &Token) -> Visit {
    stage.sessions().visit([format!("session={}", token.expose()).as_str()])
}

#[track_caller]
fn check_no_cookie(headers: &Headers) {
    assert!(headers.iter().all(|(name, _)| *name != "Set-Cookie"), "{headers:?}");
}

fn the_lifetime_says_how_long_an_id_is_known_as_moved(stage: &Stage) {
    for (grace, known) in [(secs(0), false), (secs(1), true), (GRACE, true), (secs(600), true)] {
        for (name, by) in MOVES {
            let token = stored(stage, &json!({ "n": 1 }));
            let lifetime = if grace == GRACE { Lifetime::new() } else { Lifetime::new().grace(grace) };
            elsewhere(&stage.others().with_lifetime(lifetime).unwrap(), &token, by);
            let Lookup::Absent(absent) = stage.store.load(&token).unwrap() else { panic!("it is replaced") };
            let id = id_of(&token);
            let expected = if known {
                Absent::Moved(Moved::new(id, stage.clock.now() + grace, name == "login"))
            } else {
                Absent::NotFound(id)
            };
            assert_eq!(absent, expected, "{name}");
        }
    }
}

fn a_moved_id_shows_no_session(stage: &Stage) {
    for (name, by) in MOVES {
        let (old, _) = moved(stage, &json!({ "secret": 1 }), by);
        let visit = visit(stage, &old);
        assert_eq!(visit.get::<u64>("secret").unwrap(), None, "{name}");
        assert!(visit.is_empty().unwrap() && visit.token().unwrap().is_none());
        assert_eq!((visit.user().unwrap(), visit.public_id().unwrap()), (None, None));
        assert_eq!(stage.rig.calls(), [Call::Load], "looked up once");
        let headers = visit.finish(200).unwrap();
        check_no_cookie(&headers);
        assert_eq!(headers, [("Vary", "Cookie".into())]);
        assert_eq!(stage.rig.calls(), []);
    }
}

/// Changes that are saved at the end of the request.
const CHANGES: [Operation; 5] = [
    ("insert", |s| s.insert("n", 2).unwrap()),
    ("update", |s| assert_eq!(s.update("n", |n: &mut u64| *n += 1).unwrap(), 1)),
    ("clear", Session::clear),
    ("rotate_id", Session::rotate_id),
    ("set_expiry", |s| s.set_expiry(Expiry::After(secs(300)))),
];

fn a_change_under_a_moved_id_is_refused_and_stores_nothing(stage: &Stage) {
    for (name, by) in MOVES {
        let (old, new) = moved(stage, &json!({ "n": 1 }), by);
        let before = stage.stored();
        for (change, run) in CHANGES {
            for read_first in [true, false] {
                let mut visit = visit(stage, &old);
                if read_first {
                    assert!(visit.is_empty().unwrap());
                }
                run(&mut visit);
                let refused = visit.finish(200).unwrap_err();
                assert_eq!(refused.error.kind(), ErrorKind::Gone, "{name}, {change}");
                check_no_cookie(&refused.headers);
                assert_eq!(stage.rig.calls(), [Call::Load], "{name}, {change}");
            }
        }
        let mut session = stage.sessions().session([old.clone()]);
        session.insert("n", 2).unwrap();
        let error = session.save().unwrap_err();
        let expected = format!(
            "failed to save session {}: a login or rotation has given it another id; nothing was saved",
            id_of(&old)
        );
        assert_eq!(error.to_string(), expected);
        assert_eq!(session.get::<u64>("n").unwrap(), Some(2), "the change is kept, as after any failed save");
        session.discard_changes();
        session.save().unwrap();
        assert_eq!(stage.stored(), before);
        assert_eq!(entries(stage, &new), json!({ "n": 1 }));
    }
}

fn a_change_at_once_under_a_moved_id_is_refused(stage: &Stage) {
    type Now = fn(&mut Session) -> sessile::Result<()>;
    let changes: [(&str, Now); 3] = [
        ("update_now", |s| s.update_now("n", add_one).map(drop)),
        ("take_now", |s| s.take_now::<u64>("n").map(drop)),
        ("get_or_insert_now", |s| s.get_or_insert_now("n", 7).map(drop)),
    ];
    for (name, by) in MOVES {
        let (old, new) = moved(stage, &json!({ "n": 1 }), by);
        let before = stage.stored();
        for (change, run) in changes {
            let mut visit = visit(stage, &old);
            assert_eq!(run(&mut visit).unwrap_err().kind(), ErrorKind::Gone, "{name}, {change}");
            assert_eq!(stage.rig.calls(), [Call::Load]);
            check_no_cookie(&visit.discard());
        }
        assert_eq!((stage.stored(), entries(stage, &new)), (before, json!({ "n": 1 })));
    }
}

fn a_request_with_a_moved_id_renews_nothing(stage: &Stage) {
    for (_, by) in MOVES {
        let (old, _) = moved(stage, &json!({ "n": 1 }), by);
        for renewal in [Renewal::OnSave, Renewal::OnRead, Renewal::EveryRequest] {
            let sessions = stage.sessions_living(Lifetime::new().renewal(renewal).renewal_step_percent(0));
            stage.clock.advance(secs(1));
            let visit = sessions.visit([format!("session={}", old.expose()).as_str()]);
            check_no_cookie(&visit.finish(200).unwrap());
            assert!(stage.rig.calls().iter().all(|call| *call == Call::Load));
        }
    }
}

fn a_live_id_beside_a_moved_one_is_the_session(stage: &Stage) {
    let (old, new) = moved(stage, &json!({ "n": 1 }), Session::rotate_id);
    for tokens in [[old.clone(), new.clone()], [new.clone(), old.clone()]] {
        let mut session = stage.sessions().session(tokens);
        assert_eq!(session.token().unwrap(), Some(new.clone()));
        session.update_now("n", add_one).unwrap();
    }
    assert_eq!(entries(stage, &new), json!({ "n": 3 }));
    // An unknown id in the same request changes nothing.
    for tokens in [[old.clone(), made_up_token()], [made_up_token(), old.clone()]] {
        let mut session = stage.sessions().session(tokens);
        session.insert("n", 7).unwrap();
        assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Gone);
    }
}

/// The ways in which a login is saved, with their names: at the end of the request, or by changing an entry at once.
const SAVES: [Operation; 2] = [
    ("save", |s| {
        s.insert("seen", 1).unwrap();
        s.save().unwrap();
    }),
    ("update_now", |s| assert_eq!(s.update_now("seen", add_one).unwrap(), 1)),
];

/// Runs `login` for each way of saving, with a session that was live when the request read it, and with one that was
/// not.
fn for_each_login(
    stage: &Stage,
    by: fn(&mut Session),
    login: impl Fn(&str, &mut Session, fn(&mut Session), Token),
) {
    for (save, run) in SAVES {
        for read_first in [true, false] {
            let old = stored(stage, &json!({ "cart": ["apple"] }));
            let mut session = stage.sessions().session([old.clone()]);
            if read_first {
                assert!(session.token().unwrap().is_some());
            }
            let mut other = stage.others().session([old]);
            by(&mut other);
            other.insert("late", true).unwrap();
            other.save().unwrap();
            session.login("ada").unwrap();
            login(&format!("{save}, live at first {read_first}"), &mut session, run, token_of(&other));
        }
    }
}

fn a_login_under_a_rotated_id_moves_the_session(stage: &Stage) {
    for_each_login(stage, Session::rotate_id, |name, session, save, successor| {
        let before = stage.stored();
        save(session);
        let token = token_of(session);
        let expected = json!({ "cart": ["apple"], "late": true, "seen": 1 });
        assert_eq!(entries(stage, &token), expected, "{name}");
        assert_eq!(stage.record(&token).user(), Some("ada"), "{name}");
        stage.check_absent(&successor);
        assert_eq!(stage.stored(), before, "{name}: one session");
        // The request continues with the new session.
        session.insert("more", true).unwrap();
        session.save().unwrap();
        assert_eq!(session.get("late").unwrap(), Some(true), "{name}");
        assert_eq!(session.destroy().unwrap(), Destroyed::Ended, "{name}");
        stage.check_absent(&token);
    });
    // The response of the request has the new id.
    let (old, new) = moved(stage, &json!({ "n": 1 }), Session::rotate_id);
    let mut visit = visit(stage, &old);
    visit.login("ada").unwrap();
    let headers = visit.finish(200).unwrap();
    let cookies = headers.iter().filter(|(name, _)| *name == "Set-Cookie").count();
    assert_eq!(cookies, 1);
    stage.check_absent(&new);
}

fn a_login_beside_one_of_the_same_user_starts_from_a_copy(stage: &Stage) {
    for_each_login(
        stage,
        |s| s.login("ada").unwrap(),
        |name, session, save, first| {
            save(session);
            let second = token_of(session);
            assert_ne!(second, first);
            let copied = json!({ "cart": ["apple"], "late": true });
            assert_eq!(entries(stage, &first), copied, "{name}: the first login is as it was");
            assert_eq!(
                entries(stage, &second),
                json!({ "cart": ["apple"], "late": true, "seen": 1 }),
                "{name}"
            );
            for token in [first, second] {
                assert_eq!(stage.record(&token).user(), Some("ada"), "{name}");
            }
        },
    );
    // The old id is found through a rotation before the login, and through one after it.
    let (old, rotated) = moved(stage, &json!({ "n": 1 }), Session::rotate_id);
    elsewhere(&stage.others(), &rotated, |s| s.login("ada").unwrap());
    let mut session = stage.sessions().session([old]);
    session.login("ada").unwrap();
    session.save().unwrap();
    assert_eq!(session.get("n").unwrap(), Some(1));
}

fn a_login_beside_one_of_another_user_takes_nothing_of_theirs(stage: &Stage) {
    for_each_login(
        stage,
        |s| s.login("bob").unwrap(),
        |name, session, save, first| {
            let was_read = session.get::<Json>("cart").unwrap().is_some();
            save(session);
            // This request has read the cart of an anonymous visitor. Bob's login does not keep it.
            let expected =
                if was_read { json!({ "cart": ["apple"], "seen": 1 }) } else { json!({ "seen": 1 }) };
            assert_eq!(entries(stage, &token_of(session)), expected, "{name}");
            assert_eq!(stage.record(&token_of(session)).user(), Some("ada"), "{name}");
            assert_eq!(stage.record(&first).user(), Some("bob"), "{name}");
        },
    );
    let old = stored_for(stage, "bob", &json!({ "secret": 1 }));
    elsewhere(&stage.others(), &old, Session::rotate_id);
    let mut session = stage.sessions().session([old]);
    session.login("ada").unwrap();
    session.save().unwrap();
    assert_eq!(entries(stage, &token_of(&session)), json!({}), "a rotated session of bob's is ended");
}

fn a_login_pressed_twice_on_the_page_of_another_user_keeps_the_cart(stage: &Stage) {
    for read_first in [true, false] {
        let old = stored_for(stage, "bob", &json!({ "secret": 1 }));
        let mut session = stage.sessions().session([old.clone()]);
        if read_first {
            assert_eq!(session.get("secret").unwrap(), Some(1));
        }
        elsewhere(&stage.others(), &old, |s| {
            s.login("ada").unwrap();
            s.insert("cart", 1).unwrap();
        });
        session.login("ada").unwrap();
        session.insert("seen", 1).unwrap();
        session.save().unwrap();
        assert_eq!(entries(stage, &token_of(&session)), json!({ "cart": 1, "seen": 1 }), "{read_first}");
    }
}

fn a_login_takes_no_copy_of_a_session_that_a_policy_has_ended(stage: &Stage) {
    let (old, _) = moved(stage, &json!({ "cart": 1 }), |s| s.login("ada").unwrap());
    stage.clock.advance(secs(30));
    for (limit, expected) in [(secs(31), json!({ "cart": 1 })), (secs(30), json!({}))] {
        let sessions = stage.sessions_living(Lifetime::new().absolute_limit(limit));
        let mut session = sessions.session([old.clone()]);
        session.login("ada").unwrap();
        session.save().unwrap();
        assert_eq!(entries(stage, &token_of(&session)), expected, "{limit:?}");
    }
}

fn of_two_moved_ids_a_login_goes_on_from_the_first(stage: &Stage) {
    let [first, second] = [1, 2].map(|n| moved(stage, &json!({ "n": n }), Session::rotate_id));
    let mut session = stage.sessions().session([first.0, second.0]);
    session.login("ada").unwrap();
    session.save().unwrap();
    assert_eq!(entries(stage, &token_of(&session)), json!({ "n": 1 }));
    stage.check_absent(&first.1);
    assert_eq!(entries(stage, &second.1), json!({ "n": 2 }));
}

fn a_login_under_a_rotated_id_may_end_its_session_and_cookie(stage: &Stage) {
    let (old, new) = moved(stage, &json!({ "n": 1 }), Session::rotate_id);
    let mut visit = visit(stage, &old);
    visit.login("ada").unwrap();
    visit.save().unwrap();
    visit.set_expiry(Expiry::After(Duration::ZERO));
    assert!(removes_the_cookie(&visit.finish(200).unwrap()), "the browser has a cookie of this session");
    stage.check_absent(&new);
    assert_eq!(stage.stored(), 0);
}

fn a_login_whose_successor_has_ended_makes_a_new_session(stage: &Stage) {
    for (name, by) in MOVES {
        for_each_login(stage, by, |context, session, save, successor| {
            elsewhere(&stage.others(), &successor, |s| s.destroy().unwrap());
            let was_read = session.get::<Json>("cart").unwrap().is_some();
            save(session);
            let expected =
                if was_read { json!({ "cart": ["apple"], "seen": 1 }) } else { json!({ "seen": 1 }) };
            assert_eq!(entries(stage, &token_of(session)), expected, "{name}, {context}");
        });
    }
}

fn a_login_under_a_moved_id_keeps_its_changes_if_it_fails(stage: &Stage) {
    let plans: [(Operation, &[(Call, usize)]); 2] = [
        (MOVES[0], &[(Call::Rotate, 0)]),
        // The calls that fail in turn: the rotation, the load of the moved id, the load of its successor, and the
        // creation of the new session.
        (MOVES[1], &[(Call::Rotate, 0), (Call::Load, 0), (Call::Load, 1), (Call::Create, 0)]),
    ];
    for ((name, by), failures) in plans {
        for &(call, passes) in failures {
            let (old, new) = moved(stage, &json!({ "n": 1 }), by);
            let mut session = stage.sessions().session([old]);
            session.login("ada").unwrap();
            session.insert("seen", true).unwrap();
            let before = stage.stored();
            stage.rig.fail(call, passes);
            assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Storage, "{name} {call:?} {passes}");
            assert_eq!(stage.stored(), before);
            assert_eq!(entries(stage, &new), json!({ "n": 1 }));
            assert_eq!(session.user().unwrap().as_deref(), Some("ada"));
            session.save().unwrap();
            assert_eq!(entries(stage, &token_of(&session)), json!({ "n": 1, "seen": true }));
        }
    }
}

fn a_login_under_a_moved_id_that_expires_at_once_leaves_no_session(stage: &Stage) {
    let (old, new) = moved(stage, &json!({ "n": 1 }), Session::rotate_id);
    let mut visit = visit(stage, &old);
    visit.login("ada").unwrap();
    visit.set_expiry(Expiry::After(Duration::ZERO));
    check_no_cookie(&visit.finish(200).unwrap());
    stage.check_absent(&new);
    assert_eq!(stage.stored(), 0);
}

fn removes_the_cookie(headers: &Headers) -> bool {
    headers.iter().any(|(name, value)| *name == "Set-Cookie" && value.contains("Max-Age=0"))
}

fn a_logout_under_a_rotated_id_ends_the_session(stage: &Stage) {
    for rotations in 1..4 {
        for read_first in [true, false] {
            let old = stored(stage, &json!({ "n": 1 }));
            let mut visit = visit(stage, &old);
            if read_first {
                assert!(visit.token().unwrap().is_some());
            }
            let mut last = old.clone();
            for _ in 0..rotations {
                let mut other = stage.others().session([last]);
                other.rotate_id();
                other.save().unwrap();
                last = token_of(&other);
            }
            assert_eq!(visit.destroy().unwrap(), Destroyed::Ended);
            stage.check_absent(&last);
            assert_eq!(stage.stored(), 0);
            assert!(removes_the_cookie(&visit.finish(200).unwrap()));
        }
    }
}

fn a_logout_under_a_rotated_id_is_observed_by_the_id_it_ended(stage: &Stage) {
    let seen: Arc<Mutex<Vec<PublicId>>> = Arc::default();
    let observed = seen.clone();
    let sessions = stage.sessions().with_observer(move |event| {
        if let Event::Ended { id, .. } = event {
            observed.lock().push(*id);
        }
    });
    for read_first in [true, false] {
        let old = stored(stage, &json!({ "n": 1 }));
        let mut session = sessions.session([old.clone()]);
        if read_first {
            assert_eq!(session.public_id().unwrap(), Some(id_of(&old)));
        }
        let new = elsewhere(&stage.others(), &old, |s| {
            s.rotate_id();
            s.save().unwrap();
            token_of(s)
        });
        // The first attempt fails before it ends the session; the second one finds it.
        stage.rig.fail(Call::Delete, 0);
        assert_eq!(session.destroy().unwrap_err().kind(), ErrorKind::Storage);
        assert_eq!(*seen.lock(), []);
        assert_eq!(session.destroy().unwrap(), Destroyed::Ended);
        assert_eq!(std::mem::take(&mut *seen.lock()), [id_of(&new)], "read first: {read_first}");
    }
    // The store cannot tell which session a failed attempt has ended.
    let (old, new) = moved(stage, &json!({ "n": 1 }), Session::rotate_id);
    let mut session = sessions.session([old.clone()]);
    stage.rig.fail(Call::Delete, 0);
    session.destroy().unwrap_err();
    stage.second.delete(&new).unwrap();
    assert_eq!(session.destroy().unwrap(), Destroyed::Ended);
    assert_eq!(*seen.lock(), [id_of(&old)], "the presented id");
}

fn a_logout_beside_a_login_removes_the_cookie_only(stage: &Stage) {
    let (old, new) = moved(stage, &json!({ "n": 1 }), |s| s.login("ada").unwrap());
    let mut visit = visit(stage, &old);
    assert_eq!(visit.destroy().unwrap(), Destroyed::WasGone);
    assert!(removes_the_cookie(&visit.finish(200).unwrap()));
    assert_eq!(stage.record(&new).user(), Some("ada"));
    // An entry that is stored after a logout is stored in a new session.
    let mut session = stage.sessions().session([old]);
    session.destroy().unwrap();
    session.insert("n", 2).unwrap();
    session.save().unwrap();
    assert_eq!(entries(stage, &token_of(&session)), json!({ "n": 2 }));
}

fn a_moved_id_is_that_of_a_stranger_after_the_grace_period(stage: &Stage) {
    for (_, by) in MOVES {
        let (old, new) = moved(stage, &json!({ "n": 1 }), by);
        stage.clock.advance(GRACE);
        let mut session = stage.sessions().session([old.clone()]);
        session.insert("n", 7).unwrap();
        session.save().unwrap();
        assert_eq!(entries(stage, &token_of(&session)), json!({ "n": 7 }));
        let mut session = stage.sessions().session([old.clone()]);
        session.login("ada").unwrap();
        session.save().unwrap();
        assert_eq!(entries(stage, &token_of(&session)), json!({}));
        let mut session = stage.sessions().session([old]);
        assert_eq!(session.destroy().unwrap(), Destroyed::WasGone);
        assert_eq!(entries(stage, &new), json!({ "n": 1 }), "the session is as it was");
    }
}

fn a_login_takes_no_copy_after_the_grace_period(stage: &Stage) {
    // The request takes longer than the grace period.
    let token = stored(stage, &json!({ "cart": 1 }));
    let mut session = loaded(stage, &token);
    session.login("ada").unwrap();
    elsewhere(&stage.others(), &token, |s| {
        s.login("ada").unwrap();
        s.insert("late", true).unwrap();
    });
    stage.clock.advance(GRACE);
    session.save().unwrap();
    assert_eq!(entries(stage, &token_of(&session)), json!({ "cart": 1 }), "only what it had loaded");
}

fn the_use_of_a_moved_id_is_reported_after_its_grace_period_only(stage: &Stage) {
    #[derive(Debug, PartialEq)]
    enum Seen {
        Reused(PublicId, Option<String>),
        Other(String),
    }
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let observed = seen.clone();
    let sessions = stage.sessions().with_observer(move |event| {
        observed.lock().push(match event {
            Event::Reused { id, user } => Seen::Reused(*id, user.map(|user| user.as_str().to_owned())),
            other => Seen::Other(format!("{other:?}")),
        });
    });
    for (name, by) in MOVES {
        let (old, new) = moved(stage, &json!({ "n": 1 }), by);
        let look = || {
            assert!(sessions.session([old.clone()]).is_empty().unwrap());
            std::mem::take(&mut *seen.lock())
        };
        stage.clock.advance(GRACE.saturating_sub(Duration::from_micros(1)));
        assert_eq!(look(), [], "{name}: expected of a request beside another one");
        stage.clock.advance(Duration::from_micros(1));
        let id = id_of(&old);
        let user = (name == "login").then(|| "ada".to_owned());
        assert_eq!(look(), [Seen::Reused(id, user)], "{name}");
        // If the user cannot be looked up, the request does not fail.
        stage.rig.fail(Call::Load, 1);
        assert_eq!(look(), [Seen::Reused(id, None)], "{name}");
        stage.second.delete(&new).unwrap();
        assert_eq!(look(), [Seen::Reused(id, None)], "{name}: nothing else is ended");
    }
}
