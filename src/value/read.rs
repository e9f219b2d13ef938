//! Decodes the bytes of a value as any `Deserialize`, in one pass, without a tree of JSON and without an allocation
//! that the type does not require. Behaves as `serde_json::from_value`, with three differences:
//!
//! - Nesting is counted before each descent ([`Depth`]), also that of options and newtypes, which a type can nest
//!   without end. Parts that `serde` buffers (untagged and internally tagged enums, flattened fields) are read by
//!   `serde` itself, uncounted; their depth is bounded by that of the stored value.
//! - A refusal has the path and the reason, and quotes no data ([`Fault`]). The path is built while the fault is passed
//!   up.
//! - Damage anywhere in the value is found, also in parts that the type ignores.
//!
//! A type may leave a part unread, or swallow the error of a part and continue. So whatever happens inside a part, each
//! [`Deserializer`] leaves the reader before its part or behind it, and the enclosing part skips the rest.
use super::depth::Depth;
use super::fault::{Fault, Segment};
use super::key::Key;
use super::number::RAW;
use super::tree;
use super::wire::{self, Reader};
use serde::de::value::MapDeserializer;
use serde::de::{
    self, DeserializeSeed, EnumAccess, Error as _, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

/// Decodes the value as a `T`.
///
/// # Errors
///
/// The value is no `T`, the type nests too deeply, or the bytes are no value; [`wire::check`] distinguishes these.
#[inline]
pub(super) fn read<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Fault> {
    let mut reader = Reader::new(bytes);
    let read = T::deserialize(Deserializer { reader: &mut reader, depth: Depth::ALL })?;
    if reader.left() == 0 && !bytes.is_empty() {
        return Ok(read);
    }
    // The type has read nothing, or ignored an error, so all bytes are checked here.
    wire::check(bytes).map(|()| read)
}

/// Reads one part of a value.
struct Deserializer<'r, 'de> {
    reader: &'r mut Reader<'de>,
    depth: Depth,
}

impl<'de> Deserializer<'_, 'de> {
    /// Reads a part of a value, of any kind.
    fn any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let reader = self.reader;
        match reader.byte()? {
            wire::NULL => visitor.visit_unit(),
            wire::BOOL => visitor.visit_bool(reader.boolean()?),
            wire::UNSIGNED => visitor.visit_u64(reader.varint()?),
            wire::NEGATIVE => visitor.visit_i64(reader.negative()?),
            wire::FLOAT => visitor.visit_f64(reader.float()?),
            wire::TEXT => visitor.visit_borrowed_str(reader.text()?),
            wire::ARRAY => Items::visit(reader, self.depth, visitor),
            wire::OBJECT => Members::visit(reader, &[], self.depth, visitor),
            _ => Err(reader.damage("an unknown tag")),
        }
    }
}

/// Makes the methods for types that expect one kind of value. If the value has that kind, the method costs one
/// comparison.
macro_rules! expected {
    ($($name:ident: $tag:ident => $visit:ident($read:ident)),* $(,)?) => {
        $(#[inline]
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            if self.reader.has(wire::$tag) { visitor.$visit(self.reader.$read()?) } else { self.any(visitor) }
        })*
    };
}

