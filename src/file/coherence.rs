//! The cached copies of sessions and their invalidation: the read cache, the generation counters and the watcher,
//! behind one interface.
//!
//! File operations do not use those three directly. They ask [`Coherence`] for a stamp before they open a file, give it
//! the version that they read or wrote, and invalidate the sessions that they changed. This module opens no session
//! file and takes no session's lock.
//!
//! This module stands below the operations: a writer caches its version while it holds the lock, and an operation that
//! finds the store emptied invalidates all copies before it goes on.
//!
//! | an operation that | calls |
//! |---|---|
//! | loads | [`find`](Coherence::find); then, if it must read the file, `stamp`, and `remember` or `forget` |
//! | takes a lock | `known`, which spares verifying that version again; and `stamp` |
//! | saves | `invalidate` and `remember`, under the lock |
//! | ends | `invalidate` and `forget` |
//!
//! The order of these calls is the caller's part; the rules are in [`design`](crate::_documentation::design).
use super::cut_offs::{Counter, CutOffs, View};
use super::disk::Root;
use super::generations::{Counters, Generations, Invalidated};
use super::layout::{CUT_OFFS, GENERATIONS_PATH, SHARDS, SessionPath};
use super::options::FileStoreOptions;
use super::read_cache::{Key, ReadCache, Trust};
use super::stats::{Stats, Tally};
#[cfg(feature = "watch")]
use super::watch::Watcher;
use crate::clock::{Clock, CoarseTime};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PublicId, SessionId};
use crate::record::Record;
use crate::sync::Instant;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

// Types of the interface.
pub(super) use super::cut_offs::CutOff;
pub(super) use super::generations::{Cause, Stamp};
pub(super) use super::read_cache::{Cached, Found, Fresh};

/// How long a copy is trusted without reading the file. The limit covers two cases that the counters miss: a writer
/// that was killed between its save and its invalidation, and a session that was removed outside the library while no
/// watcher runs. Reading the file takes a few microseconds, so a longer time would gain nothing.
const TRUST_MICROS: u64 = 60_000_000;

/// How many times an invalidation is repeated because the counters file was replaced, before it fails. Two backups are
/// not restored while one session is saved.
const FOLLOWINGS_MAX: u32 = 8;

/// The copies of one open store. Without a cache, no copy is found or kept; the copies of other processes are
/// invalidated all the same.
#[derive(Debug)]
pub(super) struct Coherence {
    root: Root,
    clock: Clock,
    generations: Arc<Generations>,
    cut_offs: CutOffs,
    cache: Option<ReadCache>,
    tally: Tally,
    #[cfg(feature = "watch")]
    watcher: Option<Result<Watcher>>,
}

/// The counter of cut-offs, if this process sees other processes move it.
fn counter(generations: &Generations) -> Option<Counter> {
    let counters = generations.counters();
    let value = counters.cut_offs()?;
    // The log that is read after this fence is not older than the move that the value shows.
    fence(Ordering::Acquire);
    Some(Counter { counters: counters.number(), value })
}

impl Coherence {
    /// Caches sessions if `cache_bytes` is more than 0; watches for changes outside the library if the option is on and
    /// there is a cache. `has_log` tells whether the store has a log of cut-offs, so that a missing one is a loss.
    /// On an error the log could not be read.
    pub(super) fn new(
        root: &Root,
        generations: Generations,
        options: &FileStoreOptions,
        has_log: bool,
    ) -> Result<Self> {
        let generations = Arc::new(generations);
        let cut_offs = CutOffs::new(root, &options.observer, has_log);
        // Read now, so that no operation waits for all of it; and before the watcher takes the last descriptors.
        cut_offs.refresh(|| counter(&generations))?;
        let cache =
            (options.cache_bytes > 0).then(|| ReadCache::new(options.cache_bytes, &generations.counters()));
        #[cfg(feature = "watch")]
        let watcher = (options.watch && cache.is_some()).then(|| Watcher::start(root, &generations));
        Ok(Self {
            root: root.clone(),
            clock: options.clock.clone(),
            generations,
            cut_offs,
            cache,
            tally: Tally::default(),
            #[cfg(feature = "watch")]
            watcher,
        })
    }

    /// Looks a session up for a load.
    pub(super) fn find(&self, session: &SessionId, now: CoarseTime) -> Found {
        let Some(cache) = &self.cache else { return Found::Nothing };
        if self.generations.is_due(now) {
            // On an error no copy is trusted.
            let _ = self.follow(now);
        }
        match cache.get(&Key::of(session), |copy, counters| self.trusts(copy, counters, now)) {
            Found::Unchecked(copy) => self.check(cache, session, copy, now),
            found => found,
        }
    }

