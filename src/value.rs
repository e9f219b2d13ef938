//! One entry's value: any `serde` type as a JSON-like tree, kept in its compact form.
//!
//! ```text
//! tag (one byte)          then
//!  0 null                 nothing
//!  1 boolean              one byte, 0 or 1
//!  2 unsigned integer     varint
//!  3 negative integer     zigzag varint
//!  4 float                8 bytes, little-endian
//!  5 string               varint length, UTF-8
//!  6 array                varint count, values
//!  7 object               varint count, then key (string) and value, in the order of the keys
//! ```
//!
//! - Varints are those of postcard, which is not self-describing. The tags are needed because a stored value must be
//!   readable by a program that has since changed its types, and by one that knows none of them.
//! - Equal values have equal bytes, so comparing bytes shows whether a value was changed.
//! - A value is decoded when it is read, so a request that reads one entry pays for one.
//! - Nesting is bounded in both directions ([`DEPTH_MAX`], [`WRAPPERS_MAX`]) and counted before each descent, so that
//!   no value and no type overflows the stack: with types as `serde` derives them, 256 KiB of stack suffice in a debug
//!   build. No decoder here allocates for a count that the input only claims.
//!
//! # Changing your types
//!
//! Sessions outlive a deployment, so a new version of a program reads entries of an old version. An added field needs a
//! default (`#[serde(default)]`, or an `Option`), because otherwise every visitor with an old entry meets an error. A
//! renamed field keeps its old name as `#[serde(alias = "…")]`. A removed field needs nothing, unless the type says
//! `deny_unknown_fields`. If the old shape cannot be read as the new one, give the entry a new name, or read it as
//! [`serde_json::Value`] and translate it. While old and new processes serve side by side, the old ones must be able to
//! read the entries of the new ones. An entry that cannot be read as the requested type is an error of the kind
//! [`ErrorKind::Type`], which names the entry, the path inside it and the missing or expected part, never the value.
//! `remove` and `insert` do not read the old entry, so they always work.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use sessile::Value;
//!
//! #[derive(Serialize)]
//! struct OldItem {
//!     price: u64,
//! }
//!
//! #[derive(Deserialize)]
//! struct Item {
//!     #[serde(alias = "price")]
//!     cents: u64,
//!     #[serde(default)]
//!     currency: Option<String>,
//! }
//!
//! let stored = Value::new(&[OldItem { price: 990 }])?;
//! let items: Vec<Item> = stored.get()?;
//! assert_eq!((items[0].cents, &items[0].currency), (990, &None));
//!
//! #[derive(Debug, Deserialize)]
//! struct Strict {
//!     currency: String,
//! }
//! let error = stored.get::<Vec<Strict>>().unwrap_err();
//! assert_eq!(error.to_string(), "failed to read a value: at `[0]`: missing field `currency`");
//! # Ok::<(), sessile::Error>(())
//! ```
mod borrowed;
mod buffer;
mod decimal;
mod fault;
mod key;
mod number;
mod read;
// These tests compare safe code with other safe code many times, which takes too long under Miri.
mod depth;
#[cfg(test)]
#[cfg(not(miri))]
mod reference;
mod tree;
mod wire;
mod write;

pub use borrowed::ValueRef;
pub use depth::{DEPTH_MAX, WRAPPERS_MAX};

use crate::error::{Error, ErrorKind, Result};
use buffer::Buffer;
use fault::Fault;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::fmt;

/// One entry's value in its compact form, to be put into a record. A value that is read from a record is a
/// [`ValueRef`].
#[derive(Clone, PartialEq, Eq)]
pub struct Value(Box<[u8]>);

impl Value {
    /// Stores any value that serialises to JSON.
    ///
    /// JSON has one null: `None`, `()` and `Some(None)` are stored alike, and `Some(None)` reads back as `None`. If a
    /// program must tell them apart, it needs an enum. A float is stored to its last bit. A number that comes as text
    /// (a [`serde_json::Number`] in a program that switches on `serde_json`'s feature `arbitrary_precision`) is stored
    /// if 64 bits hold it exactly as it is written, and otherwise refused: `12345678901234.56789` has more digits than
    /// a float.
    ///
    /// ```
    /// use sessile::Value;
    ///
    /// let value = Value::new(&Some(None::<u32>))?;
    /// assert_eq!(value.get::<Option<Option<u32>>>()?, None);
    /// # Ok::<(), sessile::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Value`] if the value does not serialise to JSON (a map whose keys are no strings, a number beyond
    /// 64 bits, a NaN, a `Serialize` that fails) or nests deeper than [`DEPTH_MAX`] or [`WRAPPERS_MAX`]. The error
    /// names the place in the value and the reason.
    pub fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        encode(value, |bytes| Self(bytes.into()))
    }

    /// Reads the value as a `T`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Type`] if the value is no `T`, or if `T` nests deeper than [`DEPTH_MAX`] or [`WRAPPERS_MAX`]; the
    /// error names the path inside the value and the missing or expected part. [`ErrorKind::Corrupt`] if the bytes are
    /// no value, which their record's checksum excludes.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T> {
        decode(&self.0)
    }

    /// The value as JSON.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if the bytes are no value, which their record's checksum excludes.
    pub fn to_json(&self) -> Result<Json> {
        ValueRef::from(self).to_json()
    }

    /// The bytes of the value's compact form.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Encodes a value as [`Value::new`] does, and passes its bytes to `take`.
