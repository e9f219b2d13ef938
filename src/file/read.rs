//! Reading a session file without a lock, and opening files and shards.
//!
//! A reader reads the file while saves may be running. It uses the result if the newest slot is settled (no save can
//! have been under way, see [`slots`]), or if two reads in a row are identical. After eight more reads it takes a
//! shared lock, and reads once more. So a reader waits for writers only if a slot is torn.
//!
//! - The stamp of the session's cell is taken before the file is opened, so the record is never older than its stamp.
//! - A missing file is looked up once more through its shard. If the shard is missing too, that is an error, or an
//!   emptied store, and never an absent session.
use super::coherence::{Cached, Fresh};
use super::disk::{self, Access};
use super::errors::io_error;
use super::layout::{self, SessionPath};
use super::session_lock::SessionRef;
use super::slot::Decoded;
use super::slots::{self, FILE_BYTES_MAX, Known, View};
use super::{FileStore, flock};
use crate::clock::CoarseTime;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PublicId, SessionId};
use crate::store::{Absent, Live, Lookup};
use crate::sync::Instant;
use std::fs::File;
use std::io;

/// The number of times that a reader reads a file again without a lock, before it takes a shared lock.
const REREADS_MAX: u32 = 8;

impl FileStore {
    /// Loads a session from its file. Puts a copy into the cache if the session is live.
    #[inline(never)]
    pub(super) fn load_file(
        &self,
        session: &SessionId,
        copy: Option<&Cached>,
        now: CoarseTime,
    ) -> Result<Lookup> {
        let id = copy.map_or_else(|| session.public_id(), |copy| copy.id);
        // The stamp is taken before the file is opened, so that the cached copy is invalidated by every later change of
        // the file.
        let stamp = self.coherence.stamp(&id);
        let view = self.coherence.cut_off_view()?;
        let newest = match self.read(SessionRef::Id(session), &id, copy.map(Cached::known))? {
            Some(View::Valid { newest, .. }) if self.is_expired(&newest.record) => Err(Absent::Expired(id)),
            Some(View::Valid { newest, .. }) if self.coherence.standing(&newest.record, &id).is_some() => {
                Ok(newest)
            }
            Some(View::Moved(moved)) => Err(Absent::Moved(moved.mark.to_moved(id))),
            Some(View::Damaged) => Err(Absent::Damaged(id)),
            // The session was ended by a cut-off, or its file has no version.
            None | Some(View::Valid { .. } | View::Empty) => Err(Absent::NotFound(id)),
        };
        self.coherence.count_read(copy.is_some());
        Ok(match newest {
            Ok(Decoded { record, version, .. }) => {
                let fresh = Fresh::new(record.clone(), id, version, stamp, now.micros());
                self.coherence.remember(session, fresh.checked(view));
                Lookup::Live(Live { record, id })
            }
            Err(absent) => {
                self.coherence.forget(session);
                Lookup::Absent(absent)
            }
        })
    }

    /// Reads a session without a lock; `None` if it has no file.
    pub(super) fn read(
        &self,
        session: SessionRef<'_>,
        id: &PublicId,
        known: Option<Known<'_>>,
    ) -> Result<Option<View>> {
        let path = SessionPath::of(id);
        let Some(file) = self.open_file(id, &path, Access::Read)? else { return Ok(None) };
        let first = self.look(&file, &path, |bytes| match slots::view(bytes, id, known) {
            // A mark is never changed once it is complete, so a mark whose checksum verifies is the final state.
            Ok(view @ (View::Valid { settled: true, .. } | View::Moved(_))) => Ok(view),
            // A save may be under way, or a writer was killed during one (see `slots`). So the bytes are read once
            // more.
            _ => Err(bytes.to_vec()),
        });
        match first {
            Ok(Ok(view)) => Ok(Some(view)),
            Ok(Err(bytes)) => self.read_until_settled(session, id, &path, bytes),
            Err(error) if session.is_oversized(&error) => Ok(Some(View::Damaged)),
            Err(error) => Err(error),
        }
    }

    /// Reads the file again and again, by its path, until two consecutive reads are identical. Then no write was under
    /// way between them.
    #[cold]
    fn read_until_settled(
        &self,
        session: SessionRef<'_>,
        id: &PublicId,
        path: &SessionPath,
        mut last: Vec<u8>,
    ) -> Result<Option<View>> {
        for _ in 0..REREADS_MAX {
            let Some(file) = self.open_file(id, path, Access::Read)? else { return Ok(None) };
            let bytes = self.look(&file, path, <[u8]>::to_vec)?;
            match slots::view(&bytes, id, None) {
                Ok(view @ (View::Valid { settled: true, .. } | View::Moved(_))) => return Ok(Some(view)),
                view if bytes == last => return self.root.located(view, path).map(Some),
                _ => last = bytes,
            }
        }
        let Some(file) = self.open_file(id, path, Access::Read)? else { return Ok(None) };
        let deadline = Instant::now() + self.options.lock_wait;
        let _shared = flock::share(&file, deadline)
            .map_err(|error| self.root.error("lock session file", path, error))?
            .ok_or_else(crate::queue::busy)?;
        if !self.is_current_file(path, &file)? {
            // The session was replaced or deleted during the wait for the lock, so reading starts again.
            return self.read(session, id, None);
        }
        let view = self.look(&file, path, |bytes| slots::view(bytes, id, None))?;
        self.root.located(view, path).map(Some)
    }

    /// Opens a session file; `None` if there is none. A missing shard is an error.
    pub(super) fn open_file(
        &self,
        id: &PublicId,
        path: &SessionPath,
        access: Access,
    ) -> Result<Option<File>> {
        match self.opened(self.root.open_session(path, access), path)? {
            // The shard was missing and may just have been recreated. So the file is looked up once more, in the shard
            // that exists now.
            None => self.opened(self.open_shard(id)?.open(path, access), path),
            found => Ok(found),
        }
    }

    /// Converts the result of opening a session file: `None` if there is no file.
    pub(super) fn opened(&self, opened: io::Result<File>, path: &SessionPath) -> Result<Option<File>> {
        match opened {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.root.error("open session file", path, error)),
        }
    }

    /// Opens a session's shard directory. If it is missing because the whole store was emptied, this recreates the
    /// store; any other missing shard is an error.
    pub(super) fn open_shard(&self, id: &PublicId) -> Result<disk::Directory> {
        match self.root.open_shard(id) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.open_missing_shard(&layout::shard_of(id))
            }
            opened => opened.map_err(|error| {
                let error = io_error("open shard directory", error);
                error.with_path(self.root.path().join(layout::shard_of(id)))
            }),
        }
    }

    /// Calls `look` with the bytes of a session file.
    pub(super) fn look<R>(
        &self,
        file: &File,
        path: &SessionPath,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R> {
        disk::read_whole(file, FILE_BYTES_MAX, slots::is_whole, look)
            .map_err(|error| self.root.error("read session file", path, error))?
            .ok_or_else(|| {
                Error::new(ErrorKind::TooLarge, "read session file")
                    .with_path(self.root.path().join(path.as_str()))
                    .with_reason("it is larger than the file of any session")
            })
    }
}
