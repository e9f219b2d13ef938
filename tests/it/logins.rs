//! A login is not refused because the session of the request has ended. It makes a new session.
use crate::lifecycle::{Operation, add_one, elsewhere, entries, loaded, stored, stored_for, token_of};
use crate::support::memory::{Call, Stage, on_every_storage, secs};
use serde_json::{Value as Json, json};
use sessile::record::Login;
use sessile::{
    Cookies, Destroyed, Durability, ErrorKind, Expiry, Headers, Lifetime, Record, Session, Sessions, Store,
    Token,
};

on_every_storage! {
    a_login_whose_session_is_gone_makes_a_new_one,
    a_login_of_another_user_keeps_no_mark_of_the_first,
    a_login_whose_session_is_gone_takes_nothing_of_another_user,
    a_login_whose_session_is_gone_keeps_its_changes_if_it_fails,
    a_login_that_followed_a_failed_save_still_makes_a_new_session,
    a_login_outlives_the_expiry_of_its_session,
    a_login_button_pressed_twice_keeps_the_cart_in_both_answers,
}

/// What another request does before the login, with its name. Each ends the id that both requests sent.
const FIRST: [Operation; 4] = [
    ("logout", |s| assert_eq!(s.destroy().unwrap(), Destroyed::Ended)),
    ("rotation", Session::rotate_id),
    ("login", |s| s.login("ada").unwrap()),
    ("another's login", |s| s.login("bob").unwrap()),
];

/// How a request saves: at its end, or before by changing an entry at once.
const SAVES: [Operation; 2] = [
    ("save", |s| s.save().unwrap()),
    ("update_now", |s| {
        assert_eq!(s.update_now("n", add_one).unwrap(), 2);
        s.save().unwrap();
    }),
];

/// Runs `check` for every way in which another request ends the session, of ada or of an anonymous visitor, while ada's
/// login is under way.
fn in_every_order(stage: &Stage, check: impl Fn(&str, Token, &dyn Fn(&mut Session))) {
    for (first, operation) in FIRST {
        for (save, run) in SAVES {
            for in_the_middle in [false, true] {
                for user in [None, Some("ada")] {
                    let what = json!({ "n": 1, "cart": ["apple"] });
                    let token =
                        user.map_or_else(|| stored(stage, &what), |user| stored_for(stage, user, &what));
                    let (others, same) = (stage.others(), token.clone());
                    let end_it = move || elsewhere(&others, &same, operation);
                    check(&format!("{save} after a {first}, {user:?}"), token, &move |session| {
                        if in_the_middle {
                            stage.rig.before(Call::Rotate, end_it.clone());
                        } else {
                            end_it();
                        }
                        run(session);
                    });
                }
            }
        }
    }
}

#[track_caller]
fn check_stored(stage: &Stage, token: &Token, user: &str, expected: &Json, context: &str) {
    assert_eq!(entries(stage, token), *expected, "{context}");
    assert_eq!(stage.record(token).user(), Some(user), "{context}");
}

fn a_login_whose_session_is_gone_makes_a_new_one(stage: &Stage) {
    in_every_order(stage, |name, token, end_and_save| {
        let mut session = loaded(stage, &token);
        session.login("ada").unwrap();
        session.insert("seen", true).unwrap();
        end_and_save(&mut session);
        stage.check_absent(&token);
        let n = if name.starts_with("update_now") { 2 } else { 1 };
        let expected = json!({ "n": n, "cart": ["apple"], "seen": true });
        check_stored(stage, &token_of(&session), "ada", &expected, name);
        assert_eq!(stage.record(&token_of(&session)).timing().created, stage.clock.now(), "{name}");
        assert_eq!(session.get("seen").unwrap(), Some(true));
        // The new session can be used like any other.
        session.insert("seen", false).unwrap();
        session.save().unwrap();
        assert_eq!(session.destroy().unwrap(), Destroyed::Ended, "{name}");
    });
}

fn a_login_whose_session_is_gone_takes_nothing_of_another_user(stage: &Stage) {
    for (save, run) in SAVES {
        let token = stored_for(stage, "bob", &json!({ "n": 1, "secret": 1 }));
        elsewhere(&stage.others(), &token, |s| s.set_expiry(Expiry::After(secs(300))));
        let mut session = loaded(stage, &token);
        session.insert("bobs", 1).unwrap();
        session.login("ada").unwrap();
        session.insert("n", 1).unwrap();
        elsewhere(&stage.others(), &token, Session::destroy).unwrap();
        run(&mut session);
        let new = token_of(&session);
        check_stored(stage, &new, "ada", &json!({ "n": if save == "save" { 1 } else { 2 } }), save);
        assert_eq!(stage.record(&new).timing().expiry, Expiry::Default, "{save}");
    }
}

