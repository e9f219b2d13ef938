//! The file engine: one directory is the database, one file is a session.
//!
//! [`FileStore`] is the [`Store`] that keeps each session in two slots of one file (see [`design`](crate::_documentation::design)).
//! A file for each operation: `open`, `read`, `create`, `update`, `grow`, `rotate`, `delete`, `force_delete`. [`slot`] has the bytes
//! of a version, `slots` decides which is the newest. `queue`, `flock` and `session_lock` are the locks. `coherence` is the one door
//! to the cache and its invalidation (`generations`, `read_cache`, `watch`). `expiry_index` knows which sessions may have expired,
//! `sweep` removes those that have, `reaper` does so again and again; `frame` is what a store has beside sessions; `scan`, `admin`
//! and `repair` are for operators. This file holds the parts of the store together.
//!
//! Imports point down the floors that `tests/it/tidy.rs` lists. The lower ones, up to `coherence`, know no store; the operations stand
//! on them.
mod admin;
mod coherence;
mod create;
mod delete;
mod disk;
mod emptied;
mod errors;
mod expiry_index;
mod flock;
mod force_delete;
mod fork;
mod frame;
mod generations;
mod grow;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
mod layout;
mod limits;
mod mapped;
#[cfg(any(all(test, not(shuttle)), sessile_fuzzing))]
mod model;
mod open;
mod options;
mod permissions;
#[cfg(test)]
#[cfg(shuttle)]
mod proofs;
mod queue;
mod read;
mod read_cache;
mod reaper;
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
#[cfg(feature = "watch")]
mod watch;

pub use options::FileStoreOptions;
pub use reaper::{Reaper, ReaperOptions, ReaperStats};
pub use scan::{Content, Scan, ScannedFile};
pub use stats::Stats;
pub use sweep::{SweepOptions, SweepOutcome, SweepPhase, SweepProgress, SweepReport};

use crate::error::{Error, ErrorKind, Result};
use crate::id::{SessionId, Token};
use crate::record::Record;
use crate::store::{Absent, Change, Durability, Guarantees, Live, Lookup, Saved, Store};
use coherence::{Coherence, Found};
use disk::Root;
use emptied::MadeAgain;
use expiry_index::ExpiryIndex;
use root_lock::LockedRoot;
use session_lock::SessionRef;
use std::path::Path;
use std::time::SystemTime;

/// Sessions in one directory of a local file system, shared by any number of threads and processes of one host.
///
/// # Promises
///
/// Those of [`Store`](crate::store), in full: updates are atomic across processes, what was deleted stays deleted, and
/// a reader sees one complete version whatever happens to a writer. [`Durability`] says which
/// saves survive a power cut.
///
/// # Limits
///
/// Open a store *after* `fork`: what it keeps in the process does not survive one, and in the child every call is refused
/// with [`ErrorKind::Forked`].
///
/// An open store holds three descriptors, up to four more for the hours in which the sessions it makes expire, and, if it
/// [watches](FileStoreOptions::watch), three more, one thread and 257 watches; each call needs up to four more descriptors
/// while it runs. Copies of sessions take up to
/// [`cache_bytes`](FileStoreOptions::cache_bytes) of memory, beside 2 MiB of counters that all processes share.
///
/// While processes use a store, its files are theirs: cutting its file `run/generations` short kills every process that has
/// it in memory (SIGBUS). A file that is put in its place, or removed, is noticed: within a second by loads, at once by saves.
///
/// # Removing what is expired
///
/// An expired session cannot be read. Its file stays until a [`sweep`](Self::sweep) removes it: call that now and then, have
/// a [reaper](Self::start_reaper) do it, or the command `sessile`.
///
/// # Loads from memory
///
/// A session that was read or saved lately is loaded without a system call, and never stale: after a save or a `delete`
/// returned in any process, no later load in any process returns what was before it. [`design`](crate::_documentation::design) has the
/// argument, [`stats`](Self::stats) the counts.
///
/// A store keeps copies where processes share memory, and nowhere else; that is decided when it is opened. It keeps none, and
/// every load reads the session's file,
///
/// * on file systems of other hosts and of processes (NFS, SMB, 9p, FUSE):
///   [`uncached_file_system`](Self::uncached_file_system) then returns the name. A full file server may report that
///   only when a file is closed, where no error is seen: there, a save is sure to be kept if it is
///   [`PowerSafe`](Durability::PowerSafe);
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
    queues: queue::Queues,
    made_again: MadeAgain,
    expiry_index: ExpiryIndex,
    coherence: Coherence,
    options: FileStoreOptions,
    uncached_on: Option<&'static str>,
    /// Dropped last: until then the store is in use.
    _in_use: LockedRoot,
}

