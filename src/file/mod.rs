//! The file engine: one directory is the database, one file is a session.
//!
//! [`FileStore`] is the [`Store`] that keeps each session in two slots of one file (see
//! [`design`](crate::_documentation::design)). Each operation has a file: `open`, `read`, `create`, `update`, `grow`,
//! `rotate`, `delete`, `force_delete`; `moved` has the marks of rotated ids, and `delete_of` ends the sessions of a
//! user by the log of `cut_offs`. [`slot`] has the bytes of a version, `slots` decides which version is the newest.
//! `queue`, `flock` and `session_lock` are the locks. `coherence` is the only access to the cache and its invalidation
//! (`generations`, `read_cache`, `watch`). `expiry_index` lists the sessions that may have expired, `sweep` removes
//! expired ones, `reaper` sweeps at intervals. `user_index` lists the sessions of each user, for `user_sessions` and
//! `login_limit`. `poll` looks for the ends of sessions that a program waits for. `frame` makes and checks the parts of
//! a store beside its sessions. `scan`, `admin` and `repair` are for operators. This file connects the parts.
//!
//! Imports point down the floors that `tests/it/tidy.rs` lists. The lower modules, up to `coherence`, do not know
//! `FileStore`; the operations are built on them.
mod admin;
mod coherence;
mod create;
mod cut_offs;
mod delete;
mod delete_of;
mod disk;
mod emptied;
mod errors;
mod expiry_index;
mod flock;
mod force_delete;
mod frame;
mod generations;
mod grow;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
mod layout;
mod limits;
mod login_limit;
mod mapped;
#[cfg(any(all(test, not(shuttle)), sessile_fuzzing))]
mod model;
mod moved;
mod open;
mod options;
mod permissions;
mod poll;
#[cfg(test)]
#[cfg(shuttle)]
mod proofs;
mod read;
mod read_cache;
mod repair;
mod root_lock;
mod rotate;
mod run;
mod scan;
mod session_lock;
pub mod slot;
mod slots;
mod stats;
mod sweep;
#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;
mod update;
mod user_index;
mod user_sessions;
#[cfg(feature = "watch")]
mod watch;

pub use options::{AtLimit, FileStoreOptions};
pub use scan::{Content, Scan, ScannedFile};

use crate::admin::Tally;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PublicId, SessionId, Token};
use crate::queue::Queues;
use crate::record::Record;
use crate::store::{
    Absent, Change, Durability, EndedSession, Guarantees, Live, Lookup, Page, Poll, Rotation, Saved, Store,
    UserSessions,
};
use coherence::{Coherence, Found};
use disk::Root;
use emptied::Recreated;
use expiry_index::ExpiryIndex;
use root_lock::LockedRoot;
use session_lock::SessionRef;
use std::path::Path;
use std::time::{Duration, SystemTime};
use user_index::UserIndex;

/// Sessions in one directory of a local file system, shared by any number of threads and processes of one host.
///
/// # Promises
///
/// Those of [`Store`](crate::store), in full: updates are atomic across processes, a deleted session stays deleted, and
/// a reader sees one complete version whatever happens to a writer. [`Durability`] says which saves survive a power
/// cut.
///
/// # Limits
///
/// Open a store *after* `fork`: its locks and threads do not survive a fork, and in the child every call is refused
/// with [`ErrorKind::Forked`].
///
/// An open store holds four descriptors, up to four more for buckets of the expiry index, and, if it
/// [watches](FileStoreOptions::watch), three more, one thread and 257 watches; each call needs up to four more
/// descriptors while it runs. Copies of sessions take up to [`cache_bytes`](FileStoreOptions::cache_bytes) of memory,
/// beside 2 MiB of counters that all processes share, and about 90 bytes for each user whose sessions were ended
/// together.
///
/// While processes use a store, no other program may write into its files. Truncating `run/generations` kills every
/// process that has it mapped (SIGBUS). A replacement or removal of that file is noticed: within a second by loads, at
/// once by saves.
///
/// # Removing expired sessions
///
/// An expired session cannot be loaded. Its file stays until a [sweep](crate::Admin::sweep) removes it: call `sweep`
/// now and then, start a [`Reaper`](crate::Reaper), or schedule the command `sessile`.
///
/// # Loads from memory
///
/// A session that was read or saved lately is loaded without a system call, and is never stale: after a save or a
/// `delete` returned in any process, no later load in any process returns the version before it.
/// [`design`](crate::_documentation::design) has the argument, [`stats`](crate::Admin::stats) the counts.
///
/// A store caches sessions only where processes share memory; that is decided when it is opened. Every load reads the
/// session file
///
/// * on network file systems and those implemented by a process (NFS, SMB, 9p, FUSE):
///   [`uncached_file_system`](Self::uncached_file_system) then returns the name. A full file server may report an error
///   only when a file is closed, where no error is seen; there, only a [`PowerSafe`](Durability::PowerSafe) save is
///   sure to be kept;
/// * in a store that is opened [read only](FileStoreOptions::read_only);
/// * with [`cache_bytes(0)`](FileStoreOptions::cache_bytes).
///
/// ```
/// use sessile::FileStore;
/// # let parent = tempfile::tempdir()?;
/// # let dir = parent.path().join("sessions");
/// let store = FileStore::open(dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FileStore {
    root: Root,
    queues: Queues,
    recreated: Recreated,
    expiry_index: ExpiryIndex,
    user_index: UserIndex,
    coherence: Coherence,
    options: FileStoreOptions,
    tally: Tally,
    uncached_on: Option<&'static str>,
    /// Dropped last, because the store is in use until then.
    _in_use: LockedRoot,
}

