//! The sender of any hostile `Cookie` header is a new visitor.
//!
//! For each of the headers below: nothing panics, nothing is found, nothing is made or touched in the store
//! by reading or logging out, and a session that is stored afterwards gets an id that the header had nothing to do
//! with. Then the same bytes through real servers, which must answer or hang up, and serve the next visitor.
use crate::support::client::{Browser, Client, Jar};
use crate::support::process::{Dice, rounds};
use crate::support::server::{self, Running};
use crate::support::texts::directory_in_memory;
use sessile::{
    Absent, Cookies, Destroyed, FileStore, FileStoreOptions, Lookup, PublicId, Session, SessionId, Sessions,
    Store, Token, Visit,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A store with one session in it, which no hostile request may reach.
struct Site {
    dir: TempDir,
    sessions: Sessions,
    /// The victim's id.
    id: String,
}

impl Site {
    fn new(cookies: Cookies) -> Self {
        Self::with(FileStoreOptions::new(), cookies)
    }

    fn with(options: FileStoreOptions, cookies: Cookies) -> Self {
        let dir = directory_in_memory();
        let sessions = Sessions::new(options.open(dir.path().join("store")).unwrap(), cookies).unwrap();
        let mut visit = sessions.visit([]);
        visit.login("victim").unwrap();
        visit.insert("secret", "the victim's").unwrap();
        visit.save().unwrap();
        let id = visit.token().unwrap().unwrap().expose().to_owned();
        Self { dir, sessions, id }
    }

    /// Every file below the store's parent with its bytes, every directory without. Not the counters: they move with
    /// every logout, also with an id of no session. Nor the expiry index: an ended session stays there until a sweep.
    fn tree(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let mut tree = BTreeMap::new();
        list(self.dir.path(), &mut tree);
        assert!(tree.remove(&self.dir.path().join("store/run/generations")).is_some());
        tree.retain(|path, _| !path.starts_with(self.dir.path().join("store/run/due")));
        tree
    }
}

fn list(dir: &Path, tree: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            list(&path, tree);
            tree.insert(path, None);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            tree.insert(path, Some(bytes));
        }
    }
}

/// An id of no session.
const UNKNOWN: &str = "abcdefghijklmnopqrstuvwxyz234567";

/// From an attacker that knows nothing.
const STRANGE: &[&str] = &[
    // Nothing, and less than a cookie.
    "",
    " ",
    ";",
    ";;;;;;;;",
    "=",
    "==",
    "=;=;=",
    "session",
    "session;",
    "session=",
    "session= ",
    "session==",
    "session=;session=;session=",
    "=session",
    "\t",
    ",",
    "$Version=1; $Path=/",
    // Paths.
    "session=.",
    "session=..",
    "session=/",
    "session=../../../../../../etc/passwd",
    "session=/etc/passwd",
    "session=..%2f..%2fetc%2fpasswd",
    "session=%2e%2e%2f%2e%2e%2f",
    "session=..\\..\\windows\\win.ini",
    "session=sessile.json",
    "session=../sessile.json",
    "session=file:///etc/passwd",
    "session=ab/cdef",
    "session=C:\\con",
    "session=~root",
    "session=....//....//etc",
    "session=../../../../../../../etc/passwd.",
    // Control characters, and the ends of lines.
    "session=\0",
    "session=abc\0def",
    "session=\r\nSet-Cookie: session=evil",
    "session=x\nX-Injected: yes",
    "session=\x1b[31mred",
    "session=\x7f",
    "session=a\tb",
    "session=\u{85}",
    "sess\0ion=x",
    // More than ASCII.
    "session=é",
    "session=日本語",
    "session=\u{202e}gpj",
    "session=\u{feff}abcdefghijklmnopqrstuvwxyz23456",
    "session=ａｂｃｄｅｆｇｈｉｊｋｌｍｎｏｐｑｒｓｔｕｖｗｘｙｚ２３４５６７",
    "session=😀",
    "sessión=x",
    // Values with a meaning in some other software.
    "session=\"\"",
    "session=\"x",
    "session=' OR 1=1 --",
    "session=<script>alert(1)</script>",
    "session=${jndi:ldap://127.0.0.1/x}",
    "session={{7*7}}",
    "session=%00",
    "session=%s%s%s%n",
    "session=null",
    "session=undefined",
    "session=true",
    "session=0",
    "session=-1",
    "session=NaN",
    "session=1e308",
    "session=[object Object]",
    "session={\"user\":\"admin\"}",
    "session=a,b",
    "session=a b",
    "session=; HttpOnly; Path=/; Max-Age=99999999",
    "session=deleted; expires=Thu, 01-Jan-1970 00:00:01 GMT",
    // Almost ids.
    "session=abcdefghijklmnopqrstuvwxyz23456",
    "session=abcdefghijklmnopqrstuvwxyz2345678",
    "session=ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
    "session=abcdefghijklmnopqrstuvwxyz23456=",
    "session=abcdefghijklmnopqrstuvwxyz234561",
    "session=abcdefghijklmnopqrstuvwxyz23456\u{ff17}",
    "session=00000000000000000000000000000000",
    "session=abcdefghijklmnopqrstuvwxyz234567",
    "session=abcdefghijklmnopqrstuvwxyz234567; session=abcdefghijklmnopqrstuvwxyz234567",
];

