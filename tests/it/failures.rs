//! Failures of the file system. Each is an error that names the operation, the file, and the cause; it is never
//! reported as "no such session", never leaves half of a change, and never waits without end. When the failure is over,
//! all operations work again.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use crate::support::dice::Dice;
use crate::support::planted::Planted;
use crate::support::process::{Parent, Start, Worker, hear_from_all, say_to_all};
use crate::support::rerun::{again, again_as_nobody, again_in_mounts, stage};
use crate::support::texts::{append_plus, directory_in_memory, load, path_of, put, record};
use crate::support::versions;
use rustix::process::{Resource, getrlimit, setrlimit};
use sessile::{
    Absent, Admin, Durability, Error, ErrorKind, FileStore, FileStoreOptions, Lookup, Saved, Store, Token,
};
use std::error::Error as _;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const WORKERS: &[(&str, Worker)] = &[("work on a full disk", work_on_a_full_disk)];

const RELAXED: Durability = Durability::Relaxed;
const POWER_SAFE: Durability = Durability::PowerSafe;

/// A text for which the session needs a larger file than for its first one.
fn big() -> String {
    "big".repeat(1000)
}

fn create(store: &FileStore, text: &str) -> Saved {
    store.create(&record(text), POWER_SAFE).unwrap()
}

