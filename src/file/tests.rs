//! The engine under faults: each call to the file system fails, or is the last one of a dying process, or is
//! met by a logout that could not wait; what is left is the old version or the new one, and an ended session
//! stays ended. And the calls themselves: what each act costs, and what it syncs before what.
//!
//! The gate in `disk` sees the calls of one thread. A death is an unwinding that starts inside a call: locks
//! are released, as they are when a process ends, and nothing is tidied up.
use super::disk::faults::during;
use super::layout::{GENERATIONS, SessionPath, TEMPORARY, shard_of};
use super::lock::LockedFile;
use super::{FileStore, FileStoreOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::id::SessionId;
use crate::record::{Record, SLOT_MIN};
use crate::store::{Absent, Live, Lookup, Store, Verdict};
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
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

// ---------------------------------------------------------------------------------------- sessions to act on

/// A store of its own.
struct Fixture {
    dir: TempDir,
    store: Arc<FileStore>,
}

/// A directory in memory, if there is such a place: what the disk makes of a sync is not the matter here.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// One version's text; a big one makes the file grow.
fn big(text: &str) -> String {
    text.repeat(SLOT_MIN)
}

fn record(text: &str) -> Record {
    let now = SystemTime::now();
    let mut record = Record::new(now, now + Duration::from_secs(3600));
    record.entries.insert("text".into(), Value::new(text).unwrap());
    record
}

fn text_of(record: &Record) -> String {
    record.entries["text"].get().unwrap()
}

impl Fixture {
    fn new() -> Self {
        Self::with(FileStoreOptions::new())
    }

    /// Without a cache: what is asked here is what the files say.
    fn with(options: FileStoreOptions) -> Self {
        let dir = directory();
        let store = Arc::new(options.cache_bytes(0).open(dir.path()).unwrap());
        Self { dir, store }
    }

    /// The same store, opened once more: as another process sees it, whose queues are not ours.
    fn reopened(&self, options: FileStoreOptions) -> Arc<FileStore> {
        Arc::new(options.cache_bytes(0).open(self.dir.path()).unwrap())
    }

    /// A session at version "old", whose other slot holds an older version.
    fn session(&self, power_safe: bool) -> SessionId {
        let session = SessionId::random().unwrap();
        self.store.create_file(&session, Arc::new(record("ancient")), power_safe).unwrap();
        put(&self.store, &session, "old", power_safe).unwrap().unwrap();
        session
    }

    fn path(&self, session: &SessionId) -> PathBuf {
        self.dir.path().join(SessionPath::of(&session.file_id()).as_str())
    }

    fn inode(&self, session: &SessionId) -> u64 {
        fs::metadata(self.path(session)).unwrap().ino()
    }

    /// The text of a session's version; `None` if there is no session.
    #[track_caller]
    fn text(&self, session: &SessionId) -> Option<String> {
        match self.store.load(&session.to_token()).unwrap() {
            Lookup::Live(live) => Some(text_of(&live.record)),
            Lookup::Absent(Absent::Unknown(_)) => None,
            Lookup::Absent(other) => panic!("the session is {other:?}"),
        }
    }

    /// Temporary files beside a session.
    fn temporary_beside(&self, session: &SessionId) -> usize {
        let names = fs::read_dir(self.dir.path().join(shard_of(&session.file_id()))).unwrap();
        names.filter(|name| is_temporary(&name.as_ref().unwrap().path())).count()
    }
}

/// How many descriptors of this process lead to a path that passes.
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
        record.entries.insert("text".into(), Value::new(text).unwrap());
        Ok(Verdict::Write)
    };
    store.update_file(session, &mut change, power_safe)
}

/// What a store is asked to do with a session at version "old".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
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
    /// A power-safe save that changes nothing.
    Keep,
    Rotate,
    Delete,
}

/// Every act but loading.
const WRITING: [Act; 9] = [
    Act::Create { power_safe: false },
    Act::Create { power_safe: true },
    Act::Update { power_safe: false },
    Act::Update { power_safe: true },
    Act::Grow { power_safe: false },
    Act::Grow { power_safe: true },
    Act::Keep,
    Act::Rotate,
    Act::Delete,
];

impl Act {
    /// Does it. Whether there was a session to do it to. Creation and rotation make `successor`.
    fn run(self, store: &FileStore, session: &SessionId, successor: &SessionId) -> Result<bool> {
        match self {
            Self::Load => store.load(&session.to_token()).map(|found| matches!(found, Lookup::Live(_))),
            Self::Create { power_safe } => {
                store.create_file(successor, Arc::new(record("new")), power_safe).map(|_| true)
            }
            Self::Update { power_safe } => put(store, session, "new", power_safe).map(|r| r.is_some()),
            Self::Grow { power_safe } => put(store, session, &big("new"), power_safe).map(|r| r.is_some()),
            Self::Keep => store.update_file(session, &mut |_| Ok(Verdict::Keep), true).map(|r| r.is_some()),
            Self::Rotate => {
                let mut change = |record: &mut Record| {
                    record.entries.insert("text".into(), Value::new("new").unwrap());
                    Ok(Verdict::Write)
                };
                store.rotate_file(session, successor, &mut change).map(|r| r.is_some())
            }
            Self::Delete => store.delete_file(session),
        }
    }

    /// The text of the version that it writes.
    fn new_text(self) -> String {
        match self {
            Self::Grow { .. } => big("new"),
            Self::Load | Self::Keep => "old".into(),
            _ => "new".into(),
        }
    }
}

// ---------------------------------------------------------------------------------- exact sequences of calls

#[track_caller]
fn check_calls<R>(want: &[&str], act: impl FnOnce() -> Result<R>) {
    let (result, calls) = during(|_, _| None, act);
    if let Err(error) = result {
        panic!("{error}");
    }
    // A save that took a millisecond, on a busy machine, looks once more whether a logout has passed it.
    let passed = ["stat file", "stat session", "announce"];
    match calls.strip_suffix(&passed) {
        Some(calls) if !want.ends_with(&passed) => assert_eq!(told(calls), want),
        _ => assert_eq!(calls, want),
    }
}

