//! The life of a session from its first save to its end. Unknown ids are never adopted. Ids change on request.
//! Concurrent saves are merged by entry. An ended session stays ended. A failed save can be tried again.
use crate::support::memory::{Call, Stage, made_up_token, on_every_storage, secs};
use crate::support::told::told;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use sessile::{
    Cookies, Destroyed, Durability, ErrorKind, Expiry, Lifetime, Renewal, Session, Sessions, Token, Value,
    Verdict, Visit,
};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

on_every_storage! {
    an_id_that_is_not_alive_is_never_adopted,
    a_visitor_that_stores_nothing_leaves_nothing,
    changes_that_come_to_nothing_leave_nothing,
    the_first_live_token_of_four_is_the_session,
    of_many_tokens_64_are_read_and_malformed_ones_are_one_event,
    a_session_behind_the_four_that_are_tried_is_not_found_but_ended,
    a_malformed_token_never_reaches_the_store,
    a_save_does_not_resurrect_a_destroyed_session,
    a_save_does_not_follow_a_session_that_another_request_moved,
    a_request_whose_session_is_gone_can_start_a_new_one,
    a_request_that_lost_only_its_renewal_succeeds,
    destroy_ends_every_presented_session_at_once,
    destroy_says_whether_a_live_session_was_there,
    nothing_that_happens_later_undoes_a_destruction,
    entries_stored_after_a_destruction_make_a_new_session,
    a_destruction_that_failed_forgets_nothing_and_can_be_tried_again,
    destroy_ends_a_session_that_the_request_made_or_moved,
    destruction_wins_against_saves_in_flight,
    rotate_id_moves_the_session_when_it_is_saved,
    rotate_id_does_nothing_to_a_session_that_was_never_stored,
    changes_acknowledged_during_a_rotation_are_in_its_result,
    of_two_requests_that_rotate_one_finds_the_session_gone,
    a_rotation_that_failed_leaves_the_old_id_alive,
    login_moves_the_session_and_records_the_user,
    login_of_a_new_visitor_makes_one_session,
    login_keeps_an_anonymous_visitors_entries,
    login_of_the_same_user_keeps_the_entries,
    login_of_another_user_drops_the_first_ones_entries,
    login_of_another_user_drops_the_expiry_setting_of_the_first_one,
    login_of_another_user_drops_the_entries_at_the_save,
    a_login_that_is_not_saved_has_not_happened,
    a_user_has_1_to_256_bytes,
    login_restarts_the_absolute_limit_and_rotation_does_not,
    concurrent_saves_merge_by_entry,
    expiry_settings_merge_like_an_entry,
    a_save_without_changes_writes_nothing,
    changes_that_others_made_already_are_not_written_again,
    updates_of_many_threads_all_count,
    update_now_survives_the_request_that_made_it,
    update_now_after_clear_survives_the_save_that_drops_the_rest,
    update_now_after_another_users_login_starts_from_nothing,
    update_now_makes_a_new_session_once,
    update_now_does_not_resurrect_a_destroyed_session,
    update_now_that_failed_changes_nothing,
    an_explicit_save_is_kept_and_the_request_goes_on,
    a_save_that_failed_keeps_the_changes_for_another_try,
    removing_the_last_entry_keeps_the_session,
    power_safe_is_asked_of_every_save_from_then_on,
    discarded_changes_are_not_saved_and_saved_ones_stay,
    a_store_may_run_changes_several_times,
    a_store_may_give_a_new_token_with_every_update,
    every_step_of_a_life_is_observed_by_digest,
}

/// Saves a session with these entries by another request. Returns its token.
pub(super) fn stored(stage: &Stage, entries: &Json) -> Token {
    let mut session = stage.others().session([]);
    for (name, value) in entries.as_object().unwrap() {
        session.insert(name, value).unwrap();
    }
    session.save().unwrap();
    session.token().unwrap().unwrap()
}

/// The session of a request that the test observes. It is loaded.
pub(super) fn loaded(stage: &Stage, token: &Token) -> Session {
    let session = stage.sessions().session([token.clone()]);
    assert!(session.token().unwrap().is_some());
    stage.rig.calls();
    stage.rig.writes();
    session
}

/// Runs another request on a session, from its beginning to its end.
pub(super) fn elsewhere<R>(
    sessions: &Sessions,
    token: &Token,
    operation: impl FnOnce(&mut Session) -> R,
) -> R {
    let mut session = sessions.session([token.clone()]);
    let result = operation(&mut session);
    session.save().unwrap();
    result
}

#[track_caller]
pub(super) fn entries(stage: &Stage, token: &Token) -> Json {
    let record = stage.record(token);
    record.entries().iter().map(|(name, value)| (name.to_string(), value.to_json().unwrap())).collect()
}

pub(super) fn token_of(session: &Session) -> Token {
    session.token().unwrap().expect("a stored session")
}

pub(super) fn add_one(n: &mut u64) -> u64 {
    *n += 1;
    *n
}

fn panics(run: impl FnOnce()) {
    catch_unwind(AssertUnwindSafe(run)).unwrap_err();
}

