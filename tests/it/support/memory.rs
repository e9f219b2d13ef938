//! The stores for tests of promises. A `Rig` passes calls to a store, counts them, makes them fail, and runs other
//! operations in between. A `Stage` has a store of files or a store in memory, a rig around it, and their clock.
use crate::support::memory_store::MemoryStore;
use crate::support::texts::directory_in_memory;
use parking_lot::Mutex;
use sessile::database::SqliteOptions;
use sessile::file::Content;
use sessile::rows::{MemoryRows, RowStoreOptions};
use sessile::store::{EndedSession, Poll};
use sessile::{
    Admin, Change, Clock, Cookies, Durability, Error, ErrorKind, FileStore, FileStoreOptions, Guarantees,
    Lifetime, Live, Lookup, Page, PublicId, Record, Result, Rotation, Saved, SessionId, Sessions, Store,
    Token, UserSessions, Verdict,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// The time at which every manual clock starts: a whole second, so that tests can count in seconds.
pub(crate) fn start() -> SystemTime {
    UNIX_EPOCH + secs(1_700_000_000)
}

pub(crate) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The methods of a [`Store`] that may do I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Load,
    Create,
    Update,
    Rotate,
    Delete,
    Poll,
}

type Operation = Box<dyn FnOnce() -> Result<()> + Send>;

/// A store that passes every call on to another one and counts it. Before a chosen call, it runs another request, or
/// lets the call fail.
pub(crate) struct Rig {
    inner: Arc<dyn Store>,
    clock: Clock,
    calls: Mutex<Vec<Call>>,
    /// Each plan has the method, the number of calls of it to let pass first, and the function to run before the next
    /// one.
    plan: Mutex<Vec<(Call, usize, Operation)>>,
    durabilities: Mutex<Vec<Durability>>,
    writes: AtomicUsize,
    readings: AtomicUsize,
    ticking: AtomicBool,
    rerunning: AtomicBool,
    moving: AtomicBool,
    /// The limit for a record that the rig claims to have; zero for that of the inner store.
    record_bytes_max: AtomicUsize,
}

impl Rig {
    fn new(inner: Arc<dyn Store>, clock: Clock) -> Self {
        Self {
            inner,
            clock,
            calls: Mutex::default(),
            plan: Mutex::default(),
            durabilities: Mutex::default(),
            writes: AtomicUsize::new(0),
            readings: AtomicUsize::new(0),
            ticking: AtomicBool::new(false),
            rerunning: AtomicBool::new(false),
            moving: AtomicBool::new(false),
            record_bytes_max: AtomicUsize::new(0),
        }
    }

    /// Runs `operation` before the next call of this method reaches the store.
    pub(crate) fn before(&self, call: Call, operation: impl FnOnce() + Send + 'static) {
        self.interfere(call, 0, move || {
            operation();
            Ok(())
        });
    }

    /// Makes a call of this method fail, after `passes` further calls of it. The failing call does not reach the store.
    pub(crate) fn fail(&self, call: Call, passes: usize) {
        self.interfere(call, passes, || Err(Error::new(ErrorKind::Storage, "reach the store")));
    }

    fn interfere(&self, call: Call, passes: usize, operation: impl FnOnce() -> Result<()> + Send + 'static) {
        self.plan.lock().push((call, passes, Box::new(operation)));
    }

    /// Removes the plans of `before` and `fail` that were not used.
    pub(crate) fn forget_plans(&self) {
        self.plan.lock().clear();
    }

    /// Makes every reading of the clock later than the one before.
    pub(crate) fn tick(&self) {
        self.ticking.store(true, Ordering::SeqCst);
    }

    /// Runs every change first on a copy that is thrown away, as a store does that tries again after a conflict.
    pub(crate) fn rerun_changes(&self) {
        self.rerunning.store(true, Ordering::SeqCst);
    }

    /// Returns a new token from every update, as stores do that keep the session in the cookie.
    pub(crate) fn move_with_every_update(&self) {
        self.moving.store(true, Ordering::SeqCst);
    }

    /// Claims that no record may be larger than `bytes`, without refusing larger ones.
    pub(crate) fn limit_records(&self, bytes: usize) {
        self.record_bytes_max.store(bytes, Ordering::SeqCst);
    }

