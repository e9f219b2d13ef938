//! Opening: makes the store if there is none, refuses a directory that is no store of ours, and locks the root for as long as the
//! store is open.
//!
//! Several processes may make a store at once, and a power cut spoils nothing, because of the order: directory, shards, sync, and last
//! the parameters file, linked under its name when it is complete and never replaced. A process that loses the race reads the file
//! that the winner linked.
use super::disk::{self, Root, Taken};
use super::errors::{directory_error, io_error};
use super::generations::Generations;
use super::layout::{PARAMETERS, SHARDS, is_ours, shard_name};
use super::options::FileStoreOptions;
use super::root_lock::LockedRoot;
use super::{expiry_index, permissions, repair, run};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::sync::{Instant, thread};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::time::Duration;

/// What `sessile.json` says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Parameters {
    /// Newer ones are refused.
    format: u32,
    shards: u16,
    public_id: String,
}

const FORMAT: u32 = 1;
/// Longest parameters file that is read.
const PARAMETERS_BYTES_MAX: usize = 4096;

impl Parameters {
    fn ours() -> Self {
        Self { format: FORMAT, shards: SHARDS, public_id: "blake3-160".into() }
    }
}

/// Locks the root for as long as the store is open, and opens its counters or makes them.
///
/// The lock is shared: counters may be made where there are none, for processes that had others follow the name
/// (`generations`). A store without a cache opens the counters' file, and does not map it.
///
/// A store that is only read has no counters: it asks the files, and changes nothing.
pub(super) fn lock_root(root: &Root, options: &FileStoreOptions) -> Result<(LockedRoot, Generations)> {
    const ACT: &str = "lock session directory";
    let io = |error| io_error(ACT, error).with_path(root.path());
    let in_use = |reason| {
        Error::new(ErrorKind::InUse, "open session store").with_path(root.path()).with_reason(reason)
    };
    let deadline = Instant::now() + options.lock_wait;
    loop {
        let locked = LockedRoot::share(root.directory().map_err(io)?, deadline).map_err(io)?;
        let lock = locked.ok_or_else(|| in_use("another process has locked the directory"))?;
        if options.read_only {
            return Ok((lock, Generations::none()?));
        }
        if !run::has_earlier(root)? {
            let is_mapped = options.cache_bytes > 0;
            return Ok((lock, Generations::open(root, is_mapped, options.clock.now_coarse())?));
        }
        // Given back first: a lock that is converted in place may be lost on the way.
        drop(lock);
        match LockedRoot::acquire(root.directory().map_err(io)?, Instant::now()).map_err(io)? {
            Some(_alone) => run::remove_earlier(root)?,
            None if Instant::now() > deadline => {
                return Err(in_use(
                    "its file `generations` is of an earlier version, which may still use it; stop all processes that have \
                     the store open, or remove the file if none of them is of an earlier version",
                ));
            }
            None => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Where processes do not share memory, a store keeps no copies. The name of such a file system, if any were to be kept.
///
/// It invalidates all the same: on the host of a virtual machine, others may use the directory through memory.
pub(super) fn go_without_copies(root: &Root, options: &mut FileStoreOptions) -> Option<&'static str> {
    let name = root.remote_file_system().filter(|_| options.cache_bytes > 0)?;
    options.cache_bytes = 0;
    Some(name)
}

/// Opens the store in `dir`, making it if need be. Says also whether shards were missing.
pub(super) fn open_root(dir: &Path, options: &FileStoreOptions) -> Result<(Root, bool)> {
    let io = |act| move |error| directory_error(act, dir, error);
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
        return Ok((root, false));
    }
    let is_there = has_parameters(&root)?;
    let mut is_new = false;
    if !is_there {
        let has_sessions = repair::has_sessions(&root)?;
        if !creates {
            let reason = if has_sessions { repair::REMEDY } else { "there is no session store in it" };
            return Err(Error::new(ErrorKind::NotASessionStore, "open session store")
                .with_path(dir)
                .with_reason(reason));
        }
        permissions::check_place(&root)?;
        if has_sessions {
            repair::check_formats(dir)?;
            check_names(&root)?;
            if make_parameters(&root)? {
                options.observer.tell(&Event::ParametersRecreated { path: dir });
            }
        } else {
            make(&root, &options.clock)?;
            is_new = true;
        }
    }
    if options.read_only {
        check_parameters(&root)?;
        return Ok((root, false));
    }
    // Before the parameters are read: another user's may not be readable. Mended when they are known to be a store's.
    let survey = permissions::Survey::of(&root)?;
    check_parameters(&root)?;
    if options.keep_modes && !is_new {
        survey.check(&root)?;
    } else {
        survey.mend(&root, is_there.then_some(&options.observer))?;
    }
    let were_missing = check_shards(&root, options)?;
    Ok((root, were_missing))
}

/// Makes the store again, in the directory of an open one, if it is gone with its parameters. Whether this process did it, and
/// not another one at the same time.
///
/// The lock of the root need not be exclusive: as with a new store, several processes may make it at once.
pub(super) fn make_again(root: &Root, options: &FileStoreOptions) -> Result<bool> {
    make(root, &options.clock)
}

/// Refuses a directory that has no parameters, or those of something else.
fn check_parameters(root: &Root) -> Result<()> {
    if read_parameters(root)? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Io, "read the parameters of session store")
        .with_path(root.path().join(PARAMETERS))
        .with_reason("the file vanished while the store was opened"))
}

