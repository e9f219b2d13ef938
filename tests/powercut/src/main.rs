//! Cuts the power under sessile: records the disk writes and acknowledgements of a workload, builds the disk that a
//! power cut would have left at many places, and checks whether the engine kept its promises. Requires root,
//! `/dev/fuse` and loop devices.
//!
//! | module | contents |
//! |---|---|
//! | `log` | the events, in one order |
//! | `disk`, `image` | the logged disk, and its bytes |
//! | `filesystem`, `rig` | file systems, loop devices, mounts |
//! | `workload`, `operation`, `kill_at_syscall`, `content` | operations, and processes that are killed in them |
//! | `recorder`, `write_back` | makes a recording, and makes the kernel write back |
//! | `cut` | where the power is cut, and the content of the disk then |
//! | `history` | which sessions are owed after a cut |
//! | `check` | whether they are there |
//! | `tally` | whether enough was acknowledged for a result |
//! | `stop` | stopping in order |
//! | `mutations` | engines with a broken rule, which must be caught |
mod check;
mod content;
mod cut;
mod disk;
mod filesystem;
mod history;
mod image;
mod kill_at_syscall;
mod log;
mod mutations;
mod operation;
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
use log::{Event, Life, Recording};
use mutations::{MUTATIONS, Mutation};
use recorder::Script;
use std::collections::HashSet;
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use tally::Tally;
use workload::{KillAtSyscall, Level, Worker};

/// Cut the power under the session engine and check the result
#[derive(Debug, Parser)]
#[command(
    max_term_width = 80,
    after_help = "\
Examples:
  sessile-powercut run --fs ext4 --durability power-safe --recordings 5 --states 400
  sessile-powercut mutations
  sessile-powercut record --fs xfs --durability relaxed --out relaxed.log
  sessile-powercut check relaxed.log --states 500 --seed 7
  sessile-powercut check relaxed.log --first 123 --states 1 --seed 7

Exit status: 0 if every promise was kept (mutations: by the unbroken build only),
1 if not, 2 if this could not be determined."
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
        /// The seed of the states
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The first state's number
        #[arg(long, default_value_t = 0)]
        first: u32,
        /// Instead of states from the seed: cut after this event, and keep all writes
        #[arg(long)]
        at: Option<usize>,
    },
    /// Print the notes of a recording about one life, with their place among the events
    Trace {
        /// The recording
        recording: PathBuf,
        /// The life, as failures name it
        #[arg(value_parser = |text: &str| u64::from_str_radix(text, 16))]
        life: u64,
    },
    /// Check that engines with a broken rule are caught
    Mutations(Mutations),
    /// A process of the workload
    #[command(hide = true)]
    Worker(Worker),
    /// A process of the workload that is killed half-way
    #[command(hide = true)]
    KillAtSyscall(KillAtSyscall),
}

/// Options of a recording.
#[derive(Clone, Debug, Args)]
struct Stage {
    /// The file system
    #[arg(long, default_value = "ext4")]
    fs: FileSystem,
    /// The durability of most saves; the others have the other one
    #[arg(long, default_value = "power-safe")]
    durability: Level,
    /// How long a workload runs, in seconds
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// The seed of the first recording; each next recording has the next one
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Options of a check.
#[derive(Clone, Copy, Debug, Args)]
struct Sample {
    /// Number of crash states of each recording
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    states: u32,
    /// Number of disks that are checked at the same time; each takes a loop device
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    lanes: u32,
}

#[derive(Clone, Debug, Args)]
struct Run {
    #[command(flatten)]
    stage: Stage,
    /// Number of recordings
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    recordings: u32,
    #[command(flatten)]
    sample: Sample,
    /// Stop at one failure that contains this text; may be repeated
    #[arg(long)]
    until: Vec<String>,
    /// Keep recordings with a failure in this directory
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
struct Mutations {
    /// Only these builds
    #[arg(long, value_delimiter = ',', value_parser = MUTATIONS.map(|mutation| mutation.name))]
    only: Vec<String>,
    /// The file system
    #[arg(long, default_value = "ext4")]
    fs: FileSystem,
    /// The durability of most saves
    #[arg(long, default_value = "power-safe")]
    durability: Level,
    /// Number of crash states within which each must be caught
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(5..))]
    states: u32,
    /// The seed of the recordings
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of disks that are checked at the same time; each takes a loop device
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

/// Returns whether all promises were kept.
fn perform(task: Task) -> Result<bool> {
    match task {
        Task::Run(run) => isolate_and_listen().and_then(|()| run.run()),
        Task::Record { stage, out } => {
            isolate_and_listen()?;
            let recording = recorder::record(stage.script(0)?)?;
            describe(&recording);
            recording.save(&out).map(|()| true)
        }
        Task::Check { recording, sample, seed, first, at } => {
            isolate_and_listen()?;
            let recording = Recording::load(&recording)?;
            describe(&recording);
            let findings = check::check(&recording, &Plan { first, at, ..sample.plan(seed) })?;
            Ok(report(&findings, &[]))
        }
        Task::Trace { recording, life } => {
            trace(&Recording::load(&recording)?, life);
            Ok(true)
        }
        // Each of the builds starts in a mount namespace of its own.
        Task::Mutations(mutations) => mutations.run(),
        Task::Worker(worker) => worker.run().map(|()| true),
        Task::KillAtSyscall(killed) => killed.run().map(|()| true),
    }
}

/// Starts this program again in a mount namespace of its own, so that its mounts disappear with it however it ends, and
/// installs the signal handlers.
fn isolate_and_listen() -> Result<()> {
    isolate().and_then(|()| stop::listen())
}

fn isolate() -> Result<()> {
    const ALONE: &str = "SESSILE_POWERCUT_ALONE";
    if env::var_os(ALONE).is_some() {
        return Ok(());
    }
    let program = env::current_exe().context("find the program's own file")?;
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "--"]).arg(program).args(env::args_os().skip(1));
    Err(unshare.env(ALONE, "1").exec()).context("restart in a mount namespace of its own")
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

    /// Refuses a result that means nothing: a workload without acknowledgements breaks no promise.
    ///
    /// # Errors
    ///
    /// Too few operations were acknowledged.
    fn ensure_enough(&self, findings: &Findings, tally: &Tally) -> Result<()> {
        const OWED_BY_A_STATE: u64 = 3;
        let mut missing = tally.missing();
        let wanted = OWED_BY_A_STATE * u64::from(findings.states);
        if self.stage.durability == Level::PowerSafe && findings.present < wanted {
            let few = findings.present;
            missing.push(format!("{few} sessions were owed and there, fewer than {OWED_BY_A_STATE} a state"));
        }
        ensure!(missing.is_empty(), "too little was acknowledged for a result: {}", missing.join("; "));
        Ok(())
    }
}