/// The same calls, and then those who have copies are told: after the last look at the file, before the lock is given
/// back.
fn told(calls: &[&'static str]) -> Vec<&'static str> {
    [calls, &["announce"]].concat()
}

#[test]
fn a_load_opens_reads_and_does_nothing_else() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let token = session.to_token();
    check_calls(&["open session", "read"], || fixture.store.load(&token));
    // What is absent is looked for once more, by its directory.
    let nobody = SessionId::random().unwrap().to_token();
    check_calls(&["open session", "open shard", "open session in shard"], || fixture.store.load(&nobody));
    let malformed = crate::id::Token::parse("../../etc/passwd").unwrap();
    check_calls(&[], || fixture.store.load(&malformed));
    // A file larger than usual is measured before it is read into memory.
    put(&fixture.store, &session, &big("x"), false).unwrap();
    check_calls(&["open session", "read", "stat file", "read"], || fixture.store.load(&token));
}

#[test]
fn a_relaxed_save_opens_reads_and_writes_the_other_slot() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let other = SessionId::random().unwrap();
    check_calls(&["open session", "read", "write", "announce"], || put(&fixture.store, &session, "x", false));
    check_calls(&["open session", "stat file", "stat session", "write"], || {
        fixture.store.create_file(&other, Arc::new(record("x")), false)
    });
}

#[test]
fn a_power_safe_save_after_a_power_safe_one_syncs_once() {
    let fixture = Fixture::new();
    let session = fixture.session(true);
    for text in ["a", "b", "c"] {
        let calls = ["open session", "read", "write", "sync file", "write"];
        check_calls(&told(&calls), || put(&fixture.store, &session, text, true));
    }
}

/// The older slot may be all that the disk holds.
#[test]
fn a_power_safe_save_syncs_an_unsynced_newest_version_before_it_writes_over_the_older_one() {
    let fixture = Fixture::new();
    let session = fixture.session(true);
    put(&fixture.store, &session, "relaxed", false).unwrap();
    let calls = ["open session", "read", "sync file", "write", "sync file", "write"];
    check_calls(&told(&calls), || put(&fixture.store, &session, "x", true));
    // Once only: what is known of the new version is written down.
    let calls = ["open session", "read", "write", "sync file", "write"];
    check_calls(&told(&calls), || put(&fixture.store, &session, "y", true));
}

#[test]
fn a_power_safe_save_after_a_writer_was_killed_before_its_sync_syncs_first() {
    let fixture = Fixture::new();
    let session = fixture.session(true);
    let killed = dying_in_call(3, || put(&fixture.store, &session, "killed", true));
    assert!(killed.is_none(), "the fourth call of a power-safe save is the sync");
    assert_eq!(fixture.text(&session).as_deref(), Some("killed"), "it was written, and not synced");
    let calls = ["open session", "read", "sync file", "write", "sync file", "write"];
    check_calls(&told(&calls), || put(&fixture.store, &session, "x", true));
}

#[test]
fn the_first_power_safe_save_of_a_relaxed_session_syncs_its_name_before_it_returns() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    // The directory is opened before anything is written: a save must not find out half-way that it cannot be
    // safe.
    let calls =
        ["open session", "read", "open shard", "sync file", "write", "sync file", "sync shard", "write"];
    check_calls(&told(&calls), || put(&fixture.store, &session, "x", true));
    // A relaxed save in between forgets that the data is synced, not that the name is.
    put(&fixture.store, &session, "y", false).unwrap();
    let calls = ["open session", "read", "sync file", "write", "sync file", "write"];
    check_calls(&told(&calls), || put(&fixture.store, &session, "z", true));
}

#[test]
fn a_power_safe_save_that_changes_nothing_makes_safe_what_is_there() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let keep = || Act::Keep.run(&fixture.store, &session, &session);
    let calls = ["open session", "read", "read", "open shard", "sync file", "sync shard", "write"];
    check_calls(&told(&calls), keep);
    check_calls(&told(&["open session", "read", "read"]), keep);
    put(&fixture.store, &session, "relaxed", false).unwrap();
    check_calls(&told(&["open session", "read", "read", "open shard", "sync file", "write"]), keep);
}

#[test]
fn a_power_safe_creation_syncs_the_file_then_its_name() {
    let fixture = Fixture::new();
    let session = SessionId::random().unwrap();
    let calls = [
        "open shard",
        "open session",
        "stat file",
        "stat session",
        "write",
        "sync file",
        "sync shard",
        "write",
    ];
    check_calls(&calls, || fixture.store.create_file(&session, Arc::new(record("x")), true));
}

/// The calls of a file that grows, up to where durability makes a difference.
const GROW: [&str; 11] = [
    "open session",
    "read",
    "open shard",
    "create file",
    "stat file",
    "write",
    "sync file",
    "write",
    "write",
    "exchange",
    "unlink",
];

#[test]
fn a_larger_file_is_synced_before_it_takes_the_name_at_every_durability() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    check_calls(&told(&GROW), || put(&fixture.store, &session, &big("x"), false));
    // Nobody synced the new file's name yet.
    let calls = [
        "open session",
        "read",
        "stat file",
        "read",
        "open shard",
        "write",
        "sync file",
        "sync shard",
        "write",
    ];
    check_calls(&told(&calls), || put(&fixture.store, &session, "y", true));

    let session = fixture.session(true);
    let calls = [&GROW[..], &["sync shard", "write"]].concat();
    check_calls(&told(&calls), || put(&fixture.store, &session, &big("x"), true));
}

/// Else the next save could be announced before this one, whose copy would then pass for the newest.
#[test]
fn a_larger_file_is_not_open_to_others_before_its_save_is_announced() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let other = fixture.reopened(FileStoreOptions::new().lock_wait(Duration::from_millis(20)));
    let (next, met) = (session.clone(), Arc::new(Mutex::new(None)));
    let report = Arc::clone(&met);
    let interrupt = move |_, call| {
        if call == "announce" {
            let (other, next) = (Arc::clone(&other), next.clone());
            let saved = thread::spawn(move || put(&other, &next, "next", false)).join().unwrap();
            *report.lock().unwrap() = Some(saved.map(drop).map_err(|error| error.kind()));
        }
        None
    };
    let (grown, _) = during(interrupt, || put(&fixture.store, &session, &big("x"), false));
    assert!(grown.unwrap().is_some());
    assert_eq!(*met.lock().unwrap(), Some(Err(ErrorKind::Busy)));
    assert_eq!(fixture.text(&session), Some(big("x")));
}

