//! The bytes of one slot of a session's file: documentation of the format, for readers in other languages, and the codec.
//! Pure: opens no file, reads no clock.
//!
//! ```text
//! offset size field
//!      0    4 magic       "SESS"
//!      4    2 format      1; a newer one is never "invalid", it is `NewerFormat`
//!      6    1 slot size   its binary logarithm, 11..=25
//!      7    1 state       flags of `State`, changed in place: NOT covered by the checksum
//!      8    8 sequence    1 for the first version, then one more with each save
//!     16    8 created     microseconds since 1970; creation or the last login
//!     24    8 touched     the same; the last activity that moved the deadline
//!     32    8 deadline    the same; from then on the session is expired
//!     40    8 age         the expiry setting's duration or instant, in microseconds; else 0
//!     48    1 setting     0 default, 1 after a duration, 2 at an instant, 3 browser close, 4 default, and the cookie sent last
//!                         ends with the browser
//!     49    3 reserved    zero, checked
//!     52    4 length      payload bytes
//!     56   56 reserved    zero, checked: room for a record state and a user's digest
//!    112   16 checksum    first half of BLAKE3, keyed with the PublicId, over the prefix (state and checksum taken
//!                         as zero) and the payload
//!    128    … payload     postcard: the user (option of string), then the entries (map of name to value bytes)
//! ```
//!
//! All integers are little-endian. A slot that is all zero was never written. One that begins with "GONE" ends the
//! whole session: it is written over a slot of a file that is about to lose its name, or just has. One that
//! begins with "VOID" is what a failed write left; its slot size stays.
//!
//! - The checksum is keyed with the [`PublicId`]: a file copied over another one does not verify. It detects damage;
//!   it is no signature, because a visitor who knows an id knows its `PublicId`.
//! - The prefix has a fixed width: a sweep learns a deadline from 128 bytes.
//! - What lies behind the payload in a slot is left over from older versions and is never looked at.
mod payload;

use crate::clock::{from_micros, micros};
use crate::error::{Error, ErrorKind, Result};
use crate::id::PublicId;
use crate::record::Expiry;
use crate::record::Record;
use std::sync::Arc;
use std::time::Duration;

const MAGIC: [u8; 4] = *b"SESS";
/// In place of the magic: the session was ended.
const TOMBSTONE: [u8; 4] = *b"GONE";
/// In place of the magic: a write to this slot failed, and it holds nothing.
const VOID: [u8; 4] = *b"VOID";
const FORMAT: u16 = 1;

const FORMAT_AT: usize = MAGIC.len();
const SLOT_SIZE_AT: usize = FORMAT_AT + 2;
pub(super) const STATE_AT: usize = SLOT_SIZE_AT + 1;
const SEQUENCE_AT: usize = STATE_AT + 1;
const CREATED_AT: usize = SEQUENCE_AT + 8;
const TOUCHED_AT: usize = CREATED_AT + 8;
const DEADLINE_AT: usize = TOUCHED_AT + 8;
const AGE_AT: usize = DEADLINE_AT + 8;
const SETTING_AT: usize = AGE_AT + 8;
const LENGTH_AT: usize = SETTING_AT + 4;
const RESERVED_AT: usize = LENGTH_AT + 4;
const CHECKSUM_AT: usize = RESERVED_AT + 56;
/// The setting `Expiry::Default` of a session whose cookie ends with the browser.
const DEFAULT_ENDS_WITH_BROWSER: u8 = 4;
/// Bytes before the payload.
pub(super) const PREFIX_LEN: usize = CHECKSUM_AT + 16;
const _: () = assert!(PREFIX_LEN == 128, "the table above says 128");

/// Smallest slot: two of them are one 4 KiB block, and most sessions fit.
pub(super) const SLOT_MIN: usize = 2048;
/// Largest slot: 32 MiB, for the largest record limit of 16 MiB and its prefix.
pub(super) const SLOT_MAX: usize = 1 << 25;

/// What is known about a slot beyond its contents; kept in the slot's state byte, raised in place after a sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State(u8);

