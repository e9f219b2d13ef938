//! What a site needs around its forms: messages that are shown once, and tokens against forged requests.
use crate::lifecycle::{loaded, stored, stored_for, token_of};
use crate::support::memory::{Stage, on_every_storage};
use serde_json::json;
use sessile::Session;
use sessile::session::FLASH_MAX;
use std::sync::Barrier;
use std::thread;

on_every_storage! {
    a_message_is_shown_once,
    of_two_pages_beside_each_other_one_shows_the_messages,
    messages_of_requests_beside_each_other_are_all_shown,
    the_oldest_of_too_many_messages_are_dropped,
    a_message_outlives_a_login_and_a_rotation,
    a_page_without_messages_writes_nothing,
    a_token_of_any_page_is_accepted_until_a_login,
    pages_beside_each_other_have_right_tokens,
    a_wrong_token_is_refused,
    a_token_of_another_session_is_refused,
    a_token_is_new_for_a_user_who_logs_in_again,
    a_login_that_makes_a_new_session_makes_a_new_token,
    a_visitor_without_a_session_gets_one_with_the_token,
    names_of_forms_are_not_among_the_entries,
}

fn save(session: &mut Session) {
    session.save().unwrap();
}

fn a_message_is_shown_once(stage: &Stage) {
    let token = stored(stage, &json!({ "cart": 1 }));
    let mut session = loaded(stage, &token);
    session.flash("first").unwrap();
    session.flash(String::from("second")).unwrap();
    save(&mut session);
    assert_eq!(loaded(stage, &token).take_flash().unwrap(), ["first", "second"]);
    // It stays taken, although that request was not saved.
    assert!(loaded(stage, &token).take_flash().unwrap().is_empty());
    // A page that was not redirected shows its own message.
    let mut session = loaded(stage, &token);
    session.flash("third").unwrap();
    assert_eq!(session.take_flash().unwrap(), ["third"]);
    save(&mut session);
    assert!(loaded(stage, &token).take_flash().unwrap().is_empty());
}

fn of_two_pages_beside_each_other_one_shows_the_messages(stage: &Stage) {
    let token = stored(stage, &json!({ "cart": 1 }));
    for round in 0..20 {
        let mut session = loaded(stage, &token);
        session.flash(format!("{round}")).unwrap();
        save(&mut session);
        let barrier = Barrier::new(2);
        let shown: usize = thread::scope(|scope| {
            let tabs = [(); 2].map(|()| {
                scope.spawn(|| {
                    let mut session = loaded(stage, &token);
                    session.contains("other").unwrap();
                    barrier.wait();
                    session.take_flash().unwrap().len()
                })
            });
            tabs.into_iter().map(|tab| tab.join().unwrap()).sum()
        });
        assert_eq!(shown, 1, "round {round}");
    }
}

fn messages_of_requests_beside_each_other_are_all_shown(stage: &Stage) {
    let token = stored(stage, &json!({ "cart": 1 }));
    let mut requests = [loaded(stage, &token), loaded(stage, &token)];
    for (session, message) in requests.iter_mut().zip(["one", "two"]) {
        session.flash(message).unwrap();
    }
    requests.iter_mut().for_each(save);
    assert_eq!(loaded(stage, &token).take_flash().unwrap(), ["one", "two"]);
}

fn the_oldest_of_too_many_messages_are_dropped(stage: &Stage) {
    let token = stored(stage, &json!({ "cart": 1 }));
    let mut session = loaded(stage, &token);
    for n in 0..FLASH_MAX + 5 {
        session.flash(n.to_string()).unwrap();
    }
    save(&mut session);
    let shown = loaded(stage, &token).take_flash().unwrap();
    let expected: Vec<_> = (5..FLASH_MAX + 5).map(|n| n.to_string()).collect();
    assert_eq!(shown, expected);
}

fn a_message_outlives_a_login_and_a_rotation(stage: &Stage) {
    let token = stored(stage, &json!({ "cart": 1 }));
    let mut session = loaded(stage, &token);
    session.flash("before").unwrap();
    session.login("ada").unwrap();
    session.flash("welcome").unwrap();
    save(&mut session);
    let mut session = loaded(stage, &token_of(&session));
    session.rotate_id();
    save(&mut session);
    assert_eq!(loaded(stage, &token_of(&session)).take_flash().unwrap(), ["before", "welcome"]);
}

fn a_page_without_messages_writes_nothing(stage: &Stage) {
    let token = stored(stage, &json!({ "cart": 1 }));
    let mut session = loaded(stage, &token);
    assert!(session.take_flash().unwrap().is_empty());
    assert!(!session.modified());
    // A visitor without a session gets none.
    let before = stage.stored();
    let mut visitor = stage.sessions().session([]);
    assert!(visitor.take_flash().unwrap().is_empty() && !visitor.is_csrf_token("").unwrap());
    save(&mut visitor);
    assert_eq!(stage.stored(), before);
}

