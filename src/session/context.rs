//! The store, the lifetime and the observer, which all sessions of a program share. They are set once, by `Sessions`.
use super::waits::{WaitOutcome, Waits};
use crate::error::Result;
use crate::event::{Event, Observer};
use crate::id::PublicId;
use crate::lifetime::Lifetime;
use crate::store::Store;
use std::sync::Arc;
use std::time::Duration;

/// The store, the lifetime and the observer of a program's sessions.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) lifetime: Lifetime,
    pub(crate) observer: Observer,
    pub(crate) waits: Arc<Waits>,
}

impl Context {
    pub(crate) fn wait_ended(&self, id: &PublicId, timeout: Duration) -> Result<WaitOutcome> {
        self.waits.wait_ended(&self.store, &self.lifetime, id, timeout)
    }

    pub(crate) fn observe(&self, event: &Event<'_>) {
        self.observer.notify(event);
    }
}