impl State {
    /// Just written: nothing is known to have reached the disk.
    pub(super) const WRITTEN: Self = Self(0);
    /// The slot's contents were synced.
    pub(super) const DATA_SYNCED: Self = Self(1);
    /// The directory entry of this inode was synced; true of every later slot of the same inode.
    pub(super) const NAME_SYNCED: Self = Self(2);
    /// The inode is being replaced or unlinked: under the lock, check that the path still leads here.
    pub(super) const RETIRING: Self = Self(4);
    /// A sync of this inode failed: another sync of it proves nothing.
    pub(super) const SYNC_FAILED: Self = Self(8);
    /// This inode took another one's place: until its name is synced, a power cut may give the name back to the other.
    pub(super) const REPLACES: Self = Self(16);

    pub(super) fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
    pub(super) fn and(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }
    /// What a new slot of the same inode inherits.
    pub(super) fn inherited(self) -> Self {
        Self(self.0 & (Self::NAME_SYNCED.0 | Self::SYNC_FAILED.0 | Self::REPLACES.0))
    }
    /// Whether a power cut may give the name to an older inode.
    pub(super) fn name_may_fall_back(self) -> bool {
        self.has(Self::REPLACES) && !self.has(Self::NAME_SYNCED)
    }
    pub(super) fn to_byte(self) -> u8 {
        self.0
    }
}

/// What the first bytes of a slot claim, before anything is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// All 128 bytes are zero: never written.
    Empty,
    /// A tombstone: whatever the other slot says, the session is ended.
    Ended,
    /// Our magic with a format newer than ours.
    Newer,
    /// Our magic and format: the sequence it claims.
    Sequence(u64),
    /// Not ours.
    Other,
}

/// Which version of a session a slot holds. Equal versions of one session have equal contents: the checksum is a
/// cryptographic hash's, whatever the sequence says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// 1 for the first one, then one more with each save.
    pub(super) sequence: u64,
    checksum: [u8; 16],
}

impl Version {
    /// The version that a slot claims to hold, unverified.
    pub(super) fn claimed(slot: &[u8]) -> Self {
        Self { sequence: u64::from_le_bytes(field(slot, SEQUENCE_AT)), checksum: field(slot, CHECKSUM_AT) }
    }
    /// What the next version says, if there is one: the last number is no sequence.
    pub(super) fn next_sequence(&self) -> Option<u64> {
        self.sequence.checked_add(1).filter(|next| *next != u64::MAX)
    }
}

/// A slot that verified.
#[derive(Debug)]
pub(super) struct Decoded {
    /// Shared with the cache where it was there already.
    pub(super) record: Arc<Record>,
    pub(super) version: Version,
    pub(super) state: State,
    /// How many bytes it takes, with its prefix.
    pub(super) length: usize,
}

/// How much of a record the limits of a store are about: what a visitor stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// With the prefix, without those of the user.
    pub(super) bytes: usize,
    pub(super) entries: usize,
}

impl Extent {
    /// Of a record that takes so many bytes in a slot.
    pub(super) fn of(record: &Record, length: usize) -> Self {
        let bytes = length.saturating_sub(payload::user_bytes(record.user.as_deref()));
        Self { bytes, entries: record.entries.len() }
    }
}

/// How many bytes of a slot are in use, by its own words.
pub(super) fn length(slot: &[u8]) -> usize {
    let payload = u32::from_le_bytes(field(slot, LENGTH_AT)) as usize;
    PREFIX_LEN.saturating_add(payload).min(slot.len())
}

/// The fields of a slot beside the record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    /// The session that the record is of; part of the checksum.
    pub(super) id: &'a PublicId,
    pub(super) sequence: u64,
    pub(super) state: State,
    /// Bytes; 0 for the smallest slot that holds the record.
    pub(super) slot_size_min: usize,
}

