//! The watcher (feature `watch`): a change by another program is noticed promptly, and the library's own changes evict
//! no copy of another session.
use super::{NO_SHARD, OutsideChange, RELAXED, Stage, big, create, options, save, shown};
use crate::support::process::{Child, Parent, Start, Worker};
use crate::support::rerun::{again, stage};
use crate::support::texts::{directory_in_memory, put, record};
use rustix::process::{Resource, getrlimit, setrlimit};
use sessile::{Admin, Durability, ErrorKind, FileStore, PublicId, Saved, Store, Token};
use std::collections::HashSet;
use std::error::Error as _;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const WORKERS: &[(&str, Worker)] =
    &[("serve until it changes", serve_until_it_changes), ("save and create", save_and_create)];

/// The largest median of the times until a change is noticed.
const PROMPT: Duration = Duration::from_millis(100);
/// A time after which the events of all earlier changes have arrived.
const ARRIVED: Duration = Duration::from_millis(250);

#[track_caller]
fn watching(root: &Path) -> FileStore {
    let store = options().open(root).unwrap();
    assert!(store.watch_error().is_none(), "{:?}", store.watch_error().and_then(|error| error.source()));
    store
}

/// The place of the session's counters in the generations file. Sessions with the same place are invalidated together.
fn cell(id: PublicId) -> (u8, u16) {
    let bytes = id.as_bytes();
    (bytes[0], u16::from_le_bytes([bytes[2], bytes[3]]) % 512)
}

/// Creates sessions of which no two share a counter.
fn strangers(store: &FileStore, count: usize) -> Vec<Saved> {
    let mut cells = HashSet::new();
    let all = std::iter::repeat_with(|| create(store, "old"));
    all.filter(|saved| cells.insert(cell(saved.live.id))).take(count).collect()
}

// ------------------------------------------------------------------------------------------- seen by the watcher

fn serve_until_it_changes(parent: &Parent) {
    let store = watching(Path::new(parent.argument("DIR")));
    parent.report("ready");
    loop {
        let line = parent.line();
        if line == "end" {
            return;
        }
        let token = Token::parse(&line).unwrap();
        let first = shown(&store, &token);
        let hits = store.stats().hits;
        assert_eq!(shown(&store, &token), first);
        assert_eq!(store.stats().hits, hits + 1, "no copy is there");
        parent.report(&first);
        let began = Instant::now();
        let last = loop {
            let now = shown(&store, &token);
            if now != first || began.elapsed() > Duration::from_secs(20) {
                break now;
            }
            thread::sleep(Duration::from_millis(1));
        };
        parent.report(last);
    }
}

/// Measures the time until another process, which has a copy of the session, notices `operation`: until its load has
/// another result. Returns that result.
fn time_to_notice(child: &mut Child, saved: &Saved, operation: impl FnOnce()) -> (Duration, String) {
    child.say(saved.token.expose());
    assert_eq!(child.line(), "new");
    let began = Instant::now();
    operation();
    let found = child.line();
    (began.elapsed(), found)
}

#[track_caller]
fn check_noticed(change: OutsideChange) {
    let mut times: Vec<Duration> = (0..7)
        .map(|round| {
            // One process saves and another one loads. Both watch.
            let stage = Stage::new(options());
            let mut child = Start::of("serve until it changes").with("DIR", &stage.root).start();
            assert_eq!(child.line(), "ready");
            // In every second round, the session's file has just been replaced by a growing save.
            let saved = stage.backed_up(round % 2 == 0);
            let mut want = "";
            let operation = || want = change.done(&stage, &saved);
            let (time, found) = time_to_notice(&mut child, &saved, operation);
            // During some changes, a shard is missing, or empty, for a moment. The loads in that moment have these
            // results.
            let for_a_moment: &[&str] = match change {
                OutsideChange::ReplaceShardByBackup => &[NO_SHARD],
                OutsideChange::RemoveShard => &["absent"],
                _ => &[],
            };
            let is_right = found == want || for_a_moment.contains(&&*found);
            assert!(is_right, "{change:?}: {found:?} instead of {want:?}");
            wait_until(want, || shown(&stage.store, &saved.token) == want);
            child.say("end");
            child.finish();
            time
        })
        .collect();
    times.sort();
    assert!(times[times.len() / 2] < PROMPT, "{change:?} is noticed after {times:?}");
}

#[test]
fn a_removed_file_is_noticed_promptly() {
    check_noticed(OutsideChange::Remove);
}

#[test]
fn a_moved_file_is_noticed_promptly() {
    check_noticed(OutsideChange::MoveAway);
}

#[test]
fn a_file_replaced_by_its_backup_is_noticed_promptly() {
    check_noticed(OutsideChange::RestoreByRename);
}