    /// Holds a copy against the cut-offs since it was checked last.
    #[cold]
    fn check(&self, cache: &ReadCache, session: &SessionId, copy: Cached, now: CoarseTime) -> Found {
        // On an error, and if a cut-off has ended the session, the file is read.
        let Ok(view) = self.cut_off_view() else { return Found::Doubtful(copy) };
        if self.standing(&copy.record, &copy.id).is_none() {
            return Found::Doubtful(copy);
        }
        cache.mark_checked(&Key::of(session), &copy, view);
        match cache.get(&Key::of(session), |copy, counters| self.trusts(copy, counters, now)) {
            Found::Unchecked(copy) => Found::Doubtful(copy),
            found => found,
        }
    }

    /// Reads the log of cut-offs, if it has changed. Returns the view for a copy of the version that is read from a
    /// session's file after this call.
    ///
    /// # Errors
    ///
    /// The log could not be read.
    pub(super) fn cut_off_view(&self) -> Result<View> {
        self.cut_offs.refresh(|| counter(&self.generations))?;
        Ok(self.cut_offs.view())
    }

    /// The number of a cut-off that the session's next version carries; `None` if a cut-off has ended the session. As
    /// of the last [`cut_off_view`](Self::cut_off_view).
    pub(super) fn standing(&self, record: &Record, id: &PublicId) -> Option<u64> {
        self.cut_offs.standing(record, id)
    }

    /// Whether the file of a session may be removed because an entry of the log has ended the session.
    ///
    /// # Errors
    ///
    /// The log could not be read.
    pub(super) fn has_ended(&self, record: &Record, id: &PublicId) -> Result<bool> {
        self.cut_off_view()?;
        Ok(self.cut_offs.has_ended(record, id))
    }

    /// The number of the last cut-off, for a session that begins, or whose user logs in.
    ///
    /// # Errors
    ///
    /// The log could not be read; or it is lost, and the session has a user.
    pub(super) fn last_cut_off(&self, has_user: bool) -> Result<u64> {
        self.cut_off_view()?;
        self.cut_offs.last(has_user)
    }

    /// The number of the last cut-off of all sessions; 0 if there was none.
    ///
    /// # Errors
    ///
    /// The log could not be read.
    pub(super) fn last_cut_off_of_all(&self) -> Result<u64> {
        self.cut_off_view()?;
        Ok(self.cut_offs.last_of_all())
    }

    /// The number of the last cut-off that is not later than an imported session's login.
    ///
    /// # Errors
    ///
    /// Those of [`last_cut_off`](Self::last_cut_off).
    pub(super) fn cut_off_at_login(&self, record: &Record) -> Result<u64> {
        self.cut_off_view()?;
        self.cut_offs.number_at_login(record)
    }

    /// Writes a cut-off. When this returns, every process knows it.
    ///
    /// # Errors
    ///
    /// Those of [`CutOffs::append`]. [`ErrorKind::InvalidationFailed`] if the entry was written, and other processes
    /// may not know it for a second.
    pub(super) fn cut_off(&self, cut_off: &CutOff<'_>, deadline: Instant) -> Result<()> {
        self.cut_offs.append(cut_off, deadline, || self.move_cut_offs())
    }

    fn move_cut_offs(&self) -> Result<()> {
        self.until_current(|| self.generations.move_cut_offs()).map(drop).map_err(|error| {
            Error::new(ErrorKind::InvalidationFailed, "make a cut-off known")
                .with_path(self.root.path().join(CUT_OFFS))
                .with_reason("the sessions were ended; other processes may serve them for a second")
                .with_source(self.root.error_at("write to", GENERATIONS_PATH, error))
        })
    }

    /// The copy of a session, fresh or stale, for an operation that is about to read its file under the lock.
    pub(super) fn known(&self, session: &SessionId) -> Option<Cached> {
        self.cache.as_ref()?.peek(&Key::of(session))
    }

    /// The stamp for a copy of the version in a session file. It must be taken before the file is opened.
    pub(super) fn stamp(&self, id: &PublicId) -> Stamp {
        self.generations.stamp(id)
    }

    /// Counts a load that read a session file, and whether the cache had a copy.
    pub(super) fn count_read(&self, had_copy: bool) {
        self.tally.count_read(had_copy);
    }

    /// The counts of the cache and of the loads; those of the cache only if `with_cache`, because they need its locks.
    pub(super) fn stats(&self, with_cache: bool) -> Stats {
        self.tally.stats(self.cache.as_ref().filter(|_| with_cache))
    }

    /// Why the watcher could not start.
    #[cfg(feature = "watch")]
    pub(super) fn watch_error(&self) -> Option<&Error> {
        self.watcher.as_ref()?.as_ref().err()
    }

