//! A series of `kill -9`: several processes full of writers, of which a random one is killed at a random instant and
//! replaced at once. No acknowledged save is lost, an ended session stays ended, no record is torn or another
//! session's, no lock stays held, and at the end one sweep removes all leftovers.
//!
//! All writers save and load in all places. Only its owner ends, rotates and refills a place, so the process that
//! replaces a killed owner knows which operations are half done. Acknowledgements and operation counts are in the
//! ledger. A kill never loses data that the kernel has received, so this tests atomicity and locks, not power cuts.
//!
//! One process has an extra thread that sweeps and creates sessions that expire at once. These are not in the ledger:
//! at the end a sweep leaves none of them.
use crate::figures::{Figures, words};
use crate::stage::{CELLS_TAKEN, Going, ledger, options, stop, store_in};
use crate::support::checker::{COUNTS, Checker, Counts, Findings, Saving, check_at_rest, marked};
use crate::support::dice::Dice;
use crate::support::ledger::{Ledger, Life};
use crate::support::process::{Child, Parent, Start, Worker};
use crate::support::texts::files_in_shards;
use crate::support::versions;
use sessile::admin::{SweepOptions, SweepOutcome};
use sessile::file::{Content, ScannedFile};
use sessile::{Admin, Durability, FileStore, PublicId, Record, Store, Timing, Token, Verdict};
use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

trials! {
    kills_lose_revive_and_tear_no_session_and_leave_no_lock,
}

pub(crate) const WORKERS: &[(&str, Worker)] = &[("work until killed", work)];

const PROCESSES: usize = 8;
const THREADS: usize = 4;
const WRITERS: usize = PROCESSES * THREADS;
/// The writer number for operations before and after the kills. The numbers of the lanes follow.
const HEALER: usize = WRITERS;
/// The number of threads that kill processes, each those of its own lane. One would be too few: a killed process takes
/// time to end if all processors are busy.
const LANES: usize = 4;
/// The number of the process that also sweeps.
const SWEEPER: usize = PROCESSES - 1;
/// The longest lifetime of a session that is created to be swept.
const SHORT_LIFE_MAX: Duration = Duration::from_millis(50);
/// The number of places: two for each writer. The owner of a place is the writer `place % WRITERS`.
const PLACES: u64 = 2 * WRITERS as u64;
/// The longest pause between two kills of a lane, in microseconds.
const PAUSE_MAX: u64 = 30_000;
/// The time after which a save has met a lock that is never released.
const WAIT: Duration = Duration::from_secs(20);

/// The report of a process that has opened the store.
const READY: &str = "ready";

/// The number of the first cell of the ledger in which a writer has its counters.
fn cells_of(writer: usize) -> u64 {
    CELLS_TAKEN + (writer * COUNTS) as u64
}

/// The cells of the ledger in which the sweeper counts its sweeps and the removed sessions, and marks that it is
/// sweeping.
const SWEEPS: u64 = CELLS_TAKEN + (WRITERS * COUNTS) as u64;
const REMOVED: u64 = SWEEPS + 1;
const SWEEPING: u64 = SWEEPS + 2;

