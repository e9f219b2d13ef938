//! The rows that this process has seen last: a guess at the stored rows, for updates. No promise depends on it: an
//! update replaces a row only if the row still has the tag that was seen, so a wrong guess only costs another round
//! trip. The rows are bounded in bytes.
use super::row::Row;
use crate::id::PublicId;
use crate::sync::Mutex;
use hashlink::LinkedHashMap;

/// The approximate size of an entry without its record, in bytes.
const ENTRY_BYTES: usize = 160;

/// The rows, in the order in which they were used last; the first one was used longest ago.
pub(super) struct Known {
    limit: usize,
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    map: LinkedHashMap<PublicId, Row>,
    bytes: usize,
}

fn bytes_of(row: &Row) -> usize {
    ENTRY_BYTES + row.record.allocated_bytes()
}

impl Rows {
    fn remove(&mut self, id: &PublicId) -> Option<Row> {
        let row = self.map.remove(id)?;
        self.bytes -= bytes_of(&row);
        Some(row)
    }
}

impl Known {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, rows: Mutex::default() }
    }

    /// Takes out the row of an id. The caller puts back the row that it finds.
    pub(super) fn take(&self, id: &PublicId) -> Option<Row> {
        self.rows.lock().remove(id)
    }

    pub(super) fn put(&self, id: PublicId, row: Row) {
        let bytes = bytes_of(&row);
        if bytes > self.limit {
            return self.forget(&id);
        }
        let mut rows = self.rows.lock();
        rows.remove(&id);
        rows.bytes += bytes;
        rows.map.insert(id, row);
        while rows.bytes > self.limit {
            let Some((_, oldest)) = rows.map.pop_front() else { break };
            rows.bytes -= bytes_of(&oldest);
        }
    }

    pub(super) fn forget(&self, id: &PublicId) {
        drop(self.take(id));
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::{CutOffs, Tags};
    use super::*;
    use crate::record::Record;
    use std::time::UNIX_EPOCH;

    fn row(tag: u64) -> Row {
        Row::new(Tags::first(tag), CutOffs::default(), Record::new(UNIX_EPOCH, UNIX_EPOCH))
    }

    #[test]
    fn the_rows_used_longest_ago_make_room() {
        let each = bytes_of(&row(1));
        let known = Known::new(3 * each + each / 2);
        let ids: Vec<_> = (0..5_u8).map(|n| PublicId::digest(&[n])).collect();
        for (id, tag) in ids.iter().zip(1..).take(3) {
            known.put(*id, row(tag));
        }
        // The first row is used again.
        let first = known.take(&ids[0]).unwrap();
        known.put(ids[0], first);
        known.put(ids[3], row(4));
        assert!(known.take(&ids[1]).is_none());
        assert_eq!(known.rows.lock().bytes, 3 * each);
        for (at, tag) in [(0, 1), (2, 3), (3, 4)] {
            assert_eq!(known.take(&ids[at]).map(|row| row.tags.newest()), Some(tag));
        }
        let (bytes, rows) = {
            let rows = known.rows.lock();
            (rows.bytes, rows.map.len())
        };
        assert_eq!((bytes, rows), (0, 0));
        // A row replaces the one of its id. If it is too large to be kept, the older one is dropped, too.
        known.put(ids[0], row(5));
        known.put(ids[0], row(6));
        assert_eq!(known.rows.lock().bytes, each);
        let small = Known::new(each - 1);
        small.put(ids[0], row(7));
        assert!(small.take(&ids[0]).is_none());
    }
}
