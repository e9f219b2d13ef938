//! Any shape that `serde` knows: a value comes back as it was stored, or it is refused; and equal values have equal
//! bytes.
#![no_main]
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use serde::{Deserialize, Serialize};
use sessile::Value;
use std::collections::BTreeMap;

/// One variant for each kind of the data model.
#[derive(Arbitrary, Clone, Debug, Deserialize, PartialEq, Serialize)]
enum Shape {
    Unit,
    Bool(bool),
    Small(i8),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Single(f32),
    Letter(char),
    Text(String),
    Bytes(Vec<u8>),
    Pair(Box<(Shape, Shape)>),
    Maybe(Option<Box<Shape>>),
    List(Vec<Shape>),
    Map(BTreeMap<String, Shape>),
    Numbered(BTreeMap<i32, Shape>),
    Wrapped(Wrapped),
    Struct { number: u32, inner: Box<Shape>, nothing: () },
}

/// A newtype around a shape.
#[derive(Arbitrary, Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Wrapped(Box<Shape>);

impl Shape {
    /// JSON has no infinities, and a NaN is not equal to itself.
    fn is_finite(&self) -> bool {
        match self {
            Self::Float(float) => float.is_finite(),
            Self::Single(float) => float.is_finite(),
            Self::Pair(pair) => pair.0.is_finite() && pair.1.is_finite(),
            Self::Maybe(inner) => inner.as_ref().is_none_or(|inner| inner.is_finite()),
            Self::List(items) => items.iter().all(Self::is_finite),
            Self::Map(members) => members.values().all(Self::is_finite),
            Self::Numbered(members) => members.values().all(Self::is_finite),
            Self::Wrapped(Wrapped(inner)) => inner.is_finite(),
            Self::Struct { inner, .. } => inner.is_finite(),
            _ => true,
        }
    }

    /// Nesting depth of arrays and objects in its JSON.
    fn depth(&self) -> usize {
        match self {
            Self::Unit => 0,
            Self::Pair(pair) => 2 + pair.0.depth().max(pair.1.depth()),
            Self::Bytes(_) => 2,
            Self::Maybe(inner) => 1 + inner.as_ref().map_or(0, |inner| inner.depth()),
            Self::List(items) => 2 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Map(members) => 2 + members.values().map(Self::depth).max().unwrap_or(0),
            Self::Numbered(members) => 2 + members.values().map(Self::depth).max().unwrap_or(0),
            Self::Wrapped(Wrapped(inner)) => 1 + inner.depth(),
            Self::Struct { inner, .. } => 2 + inner.depth(),
            _ => 1,
        }
    }
}

fuzz_target!(|shape: Shape| {
    let stored = Value::new(&shape);
    assert_eq!(
        stored.is_ok(),
        shape.is_finite() && shape.depth() <= sessile::value::DEPTH_MAX,
        "{shape:?} of depth {}: {stored:?}",
        shape.depth()
    );
    let Ok(stored) = stored else { return };
    assert_eq!(stored.get::<Shape>().expect("its own shape"), shape);
    let again = Value::new(&stored.to_json().expect("it is a value")).expect("it was stored before");
    assert_eq!(again, stored, "the same value has the same bytes");
});