fn a_login_of_another_user_keeps_no_mark_of_the_first(stage: &Stage) {
    let now = stage.clock.now();
    let mut record = Record::new(now, now + secs(600)).with_user("bob").unwrap();
    record.set_device_note("bob's phone").unwrap();
    record.set_login(Login { at: Some(now), cut_off: 7, user_digest: Some([9; 16]) });
    let token = stage.rig.create(&record, Durability::OfStore).unwrap().token;
    let mut session = loaded(stage, &token);
    session.login("ada").unwrap();
    session.save().unwrap();
    let record = stage.record(&token_of(&session));
    let Login { at, cut_off, user_digest } = record.login();
    assert_eq!((record.user(), record.device_note(), at, cut_off), (Some("ada"), None, Some(now), 0));
    let of_ada = Record::new(now, now).with_user("ada").unwrap().login().user_digest;
    assert_eq!((user_digest, of_ada.is_some()), (of_ada, true));
}

fn a_login_whose_session_is_gone_keeps_its_changes_if_it_fails(stage: &Stage) {
    let token = stored(stage, &json!({ "n": 1 }));
    let mut session = loaded(stage, &token);
    session.login("ada").unwrap();
    session.insert("m", 1).unwrap();
    elsewhere(&stage.others(), &token, Session::destroy).unwrap();
    stage.rig.fail(Call::Create, 1);
    stage.rig.fail(Call::Create, 0);
    assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!(session.update_now("n", add_one).unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!(stage.stored(), 0);
    session.save().unwrap();
    check_stored(stage, &token_of(&session), "ada", &json!({ "n": 1, "m": 1 }), "the third try");
}

fn a_login_that_followed_a_failed_save_still_makes_a_new_session(stage: &Stage) {
    let token = stored(stage, &json!({ "n": 1 }));
    let mut session = loaded(stage, &token);
    session.insert("m", 1).unwrap();
    elsewhere(&stage.others(), &token, Session::destroy).unwrap();
    assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Gone, "without a login");
    session.rotate_id();
    assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Gone, "nor does a rotation make one");
    session.login("ada").unwrap();
    session.save().unwrap();
    check_stored(stage, &token_of(&session), "ada", &json!({ "n": 1, "m": 1 }), "with a login");
}

fn a_login_outlives_the_expiry_of_its_session(stage: &Stage) {
    // The last session has expired by the lifetime, and not yet by its stored deadline.
    let sessions = stage.sessions_living(Lifetime::new().idle_limit(secs(300)));
    for at in 0..3 {
        let expiry =
            [Expiry::After(secs(300)), Expiry::At(stage.clock.now() + secs(300)), Expiry::Default][at];
        let token = stored(stage, &json!({ "n": 1 }));
        elsewhere(&stage.others(), &token, |s| s.set_expiry(expiry));
        let mut session = sessions.session([token.clone()]);
        session.login("ada").unwrap();
        stage.clock.advance(secs(300));
        session.save().unwrap();
        let record = stage.record(&token_of(&session));
        assert_eq!((record.user(), record.entries().len()), (Some("ada"), 1), "{expiry:?}");
        assert!(record.deadline() > stage.clock.now(), "{expiry:?}");
    }
}

fn a_login_button_pressed_twice_keeps_the_cart_in_both_answers(stage: &Stage) {
    let sessions = Sessions::new(stage.rig.clone(), Cookies::plain_http()).unwrap();
    let token = stored(stage, &json!({ "cart": ["apple"] }));
    let cookie = format!("session={}", token.expose());
    let mut pressed = [sessions.visit(cookie.as_str()), sessions.visit(cookie.as_str())];
    for visit in &mut pressed {
        visit.login("ada").unwrap();
    }
    for visit in pressed {
        let headers: Headers = visit.finish(303).unwrap();
        let set = &headers.iter().find(|(name, _)| *name == "Set-Cookie").expect("a new id").1;
        let next = sessions.visit(set.split(';').next().unwrap());
        assert_eq!(next.user().unwrap().as_deref(), Some("ada"));
        assert_eq!(next.get("cart").unwrap(), Some(vec!["apple".to_owned()]));
    }
    stage.check_absent(&token);
}
