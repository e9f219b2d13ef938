//! Changes of one entry that are made in the store at once, as one step.
//!
//! Only that entry is saved, together with the earlier changes that the request has made to it. A pending `login` or
//! `rotate_id` is carried out in the same step, so that no later change is written under the old id.
use super::delta::Merged;
use super::entries::{check_name, read, run_program, store};
use super::{IdChange, Session};
use crate::error::Result;
use crate::id::Token;
use crate::record::Record;
use crate::store::Verdict;
use crate::value::{Value, ValueRef};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::SystemTime;

/// A function that gets the value of an entry and returns its new value; `None` removes the entry. It may be called
/// several times.
type EntryFn<'a> = &'a mut dyn FnMut(Option<ValueRef<'_>>) -> Result<Option<Value>>;

/// The result of a change of one entry.
struct SavedEntry {
    /// Whether the value of the entry has changed.
    changed: bool,
    /// Whether the session is stored now.
    stored: bool,
}

impl Session {
    /// Changes one entry (its type's default, if there is none) in the store, at once and as one step, and returns the
    /// result of the function on the stored value, whatever other requests do. Only that entry is saved, together with
    /// the request's earlier changes of it. It stays saved if the request fails later.
    ///
    /// A pending [`login`](Self::login) or [`rotate_id`](Self::rotate_id) of this request is carried out in the same
    /// step, and stands even if the request fails later: the entry is written under the new id, and nothing is written
    /// under the old one.
    ///
    /// The function may run several times. It must not use another handle on the same session (a second [`Visit`] of
    /// the same cookie, say). A save or `destroy` inside it would wait for itself, and fails with
    /// [`ErrorKind::Reentrant`](crate::ErrorKind::Reentrant) at once if the storage can detect that.
    ///
    /// [`Visit`]: crate::http::Visit
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Type`](crate::ErrorKind::Type) if the entry holds another type;
    /// [`ErrorKind::Gone`](crate::ErrorKind::Gone) if the session was live when it was first read and is not any more,
    /// or a rotation or login has moved it to another id, and no login is pending;
    /// [`ErrorKind::Panicked`](crate::ErrorKind::Panicked) if the function panics: nothing is written, no lock is kept;
    /// otherwise the storage failed.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// let tries = session.update_now("tries", |n: &mut u32| {
    ///     *n += 1;
    ///     *n
    /// })?;
    /// assert_eq!(tries, 1); // the truth, also if other requests try at the same time
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn update_now<T, R>(&mut self, name: &str, mut change: impl FnMut(&mut T) -> R) -> Result<R>
    where
        T: Default + Serialize + DeserializeOwned,
    {
        check_name(name)?;
        let mut outcome = None;
        self.change_now(name, &mut |stored| {
            let mut value: T = stored.map(|value| read(name, value)).transpose()?.unwrap_or_default();
            outcome = Some(change(&mut value));
            store(name, &value).map(Some)
        })?;
        self.modified = true;
        Ok(outcome.expect("the store ran the change before it saved"))
    }

    /// Reads an entry and removes it, in the store, at once and as one step. If several requests take it, only one gets
    /// it. For one-time tokens and coupons. It stays taken if the request fails later; a pending login or rotation is
    /// carried out as by [`update_now`](Self::update_now).
    ///
    /// # Errors
    ///
    /// As of [`update_now`](Self::update_now); an entry of another type is not removed.
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// # let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// session.insert("coupon", "SPRING")?;
    /// session.save()?;
    /// assert_eq!(session.take_now::<String>("coupon")?.as_deref(), Some("SPRING"));
    /// assert_eq!(session.take_now::<String>("coupon")?, None); // in every other request, too
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn take_now<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>> {
        check_name(name)?;
        self.take_entry_now(name)
    }

    /// Takes an entry, which may have a reserved name.
    pub(super) fn take_entry_now<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>> {
        let mut taken = None;
        let changed = self.change_now(name, &mut |stored| {
            taken = stored.map(|stored| read(name, stored)).transpose()?;
            Ok(None)
        })?;
        self.modified |= changed;
        Ok(taken)
    }

    /// Reads an entry, or sets it to `value` if there is none, in the store, at once and as one step. If several
    /// requests call this, all get the value of the first. It stays set if the request fails later; a pending login or
    /// rotation is carried out as by [`update_now`](Self::update_now).
    ///
    /// # Errors
    ///
    /// As of [`update_now`](Self::update_now).
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// # let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// assert_eq!(session.get_or_insert_now("ticket", 7)?, 7);
    /// assert_eq!(session.get_or_insert_now("ticket", 8)?, 7); // in every other request, too
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_or_insert_now<T: Serialize + DeserializeOwned>(&mut self, name: &str, value: T) -> Result<T> {
        check_name(name)?;
        self.get_or_insert_entry_now(name, value)
    }

    /// Reads or sets an entry, which may have a reserved name.
    pub(super) fn get_or_insert_entry_now<T: Serialize + DeserializeOwned>(
        &mut self,
        name: &str,
        value: T,
    ) -> Result<T> {
        let mut found = None;
        let changed = self.change_now(name, &mut |stored| {
            found = stored.map(|stored| read(name, stored)).transpose()?;
            stored.map_or_else(|| store(name, &value), |stored| Ok(stored.to_value())).map(Some)
        })?;
        self.modified |= changed;
        Ok(found.unwrap_or(value))
    }

    /// Changes one entry in the store. Returns whether its value changed.
    fn change_now(&mut self, name: &str, change: EntryFn<'_>) -> Result<bool> {
        let saved = self.write_now(name, change);
        let SavedEntry { changed, stored } = self.note_failure(saved)?;
        // If the request has no other changes, the list of changes stays without an allocation.
        if !self.delta.is_empty() {
            self.delta.committed(name);
        }
        // If no session was stored, a pending login stays pending: an expiry setting in the past, which prevents the
        // creation, is pending too.
        if stored {
            self.id_change = IdChange::Keep;
        }
        Ok(changed)
    }

    fn write_now(&mut self, name: &str, change: EntryFn<'_>) -> Result<SavedEntry> {
        let now = self.context.store.now();
        match self.load()?.map(|current| current.token.clone()) {
            Some(token) => self.merge_now(&token, name, change, now),
            None => match self.moved_token_if_login_pending("update an entry of session")? {
                Some(token) => self.merge_now(&token, name, change, now),
                None => self.create_now(name, change, now),
            },
        }
    }

    /// Changes one entry of a session that was stored when the request read it.
    fn merge_now(
        &mut self,
        token: &Token,
        name: &str,
        change: EntryFn<'_>,
        now: SystemTime,
    ) -> Result<SavedEntry> {
        let (mut changed, mut logged_in) = (false, false);
        let saved = self.change_live(token, now, &mut |record| {
            logged_in = self.log_in(record, now)?;
            changed = self.change_entry(name, record, change)?;
            Ok(if changed || logged_in { Verdict::Write } else { Verdict::Keep })
        })?;
        let Some(saved) = saved else {
            self.error_unless_login_pending("update an entry of session")?;
            return self.create_now(name, change, now);
        };
        self.apply_saved(saved, now, logged_in);
        Ok(SavedEntry { changed, stored: true })
    }

    /// Changes one entry of a session that is not stored. This creates the session.
    fn create_now(&mut self, name: &str, change: EntryFn<'_>, now: SystemTime) -> Result<SavedEntry> {
        let mut record = self.new_record(now)?;
        let changed = self.change_entry(name, &mut record, change)?;
        Ok(SavedEntry { changed, stored: self.store_new(record, now)? })
    }

    /// Applies to a record the changes that the request has made to the entry, and then `change`.
    fn change_entry(&self, name: &str, record: &mut Record, change: EntryFn<'_>) -> Result<bool> {
        let before = record.clone();
        let stored = before.entries().get(name);
        let merged = self.delta.merged(name, stored)?;
        let value = run_program(|| change(merged.as_ref().map(Merged::as_ref)))?;
        let value = value.as_ref().map(ValueRef::from);
        let changed = value != stored;
        if changed {
            record.edit(&[(name, value)])?;
        }
        Ok(changed)
    }
}
