//! Sweeps: rows are looked for without a lock, and removed in a short transaction that asks once more whether they are
//! over.
//!
//! Expired rows are found by the index on `due`. Sessions that a cut-off has ended are found by `stale`: each cut-off,
//! and each row that is stored with too small a number, counts it up, and a sweep that finds no such row sets it back to
//! zero, if it was not counted up meanwhile. So a sweep reads the rows of those users only whose sessions were ended
//! since the last one.
use super::SqliteRows;
use super::connection::{Connection, waiting};
use crate::database::columns::ALL_USERS;
use crate::error::Result;
use crate::store::Durability;
use crate::sync::Instant;
use rusqlite::ToSql;

/// An owner whose cut-offs have ended sessions that may still be stored.
struct Stale {
    owner: Vec<u8>,
    /// The number of cut-offs, and the count of changes that no sweep has looked at.
    number: i64,
    changes: i64,
}

impl SqliteRows {
    /// Removes at most `limit` rows that are over.
    pub(super) fn sweep_rows(&self, limit: usize, until: Instant) -> Result<usize> {
        let due = &self.statements.sweeps.due;
        let mut removed =
            self.remove_found(limit, until, |connection, limit, now| ids(connection, due, &[&now, &limit]))?;
        if removed >= limit {
            return Ok(removed);
        }
        for Stale { owner, number, changes } in self.read(until, |connection| self.stale(connection))? {
            let is_all = owner == ALL_USERS;
            let statements = &self.statements.sweeps;
            let find = if is_all { &statements.cut_off_of_all } else { &statements.cut_off_of_user };
            removed += self.remove_found(limit - removed, until, |connection, limit, _| {
                ids(connection, find, &[&owner, &number, &limit])
            })?;
            if removed >= limit {
                break;
            }
            self.write(Durability::Relaxed, until, |connection| {
                let done = || connection.execute(&statements.make_swept, &[&owner, &changes]);
                waiting(until, done)
            })?;
        }
        Ok(removed)
    }

    /// Removes the rows that `find` finds, at most `limit`, until it finds no more. Other sweeps may remove some of them
    /// first.
    fn remove_found(
        &self,
        limit: usize,
        until: Instant,
        find: impl Fn(&Connection, i64, i64) -> Result<Vec<Vec<u8>>>,
    ) -> Result<usize> {
        let (mut removed, now) = (0, self.now_micros());
        while removed < limit {
            let asked = limit - removed;
            let at_most = i64::try_from(asked).unwrap_or(i64::MAX);
            let found = self.read(until, |connection| find(connection, at_most, now))?;
            if !found.is_empty() {
                removed += self.remove_over(&found, now, until)?;
            }
            if found.len() < asked {
                break;
            }
        }
        Ok(removed)
    }

    fn remove_over(&self, ids: &[Vec<u8>], now: i64, until: Instant) -> Result<usize> {
        // A removal that a power cut undoes is made again: what is over stays over.
        let removed = self.write(Durability::Relaxed, until, |connection| {
            connection.transaction(until, || {
                let mut removed = 0;
                for id in ids {
                    removed += connection.execute(&self.statements.sweeps.remove, &[id, &now])?;
                }
                Ok(Some(removed))
            })
        })?;
        Ok(removed.unwrap_or_default())
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
