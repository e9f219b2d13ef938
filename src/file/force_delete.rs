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
use super::delete::Ending;
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
    /// Deletes a session that cannot be locked, or whose file cannot be read. Returns whether a file had the session's
    /// name, and what was in it.
    pub(super) fn delete_unlocked(
        &self,
        session: SessionRef<'_>,
        id: &PublicId,
        shard: &Directory,
    ) -> Result<(bool, Ending)> {
        let was_there = self.move_away(shard, &SessionPath::of(id))?;
        Ok((was_there, self.delete_ending(session, id, shard)?))
    }

    /// Renames a session file to `.end-…`, which marks an unfinished deletion. Returns whether the file was there.
    pub(super) fn move_away(&self, shard: &Directory, path: &SessionPath) -> Result<bool> {
        let moved = shard.rename(path.below_shard(), &path.ending());
        moved.map_err(|error| self.root.error("remove session file", path, error))
    }

    /// Finishes the deletion of a session whose file was renamed to `.end-…`, if there is such a file. A killed process
    /// may have begun that deletion. Returns what was in the file. A rotation whose mark is in it either returned, or
    /// finds that the session's name is gone, and ends its successor.
    pub(super) fn delete_ending(
        &self,
        session: SessionRef<'_>,
        id: &PublicId,
        shard: &Directory,
    ) -> Result<Ending> {
        let path = SessionPath::of(id);
        let file = match shard.open_named(&path.ending(), Access::Write) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ending::default()),
            // The file cannot be opened to write a tombstone. It has lost the session's name, so the session is ended
            // without one.
            Err(_) => None,
        };
        let ending = file.as_ref().map(|file| self.write_tombstone_unlocked(session, &path, file));
        let invalidate = || self.coherence.invalidate(id, session.session_id(), Cause::Ended).map(drop);
        self.finish_delete(shard, &path, file.as_ref(), invalidate)?;
        // Waits for a writer that read the file before the tombstone was there. When the wait is over, the writer has
        // finished, or has held the lock for so long that it checks whether the path still leads to its file.
        file.map(|file| LockedFile::acquire(file, Instant::now() + 2 * LOCK_WAIT_MIN));
        Ok(ending.unwrap_or_default())
    }

    /// Invalidates a session whose file was renamed to `.end-…`, syncs the end of the session if that option is on, and
    /// removes the file.
    pub(super) fn finish_delete(
        &self,
        shard: &Directory,
        path: &SessionPath,
        file: Option<&File>,
        invalidate: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let invalidated = invalidate();
        if self.options.sync_security_events {
            // On btrfs, the sync of a directory may not make the removal of a name durable. The sync of the file that
            // has lost its name does.
            file.inspect(|file| drop(disk::sync_data(file)));
        }
        self.sync_name(shard, path)?;
        invalidated?;
        // If the file cannot be removed, the next delete of the session or a sweep tries again.
        let _ = shard.unlink(path.ending());
        Ok(())
    }

    /// Writes a tombstone into a file that has lost the session's name, without its lock. Writers that wait for the
    /// lock then find an ended session. The holder of the lock may be writing a save into the other slot meanwhile; a
    /// tombstone in either slot ends the session. If the file has the mark of a rotation, nothing is written, because
    /// the mark ends the session, too. Returns what was in the file.
    fn write_tombstone_unlocked(&self, session: SessionRef<'_>, path: &SessionPath, file: &File) -> Ending {
        let look = |bytes: &[u8]| (slots::view(bytes, &session.public_id(), None), bytes.len() / 2);
        let look = self.look(file, path, look);
        match look {
            Ok((Ok(View::Valid { slot, newest, .. }), slot_size)) => {
                let _ = write_tombstone(file, (slot * slot_size) as u64);
                Ending { mark: None, record: Some(newest.record) }
            }
            Ok((Ok(View::Moved(moved)), _)) => Ending { mark: Some(moved.mark), record: None },
            _ => Ending::default(),
        }
    }

    /// Checks after a save whether the session's name still leads to the file. If a forced delete has removed the name
    /// while this process held the lock, the save counts as not made.
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
    /// Whether the session's path still leads to this file. Asks the file system only if the lock was held for longer
    /// than the shortest wait limit. Otherwise, a forced delete that has removed the name waits for this lock before it
    /// returns (step 6 in the module's documentation), so this operation counts as made before the delete.
    pub(super) fn is_still_linked(&self) -> Result<bool> {
        Ok(Instant::now() < self.unforced_until || self.store.is_current_file(&self.path, &self.file)?)
    }
}
