//! Faults injected from outside: `strace` replaces the results of system calls in a running process. The unit tests of
//! the engine fail only the calls that pass the failpoint of `src/file/disk.rs`. Here any call of the process can fail,
//! so none can bypass the tests. The tests need `strace` and the permission to trace processes, so they are run by
//! name: `cargo test --test it from_outside -- --ignored`.
use crate::support::process::{Child, Parent, Start, Worker};
use crate::support::texts::{directory_in_memory, files_in_shards, load, put, record, text_of};
use sessile::reaper::Reaper;
use sessile::{
    Durability, Error, FileStore, FileStoreOptions, Lookup, ReaperOptions, Record, Rotation, Store, Token,
    Value, Verdict,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const WORKERS: &[(&str, Worker)] =
    &[("perform operations", perform_operations), ("log visitors in and out", log_in_and_out)];

/// The time that starting or stopping `strace` may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn open(dir: &Path) -> FileStore {
    // The cache is too small for any session, so each load reads the file. (A store with the cache switched off would
    // also examine the log of cut-offs.)
    FileStoreOptions::new().watch(false).cache_bytes(1).open(dir).unwrap()
}

/// A worker process: performs the operation that each line names, on one session. Answers with the error, the result,
/// or the session's text.
fn perform_operations(parent: &Parent) {
    let dir = Path::new(parent.argument("DIR"));
    let shared = Arc::new(open(dir));
    let store = &*shared;
    parent.report(std::process::id());
    let mut token = renewed(store);
    loop {
        let line = parent.line();
        let done: Result<bool, Error> = match line.as_str() {
            "begin" => {
                token = renewed(store);
                Ok(true)
            }
            "text" => {
                let text = load(store, &token).unwrap();
                parent.report(text.map_or("absent".into(), |text| text.chars().take(3).collect::<String>()));
                continue;
            }
            "load" => store.load(&token).map(|found| matches!(found, Lookup::Live(_))),
            "save" => put(store, &token, "new", Durability::Relaxed).map(|saved| saved.is_some()),
            "save safely" => put(store, &token, "new", Durability::PowerSafe).map(|saved| saved.is_some()),
            "grow" => {
                put(store, &token, &"new".repeat(2000), Durability::Relaxed).map(|saved| saved.is_some())
            }
            "create safely" => store.create(&record("new"), Durability::PowerSafe).map(|_| true),
            "create masked" => masked(|| store.create(&record("new"), Durability::Relaxed)).map(|_| true),
            "grow masked" => {
                let text = "new".repeat(2000);
                masked(|| put(store, &token, &text, Durability::Relaxed)).map(|saved| saved.is_some())
            }
            #[cfg(feature = "watch")]
            "watch" => match FileStoreOptions::new().open(dir).unwrap().watch_error() {
                None => Ok(true),
                Some(error) => {
                    parent.report(innermost(error).split(" about ").next().unwrap());
                    continue;
                }
            },
            "reap" => Reaper::start(&shared, ReaperOptions::new()).map(|reaper| reaper.close().panics == 0),
            "rotate" => {
                store.rotate(&token, &mut renamed, &Durability::Relaxed.into()).map(|saved| saved.is_some())
            }
            "move" => {
                let how = Rotation::new(Durability::Relaxed).grace(Duration::from_secs(1));
                store.rotate(&token, &mut renamed, &how).map(|saved| saved.is_some())
            }
            "end" => store.delete(&token).map(|ended| ended.is_some()),
            "end what is not there" => {
                store.delete(&token).unwrap();
                parent.report("true");
                assert_eq!(parent.line(), "go on");
                let made_up = (0..STRANGERS).map(stranger).chain([token.clone()]);
                made_up
                    .map(|token| store.delete(&token))
                    .try_fold(true, |none, ended| Ok(none && ended?.is_none()))
            }
            _ => return,
        };
        parent.report(done.map_or_else(|error| format!("{:?}", error.kind()), |done| done.to_string()));
    }
}

/// The number of logouts with an unknown id.
const STRANGERS: u32 = 1000;

/// A token whose id this store has not made.
fn stranger(n: u32) -> Token {
    let letters = (0..32).map(|at| if at < 30 { char::from(b'a' + (n >> (at % 32) & 1) as u8) } else { 'q' });
    Token::parse(&letters.collect::<String>()).unwrap()
}

/// A worker process: creates and ends sessions, fifty of each a second, until it is told to stop.
fn log_in_and_out(parent: &Parent) {
    let store = open(Path::new(parent.argument("DIR")));
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let visitors = thread::spawn(move || {
        let mut ended = 0;
        while !over.load(Relaxed) {
            let token = store.create(&record("x"), Durability::Relaxed).unwrap().token;
            ended += u32::from(store.delete(&token).unwrap().is_some());
            thread::sleep(Duration::from_millis(20));
        }
        ended
    });
    parent.report("begun");
    parent.line();
    is_over.store(true, Relaxed);
    parent.report(visitors.join().unwrap());
}

