//! The keys of maps. A key is a string, or a value that is written as a string. An integer has only one spelling. This
//! module reads and writes keys.
use super::buffer::Buffer;
use super::depth::Depth;
use super::fault::Fault;
use super::number;
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, Error as _, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde::ser::{self, Impossible, Serialize};
use std::fmt;

/// A key of an object, or the name of a variant, that is being read.
pub(super) struct Key<'de> {
    pub(super) name: &'de str,
    pub(super) depth: Depth,
}

/// Whether the spelling of a key may be that of an integer. In JSON, "-0" is a float.
fn is_integer<T>(name: &str, _: &T) -> bool {
    name != "-0"
}

/// Whether a float is finite. A key beyond the range of floats would be read as infinity, which JSON does not have.
fn is_finite<T: Copy + Into<f64>>(_: &str, number: &T) -> bool {
    (*number).into().is_finite()
}

/// The methods that read a key as a number.
macro_rules! numbers {
    ($is_valid:ident: $($name:ident: $ty:ty => $visit:ident),* $(,)?) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.name.parse::<$ty>() {
                // Other spellings of an integer are refused. Otherwise two members of an object could become one entry
                // of a map.
                Ok(number) if number::is_json(self.name) && $is_valid(self.name, &number) => visitor.$visit(number),
                _ => Err(Fault::invalid_type(Unexpected::Str(""), &visitor)),
            }
        })*
    };
}

impl<'de> de::Deserializer<'de> for Key<'de> {
    type Error = Fault;

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.name)
    }

    numbers! {
        is_integer:
        deserialize_i8: i8 => visit_i8, deserialize_i16: i16 => visit_i16, deserialize_i32: i32 => visit_i32,
        deserialize_i64: i64 => visit_i64, deserialize_i128: i128 => visit_i128,
        deserialize_u8: u8 => visit_u8, deserialize_u16: u16 => visit_u16, deserialize_u32: u32 => visit_u32,
        deserialize_u64: u64 => visit_u64, deserialize_u128: u128 => visit_u128,
    }

    numbers! {
        is_finite:
        deserialize_f32: f32 => visit_f32, deserialize_f64: f64 => visit_f64,
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.name {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => Err(Fault::invalid_type(Unexpected::Str(""), &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let depth = self.depth.enter_wrapper()?;
        visitor.visit_some(Self { depth, ..self })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let depth = self.depth.enter_wrapper()?;
        visitor.visit_newtype_struct(Self { depth, ..self })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        BorrowedStrDeserializer::new(self.name).deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// Writes a key as a text, after its length.
pub(super) struct KeySerializer<'w> {
    pub(super) buffer: &'w mut Buffer,
    pub(super) depth: Depth,
}

fn no_string<T>() -> Result<T, Fault> {
    Err(Fault::new("a key of a map that is no string"))
}

/// Keys that are written by their `Display`.
macro_rules! spelled {
    ($($name:ident($ty:ty)),* $(,)?) => {
        $(fn $name(self, key: $ty) -> Result<(), Fault> { self.buffer.displayed(&key) })*
    };
}

/// Floats are written as `serde_json` writes them, which differs slightly from Rust.
macro_rules! floats {
    ($($name:ident($ty:ty)),* $(,)?) => {
        $(fn $name(self, key: $ty) -> Result<(), Fault> {
            match serde_json::to_string(&key) {
                Ok(text) if key.is_finite() => self.serialize_str(&text),
                _ => no_string(),
            }
        })*
    };
}

impl ser::Serializer for KeySerializer<'_> {
    type Ok = ();
    type Error = Fault;
    type SerializeSeq = Impossible<(), Fault>;
    type SerializeTuple = Impossible<(), Fault>;
    type SerializeTupleStruct = Impossible<(), Fault>;
    type SerializeTupleVariant = Impossible<(), Fault>;
    type SerializeMap = Impossible<(), Fault>;
    type SerializeStruct = Impossible<(), Fault>;
    type SerializeStructVariant = Impossible<(), Fault>;

    spelled! {
        serialize_bool(bool), serialize_char(char),
        serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64), serialize_i128(i128),
        serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64), serialize_u128(u128),
    }
    floats! { serialize_f32(f32), serialize_f64(f64) }
    #[inline]
    fn serialize_str(self, key: &str) -> Result<(), Fault> {
        self.buffer.text(key);
        Ok(())
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Fault> {
        self.serialize_str(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, key: &T) -> Result<(), Fault> {
        key.serialize(Self { depth: self.depth.enter_wrapper()?, ..self })
    }
    fn collect_str<T: fmt::Display + ?Sized>(self, text: &T) -> Result<(), Fault> {
        self.buffer.displayed(text)
    }
    fn serialize_bytes(self, _: &[u8]) -> Result<(), Fault> {
        no_string()
    }
    fn serialize_unit(self) -> Result<(), Fault> {
        no_string()
    }
    fn serialize_none(self) -> Result<(), Fault> {
        no_string()
    }
    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), Fault> {
        no_string()
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Fault> {
        no_string()
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Fault> {
        no_string()
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Fault> {
        no_string()
    }
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Fault> {
        no_string()
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Fault> {
        no_string()
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Fault> {
        no_string()
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Fault> {
        no_string()
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, Fault> {
        no_string()
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Fault> {
        no_string()
    }
}
