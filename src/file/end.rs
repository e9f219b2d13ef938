//! Rotate, delete: what ends the session of an id, step by step, so that it stays ended. The reasons are in
//! [`design`](crate::design).
use super::FileStore;
use super::disk::{Access, Directory};
use super::generations::News;
use super::layout::SessionPath;
use super::lock::LockedFile;
use super::locked::{Locked, Whose, entomb};
use super::options::LOCK_WAIT_MIN;
use super::slot::Extent;
use super::slots::{self, View};
use crate::error::{ErrorKind, Result};
use crate::id::SessionId;
use crate::store::{Change, Live, Store, Verdict};
use crate::sync::Instant;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::sync::Arc;

impl FileStore {
    /// Changes a session and moves it to `successor`. The old file is gone when this returns a record.
    pub(super) fn rotate_file(
        &self,
        session: &SessionId,
        successor: &SessionId,
        change: Change<'_>,
    ) -> Result<Option<Live>> {
        let shard = self.open_shard(&session.file_id())?;
        let Some(mut locked) = self.lock_live(session, Some(&shard))? else { return Ok(None) };
        if locked.newest.record.is_expired(self.now()) {
            return Ok(None);
        }
        let had = Extent::of(&locked.newest.record, locked.newest.length);
        if change(Arc::make_mut(&mut locked.newest.record))? == Verdict::Keep {
            let Some(stored) = self.stored(&locked)? else { return Ok(None) };
            locked.newest.record = stored;
        }
        Arc::make_mut(&mut locked.newest.record).cut();
        // Synced with its name at every durability: else a power cut may lose both.
        let live =
            self.create_beside(Whose::Secret(successor), Arc::clone(&locked.newest.record), true, Some(had))?;
        let path = &locked.path;
        let ended = (|| {
            locked.retire().map_err(|error| self.error("mark session file", path, error))?;
            let was_there = if self.leads_to(path, &locked.file)? {
                let removed = shard.unlink(path.below_shard());
                removed.map_err(|error| self.error("remove old session file", path, error))?
            } else {
                // Nor is a session removed that was brought in since this one was ended. What is no file is in the way.
                match shard.stat(path.below_shard()) {
                    Ok(there) if there.is_file => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Ok(_) => return Err(self.error("remove old session file", path, Errno::ISDIR.into())),
                    Err(error) => return Err(self.error("examine old session file", path, error)),
                }
                false
            };
            if was_there {
                locked.entomb();
                locked.tell_ended()?;
                // Whoever has the successor now must not lose it in silence, nor keep it while the old one may return.
                self.sync_ended(&shard, path).map_err(|error| {
                    error.with_reason("the session was ended by it, and may come back after a power cut")
                })?;
            }
            Ok(was_there)
        })();
        self.forget(session);
        match ended {
            Ok(true) => Ok(Some(live)),
            // Ended by a `delete` that could not wait for our lock: what is gone has no successor.
            Ok(false) => self.end_file(Whose::Secret(successor)).map(|_| None),
            Err(error) => {
                let _ = self.end_file(Whose::Secret(successor));
                Err(error)
            }
        }
    }

    /// Ends a session. Whether a live one was there.
    pub(super) fn end_file(&self, whose: Whose<'_>) -> Result<bool> {
        let id = whose.id();
        let shard = self.open_shard(&id)?;
        let path = SessionPath::of(&id);
        let locked = self.lock(whose, Some(&shard));
        let was_live = match &locked {
            Ok(Some(locked)) => {
                locked.entomb();
                let there = self.unlink(&shard, &path)?;
                there && !locked.newest.record.is_expired(self.now())
            }
            // Absent, or without a version: a name that is left goes too.
            Ok(None) => {
                self.unlink(&shard, &path)?;
                false
            }
            // Somebody holds the session and does not let go (a stopped process, say), or it cannot be read: a logout
            // waits for neither. Whatever the holder still writes, it writes to a file without a name.
            Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::TooLarge | ErrorKind::Io) => {
                let file = self.open_file(&id, &path, Access::Write);
                let was_there = self.unlink(&shard, &path)?;
                if let Ok(Some(file)) = file {
                    self.entomb_unlocked(whose, &path, &file);
                    // Who got the lock since, and read the file before it was marked, is done by then, or has had it for so long
                    // that he looks whether it has its name.
                    let _ = LockedFile::acquire(file, Instant::now() + 2 * LOCK_WAIT_MIN);
                }
                was_there
            }
            // What is not ours is left alone: another kind of file, or a newer version's session.
            Err(_) => return locked.map(|_| false),
        };
        // Also when there was nothing: somebody may have been killed between their unlink and their telling, or their
        // sync.
        let told = match &locked {
            Ok(Some(locked)) => locked.tell_ended(),
            _ => self.announce(whose, &id, News::Ended).map(drop),
        };
        drop(locked);
        whose.secret().inspect(|session| self.forget(session));
        self.sync_ended(&shard, &path)?;
        told.map(|()| was_live)
    }

    /// Ends the session for whoever waits for the lock of its file, which has just lost its name. Its holder may be
    /// anywhere in a save: that writes the other slot, and a tombstone in either ends the session.
    fn entomb_unlocked(&self, whose: Whose<'_>, path: &SessionPath, file: &File) {
        let look = |bytes: &[u8]| (slots::view(bytes, &whose.id(), None), bytes.len() / 2);
        let look = self.look(file, path, look);
        if let Ok((Ok(View::Valid { slot, .. }), slot_size)) = look {
            entomb(file, (slot * slot_size) as u64);
        }
    }

    /// Removes a session that is locked: it is dead. Whether its name was still there.
    pub(super) fn remove(&self, shard: &Directory, locked: &Locked<'_>) -> Result<bool> {
        // Whoever waits for the lock starts again by the path: the clock may have been set back when he gets it, or the
        // session brought in anew. Best effort: a disk that is too full for it is to be swept all the same.
        let _ = locked.retire();
        let was_there = self.leads_to(&locked.path, &locked.file)? && self.unlink(shard, &locked.path)?;
        locked.tell_ended()?;
        Ok(was_there)
    }

    pub(super) fn unlink(&self, shard: &Directory, path: &SessionPath) -> Result<bool> {
        shard.unlink(path.below_shard()).map_err(|error| self.error("remove session file", path, error))
    }

    /// Brings the end of a session to the disk.
    fn sync_ended(&self, shard: &Directory, path: &SessionPath) -> Result<()> {
        if self.options.sync_security_events {
            self.root
                .sync_removal(shard)
                .map_err(|error| self.unknown("sync the end of session", path, error))?;
        }
        Ok(())
    }
}
