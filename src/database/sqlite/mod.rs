//! [`SqliteStore`]: sessions in a database file, by SQLite.
mod connection;
mod errors;
mod options;
mod place;
mod rows;
mod statements;
mod sweep;
#[cfg(test)]
mod tests;

pub use options::SqliteOptions;

use crate::clock::Clock;
use crate::error::{ErrorKind, Result};
use crate::rows::{Pool, RowStore};
use crate::store::Durability;
use crate::sync::Instant;
use connection::{Connection, waiting};
use statements::Statements;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The longest time for which operations that read go on with a file that has lost its name.
const NAME_CHECK: Duration = Duration::from_millis(100);

/// Sessions in a database file, which all processes of a host may share. [`SqliteOptions`] has its options.
///
/// - **One writer at a time**, in all processes. Reads wait for no writer. A write waits for other writers until the
///   time limit of its call, and then fails with [`ErrorKind::Busy`]. Nothing is locked while the change of an update
///   runs; so a change that takes long loses its races against many short ones of another process, and may fail so.
/// - **Durability.** The file has a write-ahead log. A [power-safe](Durability::PowerSafe) save is synced before it
///   returns (`synchronous = FULL`), as are all ends of sessions, rotations, logins and cut-offs at every durability. A
///   relaxed save (`synchronous = NORMAL`) survives a crash of the program; after a power cut, the file has the state of
///   some earlier instant that is not before the last synced write: no row is torn, and no ended session lives again.
///   That is SQLite's promise, for a local file system and a disk that does not lie about flushes.
/// - **A file of its own.** Its directory must not be writable by other users, and the file is readable by its owner
///   only, as the files that SQLite keeps beside it (`-wal`, `-shm`). Copy or restore it while no program uses it, or
///   with `VACUUM INTO`. Never open, copy or close it as a plain file in a process that has the store open: that would
///   release its locks.
/// - **A removed file is noticed.** A write fails with [`ErrorKind::Io`] if the file of the path is gone; a read does so
///   after 100 ms at most. If another file has its place, the next calls use that one. Nothing is written to a file
///   without a name, except within the instant between this check and the commit.
/// - **Not across forks.** Open the store after a fork; in a child, every call fails with [`ErrorKind::Forked`].
///
/// ```
/// use sessile::database::SqliteStore;
/// use sessile::Admin;
/// # let dir = tempfile::tempdir()?;
/// let store = SqliteStore::open(dir.path().join("sessions.db"))?;
/// assert_eq!(store.count()?, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type SqliteStore = RowStore<SqliteRows>;

impl SqliteStore {
    /// Opens a store with its default options. See [`SqliteOptions::open`].
    ///
    /// # Errors
    ///
    /// Those of [`SqliteOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        SqliteOptions::new().open(path)
    }
}

/// The rows of a [`SqliteStore`].
pub struct SqliteRows {
    path: Arc<Path>,
    statements: Arc<Statements>,
    clock: Clock,
    readers: Pool<Connection>,
    /// The one connection that writes. SQLite has one writer at a time, and threads that wait in a pool are woken in
    /// their order, while threads that poll for its lock are not.
    writer: Pool<Connection>,
    began: Instant,
    /// The time of the last look at the file's name by a read, in microseconds since `began`.
    named: AtomicU64,
}

impl SqliteRows {
    /// Reads by one of the connections for that.
    fn read<T>(&self, until: Instant, run: impl Fn(&Connection) -> Result<T>) -> Result<T> {
        self.readers.with(until, |connection| {
            self.check_name_at_times(connection)?;
            waiting(until, || run(connection))
        })
    }

    /// Writes by the connection for that.
    fn write<T>(
        &self,
        how: Durability,
        until: Instant,
        run: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        self.writer.with(until, |connection| {
            connection.check_name()?;
            connection.set_durability(how)?;
            run(connection)
        })
    }

    fn check_name_at_times(&self, connection: &Connection) -> Result<()> {
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let last = self.named.load(Ordering::Relaxed);
        if u128::from(now.saturating_sub(last)) < NAME_CHECK.as_micros() {
            return Ok(());
        }
        connection.check_name()?;
        self.named.store(now, Ordering::Relaxed);
        Ok(())
    }

    /// The path of the file.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = std::fs::canonicalize(dir.path())?.join("sessions.db");
    /// let store = sessile::database::SqliteStore::open(&path)?;
    /// assert_eq!(store.rows().path(), path);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Examines the file: its integrity, its size and its free pages. Reads the whole file.
    ///
    /// # Errors
    ///
    /// Those of reading it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = sessile::database::SqliteStore::open(dir.path().join("sessions.db"))?;
    /// let examination = store.rows().examine()?;
    /// assert!(examination.damage.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn examine(&self) -> Result<SqliteExamination> {
        let until = Instant::now() + Duration::from_secs(60);
        self.read(until, |connection| {
            let number =
                |text| connection.number(text).map(|number| u64::try_from(number).unwrap_or_default());
            let mut damage = Vec::new();
            let checked = connection.each("PRAGMA quick_check(20)", &[], |row| {
                damage.extend(row.get::<_, String>(0).ok().filter(|text| text != "ok"));
                Ok(true)
            });
            match checked {
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    damage.push("it cannot be read whole".into());
                }
                checked => checked?,
            }
            Ok(SqliteExamination {
                path: self.path.to_path_buf(),
                journal_mode: connection.text("PRAGMA journal_mode")?,
                page_bytes: number("PRAGMA page_size")?,
                pages: number("PRAGMA page_count")?,
                free_pages: number("PRAGMA freelist_count")?,
                log_bytes: place::log_bytes(&self.path)?,
                library_version: rusqlite::version().to_owned(),
                damage,
            })
        })
    }
}

/// The state of the file of a [`SqliteStore`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SqliteExamination {
    /// The path of the file.
    pub path: PathBuf,
    /// The journal mode; `wal`, unless another program has changed it.
    pub journal_mode: String,
    /// The bytes of a page.
    pub page_bytes: u64,
    /// The number of pages.
    pub pages: u64,
    /// The number of pages that are free: later sessions use them. Only `VACUUM` makes the file smaller.
    pub free_pages: u64,
    /// The bytes of the write-ahead log.
    pub log_bytes: u64,
    /// The version of the SQLite library.
    pub library_version: String,
    /// The damage that SQLite has found, at most 20 descriptions.
    pub damage: Vec<String>,
}
