//! Expiry of sessions: deadlines, the saves that move them, the refusal of expired sessions, and clocks that jump. No
//! sweep runs here, because expiry is decided when a session is read.
use crate::support::memory::{Call, Stage, on_every_storage, secs, start};
use sessile::{
    Absent, Cookies, Durability, ErrorKind, Event, Expiry, Lifetime, Lookup, PublicId, Record, Renewal,
    Session, Sessions, Timing, Token, Value, Verdict,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

on_every_storage! {
    a_session_lives_two_weeks_from_its_last_save,
    the_renewal_decides_which_requests_move_the_deadline,
    the_remaining_time_is_read_without_a_renewal,
    a_passive_request_moves_no_deadline,
    a_passive_login_and_a_passive_setting_set_the_deadline,
    a_visitor_who_came_once_lives_for_the_first_age,
    the_second_visit_of_any_kind_ends_the_first_age,
    the_first_age_is_for_visitors_without_login_and_setting,
    a_failed_request_never_renews,
    the_deadline_moves_only_when_that_gains_a_step,
    an_active_visitor_stays_and_an_idle_one_is_gone,
    the_absolute_limit_ends_a_session_whatever_the_activity,
    a_limit_that_is_introduced_later_counts_earlier_activity,
    the_stored_deadline_is_the_earliest_of_all_limits,
    a_custom_expiry_is_enforced_by_the_store_itself,
    a_setting_in_the_past_ends_the_session_at_the_save,
    a_setting_in_the_past_stores_no_new_session,
    a_session_that_expires_between_load_and_save_is_gone,
    the_setting_the_deadline_and_the_remaining_time_can_be_read,
    the_deadline_that_is_read_is_the_one_that_a_save_stores,
    the_deadline_that_is_read_is_the_one_that_a_login_or_a_first_visit_stores,
    the_remaining_time_comes_from_one_reading_of_the_clock,
    browser_close_keeps_the_servers_age,
    settings_beyond_all_bounds_are_stored_as_the_longest_life,
    a_stricter_policy_ends_sessions_at_their_next_load,
    a_stricter_policy_ends_sessions_inside_the_change,
    a_laxer_policy_revives_nothing_and_prolongs_at_the_next_save,
    a_clock_that_goes_backwards_makes_no_session_immortal,
    a_clock_that_goes_backwards_under_a_request_saves_nothing,
    a_session_renewed_by_another_request_is_not_from_the_future,
    a_save_reads_the_clock_once,
}

const AGE: Duration = secs(1000);
const NEARLY_AGE: Duration = Duration::from_micros(999_999_999);
const TWO_WEEKS: Duration = secs(1_209_600);
const MICRO: Duration = Duration::from_micros(1);

/// Saves a session under `lifetime`, with one entry. Returns its token.
fn stored(stage: &Stage, lifetime: &Lifetime) -> Token {
    stored_with(stage, lifetime, Expiry::Default)
}

fn stored_with(stage: &Stage, lifetime: &Lifetime, expiry: Expiry) -> Token {
    let mut session = stage.others().with_lifetime(lifetime.clone()).unwrap().session([]);
    session.insert("n", 1).unwrap();
    session.set_expiry(expiry);
    session.save().unwrap();
    session.token().unwrap().unwrap()
}

fn presented(stage: &Stage, lifetime: &Lifetime, token: &Token) -> Session {
    stage.sessions_living(lifetime.clone()).session([token.clone()])
}

/// Runs a request that reads its session and saves it. Returns whether the session was live.
fn visit(stage: &Stage, lifetime: &Lifetime, token: &Token) -> bool {
    let mut session = presented(stage, lifetime, token);
    let found = session.contains("n").unwrap();
    session.save().unwrap();
    found
}

/// Asserts that a login succeeds although the session that the request sent has expired. It makes a new session.
#[track_caller]
fn check_a_late_login_makes_a_new_session(stage: &Stage, lifetime: &Lifetime, token: &Token, age: Duration) {
    let mut session = presented(stage, lifetime, token);
    assert!(session.contains("n").unwrap());
    stage.clock.advance(age);
    session.login("ada").unwrap();
    session.save().unwrap();
    let new = session.token().unwrap().unwrap();
    assert_ne!(new, *token);
    let found = presented(stage, lifetime, &new);
    assert_eq!(found.user().unwrap().as_deref(), Some("ada"));
    assert_eq!(
        found.get::<u64>("n").unwrap(),
        Some(1),
        "it continues with the data that this request had loaded"
    );
    assert_eq!(presented(stage, lifetime, token).user().unwrap(), None, "the old id has no user");
}

fn add_one(n: &mut u64) {
    *n += 1;
}

fn a_session_lives_two_weeks_from_its_last_save(stage: &Stage) {
    let lifetime = Lifetime::new();
    let token = stored(stage, &lifetime);
    assert_eq!(stage.record(&token).deadline(), start() + TWO_WEEKS);
    stage.clock.set(start() + TWO_WEEKS - MICRO);
    assert!(visit(stage, &lifetime, &token), "reading is not activity, and the session is still alive");
    assert_eq!(stage.record(&token).deadline(), start() + TWO_WEEKS);
    let mut session = presented(stage, &lifetime, &token);
    session.insert("n", 2).unwrap();
    session.save().unwrap();
    let deadline = stage.clock.now() + TWO_WEEKS;
    assert_eq!(stage.record(&token).deadline(), deadline);
    stage.clock.set(deadline - MICRO);
    assert!(visit(stage, &lifetime, &token));
    stage.clock.set(deadline);
    assert!(!visit(stage, &lifetime, &token));
}

fn the_renewal_decides_which_requests_move_the_deadline(stage: &Stage) {
    type Operation = fn(&mut Session);
    let untouched: Operation = |_| ();
    let reads: [Operation; 3] = [
        |s| assert!(s.contains("n").unwrap()),
        |s| s.insert("n", 1).unwrap(),
        |s| assert!(!s.remove("none").unwrap()),
    ];
    let saves: [Operation; 6] = [
        |s| s.insert("n", 2).unwrap(),
        |s| assert!(s.remove("n").unwrap()),
        |s| s.update_now("n", add_one).unwrap(),
        |s| {
            s.insert("n", 2).unwrap();
            s.save().unwrap();
        },
        Session::clear,
        Session::rotate_id,
    ];
    let check = |lifetime: &Lifetime, operation: Operation, moves: bool| {
        let sessions = Sessions::new(stage.rig.clone(), Cookies::plain_http()).unwrap();
        let sessions = sessions.with_lifetime(lifetime.clone()).unwrap();
        let token = stored(stage, lifetime);
        let before = stage.record(&token).deadline();
        // Half of the lifetime has passed, far more than the step after which a renewal is saved.
        stage.clock.advance(AGE / 2);
        let header = format!("session={}", token.expose());
        let mut visit = sessions.visit([&*header]);
        operation(&mut visit);
        let touched = visit.accessed();
        let cookie = visit.finish(200).unwrap().into_iter().find(|(name, _)| *name == "Set-Cookie");
        let now_at = cookie.map_or(token, |(_, cookie)| {
            let value = cookie.split([';', '=']).nth(1).unwrap();
            Token::parse(value).unwrap()
        });
        let expected = if moves { stage.clock.now() + AGE } else { before };
        assert_eq!(stage.record(&now_at).deadline(), expected, "{lifetime:?}, touched: {touched}");
    };
    let on = |renewal| Lifetime::new().age(AGE).renewal(renewal);
    let idle = on(Renewal::OnSave).idle_limit(AGE);
    for (lifetime, untouched_moves, reads_move) in [
        (on(Renewal::OnSave), false, false),
        (on(Renewal::OnRead), false, true),
        (on(Renewal::EveryRequest), true, true),
        (idle, false, true),
    ] {
        check(&lifetime, untouched, untouched_moves);
        for operation in reads {
            check(&lifetime, operation, reads_move);
        }
        for operation in saves {
            check(&lifetime, operation, true);
        }
    }
}

/// Runs a request with this token up to its response. Returns whether the response sends a cookie.
fn finished(stage: &Stage, lifetime: &Lifetime, token: &Token, operation: fn(&mut Session)) -> bool {
    let sessions = Sessions::new(stage.rig.clone(), Cookies::plain_http()).unwrap();
    let sessions = sessions.with_lifetime(lifetime.clone()).unwrap();
    let mut visit = sessions.visit([&*format!("session={}", token.expose())]);
    operation(&mut visit);
    visit.finish(200).unwrap().iter().any(|(name, _)| *name == "Set-Cookie")
}

fn the_remaining_time_is_read_without_a_renewal(stage: &Stage) {
    let lifetime = Lifetime::new().age(AGE).renewal(Renewal::OnRead).idle_limit(AGE);
    let token = stored(stage, &lifetime);
    let before = stage.record(&token);
    stage.clock.advance(AGE / 2);
    let operations: [fn(&mut Session); 2] = [
        |s| assert_eq!(s.remaining().unwrap(), AGE / 2),
        |s| assert!(s.deadline().is_ok() && s.accessed(), "the response depends on the session"),
    ];
    for operation in operations {
        assert!(!finished(stage, &lifetime, &token, operation));
        assert_eq!(stage.record(&token), before);
    }
    assert!(finished(stage, &lifetime, &token, |s| assert!(s.contains("n").unwrap())));
    assert_ne!(stage.record(&token), before);
}

fn a_passive_request_moves_no_deadline(stage: &Stage) {
    for renewal in [Renewal::OnSave, Renewal::OnRead, Renewal::EveryRequest] {
        let lifetime = Lifetime::new().age(AGE).renewal(renewal).idle_limit(AGE);
        let token = stored(stage, &lifetime);
        let before = stage.record(&token);
        stage.clock.advance(AGE / 2);
        stage.rig.writes();
        let reads: [fn(&mut Session); 2] = [Session::passive, |s| {
            s.passive();
            assert!(s.contains("n").unwrap());
        }];
        for operation in reads {
            assert!(!finished(stage, &lifetime, &token, operation));
            assert_eq!((stage.record(&token), stage.rig.writes()), (before.clone(), 0), "{renewal:?}");
        }
        let saves: [fn(&mut Session); 3] = [
            |s| s.insert("m", 1).unwrap(),
            |s| s.update_now("n", add_one).unwrap(),
            |s| {
                s.insert("n", 7).unwrap();
                s.save().unwrap();
                assert!(s.contains("n").unwrap());
            },
        ];
        for save in saves {
            let earlier = stage.record(&token);
            let cookie = {
                let sessions = stage.sessions_living(lifetime.clone());
                let mut visit = sessions.visit([&*format!("session={}", token.expose())]);
                visit.passive();
                save(&mut visit);
                visit.finish(200).unwrap().iter().any(|(name, _)| *name == "Set-Cookie")
            };
            assert!(!cookie, "{renewal:?}");
            assert_ne!(stage.record(&token), earlier, "the change is saved");
            assert_eq!(stage.record(&token).timing(), before.timing(), "{renewal:?}");
        }
        stage.clock.set(before.deadline());
        assert!(!visit(stage, &lifetime, &token), "polling does not keep a session alive");
    }
}

fn a_passive_login_and_a_passive_setting_set_the_deadline(stage: &Stage) {
    let lifetime = Lifetime::new().age(AGE);
    let token = stored(stage, &lifetime);
    stage.clock.advance(AGE / 2);
    assert!(finished(stage, &lifetime, &token, |s| {
        s.passive();
        s.set_expiry(Expiry::After(secs(9)));
    }));
    assert_eq!(stage.record(&token).deadline(), stage.clock.now() + secs(9));
    let mut session = presented(stage, &lifetime, &token);
    session.passive();
    session.login("ada").unwrap();
    session.save().unwrap();
    let moved = session.token().unwrap().unwrap();
    assert_eq!(stage.record(&moved).deadline(), stage.clock.now() + secs(9));
    assert_eq!(stage.record(&moved).timing().created, stage.clock.now());
}

fn a_visitor_who_came_once_lives_for_the_first_age(stage: &Stage) {
    let lifetime = Lifetime::new().age(AGE).first_age(secs(60));
    let mut session = stage.sessions_living(lifetime.clone()).session([]);
    assert_eq!(session.remaining().unwrap(), secs(60), "as a save would store it");
    session.insert("n", 1).unwrap();
    session.save().unwrap();
    // Ten seconds pass within the same request.
    stage.clock.advance(secs(10));
    session.insert("n", 2).unwrap();
    session.save().unwrap();
    assert_eq!(
        session
            .update_now("n", |n: &mut u64| {
                *n += 1;
                *n
            })
            .unwrap(),
        3
    );
    let token = session.token().unwrap().unwrap();
    assert_eq!(stage.record(&token).deadline(), start() + secs(60));
    assert_eq!(session.remaining().unwrap(), secs(50));
    stage.clock.set(start() + secs(60));
    assert!(!visit(stage, &lifetime, &token), "a crawler's session is over");
}

fn the_second_visit_of_any_kind_ends_the_first_age(stage: &Stage) {
    let lifetime = Lifetime::new().age(AGE).first_age(secs(60));
    let operations: [fn(&mut Session); 4] = [
        |s| assert!(s.contains("n").unwrap()),
        |s| s.insert("n", 2).unwrap(),
        |s| {
            s.update_now("n", add_one).unwrap();
            s.insert("m", 1).unwrap();
        },
        |s| s.set_expiry(Expiry::BrowserClose),
    ];
    for (number, operation) in operations.into_iter().enumerate() {
        let token = stored(stage, &lifetime);
        let due = stage.clock.now() + secs(60);
        assert_eq!(stage.record(&token).deadline(), due);
        stage.clock.advance(secs(59));
        // A request that does not use its session is not a visit, nor is one that only polls.
        assert!(!finished(stage, &lifetime, &token, |_| ()));
        assert!(!finished(stage, &lifetime, &token, |s| {
            s.passive();
            assert!(s.contains("n").unwrap());
        }));
        assert_eq!(stage.record(&token).deadline(), due);
        assert!(finished(stage, &lifetime, &token, operation), "the cookie has a new end: {number}");
        assert_eq!(stage.record(&token).deadline(), stage.clock.now() + AGE, "{number}");
        // From now on, the session is treated like any other: a read does not count as activity.
        stage.clock.advance(AGE / 2);
        assert!(!finished(stage, &lifetime, &token, |s| assert!(s.contains("n").unwrap())));
    }
}

fn the_first_age_is_for_visitors_without_login_and_setting(stage: &Stage) {
    let lifetime = Lifetime::new().age(AGE).first_age(secs(60));
    let check = |operation: fn(&mut Session), expected: Duration| {
        let mut session = stage.sessions_living(lifetime.clone()).session([]);
        session.insert("n", 1).unwrap();
        operation(&mut session);
        assert_eq!(session.remaining().unwrap(), expected, "as a save would store it");
        session.save().unwrap();
        assert_eq!(session.remaining().unwrap(), expected);
        let token = session.token().unwrap().unwrap();
        assert_eq!(stage.record(&token).deadline(), stage.clock.now() + expected);
        token
    };
    check(|s| s.login("ada").unwrap(), AGE);
    check(|s| s.set_expiry(Expiry::After(secs(9))), secs(9));
    check(|s| s.set_expiry(Expiry::After(secs(90))), secs(90));
    check(|s| s.set_expiry(Expiry::BrowserClose), secs(60));
    // In this case, the second request is a login.
    let token = check(|_| (), secs(60));
    stage.clock.advance(secs(5));
    let mut session = presented(stage, &lifetime, &token);
    session.login("ada").unwrap();
    session.save().unwrap();
    assert_eq!(session.remaining().unwrap(), AGE);
    // The first request is a login, after a save.
    let mut session = stage.sessions_living(lifetime).session([]);
    session.insert("n", 1).unwrap();
    session.save().unwrap();
    session.login("ada").unwrap();
    session.save().unwrap();
    assert_eq!(session.remaining().unwrap(), AGE);
    // If the age for the first visit is longer than the usual age, it has no effect.
    let longer = Lifetime::new().age(AGE).first_age(2 * AGE);
    assert_eq!(stage.record(&stored(stage, &longer)).deadline(), stage.clock.now() + AGE);
}

fn a_failed_request_never_renews(stage: &Stage) {
    let lifetime = Lifetime::new().age(AGE).renewal(Renewal::EveryRequest).idle_limit(AGE);
    let sessions = Sessions::new(stage.rig.clone(), Cookies::plain_http()).unwrap();
    let sessions = sessions.with_lifetime(lifetime.clone()).unwrap();
    let token = stored(stage, &lifetime);
    let before = stage.record(&token);
    stage.clock.advance(AGE / 2);
    let header = format!("session={}", token.expose());
    let operations: [fn(&mut Session); 3] =
        [|_| (), |s| assert!(s.contains("n").unwrap()), |s| s.insert("n", 2).unwrap()];
    for operation in operations {
        for status in [500, 503, 599] {
            let mut visit = sessions.visit([&*header]);
            operation(&mut visit);
            drop(visit.finish(status).unwrap());
            let mut visit = sessions.visit([&*header]);
            operation(&mut visit);
            drop(visit.discard());
            assert_eq!(stage.record(&token), before);
        }
    }
}

fn the_deadline_moves_only_when_that_gains_a_step(stage: &Stage) {
    let check = |lifetime: Lifetime, expiry: Expiry, step: Duration, life: Duration| {
        let lifetime = lifetime.renewal(Renewal::OnRead);
        let token = stored_with(stage, &lifetime, expiry);
        let before = stage.record(&token);
        stage.clock.set(before.timing().touched + step - MICRO);
        let operations: [fn(&mut Session); 2] =
            [|s| assert!(s.contains("n").unwrap()), |s| s.insert("n", 2).unwrap()];
        for operation in operations {
            let mut session = presented(stage, &lifetime, &token);
            operation(&mut session);
            session.save().unwrap();
            let now = stage.record(&token);
            assert_eq!(
                (now.timing().touched, now.deadline()),
                (before.timing().touched, before.deadline()),
                "{lifetime:?}, {expiry:?}"
            );
        }
        stage.clock.set(before.timing().touched + step);
        stage.rig.writes();
        assert!(visit(stage, &lifetime, &token));
        assert_eq!(stage.record(&token).deadline(), stage.clock.now() + life, "{lifetime:?}, {expiry:?}");
        assert!(visit(stage, &lifetime, &token));
        assert_eq!(stage.rig.writes(), 1, "and once");
    };
    let age = || Lifetime::new().age(AGE);
    check(age(), Expiry::Default, secs(100), AGE);
    check(age(), Expiry::BrowserClose, secs(100), AGE);
    check(age().renewal_step_percent(50), Expiry::Default, secs(500), AGE);
    check(age().renewal_step_percent(1), Expiry::Default, secs(10), AGE);
    check(age().renewal_step_percent(0), Expiry::Default, MICRO, AGE);
    check(age(), Expiry::After(secs(300)), secs(30), secs(300));
    check(age(), Expiry::After(secs(5000)), secs(500), secs(5000));
    check(age().idle_limit(secs(600)), Expiry::Default, secs(60), secs(600));
    check(age().idle_limit(secs(600)), Expiry::After(secs(300)), secs(30), secs(300));
    check(age().idle_limit(secs(600)), Expiry::At(start() + TWO_WEEKS), secs(60), secs(600));
    check(Lifetime::new(), Expiry::Default, TWO_WEEKS / 10, TWO_WEEKS);
}

fn an_active_visitor_stays_and_an_idle_one_is_gone(stage: &Stage) {
    const IDLE: u64 = 600;
    const STEP: u64 = IDLE / 10;
    let lifetime = Lifetime::new().idle_limit(secs(IDLE));
    let mut random = 42_u64;
    for _ in 0..10 {
        let token = stored(stage, &lifetime);
        for _ in 0..30 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            stage.clock.advance(secs((random >> 33) % (IDLE - STEP)));
            assert!(visit(stage, &lifetime, &token), "looked in every {IDLE} seconds, less a step");
        }
        stage.clock.advance(secs(IDLE));
        assert!(!visit(stage, &lifetime, &token), "did not look in for {IDLE} seconds");
        stage.check_absent(&token);
    }
}

