//! Sessions in the memory of this process: the smallest back end, for tests of a program and as an example for other
//! back ends.
use super::row::{CutOffs, Row, Stored};
use super::{CutOff, RowPage, RowStore, RowStoreOptions, Rows, Selected, Swap, Swept, UserRows};
use crate::admin::Cursor;
use crate::clock::Clock;
use crate::error::Result;
use crate::id::PublicId;
use crate::queue::Queues;
use crate::record::Record;
use crate::store::{Durability, EndReason, EndedSession};
use crate::sync::{Instant, Mutex};
use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

/// Sessions in this process, which end with it.
///
/// For tests of a program: nothing is made on the disk, a [manual clock](Clock::manual) lets sessions expire at once,
/// and the program uses it through the same [`Sessions`](crate::Sessions).
///
/// ```
/// use sessile::rows::MemoryStore;
/// use sessile::{Cookies, Sessions};
/// let sessions = Sessions::new(MemoryStore::new(), Cookies::plain_http())?;
/// let mut session = sessions.visit([]);
/// session.insert("theme", "dark")?;
/// session.save()?;
/// assert_eq!(sessions.session(session.token()?).get::<String>("theme")?.as_deref(), Some("dark"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type MemoryStore = RowStore<MemoryRows>;

impl MemoryStore {
    /// A store without sessions, with the clock of the system.
    #[must_use]
    pub fn new() -> Self {
        RowStore::with_options(MemoryRows::new(Clock::system()), RowStoreOptions::new())
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

/// The rows of a [`MemoryStore`]. Two stores on one [`Arc`](std::sync::Arc) of it stand for two processes on one
/// server.
pub struct MemoryRows {
    clock: Clock,
    /// The tables. Each operation locks them once, so that it is done as a whole.
    tables: Mutex<Tables>,
    locks: Queues,
}

#[derive(Default)]
struct Tables {
    rows: BTreeMap<PublicId, Stored>,
    cut_offs_of_users: HashMap<[u8; 16], Numbered>,
    cut_offs_of_all: Numbered,
    /// The id at which the last sweep has stopped.
    swept: Option<PublicId>,
}

/// How many cut-offs there were, and the time of the last one.
#[derive(Clone, Copy, Default)]
struct Numbered {
    number: u32,
    last: Option<SystemTime>,
}

impl Numbered {
    fn add(&mut self, now: SystemTime) {
        *self = Self { number: self.number + 1, last: Some(now) };
    }

    /// The number at a time that is past. Only the last cut-off has its time; for an earlier one, the number is too
    /// great, but it is still less than the present one.
    fn at(self, time: SystemTime) -> u32 {
        self.number - u32::from(self.last.is_some_and(|last| last >= time))
    }
}

impl Tables {
    fn of_user(&self, user: Option<&[u8; 16]>) -> Numbered {
        user.and_then(|user| self.cut_offs_of_users.get(user)).copied().unwrap_or_default()
    }

    fn cut_offs(&self, user: Option<&[u8; 16]>) -> CutOffs {
        CutOffs { of_user: self.of_user(user).number, of_all: self.cut_offs_of_all.number }
    }

    /// The cut-offs that were there when a record of another store was logged in.
    fn cut_offs_at_login(&self, record: &Record) -> CutOffs {
        let at = record.login().at.unwrap_or(record.timing().created);
        let of_user = self.of_user(record.user_digest().as_ref()).at(at);
        CutOffs { of_user, of_all: self.cut_offs_of_all.at(at) }
    }

    fn cut_offs_of_row(&self, row: &Row) -> CutOffs {
        self.cut_offs(row.record.user_digest().as_ref())
    }

    fn select(&self, id: &PublicId) -> Option<Selected> {
        let stored = self.rows.get(id)?.clone();
        let cut_offs = match &stored {
            Stored::Session(row) => self.cut_offs_of_row(row),
            Stored::Moved(_) => CutOffs::default(),
        };
        Some(Selected { stored, cut_offs })
    }

    /// Whether a swap may be made: the row has the tag that was seen, and no cut-off has ended the session.
    fn accepts(&self, swap: &Swap<'_>) -> bool {
        let is_free = swap.to.is_none_or(|to| !self.rows.contains_key(to.successor));
        let Some(Stored::Session(row)) = self.rows.get(swap.id) else { return false };
        is_free && row.tags.newest() == swap.seen && row.cut_offs.stands(self.cut_offs_of_row(row))
    }

    fn swap(&mut self, swap: &Swap<'_>) -> Option<CutOffs> {
        if !self.accepts(swap) {
            return None;
        }
        let mut row = swap.row.clone();
        if swap.to.is_some_and(|to| to.is_login) {
            row.cut_offs = self.cut_offs_of_row(&row);
        }
        let cut_offs = row.cut_offs;
        match swap.to {
            None => drop(self.rows.insert(*swap.id, Stored::Session(row))),
            Some(to) => {
                self.rows.insert(*to.successor, Stored::Session(row));
                match to.moved {
                    Some(moved) => self.rows.insert(*swap.id, Stored::Moved(*moved)),
                    None => self.rows.remove(swap.id),
                };
            }
        }
        Some(cut_offs)
    }

    fn is_over(&self, id: &PublicId, stored: &Stored, now: SystemTime) -> bool {
        match stored {
            Stored::Session(row) => {
                row.record.is_expired(now) || !row.cut_offs.stands(self.cut_offs_of_row(row))
            }
            Stored::Moved(moved) => !moved.to_moved(*id).is_within_grace(now),
        }
    }

    /// The ids after this one; all ids if there is none.
    fn after(&self, id: Option<PublicId>) -> impl Iterator<Item = (&PublicId, &Stored)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.rows.range((id.map_or(Unbounded, Excluded), Unbounded))
    }
}

impl MemoryRows {
    /// No rows, with this clock.
    ///
    /// ```
    /// use sessile::rows::{MemoryRows, RowStoreOptions};
    /// let rows = MemoryRows::new(sessile::Clock::manual(std::time::UNIX_EPOCH));
    /// let store = RowStoreOptions::new().open(rows)?;
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, tables: Mutex::default(), locks: Queues::new() }
    }

    /// The number of sessions, expired ones included; moved ids are none.
    ///
    /// ```
    /// let rows = sessile::rows::MemoryRows::new(sessile::Clock::system());
    /// assert_eq!(rows.len(), 0);
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        let tables = self.tables.lock();
        tables.rows.values().filter(|stored| matches!(stored, Stored::Session(_))).count()
    }

    /// Whether there are no sessions.
    ///
    /// ```
    /// assert!(sessile::rows::MemoryRows::new(sessile::Clock::system()).is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Rows for MemoryRows {
    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    fn select(&self, id: &PublicId, _until: Instant) -> Result<Option<Selected>> {
        Ok(self.tables.lock().select(id))
    }

    fn insert(&self, id: &PublicId, row: &Row, _how: Durability, _until: Instant) -> Result<Option<CutOffs>> {
        let mut tables = self.tables.lock();
        if tables.rows.contains_key(id) {
            return Ok(None);
        }
        let cut_offs = tables.cut_offs_of_row(row);
        tables.rows.insert(*id, Stored::Session(Row { cut_offs, ..row.clone() }));
        Ok(Some(cut_offs))
    }

    fn import(&self, id: &PublicId, row: &Row, _how: Durability, _until: Instant) -> Result<bool> {
        let mut tables = self.tables.lock();
        if tables.rows.contains_key(id) {
            return Ok(false);
        }
        let cut_offs = tables.cut_offs_at_login(&row.record);
        tables.rows.insert(*id, Stored::Session(Row { cut_offs, ..row.clone() }));
        Ok(true)
    }

    fn scan(&self, from: Option<&str>, limit: usize, _until: Instant) -> Result<RowPage> {
        let from = from.map(|text| Cursor::new(text).to_id()).transpose()?;
        let tables = self.tables.lock();
        let rows = tables.after(from).filter_map(|(id, _)| Some((*id, tables.select(id)?)));
        let rows: Vec<_> = rows.take(limit).collect();
        let next = rows.last().filter(|_| rows.len() == limit).map(|(id, _)| id.to_string());
        Ok(RowPage::new(rows, next))
    }

    fn count(&self, _until: Instant) -> Result<u64> {
        Ok(self.tables.lock().rows.len() as u64)
    }

    fn swap(&self, swap: &Swap<'_>, _until: Instant) -> Result<Option<CutOffs>> {
        Ok(self.tables.lock().swap(swap))
    }

    fn remove(&self, id: &PublicId, _until: Instant) -> Result<Option<Selected>> {
        let mut tables = self.tables.lock();
        let selected = tables.select(id);
        if let Some(Selected { stored: Stored::Session(_), .. }) = selected {
            tables.rows.remove(id);
        }
        Ok(selected)
    }

    fn sweep(&self, limit: usize, gives_sessions: bool, _until: Instant) -> Result<Swept> {
        let (mut tables, now) = (self.tables.lock(), self.now());
        // Goes on where the last sweep has stopped, and then from the beginning: a result below the limit must mean
        // that no such row is left.
        let from = tables.swept;
        let over = tables.after(from).chain(tables.after(None));
        let over = over.filter(|(id, stored)| tables.is_over(id, stored, now)).map(|(id, _)| *id);
        let mut over: Vec<_> = over.take(limit).collect();
        tables.swept = over.last().copied();
        over.sort_unstable();
        over.dedup();
        let mut swept = Swept::new(over.len(), Vec::new());
        for id in over {
            if let Some(Stored::Session(row)) = tables.rows.remove(&id)
                && gives_sessions
            {
                let is_cut_off = !row.cut_offs.stands(tables.cut_offs_of_row(&row));
                let reason = if is_cut_off { EndReason::CutOff } else { EndReason::Expired };
                swept.sessions.push(EndedSession::over(id, Some(row.record), reason));
            }
        }
        Ok(swept)
    }

    fn cut_offs(&self, user: Option<&[u8; 16]>, _until: Instant) -> Result<CutOffs> {
        Ok(self.tables.lock().cut_offs(user))
    }

    fn cut_off(&self, cut_off: &CutOff<'_>, _until: Instant) -> Result<bool> {
        let mut tables = self.tables.lock();
        if tables.cut_offs(cut_off.user) != cut_off.seen {
            return Ok(false);
        }
        if let Some(except) = &cut_off.except
            && tables.swap(except).is_none()
        {
            return Ok(false);
        }
        match cut_off.user {
            Some(user) => tables.cut_offs_of_users.entry(*user).or_default().add(self.now()),
            None => tables.cut_offs_of_all.add(self.now()),
        }
        Ok(true)
    }

    fn of_user(
        &self,
        user: &[u8; 16],
        after: Option<PublicId>,
        limit: usize,
        _until: Instant,
    ) -> Result<UserRows> {
        let tables = self.tables.lock();
        let sessions = tables.after(after).filter_map(|(id, stored)| match stored {
            Stored::Session(row) if row.record.user_digest().as_ref() == Some(user) => {
                Some((*id, row.clone()))
            }
            Stored::Session(_) | Stored::Moved(_) => None,
        });
        Ok(UserRows::new(sessions.take(limit).collect(), tables.cut_offs(Some(user))))
    }

    fn lock(&self, id: &PublicId, until: Instant) -> Result<Option<Box<dyn Send + '_>>> {
        Ok(Some(Box::new(self.locks.turn(id, until)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::Tags;
    use super::*;
    use crate::record::Record;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_sweep_of_few_rows_at_a_time_finds_each() {
        let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(100));
        let rows = MemoryRows::new(clock.clone());
        let soon = Instant::now();
        for n in 0..100_u64 {
            let record = Record::new(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(100 + n % 2));
            let row = Row::new(Tags::first(n + 1), CutOffs::default(), record);
            rows.insert(&PublicId::digest(&n.to_le_bytes()), &row, Durability::OfStore, soon)
                .unwrap()
                .unwrap();
        }
        let sweep = |limit| {
            let swept = rows.sweep(limit, true, soon).unwrap();
            let records = swept.sessions.iter().filter(|session| session.record.is_some()).count();
            (swept.rows, records, rows.len())
        };
        for (left, removed) in [(70, 30), (50, 20), (50, 0)] {
            assert_eq!(sweep(30), (removed, removed, left));
        }
        clock.advance(Duration::from_secs(1));
        assert_eq!(sweep(1000), (50, 50, 0));
    }

    #[test]
    fn a_guard_of_a_moved_id_ends_with_its_grace_period() {
        let (id, successor) = (PublicId::digest(b"a"), PublicId::digest(b"b"));
        let now = UNIX_EPOCH + Duration::from_secs(100);
        let moved = super::super::MovedRow::new(successor, now + Duration::from_secs(1), false);
        let tables = Tables::default();
        let is_over = |now| tables.is_over(&id, &Stored::Moved(moved), now);
        assert_eq!([is_over(now), is_over(now + Duration::from_secs(1))], [false, true]);
    }
}
