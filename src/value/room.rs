//! How deep a value may still nest, counted at every level before the stack is used for it.
use super::fault::Fault;

/// Deepest nesting of arrays and objects in one value (a struct is an object, a variant with content an object around it); a
/// deeper one is refused with [`ErrorKind::Value`](crate::ErrorKind::Value) before it is descended into.
pub const DEPTH_MAX: usize = 64;

/// Most options (`Some`) and newtypes around one part of a value, all levels together. They leave no trace in the stored
/// value, and use the stack like arrays do.
pub const WRAPPERS_MAX: usize = 128;

/// The rest of both limits on the way to one part of a value.
#[derive(Clone, Copy)]
pub(super) struct Room {
    containers: usize,
    wrappers: usize,
}

impl Room {
    /// Of a whole value.
    pub(super) const ALL: Self = Self { containers: DEPTH_MAX, wrappers: WRAPPERS_MAX };

    /// Inside an array or object.
    pub(super) fn in_container(self) -> Result<Self, Fault> {
        match self.containers.checked_sub(1) {
            Some(containers) => Ok(Self { containers, ..self }),
            None => Err(Fault::new(format!("nested deeper than {DEPTH_MAX} levels"))),
        }
    }

    /// Inside an option or a newtype.
    pub(super) fn in_wrapper(self) -> Result<Self, Fault> {
        match self.wrappers.checked_sub(1) {
            Some(wrappers) => Ok(Self { wrappers, ..self }),
            None => {
                Err(Fault::new(format!("more than {WRAPPERS_MAX} options and newtypes around each other")))
            }
        }
    }
}
