//! A delete that does not wait for a stuck lock: a logout must not hang on a writer that was stopped, nor on a file that cannot be
//! read.
//!
//! A delete waits for the session's lock up to its limit. Then it goes on without the lock:
//!
//! 1. **Rename** the session's file to `.end-…`. From here on the path leads to nothing: no load finds the session, and no lock on
//!    the old file is a lock on the session.
//! 2. **Tombstone** into the renamed file, for the writers that have it open and wait for its lock. They find a session that was
//!    ended.
//! 3. **Invalidate** all caches. This must come after the name is gone, for the holder of the lock may be about to put a larger file,
//!    without a tombstone, in place.
//! 4. **Sync** the file and the directory, if ends are synced.
//! 5. **Remove** `.end-…`, last. Until then the next delete of the session, or a sweep, sees that an end is under way, and finishes it:
//!    this process may be killed after any step.
//! 6. **Wait** twice the shortest lock limit for the lock of the renamed file.
//!
//! Why the holder of the lock cannot bring the session back, wherever it goes on:
//!
//! - *An update in place* writes to a file that has lost the session's name. If it has held the lock for longer than the shortest limit
//!   (1 ms), it looks whether the path still leads to its file, and answers "gone" if not. If it got the lock while the delete went
//!   by and read the file before the tombstone was there, then step 6 waits for it: when the delete returns, that update has
//!   returned, or has held the lock for longer than the limit and looks.
//! - *A grow* exchanges two names, which fails where the old one is gone.
//! - *A rotation* finds the old name gone, and deletes its successor.
//! - All of them, deletes under the lock and sweeps look first whether the path leads to their file: another session may have been
//!   imported under it.
//! - *Its copy in memory* has the stamp of `ends` from before it opened the path. Step 3 changes `ends`, and an invalidation by a
//!   save does not touch `ends`, so the copy is never served (rule 3 of coherence in [`design`](crate::_documentation::design)).
//!
//! Limits: a writer that is stopped between its last look and its rename, and overtaken by a forced delete and by an import of the
//! same id, takes the place of the import. On a file system that cannot exchange names, and on FUSE, a grow that is stopped in that
//! instant can bring the session back.
use super::FileStore;
use super::coherence::Cause;
use super::disk::{self, Access, Directory};
use super::flock::LockedFile;
use super::layout::SessionPath;
use super::options::LOCK_WAIT_MIN;
use super::session_lock::{Locked, SessionRef, write_tombstone};
use super::slots::{self, View};
use super::update::SaveOutcome;
use crate::error::{Error, ErrorKind, Result};
use crate::id::PublicId;
use crate::sync::Instant;
use std::fs::File;
use std::io;

impl FileStore {
    /// Deletes a session whose lock cannot be had, or whose file cannot be read. Whether its name was there.
    pub(super) fn delete_unlocked(
        &self,
        session: SessionRef<'_>,
        id: &PublicId,
        shard: &Directory,
    ) -> Result<bool> {
        let was_there = self.move_away(shard, &SessionPath::of(id))?;
        self.delete_moved(session, id, shard)?;
        Ok(was_there)
    }

    /// Renames a session's file to `.end-…`, which says that its end is under way. Whether it was there.
    pub(super) fn move_away(&self, shard: &Directory, path: &SessionPath) -> Result<bool> {
        let moved = shard.rename(path.below_shard(), &path.ending());
        moved.map_err(|error| self.root.error("remove session file", path, error))
    }

    /// Finishes the deletion of a session whose file was moved, if there is one: also one that was begun by a process that was
    /// killed.
    pub(super) fn delete_moved(
        &self,
        session: SessionRef<'_>,
        id: &PublicId,
        shard: &Directory,
    ) -> Result<()> {
        let path = SessionPath::of(id);
        let file = match shard.open_named(&path.ending(), Access::Write) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // No tombstone can be written into it, but it has lost its name.
            Err(_) => None,
        };
        file.as_ref().inspect(|file| self.write_tombstone_unlocked(session, &path, file));
        let invalidate = || self.coherence.invalidate(id, session.session_id(), Cause::Ended).map(drop);
        self.finish_delete(shard, &path, file.as_ref(), invalidate)?;
        // Waits until any writer that missed the tombstone has finished, or has held the lock for so long that it looks whether the
        // path still leads to its file.
        file.map(|file| LockedFile::acquire(file, Instant::now() + 2 * LOCK_WAIT_MIN));
        Ok(())
    }

    /// Invalidates a session whose file was moved, syncs its end if ends are synced, and removes the file.
    pub(super) fn finish_delete(
        &self,
        shard: &Directory,
        path: &SessionPath,
        file: Option<&File>,
        invalidate: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let invalidated = invalidate();
        if self.options.sync_security_events {
            // On btrfs the sync of a directory may forget that a name is gone. That of a file whose name has changed does not.
            file.inspect(|file| drop(disk::sync_data(file)));
        }
        self.sync_name(shard, path)?;
        invalidated?;
        // If the file stays, the next delete or a sweep finishes it once more.
        let _ = shard.unlink(path.ending());
        Ok(())
    }

    /// Writes a tombstone into a file that has lost its name, for the writers that wait for its lock. The holder of the lock may be
    /// anywhere in a save: that writes the other slot, and a tombstone in either slot ends the session.
    fn write_tombstone_unlocked(&self, session: SessionRef<'_>, path: &SessionPath, file: &File) {
        let look = |bytes: &[u8]| (slots::view(bytes, &session.public_id(), None), bytes.len() / 2);
        let look = self.look(file, path, look);
        if let Ok((Ok(View::Valid { slot, .. }), slot_size)) = look {
            let _ = write_tombstone(file, (slot * slot_size) as u64);
        }
    }

    /// A forced delete may have taken the file's name away while we held the lock; if so, the save is void.
    pub(super) fn confirm_linked(&self, locked: &Locked<'_>) -> Result<SaveOutcome> {
        let is_there = locked.is_still_linked().map_err(|error| {
            Error::new(ErrorKind::DurabilityUnknown, "look for session file after saving")
                .with_path(self.path().join(locked.path.as_str()))
                .with_reason("it was written, and may have been removed before")
                .with_source(error)
        })?;
        Ok(if is_there { SaveOutcome::Saved } else { SaveOutcome::Deleted })
    }
}

impl Locked<'_> {
    /// Whether the path still leads to this file. It is looked at only if the lock was held for so long that a forced delete may
    /// have taken the name away, and another session may have been imported under it.
    pub(super) fn is_still_linked(&self) -> Result<bool> {
        Ok(self.lock_taken_at.elapsed() < LOCK_WAIT_MIN
            || self.store.is_current_file(&self.path, &self.file)?)
    }
}
