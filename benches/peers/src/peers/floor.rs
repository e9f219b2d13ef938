//! The fewest system calls that could do an operation, on a directory of files like sessile's; for sessions
//! in memory, a bare look-up in a map behind a lock.
//!
//! load: `openat`, `pread`, `close`. update: `openat`, `pread`, `pwrite`, `close`. create: `openat` with
//! creation, `pwrite`, `close`. delete: `unlinkat`. sweep: `unlinkat` for each session. Power-safe:
//! `fdatasync` of the written file, `fsync` of its directory when a name is added or removed, except for
//! sweeps, which do not sync. Nothing is verified or locked, and no other process is notified.
use crate::peer::{Client, Peer, Setting};
use crate::workload::{Found, Key, Operation, Row, micros, text, usual_deadline};
use hashlink::LruCache;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fdatasync, fsync, openat, unlinkat};
use rustix::io::{pread, pwrite};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The same number as in sessile.
const SHARDS: usize = 256;
const PARTS: usize = 32;

pub(crate) struct Floor {
    setting: Setting,
    shards: Vec<OwnedFd>,
    memory: [Mutex<LruCache<Key, Arc<Vec<u8>>>>; PARTS],
    /// Sessions to be swept: a floor needs no index.
    due: Mutex<Vec<(u64, Key)>>,
}

impl Floor {
    pub(crate) fn open(setting: Setting) -> Self {
        let shard = |n: usize| {
            let path = setting.dir.join(format!("{n:02x}"));
            std::fs::create_dir(&path).expect("a new directory");
            openat(CWD, &path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("a directory")
        };
        let shards = (0..SHARDS).map(shard).collect();
        let memory = std::array::from_fn(|_| Mutex::new(LruCache::new_unbounded()));
        Self { setting, shards, memory, due: Mutex::default() }
    }

    fn shard(&self, key: &Key) -> &OwnedFd {
        &self.shards[number(key) % SHARDS]
    }

    fn part(&self, key: &Key) -> &Mutex<LruCache<Key, Arc<Vec<u8>>>> {
        &self.memory[number(key) % PARTS]
    }

    fn open_file(&self, key: &Key, flags: OFlags) -> Option<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOATIME;
        openat(self.shard(key), text(key), flags, Mode::RUSR | Mode::WUSR).ok()
    }

    /// Reads a file onto the stack, and passes its content to `then`.
    fn read<R>(file: &OwnedFd, then: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut buffer = [0; 8192];
        let length = pread(file, &mut buffer, 0).expect("pread");
        then(&mut buffer[..length])
    }

    fn make(&self, key: &Key, deadline: SystemTime, power_safe: bool) {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = self.open_file(key, flags).expect("a new file");
        pwrite(&file, &Row::of(deadline, &self.setting.payload), 0).expect("pwrite");
        if power_safe {
            fdatasync(&file).expect("fdatasync");
            fsync(self.shard(key)).expect("fsync");
        }
    }
}

/// Some bits of an id.
fn number(key: &Key) -> usize {
    key[..4].iter().fold(0, |number, byte| number * 31 + usize::from(*byte))
}

impl Peer for Floor {
    fn fill(&self, keys: &[Key]) {
        for key in keys {
            self.make(key, usual_deadline(), false);
            let row = Row::of(usual_deadline(), &self.setting.payload);
            self.part(key).lock().insert(*key, Arc::new(row));
        }
    }
    fn client(&self) -> Box<dyn Client + '_> {
        Box::new(self)
    }
    /// A floor of the mix would need a cache that is told of ends and updates: there is no system call for that.
    fn does(&self, operation: Operation) -> bool {
        operation != Operation::Mix
    }
}

impl Client for &Floor {
    fn load(&mut self, key: &Key) -> Option<Found> {
        let file = self.open_file(key, OFlags::RDONLY)?;
        Some(Floor::read(&file, |row| Row::found(row)))
    }
    fn load_cached(&mut self, key: &Key) -> Option<Found> {
        let row = self.part(key).lock().get(key).cloned()?;
        Some(Row::found(&row))
    }
    fn update(&mut self, key: &Key) -> bool {
        let Some(file) = self.open_file(key, OFlags::RDWR) else { return false };
        Floor::read(&file, |row| {
            Row::visit(row);
            pwrite(&file, row, 0).expect("pwrite");
        });
        if self.setting.is_power_safe() {
            fdatasync(&file).expect("fdatasync");
        }
        true
    }
    fn create(&mut self, key: &Key, deadline: SystemTime) -> Key {
        self.make(key, deadline, self.setting.is_power_safe());
        if deadline < SystemTime::now() + Duration::from_secs(60) {
            self.due.lock().push((micros(deadline), *key));
        }
        *key
    }
    fn delete(&mut self, key: &Key) -> bool {
        let removed = unlinkat(self.shard(key), text(key), AtFlags::empty()).is_ok();
        if self.setting.is_power_safe() {
            fsync(self.shard(key)).expect("fsync");
        }
        removed
    }
    fn sweep(&mut self) -> u64 {
        let now = micros(SystemTime::now());
        let mut due = std::mem::take(&mut *self.due.lock());
        // Directory by directory.
        due.sort_unstable_by_key(|(_, key)| number(key) % SHARDS);
        let mut removed = 0;
        for (deadline, key) in due {
            if deadline <= now {
                removed += u64::from(unlinkat(self.shard(&key), text(&key), AtFlags::empty()).is_ok());
            } else {
                self.due.lock().push((deadline, key));
            }
        }
        removed
    }
}
