//! Real processes for tests: the test binary starts itself again as a child that runs one named worker. The root of the
//! crate defines its `WORKERS` and the arguments, `CHILD`, with which a child reaches [`run_worker`].
//!
//! - A worker is a function of its [`Parent`]. It gets arguments by environment, orders as lines on its standard input,
//!   and reports lines on its standard output.
//! - A [`Child`] that is dropped is killed with SIGKILL and reaped. One whose parent died sees the end of its standard
//!   input and exits.
//! - No wait is unbounded: a child that reports nothing for [`PATIENCE`] fails the test.
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio, exit};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The function that a child process runs.
pub(crate) type Worker = fn(&Parent);

/// Environment variable with the worker's name; unset in a process that is not a child.
const WORKER: &str = "SESSILE_TEST_WORKER";
/// Prefix of the environment variable of every argument.
const ARGUMENT: &str = "SESSILE_TEST_ARGUMENT_";
/// Prefix of each report, because the test harness prints lines of its own.
const MARK: &str = "reports: ";
/// Longest time that a working child may report nothing.
const PATIENCE: Duration = Duration::from_secs(120);

fn worker(name: &str) -> Worker {
    let own: &[(&str, Worker)] = &[("echo", echo), ("sleep", sleep)];
    let known = own.iter().chain(crate::WORKERS.iter().copied().flatten());
    let named: Vec<_> = known.filter(|(known, _)| *known == name).collect();
    let [(_, worker)] = named[..] else { panic!("{} workers are called {name}", named.len()) };
    *worker
}

/// Runs the worker of this process. Returns whether this process is a child at all.
pub(crate) fn run_worker() -> bool {
    let name = std::env::var(WORKER);
    name.map(|name| worker(&name)(&Parent::new())).is_ok()
}

/// A process to be started.
pub(crate) struct Start {
    worker: &'static str,
    command: Command,
}

impl Start {
    pub(crate) fn of(worker: &'static str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(crate::CHILD).env(WORKER, worker);
        Self { worker, command }
    }

    pub(crate) fn with(mut self, argument: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(format!("{ARGUMENT}{argument}"), value);
        self
    }

    /// Runs the worker as a copy of this program that every user may execute, behind a command that runs another
    /// command.
    pub(crate) fn behind(mut self, command: &[&str], copy: &Path) -> Self {
        let mut behind = Command::new(command[0]);
        behind.args(&command[1..]).arg(copy).args(crate::CHILD);
        for (name, value) in self.command.get_envs() {
            behind.env(name, value.expect("no variable was removed"));
        }
        self.command = behind;
        self
    }

    /// Redirects the child's standard error to a file.
    #[allow(dead_code, reason = "one of the binaries that include this module does not use it")]
    pub(crate) fn stderr_to(mut self, file: std::fs::File) -> Self {
        self.command.stderr(file);
        self
    }

    pub(crate) fn start(mut self) -> Child {
        let mut process = self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                // The last line of a killed child may be incomplete; it then lacks the end mark.
                let line = String::from_utf8_lossy(&line);
                let report = line.split_once(MARK).and_then(|(_, report)| report.strip_suffix('.'));
                if let Some(report) = report
                    && sender.send(report.to_owned()).is_err()
                {
                    break;
                }
            }
        });
        Child { worker: self.worker, process, stdin, lines }
    }
}

/// A running child process.
pub(crate) struct Child {
    worker: &'static str,
    process: std::process::Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Child {
    /// Sends a line.
    #[track_caller]
    pub(crate) fn say(&mut self, line: impl Display) {
        let stdin = self.stdin.as_mut().expect("it is open until the child is dropped");
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// The next report.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        self.next().unwrap_or_else(|| panic!("{} ended without a report", self.worker))
    }

    /// The next report; `None` if the child has ended.
    #[track_caller]
    pub(crate) fn next(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("{} said nothing for {PATIENCE:?}", self.worker),
        }
    }

