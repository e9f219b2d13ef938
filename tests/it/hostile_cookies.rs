//! The sender of any hostile `Cookie` header is a new visitor.
//!
//! For each of the headers below: nothing panics, nothing is found, nothing is made or touched in the store by reading
//! or logging out, and a session that is stored afterwards gets an id that the header had nothing to do with. Then the
//! same bytes through real servers, which must answer or hang up, and serve the next visitor. Headers without a pattern
//! are tried by `tests/hammer`.
use crate::support::client::{Browser, Client};
use crate::support::hostile::{Site, check_fresh, may_bring, number_as_id, removes, various_headers};
use crate::support::server::{self, Running};
use sessile::{Cookies, Destroyed, Session};
use std::collections::BTreeMap;

/// The value of one `Cookie` line from an attacker that may know the victim's id, or the name of its file, or neither;
/// but does not send the id as it is under the right name.
fn hostile_headers(id: &str) -> Vec<String> {
    [various_headers(id), around_the_name(id)].concat()
}

/// The id under names that become ours when more than SP and HTAB is trimmed from them: browsers take such a name for
/// one without a prefix, so that a subdomain may set it.
///
/// Other cookies stand around it, because `tiny_http` (and rouille above it) trims VT and FF from the ends of the whole
/// header before we see it. Both close the connection on other bytes than ASCII; the front without a server sees them.
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

/// No session of the store is found by this header, and the store does not change.
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
    // The victim's session is as it was.
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
    // A logout that presents an id as it is ends its session, however far behind.
    for header in hostile_headers(&site.id).iter().filter(|header| !may_bring(header, &site.id)) {
        let mut visit = site.sessions.visit([header.as_str()]);
        assert_eq!(visit.destroy().unwrap(), Destroyed::WasGone, "{header:.100?}");
        removals += usize::from(removes(visit, header));
    }
    assert!(removals > 0);
    assert_eq!(site.tree(), before);
}

/// The text of a page for the victim, and for all others.
fn page(session: &Session) -> sessile::Result<String> {
    Ok(session.user()?.unwrap_or_else(|| "nobody".to_owned()))
}

/// Sends each header to a server as it is, one connection each; then the victim comes.
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
        // A server may hang up while we still talk, and may answer or hang up then.
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