/// The message of the operating system: the innermost cause of an error.
pub(crate) fn cause(error: &Error) -> String {
    let mut cause = error.source().unwrap_or_else(|| panic!("no cause of {error:?}"));
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[track_caller]
fn check_error<T>(result: Result<T, Error>, kind: ErrorKind, text: &str, because: &str) {
    let Err(error) = result else { panic!("it succeeded instead of: {text}") };
    assert_eq!((error.kind(), error.to_string()), (kind, text.into()));
    assert_eq!(cause(&error), because, "{text}");
}

/// The result of every operation that saves, without its value.
fn saves(store: &FileStore, token: &Token) -> [(&'static str, Result<(), Error>); 4] {
    [
        ("relaxed update", put(store, token, "new", RELAXED).map(drop)),
        ("power-safe update", put(store, token, "new", POWER_SAFE).map(drop)),
        ("growing update", put(store, token, &big(), RELAXED).map(drop)),
        ("rotation", store.rotate(token, &mut append_plus, &RELAXED.into()).map(drop)),
    ]
}

/// The result of every operation that saves, and of a deletion.
fn writes(store: &FileStore, token: &Token) -> Vec<(&'static str, Result<(), Error>)> {
    let deletion = ("deletion", store.delete(token).map(drop));
    saves(store, token).into_iter().chain([deletion]).collect()
}

/// The names of all files in all shards.
fn files(root: &Path) -> Vec<String> {
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    crate::support::texts::files_in_shards(root).into_iter().map(name).collect()
}

// ----------------------------------------------------------------------------------------------- a full disk

/// Runs a test again on a file system of this size: a small ext4 image, or a file system in memory where there are no
/// loop devices.
#[track_caller]
pub(crate) fn again_on_small_disk(test: &str, bytes: u32, inodes: u32) {
    let dir = tempfile::tempdir().unwrap();
    again_on_small_disk_in(dir.path(), test, bytes, inodes);
}

/// The same, with the disk mounted in `dir`, beside which the test can have other files.
#[track_caller]
pub(crate) fn again_on_small_disk_in(dir: &Path, test: &str, bytes: u32, inodes: u32) {
    fs::create_dir(dir.join("disk")).unwrap();
    let image = format!(
        "truncate -s {bytes} image.$$ && mkfs.ext4 -q -m 0 -b 1024 -N {inodes} image.$$ && \
         mount -o loop image.$$ disk"
    );
    let memory = format!("mount -t tmpfs -o size={bytes},nr_inodes={inodes} none disk");
    again_in_mounts(test, dir, "disk", &[&image, &memory]);
}

#[track_caller]
fn check_full<T>(result: Result<T, Error>, operations: &[&str], reason: &str) {
    let Err(error) = result else { panic!("it succeeded on a full disk") };
    let (kind, text) = (error.kind(), error.to_string());
    assert_eq!(kind, ErrorKind::Full, "{text}");
    let path = error.path().unwrap_or_else(|| panic!("no path: {text}")).display();
    let wanted = operations.iter().map(|operation| format!("failed to {operation} `{path}`: {reason}"));
    assert!(wanted.into_iter().any(|wanted| wanted == text), "{text}");
    assert_eq!(cause(&error), "No space left on device (os error 28)");
}

/// Fills a disk until it has no bytes, or no inodes, left, and checks all operations. Then calls `make_room`, and
/// checks them again.
#[track_caller]
fn check_full_disk(store: &FileStore, reason: &str, make_room: impl FnOnce(&Saved)) {
    let root = store.path();
    let [small, large, spare] = ["old", &big(), "spare"].map(|text| create(store, text));
    let before = files(root).len();
    // Creates sessions until one does not fit.
    let mut fitting = 0;
    let error = loop {
        match store.create(&record("one more"), RELAXED) {
            Ok(_) => fitting += 1,
            Err(error) => break error,
        }
        assert!(fitting < 100_000, "the disk never fills");
    };
    let creating = ["create session file", "write new session file", "sync new session file"];
    check_full(Err::<(), _>(error), &creating, reason);
    check_full(store.create(&record("x"), POWER_SAFE), &creating, reason);
    assert_eq!(files(root).len(), before + fitting, "what could not be made is left");

    // A save that needs a larger file is refused, and the old version stays.
    let growing = [
        "make a larger file for session",
        "write the larger file for session",
        "sync the larger file for session",
    ];
    for how in [RELAXED, POWER_SAFE] {
        check_full(put(store, &small.token, &big(), how), &growing, reason);
        check_full(store.rotate(&small.token, &mut append_plus, &how.into()), &creating, reason);
        assert_eq!(load(store, &small.token).unwrap().as_deref(), Some("old"));
        assert_eq!(load(store, &large.token).unwrap(), Some(big()));
    }
    assert_eq!(files(root).len(), before + fitting, "a temporary file is left");

    // A save that fits into its file works as before.
    for round in 0..20 {
        for how in [RELAXED, POWER_SAFE] {
            let text = format!("round {round}, {how:?}");
            for saved in [&small, &large] {
                assert!(put(store, &saved.token, &text, how).unwrap().is_some());
                assert_eq!(load(store, &saved.token).unwrap(), Some(text.clone()));
            }
        }
    }

    make_room(&spare);
    create(store, "new");
    put(store, &small.token, &big(), POWER_SAFE).unwrap().unwrap();
    assert_eq!(load(store, &small.token).unwrap(), Some(big()));
    let moved = store.rotate(&small.token, &mut append_plus, &RELAXED.into()).unwrap().unwrap();
    assert_eq!(load(store, &moved.token).unwrap(), Some(big() + "+"));
    assert_eq!(load(store, &small.token).unwrap(), None);
}

#[test]
fn on_a_disk_without_bytes_sessions_can_be_read_and_saved() {
    let Some(disk) = stage() else {
        return again_on_small_disk(
            "failures::on_a_disk_without_bytes_sessions_can_be_read_and_saved",
            8 << 20,
            4096,
        );
    };
    let store = FileStoreOptions::new().cache_bytes(0).open(disk.join("store")).unwrap();
    // Fills all of the disk but some hundred kilobytes.
    let mut ballast = File::create(disk.join("ballast")).unwrap();
    while rustix::fs::statvfs(&disk).map(|stat| stat.f_bavail * stat.f_frsize).unwrap() > 300 << 10 {
        ballast.write_all(&[1; 16 << 10]).unwrap();
        ballast.sync_all().unwrap();
    }
    check_full_disk(&store, "no space left on the file system", |_| ballast.set_len(0).unwrap());
}

#[test]
fn a_disk_without_inodes_says_so_and_deletes_make_room() {
    let Some(disk) = stage() else {
        return again_on_small_disk(
            "failures::a_disk_without_inodes_says_so_and_deletes_make_room",
            8 << 20,
            512,
        );
    };
    // Keeps room for the last steps of the test, which make three files.
    let reserve: Vec<PathBuf> = (0..3).map(|n| disk.join(format!("reserve {n}"))).collect();
    for path in &reserve {
        File::create(path).unwrap();
    }
    let store = FileStoreOptions::new().cache_bytes(0).open(disk.join("store")).unwrap();
    check_full_disk(&store, "no inodes left on the file system", |spare| {
        // A logout works on a full disk, and frees the inode of its file.
        assert!(store.delete(&spare.token).unwrap().is_some());
        create(&store, "in its place");
        for path in &reserve {
            fs::remove_file(path).unwrap();
        }
    });
}

/// Fills the disk to the last block. If other processes free space meanwhile, fills that, too.
pub(crate) fn fill_up(ballast: &mut File) {
    let mut size = 1 << 20;
    while size > 0 {
        if ballast.write_all(&vec![1; size]).and_then(|()| ballast.sync_data()).is_err() {
            size /= 2;
        }
    }
}

#[test]
fn on_a_disk_that_fills_up_no_load_is_stale() {
    const PROCESSES: u64 = 3;
    let Some(disk) = stage() else {
        let name = "failures::on_a_disk_that_fills_up_no_load_is_stale";
        return again_on_small_disk(name, 16 << 20, 4096);
    };
    let root = disk.join("store");
    let store = FileStore::open(&root).unwrap();
    // The versions that were acknowledged are recorded in a file on another disk.
    let board = disk.with_file_name("board");
    let sessions = PROCESSES * OWN;
    let tokens: Vec<_> =
        (0..sessions).map(|_| store.create(&versions::new(&store, 1, 100), RELAXED).unwrap().token).collect();
    let acknowledged = Board::make(&board, sessions);
    let mut children: Vec<_> = (0..PROCESSES)
        .map(|number| {
            let start = Start::of("work on a full disk").with("DIR", &root).with("BOARD", &board);
            start.with("NUMBER", number.to_string()).with("SESSIONS", sessions.to_string()).start()
        })
        .collect();
    for child in &mut children {
        for token in &tokens {
            child.say(token.expose());
        }
    }
    hear_from_all(&children, "ready");
    say_to_all(&mut children, "go");
    hear_from_all(&children, "under way");
    let mut ballast = File::create(disk.join("ballast")).unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        fill_up(&mut ballast);
    }
    ballast.set_len(0).unwrap();
    ballast.sync_all().unwrap();
    // The next save of each process succeeds, and all processes see it.
    say_to_all(&mut children, "there is room");
    hear_from_all(&children, "saved");
    say_to_all(&mut children, "look");
    hear_from_all(&children, "all are right");
    say_to_all(&mut children, "end");
    for child in children {
        let said = child.finish();
        let [hits, in_place, refused, refused_in_place]: [u64; 4] =
            std::array::from_fn(|n| said[n].parse().unwrap());
        assert!(hits > 100 && in_place > 30, "there was no load: {said:?}");
        assert!(refused > 3, "the disk was not full: {said:?}");
        assert_eq!(refused_in_place, 0, "what has its place was refused");
    }
    for (n, token) in (0..).zip(&tokens) {
        assert_eq!(versions::stored(&store, token), Some(acknowledged.get(n)));
    }
}

/// The number of sessions that each process saves. All other processes load them.
const OWN: u64 = 5;

/// A file with the last acknowledged version of each session.
struct Board(File);

impl Board {
    fn make(path: &Path, sessions: u64) -> Self {
        fs::write(path, 1u64.to_le_bytes().repeat(usize::try_from(sessions).unwrap())).unwrap();
        Self::open(path)
    }
    fn open(path: &Path) -> Self {
        Self(File::options().read(true).write(true).open(path).unwrap())
    }
    fn get(&self, session: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, 8 * session).unwrap();
        u64::from_le_bytes(bytes)
    }
    fn put(&self, session: u64, version: u64) {
        self.0.write_all_at(&version.to_le_bytes(), 8 * session).unwrap();
    }
}

