//! The same session workload on sessile and on what one would pick instead: in one program, one after the other, again and
//! again, so that ratios mean something on a noisy machine.
//!
//! `workload` says what is done, `peers` who does it and how each is configured, `measure` how it is timed.
mod measure;
mod peer;
mod peers;
mod plot;
mod report;
mod space;
mod workload;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use measure::{Case, Figures, Samples, Subject};
use peer::Setting;
use peers::Who;
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
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
    #[arg(long, default_value_t = 0.2)]
    seconds: f64,
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
    /// What is to be measured, in the order of the report.
    fn cases(&self) -> Vec<Case> {
        let acts = if self.acts.is_empty() { &Act::ALL[..] } else { &self.acts };
        let mut cases = Vec::new();
        for &bytes in &self.bytes {
            for &act in acts {
                // A load is the same at each durability, and nobody sweeps in several threads.
                let durability = if act.writes() { &self.durability[..] } else { &self.durability[..1] };
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

/// Everybody with so many bytes a session at one durability, with all sessions made.
fn subjects(
    args: &Args,
    dir: &Path,
    bytes: usize,
    durability: Durability,
    all: &[Key],
    bar: &ProgressBar,
) -> Vec<Subject> {
    let open = |who: Who| {
        bar.set_message(format!("filling {}", who.name()));
        let dir = dir.join(format!("{}-{}-{bytes}", who.name(), durability.name()));
        let peer = who.open(Setting { dir, durability, payload: workload::payload(bytes) });
        let subject = Subject::new(who, durability, peer, all, bytes);
        bar.inc(1);
        subject
    };
    args.who().into_iter().map(open).collect()
}

fn compare(args: &Args, dir: &Path) -> Vec<Figures> {
    let (all, cases, who) = (args.keys(), args.cases(), args.who());
    let slice = Duration::from_secs_f64(args.seconds);
    let stores = args.bytes.len() * args.durability.len() * who.len();
    let slices = cases.len() * usize::from(args.rounds) * who.len();
    let bar = ProgressBar::new((stores + slices) as u64);
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {percent:>3} % {eta:>5} left  {msg}").expect("a template"),
    );
    let mut figures = Vec::new();
    for &bytes in &args.bytes {
        let bytes = usize::try_from(bytes).expect("at most 7,000");
        for &durability in &args.durability {
            let mut subjects = subjects(args, dir, bytes, durability, &all, &bar);
            for &case in cases.iter().filter(|case| (case.bytes, case.durability) == (bytes, durability)) {
                bar.set_message(format!(
                    "{} {} {} threads",
                    case.act.name(),
                    durability.name(),
                    case.threads
                ));
                let doing: Vec<_> = subjects.iter().map(|subject| subject.peer.does(case.act)).collect();
                let mut samples: Vec<_> = subjects.iter().map(|_| Samples::new()).collect();
                for _ in 0..args.rounds {
                    for ((subject, samples), does) in subjects.iter_mut().zip(&mut samples).zip(&doing) {
                        if *does {
                            subject.round(case, &all, slice, samples);
                        }
                        bar.inc(1);
                    }
                }
                for ((subject, samples), does) in subjects.iter().zip(&samples).zip(doing) {
                    assert_eq!(subject.durability, durability);
                    if does {
                        figures.push(samples.figures(case, subject.who));
                    }
                }
            }
            drop(subjects);
            // Room for the next ones.
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
    bar.finish_and_clear();
    let place = |figures: &Figures| cases.iter().position(|case| *case == figures.case);
    figures.sort_by_key(|figures| (place(figures), figures.who));
    figures
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    if args.who().is_empty() {
        return Err("nobody is left to be compared".into());
    }
    let dir = tempfile::Builder::new().prefix("peers-").tempdir_in(&args.dir)?;
    let dir_path = dir.path().canonicalize()?;
    if let Some(who) = args.memory_of {
        println!("{}", space::memory(&args, who, &dir_path));
        return Ok(());
    }
    // Before the work: a file that cannot be written is known at once.
    let mut json = args.json.as_ref().map(File::create).transpose()?.map(BufWriter::new);
    let figures = compare(&args, &dir_path);
    let spaces = space::all(&args, &dir_path)?;
    println!("{}", report::table(&figures));
    println!("{}", report::space_table(&spaces));
    if let Some(json) = &mut json {
        for line in figures.iter().map(report::json).chain(spaces.iter().map(report::space_json)) {
            writeln!(json, "{line}")?;
        }
        json.flush()?;
    }
    if let Some(path) = &args.plot {
        plot::draw(path, &figures)?;
    }
    Ok(())
}