/// Runs `operation` with a umask that removes the write permission of new files.
fn masked<T>(operation: impl FnOnce() -> T) -> T {
    let mask = |mode| rustix::process::umask(rustix::fs::Mode::from_raw_mode(mode));
    let usual = mask(0o277);
    let done = operation();
    mask(usual.as_raw_mode());
    done
}

#[cfg(feature = "watch")]
fn innermost(mut error: &dyn std::error::Error) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Creates a session with the text "old", whose other slot holds an older version.
fn renewed(store: &FileStore) -> Token {
    let token = store.create(&record("ancient"), Durability::PowerSafe).unwrap().token;
    put(store, &token, "old", Durability::PowerSafe).unwrap().unwrap();
    token
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of a change")]
fn renamed(record: &mut Record) -> sessile::Result<Verdict> {
    assert_eq!(text_of(record), "old");
    record.insert("text", &Value::new("new").unwrap()).unwrap();
    Ok(Verdict::Write)
}

/// An `strace` that traces a process. When it is dropped, the process continues without it.
struct Tracer(std::process::Child);

impl Tracer {
    fn of(pid: &str, arguments: &[&str]) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-p", pid]).args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let tracer = Self(strace.stderr(Stdio::null()).spawn().expect("strace is installed"));
        let threads = || fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
        // The status of a thread that has ended meanwhile cannot be read.
        let is_traced = |task: &Path| {
            let status = fs::read_to_string(task.join("status"));
            status.map_or(true, |status| !status.lines().any(|line| line == "TracerPid:\t0"))
        };
        let until = Instant::now() + PATIENCE;
        while !threads().all(|task| is_traced(&task)) {
            assert!(Instant::now() < until, "tracing processes is not permitted here");
            thread::sleep(Duration::from_millis(2));
        }
        tracer
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.0.wait().unwrap();
    }
}

struct Actor {
    child: Child,
    pid: String,
}

impl Actor {
    fn start(dir: &Path) -> Self {
        let child = Start::of("perform operations").with("DIR", dir).start();
        let pid = child.line();
        Self { child, pid }
    }

    fn say(&mut self, line: &str) -> String {
        self.child.say(line);
        self.child.line()
    }

    /// Performs one operation while `strace` replaces the results of calls as `injected` says. Checks the result, and
    /// the session's text afterwards.
    #[track_caller]
    fn check(&mut self, operation: &str, injected: &str, done: &str, text: &str) {
        assert_eq!(self.say("begin"), "true");
        let tracer = Tracer::of(&self.pid, &["-o", "/dev/null", "-e", &format!("inject={injected}")]);
        let came_to = self.say(operation);
        drop(tracer);
        assert_eq!([&*came_to, &*self.say("text")], [done, text], "{operation} with {injected}");
    }

    /// The names of the calls that an operation makes on files, and the whole output of `strace`.
    fn calls_of(&mut self, operation: &str, log: &Path) -> (String, String) {
        assert_eq!(self.say("begin"), "true");
        let tracer = Tracer::of(&self.pid, &["-o", log.to_str().unwrap(), "-e", "trace=%file,%desc"]);
        assert_eq!(self.say(operation), "true");
        drop(tracer);
        let seen = fs::read_to_string(log).unwrap();
        fs::remove_file(log).unwrap();
        let words = seen.lines().filter_map(|line| line.split_once(' ')).map(|(_, call)| call.trim_start());
        // The calls on other descriptors are left out, which receive the operations and send the results. So is the
        // check of debug builds whether a descriptor is open before it is closed.
        let of_files = words.filter(|call| {
            !["read(0,", "write(1,", "<... ", "fcntl(", "+++", "---"]
                .iter()
                .any(|other| call.starts_with(other))
        });
        let names: Vec<_> = of_files.filter_map(|call| call.split_once('(')).map(|(name, _)| name).collect();
        (names.join(" "), seen)
    }

    fn finish(mut self) {
        self.child.say("enough");
        self.child.finish();
    }
}