/// What one of the worker processes works with.
struct AtWork {
    store: FileStore,
    board: Board,
    tokens: Vec<Token>,
    /// The number of the first session that this process saves.
    own: u64,
    dice: Dice,
    in_place: u64,
    refused_in_place: u64,
    refused: u64,
}

impl AtWork {
    fn token(&self, session: u64) -> &Token {
        &self.tokens[usize::try_from(session).unwrap()]
    }

    fn look(&self) {
        for session in 0..self.tokens.len() as u64 {
            let before = self.board.get(session);
            let found = versions::stored(&self.store, self.token(session));
            assert!(found >= Some(before), "{found:?} was loaded after {before} was acknowledged");
        }
    }

    /// Returns the value of a success, and `None` for a refusal, which must be one of the expected errors.
    fn is_done<T>(&self, result: Result<T, Error>) -> Option<T> {
        let error = match result {
            Ok(done) => return Some(done),
            Err(error) => error,
        };
        let no_space = "No space left on device (os error 28)";
        assert_eq!((error.kind(), &*cause(&error)), (ErrorKind::Full, no_space), "{error}");
        assert!(error.path().is_some_and(|path| path.starts_with(self.store.path())), "{error}");
        None
    }

    /// Saves a session of this process. Returns whether there was room.
    fn save(&self, session: u64, bytes: usize, how: Durability) -> bool {
        let version = self.board.get(session) + 1;
        let mut change = |record: &mut sessile::Record| {
            assert_eq!(versions::of(record), version - 1, "it is not the version acknowledged last");
            versions::put(record, version, bytes);
            Ok(sessile::Verdict::Write)
        };
        let saved = self.is_done(self.store.update(self.token(session), &mut change, how));
        if let Some(saved) = &saved {
            assert!(saved.is_some());
            self.board.put(session, version);
        }
        saved.is_some()
    }

    /// Creates a session, rotates it and deletes it. Returns whether there was room.
    fn come_and_go(&self, how: Durability) -> bool {
        let record = versions::new(&self.store, 1, 1000);
        let Some(made) = self.is_done(self.store.create(&record, how)) else { return false };
        let mut keep = |_: &mut sessile::Record| Ok(sessile::Verdict::Keep);
        let moved = self.is_done(self.store.rotate(&made.token, &mut keep, &how.into()));
        let there = moved.map_or(made.token, |moved| moved.unwrap().token);
        self.store.delete(&there).unwrap().is_some()
    }

    fn work(&mut self) {
        self.look();
        let how = [RELAXED, POWER_SAFE][usize::try_from(self.dice.roll(2)).unwrap()];
        let session = self.own + self.dice.roll(OWN);
        let bytes = 1000 << self.dice.roll(4);
        let done = match self.dice.roll(8) {
            // This save may need a larger file.
            0 => self.save(session, bytes, how),
            1..=3 => self.come_and_go(how),
            _ => {
                let done = self.save(session, 200, how);
                self.in_place += 1;
                self.refused_in_place += u64::from(!done);
                done
            }
        };
        self.refused += u64::from(!done);
    }
}

