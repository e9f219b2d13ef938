//! The expiry of a session: its setting, its deadline, the renewal of the deadline, and the end of a session whose
//! setting has passed.
use super::{Destroyed, Session};
use crate::error::Result;
use crate::event::Event;
use crate::id::Token;
use crate::lifetime::Renewed;
use crate::record::{Expiry, Record, Timing};
use crate::store::{EndReason, Verdict};
use std::time::{Duration, SystemTime};

impl Session {
    /// Sets how this session expires, from the next save on. A past instant or a zero duration ends the session at that
    /// save.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// use sessile::Expiry;
    /// use std::time::Duration;
    /// session.insert("code", 1234)?;
    /// session.set_expiry(Expiry::After(Duration::from_secs(600)));
    /// assert!(session.remaining()? <= Duration::from_secs(600));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_expiry(&mut self, expiry: Expiry) {
        self.accessed.set(true);
        self.modified = true;
        self.expiry = Some(expiry.normalized());
    }

    /// How this session expires.
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
    /// use sessile::Expiry;
    /// assert_eq!(session.expiry()?, Expiry::Default);
    /// session.set_expiry(Expiry::BrowserClose);
    /// assert_eq!(session.expiry()?, Expiry::BrowserClose);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "get_expire_at_browser_close")]
    pub fn expiry(&self) -> Result<Expiry> {
        let stored = self.of_this_user(self.load()?);
        Ok(self.expiry.or(stored.map(Record::expiry)).unwrap_or_default())
    }

    /// The deadline of this session: the stored one, or an earlier one if the policy has become stricter since. For a
    /// new session or a new setting, the deadline that a save now would store.
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
    /// let in_an_hour = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    /// assert!(session.deadline()? > in_an_hour, "the default is two weeks");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "get_expiry_date")]
    pub fn deadline(&self) -> Result<SystemTime> {
        self.deadline_at(self.context.store.now())
    }

    /// The time until [`deadline`](Self::deadline); zero if it has passed. Neither counts as a read for
    /// [`Renewal::OnRead`](crate::Renewal::OnRead), so that a page can ask for the remaining time without extending it.
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
    /// assert_eq!(session.remaining()?.as_secs(), 14 * 24 * 3600);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "get_expiry_age")]
    pub fn remaining(&self) -> Result<Duration> {
        let now = self.context.store.now();
        Ok(self.deadline_at(now)?.duration_since(now).unwrap_or_default())
    }

    /// The stored deadline, or the one that a save at `now` would store. It is computed as [`log_in`](Self::log_in) and
    /// `apply` do.
    fn deadline_at(&self, now: SystemTime) -> Result<SystemTime> {
        let lifetime = &self.context.lifetime;
        let stored = self.of_this_user(self.look()?).map(Record::timing);
        let logs_in = self.is_login_pending();
        let before =
            stored.unwrap_or(Timing { came_once: lifetime.comes_once(false), ..Timing::new(now, now) });
        let expiry = self.expiry.unwrap_or(before.expiry);
        if stored.is_some() && !logs_in && expiry == before.expiry {
            return Ok(lifetime.current_deadline(&before));
        }
        let created = if logs_in { now } else { before.created };
        let came_once = before.came_once && !logs_in && !self.has_returned();
        Ok(lifetime.deadline(&Timing { created, touched: now, came_once, expiry, ..before }))
    }

    /// Makes this request passive: it uses its session without moving the deadline, whatever the
    /// [`Renewal`](crate::Renewal), so that a page that polls does not keep a visitor logged in who has left. Call it
    /// at the beginning of the handler of such a path. Changes are saved as always; a new expiry setting and a login
    /// set the deadline.
    ///
    /// ```
    /// use sessile::{Cookies, FileStore, Lifetime, Sessions};
    /// use std::time::Duration;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = FileStore::open(dir.path())?;
    /// let quarter = Lifetime::new().idle_limit(Duration::from_secs(15 * 60));
    /// let sessions = Sessions::new(store, Cookies::plain_http())?.with_lifetime(quarter)?;
    /// # let mut session = sessions.visit([]);
    /// // In the handler of `/unread`, which a script asks for each half minute:
    /// session.passive();
    /// let unread: u32 = session.get("unread")?.unwrap_or_default();
    /// # assert_eq!(unread, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn passive(&mut self) {
        self.passive = true;
    }

    /// Whether the request has sent the id of the session, so that it is at least the visitor's second request.
    pub(super) fn has_returned(&self) -> bool {
        self.current().is_some_and(|current| self.candidates.contains(&current.token))
    }

    /// Renews a session's times, if this request may: a passive request renews nothing, and the first request of a
    /// visitor does not end the time for which `first_age` applies.
    pub(super) fn renew_timing(&self, timing: &mut Timing, now: SystemTime) -> Renewed {
        if self.passive || timing.came_once && !self.has_returned() {
            return Renewed::No;
        }
        self.context.lifetime.renew(timing, now)
    }

    /// Moves the deadline of a session without changes, if that gains at least a step. A failed renewal is reported to
    /// the observer instead of the handler, because it costs the visitor nothing now. A session that was ended
    /// meanwhile stays ended.
    pub(super) fn renew(&mut self, token: &Token, now: SystemTime) {
        let mut moved = false;
        let saved = self.change_live(token, now, &mut |record| {
            let mut timing = record.timing();
            let renewed = self.renew_timing(&mut timing, now);
            if !renewed.is_worth_a_write() {
                return Ok(Verdict::Keep);
            }
            moved = renewed == Renewed::WithCookie;
            record.set_timing(timing);
            Ok(Verdict::Write)
        });
        match saved {
            Ok(Some(saved)) => self.apply_saved(saved, now, moved),
            Ok(None) => self.drop_cookie(),
            Err(error) => self.context.observe(&Event::NotRenewed(&error)),
        }
    }

    /// Ends the session because its own expiry setting has passed. This is not a logout, so the cookie is removed only
    /// if its value is the id of this session.
    pub(super) fn expire(&mut self) -> Result<()> {
        let current = self.current();
        let was_presented = current.is_some_and(|current| self.candidates.contains(&current.token));
        if self.destroy_in_store(EndReason::Expired)? == Destroyed::Ended && was_presented {
            self.remove_cookie();
        }
        Ok(())
    }
}
