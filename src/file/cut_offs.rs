//! "Log out everywhere": the log of cut-offs, the file `cutoffs` in the root, as one open store has read it.
//!
//! One appended and synced entry ends all sessions of a user, or all sessions, whatever their number. A session's
//! record carries the number of the last cut-off when it began or its user logged in; a later entry that names its user
//! ends it. The bytes are in [`format`](crate::_documentation::format), the argument is in
//! [`design`](crate::_documentation::design). This module opens no session's file, takes no session's lock, and does
//! not know the counters' file: callers pass the value of the shared counter.
//!
//! Invariants:
//!
//! - **A number is used once, and numbers ascend.** A number is at least the time in microseconds, so a later cut-off
//!   has a greater one also after an older log was restored.
//! - **The log is never pruned.** It is rewritten without entries that later ones supersede (`log`), and a session that
//!   is restored from a backup is still ended by it.
//! - **One writer at a time**: the turn among threads, then `flock` on the file, checked to have the name.
//! - **The counter moves after the entry was synced, and before the call returns.** Readers compare the counter, and
//!   read the log only if it has moved. Once a second, they also ask for the metadata under the file's name.
//! - **A missing log, and one that is damaged before its last entry, end every session with a user**, because it may
//!   have named that user. A torn last entry was not acknowledged: it is ignored, and cut off before the next one is
//!   written.
//! - A reader's `view` of the log changes when the log's meaning may have. A cached session remembers the view in which
//!   it was checked.
mod append;
mod bytes;
mod log;

pub(super) use append::CutOff;

use super::disk::{self, Access, Inode, Root, StatWithTimes};
use super::errors::io_error;
use super::flock;
use super::layout::{CUT_OFFS, PARAMETERS};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::id::PublicId;
use crate::queue::busy;
use crate::record::Record;
use crate::sync::{Instant, Mutex, RwLock};
use bytes::LINE;
use log::Log;
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The part of the log that is read at once, in bytes: the last entry in memory, and others.
const CHUNK_BYTES: usize = if cfg!(test) { 4 * LINE } else { 1 << 20 };
/// How long a reader that finds damage waits for a writer before it reads once more.
const WRITER_WAIT: Duration = Duration::from_secs(5);

const MISSING: &str = "it is missing";
const DAMAGED: &str = "it is damaged";
const REMEDY: &str =
    "restore it from a backup, or end all sessions, with FileStore::delete_all or `sessile delete --all`";

/// The value of the shared counter, and the number of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counter {
    pub(super) counters: u64,
    pub(super) value: u64,
}

/// A number for the meaning of the log at one instant, as this store read it; 30 bits. It is never
/// [`NONE`](View::NONE).
///
/// The number of a view comes back after 2^30 others, each of which costs a reading of the log. A cached session is
/// trusted for a minute only, so none is trusted by a view that has come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View(u32);

impl View {
    /// That of a session that was not checked.
    pub(super) const NONE: Self = Self(0);
    pub(super) const BITS: u32 = 30;

    pub(super) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(super) const fn to_bits(self) -> u32 {
        self.0
    }

    fn next(self) -> Self {
        Self((self.0 + 1) % (1 << Self::BITS)).or_first()
    }

    fn or_first(self) -> Self {
        if self == Self::NONE { Self(1) } else { self }
    }
}

/// The log of one open store.
pub(super) struct CutOffs {
    root: Root,
    observer: Observer,
    /// Whether a missing log is a loss. Otherwise the store is of an earlier version, and read-only.
    is_expected: bool,
    read: RwLock<Reading>,
    /// The value of the counter as of which `read` is current; for hits. It is stored after `view`.
    seen: AtomicU64,
    view: AtomicU32,
    turn: Mutex<()>,
}

/// The log, as far as it was read.
#[derive(Default)]
struct Reading {
    /// The file that was read; it is kept open, so that no other file gets its inode number.
    file: Option<(File, Inode)>,
    /// The metadata under the log's name before it was read.
    there: Option<Looks>,
    log: Log,
    /// Why the log is lost, if it is.
    lost: Option<&'static str>,
    /// The counter before the log was read; `None` if the log must be read again.
    at: Option<Counter>,
    is_read: bool,
}

/// What shows that a file was written to: its identity, its size and the time of the last write.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Looks(Inode, u64, i64, u32);

impl From<StatWithTimes> for Looks {
    fn from(there: StatWithTimes) -> Self {
        Self(there.inode, there.bytes, there.changed, there.changed_nanos)
    }
}

impl CutOffs {
    pub(super) fn new(root: &Root, observer: &Observer, is_expected: bool) -> Self {
        Self {
            root: root.clone(),
            observer: observer.clone(),
            is_expected,
            read: RwLock::new(Reading::default()),
            seen: AtomicU64::new(0),
            view: AtomicU32::new(View::NONE.0),
            turn: Mutex::default(),
        }
    }

