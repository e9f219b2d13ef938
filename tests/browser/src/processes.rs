//! Programs that the test starts, and their end: when the test drops them, when it panics, and when a signal stops it.
//! Each program has a process group of its own, which is killed as a whole.
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::TERM_SIGNALS;
use signal_hook::iterator::Signals;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, thread};

use crate::waiting::PATIENCE;

/// The process groups that are running.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<Pid>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running program and its descendants. They are killed with SIGKILL when this value is dropped.
pub(crate) struct Program {
    child: Child,
    group: Pid,
}

impl Program {
    /// Starts a program, and waits for the first line of its output for which `is_ready` has an answer.
    ///
    /// # Errors
    ///
    /// The program cannot be started, or ends or stays silent before that line.
    pub(crate) fn start<T: Send + 'static>(
        command: &mut Command,
        is_ready: impl Fn(&str) -> Option<T> + Send + 'static,
    ) -> io::Result<(Self, T)> {
        // A signal that comes now waits for the lock, and then kills this program too.
        let mut running = running();
        let mut child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let group = Pid::from_child(&child);
        running.push(group);
        drop(running);
        let stdout = child.stdout.take().expect("it is piped");
        let program = Self { child, group };
        let (sender, ready) = channel();
        // Reads to the end: a program whose output is not read would stop.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(answer) = is_ready(&line) {
                    // The program may have been given up already.
                    let _ = sender.send(answer);
                }
            }
        });
        let answer = ready.recv_timeout(PATIENCE).map_err(io::Error::other)?;
        Ok((program, answer))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        kill(self.group);
        // The program was killed: this waits for an instant only.
        let _ = self.child.wait();
        running().retain(|group| *group != self.group);
    }
}

fn kill(group: Pid) {
    // An error means that the group has ended already.
    let _ = kill_process_group(group, Signal::KILL);
}

/// After a signal to stop, kills all programs, removes this directory, and ends this process.
///
/// # Errors
///
/// The signal handlers cannot be installed.
pub(crate) fn stop_on_signals(scratch: PathBuf) -> io::Result<()> {
    let mut signals = Signals::new(TERM_SIGNALS)?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            // The lock is kept: no scenario starts another program.
            let running = running();
            running.iter().for_each(|group| kill(*group));
            // A program that was killed, or a scenario, may still be writing there.
            let is_gone = || fs::remove_dir_all(&scratch).is_ok() || !scratch.exists();
            let _ = (0..100).any(|_| {
                is_gone() || {
                    thread::sleep(Duration::from_millis(10));
                    false
                }
            });
            std::process::exit(1);
        }
    });
    Ok(())
}

/// The command lines of the running processes that name this directory. Each browser names its profile there.
pub(crate) fn processes_in(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().expect("the test has made it");
    let processes = fs::read_dir("/proc").expect("Linux").filter_map(Result::ok);
    let own = std::process::id().to_string();
    let others = processes.filter(|process| process.file_name() != *own);
    // A process that has ended meanwhile has no command line.
    let lines = others.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(dir)).collect()
}
