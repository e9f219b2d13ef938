//! Replaces a session's file by a new one: when a save needs a larger file, and when a sync of the old file has failed,
//! because its inode must not be synced again.
//!
//! The order survives a kill at any instant and a power cut (rules 4 and 5 for crashes in
//! [`design`](crate::_documentation::design)). A new file is made under a temporary name in the same shard, locked,
//! written, and always synced. The old file is marked as retiring, which tells writers that wait for its lock to open
//! the path again. The two names are exchanged in one step. The temporary name is removed. If the save is power-safe,
//! the shard is synced. A kill leaves a temporary file at worst.
//!
//! - A name never leads to bytes that the disk may still lose.
//! - The exchange fails if a forced delete has removed the old name, so an ended session does not come back. (If the
//!   file system cannot exchange names, a check before a plain rename replaces this; see `force_delete`.)
use super::FileStore;
use super::create::write_whole;
use super::disk::{self, temporary_name};
use super::flock::LockedFile;
use super::session_lock::{Locked, write_state};
use super::slot::{Encoded, State};
use super::update::SaveOutcome;
use crate::error::{Error, ErrorKind, Result};
use crate::queue::busy;
use crate::sync::Instant;
use std::io;

impl FileStore {
    /// Saves a session after a failed sync, into a new file. The sync must not be tried again on the same inode: the
    /// kernel has marked its pages clean, and a second sync would succeed without writing them.
    #[cold]
    pub(super) fn rebuild(&self, locked: &Locked<'_>, bytes: Encoded) -> Result<SaveOutcome> {
        self.replace(locked, bytes, true).map_err(|error| {
            // The flag on the old file tells later saves, in all processes, not to sync this inode again, and to check
            // whether it was replaced after all.
            let _ = locked.retire();
            Error::new(ErrorKind::DurabilityUnknown, "save session after a failed sync")
                .with_path(self.path().join(locked.path.as_str()))
                .with_reason("rewriting it failed as well")
                .with_source(error)
        })
    }

    /// Writes the next version into a new file of the required size, which then replaces the session's file.
    pub(super) fn replace(
        &self,
        locked: &Locked<'_>,
        bytes: Encoded,
        power_safe: bool,
    ) -> Result<SaveOutcome> {
        let io = |operation| move |error| self.root.error(operation, &locked.path, error);
        // The old file's flags say what is synced of its inode, so they are not true of the new one.
        let state = State::REPLACES;
        let bytes = bytes.with_state(state);
        let shard = self.open_shard(&locked.id)?;
        let temporary = temporary_name()?;
        let file = shard.create(&temporary).map_err(io("make a larger file for session"))?;
        let replaced = (|| {
            // The new file is locked before it gets the session's name, so a writer that then opens it waits until this
            // save is complete.
            let file = LockedFile::acquire(file, Instant::now() + self.options.lock_wait)
                .map_err(io("lock the larger file for session"))?
                .map_err(|_| busy())?;
            let made = disk::stat(&file).map_err(io("examine the larger file for session"))?;
            self.root
                .sharing()
                .repair_mode(&file, &made)
                .map_err(io("set the permissions of the larger file for session"))?;
            write_whole(&file, &bytes).map_err(io("write the larger file for session"))?;
            // Synced at every durability, because a name must never point at bytes that the disk may still lose.
            disk::sync_data(&file).map_err(io("sync the larger file for session"))?;
            write_state(&file, 0, state.and(State::DATA_SYNCED));
            locked.retire().map_err(io("mark session file"))?;
            // If the session's path no longer leads to the locked file, a forced delete has ended the session. Another
            // session may have been imported under the name, and must not be replaced.
            if !self.is_current_file(&locked.path, &locked.file)? {
                return Ok(None);
            }
            match shard.exchange_or_rename(&temporary, locked.path.below_shard()) {
                Ok(()) => Ok(Some(file)),
                // A forced delete has ended the session since that check.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound
                        && !self.is_current_file(&locked.path, &locked.file)? =>
                {
                    Ok(None)
                }
                Err(error) => Err(io("replace session file")(error)),
            }
        })();
        // After the exchange, the temporary name leads to the old file; after a failure, to the new one. Neither is
        // needed. If the removal fails, a sweep removes the file.
        let _ = shard.unlink(&temporary);
        let Some(file) = replaced? else { return Ok(SaveOutcome::Deleted) };
        let file = locked.successor.get_or_init(|| file);
        if power_safe {
            shard.sync_changed_name().map_err(|error| {
                self.root.unknown("sync the directory of session file", &locked.path, error)
            })?;
            write_state(file, 0, State::DATA_SYNCED.and(State::NAME_SYNCED));
        }
        Ok(SaveOutcome::Saved)
    }
}