impl FileStore {
    /// Opens the store in `dir` with the default options; makes it if there is none.
    ///
    /// Two programs on one directory share its logins, whatever their cookies are named: give each program that has visitors of its
    /// own a directory of its own.
    ///
    /// # Errors
    ///
    /// See [`FileStoreOptions::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        FileStoreOptions::new().open(dir)
    }

    fn open_with(mut options: FileStoreOptions, dir: &Path) -> Result<Self> {
        if options.read_only {
            // The shared counters are opened for writing: a store that is only read keeps no copies and asks the files.
            options.cache_bytes = 0;
        }
        let (root, were_missing) = open::open_root(dir, &options)?;
        let uncached_on = open::go_without_copies(&root, &mut options);
        let (in_use, generations) = open::lock_root(&root, &options)?;
        Ok(Self {
            coherence: Coherence::new(&root, generations, &options),
            root,
            queues: queue::Queues::new(),
            made_again: MadeAgain::at_opening(were_missing),
            expiry_index: ExpiryIndex::default(),
            options,
            uncached_on,
            _in_use: in_use,
        })
    }

    /// Every operation that changes the store asks this first.
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

    /// The directory, as it was named when the store was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Counts of cached sessions, of hits and misses, and of failures to write the expiry index. In a process that was forked since the store
    /// was opened, nothing of the cache: a part of it may be locked by a thread that does not exist there.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let with_cache = self.queues.check_process().is_ok();
        Stats { index_failures: self.expiry_index.index_failures(), ..self.coherence.stats(with_cache) }
    }

    /// The name of the file system, such as `NFS`, if no copies of sessions are kept in memory because one process may not see
    /// there in memory what another one wrote. `None` on other file systems, and if no copies were to be kept anyway. It costs
    /// speed and nothing else: every load reads the session's file.
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

    /// Why the watcher for changes outside the library could not start, though it was asked for; `None` if it did start, or was
    /// not asked for. It costs promptness and nothing else: see [`FileStoreOptions::watch`].
    #[cfg(feature = "watch")]
    #[must_use]
    pub fn watch_error(&self) -> Option<&Error> {
        self.coherence.watch_error()
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
        // A part of the cache may be locked by a thread that does not exist in the child.
        self.queues.check_process()?;
        let Some(session) = token.session_id() else { return Ok(Lookup::Absent(Absent::Malformed)) };
        let now = self.options.clock.now_coarse();
        let known = match self.coherence.find(session, now) {
            Found::Trusted(record, id) => return Ok(Lookup::Live(Live { record, id })),
            Found::Doubtful(copy) => Some(copy),
            Found::Nothing => None,
        };
        self.load_file(session, known.as_ref(), now)
    }

    fn create(&self, record: &Record, how: Durability) -> Result<Saved> {
        let session = SessionId::random()?;
        let live =
            self.create_file(SessionRef::Id(&session), record.clone(), self.options.is_power_safe(how))?;
        Ok(Saved { token: session.to_token(), live })
    }

    fn update(&self, token: &Token, change: Change<'_>, how: Durability) -> Result<Option<Saved>> {
        let Some(session) = token.session_id() else { return Ok(None) };
        let live = self.update_file(session, change, self.options.is_power_safe(how))?;
        Ok(live.map(|live| Saved { token: token.clone(), live }))
    }

    fn rotate(&self, token: &Token, change: Change<'_>, _how: Durability) -> Result<Option<Saved>> {
        let Some(session) = token.session_id() else { return Ok(None) };
        let successor = SessionId::random()?;
        let live = self.rotate_file(session, &successor, change)?;
        Ok(live.map(|live| Saved { token: successor.to_token(), live }))
    }

    fn delete(&self, token: &Token) -> Result<bool> {
        token.session_id().map_or(Ok(false), |session| self.delete_file(SessionRef::Id(session)))
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees { atomic_update: true, shared_state: true }
    }

    fn durability(&self) -> Durability {
        let is_safe = self.options.is_power_safe(Durability::OfStore);
        if is_safe { Durability::PowerSafe } else { Durability::Relaxed }
    }

    fn record_bytes_max(&self) -> Option<usize> {
        Some(self.options.record_bytes_max)
    }
}
