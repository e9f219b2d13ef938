//! A second implementation of the codec for values, from other code: `postcard` writes the bytes of a tree of JSON, and
//! `serde_json` converts types to trees and back. Tests compare the codec with it for whatever a program stores and
//! reads. They also show that a damaged value is an error for every type.
use super::*;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serializer};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::marker::PhantomData;

/// A tree of JSON that is written as an enum: the number of the variant is the tag.
struct Tagged<'a>(&'a Json);

impl Serialize for Tagged<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0 {
            Json::Null => s.serialize_unit_variant("", 0, ""),
            Json::Bool(yes) => s.serialize_newtype_variant("", 1, "", yes),
            Json::Number(n) => match (n.as_u64(), n.as_i64()) {
                (Some(n), _) => s.serialize_newtype_variant("", 2, "", &n),
                (_, Some(n)) => s.serialize_newtype_variant("", 3, "", &n),
                _ => s.serialize_newtype_variant("", 4, "", &n.as_f64().unwrap()),
            },
            Json::String(text) => s.serialize_newtype_variant("", 5, "", text),
            Json::Array(items) => {
                let items: Vec<_> = items.iter().map(Tagged).collect();
                s.serialize_newtype_variant("", 6, "", &items)
            }
            Json::Object(members) => {
                let members: BTreeMap<_, _> =
                    members.iter().map(|(key, value)| (key, Tagged(value))).collect();
                s.serialize_newtype_variant("", 7, "", &members)
            }
        }
    }
}

fn reference(json: &Json) -> Vec<u8> {
    postcard::to_stdvec(&Tagged(json)).unwrap()
}

fn value(bytes: &[u8]) -> Value {
    Value(bytes.into())
}

/// A type with every shape that `serde` distinguishes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
enum Shape {
    Unit,
    Nothing(()),
    Bool(bool),
    Numbers(i8, u64, i128, f32, f64),
    Texts { letter: char, text: String, maybe: Option<String> },
    List(Vec<Shape>),
    ByName(BTreeMap<String, Shape>),
    ByNumber(BTreeMap<i16, Shape>),
    ByFlag(BTreeMap<bool, Wrapped>),
    Struct(Box<Struct>),
    Tagged(Tagging),
    Untagged(Either),
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Wrapped(Box<Option<Shape>>);

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Struct {
    z: u8,
    inner: Shape,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    b: Option<u32>,
    a_rather_long_name: [u8; 2],
    a_rather_long_namesake: u8,
    #[serde(flatten)]
    rest: BTreeMap<String, u8>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind")]
enum Tagging {
    A,
    B { c: i64 },
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged)]
enum Either {
    Number(f64),
    Text(String),
    Both(u8, String),
}

fn finite() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("JSON has no others", |float| float.is_finite())
}

fn shapes() -> impl Strategy<Value = Shape> {
    let leaves = prop_oneof![
        Just(Shape::Unit),
        Just(Shape::Nothing(())),
        any::<bool>().prop_map(Shape::Bool),
        (any::<i8>(), any::<u64>(), any::<i64>(), -1e9..1e9_f32, finite())
            .prop_map(|(a, b, c, d, e)| Shape::Numbers(a, b, c.into(), d, e)),
        (any::<char>(), ".{0,40}", proptest::option::of("[a-z]{0,3}"))
            .prop_map(|(letter, text, maybe)| Shape::Texts { letter, text, maybe }),
        any::<i64>().prop_map(|c| Shape::Tagged(Tagging::B { c })),
        Just(Shape::Tagged(Tagging::A)),
        finite().prop_map(|float| Shape::Untagged(Either::Number(float))),
        ".*".prop_map(|text| Shape::Untagged(Either::Text(text))),
        (any::<u8>(), "x*").prop_map(|(number, text)| Shape::Untagged(Either::Both(number, text))),
    ];
    leaves.prop_recursive(5, 40, 5, |inner| {
        let fields =
            (any::<u8>(), inner.clone(), any::<Option<u32>>(), btree_map("[a-d]x", any::<u8>(), 0..3));
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Shape::List),
            btree_map(".{0,12}", inner.clone(), 0..5).prop_map(Shape::ByName),
            btree_map(any::<i16>(), inner.clone(), 0..5).prop_map(Shape::ByNumber),
            btree_map(any::<bool>(), inner.clone().prop_map(|shape| Wrapped(Box::new(Some(shape)))), 0..3)
                .prop_map(Shape::ByFlag),
            fields.prop_map(|(z, inner, b, rest)| {
                let fields =
                    Struct { z, inner, b, a_rather_long_name: [z, 1], a_rather_long_namesake: z, rest };
                Shape::Struct(Box::new(fields))
            }),
        ]
    })
}

