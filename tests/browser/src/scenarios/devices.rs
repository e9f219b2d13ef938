//! A device is logged out from another one, which talks to another process on the same store.
use super::{Scenarios, scenarios};
use crate::browser::Browser;
use crate::pages::{Device, END_OTHERS, LOGIN};
use crate::shop::Shop;
use crate::stage::Stage;

pub(crate) const SCENARIOS: Scenarios = scenarios![
    an_ended_device_is_out_at_its_next_click,
    the_live_line_of_an_ended_device_says_so_in_two_seconds,
    ending_all_others_leaves_only_this_device,
];

/// The form that ends a device.
fn end_form(id: &str) -> String {
    format!("li.device[data-id='{id}'] form[action='/devices/end']")
}

/// Asserts that the browser is out at its next click, and that a login from there works.
#[track_caller]
fn check_is_out(browser: &Browser, shop: &Shop, user: &str) {
    browser.follow("a[href='/devices']");
    browser.go_back_from_error();
    browser.check_user(None);
    browser.open(shop);
    browser.check_user(None);
    browser.submit(LOGIN, &[("user", user)]);
    browser.check_user(Some(user));
}

pub(crate) fn an_ended_device_is_out_at_its_next_click(stage: &Stage<'_>) {
    let user = stage.user();
    let (here, there) = (stage.shop(&[]), stage.shop(&[]));
    let (laptop, phone) = (stage.browser(), stage.browser());
    laptop.log_in(&here, &user);
    phone.log_in(&there, &user);
    let (own, other) = (laptop.session_id(), phone.session_id());

    // Each device sees both, and which one it is.
    for (browser, this) in [(&laptop, &own), (&phone, &other)] {
        let mut listed = browser.devices();
        listed.sort_by_key(|device| device.id != own);
        let want = [&own, &other].map(|id| Device { id: id.clone(), is_this: id == this });
        assert_eq!(listed, want);
    }
    laptop.submit(&end_form(&other), &[]);
    assert_eq!(laptop.listed(), [Device { id: own.clone(), is_this: true }]);
    check_is_out(&phone, &there, &user);
    // The other device was left alone.
    laptop.reload();
    laptop.check_user(Some(&user));
}

/// Notes the time at which the live line says that the session has ended.
const NOTE_END: &str = "
    const line = document.getElementById('live');
    new MutationObserver(() => { if (line.dataset.state === 'ended') window.endedAt ??= Date.now() })
        .observe(line, { attributes: true });";

fn the_live_line_of_an_ended_device_says_so_in_two_seconds(stage: &Stage<'_>) {
    let user = stage.user();
    let (here, there) = (stage.shop(&[]), stage.shop(&[]));
    let (laptop, phone) = (stage.browser(), stage.browser());
    // The page also polls every few seconds. Its poll is not let through, so that only the line can tell the end.
    phone.block("*/status");
    laptop.log_in(&here, &user);
    phone.log_in(&there, &user);
    phone.await_live("open");
    laptop.devices();
    phone.script(NOTE_END, &[]);
    laptop.submit(&end_form(&phone.session_id()), &[]);
    let clicked = laptop.script("return performance.timeOrigin", &[]).as_f64().unwrap();
    phone.await_live("ended");
    let ended = phone.script("return window.endedAt", &[]).as_f64().unwrap();
    assert!(ended - clicked < 2000.0, "the line said so {} ms after the click", ended - clicked);
    // The line of the device that stays does not change.
    laptop.await_live("open");
}

fn ending_all_others_leaves_only_this_device(stage: &Stage<'_>) {
    let user = stage.user();
    let (here, there) = (stage.shop(&[]), stage.shop(&[]));
    let (laptop, phone, tablet) = (stage.browser(), stage.browser(), stage.browser());
    laptop.log_in(&here, &user);
    phone.log_in(&there, &user);
    tablet.log_in(&here, &user);
    assert_eq!(laptop.devices().len(), 3);
    laptop.submit(END_OTHERS, &[]);
    assert_eq!(laptop.listed(), [Device { id: laptop.session_id(), is_this: true }]);
    check_is_out(&phone, &there, &user);
    check_is_out(&tablet, &here, &user);
    laptop.reload();
    laptop.check_user(Some(&user));
}