fn work_on_a_full_disk(parent: &Parent) {
    let mut at_work = AtWork {
        store: FileStore::open(parent.argument("DIR")).unwrap(),
        board: Board::open(Path::new(parent.argument("BOARD"))),
        tokens: (0..parent.number("SESSIONS")).map(|_| Token::parse(&parent.line()).unwrap()).collect(),
        own: parent.number("NUMBER") * OWN,
        dice: Dice::new(parent.number("NUMBER")),
        in_place: 0,
        refused_in_place: 0,
        refused: 0,
    };
    parent.report("ready");
    parent.line();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            parent.line();
            is_over.store(true, Ordering::SeqCst);
        });
        for round in 0.. {
            at_work.work();
            if round == 30 {
                parent.report("under way");
            }
            if is_over.load(Ordering::SeqCst) {
                break;
            }
        }
    });
    for session in at_work.own..at_work.own + OWN {
        for (bytes, how) in [(200, RELAXED), (20_000, POWER_SAFE)] {
            assert!(at_work.save(session, bytes, how), "there is room, and it was refused");
        }
    }
    assert!(at_work.come_and_go(POWER_SAFE), "there is room, and it was refused");
    parent.report("saved");
    parent.line();
    for session in 0..at_work.tokens.len() as u64 {
        let found = versions::stored(&at_work.store, at_work.token(session));
        assert_eq!(found, Some(at_work.board.get(session)));
    }
    parent.report("all are right");
    parent.line();
    let hits = at_work.store.stats().hits;
    for count in [hits, at_work.in_place, at_work.refused, at_work.refused_in_place] {
        parent.report(count);
    }
}

/// The disk gets fuller with each round, so that the creation of the store fails at each of its steps.
#[test]
fn making_a_store_on_a_full_disk_is_an_error_without_leftovers() {
    let Some(disk) = stage() else {
        let name = "failures::making_a_store_on_a_full_disk_is_an_error_without_leftovers";
        return again_on_small_disk(name, 8 << 20, 4096);
    };
    let (root, old) = (disk.join("new"), disk.join("old"));
    let saved = create(&FileStore::open(&old).unwrap(), "old");
    fs::remove_file(old.join("run/generations")).unwrap();
    let reserve = disk.join("reserve");
    let check_full = |root: &Path, room: u64| {
        let error = FileStore::open(root).err();
        let error = error.unwrap_or_else(|| panic!("with {room} bytes {} was opened", root.display()));
        assert_eq!(error.kind(), ErrorKind::Full, "with {room} bytes: {error}");
        let (text, path) = (error.to_string(), error.path().unwrap());
        assert!(path.starts_with(root), "{text}");
        assert!(
            cause(&error).starts_with("No space left on device (os error 28)"),
            "{text}: {}",
            cause(&error)
        );
        assert!(!root.join("run/generations").exists(), "with {room} bytes: half of it is left");
    };
    let mut operations = std::collections::BTreeSet::new();
    for room in [0, 2, 100].into_iter().chain(256..272).chain([1 << 10]).map(|kibibytes| kibibytes << 10) {
        fs::write(&reserve, vec![1; usize::try_from(room).unwrap()]).unwrap();
        File::open(&reserve).unwrap().sync_all().unwrap();
        let mut ballast = File::create(disk.join("ballast")).unwrap();
        fill_up(&mut ballast);
        fs::remove_file(&reserve).unwrap();
        // The file system frees the blocks of a removed file only after a sync.
        ballast.sync_all().unwrap();
        check_full(&root, room);
        let error = FileStore::open(&root).unwrap_err().to_string();
        operations.insert(error[..error.find('`').unwrap()].to_owned());
        check_full(&old, room);
        ballast.set_len(0).unwrap();
        ballast.sync_all().unwrap();
        // A store that was partly made is completed when there is room.
        let store = FileStore::open(&root).unwrap();
        let saved = create(&store, "new");
        assert_eq!(load(&store, &saved.token).unwrap().as_deref(), Some("new"));
        drop(store);
        fs::remove_dir_all(&root).unwrap();
    }
    assert!(operations.len() >= 2, "{operations:?}");
    let store = FileStore::open(&old).unwrap();
    assert_eq!(load(&store, &saved.token).unwrap().as_deref(), Some("old"));
}

