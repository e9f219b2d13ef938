//! The parts of a store beside its sessions: the parameters file `sessile.json` and the shard directories. This module
//! reads, makes and checks them. It handles no session, no lock and no options.
//!
//! Several processes may make a store at once, and a power cut leaves no broken store, because of the order: directory,
//! shards, sync, and last the parameters file, which is renamed to its name when it is complete, and never replaced. If
//! another process has made that file first, it is read.
use super::cut_offs::CutOffs;
use super::disk::{self, IfExists, Root};
use super::errors::{directory_error, io_error};
use super::layout::{PARAMETERS, SHARDS, USERS, is_ours, shard_name};
use super::{expiry_index, user_index};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::io;

/// The reason for refusing a directory with sessions but no parameters file, and the remedy.
pub(super) const REMEDY: &str = "its sessions are there, and its parameters file `sessile.json` is lost; recreate that with \
                                 FileStore::repair or `sessile verify --repair`";

/// The reason for refusing a store with a missing shard directory, and the remedy.
pub(super) const LOST_SHARD: &str =
    "it is lost; FileStore::repair or `sessile verify --repair` recreates it, without its sessions";

/// The reason for refusing a parameters file that was truncated or overwritten, and the remedy.
pub(super) const NO_JSON: &str = "it holds no JSON; if sessions are beside it, FileStore::repair or `sessile verify --repair` recreates it";

/// The way to migrate a store of an earlier format.
pub(super) const MIGRATION: &str = "run `sessile export` of the version of sessile that wrote it, and `sessile import` of this one \
                                    into a new directory";

/// The contents of `sessile.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Parameters {
    /// The format of the store. Only `FORMAT` is accepted.
    format: u32,
    shards: u16,
    public_id: String,
    /// Whether the store has a log of cut-offs, so that a missing log is a loss. Stores of earlier versions have none.
    #[serde(default)]
    cut_offs: bool,
}

const FORMAT: u32 = 2;
/// The largest number of bytes of the parameters file that is read.
const PARAMETERS_BYTES_MAX: usize = 4096;

impl Parameters {
    fn ours() -> Self {
        Self { format: FORMAT, shards: SHARDS, public_id: "blake3-160".into(), cut_offs: true }
    }

    fn is_ours(&self) -> bool {
        let Self { format, shards, public_id, cut_offs: _ } = Self::ours();
        (self.format, self.shards, &self.public_id) == (format, shards, &public_id)
    }
}

/// Whether a file with the name of the parameters file exists.
pub(super) fn has_parameters(root: &Root) -> Result<bool> {
    match root.stat(PARAMETERS) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("look for the parameters of session store", error)
            .with_path(root.path().join(PARAMETERS))),
    }
}

/// Reads `sessile.json` and checks the format. Returns whether the store has a log of cut-offs; `None` if the file is
/// missing.
pub(super) fn read_parameters(root: &Root) -> Result<Option<bool>> {
    const OPERATION: &str = "read the parameters of session store";
    let path = || root.path().join(PARAMETERS);
    let error = |kind| Error::new(kind, OPERATION).with_path(path());
    let file = match root.open_file(PARAMETERS) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(io_error(OPERATION, cause).with_path(path())),
    };
    let text = disk::read_at(&file, 0, PARAMETERS_BYTES_MAX)
        .map_err(|cause| io_error(OPERATION, cause).with_path(path()))?;
    // The format is read before the other fields, because another format may have other ones.
    let any: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|cause| error(ErrorKind::NotASessionStore).with_reason(NO_JSON).with_source(cause))?;
    match any.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format > FORMAT.into() => Err(error(ErrorKind::NewerFormat)
            .with_reason(format!("the store has format {format}, this version knows {FORMAT}"))),
        Some(format @ 1..) if format < FORMAT.into() => Err(error(ErrorKind::OlderFormat)
            .with_reason(format!("the store has format {format}, this version knows {FORMAT}; {MIGRATION}"))),
        _ => match serde_json::from_value::<Parameters>(any) {
            Ok(found) if found.is_ours() => Ok(Some(found.cut_offs)),
            _ => Err(error(ErrorKind::NotASessionStore)
                .with_reason("these are not the parameters of a session store")),
        },
    }
}

