//! The reaper removes expired sessions without further calls. Only its handle, and the end of the store, stop its
//! thread; each does so soon. The thread leaves no resources behind.
use crate::support::client::Client;
use crate::support::cookie_jar::Jar;
use crate::support::process::{Child, Parent, Start, Worker, hear_from_all, say_to_all};
use crate::support::rerun::{again, stage};
use crate::support::texts::{directory_in_memory, files_in_shards, load, path_of, record};
use crate::support::waiting::eventually;
use sessile::admin::{SweepOptions, SweepOutcome};
use sessile::reaper::{Reaper, ReaperOptions, ReaperStats};
use sessile::{
    Admin, Clock, Cookies, Durability, ErrorKind, Expiry, FileStore, FileStoreOptions, PublicId, Saved,
    SessionId, Sessions, Store, Timing, http,
};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::ops::ControlFlow::Continue;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

pub(crate) const WORKERS: &[(&str, Worker)] = &[("reap", reap), ("serve and reap", serve_and_reap)];

const RELAXED: Durability = Durability::Relaxed;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// The longest wait for an expected event.
const PATIENCE: Duration = Duration::from_secs(30);
/// An interval longer than any test: each sweep but the first is requested.
const NEVER: Duration = Duration::from_secs(30 * 86_400);

// ------------------------------------------------------------------------------------------------ helpers

fn open(dir: &Path) -> Arc<FileStore> {
    Arc::new(FileStoreOptions::new().watch(false).open(dir).unwrap())
}

/// Whether no process has the store open.
fn is_closed(dir: &Path) -> bool {
    // An open store has its root locked.
    File::open(dir).unwrap().try_lock().is_ok()
}

fn create(store: &FileStore, age: Duration) -> Saved {
    let mut record = record("text");
    record.set_timing(Timing { deadline: store.now() + age, ..record.timing() });
    store.create(&record, RELAXED).unwrap()
}

fn live(dir: &Path, count: usize) -> Vec<Saved> {
    let store = open(dir);
    (0..count).map(|_| create(&store, HOUR)).collect()
}

/// Creates sessions that have expired by the system's clock, with a clock that is behind, in a store that is not swept
/// yet.
fn expired(dir: &Path, count: usize) -> Vec<Saved> {
    let clock = Clock::manual(SystemTime::now() - 2 * HOUR);
    let store = FileStoreOptions::new().watch(false).clock(clock).open(dir).unwrap();
    (0..count).map(|_| create(&store, HOUR / 60)).collect()
}

/// Creates expired sessions in a store that may be swept meanwhile.
fn expired_meanwhile(store: &FileStore, count: usize) -> Vec<Saved> {
    let sessions = (0..count).map(|_| create(store, SECOND / 4)).collect();
    thread::sleep(SECOND / 4);
    sessions
}

fn exist(dir: &Path, sessions: &[Saved]) -> usize {
    sessions.iter().filter(|saved| path_of(dir, saved.live.id).exists()).count()
}

#[track_caller]
fn check_all_live(dir: &Path, sessions: &[Saved]) {
    let store = open(dir);
    for saved in sessions {
        assert_eq!(load(&*store, &saved.token).unwrap().as_deref(), Some("text"));
    }
}

fn fast() -> SweepOptions {
    SweepOptions::new().cpu_percent(100)
}

/// Options for a first sweep within ten seconds, and later ones on request only.
fn on_demand() -> ReaperOptions {
    ReaperOptions::new().interval(NEVER).sweep(fast())
}

fn often() -> ReaperOptions {
    ReaperOptions::new().interval(SECOND / 10).sweep(fast())
}

/// The report of a sweep to the observer: the outcome, and the numbers of removed and failed files.
type Told = Result<(SweepOutcome, u64, u64), String>;
const FINISHED: SweepOutcome = SweepOutcome::Completed;

/// Starts a reaper. Returns also the reports to its observer; the channel is closed when the thread has ended.
fn start(store: &Arc<FileStore>, options: ReaperOptions) -> (Reaper, Receiver<Told>) {
    let (sender, reports) = channel();
    let options = options.observer(move |swept| {
        let report = match swept {
            Ok(report) => Ok((report.outcome, report.removed, report.failed)),
            Err(error) => Err(error.to_string()),
        };
        let _ = sender.send(report);
    });
    (Reaper::start(store, options).unwrap(), reports)
}

