//! The workload: processes that make, change, keep, rotate and end sessions of one store, at both durabilities, each with
//! several threads and a reaper; some of what they do is done by a process that dies half-way.
//!
//! Few sessions, so that those who act meet: each is changed, rotated or ended by all of them.
use crate::act::{Act, Actor, Notes, Table};
use crate::doomed::Death;
use crate::log::{self, Life, Note, Op};
use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::{Signal, set_parent_process_death_signal};
use sessile::file::{ReaperOptions, SweepOptions, SweepReport};
use sessile::{Durability, FileStoreOptions};
use std::env;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

/// Threads of a process.
pub(crate) const THREADS: u32 = 2;
/// About how many sessions there are.
const SESSIONS: usize = 24;
/// Shorter than a process is now and then stopped, so that a session is ended while its lock is held.
pub(crate) const LOCK_WAIT: Duration = Duration::from_millis(60);

/// How the processes of a workload are told what they are part of.
#[derive(Clone, Debug, Args)]
pub(crate) struct Scene {
    /// The store's directory
    #[arg(long)]
    pub(crate) store: PathBuf,
    /// The directory that says which sessions there are
    #[arg(long)]
    pub(crate) table: PathBuf,
    /// Where to say what is done
    #[arg(long)]
    pub(crate) notes: PathBuf,
    /// What most saves promise
    #[arg(long)]
    pub(crate) durability: Level,
}

/// What most saves of a workload promise; the others promise the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// That a power cut does not undo them.
    PowerSafe,
    /// That they are never torn.
    Relaxed,
}

impl Level {
    /// How many of a hundred saves are power-safe.
    fn power_safe_percent(self) -> u32 {
        match self {
            Self::PowerSafe => 80,
            Self::Relaxed => 15,
        }
    }
}

/// One process of the workload.
#[derive(Clone, Debug, Args)]
pub(crate) struct Worker {
    #[command(flatten)]
    scene: Scene,
    /// Tells it from all others
    #[arg(long)]
    number: u32,
    /// What it does follows from this, as far as nobody else interferes
    #[arg(long)]
    seed: u64,
}

/// One call of a process that does not survive it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Doomed {
    #[command(flatten)]
    scene: Scene,
    /// At which system call it dies
    #[arg(long)]
    at: Death,
    /// What it does
    #[arg(long)]
    act: DoomedAct,
    /// The call's number
    #[arg(long)]
    op: Op,
    /// With which session
    #[arg(long)]
    life: Life,
    /// As which one that goes on
    #[arg(long)]
    fresh: Life,
    /// Whether it promises that a power cut does not undo it
    #[arg(long)]
    power_safe: bool,
}

/// What is done half-way.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DoomedAct {
    /// A session's beginning.
    Create,
    /// A save.
    Save,
    /// A save that needs a larger file.
    Grow,
    /// A rotation.
    Rotate,
    /// A session's end.
    Destroy,
}

impl Scene {
    /// Makes the store, and enters it.
    ///
    /// # Errors
    ///
    /// The store cannot be made or opened.
    pub(crate) fn make(&self) -> Result<Actor> {
        self.open(true)
    }

    /// Enters it as a process of its own, which goes when its parent goes: nobody acts on a disk that was taken away.
    ///
    /// # Errors
    ///
    /// The store is not there or cannot be opened.
    fn enter(&self) -> Result<Actor> {
        set_parent_process_death_signal(Some(Signal::KILL)).context("ask to die with the parent")?;
        self.open(false)
    }

    fn open(&self, create: bool) -> Result<Actor> {
        let durability = match self.durability {
            Level::PowerSafe => Durability::PowerSafe,
            Level::Relaxed => Durability::Relaxed,
        };
        let store = FileStoreOptions::new()
            .durability(durability)
            .lock_wait(LOCK_WAIT)
            .create(create)
            .open(&self.store)
            .context("open the store")?;
        Ok(Actor { store: Arc::new(store), notes: Notes::open(&self.notes)?, table: Table::new(&self.table) })
    }

    /// A command of this program, about this scene.
    ///
    /// # Errors
    ///
    /// The program's own file cannot be found.
    pub(crate) fn command(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(env::current_exe().context("find the program's own file")?);
        let level = self.durability.to_possible_value().expect("no level is hidden");
        command.arg(name).arg("--store").arg(&self.store).arg("--table").arg(&self.table);
        command.arg("--notes").arg(&self.notes).args(["--durability", level.get_name()]);
        command.stdin(Stdio::null());
        Ok(command)
    }
}

