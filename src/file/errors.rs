//! Converts errors of the operating system to the crate's: kind, path and reason.
//!
//! Changes no file. The only reading is the kind of the file system, for the reason of a full disk. The path is always
//! that of a file in the store; an error contains no id and no value.
use super::disk::Root;
use super::layout::SessionPath;
use crate::error::{Error, ErrorKind, Result};
use rustix::io::Errno;
use std::borrow::Cow;
use std::io;
use std::path::Path;

impl Root {
    /// Names the file in an error about its contents.
    pub(super) fn located<T>(&self, result: Result<T>, path: &SessionPath) -> Result<T> {
        result.map_err(|error| error.with_path(self.path().join(path.as_str())))
    }

    /// An error of the operating system about a session file.
    pub(super) fn error(&self, operation: &'static str, path: &SessionPath, error: io::Error) -> Error {
        self.error_at(operation, path.as_str(), error)
    }

    /// An error of the operating system about a file below the root.
    pub(super) fn error_at(&self, operation: &'static str, path: &str, error: io::Error) -> Error {
        let full = matches!(Errno::from_io_error(&error), Some(Errno::NOSPC));
        let error = io_error(operation, error).with_path(self.path().join(path));
        if full { error.with_reason(self.enospc_reason()) } else { error }
    }

    /// An error after a write: the change is visible, but may not survive a power cut.
    pub(super) fn unknown(&self, operation: &'static str, path: &SessionPath, error: io::Error) -> Error {
        let error = self.error(operation, path, error);
        Error::new(ErrorKind::DurabilityUnknown, operation)
            .with_path(self.path().join(path.as_str()))
            .with_reason("what was changed is visible, and may not survive a power cut")
            .with_source(error)
    }
}

/// An error of the operating system, with the kind and the reason that its errno stands for.
pub(super) fn io_error(operation: impl Into<Cow<'static, str>>, error: io::Error) -> Error {
    match Errno::from_io_error(&error) {
        Some(Errno::NOSPC) => Error::new(ErrorKind::Full, operation),
        Some(Errno::DQUOT) => Error::new(ErrorKind::Full, operation).with_reason("the disk quota is used up"),
        Some(Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::SPIPE | Errno::NXIO) => {
            Error::new(ErrorKind::NotASessionFile, operation)
                .with_reason("a link, pipe, directory or device is in its place")
        }
        _ => Error::new(ErrorKind::Io, operation),
    }
    .with_source(error)
}

/// An error of the operating system about the root itself. A link in its path is followed, so no errno means a foreign
/// file here.
pub(super) fn directory_error(operation: &'static str, dir: &Path, error: io::Error) -> Error {
    // The errno itself is not available, because `tempfile` wraps it; its `ErrorKind` is.
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Io,
    };
    Error::new(kind, operation).with_path(dir).with_source(error)
}

/// Whether a file is not one that this version can read.
pub(super) fn is_of_another_version(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NewerFormat | ErrorKind::OlderFormat | ErrorKind::NotASessionFile)
}
