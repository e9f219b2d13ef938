//! What `internals` shows of the engine: pure parts, asked without a store.
use super::layout::SessionPath;
use super::slots::{self, View};
use crate::error::Result;
use crate::id::FileId;
use crate::record::Record;
use std::sync::Arc;

/// The newest version among a whole file's bytes.
pub(crate) fn newest(file: &[u8], id: &FileId) -> Result<Option<Arc<Record>>> {
    Ok(match slots::view(file, id, None)? {
        View::Valid { newest, .. } => Some(newest.record),
        View::Empty | View::Damaged => None,
    })
}

/// Where a session's file lies below the root.
pub(crate) fn path_of(id: &FileId) -> String {
    SessionPath::of(id).as_str().to_owned()
}
