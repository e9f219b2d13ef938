//! The command `sessile`: looks after a store from outside, beside the programs that use it. Public API only.
//!
//! Results go to standard output, in words or (`--json`) as one JSON object; progress and complaints go to standard error.
mod args;
mod look;
mod one;
mod session_json;
mod sweep;
mod transfer;

use args::{Args, Verb};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use sessile::{Coherence, Error, FileStore, FileStoreOptions};
use std::error::Error as StdError;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How a verb that could be carried out ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// As asked.
    Well,
    /// Something is missing, damaged, or could not be looked at.
    WithFindings,
    /// Another sweep is at work.
    Elsewhere,
}

/// Why a verb could not be carried out.
enum Failure {
    /// Wrong usage beyond what the argument parser knows.
    Usage(&'static str),
    Store(Error),
    /// Nobody reads what we print, or it cannot be written.
    Output(io::Error),
    Input(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

type Outcome = Result<Done, Failure>;

fn main() -> ExitCode {
    let Args { verb, json } = Args::parse();
    let outcome = match verb {
        Verb::Sweep(args) => sweep::run(&args, json),
        Verb::Stat(args) => look::stat(&args, json),
        Verb::Verify(args) => look::verify(&args, json),
        Verb::Show(args) => one::show(&args, json),
        Verb::Destroy(args) => one::destroy(&args, json),
        Verb::Export(args) => transfer::export(&args, json),
        Verb::Import(args) => transfer::import(&args, json),
    };
    ExitCode::from(match outcome {
        Ok(Done::Well) => 0,
        Ok(Done::WithFindings) => 3,
        Ok(Done::Elsewhere) => 4,
        Err(Failure::Usage(text)) => {
            complain(text);
            2
        }
        Err(Failure::Store(error)) => {
            complain(told(&error));
            1
        }
        Err(Failure::Input(error)) => {
            complain(format_args!("failed to read standard input: {error}"));
            1
        }
        Err(Failure::Output(error)) => {
            // Who closes the pipe has read enough.
            if error.kind() != io::ErrorKind::BrokenPipe {
                complain(format_args!("failed to write standard output: {error}"));
            }
            1
        }
    })
}

/// Opens a store that somebody may be using, with any limits, on any file system.
fn open(dir: &Path, create: bool) -> Result<FileStore, Failure> {
    let options = FileStoreOptions::new()
        .create(create)
        .coherence(Coherence::Verify)
        .cache_bytes(0)
        .watch(false)
        .record_bytes_max(16 << 20)
        .entries_max(1 << 16);
    Ok(options.open(dir)?)
}

/// Says something to whoever runs the command.
fn complain(what: impl Display) {
    // If that cannot be read either, the exit code says it.
    let _ = writeln!(io::stderr(), "sessile: {what}");
}

/// An error with its causes, in one line.
fn told(error: &Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| StdError::source(*cause));
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

/// Prints one line of results.
fn print(line: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// A progress bar on the terminal; none where there is none, and not for what takes less than a blink.
fn progress(doing: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(doing);
    let style = ProgressStyle::with_template("{msg:12} {wide_bar} {human_pos:>9} / {human_len:9} {eta:>4}");
    bar.set_style(style.expect("a template"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
