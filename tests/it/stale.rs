//! Writers that are killed or stopped between a change and its invalidation, beside processes with warm
//! caches: the next operation on the session, by any process, makes the missing invalidation.
use crate::coherence::{file_of, open, open_without_cache};
use crate::support::checker::{Checker, Count, Counts, Findings, Mix, check_at_rest};
use crate::support::ledger::{Ledger, Life};
use crate::support::process::{Child, Dice, Parent, Start, Worker, assert_met, rounds};
use crate::support::versions;
use sessile::{Durability, ErrorKind, FileStore, FileStoreOptions, Record, Store, Token, Verdict};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) const WORKERS: &[(&str, Worker)] = &[
    ("change until killed", change_until_killed),
    ("load all the time", load_all_the_time),
    ("save beside a logout", save_beside_a_logout),
    ("save beside a save", save_beside_a_save),
];

/// Writers that run, and are killed, at the same time; each has its own sessions.
const LANES: u64 = 2;
const PLACES: u64 = 8;
const READERS: u64 = 2;
/// Cells of the ledger: whether the readers must stop, and how often each has loaded every session.
const STOP: u64 = 0;
const ROUNDS: u64 = 1;
/// Writer numbers of the operations after a kill, of killed writers, and of readers.
const HEALER: usize = 0;
const WRITER: usize = 2;
const READER: usize = 4;
const _: () = assert!(HEALER as u64 + LANES <= WRITER as u64 && WRITER as u64 + LANES <= READER as u64);
/// How many times as many kills there are on a busy machine, at most.
const BUSY: u64 = 8;
/// Bytes of a text that does not fit a file created for a small session.
const LARGE: usize = 6_000;
/// Time limit for an operation on a busy machine.
const SOON: Duration = Duration::from_secs(60);

fn ledger(dir: &Path) -> Ledger {
    Ledger::open(&dir.join("ledger"))
}

fn number(value: u64) -> usize {
    usize::try_from(value).unwrap()
}

#[test]
fn after_kills_one_operation_refreshes_every_warm_reader() {
    let dir = TempDir::new().unwrap();
    let files = open_without_cache(&dir.path().join("store"));
    let ledger = ledger(dir.path());
    for lane in 0..LANES {
        let mut maker = Checker::new(&files, &ledger, HEALER + number(lane), lane);
        (0..PLACES).for_each(|place| maker.create_in(lane * PLACES + place));
    }
    let readers: Vec<_> = (0..READERS)
        .map(|n| Start::of("load all the time").with("DIR", dir.path()).with("READER", n.to_string()).start())
        .collect();
    let kills = rounds(500).div_ceil(LANES);
    let mut sum = Missed::default();
    let mut findings = Findings::default();
    let is_met = AtomicBool::new(false);
    thread::scope(|scope| {
        let (dir, files, ledger, is_met) = (dir.path(), &files, &ledger, &is_met);
        let kill = |lane| kill_again_and_again(dir, files, ledger, lane, kills, is_met);
        let lanes: Vec<_> = (0..LANES).map(|lane| scope.spawn(move || kill(lane))).collect();
        for lane in lanes {
            let (missed, found) = lane.join().unwrap();
            sum.saves += missed.saves;
            sum.ends += missed.ends;
            findings.add(found);
        }
    });
    ledger.set_cell(STOP, 1);
    for reader in readers {
        findings.add(Findings::of(&reader.finish()));
    }
    let counts: Counts = findings.counts;
    counts.check("killed writers", &findings.faults);
    check_at_rest(&files, &ledger, LANES * PLACES);
    if kills > 100 {
        assert!(sum.saves + sum.ends > 0, "no kill came between a change and its invalidation: {sum:?}");
        assert!(counts[Count::Loads] > 20 * kills && counts[Count::DeadLoads] > kills, "{counts:?}");
        assert!(counts[Count::Hits] > counts[Count::Misses], "the caches answered too few loads: {counts:?}");
    }
}

/// Number of changes by killed writers that did not invalidate a warm cache.
#[derive(Debug, Default)]
struct Missed {
    saves: u64,
    ends: u64,
}

