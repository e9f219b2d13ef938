//! JSON as any `Deserialize`. As `serde_json::from_value`, with two differences:
//!
//! - Nesting is counted on the way down ([`Room`]), also that of options and newtypes, which a type can ask for without end.
//!   Parts that `serde` keeps aside (untagged and internally tagged enums, flattened fields) it reads by itself, uncounted:
//!   their depth is bounded by that of the stored value.
//! - A refusal says where and why, and quotes nothing ([`Fault`]).
use super::fault::{Fault, Segment};
use super::number::RAW;
use super::room::Room;
use serde::de::value::MapDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::{Map, Number, Value as Json, map};
use std::vec;

/// The JSON as a `T`.
///
/// # Errors
///
/// It is none, or the type nests too deeply.
pub(super) fn from_json<T: DeserializeOwned>(json: Json) -> Result<T, Fault> {
    T::deserialize(Deserializer { json, room: Room::ALL })
}

struct Deserializer {
    json: Json,
    room: Room,
}

/// JSON's kind for `serde`, without its contents.
fn unexpected(json: &Json) -> Unexpected<'static> {
    match json {
        Json::Null => Unexpected::Unit,
        Json::Bool(yes) => Unexpected::Bool(*yes),
        Json::Number(number) if number.is_f64() => Unexpected::Float(0.0),
        Json::Number(_) => Unexpected::Signed(0),
        Json::String(_) => Unexpected::Str(""),
        Json::Array(_) => Unexpected::Seq,
        Json::Object(_) => Unexpected::Map,
    }
}

fn visit_number<'de, V: Visitor<'de>>(number: &Number, visitor: V) -> Result<V::Value, Fault> {
    match (number.as_u64(), number.as_i64(), number.as_f64()) {
        (Some(integer), _, _) => visitor.visit_u64(integer),
        (_, Some(integer), _) => visitor.visit_i64(integer),
        (_, _, Some(float)) => visitor.visit_f64(float),
        _ => Err(Fault::new("a number beyond 64 bits")),
    }
}

fn visit_array<'de, V: Visitor<'de>>(items: Vec<Json>, room: Room, visitor: V) -> Result<V::Value, Fault> {
    let (room, length) = (room.in_container()?, items.len());
    let mut items = Items { rest: items.into_iter(), next: 0, room };
    let visited = visitor.visit_seq(&mut items)?;
    let is_all = items.rest.len() == 0;
    if is_all { Ok(visited) } else { Err(Fault::invalid_length(length, &"fewer items")) }
}

fn visit_object<'de, V: Visitor<'de>>(
    members: Map<String, Json>,
    fields: &'static [&'static str],
    room: Room,
    visitor: V,
) -> Result<V::Value, Fault> {
    let (room, length) = (room.in_container()?, members.len());
    let mut members = Members { rest: members.into_iter(), value: None, fields, room };
    let visited = visitor.visit_map(&mut members)?;
    let is_all = members.rest.len() == 0;
    if is_all { Ok(visited) } else { Err(Fault::invalid_length(length, &"fewer members")) }
}

/// The path segment of a field or variant: its name if the type knows it, else it is data.
fn segment_of(name: &str, known: &'static [&'static str]) -> Segment {
    known.iter().find(|known| **known == name).map_or(Segment::Key, |known| Segment::Named(known))
}

