//! The secret and its digest: [`SessionId`] and [`Token`] travel in the cookie, [`PublicId`] names files on the disk.
//!
//! The secret exists in the cookie and in memory only. Neither secret type has `Display`, and their `Debug` is
//! redacted; logs and paths show the [`PublicId`], from which the secret cannot be computed.
use crate::error::Result;
use crate::random;
use base32ct::{Base32Unpadded, Encoding};
use std::fmt;

/// Random bytes in a session id: 160 bits, where OWASP and ASVS 5.0 (7.2.3) ask for 128 or more.
const ID_BYTES: usize = 20;
/// Characters of a session id: base32 carries five bits each, so 160 bits need exactly 32 and no padding.
const ID_CHARS: usize = 32;
const _: () = assert!(ID_BYTES * 8 == ID_CHARS * 5, "no padding, no spare bits: one text for one id");

/// The name of one session, known only to its visitor: 160 random bits as 32 characters `[a-z2-7]`.
///
/// Used by the storage modes whose cookie holds an id (file, database, cache).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId([u8; ID_CHARS]);

impl SessionId {
    /// Draws a new id from the operating system's generator.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Random`](crate::error::ErrorKind::Random) if the generator fails. There is no fallback.
    pub fn random() -> Result<Self> {
        let bits: [u8; ID_BYTES] = random::bytes("draw a session id")?;
        let mut chars = [0; ID_CHARS];
        let text = Base32Unpadded::encode(&bits, &mut chars).expect("20 bytes are exactly 32 characters");
        debug_assert_eq!(text.len(), ID_CHARS);
        Ok(Self(chars))
    }

    /// Accepts exactly the ids that [`random`](Self::random) can make: 32 characters, each of `[a-z2-7]`.
    ///
    /// Anything else (empty, longer, upper case, `../`, `%2f`, NUL, non-ASCII) is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let chars: [u8; ID_CHARS] = text.as_bytes().try_into().ok()?;
        chars.iter().all(|c| matches!(c, b'a'..=b'z' | b'2'..=b'7')).then_some(Self(chars))
    }

    /// The text's bytes.
    pub(crate) fn as_bytes(&self) -> &[u8; ID_CHARS] {
        &self.0
    }

    /// The digest under which the session is filed.
    #[must_use]
    pub fn public_id(&self) -> PublicId {
        PublicId::digest(&self.0)
    }

    /// The token that carries this id in the cookie.
    #[must_use]
    pub fn to_token(&self) -> Token {
        Token(String::from_utf8_lossy(&self.0).into())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(secret)")
    }
}

/// The value of the cookie: an id, or (sealed cookies) the sealed session itself.
///
/// A token is 1..=4,096 bytes, each of them allowed in a cookie value by RFC 6265 section 4.1.1.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token(Box<str>);

impl Token {
    /// Longest token, in bytes: browsers refuse cookies whose name and value exceed 4,096 together.
    pub const BYTES_MAX: usize = 4096;

    /// Accepts a cookie value; `None` if it is empty, too long or holds a byte no cookie value may have.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let octet = |c: &u8| matches!(c, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e);
        ((1..=Self::BYTES_MAX).contains(&value.len()) && value.as_bytes().iter().all(octet))
            .then(|| Self(value.into()))
    }

    /// The secret text: for the cookie, and for a [`Store`](crate::store::Store) that looks it up. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

/// Digest of a session's secret: the first 160 bits of its BLAKE3 hash, shown as 40 hexadecimal characters.
///
/// Safe in paths, logs and events: it cannot be turned back into the secret, and as a cookie it is worthless.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicId([u8; Self::LEN]);

impl PublicId {
    /// Length in bytes.
    pub const LEN: usize = 20;

    /// The digest of a secret; for implementors of [`Store`](crate::store::Store).
    #[must_use]
    pub fn digest(secret: &[u8]) -> Self {
        let hash = blake3::hash(secret);
        let mut id = [0; Self::LEN];
        id.copy_from_slice(&hash.as_bytes()[..Self::LEN]);
        if cfg!(sessile_fuzzing) {
            // A store has four shards there.
            id[0] &= 3;
        }
        Self(id)
    }

