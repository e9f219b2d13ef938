//! The engine under faults: each call to the file system fails, or is the last call of a killed process, or another
//! operation runs between it and the next. Afterwards the old version or the new one is there, and an ended session
//! stays ended. The tests also check the calls themselves: their number for each operation, and the order of the syncs.
//!
//! The failpoint in `disk` sees the calls of one thread. A kill is an unwinding that starts inside a call: locks are
//! released, as at the end of a process, and no clean-up runs.
mod calls;
mod crafted_files;
mod crashes;
mod cut_offs;
mod elsewhere;
mod ends;
mod error_reporting;
mod faults;
mod forked;
mod histories;
mod interleavings;
mod moved;
mod opening;
mod sweeps;
mod syncs;
mod user_index;

use super::disk::faults::{PAGE, SHORT, during};
use super::flock::LockedFile;
use super::layout::{CUT_OFFS, DUE, GENERATIONS_PATH, RUN, SessionPath, TEMPORARY, shard_of};
use super::options::LOCK_WAIT_MIN;
use super::session_lock::SessionRef;
use super::slot::SLOT_MIN;
use super::{Content, FileStore, FileStoreOptions};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{SessionId, Token};
use crate::random::tests::without_random_bits;
use crate::record::{Record, Timing};
use crate::store::{Absent, Durability, Live, Lookup, Rotation, Store, Verdict};
use crate::value::Value;
use rustix::io::Errno;
use std::cmp::Ordering::{Equal, Greater, Less};
use std::error::Error as _;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

// ---------------------------------------------------------------------------------------- the sessions of the tests

/// A store in a directory of its own.
struct Fixture {
    dir: TempDir,
    store: Arc<FileStore>,
}

/// A directory in memory, if the machine has one: these tests examine files, and not a disk after a power cut.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The text of one version, made so large that the session needs a larger file.
fn big(text: &str) -> String {
    text.repeat(4 * SLOT_MIN)
}

fn record(text: &str) -> Record {
    let now = SystemTime::now();
    let mut record = Record::new(now, now + Duration::from_secs(3600));
    record.insert("text", &Value::new(text).unwrap()).unwrap();
    record
}

fn text_of(record: &Record) -> String {
    record.entries().get("text").unwrap().get().unwrap()
}

impl Fixture {
    fn new() -> Self {
        Self::with(FileStoreOptions::new())
    }

    /// A store without a cache, because these tests examine the files.
    fn with(options: FileStoreOptions) -> Self {
        let dir = directory();
        let store = Arc::new(options.cache_bytes(0).open(dir.path()).unwrap());
        Self { dir, store }
    }

    /// The store's clock stands five minutes before the end of this hour, so that the deadlines of sessions and the
    /// grace periods of their marks end in one hour: that of one bucket of the expiry index.
    fn before_the_end_of_an_hour() -> Self {
        let hours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600;
        let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(3600 * hours + 55 * 60));
        Self::with(FileStoreOptions::new().clock(clock))
    }

    /// Asserts that the process has no descriptor except those of an open store, and no turn in a queue.
    #[track_caller]
    fn check_nothing_is_held(&self, context: &str) {
        let root = self.dir.path();
        let of_store = [root.to_owned(), root.join(GENERATIONS_PATH), root.join(CUT_OFFS)];
        let kept = |open: &Path| of_store.contains(&open.to_owned()) || open.starts_with(root.join(DUE));
        let open = descriptors(|open| open.starts_with(root) && !kept(open));
        assert_eq!(open, 0, "{context}: a descriptor leaked");
        assert_eq!(self.store.queues.len(), 0, "{context}: a queue is left");
    }

    /// Opens the same store once more, as another process does, with its own queues.
    fn reopened(&self, options: FileStoreOptions) -> Arc<FileStore> {
        Arc::new(options.cache_bytes(0).open(self.dir.path()).unwrap())
    }

    /// Creates a session at version "old", whose other slot holds an older version.
    fn session(&self, power_safe: bool) -> SessionId {
        let session = SessionId::random().unwrap();
        self.store.create_file(SessionRef::Id(&session), record("ancient"), power_safe).unwrap();
        put(&self.store, &session, "old", power_safe).unwrap().unwrap();
        session
    }

    fn path(&self, session: &SessionId) -> PathBuf {
        self.dir.path().join(SessionPath::of(&session.public_id()).as_str())
    }

    fn inode(&self, session: &SessionId) -> u64 {
        fs::metadata(self.path(session)).unwrap().ino()
    }

    /// The text of a session's version; `None` if there is no session.
    #[track_caller]
    fn text(&self, session: &SessionId) -> Option<String> {
        match self.store.load(&session.to_token()).unwrap() {
            Lookup::Live(live) => Some(text_of(&live.record)),
            Lookup::Absent(Absent::NotFound(_) | Absent::Moved(_)) => None,
            Lookup::Absent(other) => panic!("the session is {other:?}"),
        }
    }

    /// Whether a session's file has the mark of a moved session.
    fn is_moved(&self, session: &SessionId) -> bool {
        matches!(self.store.load(&session.to_token()), Ok(Lookup::Absent(Absent::Moved(_))))
    }

    /// The number of temporary files in a session's shard.
    fn temporary_beside(&self, session: &SessionId) -> usize {
        let names = fs::read_dir(self.dir.path().join(shard_of(&session.public_id()))).unwrap();
        names.filter(|name| is_temporary(&name.as_ref().unwrap().path())).count()
    }
}

