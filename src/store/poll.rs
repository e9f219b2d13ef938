//! Looking at sessions by their public ids, again and again, until they end:
//! [`Sessions::wait_ended`](crate::Sessions::wait_ended) is built on it.
use super::Absent;
use crate::error::Result;
use crate::id::PublicId;
use crate::record::Record;
use crate::sync::Instant;
use std::time::Duration;

/// The time between two calls of [`Store::poll`](super::Store::poll) for a store that reads every session at each call:
/// short enough that an end is noticed within a second.
pub const POLL_INTERVAL: Duration = Duration::from_millis(800);

/// The question whether a session is still there; see [`Store::poll`](super::Store::poll).
///
/// ```
/// use sessile::PublicId;
/// use sessile::store::Poll;
/// let poll = Poll::new(PublicId::digest(b"a token"));
/// assert!(poll.is_due(), "the store has not looked yet");
/// ```
#[derive(Debug)]
pub struct Poll {
    id: PublicId,
    is_due: bool,
    answered_at: Option<Instant>,
    answer: Option<Result<Polled>>,
    /// Numbers for the store's own use: the state of the session when the store looked last, say. Zero at first. They
    /// stay as the store leaves them from one call to the next.
    pub note: [u64; 8],
}

impl Poll {
    /// A question that was not asked yet.
    #[must_use]
    pub fn new(id: PublicId) -> Self {
        Self { id, is_due: true, answered_at: None, answer: None, note: [0; 8] }
    }

    /// The public id of the session.
    #[must_use]
    pub fn id(&self) -> &PublicId {
        &self.id
    }

    /// Whether the store must look at the session itself: at first, and when the session's deadline is reached. If not,
    /// it may leave the question unanswered when it knows by other means that the session has not ended since it looked
    /// last.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.is_due
    }

    /// Answers the question, once a call.
    pub fn answer(&mut self, found: Result<Polled>) {
        self.answer = Some(found);
    }

    /// Makes the store look at the session itself at the next call.
    pub(crate) fn make_due(&mut self) {
        self.is_due = true;
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answer.is_some()
    }

    /// Takes the answer of the last call; `None` if the store has left the question unanswered.
    pub(crate) fn take_answer(&mut self, now: Instant) -> Option<Result<Polled>> {
        let answer = self.answer.take()?;
        (self.is_due, self.answered_at) = (false, Some(now));
        Some(answer)
    }

    /// How long ago the store looked at the session last; zero if it has not looked yet.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        self.answered_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }

    /// Answers every question by one look at its session. For a store that has nothing better; its
    /// [`poll`](super::Store::poll) is this call.
    ///
    /// ```
    /// use sessile::PublicId;
    /// use sessile::store::{Absent, POLL_INTERVAL, Poll, Polled};
    /// let mut polls = [Poll::new(PublicId::digest(b"a token"))];
    /// let again = Poll::one_by_one(&mut polls, |id| Ok(Polled::Absent(Absent::NotFound(*id))));
    /// assert_eq!(again, POLL_INTERVAL);
    /// ```
    pub fn one_by_one(polls: &mut [Self], mut look: impl FnMut(&PublicId) -> Result<Polled>) -> Duration {
        for poll in polls {
            poll.answer = Some(look(&poll.id));
        }
        POLL_INTERVAL
    }
}

/// What a store has found under a public id.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Polled {
    /// A session whose deadline is not reached.
    Live(Record),
    /// The id was moved. The answer is the same whether the [grace period](super::Rotation::grace) is over or not, as
    /// long as the store remembers it.
    Moved {
        /// The id to which it was moved; that one may have been moved on.
        to: PublicId,
        /// Whether a login moved it, and not a mere rotation.
        by_login: bool,
    },
    /// There is no session.
    Absent(Absent),
}
