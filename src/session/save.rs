//! Saving a session's changes: as a new session, or merged into the newest record, which may get a new id in the same
//! step.
use super::delta::LazyDelta;
use super::found::{Current, Found};
use super::{IdChange, PendingCookie, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::{PublicId, Token};
use crate::lifetime::Renewed;
use crate::record::{Record, Timing};
use crate::store::{Durability, Live, Rotation, Saved, Verdict};
use std::cell::OnceCell;
use std::time::SystemTime;

impl Session {
    /// Writes the changes. Creates the session if it is not stored and there is something to store. Writes nothing if
    /// nothing was changed and the deadline need not move.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Gone`] if changes wait to be saved, and the session was live when it was first read and was ended
    /// meanwhile, or a rotation or login has moved it to another id within the [grace period](crate::Lifetime::grace);
    /// not if a [`login`](Self::login) is among the changes. [`ErrorKind::Panicked`] if a function given to
    /// [`update`](Self::update) panics on the value that is stored now; nothing is written then. Otherwise the storage
    /// failed; the changes are kept, and `save` may be called again. The stored version is the old one, except that
    /// after [`ErrorKind::DurabilityUnknown`] and [`ErrorKind::InvalidationFailed`] it may be the new one. A second
    /// `save` then runs the functions of [`update`](Self::update) on the new version once more.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// session.insert("theme", "dark")?;
    /// session.save()?;
    /// assert!(session.token()?.is_some(), "it is stored");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn save(&mut self) -> Result<()> {
        self.accessed.set(true);
        let saved = self.commit();
        self.note_failure(saved)
    }

    /// Drops the unsaved changes of this request: entries, an expiry setting, a pending `login` or `rotate_id`. For a
    /// handler that gives up but still responds. Saved changes stay, and so do those that were made at once
    /// ([`update_now`](Self::update_now), [`destroy`](Self::destroy)); [`modified`](Self::modified) stays true.
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// # let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// session.insert("cart", ["apple"])?;
    /// session.save()?;
    /// session.insert("cart", ["apple", "a pear that is sold out"])?;
    /// session.discard_changes();
    /// assert_eq!(session.get("cart")?, Some(["apple".to_owned()]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn discard_changes(&mut self) {
        self.clear_pending();
    }

    /// Makes every save of this session from here on [`Durability::PowerSafe`]. Earlier saves of this request become
    /// power-safe with the next save, even if nothing was changed since. On a power-safe store this costs nothing.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// session.insert("order", 17)?;
    /// session.power_safe();
    /// session.save()?; // the order survives a power cut from here on
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn power_safe(&mut self) {
        self.durability = Durability::PowerSafe;
    }

    /// Whether there are unsaved changes.
    fn is_changed(&self) -> bool {
        !self.delta.is_empty() || self.expiry.is_some() || self.id_change != IdChange::Keep
    }

    /// Whether there are unsaved changes, or a cookie for the browser.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.is_changed() || !matches!(self.cookie, PendingCookie::Nothing)
    }

    /// Whether a save failed in this request.
    pub(crate) fn save_failed(&self) -> bool {
        self.save_failed
    }

    /// The save at the end of a request: writes the changes, or only moves the deadline.
    pub(crate) fn commit(&mut self) -> Result<()> {
        let lifetime = &self.context.lifetime;
        let changed = self.is_changed();
        // Saves that were made before `power_safe` was called become power-safe by an update without a change.
        let strengthen = self.saved_relaxed && self.durability == Durability::PowerSafe;
        let must = changed || strengthen;
        let renews = !self.passive && lifetime.renews(self.saved, self.read.get());
        // A read at the second visit ends the time for which `first_age` applies.
        let returns = self.read.get() && lifetime.comes_once(false);
        if !must && !renews && !returns {
            return Ok(());
        }
        // A request that has not used its session stays "not accessed", even if this save moves the deadline.
        let found = self.find();
        let now = self.context.store.now();
        match found {
            Ok(None) if must => self.save_absent(now),
            Ok(None) => Ok(()),
            Ok(Some(_)) if self.expires_by(now) => self.expire(),
            Ok(Some(current)) if must => {
                let token = current.token.clone();
                self.merge(&token, now)
            }
            Ok(Some(current)) => {
                let mut timing = current.record.timing();
                if (renews || timing.came_once) && self.renew_timing(&mut timing, now).is_worth_a_write() {
                    let token = current.token.clone();
                    self.renew(&token, now);
                }
                Ok(())
            }
            Err(error) if must => Err(error),
            Err(error) => {
                self.context.observe(&Event::NotRenewed(&error));
                Ok(())
            }
        }
    }

    /// Whether the expiry setting of this request ends the session at the save.
    fn expires_by(&self, now: SystemTime) -> bool {
        self.expiry.is_some_and(|expiry| expiry.is_over(now))
    }

    /// Saves the changes of a request that found no live session.
    #[cold]
    fn save_absent(&mut self, now: SystemTime) -> Result<()> {
        match self.moved_token_if_login_pending("save session")? {
            None => self.create(now),
            Some(_) if self.expires_by(now) => self.expire(),
            Some(token) => self.merge(&token, now),
        }
    }

    /// Stores the changes as a new session.
    fn create(&mut self, now: SystemTime) -> Result<()> {
        let mut record = self.new_record(now)?;
        self.delta.apply(&mut record)?;
        self.store_new(record, now)?;
        self.clear_pending();
        Ok(())
    }

    /// Merges the changes into the newest record, and moves the record to a new token if a rotation is pending.
    fn merge(&mut self, token: &Token, now: SystemTime) -> Result<()> {
        let mut moved = false;
        let saved = self.change_live(token, now, &mut |record| {
            let changed;
            (changed, moved) = self.apply(record, now)?;
            Ok(if changed || moved { Verdict::Write } else { Verdict::Keep })
        })?;
        let Some(saved) = saved else {
            self.error_unless_login_pending("save session")?;
            return self.create(now);
        };
        self.apply_saved(saved, now, moved);
        self.clear_pending();
        Ok(())
    }

    /// Applies the changes to a record. Returns whether that changed it, and whether the cookie must be sent again.
    fn apply(&self, record: &mut Record, now: SystemTime) -> Result<(bool, bool)> {
        let lifetime = &self.context.lifetime;
        let mut moved = self.log_in(record, now)?;
        let mut changed = moved;
        changed |= self.delta.apply(record)?;
        let mut timing = record.timing();
        match self.expiry {
            Some(expiry) if expiry != timing.expiry => {
                timing.came_once &= !self.has_returned();
                lifetime.apply(&mut timing, expiry, now);
                moved = true;
            }
            _ => {
                let renewed = self.renew_timing(&mut timing, now);
                changed |= renewed.is_worth_a_write();
                moved |= renewed == Renewed::WithCookie;
            }
        }
        if changed || moved {
            record.set_timing(timing);
        }
        Ok((changed, moved))
    }

    /// Changes the record that is stored under `token`, and moves it to a new token if a rotation is pending. `None` if
    /// the record is absent, or expired by the current policy. Every change of a stored session uses this function.
    pub(super) fn change_live(
        &self,
        token: &Token,
        now: SystemTime,
        change: &mut dyn FnMut(&mut Record) -> Result<Verdict>,
    ) -> Result<Option<Saved>> {
        let guarded = &mut |record: &mut Record| {
            if self.context.lifetime.is_over(record, now) { Ok(Verdict::Abort) } else { change(record) }
        };
        match &self.id_change {
            IdChange::Keep => self.context.store.update(token, guarded, self.durability),
            IdChange::Rotate => self.context.store.rotate(token, guarded, &self.rotation()),
            IdChange::Login(login) => {
                self.context.store.rotate(token, guarded, &self.rotation().login(login.user()))
            }
        }
    }

    fn rotation(&self) -> Rotation<'static> {
        Rotation::new(self.durability).grace(self.context.lifetime.grace_period())
    }

    /// Notes that a save or a `destroy` failed. A failed renewal does not count, because it loses no change of the
    /// handler.
    pub(super) fn note_failure<T>(&mut self, saved: Result<T>) -> Result<T> {
        self.save_failed |= saved.is_err();
        saved
    }

    /// Creates a new session with the expiry setting of this request, if there is anything to store. Returns whether
    /// there was.
    pub(super) fn store_new(&mut self, mut record: Record, now: SystemTime) -> Result<bool> {
        let mut timing = record.timing();
        let expiry = self.expiry.unwrap_or(timing.expiry);
        if (record.entries().is_empty() && record.user().is_none()) || expiry.is_over(now) {
            return Ok(false);
        }
        timing.came_once = self.context.lifetime.comes_once(record.user().is_some());
        self.context.lifetime.apply(&mut timing, expiry, now);
        record.set_timing(timing);
        let saved = self.context.store.create(&record, self.durability)?;
        self.observe_new(&saved.live);
        self.set_current(saved, now, true);
        Ok(true)
    }

    /// Reports a new session, and the login that has made it.
    fn observe_new(&self, live: &Live) {
        let (id, record) = (live.id, &live.record);
        self.context.observe(&Event::Created { id, record });
        if self.is_login_pending() {
            self.context.observe(&Event::LoggedIn { from: None, to: id, record });
        }
    }

    /// Reports that a session has moved from a public id to another one, if a rotation or a login was pending.
    fn observe_moved(&self, from: PublicId, live: &Live) {
        let (to, record) = (live.id, &live.record);
        match self.id_change {
            IdChange::Login(_) => self.context.observe(&Event::LoggedIn { from: Some(from), to, record }),
            IdChange::Rotate if from != to => self.context.observe(&Event::Rotated { from, to, record }),
            IdChange::Keep | IdChange::Rotate => {}
        }
    }

    /// Applies the result of an update or a rotation.
    pub(super) fn apply_saved(&mut self, saved: Saved, now: SystemTime, moved: bool) {
        let Some(before) = self.current() else { return self.apply_login(saved, now) };
        let send_cookie = moved || saved.token != before.token;
        if saved.token != before.token {
            self.observe_moved(before.id, &saved.live);
            // The session with its new token stays one of those that a `destroy` ends.
            let before = before.token.clone();
            self.candidates.replace(&before, &saved.token);
        }
        self.set_current(saved, now, send_cookie);
    }

    /// Applies the result of a login whose session was found under a moved token.
    #[cold]
    fn apply_login(&mut self, saved: Saved, now: SystemTime) {
        if let Some(moved) = self.moved().cloned() {
            self.observe_moved(moved.public_id(), &saved.live);
            self.candidates.replace(&moved, &saved.token);
        }
        self.set_current(saved, now, true);
    }

    /// Makes a saved record the current session of this request.
    fn set_current(&mut self, saved: Saved, now: SystemTime, send_cookie: bool) {
        let Saved { token, live } = saved;
        if send_cookie {
            let Timing { expiry, deadline, .. } = live.record.timing();
            let browser_bound = self.context.lifetime.is_browser_bound(expiry);
            let left = deadline.duration_since(now).unwrap_or_default();
            self.cookie = PendingCookie::Token {
                token: token.clone(),
                until: (!browser_bound).then_some((left, deadline)),
            };
        }
        self.found = OnceCell::from(Found::Live(Current { token, record: live.record, id: live.id }));
        self.saved = true;
        let durability = match self.durability {
            Durability::OfStore => self.context.store.durability(),
            asked => asked,
        };
        self.saved_relaxed = durability != Durability::PowerSafe;
    }

    /// Clears the changes of this request, after a save or when they have no purpose any more.
    pub(super) fn clear_pending(&mut self) {
        self.delta = LazyDelta::default();
        self.expiry = None;
        self.id_change = IdChange::Keep;
    }

    /// Refuses a change of a session that was ended during this request: its changes are lost, and its cookie is not
    /// sent. A pending login is not refused. Then the result is `Ok`, and the caller creates a new session.
    pub(super) fn error_unless_login_pending(&mut self, operation: &'static str) -> Result<()> {
        if self.is_login_pending() {
            return Ok(());
        }
        self.drop_cookie();
        let (id, reason) = match self.found.get() {
            Some(Found::Live(current)) => (current.id, "it was ended or has expired since it was read"),
            Some(Found::Moved(token)) => (token.public_id(), "a login or rotation has given it another id"),
            Some(Found::Nothing) | None => unreachable!("a new session is not changed in the store"),
        };
        Err(Error::new(ErrorKind::Gone, format!("{operation} {id}"))
            .with_reason(format!("{reason}; nothing was saved")))
    }

    /// The moved token that a pending login goes to, if that is what the request has found; `None` for a new session.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Gone`] for every other change under a moved token. Carried out on the session's successor it would
    /// show a session to a token that its login or rotation has ended; carried out as a new session, its cookie would
    /// replace that of the successor.
    pub(super) fn moved_token_if_login_pending(&mut self, operation: &'static str) -> Result<Option<Token>> {
        let Some(token) = self.moved().cloned() else { return Ok(None) };
        self.error_unless_login_pending(operation)?;
        Ok(Some(token))
    }
}
