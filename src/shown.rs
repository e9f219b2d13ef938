//! Makes texts that visitors, programs or file systems have chosen safe to print as one line of a message. Characters
//! that would end the line, control a terminal or change the direction of the text are escaped. All others are printed,
//! in any script. Also prints an error with its causes as one line.
use std::error::Error as StdError;
use std::fmt::{self, Display, Write};
use std::iter::successors;

/// The text with escapes, as described in the module documentation.
pub(crate) fn shown<T: Display>(text: T) -> impl Display {
    Shown(text)
}

/// The error, its cause, the cause of that, and so on.
pub(crate) fn causes<'e>(
    error: &'e (dyn StdError + 'static),
) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    successors(Some(error), |&error| error.source())
}

/// The texts of an error and of its causes, joined by `: `, in one line.
pub(crate) fn with_causes(error: &(dyn StdError + 'static)) -> String {
    let texts: Vec<_> = causes(error).map(ToString::to_string).collect();
    shown(texts.join(": ")).to_string()
}

struct Shown<T>(T);

impl<T: Display> Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| {
            if is_unseen(c) { write!(self.0, "{}", c.escape_default()) } else { self.0.write_char(c) }
        })
    }
}

/// Whether a character is escaped: control characters (Unicode's Cc), separators of lines and paragraphs, and
/// characters that set the direction of text, which can make one line look like another.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};
    use std::io;

    #[test]
    fn an_error_and_its_causes_are_one_line() {
        let cause =
            io::Error::other(Error::new(ErrorKind::Storage, "reach\nit").with_source("gone\u{1b}[2J"));
        let error = Error::new(ErrorKind::Full, "save session").with_source(cause);
        let line = r"failed to save session: failed to reach\nit: gone\u{1b}[2J";
        assert_eq!(with_causes(&error), line);
        assert_eq!(with_causes(&io::Error::other("a")), "a");
    }

    #[test]
    fn only_characters_that_end_or_turn_a_line_are_escaped() {
        for text in ["", "plain", r"back\slash 'quote' \u{1b}", "naïve e\u{301}", "日本 🦀"] {
            assert_eq!(shown(text).to_string(), text);
        }
        for c in ('\0'..=char::MAX).filter(|c| is_unseen(*c)) {
            let escaped = shown(format_args!("a{c}b")).to_string();
            assert!(escaped.starts_with("a\\") && escaped.ends_with('b') && escaped.is_ascii(), "{escaped}");
        }
        assert_eq!(
            shown("a\n\u{1b}[2J\u{9b}\u{2028}\u{202e}b").to_string(),
            r"a\n\u{1b}[2J\u{9b}\u{2028}\u{202e}b"
        );
    }
}