#[test]
#[ignore = "needs strace"]
fn any_refusal_of_the_kernel_leaves_the_old_version_or_the_new() {
    let dir = directory_in_memory();
    let mut actor = Actor::start(dir.path());
    let cases = [
        ("load", "openat2:error=EIO:when=1+", "Io", "old"),
        ("load", "openat2:error=EMFILE:when=1+", "Io", "old"),
        ("load", "pread64:error=EIO:when=1", "Io", "old"),
        ("save", "flock:error=ENOLCK:when=1", "Io", "old"),
        ("save", "pwritev:error=ENOSPC:when=1", "Full", "old"),
        ("save", "pwritev:error=EDQUOT:when=1+", "Full", "old"),
        // The session is saved, and the write that invalidates the caches fails.
        ("save", "pwrite64:error=EIO:when=1", "InvalidationFailed", "new"),
        ("save safely", "pwritev:error=EROFS:when=1", "Io", "old"),
        // After the failed sync, the session is written to a new file.
        ("save safely", "fdatasync:error=EIO:when=1", "true", "new"),
        ("save safely", "fdatasync:error=EIO:when=1+", "DurabilityUnknown", "old"),
        ("grow", "fdatasync:error=EIO:when=1", "Io", "old"),
        ("grow", "renameat2:error=EACCES:when=1", "Io", "old"),
        ("create safely", "fsync:error=EIO:when=1", "Io", "old"),
        ("create safely", "openat2:error=ENOSPC:when=1", "Full", "old"),
        ("create safely", "flock:error=ENOLCK:when=1", "Io", "old"),
        ("grow", "flock:error=ENOLCK:when=2", "Io", "old"),
        ("rotate", "flock:error=ENOLCK:when=1", "Io", "old"),
        ("rotate", "flock:error=ENOLCK:when=2", "Io", "old"),
        ("rotate", "fsync:error=EIO:when=1", "Io", "old"),
        ("create masked", "fchmod:error=EPERM:when=1+", "Io", "old"),
        ("grow masked", "fchmod:error=EPERM:when=1+", "Io", "old"),
        ("end", "openat:error=EMFILE:when=1+", "Io", "old"),
        // The file could not be removed, and has a tombstone, so the session has ended.
        ("end", "unlinkat:error=EACCES:when=1", "true", "absent"),
        ("end", "fdatasync,fsync:error=EIO:when=1+", "DurabilityUnknown", "absent"),
    ];
    for (operation, injected, done, text) in cases {
        actor.check(operation, injected, done, text);
    }
    // Each operation that succeeded has left one session. The failed ones have left none beside the first session.
    actor.finish();
    let left = files_in_shards(dir.path());
    for path in &left {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o600, "{}", path.display());
    }
    assert_eq!(left.len(), 1 + cases.len());
}

#[test]
#[ignore = "needs strace"]
fn a_reaper_whose_thread_cannot_start_is_an_error() {
    let dir = directory_in_memory();
    let mut actor = Actor::start(dir.path());
    actor.check("reap", "clone,clone3:error=EAGAIN:when=1+", "Io", "old");
    assert_eq!(actor.say("reap"), "true");
    actor.finish();
}

#[cfg(feature = "watch")]
#[test]
#[ignore = "needs strace"]
fn a_store_whose_watcher_cannot_start_goes_without_and_says_why() {
    let dir = directory_in_memory();
    let mut actor = Actor::start(dir.path());
    for (injected, done) in [
        ("clone,clone3:error=EAGAIN:when=1+", "its thread does not run"),
        ("inotify_init1:error=ENOSYS:when=1", "Function not implemented (os error 38)"),
        ("inotify_add_watch:error=EACCES:when=1", "Permission denied (os error 13)"),
        ("inotify_add_watch:error=EACCES:when=200", "Permission denied (os error 13)"),
    ] {
        actor.check("watch", injected, done, "old");
        assert_eq!(actor.say("watch"), "true");
    }
    actor.finish();
}

#[test]
#[ignore = "needs strace"]
fn what_a_signal_interrupts_is_done_again() {
    let dir = directory_in_memory();
    let mut actor = Actor::start(dir.path());
    for (operation, injected) in [
        ("load", "openat2:error=EINTR:when=1"),
        ("load", "pread64:error=EINTR:when=1"),
        ("save", "flock:error=EINTR:when=1"),
        ("save", "pwritev:error=EINTR:when=1"),
        ("save", "pwrite64:error=EINTR:when=1"),
        ("save safely", "fdatasync:error=EINTR:when=1"),
        ("grow", "openat:error=EINTR:when=1"),
        ("create safely", "fsync:error=EINTR:when=1"),
    ] {
        let text = if ["load", "create safely"].contains(&operation) { "old" } else { "new" };
        actor.check(operation, injected, "true", text);
    }
    actor.finish();
}

/// `openat2` is missing in old kernels, and some containers forbid it.
#[test]
#[ignore = "needs strace"]
fn without_openat2_files_are_opened_in_two_steps() {
    let dir = directory_in_memory();
    for refusal in ["ENOSYS", "EPERM"] {
        let mut actor = Actor::start(dir.path());
        for (operation, text) in [
            ("load", "old"),
            ("save", "new"),
            ("save safely", "new"),
            ("grow", "new"),
            ("create safely", "old"),
            ("rotate", "absent"),
            ("move", "absent"),
            ("end", "absent"),
        ] {
            actor.check(operation, &format!("openat2:error={refusal}:when=1+"), "true", text);
        }
        actor.finish();
    }
}

