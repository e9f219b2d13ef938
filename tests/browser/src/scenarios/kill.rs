//! A server is killed in the middle of work.
use super::{Scenarios, scenarios};
use crate::stage::Stage;
use crate::waiting::{eventually, wait_for};

pub(super) const SCENARIOS: Scenarios = scenarios![a_killed_server_has_all_that_it_answered];

/// The number of items that the page adds: fewer than a cart can have.
const ITEMS: usize = 45;
/// The number of answers after which the server is killed.
const ENOUGH: usize = 8;

/// Adds items one after another, as fast as the server answers, and notes those that were answered.
const WORK: &str = "
    window.answered = [];
    window.isOver = false;
    const csrf = document.querySelector(\"form[action='/cart'] [name=csrf]\").value;
    const work = async () => {
        for (let n = 0; n < Number(arguments[0]); n++) {
            const answer = await fetch('/cart', { method: 'POST', body: new URLSearchParams({ csrf, item: `item ${n}` }) });
            if (!answer.ok) throw new Error(answer.status);
            window.answered.push(`item ${n}`);
        }
    };
    work().catch(() => {}).finally(() => window.isOver = true);";

fn a_killed_server_has_all_that_it_answered(stage: &Stage<'_>) {
    let user = stage.user();
    let (killed, other) = (stage.shop(&[]), stage.shop(&[]));
    let browser = stage.browser();
    browser.log_in(&killed, &user);
    let session = browser.session_id();
    browser.script(WORK, &[&ITEMS.to_string()]);
    wait_for("some answers", || {
        let answered = browser.script("return window.answered.length", &[]);
        answered.as_u64().filter(|answered| *answered >= ENOUGH as u64)
    });
    let port = killed.kill();
    eventually("the work ends", || browser.script("return window.isOver", &[]) == true);
    let answered = browser.script("return window.answered", &[]);
    let answered: Vec<String> = serde_json::from_value(answered).expect("a list of items");
    assert!(answered.len() < ITEMS, "the server was killed after the work");

    let check = |case: &str| {
        browser.check_user(Some(&user));
        assert_eq!(browser.session_id(), session, "{case}");
        let cart = browser.cart();
        assert!(cart.starts_with(&answered), "{case}: {answered:?} were answered, and {cart:?} are there");
        // The server may have saved the item that it was about to answer.
        assert!(
            cart.len() <= answered.len() + 1,
            "{case}: {answered:?} were answered, and {cart:?} are there"
        );
        cart
    };
    // The other process has it all, at once.
    browser.open(&other);
    check("in the other process");
    let restarted = stage.shop_on(port, &[]);
    browser.open(&restarted);
    let cart = check("after the restart");
    browser.add("One more");
    assert_eq!(browser.cart(), [cart, vec!["One more".into()]].concat());
    assert_eq!(browser.session_id(), session);
}
