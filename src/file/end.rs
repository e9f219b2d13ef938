//! Rotate, delete: what ends the session of an id, step by step, so that it stays ended. The reasons are in
//! [`design`](crate::design).
//!
//! **The name goes last.** Under the session's lock, the tombstone is written into its file and brought to the disk, the end
//! is announced, and only then is the name removed: a name that is absent proves that nothing is left to be done. Where that
//! cannot be had, because another holds the lock, or the file cannot be read, written or synced, the file is *moved* first, to
//! a name that says that its end is under way; that name goes last.
use super::FileStore;
use super::disk::{self, Access, Directory};
use super::generations::News;
use super::layout::SessionPath;
use super::lock::LockedFile;
use super::locked::{Held, Locked, Remains, Whose, entomb};
use super::options::LOCK_WAIT_MIN;
use super::slot::{Extent, State};
use super::slots::{self, View};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PublicId, SessionId};
use crate::store::{Change, Live, Store, Verdict};
use crate::sync::Instant;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// A file in a session's place that is to lose its name, locked by us.
struct Dying<'a> {
    whose: Whose<'a>,
    shard: &'a Directory,
    path: &'a SessionPath,
    file: &'a File,
    /// Where in the file the tombstone goes.
    offset: u64,
    /// What is known of the inode.
    state: State,
}

