//! The age of a session and of a login. Time is the subject here, so these scenarios let it pass.
use super::{Scenarios, scenarios};
use crate::browser::Browser;
use crate::pages::{CLOSE, CONFIRM};
use crate::stage::Stage;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(super) const SCENARIOS: Scenarios = scenarios![
    a_page_that_polls_is_logged_out_when_its_time_is_over,
    closing_the_account_asks_for_a_fresh_login,
];

/// How often the page has asked for its status.
const POLLS: &str =
    "return performance.getEntriesByType('resource').filter(e => e.name.endsWith('/status')).length";

/// The age of the sessions, in the shop of the page that polls.
const AGE: Duration = Duration::from_secs(5);

/// Clicks each second until the age of another page is over, and for a while after that. Returns whether that was done
/// in time: a machine that stops for as long as the age logs every page out.
fn click_each_second(browser: &Browser, user: &str) -> bool {
    let (began, mut clicked) = (Instant::now(), Instant::now());
    while began.elapsed() < AGE + Duration::from_millis(1500) {
        sleep(Duration::from_secs(1));
        browser.follow("a[href='/devices']");
        if clicked.elapsed() + Duration::from_secs(1) > AGE {
            return false;
        }
        clicked = Instant::now();
        browser.check_user(Some(user));
    }
    true
}

fn a_page_that_polls_is_logged_out_when_its_time_is_over(stage: &Stage<'_>) {
    let user = stage.user();
    let shop = stage.shop(&["--age", "5"]);
    let (left, active) = (stage.browser(), stage.browser());
    let is_done = (0..5).any(|_| {
        for browser in [&active, &left] {
            browser.open(&shop);
            browser.set_cookies(&[]);
            browser.log_in(&shop, &user);
        }
        click_each_second(&active, &user)
    });
    assert!(is_done, "the machine is too slow for this test");
    let polls = left.script(POLLS, &[]);
    assert!(polls.as_u64() >= Some(1), "the page has polled {polls} times");
    // The open page has found out by itself.
    left.await_live("ended");
    left.follow("a[href='/devices']");
    left.go_back_from_error();
    left.check_user(None);
    active.follow("a[href='/devices']");
    assert_eq!(active.listed().len(), 1);
}

fn closing_the_account_asks_for_a_fresh_login(stage: &Stage<'_>) {
    let user = stage.user();
    let shop = stage.shop(&["--fresh", "1"]);
    let (browser, other) = (stage.browser(), stage.browser());
    browser.log_in(&shop, &user);
    browser.add("Apples");
    other.log_in(&shop, &user);
    browser.devices();
    sleep(Duration::from_millis(1100));
    browser.submit(CLOSE, &[]);
    browser.check_page("confirm");
    // Another name is no fresh login of this user.
    browser.submit(CONFIRM, &[("user", "Bob")]);
    browser.check_page("confirm");
    browser.check_user(Some(&user));
    browser.follow("header a[href='/']");
    assert_eq!(browser.cart(), ["Apples"], "nothing is closed yet");
    browser.goto(&shop.url("/confirm"));
    let began = Instant::now();
    // On a slow machine the second is over before the next click, and the page asks again.
    while browser.attributes("main", "data-page") == ["confirm"] {
        browser.submit(CONFIRM, &[("user", &user)]);
        browser.check_page("devices");
        browser.submit(CLOSE, &[]);
        assert!(began.elapsed() < Duration::from_secs(60), "the fresh login is never fresh");
    }
    browser.check_page("shop");
    browser.check_user(None);
    assert_eq!(browser.cart(), [""; 0]);
    // All devices are out.
    other.follow("a[href='/devices']");
    other.go_back_from_error();
    other.check_user(None);
    browser.log_in(&shop, &user);
    assert_eq!(browser.cart(), [""; 0]);
    assert_eq!(browser.devices().len(), 1);
}
