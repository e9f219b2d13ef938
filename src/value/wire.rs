//! The bytes of a value, tag by tag: read, checked, and skipped. Knows no `serde` and no JSON.
//!
//! Only canonical bytes are accepted: numbers in the fewest possible bytes, keys in strict order, finite floats,
//! nesting of at most [`DEPTH_MAX`](super::DEPTH_MAX). All other bytes are damage, in any part of a value. A reader
//! that has found damage cannot read any value afterwards, so a type that swallows the error cannot hide it.
use super::depth::Depth;
use super::fault::Fault;
use serde::de::Unexpected;

pub(super) const NULL: u8 = 0;
pub(super) const BOOL: u8 = 1;
pub(super) const UNSIGNED: u8 = 2;
pub(super) const NEGATIVE: u8 = 3;
pub(super) const FLOAT: u8 = 4;
pub(super) const TEXT: u8 = 5;
pub(super) const ARRAY: u8 = 6;
pub(super) const OBJECT: u8 = 7;

/// The bit of a byte that means that the number continues in the next byte.
pub(super) const MORE: u8 = 0x80;
/// The number of bytes of the longest number: 64 bits in groups of seven.
pub(super) const VARINT_BYTES_MAX: usize = 10;
/// A byte with which no valid part of a value can begin: no tag, number, boolean or float.
const NO_VALUE: &[u8] = &[0xff];

const NOT_UTF_8: &str = "a string that is not UTF-8";

/// The kind of a value, for an error of `serde`, by its tag.
pub(super) fn unexpected(tag: Option<u8>) -> Unexpected<'static> {
    match tag {
        Some(NULL) => Unexpected::Unit,
        Some(BOOL) => Unexpected::Bool(false),
        Some(UNSIGNED | NEGATIVE) => Unexpected::Signed(0),
        Some(FLOAT) => Unexpected::Float(0.0),
        Some(TEXT) => Unexpected::Str(""),
        Some(ARRAY) => Unexpected::Seq,
        Some(OBJECT) => Unexpected::Map,
        _ => Unexpected::Other("damage"),
    }
}

/// Checks that the bytes are one value and nothing else.
///
/// # Errors
///
/// The bytes are anything else.
pub(super) fn check(bytes: &[u8]) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes);
    reader.skip(Depth::ALL)?;
    reader.end()
}

/// Reads the bytes of a value from the front.
#[derive(Debug)]
pub(super) struct Reader<'de> {
    rest: &'de [u8],
}

