//! The bytes of a row's record, for back ends that store bytes: a format number, a checksum, and the bytes that every
//! storage mode stores.
//!
//! The checksum detects what a server may do to a row: text that was cut or converted, a damaged page, a row that was
//! copied to another id. It is keyed with the public id, which is no secret: a writer of the table can make a valid
//! one.
use crate::error::{Error, ErrorKind, Result};
use crate::id::PublicId;
use crate::record::Record;

const FORMAT: u8 = 1;
const CHECK_LEN: usize = 16;
const PREFIX_LEN: usize = 1 + CHECK_LEN;
/// Fills the key of the checksum beside the id, so that it is no other checksum of the same bytes.
const DOMAIN: [u8; 12] = *b"sessile: row";

/// The bytes of a record under an id.
///
/// ```
/// use sessile::{Record, SessionId, rows};
/// let id = SessionId::random()?.public_id();
/// let record = Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH);
/// let bytes = rows::encode(&id, &record);
/// assert_eq!(rows::decode(&id, &bytes)?, record);
/// # Ok::<(), sessile::Error>(())
/// ```
#[must_use]
pub fn encode(id: &PublicId, record: &Record) -> Vec<u8> {
    let record = record.as_bytes();
    let mut bytes = Vec::with_capacity(PREFIX_LEN + record.len());
    bytes.push(FORMAT);
    bytes.extend_from_slice(&check(id, record));
    bytes.extend_from_slice(record);
    bytes
}

/// The record of the bytes that [`encode`] made for this id.
///
/// # Errors
///
/// [`ErrorKind::Corrupt`] if they are not these bytes, [`ErrorKind::NewerFormat`] if a newer version of this crate made
/// them.
///
/// ```
/// use sessile::{ErrorKind, Record, SessionId, rows};
/// let (id, other) = (SessionId::random()?.public_id(), SessionId::random()?.public_id());
/// let bytes = rows::encode(&id, &Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH));
/// let refused = rows::decode(&other, &bytes).unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Corrupt);
/// # Ok::<(), sessile::Error>(())
/// ```
pub fn decode(id: &PublicId, bytes: &[u8]) -> Result<Record> {
    let refuse = |kind, reason: &'static str| {
        Err(Error::new(kind, format!("read the row of session {id}")).with_reason(reason))
    };
    let Some((prefix, record)) = bytes.split_first_chunk::<PREFIX_LEN>() else {
        return refuse(ErrorKind::Corrupt, "it is too short");
    };
    if prefix[0] != FORMAT {
        return if prefix[0] > FORMAT {
            refuse(ErrorKind::NewerFormat, "a newer version of this library wrote it")
        } else {
            refuse(ErrorKind::Corrupt, "it begins with no format number")
        };
    }
    if prefix[1..] != check(id, record) {
        return refuse(ErrorKind::Corrupt, "its checksum does not fit it or its id");
    }
    Record::from_bytes(record).map_err(|error| error.with_operation(format!("read the row of session {id}")))
}

fn check(id: &PublicId, record: &[u8]) -> [u8; CHECK_LEN] {
    let mut key = [0; PublicId::LEN + DOMAIN.len()];
    key[..PublicId::LEN].copy_from_slice(id.as_bytes());
    key[PublicId::LEN..].copy_from_slice(&DOMAIN);
    let hash = blake3::keyed_hash(&key, record);
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn every_changed_or_missing_byte_is_found() {
        let id = PublicId::digest(b"a");
        let record = Record::new(UNIX_EPOCH, UNIX_EPOCH).with_user("ada").unwrap();
        let bytes = encode(&id, &record);
        assert_eq!(decode(&id, &bytes).unwrap(), record);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            let want = if at == 0 { ErrorKind::NewerFormat } else { ErrorKind::Corrupt };
            assert_eq!(decode(&id, &changed).unwrap_err().kind(), want, "byte {at}");
            assert_eq!(decode(&id, &bytes[..at]).unwrap_err().kind(), ErrorKind::Corrupt, "{at} bytes");
        }
        assert_eq!(decode(&PublicId::digest(b"b"), &bytes).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(decode(&id, &[&bytes[..], &[0]].concat()).unwrap_err().kind(), ErrorKind::Corrupt);
        let old = [&[0], &bytes[1..]].concat();
        assert_eq!(decode(&id, &old).unwrap_err().kind(), ErrorKind::Corrupt);
        // They are stored, so they must never change.
        assert_eq!(bytes[..4], [1, 194, 19, 89]);
    }
}
