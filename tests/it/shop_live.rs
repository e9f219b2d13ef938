//! The live line of the example `shop`: a stream of server-sent events, which tells a page within a second that its
//! session has ended, in whichever process, and which never stops the shop.
use crate::examples::fresh;
use crate::shop::{Visitor, open};
use crate::support::client::{Client, Example, PATIENCE};
use crate::support::waiting::eventually;
use std::io;
use std::time::{Duration, Instant};

/// The live line of a page.
struct Live(Client);

impl Live {
    /// Opens the stream of a visitor's session, and waits for its first event.
    #[track_caller]
    fn open(visitor: &Visitor) -> Self {
        Self::try_open(visitor).expect("the stream begins")
    }

    /// The same as [`open`](Self::open); `None` if the shop has too many streams, or the session has ended.
    #[track_caller]
    fn try_open(visitor: &Visitor) -> Option<Self> {
        let cookie = visitor.browser.jar.header().unwrap();
        let mut client = Client::connect(visitor.browser.server);
        client.send(format!("GET /live HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\n\r\n")).unwrap();
        let head = client.receive_head().ok()?;
        assert_eq!((head.status, head.all("Content-Type")), (200, vec!["text/event-stream"]));
        assert_eq!((head.all("Cache-Control"), head.all("Set-Cookie")), (vec!["no-store"], vec![]));
        let mut live = Self(client);
        // It is here although the stream goes on: the server does not keep it back.
        assert_eq!(live.event().unwrap().as_deref(), Some("connected"));
        Some(live)
    }

    /// Waits for the next event and returns its name, without comments; `None` if the stream ends.
    fn event(&mut self) -> io::Result<Option<String>> {
        let began = Instant::now();
        loop {
            let chunk = self.0.chunk()?;
            assert!(began.elapsed() < PATIENCE, "no event, but comments");
            if chunk.is_empty() {
                return Ok(None);
            }
            let text = String::from_utf8(chunk).unwrap();
            if let Some(event) = text.lines().find_map(|line| line.strip_prefix("event: ")) {
                return Ok(Some(event.to_owned()));
            }
        }
    }

    /// Asserts that the stream says that the session has ended, and closes.
    #[track_caller]
    fn check_ended(&mut self) {
        assert_eq!(self.event().unwrap().as_deref(), Some("ended"));
        assert_eq!(self.event().unwrap(), None);
    }
}

fn logged_in(shop: &Example) -> Visitor {
    let mut visitor = Visitor::new(shop);
    visitor.log_in("Ada");
    visitor
}

#[test]
fn live_line_hears_of_a_logout_in_another_process_at_once() {
    let (_parent, dir) = fresh();
    let [here, there] = [(); 2].map(|()| Example::start("shop", &dir));
    let mut laptop = logged_in(&there);
    let ways: [fn(&mut Visitor, &str); 2] = [
        |laptop, phone| laptop.submit("/devices/end", &[("id", phone)], "/devices"),
        |laptop, _| laptop.submit("/devices/end-others", &[], "/devices"),
    ];
    for end in ways {
        // On a loaded machine, one of three is in time.
        let is_in_time = (0..3).any(|_| {
            let phone = logged_in(&here);
            let mut live = Live::open(&phone);
            end(&mut laptop, &phone.session());
            let ended = Instant::now();
            live.check_ended();
            ended.elapsed() < Duration::from_millis(1500)
        });
        assert!(is_in_time);
    }
    here.kill();
    there.kill();
}

#[test]
fn live_line_of_a_session_that_is_over_says_so_at_once() {
    let (shop, _parent) = open(&[]);
    let mut visitor = logged_in(&shop);
    let before = visitor.browser.clone();
    visitor.submit("/logout", &[], "/");
    for mut browser in [before, visitor.browser] {
        let response = browser.get("/live");
        assert_eq!(response.all("Content-Type"), ["text/event-stream"]);
        assert_eq!(response.text(), "event: ended\ndata:\n\n");
    }
    shop.kill();
}

#[test]
fn live_line_ends_with_the_session_and_does_not_renew_it() {
    let (shop, _parent) = open(&["--age", "2"]);
    let mut visitor = logged_in(&shop);
    // Further streams of the same page do not renew it either: the browser opens one when another is over.
    let mut lives = Vec::new();
    eventually("the session expires", || {
        std::thread::sleep(Duration::from_millis(200));
        let live = Live::try_open(&visitor);
        let has_ended = live.is_none();
        lives.extend(live);
        has_ended
    });
    // One session has eight streams; the others were ended to make room.
    let mut last = lives.pop().unwrap();
    last.check_ended();
    visitor.check(None, &[]);
    shop.kill();
}

#[test]
fn live_line_goes_on_in_the_new_session_after_a_login() {
    let (shop, _parent) = open(&[]);
    let mut visitor = logged_in(&shop);
    let mut live = Live::open(&visitor);
    visitor.get("/confirm");
    visitor.submit("/confirm", &[("user", "Ada")], "/devices");
    assert_eq!(live.event().unwrap(), None, "no event, so that the browser asks again");
    Live::open(&visitor);
    shop.kill();
}

#[test]
fn twenty_live_lines_do_not_stop_the_shop() {
    let (shop, _parent) = open(&[]);
    let mut visitors: Vec<_> = (0..20).map(|_| logged_in(&shop)).collect();
    let mut lives: Vec<_> = visitors.iter().map(Live::open).collect();
    for visitor in &mut visitors {
        visitor.check(Some("Ada"), &[]);
    }
    visitors[0].get("/devices");
    visitors[0].submit("/devices/end-others", &[], "/devices");
    for live in &mut lives[1..] {
        live.check_ended();
    }
    // One session has a few streams: a further one ends the oldest.
    for _ in 0..20 {
        lives.push(Live::open(&visitors[0]));
    }
    assert_eq!(lives[0].event().unwrap(), None);
    visitors[0].check(Some("Ada"), &[]);
    shop.kill();
}

#[test]
fn closed_pages_make_room_for_live_lines() {
    let (shop, _parent) = open(&[]);
    let visitors: Vec<_> = (0..8).map(|_| logged_in(&shop)).collect();
    let lives: Vec<_> = visitors.iter().flat_map(|visitor| [visitor; 8].map(Live::open)).collect();
    let mut late = logged_in(&shop);
    assert_eq!(late.browser.get("/live").text(), "retry: 10000\n\n", "no place: later");
    late.check(Some("Ada"), &[]);
    drop(lives);
    eventually("the streams of closed pages end", || {
        std::thread::sleep(Duration::from_millis(200));
        Live::try_open(&late).is_some()
    });
    shop.kill();
}