fn the_absolute_limit_ends_a_session_whatever_the_activity(stage: &Stage) {
    let limit = secs(3000);
    for renewal in [Renewal::OnSave, Renewal::OnRead, Renewal::EveryRequest] {
        let lifetime =
            Lifetime::new().age(AGE).absolute_limit(limit).renewal(renewal).renewal_step_percent(0);
        let mut token = stored(stage, &lifetime);
        let created = stage.clock.now();
        for round in 1..30 {
            stage.clock.set(created + secs(100 * round));
            let mut session = presented(stage, &lifetime, &token);
            assert!(!session.is_empty().unwrap(), "after {round} rounds");
            session.insert("n", round).unwrap();
            match round % 3 {
                0 => session.rotate_id(),
                1 => session.set_expiry(Expiry::After(secs(1_000_000))),
                _ => session.update_now("m", add_one).unwrap(),
            }
            session.save().unwrap();
            token = session.token().unwrap().unwrap();
            assert!(stage.record(&token).deadline() <= created + limit);
        }
        stage.clock.set(created + limit - MICRO);
        assert!(visit(stage, &lifetime, &token));
        stage.clock.set(created + limit);
        stage.check_absent(&token);
    }
}

fn a_limit_that_is_introduced_later_counts_earlier_activity(stage: &Stage) {
    let save = |lifetime: &Lifetime, token: &Token| {
        let mut session = presented(stage, lifetime, token);
        session.update("n", add_one).unwrap();
        session.save().unwrap();
    };
    let idle = Lifetime::new().idle_limit(secs(600));
    let shorter = Lifetime::new().age(secs(600));
    for (lifetime, by_reading) in [(&idle, true), (&idle, false), (&shorter, false)] {
        // The session was stored under a longer limit, or under none. Then the limit of the program was changed.
        let token = stored(stage, &Lifetime::new());
        for _ in 0..20 {
            stage.clock.advance(secs(300));
            if by_reading {
                assert!(visit(stage, lifetime, &token), "half a limit after the last visit");
            } else {
                save(lifetime, &token);
            }
            let deadline = stage.record(&token).deadline();
            assert_eq!(deadline, stage.clock.now() + secs(600), "the store enforces the new limit as well");
        }
        stage.clock.advance(secs(600));
        stage.check_absent(&token);
    }
}

