//! Hammers: races between processes, for as long as desired. Each hammer tests one promise on the sessions of
//! one store, from several processes with several threads. It checks every result against earlier
//! acknowledgements, stops at the first fault, and prints one line of figures.
//!
//! ```text
//! cargo test --test hammer                                          # three seconds each, with the other tests
//! cargo test --release --test hammer -- --seconds 600 coherence     # a long search
//! cargo test --test hammer -- --help
//! ```
//!
//! Tests with a given number of rounds, each aimed at one race, are in `tests/it`.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
mod coherence;
mod ends;
mod figures;
mod kill;
mod lost_updates;
mod reaper;
mod stage;
mod support;
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

/// A child of this binary needs no arguments.
const CHILD: &[&str] = &[];

const WORKERS: &[&[(&str, Worker)]] =
    &[coherence::WORKERS, ends::WORKERS, kill::WORKERS, lost_updates::WORKERS, reaper::WORKERS];

struct Hammer {
    name: &'static str,
    promise: &'static str,
    run: fn(&Path, Duration) -> Figures,
}

static HAMMERS: [Hammer; 5] = [
    Hammer {
        name: "coherence",
        promise: "no load in any process returns less than was acknowledged to any",
        run: coherence::run,
    },
    Hammer {
        name: "lost-updates",
        promise: "sums equal the acknowledged increments",
        run: lost_updates::run,
    },
    Hammer {
        name: "reaper",
        promise: "a session renewed in time stays; an expired one is not served and is removed",
        run: reaper::run,
    },
    Hammer {
        name: "ends",
        promise: "an ended session stays ended and has at most one successor",
        run: ends::run,
    },
    Hammer {
        name: "kill",
        promise: "kill -9 loses, revives and tears no session and leaves no lock held",
        run: kill::run,
    },
];

const HELP: &str = "\
Usage: cargo test [--release] --test hammer -- [--seconds N] [--dir DIR] [NAME]

  --seconds N   how long each hammer runs [3]
  --dir DIR     where the stores are created and removed again [in memory, where available]
  --list        list the names
  -h, --help    print this text

and the other options of the usual harness. A kill cuts a write short where memory is allocated page by page, as for files in
memory; on a disk this may never happen.";

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
        Ok((time, dir)) => hammer(words, time, dir.as_deref()),
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            ExitCode::FAILURE
        }
    }
}

/// Duration and directory of each hammer: the options that the usual harness does not have.
fn ours(words: &mut pico_args::Arguments) -> Result<(Duration, Option<PathBuf>), pico_args::Error> {
    let time = words.opt_value_from_fn("--seconds", |text| match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 1e6 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("it must be a number above 0 and at most a million"),
    })?;
    Ok((time.unwrap_or(Duration::from_secs(3)), words.opt_value_from_str("--dir")?))
}

/// Runs one hammer after the other, even after one has failed.
fn hammer(words: pico_args::Arguments, time: Duration, dir: Option<&Path>) -> ExitCode {
    let mut arguments = Arguments::from_iter(once("hammer".into()).chain(words.finish()));
    arguments.test_threads = Some(1);
    let trial = |hammer: &'static Hammer| {
        let dir = dir.map(Path::to_owned);
        Trial::test(hammer.name, move || hammer.keeps_its_promise(time, dir.as_deref()))
    };
    libtest_mimic::run(&arguments, HAMMERS.iter().map(trial).collect()).exit_code()
}

impl Hammer {
    fn keeps_its_promise(&self, time: Duration, dir: Option<&Path>) -> Result<(), Failed> {
        let stage = match dir {
            Some(dir) => tempfile::tempdir_in(dir)?,
            None => directory_in_memory(),
        };
        let began = Instant::now();
        let run = catch_unwind(AssertUnwindSafe(|| (self.run)(stage.path(), time)));
        let figures = run.unwrap_or_else(|thrown| {
            let mut figures = Figures::default();
            figures.fault(words(&*thrown));
            figures
        });
        println!("\n  {figures} in {:.1} s", began.elapsed().as_secs_f64());
        if !figures.has_faults() {
            return Ok(());
        }
        Err(format!("broken: {}\n  {}", self.promise, figures.descriptions()).into())
    }
}
