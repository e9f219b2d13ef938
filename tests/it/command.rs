//! The command `sessile`, run as operators run it: beside servers, on stores of other users, with mistyped input. The
//! promises: each verb does what its help says, and its exit code reports the result. Live sessions stay. No output
//! repeats a session's secret id, after any mistake. No stored text controls the terminal.
use crate::failures::again_on_small_disk_in;
use crate::support::client::Browser;
use crate::support::command::{Ran, finish, finish_with, keys, numbers, run, sessile, wait};
use crate::support::rerun::{again_in_mounts, stage};
use crate::support::server::{self, Running};
use crate::support::texts::{path_of, put, record};
use serde_json::{Value as Json, json};
use sessile::admin::SweepOptions;
use sessile::record::Login;
use sessile::{
    Admin, Cookies, Durability, Expiry, FileStore, FileStoreOptions, Lookup, PublicId, Record, Rotation,
    Saved, Session, SessionId, Sessions, Store, Timing, Token, Value, Verdict,
};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow::{Break, Continue};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const RELAXED: Durability = Durability::Relaxed;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A store, in a directory whose name may have any characters.
struct Place {
    parent: TempDir,
    root: PathBuf,
    store: Arc<FileStore>,
}

impl Place {
    fn new() -> Self {
        Self::named(OsStr::new("sessions"))
    }

    fn named(name: &OsStr) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join(name);
        // The store does not watch its directory. Changes by the command must be noticed all the same.
        let store = FileStoreOptions::new().watch(false).open(&root).unwrap();
        Self { parent, root, store: Arc::new(store) }
    }

    fn put(&self, record: &Record) -> Saved {
        self.store.create(record, RELAXED).unwrap()
    }

    fn live(&self, count: usize) -> Vec<Saved> {
        (0..count).map(|_| self.put(&record("live"))).collect()
    }

    fn expired(&self, count: usize) -> Vec<Saved> {
        let mut record = record("expired");
        record.set_timing(Timing { deadline: SystemTime::now() - HOUR, ..record.timing() });
        (0..count).map(|_| self.put(&record)).collect()
    }

    fn damaged(&self) -> Saved {
        let saved = self.put(&record("damaged"));
        fs::write(self.path(saved.live.id), [7; 4096]).unwrap();
        saved
    }

    /// Makes a session file as an interrupted creation leaves it. Returns its path.
    fn unfinished(&self) -> PathBuf {
        let path = self.path(SessionId::random().unwrap().public_id());
        fs::write(&path, "").unwrap();
        path
    }

    fn path(&self, id: PublicId) -> PathBuf {
        path_of(&self.root, id)
    }

    fn exists(&self, saved: &Saved) -> bool {
        self.path(saved.live.id).exists()
    }

    fn is_live(&self, token: &Token) -> bool {
        matches!(self.store.load(token).unwrap(), Lookup::Live(_))
    }

    fn sessions(&self) -> Sessions {
        Sessions::new(self.store.clone(), Cookies::plain_http()).unwrap()
    }

    /// A server on this store: `/` counts visits, `/user` returns the user's name.
    fn server(&self) -> Running {
        let page = |request: &mut tiny_http::Request, session: &mut Session| -> sessile::Result<_> {
            let text = match request.url() {
                "/user" => session.user()?.unwrap_or("nobody".into()),
                _ => session.update("visits", |n: &mut u64| *n += 1)?.to_string(),
            };
            Ok(tiny_http::Response::from_string(text))
        };
        server::tiny_http(&self.sessions(), 2, page)
    }

    fn export(&self) -> Vec<String> {
        let exported = run!("export", self.root).ends(0);
        let mut lines = sessions_of(&exported.out);
        assert!(exported.err.starts_with(&format!("{} sessions exported, 0 damaged, ", lines.len())));
        lines.sort_unstable();
        lines
    }

    /// Imports these lines, followed by the line that counts them.
    fn import(&self, lines: &[String]) -> Ran {
        let sessions = lines.iter().filter(|line| !line.trim().is_empty()).count();
        self.import_text([lines.join("\n"), format!("\n{}\n", last_line(sessions))].concat())
    }

    fn import_text(&self, text: impl Into<Vec<u8>>) -> Ran {
        finish_with(&mut sessile([OsStr::new("import"), self.root.as_ref()]), text)
    }
}

/// The last line of an export of this many sessions, which counts them.
fn last_line(sessions: usize) -> String {
    format!(r#"{{"sessile_export":1,"sessions":{sessions}}}"#)
}

/// The lines of an export that describe sessions. Asserts that the last line counts them.
#[track_caller]
fn sessions_of(export: &str) -> Vec<String> {
    let mut lines: Vec<_> = export.lines().map(str::to_owned).collect();
    assert_eq!(lines.pop(), Some(last_line(lines.len())));
    lines
}

/// The record of a session in this store.
#[track_caller]
fn stored(store: &FileStore, id: PublicId) -> Record {
    match store.load_by_id(&id).unwrap() {
        Lookup::Live(live) => live.record,
        Lookup::Absent(absent) => panic!("{id} is {absent:?}"),
    }
}

/// Sets a file's modification time to `by` ago.
fn age(path: &Path, by: Duration) {
    File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() - by).unwrap();
}

/// The paths of all files and directories below a directory.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

/// Replaces the number of seconds in a text: `; 0.1 s` becomes `; T s`.
fn timeless(text: &str) -> String {
    let (before, time) = text.trim_end().rsplit_once("; ").unwrap();
    let seconds = time.strip_suffix(" s").unwrap_or_else(|| panic!("no time at the end of {text:?}"));
    assert!(seconds.parse::<f64>().unwrap() >= 0.0);
    format!("{before}; T s")
}

// ----------------------------------------------------------------------------------------------------------- usage

/// The verbs that read an existing store.
const LOOKING: [&str; 7] = ["sweep", "stat", "verify", "list", "show", "delete", "export"];

#[test]
fn wrong_usage_exits_with_2_and_says_so_on_standard_error_only() {
    let place = Place::new();
    let root = place.root.to_str().unwrap();
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["sweep"],
        &["sweep", "--fast", root],
        &["sweep", root, root],
        &["sweep", "--max-per-second", "0", root],
        &["sweep", "--max-per-second", "4294967296", root],
        &["sweep", "--cpu-percent", "0", root],
        &["sweep", "--cpu-percent", "101", root],
        &["sweep", "--cpu-percent", "5", "--max-per-second", "5", root],
        &["sweep", "--keep-damaged", "0", root],
        &["sweep", "--keep-damaged", "65536", root],
        &["show", "--public-id", "0123", root],
        &["delete", "--public-id", "0123456789ABCDEF0123456789abcdef01234567", root],
    ] {
        let ran = finish(&mut sessile(arguments));
        assert_eq!((ran.code, &*ran.out), (2, ""), "{arguments:?}: {ran:#?}");
        assert!(ran.err.contains("Usage: sessile") || ran.err.contains("try '--help'"), "{ran:#?}");
    }
}

#[test]
fn every_help_fits_a_terminal_of_80_columns_and_has_an_example() {
    let verbs = ["sweep", "stat", "verify", "list", "show", "delete", "export", "import"];
    for arguments in verbs.map(|verb| vec![verb, "--help"]).into_iter().chain([vec!["--help"], vec!["-h"]]) {
        let help = finish(sessile(&arguments).env("COLUMNS", "200")).ends_well().out;
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{arguments:?}: {line:?}");
        }
        if let [verb, _] = arguments[..] {
            let example = format!("sessile {verb} ");
            let has_example = help.lines().any(|line| line.starts_with("  ") && line.contains(&example));
            assert!(help.contains("\nExample") && has_example, "{help}");
            assert!(help.contains("Exit codes") && help.contains("JSON") | help.contains("--json"), "{help}");
        } else {
            assert!(help.contains("  4  another sweep is running"), "{help}");
            assert!(verbs.iter().all(|verb| help.contains(&format!("\n  {verb} "))), "{help}");
        }
    }
    let version = run!("--version").ends_well().out;
    assert_eq!(version, concat!("sessile ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_mistyped_directory_is_an_error_and_nothing_is_made() {
    let parent = tempfile::tempdir().unwrap();
    let (missing, empty, other) =
        (parent.path().join("missing"), parent.path().join("empty"), parent.path().join("other"));
    fs::create_dir(&empty).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("index.html"), "hello").unwrap();
    let before = tree(parent.path());
    for verb in LOOKING {
        for (dir, reason) in [
            (&missing, "failed to open session directory `DIR`: No such file or directory (os error 2)"),
            (&empty, "failed to open session store `DIR`: there is no session store in it"),
            (&other, "failed to open session store `DIR`: there is no session store in it"),
            (
                &other.join("index.html"),
                "failed to open session directory `DIR`: Not a directory (os error 20)",
            ),
        ] {
            let ran = run!(verb, dir).ends(1);
            let reason = reason.replace("DIR", dir.to_str().unwrap());
            assert_eq!((&*ran.out, ran.err), ("", format!("sessile: {reason}\n")), "{verb}");
        }
    }
    // Import creates a store, but not in another program's directory, and not the parents of the store's directory.
    run!("import", other).ends(1);
    run!("import", missing.join("sessions")).ends(1);
    assert_eq!(tree(parent.path()), before);
    run!("import", "--partial", missing).ends_well();
    run!("stat", missing).ends_well();
}

// ----------------------------------------------------------------------------------------------------------- sweep

const SWEPT: [&str; 12] = [
    "bytes_freed",
    "cut_off",
    "damaged",
    "examined",
    "failed",
    "moved",
    "outcome",
    "removed",
    "renewed",
    "seconds",
    "temporary",
    "unknown",
];

#[test]
fn sweep_removes_expired_sessions_and_leaves_live_ones() {
    let place = Place::new();
    let (live, expired) = (place.live(20), place.expired(10));
    let ran = run!("sweep", "--json", place.root).ends_well();
    let json = ran.json();
    assert_eq!(keys(&json), SWEPT);
    assert_eq!(json["outcome"], "completed");
    assert_eq!(numbers(&json, ["removed", "bytes_freed", "failed"]), [10, 10 * 4096, 0]);
    assert!(!expired.iter().any(|saved| place.exists(saved)));
    assert!(live.iter().all(|saved| place.is_live(&saved.token)));
    // Each hour, a sweep reads the files of one shard besides the sessions that are due.
    let none = run!("sweep", place.root).ends_well();
    assert!(none.out.starts_with("removed 0 of "), "{none:#?}");
}

