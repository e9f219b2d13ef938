//! Waiting for a state that comes by itself.
use std::thread;
use std::time::{Duration, Instant};

/// The longest wait for a state.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `is_so` returns true. Fails with the name of the case if that takes too long.
#[track_caller]
pub(crate) fn eventually(case: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{case}: not after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}
