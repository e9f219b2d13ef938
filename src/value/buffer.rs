//! The buffer into which a value is encoded. It sorts the members of objects, and corrects the counts of items,
//! whatever a type claims about itself. It does not depend on `serde`.
use super::fault::Fault;
use super::wire::{MORE, Reader, VARINT_BYTES_MAX};
use smallvec::SmallVec;
use std::cmp::Ordering;
use std::fmt::{self, Write};

/// The size in bytes up to which a value is written without an allocation; most values are smaller.
const SMALL_BYTES: usize = 256;
/// The number of unfinished members that are kept without an allocation.
const SMALL_MEMBERS: usize = 32;

/// The bytes that were written so far, and the unfinished members.
pub(super) struct Buffer {
    bytes: SmallVec<[u8; SMALL_BYTES]>,
    /// The members of all unfinished objects. Those of an inner object come after those of the outer one.
    members: SmallVec<[Member; SMALL_MEMBERS]>,
}

/// A member of an object: a key and its value.
#[derive(Clone, Copy)]
struct Member {
    /// The first bytes of the key, padded with zeros. They decide the order of most keys.
    prefix: u64,
    /// The offset at which the member begins.
    start: usize,
    /// The offset at which the member ends. It is set for sorting only.
    end: usize,
}

/// A position in a buffer, to which the buffer can be truncated.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Mark {
    bytes: usize,
    members: usize,
}

impl Buffer {
    #[inline]
    pub(super) fn new() -> Self {
        Self { bytes: SmallVec::new(), members: SmallVec::new() }
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[inline]
    pub(super) fn mark(&self) -> Mark {
        Mark { bytes: self.bytes.len(), members: self.members.len() }
    }

    /// Removes the bytes and members that were written since the mark.
    pub(super) fn cut(&mut self, mark: Mark) {
        self.bytes.truncate(mark.bytes);
        self.members.truncate(mark.members);
    }

    #[inline]
    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    #[inline]
    pub(super) fn varint(&mut self, number: u64) {
        match u8::try_from(number) {
            Ok(byte) if byte < MORE => self.byte(byte),
            _ => self.long_varint(number),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self, number: u64) {
        let mut room = [0; VARINT_BYTES_MAX];
        self.bytes(postcard::to_slice(&number, &mut room).expect("the longest varint fits"));
    }

    #[inline]
    fn count(&mut self, count: usize) {
        self.varint(u64::try_from(count).expect("no machine counts further"));
    }

    #[inline]
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes a text, after its length.
    #[inline]
    pub(super) fn text(&mut self, text: &str) {
        self.count(text.len());
        self.bytes(text.as_bytes());
    }

    /// Writes the displayed form of a value as a text, after its length.
    ///
    /// # Errors
    ///
    /// The value's `Display` fails.
    pub(super) fn displayed<T: fmt::Display + ?Sized>(&mut self, text: &T) -> Result<(), Fault> {
        let at = self.claim(0);
        let start = self.bytes.len();
        write!(self, "{text}").map_err(|_| Fault::new("its `Display` fails"))?;
        self.settle(at, 0, self.bytes.len() - start);
        Ok(())
    }

    /// Removes and returns the text that was written since the mark.
    pub(super) fn take_text(&mut self, mark: Mark) -> Option<String> {
        let text = Reader::new(self.bytes.get(mark.bytes..)?).text().ok()?.to_owned();
        self.cut(mark);
        Some(text)
    }

    /// Writes the number of items that a type claims to have. Returns its position, at which [`settle`](Self::settle)
    /// corrects it.
    #[inline]
    pub(super) fn claim(&mut self, claimed: usize) -> usize {
        let at = self.bytes.len();
        self.count(claimed);
        at
    }

    /// Replaces the claimed number by the right one, if they differ.
    #[inline]
    pub(super) fn settle(&mut self, at: usize, claimed: usize, count: usize) {
        if claimed != count {
            self.replace_count(at, claimed, count);
        }
    }

    #[inline(never)]
    fn replace_count(&mut self, at: usize, claimed: usize, count: usize) {
        match u8::try_from(count) {
            Ok(byte) if byte < MORE && claimed < usize::from(MORE) => self.bytes[at] = byte,
            _ => {
                let length = claimed.max(1).ilog2() as usize / 7 + 1;
                let rest: SmallVec<[u8; SMALL_BYTES]> = SmallVec::from_slice(&self.bytes[at + length..]);
                self.bytes.truncate(at);
                self.count(count);
                self.bytes(&rest);
            }
        }
    }

    /// Begins a member of an object with its key.
    #[inline]
    pub(super) fn member(&mut self, key: &str) {
        let start = self.bytes.len();
        self.members.push(Member { prefix: prefix(key.as_bytes()), start, end: start });
        self.text(key);
    }

    /// Begins a member of an object with the key that was written since the mark.
    #[inline]
    pub(super) fn member_from(&mut self, mark: Mark) {
        let prefix = prefix(key_at(&self.bytes, mark.bytes));
        self.members.push(Member { prefix, start: mark.bytes, end: mark.bytes });
    }

    /// Sorts the members since the mark. Of members with the same key, the last one stays. Returns their number.
    #[inline]
    pub(super) fn order(&mut self, mark: Mark) -> usize {
        let members = &self.members[mark.members..];
        let is_sorted = members.is_sorted_by(|one, next| one.prefix < next.prefix);
        let count = if is_sorted { members.len() } else { self.sort(mark) };
        self.members.truncate(mark.members);
        count
    }

    #[inline(never)]
    fn sort(&mut self, mark: Mark) -> usize {
        let Self { bytes, members } = self;
        let members = &mut members[mark.members..];
        let first = members[0].start;
        // Each member ends where the next one begins.
        let mut end = bytes.len();
        for member in members.iter_mut().rev() {
            member.end = std::mem::replace(&mut end, member.start);
        }
        let old: SmallVec<[u8; SMALL_BYTES]> = SmallVec::from_slice(&bytes[first..]);
        let key = |member: &Member| key_at(&old, member.start - first);
        let compare = |one: &Member, other: &Member| match one.prefix.cmp(&other.prefix) {
            Ordering::Equal => key(one).cmp(key(other)),
            order => order,
        };
        members.sort_unstable_by(|one, other| compare(one, other).then(one.start.cmp(&other.start)));
        bytes.truncate(first);
        let mut count = 0;
        for (at, member) in members.iter().enumerate() {
            let is_last = members.get(at + 1).is_none_or(|next| compare(member, next).is_lt());
            if is_last {
                bytes.extend_from_slice(&old[member.start - first..member.end - first]);
                count += 1;
            }
        }
        count
    }
}

/// The key of the member that begins at `start`.
fn key_at(bytes: &[u8], start: usize) -> &[u8] {
    Reader::new(&bytes[start..]).sized().expect("a key that was just written")
}

#[inline]
fn prefix(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => key.iter().rev().fold(0, |prefix, byte| (prefix >> 8) | (u64::from(*byte) << 56)),
    }
}

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}
