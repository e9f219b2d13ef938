//! The login of a session: its time, which is kept apart from activity, and its device.
//!
//! A program asks for a fresh login before something dangerous (a step-up): the time of the last login tells whether
//! one is needed, however active the session has been since. OWASP ASVS 5.0, 7.5.1 and 7.5.3, ask for this.
use super::Session;
use crate::error::Result;
use std::time::{Duration, SystemTime};

impl Session {
    /// The time of the last [`login`](Self::login), of the same user too; `None` if no user is logged in, or if the
    /// user was set by an import or by a change in the store without a login.
    ///
    /// # Errors
    ///
    /// See [`Session`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// assert_eq!(session.authenticated_at()?, None);
    /// session.login("ada")?;
    /// session.save()?;
    /// assert!(session.authenticated_at()?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn authenticated_at(&self) -> Result<Option<SystemTime>> {
        let current = self.load()?;
        if self.is_login_pending() {
            return Ok(Some(self.context.store.now()));
        }
        Ok(current.and_then(|current| current.record.login().at))
    }

    /// Whether a user logged in no longer ago than `age`. Before something dangerous (a new password, a payment), a
    /// program asks for the password again unless this is true; [`login`](Self::login) of the same user then makes the
    /// login fresh and keeps the session's entries.
    ///
    /// A login that lies in the future because the clock was set back is not fresh, except within the
    /// [tolerance](crate::Lifetime::future_tolerance) of the lifetime, at most an hour.
    ///
    /// # Errors
    ///
    /// See [`Session`].
    ///
    /// ```
    /// use std::time::Duration;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// if !session.is_fresh(Duration::from_secs(5 * 60))? {
    ///     // The password was asked for once more, and was right:
    ///     session.login("ada")?;
    /// }
    /// assert!(session.is_fresh(Duration::from_secs(5 * 60))?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_fresh(&self, age: Duration) -> Result<bool> {
        let now = self.context.store.now();
        Ok(match self.authenticated_at()?.map(|at| now.duration_since(at)) {
            None => false,
            Some(Ok(past)) => past <= age,
            Some(Err(future)) => self.context.lifetime.tolerates_login(future.duration()),
        })
    }

    /// The text about the device that the last [`login_from`](Self::login_from) stored. It comes from the visitor, so a
    /// page must escape it.
    ///
    /// # Errors
    ///
    /// See [`Session`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// assert_eq!(session.device_note()?, None);
    /// session.login_from("ada", "the phone")?;
    /// assert_eq!(session.device_note()?.as_deref(), Some("the phone"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn device_note(&self) -> Result<Option<String>> {
        let stored = self.load()?.map(|current| &current.record);
        Ok(self.merged_note(stored).filter(|note| !note.is_empty()).map(str::to_owned))
    }
}
