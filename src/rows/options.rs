//! The options of a store on a server: unit, bounds, default and cost.
use super::{RowStore, Rows};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::store::Durability;
use std::time::Duration;

/// The shortest and the longest time limit of a call.
const WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// Options for opening a [`RowStore`].
///
/// ```
/// use sessile::rows::{MemoryRows, RowStoreOptions};
/// use std::time::Duration;
/// let rows = MemoryRows::new(sessile::Clock::system());
/// let store = RowStoreOptions::new().wait(Duration::from_secs(2)).open(rows)?;
/// # Ok::<(), sessile::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RowStoreOptions {
    pub(super) durability: Durability,
    pub(crate) wait: Duration,
    pub(super) record_bytes_max: usize,
    pub(super) entries_max: usize,
    pub(super) known_bytes: usize,
    pub(super) observer: Observer,
}

impl Default for RowStoreOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Relaxed,
            wait: Duration::from_secs(5),
            record_bytes_max: 1 << 20,
            entries_max: 1024,
            known_bytes: 8 << 20,
            observer: Observer::default(),
        }
    }
}

impl RowStoreOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The durability of saves that do not name one; default [`Durability::Relaxed`]. The back end says what it means
    /// there.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The longest time that one call takes, with all retries; default 5 s, 0.1 to 60 s. After it the call fails with
    /// [`ErrorKind::Busy`], [`ErrorKind::Unavailable`] or [`ErrorKind::Unanswered`].
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The largest record in bytes; default 1 MiB, at most [`BYTES_MAX`](crate::record::BYTES_MAX). A record that is
    /// larger already may be saved if it does not grow. User and device note do not count.
    #[must_use]
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// The most entries of a session; default 1024. A session that has more already may be saved if none is added.
    #[must_use]
    pub fn entries_max(mut self, entries: usize) -> Self {
        self.entries_max = entries;
        self
    }

    /// The memory for rows that this process has seen last, in bytes; default 8 MiB. An update of such a row takes one
    /// round trip, of another two. No load is answered from it.
    #[must_use]
    pub fn known_bytes(mut self, bytes: usize) -> Self {
        self.known_bytes = bytes;
        self
    }

    /// Calls `observer` for the [ends](Event::Ended) of sessions that no request has asked for: those that this
    /// process's sweeps remove, and that operators end. It runs on the thread that caused the event, without a lock;
    /// while it runs in a sweep, the sweep waits. A panic in it is contained. With an observer, the server sends the
    /// sessions that a sweep removes.
    ///
    /// Events of requests go to the observer of [`Sessions`](crate::Sessions::with_observer), which may be the same
    /// function.
    ///
    /// ```
    /// use sessile::rows::{MemoryRows, RowStoreOptions};
    /// let rows = MemoryRows::new(sessile::Clock::system());
    /// let store = RowStoreOptions::new().observer(|event| println!("{event:?}")).open(rows)?;
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn observer(self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.observed_by(Observer::new(observer))
    }

    pub(crate) fn observed_by(mut self, observer: Observer) -> Self {
        self.observer = observer;
        self
    }

    /// Opens a store on a back end.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if an option is out of its bounds.
    pub fn open<R: Rows>(self, rows: R) -> Result<RowStore<R>> {
        self.check()?;
        Ok(RowStore::with_options(rows, self))
    }

    /// Refuses options that are out of their bounds.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::new(ErrorKind::Config, "open a store").with_reason(reason));
        if self.wait < WAIT.0 || self.wait > WAIT.1 {
            return refuse(format!(
                "the time limit is {:?}, and must be {:?} to {:?}",
                self.wait, WAIT.0, WAIT.1
            ));
        }
        if self.record_bytes_max > crate::record::BYTES_MAX {
            let (asked, most) = (self.record_bytes_max, crate::record::BYTES_MAX);
            return refuse(format!("the largest record has {asked} bytes, and must have at most {most}"));
        }
        Ok(())
    }

    /// The longest time that one call takes.
    #[cfg(feature = "sqlite")]
    pub(crate) fn longest_wait(&self) -> Duration {
        self.wait
    }
}
