//! Rotating a session: the same record gets a new id, and the old id is ended or marked as moved, in one step for all
//! readers.
//!
//! Under the old session's lock (rule 7 for crashes in [`design`](crate::_documentation::design)): apply the change,
//! create the successor, power-safe at every durability, then end the old session as a delete does. With a grace
//! period, the old session's file stays, and a mark in it names the successor (`moved`). A kill before the tombstone or
//! the mark is written leaves the old session alive; a kill after it leaves the visitor no session, or, within the
//! grace period, the successor to a login. The caller gets the successor's id last.
//!
//! - A session has at most one successor: if the old session cannot be ended, or a forced delete has ended it, the
//!   successor is deleted.
use super::FileStore;
use super::disk::Directory;
use super::expiry_index::Entry;
use super::layout::SessionPath;
use super::session_lock::{LockResult, Locked, SessionRef};
use super::slot::{Extent, Mark};
use crate::error::Result;
use crate::id::SessionId;
use crate::store::{Change, HOPS_MAX, Live, Rotation, Verdict};
use crate::sync::Instant;
use rustix::io::Errno;
use std::io;

/// The new id of a session that is rotated, and the rotation's options.
struct Target<'a> {
    successor: &'a SessionId,
    how: &'a Rotation<'a>,
    /// If the rotation is a login: the number of the last cut-off before it.
    at_login: Option<u64>,
}

impl FileStore {
    /// Changes a session and moves it to the id `successor`. If this returns a record, the old session is ended, or
    /// marked as moved. A login under a moved id applies to the session under its present id.
    pub(super) fn rotate_file(
        &self,
        session: &SessionId,
        successor: &SessionId,
        change: Change<'_>,
        how: &Rotation<'_>,
    ) -> Result<Option<Live>> {
        self.queues.check_process()?;
        // The number is read first: a cut-off that is called after this has a greater number, and ends the new session.
        let at_login = how.login.map(|_| self.coherence.last_cut_off(true)).transpose()?;
        let deadline = Instant::now() + self.options.lock_wait;
        let mut session = SessionRef::Id(session);
        for _ in 0..=HOPS_MAX {
            let shard = self.open_shard(&session.public_id())?;
            let next = match self.lock_session(session, Some(&shard), deadline)? {
                LockResult::Session(locked) => {
                    let target = Target { successor, how, at_login };
                    return self.rotate_locked(&shard, &locked, change, &target);
                }
                LockResult::Moved(moved) if how.login.is_some() => {
                    self.complete_mark(&shard, &moved)?;
                    self.next_hop(&moved.view.mark)
                }
                LockResult::Missing | LockResult::Unreadable(_) | LockResult::Moved(_) => {
                    return self.invalidate_absent(session).map(|()| None);
                }
            };
            let Some(next) = next else { return Ok(None) };
            session = SessionRef::PublicId(next);
        }
        Ok(None)
    }

    /// Rotates a session whose lock is held.
    fn rotate_locked(
        &self,
        shard: &Directory,
        locked: &Locked<'_>,
        change: Change<'_>,
        Target { successor, how, at_login }: &Target<'_>,
    ) -> Result<Option<Live>> {
        if self.is_expired(&locked.newest.record) {
            return Ok(None);
        }
        self.coherence.cut_off_view()?;
        let Some(cut_off) = self.coherence.standing(&locked.newest.record, &locked.id) else {
            return Ok(None);
        };
        let mut record = locked.newest.record.clone();
        match change(&mut record)? {
            Verdict::Abort => return Ok(None),
            Verdict::Keep => record = locked.newest.record.clone(),
            Verdict::Write => {}
        }
        // The successor needs no further check: a cut-off since then ends it by this number, as it ends the old
        // session. `at_login` was read before the lock was taken: a cut-off since then that excepts this session counts
        // for its successor, too.
        record.set_cut_off(at_login.map_or(cut_off, |at_login| at_login.max(cut_off)));
        let had = Extent::of(&locked.newest.record);
        let mark = Mark::of(how, successor.public_id(), self.now_micros());
        if let Some(mark) = &mark {
            // The entry makes a sweep examine the mark when its grace period is over.
            let entry = Entry { id: locked.id, deadline: mark.until };
            let before = locked.newest.record.deadline_micros();
            self.expiry_index.insert_if_earlier(&self.root, entry, before, self.now_micros());
        }
        // The successor and its name are synced at every durability. Otherwise a power cut might lose both sessions.
        let (live, _listed) = self.create_beside(SessionRef::Id(successor), record, true, Some(had))?;
        let ended = (|| {
            // If the file was moved away outside the library, the path does not lead to it any more, and it must not be
            // written to.
            let was_there = self.is_current_file(&locked.path, &locked.file)?
                && self.delete_locked(shard, locked, mark.as_ref())?;
            if !was_there {
                self.check_unobstructed(shard, &locked.path)?;
            }
            Ok(was_there)
        })();
        locked.session.session_id().inspect(|session| self.coherence.forget(session));
        match ended {
            Ok(true) => Ok(Some(live)),
            // A forced delete has ended the old session, so its successor is deleted, too.
            Ok(false) => self.delete_file(SessionRef::Id(successor)).map(|_| None),
            Err(error) => {
                let _ = self.delete_file(SessionRef::Id(successor));
                Err(error)
            }
        }
    }

    /// The file has lost its session's name. Refuses a link, pipe, directory or device that has the name now.
    fn check_unobstructed(&self, shard: &Directory, path: &SessionPath) -> Result<()> {
        match shard.stat(path.below_shard()) {
            Ok(there) if there.is_file => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(_) => Err(self.root.error("remove old session file", path, Errno::ISDIR.into())),
            Err(error) => Err(self.root.error("examine old session file", path, error)),
        }
    }
}