/// The store maps the counters, which can be read on a read-only mount. It saves nothing, so it writes to none of them.
#[test]
fn a_read_only_mount_sees_saves_made_through_another_mount() {
    let Some(root) = stage() else {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("writable")).unwrap();
        let saved = create(&FileStore::open(dir.path().join("store")).unwrap(), "old");
        fs::write(dir.path().join("token"), saved.token.expose()).unwrap();
        let name = "failures::a_read_only_mount_sees_saves_made_through_another_mount";
        let script =
            "mount --bind store writable && mount --bind store store && mount -o remount,bind,ro store";
        return again_in_mounts(name, dir.path(), "store", &[script]);
    };
    let token = Token::parse(&fs::read_to_string(root.with_file_name("token")).unwrap()).unwrap();
    let readers = [32 << 20, 0].map(|bytes| FileStoreOptions::new().cache_bytes(bytes).open(&root).unwrap());
    #[cfg(feature = "watch")]
    assert!(readers[0].watch_error().is_none());
    let writer = FileStore::open(root.with_file_name("writable")).unwrap();
    let check = |want: Option<&str>| {
        for (reader, has_cache) in readers.iter().zip([true, false]) {
            assert_eq!(load(reader, &token).unwrap().as_deref(), want);
            let hits = reader.stats().hits;
            assert_eq!(load(reader, &token).unwrap().as_deref(), want);
            assert_eq!(reader.stats().hits, hits + u64::from(has_cache && want.is_some()));
            assert!(put(reader, &token, "not to be", RELAXED).is_err());
        }
    };
    check(Some("old"));
    put(&writer, &token, "new", RELAXED).unwrap().unwrap();
    check(Some("new"));
    put(&writer, &token, &big(), RELAXED).unwrap().unwrap();
    check(Some(&big()));
    assert!(writer.delete(&token).unwrap().is_some());
    check(None);
    drop((readers, writer));
    // The counters cannot be made on a read-only mount, and a read-only store needs none.
    fs::remove_file(root.with_file_name("writable").join("run/generations")).unwrap();
    let error = FileStore::open(&root).unwrap_err();
    assert_eq!(
        (error.kind(), &*cause(&error)),
        (ErrorKind::Io, "Read-only file system (os error 30)"),
        "{error}"
    );
    FileStoreOptions::new().read_only(true).open(&root).unwrap();
}

#[test]
fn a_read_only_file_system_allows_reads_only() {
    let Some(root) = stage() else {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let saved = create(&FileStoreOptions::new().cache_bytes(0).open(&root).unwrap(), "old");
        fs::write(dir.path().join("token"), saved.token.expose()).unwrap();
        let name = "failures::a_read_only_file_system_allows_reads_only";
        let script = "mount --bind store store && mount -o remount,bind,ro store";
        again_in_mounts(name, dir.path(), "store", &[script]);
        let store = FileStoreOptions::new().cache_bytes(0).open(&root).unwrap();
        assert_eq!(load(&store, &saved.token).unwrap().as_deref(), Some("old"));
        assert_eq!(files(&root).len(), 1);
        return;
    };
    let token = Token::parse(&fs::read_to_string(root.parent().unwrap().join("token")).unwrap()).unwrap();
    let store = FileStoreOptions::new().cache_bytes(0).open(&root).unwrap();
    assert_eq!(load(&store, &token).unwrap().as_deref(), Some("old"));
    let read_only = "Read-only file system (os error 30)";
    let Lookup::Live(live) = store.load(&token).unwrap() else { panic!("it was just there") };
    let path = path_of(&root, live.id);
    for (operation, result) in writes(&store, &token) {
        // If a file cannot be opened for writing, a deletion tries to rename it, so its error is another one.
        let tried = if operation == "deletion" { "remove" } else { "open" };
        let text = format!("failed to {tried} session file `{}`", path.display());
        check_error(result, ErrorKind::Io, &text, read_only);
        assert_eq!(load(&store, &token).unwrap().as_deref(), Some("old"), "after a {operation}");
    }
    let error = store.create(&record("x"), RELAXED).unwrap_err();
    assert_eq!((error.kind(), &*cause(&error)), (ErrorKind::Io, read_only), "{error}");
}

// ------------------------------------------------------------------------------------- limits of the process

/// The documentation of the file store says that each call needs up to four more descriptors.
#[test]
fn four_free_descriptors_are_enough_for_every_operation() {
    let Some(dir) = stage() else {
        let dir = tempfile::tempdir().unwrap();
        let name = "failures::four_free_descriptors_are_enough_for_every_operation";
        return again(name, dir.path());
    };
    let store = FileStoreOptions::new().cache_bytes(0).open(dir.join("store")).unwrap();
    // The first creation opens the bucket of the expiry index for this hour, and keeps it open.
    store.create(&record("first"), RELAXED).unwrap();
    let usual = getrlimit(Resource::Nofile);
    // The limit applies to the numbers of descriptors, some of which are in use.
    let is_free = |number: &u64| fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_err();
    let limit_with = |spare: usize| (0..).filter(is_free).nth(spare).unwrap();
    let mut failures = Vec::new();
    for spare in 0..=4 {
        // One session for each operation. They were saved relaxed, so that a power-safe save has the most work.
        let sessions: [Saved; 6] = std::array::from_fn(|_| store.create(&record("old"), RELAXED).unwrap());
        let tokens = sessions.map(|saved| saved.token);
        let made_before = files(store.path()).len();
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = Some(limit_with(spare));
        setrlimit(Resource::Nofile, limit).unwrap();
        let loaded = store.load(&tokens[0]);
        let created = store.create(&record("new"), POWER_SAFE);
        let updated = put(&store, &tokens[1], "new", RELAXED);
        let safe = put(&store, &tokens[2], "new", POWER_SAFE);
        let grown = put(&store, &tokens[3], &big(), POWER_SAFE);
        let rotated = store.rotate(&tokens[4], &mut append_plus, &RELAXED.into());
        let deleted = store.delete(&tokens[5]);
        setrlimit(Resource::Nofile, usual).unwrap();

        let text = |n: usize| load(&store, &tokens[n]).unwrap();
        let or_old = |ok: bool, new: &str| Some(if ok { new.to_owned() } else { "old".into() });
        assert_eq!(text(1), or_old(updated.is_ok(), "new"), "{spare} spare");
        assert_eq!(text(2), or_old(safe.is_ok(), "new"), "{spare} spare");
        assert_eq!(text(3), or_old(grown.is_ok(), &big()), "{spare} spare");
        assert_eq!(text(4), if rotated.is_ok() { None } else { Some("old".into()) }, "{spare} spare");
        assert_eq!(text(5), if deleted.is_ok() { None } else { Some("old".into()) }, "{spare} spare");
        let made = usize::from(created.is_ok());
        let gone = usize::from(deleted.is_ok());
        assert_eq!(files(store.path()).len(), made_before + made - gone, "{spare} spare: a file is left");

        let absent = loaded.as_ref().is_ok_and(|found| matches!(found, Lookup::Absent(_)));
        assert!(!absent, "{spare} spare: a session that is there was not found");
        let results = [
            loaded.map(drop),
            created.map(drop),
            updated.map(drop),
            safe.map(drop),
            grown.map(drop),
            rotated.map(drop),
            deleted.map(drop),
        ];
        let errors = results.into_iter().filter_map(Result::err);
        failures.push(
            errors
                .inspect(|error| {
                    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                    assert!(error.path().is_some_and(|path| path.starts_with(store.path())), "{error}");
                    assert_eq!(cause(error), "Too many open files (os error 24)", "{error}");
                })
                .count(),
        );
    }
    assert_eq!((failures[0], failures[4]), (7, 0), "{failures:?}");
    assert!(failures.is_sorted_by(|a, b| a >= b), "{failures:?}");
}

