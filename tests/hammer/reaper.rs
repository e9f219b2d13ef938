//! Reapers in all processes beside renewals at the last moment: a session renewed in time is never removed, an expired
//! one is never served, and at the end one sweep leaves no expired session.
//!
//! The ledger's versions are deadlines here, in microseconds since the trial began. A renewal never makes a deadline
//! earlier, so a session lives at least until the latest acknowledged deadline.
use crate::figures::Figures;
use crate::stage::{Going, ledger, open_in, open_without_cache, wait};
use crate::support::dice::Dice;
use crate::support::ledger::{Ledger, Life};
use crate::support::process::{Parent, Start, Worker, hear_from_all, say_to_all};
use crate::support::texts::{files_in_shards, path_of};
use crate::support::versions;
use sessile::admin::{SweepOptions, SweepOutcome};
use sessile::reaper::{Reaper, ReaperOptions};
use sessile::{
    Absent, Admin, Durability, FileStore, Live, Lookup, PublicId, Record, Store, Timing, Token, Verdict,
};
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

trials! {
    a_session_renewed_in_time_stays_and_an_expired_one_goes,
}

pub(crate) const WORKERS: &[(&str, Worker)] = &[("renew beside reapers", work)];

const PROCESSES: usize = 4;
const THREADS: usize = 2;
const WRITERS: usize = PROCESSES * THREADS;
/// The number of places. In each place there is one session after the other. The place's owner, the writer `place %
/// WRITERS`, creates the next one.
const PLACES: u64 = 24;
/// The longest lifetime of a session, and the longest time for which a due renewal holds the lock, in microseconds.
const LIFE_MAX: u64 = 20_000;
const HELD_MAX: u64 = 400;
/// The earliest time before a deadline at which a renewal begins, in microseconds.
const LEAD_MAX: u64 = 6_000;

fn a_session_renewed_in_time_stays_and_an_expired_one_goes(dir: &Path, time: Duration) -> Figures {
    let ledger = ledger(dir);
    let store = open_without_cache(dir);
    let epoch = SystemTime::now();
    let mut figures = Figures::default();
    let mut maker = Racer::new(&store, &ledger, WRITERS, epoch);
    (0..PLACES).for_each(|place| maker.create_in(place));
    let micros = epoch.duration_since(UNIX_EPOCH).unwrap().as_micros().to_string();
    let start = |process: usize| {
        let start = Start::of(WORKERS[0].0).with("DIR", dir).with("EPOCH", &micros);
        let start = start.with("PROCESS", process.to_string());
        start.with("MILLIS", time.as_millis().to_string()).start()
    };
    let mut children: Vec<_> = (0..PROCESSES).map(start).collect();
    hear_from_all(&children, "ready");
    say_to_all(&mut children, "go");
    wait(&ledger, time);
    for child in children {
        figures.add_child(child);
    }
    figures.check(|| check_at_rest(&store, &ledger, maker));
    let met = [
        ("reads", figures.reads),
        ("renewals in time", figures.saves),
        ("renewals that came too late", figures.ends),
        ("sweeps", figures.sweeps),
        ("sessions that a reaper removed", figures.removed),
    ];
    figures.check_met(time, &met);
    figures
}

/// Renews a few sessions and lets all others expire. Asserts that one sweep then leaves exactly the renewed ones.
#[track_caller]
fn check_at_rest(store: &FileStore, ledger: &Ledger, mut maker: Racer<'_>) {
    (0..PLACES).for_each(|place| maker.create_in(place));
    let kept: Vec<_> = (0..PLACES).step_by(2).map(|place| ledger.life_in(place)).collect();
    for life in &kept {
        // The session may have expired while the others were created.
        maker.renew(*life, Duration::from_secs(3600), 0);
    }
    thread::sleep(Duration::from_micros(LIFE_MAX + HELD_MAX) + Duration::from_millis(5));
    let report = store.sweep(&SweepOptions::new().cpu_percent(100)).unwrap();
    let failures = [report.files.damaged, report.files.unknown, report.failed];
    assert_eq!((report.outcome, failures), (SweepOutcome::Completed, [0; 3]), "{report:?}");
    assert!(!maker.figures.has_faults(), "{}", maker.figures.descriptions());
    let kept: Vec<_> = kept.into_iter().filter(|life| !ledger.row(*life).ended).collect();
    let path = |life: &Life| path_of(store.path(), PublicId::digest(ledger.token(*life).expose().as_bytes()));
    let want: HashSet<_> = kept.iter().map(path).collect();
    let left: HashSet<_> = files_in_shards(store.path()).into_iter().collect();
    assert_eq!(left, want, "after one sweep: remaining sessions, and renewed sessions");
    for life in ledger.lives() {
        let found = versions::stored(store, &ledger.token(life)).is_some();
        assert_eq!(found, kept.contains(&life), "{life:?}: {:?}", ledger.row(life));
    }
}

