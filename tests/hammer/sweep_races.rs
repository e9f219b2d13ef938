//! Sweeps beside all other operations on the same sessions in other processes. A session that is renewed in time stays.
//! A session whose renewal was refused, or that has expired, does not come back. No entry of the expiry index is lost
//! between an insertion and a sweep. A sweep that is killed is completed by the next one.
use crate::figures::Figures;
use crate::rounds::Rounds;
use crate::support::dice::Dice;
use crate::support::process::{Child, Parent, Start, Worker};
use crate::support::texts::{files_in_shards, path_of};
use crate::support::versions;
use sessile::admin::{SweepOptions, SweepOutcome, SweepPhase, SweepReport};
use sessile::{
    Admin, Clock, Durability, FileStore, FileStoreOptions, Lookup, PublicId, Record, Saved, Store, Timing,
    Token, Verdict,
};
use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::ops::ControlFlow::Continue;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::{TempDir, tempdir_in};

trials! {
    a_renewal_beside_a_sweep_holds_exactly_if_acknowledged,
    sessions_that_expire_during_their_creation_are_swept,
    an_entry_inserted_during_its_buckets_removal_is_not_lost,
    entries_in_constantly_removed_buckets_are_not_lost,
    concurrent_insertions_and_sweeps_forget_no_session,
    a_sweep_killed_at_any_instant_is_finished_by_the_next_one,
    concurrent_changes_beside_the_sweep_revive_or_leave_nothing,
    an_index_removed_during_creations_loses_no_session,
}

pub(crate) const WORKERS: &[(&str, Worker)] = &[
    ("sweep all the time", sweep_all_the_time),
    ("sweep once, to be killed", sweep_once),
    ("insert at the end of an hour", insert_at_the_end_of_an_hour),
    ("sweep after the end of an hour", sweep_after_the_end_of_an_hour),
    ("work in fast hours", work_in_fast_hours),
    ("sweep in fast hours", sweep_in_fast_hours),
    ("operate near deadlines", operate_near_deadlines),
];

const RELAXED: Durability = Durability::Relaxed;
const MICRO: Duration = Duration::from_micros(1);
const MILLI: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// The hour since 1970 at which manual clocks start.
const BASE: u32 = 490_000;
/// The time after which an operation counts as hanging, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// The beginning of this hour since 1970.
fn hour(hours: u32) -> SystemTime {
    UNIX_EPOCH + hours * HOUR
}

fn some(dice: &mut Dice, unit: Duration, below: u32) -> Duration {
    unit * u32::try_from(dice.roll(below.into())).unwrap()
}

/// The trials in this file are about locks, names and entries of the index, so logouts are not synced.
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

/// Moves a session's deadline. Calls `inside` while it holds the lock.
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

/// Runs a sweep, which must complete without failures.
#[track_caller]
fn sweep(store: &FileStore, options: &SweepOptions) -> SweepReport {
    let report = sweep_or_leave(store, options);
    assert_eq!(report.outcome, SweepOutcome::Completed);
    report
}

/// Runs a sweep, which must have no failures. It may find that another sweep is running.
#[track_caller]
fn sweep_or_leave(store: &FileStore, options: &SweepOptions) -> SweepReport {
    let report = store.sweep(&options.clone().cpu_percent(100)).unwrap();
    let failures = (report.files.damaged, report.files.unknown, report.failed);
    assert_eq!(failures, (0, 0, 0), "{report:?}");
    report
}