#[track_caller]
fn next(reports: &Receiver<Told>) -> Told {
    reports.recv_timeout(PATIENCE).expect("the reaper sweeps")
}

/// Receives reports until the thread has ended.
#[track_caller]
fn check_ends(reports: &Receiver<Told>) {
    let began = Instant::now();
    while reports
        .recv_timeout(PATIENCE)
        .map_err(|error| assert_eq!(error, RecvTimeoutError::Disconnected))
        .is_ok()
    {
        assert!(began.elapsed() < PATIENCE, "it goes on");
    }
}

// ---------------------------------------------------------------------------------------- it sweeps by itself

#[test]
fn expired_sessions_are_removed_and_live_ones_not() {
    let dir = directory_in_memory();
    let store = open(dir.path());
    let lives = live(dir.path(), 20);
    let reaper = Reaper::start(&store, often()).unwrap();
    // Two sweeps, to show that the thread does not stop after the first.
    for _ in 0..2 {
        let dies: Vec<_> = (0..20).map(|_| create(&store, SECOND / 5)).collect();
        eventually("the expired are removed", || exist(dir.path(), &dies) == 0);
    }
    let ReaperStats { sweeps, skipped, removed, bytes_freed, errors, panics, .. } = reaper.close();
    assert!(sweeps >= 2, "{sweeps}");
    assert_eq!((skipped, removed, bytes_freed, errors, panics), (0, 40, 40 * 4096, 0, 0));
    check_all_live(dir.path(), &lives);
}

#[test]
fn the_first_sweep_is_within_10_s_and_the_second_keeps_interval() {
    let dir = directory_in_memory();
    let store = open(dir.path());
    let began = Instant::now();
    let (sender, came) = channel();
    let start = |_| {
        let sender = sender.clone();
        Reaper::start(&store, on_demand().observer(move |_| sender.send(began.elapsed()).unwrap())).unwrap()
    };
    let reapers: Vec<Reaper> = (0..12).map(start).collect();
    let came: Vec<_> = reapers.iter().map(|_| came.recv_timeout(PATIENCE).unwrap()).collect();
    let (first, last) = (came[0], came[11]);
    assert!(last < 15 * SECOND, "{came:?}");
    assert!(last > first + SECOND / 2, "all at once: {came:?}");
    for reaper in reapers {
        let total = reaper.close();
        assert_eq!((total.sweeps + total.skipped, total.errors), (1, 0));
    }
}

#[test]
fn each_requested_sweep_comes_at_once() {
    let dir = directory_in_memory();
    let store = open(dir.path());
    let (reaper, reports) = start(&store, on_demand());
    for n in 1..=5 {
        expired_meanwhile(&store, n);
        reaper.sweep_now();
        // The first sweep may begin by itself just before it is requested.
        let mut removed = 0;
        while removed < n as u64 {
            removed += next(&reports).unwrap().1;
        }
        assert_eq!(removed, n as u64);
    }
    assert_eq!(reaper.close().removed, 15);
}

#[test]
fn a_sweep_requested_during_another_follows_it_once() {
    let dir = directory_in_memory();
    let dies = expired(dir.path(), 20);
    let store = open(dir.path());
    let (reaper, reports) = start(&store, on_demand().sweep(SweepOptions::new().per_second(20)));
    reaper.sweep_now();
    eventually("the sweep has begun", || exist(dir.path(), &dies) < 20);
    // This session expires after the sweep has begun. The running sweep leaves it, and the next one removes it.
    let later = [create(&store, Duration::ZERO)];
    for _ in 0..3 {
        reaper.sweep_now();
    }
    let one = (reports.recv_timeout(PATIENCE).unwrap(), exist(dir.path(), &dies));
    assert_eq!(one, (Ok((FINISHED, 20, 0)), 0));
    assert_eq!(next(&reports), Ok((FINISHED, 1, 0)));
    assert_eq!(exist(dir.path(), &later), 0);
    let third = reports.recv_timeout(SECOND / 2);
    assert_eq!(third, Err(RecvTimeoutError::Timeout), "three that were asked for together are one");
    assert_eq!(reaper.close().sweeps, 2);
}