#[test]
fn sweep_reports_its_counts_in_one_line() {
    let place = Place::new();
    place.live(20);
    let expired = place.expired(10);
    place.damaged();
    age(&place.unfinished(), 2 * HOUR);
    let temporary = place.root.join("00/.new-0a1b");
    fs::write(&temporary, "left").unwrap();
    age(&temporary, 2 * HOUR);
    let unknown = place.root.join("77/notes.txt");
    fs::write(&unknown, "mine").unwrap();

    let counts = "10 of 32 sessions, 40.00 KiB; 1 damaged; 2 leftovers; 1 unknown; T s";
    let before = tree(&place.root);
    // The store has a damaged file, so the exit code is 3.
    let dry = run!("sweep", "--full", "--dry-run", "--cpu-percent", "100", place.root).ends(3);
    assert_eq!(timeless(&dry.out), format!("would remove {counts}"));
    assert_eq!(tree(&place.root), before);
    assert!(expired.iter().all(|saved| place.exists(saved)));

    let wet = run!("sweep", "--full", "--cpu-percent", "50", place.root).ends(3);
    assert_eq!(timeless(&wet.out), format!("removed {counts}"));
    assert!(!temporary.exists() && unknown.exists());
    assert!(!expired.iter().any(|saved| place.exists(saved)));
    let again = run!("sweep", "--full", place.root).ends(3);
    assert_eq!(timeless(&again.out), "removed 0 of 21 sessions, 0 B; 1 damaged; 1 unknown; T s");
}

#[test]
fn sweep_keeps_damaged_files_for_the_given_time() {
    let place = Place::new();
    let damaged = place.damaged();
    let swept = |days: &str| {
        let ran = run!("sweep", "--full", "--json", "--keep-damaged", days, place.root).ends(3);
        numbers(&ran.json(), ["damaged", "removed"])
    };
    age(&place.path(damaged.live.id), 3 * DAY);
    let by_default = run!("sweep", "--full", "--json", place.root).ends(3);
    assert_eq!(numbers(&by_default.json(), ["damaged", "removed"]), [1, 0]);
    assert_eq!(swept("4"), [1, 0]);
    assert!(place.exists(&damaged));
    assert_eq!(swept("2"), [1, 1]);
    assert!(!place.exists(&damaged));
    run!("sweep", "--full", place.root).ends_well();
}

#[test]
fn sweep_keeps_to_its_rate() {
    let place = Place::new();
    place.expired(20);
    let json = run!("sweep", "--json", "--max-per-second", "20", place.root).ends_well().json();
    assert_eq!(json["removed"], 20);
    assert!(json["seconds"].as_f64().unwrap() > 0.7, "20 files at 20 a second: {json}");
}

#[test]
fn a_sweep_beside_another_one_does_nothing_and_exits_with_4() {
    let place = Place::new();
    place.expired(3);
    let (sender, receiver) = channel();
    let done = Arc::new(AtomicBool::new(false));
    let (store, stop) = (place.store.clone(), done.clone());
    let slow = std::thread::spawn(move || {
        let options = SweepOptions::new().per_second(1);
        store.sweep_with(&options, &mut |_| {
            let _ = sender.send(());
            if stop.load(Ordering::SeqCst) { Break(()) } else { Continue(()) }
        })
    });
    receiver.recv().unwrap();
    let words = run!("sweep", place.root);
    let json = run!("sweep", "--json", "--full", place.root);
    done.store(true, Ordering::SeqCst);
    slow.join().unwrap().unwrap();

    let words = words.ends(4);
    assert_eq!((&*words.out, &*words.err), ("another sweep is running; nothing was done\n", ""));
    let json = json.ends(4).json();
    assert_eq!(keys(&json), SWEPT);
    assert_eq!(json["outcome"], "already_running");
    assert_eq!(numbers(&json, ["examined", "removed"]), [0, 0]);
    run!("sweep", place.root).ends_well();
}

#[test]
fn sessions_in_use_go_on_while_they_are_swept_past() {
    let place = Place::new();
    let server = place.server();
    let mut browsers: Vec<_> = (0..5).map(|_| Browser::new(server.address)).collect();
    for round in 1..=6 {
        let expired = place.expired(10);
        let sweep = sessile([OsStr::new("sweep"), OsStr::new("--full"), place.root.as_ref()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        for browser in &mut browsers {
            assert_eq!(browser.get("/").text(), round.to_string());
        }
        let ran = wait(sweep, Vec::new()).ends_well();
        assert!(ran.out.starts_with("removed 10 of "), "{ran:#?}");
        assert!(!expired.iter().any(|saved| place.exists(saved)));
    }
}

#[test]
fn moved_ids_are_counted_and_are_neither_sessions_nor_damage() {
    let place = Place::new();
    let old = place.put(&record("moved"));
    let how = Rotation::new(RELAXED).grace(HOUR);
    let new = place.store.rotate(&old.token, &mut |_| Ok(Verdict::Keep), &how).unwrap().unwrap();
    assert_eq!(numbers(&run!("stat", "--json", place.root).ends_well().json(), ["live", "moved"]), [1, 1]);
    assert!(run!("stat", place.root).ends_well().out.contains("\n           1 moved to another id\n"));
    let verified = run!("verify", "--json", "--repair", place.root).ends_well().json();
    assert_eq!(numbers(&verified, ["examined", "moved"]), [1, 1]);
    assert_eq!(verified["found"], json!([]));
    let summary = run!("verify", place.root).ends_well().out;
    assert!(summary.contains(", 0 could not be read, 1 moved to another id; "), "{summary}");
    let id = old.live.id.to_string();
    let shown = run!("show", "--json", "--public-id", id, place.root).ends(3).json();
    assert_eq!(shown["absent"], "moved to another id");
    let exported = run!("export", place.root).ends(0).out;
    assert!(exported.contains(&new.live.id.to_string()) && !exported.contains(&id), "{exported}");
    // A sweep removes the mark of a moved id only when its grace period is over, and does not count it as damage.
    let swept = run!("sweep", "--full", "--json", place.root).ends_well().json();
    assert_eq!(numbers(&swept, ["examined", "moved", "removed", "damaged"]), [2, 0, 0, 0]);
    let short = Rotation::new(RELAXED).grace(Duration::from_micros(1));
    let last = place.store.rotate(&new.token, &mut |_| Ok(Verdict::Keep), &short).unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(1));
    let swept = run!("sweep", "--full", place.root).ends_well().out;
    assert!(swept.starts_with("removed 0 of 3 sessions, 4.00 KiB; 1 moved ids; "), "{swept}");
    assert!(place.exists(&old) && !place.exists(&new) && place.is_live(&last.token));
    // A delete of a moved id ends the session under its present id. The mark is gone afterwards, so a second delete
    // finds nothing.
    run!("delete", "--public-id", old.live.id.to_string(), place.root).ends(3);
}

// ------------------------------------------------------------------------------------------------------------ stat

#[test]
fn stat_counts_each_file_once_and_each_session_in_its_bars() {
    let place = Place::new();
    let minute = HOUR / 60;
    // For each of the two histograms, one session in each bar; in opposite orders.
    let spans = [minute / 2, HOUR / 2, 3 * HOUR, 12 * HOUR, 2 * DAY, 5 * DAY, 10 * DAY, 20 * DAY, 90 * DAY];
    for (n, (age, left)) in spans.iter().zip(spans.iter().rev()).enumerate() {
        let mut record = record("live");
        let created = record.timing().created - *age;
        record.set_timing(Timing { created, deadline: SystemTime::now() + *left, ..record.timing() });
        if n % 2 == 0 {
            record.set_user(&format!("user {n}")).unwrap();
        }
        place.put(&record);
    }
    let mut young = record("young");
    young.set_timing(Timing { deadline: SystemTime::now() + 90 * DAY, ..young.timing() });
    place.put(&young);
    place.expired(3);
    place.damaged();
    place.damaged();
    place.unfinished();
    fs::write(place.root.join("00/.new-0a1b"), "left").unwrap();
    fs::write(place.root.join("77/notes.txt"), "mine").unwrap();
    fs::create_dir(place.root.join("78/directory")).unwrap();
    fs::write(place.root.join("README"), "mine").unwrap();
    fs::write(place.root.join("79").join(OsStr::from_bytes(b"\xff\xfe")), "no text").unwrap();

    let json = run!("stat", "--json", place.root).ends(3).json();
    let kinds = [
        "live",
        "expired",
        "cut_off",
        "moved",
        "damaged",
        "unfinished",
        "temporary",
        "unknown",
        "failed",
        "logged_in",
    ];
    let mut wanted: Vec<_> = kinds.into_iter().chain(["ages", "bytes", "deadlines", "seconds"]).collect();
    wanted.sort_unstable();
    assert_eq!(keys(&json), wanted);
    assert_eq!(numbers(&json, kinds), [10, 3, 0, 0, 2, 1, 1, 4, 0, 5]);
    let bytes = json["bytes"].as_u64().unwrap();
    let of_directory = fs::metadata(place.root.join("78/directory")).unwrap().len();
    assert_eq!(bytes, 15 * 4096 + 4 + 4 + 4 + of_directory);
    let bounds = [60, 3600, 21_600, 86_400, 259_200, 604_800, 1_209_600, 2_592_000];
    let bars = |sessions: [u64; 9]| -> Json {
        let rows =
            [0].into_iter().chain(bounds).zip(bounds.map(Some).into_iter().chain([None])).zip(sessions);
        let row = |((from, below), n): ((u64, Option<u64>), u64)| json!({"from_seconds": from, "below_seconds": below, "sessions": n});
        rows.map(row).collect()
    };
    assert_eq!(json["ages"], bars([2, 1, 1, 1, 1, 1, 1, 1, 1]));
    assert_eq!(json["deadlines"], bars([1, 1, 1, 1, 1, 1, 1, 1, 2]));

    let text = run!("stat", place.root).ends(3).out;
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[..7],
        [
            "          10 live",
            "           5 of them logged in",
            "           3 expired",
            "           2 damaged",
            "           1 unfinished",
            "           1 temporary",
            "           4 unknown",
        ]
    );
    assert!(lines[7].ends_with(" in files") && lines[8].is_empty(), "{text}");
    let (full, half) = ("#".repeat(40), "#".repeat(20));
    assert_eq!(lines[9], "Live sessions, by the time since they were created");
    assert_eq!(lines[10], format!("  below 1 minute                 2  {full}"));
    assert_eq!(lines[11], format!("  1 minute to 1 hour             1  {half}"));
    assert_eq!(lines[17], format!("  2 weeks to 30 days             1  {half}"));
    assert_eq!(lines[18], format!("  30 days or more                1  {half}"));
    assert_eq!(lines[20], "Live sessions, by the time until they expire");
    assert_eq!(lines[29], format!("  30 days or more                2  {full}"));
    assert_eq!(lines.len(), 30);
}

#[test]
fn stat_leaves_out_intervals_in_which_no_session_is() {
    let place = Place::new();
    let mut record = record("live");
    record.set_timing(Timing { deadline: SystemTime::now() + 2 * DAY, ..record.timing() });
    place.put(&record);
    let text = run!("stat", place.root).ends_well().out;
    let drawn = text.lines().skip_while(|line| !line.starts_with("Live sessions"));
    let rows: Vec<_> = drawn.filter(|line| line.starts_with("  ")).map(|line| line[..21].trim()).collect();
    assert_eq!(rows, ["below 1 minute", "1 day to 3 days"], "{text}");
}

#[test]
fn stat_of_an_empty_store_is_short() {
    let place = Place::new();
    let text = run!("stat", place.root).ends_well().out;
    assert_eq!(text, "           0 live\n           0 expired\n         0 B in files\n");
}

// ---------------------------------------------------------------------------------------------------------- verify

