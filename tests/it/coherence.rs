//! A load never returns a stale version from the cache: every process sees a save or an end as soon as it was
//! acknowledged in any process. Two stores that are open on one directory share only its files and counters, even if
//! they are in one process. So most tests here have a writer and a reader, two such stores. The reader has a cached
//! copy that it would serve if the writer did not invalidate it. No store here watches the directory, because a watcher
//! would hide a missing invalidation. Random tests of several processes are in `tests/hammer`.
use crate::support::apart::keep_apart;
use crate::support::versions;
use sessile::{
    Admin, Clock, Durability, Error, ErrorKind, FileStore, FileStoreOptions, PublicId, Record, Result, Store,
    Token, Value, Verdict,
};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

fn options() -> FileStoreOptions {
    let options = FileStoreOptions::new().lock_wait(Duration::from_secs(30)).sync_security_events(false);
    options.watch(false)
}

fn open(dir: &Path) -> FileStore {
    options().open(dir).unwrap()
}

/// Opens a store that reads the session file at each load.
fn open_without_cache(dir: &Path) -> FileStore {
    options().cache_bytes(0).open(dir).unwrap()
}

fn rotate(store: &FileStore, old: &Token) -> Result<Option<Token>> {
    let saved = store.rotate(old, &mut |record| raise(record, 10), &Durability::Relaxed.into())?;
    Ok(saved.map(|saved| saved.token))
}

/// Adds one to the version number in a record, and gives it a text of this size.
fn raise(record: &mut Record, text_bytes: usize) -> Result<Verdict> {
    versions::next(text_bytes)(record)
}

/// What the operation does to the stored version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Next,
    Same,
    Gone,
}

impl Outcome {
    fn of(self, version: u64) -> Option<u64> {
        match self {
            Self::Next => Some(version + 1),
            Self::Same => Some(version),
            Self::Gone => None,
        }
    }
}

/// An operation on a session. Returns whether the session was there.
type Operation = fn(&FileStore, &Token) -> Result<bool>;

fn update(
    store: &FileStore,
    token: &Token,
    how: Durability,
    mut change: impl FnMut(&mut Record) -> Result<Verdict>,
) -> Result<bool> {
    store.update(token, &mut change, how).map(|saved| saved.is_some())
}

/// A function that changes the record and then decides not to store it.
#[expect(clippy::unnecessary_wraps, reason = "it is a change")]
fn change_of_mind(record: &mut Record) -> Result<Verdict> {
    versions::put(record, 999, 10);
    Ok(Verdict::Keep)
}

fn failing_change(record: &mut Record) -> Result<Verdict> {
    versions::put(record, 999, 10);
    Err(Error::new(ErrorKind::Value, "change a record"))
}

const RELAXED: Durability = Durability::Relaxed;
const POWER_SAFE: Durability = Durability::PowerSafe;
/// The size of a text for which the file of a small session must be replaced by a larger one.
const LARGE: usize = 10_000;
/// The size of a text that exceeds the limit for a record.
const TOO_LARGE: usize = 2 << 20;

const OPERATIONS: &[(&str, Operation, std::result::Result<Outcome, ErrorKind>)] = &[
    ("save", |s, t| update(s, t, RELAXED, |record| raise(record, 10)), Ok(Outcome::Next)),
    ("power-safe save", |s, t| update(s, t, POWER_SAFE, |record| raise(record, 10)), Ok(Outcome::Next)),
    ("save that grows", |s, t| update(s, t, RELAXED, |record| raise(record, LARGE)), Ok(Outcome::Next)),
    (
        "power-safe save that grows",
        |s, t| update(s, t, POWER_SAFE, |record| raise(record, LARGE)),
        Ok(Outcome::Next),
    ),
    ("save that keeps", |s, t| update(s, t, RELAXED, change_of_mind), Ok(Outcome::Same)),
    ("power-safe save that keeps", |s, t| update(s, t, POWER_SAFE, change_of_mind), Ok(Outcome::Same)),
    ("save that fails", |s, t| update(s, t, RELAXED, failing_change), Err(ErrorKind::Value)),
    (
        "save that is too large",
        |s, t| update(s, t, RELAXED, |record| raise(record, TOO_LARGE)),
        Err(ErrorKind::TooLarge),
    ),
    ("rotation", |s, t| rotate(s, t).map(|new| new.is_some()), Ok(Outcome::Gone)),
    (
        "rotation that keeps",
        |s, t| s.rotate(t, &mut change_of_mind, &RELAXED.into()).map(|saved| saved.is_some()),
        Ok(Outcome::Gone),
    ),
    (
        "rotation that fails",
        |s, t| s.rotate(t, &mut failing_change, &RELAXED.into()).map(|saved| saved.is_some()),
        Err(ErrorKind::Value),
    ),
    ("delete", |s, t| s.delete(t).map(|ended| ended.is_some()), Ok(Outcome::Gone)),
];

