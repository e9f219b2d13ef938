//! Encodes any `Serialize` as the bytes of a value, in one pass; refuses a value that JSON cannot represent. Behaves as
//! `serde_json::to_value`, with three differences:
//!
//! - Nesting is counted before each descent ([`Depth`]), so a value that is nested beyond the limits is an error, and
//!   does not overflow the stack. No serializer sees the recursion of a `Serialize` that calls another without one of
//!   these methods (an untagged enum around itself, a `Box` around a `Box`).
//! - A float that is not finite is refused; `serde_json` writes null.
//! - A number that arrives as text is kept or refused ([`number`]).
//!
//! A type may swallow the error of a part and continue; the bytes of that part are then removed.
use super::buffer::{Buffer, Mark};
use super::depth::{Depth, too_deep};
use super::fault::{Fault, Segment};
use super::key::KeySerializer;
use super::number;
use super::wire;
use serde::ser::{
    self, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};
use std::fmt;

/// Writes the value into an empty buffer.
///
/// # Errors
///
/// JSON cannot represent the value, or it nests too deeply. The buffer then holds no value.
#[inline]
pub(super) fn write<T: Serialize + ?Sized>(value: &T, buffer: &mut Buffer) -> Result<(), Fault> {
    value.serialize(Serializer { buffer, depth: Depth::ALL })
}

struct Serializer<'w> {
    buffer: &'w mut Buffer,
    depth: Depth,
}

/// The limits on the nesting inside an array or object.
#[inline]
fn inside(depth: Depth) -> Result<Depth, Fault> {
    match depth.enter_container() {
        Some(depth) => Ok(depth),
        None => Err(too_deep()),
    }
}

impl<'w> Serializer<'w> {
    #[inline]
    fn unsigned(self, integer: u64) {
        self.buffer.byte(wire::UNSIGNED);
        self.buffer.varint(integer);
    }

    #[inline]
    fn signed(self, integer: i64) {
        if let Ok(integer) = u64::try_from(integer) {
            self.unsigned(integer);
        } else {
            self.buffer.byte(wire::NEGATIVE);
            // Zigzag encoding: -1 becomes 1, and -2 becomes 3.
            self.buffer.varint((!integer.cast_unsigned() << 1) | 1);
        }
    }

    /// Begins an object of one member, whose value the returned serializer writes.
    #[inline]
    fn variant(self, variant: Option<&'static str>) -> Result<Self, Fault> {
        let Self { buffer, depth } = self;
        let Some(variant) = variant else { return Ok(Self { buffer, depth }) };
        let depth = inside(depth)?;
        buffer.byte(wire::OBJECT);
        buffer.byte(1);
        buffer.text(variant);
        Ok(Self { buffer, depth })
    }