/// The text that a store returns, from its cache or from the file; `None` if the store finds no session.
fn served(store: &FileStore, session: &SessionId) -> Option<String> {
    match store.load(&session.to_token()).unwrap() {
        Lookup::Live(live) => Some(text_of(&live.record)),
        Lookup::Absent(_) => None,
    }
}

/// The number of this process's descriptors whose paths satisfy the condition.
fn descriptors(pass: impl Fn(&Path) -> bool) -> usize {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    let links = descriptors.filter_map(|name| fs::read_link(name.unwrap().path()).ok());
    links.filter(|link| pass(link)).count()
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY))
}

fn put(store: &FileStore, session: &SessionId, text: &str, power_safe: bool) -> Result<Option<Live>> {
    let mut change = |record: &mut Record| {
        record.insert("text", &Value::new(text).unwrap()).unwrap();
        Ok(Verdict::Write)
    };
    store.update_file(session, &mut change, power_safe)
}

/// A rotation whose grace period is longer than any test.
fn moving() -> Rotation<'static> {
    Rotation::default().grace(Duration::from_secs(3600))
}

/// An operation on a session whose text is "old".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Load,
    Create {
        power_safe: bool,
    },
    Update {
        power_safe: bool,
    },
    Grow {
        power_safe: bool,
    },
    /// A power-safe update that changes nothing.
    Keep,
    Rotate,
    /// A rotation with a grace period.
    Move,
    Delete,
}

/// Every operation except a load.
const WRITING: [Operation; 10] = [
    Operation::Create { power_safe: false },
    Operation::Create { power_safe: true },
    Operation::Update { power_safe: false },
    Operation::Update { power_safe: true },
    Operation::Grow { power_safe: false },
    Operation::Grow { power_safe: true },
    Operation::Keep,
    Operation::Rotate,
    Operation::Move,
    Operation::Delete,
];

impl Operation {
    /// Runs the operation. Returns whether the session existed. Creation and rotation create `successor`.
    fn run(self, store: &FileStore, session: &SessionId, successor: &SessionId) -> Result<bool> {
        match self {
            Self::Load => store.load(&session.to_token()).map(|found| matches!(found, Lookup::Live(_))),
            Self::Create { power_safe } => {
                store.create_file(SessionRef::Id(successor), record("new"), power_safe).map(|_| true)
            }
            Self::Update { power_safe } => put(store, session, "new", power_safe).map(|r| r.is_some()),
            Self::Grow { power_safe } => put(store, session, &big("new"), power_safe).map(|r| r.is_some()),
            Self::Keep => store.update_file(session, &mut |_| Ok(Verdict::Keep), true).map(|r| r.is_some()),
            Self::Rotate | Self::Move => {
                let mut change = |record: &mut Record| {
                    record.insert("text", &Value::new("new").unwrap()).unwrap();
                    Ok(Verdict::Write)
                };
                let how = if self == Self::Move { moving() } else { Rotation::default() };
                store.rotate_file(session, successor, &mut change, &how).map(|r| r.is_some())
            }
            Self::Delete => store.delete_file(SessionRef::Id(session)).map(|ended| ended.is_some()),
        }
    }

