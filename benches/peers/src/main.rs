//! The same session workload on sessile and on its alternatives: in one program, in turns, over several
//! rounds, so that ratios are meaningful on a noisy machine.
//!
//! `workload` defines the operations, `mix` the order in which the life of sessions mixes them, `peers` the candidates
//! and their configuration, `measure` the timing, `compare` the order.
mod about;
mod compare;
mod hits;
mod measure;
#[path = "../../common/mix.rs"]
mod mix;
#[cfg(test)]
mod mix_tests;
mod pages;
mod panel;
mod peer;
mod peers;
mod plot;
mod report;
mod space;
mod workload;

use clap::Parser;
use measure::Case;
use pages::{Extent, Page};
use peers::PeerName;
use serde_json::Value;
use sessile_peers::{Stop, turn};
use std::collections::HashSet;
use std::error::Error;
use std::fs::File;
use std::hash::Hash;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use workload::{Durability, Key, Operation};

/// Compare session stores on this machine
#[derive(Clone, Debug, Parser)]
#[command(
    max_term_width = 80,
    after_help = "\
Examples:
  peers --seconds 0.5 --json figures.jsonl --plot figures.svg
  peers --bytes 512 --threads 1,8 --readme README.md --details docs/testing.md
  peers --operations mix --threads 1,8 --bytes 512
  peers --operations load,update --who sessile,sqlite,floor --threads 1,8
  peers --dir /mnt/journaled
  peers --hits --sessions 1000000 --bytes 512

JSON: one object a line: operation, who, durability, threads, bytes, ops_per_s (the
median of the rounds), p50_ns and p99_ns (of single operations, all rounds together),
samples; and with operation = \"space\": disk_bytes and resident_bytes a session."
)]
struct Args {
    /// Directory to measure in, on the disk in question [default: the current one]
    #[arg(long, default_value = ".", hide_default_value = true)]
    dir: PathBuf,
    /// Number of sessions in each store
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    sessions: u32,
    /// Size of each session, in bytes
    #[arg(long, value_delimiter = ',', default_value = "512,4096", value_parser = clap::value_parser!(u32).range(1..=7000))]
    bytes: Vec<u32>,
    /// Number of threads at the same time
    #[arg(long, value_delimiter = ',', default_value = "1,2,8", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Vec<u16>,
    /// The operations [default: all]
    #[arg(long, value_delimiter = ',')]
    operations: Vec<Operation>,
    /// The peers [default: all that are installed on this machine]
    #[arg(long, value_delimiter = ',')]
    who: Vec<PeerName>,
    /// When writes must have reached the disk
    #[arg(long, value_delimiter = ',', default_value = "relaxed,power_safe,defaults")]
    durability: Vec<Durability>,
    /// How long each peer performs each operation in each round
    #[arg(long, default_value = "0.2", value_parser = turn)]
    seconds: Duration,
    /// Number of rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Write the figures to this file, one JSON object a line
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw the figures of the smallest sessions to this file, as SVG
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Write the mix and the most common operations, as text and a table, between the
    /// marks of this file
    #[arg(long)]
    readme: Option<PathBuf>,
    /// Write loads, and all rates and latencies, between the marks of this file
    #[arg(long)]
    details: Option<PathBuf>,
    /// Only compare loads from sessile's memory with loads from LMDB, by processor time
    #[arg(long)]
    hits: bool,
    /// Only measure the memory of one peer, in this process
    #[arg(long, hide = true)]
    memory_of: Option<PeerName>,
}

impl Args {
    /// The arguments of the command line, without duplicates.
    fn parse_once() -> Self {
        let mut args = Self::parse();
        once_each(&mut args.bytes);
        once_each(&mut args.threads);
        once_each(&mut args.operations);
        once_each(&mut args.who);
        once_each(&mut args.durability);
        args
    }

