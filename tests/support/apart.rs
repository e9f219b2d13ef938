//! Stores that are open on one directory without sharing the counters. An operation of one invalidates no cache entry
//! of another, as if its process were killed before the invalidation.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use std::path::Path;

/// Replaces the file of the counters by a copy, for the store that is opened next. The copy also gets a second name, so
/// that this store does not notice when the copy is replaced in turn. The store must be opened with a clock that stands
/// still, because it checks the file's name once a second.
pub(crate) fn keep_apart(dir: &Path) {
    let run = dir.join("run");
    std::fs::copy(run.join("generations"), run.join("restored")).unwrap();
    std::fs::rename(run.join("restored"), run.join("generations")).unwrap();
    let name = format!("apart-{}", std::fs::read_dir(&run).unwrap().count());
    std::fs::hard_link(run.join("generations"), run.join(name)).unwrap();
}
