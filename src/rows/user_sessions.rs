//! [`RowStore`]: lists of a user's sessions, and the end of one of them.
use super::row::{CutOffs, Row};
use super::store::State;
use super::{RowStore, Rows};
use crate::error::Result;
use crate::id::PublicId;
use crate::record::user_digest;
use crate::store::{EndedSession, HOPS_MAX, Live, Page, UserSession, UserSessions};
use std::collections::VecDeque;

/// The most rows that are read at once.
const BATCH_MAX: usize = 200;

/// Some sessions of a user, as they were read.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UserRows {
    /// The sessions, in the order of their ids. Expired ones, and those that a cut-off has ended, may be among them.
    pub rows: Vec<(PublicId, Row)>,
    /// The cut-offs of the user, at the instant of the reading.
    pub cut_offs: CutOffs,
}

impl UserRows {
    /// Sessions of a user, and the user's cut-offs at the same instant.
    ///
    /// ```
    /// use sessile::rows::{CutOffs, UserRows};
    /// assert!(UserRows::new(vec![], CutOffs::default()).rows.is_empty());
    /// ```
    #[must_use]
    pub fn new(rows: Vec<(PublicId, Row)>, cut_offs: CutOffs) -> Self {
        Self { rows, cut_offs }
    }
}

impl<R: Rows> RowStore<R> {
    pub(super) fn list_sessions_of(&self, user: &str, page: &Page) -> Result<UserSessions> {
        let Some(digest) = user_digest(user) else { return UserSessions::page(page, true, []) };
        let batch = page.limit.saturating_add(1).min(BATCH_MAX);
        let (mut read, mut after, mut is_over) = (VecDeque::new(), page.after, false);
        let mut next = || {
            while read.is_empty() && !is_over {
                // Each batch has the time of a call.
                let mut attempts = self.attempts()?;
                let UserRows { rows, cut_offs } =
                    self.repeat(&mut attempts, |until| self.rows.of_user(&digest, after, batch, until))?;
                is_over = rows.len() < batch;
                after = rows.last().map(|(id, _)| *id).or(after);
                let now = self.rows.now();
                let is_live = |row: &Row| {
                    row.record.user() == Some(user)
                        && !row.record.is_expired(now)
                        && row.cut_offs.stands(cut_offs)
                };
                let live = rows.into_iter().filter(|(_, row)| is_live(row));
                read.extend(live.map(|(id, row)| UserSession::of(&Live { record: row.record, id })));
            }
            Ok(read.pop_front())
        };
        UserSessions::page(page, true, std::iter::from_fn(|| next().transpose()))
    }

    /// Ends a session if it is this user's.
    pub(super) fn delete_session_of_user(
        &self,
        user: &str,
        mut id: PublicId,
    ) -> Result<Option<EndedSession>> {
        let mut attempts = self.attempts()?;
        for _ in 0..=HOPS_MAX {
            match self.state(&id, &mut attempts)? {
                // (Between this reading and the removal, a save of another process may give the session to another
                // user without a login; a login gives it another id.)
                State::Live(row) if row.record.user() == Some(user) => {
                    return self.remove_session(id, &mut attempts);
                }
                State::Moved(moved) => match self.next_hop(&id, &moved) {
                    Some(next) => id = next,
                    None => return Ok(None),
                },
                State::Live(_) | State::Absent(_) => return Ok(None),
            }
        }
        Ok(None)
    }
}
