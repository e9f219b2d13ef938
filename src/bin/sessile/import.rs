//! `sessile import`: sessions that were exported, line by line.
//!
//! A wrong line is listed, and the next line is read. A failure that would repeat on the next line (a disk that is full
//! or read-only) ends the import, and the remaining lines are counted.
use crate::args::Import;
use crate::session_json::{FORM, SessionJson, Trailer, unreadable};
use crate::store::AnyStore;
use crate::terminal::{Progress, error_chain, json_line, print};
use crate::{Access, Failure, Outcome, VerbResult};
use indicatif::HumanCount;
use serde_json::json;
use sessile::admin::Scanned;
use sessile::record::Login;
use sessile::{Admin, Durability, Error, ErrorKind, Lookup, PublicId, Record};
use std::collections::HashMap;
use std::io::{self, BufRead, IsTerminal, Read};
use std::time::Instant;

/// The number of lines that may be unreadable before the first readable one. After that, the input is refused, because
/// it is not an export.
const UNREADABLE_MAX: u64 = 100;

pub(crate) fn import(args: &Import, json: bool) -> VerbResult {
    let began = Instant::now();
    let store = AnyStore::open(&args.place, Access::Create)?;
    let how = if args.power_safe { Durability::PowerSafe } else { Durability::Relaxed };
    let bar = Progress::counting().unless(io::stdin().is_terminal());
    let mut importing = Importing {
        store: store.admin(),
        how,
        is_mirror: args.mirror,
        bar,
        counts: Counts::default(),
        taken: HashMap::new(),
    };
    let mut input = Input::new(io::stdin().lock(), args.partial);
    let stopped = importing.read_all(&mut input);
    if args.mirror && stopped.is_none() {
        importing.delete_others(&store, input.cut().is_none())?;
    }
    let Importing { bar, mut counts, .. } = importing;
    if let Some(reason) = &stopped {
        bar.warn(reason);
        // The lines after a failure are counted and not tried; the last line is checked.
        while input.next().is_ok_and(|line| line.is_some()) {
            counts.not_tried += 1;
        }
    }
    if let Some(text) = input.cut() {
        bar.warn(text);
    }
    if counts.not_tried > 0 {
        let not_tried = HumanCount(counts.not_tried);
        bar.warn(format_args!(
            "{not_tried} lines were not tried; import again when that is fixed: sessions that exist are left alone"
        ));
    }
    drop(bar);
    let seconds = began.elapsed().as_secs_f64();
    if json {
        print(json_line(&json!({
            "imported": counts.imported,
            "existing": counts.existing,
            "replaced": counts.replaced,
            "deleted": counts.deleted,
            "expired": counts.expired,
            "failed": counts.failed,
            "not_tried": counts.not_tried,
            "whole": input.is_whole(),
            "seconds": seconds,
        })))?;
    } else {
        print(format_args!("{}; {seconds:.1} s", counts.in_words()))?;
    }
    Ok(match stopped {
        Some(_) => Outcome::Incomplete,
        None if counts.failed > 0 || input.cut().is_some() => Outcome::Findings,
        None => Outcome::Ok,
    })
}

/// The numbers of lines with each result.
#[derive(Default)]
struct Counts {
    imported: u64,
    existing: u64,
    /// Sessions that were older than in the input.
    replaced: u64,
    /// Sessions that the input does not have.
    deleted: u64,
    expired: u64,
    failed: u64,
    not_tried: u64,
    /// Lines that hold a session, whatever the result.
    read: u64,
}

impl Counts {
    fn in_words(&self) -> String {
        let words = format!(
            "{} sessions imported, {} were there, {} had expired, {} failed",
            HumanCount(self.imported),
            HumanCount(self.existing),
            HumanCount(self.expired),
            HumanCount(self.failed),
        );
        let words = if self.replaced + self.deleted == 0 {
            words
        } else {
            let (replaced, deleted) = (HumanCount(self.replaced), HumanCount(self.deleted));
            format!("{words}, {replaced} replaced, {deleted} deleted")
        };
        if self.not_tried == 0 { words } else { format!("{words}, {} not tried", HumanCount(self.not_tried)) }
    }
}

/// The reason for which a line was not imported.
enum Refusal {
    /// The line is wrong. The next one may be right.
    Line(String),
    /// The store cannot take any session.
    Store(Error),
}

