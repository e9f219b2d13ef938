//! [`Rows`] on a database file: each operation is one statement, or one short transaction.
use super::SqliteRows;
use super::connection::{Connection, waiting};
use crate::admin::Cursor;
use crate::clock::micros;
use crate::database::columns::{ALL_USERS, Columns, Found, numbers, signed};
use crate::error::{Error, ErrorKind, Result};
use crate::id::PublicId;
use crate::rows::{
    CutOff, CutOffs, Move, Row, RowPage, Rows, Selected, Stored, Swap, Swept, UserRows, refused,
};
use crate::store::Durability;
use crate::sync::Instant;
use rusqlite::types::FromSqlResult;
use std::time::SystemTime;

/// Reads the columns of a row: its id, and the rest.
fn columns<'a>(row: &'a rusqlite::Row<'_>) -> FromSqlResult<(&'a [u8], Found<'a>)> {
    let column = |at: usize| row.get_ref(at).expect("the statement has this column");
    let found = Found {
        tag: column(1).as_i64()?,
        tags: column(2).as_blob()?,
        deadline: column(3).as_i64()?,
        owner: column(4).as_blob_or_null()?,
        cut_user: column(5).as_i64()?,
        cut_all: column(6).as_i64()?,
        moved_to: column(7).as_blob_or_null()?,
        payload: column(8).as_blob()?,
        now_user: column(9).as_i64()?,
        now_all: column(10).as_i64()?,
    };
    Ok((column(0).as_blob()?, found))
}

/// The row of this id.
pub(super) fn selected(id: &PublicId, row: &rusqlite::Row<'_>) -> Result<Selected> {
    match columns(row) {
        Ok((_, found)) => found.decode(id),
        Err(error) => {
            Err(refused(id, ErrorKind::Corrupt, "a column has another type").with_source(error.to_string()))
        }
    }
}

/// The id of a row, whose statement asks for such rows only.
fn id_of(row: &rusqlite::Row<'_>) -> Option<PublicId> {
    let id = row.get_ref(0).ok()?.as_blob().ok()?;
    id.try_into().ok().map(PublicId::from_bytes)
}

/// Two numbers of cut-offs.
fn cut_offs_of(row: &rusqlite::Row<'_>) -> Result<CutOffs> {
    let number = |at| row.get_ref(at).ok()?.as_i64().ok();
    number(0).zip(number(1)).and_then(numbers).ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, "read the cut-offs of a user").with_reason("a number is out of bounds")
    })
}

impl SqliteRows {
    pub(super) fn now_micros(&self) -> i64 {
        signed(micros(self.clock.now()))
    }

    fn cut_offs_in(&self, connection: &Connection, user: Option<&[u8; 16]>) -> Result<CutOffs> {
        let user = user.map(<[u8; 16]>::as_slice);
        let read = connection.one(&self.statements.cut_offs, &[&user], cut_offs_of)?;
        Ok(read.unwrap_or_default())
    }