#[test]
fn verify_lists_damaged_files_and_repair_moves_them() {
    let place = Place::new();
    let live = place.live(5);
    let mut damaged = [place.damaged().live.id, place.damaged().live.id];
    damaged.sort_unstable_by_key(ToString::to_string);
    let before = tree(&place.root);

    let ran = run!("verify", place.root).ends(3);
    let [first, second] = damaged;
    let summary = "7 sessions examined, 2 damaged, 0 other findings, 0 could not be read; T s";
    assert_eq!(timeless(&ran.out), format!("damaged: {first}\ndamaged: {second}\n{summary}"));
    assert_eq!((&*ran.err, tree(&place.root)), ("", before), "a look changes nothing");

    let json = run!("verify", "--json", place.root).ends(3).json();
    assert_eq!(keys(&json), ["examined", "failed", "found", "moved", "not_moved", "seconds"]);
    let found = |id: PublicId, moved_to: Option<PathBuf>| json!({"kind": "damaged", "id": id.to_string(), "path": place.path(id), "moved_to": moved_to});
    assert_eq!(json["found"], json!([found(first, None), found(second, None)]));

    let aside = |id: PublicId| place.root.join("damaged").join(id.to_string());
    let json = run!("verify", "--json", "--repair", place.root).ends(3).json();
    assert_eq!(json["found"], json!([found(first, Some(aside(first))), found(second, Some(aside(second)))]));
    for id in damaged {
        assert_eq!(fs::read(aside(id)).unwrap(), [7; 4096], "nothing is deleted");
        assert!(!place.path(id).exists());
    }
    let clean = run!("verify", "--repair", place.root).ends_well();
    let summary = "5 sessions examined, 0 damaged, 0 other findings, 0 could not be read; T s";
    assert_eq!(timeless(&clean.out), summary);
    assert!(live.iter().all(|saved| place.is_live(&saved.token)));

    // The message names the place of the damaged file, too.
    let third = place.damaged().live.id;
    let ran = run!("verify", "--repair", place.root).ends(3);
    let moved = format!("damaged: {third}, moved to {}\n", aside(third).display());
    assert!(ran.out.starts_with(&moved), "{ran:#?}");
}

#[test]
fn verify_names_everything_that_is_no_sound_session() {
    let place = Place::new();
    let live = place.live(3);
    let put = |text: &str| place.put(&record(text)).live.id;
    // Session files that are cut to their first half, cut to nothing, and written by other versions.
    let (cut, unfinished, newer, older) = (put("cut"), place.unfinished(), put("newer"), put("older"));
    File::options().write(true).open(place.path(cut)).unwrap().set_len(2048).unwrap();
    for (id, format) in [(newer, 9), (older, 1)] {
        let mut bytes = fs::read(place.path(id)).unwrap();
        bytes[4] = format;
        fs::write(place.path(id), bytes).unwrap();
    }
    let damaged = place.damaged().live.id;
    // A link to a live session, a pipe, and a directory that is not empty, each under the name of a session file.
    let [link, pipe, directory] = [0; 3].map(|_| place.path(SessionId::random().unwrap().public_id()));
    std::os::unix::fs::symlink(place.path(live[0].live.id), &link).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("file"), "mine").unwrap();
    let foreign = ["77/notes.txt", "README", "run/due/mine"].map(|name| place.root.join(name));
    for path in &foreign {
        fs::write(path, "mine").unwrap();
    }
    let temporary = place.root.join("00/.new-0a1b");
    fs::write(&temporary, "left").unwrap();

    let named = |kind: &str, path: &Path| format!("{kind}: {}", path.display());
    let moved = |line: String, name: &str| {
        format!("{line}, moved to {}", place.root.join("damaged").join(name).display())
    };
    let id_of = |path: &Path| {
        let (shard, name) = (path.parent().unwrap().file_name().unwrap(), path.file_name().unwrap());
        format!("{}{}", shard.to_str().unwrap(), name.to_str().unwrap())
    };
    let stays = [
        named("unfinished", &place.path(cut)),
        named("unfinished", &unfinished),
        named("newer", &place.path(newer)),
        named("older", &place.path(older)),
        named("temporary", &temporary),
        named("unknown", &foreign[0]),
        named("unknown", &foreign[1]),
        named("unknown", &foreign[2]),
    ];
    let goes = [
        (format!("damaged: {damaged}"), damaged.to_string()),
        (named("no file", &link), id_of(&link)),
        (named("no file", &pipe), id_of(&pipe)),
        (named("no file", &directory), id_of(&directory)),
    ];
    let check = |ran: Ran, goes: &[String]| {
        let mut lines: Vec<_> = ran.out.lines().map(str::to_owned).collect();
        let summary = timeless(&lines.pop().unwrap());
        lines.sort_unstable();
        let mut wanted: Vec<_> = stays.iter().chain(goes).cloned().collect();
        wanted.sort_unstable();
        assert_eq!((lines, &*ran.err), (wanted, ""));
        summary
    };
    let before = tree(&place.root);
    let summary = check(run!("verify", place.root).ends(3), &goes.clone().map(|(line, _)| line));
    assert_eq!(summary, "6 sessions examined, 1 damaged, 11 other findings, 0 could not be read; T s");
    assert_eq!(tree(&place.root), before, "a look changes nothing");
    check(run!("verify", "--repair", place.root).ends(3), &goes.clone().map(|(line, id)| moved(line, &id)));
    let aside = |path: &Path| place.root.join("damaged").join(id_of(path));
    assert_eq!(fs::read_link(aside(&link)).unwrap(), place.path(live[0].live.id));
    assert_eq!(fs::read(aside(&directory).join("file")).unwrap(), b"mine");
    check(run!("verify", "--repair", place.root).ends(3), &[]);
    assert!(live.iter().all(|saved| place.is_live(&saved.token)));
    for path in [&unfinished, &place.path(cut), &place.path(newer), &temporary].into_iter().chain(&foreign) {
        assert!(path.exists(), "{path:?} is gone");
    }
}

#[test]
fn verify_names_what_has_a_name_of_the_store_and_another_kind() {
    let place = Place::new();
    place.live(1);
    let at = |name: &str| place.root.join(name);
    fs::remove_file(at("run/CACHEDIR.TAG")).unwrap();
    // The last directory and the last file have names that the library uses, but only in `run`.
    let directories = ["run/CACHEDIR.TAG", "run/due/400000", "due"];
    for name in directories {
        fs::create_dir(at(name)).unwrap();
    }
    let links = ["damaged", "run/due/400001"];
    for name in links {
        std::os::unix::fs::symlink(place.parent.path(), at(name)).unwrap();
    }
    fs::write(at("generations"), "").unwrap();
    let ran = run!("verify", place.root).ends(3);
    let mut named: Vec<_> = ran.out.lines().filter_map(|line| line.strip_prefix("unknown: ")).collect();
    named.sort_unstable();
    let mut wanted =
        [&directories[..], &links, &["generations"]].concat().iter().map(|name| at(name)).collect::<Vec<_>>();
    wanted.sort_unstable();
    assert_eq!(named.into_iter().map(PathBuf::from).collect::<Vec<_>>(), wanted, "{ran:#?}");
}

#[test]
fn verify_beside_a_server_that_creates_sessions_finds_nothing() {
    let place = Place::new();
    let done = Arc::new(AtomicBool::new(false));
    let (store, stop) = (place.store.clone(), done.clone());
    let writer = std::thread::spawn(move || {
        let mut made = 0;
        while !stop.load(Ordering::SeqCst) {
            let saved = store.create(&record("text"), RELAXED).unwrap();
            put(&*store, &saved.token, &"text".repeat(1000), RELAXED).unwrap();
            store.delete(&saved.token).unwrap();
            made += 1;
        }
        made
    });
    for _ in 0..20 {
        run!("verify", place.root).ends_well();
    }
    done.store(true, Ordering::SeqCst);
    assert!(writer.join().unwrap() > 20);
}

#[test]
fn a_repair_recreates_lost_directories_and_parameters() {
    let place = Place::new();
    let live = place.live(20);
    let parameters = place.root.join("sessile.json");
    let wanted = fs::read(&parameters).unwrap();
    let is_free = |shard: &&String| !place.root.join(shard).read_dir().unwrap().any(|_| true);
    let shards: Vec<_> = (0..256).map(|n| format!("{n:02x}")).collect();
    let shard = place.root.join(shards.iter().find(is_free).unwrap());
    let recreated = |paths: &[&Path]| {
        let mut lines: Vec<_> =
            paths.iter().map(|path| format!("lost: {}, recreated", path.display())).collect();
        let summary = "20 sessions examined, 0 damaged, N other findings, 0 could not be read; T s";
        lines.push(summary.replace('N', &paths.len().to_string()));
        lines.join("\n")
    };
    for lost in [&[&*shard][..], &[&*parameters], &[&*shard, &*parameters]] {
        for path in lost {
            if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }.unwrap();
        }
        let before = tree(&place.root);
        let found = run!("verify", place.root);
        assert_eq!(tree(&place.root), before, "a look changes nothing");
        assert!(
            found.err.contains("sessile verify --repair")
                && found.err.lines().count() == 1
                && found.code != 0,
            "{found:#?}"
        );
        let repaired = run!("verify", "--repair", place.root).ends(3);
        assert_eq!(timeless(&repaired.out), recreated(lost));
        assert_eq!(fs::read(&parameters).unwrap(), wanted);
        run!("verify", place.root).ends_well();
        assert!(live.iter().all(|saved| place.is_live(&saved.token)));
    }
    // An empty parameters file, as a failing disk may leave it.
    fs::write(&parameters, "").unwrap();
    assert_eq!(timeless(&run!("verify", "--repair", place.root).ends(3).out), recreated(&[&parameters]));
    assert_eq!(fs::read(place.root.join("damaged/sessile.json.0")).unwrap(), b"");
    run!("verify", place.root).ends_well();
    // A repair makes no store in a directory that holds none.
    for name in ["empty", "other"] {
        let dir = place.parent.path().join(name);
        fs::create_dir(&dir).unwrap();
        if name == "other" {
            fs::create_dir(dir.join("aa")).unwrap();
            fs::write(dir.join("index.html"), "mine").unwrap();
        }
        let before = tree(&dir);
        run!("verify", "--repair", dir).ends(1);
        assert_eq!(tree(&dir), before);
    }
    // The error for such a directory does not advise changing its permissions.
    let public = place.parent.path().join("empty");
    fs::set_permissions(&public, fs::Permissions::from_mode(0o1777)).unwrap();
    let ran = run!("verify", "--repair", public).ends(1);
    assert!(ran.err.ends_with(": there is no session store in it\n"), "{ran:#?}");
}

#[test]
fn a_repair_on_an_unwritable_disk_stops_and_has_listed_all() {
    let Some(root) = stage() else {
        let place = Place::new();
        for _ in 0..5 {
            place.damaged();
        }
        let name = "command::a_repair_on_an_unwritable_disk_stops_and_has_listed_all";
        return again_on_read_only_disk(name, &place);
    };
    let ran = run!("verify", "--repair", root).ends(1);
    let [first, last] = ran.err.lines().collect::<Vec<_>>()[..] else { panic!("two complaints: {ran:#?}") };
    assert!(first.ends_with("Read-only file system (os error 30)"), "{ran:#?}");
    assert_eq!(last, "sessile: 4 more were not moved");
    assert!(ran.out.contains(", 5 could not be moved; "), "{ran:#?}");
    assert_eq!(
        run!("verify", root).ends(3).out.lines().filter(|line| line.starts_with("damaged: ")).count(),
        5
    );
}