/// Lays a record out as the bytes of a slot: prefix and payload, without padding.
///
/// Its slot size is the smallest power of two, at least [`SLOT_MIN`] and the header's `slot_size_min`, that holds it.
///
/// # Errors
///
/// [`ErrorKind::TooLarge`] beyond `bytes_max`, counted with the prefix and without the user.
pub(super) fn encode(record: &Record, header: &Header<'_>, bytes_max: usize) -> Result<Vec<u8>> {
    let refuse = |kind| Error::new(kind, "encode session record");
    let mut out = payload::encode_behind(PREFIX_LEN, record.user.as_deref(), &record.entries)
        .map_err(|e| refuse(ErrorKind::Value).with_source(e))?;
    let bytes = Extent::of(record, out.len()).bytes;
    if bytes > bytes_max || out.len() > SLOT_MAX {
        let reason = format!("{bytes} bytes, where the limit is {bytes_max}");
        return Err(refuse(ErrorKind::TooLarge).with_reason(reason));
    }
    let (setting, age) = match record.expiry {
        Expiry::Default => (if record.ends_with_browser { DEFAULT_ENDS_WITH_BROWSER } else { 0 }, 0),
        Expiry::After(age) => (1, u64::try_from(age.as_micros()).unwrap_or(u64::MAX)),
        Expiry::At(instant) => (2, micros(instant)),
        Expiry::BrowserClose => (3, 0),
    };
    let slot_size = out.len().next_power_of_two().max(SLOT_MIN).max(header.slot_size_min);
    let length = u32::try_from(out.len() - PREFIX_LEN).expect("at most SLOT_MAX, checked above");
    put(&mut out, 0, MAGIC);
    put(&mut out, FORMAT_AT, FORMAT.to_le_bytes());
    put(&mut out, SLOT_SIZE_AT, [log2(slot_size)]);
    put(&mut out, STATE_AT, [header.state.to_byte()]);
    put(&mut out, SEQUENCE_AT, header.sequence.to_le_bytes());
    put(&mut out, CREATED_AT, micros(record.created).to_le_bytes());
    put(&mut out, TOUCHED_AT, micros(record.touched).to_le_bytes());
    put(&mut out, DEADLINE_AT, micros(record.deadline).to_le_bytes());
    put(&mut out, AGE_AT, age.to_le_bytes());
    put(&mut out, SETTING_AT, [setting]);
    put(&mut out, LENGTH_AT, length.to_le_bytes());
    let checksum = checksum(&out, header.id);
    put(&mut out, CHECKSUM_AT, checksum);
    Ok(out)
}

/// The prefix of a slot that ends its session.
pub(super) fn tombstone() -> [u8; PREFIX_LEN] {
    let mut prefix = [0; PREFIX_LEN];
    put(&mut prefix, 0, TOMBSTONE);
    prefix
}

/// The prefix of a slot of this size whose write failed. Not zero: a reader must not take it for one that was never written.
pub(super) fn void(slot_size: usize) -> [u8; PREFIX_LEN] {
    let mut prefix = [0; PREFIX_LEN];
    put(&mut prefix, 0, VOID);
    put(&mut prefix, SLOT_SIZE_AT, [log2(slot_size)]);
    prefix
}

fn log2(slot_size: usize) -> u8 {
    u8::try_from(slot_size.trailing_zeros()).expect("at most 63")
}

/// The slot size that [`encode`] chose.
pub(super) fn slot_size(encoded: &[u8]) -> usize {
    1 << encoded[SLOT_SIZE_AT]
}

/// Whether a slot claims to be as large as it is.
pub(super) fn claims_size(slot: &[u8]) -> bool {
    claimed_size(slot) == Some(slot.len())
}

/// How large a slot claims to be.
pub(super) fn claimed_size(slot: &[u8]) -> Option<usize> {
    1_usize.checked_shl(slot[SLOT_SIZE_AT].into())
}

