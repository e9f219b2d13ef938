//! Tests whether a decimal number has more digits than a 64-bit float can represent. The command `sessile` compiles
//! this file, too.

/// The largest number of digits of a float that is written out exactly.
const FLOAT_DIGITS_MAX: usize = 767;

/// Whether a number in JSON text equals a written form of the float: with the fewest digits that distinguish it from
/// other floats, or rounded to as many digits as the text has. The sign is not compared.
///
/// Both forms are needed, because formatters differ if two shortest forms are equally near: `-689117708464244.2` and
/// `….3` are one float.
pub(super) fn is_of(text: &str, float: f64) -> bool {
    let written = digits(text);
    let count = written.0.len();
    if count == 0 || count > FLOAT_DIGITS_MAX {
        return count == 0 && float == 0.0;
    }
    [format!("{float:e}"), format!("{float:.*e}", count - 1)].iter().any(|form| digits(form) == written)
}

/// The digits of a number, without leading and trailing zeros, and the power of ten by which `0.digits` is multiplied.
fn digits(number: &str) -> (String, i64) {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let mantissa = mantissa.trim_start_matches('-');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return (String::new(), 0);
    }
    let zeros = all.len() - significant.len();
    let point = i64::try_from(whole.len()).unwrap_or(i64::MAX) - i64::try_from(zeros).unwrap_or(i64::MAX);
    let exponent = exponent.parse::<i64>().unwrap_or(i64::MIN);
    (significant.trim_end_matches('0').into(), point.saturating_add(exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_is_told_from_its_neighbours_and_from_longer_numbers() {
        let all = "0.1000000000000000055511151231257827021181583404541015625";
        for text in ["0.1", "1e-1", "0.10", "0.10000000000000001", "0.10000000000000000555", all] {
            assert!(is_of(text, 0.1), "{text}");
        }
        for text in
            ["0.10000000000000002", "0.1000000000000000000001", "0.01", "1.0", "0.0", &format!("{all}1")]
        {
            assert!(!is_of(text, 0.1), "{text}");
        }
        for text in ["-689117708464244.2", "-689117708464244.3", "-689117708464244.25"] {
            assert!(is_of(text, -2_756_470_833_856_977.0 / 4.0), "{text}");
        }
        assert!(is_of("0.000e99999999999999999999", 0.0) && !is_of("1e-400", 0.0));
        let digits = if cfg!(miri) { 1_000 } else { 100_000 };
        assert!(!is_of(&format!("0.{}", "1".repeat(digits)), 1.0 / 9.0));
    }
}
