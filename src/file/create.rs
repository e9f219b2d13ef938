//! Creating a session: a new file under the session's name, with its first version in slot 0.
//!
//! The order survives a kill at any instant and a power cut (rule 1 for crashes in
//! [`design`](crate::_documentation::design)): index entry, exclusive open at the final path, lock, check that the path
//! still leads to the file, both slots in one write, and, power-safe, sync of the file and of its directory. A kill
//! leaves a file without a version, or a session whose id was never handed out.
//!
//! - The file has its final size from the first write: no save of the same size changes it.
//! - A random id is in no cache. An imported id may be in one, so creating an imported session invalidates.
use super::FileStore;
use super::coherence::{Cause, Fresh};
use super::disk::{self, Access, Directory};
use super::expiry_index::Entry;
use super::flock::LockedFile;
use super::layout::SessionPath;
use super::session_lock::{SessionRef, write_state, write_tombstone};
use super::slot::{self, Encoded, Extent, SLOT_MIN, State};
use super::user_index::Insertion;
use crate::error::{Error, ErrorKind, Result};
use crate::queue::busy;
use crate::record::Record;
use crate::store::Live;
use crate::sync::Instant;
use std::fs::File;
use std::io;

impl FileStore {
    /// Creates a session file. On an error, either nothing was created, or a file without a version. There is one
    /// exception: [`ErrorKind::InvalidationFailed`] means that the session was created.
    pub(super) fn create_file(
        &self,
        session: SessionRef<'_>,
        record: Record,
        power_safe: bool,
    ) -> Result<Live> {
        self.create_beside(session, record, power_safe, None).map(|(live, _)| live)
    }

