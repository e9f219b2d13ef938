//! Two requests of one browser that overlap, in every order of their steps, and the five orders that showed what a
//! server has to do about ids that a rotation or a login has replaced. Three requests are a trial in `tests/hammer`.
//!
//! What remains are orders that no server can mend, because HTTP cannot say "unless the browser has something newer": a
//! response that was right when it was finished arrives after a newer one, two logins are beside each other, or a login
//! and a logout. `tests/support/overlaps.rs` names each kind.
use crate::lifecycle::{entries, stored, stored_for};
use crate::support::cookie_jar::Jar;
use crate::support::memory::{Stage, on_every_storage, secs};
use crate::support::overlaps::{Finding, OPERATIONS, Operation, Run, Site, orders};
use serde_json::json;
use sessile::{Destroyed, ErrorKind, Headers, Lookup, Store, Token, Visit};
use std::collections::BTreeMap;
use std::time::Duration;

on_every_storage! {
    two_overlapping_requests_lose_only_what_no_server_can_mend,
    a_logout_that_is_late_for_a_rotation_ends_the_rotated_session,
    a_login_that_is_late_for_a_rotation_leaves_no_second_session,
    of_two_logins_both_keep_an_item_that_was_acknowledged,
    a_holder_of_the_id_before_a_rotation_never_gets_the_new_one,
    a_change_that_is_late_for_a_login_replaces_no_cookie,
}

/// How often two requests have led to a finding: with logins of the same user, and with logins of two users.
type Tally = BTreeMap<Finding, [usize; 2]>;

/// Runs each pair of operations in each order, for an anonymous visitor and for one who is logged in.
fn all_pairs(stage: &Stage, grace: Duration) -> Tally {
    let site = Site::new(stage.store.clone(), stage.clock.clone(), grace);
    let orders = orders(2);
    let mut tally = Tally::new();
    let pairs = OPERATIONS.into_iter().flat_map(|first| OPERATIONS.map(|second| [first, second]));
    for operations in pairs.filter(|[first, second]| first <= second) {
        for (number, users) in [["ada", "ada"], ["ada", "ben"]].iter().enumerate() {
            for begin in [None, Some("ada")] {
                for order in &orders {
                    let run = Run { begin, operations: &operations, users, order };
                    for finding in run.findings(&site) {
                        assert!(grace.is_zero() || finding.is_unmendable(), "{finding:?} of {run:?}");
                        tally.entry(finding).or_default()[number] += 1;
                    }
                }
            }
        }
    }
    tally
}

fn two_overlapping_requests_lose_only_what_no_server_can_mend(stage: &Stage) {
    let expected = [
        (Finding::LoginReplacedByLogin, [96, 96]),
        (Finding::LoginRemovedByLogout, [48, 48]),
        (Finding::LoginOvertaken, [100, 100]),
        (Finding::RotationOvertaken, [10, 10]),
        (Finding::ChangeNotInBrowser, [68, 112]),
        (Finding::ChangeOfAnotherUser, [0, 230]),
    ];
    assert_eq!(all_pairs(stage, secs(60)), Tally::from(expected));
}

/// The same requests without a grace period. They lead to more findings, which shows that the checks can fail.
#[test]
fn without_a_grace_period_the_same_requests_lose_more() {
    let expected = [
        (Finding::LoggedInAfterLogout, [10, 10]),
        (Finding::LogoutSpared, [68, 68]),
        (Finding::LoginReplacedBy(Operation::Store), [24, 24]),
        (Finding::LoginReplacedByLogin, [96, 96]),
        (Finding::LoginRemovedByLogout, [48, 48]),
        (Finding::LoginOvertaken, [100, 100]),
        (Finding::RotationOvertaken, [22, 22]),
        (Finding::ChangeNotInBrowser, [184, 190]),
        (Finding::ChangeOfAnotherUser, [0, 196]),
    ];
    for stage in [Stage::memory(), Stage::rows(), Stage::sqlite(), Stage::light_files()] {
        assert_eq!(all_pairs(&stage, Duration::ZERO), Tally::from(expected));
    }
}

/// A browser that has the cookie of a session.
struct Browser<'s> {
    stage: &'s Stage,
    jar: Jar,
}

impl<'s> Browser<'s> {
    fn new(stage: &'s Stage, token: &Token) -> Self {
        let mut jar = Jar::http();
        jar.put("session", token.expose());
        Self { stage, jar }
    }

    /// Sends a request with the cookie that the browser has now. The request reads its session.
    fn send(&self) -> Visit {
        let visit = self.stage.sessions().visit(self.jar.header().as_deref());
        visit.user().unwrap();
        visit
    }

    fn receive(&mut self, headers: &Headers) {
        let cookies = headers.iter().filter(|(name, _)| *name == "Set-Cookie");
        self.jar.receive(cookies.map(|(_, value)| &**value));
    }

    fn user(&self) -> Option<String> {
        self.send().user().unwrap()
    }
}

