//! What a way to keep sessions must be able to do to be compared.
use crate::workload::{Act, Durability, Found, Key};
use std::path::PathBuf;
use std::time::SystemTime;

/// One way to keep sessions, opened, in a directory of its own. Threads share it.
pub(crate) trait Peer: Sync {
    /// Makes sessions as fast as it can; nobody measures that.
    fn fill(&self, keys: &[Key]);

    /// What one thread works with: a connection of its own, where connections are a thread's.
    fn client(&self) -> Box<dyn Client + '_>;

    /// Whether it does this act in a way of its own.
    fn does(&self, act: Act) -> bool {
        act != Act::LoadCached
    }

    /// Gives back what it holds on the disk for a moment only, where it can be told to.
    fn settle(&self) {}

    /// How much memory its server takes, if it has one.
    fn server_memory(&self) -> Option<u64> {
        None
    }
}

/// One thread's view of a peer. Whatever fails is a panic: there is nothing to measure then.
pub(crate) trait Client {
    /// `None` if there is no such session, or it has expired.
    fn load(&mut self, key: &Key) -> Option<Found>;

    /// The same from the program's own memory.
    fn load_cached(&mut self, key: &Key) -> Option<Found> {
        self.load(key)
    }

    /// Counts a visit. Whether there was a session to count it in.
    fn update(&mut self, key: &Key) -> bool;

    fn create(&mut self, key: &Key, deadline: SystemTime);

    /// Whether there was one.
    fn delete(&mut self, key: &Key) -> bool;

    /// Removes what has expired; how many that were.
    fn sweep(&mut self) -> u64;
}

/// How a peer is opened.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// An empty directory.
    pub(crate) dir: PathBuf,
    pub(crate) durability: Durability,
    /// What each session holds but the count of its visits.
    pub(crate) payload: String,
}

impl Setting {
    pub(crate) fn is_power_safe(&self) -> bool {
        self.durability == Durability::PowerSafe
    }
}
