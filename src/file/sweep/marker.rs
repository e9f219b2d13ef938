//! The file `run/due/sweep`. A sweep locks it, and writes the hour of its walk into it. It is empty if the index was
//! lost and made again.
use crate::clock::micros;
use crate::error::{Error, Result};
use crate::file::FileStore;
use crate::file::disk::{self, Access, Directory};
use crate::file::expiry_index;
use crate::file::flock::LockedFile;
use crate::file::layout::{DUE, SWEEP};
use crate::sync::Instant;
use std::io;
use std::time::SystemTime;

/// The locked file; `None` for a read-only store without that file, which cannot make it.
pub(super) struct Marker(Option<LockedFile>);

fn error(store: &FileStore, cause: io::Error) -> Error {
    store.root.error_at("lock expiry index", &format!("{DUE}/{SWEEP}"), cause)
}

impl Marker {
    /// Opens and locks the file; `None` if another sweep has it locked.
    pub(super) fn lock(store: &FileStore, index: &Directory) -> Result<Option<Self>> {
        let access = if store.options.read_only { Access::Read } else { Access::WriteOrCreate };
        let opened = match index.open_named(SWEEP, access) {
            Err(cause) if store.options.read_only && cause.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(Self(None)));
            }
            opened => opened,
        };
        let locked = opened.and_then(|file| LockedFile::acquire(file, Instant::now()));
        let Ok(file) = locked.map_err(|cause| error(store, cause))? else { return Ok(None) };
        if !store.options.read_only {
            // The umask may have cleared bits of a new file's mode.
            let fixed = disk::stat(&file).and_then(|stat| store.root.sharing().repair_mode(&file, &stat));
            fixed.map_err(|cause| error(store, cause))?;
        }
        Ok(Some(Self(Some(file))))
    }

    /// The hour of the last walk, counted since 1970; `None` if it is not recorded.
    pub(super) fn last_walk(&self) -> Option<u64> {
        expiry_index::read_last_walk(self.0.as_ref()?)
    }

    pub(super) fn set_last_walk(&self, store: &FileStore, hour: u64) -> Result<()> {
        let written = self.0.as_ref().map_or(Ok(()), |file| expiry_index::write_last_walk(file, hour));
        written.map_err(|cause| error(store, cause))
    }

    /// The number of the last cut-off that a walk of all shards has taken into account; 0 if there was none.
    pub(super) fn walked_cut_off(&self) -> u64 {
        self.0.as_ref().and_then(|file| expiry_index::read_walked_cut_off(file)).unwrap_or(0)
    }

    pub(super) fn set_walked_cut_off(&self, store: &FileStore, number: u64) -> Result<()> {
        let written = self.0.as_ref().map_or(Ok(()), |file| expiry_index::write_walked_cut_off(file, number));
        written.map_err(|cause| error(store, cause))
    }

    /// The current time by the file system's clock, in seconds since 1970: the modification time that the file gets
    /// when it is touched. A read-only store uses the time of this host.
    pub(super) fn touch(&self, store: &FileStore) -> Result<i64> {
        match &self.0 {
            Some(file) if !store.options.read_only => disk::touch(file).map_err(|cause| error(store, cause)),
            _ => Ok(i64::try_from(micros(SystemTime::now()) / 1_000_000).unwrap_or(i64::MAX)),
        }
    }
}
