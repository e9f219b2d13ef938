//! A row: the record of a session with its tags and cut-offs, or the successor of a moved id. This module does no I/O.
use crate::error::Result;
use crate::id::PublicId;
use crate::random;
use crate::record::Record;
use crate::store::Moved;
use crate::sync::Mutex;
use std::time::SystemTime;

/// The row of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A session.
    Session(Row),
    /// An id that a rotation or a login has moved.
    Moved(MovedRow),
}

/// One session as a back end keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// The tag of the last write, and those before it.
    pub tags: Tags,
    /// The numbers of the cut-offs that were there when the session began or its user logged in. A back end keeps them
    /// beside the record; the record's own [`cut_off`](crate::record::Login::cut_off) is 0.
    pub cut_offs: CutOffs,
    /// The record.
    pub record: Record,
}

impl Row {
    /// The row of a record.
    ///
    /// ```
    /// use sessile::rows::{CutOffs, Row, Tags};
    /// use std::time::UNIX_EPOCH;
    /// let row = Row::new(Tags::first(7), CutOffs::default(), sessile::Record::new(UNIX_EPOCH, UNIX_EPOCH));
    /// assert_eq!(row.tags.newest(), 7);
    /// ```
    #[must_use]
    pub fn new(tags: Tags, cut_offs: CutOffs, record: Record) -> Self {
        Self { tags, cut_offs, record }
    }
}

/// The row of an id that a rotation or a login has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MovedRow {
    /// The id to which the session has moved.
    pub successor: PublicId,
    /// The end of the grace period. The row may be removed from then on.
    pub until: SystemTime,
    /// Whether a login has moved it, and not a mere rotation.
    pub by_login: bool,
}

impl MovedRow {
    /// The row of a moved id.
    ///
    /// ```
    /// let successor = sessile::SessionId::random()?.public_id();
    /// let moved = sessile::rows::MovedRow::new(successor, std::time::UNIX_EPOCH, false);
    /// assert_eq!(moved.successor, successor);
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn new(successor: PublicId, until: SystemTime, by_login: bool) -> Self {
        Self { successor, until, by_login }
    }

    /// The part of the row that callers of the store get: all but the successor.
    pub(super) fn to_moved(self, id: PublicId) -> Moved {
        Moved { id, by_login: self.by_login, until: self.until }
    }
}

/// The tags of the last eight writes of a row, the newest first. A tag is 63 random bits, and not zero.
///
/// ```
/// use sessile::rows::Tags;
/// let tags = Tags::first(7).followed_by(9);
/// assert_eq!((tags.newest(), tags.contains(7)), (9, true));
/// assert_eq!(Tags::from_bytes(&tags.to_bytes()), tags);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags([u64; Self::LEN]);

impl Tags {
    /// The number of tags that a row keeps.
    pub const LEN: usize = 8;

    /// The tags of a row that was written once.
    #[must_use]
    pub fn first(tag: u64) -> Self {
        let mut tags = [0; Self::LEN];
        tags[0] = tag;
        Self(tags)
    }

    /// The tags after one more write.
    #[must_use]
    pub fn followed_by(self, tag: u64) -> Self {
        let mut tags = [tag; Self::LEN];
        tags[1..].copy_from_slice(&self.0[..Self::LEN - 1]);
        Self(tags)
    }

    /// The tag of the last write.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.0[0]
    }

    /// Whether one of the last eight writes had this tag.
    #[must_use]
    pub fn contains(&self, tag: u64) -> bool {
        self.0.contains(&tag)
    }

    /// The tags as a back end stores them: big-endian, the newest first.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 8 * Self::LEN] {
        let mut bytes = [0; 8 * Self::LEN];
        for (tag, place) in self.0.iter().zip(bytes.as_chunks_mut::<8>().0) {
            *place = tag.to_be_bytes();
        }
        bytes
    }

    /// The tags that [`to_bytes`](Self::to_bytes) wrote.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 8 * Self::LEN]) -> Self {
        let mut tags = [0; Self::LEN];
        for (tag, place) in tags.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *tag = u64::from_be_bytes(*place);
        }
        Self(tags)
    }
}

/// Random tags, which no other write has. Each belongs to one open store, which a forked child cannot use: so no two
/// processes draw the same tags.
#[derive(Default)]
pub(super) struct RandomTags {
    /// Random bytes for the next tags. The generator of the system is asked for many at once, because a call costs as
    /// much as the rest of an update in memory.
    drawn: Mutex<Vec<[u8; 8]>>,
}

impl RandomTags {
    const BATCH: usize = 64;

    /// A tag that no other write has.
    ///
    /// # Errors
    ///
    /// [`Random`](crate::ErrorKind::Random) if the generator fails.
    pub(super) fn draw(&self) -> Result<u64> {
        let mut drawn = self.drawn.lock();
        if drawn.is_empty() {
            let bytes: [u8; 8 * Self::BATCH] = random::bytes("draw a tag")?;
            drawn.extend_from_slice(bytes.as_chunks::<8>().0);
        }
        let bytes = drawn.pop().expect("it was filled");
        // 63 bits, because databases have signed integers. Zero marks an unused place.
        Ok((u64::from_be_bytes(bytes) >> 1).max(1))
    }
}

/// How many cut-offs there were: of one user, and of all users.
///
/// A session has the numbers of the instant at which it began or its user logged in; it is alive as long as neither
/// number of its user is greater. The two are counted apart, so that no counter is shared by all users.
///
/// ```
/// use sessile::rows::CutOffs;
/// let at_login = CutOffs { of_user: 3, of_all: 1 };
/// assert!(at_login.stands(at_login));
/// assert!(!at_login.stands(CutOffs { of_user: 4, of_all: 1 }));
/// assert!(!at_login.stands(CutOffs { of_user: 0, of_all: 2 }));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutOffs {
    /// The cut-offs of the user; 0 without a user.
    pub of_user: u32,
    /// The cut-offs of all users.
    pub of_all: u32,
}

impl CutOffs {
    /// Whether a session with these numbers is alive, where those of its user are `now`.
    #[must_use]
    pub fn stands(self, now: Self) -> bool {
        now.of_user <= self.of_user && now.of_all <= self.of_all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_keeps_the_tags_of_its_last_eight_writes() {
        let tags = (2..=9).fold(Tags::first(1), Tags::followed_by);
        assert_eq!(tags.0, [9, 8, 7, 6, 5, 4, 3, 2]);
        assert!(tags.contains(2) && !tags.contains(1));
        assert_eq!(tags.to_bytes()[..9], [0, 0, 0, 0, 0, 0, 0, 9, 0]);
    }

    #[test]
    fn tags_are_random_and_fit_a_signed_integer() {
        let stores = [RandomTags::default(), RandomTags::default()];
        let tags: Vec<_> = (0..300).map(|at| stores[at % 2].draw().unwrap()).collect();
        assert!(tags.iter().all(|tag| *tag > 0 && i64::try_from(*tag).is_ok()));
        assert!((1..tags.len()).all(|at| !tags[..at].contains(&tags[at])));
    }
}