/// Trees of JSON, some of which can be read as the types of [`check_types`].
fn trees() -> impl Strategy<Value = Json> {
    let leaves = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (0..4_u64).prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        finite().prop_map(Json::from),
        "[A-C]?".prop_map(Json::from),
        ".{0,40}".prop_map(Json::from),
    ];
    leaves.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Json::from),
            btree_map("[a-cA-C]|kind|.{0,12}", inner, 0..5)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "it is read to be printed")]
enum Variants {
    A,
    B(u8),
    C(bool, Box<Variants>),
    D { a: Option<Box<Variants>>, b: String },
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "it is read to be printed")]
#[serde(deny_unknown_fields)]
struct Fields {
    a: u8,
    b: Option<f32>,
    #[serde(default)]
    c: Vec<Variants>,
}

/// A type that ignores the errors of its part.
#[derive(Debug)]
struct Lenient<T>(Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Ok(Self(T::deserialize(deserializer).ok()))
    }
}

/// A type that reads nothing.
#[derive(Debug)]
struct Idle;

impl<'de> Deserialize<'de> for Idle {
    fn deserialize<D: Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        Ok(Self)
    }
}

/// A type that reads two items of an array; of an object, two keys and the second one's value.
#[derive(Debug)]
#[expect(dead_code, reason = "it is read to be printed")]
struct Two<T>(Vec<Option<T>>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Two<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Some<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Some<T> {
            type Value = Two<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two of them")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Two<T>, A::Error> {
                Ok(Two((0..2).map(|_| seq.next_element().ok().flatten()).collect()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Two<T>, A::Error> {
                let _ = map.next_key::<bool>();
                map.next_key::<String>()?;
                Ok(Two(vec![map.next_value().ok()]))
            }
        }
        deserializer.deserialize_any(Some(PhantomData))
    }
}

/// Calls a macro with types that read as much of a value as they can.
macro_rules! for_types {
    ($check:ident, $argument:expr) => {
        $check!($argument; u8, i128, f64, String, char, Json, IgnoredAny, Option<Option<bool>>, Vec<u8>, (u8, String), [Json; 2],
            BTreeMap<String, i32>, BTreeMap<char, Json>, Variants, Fields, Either, Vec<Either>, Vec<Variants>,
            Lenient<u8>, Vec<Lenient<u8>>, Vec<Lenient<Variants>>, Vec<Lenient<Vec<String>>>, BTreeMap<String, Lenient<Fields>>,
            Idle, Vec<Idle>, BTreeMap<String, Option<Idle>>, (Idle, Lenient<Variants>), Two<u8>, Two<Idle>, Vec<Two<Variants>>,
            Vec<Lenient<Two<String>>>, BTreeMap<String, Lenient<Two<Json>>>)
    };
}

macro_rules! reads_alike {
    ($json:expr; $($ty:ty),*) => {$(
        let wanted = serde_json::from_value::<$ty>($json.clone()).ok();
        let got = value(&reference($json)).get::<$ty>().ok();
        prop_assert_eq!(format!("{got:?}"), format!("{wanted:?}"), "{} of {}", stringify!($ty), $json);
    )*};
}

macro_rules! is_damaged {
    ($value:expr; $($ty:ty),*) => {
        let is_damaged = $value.to_json().is_err();
        $({
            let read = $value.get::<$ty>();
            let is = read.is_err_and(|error| error.kind() == ErrorKind::Corrupt);
            prop_assert_eq!(is, is_damaged, "{} of {:?}", stringify!($ty), $value.as_bytes());
        })*
    };
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..<_>::default() })]

    #[test]
    fn any_json_has_the_bytes_that_postcard_writes(json in trees()) {
        let stored = Value::new(&json).unwrap();
        prop_assert_eq!(stored.as_bytes(), reference(&json));
        prop_assert_eq!(stored.to_json().unwrap(), json);
    }

    #[test]
    fn any_type_is_stored_and_read_as_by_serde_json(shape in shapes()) {
        let json = serde_json::to_value(&shape).unwrap();
        let stored = Value::new(&shape).unwrap();
        prop_assert_eq!(stored.as_bytes(), reference(&json));
        prop_assert_eq!(stored.get::<Shape>().unwrap(), shape);
    }

    #[test]
    fn any_json_is_read_as_any_type_as_serde_json_does(json in trees()) {
        for_types!(reads_alike, &json);
    }

    #[test]
    fn damage_is_found_whatever_type_is_asked_for(json in trees(), at in any::<usize>(), change in 0..12_u8, byte in any::<u8>()) {
        let mut bytes = reference(&json);
        let at = at % bytes.len();
        match change {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, byte),
            2..8 => bytes[at] = change - 2,
            8 => bytes[at] ^= 0x80,
            _ => bytes[at] = byte,
        }
        let value = value(&bytes);
        for_types!(is_damaged, &value);
        if let Ok(json) = value.to_json() {
            // Each value has only one encoding.
            prop_assert_eq!(reference(&json), bytes);
        }
    }
}

