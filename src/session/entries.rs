//! Access to a session's entries. A read sees the earlier changes of the same request. A change stays in memory until
//! the session is saved.
use super::Session;
use crate::contained::contained;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;
use crate::value::{Value, ValueRef};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest entry name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// The name of the test cookie's entry.
const TEST_COOKIE: &str = "_test";

impl Session {
    /// Reads an entry; `None` if there is none. Another request may change the entry before this request is saved. A
    /// change that depends on the value belongs in [`update`](Self::update) or [`update_now`](Self::update_now).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Type`] if the entry holds another type; the error names the entry, the path inside it and the
    /// missing or expected part: see [changing your types](crate::value#changing-your-types).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// session.insert("theme", "dark")?;
    /// assert_eq!(session.get::<String>("theme")?.as_deref(), Some("dark"));
    /// assert_eq!(session.get::<String>("language")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        check_name(name)?;
        self.view(name)?.map(|value| read(name, value)).transpose()
    }

    /// Sets an entry. Setting an entry to its current value changes nothing. If two requests set it, the later save
    /// wins; a value that depends on the old one belongs in [`update`](Self::update).
    ///
    /// The value is stored as JSON has it: `Some(None)` reads back as `None`, see [`Value::new`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Value`] if the value cannot be stored or nests too deeply, see [`Value::new`];
    /// [`ErrorKind::TooLarge`] if the value alone exceeds the store's limit for a session.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// session.insert("theme", "dark")?;
    /// session.insert("cart", vec!["apple", "bread"])?; // any type that serde knows
    /// # assert_eq!(session.get::<Vec<String>>("cart")?.map(|cart| cart.len()), Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn insert<T: Serialize>(&mut self, name: &str, value: T) -> Result<()> {
        check_name(name)?;
        self.put(name, &value)
    }

    /// Removes an entry. Returns whether it existed.
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
    /// session.insert("theme", "dark")?;
    /// assert!(session.remove("theme")?);
    /// assert!(!session.remove("theme")?, "there is none any more");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove(&mut self, name: &str) -> Result<bool> {
        check_name(name)?;
        self.discard(name)
    }

    /// Reads an entry and removes it when the session is saved. Not atomic between requests: two simultaneous requests
    /// both get it. An entry that must be taken only once (a coupon, a one-time token) needs
    /// [`take_now`](Self::take_now).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Type`] if the entry holds another type; it is then not removed.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// session.insert("notice", "your order is on its way")?;
    /// let notice: Option<String> = session.take("notice")?;
    /// assert_eq!(notice.as_deref(), Some("your order is on its way"));
    /// assert!(!session.contains("notice")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "pop")]
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>> {
        let value = self.get(name)?;
        if value.is_some() {
            self.remove(name)?;
        }
        Ok(value)
    }

    /// Reads an entry, or sets it to `value` if there is none. Not atomic between requests: two simultaneous requests
    /// each get their own value, and the later save wins. If all must agree, use
    /// [`get_or_insert_now`](Self::get_or_insert_now).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Type`] if the entry holds another type.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// let language = session.get_or_insert("language", "en".to_owned())?;
    /// assert_eq!(language, "en");
    /// assert_eq!(session.get_or_insert("language", "fr".to_owned())?, "en");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "setdefault")]
    pub fn get_or_insert<T: Serialize + DeserializeOwned>(&mut self, name: &str, value: T) -> Result<T> {
        if let Some(value) = self.get(name)? {
            return Ok(value);
        }
        self.insert(name, &value)?;
        Ok(value)
    }

    /// Changes an entry (its type's default, if there is none) with a function. The function runs now, on the handler's
    /// copy, and again when the session is saved, on the value that is stored then, so concurrent updates all count.
    ///
    /// The function is kept until the save, so it must own its captures (`to_owned()`, `move`) and be `Clone`.
    ///
    /// Returns the changed copy, a *preview*. If the program needs the stored value (a counter that decides something),
    /// use [`update_now`](Self::update_now).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Type`] if the entry holds another type, [`ErrorKind::Panicked`] if the function panics, now or at
    /// the save. Then nothing is changed, or saved.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// let add = |cart: &mut Vec<String>| cart.push("apple".into());
    /// let preview = session.update("cart", add)?;
    /// assert_eq!(preview, ["apple"]);
    /// session.save()?; // `add` runs again, on the cart that is stored by now
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn update<T, F>(&mut self, name: &str, change: F) -> Result<T>
    where
        T: Default + Serialize + DeserializeOwned,
        F: FnOnce(&mut T) + Clone + Send + 'static,
    {
        check_name(name)?;
        self.update_entry(name, change)
    }

    /// Changes an entry, which may have a reserved name, as [`update`](Self::update) does.
    pub(super) fn update_entry<T, F>(&mut self, name: &str, change: F) -> Result<T>
    where
        T: Default + Serialize + DeserializeOwned,
        F: FnOnce(&mut T) + Clone + Send + 'static,
    {
        let copy = run_program(|| Ok(change.clone()))?;
        let (stored, preview) = changed(name, self.view(name)?, copy, |value| value)?;
        let entry = name.to_owned();
        let function = move |stored: Option<ValueRef<'_>>| {
            let copy = run_program(|| Ok(change.clone()))?;
            Ok(changed(&entry, stored, copy, drop::<T>)?.0)
        };
        self.check_size(name, &stored)?;
        self.delta.update(name, stored, Box::new(function));
        self.modified = true;
        Ok(preview)
    }

    /// Whether there is an entry of this name.
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
    /// session.insert("theme", "dark")?;
    /// assert!(session.contains("theme")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "has_key")]
    pub fn contains(&self, name: &str) -> Result<bool> {
        check_name(name)?;
        Ok(self.view(name)?.is_some())
    }

    /// The names of all entries, in order.
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
    /// session.insert("theme", "dark")?;
    /// session.insert("language", "en")?;
    /// let mut names = session.names()?;
    /// names.sort();
    /// assert_eq!(names, ["language", "theme"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "keys")]
    pub fn names(&self) -> Result<Vec<String>> {
        let names = self.delta.names(self.of_this_user(self.load()?).map(Record::entries));
        Ok(names.into_iter().filter(|name| !name.starts_with('_')).collect())
    }

    /// All entries, name and value, in the order of their names. For pages and logs; a program that knows a name uses
    /// [`get`](Self::get).
    ///
    /// # Errors
    ///
    /// See [`Session`].
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// # let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// session.insert("lang", "en")?;
    /// session.insert("visits", 3)?;
    /// let shown: Vec<_> = session.entries()?.iter().map(|(name, value)| Ok(format!("{name}={}", value.to_json()?)))
    ///     .collect::<sessile::Result<_>>()?;
    /// assert_eq!(shown, [r#"lang="en""#, "visits=3"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "items")]
    pub fn entries(&self) -> Result<Vec<(String, Value)>> {
        let names = self.names()?;
        names.into_iter().filter_map(|name| self.with_value(name).transpose()).collect()
    }

    /// Whether there are no entries.
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
    /// assert!(session.is_empty()?);
    /// session.insert("theme", "dark")?;
    /// assert!(!session.is_empty()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.names()?.is_empty())
    }

    /// Drops all entries and keeps the id. Does not load.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// session.insert("theme", "dark")?;
    /// session.clear();
    /// assert!(session.is_empty()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn clear(&mut self) {
        self.accessed.set(true);
        self.modified = true;
        self.delta.clear();
    }

    /// Sets an entry that the next request can look for, which shows whether the browser accepts cookies.
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
    /// session.set_test_cookie()?; // with the page that has the login form
    /// # session.save()?;
    /// # let mut session = sessions.session(session.token()?);
    /// if session.test_cookie_worked()? {
    ///     session.delete_test_cookie()?; // with the request that sends the form
    /// }
    /// # assert!(!session.test_cookie_worked()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_test_cookie(&mut self) -> Result<()> {
        self.put(TEST_COOKIE, &true)
    }

    /// Whether the test cookie of an earlier request came back.
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
    /// assert!(!session.test_cookie_worked()?);
    /// session.set_test_cookie()?;
    /// session.save()?;
    /// let next = sessions.session(session.token()?); // the browser's next request, with its cookie
    /// assert!(next.test_cookie_worked()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn test_cookie_worked(&self) -> Result<bool> {
        Ok(self.view(TEST_COOKIE)?.is_some())
    }

    /// Removes the test cookie.
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
    /// session.set_test_cookie()?;
    /// session.delete_test_cookie()?;
    /// assert!(!session.test_cookie_worked()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete_test_cookie(&mut self) -> Result<()> {
        self.discard(TEST_COOKIE).map(drop)
    }

    /// The value of an entry as the handler sees it, with the changes of this request. Loads the session.
    pub(super) fn view(&self, name: &str) -> Result<Option<ValueRef<'_>>> {
        let stored = self.of_this_user(self.load()?);
        Ok(self.delta.view(name, stored.and_then(|record| record.entries().get(name))))
    }

    /// The name and the value of an entry as the handler sees it.
    fn with_value(&self, name: String) -> Result<Option<(String, Value)>> {
        Ok(self.view(&name)?.map(ValueRef::to_value).map(|value| (name, value)))
    }

    /// Refuses a value that no record has room for now, rather than at the save. A value that is no larger than all
    /// stored entries together is left to the store: the limit may have been lowered since, and then refuses only
    /// growth.
    fn check_size(&self, name: &str, value: &Value) -> Result<()> {
        let bytes = value.as_bytes().len();
        let Some(max) = self.context.store.record_bytes_max().filter(|max| bytes > *max) else {
            return Ok(());
        };
        let stored = self.of_this_user(self.load()?).map_or(0, |record| record.entries().value_bytes());
        if stored >= bytes {
            return Ok(());
        }
        let reason = format!("the value alone has {bytes} bytes, where a session has at most {max}");
        Err(Error::new(ErrorKind::TooLarge, format!("set entry `{name}`")).with_reason(reason))
    }

    fn put<T: Serialize>(&mut self, name: &str, value: &T) -> Result<()> {
        let value = store(name, value)?;
        self.check_size(name, &value)?;
        // If this request has changed the entry before, the value that the save will find is unknown. So setting the
        // entry counts as a change.
        if self.view(name)? != Some((&value).into()) || self.delta.touches(name) {
            self.delta.insert(name, value);
            self.modified = true;
        }
        Ok(())
    }

    fn discard(&mut self, name: &str) -> Result<bool> {
        let existed = self.view(name)?.is_some();
        if existed {
            self.delta.remove(name);
            self.modified = true;
        }
        Ok(existed)
    }
}

