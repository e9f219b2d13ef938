//! The file that a sweep locks, and that holds the hour of the last walk. It is empty if the index was lost.
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

/// The locked file; `None` for a read-only store that has lost it.
pub(super) struct Marker(Option<LockedFile>);

fn error(store: &FileStore, cause: io::Error) -> Error {
    store.root.error_at("lock expiry index", &format!("{DUE}/{SWEEP}"), cause)
}

impl Marker {
    /// `None` if another sweep has locked it.
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
            // The umask may have cleared bits.
            let fixed = disk::stat(&file).and_then(|stat| store.root.sharing().repair_mode(&file, &stat));
            fixed.map_err(|cause| error(store, cause))?;
        }
        Ok(Some(Self(Some(file))))
    }

    /// The hour of the last walk, if it is known.
    pub(super) fn last_walk(&self) -> Option<u64> {
        expiry_index::read_last_walk(self.0.as_ref()?)
    }

    pub(super) fn set_last_walk(&self, store: &FileStore, hour: u64) -> Result<()> {
        let written = self.0.as_ref().map_or(Ok(()), |file| expiry_index::write_last_walk(file, hour));
        written.map_err(|cause| error(store, cause))
    }

    /// The number of the last cut-off before the last walk of all shards; 0 if there was none.
    pub(super) fn walked_cut_off(&self) -> u64 {
        self.0.as_ref().and_then(|file| expiry_index::read_walked_cut_off(file)).unwrap_or(0)
    }

    pub(super) fn set_walked_cut_off(&self, store: &FileStore, number: u64) -> Result<()> {
        let written = self.0.as_ref().map_or(Ok(()), |file| expiry_index::write_walked_cut_off(file, number));
        written.map_err(|cause| error(store, cause))
    }

    /// The file system's time, in seconds since 1970; this host's, if the store is read-only.
    pub(super) fn touch(&self, store: &FileStore) -> Result<i64> {
        match &self.0 {
            Some(file) if !store.options.read_only => disk::touch(file).map_err(|cause| error(store, cause)),
            _ => Ok(i64::try_from(micros(SystemTime::now()) / 1_000_000).unwrap_or(i64::MAX)),
        }
    }
}