impl Mutations {
    fn run(&self) -> Result<bool> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
        let chosen = |mutation: &&Mutation| {
            let is_named = self.only.iter().any(|name| name == mutation.name);
            (self.only.is_empty() || is_named)
                && mutation.on.is_none_or(|on| on == (self.fs, self.durability))
        };
        let mutations: Vec<_> = MUTATIONS.iter().filter(chosen).collect();
        ensure!(
            !mutations.is_empty(),
            "no such build breaks a promise on {} at this durability",
            self.fs.name()
        );
        let mut all = self.is_control_clean()?;
        for mutation in mutations {
            let program = mutation.build(&workspace, &target.join("broken"), &target)?;
            all &= self.is_caught(mutation, &program)?;
        }
        println!("{}", if all { "all were caught" } else { "NOT all were as expected: results are void" });
        Ok(all)
    }

    /// Runs the unchanged build with the same seeds. It must keep all promises.
    fn is_control_clean(&self) -> Result<bool> {
        let program = env::current_exe().context("find the program's own file")?;
        let (printed, kept) = self.printed("unbroken", &program, &[])?;
        println!("unbroken: {}; {}", if kept { "kept its promises" } else { "FAILED" }, summary(&printed));
        Ok(kept)
    }

    /// Runs a build with a broken rule, until it breaks a promise of that rule, or has passed all its states.
    fn is_caught(&self, mutation: &Mutation, program: &Path) -> Result<bool> {
        let (printed, _) = self.printed(mutation.name, program, mutation.shows)?;
        let shows = |failure: &&str| mutation.shows.iter().any(|text| failure.contains(text));
        let failure = printed.lines().filter(|line| line.starts_with("FAILED")).find(shows);
        let caught = if failure.is_some() { "caught" } else { "NOT caught" };
        println!("{}: {}: {caught}; {}", mutation.name, mutation.what, summary(&printed));
        if let Some(failure) = failure {
            println!("  {failure}");
        }
        Ok(failure.is_some())
    }

    /// Runs a build. Returns its output, and whether it kept all promises.
    fn printed(&self, name: &str, program: &Path, until: &[&str]) -> Result<(String, bool)> {
        let fs = self.fs.to_possible_value().context("name the file system")?;
        let level = self.durability.to_possible_value().context("name the durability")?;
        let mut run = Command::new(program);
        run.args(["run", "--fs", fs.get_name(), "--durability", level.get_name()]);
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

/// The last line of a run's output.
fn summary(printed: &str) -> &str {
    printed.lines().last().unwrap_or_default()
}

/// Prints the notes about a life, and the number of flushes before each.
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

/// Prints the results, and first the failures that contain one of the wanted texts. Returns whether all promises were
/// kept.
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
        "{} states, {} failures; {} sessions were owed and there; {} damaged files, from which no version is owed",
        findings.states,
        findings.failures.len(),
        findings.present,
        findings.damaged
    );
    findings.failures.is_empty()
}