#[test]
fn a_sweep_beside_another_is_skipped_and_counted() {
    let dir = directory_in_memory();
    let dies = expired(dir.path(), 3);
    let store = open(dir.path());
    let (reaper, reports) = start(&store, on_demand());
    let mut other = None;
    let ours = store.sweep_with(&fast(), &mut |_| {
        other.get_or_insert_with(|| {
            reaper.sweep_now();
            next(&reports)
        });
        Continue(())
    });
    assert_eq!(ours.unwrap().removed, 3);
    assert_eq!(other, Some(Ok((SweepOutcome::AlreadyRunning, 0, 0))));
    assert_eq!(exist(dir.path(), &dies), 0);
    let total = reaper.close();
    assert_eq!((total.skipped, total.removed, total.errors), (1, 0, 0));
}

// ------------------------------------------------------------------------------------------------ it stops

/// Stops a reaper in the middle of a sweep, and asserts that it stops within the time limit.
#[track_caller]
fn check_stops(case: &str, sessions: usize, options: &SweepOptions) {
    for is_closed in [true, false] {
        let dir = directory_in_memory();
        expired(dir.path(), sessions);
        let store = open(dir.path());
        let (reaper, reports) = start(&store, on_demand().sweep(options.clone()));
        reaper.sweep_now();
        eventually("the sweep has begun", || files_in_shards(dir.path()).len() < sessions);
        let began = Instant::now();
        let total = is_closed.then(|| reaper.close());
        let took = began.elapsed();
        println!("stopped within {took:?}, {case}");
        // The limit is five times the documented one, because other tests use the machine as well.
        assert!(took < SECOND, "{case}: {took:?}");
        let (end, removed, failed) = reports.try_recv().expect("a report").unwrap();
        assert_eq!((end, failed), (SweepOutcome::Cancelled, 0), "{case}");
        total.inspect(|total| assert_eq!((total.sweeps, total.removed), (1, removed), "{case}"));
        check_ends(&reports);
        // After the stop no file is removed. The next sweep removes the rest.
        let left = files_in_shards(dir.path()).len();
        let rest = store.sweep(&fast()).unwrap();
        assert_eq!((rest.outcome, rest.removed), (FINISHED, left as u64), "{case}");
        assert_eq!(left, sessions - usize::try_from(removed).unwrap(), "{case}");
    }
}

#[test]
fn it_stops_soon_while_it_works() {
    let sessions = if cfg!(debug_assertions) { 15_000 } else { 100_000 };
    check_stops("at work", sessions, &fast());
}

#[test]
fn it_stops_soon_while_it_rests() {
    check_stops("resting for a second", 20, &SweepOptions::new().per_second(1));
    check_stops("resting nearly always", 2_000, &SweepOptions::new().cpu_percent(1));
}

#[test]
fn it_stops_soon_while_it_reads_an_index_with_nothing_due() {
    let dir = directory_in_memory();
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + 500_000 * HOUR);
    let store = Arc::new(FileStoreOptions::new().watch(false).clock(clock).open(dir.path()).unwrap());
    for _ in 0..1000 {
        create(&store, HOUR / 2);
    }
    // A large bucket of the index, as after an hour with many visitors.
    let bucket = dir.path().join("run/due/500000");
    let entries = fs::read(&bucket).unwrap();
    assert_eq!(entries.len(), 32_000);
    fs::write(&bucket, entries.repeat(if cfg!(debug_assertions) { 1_000 } else { 20_000 })).unwrap();
    let (reaper, reports) = start(&store, on_demand());
    reaper.sweep_now();
    thread::sleep(SECOND / 20);
    let began = Instant::now();
    let total = reaper.close();
    let took = began.elapsed();
    println!("stopped within {took:?}");
    assert!(took < SECOND, "{took:?}");
    assert_eq!((total.sweeps, total.removed, total.errors), (1, 0, 0));
    assert_eq!(next(&reports), Ok((SweepOutcome::Cancelled, 0, 0)));
}

/// The numbers of descriptors, threads and mappings of this process.
fn held() -> [usize; 3] {
    let names = |dir: &str| fs::read_dir(dir).unwrap().count();
    [
        names("/proc/self/fd"),
        names("/proc/self/task"),
        fs::read_to_string("/proc/self/maps").unwrap().lines().count(),
    ]
}

