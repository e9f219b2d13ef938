//! Sweeps, and the operations by public id, in runs in which a call fails, the process dies in a call, or another
//! process works on the same session between two calls. No live session is lost, no deleted or expired session comes
//! back, and one more sweep completes the work.
mod admin;
mod calls;
mod interleavings;
mod io_errors;

use super::*;
use crate::admin::{Admin, SweepOptions, SweepOutcome, SweepReport};
use crate::clock::{Clock, micros};
use crate::file::disk::Access;
use crate::file::expiry_index::{self, Reader, bucket_of};
use crate::file::layout::{SWEEP, bucket_named, shard_name};
use crate::file::{Content, ScannedFile};
use crate::id::PublicId;
use std::cell::Cell;
use std::sync::LazyLock;
use std::time::UNIX_EPOCH;

/// The hour in which sessions are created. They are swept in the next hour, whose walk reads one shard.
const MADE: u64 = 500_000;
const SWEPT: u64 = MADE + 1;
/// The shard that is walked in that hour.
const WALKED: u16 = (SWEPT % 256) as u16;

/// Which shard a session is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// The shard that is walked.
    Walked,
    /// A shard that is not walked for days.
    Elsewhere,
}

impl Where {
    fn has(self, id: &PublicId) -> bool {
        match self {
            Self::Walked => u16::from(id.as_bytes()[0]) == WALKED,
            Self::Elsewhere => id.as_bytes()[0] >= 128,
        }
    }

    /// The id with this number, of 24 in each place. They are drawn once, because ids in the walked shard are rare.
    fn session(self, n: usize) -> SessionId {
        static FOUND: LazyLock<[Vec<SessionId>; 2]> = LazyLock::new(|| {
            [Where::Walked, Where::Elsewhere].map(|place| {
                let random = std::iter::repeat_with(|| SessionId::random().unwrap());
                random.filter(|session| place.has(&session.public_id())).take(24).collect()
            })
        });
        FOUND[usize::from(self == Self::Elsewhere)][n].clone()
    }
}

fn at(hour: u64, minute: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(hour * 3600 + minute * 60)
}

fn record_until(deadline: SystemTime, text: &str) -> Record {
    let mut record = Record::new(at(MADE, 0), deadline);
    record.insert("text", &Value::new(text).unwrap()).unwrap();
    record
}

/// Moves a session's deadline and changes its text.
fn renew(store: &FileStore, session: &SessionId, deadline: SystemTime, text: &str) -> Result<Option<Live>> {
    let mut change = |record: &mut Record| {
        record.set_timing(Timing { deadline, ..record.timing() });
        record.insert("text", &Value::new(text).unwrap()).unwrap();
        Ok(Verdict::Write)
    };
    store.update_file(session, &mut change, false)
}

/// Sets a file's modification time to two hours ago.
fn age(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
}

pub(super) fn unrested() -> SweepOptions {
    SweepOptions::new().cpu_percent(100)
}

fn impatient(clock: &Clock) -> FileStoreOptions {
    FileStoreOptions::new().clock(clock.clone()).lock_wait(Duration::from_millis(1))
}

/// A store with a manual clock.
struct Stage {
    fixture: Fixture,
    clock: Clock,
    /// How many ids are in use.
    used: Cell<usize>,
}

impl Stage {
    fn new() -> Self {
        let clock = Clock::manual(at(MADE, 30));
        Self {
            fixture: Fixture::with(FileStoreOptions::new().clock(clock.clone())),
            clock,
            used: Cell::new(0),
        }
    }

    fn store(&self) -> &FileStore {
        &self.fixture.store
    }

    /// Opens the same store a second time, with the shortest wait limit.
    fn other(&self) -> Arc<FileStore> {
        self.fixture.reopened(impatient(&self.clock))
    }

    /// An id that is not in use yet.
    fn id(&self, place: Where) -> SessionId {
        place.session(self.used.replace(self.used.get() + 1))
    }

    fn session(&self, place: Where, deadline: SystemTime, text: &str) -> SessionId {
        let session = self.id(place);
        let record = record_until(deadline, text);
        self.store().create_file(SessionRef::Id(&session), record, false).unwrap();
        session
    }

