//! A program in which other crates have switched on features of `serde_json`. `features.rs` builds and runs it.
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use sessile::{ErrorKind, Value};

/// Numbers that are stored exactly, because 64 bits are enough.
const KEPT: [&str; 10] = [
    "0", "-7", "18446744073709551615", "-9223372036854775808", "0.1", "-0.0", "1.5", "12345678901234.568",
    "5e-324", "0.30000000000000004",
];
/// Numbers that 64 bits cannot represent, which are refused.
const REFUSED: [&str; 6] = [
    "12345678901234.56789", "0.1000000000000000055511151231257828", "18446744073709551616",
    "-9223372036854775809", "1e400", "1e-400",
];

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Order {
    price: Json,
    note: Option<String>,
    extra: Box<RawValueOf>,
}

#[derive(Serialize, Deserialize, Debug)]
struct RawValueOf(Box<RawValue>);

impl PartialEq for RawValueOf {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

fn main() {
    let json = |text: &str| serde_json::from_str::<Json>(text).unwrap();
    let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    let is_precise = json("12345678901234.56789").to_string() == "12345678901234.56789";

    for text in KEPT {
        for around in [text.to_owned(), format!("[{text}]"), format!("{{\"price\":{text}}}")] {
            for value in [Value::new(&json(&around)).unwrap(), Value::new(&raw(&around)).unwrap()] {
                assert_eq!(value.to_json().unwrap().to_string(), around);
                assert_eq!(value.get::<Json>().unwrap().to_string(), around);
                assert_eq!(value.get::<Box<RawValue>>().unwrap().get(), around);
            }
        }
    }
    for text in REFUSED {
        for around in [text.to_owned(), format!("[{text}]"), format!("{{\"price\":{text}}}")] {
            // Without the feature, `serde_json` rounds or refuses the number before this crate gets it.
            let parsed = is_precise.then(|| Value::new(&json(&around)));
            for refused in parsed.into_iter().chain([Value::new(&raw(&around))]) {
                assert_eq!(refused.unwrap_err().kind(), ErrorKind::Value, "{around}");
            }
        }
    }
    // A float that was printed by `serde_json`, or by Rust, is parsed to the same bits.
    for bits in (0..40_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
        // Floats with all kinds of bits, and floats that may lie exactly between two decimal numbers.
        for float in [f64::from_bits(bits), (bits >> 12) as f64 / 8.0, -((bits >> 14) as f64) / 16.0] {
            if float.is_finite() {
                let kept = |value: sessile::Result<Value>| value.unwrap().get::<f64>().unwrap() == float;
                assert!(kept(Value::new(&serde_json::json!(float))), "{float:e}");
                assert!(kept(Value::new(&raw(&format!("{float:e}")))), "{float:e}");
            }
        }
    }

    // Numbers that do not come from JSON are stored as before.
    assert_eq!(Value::new(&0.1_f64).unwrap().get::<f64>().unwrap(), 0.1);
    assert_eq!(Value::new(&0.1_f32).unwrap().get::<f32>().unwrap(), 0.1);
    assert_eq!(Value::new(&1.0_f64).unwrap().get::<f64>().unwrap(), 1.0);
    assert_eq!(Value::new(&u128::from(u64::MAX)).unwrap().get::<u128>().unwrap(), u128::from(u64::MAX));
    assert_eq!(Value::new(&u128::MAX).unwrap_err().kind(), ErrorKind::Value);
    assert_eq!(Value::new(&f64::NAN).unwrap_err().kind(), ErrorKind::Value);

    let order = Order { price: json("9.99"), note: None, extra: RawValueOf(raw(r#"{"a":[1,2.5,null]}"#)).into() };
    assert_eq!(Value::new(&order).unwrap().get::<Order>().unwrap(), order);
    // Two objects whose members were inserted in different orders are equal.
    let (one, other) = (json(r#"{"a":1,"b":2}"#), json(r#"{"b":2,"a":1}"#));
    assert_eq!(Value::new(&one).unwrap(), Value::new(&other).unwrap());
    println!("all is well");
}
