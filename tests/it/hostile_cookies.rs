//! Hostile `Cookie` headers: a visitor who sends one is a new visitor. For each header below: no code panics, no
//! session is found, and reading or logging out changes nothing in the store. A session that is stored afterwards gets
//! an id that does not depend on the header. The same bytes are sent to real servers, which must answer or close the
//! connection, and serve the next visitor. Random headers are tried by `tests/hammer`.
use crate::support::client::{Browser, Client};
use crate::support::hostile::{Site, check_fresh, may_bring, number_as_id, removes, various_headers};
use crate::support::server::{self, Running};
use sessile::{Cookies, Destroyed, Session};
use std::collections::BTreeMap;

/// The value of a `Cookie` line from an attacker. The attacker may know the victim's id, or the name of the victim's
/// file, but does not send the unchanged id under the right name.
fn hostile_headers(id: &str) -> Vec<String> {
    [various_headers(id), around_the_name(id)].concat()
}

/// The victim's id under names that would become our cookie's name if more than space and tab were trimmed from them. A
/// browser takes such a name for one without a prefix, so a subdomain may set it. Other cookies are put around it,
/// because `tiny_http` (and rouille above it) trims VT and FF from the ends of the whole header. Both close the
/// connection if a header has other bytes than ASCII; the test without a server covers those.
fn around_the_name(id: &str) -> Vec<String> {
    let space = |c: &char| c.is_whitespace() || c.is_control();
    let near = ('\0'..=char::MAX).filter(space).filter(|c| ![' ', '\t'].contains(c));
    near.flat_map(|c| {
        [
            format!("theme=dark; {c}session={id}; lang=en"),
            format!("theme=dark; session{c}={id}; lang=en"),
            format!("theme=dark;{c} session={id}; lang=en"),
        ]
    })
    .collect()
}

/// Asserts that this header finds no session, and that the store does not change.
fn check(site: &Site, header: &str) {
    let shown: String = header.chars().take(100).collect();
    let before = site.tree();

    let visit = site.sessions.visit([header]);
    assert_eq!(visit.user().unwrap(), None, "{shown:?}");
    assert_eq!(visit.get::<String>("secret").unwrap(), None, "{shown:?}");
    assert_eq!(visit.names().unwrap(), [""; 0], "{shown:?}");
    assert_eq!(visit.public_id().unwrap(), None, "{shown:?}");
    assert_eq!(visit.finish(200).unwrap(), [("Vary", "Cookie".into())], "{shown:?}");
    assert_eq!(site.tree(), before, "reading left something behind: {shown:?}");
}

#[test]
fn a_hostile_header_finds_makes_and_changes_nothing() {
    let site = Site::new(Cookies::plain_http());
    let headers = hostile_headers(&site.id);
    assert!(headers.len() >= 100);
    for header in &headers {
        check(&site, header);
    }
    // The victim's session can still be used, and has not changed.
    let victim = site.sessions.visit([format!("session={}", site.id).as_str()]);
    assert_eq!(victim.user().unwrap().as_deref(), Some("victim"));
}

#[test]
fn a_cookie_with_other_white_space_at_its_name_does_not_win() {
    let site = Site::new(Cookies::https());
    let mut own = site.sessions.visit([]);
    own.login("ada").unwrap();
    own.save().unwrap();
    let own = format!("__Host-session={}", own.token().unwrap().unwrap().expose());
    for planted in around_the_name(&site.id) {
        let planted = planted.replace("session", "__Host-session");
        let visit = site.sessions.visit([&*planted, &own]);
        assert_eq!(visit.user().unwrap().as_deref(), Some("ada"), "{planted:?}");
    }
}

#[test]
fn a_session_stored_by_a_hostile_visitor_gets_a_fresh_id() {
    let site = Site::new(Cookies::plain_http());
    let before = site.tree();
    for header in &hostile_headers(&site.id) {
        check_fresh(&site, header);
    }
    assert_eq!(site.tree(), before, "all of them were ended again, and the victim was not");
}

#[test]
fn a_hostile_logout_ends_nothing_and_removes_only_an_ids_cookie() {
    let site = Site::new(Cookies::plain_http());
    let before = site.tree();
    let mut removals = 0;
    // A logout with the victim's unchanged id ends the session, however many cookies stand before it.
    for header in hostile_headers(&site.id).iter().filter(|header| !may_bring(header, &site.id)) {
        let mut visit = site.sessions.visit([header.as_str()]);
        assert_eq!(visit.destroy().unwrap(), Destroyed::WasGone, "{header:.100?}");
        removals += usize::from(removes(visit, header));
    }
    assert!(removals > 0);
    assert_eq!(site.tree(), before);
}

/// The page of the test server, with a different text for the victim than for all others.
fn page(session: &Session) -> sessile::Result<String> {
    Ok(session.user()?.unwrap_or_else(|| "nobody".to_owned()))
}

/// Sends each header to a server without changes, on one connection each. Afterwards the victim is still served.
fn check_server(site: &Site, server: &Running) {
    let before = site.tree();
    let mut answers = BTreeMap::new();
    let lines = (0..300).map(number_as_id).collect::<Vec<_>>().join("\r\nCookie: session=");
    let texts =
        hostile_headers(&site.id).into_iter().chain([format!("session={lines}")]).map(String::into_bytes);
    let no_texts: [&[u8]; 6] = [
        b"session=\xff\xfe\xfd",
        b"session=\x80",
        b"session=\xc0\xae\xc0\xae/",
        b"\xed\xa0\x80=x",
        b"session=a\rb",
        &[0x0b; 2000],
    ];
    for header in texts.chain(no_texts.map(<[u8]>::to_vec)) {
        let shown = String::from_utf8_lossy(&header[..header.len().min(100)]);
        let mut client = Client::connect(server.address);
        // The server may answer, or close the connection, while the client is still sending.
        let sent = client.send([b"GET / HTTP/1.1\r\nHost: test\r\nCookie: ", &*header, b"\r\n\r\n"].concat());
        match sent.and_then(|()| client.receive()) {
            Ok(response) => {
                *answers.entry(response.status).or_insert(0) += 1;
                assert!([200, 400, 431].contains(&response.status), "{} for {shown:?}", response.status);
                assert!(response.status != 200 || response.text() == "nobody", "{shown:?}");
                assert_eq!(response.all("Set-Cookie"), [""; 0], "{shown:?}");
                assert_eq!(response.all("X-Injected"), [""; 0], "{shown:?}");
            }
            Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "no answer to {shown:?}"),
        }
    }
    assert!(answers[&200] > 80, "hardly any header came through: {answers:?}");
    assert_eq!(site.tree(), before);

    let mut victim = Browser::new(server.address);
    victim.jar.put("session", &site.id);
    assert_eq!(victim.get("/").text(), "victim");
}

#[test]
fn tiny_http_finds_no_session_in_hostile_bytes_and_goes_on() {
    let site = Site::new(Cookies::plain_http());
    let server = server::tiny_http(&site.sessions, 2, |_, session| {
        page(session).map(tiny_http::Response::from_string)
    });
    check_server(&site, &server);
}

#[test]
fn rouille_finds_no_session_in_hostile_bytes_and_goes_on() {
    let site = Site::new(Cookies::plain_http());
    let server = server::rouille(&site.sessions, 2, |_, session| page(session).map(rouille::Response::text));
    check_server(&site, &server);
}
