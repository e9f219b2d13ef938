//! What a scan of a store finds: pages of sessions by state, and their counts.
use crate::error::{Error, ErrorKind, Result};
use crate::id::PublicId;
use crate::store::{Live, Moved};

/// Some of the sessions of a store, as [`scan`](super::Admin::scan) reads them.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ScanPage {
    /// The sessions, and the moved ids. A store of files, and a database, have them in the order of their ids.
    pub sessions: Vec<Scanned>,
    /// Sessions and directories that could not be read.
    pub failures: Vec<Error>,
    /// The beginning of the next page; `None` if this is the last one.
    pub next: Option<Cursor>,
}

impl ScanPage {
    /// A page, for implementors of [`Admin`](super::Admin).
    ///
    /// ```
    /// use sessile::admin::ScanPage;
    /// assert!(ScanPage::new(vec![], None).next.is_none());
    /// ```
    #[must_use]
    pub fn new(sessions: Vec<Scanned>, next: Option<Cursor>) -> Self {
        Self { sessions, failures: Vec::new(), next }
    }
}

/// A session as a scan has found it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Scanned {
    /// A session.
    Live(Live),
    /// A session whose deadline is reached.
    Expired(Live),
    /// A session that a cut-off has ended ([`delete_of`](crate::Store::delete_of),
    /// [`delete_all`](crate::Store::delete_all)); a sweep removes it.
    CutOff(Live),
    /// An id that a rotation or a login has moved.
    Moved(Moved),
    /// A record that fails its checks.
    Damaged(PublicId),
}

impl Scanned {
    /// The public id.
    ///
    /// ```
    /// use sessile::{SessionId, admin::Scanned};
    /// let id = SessionId::random()?.public_id();
    /// assert_eq!(Scanned::Damaged(id).id(), id);
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn id(&self) -> PublicId {
        match self {
            Self::Live(live) | Self::Expired(live) | Self::CutOff(live) => live.id,
            Self::Moved(moved) => moved.id,
            Self::Damaged(id) => *id,
        }
    }
}

/// The place in a store at which a page of a scan begins. Only the store that has made it, or another one of the same
/// kind, can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// The place after an id, for stores that scan in the order of ids.
    ///
    /// ```
    /// use sessile::{SessionId, admin::Cursor};
    /// let id = SessionId::random()?.public_id();
    /// assert_eq!(Cursor::after(&id).to_id()?, id);
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn after(id: &PublicId) -> Self {
        Self(id.to_string())
    }

    /// A place in the words of a store, for implementors of [`Admin`](super::Admin).
    ///
    /// ```
    /// assert_eq!(sessile::admin::Cursor::new("288").as_str(), "288");
    /// ```
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The place in the words of its store.
    ///
    /// ```
    /// assert_eq!(sessile::admin::Cursor::new("288").as_str(), "288");
    /// ```
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id after which the page begins, for stores that scan in the order of ids.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Value`] if the cursor is of a store that scans in another order.
    ///
    /// ```
    /// assert!(sessile::admin::Cursor::new("288").to_id().is_err());
    /// ```
    pub fn to_id(&self) -> Result<PublicId> {
        PublicId::parse(&self.0).ok_or_else(|| {
            Error::new(ErrorKind::Value, "scan a store")
                .with_reason("the cursor is of a store of another kind; begin without one")
        })
    }
}

/// The number of sessions in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateCounts {
    /// Live sessions.
    pub live: u64,
    /// Live sessions with a user, among those.
    pub logged_in: u64,
    /// Sessions whose deadline is reached, and that no sweep has removed yet.
    pub expired: u64,
    /// Sessions that a cut-off has ended, and that no sweep has removed yet.
    pub cut_off: u64,
    /// Ids that a rotation or a login has moved.
    pub moved: u64,
    /// Records that fail their checks.
    pub damaged: u64,
    /// Sessions and directories that could not be read.
    pub failed: u64,
}

impl StateCounts {
    /// Adds the sessions of a page.
    ///
    /// ```
    /// use sessile::{SessionId, admin::{ScanPage, Scanned, StateCounts}};
    /// let mut counts = StateCounts::default();
    /// counts.count(&ScanPage::new(vec![Scanned::Damaged(SessionId::random()?.public_id())], None));
    /// assert_eq!((counts.damaged, counts.live), (1, 0));
    /// # Ok::<(), sessile::Error>(())
    /// ```
    pub fn count(&mut self, page: &ScanPage) {
        for found in &page.sessions {
            match found {
                Scanned::Live(live) => {
                    self.live += 1;
                    self.logged_in += u64::from(live.record.user().is_some());
                }
                Scanned::Expired(_) => self.expired += 1,
                Scanned::CutOff(_) => self.cut_off += 1,
                Scanned::Moved(_) => self.moved += 1,
                Scanned::Damaged(_) => self.damaged += 1,
            }
        }
        self.failed += page.failures.len() as u64;
    }
}