    /// Reads 40 lower-case hexadecimal characters, as [`Display`](fmt::Display) writes them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
        let pairs: &[[u8; 2]; Self::LEN] = pairs.try_into().ok()?;
        let mut id = [0; Self::LEN];
        for (byte, [high, low]) in id.iter_mut().zip(pairs) {
            *byte = hex(*high)? << 4 | hex(*low)?;
        }
        Some(Self(id))
    }

    /// The digest with these bytes.
    pub(crate) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The digest's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The 40 characters of [`Display`](fmt::Display), without an allocation.
    pub(crate) fn hex(&self) -> [u8; 2 * Self::LEN] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 2 * Self::LEN];
        for (pair, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        hex
    }
}

impl fmt::Display for PublicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hex().iter().try_for_each(|c| fmt::Write::write_char(f, char::from(*c)))
    }
}

impl fmt::Debug for PublicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_random_id_parses_back_to_itself() {
        let id = SessionId::random().unwrap();
        let token = id.to_token();
        assert_eq!(token.expose().len(), 32);
        assert_eq!(SessionId::parse(token.expose()), Some(id));
        assert_eq!(Token::parse(token.expose()), Some(token));
    }

    #[test]
    #[cfg_attr(miri, ignore = "too many for Miri")]
    fn a_million_ids_are_distinct_and_every_bit_is_a_fair_coin() {
        const DRAWS: u32 = 1_000_000;
        let mut seen = HashSet::with_capacity(DRAWS as usize);
        let mut ones = [0_u32; ID_BYTES * 8];
        for _ in 0..DRAWS {
            let id = SessionId::random().unwrap();
            let mut bits = [0; ID_BYTES];
            Base32Unpadded::decode(id.to_token().expose(), &mut bits).unwrap();
            for (n, count) in ones.iter_mut().enumerate() {
                *count += u32::from(bits[n / 8] >> (n % 8) & 1);
            }
            assert!(seen.insert(bits), "an id came twice");
        }
        // 500,000 ± 500 is one standard deviation; six of them fail one honest run in three million.
        for (bit, count) in ones.iter().enumerate() {
            assert!((497_000..=503_000).contains(count), "bit {bit} was set {count} times in {DRAWS}");
        }
    }

    #[track_caller]
    fn check_refused(text: &str) {
        assert_eq!(SessionId::parse(text), None, "{text:?} should be no id");
    }

    #[test]
    fn only_thirty_two_characters_of_a_to_z_and_2_to_7_are_an_id() {
        check_refused("");
        check_refused(&"a".repeat(31));
        check_refused(&"a".repeat(33));
        check_refused(&"A".repeat(32));
        for bad in ['0', '1', '8', '9', '/', '.', '%', '-', '_', '=', '\0', ' ', '"', 'Z'] {
            check_refused(&format!("{}{bad}", "a".repeat(31)));
        }
        check_refused(&"é".repeat(16));
        check_refused("../../../../../../../etc/passwd.");
    }

    #[test]
    fn a_token_holds_cookie_octets_only() {
        for bad in ["", "a b", "a;b", "a,b", "\"a\"", "a\\b", "a\nb", "a\0", "é"] {
            assert_eq!(Token::parse(bad), None, "{bad:?}");
        }
        assert!(Token::parse(&"x".repeat(4096)).is_some());
        assert!(Token::parse(&"x".repeat(4097)).is_none());
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let id = SessionId::random().unwrap();
        assert_eq!(format!("{id:?}"), "SessionId(secret)");
        assert_eq!(format!("{:?}", id.to_token()), "Token(secret)");
    }

    #[test]
    fn a_public_id_is_the_digest_reads_back_and_is_no_session_id() {
        let id = SessionId::parse("abcdefghijklmnopqrstuvwxyz234567").unwrap();
        let text = id.public_id().to_string();
        assert_eq!(text, blake3::hash(b"abcdefghijklmnopqrstuvwxyz234567").to_hex()[..40]);
        assert_eq!(PublicId::parse(&text), Some(id.public_id()));
        assert_eq!(PublicId::parse(&text.to_uppercase()), None);
        assert_eq!(PublicId::parse(&text[1..]), None);
        check_refused(&text);
    }
}