fn the_stored_deadline_is_the_earliest_of_all_limits(stage: &Stage) {
    let check = |lifetime: Lifetime, expiry: Expiry, expected: Duration| {
        // The setting is applied when a session is created.
        let token = stored_with(stage, &lifetime, expiry);
        assert_eq!(stage.record(&token).deadline(), stage.clock.now() + expected, "{lifetime:?}, {expiry:?}");
        // The setting is also applied when a later request, after 100 seconds, merges its changes into the session.
        let token = stored(stage, &lifetime);
        stage.clock.advance(secs(100));
        let mut session = presented(stage, &lifetime, &token);
        session.insert("n", 2).unwrap();
        session.set_expiry(expiry);
        session.save().unwrap();
        let record = stage.record(&token);
        let absolute = lifetime == Lifetime::new().absolute_limit(secs(3000)).idle_limit(secs(5000));
        let expected = if absolute { expected.min(secs(2900)) } else { expected };
        if matches!(expiry, Expiry::Default) {
            // The setting has not changed, and 100 seconds may be less than the step after which a renewal is saved.
            assert!(record.deadline() <= stage.clock.now() + expected);
        } else {
            assert_eq!(record.deadline(), stage.clock.now() + expected, "{lifetime:?}, {expiry:?}, merged");
        }
        assert_eq!(record.timing().expiry, expiry);
    };
    let at = |seconds| Expiry::At(stage.clock.now() + secs(100) + secs(seconds));
    let plain = Lifetime::new();
    check(plain.clone(), Expiry::Default, TWO_WEEKS);
    check(plain.clone(), Expiry::BrowserClose, TWO_WEEKS);
    check(plain.clone(), Expiry::After(secs(300)), secs(300));
    check(plain, Expiry::After(TWO_WEEKS * 10), TWO_WEEKS * 10);
    let idle = Lifetime::new().idle_limit(secs(600));
    check(idle.clone(), Expiry::Default, secs(600));
    check(idle.clone(), Expiry::BrowserClose, secs(600));
    check(idle.clone(), Expiry::After(secs(300)), secs(300));
    check(idle.clone(), Expiry::After(secs(900)), secs(600));
    check(idle, at(10_000), secs(600));
    let both = Lifetime::new().absolute_limit(secs(3000)).idle_limit(secs(5000));
    check(both.clone(), Expiry::Default, secs(3000));
    check(both.clone(), Expiry::BrowserClose, secs(3000));
    check(both.clone(), Expiry::After(secs(300)), secs(300));
    check(both.clone(), Expiry::After(secs(4000)), secs(3000));
    check(both, at(10_000), secs(3000));
}