#[test]
fn a_record_beyond_a_limit_keeps_the_old_version() {
    let dir = directory_in_memory();
    let options = FileStoreOptions::new().record_bytes_max(2048).entries_max(2);
    let store = options.open(dir.path()).unwrap();
    assert_eq!(store.record_bytes_max(), Some(2048));
    let token = create(&store, "old").token;
    let mut three = |record: &mut sessile::Record| {
        for name in ["a", "b"] {
            record.insert(name, &sessile::Value::new(&1)?).unwrap();
        }
        Ok(sessile::Verdict::Write)
    };
    let mut large = |record: &mut sessile::Record| {
        record.insert("text", &sessile::Value::new(&big())?).unwrap();
        Ok(sessile::Verdict::Write)
    };
    let mut three_entries = record("old");
    three(&mut three_entries).unwrap();
    let too_large = (ErrorKind::TooLarge, "3135 bytes, where the limit is 2048");
    let too_many = (ErrorKind::TooManyEntries, "3 entries, where the limit is 2");
    for how in [RELAXED, POWER_SAFE] {
        for (result, (kind, reason)) in [
            (store.update(&token, &mut large, how).map(drop), too_large),
            (store.rotate(&token, &mut large, &how.into()).map(drop), too_large),
            (store.create(&record(&big()), how).map(drop), too_large),
            (store.update(&token, &mut three, how).map(drop), too_many),
            (store.rotate(&token, &mut three, &how.into()).map(drop), too_many),
            (store.create(&three_entries, how).map(drop), too_many),
        ] {
            let error = result.unwrap_err();
            let text = format!("failed to encode session record: {reason}");
            assert_eq!((error.kind(), error.to_string()), (kind, text));
            assert_eq!(load(&store, &token).unwrap().as_deref(), Some("old"));
            assert_eq!(files(dir.path()).len(), 1);
        }
    }
}

// ----------------------------------------------------------------------- things in place of a session file

/// Runs `operation` on a thread of its own, and fails if it takes longer than five seconds.
#[track_caller]
fn within_five_seconds<R: Send + 'static>(what: &str, operation: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(operation()));
    receiver.recv_timeout(Duration::from_secs(5)).unwrap_or_else(|_| panic!("{what}: no answer in 5 seconds"))
}

#[track_caller]
fn check_planted(planted: Planted, act_of_load: &str, because: &'static str) {
    let dir = directory_in_memory();
    let (root, aside) = (dir.path().join("store"), dir.path().join("aside"));
    let store = Arc::new(FileStoreOptions::new().cache_bytes(0).open(&root).unwrap());
    let saved = create(&store, "old");
    let place = path_of(&root, saved.live.id);
    fs::rename(&place, &aside).unwrap();
    let original = fs::read(&aside).unwrap();
    planted.plant(&place, &aside);
    let kind_of_file = || fs::symlink_metadata(&place).unwrap().file_type();
    let kind_before = kind_of_file();

    let reason = "a link, pipe, directory or device is in its place";
    let text = format!("failed to {act_of_load} `{}`: {reason}", place.display());
    let (other, token) = (Arc::clone(&store), saved.token.clone());
    let loaded = within_five_seconds(&text, move || other.load(&token));
    check_error(loaded, ErrorKind::NotASessionFile, &text, because);
    let (other, token) = (Arc::clone(&store), saved.token.clone());
    for (operation, result) in within_five_seconds("writing", move || writes(&other, &token)) {
        let error = result.expect_err(operation);
        assert_eq!(
            (error.kind(), &*cause(&error)),
            (ErrorKind::NotASessionFile, because),
            "{planted:?}, {operation}: {error}"
        );
        assert!(
            error.to_string().ends_with(&format!(" session file `{}`: {reason}", place.display())),
            "{error}"
        );
    }
    assert_eq!(kind_of_file(), kind_before, "{planted:?} was changed");
    assert_eq!(fs::read(&aside).unwrap(), original, "{planted:?} was followed");
    assert_eq!(files(&root).len(), 1, "{planted:?}");

    // The session can be used again when its file is back.
    if kind_before.is_dir() {
        fs::remove_dir(&place).unwrap();
    }
    fs::rename(&aside, &place).unwrap();
    assert_eq!(load(&*store, &saved.token).unwrap().as_deref(), Some("old"));
    put(&*store, &saved.token, "new", POWER_SAFE).unwrap().unwrap();
}

