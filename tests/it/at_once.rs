//! Operations like `update_now` change the stored session at once. Concurrent requests cannot interfere with them. The
//! change is kept even if the rest of the request fails. A pending login or rotation is carried out in the same step.
use crate::lifecycle::{add_one, elsewhere, entries, loaded, stored, stored_for, token_of};
use crate::support::memory::{Call, Stage, made_up_token, on_every_storage, secs};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use sessile::{Cookies, ErrorKind, Event, Expiry, Headers, Result, Session, Sessions, Token, Visit};
use std::sync::Arc;
use std::time::{Duration, Instant};

on_every_storage! {
    update_now_carries_out_a_login_under_the_new_id,
    a_failed_login_leaves_nothing_of_its_user_under_the_old_id,
    update_now_carries_out_a_rotation_under_the_new_id,
    changes_beside_an_update_now_are_saved_without_a_rotation,
    update_now_with_a_login_makes_a_new_session_that_has_the_user,
    an_update_now_that_failed_leaves_the_login_to_the_save,
    of_two_tabs_that_take_a_coupon_one_gets_it,
    of_many_threads_that_take_a_token_one_gets_it,
    of_many_threads_that_set_a_missing_entry_all_get_the_first_value,
    what_was_taken_or_set_at_once_survives_a_failed_request,
    taking_at_once_includes_what_the_request_changed_before,
    taking_nothing_writes_nothing_and_makes_no_session,
    an_entry_of_another_type_is_neither_taken_nor_replaced,
    taking_at_once_carries_out_a_login,
    a_login_waits_as_long_as_nothing_can_be_stored,
}

/// A `Sessions` that counts the rotations that its observer is told of.
fn noting_rotations(stage: &Stage) -> (Sessions, Arc<Mutex<usize>>) {
    let rotations = Arc::new(Mutex::new(0));
    let counted = rotations.clone();
    let sessions = Sessions::new(stage.rig.clone(), Cookies::plain_http()).unwrap();
    let sessions = sessions.with_observer(move |event| {
        *counted.lock() +=
            usize::from(matches!(event, Event::Rotated { .. } | Event::LoggedIn { from: Some(_), .. }));
    });
    (sessions, rotations)
}

fn visit(sessions: &Sessions, token: &Token) -> Visit {
    sessions.visit(format!("session={}", token.expose()).as_str())
}

#[track_caller]
fn check_stored(stage: &Stage, token: &Token, user: Option<&str>, expected: &Json) {
    assert_eq!(entries(stage, token), *expected);
    assert_eq!(stage.record(token).user(), user);
}

fn update_now_carries_out_a_login_under_the_new_id(stage: &Stage) {
    for user in ["ada", "bob"] {
        let token = stored_for(stage, "bob", &json!({ "n": 5, "secret": 1 }));
        let mut session = loaded(stage, &token);
        session.login(user).unwrap();
        session.insert("later", 1).unwrap();
        let n = session.update_now("n", add_one).unwrap();
        assert_eq!(stage.rig.calls(), [Call::Rotate], "{user}: one step");
        stage.check_absent(&token);
        let expected = if user == "bob" { json!({ "n": 6, "secret": 1 }) } else { json!({ "n": 1 }) };
        assert_eq!(expected["n"], n);
        check_stored(stage, &token_of(&session), Some(user), &expected);
        assert_eq!(session.user().unwrap().as_deref(), Some(user));
        assert_eq!(session.get("later").unwrap(), Some(1), "{user}: it waits for the save");
    }
}