#[test]
fn a_thousand_stopped_reapers_leave_no_thread_or_descriptor() {
    let Some(stage) = stage() else {
        let dir = directory_in_memory();
        let name = "reaper::a_thousand_stopped_reapers_leave_no_thread_or_descriptor";
        return again(name, dir.path());
    };
    let dir = stage.join("store");
    let lives = live(&dir, 1);
    let store = open(&dir);
    let cycle = |n: usize| {
        let (reaper, reports) = start(&store, on_demand());
        if n % 4 < 2 {
            reaper.sweep_now();
        }
        if n % 8 < 2 {
            next(&reports).unwrap();
        }
        match n % 2 {
            0 => drop(reaper),
            _ => assert_eq!(reaper.close().errors, 0),
        }
    };
    // The first reapers allocate resources that a process allocates only once.
    (0..8).for_each(cycle);
    let before = held();
    (0..1000).for_each(cycle);
    let after = held();
    assert_eq!(after[..2], before[..2], "descriptors and threads");
    assert!(after[2] < before[2] + 50, "{before:?} became {after:?}");
    drop(store);
    assert!(is_closed(&dir));
    check_all_live(&dir, &lives);
}

// ----------------------------------------------------------------------------------- nothing else stops it

#[test]
fn an_error_is_counted_and_reported_and_the_next_sweep_comes() {
    let dir = directory_in_memory();
    let dies = expired(dir.path(), 10);
    let store = open(dir.path());
    let (due, aside) = (dir.path().join("run/due"), dir.path().join("aside"));
    fs::rename(&due, &aside).unwrap();
    fs::write(&due, "in the way").unwrap();
    let (reaper, reports) = start(&store, often());
    let error = format!(
        "failed to open expiry index `{}`: a link, pipe, directory or device is in its place",
        due.display()
    );
    for _ in 0..3 {
        assert_eq!(next(&reports), Err(error.clone()));
    }
    fs::remove_file(&due).unwrap();
    fs::rename(&aside, &due).unwrap();
    let mut errors = 3;
    while let Err(again) = next(&reports) {
        assert_eq!(again, error);
        errors += 1;
    }
    assert_eq!(exist(dir.path(), &dies), 0);
    let total = reaper.close();
    assert_eq!((total.errors, total.removed), (errors, 10));
    assert!(total.sweeps > errors, "those that failed were sweeps: {total:?}");
}

#[test]
fn an_unreadable_directory_is_counted_and_tried_again() {
    let dir = directory_in_memory();
    let dies = expired(dir.path(), 200);
    let store = open(dir.path());
    let shard = path_of(dir.path(), dies[0].live.id).parent().unwrap().to_owned();
    let aside = dir.path().with_extension("aside");
    fs::rename(&shard, &aside).unwrap();
    let inside = fs::read_dir(&aside).unwrap().count();
    let (reaper, reports) = start(&store, on_demand());
    reaper.sweep_now();
    // The walk may have failed on the missing shard, too, so there are one or two failures.
    let (end, removed, failed) = next(&reports).unwrap();
    assert_eq!((end, removed), (FINISHED, 200 - inside as u64));
    assert!((1..=2).contains(&failed), "{failed}");
    fs::rename(&aside, &shard).unwrap();
    drop(fs::remove_dir(&aside));
    let total = reaper.close();
    assert_eq!((total.removed, total.errors), (200 - inside as u64, failed));
    assert_eq!(exist(dir.path(), &dies), inside);
}

#[test]
fn a_panic_in_the_observer_is_contained_and_counted() {
    let dir = directory_in_memory();
    let store = open(dir.path());
    let (sender, calls) = channel();
    let mut call = 0;
    let observer = move |_: &sessile::Result<_>| {
        call += 1;
        let _ = sender.send(call);
        assert!(call % 2 == 0, "each other call panics");
    };
    let reaper = Reaper::start(&store, often().observer(observer)).unwrap();
    for want in 1..=6 {
        assert_eq!(calls.recv_timeout(PATIENCE), Ok(want));
    }
    let total = reaper.close();
    // A further panic may have been counted.
    assert!((3..=4).contains(&total.panics), "{total:?}");
    assert!(total.sweeps >= 6 && total.errors == 0, "the work before a panic is counted: {total:?}");
}