/// A type that claims to have this many items or members, and has those of `T`.
struct Claims<T>(Option<usize>, T);

impl Serialize for Claims<u32> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(self.0)?;
        (0..self.1).try_for_each(|n| seq.serialize_element(&n))?;
        seq.end()
    }
}

impl Serialize for Claims<&[&str]> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(self.0)?;
        self.1.iter().enumerate().try_for_each(|(n, key)| map.serialize_entry(key, &n))?;
        map.end()
    }
}

#[test]
fn counts_and_the_order_of_keys_are_true_whatever_is_claimed() {
    #[track_caller]
    fn check(claiming: &impl Serialize, honest: &impl Serialize) {
        let wanted = reference(&serde_json::to_value(honest).unwrap());
        assert_eq!(Value::new(claiming).unwrap().as_bytes(), wanted);
    }
    let many = 20_000;
    let long: Vec<_> = (0..300).rev().map(|n| format!("{}{n}", "key".repeat(100))).collect();
    let long: Vec<_> = long.iter().map(String::as_str).collect();
    for claim in [None, Some(0), Some(1), Some(127), Some(128), Some(usize::MAX)] {
        for count in [0, 1, 127, 128, many] {
            check(&[Claims(claim, count), Claims(claim, 1)], &[Claims(None, count), Claims(None, 1)]);
        }
        for keys in [
            &["a", "b", "c"][..],
            &["c", "b", "a"],
            &["b", "a", "b", "a"],
            &["", "\0", "", "\0\0", "a\0", "a"],
            &["12345678", "123456789", "1234567", "123456780", "12345678"],
            &["é", "z", "ü", "e", "zz"],
            &long,
        ] {
            let honest = [Claims(None, keys), Claims(None, keys)];
            check(&[Claims(claim, keys), Claims(claim, keys)], &honest);
            check(&("before", Claims(claim, keys), "behind"), &("before", &honest[0], "behind"));
        }
    }
}

/// A type that ignores errors of its parts, and asks for the wrong things in between.
struct Careless;

impl Serialize for Careless {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let half = BTreeMap::from([("a", Some(vec![1.5])), ("b", Some(vec![2.5, f64::NAN]))]);
        let mut map = serializer.serialize_map(Some(7))?;
        map.serialize_entry("z", &1)?;
        assert!(map.serialize_entry("half", &half).is_err());
        assert!(map.serialize_entry(&(1, 2), &1).is_err());
        map.serialize_key("without a value")?;
        map.serialize_key("y")?;
        map.serialize_value(&("x", Claims(None, 3_u32)))?;
        assert!(map.serialize_value(&1).is_err());
        map.serialize_key("at the end")?;
        map.end()
    }
}

#[test]
fn a_part_that_was_refused_leaves_no_bytes_behind() {
    let stored = Value::new(&[Careless, Careless]).unwrap();
    let one = json!({"y": ["x", [0, 1, 2]], "z": 1});
    assert_eq!(stored.as_bytes(), reference(&json!([one, one])));
}