#[test]
fn what_is_known_of_a_file_is_not_believed_of_the_larger_one_in_its_place() {
    let fixture = Fixture::new();
    let session = fixture.session(true);
    // Not even if what is known of the larger one cannot be written down.
    let note = GROW.iter().position(|call| *call == "sync file").unwrap() + 1;
    let fault = Fault { call: note, errno: Errno::IO, lasting: false };
    let (grown, calls) = during(fault.plan(), || put(&fixture.store, &session, &big("x"), false));
    assert!(grown.unwrap().is_some());
    assert_eq!(calls, told(&GROW));
    let (saved, calls) = during(|_, _| None, || put(&fixture.store, &session, "y", true));
    assert!(saved.unwrap().is_some());
    let syncs: Vec<_> = calls.into_iter().filter(|call| call.starts_with("sync")).collect();
    assert_eq!(syncs, ["sync file", "sync file", "sync shard"]);
}

const ROTATE: [&str; 16] = [
    "open shard",
    "open session",
    "read",
    // The successor, synced with its name …
    "open shard",
    "open session",
    "stat file",
    "stat session",
    "write",
    "sync file",
    "sync shard",
    "write",
    // … before the old file goes.
    "write",
    "unlink",
    "write",
    "announce",
    "sync shard",
];

#[test]
fn a_rotation_syncs_the_successor_and_its_name_before_the_old_file_goes_and_then_its_end() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let successor = SessionId::random().unwrap();
    check_calls(&ROTATE, || Act::Rotate.run(&fixture.store, &session, &successor));
}

#[test]
fn a_deletion_syncs_the_directory_also_when_nothing_was_there() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let delete = || fixture.store.delete_file(&session);
    check_calls(&["open shard", "open session", "read", "write", "unlink", "announce", "sync shard"], delete);
    let absent = [
        "open shard",
        "open session",
        "open shard",
        "open session in shard",
        "unlink",
        "announce",
        "sync shard",
    ];
    check_calls(&absent, delete);
}

#[test]
fn without_synced_security_events_the_end_of_a_session_is_not_synced_and_its_successor_still_is() {
    let fixture = Fixture::with(FileStoreOptions::new().sync_security_events(false));
    let (session, successor) = (fixture.session(false), SessionId::random().unwrap());
    check_calls(&ROTATE[..15], || Act::Rotate.run(&fixture.store, &session, &successor));
    let delete = || fixture.store.delete_file(&successor);
    check_calls(&["open shard", "open session", "read", "write", "unlink", "announce"], delete);
    let absent = ["open shard", "open session", "open shard", "open session in shard", "unlink", "announce"];
    check_calls(&absent, delete);
}

// ----------------------------------------------------------------------------------------------- every fault

/// Which calls of an act fail.
#[derive(Clone, Copy, Debug)]
struct Fault {
    /// The first of them.
    call: usize,
    errno: Errno,
    /// Whether all later calls fail as well.
    lasting: bool,
}

impl Fault {
    fn plan(self) -> impl FnMut(usize, &'static str) -> Option<i32> + 'static {
        move |call, _| {
            let fails = call == self.call || self.lasting && call > self.call;
            fails.then(|| self.errno.raw_os_error())
        }
    }
}

/// Fails call 0, 1, 2 … of an act until a run meets no fault.
fn fail_every_call(act: Act, power_safe: bool) {
    let fixture = Fixture::new();
    let errnos = [Errno::IO, Errno::NOSPC, Errno::MFILE, Errno::ACCESS, Errno::ROFS];
    for (errno, lasting) in errnos.map(|errno| (errno, false)).into_iter().chain([(Errno::IO, true)]) {
        for call in 0.. {
            let fault = Fault { call, errno, lasting };
            if !meet_fault(&fixture, act, power_safe, fault) {
                assert!(call > 1, "no act makes fewer than two calls");
                break;
            }
        }
    }
}

/// Errors that may come after the deed.
fn may_be_visible(kind: ErrorKind) -> bool {
    [ErrorKind::DurabilityUnknown, ErrorKind::Unannounced].contains(&kind)
}

/// One run. Whether it met the fault.
fn meet_fault(fixture: &Fixture, act: Act, power_safe: bool, fault: Fault) -> bool {
    let (session, successor) = (fixture.session(power_safe), SessionId::random().unwrap());
    let (result, calls) = during(fault.plan(), || act.run(&fixture.store, &session, &successor));
    let met = calls.len() > fault.call;
    let context = format!("{act:?} with {fault:?}, after calls {calls:?}");
    // A file that could not be removed cannot be asked to be gone.
    let removable = !met || !fault.lasting && calls[fault.call] != "unlink";

    if let Err(error) = &result {
        assert!(met, "{context}: {error}");
        check_error(error, fixture.dir.path(), fault.errno, &context);
    }
    let kind = result.as_ref().err().map(Error::kind);
    let (old, made) = (fixture.text(&session), fixture.text(&successor));
    let (is_old, is_new) = (old.as_deref() == Some("old"), old == Some(act.new_text()));
    match (act, &result) {
        (Act::Load, _) => assert!(is_old && result.is_ok() != met, "{context}"),
        (Act::Create { .. }, Ok(_)) => assert!(is_old && made.as_deref() == Some("new"), "{context}"),
        (Act::Create { .. }, Err(_)) => {
            assert!(is_old, "{context}");
            assert!(made.is_none() || fault.lasting, "{context}: what was not made can be loaded");
            assert!(!fixture.path(&successor).exists() || !removable, "{context}: its file is left");
        }
        (Act::Update { .. } | Act::Grow { .. } | Act::Keep, Ok(_)) => assert!(is_new, "{context}: {old:?}"),
        (Act::Update { .. } | Act::Grow { .. } | Act::Keep, Err(_)) => {
            let visible = is_new && kind.is_some_and(may_be_visible);
            assert!(is_old || visible, "{context}: {old:?}");
        }
        (Act::Rotate, Ok(_)) => assert!(old.is_none() && made.as_deref() == Some("new"), "{context}"),
        (Act::Rotate, Err(_)) => {
            assert!(is_old || old.is_none() && kind.is_some_and(may_be_visible), "{context}");
            // A successor that cannot be removed is one that nobody was told of.
            assert!(made.is_none() || fault.lasting, "{context}: two are alive");
        }
        (Act::Delete, Ok(_)) => assert!(old.is_none(), "{context}"),
        (Act::Delete, Err(_)) => assert!(is_old || old.is_none(), "{context}: {old:?}"),
    }
    if let Ok(there) = result {
        assert!(there, "{context}: trouble is an error, never \"there is no such session\"");
    }
    let temporary = fixture.temporary_beside(&session);
    assert!(temporary == 0 || !removable, "{context}: a temporary file is left");

    // Nothing is held, and what works without faults works again.
    let root = fixture.dir.path();
    let of_store = [root.to_owned(), root.join(GENERATIONS)];
    let open = descriptors(|open| open.starts_with(root) && !of_store.contains(&open.to_owned()));
    assert_eq!(open, 0, "{context}: a descriptor leaked");
    assert_eq!(fixture.store.queues.len(), 0, "{context}: a queue is left");
    for (session, alive) in [(&session, old.is_some()), (&successor, made.is_some())] {
        assert_eq!(put(&fixture.store, session, "next", true).unwrap().is_some(), alive, "{context}");
        assert_eq!(fixture.text(session).is_some(), alive, "{context}");
        assert_eq!(fixture.store.delete_file(session).unwrap(), alive, "{context}");
        assert_eq!(fixture.text(session), None, "{context}");
        assert!(!fixture.path(session).exists(), "{context}");
    }
    for stale in fs::read_dir(fixture.dir.path().join(shard_of(&session.file_id()))).unwrap() {
        fs::remove_file(stale.unwrap().path()).unwrap();
    }
    met
}

/// An error says what was being done, and to what, and keeps what the operating system said.
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
    let want = if errno == Errno::NOSPC { ErrorKind::Full } else { ErrorKind::Io };
    assert!(error.kind() == want || may_be_visible(error.kind()), "{context}: {error:?}");
}

