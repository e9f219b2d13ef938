//! The directory `run` in the root. It holds files that only running processes need: the generations file and the
//! expiry index. This module makes the directory and its tag; other modules make the files in it.
//!
//! The directory may be missing at any time, for example after a backup without it was restored. So a module that needs
//! a file in it makes the directory first. No file in `run` decides whether a session is alive, so the directory need
//! not be backed up.
use super::disk::{self, IfExists, Root};
use super::layout::{CACHE_TAG, CACHE_TAG_TEXT, RUN};
use std::io;

/// Makes the directory, and in it the file `CACHEDIR.TAG`. Backup programs recognize that file, and leave the directory
/// out.
pub(super) fn make(root: &Root) -> io::Result<()> {
    root.make_directory(RUN)?;
    let run = root.open_directory(RUN)?;
    match run.stat(CACHE_TAG) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let temporary = disk::temporary_name().map_err(io::Error::other)?;
            let text = CACHE_TAG_TEXT.as_bytes();
            run.put(&temporary, CACHE_TAG, IfExists::Keep, |file| disk::write_at(file, text, 0)).map(drop)
        }
        tag => tag.map(drop),
    }
}
