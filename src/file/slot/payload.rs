//! What a slot holds behind its prefix: the user and the entries, as postcard.
use crate::record::{Entries, Name};
use crate::value::Value;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The payload behind so many zero bytes, in a buffer of about the right size.
///
/// # Errors
///
/// An entry's bytes cannot be written down.
pub(super) fn encode_behind(
    zeros: usize,
    user: Option<&str>,
    entries: &Entries,
) -> postcard::Result<Vec<u8>> {
    let payload = Payload { user, entries };
    let mut out = Vec::with_capacity(zeros + payload.size_hint());
    out.resize(zeros, 0);
    postcard::to_extend(&payload, out)
}

/// How many bytes a payload is longer for its user than one without.
pub(super) fn user_bytes(user: Option<&str>) -> usize {
    // A user's length is one of postcard's varints, of seven bits a byte.
    let length = |bytes: usize| bytes.max(1).ilog2() as usize / 7 + 1;
    user.map_or(0, |user| length(user.len()) + user.len())
}

/// The reverse, and what is left of the bytes.
///
/// # Errors
///
/// They are no payload.
pub(super) fn decode(bytes: &[u8]) -> postcard::Result<(OwnedPayload, &[u8])> {
    postcard::take_from_bytes(bytes)
}

#[derive(Serialize)]
struct Payload<'a> {
    user: Option<&'a str>,
    entries: &'a Entries,
}

/// The same, on its way in.
#[derive(Deserialize)]
pub(super) struct OwnedPayload {
    pub(super) user: Option<String>,
    #[serde(deserialize_with = "in_order")]
    pub(super) entries: Entries,
}

/// Reads entries that come in order, as all that we wrote do: collected first, they need no search for each. Those that
/// do not are sorted.
fn in_order<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
    struct InOrder;
    impl<'de> Visitor<'de> for InOrder {
        type Value = Entries;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("entries")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
            // The count is the input's claim: no more than a page of memory is spent on it before entries come.
            let mut entries = Vec::with_capacity(map.size_hint().unwrap_or(0).min(64));
            while let Some(entry) = map.next_entry::<Name, Value>()? {
                entries.push(entry);
            }
            Ok(entries.into_iter().collect())
        }
    }
    deserializer.deserialize_map(InOrder)
}

impl Payload<'_> {
    /// About how many bytes it takes: at most two for each length, for values below 16 KiB.
    fn size_hint(&self) -> usize {
        let entry = |(name, value): (&Name, &Value)| name.len() + value.as_bytes().len() + 4;
        self.user.map_or(0, str::len) + 8 + self.entries.iter().map(entry).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_user_are_those_that_are_written() {
        let payload = |user: Option<&str>| encode_behind(0, user, &Entries::new()).unwrap().len();
        for length in [0, 1, 127, 128, 129, 255, 256, 16_383, 16_384] {
            let user = "u".repeat(length);
            assert_eq!(payload(Some(&user)), payload(None) + user_bytes(Some(&user)), "{length}");
        }
    }
}
