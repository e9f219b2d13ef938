//! What all sessions of a program share: where they are kept, how long they live, and who is told.
use super::Session;
use crate::error::Result;
use crate::event::{Event, Observer};
use crate::id::Token;
use crate::lifetime::Lifetime;
use crate::store::Store;
use std::fmt;
use std::sync::Arc;

/// Most candidates of a request that are read, well-formed or not; what comes after them is ignored. A browser sends one
/// cookie of our name, or a few (one for each path and domain): 64 leave room for that and bound the work.
const CANDIDATES_MAX: usize = 64;
/// Most well-formed tokens of a request that are kept, all of which a `destroy` ends.
const BROUGHT_MAX: usize = 32;
/// Most of them that are looked up to find the live one: each costs a look at the disk.
pub(super) const LOOKED_UP_MAX: usize = 4;

/// Opens sessions. Cheap to clone; clones share everything.
///
/// Web programs use [`Sessions`](crate::http::Sessions), which does this from cookies; other programs open sessions
/// here, by token.
#[derive(Clone)]
pub struct SessionManager(Arc<Shared>);

#[derive(Clone)]
struct Shared {
    store: Arc<dyn Store>,
    lifetime: Lifetime,
    observer: Observer,
}

impl SessionManager {
    /// Sessions in `store`, with the default [`Lifetime`] and no observer.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(Arc::new(Shared { store, lifetime: Lifetime::default(), observer: Observer::default() }))
    }

    /// Sets how long sessions live.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) names the option that is out of its bounds.
    pub fn with_lifetime(mut self, lifetime: Lifetime) -> Result<Self> {
        lifetime.check()?;
        Arc::make_mut(&mut self.0).lifetime = lifetime;
        Ok(self)
    }

    /// Calls `observer` whenever something happens to a session, on the thread and at the moment it happens: keep it
    /// short. A panic in it is contained. Without an observer, failures are one line each on standard error.
    #[must_use]
    pub fn with_observer(mut self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.0).observer = Observer::new(observer);
        self
    }

    /// The session of whoever brings `tokens`: the first live one, or a new session. Does no I/O.
    ///
    /// The first 64 tokens are read; those that cannot be of this store are dropped. Of the others the first 32 are kept: four
    /// are looked up when the session is first used, and all are ended by [`Session::destroy`].
    #[must_use]
    pub fn open(&self, tokens: impl IntoIterator<Item = Token>) -> Session {
        self.open_brought(tokens.into_iter().map(Some))
    }

    /// The same, of tokens that may have been no tokens at all.
    pub(crate) fn open_brought(&self, tokens: impl IntoIterator<Item = Option<Token>>) -> Session {
        let mut brought = Vec::new();
        let mut malformed = false;
        for token in tokens.into_iter().take(CANDIDATES_MAX) {
            match token.filter(|token| self.store().is_well_formed(token)) {
                Some(token) if brought.len() < BROUGHT_MAX && !brought.contains(&token) => {
                    brought.push(token);
                }
                Some(_) => {}
                None => malformed = true,
            }
        }
        let session = Session::new(self.clone(), brought);
        if malformed {
            session.observe_malformed();
        }
        session
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.0.store
    }

    /// The policy.
    #[must_use]
    pub fn lifetime(&self) -> &Lifetime {
        &self.0.lifetime
    }

    pub(crate) fn observe(&self, event: &Event<'_>) {
        self.0.observer.tell(event);
    }
}

impl fmt::Debug for SessionManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionManager").field("lifetime", &self.0.lifetime).finish_non_exhaustive()
    }
}
