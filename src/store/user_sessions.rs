//! The sessions of one user, in pages.
use super::Live;
use crate::id::PublicId;
use crate::record::Expiry;
use std::time::SystemTime;

/// The part of a list that is asked for.
///
/// ```
/// use sessile::store::Page;
/// let mut page = Page::default(); // the first 100
/// page.limit = 20;
/// # assert!(page.after.is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The last session of the page before; `None` for the first page.
    pub after: Option<PublicId>,
    /// The most sessions that are returned.
    pub limit: usize,
}

/// The first 100.
impl Default for Page {
    fn default() -> Self {
        Self { after: None, limit: 100 }
    }
}

impl Page {
    /// The page that begins after a session; see [`UserSessions::next`].
    ///
    /// ```
    /// use sessile::{PublicId, store::Page};
    /// let id = PublicId::digest(b"a token");
    /// assert_eq!(Page::default().after(id).after, Some(id));
    /// ```
    #[must_use]
    pub fn after(self, id: PublicId) -> Self {
        Self { after: Some(id), ..self }
    }
}

/// A live session of a user, as far as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserSession {
    /// The digest of the session's id. It is no secret and opens no session, so a page can carry it in a form.
    pub id: PublicId,
    /// The time at which the session began; a login counts as a beginning.
    pub created: SystemTime,
    /// The time of the last login; `None` if it was not stored.
    pub last_login: Option<SystemTime>,
    /// The time of the last save or renewal. A lifetime that renews rarely makes it old.
    pub last_seen: SystemTime,
    /// The instant from which on the session is expired.
    pub deadline: SystemTime,
    /// The session's own expiry setting.
    pub expiry: Expiry,
    /// The text that the login stored about the device ([`Session::login_from`](crate::Session::login_from)). It comes
    /// from the visitor, so a page must escape it.
    pub device_note: Option<String>,
}

impl UserSession {
    /// What a list shows of a live session; for implementors of [`Store`](super::Store).
    ///
    /// ```
    /// use sessile::store::UserSession;
    /// use sessile::{Live, PublicId, Record};
    /// use std::time::{Duration, UNIX_EPOCH};
    /// let record = Record::new(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(60)).with_user("ada")?;
    /// let listed = UserSession::of(&Live::new(record, PublicId::digest(b"a token")));
    /// assert_eq!((listed.created, listed.device_note), (UNIX_EPOCH, None));
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn of(live: &Live) -> Self {
        let timing = live.record.timing();
        Self {
            id: live.id,
            created: timing.created,
            last_login: live.record.login().at,
            last_seen: timing.touched,
            deadline: timing.deadline,
            expiry: timing.expiry,
            device_note: live.record.device_note().map(str::to_owned),
        }
    }
}

/// A page of the live sessions of a user, ordered by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserSessions {
    /// The sessions. Each was live, and this user's, when it was read.
    pub sessions: Vec<UserSession>,
    /// Whether no live session of the user is missing from the pages.
    pub complete: bool,
    /// The [`after`](Page::after) of the next page; `None` if this is the last one.
    pub next: Option<PublicId>,
}

impl UserSessions {
    /// A page of these sessions, which are in the order of their ids and begin behind [`Page::after`]; for implementors
    /// of [`Store`](super::Store). Reads one session more than the page has, to tell whether it is the last one.
    ///
    /// # Errors
    ///
    /// The first error among the sessions.
    ///
    /// ```
    /// use sessile::store::{Page, UserSessions};
    /// let page = UserSessions::page(&Page::default(), true, [])?;
    /// assert!(page.complete && page.sessions.is_empty() && page.next.is_none());
    /// # Ok::<(), sessile::Error>(())
    /// ```
    pub fn page(
        page: &Page,
        complete: bool,
        sessions: impl IntoIterator<Item = crate::Result<UserSession>>,
    ) -> crate::Result<Self> {
        let mut of_page = Self { complete, ..Self::default() };
        for session in sessions {
            let session = session?;
            if of_page.sessions.len() == page.limit {
                of_page.next = of_page.sessions.last().map(|last| last.id).or(page.after);
                break;
            }
            of_page.sessions.push(session);
        }
        Ok(of_page)
    }
}