impl<'de> de::Deserializer<'de> for Deserializer<'_, 'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.any(visitor)
    }

    expected! {
        deserialize_bool: BOOL => visit_bool(boolean),
        deserialize_i8: UNSIGNED => visit_u64(varint), deserialize_i16: UNSIGNED => visit_u64(varint),
        deserialize_i32: UNSIGNED => visit_u64(varint), deserialize_i64: UNSIGNED => visit_u64(varint),
        deserialize_i128: UNSIGNED => visit_u64(varint),
        deserialize_u8: UNSIGNED => visit_u64(varint), deserialize_u16: UNSIGNED => visit_u64(varint),
        deserialize_u32: UNSIGNED => visit_u64(varint), deserialize_u64: UNSIGNED => visit_u64(varint),
        deserialize_u128: UNSIGNED => visit_u64(varint),
        deserialize_f32: FLOAT => visit_f64(float), deserialize_f64: FLOAT => visit_f64(float),
        deserialize_char: TEXT => visit_borrowed_str(text), deserialize_str: TEXT => visit_borrowed_str(text),
        deserialize_string: TEXT => visit_string(string),
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.reader.has(wire::NULL) {
            return visitor.visit_none();
        }
        let depth = self.depth.enter_wrapper()?;
        visitor.visit_some(Self { depth, ..self })
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == RAW {
            let json = tree::read(self.reader, self.depth)?.to_string();
            return visitor.visit_map(MapDeserializer::new([(RAW, json)].into_iter()));
        }
        let depth = self.depth.enter_wrapper()?;
        visitor.visit_newtype_struct(Self { depth, ..self })
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let is_array = self.reader.has(wire::ARRAY);
        if is_array { Items::visit(self.reader, self.depth, visitor) } else { self.any(visitor) }
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_struct("", &[], visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let is_object = self.reader.has(wire::OBJECT);
        if is_object { Members::visit(self.reader, fields, self.depth, visitor) } else { self.any(visitor) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Self { reader, depth } = self;
        match reader.rest() {
            [wire::TEXT, ..] => {
                reader.byte()?;
                let name = reader.text()?;
                visitor.visit_enum(Variant { name, variants, reader, depth, has_content: false })
            }
            [wire::OBJECT, 1, ..] => {
                let depth = reader.inside(depth)?;
                reader.byte()?;
                reader.count_members()?;
                let name = reader.key(None)?;
                part(reader, depth, |reader| {
                    visitor.visit_enum(Variant { name, variants, reader, depth, has_content: true })
                })
            }
            _ => {
                let found = wire::unexpected(reader.peek());
                Err(Fault::invalid_type(found, &"a variant's name, or an object of one member"))
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.reader.skip(self.depth)?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { bytes byte_buf unit unit_struct identifier }
}

/// Reads a part of a value with `read`. If `read` leaves it unread, it is skipped. An error of the skip is ignored:
/// after damage, every later read fails.
#[inline]
fn part<'de, R>(reader: &mut Reader<'de>, depth: Depth, read: impl FnOnce(&mut Reader<'de>) -> R) -> R {
    let before = reader.left();
    let part = read(reader);
    if reader.left() == before {
        let _ = reader.skip(depth);
    }
    part
}

/// The step of the path for a field or variant: its name if the type has that name, otherwise `Key`, because the name
/// is data.
fn segment_of(name: &str, known: &'static [&'static str]) -> Segment {
    known.iter().find(|known| **known == name).map_or(Segment::Key, |known| Segment::Named(known))
}

/// The items of an array that were not read yet.
struct Items<'r, 'de> {
    reader: &'r mut Reader<'de>,
    left: usize,
    length: usize,
    depth: Depth,
}

impl<'r, 'de> Items<'r, 'de> {
    /// Reads the items of an array, whose tag was read before.
    #[inline]
    fn visit<V: Visitor<'de>>(
        reader: &'r mut Reader<'de>,
        depth: Depth,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let depth = reader.inside(depth)?;
        let length = reader.count_items()?;
        let mut items = Items { reader, left: length, length, depth };
        let visited = visitor.visit_seq(&mut items);
        if items.left == 0 {
            return visited;
        }
        items.skip_rest();
        visited.and_then(|_| Err(Fault::invalid_length(length, &"fewer items")))
    }

    /// Skips the items that the type has not asked for.
    #[cold]
    fn skip_rest(self) {
        let _ = (0..self.left).try_for_each(|_| self.reader.skip(self.depth));
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Fault;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let depth = self.depth;
        let item = part(self.reader, depth, |reader| seed.deserialize(Deserializer { reader, depth }));
        match item {
            Ok(item) => Ok(Some(item)),
            Err(fault) => Err(fault.within(Segment::Index(self.length - self.left - 1))),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The members of an object that were not read yet.
struct Members<'r, 'de> {
    reader: &'r mut Reader<'de>,
    left: usize,
    /// The key that was read last.
    key: Option<&'de str>,
    /// Whether the value of that key is still unread.
    has_value: bool,
    fields: &'static [&'static str],
    depth: Depth,
}

impl<'r, 'de> Members<'r, 'de> {
    /// Reads the members of an object, whose tag was read before.
    #[inline]
    fn visit<V: Visitor<'de>>(
        reader: &'r mut Reader<'de>,
        fields: &'static [&'static str],
        depth: Depth,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let depth = reader.inside(depth)?;
        let length = reader.count_members()?;
        let mut members = Members { reader, left: length, key: None, has_value: false, fields, depth };
        let visited = visitor.visit_map(&mut members);
        if members.left == 0 && !members.has_value {
            return visited;
        }
        let is_all = members.left == 0;
        let _ = members.skip_rest();
        visited.and_then(|visited| {
            if is_all { Ok(visited) } else { Err(Fault::invalid_length(length, &"fewer members")) }
        })
    }

    /// Skips the members that the type has not asked for.
    #[cold]
    fn skip_rest(mut self) -> Result<(), Fault> {
        self.skip_value()?;
        while self.left > 0 {
            self.next_key()?;
            self.skip_value()?;
        }
        Ok(())
    }

    /// Skips the value of the last key, if it is still unread.
    #[inline]
    fn skip_value(&mut self) -> Result<(), Fault> {
        if std::mem::take(&mut self.has_value) { self.reader.skip(self.depth) } else { Ok(()) }
    }

    #[inline]
    fn next_key(&mut self) -> Result<&'de str, Fault> {
        let key = self.reader.key(self.key)?;
        self.left -= 1;
        self.key = Some(key);
        self.has_value = true;
        Ok(key)
    }
}

impl<'de> MapAccess<'de> for Members<'_, 'de> {
    type Error = Fault;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        if self.left == 0 {
            return Ok(None);
        }
        self.skip_value()?;
        let name = self.next_key()?;
        seed.deserialize(Key { name, depth: self.depth }).map(Some)
    }

    #[inline]
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let Some(key) = self.key.filter(|_| self.has_value) else {
            return Err(Fault::new("the type's `Deserialize` asks for a value before its key"));
        };
        self.has_value = false;
        let depth = self.depth;
        let value = part(self.reader, depth, |reader| seed.deserialize(Deserializer { reader, depth }));
        value.map_err(|fault| fault.within(segment_of(key, self.fields)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// A variant of an enum: a name, or an object with one member.
struct Variant<'r, 'de> {
    reader: &'r mut Reader<'de>,
    name: &'de str,
    has_content: bool,
    variants: &'static [&'static str],
    depth: Depth,
}

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Fault> {
        let variant = seed.deserialize(Key { name: self.name, depth: self.depth })?;
        Ok((variant, self))
    }
}

impl<'r, 'de> Variant<'r, 'de> {
    /// Reads the content of the variant with `read`.
    fn content<R>(
        self,
        expected: &'static str,
        read: impl FnOnce(Deserializer<'r, 'de>) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let Self { reader, name, has_content, variants, depth } = self;
        if !has_content {
            return Err(Fault::invalid_type(Unexpected::UnitVariant, &expected));
        }
        read(Deserializer { reader, depth }).map_err(|fault| fault.within(segment_of(name, variants)))
    }

    /// Reads with `read` the content of the variant, which must be of one kind.
    fn content_of<R>(
        self,
        tag: u8,
        expected: &'static str,
        read: impl FnOnce(&'r mut Reader<'de>, Depth) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        self.content(expected, |Deserializer { reader, depth }| {
            if reader.has(tag) {
                read(reader, depth)
            } else {
                Err(Fault::invalid_type(wire::unexpected(reader.peek()), &expected))
            }
        })
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        if self.has_content { self.content("", Deserialize::deserialize) } else { Ok(()) }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        self.content("newtype variant", |content| seed.deserialize(content))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.content_of(wire::ARRAY, "tuple variant", |reader, depth| Items::visit(reader, depth, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.content_of(wire::OBJECT, "struct variant", |reader, depth| {
            Members::visit(reader, fields, depth, visitor)
        })
    }
}