/// A value to panic with. It panics again when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(thread::panicking(), "and again");
    }
}

#[test]
fn a_panic_whose_message_panics_is_contained_as_well() {
    let dir = directory_in_memory();
    let store = open(dir.path());
    let (sender, calls) = channel();
    let observer = move |_: &sessile::Result<_>| {
        let _ = sender.send(());
        std::panic::panic_any(Bomb);
    };
    let reaper = Reaper::start(&store, often().observer(observer)).unwrap();
    for _ in 0..3 {
        assert_eq!(calls.recv_timeout(PATIENCE), Ok(()), "the thread has ended");
    }
    assert!(reaper.close().panics >= 3);
}

#[test]
fn an_observer_may_stop_its_own_reaper() {
    let dir = directory_in_memory();
    let store = open(dir.path());
    let own: Arc<Mutex<Option<Reaper>>> = Arc::default();
    let (there, ended) = (own.clone(), Arc::new(AtomicBool::new(false)));
    let flag = ended.clone();
    let observer = move |_: &sessile::Result<_>| {
        let own = there.lock().unwrap().take();
        flag.store(own.map(drop).is_some(), Ordering::SeqCst);
    };
    *own.lock().unwrap() = Some(Reaper::start(&store, often().observer(observer)).unwrap());
    // The thread of the reaper has the other reference, until it ends.
    eventually("the thread has ended", || Arc::strong_count(&own) == 1);
    assert!(ended.load(Ordering::SeqCst), "without a panic");
}

// ------------------------------------------------------------------------------------------ several processes

/// A worker process: runs a reaper until the parent stops it. Reports the numbers of removed sessions and of failures.
fn reap(parent: &Parent) {
    let dir = Path::new(parent.argument("DIR"));
    let store = open(dir);
    let files = u32::try_from(parent.number("FILES PER SECOND")).unwrap();
    let sweep = SweepOptions::new().per_second(files);
    let reaper = Reaper::start(&store, often().sweep(sweep)).unwrap();
    parent.report("reaping");
    assert_eq!(parent.line(), "end");
    let total = reaper.close();
    parent.report(total.removed);
    parent.report(total.errors + total.panics);
}

fn start_reaping(dir: &Path, per_second: u32) -> Child {
    let start = Start::of("reap").with("DIR", dir);
    start.with("FILES PER SECOND", per_second.to_string()).start()
}

#[test]
fn reapers_of_several_processes_remove_each_session_once() {
    let dir = directory_in_memory();
    let lives = live(dir.path(), 100);
    let mut reapers: Vec<_> = (0..4).map(|_| start_reaping(dir.path(), 10_000)).collect();
    hear_from_all(&reapers, "reaping");
    let (store, mut dies) = (open(dir.path()), 0);
    for _ in 0..4 {
        let some = expired_meanwhile(&store, 250);
        dies += some.len();
        eventually("all is removed", || exist(dir.path(), &some) == 0);
    }
    say_to_all(&mut reapers, "end");
    let ends: Vec<Vec<usize>> = reapers
        .into_iter()
        .map(|reaper| reaper.finish().iter().map(|line| line.parse().unwrap()).collect())
        .collect();
    assert_eq!(ends.iter().map(|end| end[0]).sum::<usize>(), dies, "each by one of them: {ends:?}");
    assert!(ends.iter().all(|end| end[1] == 0), "no failures: {ends:?}");
    check_all_live(dir.path(), &lives);
}

