//! Cuts the power under sessile: records what a workload does to a disk and what it is told, builds the disk that a power cut
//! would have left, at many places, and looks whether the engine kept its promises. Needs root, `/dev/fuse` and loop devices.
//!
//! | module | is about |
//! |---|---|
//! | `log` | what happened, in one order |
//! | `disk`, `image` | the disk that is logged, and its bytes |
//! | `filesystem`, `rig` | file systems, loop devices, mounts |
//! | `workload`, `act`, `doomed`, `content` | who does what to the store, and how they die |
//! | `recorder`, `write_back` | puts all that together, and has the kernel write |
//! | `cut` | where the power is cut, and what the disk then holds |
//! | `history` | what is owed after a cut |
//! | `check` | whether it is there |
//! | `tally` | whether there was anything to find |
//! | `stop` | letting go in order |
//! | `honesty` | engines that break their promises, which must be caught |
mod act;
mod check;
mod content;
mod cut;
mod disk;
mod doomed;
mod filesystem;
mod history;
mod honesty;
mod image;
mod log;
mod recorder;
mod rig;
mod stop;
mod tally;
mod workload;
mod write_back;

use anyhow::{Context, Result, ensure};
use check::{Findings, Plan};
use clap::{Args, Parser, Subcommand, ValueEnum};
use filesystem::FileSystem;
use honesty::{BREACHES, Breach};
use log::{Event, Life, Recording};
use recorder::Script;
use std::collections::HashSet;
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use tally::Tally;
use workload::{Doomed, Level, Worker};

/// Cut the power under the session engine, and look what is left
#[derive(Debug, Parser)]
#[command(
    max_term_width = 80,
    after_help = "\
Examples:
  sessile-powercut run --fs ext4 --durability power-safe --recordings 5 --states 400
  sessile-powercut honesty
  sessile-powercut record --fs xfs --durability relaxed --out relaxed.log
  sessile-powercut check relaxed.log --states 500 --seed 7
  sessile-powercut check relaxed.log --first 123 --states 1 --seed 7

Exit status: 0 if every promise was kept (honesty: by the unbroken build only),
1 if not, 2 if it could not be found out."
)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Record workloads and check their crash states
    Run(Run),
    /// Record a workload
    Record {
        #[command(flatten)]
        stage: Stage,
        /// The file to write it to
        #[arg(long)]
        out: PathBuf,
    },
    /// Check crash states of a recording
    Check {
        /// The recording
        recording: PathBuf,
        #[command(flatten)]
        sample: Sample,
        /// What the states follow from
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The first state's number
        #[arg(long, default_value_t = 0)]
        first: u32,
        /// Instead of states that follow from the seed: cut after this event, and keep all that was written
        #[arg(long)]
        at: Option<usize>,
    },
    /// Print what a recording says of one life, with its place among the events
    Trace {
        /// The recording
        recording: PathBuf,
        /// The life, as failures name it
        #[arg(value_parser = |text: &str| u64::from_str_radix(text, 16))]
        life: u64,
    },
    /// See that engines that break their promises are caught
    Honesty(Honesty),
    /// A process of the workload
    #[command(hide = true)]
    Worker(Worker),
    /// A process of the workload that dies half-way
    #[command(hide = true)]
    Doomed(Doomed),
}

/// What is recorded.
#[derive(Clone, Debug, Args)]
struct Stage {
    /// The file system
    #[arg(long, default_value = "ext4")]
    fs: FileSystem,
    /// What most saves promise; the others promise the other
    #[arg(long, default_value = "power-safe")]
    durability: Level,
    /// How long a workload runs, in seconds
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// What the first recording follows from; the next has the next one
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What of a recording is checked.
#[derive(Clone, Copy, Debug, Args)]
struct Sample {
    /// How many crash states of each recording
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    states: u32,
    /// How many disks are checked at the same time; each takes a loop device
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    lanes: u32,
}

#[derive(Clone, Debug, Args)]
struct Run {
    #[command(flatten)]
    stage: Stage,
    /// How many recordings
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    recordings: u32,
    #[command(flatten)]
    sample: Sample,
    /// Be content with one failure that says this, or one of several
    #[arg(long)]
    until: Vec<String>,
    /// Directory to keep recordings in that hold a failure
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
struct Honesty {
    /// Only these builds
    #[arg(long, value_delimiter = ',', value_parser = BREACHES.map(|breach| breach.name))]
    only: Vec<String>,
    /// The file system
    #[arg(long, default_value = "ext4")]
    fs: FileSystem,
    /// Within how many crash states each must be caught
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(5..))]
    states: u32,
    /// What the recordings follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many disks are checked at the same time; each takes a loop device
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    lanes: u32,
}