fn a_custom_expiry_is_enforced_by_the_store_itself(stage: &Stage) {
    for expiry in [Expiry::After(secs(300)), Expiry::At(start() + secs(300))] {
        stage.clock.set(start());
        let token = stored_with(stage, &Lifetime::new(), expiry);
        stage.clock.set(start() + secs(300) - MICRO);
        assert_eq!(stage.record(&token).timing().expiry, expiry);
        stage.clock.set(start() + secs(300));
        let id = PublicId::digest(token.expose().as_bytes());
        match stage.store.load(&token).unwrap() {
            Lookup::Absent(why) => assert_eq!(why, Absent::Expired(id)),
            Lookup::Live(live) => panic!("{:?}", live.record),
        }
        let mut keep = |_: &mut Record| Ok(Verdict::Keep);
        assert!(stage.store.update(&token, &mut keep, Durability::OfStore).unwrap().is_none());
        assert!(stage.store.rotate(&token, &mut keep, &Durability::OfStore.into()).unwrap().is_none());
    }
}

/// Expiry settings that end a session at once.
fn past(stage: &Stage) -> [Expiry; 6] {
    let now = stage.clock.now();
    [
        Expiry::At(now),
        Expiry::At(now - secs(1)),
        Expiry::At(UNIX_EPOCH),
        Expiry::At(UNIX_EPOCH - secs(1)),
        Expiry::After(Duration::ZERO),
        // Less than a microsecond, which a store cannot tell from zero.
        Expiry::After(Duration::from_nanos(999)),
    ]
}

