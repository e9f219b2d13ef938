//! Random bits, from the operating system's generator. There is no fallback.
use crate::error::{Error, ErrorKind, Result};

/// Returns random bytes. `operation` names their purpose in an error.
///
/// # Errors
///
/// [`ErrorKind::Random`] if the generator fails.
pub(crate) fn bytes<const N: usize>(operation: &'static str) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    match fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(Error::new(ErrorKind::Random, operation).with_reason(error.to_string())),
    }
}

#[cfg(not(test))]
use getrandom::fill;
#[cfg(test)]
use tests::fill;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! { static IS_DRY: Cell<bool> = const { Cell::new(false) }; }

    pub(super) fn fill(bytes: &mut [u8]) -> std::result::Result<(), getrandom::Error> {
        if IS_DRY.get() { Err(getrandom::Error::UNSUPPORTED) } else { getrandom::fill(bytes) }
    }

    /// Runs `run` on this thread. The random generator fails meanwhile.
    pub(crate) fn without_random_bits<R>(run: impl FnOnce() -> R) -> R {
        IS_DRY.set(true);
        let result = run();
        IS_DRY.set(false);
        result
    }

    #[test]
    fn bits_do_not_repeat_and_an_error_names_the_operation() {
        let draw = || bytes::<16>("draw a card");
        assert_ne!(draw().unwrap(), draw().unwrap());
        let error = without_random_bits(draw).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Random);
        assert!(error.to_string().starts_with("failed to draw a card: "), "{error}");
    }
}
