//! Rotating a session: the same record gets a new id, and the old id is ended, in one step for all readers.
//!
//! Under the old session's lock (rule 7 for crashes in [`design`](crate::_documentation::design)): apply the change,
//! create the successor, power-safe at every durability, then end the old session as a delete does. A kill before the
//! tombstone is written leaves the old session alive; a kill after it leaves the visitor no session. The successor's id
//! is handed out last.
//!
//! - A session has at most one successor: if the old session cannot be ended, or a forced delete has ended it, the
//!   successor is deleted.
use super::FileStore;
use super::disk::Directory;
use super::layout::SessionPath;
use super::session_lock::SessionRef;
use super::slot::Extent;
use crate::error::Result;
use crate::id::SessionId;
use crate::store::{Change, Live, Verdict};
use rustix::io::Errno;
use std::io;

impl FileStore {
    /// Changes a session and moves it to `successor`. The old session is ended when this returns a record.
    pub(super) fn rotate_file(
        &self,
        session: &SessionId,
        successor: &SessionId,
        change: Change<'_>,
    ) -> Result<Option<Live>> {
        let shard = self.open_shard(&session.public_id())?;
        let Some(locked) = self.lock_live(session, Some(&shard))? else { return Ok(None) };
        if self.is_expired(&locked.newest.record) {
            return Ok(None);
        }
        let mut record = locked.newest.record.clone();
        match change(&mut record)? {
            Verdict::Abort => return Ok(None),
            Verdict::Keep => record = locked.newest.record.clone(),
            Verdict::Write => {}
        }
        let had = Extent::of(&locked.newest.record);
        // The successor and its name are synced at every durability, because otherwise a power cut may lose both
        // sessions.
        let live = self.create_beside(SessionRef::Id(successor), record, true, Some(had))?;
        let ended = (|| {
            // Checked first, because a file that was moved away outside the library must not be written to.
            let was_there =
                self.is_current_file(&locked.path, &locked.file)? && self.delete_locked(&shard, &locked)?;
            if !was_there {
                self.check_unobstructed(&shard, &locked.path)?;
            }
            Ok(was_there)
        })();
        self.coherence.forget(session);
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