/// Whether these bytes are the beginning of a slot that says it is larger: its file was made shorter. What then lies in the
/// second half of the file is the middle of a visitor's data, which may look like a slot. (Not where its
/// size is all that is wrong: its checksum covers the size that it was written with.)
pub(super) fn is_cut(slot: &[u8], id: &PublicId) -> bool {
    let is_larger = |size| size > slot.len() && size <= SLOT_MAX;
    let says_so = [MAGIC, VOID].contains(&field(slot, 0)) && claimed_size(slot).is_some_and(is_larger);
    says_so && {
        let mut as_it_is = slot.to_vec();
        as_it_is[SLOT_SIZE_AT] = log2(slot.len());
        decode(&as_it_is, id).is_err()
    }
}

/// Looks at the first bytes of a slot without verifying anything.
pub(super) fn claim(slot: &[u8]) -> Claim {
    let Some(prefix) = slot.first_chunk::<PREFIX_LEN>() else { return Claim::Other };
    if *prefix == [0; PREFIX_LEN] {
        return Claim::Empty;
    }
    let format = u16::from_le_bytes(field(prefix, FORMAT_AT));
    match (field(prefix, 0), format) {
        (TOMBSTONE, _) => Claim::Ended,
        (MAGIC, FORMAT) => Claim::Sequence(u64::from_le_bytes(field(prefix, SEQUENCE_AT))),
        (MAGIC, format) if format > FORMAT => Claim::Newer,
        _ => Claim::Other,
    }
}

/// Reads a whole slot: the reverse of [`encode`].
///
/// # Errors
///
/// [`ErrorKind::Corrupt`] if any byte of prefix or payload is missing or changed, or if the slot belongs to
/// another session; [`ErrorKind::NewerFormat`] for a format we do not know. An expired record is *not* an error.
pub(super) fn decode(slot: &[u8], id: &PublicId) -> Result<Decoded> {
    let corrupt =
        |reason: &'static str| Error::new(ErrorKind::Corrupt, "decode session record").with_reason(reason);
    match claim(slot) {
        Claim::Sequence(_) => {}
        Claim::Empty => return Err(corrupt("the slot is empty")),
        Claim::Ended => return Err(corrupt("the session was ended")),
        Claim::Other => return Err(corrupt("not a session record")),
        Claim::Newer => {
            let format = u16::from_le_bytes(field(slot, FORMAT_AT));
            return Err(Error::new(ErrorKind::NewerFormat, "decode session record")
                .with_reason(format!("it has format {format}, this version knows {FORMAT}")));
        }
    }
    if !claims_size(slot) {
        return Err(corrupt("its size is not that of the slot"));
    }
    let length = u32::from_le_bytes(field(slot, LENGTH_AT)) as usize;
    let used = PREFIX_LEN.checked_add(length).and_then(|end| slot.get(..end));
    let used = used.ok_or_else(|| corrupt("its payload is longer than the slot"))?;
    if checksum(used, id) != field::<16>(slot, CHECKSUM_AT) {
        return Err(corrupt("checksum mismatch"));
    }
    // Past this line the bytes are those that were written; what follows fails only on crafted or future ones.
    if slot[SETTING_AT + 1..LENGTH_AT].iter().chain(&slot[RESERVED_AT..CHECKSUM_AT]).any(|&b| b != 0) {
        return Err(corrupt("reserved bytes are in use"));
    }
    let (payload, rest) = payload::decode(&used[PREFIX_LEN..])
        .map_err(|e| corrupt("its payload does not parse").with_source(e))?;
    if !rest.is_empty() {
        return Err(corrupt("bytes after its payload"));
    }
    let version = Version::claimed(slot);
    if matches!(version.sequence, 0 | u64::MAX) {
        return Err(corrupt("a sequence that no save reaches"));
    }
    let age = u64::from_le_bytes(field(slot, AGE_AT));
    let expiry = match slot[SETTING_AT] {
        0 | DEFAULT_ENDS_WITH_BROWSER => Expiry::Default,
        1 => Expiry::After(Duration::from_micros(age)),
        2 => Expiry::At(from_micros(age)),
        3 => Expiry::BrowserClose,
        _ => return Err(corrupt("unknown expiry setting")),
    };
    let time_at = |at| from_micros(u64::from_le_bytes(field(slot, at)));
    let record = Record {
        entries: payload.entries,
        created: time_at(CREATED_AT),
        touched: time_at(TOUCHED_AT),
        expiry,
        ends_with_browser: slot[SETTING_AT] == DEFAULT_ENDS_WITH_BROWSER,
        deadline: time_at(DEADLINE_AT),
        user: payload.user,
    };
    Ok(Decoded { record: Arc::new(record), version, state: state(slot), length: used.len() })
}