    /// Waits until the child has ended, and returns its remaining reports.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Vec<String> {
        let rest: Vec<_> = std::iter::from_fn(|| self.next()).collect();
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{} failed: {status}", self.worker);
        rest
    }

    /// Kills the child with SIGKILL, and returns its remaining reports.
    #[track_caller]
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        let rest = std::iter::from_fn(|| self.next()).collect();
        let status = self.process.wait().unwrap();
        let killed = status.signal() == Some(rustix::process::Signal::KILL.as_raw());
        assert!(killed || status.success(), "{} had failed before it was killed: {status}", self.worker);
        rest
    }

    /// Stops the child, as ^Z or a debugger does, and returns when it is stopped.
    pub(crate) fn stop(&self) {
        self.signal(rustix::process::Signal::STOP);
        let pid = rustix::process::WaitId::Pid(self.pid());
        rustix::process::waitid(pid, rustix::process::WaitIdOptions::STOPPED).unwrap();
    }

    /// Continues a stopped child.
    pub(crate) fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.process)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both calls fail, without harm, for a child that has ended and was waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A worker's view of the test that started it.
pub(crate) struct Parent {
    arguments: HashMap<String, String>,
    lines: Mutex<Receiver<String>>,
    reports: io::Stdout,
}

impl Parent {
    fn new() -> Self {
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in io::stdin().lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
            exit(2);
        });
        let argument =
            |(name, value): (String, String)| Some((name.strip_prefix(ARGUMENT)?.to_owned(), value));
        Self {
            arguments: std::env::vars().filter_map(argument).collect(),
            lines: Mutex::new(lines),
            reports: io::stdout(),
        }
    }

    #[track_caller]
    pub(crate) fn argument(&self, name: &str) -> &str {
        self.arguments.get(name).unwrap_or_else(|| panic!("no argument {name}"))
    }

    #[track_caller]
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.argument(name).parse().unwrap()
    }

    /// Reports a line in one write, so a reader gets all of it or nothing.
    pub(crate) fn report(&self, text: impl Display) {
        if self.reports.lock().write_all(format!("{MARK}{text}.\n").as_bytes()).is_err() {
            exit(2);
        }
    }

    /// Waits for the next line. Exits if the parent has ended.
    pub(crate) fn line(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.recv().unwrap_or_else(|_| exit(2))
    }
}

/// Sends every child a line.
#[track_caller]
pub(crate) fn say_to_all(children: &mut [Child], line: impl Display) {
    for child in children {
        child.say(&line);
    }
}

/// Waits until every child has reported this line.
#[track_caller]
pub(crate) fn hear_from_all(children: &[Child], line: &str) {
    for child in children {
        assert_eq!(child.line(), line);
    }
}

/// The entry point of every child process of a test binary; in any other process, the test of this file.
#[test]
fn child() {
    if !run_worker() {
        the_harness_keeps_its_promises();
    }
}

fn the_harness_keeps_its_promises() {
    // Arguments, lines and reports arrive as they were sent.
    let mut echo = Start::of("echo").with("WORD", "über\tall = 1").start();
    assert_eq!(echo.line(), "über\tall = 1");
    for line in ["", "one.", MARK, "a b"] {
        echo.say(line);
        assert_eq!(echo.line(), line);
    }
    echo.say("end");
    assert_eq!(echo.finish(), ["bye"]);
    // A dropped child has ended when the drop returns; so has a killed one.
    let dropped = Start::of("sleep").start();
    assert_eq!(dropped.line(), "asleep");
    let pid = dropped.pid();
    assert!(is_there(pid));
    drop(dropped);
    assert!(!is_there(pid));
    let killed = Start::of("sleep").start();
    let pid = killed.pid();
    assert_eq!(killed.line(), "asleep");
    assert_eq!(killed.kill(), [""; 0]);
    assert!(!is_there(pid));
    // A child whose parent has ended exits by itself.
    let mut orphan = Start::of("sleep").start();
    orphan.stdin = None;
    assert_eq!(orphan.process.wait().unwrap().code(), Some(2));
    // A child that fails is noticed.
    let status: ExitStatus = Start::of("no such worker").quiet().start().process.wait().unwrap();
    assert!(!status.success());
}

impl Start {
    /// Discards the child's standard error.
    fn quiet(mut self) -> Self {
        self.command.stderr(Stdio::null());
        self
    }
}

fn is_there(pid: rustix::process::Pid) -> bool {
    rustix::process::test_kill_process(pid).is_ok()
}

fn echo(parent: &Parent) {
    parent.report(parent.argument("WORD"));
    loop {
        match parent.line().as_str() {
            "end" => return parent.report("bye"),
            line => parent.report(line),
        }
    }
}

fn sleep(parent: &Parent) {
    parent.report("asleep");
    thread::sleep(PATIENCE);
}