impl FileStore {
    /// Opens the store in `dir` with the default options; makes it if there is none.
    ///
    /// Two programs on one directory share their logins, whatever their cookies are named. Give each program with
    /// visitors of its own a directory of its own.
    ///
    /// # Errors
    ///
    /// See [`FileStoreOptions::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        FileStoreOptions::new().open(dir)
    }

    fn open_with(mut options: FileStoreOptions, dir: &Path) -> Result<Self> {
        if options.read_only {
            // A cache needs the shared counters, which can only be opened for writing. So a read-only store has no
            // cache.
            options.cache_bytes = 0;
        }
        let open::Opened { root, were_missing, has_log } = open::open_root(dir, &options)?;
        let uncached_on = open::disable_cache_if_remote(&root, &mut options);
        let (in_use, generations) = open::lock_root(&root, &options)?;
        Ok(Self {
            coherence: Coherence::new(&root, generations, &options, has_log)?,
            root,
            queues: Queues::new(),
            recreated: Recreated::at_opening(were_missing),
            expiry_index: ExpiryIndex::default(),
            user_index: UserIndex::default(),
            options,
            tally: Tally::default(),
            uncached_on,
            _in_use: in_use,
        })
    }

    /// Every operation that changes the store calls this first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the store was opened to be read only.
    fn check_may_write(&self) -> Result<()> {
        if !self.options.read_only {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Config, "change session store")
            .with_path(self.path())
            .with_reason("it was opened with read_only"))
    }

    /// The time by the store's clock, in microseconds since 1970.
    fn now_micros(&self) -> u64 {
        self.options.clock.now_micros()
    }

    fn is_expired(&self, record: &Record) -> bool {
        record.deadline_micros() <= self.now_micros()
    }

    /// The path of the directory that was given when the store was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// The name of the file system, such as `NFS`, if sessions are not cached because a process may not see another
    /// process's writes in memory there. `None` on other file systems, and if the cache was switched off anyway. The
    /// missing cache costs only speed: every load reads the session file.
    ///
    /// ```
    /// use sessile::FileStore;
    /// # let dir = tempfile::tempdir()?;
    /// let store = FileStore::open(dir.path())?;
    /// if let Some(name) = store.uncached_file_system() {
    ///     eprintln!("sessions are on {name} and read at every load");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn uncached_file_system(&self) -> Option<&'static str> {
        self.uncached_on
    }

    /// The error if the watcher for changes outside the library was requested and could not start; `None` otherwise.
    /// Without the watcher, such changes are only noticed later: see [`FileStoreOptions::watch`].
    #[cfg(feature = "watch")]
    #[must_use]
    pub fn watch_error(&self) -> Option<&Error> {
        self.coherence.watch_error()
    }
}

impl FileStore {
    fn load_session(&self, token: &Token) -> Result<Lookup> {
        // Checked before the cache is used, because in a forked child a thread that does not exist may hold a lock of
        // the cache.
        self.queues.check_process()?;
        let Some(session) = token.session_id() else { return Ok(Lookup::Absent(Absent::Malformed)) };
        let now = self.options.clock.now_coarse();
        let mut found = self.coherence.find(session, now);
        if let Found::CutOffsUnchecked(copy) = found {
            found = self.coherence.check(session, copy, now);
        }
        let copy = match found {
            Found::Trusted(record, id) => return Ok(Lookup::Live(Live { record, id })),
            Found::Unverified(copy) | Found::CutOffsUnchecked(copy) => Some(copy),
            Found::Nothing => None,
        };
        self.load_file(session, copy.as_ref(), now)
    }

