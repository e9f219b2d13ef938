//! Reads JSON without loss, or refuses it. `serde_json` alone keeps the last of two members with the same name, and
//! turns an integer of more than 64 bits into a float.
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};
use std::fmt;

/// The library's test whether a float represents a number exactly.
#[path = "../../value/decimal.rs"]
mod decimal;

/// Reads an object in which no two members have the same name, at any depth.
pub(crate) fn object<'de, D: Deserializer<'de>>(from: D) -> Result<Map<String, Json>, D::Error> {
    struct Object;
    impl<'de> Visitor<'de> for Object {
        type Value = Map<String, Json>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
            distinct(members)
        }
    }
    from.deserialize_map(Object)
}

fn distinct<'de, A: MapAccess<'de>>(mut members: A) -> Result<Map<String, Json>, A::Error> {
    let mut object = Map::new();
    while let Some(name) = members.next_key::<String>()? {
        let Distinct(value) = members.next_value()?;
        // The error does not contain the name, which may be a secret.
        if object.insert(name, value).is_some() {
            return Err(A::Error::custom("an object has the same name twice"));
        }
    }
    Ok(object)
}

/// JSON in which no object has two members with the same name.
struct Distinct(Json);

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyJson).map(Distinct)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Json;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(value.into())
    }
    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(value.into())
    }
    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(Distinct(element)) = elements.next_element()? {
            array.push(element);
        }
        Ok(Json::Array(array))
    }
    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Json, A::Error> {
        distinct(members).map(Json::Object)
    }
}

/// The position in JSON text, in bytes, of a number that neither 64 bits nor a float hold as it is written. A float
/// holds a number if the number is the float rounded to some digits: the fewest that distinguish it from other floats,
/// or more.
pub(crate) fn lossy_number(json: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < json.len() {
        let length = match json[at] {
            b'"' => string_length(&json[at..]),
            b'-' | b'0'..=b'9' => {
                let is_of_number = |c: &u8| matches!(c, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                let number = &json[at..][..json[at..].iter().take_while(|c| is_of_number(c)).count()];
                if str::from_utf8(number).is_ok_and(|number| !is_kept(number)) {
                    return Some(at);
                }
                number.len()
            }
            _ => 1,
        };
        at += length;
    }
    None
}

/// The length of a string in bytes, with both quotes.
fn string_length(json: &[u8]) -> usize {
    let mut is_escaped = false;
    let ends = |c: &u8| {
        let ends = *c == b'"' && !is_escaped;
        is_escaped = *c == b'\\' && !is_escaped;
        ends
    };
    json[1..].iter().position(ends).map_or(json.len(), |end| end + 2)
}

fn is_kept(number: &str) -> bool {
    if !number.contains(['.', 'e', 'E']) {
        return number == "-0" || number.parse::<u64>().is_ok() || number.parse::<i64>().is_ok();
    }
    // A number that cannot be parsed, or is out of range, is left to the parser, which refuses it.
    !number.parse::<f64>().is_ok_and(|float| float.is_finite() && !decimal::is_of(number, float))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_refused_exactly_if_it_would_change() {
        let kept = [
            "0",
            "-0",
            "18446744073709551615",
            "-9223372036854775808",
            "0.1",
            "1.0",
            "-0.0",
            "0e99999999999999999999",
            "1E2",
            "100e-2",
            "1.50",
            "0.30000000000000004",
            "0.10000000000000001",
            "1e308",
            "5e-324",
            "9007199254740992.0",
            // A number that lies between two floats with equally short forms.
            "-689117708464244.2",
            "-689117708464244.3",
            // All digits of a float.
            "0.1000000000000000055511151231257827021181583404541015625",
        ];
        for number in kept {
            assert_eq!(lossy_number(number.as_bytes()), None, "{number}");
        }
        let changed = [
            "18446744073709551616",
            "-9223372036854775809",
            "123456789012345678901234567890",
            "12345678901234.567891",
            "0.1000000000000000000001",
            "9007199254740993.0",
            "1e-400",
            "1e-99999999999999999999",
        ];
        for number in changed {
            assert_eq!(lossy_number(number.as_bytes()), Some(0), "{number}");
        }
        let within = r#"{"18446744073709551616": ["\"18446744073709551616\\", 18446744073709551616]}"#;
        assert_eq!(lossy_number(within.as_bytes()), within.rfind("184"));
        assert_eq!(lossy_number(br#"["18446744073709551616"#), None, "a string without an end");
    }

    #[test]
    fn floats_are_kept_in_both_forms_in_which_they_are_written() {
        for bits in (0..10_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let float = f64::from_bits(bits);
            if float.is_finite() {
                for number in [serde_json::to_string(&float).expect("a number"), format!("{float:.16e}")] {
                    assert_eq!(lossy_number(number.as_bytes()), None, "{number}");
                }
            }
        }
    }
}