/// Runs a sweep of the sessions that the index lists as due. It walks no shard, because the shard of this hour was
/// walked before.
#[track_caller]
fn sweep_due(store: &FileStore) -> SweepReport {
    let options = SweepOptions::new().cpu_percent(100);
    let report = store.sweep_with(&options, &mut |progress| {
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

/// Waits until this instant by the clock, without sleeping beyond it.
fn wait_until(clock: &Clock, instant: SystemTime) {
    while let Ok(left) = instant.duration_since(clock.now()) {
        match left {
            Duration::ZERO => return,
            long if long > 300 * MICRO => thread::sleep(long.saturating_sub(200 * MICRO)),
            _ => std::hint::spin_loop(),
        }
    }
}

/// Starts a worker process that repeats an operation until a file beside the store tells it to stop.
fn start(worker: Start, dir: &Path) -> Child {
    let child = worker.with("DIR", dir).start();
    assert_eq!(child.line(), "ready");
    child
}

fn stop(dir: &Path) {
    File::create(dir.join("stop")).unwrap();
}

fn is_stopped(parent: &Parent) -> bool {
    Path::new(parent.argument("DIR")).join("stop").exists()
}

fn by_the_index() -> Start {
    Start::of("sweep all the time").with("WALKS", "0")
}

/// A worker process: sweeps by the system's clock, with the argument `WALKS` also by walks. Reports how many sessions
/// it has removed, and how many it found renewed.
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
        renewed += report.files.renewed;
    }
    parent.report(format_args!("{removed} {renewed}"));
}

/// The numbers of removed and renewed sessions, as reported by the process that [sweeps all the
/// time](sweep_all_the_time).
#[track_caller]
fn swept(child: Child) -> [u64; 2] {
    let last = child.finish().pop().unwrap();
    let words: Vec<u64> = last.split(' ').map(|word| word.parse().unwrap()).collect();
    words.try_into().unwrap()
}

/// The results of the renewals beside the sweep.
#[derive(Debug, Default)]
struct Renewals {
    renewed: u64,
    refused: u64,
    /// Sessions that must be gone at the end.
    dead: Vec<Saved>,
    /// Sessions that must still be there at the end.
    kept: Vec<Saved>,
}

/// Each round has a store of its own.
fn a_renewal_beside_a_sweep_holds_exactly_if_acknowledged(dir: &Path, time: Duration) -> Figures {
    const IN_ONE_STORE: u64 = 200;
    const THREADS: u64 = 2;
    let rounds = Rounds::new(
        time,
        &["renewals in time", "renewals that came too late", "removed sessions", "sessions found renewed"],
    );
    while let Some(round) = rounds.next() {
        let dir = tempdir_in(dir).unwrap();
        let root = dir.path().join("store");
        let store = open(&root, Clock::system());
        let sweeper = start(by_the_index(), dir.path());
        let renewals: Vec<Renewals> = thread::scope(|scope| {
            let race = |n| renew_near_deadlines(&store, 10 * round + n, IN_ONE_STORE / THREADS);
            let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || race(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        stop(dir.path());
        let [removed, found_renewed] = swept(sweeper);
        rounds.count("removed sessions", removed);
        rounds.count("sessions found renewed", found_renewed);
        sweep(&store, &SweepOptions::new());
        for of_one in &renewals {
            for session in &of_one.dead {
                assert!(!is_live(&store, &session.token), "alive after it was refused or had expired");
                assert!(!path_of(&root, session.live.id).exists(), "an expired session is left");
            }
            for session in &of_one.kept {
                assert!(is_live(&store, &session.token), "a renewed session was removed");
                assert!(path_of(&root, session.live.id).exists());
            }
            rounds.count("renewals in time", of_one.renewed);
            rounds.count("renewals that came too late", of_one.refused);
        }
        let kept: usize = renewals.iter().map(|of_one| of_one.kept.len()).sum();
        assert_eq!(files_in_shards(&root).len(), kept);
    }
    rounds.figures()
}

/// Renews sessions near their deadlines, one after the other, each until a renewal is refused or four have succeeded.
fn renew_near_deadlines(store: &FileStore, seed: u64, sessions: u64) -> Renewals {
    const AT_ONCE: usize = 4;
    let clock = Clock::system();
    let mut dice = Dice::new(seed);
    let mut done = Renewals::default();
    let mut racing = VecDeque::new();
    let mut last = clock.now();
    // The time before the deadline at which a renewal begins, in microseconds. It is adjusted so that about half of
    // them succeed, also on a busy machine.
    let mut lead: u32 = 200;
    for _ in 0..sessions {
        // The sessions are renewed one after the other, in the order of their deadlines.
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
        // Half of the renewals hold the lock until the session would have expired.
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
            // The session is left to the sweep.
            0 => done.dead.push(renewed),
            _ => racing.push_back((renewed, renewals + 1)),
        }
    }
    done.dead.extend(racing.into_iter().map(|(session, _)| session));
    let last = done.dead.iter().map(|session| session.live.record.deadline()).max();
    wait_until(&clock, last.unwrap() + MILLI);
    done
}

/// A sweep may read the entries of sessions whose files do not exist yet.
fn sessions_that_expire_during_their_creation_are_swept(dir: &Path, time: Duration) -> Figures {
    let root = dir.join("store");
    let store = open(&root, Clock::system());
    let sweeper = start(by_the_index(), dir);
    let rounds = Rounds::new(time, &[]);
    thread::scope(|scope| {
        for thread in 0..2 {
            let (store, rounds) = (&store, &rounds);
            scope.spawn(move || {
                let mut dice = Dice::new(20 + thread);
                while rounds.next().is_some() {
                    create(store, store.now() + some(&mut dice, MICRO, 100));
                }
            });
        }
    });
    stop(dir);
    let [removed, _] = swept(sweeper);
    assert!(removed > 0, "the sweep beside the creations removed none");
    thread::sleep(MILLI);
    sweep(&store, &SweepOptions::new());
    check_empty(&root);
    rounds.figures()
}

/// One process inserts sessions in the bucket of an hour that is over for another process, which removes the bucket.
/// The first process is stopped anywhere between reading its clock and the end of its save.
fn an_entry_inserted_during_its_buckets_removal_is_not_lost(dir: &Path, time: Duration) -> Figures {
    let root = dir.join("store");
    let early = open(&root, Clock::manual(hour(BASE + 1) + Duration::from_secs(1)));
    let late = open(&root, Clock::manual(hour(BASE + 2) - MINUTE));
    sweep(&early, &SweepOptions::new());
    let mut filer = start(Start::of("insert at the end of an hour"), dir);
    let mut dice = Dice::new(30);
    let rounds = Rounds::new(time, &[READ_AT_ONCE, LEFT_TO_LATER]);
    let mut pause_max = 100;
    while let Some(round) = rounds.next() {
        let session = create(&early, hour(BASE + 100));
        filer.say(session.token.expose());
        assert_eq!(filer.line(), "at work");
        dice.pause(pause_max);
        filer.stop();
        let removed = sweep_due(&early).removed;
        // The pause is adjusted so that the process is stopped near the insertion.
        pause_max = if removed > 0 { pause_max.saturating_sub(4) } else { (pause_max + 6).min(5_000) };
        filer.go_on();
        assert_eq!(filer.line(), "shortened");
        let later = sweep_due(&late).removed;
        assert_eq!(removed + later, 1, "round {round}: sessions that were removed");
        rounds.count(if removed > 0 { READ_AT_ONCE } else { LEFT_TO_LATER }, 1);
        let path = path_of(&root, session.live.id);
        assert!(!path.exists(), "round {round}: expired, and not in the index any more");
    }
    check_empty(&root);
    filer.say("end");
    filer.finish();
    rounds.figures()
}

/// The events: the sweep beside the insertion has read the entry, or has left it to the next sweep.
const READ_AT_ONCE: &str = "entries read at once";
const LEFT_TO_LATER: &str = "entries left to the next sweep";

/// The same without stops: one process removes the bucket again and again, and the others insert in it again and again.
fn entries_in_constantly_removed_buckets_are_not_lost(dir: &Path, time: Duration) -> Figures {
    let root = dir.join("store");
    let ending = open(&root, Clock::manual(hour(BASE + 1) - MILLI));
    let begun = Clock::manual(hour(BASE + 1) + Duration::from_secs(1));
    let late = open(&root, begun.clone());
    sweep(&late, &SweepOptions::new());
    let sweeper = start(Start::of("sweep after the end of an hour"), dir);
    let rounds = Rounds::new(time, &[]);
    thread::scope(|scope| {
        for thread in 0..2 {
            let (ending, rounds) = (&ending, &rounds);
            scope.spawn(move || {
                let mut dice = Dice::new(35 + thread);
                while rounds.next().is_some() {
                    // A pause now and then lets the sweep reach the end of the bucket.
                    dice.pause(400);
                    let session = create(ending, hour(BASE + 100));
                    let to = hour(BASE + 1) - MICRO;
                    renew(ending, &session.token, to, || {}).expect("it is alive");
                }
            });
        }
    });
    stop(dir);
    let [buckets, removed] = swept(sweeper);
    assert!(buckets > 0 && removed > 0, "{buckets} sweeps found the bucket, and removed {removed} sessions");
    assert_eq!(ending.stats().files.index_failures, 0);
    // Locked sessions were left to the next sweep.
    begun.advance(MICRO);
    sweep_due(&late);
    check_empty(&root);
    rounds.figures()
}

/// A worker process: sweeps all the time. Reports how often there was a bucket of the hour before, and how many
/// sessions it has removed.
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

/// A worker process: moves deadlines to an earlier time, at the very end of an hour.
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

/// The number of hours that a [fast clock](FastClock) shows.
const HOURS: u32 = 10;
/// The real time that each of these hours takes.
const FAST_HOUR: Duration = Duration::from_millis(60);

/// A clock whose hours are short, the same in all processes. It stands still during each call of the store, and stops
/// when the last hour has begun.
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

/// The events of a round: sessions that were created, that a sweep beside the insertions has removed, and that the
/// sweep of the last hour has removed.
const EVENTS: [&str; 3] = ["created sessions", "removed at once", "removed at the end"];

fn concurrent_insertions_and_sweeps_forget_no_session(dir: &Path, time: Duration) -> Figures {
    let rounds = Rounds::new(time, &EVENTS);
    while let Some(round) = rounds.next() {
        let dir = tempdir_in(dir).unwrap();
        let root = dir.path().join("store");
        let clock = Clock::manual(hour(BASE));
        let store = open(&root, clock.clone());
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let workers =
            ["work in fast hours", "work in fast hours", "sweep in fast hours", "sweep in fast hours"];
        let children: Vec<_> = (0_u64..)
            .zip(workers)
            .map(|(n, worker)| {
                let start = Start::of(worker).with("DIR", dir.path()).with("BEGAN", began.to_string());
                start.with("SEED", (40 + 4 * round + n).to_string()).start()
            })
            .collect();
        let counts: Vec<u64> = children.into_iter().map(|child| child.line().parse().unwrap()).collect();
        let [created, created_too, removed, removed_too] = counts[..] else { panic!("{counts:?}") };
        clock.set(hour(BASE + HOURS + 1) - MICRO);
        let rest = sweep_due(&store).removed;
        for (event, count) in EVENTS.into_iter().zip([created + created_too, removed + removed_too, rest]) {
            rounds.count(event, count);
        }
        check_empty(&root);
        let over = |name: fs::DirEntry| Some(name.file_name().to_str()?.parse::<u32>().ok()? < BASE + HOURS);
        let mut names = fs::read_dir(root.join("run/due")).unwrap();
        assert!(!names.any(|name| over(name.unwrap()) == Some(true)), "buckets of hours that are over");
    }
    rounds.figures()
}

/// A worker process: creates sessions that expire some hours later, and moves their deadlines back and forth. Reports
/// how many it has created.
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
        // No session lives beyond the last hour.
        let deadline = now + 20 * MINUTE + some(&mut dice, MINUTE, 280);
        let deadline = deadline.min(hour(BASE + HOURS) + 50 * MINUTE);
        if sessions.len() < 20 || dice.roll(3) == 0 {
            let session = create(&store, deadline);
            created += 1;
            if fast.set() < deadline {
                sessions.push(session);
            } else {
                // The creation has taken longer than the session's life, which the stopped clock does not show.
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

/// A worker process: sweeps until the last hour has begun. Reports how many sessions it has removed.
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

/// The sessions and files that the killed sweeps must keep or may remove.
struct Kept<'a> {
    dir: &'a Path,
    root: PathBuf,
    clock: Clock,
    store: FileStore,
    dice: Dice,
    /// The sessions that may still be there, with their deadlines.
    sessions: HashMap<PublicId, (Token, SystemTime)>,
    /// Files that a walk must remove, and files that no sweep may change.
    old: Vec<PathBuf>,
    young: Vec<PathBuf>,
}

/// The number of kills in a round, which has a store of its own.
const KILLS: u64 = 9;

fn a_sweep_killed_at_any_instant_is_finished_by_the_next_one(dir: &Path, time: Duration) -> Figures {
    let rounds = Rounds::new(time, &["kills amid a sweep"]);
    while let Some(round) = rounds.next() {
        let dir = tempdir_in(dir).unwrap();
        let mut kept = Kept::new(dir.path(), round);
        for kill in 0..KILLS {
            // In turn, the sweep uses the index alone, the index and a walk, or a walk without an index.
            let full = kill % 3 > 0;
            kept.prepare(kill, full);
            if kill % 3 == 2 {
                fs::remove_dir_all(kept.root.join("run/due")).unwrap();
            }
            rounds.count("kills amid a sweep", u64::from(kept.kill(full && kill % 3 != 2)));
            kept.finish(full && kill % 3 != 2);
        }
        // Eight hours later, the index lists the sessions that were alive after the last kills.
        kept.clock.advance(8 * HOUR);
        kept.finish(false);
        assert_eq!(kept.sessions.len(), 0);
        let left = files_in_shards(&kept.root);
        assert!(left.iter().all(|file| kept.young.contains(file) || kept.old.contains(file)), "{left:?}");
    }
    rounds.figures()
}

impl<'a> Kept<'a> {
    fn new(dir: &'a Path, seed: u64) -> Self {
        let (root, clock) = (dir.join("store"), Clock::manual(hour(BASE)));
        let store = open(&root, clock.clone());
        let (sessions, old, young) = (HashMap::new(), Vec::new(), Vec::new());
        Self { dir, root, clock, store, dice: Dice::new((2 << 32) + seed), sessions, old, young }
    }

    fn add(&mut self, deadline: SystemTime) -> Token {
        let session = create(&self.store, deadline);
        self.sessions.insert(session.live.id, (session.token.clone(), deadline));
        session.token
    }

    fn random_minutes(&mut self, below: u32) -> Duration {
        some(&mut self.dice, MINUTE, below)
    }

    /// Creates sessions and files that a sweep some hours later has to handle.
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
                // The file of an interrupted creation.
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

    /// Starts a sweep in a process and kills it. Returns whether the sweep was running.
    fn kill(&mut self, full: bool) -> bool {
        let now = self.clock.now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let start = Start::of("sweep once, to be killed").with("DIR", self.dir);
        let start = start.with("NOW", now.to_string()).with("FULL", u64::from(full).to_string());
        let child = start.start();
        assert_eq!(child.line(), "ready");
        thread::sleep(some(&mut self.dice, 10 * MICRO, if full { 8_000 } else { 1_000 }));
        child.kill().is_empty()
    }

    /// Completes the sweep, and checks all files.
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

/// An operation that two processes perform on the same sessions while the store is swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Delete,
    Rotate,
    Grow,
    Renew,
    Create,
}

/// The result of an operation: whether it found a live session, and the session that it has created.
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

    /// Performs the operation near the deadline of the session.
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
            Self::Delete => (store.delete(session).unwrap().is_some(), None),
            Self::Rotate => {
                let made = store.rotate(session, change, &RELAXED.into()).unwrap().map(|saved| saved.token);
                (made.is_some(), made)
            }
            Self::Grow | Self::Renew => (store.update(session, change, RELAXED).unwrap().is_some(), None),
            Self::Create => (false, Some(create(store, to).token)),
        };
        OperationResult { operation: self, found, made: made.map(|token| (token, to)) }
    }
}

/// The number of sessions in one order to the other process.
const AT_ONCE: usize = 4;
/// The number of orders in one store.
const ORDERS: u64 = 40;

/// The event that an operation did, or did not, find a live session.
fn event(operation: Operation, found: bool) -> &'static str {
    match (operation, found) {
        (Operation::Delete, true) => "deletions",
        (Operation::Delete, false) => "late deletions",
        (Operation::Rotate, true) => "rotations",
        (Operation::Rotate, false) => "late rotations",
        (Operation::Grow, true) => "growths",
        (Operation::Grow, false) => "late growths",
        (Operation::Renew, true) => "renewals",
        (Operation::Renew, false) => "late renewals",
        (Operation::Create, _) => "creations",
    }
}