fn kills_lose_revive_and_tear_no_session_and_leave_no_lock(dir: &Path, time: Duration) -> Figures {
    let ledger = ledger(dir);
    let files = options().cache_bytes(0).lock_wait(WAIT).open(store_in(dir)).unwrap();
    let mut healer = Checker::new(&files, &ledger, HEALER, 0);
    (0..PLACES).for_each(|place| healer.create_in(place));
    let mut figures = Figures::default();
    let storm = Storm { dir, files: &files, ledger: &ledger, time, begun: Mutex::default() };
    let start = Instant::now();
    thread::scope(|scope| {
        let storm = &storm;
        let lanes: Vec<_> =
            (0..LANES).map(|lane| scope.spawn(move || storm.kill_again_and_again(lane))).collect();
        for lane in lanes {
            figures.add_thread(lane);
        }
    });
    let begun = storm.begun.into_inner().unwrap();
    if start.elapsed() < time && !figures.has_faults() {
        figures.fault("a process stopped the run and was killed before it reported the reason");
    }
    for writer in 0..WRITERS {
        figures.add(Findings { counts: counts_of(&ledger, writer), faults: Vec::new() }.into());
    }
    figures.sweeps = ledger.cell(SWEEPS);
    figures.removed = ledger.cell(REMOVED);
    if !figures.has_faults() {
        figures.check(|| heal(&mut healer, &ledger));
        figures.check(|| check_at_rest(&files, &ledger, PLACES));
        figures.check(|| clear(&files, &ledger, begun));
        figures.check(|| check_no_lock(dir, &ledger));
    }
    let of_kills = [
        ("kills", figures.kills),
        ("sweeps", figures.sweeps),
        ("sessions that a sweep removed", figures.removed),
    ];
    let met = [&figures.of_checkers()[..], &of_kills].concat();
    figures.check_met(time, &met);
    // In a run of a second there may be none of these kills.
    if time >= Duration::from_secs(10) {
        figures.check_met(time, &[("kills during a sweep", figures.kills_in_sweeps)]);
    }
    figures
}

/// The state that all lanes share.
struct Storm<'a> {
    dir: &'a Path,
    files: &'a FileStore,
    ledger: &'a Ledger,
    time: Duration,
    /// The lives whose creation, or rotation to them, had begun when their process was killed, and which the ledger
    /// does not have.
    begun: Mutex<HashSet<Life>>,
}

impl Storm<'_> {
    /// Kills random processes of its lane until the time is over or a fault was found.
    fn kill_again_and_again(&self, lane: usize) -> Figures {
        let mut started = lane;
        let mut start = |process: usize| {
            started += LANES;
            let start = Start::of(WORKERS[0].0).with("DIR", self.dir).with("PROCESS", process.to_string());
            start.with("SEED", started.to_string()).start()
        };
        let processes = lane..PROCESSES;
        let mut children: Vec<_> =
            processes.step_by(LANES).map(|process| (process, Some(start(process)))).collect();
        let mut healer = Checker::new(self.files, self.ledger, HEALER + 1 + lane, lane as u64);
        let mut dice = Dice::new(lane as u64);
        let mut figures = Figures::default();
        let going = Going::on_for(self.ledger, self.time);
        while going.on_until(self.ledger.cell(REMOVED) > 0) {
            thread::sleep(Duration::from_micros(dice.roll(PAUSE_MAX)));
            let one = usize::try_from(dice.roll(children.len() as u64)).unwrap();
            let (process, child) = &mut children[one];
            if take_faults(&mut figures, child.take(), Child::kill) {
                figures.kills += 1;
            } else {
                figures.early_kills += 1;
            }
            self.note_begun(*process);
            if *process == SWEEPER {
                figures.kills_in_sweeps += self.ledger.cell(SWEEPING);
                self.ledger.set_cell(SWEEPING, 0);
            }
            *child = Some(start(*process));
            // Creates sessions that expire at once. The sweeper may be killed before it creates any.
            figures.check(|| make_short_lived(self.files, &mut dice));
            // Shows that no lock stays held: this thread saves one session within the wait limit. The other processes
            // save all of them.
            let life = healer.life_in(dice.roll(PLACES));
            figures.check(|| {
                healer.load(life);
                healer.save(life);
            });
            if !healer.findings.faults.is_empty() || figures.has_faults() {
                going.stop();
            }
        }
        stop(self.ledger);
        for (_, child) in children {
            take_faults(&mut figures, child, Child::finish);
        }
        figures.add(healer.findings.into());
        figures
    }

    /// Notes the lives that the writers of a killed process were about to create: those that the ledger had given to
    /// them, and that it has no session for.
    fn note_begun(&self, process: usize) {
        let given = writers_of(process).filter_map(|writer| self.ledger.last_given(writer));
        self.begun.lock().unwrap().extend(given.filter(|life| !self.ledger.has(*life)));
    }
}

