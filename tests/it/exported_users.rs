//! An export of many users' sessions, imported into a store that has cut-offs of its own: users, notes, logins and
//! lists are complete, and a session whose user was cut off after its login is dead.
//!
//! With 100,000 sessions the test is run manually, in a release build: `SESSILE_TEST_SESSIONS=100000`.
use crate::budget::scale;
use crate::support::command::{run, sessile, wait};
use crate::support::texts::{directory_in_memory, record};
use serde_json::Value as Json;
use sessile::file::Content;
use sessile::record::Login;
use sessile::{Clock, Durability, FileStore, FileStoreOptions, Lookup, Page, PublicId, Record, Store, Token};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The number of sessions of each user but one, who has a quarter of all.
const EACH: usize = 8;
const CROWD: &str = "crowd";
const HOUR: Duration = Duration::from_secs(3600);
/// The hours before the present at which the new store cuts users off: some once, some twice.
const CUT_OFFS: [u32; 2] = [5, 3];

/// The exported sessions: each with the hours since its login, and its token.
type Sessions = BTreeMap<PublicId, (Record, u32, Token)>;

fn open(root: &Path, clock: Clock) -> FileStore {
    FileStoreOptions::new().sync_security_events(false).watch(false).clock(clock).open(root).unwrap()
}

/// The session with this number: of the crowd, of one of the other users, or of none. They logged in at hours before
/// the present that lie between the cut-offs.
fn session(n: usize, now: SystemTime) -> (Record, u32) {
    let user = match n % 4 {
        0 => CROWD.to_owned(),
        1 if n % 8 == 1 => String::new(),
        _ => format!("user {} ü", n / (4 * EACH)),
    };
    let hours = [6, 4, 2][n / 4 % 3];
    let mut record = record(&n.to_string()).with_user(&user).unwrap();
    if !user.is_empty() {
        record.set_device_note(&format!("Firefox {n}, \u{1b}[31m \"ü\"")).unwrap();
        record.set_login(Login { at: Some(now - HOUR * hours), ..record.login() });
    }
    (record, hours)
}

/// The cut-offs of a user in the new store: the hours before the present.
fn cut_offs_of(user: &str) -> &'static [u32] {
    match user.bytes().map(usize::from).sum::<usize>() % 3 {
        0 => &[],
        1 => &CUT_OFFS[..1],
        _ => &CUT_OFFS,
    }
}

/// The lines of an export, by id.
fn exported(root: &Path) -> BTreeMap<String, String> {
    let ran = run!("export", root).ends(0);
    let lines = ran.out.lines().filter(|line| !line.contains("sessile_export"));
    let id = |line: &str| serde_json::from_str::<Json>(line).unwrap()["id"].as_str().unwrap().to_owned();
    lines.map(|line| (id(line), without_number(line))).collect()
}

/// A line of an export, without the number of the cut-off: that is the store's own.
fn without_number(line: &str) -> String {
    let mut json: Json = serde_json::from_str(line).unwrap();
    json.as_object_mut().unwrap().remove("cut_off");
    json.to_string()
}

/// The ids of a user's sessions, in pages.
fn listed(store: &FileStore, user: &str, limit: usize) -> Vec<PublicId> {
    let (mut page, mut ids) = (Page { after: None, limit }, Vec::new());
    loop {
        let listed = store.sessions_of(user, &page).unwrap();
        assert!(listed.complete, "{user}");
        ids.extend(listed.sessions.iter().map(|session| {
            assert!(session.device_note.as_ref().is_some_and(|note| note.starts_with("Firefox ")));
            session.id
        }));
        let Some(next) = listed.next else { return ids };
        page = page.after(next);
    }
}

/// Cuts users off in a store, before it gets the sessions.
fn cut_off(root: &Path, now: SystemTime, users: &BTreeMap<&str, Vec<PublicId>>) {
    let clock = Clock::manual(now - HOUR * 24);
    let store = open(root, clock.clone());
    for hours in CUT_OFFS {
        clock.set(now - HOUR * hours);
        for user in users.keys().filter(|user| !user.is_empty() && cut_offs_of(user).contains(&hours)) {
            store.delete_of(user, None).unwrap();
        }
    }
}

