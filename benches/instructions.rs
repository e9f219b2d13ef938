//! User-space instructions of one operation, counted by valgrind: the count is the same on a busy machine.
//!
//! Each operation runs in two processes, with different counts. The difference is divided, so the start of the process
//! and the creation of its sessions cancel out. Instructions of the kernel are not counted. A count depends on the
//! compiler, and a little on the processor, because the C library chooses its copying functions by it.
//!
//! ```text
//! cargo bench --bench instructions                      # fails if an operation takes more than its limit
//! cargo bench --bench instructions -- --write-limits    # makes the counts of this run, and 10 %, the limits
//! ```
//!
//! `instructions/limits.txt` has the limits and the goals.
#[path = "common/mod.rs"]
mod common;

use sessile::{Cookies, Durability, FileStoreOptions, Live, Lookup, Record, Sessions, Store, Token};
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Number of sessions that the operations use in turn.
const SESSIONS: usize = 256;
/// Calls in the first process and in the second.
const FEW: u64 = 1000;
const MANY: u64 = 5000;
/// The room that a limit leaves above a count, in percent. Counts differ by less than one with the random ids, and by
/// some more from one processor to another, because the copies of memory and BLAKE3 choose their code by it.
const ROOM: u64 = 10;
const LIMITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/limits.txt");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    /// A load of a session that is in memory.
    Hit,
    /// The same, and reading a number in it.
    HitGet,
    /// A load of a session file, by a store without a cache, and reading a number in it.
    MissGet,
    /// A relaxed change of one entry of a session that is in memory.
    Update,
    /// A relaxed creation.
    Create,
    /// A request that reads a number in its session, from its cookie header to its response's header pairs.
    RequestRead,
    /// A request with a cookie whose handler does not use the session.
    RequestUntouched,
}

impl Operation {
    const ALL: [Self; 7] = [
        Self::Hit,
        Self::HitGet,
        Self::MissGet,
        Self::Update,
        Self::Create,
        Self::RequestRead,
        Self::RequestUntouched,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::HitGet => "hit-get",
            Self::MissGet => "miss-get",
            Self::Update => "update",
            Self::Create => "create",
            Self::RequestRead => "request-read",
            Self::RequestUntouched => "request-untouched",
        }
    }

    fn cache_bytes(self) -> usize {
        if self == Self::MissGet { 0 } else { usize::MAX }
    }

    /// Performs the operation this many times, and asserts each result.
    fn perform(self, count: u64) {
        let site = Site::new(self.cache_bytes());
        match self {
            Self::Hit => site.repeat(count, |store, token| {
                black_box(load(store, token));
            }),
            Self::HitGet | Self::MissGet => {
                site.repeat(count, |store, token| assert_eq!(get(store, token), 1));
            }
            Self::Update => site.repeat(count, |store, token| {
                assert!(common::count_visit(store, token, Durability::Relaxed).is_some());
            }),
            Self::Create => {
                let records = records(site.sessions.store());
                let mut records = records.iter().cycle();
                site.repeat(count, |store, _| {
                    let record = records.next().expect("a cycle has no end");
                    black_box(store.create(record, Durability::Relaxed).expect("a session"));
                });
            }
            Self::RequestRead => site.requests(count, true),
            Self::RequestUntouched => site.requests(count, false),
        }
    }
}

/// Sessions, each of which was loaded once.
struct Site {
    sessions: Sessions,
    tokens: Vec<Token>,
    _dir: TempDir,
}

impl Site {
    fn new(cache_bytes: usize) -> Self {
        let dir = common::directory();
        // A watcher's thread would be counted.
        let options = FileStoreOptions::new().cache_bytes(cache_bytes).watch(false);
        let store = options.open(dir.path()).expect("a store");
        let create = |record| store.create(record, Durability::Relaxed).expect("a session").token;
        let tokens: Vec<_> = records(&store).iter().map(create).collect();
        for token in &tokens {
            assert_eq!(get(&store, token), 1);
        }
        let sessions = Sessions::new(store, Cookies::plain_http()).expect("options that agree");
        Self { sessions, tokens, _dir: dir }
    }

    fn repeat(&self, count: u64, mut operation: impl FnMut(&dyn Store, &Token)) {
        let store = black_box(self.sessions.store());
        (0..count).zip(self.tokens.iter().cycle()).for_each(|(_, token)| operation(store, token));
    }

    /// Requests with one cookie each.
    fn requests(&self, count: u64, reads: bool) {
        let header = |token: &Token| format!("session={}", token.expose());
        let headers: Vec<_> = self.tokens.iter().map(header).collect();
        for (_, header) in (0..count).zip(headers.iter().cycle()) {
            let visit = self.sessions.visit(black_box(&**header));
            if reads {
                assert_eq!(visit.get::<u64>("visits").expect("a session"), Some(1));
            }
            // A response that depends on the session says so in at least one header.
            assert_eq!(visit.finish(200).expect("no failure").is_empty(), !reads);
        }
    }
}