    /// Whether the operation gives the session another id.
    fn rotates(self) -> bool {
        matches!(self, Self::Rotate | Self::Move)
    }

    /// The text of the version that the operation writes.
    fn new_text(self) -> String {
        match self {
            Self::Grow { .. } => big("new"),
            Self::Load | Self::Keep => "old".into(),
            _ => "new".into(),
        }
    }
}

// ------------------------------------------------------------------------------------ shared by the tests

/// Checks the calls of an operation. On a busy machine, it may have had a lock for longer than the shortest wait limit.
/// Then it may look once more whether a logout has overtaken it, before or after it writes.
#[track_caller]
fn check_calls<R>(want: &[&str], operation: impl FnOnce() -> Result<R>) {
    let began = Instant::now();
    let (result, calls) = during(|_, _| None, operation);
    if let Err(error) = result {
        panic!("{error}");
    }
    let is_slow = began.elapsed() >= LOCK_WAIT_MIN;
    assert!(calls == want || is_slow && is_same_but_for_looks(&calls, want), "{calls:?}\n{want:?}");
}

/// Whether the calls are these, apart from looks whether the session's name still leads to its file.
fn is_same_but_for_looks(calls: &[&str], want: &[&str]) -> bool {
    let without_look = calls.strip_prefix(&["stat file", "stat session"]);
    let is_same_next = match (calls, want) {
        ([], []) => true,
        ([call, calls @ ..], [wanted, want @ ..]) => call == wanted && is_same_but_for_looks(calls, want),
        _ => false,
    };
    is_same_next || without_look.is_some_and(|calls| is_same_but_for_looks(calls, want))
}

#[test]
fn only_looks_may_be_additional_calls() {
    let looks = ["read", "stat file", "stat session", "stat file", "write", "stat file", "stat session"];
    assert!(is_same_but_for_looks(&looks, &["read", "stat file", "write"]));
    assert!(is_same_but_for_looks(&looks, &looks));
    assert!(!is_same_but_for_looks(&looks, &["read", "write"]));
    assert!(!is_same_but_for_looks(&["read", "stat file", "write"], &["read", "write"]));
    assert!(!is_same_but_for_looks(&["read"], &["read", "stat file", "stat session"]));
}

