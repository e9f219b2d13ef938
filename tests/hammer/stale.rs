//! Writers that are killed or stopped between a change and its invalidation, while other processes have cached the
//! session. The next operation on the session, by any process, makes the missing invalidation.
use crate::figures::Figures;
use crate::rounds::Rounds;
use crate::stage::{CELLS_TAKEN, Going, ledger, open, open_without_cache, options, stop, store_in};
use crate::support::checker::{Checker, Count, Counts, Findings, Mix, check_at_rest};
use crate::support::dice::Dice;
use crate::support::ledger::{Ledger, Life};
use crate::support::process::{Child, Parent, Start, Worker};
use crate::support::texts::path_of;
use crate::support::versions;
use sessile::{Durability, ErrorKind, FileStore, PublicId, Record, Store, Token, Verdict};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

trials! {
    after_kills_one_operation_refreshes_every_warm_reader,
    a_writer_stopped_beside_a_logout_serves_no_entry_of_its_own,
    a_writer_stopped_beside_a_later_save_finds_that_save,
}

pub(crate) const WORKERS: &[(&str, Worker)] = &[
    ("change until killed", change_until_killed),
    ("load all the time", load_all_the_time),
    ("save beside a logout", save_beside_a_logout),
    ("save beside a save", save_beside_a_save),
];

/// The number of writers that run, and are killed, at the same time. Each has its own sessions.
const LANES: u64 = 2;
const PLACES: u64 = 8;
const READERS: u64 = 2;
/// The cells of the ledger in which each reader counts how often it has loaded every session.
const PASSES: u64 = CELLS_TAKEN;
/// The writer numbers of operations after a kill, of killed writers, and of readers.
const HEALER: usize = 0;
const WRITER: usize = 2;
const READER: usize = 4;
const _: () = assert!(HEALER as u64 + LANES <= WRITER as u64 && WRITER as u64 + LANES <= READER as u64);
/// How often a writer is stopped in the search for an instant between a change and its invalidation.
const STOPS_MAX: u32 = 64;
/// The size of a text that is too large for the file of a small session.
const LARGE: usize = 6_000;
/// The time limit for an operation on a busy machine.
const SOON: Duration = Duration::from_secs(60);

fn number(value: u64) -> usize {
    usize::try_from(value).unwrap()
}

fn file_of(store: &FileStore, token: &Token) -> PathBuf {
    path_of(store.path(), PublicId::digest(token.expose().as_bytes()))
}

fn after_kills_one_operation_refreshes_every_warm_reader(dir: &Path, time: Duration) -> Figures {
    let files = open_without_cache(dir);
    let ledger = ledger(dir);
    for lane in 0..LANES {
        let mut maker = Checker::new(&files, &ledger, HEALER + number(lane), lane);
        (0..PLACES).for_each(|place| maker.create_in(lane * PLACES + place));
    }
    let readers: Vec<_> = (0..READERS)
        .map(|n| Start::of("load all the time").with("DIR", dir).with("READER", n.to_string()).start())
        .collect();
    let rounds = Rounds::new(time, &[MISSED]);
    let mut findings = Findings::default();
    thread::scope(|scope| {
        let (files, ledger, rounds) = (&files, &ledger, &rounds);
        let kill = |lane| kill_again_and_again(files, ledger, lane, rounds);
        let lanes: Vec<_> = (0..LANES).map(|lane| scope.spawn(move || kill(lane))).collect();
        for lane in lanes {
            findings.add(lane.join().unwrap());
        }
    });
    stop(&ledger);
    for reader in readers {
        findings.add(Findings::of(&reader.finish()));
    }
    let (kills, counts): (u64, Counts) = (rounds.done(), findings.counts);
    counts.check("killed writers", &findings.faults);
    check_at_rest(&files, &ledger, LANES * PLACES);
    assert!(counts[Count::Loads] > 20 * kills && counts[Count::DeadLoads] > kills, "{counts:?}");
    assert!(counts[Count::Hits] > counts[Count::Misses], "the caches answered too few loads: {counts:?}");
    let mut figures: Figures = findings.into();
    figures.add(rounds.figures());
    figures
}

