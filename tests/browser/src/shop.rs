//! The example `shop` as a real process.
use crate::processes::Program;
use crate::stage::WORKSPACE;
use serde_json::Value;
use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Builds the example `name` of the package in `workspace`; returns the path of the program.
///
/// # Errors
///
/// Cargo cannot be started, or the build fails: cargo has then printed the reason.
pub(crate) fn build(workspace: &Path, name: &str, options: &[&str]) -> io::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--message-format", "json-render-diagnostics", "--example", name])
        .args(options);
    let built = command.current_dir(workspace).stderr(Stdio::inherit()).output()?;
    let messages = String::from_utf8_lossy(&built.stdout);
    let mut messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program =
        messages.find(|message| message["target"]["name"] == name && message["executable"].is_string());
    match program {
        Some(program) if built.status.success() => {
            Ok(program["executable"].as_str().expect("it is a string").into())
        }
        _ => Err(io::Error::other(format!("the example {name} cannot be built"))),
    }
}

/// The shop as the workspace has it.
///
/// # Errors
///
/// The same as [`build`].
pub(crate) fn build_own() -> io::Result<PathBuf> {
    build(Path::new(WORKSPACE), "shop", &[])
}

/// A running shop. It is killed with SIGKILL when this value is dropped.
pub(crate) struct Shop {
    program: Program,
    pub(crate) address: SocketAddr,
}

impl Shop {
    /// Starts the program with a store and further arguments, and waits until it listens. What it complains about is
    /// appended to `log`.
    #[track_caller]
    pub(crate) fn start(program: &Path, store: &str, args: &[&str], log: &Path) -> Self {
        let log =
            OpenOptions::new().create(true).append(true).open(log).expect("the directory is the test's own");
        let mut command = Command::new(program);
        command.args(["--store", store]).args(args).stderr(log);
        let started =
            Program::start(&mut command, |line| line.strip_prefix("listening on http://")?.parse().ok());
        let (program, address) = started.unwrap_or_else(|error| panic!("the shop with {store}: {error}"));
        Self { program, address }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Kills the shop with SIGKILL. Returns the port on which it was.
    pub(crate) fn kill(self) -> u16 {
        drop(self.program);
        self.address.port()
    }
}