fn main() -> ExitCode {
    match perform(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("sessile-powercut: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all was as it should be.
fn perform(task: Task) -> Result<bool> {
    match task {
        Task::Run(run) => alone().and_then(|()| run.run()),
        Task::Record { stage, out } => {
            alone()?;
            let recording = recorder::record(stage.script(0)?)?;
            describe(&recording);
            recording.save(&out).map(|()| true)
        }
        Task::Check { recording, sample, seed, first, at } => {
            alone()?;
            let recording = Recording::load(&recording)?;
            describe(&recording);
            let findings = check::check(&recording, &Plan { first, at, ..sample.plan(seed) })?;
            Ok(report(&findings, &[]))
        }
        Task::Trace { recording, life } => {
            trace(&Recording::load(&recording)?, life);
            Ok(true)
        }
        // Each of its builds sees to being alone.
        Task::Honesty(honesty) => honesty.run(),
        Task::Worker(worker) => worker.run().map(|()| true),
        Task::Doomed(doomed) => doomed.run().map(|()| true),
    }
}

/// Starts this program again where nobody else sees its mounts, so that they go with it whatever becomes of it, and listens to
/// whoever wants it to stop.
fn alone() -> Result<()> {
    be_alone().and_then(|()| stop::listen())
}

fn be_alone() -> Result<()> {
    const ALONE: &str = "SESSILE_POWERCUT_ALONE";
    if env::var_os(ALONE).is_some() {
        return Ok(());
    }
    let program = env::current_exe().context("find the program's own file")?;
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "--"]).arg(program).args(env::args_os().skip(1));
    Err(unshare.env(ALONE, "1").exec()).context("start anew in a mount namespace of its own")
}

impl Stage {
    fn script(&self, recording: u32) -> Result<Script> {
        let time = Duration::try_from_secs_f64(self.seconds).context("take the seconds of a workload")?;
        let seed = self.seed + u64::from(recording);
        Ok(Script { filesystem: self.fs, durability: self.durability, time, seed })
    }
}

impl Sample {
    fn plan(self, seed: u64) -> Plan {
        let Self { states, lanes } = self;
        Plan { seed, first: 0, states, at: None, lanes, until: vec![] }
    }
}

impl Run {
    fn run(&self) -> Result<bool> {
        let (mut findings, mut tally) = (Findings::default(), Tally::default());
        for number in 0..self.recordings {
            let script = self.stage.script(number)?;
            let recording = recorder::record(script)?;
            print!("recording {number}: ");
            describe(&recording);
            tally.add(&Tally::of(&recording.events));
            let began = Instant::now();
            let plan = Plan { until: self.until.clone(), ..self.sample.plan(script.seed) };
            let found = check::check(&recording, &plan)?;
            let each = began.elapsed() / found.states.max(1);
            println!("recording {number}: {} states, {} ms each", found.states, each.as_millis());
            let failed = !found.failures.is_empty();
            if failed && let Some(keep) = &self.keep {
                fs::create_dir_all(keep).with_context(|| format!("create {}", keep.display()))?;
                let path = keep.join(format!("{}-seed-{}.log", self.stage.fs.name(), script.seed));
                recording.save(&path)?;
                println!("kept as {}, seed {}", path.display(), script.seed);
            }
            findings.add(found);
            if findings.show(&self.until) {
                break;
            }
        }
        println!("{tally}");
        let kept = report(&findings, &self.until);
        if kept {
            self.ensure_enough(&findings, &tally)?;
        }
        Ok(kept)
    }

    /// Promises that nobody was given are not broken either.
    ///
    /// # Errors
    ///
    /// There was too little that could have failed.
    fn ensure_enough(&self, findings: &Findings, tally: &Tally) -> Result<()> {
        const OWED_BY_A_STATE: u64 = 3;
        let mut missing = tally.missing();
        let wanted = OWED_BY_A_STATE * u64::from(findings.states);
        if self.stage.durability == Level::PowerSafe && findings.honoured < wanted {
            let few = findings.honoured;
            missing.push(format!("{few} sessions were owed and there, fewer than {OWED_BY_A_STATE} a state"));
        }
        ensure!(
            missing.is_empty(),
            "too little happened for the result to say anything: {}",
            missing.join("; ")
        );
        Ok(())
    }
}

impl Honesty {
    fn run(&self) -> Result<bool> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
        let chosen = |breach: &&Breach| {
            let is_named = self.only.iter().any(|name| name == breach.name);
            (self.only.is_empty() || is_named) && breach.on.is_none_or(|fs| fs == self.fs)
        };
        let breaches: Vec<_> = BREACHES.iter().filter(chosen).collect();
        ensure!(!breaches.is_empty(), "no such build shows anything on {}", self.fs.name());
        let mut all = self.is_control_clean()?;
        for breach in breaches {
            let program = breach.build(&workspace, &target.join("broken"), &target)?;
            all &= self.is_caught(breach, &program)?;
        }
        println!("{}", if all { "all were caught" } else { "NOT as it should be: results are void" });
        Ok(all)
    }

    /// Runs the unbroken build over the same seeds, in all of which it must keep its promises.
    fn is_control_clean(&self) -> Result<bool> {
        let program = env::current_exe().context("find the program's own file")?;
        let (printed, kept) = self.printed("unbroken", &program, &[])?;
        println!("unbroken: {}; {}", if kept { "kept its promises" } else { "FAILED" }, summary(&printed));
        Ok(kept)
    }

    /// Runs a broken build until it breaks the promise that it was built to break, or has passed all its states.
    fn is_caught(&self, breach: &Breach, program: &Path) -> Result<bool> {
        let (printed, _) = self.printed(breach.name, program, breach.shows)?;
        let shows = |failure: &&str| breach.shows.iter().any(|text| failure.contains(text));
        let failure = printed.lines().filter(|line| line.starts_with("FAILED")).find(shows);
        let caught = if failure.is_some() { "caught" } else { "NOT caught" };
        println!("{}: {}: {caught}; {}", breach.name, breach.what, summary(&printed));
        if let Some(failure) = failure {
            println!("  {failure}");
        }
        Ok(failure.is_some())
    }

    /// What a run of a build printed, and whether it found every promise kept.
    fn printed(&self, name: &str, program: &Path, until: &[&str]) -> Result<(String, bool)> {
        let fs = self.fs.to_possible_value().context("name the file system")?;
        let mut run = Command::new(program);
        run.args(["run", "--fs", fs.get_name(), "--durability", "power-safe"]);
        run.args(["--recordings", "5", "--states", &(self.states / 5).to_string()]);
        run.args(["--seed", &self.seed.to_string(), "--lanes", &self.lanes.to_string()]);
        run.args(until.iter().flat_map(|text| ["--until", text]));
        let output = run.output().with_context(|| format!("run the build {name}"))?;
        let code = output.status.code();
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(matches!(code, Some(0 | 1)), "the build {name} could not run: {said}");
        Ok((String::from_utf8_lossy(&output.stdout).into_owned(), code == Some(0)))
    }
}

