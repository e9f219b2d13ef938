//! The options of a store in a database file: unit, bounds, default and cost.
use super::connection::{Connection, Role};
use super::statements::{Statements, schema};
use super::{SqliteRows, SqliteStore, place};
use crate::clock::Clock;
use crate::database::names::Prefix;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::fork::ForkGuard;
use crate::rows::{Pool, RowStoreOptions};
use crate::store::Durability;
use crate::sync::Instant;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The first version of SQLite that has STRICT tables.
const SQLITE_MIN: i32 = 3_037_000;
const CONNECTIONS_MAX: usize = 256;

/// Options for opening a [`SqliteStore`].
///
/// ```
/// use sessile::database::SqliteOptions;
/// use sessile::Durability;
/// use std::time::Duration;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("sessions.db");
/// let options = SqliteOptions::new().durability(Durability::PowerSafe).wait(Duration::from_secs(2));
/// let store = options.table_prefix("shop_").open(path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    rows: RowStoreOptions,
    prefix: std::result::Result<Prefix, String>,
    connections: usize,
    clock: Clock,
    create: bool,
    keep_modes: bool,
    observer: Observer,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, NonZero::get);
        Self {
            rows: RowStoreOptions::new(),
            prefix: Ok(Prefix::default()),
            connections: (2 * cores).clamp(4, 16),
            clock: Clock::system(),
            create: true,
            keep_modes: false,
            observer: Observer::default(),
        }
    }
}

