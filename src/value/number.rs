//! Numbers that arrive as text: kept if 64 bits hold them exactly as they are written, otherwise refused.
//!
//! `serde_json` passes numbers as text if any crate of the program switches on its feature `arbitrary_precision`, and
//! whole pieces of JSON with its feature `raw_value`. Both have the shape of a struct with one of the two names below.
use super::decimal;
use super::depth::{DEPTH_MAX, too_deep};
use super::fault::Fault;
use serde::Serialize;
use serde_json::Value as Json;

/// The name by which `serde_json` marks a number that it passes as text: of a struct, and of its only field.
pub(super) const NUMBER: &str = "$serde_json::private::Number";
/// The name by which `serde_json` marks a piece of JSON that it passes as text: of a struct, and of its only field.
pub(super) const RAW: &str = "$serde_json::private::RawValue";

/// A number that fits into 64 bits.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Held {
    Unsigned(u64),
    Negative(i64),
    Float(f64),
}

#[cold]
pub(super) fn beyond_64_bits() -> Fault {
    Fault::new("an integer beyond 64 bits")
}

/// Whether a text is a number in the spelling of JSON (RFC 8259, section 6).
pub(super) fn is_json(text: &str) -> bool {
    fn split_digits(text: &str) -> (&str, &str) {
        text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
    }
    let (integer, rest) = split_digits(text.strip_prefix('-').unwrap_or(text));
    let (fraction, rest) = rest.strip_prefix('.').map_or((None, rest), |rest| {
        let (digits, rest) = split_digits(rest);
        (Some(digits), rest)
    });
    let (exponent, rest) = rest.strip_prefix(['e', 'E']).map_or((None, rest), |rest| {
        let (digits, rest) = split_digits(rest.strip_prefix(['+', '-']).unwrap_or(rest));
        (Some(digits), rest)
    });
    let is_integer = integer == "0" || !(integer.is_empty() || integer.starts_with('0'));
    is_integer && fraction != Some("") && exponent != Some("") && rest.is_empty()
}

/// Parses a number that was written as `text`.
///
/// # Errors
///
/// The text is not JSON's spelling of a number, or 64 bits do not hold the number.
pub(super) fn parse(text: &str) -> Result<Held, Fault> {
    if !is_json(text) {
        return Err(Fault::new("a number that is not spelled as in JSON"));
    }
    if !text.contains(['.', 'e', 'E']) && text != "-0" {
        let integer = text.parse().map(Held::Unsigned).or_else(|_| text.parse().map(Held::Negative));
        return integer.map_err(|_| beyond_64_bits());
    }
    let float: Option<f64> = text.parse().ok();
    let held = float.filter(|float| float.is_finite() && decimal::is_of(text, *float));
    held.map(Held::Float).ok_or_else(|| Fault::new("a number of more digits than a 64-bit float holds"))
}

/// Parses JSON text. Its nesting and its numbers are checked first, because parsing uses the stack and rounds numbers.
///
/// # Errors
///
/// The text is no JSON, nests too deeply, or has a number that 64 bits do not hold.
pub(super) fn parse_raw(text: &str) -> Result<Json, Fault> {
    let (mut depth, mut rest) = (0_usize, text);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => string_length(rest),
            '-' | '0'..='9' => {
                let is_of_number = |c: char| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E');
                let length = rest.find(|c| !is_of_number(c)).unwrap_or(rest.len());
                parse(&rest[..length])?;
                length
            }
            _ => first.len_utf8(),
        };
        match first {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(too_deep());
        }
        rest = &rest[length..];
    }
    serde_json::from_str(text).map_err(|_| Fault::new("raw JSON that does not parse"))
}

/// The length of the string at the beginning of the text, including its quotes.
fn string_length(text: &str) -> usize {
    let mut escaped = true;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, kept: Option<&str>) {
        let held = parse(text).ok().map(|number| serde_json::to_string(&number).unwrap());
        assert_eq!(held.as_deref(), kept, "{text}");
    }

    #[test]
    fn a_number_in_text_is_kept_as_it_is_written_or_refused() {
        for text in ["0", "7", "-7", "18446744073709551615", "-9223372036854775808", "0.1", "-0.0", "1e+300"]
        {
            check(text, Some(text));
        }
        check("0.30000000000000004", Some("0.30000000000000004"));
        check("1e300", Some("1e+300"));
        check("5e-324", Some("5e-324"));
        check("-0", Some("-0.0"));
        check("1.50", Some("1.5"));
        check("0.0e9", Some("0.0"));
        check("15E-1", Some("1.5"));
        check("12E+2", Some("1200.0"));
        check("18446744073709551616.0", Some("1.8446744073709552e+19"));
        for text in [
            "12345678901234.56789",
            "0.1000000000000000000001",
            "18446744073709551616",
            "-9223372036854775809",
            "18446744073709551617.0",
            "1e400",
            "1e-400",
            "1e99999999999",
            "1.2.3",
            "",
            "-",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn raw_json_is_looked_at_before_it_is_parsed() {
        let check = |text: &str, is_kept: bool| assert_eq!(parse_raw(text).is_ok(), is_kept, "{text}");
        check(r#"{"a": [1, 2.5, "1e400 \" [[["], "b": null}"#, true);
        check("[12345678901234.56789]", false);
        check(r#"{"a": 1e400}"#, false);
        check("[1", false);
        check("\"", false);
        check(&("[".repeat(DEPTH_MAX) + &"]".repeat(DEPTH_MAX)), true);
        check(&("[".repeat(DEPTH_MAX + 1) + &"]".repeat(DEPTH_MAX + 1)), false);
        check(&"[".repeat(1_000_000), false);
    }
}