fn a_failed_login_leaves_nothing_of_its_user_under_the_old_id(stage: &Stage) {
    let (sessions, rotations) = noting_rotations(stage);
    let ends: [fn(Visit) -> Headers; 2] = [|visit| visit.finish(500).unwrap(), Visit::discard];
    for end in ends {
        let token = stored_for(stage, "bob", &json!({ "bobs": 1 }));
        *rotations.lock() = 0;
        let before = stage.record(&token);
        let (second, old) = (stage.second.clone(), token.clone());
        stage.rig.before(Call::Rotate, move || {
            let sessile::Lookup::Live(live) = second.load(&old).unwrap() else { panic!("bob's is alive") };
            assert_eq!(live.record, before, "written under the old id");
        });
        stage.rig.calls();
        let mut visit = visit(&sessions, &token);
        visit.login("ada").unwrap();
        visit.insert("lost", 1).unwrap();
        assert_eq!(visit.update_now("adas", add_one).unwrap(), 1);
        assert_eq!(stage.rig.calls(), [Call::Load, Call::Rotate]);
        let new = token_of(&visit);
        let headers = end(visit);
        assert_eq!(stage.rig.calls(), []);
        let cookie = headers.iter().find(|(name, _)| *name == "Set-Cookie").expect("the new id is sent");
        assert!(cookie.1.starts_with(&format!("session={};", new.expose())));
        stage.check_absent(&token);
        check_stored(stage, &new, Some("ada"), &json!({ "adas": 1 }));
        assert_eq!(*rotations.lock(), 1);
    }
}

fn update_now_carries_out_a_rotation_under_the_new_id(stage: &Stage) {
    let (sessions, rotations) = noting_rotations(stage);
    let token = stored_for(stage, "ada", &json!({ "n": 1 }));
    let mut visit = visit(&sessions, &token);
    visit.rotate_id();
    assert_eq!(visit.update_now("n", add_one).unwrap(), 2);
    stage.check_absent(&token);
    check_stored(stage, &token_of(&visit), Some("ada"), &json!({ "n": 2 }));
    stage.rig.calls();
    visit.finish(200).unwrap();
    assert_eq!((stage.rig.calls(), *rotations.lock()), (vec![], 1), "it is done");

    // If another request has ended the session, the operation fails as it does without a pending rotation.
    let token = stored(stage, &json!({ "n": 1 }));
    let mut session = loaded(stage, &token);
    session.rotate_id();
    elsewhere(&stage.others(), &token, |s| s.destroy().unwrap());
    assert_eq!(session.update_now("n", add_one).unwrap_err().kind(), ErrorKind::Gone);
}

fn changes_beside_an_update_now_are_saved_without_a_rotation(stage: &Stage) {
    let operations: [fn(&mut Session); 2] = [Session::rotate_id, |s| s.login("ada").unwrap()];
    for operation in operations {
        let (sessions, rotations) = noting_rotations(stage);
        let token = stored(stage, &json!({ "n": 1 }));
        let mut visit = visit(&sessions, &token);
        visit.insert("m", 1).unwrap();
        operation(&mut visit);
        assert_eq!(visit.update_now("n", add_one).unwrap(), 2);
        let new = token_of(&visit);
        assert_eq!(entries(stage, &new), json!({ "n": 2 }));
        stage.rig.calls();
        let headers = visit.finish(200).unwrap();
        assert_eq!((stage.rig.calls(), *rotations.lock()), (vec![Call::Update], 1));
        assert_eq!(entries(stage, &new), json!({ "n": 2, "m": 1 }));
        assert!(headers.iter().any(|(_, value)| value.contains(new.expose())), "the cookie is the new id's");
    }
}

fn update_now_with_a_login_makes_a_new_session_that_has_the_user(stage: &Stage) {
    let mut session = stage.sessions().session([made_up_token()]);
    session.login("ada").unwrap();
    stage.rig.calls();
    assert_eq!(session.update_now("n", add_one).unwrap(), 1);
    let token = token_of(&session);
    check_stored(stage, &token, Some("ada"), &json!({ "n": 1 }));
    session.save().unwrap();
    assert_eq!(token_of(&session), token);
    assert_eq!(stage.rig.calls(), [Call::Create]);
}