#[test]
fn a_process_killed_in_a_sweep_leaves_the_rest_to_others() {
    let dir = directory_in_memory();
    let lives = live(dir.path(), 100);
    // The process to kill, and the time in milliseconds for which it goes on sweeping before.
    for (killed, pause) in [(0, 0), (1, 20), (1, 0), (0, 45)] {
        let dies = expired(dir.path(), 300);
        let mut left = dies.len();
        // Each reaper runs alone, and is killed in the middle of its sweep.
        while left > 200 {
            let reaper = start_reaping(dir.path(), 300);
            assert_eq!(reaper.line(), "reaping");
            eventually("it sweeps", || exist(dir.path(), &dies) < left);
            thread::sleep(Duration::from_millis(pause));
            reaper.kill();
            left = exist(dir.path(), &dies);
        }
        // One of two reapers skips its sweep while the other one sweeps, and is killed.
        let mut reapers = [start_reaping(dir.path(), 400), start_reaping(dir.path(), 400)];
        hear_from_all(&reapers, "reaping");
        eventually("one of them sweeps", || exist(dir.path(), &dies) < left);
        // Kills the first or the second of them.
        reapers.rotate_left(killed);
        let [killed, mut stays] = reapers;
        killed.kill();
        eventually("the other does the rest", || exist(dir.path(), &dies) == 0);
        stays.say("end");
        assert_eq!(stays.finish()[1], "0", "without failures");
    }
    check_all_live(dir.path(), &lives);
}

// ------------------------------------------------------------------------------------------- the store's end

#[test]
fn a_dropped_store_is_closed_and_its_reaper_ends_by_itself() {
    for is_asleep in [true, false] {
        let dir = directory_in_memory();
        let store = open(dir.path());
        let (reaper, reports) = start(&store, if is_asleep { on_demand() } else { often() });
        if !is_asleep {
            next(&reports).unwrap();
        }
        drop(store);
        eventually("it is closed", || is_closed(dir.path()));
        if !is_asleep {
            check_ends(&reports);
        }
        // After the thread has ended, a request for a sweep is ignored.
        reaper.sweep_now();
        assert_eq!(reaper.close().errors, 0);
        check_ends(&reports);
    }
}

#[test]
fn a_store_that_is_dropped_during_a_long_sweep_is_closed_soon() {
    let dir = directory_in_memory();
    let dies = expired(dir.path(), 200);
    let store = open(dir.path());
    let (reaper, reports) = start(&store, often().sweep(SweepOptions::new().per_second(1)));
    eventually("the sweep has begun", || exist(dir.path(), &dies) < 200);
    drop(store);
    // The rest of the sweep would take minutes, so the thread must have been stopped in it.
    eventually("it is closed", || is_closed(dir.path()));
    check_ends(&reports);
    assert_eq!(reaper.close().errors, 0);
    assert!(exist(dir.path(), &dies) > 100);
}

#[test]
fn a_reaper_that_is_forgotten_sweeps_until_the_store_is_dropped() {
    let dir = directory_in_memory();
    let store = open(dir.path());
    let (reaper, reports) = start(&store, often());
    std::mem::forget(reaper);
    let dies = expired_meanwhile(&store, 3);
    eventually("it sweeps", || exist(dir.path(), &dies) == 0);
    drop(store);
    check_ends(&reports);
    assert!(is_closed(dir.path()));
}

/// The number of forks for each operation.
const FORKS: usize = 100;

#[test]
fn a_forked_child_can_drop_its_copy_of_a_reaper() {
    let Some(stage) = stage() else {
        let dir = directory_in_memory();
        let name = "reaper::a_forked_child_can_drop_its_copy_of_a_reaper";
        return again(name, dir.path());
    };
    let dir = stage.join("store");
    let lives = live(&dir, 1);
    for operation in 0..4 {
        let store = open(&dir);
        let (reaper, reports) = start(&store, on_demand());
        let mut both = Some((store, reaper));
        // At each fork the reaper's thread is at another point of its loop. In the child, the locks that it holds are
        // never released.
        for _ in 0..FORKS {
            both.as_ref().unwrap().1.sweep_now();
            both = in_child(both, |(store, reaper)| match operation {
                0 => drop(reaper),
                1 => assert_eq!(reaper.close(), ReaperStats::default()),
                2 => {
                    reaper.sweep_now();
                    drop((reaper, store));
                }
                _ => {
                    let refused = Reaper::start(&store, ReaperOptions::new()).map(drop).unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::Forked);
                    drop((store, reaper));
                }
            });
        }
        let (store, reaper) = both.unwrap();
        let dies = expired_meanwhile(&store, 3);
        reaper.sweep_now();
        eventually("it sweeps", || exist(&dir, &dies) == 0);
        drop(store);
        assert_eq!(reaper.close().errors, 0);
        check_ends(&reports);
        eventually("it is closed", || is_closed(&dir));
    }
    check_all_live(&dir, &lives);
}