impl<'de> Reader<'de> {
    #[inline]
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The number of bytes that were not read yet.
    #[inline]
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// The bytes that were not read yet.
    #[inline]
    pub(super) fn rest(&self) -> &'de [u8] {
        self.rest
    }

    /// The next byte, which is the tag of a value, without reading it.
    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Reads the next tag if it is this one; returns whether it was.
    #[inline]
    pub(super) fn has(&mut self, tag: u8) -> bool {
        match self.rest {
            [first, rest @ ..] if *first == tag => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Notes that the bytes are damaged, for this reason. Every later read fails.
    #[cold]
    #[inline(never)]
    pub(super) fn damage(&mut self, reason: &'static str) -> Fault {
        self.rest = NO_VALUE;
        Fault::new(reason)
    }

    /// Checks that all bytes were read.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damage("bytes after the value")) }
    }

    /// Reads the next byte.
    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        match self.rest {
            [first, rest @ ..] => {
                self.rest = rest;
                Ok(*first)
            }
            [] => Err(self.damage("it ends too early")),
        }
    }

    #[inline]
    pub(super) fn boolean(&mut self) -> Result<bool, Fault> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.damage("a boolean that is neither")),
        }
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, Fault> {
        match self.rest {
            [byte, rest @ ..] if *byte < MORE => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    /// A number of two bytes or more. Postcard also accepts longer forms, which end with a zero byte; they are refused
    /// here.
    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, Fault> {
        let whole = self.rest;
        match postcard::take_from_bytes(whole) {
            Ok((number, rest)) if whole[whole.len() - rest.len() - 1] != 0 => {
                self.rest = rest;
                Ok(number)
            }
            _ => Err(self.damage("a number that is cut short, too long or not minimal")),
        }
    }

    #[inline]
    pub(super) fn negative(&mut self) -> Result<i64, Fault> {
        let zigzag = self.varint()?;
        if zigzag % 2 == 0 {
            return Err(self.damage("a negative number that is none"));
        }
        Ok(!(zigzag / 2).cast_signed())
    }

    #[inline]
    pub(super) fn float(&mut self) -> Result<f64, Fault> {
        if let Some((bytes, rest)) = self.rest.split_first_chunk() {
            let float = f64::from_le_bytes(*bytes);
            if float.is_finite() {
                self.rest = rest;
                return Ok(float);
            }
        }
        Err(self.damage("a float that is cut short or not finite"))
    }

    /// Reads a length, and that many bytes.
    #[inline]
    pub(super) fn sized(&mut self) -> Result<&'de [u8], Fault> {
        let length = self.varint()?;
        let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        match split {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(self.damage("a string that is cut short")),
        }
    }

    #[inline]
    pub(super) fn text(&mut self) -> Result<&'de str, Fault> {
        let bytes = self.sized()?;
        str::from_utf8(bytes).map_err(|_| self.damage(NOT_UTF_8))
    }

    /// Reads a text that owns its bytes. They are copied before they are checked, because the copy is aligned, and
    /// ASCII in it is checked in words.
    #[inline]
    pub(super) fn string(&mut self) -> Result<String, Fault> {
        let bytes = self.sized()?.to_vec();
        String::from_utf8(bytes).map_err(|_| self.damage(NOT_UTF_8))
    }

    /// Reads the key of a member. `before` is the key of the member before it, which must sort before this one.
    #[inline]
    pub(super) fn key(&mut self, before: Option<&str>) -> Result<&'de str, Fault> {
        let key = self.text()?;
        if before.is_none_or(|before| is_ascending(before.as_bytes(), key.as_bytes())) {
            Ok(key)
        } else {
            Err(self.damage("keys that are not in order"))
        }
    }

    /// The number of items or members that follow, of at least `bytes_min` bytes each. A claim of more than can remain
    /// is damage.
    #[inline]
    pub(super) fn count(&mut self, bytes_min: usize) -> Result<usize, Fault> {
        let count = self.varint()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() / bytes_min => Ok(count),
            _ => Err(self.damage("it ends too early")),
        }
    }

    #[inline]
    pub(super) fn count_items(&mut self) -> Result<usize, Fault> {
        self.count(1)
    }

    /// The number of members that follow. A member has at least two bytes: the length of its key, and the tag of its
    /// value.
    #[inline]
    pub(super) fn count_members(&mut self) -> Result<usize, Fault> {
        self.count(2)
    }

    /// The limits on the nesting inside an array or object. If they are used up, the bytes are damaged.
    #[inline]
    pub(super) fn inside(&mut self, depth: Depth) -> Result<Depth, Fault> {
        match depth.enter_container() {
            Some(depth) => Ok(depth),
            None => Err(self.damage("nested too deeply")),
        }
    }

    /// Skips a value, and checks all of it.
    ///
    /// # Errors
    ///
    /// The value is damaged.
    pub(super) fn skip(&mut self, depth: Depth) -> Result<(), Fault> {
        match self.byte()? {
            NULL => Ok(()),
            BOOL => self.boolean().map(drop),
            UNSIGNED => self.varint().map(drop),
            NEGATIVE => self.negative().map(drop),
            FLOAT => self.float().map(drop),
            TEXT => self.text().map(drop),
            ARRAY => {
                let depth = self.inside(depth)?;
                let count = self.count_items()?;
                (0..count).try_for_each(|_| self.skip(depth))
            }
            OBJECT => {
                let depth = self.inside(depth)?;
                let mut before = None;
                for _ in 0..self.count_members()? {
                    before = Some(self.key(before)?);
                    self.skip(depth)?;
                }
                Ok(())
            }
            _ => Err(self.damage("an unknown tag")),
        }
    }
}

/// Whether the first key sorts before the second. Their first bytes usually decide.
#[inline]
fn is_ascending(first: &[u8], second: &[u8]) -> bool {
    match (first, second) {
        ([a, ..], [b, ..]) if a != b => a < b,
        _ => first < second,
    }
}
