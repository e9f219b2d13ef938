//! Converts errors of SQLite to errors of this crate. An error names the file, and has no value of a row.
use crate::error::{Error, ErrorKind};
use rusqlite::ffi::{self, ErrorCode};
use std::path::Path;

/// The error for a failed statement or commit.
#[cold]
pub(super) fn failure(operation: &'static str, path: &Path, error: rusqlite::Error) -> Error {
    let (kind, reason) = match &error {
        rusqlite::Error::SqliteFailure(code, _) => meaning(*code, path),
        _ => (ErrorKind::Storage, None),
    };
    let failure = Error::new(kind, operation).with_path(path).with_source(error);
    match reason {
        Some(reason) => failure.with_reason(reason),
        None => failure,
    }
}

fn meaning(error: ffi::Error, path: &Path) -> (ErrorKind, Option<&'static str>) {
    match (error.code, error.extended_code) {
        (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed, _) => {
            (ErrorKind::Busy, Some("another process writes to it"))
        }
        (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => (ErrorKind::Full, None),
        (ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _) => (ErrorKind::Corrupt, None),
        // The file has lost its name since it was opened.
        (_, ffi::SQLITE_READONLY_DBMOVED) => (ErrorKind::Unavailable, None),
        (
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied,
            _,
        ) => (ErrorKind::Permissions, None),
        (ErrorCode::CannotOpen, _) if super::place::is_denied(path) => {
            (ErrorKind::Permissions, Some(super::place::DENIED))
        }
        (_, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => (
            ErrorKind::DurabilityUnknown,
            Some("nothing was changed yet, but the change may be there after a power cut"),
        ),
        (ErrorCode::CannotOpen | ErrorCode::SystemIoFailure, _) => (ErrorKind::Io, None),
        (ErrorCode::TooBig, _) => (ErrorKind::TooLarge, None),
        _ => (ErrorKind::Storage, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn each_failure_has_its_kind_and_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        std::fs::write(&path, "").unwrap();
        for (code, kind) in [
            (ffi::SQLITE_BUSY, ErrorKind::Busy),
            (ffi::SQLITE_BUSY_SNAPSHOT, ErrorKind::Busy),
            (ffi::SQLITE_FULL, ErrorKind::Full),
            (ffi::SQLITE_IOERR_SHMSIZE, ErrorKind::Full),
            (ffi::SQLITE_CORRUPT, ErrorKind::Corrupt),
            (ffi::SQLITE_NOTADB, ErrorKind::Corrupt),
            (ffi::SQLITE_READONLY, ErrorKind::Permissions),
            (ffi::SQLITE_READONLY_DIRECTORY, ErrorKind::Permissions),
            (ffi::SQLITE_READONLY_DBMOVED, ErrorKind::Unavailable),
            (ffi::SQLITE_PERM, ErrorKind::Permissions),
            (ffi::SQLITE_CANTOPEN, ErrorKind::Io),
            (ffi::SQLITE_IOERR_WRITE, ErrorKind::Io),
            (ffi::SQLITE_IOERR_FSYNC, ErrorKind::DurabilityUnknown),
            (ffi::SQLITE_TOOBIG, ErrorKind::TooLarge),
            (ffi::SQLITE_NOMEM, ErrorKind::Storage),
            (ffi::SQLITE_ERROR, ErrorKind::Storage),
        ] {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            let failure = failure("read session database", &path, error);
            assert_eq!(failure.kind(), kind, "{code}");
            let text = format!("failed to read session database `{}`", path.display());
            assert!(failure.to_string().starts_with(&text), "{failure}");
            assert!(failure.source().is_some());
        }
    }
}