/// Runs a test again in a process for which the store's disk is read-only.
#[track_caller]
fn again_on_read_only_disk(test: &str, place: &Place) {
    let script = "mount --bind sessions sessions && mount -o remount,bind,ro sessions";
    again_in_mounts(test, place.parent.path(), "sessions", &[script]);
}

#[test]
fn a_repair_beside_a_server_disturbs_no_sound_session() {
    let place = Place::new();
    let server = place.server();
    let mut browsers: Vec<_> = (0..4).map(|_| Browser::new(server.address)).collect();
    for browser in &mut browsers {
        assert_eq!(browser.get("/").text(), "1");
    }
    let unlucky = browsers.pop().unwrap();
    let id = SessionId::parse(unlucky.jar.get("session").unwrap()).unwrap();
    fs::write(place.path(id.public_id()), [7; 4096]).unwrap();
    let repair = run!("verify", "--repair", place.root).ends(3);
    assert!(repair.out.starts_with(&format!("damaged: {}", id.public_id())), "{repair:#?}");
    for browser in &mut browsers {
        assert_eq!(browser.get("/").text(), "2");
    }
    let mut unlucky = unlucky;
    assert_eq!(unlucky.get("/").text(), "1", "a new session");
    assert_ne!(unlucky.jar.get("session"), Some(id.to_token().expose()));
    run!("verify", place.root).ends_well();
}

// ------------------------------------------------------------------------------------------------ show and delete

/// The way in which an id is passed to the command.
#[derive(Clone, Copy, Debug)]
enum By {
    Input,
    Variable,
    PublicId,
}

/// Runs `show` or `delete` with a session's id, and asserts that no output repeats the secret id.
#[track_caller]
fn one(by: By, arguments: &[&str], place: &Place, token: &Token) -> Ran {
    let mut command = sessile(arguments);
    command.arg(&place.root);
    let id = token.expose();
    let ran = match by {
        By::Input => finish_with(&mut command, format!("{id}\n")),
        By::Variable => finish(command.env("SESSILE_ID", id)),
        By::PublicId => {
            let digest = SessionId::parse(id).unwrap().public_id().to_string();
            finish(command.args(["--public-id", &digest]))
        }
    };
    assert!(!ran.out.contains(id) && !ran.err.contains(id), "{ran:#?}");
    ran
}

#[test]
fn show_prints_one_session_by_its_id_or_by_its_digest() {
    let place = Place::new();
    let mut record = record("hello");
    record.set_timing(Timing { created: UNIX_EPOCH + Duration::from_secs(1_700_000_000), ..record.timing() });
    record.set_timing(Timing {
        touched: record.timing().created + Duration::from_millis(1500),
        ..record.timing()
    });
    record
        .set_timing(Timing { deadline: UNIX_EPOCH + Duration::from_secs(9_999_999_999), ..record.timing() });
    record.set_timing(Timing { expiry: Expiry::After(HOUR), ..record.timing() });
    record.set_user("ada").unwrap();
    let saved = place.put(&record);
    let wanted = json!({
        "id": saved.live.id.to_string(),
        "created": "2023-11-14T22:13:20Z",
        "touched": "2023-11-14T22:13:21.5Z",
        "deadline": "2286-11-20T17:46:39Z",
        "expiry": {"after_micros": 3_600_000_000_u64},
        "user": "ada",
        "entries": {"text": "hello"},
    });
    for by in [By::Input, By::Variable, By::PublicId] {
        let words = one(by, &["show"], &place, &saved.token).ends_well();
        assert_eq!(serde_json::from_str::<Json>(&words.out).unwrap(), wanted, "{by:?}");
        assert!(words.out.lines().count() > 5, "for people");
        assert_eq!(one(by, &["show", "--json"], &place, &saved.token).ends_well().json(), wanted, "{by:?}");
    }
}

#[test]
fn show_and_delete_give_the_reason_for_absence() {
    let place = Place::new();
    let unknown = SessionId::random().unwrap();
    let (expired, damaged) = (place.expired(1).remove(0), place.damaged());
    for (token, why) in
        [(unknown.to_token(), "not found"), (expired.token, "expired"), (damaged.token, "damaged")]
    {
        let id = SessionId::parse(token.expose()).unwrap().public_id();
        for by in [By::Input, By::Variable, By::PublicId] {
            let words = one(by, &["show"], &place, &token).ends(3);
            assert_eq!(
                (&*words.out, words.err),
                ("", format!("sessile: no such session: {id} is {why}\n")),
                "{by:?}"
            );
            let json = one(by, &["show", "--json"], &place, &token).ends(3).json();
            assert_eq!(json, json!({"id": id.to_string(), "absent": why}));
        }
        let words = one(By::Input, &["delete"], &place, &token).ends(3);
        assert_eq!((&*words.out, words.err), ("", format!("sessile: no such session: {id}\n")));
        let json = one(By::Variable, &["delete", "--json"], &place, &token).ends(3).json();
        assert_eq!(json, json!({"id": id.to_string(), "deleted": false, "ended": null}));
    }
}

#[test]
fn delete_ends_the_sessions_of_a_user_or_all_in_a_running_server() {
    let place = Place::new();
    let put = |user: &str| {
        let mut record = record("hello");
        record.set_user(user).unwrap();
        place.put(&record).token
    };
    let [ada, also_ada, bob] = ["ada", "ada", "bob"].map(put);
    assert!([&ada, &also_ada, &bob].iter().all(|token| place.is_live(token)));
    let words = run!("delete", "--user", "ada", place.root).ends_well();
    assert_eq!((&*words.out, &*words.err), ("all sessions of the user ended: ada\n", ""));
    assert_eq!([&ada, &also_ada, &bob].map(|token| place.is_live(token)), [false, false, true]);
    assert_eq!(numbers(&run!("stat", "--json", place.root).ends_well().json(), ["live", "cut_off"]), [1, 2]);
    let json = run!("delete", "--user", "bob", "--json", place.root).ends_well().json();
    assert_eq!(json, json!({"user": "bob", "ended": true}));
    assert!(!place.is_live(&bob));
    // Ending the sessions of a user who has none is no error. Sessions of later logins live.
    run!("delete", "--user", "eve", place.root).ends_well();
    let eve = put("eve");
    assert!(place.is_live(&eve));
    assert_eq!(run!("verify", place.root).ends_well().err, "");
    let json = run!("delete", "--all", "--json", place.root).ends_well().json();
    assert_eq!(json, json!({"all": true, "ended": true}));
    assert!(!place.is_live(&eve));
    let swept = run!("sweep", "--json", place.root).ends_well().json();
    assert_eq!(numbers(&swept, ["removed", "cut_off"]), [4, 4]);
    assert!(run!("export", place.root).ends(0).out.contains("\"sessions\":0"));
    // `--all`, `--user` and an id exclude each other.
    run!("delete", "--all", "--user", "ada", place.root).ends(2);
    run!("delete", "--user", "ada", "--public-id", "00".repeat(20), place.root).ends(2);
    let none = run!("delete", "--user", "", place.root).ends(1);
    assert!(none.err.contains("the user is empty"), "{}", none.err);
}

#[test]
fn a_lost_log_of_cut_offs_is_reported_until_all_sessions_are_ended() {
    let place = Place::new();
    place.live(3);
    run!("verify", place.root).ends_well();
    let log = place.root.join("cutoffs");
    fs::remove_file(&log).unwrap();
    let ran = run!("verify", place.root).ends(3);
    assert!(
        ran.err.contains("cutoffs` is lost: it is missing; no session with a user is found"),
        "{}",
        ran.err
    );
    let ran = run!("delete", "--user", "ada", place.root).ends(1);
    assert!(ran.err.contains("restore it from a backup, or end all sessions"), "{}", ran.err);
    run!("delete", "--all", place.root).ends(0);
    assert!(log.is_file());
    run!("verify", place.root).ends_well();
    assert_eq!(numbers(&run!("stat", "--json", place.root).ends_well().json(), ["live", "cut_off"]), [0, 3]);
}

#[test]
fn delete_acts_at_once_in_a_server_that_caches_the_session() {
    let place = Place::new();
    let server = place.server();
    for by in [By::Input, By::Variable, By::PublicId] {
        let (mut browser, mut other) = (Browser::new(server.address), Browser::new(server.address));
        for n in 1..=3 {
            assert_eq!(browser.get("/").text(), n.to_string());
            assert_eq!(other.get("/").text(), n.to_string());
        }
        let hits = place.store.stats().hits;
        assert_eq!(browser.get("/").text(), "4");
        assert!(place.store.stats().hits > hits, "it is in memory");
        let token = Token::parse(browser.jar.get("session").unwrap()).unwrap();
        let id = SessionId::parse(token.expose()).unwrap().public_id();
        let ran = one(by, &["delete"], &place, &token).ends_well();
        assert_eq!(ran.out, format!("deleted: {id}\n"), "{by:?}");
        assert_eq!(browser.get("/").text(), "1", "{by:?}");
        assert_ne!(browser.jar.get("session"), Some(token.expose()));
        assert_eq!(other.get("/").text(), "4", "no other session is deleted");
        one(by, &["delete"], &place, &token).ends(3);
    }
    let saved = place.live(1).remove(0);
    let json = one(By::Input, &["delete", "--json"], &place, &saved.token).ends_well().json();
    let id = saved.live.id.to_string();
    assert_eq!(json, json!({"id": id, "deleted": true, "ended": id}));
    // A moved id: the session under its present id is ended.
    let saved = place.live(1).remove(0);
    let how = Rotation::new(Durability::OfStore).grace(Duration::from_secs(60));
    let successor = place.store.rotate(&saved.token, &mut |_| Ok(Verdict::Keep), &how).unwrap().unwrap();
    let json = one(By::Input, &["delete", "--json"], &place, &saved.token).ends_well().json();
    let (id, ended) = (saved.live.id.to_string(), successor.live.id.to_string());
    assert_eq!(json, json!({"id": id, "deleted": true, "ended": ended}));
}

