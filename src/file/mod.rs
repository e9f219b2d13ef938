//! The file engine: one directory is the database, one file is a session.
//!
//! [`FileStore`] is the [`Store`] that keeps each session in two slots of one file (see [`design`](crate::_documentation::design)).
//! This file opens and reads; [`slot`] has the bytes of a version; `write` creates, updates and grows, `end` rotates and deletes, both under the lock that
//! `locked` gets. `due` knows which sessions may have expired, `sweep` removes those that have, `reaper` does so again and
//! again; `walk`, `operate` and `repair` are for operators.
mod disk;
mod due;
mod emptied;
mod end;
mod generations;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
mod layout;
mod lock;
mod locked;
mod mapped;
#[cfg(any(all(test, not(shuttle)), sessile_fuzzing))]
mod model;
mod open;
mod operate;
mod options;
mod permissions;
#[cfg(test)]
#[cfg(shuttle)]
mod proofs;
mod read_cache;
mod reaper;
mod repair;
mod run;
pub mod slot;
mod slots;
mod stats;
mod sweep;
#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;
mod walk;
#[cfg(feature = "watch")]
mod watch;
mod write;

pub use options::{Coherence, FileStoreOptions};
pub use reaper::{Reaper, ReaperOptions, ReaperStats};
pub use stats::Stats;
pub use sweep::{SweepOptions, SweepOutcome, SweepPhase, SweepProgress, SweepReport};
pub use walk::{Content, Scan, ScannedFile};

use crate::clock::{Glance, micros};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PublicId, SessionId, Token};
use crate::record::Record;
use crate::store::{Absent, Change, Durability, Guarantees, Live, Lookup, Saved, Store};
use crate::sync::Instant;
use disk::{Access, Root};
use due::Due;
use emptied::MadeAgain;
use generations::{Counters, Generations, News};
use layout::SessionPath;
use lock::LockedRoot;
use locked::Whose;
use read_cache::{Cached, Found, Key, ReadCache};
use rustix::io::Errno;
use slot::Decoded;
use slots::{FILE_BYTES_MAX, Known, View};
use stats::Tally;
use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// How often a reader without a lock looks again before it asks writers to pause.
const REREADS_MAX: u32 = 8;

/// How long a copy is trusted without a look at the file. It bounds what the counters cannot: how long processes may
/// differ about a save whose writer was killed before it announced it, and how long a session that was removed by hand
/// is served if nobody watches. A look costs a few microseconds, so a longer time would gain nothing.
const TRUST_MICROS: u64 = 60_000_000;

/// How often an announcement follows the counters' name to another file before it is given up: no two backups are restored
/// while one session is saved.
const FOLLOWINGS_MAX: u32 = 8;

