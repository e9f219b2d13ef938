//! A store for tests of sweeps. Its clock stands still unless a test moves it.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use super::texts::{directory_in_memory, load, path_of, record};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use sessile::admin::{SweepOptions, SweepOutcome, SweepReport};
use sessile::{
    Admin, Clock, Durability, FileStore, FileStoreOptions, PublicId, Record, Result, Saved, Store, Timing,
    Token, Verdict,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

pub(crate) const RELAXED: Durability = Durability::Relaxed;
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
/// The time after which a sweep counts as hanging: a hundred times that of a slow sweep on an idle machine.
const LIMIT: Duration = Duration::from_secs(600);
/// The hour since 1970 at which the clock of a fixture stands at first.
pub(crate) const FIRST_HOUR: u64 = 500_000;

/// A store whose clock stands still, some time after the beginning of an hour.
pub(crate) struct Fixture {
    pub(crate) clock: Clock,
    pub(crate) store: Arc<FileStore>,
    root: PathBuf,
    _dir: Option<TempDir>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = directory_in_memory();
        let fixture = Self::at(dir.path());
        Self { _dir: Some(dir), ..fixture }
    }

    /// The same as [`new`](Self::new), in this directory.
    pub(crate) fn at(root: &Path) -> Self {
        let clock = Clock::manual(UNIX_EPOCH + HOUR * u32::try_from(FIRST_HOUR).unwrap() + HOUR / 60);
        let store = Arc::new(open(root, &clock));
        Self { clock, store, root: root.to_owned(), _dir: None }
    }

    /// Opens the same directory as another store.
    pub(crate) fn another(&self) -> FileStore {
        open(&self.root, &self.clock)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Creates a session that lives for this time.
    pub(crate) fn session(&self, age: Duration) -> Saved {
        let mut record = record("text");
        record.set_timing(Timing { deadline: self.store.now() + age, ..record.timing() });
        self.store.create(&record, RELAXED).unwrap()
    }

    pub(crate) fn sessions(&self, count: usize, age: Duration) -> Vec<Saved> {
        (0..count).map(|_| self.session(age)).collect()
    }

    /// Moves a session's deadline to `age` from now.
    pub(crate) fn renew(&self, token: &Token, age: Duration) {
        let deadline = self.store.now() + age;
        let mut change = |record: &mut Record| {
            record.set_timing(Timing { deadline, ..record.timing() });
            Ok(Verdict::Write)
        };
        self.store.update(token, &mut change, RELAXED).unwrap().unwrap();
    }

    #[track_caller]
    pub(crate) fn sweep(&self) -> SweepReport {
        self.sweep_with(SweepOptions::new())
    }

    #[track_caller]
    pub(crate) fn sweep_with(&self, options: SweepOptions) -> SweepReport {
        let report = self.try_sweep(options).unwrap();
        assert_eq!(report.outcome, SweepOutcome::Completed);
        report
    }

    /// Sweeps on another thread, and panics if the sweep hangs.
    #[track_caller]
    pub(crate) fn try_sweep(&self, options: SweepOptions) -> Result<SweepReport> {
        let (sender, receiver) = mpsc::channel();
        let store = Arc::clone(&self.store);
        thread::spawn(move || drop(sender.send(store.sweep(&options.cpu_percent(100)))));
        receiver.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("no sweep was done in {LIMIT:?}"))
    }

    pub(crate) fn path(&self, saved: &Saved) -> PathBuf {
        path_of(&self.root, saved.live.id)
    }

    pub(crate) fn exists(&self, saved: &Saved) -> bool {
        fs::symlink_metadata(self.path(saved)).is_ok()
    }

    /// How many of these sessions still have a file.
    pub(crate) fn existing(&self, sessions: &[Saved]) -> usize {
        sessions.iter().filter(|session| self.exists(session)).count()
    }

    pub(crate) fn is_live(&self, saved: &Saved) -> bool {
        load(&*self.store, &saved.token).unwrap().is_some()
    }

    /// The current hour by the fixture's clock.
    pub(crate) fn hour(&self) -> u64 {
        self.clock.now().duration_since(UNIX_EPOCH).unwrap().as_secs() / HOUR.as_secs()
    }

    /// The path of an hour's bucket in the expiry index.
    pub(crate) fn bucket(&self, hour: u64) -> PathBuf {
        self.root.join("run/due").join(hour.to_string())
    }

    /// The buckets of the expiry index, by number.
    pub(crate) fn buckets(&self) -> Vec<u64> {
        let names = fs::read_dir(self.root.join("run/due")).unwrap();
        let name = |name: fs::DirEntry| name.file_name().to_str()?.parse().ok();
        let mut buckets: Vec<u64> = names.filter_map(|entry| name(entry.unwrap())).collect();
        buckets.sort_unstable();
        buckets
    }

    /// Records the current hour as that of the last walk, so that the next sweep of this hour walks no shard.
    pub(crate) fn pretend_it_was_walked(&self) {
        fs::write(self.root.join("run/due/sweep"), format!("{:20}\n", self.hour())).unwrap();
    }
}

fn open(root: &Path, clock: &Clock) -> FileStore {
    FileStoreOptions::new().clock(clock.clone()).watch(false).open(root).unwrap()
}

/// The counts of a report: examined, removed, renewed, damaged, temporary, unknown, failed.
pub(crate) fn counts(report: &SweepReport) -> [u64; 7] {
    let SweepReport { removed, failed, files, .. } = report;
    [files.examined, *removed, files.renewed, files.damaged, files.temporary, files.unknown, *failed]
}

/// Sets the times of a file, directory or link to `by` ago.
pub(crate) fn age(path: &Path, by: Duration) {
    let then = (SystemTime::now() - by).duration_since(UNIX_EPOCH).unwrap();
    let then = Timespec { tv_sec: then.as_secs().try_into().unwrap(), tv_nsec: 0 };
    let times = Timestamps { last_access: then, last_modification: then };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// One entry of the expiry index.
pub(crate) fn entry(id: PublicId, deadline: SystemTime) -> [u8; 32] {
    let deadline = deadline.duration_since(UNIX_EPOCH).unwrap().as_micros();
    let mut bytes = [0; 32];
    bytes[..20].copy_from_slice(id.as_bytes());
    bytes[20..28].copy_from_slice(&u64::try_from(deadline).unwrap().to_le_bytes());
    let check = blake3::hash(&bytes[..28]);
    bytes[28..].copy_from_slice(&check.as_bytes()[..4]);
    bytes
}
