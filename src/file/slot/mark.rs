//! The bytes of the mark of a moved session: a slot that names the id to which a rotation has moved the session.
//!
//! The slot's prefix is that of a version, with the magic "MOVE". In place of the record there are 29 bytes:
//!
//! ```text
//! offset size field
//!     40   20 successor   the PublicId of the session from now on
//!     60    8 until       the end of the grace period, in microseconds since 1970
//!     68    1 kind        0 for a mere rotation, 1 for a login
//! ```
//!
//! A mark whose checksum does not verify counts as a tombstone, so the version in the other slot is not returned.
use super::{
    CHECKSUM_AT, Claim, FORMAT, FORMAT_AT, Header, LENGTH_AT, MOVED, PREFIX_LEN, SEQUENCE_AT, SLOT_SIZE_AT,
    STATE_AT, checksum, claim, claims_size, field, log2, put, verified,
};
use crate::clock::from_micros;
use crate::id::PublicId;
use crate::store::{Moved, is_within_grace};

const UNTIL_AT: usize = PREFIX_LEN + PublicId::LEN;
const KIND_AT: usize = UNTIL_AT + 8;
/// The number of bytes of a mark: its prefix and its body.
pub(in crate::file) const MARK_LEN: usize = KIND_AT + 1;
/// The number of bytes of a mark's body, which its prefix states as the length.
const MARK_BODY: u32 = 29;
const _: () = assert!(MARK_LEN == PREFIX_LEN + MARK_BODY as usize, "the table above says 29");

/// The mark that a rotation leaves under the old id of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::file) struct Mark {
    /// The id to which the session has moved.
    pub(in crate::file) successor: PublicId,
    /// The end of the grace period, in microseconds since 1970.
    pub(in crate::file) until: u64,
    pub(in crate::file) by_login: bool,
}

impl Mark {
    /// Whether the grace period has not ended at `now`, in microseconds since 1970.
    pub(in crate::file) fn is_within_grace(self, now: u64) -> bool {
        is_within_grace(from_micros(self.until), from_micros(now))
    }

    /// The part of the mark that callers of the store get: all but the successor.
    pub(in crate::file) fn to_moved(self, id: PublicId) -> Moved {
        let until = from_micros(self.until);
        Moved { id, by_login: self.by_login, until }
    }
}

/// Encodes a slot with the mark of a moved session. The slot has the size `slot_size_min` of the header.
pub(in crate::file) fn encode_mark(mark: &Mark, header: &Header<'_>) -> [u8; MARK_LEN] {
    let mut bytes = [0; MARK_LEN];
    put(&mut bytes, 0, MOVED);
    put(&mut bytes, FORMAT_AT, FORMAT.to_le_bytes());
    put(&mut bytes, SLOT_SIZE_AT, [log2(header.slot_size_min)]);
    put(&mut bytes, SEQUENCE_AT, header.sequence.to_le_bytes());
    put(&mut bytes, LENGTH_AT, MARK_BODY.to_le_bytes());
    put(&mut bytes, PREFIX_LEN, *mark.successor.as_bytes());
    put(&mut bytes, UNTIL_AT, mark.until.to_le_bytes());
    put(&mut bytes, KIND_AT, [u8::from(mark.by_login)]);
    let checksum = checksum(&bytes, &bytes[PREFIX_LEN..], header.id);
    put(&mut bytes, STATE_AT, [header.state.to_byte()]);
    put(&mut bytes, CHECKSUM_AT, checksum);
    bytes
}

