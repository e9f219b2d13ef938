//! What this crate's own benchmarks and fuzz targets reach past the interface. No promises: it changes with any version.
use crate::error::Result;
use crate::file::probe;
use crate::id::FileId;
use crate::record::{self, Record, State};
use std::sync::Arc;

/// The bytes of a slot that holds a record: prefix and payload, at the first version.
///
/// # Errors
///
/// Those of a save: too large.
pub fn encode(record: &Record, id: &FileId) -> Result<Vec<u8>> {
    record::encode(record, id, 1, State::WRITTEN, 0, record::SLOT_MAX)
}

/// What a whole slot holds.
///
/// # Errors
///
/// As for a load: damaged, or of a newer format.
pub fn decode(slot: &[u8], id: &FileId) -> Result<Arc<Record>> {
    record::decode(slot, id).map(|decoded| decoded.record)
}

/// The checksum's work on what [`encode`] returned, and nothing else.
pub fn checksum(encoded: &[u8], id: &FileId) -> [u8; 16] {
    record::checksum(encoded, id)
}

/// Runs a script of four bytes a line against two stores and a map (`file/model.rs`).
///
/// # Panics
///
/// If they differ.
#[cfg(fuzzing)]
pub fn run_script(bytes: &[u8]) {
    let script: Vec<_> = bytes.as_chunks::<4>().0.iter().map(|line| (*line).into()).collect();
    crate::file::model::run(&script);
}

/// A slot under a valid checksum, whatever it says: `fields` are its prefix from the sequence to the end of the setting.
pub fn sealed(fields: &[u8], payload: &[u8], id: &FileId) -> Vec<u8> {
    record::sealed(fields, payload, id)
}

/// What the bytes of a whole file hold, as a reader sees them.
///
/// # Errors
///
/// [`ErrorKind::NewerFormat`](crate::ErrorKind::NewerFormat).
pub fn newest(file: &[u8], id: &FileId) -> Result<Option<Arc<Record>>> {
    probe::newest(file, id)
}

/// Where a session's file lies below the root of its store.
pub fn path_of(id: &FileId) -> String {
    probe::path_of(id)
}
