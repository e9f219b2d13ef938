//! Runs the program's code (observers, handlers, progress callbacks) and contains its panics.
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The function panicked. The panic's payload was dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Runs `f` and contains its panic, and also a panic from dropping the payload.
///
/// After `Err`, the caller must not trust a value that `f` borrowed mutably.
pub(crate) fn contained<T>(f: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            // The second payload is leaked, because dropping it may panic again.
            std::mem::forget(second);
        }
        Panicked
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            std::panic::panic_any(PanicsWhenDropped);
        }
    }

    #[test]
    fn a_panic_ends_in_contained_whatever_its_payload_does() {
        assert_eq!(contained(|| 7), Ok(7));
        assert_eq!(contained(|| panic!("in the program's code")), Err::<(), _>(Panicked));
        assert_eq!(contained(|| std::panic::panic_any(PanicsWhenDropped)), Err::<(), _>(Panicked));
    }
}
