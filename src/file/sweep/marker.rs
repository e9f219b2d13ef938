//! The file that is locked by whoever sweeps, and holds the hour of the last walk. It says nothing if the index is new or was
//! lost.
use crate::clock::micros;
use crate::error::{Error, Result};
use crate::file::FileStore;
use crate::file::disk::{self, Access, Directory, Root};
use crate::file::due::BUCKET_MICROS;
use crate::file::flock::LockedFile;
use crate::file::layout::{DUE, SWEEP};
use crate::file::run;
use crate::sync::Instant;
use std::fs::File;
use std::io;
use std::time::SystemTime;

/// A number of 20 digits and the end of its line.
const NOTE_BYTES: usize = 21;

/// The file, locked; none, if the store is only read and has lost it.
pub(super) struct Marker(Option<LockedFile>);

fn error(store: &FileStore, cause: io::Error) -> Error {
    store.error_at("lock expiry index", &format!("{DUE}/{SWEEP}"), cause)
}

impl Marker {
    /// `None` if somebody else has it.
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
            // The umask may have taken bits away.
            let mended = disk::stat(&file).and_then(|stat| store.root.sharing().mend_mode(&file, &stat));
            mended.map_err(|cause| error(store, cause))?;
        }
        Ok(Some(Self(Some(file))))
    }

    /// The hour of the last walk, if it is known.
    pub(super) fn walked(&self) -> Option<u64> {
        // What lies behind it, in a file that was damaged, stays there and says nothing.
        let text = disk::read_at(self.0.as_ref()?, 0, NOTE_BYTES).ok()?;
        str::from_utf8(&text).ok()?.trim().parse().ok()
    }

    pub(super) fn set_walked(&self, store: &FileStore, hour: u64) -> Result<()> {
        let written = self.0.as_ref().map_or(Ok(()), |file| write_walked(file, hour));
        written.map_err(|cause| error(store, cause))
    }

    /// What time it is by the file system's clock, in seconds since 1970; by this host's, if the store is only read.
    pub(super) fn touch(&self, store: &FileStore) -> Result<i64> {
        match &self.0 {
            Some(file) if !store.options.read_only => disk::touch(file).map_err(|cause| error(store, cause)),
            _ => Ok(i64::try_from(micros(SystemTime::now()) / 1_000_000).unwrap_or(i64::MAX)),
        }
    }
}

/// Notes the hour of a walk.
fn write_walked(marker: &File, hour: u64) -> io::Result<()> {
    // Of one width, so that no longer number shines through.
    disk::write_at(marker, format!("{hour:20}\n").as_bytes(), 0)
}

/// Makes the index of a store that is new, in which nothing needs to be walked.
pub(in crate::file) fn make_index(root: &Root, now: SystemTime) -> io::Result<()> {
    run::make_index(root)?;
    let marker = root.open_directory(DUE)?.open_named(SWEEP, Access::WriteOrCreate)?;
    root.sharing().mend_mode(&marker, &disk::stat(&marker)?)?;
    write_walked(&marker, micros(now) / BUCKET_MICROS)
}
