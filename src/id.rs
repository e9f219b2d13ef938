//! The secret id and its digest: [`SessionId`] and [`Token`] are in the cookie, [`PublicId`] names files on the disk.
//!
//! A secret id exists in the cookie and in memory only. Neither secret type has `Display`, and their `Debug` is
//! redacted. Logs and paths show the [`PublicId`], from which the secret id cannot be computed.
use crate::error::Result;
use crate::random;
use base32ct::{Base32Unpadded, Encoding};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of random bytes in a session id: 160 bits. OWASP and ASVS 5.0 (7.2.3) require at least 128 bits.
const ID_BYTES: usize = 20;
/// The number of characters of a session id. Each base32 character has five bits, so 160 bits need exactly 32 and no
/// padding.
const ID_CHARS: usize = 32;
const _: () = assert!(ID_BYTES * 8 == ID_CHARS * 5, "no padding, no spare bits: one text for one id");

/// The secret id of one session: 160 random bits as 32 characters `[a-z2-7]`.
///
/// Used by the storage modes whose cookie holds an id (file, database, cache). The id remembers its
/// [digest](Self::public_id) after the first request for it; later clones have it too.
#[derive(Clone)]
pub struct SessionId {
    chars: [u8; ID_CHARS],
    /// The digest of the id. It is computed when it is first needed: a request that does not use its session, or finds
    /// it in the cache, needs none.
    digest: LazyDigest,
}

/// A digest that any thread may compute: all get the same, so no thread has to wait for another, as for a `OnceLock`,
/// whose clone costs more than the rest of a [`Token`]'s. Its bytes, then a one: three words, of which the last is
/// written last and read first.
#[derive(Default)]
struct LazyDigest([AtomicU64; 3]);

impl LazyDigest {
    fn get(&self) -> Option<PublicId> {
        let [first, second, last] = &self.0;
        let last = last.load(Ordering::Acquire);
        let words =
            [first.load(Ordering::Relaxed), second.load(Ordering::Relaxed), last].map(u64::to_le_bytes);
        let (digest, rest) = words.as_flattened().split_first_chunk().expect("24 bytes");
        (rest[0] == 1).then_some(PublicId(*digest))
    }

    fn set(&self, PublicId(digest): PublicId) {
        let mut words = [[0; 8]; 3];
        words.as_flattened_mut()[..PublicId::LEN].copy_from_slice(&digest);
        words.as_flattened_mut()[PublicId::LEN] = 1;
        let [first, second, last] = words.map(u64::from_le_bytes);
        self.0[0].store(first, Ordering::Relaxed);
        self.0[1].store(second, Ordering::Relaxed);
        self.0[2].store(last, Ordering::Release);
    }
}

impl Clone for LazyDigest {
    fn clone(&self) -> Self {
        let clone = Self::default();
        if let Some(digest) = self.get() {
            clone.set(digest);
        }
        clone
    }
}

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
        Ok(Self { chars, digest: LazyDigest::default() })
    }

    /// Accepts exactly the ids that [`random`](Self::random) can make: 32 characters, each of `[a-z2-7]`.
    ///
    /// Anything else (empty, longer, upper case, `../`, `%2f`, NUL, non-ASCII) is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_octets(text.as_bytes())
    }

    fn from_octets(text: &[u8]) -> Option<Self> {
        Self::from_chars(text.try_into().ok()?)
    }

    fn from_chars(chars: &[u8; ID_CHARS]) -> Option<Self> {
        // All characters are checked, without an early exit: the compiler then compares 16 at a time, in 40
        // instructions instead of 400.
        let is_id =
            chars.iter().fold(true, |all, c| all & (c.is_ascii_lowercase() | (b'2'..=b'7').contains(c)));
        is_id.then_some(Self { chars: *chars, digest: LazyDigest::default() })
    }

    /// The characters of the id.
    pub(crate) fn as_bytes(&self) -> &[u8; ID_CHARS] {
        &self.chars
    }

    /// The digest under which the session is stored. It is computed at the first call.
    #[must_use]
    pub fn public_id(&self) -> PublicId {
        self.digest.get().unwrap_or_else(|| {
            let digest = PublicId::digest(&self.chars);
            self.digest.set(digest);
            digest
        })
    }

    /// Whether the digest was computed already.
    #[cfg(test)]
    pub(crate) fn has_digest(&self) -> bool {
        self.digest.get().is_some()
    }

    /// The token that has this id as the value of the cookie.
    #[must_use]
    pub fn to_token(&self) -> Token {
        Token(Form::Id(self.clone()))
    }
}

/// Ids are equal if their texts are equal. The digest is computed from the text, so it is not compared.
impl PartialEq for SessionId {
    fn eq(&self, other: &Self) -> bool {
        self.chars == other.chars
    }
}

impl Eq for SessionId {}

impl Hash for SessionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.chars.hash(state);
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(secret)")
    }
}

/// The value of the cookie: an id, or (sealed cookies) the sealed session itself.
///
/// A token is 1..=4,096 bytes, each of them allowed in a cookie value by RFC 6265 section 4.1.1. A token that is an id
/// is stored inline, without an allocation, and is parsed once: see [`session_id`](Self::session_id).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token(Form);

/// The text of a token. Each text is stored in exactly one of these forms, so that equal texts are equal tokens.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Form {
    /// A text that is an id.
    Id(SessionId),
    /// Any other text.
    Text(Box<str>),
}

impl Token {
    /// Longest token, in bytes: browsers refuse cookies whose name and value exceed 4,096 together.
    pub const BYTES_MAX: usize = 4096;