/// A record for each session, of different users, as on a site. (Their files in the user index are made with the first
/// sessions, and none has so many entries that it is compacted.)
fn records(store: &dyn Store) -> Vec<Record> {
    let of = |n| common::record(store).with_user(&format!("user-{n:07}")).expect("a short one");
    (0..SESSIONS).map(of).collect()
}

fn load(store: &dyn Store, token: &Token) -> Live {
    match store.load(token) {
        Ok(Lookup::Live(live)) => live,
        other => panic!("a session is not live: {other:?}"),
    }
}

fn get(store: &dyn Store, token: &Token) -> u64 {
    load(store, token).record.entries().get("visits").expect("it has one").get().expect("a number")
}

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Instructions of a process of this program that performs an operation this many times.
fn instructions(operation: Operation, count: u64, dir: &Path) -> Outcome<u64> {
    let out = dir.join(format!("{}-{count}", operation.name()));
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
    valgrind.arg(std::env::current_exe()?).args(["--perform", operation.name(), &count.to_string()]);
    let output = valgrind.stdin(Stdio::null()).output().map_err(|error| format!("valgrind: {error}"))?;
    if !output.status.success() {
        return Err(format!("{valgrind:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let profile = fs::read_to_string(&out)?;
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or("callgrind wrote no totals")?.trim().parse()?)
}

/// A line of the file of limits.
struct Limit {
    operation: Operation,
    most: u64,
    goal: Option<u64>,
}

/// Each operation has one line in the file, in their order: name, limit, goal.
fn read_limits(text: &str) -> Outcome<Vec<Limit>> {
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    if lines.len() != Operation::ALL.len() {
        return Err(
            format!("{LIMITS} has {} lines for {} operations", lines.len(), Operation::ALL.len()).into()
        );
    }
    let read = |(operation, line): (Operation, &&str)| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [name, most, goal] if name == operation.name() => {
            let goal = if goal == "-" { None } else { Some(goal.parse()?) };
            Ok(Limit { operation, most: most.parse()?, goal })
        }
        _ => Err(format!("{LIMITS}: `{line}` is not the limit of {}", operation.name()).into()),
    };
    Operation::ALL.into_iter().zip(&lines).map(read).collect()
}

/// The file for these counts, which were made with this compiler.
fn write_limits(counts: &[(Limit, u64)], compiler: &str) -> String {
    let mut text = format!(
        "# User-space instructions of one operation: its limit, which is {ROOM} % above a count, and its goal.\n\
         # Written by `cargo bench --bench instructions -- --write-limits` with {compiler}.\n"
    );
    for (Limit { operation, goal, .. }, count) in counts {
        let (most, goal) = (count * (100 + ROOM) / 100, goal.map_or("-".into(), |goal| goal.to_string()));
        writeln!(text, "{:18} {most:>7} {goal:>7}", operation.name()).expect("a string grows");
    }
    text
}

/// Counts all operations, prints them beside their limits and goals, and compares them or makes them the limits.
fn measure(writes_limits: bool) -> Outcome<()> {
    let text = fs::read_to_string(LIMITS)?;
    let limits = read_limits(&text)?;
    let dir = common::directory();
    let mut counts = Vec::new();
    println!("{:18} {:>12} {:>8} {:>8} {:>8}", "operation", "instructions", "limit", "goal", "to go");
    for limit in limits {
        let (few, many) = (
            instructions(limit.operation, FEW, dir.path())?,
            instructions(limit.operation, MANY, dir.path())?,
        );
        let count = many.saturating_sub(few) / (MANY - FEW);
        assert_ne!(count, 0, "{:?} was not performed", limit.operation);
        let goal = limit.goal.map_or("-".into(), |goal| goal.to_string());
        let to_go = limit.goal.map_or("-".into(), |goal| count.saturating_sub(goal).to_string());
        println!("{:18} {count:>12} {:>8} {goal:>8} {to_go:>8}", limit.operation.name(), limit.most);
        counts.push((limit, count));
    }
    let compiler = String::from_utf8(Command::new("rustc").arg("--version").output()?.stdout)?;
    if writes_limits {
        return Ok(fs::write(LIMITS, write_limits(&counts, compiler.trim()))?);
    }
    let over: Vec<_> = counts
        .iter()
        .filter(|(limit, count)| *count > limit.most)
        .map(|(limit, _)| limit.operation.name())
        .collect();
    if over.is_empty() {
        return Ok(());
    }
    let other =
        if text.contains(compiler.trim()) { "" } else { "; the limits were written with another compiler" };
    Err(format!("over the limit: {}{other}", over.join(", ")).into())
}

fn main() -> Outcome<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).filter(|word| *word != "--bench").collect();
    match words[..] {
        [] => measure(false),
        ["--write-limits"] => measure(true),
        ["--perform", name, count] => {
            let operation = Operation::ALL.into_iter().find(|operation| operation.name() == name);
            operation.ok_or("no such operation")?.perform(count.parse()?);
            Ok(())
        }
        _ => Err(format!("unknown arguments: {words:?}").into()),
    }
}