fn a_setting_in_the_past_ends_the_session_at_the_save(stage: &Stage) {
    let operations: [fn(&mut Session); 5] = [
        |_| (),
        |s| s.insert("n", 2).unwrap(),
        |s| s.login("ada").unwrap(),
        Session::rotate_id,
        |s| s.update_now("n", add_one).unwrap(),
    ];
    for expiry in past(stage) {
        for operation in operations {
            let token = stored(stage, &Lifetime::new());
            let mut session = stage.sessions().session([token.clone()]);
            session.set_expiry(expiry);
            operation(&mut session);
            assert!(session.deadline().unwrap() <= stage.clock.now());
            assert_eq!(session.remaining().unwrap(), Duration::ZERO);
            drop(stage.record(&token));
            session.save().unwrap();
            assert_eq!(stage.stored(), 0, "destroyed, not only expired: {expiry:?}");
            assert_eq!(session.token().unwrap(), None);
            assert!(session.is_empty().unwrap());
            session.save().unwrap();
            assert_eq!(stage.stored(), 0);
        }
        // The setting is changed back before the save.
        let token = stored(stage, &Lifetime::new());
        let mut session = stage.sessions().session([token.clone()]);
        session.set_expiry(expiry);
        session.set_expiry(Expiry::Default);
        session.save().unwrap();
        assert_eq!(stage.record(&token).deadline(), stage.clock.now() + TWO_WEEKS);
        session.destroy().unwrap();
    }
}

fn a_setting_in_the_past_stores_no_new_session(stage: &Stage) {
    for expiry in past(stage) {
        let mut session = stage.sessions().session([]);
        session.insert("n", 1).unwrap();
        session.login("ada").unwrap();
        session.set_expiry(expiry);
        session.save().unwrap();
        assert_eq!((session.token().unwrap(), stage.stored()), (None, 0), "{expiry:?}");
        // The session was stored before the request set this expiry. It ends with the save.
        session.update_now("n", add_one).unwrap();
        session.set_expiry(expiry);
        session.save().unwrap();
        assert_eq!((session.token().unwrap(), stage.stored()), (None, 0), "{expiry:?}");
    }
}

fn a_session_that_expires_between_load_and_save_is_gone(stage: &Stage) {
    let operations: [fn(&mut Session) -> sessile::Result<()>; 4] = [
        |s| s.insert("n", 2).and_then(|()| s.save()),
        |s| s.update_now("n", add_one),
        |s| {
            // The request makes no login, because a login would make a new session (see `logins`).
            s.rotate_id();
            s.save()
        },
        |s| {
            // A setting that would have prolonged the session does not bring it back.
            s.set_expiry(Expiry::After(TWO_WEEKS));
            s.save()
        },
    ];
    for operation in operations {
        let token = stored_with(stage, &Lifetime::new(), Expiry::After(secs(300)));
        let mut session = stage.sessions().session([token.clone()]);
        assert!(session.contains("n").unwrap());
        stage.clock.advance(secs(300));
        assert_eq!(operation(&mut session).unwrap_err().kind(), ErrorKind::Gone);
        stage.check_absent(&token);
    }
    let token = stored_with(stage, &Lifetime::new(), Expiry::After(secs(300)));
    check_a_late_login_makes_a_new_session(stage, &Lifetime::new(), &token, secs(300));
    // The session expires before it is renewed. That is no error, and it is not renewed.
    let lifetime = Lifetime::new().idle_limit(secs(300));
    let token = stored(stage, &lifetime);
    let mut session = presented(stage, &lifetime, &token);
    assert!(session.contains("n").unwrap());
    stage.clock.advance(secs(300));
    session.save().unwrap();
    stage.check_absent(&token);
}