/// The value of one `Cookie` line from an attacker that may know the victim's id, or the name of its file, or neither; but does
/// not send the id as it is under the right name.
fn hostile_headers(id: &str) -> Vec<String> {
    [various_headers(id), around_the_name(id)].concat()
}

/// Few of each kind.
fn various_headers(id: &str) -> Vec<String> {
    let file = PublicId::digest(id.as_bytes()).to_string();
    let flipped = format!("{}{}", &id[..31], if id.ends_with('a') { 'b' } else { 'a' });
    let mut headers: Vec<String> = STRANGE.iter().map(ToString::to_string).collect();
    headers.extend([
        // The victim's id, but not quite: in another case, with something around it, or under another name.
        format!("session={}", id.to_uppercase()),
        format!("session={}", &id[..31]),
        format!("session={}", &id[1..]),
        format!("session={id}a"),
        format!("session=a{id}"),
        format!("session={id}{id}"),
        format!("session={flipped}"),
        format!("session=\"{id}\""),
        format!("session='{id}'"),
        format!("session={id}\0"),
        format!("session={id}%00"),
        format!("session={id}%20"),
        format!("session={id}/"),
        format!("session=/{id}"),
        format!("session=./{id}"),
        format!("session={id}.json"),
        format!("session={id},{id}"),
        format!("session={} {}", &id[..16], &id[16..]),
        format!("session={id}\u{301}"),
        format!("session=\u{200b}{id}"),
        format!("session=={id}"),
        format!("session:{id}"),
        format!("session={}", id.chars().rev().collect::<String>() + "7"),
        format!("session={}", id.bytes().fold(String::new(), |hex, byte| hex + &format!("%{byte:02x}"))),
        format!("Session={id}"),
        format!("SESSION={id}"),
        format!("sessions={id}"),
        format!("xsession={id}"),
        format!("session2={id}"),
        format!("session[]={id}"),
        format!("$session={id}"),
        format!("\"session\"={id}"),
        format!("__Host-session={id}"),
        format!("__Secure-session={id}"),
        format!("theme=dark, session={id}"),
        format!("theme=\"dark; x={id}"),
        id.to_owned(),
        format!("={id}"),
        // The names in a listing or a backup of the store.
        format!("session={file}"),
        format!("session={}", &file[..32]),
        format!("session={}", &file[2..]),
        format!("session={}/{}", &file[..2], &file[2..]),
        format!("session={}", file.to_uppercase()),
        // Too much.
        format!("session={}", "a".repeat(4096)),
        format!("session={}", "a".repeat(4097)),
        format!("session={}", "../".repeat(50_000)),
        format!("session={}", "é".repeat(100_000)),
        format!("{}=x", "session".repeat(10_000)),
        format!("session={}", UNKNOWN.repeat(1000)),
        "session=x; ".repeat(5000),
        "x=y; ".repeat(20_000),
        "; ".repeat(50_000),
        (0..500).fold(String::new(), |mut all, n| {
            write!(all, "session={}; ", number_as_id(n)).unwrap();
            all
        }),
        // Behind more than are tried.
        format!(
            "session={}; session={}; session={}; session={}; session={id}",
            "a".repeat(32),
            "b".repeat(32),
            "c".repeat(32),
            "d".repeat(32)
        ),
    ]);
    headers
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

/// A well-formed id of no session.
fn number_as_id(n: usize) -> String {
    let digits = b"abcdefghijklmnopqrstuvwxyz234567";
    (0..32).map(|place| char::from(digits[(n >> (5 * (place % 12))) % 32])).collect()
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
    assert_eq!(visit.finish(200).unwrap(), [("Vary", "Cookie".to_owned())], "{shown:?}");
    assert_eq!(site.tree(), before, "reading left something behind: {shown:?}");
}

/// A session that is stored by a request with this header gets a fresh id.
fn check_fresh(site: &Site, header: &str) {
    let shown: String = header.chars().take(100).collect();
    let mut visit = site.sessions.visit([header]);
    visit.insert("mine", 1).unwrap();
    let headers = visit.finish(200).unwrap();
    let cookies: Vec<_> = headers.iter().filter(|(name, _)| *name == "Set-Cookie").collect();
    let [(_, cookie)] = cookies[..] else { panic!("{headers:?} for {shown:?}") };
    let mut jar = Jar::http();
    jar.receive([cookie.as_str()]);
    let id = jar.get("session").unwrap();
    assert!(Token::parse(id).is_some_and(|token| token.expose().len() == 32), "{id} for {shown:?}");
    assert!(id != site.id && !header.contains(id), "an id that the visitor chose: {shown:?}");
    let mut next = site.sessions.visit(jar.header().as_deref());
    assert_eq!(next.names().unwrap(), ["mine"], "{shown:?}");
    next.destroy().unwrap();
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

/// Whether the response of a logout removes the cookie; it does nothing else, and only if an id was presented.
#[track_caller]
fn removes(visit: Visit, header: &str) -> bool {
    let headers = visit.finish(200).unwrap();
    let may_bring_one = header.split(';').filter_map(|pair| pair.split_once('=')).any(|(_, value)| {
        let value = value.trim();
        value.len() == 32 && value.bytes().all(|c| matches!(c, b'a'..=b'z' | b'2'..=b'7'))
    });
    match &headers[..] {
        [("Vary", _)] => false,
        [("Vary", _), ("Set-Cookie", removal), ("Cache-Control", _)] => {
            assert!(removal.starts_with("session=; ") && removal.contains("Max-Age=0"), "{header:.100?}");
            assert!(may_bring_one, "{header:.100?} brings no id");
            true
        }
        other => panic!("{other:?} for {header:.100?}"),
    }
}

/// The pieces that headers and ids are bent with.
const PIECES: &[&str] = &[
    "session=",
    "__Host-session=",
    "; ",
    ";",
    "=",
    ",",
    "\"",
    " ",
    "\t",
    "\0",
    "\r\n",
    "\u{85}",
    "\u{a0}",
    "\u{202e}",
    "\u{feff}",
    "é",
    "../",
    "..",
    "/",
    "\\",
    "%2e%2e%2f",
    "%00",
    "/etc/passwd",
    "sessile.json",
    "run/due/sweep",
    ".new-",
    "damaged",
    UNKNOWN,
];

/// A header without a pattern: one of the above, bent a few times.
fn bent(dice: &mut Dice, headers: &[String], pieces: &[&str]) -> String {
    let mut header: Vec<char> = headers[dice.below(headers.len())].chars().collect();
    for _ in 0..=dice.roll(4) {
        let at = dice.below(header.len() + 1);
        let end = (at + dice.below(40)).min(header.len());
        match dice.roll(8) {
            0..=2 => drop(header.splice(at..at, pieces[dice.below(pieces.len())].chars())),
            3 => drop(header.splice(at..end, pieces[dice.below(pieces.len())].chars())),
            4 => drop(header.drain(at..end)),
            5 => header.extend_from_within(at..end),
            6 if at < end => header[at] = char::from(dice.byte()),
            // Likely to be an id still.
            6 => header.push(char::from(b'a' + dice.byte() % 26)),
            _ => {
                header.extend("; session=".chars());
                header
                    .extend((0..32).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[dice.below(32)])));
            }
        }
    }
    header.into_iter().collect()
}