struct Importing<'a> {
    store: &'a dyn Admin,
    how: Durability,
    /// Whether older sessions are replaced, and those that the input does not have are deleted.
    is_mirror: bool,
    bar: Progress,
    counts: Counts,
    /// For each id that was imported, or is in the store, the number of its line.
    taken: HashMap<PublicId, u64>,
}

impl Importing<'_> {
    /// Imports the sessions line by line. If it stops before the end of the input, returns the reason.
    fn read_all(&mut self, input: &mut Input<impl BufRead>) -> Option<String> {
        loop {
            let number = match input.next() {
                Ok(Some(number)) => number,
                Ok(None) => return None,
                Err(error) => return Some(format!("failed to read standard input: {error}")),
            };
            match input.line().map_err(Refusal::Line).and_then(|line| self.import(number, line)) {
                Ok(()) => {}
                Err(Refusal::Line(text)) => {
                    self.counts.failed += 1;
                    self.bar.warn(format_args!("line {number}: {text}"));
                    if self.counts.failed == UNREADABLE_MAX && self.counts.read == 0 {
                        return Some(format!(
                            "none of {UNREADABLE_MAX} lines is a session: this is no export"
                        ));
                    }
                }
                Err(Refusal::Store(error)) => {
                    self.counts.failed += 1;
                    return Some(format!("line {number}: {}", error_chain(&error)));
                }
            }
            let Counts { imported, existing, expired, failed, .. } = self.counts;
            self.bar.at(imported + existing + expired + failed);
        }
    }

    fn import(&mut self, number: u64, line: &[u8]) -> Result<(), Refusal> {
        let session = SessionJson::read(line).map_err(Refusal::Line)?;
        self.counts.read += 1;
        let (id, record) = session.into_record().map_err(Refusal::Line)?;
        if let Some(earlier) = self.taken.get(&id) {
            return Err(Refusal::Line(format!("it has the id of line {earlier}, which was taken")));
        }
        if record.is_expired(self.store.now()) {
            self.counts.expired += 1;
            return Ok(());
        }
        let refuse = |error: Error| match error.kind() {
            ErrorKind::Corrupt
            | ErrorKind::NotASessionFile
            | ErrorKind::NewerFormat
            | ErrorKind::OlderFormat
            | ErrorKind::Busy
            | ErrorKind::TooLarge
            | ErrorKind::TooManyEntries
            | ErrorKind::Name
            | ErrorKind::Value => Refusal::Line(error_chain(&error)),
            _ => Refusal::Store(error),
        };
        let is_new = self.store.import(&id, &record, self.how).map_err(refuse)?;
        self.taken.insert(id, number);
        let kind = if is_new {
            &mut self.counts.imported
        } else if self.is_mirror && self.replace(&id, &record).map_err(refuse)? {
            &mut self.counts.replaced
        } else {
            &mut self.counts.existing
        };
        *kind += 1;
        Ok(())
    }

    /// Replaces the session in the store if it is older. If the import is killed in between, the session is missing
    /// until the import is repeated.
    fn replace(&self, id: &PublicId, record: &Record) -> Result<bool, Error> {
        let Lookup::Live(live) = self.store.load_by_id(id)? else { return Ok(false) };
        if live.record.timing().touched > record.timing().touched || is_same(&live.record, record) {
            return Ok(false);
        }
        self.store.delete_by_id(id)?;
        self.store.import(id, record, self.how)
    }

    /// Deletes the live sessions that the input does not have, if all of it was read and each line was right.
    fn delete_others(&mut self, store: &AnyStore, is_whole: bool) -> Result<(), Failure> {
        if !is_whole || self.counts.failed > 0 {
            self.bar.warn("the input was not read whole, so no session was deleted");
            return Ok(());
        }
        let Self { taken, counts, bar, .. } = self;
        let failed = store.scan(None, bar, |bar, found| {
            let Scanned::Live(live) = found else { return Ok(true) };
            if !taken.contains_key(&live.id) {
                match store.admin().delete_by_id(&live.id) {
                    Ok(ended) => counts.deleted += u64::from(ended.is_some()),
                    Err(error) => {
                        counts.failed += 1;
                        bar.warn(error_chain(&error));
                    }
                }
            }
            Ok(true)
        })?;
        self.counts.failed += failed;
        Ok(())
    }
}

