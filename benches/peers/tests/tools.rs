//! The tools, run as programs.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PEERS: &str = env!("CARGO_BIN_EXE_peers");
const LOAD_CHECK: &str = env!("CARGO_BIN_EXE_load-check");

/// A small comparison in a directory of its own.
fn peers(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(PEERS);
    // Servers also put their sockets there.
    command.env("TMPDIR", dir).arg("--dir").arg(dir).args(["--sessions", "50", "--bytes", "512"]);
    command.args(["--threads", "1", "--seconds", "0.01"]).args(words);
    command.stdin(Stdio::null());
    command
}

/// The output, on either stream.
fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn dir() -> TempDir {
    // All users may traverse it, and the tool recognises its name when it lets PostgreSQL's user pass.
    tempfile::Builder::new().prefix("peers-test-").tempdir().unwrap()
}

#[test]
fn each_thing_is_measured_once_however_often_it_is_named() {
    let dir = dir();
    let json = dir.path().join("figures.jsonl");
    let mut command =
        peers(dir.path(), &["--who", "sqlite,sessile,sqlite", "--operations", "load,update,load"]);
    command.arg("--json").arg(&json);
    let (ok, text) = said(&mut command);
    assert!(ok, "{text}");
    let lines = fs::read_to_string(&json).unwrap();
    let mut of: Vec<_> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["operation"] != "space")
        .map(|line| format!("{} {} {}", line["operation"], line["durability"], line["who"]).replace('"', ""))
        .collect();
    of.sort_unstable();
    let expected = [
        "load relaxed sessile",
        "load relaxed sqlite",
        "update power_safe sessile",
        "update power_safe sqlite",
        "update relaxed sessile",
        "update relaxed sqlite",
    ];
    assert_eq!(of, expected);
    assert_eq!(names(dir.path()), ["figures.jsonl"]);
}

/// A file with marks for the figures of an option.
fn page(path: &Path, option: &str) {
    let begin = format!("<!-- figures: written by `peers {option}` -->\n");
    fs::write(path, format!("before\n{begin}old\n<!-- end of the figures -->\nafter\n")).unwrap();
}

#[test]
fn the_mix_has_three_rows_and_is_in_the_pages_and_the_picture() {
    let dir = dir();
    let [json, plot, readme, details] =
        ["figures.jsonl", "figures.svg", "readme.md", "details.md"].map(|name| dir.path().join(name));
    page(&readme, "--readme");
    page(&details, "--details");
    let mut command = peers(dir.path(), &["--who", "sqlite,sessile", "--operations", "mix,load_cached,load"]);
    command.arg("--json").arg(&json).arg("--plot").arg(&plot);
    command.arg("--readme").arg(&readme).arg("--details").arg(&details);
    let (ok, text) = said(&mut command);
    assert!(ok, "{text}");
    let lines = fs::read_to_string(&json).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let lines: Vec<_> = lines.filter(|line| line["operation"] != "space").collect();
    let keys = |line: &serde_json::Value| line.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert!(lines.iter().all(|line| keys(line) == keys(&lines[0])), "{lines:?}");
    let mixes = lines.iter().filter(|line| line["operation"] == "mix");
    let mut of: Vec<_> =
        mixes.map(|line| format!("{} {}", line["durability"], line["who"]).replace('"', "")).collect();
    of.sort_unstable();
    assert_eq!(
        of,
        ["defaults sessile", "power_safe sessile", "power_safe sqlite", "relaxed sessile", "relaxed sqlite"]
    );
    for (page, title) in [(readme, "\nMix, power-safe "), (details, "\nLoad ")] {
        let page = fs::read_to_string(page).unwrap();
        assert!(page.starts_with("before\n") && page.ends_with("after\n") && !page.contains("old"), "{page}");
        assert!(page.contains(title) && page.contains("| **mix**, relaxed"), "{page}");
    }
    assert!(fs::read_to_string(plot).unwrap().contains("Mix, power-safe"));
}

