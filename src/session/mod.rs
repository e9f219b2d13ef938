//! One visitor's session: a dictionary that loads when it is first read and saves its changes.
//!
//! This module uses the trait [`Store`](crate::store::Store), and depends on no particular store and not on HTTP.
//!
//! ```text
//!             first read                insert, update, remove, clear, set_expiry, login, rotate_id
//!  candidates ──────────► current ────────────────────────────────────────► delta (in memory)
//!  (tokens)     load()    record                                              │ save()
//!                           ▲                                                 ▼
//!                           └──────────────────────────── merged into the newest record, in the store
//! ```
//!
//! - The handler sees the record of the first read with the changes of its request (the delta).
//! - A save merges the delta, entry by entry, into the newest stored record ([`Store::update`], under the lock).
//! - If a session was live at first read and is absent at save, the save fails with [`ErrorKind::Gone`], and nothing is
//!   resurrected. A save fails in the same way if a rotation or a login has moved the request's token.
//! - A login is not lost that way: if rotations have moved its session to another id, it moves that one, and if there
//!   is none, it creates a new session. A destruction, too, ends the session under its present id.
//!
//! Each operation has a file: `found` (the first read), `entries` (reading and changing them), `delta` (their changes),
//! `save`, `now` (changes that are made at once), `rotate` (login and a new id), `step_up` (the time and the device of
//! the login), `expiry`, `destroy`; `pending_cookie` is for the response, `context` has the parts that all sessions
//! share.
//!
//! [`Store::update`]: crate::store::Store::update
//! [`ErrorKind::Gone`]: crate::ErrorKind::Gone
mod candidates;
mod context;
mod delta;
mod destroy;
mod entries;
mod expiry;
mod forms;
mod found;
mod now;
mod pending_cookie;
mod rotate;
mod save;
mod step_up;

pub(crate) use context::Context;
pub use destroy::Destroyed;
pub use entries::NAME_BYTES_MAX;
pub use forms::FLASH_MAX;
pub(crate) use pending_cookie::PendingCookie;
pub use rotate::USER_BYTES_MAX;

use crate::error::Result;
use crate::event::Event;
use crate::id::{PublicId, Token};
use crate::record::Expiry;
use crate::store::Durability;
use candidates::Candidates;
use delta::LazyDelta;
use found::Found;
use rotate::IdChange;
use std::cell::{Cell, OnceCell};
use std::fmt;
use std::sync::Arc;

/// The number of tokens of a request that are read, at most, valid or not. Further ones are ignored. A browser sends
/// one cookie of this name, or a few (one for each path and domain). 64 leave room for those and bound the work.
const CANDIDATES_MAX: u8 = 64;

/// One visitor's session. Owned and `Send`; made without I/O.
///
/// Reads take `&self` and load at first use. Writes stay in memory until [`save`](Self::save) (web programs: until the
/// adapter or [`Visit::finish`](crate::http::Visit::finish) saves). Four methods change the store at once:
/// [`update_now`](Self::update_now), [`take_now`](Self::take_now), [`get_or_insert_now`](Self::get_or_insert_now) and
/// [`destroy`](Self::destroy). Dropping a session saves nothing.
///
/// # Errors
///
/// Every method that loads fails if the storage does. Such a failure is not remembered, so the next call tries again.
/// Every method that takes a name refuses a name that is empty, longer than 128 bytes, has a control character or
/// begins with `_`, with [`ErrorKind::Name`](crate::ErrorKind::Name).
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one request, each set in one place"
)]
pub struct Session {
    context: Arc<Context>,
    /// The valid tokens that the request has sent, until a `destroy` clears them. Only the first few are looked up.
    candidates: Candidates,
    /// The number of tokens that were read, valid or not.
    candidates_read: u8,
    /// The session that the tokens lead to; empty before the session is first used.
    found: OnceCell<Found>,
    malformed_observed: Cell<bool>,
    /// Whether the response depends on the session.
    accessed: Cell<bool>,
    /// Whether the request used the session in a way that counts as a read for [`Renewal`](crate::Renewal).
    read: Cell<bool>,
    /// Whether the request is passive: it moves no deadline.
    passive: bool,
    modified: bool,
    /// Whether this request has written to the store. [`Renewal::OnSave`](crate::Renewal::OnSave) asks for it.
    saved: bool,
    /// Whether a save of this request had a lower durability than [`Durability::PowerSafe`].
    saved_relaxed: bool,
    /// Whether the request has sent a valid token, even if a `destroy` has cleared it since.
    presented_token: bool,
    /// Whether the response removes the cookie, unless a new session is stored.
    removes_cookie: bool,
    /// The tokens for which the last attempt to destroy the session failed, perhaps after their sessions had ended.
    failed_ends: Vec<Token>,
    /// Whether a save failed in this request, even if a later one succeeded. No cache may then keep the response.
    save_failed: bool,
    delta: LazyDelta,
    expiry: Option<Expiry>,
    id_change: IdChange,
    durability: Durability,
    cookie: PendingCookie,
}

impl Session {
    /// A new session. [`present`](Self::present) passes the tokens of its request to it.
    #[inline]
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            presented_token: false,
            candidates: Candidates::default(),
            candidates_read: 0,
            found: OnceCell::new(),
            malformed_observed: Cell::new(false),
            accessed: Cell::new(false),
            read: Cell::new(false),
            passive: false,
            modified: false,
            saved: false,
            saved_relaxed: false,
            removes_cookie: false,
            failed_ends: Vec::new(),
            save_failed: false,
            delta: LazyDelta::default(),
            expiry: None,
            id_change: IdChange::Keep,
            durability: Durability::OfStore,
            cookie: PendingCookie::Nothing,
        }
    }

    /// Passes the next token of the request to the session. The first one that has a live session determines the
    /// session. Does no I/O. `None` stands for a value that no store can have as a token. Returns whether further
    /// tokens are read.
    pub(crate) fn present(&mut self, candidate: Option<Token>) -> bool {
        match candidate {
            Some(token) if self.context.store.is_well_formed(&token) => {
                self.candidates.insert(token);
                self.presented_token = true;
            }
            _ => self.observe_malformed(),
        }
        self.candidates_read += 1;
        self.candidates_read < CANDIDATES_MAX
    }

    /// Whether anything was read or written.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
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
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
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

    /// The public id of the session, for logs; `None` if the session is not stored.
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
        Ok(self.load()?.map(|current| current.id))
    }

    /// The secret token, for programs that do not carry it in this crate's cookie; `None` if the session is not stored.
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
    /// session.save()?;
    /// let token = session.token()?; // a secret: it opens the session
    /// let again = sessions.session(token);
    /// assert_eq!(again.get::<String>("theme")?.as_deref(), Some("dark"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn token(&self) -> Result<Option<Token>> {
        Ok(self.load()?.map(|current| current.token.clone()))
    }

    /// Reports an invalid token once for each request, because a header of megabytes must not fill a log.
    fn observe_malformed(&self) {
        if !self.malformed_observed.replace(true) {
            self.context.observe(&Event::Malformed);
        }
    }

    /// Reports an event to the program's observer.
    pub(crate) fn observe(&self, event: &Event<'_>) {
        self.context.observe(event);
    }

    /// Whether the request has loaded a live session, or created one.
    pub(crate) fn is_live(&self) -> bool {
        self.current().is_some()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.current().map(|current| current.id);
        f.debug_struct("Session")
            .field("id", &id)
            .field("accessed", &self.accessed.get())
            .field("modified", &self.modified)
            .finish_non_exhaustive()
    }
}
