//! The sweep beside all other operations on the same sessions in other processes: a session that is renewed in time lives
//! on, one whose renewal was refused or that has expired is gone for good, no entry of the expiry index is lost between
//! insertions and a sweep, and a sweep that is killed is finished by the next one.
use crate::support::process::{Child, Dice, Parent, Start, Worker, assert_met, rounds};
use crate::support::texts::{directory_in_memory, files_in_shards, path_of};
use crate::support::versions;
use sessile::file::{SweepOptions, SweepOutcome, SweepPhase, SweepReport};
use sessile::{
    Clock, Durability, FileStore, FileStoreOptions, Lookup, PublicId, Record, Saved, Store, Timing, Token,
    Verdict,
};
use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::ops::ControlFlow::{Break, Continue};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

pub(crate) const WORKERS: &[(&str, Worker)] = &[
    ("sweep all the time", sweep_all_the_time),
    ("sweep once, to be killed", sweep_once),
    ("insert at the end of an hour", insert_at_the_end_of_an_hour),
    ("sweep after the end of an hour", sweep_after_the_end_of_an_hour),
    ("work in fast hours", work_in_fast_hours),
    ("sweep in fast hours", sweep_in_fast_hours),
    ("operation near deadlines", operate_near_deadlines),
];

const RELAXED: Durability = Durability::Relaxed;
const MICRO: Duration = Duration::from_micros(1);
const MILLI: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// An hour that manual clocks show.
const BASE: u32 = 490_000;
/// Longest wait on a busy machine: beyond it, an operation hangs.
const SOON: Duration = Duration::from_secs(20);

/// The beginning of an hour.
fn hour(hours: u32) -> SystemTime {
    UNIX_EPOCH + hours * HOUR
}

fn some(dice: &mut Dice, unit: Duration, below: u32) -> Duration {
    unit * u32::try_from(dice.roll(below.into())).unwrap()
}

/// The races are about locks, names and entries; none needs its logouts on the disk.
fn open(root: &Path, clock: Clock) -> FileStore {
    let options = FileStoreOptions::new().lock_wait(SOON).sync_security_events(false).watch(false);
    options.clock(clock).open(root).unwrap()
}

fn root_of(parent: &Parent) -> PathBuf {
    Path::new(parent.argument("DIR")).join("store")
}

fn token(text: &str) -> Token {
    Token::parse(text).unwrap()
}

fn create(store: &FileStore, deadline: SystemTime) -> Saved {
    let mut record = versions::new(store, 1, 10);
    record.set_timing(Timing { deadline, ..record.timing() });
    store.create(&record, RELAXED).unwrap()
}

/// Moves a session's deadline; `inside` is done under its lock.
fn renew(store: &FileStore, token: &Token, to: SystemTime, mut inside: impl FnMut()) -> Option<Saved> {
    let change = &mut |record: &mut Record| {
        inside();
        versions::put(record, versions::of(record) + 1, 10);
        record.set_timing(Timing { deadline: to, ..record.timing() });
        Ok(Verdict::Write)
    };
    store.update(token, change, RELAXED).unwrap()
}

fn is_live(store: &FileStore, token: &Token) -> bool {
    match store.load(token).unwrap() {
        Lookup::Live(live) => versions::of(&live.record) > 0,
        Lookup::Absent(sessile::Absent::NotFound(_) | sessile::Absent::Expired(_)) => false,
        Lookup::Absent(other) => panic!("{other:?}"),
    }
}

/// A sweep that completes without failures.
#[track_caller]
fn sweep(store: &FileStore, options: &SweepOptions) -> SweepReport {
    let report = sweep_or_leave(store, options);
    assert_eq!(report.outcome, SweepOutcome::Completed);
    report
}

/// The same, unless another one is running.
#[track_caller]
fn sweep_or_leave(store: &FileStore, options: &SweepOptions) -> SweepReport {
    let report = store.sweep(&options.clone().cpu_percent(100)).unwrap();
    let failures = (report.damaged, report.unknown, report.failed);
    assert_eq!(failures, (0, 0, 0), "{report:?}");
    report
}