fn an_update_now_that_failed_leaves_the_login_to_the_save(stage: &Stage) {
    let token = stored_for(stage, "bob", &json!({ "n": 5 }));
    let before = stage.record(&token);
    let mut session = loaded(stage, &token);
    session.login("ada").unwrap();
    session.insert("text", "x").unwrap();
    stage.rig.fail(Call::Rotate, 0);
    assert_eq!(session.update_now("n", add_one).unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!(session.update_now("text", add_one).unwrap_err().kind(), ErrorKind::Type);
    assert_eq!(stage.record(&token), before);
    session.save().unwrap();
    stage.check_absent(&token);
    check_stored(stage, &token_of(&session), Some("ada"), &json!({ "text": "x" }));
}

fn of_two_tabs_that_take_a_coupon_one_gets_it(stage: &Stage) {
    let token = stored(stage, &json!({ "coupon": "SPRING" }));
    let mut tabs = [loaded(stage, &token), loaded(stage, &token)];
    for tab in &tabs {
        assert_eq!(tab.get("coupon").unwrap(), Some("SPRING".to_owned()), "both have seen it");
    }
    let got = tabs.each_mut().map(|tab| tab.take_now::<String>("coupon").unwrap());
    assert_eq!(got, [Some("SPRING".to_owned()), None]);
    for tab in &mut tabs {
        assert!(!tab.contains("coupon").unwrap());
        tab.save().unwrap();
    }
    assert_eq!(entries(stage, &token), json!({}));
}

/// Runs eight requests at the same time, each with a session that was loaded before. Returns their results.
fn at_the_same_time<R: Send>(
    stage: &Stage,
    token: &Token,
    operation: impl Fn(&mut Session, u64) -> R + Sync,
) -> Vec<R> {
    let mut tabs: Vec<_> = (0..8).map(|_| loaded(stage, token)).collect();
    std::thread::scope(|scope| {
        let operation = &operation;
        let threads: Vec<_> =
            tabs.iter_mut().zip(0..).map(|(tab, n)| scope.spawn(move || operation(tab, n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn of_many_threads_that_take_a_token_one_gets_it(stage: &Stage) {
    for _ in 0..20 {
        let token = stored(stage, &json!({ "token": 7 }));
        let got = at_the_same_time(stage, &token, |s, _| s.take_now::<u64>("token").unwrap());
        assert_eq!(got.into_iter().flatten().collect::<Vec<_>>(), [7]);
        assert_eq!(entries(stage, &token), json!({}));
    }
}

fn of_many_threads_that_set_a_missing_entry_all_get_the_first_value(stage: &Stage) {
    for _ in 0..20 {
        let token = stored(stage, &json!({ "other": 1 }));
        let got = at_the_same_time(stage, &token, |s, n| s.get_or_insert_now("n", n).unwrap());
        let first = got[0];
        assert_eq!(got, vec![first; 8]);
        assert_eq!(entries(stage, &token), json!({ "other": 1, "n": first }));
    }
}

fn what_was_taken_or_set_at_once_survives_a_failed_request(stage: &Stage) {
    let sessions = Sessions::new(stage.rig.clone(), Cookies::plain_http()).unwrap();
    let token = stored(stage, &json!({ "token": 7 }));
    let mut visit = visit(&sessions, &token);
    visit.insert("lost", 1).unwrap();
    assert_eq!(visit.take_now("token").unwrap(), Some(7));
    assert_eq!(visit.get_or_insert_now("ticket", 1).unwrap(), 1);
    drop(visit.finish(500).unwrap());
    assert_eq!(entries(stage, &token), json!({ "ticket": 1 }));
}

fn taking_at_once_includes_what_the_request_changed_before(stage: &Stage) {
    let token = stored(stage, &json!({ "a": 1, "b": 1, "c": 1, "d": 1 }));
    let mut session = loaded(stage, &token);
    session.insert("a", 2).unwrap();
    session.remove("b").unwrap();
    session.update("c", |n: &mut u64| *n += 1).unwrap();
    assert_eq!(session.take_now("a").unwrap(), Some(2));
    assert_eq!(session.get_or_insert_now("b", 9).unwrap(), 9);
    elsewhere(&stage.others(), &token, |s| s.insert("c", 40)).unwrap();
    assert_eq!(session.take_now("c").unwrap(), Some(41), "the truth");
    session.clear();
    assert_eq!(session.take_now::<u64>("d").unwrap(), None, "what was cleared is not there");
    session.save().unwrap();
    assert_eq!(entries(stage, &token), json!({}));
}

fn taking_nothing_writes_nothing_and_makes_no_session(stage: &Stage) {
    let mut session = stage.sessions().session([made_up_token()]);
    assert_eq!(session.take_now::<u64>("n").unwrap(), None);
    session.insert("n", 1).unwrap();
    assert_eq!(session.take_now("n").unwrap(), Some(1), "what waits to be saved");
    session.save().unwrap();
    assert_eq!((session.token().unwrap(), stage.stored()), (None, 0));

    let mut session = loaded(stage, &stored(stage, &json!({ "m": 1 })));
    assert_eq!(session.take_now::<u64>("n").unwrap(), None);
    assert_eq!(session.get_or_insert_now("m", 2).unwrap(), 1);
    assert_eq!(stage.rig.writes(), 0);
}

fn an_entry_of_another_type_is_neither_taken_nor_replaced(stage: &Stage) {
    let token = stored(stage, &json!({ "text": "x" }));
    let mut session = loaded(stage, &token);
    assert_eq!(session.take_now::<u64>("text").unwrap_err().kind(), ErrorKind::Type);
    assert_eq!(session.get_or_insert_now("text", 1).unwrap_err().kind(), ErrorKind::Type);
    assert_eq!(session.take_now::<u64>("_text").unwrap_err().kind(), ErrorKind::Name);
    assert_eq!(session.get_or_insert_now("_text", 1).unwrap_err().kind(), ErrorKind::Name);
    assert_eq!(entries(stage, &token), json!({ "text": "x" }));
    elsewhere(&stage.others(), &token, Session::destroy).unwrap();
    assert_eq!(session.take_now::<String>("text").unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(session.get_or_insert_now("text", 1).unwrap_err().kind(), ErrorKind::Gone);
}

fn taking_at_once_carries_out_a_login(stage: &Stage) {
    for presented in [true, false] {
        let token =
            if presented { stored_for(stage, "bob", &json!({ "token": 7 })) } else { made_up_token() };
        let mut session = stage.sessions().session([token.clone()]);
        session.login("ada").unwrap();
        assert_eq!(session.take_now::<u64>("token").unwrap(), None, "bob's is not hers");
        stage.check_absent(&token);
        check_stored(stage, &token_of(&session), Some("ada"), &json!({}));
    }
}

/// This test uses a store of files. The memory store has one lock and would wait for itself for ever. (The contract of
/// `Store` forbids a change that calls the store.)
#[test]
fn a_change_of_the_same_session_from_within_is_refused_at_once() {
    let stage = Stage::light_files();
    let token = stored(&stage, &json!({ "n": 1, "m": 1 }));
    let inner: [fn(&mut Session) -> Result<()>; 5] = [
        |s| s.update_now("n", add_one).map(drop),
        |s| s.take_now::<u64>("n").map(drop),
        |s| {
            s.insert("n", 2)?;
            s.save()
        },
        |s| {
            s.rotate_id();
            s.save()
        },
        |s| s.destroy().map(drop),
    ];
    let begun = Instant::now();
    for operation in inner {
        let mut refused = None;
        let mut outer = stage.sessions().session([token.clone()]);
        let change = |count: &mut u64| {
            let mut session = stage.sessions().session([token.clone()]);
            assert_eq!(session.get("m").unwrap(), Some(1), "reads wait for no lock");
            refused = operation(&mut session).err().map(|error| error.kind());
            // A function under the lock of one session may change another session.
            assert_eq!(stage.sessions().session([]).update_now("n", add_one).unwrap(), 1);
            *count += 1;
        };
        outer.update_now("count", change).unwrap();
        assert_eq!(refused, Some(ErrorKind::Reentrant));
    }
    assert!(begun.elapsed() < secs(4), "a wait for a lock takes 5 seconds");
    assert_eq!(entries(&stage, &token), json!({ "n": 1, "m": 1, "count": 5 }));
    assert_eq!(loaded(&stage, &token).update_now("n", add_one).unwrap(), 2, "the lock was given back");
}

/// With an expiry setting in the past, the session is over at once, so there is nothing to store.
fn a_login_waits_as_long_as_nothing_can_be_stored(stage: &Stage) {
    let mut session = stage.sessions().session([]);
    session.login("ada").unwrap();
    session.set_expiry(Expiry::After(Duration::ZERO));
    session.update_now("n", add_one).unwrap();
    assert_eq!(session.public_id().unwrap(), None);
    session.set_expiry(Expiry::Default);
    assert_eq!(session.user().unwrap().as_deref(), Some("ada"));
    session.save().unwrap();
    assert_eq!(stage.record(&token_of(&session)).user(), Some("ada"));
}