    #[inline]
    fn items(self, claimed: usize, variant: Option<&'static str>) -> Result<Items<'w>, Fault> {
        let Self { buffer, depth } = self.variant(variant)?;
        let depth = inside(depth)?;
        buffer.byte(wire::ARRAY);
        let at = buffer.claim(claimed);
        Ok(Items { buffer, depth, at, claimed, count: 0, variant })
    }

    #[inline]
    fn members(self, claimed: usize, variant: Option<&'static str>) -> Result<Members<'w>, Fault> {
        let Self { buffer, depth } = self.variant(variant)?;
        let depth = inside(depth)?;
        buffer.byte(wire::OBJECT);
        let at = buffer.claim(claimed);
        let start = buffer.mark();
        Ok(Members { buffer, depth, at, claimed, start, key: None, variant })
    }
}

/// Writes a part. On an error, the bytes that were written since the mark are removed.
#[inline]
fn part<T: Serialize + ?Sized>(
    buffer: &mut Buffer,
    depth: Depth,
    mark: Mark,
    value: &T,
    segment: Segment,
) -> Result<(), Fault> {
    match value.serialize(Serializer { buffer, depth }) {
        Ok(()) => Ok(()),
        Err(fault) => {
            buffer.cut(mark);
            Err(fault.within(segment))
        }
    }
}

/// The methods for integers of at most 64 bits.
macro_rules! integers {
    ($($name:ident($ty:ty) => $write:ident),* $(,)?) => {
        $(#[inline]
        fn $name(self, integer: $ty) -> Result<(), Fault> {
            self.$write(integer.into());
            Ok(())
        })*
    };
}

impl<'w> ser::Serializer for Serializer<'w> {
    type Ok = ();
    type Error = Fault;
    type SerializeSeq = Items<'w>;
    type SerializeTuple = Items<'w>;
    type SerializeTupleStruct = Items<'w>;
    type SerializeTupleVariant = Items<'w>;
    type SerializeMap = Members<'w>;
    type SerializeStruct = Struct<'w>;
    type SerializeStructVariant = Members<'w>;

    integers! {
        serialize_i8(i8) => signed, serialize_i16(i16) => signed, serialize_i32(i32) => signed, serialize_i64(i64) => signed,
        serialize_u8(u8) => unsigned, serialize_u16(u16) => unsigned, serialize_u32(u32) => unsigned,
        serialize_u64(u64) => unsigned,
    }
    fn serialize_i128(self, integer: i128) -> Result<(), Fault> {
        match i64::try_from(integer) {
            Ok(integer) => self.serialize_i64(integer),
            Err(_) => self.serialize_u128(u128::try_from(integer).unwrap_or(u128::MAX)),
        }
    }
    fn serialize_u128(self, integer: u128) -> Result<(), Fault> {
        self.serialize_u64(u64::try_from(integer).map_err(|_| number::beyond_64_bits())?)
    }
    #[inline]
    fn serialize_bool(self, yes: bool) -> Result<(), Fault> {
        self.buffer.byte(wire::BOOL);
        self.buffer.byte(yes.into());
        Ok(())
    }
    #[inline]
    fn serialize_f32(self, float: f32) -> Result<(), Fault> {
        self.serialize_f64(float.into())
    }
    #[inline]
    fn serialize_f64(self, float: f64) -> Result<(), Fault> {
        if !float.is_finite() {
            return Err(Fault::new("a float that is not a finite number"));
        }
        self.buffer.byte(wire::FLOAT);
        self.buffer.bytes(&float.to_le_bytes());
        Ok(())
    }
    fn serialize_char(self, char: char) -> Result<(), Fault> {
        self.serialize_str(char.encode_utf8(&mut [0; 4]))
    }
    #[inline]
    fn serialize_str(self, text: &str) -> Result<(), Fault> {
        self.buffer.byte(wire::TEXT);
        self.buffer.text(text);
        Ok(())
    }
    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Fault> {
        self.collect_seq(bytes)
    }
    #[inline]
    fn serialize_unit(self) -> Result<(), Fault> {
        self.buffer.byte(wire::NULL);
        Ok(())
    }
    #[inline]
    fn serialize_none(self) -> Result<(), Fault> {
        self.serialize_unit()
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Fault> {
        self.serialize_unit()
    }
    #[inline]
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Fault> {
        self.serialize_str(variant)
    }
    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Fault> {
        value.serialize(Self { depth: self.depth.enter_wrapper()?, ..self })
    }
    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        self.serialize_some(value)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        let content = self.variant(Some(variant))?;
        value.serialize(content).map_err(|fault| fault.within(Segment::Named(variant)))
    }
    #[inline]
    fn serialize_seq(self, length: Option<usize>) -> Result<Items<'w>, Fault> {
        self.items(length.unwrap_or(0), None)
    }
    #[inline]
    fn serialize_tuple(self, length: usize) -> Result<Items<'w>, Fault> {
        self.items(length, None)
    }
    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Items<'w>, Fault> {
        self.items(length, None)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Items<'w>, Fault> {
        self.items(length, Some(variant))
    }
    #[inline]
    fn serialize_map(self, length: Option<usize>) -> Result<Members<'w>, Fault> {
        self.members(length.unwrap_or(0), None)
    }
    #[inline]
    fn serialize_struct(self, name: &'static str, length: usize) -> Result<Struct<'w>, Fault> {
        Ok(match name {
            number::NUMBER | number::RAW => {
                let start = self.buffer.mark();
                Struct::Text { buffer: self.buffer, depth: self.depth, start }
            }
            _ => Struct::Members(self.members(length, None)?),
        })
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Members<'w>, Fault> {
        self.members(length, Some(variant))
    }
    fn collect_str<T: fmt::Display + ?Sized>(self, text: &T) -> Result<(), Fault> {
        self.buffer.byte(wire::TEXT);
        self.buffer.displayed(text)
    }
}

/// An array that is being written, perhaps as the content of a variant.
struct Items<'w> {
    buffer: &'w mut Buffer,
    depth: Depth,
    /// The offset at which the number of items is written.
    at: usize,
    claimed: usize,
    count: usize,
    variant: Option<&'static str>,
}

impl Items<'_> {
    #[inline]
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        let mark = self.buffer.mark();
        part(self.buffer, self.depth, mark, value, Segment::Index(self.count))
            .map_err(|fault| of_variant(fault, self.variant))?;
        self.count += 1;
        Ok(())
    }
}

fn of_variant(fault: Fault, variant: Option<&'static str>) -> Fault {
    match variant {
        None => fault,
        Some(variant) => fault.within(Segment::Named(variant)),
    }
}