fn work(parent: &Parent) {
    let dir = Path::new(parent.argument("DIR"));
    let process = usize::try_from(parent.number("PROCESS")).unwrap();
    let time = Duration::from_millis(parent.number("MILLIS"));
    let epoch = UNIX_EPOCH + Duration::from_micros(parent.number("EPOCH"));
    let (store, ledger) = (Arc::new(open_in(dir, process != 1)), ledger(dir));
    let failures: Arc<Mutex<Vec<String>>> = Arc::default();
    let observed = Arc::clone(&failures);
    let options = ReaperOptions::new().interval(Duration::from_millis(100));
    let options = options.sweep(SweepOptions::new().cpu_percent(100)).observer(move |swept| {
        let wrong = match swept {
            Ok(report) => [report.files.damaged, report.files.unknown, report.failed] != [0; 3],
            Err(_) => true,
        };
        if wrong {
            observed.lock().unwrap().push(format!("{swept:?}"));
        }
    });
    let reaper = Reaper::start(&store, options).unwrap();
    parent.report("ready");
    parent.line();
    let mut figures = Figures::default();
    thread::scope(|scope| {
        let (store, ledger) = (&store, &ledger);
        let race = |writer: usize| {
            let going = Going::on_for(ledger, time);
            let mut racer = Racer::new(store, ledger, writer, epoch);
            while going.on_until(racer.figures.saves > 0 && racer.figures.ends > 0) {
                racer.step();
                if racer.figures.has_faults() {
                    going.stop();
                }
            }
            racer.figures
        };
        let first = THREADS * process;
        let threads: Vec<_> =
            (first..first + THREADS).map(|writer| scope.spawn(move || race(writer))).collect();
        // Sweeps are requested far more often than any interval allows.
        let going = Going::on_for(ledger, time);
        let mut dice = Dice::new(900 + process as u64);
        while going.on_still() {
            thread::sleep(Duration::from_micros(dice.roll(6_000)));
            reaper.sweep_now();
        }
        for thread in threads {
            figures.add_thread(thread);
        }
    });
    let done = reaper.close();
    figures.sweeps = done.sweeps;
    figures.removed = done.removed;
    for failure in &*failures.lock().unwrap() {
        figures.fault(format!("a sweep: {failure}"));
    }
    if done.errors + done.panics > 0 {
        figures.fault(format!("{done:?}"));
    }
    figures.report_to(parent);
}

/// A thread that renews sessions shortly before or after their deadlines.
struct Racer<'a> {
    store: &'a FileStore,
    ledger: &'a Ledger,
    writer: usize,
    epoch: SystemTime,
    dice: Dice,
    /// The time in microseconds before the deadline at which a renewal begins. It is adjusted so that about half of the
    /// renewals are in time.
    lead: u64,
    figures: Figures,
}

impl<'a> Racer<'a> {
    fn new(store: &'a FileStore, ledger: &'a Ledger, writer: usize, epoch: SystemTime) -> Self {
        let dice = Dice::new(writer as u64);
        Self { store, ledger, writer, epoch, dice, lead: 200, figures: Figures::default() }
    }

    fn step(&mut self) {
        let own = (self.writer as u64..PLACES).step_by(WRITERS);
        for place in own {
            if self.ledger.row(self.ledger.life_in(place)).ended {
                self.create_in(place);
            }
        }
        let life = self.ledger.life_in(self.dice.roll(PLACES));
        let row = self.ledger.row(life);
        let left = row.version.saturating_sub(self.now());
        if row.ended || left > LEAD_MAX || self.dice.roll(3) == 0 {
            self.load(life);
            return;
        }
        let early = self.dice.roll(self.lead + 200);
        let until = self.now() + left.saturating_sub(early);
        while self.now() < until {
            std::hint::spin_loop();
        }
        // Some renewals hold the lock until the session would have expired.
        let held = if self.dice.roll(4) == 0 { left.min(early) + self.dice.roll(HELD_MAX) } else { 0 };
        let age = Duration::from_micros(self.dice.roll(LIFE_MAX));
        let renewed = self.renew(life, age, held);
        self.lead = if renewed { self.lead.saturating_sub(20) } else { (self.lead + 40).min(LEAD_MAX) };
        self.load(life);
    }

