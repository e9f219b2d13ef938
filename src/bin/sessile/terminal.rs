//! What whoever runs the command gets to see: results, complaints, progress.
//!
//! Nothing that somebody else stored or named drives the terminal, and no session's id is repeated, wherever on the command
//! line or in the input it was put by mistake.
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use sessile::Error;
use std::error::Error as StdError;
use std::fmt::Display;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Says something to whoever runs the command, in one line.
pub(crate) fn complain(what: impl Display) {
    // If that cannot be read either, the exit code says it.
    let _ = writeln!(io::stderr(), "sessile: {}", plain(without_ids(&what.to_string())));
}

/// An error with its causes.
pub(crate) fn told(error: &Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| StdError::source(*cause));
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

/// Prints results.
pub(crate) fn print(words: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{words}")
}

/// Text for a terminal, in one line.
pub(crate) fn plain(text: impl Display) -> String {
    escape(&text.to_string(), char::is_control, |c| c.escape_unicode().to_string())
}

/// A usage error's text: it may quote what was typed.
pub(crate) fn plain_usage(text: &str) -> String {
    let is_control = |c: char| c != '\n' && c.is_control();
    escape(&without_ids(text), is_control, |c| c.escape_unicode().to_string())
}

/// One JSON object in a line.
pub(crate) fn json_line(value: &impl Serialize) -> String {
    escape_json(&serde_json::to_string(value).expect("maps with strings for keys"))
}

/// One JSON object for people.
pub(crate) fn json_pretty(value: &impl Serialize) -> String {
    escape_json(&serde_json::to_string_pretty(value).expect("maps with strings for keys"))
}

/// JSON allows DEL and the controls from U+0080 to U+009F as they are; terminals act on them. They can only be in strings.
fn escape_json(json: &str) -> String {
    let is_control = |c: char| c != '\n' && c.is_control();
    escape(json, is_control, |c| format!("\\u{:04x}", u32::from(c)))
}

/// Escapes controls, separators of lines and paragraphs, and what changes the direction of text: it can make a line look like
/// another.
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

/// Leaves out what is a session's id, or one with a slip in it.
fn without_ids(text: &str) -> String {
    let mut rest = text;
    let mut safe = String::with_capacity(text.len());
    while !rest.is_empty() {
        let is_of_word = |c: char| c.is_ascii_alphanumeric();
        let begin = rest.find(is_of_word).unwrap_or(rest.len());
        let (before, word) = rest.split_at(begin);
        let (word, after) = word.split_at(word.find(|c| !is_of_word(c)).unwrap_or(word.len()));
        safe += before;
        safe += if may_be_id(word) { "(left out: it may be a session's id)" } else { word };
        rest = after;
    }
    safe
}

/// Shorter and longer ones than 32 characters, too. Digests are longer still, or hexadecimal.
fn may_be_id(word: &str) -> bool {
    let slips = word.bytes().filter(|c| matches!(c, b'0' | b'1' | b'8' | b'9')).count();
    (24..=36).contains(&word.len()) && slips <= 1
}

/// A progress bar on the terminal; none where there is none, and not for what takes less than a blink.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// When it appears; `None` if it has, or never will.
    appears: Option<Instant>,
}

const BLINK: Duration = Duration::from_millis(300);

impl Progress {
    /// Of so many.
    pub(crate) fn of(doing: &'static str, total: u64) -> Self {
        Self::new(Some(total), "{msg:12} {wide_bar} {human_pos:>9} / {human_len:9} {eta:>4}", doing)
    }

    /// Of nobody knows how many.
    pub(crate) fn counting(doing: &'static str) -> Self {
        Self::new(None, "{msg:12} {human_pos:>13}  {elapsed}", doing)
    }

    fn new(total: Option<u64>, template: &str, doing: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden()).with_message(doing);
        bar.set_style(ProgressStyle::with_template(template).expect("a template"));
        Self { bar, appears: Some(Instant::now() + BLINK) }
    }

    /// None, if the terminal is needed for something else.
    pub(crate) fn unless(mut self, is_needed: bool) -> Self {
        self.appears = self.appears.filter(|_| !is_needed);
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

    /// Complains above the bar.
    pub(crate) fn complain(&self, what: impl Display) {
        self.bar.suspend(|| complain(what));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
