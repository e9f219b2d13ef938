//! What this crate's own benchmarks and fuzz targets reach past the interface. No promises: it changes with any version.
use crate::error::Result;
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