    fn create_session(&self, record: &Record, how: Durability) -> Result<Saved> {
        self.queues.check_process()?;
        let mut by_limit = self.ended_by_limit();
        let _turn = self.admit_login(record.user(), None, &mut by_limit)?;
        let mut record = record.clone();
        // Read first: a cut-off that is called after this has a greater number.
        record.set_cut_off(self.coherence.last_cut_off(record.user().is_some())?);
        let session = SessionId::random()?;
        let live = self.create_file(SessionRef::Id(&session), record, self.options.is_power_safe(how))?;
        Ok(Saved { token: session.to_token(), live })
    }

    fn rotate_session(&self, token: &Token, change: Change<'_>, how: &Rotation<'_>) -> Result<Option<Saved>> {
        let Some(session) = token.session_id() else { return Ok(None) };
        let mut by_limit = self.ended_by_limit();
        let _turn = self.admit_login(how.login, Some(session), &mut by_limit)?;
        let successor = SessionId::random()?;
        let live = self.rotate_file(session, &successor, change, how)?;
        Ok(live.map(|live| Saved { token: successor.to_token(), live }))
    }
}

impl Store for FileStore {
    fn now(&self) -> SystemTime {
        self.options.clock.now()
    }

    fn is_well_formed(&self, token: &Token) -> bool {
        token.session_id().is_some()
    }

    fn load(&self, token: &Token) -> Result<Lookup> {
        self.tally.read(self.load_session(token))
    }

    fn create(&self, record: &Record, how: Durability) -> Result<Saved> {
        self.tally.save(self.create_session(record, how), |_| true)
    }

    fn update(&self, token: &Token, change: Change<'_>, how: Durability) -> Result<Option<Saved>> {
        let Some(session) = token.session_id() else { return Ok(None) };
        let live = self.update_file(session, change, self.options.is_power_safe(how));
        let live = self.tally.save(live, Option::is_some)?;
        Ok(live.map(|live| Saved { token: token.clone(), live }))
    }

    fn rotate(&self, token: &Token, change: Change<'_>, how: &Rotation<'_>) -> Result<Option<Saved>> {
        self.tally.save(self.rotate_session(token, change, how), Option::is_some)
    }

    fn delete(&self, token: &Token) -> Result<Option<PublicId>> {
        self.end(token).map(EndedSession::live_id)
    }

    fn end(&self, token: &Token) -> Result<Option<EndedSession>> {
        let Some(session) = token.session_id() else { return Ok(None) };
        self.tally.end_session(self.delete_file(SessionRef::Id(session)))
    }

    fn successor(&self, token: &Token) -> Result<Option<Live>> {
        self.queues.check_process()?;
        let Some(session) = token.session_id() else { return Ok(None) };
        self.tally.read(self.live_successor(session.public_id()))
    }

    fn delete_of(&self, user: &str, except: Option<&Token>) -> Result<()> {
        self.tally.end(self.cut_off_user(user, except), |()| true)
    }

    fn delete_all(&self) -> Result<()> {
        self.tally.end(self.cut_off_all(), |()| true)
    }

    fn sessions_of(&self, user: &str, page: &Page) -> Result<UserSessions> {
        self.tally.read(self.list_sessions_of(user, page))
    }

    fn delete_session_of(&self, user: &str, id: &PublicId) -> Result<Option<PublicId>> {
        self.end_session_of(user, id).map(EndedSession::live_id)
    }

    fn end_session_of(&self, user: &str, id: &PublicId) -> Result<Option<EndedSession>> {
        self.tally.end_session(self.delete_session_of_user(user, id))
    }

    fn poll(&self, polls: &mut [Poll]) -> Result<Duration> {
        self.tally.read(self.poll_files(polls))
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::all()
    }

    fn durability(&self) -> Durability {
        let is_safe = self.options.is_power_safe(Durability::OfStore);
        if is_safe { Durability::PowerSafe } else { Durability::Relaxed }
    }

    fn record_bytes_max(&self) -> Option<usize> {
        Some(self.options.record_bytes_max)
    }
}
