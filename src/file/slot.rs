//! The bytes of one slot of a session file (a file has two, each for one version of the session): how they are written
//! and read. This module opens no file and reads no clock.
//!
//! ```text
//! offset size field
//!      0    4 magic       "SESS"
//!      4    2 format      2; a newer one is never "invalid", it is `NewerFormat`; an older one is `OlderFormat`
//!      6    1 slot size   its binary logarithm, 11..=25
//!      7    1 state       flags of `State`, changed in place: NOT covered by the checksum
//!      8    8 sequence    1 for the first version, then one more with each save
//!     16    4 length      bytes of the record
//!     20    4 reserved    zero, checked
//!     24   16 checksum    first half of BLAKE3 over the record; the key is the PublicId and bytes 4..16 above, the
//!                         state taken as zero
//!     40    … record      as it is in memory, to the byte: see `record`
//! ```
//!
//! All integers are little-endian. A slot that is all zero was never written. A slot that begins with "GONE" ends the
//! whole session: it is written into a file that is about to lose its name, or just has. A slot that begins with "VOID"
//! is the result of a failed write; its slot size stays valid.
//!
//! A slot that begins with "MOVE" ends the session under this id, and says where it went: see `mark`.
//!
//! - The checksum is keyed with the [`PublicId`], so a file copied over another one does not verify. The checksum
//!   detects damage; it is no signature, because a visitor who knows an id can compute its `PublicId`.
//! - Each byte of the prefix is compared with a constant (magic, reserved), is in the key (format, slot size, sequence)
//!   or is the number of bytes that were hashed (length), so a slot with a changed byte does not verify. If the prefix
//!   were hashed with the record, BLAKE3 would need one more block.
//! - Magic, format, slot size and state have had their places since format 1.
//! - The bytes behind the record in a slot are left over from older versions and are never read.
mod mark;

pub(super) use mark::{MARK_LEN, Mark, decode_mark, encode_mark};

use crate::error::{Error, ErrorKind, Result};
use crate::id::PublicId;
use crate::record::{self, Record};

const MAGIC: [u8; 4] = *b"SESS";
/// The first four bytes of a slot whose session was ended.
const TOMBSTONE: [u8; 4] = *b"GONE";
/// The first four bytes of a slot whose session has moved to another id. Under this id it does not exist any more.
const MOVED: [u8; 4] = *b"MOVE";
/// The first four bytes of a slot to which a write has failed. It holds no version.
const VOID: [u8; 4] = *b"VOID";
const FORMAT: u16 = 2;

const FORMAT_AT: usize = MAGIC.len();
const SLOT_SIZE_AT: usize = FORMAT_AT + 2;
pub(super) const STATE_AT: usize = SLOT_SIZE_AT + 1;
const SEQUENCE_AT: usize = STATE_AT + 1;
const LENGTH_AT: usize = SEQUENCE_AT + 8;
const RESERVED_AT: usize = LENGTH_AT + 4;
const CHECKSUM_AT: usize = RESERVED_AT + 4;
/// The number of bytes before the record.
pub(super) const PREFIX_LEN: usize = CHECKSUM_AT + 16;
const _: () = assert!(PREFIX_LEN == 40, "the table above says 40");

/// The size of the smallest slot, in bytes. Two of them are one block of 4 KiB, which is enough for most sessions.
pub(super) const SLOT_MIN: usize = 2048;
/// The size of the largest slot: 32 MiB, enough for the highest limit of a record, 16 MiB, and the prefix.
pub(super) const SLOT_MAX: usize = 1 << 25;
const _: () =
    assert!(record::BYTES_MAX >= SLOT_MAX - PREFIX_LEN, "a slot holds no record that is larger than any");

/// The flags in the state byte of a slot: facts about the slot and its file that are not part of the contents. They are
/// changed in place, after a sync for example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State(u8);