/// Two open stores of one directory.
struct Two {
    writer: FileStore,
    reader: FileStore,
    dir: TempDir,
}

type Open = fn(&Path) -> FileStore;

/// The writers: one with a cache, and one without, which must invalidate all the same.
const PAIRS: &[(&str, Open)] = &[("with a cache", open), ("without a cache", open_without_cache)];

impl Two {
    fn new(writer: Open) -> Self {
        let dir = TempDir::new().unwrap();
        Self { writer: writer(dir.path()), reader: open(dir.path()), dir }
    }

    /// Creates a session at version 1. The reader has a cached copy of it, and so has the writer if it has a cache.
    #[track_caller]
    fn session(&self) -> Token {
        let token = new_session(&self.writer);
        assert_eq!(versions::stored(&self.writer, &token), Some(1));
        assert_warm(&self.reader, &token, 1);
        token
    }
}

fn new_session(store: &FileStore) -> Token {
    store.create(&versions::new(store, 1, 10), RELAXED).unwrap().token
}

fn file_of(dir: &Path, token: &Token) -> PathBuf {
    let id = PublicId::digest(token.expose().as_bytes()).to_string();
    dir.join(&id[..2]).join(&id[2..])
}

/// Loads a session twice, and asserts that the second load is a hit.
#[track_caller]
fn assert_warm(store: &FileStore, token: &Token, version: u64) {
    assert_eq!(versions::stored(store, token), Some(version));
    let hits = store.stats().hits;
    assert_eq!(versions::stored(store, token), Some(version));
    assert_eq!(store.stats().hits, hits + 1, "no copy was used");
}

#[test]
fn what_one_process_did_the_others_see_at_the_next_load() {
    for &(pair, writer) in PAIRS {
        let two = Two::new(writer);
        for &(name, operation, outcome) in OPERATIONS {
            let context = format!("{name}; {pair}");
            let token = two.session();
            assert_eq!(
                operation(&two.writer, &token).map_err(|e| e.kind()),
                outcome.map(|_| true),
                "{context}"
            );
            let want = outcome.unwrap_or(Outcome::Same).of(1);
            assert_eq!(versions::stored(&two.reader, &token), want, "{context}: the reader");
            assert_eq!(versions::stored(&two.writer, &token), want, "{context}: the writer itself");
            let Some(version) = want else { continue };
            // The reader caches this version, which the next operation must invalidate.
            assert_warm(&two.reader, &token, version);
            assert_eq!(
                operation(&two.writer, &token).map_err(|e| e.kind()),
                outcome.map(|_| true),
                "{context}"
            );
            let want = outcome.unwrap_or(Outcome::Same).of(version);
            assert_eq!(versions::stored(&two.reader, &token), want, "{context}: the reader, the second time");
        }
    }
}

#[test]
fn a_rotated_session_is_found_under_its_new_id_by_every_process() {
    for &(pair, writer) in PAIRS {
        let two = Two::new(writer);
        let old = two.session();
        let new = rotate(&two.writer, &old).unwrap().expect("it is alive");
        assert_warm(&two.reader, &new, 2);
        assert_eq!(versions::stored(&two.reader, &old), None, "{pair}");
    }
}

#[test]
fn two_processes_that_save_in_turns_see_each_other() {
    for &(pair, writer) in PAIRS {
        let two = Two::new(writer);
        let token = two.session();
        for version in 2..100 {
            let by = if version % 2 == 0 { &two.writer } else { &two.reader };
            let bytes = if version % 10 == 0 { 1 << (8 + version / 10) } else { 10 };
            assert!(update(by, &token, RELAXED, |record| raise(record, bytes)).unwrap(), "{pair}");
            for store in [&two.writer, &two.reader] {
                assert_eq!(versions::stored(store, &token), Some(version), "{pair}");
            }
        }
    }
}