fn writers_of(process: usize) -> Range<usize> {
    THREADS * process..THREADS * (process + 1)
}

/// Ends a child by `end`. Any report other than "ready" is a fault, and so is an exit of its own. Returns whether the
/// child had reported that it was ready.
fn take_faults(figures: &mut Figures, child: Option<Child>, end: fn(Child) -> Vec<String>) -> bool {
    let child = child.expect("a killed process is replaced at once");
    let mut was_ready = false;
    figures.check(|| {
        let (ready, faults): (Vec<_>, Vec<_>) = end(child).into_iter().partition(|line| line == READY);
        was_ready = !ready.is_empty();
        assert!(faults.is_empty(), "{}", faults.join("; "));
    });
    was_ready
}

fn counts_of(ledger: &Ledger, writer: usize) -> Counts {
    let first = cells_of(writer);
    Counts::of_words((first..cells_of(writer + 1)).map(|cell| ledger.cell(cell)))
}

/// Saves every session once, after which it must be at the version in its row of the ledger. A life that is in no place
/// is one whose owner was killed.
#[track_caller]
fn heal(healer: &mut Checker<'_>, ledger: &Ledger) {
    let in_place: Vec<_> = (0..PLACES).map(|place| ledger.life_in(place)).collect();
    for life in &in_place {
        assert!(healer.save(*life), "{life:?} is absent, and its owner had time to create another");
    }
    for life in ledger.lives().filter(|life| !ledger.row(*life).ended && !in_place.contains(life)) {
        healer.end(life);
    }
    assert_eq!(healer.findings.faults, [""; 0], "at rest");
}

/// One sweep removes all expired sessions, whatever happened to earlier sweeps. One full sweep removes all leftovers
/// once they are old. Neither removes anything else: the sessions stay, and those whose creation had
/// [`begun`](Storm::begun) in a process that was killed before the acknowledgement.
///
/// A kill also cuts a write short, at a page boundary. So a part of a large session that was being created may be
/// there, which is counted as a damaged file. It does not name its life; there is at most one for each life that had
/// begun and is not there whole.
#[track_caller]
fn clear(store: &FileStore, ledger: &Ledger, mut begun: HashSet<Life>) {
    thread::sleep(SHORT_LIFE_MAX);
    let expired = expired(store).len() as u64;
    let options = SweepOptions::new().cpu_percent(100);
    let report = store.sweep(&options).unwrap();
    let wrong = [report.files.unknown, report.failed];
    assert_eq!(
        (report.outcome, report.removed, wrong),
        (SweepOutcome::Completed, expired, [0; 2]),
        "{report:?}"
    );
    let left = sessions_and_leftovers(store);
    let then = SystemTime::now() - Duration::from_secs(2 * 3600);
    for path in &left {
        File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
    }
    let report = store.sweep(&options.full(true)).unwrap();
    let wrong = [report.removed, report.files.unknown, report.failed];
    assert_eq!((report.outcome, wrong), (SweepOutcome::Completed, [0; 3]), "{report:?}");
    let files = sessions_and_leftovers(store);
    let cleared = (left.len() - files.len()) as u64;
    assert_eq!(cleared, report.files.temporary, "{report:?}");
    let on_its_way = |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(".new-");
    let left: Vec<_> = files.iter().filter(on_its_way).collect();
    assert!(left.is_empty(), "after one sweep: {left:?}");
    let known: HashSet<_> = ledger.lives().map(|life| id_of(&ledger.token(life))).collect();
    let (mut torn, mut nameless) = (0, 0);
    for file in store.files().map(Result::unwrap) {
        match file.content {
            Content::Live(found) if known.contains(&found.id) => {}
            Content::Live(found) => {
                let life = marked(&found.record);
                assert!(begun.remove(&life), "{life:?} is there, and no killed process had begun it");
                nameless += 1;
            }
            Content::Damaged(id) if !known.contains(&id) => torn += 1,
            other => panic!("{}: {other:?}", file.path.display()),
        }
    }
    assert_eq!(files.len() as u64, PLACES + nameless + torn);
    let others = begun.len() as u64;
    assert!(torn <= others, "{torn} torn sessions, but only {others} of those that had begun are absent");
    println!(
        "  at rest, one sweep removed {expired} sessions and one {cleared} leftovers; of {} sessions whose creation had begun, {nameless} are there, \
         and parts of {torn}",
        nameless + others
    );
}

