//! A session that a store has ended or removed, with its last record.
use crate::id::PublicId;
use crate::record::Record;
use std::fmt;

/// A session that was removed from a store, for those who act on its end: an audit log, or a program that frees what
/// belongs to the session.
#[derive(Clone)]
#[non_exhaustive]
pub struct EndedSession {
    /// The public id of the session.
    pub id: PublicId,
    /// The last record of the session; `None` if it fails its checks, or if the store could not read it or does not
    /// give it out.
    pub record: Option<Record>,
    /// Whether the session was live until now. If not, it had expired, or a cut-off had ended it, or its record fails
    /// its checks, and only its record was left.
    pub was_live: bool,
}

impl EndedSession {
    /// A session that was live; for implementors of [`Store`](super::Store).
    ///
    /// ```
    /// use sessile::{PublicId, store::EndedSession};
    /// assert!(EndedSession::live(PublicId::digest(b"a token"), None).was_live);
    /// ```
    #[must_use]
    pub fn live(id: PublicId, record: Option<Record>) -> Self {
        Self { id, record, was_live: true }
    }

    /// A session that was over already, of which a record was left; for implementors of [`Store`](super::Store).
    ///
    /// ```
    /// use sessile::{PublicId, store::EndedSession};
    /// assert!(!EndedSession::over(PublicId::digest(b"a token"), None).was_live);
    /// ```
    #[must_use]
    pub fn over(id: PublicId, record: Option<Record>) -> Self {
        Self { id, record, was_live: false }
    }

    /// The public id, if the session was live: the result of [`Store::delete`](super::Store::delete).
    ///
    /// ```
    /// use sessile::{PublicId, store::EndedSession};
    /// let id = PublicId::digest(b"a token");
    /// assert_eq!(EndedSession::live(id, None).live_id(), Some(id));
    /// assert_eq!(EndedSession::over(id, None).live_id(), None);
    /// ```
    #[must_use]
    pub fn live_id(&self) -> Option<PublicId> {
        self.was_live.then_some(self.id)
    }
}

/// Shows no user and no values.
impl fmt::Debug for EndedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndedSession")
            .field("id", &self.id)
            .field("was_live", &self.was_live)
            .finish_non_exhaustive()
    }
}
