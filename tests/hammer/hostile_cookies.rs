//! Random `Cookie` headers and ids. No code panics, no session is found, reading changes nothing in the store, and the
//! victim's session stays as it is.
use crate::figures::Figures;
use crate::rounds::Rounds;
use crate::support::dice::Dice;
use crate::support::hostile::{Site, UNKNOWN, check_fresh, may_bring, removes, various_headers};
use sessile::{
    Absent, Cookies, Destroyed, FileStore, FileStoreOptions, Lookup, PublicId, SessionId, Store, Token,
};
use std::path::Path;
use std::time::Duration;
use tempfile::tempdir_in;

trials! {
    headers_and_ids_without_a_pattern_find_make_and_touch_nothing,
}

/// The pieces that are inserted into headers and ids.
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

/// A random header: one of `headers` with a few random changes.
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
            // A letter, with which the text may still be an id.
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

/// Parses the parts between the separators of a header, without the victim's id, as an id of each type. Returns how
/// many of them are valid ids.
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

/// The number of headers in a round. After a round, all files of the store are compared.
const HEADERS: u64 = 500;

fn headers_and_ids_without_a_pattern_find_make_and_touch_nothing(dir: &Path, time: Duration) -> Figures {
    let options = FileStoreOptions::new().sync_security_events(false);
    let site = Site::at(tempdir_in(dir).unwrap(), &options, Cookies::plain_http());
    let store = options.open(site.dir.path().join("store")).unwrap();
    // A file beside the store, as the target of a path that leads out of the store.
    std::fs::write(site.dir.path().join("outside"), "untouched").unwrap();
    let mut headers = various_headers(&site.id);
    headers.retain(|header| header.len() <= 2000);
    let file = PublicId::digest(site.id.as_bytes()).to_string();
    let pieces = [PIECES, &[&site.id, &site.id[..16], &file, &file[2..]]].concat();
    let before = site.tree();
    let mut dice = Dice::new(3);
    let rounds = Rounds::new(time, &["headers", "well-formed ids", "headers of the victim"]);
    while let Some(round) = rounds.next() {
        let (mut cases, mut well_formed, mut presented) = (0, 0, 0);
        while cases < HEADERS {
            let header = bent(&mut dice, &headers, &pieces);
            if may_bring(&header, &site.id) {
                presented += 1;
                continue;
            }
            well_formed += check_values(&store, &site.id, &header);
            check_visit(&site, &header, cases);
            cases += 1;
        }
        assert_eq!(site.tree(), before, "after round {round}");
        assert!(well_formed > cases / 10, "{well_formed} of {cases} headers reached the store");
        assert!(presented < cases / 4, "{presented} headers were left out");
        rounds.count("headers", cases);
        rounds.count("well-formed ids", well_formed);
        rounds.count("headers of the victim", presented);
    }
    let victim = site.sessions.visit([format!("session={}", site.id).as_str()]);
    assert_eq!(victim.user().unwrap().as_deref(), Some("victim"));
    rounds.figures()
}

/// Asserts that a visitor with this header is a new one, also if the request stores something or logs out.
#[track_caller]
fn check_visit(site: &Site, header: &str, case: u64) {
    let mut visit = site.sessions.visit([header]);
    assert_eq!(visit.names().unwrap(), [""; 0], "{header:?}");
    assert_eq!(visit.user().unwrap(), None, "{header:?}");
    match case % 16 {
        0 => check_fresh(site, header),
        1..=4 => {
            assert_eq!(visit.destroy().unwrap(), Destroyed::WasGone, "{header:?}");
            removes(visit, header);
        }
        _ => assert_eq!(visit.finish(200).unwrap(), [("Vary", "Cookie".into())], "{header:?}"),
    }
}
