//! The limits on the nesting of a value, checked at every level before the stack is used for it.
use super::fault::Fault;

/// Deepest nesting of arrays and objects in one value. (A struct is an object; a variant with content is an object
/// around the content.) A deeper one is refused with [`ErrorKind::Value`](crate::ErrorKind::Value) before the descent.
pub const DEPTH_MAX: usize = 64;

/// Most options (`Some`) and newtypes around one part of a value, all levels together. They do not appear in the stored
/// value, but use the stack as arrays do.
pub const WRAPPERS_MAX: usize = 128;

/// How many more levels each of the two limits allows below a part of a value. The struct has two bytes, so that it is
/// passed in a register.
#[derive(Clone, Copy)]
pub(super) struct Depth {
    containers: u8,
    wrappers: u8,
}

impl Depth {
    /// The levels that are allowed in a whole value.
    pub(super) const ALL: Self = Self { containers: byte(DEPTH_MAX), wrappers: byte(WRAPPERS_MAX) };

    /// The levels that are left inside an array or object; `None` if there is none for it.
    #[inline]
    pub(super) fn enter_container(self) -> Option<Self> {
        let containers = self.containers.checked_sub(1)?;
        Some(Self { containers, ..self })
    }

    /// The levels that are left inside an option or a newtype.
    ///
    /// # Errors
    ///
    /// More than [`WRAPPERS_MAX`] options and newtypes are around this part of the value.
    #[inline]
    pub(super) fn enter_wrapper(self) -> Result<Self, Fault> {
        match self.wrappers.checked_sub(1) {
            Some(wrappers) => Ok(Self { wrappers, ..self }),
            None => Err(too_wrapped()),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "it is compared with the number it was made of, at compile time"
)]
const fn byte(limit: usize) -> u8 {
    assert!(limit as u8 as usize == limit, "a limit fits a byte");
    limit as u8
}

#[cold]
pub(super) fn too_deep() -> Fault {
    Fault::new(format!("nested deeper than {DEPTH_MAX} levels"))
}

#[cold]
fn too_wrapped() -> Fault {
    Fault::new(format!("more than {WRAPPERS_MAX} options and newtypes around each other"))
}