/// The last line of what a run printed.
fn summary(printed: &str) -> &str {
    printed.lines().last().unwrap_or_default()
}

/// Prints the notes about a life, and how many flushes there were before each.
fn trace(recording: &Recording, life: Life) {
    let (mut flushes, mut ops) = (0, HashSet::new());
    for (at, event) in recording.events.iter().enumerate() {
        match event {
            Event::Flush => flushes += 1,
            Event::Write { .. } => {}
            Event::Note { note, .. } => {
                let (op, about) = note.about();
                if about.contains(&life) {
                    ops.extend(op);
                }
                if op.is_some_and(|op| ops.contains(&op)) {
                    println!("event {at}, after {flushes} flushes: {note:x?}");
                }
            }
        }
    }
}

fn describe(recording: &Recording) {
    let (writes, flushes, acknowledged) = recording.counts();
    println!(
        "{}, {writes} writes, {flushes} flushes, {acknowledged} calls acknowledged",
        recording.filesystem.name()
    );
}

/// Prints what was found, first what says one of the texts that are looked for. Whether no promise was broken.
fn report(findings: &Findings, wanted: &[String]) -> bool {
    const SHOWN: usize = 10;
    let mut failures: Vec<_> = findings.failures.iter().map(|(_, failure)| failure).collect();
    failures.sort_by_key(|failure| !check::shows(failure, wanted));
    for failure in failures.iter().take(SHOWN) {
        println!("FAILED {failure}");
    }
    let [none, one, two, more] = findings.unflushed;
    println!("unflushed writes at a cut: 0 in {none} states, 1 in {one}, 2 in {two}, 3 or more in {more}");
    println!(
        "{} states, {} failures; {} sessions were owed and there; {} damaged files, nothing owed of them",
        findings.states,
        findings.failures.len(),
        findings.honoured,
        findings.damaged
    );
    findings.failures.is_empty()
}
