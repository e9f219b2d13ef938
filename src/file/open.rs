//! Opening a store: makes it if there is none, refuses a directory that is not a store of this crate, and locks the
//! root for as long as the store is open.
//!
//! The files in the root are made and checked by `frame`.
use super::FileStore;
use super::disk::{self, IfExists, Root};
use super::errors::{directory_error, io_error};
use super::generations::Generations;
use super::layout::{PARAMETERS, SHARDS, shard_name};
use super::options::FileStoreOptions;
use super::root_lock::LockedRoot;
use super::scan::{Content, ScannedFile};
use super::{frame, permissions};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::sync::Instant;
use std::error::Error as _;
use std::io;
use std::path::Path;

impl FileStoreOptions {
    /// Opens the store in `dir`. Creates the directory (mode 0700; its parent must exist) and the store in it, if there
    /// is none; several processes may do so at once. If this user's directories and files of a store are open to others
    /// (after `chmod -R`, `setfacl -R`, or through the `fsGroup` of a Kubernetes volume), they are made private again,
    /// with the event [`Event::MadePrivate`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] names an option out of its bounds. [`ErrorKind::NotASessionStore`] for a directory that
    /// holds foreign files. [`ErrorKind::NewerFormat`] for a store made by a newer version, [`ErrorKind::OlderFormat`]
    /// for one of an earlier format, with the way to migrate its sessions. [`ErrorKind::Permissions`] for a store of
    /// another user whose permissions cannot be repaired, with the command that repairs them; and, unless the store is
    /// opened [read only](Self::read_only), for a directory without a store that belongs to another user or that others
    /// may write to. [`ErrorKind::Io`] for all that the operating system refuses, and, without
    /// [`create`](Self::create), for a store that lacks one of its shard directories. (With `create`, missing shard
    /// directories are recreated, and [`Event::ShardsRecreated`] names them.) [`ErrorKind::InUse`] if another process
    /// has the directory locked for the whole [`lock_wait`](Self::lock_wait).
    pub fn open(self, dir: impl AsRef<Path>) -> Result<FileStore> {
        self.check()?;
        FileStore::open_with(self, dir.as_ref())
    }
}

/// Locks the root for as long as the store is open, and opens its generations file or makes one.
///
/// The lock is shared with other processes. A missing generations file may be made under a shared lock: processes that
/// use another file switch to the one that has the name (see `generations`). A store without a cache opens the file and
/// does not map it. A read-only store does not open it.
pub(super) fn lock_root(root: &Root, options: &FileStoreOptions) -> Result<(LockedRoot, Generations)> {
    let io = |error| io_error("lock session directory", error).with_path(root.path());
    let deadline = Instant::now() + options.lock_wait;
    let locked = LockedRoot::share(root.directory().map_err(io)?, deadline).map_err(io)?;
    let lock = locked.ok_or_else(|| {
        let error = Error::new(ErrorKind::InUse, "open session store").with_path(root.path());
        error.with_reason("another process has locked the directory")
    })?;
    let generations = if options.read_only {
        Generations::none()?
    } else {
        Generations::open(root, options.cache_bytes > 0, options.clock.now_coarse())?
    };
    Ok((lock, generations))
}

/// Switches the cache off on a file system where processes do not share memory. Returns the name of that file system,
/// if the cache was on.
///
/// Such a store still invalidates the copies of other processes: on the host of a virtual machine, other processes may
/// use the same directory with a cache.
pub(super) fn disable_cache_if_remote(root: &Root, options: &mut FileStoreOptions) -> Option<&'static str> {
    let name = root.remote_file_system().filter(|_| options.cache_bytes > 0)?;
    options.cache_bytes = 0;
    Some(name)
}

/// The root of a store that is being opened, and what was found in it.
pub(super) struct Opened {
    pub(super) root: Root,
    /// Whether shard directories were missing, and were recreated.
    pub(super) were_missing: bool,
    /// Whether the store has a log of cut-offs, so that a missing log is a loss.
    pub(super) has_log: bool,
}

