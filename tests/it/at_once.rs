//! Changes that are made in the store at once: they carry out a pending login or rotation in the same step.
use crate::life::{add_one, elsewhere, entries, loaded, stored, stored_for, token_of};
use crate::support::memory::{Call, Stage, made_up_token, on_every_storage};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use sessile::{Cookies, ErrorKind, Event, Headers, Session, Sessions, Token, Visit};
use std::sync::Arc;

on_every_storage! {
    update_now_carries_out_a_login_under_the_new_id,
    a_failed_login_request_leaves_nothing_of_its_user_under_the_old_id,
    update_now_carries_out_a_rotation_under_the_new_id,
    what_waits_beside_an_update_now_is_saved_later_without_a_second_rotation,
    update_now_with_a_login_makes_a_new_session_that_has_the_user,
    an_update_now_that_failed_leaves_the_login_to_the_save,
}

/// Sessions whose rotations are noted.
fn noting_rotations(stage: &Stage) -> (Sessions, Arc<Mutex<usize>>) {
    let rotations = Arc::new(Mutex::new(0));
    let noted = rotations.clone();
    let sessions = Sessions::new(stage.rig.clone(), Cookies::plain_http()).unwrap();
    let sessions = sessions.with_observer(move |event| {
        *noted.lock() += usize::from(matches!(event, Event::Rotated { .. }));
    });
    (sessions, rotations)
}

fn visit(sessions: &Sessions, token: &Token) -> Visit {
    sessions.visit(format!("session={}", token.expose()).as_str())
}

#[track_caller]
fn check_stored(stage: &Stage, token: &Token, user: Option<&str>, expected: &Json) {
    assert_eq!(entries(stage, token), *expected);
    assert_eq!(stage.record(token).user.as_deref(), user);
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

fn a_failed_login_request_leaves_nothing_of_its_user_under_the_old_id(stage: &Stage) {
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

    // Another request's end of the session is met as without a rotation.
    let token = stored(stage, &json!({ "n": 1 }));
    let mut session = loaded(stage, &token);
    session.rotate_id();
    elsewhere(&stage.others(), &token, |s| s.destroy().unwrap());
    assert_eq!(session.update_now("n", add_one).unwrap_err().kind(), ErrorKind::Gone);
}

fn what_waits_beside_an_update_now_is_saved_later_without_a_second_rotation(stage: &Stage) {
    let acts: [fn(&mut Session); 2] = [Session::rotate_id, |s| s.login("ada").unwrap()];
    for act in acts {
        let (sessions, rotations) = noting_rotations(stage);
        let token = stored(stage, &json!({ "n": 1 }));
        let mut visit = visit(&sessions, &token);
        visit.insert("m", 1).unwrap();
        act(&mut visit);
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
    let mut session = stage.sessions().open([made_up_token()]);
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
