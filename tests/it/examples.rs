//! The example programs as real processes that are killed with SIGKILL and restarted. The promise: after the restart,
//! acknowledged changes are there, under the cookie that the browser has.
use crate::support::client::{Browser, Client, Example, PATIENCE, Response};
use crate::support::cookie_jar::Jar;
use crate::support::texts::{files_in_shards, path_of};
use sessile::SessionId;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A new directory, and the path of a store in it that the program will create.
fn fresh() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("sessions");
    (parent, dir)
}

#[track_caller]
fn check_visits(browser: &mut Browser, want: u64) {
    let page = browser.get("/");
    assert_eq!(page.status, 200);
    assert!(page.text().contains(&format!("<h1>visits: {want}</h1>")), "not {want}: {}", page.text());
}

#[test]
fn visits_goes_on_counting_after_a_kill() {
    let (_parent, dir) = fresh();
    let visits = Example::start("visits", &dir);
    let mut browser = Browser::new(visits.server);
    for n in 1..=5 {
        check_visits(&mut browser, n);
    }
    let id = browser.jar.get("visits").unwrap().to_owned();
    visits.kill();

    let visits = Example::start("visits", &dir);
    browser.server = visits.server;
    check_visits(&mut browser, 6);
    assert_eq!(browser.jar.get("visits"), Some(&*id), "the same session");
    // The visits of two browsers are counted separately.
    check_visits(&mut Browser::new(visits.server), 1);
    visits.kill();
}