#[test]
fn an_object_in_place_of_a_session_is_not_followed_nor_removed() {
    let link = "Too many levels of symbolic links (os error 40)";
    check_planted(Planted::Link, "open session file", link);
    check_planted(Planted::DanglingLink, "open session file", link);
    check_planted(Planted::Fifo, "read session file", "Illegal seek (os error 29)");
    check_planted(Planted::Directory, "read session file", "Is a directory (os error 21)");
    check_planted(Planted::Socket, "open session file", "No such device or address (os error 6)");
}

/// A store in which `change` is applied to the shard of one session, or to all shards, and undone at the end.
struct Shards {
    dir: tempfile::TempDir,
    root: PathBuf,
    store: FileStore,
    saved: Saved,
}

impl Shards {
    fn new() -> Self {
        let dir = directory_in_memory();
        let root = dir.path().join("store");
        let store = FileStoreOptions::new().cache_bytes(0).open(&root).unwrap();
        let saved = create(&store, "old");
        Self { dir, root, store, saved }
    }

    fn shard(&self) -> PathBuf {
        path_of(&self.root, self.saved.live.id).parent().unwrap().to_owned()
    }

    /// Asserts that every operation on the session is an error, and that the session is unchanged when its shard is
    /// back.
    #[track_caller]
    fn check(&self, kind: ErrorKind, load_text: &str, load_because: &str, shard_because: &str) {
        check_error(self.store.load(&self.saved.token), kind, load_text, load_because);
        for (operation, result) in writes(&self.store, &self.saved.token) {
            let error = result.expect_err(operation);
            assert_eq!(error.kind(), kind, "{operation}: {error}");
            let cause = cause(&error);
            assert!([load_because, shard_because].contains(&&*cause), "{operation}: {error}: {cause}");
        }
    }

    #[track_caller]
    fn check_unharmed(&self) {
        assert_eq!(load(&self.store, &self.saved.token).unwrap().as_deref(), Some("old"));
        put(&self.store, &self.saved.token, "new", POWER_SAFE).unwrap().unwrap();
        assert!(self.store.delete(&self.saved.token).unwrap().is_some());
    }
}

const NO_SUCH_FILE: &str = "No such file or directory (os error 2)";

/// As if the store's disk were not mounted. If the session counted as unknown, all visitors would be logged out.
#[test]
fn a_missing_shard_is_an_error_and_no_absent_session() {
    let shards = Shards::new();
    let (shard, aside) = (shards.shard(), shards.dir.path().join("aside"));
    fs::rename(&shard, &aside).unwrap();
    let text = format!("failed to open shard directory `{}`", shard.display());
    shards.check(ErrorKind::Io, &text, NO_SUCH_FILE, NO_SUCH_FILE);
    fs::rename(&aside, &shard).unwrap();
    shards.check_unharmed();
    // If the shard is there and the file is not, the session is absent.
    let found = shards.store.load(&shards.saved.token).unwrap();
    let Lookup::Absent(Absent::NotFound(id)) = found else { panic!("{found:?}") };
    assert_eq!(id, shards.saved.live.id);
}

#[test]
fn a_file_in_place_of_a_shard_directory_is_an_error() {
    let shards = Shards::new();
    let (shard, aside) = (shards.shard(), shards.dir.path().join("aside"));
    fs::rename(&shard, &aside).unwrap();
    fs::write(&shard, "not a directory").unwrap();
    let text = format!(
        "failed to open session file `{}`: a link, pipe, directory or device is in its place",
        path_of(&shards.root, shards.saved.live.id).display()
    );
    let because = "Not a directory (os error 20)";
    shards.check(ErrorKind::NotASessionFile, &text, because, because);
    fs::remove_file(&shard).unwrap();
    fs::rename(&aside, &shard).unwrap();
    shards.check_unharmed();
}

