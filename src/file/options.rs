//! All options of the file engine, each with its unit, bounds, default and cost.
use super::disk::Sharing;
use super::slot::SLOT_MIN;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::store::Durability;
use std::time::Duration;

/// The shortest wait limit for a lock. If a save has held the lock for longer, a forced delete may have overtaken it.
pub(super) const LOCK_WAIT_MIN: Duration = Duration::from_millis(1);

/// What a login does whose user has as many live sessions as are [allowed](FileStoreOptions::sessions_per_user).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtLimit {
    /// Ends the sessions of the user with the oldest logins, so that there is room for the new one. If the login then
    /// fails, on a full disk say, they are ended all the same.
    EndOldest,
    /// Refuses the login with [`ErrorKind::TooManySessions`], and changes nothing.
    Refuse,
}

/// Options for opening a [`FileStore`](super::FileStore).
///
/// ```
/// use sessile::{Durability, FileStoreOptions};
/// # let dir = tempfile::tempdir()?;
/// let store = FileStoreOptions::new().durability(Durability::PowerSafe).open(dir.path())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct FileStoreOptions {
    pub(super) durability: Durability,
    pub(super) sync_security_events: bool,
    pub(super) lock_wait: Duration,
    pub(super) record_bytes_max: usize,
    pub(super) entries_max: usize,
    pub(super) sessions_per_user: Option<(usize, AtLimit)>,
    pub(super) cache_bytes: usize,
    pub(super) watch: bool,
    pub(super) create: bool,
    pub(super) sharing: Sharing,
    pub(super) keep_modes: bool,
    pub(super) read_only: bool,
    /// With `read_only`: whether to open a directory that has lost its parameters file.
    pub(super) without_parameters: bool,
    pub(super) clock: Clock,
    pub(super) observer: Observer,
}

impl Default for FileStoreOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Relaxed,
            sync_security_events: true,
            lock_wait: Duration::from_secs(5),
            record_bytes_max: 1 << 20,
            entries_max: 1024,
            sessions_per_user: None,
            cache_bytes: 32 << 20,
            watch: true,
            create: true,
            sharing: Sharing::Private,
            keep_modes: false,
            read_only: false,
            without_parameters: false,
            clock: Clock::system(),
            observer: Observer::default(),
        }
    }
}

