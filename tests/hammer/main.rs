//! Hammers: races between processes, for as long as one likes. Each does one promise to the sessions of one store, from
//! several processes with several threads, judges every answer by what had been acknowledged before, stops at the first
//! fault, and prints one line of figures.
//!
//! ```text
//! cargo test --test hammer                                          # three seconds each, with the other tests
//! cargo test --release --test hammer -- --seconds 600 coherence     # a hunt
//! cargo test --test hammer -- --help
//! ```
//!
//! Tests with a given number of rounds, each aimed at one race, are in `tests/it`.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
mod coherence;
mod crowd;
mod ends;
mod figures;
mod kill;
mod lost_updates;
mod reaper;
mod stage;
mod support;

use figures::{Figures, words};
use pico_args::Arguments;
use std::error::Error;
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

const HAMMERS: [Hammer; 5] = [
    Hammer {
        name: "coherence",
        promise: "no load in any process is behind what was acknowledged to any",
        run: coherence::run,
    },
    Hammer { name: "lost-updates", promise: "sums are what was acknowledged", run: lost_updates::run },
    Hammer {
        name: "reaper",
        promise: "what is renewed in time stays, what has expired is not served and goes",
        run: reaper::run,
    },
    Hammer { name: "ends", promise: "what ended stays ended, and has one heir at most", run: ends::run },
    Hammer {
        name: "kill",
        promise: "kill -9 loses nothing, revives nothing, tears nothing and leaves no lock",
        run: kill::run,
    },
];

const HELP: &str = "\
Usage: cargo test [--release] --test hammer -- [--seconds N] [--dir DIR] [NAME...]

  --seconds N   how long each hammer works [3]
  --dir DIR     where their stores are made, and removed again [in memory, if there is such a place]
  --exact       a NAME is all of a hammer's name, not a part
  --skip NAME   not those
  --list        the names
  -h, --help    this text

What else the usual harness understands is ignored. A kill cuts writes short where memory is handed out by the page, as it
is for files in memory; on a disk it may never.";

/// What the usual harness understands beside this, with a value and without: cargo hands the same to all binaries.
const IGNORED_WITH_VALUE: [&str; 6] =
    ["--test-threads", "--format", "--color", "--logfile", "--shuffle-seed", "-Z"];
const IGNORED: [&str; 14] = [
    "--nocapture",
    "--no-capture",
    "--show-output",
    "--include-ignored",
    "--quiet",
    "-q",
    "--test",
    "--bench",
    "--shuffle",
    "--report-time",
    "--ensure-time",
    "--exclude-should-panic",
    "--force-run-in-process",
    "--fail-fast",
];

fn main() -> ExitCode {
    if run_worker() {
        return ExitCode::SUCCESS;
    }
    match Plan::of(std::env::args().skip(1)) {
        Ok(Plan::Say(text)) => println!("{text}"),
        Ok(Plan::Hammer { hammers, time, dir }) => return hammer(&hammers, time, dir.as_deref()),
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// What is to be done.
enum Plan {
    Say(String),
    Hammer { hammers: Vec<&'static Hammer>, time: Duration, dir: Option<PathBuf> },
}

impl Plan {
    fn of(words: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        // `--seconds=5` is `--seconds 5`.
        let words = words.flat_map(|word| match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => vec![option.into(), value.into()],
            _ => vec![word.into()],
        });
        let mut args = Arguments::from_vec(words.collect());
        if args.contains(["-h", "--help"]) {
            return Ok(Self::Say(HELP.into()));
        }
        let seconds = args.opt_value_from_fn("--seconds", |text| match text.parse::<f64>() {
            Ok(seconds) if seconds > 0.0 && seconds <= 1e6 => Ok(Duration::from_secs_f64(seconds)),
            _ => Err("it is to be a number above 0"),
        })?;
        let dir = args.opt_value_from_str("--dir")?;
        let skip: Vec<String> = args.values_from_str("--skip")?;
        for option in IGNORED_WITH_VALUE {
            let _: Vec<String> = args.values_from_str(option)?;
        }
        for option in IGNORED {
            args.contains(option);
        }
        let (exact, lists) = (args.contains("--exact"), args.contains("--list"));
        // Of which there are none.
        let only_ignored = args.contains("--ignored");
        let names = args.finish().into_iter().map(|word| word.into_string().expect("it was a string"));
        let names: Vec<_> = names.collect();
        if let Some(unknown) = names.iter().find(|name| name.starts_with('-')) {
            return Err(format!("unknown option {unknown}").into());
        }
        let is = |hammer: &Hammer, name: &String| {
            if exact { hammer.name == name } else { hammer.name.contains(name.as_str()) }
        };
        let is_meant = |hammer: &&Hammer| {
            let wanted = names.is_empty() || names.iter().any(|name| is(hammer, name));
            wanted && !only_ignored && !skip.iter().any(|name| is(hammer, name))
        };
        let hammers: Vec<_> = HAMMERS.iter().filter(is_meant).collect();
        if lists {
            let names: Vec<_> = hammers.iter().map(|hammer| format!("{}: test", hammer.name)).collect();
            return Ok(Self::Say(names.join("\n")));
        }
        Ok(Self::Hammer { hammers, time: seconds.unwrap_or(Duration::from_secs(3)), dir })
    }
}

/// One after the other, also after one has failed.
fn hammer(hammers: &[&Hammer], time: Duration, dir: Option<&Path>) -> ExitCode {
    println!("{} of {} hammers, {time:?} each", hammers.len(), HAMMERS.len());
    let failed: Vec<_> = hammers.iter().filter(|hammer| !hammer.is_kept(time, dir)).collect();
    for Hammer { name, promise, .. } in &failed {
        println!("FAILED: {name}: {promise}");
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Hammer {
    /// Whether its promise was kept.
    fn is_kept(&self, time: Duration, dir: Option<&Path>) -> bool {
        let stage = dir.map_or_else(directory_in_memory, |dir| tempfile::tempdir_in(dir).unwrap());
        let began = Instant::now();
        let run = catch_unwind(AssertUnwindSafe(|| (self.run)(stage.path(), time)));
        let figures = run.unwrap_or_else(|thrown| {
            let mut figures = Figures::default();
            figures.fault(words(&*thrown));
            figures
        });
        println!("{}: {figures} in {:.1} s", self.name, began.elapsed().as_secs_f64());
        for fault in figures.faults() {
            println!("  {fault}");
        }
        figures.faults().is_empty()
    }
}
