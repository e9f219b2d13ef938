//! Messages and forms over two tabs of one browser.
use super::{Scenarios, scenarios};
use crate::pages::{ADD, LOGIN};
use crate::stage::Stage;

pub(super) const SCENARIOS: Scenarios = scenarios![
    a_message_is_shown_once_over_two_tabs,
    a_form_from_before_the_login_is_refused_with_a_way_back
];

/// Adds an item without showing the page that follows, and puts two forms into this page that ask for the shop's page.
/// Their addresses differ, because the browser sends requests for one address one after the other.
const ADD_UNSEEN: &str = "
    const csrf = document.querySelector(\"form[action='/cart'] [name=csrf]\").value;
    fetch('/cart', { method: 'POST', redirect: 'manual', body: new URLSearchParams({ csrf, item: arguments[0] }) })
        .then(() => ['one', 'two'].forEach(id => document.body.insertAdjacentHTML(
            'beforeend', `<form id=${id} action=\"/\"><input type=hidden name=tab value=${id}></form>`)));";

fn a_message_is_shown_once_over_two_tabs(stage: &Stage<'_>) {
    let shop = stage.shop(&[]);
    let browser = stage.browser();
    browser.log_in(&shop, &stage.user());
    assert_eq!(browser.messages().len(), 1);
    // One after the other.
    browser.reload();
    assert_eq!(browser.messages(), [""; 0]);
    let first = browser.tab();
    browser.new_tab();
    browser.open(&shop);
    assert_eq!(browser.messages(), [""; 0]);
    browser.close_tab();
    browser.switch_to(&first);
    // At once: each time one of the tabs has the message.
    for round in 0..4 {
        let item = format!("item {round}");
        browser.script(ADD_UNSEEN, &[&item]);
        browser.see("#two");
        let mut shown = Vec::new();
        for tab in browser.submit_at_once(&["#one", "#two"]) {
            browser.switch_to(&tab);
            browser.check_page("shop");
            assert!(browser.cart().contains(&item));
            shown.extend(browser.messages());
            browser.close_tab();
        }
        browser.switch_to(&first);
        assert_eq!(shown.len(), 1, "{item}: {shown:?}");
        assert!(shown[0].contains(&item), "{shown:?}");
        browser.reload();
        assert_eq!(browser.messages(), [""; 0]);
    }
}

fn a_form_from_before_the_login_is_refused_with_a_way_back(stage: &Stage<'_>) {
    let user = stage.user();
    let shop = stage.shop(&[]);
    let browser = stage.browser();
    browser.open(&shop);
    let guest = browser.tab();
    browser.new_tab();
    browser.log_in(&shop, &user);
    browser.add("Pears");
    browser.switch_to(&guest);
    browser.submit(ADD, &[("item", "Apples")]);
    browser.go_back_from_error();
    browser.check_user(Some(&user));
    assert_eq!(browser.cart(), ["Pears"]);
    // The page is now one of the session.
    browser.add("Apples");
    assert_eq!(browser.cart(), ["Pears", "Apples"]);
    assert!(!browser.has(LOGIN));
}
