//! The shop without scripts.
use super::{Scenarios, scenarios};
use crate::pages::LOGOUT;
use crate::stage::Stage;

pub(super) const SCENARIOS: Scenarios = scenarios![the_shop_works_without_scripts];

fn the_shop_works_without_scripts(stage: &Stage<'_>) {
    let user = stage.user();
    let shop = stage.shop(&[]);
    let (plain, other) = (stage.browser_without_script(), stage.browser());
    for (browser, title) in [(&plain, "off"), (&other, "on")] {
        browser.goto("data:text/html,<title>off</title><script>document.title = 'on'</script>");
        assert_eq!(browser.script("return document.title", &[]), title, "whether scripts run");
    }
    plain.log_in(&shop, &user);
    plain.add("Apples");
    plain.add("Pears");
    assert_eq!(plain.cart(), ["Apples", "Pears"]);
    plain.submit("ul#cart li:first-child form[action='/cart/remove']", &[]);
    assert_eq!(plain.cart(), ["Pears"]);
    // Nothing says that it is connecting, because nothing is.
    assert_eq!(plain.texts("#live"), [""; 0]);
    other.log_in(&shop, &user);
    assert_eq!(plain.devices().len(), 2);
    plain.submit("li.device:not(.this) form[action='/devices/end']", &[]);
    assert_eq!(plain.listed().len(), 1);
    other.follow("a[href='/devices']");
    other.go_back_from_error();
    other.check_user(None);
    plain.submit(LOGOUT, &[]);
    plain.check_user(None);
    assert_eq!(plain.cart(), [""; 0]);
}