fn the_setting_the_deadline_and_the_remaining_time_can_be_read(stage: &Stage) {
    let check = |session: &Session, expiry: Expiry, left: Duration| {
        assert_eq!(session.expiry().unwrap(), expiry);
        assert_eq!(session.deadline().unwrap(), stage.clock.now() + left);
        assert_eq!(session.remaining().unwrap(), left);
    };
    // The deadline of a new session: as if it was saved now.
    let mut session = stage.sessions().session([]);
    check(&session, Expiry::Default, TWO_WEEKS);
    session.set_expiry(Expiry::After(secs(300)));
    check(&session, Expiry::After(secs(300)), secs(300));
    stage.clock.advance(secs(10));
    check(&session, Expiry::After(secs(300)), secs(300));
    session.insert("n", 1).unwrap();
    session.save().unwrap();
    // The deadline of a stored session: as it is stored.
    stage.clock.advance(secs(10));
    check(&session, Expiry::After(secs(300)), secs(290));
    // The deadline after a new setting: as if it was saved now.
    let instant = Expiry::At(stage.clock.now() + secs(77));
    session.set_expiry(instant);
    check(&session, instant, secs(77));
    session.set_expiry(Expiry::BrowserClose);
    check(&session, Expiry::BrowserClose, TWO_WEEKS);
    session.save().unwrap();
    check(&session, Expiry::BrowserClose, TWO_WEEKS);
    let again = stage.sessions().session([session.token().unwrap().unwrap()]);
    check(&again, Expiry::BrowserClose, TWO_WEEKS);
    stage.clock.advance(TWO_WEEKS + secs(1));
    assert_eq!(again.remaining().unwrap(), Duration::ZERO, "read before, over now");
    // An instant is kept to the microsecond, as a store can.
    let mut session = stage.sessions().session([]);
    let fine = stage.clock.now() + Duration::from_nanos(5_000_001_999);
    session.set_expiry(Expiry::At(fine));
    check(&session, Expiry::At(fine - Duration::from_nanos(999)), Duration::from_micros(5_000_001));
}

fn the_deadline_that_is_read_is_the_one_that_a_save_stores(stage: &Stage) {
    let at = Expiry::At(start() + secs(5000));
    let settings = [Expiry::Default, Expiry::BrowserClose, Expiry::After(secs(300)), at];
    for lifetime in [Lifetime::new(), Lifetime::new().idle_limit(secs(600)).absolute_limit(secs(2000))] {
        for before in settings {
            for after in settings {
                stage.clock.set(start());
                let token = stored_with(stage, &lifetime, before);
                // Ten seconds are less than any step after which a renewal is saved.
                stage.clock.advance(secs(10));
                let mut session = presented(stage, &lifetime, &token);
                session.insert("n", 2).unwrap();
                session.set_expiry(after);
                let promised = session.deadline().unwrap();
                session.save().unwrap();
                assert_eq!(stage.record(&token).deadline(), promised, "{before:?}, then {after:?}");
                assert_eq!(session.deadline().unwrap(), promised);
            }
        }
    }
}

fn the_deadline_that_is_read_is_the_one_that_a_login_or_a_first_visit_stores(stage: &Stage) {
    type Change = fn(&mut Session);
    let changes: [(&str, Change); 6] = [
        ("nothing", |_| ()),
        ("login", |s| s.login("ada").unwrap()),
        ("login of another user", |s| s.login("bob").unwrap()),
        ("set_expiry", |s| s.set_expiry(Expiry::After(secs(7000)))),
        ("login, set_expiry", |s| {
            s.login("ada").unwrap();
            s.set_expiry(Expiry::BrowserClose);
        }),
        ("insert", |s| s.insert("n", 2).unwrap()),
    ];
    let limits = Lifetime::new().idle_limit(secs(600)).absolute_limit(secs(2000));
    let lifetimes = [
        Lifetime::new().absolute_limit(secs(500)),
        Lifetime::new(),
        limits.clone(),
        Lifetime::new().first_age(secs(60)),
        limits.first_age(secs(60)),
    ];
    for (lifetime, (name, change)) in
        lifetimes.iter().flat_map(|lifetime| changes.map(|change| (lifetime, change)))
    {
        for user in [None, Some("bob")] {
            for before in [Expiry::Default, Expiry::After(secs(300))] {
                let context = format!("{name}, {lifetime:?}, {user:?}, {before:?}");
                stage.clock.set(start());
                let mut session = stage.sessions_living(lifetime.clone()).session([]);
                session.insert("n", 1).unwrap();
                session.set_expiry(before);
                if let Some(user) = user {
                    session.login(user).unwrap();
                }
                // The first visit saves its session twice.
                for _ in 0..2 {
                    let promised = session.deadline().unwrap();
                    session.save().unwrap();
                    assert_eq!(
                        stage.record(&session.token().unwrap().unwrap()).deadline(),
                        promised,
                        "{context}"
                    );
                    change(&mut session);
                }
                session.save().unwrap();
                let token = session.token().unwrap().unwrap();
                stage.clock.advance(secs(10));
                // The second visit.
                let mut session = presented(stage, lifetime, &token);
                change(&mut session);
                let promised = session.deadline().unwrap();
                // Setting the same expiry again is not a change.
                let is_unchanged = ["nothing", "insert", "set_expiry"].contains(&name);
                session.save().unwrap();
                let token = session.token().unwrap().unwrap();
                let stored = stage.record(&token).deadline();
                // A save may renew the stored deadline, too.
                assert!(
                    stored == promised || is_unchanged && stored > promised,
                    "{context}: {stored:?} {promised:?}"
                );
            }
        }
    }
}

fn the_remaining_time_comes_from_one_reading_of_the_clock(stage: &Stage) {
    stage.rig.tick();
    let mut session = stage.sessions().session([]);
    assert_eq!(
        session.remaining().unwrap(),
        TWO_WEEKS,
        "not a microsecond less, which would show as a second"
    );
    session.set_expiry(Expiry::After(secs(300)));
    assert_eq!(session.remaining().unwrap(), secs(300));
}

