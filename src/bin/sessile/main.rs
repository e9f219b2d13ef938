//! The command `sessile`: administers a store beside the programs that use it. Uses the public API only.
//!
//! Results go to standard output, in words or (`--json`) as one JSON object; progress and warnings go to standard
//! error.
mod args;
mod count;
#[cfg(feature = "sqlite")]
mod database;
mod doctor;
mod export;
mod generate;
mod import;
mod list;
mod older;
mod one;
mod owner;
mod session_json;
mod stat;
mod store;
mod strict_json;
mod sweep;
mod terminal;
mod verify;

use args::{Args, Verb};
use clap::Parser;
use sessile::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use terminal::{error_chain, json_line, plain_usage, report_errors_as_json, warn};

/// The outcome of a verb that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Ok,
    /// Something is missing, damaged, or could not be read.
    Findings,
    /// Another sweep is running.
    AlreadyRunning,
    /// Only a part was done. A warning has told the reason.
    Incomplete,
}

/// The reason for which a verb could not be carried out.
enum Failure {
    /// Wrong usage that the argument parser cannot detect.
    Usage(&'static str),
    Store(Error),
    /// Standard output is closed, or cannot be written.
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

type VerbResult = Result<Outcome, Failure>;

fn main() -> ExitCode {
    let Args { verb, json } = match Args::try_parse() {
        Ok(args) => {
            if args.json {
                report_errors_as_json();
            }
            args
        }
        Err(error) => return wrong_usage(&error),
    };
    let outcome = match verb {
        Verb::Sweep(args) => sweep::run(&args, json),
        Verb::Stat(args) => stat::stat(&args, json),
        Verb::Verify(args) => verify::verify(&args, json),
        Verb::List(args) => list::list(&args, json),
        Verb::Show(args) => one::show(&args, json),
        Verb::Delete(args) => one::delete(&args, json),
        Verb::Export(args) => export::export(&args, json),
        Verb::Import(args) => import::import(&args, json),
        Verb::Count(args) => count::count(&args, json),
        Verb::Doctor(args) => doctor::doctor(&args, json),
        #[cfg(feature = "sqlite")]
        Verb::Schema(args) => database::schema(&args, json),
        Verb::Completions { shell } => generate::completions(shell),
        Verb::Man { verb } => generate::man(verb.as_deref()),
    };
    ExitCode::from(match outcome {
        Ok(Outcome::Ok) => 0,
        Ok(Outcome::Findings) => 3,
        Ok(Outcome::AlreadyRunning) => 4,
        Ok(Outcome::Incomplete) => 1,
        Err(Failure::Usage(text)) => {
            warn(text);
            2
        }
        Err(Failure::Store(error)) => {
            warn(error_chain(&error));
            1
        }
        Err(Failure::Input(error)) => {
            warn(format_args!("failed to read standard input: {error}"));
            1
        }
        Err(Failure::Output(error)) => {
            // A closed pipe is not an error: the reader has read as much as it wanted.
            if error.kind() != io::ErrorKind::BrokenPipe {
                warn(format_args!("failed to write standard output: {error}"));
            }
            1
        }
    })
}

/// Prints the help that was asked for, or a usage error. The text may quote an argument that is an id by mistake.
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
        // This prints in colours, if the terminal has them.
        error.exit()
    }
    let _ = write!(io::stderr(), "{safe}");
    ExitCode::from(2)
}

/// How a verb uses the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Changes nothing, so it works on another user's store, and on a read-only disk.
    Read,
    Write,
    /// The verb writes, and creates the store if there is none.
    Create,
}