impl State {
    /// No flag is set: the slot was just written, and may not be on the disk.
    pub(super) const WRITTEN: Self = Self(0);
    /// The slot's contents were synced.
    pub(super) const DATA_SYNCED: Self = Self(1);
    /// The name of this file was synced. Later slots of the same file inherit the flag.
    pub(super) const NAME_SYNCED: Self = Self(2);
    /// The file is about to be replaced or unlinked, so a lock on it is not enough: its holder must check that the path
    /// still leads to the file.
    pub(super) const RETIRING: Self = Self(4);
    /// A sync of this file has failed, so a further sync of it proves nothing.
    pub(super) const SYNC_FAILED: Self = Self(8);
    /// This file has replaced another one. Until its name is synced, a power cut may give the name back to the other
    /// file.
    pub(super) const REPLACES: Self = Self(16);

    pub(super) fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
    pub(super) fn and(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }
    /// The flags that a new slot of the same inode inherits.
    pub(super) fn inherited(self) -> Self {
        Self(self.0 & (Self::NAME_SYNCED.0 | Self::SYNC_FAILED.0 | Self::REPLACES.0))
    }
    /// Whether a power cut may give the name back to an older file.
    pub(super) fn name_may_fall_back(self) -> bool {
        self.has(Self::REPLACES) && !self.has(Self::NAME_SYNCED)
    }
    pub(super) fn to_byte(self) -> u8 {
        self.0
    }
}

/// What the first bytes of a slot state, before its checksum is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// All bytes of the prefix are zero, so the slot was never written.
    Empty,
    /// A tombstone: the session has ended, whatever the other slot holds.
    Ended,
    /// The mark of a moved session. It has ended under this id, whatever the other slot holds, and whether the mark's
    /// checksum verifies or not.
    Moved,
    /// A version in a newer format than this crate writes.
    Newer,
    /// A version in a format that an earlier version of this crate has written.
    Older,
    /// A version in the format of this crate, with the sequence number that the slot states.
    Sequence(u64),
    /// Any other bytes.
    Other,
}

/// The identity of a version of a session. Equal versions of one session have equal contents, whatever the sequence,
/// because the checksum is a cryptographic hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// The number of the version: 1 for the first one, and one more with each save.
    pub(super) sequence: u64,
    checksum: [u8; 16],
}

impl Version {
    /// The version that a slot states. It is not verified.
    pub(super) fn claimed(slot: &[u8]) -> Self {
        Self { sequence: u64::from_le_bytes(field(slot, SEQUENCE_AT)), checksum: field(slot, CHECKSUM_AT) }
    }
    /// The sequence number of the next version; `None` if the numbers are used up, because the largest one is not used.
    pub(super) fn next_sequence(&self) -> Option<u64> {
        self.sequence.checked_add(1).filter(|next| *next != u64::MAX)
    }
}

/// The contents of a slot whose checksum was verified.
#[derive(Debug)]
pub(super) struct Decoded {
    /// The record. If the caller had a cached copy of this version, the record shares its bytes.
    pub(super) record: Record,
    pub(super) version: Version,
    pub(super) state: State,
}

/// The sizes of a record that a store's limits apply to: those of the visitor's entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// The number of bytes with the prefix, but without the user's name and the device note.
    pub(super) bytes: usize,
    pub(super) entries: usize,
}

impl Extent {
    pub(super) fn of(record: &Record) -> Self {
        let bytes = PREFIX_LEN + record.as_bytes().len() - record.login_bytes();
        Self { bytes, entries: record.entry_count() }
    }
}

/// The fields of a slot beside its record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    /// The public id of the session. It is part of the checksum's key.
    pub(super) id: &'a PublicId,
    pub(super) sequence: u64,
    pub(super) state: State,
    /// The smallest size of the slot, in bytes; 0 if any slot will do that is large enough for the record.
    pub(super) slot_size_min: usize,
}

/// A version as it is written to a slot: the prefix, and the bytes of the record, which are shared and not copied.
#[derive(Debug)]
pub(super) struct Encoded {
    prefix: [u8; PREFIX_LEN],
    record: Record,
}

