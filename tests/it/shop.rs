//! The example `shop` as a real process, driven over HTTP as a browser does it: it follows redirects, and sends the
//! hidden fields of the page that it has loaded. The promise: each route does what its page says, on restarts too, and
//! each refusal is a page with a way back.
use crate::examples::{check_small_screens, check_way_back, fresh};
use crate::support::client::{Browser, Client, Example, Response};
use crate::support::waiting::eventually;
use std::ffi::OsStr;
use std::time::Duration;

type Form<'a> = &'a [(&'a str, &'a str)];

/// A browser on the shop, with the page that it shows.
#[derive(Clone)]
pub(crate) struct Visitor {
    pub(crate) browser: Browser,
    /// The hidden field of the forms of that page; of an earlier page, if that one has none.
    pub(crate) csrf: String,
    /// The HTML of that page.
    pub(crate) page: String,
}

impl Visitor {
    pub(crate) fn new(shop: &Example) -> Self {
        Self::of(&Browser::new(shop.server))
    }

    /// A visitor with this browser's cookies, on the front page.
    pub(crate) fn of(browser: &Browser) -> Self {
        let mut visitor = Self { browser: browser.clone(), csrf: String::new(), page: String::new() };
        visitor.get("/");
        visitor
    }

    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Response {
        let response = self.browser.get(path);
        self.show(&response);
        response
    }

    /// Sends a form of the page, and does not follow the redirect.
    #[track_caller]
    pub(crate) fn post(&mut self, path: &str, form: Form<'_>) -> Response {
        let csrf = self.csrf.clone();
        let form: Vec<_> = form.iter().copied().chain([("csrf", &*csrf)]).collect();
        let response = self.browser.post(path, &form);
        self.show(&response);
        response
    }

    /// Sends a form of the page, which is accepted, and loads the page behind the redirect.
    #[track_caller]
    pub(crate) fn submit(&mut self, path: &str, form: Form<'_>, next: &str) {
        let response = self.post(path, form);
        assert_eq!((response.status, response.all("Location")), (303, vec![next]), "{}", response.text());
        assert_eq!(self.get(next).status, 200, "{next}");
    }

    #[track_caller]
    pub(crate) fn log_in(&mut self, user: &str) {
        self.submit("/login", &[("user", user)], "/");
    }

    fn show(&mut self, response: &Response) {
        response.text().clone_into(&mut self.page);
        if let Some(csrf) = between(&self.page, "name=\"csrf\" value=\"", "\"") {
            self.csrf = csrf.to_owned();
        }
    }

    /// The user's name on the page, as HTML.
    pub(crate) fn user(&self) -> Option<&str> {
        between(&self.page, "<strong id=\"user\">", "</strong>")
    }

    /// The items of the cart on the page: the HTML of their names, and the field of their forms.
    fn items(&self) -> Vec<(&str, &str)> {
        let Some(list) = between(&self.page, "<ul id=\"cart\"", "</ul>") else { return Vec::new() };
        let item = |line| {
            let name = between(line, "class=\"name\">", "</span>").unwrap();
            (name, between(line, "name=\"item\" value=\"", "\"").unwrap())
        };
        list.split("<li>").skip(1).map(item).collect()
    }

    /// The messages on the page.
    fn flash(&self) -> Vec<&str> {
        let Some(messages) = between(&self.page, "<div id=\"flash\"", "</div>") else { return Vec::new() };
        messages.split("<p>").skip(1).map(|message| message.split("</p>").next().unwrap()).collect()
    }

    /// The public id of the session, as the page shows it.
    pub(crate) fn session(&self) -> String {
        between(&self.page, "id=\"session-id\" data-id=\"", "\"").expect("a box").to_owned()
    }

    /// The devices on the page of devices: the public id, the text, and whether it is this one.
    #[track_caller]
    fn devices(&mut self) -> Vec<(String, String, bool)> {
        assert_eq!(self.get("/devices").status, 200, "{}", self.page);
        let device = |line: &str| {
            let id = between(line, "data-id=\"", "\"").unwrap().to_owned();
            let name = between(line, "class=\"name\">", "</p>").unwrap();
            let form = format!("name=\"id\" value=\"{id}\"");
            assert!(line.contains("action=\"/devices/end\"") && line.contains(&form), "{line}");
            (id, name.split(" <span").next().unwrap().to_owned(), line.starts_with(" this\""))
        };
        self.page.split("<li class=\"device").skip(1).map(device).collect()
    }

