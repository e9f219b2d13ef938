//! The bytes of a bucket of the user index: entries of 32 bytes. Opens no file.
//!
//! ```text
//!  0   8  tag of the user: the first bytes of the user's digest
//!  8  20  public id of the session
//! 28   4  check: the first bytes of the BLAKE3 hash of the 28 before it
//! ```
use crate::file::layout::USER_BUCKETS;
use crate::id::PublicId;

const TAG: usize = 8;
const CHECK_AT: usize = TAG + PublicId::LEN;
pub(in crate::file) const ENTRY_BYTES: usize = CHECK_AT + 4;
const _: () = assert!(ENTRY_BYTES == 32);

/// The digest of a user.
pub(in crate::file) type Digest = [u8; 16];

/// One line of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::file) struct Entry {
    pub(in crate::file) tag: [u8; TAG],
    pub(in crate::file) id: PublicId,
}

impl Entry {
    pub(in crate::file) fn new(digest: &Digest, id: PublicId) -> Self {
        Self { tag: tag_of(digest), id }
    }

    pub(super) fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..TAG].copy_from_slice(&self.tag);
        bytes[TAG..CHECK_AT].copy_from_slice(self.id.as_bytes());
        let check = check_of(&bytes);
        bytes[CHECK_AT..].copy_from_slice(&check);
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let (tag, rest) = bytes.split_first_chunk::<TAG>()?;
        let id = PublicId::from_bytes(*rest.first_chunk()?);
        (bytes[CHECK_AT..] == check_of(bytes)).then_some(Self { tag: *tag, id })
    }
}

pub(super) fn tag_of(digest: &Digest) -> [u8; TAG] {
    *digest.first_chunk().expect("a digest has 16 bytes")
}

/// The bucket of a user: 12 bits of the digest that are not in the tag.
pub(in crate::file) fn bucket_of(digest: &Digest) -> u16 {
    u16::from_le_bytes([digest[TAG], digest[TAG + 1]]) % USER_BUCKETS
}

fn check_of(entry: &[u8; ENTRY_BYTES]) -> [u8; 4] {
    *blake3::hash(&entry[..CHECK_AT]).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// The entries in the bytes of a bucket, and whether all bytes are entries. Fewer bytes than an entry's at the end are
/// no damage: they are an entry that is being appended, or one whose writer was killed before its session was created.
pub(super) fn parse(bytes: &[u8]) -> (Vec<Entry>, bool) {
    let (mut entries, mut at, mut is_sound) = (Vec::with_capacity(bytes.len() / ENTRY_BYTES), 0, true);
    while let Some(frame) = bytes[at..].first_chunk::<ENTRY_BYTES>() {
        if let Some(entry) = Entry::from_bytes(frame) {
            entries.push(entry);
            at += ENTRY_BYTES;
        } else {
            is_sound = false;
            at += 1;
        }
    }
    (entries, is_sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u8) -> Entry {
        Entry::new(&[n; 16], PublicId::digest(&[n]))
    }
    fn bytes_of(entries: impl IntoIterator<Item = u8>) -> Vec<u8> {
        entries.into_iter().flat_map(|n| entry(n).to_bytes()).collect()
    }
    #[track_caller]
    fn check(bytes: &[u8], want: &[u8], is_sound: bool) {
        let want: Vec<_> = want.iter().copied().map(entry).collect();
        assert_eq!(parse(bytes), (want, is_sound));
    }

    #[test]
    fn whole_entries_are_found_beside_torn_and_garbage_bytes() {
        check(&[], &[], true);
        check(&bytes_of(1..=3), &[1, 2, 3], true);
        for torn in (1..ENTRY_BYTES).step_by(if cfg!(miri) { 17 } else { 1 }) {
            check(&bytes_of([1, 2])[..ENTRY_BYTES + torn], &[1], true);
            check(
                &[&bytes_of([1])[..], &bytes_of([2])[..torn], &bytes_of([3, 4])].concat(),
                &[1, 3, 4],
                false,
            );
        }
        check(&[&[0; 3 * ENTRY_BYTES][..], &bytes_of([7])].concat(), &[7], false);
    }

    #[test]
    fn no_flipped_bit_makes_another_entry() {
        let bytes = bytes_of([9]);
        for bit in (0..8 * ENTRY_BYTES).step_by(if cfg!(miri) { 37 } else { 1 }) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            check(&flipped, &[], false);
        }
    }

    #[test]
    fn a_users_bucket_and_tag_come_from_different_bytes() {
        let mut digest = [1; 16];
        let (bucket, tag) = (bucket_of(&digest), tag_of(&digest));
        digest[8] ^= 1;
        assert_eq!(tag_of(&digest), tag);
        assert_ne!(bucket_of(&digest), bucket);
        assert!(bucket_of(&[0xff; 16]) < USER_BUCKETS);
    }
}