/// Each round has a store of its own.
fn concurrent_changes_beside_the_sweep_revive_or_leave_nothing(dir: &Path, time: Duration) -> Figures {
    use Operation::{Create, Delete, Grow, Renew, Rotate};
    let met =
        [Delete, Rotate, Grow, Renew].map(|operation| [true, false].map(|found| event(operation, found)));
    let rounds = Rounds::new(time, &[met.as_flattened(), &[event(Create, false)]].concat());
    let mut dice = Dice::new(60);
    while let Some(round) = rounds.next() {
        let dir = tempdir_in(dir).unwrap();
        change_beside_the_sweep(&dir, &mut dice, round, &rounds);
    }
    rounds.figures()
}

fn change_beside_the_sweep(dir: &TempDir, dice: &mut Dice, round: u64, rounds: &Rounds) {
    let root = dir.path().join("store");
    let store = open(&root, Clock::system());
    let sweeper = start(Start::of("sweep all the time").with("WALKS", "1"), dir.path());
    let mut other = start(Start::of("operate near deadlines").with("SEED", round.to_string()), dir.path());
    let mut over: Vec<Token> = Vec::new();
    for order in 0..ORDERS {
        let context = format!("round {round}, order {order}");
        let first = store.now() + MILLI;
        let sessions: [Saved; AT_ONCE] = [0, 1, 2, 3].map(|n: u32| create(&store, first + n * 400 * MICRO));
        let line = sessions.each_ref().map(|session| {
            let deadline = session.live.record.deadline().duration_since(UNIX_EPOCH).unwrap().as_micros();
            format!("{} {deadline}", session.token.expose())
        });
        other.say(line.join(" "));
        let ours = sessions.each_ref().map(|Saved { token, live, .. }| {
            Operation::roll(dice).run(&store, token, live.record.deadline(), dice)
        });
        for (session, ours) in sessions.iter().zip(ours) {
            let results = [ours, read_acted(&other.line())];
            check_ends(&store, session, &results, &context);
            over.push(session.token.clone());
            for result in results {
                rounds.count(event(result.operation, result.found), 1);
                if let Some((token, deadline)) = result.made {
                    let lives = is_live(&store, &token);
                    assert!(lives || store.now() >= deadline, "{context}: a new session is gone");
                    over.push(token);
                }
            }
        }
    }
    other.say("end");
    other.finish();
    stop(dir.path());
    swept(sweeper);
    // Waits until all sessions have expired.
    thread::sleep(10 * MILLI);
    sweep(&store, &SweepOptions::new());
    check_empty(&root);
    let impatient = FileStoreOptions::new().lock_wait(MILLI).watch(false).open(&root).unwrap();
    for token in &over {
        assert!(!is_live(&store, token), "alive after all");
        let late = renew(&impatient, token, impatient.now() + HOUR, || {});
        assert!(late.is_none(), "saved after all");
    }
    check_empty(&root);
}

