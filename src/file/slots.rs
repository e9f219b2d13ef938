//! The two slots of a session file: finds the newest version in the file's bytes, and decides whether a reader without
//! a lock may use it. This module does no I/O.
//!
//! A file is two slots of equal size S and nothing else. A save writes the slot that is *not* the newest, with the next
//! sequence number. So a version is never overwritten by its successor, and a torn write harms no version that was
//! acknowledged.
//!
//! **Newest** is the valid slot with the higher sequence. If the slot that claims the higher sequence verifies, the
//! other need not be verified.
//!
//! **Ended.** A tombstone in either slot ends the session, so that a `delete` that is killed half-way leaves no older
//! version behind. A tombstone beside a slot of another format is ignored, because only a version that knows that
//! format may judge the file.
//!
//! **Moved.** The mark of a moved session ends the session under this id as a tombstone does, and names the successor.
//! A mark that verifies wins over whatever the other slot holds, a tombstone included; one that does not is a
//! tombstone.
//!
//! **Settled.** A reader holds no lock, and two saves may happen while it reads the file: it may read slot 0 with
//! version v, before a save writes v + 2 there, and slot 1 while the next save writes v + 3 over v + 1. The reader then
//! has v beside a torn slot, though v + 1 was acknowledged before it began. So a reading is trusted only if the other
//! slot is in a state without a running save: empty, or claiming exactly the sequence before. A torn claim cannot
//! imitate that, because its lowest byte is that of v + 1 or v + 3, never that of v − 1. Otherwise the reader reads
//! again.
//!
//! **By position only.** A visitor who knows their id knows the key of their checksums, and can store a text that is a
//! valid slot to the last byte. Such a text is never read as a slot, because it lies within a slot. If a file was
//! truncated so that the text lies at a slot's position, the file is damaged.
//!
//! **Known.** A version that was verified before need not be verified again. If a slot's prefix has the same sequence
//! and checksum, it held the same record when the prefix was written; the record that was verified is returned.
use super::slot::{self, Claim, Decoded, Mark, SLOT_MAX, SLOT_MIN, State, Version};
use crate::error::{ErrorKind, Result};
use crate::id::PublicId;
use crate::record::Record;

/// The contents of a session file.
#[derive(Debug)]
pub(super) enum View {
    /// There is no version: the creation of the session was interrupted, or the session has ended.
    Empty,
    /// No slot has a version that verifies, and at least one is not empty; or no session file has this size.
    Damaged,
    /// There is no version, because the session has moved to another id.
    Moved(MovedView),
    /// There is a newest version.
    Valid {
        /// The slot of this version: 0 or 1.
        slot: usize,
        /// The decoded version.
        newest: Decoded,
        /// Whether a reader without a lock may use it: no save can have been under way.
        settled: bool,
    },
}

/// The mark of a moved session, and its place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MovedView {
    pub(super) mark: Mark,
    /// The slot of the mark: 0 or 1.
    pub(super) slot: usize,
    pub(super) slot_size: usize,
    /// The flags of the file's inode.
    pub(super) state: State,
    /// Whether the other slot has a tombstone. It is written after the mark was synced and the copies were invalidated.
    pub(super) is_complete: bool,
}

/// A version that this process has verified before.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) version: Version,
    pub(super) record: &'a Record,
}

/// The size of the largest session file, whatever this store's limit is now, because the limit may have been lowered.
pub(super) const FILE_BYTES_MAX: usize = 2 * SLOT_MAX;

