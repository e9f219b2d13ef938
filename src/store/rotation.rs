//! The arguments of a rotation.
use super::Durability;
#[cfg(doc)]
use super::GRACE_MAX;
use std::time::Duration;

/// The arguments of a rotation.
///
/// ```
/// use sessile::store::{Durability, Rotation};
/// use std::time::Duration;
/// let how = Rotation::new(Durability::OfStore).login("ada").grace(Duration::from_secs(60));
/// assert_eq!((how.login, how.grace.as_secs()), (Some("ada"), 60));
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Rotation<'a> {
    /// The durability of the session under its new id. (The file engine makes it power-safe in any case.)
    pub durability: Durability,
    /// The user whom the change logs in; `None` for a rotation without a login.
    pub login: Option<&'a str>,
    /// How long the old token is known as moved: at most [`GRACE_MAX`], a longer time counts as that; zero for not at
    /// all.
    pub grace: Duration,
}

impl<'a> Rotation<'a> {
    /// A rotation without a login and without a grace period.
    #[must_use]
    pub fn new(durability: Durability) -> Self {
        Self { durability, ..Self::default() }
    }

    /// The same rotation with a login of this user.
    #[must_use]
    pub fn login(self, user: &'a str) -> Self {
        Self { login: Some(user), ..self }
    }

    /// The same rotation with this grace period.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }
}

/// A rotation without a login and without a grace period.
impl From<Durability> for Rotation<'_> {
    fn from(durability: Durability) -> Self {
        Self::new(durability)
    }
}
