//! A server of rows whose answers are lost, and whose operations are late, done twice, refused or away, by seed.
use crate::support::dice::Dice;
use parking_lot::Mutex;
use sessile::rows::{
    CutOff, CutOffs, Move, MovedRow, Row, RowPage, Rows, Selected, Stored, Swap, Swept, Tags,
};
use sessile::{Durability, Error, ErrorKind, PublicId, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

/// A fault of a back end or of the store on it, which the tests must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A swap replaces whatever is stored.
    Upsert,
    /// A row keeps the tag of its last write only.
    OneTag,
    /// A write without an answer is carried out again.
    Rerun,
}

/// Rows behind a line that fails.
pub(crate) struct FaultyRows {
    rows: Arc<dyn Rows>,
    dice: Mutex<Dice>,
    /// Of this many operations, one fails; 0 for none.
    fails_one_in: AtomicU64,
    /// How many operations find no server from now on.
    away: AtomicU64,
    late: Mutex<Vec<Late>>,
    broken: Option<Broken>,
    lost_answers: AtomicU64,
}

/// An operation that the server carries out later.
type Late = Box<dyn FnOnce(&dyn Rows) + Send>;

/// What happens to an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    Away,
    Conflict,
    /// Done, and the answer is lost.
    Lost,
    /// Lost on the way: never done.
    Never,
    /// Done later, and no answer.
    Late,
    /// Done now and once more later, and the answer is lost.
    Twice,
}

impl FaultyRows {
    pub(crate) fn new(rows: Arc<dyn Rows>, seed: u64, fails_one_in: u64, broken: Option<Broken>) -> Self {
        Self {
            rows,
            dice: Mutex::new(Dice::new(seed)),
            fails_one_in: AtomicU64::new(fails_one_in),
            away: AtomicU64::new(0),
            late: Mutex::default(),
            broken,
            lost_answers: AtomicU64::new(0),
        }
    }

    /// Operations whose answer was lost.
    pub(crate) fn lost_answers(&self) -> u64 {
        self.lost_answers.load(Ordering::Relaxed)
    }

    /// From now on no operation fails; the late ones arrive now.
    pub(crate) fn repair(&self) {
        self.fails_one_in.store(0, Ordering::SeqCst);
        self.away.store(0, Ordering::SeqCst);
        while let Some(late) = self.next_late() {
            late(&*self.rows);
        }
    }

    fn next_late(&self) -> Option<Late> {
        let (mut late, mut dice) = (self.late.lock(), self.dice.lock());
        (!late.is_empty()).then(|| {
            let at = dice.below(late.len());
            late.swap_remove(at)
        })
    }

    fn fate(&self) -> Fate {
        let one_in = self.fails_one_in.load(Ordering::SeqCst);
        if one_in == 0 {
            return Fate::Answered;
        }
        let (mut dice, away) = (self.dice.lock(), self.away.load(Ordering::SeqCst));
        if away > 0 {
            self.away.store(away - 1, Ordering::SeqCst);
            return Fate::Away;
        }
        if dice.roll(one_in) > 0 {
            return Fate::Answered;
        }
        match dice.roll(16) {
            0 => {
                self.away.store(dice.roll(8), Ordering::SeqCst);
                Fate::Away
            }
            1..=3 => Fate::Conflict,
            4..=7 => Fate::Lost,
            8..=10 => Fate::Never,
            11..=13 => Fate::Late,
            _ => Fate::Twice,
        }
    }

    fn run<T>(
        &self,
        run: impl Fn(&dyn Rows) -> Result<T> + Clone + Send + 'static,
        rerun: ErrorKind,
    ) -> Result<T> {
        // Now and then an earlier one arrives.
        if self.dice.lock().roll(8) == 0
            && let Some(late) = self.next_late()
        {
            late(&*self.rows);
        }
        let fate = self.fate();
        if matches!(fate, Fate::Late | Fate::Twice) {
            let again = run.clone();
            self.late.lock().push(Box::new(move |rows| drop(again(rows))));
        }
        let lost = || {
            self.lost_answers.fetch_add(1, Ordering::Relaxed);
            Err(Error::new(rerun, "hear from the server"))
        };
        match fate {
            Fate::Answered => run(&*self.rows),
            Fate::Away => Err(Error::new(ErrorKind::Unavailable, "reach the server")),
            Fate::Conflict => Err(Error::new(ErrorKind::Busy, "use the server")),
            Fate::Never | Fate::Late => lost(),
            Fate::Lost | Fate::Twice => {
                drop(run(&*self.rows));
                lost()
            }
        }
    }

    fn write<T>(&self, run: impl Fn(&dyn Rows) -> Result<T> + Clone + Send + 'static) -> Result<T> {
        let rerun = self.broken == Some(Broken::Rerun);
        self.run(run, if rerun { ErrorKind::Busy } else { ErrorKind::Unanswered })
    }