pub(super) fn check_name(name: &str) -> Result<()> {
    let refuse = |reason: String| Err(Error::new(ErrorKind::Name, "use an entry name").with_reason(reason));
    match name.len() {
        0 => refuse("it is empty".into()),
        len if len > NAME_BYTES_MAX => refuse(format!("it has {len} bytes, the limit is {NAME_BYTES_MAX}")),
        // Names are quoted in errors, which are written to logs.
        _ if has_control(name) => refuse("it has a control character".into()),
        _ if name.starts_with('_') => refuse(format!("`{name}` is reserved, as all that begin with `_`")),
        _ => Ok(()),
    }
}

/// Whether a name has a control character. Most names have no byte with which one begins (beyond ASCII, that is 0xc2),
/// so their characters are not decoded.
fn has_control(name: &str) -> bool {
    name.bytes().any(|byte| byte.is_ascii_control() || byte == 0xc2) && name.contains(char::is_control)
}

/// Runs a function of the program, and code of its types, perhaps while a session's lock is held. A panic becomes an
/// error, so that nothing is written and the lock is released.
pub(super) fn run_program<R>(run: impl FnOnce() -> Result<R>) -> Result<R> {
    contained(run).unwrap_or_else(|_| {
        let reason = "the function given for it, or its type's own code, panicked; nothing was saved";
        Err(Error::new(ErrorKind::Panicked, "update an entry of the session").with_reason(reason))
    })
}

/// Applies a function of the program to an entry (its type's default, if there is none). Returns the new value, and the
/// result of `then` on it.
fn changed<T, R>(
    name: &str,
    stored: Option<ValueRef<'_>>,
    change: impl FnOnce(&mut T),
    then: impl FnOnce(T) -> R,
) -> Result<(Value, R)>
where
    T: Default + Serialize + DeserializeOwned,
{
    run_program(|| {
        let mut value: T = stored.map(|value| read(name, value)).transpose()?.unwrap_or_default();
        change(&mut value);
        Ok((store(name, &value)?, then(value)))
    })
}

pub(super) fn read<T: DeserializeOwned>(name: &str, value: ValueRef<'_>) -> Result<T> {
    value.get().map_err(|error| error.with_operation(format!("read entry `{name}`")))
}

pub(super) fn store<T: Serialize>(name: &str, value: &T) -> Result<Value> {
    Value::new(value).map_err(|error| error.with_operation(format!("set entry `{name}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_character_in_a_name_is_found_whichever_it_is() {
        for c in '\0'..=char::MAX {
            assert_eq!(has_control(&format!("a{c}")), c.is_control(), "{c:?}");
        }
    }
}
