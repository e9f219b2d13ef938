//! Requests to stop: Ctrl-C or a signal of a service manager. A process that serves a disk must release it
//! first, in order: the kernel waits for a disk whose server was killed while it was in use, and so does
//! every process that queries loop devices.
use anyhow::{Context, Result, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

static STOP_REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on signals are recorded and do not end the process.
///
/// # Errors
///
/// The kernel refuses.
pub(crate) fn listen() -> Result<()> {
    let requested = STOP_REQUESTED.get_or_init(Arc::default);
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(requested)).context("listen to signals")?;
    }
    Ok(())
}

/// Returns an error once a signal has requested a stop.
///
/// # Errors
///
/// A signal has requested a stop.
pub(crate) fn ensure_not_stopped() -> Result<()> {
    let requested = STOP_REQUESTED.get().is_some_and(|requested| requested.load(Ordering::Relaxed));
    ensure!(!requested, "stopped by a signal");
    Ok(())
}