impl FileStore {
    /// Changes a session and moves it to `successor`. The old session is ended when this returns a record.
    pub(super) fn rotate_file(
        &self,
        session: &SessionId,
        successor: &SessionId,
        change: Change<'_>,
    ) -> Result<Option<Live>> {
        let shard = self.open_shard(&session.public_id())?;
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
        let ended = (|| {
            // Before anything is written to a file that was moved away by hand.
            let was_there = self.leads_to(&locked.path, &locked.file)? && self.end_locked(&shard, &locked)?;
            if !was_there {
                self.check_unobstructed(&shard, &locked.path)?;
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
    ///
    /// An id under which there is nothing costs looks: no write, no lock, no sync.
    pub(super) fn end_file(&self, whose: Whose<'_>) -> Result<bool> {
        let id = whose.id();
        let shard = self.open_shard(&id)?;
        let held = self.hold(whose, Some(&shard), Instant::now() + self.options.lock_wait);
        let ended = match held {
            Ok(Held::Version(locked)) => {
                let is_live = !locked.newest.record.is_expired(self.now());
                self.end_locked(&shard, &locked).map(|was_there| was_there && is_live)
            }
            Ok(Held::Remains(remains)) => self.end_remains(whose, &shard, &remains).map(|()| false),
            Ok(Held::Nothing) => self.end_nothing(whose, &id, &shard).map(|()| false),
            // Another writer has the lock and does not let go (a stopped process, say), or the file cannot be read: a logout
            // waits for neither. Whatever the holder still writes, it writes to a file that has lost the session's name.
            Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::TooLarge | ErrorKind::Io) => {
                self.end_unlocked(whose, &id, &shard)
            }
            // What is not ours is left alone: another kind of file, or a newer version's session.
            Err(error) => return Err(error),
        };
        whose.secret().inspect(|session| self.forget(session));
        ended
    }

    /// Removes what is left in a session's place, and finishes its end if that was cut short.
    fn end_remains(&self, whose: Whose<'_>, shard: &Directory, remains: &Remains<'_>) -> Result<()> {
        let id = whose.id();
        let path = &SessionPath::of(&id);
        let tell = || self.announce(whose, &id, News::Ended).map(drop);
        if !remains.is_damaged {
            // What was known of the inode was lost with its versions.
            let dying = Dying { whose, shard, path, file: &remains.file, offset: 0, state: State::REPLACES };
            return self.end_in_place(&dying, tell).map(drop);
        }
        // Without a tombstone: it may be a hard link to another session's file. As damage it may come back.
        tell()?;
        self.unlink(shard, path)?;
        self.sync_name(shard, path)
    }

    /// Ends what has no file: finishes an end that was begun without the lock, if there is one.
    fn end_nothing(&self, whose: Whose<'_>, id: &PublicId, shard: &Directory) -> Result<()> {
        self.finish_moved(whose, id, shard)?;
        // Removed by hand, which was not announced. No copy was ever made of a session with a made-up id.
        let known = whose.secret().zip(self.cache.as_ref());
        if known.is_some_and(|(session, cache)| cache.peek(session.as_bytes()).is_some()) {
            self.announce(whose, id, News::Ended)?;
        }
        Ok(())
    }

    /// Ends a session under its lock. Whether its name was still there.
    fn end_locked(&self, shard: &Directory, locked: &Locked<'_>) -> Result<bool> {
        let dying = Dying {
            whose: locked.whose,
            shard,
            path: &locked.path,
            file: &locked.file,
            offset: locked.offset(locked.slot),
            state: locked.state(),
        };
        self.end_in_place(&dying, || locked.tell_ended())
    }

    /// Ends what is in a file that we have locked, the name last. Whether the name was still there.
    fn end_in_place(&self, dying: &Dying<'_>, tell: impl FnOnce() -> Result<()>) -> Result<bool> {
        let syncs = self.options.sync_security_events;
        // A name that a power cut gives back to an older file has to lead here for good before it goes.
        let name = if syncs && dying.state.name_may_fall_back() { dying.shard.sync() } else { Ok(()) };
        let is_marked = name.is_ok() && entomb(dying.file, dying.offset).is_ok();
        let ended = if is_marked && self.sync_tombstone(dying) {
            tell()?;
            self.remove_ended(dying)
        } else {
            self.end_by_moving(dying, tell)
        };
        match (name, ended) {
            (Err(error), Ok(_)) => Err(self.end_unknown(dying.path, error)),
            // Nothing can be read of the session any more, and that is all that is known.
            (_, Err(error))
                if is_marked
                    && !matches!(
                        error.kind(),
                        ErrorKind::DurabilityUnknown | ErrorKind::InvalidationFailed
                    ) =>
            {
                Err(Error::new(ErrorKind::DurabilityUnknown, "remove the file of an ended session")
                    .with_path(self.path().join(dying.path.as_str()))
                    .with_reason("the session was ended, and its file may be left")
                    .with_source(error))
            }
            (_, ended) => ended,
        }
    }

    /// Removes the name of a session whose end is announced, and on the disk if ends are. Whether it was still there.
    fn remove_ended(&self, dying: &Dying<'_>) -> Result<bool> {
        if !self.leads_to(dying.path, dying.file)? {
            return Ok(false);
        }
        // A name that cannot be removed leads to a tombstone: the session is ended, and a sweep removes the file.
        Ok(dying.shard.unlink(dying.path.below_shard()).unwrap_or(true))
    }

    /// Ends a session under its lock where a tombstone cannot be written or synced. Whether its name was still there.
    fn end_by_moving(&self, dying: &Dying<'_>, tell: impl FnOnce() -> Result<()>) -> Result<bool> {
        // Another session may have been brought in, after a `delete` that could not wait for our lock.
        if !self.leads_to(dying.path, dying.file)? || !self.move_away(dying.shard, dying.path)? {
            // The `delete` that moved the file away may have been killed since.
            self.finish_moved(dying.whose, &dying.whose.id(), dying.shard)?;
            return Ok(false);
        }
        let _ = entomb(dying.file, dying.offset);
        self.finish_end(dying.shard, dying.path, Some(dying.file), tell)?;
        Ok(true)
    }

    /// Brings the tombstone to the disk, if ends are. Whether that was done.
    fn sync_tombstone(&self, dying: &Dying<'_>) -> bool {
        let is_reliable = !dying.state.has(State::SYNC_FAILED);
        !self.options.sync_security_events || is_reliable && disk::sync_data(dying.file).is_ok()
    }

    /// Ends a session whose lock is not to be had, or that cannot be read. Whether its name was there.
    fn end_unlocked(&self, whose: Whose<'_>, id: &PublicId, shard: &Directory) -> Result<bool> {
        let was_there = self.move_away(shard, &SessionPath::of(id))?;
        self.finish_moved(whose, id, shard)?;
        Ok(was_there)
    }

    /// Takes a session's name from its file, which gets the name that says that its end is under way. Whether it was there.
    fn move_away(&self, shard: &Directory, path: &SessionPath) -> Result<bool> {
        let moved = shard.rename(path.below_shard(), &path.ending());
        moved.map_err(|error| self.error("remove session file", path, error))
    }

    /// Finishes the end of a session whose file was moved, if there is one: also one that was begun by a process that was
    /// killed.
    pub(super) fn finish_moved(&self, whose: Whose<'_>, id: &PublicId, shard: &Directory) -> Result<()> {
        let path = SessionPath::of(id);
        let file = match shard.open_named(&path.ending(), Access::Write) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // It cannot be marked, but it has lost its name.
            Err(_) => None,
        };
        file.as_ref().inspect(|file| self.entomb_moved(whose, &path, file));
        let told = || self.announce(whose, id, News::Ended).map(drop);
        self.finish_end(shard, &path, file.as_ref(), told)?;
        // A writer that got the lock since, and read the file before it was marked, is done by then, or has had it for so long
        // that it looks whether the file has its name.
        file.map(|file| LockedFile::acquire(file, Instant::now() + 2 * LOCK_WAIT_MIN));
        Ok(())
    }

    /// Announces the end of a session whose file was moved, brings it to the disk if ends are, and removes the file.
    fn finish_end(
        &self,
        shard: &Directory,
        path: &SessionPath,
        file: Option<&File>,
        tell: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let told = tell();
        if self.options.sync_security_events {
            // On btrfs the sync of a directory may forget that a name is gone. That of a file whose name has changed does not.
            file.inspect(|file| drop(disk::sync_data(file)));
        }
        self.sync_name(shard, path)?;
        told?;
        // One that stays is finished once more, by the next `delete` or by a sweep.
        let _ = shard.unlink(path.ending());
        Ok(())
    }

    /// Brings to the disk that a session's name is gone, if ends are.
    fn sync_name(&self, shard: &Directory, path: &SessionPath) -> Result<()> {
        if !self.options.sync_security_events {
            return Ok(());
        }
        shard.sync().map_err(|error| self.end_unknown(path, error))
    }

    /// Ends the session for those that wait for the lock of its file, which has lost its name. Its holder may be anywhere in a
    /// save: that writes the other slot, and a tombstone in either ends the session.
    fn entomb_moved(&self, whose: Whose<'_>, path: &SessionPath, file: &File) {
        let look = |bytes: &[u8]| (slots::view(bytes, &whose.id(), None), bytes.len() / 2);
        let look = self.look(file, path, look);
        if let Ok((Ok(View::Valid { slot, .. }), slot_size)) = look {
            let _ = entomb(file, (slot * slot_size) as u64);
        }
    }

    /// Removes a session that is locked: it has expired, or is dead. Whether its name was still there.
    pub(super) fn remove(&self, shard: &Directory, locked: &Locked<'_>) -> Result<bool> {
        // Whoever waits for the lock starts again by the path: the clock may have been set back when he gets it, or the
        // session brought in anew. Best effort: a disk that is too full for it is to be swept all the same.
        let _ = locked.retire();
        locked.tell_ended()?;
        Ok(self.leads_to(&locked.path, &locked.file)? && self.unlink(shard, &locked.path)?)
    }

    pub(super) fn unlink(&self, shard: &Directory, path: &SessionPath) -> Result<bool> {
        shard.unlink(path.below_shard()).map_err(|error| self.error("remove session file", path, error))
    }

    /// Refuses what is no file in the place of a session that was rotated away meanwhile.
    fn check_unobstructed(&self, shard: &Directory, path: &SessionPath) -> Result<()> {
        match shard.stat(path.below_shard()) {
            Ok(there) if there.is_file => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(_) => Err(self.error("remove old session file", path, Errno::ISDIR.into())),
            Err(error) => Err(self.error("examine old session file", path, error)),
        }
    }

    /// The session is ended for all that look, and may come back after a power cut.
    fn end_unknown(&self, path: &SessionPath, error: io::Error) -> Error {
        self.unknown("sync the end of session", path, error)
            .with_reason("the session was ended, and may come back after a power cut")
    }
}