#[test]
fn an_id_is_never_repeated_wherever_it_was_put_by_mistake() {
    let place = Place::new();
    let root = place.root.to_str().unwrap();
    let saved = place.live(1).remove(0);
    let id = saved.token.expose();
    let upper = id.to_uppercase();
    let (long, short, slip) = (format!("{id}a"), &id[..31], format!("{}1", &id[..31]));
    let option = format!("--{id}");
    let assigned = format!("--public-id={id}");
    let flag = format!("--json={id}");
    for verb in ["show", "delete"] {
        for (arguments, code) in [
            (&[verb, root, id][..], 2),
            (&[verb, id, root], 2),
            (&[verb, id], 1),
            (&[verb, root, &option], 2),
            (&[verb, root, &assigned], 2),
            (&[verb, root, "--public-id", id], 2),
            (&[verb, root, &flag], 2),
            (&[id, root], 2),
            (&[verb, root, "--public-id", &upper], 2),
            (&[verb, root, &long], 2),
            (&[verb, root, short], 2),
            (&[verb, root, &slip], 2),
        ] {
            check_hides(&finish(&mut sessile(arguments)), code, id);
            if code == 2 {
                let ran = finish(sessile(arguments).arg("--json"));
                check_hides(&ran, 2, id);
                check_json_error(&ran);
            }
        }
        let wrong_name = format!("session:{id}");
        for wrong in [&*upper, &long, short, &slip, &wrong_name, &format!("{id} {id}"), ""] {
            let mut command = sessile([verb, root]);
            let by_input = finish_with(&mut command, wrong);
            check_hides(&by_input, 2, id);
            let by_variable = finish(sessile([verb, root]).env("SESSILE_ID", wrong));
            check_hides(&by_variable, 2, id);
            let text =
                "sessile: no session id was given: it has 32 characters a-z, 2-7, alone or as name=value\n";
            assert_eq!((&*by_input.err, &*by_variable.err), (text, text));
        }
    }
    for line in [id.to_owned(), format!("{id:?}"), format!("{{{id:?}: 1}}"), format!("{{\"id\":{id:?}}}")] {
        check_hides(&place.import(&[line]), 3, id);
    }
    assert!(place.is_live(&saved.token));
}

/// Asserts that each line of standard error is a JSON object. Returns the texts of the errors.
#[track_caller]
fn check_json_error(ran: &Ran) -> String {
    assert!(!ran.err.is_empty(), "{ran:#?}");
    let error = |line: &str| {
        let json: Json = serde_json::from_str(line).unwrap_or_else(|_| panic!("{ran:#?}"));
        assert_eq!(keys(&json), ["error"]);
        json["error"].as_str().unwrap().to_owned()
    };
    ran.err.lines().map(error).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_id_is_taken_as_it_is_copied_from_a_browser() {
    let place = Place::new();
    let saved = place.put(&record("hello"));
    let id = saved.token.expose();
    let root = place.root.to_str().unwrap();
    for copied in [
        format!("session={id}"),
        format!("__Host-session={id}\n"),
        format!(" __Host-session = \"{id}\" "),
        format!("Cookie: theme=dark; session={id}; other=x=y"),
        format!("Set-Cookie: __Host-session={id}; Path=/; Secure; HttpOnly"),
    ] {
        let ran = finish_with(&mut sessile(["show", "--json", root]), copied.as_str()).ends_well();
        assert_eq!(ran.json()["id"], saved.live.id.to_string(), "{copied}");
        let by_variable = finish(sessile(["show", root]).env("SESSILE_ID", copied.trim_end())).ends_well();
        assert!(!by_variable.out.contains(id));
    }
    let two = format!("session={id}; other={}", SessionId::random().unwrap().to_token().expose());
    let ran = finish_with(&mut sessile(["delete", root]), two.as_str());
    check_hides(&ran, 2, id);
    assert_eq!(ran.err, "sessile: several session ids were given; give one\n");
    finish_with(&mut sessile(["delete", root]), format!("session={id}")).ends_well();
}

// ---------------------------------------------------------------------------------------------------- other users

const NOBODY: u32 = 65534;

/// For every file of a store: its owner, mode, size and modification time.
fn traces(dir: &Path) -> Vec<(PathBuf, u32, u32, u64, i64, i64)> {
    let mut paths = tree(dir);
    paths.push(dir.into());
    let trace = |path: PathBuf| {
        let stat = fs::symlink_metadata(&path).unwrap();
        (path, stat.uid(), stat.mode(), stat.size(), stat.mtime(), stat.mtime_nsec())
    };
    paths.into_iter().map(trace).collect()
}

/// The name of a user in the system's list of users.
fn user(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let found = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string())).unwrap();
    found.split(':').next().unwrap().into()
}

/// All verbs that only read, each with its exit code on a store that has an expired session, a damaged file and this
/// live session.
fn reading(saved: &Saved) -> [(Vec<String>, i32); 5] {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let id = saved.live.id.to_string();
    [
        (words(&["stat"]), 3),
        (words(&["verify"]), 3),
        (words(&["export"]), 3),
        (words(&["show", "--public-id", &id]), 0),
        (words(&["sweep", "--dry-run", "--full"]), 3),
    ]
}

