//! The workload: processes that create, change, keep, rotate and destroy sessions of one store, at both durabilities,
//! each with several threads and a reaper. Some operations run in a process that is killed half-way.
//!
//! There are few sessions, so that operations meet: every thread changes, rotates and ends each of them.
use crate::kill_at_syscall::KillPoint;
use crate::log::{self, Life, Note, Op};
use crate::operation::{Call, Client, GRACE, Notes, Operation, Table};
use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::{Signal, set_parent_process_death_signal};
use sessile::admin::{SweepOptions, SweepReport};
use sessile::reaper::{Reaper, ReaperOptions};
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

/// The number of threads of a process.
pub(crate) const THREADS: u32 = 2;
/// The approximate number of sessions.
const SESSIONS: usize = 24;
/// The wait limit for locks. It is shorter than the time for which a process is sometimes stopped, so that sessions are
/// ended while their locks are held.
pub(crate) const LOCK_WAIT: Duration = Duration::from_millis(60);

/// Arguments by which a process of the workload learns its environment.
#[derive(Clone, Debug, Args)]
pub(crate) struct Scene {
    /// The store's directory
    #[arg(long)]
    pub(crate) store: PathBuf,
    /// The directory with the table of sessions
    #[arg(long)]
    pub(crate) table: PathBuf,
    /// The file that takes notes
    #[arg(long)]
    pub(crate) notes: PathBuf,
    /// The durability of most saves
    #[arg(long)]
    pub(crate) durability: Level,
}

/// The durability of most saves of a workload; the others have the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// A power cut does not undo an acknowledged save.
    PowerSafe,
    /// A power cut may undo a save, and never tears it.
    Relaxed,
}

impl Level {
    /// The number of power-safe saves in a hundred.
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
    /// The process's number, unique among all
    #[arg(long)]
    number: u32,
    /// The seed of its operations, as far as other processes do not interfere
    #[arg(long)]
    seed: u64,
}

/// A process that performs one operation and is killed in it.
#[derive(Clone, Debug, Args)]
pub(crate) struct KillAtSyscall {
    #[command(flatten)]
    scene: Scene,
    /// The system call at which the process is killed
    #[arg(long)]
    at: KillPoint,
    /// The operation
    #[arg(long)]
    operation: KilledOperation,
    /// The operation's number
    #[arg(long)]
    op: Op,
    /// The session
    #[arg(long)]
    life: Life,
    /// Whether the operation promises that a power cut does not undo it
    #[arg(long)]
    power_safe: bool,
}

/// An operation that is killed half-way.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum KilledOperation {
    /// Creation of a session.
    Create,
    /// A save.
    Save,
    /// A save that needs a larger file.
    Grow,
    /// A rotation.
    Rotate,
    /// A rotation with a grace period.
    Move,
    /// Destruction of a session.
    Destroy,
    /// A cut-off of a session's user.
    CutOff,
}

impl Scene {
    /// Creates the store and opens it.
    ///
    /// # Errors
    ///
    /// The store cannot be created or opened.
    pub(crate) fn make(&self) -> Result<Client> {
        self.open(true)
    }

    /// Opens the store in a process of the workload. The process dies with its parent, because no process may use a
    /// disk that has been removed.
    ///
    /// # Errors
    ///
    /// The store does not exist or cannot be opened.
    fn enter(&self) -> Result<Client> {
        set_parent_process_death_signal(Some(Signal::KILL)).context("ask to die with the parent")?;
        self.open(false)
    }

    fn open(&self, create: bool) -> Result<Client> {
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
        Ok(Client {
            store: Arc::new(store),
            notes: Notes::open(&self.notes)?,
            table: Table::new(&self.table),
        })
    }