/// One sweep by the index alone.
#[track_caller]
fn sweep_due(store: &FileStore) -> SweepReport {
    let options = SweepOptions::new().cpu_percent(100);
    let report = store.sweep_with(&options, |progress| {
        assert_eq!(progress.phase, SweepPhase::Due, "a second walk in the same hour");
        Continue(())
    });
    let report = report.unwrap();
    assert_eq!((report.outcome, report.failed), (SweepOutcome::Completed, 0), "{report:?}");
    report
}

#[track_caller]
fn check_empty(root: &Path) {
    assert_eq!(files_in_shards(root), [""; 0].map(PathBuf::from), "left behind");
}

/// Waits until an instant, without sleeping beyond it.
fn wait_until(clock: &Clock, instant: SystemTime) {
    while let Ok(left) = instant.duration_since(clock.now()) {
        match left {
            Duration::ZERO => return,
            long if long > 300 * MICRO => thread::sleep(long.saturating_sub(200 * MICRO)),
            _ => std::hint::spin_loop(),
        }
    }
}

/// Starts a process that repeats an operation until a file beside the store stops it.
fn start(worker: Start, dir: &TempDir) -> Child {
    let child = worker.with("DIR", dir.path()).start();
    assert_eq!(child.line(), "ready");
    child
}

fn stop(dir: &TempDir) {
    File::create(dir.path().join("stop")).unwrap();
}

fn is_stopped(parent: &Parent) -> bool {
    Path::new(parent.argument("DIR")).join("stop").exists()
}

fn by_the_index() -> Start {
    Start::of("sweep all the time").with("WALKS", "0")
}

/// Sweeps by the system's clock, with `WALKS` also by walks, and reports how many sessions it removed and found renewed.
fn sweep_all_the_time(parent: &Parent) {
    let store = open(&root_of(parent), Clock::system());
    let (mut removed, mut renewed) = (0, 0);
    parent.report("ready");
    let walks = parent.number("WALKS") == 1;
    for pass in 0_u64.. {
        if is_stopped(parent) {
            break;
        }
        let report = sweep(&store, &SweepOptions::new().full(walks && pass % 8 == 7));
        removed += report.removed;
        renewed += report.renewed;
    }
    parent.report(format_args!("{removed} {renewed}"));
}

/// The counts of removed and renewed sessions from the process that [sweeps all the time](sweep_all_the_time).
#[track_caller]
fn swept(child: Child) -> [u64; 2] {
    let last = child.finish().pop().unwrap();
    let words: Vec<u64> = last.split(' ').map(|word| word.parse().unwrap()).collect();
    words.try_into().unwrap()
}

/// How renewals beside the sweep ended.
#[derive(Debug, Default)]
struct Renewals {
    renewed: u64,
    refused: u64,
    /// Sessions that must be gone at the end.
    dead: Vec<Saved>,
    /// Sessions that must be there.
    kept: Vec<Saved>,
}

