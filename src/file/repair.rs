//! Makes anew what a store has lost of its frame: shard directories and the parameters file. Sessions are read and never
//! changed.
//!
//! The parameters are never guessed over a newer format: before their file is made, every session is read, and each says
//! which format it has. A version of this crate that knows format 1 makes the file only where no session has another one.
use super::disk::Root;
use super::errors::directory_error;
use super::layout::{DAMAGED, PARAMETERS, SHARDS, shard_name};
use super::{Content, FileStore, FileStoreOptions, io_error};
use super::{open, permissions};
use crate::error::{Error, ErrorKind, Result};
use rustix::io::Errno;
use std::collections::HashSet;
use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a directory with sessions and without parameters is refused, and the cure.
pub(super) const REMEDY: &str = "its sessions are there, and its parameters file `sessile.json` is lost; make that anew with \
                                 FileStore::repair or `sessile verify --repair`";

/// The same for a shard directory that is not there.
pub(super) const LOST_SHARD: &str =
    "it is lost; FileStore::repair or `sessile verify --repair` makes it anew, without its sessions";

/// The same for parameters that were cut short or overwritten.
pub(super) const NO_JSON: &str = "it holds no JSON; if sessions are beside it, FileStore::repair or `sessile verify --repair` makes it anew";

const ACT: &str = "repair session store";

impl FileStore {
    /// Makes anew what the store in `dir` has lost of its frame: missing shard directories, empty, and the parameters file
    /// `sessile.json`, if that is missing or holds no JSON (which is moved to the directory `damaged`). Returns the paths of
    /// what was made.
    ///
    /// Sessions are not changed; those in a shard that was lost stay lost. Servers may be running. Reads every session if the
    /// parameters are lost.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotASessionStore`] if `dir` holds no store or something else, too; [`ErrorKind::NewerFormat`] if a newer version of
    /// this crate wrote the parameters or, if they are lost, any session; [`ErrorKind::Permissions`] for a directory that is
    /// not ours, or whose modes do not agree (see [`keep_modes`](FileStoreOptions::keep_modes)); [`ErrorKind::Io`] and others for all that the operating system refuses.
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
        let io = |error| io_error(ACT, error).with_path(dir);
        let root = Root::open(dir).map_err(io)?;
        let sharing = permissions::sharing_of(&root.stat(".").map_err(io)?);
        let root = root.shared_with(sharing);
        let parameters = Parameters::of(&root)?;
        // First: of a directory that is no store, nothing needs to be private.
        if parameters == Parameters::Lost && !has_shards(&root)? {
            let error = Error::new(ErrorKind::NotASessionStore, ACT).with_path(dir);
            return Err(error.with_reason("there is no session store in it"));
        }
        permissions::check_store(&root)?;
        if parameters != Parameters::There {
            open::check_names(&root)?;
            check_formats(dir)?;
        }
        let mut made: Vec<PathBuf> = missing_shards(&root)?.into_iter().map(|name| dir.join(name)).collect();
        missing_shards(&root)?.iter().try_for_each(|name| open::make_shard(&root, name))?;
        root.sync().map_err(|error| io_error(ACT, error).with_path(dir))?;
        if parameters == Parameters::Unreadable {
            set_parameters_aside(&root)
                .map_err(|error| io_error(ACT, error).with_path(dir.join(PARAMETERS)))?;
        }
        if parameters != Parameters::There {
            open::make_parameters(&root)?;
            made.push(dir.join(PARAMETERS));
        }
        Ok(made)
    }
}

/// What has become of `sessile.json`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parameters {
    There,
    Lost,
    /// Empty, or garbage.
    Unreadable,
}

impl Parameters {
    /// Parameters that can be read and are not ours are an error.
    fn of(root: &Root) -> Result<Self> {
        match open::read_parameters(root) {
            Ok(true) => Ok(Self::There),
            Ok(false) => Ok(Self::Lost),
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
    let name = std::ffi::CString::new(PARAMETERS).expect("without a zero");
    let mut moved = Err(io::ErrorKind::AlreadyExists.into());
    // Earlier ones stay.
    for n in 0..1000 {
        moved = from.move_to(&name, &to, &format!("{PARAMETERS}.{n}"));
        if !moved.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            break;
        }
    }
    moved
}

fn missing_shards(root: &Root) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for name in (0..SHARDS).map(shard_name) {
        match root.stat(&name) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(name),
            Err(error) => return Err(io_error(ACT, error).with_path(root.path().join(name))),
        }
    }
    Ok(missing)
}

fn has_shards(root: &Root) -> Result<bool> {
    Ok(missing_shards(root)?.len() < usize::from(SHARDS))
}

/// Whether a making that was cut short may be why a shard cannot be listed: it is not there, or has not its owner's rights yet
/// under a strict umask. A shard that is no directory is refused when the others are made.
fn is_of_making(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::ACCESS | Errno::NOTDIR | Errno::LOOP)
}

/// Whether there is anything in a shard, as there is not while a store is being made.
pub(super) fn has_sessions(root: &Root) -> Result<bool> {
    let list = |error| directory_error("list session directory", root.path(), error);
    let there: HashSet<String> = root.names().map_err(list)?.into_iter().collect();
    for name in (0..SHARDS).map(shard_name).filter(|name| there.contains(name)) {
        match root.open_directory(&name).and_then(|shard| shard.names()) {
            Ok(names) if names.iter().any(|name| !matches!(name.as_str(), "." | "..")) => return Ok(true),
            Ok(_) => {}
            Err(error) if Errno::from_io_error(&error).is_some_and(is_of_making) => {}
            Err(error) => {
                return Err(io_error("list shard directory", error).with_path(root.path().join(name)));
            }
        }
    }
    Ok(false)
}

/// Refuses a directory in which a newer version of this crate wrote a session.
pub(super) fn check_formats(dir: &Path) -> Result<()> {
    let mut options = FileStoreOptions::new().read_only(true).cache_bytes(0);
    options.without_parameters = true;
    let store = options.open(dir)?;
    for file in store.files() {
        match file {
            Ok(file) if matches!(file.content, Content::Newer(_)) => {
                return Err(Error::new(
                    ErrorKind::NewerFormat,
                    "make the parameters of session store anew for",
                )
                .with_path(file.path)
                .with_reason(
                    "a newer version of sessile wrote this session; repair the store with that version",
                ));
            }
            Ok(_) => {}
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether an error says that something is not there.
fn is_missing(error: &Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound)
}