    /// Creates a session file. If the session is the successor of a rotated one, `had` has the sizes of that session;
    /// it may be as large, even if that is above the limits now. For the user index, the creation is under way until
    /// the insertion is dropped.
    pub(super) fn create_beside(
        &self,
        session: SessionRef<'_>,
        record: Record,
        power_safe: bool,
        had: Option<Extent>,
    ) -> Result<(Live, Option<Insertion<'_>>)> {
        self.queues.check_process()?;
        self.check_may_write()?;
        let id = session.public_id();
        let (path, entry) = (SessionPath::of(&id), Entry { id, deadline: record.deadline_micros() });
        let bytes = self.encode(
            &record,
            had,
            &slot::Header { id: &id, sequence: 1, state: State::WRITTEN, slot_size_min: 0 },
        )?;
        let version = bytes.version();
        // A fresh random id cannot be cached anywhere, so it needs no invalidation. The stamp for our own copy is taken
        // before the file is opened, as for a copy that is read.
        let (stamp, read_at) = (self.coherence.stamp(&id), self.options.clock.now_coarse().micros());
        // The shard is opened before anything is changed, because opening it may fail.
        let shard = if power_safe { Some(self.open_shard(&id)?) } else { None };
        let listed = self.insert_in_indexes(entry, &record);
        let file = match self.root.open_session(&path, Access::Create) {
            // The shard is missing, perhaps because the whole store was emptied. `open_shard` then recreates the store.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.open_shard(&id)?.open(&path, Access::Create)
            }
            created => created,
        };
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::new(ErrorKind::Random, "create session file")
                    .with_path(self.path().join(path.as_str()))
                    .with_reason("the random generator repeated an id"));
            }
            Err(error) => return Err(self.root.error("create session file", &path, error)),
        };
        let made = self.fill(file, &path, &bytes, shard.as_ref());
        if made.as_ref().is_err_and(|error| error.owns_path) {
            // If the file cannot be removed, it has no version, or one under an unknown id. A sweep removes it.
            let _ =
                shard.map_or_else(|| self.open_shard(&id), Ok).map(|shard| shard.unlink(path.below_shard()));
        }
        // An imported id may still be cached, after an end that was not invalidated. And a load may have read the file
        // that was just removed.
        let invalidated = match session {
            SessionRef::Id(_) => Ok(()),
            SessionRef::PublicId(_) => {
                self.coherence.invalidate(&id, session.session_id(), Cause::Ended).map(drop)
            }
        };
        made.map_err(|error| error.error)?;
        let now = self.now_micros();
        if entry.deadline <= now {
            // A sweep may have erased the session's index entry, which it has read before the file existed.
            self.expiry_index.insert(&self.root, entry, now);
        }
        invalidated?;
        session.session_id().inspect(|session| {
            self.coherence.remember(session, Fresh::new(record.clone(), id, version, stamp, read_at));
        });
        Ok((Live { record, id }, listed))
    }

    /// Inserts a session in the indexes, before its file is made.
    fn insert_in_indexes(&self, entry: Entry, record: &Record) -> Option<Insertion<'_>> {
        self.expiry_index.insert(&self.root, entry, self.now_micros());
        self.list_under_user(entry.id, record)
    }

    /// Writes the first version of a new file. If `shard` is given, syncs the file and its name.
    fn fill(
        &self,
        file: File,
        path: &SessionPath,
        bytes: &Encoded,
        shard: Option<&Directory>,
    ) -> Result<(), CreateError> {
        let io = |operation| {
            move |error| CreateError { error: self.root.error(operation, path, error), owns_path: true }
        };
        // Once it has the lock, no sweep removes the file as a leftover.
        let file = LockedFile::acquire(file, Instant::now() + self.options.lock_wait)
            .map_err(io("lock new session file"))?
            .map_err(|file| {
                let owns_path = self.is_current_file(path, &file).unwrap_or(false);
                CreateError { error: busy(), owns_path }
            })?;
        let made = disk::stat(&file).map_err(io("examine new session file"))?;
        self.root
            .sharing()
            .repair_mode(&file, &made)
            .map_err(io("set the permissions of new session file"))?;
        // Before the file was locked, a sweep may have removed it as a leftover, if this process was stopped for an
        // hour. (A check of the link count would cost less, but a backup that makes hard links would deceive it.)
        let find = io("find new session file again");
        match self.root.inode_at(path) {
            Ok(there) if there == made.inode => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(find(error)),
            _ => return Err(CreateError { owns_path: false, ..find(io::ErrorKind::NotFound.into()) }),
        }
        write_whole(&file, bytes).map_err(io("write new session file"))?;
        let Some(shard) = shard else { return Ok(()) };
        let synced = disk::sync_data(&file)
            .map_err(io("sync new session file"))
            .and_then(|()| shard.sync().map_err(io("sync the directory of new session file")));
        match synced {
            Ok(()) => write_state(&file, 0, State::DATA_SYNCED.and(State::NAME_SYNCED)),
            // The file may not be removable either. With a tombstone it has no version.
            Err(_) => drop(write_tombstone(&file, 0)),
        }
        synced
    }
}

/// Why a new file could not be filled with its first version.
struct CreateError {
    error: Error,
    /// Whether the path leads to the new file, as far as can be told. If not, another file is there, which must not be
    /// removed.
    owns_path: bool,
}

/// Writes the whole contents of a new file: the version in slot 0, and an empty slot 1. The file has its final size
/// then, so no later save changes its size.
pub(super) fn write_whole(file: &File, version: &Encoded) -> io::Result<()> {
    /// The zeros behind a version in a file of the smallest size, as most session files are.
    static ZEROS: [u8; 2 * SLOT_MIN] = [0; 2 * SLOT_MIN];
    let [prefix, record] = version.parts();
    let behind = 2 * version.slot_size() - prefix.len() - record.len();
    let more;
    let padding = if let Some(zeros) = ZEROS.get(..behind) {
        zeros
    } else {
        more = vec![0; behind];
        &more[..]
    };
    disk::write_parts_at(file, [prefix, record, padding], 0)
}
