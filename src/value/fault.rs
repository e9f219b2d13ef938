//! The reason for refusing a value: the path to the refused part, and the missing or expected part. Never the data.
//!
//! `serde`'s own messages quote values (``invalid type: string "secret", expected u32``), and the data of a session
//! does not belong in a log. So only the kind of the data is kept, and the messages of a type's own `Serialize` or
//! `Deserialize` are left out. The path names fields, variants and positions; a key of a map is data, and is shown as
//! `*`.
use serde::de::{self, Expected, Unexpected};
use serde::ser;
use std::borrow::Cow;
use std::fmt;

/// The reason for refusing a value. It is one pointer, so that the results at every level of a value stay small.
#[derive(Debug)]
pub(super) struct Fault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    why: Why,
    /// The path to the refused part, from the inside outwards. Each level that passes the fault up adds a segment.
    path: Vec<Segment>,
}

#[derive(Debug)]
enum Why {
    /// The data have another kind than the type expects.
    Other {
        found: &'static str,
        expected: String,
    },
    Said(Cow<'static, str>),
}

/// One step of the path to a part of a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Segment {
    /// A field of a struct or a variant of an enum, as the program's types name it.
    Named(&'static str),
    /// An item of an array, counted from 0.
    Index(usize),
    /// A value of a map. Its key is data, so it is not shown.
    Key,
}

impl Fault {
    #[cold]
    pub(super) fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::because(Why::Said(reason.into()))
    }

    fn because(why: Why) -> Self {
        Self(Box::new(Inner { why, path: Vec::new() }))
    }

    /// Adds a segment to the path.
    #[cold]
    pub(super) fn within(mut self, segment: Segment) -> Self {
        self.0.path.push(segment);
        self
    }

    /// Whether the value as a whole has the wrong kind, `kind`.
    pub(super) fn is_of_the_whole(&self, kind: &str) -> bool {
        self.0.path.is_empty() && matches!(self.0.why, Why::Other { found, .. } if found == kind)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { why, path } = &*self.0;
        if !path.is_empty() {
            f.write_str("at `")?;
            for (n, segment) in path.iter().rev().enumerate() {
                let dot = if n == 0 { "" } else { "." };
                match segment {
                    Segment::Named(name) => write!(f, "{dot}{name}")?,
                    Segment::Index(index) => write!(f, "[{index}]")?,
                    Segment::Key => write!(f, "{dot}*")?,
                }
            }
            f.write_str("`: ")?;
        }
        match why {
            Why::Other { found, expected } => write!(f, "expected {expected}, found {found}"),
            Why::Said(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Fault {}

impl ser::Error for Fault {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::new("its `Serialize` refuses it")
    }
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::new("the type's `Deserialize` refuses what is there")
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::because(Why::Other { found: kind_of(found), expected: expected.to_string() })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}, found {length} in all"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("an unknown variant, expected {}", OneOf(expected)))
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("an unknown field, expected {}", OneOf(expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("missing field `{field}`"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("field `{field}` is there twice"))
    }
}

/// The name of the data's kind in an error, with its article.
pub(super) fn kind_of(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a float",
        Unexpected::Char(_) | Unexpected::Str(_) => "a string",
        Unexpected::Bytes(_) => "bytes",
        Unexpected::Seq => "an array",
        Unexpected::Map => "an object",
        Unexpected::Enum
        | Unexpected::UnitVariant
        | Unexpected::NewtypeVariant
        | Unexpected::TupleVariant
        | Unexpected::StructVariant => "a variant of another shape",
        // The text of `Other` may quote the data, so it is not shown.
        Unexpected::NewtypeStruct | Unexpected::Other(_) => "something else",
    }
}

/// The names of the fields or variants that a type has.
struct OneOf(&'static [&'static str]);

impl fmt::Display for OneOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("none"),
            [only] => write!(f, "`{only}`"),
            [first, rest @ ..] => {
                write!(f, "one of `{first}`")?;
                rest.iter().try_for_each(|name| write!(f, ", `{name}`"))
            }
        }
    }
}