fn browser_close_keeps_the_servers_age(stage: &Stage) {
    for (lifetime, expiry) in [
        (Lifetime::new().age(AGE), Expiry::BrowserClose),
        (Lifetime::new().age(AGE).expire_at_browser_close(true), Expiry::Default),
    ] {
        let token = stored_with(stage, &lifetime, expiry);
        stage.clock.advance(NEARLY_AGE);
        assert!(visit(stage, &lifetime, &token));
        stage.clock.advance(MICRO);
        assert!(!visit(stage, &lifetime, &token));
    }
}

fn settings_beyond_all_bounds_are_stored_as_the_longest_life(stage: &Stage) {
    let thousand_years = secs(1000 * 365 * 86_400);
    let lifetime = Lifetime::new().age(thousand_years);
    let far: SystemTime = UNIX_EPOCH + thousand_years * 20;
    for (expiry, deadline) in [
        (Expiry::Default, start() + thousand_years),
        (Expiry::After(Duration::MAX), start() + thousand_years),
        (Expiry::At(far), far),
    ] {
        let token = stored_with(stage, &lifetime, expiry);
        let session = presented(stage, &lifetime, &token);
        assert_eq!(session.deadline().unwrap(), deadline);
        assert!(visit(stage, &lifetime, &token));
    }
    for lifetime in [
        Lifetime::new().age(thousand_years + secs(1)),
        Lifetime::new().age(Duration::from_micros(999_999)),
        Lifetime::new().idle_limit(Duration::ZERO),
        Lifetime::new().absolute_limit(Duration::MAX),
        Lifetime::new().renewal_step_percent(51),
    ] {
        let error = stage.sessions().with_lifetime(lifetime).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

/// Lifetimes under which a session expires `AGE` after its last save, which is also its creation.
fn strict() -> [Lifetime; 3] {
    [Lifetime::new().age(AGE), Lifetime::new().idle_limit(AGE), Lifetime::new().absolute_limit(AGE)]
}

fn a_stricter_policy_ends_sessions_at_their_next_load(stage: &Stage) {
    for lifetime in strict() {
        let token = stored(stage, &Lifetime::new());
        stage.clock.advance(NEARLY_AGE);
        assert!(presented(stage, &lifetime, &token).contains("n").unwrap());
        stage.clock.advance(MICRO);
        let mut session = presented(stage, &lifetime, &token);
        assert!(!session.contains("n").unwrap(), "{lifetime:?}");
        session.insert("m", 1).unwrap();
        session.save().unwrap();
        assert_ne!(session.token().unwrap(), Some(token.clone()), "and its id is not adopted");
        // If a session has an expiry setting of its own, another age does not change it, but a limit does.
        let long = stored_with(stage, &Lifetime::new(), Expiry::After(TWO_WEEKS));
        stage.clock.advance(AGE);
        let limited = lifetime != Lifetime::new().age(AGE);
        assert_eq!(presented(stage, &lifetime, &long).contains("n").unwrap(), !limited, "{lifetime:?}");
    }
}

fn a_stricter_policy_ends_sessions_inside_the_change(stage: &Stage) {
    let operations: [fn(&mut Session) -> sessile::Result<()>; 4] = [
        |s| s.insert("n", 2).and_then(|()| s.save()),
        |s| s.update_now("n", add_one),
        |s| {
            // The request makes no login, because a login would make a new session (see `logins`).
            s.rotate_id();
            s.save()
        },
        |s| {
            s.set_expiry(Expiry::BrowserClose);
            s.save()
        },
    ];
    for lifetime in strict() {
        let token = stored(stage, &Lifetime::new());
        check_a_late_login_makes_a_new_session(stage, &lifetime, &token, AGE);
        for operation in operations {
            let token = stored(stage, &Lifetime::new());
            let before = stage.record(&token);
            let mut session = presented(stage, &lifetime, &token);
            assert!(session.contains("n").unwrap());
            stage.clock.advance(AGE);
            let error = operation(&mut session).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Gone, "{lifetime:?}");
            let reason = "it was ended or has expired since it was read; nothing was saved";
            assert!(error.to_string().ends_with(reason), "like any session that is gone: {error}");
            assert_eq!(stage.record(&token), before, "nothing was written");
        }
        let sliding = lifetime.renewal(Renewal::OnRead);
        let token = stored(stage, &Lifetime::new());
        let before = stage.record(&token);
        let events = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&events);
        let count = move |_: &Event<'_>| {
            counted.fetch_add(1, Ordering::Relaxed);
        };
        let sessions = stage.sessions_living(sliding).with_observer(count);
        let mut session = sessions.session([token.clone()]);
        assert!(session.contains("n").unwrap());
        stage.clock.advance(AGE);
        session.save().unwrap();
        assert_eq!(stage.record(&token), before, "a renewal that comes too late is none");
        assert_eq!(events.load(Ordering::Relaxed), 0, "nor is it an event");
    }
}

fn a_laxer_policy_revives_nothing_and_prolongs_at_the_next_save(stage: &Stage) {
    let strict = Lifetime::new().age(AGE);
    let token = stored(stage, &strict);
    stage.clock.advance(NEARLY_AGE);
    let mut session = presented(stage, &Lifetime::new(), &token);
    session.insert("n", 2).unwrap();
    session.save().unwrap();
    assert_eq!(session.deadline().unwrap(), stage.clock.now() + TWO_WEEKS);
    let token = stored(stage, &strict);
    stage.clock.advance(AGE);
    assert!(!presented(stage, &Lifetime::new(), &token).contains("n").unwrap());
}

