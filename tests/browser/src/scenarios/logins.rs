//! A login beside another login or beside a logout, in tabs of one browser.
use super::{Scenarios, scenarios};
use crate::browser::Browser;
use crate::http;
use crate::pages::{CONFIRM, Device, END_OTHERS, LOGIN, LOGOUT};
use crate::shop::Shop;
use crate::stage::Stage;

pub(super) const SCENARIOS: Scenarios = scenarios![
    a_login_pressed_twice_at_once_keeps_the_cart,
    a_login_pressed_twice_one_after_the_other_keeps_the_cart,
    a_logout_beside_a_login_ends_the_session_before_both,
];

/// Asserts that a tab shows a page of the shop, or an error page that leads back to it.
#[track_caller]
fn check_leads_somewhere(browser: &Browser) {
    if browser.attributes("main", "data-page") == ["error"] {
        browser.go_back_from_error();
    } else {
        assert!(
            browser.has("main[data-page] a[href='/'], header a[href='/']"),
            "no way on from {}",
            browser.url()
        );
    }
}

/// Submits forms of the page at the same time, and asserts that no answer is a dead end.
#[track_caller]
fn press_at_once(browser: &Browser, forms: &[&str]) {
    let first = browser.tab();
    for tab in browser.submit_at_once(forms) {
        browser.switch_to(&tab);
        check_leads_somewhere(browser);
        browser.close_tab();
    }
    browser.switch_to(&first);
}

/// Asserts that the browser has one session, of this user, with this cart.
#[track_caller]
fn check_has_one_session(browser: &Browser, shop: &Shop, user: &str, cart: &[&str]) {
    browser.open(shop);
    browser.check_user(Some(user));
    assert_eq!(browser.cart(), cart);
    assert_eq!(browser.cookies().len(), 1);
    let own = browser.session_id();
    let this = browser.devices().into_iter().filter(|device| device.is_this);
    assert_eq!(this.map(|device| device.id).collect::<Vec<_>>(), [own]);
}

/// A guest with a cart.
fn guest(stage: &Stage<'_>, shop: &Shop) -> Browser {
    let browser = stage.browser();
    browser.open(shop);
    browser.add("Apples");
    browser.add("Pears");
    browser
}

fn a_login_pressed_twice_at_once_keeps_the_cart(stage: &Stage<'_>) {
    let user = stage.user();
    let shop = stage.shop(&[]);
    for round in 0..3 {
        let (browser, user) = (guest(stage, &shop), format!("{user} {round}"));
        browser.fill(&format!("{LOGIN} [name=user]"), &user);
        press_at_once(&browser, &[LOGIN, LOGIN]);
        check_has_one_session(&browser, &shop, &user, &["Apples", "Pears"]);
    }
}

fn a_login_pressed_twice_one_after_the_other_keeps_the_cart(stage: &Stage<'_>) {
    let user = stage.user();
    let shop = stage.shop(&[]);
    let browser = guest(stage, &shop);
    // A second page with the same form.
    let first = browser.tab();
    let second = browser.new_tab();
    browser.open(&shop);
    for tab in [&first, &second] {
        browser.switch_to(tab);
        browser.submit(LOGIN, &[("user", &user)]);
        check_leads_somewhere(&browser);
        browser.check_user(Some(&user));
    }
    check_has_one_session(&browser, &shop, &user, &["Apples", "Pears"]);
    assert_eq!(browser.listed().len(), 1);
}

fn a_logout_beside_a_login_ends_the_session_before_both(stage: &Stage<'_>) {
    let user = stage.user();
    let (shop, there) = (stage.shop(&[]), stage.shop(&[]));
    let (browser, witness) = (stage.browser(), stage.browser());
    witness.log_in(&there, &user);
    for _ in 0..4 {
        browser.log_in(&shop, &user);
        let before = browser.session_id();
        let header = browser.cookies().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let header = header.split(';').next().unwrap_or_default();
        assert!(http::get(shop.address, "/", header).contains(&user));
        browser.goto(&shop.url("/confirm"));
        browser.fill(&format!("{CONFIRM} [name=user]"), &user);
        press_at_once(&browser, &[CONFIRM, LOGOUT]);
        // Which of both the browser has heard last is open. The session before both is gone, and the browser is in a
        // session of its user, or a guest.
        browser.open(&shop);
        let now = browser.user();
        assert!(now.is_none() || now.as_ref() == Some(&user), "{now:?}");
        assert!(!http::get(shop.address, "/", header).contains(&user), "the session before both is alive");
        browser.reload();
        assert_eq!(browser.user(), now, "the page is that of the session that the browser has");
        if now.is_some() {
            assert!(browser.devices().iter().all(|device| device.id != before));
            browser.submit(LOGOUT, &[]);
            browser.check_user(None);
        }
        // The session of a login whose answer the browser did not keep is on the list, which ends it.
        if witness.devices().len() > 1 {
            witness.submit(END_OTHERS, &[]);
        }
        assert_eq!(witness.listed(), [Device { id: witness.session_id(), is_this: true }]);
    }
}
