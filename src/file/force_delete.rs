//! A delete that does not wait for a stuck lock. A logout must not hang on a stopped writer, nor on a file that cannot
//! be read.
//!
//! A delete waits for the session's lock up to its limit. Then it proceeds without the lock:
//!
//! 1. **Rename** the session file to `.end-…`. From here on the path leads to no file: no load finds the session, and
//!    no lock on the old file is a lock on the session.
//! 2. **Tombstone** into the renamed file. Writers that have the file open and wait for its lock then find an ended
//!    session.
//! 3. **Invalidate** all caches. This step comes after the rename, because the holder of the lock may be about to put a
//!    larger file, without a tombstone, in place.
//! 4. **Sync** the file and the directory, if ends are synced.
//! 5. **Remove** `.end-…`, last. Until then the next delete of the session, or a sweep, finds the unfinished deletion
//!    and finishes it, because this process may be killed after any step.
//! 6. **Wait** twice the shortest lock limit for the lock of the renamed file.
//!
//! The holder of the lock cannot bring the session back, wherever it continues:
//!
//! - *An update in place* writes to a file that has lost the session's name. If it has held the lock for longer than
//!   the shortest limit (1 ms), it checks whether the path still leads to its file, and returns "gone" if not. If it
//!   got the lock during the delete and read the file before the tombstone was there, then step 6 waits for it: when
//!   the delete returns, that update has returned, or has held the lock for longer than the limit and makes the check.
//! - *A grow* exchanges two names, which fails because the old one is gone.
//! - *A rotation* finds the old name gone, and deletes its successor.
//! - All of them, deletes under the lock and sweeps first check whether the path leads to their file, because another
//!   session may have been imported under it.
//! - *Its cached copy* has the stamp of `ends` from before it opened the path. Step 3 changes `ends`, and an
//!   invalidation by a save does not touch `ends`, so the copy is never served (rule 3 of coherence in
//!   [`design`](crate::_documentation::design)).
//!
//! Limits: a writer that is stopped between its last check and its rename, and is overtaken by a forced delete and by
//! an import of the same id, replaces the imported session. On a file system that cannot exchange names, and on FUSE, a
//! grow that is stopped at that point can bring the session back.
use super::FileStore;
use super::coherence::Cause;
use super::disk::{self, Access, Directory};
use super::flock::LockedFile;
use super::layout::SessionPath;
use super::options::LOCK_WAIT_MIN;
use super::session_lock::{Locked, SessionRef, write_tombstone};
use super::slot::Mark;
use super::slots::{self, View};
use super::update::SaveOutcome;
use crate::error::{Error, ErrorKind, Result};
use crate::id::PublicId;
use crate::sync::Instant;
use std::fs::File;
use std::io;

impl FileStore {
    /// Deletes a session that cannot be locked, or whose file cannot be read. Returns whether its name was there, and
    /// the mark of a rotation that was under way or had just returned.
    pub(super) fn delete_unlocked(
        &self,
        session: SessionRef<'_>,
        id: &PublicId,
        shard: &Directory,
    ) -> Result<(bool, Option<Mark>)> {
        let was_there = self.move_away(shard, &SessionPath::of(id))?;
        Ok((was_there, self.delete_ending(session, id, shard)?))
    }

    /// Renames a session file to `.end-…`, which marks an unfinished deletion. Returns whether the file was there.
    pub(super) fn move_away(&self, shard: &Directory, path: &SessionPath) -> Result<bool> {
        let moved = shard.rename(path.below_shard(), &path.ending());
        moved.map_err(|error| self.root.error("remove session file", path, error))
    }

    /// Finishes the deletion of a session whose file was renamed to `.end-…`, if there is one. A killed process may
    /// have begun that deletion. Returns the mark in the file: that of a rotation which found its name still there, or
    /// will find that it is gone, and ends its successor itself.
    pub(super) fn delete_ending(
        &self,
        session: SessionRef<'_>,
        id: &PublicId,
        shard: &Directory,
    ) -> Result<Option<Mark>> {
        let path = SessionPath::of(id);
        let file = match shard.open_named(&path.ending(), Access::Write) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // The file cannot be opened for a tombstone, but it has lost the session's name already.
            Err(_) => None,
        };
        let mark = file.as_ref().and_then(|file| self.write_tombstone_unlocked(session, &path, file));
        let invalidate = || self.coherence.invalidate(id, session.session_id(), Cause::Ended).map(drop);
        self.finish_delete(shard, &path, file.as_ref(), invalidate)?;
        // Waits for writers that missed the tombstone: each has finished, or has held the lock for so long that it will
        // check whether the path still leads to its file.
        file.map(|file| LockedFile::acquire(file, Instant::now() + 2 * LOCK_WAIT_MIN));
        Ok(mark)
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
            // On btrfs the sync of a directory may forget that a name is gone; the sync of a file whose name has
            // changed does not.
            file.inspect(|file| drop(disk::sync_data(file)));
        }
        self.sync_name(shard, path)?;
        invalidated?;
        // If the file stays, the next delete or a sweep repeats this.
        let _ = shard.unlink(path.ending());
        Ok(())
    }

    /// Writes a tombstone into a file that has lost its name, for the writers that wait for its lock. The holder of the
    /// lock may be writing a save into the other slot meanwhile; a tombstone in either slot ends the session. A file
    /// with the mark of a rotation needs none; returns that mark.
    fn write_tombstone_unlocked(
        &self,
        session: SessionRef<'_>,
        path: &SessionPath,
        file: &File,
    ) -> Option<Mark> {
        let look = |bytes: &[u8]| (slots::view(bytes, &session.public_id(), None), bytes.len() / 2);
        let look = self.look(file, path, look);
        match look {
            Ok((Ok(View::Valid { slot, .. }), slot_size)) => {
                let _ = write_tombstone(file, (slot * slot_size) as u64);
                None
            }
            Ok((Ok(View::Moved(moved)), _)) => Some(moved.mark),
            _ => None,
        }
    }

    /// Checks that the session's name still leads to the file after a save. A forced delete may have removed the name
    /// while the lock was held; then the save is void.
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
    /// Whether the path still leads to this file. It is checked only if the lock was held for so long that a forced
    /// delete may have removed the name, and another session may have been imported under it.
    pub(super) fn is_still_linked(&self) -> Result<bool> {
        Ok(Instant::now() < self.unforced_until || self.store.is_current_file(&self.path, &self.file)?)
    }
}
