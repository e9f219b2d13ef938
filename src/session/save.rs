//! How a session's changes reach the store: merge, create, rotate, end; and what the cookie must say afterwards.
use super::{Held, Session, Transfer, check_name, read, store};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::{FileId, Token};
use crate::record::Record;
use crate::session::delta::Delta;
use crate::store::{Saved, Verdict};
use serde::Serialize;
use serde::de::DeserializeOwned;
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
    /// The session that the browser brought was ended.
    Removed,
}

impl Session {
    /// Writes what was changed. Creates the session if it is not stored and there is something to store; writes
    /// nothing if nothing was changed and the deadline need not move.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Gone`] if the session was live when it was first read, changes wait to be saved, and it was ended
    /// meanwhile. Otherwise the storage's trouble; the old version stands, the changes are kept, and `save` may be
    /// called again.
    pub fn save(&mut self) -> Result<()> {
        self.accessed.set(true);
        self.commit()
    }

    /// Changes one entry (its type's default, if there is none) in the store, at once and as one step, and returns
    /// what the function returned: the truth, whatever other requests do. Only that entry is saved, with what this
    /// request changed of it before; it stays saved if the request fails later.
    ///
    /// The function may run several times.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Type`] if the entry holds something else; [`ErrorKind::Gone`] if the session was live when it was
    /// first read and is not any more; the storage's trouble.
    pub fn update_now<T, R>(&mut self, name: &str, mut change: impl FnMut(&mut T) -> R) -> Result<R>
    where
        T: Default + Serialize + DeserializeOwned,
    {
        check_name(name)?;
        let now = self.manager.store().now();
        let mut outcome = None;
        let mut step = |delta: &Delta, record: &mut Record| {
            let stored = record.entries.get(name);
            let mut value: T =
                delta.merged(name, stored)?.map(|value| read(name, &value)).transpose()?.unwrap_or_default();
            outcome = Some(change(&mut value));
            let value = store(name, &value)?;
            if stored == Some(&value) {
                return Ok(Verdict::Keep);
            }
            record.entries.insert(name.to_owned(), value);
            Ok(Verdict::Write)
        };
        if let Some(token) = self.load()?.map(|held| held.token.clone()) {
            let lifetime = self.manager.lifetime();
            let delta = &self.delta;
            let saved = if_alive(|gone| {
                let change = &mut |record: &mut Record| {
                    if lifetime.is_over(record, now) {
                        return Err(gone.declare());
                    }
                    step(delta, record)
                };
                self.manager.store().update(&token, change, self.durability)
            })?;
            let Some(saved) = saved else { return Err(self.gone("update an entry of session")) };
            self.adopt(saved, now, false);
        } else {
            let mut record = Record::new(now, now);
            step(&self.delta, &mut record)?;
            self.manager.lifetime().apply(&mut record, self.expiry.unwrap_or_default(), now);
            let saved = self.manager.store().create(&record, self.durability)?;
            self.adopt_new(saved, now);
        }
        self.delta.committed(name);
        self.modified = true;
        Ok(outcome.expect("the store ran the change before it saved"))
    }

