//! Operations by public id, for administration: load, delete, import, quarantine. A [`PublicId`] is not secret, and
//! opens no session to a visitor.
use super::FileStore;
use super::coherence::Cause;
use super::disk::{Access, Directory};
use super::layout::{DAMAGED, SessionPath};
use super::session_lock::{LockResult, SessionRef};
use super::slots::View;
use crate::admin::{Admin, Cursor, ScanPage, Stats, SweepOptions, SweepProgressFn, SweepReport};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PublicId, SessionId};
use crate::queue::busy;
use crate::record::Record;
use crate::store::{Absent, Durability, EndReason, EndedSession, Live, Lookup};
use crate::sync::{Instant, thread};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How long an import waits for another process that is creating the same session file. A creation takes no longer
/// unless its process was killed or stopped.
const CREATION_WAIT: Duration = Duration::from_millis(100);

impl Admin for FileStore {
    fn sweep_with(&self, options: &SweepOptions, progress: SweepProgressFn<'_>) -> Result<SweepReport> {
        self.tally.read(self.sweep_files(options, progress))
    }

    fn load_by_id(&self, id: &PublicId) -> Result<Lookup> {
        self.tally.read(self.load_file_of(*id))
    }

    fn delete_by_id(&self, id: &PublicId) -> Result<Option<PublicId>> {
        let ended = self.delete_file(SessionRef::PublicId(*id));
        let ended = self.tally.end_session(ended)?;
        self.observe_ended(ended.as_ref());
        Ok(EndedSession::live_id(ended))
    }

    fn import(&self, id: &PublicId, record: &Record, how: Durability) -> Result<bool> {
        let mut removed = None;
        let imported = self.import_file(id, record, how, &mut removed);
        self.observe_ended(removed.as_ref());
        self.tally.save(imported, |imported| *imported)
    }

    fn scan(&self, from: Option<&Cursor>, limit: usize) -> Result<ScanPage> {
        self.tally.read(self.scan_page(from, limit))
    }

    fn count(&self) -> Result<u64> {
        self.tally.read(self.count_names())
    }

    fn stats(&self) -> Stats {
        // In a process that was forked after the store was opened, the counts of loads are missing, because a thread
        // that does not exist there may hold a lock of the cache.
        let with_cache = self.queues.check_process().is_ok();
        let Stats { loads, hits, mut files, .. } = self.coherence.stats(with_cache);
        files.index_failures = self.expiry_index.index_failures() + self.user_index.failures();
        Stats { loads, hits, files, ..self.tally.stats() }
    }

    fn health(&self) -> Result<()> {
        // A file is opened by a random name, as a load of an unknown id does. If the directory is not this store's any
        // more, or cannot be read, this fails.
        let loaded = SessionId::random().and_then(|unknown| self.load_file_of(unknown.public_id()));
        self.tally.read(loaded).map(drop)
    }

    fn check_process(&self) -> Result<()> {
        self.queues.check_process()
    }
}

impl FileStore {
    fn load_file_of(&self, id: PublicId) -> Result<Lookup> {
        self.queues.check_process()?;
        // The log of cut-offs is read before the session file, so that every cut-off that has returned by now is taken
        // into account.
        self.coherence.cut_off_view()?;
        Ok(match self.read(SessionRef::PublicId(id), &id, None)? {
            Some(View::Valid { newest, .. }) if self.is_expired(&newest.record) => {
                Lookup::Absent(Absent::Expired(id))
            }
            Some(View::Valid { newest, .. }) if !self.is_cut_off(&newest.record, &id)? => {
                Lookup::Live(Live { record: newest.record, id })
            }
            Some(View::Moved(moved)) => Lookup::Absent(Absent::Moved(moved.mark.to_moved(id))),
            Some(View::Damaged) => Lookup::Absent(Absent::Damaged(id)),
            None | Some(View::Valid { .. } | View::Empty) => Lookup::Absent(Absent::NotFound(id)),
        })
    }

    /// Reports a session that no request has ended. If it was live, an operator has.
    fn observe_ended(&self, ended: Option<&EndedSession>) {
        self.options.observer.notify_ends(ended, EndReason::Operator);
    }

