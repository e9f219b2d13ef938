//! Updating a session in place: reads, changes and writes it under its lock.
//!
//! The next version overwrites the older slot (rules 2 to 4 for crashes in [`design`](crate::_documentation::design)).
//! `grow` writes a version that does not fit.
//!
//! - The change is made to a clone of the record, so a refused change leaves no trace.
//! - A power-safe save never overwrites a slot before the newest version is known to be on the disk.
//! - A failed sync is never repeated on the same inode.
//! - A save that held its lock for long checks whether a forced delete has ended the session meanwhile
//!   (`force_delete`).
//! - The copies of other processes are invalidated before the lock is released.
use super::FileStore;
use super::coherence::Fresh;
use super::disk;
use super::expiry_index::Entry;
use super::session_lock::{Locked, void_slot, write_state};
use super::slot::{self, Encoded, Extent, State};
use crate::error::{Error, ErrorKind, Result};
use crate::id::SessionId;
use crate::store::{Change, Live, Verdict};

/// The outcome of a save under the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SaveOutcome {
    Saved,
    /// A forced delete has ended the session. The save was written to a file without a name, and has no effect.
    Deleted,
}

impl FileStore {
    /// Reads, changes and writes a session under its lock. Returns the stored session.
    pub(super) fn update_file(
        &self,
        session: &SessionId,
        change: Change<'_>,
        power_safe: bool,
    ) -> Result<Option<Live>> {
        let Some(locked) = self.lock_live(session, None)? else { return Ok(None) };
        let id = locked.id;
        let now = self.now_micros();
        let deadline = locked.newest.record.deadline_micros();
        if deadline <= now {
            return Ok(None);
        }
        let view = self.coherence.cut_off_view()?;
        let Some(cut_off) = self.coherence.standing(&locked.newest.record, &id) else { return Ok(None) };
        let mut record = locked.newest.record.clone();
        match change(&mut record)? {
            Verdict::Abort => return Ok(None),
            Verdict::Keep => return self.keep(&locked, power_safe),
            Verdict::Write => {}
        }
        // The record keeps its cut-off number: an update is not a login, even if the change has set another user.
        record.set_cut_off(cut_off);
        // A save that moves the deadline to an earlier time is synced. A sweep later removes the expired session's name
        // without a sync. So an older version, which a power cut may bring back, must not live longer.
        let entry = Entry { id, deadline: record.deadline_micros() };
        let shortens = entry.deadline < deadline;
        let power_safe = power_safe || shortens && self.options.sync_security_events;
        let sequence = self.next_sequence(&locked)?;
        let state = locked.newest.state.inherited();
        let had = Extent::of(&locked.newest.record);
        let bytes = self.encode(
            &record,
            Some(had),
            &slot::Header { id: &id, sequence, state, slot_size_min: locked.slot_size },
        )?;
        let version = bytes.version();
        let _listed = self.list_under_new_user(id, &locked.newest.record, &record);
        self.expiry_index.insert_if_earlier(&self.root, entry, deadline, now);
        let outcome = if bytes.slot_size() > locked.slot_size {
            self.replace(&locked, bytes, power_safe)?
        } else {
            self.overwrite(&locked, bytes, power_safe)?
        };
        if outcome == SaveOutcome::Deleted {
            return Ok(None);
        }
        let stamp = locked.invalidate_saved()?;
        // The copy is put into the cache while the lock is held, so that it cannot replace the copy of the next writer.
        let fresh = Fresh::new(record.clone(), id, version, stamp, locked.opened_at);
        // If the change has set another user, that user has not logged in. Then an earlier cut-off of that user may
        // have ended the session, so the copy is not noted as compared with the cut-offs.
        let is_same_user = record.has_user_of(&locked.newest.record);
        self.coherence.remember(session, if is_same_user { fresh.checked(view) } else { fresh });
        Ok(Some(Live { record, id }))
    }

    /// Leaves a session unchanged, and syncs it if `power_safe`; `None` if a forced delete has ended it.
    fn keep(&self, locked: &Locked<'_>, power_safe: bool) -> Result<Option<Live>> {
        let is_live =
            locked.is_still_linked()? && (!power_safe || self.sync_current(locked)? == SaveOutcome::Saved);
        Ok(is_live.then(|| Live { record: locked.newest.record.clone(), id: locked.id }))
    }

    /// Writes the next version over the older slot.
    fn overwrite(&self, locked: &Locked<'_>, bytes: Encoded, power_safe: bool) -> Result<SaveOutcome> {
        let older = locked.offset(1 - locked.slot);
        let write = || {
            disk::write_parts_at(&locked.file, bytes.parts(), older).map_err(|error| {
                void_slot(&locked.file, older, locked.slot_size);
                self.root.error("write session file", &locked.path, error)
            })
        };
        if !power_safe {
            write()?;
            return self.confirm_linked(locked);
        }
        let name_synced = locked.newest.state.has(State::NAME_SYNCED);
        let shard = if name_synced { None } else { Some(self.open_shard(&locked.id)?) };
        // The older slot may be the only one on the disk. So before it is overwritten, the newest version is synced.
        if !locked.sync_newest() {
            return self.rebuild(locked, bytes);
        }
        write()?;
        if disk::sync_data(&locked.file).is_err() {
            locked.mark_both_sync_failed();
            return self.rebuild(locked, bytes);
        }
        if let Some(shard) = shard {
            locked.sync_name(&shard)?;
        }
        write_state(&locked.file, older, State::DATA_SYNCED.and(State::NAME_SYNCED));
        self.confirm_linked(locked)
    }

    /// Syncs the newest version without changing it.
    fn sync_current(&self, locked: &Locked<'_>) -> Result<SaveOutcome> {
        let state = locked.newest.state;
        let safe = State::DATA_SYNCED.and(State::NAME_SYNCED);
        if state.has(safe) {
            return Ok(SaveOutcome::Saved);
        }
        let shard = self.open_shard(&locked.id)?;
        if !locked.sync_newest() {
            let sequence = self.next_sequence(locked)?;
            let had = Extent::of(&locked.newest.record);
            let bytes = self.encode(
                &locked.newest.record,
                Some(had),
                &slot::Header { id: &locked.id, sequence, state: State::WRITTEN, slot_size_min: 0 },
            )?;
            return self.rebuild(locked, bytes);
        }
        if !state.has(State::NAME_SYNCED) {
            locked.sync_name(&shard)?;
        }
        write_state(&locked.file, locked.offset(locked.slot), state.and(safe));
        self.confirm_linked(locked)
    }

    /// The sequence number of the next version.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if the numbers are used up. No number of saves reaches the last one, so another program
    /// has made the file, with a valid checksum.
    fn next_sequence(&self, locked: &Locked<'_>) -> Result<u64> {
        locked.newest.version.next_sequence().ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "save session file")
                .with_path(self.path().join(locked.path.as_str()))
                .with_reason("its sequence is one that no save reaches")
        })
    }
}
