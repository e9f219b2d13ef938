//! The same session workload on sessile and on what one would pick instead: in one program, one after the other, again and
//! again, so that ratios mean something on a noisy machine.
//!
//! `workload` says what is done, `peers` who does it and how each is configured, `measure` how it is timed, `compare` in which
//! order.
mod compare;
mod measure;
mod peer;
mod peers;
mod plot;
mod report;
mod space;
mod workload;

use clap::Parser;
use measure::Case;
use peers::Who;
use serde_json::Value;
use sessile_peers::{Stop, turn};
use std::collections::HashSet;
use std::error::Error;
use std::fs::File;
use std::hash::Hash;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use workload::{Act, Durability, Key};

/// Compare session stores on this machine
#[derive(Clone, Debug, Parser)]
#[command(
    max_term_width = 80,
    after_help = "\
Examples:
  peers --seconds 0.5 --json figures.jsonl --plot figures.svg
  peers --acts load,update --who sessile,sqlite,floor --threads 1,8
  peers --dir /mnt/journaled

JSON: one object a line: act, who, durability, threads, bytes, ops_per_s (the
median of the rounds), p50_ns and p99_ns (of single acts, all rounds together),
samples; and with act = \"space\": disk_bytes and resident_bytes a session."
)]
struct Args {
    /// Directory to measure in, on the disk that is meant [default: the current one]
    #[arg(long, default_value = ".", hide_default_value = true)]
    dir: PathBuf,
    /// How many sessions each store holds
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    sessions: u32,
    /// What each session holds, in bytes
    #[arg(long, value_delimiter = ',', default_value = "512,4096", value_parser = clap::value_parser!(u32).range(1..=7000))]
    bytes: Vec<u32>,
    /// How many threads act at the same time
    #[arg(long, value_delimiter = ',', default_value = "1,2,8", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Vec<u16>,
    /// What is done [default: everything]
    #[arg(long, value_delimiter = ',')]
    acts: Vec<Act>,
    /// Who does it [default: everybody who is on this machine]
    #[arg(long, value_delimiter = ',')]
    who: Vec<Who>,
    /// When writes are to have reached the disk
    #[arg(long, value_delimiter = ',', default_value = "relaxed,power_safe")]
    durability: Vec<Durability>,
    /// How long each one does each act in each round
    #[arg(long, default_value = "0.2", value_parser = turn)]
    seconds: Duration,
    /// How often everybody has a turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Write the figures there, one JSON object a line
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw the figures of one thread there, as SVG
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Say how much memory one takes, and nothing else: in a process of its own
    #[arg(long, hide = true)]
    memory_of: Option<Who>,
}

impl Args {
    /// As asked for on the command line, each thing once.
    fn parse_once() -> Self {
        let mut args = Self::parse();
        once_each(&mut args.bytes);
        once_each(&mut args.threads);
        once_each(&mut args.acts);
        once_each(&mut args.who);
        once_each(&mut args.durability);
        args
    }

    /// What is to be measured, in the order of the report.
    fn cases(&self) -> Vec<Case> {
        let acts = if self.acts.is_empty() { &Act::ALL[..] } else { &self.acts };
        let mut cases = Vec::new();
        for &bytes in &self.bytes {
            for &act in acts {
                // Nobody sweeps in several threads.
                let durability = if act.is_durable() { &self.durability[..] } else { &self.durability[..1] };
                let threads = if act == Act::Sweep { &[1] } else { &self.threads[..] };
                for &durability in durability {
                    cases.extend(threads.iter().map(|&threads| Case {
                        act,
                        durability,
                        threads: threads.into(),
                        bytes: usize::try_from(bytes).expect("at most 7,000"),
                    }));
                }
            }
        }
        cases
    }

    fn who(&self) -> Vec<Who> {
        let asked = if self.who.is_empty() { &Who::ALL[..] } else { &self.who };
        let (here, missing): (Vec<Who>, Vec<Who>) = asked.iter().partition(|who| who.is_here());
        for who in missing {
            eprintln!("{} is not on this machine", who.name());
        }
        here
    }

    fn keys(&self) -> Vec<Key> {
        workload::keys(1).take(usize::try_from(self.sessions).expect("fits")).collect()
    }
}

fn once_each<T: Copy + Eq + Hash>(items: &mut Vec<T>) {
    let mut seen = HashSet::new();
    items.retain(|item| seen.insert(*item));
}

/// A file to write to, if one is asked for: one that cannot be written is known before the work.
fn open(path: Option<&Path>) -> Result<Option<File>, String> {
    // What an earlier run has left is written over when there is something to write.
    let open = |path: &Path| File::options().write(true).create(true).truncate(false).open(path);
    let named = |path: &Path| open(path).map_err(|error| format!("{}: {error}", path.display()));
    path.map(named).transpose()
}

fn write_line(to: &mut Option<File>, line: &Value) -> std::io::Result<()> {
    to.as_mut().map_or(Ok(()), |file| writeln!(file, "{line}"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse_once();
    if args.who().is_empty() {
        return Err("nobody is left to be compared".into());
    }
    let stop = Stop::on_signals()?;
    let dir = tempfile::Builder::new().prefix("peers-").tempdir_in(&args.dir)?;
    let dir_path = dir.path().canonicalize()?;
    if let Some(who) = args.memory_of {
        println!("{}", space::memory(&args, who, &dir_path, &stop)?);
        return Ok(());
    }
    let (mut json, mut plot) = (open(args.json.as_deref())?, open(args.plot.as_deref())?);
    // What is known is told at once: a later failure does not take it away.
    json.as_ref().map_or(Ok(()), |json| json.set_len(0))?;
    let figures =
        compare::all(&args, &dir_path, &stop, |figures| write_line(&mut json, &report::json(figures)))?;
    println!("{}", report::table(&figures));
    if let Some(plot) = &mut plot {
        plot.set_len(0)?;
        plot.write_all(plot::draw(&figures)?.as_bytes())?;
    }
    let mut spaces = Vec::new();
    let mut failed = 0;
    for space in space::all(&args, &dir_path) {
        match space {
            Ok(space) => {
                write_line(&mut json, &report::space_json(&space))?;
                spaces.push(space);
            }
            Err(error) => {
                failed += 1;
                eprintln!("{error}");
            }
        }
        stop.check()?;
    }
    println!("{}", report::space_table(&spaces));
    match failed {
        0 => Ok(()),
        _ => Err(format!("{failed} could not say how much room a session takes").into()),
    }
}