/// Whether a header may present this id as it is.
fn may_bring(header: &str, id: &str) -> bool {
    header.split(';').filter_map(|pair| pair.split_once('=')).any(|(_, value)| value.trim() == id)
}

/// The parts between the marks of a header, but for the victim's id, as an id, for each type that reads one. How many could
/// be one.
fn check_values(store: &FileStore, victim: &str, header: &str) -> u64 {
    let mut well_formed = 0;
    for value in header.split(['=', ';', ' ']).filter(|value| *value != victim) {
        let id = SessionId::parse(value);
        let is_id = value.len() == 32 && value.bytes().all(|c| matches!(c, b'a'..=b'z' | b'2'..=b'7'));
        assert_eq!(id.is_some(), is_id, "{value:?}");
        let is_digest = value.len() == 40 && value.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        assert_eq!(PublicId::parse(value).is_some(), is_digest, "{value:?}");
        let Some(token) = Token::parse(value) else {
            assert!(id.is_none(), "an id that is no token: {value:?}");
            continue;
        };
        let found = store.load(&token).unwrap();
        match &id {
            Some(id) => {
                assert!(matches!(found, Lookup::Absent(Absent::NotFound(file)) if file == id.public_id()));
            }
            None => assert!(matches!(found, Lookup::Absent(Absent::Malformed)), "{value:?}: {found:?}"),
        }
        well_formed += u64::from(id.is_some());
    }
    well_formed
}

