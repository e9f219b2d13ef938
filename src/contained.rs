//! Runs code of the program, such as observers, handlers and progress callbacks, and contains its panics.
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The function has panicked. The value that it panicked with was dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Runs `f`. If it panics, returns an error, also if dropping the panic's value panics again. After an error, a value
/// that `f` borrowed mutably may be in any state.
pub(crate) fn contained<T>(f: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            // Dropping this value may panic a third time, so it is leaked.
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