    fn renewed(&self, place: Where, indexed: SystemTime, deadline: SystemTime, text: &str) -> SessionId {
        let session = self.session(place, indexed, "before");
        renew(self.store(), &session, deadline, text).unwrap().unwrap();
        session
    }

    fn sweep(&self) -> Result<SweepReport> {
        self.store().sweep(&unrested())
    }

    /// Sweeps, and asserts that it completes without failures.
    #[track_caller]
    fn sweep_without_failures(&self, options: &SweepOptions, context: &str) -> SweepReport {
        let report = self.store().sweep(options).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!((report.outcome, report.failed), (SweepOutcome::Completed, 0), "{context}: {report:?}");
        report
    }

    fn exists(&self, session: &SessionId) -> bool {
        self.fixture.path(session).exists()
    }

    /// The text of a session, if it is alive.
    #[track_caller]
    fn text(&self, session: &SessionId) -> Option<String> {
        match self.store().load(&session.to_token()).unwrap() {
            Lookup::Live(live) => Some(text_of(&live.record)),
            Lookup::Absent(Absent::NotFound(_) | Absent::Expired(_) | Absent::Moved(_)) => None,
            Lookup::Absent(other) => panic!("the session is {other:?}"),
        }
    }

    fn buckets(&self) -> Vec<u64> {
        let names = fs::read_dir(self.fixture.dir.path().join(DUE)).unwrap();
        let names = names.map(|name| name.unwrap().file_name().into_string().unwrap());
        names.filter_map(|name| bucket_named(&name)).collect()
    }

    /// The number of the first bucket that has an entry of the session.
    fn first_bucket(&self, session: &SessionId) -> Option<u64> {
        let (id, mut buckets) = (session.public_id(), self.buckets());
        buckets.sort_unstable();
        let index = self.store().root.open_directory(DUE).unwrap();
        buckets.into_iter().find(|bucket| {
            let entries = Reader::open(&index, *bucket, Access::Read).unwrap().next().unwrap();
            entries.into_iter().flatten().any(|(_, entry)| entry.id == id)
        })
    }

    /// Whether the index lists the session as due at its deadline or before.
    fn is_indexed_by(&self, session: &SessionId, deadline: SystemTime) -> bool {
        let want = bucket_of(micros(deadline), micros(self.clock.now()));
        self.first_bucket(session).is_some_and(|bucket| bucket <= want)
    }

    /// Erases a session's entries in the index.
    fn erase_entries(&self, session: &SessionId) {
        let index = self.store().root.open_directory(DUE).unwrap();
        for bucket in self.buckets() {
            let mut reader = Reader::open(&index, bucket, Access::Write).unwrap();
            let entries = reader
                .next()
                .unwrap()
                .into_iter()
                .flatten()
                .filter(|(_, entry)| entry.id == session.public_id());
            expiry_index::erase(&reader.file, &entries.map(|(offset, _)| offset).collect::<Vec<_>>())
                .unwrap();
        }
    }

    /// Empties the index, records the hour in which sessions are created as that of the last walk, and sets the clock
    /// to that hour.
    fn reset(&self) {
        let index = self.fixture.dir.path().join(DUE);
        self.buckets().iter().for_each(|bucket| fs::remove_file(index.join(bucket.to_string())).unwrap());
        fs::write(index.join(SWEEP), format!("{MADE:20}\n")).unwrap();
        self.clock.set(at(MADE, 30));
        self.used.set(0);
    }

    /// Asserts that the store holds no descriptor except those that it keeps, no queue, and no lock of a sweep.
    #[track_caller]
    fn check_nothing_is_held(&self, context: &str) {
        self.fixture.check_nothing_is_held(context);
        let index = self.fixture.dir.path().join(DUE);
        let filing = |open: &Path| {
            let name = open.strip_prefix(&index).ok().and_then(Path::to_str);
            name.is_some_and(|name| bucket_named(name.trim_end_matches(" (deleted)")).is_some())
        };
        let open = descriptors(|open| open.starts_with(&index) && !filing(open));
        assert_eq!(open, 0, "{context}: the index or its lock is open");
        assert!(descriptors(filing) <= 4, "{context}: a bucket leaked");
    }
}