    /// The number of cut-offs of an owner that there were before an instant. Only the last one has its time; before an
    /// earlier one, the number is too great, but still less than the present one.
    fn cut_offs_before(&self, connection: &Connection, owner: &[u8; 16], at: i64) -> Result<i64> {
        let read = connection.one(&self.statements.last_cut_off, &[&owner.as_ref()], |row| {
            let number = |at| row.get_ref(at).ok()?.as_i64().ok();
            number(0).zip(number(1)).ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, "read the cut-offs of a user")
                    .with_reason("it has another type")
            })
        })?;
        Ok(read.map_or(0, |(number, last)| number - i64::from(last >= at)))
    }

    /// Inserts a row with these numbers of cut-offs, or with the present ones. `None` if there is a row of this id.
    fn insert_row(
        &self,
        connection: &Connection,
        id: &PublicId,
        row: &Columns,
        cut_offs: Option<(i64, i64)>,
    ) -> Result<Option<CutOffs>> {
        let (id, tags) = (id.as_bytes().as_ref(), row.tags.as_ref());
        let owner = row.owner.as_ref().map(<[u8; 16]>::as_slice);
        let moved_to = row.moved_to.as_ref().map(<[u8; 20]>::as_slice);
        let Some((cut_user, cut_all)) = cut_offs else {
            return connection.one(
                &self.statements.insert,
                &[&id, &row.tag, &tags, &row.deadline, &row.due, &owner, &moved_to, &row.payload],
                cut_offs_of,
            );
        };
        connection.one(
            &self.statements.insert_as,
            &[
                &id,
                &row.tag,
                &tags,
                &row.deadline,
                &row.due,
                &owner,
                &moved_to,
                &row.payload,
                &cut_user,
                &cut_all,
            ],
            cut_offs_of,
        )
    }

    /// Replaces a row under the same id.
    fn replace(&self, connection: &Connection, swap: &Swap<'_>, until: Instant) -> Result<Option<CutOffs>> {
        let row = Columns::of_row(swap.id, swap.row, self.clock.now());
        let (id, seen, tags) = (swap.id.as_bytes().as_ref(), signed(swap.seen), row.tags.as_ref());
        let owner = row.owner.as_ref().map(<[u8; 16]>::as_slice);
        let replace = |statement: &str| {
            let changed = waiting(until, || {
                connection.execute(
                    statement,
                    &[
                        &id,
                        &seen,
                        &row.tag,
                        &tags,
                        &row.deadline,
                        &row.due,
                        &owner,
                        &row.cut_user,
                        &row.cut_all,
                        &row.payload,
                    ],
                )
            })?;
            Ok::<_, Error>((changed == 1).then_some(swap.row.cut_offs))
        };
        // Most saves change neither of the indexed columns. A statement that does not name them leaves the indexes alone.
        if let Some(done) = replace(&self.statements.swap_in_place)? {
            return Ok(Some(done));
        }
        let done = replace(&self.statements.swap)?;
        if done.is_some() && row.cut_user == 0 && owner.is_some() {
            // A session whose user was changed without a login may have begun after a cut-off of that user.
            waiting(until, || connection.execute(&self.statements.make_stale, &[&owner]))?;
        }
        Ok(done)
    }

    /// Replaces a row by one of another id, in a transaction that has begun. `None` if that was not done; then the
    /// transaction must not be committed.
    fn move_row(&self, connection: &Connection, swap: &Swap<'_>, to: &Move<'_>) -> Result<Option<CutOffs>> {
        let (id, seen, now) = (swap.id.as_bytes().as_ref(), signed(swap.seen), self.clock.now());
        let replaced = match to.moved {
            None => connection.execute(&self.statements.remove_seen, &[&id, &seen])?,
            Some(moved) => {
                let row = Columns::of_moved(swap.id, moved, now);
                let (tags, moved_to) = (row.tags.as_ref(), row.moved_to.as_ref().map(<[u8; 20]>::as_slice));
                connection.execute(
                    &self.statements.replace_by_moved,
                    &[&id, &seen, &tags, &row.deadline, &row.due, &moved_to, &row.payload],
                )?
            }
        };
        if replaced == 0 {
            return Ok(None);
        }
        let row = Columns::of_row(to.successor, swap.row, now);
        let cut_offs = (!to.is_login).then_some((row.cut_user, row.cut_all));
        self.insert_row(connection, to.successor, &row, cut_offs)
    }

    fn remove_row(&self, connection: &Connection, id: &PublicId) -> Result<Option<Selected>> {
        let parameters: &[&dyn rusqlite::ToSql] = &[&id.as_bytes().as_ref()];
        let selected = connection.one(&self.statements.select, parameters, |row| Ok(selected(id, row)))?;
        let removed = match selected {
            None => return Ok(None),
            Some(Ok(selected)) if matches!(selected.stored, Stored::Moved(_)) => return Ok(Some(selected)),
            Some(Ok(selected)) => Some(selected),
            // A row of a newer version is left alone. A damaged one is no live session, and ends as well.
            Some(Err(error)) if error.kind() != ErrorKind::Corrupt => return Err(error),
            Some(Err(_)) => None,
        };
        connection.execute(&self.statements.remove, parameters)?;
        Ok(removed)
    }
}

impl Rows for SqliteRows {
    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    fn select(&self, id: &PublicId, until: Instant) -> Result<Option<Selected>> {
        self.read(until, |connection| {
            let parameters: &[&dyn rusqlite::ToSql] = &[&id.as_bytes().as_ref()];
            connection.one(&self.statements.select, parameters, |row| Ok(selected(id, row)))?.transpose()
        })
    }

    fn insert(&self, id: &PublicId, row: &Row, how: Durability, until: Instant) -> Result<Option<CutOffs>> {
        let row = Columns::of_row(id, row, self.clock.now());
        self.write(how, until, |connection| waiting(until, || self.insert_row(connection, id, &row, None)))
    }