/// Pipes an export of one store into an import of another. Returns the summary of the import.
fn transfer(from: &Path, to: &Path) -> Json {
    let mut export = sessile([Path::new("export"), from]);
    let mut export = export.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut import = sessile([Path::new("import"), Path::new("--json"), to]);
    import.stdin(export.stdout.take().unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = wait(import.spawn().unwrap(), Vec::new()).ends_well();
    assert!(export.wait().unwrap().success());
    ran.json()
}

/// Checks that each record carries a number that is not below those of its user's cut-offs before the login, and below
/// that of the last one since. A cut-off's number is at least its time, and those of one hour follow each other.
fn check_numbers(store: &FileStore, sessions: &Sessions, now: SystemTime) {
    let number_of = |hours: &u32| (now - HOUR * *hours).duration_since(UNIX_EPOCH).unwrap().as_micros();
    let mut compared = 0;
    for file in store.files() {
        let (Content::Live(live) | Content::CutOff(live)) = file.unwrap().content else { continue };
        let (number, hours) = (u128::from(live.record.login().cut_off), sessions[&live.id].1);
        let cut_offs = cut_offs_of(live.record.user().unwrap_or_default());
        let (later, earlier): (Vec<_>, Vec<_>) = cut_offs.iter().partition(|cut_off| **cut_off < hours);
        assert!(earlier.into_iter().all(|cut_off| number >= number_of(cut_off)), "{live:?}");
        let last = later.last().map(|cut_off| number_of(cut_off) + sessions.len() as u128);
        assert!(last.is_none_or(|last| number < last), "{live:?}");
        compared += 1;
    }
    assert_eq!(compared, sessions.len());
}

#[test]
fn an_import_keeps_users_notes_and_lists_and_the_cut_offs_before() {
    let (dir, now, count) = (directory_in_memory(), SystemTime::now(), scale(600));
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let store = open(&old, Clock::default());
    let mut sessions = Sessions::new();
    for n in 0..count {
        let (record, hours) = session(n, now);
        let saved = store.create(&record, Durability::Relaxed).unwrap();
        sessions.insert(saved.live.id, (record, hours, saved.token));
    }
    let mut users: BTreeMap<&str, Vec<PublicId>> = BTreeMap::new();
    for (id, (record, ..)) in &sessions {
        users.entry(record.user().unwrap_or_default()).or_default().push(*id);
    }
    cut_off(&new, now, &users);
    let imported = transfer(&old, &new);
    assert_eq!((&imported["imported"], &imported["whole"]), (&Json::from(count), &Json::from(true)));

    let store = open(&new, Clock::default());
    let is_live = |id: &PublicId| {
        let (record, hours, _) = &sessions[id];
        record.user().is_none_or(|user| cut_offs_of(user).iter().all(|cut_off| hours < cut_off))
    };
    for (id, (record, _, token)) in &sessions {
        match store.load(token).unwrap() {
            Lookup::Live(live) => assert!(is_live(id), "{live:?}"),
            Lookup::Absent(_) => assert!(!is_live(id), "{record:?}"),
        }
    }
    for (user, ids) in users.iter().filter(|(user, _)| !user.is_empty()) {
        let alive: Vec<_> = ids.iter().copied().filter(is_live).collect();
        assert_eq!(listed(&store, user, alive.len() / 7 + 1), alive, "{user}");
    }
    // All that was exported is there, and nothing else.
    let mut old_lines = exported(&old);
    assert_eq!(old_lines.len(), count);
    old_lines.retain(|id, _| is_live(&PublicId::parse(id).unwrap()));
    assert!(exported(&new) == old_lines, "a session was changed by its import");
    assert!(old_lines.len() < count && old_lines.len() > count / 3, "some were cut off: {}", old_lines.len());
    check_numbers(&store, &sessions, now);
    // The next cut-off ends imported sessions as it ends others.
    store.delete_of(CROWD, None).unwrap();
    assert_eq!(listed(&store, CROWD, 100), []);
}
