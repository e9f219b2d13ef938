//! A moved token, and its grace period.
use super::GRACE_MAX;
use crate::id::PublicId;
use std::time::SystemTime;

/// A token that a rotation or a login has replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moved {
    /// The digest of the replaced id, for logs.
    pub id: PublicId,
    /// Whether a login replaced it, and not a mere rotation.
    pub by_login: bool,
    /// The end of the grace period. A store may forget the token from then on.
    pub until: SystemTime,
}

impl Moved {
    /// A replaced token: the digest of its id, the end of its grace period, and whether a login has replaced it.
    ///
    /// ```
    /// let id = sessile::SessionId::random()?.public_id();
    /// assert!(!sessile::store::Moved::new(id, std::time::UNIX_EPOCH, false).by_login);
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn new(id: PublicId, until: SystemTime, by_login: bool) -> Self {
        Self { id, by_login, until }
    }

    /// Whether the grace period is not over. If the clock was set back by more than [`GRACE_MAX`], the period is over,
    /// so that it does not last until the clock has caught up.
    ///
    /// ```
    /// use sessile::store::{GRACE_MAX, Moved};
    /// use std::time::{Duration, UNIX_EPOCH};
    /// let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    /// let id = sessile::SessionId::random()?.public_id();
    /// let moved = Moved::new(id, now + Duration::from_secs(60), false);
    /// assert!(moved.is_within_grace(now) && !moved.is_within_grace(moved.until));
    /// assert!(!moved.is_within_grace(now - 2 * GRACE_MAX), "the clock was set back");
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn is_within_grace(&self, now: SystemTime) -> bool {
        is_within_grace(self.until, now)
    }
}

/// Whether a grace period that ends at `until` is not over; see [`Moved::is_within_grace`].
pub(crate) fn is_within_grace(until: SystemTime, now: SystemTime) -> bool {
    // The longest grace period, and the longest that the clock may have been set back meanwhile.
    until.duration_since(now).is_ok_and(|left| !left.is_zero() && left <= 2 * GRACE_MAX)
}
