//! Runs the command `sessile` as an operator does: a process with arguments, an environment and a standard input.
//!
//! Every run is also checked for these promises: it ends, it does not panic, and its output contains no terminal
//! control characters.
use serde_json::Value as Json;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Time after which a command counts as hanging.
const PATIENCE: Duration = Duration::from_secs(120);

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The command with these arguments, an empty standard input, and no session id in its environment.
pub(crate) fn sessile<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sessile"));
    command.args(arguments).env_remove("SESSILE_ID").stdin(Stdio::null());
    command
}

/// Runs the command with these arguments, a list of paths and words.
macro_rules! run {
    ($($argument:expr),* $(,)?) => {
        $crate::support::command::finish(&mut $crate::support::command::sessile([
            $(AsRef::<std::ffi::OsStr>::as_ref(&$argument)),*
        ]))
    };
}
pub(crate) use run;

/// Runs the command to its end.
#[track_caller]
pub(crate) fn finish(command: &mut Command) -> Ran {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait(child, Vec::new())
}

/// Runs the command to its end, with `input` on its standard input.
#[track_caller]
pub(crate) fn finish_with(command: &mut Command, input: impl Into<Vec<u8>>) -> Ran {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait(child, input.into())
}

/// Waits for the end of a child process, and returns its result. No other process may hold the child's pipes.
#[track_caller]
pub(crate) fn wait(mut child: Child, input: Vec<u8>) -> Ran {
    if let Some(mut stdin) = child.stdin.take() {
        // The command may end before it has read all of the input.
        std::thread::spawn(move || stdin.write_all(&input));
    }
    let (out, err) = (child.stdout.take().map(read), child.stderr.take().map(read));
    let mut text = |read: Option<Receiver<Vec<u8>>>| {
        read.map_or_else(String::new, |read| {
            let Ok(bytes) = read.recv_timeout(PATIENCE) else {
                let _ = child.kill();
                panic!("the command does not end");
            };
            let text = String::from_utf8(bytes).expect("all output is UTF-8");
            let drives = |c: &char| c.is_control() && *c != '\n';
            assert_eq!(text.chars().find(drives), None, "terminal control characters in {text:?}");
            assert!(!text.contains("panicked"), "{text}");
            text
        })
    };
    let (out, err) = (text(out), text(err));
    let status = child.wait().unwrap();
    Ran { code: status.code().unwrap_or_else(|| panic!("{status}")), out, err }
}

fn read(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, bytes) = channel();
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        let _ = sender.send(all);
    });
    bytes
}

impl Ran {
    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Asserts success with no output on standard error.
    #[track_caller]
    pub(crate) fn ends_well(self) -> Self {
        assert_eq!((self.code, &*self.err), (0, ""), "{self:#?}");
        self
    }

    /// The output, which is one JSON object on one line.
    #[track_caller]
    pub(crate) fn json(&self) -> Json {
        assert_eq!((self.out.lines().count(), self.out.ends_with('\n')), (1, true), "{self:#?}");
        let json: Json = serde_json::from_str(&self.out).unwrap();
        assert!(json.is_object(), "{json}");
        json
    }
}

/// The keys of a JSON object, in alphabetical order.
#[track_caller]
pub(crate) fn keys(json: &Json) -> Vec<&str> {
    let mut keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// The whole numbers that a JSON object has under these keys.
#[track_caller]
pub(crate) fn numbers<const N: usize>(json: &Json, keys: [&str; N]) -> [u64; N] {
    keys.map(|key| json[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {json}")))
}
