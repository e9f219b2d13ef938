//! The command `sessile`: looks after a store from outside, beside the programs that use it. Public API only.
//!
//! Results go to standard output, in words or (`--json`) as one JSON object; progress and complaints go to standard error.
mod args;
mod export;
mod import;
mod look;
mod one;
mod owner;
mod session_json;
mod strict_json;
mod sweep;
mod terminal;
mod verify;

use args::{Args, Verb};
use clap::Parser;
use sessile::{Coherence, Error, Event, FileStore, FileStoreOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use terminal::{complain, json_line, plain_usage, spare_path, speak_json, told};

/// How a verb that could be carried out ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// As asked.
    Well,
    /// Something is missing, damaged, or could not be looked at.
    WithFindings,
    /// Another sweep is at work.
    Elsewhere,
    /// A part of it; the reason was complained of.
    InPart,
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
    let Args { verb, json } = match Args::try_parse() {
        Ok(args) => {
            if args.json {
                speak_json();
            }
            args
        }
        Err(error) => return wrong_usage(&error),
    };
    let outcome = match verb {
        Verb::Sweep(args) => sweep::run(&args, json),
        Verb::Stat(args) => look::stat(&args, json),
        Verb::Verify(args) => verify::verify(&args, json),
        Verb::Show(args) => one::show(&args, json),
        Verb::Destroy(args) => one::destroy(&args, json),
        Verb::Export(args) => export::export(&args, json),
        Verb::Import(args) => import::import(&args, json),
    };
    ExitCode::from(match outcome {
        Ok(Done::Well) => 0,
        Ok(Done::WithFindings) => 3,
        Ok(Done::Elsewhere) => 4,
        Ok(Done::InPart) => 1,
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

/// Help that was asked for, or a complaint, which may quote what was typed: an id, by mistake.
fn wrong_usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    let safe = plain_usage(&text);
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let first = safe.split("\n\n").next().unwrap_or(&safe);
        let first = first.strip_prefix("error: ").unwrap_or(first);
        let _ = writeln!(io::stderr(), "{}", json_line(&serde_json::json!({"error": first})));
        return ExitCode::from(2);
    }
    if safe == text {
        // In colours, if there are any.
        error.exit()
    }
    let _ = write!(io::stderr(), "{safe}");
    ExitCode::from(2)
}

/// What a verb does with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Reads, and leaves no trace: also in the store of another user, and on a disk that cannot be written.
    Look,
    Change,
    /// Makes the store if there is none.
    Make,
}

/// Opens a store that programs may be using, with any limits, on any file system.
fn open(dir: &Path, to: Use) -> Result<FileStore, Failure> {
    spare_path(dir);
    let options = FileStoreOptions::new()
        .create(to == Use::Make)
        .read_only(to == Use::Look)
        .keep_modes(true)
        .coherence(Coherence::Verify)
        .cache_bytes(0)
        .watch(false)
        .record_bytes_max(16 << 20)
        .entries_max(1 << 16)
        .observer(|event| complain(in_words(event)));
    let opened = options.clone().open(dir)?;
    if to != Use::Make {
        return Ok(opened);
    }
    // A store that is emptied while sessions are brought in is an error, and not made again.
    drop(opened);
    Ok(options.create(false).open(dir)?)
}

/// An event of a store, for people.
fn in_words(event: &Event<'_>) -> String {
    match event {
        Event::ShardsRecreated { path, shards } => format!(
            "session directory `{}` lacked shard directories, which were made again: {}",
            path.display(),
            shards.join(", ")
        ),
        other => format!("{other:?}"),
    }
}
