//! Changes of a store by other programs (`rm`, `mv`, a restored backup). A store with a watcher notices them within a
//! fraction of a second, a store without a cache at once, and all others within a minute. The tests of the watcher are
//! in `watched`, which needs the feature `watch`.
#[cfg(feature = "watch")]
pub(crate) mod watched;

use crate::support::texts::{append_plus, directory_in_memory, path_of, put, record, text_of};
use sessile::{Admin, Clock, Durability, FileStore, FileStoreOptions, Lookup, Saved, Store, Token};
use std::error::Error as _;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

const RELAXED: Durability = Durability::Relaxed;
/// How long a cached copy is served before its file is read again.
const TRUST: Duration = Duration::from_secs(60);
const MICROSECOND: Duration = Duration::from_micros(1);
/// The error of a load when the shard is missing.
const NO_SHARD: &str = "error: Io, No such file or directory (os error 2)";

fn options() -> FileStoreOptions {
    FileStoreOptions::new().sync_security_events(false)
}

fn create(store: &FileStore, text: &str) -> Saved {
    store.create(&record(text), RELAXED).unwrap()
}

#[track_caller]
fn save(store: &FileStore, saved: &Saved, text: &str) {
    assert!(put(store, &saved.token, text, RELAXED).unwrap().is_some(), "{text} was not saved");
}

/// The result of a load, as a text.
fn shown(store: &FileStore, token: &Token) -> String {
    match store.load(token) {
        Ok(Lookup::Live(live)) => text_of(&live.record),
        Ok(Lookup::Absent(_)) => "absent".into(),
        Err(error) => format!("error: {:?}, {}", error.kind(), error.source().unwrap()),
    }
}

/// The n-th of a series of texts, each of which needs a larger file than the one before.
fn big(n: u32) -> String {
    format!("big {n} ").repeat(200 << n)
}

/// A store whose session files are changed outside the library.
struct Stage {
    dir: TempDir,
    root: PathBuf,
    store: FileStore,
}

impl Stage {
    fn new(options: FileStoreOptions) -> Self {
        let dir = directory_in_memory();
        let root = dir.path().join("store");
        let store = options.open(&root).unwrap();
        fs::create_dir(dir.path().join("aside")).unwrap();
        Self { dir, root, store }
    }
    fn file(&self, saved: &Saved) -> PathBuf {
        path_of(&self.root, saved.live.id)
    }
    fn shard(&self, saved: &Saved) -> PathBuf {
        self.file(saved).parent().unwrap().to_owned()
    }
    fn aside(&self) -> PathBuf {
        self.dir.path().join("aside")
    }
    /// The path of the backup: a copy of the session file from when it said "old".
    fn backup(&self, saved: &Saved) -> PathBuf {
        self.aside().join(saved.live.id.to_string())
    }
    /// Creates a session that said "old" when its backup was made, and says "new" since.
    fn backed_up(&self, grown: bool) -> Saved {
        let saved = create(&self.store, "old");
        if grown {
            save(&self.store, &saved, &big(1));
        }
        save(&self.store, &saved, "old");
        fs::copy(self.file(&saved), self.backup(&saved)).unwrap();
        save(&self.store, &saved, "new");
        saved
    }
}

/// A change of a session file by another program. The session says "new" before; each change has its own result of a
/// later load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutsideChange {
    Remove,
    MoveAway,
    RestoreByRename,
    MoveShardAway,
    ReplaceShardByBackup,
    RemoveShard,
}

impl OutsideChange {
    const ALL: [Self; 6] = [
        Self::Remove,
        Self::MoveAway,
        Self::RestoreByRename,
        Self::MoveShardAway,
        Self::ReplaceShardByBackup,
        Self::RemoveShard,
    ];

    fn done(self, stage: &Stage, saved: &Saved) -> &'static str {
        let (file, shard, backup) = (stage.file(saved), stage.shard(saved), stage.backup(saved));
        let aside = stage.aside().join("moved");
        match self {
            Self::Remove => fs::remove_file(file).unwrap(),
            Self::MoveAway => fs::rename(file, aside).unwrap(),
            Self::RestoreByRename => fs::rename(backup, file).unwrap(),
            Self::MoveShardAway => fs::rename(shard, aside).unwrap(),
            Self::ReplaceShardByBackup => {
                let fresh = stage.aside().join("fresh");
                fs::create_dir(&fresh).unwrap();
                fs::rename(backup, fresh.join(file.file_name().unwrap())).unwrap();
                fs::rename(&shard, aside).unwrap();
                fs::rename(fresh, shard).unwrap();
            }
            Self::RemoveShard => fs::remove_dir_all(shard).unwrap(),
        }
        match self {
            Self::Remove | Self::MoveAway => "absent",
            Self::RestoreByRename | Self::ReplaceShardByBackup => "old",
            Self::MoveShardAway | Self::RemoveShard => NO_SHARD,
        }
    }
}

// -------------------------------------------------------------------------------------------- seen without watcher

