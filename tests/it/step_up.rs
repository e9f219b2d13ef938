//! The time and the device of a login. A program asks for a new login before a dangerous operation if the last one is
//! too old, and shows a user's sessions with their devices.
use crate::lifecycle::{loaded, stored, stored_for, token_of};
use crate::support::memory::{Stage, on_every_storage, secs};
use serde_json::json;
use sessile::record::DEVICE_NOTE_BYTES_MAX;
use sessile::{Lifetime, Session};
use std::time::Duration;

on_every_storage! {
    the_time_of_the_login_is_kept_apart_from_activity,
    a_login_of_the_same_user_makes_the_login_fresh,
    a_login_of_another_user_is_fresh_and_has_no_note,
    a_login_in_the_future_is_not_fresh,
    the_device_note_is_cut_at_a_character,
    a_device_note_stays_until_a_login_gives_another,
    a_device_note_stays_if_the_login_is_repeated_in_its_request,
}

const FIVE_MINUTES: Duration = secs(300);

fn save(session: &mut Session) {
    session.save().unwrap();
}

fn the_time_of_the_login_is_kept_apart_from_activity(stage: &Stage) {
    let token = stored(stage, &json!({ "cart": 1 }));
    let mut session = loaded(stage, &token);
    assert_eq!(session.authenticated_at().unwrap(), None);
    assert!(!session.is_fresh(Duration::MAX).unwrap(), "no user is logged in");
    stage.clock.advance(secs(10));
    session.login("ada").unwrap();
    let login = stage.clock.now();
    assert_eq!(session.authenticated_at().unwrap(), Some(login), "pending");
    assert!(session.is_fresh(Duration::ZERO).unwrap());
    save(&mut session);
    // Activity, a rotation and a renewal do not change the time of the login.
    let mut token = token_of(&session);
    let operations: [fn(&mut Session); 3] =
        [|s| s.insert("cart", 2).unwrap(), Session::rotate_id, |s| s.clear()];
    for operation in operations {
        stage.clock.advance(secs(100));
        let mut session = loaded(stage, &token);
        operation(&mut session);
        save(&mut session);
        token = token_of(&session);
        assert_eq!(loaded(stage, &token).authenticated_at().unwrap(), Some(login));
    }
    let session = loaded(stage, &token);
    assert!(session.is_fresh(FIVE_MINUTES).unwrap(), "300 seconds ago");
    stage.clock.advance(Duration::from_micros(1));
    assert!(!session.is_fresh(FIVE_MINUTES).unwrap());
}

fn a_login_of_the_same_user_makes_the_login_fresh(stage: &Stage) {
    let token = stored_for(stage, "ada", &json!({ "cart": 1 }));
    stage.clock.advance(secs(3600));
    let mut session = loaded(stage, &token);
    assert!(!session.is_fresh(FIVE_MINUTES).unwrap());
    session.login("ada").unwrap();
    assert!(session.is_fresh(FIVE_MINUTES).unwrap());
    save(&mut session);
    let session = loaded(stage, &token_of(&session));
    assert_eq!(session.authenticated_at().unwrap(), Some(stage.clock.now()));
    assert_eq!(session.get("cart").unwrap(), Some(1));
}

fn a_login_of_another_user_is_fresh_and_has_no_note(stage: &Stage) {
    let mut first = loaded(stage, &stored(stage, &json!({ "cart": 1 })));
    first.login_from("bob", "bob's phone").unwrap();
    save(&mut first);
    stage.clock.advance(secs(3600));
    let mut session = loaded(stage, &token_of(&first));
    session.login("ada").unwrap();
    assert_eq!(session.device_note().unwrap(), None, "pending");
    save(&mut session);
    let session = loaded(stage, &token_of(&session));
    assert_eq!(session.device_note().unwrap(), None);
    assert_eq!(session.authenticated_at().unwrap(), Some(stage.clock.now()));
}

fn a_login_in_the_future_is_not_fresh(stage: &Stage) {
    let token = stored_for(stage, "ada", &json!({ "cart": 1 }));
    let login = stage.clock.now();
    for (tolerance, back, fresh) in [
        (secs(300), secs(300), true),
        (secs(300), secs(301), false),
        (Duration::MAX, secs(3600), true),
        (Duration::MAX, secs(3601), false),
    ] {
        stage.clock.set(login - back);
        let sessions = stage.sessions_living(Lifetime::new().future_tolerance(tolerance));
        let session = sessions.session([token.clone()]);
        assert_eq!(session.is_fresh(FIVE_MINUTES).unwrap(), fresh, "{tolerance:?}, {back:?}");
    }
}

fn the_device_note_is_cut_at_a_character(stage: &Stage) {
    for (given, kept) in [
        (String::new(), None),
        ("the phone".to_owned(), Some("the phone".to_owned())),
        ("\u{1b}[2J\"<b>\n".to_owned(), Some("\u{1b}[2J\"<b>\n".to_owned())),
        ("x".repeat(DEVICE_NOTE_BYTES_MAX), Some("x".repeat(DEVICE_NOTE_BYTES_MAX))),
        ("x".repeat(10 * DEVICE_NOTE_BYTES_MAX), Some("x".repeat(DEVICE_NOTE_BYTES_MAX))),
        (format!("{}🦀", "x".repeat(DEVICE_NOTE_BYTES_MAX - 1)), Some("x".repeat(DEVICE_NOTE_BYTES_MAX - 1))),
    ] {
        let mut session = stage.sessions().session([]);
        session.login_from("ada", &given).unwrap();
        assert_eq!(session.device_note().unwrap(), kept, "pending");
        save(&mut session);
        assert_eq!(loaded(stage, &token_of(&session)).device_note().unwrap(), kept);
    }
}

fn a_device_note_stays_if_the_login_is_repeated_in_its_request(stage: &Stage) {
    for (users, note) in [(&["ada"][..], Some("the phone")), (&["bob"], None), (&["bob", "ada"], None)] {
        let mut session = stage.sessions().session([]);
        session.login_from("ada", "the phone").unwrap();
        for user in users {
            session.login(*user).unwrap();
        }
        assert_eq!(session.device_note().unwrap().as_deref(), note, "{users:?}");
        save(&mut session);
        assert_eq!(loaded(stage, &token_of(&session)).device_note().unwrap().as_deref(), note, "{users:?}");
    }
}

fn a_device_note_stays_until_a_login_gives_another(stage: &Stage) {
    let mut session = stage.sessions().session([]);
    session.login_from("ada", "the phone").unwrap();
    save(&mut session);
    for (operation, note) in [
        ((|s| s.login("ada").unwrap()) as fn(&mut Session), Some("the phone")),
        (Session::rotate_id, Some("the phone")),
        (|s| s.clear(), Some("the phone")),
        (|s| s.login_from("ada", "the tablet").unwrap(), Some("the tablet")),
        (|s| s.login_from("ada", "").unwrap(), None),
    ] {
        operation(&mut session);
        assert_eq!(session.device_note().unwrap().as_deref(), note, "pending");
        save(&mut session);
        session = loaded(stage, &token_of(&session));
        assert_eq!(session.device_note().unwrap().as_deref(), note);
    }
    // The session is gone. The login keeps the device note of the session that the request had read.
    session.login_from("ada", "the desk").unwrap();
    save(&mut session);
    let mut late = loaded(stage, &token_of(&session));
    session.destroy().unwrap();
    late.login("ada").unwrap();
    save(&mut late);
    assert_eq!(loaded(stage, &token_of(&late)).device_note().unwrap().as_deref(), Some("the desk"));
}
