//! The reaper over stores that are no directories, and over a store whose kind is known at run time only
//! (`Arc<dyn Admin>`): it removes, stops, ends with its store, and outlives a server that cannot be reached.
use crate::rows::{Line, store};
use crate::support::rerun::{command, stage};
use crate::support::texts::directory_in_memory;
use crate::support::waiting::eventually;
use sessile::reaper::{Reaper, ReaperOptions, ReaperStats};
use sessile::rows::{MemoryRows, MemoryStore, RowStoreOptions};
use sessile::store_url::StoreUrl;
use sessile::{Admin, Clock, Durability, Error, ErrorKind, Record, SweepOptions};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// The longest wait for an expected event.
const PATIENCE: Duration = Duration::from_secs(30);

fn create(store: &dyn Admin, age: Duration) {
    let record = Record::new(store.now(), store.now() + age);
    store.create(&record, Durability::Relaxed).unwrap();
}

fn often() -> ReaperOptions {
    ReaperOptions::new().interval(SECOND / 10).sweep(SweepOptions::new().cpu_percent(100))
}

/// What the observer is told: the number of removed sessions, or the kind of the error.
type Told = Result<u64, ErrorKind>;

/// Starts a reaper. The channel of reports is closed when its thread has ended.
fn start<S: Admin + ?Sized + 'static>(store: &Arc<S>, options: ReaperOptions) -> (Reaper, Receiver<Told>) {
    let (sender, reports) = channel();
    let options = options.observer(move |swept| {
        let _ = sender.send(swept.as_ref().map(|report| report.removed).map_err(Error::kind));
    });
    (Reaper::start(store, options).unwrap(), reports)
}

/// Receives reports until the thread has ended.
#[track_caller]
fn check_ends(reports: &Receiver<Told>) {
    let began = Instant::now();
    loop {
        match reports.recv_timeout(PATIENCE) {
            Ok(_) => assert!(began.elapsed() < PATIENCE, "it goes on"),
            Err(error) => return assert_eq!(error, RecvTimeoutError::Disconnected),
        }
    }
}

#[test]
fn expired_sessions_are_removed_from_every_kind_of_store() {
    let dir = directory_in_memory();
    let database = directory_in_memory();
    let stores: [Arc<dyn Admin>; 4] = [
        Arc::new(MemoryStore::new()),
        StoreUrl::parse("memory:").unwrap().open().unwrap(),
        StoreUrl::parse(dir.path()).unwrap().open().unwrap(),
        StoreUrl::parse(format!("sqlite:{}/a.db", database.path().display())).unwrap().open().unwrap(),
    ];
    for store in stores {
        (0..20).for_each(|_| create(&*store, HOUR));
        let reaper = Reaper::start(&store, often()).unwrap();
        // Two sweeps, to show that the thread does not stop after the first.
        for _ in 0..2 {
            (0..20).for_each(|_| create(&*store, SECOND / 5));
            eventually("the expired are removed", || store.count().unwrap() == 20);
        }
        let ReaperStats { sweeps, removed, errors, panics, .. } = reaper.close();
        assert!(sweeps >= 2, "{sweeps}");
        assert_eq!((removed, errors, panics), (40, 0, 0));
        assert_eq!(store.stats().swept, 40);
        // Its thread has ended.
        create(&*store, Duration::ZERO);
        thread::sleep(SECOND / 3);
        assert_eq!(store.count().unwrap(), 21);
    }
}

#[test]
fn a_dropped_store_on_a_server_ends_its_reaper() {
    let rows = Arc::new(MemoryRows::new(Clock::system()));
    let weak = Arc::downgrade(&rows);
    let store: Arc<dyn Admin> = Arc::new(RowStoreOptions::new().open(rows).unwrap());
    let (reaper, reports) = start(&store, often());
    reports.recv_timeout(PATIENCE).unwrap().unwrap();
    drop(store);
    check_ends(&reports);
    assert_eq!(Weak::strong_count(&weak), 0, "the store is dropped, too");
    reaper.sweep_now();
    assert_eq!(reaper.close().errors, 0);
}

#[test]
fn a_long_sweep_of_rows_stops_with_its_reaper_or_store() {
    for drops_store in [false, true] {
        let store: Arc<dyn Admin> = Arc::new(MemoryStore::new());
        (0..50).for_each(|_| create(&*store, Duration::ZERO));
        let (reaper, reports) = start(&store, often().sweep(SweepOptions::new().per_second(1)));
        eventually("the sweep has begun", || store.count().unwrap() < 50);
        // The rest of the sweep would take most of a minute.
        let began = Instant::now();
        if drops_store {
            drop(store);
        } else {
            let stats = reaper.close();
            assert!((1..50).contains(&stats.removed), "{stats:?}");
        }
        check_ends(&reports);
        assert!(began.elapsed() < 20 * SECOND, "{:?}", began.elapsed());
    }
}

/// Fails as a server that cannot be reached.
fn away() -> sessile::Result<()> {
    Err(Error::new(ErrorKind::Unavailable, "reach the server"))
}

/// Fails as a driver with a fault.
fn faulty() -> sessile::Result<()> {
    panic!("the driver gives up")
}

#[test]
fn a_server_that_is_away_or_panics_does_not_end_the_reaper() {
    for (fails, kind) in [(away as fn() -> _, ErrorKind::Unavailable), (faulty, ErrorKind::Panicked)] {
        let line = Line::new();
        let store = Arc::new(store(&line));
        (0..5).for_each(|_| create(&*store, Duration::ZERO));
        line.guard("sweep", fails);
        let (reaper, reports) = start(&store, often());
        for _ in 0..3 {
            assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), Err(kind));
        }
        line.guard("sweep", || Ok(()));
        eventually("it sweeps again", || store.count().unwrap() == 0);
        let stats = reaper.close();
        assert!(stats.errors >= 3 && stats.sweeps > stats.errors, "{stats:?}");
        assert_eq!(stats.panics, if kind == ErrorKind::Panicked { stats.errors } else { 0 });
        assert_eq!(stats.removed, 5);
    }
}

/// In a process of its own, whose standard error is read.
#[test]
fn without_an_observer_an_unreachable_server_is_a_line_each() {
    if stage().is_some() {
        let line = Line::new();
        let store = Arc::new(store(&line));
        line.guard("sweep", away);
        let reaper = Reaper::start(&store, often()).unwrap();
        thread::sleep(2 * SECOND);
        let stats = reaper.close();
        assert!(stats.errors >= 2 && stats.panics == 0, "{stats:?}");
        // The harness has begun a line.
        println!("\n{} errors", stats.errors);
        return;
    }
    let dir = directory_in_memory();
    let name = "reaper_stores::without_an_observer_an_unreachable_server_is_a_line_each";
    let output = command(name, dir.path()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
    let errors: usize = out.lines().find_map(|line| line.strip_suffix(" errors")?.parse().ok()).unwrap();
    let lines = err.lines().filter(|line| line.contains("failed to reach the server")).count();
    assert_eq!(lines, errors, "{err}");
}
