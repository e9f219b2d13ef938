//! Moved ids: a rotation with a grace period leaves a mark in the old session's file, which names the successor.
//!
//! A load of a moved id finds no session. A logout or a login under the old id applies to the session under its present
//! id, and a login can get a copy of its entries ([`store`](crate::store), promise 9).
//!
//! - **Under the old session's lock**: the mark into the older slot, `fdatasync`, invalidation, and a tombstone over
//!   the newest version. So a file with a mark and a tombstone is complete: the mark is on the disk, and no cache has
//!   the session. A file with a mark and a version is the work of a process that was killed, or of a disk that failed;
//!   the next deletion, login or sweep that meets it completes it first.
//! - **One lock at a time**: the lock of a moved file is released before that of the successor is taken. Marks never
//!   change, so the id that was read from the mark stays the right one.
//! - **A mark is kept until its grace period is over.** Then a sweep removes its file, without a sync: a mark that a
//!   power cut brings back opens nothing.
use super::FileStore;
use super::coherence::Cause;
use super::disk::{self, Directory};
use super::session_lock::{Locked, MovedFile, SessionRef, write_tombstone};
use super::slot::{self, MARK_LEN, Mark, State};
use super::slots::View;
use crate::error::Result;
use crate::id::PublicId;
use crate::store::{GRACE_MAX, HOPS_MAX, Live, Rotation, Store};

impl Mark {
    /// The mark for a rotation that is made now; `None` if the rotation has no grace period.
    pub(super) fn of(how: &Rotation<'_>, successor: PublicId, now: u64) -> Option<Self> {
        let grace = u64::try_from(how.grace.min(GRACE_MAX).as_micros()).unwrap_or(u64::MAX);
        let until = now.saturating_add(grace);
        (grace > 0).then_some(Self { successor, until, by_login: how.login.is_some() })
    }
}

impl Locked<'_> {
    /// Encodes a mark for the older slot of this file; `None` if the file's sequence numbers are used up.
    pub(super) fn encode_mark(&self, mark: &Mark) -> Option<[u8; MARK_LEN]> {
        let state = self.state();
        // The name of the file is synced before the mark is written, so the mark's slot can state that.
        let syncs_name = self.store.options.sync_security_events && state.name_may_fall_back();
        let state = if syncs_name { state.and(State::NAME_SYNCED) } else { state }.inherited();
        let sequence = self.newest.version.next_sequence()?;
        let header = slot::Header { id: &self.id, sequence, state, slot_size_min: self.slot_size };
        Some(slot::encode_mark(mark, &header))
    }
}

impl FileStore {
    /// The id to which a logout or a login under a moved id applies: that of the successor, if the grace period has not
    /// ended and the rotation was not a login.
    pub(super) fn next_hop(&self, mark: &Mark) -> Option<PublicId> {
        let follows = !mark.by_login && mark.is_within_grace(self.now_micros());
        follows.then_some(mark.successor)
    }

    /// Completes the work of a rotation that has written its mark and was killed before it returned. Afterwards no
    /// process finds the session under its old id, even if it has a cached copy, or after a power cut. If the mark is
    /// complete, does nothing.
    pub(super) fn complete_mark(&self, shard: &Directory, moved: &MovedFile<'_>) -> Result<()> {
        if moved.view.is_complete {
            return Ok(());
        }
        if self.options.sync_security_events {
            let error = |error| self.root.error("sync the mark of moved session", &moved.path, error);
            if moved.view.state.name_may_fall_back() {
                shard.sync_changed_name().map_err(error)?;
            }
            // The mark is written once more: a failed sync may have marked its page as clean, so a sync alone would not
            // write it.
            let offset = (moved.view.slot * moved.view.slot_size) as u64;
            disk::read_at(&moved.file, offset, MARK_LEN)
                .and_then(|mark| disk::write_at(&moved.file, &mark, offset))
                .and_then(|()| disk::sync_data(&moved.file))
                .map_err(error)?;
        }
        self.coherence.invalidate(&moved.id, None, Cause::Ended)?;
        // A failure is ignored: the next operation that finds the mark without a tombstone completes it again.
        let _ = write_tombstone(&moved.file, ((1 - moved.view.slot) * moved.view.slot_size) as u64);
        Ok(())
    }

    /// Removes the file of a moved id. Returns whether the id's name still led to the file.
    pub(super) fn remove_moved(&self, shard: &Directory, moved: &MovedFile<'_>) -> Result<bool> {
        self.complete_mark(shard, moved)?;
        Ok(self.is_current_file(&moved.path, &moved.file)? && self.unlink(shard, &moved.path)?)
    }

    /// The live session to which rotations and logins have moved an id.
    pub(super) fn live_successor(&self, mut id: PublicId) -> Result<Option<Live>> {
        for hops in 0..=HOPS_MAX {
            match self.read(SessionRef::PublicId(id), &id, None)? {
                Some(View::Moved(moved)) => id = moved.mark.successor,
                Some(View::Valid { newest, .. }) if hops > 0 && !newest.record.is_expired(self.now()) => {
                    let is_live = !self.is_cut_off(&newest.record, &id)?;
                    return Ok(is_live.then_some(Live { record: newest.record, id }));
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }
}
