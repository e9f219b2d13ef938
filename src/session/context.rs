//! The store, the lifetime and the observer, which all sessions of a program share; and how a session is opened from the
//! tokens that a request presents. Has no setters: `Sessions` builds it.
use super::Session;
use crate::event::{Event, Observer};
use crate::id::Token;
use crate::lifetime::Lifetime;
use crate::store::Store;
use std::sync::Arc;

/// Most candidates of a request that are read, well-formed or not; the rest is ignored. A browser sends one cookie of our
/// name, or a few (one for each path and domain): 64 leave room for that and bound the work.
const CANDIDATES_MAX: usize = 64;
/// Most well-formed tokens of a request that are kept; a `destroy` ends all of them.
const KEPT_MAX: usize = 32;
/// Most of them that are looked up to find the live one: each costs a read of the disk.
pub(super) const LOOKED_UP_MAX: usize = 4;

/// The store, the lifetime and the observer of a program's sessions.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) lifetime: Lifetime,
    pub(crate) observer: Observer,
}

impl Context {
    /// The session of the first live token among the candidates, or a new session. Does no I/O. `None` stands for a
    /// candidate that cannot be a token of any store.
    pub(crate) fn open_tokens(
        self: &Arc<Self>,
        candidates: impl IntoIterator<Item = Option<Token>>,
    ) -> Session {
        let mut kept = Vec::new();
        let mut malformed = false;
        for token in candidates.into_iter().take(CANDIDATES_MAX) {
            match token.filter(|token| self.store.is_well_formed(token)) {
                Some(token) if kept.len() < KEPT_MAX && !kept.contains(&token) => kept.push(token),
                Some(_) => {}
                None => malformed = true,
            }
        }
        let session = Session::new(Arc::clone(self), kept);
        if malformed {
            session.observe_malformed();
        }
        session
    }

    pub(crate) fn observe(&self, event: &Event<'_>) {
        self.observer.notify(event);
    }
}