/// The event that a killed writer has changed a session and not invalidated it in a cache that has it.
const MISSED: &str = "changes without an invalidation";

/// Kills one writer after the other. Loads the writer's sessions while it works. After the kill, performs one operation
/// on each of them, and waits until every reader has loaded it again.
fn kill_again_and_again(files: &FileStore, ledger: &Ledger, lane: u64, rounds: &Rounds) -> Findings {
    let dir = files.path().parent().expect("a store beside its ledger");
    let warm = open(dir);
    let places = lane * PLACES..(lane + 1) * PLACES;
    let mut dice = Dice::new(300 + lane);
    let mut healer = Checker::new(files, ledger, HEALER + number(lane), 310 + lane);
    let mut reader = Checker::new(&warm, ledger, READER, 320 + lane);
    while let Some(kill) = rounds.next() {
        let start = Start::of("change until killed").with("DIR", dir).with("LANE", lane.to_string());
        let child = start.with("SEED", kill.to_string()).start();
        assert_eq!(child.line(), "ready");
        let until = Instant::now() + Duration::from_micros(dice.roll(8_000));
        let load_all = |reader: &mut Checker<'_>| {
            for place in places.clone() {
                let life = reader.life_in(place);
                reader.load(life);
            }
        };
        while Instant::now() < until {
            load_all(&mut reader);
            thread::sleep(Duration::from_micros(300));
        }
        // Every other kill comes at a chosen instant. The writer is stopped again and again, until it has changed a
        // session and this cache would still return the version before.
        for _ in 0..if kill % 2 == 0 { STOPS_MAX } else { 0 } {
            load_all(&mut reader);
            dice.pause(300);
            child.stop();
            if places.clone().any(|place| is_behind(files, &mut reader, place)) {
                break;
            }
            child.go_on();
        }
        assert_eq!(child.kill(), [""; 0]);
        for place in places.clone() {
            rounds.count(MISSED, u64::from(is_behind(files, &mut reader, place)));
            let life = ledger.life_in(place);
            let is_live = if dice.roll(4) == 0 {
                healer.end(life);
                false
            } else {
                healer.save(life)
            };
            // Now the invalidation was made, so all loads are checked against the new state.
            reader.load(life);
            if !is_live {
                healer.create_in(place);
            }
        }
        let passes: Vec<_> = (0..READERS).map(|n| ledger.cell(PASSES + n)).collect();
        let began = Instant::now();
        // The pass that is under way may have loaded that session already, so the next pass is awaited.
        while (0..READERS).any(|n| ledger.cell(PASSES + n) < passes[number(n)] + 2) {
            assert!(began.elapsed() < SOON, "a reader is stuck");
            thread::yield_now();
        }
    }
    let mut findings = reader.findings;
    findings.add_stats(&warm);
    findings.add(healer.findings);
    findings
}

/// Whether the reader's store would return another version of the session in a place than its file has.
fn is_behind(files: &FileStore, reader: &mut Checker<'_>, place: u64) -> bool {
    let life = reader.life_in(place);
    let there = versions::stored(files, &reader.token(life));
    there != reader.peek(life)
}

fn change_until_killed(parent: &Parent) {
    let dir = Path::new(parent.argument("DIR"));
    let (lane, ledger) = (parent.number("LANE"), ledger(dir));
    let store = open(dir);
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
    let store = open(dir);
    let mut checker = Checker::new(&store, &ledger, READER, 330 + reader);
    let going = Going::on(&ledger);
    for pass in 1.. {
        for place in 0..LANES * PLACES {
            let life = checker.life_in(place);
            checker.load(life);
        }
        (0..4).for_each(|_| checker.load_a_dead_one());
        ledger.set_cell(PASSES + reader, pass);
        if !going.on_still() {
            break;
        }
        thread::sleep(Duration::from_micros(200));
    }
    checker.findings.add_stats(&store);
    checker.findings.report_to(parent);
}

