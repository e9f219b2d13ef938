//! After a logout nothing is left: copies of the cookie open nothing, and the back button shows no page of the session.
use super::{Scenarios, scenarios};
use crate::http;
use crate::pages::LOGOUT;
use crate::stage::Stage;

pub(super) const SCENARIOS: Scenarios =
    scenarios![copied_cookies_are_dead_after_the_logout, the_back_button_shows_no_page_of_the_session];

fn copied_cookies_are_dead_after_the_logout(stage: &Stage<'_>) {
    let user = stage.user();
    let (here, there) = (stage.shop(&[]), stage.shop(&[]));
    let (owner, thief) = (stage.browser(), stage.browser());
    owner.log_in(&here, &user);
    owner.add("Secret");
    let cookies = owner.cookies();
    let header: Vec<_> =
        cookies.iter().map(|cookie| format!("{}={}", cookie.name(), cookie.value())).collect();
    let header = header.join("; ");

    // The copies work before the logout, in both processes.
    thief.open(&there);
    thief.set_cookies(&cookies);
    for shop in [&here, &there] {
        thief.open(shop);
        thief.check_user(Some(&user));
        let page = http::get(shop.address, "/", &header);
        assert!(page.contains(&user) && page.contains("Secret"), "{page}");
    }
    owner.submit(LOGOUT, &[]);
    owner.check_user(None);
    for shop in [&there, &here] {
        thief.set_cookies(&cookies);
        thief.open(shop);
        thief.check_user(None);
        assert_eq!(thief.cart(), [""; 0]);
        for path in ["/", "/devices", "/status"] {
            let page = http::get(shop.address, path, &header);
            assert!(page.starts_with("HTTP/1."), "{page}");
            assert!(!page.contains(&user) && !page.contains("Secret"), "{path}: {page}");
        }
    }
}

fn the_back_button_shows_no_page_of_the_session(stage: &Stage<'_>) {
    let user = stage.user();
    let shop = stage.shop(&[]);
    let browser = stage.browser();
    browser.log_in(&shop, &user);
    browser.add("Secret");
    browser.devices();
    browser.submit(LOGOUT, &[]);
    browser.check_user(None);
    let check = || {
        let page = browser.texts("body").concat();
        assert!(page.contains("Corner shop"), "{page}");
        // The field for a login has kept what was typed into it, as browsers do, and this browser alone shows it.
        assert!(!page.contains(&user) && !page.contains("Secret"), "{} shows {page}", browser.url());
    };
    check();
    for _ in 0..3 {
        browser.back();
        check();
    }
    // Nor does a tab that was open all the time, once it is reloaded.
    browser.reload();
    check();
}
