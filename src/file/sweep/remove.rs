//! The part of a sweep that handles single files: reads an expired session or a leftover again under its lock, removes
//! it, and counts it.
use super::{EntryOutcome, Pass};
use crate::error::{ErrorKind, Result};
use crate::file::coherence::Cause;
use crate::file::disk::{self, Access, Directory};
use crate::file::errors::{io_error, is_of_another_version};
use crate::file::flock::LockedFile;
use crate::file::layout::{RUN, SessionPath, USERS, shard_of};
use crate::file::scan::{Content, ScannedFile};
use crate::file::session_lock::{LockResult, SessionRef, UnreadableFile};
use crate::id::PublicId;
use crate::record::Record;
use crate::store::{EndReason, EndedSession};
use crate::sync::Instant;
use std::io;
use std::path::Path;
use std::time::SystemTime;

/// The age at which a leftover of an interrupted operation is removed: an hour, by the file system's clock. No
/// operation takes so long.
const LEFTOVER_SECONDS: i64 = 3600;

impl Pass<'_> {
    /// Examines the file with this session's name, and removes it if the session has ended or the file is a leftover.
    /// `counted` tells whether the walk has counted the file as examined.
    pub(super) fn remove_if_dead(&mut self, shard: &Directory, id: PublicId, counted: bool) -> EntryOutcome {
        let tried = if self.options.dry_run {
            self.dry_run(shard, id, counted)
        } else {
            self.remove(shard, id, counted)
        };
        // The session's lock is released.
        self.store.options.observer.notify_ends(&self.removed.take(), EndReason::Expired);
        tried.unwrap_or_else(|error| match error.kind() {
            ErrorKind::Busy => EntryOutcome::Retry,
            _ if is_of_another_version(&error) => {
                self.report.files.unknown += 1;
                EntryOutcome::Done
            }
            _ => {
                self.report.fail(error);
                EntryOutcome::Retry
            }
        })
    }

    /// The same as [`remove_if_dead`](Self::remove_if_dead), outside of dry runs, with errors.
    fn remove(&mut self, shard: &Directory, id: PublicId, counted: bool) -> Result<EntryOutcome> {
        let result = self.store.lock_session(SessionRef::PublicId(id), Some(shard), Instant::now())?;
        if !counted && !matches!(result, LockResult::Missing) {
            self.report.files.examined += 1;
        }
        match result {
            LockResult::Missing => Ok(EntryOutcome::Done),
            LockResult::Session(locked) => {
                let deadline = locked.newest.record.deadline();
                let Some(reason) = self.store.over(&locked)? else {
                    return Ok(self.later(deadline, EntryOutcome::Renewed));
                };
                if self.store.remove(shard, &locked)? {
                    self.note_removed(id, Some(&locked.newest.record), reason);
                    self.report.removed += 1;
                    self.report.files.cut_off += u64::from(reason == EndReason::CutOff);
                    self.report.files.bytes_freed += 2 * locked.slot_size as u64;
                }
                Ok(EntryOutcome::Done)
            }
            LockResult::Moved(moved) => {
                let until = moved.view.mark.to_moved(id).until;
                if moved.view.mark.is_within_grace(self.store.now_micros()) {
                    return Ok(self.later(until, EntryOutcome::Moved));
                }
                if self.store.remove_moved(shard, &moved)? {
                    self.count_moved(2 * moved.view.slot_size as u64);
                }
                Ok(EntryOutcome::Done)
            }
            LockResult::Unreadable(unreadable) => self.remove_unreadable(shard, id, &unreadable),
        }
    }

    /// The outcome for a file that must be examined again at `time`. If the clock was set back during this pass, `time`
    /// may be before the pass began. An entry with that time would be due in this pass again and again, so the outcome
    /// is `Retry`.
    fn later(&self, time: SystemTime, outcome: impl FnOnce(SystemTime) -> EntryOutcome) -> EntryOutcome {
        if time <= self.now { EntryOutcome::Retry } else { outcome(time) }
    }

    /// The same as [`remove`](Self::remove) in a dry run: counts the file that a sweep would remove.
    fn dry_run(&mut self, shard: &Directory, id: PublicId, counted: bool) -> Result<EntryOutcome> {
        let path = SessionPath::of(&id);
        let name = path.below_shard().to_str().expect("ASCII");
        let Some(file) = self.store.file_at(&shard_of(&id), shard, name)? else {
            return Ok(EntryOutcome::Done);
        };
        let is_of_session = matches!(
            file.content,
            Content::Live(_)
                | Content::CutOff(_)
                | Content::Expired(_)
                | Content::Moved(_)
                | Content::Damaged(_)
                | Content::Unfinished(_)
        );
        if !counted && is_of_session {
            self.report.files.examined += 1;
        }
        match file.content {
            Content::CutOff(live) if self.store.coherence.has_ended(&live.record, &id)? => {
                self.report.removed += 1;
                self.report.files.cut_off += 1;
                self.report.files.bytes_freed += file.bytes;
            }
            Content::Live(live) | Content::CutOff(live) => {
                return Ok(EntryOutcome::Renewed(live.record.deadline()));
            }
            Content::Expired(_) => {
                self.report.removed += 1;
                self.report.files.bytes_freed += file.bytes;
            }
            Content::Moved(moved) if moved.is_within_grace(self.store.options.clock.now()) => {
                return Ok(EntryOutcome::Moved(moved.until));
            }
            Content::Moved(_) => self.count_moved(file.bytes),
            Content::Damaged(_) => self.count_damaged(file.changed, file.bytes),
            Content::Unfinished(_) => {
                if self.is_leftover(file.changed) {
                    self.count_leftover(file.bytes);
                }
            }
            Content::Temporary
            | Content::Foreign(_)
            | Content::Newer(_)
            | Content::Older(_)
            | Content::Unknown => {
                self.report.files.unknown += 1;
            }
        }
        Ok(EntryOutcome::Done)
    }

    /// Removes an unreadable file if it is old enough. This pass has it locked, so no operation is under way that would
    /// complete it.
    fn remove_unreadable(
        &mut self,
        shard: &Directory,
        id: PublicId,
        unreadable: &UnreadableFile<'_>,
    ) -> Result<EntryOutcome> {
        let path = SessionPath::of(&id);
        let stat = disk::stat_with_times(&unreadable.file)
            .map_err(|error| self.store.root.error("examine session file", &path, error))?;
        let goes = if unreadable.is_damaged {
            self.is_kept_enough(stat.changed)
        } else {
            self.is_leftover(stat.changed)
        };
        if goes {
            // A file without a version may be left by a delete that was interrupted before its sync or its
            // invalidation. Both are repeated before the name is removed.
            if !unreadable.is_damaged {
                disk::sync_data(&unreadable.file)
                    .map_err(|error| self.store.root.error("sync leftover of session", &path, error))?;
            }
            self.store.coherence.invalidate(&id, None, Cause::Ended)?;
            if self.store.unlink(shard, &path)? && unreadable.is_damaged {
                self.note_removed(id, None, EndReason::Damaged);
            }
        }
        if unreadable.is_damaged {
            self.count_damaged(stat.changed, stat.bytes);
        } else if goes {
            self.count_leftover(stat.bytes);
        }
        Ok(EntryOutcome::Done)
    }

    /// Notes a session that was removed, for the observer.
    fn note_removed(&mut self, id: PublicId, record: Option<&Record>, reason: EndReason) {
        if self.store.options.observer.is_set() {
            self.removed = Some(EndedSession::over(id, record.cloned(), reason));
        }
    }

    /// Removes a temporary file that is old enough, unless the process that writes it has it locked.
    pub(super) fn remove_temporary(&mut self, directory: &Directory, name: &str, file: &ScannedFile) {
        if !self.is_leftover(file.changed) {
            return;
        }
        let removed = (|| {
            let opened = directory.open_named(name, Access::Read)?;
            let Ok(locked) = LockedFile::acquire(opened, Instant::now())? else { return Ok(false) };
            // The name is checked under the lock: a writer that was stopped for an hour, and continues now, gives the
            // name to another file under that lock.
            let there = directory.stat_with_times(name)?;
            let is_it = there.inode == disk::stat(&locked)?.inode && self.is_leftover(there.changed);
            Ok(is_it && (self.options.dry_run || directory.unlink(name)?))
        })();
        match removed {
            Ok(true) => self.count_leftover(file.bytes),
            Ok(false) => {}
            Err(error) => self.fail_leftover(file, error),
        }
    }

    /// Finishes a delete that had renamed the session file to `.end-…` and was interrupted.
    pub(super) fn finish_delete(&mut self, shard: &Directory, id: PublicId, file: &ScannedFile) {
        if !self.is_leftover(file.changed) {
            return;
        }
        let finish = || self.store.delete_ending(SessionRef::PublicId(id), &id, shard).map(drop);
        match if self.options.dry_run { Ok(()) } else { finish() } {
            Ok(()) => self.count_leftover(file.bytes),
            Err(error) => self.report.fail(error),
        }
    }

    /// Removes a temporary file in the root or in `run`, which an interrupted creation of a store or of its counters
    /// has left.
    pub(super) fn remove_stray(&mut self, stray: &ScannedFile) {
        let name = stray.path.file_name().unwrap_or_default().to_string_lossy();
        let below_root = stray.path.strip_prefix(self.store.root.path()).ok().and_then(Path::parent);
        let parent = [RUN, USERS].into_iter().find(|path| below_root == Some(Path::new(path)));
        match self.store.root.open_directory(parent.unwrap_or(".")) {
            Ok(directory) => self.remove_temporary(&directory, &name, stray),
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

    /// Whether a damaged file is older than [`SweepOptions::keep_damaged`](super::SweepOptions::keep_damaged).
    fn is_kept_enough(&self, changed: i64) -> bool {
        let kept = i64::try_from(self.options.keep_damaged.as_secs()).unwrap_or(i64::MAX);
        self.disk_now.saturating_sub(changed) >= kept
    }

    fn count_damaged(&mut self, changed: i64, bytes: u64) {
        self.report.files.damaged += 1;
        if self.is_kept_enough(changed) {
            self.report.removed += 1;
            self.report.files.bytes_freed += bytes;
        }
    }

    fn count_moved(&mut self, bytes: u64) {
        self.report.files.moved += 1;
        self.report.files.bytes_freed += bytes;
    }

    fn count_leftover(&mut self, bytes: u64) {
        self.report.files.temporary += 1;
        self.report.files.bytes_freed += bytes;
    }
}