    /// Whether a session that was checked in `view` need not be checked again, while the counter has this value.
    #[inline]
    pub(super) fn is_current(&self, counter: u64, view: View) -> bool {
        // The view is read after the value, and was stored before it: with a new value comes its view.
        counter == self.seen.load(Ordering::Acquire) && view.0 == self.view.load(Ordering::Relaxed)
    }

    /// The view of the log as it was read last.
    pub(super) fn view(&self) -> View {
        View(self.view.load(Ordering::Acquire))
    }

    /// Reads what was appended since the log was read. Returns the view of the log in memory. `counter` reads the
    /// shared counter; without one, the file is asked.
    ///
    /// # Errors
    ///
    /// The log could not be read; what was read of it before stays. A log that is lost is no error here.
    pub(super) fn refresh(&self, counter: impl Fn() -> Option<Counter>) -> Result<View> {
        {
            let read = self.read.read();
            let is_current = match counter() {
                Some(counter) => read.at == Some(counter),
                None => read.is_read && self.is_unchanged(&read)?,
            };
            if is_current {
                // Under the lock, because a view is given to a log that is read only afterwards (`doubt`).
                return Ok(self.view());
            }
        }
        self.read_again(counter, false)
    }

    /// Makes the next check read the log again, if its file was replaced or written to since it was read.
    pub(super) fn look(&self) {
        let is_changed = {
            let read = self.read.read();
            read.is_read && !self.is_unchanged(&read).unwrap_or(false)
        };
        if is_changed {
            self.doubt();
        }
    }

    /// Makes the next check of each session read the log again.
    fn doubt(&self) {
        let mut read = self.read.write();
        read.at = None;
        self.change_view();
    }

    /// Whether the name still leads to the file that was read, and that was not written to.
    fn is_unchanged(&self, read: &Reading) -> Result<bool> {
        Ok(self.stat()? == read.there)
    }

