//! What can be observed: one hook, called with the [`FileId`] of the session concerned, never with the secret.
use crate::error::Error;
use crate::id::FileId;

/// Something happened to a session. For logs, counters and alarms.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A new session was stored.
    Created(FileId),
    /// A session moved to a new id; the old one is dead.
    Rotated {
        /// The digest of the dead id.
        from: FileId,
        /// The digest of the new one.
        to: FileId,
    },
    /// A live session was ended.
    Destroyed(FileId),
    /// A request brought a session that has expired.
    Expired(FileId),
    /// A request brought something that is no session of ours.
    Refused(Refusal),
    /// A response says that the session failed: it could not be used or saved, or the handler panicked.
    Failed(&'a Error),
    /// The deadline of a session that was only read could not be moved; the response was not affected.
    NotRenewed(&'a Error),
}

/// Why what a request brought was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The cookie's value could not be an id.
    Malformed,
    /// An id that is not stored here: made up, destroyed, rotated or swept.
    Unknown(FileId),
    /// What is stored under the id fails its checks.
    Damaged(FileId),
}