#[test]
fn loads_from_memory_are_compared_with_lmdb_in_three_orders() {
    let dir = dir();
    let (ok, text) = said(&mut peers(dir.path(), &["--hits", "--rounds", "1"]));
    assert!(ok, "{text}");
    let rows: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let of = |name: &str| rows.iter().find(|row| row.join(" ").starts_with(name)).expect(name);
    for order in ["50 64 of them", "50 Zipf", "50 each equally likely"] {
        let [.., sessile, "ns", lmdb, "ns", ratio, _, _] = of(order)[..] else { panic!("{text}") };
        let [sessile, lmdb, ratio] = [sessile, lmdb, ratio].map(|number| number.parse::<f64>().unwrap());
        assert!(sessile > 0.0 && (0.9..1.1).contains(&(lmdb / sessile / ratio)), "{order}: {text}");
    }
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn a_page_without_marks_is_refused_before_the_work() {
    let dir = dir();
    let path = dir.path().join("page.md");
    // The marks of the other page are no marks.
    page(&path, "--readme");
    let (ok, text) = said(peers(dir.path(), &["--details"]).arg(&path));
    assert!(!ok && text.contains("page.md: it has no marks for the figures"), "{text}");
    assert!(!text.contains("operations per second"), "{text}");
}

#[test]
fn what_cannot_be_written_is_known_before_the_work() {
    let dir = dir();
    for option in ["--json", "--plot", "--readme", "--details"] {
        let (ok, text) = said(&mut peers(dir.path(), &[option, "/nonexistent/figures"]));
        assert!(!ok && text.contains("/nonexistent/figures"), "{text}");
        assert!(!text.contains("operations per second"), "{text}");
    }
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn a_turn_that_does_not_end_is_refused() {
    let dir = dir();
    for (tool, seconds) in [(PEERS, "nan"), (PEERS, "0"), (LOAD_CHECK, "-1"), (LOAD_CHECK, "inf")] {
        let mut command = Command::new(tool);
        command.arg("--dir").arg(dir.path()).arg(format!("--seconds={seconds}"));
        let (ok, text) = said(&mut command);
        assert!(!ok && text.contains("a number of seconds, from"), "{tool} {seconds}: {text}");
    }
}

/// Ends even if a test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn stop(&self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }
    /// Checks the message of a process that ends on request.
    fn ends(&mut self) {
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(!self.0.wait().unwrap().success());
        assert!(said.contains("stopped before the end"), "{said}");
    }
}

fn wait_until(it_is: impl Fn() -> bool) {
    let began = Instant::now();
    while !it_is() {
        assert!(began.elapsed() < Duration::from_secs(60), "the tool does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes whose command line contains a directory.
fn processes_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let commands = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let commands = commands.map(|words| String::from_utf8_lossy(&words).replace('\0', " "));
    commands.filter(|words| words.contains(dir.to_str().unwrap())).collect()
}

#[test]
fn a_stopped_comparison_leaves_no_server_and_no_directory() {
    let dir = dir();
    let mut command = peers(dir.path(), &["--operations", "update", "--rounds", "1000"]);
    let mut running = Running(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    // The tool itself, and Redis if it is installed: by then all peers but PostgreSQL are filled.
    let redis = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_ok();
    wait_until(|| processes_in(dir.path()).len() > usize::from(redis));
    wait_until(|| !names(dir.path()).is_empty());
    running.stop();
    running.ends();
    assert_eq!(names(dir.path()), [""; 0]);
    assert_eq!(processes_in(dir.path()), [""; 0]);
}

#[test]
fn a_load_check_that_is_stopped_leaves_no_directory() {
    let dir = dir();
    let mut command = Command::new(LOAD_CHECK);
    command.args(["--visitors", "50", "--connections", "4", "--seconds", "0.2", "--rounds", "1000"]);
    command.arg("--dir").arg(dir.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    wait_until(|| !names(dir.path()).is_empty());
    running.stop();
    running.ends();
    assert_eq!(names(dir.path()), [""; 0]);
}
