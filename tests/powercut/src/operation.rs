//! The operations of the workload and their notes. An intention is noted before the engine writes anything; an
//! acknowledgement is noted when the engine has returned.
//!
//! All processes learn the sessions from a directory in memory, not on the disk under test. It has one file for each
//! life, with its token. The file is created when the life has been acknowledged, and not before.
use crate::content;
use crate::disk::now;
use crate::log::{Life, Note, Op};
use anyhow::{Context, Result};
use sessile::store::GRACE_MAX;
use sessile::{Durability, ErrorKind, FileStore, Lookup, Record, Rotation, Saved, Store, Token, Verdict};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

/// A grace period that is longer than every workload.
pub(crate) const GRACE: Duration = GRACE_MAX;

/// The file to which notes are written.
#[derive(Debug)]
pub(crate) struct Notes(File);

impl Notes {
    /// Opens the file for notes on a disk that is being recorded.
    ///
    /// # Errors
    ///
    /// The file does not exist.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::options().write(true).open(path);
        Ok(Self(file.with_context(|| format!("open the notes {}", path.display()))?))
    }

    /// Writes a note. When this returns, the note is in the log.
    pub(crate) fn say(&self, note: Note) {
        let bytes = postcard::to_stdvec(&note).expect("a note is a few numbers");
        // If the disk is gone, the workload cannot continue.
        (&self.0).write_all(&bytes).expect("the disk takes notes for as long as there is a workload");
    }
}

/// The table of sessions: a directory with a file for each life, which holds its token.
#[derive(Clone, Debug)]
pub(crate) struct Table(PathBuf);

impl Table {
    /// The table in this directory.
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The lives in the table.
    pub(crate) fn lives(&self) -> Vec<Life> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// The token of a life; `None` if another process has just removed its file, or is just writing it.
    pub(crate) fn token(&self, life: Life) -> Option<Token> {
        Token::parse(&fs::read_to_string(self.0.join(life.to_string())).ok()?)
    }

    fn put(&self, life: Life, token: &Token) -> Result<()> {
        fs::write(self.0.join(life.to_string()), token.expose()).context("put a session into the table")
    }

    fn remove(&self, life: Life) {
        // Another process may have removed the file.
        let _ = fs::remove_file(self.0.join(life.to_string()));
    }
}

/// An operation on a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Creates a session that lives for this time.
    Create(Duration),
    /// Writes the next version.
    Save,
    /// Writes a version that needs a larger file, if there is one.
    Grow,
    /// Writes the next version, and holds the lock for this time.
    Linger(Duration),
    /// Makes the newest version as durable as requested, without changing it.
    Keep,
    /// Rotates the session to another id, which begins another life.
    Rotate,
    /// The same, and holds the lock for this time before the successor is made.
    LingerInRotation(Duration),
    /// A rotation with a grace period of this length, in which the old id is known as moved.
    Move(Duration),
    /// Deletes the session.
    Destroy,
    /// Ends all sessions of the session's user.
    CutOff,
}

/// An operation on a certain session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    /// The number of the operation in the notes, and that of the life that a creation or a rotation begins.
    pub(crate) op: Op,
    pub(crate) life: Life,
    pub(crate) power_safe: bool,
}

/// A client of the store. It performs operations and notes them.
#[derive(Debug)]
pub(crate) struct Client {
    /// The store.
    pub(crate) store: Arc<FileStore>,
    /// The file that takes its notes.
    pub(crate) notes: Notes,
    /// The table of all sessions.
    pub(crate) table: Table,
}

impl Client {
    /// Performs an operation. Returns whether it was done: the session may no longer exist, or the lock may not have
    /// been free in time.
    ///
    /// # Errors
    ///
    /// The engine failed for a reason that must not occur here.
    pub(crate) fn perform(&self, call: Call) -> Result<bool> {
        let Call { operation, op, life, power_safe } = call;
        let how = if power_safe { Durability::PowerSafe } else { Durability::Relaxed };
        let say = |note| self.notes.say(note);
        let returned = match (operation, self.table.token(life)) {
            (Operation::Create(lifetime), _) => {
                let (begin, instant) = (now(), |micros| UNIX_EPOCH + Duration::from_micros(micros));
                let deadline = begin + u64::try_from(lifetime.as_micros()).context("take a lifetime")?;
                let mut record = Record::new(instant(begin), instant(deadline));
                content::fill(&mut record, op, 1).context("fill a record")?;
                record.set_user(&op.to_string()).context("set the user of a record")?;
                say(Note::Creating { op, life: op, deadline, power_safe });
                self.store.create(&record, how).map(Some)
            }
            (_, None) => return Ok(false),
            (Operation::Destroy, Some(token)) => {
                say(Note::Ending { op, life });
                self.store.delete(&token).context("end a session")?;
                say(Note::Done { op, file: None });
                self.table.remove(life);
                return Ok(true);
            }
            (Operation::CutOff, Some(token)) => {
                let Lookup::Live(live) = self.store.load(&token).context("load a session")? else {
                    return Ok(false);
                };
                let user = live.record.user().context("look for the user of a session")?;
                say(Note::CuttingOff { op, user: user.parse().context("read the user of a session")? });
                match self.store.delete_of(user, None) {
                    // Another process may have been stopped while it held the lock.
                    Err(error) if error.kind() == ErrorKind::Busy => return Ok(false),
                    cut => cut.context("end the sessions of a user")?,
                }
                say(Note::Done { op, file: None });
                self.table.remove(life);
                return Ok(true);
            }
            (Operation::Save | Operation::Grow | Operation::Linger(_), Some(token)) => {
                let slot = if operation == Operation::Grow { self.slot_size(&token)? } else { None };
                let mut change = |record: &mut Record| {
                    let held = version_of(record);
                    let longer = slot.and_then(|slot| content::longer_than(slot, life, held));
                    let version = longer.unwrap_or(held + 1);
                    say(Note::Saving { op, life, version, power_safe });
                    if let Operation::Linger(time) = operation {
                        thread::sleep(time);
                    }
                    content::fill(record, life, version).map(|()| Verdict::Write)
                };
                self.store.update(&token, &mut change, how)
            }
            (Operation::Keep, Some(token)) => {
                let mut change = |record: &mut Record| {
                    say(Note::Keeping { op, life, version: version_of(record), power_safe });
                    Ok(Verdict::Keep)
                };
                self.store.update(&token, &mut change, how)
            }
            (Operation::Rotate, Some(token)) => self.rotate(op, &token, &how.into(), Duration::ZERO),
            (Operation::LingerInRotation(time), Some(token)) => self.rotate(op, &token, &how.into(), time),
            (Operation::Move(grace), Some(token)) => {
                self.rotate(op, &token, &Rotation::new(how).grace(grace), Duration::ZERO)
            }
        };
        self.conclude(&call, returned)
    }