    /// Ends the session at once, in the store, for every token the request brought; drops the entries and forgets the
    /// id. What is stored afterwards makes a new session. Nothing that happens later in the request undoes it.
    ///
    /// # Errors
    ///
    /// The storage's trouble: the session may still be alive. Nothing is forgotten, so that it can be tried again.
    #[doc(alias = "flush")]
    #[doc(alias = "logout")]
    pub fn destroy(&mut self) -> Result<()> {
        self.accessed.set(true);
        self.modified = true;
        let held = self.found.get().and_then(Option::as_ref).map(|held| &held.token);
        let own = held.filter(|token| !self.brought.contains(token));
        let mut failure = None;
        let mut ended = false;
        for token in self.brought.iter().chain(own) {
            match self.manager.store().delete(token) {
                Ok(true) => {
                    ended |= self.brought.contains(token);
                    self.manager.observe(&Event::Destroyed(FileId::digest(token.expose().as_bytes())));
                }
                Ok(false) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if ended {
            self.cookie = CookieNews::Removed;
        }
        if let Some(error) = failure {
            return Err(error);
        }
        if matches!(self.cookie, CookieNews::Token { .. }) {
            self.cookie = CookieNews::Nothing;
        }
        self.brought.clear();
        self.found = OnceCell::from(None);
        self.settle();
        Ok(())
    }

    /// What the response has to tell the browser.
    pub(crate) fn cookie_news(&self) -> &CookieNews {
        &self.cookie
    }

    /// Whether the request found a live session, or made one.
    pub(crate) fn is_live(&self) -> bool {
        self.found.get().is_some_and(Option::is_some)
    }

    pub(crate) fn manager(&self) -> &super::SessionManager {
        &self.manager
    }

    /// The save at the end of a request: writes the changes, or moves the deadline.
    pub(crate) fn commit(&mut self) -> Result<()> {
        let lifetime = self.manager.lifetime();
        let changed = !self.delta.is_empty() || self.expiry.is_some() || self.transfer != Transfer::Stay;
        if !changed && !lifetime.renews(self.saved, self.accessed.get()) {
            return Ok(());
        }
        // A request that never looked at its session stays "not accessed", even if its deadline is moved.
        let accessed = self.accessed.get();
        let found = self.load();
        self.accessed.set(accessed);
        let now = self.manager.store().now();
        match found {
            Ok(None) => self.create(now),
            Ok(Some(_)) if self.expiry.is_some_and(|expiry| expiry.is_over(now)) => self.destroy(),
            Ok(Some(held)) if changed => {
                let token = held.token.clone();
                self.merge(&token, now)
            }
            Ok(Some(held)) => {
                if lifetime.renew(&mut held.record.clone_times(), now) {
                    let token = held.token.clone();
                    self.renew(&token, now);
                }
                Ok(())
            }
            Err(error) if changed => Err(error),
            Err(error) => {
                self.manager.observe(&Event::NotRenewed(&error));
                Ok(())
            }
        }
    }

    /// Stores a new session, if there is anything to store.
    fn create(&mut self, now: SystemTime) -> Result<()> {
        let mut record = Record::new(now, now);
        self.delta.apply(&mut record.entries)?;
        if let Transfer::Login(user) = &self.transfer {
            record.user = Some(user.clone());
        }
        let expiry = self.expiry.unwrap_or_default();
        if (record.entries.is_empty() && record.user.is_none()) || expiry.is_over(now) {
            self.settle();
            return Ok(());
        }
        self.manager.lifetime().apply(&mut record, expiry, now);
        let saved = self.manager.store().create(&record, self.durability)?;
        self.adopt_new(saved, now);
        self.settle();
        Ok(())
    }

    /// Merges the changes into the newest record, and moves it to a new token if that is asked.
    fn merge(&mut self, token: &Token, now: SystemTime) -> Result<()> {
        let mut moved = false;
        let saved = if_alive(|gone| {
            let change = &mut |record: &mut Record| {
                if self.manager.lifetime().is_over(record, now) {
                    return Err(gone.declare());
                }
                let changed;
                (changed, moved) = self.apply(record, now)?;
                Ok(if changed || moved { Verdict::Write } else { Verdict::Keep })
            };
            match self.transfer {
                Transfer::Stay => self.manager.store().update(token, change, self.durability),
                Transfer::Rotate | Transfer::Login(_) => {
                    self.manager.store().rotate(token, change, self.durability)
                }
            }
        })?;
        let Some(saved) = saved else { return Err(self.gone("save session")) };
        self.adopt(saved, now, moved);
        self.settle();
        Ok(())
    }

    /// Lays the changes over a record. Whether the contents changed, and whether the deadline moved.
    fn apply(&self, record: &mut Record, now: SystemTime) -> Result<(bool, bool)> {
        let lifetime = self.manager.lifetime();
        let mut changed = false;
        let mut moved = false;
        if let Transfer::Login(user) = &self.transfer {
            if record.user.as_ref().is_some_and(|other| other != user) {
                self.delta.drop_all(&mut record.entries);
            }
            record.user = Some(user.clone());
            record.created = now;
            lifetime.apply(record, record.expiry, now);
            (changed, moved) = (true, true);
        }
        changed |= self.delta.apply(&mut record.entries)?;
        match self.expiry {
            Some(expiry) if expiry != record.expiry => {
                lifetime.apply(record, expiry, now);
                moved = true;
            }
            _ => moved |= lifetime.renew(record, now),
        }
        Ok((changed, moved))
    }

    /// Moves the deadline of a session without changes, if that still gains a step. What fails here costs the visitor
    /// nothing now: it is observed, not returned; and a session ended meanwhile stays ended.
    fn renew(&mut self, token: &Token, now: SystemTime) {
        let lifetime = self.manager.lifetime();
        let mut moved = false;
        let saved = if_alive(|gone| {
            let change = &mut |record: &mut Record| {
                if lifetime.is_over(record, now) {
                    return Err(gone.declare());
                }
                moved = lifetime.renew(record, now);
                Ok(if moved { Verdict::Write } else { Verdict::Keep })
            };
            self.manager.store().update(token, change, self.durability)
        });
        match saved {
            Ok(Some(saved)) => self.adopt(saved, now, moved),
            Ok(None) => {}
            Err(error) => self.manager.observe(&Event::NotRenewed(&error)),
        }
    }

    /// Takes over what an update or a rotation stored.
    fn adopt(&mut self, saved: Saved, now: SystemTime, moved: bool) {
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

    fn adopt_new(&mut self, saved: Saved, now: SystemTime) {
        self.manager.observe(&Event::Created(saved.live.id));
        self.hold(saved, now, true);
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
    }

    /// Forgets the changes: they are saved, or pointless.
    fn settle(&mut self) {
        self.delta = Delta::default();
        self.expiry = None;
        self.transfer = Transfer::Stay;
    }

    /// The session was ended while this request was under way: no cookie brings it back.
    fn gone(&mut self, act: &'static str) -> Error {
        if matches!(self.cookie, CookieNews::Token { .. }) {
            self.cookie = CookieNews::Nothing;
        }
        let id = self
            .found
            .get()
            .and_then(Option::as_ref)
            .map_or_else(String::new, |held| format!(" {}", held.id));
        Error::new(ErrorKind::Gone, format!("{act}{id}"))
            .with_reason("it was ended or has expired since it was read; nothing was saved")
    }
}

/// Lets a change say "by the current policy this session is over": an error, so that nothing is written, and then the
/// same `None` as for a session that is not there.
fn if_alive(save: impl FnOnce(&mut Gone) -> Result<Option<Saved>>) -> Result<Option<Saved>> {
    let mut gone = Gone(false);
    match save(&mut gone) {
        Err(_) if gone.0 => Ok(None),
        result => result,
    }
}

struct Gone(bool);

impl Gone {
    fn declare(&mut self) -> Error {
        self.0 = true;
        Error::new(ErrorKind::Gone, "change a session")
    }
}