/// Reads the mark in a whole slot: the reverse of [`encode_mark`]. `None` if any byte of it is missing or changed, or
/// if it is of another session or another format: then the slot ends its session, like a tombstone.
pub(in crate::file) fn decode_mark(slot: &[u8], id: &PublicId) -> Option<Mark> {
    if claim(slot) != Claim::Moved || !claims_size(slot) || field(slot, FORMAT_AT) != FORMAT.to_le_bytes() {
        return None;
    }
    let is_whole = field(slot, LENGTH_AT) == MARK_BODY.to_le_bytes()
        && verified(slot, &slot[PREFIX_LEN..MARK_LEN], id).is_ok();
    let by_login = match slot[KIND_AT] {
        _ if !is_whole => return None,
        0 => false,
        1 => true,
        _ => return None,
    };
    let successor = PublicId::from_bytes(field(slot, PREFIX_LEN));
    Some(Mark { successor, until: u64::from_le_bytes(field(slot, UNTIL_AT)), by_login })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{id, sample, slot};
    use super::super::{RESERVED_AT, SLOT_MIN, State, Version, decode, state};
    use super::*;
    use crate::clock::micros;
    use crate::error::ErrorKind;
    use crate::id::SessionId;

    fn marks() -> [Mark; 3] {
        let successor = SessionId::parse(&"c".repeat(32)).unwrap().public_id();
        [(0, false), (1_700_000_000_000_000, true), (u64::MAX, false)].map(|(until, by_login)| Mark {
            successor,
            until,
            by_login,
        })
    }
    fn marked(mark: &Mark, sequence: u64) -> Vec<u8> {
        let own = id();
        let header = Header { id: &own, sequence, state: State::NAME_SYNCED, slot_size_min: SLOT_MIN };
        let mut bytes = encode_mark(mark, &header).to_vec();
        bytes.resize(SLOT_MIN, 0xee);
        bytes
    }

    #[test]
    fn a_mark_is_read_as_it_was_written_and_opens_nothing() {
        for mark in marks() {
            let bytes = marked(&mark, 8);
            assert_eq!((claim(&bytes), decode_mark(&bytes, &id())), (Claim::Moved, Some(mark)));
            assert_eq!((state(&bytes), Version::claimed(&bytes).sequence), (State::NAME_SYNCED, 8));
            assert_eq!(decode(&bytes, &id()).unwrap_err().kind(), ErrorKind::Corrupt);
            let moved = mark.to_moved(id());
            assert_eq!((moved.id, moved.by_login), (id(), mark.by_login));
            assert_eq!(micros(moved.until), mark.until);
        }
        // The exact bytes of a mark, for readers in other languages.
        let bytes = marked(&marks()[1], 8);
        assert_eq!(bytes[..8], *b"MOVE\x02\x00\x0b\x02");
        assert_eq!(bytes[8..24], [8, 0, 0, 0, 0, 0, 0, 0, 29, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[40..60], *marks()[1].successor.as_bytes());
        assert_eq!((&bytes[60..68], bytes[68]), (&1_700_000_000_000_000_u64.to_le_bytes()[..], 1));
    }

    #[test]
    fn every_bit_flip_of_a_mark_is_refused_but_in_the_state() {
        let good = marked(&marks()[1], 8);
        for bit in (0..MARK_LEN * 8).step_by(if cfg!(miri) { 31 } else { 1 }) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_mark(&bad, &id()).is_some(), bit / 8 == STATE_AT, "bit {bit}");
        }
        let other = SessionId::parse(&"b".repeat(32)).unwrap().public_id();
        assert_eq!(decode_mark(&good, &other), None, "of another session");
        assert_eq!(decode_mark(&good.repeat(2), &id()), None, "in a larger slot");
        for record in [slot(&sample()), vec![0; SLOT_MIN]] {
            assert_eq!(decode_mark(&record, &id()), None);
        }
    }

    /// The same test as that with [`refusal_of_sealed`], for marks.
    #[test]
    fn a_mark_that_no_encoder_writes_is_refused_under_a_good_checksum() {
        let sealed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = marked(&marks()[1], 8);
            change(&mut bytes);
            let length = u32::from_le_bytes(field(&bytes, LENGTH_AT)) as usize;
            let mut prefix: [u8; PREFIX_LEN] = field(&bytes, 0);
            prefix[STATE_AT] = 0;
            prefix[CHECKSUM_AT..].fill(0);
            let sum = checksum(&prefix, &bytes[PREFIX_LEN..][..length], &id());
            put(&mut bytes, CHECKSUM_AT, sum);
            decode_mark(&bytes, &id())
        };
        assert_eq!(sealed(&|_| ()), Some(marks()[1]));
        assert_eq!(sealed(&|bytes| bytes[KIND_AT] = 2), None);
        assert_eq!(sealed(&|bytes| bytes[RESERVED_AT] = 1), None);
        assert_eq!(sealed(&|bytes| bytes[FORMAT_AT] = 3), None);
        assert_eq!(sealed(&|bytes| put(bytes, SEQUENCE_AT, [0; 8])), None);
        for length in [28, 30] {
            assert_eq!(sealed(&|bytes| bytes[LENGTH_AT] = length), None, "{length}");
        }
    }
}