    /// Rotates a session to the life of this operation, and holds its lock for this time before. The life that is
    /// rotated is read from the record that the store finds by the token.
    fn rotate(
        &self,
        op: Op,
        token: &Token,
        how: &Rotation<'_>,
        linger: Duration,
    ) -> sessile::Result<Option<Saved>> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let mut change = |record: &mut Record| {
            let since = record.deadline().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.notes.say(Note::Rotating {
                op,
                life: content::identify(record).expect("a live session is one of ours").0,
                successor: op,
                deadline: micros(since),
                grace: micros(how.grace),
                login: how.login.is_some(),
            });
            thread::sleep(linger);
            content::fill(record, op, 1).map(|()| Verdict::Write)
        };
        self.store.rotate(token, &mut change, how)
    }

    /// Moves a life to another one that no other thread learns of, and ends that one, or logs in, by the token of the
    /// first: the store goes on from there to the second one.
    ///
    /// # Errors
    ///
    /// The engine failed for a reason that must not occur here.
    pub(crate) fn go_on_from_moved(&self, life: Life, [moving, op]: [Op; 2], logs_in: bool) -> Result<()> {
        let Some(token) = self.table.token(life) else { return Ok(()) };
        let moved = Rotation::default().grace(GRACE);
        match self.rotate(moving, &token, &moved, Duration::ZERO) {
            Ok(Some(saved)) => {
                self.notes.say(Note::Done { op: moving, file: Some(*saved.live.id.as_bytes()) });
                self.table.remove(life);
            }
            Ok(None) => {
                self.notes.say(Note::Missed { op: moving });
                self.table.remove(life);
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::Busy => return Ok(()),
            Err(error) => return Err(error).context("move a session"),
        }
        if logs_in {
            return self.log_in(&token, op, moving);
        }
        self.notes.say(Note::Ending { op, life: moving });
        self.store.delete(&token).context("end a session by a moved token")?;
        self.notes.say(Note::Done { op, file: None });
        Ok(())
    }

    /// Ends all sessions of a life's user, and then logs in by the token of that life: the store finds no session.
    ///
    /// # Errors
    ///
    /// The engine failed for a reason that must not occur here.
    pub(crate) fn log_in_after_cut_off(&self, life: Life, [cutting, op]: [Op; 2]) -> Result<()> {
        let Some(token) = self.table.token(life) else { return Ok(()) };
        let call = Call { operation: Operation::CutOff, op: cutting, life, power_safe: true };
        if self.perform(call)? { self.log_in(&token, op, life) } else { Ok(()) }
    }

    /// Logs in by a token, in a rotation with a grace period. The token leads to this life.
    fn log_in(&self, token: &Token, op: Op, life: Life) -> Result<()> {
        let call = Call { operation: Operation::Rotate, op, life, power_safe: false };
        let how = Rotation::default().grace(GRACE).login("ada");
        self.conclude(&call, self.rotate(op, token, &how, Duration::ZERO)).map(drop)
    }

    /// The number of bytes that a slot of the session's file has; `None` if the session has ended.
    fn slot_size(&self, token: &Token) -> Result<Option<usize>> {
        let Lookup::Live(live) = self.store.load(token).context("load a session")? else { return Ok(None) };
        let name = live.id.to_string();
        let file = self.store.path().join(&name[..2]).join(&name[2..]);
        // The session may have ended since.
        Ok(fs::metadata(file).ok().and_then(|file| usize::try_from(file.len() / 2).ok()))
    }

    /// Notes the result of an operation.
    fn conclude(&self, call: &Call, returned: sessile::Result<Option<Saved>>) -> Result<bool> {
        let Call { operation, op, life, .. } = *call;
        let saved = match returned {
            Ok(saved) => saved,
            // The operation has no result, as if its caller had been killed.
            Err(error) if error.kind() == ErrorKind::Busy => return Ok(false),
            Err(error) => return Err(error).with_context(|| format!("do {operation:?}")),
        };
        let Some(saved) = saved else {
            self.notes.say(Note::Missed { op });
            self.table.remove(life);
            return Ok(false);
        };
        let rotates =
            matches!(operation, Operation::Rotate | Operation::LingerInRotation(_) | Operation::Move(_));
        let begins = rotates || matches!(operation, Operation::Create(_));
        self.notes.say(Note::Done { op, file: begins.then(|| *saved.live.id.as_bytes()) });
        if begins {
            self.table.put(op, &saved.token)?;
        }
        if rotates {
            self.table.remove(life);
        }
        Ok(true)
    }
}

/// The version of a live session in the workload.
fn version_of(record: &Record) -> u32 {
    content::identify(record).expect("a live session is one of ours").1
}
