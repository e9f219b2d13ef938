//! The sessions of a user, for a page that lists the user's devices and ends one of them.
use super::Sessions;
use crate::error::Result;
use crate::id::PublicId;
use crate::record::{Record, Timing};
use crate::store::{EndReason, EndedSession, Page, UserSessions};

impl Sessions {
    /// A page of the live sessions of a user, ordered by their ids. The visitor's own session is the one whose `id` is
    /// the [`public_id`](crate::Session::public_id) of the visitor's [`Session`](crate::Session).
    ///
    /// Each session was live, and this user's, when it was read; `complete` tells whether one may be missing. A page
    /// has fewer sessions than its limit if the lifetime has become stricter since some were saved.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store keeps no such list; else the storage
    /// failed.
    ///
    /// ```
    /// use sessile::Page;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// session.login_from("ada", "Firefox on Linux")?;
    /// session.save()?;
    /// let own = session.public_id()?;
    /// for device in sessions.sessions_of("ada", &Page::default())?.sessions {
    ///     let note = device.device_note.unwrap_or_default(); // from the visitor: escape it
    ///     println!("{} {note} {}", device.id, if Some(device.id) == own { "(this one)" } else { "" });
    ///     # assert_eq!((Some(device.id), &*note), (own, "Firefox on Linux"));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sessions_of(&self, user: &str, page: &Page) -> Result<UserSessions> {
        let store = &self.context.store;
        let (mut listed, now) = (store.sessions_of(user, page)?, store.now());
        listed.sessions.retain_mut(|session| {
            let timing = Timing {
                touched: session.last_seen,
                expiry: session.expiry,
                ..Timing::new(session.created, session.deadline)
            };
            session.deadline = self.context.lifetime.current_deadline(&timing);
            !self.context.lifetime.is_over(&Record::new(now, now).with_timing(timing), now)
        });
        Ok(listed)
    }

    /// Ends one session of a user, at once and in every process. Returns its public id, or `None` if no live session of
    /// *this* user was there: the id may come from a form, so a session of another user is left alone. If a rotation
    /// has moved the id, the session is ended under its present id, which is returned. A visitor's own session is ended
    /// by [`Session::destroy`](crate::Session::destroy), which also removes the cookie.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store cannot do this. Otherwise the session may
    /// still be alive; try again.
    ///
    /// ```
    /// use sessile::Page;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// # session.login("ada")?;
    /// # session.save()?;
    /// let device = sessions.sessions_of("ada", &Page::default())?.sessions.remove(0);
    /// assert_eq!(sessions.end_session_of("bob", &device.id)?, None);
    /// assert_eq!(sessions.end_session_of("ada", &device.id)?, Some(device.id));
    /// assert!(sessions.sessions_of("ada", &Page::default())?.sessions.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn end_session_of(&self, user: &str, id: &PublicId) -> Result<Option<PublicId>> {
        let ended = self.context.store.end_session_of(user, id)?;
        self.context.observer.notify_ends(&ended, EndReason::OtherDevice);
        Ok(EndedSession::live_id(ended))
    }
}