/// The links lead to the very same directories, so no result would show that they were followed; the error does.
#[test]
fn a_link_in_place_of_a_shard_directory_is_not_followed() {
    let shards = Shards::new();
    let aside = shards.dir.path().join("aside");
    fs::create_dir(&aside).unwrap();
    let all: Vec<String> = (0..256).map(|n| format!("{n:02x}")).collect();
    for name in &all {
        fs::rename(shards.root.join(name), aside.join(name)).unwrap();
        symlink(aside.join(name), shards.root.join(name)).unwrap();
    }
    let before = fs::read(path_of(&aside, shards.saved.live.id)).unwrap();
    let text = format!(
        "failed to open session file `{}`: a link, pipe, directory or device is in its place",
        path_of(&shards.root, shards.saved.live.id).display()
    );
    let link = "Too many levels of symbolic links (os error 40)";
    let no_directory = "Not a directory (os error 20)";
    shards.check(ErrorKind::NotASessionFile, &text, link, no_directory);
    for how in [RELAXED, POWER_SAFE] {
        let error = shards.store.create(&record("x"), how).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotASessionFile, "{error}");
    }
    assert_eq!(files(&aside).len(), 1, "something was made behind a link");
    assert_eq!(fs::read(path_of(&aside, shards.saved.live.id)).unwrap(), before, "a link was followed");
    for name in &all {
        fs::remove_file(shards.root.join(name)).unwrap();
        fs::rename(aside.join(name), shards.root.join(name)).unwrap();
    }
    shards.check_unharmed();
}

#[test]
fn a_removed_directory_is_an_error_and_no_absent_session() {
    let shards = Shards::new();
    fs::remove_dir_all(&shards.root).unwrap();
    let text = format!(
        "failed to open shard directory `{}`: the session directory itself was removed while the store was open; recreate it \
         and restart the program",
        shards.shard().display()
    );
    shards.check(ErrorKind::Io, &text, NO_SUCH_FILE, NO_SUCH_FILE);
    let error = shards.store.create(&record("x"), RELAXED).unwrap_err();
    assert_eq!((error.kind(), &*cause(&error)), (ErrorKind::Io, NO_SUCH_FILE), "{error}");
}

/// A store uses the directory that was opened, even if another directory has its name now.
#[test]
fn a_store_keeps_to_the_directory_that_it_opened() {
    let shards = Shards::new();
    let moved = shards.dir.path().join("moved");
    fs::rename(&shards.root, &moved).unwrap();
    let replacement = FileStoreOptions::new().cache_bytes(0).open(&shards.root).unwrap();
    assert_eq!(load(&replacement, &shards.saved.token).unwrap(), None);
    assert_eq!(load(&shards.store, &shards.saved.token).unwrap().as_deref(), Some("old"));
    let other = create(&shards.store, "other");
    put(&shards.store, &other.token, &big(), POWER_SAFE).unwrap().unwrap();
    assert_eq!(load(&shards.store, &other.token).unwrap(), Some(big()));
    assert_eq!((files(&moved).len(), files(&shards.root).len()), (2, 0));
    shards.check_unharmed();
}

// ----------------------------------------------------------------------------------------------- permissions

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_forbidden_operation_names_the_file() {
    let Some(stage) = stage() else {
        let dir = tempfile::tempdir().unwrap();
        let name = "failures::a_forbidden_operation_names_the_file";
        return again_as_nobody(name, dir.path());
    };
    let denied = "Permission denied (os error 13)";
    let root = stage.join("store");
    let store = FileStoreOptions::new().cache_bytes(0).open(&root).unwrap();
    let saved = create(&store, "old");
    let path = path_of(&root, saved.live.id);
    let shard = path.parent().unwrap();
    let text = |operation: &str| format!("failed to {operation} `{}`", path.display());
    let check_alive = |want: &str| assert_eq!(load(&store, &saved.token).unwrap().as_deref(), Some(want));

    // A session file without write permission can be loaded.
    allow(&path, 0o400);
    for (_, result) in saves(&store, &saved.token) {
        check_error(result, ErrorKind::Io, &text("open session file"), denied);
        check_alive("old");
    }
    // A session is ended when its visitor logs out, even if its file cannot be written or read.
    for mode in [0o400, 0] {
        let other = create(&store, "other");
        allow(&path_of(&root, other.live.id), mode);
        assert!(store.delete(&other.token).unwrap().is_some());
        assert_eq!(load(&store, &other.token).unwrap(), None);
    }
    // A session whose file cannot be read is an error, and not absent.
    allow(&path, 0);
    check_error(store.load(&saved.token), ErrorKind::Io, &text("open session file"), denied);
    allow(&path, 0o600);

    // The same if the shard cannot be entered.
    allow(shard, 0);
    check_error(store.load(&saved.token), ErrorKind::Io, &text("open session file"), denied);
    // In a shard in which no name can be changed, operations that need no new name work.
    allow(shard, 0o500);
    check_alive("old");
    put(&store, &saved.token, "new", POWER_SAFE).unwrap().unwrap();
    let grown = put(&store, &saved.token, &big(), RELAXED);
    check_error(grown, ErrorKind::Io, &text("make a larger file for session"), denied);
    check_alive("new");
    // A deletion needs no new name either: the tombstone in the file is synced, and the file is removed later.
    assert!(store.delete(&saved.token).unwrap().is_some());
    assert_eq!(load(&store, &saved.token).unwrap(), None);
    assert_eq!(files(&root).len(), 1);
    allow(shard, 0o700);
    assert!(store.delete(&saved.token).unwrap().is_none(), "it was ended before");
    assert_eq!(files(&root).len(), 0);
}
