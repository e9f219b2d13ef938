//! The directory `run` has files that running processes need and that a backup does not need. This module makes it with
//! its tag. The contents of the files are other modules' matter.
//!
//! The directory may be missing at any time, for example after the restoration of a backup without it. A caller that
//! needs a file in it makes the directory first. No file in it decides whether a session is alive.
use super::disk::{self, Root, Taken};
use super::layout::{CACHE_TAG, CACHE_TAG_TEXT, RUN};
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
