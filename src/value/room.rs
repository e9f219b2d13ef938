//! How deep a value may still nest, counted at every level before the stack is used for it.
use super::fault::Fault;

/// Deepest nesting of arrays and objects in one value (a struct is an object, a variant with content an object around it); a
/// deeper one is refused with [`ErrorKind::Value`](crate::ErrorKind::Value) before it is descended into.
pub const DEPTH_MAX: usize = 64;

/// Most options (`Some`) and newtypes around one part of a value, all levels together. They leave no trace in the stored
/// value, and use the stack like arrays do.
pub const WRAPPERS_MAX: usize = 128;

/// The rest of both limits on the way to one part of a value. Two bytes, so that it travels in a register.
#[derive(Clone, Copy)]
pub(super) struct Room {
    containers: u8,
    wrappers: u8,
}

impl Room {
    /// Of a whole value.
    pub(super) const ALL: Self = Self { containers: byte(DEPTH_MAX), wrappers: byte(WRAPPERS_MAX) };

    /// Inside an array or object, if there may be one.
    #[inline]
    pub(super) fn in_container(self) -> Option<Self> {
        let containers = self.containers.checked_sub(1)?;
        Some(Self { containers, ..self })
    }

    /// Inside an option or a newtype.
    ///
    /// # Errors
    ///
    /// There are too many.
    #[inline]
    pub(super) fn in_wrapper(self) -> Result<Self, Fault> {
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
fn too_wrapped() -> Fault {
    Fault::new(format!("more than {WRAPPERS_MAX} options and newtypes around each other"))
}