    /// The microseconds since the trial began.
    fn now(&self) -> u64 {
        self.since_epoch(self.store.now())
    }

    fn since_epoch(&self, time: SystemTime) -> u64 {
        u64::try_from(time.duration_since(self.epoch).unwrap_or_default().as_micros()).unwrap()
    }

    fn create_in(&mut self, place: u64) {
        let life = self.ledger.give(self.writer);
        let mut record = versions::new(self.store, 1, 10);
        record.set_timing(Timing {
            deadline: self.store.now() + Duration::from_micros(2_000 + self.dice.roll(LIFE_MAX - 2_000)),
            ..record.timing()
        });
        let saved = self.store.create(&record, Durability::Relaxed).unwrap();
        let deadline = self.since_epoch(saved.live.record.deadline());
        self.ledger.begin(life, &saved.token, self.writer, deadline);
        self.ledger.put_in(place, life);
    }

    /// Moves a session's deadline to `age` from now, unless it is later already. Holds the lock for `held`
    /// microseconds. Returns whether the renewal was in time.
    fn renew(&mut self, life: Life, age: Duration, held: u64) -> bool {
        let Some((token, before)) = self.look(life) else { return false };
        let until = Instant::now() + Duration::from_micros(held);
        let to = self.store.now() + age;
        // One renewal in thirty needs a larger file.
        let bytes = if self.dice.roll(30) == 0 { 5_000 } else { 10 };
        let change = &mut |record: &mut Record| {
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            versions::put(record, versions::of(record) + 1, bytes);
            record.set_timing(Timing { deadline: record.deadline().max(to), ..record.timing() });
            Ok(Verdict::Write)
        };
        let Some(saved) = self.store.update(&token, change, Durability::Relaxed).unwrap() else {
            let now = self.now();
            if now < before.deadline {
                self.figures.fault(format!(
                    "{life:?}: refused at {now}, acknowledged to live until {}",
                    before.deadline
                ));
            }
            self.ledger.ended(life);
            self.figures.ends += 1;
            return false;
        };
        let deadline = self.since_epoch(saved.live.record.deadline());
        self.ledger.acknowledge(life, self.writer, deadline);
        self.figures.saves += 1;
        if before.ended {
            self.figures.fault(format!("{life:?}: renewed to {deadline} after it was reported as expired"));
        }
        true
    }

    fn load(&mut self, life: Life) {
        let Some((token, before)) = self.look(life) else { return };
        let asked = self.now();
        let found = self.store.load(&token).unwrap();
        let answered = self.now();
        self.figures.reads += 1;
        match found {
            Lookup::Live(Live { record, .. }) => {
                versions::of(&record);
                let deadline = self.since_epoch(record.deadline());
                if before.ended {
                    self.figures.fault(format!("{life:?}: served after it was reported as expired"));
                } else if deadline <= asked {
                    self.figures.fault(format!("{life:?}: expired at {deadline}, served at {asked}"));
                } else if deadline < before.deadline {
                    self.figures
                        .fault(format!("{life:?}: until {deadline}, acknowledged {}", before.deadline));
                }
            }
            Lookup::Absent(Absent::NotFound(_) | Absent::Expired(_)) => {
                if answered < before.deadline {
                    self.figures.fault(format!(
                        "{life:?}: absent at {answered}, acknowledged to live until {}",
                        before.deadline
                    ));
                }
            }
            Lookup::Absent(other) => self.figures.fault(format!("{life:?}: {other:?}")),
        }
    }

    /// The state of a life before an operation; `None` if another life has its row in the ledger by now.
    fn look(&self, life: Life) -> Option<(Token, Acknowledged)> {
        let token = self.ledger.has(life).then(|| self.ledger.token(life))?;
        let row = self.ledger.row(life);
        Some((token, Acknowledged { deadline: row.version, ended: row.ended }))
    }
}

/// The acknowledged state of a session.
struct Acknowledged {
    /// The session lives at least until this time.
    deadline: u64,
    /// An operation has found the session expired, under its lock. That is final.
    ended: bool,
}