/// What a slot's state byte says.
pub(super) fn state(slot: &[u8]) -> State {
    State(slot[STATE_AT])
}

/// `used` is prefix and payload; the state byte and the checksum's own place are left out.
pub(super) fn checksum(used: &[u8], id: &PublicId) -> [u8; 16] {
    let mut key = *b"....................sessile slot";
    key[..PublicId::LEN].copy_from_slice(id.as_bytes());
    let mut hasher = blake3::Hasher::new_keyed(&key);
    // One contiguous run for the hasher costs less than three: the prefix is copied with its holes zeroed.
    let mut prefix: [u8; PREFIX_LEN] = field(used, 0);
    prefix[STATE_AT] = 0;
    prefix[CHECKSUM_AT..].fill(0);
    hasher.update(&prefix).update(&used[PREFIX_LEN..]);
    field(hasher.finalize().as_bytes(), 0)
}

/// A slot under a valid checksum, whatever it says: `fields` are its prefix from the sequence to the end of the setting (the
/// rest is zero), `payload` its payload. For tests of the decoder.
#[cfg(any(test, feature = "internals"))]
pub(super) fn sealed(fields: &[u8], payload: &[u8], id: &PublicId) -> Vec<u8> {
    let mut slot = vec![0; PREFIX_LEN];
    for (byte, field) in slot[SEQUENCE_AT..LENGTH_AT].iter_mut().zip(fields) {
        *byte = *field;
    }
    slot.extend_from_slice(payload);
    let slot_size = slot.len().next_power_of_two().max(SLOT_MIN);
    put(&mut slot, 0, MAGIC);
    put(&mut slot, FORMAT_AT, FORMAT.to_le_bytes());
    slot[SLOT_SIZE_AT] = log2(slot_size);
    put(&mut slot, LENGTH_AT, u32::try_from(payload.len()).expect("below 4 GiB").to_le_bytes());
    let sum = checksum(&slot, id);
    put(&mut slot, CHECKSUM_AT, sum);
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
    use crate::record::Entries;
    use crate::value::Value;
    use std::time::UNIX_EPOCH;

    fn id() -> PublicId {
        SessionId::parse(&"a".repeat(32)).unwrap().public_id()
    }
    fn sample() -> Record {
        let mut record = Record::new(
            UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            UNIX_EPOCH + Duration::from_secs(1_700_000_300),
        );
        record.expiry = Expiry::After(Duration::from_secs(300));
        record.user = Some("ada".into());
        record.entries.insert("cart".into(), Value::new(&["a", "b"]).unwrap());
        record.entries.insert("visits".into(), Value::new(&6).unwrap());
        record
    }
    fn slot(record: &Record) -> Vec<u8> {
        let mut slot = encode(
            record,
            &Header { id: &id(), sequence: 7, state: State::DATA_SYNCED, slot_size_min: 0 },
            SLOT_MAX,
        )
        .unwrap();
        slot.resize(slot_size(&slot), 0);
        slot
    }

    #[test]
    fn decode_returns_what_encode_wrote() {
        for (expiry, ends_with_browser) in [
            (Expiry::Default, false),
            (Expiry::Default, true),
            (Expiry::After(Duration::from_micros(1)), false),
            (Expiry::At(UNIX_EPOCH), false),
            (Expiry::BrowserClose, false),
        ] {
            let record = Record { expiry, ends_with_browser, ..sample() };
            let decoded = decode(&slot(&record), &id()).unwrap();
            assert_eq!((&*decoded.record, decoded.version.sequence), (&record, 7));
            assert_eq!(decoded.state, State::DATA_SYNCED);
        }
    }

    #[test]
    fn every_bit_flip_is_refused_but_in_state_and_padding() {
        let good = slot(&sample());
        let used = encode(
            &sample(),
            &Header { id: &id(), sequence: 7, state: State::DATA_SYNCED, slot_size_min: 0 },
            SLOT_MAX,
        )
        .unwrap()
        .len();
        // Under an interpreter, a few that share no factor with the bits of a byte.
        for bit in (0..good.len() * 8).step_by(if cfg!(miri) { 331 } else { 1 }) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let harmless = bit / 8 == STATE_AT || bit / 8 >= used;
            assert_eq!(decode(&bad, &id()).is_ok(), harmless, "bit {bit}");
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
    fn a_newer_format_is_never_called_corrupt() {
        let mut newer = slot(&sample());
        newer[FORMAT_AT] = 2;
        assert_eq!(claim(&newer), Claim::Newer);
        assert_eq!(decode(&newer, &id()).unwrap_err().kind(), ErrorKind::NewerFormat);
    }

    #[test]
    fn slots_are_powers_of_two_from_2_kib_and_the_limit_is_exact() {
        let mut record = sample();
        let own = id();
        let first = Header { id: &own, sequence: 1, state: State::WRITTEN, slot_size_min: 0 };
        assert_eq!(slot_size(&encode(&record, &first, SLOT_MAX).unwrap()), SLOT_MIN);
        assert_eq!(
            slot_size(&encode(&record, &Header { slot_size_min: 8192, ..first }, SLOT_MAX).unwrap()),
            8192
        );
        record.entries.insert("blob".into(), Value::new(&"x".repeat(3000)).unwrap());
        let bytes = encode(&record, &first, SLOT_MAX).unwrap();
        assert_eq!(slot_size(&bytes), 4096);
        // Without the user: "ada", and how long that is.
        let counted = bytes.len() - 4;
        assert_eq!(Extent::of(&record, bytes.len()).bytes, counted);
        assert!(encode(&record, &first, counted).is_ok());
        let refused = encode(&record, &first, counted - 1).map(|bytes| bytes.len());
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
        let whole = slot(&record);
        assert_eq!((decode(&whole, &own).unwrap().length, length(&whole)), (bytes.len(), bytes.len()));
    }

    #[test]
    fn a_sealed_slot_verifies_and_decodes_to_its_fields() {
        let whole = slot(&Record { entries: Entries::new(), user: None, ..sample() });
        let payload = [0, 0];
        let fields = &whole[SEQUENCE_AT..=SETTING_AT];
        let found = decode(&sealed(fields, &payload, &id()), &id()).unwrap();
        assert_eq!((&*found.record, found.version.sequence), (&*decode(&whole, &id()).unwrap().record, 7));
        assert_eq!(sealed(fields, &[0; SLOT_MIN], &id()).len(), 2 * SLOT_MIN);
        // No more than its fields is taken, and no less than they are is filled up with zeros.
        let long = [fields, &[7; 100]].concat();
        assert!(decode(&sealed(&long, &payload, &id()), &id()).is_err(), "reserved bytes");
        assert!(decode(&sealed(&[], &payload, &id()), &id()).is_err(), "sequence 0");
    }

    /// The reason for which a slot is refused that was changed before it was sealed: its checksum is good.
    #[track_caller]
    fn refusal_of_sealed(change: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut bytes = encode(
            &sample(),
            &Header { id: &id(), sequence: 7, state: State::WRITTEN, slot_size_min: 0 },
            SLOT_MAX,
        )
        .unwrap();
        change(&mut bytes);
        let length = u32::try_from(bytes.len() - PREFIX_LEN).unwrap();
        put(&mut bytes, LENGTH_AT, length.to_le_bytes());
        let sum = checksum(&bytes, &id());
        put(&mut bytes, CHECKSUM_AT, sum);
        bytes.resize(SLOT_MIN, 0);
        let error = decode(&bytes, &id()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        error.to_string().strip_prefix("failed to decode session record: ").unwrap().to_owned()
    }

    #[test]
    fn what_no_encoder_writes_is_refused_under_a_good_checksum() {
        assert_eq!(refusal_of_sealed(|bytes| bytes.push(0)), "bytes after its payload");
        for at in [SETTING_AT + 1, LENGTH_AT - 1, RESERVED_AT, CHECKSUM_AT - 1] {
            assert_eq!(refusal_of_sealed(|bytes| bytes[at] = 1), "reserved bytes are in use", "byte {at}");
        }
        for setting in [5, u8::MAX] {
            assert_eq!(refusal_of_sealed(|bytes| bytes[SETTING_AT] = setting), "unknown expiry setting");
        }
        for sequence in [0, u64::MAX] {
            let reason = refusal_of_sealed(|bytes| put(bytes, SEQUENCE_AT, sequence.to_le_bytes()));
            assert_eq!(reason, "a sequence that no save reaches");
        }
    }

    /// The claimed counts are those of a decoder's nightmares: room for them is not there to be taken.
    #[test]
    fn a_payload_with_a_false_length_allocates_nothing() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        let no_user = [0].as_slice();
        let user = [1].as_slice();
        for (what, payload) in [
            ("entries", [no_user, &huge].concat()),
            ("bytes of the user", [user, &huge].concat()),
            ("bytes of a name", [no_user, &[1], &huge].concat()),
            ("bytes of a value", [no_user, &[1, 1, b'n'], &huge].concat()),
        ] {
            let reason = refusal_of_sealed(|bytes| {
                bytes.truncate(PREFIX_LEN);
                bytes.extend_from_slice(&payload);
            });
            assert_eq!(reason, "its payload does not parse", "{what}");
        }
    }

    #[test]
    fn a_payload_longer_than_its_slot_is_refused() {
        for (length, reason) in [
            (SLOT_MIN - PREFIX_LEN, "checksum mismatch"),
            (SLOT_MIN - PREFIX_LEN + 1, "its payload is longer than the slot"),
            (u32::MAX as usize, "its payload is longer than the slot"),
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
        assert!(void(SLOT_MIN).starts_with(b"VOID"));
        assert_eq!(refusal(&void(SLOT_MIN)), (Claim::Other, text("not a session record")));
        let mut older = slot(&sample());
        older[FORMAT_AT] = 0;
        assert_eq!(refusal(&older), (Claim::Other, text("not a session record")));
        let mut of_another_size = slot(&sample());
        of_another_size[SLOT_SIZE_AT] += 1;
        assert_eq!(refusal(&of_another_size), (Claim::Sequence(7), text("its size is not that of the slot")));
        // Too large for any shift.
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
        let flags = [State::DATA_SYNCED, State::NAME_SYNCED, State::RETIRING, State::SYNC_FAILED];
        for flag in flags {
            let all_others =
                flags.into_iter().filter(|other| *other != flag).fold(State::WRITTEN, State::and);
            assert!(!State::WRITTEN.has(flag) && !all_others.has(flag) && flag.has(flag), "{flag:?}");
            assert!(all_others.and(flag).has(flag) && flag.and(flag).has(flag) && flag.has(State::WRITTEN));
            assert!(!flag.has(flag.and(all_others)), "it has none of the others");
            let bytes = encode(
                &sample(),
                &Header { id: &id(), sequence: 7, state: flag, slot_size_min: SLOT_MIN },
                SLOT_MAX,
            )
            .unwrap();
            let padded = [&bytes[..], &vec![0; SLOT_MIN - bytes.len()]].concat();
            assert_eq!(decode(&padded, &id()).unwrap().state, flag);
            let of_the_inode = [State::NAME_SYNCED, State::SYNC_FAILED].contains(&flag);
            assert_eq!(flag.inherited(), if of_the_inode { flag } else { State::WRITTEN });
        }
    }
}