#[test]
fn a_moved_or_removed_shard_is_promptly_an_error() {
    for change in
        [OutsideChange::MoveShardAway, OutsideChange::ReplaceShardByBackup, OutsideChange::RemoveShard]
    {
        check_noticed(change);
    }
}

/// Polls until `is` returns true; fails if that takes too long.
#[track_caller]
fn wait_until(what: &str, is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what} does not come");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_shard_that_is_moved_back_is_served_and_watched_again() {
    let stage = Stage::new(options());
    let (store, aside) = (&stage.store, stage.aside().join("shard"));
    let saved = stage.backed_up(false);
    for round in 0..3 {
        fs::rename(stage.shard(&saved), &aside).unwrap();
        wait_until(NO_SHARD, || shown(store, &saved.token) == NO_SHARD);
        fs::rename(&aside, stage.shard(&saved)).unwrap();
        // The error of a load has no effect on later loads.
        assert_eq!(shown(store, &saved.token), "new", "round {round}");
    }
    fs::remove_file(stage.file(&saved)).unwrap();
    wait_until("absent", || shown(store, &saved.token) == "absent");
}

// ----------------------------------------------------------------- what the library does takes no other session's copy

fn save_and_create(parent: &Parent) {
    let store = watching(Path::new(parent.argument("DIR")));
    parent.report("ready");
    let [mut in_place, mut growing] = [Vec::new(), Vec::new()];
    for tokens in [&mut in_place, &mut growing] {
        let count: usize = parent.line().parse().unwrap();
        tokens.extend((0..count).map(|_| Token::parse(&parent.line()).unwrap()));
    }
    for round in 0..100 {
        for (token, how) in in_place.iter().zip([RELAXED, Durability::PowerSafe].iter().cycle()) {
            put(&store, token, &format!("round {round}"), *how).unwrap().unwrap();
        }
        store.create(&record("another"), RELAXED).unwrap();
    }
    for n in 1..4 {
        for token in &growing {
            put(&store, token, &big(n), RELAXED).unwrap().unwrap();
        }
    }
    parent.report("done");
}

/// Loads every session. Asserts the number of misses; all other loads are hits.
#[track_caller]
fn check_hits(store: &FileStore, sessions: &[Saved], text: &str) {
    let before = store.stats();
    for saved in sessions {
        assert_eq!(shown(store, &saved.token), text);
    }
    let mut want = before;
    want.hits += sessions.len() as u64;
    want.loads += sessions.len() as u64;
    assert_eq!(store.stats(), want);
}

#[test]
fn saves_evict_no_entry_of_another_session() {
    let dir = directory_in_memory();
    let store = watching(dir.path());
    let mut child = Start::of("save and create").with("DIR", dir.path()).start();
    assert_eq!(child.line(), "ready");
    let sessions = strangers(&store, 40);
    let (untouched, others) = sessions.split_at(20);
    let (in_place, growing) = others.split_at(4);
    for tokens in [in_place, growing] {
        child.say(tokens.len());
        for saved in tokens {
            child.say(saved.token.expose());
        }
    }
    assert_eq!(child.line(), "done");
    thread::sleep(ARRIVED);
    check_hits(&store, untouched, "old");
    // Each session that was saved in place is read from its file once.
    for (sessions, text) in [(in_place, "round 99".to_owned()), (growing, big(3))] {
        let before = store.stats();
        for saved in sessions {
            assert_eq!(shown(&store, &saved.token), text);
        }
        assert_eq!(store.stats().files.invalidations, before.files.invalidations + sessions.len() as u64);
        check_hits(&store, sessions, &text);
    }
    child.finish();
}

/// The store that saves also watches. A growing save causes events, which cost one more read of the file.
#[test]
fn after_a_save_of_its_own_a_watching_store_serves_its_copy() {
    let dir = directory_in_memory();
    let store = watching(dir.path());
    let sessions = strangers(&store, 20);
    thread::sleep(ARRIVED);
    check_hits(&store, &sessions, "old");
    for (text, how, grows) in [
        ("new", RELAXED, false),
        ("newer", Durability::PowerSafe, false),
        (&big(1), RELAXED, true),
        (&big(2), Durability::PowerSafe, true),
    ] {
        for saved in &sessions {
            put(&store, &saved.token, text, how).unwrap().unwrap();
        }
        thread::sleep(ARRIVED);
        for saved in sessions.iter().filter(|_| grows) {
            assert_eq!(shown(&store, &saved.token), text);
        }
        check_hits(&store, &sessions, text);
    }
}