    /// Loads the front page, and asserts the user and the cart that it shows, as HTML.
    #[track_caller]
    pub(crate) fn check(&mut self, user: Option<&str>, cart: &[&str]) {
        let page = self.get("/");
        assert_eq!(page.status, 200);
        assert_eq!(page.all("Content-Type"), ["text/html; charset=utf-8"]);
        let names: Vec<_> = self.items().into_iter().map(|(name, _)| name).collect();
        assert_eq!((self.user(), &*names), (user, cart), "{}", self.page);
    }
}

fn between<'a>(text: &'a str, before: &str, behind: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(behind).map(|(inner, _)| inner)
}

/// A shop on a new store, for as long as the test runs.
pub(crate) fn open(args: &[&str]) -> (Example, tempfile::TempDir) {
    let (parent, dir) = fresh();
    (Example::start_with("shop", &dir, args), parent)
}

#[test]
fn shop_keeps_user_and_cart_after_a_kill() {
    let (_parent, dir) = fresh();
    let shop = Example::start("shop", &dir);
    let mut visitor = Visitor::new(&shop);
    visitor.check(None, &[]);
    visitor.submit("/cart", &[("item", "apple")], "/");
    let guest = visitor.browser.jar.get("shop").unwrap().to_owned();
    visitor.log_in("Ada Lovelace");
    let user = visitor.browser.jar.get("shop").unwrap().to_owned();
    assert_ne!(guest, user, "a login gives a new id");
    visitor.submit("/cart", &[("item", "bread")], "/");
    visitor.check(Some("Ada Lovelace"), &["apple", "bread"]);
    shop.kill();

    let shop = Example::start("shop", &dir);
    visitor.browser.server = shop.server;
    visitor.check(Some("Ada Lovelace"), &["apple", "bread"]);
    visitor.submit("/cart", &[("item", "cheese")], "/");
    visitor.check(Some("Ada Lovelace"), &["apple", "bread", "cheese"]);
    let mut thief = Visitor::new(&shop);
    thief.browser.jar.put("shop", &guest);
    thief.check(None, &[]);

    // Another user logs in on the same browser, and gets an empty cart.
    visitor.log_in("Ben");
    visitor.check(Some("Ben"), &[]);
    let logged_out = visitor.browser.jar.get("shop").unwrap().to_owned();
    visitor.submit("/logout", &[], "/");
    assert_eq!(visitor.flash(), ["You are logged out."]);
    visitor.check(None, &[]);
    shop.kill();

    let shop = Example::start("shop", &dir);
    let mut thief = Visitor::new(&shop);
    for id in [&guest, &user, &logged_out] {
        thief.browser.jar.put("shop", id);
        thief.check(None, &[]);
    }
    shop.kill();
}

