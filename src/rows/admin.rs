//! [`RowStore`] as an [`Admin`]: sweeps in batches, operations by public id, pages of all rows.
use super::retry::Attempts;
use super::row::{CutOffs, Row, Stored, Tags};
use super::store::{Removed, State};
use super::{RowStore, Rows, Selected};
use crate::admin::{
    Admin, Budget, Cursor, Pace, ScanPage, Scanned, Stats, SweepOptions, SweepOutcome, SweepPhase,
    SweepProgressFn, SweepReport,
};
use crate::error::{Error, ErrorKind, Result};
use crate::id::PublicId;
use crate::record::Record;
use crate::store::{Absent, Durability, EndReason, EndedSession, Live, Lookup};
use crate::sync::Instant;
use std::ops::ControlFlow::{self, Break, Continue};

/// The most rows that a sweep removes at once, so that it is in no other caller's way.
const BATCH_MAX: usize = 200;
/// The most rows that a sweep removes at once if an observer gets their sessions, because all of them are in memory.
const OBSERVED_BATCH_MAX: usize = 50;

/// Some rows of a back end, as [`Rows::scan`] reads them.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RowPage {
    /// The rows that were read.
    pub rows: Vec<(PublicId, Selected)>,
    /// The ids of rows that fail their checks.
    pub damaged: Vec<PublicId>,
    /// The place at which the next page begins; `None` if this is the last one.
    pub next: Option<String>,
}

impl RowPage {
    /// A page without damaged rows.
    ///
    /// ```
    /// assert!(sessile::rows::RowPage::new(vec![], None).next.is_none());
    /// ```
    #[must_use]
    pub fn new(rows: Vec<(PublicId, Selected)>, next: Option<String>) -> Self {
        Self { rows, damaged: Vec::new(), next }
    }
}

/// The rows that [`Rows::sweep`] has removed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Swept {
    /// The number of rows, those of moved ids included.
    pub rows: usize,
    /// The sessions among them, if they were asked for. A session whose row fails its checks has no record.
    pub sessions: Vec<EndedSession>,
}

impl Swept {
    /// This many rows, and the sessions among them.
    ///
    /// ```
    /// assert_eq!(sessile::rows::Swept::new(1, vec![]).rows, 1);
    /// ```
    #[must_use]
    pub fn new(rows: usize, sessions: Vec<EndedSession>) -> Self {
        Self { rows, sessions }
    }
}

impl<R: Rows> Admin for RowStore<R> {
    fn sweep_with(&self, options: &SweepOptions, progress: SweepProgressFn<'_>) -> Result<SweepReport> {
        self.tally.read(self.sweep_rows(options, progress))
    }

    fn load_by_id(&self, id: &PublicId) -> Result<Lookup> {
        self.tally.read(self.attempts().and_then(|mut attempts| {
            Ok(match self.state(id, &mut attempts)? {
                State::Live(row) => Lookup::Live(Live { record: row.record, id: *id }),
                State::Moved(moved) => Lookup::Absent(Absent::Moved(moved.to_moved(*id))),
                State::Absent(absent) => Lookup::Absent(absent),
            })
        }))
    }

    fn delete_by_id(&self, id: &PublicId) -> Result<Option<PublicId>> {
        let removed = self.end_by_id(*id)?;
        self.observe_ended(&removed);
        Ok(EndedSession::live_id(removed))
    }

    fn import(&self, id: &PublicId, record: &Record, how: Durability) -> Result<bool> {
        let mut removed = Vec::new();
        let imported = self.tally.save(self.import_row(id, record, how, &mut removed), |imported| *imported);
        self.observe_ended(&removed);
        imported
    }

    fn scan(&self, from: Option<&Cursor>, limit: usize) -> Result<ScanPage> {
        self.tally.read(self.scan_rows(from, limit.max(1)))
    }

    fn count(&self) -> Result<u64> {
        self.tally.read(self.ask(|until| self.rows.count(until)))
    }

    fn stats(&self) -> Stats {
        Stats { loads: self.loads(), ..self.tally.stats() }
    }

    fn health(&self) -> Result<()> {
        self.tally.read(self.ask(|until| self.rows.cut_offs(None, until))).map(drop)
    }

    fn check_process(&self) -> Result<()> {
        self.queues.check_process()
    }
}

