//! The limit on the live sessions of a user, at login.
//!
//! A login of a store with a limit has the turn of its user from the count to the creation of its session: a lock among all
//! threads and processes, taken before any session's lock. So no two logins count the same sessions. Sessions of the user
//! that rotate meanwhile are counted once each (`live_sessions`).
//!
//! - A login of a store without a limit, and a session without a user, take no such lock.
//! - The session that the login itself moves does not count.
use super::FileStore;
use super::disk::{self, Access};
use super::flock::LockedFile;
use super::layout::{USERS, login_lock_name};
use super::options::AtLimit;
use super::queue::{Turn, busy};
use super::scan::Content;
use super::session_lock::{LockResult, SessionRef};
use super::user_index::{self, Digest, Entry, bucket_of};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PublicId, SessionId};
use crate::record::user_digest;
use crate::store::Live;
use crate::sync::Instant;
use std::collections::BTreeSet;
use std::io;

const OPERATION: &str = "log in";

/// The turn of a user's login.
pub(super) struct LoginTurn<'a> {
    /// Released before the turn among threads, so that the next thread finds the file unlocked.
    _lock: LockedFile,
    _turn: Turn<'a>,
}

impl FileStore {
    /// Waits for the turn of a user's login, and makes room for its session, which is created while the turn is kept.
    /// `moves` is the session that the login moves, which does not count.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooManySessions`] if the limit refuses the login.
    pub(super) fn admit_login(
        &self,
        user: Option<&str>,
        moves: Option<&SessionId>,
    ) -> Result<Option<LoginTurn<'_>>> {
        let Some((limit, at_limit)) = self.options.sessions_per_user else { return Ok(None) };
        let Some((user, digest)) = user.and_then(|user| Some((user, user_digest(user)?))) else {
            return Ok(None);
        };
        self.queues.check_process()?;
        self.check_may_write()?;
        let turn = self.login_turn(&digest)?;
        let mut live = Vec::new();
        for locked in [false, true] {
            if !locked || live.len() >= limit {
                let Some(counted) = self.other_sessions(user, &digest, moves, locked)? else {
                    return Ok(None);
                };
                live = counted;
            }
        }
        if live.len() >= limit && at_limit == AtLimit::Refuse {
            let reason = format!("the user has {} sessions, where the limit is {limit}", live.len());
            return Err(Error::new(ErrorKind::TooManySessions, OPERATION).with_reason(reason));
        }
        // A session without the time of its login began with it.
        live.sort_by_key(|live| (live.record.login().at.unwrap_or(live.record.timing().created), live.id));
        let surplus = (live.len() + 1).saturating_sub(limit);
        for oldest in &live[..surplus] {
            self.delete_file(SessionRef::PublicId(oldest.id))?;
        }
        Ok(Some(turn))
    }

    /// The live sessions of a user, without the one that the login moves; `None` if that is not live, because the login
    /// then moves nothing, and must end nothing either.
    fn other_sessions(
        &self,
        user: &str,
        digest: &Digest,
        moves: Option<&SessionId>,
        locked: bool,
    ) -> Result<Option<Vec<Live>>> {
        let Some(session) = moves else { return self.live_sessions(user, digest, None, locked).map(Some) };
        let deadline = Instant::now() + self.options.lock_wait;
        while Instant::now() <= deadline {
            let Some(meant) = self.session_meant(session.public_id())? else { return Ok(None) };
            let live = self.live_sessions(user, digest, Some(meant), locked)?;
            // If it was rotated during the count, its successor may have been counted.
            if self.session_meant(session.public_id())? == Some(meant) {
                return Ok(Some(live));
            }
        }
        Err(busy())
    }

    /// Waits for the turn of a user's login. There are 256 locks, so some users share one.
    fn login_turn(&self, digest: &Digest) -> Result<LoginTurn<'_>> {
        let name = login_lock_name(digest[15]);
        let error = |error| self.root.error_at("lock the logins of a user", USERS, error);
        let deadline = Instant::now() + self.options.lock_wait;
        let turn = self.queues.turn(&PublicId::digest(name.as_bytes()), deadline)?;
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
            let lock = LockedFile::acquire(file, deadline).map_err(error)?.map_err(|_| busy())?;
            // The directory may have been removed during the wait.
            if disk::stat(&lock).map_err(error)?.links > 0 {
                return Ok(LoginTurn { _lock: lock, _turn: turn });
            }
        }
    }

    /// The live sessions of a user, without the one of `except`.
    ///
    /// A rotation appends its successor's entry, creates the successor, and then ends the old session. So a session can
    /// be missed only if its successor's entry was appended during the count, or if the successor was read before it was
    /// created. The count is repeated if a further entry, or a session that was absent, is there after it. With `locked`,
    /// no session is counted twice either: a rotation that had appended its entry has ended when the old session's lock
    /// is free, and the entry of one that begins later is a further one.
    fn live_sessions(
        &self,
        user: &str,
        digest: &Digest,
        except: Option<PublicId>,
        locked: bool,
    ) -> Result<Vec<Live>> {
        let mut listed = self.listed_or_walked(digest)?;
        // Each repetition means that one of them was rotated, or that the user logged in where no limit is set.
        let deadline = Instant::now() + self.options.lock_wait;
        while Instant::now() <= deadline {
            let (mut live, mut absent) = (Vec::new(), Vec::new());
            for id in listed.iter().filter(|id| Some(**id) != except) {
                let found = if locked { self.live_under_lock(user, id)? } else { self.live_of(user, id)? };
                match found {
                    Some(found) => live.push(found),
                    None => absent.push(*id),
                }
            }
            let mut is_exact = true;
            for id in &absent {
                is_exact &= self.live_of(user, id)?.is_none();
            }
            let again: BTreeSet<_> = self.listed(digest)?.ids.into_iter().collect();
            if is_exact && again.is_subset(&listed) {
                return Ok(live);
            }
            listed.extend(again);
        }
        Err(busy())
    }

    /// The session if it is live and this user's, by its file under its lock.
    fn live_under_lock(&self, user: &str, id: &PublicId) -> Result<Option<Live>> {
        let deadline = Instant::now() + self.options.lock_wait;
        match self.lock_session(SessionRef::PublicId(*id), None, deadline) {
            Ok(LockResult::Session(locked)) => {
                let is_live = self.is_live_of(user, &locked)?;
                Ok(is_live.then(|| Live { record: locked.newest.record.clone(), id: *id }))
            }
            Ok(LockResult::Missing | LockResult::Unreadable(_) | LockResult::Moved(_)) => Ok(None),
            // A writer that keeps the lock is stopped, and will not end the session.
            Err(error) if error.kind() == ErrorKind::Busy => self.live_of(user, id),
            Err(error) => Err(error),
        }
    }

    /// The sessions that may be a user's: those that the index lists, after a walk of the whole store if the index is not
    /// complete.
    fn listed_or_walked(&self, digest: &Digest) -> Result<BTreeSet<PublicId>> {
        let listed = self.listed(digest)?;
        if listed.is_complete {
            return Ok(listed.ids.into_iter().collect());
        }
        // One thread walks, and the others then find the index complete.
        let _turn =
            self.queues.turn(&PublicId::digest(USERS.as_bytes()), Instant::now() + self.options.lock_wait)?;
        let listed = self.listed(digest)?;
        let mut ids: BTreeSet<_> = listed.ids.into_iter().collect();
        if !listed.is_complete {
            let found = self.complete_user_index()?;
            let of_user = |(_, entry): &(u16, Entry)| *entry == Entry::new(digest, entry.id);
            ids.extend(found.iter().filter(|found| of_user(found)).map(|(_, entry)| entry.id));
        }
        Ok(ids)
    }

    /// Reads every session, and inserts in the index those that it lacks. The index is complete afterwards, unless a file
    /// could not be read or an insertion has failed. Returns the sessions with a user, by their buckets.
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