#[test]
fn whichever_call_of_a_load_fails_it_is_an_error_and_never_an_absent_session() {
    fail_every_call(Act::Load, true);
}

#[test]
fn whichever_call_of_a_creation_fails_nothing_is_left() {
    fail_every_call(Act::Create { power_safe: false }, false);
    fail_every_call(Act::Create { power_safe: true }, false);
}

#[test]
fn whichever_call_of_a_save_fails_the_old_version_stands_or_the_new_one() {
    fail_every_call(Act::Update { power_safe: false }, true);
    fail_every_call(Act::Update { power_safe: true }, true);
    // Of a session that no power-safe save has seen yet.
    fail_every_call(Act::Update { power_safe: true }, false);
    fail_every_call(Act::Keep, false);
}

#[test]
fn whichever_call_of_a_growing_save_fails_the_old_version_stands_or_the_new_one() {
    fail_every_call(Act::Grow { power_safe: false }, true);
    fail_every_call(Act::Grow { power_safe: true }, false);
}

#[test]
fn whichever_call_of_a_rotation_fails_the_old_id_lives_or_the_new_one_and_never_both() {
    fail_every_call(Act::Rotate, true);
}

#[test]
fn whichever_call_of_a_deletion_fails_it_is_an_error_or_the_session_is_gone() {
    fail_every_call(Act::Delete, true);
}

#[test]
fn a_load_beside_a_torn_slot_fails_when_any_of_its_calls_does() {
    let fixture = Fixture::new();
    let session = fixture.session(true);
    tear_newer_slot(&fixture.path(&session));
    let token = session.to_token();
    let calls = ["open session", "read", "open session", "read"];
    check_calls(&calls, || fixture.store.load(&token));
    for call in 0..calls.len() {
        let fault = Fault { call, errno: Errno::IO, lasting: false };
        let (result, _) = during(fault.plan(), || fixture.store.load(&token));
        check_error(&result.unwrap_err(), fixture.dir.path(), Errno::IO, &format!("call {call}"));
    }
    assert_eq!(fixture.text(&session).as_deref(), Some("ancient"));
}

/// What is not synced must not be found either, and its file may refuse to go.
#[test]
fn a_creation_that_can_be_neither_synced_nor_removed_is_not_loadable() {
    for unsynced in ["sync file", "sync shard"] {
        let fixture = Fixture::new();
        let session = SessionId::random().unwrap();
        let fail = move |_, call| [unsynced, "unlink"].contains(&call).then(|| Errno::IO.raw_os_error());
        let (result, _) = during(fail, || fixture.store.create_file(&session, Arc::new(record("new")), true));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(fixture.text(&session), None, "after `{unsynced}` failed");
    }
}

/// The gate fails a call before it has done anything; a disk that fills up fails a write in the middle.
#[test]
fn a_write_that_failed_in_the_middle_is_voided_and_harms_nobody_if_it_cannot_be() {
    let fixture = Fixture::new();
    for undone in [true, false] {
        let session = fixture.session(true);
        let path = fixture.path(&session);
        let mut writes = 0;
        let tear = move |_, call| {
            if call != "write" {
                return None;
            }
            writes += 1;
            if writes == 1 {
                let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all_at(&[0x55; 300], 0).unwrap();
            }
            (writes == 1 || !undone).then(|| Errno::NOSPC.raw_os_error())
        };
        let (result, calls) = during(tear, || put(&fixture.store, &session, "new", true));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(calls, ["open session", "read", "write", "write", "announce"]);
        // Torn or voided, the other slot is none that a reader may take for "never written": it reads twice.
        check_calls(&["open session", "read", "open session", "read"], || {
            fixture.store.load(&session.to_token())
        });
        assert_eq!(fixture.text(&session).as_deref(), Some("old"));
        put(&fixture.store, &session, "next", true).unwrap();
        check_calls(&["open session", "read"], || fixture.store.load(&session.to_token()));
        assert_eq!(fixture.text(&session).as_deref(), Some("next"));
    }
}

#[test]
fn creation_refuses_an_id_that_exists_and_leaves_it_alone() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    for power_safe in [false, true] {
        let error = fixture.store.create_file(&session, Arc::new(record("new")), power_safe).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Random);
        let path = fixture.path(&session);
        let text = format!(
            "failed to create session file `{}`: the random generator repeated an id",
            path.display()
        );
        assert_eq!(error.to_string(), text);
        assert_eq!(fixture.text(&session).as_deref(), Some("old"));
    }
    // A rotation to an id that exists ends neither.
    let other = fixture.session(false);
    let error = Act::Rotate.run(&fixture.store, &session, &other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Random);
    assert_eq!(fixture.text(&session).as_deref(), Some("old"));
    assert_eq!(fixture.text(&other).as_deref(), Some("old"));
}