#[test]
fn headers_and_ids_without_a_pattern_find_make_and_touch_nothing() {
    let options = FileStoreOptions::new().sync_security_events(false);
    let site = Site::with(options.clone(), Cookies::plain_http());
    let store = options.open(site.dir.path().join("store")).unwrap();
    // Beside the store, and the target of a path out of it.
    std::fs::write(site.dir.path().join("outside"), "untouched").unwrap();
    let mut headers = various_headers(&site.id);
    headers.retain(|header| header.len() <= 2000);
    let file = PublicId::digest(site.id.as_bytes()).to_string();
    let pieces = [PIECES, &[&site.id, &site.id[..16], &file, &file[2..]]].concat();
    let before = site.tree();
    let mut dice = Dice::new(3);
    let (mut cases, mut well_formed, mut presented) = (0, 0, 0_u64);
    while cases < rounds(10_000) {
        let header = bent(&mut dice, &headers, &pieces);
        if may_bring(&header, &site.id) {
            presented += 1;
            continue;
        }
        well_formed += check_values(&store, &site.id, &header);
        let mut visit = site.sessions.visit([header.as_str()]);
        assert_eq!(visit.names().unwrap(), [""; 0], "{header:?}");
        assert_eq!(visit.user().unwrap(), None, "{header:?}");
        match cases % 16 {
            0 => check_fresh(&site, &header),
            1..=4 => {
                assert_eq!(visit.destroy().unwrap(), Destroyed::WasGone, "{header:?}");
                removes(visit, &header);
            }
            _ => assert_eq!(visit.finish(200).unwrap(), [("Vary", "Cookie".to_owned())], "{header:?}"),
        }
        cases += 1;
        if cases % 1000 == 0 {
            assert_eq!(site.tree(), before, "up to case {cases}");
        }
    }
    assert_eq!(site.tree(), before);
    println!(
        "{cases} headers, {well_formed} well-formed ids in them; {presented} more presented the victim's"
    );
    assert!(well_formed > cases / 10, "{well_formed} of {cases} headers reached the store");
    assert!(presented < cases / 4, "{presented} headers were left out");
    let victim = site.sessions.visit([format!("session={}", site.id).as_str()]);
    assert_eq!(victim.user().unwrap().as_deref(), Some("victim"));
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
