//! One connection: its settings, statements that wait for other processes until an instant, and transactions that are
//! done as a whole or not at all.
//!
//! SQLite's own waiting is switched off: it sleeps for up to 100 ms at a time. Here a waiting operation asks again after
//! 2 ms at most. Threads of this process wait in the pool of the one connection that writes, not here.
use super::errors::failure;
use super::place::{Inode, inode};
use super::statements::{Statements, VERSION};
use crate::error::{Error, ErrorKind, Result};
use crate::fork::ForkGuard;
use crate::rows::jittered;
use crate::store::Durability;
use crate::sync::{Instant, thread};
use rusqlite::{OpenFlags, Row, ToSql};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The first pause of an operation that another process is in the way of, and the longest one.
const PAUSE: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(2));
/// More than the number of statements that a connection runs.
const CACHED_STATEMENTS: usize = 32;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Reader,
    Writer,
}

/// An open connection. In a forked child it is never closed: closing it there could remove the log that the parent
/// writes to.
pub(super) struct Connection {
    /// `None` only while it is dropped.
    sql: Option<rusqlite::Connection>,
    role: Role,
    path: Arc<Path>,
    /// The file that was opened, which may have lost its name since.
    inode: Inode,
    /// Whether commits are synced now.
    is_safe: Cell<bool>,
    fork_guard: Arc<ForkGuard>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.fork_guard.same_process() {
            std::mem::forget(self.sql.take());
        }
    }
}

impl Connection {
    /// Opens the file, which must exist.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if the file cannot have a write-ahead log.
    pub(super) fn open(path: &Arc<Path>, role: Role, guard: &Arc<ForkGuard>, until: Instant) -> Result<Self> {
        let missing = || {
            Error::new(ErrorKind::Io, "open session database").with_path(path).with_reason(
                "the file was removed while the store was open; open the store again, which makes a new one",
            )
        };
        let before = inode(path)?.ok_or_else(missing)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE;
        let sql = rusqlite::Connection::open_with_flags(path, flags)
            .map_err(|error| failure("open session database", path, error))?;
        let connection = Self {
            sql: Some(sql),
            role,
            path: Arc::clone(path),
            inode: before,
            is_safe: Cell::new(true),
            fork_guard: Arc::clone(guard),
        };
        // The name had this file before and after it was opened.
        connection.check_name()?;
        waiting(until, || connection.set_up())?;
        Ok(connection)
    }

    fn set_up(&self) -> Result<()> {
        let sql = self.sql();
        sql.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        sql.busy_timeout(Duration::ZERO).map_err(|error| self.failure(error))?;
        let mode = self.text("PRAGMA journal_mode = WAL")?;
        if mode != "wal" {
            return Err(Error::new(ErrorKind::Unsupported, "open session database")
                .with_path(&self.path)
                .with_reason(format!("it has no write-ahead log, but the journal mode `{mode}`")));
        }
        self.batch("PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")?;
        if self.role == Role::Reader {
            self.batch("PRAGMA query_only = ON")?;
        }
        Ok(())
    }

    fn sql(&self) -> &rusqlite::Connection {
        self.sql.as_ref().expect("it is open")
    }

    #[cfg(test)]
    pub(super) fn sql_mut(&mut self) -> &mut rusqlite::Connection {
        self.sql.as_mut().expect("it is open")
    }

    #[cold]
    fn failure(&self, error: rusqlite::Error) -> Error {
        let operation = match self.role {
            Role::Reader => "read session database",
            Role::Writer => "write session database",
        };
        failure(operation, &self.path, error)
    }

