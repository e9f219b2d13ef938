//! The directory `run` has files that running processes need and that a backup does not need. This module makes it with
//! its tag, and removes the files that an earlier version kept in the root. The contents of the files are other
//! modules' matter.
//!
//! The directory may be missing at any time, for example after the restoration of a backup without it. A caller that
//! needs a file in it makes the directory first. No file in it decides whether a session is alive.
use super::disk::{self, Root, Taken};
use super::errors::io_error;
use super::layout::{
    CACHE_TAG, CACHE_TAG_TEXT, DUE, EARLIER_DUE, EARLIER_GENERATIONS, RUN, SWEEP, bucket_named,
};
use crate::error::Result;
use std::io;

/// Makes the directory, and the tag by which backup programs recognize it.
pub(super) fn make(root: &Root) -> io::Result<()> {
    root.make_directory(RUN)?;
    let run = root.open_directory(RUN)?;
    match run.stat(CACHE_TAG) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let temporary = disk::temporary_name().map_err(io::Error::other)?;
            let text = CACHE_TAG_TEXT.as_bytes();
            run.put(&temporary, CACHE_TAG, Taken::Kept, |file| disk::write_at(file, text, 0)).map(drop)
        }
        tag => tag.map(drop),
    }
}

/// Whether processes of an earlier version may use the store. They have their counters in the root itself, and do not
/// see this version's invalidations.
pub(super) fn has_earlier(root: &Root) -> Result<bool> {
    match root.stat(EARLIER_GENERATIONS) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => {
            Err(io_error("look for the generations of an earlier version", error).with_path(root.path()))
        }
    }
}

/// Removes the counters and the index of an earlier version, which no process uses any more. The next sweep walks the
/// whole store, as it does after the loss of an index.
pub(super) fn remove_earlier(root: &Root) -> Result<()> {
    let removed = (|| {
        let here = root.open_directory(".")?;
        match root.open_directory(EARLIER_DUE) {
            Ok(index) => {
                // The directory stays if it has foreign files.
                let is_own = |name: &&String| *name == SWEEP || bucket_named(name).is_some();
                index.names()?.iter().filter(is_own).try_for_each(|name| index.unlink(name).map(drop))?;
                here.remove_directory(EARLIER_DUE)?;
                match root.open_directory(DUE) {
                    Ok(index) => drop(index.unlink(SWEEP)?),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Removed last, because its presence shows that there may be more files to remove.
        here.unlink(EARLIER_GENERATIONS)
    })();
    removed.map(drop).map_err(|error| {
        io_error("remove the counters and the index of an earlier version", error).with_path(root.path())
    })
}
