//! Every page by the keyboard, on a narrow screen and in the dark; and pictures of them all.
use super::{Scenarios, scenarios};
use crate::browser::Browser;
use crate::pages::{LOGIN, LOGOUT};
use crate::shop::Shop;
use crate::stage::Stage;
use fantoccini::key::Key;
use serde_json::Value;

pub(super) const SCENARIOS: Scenarios = scenarios![
    every_page_fits_and_can_be_read_in_light_and_dark,
    the_keyboard_reaches_each_form_with_a_visible_focus,
];

/// The longest item, without a place where a line could break.
const LONG: &str = "WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW";

/// Shows every page of the shop, one after another, by name.
#[track_caller]
fn each_page(browser: &Browser, shop: &Shop, user: &str, mut look: impl FnMut(&str)) {
    // Another device of the user.
    browser.log_in(shop, user);
    browser.set_cookies(&[]);
    browser.open(shop);
    look("guest");
    for item in ["Apples", "Pears", LONG] {
        browser.add(item);
    }
    browser.submit(LOGIN, &[("user", user)]);
    assert_eq!((browser.cart().len(), browser.messages().len()), (3, 1));
    look("shop");
    assert_eq!(browser.devices().len(), 2);
    look("devices");
    browser.goto(&shop.url("/confirm"));
    browser.check_page("confirm");
    look("confirm");
    browser.goto(&shop.url("/nowhere"));
    browser.check_page("error");
    look("error");
}

/// The texts of the page with too little contrast, as [text, ratio, colour, ground].
const PALE: &str = "
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    // A colour in any notation, as bytes with the opacity from 0 to 1.
    const bytes = colour => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = ([r, g, b, a], ground) => [r, g, b].map((c, i) => c * a + ground[i] * (1 - a));
    const dark = matchMedia('(prefers-color-scheme: dark)').matches;
    const ground = element => element
        ? over(bytes(getComputedStyle(element).backgroundColor), ground(element.parentElement))
        : dark ? [18, 18, 18] : [255, 255, 255];
    const light = colour => {
        const [r, g, b] = colour.map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
    const found = [];
    let texts = 0;
    const check = (element, style, text) => {
        texts += 1;
        const below = ground(element);
        const contrast = ratio(over(bytes(style.color), below), below);
        const size = parseFloat(style.fontSize), bold = style.fontWeight >= 700;
        const least = size >= 24 || bold && size >= 18.66 ? 3 : 4.5;
        if (contrast < least) found.push([text, contrast.toFixed(2), style.color, below.map(Math.round).join()]);
    };
    for (const element of document.body.querySelectorAll('*')) {
        if (!element.checkVisibility()) continue;
        const text = [...element.childNodes].filter(n => n.nodeType === Node.TEXT_NODE).map(n => n.data.trim()).join(' ').trim();
        if (text) check(element, getComputedStyle(element), text);
        if (element.placeholder) check(element, getComputedStyle(element, '::placeholder'), element.placeholder);
    }
    if (texts < 5) throw new Error(`only ${texts} texts`);
    return found;";

fn every_page_fits_and_can_be_read_in_light_and_dark(stage: &Stage<'_>) {
    let shop = stage.shop(&[]);
    let browser = stage.browser();
    each_page(&browser, &shop, &stage.user(), |page| {
        for (width, height) in [(1280, 900), (390, 844)] {
            browser.resize(width, height);
            for scheme in ["light", "dark"] {
                browser.prefer(scheme);
                let case = format!("{page}-{width}-{scheme}");
                let pale = browser.script(PALE, &[]);
                assert_eq!(pale, Value::Array(Vec::new()), "{case}");
                let sizes =
                    "const page = document.documentElement; return [page.scrollWidth, page.scrollHeight]";
                let size: (u64, u64) =
                    serde_json::from_value(browser.script(sizes, &[])).expect("two numbers");
                assert_eq!(size.0, width, "{case} must be scrolled sideways");
                browser.resize(width, size.1);
                browser.picture(&case);
                browser.resize(width, height);
            }
        }
        browser.resize(1280, 900);
        browser.prefer("light");
    });
}

/// The element with the focus, as [its form's action, whether the page shows the focus, whether it stands behind the
/// element before]; `null` if none has it or one has it again.
const FOCUSED: &str = "
    const focused = document.activeElement;
    window.visited ??= [];
    if (focused === document.body || window.visited.includes(focused)) return null;
    const before = window.visited.at(-1);
    window.visited.push(focused);
    const style = getComputedStyle(focused);
    const box = focused.getBoundingClientRect();
    const inOrder = !before || !!(before.compareDocumentPosition(focused) & Node.DOCUMENT_POSITION_FOLLOWING);
    const isVisible = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1 && box.width > 0 && box.height > 0;
    return [focused.form?.getAttribute('action') ?? '', isVisible, inOrder, focused.outerHTML];";

/// An element that the tabulator key has reached.
type Focused = (String, bool, bool, String);

/// Presses the tabulator key. Returns the element that has the focus; `None` at the end of the page.
#[track_caller]
fn tab(browser: &Browser) -> Option<Focused> {
    browser.press(Key::Tab);
    serde_json::from_value(browser.script(FOCUSED, &[])).expect("an element or null")
}

/// Goes on until an element of this form has the focus.
#[track_caller]
fn tab_to(browser: &Browser, form: &str) {
    while let Some((action, ..)) = tab(browser) {
        if action == form {
            return;
        }
    }
    panic!("the tabulator key does not reach {form}");
}

fn the_keyboard_reaches_each_form_with_a_visible_focus(stage: &Stage<'_>) {
    let user = stage.user();
    let shop = stage.shop(&[]);
    let browser = stage.browser();
    each_page(&browser, &shop, &user, |page| {
        let mut forms = browser.attributes("form", "action");
        forms.dedup();
        let mut reached = Vec::new();
        while let Some((form, is_visible, is_in_order, html)) = tab(&browser) {
            assert!(is_visible, "{page}: the focus cannot be seen on {html}");
            assert!(is_in_order, "{page}: out of order: {html}");
            if !form.is_empty() && reached.last() != Some(&form) {
                reached.push(form);
            }
        }
        assert_eq!(reached, forms, "{page}");
    });
    // A login and a logout without a mouse.
    browser.set_cookies(&[]);
    browser.open(&shop);
    tab_to(&browser, "/login");
    browser.type_text(&user);
    browser.leave("the login", || browser.press(Key::Enter));
    browser.check_user(Some(&user));
    tab_to(&browser, "/logout");
    browser.leave("the logout", || browser.press(Key::Enter));
    browser.check_user(None);
    assert!(!browser.has(LOGOUT));
}
