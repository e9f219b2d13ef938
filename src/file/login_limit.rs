//! The limit on the live sessions of a user, at login.
//!
//! A login of a store with a limit:
//!
//! 1. takes the turn of its user, a lock among all threads and processes, and keeps it until its session is created. So
//!    no two logins count the same sessions.
//! 2. counts the live sessions of the user while the bucket of the user index is locked exclusively. Each rotation
//!    holds the bucket's shared lock from the entry of the new session to the end of the old one. So none is under way,
//!    and each session is counted once. The sessions are read without their locks, because a rotation that waits for
//!    the bucket holds one.
//! 3. without the bucket's lock, ends the oldest sessions, if that is the policy. If one of them was not there any
//!    more, because it was rotated after the count, the login counts again.
//!
//! - A login of a store without a limit, and a session without a user, take neither lock.
//! - The session that the login itself moves does not count, nor does one that this version cannot read.
//! - Steps 1 to 3 together wait for locks no longer than the lock limit of the store; then the login is refused with
//!   `Busy`, or, in step 3, the session is ended without its lock. The walk of a store whose index is not complete is
//!   no wait, and not limited.
//! - A removal of `run/users` during a login voids its locks.
use super::FileStore;
use super::disk::{self, Access};
use super::errors::is_of_another_version;
use super::flock::LockedFile;
use super::layout::{USERS, login_lock_name};
use super::options::AtLimit;
use super::scan::Content;
use super::session_lock::SessionRef;
use super::user_index::{self, Digest, Entry, bucket_of};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Observer;
use crate::id::{PublicId, SessionId};
use crate::queue::{Turn, busy};
use crate::record::user_digest;
use crate::store::{EndReason, EndedSession, Live};
use crate::sync::Instant;
use std::collections::BTreeSet;
use std::io;

const OPERATION: &str = "log in";

/// The sessions that a login has ended because of the limit. It reports them when it is dropped, which is after the
/// locks of the login were released, whether the login has succeeded or not.
pub(super) struct EndedByLimit<'a> {
    observer: &'a Observer,
    ended: Vec<EndedSession>,
}

impl Drop for EndedByLimit<'_> {
    fn drop(&mut self) {
        self.observer.notify_ends(&self.ended, EndReason::Limit);
    }
}

/// The turn of a user's login.
pub(super) struct LoginTurn<'a> {
    /// Released before the turn among threads, so that the next thread finds the file unlocked.
    _lock: LockedFile,
    _turn: Turn<'a>,
}

/// A login that waits for its admission.
struct Login<'a> {
    user: &'a str,
    digest: Digest,
    /// The session that the login moves.
    moves: Option<&'a SessionId>,
    /// The end of the waits for locks.
    deadline: Instant,
}

/// The result of a count.
enum Count {
    /// The user's live sessions, without the one that the login moves.
    Others(Vec<Live>),
    /// The session that the login moves is not live.
    NothingToMove,
    /// The index is not complete, so sessions may be missing from it.
    Incomplete,
}

