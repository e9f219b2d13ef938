//! Open stores of one directory that share no counters: an operation of one invalidates no cache entry of another, as
//! if its process were killed before.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use std::path::Path;

/// Puts a copy of the shared counters in their place, for the store that is opened next. The copy has a second name, so
/// that the store does not notice when it is replaced too; it must be opened with a clock that stands still, because it
/// checks the counters once a second.
pub(crate) fn keep_apart(dir: &Path) {
    let run = dir.join("run");
    std::fs::copy(run.join("generations"), run.join("restored")).unwrap();
    std::fs::rename(run.join("restored"), run.join("generations")).unwrap();
    let name = format!("apart-{}", std::fs::read_dir(&run).unwrap().count());
    std::fs::hard_link(run.join("generations"), run.join(name)).unwrap();
}