    fn import(&self, id: &PublicId, row: &Row, how: Durability, until: Instant) -> Result<bool> {
        let login = row.record.login().at.unwrap_or(row.record.timing().created);
        let (login, row) = (signed(micros(login)), Columns::of_row(id, row, self.clock.now()));
        let imported = self.write(how, until, |connection| {
            connection.transaction(until, || {
                let of_user = match &row.owner {
                    Some(owner) => self.cut_offs_before(connection, owner, login)?,
                    None => 0,
                };
                let cut_offs = (of_user, self.cut_offs_before(connection, &ALL_USERS, login)?);
                let Some(imported) = self.insert_row(connection, id, &row, Some(cut_offs))? else {
                    return Ok(None);
                };
                if !imported.stands(self.cut_offs_in(connection, row.owner.as_ref())?) {
                    let owner = row.owner.as_ref().map(<[u8; 16]>::as_slice);
                    connection.execute(&self.statements.make_stale, &[&owner])?;
                }
                Ok(Some(imported))
            })
        })?;
        Ok(imported.is_some())
    }

    fn swap(&self, swap: &Swap<'_>, until: Instant) -> Result<Option<CutOffs>> {
        match &swap.to {
            None => self.write(swap.durability, until, |connection| self.replace(connection, swap, until)),
            Some(to) => self.write(Durability::PowerSafe, until, |connection| {
                connection.transaction(until, || self.move_row(connection, swap, to))
            }),
        }
    }

    fn remove(&self, id: &PublicId, until: Instant) -> Result<Option<Selected>> {
        self.write(Durability::PowerSafe, until, |connection| {
            let removed = connection.transaction(until, || self.remove_row(connection, id).map(Some))?;
            Ok(removed.flatten())
        })
    }

    fn sweep(&self, limit: usize, gives_sessions: bool, until: Instant) -> Result<Swept> {
        self.sweep_rows(limit, gives_sessions, until)
    }

    fn cut_offs(&self, user: Option<&[u8; 16]>, until: Instant) -> Result<CutOffs> {
        self.read(until, |connection| self.cut_offs_in(connection, user))
    }

    fn cut_off(&self, cut_off: &CutOff<'_>, until: Instant) -> Result<bool> {
        let owner = cut_off.user.unwrap_or(&ALL_USERS).as_ref();
        let done = self.write(Durability::PowerSafe, until, |connection| {
            connection.transaction(until, || {
                if self.cut_offs_in(connection, cut_off.user)? != cut_off.seen {
                    return Ok(None);
                }
                if let Some(except) = &cut_off.except {
                    let done = match &except.to {
                        None => self.replace(connection, except, until)?,
                        Some(to) => self.move_row(connection, except, to)?,
                    };
                    if done.is_none() {
                        return Ok(None);
                    }
                }
                connection.execute(&self.statements.cut_off, &[&owner, &self.now_micros()]).map(Some)
            })
        })?;
        Ok(done.is_some())
    }

    fn scan(&self, from: Option<&str>, limit: usize, until: Instant) -> Result<RowPage> {
        let from = from.map(|text| Cursor::new(text).to_id()).transpose()?;
        let after = from.as_ref().map_or(&[][..], |id| id.as_bytes().as_ref());
        let at_most = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(until, |connection| {
            let (mut page, mut last, mut read) = (RowPage::default(), None, 0);
            connection.each(&self.statements.scan, &[&after, &at_most], |row| {
                let Some(id) = id_of(row) else { return Ok(true) };
                match selected(&id, row) {
                    Ok(selected) => page.rows.push((id, selected)),
                    Err(_) => page.damaged.push(id),
                }
                (last, read) = (Some(id), read + 1);
                Ok(true)
            })?;
            page.next = last.filter(|_| read == limit).map(|id| id.to_string());
            Ok(page)
        })
    }

    fn count(&self, until: Instant) -> Result<u64> {
        self.read(until, |connection| {
            let count = connection.number(&self.statements.count)?;
            Ok(u64::try_from(count).unwrap_or_default())
        })
    }

    fn of_user(
        &self,
        user: &[u8; 16],
        after: Option<PublicId>,
        limit: usize,
        until: Instant,
    ) -> Result<UserRows> {
        let user: &[u8] = user.as_ref();
        let after = after.as_ref().map_or(&[][..], |id| id.as_bytes().as_ref());
        self.read(until, |connection| {
            let (mut rows, mut now) = (Vec::new(), None);
            if limit == 0 {
                return Ok(UserRows::default());
            }
            connection.each(&self.statements.of_user, &[&user, &after], |row| {
                let Some(id) = id_of(row) else { return Ok(true) };
                // A damaged row cannot be shown. Scans and loads name it.
                if let Ok(Selected { stored: Stored::Session(row), cut_offs }) = selected(&id, row) {
                    rows.push((id, row));
                    now = Some(cut_offs);
                }
                Ok(rows.len() < limit)
            })?;
            Ok(UserRows::new(rows, now.unwrap_or_default()))
        })
    }
}