/// A change that a request may make, with its name.
pub(super) type Operation = (&'static str, fn(&mut Session));

/// A way in which a request ends, with its name.
type End<S> = (&'static str, fn(S));

const OPERATIONS: [Operation; 8] = [
    ("insert", |s| s.insert("n", 2).unwrap()),
    ("remove", |s| assert!(s.remove("n").unwrap())),
    ("update", |s| assert_eq!(s.update("n", |n: &mut u64| *n += 1).unwrap(), 2)),
    ("clear", Session::clear),
    ("rotate_id", Session::rotate_id),
    ("login", |s| s.login("ada").unwrap()),
    ("set_expiry", |s| s.set_expiry(Expiry::After(secs(300)))),
    ("all", |s| {
        s.clear();
        s.insert("n", 2).unwrap();
        s.login("ada").unwrap();
        s.set_expiry(Expiry::BrowserClose);
    }),
];

fn an_id_that_is_not_alive_is_never_adopted(stage: &Stage) {
    let expired = stored(stage, &json!({ "secret": 1 }));
    stage.clock.advance(secs(1_209_600));
    let destroyed = stored(stage, &json!({ "secret": 1 }));
    elsewhere(&stage.others(), &destroyed, |s| s.destroy().unwrap());
    let rotated = stored(stage, &json!({ "secret": 1 }));
    let without_grace = stage.others().with_lifetime(Lifetime::new().grace(secs(0))).unwrap();
    elsewhere(&without_grace, &rotated, Session::rotate_id);
    let dead =
        [("made up", made_up_token()), ("expired", expired), ("destroyed", destroyed), ("rotated", rotated)];
    for (name, token) in &dead {
        let changes: [Operation; 3] = [
            ("insert", |s| s.insert("n", 1).unwrap()),
            ("update_now", |s| assert_eq!(s.update_now("n", add_one).unwrap(), 1)),
            ("login", |s| s.login("ada").unwrap()),
        ];
        for (change, run) in changes {
            let mut session = stage.sessions().session([token.clone()]);
            assert!(session.is_empty().unwrap(), "{name}");
            run(&mut session);
            session.save().unwrap();
            let new = token_of(&session);
            assert!(dead.iter().all(|(_, dead)| *dead != new), "{name}, {change}");
            stage.check_absent(token);
            assert!(!stage.record(&new).entries().contains("secret"));
        }
    }
}

fn a_visitor_that_stores_nothing_leaves_nothing(stage: &Stage) {
    let expired = stored(stage, &json!({ "n": 1 }));
    stage.clock.advance(secs(1_209_600));
    for renewal in [Renewal::OnSave, Renewal::OnRead, Renewal::EveryRequest] {
        let lifetime = Lifetime::new().renewal(renewal).idle_limit(secs(600));
        let sessions = Sessions::new(stage.rig.clone(), Cookies::plain_http()).unwrap();
        let sessions = sessions.with_lifetime(lifetime).unwrap();
        for cookie in [None, Some(made_up_token()), Some(expired.clone())] {
            let header = cookie.as_ref().map(|token| format!("session={}", token.expose()));
            drop(sessions.visit(header.as_deref()).finish(200).unwrap());
            let visit = sessions.visit(header.as_deref());
            assert!(visit.is_empty().unwrap());
            assert_eq!(visit.user().unwrap(), None);
            drop(visit.finish(200).unwrap());
        }
    }
    assert!(stage.rig.calls().iter().all(|&call| call == Call::Load), "looked for, and no more");
    assert_eq!(stage.stored(), 1, "the expired one, which is the sweep's");
    stage.check_absent(&expired);
}

fn changes_that_come_to_nothing_leave_nothing(stage: &Stage) {
    let nothings: [Operation; 7] = [
        ("insert and remove", |s| {
            s.insert("n", 1).unwrap();
            assert!(s.remove("n").unwrap());
        }),
        ("clear", Session::clear),
        ("insert and clear", |s| {
            s.insert("n", 1).unwrap();
            s.clear();
        }),
        ("rotate_id", Session::rotate_id),
        ("set_expiry", |s| s.set_expiry(Expiry::After(secs(300)))),
        ("destroy", |s| assert_eq!(s.destroy().unwrap(), Destroyed::WasGone)),
        ("insert and destroy", |s| {
            s.insert("n", 1).unwrap();
            s.login("ada").unwrap();
            s.destroy().unwrap();
        }),
    ];
    for (name, run) in nothings {
        let mut session = stage.sessions().session([made_up_token()]);
        run(&mut session);
        session.save().unwrap();
        assert_eq!(session.token().unwrap(), None, "{name}");
        assert_eq!(stage.stored(), 0, "{name}");
        // The pending changes are dropped: a later change does not save an earlier one.
        session.insert("m", 1).unwrap();
        session.save().unwrap();
        let token = token_of(&session);
        assert_eq!(entries(stage, &token), json!({ "m": 1 }), "{name}");
        assert_eq!(stage.record(&token).user(), None, "{name}");
        assert_eq!(stage.record(&token).timing().expiry, Expiry::Default, "{name}");
        session.destroy().unwrap();
    }
}

fn the_first_live_token_of_four_is_the_session(stage: &Stage) {
    let (first, second) = (stored(stage, &json!({ "n": 1 })), stored(stage, &json!({ "n": 2 })));
    let dead = made_up_token;
    let malformed = Token::parse("malformed").unwrap();
    let check = |tokens: &[&Token], found: Option<u64>, loads: usize| {
        let session = stage.sessions().session(tokens.iter().map(|&token| token.clone()));
        assert_eq!(session.get("n").unwrap(), found);
        assert_eq!(stage.rig.calls().len(), loads);
    };
    check(&[&first], Some(1), 1);
    check(&[&first, &second], Some(1), 1);
    check(&[&second, &first], Some(2), 1);
    check(&[&dead(), &second, &first], Some(2), 2);
    check(&[&dead(), &dead(), &dead(), &first], Some(1), 4);
    check(&[&dead(), &dead(), &dead(), &dead(), &first], None, 4);
    let one = dead();
    check(&[&one, &one, &one, &one, &first], Some(1), 2);
    check(&[&malformed, &malformed, &malformed, &malformed, &first], Some(1), 1);
    // The request sends the id of an ended session before that of a live one. The changes are saved in the live one.
    let mut session = stage.sessions().session([dead(), first.clone()]);
    session.insert("n", 3).unwrap();
    session.save().unwrap();
    assert_eq!(entries(stage, &first), json!({ "n": 3 }));
}

fn of_many_tokens_64_are_read_and_malformed_ones_are_one_event(stage: &Stage) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let sessions = stage.sessions().with_observer(move |event| log.lock().push(format!("{event:?}")));
    let live = stored(stage, &json!({ "n": 1 }));
    let malformed = |count: usize| std::iter::repeat_n(Token::parse("malformed").unwrap(), count);
    for (before, found) in [(63, Some(1)), (64, None)] {
        let session = sessions.session(malformed(before).chain([live.clone()]));
        assert_eq!(session.get::<u64>("n").unwrap(), found, "behind {before}");
        assert_eq!(std::mem::take(&mut *seen.lock()), ["Malformed"], "behind {before}");
    }
    let read = AtomicUsize::new(0);
    let endless = malformed(usize::MAX).inspect(|_| {
        read.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(sessions.session(endless).user().unwrap(), None);
    assert_eq!(read.into_inner(), 64);
}

fn a_session_behind_the_four_that_are_tried_is_not_found_but_ended(stage: &Stage) {
    let live = stored(stage, &json!({ "n": 1 }));
    let dead = (0..31).map(|_| made_up_token());
    let mut session = stage.sessions().session(dead.chain([live.clone()]));
    assert_eq!(session.user().unwrap(), None);
    assert_eq!(stage.rig.calls(), [Call::Load; 4]);
    assert_eq!(session.destroy().unwrap(), Destroyed::Ended);
    stage.check_absent(&live);
}

fn a_malformed_token_never_reaches_the_store(stage: &Stage) {
    for text in ["x", "../../../../../../../etc/passwd.", "%2f%2e%2e%2f", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"]
    {
        let mut session = stage.sessions().session([Token::parse(text).unwrap()]);
        assert!(session.is_empty().unwrap(), "{text}");
        session.destroy().unwrap();
        assert_eq!(stage.rig.calls(), [], "{text}");
    }
}

fn a_save_does_not_resurrect_a_destroyed_session(stage: &Stage) {
    // Logins are left out: a login makes a new session if the old one has ended (see `logins`).
    for (name, operation) in OPERATIONS.into_iter().filter(|(name, _)| !["login", "all"].contains(name)) {
        for in_the_middle in [false, true] {
            let token = stored(stage, &json!({ "n": 1 }));
            let mut session = loaded(stage, &token);
            let public_id = session.public_id().unwrap().unwrap();
            operation(&mut session);
            let (others, same) = (stage.others(), token.clone());
            let logout =
                move || assert_eq!(elsewhere(&others, &same, Session::destroy).unwrap(), Destroyed::Ended);
            if in_the_middle {
                let moves = name == "rotate_id";
                stage.rig.before(if moves { Call::Rotate } else { Call::Update }, logout);
            } else {
                logout();
            }
            for attempt in ["first", "second"] {
                let error = session.save().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Gone, "{name}, {attempt} attempt");
                assert_eq!(
                    error.to_string(),
                    format!(
                        "failed to save session {public_id}: it was ended or has expired since it was read; \
                         nothing was saved"
                    )
                );
                assert_eq!(stage.stored(), 0, "{name}, {attempt} attempt");
            }
        }
    }
}

fn a_save_does_not_follow_a_session_that_another_request_moved(stage: &Stage) {
    let moves: [Operation; 2] = [("rotate_id", Session::rotate_id), ("login", |s| s.login("ada").unwrap())];
    for (_, operation) in moves {
        let token = stored(stage, &json!({ "n": 1 }));
        let mut session = loaded(stage, &token);
        session.insert("n", 2).unwrap();
        let mut other = stage.others().session([token.clone()]);
        operation(&mut other);
        other.save().unwrap();
        assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(entries(stage, &token_of(&other)), json!({ "n": 1 }));
        stage.check_absent(&token);
    }
}

fn a_request_whose_session_is_gone_can_start_a_new_one(stage: &Stage) {
    let token = stored(stage, &json!({ "n": 1 }));
    let mut session = loaded(stage, &token);
    session.insert("lost", 1).unwrap();
    elsewhere(&stage.others(), &token, |s| s.destroy().unwrap());
    assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Gone);
    session.destroy().unwrap();
    assert!(session.is_empty().unwrap());
    session.insert("fresh", 1).unwrap();
    session.save().unwrap();
    assert_ne!(token_of(&session), token);
    assert_eq!(entries(stage, &token_of(&session)), json!({ "fresh": 1 }));
}

fn a_request_that_lost_only_its_renewal_succeeds(stage: &Stage) {
    let failures: [fn(&Stage, &Token); 3] = [
        |stage, token| drop(elsewhere(&stage.others(), token, Session::destroy)),
        |stage, _| stage.rig.fail(Call::Update, 0),
        |stage, token| {
            let (others, token) = (stage.others(), token.clone());
            stage.rig.before(Call::Update, move || drop(elsewhere(&others, &token, Session::destroy)));
        },
    ];
    for fail in failures {
        let token = stored(stage, &json!({ "n": 1 }));
        let sessions = stage.sessions_living(Lifetime::new().renewal(Renewal::OnRead));
        let mut session = sessions.session([token.clone()]);
        assert!(session.contains("n").unwrap());
        stage.clock.advance(secs(1_000_000));
        fail(stage, &token);
        session.save().unwrap();
    }
    assert_eq!(stage.stored(), 1, "the one whose renewal failed; the others stay ended");
}

fn destroy_ends_every_presented_session_at_once(stage: &Stage) {
    for read_before in [false, true] {
        let tokens: Vec<_> = (0..33).map(|n| stored(stage, &json!({ "n": n }))).collect();
        let mut session = stage.sessions().session(tokens.clone());
        if read_before {
            assert_eq!(session.get("n").unwrap(), Some(0));
        }
        session.insert("m", 1).unwrap();
        stage.rig.calls();
        session.destroy().unwrap();
        assert_eq!(stage.rig.calls(), [Call::Delete; 32]);
        for token in &tokens[..32] {
            stage.check_absent(token);
        }
        assert_eq!(entries(stage, &tokens[32]), json!({ "n": 32 }), "a 33rd was not considered");
        assert_eq!(session.token().unwrap(), None);
        assert!(session.is_empty().unwrap());
        session.save().unwrap();
        assert_eq!(stage.stored(), 1);
        elsewhere(&stage.others(), &tokens[32], |s| s.destroy().unwrap());
    }
    // The same if the request has not read the session.
    let token = stored(stage, &json!({ "n": 1 }));
    let mut session = stage.sessions().session([token.clone()]);
    session.destroy().unwrap();
    assert_eq!(stage.rig.calls(), [Call::Delete]);
    stage.check_absent(&token);
}

fn destroy_says_whether_a_live_session_was_there(stage: &Stage) {
    let ended = stored(stage, &json!({ "n": 1 }));
    elsewhere(&stage.others(), &ended, Session::destroy).unwrap();
    let moved = stored(stage, &json!({ "n": 1 }));
    elsewhere(&stage.others(), &moved, |s| s.login("ada").unwrap());
    for (presented, expected) in [
        (vec![], Destroyed::WasGone),
        (vec![made_up_token()], Destroyed::WasGone),
        (vec![ended.clone()], Destroyed::WasGone),
        (vec![moved], Destroyed::WasGone),
        (vec![stored(stage, &json!({ "n": 1 }))], Destroyed::Ended),
        (vec![made_up_token(), ended, stored(stage, &json!({ "n": 1 }))], Destroyed::Ended),
    ] {
        let mut session = stage.sessions().session(presented);
        assert_eq!(session.destroy().unwrap(), expected);
        assert_eq!(session.destroy().unwrap(), Destroyed::WasGone, "a second time");
    }
    let token = stored(stage, &json!({ "n": 1 }));
    let mut session = loaded(stage, &token);
    elsewhere(&stage.others(), &token, |s| s.login("ada").unwrap());
    assert_eq!(session.destroy().unwrap(), Destroyed::WasGone, "moved since it was read");
    // A first, failed attempt may have ended the session.
    let token = stored(stage, &json!({ "n": 1 }));
    let mut session = loaded(stage, &token);
    stage.rig.fail(Call::Delete, 0);
    session.destroy().unwrap_err();
    stage.second.delete(&token).unwrap();
    assert_eq!(session.destroy().unwrap(), Destroyed::Ended);
    // The session was created by this request.
    let mut session = stage.sessions().session([]);
    session.update_now("n", add_one).unwrap();
    assert_eq!(session.destroy().unwrap(), Destroyed::Ended);
}

fn nothing_that_happens_later_undoes_a_destruction(stage: &Stage) {
    let ends: [End<Session>; 4] = [
        ("dropped", drop),
        ("saved", |mut s| s.save().unwrap()),
        ("panicked", |mut s| {
            panics(move || {
                s.insert("n", 1).unwrap();
                resume_unwind(Box::new("the handler gives up"));
            });
        }),
        ("rotated and saved", |mut s| {
            s.rotate_id();
            s.save().unwrap();
        }),
    ];
    for (name, end) in ends {
        let token = stored(stage, &json!({ "n": 1 }));
        let mut session = loaded(stage, &token);
        session.insert("n", 2).unwrap();
        session.login("ada").unwrap();
        session.set_expiry(Expiry::BrowserClose);
        session.destroy().unwrap();
        end(session);
        stage.check_absent(&token);
        assert_eq!(stage.stored(), 0, "{name}");
    }
}

fn entries_stored_after_a_destruction_make_a_new_session(stage: &Stage) {
    let token = stored(stage, &json!({ "n": 1 }));
    let mut session = loaded(stage, &token);
    session.login("ada").unwrap();
    session.save().unwrap();
    session.insert("before", 1).unwrap();
    session.set_expiry(Expiry::BrowserClose);
    session.destroy().unwrap();
    assert_eq!(session.user().unwrap(), None);
    assert_eq!(session.expiry().unwrap(), Expiry::Default);
    session.insert("after", 1).unwrap();
    session.save().unwrap();
    let new = token_of(&session);
    assert_ne!(new, token);
    assert_eq!(entries(stage, &new), json!({ "after": 1 }));
    let record = stage.record(&new);
    assert_eq!((record.user().as_ref(), record.timing().expiry), (None, Expiry::Default));
    assert_eq!(stage.stored(), 1);
}

fn a_destruction_that_failed_forgets_nothing_and_can_be_tried_again(stage: &Stage) {
    for failing in 0..3 {
        let tokens: Vec<_> = (0..3).map(|n| stored(stage, &json!({ "n": n }))).collect();
        let mut session = stage.sessions().session(tokens.clone());
        assert_eq!(session.get("n").unwrap(), Some(0));
        stage.rig.fail(Call::Delete, failing);
        assert_eq!(session.destroy().unwrap_err().kind(), ErrorKind::Storage);
        assert_eq!(entries(stage, &tokens[failing]), json!({ "n": failing }), "alive, as the error says");
        assert_eq!(stage.stored(), 1, "those that could be ended are");
        assert_eq!(session.get("n").unwrap(), Some(0), "nothing is forgotten");
        session.insert("n", 9).unwrap();
        session.destroy().unwrap();
        assert_eq!(stage.stored(), 0);
        assert_eq!(session.token().unwrap(), None);
    }
}

fn destroy_ends_a_session_that_the_request_made_or_moved(stage: &Stage) {
    let made: [Operation; 3] = [
        ("saved", |s| {
            s.insert("n", 1).unwrap();
            s.save().unwrap();
        }),
        ("updated", |s| assert_eq!(s.update_now("n", add_one).unwrap(), 1)),
        ("moved", |s| {
            s.insert("n", 1).unwrap();
            s.save().unwrap();
            s.rotate_id();
            s.save().unwrap();
        }),
    ];
    for (name, make) in made {
        for dead in [None, Some(made_up_token())] {
            let mut session = stage.sessions().session(dead);
            make(&mut session);
            assert_eq!(stage.stored(), 1);
            session.destroy().unwrap();
            assert_eq!(stage.stored(), 0, "{name}");
        }
    }
    let token = stored(stage, &json!({ "n": 1 }));
    let mut session = stage.sessions().session([made_up_token(), token]);
    session.rotate_id();
    session.save().unwrap();
    session.rotate_id();
    session.save().unwrap();
    session.destroy().unwrap();
    assert_eq!(stage.stored(), 0, "a session that was presented and moved");

    // The cookie is removed if the browser sent the id of that session, even if the session was moved since. Otherwise
    // it stays.
    let sessions = Sessions::new(stage.rig.clone(), Cookies::plain_http()).unwrap();
    for presented in [true, false] {
        let header = presented.then(|| format!("session={}", stored(stage, &json!({ "n": 1 })).expose()));
        let mut visit = sessions.visit(header.as_deref());
        visit.insert("n", 2).unwrap();
        visit.save().unwrap();
        visit.rotate_id();
        visit.save().unwrap();
        visit.destroy().unwrap();
        let headers = visit.finish(200).unwrap();
        let cookie = headers.iter().find(|(name, _)| *name == "Set-Cookie");
        assert_eq!(cookie.map(|(_, cookie)| cookie.contains("Max-Age=0")), presented.then_some(true));
        assert_eq!(stage.stored(), 0);
    }
}

fn destruction_wins_against_saves_in_flight(stage: &Stage) {
    for round in 0..20 {
        let token = stored(stage, &json!({ "n": 0 }));
        let rotate = round % 2 == 0;
        std::thread::scope(|scope| {
            for sessions in [stage.sessions(), stage.others()] {
                let token = token.clone();
                scope.spawn(move || {
                    loop {
                        let mut session = sessions.session([token.clone()]);
                        if session.is_empty().unwrap() {
                            break;
                        }
                        session.insert("blob", "x".repeat(3000)).unwrap();
                        session.update("n", |n: &mut u64| *n += 1).unwrap();
                        match session.save() {
                            Ok(()) => {}
                            Err(error) => assert_eq!(error.kind(), ErrorKind::Gone),
                        }
                    }
                });
            }
            let mut session = stage.sessions().session([token.clone()]);
            assert!(session.contains("n").unwrap());
            if rotate {
                session.rotate_id();
                session.save().unwrap();
            }
            session.destroy().unwrap();
            stage.check_absent(&token);
        });
        stage.check_absent(&token);
        assert_eq!(stage.stored(), 0);
    }
}

fn rotate_id_moves_the_session_when_it_is_saved(stage: &Stage) {
    for with_changes in [false, true] {
        let token = stored(stage, &json!({ "n": 1 }));
        let before = stage.record(&token);
        let mut session = stage.sessions().session([token.clone()]);
        session.rotate_id();
        session.rotate_id();
        if with_changes {
            session.insert("n", 2).unwrap();
        }
        assert_eq!(stage.record(&token), before, "nothing happens before the save");
        session.save().unwrap();
        let new = token_of(&session);
        assert_ne!(new, token);
        stage.check_absent(&token);
        assert_eq!(entries(stage, &new), if with_changes { json!({ "n": 2 }) } else { json!({ "n": 1 }) });
        assert_eq!(stage.record(&new).timing().created, before.timing().created);
        assert_eq!(stage.stored(), 1);
        session.save().unwrap();
        assert_eq!(token_of(&session), new, "once");
        session.destroy().unwrap();
    }
    // If a request is not saved, its rotation does not happen.
    let token = stored(stage, &json!({ "n": 1 }));
    let mut session = loaded(stage, &token);
    session.rotate_id();
    drop(session);
    assert_eq!(entries(stage, &token), json!({ "n": 1 }));
}

fn rotate_id_does_nothing_to_a_session_that_was_never_stored(stage: &Stage) {
    for dead in [None, Some(made_up_token())] {
        let mut session = stage.sessions().session(dead);
        session.rotate_id();
        session.save().unwrap();
        assert_eq!((session.token().unwrap(), stage.stored()), (None, 0));
        session.rotate_id();
        session.insert("n", 1).unwrap();
        stage.rig.calls();
        session.save().unwrap();
        assert_eq!(stage.rig.calls(), [Call::Create], "a new id needs no rotation");
        session.destroy().unwrap();
    }
}

fn changes_acknowledged_during_a_rotation_are_in_its_result(stage: &Stage) {
    let moves: [Operation; 2] = [("rotate_id", Session::rotate_id), ("login", |s| s.login("ada").unwrap())];
    for (name, operation) in moves {
        let token = stored(stage, &json!({ "n": 1, "m": 1 }));
        let mut session = loaded(stage, &token);
        operation(&mut session);
        session.insert("own", 1).unwrap();
        session.update("n", |n: &mut u64| *n *= 10).unwrap();
        let (others, same) = (stage.others(), token.clone());
        stage.rig.before(Call::Rotate, move || {
            elsewhere(&others, &same, |s| {
                assert_eq!(s.update_now("n", add_one).unwrap(), 2);
                assert!(s.remove("m").unwrap());
                s.insert("other", 1).unwrap();
                s.set_expiry(Expiry::BrowserClose);
            });
        });
        session.save().unwrap();
        let new = token_of(&session);
        assert_eq!(entries(stage, &new), json!({ "n": 20, "own": 1, "other": 1 }), "{name}");
        assert_eq!(stage.record(&new).timing().expiry, Expiry::BrowserClose, "{name}");
    }
}

fn of_two_requests_that_rotate_one_finds_the_session_gone(stage: &Stage) {
    let token = stored(stage, &json!({ "n": 1 }));
    let (mut first, mut second) = (loaded(stage, &token), loaded(stage, &token));
    first.rotate_id();
    second.rotate_id();
    first.save().unwrap();
    assert_eq!(second.save().unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(entries(stage, &token_of(&first)), json!({ "n": 1 }));
    assert_eq!(stage.stored(), 1);
}

fn a_rotation_that_failed_leaves_the_old_id_alive(stage: &Stage) {
    let moves: [Operation; 2] = [("rotate_id", Session::rotate_id), ("login", |s| s.login("ada").unwrap())];
    for (name, operation) in moves {
        let token = stored(stage, &json!({ "n": 1 }));
        let mut session = loaded(stage, &token);
        operation(&mut session);
        session.insert("n", 2).unwrap();
        stage.rig.fail(Call::Rotate, 0);
        assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Storage, "{name}");
        assert_eq!(entries(stage, &token), json!({ "n": 1 }), "{name}");
        assert_eq!(token_of(&session), token, "{name}");
        session.save().unwrap();
        stage.check_absent(&token);
        assert_eq!(entries(stage, &token_of(&session)), json!({ "n": 2 }), "{name}");
        session.destroy().unwrap();
        assert_eq!(stage.stored(), 0, "{name}");
    }
}

fn login_moves_the_session_and_records_the_user(stage: &Stage) {
    let token = stored(stage, &json!({ "n": 1 }));
    let mut session = loaded(stage, &token);
    session.login("ada").unwrap();
    assert_eq!(session.user().unwrap().as_deref(), Some("ada"), "seen at once");
    assert_eq!(stage.record(&token).user(), None, "stored at the save");
    session.save().unwrap();
    let new = token_of(&session);
    stage.check_absent(&token);
    assert_eq!(stage.record(&new).user(), Some("ada"));
    assert_eq!(stage.stored(), 1);
    let mut again = loaded(stage, &new);
    assert_eq!(again.user().unwrap().as_deref(), Some("ada"));
    again.clear();
    again.save().unwrap();
    assert_eq!(again.user().unwrap().as_deref(), Some("ada"), "a user is no entry");
    // A second `rotate_id`, before or after, is part of the same rotation.
    again.rotate_id();
    again.login("ada").unwrap();
    again.rotate_id();
    stage.rig.calls();
    again.save().unwrap();
    assert_eq!(stage.rig.calls(), [Call::Rotate]);
    assert_eq!(stage.record(&token_of(&again)).user(), Some("ada"));
}

fn login_of_a_new_visitor_makes_one_session(stage: &Stage) {
    let mut session = stage.sessions().session([made_up_token()]);
    session.login("ada").unwrap();
    stage.rig.calls();
    session.save().unwrap();
    assert_eq!(stage.rig.calls(), [Call::Create]);
    let record = stage.record(&token_of(&session));
    assert_eq!((record.user(), record.entries().len()), (Some("ada"), 0), "a user alone is worth storing");
    session.save().unwrap();
    assert_eq!(stage.stored(), 1);
}

fn login_keeps_an_anonymous_visitors_entries(stage: &Stage) {
    let token = stored(stage, &json!({ "cart": ["apple"] }));
    let mut session = loaded(stage, &token);
    session.insert("seen", 1).unwrap();
    session.login("ada").unwrap();
    session.save().unwrap();
    assert_eq!(entries(stage, &token_of(&session)), json!({ "cart": ["apple"], "seen": 1 }));
}

/// Saves a session in which `user` is logged in. Returns its token.
pub(super) fn stored_for(stage: &Stage, user: &str, entries: &Json) -> Token {
    let token = stored(stage, entries);
    let mut session = stage.others().session([token]);
    session.login(user).unwrap();
    session.save().unwrap();
    token_of(&session)
}

fn login_of_the_same_user_keeps_the_entries(stage: &Stage) {
    let token = stored_for(stage, "ada", &json!({ "n": 1 }));
    let mut session = loaded(stage, &token);
    session.login("ada").unwrap();
    session.save().unwrap();
    stage.check_absent(&token);
    assert_eq!(entries(stage, &token_of(&session)), json!({ "n": 1 }));
}

fn login_of_another_user_drops_the_first_ones_entries(stage: &Stage) {
    for order in [&["bob"][..], &["ada", "bob"], &["bob", "ada", "bob"]] {
        let token = stored_for(stage, "ada", &json!({ "secret": 1 }));
        let mut session = loaded(stage, &token);
        session.insert("before", 1).unwrap();
        for user in order {
            session.login(*user).unwrap();
        }
        assert!(session.is_empty().unwrap(), "seen at once");
        session.insert("after", 1).unwrap();
        session.save().unwrap();
        let new = token_of(&session);
        assert_eq!(entries(stage, &new), json!({ "after": 1 }));
        assert_eq!(stage.record(&new).user(), Some("bob"));
        stage.check_absent(&token);
    }
    // Changes that this request made for the first user are dropped as well, saved or not.
    let token = stored_for(stage, "ada", &json!({ "secret": 1 }));
    let mut session = loaded(stage, &token);
    session.update_now("counted", add_one).unwrap();
    session.update("secret", |n: &mut u64| *n += 1).unwrap();
    session.login("bob").unwrap();
    session.save().unwrap();
    assert_eq!(entries(stage, &token_of(&session)), json!({}));
    // The same if the first user logs in again afterwards, and if the first user's login was not saved yet.
    let token = stored_for(stage, "ada", &json!({ "secret": 1 }));
    let mut session = loaded(stage, &token);
    session.login("bob").unwrap();
    session.insert("bobs", 1).unwrap();
    session.login("ada").unwrap();
    session.save().unwrap();
    assert_eq!(entries(stage, &token_of(&session)), json!({}));
    let mut session = stage.sessions().session([]);
    session.login("ada").unwrap();
    session.insert("secret", 1).unwrap();
    session.login("bob").unwrap();
    session.save().unwrap();
    assert_eq!(entries(stage, &token_of(&session)), json!({}));
}

fn login_of_another_user_drops_the_expiry_setting_of_the_first_one(stage: &Stage) {
    let remember_me = Expiry::After(secs(100_000_000));
    for pending in [false, true] {
        let token = stored_for(stage, "ada", &json!({ "n": 1 }));
        let mut session = loaded(stage, &token);
        session.set_expiry(remember_me);
        if !pending {
            session.save().unwrap();
        }
        session.login("bob").unwrap();
        session.save().unwrap();
        let record = stage.record(&token_of(&session));
        assert_eq!(
            (record.timing().expiry, record.deadline()),
            (Expiry::Default, stage.clock.now() + secs(1_209_600))
        );
        // An expiry setting is kept if the user is the same, and if the new user has made it.
        session.set_expiry(remember_me);
        session.login("bob").unwrap();
        session.save().unwrap();
        session.login("bob").unwrap();
        session.save().unwrap();
        assert_eq!(stage.record(&token_of(&session)).timing().expiry, remember_me);
        session.login("eve").unwrap();
        session.set_expiry(Expiry::BrowserClose);
        session.save().unwrap();
        assert_eq!(stage.record(&token_of(&session)).timing().expiry, Expiry::BrowserClose);
    }
}

fn login_of_another_user_drops_the_entries_at_the_save(stage: &Stage) {
    let token = stored_for(stage, "ada", &json!({ "secret": 1 }));
    let mut session = loaded(stage, &token);
    session.login("bob").unwrap();
    session.insert("after", 1).unwrap();
    let (others, same) = (stage.others(), token.clone());
    stage.rig.before(Call::Rotate, move || elsewhere(&others, &same, |s| s.insert("late", 1).unwrap()));
    session.save().unwrap();
    assert_eq!(entries(stage, &token_of(&session)), json!({ "after": 1 }));

    // In a store where a login does not end the old token, the user is compared when the changes are merged.
    let token = stored(stage, &json!({ "n": 1 }));
    let mut session = loaded(stage, &token);
    session.login("bob").unwrap();
    session.insert("after", 1).unwrap();
    let (store, same) = (stage.second.clone(), token.clone());
    stage.rig.before(Call::Rotate, move || {
        let mut log_ada_in = |record: &mut sessile::Record| {
            record.set_user("ada").unwrap();
            record.insert("secret", &Value::new(&1).unwrap()).unwrap();
            Ok(Verdict::Write)
        };
        store.update(&same, &mut log_ada_in, Durability::OfStore).unwrap().unwrap();
    });
    session.save().unwrap();
    assert_eq!(entries(stage, &token_of(&session)), json!({ "after": 1 }));
    assert_eq!(stage.record(&token_of(&session)).user(), Some("bob"));
}

fn a_login_that_is_not_saved_has_not_happened(stage: &Stage) {
    let token = stored_for(stage, "ada", &json!({ "n": 1 }));
    let before = stage.record(&token);
    let mut session = loaded(stage, &token);
    session.login("bob").unwrap();
    drop(session);
    assert_eq!(stage.record(&token), before);
    assert_eq!(loaded(stage, &token).user().unwrap().as_deref(), Some("ada"));
}

fn a_user_has_1_to_256_bytes(stage: &Stage) {
    for (user, allowed) in [("", false), ("a", true), (&"é".repeat(128), true), (&"a".repeat(257), false)] {
        let mut session = stage.sessions().session([]);
        if allowed {
            session.login(user).unwrap();
            session.save().unwrap();
            assert_eq!(stage.record(&token_of(&session)).user(), Some(user));
        } else {
            let error = session.login(user).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Value);
            let len = user.len();
            assert_eq!(
                error.to_string(),
                format!("failed to log in: a user has 1 to 256 bytes, this one {len}")
            );
            assert_eq!((session.modified(), session.user().unwrap()), (false, None));
        }
    }
}

fn login_restarts_the_absolute_limit_and_rotation_does_not(stage: &Stage) {
    let limit = secs(10_000);
    let sessions = stage.sessions_living(Lifetime::new().absolute_limit(limit));
    let begin = stage.clock.now();
    let mut session = sessions.session([]);
    session.insert("n", 1).unwrap();
    session.save().unwrap();
    assert_eq!(session.deadline().unwrap(), begin + limit);
    stage.clock.advance(secs(6000));
    session.rotate_id();
    session.insert("n", 2).unwrap();
    session.set_expiry(Expiry::After(secs(100_000)));
    session.save().unwrap();
    assert_eq!(session.deadline().unwrap(), begin + limit);
    session.login("ada").unwrap();
    session.save().unwrap();
    assert_eq!(session.deadline().unwrap(), begin + secs(6000) + limit);
    let token = token_of(&session);
    assert_eq!(stage.record(&token).timing().created, begin + secs(6000));
    stage.clock.set(begin + secs(16_000));
    stage.check_absent(&token);
}

/// Runs a script of changes: `n=2` inserts, `-n` removes, `n+1` and `n*3` update, `n++` updates at once, `clear`
/// clears.
fn play(session: &mut Session, script: &str) {
    for word in script.split_whitespace() {
        if word == "clear" {
            session.clear();
        } else if let Some(name) = word.strip_prefix('-') {
            assert!(session.remove(name).unwrap());
        } else if let Some(name) = word.strip_suffix("++") {
            session.update_now(name, add_one).unwrap();
        } else if let Some((name, value)) = word.split_once('=') {
            session.insert(name, serde_json::from_str::<Json>(value).unwrap()).unwrap();
        } else if let Some((name, by)) = word.split_once('+') {
            let by: u64 = by.parse().unwrap();
            session.update(name, move |n: &mut u64| *n += by).unwrap();
        } else if let Some((name, by)) = word.split_once('*') {
            let by: u64 = by.parse().unwrap();
            session.update(name, move |n: &mut u64| *n *= by).unwrap();
        } else {
            panic!("no such operation: {word}");
        }
    }
}

fn concurrent_saves_merge_by_entry(stage: &Stage) {
    let check = |script: &str, other: &'static str, result: Json| {
        for in_the_middle in [false, true] {
            let token = stored(stage, &json!({ "n": 1, "m": 1 }));
            let mut session = loaded(stage, &token);
            play(&mut session, script);
            let (others, same) = (stage.others(), token.clone());
            let interfere = move || elsewhere(&others, &same, |s| play(s, other));
            if in_the_middle {
                stage.rig.before(Call::Update, interfere);
            } else {
                interfere();
            }
            session.save().unwrap();
            assert_eq!(entries(stage, &token), result, "`{script}`, with `{other}` saved before");
            let seen: Vec<_> = result.as_object().unwrap().keys().cloned().collect();
            assert_eq!(session.names().unwrap(), seen, "the request that saved sees the same");
        }
    };
    // Changes of different entries are both kept. Of one entry, the later save wins.
    check("n=2", "m=3", json!({ "n": 2, "m": 3 }));
    check("a=2", "b=3", json!({ "n": 1, "m": 1, "a": 2, "b": 3 }));
    check("n=2", "n=3", json!({ "n": 2, "m": 1 }));
    check(r#"n={"a":1}"#, r#"n={"b":2}"#, json!({ "n": { "a": 1 }, "m": 1 }));
    // A removal is a change like any other.
    check("-n", "n=3", json!({ "m": 1 }));
    check("n=2", "-n", json!({ "n": 2, "m": 1 }));
    check("-n", "-m", json!({}));
    check("-n", "-n", json!({ "m": 1 }));
    check("n=2 -n", "n=3", json!({ "m": 1 }));
    check("-n n=1", "n=3", json!({ "n": 1, "m": 1 }));
    // `clear` removes the entries that exist at the merge, also those of a concurrent request.
    check("clear", "late=3", json!({}));
    check("clear n=1", "n=3 late=3", json!({ "n": 1 }));
    check("n=2 clear", "late=3", json!({}));
    check("n=2", "clear", json!({ "n": 2 }));
    check("clear", "clear", json!({}));
    // An update is applied to the stored value, or to the type's default.
    check("n+1", "n+5", json!({ "n": 7, "m": 1 }));
    check("n*3", "n++", json!({ "n": 6, "m": 1 }));
    check("n+1 n*10", "n=4", json!({ "n": 50, "m": 1 }));
    check("n+1", "-n", json!({ "n": 1, "m": 1 }));
    check("n+1", "clear", json!({ "n": 1 }));
    check("new+1", "new+1", json!({ "n": 1, "m": 1, "new": 2 }));
    // If the same request has set or removed the entry before, the update is applied to that.
    check("n=7 n+1", "n=40", json!({ "n": 8, "m": 1 }));
    check("-n n+1", "n=40", json!({ "n": 1, "m": 1 }));
    check("clear n+1", "n=40 m=40", json!({ "n": 1 }));
    check("n+1 n=7", "n=40", json!({ "n": 7, "m": 1 }));
    check("n+1 n=2", "n=40", json!({ "n": 2, "m": 1 }));
    check("n+1 -n", "n=40", json!({ "m": 1 }));
}

fn expiry_settings_merge_like_an_entry(stage: &Stage) {
    type Case = (fn(&mut Session), fn(&mut Session), Expiry);
    let cases: [Case; 4] = [
        (|s| s.insert("n", 2).unwrap(), |s| s.set_expiry(Expiry::BrowserClose), Expiry::BrowserClose),
        (|s| s.set_expiry(Expiry::BrowserClose), |s| s.insert("n", 2).unwrap(), Expiry::BrowserClose),
        (
            |s| s.set_expiry(Expiry::After(secs(300))),
            |s| s.set_expiry(Expiry::BrowserClose),
            Expiry::After(secs(300)),
        ),
        (|s| s.set_expiry(Expiry::Default), |s| s.set_expiry(Expiry::BrowserClose), Expiry::Default),
    ];
    for (first, other, result) in cases {
        let token = stored(stage, &json!({ "n": 1 }));
        let mut session = loaded(stage, &token);
        first(&mut session);
        let (others, same) = (stage.others(), token.clone());
        stage.rig.before(Call::Update, move || elsewhere(&others, &same, other));
        session.save().unwrap();
        let record = stage.record(&token);
        assert_eq!(record.timing().expiry, result);
        assert_eq!(session.expiry().unwrap(), result);
        let age = if result == Expiry::After(secs(300)) { secs(300) } else { secs(1_209_600) };
        assert_eq!(
            record.deadline(),
            stage.clock.now() + age,
            "the deadline is the one of the merged setting"
        );
    }
}

fn a_save_without_changes_writes_nothing(stage: &Stage) {
    let nothings: [Operation; 8] = [
        ("read", |s| assert!(s.contains("n").unwrap())),
        ("insert of the same", |s| s.insert("n", 1).unwrap()),
        ("remove of a missing", |s| assert!(!s.remove("none").unwrap())),
        ("get_or_insert", |s| assert_eq!(s.get_or_insert("n", 7).unwrap(), 1)),
        ("failed write", |s| assert!(s.insert("_n", 1).is_err())),
        ("failed update", |s| assert!(s.update("n", |n: &mut String| n.push('x')).is_err())),
        ("delete_test_cookie", |s| s.delete_test_cookie().unwrap()),
        ("token", |s| assert!(s.token().unwrap().is_some())),
    ];
    for (name, run) in nothings {
        let token = stored(stage, &json!({ "n": 1 }));
        let mut session = loaded(stage, &token);
        // Time passes, but less than the step after which a renewal is saved.
        stage.clock.advance(secs(60));
        run(&mut session);
        session.save().unwrap();
        assert_eq!(stage.rig.calls(), [], "{name}");
        session.insert("n", 2).unwrap();
        session.save().unwrap();
        assert_eq!(stage.rig.calls(), [Call::Update]);
        session.save().unwrap();
        assert_eq!(stage.rig.calls(), [], "a second save after {name}");
    }
}

fn changes_that_others_made_already_are_not_written_again(stage: &Stage) {
    let operations: [Operation; 4] = [
        ("remove", |s| assert!(s.remove("n").unwrap())),
        ("insert", |s| s.insert("n", 2).unwrap()),
        ("set_expiry", |s| s.set_expiry(Expiry::BrowserClose)),
        ("clear", Session::clear),
    ];
    for (name, operation) in operations {
        let token = stored(stage, &json!({ "n": 1 }));
        let mut session = loaded(stage, &token);
        operation(&mut session);
        elsewhere(&stage.others(), &token, operation);
        session.save().unwrap();
        assert_eq!((stage.rig.calls(), stage.rig.writes()), (vec![Call::Update], 0), "{name}");
    }
    let mut session = loaded(stage, &stored(stage, &json!({ "n": 1 })));
    session.update_now("n", |n: &mut u64| *n *= 1).unwrap();
    assert_eq!((stage.rig.calls(), stage.rig.writes()), (vec![Call::Update], 0), "update_now to the same");
}

fn updates_of_many_threads_all_count(stage: &Stage) {
    let token = stored(stage, &json!({ "later": 0, "now": 0 }));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let sessions = if thread % 2 == 0 { stage.sessions() } else { stage.others() };
            let token = &token;
            scope.spawn(move || {
                let name = format!("own {thread}");
                for round in 0..20_u64 {
                    let mut session = sessions.session([token.clone()]);
                    session.update("later", |n: &mut u64| *n += 1).unwrap();
                    session.insert(&name, round).unwrap();
                    session.update_now("now", add_one).unwrap();
                    session.save().unwrap();
                }
            });
        }
    });
    let mut expected = json!({ "later": 160, "now": 160 });
    for thread in 0..8 {
        expected[format!("own {thread}")] = json!(19);
    }
    assert_eq!(entries(stage, &token), expected);
}

