//! `sessile count`, `doctor`, `delete --older-than`, `completions`, `man`, `import --mirror`, and stores by URL.
use crate::support::command::{Ran, finish, finish_with, keys, numbers, run, sessile};
use crate::support::sweeping::age;
use crate::support::texts::record;
use serde_json::Value as Json;
use sessile::{
    Admin, Durability, FileStore, FileStoreOptions, Lookup, Record, Rotation, Saved, Store, SweepOptions,
    Timing, Verdict,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

const RELAXED: Durability = Durability::Relaxed;
const HOUR: Duration = Duration::from_secs(3600);

fn open(dir: &TempDir) -> FileStore {
    FileStoreOptions::new().watch(false).open(dir.path()).unwrap()
}

fn created_ago(age: Duration) -> Record {
    let (now, mut record) = (SystemTime::now(), record("text"));
    record.set_timing(Timing { created: now - age, touched: now - age, ..Timing::new(now, now + HOUR) });
    record
}

fn put(store: &FileStore, record: &Record) -> Saved {
    store.create(record, RELAXED).unwrap()
}

fn is_live(store: &FileStore, saved: &Saved) -> bool {
    matches!(store.load(&saved.token).unwrap(), Lookup::Live(_))
}

// ---------------------------------------------------------------------------------------------- count, older than

#[test]
fn count_tells_how_many_sessions_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    assert_eq!(run!("count", dir.path()).ends_well().out, "0\n");
    for _ in 0..300 {
        put(&store, &record("text"));
    }
    fs::write(dir.path().join("77/foreign"), "").unwrap();
    assert_eq!(run!("count", dir.path()).ends_well().out, "300\n");
    let json = run!("count", "--json", format!("file:{}", dir.path().display())).ends_well().json();
    assert_eq!((keys(&json), json["sessions"].as_u64()), (vec!["sessions"], Some(300)));
}

#[test]
fn old_sessions_are_deleted_by_the_time_of_their_creation() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let [old, new] = [25, 23].map(|hours| put(&store, &created_ago(hours * HOUR)));
    let ran = run!("delete", "--older-than", "1d", dir.path()).ends_well();
    assert_eq!(ran.out, "1 of 2 sessions deleted, 0 failed\n");
    assert_eq!([&old, &new].map(|saved| is_live(&store, saved)), [false, true]);
    let json = run!("delete", "--json", "--older-than", "22h 59m", dir.path()).ends_well().json();
    assert_eq!(keys(&json), ["deleted", "examined", "failed"]);
    assert_eq!(numbers(&json, ["examined", "deleted", "failed"]), [1, 1, 0]);
    assert!(!is_live(&store, &new));
    for wrong in ["", "0s", "-1d", "1 month", "yesterday", "99999999999999y"] {
        run!("delete", format!("--older-than={wrong}"), dir.path()).ends(2);
    }
    run!("delete", "--older-than", "1d", "--all", dir.path()).ends(2);
}

// ------------------------------------------------------------------------------------------------ URLs

#[test]
fn a_store_is_named_by_path_or_by_url() {
    let dir = tempfile::tempdir().unwrap();
    let saved = put(&open(&dir), &record("text"));
    let path = dir.path().display();
    for place in [format!("{path}"), format!("file:{path}"), format!("file://{path}")] {
        for verb in ["stat", "list", "export", "verify"] {
            let ran = run!(verb, place).ends(0);
            assert!(verb == "export" || ran.err.is_empty(), "{ran:?}");
        }
        let shown =
            run!("show", "--json", "--public-id", saved.live.id.to_string(), place).ends_well().json();
        assert_eq!(shown["id"].as_str(), Some(&*saved.live.id.to_string()));
        run!("sweep", place).ends_well();
    }
}

#[test]
fn a_url_with_a_password_is_refused_and_not_repeated() {
    for verb in ["stat", "sweep", "doctor", "export", "count"] {
        let ran = run!(verb, "postgres://ada:hunter2@localhost/shop").ends(1);
        assert!(!ran.err.contains("hunter2") && ran.err.contains("`postgres://…@localhost/shop`"), "{ran:?}");
    }
    assert!(!Path::new("postgres:").exists());
}

// ------------------------------------------------------------------------------------------------ doctor

