//! redb: a table of sessions, and one by deadline. One write transaction per operation.
//!
//! Power-safe is its default (`Durability::Immediate`). Relaxed is `Durability::None`, which keeps commits in
//! memory until a durable one: here every thousandth, so that a killed program loses little.
use crate::peer::{Client, Peer, Setting};
use crate::workload::{Found, Key, Row, micros, usual_deadline};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

const SESSIONS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("sessions");
const BY_DEADLINE: TableDefinition<&[u8], ()> = TableDefinition::new("by_deadline");

pub(crate) struct Redb {
    setting: Setting,
    database: Database,
    commits: AtomicU64,
}

impl Redb {
    pub(crate) fn open(setting: Setting) -> Self {
        let database = Database::create(setting.dir.join("sessions.redb")).expect("a database");
        let this = Self { setting, database, commits: AtomicU64::new(0) };
        // Creates the tables.
        this.fill(&[]);
        this
    }

    fn write(&self) -> WriteTransaction {
        let mut write = self.database.begin_write().expect("a transaction");
        let commit = self.commits.fetch_add(1, Ordering::Relaxed);
        if !self.setting.is_power_safe() && !commit.is_multiple_of(1000) {
            write.set_durability(Durability::None).expect("a durability");
        }
        write
    }

    fn put(&self, write: WriteTransaction, keys: &[Key], deadline: SystemTime) {
        let row = Row::of(deadline, &self.setting.payload);
        {
            let mut sessions = write.open_table(SESSIONS).expect("a table");
            let mut by_deadline = write.open_table(BY_DEADLINE).expect("a table");
            for key in keys {
                sessions.insert(&key[..], &row[..]).expect("a row");
                by_deadline.insert(&Row::by_deadline(micros(deadline), key)[..], ()).expect("an entry");
            }
        }
        write.commit().expect("a commit");
    }
}

impl Peer for Redb {
    fn fill(&self, keys: &[Key]) {
        // Written to the disk at either durability.
        self.put(self.database.begin_write().expect("a transaction"), keys, usual_deadline());
    }
    fn client(&self) -> Box<dyn Client + '_> {
        Box::new(self)
    }
}

impl Client for &Redb {
    fn load(&mut self, key: &Key) -> Option<Found> {
        let read = self.database.begin_read().expect("a transaction");
        let sessions = read.open_table(SESSIONS).expect("a table");
        let row = sessions.get(&key[..]).expect("a look")?;
        let row = row.value();
        (Row::deadline(row) > micros(SystemTime::now())).then(|| Row::found(row))
    }
    fn update(&mut self, key: &Key) -> bool {
        let write = self.write();
        {
            let mut sessions = write.open_table(SESSIONS).expect("a table");
            let Some(mut row) = sessions.get(&key[..]).expect("a look").map(|row| row.value().to_vec())
            else {
                return false;
            };
            Row::visit(&mut row);
            sessions.insert(&key[..], &row[..]).expect("a row");
        }
        write.commit().expect("a commit");
        true
    }
    fn create(&mut self, key: &Key, deadline: SystemTime) -> Key {
        self.put(self.write(), &[*key], deadline);
        *key
    }
    fn delete(&mut self, key: &Key) -> bool {
        let write = self.write();
        {
            let mut sessions = write.open_table(SESSIONS).expect("a table");
            let Some(row) = sessions.remove(&key[..]).expect("a deletion") else { return false };
            let entry = Row::by_deadline(Row::deadline(row.value()), key);
            let mut by_deadline = write.open_table(BY_DEADLINE).expect("a table");
            by_deadline.remove(&entry[..]).expect("a deletion");
        }
        write.commit().expect("a commit");
        true
    }
    fn sweep(&mut self) -> u64 {
        let now = micros(SystemTime::now());
        let write = self.write();
        let due = {
            let mut sessions = write.open_table(SESSIONS).expect("a table");
            let mut by_deadline = write.open_table(BY_DEADLINE).expect("a table");
            let due: Vec<Vec<u8>> = by_deadline
                .iter()
                .expect("a look")
                .map(|entry| entry.expect("an entry").0.value().to_vec())
                .take_while(|entry| Row::from_by_deadline(entry).0 <= now)
                .collect();
            for entry in &due {
                sessions.remove(&Row::from_by_deadline(entry).1[..]).expect("a deletion");
                by_deadline.remove(&entry[..]).expect("a deletion");
            }
            due.len()
        };
        write.commit().expect("a commit");
        due as u64
    }
}