    /// The row as a broken back end shows it.
    fn shown(&self, mut selected: Selected) -> Selected {
        if let (Some(Broken::OneTag), Stored::Session(row)) = (self.broken, &mut selected.stored) {
            row.tags = Tags::first(row.tags.newest());
        }
        selected
    }
}

/// The parts of a [`Swap`], of which it has references.
#[derive(Clone)]
struct Owned {
    id: PublicId,
    seen: u64,
    row: Row,
    to: Option<(PublicId, bool, Option<MovedRow>)>,
    durability: Durability,
    upserts: bool,
}

impl Owned {
    fn of(swap: &Swap<'_>, upserts: bool) -> Self {
        let to = swap.to.map(|to| (*to.successor, to.is_login, to.moved.copied()));
        let (id, seen, row, durability) = (*swap.id, swap.seen, swap.row.clone(), swap.durability);
        Self { id, seen, row, to, durability, upserts }
    }

    fn with<T>(&self, rows: &dyn Rows, run: impl FnOnce(&Swap<'_>) -> Result<T>) -> Result<T> {
        let mut swap = Swap::new(&self.id, self.seen, &self.row);
        if self.upserts
            && let Some(Selected { stored: Stored::Session(row), .. }) =
                rows.select(&self.id, Instant::now())?
        {
            swap.seen = row.tags.newest();
        }
        swap.to = self.to.as_ref().map(|(successor, is_login, moved)| {
            let mut to = Move::new(successor);
            to.is_login = *is_login;
            to.moved = moved.as_ref();
            to
        });
        swap.durability = self.durability;
        run(&swap)
    }
}

impl Rows for FaultyRows {
    fn now(&self) -> SystemTime {
        self.rows.now()
    }

    fn select(&self, id: &PublicId, until: Instant) -> Result<Option<Selected>> {
        let id = *id;
        let selected = self.run(move |rows| rows.select(&id, until), ErrorKind::Unanswered)?;
        Ok(selected.map(|selected| self.shown(selected)))
    }

    fn insert(&self, id: &PublicId, row: &Row, how: Durability, until: Instant) -> Result<Option<CutOffs>> {
        let (id, row) = (*id, row.clone());
        self.write(move |rows| rows.insert(&id, &row, how, until))
    }

    fn swap(&self, swap: &Swap<'_>, until: Instant) -> Result<Option<CutOffs>> {
        let swap = Owned::of(swap, self.broken == Some(Broken::Upsert));
        self.write(move |rows| swap.with(rows, |swap| rows.swap(swap, until)))
    }

    fn remove(&self, id: &PublicId, until: Instant) -> Result<Option<Selected>> {
        let id = *id;
        self.write(move |rows| rows.remove(&id, until))
    }

    fn sweep(&self, limit: usize, gives_sessions: bool, until: Instant) -> Result<Swept> {
        self.write(move |rows| rows.sweep(limit, gives_sessions, until))
    }

    fn import(&self, id: &PublicId, row: &Row, how: Durability, until: Instant) -> Result<bool> {
        let (id, row) = (*id, row.clone());
        self.write(move |rows| rows.import(&id, &row, how, until))
    }

    fn scan(&self, from: Option<&str>, limit: usize, until: Instant) -> Result<RowPage> {
        let from = from.map(str::to_owned);
        self.run(move |rows| rows.scan(from.as_deref(), limit, until), ErrorKind::Unanswered)
    }

    fn count(&self, until: Instant) -> Result<u64> {
        self.run(move |rows| rows.count(until), ErrorKind::Unanswered)
    }

    fn cut_offs(&self, user: Option<&[u8; 16]>, until: Instant) -> Result<CutOffs> {
        let user = user.copied();
        self.run(move |rows| rows.cut_offs(user.as_ref(), until), ErrorKind::Unanswered)
    }

    fn cut_off(&self, cut_off: &CutOff<'_>, until: Instant) -> Result<bool> {
        let (user, seen) = (cut_off.user.copied(), cut_off.seen);
        let except = cut_off.except.as_ref().map(|swap| Owned::of(swap, false));
        self.write(move |rows| match &except {
            None => rows.cut_off(&CutOff::new(user.as_ref(), seen), until),
            Some(swap) => swap.with(rows, |swap| {
                let mut cut_off = CutOff::new(user.as_ref(), seen);
                cut_off.except = Some(swap.clone());
                rows.cut_off(&cut_off, until)
            }),
        })
    }

    fn lock(&self, id: &PublicId, until: Instant) -> Result<Option<Box<dyn Send + '_>>> {
        self.rows.lock(id, until)
    }
}