/// The checks that have findings.
#[track_caller]
fn findings(ran: &Ran) -> Vec<String> {
    let json = ran.json();
    assert_eq!(keys(&json), ["checks", "findings"]);
    let findings = json["findings"].as_array().unwrap();
    for finding in findings {
        assert_eq!(keys(finding), ["check", "finding", "remedy"]);
        assert!(finding["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()));
    }
    findings.iter().map(|finding| finding["check"].as_str().unwrap().to_owned()).collect()
}

/// The findings of a store, without those that depend on the machine.
#[track_caller]
fn of_store(dir: &TempDir, code: Option<i32>) -> Vec<String> {
    let ran = run!("doctor", "--json", dir.path());
    assert!(code.is_none_or(|code| code == ran.code), "{ran:?}");
    let depends = ["file system", "space", "watches"];
    findings(&ran).into_iter().filter(|check| !depends.contains(&&**check)).collect()
}

#[test]
fn doctor_finds_each_fault_of_a_store_and_its_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, &record("text").with_user("ada").unwrap());
    assert_eq!(of_store(&dir, None), [""; 0]);
    age(&dir.path().join("run/due/sweep"), 72 * HOUR);
    assert_eq!(of_store(&dir, Some(3)), ["sweeps"]);
    store.sweep(&SweepOptions::new()).unwrap();
    assert_eq!(of_store(&dir, None), [""; 0]);
    // The directory is open to all.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(of_store(&dir, Some(3)), ["permissions"]);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    // A damaged file was set aside.
    fs::create_dir(dir.path().join("damaged")).unwrap();
    fs::write(dir.path().join("damaged/77"), "").unwrap();
    assert_eq!(of_store(&dir, Some(3)), ["damaged"]);
    fs::remove_dir_all(dir.path().join("damaged")).unwrap();
    // The log of cut-offs is lost.
    drop(store);
    fs::remove_file(dir.path().join("cutoffs")).unwrap();
    assert_eq!(of_store(&dir, Some(3)), ["cut-offs"]);
    let words = run!("doctor", dir.path()).ends(3).out;
    assert!(words.contains("cut-offs: no session with a user is found"), "{words}");
}

#[test]
fn doctor_finds_a_file_of_another_user() {
    // Only root may give files away.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    store.sweep(&SweepOptions::new()).unwrap();
    std::os::unix::fs::chown(dir.path().join("run/generations"), Some(1), None).unwrap();
    assert_eq!(of_store(&dir, Some(3)), ["owner"]);
}

#[test]
fn doctor_changes_nothing_and_refuses_what_is_no_store() {
    let dir = tempfile::tempdir().unwrap();
    run!("doctor", dir.path().join("missing")).ends(1);
    assert!(!dir.path().join("missing").exists());
    fs::write(dir.path().join("mine"), "mine").unwrap();
    run!("doctor", dir.path()).ends(1);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    // A store of a newer version is a finding.
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir));
    let parameters = dir.path().join("sessile.json");
    let text = fs::read_to_string(&parameters).unwrap();
    let newer: Json = serde_json::from_str(&text).unwrap();
    let mut newer = newer.as_object().unwrap().clone();
    for value in newer.values_mut().filter(|value| value.is_u64()) {
        *value = 99.into();
    }
    fs::write(&parameters, serde_json::to_string(&newer).unwrap()).unwrap();
    assert_eq!(findings(&run!("doctor", "--json", dir.path()).ends(3)), ["opening"]);
}

// ------------------------------------------------------------------------------------------------ texts

#[test]
fn completions_and_manual_pages_name_every_verb() {
    let help = run!("--help").ends_well().out;
    let verbs: Vec<_> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|verb| !verb.is_empty()))
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.len() >= 12, "{verbs:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = finish(&mut sessile(["completions", shell])).out;
        for verb in &verbs {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
    }
    let page = finish(&mut sessile(["man"])).out;
    assert!(page.contains(".TH sessile 1"), "{page}");
    for verb in &verbs {
        assert!(page.contains(&format!("sessile\\-{verb}")), "{verb}");
        let page = finish(&mut sessile(["man", verb])).out;
        assert!(page.contains(&format!(".TH sessile-{verb} 1")), "{page}");
    }
    run!("man", "nonsense").ends(2);
    run!("completions", "nonsense").ends(2);
}