impl Encoded {
    /// The size of the slot that [`encode`] has chosen, in bytes.
    pub(super) fn slot_size(&self) -> usize {
        1 << self.prefix[SLOT_SIZE_AT]
    }
    pub(super) fn version(&self) -> Version {
        Version::claimed(&self.prefix)
    }
    /// The bytes of the prefix and of the record, in the order in which they are in the slot.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        [&self.prefix, self.record.as_bytes()]
    }
    /// The same version with other flags. The checksum does not cover them.
    pub(super) fn with_state(mut self, state: State) -> Self {
        self.prefix[STATE_AT] = state.to_byte();
        self
    }
    /// The bytes of the version, in one vector.
    #[cfg(any(test, feature = "internals"))]
    pub(super) fn to_vec(&self) -> Vec<u8> {
        self.parts().concat()
    }
}

/// Encodes a record as the bytes of a slot: prefix and record, without padding.
///
/// The slot size is the smallest power of two that holds them, at least [`SLOT_MIN`] and the header's `slot_size_min`.
///
/// # Errors
///
/// [`ErrorKind::TooLarge`] beyond `bytes_max`, counted with the prefix and without the user and the device note.
pub(super) fn encode(record: &Record, header: &Header<'_>, bytes_max: usize) -> Result<Encoded> {
    let length = record.as_bytes().len();
    let total = PREFIX_LEN + length;
    let bytes = Extent::of(record).bytes;
    if bytes > bytes_max || total > SLOT_MAX {
        let reason = format!("{bytes} bytes, where the limit is {bytes_max}");
        return Err(Error::new(ErrorKind::TooLarge, "encode session record").with_reason(reason));
    }
    let slot_size = total.next_power_of_two().max(SLOT_MIN).max(header.slot_size_min);
    let length = u32::try_from(length).expect("at most SLOT_MAX, checked above");
    let mut prefix = [0; PREFIX_LEN];
    put(&mut prefix, 0, MAGIC);
    put(&mut prefix, FORMAT_AT, FORMAT.to_le_bytes());
    put(&mut prefix, SLOT_SIZE_AT, [log2(slot_size)]);
    put(&mut prefix, SEQUENCE_AT, header.sequence.to_le_bytes());
    put(&mut prefix, LENGTH_AT, length.to_le_bytes());
    let checksum = checksum(&prefix, record.as_bytes(), header.id);
    put(&mut prefix, STATE_AT, [header.state.to_byte()]);
    put(&mut prefix, CHECKSUM_AT, checksum);
    Ok(Encoded { prefix, record: record.clone() })
}

/// The first bytes of a slot that ends its session.
pub(super) fn tombstone() -> [u8; PREFIX_LEN] {
    let mut prefix = [0; PREFIX_LEN];
    put(&mut prefix, 0, TOMBSTONE);
    prefix
}

/// The prefix of a slot of this size whose write failed. It is not zero, because a reader takes a zero slot for one
/// that was never written.
pub(super) fn void(slot_size: usize) -> [u8; PREFIX_LEN] {
    let mut prefix = [0; PREFIX_LEN];
    put(&mut prefix, 0, VOID);
    put(&mut prefix, SLOT_SIZE_AT, [log2(slot_size)]);
    prefix
}

fn log2(slot_size: usize) -> u8 {
    u8::try_from(slot_size.trailing_zeros()).expect("at most 63")
}

/// Whether the size that a slot states is its actual size.
pub(super) fn claims_size(slot: &[u8]) -> bool {
    claimed_size(slot) == Some(slot.len())
}

/// The size that a slot states; `None` if it is no valid size.
pub(super) fn claimed_size(slot: &[u8]) -> Option<usize> {
    1_usize.checked_shl(slot[SLOT_SIZE_AT].into())
}