/// Runs `operation` in a forked child, with the child's copy of `value`. Fails if the operation fails, or if the child
/// hangs.
#[expect(unsafe_code, reason = "there is no safe fork")]
#[track_caller]
pub(crate) fn in_child<T>(mut value: Option<T>, operation: impl FnOnce(T)) -> Option<T> {
    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
    // SAFETY: the child ends without returning from this function. Before that, its calls must work although locks of
    // other threads are held for ever, which this test is about.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", std::io::Error::last_os_error()),
        0 => {
            let operation = std::panic::AssertUnwindSafe(|| operation(value.take().unwrap()));
            let failed = std::panic::catch_unwind(operation).is_err();
            // SAFETY: ends the child at once, without running the exit handlers that the parent has registered.
            unsafe { libc::_exit(i32::from(failed)) }
        }
        child => {
            let child = Pid::from_raw(child).unwrap();
            let began = Instant::now();
            loop {
                if let Some((_, status)) = waitpid(Some(child), WaitOptions::NOHANG).unwrap() {
                    assert_eq!(status.exit_status(), Some(0), "the child has failed");
                    return value;
                }
                if began.elapsed() > 5 * SECOND {
                    kill_process(child, Signal::KILL).unwrap();
                    waitpid(Some(child), WaitOptions::empty()).unwrap();
                    panic!("the child hangs");
                }
                thread::sleep(Duration::from_micros(200));
            }
        }
    }
}

// --------------------------------------------------------------------------------------- options and names

#[test]
fn options_out_of_bounds_are_refused_by_name() {
    let dir = directory_in_memory();
    let store = open(dir.path());
    let options = ReaperOptions::new;
    let interval = "failed to start a reaper: the interval must be 100 ms to 30 days";
    for (options, want) in [
        (options().interval(Duration::ZERO), interval),
        (options().interval(Duration::from_micros(99_999)), interval),
        (options().interval(NEVER + Duration::from_nanos(1)), interval),
        (options().interval(Duration::MAX), interval),
        (
            options().sweep(SweepOptions::new().cpu_percent(0)),
            "failed to sweep session store: `cpu_percent` must be 1 to 100",
        ),
        (
            options().sweep(SweepOptions::new().cpu_percent(101)),
            "failed to sweep session store: `cpu_percent` must be 1 to 100",
        ),
        (
            options().sweep(SweepOptions::new().per_second(0)),
            "failed to sweep session store: `per_second` must be 1 or more",
        ),
        (
            options().sweep(SweepOptions::new().keep_damaged(Duration::from_secs(3599))),
            "failed to sweep session store: `keep_damaged` must be an hour or more",
        ),
    ] {
        let case = format!("{options:?}");
        let error = Reaper::start(&store, options).map(drop).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Config, want), "{case}");
    }
    for interval in [SECOND / 10, NEVER] {
        Reaper::start(&store, options().interval(interval)).unwrap().close();
    }
}

#[test]
fn the_thread_has_a_name_and_its_debug_output_no_secret() {
    let dir = directory_in_memory();
    let dies = expired(dir.path(), 3);
    let store = open(dir.path());
    let (sender, names) = channel();
    let secret = dies[0].token.expose().to_owned();
    let options = on_demand().observer(move |swept| {
        let name = thread::current().name().map(str::to_owned);
        let of_system = fs::read_to_string("/proc/thread-self/comm").unwrap();
        // The observer owns a secret, which `Debug` must not show.
        assert!(!format!("{swept:?}").contains(&secret));
        let _ = sender.send((name, of_system));
    });
    let shown = format!("{options:?}");
    assert_eq!(
        shown,
        "ReaperOptions { interval: 2592000s, sweep: SweepOptions { dry_run: false, budget: CpuPercent(100), full: false, \
         keep_damaged: 1209600s }, .. }"
    );
    let reaper = Reaper::start(&store, options).unwrap();
    reaper.sweep_now();
    let (name, of_system) = names.recv_timeout(PATIENCE).unwrap();
    assert_eq!((name.as_deref(), of_system.as_str()), (Some("sessile-reaper"), "sessile-reaper\n"));
    let shown = format!("{reaper:?}");
    assert!(shown.starts_with("Reaper {"), "{shown}");
    let total = reaper.close();
    assert_eq!(
        format!("{total:?}"),
        "ReaperStats { sweeps: 1, skipped: 0, removed: 3, bytes_freed: 12288, errors: 0, panics: 0 }"
    );
    for saved in &dies {
        assert!(!shown.contains(saved.token.expose()), "{shown}");
    }
}

