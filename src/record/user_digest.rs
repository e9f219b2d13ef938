//! The digest by which a cut-off names a user: 16 bytes that show neither the name nor its length.
//!
//! A record keeps the digest of its user beside the user's name, so that a store compares 16 bytes, whatever the name
//! is.

/// The key of the hash. With a key of its own, the digest equals no other hash of the same name.
const DOMAIN: [u8; 32] = *b"sessile: the digest of a user   ";

/// The digest of a user: the first 16 bytes of the keyed BLAKE3 hash of the name. `None` for the empty name, which no
/// user has.
pub(crate) fn user_digest(user: &str) -> Option<[u8; 16]> {
    if user.is_empty() {
        return None;
    }
    let hash = blake3::keyed_hash(&DOMAIN, user.as_bytes());
    hash.as_bytes().first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_digest_is_its_own_and_no_plain_hash_of_the_name() {
        let [ada, bob] = ["ada", "bob"].map(|user| user_digest(user).unwrap());
        assert_ne!(ada, bob);
        assert_ne!(ada, blake3::hash(b"ada").as_bytes()[..16]);
        assert_eq!(user_digest(""), None);
        // Digests are stored, so they must never change.
        assert_eq!(ada, 0xbbba_4b28_4b0b_6faa_67e6_a363_47c0_896c_u128.to_be_bytes());
    }
}
