//! SQLite, in the program: a bundled copy of the library, write-ahead log, prepared statements, one
//! connection a thread.
//!
//! `synchronous` is NORMAL for relaxed (a commit reaches the disk with the next checkpoint, as
//! <https://sqlite.org/wal.html> recommends for most programs) and FULL for power-safe. It has a busy
//! timeout, as every program with more than one thread sets. Rows are larger than
//! <https://sqlite.org/withoutrowid.html> recommends for tables without row numbers, so this is an ordinary
//! table, with an index of deadlines. An update is one transaction that begins as a writer.
use crate::peer::{Client, Peer, Setting};
use crate::workload::{Found, Key, micros, usual_deadline};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::time::{Duration, SystemTime};

pub(crate) struct Sqlite {
    setting: Setting,
    /// Kept open as in a running program: closing the last connection checkpoints and removes the log.
    kept: Mutex<Connection>,
}

impl Sqlite {
    pub(crate) fn open(setting: Setting) -> Self {
        let kept = connection(&setting);
        kept.execute_batch(
                "CREATE TABLE sessions (
                     id BLOB PRIMARY KEY, deadline INTEGER NOT NULL, visits INTEGER NOT NULL, payload TEXT NOT NULL);
                 CREATE INDEX sessions_by_deadline ON sessions (deadline);",
            )
        .expect("a table");
        Self { setting, kept: Mutex::new(kept) }
    }
}

fn connection(setting: &Setting) -> Connection {
    let connection = Connection::open(setting.dir.join("sessions.sqlite")).expect("a database");
    connection.busy_timeout(Duration::from_secs(60)).expect("a timeout");
    let synchronous = if setting.is_power_safe() { "FULL" } else { "NORMAL" };
    connection.pragma_update(None, "journal_mode", "WAL").expect("a write-ahead log");
    connection.pragma_update(None, "synchronous", synchronous).expect("a durability");
    connection.set_prepared_statement_cache_capacity(32);
    connection
}

const INSERT: &str = "INSERT INTO sessions (id, deadline, visits, payload) VALUES (?1, ?2, 0, ?3)";

/// A time as SQLite stores it.
fn integer(time: SystemTime) -> i64 {
    micros(time).try_into().expect("below 2^63")
}

impl Peer for Sqlite {
    fn fill(&self, keys: &[Key]) {
        let mut connection = self.kept.lock();
        let transaction = connection.transaction().expect("a transaction");
        {
            let mut insert = transaction.prepare(INSERT).expect("a statement");
            for key in keys {
                insert.execute(params![key, integer(usual_deadline()), self.setting.payload]).expect("a row");
            }
        }
        transaction.commit().expect("a commit");
    }
    /// Checkpoints the log into the database, and truncates it. (During the measurement the log stays, and
    /// its space is reused.)
    fn settle(&self) {
        let connection = self.kept.lock();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("a checkpoint");
    }
    fn client(&self) -> Box<dyn Client + '_> {
        Box::new(SqliteClient { payload: &self.setting.payload, connection: connection(&self.setting) })
    }
}

struct SqliteClient<'a> {
    payload: &'a str,
    connection: Connection,
}

impl Client for SqliteClient<'_> {
    fn load(&mut self, key: &Key) -> Option<Found> {
        let text = "SELECT visits, payload FROM sessions WHERE id = ?1 AND deadline > ?2";
        let mut select = self.connection.prepare_cached(text).expect("a statement");
        let found = select.query_row(params![key, integer(SystemTime::now())], |row| {
            Ok(Found {
                visits: row.get::<_, i64>(0)?.cast_unsigned(),
                bytes: row.get_ref(1)?.as_str()?.len(),
            })
        });
        found.optional().expect("a look")
    }
    fn update(&mut self, key: &Key) -> bool {
        let begun = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = begun.expect("a transaction");
        let changed = {
            let text = "SELECT visits, payload FROM sessions WHERE id = ?1 AND deadline > ?2";
            let mut select = transaction.prepare_cached(text).expect("a statement");
            let found = select.query_row(params![key, integer(SystemTime::now())], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
            });
            let Some((visits, payload)) = found.optional().expect("a look") else { return false };
            let text = "UPDATE sessions SET visits = ?2, payload = ?3 WHERE id = ?1";
            let mut update = transaction.prepare_cached(text).expect("a statement");
            update.execute(params![key, visits + 1, payload]).expect("an update")
        };
        transaction.commit().expect("a commit");
        changed == 1
    }
    fn create(&mut self, key: &Key, deadline: SystemTime) -> Key {
        let mut insert = self.connection.prepare_cached(INSERT).expect("a statement");
        insert.execute(params![key, integer(deadline), self.payload]).expect("a row");
        *key
    }
    fn delete(&mut self, key: &Key) -> bool {
        let text = "DELETE FROM sessions WHERE id = ?1";
        let mut delete = self.connection.prepare_cached(text).expect("a statement");
        delete.execute(params![key]).expect("a deletion") == 1
    }
    fn sweep(&mut self) -> u64 {
        let text = "DELETE FROM sessions WHERE deadline <= ?1";
        let mut delete = self.connection.prepare_cached(text).expect("a statement");
        delete.execute([integer(SystemTime::now())]).expect("a deletion") as u64
    }
}