fn update_now_survives_the_request_that_made_it(stage: &Stage) {
    let sessions = Sessions::new(stage.rig.clone(), Cookies::plain_http()).unwrap();
    let ends: [End<Visit>; 4] = [
        ("dropped", drop),
        ("discarded", |visit| drop(visit.discard())),
        ("failed", |visit| drop(visit.finish(500).unwrap())),
        ("panicked", |mut visit| {
            panics(move || {
                visit.clear();
                resume_unwind(Box::new("the handler gives up"));
            });
        }),
    ];
    for (name, end) in ends {
        let token = stored(stage, &json!({ "attempts": 1, "m": 1 }));
        let header = format!("session={}", token.expose());
        let mut visit = sessions.visit([&*header]);
        visit.insert("m", 2).unwrap();
        assert_eq!(visit.update_now("attempts", add_one).unwrap(), 2);
        visit.rotate_id();
        end(visit);
        assert_eq!(entries(stage, &token), json!({ "attempts": 2, "m": 1 }), "{name}");
    }
}

fn update_now_after_clear_survives_the_save_that_drops_the_rest(stage: &Stage) {
    let token = stored(stage, &json!({ "n": 5, "m": 1 }));
    let mut session = loaded(stage, &token);
    session.insert("early", 1).unwrap();
    session.clear();
    assert_eq!(session.update_now("n", add_one).unwrap(), 1, "what was cleared is not counted on");
    assert_eq!(entries(stage, &token), json!({ "n": 1, "m": 1 }), "the rest waits for the save");
    assert_eq!(session.names().unwrap(), ["n"]);
    let (others, same) = (stage.others(), token.clone());
    stage.rig.before(Call::Update, move || {
        elsewhere(&others, &same, |s| {
            assert_eq!(s.update_now("n", add_one).unwrap(), 2);
            s.insert("late", 1).unwrap();
        });
    });
    session.save().unwrap();
    assert_eq!(entries(stage, &token), json!({ "n": 2 }), "what was committed after the clear is spared");
    // A second `clear` removes that entry as well.
    let mut session = loaded(stage, &token);
    session.clear();
    assert_eq!(session.update_now("n", add_one).unwrap(), 1);
    session.clear();
    session.save().unwrap();
    assert_eq!(entries(stage, &token), json!({}));
}

