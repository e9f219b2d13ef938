//! Any `Serialize` as JSON, refused where JSON cannot say it. As `serde_json::to_value`, with three differences:
//!
//! - Nesting is counted on the way down ([`Room`]): a value nested beyond the limits is an error, not the end of the stack.
//!   No serializer sees the recursion of a `Serialize` that calls another without one of these methods (an untagged enum
//!   around itself, a `Box` around a `Box`).
//! - A float that is not finite is refused; `serde_json` writes null.
//! - A number that reaches us as text is kept or refused ([`number`](super::number)).
use super::fault::{Fault, Segment};
use super::number;
use super::room::Room;
use serde::ser::{
    self, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant,
};
use serde_json::{Map, Number, Value as Json};
use std::fmt;

/// The value as JSON.
///
/// # Errors
///
/// JSON cannot say it, or it nests too deeply.
pub(super) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<Json, Fault> {
    value.serialize(Serializer(Room::ALL))
}

/// Items that a sequence claims to have: no more memory than a page is spent on a claim.
const CLAIM_MAX: usize = 128;

struct Serializer(Room);

impl Serializer {
    fn part<T: Serialize + ?Sized>(room: Room, value: &T, segment: Segment) -> Result<Json, Fault> {
        value.serialize(Self(room)).map_err(|fault| fault.within(segment))
    }

    fn wrapped<T: Serialize + ?Sized>(self, value: &T) -> Result<Json, Fault> {
        value.serialize(Self(self.0.in_wrapper()?))
    }

    fn float(float: f64) -> Result<Json, Fault> {
        Number::from_f64(float)
            .map(Json::Number)
            .ok_or_else(|| Fault::new("a float that is not a finite number"))
    }
}

/// Integers that JSON's numbers hold exactly.
macro_rules! integers {
    ($($name:ident($ty:ty)),* $(,)?) => {
        $(fn $name(self, integer: $ty) -> Result<Json, Fault> { Ok(Json::Number(integer.into())) })*
    };
}

impl ser::Serializer for Serializer {
    type Ok = Json;
    type Error = Fault;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Items;
    type SerializeTupleVariant = Items;
    type SerializeMap = Members;
    type SerializeStruct = Struct;
    type SerializeStructVariant = Members;