    /// Imports a session. Sets `removed` to the session that was in its place, and was over.
    fn import_file(
        &self,
        id: &PublicId,
        record: &Record,
        how: Durability,
        removed: &mut Option<EndedSession>,
    ) -> Result<bool> {
        self.queues.check_process()?;
        let session = SessionRef::PublicId(*id);
        let path = SessionPath::of(id);
        let mut record = record.clone();
        record.set_cut_off(self.coherence.cut_off_at_login(&record)?);
        let in_the_way = |kind, reason| {
            let error = Error::new(kind, "import session").with_path(self.path().join(path.as_str()));
            error.with_reason(reason)
        };
        let began = Instant::now();
        loop {
            // The file is looked for first, because a creation would insert the session in the expiry index before it
            // fails.
            if self.open_file(id, &path, Access::Read)?.is_none() {
                match self.create_file(session, record.clone(), self.options.is_power_safe(how)) {
                    Ok(_) => return Ok(true),
                    // Another process has created a file under the id meanwhile.
                    Err(error) if error.kind() == ErrorKind::Random => {}
                    Err(error) => return Err(error),
                }
            }
            match self.lock_session(session, None, began + self.options.lock_wait)? {
                LockResult::Missing => {}
                LockResult::Session(locked) => {
                    let Some(reason) = self.over(&locked)? else { return Ok(false) };
                    if self.remove(&self.open_shard(id)?, &locked)? {
                        let record = Some(locked.newest.record.clone());
                        *removed = Some(EndedSession::over(*id, record, reason));
                    }
                }
                LockResult::Moved(moved) if !moved.view.mark.is_within_grace(self.now_micros()) => {
                    self.remove_moved(&self.open_shard(id)?, &moved)?;
                }
                LockResult::Moved(_) => return Ok(false),
                LockResult::Unreadable(unreadable) if unreadable.is_damaged => {
                    return Err(in_the_way(ErrorKind::Corrupt, "a damaged file is in its place"));
                }
                // A file without a version may be one that another process has just created and not locked yet.
                LockResult::Unreadable(unreadable) if began.elapsed() < CREATION_WAIT => {
                    drop(unreadable);
                    thread::sleep(CREATION_WAIT / 20);
                }
                LockResult::Unreadable(_) => {
                    return Err(in_the_way(ErrorKind::Busy, "its creation is running, or was interrupted"));
                }
            }
            if began.elapsed() > self.options.lock_wait.max(CREATION_WAIT) {
                return Err(busy());
            }
        }
    }

    /// Moves a session file to the directory `damaged` of the store, for inspection, if it is damaged. A link, pipe or
    /// directory in its place is moved as well. Returns the new path; `None` if there is no such file (any more).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] if the file is locked for the whole [`lock_wait`](super::FileStoreOptions::lock_wait).
    /// [`ErrorKind::Io`], and the file stays in its place.
    pub fn quarantine(&self, id: &PublicId) -> Result<Option<PathBuf>> {
        self.queues.check_process()?;
        self.check_may_write()?;
        let path = SessionPath::of(id);
        let shard = self.open_shard(id)?;
        match shard.stat(path.below_shard()) {
            Ok(stat) if stat.is_file => {}
            // A link, pipe or directory cannot be locked. While it is there, no session has the name.
            Ok(_) => return self.move_to_damaged(id, &shard, &path, || Ok(true)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.root.error("examine session file", &path, error)),
        }
        let result = self.lock_session(
            SessionRef::PublicId(*id),
            Some(&shard),
            Instant::now() + self.options.lock_wait,
        )?;
        let LockResult::Unreadable(unreadable) = result else { return Ok(None) };
        if !unreadable.is_damaged {
            return Ok(None);
        }
        // A forced delete may remove the file meanwhile.
        self.move_to_damaged(id, &shard, &path, || Ok(!self.is_current_file(&path, &unreadable.file)?))
    }

    /// Moves the file under a session's name to the directory `damaged`. If the file is missing, returns `None` if
    /// `may_be_gone` returns true, and an error otherwise.
    fn move_to_damaged(
        &self,
        id: &PublicId,
        shard: &Directory,
        path: &SessionPath,
        may_be_gone: impl Fn() -> Result<bool>,
    ) -> Result<Option<PathBuf>> {
        let error = |error| self.root.error("quarantine session file", path, error);
        self.root.make_directory(DAMAGED).map_err(error)?;
        let damaged = self.root.open_directory(DAMAGED).map_err(error)?;
        // The directory may have a file of the same name from an earlier quarantine, so further files get a number.
        let names = (0..1000).map(|n| if n == 0 { id.to_string() } else { format!("{id}.{n}") });
        match shard.move_to_free(path.below_shard(), &damaged, names) {
            Ok(name) => {
                // A cache may have the session from before the damage.
                self.coherence.invalidate(id, None, Cause::Ended)?;
                Ok(Some(self.root.path().join(DAMAGED).join(name)))
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound && may_be_gone()? => Ok(None),
            Err(cause) => Err(error(cause)),
        }
    }
}