/// The files in the shards, and leftovers beside them: a kill amid a sweep may leave a part of an index.
fn sessions_and_leftovers(store: &FileStore) -> Vec<PathBuf> {
    let mut files = files_in_shards(store.path());
    let temporary =
        store.files().map(Result::unwrap).filter(|file| matches!(file.content, Content::Temporary));
    files.extend(temporary.map(|file| file.path));
    files.sort_unstable();
    files.dedup();
    files
}

fn id_of(token: &Token) -> PublicId {
    PublicId::digest(token.expose().as_bytes())
}

/// A store that was opened after all kills saves every session twice, without waiting for a lock.
#[track_caller]
fn check_no_lock(dir: &Path, ledger: &Ledger) {
    let store = options().lock_wait(Duration::from_millis(1)).open(store_in(dir)).unwrap();
    for place in 0..PLACES {
        let token = ledger.token(ledger.life_in(place));
        for how in [Durability::Relaxed, Durability::PowerSafe] {
            let before = versions::stored(&store, &token).expect("it is live");
            let change = &mut versions::next(10);
            store.update(&token, change, how).unwrap().expect("it is live");
            assert_eq!(versions::stored(&store, &token), Some(before + 1));
        }
    }
}

fn work(parent: &Parent) {
    let dir = Path::new(parent.argument("DIR"));
    let process = usize::try_from(parent.number("PROCESS")).unwrap();
    let options = options().lock_wait(WAIT);
    let options = if process == 1 { options.cache_bytes(0) } else { options };
    let store = options.open(store_in(dir)).unwrap();
    let ledger = ledger(dir);
    parent.report(READY);
    let seed = parent.number("SEED");
    // Reports the faults that a thread found.
    let report = |find: &dyn Fn() -> Vec<String>| {
        let faults = catch_unwind(AssertUnwindSafe(find)).unwrap_or_else(|thrown| vec![words(&*thrown)]);
        if !faults.is_empty() {
            // The faults are written before the stop flag is set: a process that sees the flag then finds the reason,
            // too.
            for fault in faults {
                parent.report(fault.replace('\n', " "));
            }
            stop(&ledger);
        }
    };
    thread::scope(|scope| {
        let (store, ledger, report) = (&store, &ledger, &report);
        // The sweeper's thread starts first, because the process may be killed soon.
        if process == SWEEPER {
            scope.spawn(move || {
                report(&|| {
                    sweep_again_and_again(store, ledger, seed);
                    Vec::new()
                });
            });
        }
        for writer in writers_of(process) {
            scope.spawn(move || report(&|| work_in_places(store, ledger, writer, seed)));
        }
    });
}

/// Sweeps, and creates sessions that expire at once, until the run stops.
#[track_caller]
fn sweep_again_and_again(store: &FileStore, ledger: &Ledger, seed: u64) {
    let mut dice = Dice::new(seed + (1 << 33));
    let going = Going::on(ledger);
    while going.on_still() {
        if dice.roll(4) == 0 {
            // The expired sessions are listed before a full sweep, which would also find those that the index has lost.
            let mut due = expired(store);
            for _ in 0..3 {
                sweep(store, ledger, false);
                due.retain(|path| path.exists());
            }
            // A sweep leaves a session that is in use to the next sweep.
            assert!(due.is_empty(), "expired, and still there after three sweeps: {due:?}");
            sweep(store, ledger, true);
        } else {
            sweep(store, ledger, false);
        }
        for _ in 0..dice.roll(8) {
            make_short_lived(store, &mut dice);
        }
    }
}

