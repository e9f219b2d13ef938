//! The calls of the workload, each with its notes: what it is about to do, said before the engine writes anything, and that
//! it was done, said when the engine has returned.
//!
//! Which sessions there are is known to all processes by a directory in memory, not on the disk under test: one file for each
//! life, holding its token. A token is put there when its life has been acknowledged, and not before.
use crate::content;
use crate::disk::now;
use crate::log::{Life, Note, Op};
use anyhow::{Context, Result};
use sessile::{Durability, ErrorKind, FileStore, Lookup, Record, Saved, Store, Token, Verdict};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

/// Where notes go.
#[derive(Debug)]
pub(crate) struct Notes(File);

impl Notes {
    /// Opens the log of a disk that is being recorded.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::options().write(true).open(path);
        Ok(Self(file.with_context(|| format!("open the notes {}", path.display()))?))
    }

    /// Says something. When this returns, it is in the log.
    pub(crate) fn say(&self, note: Note) {
        let bytes = postcard::to_stdvec(&note).expect("a note is a few numbers");
        // A workload whose disk has gone has nothing left to do.
        (&self.0).write_all(&bytes).expect("the disk takes notes for as long as there is a workload");
    }
}

/// Which sessions there are.
#[derive(Clone, Debug)]
pub(crate) struct Table(PathBuf);

impl Table {
    /// The table in a directory.
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The lives that there are.
    pub(crate) fn lives(&self) -> Vec<Life> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// The token of a life; `None` if somebody has just ended it, or is just putting it here.
    pub(crate) fn token(&self, life: Life) -> Option<Token> {
        Token::parse(&fs::read_to_string(self.0.join(life.to_string())).ok()?)
    }

    fn put(&self, life: Life, token: &Token) -> Result<()> {
        fs::write(self.0.join(life.to_string()), token.expose()).context("put a session into the table")
    }

    fn remove(&self, life: Life) {
        // Somebody else may have done so.
        let _ = fs::remove_file(self.0.join(life.to_string()));
    }
}

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// A life begins, and expires after so long.
    Create(Duration),
    /// The next version is written.
    Save,
    /// A version is written that needs a larger file, if there is one.
    Grow,
    /// The next version is written by somebody who holds the lock for so long.
    Linger(Duration),
    /// The newest version is made as safe as is asked, and not changed.
    Keep,
    /// The life ends, and another one begins.
    Rotate,
    /// The life ends.
    Destroy,
}

/// One who acts.
#[derive(Debug)]
pub(crate) struct Actor {
    /// The store.
    pub(crate) store: Arc<FileStore>,
    /// Where its notes go.
    pub(crate) notes: Notes,
    /// Which sessions there are.
    pub(crate) table: Table,
}

impl Actor {
    /// Does something with a life; creations and rotations begin the life `fresh`. Whether it was done: it may be that there
    /// is no such session any more, or that a lock was not free in time.
    ///
    /// # Errors
    ///
    /// The engine refused for a reason that it has no business to have here.
    pub(crate) fn act(&self, act: Act, op: Op, life: Life, fresh: Life, power_safe: bool) -> Result<bool> {
        let how = if power_safe { Durability::PowerSafe } else { Durability::Relaxed };
        let say = |note| self.notes.say(note);
        let returned = match (act, self.table.token(life)) {
            (Act::Create(lifetime), _) => {
                let (begin, instant) = (now(), |micros| UNIX_EPOCH + Duration::from_micros(micros));
                let deadline = begin + u64::try_from(lifetime.as_micros()).context("take a lifetime")?;
                let mut record = Record::new(instant(begin), instant(deadline));
                content::fill(&mut record, fresh, 1).context("fill a record")?;
                say(Note::Creating { op, life: fresh, deadline, power_safe });
                self.store.create(&record, how).map(Some)
            }
            (_, None) => return Ok(false),
            (Act::Destroy, Some(token)) => {
                say(Note::Ending { op, life });
                self.store.delete(&token).context("end a session")?;
                say(Note::Done { op, file: None });
                self.table.remove(life);
                return Ok(true);
            }
            (Act::Save | Act::Grow | Act::Linger(_), Some(token)) => {
                let slot = if act == Act::Grow { self.slot_size(&token)? } else { None };
                let mut change = |record: &mut Record| {
                    let held = version_of(record);
                    let longer = slot.and_then(|slot| content::longer_than(slot, life, held));
                    let version = longer.unwrap_or(held + 1);
                    say(Note::Saving { op, life, version, power_safe });
                    if let Act::Linger(time) = act {
                        thread::sleep(time);
                    }
                    content::fill(record, life, version).map(|()| Verdict::Write)
                };
                self.store.update(&token, &mut change, how)
            }
            (Act::Keep, Some(token)) => {
                let mut change = |record: &mut Record| {
                    say(Note::Keeping { op, life, version: version_of(record), power_safe });
                    Ok(Verdict::Keep)
                };
                self.store.update(&token, &mut change, how)
            }
            (Act::Rotate, Some(token)) => {
                let mut change = |record: &mut Record| {
                    let since = record.deadline.duration_since(UNIX_EPOCH).unwrap_or_default();
                    let deadline = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
                    say(Note::Rotating { op, life, successor: fresh, deadline });
                    content::fill(record, fresh, 1).map(|()| Verdict::Write)
                };
                self.store.rotate(&token, &mut change, how)
            }
        };
        self.conclude(act, op, life, fresh, returned)
    }

    /// How much room a version of a session has in its file; `None` if there is no such session any more.
    fn slot_size(&self, token: &Token) -> Result<Option<usize>> {
        let Lookup::Live(live) = self.store.load(token).context("load a session")? else { return Ok(None) };
        let name = live.id.to_string();
        let file = self.store.path().join(&name[..2]).join(&name[2..]);
        // It may have been ended since.
        Ok(fs::metadata(file).ok().and_then(|file| usize::try_from(file.len() / 2).ok()))
    }

    /// Says what came of it.
    fn conclude(
        &self,
        act: Act,
        op: Op,
        life: Life,
        fresh: Life,
        returned: sessile::Result<Option<Saved>>,
    ) -> Result<bool> {
        let saved = match returned {
            Ok(saved) => saved,
            // Nothing was acknowledged, as if the caller had been killed.
            Err(error) if error.kind() == ErrorKind::Busy => return Ok(false),
            Err(error) => return Err(error).with_context(|| format!("do {act:?}")),
        };
        let Some(saved) = saved else {
            self.notes.say(Note::Missed { op });
            self.table.remove(life);
            return Ok(false);
        };
        let begins = matches!(act, Act::Create(_) | Act::Rotate);
        self.notes.say(Note::Done { op, file: begins.then(|| *saved.live.id.as_bytes()) });
        if begins {
            self.table.put(fresh, &saved.token)?;
        }
        if act == Act::Rotate {
            self.table.remove(life);
        }
        Ok(true)
    }
}

/// The version that a live session of the workload is at.
fn version_of(record: &Record) -> u32 {
    content::identify(record).expect("a live session is one of ours").1
}