    /// The cases to measure, in the order of the report.
    fn cases(&self) -> Vec<Case> {
        let operations = if self.operations.is_empty() { &Operation::ALL[..] } else { &self.operations };
        let mut cases = Vec::new();
        for &bytes in &self.bytes {
            for &operation in operations {
                // Sweeps run in one thread.
                let has_act = |durability: &&Durability| {
                    operation == Operation::Mix || **durability != Durability::Defaults
                };
                let most = if operation.is_durable() { self.durability.len() } else { 1 };
                let threads = if operation == Operation::Sweep { &[1] } else { &self.threads[..] };
                for &durability in self.durability.iter().filter(has_act).take(most) {
                    cases.extend(threads.iter().map(|&threads| Case {
                        operation,
                        durability,
                        threads: threads.into(),
                        bytes: usize::try_from(bytes).expect("at most 7,000"),
                    }));
                }
            }
        }
        cases
    }

    /// The requested peers: those that are installed on this machine, and the others.
    fn here_and_missing(&self) -> (Vec<PeerName>, Vec<PeerName>) {
        let asked = if self.who.is_empty() { &PeerName::ALL[..] } else { &self.who };
        asked.iter().partition(|who| who.is_here())
    }

    fn who(&self) -> Vec<PeerName> {
        self.here_and_missing().0
    }

    /// The peers that know a durability.
    fn who_has(&self, durability: Durability) -> Vec<PeerName> {
        let mut who = self.who();
        who.retain(|who| durability != Durability::Defaults || *who == PeerName::Sessile);
        who
    }

    /// The pages that get the figures.
    fn pages(&self) -> Result<Vec<Page<'_>>, String> {
        let pages = [(&self.readme, Extent::Summary), (&self.details, Extent::All)];
        pages.into_iter().filter_map(|(path, extent)| Some(Page::open(path.as_deref()?, extent))).collect()
    }

    fn keys(&self) -> Vec<Key> {
        workload::keys(1).take(usize::try_from(self.sessions).expect("fits")).collect()
    }
}

fn once_each<T: Copy + Eq + Hash>(items: &mut Vec<T>) {
    let mut seen = HashSet::new();
    items.retain(|item| seen.insert(*item));
}

/// Opens a file for writing, if one was requested: a file that cannot be written is reported before the
/// measurement.
fn open(path: Option<&Path>) -> Result<Option<File>, String> {
    // The content of an earlier run is kept until there is a result to write.
    let open = |path: &Path| File::options().write(true).create(true).truncate(false).open(path);
    let named = |path: &Path| open(path).map_err(|error| format!("{}: {error}", path.display()));
    path.map(named).transpose()
}

fn write_line(to: &mut Option<File>, line: &Value) -> std::io::Result<()> {
    to.as_mut().map_or(Ok(()), |file| writeln!(file, "{line}"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse_once();
    let (here, missing) = args.here_and_missing();
    for who in missing {
        eprintln!("{} is not installed on this machine", who.name());
    }
    if here.is_empty() {
        return Err("there is no peer to compare".into());
    }
    let stop = Stop::on_signals()?;
    let dir = tempfile::Builder::new().prefix("peers-").tempdir_in(&args.dir)?;
    let dir_path = dir.path().canonicalize()?;
    if let Some(who) = args.memory_of {
        println!("{}", space::memory(&args, who, &dir_path, &stop)?);
        return Ok(());
    }
    if args.hits {
        println!("{}", hits::table(&args, &dir_path, &stop)?);
        return Ok(());
    }
    let (mut json, mut plot) = (open(args.json.as_deref())?, open(args.plot.as_deref())?);
    let pages = args.pages()?;
    // Each result is written at once: a later failure does not discard it.
    json.as_ref().map_or(Ok(()), |json| json.set_len(0))?;
    let figures =
        compare::all(&args, &dir_path, &stop, |figures| write_line(&mut json, &report::json(figures)))?;
    println!("{}", report::table(&figures));
    if let Some(table) = report::mix_table(&figures) {
        println!("{table}");
    }
    let captions = [about::machine(&dir_path), about::run(&args)];
    if let Some(plot) = &mut plot {
        plot.set_len(0)?;
        plot.write_all(plot::draw(&figures, &captions)?.as_bytes())?;
    }
    for page in pages {
        page.write(&figures, &captions)?;
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
        _ => Err(format!("{failed} could not report the size of a session").into()),
    }
}
