//! The names of the tables. The prefix is the program's, and is checked, because a name cannot be a parameter of a
//! statement.
use crate::error::{Error, ErrorKind, Result};

/// The prefix of all tables and indexes of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prefix(String);

/// The most characters of a prefix: the longest name, `…sessions_owner`, must fit the 63 bytes of `PostgreSQL`.
const LEN_MAX: usize = 40;

impl Prefix {
    /// # Errors
    ///
    /// [`ErrorKind::Config`] unless it is 1 to 40 of the characters `a` to `z`, `0` to `9` and `_`, begins with a letter,
    /// and is none that a database reserves for itself.
    pub(super) fn new(text: &str) -> Result<Self> {
        let begins = text.starts_with(|first: char| first.is_ascii_lowercase());
        let goes_on =
            text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        let is_reserved = ["sqlite_", "pg_"].iter().any(|reserved| text.starts_with(reserved));
        if begins && goes_on && !is_reserved && text.len() <= LEN_MAX {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::new(ErrorKind::Config, "open a store").with_reason(format!(
            "the prefix of the tables is `{text}`, and must be 1 to {LEN_MAX} characters of a-z, 0-9 and _, beginning \
             with a letter and not with `sqlite_` or `pg_`"
        )))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("sessile_".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_plain_word() {
        for text in ["sessile_", "a", "shop2_", &"x".repeat(40)] {
            assert_eq!(Prefix::new(text).unwrap().as_str(), text);
        }
        let long = "x".repeat(41);
        for text in [
            "",
            "_a",
            "2a",
            "Shop_",
            "a b",
            "a\"b",
            "a;DROP TABLE x--",
            "ä",
            "a.b",
            "sqlite_x",
            "pg_x",
            "a\0",
            &long,
        ] {
            let error = Prefix::new(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        }
    }
}
