//! fjall: a log-structured tree of sessions, and one by deadline; both change in one batch.
//!
//! Relaxed is its default: the journal reaches the kernel with each write. Power-safe persists it
//! (`PersistMode::SyncData`) before an operation returns. Updates use no transaction, so of two concurrent
//! updates one is lost, and an update can undo an end: fjall's own transactions would cost more.
use crate::peer::{Client, Peer, Setting};
use crate::workload::{Found, Key, Row, micros, usual_deadline};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use std::time::SystemTime;

pub(crate) struct Fjall {
    setting: Setting,
    database: Database,
    sessions: Keyspace,
    by_deadline: Keyspace,
}

impl Fjall {
    pub(crate) fn open(setting: Setting) -> Self {
        let database = Database::builder(&setting.dir).open().expect("a database");
        let keyspace = |name| database.keyspace(name, KeyspaceCreateOptions::default).expect("a keyspace");
        let (sessions, by_deadline) = (keyspace("sessions"), keyspace("by_deadline"));
        Self { setting, database, sessions, by_deadline }
    }

    fn put(&self, batch: &mut OwnedWriteBatch, key: &Key, deadline: SystemTime) {
        batch.insert(&self.sessions, &key[..], Row::of(deadline, &self.setting.payload));
        batch.insert(&self.by_deadline, &Row::by_deadline(micros(deadline), key)[..], "");
    }

    fn remove(&self, batch: &mut OwnedWriteBatch, key: &Key, deadline: u64) {
        batch.remove(&self.sessions, &key[..]);
        batch.remove(&self.by_deadline, &Row::by_deadline(deadline, key)[..]);
    }

    fn persist(&self) {
        if self.setting.is_power_safe() {
            self.database.persist(PersistMode::SyncData).expect("fdatasync");
        }
    }
}

impl Peer for Fjall {
    fn fill(&self, keys: &[Key]) {
        for keys in keys.chunks(1000) {
            let mut batch = self.database.batch();
            for key in keys {
                self.put(&mut batch, key, usual_deadline());
            }
            batch.commit().expect("a commit");
        }
    }
    fn client(&self) -> Box<dyn Client + '_> {
        Box::new(self)
    }
    fn keeps_ends(&self) -> bool {
        false
    }
}

impl Client for &Fjall {
    fn load(&mut self, key: &Key) -> Option<Found> {
        let row = self.sessions.get(key).expect("a look")?;
        (Row::deadline(&row) > micros(SystemTime::now())).then(|| Row::found(&row))
    }
    fn update(&mut self, key: &Key) -> bool {
        let Some(row) = self.sessions.get(key).expect("a look") else { return false };
        let mut row = row.to_vec();
        Row::visit(&mut row);
        self.sessions.insert(&key[..], row).expect("a row");
        self.persist();
        true
    }
    fn create(&mut self, key: &Key, deadline: SystemTime) -> Key {
        let mut batch = self.database.batch();
        self.put(&mut batch, key, deadline);
        batch.commit().expect("a commit");
        self.persist();
        *key
    }
    fn delete(&mut self, key: &Key) -> bool {
        let Some(row) = self.sessions.get(key).expect("a look") else { return false };
        let mut batch = self.database.batch();
        self.remove(&mut batch, key, Row::deadline(&row));
        batch.commit().expect("a commit");
        self.persist();
        true
    }
    fn sweep(&mut self) -> u64 {
        let now = micros(SystemTime::now());
        let due: Vec<(u64, Key)> = self
            .by_deadline
            .iter()
            .map(|entry| Row::from_by_deadline(&entry.key().expect("an entry")))
            .take_while(|(deadline, _)| *deadline <= now)
            .collect();
        let mut batch = self.database.batch();
        for (deadline, key) in &due {
            self.remove(&mut batch, key, *deadline);
        }
        batch.commit().expect("a commit");
        self.persist();
        due.len() as u64
    }
}
