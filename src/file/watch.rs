//! Watches for changes outside the library: if another program removes or replaces a session file, the cached copies of
//! the session are invalidated.
//!
//! One thread, that of the crate `notify`, gets an event from the kernel for each name that appears or disappears in
//! the 256 shard directories, and turns events into invalidations (see `generations`). Events for opening a file, and
//! for writing into one, are not requested, because they would cost every load and every save. A write *into* a session
//! file outside the library is therefore not noticed.
//!
//! If a session's name is removed, or is the source or target of a rename, the session is invalidated. A created name
//! invalidates nothing, because a session that did not exist has no copy. The library's own operations invalidate by
//! themselves. Some of them also cause events, and so a second invalidation. That is harmless: it costs 0.5 µs, and one
//! more read of the file by the next load.
//!
//! | operation | events | result |
//! |---|---|---|
//! | save | none | |
//! | create | create | nothing |
//! | grow | create of `.new-…`, its exchange with the session file, remove of `.new-…` | an invalidation, twice |
//! | delete, rotate, sweep | remove | an invalidation |
//! | delete without the lock | rename to `.end-…`, remove of that | an invalidation |
//!
//! If the thread woke up for each event, a creation would cost two thirds more. So the thread sleeps for 10 ms after an
//! event, and then gets all events of that time at once.
//!
//! The directory `run` is watched too, so that a store switches to a new generations file at once.
//!
//! Correctness for users of the library does not depend on the watcher, so events may be late or lost. If the kernel's
//! queue of events overflows, all sessions are invalidated. If a shard directory itself is moved or removed, all
//! sessions of that shard are. A directory that replaces it is watched as soon as a load or save checks the generations
//! file, which happens once a second.
use super::disk::Root;
use super::generations::{Cause, Generations};
use super::layout::{GENERATIONS_PATH, RUN, SHARDS, session_at, shard_name, shard_named};
use crate::error::{Error, ErrorKind, Result};
use crate::id::PublicId;
use crate::sync::Mutex;
use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{Config, Event, EventHandler, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// A running watcher. When it is dropped, its thread ends soon after.
pub(super) struct Watcher {
    inotify: Mutex<Option<RecommendedWatcher>>,
    root: PathBuf,
    thread: Weak<ThreadToken>,
    unwatched: Arc<Unwatched>,
}

/// Names of directories in the root that were moved or removed. The directories that replace them are not watched yet.
type Unwatched = Mutex<BTreeSet<String>>;

impl Watcher {
    /// Starts to watch the shards and the directory `run`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if the user has no inotify instance or no watches left, if the system has none, or if no
    /// thread can be started.
    pub(super) fn start(root: &Root, generations: &Arc<Generations>) -> Result<Self> {
        const OPERATION: &str = "watch session directory";
        let error = |cause: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Io, OPERATION)
                .with_path(root.path())
                .with_reason("changes outside the library are noticed within a minute instead of at once")
                .with_source(cause)
        };
        let path = std::path::absolute(root.path()).map_err(|cause| error(cause.into()))?;
        let alive = Arc::new(ThreadToken);
        let thread = Arc::downgrade(&alive);
        let unwatched = Arc::<Unwatched>::default();
        let handler = Handler {
            generations: Arc::downgrade(generations),
            unwatched: Arc::clone(&unwatched),
            throttle: Throttle::default(),
            _alive: alive,
        };
        // For creations and removals of names, the kernel reports renames as well. `MODIFY_NAME` requests nothing more
        // from the kernel; without it, `notify` would not pass renames on.
        let kinds = EventKindMask::CREATE | EventKindMask::REMOVE | EventKindMask::MODIFY_NAME;
        let config = Config::default().with_event_kinds(kinds).with_follow_symlinks(false);
        let watcher = RecommendedWatcher::new(handler, config).map_err(|cause| error(cause.into()))?;
        let watching = Self { inotify: Mutex::new(Some(watcher)), root: path, thread, unwatched };
        for shard in 0..SHARDS {
            watching.watch(&shard_name(shard)).map_err(error)?;
        }
        // A store that does not have the directory `run`, as in some tests, starts all the same. The watch on `run`
        // notices only changes that are made outside the library.
        if watching.watch(RUN).is_err() {
            watching.unwatched.lock().insert(RUN.to_owned());
        }
        Ok(watching)
    }

    /// Watches a directory in the root.
    fn watch(&self, name: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut watcher = self.inotify.lock();
        let Some(watcher) = watcher.as_mut().filter(|_| self.thread.strong_count() > 0) else {
            return Err("its thread does not run".into());
        };
        Ok(watcher.watch(&self.root.join(name), RecursiveMode::NonRecursive)?)
    }

    /// Watches the directories that have replaced moved or removed ones. Events in between were missed, so all sessions
    /// of such a shard are invalidated.
    pub(super) fn watch_again(&self, generations: &Generations) {
        let names = std::mem::take(&mut *self.unwatched.lock());
        for name in names {
            // If the thread of `notify` has just ended by a panic, the call of `notify` panics too.
            let watched = catch_unwind(AssertUnwindSafe(|| self.watch(&name)));
            if !matches!(watched, Ok(Ok(()))) {
                self.unwatched.lock().insert(name);
            } else if let Some(shard) = shard_named(&name) {
                let _ = generations.invalidate_shard(shard);
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let watcher = self.inotify.get_mut().take();
        // If the thread of `notify` has ended, dropping its watcher panics. So the watcher is leaked: one descriptor
        // and a few hundred bytes.
        if self.thread.strong_count() == 0 {
            std::mem::forget(watcher);
        } else {
            // The thread may end by a panic at this moment; then dropping the watcher panics, too. The panic must not
            // reach the caller.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(watcher)));
        }
    }
}

/// Shows whether the thread of `notify` runs. The thread owns the token, and drops it when it ends or panics, or if it
/// does not start. The watcher has a weak reference to it.
struct ThreadToken;

/// The function that `notify` calls in its thread for each event.
struct Handler {
    /// A weak reference, because the thread ends a moment after the store. It must not keep the counters in memory, or
    /// write to them, after the store was closed.
    generations: Weak<Generations>,
    unwatched: Arc<Unwatched>,
    throttle: Throttle,
    _alive: Arc<ThreadToken>,
}

impl EventHandler for Handler {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        let Some(generations) = self.generations.upgrade() else { return };
        // If an invalidation fails, stale copies are returned until the next operation invalidates the session, or for
        // a minute.
        let is_current = match invalidation_of(event) {
            Invalidation::Nothing => Ok(true),
            Invalidation::Session(id) => {
                generations.invalidate(&id, Cause::Ended).map(|invalidated| invalidated.is_current)
            }
            Invalidation::Shard(shard) => {
                self.unwatched.lock().insert(shard_name(shard));
                generations.invalidate_shard(shard)
            }
            Invalidation::Counters => Ok(false),
            Invalidation::Run => {
                self.unwatched.lock().insert(RUN.to_owned());
                Ok(false)
            }
            Invalidation::All => {
                let mut shards = 0..SHARDS;
                let invalidated = shards.try_for_each(|shard| generations.invalidate_shard(shard).map(drop));
                invalidated.map(|()| false)
            }
        };
        if matches!(is_current, Ok(false)) {
            // The generations file may have been replaced. This thread does not switch to another file; the next load
            // or save does so at once, and then returns no older copy.
            generations.make_check_due();
        }
        drop(generations);
        self.throttle.pause_if_due();
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}

/// After it has handled events for [`AWAKE`], the thread sleeps for [`PAUSE`]. In 4 ms it handles the thousands of
/// events that the busiest store causes in both times. An invalidation is late by 10 ms at most.
const PAUSE: Duration = Duration::from_millis(10);
const AWAKE: Duration = Duration::from_millis(4);

/// Decides after each event whether the thread sleeps.
#[derive(Default)]
struct Throttle {
    paused_at: Option<Instant>,
}

impl Throttle {
    fn pause_if_due(&mut self) {
        if self.paused_at.is_none_or(|paused_at| paused_at.elapsed() >= AWAKE) {
            thread::sleep(PAUSE);
            self.paused_at = Some(Instant::now());
        }
    }
}

/// The sessions that an event invalidates.
#[derive(Debug, PartialEq, Eq)]
enum Invalidation {
    Nothing,
    /// One session, which may have ended or been replaced.
    Session(PublicId),
    /// All sessions of this shard.
    Shard(u16),
    /// All sessions, because the generations file was created, replaced or removed. They become invalid when the store
    /// switches to the new file.
    Counters,
    /// All sessions, because the directory `run`, with the generations file, was moved or removed.
    Run,
    /// All sessions, because events were lost or are of an unknown kind.
    All,
}

/// The sessions that an event invalidates.
fn invalidation_of(event: notify::Result<Event>) -> Invalidation {
    let Ok(event) = event else { return Invalidation::All };
    if event.need_rescan() {
        return Invalidation::All;
    }
    let Some(path) = event.paths.first() else { return Invalidation::Nothing };
    if is_counters(path) {
        return Invalidation::Counters;
    }
    match event.kind {
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From | RenameMode::To)) => {
            changed(path)
        }
        // A new session has no copy. An event of the kind `Both` repeats the two events `From` and `To` of one rename.
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => Invalidation::Nothing,
        _ => Invalidation::All,
    }
}

