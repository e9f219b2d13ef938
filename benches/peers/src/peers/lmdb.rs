//! LMDB, by `heed`: a map of sessions, and one by deadline. One write transaction per operation.
//!
//! Power-safe is its default: a commit is synced. Relaxed is `MDB_NOSYNC`, which according to its
//! documentation keeps a database intact where a file system keeps the order of writes.
use crate::peer::{Client, Peer, Setting};
use crate::workload::{Found, Key, Row, micros, usual_deadline};
use heed::types::{Bytes, Unit};
use heed::{Database, Env, EnvFlags, EnvOpenOptions};
use std::time::SystemTime;

pub(crate) struct Lmdb {
    setting: Setting,
    env: Env,
    sessions: Database<Bytes, Bytes>,
    by_deadline: Database<Bytes, Unit>,
}

impl Lmdb {
    #[expect(unsafe_code, reason = "no other process uses this new directory")]
    pub(crate) fn open(setting: Setting) -> Self {
        let mut options = EnvOpenOptions::new();
        options.map_size(16 << 30).max_dbs(2).max_readers(256);
        // SAFETY: the flag gives up durability, which is the property compared here. The file must not be
        // changed by others while it is mapped; it is in a new private directory that no other process uses.
        let env = unsafe {
            if !setting.is_power_safe() {
                options.flags(EnvFlags::NO_SYNC);
            }
            options.open(&setting.dir).expect("an environment")
        };
        let mut write = env.write_txn().expect("a transaction");
        let sessions = env.create_database(&mut write, Some("sessions")).expect("a map");
        let by_deadline = env.create_database(&mut write, Some("by_deadline")).expect("a map");
        write.commit().expect("a commit");
        Self { setting, env, sessions, by_deadline }
    }

    fn put(&self, keys: &[Key], deadline: SystemTime) {
        let row = Row::of(deadline, &self.setting.payload);
        let mut write = self.env.write_txn().expect("a transaction");
        for key in keys {
            self.sessions.put(&mut write, key, &row).expect("a row");
            self.by_deadline
                .put(&mut write, &Row::by_deadline(micros(deadline), key), &())
                .expect("an entry");
        }
        write.commit().expect("a commit");
    }
}

impl Peer for Lmdb {
    fn fill(&self, keys: &[Key]) {
        self.put(keys, usual_deadline());
    }
    fn client(&self) -> Box<dyn Client + '_> {
        Box::new(self)
    }
}

impl Client for &Lmdb {
    fn load(&mut self, key: &Key) -> Option<Found> {
        let read = self.env.read_txn().expect("a transaction");
        let row = self.sessions.get(&read, key).expect("a look")?;
        (Row::deadline(row) > micros(SystemTime::now())).then(|| Row::found(row))
    }
    fn update(&mut self, key: &Key) -> bool {
        let mut write = self.env.write_txn().expect("a transaction");
        let Some(row) = self.sessions.get(&write, key).expect("a look") else { return false };
        let mut row = row.to_vec();
        Row::visit(&mut row);
        self.sessions.put(&mut write, key, &row).expect("a row");
        write.commit().expect("a commit");
        true
    }
    fn create(&mut self, key: &Key, deadline: SystemTime) -> Key {
        self.put(&[*key], deadline);
        *key
    }
    fn delete(&mut self, key: &Key) -> bool {
        let mut write = self.env.write_txn().expect("a transaction");
        let Some(row) = self.sessions.get(&write, key).expect("a look") else { return false };
        let entry = Row::by_deadline(Row::deadline(row), key);
        self.sessions.delete(&mut write, key).expect("a deletion");
        self.by_deadline.delete(&mut write, &entry).expect("a deletion");
        write.commit().expect("a commit");
        true
    }
    fn sweep(&mut self) -> u64 {
        let mut write = self.env.write_txn().expect("a transaction");
        let now = micros(SystemTime::now());
        let due: Vec<[u8; 40]> = self
            .by_deadline
            .iter(&write)
            .expect("a look")
            .map(|entry| <[u8; 40]>::try_from(entry.expect("an entry").0).expect("an entry"))
            .take_while(|entry| Row::from_by_deadline(entry).0 <= now)
            .collect();
        for entry in &due {
            self.sessions.delete(&mut write, &Row::from_by_deadline(entry).1).expect("a deletion");
            self.by_deadline.delete(&mut write, entry).expect("a deletion");
        }
        write.commit().expect("a commit");
        due.len() as u64
    }
}