/// The unit tests of the engine count calls by the names of failpoints. This test counts all calls that the kernel
/// sees.
#[test]
#[ignore = "needs strace"]
fn the_kernel_sees_the_calls_that_are_documented_and_no_others() {
    let dir = directory_in_memory();
    let log = dir.path().join("log");
    let mut actor = Actor::start(&dir.path().join("store"));
    // After this, the bucket of the current hour in the expiry index is open.
    assert_eq!((actor.say("begin"), actor.say("move")), ("true".into(), "true".into()));
    for (operation, calls) in [
        ("load", "openat2 pread64 close"),
        ("save", "openat2 flock pread64 pwritev pwrite64 statx flock close"),
        ("save safely", "openat2 flock pread64 pwritev fdatasync pwrite64 pwrite64 statx flock close"),
        (
            "create safely",
            "openat write statx openat2 flock statx statx pwritev fdatasync fsync pwrite64 flock close close",
        ),
        (
            "grow",
            "openat2 flock pread64 openat openat flock statx pwritev fdatasync pwrite64 pwrite64 statx statx \
             renameat2 unlinkat close pwrite64 statx flock close flock close",
        ),
        (
            "rotate",
            "openat openat flock pread64 openat write statx openat2 flock statx statx pwritev fdatasync fsync \
             pwrite64 flock close close statx statx pwrite64 fdatasync pwrite64 statx statx statx unlinkat \
             flock close close",
        ),
        (
            "move",
            "openat openat flock pread64 write statx openat write statx openat2 flock statx statx pwritev fdatasync \
             fsync pwrite64 flock close close statx statx pwrite64 fdatasync pwrite64 statx pwrite64 statx statx \
             flock close close",
        ),
        (
            "end",
            "openat openat flock pread64 pwrite64 fdatasync pwrite64 statx statx statx unlinkat flock close close",
        ),
    ] {
        // A save that has held its lock for a millisecond or more, as under `strace`, also checks whether its file
        // still has the name.
        let slow =
            calls.replacen("pwritev pwrite64 statx flock", "pwritev statx statx pwrite64 statx flock", 1);
        let slow =
            slow.replacen(" pwrite64 pwrite64 statx flock", " pwrite64 statx statx pwrite64 statx flock", 1);
        let until = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < until, "{operation} takes a millisecond each time");
            let (names, seen) = actor.calls_of(operation, &log);
            // If the last check of the generations file was more than a second ago, an invalidation makes that check,
            // too, and that of the log.
            let names =
                names.replacen("pwrite64 statx openat newfstatat close newfstatat", "pwrite64 statx", 1);
            if names == calls {
                break;
            }
            assert_eq!(names, slow, "{operation}:\n{seen}");
        }
    }
    actor.finish();
}

/// A visitor who is not logged in never makes the server wait for the disk, however busy other processes keep it.
#[test]
#[ignore = "needs strace"]
fn logouts_with_ids_that_are_not_there_only_look() {
    let dir = directory_in_memory();
    let (root, log) = (dir.path().join("store"), dir.path().join("log"));
    let mut actor = Actor::start(&root);
    let counters = || fs::read(root.join("run/generations")).unwrap();
    for is_busy in [true, false] {
        let others = is_busy.then(|| Start::of("log visitors in and out").with("DIR", &root).start());
        others.as_ref().inspect(|others| assert_eq!(others.line(), "begun"));
        assert_eq!(actor.say("begin"), "true");
        assert_eq!(actor.say("end what is not there"), "true");
        let before = counters();
        let tracer = Tracer::of(&actor.pid, &["-o", log.to_str().unwrap(), "-e", "trace=all"]);
        assert_eq!(actor.say("go on"), "true");
        drop(tracer);
        let seen = fs::read_to_string(&log).unwrap();
        fs::remove_file(&log).unwrap();
        let of = |names: &[&str]| {
            let calls =
                seen.lines().filter_map(|line| line.split_once(' ')).map(|(_, call)| call.trim_start());
            let calls = calls.filter(|call| !call.starts_with("write(1,"));
            calls.filter(|call| names.iter().any(|name| call.starts_with(name))).count()
        };
        let operations =
            ["write", "pwrite", "fsync", "fdatasync", "sync", "unlink", "rename", "flock", "ftruncate"];
        assert_eq!(of(&operations), 0, "beside a busy process: {is_busy}");
        assert!(of(&["openat("]) >= 3 * STRANGERS as usize, "the ids were not looked up");
        match others {
            Some(mut others) => {
                others.say("enough");
                assert_ne!(others.line(), "0", "the other process did nothing");
                others.finish();
            }
            None => assert_eq!(counters(), before, "another cache was invalidated"),
        }
    }
    actor.finish();
}