#[test]
fn whichever_call_of_opening_fails_it_is_an_error_that_names_the_store_and_the_next_opening_succeeds() {
    let open = |dir: &TempDir| FileStore::open(dir.path().join("store"));
    let dir = directory();
    let (opened, calls) = during(|_, _| None, || open(&dir));
    assert_eq!(opened.unwrap().path(), dir.path().join("store"));
    // The first and the last call of each kind: there are 256 shards.
    let mut chosen: Vec<usize> = (0..calls.len())
        .filter(|&n| !calls[..n].contains(&calls[n]) || !calls[n + 1..].contains(&calls[n]))
        .collect();
    chosen.dedup();
    assert!(chosen.len() > 8, "{calls:?}");
    for call in chosen {
        let dir = directory();
        let fault = Fault { call, errno: Errno::IO, lasting: false };
        let (result, _) = during(fault.plan(), || open(&dir));
        let context = format!("call {call}, {}", calls[call]);
        check_error(&result.unwrap_err(), dir.path(), Errno::IO, &context);
        let died = dying_in_call(call, || open(&dir));
        assert!(died.is_none_or(|opened| opened.is_ok()), "{context}: opening what is left failed");
        let store = open(&dir).unwrap();
        store.create_file(&SessionId::random().unwrap(), Arc::new(record("x")), true).unwrap();
    }
}

// ----------------------------------------------------------------------------------------- syncs that failed

/// Fails the syncs of session files whose numbers pass, counted from 0, and any other call whose name is
/// given.
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

/// From the failed sync on: the version is written to a new file, which is what is synced.
const REBUILD: [&str; 12] = [
    // The other slot, which may hold the version that was not synced, is marked as well.
    "write",
    "open shard",
    "create file",
    "stat file",
    "write",
    "sync file",
    "write",
    "write",
    "exchange",
    "unlink",
    "sync shard",
    "write",
];

#[track_caller]
fn check_rebuilt(fixture: &Fixture, session: &SessionId, act: Act, before: &[&'static str]) {
    let inode = fixture.inode(session);
    let (result, calls) =
        during(failing_syncs(|n| n == 0, &[]), || act.run(&fixture.store, session, session));
    assert!(result.unwrap());
    assert_eq!(calls, told(&[before, &REBUILD].concat()));
    assert_ne!(
        fixture.inode(session),
        inode,
        "the kernel has marked its pages clean: it must not be used again"
    );
    assert_eq!(fixture.text(session), Some(act.new_text()));
    // And what the new file is known to be is true: it is as good as after any power-safe save.
    let calls = ["open session", "read", "write", "sync file", "write"];
    check_calls(&told(&calls), || put(&fixture.store, session, "next", true));
}

#[test]
fn a_sync_that_failed_is_not_tried_again_on_the_same_file() {
    let fixture = Fixture::new();
    // The sync of the new version.
    let session = fixture.session(true);
    let before = ["open session", "read", "write", "sync file", "write"];
    check_rebuilt(&fixture, &session, Act::Update { power_safe: true }, &before);
    // The sync of the version before, which a relaxed save has left.
    put(&fixture.store, &session, "relaxed", false).unwrap();
    let before = ["open session", "read", "sync file"];
    check_rebuilt(&fixture, &session, Act::Update { power_safe: true }, &before);
    // The sync of a version that is kept.
    put(&fixture.store, &session, "old", false).unwrap();
    let before = ["open session", "read", "read", "open shard", "sync file"];
    check_rebuilt(&fixture, &session, Act::Keep, &before);
}

#[test]
fn when_a_sync_failed_and_writing_anew_fails_too_durability_is_unknown_and_the_old_version_stands() {
    let fixture = Fixture::new();
    let begin = ["open session", "read", "write", "sync file"].len();
    let calls_after = 1 + REBUILD.len();
    let mut unknown = 0;
    for second in begin..begin + calls_after {
        let session = fixture.session(true);
        let fail = move |n, call| {
            (n == begin - 1 && call == "sync file" || n == second).then(|| Errno::IO.raw_os_error())
        };
        let (result, calls) = during(fail, || put(&fixture.store, &session, "new", true));
        let context = format!("the second fault was call {second}, `{}`", calls[second]);
        let text = fixture.text(&session).unwrap();
        match result {
            Ok(_) => assert_eq!(text, "new", "{context}"),
            Err(error) => {
                unknown += 1;
                assert_eq!(error.kind(), ErrorKind::DurabilityUnknown, "{context}");
                let want = format!(
                    "failed to save session after a failed sync `{}`: writing it anew failed as well",
                    fixture.path(&session).display()
                );
                assert_eq!(error.to_string(), want);
                check_error(&error, fixture.dir.path(), Errno::IO, &context);
                // The new version has its name before the directory is synced.
                let want = if calls[second] == "sync shard" { "new" } else { "old" };
                assert_eq!(text, want, "{context}");
            }
        }
        assert_eq!(fixture.temporary_beside(&session), usize::from(calls[second] == "unlink"), "{context}");
        put(&fixture.store, &session, "next", true).unwrap();
        assert_eq!(fixture.text(&session).as_deref(), Some("next"), "{context}");
    }
    assert_eq!(unknown, 8, "all but undoing the failed write, noting what is known, and tidying up");
}

/// The second sync of a file would succeed without having written what the first one failed to write.
#[test]
fn after_a_failed_sync_and_a_failed_rewrite_the_next_power_safe_save_does_not_trust_the_file_either() {
    let fixture = Fixture::new();
    for relaxed in [false, true] {
        let session = fixture.session(true);
        if relaxed {
            put(&fixture.store, &session, "relaxed", false).unwrap();
        }
        let inode = fixture.inode(&session);
        let fail = failing_syncs(|n| n == 0, &["create file"]);
        let (result, _) = during(fail, || put(&fixture.store, &session, "new", true));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::DurabilityUnknown);
        // A relaxed save in between changes nothing about it.
        put(&fixture.store, &session, "relaxed again", false).unwrap();
        assert_eq!(fixture.inode(&session), inode);
        put(&fixture.store, &session, "next", true).unwrap();
        assert_ne!(fixture.inode(&session), inode, "relaxed before: {relaxed}");
        assert_eq!(fixture.text(&session).as_deref(), Some("next"));
        let calls = ["open session", "read", "write", "sync file", "write"];
        check_calls(&told(&calls), || put(&fixture.store, &session, "trusted", true));
    }
}