/// The sessions to invalidate after this name was removed or renamed, or has replaced another one.
fn changed(path: &Path) -> Invalidation {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let (Some(file), Some(parent)) = (name(path), path.parent().and_then(name)) else {
        return Invalidation::Nothing;
    };
    match session_at(&parent, &file) {
        Some(id) => Invalidation::Session(id),
        // The name may be that of the directory `run`, or of a shard directory.
        None if file == RUN => Invalidation::Run,
        None => shard_named(&file).map_or(Invalidation::Nothing, Invalidation::Shard),
    }
}

/// Whether this is the path of the generations file.
fn is_counters(path: &Path) -> bool {
    path.ends_with(GENERATIONS_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{
        AccessKind, AccessMode, CreateKind, DataChange, Flag, MetadataKind, ModifyKind, RemoveKind,
    };

    const SESSION: &str = "/root/ab/cdef0123456789abcdef0123456789abcdef01";
    const NEIGHBOUR: &str = "/root/ab/0000000000000000000000000000000000000f";
    const TEMPORARY: &str = "/root/ab/.new-0123456789abcdef0123456789abcdef";
    const SHARD: &str = "/root/ab";

    fn id(path: &str) -> PublicId {
        PublicId::parse(&path["/root/".len()..].replace('/', "")).unwrap()
    }
    fn of(path: &str) -> Invalidation {
        Invalidation::Session(id(path))
    }
    fn event(kind: EventKind, path: &str) -> Event {
        Event::new(kind).add_path(path.into())
    }
    fn name(mode: RenameMode, tracker: Option<usize>, path: &str) -> Event {
        let event = event(EventKind::Modify(ModifyKind::Name(mode)), path);
        tracker.into_iter().fold(event, Event::set_tracker)
    }
    fn from(path: &str, tracker: usize) -> Event {
        name(RenameMode::From, Some(tracker), path)
    }
    fn to(path: &str, tracker: usize) -> Event {
        name(RenameMode::To, Some(tracker), path)
    }
    fn both(from: &str, to: &str, tracker: usize) -> Event {
        name(RenameMode::Both, Some(tracker), from).add_path(to.into())
    }
    fn removed(path: &str) -> Event {
        event(EventKind::Remove(RemoveKind::File), path)
    }
    fn created(path: &str) -> Event {
        event(EventKind::Create(CreateKind::File), path)
    }

    /// Asserts that each event invalidates these sessions.
    #[track_caller]
    fn check<const N: usize>(what: &str, events: [(Event, Invalidation); N]) {
        for (n, (event, want)) in events.into_iter().enumerate() {
            assert_eq!(invalidation_of(Ok(event)), want, "{what}, event {n}");
        }
    }

    #[track_caller]
    fn check_one(event: Event, want: Invalidation) {
        let what = format!("{event:?}");
        check(&what, [(event, want)]);
    }

    #[test]
    fn a_watcher_with_a_dead_thread_is_dropped_in_silence() {
        let dir = tempfile::tempdir().unwrap();
        // This token belongs to no thread. While it exists, the watcher takes its thread for alive, although the thread
        // has panicked.
        let alive = Arc::new(ThreadToken);
        let handler = Arc::new(());
        let gone = Arc::downgrade(&handler);
        let panics = move |_| {
            std::panic::resume_unwind(Box::new(Arc::downgrade(&handler)));
        };
        let mut watcher = RecommendedWatcher::new(panics, Config::default()).unwrap();
        watcher.watch(dir.path(), RecursiveMode::NonRecursive).unwrap();
        let watching = Watcher {
            inotify: Mutex::new(Some(watcher)),
            root: dir.path().to_owned(),
            thread: Arc::downgrade(&alive),
            unwatched: Arc::default(),
        };
        std::fs::write(dir.path().join("a file"), "").unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while gone.strong_count() > 0 {
            assert!(Instant::now() < until, "it goes on after a panic");
            thread::sleep(Duration::from_millis(1));
        }
        drop(watching);
    }

    #[test]
    fn lost_events_invalidate_all_sessions() {
        assert_eq!(invalidation_of(Err(notify::Error::generic("read"))), Invalidation::All);
        check_one(Event::new(EventKind::Other).set_flag(Flag::Rescan), Invalidation::All);
        // If events were lost, all sessions are invalidated, whatever the kind of this event is.
        check_one(removed(SESSION).set_flag(Flag::Rescan), Invalidation::All);
    }

    #[test]
    fn a_name_that_went_invalidates_its_session_or_its_shard() {
        let of_shard = Invalidation::Shard(0xab);
        for kind in [RemoveKind::File, RemoveKind::Folder, RemoveKind::Other, RemoveKind::Any] {
            check_one(event(EventKind::Remove(kind), SESSION), of(SESSION));
            check_one(event(EventKind::Remove(kind), SHARD), Invalidation::Shard(0xab));
        }
        for path in [TEMPORARY, "/root/ab/backup", "/root/ab/", "/root", "/", "", "/root/abc", "/root/AB"] {
            let want = if path == "/root/ab/" { Invalidation::Shard(0xab) } else { Invalidation::Nothing };
            check_one(removed(path), want);
        }
        check_one(removed("/root/run"), Invalidation::Run);
        // A shard that is moved also causes an event of its own, to which the kernel gives no number.
        check_one(name(RenameMode::From, None, SHARD), of_shard);
        check_one(Event::new(EventKind::Remove(RemoveKind::File)), Invalidation::Nothing);
    }

    #[test]
    fn a_name_that_came_invalidates_if_it_came_by_a_rename() {
        for path in [SESSION, TEMPORARY, "/root/ab/backup"] {
            check_one(created(path), Invalidation::Nothing);
        }
        check_one(to(SESSION, 7), of(SESSION));
        check_one(name(RenameMode::To, None, SESSION), of(SESSION));
        check_one(to("/root/ab/backup", 7), Invalidation::Nothing);
        check_one(from(SESSION, 7), of(SESSION));
        check_one(name(RenameMode::From, None, SESSION), of(SESSION));
        check_one(from("/root/ab/backup", 7), Invalidation::Nothing);
        check_one(from(TEMPORARY, 7), Invalidation::Nothing);
        check_one(both(SESSION, NEIGHBOUR, 7), Invalidation::Nothing);
        let restored = "/root/ab/backup";
        check(
            "a backup is renamed to its session",
            [
                (from(restored, 7), Invalidation::Nothing),
                (to(SESSION, 7), of(SESSION)),
                (both(restored, SESSION, 7), Invalidation::Nothing),
            ],
        );
        check(
            "one session is renamed to another",
            [
                (from(SESSION, 7), of(SESSION)),
                (to(NEIGHBOUR, 7), of(NEIGHBOUR)),
                (both(SESSION, NEIGHBOUR, 7), Invalidation::Nothing),
            ],
        );
    }

    #[test]
    fn every_change_of_the_counters_name_is_noticed() {
        const COUNTERS: &str = "/root/run/generations";
        for event in [created(COUNTERS), removed(COUNTERS), from(COUNTERS, 7), to(COUNTERS, 7)] {
            check_one(event, Invalidation::Counters);
        }
        check(
            "recreated by this library",
            [
                (from("/root/run/.new-0123456789abcdef", 1), Invalidation::Nothing),
                (to(COUNTERS, 1), Invalidation::Counters),
                (both("/root/run/.new-0123456789abcdef", COUNTERS, 1), Invalidation::Nothing),
            ],
        );
        check_one(removed("/root/run/due"), Invalidation::Nothing);
        check_one(removed("/root/ab/generations"), Invalidation::Nothing);
    }

    #[test]
    fn an_event_of_another_kind_invalidates_all_sessions() {
        for kind in [
            EventKind::Any,
            EventKind::Other,
            EventKind::Access(AccessKind::Open(AccessMode::Any)),
            EventKind::Modify(ModifyKind::Any),
            EventKind::Modify(ModifyKind::Data(DataChange::Any)),
            EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any)),
            EventKind::Modify(ModifyKind::Name(RenameMode::Any)),
        ] {
            check_one(event(kind, SESSION), Invalidation::All);
        }
    }

    #[test]
    fn a_growing_save_invalidates_its_session_once_more() {
        check(
            "an exchange",
            [
                (created(TEMPORARY), Invalidation::Nothing),
                (from(TEMPORARY, 1), Invalidation::Nothing),
                (to(SESSION, 1), of(SESSION)),
                (both(TEMPORARY, SESSION, 1), Invalidation::Nothing),
                (from(SESSION, 2), of(SESSION)),
                (to(TEMPORARY, 2), Invalidation::Nothing),
                (both(SESSION, TEMPORARY, 2), Invalidation::Nothing),
                (removed(TEMPORARY), Invalidation::Nothing),
            ],
        );
    }
}