/// Whether two records are the same but for the number of a cut-off, which is of one store.
fn is_same(one: &Record, other: &Record) -> bool {
    let [one, other] = [one, other].map(|record| {
        let mut record = record.clone();
        record.set_login(Login { cut_off: 0, ..record.login() });
        record
    });
    one == other
}

// ----------------------------------------------------------------------------------------------------------- lines

/// The largest number of bytes of a line: the largest record, with each byte in its longest form in JSON.
const LINE_BYTES_MAX: u64 = 128 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The lines of one export, or of several exports in a row. Checks that all lines are there.
struct Input<R> {
    from: R,
    line: Vec<u8>,
    is_too_long: bool,
    number: u64,
    /// Whether lines may be missing at the end: the input is a part of an export, or cannot be read any further.
    is_partial: bool,
    /// The number of lines since the last line that counts them.
    since_count: u64,
    has_count: bool,
    /// The error of a count that does not match.
    miscount: Option<String>,
    /// The error for lines of another form than [`FORM`].
    other_form: Option<String>,
}

impl<R: BufRead> Input<R> {
    fn new(from: R, is_partial: bool) -> Self {
        Self {
            from,
            line: Vec::new(),
            is_too_long: false,
            number: 0,
            is_partial,
            since_count: 0,
            has_count: false,
            miscount: None,
            other_form: None,
        }
    }

    /// Reads the next line that should hold a session. Returns its number, from 1; `None` at the end.
    fn next(&mut self) -> io::Result<Option<u64>> {
        let next = self.find_next();
        self.is_partial |= next.is_err();
        next
    }

    fn find_next(&mut self) -> io::Result<Option<u64>> {
        loop {
            self.line.clear();
            let read = self.from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.number == 1 && self.line.starts_with(BYTE_ORDER_MARK) {
                self.line.drain(..BYTE_ORDER_MARK.len());
            }
            self.is_too_long = read as u64 == LINE_BYTES_MAX && !self.line.ends_with(b"\n");
            if self.is_too_long {
                self.from.skip_until(b'\n')?;
            } else if self.line.trim_ascii().is_empty() || self.is_count() {
                continue;
            }
            self.since_count += 1;
            return Ok(Some(self.number));
        }
    }

    /// Whether this line is the one that counts the sessions of an export. If so, the count is checked.
    fn is_count(&mut self) -> bool {
        let Some(trailer) = Trailer::read(self.line.trim_ascii()) else { return false };
        let read = std::mem::take(&mut self.since_count);
        self.has_count = true;
        let wrong = match trailer {
            Ok(Trailer { form, .. }) if form != FORM => {
                let number = self.number;
                self.other_form.get_or_insert(format!(
                    "line {number}: the export has form {form}, and this version of sessile knows {FORM}: what was imported \
                     may be wrong; use a newer version"
                ));
                return true;
            }
            Ok(trailer) if trailer.sessions == read => return true,
            Ok(Trailer { sessions, .. }) => {
                format!("it counts {} sessions, and there are {}", HumanCount(sessions), HumanCount(read))
            }
            Err(error) => unreadable(&error),
        };
        self.miscount.get_or_insert(format!("line {}: {wrong}", self.number));
        true
    }

    /// The line, without the white space around it.
    fn line(&self) -> Result<&[u8], String> {
        if self.is_too_long {
            Err("it is longer than any session is".into())
        } else {
            Ok(self.line.trim_ascii())
        }
    }

    /// At the end of the input: whether the lines were counted by a last line.
    fn is_whole(&self) -> bool {
        self.has_count && self.since_count == 0 && self.miscount.is_none() && self.other_form.is_none()
    }

    /// At the end of the input: the error if lines are missing or have another form. Missing lines are no error if they
    /// are expected, or if the input could not be read.
    fn cut(&self) -> Option<String> {
        if let Some(other_form) = &self.other_form {
            return Some(other_form.clone());
        }
        if self.is_partial || self.is_whole() {
            return None;
        }
        let without_count = "the last line, which counts the sessions, is missing";
        let found = self.miscount.as_deref().unwrap_or(without_count);
        Some(format!(
            "{found}: the export was cut short, or is a part of one; with --partial that is as it should be"
        ))
    }
}