#[test]
fn a_directory_that_cannot_be_synced_leaves_durability_unknown_until_one_sync_succeeds() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    for text in ["a", "b"] {
        let fail = |_, call| (call == "sync shard").then(|| Errno::IO.raw_os_error());
        let (result, _) = during(fail, || put(&fixture.store, &session, text, true));
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DurabilityUnknown);
        let path = fixture.path(&session);
        let want = format!(
            "failed to sync the directory of session file `{}`: what was changed is visible, and \
             may not survive a power cut",
            path.display()
        );
        assert_eq!(error.to_string(), want);
        assert_eq!(fixture.text(&session).as_deref(), Some(text), "what was changed is visible");
    }
    let (result, calls) = during(|_, _| None, || put(&fixture.store, &session, "c", true));
    assert!(result.unwrap().is_some() && calls.contains(&"sync shard"), "{calls:?}");
}

// --------------------------------------------------------------------------------------------- sudden deaths

/// Runs `act` in a process that dies in its n-th call; `None` if it did.
fn dying_in_call<R>(n: usize, act: impl FnOnce() -> R) -> Option<R> {
    struct Death;
    let die = move |call: usize, _| match call.cmp(&n) {
        Less => None,
        Equal => resume_unwind(Box::new(Death)),
        // The dead make no calls.
        Greater => Some(Errno::IO.raw_os_error()),
    };
    let ended = catch_unwind(AssertUnwindSafe(|| during(die, act).0));
    // The dead leave their plan behind.
    during(|_, _| None, || ());
    match ended {
        Ok(result) => Some(result),
        Err(cause) if cause.is::<Death>() => None,
        Err(failed_assertion) => resume_unwind(failed_assertion),
    }
}

fn die_in_every_call(act: Act, power_safe: bool) {
    let fixture = Fixture::new();
    for call in 0.. {
        let (session, successor) = (fixture.session(power_safe), SessionId::random().unwrap());
        let survived = dying_in_call(call, || act.run(&fixture.store, &session, &successor).unwrap());
        let context = format!("{act:?} died in call {call}");
        let (old, made) = (fixture.text(&session), fixture.text(&successor));
        match act {
            Act::Rotate => {
                assert!([None, Some("old")].contains(&old.as_deref()), "{context}: {old:?}");
                assert!([None, Some("new")].contains(&made.as_deref()), "{context}: {made:?}");
                assert!(old.is_some() || made.is_some(), "{context}: both ids are dead");
            }
            // Not "ancient": an end that was begun uncovers no older version.
            Act::Delete => assert!([None, Some("old")].contains(&old.as_deref()), "{context}: {old:?}"),
            Act::Create { .. } => assert!([None, Some("new")].contains(&made.as_deref()), "{context}"),
            _ => {
                let old = old.as_deref().unwrap_or_else(|| panic!("{context}: the session is gone"));
                assert!(old == "old" || old == act.new_text(), "{context}: {old:?}");
            }
        }
        // The next process finds nothing in its way.
        let other = fixture.reopened(FileStoreOptions::new().lock_wait(Duration::from_millis(200)));
        for (session, alive) in [(&session, old.is_some()), (&successor, made.is_some())] {
            assert_eq!(put(&other, session, &big("next"), true).unwrap().is_some(), alive, "{context}");
            assert_eq!(fixture.text(session), alive.then(|| big("next")), "{context}");
            assert_eq!(other.delete_file(session).unwrap(), alive, "{context}");
            assert_eq!(fixture.text(session), None, "{context}");
            assert!(!fixture.path(session).exists(), "{context}");
        }
        assert_eq!(fixture.store.queues.len(), 0, "{context}: a queue is left");
        if survived.is_some() {
            assert!(call > 2, "no act makes fewer than three calls");
            return;
        }
    }
}

#[test]
fn a_process_that_dies_in_any_call_leaves_the_old_version_or_the_new_one() {
    for act in WRITING {
        for power_safe in [false, true] {
            die_in_every_call(act, power_safe);
        }
    }
}

/// The mark is only a reason to look; it must neither kill the session nor stay.
#[test]
fn a_file_marked_by_a_writer_that_died_before_it_replaced_it_goes_on() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let exchange = GROW.iter().position(|call| *call == "exchange").unwrap();
    assert!(dying_in_call(exchange, || put(&fixture.store, &session, &big("x"), false)).is_none());
    assert_eq!(fixture.text(&session).as_deref(), Some("old"));
    let calls = ["open session", "read", "stat file", "stat session", "write"];
    check_calls(&told(&calls), || put(&fixture.store, &session, "a", false));
    check_calls(&["open session", "read", "write", "announce"], || put(&fixture.store, &session, "b", false));
    assert_eq!(fixture.text(&session).as_deref(), Some("b"));
}

// ----------------------------------------------------------------------------- between one call and the next

/// A logout that meets a save at each of its calls, by a thread of the same process or by another process,
/// and cannot wait for it.
fn delete_in_every_call(act: Act) {
    let impatient = || FileStoreOptions::new().lock_wait(Duration::from_millis(1));
    let fixture = Fixture::with(impatient());
    let deleters = [Arc::clone(&fixture.store), fixture.reopened(impatient())];
    for (deleter, call) in
        deleters.into_iter().flat_map(|deleter| (0..).map(move |call| (deleter.clone(), call)).take(20))
    {
        let (session, successor) = (fixture.session(false), SessionId::random().unwrap());
        let met = Arc::new(Mutex::new(None));
        let (ended, report) = (session.clone(), Arc::clone(&met));
        let interrupt = move |n, _: &str| {
            if n == call {
                let (deleter, ended) = (Arc::clone(&deleter), ended.clone());
                let was_there = thread::spawn(move || deleter.delete_file(&ended)).join().unwrap().unwrap();
                *report.lock().unwrap() = Some(was_there);
            }
            None
        };
        let (result, calls) = during(interrupt, || act.run(&fixture.store, &session, &successor));
        let Some(was_there) = *met.lock().unwrap() else { continue };
        let context = format!("{act:?}, met in call {call} of {calls:?}");
        assert_eq!(fixture.text(&session), None, "{context}: it came back");
        assert!(!fixture.path(&session).exists(), "{context}");
        let done = match result {
            // The meeting took all of its own wait, and it had to begin again.
            Err(error) if error.kind() == ErrorKind::Busy => false,
            other => other.unwrap_or_else(|error| panic!("{context}: {error}")),
        };
        if act == Act::Rotate {
            // Ended before it moved: then it has not moved. Ended after it moved: the old id was dead
            // already.
            let made = fixture.text(&successor);
            assert_eq!(
                (done, made.as_deref()),
                if was_there { (false, None) } else { (true, Some("new")) },
                "{context}"
            );
        }
        assert_eq!(fixture.temporary_beside(&session), 0, "{context}: a temporary file is left");
        assert!(put(&fixture.store, &session, "later", true).unwrap().is_none(), "{context}");
    }
}

