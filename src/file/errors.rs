//! Converts errors of the operating system to errors of this crate, with kind, path and reason. The path is that of a
//! file in the store; an error contains neither a session id nor a value. Only the error of a full disk makes a system
//! call: it asks what the file system has run out of.
use super::disk::Root;
use super::layout::SessionPath;
use crate::error::{Error, ErrorKind, Result};
use rustix::io::Errno;
use std::borrow::Cow;
use std::io;
use std::path::Path;

impl Root {
    /// Adds the path of the session file to an error about its contents.
    pub(super) fn located<T>(&self, result: Result<T>, path: &SessionPath) -> Result<T> {
        result.map_err(|error| error.with_path(self.path().join(path.as_str())))
    }

    /// The error for an I/O error of a session file.
    pub(super) fn error(&self, operation: &'static str, path: &SessionPath, error: io::Error) -> Error {
        self.error_at(operation, path.as_str(), error)
    }

    /// The error for an I/O error of another file below the root.
    pub(super) fn error_at(&self, operation: &'static str, path: &str, error: io::Error) -> Error {
        let full = matches!(Errno::from_io_error(&error), Some(Errno::NOSPC));
        let error = io_error(operation, error).with_path(self.path().join(path));
        if full { error.with_reason(self.enospc_reason()) } else { error }
    }

    /// The error for a failed sync after a write: the change is visible, and may not survive a power cut.
    pub(super) fn unknown(&self, operation: &'static str, path: &SessionPath, error: io::Error) -> Error {
        let error = self.error(operation, path, error);
        Error::new(ErrorKind::DurabilityUnknown, operation)
            .with_path(self.path().join(path.as_str()))
            .with_reason("what was changed is visible, and may not survive a power cut")
            .with_source(error)
    }
}

/// The error for an I/O error, with the kind and the reason that its errno stands for.
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

/// The error for an I/O error of the root directory itself. The errnos that mean "not a session file" elsewhere do not
/// mean it here, because links in the root's path are followed.
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