/// Creates a session and tells the worker to change it.
fn begin(store: &FileStore, ledger: &Ledger, worker: &mut Child, round: u64) -> (Life, Token) {
    let token = store.create(&versions::new(store, 1, 10), Durability::Relaxed).unwrap().token;
    let life = Life::of(0, round);
    ledger.begin(life, &token, 0, 1);
    worker.say(round);
    assert_eq!(worker.line(), "at work");
    (life, token)
}

/// A writer is stopped at any instant, and a logout does not wait for it. When the writer continues, it finds the
/// session ended, even if it was about to cache the record that it had saved.
fn a_writer_stopped_beside_a_logout_serves_no_entry_of_its_own(dir: &Path, time: Duration) -> Figures {
    let store = open_impatient(dir);
    let ledger = ledger(dir);
    let mut worker: Child = Start::of("save beside a logout").with("DIR", dir).start();
    let mut dice = Dice::new(9);
    let rounds = Rounds::new(time, &[]);
    while let Some(round) = rounds.next() {
        let (life, token) = begin(&store, &ledger, &mut worker, round);
        dice.pause(300);
        worker.stop();
        assert!(store.delete(&token).unwrap().is_some(), "round {round}");
        ledger.ended(life);
        worker.go_on();
        assert_eq!(worker.line(), "None", "round {round}: found by the stopped writer");
        assert_eq!(versions::stored(&store, &token), None, "round {round}");
    }
    worker.say("end");
    worker.finish();
    rounds.figures()
}

/// Opens a store with a short wait limit, because many operations find the session locked by a stopped process.
fn open_impatient(dir: &Path) -> FileStore {
    options().lock_wait(Duration::from_millis(1)).open(store_in(dir)).unwrap()
}

/// A worker process: for each order, reports "at work" and applies `operation` to the session that the order names.
fn for_each_order(parent: &Parent, operation: impl Fn(&Ledger, &FileStore, Life, &Token)) {
    let dir = Path::new(parent.argument("DIR"));
    let (ledger, store) = (ledger(dir), open(dir));
    loop {
        let order = parent.line();
        if order == "end" {
            return;
        }
        let life = Life::of(0, order.parse().unwrap());
        parent.report("at work");
        operation(&ledger, &store, life, &ledger.token(life));
    }
}

fn save_beside_a_logout(parent: &Parent) {
    for_each_order(parent, |ledger, store, life, token| {
        let found = loop {
            let change = &mut versions::next(10);
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

/// A writer is stopped near the end of its save, also between the exchange of the files and the invalidation. Another
/// process saves the next version, and invalidates first. When the stopped writer continues, it must not cache its own
/// version as the newest.
fn a_writer_stopped_beside_a_later_save_finds_that_save(dir: &Path, time: Duration) -> Figures {
    let store = open_impatient(dir);
    let ledger = ledger(dir);
    let mut worker = Start::of("save beside a save").with("DIR", dir).start();
    let mut dice = Dice::new(10);
    let rounds = Rounds::new(time, &["later saves", "later saves that were refused"]);
    while let Some(round) = rounds.next() {
        let (life, token) = begin(&store, &ledger, &mut worker, round);
        // The larger file has replaced the old one. The rest of the save takes less time than this pause.
        while std::fs::metadata(file_of(&store, &token)).unwrap().len() < LARGE as u64 {
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
                rounds.count("later saves", 1);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Busy);
                rounds.count("later saves that were refused", 1);
            }
        }
        worker.go_on();
        let found = worker.line();
        assert_eq!(found, "in order", "round {round}: by the stopped writer");
        assert!(store.delete(&token).unwrap().is_some(), "round {round}");
    }
    worker.say("end");
    worker.finish();
    rounds.figures()
}

/// A worker process: saves sessions in larger files, and loads them.
fn save_beside_a_save(parent: &Parent) {
    for_each_order(parent, |ledger, store, life, token| {
        let change = &mut versions::next(LARGE);
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
