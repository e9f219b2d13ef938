//! Sweeps: rows are looked for without a lock, and removed in a short transaction that asks once more whether they are
//! over.
//!
//! Expired rows are found by the index on `due`. Sessions that a cut-off has ended are found by `stale`: each cut-off,
//! and each row that is stored with too small a number, counts it up, and a sweep that finds no such row sets it back to
//! zero, if it was not counted up meanwhile. So a sweep reads the rows of those users only whose sessions were ended
//! since the last one.
use super::SqliteRows;
use super::connection::{Connection, waiting};
use super::rows::selected;
use crate::database::columns::ALL_USERS;
use crate::error::Result;
use crate::id::PublicId;
use crate::rows::{Selected, Stored, Swept};
use crate::store::{Durability, EndReason, EndedSession};
use crate::sync::Instant;
use rusqlite::ToSql;

/// An owner whose cut-offs have ended sessions that may still be stored.
struct Stale {
    owner: Vec<u8>,
    /// The number of cut-offs, and the count of changes that no sweep has looked at.
    number: i64,
    changes: i64,
}

/// What a sweep is to remove, and what it has removed.
struct Pass {
    limit: usize,
    gives_sessions: bool,
    until: Instant,
    /// The present time; rows with a later deadline are not over.
    now: i64,
    swept: Swept,
}

impl Pass {
    /// How many rows more may be removed.
    fn left(&self) -> usize {
        self.limit.saturating_sub(self.swept.rows)
    }
}

impl SqliteRows {
    /// Removes at most `limit` rows that are over.
    pub(super) fn sweep_rows(&self, limit: usize, gives_sessions: bool, until: Instant) -> Result<Swept> {
        let now = self.now_micros();
        let mut pass = Pass { limit, gives_sessions, until, now, swept: Swept::default() };
        let statements = &self.statements.sweeps;
        self.remove_found(&mut pass, |connection, limit| ids(connection, &statements.due, &[&now, &limit]))?;
        if pass.left() == 0 {
            return Ok(pass.swept);
        }
        for Stale { owner, number, changes } in self.read(until, |connection| self.stale(connection))? {
            let is_all = owner == ALL_USERS;
            let find = if is_all { &statements.cut_off_of_all } else { &statements.cut_off_of_user };
            self.remove_found(&mut pass, |connection, limit| {
                ids(connection, find, &[&owner, &number, &limit])
            })?;
            if pass.left() == 0 {
                break;
            }
            self.write(Durability::Relaxed, until, |connection| {
                let done = || connection.execute(&statements.make_swept, &[&owner, &changes]);
                waiting(until, done)
            })?;
        }
        Ok(pass.swept)
    }

    /// Removes the rows that `find` finds, until it finds no more. Other sweeps may remove some of them first.
    fn remove_found(
        &self,
        pass: &mut Pass,
        find: impl Fn(&Connection, i64) -> Result<Vec<Vec<u8>>>,
    ) -> Result<()> {
        loop {
            let asked = pass.left();
            let at_most = i64::try_from(asked).unwrap_or(i64::MAX);
            let found = self.read(pass.until, |connection| find(connection, at_most))?;
            if !found.is_empty() {
                let Swept { rows, sessions, .. } = self.remove_over(&found, pass)?;
                pass.swept.rows += rows;
                pass.swept.sessions.extend(sessions);
            }
            if found.len() < asked || pass.left() == 0 {
                return Ok(());
            }
        }
    }

    fn remove_over(&self, ids: &[Vec<u8>], pass: &Pass) -> Result<Swept> {
        // A removal that a power cut undoes is made again: what is over stays over.
        let removed = self.write(Durability::Relaxed, pass.until, |connection| {
            connection.transaction(pass.until, || {
                let mut swept = Swept::default();
                for id in ids {
                    let session = if pass.gives_sessions { self.session_of(connection, id)? } else { None };
                    if connection.execute(&self.statements.sweeps.remove, &[id, &pass.now])? == 1 {
                        swept.rows += 1;
                        swept.sessions.extend(session);
                    }
                }
                Ok(Some(swept))
            })
        })?;
        Ok(removed.unwrap_or_default())
    }

    /// The session of a row that is over; `None` for the row of a moved id. A damaged row has no record.
    fn session_of(&self, connection: &Connection, id: &[u8]) -> Result<Option<EndedSession>> {
        let Some(of_row) = id.try_into().ok().map(PublicId::from_bytes) else { return Ok(None) };
        let read = |row: &rusqlite::Row<'_>| Ok(selected(&of_row, row));
        Ok(match connection.one(&self.statements.select, &[&id], read)? {
            Some(Ok(Selected { stored: Stored::Session(row), cut_offs })) => {
                let is_cut_off = !row.cut_offs.stands(cut_offs);
                let reason = if is_cut_off { EndReason::CutOff } else { EndReason::Expired };
                Some(EndedSession::over(of_row, Some(row.record), reason))
            }
            Some(Err(_)) => Some(EndedSession::over(of_row, None, EndReason::Damaged)),
            Some(Ok(_)) | None => None,
        })
    }

    fn stale(&self, connection: &Connection) -> Result<Vec<Stale>> {
        let mut all = Vec::new();
        connection.each(&self.statements.sweeps.stale, &[], |row| {
            let column = |at| row.get_ref(at).ok()?.as_i64().ok();
            let owner = row.get_ref(0).ok().and_then(|owner| owner.as_blob().ok().map(<[u8]>::to_vec));
            if let (Some(owner), Some(number), Some(changes)) = (owner, column(1), column(2)) {
                all.push(Stale { owner, number, changes });
            }
            Ok(true)
        })?;
        Ok(all)
    }
}

/// The ids that a statement finds.
fn ids(connection: &Connection, statement: &str, parameters: &[&dyn ToSql]) -> Result<Vec<Vec<u8>>> {
    let mut ids = Vec::new();
    connection.each(statement, parameters, |row| {
        ids.extend(row.get_ref(0).ok().and_then(|id| id.as_blob().ok().map(<[u8]>::to_vec)));
        Ok(true)
    })?;
    Ok(ids)
}
