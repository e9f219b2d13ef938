//! Login and rotation: both stay pending until the next save, which moves the session to a new id in the same step.
use super::Session;
use super::delta::LazyDelta;
use super::forms::CSRF;
use super::found::Current;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{self, DEVICE_NOTE_BYTES_MAX, Expiry, Record, Timing};
use crate::store::{Absent, Lookup};
use std::time::SystemTime;

/// The largest number of bytes of a user's name.
pub const USER_BYTES_MAX: usize = 256;

/// Whether the next save gives the session a new id.
#[derive(PartialEq)]
pub(super) enum IdChange {
    Keep,
    Rotate,
    /// A new id, and this user.
    Login(Login),
}

/// A login that the next save carries out.
#[derive(PartialEq)]
pub(super) struct Login {
    pub(super) user: String,
    /// A new device note; `None` keeps the one that the session has.
    device_note: Option<String>,
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
    /// period](crate::Lifetime::grace) it goes on to the session's new id if that was rotated, and starts from a copy
    /// of its entries if the same user was logged in (a login button pressed twice). Otherwise it makes a new session
    /// from this request's changes and the entries that it had loaded, unless they were another user's.
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
            self.drop_changes_of_another_user(&user);
        }
        self.modified = true;
        let device_note = match &mut self.id_change {
            IdChange::Login(login) if login.user == user => login.device_note.take(),
            _ => None,
        };
        self.id_change = IdChange::Login(Login { user, device_note });
        Ok(())
    }

    /// Logs a user in as [`login`](Self::login) does, and stores a short text about the device, for the user's list of
    /// sessions. The text is stored as it is given, and cut to [`DEVICE_NOTE_BYTES_MAX`] bytes at a character, so that
    /// a long `User-Agent` does not refuse a login. It comes from the visitor, so a page must escape it.
    ///
    /// # Errors
    ///
    /// Those of [`login`](Self::login).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// session.login_from("ada", "Firefox on Linux")?;
    /// session.save()?;
    /// assert_eq!(session.device_note()?.as_deref(), Some("Firefox on Linux"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`DEVICE_NOTE_BYTES_MAX`]: crate::record::DEVICE_NOTE_BYTES_MAX
    pub fn login_from(&mut self, user: impl Into<String>, device_note: &str) -> Result<()> {
        self.login(user)?;
        if let IdChange::Login(login) = &mut self.id_change {
            let mut ends = (0..=device_note.len().min(DEVICE_NOTE_BYTES_MAX)).rev();
            let end = ends.find(|end| device_note.is_char_boundary(*end)).unwrap_or_default();
            login.device_note = Some(device_note[..end].to_owned());
        }
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
            IdChange::Login(login) => Some(login.user.clone()),
            IdChange::Keep | IdChange::Rotate => {
                current.and_then(|current| current.record.user()).map(str::to_owned)
            }
        })
    }

    /// The stored record as the handler sees it: `None` if another user was logged in than that of a pending login.
    pub(super) fn of_this_user<'a>(&self, stored: Option<&'a Current>) -> Option<&'a Record> {
        let record = &stored?.record;
        match &self.id_change {
            IdChange::Login(login) if record.user().is_some_and(|other| other != login.user) => None,
            _ => Some(record),
        }
    }

    /// Drops this request's changes if the session has another user than `user`, who is about to log in.
    fn drop_changes_of_another_user(&mut self, user: &str) {
        self.expiry = None;
        let stored = self.current().and_then(|current| current.record.user());
        if stored.is_some_and(|stored| stored != user) {
            // From now on `of_this_user` hides the stored entries, and the save drops them.
            self.delta = LazyDelta::default();
        } else {
            self.delta.clear();
        }
    }

    /// Carries out a pending login on the record of a live session, before the other changes of the request. Drops the
    /// entries and the expiry setting of another user. Returns whether a login was pending.
    pub(super) fn log_in(&self, record: &mut Record, now: SystemTime) -> Result<bool> {
        let IdChange::Login(login) = &self.id_change else { return Ok(false) };
        let mut timing = record.timing();
        if record.user().is_some_and(|other| other != login.user) {
            record.clear();
            record.set_device_note("")?;
            record.set_login(record::Login::default());
            timing.expiry = Expiry::Default;
        }
        login.mark(record, now)?;
        timing.created = now;
        timing.came_once = false;
        let expiry = timing.expiry;
        self.context.lifetime.apply(&mut timing, expiry, now);
        record.set_timing(timing);
        Ok(true)
    }

    /// The first record of a new session. If the session of a login has ended, the record gets the entries to which
    /// another login of the same user has moved them, or else those that this request had loaded (a cart, for example),
    /// unless they belong to another user.
    pub(super) fn new_record(&self, now: SystemTime) -> Result<Record> {
        let empty = Record::new(now, now);
        let IdChange::Login(login) = &self.id_change else { return Ok(empty) };
        let mut record = empty;
        login.mark(&mut record, now)?;
        let moved = self.successor_of_same_user(&login.user, now)?;
        let Some(lost) = moved.as_ref().or_else(|| self.of_this_user(self.current())) else {
            return Ok(record);
        };
        let expiry = lost.timing().expiry;
        // The session may have ended because this expiry setting has passed.
        let expiry = if expiry.is_over(now) { Expiry::Default } else { expiry };
        record.set_timing(Timing { expiry, ..Timing::new(now, now) });
        if let (None, Some(note)) = (&login.device_note, lost.device_note()) {
            record.set_device_note(note)?;
        }
        record.extend(lost.entries().iter().filter(|(name, _)| *name != CSRF))?;
        Ok(record)
    }

    /// The live session of the same user to which the login of another request has moved this request's token, within
    /// its grace period. (After a mere rotation, this session is found only if the rotated one has ended, or has
    /// another user.)
    fn successor_of_same_user(&self, user: &str, now: SystemTime) -> Result<Option<Record>> {
        let Some(token) = self.moved().or_else(|| Some(&self.current()?.token)) else { return Ok(None) };
        match self.context.store.load(token)? {
            Lookup::Absent(Absent::Moved(moved)) if moved.is_within_grace(now) => {}
            Lookup::Live(_) | Lookup::Absent(_) => return Ok(None),
        }
        let successor = self.context.store.successor(token)?.map(|live| live.record);
        Ok(successor
            .filter(|record| record.user() == Some(user) && !self.context.lifetime.is_over(record, now)))
    }

    /// Whether a login is pending.
    pub(super) fn is_login_pending(&self) -> bool {
        matches!(self.id_change, IdChange::Login(_))
    }

    /// The device note after a pending login. `stored` is the session's record.
    pub(super) fn merged_note<'a>(&'a self, stored: Option<&'a Record>) -> Option<&'a str> {
        let stored_note = |of: Option<&str>| {
            stored.filter(|record| of.is_none() || record.user() == of).and_then(Record::device_note)
        };
        match &self.id_change {
            IdChange::Login(login) => login.device_note.as_deref().or_else(|| stored_note(Some(&login.user))),
            IdChange::Keep | IdChange::Rotate => stored_note(None),
        }
    }
}

impl Login {
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// Writes the time, the user's digest and the device note of this login into a record. Removes the secret of the
    /// tokens for forms: a page that was made before the login cannot send a form in the name of the user.
    fn mark(&self, record: &mut Record, now: SystemTime) -> Result<()> {
        record.remove(CSRF);
        record.set_user(&self.user)?;
        record.set_login(record::Login { at: Some(now), ..record.login() });
        self.device_note.iter().try_for_each(|note| record.set_device_note(note))
    }
}