/// Implements the traits for arrays, which differ only in the names of their methods.
macro_rules! items {
    ($($part:ident::$push:ident),* $(,)?) => {
        $(impl $part for Items<'_> {
            type Ok = ();
            type Error = Fault;
            #[inline]
            fn $push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
                self.push(value)
            }
            #[inline]
            fn end(self) -> Result<(), Fault> {
                self.buffer.settle(self.at, self.claimed, self.count);
                Ok(())
            }
        })*
    };
}

items! {
    SerializeSeq::serialize_element, SerializeTuple::serialize_element, SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

/// An object that is being written, perhaps as the content of a variant. If a key is repeated, the last value counts,
/// as in `serde_json`.
struct Members<'w> {
    buffer: &'w mut Buffer,
    depth: Depth,
    /// The offset at which the number of members is written.
    at: usize,
    claimed: usize,
    /// The offset after the number of members.
    start: Mark,
    /// The offset of a key whose value was not written yet.
    key: Option<Mark>,
    variant: Option<&'static str>,
}

impl Members<'_> {
    #[inline]
    fn set<T: Serialize + ?Sized>(&mut self, field: &'static str, value: &T) -> Result<(), Fault> {
        let mark = self.buffer.mark();
        self.buffer.member(field);
        part(self.buffer, self.depth, mark, value, Segment::Named(field))
            .map_err(|fault| of_variant(fault, self.variant))
    }

    /// Removes a key that has no value.
    #[inline]
    fn cut_key(&mut self) {
        if let Some(mark) = self.key.take() {
            self.buffer.cut(mark);
        }
    }

    #[inline]
    fn finish(mut self) {
        self.cut_key();
        let count = self.buffer.order(self.start);
        self.buffer.settle(self.at, self.claimed, count);
    }
}

impl SerializeMap for Members<'_> {
    type Ok = ();
    type Error = Fault;
    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Fault> {
        self.cut_key();
        let mark = self.buffer.mark();
        match key.serialize(KeySerializer { buffer: self.buffer, depth: self.depth }) {
            Ok(()) => {
                self.key = Some(mark);
                Ok(())
            }
            Err(fault) => {
                self.buffer.cut(mark);
                Err(fault)
            }
        }
    }
    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        let Some(mark) = self.key.take() else {
            return Err(Fault::new("its `Serialize` gives a value before its key"));
        };
        self.buffer.member_from(mark);
        part(self.buffer, self.depth, mark, value, Segment::Key)
    }
    #[inline]
    fn end(self) -> Result<(), Fault> {
        self.finish();
        Ok(())
    }
}

impl SerializeStructVariant for Members<'_> {
    type Ok = ();
    type Error = Fault;
    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        field: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        self.set(field, value)
    }
    #[inline]
    fn end(self) -> Result<(), Fault> {
        self.finish();
        Ok(())
    }
}

/// A struct that is being written, or a number or JSON that `serde_json` passes in the shape of a struct.
enum Struct<'w> {
    Members(Members<'w>),
    /// JSON that is given as a text.
    Text {
        buffer: &'w mut Buffer,
        depth: Depth,
        start: Mark,
    },
}

impl SerializeStruct for Struct<'_> {
    type Ok = ();
    type Error = Fault;
    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        field: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        match self {
            Self::Members(members) => members.set(field, value),
            Self::Text { buffer, depth, start } => {
                let mark = buffer.mark();
                let written = spelled(buffer, *depth, *start, field, value);
                written.inspect_err(|_| buffer.cut(mark))
            }
        }
    }
    #[inline]
    fn end(self) -> Result<(), Fault> {
        match self {
            Self::Members(members) => members.finish(),
            Self::Text { buffer, start, .. } if buffer.mark() == start => return Err(no_digits()),
            Self::Text { .. } => {}
        }
        Ok(())
    }
}

/// Writes a number, or JSON, that is given as a text. A later one replaces an earlier one.
fn spelled<T: Serialize + ?Sized>(
    buffer: &mut Buffer,
    depth: Depth,
    start: Mark,
    field: &str,
    text: &T,
) -> Result<(), Fault> {
    let mark = buffer.mark();
    text.serialize(KeySerializer { buffer, depth })?;
    let text = buffer.take_text(mark).ok_or_else(no_digits)?;
    if field == number::NUMBER {
        let number = number::parse(&text)?;
        buffer.cut(start);
        return number.serialize(Serializer { buffer, depth });
    }
    let json = number::parse_raw(&text)?;
    buffer.cut(start);
    // The nesting inside the text counts, too.
    json.serialize(Serializer { buffer, depth })
}

#[cold]
fn no_digits() -> Fault {
    Fault::new("a number without its digits")
}