    /// The calls since this method was last called.
    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock())
    }

    /// The durabilities of the saves since this method was last called.
    pub(crate) fn durabilities(&self) -> Vec<Durability> {
        std::mem::take(&mut *self.durabilities.lock())
    }

    /// The number of versions that create, update and rotate have written since this method was last called.
    pub(crate) fn writes(&self) -> usize {
        self.writes.swap(0, Ordering::SeqCst)
    }

    /// How often the user of the store has read its clock since this method was last called.
    pub(crate) fn readings(&self) -> usize {
        self.readings.swap(0, Ordering::SeqCst)
    }

    fn pass(&self, call: Call) -> Result<()> {
        self.calls.lock().push(call);
        let due = {
            let mut plan = self.plan.lock();
            let due = plan.iter().position(|(of, passes, _)| *of == call && *passes == 0);
            for (_, passes, _) in plan.iter_mut().filter(|(of, ..)| *of == call) {
                *passes = passes.saturating_sub(1);
            }
            due.map(|at| plan.remove(at).2)
        };
        due.map_or(Ok(()), |operation| operation())
    }

    /// Runs `run` with a change whose writes are counted: only that of its last run, because a store drops the others.
    fn counted<R>(&self, token: &Token, change: Change<'_>, run: impl FnOnce(Change<'_>) -> R) -> R {
        if self.rerunning.load(Ordering::SeqCst)
            && let Ok(Lookup::Live(live)) = self.inner.load(token)
        {
            // The result of this first run is thrown away with the copy.
            let _ = change(&mut Record::clone(&live.record));
        }
        let mut last = None;
        let result = run(&mut |record| {
            last = None;
            let verdict = change(record)?;
            last = Some(verdict);
            Ok(verdict)
        });
        self.writes.fetch_add(usize::from(last == Some(Verdict::Write)), Ordering::SeqCst);
        result
    }
}

impl Store for Rig {
    fn now(&self) -> SystemTime {
        self.readings.fetch_add(1, Ordering::SeqCst);
        if self.ticking.load(Ordering::SeqCst) {
            self.clock.advance(Duration::from_micros(1));
        }
        self.inner.now()
    }

    fn is_well_formed(&self, token: &Token) -> bool {
        self.inner.is_well_formed(token)
    }

    fn load(&self, token: &Token) -> Result<Lookup> {
        self.pass(Call::Load)?;
        self.inner.load(token)
    }

    fn create(&self, record: &Record, how: Durability) -> Result<Saved> {
        self.pass(Call::Create)?;
        self.durabilities.lock().push(how);
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.inner.create(record, how)
    }

    fn update(&self, token: &Token, change: Change<'_>, how: Durability) -> Result<Option<Saved>> {
        self.pass(Call::Update)?;
        self.durabilities.lock().push(how);
        let moving = self.moving.load(Ordering::SeqCst);
        self.counted(token, change, |change| {
            if moving {
                self.inner.rotate(token, change, &how.into())
            } else {
                self.inner.update(token, change, how)
            }
        })
    }

    fn rotate(&self, token: &Token, change: Change<'_>, how: &Rotation<'_>) -> Result<Option<Saved>> {
        self.pass(Call::Rotate)?;
        self.durabilities.lock().push(how.durability);
        self.counted(token, change, |change| self.inner.rotate(token, change, how))
    }

    fn delete(&self, token: &Token) -> Result<Option<PublicId>> {
        self.pass(Call::Delete)?;
        self.inner.delete(token)
    }

    fn end(&self, token: &Token) -> Result<Option<EndedSession>> {
        self.pass(Call::Delete)?;
        self.inner.end(token)
    }

    fn successor(&self, token: &Token) -> Result<Option<Live>> {
        self.pass(Call::Load)?;
        self.inner.successor(token)
    }

    fn delete_of(&self, user: &str, except: Option<&Token>) -> Result<()> {
        self.pass(Call::Delete)?;
        self.inner.delete_of(user, except)
    }

    fn delete_all(&self) -> Result<()> {
        self.pass(Call::Delete)?;
        self.inner.delete_all()
    }

    fn sessions_of(&self, user: &str, page: &Page) -> Result<UserSessions> {
        self.pass(Call::Load)?;
        self.inner.sessions_of(user, page)
    }

    fn delete_session_of(&self, user: &str, id: &PublicId) -> Result<Option<PublicId>> {
        self.pass(Call::Delete)?;
        self.inner.delete_session_of(user, id)
    }

    fn poll(&self, polls: &mut [Poll]) -> Result<Duration> {
        self.pass(Call::Poll)?;
        self.inner.poll(polls)
    }

    fn end_session_of(&self, user: &str, id: &PublicId) -> Result<Option<EndedSession>> {
        self.pass(Call::Delete)?;
        self.inner.end_session_of(user, id)
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    fn record_bytes_max(&self) -> Option<usize> {
        match self.record_bytes_max.load(Ordering::SeqCst) {
            0 => self.inner.record_bytes_max(),
            bytes => Some(bytes),
        }
    }
}

/// An empty store whose clock stands at [`start`], opened twice.
pub(crate) struct Stage {
    pub(crate) clock: Clock,
    pub(crate) store: Arc<dyn Store>,
    /// The same storage, opened a second time, as by another process.
    pub(crate) second: Arc<dyn Store>,
    /// The rig around `store`.
    pub(crate) rig: Arc<Rig>,
    stored: Box<dyn Fn() -> usize + Sync>,
}

impl Stage {
    pub(crate) fn memory() -> Self {
        let clock = Clock::manual(start());
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let counted = store.clone();
        Self::new(clock, store.clone(), store, Box::new(move || counted.len()))
    }

