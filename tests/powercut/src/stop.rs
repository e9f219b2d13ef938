//! Being told to stop: by Ctrl-C, or as a service is. Whoever serves a disk lets go of it first, in order: the kernel waits
//! for a disk whose server was killed while it was in use, and so does everybody who asks about loop devices.
use anyhow::{Context, Result, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

static TOLD: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on signals are noted, and end nothing by themselves.
///
/// # Errors
///
/// The kernel refuses.
pub(crate) fn listen() -> Result<()> {
    let told = TOLD.get_or_init(Arc::default);
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(told)).context("listen to signals")?;
    }
    Ok(())
}

/// Whether to go on.
///
/// # Errors
///
/// Somebody told us to stop.
pub(crate) fn unless_told() -> Result<()> {
    let told = TOLD.get().is_some_and(|told| told.load(Ordering::Relaxed));
    ensure!(!told, "stopped by a signal");
    Ok(())
}
