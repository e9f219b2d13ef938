//! Single files: what is dead is removed, under its lock, after another look; what it was is counted.
use super::{Became, Pass};
use crate::error::{ErrorKind, Result};
use crate::file::disk::{self, Access, Directory};
use crate::file::flock::LockedFile;
use crate::file::generations::Cause;
use crate::file::io_error;
use crate::file::layout::{RUN, SessionPath, shard_of};
use crate::file::session_lock::{LockResult, UnreadableFile, Whose};
use crate::file::walk::{Content, ScannedFile};
use crate::id::PublicId;
use crate::store::Store;
use crate::sync::Instant;
use std::io;

/// How old leftovers must be, in seconds by the file system's clock: nobody takes so long for one act.
const LEFTOVER_SECONDS: i64 = 3600;

impl Pass<'_> {
    /// Removes what is under a session's name, if it is dead, and counts what it is; as examined, unless that was done.
    pub(super) fn end(&mut self, shard: &Directory, id: PublicId, counted: bool) -> Became {
        let tried = if self.options.dry_run {
            self.would_end(shard, id, counted)
        } else {
            self.try_end(shard, id, counted)
        };
        tried.unwrap_or_else(|error| match error.kind() {
            ErrorKind::Busy => Became::Later,
            ErrorKind::NewerFormat | ErrorKind::NotASessionFile => {
                self.report.unknown += 1;
                Became::Done
            }
            _ => {
                self.report.fail(error);
                Became::Later
            }
        })
    }

    /// The same, unless it is to be done otherwise.
    fn try_end(&mut self, shard: &Directory, id: PublicId, counted: bool) -> Result<Became> {
        let held = self.store.lock_session(Whose::Digest(id), Some(shard), Instant::now())?;
        if !counted && !matches!(held, LockResult::Missing) {
            self.report.examined += 1;
        }
        match held {
            LockResult::Missing => Ok(Became::Done),
            LockResult::Session(locked) => {
                let deadline = locked.newest.record.deadline;
                if !locked.newest.record.is_expired(self.store.now()) {
                    // One that is due by the time at which this pass began: the clock was set back since. Filed anew by
                    // that time, it would come up again and again.
                    return Ok(if deadline <= self.now { Became::Later } else { Became::Renewed(deadline) });
                }
                if self.store.remove(shard, &locked)? {
                    self.report.removed += 1;
                    self.report.bytes_freed += 2 * locked.slot_size as u64;
                }
                Ok(Became::Done)
            }
            LockResult::Unreadable(remains) => self.clear_remains(shard, id, &remains),
        }
    }

    /// The same in a dry run.
    fn would_end(&mut self, shard: &Directory, id: PublicId, counted: bool) -> Result<Became> {
        let path = SessionPath::of(&id);
        let name = path.below_shard().to_str().expect("ASCII");
        let Some(file) = self.store.file_at(&shard_of(&id), shard, name)? else { return Ok(Became::Done) };
        let is_of_session = matches!(
            file.content,
            Content::Live(_) | Content::Expired(_) | Content::Damaged(_) | Content::Unfinished(_)
        );
        if !counted && is_of_session {
            self.report.examined += 1;
        }
        match file.content {
            Content::Live(live) => return Ok(Became::Renewed(live.record.deadline)),
            Content::Expired(_) => {
                self.report.removed += 1;
                self.report.bytes_freed += file.bytes;
            }
            Content::Damaged(_) => self.count_damaged(file.changed, file.bytes),
            Content::Unfinished(_) => {
                if self.is_leftover(file.changed) {
                    self.count_leftover(file.bytes);
                }
            }
            Content::Temporary | Content::Foreign(_) | Content::Newer(_) | Content::Unknown => {
                self.report.unknown += 1;
            }
        }
        Ok(Became::Done)
    }

    /// Removes what is left in a session's place, if it is old enough. A file that nobody has locked and that does not
    /// change for so long is nobody's.
    fn clear_remains(
        &mut self,
        shard: &Directory,
        id: PublicId,
        remains: &UnreadableFile<'_>,
    ) -> Result<Became> {
        let path = SessionPath::of(&id);
        let stat = disk::stat(&remains.file)
            .map_err(|error| self.store.error("examine session file", &path, error))?;
        let goes =
            if remains.is_damaged { self.is_given_up(stat.changed) } else { self.is_leftover(stat.changed) };
        if goes {
            // Its end may have been cut short before it was on the disk or announced: the name goes last.
            if !remains.is_damaged {
                disk::sync_data(&remains.file)
                    .map_err(|error| self.store.error("sync what is left of session", &path, error))?;
            }
            self.store.invalidate(Whose::Digest(id), &id, Cause::Ended)?;
            self.store.unlink(shard, &path)?;
        }
        if remains.is_damaged {
            self.count_damaged(stat.changed, stat.bytes);
        } else if goes {
            self.count_leftover(stat.bytes);
        }
        Ok(Became::Done)
    }

    /// Removes an old temporary file of a directory, unless its writer is at work.
    pub(super) fn clear_temporary(&mut self, directory: &Directory, name: &str, file: &ScannedFile) {
        if !self.is_leftover(file.changed) {
            return;
        }
        let cleared = (|| {
            let opened = directory.open_named(name, Access::Read)?;
            let Ok(locked) = LockedFile::acquire(opened, Instant::now())? else { return Ok(false) };
            // Under the lock: a writer that goes on after an hour exchanges names under it.
            let there = directory.stat(name)?;
            let is_it = there.inode == disk::stat(&locked)?.inode && self.is_leftover(there.changed);
            Ok(is_it && (self.options.dry_run || directory.unlink(name)?))
        })();
        match cleared {
            Ok(true) => self.count_leftover(file.bytes),
            Ok(false) => {}
            Err(error) => self.fail_leftover(file, error),
        }
    }

    /// Finishes the end of a session whose file was moved, if that was left undone.
    pub(super) fn finish_end(&mut self, shard: &Directory, id: PublicId, file: &ScannedFile) {
        if !self.is_leftover(file.changed) {
            return;
        }
        let finish = || self.store.finish_moved(Whose::Digest(id), &id, shard);
        match if self.options.dry_run { Ok(()) } else { finish() } {
            Ok(()) => self.count_leftover(file.bytes),
            Err(error) => self.report.fail(error),
        }
    }

    /// The same for one that lies beside the shards: it was left by the making of a store or of its counters.
    pub(super) fn clear_stray(&mut self, stray: &ScannedFile) {
        let name = stray.path.file_name().unwrap_or_default().to_string_lossy();
        let is_in_root = stray.path.parent() == Some(self.store.root.path());
        match self.store.root.open_directory(if is_in_root { "." } else { RUN }) {
            Ok(directory) => self.clear_temporary(&directory, &name, stray),
            Err(error) => self.fail_leftover(stray, error),
        }
    }

    fn fail_leftover(&mut self, file: &ScannedFile, error: io::Error) {
        if error.kind() != io::ErrorKind::NotFound {
            self.report.fail(io_error("remove temporary file", error).with_path(&file.path));
        }
    }

    fn is_leftover(&self, changed: i64) -> bool {
        self.disk_now.saturating_sub(changed) >= LEFTOVER_SECONDS
    }

    /// Whether a damaged file was kept for long enough.
    fn is_given_up(&self, changed: i64) -> bool {
        let kept = i64::try_from(self.options.keep_damaged.as_secs()).unwrap_or(i64::MAX);
        self.disk_now.saturating_sub(changed) >= kept
    }

    fn count_damaged(&mut self, changed: i64, bytes: u64) {
        self.report.damaged += 1;
        if self.is_given_up(changed) {
            self.report.removed += 1;
            self.report.bytes_freed += bytes;
        }
    }

    fn count_leftover(&mut self, bytes: u64) {
        self.report.temporary += 1;
        self.report.bytes_freed += bytes;
    }
}