impl FileStoreOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The durability of saves that do not name one; default [`Durability::Relaxed`].
    ///
    /// `PowerSafe` costs one `fdatasync` a save: 160 µs instead of 6 µs on the disk this was designed on.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Whether ending a session (`delete`, and the old id of a rotation) is on the disk before the call returns,
    /// whatever the durability; default yes.
    ///
    /// Without it, each logout is faster by the sync of one file, 0.1 to 1 ms, but a power cut may bring back a session
    /// that was logged out during the last seconds. The option applies to this process, not to the store: a logout that
    /// finds its session already ended by another process does not sync that end.
    #[must_use]
    pub fn sync_security_events(mut self, yes: bool) -> Self {
        self.sync_security_events = yes;
        self
    }

    /// How long a save waits for another writer of the same session: 1 ms to 60 s, default 5 s. After that it is
    /// refused with [`ErrorKind::Busy`], whereas a `delete` then ends the session without the lock. Opening a store
    /// whose directory another process has locked waits as long, and is then refused with [`ErrorKind::InUse`].
    #[must_use]
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Largest record, in bytes as stored (120 of prefix and header, then 8 and the name and value for each entry; the
    /// user and the device note do not count): 2 KiB to 16 MiB, default 1 MiB. A larger one is refused with
    /// [`ErrorKind::TooLarge`], unless it was stored when the limit was higher: such a session is read, saved, rotated
    /// and logged in as any other, and may shrink, but not grow.
    ///
    /// A session of n bytes occupies twice the next power of two from n, at least 4 KiB.
    #[must_use]
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// Most entries of a session: 1 to 65,536, default 1,024. More are refused with [`ErrorKind::TooManyEntries`],
    /// unless the session had as many when the limit was higher.
    #[must_use]
    pub fn entries_max(mut self, entries: usize) -> Self {
        self.entries_max = entries;
        self
    }

    /// Most live sessions of a user: 1 to 1,000; by default there is no limit. `at_limit` says what a login beyond it
    /// does.
    ///
    /// Counted at each login, from the sessions themselves, exactly: also beside logins and rotations in other threads
    /// and processes that open the store with this option. Set it in all of them, with the same value. The session that
    /// the login itself moves does not count. Sessions beyond a limit that was lowered stay until their user's next
    /// login. Removing `run/users` while a login runs may let one more in.
    ///
    /// A login then also waits for the logins of 1 user in 256, at most for [`lock_wait`](Self::lock_wait), after which
    /// it is refused with [`ErrorKind::Busy`]. It reads each session of its user, some 5 µs each. If the index of users
    /// is not complete (after a restart of the system, or the loss of `run`) and no sweep has completed it yet, the
    /// first login reads all sessions, some seconds for a million; on systems without a boot id (other than Linux) each
    /// login does.
    ///
    /// ```
    /// use sessile::file::AtLimit;
    /// use sessile::{Cookies, ErrorKind, FileStoreOptions, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FileStoreOptions::new().sessions_per_user(2, AtLimit::Refuse).open(dir.path())?;
    /// let sessions = Sessions::new(store, Cookies::plain_http())?;
    /// for may_log_in in [true, true, false] {
    ///     let mut session = sessions.session([]);
    ///     session.login("ada")?;
    ///     match session.save() {
    ///         Err(error) if error.kind() == ErrorKind::TooManySessions => assert!(!may_log_in),
    ///         saved => assert!(saved.is_ok() && may_log_in),
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn sessions_per_user(mut self, most: usize, at_limit: AtLimit) -> Self {
        self.sessions_per_user = Some((most, at_limit));
        self
    }

    /// The memory for cached sessions, in bytes, including the cache's own tables; default 32 MiB, which is about
    /// 40,000 sessions of 512 bytes. With 0, every load reads the session file. Least recently used sessions are
    /// evicted first (LRU, approximated by CLOCK). A session larger than its share is read from its file each time. The
    /// share is a 257th of the limit from 32 MiB on, 60 to 250 KiB below it, and never more than half of the limit.
    ///
    /// Whatever the value, sessions are not cached where processes do not share memory (NFS, SMB, 9p, FUSE; see
    /// [`FileStore::uncached_file_system`](super::FileStore::uncached_file_system)), nor in a
    /// [read-only](Self::read_only) store.
    ///
    /// ```
    /// use sessile::{Admin, FileStoreOptions};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FileStoreOptions::new().cache_bytes(0).open(dir.path())?;
    /// assert_eq!(store.stats().files.copies, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Whether to watch the directory for sessions that are removed or replaced outside the library; default yes (it
    /// needs the feature `watch`, and a cache).
    ///
    /// Costs a thread, three descriptors, one of the user's inotify instances (128 by default) and 257 of the user's
    /// watches. If no thread can be started, the store opens without a watcher, and leaks one descriptor. Without a
    /// watcher (`FileStore::watch_error` tells the reason), a copy of such a session is served for up to a minute.
    /// Changes made through this library, in any process, need no watcher.
    #[must_use]
    pub fn watch(mut self, yes: bool) -> Self {
        self.watch = yes;
        self
    }

    /// Whether to make the directory and the store in it if there is none, and to recreate a store that is emptied
    /// while it is open; default yes. If not, a directory without a store is refused with
    /// [`ErrorKind::NotASessionStore`]. Tools that administer a store switch it off, so that a mistyped name makes no
    /// store.
    #[must_use]
    pub fn create(mut self, yes: bool) -> Self {
        self.create = yes;
        self
    }

    /// Whether the store is for all users of the directory's group, instead of only the user that the process runs as;
    /// default no. For a server and a scheduled sweep under two users, or for containers that run as another user each
    /// time.
    ///
    /// Directories then have mode 2770 and files 0660, under any umask, and any user may own them; the directory's
    /// group must be one of the process's groups. Every process must open the store with the same choice. A process
    /// with the other choice changes the modes of its own files, and is refused with [`ErrorKind::Permissions`] for
    /// files of other users. Changing the modes takes some 5 s of processor time for a million sessions, once. Members
    /// of the group can read every session and bring ended sessions back. An access control list on the directory
    /// (`setfacl`) counts as the group.
    ///
    /// Let one process make the store before those of other users open it.
    ///
    /// ```
    /// use sessile::FileStoreOptions;
    /// # let parent = tempfile::tempdir()?;
    /// # let dir = parent.path().join("sessions");
    /// let store = FileStoreOptions::new().group_access(true).open(dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn group_access(mut self, yes: bool) -> Self {
        self.sharing = if yes { Sharing::Group } else { Sharing::Private };
        self
    }

    /// Whether opening leaves the modes of an existing store unchanged; default no. For tools that administer a store
    /// beside the program that owns it. Only that program knows the users of the store, so a tool takes them from the
    /// mode of the store's directory, whatever [`group_access`](Self::group_access) is. If directories in the store
    /// have other modes, it is refused with [`ErrorKind::Permissions`], and the error has the commands that make all
    /// modes agree.
    ///
    /// ```
    /// use sessile::FileStoreOptions;
    /// # let dir = tempfile::tempdir()?;
    /// # sessile::FileStore::open(dir.path())?;
    /// let store = FileStoreOptions::new().create(false).keep_modes(true).open(dir.path())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn keep_modes(mut self, yes: bool) -> Self {
        self.keep_modes = yes;
        self
    }

    /// Whether the store is opened for reading only; default no. For tools: no file is created and no permissions are
    /// changed, so a read-only disk works, and the directory may belong to another user and be open to others, if this
    /// process can read it. A missing shard directory is an error of the calls that need it, not of opening.
    ///
    /// Calls that would change the store are refused with [`ErrorKind::Config`]; a [dry
    /// run](crate::SweepOptions::dry_run) of a sweep is possible. Sessions are not cached.
    ///
    /// ```
    /// # use sessile::{Admin, FileStore, FileStoreOptions, SweepOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # FileStore::open(dir.path())?;
    /// let store = FileStoreOptions::new().read_only(true).open(dir.path())?;
    /// assert_eq!(store.files().count(), 0);
    /// assert!(store.sweep(&SweepOptions::new()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn read_only(mut self, yes: bool) -> Self {
        self.read_only = yes;
        self
    }

    /// The source of the current time; default the system's clock. For tests.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Calls `observer` for events that concern the store as a whole (directories that were made private again, a store
    /// that was recreated), and for the [ends](Event::Ended) of sessions that no request has asked for: those that this
    /// process's sweeps remove, that operators end, and that a limit ends. It runs on the thread that caused the event,
    /// without a lock of a session; while it runs in a sweep, the sweep waits. A panic in it is contained. Without an
    /// observer, each event of the store as a whole is one line on standard error.
    ///
    /// Events of requests go to the observer of [`Sessions`](crate::Sessions::with_observer), which may be the same
    /// function.
    ///
    /// ```
    /// use sessile::FileStoreOptions;
    /// # let dir = tempfile::tempdir()?;
    /// let store = FileStoreOptions::new().observer(|event| eprintln!("{event:?}")).open(dir.path())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn observer(self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.observed_by(Observer::new(observer))
    }

    pub(crate) fn observed_by(mut self, observer: Observer) -> Self {
        self.observer = observer;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let wait = LOCK_WAIT_MIN..=Duration::from_secs(60);
        let reason = if self.durability == Durability::OfStore {
            "the store's own durability must be Relaxed or PowerSafe"
        } else if !wait.contains(&self.lock_wait) {
            "the lock wait must be 1 ms to 60 s"
        } else if !(SLOT_MIN..=16 << 20).contains(&self.record_bytes_max) {
            "the record limit must be 2 KiB to 16 MiB"
        } else if !(1..=1 << 16).contains(&self.entries_max) {
            "the entry limit must be 1 to 65,536"
        } else if self.sessions_per_user.is_some_and(|(most, _)| !(1..=1000).contains(&most)) {
            "the limit on the sessions of a user must be 1 to 1,000"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Config, "open session store").with_reason(reason))
    }

    /// Whether a save of this durability must be on the disk before it returns.
    pub(super) fn is_power_safe(&self, how: Durability) -> bool {
        let how = if how == Durability::OfStore { self.durability } else { how };
        how == Durability::PowerSafe
    }
}
