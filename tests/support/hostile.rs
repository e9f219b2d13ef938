//! A site with one session, the victim's, and `Cookie` headers of attackers, none of which may open that session.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use super::cookie_jar::Jar;
use super::texts::directory_in_memory;
use sessile::{Cookies, FileStoreOptions, PublicId, Sessions, Token, Visit};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A store with one session in it, that of the victim.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) sessions: Sessions,
    /// The victim's id.
    pub(crate) id: String,
}

impl Site {
    pub(crate) fn new(cookies: Cookies) -> Self {
        Self::at(directory_in_memory(), &FileStoreOptions::new(), cookies)
    }

    pub(crate) fn at(dir: TempDir, options: &FileStoreOptions, cookies: Cookies) -> Self {
        let sessions =
            Sessions::new(options.clone().open(dir.path().join("store")).unwrap(), cookies).unwrap();
        let mut visit = sessions.visit([]);
        visit.login("victim").unwrap();
        visit.insert("secret", "the victim's").unwrap();
        visit.save().unwrap();
        let id = visit.token().unwrap().unwrap().expose().to_owned();
        Self { dir, sessions, id }
    }

    /// Every file in the directory above the store, with its contents, and every directory. Two kinds of files are left
    /// out: the counters, which change with every logout, even of an unknown id; and the expiry index, in which an
    /// ended session stays until a sweep.
    pub(crate) fn tree(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
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

/// An id that no session has.
pub(crate) const UNKNOWN: &str = "abcdefghijklmnopqrstuvwxyz234567";

/// Headers of an attacker that knows nothing.
const STRANGE: &[&str] = &[
    // Empty headers, and headers with less than a cookie.
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
    // Values that are paths of files.
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
    // Control characters, and ends of lines.
    "session=\0",
    "session=abc\0def",
    "session=\r\nSet-Cookie: session=evil",
    "session=x\nX-Injected: yes",
    "session=\x1b[31mred",
    "session=\x7f",
    "session=a\tb",
    "session=\u{85}",
    "sess\0ion=x",
    // Bytes beyond ASCII.
    "session=é",
    "session=日本語",
    "session=\u{202e}gpj",
    "session=\u{feff}abcdefghijklmnopqrstuvwxyz23456",
    "session=ａｂｃｄｅｆｇｈｉｊｋｌｍｎｏｐｑｒｓｔｕｖｗｘｙｚ２３４５６７",
    "session=😀",
    "sessión=x",
    // Values that have a meaning in other software.
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
    // Values that are almost ids.
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

/// A few headers of each kind.
pub(crate) fn various_headers(id: &str) -> Vec<String> {
    let file = PublicId::digest(id.as_bytes()).to_string();
    let flipped = format!("{}{}", &id[..31], if id.ends_with('a') { 'b' } else { 'a' });
    let mut headers: Vec<String> = STRANGE.iter().map(ToString::to_string).collect();
    headers.extend([
        // The victim's id, but changed: in another case, with other characters around it, or under another name.
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
        // Names of files, as in a listing or a backup of the store.
        format!("session={file}"),
        format!("session={}", &file[..32]),
        format!("session={}", &file[2..]),
        format!("session={}/{}", &file[..2], &file[2..]),
        format!("session={}", file.to_uppercase()),
        // Headers that are too long.
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
        // The id comes after more cookies than the library tries.
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

/// A well-formed id that no session has, made of a number.
pub(crate) fn number_as_id(n: usize) -> String {
    let digits = b"abcdefghijklmnopqrstuvwxyz234567";
    (0..32).map(|place| char::from(digits[(n >> (5 * (place % 12))) % 32])).collect()
}

/// Whether a header may contain this id unchanged, under the right name.
pub(crate) fn may_bring(header: &str, id: &str) -> bool {
    header.split(';').filter_map(|pair| pair.split_once('=')).any(|(_, value)| value.trim() == id)
}

/// Asserts that a session stored by a request with this header gets a new id.
pub(crate) fn check_fresh(site: &Site, header: &str) {
    let shown: String = header.chars().take(100).collect();
    let mut visit = site.sessions.visit([header]);
    visit.insert("mine", 1).unwrap();
    let headers = visit.finish(200).unwrap();
    let cookies: Vec<_> = headers.iter().filter(|(name, _)| *name == "Set-Cookie").collect();
    let [(_, cookie)] = cookies[..] else { panic!("{headers:?} for {shown:?}") };
    let mut jar = Jar::http();
    jar.receive([&**cookie]);
    let id = jar.get("session").unwrap();
    assert!(Token::parse(id).is_some_and(|token| token.expose().len() == 32), "{id} for {shown:?}");
    assert!(id != site.id && !header.contains(id), "an id that the visitor chose: {shown:?}");
    let mut next = site.sessions.visit(jar.header().as_deref());
    assert_eq!(next.names().unwrap(), ["mine"], "{shown:?}");
    next.destroy().unwrap();
    let _ = next.discard();
}

/// Runs a logout. Returns whether its response removes the cookie. Asserts that the response does so only if the
/// request had a token, and has no other effect.
#[track_caller]
pub(crate) fn removes(visit: Visit, header: &str) -> bool {
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