#[inline]
pub(crate) fn encode<T: Serialize + ?Sized, R>(value: &T, take: impl FnOnce(&[u8]) -> R) -> Result<R> {
    let mut buffer = Buffer::new();
    match write::write(value, &mut buffer) {
        Ok(()) => Ok(take(buffer.as_bytes())),
        Err(fault) => Err(refused(&fault)),
    }
}

/// Decodes a value as [`Value::get`] does. It must take up all of the bytes.
#[inline]
pub(crate) fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T> {
    read::read(bytes).map_err(|fault| mismatch::<T>(bytes, &fault))
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_debug(&self.0, f)
    }
}

/// Prints the kind and the size of a value, without its data, which do not belong in a log.
fn write_debug(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let kind = wire::check(bytes).map_or("damaged", |()| kind_of(bytes));
    write!(f, "Value({kind}, {} bytes)", bytes.len())
}

/// The name of a value's kind in an error, with its article.
fn kind_of(bytes: &[u8]) -> &'static str {
    fault::kind_of(wire::unexpected(bytes.first().copied()))
}

#[cold]
fn refused(fault: &Fault) -> Error {
    Error::new(ErrorKind::Value, "store a value").with_reason(fault.to_string())
}

#[cold]
fn corrupt(fault: &Fault) -> Error {
    Error::new(ErrorKind::Corrupt, "decode a value").with_reason(fault.to_string())
}

