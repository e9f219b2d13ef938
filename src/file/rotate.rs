//! Rotating a session: the same record gets a new id, and the old id is ended or marked as moved, in one step for all
//! readers.
//!
//! Under the old session's lock (rule 7 for crashes in [`design`](crate::_documentation::design)): apply the change,
//! create the successor, power-safe at every durability, then end the old session as a delete does. With a grace
//! period, the old session's file stays, and a mark in it names the successor (`moved`). A kill before the tombstone or
//! the mark is written leaves the old session alive; a kill after it leaves the visitor no session, or, within the
//! grace period, the successor to a login. The successor's id is handed out last.
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

/// Where a rotation moves a session.
struct Target<'a> {
    successor: &'a SessionId,
    how: &'a Rotation<'a>,
    /// The number of the last cut-off before the rotation, if that is a login.
    at_login: Option<u64>,
}

impl FileStore {
    /// Changes a session and moves it to `successor`. The old session is ended, or marked as moved, when this returns a
    /// record. A login goes on from a moved id to the session that has its place.
    pub(super) fn rotate_file(
        &self,
        session: &SessionId,
        successor: &SessionId,
        change: Change<'_>,
        how: &Rotation<'_>,
    ) -> Result<Option<Live>> {
        self.queues.check_process()?;
        // Read first: a cut-off that is called after this has a greater number.
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

    /// Rotates a session that is locked.
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
        // session.
        // `at_login` was read before the lock was taken: a cut-off since then that excepts this session counts for its
        // successor, too.
        record.set_cut_off(at_login.map_or(cut_off, |at_login| at_login.max(cut_off)));
        let had = Extent::of(&locked.newest.record);
        let mark = Mark::of(how, successor.public_id(), self.now_micros());
        if let Some(mark) = &mark {
            // So that a sweep finds the mark when its grace period is over.
            let entry = Entry { id: locked.id, deadline: mark.until };
            let before = locked.newest.record.deadline_micros();
            self.expiry_index.insert_if_earlier(&self.root, entry, before, self.now_micros());
        }
        // The successor and its name are synced at every durability, because otherwise a power cut may lose both
        // sessions.
        let (live, _listed) = self.create_beside(SessionRef::Id(successor), record, true, Some(had))?;
        let ended = (|| {
            // Checked first, because a file that was moved away outside the library must not be written to.
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
            // A forced delete has ended the old session, so the successor is deleted too.
            Ok(false) => self.delete_file(SessionRef::Id(successor)).map(|_| None),
            Err(error) => {
                let _ = self.delete_file(SessionRef::Id(successor));
                Err(error)
            }
        }
    }

    /// Refuses a link, pipe, directory or device under the name of a session whose file has lost that name.
    fn check_unobstructed(&self, shard: &Directory, path: &SessionPath) -> Result<()> {
        match shard.stat(path.below_shard()) {
            Ok(there) if there.is_file => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(_) => Err(self.root.error("remove old session file", path, Errno::ISDIR.into())),
            Err(error) => Err(self.root.error("examine old session file", path, error)),
        }
    }
}