impl SqliteOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The beginning of the names of all tables; default `sessile_`. 1 to 40 characters of a-z, 0-9 and _, of which the
    /// first is a letter. Two prefixes in one file are two stores.
    #[must_use]
    pub fn table_prefix(mut self, prefix: &str) -> Self {
        self.prefix = Prefix::new(prefix).map_err(|_| prefix.to_owned());
        self
    }

    /// The durability of saves that do not name one; default [`Durability::Relaxed`]. See
    /// [`RowStoreOptions::durability`], and [`SqliteStore`] for what it means here.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.rows = self.rows.durability(durability);
        self
    }

    /// The longest time that one call takes; default 5 s, 0.1 to 60 s. See [`RowStoreOptions::wait`].
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.rows = self.rows.wait(wait);
        self
    }

    /// The number of connections that may read at the same time; default 2 for each core, but 4 to 16; 1 to 256. They
    /// are opened when they are needed, take 2 MiB each at most, and there is one more that writes.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// The largest record in bytes; default 1 MiB. See [`RowStoreOptions::record_bytes_max`].
    #[must_use]
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.rows = self.rows.record_bytes_max(bytes);
        self
    }

    /// The most entries of a session; default 1024. See [`RowStoreOptions::entries_max`].
    #[must_use]
    pub fn entries_max(mut self, entries: usize) -> Self {
        self.rows = self.rows.entries_max(entries);
        self
    }

    /// The memory for rows that this process has seen last, in bytes; default 8 MiB. See
    /// [`RowStoreOptions::known_bytes`].
    #[must_use]
    pub fn known_bytes(mut self, bytes: usize) -> Self {
        self.rows = self.rows.known_bytes(bytes);
        self
    }

    /// The time source; default the system's clock. All processes that use the file need the same time.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Whether to make the file and the tables if there are none; default true. Without it,
    /// [`ErrorKind::NotASessionStore`].
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether to change no permissions; default false. Then files that other users have access to are refused instead
    /// of being made private.
    #[must_use]
    pub fn keep_modes(mut self, keep: bool) -> Self {
        self.keep_modes = keep;
        self
    }

    /// Called with the events of opening ([`Event::MadePrivate`]), and with the ends of sessions that no request has
    /// asked for: see [`RowStoreOptions::observer`]. Without it, failures are written to standard error.
    #[must_use]
    pub fn observer(self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.observed_by(Observer::new(observer))
    }

    pub(crate) fn observed_by(mut self, observer: Observer) -> Self {
        self.rows = self.rows.observed_by(observer.clone());
        self.observer = observer;
        self
    }

    /// The statements that make the tables, for programs that migrate their databases themselves.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the prefix is none.
    ///
    /// ```
    /// let schema = sessile::database::SqliteOptions::new().table_prefix("shop_").schema()?;
    /// assert!(schema.contains("CREATE TABLE shop_sessions"));
    /// # Ok::<(), sessile::Error>(())
    /// ```
    pub fn schema(&self) -> Result<String> {
        Ok(schema(&self.checked_prefix()?))
    }

    fn checked_prefix(&self) -> Result<Prefix> {
        match &self.prefix {
            Ok(prefix) => Ok(prefix.clone()),
            Err(refused) => Prefix::new(refused),
        }
    }

    /// Opens the store in the file of this path. Creates the file (mode 0600; its directory must exist) and the tables
    /// in it, if there are none; several processes may do so at once. If the file is open to other users, it is made
    /// private, with the event [`Event::MadePrivate`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] names an option out of its bounds, or says that the SQLite library is too old (3.37 is
    /// needed). [`ErrorKind::Permissions`] for a file of another user, and for a directory that other users may write
    /// to; [`ErrorKind::NotASessionFile`] for a link. [`ErrorKind::Unsupported`] on a file system that other hosts
    /// share. [`ErrorKind::NewerFormat`] for tables of a newer version, [`ErrorKind::Corrupt`] for a file that is no
    /// database, [`ErrorKind::NotASessionStore`], without [`create`](Self::create), if there is none.
    pub fn open(self, path: impl AsRef<Path>) -> Result<SqliteStore> {
        self.rows.check()?;
        let options = self.rows.clone();
        options.open(self.open_rows(path)?)
    }

    /// As [`open`](Self::open), but only the rows: for a [`RowStore`](crate::rows::RowStore) that a program makes
    /// itself, or a layer of its own between the two.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    ///
    /// ```
    /// use sessile::database::SqliteOptions;
    /// use sessile::rows::RowStoreOptions;
    /// # let dir = tempfile::tempdir()?;
    /// let rows = SqliteOptions::new().open_rows(dir.path().join("sessions.db"))?;
    /// let store = RowStoreOptions::new().open(rows)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_rows(self, path: impl AsRef<Path>) -> Result<SqliteRows> {
        let prefix = self.checked_prefix()?;
        let refuse = |reason: String| Err(Error::new(ErrorKind::Config, "open a store").with_reason(reason));
        if !(1..=CONNECTIONS_MAX).contains(&self.connections) {
            return refuse(format!(
                "there may be {} connections, and must be 1 to {CONNECTIONS_MAX}",
                self.connections
            ));
        }
        if rusqlite::version_number() < SQLITE_MIN {
            return refuse(format!(
                "the SQLite library is of version {}; 3.37 is needed",
                rusqlite::version()
            ));
        }
        let path: Arc<Path> = place::locate(path.as_ref())?.into();
        place::check_directory(&path)?;
        if place::inode(&path)?.is_none() {
            if !self.create {
                return Err(Error::new(ErrorKind::NotASessionStore, "open session database")
                    .with_path(&path)
                    .with_reason("there is no such file"));
            }
            place::make(&path)?;
        }
        place::check_files(&path, self.keep_modes, &self.observer)?;
        // SQLite would open the file for reading only.
        place::check_rights(&path)?;
        let until = Instant::now() + self.rows.longest_wait();
        let rows = SqliteRows::new(path, Statements::new(&prefix), self.clock, self.connections);
        rows.writer.with(until, |connection| {
            if self.create {
                connection.make_tables(&rows.statements, until)
            } else {
                connection.check_tables(&rows.statements, until)
            }
        })?;
        Ok(rows)
    }
}

impl SqliteRows {
    fn new(path: Arc<Path>, statements: Statements, clock: Clock, connections: usize) -> Self {
        let (fork_guard, statements) = (Arc::new(ForkGuard::new()), Arc::new(statements));
        let pool = |size, role| {
            let (path, guard) = (Arc::clone(&path), Arc::clone(&fork_guard));
            Pool::new(size, move |until| Connection::open(&path, role, &guard, until))
        };
        Self {
            readers: pool(connections, Role::Reader),
            writer: pool(1, Role::Writer),
            path,
            statements,
            clock,
            began: Instant::now(),
            named: AtomicU64::new(0),
        }
    }
}
