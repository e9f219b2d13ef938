//! The store, the lifetime and the observer, which all sessions of a program share. They are set once, by `Sessions`.
use crate::event::{Event, Observer};
use crate::lifetime::Lifetime;
use crate::store::Store;
use std::sync::Arc;

/// The store, the lifetime and the observer of a program's sessions.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) lifetime: Lifetime,
    pub(crate) observer: Observer,
}

impl Context {
    pub(crate) fn observe(&self, event: &Event<'_>) {
        self.observer.notify(event);
    }
}