fn a_logout_that_is_late_for_a_rotation_ends_the_rotated_session(stage: &Stage) {
    let mut browser = Browser::new(stage, &stored_for(stage, "ada", &json!({ "cart": 1 })));
    let mut rotation = browser.send();
    rotation.rotate_id();
    let logout_sent = browser.jar.header();
    let rotated = rotation.finish(200).unwrap();
    let mut logout = stage.sessions().visit(logout_sent.as_deref());
    assert_eq!(logout.user().unwrap(), None);
    assert_eq!(logout.destroy().unwrap(), Destroyed::Ended);
    browser.receive(&logout.finish(200).unwrap());
    assert_eq!(browser.jar.header(), None);
    browser.receive(&rotated);
    assert_eq!(browser.user(), None, "the new id is that of an ended session");
    assert_eq!(stage.stored(), 0);
}

fn a_login_that_is_late_for_a_rotation_leaves_no_second_session(stage: &Stage) {
    let mut browser = Browser::new(stage, &stored_for(stage, "ada", &json!({ "cart": 1 })));
    let (mut rotation, mut step_up) = (browser.send(), browser.send());
    rotation.rotate_id();
    let rotated = rotation.finish(200).unwrap();
    step_up.login("ada").unwrap();
    browser.receive(&step_up.finish(200).unwrap());
    assert_eq!(browser.send().get("cart").unwrap(), Some(1));
    assert_eq!(stage.stored(), 1, "the login has moved the rotated session");
    let mut logout = browser.send();
    assert_eq!(logout.destroy().unwrap(), Destroyed::Ended);
    browser.receive(&logout.finish(200).unwrap());
    browser.receive(&rotated);
    assert_eq!(browser.user(), None);
    assert_eq!(stage.stored(), 0);
}

fn of_two_logins_both_keep_an_item_that_was_acknowledged(stage: &Stage) {
    for second_is_sent_late in [false, true] {
        let token = stored(stage, &json!({ "cart": ["apple"] }));
        let mut browser = Browser::new(stage, &token);
        let (mut first, mut second) = (browser.send(), browser.send());
        first.login("ada").unwrap();
        let answer = first.finish(200).unwrap();
        if second_is_sent_late {
            // The second request has the same cookie, and has read nothing yet.
            second = browser.send();
        }
        browser.receive(&answer);
        // The session of the first request is used before the second request is finished.
        let mut page = browser.send();
        page.insert("pear", true).unwrap();
        browser.receive(&page.finish(200).unwrap());
        second.login("ada").unwrap();
        browser.receive(&second.finish(200).unwrap());
        let last = browser.send();
        assert_eq!(last.user().unwrap().as_deref(), Some("ada"));
        let expected = json!({ "cart": ["apple"], "pear": true });
        assert_eq!(entries(stage, &last.token().unwrap().unwrap()), expected);
    }
}

fn a_holder_of_the_id_before_a_rotation_never_gets_the_new_one(stage: &Stage) {
    type Attack = fn(&mut Visit);
    let attacks: [Attack; 4] = [
        |_| {},
        |visit| visit.insert("x", 1).unwrap(),
        |visit| visit.rotate_id(),
        |visit| drop(visit.update_now("x", |n: &mut u64| *n += 1)),
    ];
    for attack in attacks {
        // The attacker's request reads its session before or after the victim's login, and is finished before or after
        // it.
        for (loaded_first, finished_first) in [(true, true), (true, false), (false, false)] {
            let planted = stored(stage, &json!({ "cart": 1 }));
            let mut victim = Browser::new(stage, &planted);
            let attacker = Browser::new(stage, &planted);
            let mut early = loaded_first.then(|| attacker.send());
            let mut login = victim.send();
            // The handler logs the user in by an entry, as Django does.
            login.insert("user", "ada").unwrap();
            login.rotate_id();
            let mut answers = Vec::new();
            if finished_first {
                let mut visit = early.take().unwrap();
                attack(&mut visit);
                answers.push(visit.finish(200));
            }
            // The login comes after the attacker's rotation, and is refused.
            match login.finish(200) {
                Ok(headers) => victim.receive(&headers),
                Err(refused) => assert_eq!(refused.error.kind(), ErrorKind::Gone),
            }
            let mut late = early.unwrap_or_else(|| attacker.send());
            attack(&mut late);
            answers.push(late.finish(200));
            let mut holder = Browser::new(stage, &planted);
            for answer in answers {
                let headers = answer.unwrap_or_else(|refused| {
                    assert_eq!(refused.error.kind(), ErrorKind::Gone);
                    refused.headers
                });
                holder.receive(&headers);
            }
            assert_eq!(holder.send().get::<String>("user").unwrap(), None);
        }
    }
}

fn a_change_that_is_late_for_a_login_replaces_no_cookie(stage: &Stage) {
    let mut browser = Browser::new(stage, &stored(stage, &json!({ "cart": 1 })));
    let sent = browser.jar.header();
    let mut login = browser.send();
    login.login("ada").unwrap();
    browser.receive(&login.finish(200).unwrap());
    let mut page = stage.sessions().visit(sent.as_deref());
    assert!(page.is_empty().unwrap());
    page.insert("seen", true).unwrap();
    let refused = page.finish(200).unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::Gone);
    browser.receive(&refused.headers);
    assert_eq!(browser.user().as_deref(), Some("ada"));
    assert_eq!(stage.stored(), 1);
    let token = Token::parse(browser.jar.get("session").unwrap()).unwrap();
    assert!(matches!(stage.store.load(&token).unwrap(), Lookup::Live(_)));
}
