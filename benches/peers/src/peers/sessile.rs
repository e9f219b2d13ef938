//! This crate, with a cache for all sessions, a whole core for its sweeps, and, when relaxed, deletions
//! without a sync. `load` uses a store without a cache on the same directory.
use crate::peer::{Client, Peer, Setting};
use crate::workload::{Act, Durability, Found, Key, text, usual_deadline};
use parking_lot::RwLock;
use sessile::file::SweepOptions;
use sessile::{FileStore, FileStoreOptions, Lookup, PublicId, Record, Store, Token, Value, Verdict};
use std::collections::HashMap;
use std::thread;
use std::time::SystemTime;

pub(crate) struct Sessile {
    setting: Setting,
    store: FileStore,
    /// The same without a cache.
    bare: FileStore,
    /// The store generates ids itself: the tokens of sessions that were created one by one.
    tokens: RwLock<HashMap<Key, Token>>,
}

impl Sessile {
    pub(crate) fn open(setting: Setting) -> Self {
        let power_safe = setting.is_power_safe();
        let how = if power_safe { sessile::Durability::PowerSafe } else { sessile::Durability::Relaxed };
        // Room for all sessions.
        let options =
            FileStoreOptions::new().durability(how).sync_security_events(power_safe).cache_bytes(usize::MAX);
        let store = options.clone().open(&setting.dir).expect("a store");
        let bare = options.cache_bytes(0).open(&setting.dir).expect("the same store");
        Self { setting, store, bare, tokens: RwLock::default() }
    }

    fn record(&self, deadline: SystemTime) -> Record {
        let mut record = Record::new(SystemTime::now(), deadline);
        record.insert("visits", &Value::new(&0_u64).expect("a value")).expect("it fits");
        record.insert("payload", &Value::new(&self.setting.payload).expect("a value")).expect("it fits");
        record
    }

    fn token(&self, key: &Key) -> Token {
        let drawn = self.tokens.read().get(key).cloned();
        drawn.unwrap_or_else(|| Token::parse(text(key)).expect("an id"))
    }

    fn found(&self, store: &FileStore, key: &Key) -> Option<Found> {
        let Lookup::Live(live) = store.load(&self.token(key)).expect("a look") else { return None };
        let visits = live.record.entries().get("visits").expect("it has one").get().expect("a number");
        Some(Found {
            visits,
            bytes: live.record.entries().get("payload").expect("it has one").as_bytes().len(),
        })
    }

    fn how(&self) -> sessile::Durability {
        match self.setting.durability {
            Durability::Relaxed => sessile::Durability::Relaxed,
            Durability::PowerSafe => sessile::Durability::PowerSafe,
        }
    }
}

impl Peer for Sessile {
    fn fill(&self, keys: &[Key]) {
        let record = self.record(usual_deadline());
        // At the durability of the measurement: the first power-safe save after a relaxed one has to sync
        // more.
        let fill = &|keys: &[Key]| {
            for key in keys {
                let made = self.bare.import(&PublicId::digest(key), &record, self.how());
                assert!(made.expect("a session"), "it is new");
            }
        };
        thread::scope(|scope| {
            for keys in keys.chunks(keys.len().div_ceil(16)) {
                scope.spawn(move || fill(keys));
            }
        });
    }
    fn client(&self) -> Box<dyn Client + '_> {
        Box::new(self)
    }
    fn does(&self, _: Act) -> bool {
        true
    }
}

impl Client for &Sessile {
    fn load(&mut self, key: &Key) -> Option<Found> {
        self.found(&self.bare, key)
    }
    fn load_cached(&mut self, key: &Key) -> Option<Found> {
        self.found(&self.store, key)
    }
    fn update(&mut self, key: &Key) -> bool {
        let mut visit = |record: &mut Record| {
            let visits: u64 = record.entries().get("visits").expect("it has one").get()?;
            record.insert("visits", &Value::new(&(visits + 1))?)?;
            Ok(Verdict::Write)
        };
        self.store.update(&self.token(key), &mut visit, self.how()).expect("an update").is_some()
    }
    fn create(&mut self, key: &Key, deadline: SystemTime) {
        let saved = self.store.create(&self.record(deadline), self.how()).expect("a session");
        self.tokens.write().insert(*key, saved.token);
    }
    fn delete(&mut self, key: &Key) -> bool {
        let token = self.token(key);
        self.tokens.write().remove(key);
        self.store.delete(&token).expect("a deletion")
    }
    fn sweep(&mut self) -> u64 {
        self.tokens.write().clear();
        let report = self.store.sweep(&SweepOptions::new().cpu_percent(100)).expect("a sweep");
        assert_eq!(report.failed, 0, "{report:?}");
        report.removed
    }
}