impl<'de> de::Deserializer<'de> for Deserializer {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.json {
            Json::Null => visitor.visit_unit(),
            Json::Bool(yes) => visitor.visit_bool(yes),
            Json::Number(number) => visit_number(&number, visitor),
            Json::String(text) => visitor.visit_string(text),
            Json::Array(items) => visit_array(items, self.room, visitor),
            Json::Object(members) => visit_object(members, &[], self.room, visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.json.is_null() {
            return visitor.visit_none();
        }
        let room = self.room.in_wrapper()?;
        visitor.visit_some(Self { room, ..self })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == RAW {
            return visitor.visit_map(MapDeserializer::new([(RAW, self.json.to_string())].into_iter()));
        }
        let room = self.room.in_wrapper()?;
        visitor.visit_newtype_struct(Self { room, ..self })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.json {
            Json::Object(members) => visit_object(members, fields, self.room, visitor),
            json => Self { json, ..self }.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.json {
            Json::String(name) => {
                visitor.visit_enum(Variant { name, content: None, variants, room: self.room })
            }
            Json::Object(members) if members.len() == 1 => {
                let room = self.room.in_container()?;
                let (name, content) = members.into_iter().next().expect("one member");
                visitor.visit_enum(Variant { name, content: Some(content), variants, room })
            }
            other => {
                Err(Fault::invalid_type(unexpected(&other), &"a variant's name, or an object of one member"))
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

/// The items of an array that are still to be read.
struct Items {
    rest: vec::IntoIter<Json>,
    next: usize,
    room: Room,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(json) = self.rest.next() else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        let item = seed.deserialize(Deserializer { json, room: self.room });
        item.map(Some).map_err(|fault| fault.within(Segment::Index(index)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// The members of an object that are still to be read.
struct Members {
    rest: map::IntoIter,
    /// The value whose key was read, and its path segment.
    value: Option<(Json, Segment)>,
    fields: &'static [&'static str],
    room: Room,
}

impl<'de> MapAccess<'de> for Members {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((name, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some((value, segment_of(&name, self.fields)));
        seed.deserialize(Key { name, room: self.room }).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let Some((json, segment)) = self.value.take() else {
            return Err(Fault::new("the type's `Deserialize` asks for a value before its key"));
        };
        seed.deserialize(Deserializer { json, room: self.room }).map_err(|fault| fault.within(segment))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// A variant: a name, or an object of one member.
struct Variant {
    name: String,
    content: Option<Json>,
    variants: &'static [&'static str],
    room: Room,
}

/// The contents of a variant.
struct Content {
    json: Option<Json>,
    segment: Segment,
    room: Room,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Fault;
    type Variant = Content;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Content), Fault> {
        let segment = segment_of(&self.name, self.variants);
        let variant = seed.deserialize(Key { name: self.name, room: self.room })?;
        Ok((variant, Content { json: self.content, segment, room: self.room }))
    }
}

impl Content {
    /// Reads the contents with `read`.
    fn read<R>(
        self,
        expected: &'static str,
        read: impl FnOnce(Json, Room) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let Some(json) = self.json else {
            return Err(Fault::invalid_type(Unexpected::UnitVariant, &expected));
        };
        read(json, self.room).map_err(|fault| fault.within(self.segment))
    }
}

impl<'de> VariantAccess<'de> for Content {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.json {
            None => Ok(()),
            some => Self { json: some, ..self }
                .read("", |json, room| Deserialize::deserialize(Deserializer { json, room })),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        self.read("newtype variant", |json, room| seed.deserialize(Deserializer { json, room }))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.read("tuple variant", |json, room| match json {
            Json::Array(items) => visit_array(items, room, visitor),
            other => Err(Fault::invalid_type(unexpected(&other), &"tuple variant")),
        })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.read("struct variant", |json, room| match json {
            Json::Object(members) => visit_object(members, fields, room, visitor),
            other => Err(Fault::invalid_type(unexpected(&other), &"struct variant")),
        })
    }
}

/// A key of an object, or the name of a variant.
struct Key {
    name: String,
    room: Room,
}

/// Keys that stand for numbers.
macro_rules! numbers {
    ($($name:ident: $ty:ty => $visit:ident),* $(,)?) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            // As JSON has them: no `+`, no `NaN`.
            let begins = self.name.starts_with(|c: char| c == '-' || c.is_ascii_digit());
            match self.name.parse::<$ty>() {
                Ok(number) if begins => visitor.$visit(number),
                _ => Err(Fault::invalid_type(Unexpected::Str(""), &visitor)),
            }
        })*
    };
}

impl<'de> de::Deserializer<'de> for Key {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_string(self.name)
    }

    numbers! {
        deserialize_i8: i8 => visit_i8, deserialize_i16: i16 => visit_i16, deserialize_i32: i32 => visit_i32,
        deserialize_i64: i64 => visit_i64, deserialize_i128: i128 => visit_i128,
        deserialize_u8: u8 => visit_u8, deserialize_u16: u16 => visit_u16, deserialize_u32: u32 => visit_u32,
        deserialize_u64: u64 => visit_u64, deserialize_u128: u128 => visit_u128,
        deserialize_f32: f32 => visit_f32, deserialize_f64: f64 => visit_f64,
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.name.as_str() {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => Err(Fault::invalid_type(Unexpected::Str(""), &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let room = self.room.in_wrapper()?;
        visitor.visit_some(Self { room, ..self })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let room = self.room.in_wrapper()?;
        visitor.visit_newtype_struct(Self { room, ..self })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.name.into_deserializer().deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