    /// The metadata under the log's name; `None` if there is no log.
    fn stat(&self) -> Result<Option<Looks>> {
        match self.root.stat_cut_offs() {
            Ok(there) => Ok(Some(there.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error("examine", error)),
        }
    }

    /// Reads the log. Returns its view. Whether the caller holds the log's lock decides whether damage may be the work
    /// of a writer.
    #[cold]
    fn read_again(&self, counter: impl Fn() -> Option<Counter>, is_locked: bool) -> Result<View> {
        let (newly_lost, view) = {
            let mut read = self.read.write();
            // Read before the file: the log in memory is then at least as new.
            let counter = counter();
            let (was_lost, bytes) = (read.lost, read.log.bytes);
            let result = self.update(&mut read, is_locked);
            read.at = counter.filter(|_| result.is_ok());
            // Also on an error, after which some entries may be in memory. A view that was never given out is the
            // first.
            let is_same = matches!(result, Ok(Read::On)) && read.log.bytes == bytes;
            if !is_same || self.view() == View::NONE {
                self.change_view();
            }
            result?;
            counter.inspect(|counter| self.seen.store(counter.value, Ordering::Release));
            // Without a parameters file, the store is being removed or recreated.
            let is_new = |reason: &&str| was_lost != Some(*reason) && self.root.stat(PARAMETERS).is_ok();
            (read.lost.filter(is_new), self.view())
        };
        if let Some(reason) = newly_lost {
            let path = self.root.path().join(CUT_OFFS);
            self.observer.notify(&Event::CutOffsLost { path: &path, reason });
        }
        Ok(view)
    }

    fn change_view(&self) {
        self.view.store(self.view().next().0, Ordering::Release);
    }

    /// Brings the log in memory up to date. On an error, the log in memory ends no session less than before.
    fn update(&self, read: &mut Reading, is_locked: bool) -> Result<Read> {
        let Some(there) = self.stat()? else {
            let lost = self.is_expected.then_some(MISSING);
            *read = Reading { lost, is_read: true, ..Reading::default() };
            return Ok(Read::Anew);
        };
        let Looks(inode, bytes, ..) = there;
        let failed = |error| self.error("read", error);
        if let Some((file, of)) = &read.file
            && (*of, read.lost) == (inode, None)
            && bytes >= read.log.bytes
            && read_on(file, &mut read.log, bytes).map_err(failed)? == End::Valid
        {
            read.there = Some(there);
            return Ok(Read::On);
        }
        let file = self.root.open_cut_offs(Access::Read).map_err(|error| self.error("open", error))?;
        let inode = disk::stat(&file).map_err(|error| self.error("examine", error))?.inode;
        let mut log = Log::default();
        let mut end = read_on(&file, &mut log, bytes).map_err(failed)?;
        if end != End::Valid && !is_locked {
            // Perhaps a writer was at work.
            let writer = flock::share(&file, Instant::now() + WRITER_WAIT);
            let writer = writer.map_err(|error| self.error("lock", error))?;
            let _writer = writer.ok_or_else(|| busy().with_path(self.root.path().join(CUT_OFFS)))?;
            log = Log::default();
            end = read_on(&file, &mut log, bytes).map_err(failed)?;
        }
        let lost = (end != End::Valid).then_some(DAMAGED);
        *read = Reading { file: Some((file, inode)), there: Some(there), log, lost, at: None, is_read: true };
        Ok(Read::Anew)
    }

    /// The number that a session's next version carries; `None` if a cut-off has ended the session, or if the log is
    /// lost and a user is logged in.
    pub(super) fn standing(&self, record: &Record, id: &PublicId) -> Option<u64> {
        let read = self.read.read();
        if read.lost.is_some() {
            return record.user().is_none().then(|| record.login().cut_off);
        }
        read.log.standing(record, id)
    }

    /// Whether a session stands that carried this number and had this user when its file was read last. If not, its
    /// file must be read again: a save may have carried the number of an excepted session on.
    pub(super) fn stands(&self, cut_off: u64, user: Option<[u8; 16]>, id: &PublicId) -> bool {
        let read = self.read.read();
        if read.lost.is_some() {
            return user.is_none();
        }
        read.log.standing_of(cut_off, || user, id).is_some()
    }

    /// Whether an entry has ended a session; not if the log is lost, because a restored log may tell otherwise.
    pub(super) fn has_ended(&self, record: &Record, id: &PublicId) -> bool {
        let read = self.read.read();
        read.lost.is_none() && read.log.standing(record, id).is_none()
    }

    /// The last number, for a session that begins or whose user logs in.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if the log is lost and the session has a user: no load would find it.
    pub(super) fn last(&self, has_user: bool) -> Result<u64> {
        let read = self.read.read();
        match read.lost {
            Some(reason) if has_user => Err(self.lost("log in", reason)),
            Some(_) => Ok(0),
            None => Ok(read.log.last),
        }
    }

    /// The number for an imported session: the last one that is not later than its login or its creation.
    ///
    /// # Errors
    ///
    /// As for [`last`](Self::last).
    pub(super) fn number_at_login(&self, record: &Record) -> Result<u64> {
        let number = self.last(record.user().is_some())?;
        let read = self.read.read();
        Ok(if read.lost.is_none() { read.log.number_at_login(record) } else { number })
    }

    /// The number of the last cut-off of all sessions; 0 if there was none.
    pub(super) fn last_of_all(&self) -> u64 {
        self.read.read().log.last_of_all()
    }

    #[cold]
    fn lost(&self, operation: &'static str, reason: &str) -> Error {
        Error::new(ErrorKind::Corrupt, format!("{operation}, because of the log of cut-offs"))
            .with_path(self.root.path().join(CUT_OFFS))
            .with_reason(format!("{reason}, so no session with a user is found; {REMEDY}"))
    }

    #[cold]
    fn error(&self, verb: &str, error: io::Error) -> Error {
        let full = error.kind() == io::ErrorKind::StorageFull;
        let error =
            io_error(format!("{verb} the log of cut-offs"), error).with_path(self.root.path().join(CUT_OFFS));
        if full { error.with_reason(self.root.enospc_reason()) } else { error }
    }
}

impl fmt::Debug for CutOffs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without its locks, which threads of a parent process may hold for ever after a fork.
        f.debug_struct("CutOffs").field("view", &self.view()).finish_non_exhaustive()
    }
}

/// How the log in memory was brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    /// By the entries behind those that were read before.
    On,
    /// From its beginning, and it may mean something else.
    Anew,
}

/// What a log ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All is valid but a torn last entry.
    Valid,
    Damaged,
    /// The last entry in memory is not where it was read.
    Other,
}

/// Reads from where the log ends in memory to the end of the file, which is at `size` or beyond. The last entry in
/// memory is read too, because an older log may have been written over the file, and entries appended to that.
fn read_on(file: &File, log: &mut Log, size: u64) -> io::Result<End> {
    loop {
        let (from, last) = log.last_line().map_or((0, None), |(at, line)| (at, Some(line)));
        // Room for one entry more shows the end of the file, which may have grown since its size was read.
        let left =
            (log.bytes - from) + size.saturating_sub(log.bytes).next_multiple_of(LINE as u64) + LINE as u64;
        let chunk = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let bytes = disk::read_at(file, from, chunk)?;
        let is_full = bytes.len() == chunk;
        let bytes = match last {
            None => &bytes[..],
            Some(last) => match bytes.strip_prefix(&last) {
                Some(rest) => rest,
                None => return Ok(End::Other),
            },
        };
        let taken = log.take(bytes);
        let rest = &bytes[usize::try_from(taken).expect("a part of it")..];
        if log.bytes == 0 {
            return Ok(End::Damaged);
        }
        if rest.len() < LINE {
            if !is_full {
                return Ok(End::Valid);
            }
        } else if !is_full || taken == 0 {
            // The first invalid entry is the last one, or nothing was written behind the valid ones.
            let is_end = rest.len() <= LINE || rest.iter().all(|byte| *byte == 0);
            return Ok(if is_end { End::Valid } else { End::Damaged });
        }
    }
}
