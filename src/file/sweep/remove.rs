//! Single files: reads expired sessions and leftovers again under their lock, removes them, and counts them.
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
use crate::sync::Instant;
use std::io;
use std::path::Path;
use std::time::SystemTime;

/// Age at which a leftover is removed, in seconds by the file system's clock; no operation takes so long.
const LEFTOVER_SECONDS: i64 = 3600;

impl Pass<'_> {
    /// Removes the file under a session's name, if it is expired or a leftover, and counts it. The file also counts as
    /// examined unless `counted`.
    pub(super) fn remove_if_dead(&mut self, shard: &Directory, id: PublicId, counted: bool) -> EntryOutcome {
        let tried = if self.options.dry_run {
            self.dry_run(shard, id, counted)
        } else {
            self.remove(shard, id, counted)
        };
        tried.unwrap_or_else(|error| match error.kind() {
            ErrorKind::Busy => EntryOutcome::Retry,
            _ if is_of_another_version(&error) => {
                self.report.unknown += 1;
                EntryOutcome::Done
            }
            _ => {
                self.report.fail(error);
                EntryOutcome::Retry
            }
        })
    }

    /// Removes the file outside of dry runs.
    fn remove(&mut self, shard: &Directory, id: PublicId, counted: bool) -> Result<EntryOutcome> {
        let result = self.store.lock_session(SessionRef::PublicId(id), Some(shard), Instant::now())?;
        if !counted && !matches!(result, LockResult::Missing) {
            self.report.examined += 1;
        }
        match result {
            LockResult::Missing => Ok(EntryOutcome::Done),
            LockResult::Session(locked) => {
                let deadline = locked.newest.record.deadline();
                let is_cut_off = self.store.coherence.has_ended(&locked.newest.record, &id)?;
                if !is_cut_off && !self.store.is_expired(&locked.newest.record) {
                    return Ok(self.later(deadline, EntryOutcome::Renewed));
                }
                if self.store.remove(shard, &locked)? {
                    self.report.removed += 1;
                    self.report.cut_off += u64::from(is_cut_off);
                    self.report.bytes_freed += 2 * locked.slot_size as u64;
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

    /// The outcome for a file that is examined again at a later time. If it was due by the time at which this pass
    /// began, the clock was set back since, and an entry with that time would be due in this pass again and again.
    fn later(&self, time: SystemTime, outcome: impl FnOnce(SystemTime) -> EntryOutcome) -> EntryOutcome {
        if time <= self.now { EntryOutcome::Retry } else { outcome(time) }
    }

    /// Counts, in a dry run, the file that a sweep would remove.
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
            self.report.examined += 1;
        }
        match file.content {
            Content::CutOff(live) if self.store.coherence.has_ended(&live.record, &id)? => {
                self.report.removed += 1;
                self.report.cut_off += 1;
                self.report.bytes_freed += file.bytes;
            }
            Content::Live(live) | Content::CutOff(live) => {
                return Ok(EntryOutcome::Renewed(live.record.deadline()));
            }
            Content::Expired(_) => {
                self.report.removed += 1;
                self.report.bytes_freed += file.bytes;
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
                self.report.unknown += 1;
            }
        }
        Ok(EntryOutcome::Done)
    }

    /// Removes an unreadable file if it is old enough. No operation has it locked, and no operation takes so long.
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
            // A delete may have been interrupted before its sync or its invalidation, so both are repeated before the
            // name is removed.
            if !unreadable.is_damaged {
                disk::sync_data(&unreadable.file)
                    .map_err(|error| self.store.root.error("sync leftover of session", &path, error))?;
            }
            self.store.coherence.invalidate(&id, None, Cause::Ended)?;
            self.store.unlink(shard, &path)?;
        }
        if unreadable.is_damaged {
            self.count_damaged(stat.changed, stat.bytes);
        } else if goes {
            self.count_leftover(stat.bytes);
        }
        Ok(EntryOutcome::Done)
    }

    /// Removes an old temporary file of a directory, unless its writer has it locked.
    pub(super) fn remove_temporary(&mut self, directory: &Directory, name: &str, file: &ScannedFile) {
        if !self.is_leftover(file.changed) {
            return;
        }
        let removed = (|| {
            let opened = directory.open_named(name, Access::Read)?;
            let Ok(locked) = LockedFile::acquire(opened, Instant::now())? else { return Ok(false) };
            // Checked under the lock, because a writer that continues after an hour exchanges names under the lock.
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

    /// Finishes an interrupted delete that had moved the session file.
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

    /// Removes an old temporary file beside the shards: a leftover of the creation of the store or of its counters.
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

    /// Whether a damaged file has been kept for long enough.
    fn is_kept_enough(&self, changed: i64) -> bool {
        let kept = i64::try_from(self.options.keep_damaged.as_secs()).unwrap_or(i64::MAX);
        self.disk_now.saturating_sub(changed) >= kept
    }

    fn count_damaged(&mut self, changed: i64, bytes: u64) {
        self.report.damaged += 1;
        if self.is_kept_enough(changed) {
            self.report.removed += 1;
            self.report.bytes_freed += bytes;
        }
    }

    fn count_moved(&mut self, bytes: u64) {
        self.report.moved += 1;
        self.report.bytes_freed += bytes;
    }

    fn count_leftover(&mut self, bytes: u64) {
        self.report.temporary += 1;
        self.report.bytes_freed += bytes;
    }
}
