//! Text that a visitor, a program or a directory chose, as one line of a message: what would end the line, drive a terminal
//! or turn the direction of the text is escaped. All else is shown as it is, whatever its script.
use std::fmt::{self, Display, Write};

/// Shows `text` so in a message.
pub(crate) fn shown<T: Display>(text: T) -> impl Display {
    Shown(text)
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

/// Controls (Unicode's Cc), separators of lines and paragraphs, and what sets the direction of text, so that one line looks
/// like another.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_line_or_turns_it_is_escaped_and_nothing_else() {
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