    /// Accepts a cookie value; `None` if it is empty, too long or holds a byte no cookie value may have.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        Self::from_octets(value.as_bytes())
    }

    /// The same as [`parse`](Self::parse), for a part of a header.
    pub(crate) fn from_octets(value: &[u8]) -> Option<Self> {
        if let Some(id) = SessionId::from_octets(value) {
            return Some(Self(Form::Id(id)));
        }
        let octet = |c: &u8| matches!(c, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e);
        let is_token = (1..=Self::BYTES_MAX).contains(&value.len()) && value.iter().all(octet);
        is_token.then(|| Self(Form::Text(str::from_utf8(value).expect("ASCII").into())))
    }

    /// The id at the beginning of a part of a header, and the bytes after it. These bytes may belong to a longer token,
    /// so the caller must examine them.
    pub(crate) fn split_id(octets: &[u8]) -> Option<(Self, &[u8])> {
        let (chars, rest) = octets.split_first_chunk()?;
        Some((Self(Form::Id(SessionId::from_chars(chars)?)), rest))
    }

    /// The session id, if the token is one; for a [`Store`](crate::store::Store) that finds sessions by their ids.
    ///
    /// ```
    /// use sessile::{SessionId, Token};
    /// let id = SessionId::random()?;
    /// assert_eq!(id.to_token().session_id(), Some(&id));
    /// assert_eq!(Token::parse("../etc/passwd").and_then(|token| token.session_id().cloned()), None);
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn session_id(&self) -> Option<&SessionId> {
        match &self.0 {
            Form::Id(id) => Some(id),
            Form::Text(_) => None,
        }
    }

    /// The secret text: for the cookie, and for a [`Store`](crate::store::Store) that looks sessions up by it. Never
    /// log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        match &self.0 {
            Form::Id(id) => str::from_utf8(&id.chars).expect("ASCII"),
            Form::Text(text) => text,
        }
    }

    /// The digest of the token's secret text.
    pub(crate) fn public_id(&self) -> PublicId {
        match &self.0 {
            Form::Id(id) => id.public_id(),
            Form::Text(text) => PublicId::digest(text.as_bytes()),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

/// The digest of a session's secret id: the first 160 bits of its BLAKE3 hash, shown as 40 hexadecimal characters.
///
/// Safe in paths, logs and events: the secret id cannot be computed from it, and it is worthless as a cookie.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicId([u8; Self::LEN]);

impl PublicId {
    /// Length in bytes.
    pub const LEN: usize = 20;

    /// The digest of a secret text; for implementors of [`Store`](crate::store::Store).
    #[must_use]
    pub fn digest(secret: &[u8]) -> Self {
        let hash = blake3::hash(secret);
        let mut id = [0; Self::LEN];
        id.copy_from_slice(&hash.as_bytes()[..Self::LEN]);
        if cfg!(sessile_fuzzing) {
            // Under the fuzzer, a store has only four shards.
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

    /// The public id that has these bytes.
    pub(crate) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes of the digest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The 40 characters of [`Display`](fmt::Display), without an allocation.
    pub(crate) fn hex(&self) -> [u8; 2 * Self::LEN] {
        // The digits are computed and not looked up in a table, so that the compiler computes 16 at a time.
        let digit = |half: u8| half + if half < 10 { b'0' } else { b'a' - 10 };
        let mut hex = [0; 2 * Self::LEN];
        for (pair, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [byte >> 4, byte & 15];
        }
        for half in &mut hex {
            *half = digit(*half);
        }
        hex
    }
}

impl fmt::Display for PublicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.hex()).expect("ASCII"))
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
        // The standard deviation is 500. A correct generator deviates by six times that in one run of three million.
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
    fn a_text_is_an_id_or_another_token_whichever_way_it_is_read() {
        let text = "abcdefghijklmnopqrstuvwxyz234567";
        let id = SessionId::parse(text).unwrap();
        assert_eq!(Token::parse(text), Some(id.to_token()));
        assert_eq!(Token::parse(text).unwrap().session_id(), Some(&id));
        for rest in ["", ";", "x", ".x"] {
            let whole = format!("{text}{rest}");
            assert_eq!(Token::split_id(whole.as_bytes()), Some((id.to_token(), rest.as_bytes())));
        }
        for other in [&text[1..], &format!("{text}2"), &text.to_uppercase(), &format!("{}é", &text[2..]), "a"]
        {
            assert_eq!(Token::parse(other).as_ref().and_then(Token::session_id), None, "{other}");
            assert_eq!(
                Token::parse(other).map(|token| token.expose().to_owned()).as_deref(),
                other.is_ascii().then_some(other)
            );
            assert_eq!(
                Token::parse(other).map(|token| token.public_id()),
                other.is_ascii().then(|| PublicId::digest(other.as_bytes()))
            );
        }
    }

    #[test]
    fn a_digest_is_computed_once_when_it_is_asked_for() {
        let token = Token::parse("abcdefghijklmnopqrstuvwxyz234567").unwrap();
        let id = token.session_id().unwrap();
        let before = token.clone();
        assert_eq!((&before, token.expose().len()), (&token, 32));
        assert!(!id.has_digest());
        assert_eq!(token.public_id(), PublicId::digest(token.expose().as_bytes()));
        assert!(id.has_digest() && token.clone().session_id().unwrap().has_digest());
        assert!(!before.session_id().unwrap().has_digest());
        assert_eq!((&before, HashSet::from([before.clone(), token.clone()]).len()), (&token, 1));
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