/// Opens the root of the store in `dir`. Makes the store if there is none.
pub(super) fn open_root(dir: &Path, options: &FileStoreOptions) -> Result<Opened> {
    let io = |operation| move |error| directory_error(operation, dir, error);
    let creates = options.create && !options.read_only;
    if creates && disk::make_root(dir).map_err(io("create session directory"))? {
        disk::set_mode_of_root(dir, options.sharing)
            .map_err(io("set the permissions of session directory"))?;
    }
    let root = Root::open(dir).map_err(io("open session directory"))?;
    let sharing = if options.keep_modes {
        permissions::sharing_of(&root.stat(".").map_err(io("examine session directory"))?)
    } else {
        options.sharing
    };
    let root = root.shared_with(sharing);
    if options.without_parameters {
        // A repair opens the store only to read its session files.
        return Ok(Opened { root, were_missing: false, has_log: false });
    }
    let is_there = frame::has_parameters(&root)?;
    let mut is_new = false;
    if !is_there {
        let has_sessions = frame::has_sessions(&root)?;
        if !creates {
            let reason = if has_sessions { frame::REMEDY } else { "there is no session store in it" };
            return Err(Error::new(ErrorKind::NotASessionStore, "open session store")
                .with_path(dir)
                .with_reason(reason));
        }
        permissions::check_place(&root)?;
        if has_sessions {
            check_formats(dir)?;
            frame::check_names(&root)?;
            if frame::make_parameters(&root, IfExists::Keep)? {
                options.observer.notify(&Event::ParametersRecreated { path: dir });
            }
        } else {
            frame::make_empty(&root, &options.clock)?;
            is_new = true;
        }
    }
    if options.read_only {
        let has_log = check_parameters(&root)?;
        return Ok(Opened { root, were_missing: false, has_log });
    }
    // The permissions are examined before the parameters file is read, which another user may have made unreadable.
    // They are repaired after the directory is known to be a store.
    let survey = permissions::Survey::of(&root)?;
    let has_log = check_parameters(&root)?;
    if options.keep_modes && !is_new {
        survey.check(&root)?;
    } else {
        survey.repair(&root, is_there.then_some(&options.observer))?;
    }
    if !has_log {
        frame::add_log(&root)?;
    }
    let were_missing = check_shards(&root, options)?;
    Ok(Opened { root, were_missing, has_log: true })
}

/// Refuses a directory whose parameters file is missing or is not that of a store. Returns whether the store has a log
/// of cut-offs.
fn check_parameters(root: &Root) -> Result<bool> {
    if let Some(has_log) = frame::read_parameters(root)? {
        return Ok(has_log);
    }
    Err(Error::new(ErrorKind::Io, "read the parameters of session store")
        .with_path(root.path().join(PARAMETERS))
        .with_reason("the file vanished while the store was opened"))
}

/// Recreates missing shards, with an event, because some backups leave empty directories out. The parameters file is
/// there, so the store's disk is mounted. Without the option `create`, a missing shard is an error. Returns whether any
/// shard was missing.
fn check_shards(root: &Root, options: &FileStoreOptions) -> Result<bool> {
    let mut missing = Vec::new();
    for shard in 0..SHARDS {
        let name = shard_name(shard);
        match root.check_directory(&name) {
            Err(error) if options.create && error.kind() == io::ErrorKind::NotFound => {
                frame::make_shard(root, &name)?;
                missing.push(name);
            }
            found => found.map_err(|error| {
                let is_lost = error.kind() == io::ErrorKind::NotFound;
                let error = io_error("open shard directory", error).with_path(root.path().join(&name));
                if is_lost { error.with_reason(frame::LOST_SHARD) } else { error }
            })?,
        }
    }
    if !missing.is_empty() {
        root.sync().map_err(|error| directory_error("sync session directory", root.path(), error))?;
        options.observer.notify(&Event::ShardsRecreated { path: root.path(), shards: &missing });
    }
    Ok(!missing.is_empty())
}

/// Refuses a directory in which a session has the format of another version.
pub(super) fn check_formats(dir: &Path) -> Result<()> {
    let mut options = FileStoreOptions::new().read_only(true).cache_bytes(0);
    options.without_parameters = true;
    let store = options.open(dir)?;
    for file in store.files() {
        match file {
            Ok(file) if matches!(file.content, Content::Newer(_)) => {
                let reason =
                    "a newer version of sessile wrote this session; repair the store with that version";
                return Err(other_format(ErrorKind::NewerFormat, &file, reason.to_owned()));
            }
            Ok(file) if matches!(file.content, Content::Older(_)) => {
                let reason = format!(
                    "an earlier version of sessile wrote this session; repair the store with that version, then {}",
                    frame::MIGRATION
                );
                return Err(other_format(ErrorKind::OlderFormat, &file, reason));
            }
            Ok(_) => {}
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn other_format(kind: ErrorKind, file: &ScannedFile, reason: String) -> Error {
    Error::new(kind, "recreate the parameters of session store for").with_path(&file.path).with_reason(reason)
}

/// Whether an error means that a file is missing.
fn is_missing(error: &Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound)
}
