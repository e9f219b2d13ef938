//! Sweeps: the threads that share one, the lock that lets one go on at a time, and the thread that makes them.
use super::*;
use crate::file::root_lock::LockedRoot;
use crate::file::{ReaperOptions, SweepOptions, SweepOutcome, SweepProgress, SweepReport};
use crate::id::PublicId;
use crate::sync::{Instant, set_timers, step, thread};
use std::collections::HashSet;
use std::fs::{self, File};
use std::ops::ControlFlow::{Break, Continue};
use std::path::PathBuf;
use std::sync::Mutex;

/// Stores on one directory, for all runs of a model; in each, the index begins anew.
struct Swept {
    place: Place,
    stores: Vec<Arc<FileStore>>,
}

impl Swept {
    fn new(stores: usize) -> Self {
        let place = Place::new();
        let stores: Vec<_> = (0..stores).map(|_| place.open(LONG)).collect();
        // The first sweep of all looks at every shard, and no other does.
        sweep(&stores[0], &AtomicBool::new(false));
        Self { place, stores }
    }

    /// So many sessions that have expired; their files. The same in each run, in shards of their own.
    fn expired(&self, count: u8) -> Vec<PathBuf> {
        // What runs before have filed, and a sweep has struck out.
        for entry in fs::read_dir(self.place.dir.path().join("run/due")).unwrap() {
            let path = entry.unwrap().path();
            if !path.ends_with("sweep") {
                fs::remove_file(path).unwrap();
            }
        }
        let files: Vec<_> = (0..count).map(|n| self.expire(n)).collect();
        assert_eq!(files.iter().map(|file| file.parent()).collect::<HashSet<_>>().len(), files.len());
        files
    }

    /// Makes this session, whose time is over.
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

/// Two threads' worth.
fn crew() -> SweepOptions {
    SweepOptions::new().cpu_percent(200)
}

fn sweep(store: &FileStore, is_to_stop: &AtomicBool) -> SweepReport {
    let tell = |_: &SweepProgress<'_>| if is_to_stop.load(SeqCst) { Break(()) } else { Continue(()) };
    store.sweep_with(&crew(), tell).unwrap()
}

#[test]
fn a_crew_does_all_there_is_and_its_report_has_what_each_thread_did() {
    run(2, 1, |swept| {
        let files = swept.expired(3);
        let report = sweep(&swept.stores[0], &AtomicBool::new(false));
        assert_eq!(
            (report.outcome, report.removed, report.examined, report.failed),
            (SweepOutcome::Completed, 3, 3, 0)
        );
        assert!(!files.iter().any(|file| file.exists()));
    });
}

#[test]
fn a_crew_that_is_stopped_at_any_point_comes_home_and_the_next_sweep_does_the_rest() {
    run(2, 1, |swept| {
        let files = swept.expired(2);
        let is_to_stop = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_to_stop);
        let stopper = shuttle::thread::spawn(move || {
            step();
            stop.store(true, SeqCst);
        });
        let first = sweep(&swept.stores[0], &is_to_stop);
        assert_eq!(first.removed, files.iter().filter(|file| !file.exists()).count() as u64);
        assert!(first.outcome == SweepOutcome::Cancelled || first.removed == 2, "{first:?}");
        stopper.join().unwrap();
        let second = sweep(&swept.stores[0], &AtomicBool::new(false));
        assert_eq!((second.outcome, first.removed + second.removed), (SweepOutcome::Completed, 2));
    });
}

#[test]
fn one_of_two_sweeps_goes_on_and_the_other_leaves() {
    run(2, 2, |swept| {
        let files = swept.expired(1);
        let told = Arc::new(Mutex::new(Vec::new()));
        let sweeps: Vec<_> = (0..2)
            .map(|n| {
                let (store, told) = (Arc::clone(&swept.stores[n]), Arc::clone(&told));
                shuttle::thread::spawn(move || {
                    let tell = |_: &SweepProgress<'_>| {
                        told.lock().unwrap().push(n);
                        Continue(())
                    };
                    store.sweep_with(&SweepOptions::new().cpu_percent(100), tell).unwrap()
                })
            })
            .collect();
        let reports: Vec<_> = sweeps.into_iter().map(|sweep| sweep.join().unwrap()).collect();
        assert_eq!(reports.iter().map(|report| report.removed).sum::<u64>(), 1);
        assert!(reports.iter().any(|report| report.outcome == SweepOutcome::Completed));
        assert!(!files[0].exists());
        // Who is told of two sweeps at a time hears of them in turns.
        let mut told = told.lock().unwrap().clone();
        told.dedup();
        assert!(told.len() <= 2, "two sweeps at a time: {told:?}");
    });
}

/// How a reaper ends.
#[derive(Clone, Copy)]
enum Ending {
    Closed,
    Dropped,
    /// The store goes first.
    Orphaned,
}

/// A reaper that is asked for a sweep at once, whose timer goes off so often, and that is ended at any point.
fn reaper(timers: usize, asks: bool, ending: Ending) {
    let place = OnceLock::new();
    check(2, move || {
        set_timers(timers);
        let place = place.get_or_init(Place::new);
        let store = place.open(LONG);
        let (is_over, late) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (over, too_late) = (Arc::clone(&is_over), Arc::clone(&late));
        // Counted, and not asserted there: a reaper survives an observer that panics.
        let observer = move |_: &crate::Result<SweepReport>| {
            too_late.fetch_add(usize::from(over.load(SeqCst)), SeqCst);
        };
        let options = ReaperOptions::new().sweep(SweepOptions::new().cpu_percent(100)).observer(observer);
        let reaper = store.start_reaper(options).unwrap();
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
                let root = File::open(place.dir.path()).unwrap();
                let alone = LockedRoot::acquire(root, Instant::now() + SHORT).unwrap();
                assert!(alone.is_some(), "the store is still open");
                return;
            }
        }
        is_over.store(true, SeqCst);
        // Time for a thread that was not waited for.
        thread::sleep(SHORT);
        assert_eq!(late.load(SeqCst), 0, "a sweep after the end");
        assert_eq!(Arc::strong_count(&store), 1, "its thread has the store still");
    });
}

#[test]
fn a_reaper_is_ended_at_any_point_and_nothing_is_swept_afterwards() {
    reaper(1, false, Ending::Closed);
    reaper(0, true, Ending::Closed);
    reaper(1, false, Ending::Dropped);
}

#[test]
fn a_store_is_closed_at_any_point_though_a_reaper_has_it() {
    reaper(1, false, Ending::Orphaned);
}

#[test]
fn a_sweep_that_is_asked_for_comes_also_while_another_is_under_way() {
    run(1, 1, |swept| {
        let mut files = swept.expired(1);
        let reaper = swept.stores[0].start_reaper(ReaperOptions::new()).unwrap();
        reaper.sweep_now();
        // At any point of the first.
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