/// The error for bytes that cannot be read as a `T`. If they are damaged anywhere, that is the error.
#[cold]
fn mismatch<T>(bytes: &[u8], fault: &Fault) -> Error {
    if let Err(damage) = wire::check(bytes) {
        return corrupt(&damage);
    }
    let kind = kind_of(bytes);
    Error::new(ErrorKind::Type, "read a value").with_reason(if fault.is_of_the_whole(kind) {
        format!("it holds {kind}, not a `{}`", std::any::type_name::<T>())
    } else {
        fault.to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serializer};
    use serde_json::json;
    use std::collections::{BTreeMap, HashMap};
    use std::hash::{Hash, Hasher};

    #[track_caller]
    fn check_round_trip(json: &Json) {
        let value = Value::new(json).unwrap();
        assert_eq!(value.to_json().unwrap(), *json);
        assert_eq!(Value::new(&value.to_json().unwrap()).unwrap(), value, "equal values, equal bytes");
    }

    #[test]
    fn every_kind_of_json_reads_back_as_it_was_stored() {
        for json in [
            json!(null),
            json!(true),
            json!(0),
            json!(u64::MAX),
            json!(-1),
            json!(i64::MIN),
            json!(1.0),
            json!(-0.0),
            json!(f64::MIN_POSITIVE),
            json!(""),
            json!("naïve 🦀"),
            json!([]),
            json!([1, [2.5, null], "x"]),
            json!({}),
            json!({"b": {"a": [true]}, "a": 1}),
        ] {
            check_round_trip(&json);
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_table() {
        assert_eq!(Value::new(&()).unwrap().as_bytes(), [0]);
        assert_eq!(Value::new(&300).unwrap().as_bytes(), [2, 0xac, 2]);
        assert_eq!(Value::new(&-2).unwrap().as_bytes(), [3, 3]);
        assert_eq!(Value::new("ab").unwrap().as_bytes(), [5, 2, b'a', b'b']);
        assert_eq!(
            Value::new(&json!({"b": [], "a": true})).unwrap().as_bytes(),
            [7, 2, 1, b'a', 1, 1, 1, b'b', 6, 0]
        );
    }

    #[test]
    fn a_value_of_another_type_names_both_types() {
        let error = Value::new("seven").unwrap().get::<u32>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Type);
        assert_eq!(error.to_string(), "failed to read a value: it holds a string, not a `u32`");
    }

    /// If an integer key had two spellings, two members of an object would become one entry of a map, and a value would
    /// be lost.
    #[test]
    fn a_key_is_an_integer_in_one_spelling_only() {
        fn reads<K: DeserializeOwned + Eq + Hash>(key: &str) -> bool {
            Value::new(&json!({ key: 1 })).unwrap().get::<HashMap<K, u8>>().is_ok()
        }
        #[derive(Deserialize)]
        #[serde(transparent)]
        struct Float(f64);
        impl PartialEq for Float {
            fn eq(&self, other: &Self) -> bool {
                self.0.to_bits() == other.0.to_bits()
            }
        }
        impl Eq for Float {}
        impl Hash for Float {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.to_bits().hash(state);
            }
        }
        for (key, is_integer, is_float) in [
            ("0", true, true),
            ("7", true, true),
            ("-7", true, true),
            ("-0", false, true),
            ("7.5", false, true),
            ("1e2", false, true),
            ("1e400", false, false),
            ("07", false, false),
            ("-07", false, false),
            ("+7", false, false),
            ("5.", false, false),
            (".5", false, false),
            ("1e", false, false),
            ("-", false, false),
            ("", false, false),
            ("inf", false, false),
            ("-inf", false, false),
            ("NaN", false, false),
        ] {
            assert_eq!((reads::<i64>(key), reads::<Float>(key)), (is_integer, is_float), "{key:?}");
        }
        let both = Value::new(&json!({"7": "a", "07": "b"})).unwrap();
        assert!(both.get::<BTreeMap<u8, String>>().is_err());
    }

    /// A type with every shape that `serde` distinguishes.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Shapes {
        unit: (),
        marker: Marker,
        numbers: (i8, u64, i128, u128, f32, f64),
        texts: (char, String, Option<String>, Option<char>),
        wrapped: Wrapped,
        pair: Pair,
        items: Vec<Shape>,
        by_number: BTreeMap<i32, u8>,
        by_flag: BTreeMap<bool, u8>,
        by_shape: BTreeMap<Plain, bool>,
        by_newtype: BTreeMap<Wrapped, [u8; 2]>,
        #[serde(flatten)]
        rest: BTreeMap<String, Json>,
    }
    #[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Marker;
    #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    struct Wrapped(u64);
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Pair(u8, bool);
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    enum Plain {
        One,
        Two,
    }
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Unit,
        Newtype(Option<u8>),
        Tuple(u8, Vec<Shape>),
        Struct { a: u8, b: Option<Plain> },
        Tagged(Tagging),
        Untagged(Either),
    }
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind", content = "of")]
    enum Tagging {
        A(u8),
        B { c: i64 },
    }
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(f64),
        Text(String),
    }

    #[test]
    fn a_type_is_stored_and_read_as_serde_json_does() {
        let full = Shapes {
            numbers: (-1, u64::MAX, i64::MIN.into(), u64::MAX.into(), 0.1, -0.0),
            texts: ('ß', "naïve".into(), Some(String::new()), None),
            wrapped: Wrapped(7),
            pair: Pair(1, true),
            items: vec![
                Shape::Unit,
                Shape::Newtype(None),
                Shape::Newtype(Some(1)),
                Shape::Tuple(2, vec![Shape::Unit]),
                Shape::Struct { a: 1, b: Some(Plain::Two) },
                Shape::Tagged(Tagging::A(1)),
                Shape::Tagged(Tagging::B { c: -1 }),
                Shape::Untagged(Either::Number(0.5)),
                Shape::Untagged(Either::Text("t".into())),
            ],
            by_number: BTreeMap::from([(-1, 1), (2, 2)]),
            by_flag: BTreeMap::from([(true, 1)]),
            by_shape: BTreeMap::from([(Plain::One, true)]),
            by_newtype: BTreeMap::from([(Wrapped(1), [1, 2])]),
            rest: BTreeMap::from([("other".into(), json!({"deep": [1, null, "x", {}]}))]),
            ..Shapes::default()
        };
        for shapes in [Shapes::default(), full] {
            let value = Value::new(&shapes).unwrap();
            assert_eq!(value.to_json().unwrap(), serde_json::to_value(&shapes).unwrap());
            assert_eq!(value.get::<Shapes>().unwrap(), shapes);
        }
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "it is read for the errors that come of it")]
    struct Cart {
        items: Vec<Item>,
        #[serde(default)]
        by_owner: BTreeMap<String, Item>,
        #[serde(default)]
        payment: Option<Payment>,
    }
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "it is read for the errors that come of it")]
    #[serde(deny_unknown_fields)]
    struct Item {
        price: Price,
        #[serde(default)]
        count: u8,
        #[serde(default)]
        size: [u8; 2],
    }
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "it is read for the errors that come of it")]
    struct Price {
        amount: u64,
        currency: String,
    }
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "it is read for the errors that come of it")]
    enum Payment {
        Cash,
        Card { digits: Vec<u8> },
        Address(std::net::IpAddr),
    }

    #[track_caller]
    fn check_refusal(json: &Json, reason: &str) {
        let error = Value::new(json).unwrap().get::<Cart>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Type);
        assert_eq!(error.to_string(), format!("failed to read a value: {reason}"));
        let shown = format!("{error:?} {:?}", std::error::Error::source(&error));
        assert!(!shown.contains("secret") && !shown.contains("4711"), "{shown}");
    }

    #[test]
    fn a_refusal_names_the_path_and_what_is_missing_never_the_value() {
        let price = json!({"amount": 1, "currency": "EUR"});
        check_refusal(&json!({}), "missing field `items`");
        check_refusal(&json!({"items": 4711}), "at `items`: expected a sequence, found an integer");
        check_refusal(&json!({"items": [{}]}), "at `items[0]`: missing field `price`");
        check_refusal(
            &json!({"items": [{"price": price}, {"price": {"amount": 1}}]}),
            "at `items[1].price`: missing field `currency`",
        );
        let in_price = |reason: &str| format!("at `items[0].price.{reason}`");
        for (amount, found) in [
            (json!("secret"), "a string"),
            (json!(-4711), "an integer"),
            (json!(4711.5), "a float"),
            (json!(null), "null"),
            (json!(true), "a boolean"),
            (json!(["secret"]), "an array"),
            (json!({"secret": 1}), "an object"),
        ] {
            let json = json!({"items": [{"price": {"amount": amount, "currency": "EUR"}}]});
            check_refusal(&json, &format!("{}: expected u64, found {found}", in_price("amount")));
        }
        let with = |name: &str, json: Json| json!({"items": [{"price": price, name: json}]});
        check_refusal(&with("count", json!(4711)), "at `items[0].count`: expected u8, found an integer");
        check_refusal(
            &with("size", json!([1, 2, 3])),
            "at `items[0].size`: expected fewer items, found 3 in all",
        );
        check_refusal(
            &with("secret", json!(1)),
            "at `items[0]`: an unknown field, expected one of `price`, `count`, `size`",
        );
        // The keys of a map come from the visitor, and not from the program, so they are not in the error.
        check_refusal(
            &json!({"items": [], "by_owner": {"secret": {"price": price, "count": -1}}}),
            "at `by_owner.*.count`: expected u8, found an integer",
        );
        let paid = |json: Json| json!({"items": [], "payment": json});
        check_refusal(
            &paid(json!("secret")),
            "at `payment`: an unknown variant, expected one of `Cash`, `Card`, `Address`",
        );
        check_refusal(
            &paid(json!({"Card": {"digits": [1, "secret"]}})),
            "at `payment.Card.digits[1]`: expected u8, found a string",
        );
        check_refusal(
            &paid(json!("Card")),
            "at `payment`: expected struct variant, found a variant of another shape",
        );
        check_refusal(
            &paid(json!({"Address": "secret"})),
            "at `payment.Address`: the type's `Deserialize` refuses what is there",
        );
        check_refusal(
            &json!("secret"),
            &format!("it holds a string, not a `{}`", std::any::type_name::<Cart>()),
        );
        check_refusal(
            &json!([[], {}, 4711]),
            "at `[2]`: expected a variant's name, or an object of one member, found an integer",
        );
    }

    fn nested(depth: usize) -> Json {
        (0..depth).fold(json!(1), |inner, _| json!([inner]))
    }

    #[test]
    fn nesting_is_bounded_on_the_way_in_and_on_the_way_out() {
        check_round_trip(&nested(DEPTH_MAX));
        assert_eq!(Value::new(&nested(DEPTH_MAX + 1)).unwrap_err().kind(), ErrorKind::Value);
        // A crafted value of 200,000 levels must not use up the stack.
        let bomb = Value([6, 1].repeat(200_000).into());
        assert_eq!(bomb.to_json().unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn bytes_that_are_no_value_are_corrupt_never_a_panic() {
        for bytes in [
            &[][..],
            &[8],
            &[1, 2],
            &[5, 9, b'a'],
            &[6, 0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0, 0],
            &[5, 1, 0xff],
            &[2, 0x80, 0],
            &[2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            &[3, 0],
            &[0x85, 0, 0],
            &[7, 2, 1, b'b', 0, 1, b'a', 0],
            &[7, 2, 1, b'a', 0, 1, b'a', 0],
        ] {
            let value = Value(bytes.into());
            assert_eq!(value.to_json().unwrap_err().kind(), ErrorKind::Corrupt, "{bytes:?}");
            assert_eq!(value.get::<u8>().unwrap_err().kind(), ErrorKind::Corrupt, "{bytes:?}");
        }
        let mut not_a_number = vec![4];
        not_a_number.extend(f64::NAN.to_le_bytes());
        assert_eq!(Value(not_a_number.into()).to_json().unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        let keys_are_tuples = HashMap::from([((1, 2), 3)]);
        assert_eq!(Value::new(&keys_are_tuples).unwrap_err().kind(), ErrorKind::Value);
        assert_eq!(Value::new(&u128::MAX).unwrap_err().kind(), ErrorKind::Value);
    }

    #[derive(Serialize)]
    struct Reading {
        at: Option<u32>,
        degrees: Vec<f64>,
    }

    #[test]
    fn a_float_that_is_no_number_is_refused_and_not_made_null() {
        for degrees in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for reading in [
                Reading { at: None, degrees: vec![degrees] },
                Reading { at: Some(1), degrees: vec![1.0, degrees] },
            ] {
                assert_eq!(Value::new(&reading).unwrap_err().kind(), ErrorKind::Value);
            }
            assert_eq!(Value::new(&degrees).unwrap_err().kind(), ErrorKind::Value);
            assert_eq!(
                Value::new(&HashMap::from([("x", Some((1, degrees)))])).unwrap_err().kind(),
                ErrorKind::Value
            );
        }
        assert!(Value::new(&f32::NAN).is_err());
        let nulls = Reading { at: None, degrees: vec![] };
        assert_eq!(Value::new(&nulls).unwrap().to_json().unwrap(), json!({"at": null, "degrees": []}));
    }

    #[test]
    fn floats_as_keys_are_spelled_as_serde_json_spells_them() {
        struct Map<K>(K);
        impl<K: Serialize> Serialize for Map<K> {
            fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_map([(&self.0, 1)])
            }
        }
        #[track_caller]
        fn check(map: &impl Serialize) {
            let wanted = serde_json::to_value(map).unwrap();
            assert_eq!(Value::new(map).unwrap().to_json().unwrap(), wanted);
        }
        for float in [1.0_f64, -0.0, 0.1, 1e-5, 1e16, 1e300, 5e-324, 1e21, 123_456_789_012_345_680.0] {
            check(&Map(float));
            #[expect(clippy::cast_possible_truncation, reason = "any shorter float is as good")]
            check(&Map(float.clamp(-1e30, 1e30) as f32));
        }
    }

    #[test]
    fn a_float_that_is_no_number_is_found_in_whatever_shape_it_comes() {
        #[derive(Serialize)]
        struct Wrapped(Option<f64>);
        #[derive(Serialize)]
        struct Pair(Option<u8>, f64);
        #[derive(Serialize)]
        enum Shape {
            Unit,
            Newtype(Option<f64>),
            Tuple(Option<u8>, f64),
            Struct { none: Option<u8>, float: f64 },
        }
        #[track_caller]
        fn check(store: impl Fn(f64) -> Result<Value>) {
            assert!(store(1.5).is_ok());
            assert_eq!(store(f64::NAN).unwrap_err().kind(), ErrorKind::Value);
        }
        check(|float| Value::new(&Wrapped(Some(float))));
        check(|float| Value::new(&Pair(None, float)));
        check(|float| Value::new(&[Shape::Unit, Shape::Newtype(Some(float))]));
        check(|float| Value::new(&Shape::Tuple(None, float)));
        check(|float| Value::new(&Shape::Struct { none: None, float }));
        check(|float| Value::new(&(None::<u8>, ((), 'c', "text", true, 1_u8, -1_i64, float))));
        let error = Value::new(&Shape::Struct { none: None, float: f64::NAN }).unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to store a value: at `Struct.float`: a float that is not a finite number"
        );
    }

    #[test]
    fn a_damaged_value_can_be_printed_and_an_object_is_called_one() {
        assert_eq!(format!("{:?}", Value([0xff].as_slice().into())), "Value(damaged, 1 bytes)");
        let object = Value::new(&json!({"n": 1})).unwrap();
        assert_eq!(format!("{object:?}"), "Value(an object, 6 bytes)");
        let error = object.get::<u32>().unwrap_err();
        assert!(error.to_string().contains("an object"), "{error}");
    }
}