/// Sessions in one directory of a local file system, shared by any number of threads and processes of one host.
///
/// # Promises
///
/// Those of [`Store`](crate::store), in full: updates are atomic across processes, what was deleted stays deleted, and
/// a reader sees one complete version whatever happens to a writer. What survives a power cut is said by
/// [`Durability`].
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
/// argument, [`Coherence`] the choices, [`stats`](Self::stats) the counts.
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
    queues: lock::Queues,
    made_again: MadeAgain,
    generations: Arc<Generations>,
    due: Due,
    cache: Option<ReadCache>,
    tally: Tally,
    options: FileStoreOptions,
    uncached_on: Option<&'static str>,
    #[cfg(feature = "watch")]
    watcher: Option<Result<watch::Watcher>>,
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
            options.coherence = Coherence::Verify;
            options.cache_bytes = 0;
        }
        let (root, were_missing) = open::open_root(dir, &options)?;
        let uncached_on = open::go_without_copies(&root, &mut options);
        let (in_use, generations) = open::announce_use(&root, &options)?;
        let generations = Arc::new(generations);
        let cache =
            (options.cache_bytes > 0).then(|| ReadCache::new(options.cache_bytes, &generations.counters()));
        #[cfg(feature = "watch")]
        let watcher = (options.watch && cache.is_some() && options.coherence != Coherence::Verify)
            .then(|| watch::Watcher::start(&root, &generations));
        Ok(Self {
            root,
            queues: lock::Queues::new(),
            made_again: MadeAgain::at_opening(were_missing),
            generations,
            due: Due::default(),
            cache,
            tally: Tally::default(),
            options,
            uncached_on,
            #[cfg(feature = "watch")]
            watcher,
            _in_use: in_use,
        })
    }

    /// Every act that changes the store asks this first.
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

    /// What the cache holds, how often it was of use, and what could not be filed. In a process that was forked since the store
    /// was opened, nothing of the cache: a part of it may be locked by a thread that does not exist there.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let cache = self.cache.as_ref().filter(|_| self.queues.check_process().is_ok());
        Stats { index_failures: self.due.index_failures(), ..self.tally.stats(cache) }
    }

    /// The name of the file system, such as `NFS`, if no copies of sessions are kept in memory because processes cannot hear
    /// of each other's saves through memory on it; see [`Coherence::Shared`]. `None` on other file systems, and if another
    /// coherence was asked for. It costs speed and nothing else: every load reads the session's file.
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

    /// Why watching the directory for what is done by hand could not begin, though that was asked; `None` if it did, or was
    /// not asked. It costs promptness and nothing else: see [`FileStoreOptions::watch`].
    #[cfg(feature = "watch")]
    #[must_use]
    pub fn watch_error(&self) -> Option<&Error> {
        self.watcher.as_ref()?.as_ref().err()
    }

    /// Whether a copy is still the newest version, as far as anybody has said, and not expired; see [`design`](crate::_documentation::design).
    fn trusts(&self, copy: &Cached, counters: &Counters, now: Glance) -> bool {
        counters.confirm(&copy.id, copy.stamp)
            // Also if the clock was set back: a copy from the future is as good as an old one.
            && now.micros().wrapping_sub(copy.read_at) < TRUST_MICROS
            && (now.is_surely_before(copy.deadline) || micros(self.now()) < copy.deadline)
    }

    /// Keeps a copy of a version for later loads.
    fn remember(&self, session: &SessionId, copy: Cached) {
        if let Some(cache) = &self.cache {
            let now = self.options.clock.glance();
            cache.put(session.as_bytes(), copy, |there, counters| self.trusts(there, counters, now));
        }
    }

    /// Drops the copy of a session.
    fn forget(&self, session: &SessionId) {
        if let Some(cache) = &self.cache {
            cache.forget(session.as_bytes());
        }
    }

    /// Tells every process that has a copy of the session to look at its file. Returns what copies of the version that
    /// was just written, under the session's lock, are dated with.
    fn announce(&self, whose: Whose<'_>, id: &PublicId, news: News) -> Result<u64> {
        self.announce_where_it_is_heard(id, news).map_err(|error| {
            // Our own copy is as old as theirs.
            whose.secret().inspect(|session| self.forget(session));
            Error::new(ErrorKind::InvalidationFailed, "announce the change of session file")
                .with_path(self.root.path().join(SessionPath::of(id).as_str()))
                .with_reason("what was done is done; other processes may serve what was before for a minute")
                .with_source(self.error_at("write to", layout::GENERATIONS_PATH, error))
        })
    }

    /// Announces into the counters that have the name. Returns what `saves` is there now.
    fn announce_where_it_is_heard(&self, id: &PublicId, news: News) -> io::Result<u64> {
        for _ in 0..FOLLOWINGS_MAX {
            let told = self.generations.announce(id, news)?;
            let now = self.options.clock.glance();
            if told.is_heard && !self.generations.is_due(now) || self.follow(now)? == told.counters {
                return Ok(told.saves);
            }
        }
        Err(io::Error::other("the counters were replaced again and again"))
    }

    /// Takes up the counters that have the name by now, if they are others. The number of those that are listened to.
    #[cold]
    fn follow(&self, now: Glance) -> io::Result<u64> {
        let followed = self.generations.follow(now, |counters| {
            if let Some(cache) = &self.cache {
                cache.heed(counters);
            }
        });
        #[cfg(feature = "watch")]
        if let Some(Ok(watcher)) = &self.watcher {
            watcher.watch_again(&self.generations);
        }
        followed
    }

    /// Loads a session of which there is no copy to be trusted.
    #[inline(never)]
    fn load_file(&self, session: &SessionId, known: Option<&Cached>, glance: Glance) -> Result<Lookup> {
        let id = known.map_or_else(|| session.public_id(), |known| known.id);
        // Before the file is opened: see `generations`.
        let stamp = self.generations.stamp(&id);
        let newest = match self.read(Whose::Secret(session), &id, known.map(Cached::known))? {
            Some(View::Valid { newest, .. }) if newest.record.is_expired(self.now()) => {
                Err(Absent::Expired(id))
            }
            Some(View::Valid { newest, .. }) => Ok(newest),
            Some(View::Damaged) => Err(Absent::Damaged(id)),
            None | Some(View::Empty) => Err(Absent::NotFound(id)),
        };
        let is_known = |newest: &Decoded| known.is_some_and(|known| known.version == newest.version);
        let confirmed = self.options.coherence == Coherence::Verify && newest.as_ref().is_ok_and(is_known);
        self.tally.count_read(known.is_some(), confirmed);
        Ok(match newest {
            Ok(Decoded { record, version, .. }) => {
                self.remember(session, Cached::new(Arc::clone(&record), id, version, stamp, glance.micros()));
                Lookup::Live(Live { record, id })
            }
            Err(absent) => {
                self.forget(session);
                Lookup::Absent(absent)
            }
        })
    }

    /// Reads a session without a lock; `None` if it has no file.
    fn read(&self, whose: Whose<'_>, id: &PublicId, known: Option<Known<'_>>) -> Result<Option<View>> {
        let path = SessionPath::of(id);
        let Some(file) = self.open_file(id, &path, Access::Read)? else { return Ok(None) };
        let first = self.look(&file, &path, |bytes| match slots::view(bytes, id, known) {
            Ok(view @ View::Valid { settled: true, .. }) => Ok(view),
            // A save may have been under way, or a writer died in one: see `slots`.
            _ => Err(bytes.to_vec()),
        });
        match first {
            Ok(Ok(view)) => Ok(Some(view)),
            Ok(Err(bytes)) => self.read_until_settled(whose, id, &path, bytes),
            Err(error) if whose.is_beyond_any(&error) => Ok(Some(View::Damaged)),
            Err(error) => Err(error),
        }
    }

    /// Reads again, by path, until two readings agree: the second then began when the first had seen all it shows.
    #[cold]
    fn read_until_settled(
        &self,
        whose: Whose<'_>,
        id: &PublicId,
        path: &SessionPath,
        mut last: Vec<u8>,
    ) -> Result<Option<View>> {
        for _ in 0..REREADS_MAX {
            let Some(file) = self.open_file(id, path, Access::Read)? else { return Ok(None) };
            let bytes = self.look(&file, path, <[u8]>::to_vec)?;
            match slots::view(&bytes, id, None) {
                Ok(view @ View::Valid { settled: true, .. }) => return Ok(Some(view)),
                view if bytes == last => return self.located(view, path).map(Some),
                _ => last = bytes,
            }
        }
        let Some(file) = self.open_file(id, path, Access::Read)? else { return Ok(None) };
        let deadline = Instant::now() + self.options.lock_wait;
        let _shared = lock::share(&file, deadline)
            .map_err(|error| self.error("lock session file", path, error))?
            .ok_or_else(lock::busy)?;
        if !self.leads_to(path, &file)? {
            // Replaced or ended while we waited.
            return self.read(whose, id, None);
        }
        let view = self.look(&file, path, |bytes| slots::view(bytes, id, None))?;
        self.located(view, path).map(Some)
    }

    /// Opens a session's file; `None` if there is none, which is an error if its shard is gone as well.
    fn open_file(&self, id: &PublicId, path: &SessionPath, access: Access) -> Result<Option<File>> {
        match self.opened(self.root.open_session(path, access), path)? {
            // Looked for once more, in the shard that is there: it may just have been put where there was none.
            None => self.opened(self.open_shard(id)?.open(path, access), path),
            found => Ok(found),
        }
    }

    /// What came of opening a session's file; `None` if there is none.
    fn opened(&self, opened: io::Result<File>, path: &SessionPath) -> Result<Option<File>> {
        match opened {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error("open session file", path, error)),
        }
    }

    /// Opens a session's shard directory. One that is gone is an error, unless the whole store is.
    fn open_shard(&self, id: &PublicId) -> Result<disk::Directory> {
        match self.root.open_shard(id) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.open_missing_shard(&layout::shard_of(id))
            }
            opened => opened.map_err(|error| {
                let error = io_error("open shard directory", error);
                error.with_path(self.root.path().join(layout::shard_of(id)))
            }),
        }
    }

    /// Looks at the bytes of a session's file.
    fn look<R>(&self, file: &File, path: &SessionPath, look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        disk::read_whole(file, FILE_BYTES_MAX, slots::is_whole, look)
            .map_err(|error| self.error("read session file", path, error))?
            .ok_or_else(|| {
                Error::new(ErrorKind::TooLarge, "read session file")
                    .with_path(self.root.path().join(path.as_str()))
                    .with_reason("it is larger than the file of any session")
            })
    }

    /// Names the file in an error about its contents.
    fn located<T>(&self, result: Result<T>, path: &SessionPath) -> Result<T> {
        result.map_err(|error| error.with_path(self.root.path().join(path.as_str())))
    }

    /// What the operating system said about a session's file.
    fn error(&self, act: &'static str, path: &SessionPath, error: io::Error) -> Error {
        self.error_at(act, path.as_str(), error)
    }

    /// What the operating system said about a file below the root.
    fn error_at(&self, act: &'static str, path: &str, error: io::Error) -> Error {
        let full = matches!(Errno::from_io_error(&error), Some(Errno::NOSPC));
        let error = io_error(act, error).with_path(self.root.path().join(path));
        if full { error.with_reason(self.root.what_is_full()) } else { error }
    }
}