/// Kills one writer after the other. Loads its sessions while it works; after the kill, performs one
/// operation on each of them, and waits until every reader has loaded it again.
fn kill_again_and_again(
    dir: &Path,
    files: &FileStore,
    ledger: &Ledger,
    lane: u64,
    kills: u64,
    is_met: &AtomicBool,
) -> (Missed, Findings) {
    let warm = open(&dir.join("store"));
    let places = lane * PLACES..(lane + 1) * PLACES;
    let mut dice = Dice::new(300 + lane);
    let mut healer = Checker::new(files, ledger, HEALER + number(lane), 310 + lane);
    let mut reader = Checker::new(&warm, ledger, READER, 320 + lane);
    let mut missed = Missed::default();
    // On a busy machine few kills come at that instant: more are made until one did, in any lane.
    for kill in (0..kills * BUSY).take_while(|kill| *kill < kills || !is_met.load(Ordering::Relaxed)) {
        let start = Start::of("change until killed").with("DIR", dir).with("LANE", lane.to_string());
        let child = start.with("SEED", (kill * LANES + lane).to_string()).start();
        assert_eq!(child.line(), "ready");
        let until = Instant::now() + Duration::from_micros(dice.roll(8_000));
        let mut met = false;
        while Instant::now() < until && !met {
            for place in places.clone() {
                let life = reader.life_in(place);
                reader.load(life);
            }
            // Every other kill comes at the critical instant: when a file has just been unlinked, or replaced
            // by a larger one.
            let life = reader.life_in(places.start + dice.roll(PLACES));
            let file = file_of(warm.path(), &ledger.token(life));
            let pause = Instant::now() + Duration::from_micros(300);
            met = kill % 2 == 0 && wait_for_change(&file, pause);
            // Otherwise the writer is killed while it runs.
            if !met {
                thread::sleep(pause.saturating_duration_since(Instant::now()));
            }
        }
        assert_eq!(child.kill(), [""; 0]);
        for place in places.clone() {
            let life = ledger.life_in(place);
            let there = versions::stored(files, &ledger.token(life));
            match (there, reader.peek(life)) {
                (None, Some(_)) => missed.ends += 1,
                (there, seen) => missed.saves += u64::from(there != seen),
            }
            let is_live = if dice.roll(4) == 0 {
                healer.end(life);
                false
            } else {
                healer.save(life)
            };
            // Now the invalidation was made, and all loads are checked against the new state.
            reader.load(life);
            if !is_live {
                healer.create_in(place);
            }
        }
        if missed.saves + missed.ends > 0 {
            is_met.store(true, Ordering::Relaxed);
        }
        let rounds: Vec<_> = (0..READERS).map(|n| ledger.cell(ROUNDS + n)).collect();
        let began = Instant::now();
        // The round in progress may have passed that session already.
        while (0..READERS).any(|n| ledger.cell(ROUNDS + n) < rounds[number(n)] + 2) {
            assert!(began.elapsed() < SOON, "a reader is stuck");
            thread::yield_now();
        }
    }
    let mut findings = reader.findings;
    findings.add_stats(&warm);
    findings.add(healer.findings);
    (missed, findings)
}

/// Waits until a file is gone or has another size. Returns whether that happened before `until`.
fn wait_for_change(file: &Path, until: Instant) -> bool {
    let size = || std::fs::metadata(file).ok().map(|file| file.len());
    let before = size();
    while Instant::now() < until {
        if size() != before {
            return true;
        }
    }
    false
}

fn change_until_killed(parent: &Parent) {
    let dir = Path::new(parent.argument("DIR"));
    let (lane, ledger) = (parent.number("LANE"), ledger(dir));
    let store = open(&dir.join("store"));
    let mut checker = Checker::new(&store, &ledger, WRITER + number(lane), parent.number("SEED"));
    parent.report("ready");
    while checker.findings.faults.is_empty() {
        checker.step(lane * PLACES, PLACES, Mix { saves: 600, ends: 250, rotations: 30 });
    }
    checker.findings.report_to(parent);
}

fn load_all_the_time(parent: &Parent) {
    let dir = Path::new(parent.argument("DIR"));
    let (reader, ledger) = (parent.number("READER"), ledger(dir));
    let store = open(&dir.join("store"));
    let mut checker = Checker::new(&store, &ledger, READER, 330 + reader);
    for round in 1.. {
        for place in 0..LANES * PLACES {
            let life = checker.life_in(place);
            checker.load(life);
        }
        (0..4).for_each(|_| checker.load_a_dead_one());
        ledger.set_cell(ROUNDS + reader, round);
        if ledger.cell(STOP) > 0 {
            break;
        }
        thread::sleep(Duration::from_micros(200));
    }
    checker.findings.add_stats(&store);
    checker.findings.report_to(parent);
}