/// Whether these bytes are the beginning of a slot that claims to be larger, because its file was truncated. The second
/// half of such a file is the middle of a visitor's data, and may look like a slot. (If only the claimed size is wrong,
/// the slot is not cut; the checksum, which covers the size that was written, tells.)
pub(super) fn is_cut(slot: &[u8], id: &PublicId) -> bool {
    let is_larger = |size| size > slot.len() && size <= SLOT_MAX;
    let says_so = [MAGIC, VOID].contains(&field(slot, 0)) && claimed_size(slot).is_some_and(is_larger);
    says_so && {
        let mut as_it_is = slot.to_vec();
        as_it_is[SLOT_SIZE_AT] = log2(slot.len());
        decode(&as_it_is, id).is_err()
    }
}

/// Classifies the first bytes of a slot without verifying them.
pub(super) fn claim(slot: &[u8]) -> Claim {
    let Some(prefix) = slot.first_chunk::<PREFIX_LEN>() else { return Claim::Other };
    if *prefix == [0; PREFIX_LEN] {
        return Claim::Empty;
    }
    let format = u16::from_le_bytes(field(prefix, FORMAT_AT));
    match (field(prefix, 0), format) {
        (TOMBSTONE, _) => Claim::Ended,
        (MOVED, _) => Claim::Moved,
        (MAGIC, FORMAT) => Claim::Sequence(u64::from_le_bytes(field(prefix, SEQUENCE_AT))),
        (MAGIC, format) if format > FORMAT => Claim::Newer,
        (MAGIC, 1) => Claim::Older,
        _ => Claim::Other,
    }
}

/// Reads a whole slot: the reverse of [`encode`].
///
/// # Errors
///
/// [`ErrorKind::Corrupt`] if any byte of prefix or record is missing or changed, or if the slot belongs to another
/// session; [`ErrorKind::NewerFormat`] and [`ErrorKind::OlderFormat`] for a format of another version of this crate. An
/// expired record is *not* an error.
pub(super) fn decode(slot: &[u8], id: &PublicId) -> Result<Decoded> {
    let corrupt =
        |reason: &'static str| Error::new(ErrorKind::Corrupt, "decode session record").with_reason(reason);
    match claim(slot) {
        Claim::Sequence(_) => {}
        Claim::Empty => return Err(corrupt("the slot is empty")),
        Claim::Ended | Claim::Moved => return Err(corrupt("the session was ended")),
        Claim::Other => return Err(corrupt("not a session record")),
        Claim::Newer => return Err(other_format(slot, ErrorKind::NewerFormat)),
        Claim::Older => return Err(other_format(slot, ErrorKind::OlderFormat)),
    }
    if !claims_size(slot) {
        return Err(corrupt("its size is not that of the slot"));
    }
    let length = u32::from_le_bytes(field(slot, LENGTH_AT)) as usize;
    let record = PREFIX_LEN.checked_add(length).and_then(|end| slot.get(PREFIX_LEN..end));
    let record = record.ok_or_else(|| corrupt("its record is longer than the slot"))?;
    let version = verified(slot, record, id).map_err(corrupt)?;
    let record = Record::from_bytes(record)?;
    Ok(Decoded { record, version, state: state(slot) })
}

/// Verifies a slot with this body, and returns its version, or the reason why it is refused.
fn verified(slot: &[u8], body: &[u8], id: &PublicId) -> Result<Version, &'static str> {
    // The checksum does not cover the reserved bytes, so they are checked here.
    if slot[RESERVED_AT..CHECKSUM_AT] != [0; CHECKSUM_AT - RESERVED_AT] {
        return Err("reserved bytes are in use");
    }
    if checksum(slot, body, id) != field::<16>(slot, CHECKSUM_AT) {
        return Err("checksum mismatch");
    }
    // The checksum matches, so these bytes were written on purpose. The checks below fail only for crafted bytes, and
    // for those of a later version of this crate.
    let version = Version::claimed(slot);
    if matches!(version.sequence, 0 | u64::MAX) {
        return Err("a sequence that no save reaches");
    }
    Ok(version)
}