// ---------------------------------------------------------------------------------- a server that never returns

/// A worker process: a server with a reaper that is never stopped.
fn serve_and_reap(parent: &Parent) {
    let store = open(Path::new(parent.argument("DIR")));
    let _reaper = Reaper::start(&store, often()).unwrap();
    let sessions = Sessions::new(store, Cookies::plain_http()).unwrap();
    // The loop of `rouille::start_server`, which does not tell the port.
    let server = rouille::Server::new("127.0.0.1:0", move |request| {
        http::rouille::serve(&sessions, request, |request, session| -> sessile::Result<_> {
            let n = session.update_now("n", |n: &mut u64| {
                *n += 1;
                *n
            })?;
            if request.url() == "/short" {
                session.set_expiry(Expiry::After(SECOND / 5));
            }
            Ok(rouille::Response::text(n.to_string()))
        })
    });
    let server = server.unwrap().pool_size(4);
    parent.report(server.server_addr());
    server.run();
}

fn serve(dir: &Path) -> (Child, SocketAddr) {
    let server = Start::of("serve and reap").with("DIR", dir).start();
    let address = server.line().parse().unwrap();
    (server, address)
}

/// A visitor: the cookie, and the number of answered visits.
#[derive(Default)]
struct Visitor {
    jar: Jar,
    visits: u64,
}

impl Visitor {
    /// Visits the page; `None` if the server has been killed.
    fn visit(&mut self, server: &mut Client, path: &str) -> Option<u64> {
        let cookie = self.jar.header().map_or_else(String::new, |cookie| format!("Cookie: {cookie}\r\n"));
        server.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{cookie}\r\n")).ok()?;
        let response = server.receive().ok()?;
        assert_eq!(response.status, 200, "{}", response.text());
        self.jar.receive(response.all("Set-Cookie"));
        self.visits = response.text().parse().unwrap();
        Some(self.visits)
    }

    fn public_id(&self) -> PublicId {
        SessionId::parse(self.jar.get("session").unwrap()).unwrap().public_id()
    }
}

#[test]
fn a_killed_server_keeps_live_sessions_and_removes_expired_ones() {
    let dir = directory_in_memory();
    // The time in milliseconds for which each server runs after the first visit of a passing visitor. The last server
    // has no such visitor.
    let lives = [0, 130, 50, 380, 15];
    let mut regulars = [Visitor::default(), Visitor::default()];
    let mut passers_by = Vec::new();
    for life in lives.map(Some).into_iter().chain([None]) {
        let (server, address) = serve(dir.path());
        let connect = || Client::connect(address);
        for regular in &mut regulars {
            let before = regular.visits;
            let now = regular.visit(&mut connect(), "/").unwrap();
            // A visit may have been saved without an answer when the server was killed.
            assert!(now > before && now <= before + 2, "{now} visits after {before}");
        }
        // The files of passing visitors of the rounds before this one, and of the server that was killed, must be gone.
        let file = |visitor: &Visitor| path_of(dir.path(), visitor.public_id());
        eventually("expired sessions are removed", || !passers_by.iter().any(|gone| file(gone).exists()));
        let Some(life) = life else {
            server.kill();
            break;
        };
        thread::scope(|scope| {
            for regular in &mut regulars {
                let mut client = connect();
                scope.spawn(move || while regular.visit(&mut client, "/").is_some() {});
            }
            let mut client = connect();
            let (passed, has_passed) = channel();
            let passing = scope.spawn(move || {
                let mut came = Vec::new();
                loop {
                    let mut visitor = Visitor::default();
                    if visitor.visit(&mut client, "/short").is_none() {
                        return came;
                    }
                    came.push(visitor);
                    let _ = passed.send(());
                }
            });
            has_passed.recv_timeout(PATIENCE).expect("a passer-by is served");
            thread::sleep(Duration::from_millis(life));
            server.kill();
            passers_by = passing.join().unwrap();
        });
    }
}
