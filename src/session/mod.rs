//! One visitor's session: a dictionary that loads when it is first read and saves what was changed.
//!
//! Knows the [`Store`](crate::store::Store) trait and no storage, no HTTP.
//!
//! ```text
//!            first read                insert, update, remove, clear, set_expiry, login, rotate_id
//!  brought ────────────► found ──────────────────────────────────────────► delta (in memory)
//!  tokens    load()      record                                              │ save()
//!                          ▲                                                 ▼
//!                          └───────────────────────────── merged into the newest record, in the store
//! ```
//!
//! - What the handler sees is the record found at first read with the delta on top.
//! - What is saved is the delta, merged by entry into whatever is stored then ([`Store::update`], under the lock).
//! - A session that was live at first read and is absent at save is [`ErrorKind::Gone`]; nothing is resurrected. A login is
//!   never lost so: it makes a new session.
//!
//! [`Store::update`]: crate::store::Store::update
mod delta;
mod end;
mod manager;
mod now;
mod save;

pub use end::Destroyed;
pub use manager::SessionManager;
pub(crate) use save::CookieNews;

use crate::contained::contained;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::{PublicId, Token};
use crate::lifetime::Expiry;
use crate::record::{Entries, Record};
use crate::store::{Absent, Durability, Lookup};
use crate::value::Value;
use delta::Delta;
use manager::LOOKED_UP_MAX;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::{Cell, OnceCell};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Longest entry name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest user, in bytes.
pub const USER_BYTES_MAX: usize = 256;
/// Where the test cookie's entry is kept.
const TEST_COOKIE: &str = "_test";

/// One visitor's session. Owned and `Send`; made without I/O.
///
/// Reads take `&self` and load at first use. Writes stay in memory until [`save`](Self::save) (web programs: until
/// the adapter or [`Visit::finish`](crate::http::Visit::finish) saves), except for those that say "at once":
/// [`update_now`](Self::update_now), [`take_now`](Self::take_now), [`get_or_insert_now`](Self::get_or_insert_now) and
/// [`destroy`](Self::destroy). Dropping a session saves nothing.
///
/// # Errors
///
/// Every method that loads can fail with the storage's trouble; such a failure is not remembered, so the next call
/// tries again. Every method that takes a name refuses one that is empty, longer than 128 bytes, has a control character
/// or begins with `_` with [`ErrorKind::Name`].
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one request, each set in one place"
)]
pub struct Session {
    manager: SessionManager,
    /// Well-formed tokens of the request, not yet forgotten; if one is live, the first few have it. See [`manager`].
    brought: Vec<Token>,
    found: OnceCell<Option<Held>>,
    told_malformed: Cell<bool>,
    accessed: Cell<bool>,
    modified: bool,
    /// Whether this request wrote to the store: what [`Renewal::OnSave`](crate::Renewal::OnSave) asks.
    saved: bool,
    /// Whether it did so with less than [`Durability::PowerSafe`].
    saved_relaxed: bool,
    /// Whether the request brought a well-formed token, be it forgotten since.
    came_with_token: bool,
    /// Whether the response removes the cookie, unless a new session is stored.
    removes_cookie: bool,
    /// Whether an attempt to end the session failed, perhaps after the deed.
    end_failed: bool,
    /// Whether a save failed, whatever succeeded since: then no cache may keep the response.
    save_failed: bool,
    delta: Delta,
    expiry: Option<Expiry>,
    transfer: Transfer,
    durability: Durability,
    cookie: CookieNews,
}

/// A live session as it was found or last saved.
struct Held {
    token: Token,
    record: Arc<Record>,
    id: PublicId,
}

/// Whether the next save moves the session to a new id.
#[derive(PartialEq)]
enum Transfer {
    Stay,
    Rotate,
    Login(String),
}