#[test]
fn a_save_does_not_bring_back_a_session_that_is_ended_during_any_of_its_calls() {
    for act in [
        Act::Update { power_safe: false },
        Act::Update { power_safe: true },
        Act::Grow { power_safe: false },
        Act::Grow { power_safe: true },
        Act::Keep,
        Act::Rotate,
    ] {
        delete_in_every_call(act);
    }
}

/// Also not the save that writes everything anew because a sync failed.
#[test]
fn a_rewrite_after_a_failed_sync_does_not_bring_back_an_ended_session() {
    let fixture = Fixture::with(FileStoreOptions::new().lock_wait(Duration::from_millis(1)));
    let session = fixture.session(true);
    let (deleter, ended) = (Arc::clone(&fixture.store), session.clone());
    let mut fail = failing_syncs(|n| n == 0, &[]);
    let interrupt = move |n, call| {
        if call == "exchange" {
            let (deleter, ended) = (Arc::clone(&deleter), ended.clone());
            assert!(thread::spawn(move || deleter.delete_file(&ended)).join().unwrap().unwrap());
        }
        fail(n, call)
    };
    let (result, _) = during(interrupt, || put(&fixture.store, &session, "new", true));
    assert!(result.unwrap().is_none());
    assert_eq!(fixture.text(&session), None);
    assert_eq!(fixture.temporary_beside(&session), 0);
}

/// Another process opens the session's file and waits for its lock while we are in `call` of `act`, some of
/// whose calls fail. Returns what the act comes to, and the other's save, which appends "+".
fn wait_during(
    fixture: &Fixture,
    act: Act,
    call: &'static str,
    mut fail: impl FnMut(usize, &'static str) -> Option<i32> + 'static,
    [session, successor]: [&SessionId; 2],
) -> (Result<bool>, Option<Arc<Record>>) {
    let other = fixture.reopened(FileStoreOptions::new());
    let (sender, receiver) = mpsc::channel();
    let (waited_for, path) = (session.clone(), fixture.path(session));
    let wait = move |n, this: &'static str| {
        if this == call {
            let (other, waited_for) = (Arc::clone(&other), waited_for.clone());
            let waiter = thread::spawn(move || {
                let mut append = |record: &mut Record| {
                    let text = text_of(record) + "+";
                    record.entries.insert("text".into(), Value::new(&text).unwrap());
                    Ok(Verdict::Write)
                };
                other.update_file(&waited_for, &mut append, false)
            });
            // One is ours; the other is the waiter's, who can go no further until we let go.
            let began = Instant::now();
            while descriptors(|open| open == path) < 2 {
                assert!(began.elapsed() < Duration::from_secs(10), "the waiter never opened the file");
                thread::sleep(Duration::from_millis(1));
            }
            sender.send(waiter).unwrap();
        }
        fail(n, this)
    };
    let (result, calls) = during(wait, || act.run(&fixture.store, session, successor));
    let waiter = receiver.try_recv().unwrap_or_else(|_| panic!("`{call}` is not among {calls:?}"));
    (result, waiter.join().unwrap().unwrap().map(|live| live.record))
}

#[test]
fn a_save_that_waited_on_a_file_that_was_replaced_starts_again_with_the_one_in_its_place() {
    let fixture = Fixture::new();
    let check =
        |act: Act, fail: Box<dyn FnMut(usize, &'static str) -> Option<i32>>, want: Option<ErrorKind>| {
            let session = fixture.session(true);
            let (result, waited) = wait_during(&fixture, act, "exchange", fail, [&session, &session]);
            assert_eq!(result.err().map(|error| error.kind()), want, "{act:?}");
            assert_eq!(waited.as_ref().map(|record| text_of(record)), Some(act.new_text() + "+"), "{act:?}");
            assert_eq!(fixture.text(&session), Some(act.new_text() + "+"), "{act:?}");
        };
    check(Act::Grow { power_safe: false }, Box::new(|_, _| None), None);
    check(Act::Update { power_safe: true }, Box::new(failing_syncs(|n| n == 0, &[])), None);
    // Replaced, and then an error: the file in its place is the session all the same.
    let unknown = Some(ErrorKind::DurabilityUnknown);
    check(Act::Grow { power_safe: true }, Box::new(failing_syncs(|_| false, &["sync shard"])), unknown);
    check(Act::Update { power_safe: true }, Box::new(failing_syncs(|n| n == 0, &["sync shard"])), unknown);
}

#[test]
fn a_save_that_waited_on_a_file_that_was_removed_finds_no_session() {
    let fixture = Fixture::new();
    let (session, successor) = (fixture.session(false), SessionId::random().unwrap());
    let (rotated, waited) = wait_during(&fixture, Act::Rotate, "unlink", |_, _| None, [&session, &successor]);
    assert_eq!((rotated.unwrap(), waited), (true, None));
    assert_eq!(fixture.text(&successor).as_deref(), Some("new"));
    let (deleted, waited) =
        wait_during(&fixture, Act::Delete, "unlink", |_, _| None, [&successor, &successor]);
    assert_eq!((deleted.unwrap(), waited), (true, None));
    assert_eq!(fixture.text(&session), None);
    assert_eq!(fixture.text(&successor), None);
}

/// The holder of the lock is stopped, and the logout did not wait for it; others still do.
#[test]
fn a_save_that_waited_while_a_logout_overtook_it_finds_no_session() {
    for act in [Act::Update { power_safe: false }, Act::Grow { power_safe: true }, Act::Keep, Act::Rotate] {
        let fixture = Fixture::new();
        let (session, successor) = (fixture.session(false), SessionId::random().unwrap());
        let impatient = fixture.reopened(FileStoreOptions::new().lock_wait(Duration::from_millis(1)));
        let path = fixture.path(&session);
        let stopped = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let stopped = LockedFile::acquire(stopped, Instant::now()).unwrap().unwrap();
        let waited = thread::scope(|scope| {
            let waiter = scope.spawn(|| act.run(&fixture.store, &session, &successor));
            let began = Instant::now();
            while descriptors(|open| open == path) < 2 {
                assert!(began.elapsed() < Duration::from_secs(10), "the waiter never opened the file");
                thread::sleep(Duration::from_millis(1));
            }
            assert!(impatient.delete_file(&session).unwrap());
            drop(stopped);
            waiter.join().unwrap()
        });
        assert!(!waited.unwrap(), "{act:?} found a session that had been ended");
        assert_eq!((fixture.text(&session), fixture.text(&successor)), (None, None), "{act:?}");
    }
}

