//! This crate, with a cache for all sessions, a whole core for its sweeps, and, when relaxed, deletions
//! without a sync; or with its defaults. `load` uses a store without a cache on the same directory.
use crate::peer::{Client, Peer, Setting};
use crate::workload::{Durability, Found, Key, Operation, text, usual_deadline};
use sessile::admin::SweepOptions;
use sessile::{Admin, FileStore, FileStoreOptions, Lookup, PublicId, Record, Store, Token, Value, Verdict};
use std::thread;
use std::time::SystemTime;

pub(crate) struct Sessile {
    setting: Setting,
    store: FileStore,
    /// The same without a cache.
    bare: FileStore,
}

impl Sessile {
    pub(crate) fn open(setting: Setting) -> Self {
        // Room for all sessions.
        let options = FileStoreOptions::new().cache_bytes(usize::MAX);
        let options = match setting.durability {
            Durability::Relaxed => {
                options.durability(sessile::Durability::Relaxed).sync_security_events(false)
            }
            Durability::PowerSafe => options.durability(sessile::Durability::PowerSafe),
            Durability::Defaults => FileStoreOptions::new(),
        };
        let store = options.clone().open(&setting.dir).expect("a store");
        let bare = options.cache_bytes(0).open(&setting.dir).expect("the same store");
        Self { setting, store, bare }
    }

    /// The store with a cache.
    pub(crate) fn store(&self) -> &FileStore {
        &self.store
    }

    fn record(&self, deadline: SystemTime) -> Record {
        let mut record = Record::new(SystemTime::now(), deadline);
        record.insert("visits", &Value::new(&0_u64).expect("a value")).expect("it fits");
        record.insert("payload", &Value::new(&self.setting.payload).expect("a value")).expect("it fits");
        record
    }
}

fn found(store: &FileStore, key: &Key) -> Option<Found> {
    let Lookup::Live(live) = store.load(&token(key)).expect("a look") else { return None };
    let visits = live.record.entries().get("visits").expect("it has one").get().expect("a number");
    Some(Found { visits, bytes: live.record.entries().get("payload").expect("it has one").as_bytes().len() })
}

/// The durability of the options above.
const OF_STORE: sessile::Durability = sessile::Durability::OfStore;

/// The token of an id, as a server parses it from each request's cookie.
pub(crate) fn token(key: &Key) -> Token {
    Token::parse(text(key)).expect("an id")
}

impl Peer for Sessile {
    fn fill(&self, keys: &[Key]) {
        let record = self.record(usual_deadline());
        // At the durability of the measurement: the first power-safe save after a relaxed one has to sync
        // more.
        let fill = &|keys: &[Key]| {
            for key in keys {
                let made = self.bare.import(&PublicId::digest(key), &record, OF_STORE);
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
    fn does(&self, _: Operation) -> bool {
        true
    }
}

impl Client for &Sessile {
    fn load(&mut self, key: &Key) -> Option<Found> {
        found(&self.bare, key)
    }
    fn load_cached(&mut self, key: &Key) -> Option<Found> {
        found(&self.store, key)
    }
    fn update(&mut self, key: &Key) -> bool {
        let mut visit = |record: &mut Record| {
            let visits: u64 = record.entries().get("visits").expect("it has one").get()?;
            record.insert("visits", &Value::new(&(visits + 1))?)?;
            Ok(Verdict::Write)
        };
        self.store.update(&token(key), &mut visit, OF_STORE).expect("an update").is_some()
    }
    fn create(&mut self, _: &Key, deadline: SystemTime) -> Key {
        let saved = self.store.create(&self.record(deadline), OF_STORE).expect("a session");
        saved.token.expose().as_bytes().try_into().expect("an id of 32 characters")
    }
    fn delete(&mut self, key: &Key) -> bool {
        self.store.delete(&token(key)).expect("a deletion").is_some()
    }
    fn sweep(&mut self) -> u64 {
        let report = self.store.sweep(&SweepOptions::new().cpu_percent(100)).expect("a sweep");
        assert_eq!(report.failed, 0, "{report:?}");
        report.removed
    }
}