/// A deletion invalidates the session, and its event invalidates it again. Each invalidation costs one read of the
/// files of sessions that share the counter, and of no others.
#[test]
fn a_deletion_takes_no_copy_of_a_session_with_another_counter() {
    let dir = directory_in_memory();
    let (store, other) = (watching(dir.path()), watching(dir.path()));
    let sessions = strangers(&store, 60);
    let (kept, deleted) = sessions.split_at(20);
    for saved in deleted {
        assert!(other.delete(&saved.token).unwrap().is_some());
    }
    thread::sleep(ARRIVED);
    check_hits(&store, kept, "old");
}

// ------------------------------------------------------------------------------ stores that do not watch, or cannot

/// The number of inotify watches of this process, and that of its watcher threads.
fn watches_and_threads() -> (usize, usize) {
    let files = fs::read_dir("/proc/self/fdinfo").unwrap().map(|file| file.unwrap().path());
    let lines = files.map(|file| fs::read_to_string(file).unwrap_or_default());
    let watches = lines.map(|text| text.lines().filter(|line| line.starts_with("inotify wd:")).count()).sum();
    (watches, fs::read_dir("/proc/self/task").unwrap().count())
}

/// The test runs in a process of its own, because other tests start threads.
#[test]
fn a_store_without_use_for_a_watcher_starts_none() {
    let Some(dir) = stage() else {
        let dir = directory_in_memory();
        return again("changed_outside::watched::a_store_without_use_for_a_watcher_starts_none", dir.path());
    };
    let before = watches_and_threads();
    for options in [options().watch(false), options().cache_bytes(0), options().watch(false).cache_bytes(0)] {
        let what = format!("{options:?}");
        let store = options.open(dir.join("store")).unwrap();
        assert_eq!(watches_and_threads(), before, "{what}");
        assert!(store.watch_error().is_none(), "{what}");
    }
    // A store that watches, to show that this test would notice a watcher.
    let store = options().open(dir.join("store")).unwrap();
    assert!(store.watch_error().is_none());
    assert!(watches_and_threads().0 > before.0, "it does not watch");
}

#[test]
fn a_store_that_cannot_watch_opens_and_says_why() {
    let Some(dir) = stage() else {
        let dir = directory_in_memory();
        let name = "changed_outside::watched::a_store_that_cannot_watch_opens_and_says_why";
        return again(name, dir.path());
    };
    let root = dir.join("store");
    let other = options().watch(false).open(&root).unwrap();
    let usual = getrlimit(Resource::Nofile);
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    // The limit applies to the numbers of descriptors. So the unused numbers between those in use are taken first.
    let null = || File::open("/dev/null").unwrap();
    let mut taken = vec![null()];
    while usize::try_from(taken[taken.len() - 1].as_raw_fd()).unwrap() + 2 < descriptors() {
        taken.push(null());
    }
    let free = u64::try_from(null().as_raw_fd()).unwrap();
    let threads = || watches_and_threads().1;
    let (before, threads_before) = (descriptors(), threads());
    let mut refusals = 0;
    // With five more descriptors, the store opens, which keeps four of them. With more, the watcher gets a part of what
    // it needs, and at last all.
    for spare in 5..=9 {
        let mut limit = usual;
        limit.current = Some(free + spare);
        setrlimit(Resource::Nofile, limit).unwrap();
        let store = options().open(&root);
        setrlimit(Resource::Nofile, usual).unwrap();
        let store = store.unwrap_or_else(|error| panic!("{spare} spare: {error}"));
        if let Some(error) = store.watch_error() {
            refusals += 1;
            assert_eq!((error.kind(), error.path()), (ErrorKind::Io, Some(&*root)));
            let text = format!(
                "failed to watch session directory `{}`: changes outside the library are noticed within a minute \
                 instead of at once",
                root.display()
            );
            assert_eq!(error.to_string(), text);
            let mut cause = error.source().unwrap();
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            assert!(cause.to_string().contains("Too many open files (os error 24)"), "{cause}");
            wait_until("a failed start leaves nothing", || descriptors() == before + 4);
            wait_until("the thread ends", || threads() == threads_before);
        }
        // A store that cannot watch still sees the invalidations of others.
        let saved = create(&store, "old");
        assert_eq!(shown(&store, &saved.token), "old");
        save(&other, &saved, "new");
        assert_eq!(shown(&store, &saved.token), "new");
        save(&store, &saved, "newer");
        assert_eq!(shown(&other, &saved.token), "newer");
        assert!(other.delete(&saved.token).unwrap().is_some());
        assert_eq!(shown(&store, &saved.token), "absent");
        drop(store);
        wait_until("nothing is left", || descriptors() == before);
    }
    assert_eq!(refusals, 2, "a watcher has three descriptors");
}