#[test]
fn a_store_without_a_cache_sees_outside_changes_at_once() {
    for change in OutsideChange::ALL {
        for grown in [false, true] {
            let stage = Stage::new(options().cache_bytes(0));
            let saved = stage.backed_up(grown);
            assert_eq!(shown(&stage.store, &saved.token), "new");
            let want = change.done(&stage, &saved);
            assert_eq!(shown(&stage.store, &saved.token), want, "{change:?}");
            assert_eq!(shown(&stage.store, &saved.token), want, "{change:?}, once more");
        }
    }
}

/// A store without a watcher, with a clock that the test sets.
fn unwatched() -> (Stage, Clock) {
    unwatched_with(32 << 20)
}

fn unwatched_with(cache_bytes: usize) -> (Stage, Clock) {
    let clock = Clock::manual(std::time::SystemTime::now());
    (Stage::new(options().watch(false).cache_bytes(cache_bytes).clock(clock.clone())), clock)
}

#[test]
fn without_a_watcher_a_foreign_change_shows_within_a_minute() {
    for change in OutsideChange::ALL {
        let (stage, clock) = unwatched();
        let saved = stage.backed_up(false);
        let want = change.done(&stage, &saved);
        thread::sleep(Duration::from_millis(20));
        let almost_half = Duration::from_micros(30 * 1_000_000 - 1);
        for step in [Duration::ZERO, TRUST / 2, almost_half] {
            clock.advance(step);
            assert_eq!(shown(&stage.store, &saved.token), "new", "{change:?}, {step:?}");
        }
        clock.advance(MICROSECOND);
        assert_eq!(shown(&stage.store, &saved.token), want, "{change:?}");
        // From then on the restored version is cached like any other, although it is older than one that was cached
        // before.
        let hits = stage.store.stats().hits;
        assert_eq!(shown(&stage.store, &saved.token), want, "{change:?}, once more");
        assert_eq!(stage.store.stats().hits, hits + u64::from(want == "old"), "{change:?}");
    }
}

#[test]
fn a_copy_of_the_future_is_not_trusted() {
    let (stage, clock) = unwatched();
    let saved = stage.backed_up(false);
    fs::remove_file(stage.file(&saved)).unwrap();
    // The clock was set back to before the copy was read. The copy must not be served until that time comes round
    // again.
    clock.set(clock.now() - MICROSECOND);
    assert_eq!(shown(&stage.store, &saved.token), "absent");
}

#[test]
fn a_confirmed_entry_is_fresh_for_another_minute() {
    let (stage, clock) = unwatched();
    let saved = stage.backed_up(false);
    let record = |store: &FileStore| match store.load(&saved.token).unwrap() {
        Lookup::Live(live) => live.record,
        Lookup::Absent(absent) => panic!("{absent:?}"),
    };
    let first = record(&stage.store);
    clock.advance(TRUST);
    assert!(std::ptr::eq(first.as_bytes(), record(&stage.store).as_bytes()), "it was decoded again");
    let stats = stage.store.stats();
    assert_eq!((stats.hits, stats.files.misses, stats.files.invalidations), (1, 1, 1));
    clock.advance(TRUST / 2);
    record(&stage.store);
    assert_eq!(stage.store.stats().hits, 2);
}

#[test]
fn a_save_to_a_file_removed_from_outside_finds_no_session() {
    for cache_bytes in [32 << 20, 0] {
        let (stage, _clock) = unwatched_with(cache_bytes);
        let [updated, rotated] = [(); 2].map(|()| stage.backed_up(false));
        for saved in [&updated, &rotated] {
            fs::remove_file(stage.file(saved)).unwrap();
        }
        assert!(put(&stage.store, &updated.token, "back", RELAXED).unwrap().is_none());
        assert!(stage.store.rotate(&rotated.token, &mut append_plus, &RELAXED.into()).unwrap().is_none());
        for saved in [updated, rotated] {
            assert!(!stage.file(&saved).exists(), "cache of {cache_bytes}: it was brought back");
            // All stores, also the one whose save failed, notice that the session is gone.
            assert_eq!(shown(&stage.store, &saved.token), "absent", "cache of {cache_bytes}");
        }
    }
}

#[test]
fn a_save_to_a_restored_file_changes_what_was_restored() {
    for cache_bytes in [32 << 20, 0] {
        let (stage, _clock) = unwatched_with(cache_bytes);
        let saved = stage.backed_up(false);
        // The cached copy is some versions ahead of the restored file, and so of the version that the save will write.
        for text in ["newer", "newest"] {
            save(&stage.store, &saved, text);
        }
        OutsideChange::RestoreByRename.done(&stage, &saved);
        stage.store.update(&saved.token, &mut append_plus, RELAXED).unwrap().unwrap();
        assert_eq!(shown(&stage.store, &saved.token), "old+", "cache of {cache_bytes}");
        let other = options().cache_bytes(0).open(&stage.root).unwrap();
        assert_eq!(shown(&other, &saved.token), "old+", "cache of {cache_bytes}");
    }
}