/// Whether something has the name of the parameters.
pub(super) fn has_parameters(root: &Root) -> Result<bool> {
    match root.stat(PARAMETERS) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("look for the parameters of session store", error)
            .with_path(root.path().join(PARAMETERS))),
    }
}

/// Reads `sessile.json` and checks the format. Returns whether the file is there.
pub(super) fn read_parameters(root: &Root) -> Result<bool> {
    const ACT: &str = "read the parameters of session store";
    let path = || root.path().join(PARAMETERS);
    let error = |kind| Error::new(kind, ACT).with_path(path());
    let file = match root.open_file(PARAMETERS) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(cause) => return Err(io_error(ACT, cause).with_path(path())),
    };
    let text = disk::read_at(&file, 0, PARAMETERS_BYTES_MAX)
        .map_err(|cause| io_error(ACT, cause).with_path(path()))?;
    // The format alone first: a newer one may have other parameters.
    let any: serde_json::Value = serde_json::from_slice(&text).map_err(|cause| {
        error(ErrorKind::NotASessionStore).with_reason(repair::NO_JSON).with_source(cause)
    })?;
    match any.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format > FORMAT.into() => Err(error(ErrorKind::NewerFormat)
            .with_reason(format!("the store has format {format}, this version knows {FORMAT}"))),
        _ if serde_json::from_value::<Parameters>(any).is_ok_and(|found| found == Parameters::ours()) => {
            Ok(true)
        }
        _ => {
            Err(error(ErrorKind::NotASessionStore)
                .with_reason("these are not the parameters of a session store"))
        }
    }
}

/// Makes the store in a directory that has none. Whether its parameters were put there by this call.
fn make(root: &Root, clock: &Clock) -> Result<bool> {
    check_names(root)?;
    make_shards(root)?;
    expiry_index::create(root, clock.now())?;
    make_parameters(root)
}

/// Refuses a directory that holds something else.
pub(super) fn check_names(root: &Root) -> Result<()> {
    let dir = root.path();
    let io = |act| move |error| directory_error(act, dir, error);
    let names = root.names().map_err(io("list session directory"))?;
    // A fresh file system has `lost+found` in its root.
    let foreign = |name: &&String| !matches!(name.as_str(), "." | ".." | "lost+found") && !is_ours(name);
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

/// Makes the parameters file, when all that it stands for is on the disk. Whether it was put there by this call.
pub(super) fn make_parameters(root: &Root) -> Result<bool> {
    let dir = root.path();
    let io = |act| move |error| directory_error(act, dir, error);
    root.sync().map_err(io("sync session directory"))?;
    // Before the parameters: where they are, the directory's own name is known to be on the disk.
    root.sync_name().map_err(io("sync the parent of session directory"))?;
    let json = serde_json::to_string(&Parameters::ours()).expect("a struct of integers and a string");
    let temporary = disk::temporary_name()?;
    let put = root.open_directory(".").and_then(|root| {
        root.put(&temporary, PARAMETERS, Taken::Kept, |file| {
            disk::write_at(file, format!("{json}\n").as_bytes(), 0)?;
            disk::sync_data(file)
        })
    });
    // If another process was first, what it put there is read back; it may not have come to its sync.
    let is_put = put.map_err(io("write the parameters of session store"))?;
    root.sync().map_err(io("sync session directory"))?;
    Ok(is_put)
}

pub(super) fn make_shard(root: &Root, name: &str) -> Result<()> {
    root.make_directory(name)
        .map_err(|error| io_error("make shard directory", error).with_path(root.path().join(name)))
}

/// Makes shards again that are missing, and says so: some backups leave empty directories out. The parameters are there, so the
/// disk of the store is. Without leave to make anything, it is an error. Whether some were missing.
fn check_shards(root: &Root, options: &FileStoreOptions) -> Result<bool> {
    let mut missing = Vec::new();
    for shard in 0..SHARDS {
        let name = shard_name(shard);
        match root.check_directory(&name) {
            Err(error) if options.create && error.kind() == io::ErrorKind::NotFound => {
                make_shard(root, &name)?;
                missing.push(name);
            }
            found => found.map_err(|error| {
                let is_lost = error.kind() == io::ErrorKind::NotFound;
                let error = io_error("open shard directory", error).with_path(root.path().join(&name));
                if is_lost { error.with_reason(repair::LOST_SHARD) } else { error }
            })?,
        }
    }
    if !missing.is_empty() {
        root.sync().map_err(|error| directory_error("sync session directory", root.path(), error))?;
        options.observer.tell(&Event::ShardsRecreated { path: root.path(), shards: &missing });
    }
    Ok(!missing.is_empty())
}
