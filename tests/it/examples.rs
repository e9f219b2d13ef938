//! The example programs as real processes that are killed with SIGKILL and restarted. The promise: after the restart,
//! acknowledged changes are there, under the cookie that the browser has.
use crate::shop::Visitor;
use crate::support::client::{Browser, Example, PATIENCE, Response};
use crate::support::cookie_jar::Jar;
use crate::support::texts::{files_in_shards, path_of};
use sessile::SessionId;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A new directory, and the path of a store in it that the program will create.
pub(crate) fn fresh() -> (TempDir, PathBuf) {
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
            let mut visitor = Visitor::of(browser);
            visitor.log_in("Ada");
            *browser = visitor.browser;
        },
        |browser| {
            let mut visitor = Visitor::of(browser);
            visitor.check(None, &[]);
            *browser = visitor.browser;
        },
    );
}

/// Asserts that a response is a page that describes an error and has a link back.
#[track_caller]
pub(crate) fn check_way_back(page: &Response, status: u16) {
    assert_eq!(page.status, status, "{}", page.text());
    assert_eq!(page.all("Content-Type"), ["text/html; charset=utf-8"]);
    check_small_screens(page);
    assert!(page.text().contains("<a href=\"/\">"), "no way back: {}", page.text());
}

/// Asserts that the page declares its width for small screens. Otherwise a phone would render it in a tiny font.
#[track_caller]
pub(crate) fn check_small_screens(page: &Response) {
    let viewport = "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">";
    assert!(page.text().contains(viewport), "{}", page.text());
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
    let mut visitor = Visitor::of(&browser);
    visitor.log_in("Ada");
    browser.jar = visitor.browser.jar.clone();
    browser.server = visits.server;
    check_visits(&mut browser, 2);
    browser.post("/reset", &[]);
    browser.server = shop.server;
    Visitor::of(&browser).check(Some("Ada"), &[]);
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
