//! The key of a session in the cache: its id.
use crate::id::SessionId;

/// A session id as bytes, not validated. It is a secret, so it has no `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::file) struct Key([u8; 32]);

impl Key {
    pub(in crate::file) fn of(session: &SessionId) -> Self {
        Self(*session.as_bytes())
    }

    /// A hash of the first eight characters, which are 40 random bits.
    #[inline]
    pub(super) fn hash(&self) -> u64 {
        let (words, _) = self.0.as_chunks();
        // The factor is the digits of the golden ratio: odd, and without a pattern in its bits. So each bit of the id
        // changes the upper half of the product.
        let product = u64::from_le_bytes(words[0]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        product ^ (product >> 32)
    }
}