/// Finds the newest version among a whole file's bytes.
///
/// # Errors
///
/// [`NewerFormat`](crate::error::ErrorKind::NewerFormat) or [`OlderFormat`](crate::error::ErrorKind::OlderFormat) if
/// either slot was written by another version of this crate: this one must neither serve nor overwrite it.
pub(super) fn view(file: &[u8], id: &PublicId, known: Option<Known<'_>>) -> Result<View> {
    let Some((first, second)) = split(file) else {
        return Ok(if is_beginning(file) { View::Empty } else { View::Damaged });
    };
    let slots = [first, second];
    let claims = [slot::claim(first), slot::claim(second)];
    let by_claim = match claims {
        [Claim::Newer | Claim::Older, _] => {
            return Err(slot::decode(first, id).expect_err("another format is refused"));
        }
        _ if slot::is_cut(first, id) => {
            // If the file is only the beginning of one with a first version, it has no other version.
            let is_beginning = is_beginning(file) && slot::decode(second, id).is_err();
            return Ok(if is_beginning { View::Empty } else { View::Damaged });
        }
        [_, Claim::Newer | Claim::Older] => {
            return Err(slot::decode(second, id).expect_err("another format is refused"));
        }
        [Claim::Empty, Claim::Empty] => return Ok(View::Empty),
        [Claim::Ended | Claim::Moved, _] | [_, Claim::Ended | Claim::Moved] => return Ok(ended(slots, id)),
        [Claim::Sequence(a), Claim::Sequence(b)] if b > a => [1, 0],
        [Claim::Sequence(_), _] => [0, 1],
        _ => [1, 0],
    };
    for slot in by_claim {
        let newest = match decode(slots[slot], id, known) {
            Ok(newest) => newest,
            // A newer version of this crate has written the newest record. The version before it must not be returned
            // as the newest.
            Err(error) if error.kind() == ErrorKind::NewerFormat => return Err(error),
            Err(_) => continue,
        };
        let settled = match claims[1 - slot] {
            Claim::Empty => true,
            Claim::Sequence(other) => other.checked_add(1) == Some(newest.version.sequence),
            Claim::Newer | Claim::Older | Claim::Ended | Claim::Moved | Claim::Other => false,
        };
        return Ok(View::Valid { slot, newest, settled });
    }
    Ok(View::Damaged)
}

/// The contents of a file that has no version: the mark of a moved session, if one verifies.
#[cold]
fn ended(slots: [&[u8]; 2], id: &PublicId) -> View {
    let mark_in = |slot: usize| {
        let is_complete = slot::claim(slots[1 - slot]) == Claim::Ended;
        let (slot_size, state) = (slots[slot].len(), slot::state(slots[slot]));
        let mark = slot::decode_mark(slots[slot], id)?;
        Some(MovedView { mark, slot, slot_size, state, is_complete })
    };
    mark_in(0).or_else(|| mark_in(1)).map_or(View::Empty, View::Moved)
}

/// Whether these bytes state a size that equals their number. Then they are a whole file, and not the first part of a
/// larger one. Only the first slot is asked, because the second one may be the middle of the first.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    split(bytes).is_some_and(|(first, _)| {
        matches!(slot::claim(first), Claim::Sequence(_)) && slot::claims_size(first)
    })
}

/// Whether these bytes are the result of an interrupted creation. A new file is written with one write, and never
/// truncated. So they are the first part of a file that has only its first version, and that was never synced or
/// acknowledged.
fn is_beginning(file: &[u8]) -> bool {
    file.len() < 2 * SLOT_MIN
        || slot::claim(file) == Claim::Sequence(1)
            && slot::state(file) == State::WRITTEN
            && slot::claimed_size(file).is_some_and(|size| size <= SLOT_MAX && file.len() < 2 * size)
}

/// Decodes a slot. The version `known` is not verified again.
fn decode(bytes: &[u8], id: &PublicId, known: Option<Known<'_>>) -> Result<Decoded> {
    match (slot::claim(bytes), known) {
        (Claim::Sequence(_), Some(Known { version, record })) if Version::claimed(bytes) == version => {
            Ok(Decoded { record: record.clone(), version, state: slot::state(bytes) })
        }
        _ => slot::decode(bytes, id),
    }
}