#[track_caller]
fn sweep(store: &FileStore, ledger: &Ledger, full: bool) {
    ledger.set_cell(SWEEPING, 1);
    let report = store.sweep(&SweepOptions::new().full(full).cpu_percent(100)).unwrap();
    let (sweeps, removed) = (ledger.cell(SWEEPS) + 1, ledger.cell(REMOVED) + report.removed);
    ledger.set_cells(SWEEPS, &[sweeps, removed, 0]);
    // A kill may leave a part of a large session, which is counted as damage.
    let wrong = [report.files.unknown, report.failed];
    assert_eq!((report.outcome, wrong), (SweepOutcome::Completed, [0; 2]), "{report:?}");
}

/// The paths of the files of expired sessions.
fn expired(store: &FileStore) -> Vec<PathBuf> {
    let expired = |file: ScannedFile| matches!(file.content, Content::Expired(_)).then_some(file.path);
    store.files().map(Result::unwrap).filter_map(expired).collect()
}

/// Creates a session that expires at once. One in four is renewed before, so that a sweep has to insert it into the
/// index again.
fn make_short_lived(store: &FileStore, dice: &mut Dice) {
    let most = u64::try_from(SHORT_LIFE_MAX.as_micros()).unwrap();
    let mut soon = || store.now() + Duration::from_micros(dice.roll(most));
    let mut record = versions::new(store, 1, 10);
    record.set_timing(Timing { deadline: soon(), ..record.timing() });
    let saved = store.create(&record, Durability::Relaxed).unwrap();
    let until = record.deadline().max(soon());
    if dice.roll(4) == 0 {
        let renew = &mut |record: &mut Record| {
            record.set_timing(Timing { deadline: until, ..record.timing() });
            Ok(Verdict::Write)
        };
        // The update may find that the session has expired.
        store.update(&saved.token, renew, Durability::Relaxed).unwrap();
    }
}

/// The work of one writer thread, until the run stops or the thread has found a fault. Returns the descriptions of the
/// faults.
fn work_in_places(store: &FileStore, ledger: &Ledger, writer: usize, seed: u64) -> Vec<String> {
    let mut checker = Checker::new(store, ledger, writer, seed * WRITERS as u64 + writer as u64);
    checker.saving = Saving { safe: true, renews: false, large: true };
    let mut dice = Dice::new(seed * WRITERS as u64 + writer as u64 + (1 << 32));
    let before = counts_of(ledger, writer);
    take_over(&mut checker, ledger, writer);
    let going = Going::on(ledger);
    while going.on_still() && checker.findings.faults.is_empty() {
        let own = writer as u64 + dice.roll(2) * WRITERS as u64;
        match dice.roll(100) {
            0..6 => {
                let life = checker.life_in(own);
                checker.end(life);
                checker.create_in(own);
            }
            6..12 => {
                let life = checker.life_in(own);
                checker.rotate(own, life);
            }
            12..16 => checker.load_a_dead_one(),
            choice => {
                let life = checker.life_in(dice.roll(PLACES));
                if choice < 50 {
                    checker.save(life);
                } else {
                    checker.load(life);
                }
            }
        }
        // A fault is counted before it is reported, so that the count remains if the process is killed between the two.
        if dice.roll(16) == 0 || !checker.findings.faults.is_empty() {
            let mut counts = before;
            counts += checker.findings.counts;
            ledger.set_cells(cells_of(writer), &counts.words());
        }
    }
    checker.findings.faults
}

/// Completes the operations in a writer's places that the killed owner has left half done.
fn take_over(checker: &mut Checker<'_>, ledger: &Ledger, writer: usize) {
    let own = [0, 1].map(|n| writer as u64 + n * WRITERS as u64);
    if let Some(life) = ledger.last_given(writer)
        && ledger.has(life)
        && !ledger.row(life).ended
        && own.iter().all(|place| ledger.life_in(*place) != life)
    {
        checker.end(life);
    }
    for place in own {
        let life = checker.life_in(place);
        if ledger.row(life).ending {
            checker.end(life);
            checker.create_in(place);
        }
    }
}
