//! The file engine: one directory is the database, one file is a session.
//!
//! [`FileStore`] is the [`Store`] that keeps each session in two slots of one file (see [`design`](crate::design)).
//! This file opens and reads; `write` creates, updates, grows, rotates and deletes.
mod disk;
mod layout;
mod lock;
mod open;
mod options;
mod slots;
#[cfg(test)]
mod tests;
mod write;

pub use options::FileStoreOptions;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{FileId, SessionId, Token};
use crate::record::{Record, SLOT_MIN};
use crate::store::{Absent, Change, Durability, Guarantees, Live, Lookup, Saved, Store};
use disk::{Access, Root};
use layout::SessionPath;
use rustix::io::Errno;
use slots::View;
use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// How often a reader without a lock looks again before it asks writers to pause.
const REREADS_MAX: u32 = 8;

/// Sessions in one directory of a local file system, shared by any number of threads and processes of one host.
///
/// # Promises
///
/// Those of [`Store`](crate::store), in full: updates are atomic across processes, what was deleted stays deleted, and
/// a reader sees one complete version whatever happens to a writer. What survives a power cut is said by
/// [`Durability`].
///
/// # Limits
///
/// Open a store *after* `fork`: its in-process queues do not survive one, and saves in the child are refused with
/// [`ErrorKind::Forked`]. An open store holds one descriptor; each call needs up to four more while it runs.
///
/// ```
/// use sessile::FileStore;
/// # let parent = tempfile::tempdir()?;
/// # let dir = parent.path().join("sessions");
/// let store = FileStore::open(dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FileStore {
    root: Root,
    queues: lock::Queues,
    options: FileStoreOptions,
}

impl FileStore {
    /// Opens the store in `dir` with the default options; makes it if there is none.
    ///
    /// # Errors
    ///
    /// See [`FileStoreOptions::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        FileStoreOptions::new().open(dir)
    }

    fn open_with(options: FileStoreOptions, dir: &Path) -> Result<Self> {
        Ok(Self { root: open::open_root(dir)?, queues: lock::Queues::new(), options })
    }

    /// The directory, as it was named when the store was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Reads a session without a lock; `None` if it has no file.
    fn read(&self, id: &FileId) -> Result<Option<View>> {
        let path = SessionPath::of(id);
        let Some(file) = self.open_file(id, &path, Access::Read)? else { return Ok(None) };
        let first = self.look(&file, &path, |bytes| match slots::view(bytes, id) {
            Ok(view @ View::Valid { settled: true, .. }) => Ok(view),
            // A save may have been under way, or a writer died in one: see `slots`.
            _ => Err(bytes.to_vec()),
        })?;
        match first {
            Ok(view) => Ok(Some(view)),
            Err(bytes) => self.read_until_settled(id, &path, bytes),
        }
    }

    /// Reads again, by path, until two readings agree: the second then began when the first had seen all it shows.
    #[cold]
    fn read_until_settled(&self, id: &FileId, path: &SessionPath, mut last: Vec<u8>) -> Result<Option<View>> {
        for _ in 0..REREADS_MAX {
            let Some(file) = self.open_file(id, path, Access::Read)? else { return Ok(None) };
            let bytes = self.look(&file, path, <[u8]>::to_vec)?;
            match slots::view(&bytes, id) {
                Ok(view @ View::Valid { settled: true, .. }) => return Ok(Some(view)),
                view if bytes == last => return self.located(view, path).map(Some),
                _ => last = bytes,
            }
        }
        let Some(file) = self.open_file(id, path, Access::Read)? else { return Ok(None) };
        let deadline = Instant::now() + self.options.lock_wait;
        let _shared = lock::share(&file, deadline)
            .map_err(|error| self.error("lock session file", path, error))?
            .ok_or_else(lock::busy)?;
        if !self.leads_to(path, &file)? {
            // Replaced or ended while we waited.
            return self.read(id);
        }
        let view = self.look(&file, path, |bytes| slots::view(bytes, id))?;
        self.located(view, path).map(Some)
    }

    /// Opens a session's file; `None` if there is none, which is an error if its shard is gone as well.
    fn open_file(&self, id: &FileId, path: &SessionPath, access: Access) -> Result<Option<File>> {
        match self.root.open_session(path, access) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.open_shard(id).map(|_| None),
            Err(error) => Err(self.error("open session file", path, error)),
        }
    }

    /// Opens a session's shard directory. One that is gone is an error: an unmounted disk logs nobody out.
    fn open_shard(&self, id: &FileId) -> Result<disk::Shard> {
        self.root.open_shard(id).map_err(|error| {
            let error = io_error("open shard directory", error);
            error.with_path(self.root.path().join(layout::shard_of(id)))
        })
    }

    /// Looks at the bytes of a session's file.
    fn look<R>(&self, file: &File, path: &SessionPath, look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let slot_max = self.options.record_bytes_max.next_power_of_two().max(SLOT_MIN);
        disk::read_whole(file, 2 * slot_max, look)
            .map_err(|error| self.error("read session file", path, error))?
            .ok_or_else(|| {
                Error::new(ErrorKind::TooLarge, "read session file")
                    .with_path(self.root.path().join(path.as_str()))
                    .with_reason("it is larger than this store's record limit allows")
            })
    }

    /// Names the file in an error about its contents.
    fn located<T>(&self, result: Result<T>, path: &SessionPath) -> Result<T> {
        result.map_err(|error| error.with_path(self.root.path().join(path.as_str())))
    }

    /// What the operating system said about a session's file.
    fn error(&self, act: &'static str, path: &SessionPath, error: io::Error) -> Error {
        let full = matches!(Errno::from_io_error(&error), Some(Errno::NOSPC));
        let error = io_error(act, error).with_path(self.root.path().join(path.as_str()));
        if full { error.with_reason(self.root.what_is_full()) } else { error }
    }
}