impl FileStore {
    /// Made before a login is admitted, so that it is dropped last.
    pub(super) fn ended_by_limit(&self) -> EndedByLimit<'_> {
        EndedByLimit { observer: &self.options.observer, ended: Vec::new() }
    }

    /// Waits for the turn of a user's login, and makes room for its session, which is created while the turn is kept.
    /// `moves` is the session that the login moves. If that is not live, the login moves nothing, and so ends nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooManySessions`] if the limit refuses the login.
    pub(super) fn admit_login(
        &self,
        user: Option<&str>,
        moves: Option<&SessionId>,
        by_limit: &mut EndedByLimit<'_>,
    ) -> Result<Option<LoginTurn<'_>>> {
        let Some((limit, at_limit)) = self.options.sessions_per_user else { return Ok(None) };
        let Some((user, digest)) = user.and_then(|user| Some((user, user_digest(user)?))) else {
            return Ok(None);
        };
        self.queues.check_process()?;
        self.check_may_write()?;
        let deadline = || Instant::now() + self.options.lock_wait;
        let mut login = Login { user, digest, moves, deadline: deadline() };
        let turn = self.login_turn(&login)?;
        let mut walked = None;
        loop {
            match self.count(&login, walked.as_ref())? {
                Count::NothingToMove => return Ok(None),
                Count::Incomplete => {
                    walked = self.walk_for(&login)?;
                    login.deadline = deadline();
                }
                Count::Others(live) if live.len() < limit => return Ok(Some(turn)),
                Count::Others(live) if at_limit == AtLimit::Refuse => {
                    let reason = format!("the user has {} sessions, where the limit is {limit}", live.len());
                    return Err(Error::new(ErrorKind::TooManySessions, OPERATION).with_reason(reason));
                }
                Count::Others(live) => {
                    if self.end_oldest(live, limit, login.deadline, by_limit)? {
                        return Ok(Some(turn));
                    }
                    if Instant::now() > login.deadline {
                        return Err(busy());
                    }
                }
            }
        }
    }

    /// Ends the sessions with the oldest logins, so that one more is within the limit. Returns whether all of them were
    /// there.
    fn end_oldest(
        &self,
        mut live: Vec<Live>,
        limit: usize,
        deadline: Instant,
        by_limit: &mut EndedByLimit<'_>,
    ) -> Result<bool> {
        // A session without the time of its login began with it.
        live.sort_by_key(|live| (live.record.login().at.unwrap_or(live.record.timing().created), live.id));
        let surplus = live.len() + 1 - limit;
        let mut were_there = true;
        for oldest in &live[..surplus] {
            let ended = self.delete_until(SessionRef::PublicId(oldest.id), deadline)?;
            were_there &= ended.as_ref().is_some_and(EndedSession::was_live);
            by_limit.ended.extend(ended);
        }
        Ok(were_there)
    }

    /// Waits for the turn of a user's login. There are 256 locks, so some users share one.
    fn login_turn(&self, login: &Login<'_>) -> Result<LoginTurn<'_>> {
        let name = login_lock_name(login.digest[15]);
        let error = |error| self.root.error_at("lock the logins of a user", USERS, error);
        let turn = self.queues.turn(&PublicId::digest(name.as_bytes()), login.deadline)?;
        loop {
            let directory = match self.root.open_directory(USERS) {
                Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                    user_index::make_directory(&self.root).map_err(error)?;
                    continue;
                }
                opened => opened.map_err(error)?,
            };
            let file = directory.open_named(&name, Access::WriteOrCreate).map_err(error)?;
            let made = disk::stat(&file).map_err(error)?;
            self.root.sharing().repair_mode(&file, &made).map_err(error)?;
            let lock = LockedFile::acquire(file, login.deadline).map_err(error)?.map_err(|_| busy())?;
            // The directory may have been removed during the wait.
            if disk::stat(&lock).map_err(error)?.links > 0 {
                return Ok(LoginTurn { _lock: lock, _turn: turn });
            }
        }
    }

    /// Counts the live sessions of a user at one instant: those that the index lists, and those of `walked`.
    fn count(&self, login: &Login<'_>, walked: Option<&BTreeSet<PublicId>>) -> Result<Count> {
        let error = |error| self.root.error_at("lock the sessions of a user", USERS, error);
        let paused = self.user_index.pause(&self.root, &login.digest, login.deadline).map_err(error)?;
        let _paused = paused.ok_or_else(busy)?;
        let listed = self.listed(&login.digest)?;
        if !listed.is_complete && walked.is_none() {
            return Ok(Count::Incomplete);
        }
        let own = match login.moves {
            None => None,
            Some(session) => match self.session_meant(session.public_id())? {
                None => return Ok(Count::NothingToMove),
                own => own,
            },
        };
        let mut ids: BTreeSet<_> = listed.ids.into_iter().collect();
        ids.extend(walked.into_iter().flatten());
        let others =
            ids.iter().filter(|id| Some(**id) != own).filter_map(|id| match self.live_of(login.user, id) {
                // Its visitor cannot use it here.
                Err(error) if is_of_another_version(&error) => None,
                live => live.transpose(),
            });
        others.collect::<Result<_>>().map(Count::Others)
    }

    /// The sessions that may be a user's, by a walk of the whole store, which completes the index; `None` if another
    /// thread has completed it meanwhile.
    fn walk_for(&self, login: &Login<'_>) -> Result<Option<BTreeSet<PublicId>>> {
        let _turn = self.queues.turn(&PublicId::digest(USERS.as_bytes()), login.deadline)?;
        if self.listed(&login.digest)?.is_complete {
            return Ok(None);
        }
        let found = self.complete_user_index()?;
        let of_user = found.iter().filter(|(_, entry)| *entry == Entry::new(&login.digest, entry.id));
        Ok(Some(of_user.map(|(_, entry)| entry.id).collect()))
    }

    /// Reads every session, and inserts in the index those that it lacks. The index is complete afterwards, unless a
    /// file could not be read or an insertion has failed. Returns the sessions with a user, by their buckets.
    fn complete_user_index(&self) -> Result<Vec<(u16, Entry)>> {
        let error = |error| self.root.error_at("complete user index", USERS, error);
        let pending = user_index::begin_walk(&self.root).map_err(error)?;
        let (mut found, mut is_whole) = (Vec::new(), true);
        for file in self.files() {
            match file.map(|file| file.content) {
                Ok(Content::Live(live)) => {
                    let digest = live.record.user_digest();
                    found.extend(digest.map(|digest| (bucket_of(&digest), Entry::new(&digest, live.id))));
                }
                Ok(_) => {}
                // No visitor can use a session that cannot be read.
                Err(_) => is_whole = false,
            }
        }
        found.sort_unstable();
        let repaired = self.user_index.repair_all(&self.root, &found);
        if let Some(pending) = pending {
            let finished =
                is_whole && repaired.is_ok() && user_index::finish_walk(&self.root, &pending).is_ok();
            if !finished {
                pending.abandon(&self.root);
            }
        }
        Ok(found)
    }
}
