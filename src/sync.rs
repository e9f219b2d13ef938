//! Synchronization for the engine: locks, threads, channels, and the clock by which waits are measured.
//!
//! All of them are imported from here, so that the proofs (`file/proofs`) can run the engine under a scheduler of their
//! own. In every other build this module only re-exports other crates. Under `--cfg shuttle`, in unit tests, the same
//! names are those of the checker, and [`step`] is a point at which another thread may continue. Statistics and cached
//! results, for which no thread waits, still use the atomics of `std`.
#[cfg(not(all(test, shuttle)))]
mod usual {
    pub(crate) use crossbeam_channel as channel;
    pub(crate) use parking_lot::{Mutex, RwLock};
    pub(crate) use std::thread;
    pub(crate) use std::time::Instant;

    /// A point in a proof at which another thread may run: before an effect that other threads can see, which is a
    /// system call, or a read of memory that others write to. Does nothing outside of proofs.
    #[inline(always)]
    pub(crate) fn step() {}
}
#[cfg(not(all(test, shuttle)))]
pub(crate) use usual::*;

#[cfg(all(test, shuttle))]
mod checked;
#[cfg(all(test, shuttle))]
pub(crate) use checked::*;
