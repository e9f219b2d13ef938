//! Growing a session: a larger file replaces the old one. A save after a failed sync uses the same way, because the old
//! inode must not be synced again.
//!
//! The order survives a kill at any instant and a power cut (rules 4 and 5 for crashes in
//! [`design`](crate::_documentation::design)): a new file under a temporary name in the same shard, locked, written,
//! always synced; the old file marked retiring; the two names exchanged in one step; the temporary name removed; and,
//! power-safe, the shard synced. A kill leaves a temporary file at worst.
//!
//! - A name never points at bytes that the disk may still lose.
//! - The exchange fails if a forced delete has removed the old name, so an ended session does not come back. (If names
//!   cannot be exchanged, a check before the rename replaces this; see `force_delete`.)
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
    /// Saves a session after a failed sync. The sync must not be tried again on the same inode: the kernel has marked
    /// the pages clean, and a second sync would succeed without having written them.
    #[cold]
    pub(super) fn rebuild(&self, locked: &Locked<'_>, bytes: Encoded) -> Result<SaveOutcome> {
        self.replace(locked, bytes, true).map_err(|error| {
            // The mark tells later saves, also in other processes, that this inode must not be synced again, and may
            // have been replaced after all.
            let _ = locked.retire();
            Error::new(ErrorKind::DurabilityUnknown, "save session after a failed sync")
                .with_path(self.path().join(locked.path.as_str()))
                .with_reason("rewriting it failed as well")
                .with_source(error)
        })
    }

    /// Writes the next version into a new file of the required size, and replaces the old file by it.
    pub(super) fn replace(
        &self,
        locked: &Locked<'_>,
        bytes: Encoded,
        power_safe: bool,
    ) -> Result<SaveOutcome> {
        let io = |operation| move |error| self.root.error(operation, &locked.path, error);
        // The flags of the old inode do not hold for the new one.
        let state = State::REPLACES;
        let bytes = bytes.with_state(state);
        let shard = self.open_shard(&locked.id)?;
        let temporary = temporary_name()?;
        let file = shard.create(&temporary).map_err(io("make a larger file for session"))?;
        let replaced = (|| {
            // The file is locked before it has the name. A writer that opens it by the name therefore waits until this
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
            // If the path no longer leads to the locked file, this session was ended. Another session may have been
            // imported under the name, and must not be replaced.
            if !self.is_current_file(&locked.path, &locked.file)? {
                return Ok(None);
            }
            match shard.exchange_or_rename(&temporary, locked.path.below_shard()) {
                Ok(()) => Ok(Some(file)),
                // A `delete` that did not wait for the lock has ended the session.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound
                        && !self.is_current_file(&locked.path, &locked.file)? =>
                {
                    Ok(None)
                }
                Err(error) => Err(io("replace session file")(error)),
            }
        })();
        // After an exchange or a failure the file under the temporary name is not needed. A sweep removes it if this
        // fails.
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
