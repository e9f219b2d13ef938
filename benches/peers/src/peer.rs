//! The operations that a session store must support to be compared.
use crate::workload::{Durability, Found, Key, Operation};
use std::path::PathBuf;
use std::time::SystemTime;

/// A session store, opened in its own directory. Threads share it.
pub(crate) trait Peer: Sync {
    /// Creates sessions as fast as it can; this is not measured.
    fn fill(&self, keys: &[Key]);

    /// The client of one thread: its own connection, where connections are per thread.
    fn client(&self) -> Box<dyn Client + '_>;

    /// Whether it supports this operation.
    fn does(&self, operation: Operation) -> bool {
        operation != Operation::LoadCached
    }

    /// Whether an ended session stays ended: without a lock or a transaction, an update that began before the
    /// end writes the session again.
    fn keeps_ends(&self) -> bool {
        true
    }

    /// Releases disk space that it holds temporarily, where it has a command for that.
    fn settle(&self) {}

    /// Memory of its server in bytes, if it has one.
    fn server_memory(&self) -> Option<u64> {
        None
    }
}

/// One thread's view of a peer. Every failure is a panic, because the measurement is void then.
pub(crate) trait Client {
    /// `None` if the session does not exist or has expired.
    fn load(&mut self, key: &Key) -> Option<Found>;

    /// The same from the program's own memory.
    fn load_cached(&mut self, key: &Key) -> Option<Found> {
        self.load(key)
    }

    /// Counts a visit. Returns whether the session existed.
    fn update(&mut self, key: &Key) -> bool;

    /// Returns the id of the session: another one than `key` where the store draws ids itself.
    fn create(&mut self, key: &Key, deadline: SystemTime) -> Key;

    /// Returns whether the session existed.
    fn delete(&mut self, key: &Key) -> bool;

    /// Removes expired sessions and returns their number.
    fn sweep(&mut self) -> u64;
}

/// Options with which a peer is opened.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// An empty directory.
    pub(crate) dir: PathBuf,
    pub(crate) durability: Durability,
    /// Content of each session except the visit counter.
    pub(crate) payload: String,
}

impl Setting {
    pub(crate) fn is_power_safe(&self) -> bool {
        self.durability == Durability::PowerSafe
    }
}