fn update_now_after_another_users_login_starts_from_nothing(stage: &Stage) {
    let token = stored_for(stage, "ada", &json!({ "n": 5, "secret": 1 }));
    let mut session = loaded(stage, &token);
    session.login("bob").unwrap();
    assert_eq!(session.update_now("n", add_one).unwrap(), 1);
    assert_eq!(session.names().unwrap(), ["n"]);
    session.save().unwrap();
    let new = token_of(&session);
    assert_ne!(new, token);
    assert_eq!(entries(stage, &new), json!({ "n": 1 }));
    assert_eq!(stage.record(&new).user(), Some("bob"));
    // A login of the same user keeps the entries, and so does a login in the session of an anonymous visitor.
    for token in [new, stored(stage, &json!({ "n": 1 }))] {
        let mut session = loaded(stage, &token);
        session.login("bob").unwrap();
        assert_eq!(session.update_now("n", add_one).unwrap(), 2);
        session.save().unwrap();
        assert_eq!(entries(stage, &token_of(&session)), json!({ "n": 2 }));
    }
}

fn update_now_makes_a_new_session_once(stage: &Stage) {
    let mut session = stage.sessions().session([made_up_token()]);
    session.insert("later", 1).unwrap();
    session.set_expiry(Expiry::After(secs(300)));
    assert_eq!(session.update_now("n", add_one).unwrap(), 1);
    let token = token_of(&session);
    assert_eq!(entries(stage, &token), json!({ "n": 1 }));
    assert_eq!(stage.record(&token).deadline(), stage.clock.now() + secs(300), "it lives as it was set to");
    assert_eq!(session.update_now("n", add_one).unwrap(), 2);
    session.save().unwrap();
    assert_eq!(token_of(&session), token);
    assert_eq!(entries(stage, &token), json!({ "n": 2, "later": 1 }));
    assert_eq!(stage.stored(), 1);
}

