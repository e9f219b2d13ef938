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
//! | takes a lock | `peek_copy`, which spares verifying that version again; and `stamp` |
//! | saves | `invalidate` and `remember`, under the lock |
//! | ends | `invalidate` and `forget` |
//!
//! The order of these calls is the caller's part; the rules are in [`design`](crate::_documentation::design).
use super::cut_offs::{Counter, CutOffs};
use super::disk::Root;
use super::generations::{Counters, Generations, Invalidated};
use super::layout::{CUT_OFFS, GENERATIONS_PATH, SHARDS, SessionPath};
use super::options::FileStoreOptions;
use super::read_cache::{Key, ReadCache, Trust};
use super::stats::LoadTally;
#[cfg(feature = "watch")]
use super::watch::Watcher;
use crate::admin::Stats;
use crate::clock::{Clock, CoarseTime};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PublicId, SessionId};
use crate::record::Record;
use crate::sync::Instant;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

// Types of this module's interface that other modules define.
pub(super) use super::cut_offs::{CutOff, View};
pub(super) use super::generations::{Cause, Stamp};
pub(super) use super::read_cache::{Cached, Found, Fresh};

/// How long a copy is returned without reading the session file again. The limit covers two cases that the counters
/// miss: a writer that was killed between its save and its invalidation, and a session that was removed outside the
/// library while no watcher runs. Reading the file takes a few microseconds, so a longer time would gain nothing.
const TRUST_MICROS: u64 = 60_000_000;

/// How often one invalidation is written, at most. It is repeated if the generations file was replaced meanwhile, as by
/// the restoration of a backup. No backup is restored eight times during one save, so after that the invalidation
/// fails.
const INVALIDATIONS_MAX: u32 = 8;

/// The cache of one open store, and the invalidation of the caches of all processes. A store without a cache finds and
/// keeps no copy, but invalidates the copies of other processes.
#[derive(Debug)]
pub(super) struct Coherence {
    root: Root,
    clock: Clock,
    generations: Arc<Generations>,
    cut_offs: CutOffs,
    cache: Option<ReadCache>,
    tally: LoadTally,
    #[cfg(feature = "watch")]
    watcher: Option<Result<Watcher>>,
}

/// The number of the counters and the value of the counter of cut-offs; `None` if this process cannot see other
/// processes change that counter.
fn counter(generations: &Generations) -> Option<Counter> {
    let counters = generations.counters();
    let value = counters.cut_offs()?;
    // After this fence, a read of the log of cut-offs sees at least the entry whose counter value was read.
    fence(Ordering::Acquire);
    Some(Counter { counters: counters.number(), value })
}