/// A save uses the cached copy of a session only if the file still has that version.
#[test]
fn a_save_begins_with_the_stored_version_not_a_stale_entry() {
    let two = Two::new(open);
    let token = two.session();
    let unheard = unheard(two.dir.path());
    for _ in 0..2 {
        assert!(update(&unheard, &token, RELAXED, |record| raise(record, 10)).unwrap());
    }
    assert_eq!(versions::stored(&two.reader, &token), Some(1), "no invalidation");
    assert!(update(&two.reader, &token, RELAXED, |record| raise(record, 10)).unwrap());
    assert_eq!(versions::stored(&two.reader, &token), Some(4));
}

/// A store whose invalidations reach no store that is open now, because it has a generations file of its own. For the
/// others, it behaves like a process that is killed before each invalidation.
fn unheard(dir: &Path) -> FileStore {
    let (counters, heard) = (dir.join("run/generations"), dir.join("run/heard"));
    std::fs::hard_link(&counters, &heard).unwrap();
    keep_apart(dir);
    let store = options().clock(Clock::manual(SystemTime::now())).open(dir).unwrap();
    std::fs::rename(heard, counters).unwrap();
    store
}

#[test]
fn any_operation_after_a_killed_save_spreads_its_version() {
    for &(pair, writer) in PAIRS {
        for large in [false, true] {
            let two = Two::new(writer);
            let operations: Vec<_> = OPERATIONS.iter().map(|operation| (operation, two.session())).collect();
            let unheard = unheard(two.dir.path());
            for ((name, operation, outcome), token) in operations {
                let context = format!("{name}; {pair}; large: {large}");
                let bytes = if large { LARGE } else { 10 };
                assert!(update(&unheard, &token, RELAXED, |record| raise(record, bytes)).unwrap());
                assert_eq!(versions::stored(&two.reader, &token), Some(1), "{context}: before");
                assert_eq!(
                    operation(&two.writer, &token).map_err(|error| error.kind()),
                    outcome.map(|_| true),
                    "{context}"
                );
                let want = outcome.unwrap_or(Outcome::Same).of(2);
                assert_eq!(versions::stored(&two.reader, &token), want, "{context}: the reader");
                assert_eq!(versions::stored(&two.writer, &token), want, "{context}: the writer itself");
            }
        }
    }
}

#[test]
fn any_operation_after_a_killed_delete_ends_the_session() {
    type Die = fn(&Path);
    // The steps at which the deleting process was killed.
    let died: [(&str, Die); 2] = [
        // After the rename to `.end-…`, because another process had the lock.
        ("with the name gone", |file| {
            let name = file.file_name().unwrap().to_str().unwrap();
            std::fs::rename(file, file.with_file_name(format!(".end-{name}"))).unwrap();
        }),
        // After the tombstone was written, before the invalidation.
        ("with the name there", |file| {
            File::options().write(true).open(file).unwrap().write_all_at(b"GONE", 0).unwrap();
        }),
    ];
    for &(pair, writer) in PAIRS {
        let two = Two::new(writer);
        for &(name, operation, _) in OPERATIONS {
            for (how, die) in died {
                let context = format!("{name}; {pair}; {how}");
                let token = two.session();
                die(&file_of(two.dir.path(), &token));
                assert_eq!(versions::stored(&two.reader, &token), Some(1), "{context}: before");
                assert_eq!(operation(&two.writer, &token).map_err(|e| e.kind()), Ok(false), "{context}");
                assert_eq!(versions::stored(&two.reader, &token), None, "{context}: the reader");
                assert_eq!(versions::stored(&two.writer, &token), None, "{context}: the writer itself");
            }
        }
    }
}