    /// A command of this program, with the arguments of this scene.
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
    /// Works until the process is killed.
    ///
    /// # Errors
    ///
    /// The engine failed, in one of the threads or in the reaper, for a reason that must not occur here, or panicked.
    /// The process then ends, and the recorder notices.
    pub(crate) fn run(&self) -> Result<()> {
        let client = self.scene.enter()?;
        let (fail, failed) = mpsc::channel();
        let sweep = SweepOptions::new().cpu_percent(100);
        let reaper = ReaperOptions::new()
            .interval(Duration::from_millis(100))
            .sweep(sweep)
            .observer(observe_sweeps(Notes::open(&self.scene.notes)?, fail.clone()));
        let _reaper = Reaper::start(&client.store, reaper).context("start a reaper")?;
        for thread in 0..THREADS {
            let number = hand_of(self.number, thread);
            let mut hand = Hand {
                client: Client {
                    store: Arc::clone(&client.store),
                    notes: Notes::open(&self.scene.notes)?,
                    table: client.table.clone(),
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

/// Notes how many sessions a reaper has removed, and reports its failures.
fn observe_sweeps(notes: Notes, fail: Sender<anyhow::Error>) -> impl FnMut(&sessile::Result<SweepReport>) {
    move |swept| {
        let failure = match swept {
            Ok(report) if report.failed == 0 => {
                if report.removed + report.files.moved > 0 {
                    notes.say(Note::Swept { removed: report.removed, moved: report.files.moved });
                }
                return;
            }
            Ok(report) => anyhow!("a sweep failed at {} files: {:?}", report.failed, report.errors),
            Err(error) => anyhow!("a sweep failed: {error:?}"),
        };
        // A closed channel means that a failure was reported already.
        let _ = fail.send(failure);
    }
}

impl KillAtSyscall {
    /// Performs its one operation, and is killed in it if that makes the system call in question.
    ///
    /// # Errors
    ///
    /// The engine failed for a reason that must not occur here.
    pub(crate) fn run(&self) -> Result<()> {
        let client = self.scene.enter()?;
        self.at.arm()?;
        let operation = match self.operation {
            KilledOperation::Create => Operation::Create(Duration::from_secs(3600)),
            KilledOperation::Save => Operation::Save,
            KilledOperation::Grow => Operation::Grow,
            KilledOperation::Rotate => Operation::Rotate,
            KilledOperation::Move => Operation::Move(GRACE),
            KilledOperation::Destroy => Operation::Destroy,
            KilledOperation::CutOff => Operation::CutOff,
        };
        client
            .perform(Call { operation, op: self.op, life: self.life, power_safe: self.power_safe })
            .map(drop)
    }
}

/// One thread of the workload.
struct Hand {
    client: Client,
    scene: Scene,
    /// The number of the next operation, and of the next life. No other thread uses the same numbers.
    next: u64,
    chance: StdRng,
}

impl Hand {
    /// Works until an error or a panic, and returns that.
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
        let lives = self.client.table.lives();
        let life = match lives.len() {
            0 => 0,
            some => lives[self.chance.random_range(0..some)],
        };
        let percent = lives.len() * 100 / SESSIONS;
        let roll = self.chance.random_range(0..100);
        match roll {
            _ if percent < 50 => self.perform(self.creation(), life).map(drop),
            0..8 if percent < 150 => self.perform(self.creation(), life).map(drop),
            8..12 => self.perform(Operation::Destroy, life).map(drop),
            12..14 => self.perform(Operation::CutOff, life).map(drop),
            14..17 => self.perform(Operation::Rotate, life).map(drop),
            17..20 => self.perform(self.moving(), life).map(drop),
            51..54 => self.go_on_from_moved(life),
            54..56 => self.cut_off_beside_rotation(life),
            56 => self.log_in_after_cut_off(life),
            20..24 => self.perform(Operation::Keep, life).map(drop),
            24..47 => self.kill_half_way(life),
            47 => self.overtake(life),
            48..51 => self.outgrow(life),
            _ => self.perform(Operation::Save, life).map(drop),
        }
    }

    /// A creation. Some of the sessions expire while the workload runs.
    fn creation(&self) -> Operation {
        let short = self.next.is_multiple_of(4);
        Operation::Create(if short {
            Duration::from_millis(300 + self.next % 700)
        } else {
            Duration::from_secs(3600)
        })
    }

    /// A rotation with a grace period. Some of the periods end while the workload runs, so that sweeps find marks to
    /// remove.
    fn moving(&self) -> Operation {
        let short = self.next.is_multiple_of(3);
        Operation::Move(if short { Duration::from_millis(100 + self.next % 300) } else { GRACE })
    }

    /// Ends a session, or logs in, by an id that was moved.
    fn go_on_from_moved(&mut self, life: Life) -> Result<()> {
        let ops = [self.next(), self.next()];
        let logs_in = self.chance.random();
        self.client.go_on_from_moved(life, ops, logs_in)
    }

    /// Ends all sessions of a user, and logs in by the id of one of them.
    fn log_in_after_cut_off(&mut self, life: Life) -> Result<()> {
        let ops = [self.next(), self.next()];
        self.client.log_in_after_cut_off(life, ops)
    }

    fn perform(&mut self, operation: Operation, life: Life) -> Result<bool> {
        let power_safe = self.is_power_safe();
        let op = self.next();
        self.client.perform(Call { operation, op, life, power_safe })
    }

    fn is_power_safe(&mut self) -> bool {
        self.chance.random_range(0..100) < self.scene.durability.power_safe_percent()
    }

    /// Saves a session for longer than the wait limit of the others, and deletes it meanwhile.
    fn overtake(&mut self, life: Life) -> Result<()> {
        const HEAD_START: Duration = Duration::from_millis(10);
        let power_safe = self.is_power_safe();
        let (saving, ending) = (self.next(), self.next());
        let linger = Operation::Linger(LOCK_WAIT + 4 * HEAD_START);
        let client = &self.client;
        thread::scope(|scope| {
            let saver =
                scope.spawn(move || client.perform(Call { operation: linger, op: saving, life, power_safe }));
            thread::sleep(HEAD_START);
            client.perform(Call { operation: Operation::Destroy, op: ending, life, power_safe })?;
            saver.join().map_err(|_| anyhow!("a save of the workload panicked"))?.map(drop)
        })
    }

    /// Ends all sessions of a user while one of them is rotated: the rotation has examined the session already, and has
    /// not made its successor yet.
    fn cut_off_beside_rotation(&mut self, life: Life) -> Result<()> {
        const HEAD_START: Duration = Duration::from_millis(10);
        let (rotating, cutting) = (self.next(), self.next());
        let linger = Operation::LingerInRotation(3 * HEAD_START);
        let client = &self.client;
        thread::scope(|scope| {
            let rotation = scope.spawn(move || {
                client.perform(Call { operation: linger, op: rotating, life, power_safe: true })
            });
            thread::sleep(HEAD_START);
            client.perform(Call { operation: Operation::CutOff, op: cutting, life, power_safe: true })?;
            rotation.join().map_err(|_| anyhow!("a rotation of the workload panicked"))?.map(drop)
        })
    }

    /// Saves a session into a larger file without a sync of its name, and deletes it at once.
    fn outgrow(&mut self, life: Life) -> Result<()> {
        let (growing, ending) = (self.next(), self.next());
        self.client.perform(Call { operation: Operation::Grow, op: growing, life, power_safe: false })?;
        let end = Call { operation: Operation::Destroy, op: ending, life, power_safe: false };
        self.client.perform(end).map(drop)
    }

    /// Starts an operation in a process that is killed in it, then saves the same session: the next writer must not
    /// lose a version that was acknowledged before the killed process. Or destroys it: then it must not come back,
    /// although it may have been gone already.
    fn kill_half_way(&mut self, life: Life) -> Result<()> {
        let (operation, at) = match self.chance.random_range(0..20) {
            0..2 => (KilledOperation::Create, KillPoint::CHOICES[self.chance.random_range(0..6)]),
            2..4 => (
                if self.chance.random() { KilledOperation::Rotate } else { KilledOperation::Move },
                KillPoint::CHOICES[self.chance.random_range(0..KillPoint::CHOICES.len() - 1)],
            ),
            4..6 => (KilledOperation::Destroy, KillPoint::Fdatasync),
            6 => (KilledOperation::Destroy, KillPoint::Unlinkat),
            7 if self.chance.random() => (KilledOperation::CutOff, KillPoint::Fdatasync),
            7 => (KilledOperation::Create, KillPoint::Fsync),
            8..10 => (KilledOperation::Grow, KillPoint::Renameat2),
            10 => (
                KilledOperation::Save,
                KillPoint::CHOICES[self.chance.random_range(0..KillPoint::CHOICES.len() - 1)],
            ),
            _ => (KilledOperation::Save, KillPoint::Fdatasync),
        };
        // A relaxed save makes no sync, so its process cannot be killed at one.
        let syncs = self.scene.durability == Level::PowerSafe
            || matches!(at, KillPoint::Fdatasync | KillPoint::Fsync);
        let power_safe = syncs || self.is_power_safe();
        let dying = log::in_own_process(self.next());
        let op = dying.to_string();
        let name = |value: clap::builder::PossibleValue| value.get_name().to_owned();
        let mut command = self.scene.command("kill-at-syscall")?;
        command.args(["--at", &name(at.to_possible_value().expect("no kill point is hidden"))]);
        command.args(["--operation", &name(operation.to_possible_value().expect("no operation is hidden"))]);
        command.args(["--op", &op, "--life", &life.to_string()]);
        if power_safe {
            command.arg("--power-safe");
        }
        let status = command.status().context("run a process that is killed")?;
        let death = match status.signal() {
            Some(signal) if signal == libc::SIGSYS => Some(at),
            None if status.success() => None,
            _ => bail!("a process that was to be killed at {at:?} ended otherwise: {status}"),
        };
        self.client.notes.say(Note::Exited { op: dying, death });
        let ends =
            matches!(operation, KilledOperation::Destroy | KilledOperation::Rotate | KilledOperation::Move)
                && self.chance.random();
        let op = self.next();
        let operation = if ends { Operation::Destroy } else { Operation::Save };
        self.client.perform(Call { operation, op, life, power_safe: true }).map(drop)
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