impl Session {
    fn new(manager: SessionManager, brought: Vec<Token>) -> Self {
        Self {
            manager,
            came_with_token: !brought.is_empty(),
            brought,
            found: OnceCell::new(),
            told_malformed: Cell::new(false),
            accessed: Cell::new(false),
            modified: false,
            saved: false,
            saved_relaxed: false,
            removes_cookie: false,
            end_failed: false,
            save_failed: false,
            delta: Delta::default(),
            expiry: None,
            transfer: Transfer::Stay,
            durability: Durability::OfStore,
            cookie: CookieNews::Nothing,
        }
    }

    /// Reads an entry; `None` if there is none. Another request may change it before this one is saved: what depends on the
    /// value it has belongs in [`update`](Self::update) or [`update_now`](Self::update_now).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Type`], naming the entry, the path inside it and what was missing or expected there, if it holds
    /// something else: see [changing your types](crate::value#changing-your-types).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// session.insert("theme", "dark")?;
    /// assert_eq!(session.get::<String>("theme")?.as_deref(), Some("dark"));
    /// assert_eq!(session.get::<String>("language")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        check_name(name)?;
        self.view(name)?.map(|value| read(name, value)).transpose()
    }

    /// Sets an entry. Setting it to the value it has is a read. Of two requests that set it, the one that is saved later wins:
    /// a value that depends on the old one belongs in [`update`](Self::update).
    ///
    /// The value is stored as JSON has it: `Some(None)` reads back as `None`, see [`Value::new`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Value`] if the value cannot be stored or nests too deeply, see [`Value::new`]; [`ErrorKind::TooLarge`] if
    /// it is larger alone than the store lets a session be.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// session.insert("theme", "dark")?;
    /// session.insert("cart", vec!["apple", "bread"])?; // any type that serde knows
    /// # assert_eq!(session.get::<Vec<String>>("cart")?.map(|cart| cart.len()), Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn insert<T: Serialize>(&mut self, name: &str, value: T) -> Result<()> {
        check_name(name)?;
        self.put(name, &value)
    }

    /// Removes an entry. Whether there was one.
    ///
    /// # Errors
    ///
    /// See [`Session`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// session.insert("theme", "dark")?;
    /// assert!(session.remove("theme")?);
    /// assert!(!session.remove("theme")?, "there is none any more");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove(&mut self, name: &str) -> Result<bool> {
        check_name(name)?;
        self.discard(name)
    }

    /// Reads an entry and removes it when the session is saved. Not atomic between requests: two of them at the same time both
    /// get it. What must be taken once (a coupon, a one-time token) needs [`take_now`](Self::take_now).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Type`] if it holds something else; it is then not removed.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
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

    /// Reads an entry, or sets it to `value` if there is none. Not atomic between requests: two of them at the same time each
    /// get their own value, and the one that is saved later wins. Where all must agree, use
    /// [`get_or_insert_now`](Self::get_or_insert_now).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Type`] if it holds something else.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
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

    /// Whether there is an entry of this name.
    ///
    /// # Errors
    ///
    /// See [`Session`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
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
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// session.insert("theme", "dark")?;
    /// session.insert("language", "en")?;
    /// let mut names = session.names()?;
    /// names.sort();
    /// assert_eq!(names, ["language", "theme"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "keys")]
    pub fn names(&self) -> Result<Vec<String>> {
        let held = self.load()?;
        let none = Entries::new();
        let names = self.delta.names(held.map_or(&none, |held| &held.record.entries));
        Ok(names.into_iter().filter(|name| !name.starts_with('_')).collect())
    }

    /// All entries, name and value, in the order of their names. For pages and logs of one's own; a program that knows what it
    /// looks for uses [`get`](Self::get).
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
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
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
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
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

    /// Changes an entry (its type's default, if there is none) with a function that runs now, on the handler's copy,
    /// and again when the session is saved, on whatever is stored then: concurrent updates all count.
    ///
    /// What it returns is the handler's copy, a *preview*: for the truth (a counter that decides something), use
    /// [`update_now`](Self::update_now).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Type`] if the entry holds something else, [`ErrorKind::Panicked`] if the function panics: now, or
    /// when it is saved. Then nothing is changed, or saved.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
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
        let copy = run_program(|| Ok(change.clone()))?;
        let (stored, preview) = changed(name, self.view(name)?, copy, |value| value)?;
        let entry = name.to_owned();
        let step = move |stored: Option<&Value>| {
            let copy = run_program(|| Ok(change.clone()))?;
            Ok(changed(&entry, stored, copy, drop::<T>)?.0)
        };
        self.check_size(name, &stored)?;
        self.delta.update(name, stored, Box::new(step));
        self.modified = true;
        Ok(preview)
    }

    /// Whether anything was read or written.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// assert!(!session.accessed());
    /// session.get::<String>("theme")?;
    /// assert!(session.accessed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn accessed(&self) -> bool {
        self.accessed.get()
    }

    /// Whether anything was changed.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// session.get::<String>("theme")?;
    /// assert!(!session.modified());
    /// session.insert("theme", "dark")?;
    /// assert!(session.modified());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn modified(&self) -> bool {
        self.modified
    }

    /// Gives the session a new id when it is saved, or by the next [`update_now`](Self::update_now), and ends the old one in
    /// the same step; the entries stay. For every change of privilege. Without effect on a session that is not stored.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// session.insert("theme", "dark")?;
    /// session.save()?;
    /// let old = session.token()?;
    /// session.rotate_id();
    /// session.save()?;
    /// assert_ne!(session.token()?, old);
    /// assert!(manager.open(old).is_empty()?, "the old id is dead");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "cycle_key")]
    pub fn rotate_id(&mut self) {
        self.accessed.set(true);
        if self.transfer == Transfer::Stay {
            self.transfer = Transfer::Rotate;
        }
    }

    /// Records who is logged in. When the session is saved, or by the next [`update_now`](Self::update_now), it gets a new
    /// id, the absolute limit starts anew, and if another user was logged in, that user's entries and expiry setting are
    /// dropped.
    ///
    /// If another request has ended or moved the session meanwhile (a login button pressed twice), the login is not refused:
    /// it makes a new session from what this request had loaded, unless that was another user's, and what it changed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Value`] if `user` is empty or longer than 256 bytes.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
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
        self.transfer = Transfer::Login(user);
        Ok(())
    }

    /// Who is logged in.
    ///
    /// # Errors
    ///
    /// See [`Session`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// assert_eq!(session.user()?, None);
    /// session.login("ada")?;
    /// assert_eq!(session.user()?.as_deref(), Some("ada"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn user(&self) -> Result<Option<String>> {
        let held = self.load()?;
        Ok(match &self.transfer {
            Transfer::Login(user) => Some(user.clone()),
            Transfer::Stay | Transfer::Rotate => held.and_then(|held| held.record.user.clone()),
        })
    }

    /// Sets how this session expires, from the next save on. A past instant or a zero duration ends it then.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
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
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// use sessile::Expiry;
    /// assert_eq!(session.expiry()?, Expiry::Default);
    /// session.set_expiry(Expiry::BrowserClose);
    /// assert_eq!(session.expiry()?, Expiry::BrowserClose);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "get_expire_at_browser_close")]
    pub fn expiry(&self) -> Result<Expiry> {
        let held = self.load()?;
        Ok(self.expiry.or(held.map(|held| held.record.expiry)).unwrap_or_default())
    }

    /// When this session expires: as it is stored, or earlier if the policy has become stricter since; for a new session or a new setting, as a save now would store it.
    ///
    /// # Errors
    ///
    /// See [`Session`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// let in_an_hour = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    /// assert!(session.deadline()? > in_an_hour, "the default is two weeks");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "get_expiry_date")]
    pub fn deadline(&self) -> Result<SystemTime> {
        self.deadline_at(self.manager.store().now())
    }

    fn deadline_at(&self, now: SystemTime) -> Result<SystemTime> {
        Ok(match (self.load()?, self.expiry) {
            (Some(held), expiry) if expiry.is_none_or(|expiry| expiry == held.record.expiry) => {
                self.manager.lifetime().current_deadline(&held.record)
            }
            (held, expiry) => {
                let created = held.map_or(now, |held| held.record.created);
                self.manager.lifetime().deadline(expiry.unwrap_or_default(), created, now)
            }
        })
    }

    /// How long until [`deadline`](Self::deadline); zero if it has passed.
    ///
    /// # Errors
    ///
    /// See [`Session`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// assert_eq!(session.remaining()?.as_secs(), 14 * 24 * 3600);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "get_expiry_age")]
    pub fn remaining(&self) -> Result<Duration> {
        let now = self.manager.store().now();
        Ok(self.deadline_at(now)?.duration_since(now).unwrap_or_default())
    }

    /// Makes every save of this session from here on [`Durability::PowerSafe`]. What this request saved before becomes
    /// so with the next save, also if nothing was changed since. On a store that is power-safe already it costs nothing.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// session.insert("order", 17)?;
    /// session.power_safe();
    /// session.save()?; // the order survives a power cut from here on
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn power_safe(&mut self) {
        self.durability = Durability::PowerSafe;
    }

    /// The digest of the session's id, for logs; `None` if it is not stored.
    ///
    /// # Errors
    ///
    /// See [`Session`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// assert_eq!(session.public_id()?, None);
    /// session.insert("theme", "dark")?;
    /// session.save()?;
    /// if let Some(id) = session.public_id()? {
    ///     println!("saved session {id}"); // no secret: it is no cookie
    /// }
    /// # assert!(session.public_id()?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "session_key")]
    pub fn public_id(&self) -> Result<Option<PublicId>> {
        Ok(self.load()?.map(|held| held.id))
    }

    /// The secret token, for programs that carry it by other means than our cookie; `None` if it is not stored.
    ///
    /// # Errors
    ///
    /// See [`Session`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// session.insert("theme", "dark")?;
    /// session.save()?;
    /// let token = session.token()?; // a secret: it opens the session
    /// let again = manager.open(token);
    /// assert_eq!(again.get::<String>("theme")?.as_deref(), Some("dark"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn token(&self) -> Result<Option<Token>> {
        Ok(self.load()?.map(|held| held.token.clone()))
    }

    /// Sets an entry that the next request can look for, to learn whether the browser accepts cookies.
    ///
    /// # Errors
    ///
    /// See [`Session`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// session.set_test_cookie()?; // with the page that has the login form
    /// # session.save()?;
    /// # let mut session = manager.open(session.token()?);
    /// if session.test_cookie_worked()? {
    ///     session.delete_test_cookie()?; // with the request that brings the form
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
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// assert!(!session.test_cookie_worked()?);
    /// session.set_test_cookie()?;
    /// session.save()?;
    /// let next = manager.open(session.token()?); // the browser's next request, with its cookie
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
    /// # let manager = sessile::SessionManager::new(std::sync::Arc::new(store));
    /// # let mut session = manager.open([]);
    /// session.set_test_cookie()?;
    /// session.delete_test_cookie()?;
    /// assert!(!session.test_cookie_worked()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete_test_cookie(&mut self) -> Result<()> {
        self.discard(TEST_COOKIE).map(drop)
    }

    /// The handler's view of an entry; loads.
    fn view(&self, name: &str) -> Result<Option<&Value>> {
        let held = self.load()?;
        Ok(self.delta.view(name, held.and_then(|held| held.record.entries.get(name))))
    }

    /// An entry of the handler's view, with its name.
    fn with_value(&self, name: String) -> Result<Option<(String, Value)>> {
        Ok(self.view(&name)?.cloned().map(|value| (name, value)))
    }

    /// Refuses a value that no record has room for, now rather than at the save. One that is no larger than all that was
    /// stored is left to the store: the limit may have been lowered since, and refuses only growth.
    fn check_size(&self, name: &str, value: &Value) -> Result<()> {
        let bytes = value.as_bytes().len();
        let Some(max) = self.manager.store().record_bytes_max().filter(|max| bytes > *max) else {
            return Ok(());
        };
        let stored = self.load()?.map_or(0, |held| {
            held.record.entries.values().map(|value| value.as_bytes().len()).sum::<usize>()
        });
        if stored >= bytes {
            return Ok(());
        }
        let reason = format!("the value alone has {bytes} bytes, where a session has at most {max}");
        Err(Error::new(ErrorKind::TooLarge, format!("set entry `{name}`")).with_reason(reason))
    }

    fn put<T: Serialize>(&mut self, name: &str, value: &T) -> Result<()> {
        let value = store(name, value)?;
        self.check_size(name, &value)?;
        // Changed in this request already: then what is stored meanwhile may be anything, and setting it counts.
        if self.view(name)? != Some(&value) || self.delta.touches(name) {
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

    /// The live session among those brought, if there is one. Looks once; failures are not remembered.
    fn load(&self) -> Result<Option<&Held>> {
        self.accessed.set(true);
        if self.found.get().is_none() {
            let found = self.find()?;
            // `find` calls the store and the observer, neither of which has this session.
            let _ = self.found.set(found);
        }
        Ok(self.found.get().and_then(Option::as_ref))
    }

    fn find(&self) -> Result<Option<Held>> {
        for token in self.brought.iter().take(LOOKED_UP_MAX) {
            let store = self.manager.store();
            match store.load(token)? {
                Lookup::Live(live) if !self.manager.lifetime().is_over(&live.record, store.now()) => {
                    return Ok(Some(Held { token: token.clone(), record: live.record, id: live.id }));
                }
                Lookup::Live(live) => self.manager.observe(&Event::Expired(live.id)),
                Lookup::Absent(Absent::Expired(id)) => self.manager.observe(&Event::Expired(id)),
                Lookup::Absent(Absent::Malformed) => self.observe_malformed(),
                Lookup::Absent(Absent::NotFound(id)) => {
                    self.manager.observe(&Event::NotFound(id));
                }
                Lookup::Absent(Absent::Damaged(id)) => {
                    self.manager.observe(&Event::Damaged(id));
                }
            }
        }
        Ok(None)
    }

    /// Tells that the request brought something malformed, once: a header of megabytes must not fill a log.
    fn observe_malformed(&self) {
        if !self.told_malformed.replace(true) {
            self.manager.observe(&Event::Malformed);
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.found.get().and_then(Option::as_ref).map(|held| held.id);
        f.debug_struct("Session")
            .field("id", &id)
            .field("accessed", &self.accessed.get())
            .field("modified", &self.modified)
            .finish_non_exhaustive()
    }
}

fn check_name(name: &str) -> Result<()> {
    let refuse = |reason: String| Err(Error::new(ErrorKind::Name, "use an entry name").with_reason(reason));
    match name.len() {
        0 => refuse("it is empty".into()),
        len if len > NAME_BYTES_MAX => refuse(format!("it has {len} bytes, the limit is {NAME_BYTES_MAX}")),
        // Names are quoted in errors, hence in logs.
        _ if name.contains(char::is_control) => refuse("it has a control character".into()),
        _ if name.starts_with('_') => refuse(format!("`{name}` is reserved, as all that begin with `_`")),
        _ => Ok(()),
    }
}

/// Runs a function of the program, with its types' code, that may run under a session's lock: its panic is an error, so
/// that nothing is written and the lock is given back.
fn run_program<R>(run: impl FnOnce() -> Result<R>) -> Result<R> {
    contained(run).unwrap_or_else(|_| {
        let reason = "the function given for it, or its type's own code, panicked; nothing was saved";
        Err(Error::new(ErrorKind::Panicked, "update an entry of the session").with_reason(reason))
    })
}

/// An entry (its type's default, if there is none) after a function of the program: as it is stored, and what `then`
/// makes of it.
fn changed<T, R>(
    name: &str,
    stored: Option<&Value>,
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

fn read<T: DeserializeOwned>(name: &str, value: &Value) -> Result<T> {
    value.get().map_err(|error| error.with_act(format!("read entry `{name}`")))
}

fn store<T: Serialize>(name: &str, value: &T) -> Result<Value> {
    Value::new(value).map_err(|error| error.with_act(format!("set entry `{name}`")))
}
