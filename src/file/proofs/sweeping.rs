//! Sweeps: stopping a sweep, the lock that allows one sweep at a time, and the reaper's thread.
use super::*;
use crate::admin::{Admin, SweepOptions, SweepOutcome, SweepProgress, SweepReport};
use crate::file::root_lock::LockedRoot;
use crate::id::PublicId;
use crate::reaper::{Reaper, ReaperOptions};
use crate::sync::{Instant, set_timers, step, thread};
use std::fs::{self, File};
use std::ops::ControlFlow::{Break, Continue};
use std::path::PathBuf;
use std::sync::Mutex;

/// Stores on one directory, for all runs of a model. Each run begins with an empty index.
struct Swept {
    fixture: Fixture,
    stores: Vec<Arc<FileStore>>,
}

impl Swept {
    fn new(stores: usize) -> Self {
        let fixture = Fixture::new();
        let stores: Vec<_> = (0..stores).map(|_| fixture.open(LONG)).collect();
        // Only the first sweep walks every shard.
        sweep(&stores[0], &AtomicBool::new(false));
        Self { fixture, stores }
    }

    /// Creates `count` expired sessions, the same in each run. Returns their files.
    fn expired(&self, count: u8) -> Vec<PathBuf> {
        // The index has erased entries of earlier runs.
        for entry in fs::read_dir(self.fixture.dir.path().join("run/due")).unwrap() {
            let path = entry.unwrap().path();
            if !path.ends_with("sweep") {
                fs::remove_file(path).unwrap();
            }
        }
        (0..count).map(|n| self.expire(n)).collect()
    }

    /// Creates the expired session with the number `n`.
    fn expire(&self, n: u8) -> PathBuf {
        let (store, id) = (&self.stores[0], PublicId::digest(&[n]));
        let second = Duration::from_secs(1);
        assert!(store.import(&id, &record(1, store.now() - second, second), Durability::Relaxed).unwrap());
        store.path().join(crate::file::layout::SessionPath::of(&id).as_str())
    }
}

fn run(preemptions_max: usize, stores: usize, model: impl Fn(&Swept) + Send + Sync + 'static) {
    let swept = OnceLock::new();
    check(preemptions_max, move || {
        set_timers(0);
        model(swept.get_or_init(|| Swept::new(stores)));
    });
}

fn unthrottled() -> SweepOptions {
    SweepOptions::new().cpu_percent(100)
}

fn sweep(store: &FileStore, is_to_stop: &AtomicBool) -> SweepReport {
    let mut progress = |_: &SweepProgress<'_>| if is_to_stop.load(SeqCst) { Break(()) } else { Continue(()) };
    store.sweep_with(&unthrottled(), &mut progress).unwrap()
}

#[test]
fn a_sweep_stopped_at_any_point_leaves_the_rest_to_the_next() {
    // With this many files, a sweep calls the progress callback several times. Two calls are 50 readings of the model's
    // clock apart.
    const COUNT: u8 = 30;
    let midway = Arc::new(AtomicUsize::new(0));
    let stopped_midway = Arc::clone(&midway);
    run(2, 1, move |swept| {
        let files = swept.expired(COUNT);
        let is_to_stop = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_to_stop);
        let stopper = shuttle::thread::spawn(move || {
            step();
            stop.store(true, SeqCst);
        });
        let first = sweep(&swept.stores[0], &is_to_stop);
        assert_eq!(first.removed, files.iter().filter(|file| !file.exists()).count() as u64);
        let all = u64::from(COUNT);
        assert!(first.outcome == SweepOutcome::Cancelled || first.removed == all, "{first:?}");
        stopped_midway.fetch_add(usize::from((1..all).contains(&first.removed)), SeqCst);
        stopper.join().unwrap();
        let second = sweep(&swept.stores[0], &AtomicBool::new(false));
        assert_eq!((second.outcome, first.removed + second.removed), (SweepOutcome::Completed, all));
    });
    assert!(midway.load(SeqCst) > 0, "no sweep was stopped between two files");
}

