//! Every knob of the file engine: its unit, bound, default and cost.
use super::disk::Sharing;
use super::slot::SLOT_MIN;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::store::Durability;
use std::time::Duration;

/// Shortest wait for a lock: a save that took longer may have been overtaken by a `delete`.
pub(super) const LOCK_WAIT_MIN: Duration = Duration::from_millis(1);

/// How a [`FileStore`](super::FileStore) is opened.
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
    pub(super) cache_bytes: usize,
    pub(super) watch: bool,
    pub(super) create: bool,
    pub(super) sharing: Sharing,
    pub(super) keep_modes: bool,
    pub(super) read_only: bool,
    /// With `read_only`: a directory that has lost its parameters file is opened as well.
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
    /// `PowerSafe` costs one `fdatasync` a save: 160 µs beside 6 µs on the disk this was designed on.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Whether ending a session (`delete`, and the old id of a rotation) is on the disk before the call returns,
    /// whatever the durability; default yes.
    ///
    /// Switched off, each logout saves the sync of one file, 0.1 to 1 ms, and a power cut may bring a session back that was logged out
    /// during the last seconds. The option is that of a process, not of the store: a logout that finds its session already ended
    /// by another process does not sync that end.
    #[must_use]
    pub fn sync_security_events(mut self, yes: bool) -> Self {
        self.sync_security_events = yes;
        self
    }

    /// How long a save waits for another writer of the same session: 1 ms to 60 s, default 5 s; then it is refused
    /// with [`ErrorKind::Busy`]. A `delete` does not give up after it: it ends the session without the lock. Opening a store
    /// whose directory another process has locked waits as long, and is then refused with [`ErrorKind::InUse`].
    #[must_use]
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Largest record, in bytes as stored (120 of prefix and header, then 8 and the name and value for each entry; the user and the
    /// device note do not count): 2 KiB to 16 MiB, default 1 MiB. A larger one is refused with [`ErrorKind::TooLarge`], unless it was stored when the limit was
    /// higher: such a session is read, saved, rotated and logged in as any other, and may shrink, but not grow.
    ///
    /// A session of n bytes occupies twice the next power of two from n, at least 4 KiB.
    #[must_use]
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// Most entries of a session: 1 to 65,536, default 1,024; more are refused with [`ErrorKind::TooManyEntries`], unless
    /// there were as many when the limit was higher.
    #[must_use]
    pub fn entries_max(mut self, entries: usize) -> Self {
        self.entries_max = entries;
        self
    }

    /// How much memory copies of sessions may take, in bytes, with the cache's own tables; default 32 MiB, which is about 40,000
    /// sessions of 512 bytes. 0 keeps none: every load then reads the session's file. Sessions that were used least recently go
    /// first (LRU, approximated by CLOCK). A session larger than its share is read from its file each time: a 257th of the limit
    /// from 32 MiB on, 60 to 250 KiB below it, and never more than half of the limit.
    ///
    /// The store keeps no copies, whatever is set here, where processes do not share memory (NFS, SMB, 9p, FUSE; see
    /// [`FileStore::uncached_file_system`](super::FileStore::uncached_file_system)) and if it is [read only](Self::read_only).
    ///
    /// ```
    /// use sessile::FileStoreOptions;
    /// # let dir = tempfile::tempdir()?;
    /// let store = FileStoreOptions::new().cache_bytes(0).open(dir.path())?;
    /// assert_eq!(store.stats().copies, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Whether to watch the directory for sessions that are removed or replaced outside the library; default yes (it needs the
    /// feature `watch`, and a cache).
    ///
    /// Costs a thread, three descriptors, one of the user's inotify instances (128 by default) and 257 of their watches.
    /// A store that is opened where the process can have no more threads goes without, and keeps one descriptor for ever.
    /// Without it, or if it cannot start (`FileStore::watch_error`), a copy of such a session is served for up to a
    /// minute. Changes made through this library, in any process, need no watching.
    #[must_use]
    pub fn watch(mut self, yes: bool) -> Self {
        self.watch = yes;
        self
    }

    /// Whether to make the directory and the store in it, if there is none, also again while it is open; default yes. If not, a directory without a store
    /// is refused with [`ErrorKind::NotASessionStore`]: for tools that look after a store and are not to make one where a name was
    /// mistyped.
    #[must_use]
    pub fn create(mut self, yes: bool) -> Self {
        self.create = yes;
        self
    }

    /// Whether the store is for all users of the directory's group, and not for the one that the process runs as; default
    /// no. For a server and a scheduled sweep under two users, or for containers that run as another user each time.
    ///
    /// Directories are 2770 then and files 0660, under any umask, and any user may own them; the directory's group must be
    /// one of the process's groups. Every process opens the store in the same way: one that opens it with another choice
    /// changes all modes to it, where they are its own, and is refused with [`ErrorKind::Permissions`] where they are
    /// not. Either way takes some 5 s of processor time for a million sessions, once. Members of the group can read every session and
    /// bring back those that were ended. An access control list on the directory (`setfacl`) counts as the group.
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

    /// Whether opening changes no modes of a store that is there; default no. For tools that administer a store beside the
    /// program that owns it, and that alone knows which users it is for: the mode of the store's directory says that to a tool,
    /// whatever [`group_access`](Self::group_access) is. Where the directories in it have other modes, the store is refused with
    /// [`ErrorKind::Permissions`], and the error has the commands that make all agree.
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

    /// Whether the store is opened to be looked at and nothing else; default no. For tools: nothing is created or given other
    /// permissions, on a read-only disk as well, and the directory may belong to another user and be open to others, if this
    /// process can read it. A shard directory that is missing is an error of the calls that need it, not of opening.
    ///
    /// Calls that would change the store are refused with [`ErrorKind::Config`]. Of the sweeps, a
    /// [dry run](crate::file::SweepOptions::dry_run) is possible. No copies are kept in memory.
    ///
    /// ```
    /// # use sessile::{FileStore, FileStoreOptions, Lookup, file::SweepOptions};
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

    /// The time source; default the system's. For tests.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Calls `observer` for what concerns the store as a whole and no single session: directories that were made private
    /// again, a store that was made again. It runs on the thread that met it. A panic in it is contained. Without an
    /// observer, each such event is one line on standard error.
    ///
    /// Events of sessions go to the observer of [`Sessions`](crate::Sessions::with_observer).
    ///
    /// ```
    /// use sessile::FileStoreOptions;
    /// # let dir = tempfile::tempdir()?;
    /// let store = FileStoreOptions::new().observer(|event| eprintln!("{event:?}")).open(dir.path())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn observer(mut self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Observer::new(observer);
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
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Config, "open session store").with_reason(reason))
    }

    /// Whether a save has to be on the disk before it returns.
    pub(super) fn is_power_safe(&self, how: Durability) -> bool {
        let how = if how == Durability::OfStore { self.durability } else { how };
        how == Durability::PowerSafe
    }
}