/// The two slots of a file, if its size is that of a session file.
fn split(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let size = file.len() / 2;
    let fits =
        file.len().is_multiple_of(2) && size.is_power_of_two() && (SLOT_MIN..=SLOT_MAX).contains(&size);
    fits.then(|| file.split_at(size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::slot::PREFIX_LEN;
    use std::time::{Duration, UNIX_EPOCH};

    const LENGTH: usize = 16;
    const CHECKSUM: usize = 24;

    fn id() -> PublicId {
        PublicId::digest(b"a session")
    }
    /// A slot with this sequence, whose record has the sequence as its deadline.
    fn slot(sequence: u64) -> Vec<u8> {
        let record = Record::new(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(sequence.min(1 << 40)));
        let mut bytes = slot::encode(
            &record,
            &slot::Header { id: &id(), sequence, state: State::WRITTEN, slot_size_min: 0 },
            SLOT_MAX,
        )
        .unwrap()
        .to_vec();
        bytes.resize(SLOT_MIN, 0);
        bytes
    }
    fn empty() -> Vec<u8> {
        vec![0; SLOT_MIN]
    }
    fn torn(sequence: u64) -> Vec<u8> {
        let mut bytes = slot(sequence);
        bytes[PREFIX_LEN] ^= 1;
        bytes
    }

    #[track_caller]
    fn check(first: Vec<u8>, second: Vec<u8>, want: Option<(usize, u64, bool)>) {
        let got = match view(&[first, second].concat(), &id(), None).unwrap() {
            View::Valid { slot, newest, settled } => Some((slot, newest.version.sequence, settled)),
            View::Empty | View::Damaged | View::Moved(_) => None,
        };
        assert_eq!(got, want);
    }

    #[test]
    fn the_newest_valid_slot_wins_and_settles_by_its_predecessor() {
        check(slot(1), empty(), Some((0, 1, true)));
        check(slot(1), slot(2), Some((1, 2, true)));
        check(slot(3), slot(2), Some((0, 3, true)));
        check(slot(3), torn(4), Some((0, 3, false)));
        check(torn(7), slot(4), Some((1, 4, false)));
        check(torn(5), slot(4), Some((1, 4, false)));
        check(slot(7), slot(4), Some((0, 7, false)));
        check(vec![0xff; SLOT_MIN], slot(4), Some((1, 4, false)));
        check(torn(1), torn(2), None);
        check(empty(), empty(), None);
        check(empty(), slot(1), Some((1, 1, true)));
        check(slot(4), slot(4), Some((0, 4, false)));
        check(slot(u64::MAX), empty(), None);
        check(slot(u64::MAX - 1), torn(u64::MAX), Some((0, u64::MAX - 1, false)));
    }

    #[test]
    fn a_tombstone_in_either_slot_ends_the_session() {
        let mut ended = empty();
        ended[..PREFIX_LEN].copy_from_slice(&slot::tombstone());
        check(ended.clone(), slot(4), None);
        check(slot(4), ended.clone(), None);
        assert!(matches!(view(&[ended, slot(4)].concat(), &id(), None).unwrap(), View::Empty));
    }

    fn mark(until: u64) -> Mark {
        Mark { successor: PublicId::digest(b"the next one"), until, by_login: false }
    }
    fn marked(until: u64) -> Vec<u8> {
        let header =
            slot::Header { id: &id(), sequence: 5, state: State::NAME_SYNCED, slot_size_min: SLOT_MIN };
        let mut bytes = slot::encode_mark(&mark(until), &header).to_vec();
        bytes.resize(SLOT_MIN, 0);
        bytes
    }

    #[test]
    fn a_mark_that_verifies_wins_and_any_other_is_a_tombstone() {
        let mut ended = empty();
        ended[..PREFIX_LEN].copy_from_slice(&slot::tombstone());
        let of = |first: &[u8], second: &[u8]| match view(&[first, second].concat(), &id(), None).unwrap() {
            View::Moved(moved) => {
                assert_eq!((moved.mark, moved.state), (mark(7), State::NAME_SYNCED));
                Some((moved.slot, moved.is_complete))
            }
            View::Empty => None,
            other => panic!("{other:?}"),
        };
        let mut torn_mark = marked(7);
        torn_mark[PREFIX_LEN] ^= 1;
        for (other, is_complete) in
            [(slot(4), false), (slot(9), false), (torn(4), false), (empty(), false), (ended, true)]
        {
            assert_eq!(of(&marked(7), &other), Some((0, is_complete)));
            assert_eq!(of(&other, &marked(7)), Some((1, is_complete)));
            assert_eq!((of(&torn_mark, &other), of(&other, &torn_mark)), (None, None));
        }
        assert_eq!(of(&torn_mark, &marked(7)), Some((1, false)));
        // A file of another format is not changed.
        let mut newer = slot(2);
        newer[4] = 9;
        for file in [[marked(7), newer.clone()].concat(), [newer, marked(7)].concat()] {
            assert_eq!(view(&file, &id(), None).unwrap_err().kind(), ErrorKind::NewerFormat);
        }
    }

    #[test]
    fn a_file_of_a_wrong_size_holds_no_version() {
        let whole = [slot(1), slot(2)].concat();
        for length in [0, 1, SLOT_MIN, 2 * SLOT_MIN - 1] {
            assert!(matches!(view(&whole[..length], &id(), None).unwrap(), View::Empty), "{length}");
        }
        for length in [2 * SLOT_MIN + 1, 2 * SLOT_MIN + 2, 3 * SLOT_MIN, 4 * SLOT_MAX] {
            let mut longer = vec![0; length];
            longer[..whole.len()].copy_from_slice(&whole);
            assert!(matches!(view(&longer, &id(), None).unwrap(), View::Damaged), "{length}");
        }
        // A file of zeros, of the largest possible size, has no version.
        assert!(matches!(view(&vec![0; 2 * SLOT_MAX], &id(), None).unwrap(), View::Empty));
    }

    #[test]
    fn a_partial_first_slot_is_an_unfinished_creation() {
        let record = Record::new(UNIX_EPOCH, UNIX_EPOCH);
        let part = |sequence, state, file_bytes: usize| {
            let mut bytes = slot::encode(
                &record,
                &slot::Header { id: &id(), sequence, state, slot_size_min: 4 * SLOT_MIN },
                SLOT_MAX,
            )
            .unwrap()
            .to_vec();
            bytes.resize(file_bytes, 0);
            view(&bytes, &id(), None).unwrap()
        };
        for bytes in [2 * SLOT_MIN, 3 * SLOT_MIN, 4 * SLOT_MIN, 7 * SLOT_MIN, 8 * SLOT_MIN - 1] {
            assert!(matches!(part(1, State::WRITTEN, bytes), View::Empty), "{bytes}");
            assert!(matches!(part(2, State::WRITTEN, bytes), View::Damaged), "{bytes}");
            assert!(matches!(part(1, State::DATA_SYNCED, bytes), View::Damaged), "{bytes}");
        }
        assert!(matches!(part(1, State::WRITTEN, 8 * SLOT_MIN), View::Valid { .. }));
        assert!(matches!(part(1, State::WRITTEN, 16 * SLOT_MIN), View::Damaged));
    }

    /// A visitor who knows the id can store a text that looks like a slot, and hope that a disk loses the second half
    /// of the file.
    #[test]
    fn bytes_inside_a_slot_are_never_a_version() {
        let record = Record::new(UNIX_EPOCH, UNIX_EPOCH);
        let likeness = slot(9);
        let mut first = slot::encode(
            &record,
            &slot::Header { id: &id(), sequence: 1, state: State::WRITTEN, slot_size_min: 2 * SLOT_MIN },
            SLOT_MAX,
        )
        .unwrap()
        .to_vec();
        first.resize(SLOT_MIN, 0);
        let cut = |first: &[u8]| view(&[first, &likeness].concat(), &id(), None);
        assert!(
            matches!(cut(&first), Ok(View::Damaged)),
            "not unfinished either: there is something behind it"
        );
        for byte in 0..PREFIX_LEN {
            let mut torn = first.clone();
            torn[byte] ^= 4;
            // The first 4 bytes are the magic. Without it, a slot states no size. They are in one sector, and the same
            // in all versions, so they are not torn.
            let magic = byte < 4;
            let size = byte == 6;
            match cut(&torn) {
                Ok(View::Damaged) => assert!(!magic, "byte {byte}"),
                Ok(View::Valid { slot: 1, .. }) => assert!(magic || size, "byte {byte}"),
                Err(error) => {
                    assert!(error.kind() == ErrorKind::NewerFormat && [4, 5].contains(&byte), "byte {byte}");
                }
                other => panic!("byte {byte}: {other:?}"),
            }
        }
        let mut voided = first.clone();
        voided[..PREFIX_LEN].copy_from_slice(&slot::void(2 * SLOT_MIN));
        assert!(matches!(cut(&voided), Ok(View::Damaged)));
        // The first slot states the largest possible size, or a size that no slot has.
        for (size, is_cut) in [(SLOT_MAX, true), (2 * SLOT_MAX, false)] {
            voided[..PREFIX_LEN].copy_from_slice(&slot::void(size));
            assert_eq!(matches!(cut(&voided), Ok(View::Damaged)), is_cut, "{size}");
        }
        // The first slot of a whole file has a failed save, and the second slot has a version.
        voided[..PREFIX_LEN].copy_from_slice(&slot::void(SLOT_MIN));
        assert!(matches!(cut(&voided), Ok(View::Valid { slot: 1, settled: false, .. })));
    }

    #[test]
    fn a_whole_file_has_the_size_that_its_first_slot_claims() {
        let record = Record::new(UNIX_EPOCH, UNIX_EPOCH);
        let large = |file_bytes: usize| {
            let mut bytes = slot::encode(
                &record,
                &slot::Header { id: &id(), sequence: 1, state: State::WRITTEN, slot_size_min: 2 * SLOT_MIN },
                SLOT_MAX,
            )
            .unwrap()
            .to_vec();
            bytes.resize(file_bytes, 0);
            bytes
        };
        let mut ended = empty();
        ended[..PREFIX_LEN].copy_from_slice(&slot::tombstone());
        for (bytes, want) in [
            ([slot(1), slot(2)].concat(), true),
            ([slot(1), empty()].concat(), true),
            // The second slot may be the middle of the first, so it is not asked.
            ([empty(), slot(1)].concat(), false),
            ([ended.clone(), slot(1)].concat(), false),
            (large(4 * SLOT_MIN), true),
            // The first page of a larger file, and its first two pages.
            (large(2 * SLOT_MIN), false),
            ([large(SLOT_MIN), slot(2)].concat(), false),
            ([empty(), large(SLOT_MIN)].concat(), false),
            ([empty(), empty()].concat(), false),
            ([ended, empty()].concat(), false),
            (slot(1), false),
            ([slot(1), slot(2), slot(3)].concat(), false),
        ] {
            assert_eq!(is_whole(&bytes), want, "{} bytes: {:?}", bytes.len(), slot::claim(&bytes));
        }
    }

    #[test]
    fn only_the_known_version_skips_verification() {
        let View::Valid { newest, .. } = view(&[slot(3), slot(4)].concat(), &id(), None).unwrap() else {
            panic!("valid")
        };
        let known = Known { version: newest.version, record: &newest.record };
        let found =
            |first: Vec<u8>, second: Vec<u8>| match view(&[first, second].concat(), &id(), Some(known)) {
                Ok(View::Valid { newest: found, .. }) => Some((
                    found.version.sequence,
                    std::ptr::eq(found.record.as_bytes(), newest.record.as_bytes()),
                )),
                _ => None,
            };
        assert_eq!(found(slot(3), slot(4)), Some((4, true)));
        // The payload was damaged after it was verified, so the verified record is returned.
        assert_eq!(found(slot(3), torn(4)), Some((4, true)));
        assert_eq!(found(slot(5), slot(4)), Some((5, false)));
        assert_eq!(found(slot(3), torn(2)), Some((3, false)));
        // A slot with the same sequence and another content: a backup was put in place of the file.
        let mut other = slot(4);
        other[LENGTH] ^= 1;
        assert_eq!(found(slot(3), other.clone()), Some((4, true)), "the checksum decides");
        other[CHECKSUM] ^= 1;
        assert_eq!(found(slot(3), other), Some((3, false)));
        assert_eq!(found(slot(3), torn(6)), Some((3, false)));
        let mut ended = empty();
        ended[..PREFIX_LEN].copy_from_slice(&slot::tombstone());
        assert_eq!(found(ended, slot(4)), None);
    }

    #[test]
    fn another_format_in_either_slot_is_an_error() {
        for (other, format, kind) in [
            (0, 9, ErrorKind::NewerFormat),
            (1, 9, ErrorKind::NewerFormat),
            (0, 1, ErrorKind::OlderFormat),
            (1, 1, ErrorKind::OlderFormat),
        ] {
            for neighbour in [slot(1), empty(), torn(1), vec![0xff; SLOT_MIN]] {
                let mut slots = [neighbour.clone(), neighbour];
                slots[other] = slot(2);
                slots[other][4] = format;
                let error = view(&slots.concat(), &id(), None).unwrap_err();
                assert_eq!(error.kind(), kind);
            }
        }
    }

    #[test]
    fn a_record_of_a_later_layout_never_lets_the_version_before_it_pass() {
        let record = Record::new(UNIX_EPOCH, UNIX_EPOCH);
        let mut later = record.as_bytes().to_vec();
        later[0] += 1;
        let slots = [slot(1), slot::sealed(2, &later, &id())].concat();
        assert_eq!(view(&slots, &id(), None).unwrap_err().kind(), ErrorKind::NewerFormat);
    }
}
