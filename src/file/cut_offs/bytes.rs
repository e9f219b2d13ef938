//! The bytes of the log: its header and its entries. Pure.
//!
//! The byte map is in [`format`](crate::_documentation::format).
use crate::id::PublicId;

/// The size of the header and of each entry. It divides a sector, so no entry lies in two.
pub(super) const LINE: usize = 64;
/// The header or an entry.
pub(super) type Line = [u8; LINE];

const MAGIC: [u8; 8] = *b"SESSCUTS";
const FORMAT: u8 = 1;
const FORMAT_AT: usize = 8;
/// The offset of the flags in the file.
pub(super) const FLAGS_AT: usize = FORMAT_AT + 1;
const FIRST_AT: usize = 16;
const HEADER_CHECK_AT: usize = 52;

const USER_AT: usize = 8;
const TIME_AT: usize = USER_AT + 16;
const EXCEPT_AT: usize = TIME_AT + 8;
const CHECK_AT: usize = EXCEPT_AT + PublicId::LEN;
const CHECK_LEN: usize = 12;
const _: () = assert!(CHECK_AT + CHECK_LEN == LINE && HEADER_CHECK_AT + CHECK_LEN == LINE);

/// A sync of this file failed, so a later sync of it proves nothing.
pub(super) const SYNC_FAILED: u8 = 1;
/// The name of this file may not be on the disk.
pub(super) const NAME_UNSYNCED: u8 = 2;

/// One cut-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Greater than that of each earlier entry; never 0.
    pub(super) number: u64,
    /// The digest of the user; `None` for all sessions.
    pub(super) user: Option<[u8; 16]>,
    /// The time of the cut-off, in microseconds since 1970.
    pub(super) time: u64,
    /// The session that stays.
    pub(super) except: Option<PublicId>,
}

impl Entry {
    pub(super) fn to_line(self) -> Line {
        let mut line = [0; LINE];
        line[..USER_AT].copy_from_slice(&self.number.to_le_bytes());
        line[USER_AT..TIME_AT].copy_from_slice(&self.user.unwrap_or_default());
        line[TIME_AT..EXCEPT_AT].copy_from_slice(&self.time.to_le_bytes());
        let except = self.except.map_or([0; PublicId::LEN], |id| *id.as_bytes());
        line[EXCEPT_AT..CHECK_AT].copy_from_slice(&except);
        let check = check_of(b"sessile: an entry of cut-offs   ", &line);
        line[CHECK_AT..].copy_from_slice(&check);
        line
    }

    /// `None` if the line fails its check.
    pub(super) fn from_line(line: &Line) -> Option<Self> {
        let number = u64::from_le_bytes(field(line, 0));
        let user = field(line, USER_AT);
        let except = field(line, EXCEPT_AT);
        let entry = Self {
            number,
            user: (user != [0; 16]).then_some(user),
            time: u64::from_le_bytes(field(line, TIME_AT)),
            except: (except != [0; PublicId::LEN]).then(|| PublicId::from_bytes(except)),
        };
        (number != 0 && entry.to_line() == *line).then_some(entry)
    }
}

/// The header of a log in which no entry has a number up to `first`.
pub(super) fn header(first: u64, flags: u8) -> Line {
    let mut line = [0; LINE];
    line[..MAGIC.len()].copy_from_slice(&MAGIC);
    line[FORMAT_AT] = FORMAT;
    line[FIRST_AT..FIRST_AT + 8].copy_from_slice(&first.to_le_bytes());
    // The flags change in place, so the check leaves them out.
    let check = check_of(b"sessile: a log of cut-offs      ", &line);
    line[HEADER_CHECK_AT..].copy_from_slice(&check);
    line[FLAGS_AT] = flags;
    line
}

/// The number before the first entry, and the flags; `None` if the line is no header of this format.
pub(super) fn read_header(line: &Line) -> Option<(u64, u8)> {
    let (first, flags) = (u64::from_le_bytes(field(line, FIRST_AT)), line[FLAGS_AT]);
    (header(first, flags) == *line).then_some((first, flags))
}

fn check_of(domain: &[u8; 32], line: &Line) -> [u8; CHECK_LEN] {
    let hash = blake3::keyed_hash(domain, &line[..CHECK_AT]);
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

fn field<const N: usize>(line: &Line, at: usize) -> [u8; N] {
    line[at..at + N].try_into().expect("the range has N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_headers_come_back_as_they_went_in() {
        let id = PublicId::digest(b"session");
        for (user, except) in [(None, None), (Some([7; 16]), None), (Some([7; 16]), Some(id))] {
            let entry = Entry { number: 3, user, time: 5, except };
            assert_eq!(Entry::from_line(&entry.to_line()), Some(entry));
        }
        for (first, flags) in [(0, 0), (9, SYNC_FAILED), (u64::MAX, NAME_UNSYNCED)] {
            assert_eq!(read_header(&header(first, flags)), Some((first, flags)));
        }
    }

    #[test]
    fn every_bit_flip_of_an_entry_is_refused() {
        let entry = Entry { number: 3, user: Some([7; 16]), time: 5, except: None };
        let head = header(9, 0);
        for bit in 0..LINE * 8 {
            let flipped = |mut line: Line| {
                line[bit / 8] ^= 1 << (bit % 8);
                line
            };
            assert_eq!(Entry::from_line(&flipped(entry.to_line())), None, "bit {bit}");
            let is_flag = bit / 8 == FLAGS_AT;
            assert_eq!(read_header(&flipped(head)).is_some(), is_flag, "bit {bit} of the header");
        }
        for line in [[0; LINE], [0xff; LINE], head] {
            assert_eq!(Entry::from_line(&line), None);
        }
        assert_eq!(read_header(&entry.to_line()), None);
    }
}
