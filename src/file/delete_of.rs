//! Ending the sessions of a user, or all sessions, by one entry in the log of cut-offs (`cut_offs`).
//!
//! The files of the sessions stay, and no load finds them; a sweep removes them.
//!
//! - The session that is excepted is named by the entry. Its lock is held until the entry is known everywhere, so no
//!   rotation and no save of it is under way: the next change of the session finds the entry, and carries its number
//!   on.
use super::FileStore;
use super::coherence::CutOff;
use super::session_lock::{LockResult, SessionRef};
use crate::clock::micros;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PublicId, Token};
use crate::record::{Record, user_digest};
use crate::store::Store;
use crate::sync::Instant;

const OPERATION: &str = "end the sessions of a user";

impl FileStore {
    /// Ends the sessions of a user, except one.
    pub(super) fn cut_off_user(&self, user: &str, except: Option<&Token>) -> Result<()> {
        self.check_may_cut_off()?;
        // The digest of no user would stand for all.
        let digest = user_digest(user)
            .ok_or_else(|| Error::new(ErrorKind::Value, OPERATION).with_reason("the user is empty"))?;
        let deadline = Instant::now() + self.options.lock_wait;
        let Some(token) = except else {
            return self.append_cut_off(Some(digest), None, deadline);
        };
        let gone = || {
            let reason = "the excepted session is not a live session of the user; none was ended";
            Error::new(ErrorKind::Gone, OPERATION).with_reason(reason)
        };
        let session = SessionRef::Id(token.session_id().ok_or_else(gone)?);
        let LockResult::Session(locked) = self.lock_session(session, None, deadline)? else {
            return Err(gone());
        };
        let record = &locked.newest.record;
        if record.is_expired(self.now()) || record.user() != Some(user) {
            return Err(gone());
        }
        self.append_cut_off(Some(digest), Some((record, locked.id)), deadline)
    }

    /// Ends all sessions.
    pub(super) fn cut_off_all(&self) -> Result<()> {
        self.check_may_cut_off()?;
        self.append_cut_off(None, None, Instant::now() + self.options.lock_wait)
    }

    fn check_may_cut_off(&self) -> Result<()> {
        self.queues.check_process()?;
        self.check_may_write()
    }

    fn append_cut_off(
        &self,
        user: Option<[u8; 16]>,
        except: Option<(&Record, PublicId)>,
        deadline: Instant,
    ) -> Result<()> {
        self.coherence.cut_off(&CutOff { user, time: micros(self.now()), except }, deadline)
    }

    /// Whether a cut-off has ended a session.
    pub(super) fn is_cut_off(&self, record: &Record, id: &PublicId) -> Result<bool> {
        self.coherence.cut_off_view()?;
        Ok(self.coherence.standing(record, id).is_none())
    }
}