    /// Fails if the path names another file now, or none: what is written to this one would be lost.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`]; the pool then drops its connections, and the next one opens the file of the path.
    pub(super) fn check_name(&self) -> Result<()> {
        if inode(&self.path)? == Some(self.inode) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "use session database")
            .with_path(&self.path)
            .with_reason("the file was removed or replaced"))
    }

    /// Runs a batch of statements without parameters.
    fn batch(&self, text: &str) -> Result<()> {
        self.sql().execute_batch(text).map_err(|error| self.failure(error))
    }

    /// The first column of the first row, which is text.
    pub(super) fn text(&self, text: &str) -> Result<String> {
        self.sql().query_row(text, [], |row| row.get(0)).map_err(|error| self.failure(error))
    }

    /// The first column of the first row, which is a number.
    pub(super) fn number(&self, text: &str) -> Result<i64> {
        self.sql().query_row(text, [], |row| row.get(0)).map_err(|error| self.failure(error))
    }

    /// Runs a statement without a result. Returns the number of rows that it changed.
    pub(super) fn execute(&self, text: &str, parameters: &[&dyn ToSql]) -> Result<usize> {
        let run = || self.sql().prepare_cached(text)?.execute(parameters);
        run().map_err(|error| self.failure(error))
    }

    /// Runs a statement, and calls `read` with each row of its result until it returns false.
    pub(super) fn each(
        &self,
        text: &str,
        parameters: &[&dyn ToSql],
        mut read: impl FnMut(&Row<'_>) -> Result<bool>,
    ) -> Result<()> {
        let fail = |error| self.failure(error);
        let mut statement = self.sql().prepare_cached(text).map_err(fail)?;
        let mut rows = statement.query(parameters).map_err(fail)?;
        while let Some(row) = rows.next().map_err(fail)? {
            if !read(row)? {
                break;
            }
        }
        Ok(())
    }

    /// Runs a statement whose result has one row at most. It runs to its end: only then is a change committed.
    pub(super) fn one<T>(
        &self,
        text: &str,
        parameters: &[&dyn ToSql],
        mut read: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut found = None;
        self.each(text, parameters, |row| {
            found = Some(read(row)?);
            Ok(true)
        })?;
        Ok(found)
    }

    /// Sets whether the commits from now on are synced.
    pub(super) fn set_durability(&self, how: Durability) -> Result<()> {
        let is_safe = how != Durability::Relaxed;
        if self.is_safe.get() != is_safe {
            // (The statement takes effect when it is prepared, so it cannot be a cached one.)
            self.batch(if is_safe { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" })?;
            self.is_safe.set(is_safe);
        }
        Ok(())
    }

    /// Runs `run` in a transaction that has the lock of writers from its beginning. If `run` fails or returns `None`,
    /// nothing is changed.
    pub(super) fn transaction<T>(
        &self,
        until: Instant,
        run: impl FnOnce() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        waiting(until, || self.execute("BEGIN IMMEDIATE", &[]))?;
        let open = Open(self);
        let done = run()?;
        if done.is_some() {
            self.execute("COMMIT", &[])?;
        }
        drop(open);
        Ok(done)
    }

    /// Makes the tables if there are none, in one transaction: of several processes, one makes them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NewerFormat`] for tables of a newer version.
    pub(super) fn make_tables(&self, statements: &Statements, until: Instant) -> Result<()> {
        if waiting(until, || self.version(statements))?.is_none() {
            self.transaction(until, || {
                if self.version(statements)?.is_none() {
                    self.batch(&statements.schema)?;
                }
                Ok(Some(()))
            })?;
        }
        Ok(())
    }

    /// Refuses a database without the tables.
    pub(super) fn check_tables(&self, statements: &Statements, until: Instant) -> Result<()> {
        match waiting(until, || self.version(statements))? {
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorKind::NotASessionStore, "open session database")
                .with_path(&self.path)
                .with_reason("it has no tables of sessions with this prefix")),
        }
    }

    /// The version of the tables, if it is one that this crate knows; `None` if there are none.
    fn version(&self, statements: &Statements) -> Result<Option<i64>> {
        if self.number(&statements.has_schema)? == 0 {
            return Ok(None);
        }
        let refuse = |kind, reason: String| {
            Err(Error::new(kind, "open session database").with_path(&self.path).with_reason(reason))
        };
        match self.number(&statements.version)? {
            VERSION => Ok(Some(VERSION)),
            newer if newer > VERSION => refuse(
                ErrorKind::NewerFormat,
                format!("its tables are of version {newer}; this version of the library knows {VERSION}"),
            ),
            other => refuse(ErrorKind::Corrupt, format!("its tables have the version {other}")),
        }
    }
}

/// Runs `run` again while other processes are in its way, until there is no time left.
pub(super) fn waiting<T>(until: Instant, run: impl Fn() -> Result<T>) -> Result<T> {
    let mut pause = PAUSE.0;
    loop {
        match run() {
            Err(error) if error.kind() == ErrorKind::Busy && Instant::now() + pause < until => {
                thread::sleep(jittered(pause));
                pause = (pause * 2).min(PAUSE.1);
            }
            result => return result,
        }
    }
}

/// A transaction that is rolled back when it is dropped, also by a panic, unless it was committed.
struct Open<'a>(&'a Connection);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // After some errors SQLite has rolled it back itself. If a rollback fails, the next BEGIN on this connection
        // does, and the pool drops the connection.
        if !self.0.sql().is_autocommit() {
            let _ = self.0.execute("ROLLBACK", &[]);
        }
    }
}
