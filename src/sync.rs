//! Synchronization for the engine: locks, threads, channels, and the time that waits are measured in.
//!
//! One door, so that the proofs (`file/proofs`) can have the engine itself under a scheduler of their own: in every other
//! build this module is a list of names of other crates. Under `--cfg shuttle`, in unit tests, the same names are those of
//! the checker, and [`step`] is a place where another thread may go on. Statistics and caches of answers, which no thread
//! waits for, go on taking their atomics from `std`.
#[cfg(not(all(test, shuttle)))]
mod usual {
    pub(crate) use crossbeam_channel as channel;
    pub(crate) use parking_lot::{ArcMutexGuard, Mutex, RawMutex, RwLock};
    pub(crate) use std::thread;
    pub(crate) use std::time::Instant;

    /// Something that others can see is about to happen: a system call, or a look at memory that others write to. Nothing
    /// but in proofs.
    #[inline(always)]
    pub(crate) fn step() {}
}
#[cfg(not(all(test, shuttle)))]
pub(crate) use usual::*;

#[cfg(all(test, shuttle))]
mod checked;
#[cfg(all(test, shuttle))]
pub(crate) use checked::*;
