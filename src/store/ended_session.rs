//! A session that a store has removed, with its last record and the reason of its end.
use crate::id::PublicId;
use crate::record::Record;
use std::fmt;

/// The reason for which a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// A request has ended it: [`Session::destroy`](crate::Session::destroy).
    Logout,
    /// Its user has ended it from another session, by [`Sessions::end_session_of`](crate::Sessions::end_session_of).
    OtherDevice,
    /// A login of its user was beyond the [limit](crate::FileStoreOptions::sessions_per_user), and it was the oldest.
    Limit,
    /// All sessions of its user were ended, or all of the store ([`Sessions::delete_of`](crate::Sessions::delete_of),
    /// [`Sessions::delete_all`](crate::Sessions::delete_all)). Its record was removed now, perhaps much later.
    CutOff,
    /// An operator has ended it by its public id: [`Admin::delete_by_id`](crate::Admin::delete_by_id).
    Operator,
    /// It had expired. Its record was removed now, perhaps much later.
    Expired,
    /// Its record fails its checks, and was removed.
    Damaged,
}

/// In lower case, for logs: `logout`, `other device`, `limit`, `cut-off`, `operator`, `expired`, `damaged`.
impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Logout => "logout",
            Self::OtherDevice => "other device",
            Self::Limit => "limit",
            Self::CutOff => "cut-off",
            Self::Operator => "operator",
            Self::Expired => "expired",
            Self::Damaged => "damaged",
        })
    }
}

/// A session that was removed from a store.
#[derive(Clone)]
#[non_exhaustive]
pub struct EndedSession {
    /// The public id of the session.
    pub id: PublicId,
    /// The last record of the session; `None` if it could not be read, or if the store does not give it out.
    pub record: Option<Record>,
    /// The reason for which the session was over before: [`Expired`](EndReason::Expired), a
    /// [`CutOff`](EndReason::CutOff) or [`Damaged`](EndReason::Damaged). `None` if it was live until now.
    pub over: Option<EndReason>,
}

impl EndedSession {
    /// A session that was live until it was removed; for implementors of [`Store`](super::Store).
    ///
    /// ```
    /// use sessile::{PublicId, store::EndedSession};
    /// assert!(EndedSession::live(PublicId::digest(b"a token"), None).was_live());
    /// ```
    #[must_use]
    pub fn live(id: PublicId, record: Option<Record>) -> Self {
        Self { id, record, over: None }
    }

    /// A session that was over before, of which only the record was left; for implementors of [`Store`](super::Store).
    ///
    /// ```
    /// use sessile::{PublicId, store::{EndReason, EndedSession}};
    /// let id = PublicId::digest(b"a token");
    /// assert!(!EndedSession::over(id, None, EndReason::Damaged).was_live());
    /// ```
    #[must_use]
    pub fn over(id: PublicId, record: Option<Record>, reason: EndReason) -> Self {
        Self { id, record, over: Some(reason) }
    }

    /// Whether the session was live until it was removed.
    ///
    /// ```
    /// use sessile::{PublicId, store::EndedSession};
    /// assert!(EndedSession::live(PublicId::digest(b"a token"), None).was_live());
    /// ```
    #[must_use]
    pub fn was_live(&self) -> bool {
        self.over.is_none()
    }

    /// The public id of a session that was live until it was removed: the result of
    /// [`Store::delete`](super::Store::delete).
    ///
    /// ```
    /// use sessile::{PublicId, store::EndedSession};
    /// let id = PublicId::digest(b"a token");
    /// assert_eq!(EndedSession::live_id(Some(EndedSession::live(id, None))), Some(id));
    /// assert_eq!(EndedSession::live_id(None), None);
    /// ```
    #[must_use]
    pub fn live_id(removed: Option<Self>) -> Option<PublicId> {
        removed.filter(Self::was_live).map(|removed| removed.id)
    }
}

/// Shows no user and no values.
impl fmt::Debug for EndedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndedSession").field("id", &self.id).field("over", &self.over).finish_non_exhaustive()
    }
}