#[cold]
fn other_format(slot: &[u8], kind: ErrorKind) -> Error {
    let format = u16::from_le_bytes(field(slot, FORMAT_AT));
    Error::new(kind, "decode session record")
        .with_reason(format!("it has format {format}, this version knows {FORMAT}"))
}

/// The flags in the state byte of a slot.
pub(super) fn state(slot: &[u8]) -> State {
    State(slot[STATE_AT])
}

/// Computes the checksum of a version: that of its record, with a key that is derived from the session's id and the
/// fields of the prefix from the format to the sequence.
fn checksum(prefix: &[u8], record: &[u8], id: &PublicId) -> [u8; 16] {
    const FIELDS: usize = LENGTH_AT - FORMAT_AT;
    let mut key = [0; PublicId::LEN + FIELDS];
    put(&mut key, 0, *id.as_bytes());
    put(&mut key, PublicId::LEN, field::<FIELDS>(prefix, FORMAT_AT));
    key[PublicId::LEN + STATE_AT - FORMAT_AT] = 0;
    field(blake3::keyed_hash(&key, record).as_bytes(), 0)
}

/// The checksum of an encoded version. Used by the benchmark of the checksum alone.
#[cfg(feature = "internals")]
pub(super) fn checksum_of(encoded: &[u8], id: &PublicId) -> [u8; 16] {
    checksum(encoded, &encoded[PREFIX_LEN..], id)
}