fn a_clock_that_goes_backwards_makes_no_session_immortal(stage: &Stage) {
    let default = secs(300);
    for (lifetime, tolerance) in [
        (Lifetime::new(), default),
        (Lifetime::new().future_tolerance(secs(3600)), secs(3600)),
        (Lifetime::new().future_tolerance(secs(86_400)), secs(86_400)),
        (Lifetime::new().future_tolerance(secs(150_000)), secs(150_000)),
    ] {
        // A session created in the future, by the clock; and one created now, but last used in the future.
        for created in [Duration::ZERO, secs(200_000)] {
            stage.clock.set(start() + secs(200_000) - created);
            let token = stored(stage, &lifetime);
            stage.clock.set(start() + secs(200_000));
            let touch = |record: &mut Record| {
                record.set_timing(Timing { touched: stage.clock.now(), ..record.timing() });
                Ok(Verdict::Write)
            };
            stage.store.update(&token, &mut { touch }, Durability::OfStore).unwrap().unwrap();
            stage.clock.set(start() + secs(200_000) - tolerance);
            assert!(presented(stage, &lifetime, &token).contains("n").unwrap(), "{tolerance:?}");
            stage.clock.set(start() + secs(200_000) - tolerance - MICRO);
            let mut session = presented(stage, &lifetime, &token);
            assert!(!session.contains("n").unwrap(), "{tolerance:?}");
            session.insert("m", 1).unwrap();
            session.save().unwrap();
            assert_ne!(session.token().unwrap(), Some(token.clone()));
            // When the clock is corrected, a session that was not deleted is live again.
            stage.clock.set(start() + secs(200_000));
            assert!(presented(stage, &lifetime, &token).contains("n").unwrap());
        }
    }
    // While the clock is behind, a save does not lengthen a session's lifetime.
    let lifetime = Lifetime::new().age(AGE);
    let token = stored(stage, &lifetime);
    let deadline = stage.record(&token).deadline();
    stage.clock.set(stage.clock.now() - secs(200));
    let mut session = presented(stage, &lifetime, &token);
    session.insert("n", 2).unwrap();
    session.save().unwrap();
    assert_eq!(stage.record(&token).deadline(), deadline);
    session.set_expiry(Expiry::BrowserClose);
    session.save().unwrap();
    assert_eq!(stage.record(&token).deadline(), deadline - secs(200));
}

fn a_clock_that_goes_backwards_under_a_request_saves_nothing(stage: &Stage) {
    let lifetime = Lifetime::new().renewal(Renewal::OnRead);
    let token = stored(stage, &lifetime);
    let before = stage.record(&token);
    let mut session = presented(stage, &lifetime, &token);
    assert!(session.contains("n").unwrap());
    stage.clock.set(stage.clock.now() - secs(301));
    session.save().unwrap();
    session.insert("n", 2).unwrap();
    assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(session.update_now("n", add_one).unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(stage.record(&token), before);
}

fn a_session_renewed_by_another_request_is_not_from_the_future(stage: &Stage) {
    // A save reads the clock, and may then wait up to a minute for the lock, while other requests use the session. So a
    // last use in the near future is tolerated.
    for tolerance in [Duration::ZERO, MICRO, secs(1), secs(59), secs(60), secs(300)] {
        let lifetime = Lifetime::new().renewal_step_percent(0).future_tolerance(tolerance);
        let Ok(sessions) = stage.sessions().with_lifetime(lifetime.clone()) else {
            // A larger tolerance is refused as out of bounds; the default is within them.
            assert!(tolerance < secs(300));
            continue;
        };
        let operations: [fn(&mut Session) -> sessile::Result<()>; 3] = [
            |s| s.insert("m", 1).and_then(|()| s.save()),
            |s| s.update_now("m", add_one),
            |s| {
                // The request makes no login, because a login would make a new session (see `logins`).
                s.rotate_id();
                s.save()
            },
        ];
        for operation in operations {
            let token = stored(stage, &lifetime);
            let mut session = sessions.session([token.clone()]);
            assert!(session.contains("n").unwrap());
            for call in [Call::Update, Call::Rotate] {
                let (clock, same) = (stage.clock.clone(), token.clone());
                let others = stage.others().with_lifetime(lifetime.clone()).unwrap();
                stage.rig.before(call, move || {
                    clock.advance(secs(59));
                    let mut other = others.session([same]);
                    other.update("n", add_one).unwrap();
                    other.save().unwrap();
                });
            }
            operation(&mut session).unwrap_or_else(|error| panic!("{tolerance:?}: {error}"));
            let record = stage.record(&session.token().unwrap().unwrap());
            assert_eq!(record.entries().get("n").unwrap(), &Value::new(&2).unwrap());
            stage.rig.forget_plans();
        }
    }
}

fn a_save_reads_the_clock_once(stage: &Stage) {
    stage.rig.tick();
    let lifetime = Lifetime::new().renewal(Renewal::OnRead).renewal_step_percent(0);
    let sessions = stage.sessions_living(lifetime);
    let mut session = sessions.session([]);
    let mut check = |operation: fn(&mut Session) -> sessile::Result<()>, case: &str| {
        stage.rig.readings();
        operation(&mut session).unwrap();
        assert_eq!(stage.rig.readings(), 1, "{case}");
        let now = stage.clock.now();
        let record = stage.record(&session.token().unwrap().unwrap());
        if case == "update_now" {
            assert!(record.deadline() < now + TWO_WEEKS, "it commits its entry and does not renew");
        } else {
            assert_eq!((record.timing().touched, record.deadline()), (now, now + TWO_WEEKS), "{case}");
        }
    };
    check(|s| s.insert("n", 1).and_then(|()| s.save()), "create");
    check(|s| s.insert("n", 2).and_then(|()| s.save()), "merge");
    check(Session::save, "renewal");
    check(
        |s| {
            s.rotate_id();
            s.save()
        },
        "rotation",
    );
    check(|s| s.update_now("n", add_one), "update_now");
    check(
        |s| {
            s.set_expiry(Expiry::BrowserClose);
            s.save()
        },
        "setting",
    );
    assert!(session.user().unwrap().is_none());
    let mut check_login = |now_created: bool| {
        stage.rig.readings();
        session.login("ada").unwrap();
        session.save().unwrap();
        assert_eq!(stage.rig.readings(), 1, "login");
        let record = stage.record(&session.token().unwrap().unwrap());
        assert_eq!(record.timing().created == record.timing().touched, now_created);
    };
    check_login(true);
    // `update_now` also makes a new session with a single reading of the clock.
    let mut session = sessions.session([]);
    stage.rig.readings();
    session.update_now("n", add_one).unwrap();
    assert_eq!(stage.rig.readings(), 1);
    let record = stage.record(&session.token().unwrap().unwrap());
    assert_eq!((record.timing().created, record.timing().touched), (stage.clock.now(), stage.clock.now()));
    assert_eq!(record.deadline(), stage.clock.now() + TWO_WEEKS);
}