impl Worker {
    /// Works until it is killed.
    ///
    /// # Errors
    ///
    /// The engine refused, in one of the threads or in the reaper, for a reason that it has no business to have here, or
    /// panicked. The process then ends, and is missed.
    pub(crate) fn run(&self) -> Result<()> {
        let actor = self.scene.enter()?;
        let (fail, failed) = mpsc::channel();
        let sweep = SweepOptions::new().cpu_percent(100);
        let reaper = ReaperOptions::new()
            .interval(Duration::from_millis(100))
            .sweep(sweep)
            .observer(observe_sweeps(Notes::open(&self.scene.notes)?, fail.clone()));
        let _reaper = actor.store.start_reaper(reaper).context("start a reaper")?;
        for thread in 0..THREADS {
            let number = hand_of(self.number, thread);
            let mut hand = Hand {
                actor: Actor {
                    store: Arc::clone(&actor.store),
                    notes: Notes::open(&self.scene.notes)?,
                    table: actor.table.clone(),
                },
                scene: self.scene.clone(),
                next: log::op_before(number),
                chance: StdRng::seed_from_u64(self.seed ^ number << 40),
            };
            let fail = fail.clone();
            thread::spawn(move || fail.send(hand.work_until_failure()));
        }
        Err(failed.recv().context("wait for a thread to fail")?)
    }
}

/// The number of a thread of a process.
pub(crate) fn hand_of(process: u32, thread: u32) -> log::Hand {
    u64::from(process * THREADS + thread)
}

/// Notes what a reaper removes, and tells when it could not.
fn observe_sweeps(notes: Notes, fail: Sender<anyhow::Error>) -> impl FnMut(&sessile::Result<SweepReport>) {
    move |swept| {
        let failure = match swept {
            Ok(report) if report.failed == 0 => {
                if report.removed > 0 {
                    notes.say(Note::Swept { removed: report.removed });
                }
                return;
            }
            Ok(report) => anyhow!("a sweep failed at {} files: {:?}", report.failed, report.errors),
            Err(error) => anyhow!("a sweep failed: {error:?}"),
        };
        // Whoever no longer listens has a failure already.
        let _ = fail.send(failure);
    }
}

impl Doomed {
    /// Does its one call, and dies in it, if that makes the system call at which it dies.
    ///
    /// # Errors
    ///
    /// The engine refused for a reason that it has no business to have here.
    pub(crate) fn run(&self) -> Result<()> {
        let actor = self.scene.enter()?;
        self.at.await_it()?;
        let act = match self.act {
            DoomedAct::Create => Act::Create(Duration::from_secs(3600)),
            DoomedAct::Save => Act::Save,
            DoomedAct::Grow => Act::Grow,
            DoomedAct::Rotate => Act::Rotate,
            DoomedAct::Destroy => Act::Destroy,
        };
        actor.act(act, self.op, self.life, self.fresh, self.power_safe).map(drop)
    }
}

/// One thread of the workload.
struct Hand {
    actor: Actor,
    scene: Scene,
    /// The next call, and the next life; both are nobody else's.
    next: u64,
    chance: StdRng,
}

