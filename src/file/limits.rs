//! The limits on the size of a record: encodes a record for the disk, or refuses it with an error that names the limit.
//!
//! There are two limits: on the bytes (`record_bytes_max`) and on the number of entries (`entries_max`). A record above
//! a limit is still encoded if it does not exceed the version before it. So if a limit is lowered, larger sessions can
//! still be saved.
use super::FileStore;
use super::slot::{self, Encoded, Extent};
use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;

impl FileStore {
    /// Encodes a record if it is within the limits, or does not exceed the sizes `had` of the version before it.
    pub(super) fn encode(
        &self,
        record: &Record,
        had: Option<Extent>,
        header: &slot::Header<'_>,
    ) -> Result<Encoded> {
        let (bytes_limit, entries_limit) = (self.options.record_bytes_max, self.options.entries_max);
        let entries = record.entry_count();
        let had_entries = had.map_or(0, |had| had.entries);
        if entries > entries_limit.max(had_entries) {
            let beside = if had_entries > entries_limit {
                format!(" and {had_entries} were stored")
            } else {
                String::new()
            };
            let reason = format!("{entries} entries, where the limit is {entries_limit}{beside}");
            return Err(Error::new(ErrorKind::TooManyEntries, "encode session record").with_reason(reason));
        }
        let had_bytes = had.map_or(0, |had| had.bytes);
        let encoded = slot::encode(record, header, bytes_limit.max(had_bytes));
        encoded.map_err(|error| {
            if error.kind() != ErrorKind::TooLarge || had_bytes <= bytes_limit {
                return error;
            }
            let reason =
                format!("it grows, where the limit is {bytes_limit} bytes and {had_bytes} were stored");
            error.with_reason(reason)
        })
    }
}