/// Asserts that at most one of the two operations has ended the session, and that it is gone then.
#[track_caller]
fn check_ends(store: &FileStore, session: &Saved, results: &[OperationResult; 2], context: &str) {
    let operations = results.each_ref().map(|result| result.operation);
    let ends = results
        .each_ref()
        .map(|result| result.found && matches!(result.operation, Operation::Delete | Operation::Rotate));
    assert!(ends != [true; 2], "{context}: ended twice, by {operations:?}");
    if ends != [false; 2] || operations.contains(&Operation::Delete) {
        assert!(!is_live(store, &session.token), "{context}: alive after its end");
        assert!(!path_of(store.path(), session.live.id).exists(), "{context}");
    }
}

fn operate_near_deadlines(parent: &Parent) {
    let store = open(&root_of(parent), Clock::system());
    let mut dice = Dice::new((1 << 32) + parent.number("SEED"));
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

/// The number of removals in a round, which has a store of its own.
const REMOVALS: usize = 5;

fn an_index_removed_during_creations_loses_no_session(dir: &Path, time: Duration) -> Figures {
    let rounds = Rounds::new(time, &[]);
    while rounds.next().is_some() {
        let dir = tempdir_in(dir).unwrap();
        let root = dir.path().join("store");
        let clock = Clock::manual(hour(BASE) + MINUTE);
        let stores = [open(&root, clock.clone()), open(&root, clock.clone())];
        let made = create_beside_removals(&root, &stores);
        for store in &stores {
            assert_eq!(store.stats().files.index_failures, 0);
        }
        let index = root.join("run/due");
        assert_eq!(fs::metadata(&index).unwrap().permissions().mode() & 0o7777, 0o700);
        assert_eq!(files_in_shards(&root).len() as u64, made);
        clock.advance(HOUR);
        let some = sweep(&stores[0], &SweepOptions::new());
        assert_eq!(some.files.examined, made, "the note of the last walk is lost, so all is walked through");
        clock.advance(5 * HOUR);
        // All shards count as walked in this hour, so the next sweep only reads the index.
        fs::write(index.join("sweep"), format!("{:20}\n", BASE + 6)).unwrap();
        assert_eq!(some.removed + sweep_due(&stores[0]).removed, made);
    }
    rounds.figures()
}

/// Removes the index again and again, while four threads create sessions that live up to five hours. Returns how many
/// they have created.
fn create_beside_removals(root: &Path, stores: &[FileStore; 2]) -> u64 {
    let made: [AtomicU64; 4] = Default::default();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for (n, made) in made.iter().enumerate() {
            let (store, is_over) = (&stores[n % 2], &is_over);
            scope.spawn(move || {
                for k in 0_u32.. {
                    if is_over.load(Ordering::SeqCst) {
                        break;
                    }
                    create(store, store.now() + HOUR * (k % 6));
                    made.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        // Before the next removal, all threads have made the index again.
        let wait = || {
            let before = made.each_ref().map(|made| made.load(Ordering::SeqCst));
            while made.iter().zip(before).any(|(made, before)| made.load(Ordering::SeqCst) < before + 12) {
                thread::sleep(MILLI);
            }
        };
        for removal in 0..REMOVALS {
            wait();
            let aside = root.with_extension(removal.to_string());
            fs::rename(root.join("run/due"), &aside).unwrap();
            fs::remove_dir_all(&aside).unwrap();
        }
        wait();
        is_over.store(true, Ordering::SeqCst);
    });
    made.into_iter().map(AtomicU64::into_inner).sum()
}