/// These calls, followed by the invalidation, which comes after the last check of the file and before the unlock.
fn then_invalidated(calls: &[&'static str]) -> Vec<&'static str> {
    [calls, &["invalidate"]].concat()
}

/// The errors of a disk that is broken, full, over quota, unreachable or read-only, and of a kernel without memory.
const REFUSALS: [Errno; 7] =
    [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::ACCESS, Errno::ROFS, Errno::NOMEM];

/// Each of these errors, once for one call alone, and once for all later calls as well.
fn refusals() -> impl Iterator<Item = (Errno, Then)> {
    REFUSALS.into_iter().flat_map(|errno| [(errno, Then::Works), (errno, Then::Fails)])
}

/// The calls of an operation that fail.
#[derive(Clone, Copy, Debug)]
struct Fault {
    /// The first call that fails.
    call: usize,
    errno: Errno,
    then: Then,
}

/// The result of the calls after one that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The later calls work.
    Works,
    /// All later calls fail with the same error.
    Fails,
    /// One later call fails with the same error.
    FailsOnceMore(usize),
}

impl Fault {
    fn plan(self) -> impl FnMut(usize, &'static str) -> Option<i32> + 'static {
        move |call, _| {
            let fails_later = match self.then {
                Then::Works => false,
                Then::Fails => call > self.call,
                Then::FailsOnceMore(later) => call == later,
            };
            let fails = call == self.call || fails_later;
            fails.then(|| self.errno.raw_os_error())
        }
    }
}

/// Asserts that an error names the operation and the path, and keeps the error of the operating system.
#[track_caller]
fn check_error(error: &Error, store: &Path, errno: Errno, context: &str) {
    let text = error.to_string();
    let path = error.path().unwrap_or_else(|| panic!("{context}: no path in `{text}`"));
    assert!(path.starts_with(store) && text.contains(path.to_str().unwrap()), "{context}: {text}");
    assert!(text.starts_with("failed to ") && !text.ends_with('.'), "{context}: {text}");
    let mut cause = error.source().unwrap_or_else(|| panic!("{context}: no cause of `{text}`"));
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let said = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    assert_eq!(said, Some(errno.raw_os_error()), "{context}: {text}: {cause}");
    let is_full = [Errno::NOSPC, Errno::DQUOT].contains(&errno);
    let want = if is_full { ErrorKind::Full } else { ErrorKind::Io };
    assert!(error.kind() == want || may_be_visible(error.kind()), "{context}: {error:?}");
}

/// The kinds of errors that may be returned although the change was made.
fn may_be_visible(kind: ErrorKind) -> bool {
    [ErrorKind::DurabilityUnknown, ErrorKind::InvalidationFailed].contains(&kind)
}

/// Fails the syncs of session files whose numbers satisfy the condition, counted from 0, and the calls with one of the
/// given names.
fn failing_syncs(
    numbers: impl Fn(usize) -> bool + 'static,
    others: &'static [&'static str],
) -> impl FnMut(usize, &'static str) -> Option<i32> + 'static {
    let mut syncs = 0;
    move |_, call| {
        let fails = if call == "sync file" {
            syncs += 1;
            numbers(syncs - 1)
        } else {
            others.contains(&call)
        };
        fails.then(|| Errno::IO.raw_os_error())
    }
}

/// Runs `operation` as if the process died in its n-th call. Returns `None` if it died.
fn dying_in_call<R>(n: usize, operation: impl FnOnce() -> R) -> Option<R> {
    struct Death;
    let die = move |call: usize, _| match call.cmp(&n) {
        Less => None,
        Equal => resume_unwind(Box::new(Death)),
        // After its death, a process makes no calls.
        Greater => Some(Errno::IO.raw_os_error()),
    };
    let ended = catch_unwind(AssertUnwindSafe(|| during(die, operation).0));
    // The process that died has left its plan installed.
    during(|_, _| None, || ());
    match ended {
        Ok(result) => Some(result),
        Err(cause) if cause.is::<Death>() => None,
        Err(failed_assertion) => resume_unwind(failed_assertion),
    }
}

/// Runs `operation` as if the process died in its first call with this name. Returns whether it died.
fn dies_at<R>(name: &'static str, operation: impl FnOnce() -> R) -> bool {
    let mut is_dead = false;
    let die = move |_, call: &str| {
        if !is_dead && call == name {
            is_dead = true;
            resume_unwind(Box::new("killed"));
        }
        is_dead.then(|| Errno::IO.raw_os_error())
    };
    let died = catch_unwind(AssertUnwindSafe(|| during(die, operation))).is_err();
    during(|_, _| None, || ());
    died
}

/// A second store with a cache, beside the store whose operations fail.
fn warm(fixture: &Fixture) -> FileStore {
    FileStoreOptions::new().watch(false).open(fixture.dir.path()).unwrap()
}

/// Changes the last payload byte of the newer slot, which at the second version is the second slot.
fn tear_newer_slot(path: &Path) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let at = SLOT_MIN as u64 + 128;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0].wrapping_add(1)], at).unwrap();
}

/// The calls of a save that needs a larger file, up to the first one that depends on the durability.
const GROW: [&str; 15] = [
    "open session",
    "lock",
    "read",
    "open shard",
    "create file",
    "lock",
    "stat file",
    "write",
    "sync file",
    "write",
    "write",
    "stat file",
    "stat session",
    "exchange",
    "unlink",
];
