//! Requests to stop: Ctrl-C, or a signal of a service manager. A process that serves a disk must first release the
//! disk, in order. If the process was killed while the disk is in use, the kernel would wait for the disk, and with it
//! every process that asks for loop devices.
use anyhow::{Context, Result, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

static STOP_REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Installs handlers, so that signals are recorded and do not end the process.
///
/// # Errors
///
/// The kernel refuses a handler.
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
