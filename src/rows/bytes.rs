//! The bytes of a row's record, for back ends that store bytes: a format number, a checksum, and the bytes that every
//! storage mode stores.
//!
//! The checksum detects what a server may do to a row: text that was cut or converted, a damaged page, a row that was
//! copied to another id. It is keyed with the public id, which is no secret: a writer of the table can make a valid
//! one.
#[cfg(feature = "sqlite")]
use super::row::MovedRow;
#[cfg(feature = "sqlite")]
use crate::clock::{from_micros, micros};
use crate::error::{Error, ErrorKind, Result};
use crate::id::PublicId;
use crate::record::Record;

const FORMAT: u8 = 1;
const CHECK_LEN: usize = 16;
const PREFIX_LEN: usize = 1 + CHECK_LEN;
/// Fill the key of the checksum beside the id, so that it is no other checksum of the same bytes.
const DOMAIN: [u8; 12] = *b"sessile: row";
#[cfg(feature = "sqlite")]
const DOMAIN_OF_MOVED: [u8; 12] = *b"sessile:move";
/// The length of the content of a moved row: the end of its grace period, whether a login has moved it, its successor.
#[cfg(feature = "sqlite")]
const MOVED_LEN: usize = 8 + 1 + PublicId::LEN;

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
    sealed(id, DOMAIN, record.as_bytes())
}

fn sealed(id: &PublicId, domain: [u8; 12], content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PREFIX_LEN + content.len());
    bytes.push(FORMAT);
    bytes.extend_from_slice(&check(id, domain, content));
    bytes.extend_from_slice(content);
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
    Record::from_bytes(unsealed(id, DOMAIN, bytes)?)
        .map_err(|error| error.with_operation(format!("read the row of session {id}")))
}

/// The bytes of the row of a moved id, in the same form.
#[cfg(feature = "sqlite")]
pub(crate) fn encode_moved(id: &PublicId, moved: &MovedRow) -> Vec<u8> {
    let mut content = [0; MOVED_LEN];
    content[..8].copy_from_slice(&micros(moved.until).to_be_bytes());
    content[8] = moved.by_login.into();
    content[9..].copy_from_slice(moved.successor.as_bytes());
    sealed(id, DOMAIN_OF_MOVED, &content)
}

/// The row of a moved id, of the bytes that [`encode_moved`] made.
///
/// # Errors
///
/// Those of [`decode`].
#[cfg(feature = "sqlite")]
pub(crate) fn decode_moved(id: &PublicId, bytes: &[u8]) -> Result<MovedRow> {
    let content = unsealed(id, DOMAIN_OF_MOVED, bytes)?;
    let Ok(content) = <&[u8; MOVED_LEN]>::try_from(content) else {
        return Err(refused(id, ErrorKind::Corrupt, "it has another length than the row of a moved id"));
    };
    let (until, rest) = content.split_first_chunk().expect("it is longer");
    let (by_login, successor) = rest.split_first().expect("it is longer");
    let successor = PublicId::from_bytes(*successor.first_chunk().expect("it is as long"));
    Ok(MovedRow::new(successor, from_micros(u64::from_be_bytes(*until)), *by_login != 0))
}

/// The content of bytes that [`sealed`] made.
fn unsealed<'a>(id: &PublicId, domain: [u8; 12], bytes: &'a [u8]) -> Result<&'a [u8]> {
    let refuse = |kind, reason| Err(refused(id, kind, reason));
    let Some((prefix, content)) = bytes.split_first_chunk::<PREFIX_LEN>() else {
        return refuse(ErrorKind::Corrupt, "it is too short");
    };
    if prefix[0] != FORMAT {
        return if prefix[0] > FORMAT {
            refuse(ErrorKind::NewerFormat, "a newer version of this library wrote it")
        } else {
            refuse(ErrorKind::Corrupt, "it begins with no format number")
        };
    }
    if prefix[1..] != check(id, domain, content) {
        return refuse(ErrorKind::Corrupt, "its checksum does not fit it or its id");
    }
    Ok(content)
}

/// The error for a row whose stored form is wrong.
#[cold]
pub(crate) fn refused(id: &PublicId, kind: ErrorKind, reason: &'static str) -> Error {
    Error::new(kind, format!("read the row of session {id}")).with_reason(reason)
}

fn check(id: &PublicId, domain: [u8; 12], content: &[u8]) -> [u8; CHECK_LEN] {
    let mut key = [0; PublicId::LEN + DOMAIN.len()];
    key[..PublicId::LEN].copy_from_slice(id.as_bytes());
    key[PublicId::LEN..].copy_from_slice(&domain);
    let hash = blake3::keyed_hash(&key, content);
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

    #[cfg(feature = "sqlite")]
    #[test]
    fn the_row_of_a_moved_id_is_no_session_and_keeps_every_byte() {
        let (id, successor) = (PublicId::digest(b"a"), PublicId::digest(b"b"));
        for by_login in [false, true] {
            let moved = MovedRow::new(successor, from_micros(7_000_001), by_login);
            let bytes = encode_moved(&id, &moved);
            assert_eq!(decode_moved(&id, &bytes).unwrap(), moved);
            assert_eq!(decode(&id, &bytes).unwrap_err().kind(), ErrorKind::Corrupt);
            assert_eq!(decode_moved(&successor, &bytes).unwrap_err().kind(), ErrorKind::Corrupt);
            for at in 1..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert_eq!(decode_moved(&id, &changed).unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
            }
        }
    }
}