/// The process died between the end of the old id and the invalidation. The next operation must end the old id, and no
/// other.
#[test]
fn a_rotation_that_died_unheard_ends_with_the_next_operation() {
    let two = Two::new(open);
    let old = two.session();
    let unheard = unheard(two.dir.path());
    let new = rotate(&unheard, &old).unwrap().expect("it is alive");
    assert_eq!(versions::stored(&two.reader, &old), Some(1), "no invalidation");
    assert!(!update(&two.writer, &old, RELAXED, |record| raise(record, 10)).unwrap());
    for store in [&two.writer, &two.reader, &unheard] {
        assert_eq!(versions::stored(store, &old), None);
        assert_eq!(versions::stored(store, &new), Some(2));
    }
}

/// A logout does not wait for a save that takes longer than the wait limit. The session is ended, also for stores that
/// cached the version of the save.
#[test]
fn a_logout_that_overtook_a_save_is_seen_by_every_process() {
    type Passed = fn(&FileStore, &Token, &dyn Fn()) -> Option<bool>;
    let operations: [(&str, Passed); 6] = [
        ("save", |s, t, meanwhile| update_meanwhile(s, t, RELAXED, 10, meanwhile)),
        ("power-safe save", |s, t, meanwhile| update_meanwhile(s, t, POWER_SAFE, 10, meanwhile)),
        ("save that grows", |s, t, meanwhile| update_meanwhile(s, t, RELAXED, LARGE, meanwhile)),
        ("save that is too large", |s, t, meanwhile| update_meanwhile(s, t, RELAXED, TOO_LARGE, meanwhile)),
        ("save that keeps", |s, t, meanwhile| {
            let change = |_: &mut Record| {
                meanwhile();
                Ok(Verdict::Keep)
            };
            update(s, t, RELAXED, change).ok()
        }),
        ("rotation", |s, t, meanwhile| {
            let change = &mut |record: &mut Record| {
                meanwhile();
                raise(record, 10)
            };
            s.rotate(t, change, &RELAXED.into()).ok().map(|saved| saved.is_some())
        }),
    ];
    for &(pair, open_writer) in PAIRS {
        let dir = TempDir::new().unwrap();
        let (writer, reader) = (open_writer(dir.path()), open(dir.path()));
        let deleter = options().lock_wait(Duration::from_millis(5)).open(dir.path()).unwrap();
        for (name, operation) in operations {
            let context = format!("{name}; {pair}");
            let token = new_session(&writer);
            assert_eq!(versions::stored(&writer, &token), Some(1), "{context}");
            for store in [&reader, &deleter] {
                assert_warm(store, &token, 1);
            }
            let check_gone = |when: &str| {
                for store in [&writer, &reader, &deleter] {
                    assert_eq!(versions::stored(store, &token), None, "{context}: {when}");
                }
            };
            let outcome = operation(&writer, &token, &|| {
                assert!(deleter.delete(&token).unwrap().is_some(), "{context}");
                check_gone("while the save is under way");
            });
            let want = if name.contains("too large") { None } else { Some(false) };
            assert_eq!(outcome, want, "{context}");
            check_gone("after the save");
        }
    }
}

/// Saves, and calls `meanwhile` before the change is made; `None` if the save failed.
fn update_meanwhile(
    store: &FileStore,
    token: &Token,
    how: Durability,
    bytes: usize,
    meanwhile: &dyn Fn(),
) -> Option<bool> {
    let change = |record: &mut Record| {
        meanwhile();
        raise(record, bytes)
    };
    update(store, token, how, change).ok()
}

#[test]
fn a_change_that_was_not_stored_shows_in_no_copy() {
    type Change = fn(&mut Record) -> Result<Verdict>;
    let changes: [(&str, Change); 4] = [
        ("kept", change_of_mind),
        ("failed", failing_change),
        ("too large", |record| raise(record, TOO_LARGE)),
        ("panicked", |record| {
            versions::put(record, 999, 10);
            // `resume_unwind` panics without printing a message for every case.
            std::panic::resume_unwind(Box::new("a change that panics"));
        }),
    ];
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    for (name, change) in changes {
        for rotates in [false, true] {
            let token = new_session(&store);
            assert_warm(&store, &token, 1);
            // Another caller has the same record, which must not change.
            let held = live(&store, &token);
            let mut change = change;
            let mut moved = None;
            let _ = catch_unwind(AssertUnwindSafe(|| {
                let how = RELAXED;
                if rotates {
                    moved = store.rotate(&token, &mut change, &how.into())?.map(|saved| saved.token);
                } else {
                    store.update(&token, &mut change, how)?;
                }
                Ok::<_, Error>(())
            }));
            assert_eq!(moved.is_some(), rotates && name == "kept", "{name}");
            let token = moved.unwrap_or(token);
            assert_eq!(versions::of(&held), 1, "{name}");
            assert_eq!(versions::stored(&store, &token), Some(1), "{name}: {rotates}");
            assert_warm(&store, &token, 1);
        }
    }
}

