//! Login and rotation: both stay pending until the next save, which moves the session to a new id in the same step.
use super::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Expiry, Login, Record, Timing};
use crate::store::{Absent, Lookup};
use std::time::SystemTime;

/// Longest user, in bytes.
pub const USER_BYTES_MAX: usize = 256;

/// Whether the next save moves the session to a new id.
#[derive(PartialEq)]
pub(super) enum IdChange {
    Keep,
    Rotate,
    /// Rotate, and record this user.
    Login(String),
}

impl Session {
    /// Gives the session a new id at its next save or [`update_now`](Self::update_now), and ends the old id in the same
    /// step; the entries stay. For every change of privilege. Has no effect on a session that is not stored.
    ///
    /// A request that was sent with the old id beside this one finds no session, and its changes are refused with
    /// [`ErrorKind::Gone`]: see [`Lifetime::grace`](crate::Lifetime::grace).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// session.insert("theme", "dark")?;
    /// session.save()?;
    /// let old = session.token()?;
    /// session.rotate_id();
    /// session.save()?;
    /// assert_ne!(session.token()?, old);
    /// assert!(sessions.session(old).is_empty()?, "the old id is dead");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "cycle_key")]
    pub fn rotate_id(&mut self) {
        self.accessed.set(true);
        if self.id_change == IdChange::Keep {
            self.id_change = IdChange::Rotate;
        }
    }

    /// Logs a user in. At the next save or [`update_now`](Self::update_now), the session gets a new id and its absolute
    /// limit starts again. If another user was logged in, that user's entries and expiry setting are dropped.
    ///
    /// If another request has ended or moved the session meanwhile, the login is not refused. Within the [grace
    /// period](crate::Lifetime::grace) it goes on to the session's new id if that was rotated, and starts from a copy of
    /// its entries if the same user was logged in (a login button pressed twice). Otherwise it makes a new session from
    /// this request's changes and the entries that it had loaded, unless they were another user's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Value`] if `user` is empty or longer than 256 bytes.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// // After the password was checked:
    /// session.login("ada")?;
    /// assert_eq!(session.user()?.as_deref(), Some("ada"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "cycle_key")]
    pub fn login(&mut self, user: impl Into<String>) -> Result<()> {
        let user = user.into();
        if user.is_empty() || user.len() > USER_BYTES_MAX {
            let reason = format!("a user has 1 to {USER_BYTES_MAX} bytes, this one {}", user.len());
            return Err(Error::new(ErrorKind::Value, "log in").with_reason(reason));
        }
        if self.user()?.is_some_and(|other| other != user) {
            self.delta.clear();
            self.expiry = None;
        }
        self.modified = true;
        self.id_change = IdChange::Login(user);
        Ok(())
    }

    /// The logged-in user; `None` if there is none.
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
    /// assert_eq!(session.user()?, None);
    /// session.login("ada")?;
    /// assert_eq!(session.user()?.as_deref(), Some("ada"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn user(&self) -> Result<Option<String>> {
        let current = self.load()?;
        Ok(match &self.id_change {
            IdChange::Login(user) => Some(user.clone()),
            IdChange::Keep | IdChange::Rotate => {
                current.and_then(|current| current.record.user()).map(str::to_owned)
            }
        })
    }

    /// Carries out a pending login on the record of a live session, before any other change of the request. The entries
    /// and the expiry setting of another user are dropped. Returns whether a login was pending.
    pub(super) fn log_in(&self, record: &mut Record, now: SystemTime) -> Result<bool> {
        let IdChange::Login(user) = &self.id_change else { return Ok(false) };
        let mut timing = record.timing();
        if record.user().is_some_and(|other| other != user) {
            record.clear();
            record.set_device_note("")?;
            record.set_login(Login::default());
            timing.expiry = Expiry::Default;
        }
        record.set_user(user)?;
        timing.created = now;
        let expiry = timing.expiry;
        self.context.lifetime.apply(&mut timing, expiry, now);
        record.set_timing(timing);
        Ok(true)
    }

    /// The first record of a new session. If a login's session is gone, the record starts from the entries that another
    /// login of the same user has moved, or else from those that this request had loaded (a cart, say), unless they were
    /// another user's.
    pub(super) fn new_record(&self, now: SystemTime) -> Result<Record> {
        let empty = Record::new(now, now);
        let IdChange::Login(user) = &self.id_change else { return Ok(empty) };
        let moved = self.moved_by_login_of(user, now)?;
        let lost = moved.as_ref().or_else(|| Some(&self.current()?.record));
        let Some(lost) = lost.filter(|lost| lost.user().is_none_or(|other| other == user)) else {
            return empty.with_user(user);
        };
        let expiry = lost.timing().expiry;
        // The session may be gone because its expiry setting has passed.
        let expiry = if expiry.is_over(now) { Expiry::Default } else { expiry };
        let mut record = empty.with_timing(Timing { expiry, ..Timing::new(now, now) });
        record.extend(lost.entries().iter())?;
        record.with_user(user)
    }

    /// The record of the session that another request's login of the same user has moved within its grace period.
    fn moved_by_login_of(&self, user: &str, now: SystemTime) -> Result<Option<Record>> {
        let Some(token) = self.moved().or_else(|| Some(&self.current()?.token)) else { return Ok(None) };
        match self.context.store.load(token)? {
            Lookup::Absent(Absent::Moved(moved)) if now < moved.until => {}
            Lookup::Live(_) | Lookup::Absent(_) => return Ok(None),
        }
        let successor = self.context.store.successor(token)?.map(|live| live.record);
        Ok(successor.filter(|record| {
            record.user() == Some(user) && !self.context.lifetime.is_over(&record.timing(), now)
        }))
    }
}