/// A writer is stopped at any instant, and a logout does not wait for it. When the writer continues, it knows
/// of the logout, even if it was about to cache the record that it had saved.
#[test]
fn a_writer_stopped_beside_a_logout_serves_no_entry_of_its_own() {
    let dir = TempDir::new().unwrap();
    let store = open_impatient(&dir.path().join("store"));
    let ledger = ledger(dir.path());
    let mut worker: Child = Start::of("save beside a logout").with("DIR", dir.path()).start();
    let mut dice = Dice::new(9);
    for round in 0..rounds(1_000) {
        let token = store.create(&versions::new(&store, 1, 10), Durability::Relaxed).unwrap().token;
        let life = Life::of(0, round);
        ledger.begin(life, &token, 0, 1);
        worker.say(round);
        assert_eq!(worker.line(), "at work");
        dice.pause(300);
        worker.stop();
        assert!(store.delete(&token).unwrap(), "round {round}");
        ledger.ended(life);
        worker.go_on();
        assert_eq!(worker.line(), "None", "round {round}: found by the stopped writer");
        assert_eq!(versions::stored(&store, &token), None, "round {round}");
    }
    worker.say("end");
    worker.finish();
}

/// Many operations find the session locked by a stopped process, and wait this long.
fn open_impatient(dir: &Path) -> FileStore {
    let options = FileStoreOptions::new().lock_wait(Duration::from_millis(1));
    options.sync_security_events(false).watch(false).open(dir).unwrap()
}

/// Reports "at work" for each order, and applies `act` to the session that it names.
fn for_each_order(parent: &Parent, act: impl Fn(&Ledger, &FileStore, Life, &Token)) {
    let dir = Path::new(parent.argument("DIR"));
    let ledger = ledger(dir);
    let store = open(&dir.join("store"));
    loop {
        let order = parent.line();
        if order == "end" {
            return;
        }
        let life = Life::of(0, order.parse().unwrap());
        parent.report("at work");
        act(&ledger, &store, life, &ledger.token(life));
    }
}

fn save_beside_a_logout(parent: &Parent) {
    for_each_order(parent, |ledger, store, life, token| {
        let found = loop {
            let change = &mut |record: &mut Record| {
                versions::put(record, versions::of(record) + 1, 10);
                Ok(Verdict::Write)
            };
            store.update(token, change, Durability::Relaxed).unwrap();
            let ended = ledger.row(life).ended;
            let found = versions::stored(store, token);
            if ended {
                break found;
            }
        };
        parent.report(format_args!("{found:?}"));
    });
}

/// A writer is stopped near its end, also between putting a larger file in place and the invalidation.
/// Another process then saves the next version, and invalidates first. When the stopped writer continues, it
/// does not cache its own version as the newest.
#[test]
fn a_writer_stopped_beside_a_later_save_finds_that_save() {
    let dir = TempDir::new().unwrap();
    let store = open_impatient(&dir.path().join("store"));
    let ledger = ledger(dir.path());
    let mut worker = Start::of("save beside a save").with("DIR", dir.path()).start();
    let mut dice = Dice::new(10);
    let rounds = rounds(500);
    let mut saved = 0;
    for round in 0..rounds {
        let token = store.create(&versions::new(&store, 1, 10), Durability::Relaxed).unwrap().token;
        let life = Life::of(0, round);
        ledger.begin(life, &token, 0, 1);
        worker.say(round);
        assert_eq!(worker.line(), "at work");
        // Its larger file is in place; the remaining work takes less time than this.
        while std::fs::metadata(file_of(store.path(), &token)).unwrap().len() < LARGE as u64 {
            std::hint::spin_loop();
        }
        dice.pause(100);
        worker.stop();
        let change = &mut |record: &mut Record| {
            let bytes = record.entries().get("bytes").unwrap().get().unwrap();
            versions::put(record, versions::of(record) + 1, bytes);
            Ok(Verdict::Write)
        };
        match store.update(&token, change, Durability::Relaxed) {
            Ok(next) => {
                let version = versions::of(&next.expect("it is live").live.record);
                ledger.acknowledge(life, 0, version);
                saved += 1;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Busy),
        }
        worker.go_on();
        let found = worker.line();
        assert_eq!(found, "in order", "round {round}: by the stopped writer");
    }
    assert_met("saves", saved, rounds);
    assert_met("saves that were refused", rounds - saved, rounds);
    worker.say("end");
    worker.finish();
}

/// Saves sessions so that they need a larger file, and loads them.
fn save_beside_a_save(parent: &Parent) {
    for_each_order(parent, |ledger, store, life, token| {
        let change = &mut |record: &mut Record| {
            versions::put(record, versions::of(record) + 1, LARGE);
            Ok(Verdict::Write)
        };
        let saved = store.update(token, change, Durability::Relaxed).unwrap().expect("it is live");
        let least = versions::of(&saved.live.record).max(ledger.row(life).version);
        let found = versions::stored(store, token);
        if found >= Some(least) {
            parent.report("in order");
        } else {
            parent.report(format_args!("{found:?} where {least} was acknowledged"));
        }
    });
}
