//! Random tests: races between processes and threads, and damage without a pattern, for as long as desired. Each trial
//! tests one promise in a directory of its own, with rounds until its time is over. It checks every result against
//! earlier acknowledgements, stops at the first fault, and prints one line of figures.
//!
//! ```text
//! cargo test --test hammer                                          # a second each, with the other tests
//! cargo test --release --test hammer -- --seconds 600 coherence     # a long search
//! cargo test --test hammer -- --help
//! ```
//!
//! Tests of fixed steps are in `tests/it`.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
#[macro_use]
mod rounds;

mod coherence;
mod cookie_races;
mod cut_offs;
mod damage;
mod emptied;
mod ends;
mod figures;
mod hostile_cookies;
mod kill;
mod killed_steps;
mod lost_updates;
mod moves;
mod pages;
mod processes;
mod reaper;
mod rows;
mod sqlite;
mod stage;
mod stale;
mod support;
mod sweep_races;
mod workers;

use figures::{Figures, words};
use libtest_mimic::{Arguments, Failed, Trial};
use std::iter::once;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use support::process::{Worker, run_worker};
use support::texts::directory_in_memory;

/// The arguments with which this program starts a child: none.
const CHILD: &[&str] = &[];

/// The functions that child processes run, by name.
const WORKERS: &[&[(&str, Worker)]] = &[
    coherence::WORKERS,
    cut_offs::WORKERS,
    emptied::WORKERS,
    ends::WORKERS,
    kill::WORKERS,
    killed_steps::WORKERS,
    lost_updates::WORKERS,
    pages::WORKERS,
    processes::WORKERS,
    reaper::WORKERS,
    sqlite::WORKERS,
    stale::WORKERS,
    sweep_races::WORKERS,
];

/// The trials of one file. Each has a path that ends in its promise, and a function that runs it for this time in this
/// directory.
type Trials = &'static [(&'static str, fn(&Path, Duration) -> Figures)];

const TRIALS: &[Trials] = &[
    coherence::TRIALS,
    cookie_races::TRIALS,
    cut_offs::TRIALS,
    damage::TRIALS,
    emptied::TRIALS,
    ends::TRIALS,
    hostile_cookies::TRIALS,
    kill::TRIALS,
    killed_steps::TRIALS,
    lost_updates::TRIALS,
    moves::TRIALS,
    pages::TRIALS,
    processes::TRIALS,
    reaper::TRIALS,
    rows::TRIALS,
    sqlite::TRIALS,
    stale::TRIALS,
    sweep_races::TRIALS,
];

/// The number of trials that run at the same time. They measure nothing, and mostly wait for processes and locks.
const AT_ONCE: usize = 2;

const HELP: &str = "\
Usage: cargo test [--release] --test hammer -- [--seconds N] [--dir DIR] [NAME]

  --seconds N   how long each trial runs [1]
  --dir DIR     where the stores are created and removed again [in memory, where available]
  --list        list the names
  -h, --help    print this text

and the other options of the usual harness. Two trials run at the same time: --test-threads changes that. A kill cuts a write
short where memory is allocated page by page, as for files in memory; on a disk this may never happen.";

fn main() -> ExitCode {
    if run_worker() {
        return ExitCode::SUCCESS;
    }
    let mut words = pico_args::Arguments::from_env();
    if words.contains(["-h", "--help"]) {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match ours(&mut words) {
        Ok((time, dir)) => run_all(words, time, dir.as_deref()),
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            ExitCode::FAILURE
        }
    }
}

/// The options that the usual test harness does not have: the duration and the directory of each trial.
fn ours(words: &mut pico_args::Arguments) -> Result<(Duration, Option<PathBuf>), pico_args::Error> {
    let time = words.opt_value_from_fn("--seconds", |text| match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 1e6 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("it must be a number above 0 and at most a million"),
    })?;
    Ok((time.unwrap_or(Duration::from_secs(1)), words.opt_value_from_str("--dir")?))
}

/// Runs all trials, also after one has failed.
fn run_all(words: pico_args::Arguments, time: Duration, dir: Option<&Path>) -> ExitCode {
    let mut arguments = Arguments::from_iter(once("hammer".into()).chain(words.finish()));
    arguments.test_threads.get_or_insert(AT_ONCE);
    let trials = TRIALS.iter().copied().flatten().map(|&(path, run)| {
        let name = path.strip_prefix("hammer::").expect("a module of this crate");
        let dir = dir.map(Path::to_owned);
        Trial::test(name, move || {
            let stage = match dir {
                Some(dir) => tempfile::tempdir_in(dir)?,
                None => directory_in_memory(),
            };
            keeps_its_promise(name, || run(stage.path(), time))
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Runs a trial, and prints its figures. A panic counts as a fault.
fn keeps_its_promise(name: &str, run: impl FnOnce() -> Figures) -> Result<(), Failed> {
    let began = Instant::now();
    let figures = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|thrown| {
        let mut figures = Figures::default();
        figures.fault(words(&*thrown));
        figures
    });
    println!("  {name}: {figures} in {:.1} s", began.elapsed().as_secs_f64());
    if figures.has_faults() { Err(figures.descriptions().into()) } else { Ok(()) }
}