fn live(store: &FileStore, token: &Token) -> Record {
    match store.load(token).unwrap() {
        sessile::Lookup::Live(live) => live.record,
        absent @ sessile::Lookup::Absent(_) => panic!("{absent:?}"),
    }
}

/// A caller may change the record that a load returned. The cache still has the unchanged one.
#[test]
fn a_changed_record_is_not_what_the_next_load_finds() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let token = new_session(&store);
    let mut mine = live(&store, &token);
    mine.insert("mine", &Value::new(&1).unwrap()).unwrap();
    assert_warm(&store, &token, 1);
    assert!(!live(&store, &token).entries().contains("mine"));
}

// Sessions that are removed outside the library, without an invalidation.

const START: Duration = Duration::from_secs(1_800_000_000);

/// A store with a clock that the test sets, and a session whose file was removed by another program.
struct Removed {
    store: FileStore,
    clock: Clock,
    token: Token,
    _dir: TempDir,
}

impl Removed {
    /// `copy` makes the cached copy of the session. Before that there is none but one that is an hour old.
    fn new(copy: fn(&mut Self)) -> Self {
        let dir = TempDir::new().unwrap();
        let clock = Clock::manual(UNIX_EPOCH + START);
        let store = options().clock(clock.clone()).open(dir.path()).unwrap();
        let token = new_session(&store);
        let mut removed = Self { store, clock, token, _dir: dir };
        copy(&mut removed);
        std::fs::remove_file(file_of(removed.store.path(), &removed.token)).unwrap();
        removed
    }

    /// Sets the clock to `seconds` after the hour that follows the creation of the session.
    fn at(&self, seconds: f64) {
        self.clock.set(UNIX_EPOCH + START + Duration::from_secs_f64(3_600.0 + seconds));
    }

    fn is_found(&self) -> bool {
        versions::stored(&self.store, &self.token).is_some()
    }
}

#[test]
fn an_entry_is_fresh_for_a_minute_after_its_read() {
    type Copy = fn(&mut Removed);
    let copies: [(&str, Copy); 4] = [
        ("loaded", |this| {
            this.at(0.0);
            assert!(this.is_found());
        }),
        ("read again", |this| {
            this.at(-61.0);
            assert!(this.is_found());
            this.at(0.0);
            assert!(this.is_found());
        }),
        ("saved", |this| {
            this.at(0.0);
            assert!(update(&this.store, &this.token, RELAXED, |record| raise(record, 10)).unwrap());
        }),
        ("created", |this| {
            this.at(0.0);
            this.token = new_session(&this.store);
        }),
    ];
    for (name, copy) in copies {
        let removed = Removed::new(copy);
        for (second, found) in [(0.0, true), (30.0, true), (59.0, true), (59.999, true), (60.001, false)] {
            removed.at(second);
            assert_eq!(removed.is_found(), found, "{name}: after {second} s");
        }
        removed.at(1.0);
        assert!(!removed.is_found(), "{name}: brought back by the clock");
    }
}

#[test]
fn a_copy_from_the_future_is_not_trusted() {
    let removed = Removed::new(|this| {
        this.at(0.0);
        assert!(this.is_found());
    });
    removed.at(0.0);
    assert!(removed.is_found());
    removed.at(-1.0);
    assert!(!removed.is_found(), "a clock that was set back makes no copy last longer");
}

#[test]
fn without_a_cache_every_load_reads_the_file() {
    let two = Two::new(open);
    let blank = open_without_cache(two.dir.path());
    let token = two.session();
    assert_eq!(versions::stored(&blank, &token), Some(1));
    std::fs::remove_file(file_of(two.dir.path(), &token)).unwrap();
    assert_eq!(versions::stored(&blank, &token), None);
    assert_eq!(blank.stats().hits, 0);
}
