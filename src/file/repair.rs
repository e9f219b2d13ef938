//! Recreates the lost parts of a store that hold no session: shard directories, and the parameters file `sessile.json`.
//! Reads sessions and never changes them.
//!
//! The lost parameters file may have stated another format. So it is made only if all sessions have the format of this
//! version, which is 2.
use super::disk::{IfExists, Root};
use super::errors::io_error;
use super::layout::{DAMAGED, PARAMETERS, SHARDS, shard_name};
use super::{FileStore, frame, open, permissions};
use crate::error::{Error, ErrorKind, Result};
use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

const OPERATION: &str = "repair session store";

impl FileStore {
    /// Recreates the lost parts of the store in `dir`: missing shard directories, which are empty afterwards, and the
    /// parameters file `sessile.json`, if it is missing or holds no JSON (such a file is moved to the directory
    /// `damaged`). Returns the paths of the parts that were made.
    ///
    /// Sessions are not changed; those in a lost shard stay lost. Servers may be running. Reads every session if the
    /// parameters file is lost.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotASessionStore`] if `dir` holds no store, or also foreign files; [`ErrorKind::NewerFormat`] or
    /// [`ErrorKind::OlderFormat`] if another version of this crate wrote the parameters file or, if that is lost, any
    /// session; [`ErrorKind::Permissions`] for a directory of another user, or one whose modes do not agree (see
    /// [`keep_modes`](super::FileStoreOptions::keep_modes)); [`ErrorKind::Io`] and others for all that the operating
    /// system refuses.
    ///
    /// ```
    /// # use sessile::FileStore;
    /// # let dir = tempfile::tempdir()?;
    /// # let dir = dir.path();
    /// FileStore::open(dir)?;
    /// std::fs::remove_dir(dir.join("77"))?;
    /// assert_eq!(FileStore::repair(dir)?, [dir.join("77")]);
    /// assert!(FileStore::repair(dir)?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn repair(dir: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
        let dir = dir.as_ref();
        let io = |error| io_error(OPERATION, error).with_path(dir);
        let root = Root::open(dir).map_err(io)?;
        let sharing = permissions::sharing_of(&root.stat(".").map_err(io)?);
        let root = root.shared_with(sharing);
        let parameters = Parameters::of(&root)?;
        // Whether there is a store is checked before the permissions, because the permissions of a directory without a
        // store do not matter.
        if parameters == Parameters::Lost && !has_shards(&root)? {
            let error = Error::new(ErrorKind::NotASessionStore, OPERATION).with_path(dir);
            return Err(error.with_reason("there is no session store in it"));
        }
        permissions::check_store(&root)?;
        if parameters != Parameters::There {
            frame::check_names(&root)?;
            open::check_formats(dir)?;
        }
        let missing = missing_shards(&root)?;
        missing.iter().try_for_each(|name| frame::make_shard(&root, name))?;
        let mut made: Vec<PathBuf> = missing.into_iter().map(|name| dir.join(name)).collect();
        root.sync().map_err(|error| io_error(OPERATION, error).with_path(dir))?;
        if parameters == Parameters::Unreadable {
            set_parameters_aside(&root)
                .map_err(|error| io_error(OPERATION, error).with_path(dir.join(PARAMETERS)))?;
        }
        if parameters != Parameters::There {
            frame::make_parameters(&root, IfExists::Keep)?;
            made.push(dir.join(PARAMETERS));
        }
        Ok(made)
    }
}

/// The state of the parameters file `sessile.json`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parameters {
    There,
    Lost,
    /// The file is empty or holds no JSON.
    Unreadable,
}

impl Parameters {
    /// Reads the parameters file. JSON that is not that of a store is an error.
    fn of(root: &Root) -> Result<Self> {
        match frame::read_parameters(root) {
            Ok(Some(_)) => Ok(Self::There),
            Ok(None) => Ok(Self::Lost),
            Err(error) if error.source().is_some_and(<dyn StdError>::is::<serde_json::Error>) => {
                Ok(Self::Unreadable)
            }
            Err(error) => Err(error),
        }
    }
}

fn set_parameters_aside(root: &Root) -> io::Result<()> {
    root.make_directory(DAMAGED)?;
    let (from, to) = (root.open_directory(".")?, root.open_directory(DAMAGED)?);
    // The directory may have a file from an earlier repair, so the file gets the first free number.
    let names = (0..1000).map(|n| format!("{PARAMETERS}.{n}"));
    from.move_to_free(PARAMETERS, &to, names).map(drop)
}

fn missing_shards(root: &Root) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for name in (0..SHARDS).map(shard_name) {
        match root.stat(&name) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(name),
            Err(error) => return Err(io_error(OPERATION, error).with_path(root.path().join(name))),
        }
    }
    Ok(missing)
}

fn has_shards(root: &Root) -> Result<bool> {
    Ok(missing_shards(root)?.len() < usize::from(SHARDS))
}
