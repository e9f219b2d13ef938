//! Runs the program's code (observers, handlers, progress reports) so that its panics end there. Nothing else.
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The function panicked. The panic's payload is dropped already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Runs `f` and contains its panic, also one that dropping the panic's payload raises.
///
/// The caller sees to it that a value which `f` borrowed mutably is not trusted after `Err`.
pub(crate) fn contained<T>(f: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            // A payload that panics whenever it is dropped: leaking it is the only way past it.
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