#[test]
fn one_of_two_concurrent_sweeps_returns_at_once() {
    run(2, 2, |swept| {
        let files = swept.expired(1);
        let reported = Arc::new(Mutex::new(Vec::new()));
        let sweeps: Vec<_> = (0..2)
            .map(|n| {
                let (store, reported) = (Arc::clone(&swept.stores[n]), Arc::clone(&reported));
                shuttle::thread::spawn(move || {
                    let mut progress = |_: &SweepProgress<'_>| {
                        reported.lock().unwrap().push(n);
                        Continue(())
                    };
                    store.sweep_with(&unthrottled(), &mut progress).unwrap()
                })
            })
            .collect();
        let reports: Vec<_> = sweeps.into_iter().map(|sweep| sweep.join().unwrap()).collect();
        assert_eq!(reports.iter().map(|report| report.removed).sum::<u64>(), 1);
        assert!(reports.iter().any(|report| report.outcome == SweepOutcome::Completed));
        assert!(!files[0].exists());
        // If two sweeps ran at the same time, their reports would alternate.
        let mut reported = reported.lock().unwrap().clone();
        reported.dedup();
        assert!(reported.len() <= 2, "two sweeps at a time: {reported:?}");
    });
}

/// The way in which a reaper is stopped.
#[derive(Clone, Copy)]
enum Ending {
    Closed,
    Dropped,
    /// The store is dropped before the reaper.
    Orphaned,
}

/// Runs a reaper that gets a request for a sweep if `asks`, and whose timer fires `timers` times. It is stopped at any
/// point.
fn reaper(timers: usize, asks: bool, ending: Ending) {
    let fixture = OnceLock::new();
    check(2, move || {
        set_timers(timers);
        let fixture = fixture.get_or_init(Fixture::new);
        let store = fixture.open(LONG);
        let (is_over, late) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (over, too_late) = (Arc::clone(&is_over), Arc::clone(&late));
        // The late sweeps are counted and not asserted in the observer, because a reaper survives an observer that
        // panics.
        let observer = move |_: &crate::Result<SweepReport>| {
            too_late.fetch_add(usize::from(over.load(SeqCst)), SeqCst);
        };
        let options = ReaperOptions::new().sweep(unthrottled()).observer(observer);
        let reaper = Reaper::start(&store, options).unwrap();
        if asks {
            reaper.sweep_now();
        }
        match ending {
            Ending::Closed => {
                let reaped = reaper.close();
                assert_eq!((reaped.errors, reaped.panics), (0, 0));
                assert!(reaped.sweeps <= timers as u64 + u64::from(asks));
            }
            Ending::Dropped => drop(reaper),
            Ending::Orphaned => {
                drop(store);
                drop(reaper);
                let root = File::open(fixture.dir.path()).unwrap();
                let alone = LockedRoot::acquire(root, Instant::now() + SHORT).unwrap();
                assert!(alone.is_some(), "the store is still open");
                return;
            }
        }
        is_over.store(true, SeqCst);
        // A thread that was not joined may need time for its sweep.
        thread::sleep(SHORT);
        assert_eq!(late.load(SeqCst), 0, "a sweep after the end");
        assert_eq!(Arc::strong_count(&store), 1, "its thread has the store still");
    });
}

#[test]
fn a_reaper_stopped_at_any_point_sweeps_no_more() {
    reaper(1, false, Ending::Closed);
    reaper(0, true, Ending::Closed);
    reaper(1, false, Ending::Dropped);
}

#[test]
fn a_store_is_closed_at_any_point_though_a_reaper_has_it() {
    reaper(1, false, Ending::Orphaned);
}

#[test]
fn a_sweep_requested_during_another_one_comes() {
    run(1, 1, |swept| {
        let mut files = swept.expired(1);
        let reaper = Reaper::start(&swept.stores[0], ReaperOptions::new()).unwrap();
        reaper.sweep_now();
        // The second request comes at any point of the first sweep.
        step();
        files.push(swept.expire(1));
        reaper.sweep_now();
        let mut patience = 0..2000;
        while files.iter().any(|file| file.exists()) {
            assert!(patience.next().is_some(), "an ask was lost");
            thread::sleep(SHORT);
        }
        reaper.close();
    });
}