#[test]
fn shop_gives_no_session_to_a_visitor_without_a_form() {
    let (shop, _parent) = open(&[]);
    let mut browser = Browser::new(shop.server);
    for (path, status) in [
        ("/status", 200),
        ("/live", 200),
        ("/style.css", 200),
        ("/shop.js", 200),
        ("/icon.svg", 200),
        ("/devices", 403),
        ("/confirm", 403),
        ("/nowhere", 404),
    ] {
        let response = browser.get(path);
        assert_eq!((response.status, response.all("Set-Cookie")), (status, vec![]), "{path}");
    }
    assert_eq!(browser.get("/status").text(), r#"{"user":null,"id":null,"expiry":null}"#);
    // A form needs a token, and a token needs a session.
    assert!(
        browser.get("/").all("Set-Cookie")[0].contains("Max-Age=3600;"),
        "an hour, for one who has come once"
    );
    shop.kill();
}

#[test]
fn shop_escapes_what_visitors_type() {
    let (shop, _parent) = open(&[]);
    let mut visitor = Visitor::new(&shop);
    visitor.browser.headers = "User-Agent: <b>\"Opera\"</b>/1\r\n".into();
    visitor.log_in("<img src=x onerror=\"alert('x')\">");
    let user = "&lt;img src=x onerror=&quot;alert(&#39;x&#39;)&quot;&gt;";
    assert_eq!(visitor.flash(), [format!("Welcome, {user}.")]);
    visitor.submit("/cart", &[("item", "</p><script>alert(1)</script>")], "/");
    let script = "&lt;/p&gt;&lt;script&gt;alert(1)&lt;/script&gt;";
    assert_eq!(visitor.flash(), [format!("{script} is in your cart.")]);
    visitor.submit("/cart", &[("item", "&lt; tea & \"biscuits\" 日本")], "/");
    visitor.check(Some(user), &[script, "&amp;lt; tea &amp; &quot;biscuits&quot; 日本"]);
    for path in ["/", "/devices", "/confirm"] {
        let page = visitor.get(path).text().to_owned();
        for raw in ["<script>", "<img", "<b>"] {
            assert!(!page.contains(raw), "{raw} in {path}: {page}");
        }
        assert!(page.contains(user), "{path}");
    }
    assert_eq!(visitor.devices()[0].1, "&lt;b&gt;&quot;Opera&quot;&lt;");
    assert_eq!(visitor.get("/status").all("Content-Type"), ["application/json; charset=utf-8"]);
    shop.kill();
}

#[test]
fn shop_refuses_bad_forms_and_goes_on() {
    let (shop, _parent) = open(&[]);
    let mut visitor = Visitor::new(&shop);
    visitor.submit("/cart", &[("item", "apple")], "/");
    let long = "x".repeat(201);
    let huge = "x".repeat(5000);
    let cases: [(&str, Form<'_>, u16); 13] = [
        ("/cart", &[("thing", "apple")], 400),
        ("/cart", &[("item", "")], 400),
        ("/cart", &[("item", " \t ")], 400),
        ("/cart", &[("item", "a"), ("item", "b")], 400),
        ("/cart", &[("item", &long)], 400),
        ("/cart", &[("item", &huge)], 413),
        ("/cart", &[("item", "a"), ("more", &huge)], 413),
        ("/cart/remove", &[("item", "apple")], 400),
        ("/cart/remove", &[("item", "-1")], 400),
        ("/cart/remove", &[], 400),
        ("/login", &[("item", "apple")], 400),
        ("/login", &[("user", "")], 400),
        ("/nowhere", &[("item", "a")], 404),
    ];
    for (path, form, status) in cases {
        check_way_back(&visitor.post(path, form), status);
    }
    check_way_back(&visitor.browser.post("/cart", &[]), 411);
    // The body is not a form, or has no length.
    let cookie = visitor.browser.jar.header().unwrap();
    for (headers, body, status) in [
        ("Content-Type: text/plain\r\nContent-Length: 6\r\n", "item=a", 400),
        (
            "Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n",
            "6\r\nitem=a\r\n0\r\n\r\n",
            411,
        ),
    ] {
        let mut client = Client::connect(shop.server);
        client
            .send(format!("POST /cart HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\n{headers}\r\n{body}"))
            .unwrap();
        assert_eq!(client.receive().unwrap().status, status, "{headers}");
    }
    visitor.check(None, &["apple"]);
    // The cart has a size limit. Items beyond it are dropped, and the others are saved.
    for n in 1..50 {
        assert_eq!(visitor.post("/cart", &[("item", &n.to_string())]).status, 303);
    }
    check_way_back(&visitor.post("/cart", &[("item", "one more")]), 400);
    visitor.get("/");
    assert_eq!((visitor.items().len(), visitor.items()[49].0), (50, "49"));
    shop.kill();
}

#[test]
fn shop_refuses_each_form_without_the_token_of_its_session() {
    let (shop, _parent) = open(&[]);
    let mut other = Visitor::new(&shop);
    other.log_in("Ada");
    let mut visitor = Visitor::new(&shop);
    visitor.log_in("Ada");
    visitor.submit("/cart", &[("item", "apple")], "/");
    let item = visitor.items()[0].1.to_owned();
    let id = other.session();
    let forms: [(&str, (&str, &str)); 8] = [
        ("/login", ("user", "Mallory")),
        ("/logout", ("more", "")),
        ("/cart", ("item", "bread")),
        ("/cart/remove", ("item", &item)),
        ("/devices/end", ("id", &id)),
        ("/devices/end-others", ("more", "")),
        ("/account/close", ("more", "")),
        ("/confirm", ("user", "Ada")),
    ];
    let right = visitor.csrf.clone();
    for (path, field) in forms {
        let theirs = other.csrf.clone();
        for csrf in ["", "0", &theirs, &right[1..]] {
            check_way_back(&visitor.browser.post(path, &[field, ("csrf", csrf)]), 403);
        }
        check_way_back(&visitor.browser.post(path, &[field]), 403);
        check_way_back(&visitor.browser.post(path, &[field, ("csrf", &right), ("csrf", &right)]), 403);
    }
    visitor.check(Some("Ada"), &["apple"]);
    other.check(Some("Ada"), &[]);
    // A page from before a login sends no form in the name of the user.
    let mut earlier = visitor.clone();
    visitor.log_in("Ben");
    earlier.browser.jar = visitor.browser.jar.clone();
    check_way_back(&earlier.post("/cart", &[("item", "forged")]), 403);
    visitor.check(Some("Ben"), &[]);
    shop.kill();
}

#[test]
fn shop_accepts_a_login_that_was_pressed_twice() {
    let (shop, _parent) = open(&[]);
    let mut visitor = Visitor::new(&shop);
    visitor.submit("/cart", &[("item", "apple")], "/");
    // The second request leaves before the answer of the first, with the same cookie and the same form.
    let mut again = visitor.clone();
    visitor.log_in("Ada");
    check_way_back(&again.clone().post("/login", &[("user", "Ada")]), 403);
    // Another page that was on its way says so. It stores nothing, and can log in.
    let mut beside = again.clone();
    beside.check(None, &[]);
    assert!(beside.flash()[0].starts_with("You have just logged in"), "{}", beside.page);
    again.browser.headers = "Origin: http://elsewhere.example\r\n".into();
    check_way_back(&again.clone().post("/login", &[("user", "Ada")]), 403);
    again.browser.headers = "Origin: http://test\r\n".into();
    again.log_in("Ada");
    again.check(Some("Ada"), &["apple"]);
    // A logout that was pressed twice has no error either.
    let mut twice = again.clone();
    again.submit("/logout", &[], "/");
    twice.submit("/logout", &[], "/");
    twice.check(None, &[]);
    shop.kill();
}

#[test]
fn shop_shows_each_message_once() {
    let (shop, _parent) = open(&[]);
    let mut visitor = Visitor::new(&shop);
    assert_eq!(visitor.post("/cart", &[("item", "apple")]).status, 303);
    assert_eq!(visitor.post("/cart", &[("item", "bread")]).status, 303);
    // Neither the poll nor an error page takes them.
    visitor.get("/status");
    visitor.get("/nowhere");
    visitor.get("/");
    assert_eq!(visitor.flash(), ["apple is in your cart.", "bread is in your cart."]);
    visitor.get("/");
    assert!(!visitor.page.contains("id=\"flash\""), "{}", visitor.page);
    shop.kill();
}

#[test]
fn shop_removes_one_item_for_a_double_click() {
    let (shop, _parent) = open(&[]);
    let mut visitor = Visitor::new(&shop);
    for item in ["apple", "apple", "bread"] {
        visitor.submit("/cart", &[("item", item)], "/");
    }
    assert!(visitor.page.contains("3 items<"), "{}", visitor.page);
    let first = visitor.items()[0].1.to_owned();
    for _ in 0..2 {
        assert_eq!(visitor.post("/cart/remove", &[("item", &first)]).status, 303);
    }
    visitor.get("/");
    assert_eq!(visitor.flash(), ["apple is no longer in your cart."]);
    visitor.check(None, &["apple", "bread"]);
    let second = visitor.items()[0].1.to_owned();
    visitor.submit("/cart/remove", &[("item", &second)], "/");
    visitor.check(None, &["bread"]);
    assert!(visitor.page.contains("1 item<"), "{}", visitor.page);
    // A new item has a number of its own, so an old page does not remove it.
    visitor.submit("/cart", &[("item", "cheese")], "/");
    visitor.submit("/cart/remove", &[("item", &second)], "/");
    visitor.check(None, &["bread", "cheese"]);
    shop.kill();
}

#[test]
fn shop_lists_a_users_devices_and_ends_one_elsewhere() {
    let (_parent, dir) = fresh();
    let [here, there] = [(); 2].map(|()| Example::start("shop", &dir));
    let mut laptop = Visitor::new(&here);
    laptop.browser.headers = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0\r\n".into();
    laptop.log_in("Ada");
    assert_eq!(laptop.devices(), [(laptop.session(), "Firefox on Linux".into(), true)]);
    assert!(laptop.page.contains("no other device") && !laptop.page.contains("/devices/end-others"));
    let mut phone = Visitor::new(&there);
    phone.browser.headers = "User-Agent: Mozilla/5.0 (iPhone) Version/18.0 Safari/604.1\r\n".into();
    phone.log_in("Ada");
    let of_phone = phone.session();
    let listed = laptop.devices();
    assert_eq!(listed[0], (laptop.session(), "Firefox on Linux".into(), true));
    assert_eq!(listed[1..], [(of_phone.clone(), "Safari on iPhone".into(), false)]);
    assert!(laptop.page.contains("2 devices<"));

    laptop.submit("/devices/end", &[("id", &of_phone)], "/devices");
    assert_eq!(laptop.flash(), ["The device is logged out."]);
    check_way_back(&phone.get("/devices"), 403);
    phone.check(None, &[]);
    assert_eq!(laptop.devices().len(), 1);
    laptop.submit("/devices/end", &[("id", &of_phone)], "/devices");
    assert_eq!(laptop.flash(), ["That device is logged out already."]);
    check_way_back(&laptop.post("/devices/end", &[("id", "no id")]), 400);

    // The page's own device: a logout.
    let own = laptop.session_of_devices();
    laptop.submit("/devices/end", &[("id", &own)], "/");
    assert_eq!(laptop.flash(), ["You are logged out."]);
    laptop.check(None, &[]);
    here.kill();
    there.kill();
}

impl Visitor {
    /// The public id of the session, from the page of devices.
    fn session_of_devices(&mut self) -> String {
        self.get("/devices");
        self.session()
    }
}

#[test]
fn shop_lets_no_user_end_the_device_of_another() {
    let (shop, _parent) = open(&[]);
    let mut ada = Visitor::new(&shop);
    ada.log_in("Ada");
    let mut mallory = Visitor::new(&shop);
    mallory.log_in("Mallory");
    let id = ada.session();
    mallory.submit("/devices/end", &[("id", &id)], "/devices");
    assert_eq!(mallory.flash(), ["That device is logged out already."]);
    mallory.submit("/devices/end-others", &[], "/devices");
    ada.check(Some("Ada"), &[]);
    // A guest ends nothing at all.
    let mut guest = Visitor::new(&shop);
    for (path, form) in
        [("/devices/end", &[("id", &*id)][..]), ("/devices/end-others", &[]), ("/account/close", &[])]
    {
        check_way_back(&guest.post(path, form), 403);
    }
    ada.check(Some("Ada"), &[]);
    shop.kill();
}

#[test]
fn shop_ends_all_other_devices() {
    let (shop, _parent) = open(&[]);
    let mut visitors: Vec<_> = (0..3).map(|_| Visitor::new(&shop)).collect();
    for visitor in &mut visitors {
        visitor.log_in("Ada");
    }
    assert_eq!(visitors[0].devices().len(), 3);
    visitors[0].submit("/devices/end-others", &[], "/devices");
    assert_eq!(visitors[0].flash(), ["All other devices are logged out."]);
    assert_eq!(visitors[0].devices().len(), 1);
    for (n, visitor) in visitors.iter_mut().enumerate() {
        visitor.check((n == 0).then_some("Ada"), &[]);
    }
    shop.kill();
}

#[test]
fn shop_names_the_browser_and_the_system_of_a_device() {
    let (shop, _parent) = open(&[]);
    let windows = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)";
    let cases = [
        (format!("{windows} Chrome/140.0.0.0 Safari/537.36"), "Chrome on Windows"),
        (format!("{windows} Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0"), "Edge on Windows"),
        (format!("{windows} Chrome/139.0.0.0 Safari/537.36 OPR/120.0"), "Opera on Windows"),
        (
            "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/140.0 Mobile".into(),
            "Chrome on Android",
        ),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/18 Safari/605".into(), "Safari on macOS"),
        ("Mozilla/5.0 (iPad; CPU OS 18_0 like Mac OS X) FxiOS/140 Safari/605".into(), "Firefox on iPad"),
        ("curl/8.14.1".into(), "curl"),
        ("x".repeat(100), &"x".repeat(40)),
        (String::new(), "Unknown browser"),
    ];
    let mut visitor = Visitor::new(&shop);
    for (agent, note) in &cases {
        visitor.browser.headers = format!("User-Agent: {agent}\r\n");
        visitor.log_in("Ada");
        let this = visitor.devices().into_iter().find(|(_, _, this)| *this);
        assert_eq!(this.unwrap().1, *note, "{agent}");
    }
    visitor.browser.headers.clear();
    visitor.log_in("Ada");
    assert_eq!(visitor.devices()[0].1, "Unknown browser");
    shop.kill();
}

#[test]
fn shop_closes_the_account_on_all_devices() {
    let (shop, _parent) = open(&[]);
    let mut visitors: Vec<_> = (0..2).map(|_| Visitor::new(&shop)).collect();
    for visitor in &mut visitors {
        visitor.log_in("Ada");
        visitor.submit("/cart", &[("item", "apple")], "/");
    }
    let copied = visitors[0].browser.jar.clone();
    visitors[0].get("/devices");
    visitors[0].submit("/account/close", &[], "/");
    assert_eq!(
        visitors[0].flash(),
        ["Your account is closed: the cart is empty, and all devices are logged out."]
    );
    for visitor in &mut visitors {
        visitor.check(None, &[]);
    }
    visitors[0].browser.jar = copied;
    visitors[0].check(None, &[]);
    shop.kill();
}

#[test]
fn shop_asks_for_a_fresh_login_before_it_closes_the_account() {
    let (shop, _parent) = open(&["--fresh", "1"]);
    let mut visitor = Visitor::new(&shop);
    visitor.log_in("Ada");
    visitor.submit("/cart", &[("item", "apple")], "/");
    // Activity does not make a login fresh.
    std::thread::sleep(Duration::from_millis(1100));
    visitor.get("/devices");
    visitor.submit("/account/close", &[], "/confirm");
    assert!(
        visitor.page.contains("<main data-page=\"confirm\"") && visitor.page.contains("action=\"/confirm\"")
    );
    let wrong = visitor.post("/confirm", &[("user", "Ben")]);
    assert_eq!(wrong.status, 403);
    assert!(visitor.page.contains("role=\"alert\"") && visitor.page.contains("href=\"/devices\""));
    // It is not a login: the account still cannot be closed.
    visitor.submit("/account/close", &[], "/confirm");
    let before = visitor.browser.jar.get("shop").unwrap().to_owned();
    visitor.submit("/confirm", &[("user", "Ada")], "/devices");
    assert_ne!(visitor.browser.jar.get("shop").unwrap(), before, "a login gives a new id");
    visitor.check(Some("Ada"), &["apple"]);
    // On a slow machine the second is over before the next request.
    eventually("close the account", || {
        let closed = visitor.post("/account/close", &[]).all("Location") == ["/"];
        if !closed {
            visitor.get("/confirm");
            visitor.submit("/confirm", &[("user", "Ada")], "/devices");
        }
        closed
    });
    visitor.check(None, &[]);
    shop.kill();
}

#[test]
fn shop_status_does_not_keep_a_session_alive() {
    let (shop, _parent) = open(&["--age", "2"]);
    let mut visitor = Visitor::new(&shop);
    visitor.log_in("Ada");
    let id = visitor.session();
    let now = visitor.browser.get("/status");
    assert_eq!(now.all("Cache-Control"), ["no-store"]);
    let parts = [format!(r#"{{"user":"Ada","id":"{id}","expiry":"in "#), "second".into()];
    assert!(parts.iter().all(|part| now.text().contains(part)), "{}", now.text());
    eventually("the session of a page that polls expires", || {
        visitor.browser.get("/status").text().starts_with(r#"{"user":null,"#)
    });
    visitor.check(None, &[]);
    shop.kill();
}

#[test]
fn shop_sends_strict_headers_with_every_response() {
    let (shop, _parent) = open(&[]);
    let mut visitor = Visitor::new(&shop);
    visitor.log_in("Ada");
    let files = ["/style.css", "/shop.js", "/icon.svg"];
    for path in ["/", "/devices", "/confirm", "/nowhere", "/status"].into_iter().chain(files) {
        let response = visitor.get(path);
        let [policy] = *response.all("Content-Security-Policy") else { panic!("{path}: {response:?}") };
        for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(part) && !policy.contains("unsafe"), "{path}: {policy}");
        }
        assert_eq!(response.all("Referrer-Policy"), ["same-origin"], "{path}");
        assert_eq!(response.all("X-Content-Type-Options"), ["nosniff"], "{path}");
        let is_page = response.all("Content-Type") == ["text/html; charset=utf-8"];
        let caching = if files.contains(&path) { "no-cache" } else { "no-store" };
        assert_eq!(response.all("Cache-Control"), [caching], "{path}");
        if is_page {
            check_small_screens(&response);
            let page = response.text();
            assert_eq!(
                page.matches("<script").count(),
                page.matches("<script src=\"/shop.js\"").count(),
                "{path}"
            );
            assert!(
                !page.contains("<style") && !page.contains(" style=") && !page.contains(" onclick"),
                "{path}"
            );
            let [forms, tokens] =
                ["<form ", "type=\"hidden\" name=\"csrf\""].map(|part| page.matches(part).count());
            assert_eq!(forms, tokens, "{path}: a form without a token");
        }
    }
    // A file that has not changed is not sent again.
    let tag = visitor.get("/style.css").all("ETag")[0].to_owned();
    visitor.browser.headers = format!("If-None-Match: {tag}\r\n");
    assert_eq!(visitor.browser.get("/style.css").status, 304);
    shop.kill();
}

#[test]
fn shop_runs_on_a_store_in_memory() {
    let shop = Example::run("shop", ["--store", "memory:"].map(OsStr::new));
    let mut visitor = Visitor::new(&shop);
    visitor.log_in("Ada");
    visitor.submit("/cart", &[("item", "apple")], "/");
    assert!(visitor.page.contains("<code id=\"session-store\">memory:</code>"), "{}", visitor.page);
    assert_eq!(visitor.devices().len(), 1);
    visitor.submit("/account/close", &[], "/");
    visitor.check(None, &[]);
    shop.kill();
}

#[test]
fn shop_refuses_options_that_contradict_each_other() {
    for args in
        [&["--store", "memory:", "--dir", "x"][..], &["--fresh", "0"], &["--store", "postgres://h/d"], &["x"]]
    {
        let output = std::process::Command::new(Example::program("shop")).args(args).output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{args:?}: {output:?}");
    }
}

/// Browsers keep several connections open, and tiny_http leaves one of those that begin together waiting now and then.
#[test]
fn shop_answers_connections_that_begin_together_and_stay_open() {
    let (shop, _parent) = open(&[]);
    for _ in 0..40 {
        let mut clients: Vec<_> = (0..8).map(|_| Client::connect(shop.server)).collect();
        for client in &mut clients {
            client.send("GET /status HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        }
        for client in &mut clients {
            assert_eq!(client.receive().expect("an answer").status, 200);
        }
    }
    shop.kill();
}

#[test]
fn shop_apologises_with_a_way_back_when_its_store_is_gone() {
    let (_parent, dir) = fresh();
    let shop = Example::start("shop", &dir);
    let mut known = Visitor::new(&shop);
    known.submit("/cart", &[("item", "apple")], "/");
    std::fs::remove_dir_all(&dir).unwrap();
    // One request's session cannot be loaded, the other's cannot be created.
    let page = known.post("/cart", &[("item", "bread")]);
    check_way_back(&page, 500);
    assert!(
        !page.text().contains("failed"),
        "the page shows the reason, which is for the operator: {}",
        page.text()
    );
    check_way_back(&Browser::new(shop.server).get("/"), 500);
    shop.kill();
}