#[test]
fn visits_forgets_on_request_also_after_a_restart() {
    let (_parent, dir) = fresh();
    let visits = Example::start("visits", &dir);
    let mut browser = Browser::new(visits.server);
    check_visits(&mut browser, 1);
    check_visits(&mut browser, 2);
    let forgotten = browser.jar.get("visits").unwrap().to_owned();
    // Loading the page with the button changes nothing. Only the button resets the count.
    let page = browser.get("/reset");
    assert!(page.text().contains(r#"<form method="post" action="/reset"><button>"#), "{}", page.text());
    assert_eq!(page.all("Set-Cookie"), [""; 0]);
    check_visits(&mut browser, 3);
    assert_eq!(browser.jar.get("visits"), Some(&*forgotten));
    let page = browser.post("/reset", &[]);
    assert_eq!((page.status, page.all("Location")), (303, vec!["/forgotten"]));
    assert_eq!(
        page.all("Set-Cookie"),
        ["visits=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"]
    );
    assert!(browser.get("/forgotten").text().contains("forgotten"));
    assert_eq!(browser.jar.header(), None);
    check_visits(&mut browser, 1);
    assert_ne!(browser.jar.get("visits"), Some(&*forgotten));
    visits.kill();

    let visits = Example::start("visits", &dir);
    let mut thief = Browser::new(visits.server);
    thief.jar.put("visits", &forgotten);
    check_visits(&mut thief, 1);
    assert_ne!(thief.jar.get("visits"), Some(&*forgotten), "a new id");
    visits.kill();
}

#[test]
fn visits_answers_a_page_it_does_not_have_without_a_session() {
    let (_parent, dir) = fresh();
    let visits = Example::start("visits", &dir);
    let page = Browser::new(visits.server).get("/nowhere");
    assert_eq!((page.status, page.all("Set-Cookie"), page.all("Vary")), (404, vec![], vec![]));
}

/// The path of the file of a browser's session.
#[track_caller]
fn file_of(dir: &Path, cookie: &str, browser: &Browser) -> PathBuf {
    let id = SessionId::parse(browser.jar.get(cookie).expect("a cookie")).unwrap();
    path_of(dir, id.public_id())
}

#[track_caller]
fn check_vanishes(file: &Path) {
    let began = Instant::now();
    while file.exists() {
        assert!(began.elapsed() < PATIENCE, "{} is still there", file.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asserts that a session that expires after a second is removed from the disk while the program serves others.
#[track_caller]
fn check_sweeps(name: &str, store: impl Fn(&mut Browser), check_new: impl Fn(&mut Browser)) {
    let (_parent, dir) = fresh();
    // An earlier run of the program stores a session that lives for an hour.
    let example = Example::start_with(name, &dir, &["--age", "3600"]);
    let mut lives = Browser::new(example.server);
    store(&mut lives);
    let lives = file_of(&dir, name, &lives);
    example.kill();

    let example = Example::start_with(name, &dir, &["--age", "1", "--sweep-every", "1"]);
    let mut browser = Browser::new(example.server);
    // The program keeps serving after a sweep.
    for _ in 0..2 {
        store(&mut browser);
        let dies = file_of(&dir, name, &browser);
        assert!(dies.exists());
        check_vanishes(&dies);
        check_new(&mut browser);
        assert!(lives.exists(), "a session that has not expired stays");
    }
    example.kill();
    assert!(files_in_shards(&dir).contains(&lives));
}

#[test]
fn visits_removes_expired_sessions_and_goes_on() {
    check_sweeps(
        "visits",
        |browser| {
            browser.jar = Jar::http();
            check_visits(browser, 1);
        },
        |browser| {
            let expired = browser.jar.get("visits").unwrap().to_owned();
            check_visits(browser, 1);
            assert_ne!(browser.jar.get("visits"), Some(&*expired), "a new id");
        },
    );
}

#[test]
fn shop_removes_expired_sessions_and_goes_on() {
    check_sweeps(
        "shop",
        |browser| {
            browser.jar = Jar::http();
            check_moved_home(&browser.post("/login", &[("user", "Ada")]));
        },
        |browser| check_shop(browser, "nobody yet", "nothing yet"),
    );
}

#[track_caller]
fn check_shop(browser: &mut Browser, user: &str, cart: &str) {
    let page = browser.get("/");
    assert_eq!(page.status, 200);
    assert_eq!(page.all("Content-Type"), ["text/html; charset=utf-8"]);
    let text = page.text();
    assert!(text.contains(&format!("<p>user: {user}</p>")), "not {user}: {text}");
    assert!(text.contains(&format!("<p>cart: {cart}</p>")), "not {cart}: {text}");
}

#[track_caller]
fn check_moved_home(response: &Response) {
    assert_eq!((response.status, response.all("Location")), (303, vec!["/"]));
}

#[test]
fn shop_keeps_user_and_cart_after_a_kill() {
    let (_parent, dir) = fresh();
    let shop = Example::start("shop", &dir);
    let mut browser = Browser::new(shop.server);
    check_shop(&mut browser, "nobody yet", "nothing yet");
    assert_eq!(browser.jar.header(), None, "a guest that only views pages gets no session");
    check_moved_home(&browser.post("/cart", &[("item", "apple")]));
    let guest = browser.jar.get("shop").unwrap().to_owned();
    check_moved_home(&browser.post("/login", &[("user", "Ada Lovelace")]));
    let user = browser.jar.get("shop").unwrap().to_owned();
    assert_ne!(guest, user, "a login gives a new id");
    check_moved_home(&browser.post("/cart", &[("item", "bread")]));
    check_shop(&mut browser, "Ada Lovelace", "apple, bread");
    shop.kill();

    let shop = Example::start("shop", &dir);
    browser.server = shop.server;
    check_shop(&mut browser, "Ada Lovelace", "apple, bread");
    check_moved_home(&browser.post("/cart", &[("item", "cheese")]));
    check_shop(&mut browser, "Ada Lovelace", "apple, bread, cheese");
    let mut thief = Browser::new(shop.server);
    thief.jar.put("shop", &guest);
    check_shop(&mut thief, "nobody yet", "nothing yet");

    // Another user logs in on the same browser, and gets an empty cart.
    check_moved_home(&browser.post("/login", &[("user", "Ben")]));
    check_shop(&mut browser, "Ben", "nothing yet");
    let logged_out = browser.jar.get("shop").unwrap().to_owned();
    check_moved_home(&browser.post("/logout", &[]));
    assert_eq!(browser.jar.header(), None);
    check_shop(&mut browser, "nobody yet", "nothing yet");
    shop.kill();

    let shop = Example::start("shop", &dir);
    let mut thief = Browser::new(shop.server);
    for id in [&guest, &user, &logged_out] {
        thief.jar.put("shop", id);
        check_shop(&mut thief, "nobody yet", "nothing yet");
    }
    shop.kill();
}

#[test]
fn shop_escapes_what_visitors_type() {
    let (_parent, dir) = fresh();
    let shop = Example::start("shop", &dir);
    let mut browser = Browser::new(shop.server);
    check_moved_home(&browser.post("/login", &[("user", "<img src=x onerror=\"alert('x')\">")]));
    check_moved_home(&browser.post("/cart", &[("item", "</p><script>alert(1)</script>")]));
    check_moved_home(&browser.post("/cart", &[("item", "&lt; tea & \"biscuits\" 日本")]));
    check_shop(
        &mut browser,
        "&lt;img src=x onerror=&quot;alert(&#39;x&#39;)&quot;&gt;",
        "&lt;/p&gt;&lt;script&gt;alert(1)&lt;/script&gt;, &amp;lt; tea &amp; &quot;biscuits&quot; 日本",
    );
    assert!(!browser.get("/").text().contains("<script"));
}

/// Asserts that a response is a page that describes an error and has a link back.
#[track_caller]
fn check_way_back(page: &Response, status: u16) {
    assert_eq!(page.status, status, "{}", page.text());
    assert_eq!(page.all("Content-Type"), ["text/html; charset=utf-8"]);
    check_small_screens(page);
    assert!(page.text().contains("<a href=\"/\">"), "no way back: {}", page.text());
}

/// Asserts that the page declares its width for small screens. Otherwise a phone would render it in a tiny font.
#[track_caller]
fn check_small_screens(page: &Response) {
    let viewport = "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">";
    assert!(page.text().contains(viewport), "{}", page.text());
}

type Form<'a> = &'a [(&'a str, &'a str)];

#[test]
fn shop_refuses_bad_forms_and_goes_on() {
    let (_parent, dir) = fresh();
    let shop = Example::start("shop", &dir);
    let mut browser = Browser::new(shop.server);
    check_moved_home(&browser.post("/cart", &[("item", "apple")]));
    let long = "x".repeat(201);
    let huge = "x".repeat(5000);
    let cases: [(&str, Form<'_>, u16); 9] = [
        ("/cart", &[("thing", "apple")], 400),
        ("/cart", &[("item", "")], 400),
        ("/cart", &[("item", " \t ")], 400),
        ("/cart", &[("item", "a"), ("item", "b")], 400),
        ("/cart", &[("item", &long)], 400),
        ("/cart", &[("item", &huge)], 413),
        ("/cart", &[("item", "a"), ("more", &huge)], 413),
        ("/login", &[("item", "apple")], 400),
        ("/login", &[("user", "")], 400),
    ];
    for (path, form, status) in cases {
        check_way_back(&browser.post(path, form), status);
    }
    check_way_back(&browser.post("/cart", &[]), 411);
    check_way_back(&browser.post("/nowhere", &[("item", "a")]), 404);
    // The body is not a form, or has no length.
    let cookie = browser.jar.header().unwrap();
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
    check_shop(&mut browser, "nobody yet", "apple");
    // The cart has a size limit. Items beyond it are dropped, and the others are saved.
    for n in 1..50 {
        check_moved_home(&browser.post("/cart", &[("item", &n.to_string())]));
    }
    check_way_back(&browser.post("/cart", &[("item", "one more")]), 400);
    assert!(browser.get("/").text().contains(", 49</p>"));
}

#[test]
fn every_page_of_the_examples_suits_small_screens() {
    let (_parent, dir) = fresh();
    let visits = Example::start("visits", &dir);
    let mut browser = Browser::new(visits.server);
    for path in ["/", "/reset", "/forgotten"] {
        check_small_screens(&browser.get(path));
    }
    check_way_back(&browser.get("/nowhere"), 404);
    visits.kill();
    let (_parent, dir) = fresh();
    let shop = Example::start("shop", &dir);
    check_small_screens(&Browser::new(shop.server).get("/"));
    shop.kill();
}

/// A browser sends cookies of 127.0.0.1 to all programs on that host, whatever their ports.
#[test]
fn visits_and_shop_live_side_by_side_in_one_browser() {
    let [(_visits, visits_dir), (_shop, shop_dir)] = [fresh(), fresh()];
    let visits = Example::start("visits", &visits_dir);
    let shop = Example::start("shop", &shop_dir);
    let mut browser = Browser::new(visits.server);
    check_visits(&mut browser, 1);
    browser.server = shop.server;
    check_moved_home(&browser.post("/login", &[("user", "Ada")]));
    browser.server = visits.server;
    check_visits(&mut browser, 2);
    browser.post("/reset", &[]);
    browser.server = shop.server;
    check_shop(&mut browser, "Ada", "nothing yet");
    visits.kill();
    shop.kill();
}

#[test]
fn both_examples_explain_themselves() {
    for (name, port) in [("visits", "8000"), ("shop", "8001")] {
        for flag in ["--help", "-h"] {
            let (_parent, dir) = fresh();
            let output =
                Command::new(Example::program(name)).arg("--dir").arg(&dir).arg(flag).output().unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{name} {flag}: {said}");
            for part in
                [&format!("--example {name} "), "--port PORT", port, &format!("{name}-sessions"), "--age"]
            {
                assert!(said.contains(part), "{name} {flag}: no {part} in {said}");
            }
            assert!(!dir.exists(), "--help creates no store");
        }
    }
}

#[test]
fn shop_apologises_with_a_way_back_when_its_store_is_gone() {
    let (_parent, dir) = fresh();
    let shop = Example::start("shop", &dir);
    let mut known = Browser::new(shop.server);
    check_moved_home(&known.post("/cart", &[("item", "apple")]));
    std::fs::remove_dir_all(&dir).unwrap();
    // One request's session cannot be loaded, the other's cannot be created.
    let page = known.post("/cart", &[("item", "bread")]);
    check_way_back(&page, 500);
    assert!(
        !page.text().contains("failed"),
        "the page shows the reason, which is for the operator: {}",
        page.text()
    );
    check_way_back(&Browser::new(shop.server).post("/cart", &[("item", "bread")]), 500);
    shop.kill();
}