    /// Whether a copy may be returned: not invalidated, read less than a minute ago, not expired, not ended by a
    /// cut-off; see [`design`](crate::_documentation::design).
    #[inline]
    fn trusts(&self, copy: &Cached, counters: &Counters, now: CoarseTime) -> Trust {
        let is_newest = copy.is_of_counters()
            && counters.confirm(&copy.id, copy.stamp(counters.number()))
            // A copy whose time lies in the future, because the clock was set back, is not trusted either.
            && now.micros().wrapping_sub(copy.read_at) < TRUST_MICROS
            && (now.certainly_before(copy.deadline) || self.clock.now_micros() < copy.deadline);
        if !is_newest {
            Trust::No
        } else if counters.cut_offs().is_some_and(|value| self.cut_offs.is_current(value, copy.view())) {
            Trust::Yes
        } else {
            Trust::Unchecked
        }
    }

    /// [`trusts`](Self::trusts) for an operation that has not read the clock: only where a newer version is found.
    #[cold]
    fn trusts_now(&self, copy: &Cached, counters: &Counters) -> Trust {
        self.trusts(copy, counters, self.clock.now_coarse())
    }

    /// Keeps a copy of a version for later loads.
    pub(super) fn remember(&self, session: &SessionId, copy: Fresh) {
        if let Some(cache) = &self.cache {
            cache.put(&Key::of(session), copy, |there, counters| self.trusts_now(there, counters));
        }
    }

    /// Drops the copy of a session.
    pub(super) fn forget(&self, session: &SessionId) {
        if let Some(cache) = &self.cache {
            cache.forget(&Key::of(session));
        }
    }

    /// Invalidates the session `id` in the caches of all processes, and returns the new value of its counter `saves`
    /// (see [`generations`](super::generations)). `own` is the secret id of the same session, if the caller has it: if
    /// the invalidation fails, this process drops its own copy, which is as stale as those of other processes.
    pub(super) fn invalidate(&self, id: &PublicId, own: Option<&SessionId>, cause: Cause) -> Result<u64> {
        self.until_current(|| self.generations.invalidate(id, cause)).map_err(|error| {
            own.inspect(|session| self.forget(session));
            Error::new(ErrorKind::InvalidationFailed, "invalidate the copies of session file")
                .with_path(self.root.path().join(SessionPath::of(id).as_str()))
                .with_reason("what was done is done; other processes may serve what was before for a minute")
                .with_source(self.root.error_at("write to", GENERATIONS_PATH, error))
        })
    }

    /// Writes to the counters file that has the name now. Returns the new value.
    fn until_current(&self, write: impl Fn() -> io::Result<Invalidated>) -> io::Result<u64> {
        for _ in 0..FOLLOWINGS_MAX {
            let invalidated = write()?;
            let now = self.clock.now_coarse();
            let is_current = invalidated.is_current && !self.generations.is_due(now);
            if is_current || self.follow(now)? == invalidated.counters {
                return Ok(invalidated.saves);
            }
        }
        Err(io::Error::other("the counters were replaced again and again"))
    }

    /// Takes up the counters file that has the name now, if it is another one. Returns the number of the current
    /// counters.
    #[cold]
    fn follow(&self, now: CoarseTime) -> io::Result<u64> {
        let followed = self.generations.follow(now, |counters| {
            if let Some(cache) = &self.cache {
                cache.set_counters(counters);
            }
        });
        // An entry whose writer was killed before it moved the counter, and a log that was removed or replaced.
        self.cut_offs.look();
        #[cfg(feature = "watch")]
        if let Some(Ok(watcher)) = &self.watcher {
            watcher.watch_again(&self.generations);
        }
        followed
    }

    /// Invalidates the copies of all sessions, in all processes.
    pub(super) fn invalidate_all(&self) -> io::Result<()> {
        self.follow(self.clock.now_coarse())?;
        (0..SHARDS).try_for_each(|shard| self.generations.invalidate_shard(shard).map(drop))?;
        self.generations.move_cut_offs().map(drop)
    }

    /// Takes up a log of cut-offs that was changed outside the library, as each process does once a second.
    #[cfg(any(all(test, not(shuttle)), sessile_fuzzing))]
    pub(super) fn look_at_cut_offs(&self) {
        self.cut_offs.look();
    }

    /// Takes up the counters file that has the name, as each process does once a second.
    #[cfg(all(test, not(shuttle)))]
    pub(super) fn follow_now(&self) {
        self.follow(self.clock.now_coarse()).expect("there is one");
    }

    /// The cache, for tests that hold one of its locks or examine its entries.
    #[cfg(test)]
    pub(super) fn cache(&self) -> &ReadCache {
        self.cache.as_ref().expect("the store keeps copies")
    }

    /// The generations, for tests that break an order of calls.
    #[cfg(all(test, shuttle))]
    pub(super) fn generations(&self) -> &Generations {
        &self.generations
    }
}