impl<R: Rows> RowStore<R> {
    /// Removes a session by its public id, as one call.
    pub(super) fn end_by_id(&self, id: PublicId) -> Result<Option<EndedSession>> {
        let removed = self.attempts().and_then(|mut attempts| self.remove_session(id, &mut attempts));
        self.tally.end_session(removed)
    }

    /// Reports sessions that no request has ended. The reason is an operator's wish for those that were live.
    fn observe_ended<'a>(&self, removed: impl IntoIterator<Item = &'a EndedSession>) {
        self.options.observer.notify_ends(removed, EndReason::Operator);
    }

    /// Runs one operation as a call of its own: until it is answered, or the time limit is over.
    fn ask<T>(&self, run: impl FnMut(Instant) -> Result<T>) -> Result<T> {
        self.repeat(&mut self.attempts()?, run)
    }

    fn sweep_rows(&self, options: &SweepOptions, progress: SweepProgressFn<'_>) -> Result<SweepReport> {
        let began = Instant::now();
        options.check()?;
        let (mut report, mut pace) = (SweepReport::new(), Pace::new(options.budget, progress));
        let end = if options.dry_run {
            self.count_over(&mut report, &mut pace)?
        } else {
            let most = if self.options.observer.is_set() { OBSERVED_BATCH_MAX } else { BATCH_MAX };
            // At a limit of few rows a second, a batch of many would be followed by a long rest.
            let batch = match options.budget {
                Budget::PerSecond(rows) => most.min(rows as usize),
                Budget::CpuPercent(_) => most,
            };
            self.remove_over(batch, &mut report, &mut pace)?
        };
        if pace.panicked {
            return Err(Error::new(ErrorKind::Panicked, "sweep session store")
                .with_reason("the `progress` function panicked; the work until then is done"));
        }
        if end.is_break() && report.failed == 0 {
            report.outcome = SweepOutcome::Cancelled;
        }
        report.elapsed = began.elapsed();
        Ok(report)
    }

    /// Removes rows that are over until there are no more, or until the sweep is stopped. A failure after the first
    /// batch ends the sweep, and its report says so.
    fn remove_over(
        &self,
        batch: usize,
        report: &mut SweepReport,
        pace: &mut Pace<'_>,
    ) -> Result<ControlFlow<()>> {
        let mut flow = pace.begin(SweepPhase::Rows, 0, report);
        while flow.is_continue() {
            // Each batch has the time limit of one call. If the answer to a batch is lost, it may have been done, so it
            // is not counted.
            let Swept { rows: removed, sessions } = match self.sweep_batch(batch) {
                Ok(swept) => swept,
                Err(error) if report.removed > 0 => {
                    report.fail(error);
                    report.outcome = SweepOutcome::Failed;
                    return Ok(Break(()));
                }
                Err(error) => return Err(error),
            };
            report.removed += removed as u64;
            self.tally.add_swept(removed as u64);
            pace.done = report.removed;
            self.observe_ended(&sessions);
            if removed < batch {
                return Ok(Continue(()));
            }
            flow = pace.after(u32::try_from(removed).unwrap_or(u32::MAX), report);
        }
        Ok(flow)
    }

    /// Removes a batch of rows as one call, with their sessions for the observer, if there is one.
    fn sweep_batch(&self, batch: usize) -> Result<Swept> {
        self.ask(|until| self.rows.sweep(batch, self.options.observer.is_set(), until))
    }

    /// Counts the rows that a sweep would remove.
    fn count_over(&self, report: &mut SweepReport, pace: &mut Pace<'_>) -> Result<ControlFlow<()>> {
        let mut from = None;
        if pace.begin(SweepPhase::Rows, 0, report).is_break() {
            return Ok(Break(()));
        }
        loop {
            let ScanPage { sessions, next, .. } = self.scan_rows(from.as_ref(), BATCH_MAX)?;
            let now = self.rows.now();
            let is_over = |found: &&Scanned| match found {
                Scanned::Expired(_) | Scanned::CutOff(_) => true,
                Scanned::Moved(moved) => !moved.is_within_grace(now),
                Scanned::Live(_) | Scanned::Damaged(_) => false,
            };
            report.removed += sessions.iter().filter(is_over).count() as u64;
            let read = sessions.len();
            pace.done += read as u64;
            from = next;
            if from.is_none() {
                return Ok(Continue(()));
            }
            if pace.after(u32::try_from(read).unwrap_or(u32::MAX), report).is_break() {
                return Ok(Break(()));
            }
        }
    }

    fn scan_rows(&self, from: Option<&Cursor>, limit: usize) -> Result<ScanPage> {
        let from = from.map(Cursor::as_str);
        let RowPage { rows, damaged, next } = self.ask(|until| self.rows.scan(from, limit, until))?;
        let now = self.rows.now();
        let scanned = |(id, Selected { stored, cut_offs }): (PublicId, Selected)| match stored {
            Stored::Moved(moved) => Scanned::Moved(moved.to_moved(id)),
            Stored::Session(Row { record, .. }) if record.is_expired(now) => {
                Scanned::Expired(Live { record, id })
            }
            Stored::Session(row) if !row.cut_offs.stands(cut_offs) => {
                Scanned::CutOff(Live { record: row.record, id })
            }
            Stored::Session(row) => Scanned::Live(Live { record: row.record, id }),
        };
        let mut sessions: Vec<_> = rows.into_iter().map(scanned).collect();
        if !damaged.is_empty() {
            sessions.extend(damaged.into_iter().map(Scanned::Damaged));
            sessions.sort_by_key(Scanned::id);
        }
        Ok(ScanPage::new(sessions, next.map(Cursor::new)))
    }

    /// Imports a session. Adds to `removed` what was in its place, and was over.
    fn import_row(
        &self,
        id: &PublicId,
        record: &Record,
        how: Durability,
        removed: &mut Vec<EndedSession>,
    ) -> Result<bool> {
        let mut attempts = self.attempts()?;
        let mut record = record.clone();
        record.set_cut_off(0);
        self.check_limits(&record, None)?;
        let row = Row::new(Tags::first(self.tags.draw()?), CutOffs::default(), record);
        let _turn = self.turn(id, &attempts)?;
        loop {
            match self.rows.import(id, &row, self.resolved(how), attempts.until()) {
                Ok(true) => return Ok(self.answered(true)),
                Ok(false) => self.answered(()),
                // The import is not sent again: the first one may arrive late, after the session has ended.
                Err(lost) if lost.kind() == ErrorKind::Unanswered => {
                    self.note(&lost);
                    return match self.select(id, &mut attempts) {
                        Ok(Some(Selected { stored: Stored::Session(found), .. }))
                            if found.tags.contains(row.tags.newest()) =>
                        {
                            Ok(true)
                        }
                        _ => Err(lost),
                    };
                }
                Err(error) if attempts.again(&error) => {
                    self.note(&error);
                    continue;
                }
                Err(error) => {
                    self.note(&error);
                    return Err(error);
                }
            }
            if !self.make_room(id, &mut attempts, removed)? {
                return Ok(false);
            }
            if !attempts.after_race() {
                return Err(Error::new(ErrorKind::Busy, format!("import session {id}"))
                    .with_reason("others wrote under its id for the whole time limit"));
            }
        }
    }

    /// Removes the row under an id if it is over. Returns whether the id is free now.
    fn make_room(
        &self,
        id: &PublicId,
        attempts: &mut Attempts,
        removed: &mut Vec<EndedSession>,
    ) -> Result<bool> {
        let Some(Selected { stored, cut_offs }) = self.select(id, attempts)? else { return Ok(true) };
        let now = self.rows.now();
        match stored {
            Stored::Session(row) if self.over(&row, cut_offs).is_some() => {
                if let Removed::Session(session) = self.remove(id, attempts)? {
                    removed.push(session);
                }
            }
            // Only a sweep removes the row of a moved id. It may need several batches.
            Stored::Moved(moved) if !moved.to_moved(*id).is_within_grace(now) => {
                let gives = self.options.observer.is_set();
                let swept =
                    self.repeat(attempts, |until| self.rows.sweep(OBSERVED_BATCH_MAX, gives, until))?;
                self.tally.add_swept(swept.rows as u64);
                removed.extend(swept.sessions);
            }
            Stored::Session(_) | Stored::Moved(_) => return Ok(false),
        }
        Ok(true)
    }
}
