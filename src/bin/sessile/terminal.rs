//! Output for the operator: results, warnings, progress.
//!
//! No stored text or file name can control the terminal, and no session's id is repeated, even if it was put on the
//! command line or in the input by mistake.
use crate::owner;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::json;
use sessile::{Error, ErrorKind};
use std::collections::HashSet;
use std::error::Error as StdError;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Whether warnings are JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// The words in the path of the store that look like session ids, and are printed all the same.
static SPARED: OnceLock<HashSet<String>> = OnceLock::new();

/// Lets the words in the path of an existing directory be printed, even if they look like session ids. (An id that was
/// given in place of a directory by mistake is not the name of one.)
pub(crate) fn spare_path(dir: &Path) {
    if dir.symlink_metadata().is_ok() {
        let path = dir.to_string_lossy();
        let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| may_be_id(word));
        let _ = SPARED.set(words.map(str::to_owned).collect());
    }
}

/// Makes each warning a JSON object: `{"error":"…"}`.
pub(crate) fn report_errors_as_json() {
    JSON.store(true, Relaxed);
}

/// Prints a warning or an error, in one line.
pub(crate) fn warn(message: impl Display) {
    let text = without_ids(&message.to_string());
    let line = if JSON.load(Relaxed) {
        json_line(&json!({"error": text}))
    } else {
        format!("sessile: {}", plain(text))
    };
    // A failure is ignored, because the exit code reports the problem.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Asks the operator for input.
pub(crate) fn prompt(text: &str) {
    let _ = writeln!(io::stderr(), "sessile: {text}");
}

/// An error with its causes, and with the remedy if another user owns the store.
pub(crate) fn error_chain(error: &Error) -> String {
    if let Some(text) = owner::ownership_error(error) {
        return text;
    }
    let causes = std::iter::successors(error.source(), |cause| StdError::source(*cause));
    let chain = causes.fold(error.to_string(), |chain, cause| format!("{chain}: {cause}"));
    let chain = if error.kind() == ErrorKind::Permissions { owner::with_names(&chain) } else { chain };
    match owner::remedy(error) {
        Some(remedy) => format!("{chain}; {remedy}"),
        None => chain,
    }
}

/// Prints results to standard output.
pub(crate) fn print(words: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{words}")
}

/// Text for a terminal, in one line.
pub(crate) fn plain(text: impl Display) -> String {
    escape(&text.to_string(), char::is_control, |c| c.escape_unicode().to_string())
}

/// The text of a usage error, which may quote arguments.
pub(crate) fn plain_usage(text: &str) -> String {
    let is_control = |c: char| c != '\n' && c.is_control();
    escape(&without_ids(text), is_control, |c| c.escape_unicode().to_string())
}

/// A JSON object in one line.
pub(crate) fn json_line(value: &impl Serialize) -> String {
    escape_json(&serde_json::to_string(value).expect("maps with strings for keys"))
}

/// A JSON object in several lines.
pub(crate) fn json_pretty(value: &impl Serialize) -> String {
    escape_json(&serde_json::to_string_pretty(value).expect("maps with strings for keys"))
}

/// JSON allows DEL and the controls from U+0080 to U+009F unescaped, but terminals interpret them. They occur in
/// strings only.
fn escape_json(json: &str) -> String {
    let is_control = |c: char| c != '\n' && c.is_control();
    escape(json, is_control, |c| format!("\\u{:04x}", u32::from(c)))
}

/// Escapes controls, separators of lines and paragraphs, and marks that change the direction of text, because such
/// marks can make a line look like another.
fn escape(text: &str, is_control: impl Fn(char) -> bool, escaped: impl Fn(char) -> String) -> String {
    let turns = |c| matches!(c, '\u{061c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_control(c) || turns(c) {
            safe += &escaped(c);
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Replaces each word that may be a session's secret id, even with a typing error.
fn without_ids(text: &str) -> String {
    let mut rest = text;
    let mut safe = String::with_capacity(text.len());
    while !rest.is_empty() {
        let is_of_word = |c: char| c.is_ascii_alphanumeric();
        let begin = rest.find(is_of_word).unwrap_or(rest.len());
        let (before, word) = rest.split_at(begin);
        let (word, after) = word.split_at(word.find(|c| !is_of_word(c)).unwrap_or(word.len()));
        safe += before;
        let is_spared = SPARED.get().is_some_and(|spared| spared.contains(word));
        safe += if may_be_id(word) && !is_spared { "(left out: it may be a session's id)" } else { word };
        rest = after;
    }
    safe
}

/// Whether a word looks like a session id. Words that are somewhat shorter or longer than 32 characters count, too.
/// Digests are longer, or hexadecimal.
fn may_be_id(word: &str) -> bool {
    let slips = word.bytes().filter(|c| matches!(c, b'0' | b'1' | b'8' | b'9')).count();
    (24..=36).contains(&word.len()) && slips <= 1
}

/// A progress bar on the terminal. There is none without a terminal, and none for work of less than 0.3 s.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// The time at which the bar appears; `None` after it has appeared, and if it never will.
    appears: Option<Instant>,
}

const DELAY: Duration = Duration::from_millis(300);

impl Progress {
    /// A bar for `total` sessions.
    pub(crate) fn of(total: u64) -> Self {
        Self::new(Some(total), "sessions {wide_bar} {human_pos:>9} / {human_len:9} {eta:>4}")
    }

    /// A bar for sessions in `total` directories. The number of sessions is not known before the end.
    pub(crate) fn in_directories(total: u64) -> Self {
        Self::new(Some(total), "{msg:>18} {wide_bar} {percent:>3}% {eta:>4}")
    }

    /// A bar for an unknown number of sessions.
    pub(crate) fn counting() -> Self {
        Self::new(None, "{human_pos:>13} sessions  {elapsed}")
    }

    fn new(total: Option<u64>, template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        bar.set_style(ProgressStyle::with_template(template).expect("a template"));
        Self { bar, appears: Some(Instant::now() + DELAY) }
    }

    /// Hides the bar if the terminal is used for other output.
    pub(crate) fn unless(mut self, terminal_in_use: bool) -> Self {
        self.appears = self.appears.filter(|_| !terminal_in_use);
        self
    }

    pub(crate) fn at(&mut self, done: u64) {
        if self.appears.is_some_and(|appears| appears <= Instant::now()) {
            self.appears = None;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        if self.bar.position() != done {
            self.bar.set_position(done);
        }
    }

    /// Shows that `done` directories are done, with `sessions` sessions in them.
    pub(crate) fn at_directory(&mut self, done: u64, sessions: u64) {
        if self.bar.position() != done {
            self.bar.set_message(format!("{} sessions", HumanCount(sessions)));
        }
        self.at(done);
    }

    /// Prints a warning above the bar.
    pub(crate) fn warn(&self, message: impl Display) {
        self.bar.suspend(|| warn(message));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_sessions() {
        let mut progress = Progress::in_directories(256);
        progress.at_directory(3, 1234);
        assert_eq!((progress.bar.position(), progress.bar.message()), (3, "1,234 sessions".into()));
        let mut progress = Progress::of(10);
        progress.at(4);
        assert_eq!((progress.bar.position(), progress.bar.length()), (4, Some(10)));
    }
}