#[test]
fn root_may_read_the_store_of_another_user_and_leaves_no_trace() {
    let place = Place::new();
    let saved = place.live(3).remove(0);
    place.expired(1);
    place.damaged();
    // A file that an opening for writing would recreate.
    fs::remove_file(place.root.join("run/generations")).unwrap();
    fs::remove_file(place.root.join("run/due/sweep")).unwrap();
    if rustix::process::geteuid().is_root() {
        for path in tree(&place.root).iter().chain([&place.root]) {
            std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    let before = traces(&place.root);
    for (arguments, code) in reading(&saved) {
        let ran = finish(sessile(&arguments).arg(&place.root)).ends(code);
        assert!(arguments[0] == "export" || ran.err.is_empty(), "{arguments:?}: {ran:#?}");
        assert_eq!(traces(&place.root), before, "{arguments:?}");
    }
}

#[test]
fn the_verbs_that_read_do_so_on_a_read_only_disk() {
    let Some(root) = stage() else {
        let place = Place::new();
        let saved = place.live(3).remove(0);
        place.expired(1);
        place.damaged();
        fs::write(place.parent.path().join("token"), saved.token.expose()).unwrap();
        return again_on_read_only_disk("command::the_verbs_that_read_do_so_on_a_read_only_disk", &place);
    };
    let token = Token::parse(&fs::read_to_string(root.with_file_name("token")).unwrap()).unwrap();
    let store = FileStoreOptions::new().read_only(true).open(&root).unwrap();
    let Lookup::Live(live) = store.load(&token).unwrap() else { panic!("it is live") };
    for (arguments, code) in reading(&Saved::new(token, live)) {
        finish(sessile(&arguments).arg(&root)).ends(code);
    }
    let ran = run!("sweep", root).ends(1);
    assert!(ran.err.ends_with("Read-only file system (os error 30)\n"), "{ran:#?}");
}

/// A copy of the command, to be run by a user without permissions.
fn sessile_of_nobody(place: &Place) -> std::process::Command {
    // The user may have no access to the build directory, so the command is copied. Another process makes the copy,
    // because a program cannot be run while a process has it open for writing.
    fs::set_permissions(place.parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = place.parent.path().join("sessile");
    let program = sessile([""]).get_program().to_owned();
    assert!(std::process::Command::new("cp").arg(program).arg(&copy).status().unwrap().success());
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = std::process::Command::new(copy);
    command.uid(NOBODY).gid(NOBODY).current_dir("/").stdin(Stdio::null());
    command
}

#[test]
fn no_error_about_a_shared_directory_advises_to_become_its_owner() {
    let place = Place::new();
    if !rustix::process::geteuid().is_root() {
        // The root directory belongs to another user on every system, and holds no store.
        let ran = finish(sessile(["import"]).arg("/")).ends(1);
        assert!(ran.err.contains("use a directory") && !ran.err.contains("sudo"), "{ran:#?}");
        return;
    }
    for (mode, want) in [
        (0o1777, "use a directory inside it"),
        (0o777, "use a directory inside it"),
        (0o755, "use a directory that"),
    ] {
        let shared = place.parent.path().join(format!("{mode:o}"));
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(mode)).unwrap();
        let ran = finish(sessile_of_nobody(&place).arg("import").arg(&shared)).ends(1);
        assert!(ran.err.contains(want) && !ran.err.contains("sudo"), "{mode:o}: {ran:#?}");
    }
}

#[test]
fn an_error_about_another_users_store_names_users_and_remedy() {
    let place = Place::new();
    place.live(1);
    let own = rustix::process::geteuid();
    // A store of another user, and a directory to which another user has closed the access. Only the superuser can make
    // both.
    let (dir, owner) = (&*place.root, NOBODY);
    if own.is_root() {
        std::os::unix::fs::chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let (owner, own_name) = (user(owner), user(own.as_raw()));
    let remedy = format!("run it as {owner}: sudo -u {owner} sessile …");
    let text = format!(
        "failed to change session store `{}`: it belongs to user {owner}, and this process runs as user {own_name}; {remedy}",
        dir.display()
    );
    let id = SessionId::random().unwrap().public_id().to_string();
    let changing: [&[&str]; 4] =
        [&["sweep"], &["delete", "--public-id", &id], &["import"], &["verify", "--repair"]];
    for arguments in changing.into_iter().filter(|_| own.is_root()) {
        let ran = finish(sessile(arguments).arg(dir)).ends(1);
        assert_eq!((&*ran.out, &*ran.err), ("", &*format!("sessile: {text}\n")), "{arguments:?}");
        assert_eq!(check_json_error(&finish(sessile(arguments).arg("--json").arg(dir)).ends(1)), text);
    }
    let (mut command, closed) = if own.is_root() {
        let closed = place.parent.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        (sessile_of_nobody(&place), closed)
    } else {
        (sessile::<&str>([]), PathBuf::from("/root"))
    };
    let dir = closed.join("sessions");
    let ran = finish(command.arg("stat").arg(&dir)).ends(1);
    let root = user(0);
    let because = format!("Permission denied (os error 13); run it as {root}: sudo -u {root} sessile …");
    assert_eq!(
        ran.err,
        format!("sessile: failed to open session directory `{}`: {because}\n", dir.display())
    );
}

#[test]
fn an_error_about_a_part_of_a_store_names_users_too() {
    let place = Place::new();
    let own = rustix::process::geteuid();
    if !own.is_root() {
        // Only the superuser can give a file of the store to another user. The root directory holds no store.
        let ran = finish(sessile(["import"]).arg("/")).ends(1);
        assert!(ran.err.contains(&format!(
            "belongs to user {}, this process runs as user {}",
            user(0),
            user(own.as_raw())
        )));
        return;
    }
    std::os::unix::fs::chown(place.root.join("77"), Some(NOBODY), None).unwrap();
    let ran = run!("sweep", place.root).ends(1);
    let want = format!("cannot be made private by user {}, for instance", user(0));
    assert!(
        ran.err.contains(&want) && ran.err.contains(&format!("(of user {}, mode", user(NOBODY))),
        "{ran:#?}"
    );
}

#[test]
fn a_path_is_shown_whole_in_errors_and_in_remedies() {
    let word = "abcdefghijklmnopqrstuvwxyzabcd";
    let place = Place::named(OsStr::new(word));
    fs::set_permissions(place.root.join("77"), fs::Permissions::from_mode(0o755)).unwrap();
    let root = place.root.display();
    let ran = run!("sweep", place.root).ends(1);
    for part in
        [format!("open session store `{root}`: "), format!("`{root}/77`"), format!("chmod -R go= {root};")]
    {
        assert!(ran.err.contains(&part), "{part}: {ran:#?}");
    }
    let ran =
        finish(sessile(["sweep"]).arg(place.parent.path().join("zyxwvutsrqponmlkjihgfedcbazyxw"))).ends(1);
    assert!(ran.err.contains("(left out: it may be a session's id)"), "there is no such directory: {ran:#?}");
}

#[test]
fn with_json_every_error_is_an_object_on_standard_error() {
    let place = Place::new();
    place.damaged();
    let missing = place.parent.path().join("missing");
    for verb in LOOKING {
        let error = check_json_error(&run!(verb, "--json", missing).ends(1));
        assert!(error.starts_with("failed to open session directory"), "{error}");
        let error = check_json_error(&run!("--json", verb).ends(2));
        assert!(error.starts_with("the following required arguments were not provided"), "{error}");
    }
    let root = place.root.to_str().unwrap();
    let error = check_json_error(&finish_with(&mut sessile(["import", "--json", root]), "x\n").ends(3));
    assert!(error.starts_with("line 1: column 1: expected value\nthe last line, "), "{error}");
    let error = check_json_error(&finish(&mut sessile(["show", "--json", root])).ends(2));
    assert!(error.starts_with("no session id was given"), "{error}");
    // The event of an opening that recreates a part of the store is printed as JSON, too.
    let bare = Place::new();
    let root = bare.root.to_str().unwrap();
    fs::remove_dir(bare.root.join("77")).unwrap();
    let ran = finish_with(&mut sessile(["import", "--json", "--partial", root]), "").ends(0);
    let want = format!("session directory `{root}` lacked shard directories, which were recreated: 77");
    assert_eq!(serde_json::from_str::<Json>(&ran.err).unwrap(), json!({"error": want}));
    // With `--json`, the summary of an export is a JSON object, too.
    let ran = run!("export", "--json", place.root).ends(3);
    let lines: Vec<Json> = ran.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((keys(&lines[0]), &lines[1]["damaged"]), (vec!["error"], &json!(1)));
    assert!(!run!("--json", "--help").ends_well().out.starts_with('{'));
}

#[track_caller]
fn check_hides(ran: &Ran, code: i32, id: &str) {
    assert_eq!(ran.code, code, "{ran:#?}");
    let said = format!("{}{}", ran.out, ran.err).to_lowercase();
    assert!(!said.contains(&id[..31]), "{ran:#?}");
}

#[test]
fn bytes_that_are_no_text_are_wrong_usage_and_no_panic() {
    let place = Place::new();
    let live = place.live(1).remove(0);
    let bytes = b"\xff\xfe\xfd";
    for verb in ["show", "delete"] {
        let mut command = sessile([OsStr::new(verb), place.root.as_ref()]);
        finish_with(&mut command, bytes).ends(2);
        // With a wrong argument, the command does not read its standard input.
        let mut command = sessile([OsStr::new(verb), place.root.as_ref()]);
        finish_with(command.env("SESSILE_ID", OsStr::from_bytes(bytes)), live.token.expose()).ends(2);
        finish(sessile([OsStr::new(verb), place.root.as_ref()]).arg(OsStr::from_bytes(bytes))).ends(2);
        finish(&mut sessile([OsStr::new(verb), OsStr::new("--public-id"), OsStr::from_bytes(bytes)])).ends(2);
    }
    finish(&mut sessile([OsStr::from_bytes(bytes)])).ends(2);
}

// ------------------------------------------------------------------------------------------------ export and import

/// Sessions with every kind of value, of expiry setting and of time.
fn all_kinds() -> Vec<Record> {
    let year_9999 = UNIX_EPOCH + Duration::from_secs(253_402_207_200);
    let deep =
        (0..64).fold(json!(1), |inner, n| if n % 2 == 0 { json!([inner]) } else { json!({"x": inner}) });
    let values = [
        json!(null),
        json!([true, false]),
        json!([0, -1, u64::MAX, i64::MIN, i64::MAX]),
        json!([
            0.1 + 0.2,
            1e308,
            -0.0,
            1.0,
            f64::MIN_POSITIVE,
            5e-324,
            f64::MAX,
            1.0 / 3.0,
            123_456_789.125e-300
        ]),
        json!(["", "naïve 🦀", "\u{0}\t\r\n\"\\", "\u{7f}\u{9b}31m\u{1b}[0m", "\u{202e}back", "\u{2028}"]),
        json!({"": {}, "a": [], "ü": {"x": [[[]]]}}),
        deep,
    ];
    let mut records = Vec::new();
    for (n, value) in values.iter().enumerate() {
        let mut record = record("value");
        record.insert(&format!("value {n} ü\u{1b}"), &Value::new(value).unwrap()).unwrap();
        records.push(record);
    }
    for (expiry, deadline) in [
        (Expiry::Default, year_9999 - Duration::from_micros(1)),
        (Expiry::After(Duration::from_micros(3_600_000_001)), year_9999),
        (Expiry::After(Duration::from_micros(u64::MAX)), year_9999 + 400 * DAY),
        (Expiry::At(year_9999), UNIX_EPOCH + Duration::from_micros(u64::MAX)),
        (Expiry::At(UNIX_EPOCH + Duration::from_micros(u64::MAX)), year_9999 + 4_000_000 * DAY),
        (Expiry::BrowserClose, SystemTime::now() + 14 * DAY),
    ] {
        let mut record = record("expiry");
        let created = UNIX_EPOCH;
        record.set_timing(Timing { created, deadline, expiry, ..record.timing() });
        record.set_user("Ada \"Ü\" \u{1b}[31m\u{85}").unwrap();
        records.push(record);
    }
    let mut ends_with_browser = record("ends with the browser");
    ends_with_browser.set_timing(Timing { ends_with_browser: true, ..ends_with_browser.timing() });
    let empty = Record::new(SystemTime::now(), SystemTime::now() + DAY);
    let mut large = record("large");
    large.insert("large", &Value::new(&"ä".repeat(100_000)).unwrap()).unwrap();
    let mut logged_in = record("logged in");
    logged_in.set_user("ada").unwrap();
    logged_in.set_login(Login { at: Some(year_9999), ..logged_in.login() });
    logged_in.set_device_note("Firefox on Linux, \u{1b}[31m \"ü\"").unwrap();
    records.extend([ends_with_browser, empty, large, logged_in]);
    records
}

#[test]
fn an_export_of_an_import_has_the_same_bytes() {
    let (old, new) = (Place::new(), Place::new());
    let saved: Vec<_> = all_kinds().iter().map(|record| old.put(record)).collect();
    old.expired(2);
    let exported = old.export();
    assert_eq!(exported.len(), saved.len());
    for line in &exported {
        let json: Json = serde_json::from_str(line).unwrap();
        let rare = ["ends_with_browser", "last_login", "device_note"];
        let always = keys(&json).into_iter().filter(|key| !rare.contains(key));
        assert_eq!(
            always.collect::<Vec<_>>(),
            ["created", "deadline", "entries", "expiry", "id", "touched", "user"]
        );
    }
    let imported = new.import(&exported).ends_well();
    let summary = format!("{} sessions imported, 0 were there, 0 had expired, 0 failed; T s", saved.len());
    assert_eq!(timeless(&imported.out), summary);
    assert_eq!(new.export(), exported);
    for Saved { token, live, .. } in &saved {
        assert_eq!(stored(&new.store, live.id), stored(&old.store, live.id));
        assert!(new.is_live(token));
    }
    // The import creates the store, and its saves are power-safe.
    let third = new.parent.path().join("third");
    let mut command = sessile([OsStr::new("import"), third.as_ref()]);
    let ran =
        finish_with(command.args(["--power-safe", "--json", "--partial"]), exported.join("\n")).ends_well();
    let kinds =
        ["deleted", "existing", "expired", "failed", "imported", "not_tried", "replaced", "seconds", "whole"];
    assert_eq!(keys(&ran.json()), kinds);
    assert_eq!(ran.json()["imported"], saved.len());
    let again = run!("export", third, "--json").ends(0);
    let mut lines = sessions_of(&again.out);
    lines.sort_unstable();
    assert_eq!(lines, exported);
    let summary: Json = serde_json::from_str(&again.err).unwrap();
    assert_eq!(keys(&summary), ["damaged", "exported", "failed", "seconds"]);
    assert_eq!(numbers(&summary, ["exported", "damaged", "failed"]), [saved.len() as u64, 0, 0]);
}

#[test]
fn the_old_cookie_is_logged_in_at_the_new_store() {
    let (old, new) = (Place::new(), Place::new());
    let mut session = old.sessions().session([]);
    session.login("ada").unwrap();
    session.insert("visits", 41).unwrap();
    session.save().unwrap();
    let token = session.token().unwrap().unwrap();
    let exported = old.export();
    assert!(!exported[0].contains(token.expose()));
    new.import(&exported).ends_well();
    let server = new.server();
    let mut browser = Browser::new(server.address);
    browser.jar.put("session", token.expose());
    assert_eq!(browser.get("/user").text(), "ada");
    assert_eq!(browser.get("/").text(), "42");
    assert_eq!(browser.jar.get("session"), Some(token.expose()));
}

#[test]
fn import_leaves_live_sessions_alone_and_skips_expired_ones() {
    let (old, new) = (Place::new(), Place::new());
    let sessions = old.live(3);
    let exported = old.export();
    new.import(&exported[..2]).ends_well();
    let there: Vec<_> = sessions.iter().filter(|saved| new.is_live(&saved.token)).collect();
    assert_eq!(there.len(), 2);
    let mut change = |record: &mut Record| {
        record.insert("text", &Value::new("newer")?).unwrap();
        Ok(Verdict::Write)
    };
    for saved in &there {
        new.store.update(&saved.token, &mut change, RELAXED).unwrap().unwrap();
    }
    let ghost = SessionId::random().unwrap();
    let mut expired: Json = serde_json::from_str(&exported[0]).unwrap();
    expired["id"] = ghost.public_id().to_string().into();
    expired["deadline"] = "2020-01-01T00:00:00Z".into();
    let lines = [exported, vec![String::new(), expired.to_string(), "  ".into()]].concat();
    let ran = new.import(&lines).ends_well();
    assert_eq!(timeless(&ran.out), "1 sessions imported, 2 were there, 1 had expired, 0 failed; T s");
    for saved in &there {
        assert_eq!(
            stored(&new.store, saved.live.id).entries().get("text").unwrap().get::<String>().unwrap(),
            "newer"
        );
    }
    assert!(!new.path(ghost.public_id()).exists());
}

#[test]
fn import_names_the_lines_it_cannot_read_and_goes_on() {
    let (old, new) = (Place::new(), Place::new());
    let sessions = old.live(4);
    let good = old.export();
    let with = |key: &str, value: Json| {
        let mut json: Json = serde_json::from_str(&good[0]).unwrap();
        json[key] = value;
        json["id"] = if key == "id" { json["id"].take() } else { "0".repeat(40).into() };
        json.to_string().into_bytes()
    };
    let too_deep = (0..65).fold(json!(1), |inner, _| json!([inner]));
    let bad: [Vec<u8>; 17] = [
        b"hello".into(),
        b"{".into(),
        b"{}".into(),
        b"[]".into(),
        b"\xff\xfe".into(),
        good[0].as_bytes()[..good[0].len() / 2].into(),
        format!("{}{}", good[0], good[0]).into(),
        with("id", json!("0123")),
        with("created", json!("yesterday")),
        with("expiry", json!("hunter2")),
        with("expiry", json!({", expected hunter2": 1})),
        with("entries", json!({"deep": too_deep})),
        with("hunter2\u{1b}[31m\u{9b}", json!(1)),
        with("user", json!({"password": "hunter2"})),
        with("cut_off", json!(-1)),
        with("user_digest", json!("hunter2")),
        with("device_note", json!("hunter2".repeat(40))),
    ];
    let mut input = Vec::new();
    for (n, bad) in bad.iter().enumerate() {
        // There is a good line before, between and after the bad ones.
        input.extend(good.get(n / 4).filter(|_| n % 4 == 0).map_or("", |line| line).as_bytes());
        input.push(b'\n');
        input.extend(bad);
        input.push(b'\n');
    }
    input.extend(last_line(4 + bad.len()).into_bytes());
    let ran = new.import_text(input).ends(3);
    assert_eq!(timeless(&ran.out), "4 sessions imported, 0 were there, 0 had expired, 17 failed; T s");
    let complaints: Vec<_> = ran.err.lines().collect();
    assert_eq!(complaints.len(), bad.len(), "{ran:#?}");
    for (n, complaint) in complaints.iter().enumerate() {
        assert!(complaint.starts_with(&format!("sessile: line {}: ", 2 * n + 2)), "{complaint}");
    }
    assert!(!ran.err.contains("hunter2"), "the content of a session is not repeated: {ran:#?}");
    assert!(sessions.iter().all(|saved| new.is_live(&saved.token)));
    assert_eq!(new.export().len(), 4);
}

#[test]
fn a_line_beyond_all_bounds_is_refused_and_the_next_one_is_read() {
    let (old, new) = (Place::new(), Place::new());
    let saved = old.live(1).remove(0);
    let mut input = vec![b' '; (128 << 20) + 10];
    input.extend(format!("\n{}\n{}\n", old.export()[0], last_line(2)).into_bytes());
    let ran = new.import_text(input).ends(3);
    assert_eq!(ran.err, "sessile: line 1: it is longer than any session is\n");
    assert!(new.is_live(&saved.token));
}

#[test]
fn an_incomplete_export_is_imported_and_reported() {
    let old = Place::new();
    old.live(3);
    let whole = run!("export", old.root).ends(0).out;
    let lines: Vec<&str> = whole.lines().collect();
    let missing = "the last line, which counts the sessions, is missing";
    let cut = [
        ("", 0, 0, missing),
        (&whole[..whole.len() - 1 - lines[3].len()], 3, 0, missing),
        (&whole[..whole.len() - 5], 3, 0, "line 4: column 29: EOF while parsing a string"),
        (&whole[..lines[0].len() + 20], 1, 1, missing),
        (&[lines[0], lines[2], lines[3]].join("\n"), 2, 0, "line 3: it counts 3 sessions, and there are 2"),
        (&whole.repeat(2)[..whole.len() + 10], 3, 1, missing),
    ];
    for (text, imported, failed, found) in cut {
        let new = Place::new();
        let ran = new.import_text(text).ends(3);
        let want = format!("{imported} sessions imported, 0 were there, 0 had expired, {failed} failed; T s");
        assert_eq!(timeless(&ran.out), want);
        let remedy = "the export was cut short, or is a part of one; with --partial that is as it should be";
        assert_eq!(ran.err.lines().last(), Some(&*format!("sessile: {found}: {remedy}")), "{text}");
        let root = new.root.to_str().unwrap();
        let json = finish_with(&mut sessile(["import", "--json", root]), text).ends(3).json();
        assert_eq!(json["whole"], false);
        if failed == 0 {
            finish_with(&mut sessile(["import", "--partial", root]), text).ends_well();
        }
    }
    // Two exports one after the other are imported as one input, because each ends with a line that counts its
    // sessions.
    let (other, new) = (Place::new(), Place::new());
    other.live(2);
    let both = whole + &run!("export", other.root).ends(0).out;
    let ran = new.import_text(both).ends_well();
    assert_eq!(timeless(&ran.out), "5 sessions imported, 0 were there, 0 had expired, 0 failed; T s");
}

#[test]
fn an_export_with_a_write_error_has_no_last_line() {
    let place = Place::new();
    let mut record = record("x");
    record.insert("text", &Value::new(&"x".repeat(100_000)).unwrap()).unwrap();
    for _ in 0..20 {
        place.put(&record);
    }
    // The export is cut short by a limit of the file's size, as by a full disk.
    let to = place.parent.path().join("export");
    let script = r#"ulimit -f 1000; trap '' XFSZ; exec "$0" export "$1" >"$2""#;
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]).arg(sessile([""]).get_program()).args([&place.root, &to]);
    assert_eq!(finish(&mut command).code, 1);
    let (ran, new) = (fs::read(&to).unwrap(), Place::new());
    assert!(ran.len() > 100_000, "a part of it is there");
    assert!(
        new.import_text(ran).ends(3).err.contains("the last line, which counts the sessions, is missing")
    );
}

#[test]
fn import_stops_at_an_unwritable_disk_and_can_be_repeated() {
    let name = "command::import_stops_at_an_unwritable_disk_and_can_be_repeated";
    let Some(disk) = stage() else {
        let old = Place::new();
        old.live(700);
        let dir = old.parent.path();
        fs::write(dir.join("export"), run!("export", old.root).ends(0).out).unwrap();
        return again_on_small_disk_in(dir, name, 8 << 20, 700);
    };
    let root = disk.join("store");
    drop(FileStoreOptions::new().watch(false).open(&root).unwrap());
    let export = fs::read(disk.with_file_name("export")).unwrap();
    let import = || finish_with(&mut sessile([OsStr::new("import"), root.as_ref()]), export.clone());
    let remount = |how: &str| {
        let status = std::process::Command::new("mount").args(["-o", how]).arg(&disk).status().unwrap();
        assert!(status.success());
    };
    let not_tried = |ran: &Ran, line: usize, reason: &str| {
        let [first, last] = ran.err.lines().collect::<Vec<_>>()[..] else {
            panic!("two complaints: {ran:#?}")
        };
        assert!(
            first.starts_with(&format!("sessile: line {line}: failed to ")) && first.ends_with(reason),
            "{first}"
        );
        let rest = 700 - line;
        let again = "import again when that is fixed: sessions that exist are left alone";
        assert_eq!(last, format!("sessile: {rest} lines were not tried; {again}"));
        assert!(ran.out.contains(&format!(", 1 failed, {rest} not tried; ")), "{ran:#?}");
    };
    remount("remount,ro");
    not_tried(&import().ends(1), 1, "Read-only file system (os error 30)");
    remount("remount,rw");
    let full = import().ends(1);
    let imported: usize = full.out.split(' ').next().unwrap().parse().unwrap();
    assert!(imported > 20, "{full:#?}");
    not_tried(
        &full,
        imported + 1,
        "no inodes left on the file system: No space left on device (os error 28)",
    );
    // The store has as many sessions as before the import, and no leftover of it.
    assert_eq!(run!("stat", "--json", root).ends_well().json()["live"], imported);
    let again = import().ends(1);
    assert!(again.out.starts_with(&format!("0 sessions imported, {imported} were there, ")), "{again:#?}");
}

#[test]
fn import_accepts_white_space_and_refuses_lossy_numbers() {
    let (old, new) = (Place::new(), Place::new());
    old.live(2);
    let good = old.export();
    let text = format!("\u{feff}{}\r\n\r\n{}\r\n{}\r\n", good[0], good[1], last_line(2));
    new.import_text(text).ends_well();
    assert_eq!(new.export(), good);

    let with = |from: &str, to: &str| {
        let (other, id) = (good[0].replacen(from, to, 1), SessionId::random().unwrap().public_id());
        assert_ne!(other, good[0], "nothing is replaced");
        let json: Json = serde_json::from_str(&good[0]).unwrap();
        other.replace(json["id"].as_str().unwrap(), &id.to_string())
    };
    let twice = "an object has the same name twice";
    let digits = "the number has more digits than can be kept";
    for (line, reason) in [
        (with(r#""text":"live""#, r#""text":18446744073709551616"#), digits),
        (with(r#""text":"live""#, r#""text":[{"n":-9223372036854775809}]"#), digits),
        (with(r#""text":"live""#, r#""text":12345678901234.567891"#), digits),
        (with(r#""text":"live""#, r#""text":1,"text":2"#), twice),
        (with(r#""text":"live""#, r#""text":[{"n":1,"n":1}]"#), twice),
        (with(r#""user":null"#, r#""user":null,"user":null"#), "duplicate field `user`"),
    ] {
        let ran = new.import(std::slice::from_ref(&line)).ends(3);
        assert!(
            ran.err.starts_with("sessile: line 1: column ") && ran.err.contains(reason),
            "{line}: {ran:#?}"
        );
    }
    let kept = with(r#""text":"live""#, r#""text":[18446744073709551615,-9223372036854775808,0.1,1e308]"#);
    new.import(&[kept]).ends_well();
}

#[test]
fn import_names_both_lines_that_have_the_same_id() {
    let (old, new) = (Place::new(), Place::new());
    old.live(2);
    let good = old.export();
    let other = good[0].replace(r#""text":"live""#, r#""text":"other""#);
    assert_ne!(other, good[0]);
    let ran = new.import(&[good[0].clone(), good[1].clone(), other]).ends(3);
    assert_eq!(ran.err, "sessile: line 3: it has the id of line 1, which was taken\n");
    assert_eq!(timeless(&ran.out), "2 sessions imported, 0 were there, 0 had expired, 1 failed; T s");
    assert_eq!(new.export(), good);
}

#[test]
fn an_unreadable_input_is_an_error_and_counts_as_stopped() {
    let place = Place::new();
    let mut command = sessile([OsStr::new("import"), place.root.as_ref()]);
    // The standard input is a directory.
    let child = command
        .stdin(File::open("/").unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ran = wait(child, Vec::new()).ends(1);
    assert_eq!(ran.err, "sessile: failed to read standard input: Is a directory (os error 21)\n");
    assert_eq!(timeless(&ran.out), "0 sessions imported, 0 were there, 0 had expired, 0 failed; T s");
}

#[test]
fn an_input_that_is_no_export_is_abandoned_after_100_lines() {
    let place = Place::new();
    let ran = place.import_text("id,user\n".repeat(5000)).ends(1);
    assert_eq!(ran.err.lines().count(), 103, "a hundred lines, and why it stopped");
    assert!(ran.err.contains("\nsessile: none of 100 lines is a session: this is no export\n"), "{ran:#?}");
    assert!(ran.out.contains("100 failed, 4,900 not tried; "), "{ran:#?}");
}

#[test]
fn a_hundred_sound_lines_that_cannot_be_placed_are_an_export() {
    let place = Place::new();
    let sessions = place.live(101);
    let exported = place.export();
    for saved in &sessions {
        fs::write(place.path(saved.live.id), [7; 4096]).unwrap();
    }
    let ran = place.import(&exported).ends(3);
    assert!(ran.out.contains("0 had expired, 101 failed; "), "{ran:#?}");
    assert_eq!(ran.err.matches("a damaged file is in its place").count(), 101, "{ran:#?}");
}

#[test]
fn an_export_of_another_form_is_not_taken_for_whole() {
    for arguments in [&["import"][..], &["import", "--partial"]] {
        let place = Place::new();
        let text = "{\"sessile_export\":2,\"sessions\":0,\"more\":[]}\n";
        let ran = finish_with(sessile(arguments).arg(&place.root), text).ends(3);
        let want = "sessile: line 1: the export has form 2, and this version of sessile knows 1: ";
        assert!(ran.err.starts_with(want) && ran.err.lines().count() == 1, "{ran:#?}");
    }
    // Of the parser's message only its fixed words are printed, not the name of the unknown field.
    let place = Place::new();
    let ran = place.import_text("{\"sessile_export\":1,\"sessions\":0,\"hunter2\":1}\n").ends(3);
    assert!(ran.err.contains("unknown field, expected ") && !ran.err.contains("hunter2"), "{ran:#?}");
}

#[test]
fn an_export_beside_a_writer_has_every_session_that_stays() {
    let place = Place::new();
    let (still, busy) = (place.live(50), place.live(5));
    let done = Arc::new(AtomicBool::new(false));
    let tokens: Vec<_> = busy.iter().map(|saved| saved.token.clone()).collect();
    let (store, stop, written) = (place.store.clone(), done.clone(), Arc::new(AtomicU64::new(0)));
    let rounds = written.clone();
    let writer = std::thread::spawn(move || {
        while !stop.load(Ordering::SeqCst) {
            let n = rounds.fetch_add(1, Ordering::SeqCst) + 1;
            // Each save gives two entries the same text. Its length changes, so that some saves need a larger file.
            let text = n.to_string().repeat(1 + usize::try_from(n % 300).unwrap());
            let mut change = |record: &mut Record| {
                record.insert("text", &Value::new(&text)?).unwrap();
                record.insert("twin", &Value::new(&text)?).unwrap();
                Ok(Verdict::Write)
            };
            for token in &tokens {
                store.update(token, &mut change, RELAXED).unwrap().unwrap();
            }
            let brief = store.create(&record("brief"), RELAXED).unwrap();
            store.delete(&brief.token).unwrap();
        }
    });
    // On a busy machine, the writer may not run during an export. The loop goes on until it has.
    for _ in (0..).take_while(|exports| *exports < 4 || written.load(Ordering::SeqCst) < 5) {
        assert!(!writer.is_finished(), "the writer goes on");
        let ran = run!("export", place.root).ends(0);
        let mut lines = std::collections::BTreeMap::new();
        for line in sessions_of(&ran.out) {
            let json: Json = serde_json::from_str(&line).unwrap();
            let id = json["id"].as_str().unwrap().to_owned();
            assert!(lines.insert(id, json).is_none(), "each session once");
        }
        assert!(still.iter().all(|saved| lines[&saved.live.id.to_string()]["entries"]["text"] == "live"));
        for saved in &busy {
            let entries = &lines[&saved.live.id.to_string()]["entries"];
            assert!(entries["text"] == entries["twin"] || entries["text"] == "live", "{entries}");
        }
    }
    done.store(true, Ordering::SeqCst);
    writer.join().unwrap();
}

#[test]
fn export_leaves_out_unreadable_sessions_and_says_so() {
    let place = Place::new();
    place.live(2);
    let damaged = place.damaged().live.id;
    let [newer, older] = ["newer", "older"].map(|text| place.put(&record(text)).live.id);
    for (id, format) in [(newer, 9), (older, 1)] {
        let mut bytes = fs::read(place.path(id)).unwrap();
        bytes[4] = format;
        fs::write(place.path(id), bytes).unwrap();
    }
    let ran = run!("export", place.root).ends(3);
    assert_eq!(sessions_of(&ran.out).len(), 2);
    let (complaints, summary) = ran.err.trim_end().rsplit_once('\n').unwrap();
    let mut complaints: Vec<_> = complaints.lines().collect();
    complaints.sort_unstable();
    let mut wanted = [
        format!("sessile: damaged, and left out: {damaged}"),
        format!("sessile: failed to read session {newer}: a newer version of sessile wrote it"),
        format!("sessile: failed to read session {older}: an earlier version of sessile wrote it"),
    ];
    wanted.sort_unstable();
    assert_eq!(complaints, wanted);
    assert_eq!(timeless(summary), "2 sessions exported, 1 damaged, 2 could not be read; T s");
}

// ---------------------------------------------------------------------------------------------------------- output

#[test]
fn a_reader_that_has_read_enough_ends_an_export_quietly() {
    let place = Place::new();
    let mut record = record("x");
    record.insert("text", &Value::new(&"x".repeat(100_000)).unwrap()).unwrap();
    for _ in 0..20 {
        place.put(&record);
    }
    let mut command = sessile([OsStr::new("export"), place.root.as_ref()]);
    let mut export = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    // The program reads one line, as `head -1` does, and closes the pipe.
    BufReader::new(export.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.ends_with("}\n"));
    let ran = wait(export, Vec::new()).ends(1);
    assert_eq!(ran.err, "");
}

#[test]
fn output_that_cannot_be_written_is_an_error_of_every_verb() {
    let place = Place::new();
    let saved = place.live(2);
    place.damaged();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let ids: Vec<_> = saved.iter().map(|saved| saved.live.id.to_string()).collect();
    for (arguments, code) in [
        (&["sweep"][..], 1),
        (&["sweep", "--json"], 1),
        (&["stat"], 1),
        (&["stat", "--json"], 1),
        (&["verify"], 1),
        (&["verify", "--json"], 1),
        (&["export"], 1),
        (&["import"], 1),
        (&["show", "--public-id", &ids[0]], 1),
        (&["delete", "--public-id", &ids[0]], 1),
        (&["delete", "--json", "--public-id", &ids[1]], 1),
    ] {
        let child =
            sessile(arguments).arg(&place.root).stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
        let ran = wait(child, Vec::new()).ends(code);
        let last = ran.err.lines().last();
        let text = "failed to write standard output: No space left on device (os error 28)";
        let json = format!(r#"{{"error":"{text}"}}"#);
        let wanted = if arguments.contains(&"--json") { json } else { format!("sessile: {text}") };
        assert_eq!(last, Some(&*wanted), "{arguments:?}");
    }
    // If standard error is closed, the exit code still reports the result.
    for (arguments, code) in [(&["verify"][..], 3), (&["export"], 3), (&["frobnicate"], 2)] {
        let child =
            sessile(arguments).arg(&place.root).stdout(Stdio::piped()).stderr(full()).spawn().unwrap();
        wait(child, Vec::new()).ends(code);
    }
}

/// Characters that are no control characters, and yet make a line look like another one, or like two.
const TURNING: [char; 4] = ['\u{202e}', '\u{2066}', '\u{2028}', '\u{2029}'];

/// Every run of the command in these tests asserts that no control character is printed. In this test, such characters
/// are in the store.
#[test]
fn nothing_that_lies_in_a_store_drives_a_terminal() {
    let place = Place::named(OsStr::new("\u{1b}]0;owned\u{7}\u{9b}31m\u{85}\n\u{202e}"));
    let mut record = record("\u{1b}[2J\u{7}\u{7f}\u{80}\u{9b}31m\r\u{202e}");
    record.set_user("\u{1b}c\u{9d}0;x\u{9c}\u{2028}\u{2029}").unwrap();
    record.insert("\u{2066}\u{2028}", &Value::new("\u{2029}").unwrap()).unwrap();
    record.insert("\u{1b}[1m\u{9b}1m", &Value::new(&json!({"\u{7f}\u{90}": 1})).unwrap()).unwrap();
    let saved = place.put(&record);
    fs::write(place.root.join("77/\u{1b}[31mred\u{9b}"), "mine").unwrap();
    fs::write(place.root.join("\u{1b}[31mred"), "mine").unwrap();

    for arguments in [&["show"][..], &["show", "--json"]] {
        let ran = one(By::Input, arguments, &place, &saved.token).ends_well();
        let json: Json = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(json["user"], record.user().unwrap());
        assert_eq!(json["entries"]["text"], record.entries().get("text").unwrap().to_json().unwrap());
        assert_eq!(json["entries"]["\u{1b}[1m\u{9b}1m"], json!({"\u{7f}\u{90}": 1}));
        assert_eq!(json["entries"]["\u{2066}\u{2028}"], "\u{2029}");
        assert!(!ran.out.contains(TURNING), "text that turns round looks like another");
    }
    assert_eq!(place.export().len(), 1);
    let exported = run!("export", place.root).ends(0).out;
    assert!(!exported.contains(TURNING), "{exported}");
    for verb in ["sweep", "stat"] {
        let ran = run!(verb, "--json", place.root).ends_well();
        assert!(verb == "sweep" || ran.json()["unknown"] == 2, "{ran:#?}");
        run!(verb, place.root).ends_well();
    }
    assert_eq!(run!("sweep", "--full", "--json", place.root).ends_well().json()["unknown"], 2);

    place.damaged();
    run!("verify", "--json", place.root).ends(3);
    let moved = run!("verify", "--repair", place.root).ends(3);
    let line = moved.out.lines().find(|line| line.starts_with("damaged: ")).unwrap();
    assert!(moved.out.contains(r"/77/\u{1b}[31mred\u{9b}"), "{moved:#?}");
    assert!(line.contains(r"\u{1b}]0;owned\u{7}\u{9b}31m\u{85}\u{a}\u{202e}/damaged/"), "{line}");
    // An error message that names a file.
    fs::rename(place.root.join("77"), place.parent.path().join("77")).unwrap();
    let id = "77".repeat(20);
    for arguments in [&["sweep"][..], &["stat"], &["export"], &["show", "--public-id", &id], &["verify"]] {
        let ran = finish(sessile(arguments).arg(&place.root));
        assert!(ran.code == 1 || ran.code == 3, "{ran:#?}");
        assert!(ran.err.contains(r"\u{1b}]0;owned"), "{ran:#?}");
    }
}

#[test]
fn a_directory_whose_name_is_not_utf_8_works() {
    let place = Place::named(OsStr::from_bytes(b"sessions \xff\xfe"));
    let live = place.live(2);
    place.expired(1);
    let exported = place.export();
    assert_eq!(exported.len(), 2);
    run!("sweep", "--full", "--json", place.root).ends_well();
    run!("stat", "--json", place.root).ends_well();
    one(By::Input, &["show"], &place, &live[0].token).ends_well();
    let ended = place.damaged();
    let json = run!("verify", "--json", place.root).ends(3).json();
    assert_eq!(json["found"][0]["id"], ended.live.id.to_string());
    let json = run!("verify", "--json", "--repair", place.root).ends(3).json();
    let moved_to = json["found"][0]["moved_to"].as_str().unwrap();
    assert!(moved_to.contains("/sessions \u{fffd}\u{fffd}/damaged/"), "{moved_to}");
    place.damaged();
    run!("verify", "--repair", place.root).ends(3);
    one(By::Input, &["delete"], &place, &live[0].token).ends_well();
    let missing = place.parent.path().join(OsStr::from_bytes(b"missing \xff"));
    for verb in LOOKING {
        run!(verb, missing).ends(1);
    }
}