/// Sorts what the operating system said.
fn io_error(act: impl Into<Cow<'static, str>>, error: io::Error) -> Error {
    match Errno::from_io_error(&error) {
        Some(Errno::NOSPC) => Error::new(ErrorKind::Full, act),
        Some(Errno::DQUOT) => Error::new(ErrorKind::Full, act).with_reason("the disk quota is used up"),
        Some(Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::SPIPE | Errno::NXIO) => {
            Error::new(ErrorKind::NotASessionFile, act)
                .with_reason("a link, pipe, directory or device is in its place")
        }
        _ => Error::new(ErrorKind::Io, act),
    }
    .with_source(error)
}

impl Store for FileStore {
    fn now(&self) -> SystemTime {
        self.options.clock.now()
    }

    fn is_well_formed(&self, token: &Token) -> bool {
        SessionId::parse(token.expose()).is_some()
    }

    fn load(&self, token: &Token) -> Result<Lookup> {
        // A part of the cache may be locked by a thread that does not exist in the child.
        self.queues.check_process()?;
        let now = self.options.clock.glance();
        let text = token.expose();
        let mut known = None;
        if let (Some(cache), Ok(key)) = (&self.cache, <&Key>::try_from(text.as_bytes())) {
            if self.generations.is_due(now) {
                // If none can be had, no copy is trusted.
                let _ = self.follow(now);
            }
            match cache.get(key, now, |copy, counters| self.trusts(copy, counters, now)) {
                Found::Trusted(record, id) => return Ok(Lookup::Live(Live { record, id })),
                Found::Doubtful(copy) => known = Some(copy),
                Found::Nothing => {}
            }
        }
        match SessionId::parse(text) {
            Some(session) => self.load_file(&session, known.as_ref(), now),
            None => Ok(Lookup::Absent(Absent::Malformed)),
        }
    }

    fn create(&self, record: &Record, how: Durability) -> Result<Saved> {
        let session = SessionId::random()?;
        let mut record = record.clone();
        record.cut();
        let live =
            self.create_file(Whose::Secret(&session), Arc::new(record), self.options.is_power_safe(how))?;
        Ok(Saved { token: session.to_token(), live })
    }

    fn update(&self, token: &Token, change: Change<'_>, how: Durability) -> Result<Option<Saved>> {
        let Some(session) = SessionId::parse(token.expose()) else { return Ok(None) };
        let live = self.update_file(&session, change, self.options.is_power_safe(how))?;
        Ok(live.map(|live| Saved { token: token.clone(), live }))
    }

    fn rotate(&self, token: &Token, change: Change<'_>, _how: Durability) -> Result<Option<Saved>> {
        let Some(session) = SessionId::parse(token.expose()) else { return Ok(None) };
        let successor = SessionId::random()?;
        let live = self.rotate_file(&session, &successor, change)?;
        Ok(live.map(|live| Saved { token: successor.to_token(), live }))
    }

    fn delete(&self, token: &Token) -> Result<bool> {
        match SessionId::parse(token.expose()) {
            Some(session) => self.end_file(Whose::Secret(&session)),
            None => Ok(false),
        }
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
