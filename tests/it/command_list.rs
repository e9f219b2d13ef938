//! `sessile list`: live sessions, all or a user's, in pages; with and without a complete index.
use crate::support::command::{Ran, keys, run};
use crate::support::texts::{path_of, record};
use serde_json::Value as Json;
use sessile::{Durability, FileStore, FileStoreOptions, PublicId, Record, Saved, Store, Timing};
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

struct Place {
    dir: TempDir,
    store: FileStore,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStoreOptions::new().watch(false).open(dir.path()).unwrap();
        Self { dir, store }
    }

    fn put(&self, record: &Record) -> Saved {
        self.store.create(record, Durability::Relaxed).unwrap()
    }

    fn of_user(&self, user: &str) -> Saved {
        self.put(&record("secret entry").with_user(user).unwrap())
    }
}

/// The ids in a run's JSON, and the next page.
#[track_caller]
fn ids(ran: Ran) -> (Vec<String>, Option<String>) {
    let json = ran.ends_well().json();
    assert_eq!(keys(&json), ["next", "sessions"]);
    let text = |json: &Json| json.as_str().map(str::to_owned);
    let sessions = json["sessions"].as_array().unwrap();
    (sessions.iter().map(|session| text(&session["id"]).unwrap()).collect(), text(&json["next"]))
}

fn sorted<'a>(sessions: impl IntoIterator<Item = &'a Saved>) -> Vec<String> {
    let mut ids: Vec<_> = sessions.into_iter().map(|saved| saved.live.id.to_string()).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn list_prints_live_sessions_in_order_and_those_of_a_user() {
    let place = Place::new();
    let ada: Vec<_> = (0..5).map(|_| place.of_user("ada")).collect();
    let bob: Vec<_> = (0..5).map(|_| place.of_user("bob")).collect();
    let guests: Vec<_> = (0..5).map(|_| place.put(&record("guest"))).collect();
    let mut expired = record("expired").with_user("ada").unwrap();
    expired.set_timing(Timing { deadline: SystemTime::now() - Duration::from_secs(60), ..expired.timing() });
    place.put(&expired);
    let ended = place.of_user("ada");
    place.store.delete(&ended.token).unwrap();
    let of = |user: &str| ids(run!("list", "--json", "--user", user, place.dir.path()));
    for lost in [false, true] {
        if lost {
            fs::remove_dir_all(place.dir.path().join("run/users")).unwrap();
        }
        assert_eq!(
            ids(run!("list", "--json", place.dir.path())),
            (sorted(ada.iter().chain(&bob).chain(&guests)), None)
        );
        assert_eq!((of("ada"), of("bob")), ((sorted(&ada), None), (sorted(&bob), None)), "lost: {lost}");
        assert_eq!((of("nobody"), of("")), ((vec![], None), (vec![], None)));
        assert_eq!(run!("list", "--user", "nobody", place.dir.path()).ends_well().out, "no sessions\n");
    }
}

#[test]
fn the_pages_of_a_list_have_every_session_once() {
    let place = Place::new();
    let all: Vec<_> = (0..30).map(|_| place.of_user("ada")).collect();
    for (lost, user) in [(false, false), (false, true), (true, true)] {
        if lost {
            fs::remove_dir_all(place.dir.path().join("run/users")).unwrap();
        }
        let (mut found, mut after) = (Vec::new(), None::<String>);
        loop {
            let mut arguments = vec!["list", "--json", "--limit", "7", place.dir.path().to_str().unwrap()];
            arguments.extend(user.then_some(["--user", "ada"]).into_iter().flatten());
            let begin = after.take();
            arguments.extend(begin.as_deref().into_iter().flat_map(|after| ["--after", after]));
            let (page, next) =
                ids(crate::support::command::finish(&mut crate::support::command::sessile(arguments)));
            assert!(page.len() == 7 || next.is_none(), "{page:?}");
            found.extend(page);
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, sorted(&all), "lost: {lost}, user: {user}");
    }
    let words = run!("list", "--limit", "1", place.dir.path()).ends_well().out;
    assert_eq!(words.lines().last(), Some(&*format!("more: --after {}", sorted(&all)[0])));
}

#[test]
fn a_listed_session_is_one_line_without_its_entries() {
    let place = Place::new();
    let mut record = record("secret entry").with_user("a\u{1b}[31m\nda \u{202e}x").unwrap();
    let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
    record.set_timing(Timing {
        touched: at(1_700_000_060),
        ..Timing::new(at(1_700_000_000), at(9_999_999_999))
    });
    let id = place.put(&record).live.id;
    let bytes = record.as_bytes().len();
    let words = run!("list", place.dir.path()).ends_well().out;
    let times = "2023-11-14T22:13:20Z  2023-11-14T22:14:20Z  2286-11-20T17:46:39Z";
    assert_eq!(words, format!("{id}  {times}  {bytes}  a\\u{{1b}}[31m\\u{{a}}da \\u{{202e}}x\n"));
    let json = run!("list", "--json", place.dir.path()).ends_well();
    assert!(!json.out.contains("secret"), "{json:?}");
    let session = &json.json()["sessions"][0];
    assert_eq!(keys(session), ["bytes", "created", "deadline", "id", "last_seen", "user"]);
    assert_eq!(session["user"].as_str(), record.user());
    assert_eq!(session["bytes"].as_u64(), Some(bytes as u64));
}

#[test]
fn a_damaged_session_is_a_finding_and_wrong_usage_exits_with_2() {
    let place = Place::new();
    let [whole, damaged] = [(); 2].map(|()| place.of_user("ada"));
    fs::write(path_of(place.dir.path(), damaged.live.id), [7; 4096]).unwrap();
    let ran = run!("list", "--json", place.dir.path()).ends(3);
    assert!(ran.out.contains(&whole.live.id.to_string()) && ran.err.contains(&damaged.live.id.to_string()));
    let root = place.dir.path();
    let short = PublicId::digest(b"x").to_string()[1..].to_owned();
    assert_eq!(run!("list", "--limit", "0", root).code, 2);
    assert_eq!(run!("list", "--limit", "1000001", root).code, 2);
    assert_eq!(run!("list", "--after", short, root).code, 2);
    assert_eq!(run!("list", root.join("nothing")).code, 1);
}
