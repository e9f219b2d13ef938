//! Internal functions for this crate's own benchmarks and fuzz targets. They may change with any version.
use super::layout::SessionPath;
use super::slot::{self, Mark, SLOT_MAX, SLOT_MIN, State};
use super::slots::{self, View};
use crate::error::Result;
use crate::id::PublicId;
use crate::record::Record;

/// The bytes of a slot that holds a record: prefix and record, at the first version.
///
/// # Errors
///
/// Those of a save: the record is too large.
pub fn encode(record: &Record, id: &PublicId) -> Result<Vec<u8>> {
    let header = slot::Header { id, sequence: 1, state: State::WRITTEN, slot_size_min: 0 };
    slot::encode(record, &header, SLOT_MAX).map(|encoded| encoded.to_vec())
}

/// The record in a whole slot.
///
/// # Errors
///
/// As for a load: damaged, or of another format.
pub fn decode(slot: &[u8], id: &PublicId) -> Result<Record> {
    slot::decode(slot, id).map(|decoded| decoded.record)
}

/// Computes the checksum of bytes that [`encode`] returned, for a benchmark of the checksum alone.
pub fn checksum(encoded: &[u8], id: &PublicId) -> [u8; 16] {
    slot::checksum_of(encoded, id)
}

/// A slot with these bytes as its record, and a valid checksum.
pub fn sealed(sequence: u64, record: &[u8], id: &PublicId) -> Vec<u8> {
    slot::sealed(sequence, record, id)
}

/// The newest record in the bytes of a whole file, as a reader finds it.
///
/// # Errors
///
/// [`ErrorKind::NewerFormat`](crate::ErrorKind::NewerFormat),
/// [`ErrorKind::OlderFormat`](crate::ErrorKind::OlderFormat).
pub fn newest(file: &[u8], id: &PublicId) -> Result<Option<Record>> {
    Ok(match slots::view(file, id, None)? {
        View::Valid { newest, .. } => Some(newest.record),
        View::Empty | View::Damaged | View::Moved(_) => None,
    })
}

/// The bytes of the smallest slot that has the mark of a moved session.
pub fn encode_moved(successor: &PublicId, until: u64, by_login: bool, id: &PublicId) -> Vec<u8> {
    let header = slot::Header { id, sequence: 2, state: State::WRITTEN, slot_size_min: SLOT_MIN };
    let mut bytes = slot::encode_mark(&Mark { successor: *successor, until, by_login }, &header).to_vec();
    bytes.resize(SLOT_MIN, 0);
    bytes
}

/// The successor in the bytes of a whole file, if it has the mark of a moved session, and the mark's other fields.
///
/// # Errors
///
/// Those of [`newest`].
pub fn moved(file: &[u8], id: &PublicId) -> Result<Option<(PublicId, u64, bool)>> {
    Ok(match slots::view(file, id, None)? {
        View::Moved(moved) => Some((moved.mark.successor, moved.mark.until, moved.mark.by_login)),
        _ => None,
    })
}

/// The path of a session file below the root of its store.
pub fn path_of(id: &PublicId) -> String {
    SessionPath::of(id).as_str().to_owned()
}

/// Runs a script, of four bytes a line, on four stores and a map (see `file/model.rs`).
///
/// # Panics
///
/// If a store and the map differ.
#[cfg(sessile_fuzzing)]
pub fn run_script(bytes: &[u8]) {
    let script: Vec<_> = bytes.as_chunks::<4>().0.iter().map(|line| (*line).into()).collect();
    super::model::run(&script);
}