    integers! {
        serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64),
        serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64),
    }
    fn serialize_i128(self, integer: i128) -> Result<Json, Fault> {
        match i64::try_from(integer) {
            Ok(integer) => Ok(Json::Number(integer.into())),
            Err(_) => self.serialize_u128(u128::try_from(integer).unwrap_or(u128::MAX)),
        }
    }
    fn serialize_u128(self, integer: u128) -> Result<Json, Fault> {
        let integer = u64::try_from(integer).map_err(|_| Fault::new("an integer beyond 64 bits"))?;
        Ok(Json::Number(integer.into()))
    }
    fn serialize_bool(self, yes: bool) -> Result<Json, Fault> {
        Ok(Json::Bool(yes))
    }
    fn serialize_f32(self, float: f32) -> Result<Json, Fault> {
        Self::float(float.into())
    }
    fn serialize_f64(self, float: f64) -> Result<Json, Fault> {
        Self::float(float)
    }
    fn serialize_char(self, char: char) -> Result<Json, Fault> {
        Ok(Json::String(char.into()))
    }
    fn serialize_str(self, text: &str) -> Result<Json, Fault> {
        Ok(Json::String(text.into()))
    }
    fn serialize_bytes(self, bytes: &[u8]) -> Result<Json, Fault> {
        self.0.in_container()?;
        Ok(Json::Array(bytes.iter().map(|byte| Json::Number((*byte).into())).collect()))
    }
    fn serialize_unit(self) -> Result<Json, Fault> {
        Ok(Json::Null)
    }
    fn serialize_none(self) -> Result<Json, Fault> {
        Ok(Json::Null)
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<Json, Fault> {
        Ok(Json::Null)
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Json, Fault> {
        Ok(Json::String(variant.into()))
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Json, Fault> {
        self.wrapped(value)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Json, Fault> {
        self.wrapped(value)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Json, Fault> {
        let content = Self::part(self.0.in_container()?, value, Segment::Named(variant))?;
        Ok(object_of(variant, content))
    }
    fn serialize_seq(self, length: Option<usize>) -> Result<Items, Fault> {
        let done = Vec::with_capacity(length.unwrap_or(0).min(CLAIM_MAX));
        Ok(Items { room: self.0.in_container()?, done, variant: None })
    }
    fn serialize_tuple(self, length: usize) -> Result<Items, Fault> {
        self.serialize_seq(Some(length))
    }
    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Items, Fault> {
        self.serialize_seq(Some(length))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Items, Fault> {
        let items = Self(self.0.in_container()?).serialize_seq(Some(length))?;
        Ok(Items { variant: Some(variant), ..items })
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Members, Fault> {
        Ok(Members { room: self.0.in_container()?, done: Map::new(), key: None, variant: None })
    }
    fn serialize_struct(self, name: &'static str, length: usize) -> Result<Struct, Fault> {
        Ok(match name {
            number::NUMBER | number::RAW => Struct::Text { room: self.0, json: None },
            _ => Struct::Members(self.serialize_map(Some(length))?),
        })
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Members, Fault> {
        let members = Self(self.0.in_container()?).serialize_map(Some(length))?;
        Ok(Members { variant: Some(variant), ..members })
    }
    fn collect_str<T: fmt::Display + ?Sized>(self, text: &T) -> Result<Json, Fault> {
        Ok(Json::String(text.to_string()))
    }
}

/// How JSON says a variant with content.
fn object_of(variant: &str, content: Json) -> Json {
    Json::Object(Map::from_iter([(variant.to_owned(), content)]))
}

/// An array on its way, perhaps as the content of a variant.
struct Items {
    room: Room,
    done: Vec<Json>,
    variant: Option<&'static str>,
}

impl Items {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        let item = Serializer::part(self.room, value, Segment::Index(self.done.len()));
        self.done.push(item.map_err(|fault| of_variant(fault, self.variant))?);
        Ok(())
    }

    fn finish(self) -> Json {
        match self.variant {
            None => Json::Array(self.done),
            Some(variant) => object_of(variant, Json::Array(self.done)),
        }
    }
}

fn of_variant(fault: Fault, variant: Option<&'static str>) -> Fault {
    match variant {
        None => fault,
        Some(variant) => fault.within(Segment::Named(variant)),
    }
}

/// The traits of sequences, which differ in names.
macro_rules! items {
    ($($part:ident::$push:ident),* $(,)?) => {
        $(impl $part for Items {
            type Ok = Json;
            type Error = Fault;
            fn $push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
                self.push(value)
            }
            fn end(self) -> Result<Json, Fault> {
                Ok(self.finish())
            }
        })*
    };
}

items! {
    SerializeSeq::serialize_element, SerializeTuple::serialize_element, SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

/// An object on its way, perhaps as the content of a variant. A key that comes twice has its last value, as in `serde_json`.
struct Members {
    room: Room,
    done: Map<String, Json>,
    key: Option<String>,
    variant: Option<&'static str>,
}

impl Members {
    fn set<T: Serialize + ?Sized>(&mut self, field: &'static str, value: &T) -> Result<(), Fault> {
        let member = Serializer::part(self.room, value, Segment::Named(field));
        self.done.insert(field.into(), member.map_err(|fault| of_variant(fault, self.variant))?);
        Ok(())
    }

    fn finish(self) -> Json {
        match self.variant {
            None => Json::Object(self.done),
            Some(variant) => object_of(variant, Json::Object(self.done)),
        }
    }
}

impl SerializeMap for Members {
    type Ok = Json;
    type Error = Fault;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Fault> {
        self.key = Some(key.serialize(Key(self.room))?);
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        let key =
            self.key.take().ok_or_else(|| Fault::new("its `Serialize` gives a value before its key"))?;
        self.done.insert(key, Serializer::part(self.room, value, Segment::Key)?);
        Ok(())
    }
    fn end(self) -> Result<Json, Fault> {
        Ok(self.finish())
    }
}

impl SerializeStructVariant for Members {
    type Ok = Json;
    type Error = Fault;
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        field: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        self.set(field, value)
    }
    fn end(self) -> Result<Json, Fault> {
        Ok(self.finish())
    }
}

/// A struct on its way, or a number or JSON that `serde_json` hands over in the shape of one.
enum Struct {
    Members(Members),
    /// JSON as text.
    Text {
        room: Room,
        json: Option<Json>,
    },
}

impl SerializeStruct for Struct {
    type Ok = Json;
    type Error = Fault;
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        field: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        match self {
            Self::Members(members) => members.set(field, value),
            Self::Text { room, json } => {
                let text = value.serialize(Key(*room))?;
                *json = Some(match field {
                    number::NUMBER => number::parse(&text)?,
                    // Nesting inside the text is counted too.
                    _ => number::parse_raw(&text)?.serialize(Serializer(*room))?,
                });
                Ok(())
            }
        }
    }
    fn end(self) -> Result<Json, Fault> {
        match self {
            Self::Members(members) => Ok(members.finish()),
            Self::Text { json, .. } => json.ok_or_else(|| Fault::new("a number without its digits")),
        }
    }
}

/// The key of a map: a string, or a value with one spelling as a string.
struct Key(Room);

fn no_string<T>() -> Result<T, Fault> {
    Err(Fault::new("a key of a map that is no string"))
}

/// A number as `serde_json` spells it, which is not quite as Rust does.
fn as_json(number: &impl Serialize) -> Result<String, Fault> {
    serde_json::to_string(number).map_err(|_| Fault::new("a key of a map that is no number"))
}

/// Keys that are spelled as they are displayed.
macro_rules! spelled {
    ($($name:ident($ty:ty)),* $(,)?) => {
        $(fn $name(self, key: $ty) -> Result<String, Fault> { Ok(key.to_string()) })*
    };
}

impl ser::Serializer for Key {
    type Ok = String;
    type Error = Fault;
    type SerializeSeq = Impossible<String, Fault>;
    type SerializeTuple = Impossible<String, Fault>;
    type SerializeTupleStruct = Impossible<String, Fault>;
    type SerializeTupleVariant = Impossible<String, Fault>;
    type SerializeMap = Impossible<String, Fault>;
    type SerializeStruct = Impossible<String, Fault>;
    type SerializeStructVariant = Impossible<String, Fault>;

    spelled! {
        serialize_bool(bool), serialize_char(char), serialize_str(&str),
        serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64), serialize_i128(i128),
        serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64), serialize_u128(u128),
    }
    fn serialize_f32(self, key: f32) -> Result<String, Fault> {
        if key.is_finite() { as_json(&key) } else { no_string() }
    }
    fn serialize_f64(self, key: f64) -> Result<String, Fault> {
        if key.is_finite() { as_json(&key) } else { no_string() }
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<String, Fault> {
        Ok(variant.into())
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        key: &T,
    ) -> Result<String, Fault> {
        key.serialize(Self(self.0.in_wrapper()?))
    }
    fn collect_str<T: fmt::Display + ?Sized>(self, text: &T) -> Result<String, Fault> {
        Ok(text.to_string())
    }
    fn serialize_bytes(self, _: &[u8]) -> Result<String, Fault> {
        no_string()
    }
    fn serialize_unit(self) -> Result<String, Fault> {
        no_string()
    }
    fn serialize_none(self) -> Result<String, Fault> {
        no_string()
    }
    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<String, Fault> {
        no_string()
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<String, Fault> {
        no_string()
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<String, Fault> {
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