fn a_token_of_any_page_is_accepted_until_a_login(stage: &Stage) {
    let token = stored(stage, &json!({ "cart": 1 }));
    let pages: Vec<_> = (0..3).map(|_| loaded(stage, &token).csrf_token().unwrap()).collect();
    assert!(pages[0] != pages[1] && pages[1] != pages[2] && pages[0] != pages[2], "each has its own bytes");
    let mut session = loaded(stage, &token);
    assert!(pages.iter().all(|page| session.is_csrf_token(page).unwrap()));
    session.rotate_id();
    save(&mut session);
    let mut session = loaded(stage, &token_of(&session));
    assert!(pages.iter().all(|page| session.is_csrf_token(page).unwrap()), "a rotation keeps them");
    session.login("ada").unwrap();
    assert!(!session.is_csrf_token(&pages[0]).unwrap(), "pending");
    save(&mut session);
    let mut session = loaded(stage, &token_of(&session));
    assert!(pages.iter().all(|page| !session.is_csrf_token(page).unwrap()));
    let page = session.csrf_token().unwrap();
    assert!(loaded(stage, &token_of(&session)).is_csrf_token(&page).unwrap());
}

fn pages_beside_each_other_have_right_tokens(stage: &Stage) {
    let token = stored(stage, &json!({ "cart": 1 }));
    let mut pages = [loaded(stage, &token), loaded(stage, &token)];
    // Both have read the session before either makes its token.
    assert!(pages.iter().all(|page| !page.contains("other").unwrap()));
    let sent = pages.each_mut().map(|page| page.csrf_token().unwrap());
    for sent in &sent {
        assert!(loaded(stage, &token).is_csrf_token(sent).unwrap());
    }
    // The page that is answered with an error stays right.
    drop(pages);
    assert!(loaded(stage, &token).is_csrf_token(&sent[0]).unwrap());
}

fn a_wrong_token_is_refused(stage: &Stage) {
    let token = stored(stage, &json!({ "cart": 1 }));
    assert!(!loaded(stage, &token).is_csrf_token(&"0".repeat(128)).unwrap(), "there is no secret yet");
    let mut session = loaded(stage, &token);
    let right = session.csrf_token().unwrap();
    assert_eq!((right.len(), right.bytes().all(|byte| byte.is_ascii_hexdigit())), (128, true));
    for at in 0..right.len() {
        let mut wrong = right.clone().into_bytes();
        wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
        assert!(!session.is_csrf_token(&String::from_utf8(wrong).unwrap()).unwrap(), "{at}");
    }
    let (half, other) = right.split_at(64);
    for wrong in ["", " ", half, other, &right[..127], &format!("{right}0"), &"ä".repeat(64)] {
        assert!(!session.is_csrf_token(wrong).unwrap(), "{wrong:?}");
    }
}

fn a_token_of_another_session_is_refused(stage: &Stage) {
    let [one, other] = ["one", "other"].map(|name| stored(stage, &json!({ "name": name })));
    let [of_one, of_other] = [&one, &other].map(|token| loaded(stage, token).csrf_token().unwrap());
    assert!(!loaded(stage, &one).is_csrf_token(&of_other).unwrap());
    assert!(!loaded(stage, &other).is_csrf_token(&of_one).unwrap());
}

fn a_token_is_new_for_a_user_who_logs_in_again(stage: &Stage) {
    let token = stored_for(stage, "ada", &json!({ "cart": 1 }));
    let old = loaded(stage, &token).csrf_token().unwrap();
    let mut session = loaded(stage, &token);
    session.login("ada").unwrap();
    // A page in the same request: its token is right once the request is answered.
    let new = session.csrf_token().unwrap();
    save(&mut session);
    let session = loaded(stage, &token_of(&session));
    assert_eq!([&old, &new].map(|sent| session.is_csrf_token(sent).unwrap()), [false, true]);
    assert_eq!(session.user().unwrap().as_deref(), Some("ada"));
}

fn a_login_that_makes_a_new_session_makes_a_new_token(stage: &Stage) {
    let token = stored(stage, &json!({ "cart": 1 }));
    let old = loaded(stage, &token).csrf_token().unwrap();
    let mut session = loaded(stage, &token);
    assert!(session.is_csrf_token(&old).unwrap());
    loaded(stage, &token).destroy().unwrap();
    session.login("ada").unwrap();
    save(&mut session);
    let session = loaded(stage, &token_of(&session));
    assert_eq!(session.get("cart").unwrap(), Some(1), "it starts from the loaded entries");
    assert!(!session.is_csrf_token(&old).unwrap());
}

fn a_visitor_without_a_session_gets_one_with_the_token(stage: &Stage) {
    let mut visitor = stage.sessions().session([]);
    let sent = visitor.csrf_token().unwrap();
    save(&mut visitor);
    assert!(loaded(stage, &token_of(&visitor)).is_csrf_token(&sent).unwrap());
}

fn names_of_forms_are_not_among_the_entries(stage: &Stage) {
    let mut session = loaded(stage, &stored(stage, &json!({ "cart": 1 })));
    session.csrf_token().unwrap();
    session.flash("text").unwrap();
    save(&mut session);
    let mut session = loaded(stage, &token_of(&session));
    assert_eq!((session.names().unwrap(), session.entries().unwrap().len()), (vec!["cart".to_owned()], 1));
    for name in ["_csrf", "_flash"] {
        assert!(session.get::<String>(name).is_err() && session.insert(name, 1).is_err());
        assert!(session.update_now(name, |n: &mut u8| *n += 1).is_err());
        assert!(session.take_now::<u8>(name).is_err() && session.get_or_insert_now(name, 1).is_err());
    }
}