impl Coherence {
    /// Caches sessions if `cache_bytes` is more than 0. Watches for changes outside the library if that option is on
    /// and there is a cache. `has_log` tells whether the store has had a log of cut-offs, so that a missing one is a
    /// loss.
    ///
    /// # Errors
    ///
    /// The log of cut-offs could not be read.
    pub(super) fn new(
        root: &Root,
        generations: Generations,
        options: &FileStoreOptions,
        has_log: bool,
    ) -> Result<Self> {
        let generations = Arc::new(generations);
        let cut_offs = CutOffs::new(root, &options.observer, has_log);
        // The log is read now, so that no operation waits for the reading of a long log; and before the watcher opens
        // descriptors, which may be the last ones.
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
            tally: LoadTally::default(),
            #[cfg(feature = "watch")]
            watcher,
        })
    }

    /// Looks a session up in the cache, for a load.
    pub(super) fn find(&self, session: &SessionId, now: CoarseTime) -> Found {
        let Some(cache) = &self.cache else { return Found::Nothing };
        if self.generations.is_check_due(now) {
            // An error is ignored: after it no copy counts as fresh, so the load reads the file.
            let _ = self.check_shared_files(now);
        }
        cache.get(&Key::of(session), |copy, counters| self.trusts(copy, counters, now))
    }

    /// Compares a copy with the cut-offs that were written since it was last compared, and looks it up again.
    #[cold]
    pub(super) fn check(&self, session: &SessionId, copy: Cached, now: CoarseTime) -> Found {
        let Some(cache) = &self.cache else { return Found::Unverified(copy) };
        // If the log cannot be read, or a cut-off has ended the session, the load reads the session file.
        let Ok(view) = self.cut_off_view() else { return Found::Unverified(copy) };
        if self.standing(&copy.record, &copy.id).is_none() {
            return Found::Unverified(copy);
        }
        cache.mark_checked(&Key::of(session), &copy, view);
        match cache.get(&Key::of(session), |copy, counters| self.trusts(copy, counters, now)) {
            Found::CutOffsUnchecked(copy) => Found::Unverified(copy),
            found => found,
        }
    }

    /// Reads the log of cut-offs, if it has changed. Returns a number for the state of the log that was read, the view.
    /// It is stored with a copy of a session that is read from its file after this call.
    ///
    /// # Errors
    ///
    /// The log could not be read.
    pub(super) fn cut_off_view(&self) -> Result<View> {
        self.cut_offs.refresh(|| counter(&self.generations))
    }

    /// The cut-off number that the next version of the session must carry; `None` if a cut-off has ended the session.
    /// Uses the log as the last [`cut_off_view`](Self::cut_off_view) has read it.
    pub(super) fn standing(&self, record: &Record, id: &PublicId) -> Option<u64> {
        self.cut_offs.standing(record, id)
    }

    /// The counters by which a poll sees that a session may have ended; `None` if this process cannot see other
    /// processes change them. Checks the files that all processes share, if that is due: a process that only waits
    /// makes no other call.
    pub(super) fn end_counters(&self) -> Option<Arc<Counters>> {
        let now = self.clock.now_coarse();
        if self.generations.is_check_due(now) {
            // After an error, the counters are in no mapped file, so the poll reads every session file.
            let _ = self.check_shared_files(now);
        }
        let counters = self.generations.counters();
        counters.cut_offs().is_some().then_some(counters)
    }

    /// Whether no cut-off has ended a session that carried this number and had this user when its file was read last.
    /// Uses the log as the last [`cut_off_view`](Self::cut_off_view) has read it.
    pub(super) fn stands(&self, cut_off: u64, user: Option<[u8; 16]>, id: &PublicId) -> bool {
        self.cut_offs.stands(cut_off, user, id)
    }

    /// Whether an entry of the log of cut-offs has ended the session, so that its file may be removed.
    ///
    /// # Errors
    ///
    /// The log could not be read.
    pub(super) fn has_ended(&self, record: &Record, id: &PublicId) -> Result<bool> {
        self.cut_off_view()?;
        Ok(self.cut_offs.has_ended(record, id))
    }

    /// The number of the last cut-off. A session that is created, or whose user logs in, carries it, so that earlier
    /// cut-offs do not end it.
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

    /// Appends a cut-off to the log, and makes all processes read it before they return another session.
    ///
    /// # Errors
    ///
    /// Those of [`CutOffs::append`]. [`ErrorKind::InvalidationFailed`] if the entry was written, and other processes
    /// may not notice it for a second.
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

    /// The cached copy of a session, fresh or stale, for an operation that is about to read the session file under its
    /// lock. If the file still has that version, it need not be verified again.
    pub(super) fn peek_copy(&self, session: &SessionId) -> Option<Cached> {
        self.cache.as_ref()?.peek(&Key::of(session))
    }

    /// The stamp for a copy that is read from the session file. It must be taken before the file is opened, so that a
    /// later change of the file makes it differ from the cell.
    pub(super) fn stamp(&self, id: &PublicId) -> Stamp {
        self.generations.stamp(id)
    }

    /// Counts a load that had to read the session file. `had_copy` tells whether the cache had a copy that was not
    /// fresh.
    pub(super) fn count_read(&self, had_copy: bool) {
        self.tally.count_read(had_copy);
    }

    /// The counts of loads and of the cache. The counts of the cache need its locks, and are left out unless
    /// `with_cache`.
    pub(super) fn stats(&self, with_cache: bool) -> Stats {
        self.tally.stats(self.cache.as_ref().filter(|_| with_cache))
    }

    /// Why the watcher could not start.
    #[cfg(feature = "watch")]
    pub(super) fn watch_error(&self) -> Option<&Error> {
        self.watcher.as_ref()?.as_ref().err()
    }

    /// Whether a copy may be returned: it was not invalidated, was read less than a minute ago, has not expired, and
    /// was not ended by a cut-off. [`design`](crate::_documentation::design) explains why such a copy is not stale.
    #[inline]
    fn trusts(&self, copy: &Cached, counters: &Counters, now: CoarseTime) -> Trust {
        let is_usable = copy.is_of_counters()
            // If the clock was set back, `read_at` may be in the future. The difference then wraps around to a large
            // number, and the copy is not returned.
            && now.micros().wrapping_sub(copy.read_at) < TRUST_MICROS
            && (now.certainly_before(copy.deadline) || self.clock.now_micros() < copy.deadline);
        if !is_usable {
            return Trust::No;
        }
        match counters.confirm(&copy.id, copy.stamp(counters.number())) {
            Some(cut_offs) if self.cut_offs.is_current(cut_offs, copy.view()) => Trust::Yes,
            Some(_) => Trust::CutOffsUnchecked,
            None => Trust::No,
        }
    }

    /// The same as [`trusts`](Self::trusts), with the current time. It is called only if the cache has a newer version
    /// than the caller.
    #[cold]
    fn trusts_now(&self, copy: &Cached, counters: &Counters) -> Trust {
        self.trusts(copy, counters, self.clock.now_coarse())
    }

    /// Puts a copy into the cache.
    pub(super) fn remember(&self, session: &SessionId, copy: Fresh) {
        if let Some(cache) = &self.cache {
            cache.put(&Key::of(session), copy, |there, counters| self.trusts_now(there, counters));
        }
    }

    /// Removes the copy of a session from the cache of this process.
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

    /// Calls `write` until it has written to the generations file that has the name now. Returns the value that was
    /// written.
    fn until_current(&self, write: impl Fn() -> io::Result<Invalidated>) -> io::Result<u64> {
        for _ in 0..INVALIDATIONS_MAX {
            let invalidated = write()?;
            let now = self.clock.now_coarse();
            let is_current = invalidated.is_current && !self.generations.is_check_due(now);
            if is_current || self.check_shared_files(now)? == invalidated.counters {
                return Ok(invalidated.saves);
            }
        }
        Err(io::Error::other("the counters were replaced again and again"))
    }

    /// Checks, once a second, the files that all processes share: switches to the generations file that has the name
    /// now, looks whether the log of cut-offs has changed, and watches directories that were replaced. Returns the
    /// number of the current counters.
    #[cold]
    fn check_shared_files(&self, now: CoarseTime) -> io::Result<u64> {
        let checked = self.generations.reopen_if_replaced(now, |counters| {
            if let Some(cache) = &self.cache {
                cache.set_counters(counters);
            }
        });
        // Finds an entry whose writer was killed before it changed the counter, and a log that was removed or replaced.
        self.cut_offs.look();
        #[cfg(feature = "watch")]
        if let Some(Ok(watcher)) = &self.watcher {
            watcher.watch_again(&self.generations);
        }
        checked
    }

    /// Invalidates the copies of all sessions, in all processes.
    pub(super) fn invalidate_all(&self) -> io::Result<()> {
        self.check_shared_files(self.clock.now_coarse())?;
        (0..SHARDS).try_for_each(|shard| self.generations.invalidate_shard(shard).map(drop))?;
        self.generations.move_cut_offs().map(drop)
    }

    /// Looks whether the log of cut-offs was changed outside the library, as each process does once a second.
    #[cfg(any(all(test, not(shuttle)), sessile_fuzzing))]
    pub(super) fn look_at_cut_offs(&self) {
        self.cut_offs.look();
    }

    /// Checks the shared files at once, as each process does once a second.
    #[cfg(all(test, not(shuttle)))]
    pub(super) fn check_shared_files_now(&self) {
        self.check_shared_files(self.clock.now_coarse()).expect("there is one");
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