/// Sets the newer slot's last payload byte to what it was not. The newer slot of a session at its second
/// version is the second.
fn tear_newer_slot(path: &Path) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let at = SLOT_MIN as u64 + 128;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0].wrapping_add(1)], at).unwrap();
}

#[test]
fn a_reader_that_never_finds_the_file_at_rest_asks_the_writers_to_pause() {
    let fixture = Fixture::with(FileStoreOptions::new().lock_wait(Duration::from_millis(20)));
    let session = fixture.session(false);
    let (token, path) = (session.to_token(), fixture.path(&session));
    // Each reading finds other bytes than the one before.
    let restless = move |_, call| {
        if call == "read" {
            tear_newer_slot(&path);
        }
        None
    };
    let (found, calls) = during(restless.clone(), || fixture.store.load(&token));
    let readings = ["open session", "read"].repeat(9);
    let paused = ["open session", "stat file", "stat session", "read"];
    assert_eq!(calls, [&readings[..], &paused].concat());
    let Lookup::Live(live) = found.unwrap() else { panic!("the older version is there") };
    assert_eq!(text_of(&live.record), "ancient");

    let writer = fs::OpenOptions::new().write(true).read(true).open(fixture.path(&session)).unwrap();
    let held = LockedFile::acquire(writer, Instant::now()).unwrap().unwrap();
    let (found, _) = during(restless, || fixture.store.load(&token));
    assert_eq!(found.unwrap_err().kind(), ErrorKind::Busy);
    drop(held);
}

// ------------------------------------------------------------------------------------------------ passed readers

/// A reader may copy the first slot before a save and the second one in the middle of the next: what it holds then is
/// torn beside a version that was superseded before the load began.
#[test]
fn a_load_that_two_saves_passed_reads_again_and_finds_the_newest() {
    let fixture = Fixture::new();
    let session = fixture.session(false);
    let path = fixture.path(&session);
    let before = fs::read(&path).unwrap();
    for text in ["second", "third", "fourth"] {
        put(&fixture.store, &session, text, false).unwrap().unwrap();
    }
    let after = fs::read(&path).unwrap();
    let half = after.len() / 2;
    let mut copied = [&before[..half], &after[half..]].concat();
    copied[half + 128] ^= 1;
    fs::write(&path, copied).unwrap();
    let mut opened = 0;
    let second_look_sees_it_whole = move |_, call: &str| {
        opened += u32::from(call == "open session");
        if call == "open session" && opened == 2 {
            fs::write(&path, &after).unwrap();
        }
        None
    };
    let (text, _) = during(second_look_sees_it_whole, || fixture.text(&session));
    assert_eq!(text.as_deref(), Some("fourth"));
}

/// The same instant seen from the other side: a logout runs into its wait limit while a save holds the lock. What the
/// save then writes has no name, and nobody may be told that it was saved.
#[test]
fn a_save_that_a_logout_passed_is_gone_and_not_acknowledged() {
    let fixture = Fixture::new();
    let impatient = FileStoreOptions::new().lock_wait(Duration::from_millis(1));
    let other = impatient.open(fixture.dir.path()).unwrap();
    for power_safe in [false, true] {
        for verdict in [Verdict::Write, Verdict::Keep] {
            let session = fixture.session(false);
            let mut change = |record: &mut Record| {
                assert!(other.delete_file(&session).unwrap(), "it does not wait for this lock");
                record.entries.insert("text".into(), Value::new("late").unwrap());
                Ok(verdict)
            };
            let saved = fixture.store.update_file(&session, &mut change, power_safe).unwrap();
            assert!(saved.is_none(), "{verdict:?}, power-safe: {power_safe}");
            assert_eq!(fixture.text(&session), None);
        }
    }
}

/// A file that went away between a save's first look and its last may hold what was saved, or not.
#[test]
fn a_save_that_cannot_see_whether_a_logout_passed_it_does_not_claim_that_the_old_version_stands() {
    let fixture = Fixture::new();
    for (look, power_safe) in [("stat file", false), ("stat session", false), ("stat session", true)] {
        let session = fixture.session(true);
        let fail = move |_, call| (call == look).then(|| Errno::IO.raw_os_error());
        let mut change = |record: &mut Record| {
            // Long enough for a logout that waits as short as it can.
            thread::sleep(Duration::from_millis(2));
            record.entries.insert("text".into(), Value::new("new").unwrap());
            Ok(Verdict::Write)
        };
        let (saved, _) = during(fail, || fixture.store.update_file(&session, &mut change, power_safe));
        assert_eq!(saved.unwrap_err().kind(), ErrorKind::DurabilityUnknown, "{look}");
        assert_eq!(fixture.text(&session).as_deref(), Some("new"), "{look}");
    }
}

/// Damaged since it was verified, and served from memory: that is the version to go on from.
#[test]
fn an_act_that_keeps_what_is_stored_keeps_the_version_that_is_served_and_not_the_one_before_it() {
    let dir = directory();
    let store = FileStoreOptions::new().watch(false).open(dir.path()).unwrap();
    for act in [Act::Keep, Act::Rotate] {
        let (session, successor) = (SessionId::random().unwrap(), SessionId::random().unwrap());
        store.create_file(&session, Arc::new(record("ancient")), true).unwrap();
        put(&store, &session, "old", true).unwrap().unwrap();
        let path = dir.path().join(SessionPath::of(&session.file_id()).as_str());
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        // In the payload of the second slot, which holds the second version.
        file.write_all_at(&[0xff; 4], (SLOT_MIN + crate::record::PREFIX_LEN) as u64).unwrap();
        let mut keep = |_: &mut Record| Ok(Verdict::Keep);
        let kept = match act {
            Act::Rotate => store.rotate_file(&session, &successor, &mut keep),
            _ => store.update_file(&session, &mut keep, true),
        };
        assert_eq!(text_of(&kept.unwrap().unwrap().record), "old", "{act:?}");
    }
}
