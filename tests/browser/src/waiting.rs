//! Waiting for a state that comes by itself.
use std::thread;
use std::time::{Duration, Instant};

/// Time after which a state counts as missing: far more than a loaded machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Waits for an answer. Fails with the name of the case if that takes longer than [`PATIENCE`].
#[track_caller]
pub(crate) fn wait_for<T>(case: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "{case}: not after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The same for a condition.
#[track_caller]
pub(crate) fn eventually(case: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(case, || is_so().then_some(()));
}
