//! The method of most file stores: a session is a file in one of 256 directories, written to a temporary file and
//! renamed into place. There is no lock per session, which threads of other processes would need, because most such
//! stores have none: of two concurrent updates one is lost, and an update can undo an end. Power-safe: `fsync` of the
//! file before it is renamed, and of its directory afterwards. A sweep reads every file, as Django's `clearsessions`
//! does.
use crate::peer::{Client, Peer, Setting};
use crate::workload::{Durability, Found, Key, Row, micros, text, usual_deadline};
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

pub(crate) struct Rename {
    setting: Setting,
}

impl Rename {
    pub(crate) fn open(setting: Setting) -> Self {
        for n in 0..256 {
            fs::create_dir(setting.dir.join(format!("{n:02x}"))).expect("a new directory");
        }
        Self { setting }
    }

    fn path(&self, key: &Key) -> PathBuf {
        let n = key[..4].iter().fold(0_usize, |number, byte| number * 31 + usize::from(*byte)) % 256;
        self.setting.dir.join(format!("{n:02x}")).join(text(key))
    }

    fn write(&self, key: &Key, row: &[u8], durability: Durability) {
        let path = self.path(key);
        let dir = path.parent().expect("it lies in one of the directories");
        let mut file = tempfile::NamedTempFile::new_in(dir).expect("a temporary file");
        file.write_all(row).expect("a write");
        if durability == Durability::PowerSafe {
            file.as_file().sync_all().expect("fsync");
        }
        let _ = file.persist(&path).expect("rename");
        if durability == Durability::PowerSafe {
            File::open(dir).and_then(|dir| dir.sync_all()).expect("fsync of the directory");
        }
    }
}

impl Peer for Rename {
    fn fill(&self, keys: &[Key]) {
        let row = Row::of(usual_deadline(), &self.setting.payload);
        for key in keys {
            self.write(key, &row, Durability::Relaxed);
        }
    }
    fn client(&self) -> Box<dyn Client + '_> {
        Box::new(self)
    }
    fn keeps_ends(&self) -> bool {
        false
    }
}

impl Client for &Rename {
    fn load(&mut self, key: &Key) -> Option<Found> {
        let row = fs::read(self.path(key)).ok()?;
        Some(Row::found(&row))
    }
    fn update(&mut self, key: &Key) -> bool {
        let Ok(mut row) = fs::read(self.path(key)) else { return false };
        Row::visit(&mut row);
        self.write(key, &row, self.setting.durability);
        true
    }
    fn create(&mut self, key: &Key, deadline: SystemTime) -> Key {
        self.write(key, &Row::of(deadline, &self.setting.payload), self.setting.durability);
        *key
    }
    fn delete(&mut self, key: &Key) -> bool {
        let path = self.path(key);
        let removed = fs::remove_file(&path).is_ok();
        if self.setting.is_power_safe() {
            let dir = path.parent().expect("it lies in one of the directories");
            File::open(dir).and_then(|dir| dir.sync_all()).expect("fsync of the directory");
        }
        removed
    }
    fn sweep(&mut self) -> u64 {
        let now = micros(SystemTime::now());
        let list = |dir: PathBuf| {
            fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path())
        };
        let mut removed = 0;
        for path in list(self.setting.dir.clone()).flat_map(list) {
            let row = fs::read(&path).expect("a file");
            if Row::deadline(&row) <= now {
                fs::remove_file(&path).expect("a file that was there");
                removed += 1;
            }
        }
        removed
    }
}
