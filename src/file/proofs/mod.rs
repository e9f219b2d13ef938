//! The engine under a scheduler that tries every order of its steps, up to a number of preemptions.
//!
//! One command: `RUSTFLAGS="--cfg shuttle" cargo test --release --lib proofs`.
//!
//! The proofs run the engine itself, not a copy of its rules: [`FileStore`]s on real files (in memory, where there is
//! `/dev/shm`), whose locks, threads and channels are the checker's ([`crate::sync`]). Two stores on one directory
//! stand for two processes: they share files, `flock`s and the mapped counters, and nothing else. The scheduler may
//! switch threads at every system call, every lock, and every read of half a counter.
//!
//! - **Proved**: no order with at most this number of preemptions breaks a promise. A preemption takes the turn from a
//!   thread that could continue; the wait or the end of a thread is no preemption. Two preemptions find nearly all
//!   races.
//! - **Not proved**: more preemptions, other models, and memory that is weaker than the order of the steps. Miri checks
//!   the memory order between the counters and a file (`generations::tests`); between processes it is the kernel's.
//! - **Each proof is shown able to fail**: beside it, the same model breaks one rule of
//!   [`design`](crate::_documentation::design), and the checker must find the violation.
//!
//! Why shuttle and not loom: the promises depend on the order of system calls on real files, including locks of files,
//! and loom would check a copy of the engine only. The engine needs its own stack, which loom does not have. Loom could
//! add the weak memory of the counters, which is one function. Shuttle's own exhaustive scheduler does not limit
//! preemptions; [`Bounded`] does.
mod coherence;
mod cut_offs;
mod queue;
mod sweeping;

use super::{FileStore, FileStoreOptions};
use crate::clock::Clock;
use crate::error::ErrorKind;
use crate::id::{SessionId, Token};
use crate::record::Record;
use crate::store::{Absent, Durability, Lookup, Store, Verdict};
use crate::value::Value;
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// The scheduler: tries all orders, depth first. After each run, the last choice that has another option takes that
/// option.
struct Bounded {
    preemptions_max: usize,
    /// The number of preemptions in the current run, and its choices.
    preemptions: usize,
    choices: Vec<Choice>,
    /// The number of choices that the current run has reached.
    depth: usize,
    runs: Arc<AtomicUsize>,
    is_complete: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Choice {
    options: Vec<usize>,
    taken: usize,
}

impl Bounded {
    /// Chooses one of the options. The first one is the usual one.
    fn choose(&mut self, options: Vec<usize>) -> usize {
        if options.len() == 1 {
            return options[0];
        }
        if self.depth == self.choices.len() {
            self.choices.push(Choice { options, taken: 0 });
        } else {
            assert_eq!(self.choices[self.depth].options, options, "a model does the same in the same order");
        }
        let Choice { options, taken } = &self.choices[self.depth];
        self.depth += 1;
        options[*taken]
    }

    /// Chooses one of the options. Every option except the first one costs a preemption.
    fn choose_at_a_price(&mut self, mut options: Vec<usize>) -> usize {
        if self.preemptions == self.preemptions_max {
            options.truncate(1);
        }
        let usual = options[0];
        let chosen = self.choose(options);
        self.preemptions += usize::from(chosen != usual);
        chosen
    }
}

impl Scheduler for Bounded {
    fn new_execution(&mut self) -> Option<Schedule> {
        if self.runs.fetch_add(1, SeqCst) > 0 {
            while self.choices.pop_if(|last| last.taken + 1 == last.options.len()).is_some() {}
            let Some(last) = self.choices.last_mut() else {
                self.runs.fetch_sub(1, SeqCst);
                self.is_complete.store(true, SeqCst);
                return None;
            };
            last.taken += 1;
        }
        (self.depth, self.preemptions) = (0, 0);
        Some(Schedule::new(0))
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, yields: bool) -> Option<TaskId> {
        let mut options: Vec<usize> = runnable.iter().map(|task| task.id().into()).collect();
        let current = current.map(usize::from);
        let next = match current.and_then(|current| options.iter().position(|task| *task == current)) {
            // The task waits by polling. Every other task gets a turn before it polls again.
            Some(at) if yields => {
                options.rotate_left(at + 1);
                self.choose_at_a_price(options)
            }
            Some(at) => {
                options.rotate_left(at);
                self.choose_at_a_price(options)
            }
            None if yields => {
                // The task is parked. Another task may wake it, or it may wake by itself.
                let at = current.map_or(0, |current| options.partition_point(|task| *task < current));
                let count = options.len();
                options.rotate_left(at % count);
                self.choose_at_a_price(options)
            }
            None => self.choose(options),
        };
        Some(next.into())
    }

    fn next_u64(&mut self) -> u64 {
        self.choose(vec![0, 1]) as u64
    }
}

/// Runs a model in every order with at most the given number of preemptions. Returns the number of orders.
#[track_caller]
fn check(preemptions_max: usize, model: impl Fn() + Send + Sync + 'static) {
    let (runs, is_complete) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let scheduler = Bounded {
        preemptions_max,
        preemptions: 0,
        choices: Vec::new(),
        depth: 0,
        runs: Arc::clone(&runs),
        is_complete: Arc::clone(&is_complete),
    };
    let mut config = Config::new();
    config.stack_size = 1 << 19;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(1_000_000);
    Runner::new(scheduler, config).run(model);
    assert!(is_complete.load(SeqCst), "not all orders were tried");
    eprintln!("{} orders", runs.load(SeqCst));
}

// ------------------------------------------------------------------------------------- parts of the models

/// The directory for all runs of one model, and the clock of its stores.
struct Fixture {
    dir: TempDir,
    clock: Clock,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Self { dir, clock: Clock::manual(UNIX_EPOCH + Duration::from_secs(1_700_000_000)) }
    }

    /// Opens the store as another process does, with the given wait limit. A long wait does not end before the waits of
    /// all other threads.
    fn open(&self, lock_wait: Duration) -> Arc<FileStore> {
        self.open_with(FileStoreOptions::new().lock_wait(lock_wait))
    }

    fn open_with(&self, options: FileStoreOptions) -> Arc<FileStore> {
        // A cache of one segment, so that the random ids of a model do not decide which threads meet at a segment's
        // lock.
        let options = options.clock(self.clock.clone()).cache_bytes(1 << 17);
        #[cfg(feature = "watch")]
        let options = options.watch(false);
        Arc::new(options.open(self.dir.path()).unwrap())
    }
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(1);

fn record(version: u64, now: SystemTime, age: Duration) -> Record {
    let mut record = Record::new(now, now + age);
    record.insert("version", &Value::new(&version).unwrap()).unwrap();
    record
}

fn version_of(record: &Record) -> u64 {
    record.entries().get("version").unwrap().get().unwrap()
}

/// Makes a session of version 1 that lives for a day.
fn create(store: &FileStore) -> Token {
    let day = Duration::from_secs(86_400);
    store.create(&record(1, store.now(), day), Durability::Relaxed).unwrap().token
}

/// The version that a load returns; `None` if the session is gone.
fn load(store: &FileStore, token: &Token) -> Option<u64> {
    match store.load(token).unwrap() {
        Lookup::Live(live) => Some(version_of(&live.record)),
        Lookup::Absent(Absent::NotFound(_) | Absent::Moved(_)) => None,
        Lookup::Absent(other) => panic!("the session is {other:?}"),
    }
}

fn session(token: &Token) -> SessionId {
    SessionId::parse(token.expose()).unwrap()
}