/// A slot with a valid checksum over any record bytes. For tests of the decoder.
#[cfg(any(test, feature = "internals"))]
pub(super) fn sealed(sequence: u64, record: &[u8], id: &PublicId) -> Vec<u8> {
    let slot_size = (PREFIX_LEN + record.len()).next_power_of_two().max(SLOT_MIN);
    let mut prefix = [0; PREFIX_LEN];
    put(&mut prefix, 0, MAGIC);
    put(&mut prefix, FORMAT_AT, FORMAT.to_le_bytes());
    put(&mut prefix, SLOT_SIZE_AT, [log2(slot_size)]);
    put(&mut prefix, SEQUENCE_AT, sequence.to_le_bytes());
    put(&mut prefix, LENGTH_AT, u32::try_from(record.len()).expect("below 4 GiB").to_le_bytes());
    let sum = checksum(&prefix, record, id);
    put(&mut prefix, CHECKSUM_AT, sum);
    let mut slot = [&prefix, record].concat();
    slot.resize(slot_size, 0);
    slot
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has N bytes")
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, field: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&field);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;
    use crate::record::{Expiry, Timing};
    use crate::value::Value;
    use std::time::{Duration, UNIX_EPOCH};

    pub(super) fn id() -> PublicId {
        SessionId::parse(&"a".repeat(32)).unwrap().public_id()
    }
    pub(super) fn sample() -> Record {
        let mut record = Record::new(
            UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            UNIX_EPOCH + Duration::from_secs(1_700_000_300),
        );
        record.set_timing(Timing { expiry: Expiry::After(Duration::from_secs(300)), ..record.timing() });
        record.set_user("ada").unwrap();
        record.insert("cart", &Value::new(&["a", "b"]).unwrap()).unwrap();
        record.insert("visits", &Value::new(&6).unwrap()).unwrap();
        record
    }
    fn encoded(record: &Record) -> Encoded {
        let id = id();
        let header = Header { id: &id, sequence: 7, state: State::DATA_SYNCED, slot_size_min: 0 };
        encode(record, &header, SLOT_MAX).unwrap()
    }
    pub(super) fn slot(record: &Record) -> Vec<u8> {
        let encoded = encoded(record);
        let mut slot = encoded.to_vec();
        slot.resize(encoded.slot_size(), 0);
        slot
    }

    #[test]
    fn decode_returns_what_encode_wrote() {
        for record in [sample(), Record::new(UNIX_EPOCH, UNIX_EPOCH)] {
            let decoded = decode(&slot(&record), &id()).unwrap();
            assert_eq!((decoded.record, decoded.version.sequence), (record.clone(), 7));
            assert_eq!(decoded.state, State::DATA_SYNCED);
            assert_eq!(
                &slot(&record)[PREFIX_LEN..][..record.as_bytes().len()],
                record.as_bytes(),
                "verbatim"
            );
        }
    }

    #[test]
    fn every_bit_flip_is_refused_but_in_state_and_padding() {
        let good = slot(&sample());
        let used = encoded(&sample()).to_vec().len();
        // Under Miri, only some bits are flipped. The step has no common divisor with the bits of a byte, so that each
        // of them is flipped somewhere.
        for bit in (0..good.len() * 8).step_by(if cfg!(miri) { 331 } else { 1 }) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let harmless = bit / 8 == STATE_AT || bit / 8 >= used;
            assert_eq!(decode(&bad, &id()).is_ok(), harmless, "bit {bit}");
        }
    }

    /// The expected value is computed from the description of the format alone, as a reader in another language would
    /// do it.
    #[test]
    fn the_checksum_is_the_one_that_the_format_describes() {
        let (slot, record) = (slot(&sample()), sample());
        let mut key = id().as_bytes().to_vec();
        key.extend([2, 0, 11, 0]);
        key.extend(7_u64.to_le_bytes());
        assert_eq!((slot[4..7].to_vec(), &slot[8..16]), (vec![2, 0, 11], &7_u64.to_le_bytes()[..]));
        let hash = blake3::keyed_hash(&key.try_into().unwrap(), record.as_bytes());
        assert_eq!(slot[24..40], hash.as_bytes()[..16]);
    }

    /// For each field of the prefix that is in the checksum's key: if it has another value, the checksum does not
    /// verify.
    #[test]
    fn format_slot_size_and_sequence_are_part_of_the_checksum() {
        let (slot, record) = (slot(&sample()), sample());
        let sum = checksum(&slot, record.as_bytes(), &id());
        for at in FORMAT_AT..LENGTH_AT {
            let mut other = slot.clone();
            other[at] ^= 1;
            assert_eq!(checksum(&other, record.as_bytes(), &id()) == sum, at == STATE_AT, "byte {at}");
        }
    }

    #[test]
    fn a_slot_of_another_session_is_refused() {
        let other = SessionId::parse(&"b".repeat(32)).unwrap().public_id();
        let error = decode(&slot(&sample()), &other).unwrap_err();
        assert_eq!(error.to_string(), "failed to decode session record: checksum mismatch");
    }

    #[test]
    fn every_truncation_is_refused() {
        let good = slot(&sample());
        for length in (0..good.len()).step_by(if cfg!(miri) { 97 } else { 1 }) {
            assert_eq!(
                decode(&good[..length], &id()).unwrap_err().kind(),
                ErrorKind::Corrupt,
                "{length} bytes"
            );
        }
    }

    #[test]
    fn another_format_is_never_called_corrupt() {
        for (format, claimed, kind) in [
            (1, Claim::Older, ErrorKind::OlderFormat),
            (3, Claim::Newer, ErrorKind::NewerFormat),
            (u16::MAX, Claim::Newer, ErrorKind::NewerFormat),
        ] {
            let mut other = slot(&sample());
            put(&mut other, FORMAT_AT, format.to_le_bytes());
            assert_eq!(claim(&other), claimed);
            let error = decode(&other, &id()).unwrap_err();
            assert_eq!(error.kind(), kind);
            let text =
                format!("failed to decode session record: it has format {format}, this version knows 2");
            assert_eq!(error.to_string(), text);
        }
        // Only the record has a later layout, and not the slot. This version must not report that as damage.
        let mut record = sample().as_bytes().to_vec();
        record[0] += 1;
        assert_eq!(decode(&sealed(7, &record, &id()), &id()).unwrap_err().kind(), ErrorKind::NewerFormat);
    }

    #[test]
    fn slots_are_powers_of_two_from_2_kib_and_the_limit_is_exact() {
        let mut record = sample();
        let own = id();
        let first = Header { id: &own, sequence: 1, state: State::WRITTEN, slot_size_min: 0 };
        assert_eq!(encode(&record, &first, SLOT_MAX).unwrap().slot_size(), SLOT_MIN);
        let larger = Header { slot_size_min: 8192, ..first };
        assert_eq!(encode(&record, &larger, SLOT_MAX).unwrap().slot_size(), 8192);
        record.insert("blob", &Value::new(&"x".repeat(3000)).unwrap()).unwrap();
        record.set_device_note("note").unwrap();
        let bytes = encode(&record, &first, SLOT_MAX).unwrap().to_vec();
        assert_eq!(encode(&record, &first, SLOT_MAX).unwrap().slot_size(), 4096);
        // The user's name, "ada", and the device note, "note", have 7 bytes and are not counted.
        let counted = bytes.len() - 7;
        assert_eq!(Extent::of(&record).bytes, counted);
        assert!(encode(&record, &first, counted).is_ok());
        assert_eq!(encode(&record, &first, counted - 1).unwrap_err().kind(), ErrorKind::TooLarge);
    }

    #[test]
    #[cfg_attr(miri, ignore = "32 MiB are too many for Miri")]
    fn a_record_that_no_slot_holds_is_refused() {
        let mut record = Record::new(UNIX_EPOCH, UNIX_EPOCH);
        let fill = |record: &mut Record, bytes: usize| {
            record.insert("n", &Value::new(&"x".repeat(bytes)).unwrap()).unwrap();
            PREFIX_LEN + record.as_bytes().len()
        };
        let own = id();
        let first = Header { id: &own, sequence: 1, state: State::WRITTEN, slot_size_min: 0 };
        let frame = fill(&mut record, 1 << 24) - (1 << 24);
        for (bytes, fits) in [(SLOT_MAX - frame, true), (SLOT_MAX - frame + 1, false)] {
            fill(&mut record, bytes);
            let size = encode(&record, &first, usize::MAX).map(|encoded| encoded.slot_size());
            assert_eq!(
                size.map_err(|error| error.kind()),
                if fits { Ok(SLOT_MAX) } else { Err(ErrorKind::TooLarge) }
            );
        }
    }

    #[test]
    fn a_sealed_slot_verifies_and_decodes_to_its_fields() {
        let record = sample();
        let found = decode(&sealed(7, record.as_bytes(), &id()), &id()).unwrap();
        assert_eq!((&found.record, found.version.sequence), (&record, 7));
        assert_eq!(sealed(7, &[0; SLOT_MIN], &id()).len(), 2 * SLOT_MIN);
    }

    /// Makes a slot from these parts with a valid checksum, and returns the reason for which it is refused.
    #[track_caller]
    fn refusal_of_sealed(sequence: u64, reserved: [u8; 4], record: &[u8]) -> String {
        let mut bytes = sealed(sequence, record, &id());
        put(&mut bytes, RESERVED_AT, reserved);
        let sum = checksum(&bytes, record, &id());
        put(&mut bytes, CHECKSUM_AT, sum);
        let error = decode(&bytes, &id()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        error.to_string().strip_prefix("failed to decode session record: ").unwrap().to_owned()
    }

    #[test]
    fn what_no_encoder_writes_is_refused_under_a_good_checksum() {
        let record = sample();
        let record = record.as_bytes();
        for reserved in [[1, 0, 0, 0], [0, 0, 0, 1]] {
            assert_eq!(refusal_of_sealed(7, reserved, record), "reserved bytes are in use");
        }
        for sequence in [0, u64::MAX] {
            assert_eq!(refusal_of_sealed(sequence, [0; 4], record), "a sequence that no save reaches");
        }
        assert_eq!(refusal_of_sealed(7, [0; 4], &[record, &[0]].concat()), "its parts do not fill it");
        assert_eq!(refusal_of_sealed(7, [0; 4], &[]), "it is shorter than its header");
    }

    #[test]
    fn a_record_longer_than_its_slot_is_refused() {
        for (length, reason) in [
            (SLOT_MIN - PREFIX_LEN, "checksum mismatch"),
            (SLOT_MIN - PREFIX_LEN + 1, "its record is longer than the slot"),
            (u32::MAX as usize, "its record is longer than the slot"),
        ] {
            let mut bytes = slot(&sample());
            put(&mut bytes, LENGTH_AT, u32::try_from(length).unwrap().to_le_bytes());
            let error = decode(&bytes, &id()).unwrap_err();
            assert_eq!(error.to_string(), format!("failed to decode session record: {reason}"), "{length}");
        }
    }

    #[test]
    fn what_holds_no_version_says_what_it_is() {
        let refusal = |prefix: &[u8]| {
            let mut bytes = prefix.to_vec();
            bytes.resize(SLOT_MIN, 0);
            (claim(&bytes), decode(&bytes, &id()).unwrap_err().to_string())
        };
        let text = |reason| format!("failed to decode session record: {reason}");
        assert_eq!(refusal(&[]), (Claim::Empty, text("the slot is empty")));
        assert_eq!(refusal(&tombstone()), (Claim::Ended, text("the session was ended")));
        assert_eq!(refusal(b"MOVE\x02\x00\x0b"), (Claim::Moved, text("the session was ended")));
        assert!(void(SLOT_MIN).starts_with(b"VOID"));
        assert_eq!(refusal(&void(SLOT_MIN)), (Claim::Other, text("not a session record")));
        let mut of_no_format = slot(&sample());
        of_no_format[FORMAT_AT] = 0;
        assert_eq!(refusal(&of_no_format), (Claim::Other, text("not a session record")));
        let mut of_another_size = slot(&sample());
        of_another_size[SLOT_SIZE_AT] += 1;
        assert_eq!(refusal(&of_another_size), (Claim::Sequence(7), text("its size is not that of the slot")));
        // A number beyond the size of any shift.
        of_another_size[SLOT_SIZE_AT] = u8::MAX;
        assert!(!claims_size(&of_another_size));
        let mut one_bit = vec![0; SLOT_MIN];
        one_bit[PREFIX_LEN - 1] = 1;
        assert_eq!(claim(&one_bit), Claim::Other);
        one_bit[PREFIX_LEN - 1] = 0;
        one_bit[PREFIX_LEN] = 1;
        assert_eq!(claim(&one_bit), Claim::Empty, "what lies behind the prefix is left over");
    }

    #[test]
    fn a_new_slot_inherits_the_flags_of_its_inode() {
        let flags =
            [State::DATA_SYNCED, State::NAME_SYNCED, State::RETIRING, State::SYNC_FAILED, State::REPLACES];
        for flag in flags {
            let all_others =
                flags.into_iter().filter(|other| *other != flag).fold(State::WRITTEN, State::and);
            assert!(!State::WRITTEN.has(flag) && !all_others.has(flag) && flag.has(flag), "{flag:?}");
            assert!(all_others.and(flag).has(flag) && flag.and(flag).has(flag) && flag.has(State::WRITTEN));
            assert!(!flag.has(flag.and(all_others)), "it has none of the others");
            let mut padded = encoded(&sample()).with_state(flag).to_vec();
            padded.resize(SLOT_MIN, 0);
            assert_eq!(decode(&padded, &id()).unwrap().state, flag);
            let of_the_inode = [State::NAME_SYNCED, State::SYNC_FAILED, State::REPLACES].contains(&flag);
            assert_eq!(flag.inherited(), if of_the_inode { flag } else { State::WRITTEN });
        }
    }
}