/// Makes the store in a directory without sessions. Its user index is complete if this call makes the parameters file:
/// no process can have used the store before.
pub(super) fn make_empty(root: &Root, clock: &Clock) -> Result<()> {
    check_names(root)?;
    let error = |error| io_error("make user index", error).with_path(root.path().join(USERS));
    let pending = user_index::begin_walk(root).map_err(error)?;
    let made = make(root, clock, 0);
    let Some(pending) = pending else { return made.map(drop) };
    let finished =
        made.and_then(|is_ours| Ok(is_ours && user_index::finish_walk(root, &pending).map_err(error)?));
    if !matches!(finished, Ok(true)) {
        pending.abandon(root);
    }
    finished.map(drop)
}

/// Makes a store in a directory that has none, or recreates one that was emptied. Returns whether this call made the
/// parameters file. The lock of the root need not be exclusive, because several processes may make the store at the
/// same time. The numbers of later cut-offs are greater than `first_cut_off`.
pub(super) fn make(root: &Root, clock: &Clock, first_cut_off: u64) -> Result<bool> {
    check_names(root)?;
    make_shards(root)?;
    CutOffs::make(root, first_cut_off)?;
    expiry_index::create(root, clock.now_micros())?;
    make_parameters(root, IfExists::Keep)
}

/// Makes a log of cut-offs in a store of an earlier version, and records in the parameters file that there is one.
pub(super) fn add_log(root: &Root) -> Result<()> {
    CutOffs::make(root, 0)?;
    make_parameters(root, IfExists::Replace).map(drop)
}

/// Refuses a directory with foreign files.
pub(super) fn check_names(root: &Root) -> Result<()> {
    let dir = root.path();
    let io = |operation| move |error| directory_error(operation, dir, error);
    let names = root.names().map_err(io("list session directory"))?;
    // A fresh file system has `lost+found` in its root.
    let foreign = |name: &&String| *name != "lost+found" && !is_ours(name);
    if let Some(name) = names.iter().find(foreign) {
        return Err(Error::new(ErrorKind::NotASessionStore, "make a session store in")
            .with_path(dir)
            .with_reason(format!(
                "it holds something else (`{name}`); give the store a directory of its own"
            )));
    }
    Ok(())
}

/// Makes the shards that are missing.
fn make_shards(root: &Root) -> Result<()> {
    for shard in 0..SHARDS {
        make_shard(root, &shard_name(shard))?;
    }
    Ok(())
}

/// Makes the parameters file, which is the last file of a store to be made. All other parts of the store are synced
/// first. Returns whether this call made the file.
pub(super) fn make_parameters(root: &Root, if_exists: IfExists) -> Result<bool> {
    let dir = root.path();
    let io = |operation| move |error| directory_error(operation, dir, error);
    root.sync().map_err(io("sync session directory"))?;
    // The root's own name is synced first, so that it is on the disk wherever the parameters file is.
    root.sync_name().map_err(io("sync the parent of session directory"))?;
    let json = serde_json::to_string(&Parameters::ours()).expect("a struct of integers and a string");
    let temporary = disk::temporary_name()?;
    let put = root.open_directory(".").and_then(|root| {
        root.put(&temporary, PARAMETERS, if_exists, |file| {
            disk::write_at(file, format!("{json}\n").as_bytes(), 0)?;
            disk::sync_data(file)
        })
    });
    // If another process has made the file first, that file is checked. The other process may not have synced the root
    // yet, so this one does.
    let is_put = put.map_err(io("write the parameters of session store"))?;
    root.sync().map_err(io("sync session directory"))?;
    Ok(is_put)
}

pub(super) fn make_shard(root: &Root, name: &str) -> Result<()> {
    root.make_directory(name)
        .map_err(|error| io_error("make shard directory", error).with_path(root.path().join(name)))
}

/// Whether an interrupted creation of the store explains why a shard cannot be listed: it is missing, or its owner has
/// no permission yet, because the umask is strict. (If a shard is not a directory, making the missing shards fails.)
fn is_of_making(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::ACCESS | Errno::NOTDIR | Errno::LOOP)
}

/// Whether any shard has a file. A store that is being made has none.
pub(super) fn has_sessions(root: &Root) -> Result<bool> {
    let list = |error| directory_error("list session directory", root.path(), error);
    let there: HashSet<String> = root.names().map_err(list)?.into_iter().collect();
    for name in (0..SHARDS).map(shard_name).filter(|name| there.contains(name)) {
        match root.open_directory(&name).and_then(|shard| shard.names()) {
            Ok(names) if !names.is_empty() => return Ok(true),
            Ok(_) => {}
            Err(error) if Errno::from_io_error(&error).is_some_and(is_of_making) => {}
            Err(error) => {
                return Err(io_error("list shard directory", error).with_path(root.path().join(name)));
            }
        }
    }
    Ok(false)
}
