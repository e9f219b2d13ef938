//! How a session's changes reach the store: merge, create, rotate; and what the cookie must say afterwards.
use super::{Held, Session, Transfer};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::Token;
use crate::lifetime::{Expiry, Renewed};
use crate::record::Record;
use crate::session::delta::Delta;
use crate::store::{Durability, Saved, Verdict};
use std::cell::OnceCell;
use std::time::{Duration, SystemTime};

/// What a response has to tell the browser.
#[derive(Debug, Default)]
pub(crate) enum CookieNews {
    /// Nothing: the browser has the token, with the right deadline.
    #[default]
    Nothing,
    /// A new token, or the old one with a moved deadline.
    Token {
        token: Token,
        /// How long from the save, and until when; `None` ends with the browser.
        until: Option<(Duration, SystemTime)>,
    },
    /// The session that the browser brought was ended, or the visitor asked for that.
    Removed,
}

impl CookieNews {
    /// Whether it is this token that the browser is given.
    pub(super) fn carries(&self, token: &Token) -> bool {
        matches!(self, Self::Token { token: carried, .. } if carried == token)
    }
}

impl Session {
    /// Writes what was changed. Creates the session if it is not stored and there is something to store; writes
    /// nothing if nothing was changed and the deadline need not move.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Gone`] if the session was live when it was first read, changes wait to be saved, and it was ended
    /// meanwhile; not if a [`login`](Self::login) is among them. [`ErrorKind::Panicked`] if a function given to
    /// [`update`](Self::update) panics on what is stored now; nothing is written then. Otherwise the storage's trouble; the
    /// changes are kept, and `save` may be called again. The old version
    /// stands, but after [`ErrorKind::DurabilityUnknown`] and [`ErrorKind::InvalidationFailed`] the new one may: then what
    /// [`update`](Self::update) does is done once more by a second `save`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// session.insert("theme", "dark")?;
    /// session.save()?;
    /// assert!(session.token()?.is_some(), "it is stored");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn save(&mut self) -> Result<()> {
        self.accessed.set(true);
        let saved = self.commit();
        self.noting_failure(saved)
    }

    /// Drops what this request has changed and not saved: entries, an expiry setting, a `login` or `rotate_id` that waits.
    /// For a handler that gives up and answers all the same. What was saved stays, and what was done at once
    /// ([`update_now`](Self::update_now), [`destroy`](Self::destroy)); [`modified`](Self::modified) goes on saying that
    /// something was changed.
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
        self.settle();
    }

    /// What the response has to tell the browser.
    pub(crate) fn cookie_news(&self) -> &CookieNews {
        &self.cookie
    }

    /// Whether there are changes that are not saved.
    fn is_changed(&self) -> bool {
        !self.delta.is_empty() || self.expiry.is_some() || self.transfer != Transfer::Stay
    }

    /// Whether there are changes that are not saved, or is something that the browser has to be told.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.is_changed() || !matches!(self.cookie, CookieNews::Nothing)
    }

    /// Whether the request found a live session, or made one.
    pub(crate) fn is_live(&self) -> bool {
        self.found.get().is_some_and(Option::is_some)
    }

    pub(crate) fn manager(&self) -> &super::SessionManager {
        &self.manager
    }

    /// Whether a save failed in this request.
    pub(crate) fn save_failed(&self) -> bool {
        self.save_failed
    }

    /// The save at the end of a request: writes the changes, or moves the deadline.
    pub(crate) fn commit(&mut self) -> Result<()> {
        let lifetime = self.manager.lifetime();
        let changed = self.is_changed();
        // What was saved before `power_safe` was asked for becomes so by an update that changes nothing.
        let strengthen = self.saved_relaxed && self.durability == Durability::PowerSafe;
        let must = changed || strengthen;
        if !must && !lifetime.renews(self.saved, self.accessed.get()) {
            return Ok(());
        }
        // A request that never looked at its session stays "not accessed", even if its deadline is moved.
        let accessed = self.accessed.get();
        let found = self.load();
        self.accessed.set(accessed);
        let now = self.manager.store().now();
        match found {
            Ok(None) => self.create(now),
            Ok(Some(_)) if self.expiry.is_some_and(|expiry| expiry.is_over(now)) => self.expire(),
            Ok(Some(held)) if must => {
                let token = held.token.clone();
                self.merge(&token, now)
            }
            Ok(Some(held)) => {
                if lifetime.renew(&mut held.record.clone_times(), now).is_worth_a_write() {
                    let token = held.token.clone();
                    self.renew(&token, now);
                }
                Ok(())
            }
            Err(error) if must => Err(error),
            Err(error) => {
                self.manager.observe(&Event::NotRenewed(&error));
                Ok(())
            }
        }
    }

    /// Stores the changes as a new session.
    fn create(&mut self, now: SystemTime) -> Result<()> {
        let mut record = self.new_record(now);
        self.delta.apply(&mut record.entries)?;
        self.store_new(record, now)?;
        self.settle();
        Ok(())
    }

    /// What a new session begins with. One that a login makes because the session it was to move is gone goes on from what
    /// this request had loaded of that (a cart, say), unless it was another user's.
    pub(super) fn new_record(&self, now: SystemTime) -> Record {
        let mut record = Record::new(now, now);
        if let Transfer::Login(user) = &self.transfer {
            let lost = self.found.get().and_then(Option::as_ref).map(|held| &*held.record);
            if let Some(lost) = lost.filter(|lost| lost.user.as_ref().is_none_or(|other| other == user)) {
                record.entries = lost.entries.clone();
                // One that is over may be why it is gone.
                record.expiry = if lost.expiry.is_over(now) { Expiry::Default } else { lost.expiry };
            }
            record.user = Some(user.clone());
        }
        record
    }

    /// Merges the changes into the newest record, and moves it to a new token if that is asked.
    fn merge(&mut self, token: &Token, now: SystemTime) -> Result<()> {
        let mut moved = false;
        let saved = self.change_live(token, now, &mut |record| {
            let changed;
            (changed, moved) = self.apply(record, now)?;
            Ok(if changed || moved { Verdict::Write } else { Verdict::Keep })
        })?;
        let Some(saved) = saved else {
            self.outlive_session("save session")?;
            return self.create(now);
        };
        self.adopt(saved, now, moved);
        self.settle();
        Ok(())
    }

    /// Lays the changes over a record. Whether that changed it, and whether the cookie has to say so.
    fn apply(&self, record: &mut Record, now: SystemTime) -> Result<(bool, bool)> {
        let lifetime = self.manager.lifetime();
        let mut moved = self.log_in(record, now);
        let mut changed = moved;
        changed |= self.delta.apply(&mut record.entries)?;
        match self.expiry {
            Some(expiry) if expiry != record.expiry => {
                lifetime.apply(record, expiry, now);
                moved = true;
            }
            _ => {
                let renewed = lifetime.renew(record, now);
                changed |= renewed.is_worth_a_write();
                moved |= renewed == Renewed::WithCookie;
            }
        }
        Ok((changed, moved))
    }

    /// Carries out a pending login on the record of a live session, before any other change of the request: of another
    /// user's record neither the entries nor the expiry setting stay. Whether one was pending.
    pub(super) fn log_in(&self, record: &mut Record, now: SystemTime) -> bool {
        let Transfer::Login(user) = &self.transfer else { return false };
        if record.user.as_ref().is_some_and(|other| other != user) {
            record.entries.clear();
            record.expiry = Expiry::Default;
        }
        record.user = Some(user.clone());
        record.created = now;
        self.manager.lifetime().apply(record, record.expiry, now);
        true
    }

    /// Moves the deadline of a session without changes, if that still gains a step. What fails here costs the visitor
    /// nothing now: it is observed, not returned; and a session ended meanwhile stays ended.
    fn renew(&mut self, token: &Token, now: SystemTime) {
        let lifetime = self.manager.lifetime();
        let mut moved = false;
        let saved = self.change_live(token, now, &mut |record| {
            let renewed = lifetime.renew(record, now);
            moved = renewed == Renewed::WithCookie;
            Ok(if renewed.is_worth_a_write() { Verdict::Write } else { Verdict::Keep })
        });
        match saved {
            Ok(Some(saved)) => self.adopt(saved, now, moved),
            Ok(None) => self.forget_token(),
            Err(error) => self.manager.observe(&Event::NotRenewed(&error)),
        }
    }

    /// Changes what is stored under `token`, and moves it to a new token if that is pending, unless it is over by the
    /// current policy: `None` then, as if it were absent. The one way in which a stored session is changed.
    pub(super) fn change_live(
        &self,
        token: &Token,
        now: SystemTime,
        change: &mut dyn FnMut(&mut Record) -> Result<Verdict>,
    ) -> Result<Option<Saved>> {
        let mut over = false;
        let guarded = &mut |record: &mut Record| {
            over = self.manager.lifetime().is_over(record, now);
            // An error, so that nothing is written or moved; nobody sees it.
            if over { Err(Error::new(ErrorKind::Gone, "change a session")) } else { change(record) }
        };
        let saved = match self.transfer {
            Transfer::Stay => self.manager.store().update(token, guarded, self.durability),
            Transfer::Rotate | Transfer::Login(_) => {
                self.manager.store().rotate(token, guarded, self.durability)
            }
        };
        if over { Ok(None) } else { saved }
    }

    /// Remembers that something the handler wanted saved, or ended, was not. A renewal that fails loses nothing of it.
    pub(super) fn noting_failure<T>(&mut self, saved: Result<T>) -> Result<T> {
        self.save_failed |= saved.is_err();
        saved
    }

    /// Files a new session with the expiry setting of this request, if there is anything to store. Whether there was.
    pub(super) fn store_new(&mut self, mut record: Record, now: SystemTime) -> Result<bool> {
        let expiry = self.expiry.unwrap_or(record.expiry);
        if (record.entries.is_empty() && record.user.is_none()) || expiry.is_over(now) {
            return Ok(false);
        }
        self.manager.lifetime().apply(&mut record, expiry, now);
        let saved = self.manager.store().create(&record, self.durability)?;
        self.manager.observe(&Event::Created(saved.live.id));
        self.hold(saved, now, true);
        Ok(true)
    }

    /// Takes over what an update or a rotation stored.
    pub(super) fn adopt(&mut self, saved: Saved, now: SystemTime, moved: bool) {
        let before = self.found.get().and_then(Option::as_ref).expect("only live sessions are updated");
        if saved.token != before.token {
            if saved.live.id != before.id && self.transfer != Transfer::Stay {
                self.manager.observe(&Event::Rotated { from: before.id, to: saved.live.id });
            }
            // A session that moved is still the one the request brought.
            if let Some(place) = self.brought.iter_mut().find(|token| **token == before.token) {
                *place = saved.token.clone();
            }
        }
        let news = moved || saved.token != before.token;
        self.hold(saved, now, news);
    }

    fn hold(&mut self, saved: Saved, now: SystemTime, news: bool) {
        let Saved { token, live } = saved;
        if news {
            let record = &live.record;
            let browser_bound = self.manager.lifetime().is_browser_bound(record.expiry);
            let left = record.deadline.duration_since(now).unwrap_or_default();
            self.cookie = CookieNews::Token {
                token: token.clone(),
                until: (!browser_bound).then_some((left, record.deadline)),
            };
        }
        self.found = OnceCell::from(Some(Held { token, record: live.record, id: live.id }));
        self.saved = true;
        let durability = match self.durability {
            Durability::OfStore => self.manager.store().durability(),
            asked => asked,
        };
        self.saved_relaxed = durability != Durability::PowerSafe;
    }

    /// Forgets the changes: they are saved, or pointless.
    pub(super) fn settle(&mut self) {
        self.delta = Delta::default();
        self.expiry = None;
        self.transfer = Transfer::Stay;
    }

    /// The session was ended while this request was under way: what was to be saved in it is lost, and no cookie brings it
    /// back. But a login is never refused for the sake of the session that was brought: `Ok`, and a new one is to be made.
    pub(super) fn outlive_session(&mut self, act: &'static str) -> Result<()> {
        if matches!(self.transfer, Transfer::Login(_)) {
            return Ok(());
        }
        self.forget_token();
        let id = self
            .found
            .get()
            .and_then(Option::as_ref)
            .map_or_else(String::new, |held| format!(" {}", held.id));
        Err(Error::new(ErrorKind::Gone, format!("{act}{id}"))
            .with_reason("it was ended or has expired since it was read; nothing was saved"))
    }
}