/// Sorts what the operating system said.
fn io_error(act: impl Into<Cow<'static, str>>, error: io::Error) -> Error {
    match Errno::from_io_error(&error) {
        Some(Errno::NOSPC) => Error::new(ErrorKind::Full, act),
        Some(Errno::DQUOT) => Error::new(ErrorKind::Full, act).with_reason("the disk quota is used up"),
        Some(Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::SPIPE | Errno::NXIO) => {
            Error::new(ErrorKind::Foreign, act)
                .with_reason("a link, pipe, directory or device is in its place")
        }
        _ => Error::new(ErrorKind::Io, act),
    }
    .with_source(error)
}

impl Store for FileStore {
    fn now(&self) -> SystemTime {
        self.options.clock.now()
    }

    fn is_well_formed(&self, token: &Token) -> bool {
        SessionId::parse(token.expose()).is_some()
    }

    fn load(&self, token: &Token) -> Result<Lookup> {
        let Some(session) = SessionId::parse(token.expose()) else {
            return Ok(Lookup::Absent(Absent::Malformed));
        };
        let id = session.file_id();
        Ok(match self.read(&id)? {
            None | Some(View::Empty) => Lookup::Absent(Absent::Unknown(id)),
            Some(View::Damaged) => Lookup::Absent(Absent::Damaged(id)),
            Some(View::Valid { newest, .. }) if newest.record.is_expired(self.now()) => {
                Lookup::Absent(Absent::Expired(id))
            }
            Some(View::Valid { newest, .. }) => Lookup::Live(Live { record: Arc::new(newest.record), id }),
        })
    }

    fn create(&self, record: &Record, how: Durability) -> Result<Saved> {
        let session = SessionId::random()?;
        let mut record = record.clone();
        record.cut();
        self.create_file(&session, &record, self.options.is_power_safe(how))?;
        Ok(saved(session.to_token(), session.file_id(), record))
    }

    fn update(&self, token: &Token, change: Change<'_>, how: Durability) -> Result<Option<Saved>> {
        let Some(session) = SessionId::parse(token.expose()) else { return Ok(None) };
        let id = session.file_id();
        let record = self.update_file(&id, change, self.options.is_power_safe(how))?;
        Ok(record.map(|record| saved(token.clone(), id, record)))
    }

    fn rotate(&self, token: &Token, change: Change<'_>, _how: Durability) -> Result<Option<Saved>> {
        let Some(session) = SessionId::parse(token.expose()) else { return Ok(None) };
        let successor = SessionId::random()?;
        let record = self.rotate_file(&session.file_id(), &successor, change)?;
        Ok(record.map(|record| saved(successor.to_token(), successor.file_id(), record)))
    }

    fn delete(&self, token: &Token) -> Result<bool> {
        match SessionId::parse(token.expose()) {
            Some(session) => self.delete_file(&session.file_id()),
            None => Ok(false),
        }
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees { atomic_update: true, shared_state: true }
    }
}

fn saved(token: Token, id: FileId, record: Record) -> Saved {
    Saved { token, live: Live { record: Arc::new(record), id } }
}