#[test]
fn a_renewal_beside_a_sweep_holds_exactly_if_acknowledged() {
    const IN_ONE_STORE: u64 = 500;
    const THREADS: u64 = 2;
    let rounds = rounds(2_000);
    let (mut sum, mut removed, mut found_renewed) = (Renewals::default(), 0, 0);
    for part in 0..rounds.div_ceil(IN_ONE_STORE) {
        let dir = directory_in_memory();
        let root = dir.path().join("store");
        let store = open(&root, Clock::system());
        let sweeper = start(by_the_index(), &dir);
        let each = IN_ONE_STORE.min(rounds - part * IN_ONE_STORE).div_ceil(THREADS);
        let renewals: Vec<Renewals> = thread::scope(|scope| {
            let race = |n| renew_near_deadlines(&store, 10 * part + n, each);
            let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || race(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        stop(&dir);
        let swept = swept(sweeper);
        removed += swept[0];
        found_renewed += swept[1];
        sweep(&store, &SweepOptions::new());
        let files = files_in_shards(&root).len();
        for of_one in &renewals {
            for session in &of_one.dead {
                assert!(!is_live(&store, &session.token), "alive after it was refused or had expired");
                assert!(!path_of(&root, session.live.id).exists(), "an expired session is left");
            }
            for session in &of_one.kept {
                assert!(is_live(&store, &session.token), "a renewed session was removed");
                assert!(path_of(&root, session.live.id).exists());
            }
            sum.renewed += of_one.renewed;
            sum.refused += of_one.refused;
        }
        assert_eq!(files, renewals.iter().map(|of_one| of_one.kept.len()).sum::<usize>());
    }
    assert_met("renewals in time", sum.renewed, rounds);
    assert_met("renewals that came too late", sum.refused, rounds);
    assert_met("removals by the sweep", removed, rounds);
    assert_met("sessions that the sweep found renewed", found_renewed, rounds);
}

/// Renews sessions around their deadlines, one after the other, each until a renewal is refused or four have succeeded.
fn renew_near_deadlines(store: &FileStore, seed: u64, rounds: u64) -> Renewals {
    const AT_ONCE: usize = 4;
    let clock = Clock::system();
    let mut dice = Dice::new(seed);
    let mut done = Renewals::default();
    let mut racing = VecDeque::new();
    let mut last = clock.now();
    // How early a renewal begins, in microseconds; adjusted so that about half of them succeed on a busy machine.
    let mut lead: u32 = 200;
    for _ in 0..rounds {
        // One after the other, in the order of their deadlines.
        let mut next = |dice: &mut Dice| {
            last = last.max(clock.now() + MILLI) + 700 * MICRO + some(dice, MICRO, 300);
            last
        };
        while racing.len() < AT_ONCE {
            racing.push_back((create(store, next(&mut dice)), 0));
        }
        let (session, renewals): (Saved, u32) = racing.pop_front().unwrap();
        let deadline = session.live.record.deadline();
        wait_until(&clock, deadline - lead * MICRO + some(&mut dice, MICRO, 200));
        // Half of them hold the lock until the session would have expired.
        let until = if dice.roll(2) == 0 { deadline + some(&mut dice, MICRO, 400) } else { UNIX_EPOCH };
        let is_last = renewals == 3;
        let to = if is_last { clock.now() + HOUR } else { next(&mut dice) };
        let renewed = renew(store, &session.token, to, || wait_until(&clock, until));
        let found = is_live(store, &session.token);
        let is_there = path_of(store.path(), session.live.id).exists();
        let now = clock.now();
        lead = if renewed.is_some() { lead.saturating_sub(50) } else { (lead + 50).min(3_000) };
        let Some(renewed) = renewed else {
            assert!(now >= deadline, "refused in time");
            assert!(!found, "alive after it was refused");
            done.refused += 1;
            done.dead.push(session);
            continue;
        };
        assert!(now >= to || (found && is_there), "renewed; found: {found}, its file: {is_there}");
        done.renewed += 1;
        match dice.roll(4) {
            _ if is_last => done.kept.push(renewed),
            // Left to the sweep.
            0 => done.dead.push(renewed),
            _ => racing.push_back((renewed, renewals + 1)),
        }
    }
    done.dead.extend(racing.into_iter().map(|(session, _)| session));
    let last = done.dead.iter().map(|session| session.live.record.deadline()).max();
    wait_until(&clock, last.unwrap() + MILLI);
    done
}

/// A sweep may read their entries before their files exist.
#[test]
fn sessions_that_expire_during_their_creation_are_swept() {
    let dir = directory_in_memory();
    let root = dir.path().join("store");
    let store = open(&root, Clock::system());
    let sweeper = start(by_the_index(), &dir);
    let rounds = rounds(3_000);
    thread::scope(|scope| {
        for thread in 0..2 {
            let store = &store;
            scope.spawn(move || {
                let mut dice = Dice::new(20 + thread);
                for _ in 0..rounds / 2 {
                    create(store, store.now() + some(&mut dice, MICRO, 100));
                }
            });
        }
    });
    stop(&dir);
    let [removed, _] = swept(sweeper);
    assert_met("removals by the sweep", removed, rounds);
    thread::sleep(MILLI);
    sweep(&store, &SweepOptions::new());
    check_empty(&root);
}

/// One process inserts sessions in an hour that is over for the other one, which removes that hour's bucket; it is stopped
/// anywhere between reading its clock and the end of its save.
#[test]
fn an_entry_inserted_during_its_buckets_removal_is_not_lost() {
    let dir = directory_in_memory();
    let root = dir.path().join("store");
    let early = open(&root, Clock::manual(hour(BASE + 1) + Duration::from_secs(1)));
    let late = open(&root, Clock::manual(hour(BASE + 2) - MINUTE));
    sweep(&early, &SweepOptions::new());
    let mut filer = start(Start::of("insert at the end of an hour"), &dir);
    let mut dice = Dice::new(30);
    let rounds = rounds(1_500);
    let (mut at_once, mut left_to_later) = (0, 0);
    let mut pause_max = 100;
    for round in 0..rounds {
        let session = create(&early, hour(BASE + 100));
        filer.say(session.token.expose());
        assert_eq!(filer.line(), "at work");
        dice.pause(pause_max);
        filer.stop();
        let removed = sweep_due(&early).removed;
        // Adjusts the pause so that the stop comes near the insertion.
        pause_max = if removed > 0 { pause_max.saturating_sub(4) } else { (pause_max + 6).min(5_000) };
        at_once += removed;
        filer.go_on();
        assert_eq!(filer.line(), "shortened");
        left_to_later += sweep_due(&late).removed;
        let path = path_of(&root, session.live.id);
        assert!(!path.exists(), "round {round}: expired, and not in the index any more");
    }
    check_empty(&root);
    assert_eq!(at_once + left_to_later, rounds);
    assert_met("entries that the sweep in between has read", at_once, rounds);
    assert_met("entries that were left to the next one", left_to_later, rounds);
    filer.say("end");
    filer.finish();
}

/// The same without stops: one process removes the bucket again and again, the others insert in it again and again.
#[test]
fn entries_in_constantly_removed_buckets_are_not_lost() {
    let dir = directory_in_memory();
    let root = dir.path().join("store");
    let ending = open(&root, Clock::manual(hour(BASE + 1) - MILLI));
    let begun = Clock::manual(hour(BASE + 1) + Duration::from_secs(1));
    let late = open(&root, begun.clone());
    sweep(&late, &SweepOptions::new());
    let sweeper = start(Start::of("sweep after the end of an hour"), &dir);
    let rounds = rounds(2_000);
    thread::scope(|scope| {
        for thread in 0..2 {
            let ending = &ending;
            scope.spawn(move || {
                let mut dice = Dice::new(35 + thread);
                for _ in 0..rounds.div_ceil(2) {
                    // Lets the sweep reach the end of the bucket now and then.
                    dice.pause(400);
                    let session = create(ending, hour(BASE + 100));
                    let to = hour(BASE + 1) - MICRO;
                    renew(ending, &session.token, to, || {}).expect("it is alive");
                }
            });
        }
    });
    stop(&dir);
    let [buckets, removed] = swept(sweeper);
    assert_met("sweeps that found the bucket", buckets, rounds);
    assert_met("sessions that they removed", removed, rounds);
    assert_eq!(ending.stats().index_failures, 0);
    // The next sweep tries locked sessions again.
    begun.advance(MICRO);
    sweep_due(&late);
    check_empty(&root);
}

/// Sweeps all the time; reports how often there was a bucket of the hour before, and how many sessions it removed.
fn sweep_after_the_end_of_an_hour(parent: &Parent) {
    let root = root_of(parent);
    let store = open(&root, Clock::manual(hour(BASE + 1) + Duration::from_secs(1)));
    let bucket = root.join(format!("run/due/{BASE}"));
    let (mut buckets, mut removed) = (0, 0);
    parent.report("ready");
    while !is_stopped(parent) {
        buckets += u64::from(bucket.exists());
        removed += sweep_due(&store).removed;
    }
    parent.report(format_args!("{buckets} {removed}"));
}

/// Shortens sessions, at the very end of an hour.
fn insert_at_the_end_of_an_hour(parent: &Parent) {
    let end = hour(BASE + 1);
    let store = open(&root_of(parent), Clock::manual(end - MILLI));
    parent.report("ready");
    loop {
        let line = parent.line();
        if line == "end" {
            return;
        }
        let token = token(&line);
        parent.report("at work");
        renew(&store, &token, end - MICRO, || {}).expect("it is alive");
        parent.report("shortened");
    }
}

/// The hours that [fast clocks](FastClock) show.
const HOURS: u32 = 20;
/// How long each of them lasts.
const FAST_HOUR: Duration = Duration::from_millis(100);

/// A clock by which an hour is over soon, the same in all processes. It stands still in each call, and for good when the
/// last hour has begun.
struct FastClock {
    began: SystemTime,
    clock: Clock,
}

impl FastClock {
    fn of(parent: &Parent) -> Self {
        let began = UNIX_EPOCH + Duration::from_micros(parent.number("BEGAN"));
        let this = Self { began, clock: Clock::manual(hour(BASE)) };
        this.set();
        this
    }

    /// Sets the clock, and returns its time.
    fn set(&self) -> SystemTime {
        let passed = self.began.elapsed().unwrap_or_default();
        let now = hour(BASE) + passed * u32::try_from(HOUR.as_micros() / FAST_HOUR.as_micros()).unwrap();
        let now = now.min(hour(BASE + HOURS) + MINUTE);
        self.clock.set(now);
        now
    }
}

#[test]
fn concurrent_insertions_and_sweeps_forget_no_session() {
    for _ in 0..rounds(1) {
        let dir = directory_in_memory();
        let root = dir.path().join("store");
        let clock = Clock::manual(hour(BASE));
        let store = open(&root, clock.clone());
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let workers =
            ["work in fast hours", "work in fast hours", "sweep in fast hours", "sweep in fast hours"];
        let children: Vec<_> = (0_u32..)
            .zip(workers)
            .map(|(n, worker)| {
                let start = Start::of(worker).with("DIR", dir.path()).with("BEGAN", began.to_string());
                start.with("SEED", (40 + n).to_string()).start()
            })
            .collect();
        let counts: Vec<u64> = children.into_iter().map(|child| child.line().parse().unwrap()).collect();
        let [created, created_too, removed, removed_too] = counts[..] else { panic!("{counts:?}") };
        assert!(created + created_too > 200 && removed + removed_too > 100, "they were at work: {counts:?}");
        clock.set(hour(BASE + HOURS + 1) - MICRO);
        let report = sweep_due(&store);
        assert!(report.removed > 0, "{counts:?}, {report:?}");
        check_empty(&root);
        let over = |name: fs::DirEntry| Some(name.file_name().to_str()?.parse::<u32>().ok()? < BASE + HOURS);
        let mut names = fs::read_dir(root.join("run/due")).unwrap();
        assert!(!names.any(|name| over(name.unwrap()) == Some(true)), "buckets of hours that are over");
    }
}

/// Creates sessions that expire some hours later, and moves their deadlines to and fro. Reports how many it created.
fn work_in_fast_hours(parent: &Parent) {
    let fast = FastClock::of(parent);
    let store = open(&root_of(parent), fast.clock.clone());
    let mut dice = Dice::new(parent.number("SEED"));
    let mut sessions: Vec<Saved> = Vec::new();
    let mut created = 0_u64;
    loop {
        let now = fast.set();
        if now >= hour(BASE + HOURS) {
            break;
        }
        // None lives longer than the last hour.
        let deadline = now + 20 * MINUTE + some(&mut dice, MINUTE, 280);
        let deadline = deadline.min(hour(BASE + HOURS) + 50 * MINUTE);
        if sessions.len() < 20 || dice.roll(3) == 0 {
            let session = create(&store, deadline);
            created += 1;
            if fast.set() < deadline {
                sessions.push(session);
            } else {
                // The creation took longer than the session's life, which the stopped clock did not show.
                store.delete(&session.token).unwrap();
            }
        } else {
            let one = usize::try_from(dice.roll(sessions.len() as u64)).unwrap();
            if renew(&store, &sessions[one].token, deadline, || {}).is_none() {
                sessions.swap_remove(one);
            }
        }
        thread::sleep(some(&mut dice, MICRO, 1_000));
    }
    parent.report(created);
}

/// Sweeps until the last hour has begun. Reports how many sessions it removed.
fn sweep_in_fast_hours(parent: &Parent) {
    let fast = FastClock::of(parent);
    let store = open(&root_of(parent), fast.clock.clone());
    let mut removed = 0;
    loop {
        let is_last = fast.set() >= hour(BASE + HOURS);
        let report = sweep_or_leave(&store, &SweepOptions::new());
        removed += report.removed;
        if is_last && report.outcome == SweepOutcome::Completed {
            break;
        }
    }
    parent.report(removed);
}

/// The sessions that killed sweeps have read, as the test knows them.
struct Kept {
    dir: TempDir,
    root: PathBuf,
    clock: Clock,
    store: FileStore,
    dice: Dice,
    /// The sessions that may be there.
    sessions: HashMap<PublicId, (Token, SystemTime)>,
    /// Files that a walk must remove, and files that no sweep may change.
    old: Vec<PathBuf>,
    young: Vec<PathBuf>,
}

#[test]
fn a_sweep_killed_at_any_instant_is_finished_by_the_next_one() {
    let dir = directory_in_memory();
    let root = dir.path().join("store");
    let clock = Clock::manual(hour(BASE));
    let store = open(&root, clock.clone());
    let (sessions, old, young) = (HashMap::new(), Vec::new(), Vec::new());
    let mut kept = Kept { dir, root, clock, store, dice: Dice::new(50), sessions, old, young };
    let kills = rounds(60);
    let mut amid = 0;
    for kill in 0..kills {
        // By the index alone; by a walk as well; and by a walk without an index.
        let full = kill % 3 > 0;
        kept.prepare(kill, full);
        if kill % 3 == 2 {
            fs::remove_dir_all(kept.root.join("run/due")).unwrap();
        }
        amid += u64::from(kept.kill(full && kill % 3 != 2));
        kept.finish(full && kill % 3 != 2);
    }
    assert!(kills < 20 || amid > kills / 10, "{amid} of {kills} kills came amid a sweep");
    // The index has the sessions that were alive in the last rounds.
    kept.clock.advance(8 * HOUR);
    kept.finish(false);
    assert_eq!(kept.sessions.len(), 0);
    let left = files_in_shards(&kept.root);
    assert!(left.iter().all(|file| kept.young.contains(file) || kept.old.contains(file)), "{left:?}");
}

impl Kept {
    fn add(&mut self, deadline: SystemTime) -> Token {
        let session = create(&self.store, deadline);
        self.sessions.insert(session.live.id, (session.token.clone(), deadline));
        session.token
    }

    fn random_minutes(&mut self, below: u32) -> Duration {
        some(&mut self.dice, MINUTE, below)
    }

    /// Creates work for a sweep some hours later.
    fn prepare(&mut self, round: u64, walked: bool) {
        let now = self.clock.now();
        for _ in 0..12 {
            let soon = now + MINUTE + self.random_minutes(50);
            self.add(soon);
            let later = now + 2 * HOUR + self.random_minutes(300);
            self.add(later);
        }
        for _ in 0..8 {
            let soon = now + MINUTE + self.random_minutes(50);
            let token = self.add(soon);
            let later = now + 2 * HOUR + self.random_minutes(300);
            let id = renew(&self.store, &token, later, || {}).expect("it is alive").live.id;
            self.sessions.insert(id, (token, later));
        }
        for n in 0..4 {
            let shard = format!("{:02x}", self.dice.roll(256));
            let path = self.root.join(shard).join(match n % 2 {
                0 => format!(".new-{round:030x}{n:02x}"),
                // The leftover of an interrupted creation.
                _ => format!("{round:036x}{n:02x}"),
            });
            fs::write(&path, if n % 2 == 0 { "left" } else { "" }).unwrap();
            if n < 2 && walked {
                let file = File::options().write(true).open(&path).unwrap();
                file.set_modified(SystemTime::now() - 2 * HOUR).unwrap();
                self.old.push(path);
            } else {
                self.young.push(path);
            }
        }
        let passes = HOUR + self.random_minutes(120);
        self.clock.advance(passes);
    }

    /// Kills a sweep. Returns whether it was running.
    fn kill(&mut self, full: bool) -> bool {
        let now = self.clock.now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let start = Start::of("sweep once, to be killed").with("DIR", self.dir.path());
        let start = start.with("NOW", now.to_string()).with("FULL", u64::from(full).to_string());
        let child = start.start();
        assert_eq!(child.line(), "ready");
        thread::sleep(some(&mut self.dice, 10 * MICRO, if full { 8_000 } else { 1_000 }));
        child.kill().is_empty()
    }

    /// Sweeps, and checks all files.
    #[track_caller]
    fn finish(&mut self, full: bool) {
        let walks_all = !self.root.join("run/due/sweep").exists() || full;
        let report = sweep(&self.store, &SweepOptions::new().full(full));
        let now = self.clock.now();
        let (root, store) = (&self.root, &self.store);
        self.sessions.retain(|id, (token, deadline)| {
            let lives = *deadline > now;
            assert_eq!(path_of(root, *id).exists(), lives, "{deadline:?} at {now:?}: {report:?}");
            assert_eq!(is_live(store, token), lives);
            lives
        });
        if walks_all {
            for path in std::mem::take(&mut self.old) {
                assert!(!path.exists(), "{} is left", path.display());
            }
        }
        for path in &self.young {
            assert!(path.exists(), "{} is not a leftover", path.display());
        }
        let known = |path: &PathBuf| self.old.contains(path) || self.young.contains(path);
        let files = files_in_shards(root).iter().filter(|path| !known(path)).count();
        assert_eq!(files, self.sessions.len());
    }
}

fn sweep_once(parent: &Parent) {
    let now = UNIX_EPOCH + Duration::from_micros(parent.number("NOW"));
    let store = open(&root_of(parent), Clock::manual(now));
    parent.report("ready");
    sweep(&store, &SweepOptions::new().full(parent.number("FULL") == 1));
    parent.report("done");
    parent.line();
}

/// An operation of two processes on the same sessions beside the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Delete,
    Rotate,
    Grow,
    Renew,
    Create,
}

/// The result of an operation: whether it found a live session, and the session that it created.
struct OperationResult {
    operation: Operation,
    found: bool,
    made: Option<(Token, SystemTime)>,
}

impl Operation {
    fn roll(dice: &mut Dice) -> Self {
        [Self::Delete, Self::Rotate, Self::Grow, Self::Renew, Self::Create]
            [usize::try_from(dice.roll(5)).unwrap()]
    }

    /// Runs it near the deadline of a session.
    fn run(
        self,
        store: &FileStore,
        session: &Token,
        deadline: SystemTime,
        dice: &mut Dice,
    ) -> OperationResult {
        wait_until(&Clock::system(), deadline - 300 * MICRO + some(dice, MICRO, 350));
        let to = deadline + some(dice, MICRO, 2_000);
        let bytes = if self == Self::Grow { 6_000 } else { 10 };
        let change = &mut |record: &mut Record| {
            versions::put(record, versions::of(record) + 1, bytes);
            record.set_timing(Timing { deadline: to, ..record.timing() });
            Ok(Verdict::Write)
        };
        let (found, made) = match self {
            Self::Delete => (store.delete(session).unwrap(), None),
            Self::Rotate => {
                let made = store.rotate(session, change, RELAXED).unwrap().map(|saved| saved.token);
                (made.is_some(), made)
            }
            Self::Grow | Self::Renew => (store.update(session, change, RELAXED).unwrap().is_some(), None),
            Self::Create => (false, Some(create(store, to).token)),
        };
        OperationResult { operation: self, found, made: made.map(|token| (token, to)) }
    }
}

const AT_ONCE: usize = 4;

#[test]
fn concurrent_changes_beside_the_sweep_revive_or_leave_nothing() {
    let dir = directory_in_memory();
    let root = dir.path().join("store");
    let store = open(&root, Clock::system());
    let sweeper = start(Start::of("sweep all the time").with("WALKS", "1"), &dir);
    let mut other = start(Start::of("operation near deadlines"), &dir);
    let mut dice = Dice::new(60);
    let mut found: HashMap<(Operation, bool), u64> = HashMap::new();
    let mut ended: Vec<Token> = Vec::new();
    let mut made: Vec<(Token, SystemTime)> = Vec::new();
    let rounds = rounds(1_200).div_ceil(AT_ONCE as u64);
    for round in 0..rounds {
        let first = store.now() + MILLI;
        let sessions = [0, 1, 2, 3].map(|n: u32| create(&store, first + n * 400 * MICRO));
        let line = sessions.each_ref().map(|session| {
            let deadline = session.live.record.deadline().duration_since(UNIX_EPOCH).unwrap().as_micros();
            format!("{} {deadline}", session.token.expose())
        });
        other.say(line.join(" "));
        let ours = sessions.each_ref().map(|Saved { token, live }| {
            Operation::roll(&mut dice).run(&store, token, live.record.deadline(), &mut dice)
        });
        for (session, ours) in sessions.iter().zip(ours) {
            let theirs = read_acted(&other.line());
            let operations = [&ours, &theirs];
            let ends = operations.map(|result| {
                result.found && matches!(result.operation, Operation::Delete | Operation::Rotate)
            });
            assert!(
                ends != [true; 2],
                "round {round}: ended twice, by {:?}",
                operations.map(|result| result.operation)
            );
            if ends != [false; 2] || operations.iter().any(|result| result.operation == Operation::Delete) {
                assert!(!is_live(&store, &session.token), "round {round}: alive after its end");
                assert!(!path_of(&root, session.live.id).exists());
            }
            ended.push(session.token.clone());
            for result in [ours, theirs] {
                *found.entry((result.operation, result.found)).or_default() += 1;
                if let Some((token, deadline)) = &result.made {
                    let lives = is_live(&store, token);
                    assert!(lives || store.now() >= *deadline, "round {round}: a new session is gone");
                }
                made.extend(result.made);
            }
        }
    }
    other.say("end");
    other.finish();
    stop(&dir);
    swept(sweeper);
    // None was to live longer.
    thread::sleep(10 * MILLI);
    sweep(&store, &SweepOptions::new());
    check_empty(&root);
    ended.extend(made.into_iter().map(|(token, _)| token));
    let impatient = FileStoreOptions::new().lock_wait(MILLI).watch(false).open(&root).unwrap();
    for token in &ended {
        assert!(!is_live(&store, token), "alive after all");
        let late = renew(&impatient, token, impatient.now() + HOUR, || {});
        assert!(late.is_none(), "saved after all");
    }
    check_empty(&root);
    for operation in [Operation::Delete, Operation::Rotate, Operation::Grow, Operation::Renew] {
        let both = [true, false].map(|was| found.get(&(operation, was)).copied().unwrap_or(0));
        assert!(rounds < 100 || both.iter().all(|count| *count > 5), "{operation:?} met both: {found:?}");
    }
}

fn operate_near_deadlines(parent: &Parent) {
    let store = open(&root_of(parent), Clock::system());
    let mut dice = Dice::new(61);
    parent.report("ready");
    loop {
        let line = parent.line();
        if line == "end" {
            return;
        }
        let words: Vec<&str> = line.split(' ').collect();
        for session in words.chunks(2) {
            let deadline = UNIX_EPOCH + Duration::from_micros(session[1].parse().unwrap());
            let result = Operation::roll(&mut dice).run(&store, &token(session[0]), deadline, &mut dice);
            let made = result.made.map_or(String::new(), |(token, deadline)| {
                format!(" {} {}", token.expose(), deadline.duration_since(UNIX_EPOCH).unwrap().as_micros())
            });
            parent.report(format_args!("{:?} {}{made}", result.operation, result.found));
        }
    }
}

/// The result that the other process has [reported](operate_near_deadlines).
#[track_caller]
fn read_acted(line: &str) -> OperationResult {
    let words: Vec<&str> = line.split(' ').collect();
    let operations =
        [Operation::Delete, Operation::Rotate, Operation::Grow, Operation::Renew, Operation::Create];
    let operation =
        operations.into_iter().find(|operation| format!("{operation:?}") == words[0]).expect(line);
    let made = words.get(2).map(|text| {
        let micros = words[3].parse().unwrap();
        (token(text), UNIX_EPOCH + Duration::from_micros(micros))
    });
    OperationResult { operation, found: words[1] == "true", made }
}

/// By the clock at the beginning of the sweep, the session is due; by the clock that was set back, it is alive.
#[test]
fn a_sweep_ends_though_the_clock_is_set_back_meanwhile() {
    let dir = directory_in_memory();
    let clock = Clock::manual(hour(BASE) + 30 * MINUTE);
    let store = open(&dir.path().join("store"), clock.clone());
    let session = create(&store, clock.now() + MINUTE);
    clock.advance(2 * MINUTE);
    let began = Instant::now();
    let report = store.sweep_with(&SweepOptions::new().cpu_percent(100), |progress| {
        assert_eq!(progress.phase, SweepPhase::Due);
        clock.set(hour(BASE) + 30 * MINUTE);
        if began.elapsed() < SOON / 4 { Continue(()) } else { Break(()) }
    });
    let report = report.unwrap();
    assert_eq!((report.outcome, report.removed), (SweepOutcome::Completed, 0), "{} looks", report.examined);
    assert!(is_live(&store, &session.token), "by the time that it is now");
    clock.advance(20 * MINUTE);
    assert_eq!(sweep_due(&store).removed, 1, "it was not forgotten");
}