impl Hand {
    /// Works, and ends when something goes wrong, be it by a panic; what did.
    fn work_until_failure(&mut self) -> anyhow::Error {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.work())) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(_) => return anyhow!("a thread of the workload panicked"),
            }
        }
    }

    fn work(&mut self) -> Result<()> {
        let lives = self.actor.table.lives();
        let life = match lives.len() {
            0 => 0,
            some => lives[self.chance.random_range(0..some)],
        };
        let crowd = lives.len() * 100 / SESSIONS;
        let roll = self.chance.random_range(0..100);
        match roll {
            _ if crowd < 50 => self.act(self.creation(), life).map(drop),
            0..8 if crowd < 150 => self.act(self.creation(), life).map(drop),
            8..14 => self.act(Act::Destroy, life).map(drop),
            14..20 => self.act(Act::Rotate, life).map(drop),
            20..24 => self.act(Act::Keep, life).map(drop),
            24..47 => self.send_to_death(life),
            47 => self.pass(life),
            48..51 => self.outgrow(life),
            _ => self.act(Act::Save, life).map(drop),
        }
    }

    /// Some sessions expire while the workload runs.
    fn creation(&self) -> Act {
        let short = self.next.is_multiple_of(4);
        Act::Create(if short {
            Duration::from_millis(300 + self.next % 700)
        } else {
            Duration::from_secs(3600)
        })
    }

    fn act(&mut self, act: Act, life: Life) -> Result<bool> {
        let power_safe = self.is_power_safe();
        let op = self.next();
        self.actor.act(act, op, life, op, power_safe)
    }

    fn is_power_safe(&mut self) -> bool {
        self.chance.random_range(0..100) < self.scene.durability.power_safe_percent()
    }

    /// Saves a session for longer than anybody waits for its lock, and has it ended meanwhile.
    fn pass(&mut self, life: Life) -> Result<()> {
        const HEAD_START: Duration = Duration::from_millis(10);
        let power_safe = self.is_power_safe();
        let (saving, ending) = (self.next(), self.next());
        let linger = Act::Linger(LOCK_WAIT + 4 * HEAD_START);
        let actor = &self.actor;
        thread::scope(|scope| {
            let saver = scope.spawn(move || actor.act(linger, saving, life, saving, power_safe));
            thread::sleep(HEAD_START);
            actor.act(Act::Destroy, ending, life, ending, power_safe)?;
            saver.join().map_err(|_| anyhow!("a save of the workload panicked"))?.map(drop)
        })
    }

    /// Saves a session into a larger file, whose name no sync brings to the disk, and ends it at once.
    fn outgrow(&mut self, life: Life) -> Result<()> {
        let (growing, ending) = (self.next(), self.next());
        self.actor.act(Act::Grow, growing, life, growing, false)?;
        self.actor.act(Act::Destroy, ending, life, ending, false).map(drop)
    }

    /// Has something begun by somebody who dies of it, and then saves the same session: the next writer must not lose what
    /// the dead one's predecessor was promised. Or ends it: then it must not come back, though it was gone already.
    fn send_to_death(&mut self, life: Life) -> Result<()> {
        let (act, at) = match self.chance.random_range(0..20) {
            0..2 => (DoomedAct::Create, Death::CHOICES[self.chance.random_range(0..6)]),
            2..4 => {
                (DoomedAct::Rotate, Death::CHOICES[self.chance.random_range(0..Death::CHOICES.len() - 1)])
            }
            4..6 => (DoomedAct::Destroy, Death::Fdatasync),
            6 => (DoomedAct::Destroy, Death::Unlinkat),
            7 => (DoomedAct::Create, Death::Fsync),
            8..10 => (DoomedAct::Grow, Death::Renameat2),
            10 => (DoomedAct::Save, Death::CHOICES[self.chance.random_range(0..Death::CHOICES.len() - 1)]),
            _ => (DoomedAct::Save, Death::Fdatasync),
        };
        // A relaxed save syncs nothing.
        let syncs =
            self.scene.durability == Level::PowerSafe || matches!(at, Death::Fdatasync | Death::Fsync);
        let power_safe = syncs || self.is_power_safe();
        let dying = log::in_own_process(self.next());
        let op = dying.to_string();
        let name = |value: clap::builder::PossibleValue| value.get_name().to_owned();
        let mut command = self.scene.command("doomed")?;
        command.args(["--at", &name(at.to_possible_value().expect("no death is hidden"))]);
        command.args(["--act", &name(act.to_possible_value().expect("no act is hidden"))]);
        command.args(["--op", &op, "--life", &life.to_string(), "--fresh", &op]);
        if power_safe {
            command.arg("--power-safe");
        }
        let status = command.status().context("run a process that dies")?;
        let death = match status.signal() {
            Some(signal) if signal == libc::SIGSYS => Some(at),
            None if status.success() => None,
            _ => bail!("a process that was to die at {at:?} ended otherwise: {status}"),
        };
        self.actor.notes.say(Note::ReaperStats { op: dying, death });
        let ends = matches!(act, DoomedAct::Destroy | DoomedAct::Rotate) && self.chance.random();
        let op = self.next();
        self.actor.act(if ends { Act::Destroy } else { Act::Save }, op, life, op, true).map(drop)
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