// ------------------------------------------------------------------------------------------------ mirror

fn exported(dir: &TempDir) -> String {
    run!("export", dir.path()).ends(0).out
}

fn mirrored(input: &str, dir: &TempDir) -> Ran {
    let mut command = sessile([Path::new("import"), Path::new("--mirror"), Path::new("--json"), dir.path()]);
    finish_with(&mut command, input)
}

#[test]
fn a_second_pass_makes_the_copy_equal() {
    let [from, to] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let a = open(&from);
    let ada = record("first").with_user("ada").unwrap();
    let [same, changed, ended, rotated, cut_off] = [(); 5].map(|()| put(&a, &ada));
    let bob = put(&a, &record("bob").with_user("bob").unwrap());
    finish_with(&mut sessile([Path::new("import"), to.path()]), exported(&from)).ends_well();
    let b = open(&to);
    assert!([&same, &changed, &ended, &rotated, &cut_off, &bob].iter().all(|saved| is_live(&b, saved)));

    // Between the passes, visitors go on.
    let now = a.now();
    a.update(
        &changed.token,
        &mut |record| {
            record.insert("text", &sessile::Value::new(&"second")?)?;
            record.set_timing(Timing { touched: now, ..record.timing() });
            Ok(Verdict::Write)
        },
        RELAXED,
    )
    .unwrap();
    a.delete(&ended.token).unwrap();
    let keep = &mut |_: &mut Record| Ok(Verdict::Keep);
    let successor = a.rotate(&rotated.token, keep, &Rotation::from(RELAXED)).unwrap().unwrap();
    a.delete(&cut_off.token).unwrap();
    a.delete_of("bob", None).unwrap();
    let begun = put(&a, &record("begun"));

    let json = mirrored(&exported(&from), &to).ends_well().json();
    let counts = ["imported", "existing", "replaced", "deleted", "expired", "failed"];
    assert_eq!(numbers(&json, counts), [2, 1, 1, 4, 0, 0]);
    for saved in [&same, &changed, &successor, &begun] {
        let [Lookup::Live(one), Lookup::Live(other)] =
            [&a, &b].map(|store| store.load(&saved.token).unwrap())
        else {
            panic!("it is live in both");
        };
        assert_eq!(one.record.entries().get("text"), other.record.entries().get("text"));
        assert_eq!(one.record.timing(), other.record.timing());
    }
    for saved in [&ended, &rotated, &cut_off, &bob] {
        assert!(!is_live(&b, saved));
    }
    // A third pass changes nothing.
    let json = mirrored(&exported(&from), &to).ends_well().json();
    assert_eq!(numbers(&json, counts), [0, 4, 0, 0, 0, 0]);
}

#[test]
fn a_mirror_of_a_part_deletes_nothing() {
    let [from, to] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (a, b) = (open(&from), open(&to));
    put(&a, &record("text"));
    let other = put(&b, &record("other"));
    let whole = exported(&from);
    let cut = whole.lines().next().unwrap();
    let wrong = format!("nonsense\n{whole}");
    for input in [cut, "", &wrong] {
        let ran = mirrored(input, &to).ends(3);
        assert!(ran.err.contains("no session was deleted"), "{ran:?}");
        assert!(is_live(&b, &other), "{input}");
    }
    run!("import", "--mirror", "--partial", to.path()).ends(2);
}

#[test]
fn a_newer_session_of_the_copy_is_not_replaced() {
    let [from, to] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (a, b) = (open(&from), open(&to));
    let saved = put(&a, &created_ago(HOUR));
    finish_with(&mut sessile([Path::new("import"), to.path()]), exported(&from)).ends_well();
    let now = b.now();
    b.update(
        &saved.token,
        &mut |record| {
            record.insert("text", &sessile::Value::new(&"newer")?)?;
            record.set_timing(Timing { touched: now, ..record.timing() });
            Ok(Verdict::Write)
        },
        RELAXED,
    )
    .unwrap();
    let json = mirrored(&exported(&from), &to).ends_well().json();
    assert_eq!(numbers(&json, ["existing", "replaced", "deleted"]), [1, 0, 0]);
}