fn update_now_does_not_resurrect_a_destroyed_session(stage: &Stage) {
    let token = stored(stage, &json!({ "n": 1 }));
    let mut session = loaded(stage, &token);
    session.insert("m", 1).unwrap();
    let (others, same) = (stage.others(), token.clone());
    stage.rig.before(Call::Update, move || drop(elsewhere(&others, &same, Session::destroy)));
    for _ in 0..2 {
        assert_eq!(session.update_now("n", add_one).unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(stage.stored(), 0);
    }
}

fn update_now_that_failed_changes_nothing(stage: &Stage) {
    let token = stored(stage, &json!({ "n": 1 }));
    let mut session = loaded(stage, &token);
    session.update("n", |n: &mut u64| *n += 10).unwrap();
    stage.rig.fail(Call::Update, 0);
    assert_eq!(session.update_now("n", add_one).unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!(entries(stage, &token), json!({ "n": 1 }));
    assert_eq!(session.get("n").unwrap(), Some(11), "what was to be saved still is");
    assert_eq!(session.update_now("n", add_one).unwrap(), 12);
    // The same for a session that this request creates.
    let mut session = stage.sessions().session([]);
    stage.rig.fail(Call::Create, 0);
    assert_eq!(session.update_now("n", add_one).unwrap_err().kind(), ErrorKind::Storage);
    assert!(session.is_empty().unwrap());
    assert_eq!(session.update_now("n", add_one).unwrap(), 1);
    assert_eq!(stage.stored(), 2);
}

fn an_explicit_save_is_kept_and_the_request_goes_on(stage: &Stage) {
    let mut session = stage.sessions().session([]);
    session.insert("n", 1).unwrap();
    session.save().unwrap();
    let token = token_of(&session);
    session.insert("n", 2).unwrap();
    session.insert("m", 2).unwrap();
    assert_eq!(entries(stage, &token), json!({ "n": 1 }));
    session.save().unwrap();
    assert_eq!(token_of(&session), token);
    // A change that was saved once is not saved again over changes of other requests.
    for mut session in [stage.sessions().session([]), loaded(stage, &stored(stage, &json!({ "n": 0 })))] {
        session.insert("n", 1).unwrap();
        session.update("m", |m: &mut u64| *m += 1).unwrap();
        session.set_expiry(Expiry::BrowserClose);
        session.save().unwrap();
        let token = token_of(&session);
        elsewhere(&stage.others(), &token, |s| {
            s.insert("n", 7).unwrap();
            s.set_expiry(Expiry::Default);
        });
        session.save().unwrap();
        assert_eq!(entries(stage, &token), json!({ "n": 7, "m": 1 }));
        assert_eq!(stage.record(&token).timing().expiry, Expiry::Default);
        session.destroy().unwrap();
    }
    session.insert("m", 3).unwrap();
    drop(session);
    assert_eq!(entries(stage, &token), json!({ "n": 2, "m": 2 }));
    assert_eq!(stage.stored(), 1);
}

fn a_save_that_failed_keeps_the_changes_for_another_try(stage: &Stage) {
    for (name, operation) in OPERATIONS {
        let token = stored(stage, &json!({ "n": 1 }));
        let before = stage.record(&token);
        let mut session = loaded(stage, &token);
        operation(&mut session);
        let expected = (session.get::<u64>("n").unwrap(), session.user().unwrap(), session.expiry().unwrap());
        let moves = ["rotate_id", "login", "all"].contains(&name);
        for _ in 0..2 {
            stage.rig.fail(if moves { Call::Rotate } else { Call::Update }, 0);
            assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Storage, "{name}");
            assert_eq!(stage.record(&token), before, "{name}");
        }
        session.save().unwrap();
        let record = stage.record(&token_of(&session));
        let found = record.entries().get("n").map(|value| value.get().unwrap());
        assert_eq!((found, record.user().map(str::to_owned), record.timing().expiry), expected, "{name}");
        assert_eq!(token_of(&session) != token, moves, "{name}");
    }
    let mut session = stage.sessions().session([]);
    session.insert("n", 1).unwrap();
    session.login("ada").unwrap();
    let before = stage.stored();
    stage.rig.fail(Call::Create, 0);
    assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!((session.token().unwrap(), stage.stored()), (None, before));
    session.save().unwrap();
    assert_eq!(entries(stage, &token_of(&session)), json!({ "n": 1 }));
    assert_eq!(stage.stored(), before + 1);
    // A change that needs no load before the save loads the session at the save.
    let token = token_of(&session);
    let mut session = stage.sessions().session([token.clone()]);
    session.clear();
    stage.rig.fail(Call::Load, 0);
    assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!(entries(stage, &token), json!({ "n": 1 }));
    session.save().unwrap();
    assert_eq!(entries(stage, &token), json!({}));
}

fn removing_the_last_entry_keeps_the_session(stage: &Stage) {
    let token = stored(stage, &json!({ "n": 1, "m": 1 }));
    let mut session = loaded(stage, &token);
    assert!(session.remove("n").unwrap());
    assert!(session.remove("m").unwrap());
    session.save().unwrap();
    assert_eq!(entries(stage, &token), json!({}));
    let mut session = loaded(stage, &token);
    assert_eq!(token_of(&session), token);
    session.insert("n", 2).unwrap();
    session.save().unwrap();
    assert_eq!(entries(stage, &token), json!({ "n": 2 }));
}

fn power_safe_is_asked_of_every_save_from_then_on(stage: &Stage) {
    let sessions = stage.sessions_living(Lifetime::new().renewal(Renewal::OnRead));
    let mut session = sessions.session([]);
    let mut save_in_every_way = || {
        session.insert("n", 1).unwrap();
        session.save().unwrap();
        session.insert("n", 2).unwrap();
        session.save().unwrap();
        session.update_now("n", add_one).unwrap();
        stage.clock.advance(secs(1_000_000));
        session.save().unwrap();
        session.rotate_id();
        session.save().unwrap();
        session.destroy().unwrap();
        session.update_now("n", add_one).unwrap();
        session.destroy().unwrap();
        session.power_safe();
        (stage.rig.calls().len(), stage.rig.durabilities())
    };
    assert_eq!(save_in_every_way(), (8, vec![Durability::OfStore; 6]), "by default the store decides");
    assert_eq!(save_in_every_way(), (8, vec![Durability::PowerSafe; 6]));
    // The earlier saves of the request become power-safe, too.
    stage.rig.writes();
    let mut session = sessions.session([]);
    session.insert("n", 1).unwrap();
    session.save().unwrap();
    session.power_safe();
    session.save().unwrap();
    session.save().unwrap();
    assert_eq!(stage.rig.durabilities(), [Durability::OfStore, Durability::PowerSafe]);
    assert_eq!(stage.rig.writes(), 1, "without a new version");
}

/// On a store whose saves are power-safe, the earlier saves are safe already, so nothing is written.
#[test]
fn power_safe_on_a_power_safe_store_costs_nothing() {
    for (of_store, calls) in [(Durability::PowerSafe, vec![]), (Durability::Relaxed, vec![Call::Update])] {
        let stage = Stage::files(of_store);
        for asks_first in [true, false] {
            let mut session = stage.sessions().session([]);
            if asks_first {
                session.power_safe();
            }
            session.insert("n", 1).unwrap();
            session.save().unwrap();
            session.power_safe();
            stage.rig.calls();
            session.save().unwrap();
            let expected = if asks_first { &[][..] } else { &calls[..] };
            assert_eq!(stage.rig.calls(), expected, "{of_store:?}, asked first: {asks_first}");
        }
    }
}

fn discarded_changes_are_not_saved_and_saved_ones_stay(stage: &Stage) {
    for (name, operation) in OPERATIONS {
        let token = stored(stage, &json!({ "n": 1 }));
        let before = stage.record(&token);
        let mut session = loaded(stage, &token);
        operation(&mut session);
        session.discard_changes();
        assert_eq!(session.get("n").unwrap(), Some(1), "{name}: seen at once");
        assert_eq!((session.user().unwrap(), session.expiry().unwrap()), (None, Expiry::Default), "{name}");
        session.save().unwrap();
        assert_eq!((stage.record(&token), stage.rig.calls()), (before, vec![]), "{name}");
    }
    // Saved changes, changes at once, and a destruction are kept.
    let token = stored(stage, &json!({ "n": 1 }));
    let mut session = loaded(stage, &token);
    session.insert("saved", 1).unwrap();
    session.save().unwrap();
    session.insert("lost", 1).unwrap();
    assert_eq!(session.update_now("n", add_one).unwrap(), 2);
    session.discard_changes();
    session.insert("late", 1).unwrap();
    session.save().unwrap();
    assert_eq!(entries(stage, &token), json!({ "n": 2, "saved": 1, "late": 1 }));
    session.destroy().unwrap();
    session.insert("lost", 1).unwrap();
    session.discard_changes();
    session.save().unwrap();
    stage.check_absent(&token);
    // A session that was never stored is not created.
    let before = stage.stored();
    let mut session = stage.sessions().session([]);
    session.insert("n", 1).unwrap();
    session.login("ada").unwrap();
    session.discard_changes();
    session.save().unwrap();
    assert_eq!((session.token().unwrap(), stage.stored()), (None, before));
}

fn a_store_may_run_changes_several_times(stage: &Stage) {
    stage.rig.rerun_changes();
    let token = stored(stage, &json!({ "n": 1, "list": [], "m": 1 }));
    let mut session = loaded(stage, &token);
    session.update("n", |n: &mut u64| *n += 1).unwrap();
    session.update("list", |list: &mut Vec<u64>| list.push(1)).unwrap();
    session.save().unwrap();
    let mut runs = 0;
    let truth = session.update_now("n", |n: &mut u64| {
        runs += 1;
        *n += 1;
        *n
    });
    assert_eq!((truth.unwrap(), runs), (3, 2), "the rig works, and the last run is the one that counts");
    session.login("ada").unwrap();
    session.update("list", |list: &mut Vec<u64>| list.push(2)).unwrap();
    session.save().unwrap();
    let token = token_of(&session);
    assert_eq!(entries(stage, &token), json!({ "n": 3, "list": [1, 2], "m": 1 }));
    // The function is applied first to the stored value, and in the second run to that of another request.
    session.update("n", |n: &mut u64| *n += 1).unwrap();
    session.clear();
    session.insert("m", 2).unwrap();
    let (others, same) = (stage.others(), token.clone());
    stage.rig.before(Call::Update, move || elsewhere(&others, &same, |s| s.insert("late", 1).unwrap()));
    session.save().unwrap();
    assert_eq!(entries(stage, &token), json!({ "m": 2 }));
}

fn a_store_may_give_a_new_token_with_every_update(stage: &Stage) {
    stage.rig.move_with_every_update();
    let sessions = Sessions::new(stage.rig.clone(), Cookies::plain_http()).unwrap();
    for made_here in [false, true] {
        let first = stored(stage, &json!({ "n": 1 }));
        let header = if made_here { String::new() } else { format!("session={}", first.expose()) };
        let mut visit = sessions.visit([&*header]);
        for _ in 0..2 {
            let n = visit.update_now("n", add_one).unwrap();
            visit.insert("m", n).unwrap();
            visit.save().unwrap();
        }
        let n = if made_here { 2 } else { 3 };
        let last = token_of(&visit);
        assert_eq!(entries(stage, &last), json!({ "n": n, "m": n }));
        let headers = visit.finish(200).unwrap();
        let cookie =
            headers.iter().find(|(name, _)| *name == "Set-Cookie").expect("the browser gets a cookie");
        assert!(cookie.1.starts_with(&format!("session={};", last.expose())), "the newest token");
        // A destruction follows the moved id, too.
        let mut session = loaded(stage, &last);
        session.update_now("n", add_one).unwrap();
        session.destroy().unwrap();
        assert_eq!(stage.stored(), usize::from(made_here), "no session that was not presented is ended");
    }
}

fn every_step_of_a_life_is_observed_by_digest(stage: &Stage) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let sessions = stage.sessions().with_observer(move |event| log.lock().push(told(event)));
    let check = |expected: &[String]| assert_eq!(std::mem::take(&mut *seen.lock()), expected);
    let made_up = made_up_token();
    let unknown = sessile::PublicId::digest(made_up.expose().as_bytes());

    let mut session = sessions.session([Token::parse("malformed").unwrap(), made_up]);
    check(&["Malformed".into()]);
    session.insert("n", 1).unwrap();
    check(&[format!("NotFound({unknown:?})")]);
    session.save().unwrap();
    let first = session.public_id().unwrap().unwrap();
    check(&[format!("Created({first:?})")]);
    session.insert("n", 2).unwrap();
    session.save().unwrap();
    check(&[]);
    session.rotate_id();
    session.save().unwrap();
    let second = session.public_id().unwrap().unwrap();
    check(&[format!("Rotated({first:?}, {second:?})")]);
    let token = token_of(&session);
    session.destroy().unwrap();
    check(&[format!("Ended({second:?}, logout)")]);
    session.destroy().unwrap();
    assert!(sessions.session([token]).is_empty().unwrap());
    check(&[format!("NotFound({second:?})")]);
    assert_eq!(session.update_now("n", add_one).unwrap(), 1);
    let third = session.public_id().unwrap().unwrap();
    check(&[format!("Created({third:?})")]);
    let token = token_of(&session);
    stage.clock.advance(secs(1_209_600));
    assert!(sessions.session([token.clone()]).is_empty().unwrap());
    check(&[format!("Expired({third:?})")]);
    // A session that has expired only by the current lifetime counts as expired, too.
    stage.clock.advance(secs(3600) * 2);
    let strict = sessions.clone().with_lifetime(Lifetime::new().idle_limit(secs(3600))).unwrap();
    let recent = stored(stage, &json!({ "n": 1 }));
    let recent_id = sessile::PublicId::digest(recent.expose().as_bytes());
    stage.clock.advance(secs(3600));
    assert!(strict.session([recent]).is_empty().unwrap());
    check(&[format!("Expired({recent_id:?})")]);
    // A failed renewal is reported to the observer, and not to the visitor.
    let token = stored(stage, &json!({ "n": 1 }));
    let sliding = sessions.clone().with_lifetime(Lifetime::new().renewal(Renewal::OnRead)).unwrap();
    let mut session = sliding.session([token]);
    assert!(session.contains("n").unwrap());
    stage.clock.advance(secs(1_000_000));
    stage.rig.fail(Call::Update, 0);
    session.save().unwrap();
    let not_renewed = "NotRenewed(Error { kind: Storage, message: failed to reach the store })".to_owned();
    check(std::slice::from_ref(&not_renewed));
    // The same for a session that was not loaded, and cannot be.
    let token = stored(stage, &json!({ "n": 1 }));
    let always = sessions.with_lifetime(Lifetime::new().renewal(Renewal::EveryRequest)).unwrap();
    let mut session = always.session([token]);
    stage.rig.fail(Call::Load, 0);
    session.save().unwrap();
    check(&[not_renewed]);
}