    /// A stage with a store on the rows of a server, which is in this process. The second store stands for another
    /// process.
    pub(crate) fn rows() -> Self {
        let clock = Clock::manual(start());
        let rows = Arc::new(MemoryRows::new(clock.clone()));
        let [store, second] =
            [(); 2].map(|()| Arc::new(RowStoreOptions::new().open(Arc::clone(&rows)).unwrap()));
        Self::new(clock, store, second, Box::new(move || rows.len()))
    }

    /// A stage with a store in a database file, in memory. Of the two stores, each has connections of its own, as
    /// those of two processes.
    pub(crate) fn sqlite() -> Self {
        let dir = directory_in_memory();
        let clock = Clock::manual(start());
        let options = SqliteOptions::new().clock(clock.clone());
        let [store, second] =
            [(); 2].map(|()| Arc::new(options.clone().open(dir.path().join("sessions.db")).unwrap()));
        let counted = Arc::clone(&second);
        let stored = move || {
            let _dir = &dir;
            let counts = counted.count_by_state().unwrap();
            usize::try_from(counts.live + counts.expired + counts.cut_off + counts.damaged).unwrap()
        };
        Self::new(clock, store, second, Box::new(stored))
    }

    /// A stage with a store of files on the disk.
    pub(crate) fn files(durability: Durability) -> Self {
        Self::files_in(TempDir::new().unwrap(), durability)
    }

    /// A stage with a store of files in a file system in memory, where the system has one, as Linux has. Making and
    /// removing the 256 directories of a store takes a disk longer than most tests. For promises that do not depend on
    /// the disk.
    pub(crate) fn light_files() -> Self {
        let dir = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        Self::files_in(dir, Durability::Relaxed)
    }

    fn files_in(dir: TempDir, durability: Durability) -> Self {
        let clock = Clock::manual(start());
        let options = FileStoreOptions::new().durability(durability).clock(clock.clone());
        let store = Arc::new(options.clone().open(dir.path()).unwrap());
        let second = Arc::new(options.open(dir.path()).unwrap());
        let counted = Arc::clone(&second);
        let stored = move || {
            // The directory must exist as long as the stage, so the closure keeps it.
            let _dir = &dir;
            files_but_moved(&counted)
        };
        Self::new(clock, store, second, Box::new(stored))
    }

    fn new(
        clock: Clock,
        store: Arc<dyn Store>,
        second: Arc<dyn Store>,
        stored: Box<dyn Fn() -> usize + Sync>,
    ) -> Self {
        let rig = Arc::new(Rig::new(store.clone(), clock.clone()));
        Self { clock, store, second, rig, stored }
    }

    /// The number of sessions that the storage holds, with expired ones and leftovers, but without moved ids.
    pub(crate) fn stored(&self) -> usize {
        (self.stored)()
    }

    /// The `Sessions` of the requests that a test observes: their calls go through the rig.
    pub(crate) fn sessions(&self) -> Sessions {
        sessions_in(self.rig.clone())
    }

    pub(crate) fn sessions_living(&self, lifetime: Lifetime) -> Sessions {
        self.sessions().with_lifetime(lifetime).unwrap()
    }

    /// The `Sessions` of the requests that interfere: they use the second opening of the storage, without the rig.
    pub(crate) fn others(&self) -> Sessions {
        sessions_in(self.second.clone())
    }

    /// The record under a token now.
    #[track_caller]
    pub(crate) fn record(&self, token: &Token) -> Record {
        match self.second.load(token).unwrap() {
            Lookup::Live(live) => live.record,
            Lookup::Absent(absent) => panic!("a live session was expected, it is {absent:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn check_absent(&self, token: &Token) {
        if let Lookup::Live(live) = self.second.load(token).unwrap() {
            panic!("session {} is alive: {:?}", live.id, live.record);
        }
    }
}

/// The number of session files of a store, without those of moved ids.
pub(crate) fn files_but_moved(store: &FileStore) -> usize {
    let contents = store.files().map(|file| file.unwrap().content);
    contents.filter(|content| !matches!(content, Content::Moved(_))).count()
}

/// `Sessions` with this store, and a cookie that does not need HTTPS.
pub(crate) fn sessions_in(store: impl Store + 'static) -> Sessions {
    Sessions::new(store, Cookies::plain_http()).unwrap()
}

/// A token that no store has given to a client.
pub(crate) fn made_up_token() -> Token {
    SessionId::random().unwrap().to_token()
}

/// Makes a test of each of these functions for every kind of storage. The functions take a [`Stage`].
macro_rules! on_every_storage {
    ($($promise:ident,)*) => {
        mod in_memory {
            $(#[test] fn $promise() { super::$promise(&$crate::support::memory::Stage::memory()); })*
        }
        mod in_rows {
            $(#[test] fn $promise() { super::$promise(&$crate::support::memory::Stage::rows()); })*
        }
        mod in_sqlite {
            $(#[test] fn $promise() { super::$promise(&$crate::support::memory::Stage::sqlite()); })*
        }
        mod in_files {
            $(#[test] fn $promise() { super::$promise(&$crate::support::memory::Stage::light_files()); })*
        }
    };
}
pub(crate) use on_every_storage;
