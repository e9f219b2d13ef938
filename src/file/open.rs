//! Opening: makes the store if there is none, refuses what is not a store of ours, and says to the others that it is
//! in use.
//!
//! The order of making is what lets several processes do it at once, and what a power cut cannot spoil: directory,
//! shards, sync, and last the parameters file, linked under its name when it is complete and never replaced. Whoever
//! loses the race reads what the winner linked.
use super::disk::{self, Root};
use super::generations::Generations;
use super::io_error;
use super::layout::{DUE, PARAMETERS, SHARDS, is_ours, shard_name};
use super::lock::LockedRoot;
use super::options::{Coherence, FileStoreOptions};
use super::permissions;
use super::repair;
use super::sweep;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
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
    file_id: String,
}

const FORMAT: u32 = 1;
/// Longest parameters file that is read.
const PARAMETERS_BYTES_MAX: usize = 4096;

impl Parameters {
    fn ours() -> Self {
        Self { format: FORMAT, shards: SHARDS, file_id: "blake3-160".into() }
    }
}

/// Says how a store is used, for as long as it is open, and finds its counters or makes them.
///
/// The lock is shared, and exclusive for [`Coherence::Off`]. The counters are made, or made anew if their file has another
/// size than it should, only by somebody who has the root to himself: whoever has the file mapped would not hear those
/// who have another one.
///
/// A store that is only read has counters of its own, which nothing moves: it asks the files.
pub(super) fn announce_use(root: &Root, options: &FileStoreOptions) -> Result<(LockedRoot, Generations)> {
    const ACT: &str = "lock session directory";
    let (coherence, wait) = (options.coherence, options.lock_wait);
    let io = |error| io_error(ACT, error).with_path(root.path());
    let in_use = |reason| {
        Error::new(ErrorKind::InUse, "open session store").with_path(root.path()).with_reason(reason)
    };
    let deadline = Instant::now() + wait;
    if coherence == Coherence::Off {
        let locked = LockedRoot::acquire(root.directory().map_err(io)?, deadline).map_err(io)?;
        let lock =
            locked.ok_or_else(|| in_use("with Coherence::Off it is for one process, and another uses it"))?;
        return Ok((lock, Generations::own()?));
    }
    loop {
        let locked = LockedRoot::share(root.directory().map_err(io)?, deadline).map_err(io)?;
        let lock = locked.ok_or_else(|| in_use("another process has it to itself, with Coherence::Off"))?;
        if options.read_only {
            return Ok((lock, Generations::own()?));
        }
        if let Some(generations) = Generations::open(root, coherence == Coherence::Shared)? {
            return Ok((lock, generations));
        }
        // Given back first: a lock that is converted in place may be lost on the way.
        drop(lock);
        match LockedRoot::acquire(root.directory().map_err(io)?, Instant::now()).map_err(io)? {
            // Perhaps somebody has just made them.
            Some(_alone) if Generations::open(root, false)?.is_some() => {}
            Some(_alone) => Generations::make(root)?,
            None if Instant::now() > deadline => {
                return Err(in_use(
                    "its file of generations is missing or damaged, and other processes use it",
                ));
            }
            None => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Where processes cannot hear each other through memory, a store that is to be coherent through memory keeps no copies at
/// all. The name of such a file system.
///
/// It announces all the same: on the host of a virtual machine, others may use the directory through memory.
pub(super) fn go_without_copies(root: &Root, options: &mut FileStoreOptions) -> Option<&'static str> {
    let name = root.remote_file_system().filter(|_| options.coherence == Coherence::Shared)?;
    options.coherence = Coherence::Verify;
    options.cache_bytes = 0;
    Some(name)
}

/// What the operating system said about the directory itself. A link in its path is followed, so nothing there is foreign.
pub(super) fn directory_error(act: &'static str, dir: &Path, error: io::Error) -> Error {
    // By its kind: `tempfile` wraps what the operating system said.
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Io,
    };
    Error::new(kind, act).with_path(dir).with_source(error)
}

/// Opens the store in `dir`, making it if need be.
pub(super) fn open_root(dir: &Path, options: &FileStoreOptions) -> Result<Root> {
    let io = |act| move |error| directory_error(act, dir, error);
    let creates = options.create && !options.read_only;
    if creates && disk::make_root(dir).map_err(io("create session directory"))? {
        disk::set_mode_of_root(dir, options.sharing)
            .map_err(io("set the permissions of session directory"))?;
    }
    let root = Root::open(dir).map_err(io("open session directory"))?.shared_with(options.sharing);
    if options.without_parameters {
        return Ok(root);
    }
    let is_there = has_parameters(&root)?;
    if !is_there {
        let has_sessions = repair::has_sessions(&root)?;
        if !creates {
            let reason = if has_sessions { repair::REMEDY } else { "there is no session store in it" };
            return Err(Error::new(ErrorKind::Foreign, "open session store")
                .with_path(dir)
                .with_reason(reason));
        }
        permissions::check_place(&root)?;
        if has_sessions {
            repair::check_formats(dir)?;
            check_names(&root)?;
            make_parameters(&root)?;
        } else {
            make(&root, &options.clock)?;
        }
    }
    if options.read_only {
        check_parameters(&root)?;
        return Ok(root);
    }
    // Before the parameters are read: another user's may not be readable. Mended when they are known to be a store's.
    let survey = permissions::Survey::of(&root)?;
    check_parameters(&root)?;
    survey.mend(&root, is_there.then_some(&options.observer))?;
    check_shards(&root)?;
    Ok(root)
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
fn has_parameters(root: &Root) -> Result<bool> {
    match root.stat(PARAMETERS) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("look for the parameters of session store", error)
            .with_path(root.path().join(PARAMETERS))),
    }
}

/// Reads `sessile.json`. Whether it is there.
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
    let any: serde_json::Value =
        serde_json::from_slice(&text).map_err(|cause| error(ErrorKind::Foreign).with_source(cause))?;
    match any.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format > FORMAT.into() => Err(error(ErrorKind::NewerFormat)
            .with_reason(format!("the store has format {format}, this version knows {FORMAT}"))),
        _ if serde_json::from_value::<Parameters>(any).is_ok_and(|found| found == Parameters::ours()) => {
            Ok(true)
        }
        _ => Err(error(ErrorKind::Foreign).with_reason("these are not the parameters of a session store")),
    }
}

/// Makes the store in a directory that has none.
fn make(root: &Root, clock: &Clock) -> Result<()> {
    check_names(root)?;
    let dir = root.path();
    make_shards(root)?;
    sweep::make_index(root, clock.now())
        .map_err(|error| io_error("make expiry index", error).with_path(dir.join(DUE)))?;
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
        return Err(Error::new(ErrorKind::Foreign, "make a session store in").with_path(dir).with_reason(
            format!("it holds something else (`{name}`); give the store a directory of its own"),
        ));
    }
    Ok(())
}

/// Makes the shards that are missing.
pub(super) fn make_shards(root: &Root) -> Result<()> {
    for shard in 0..SHARDS {
        let name = shard_name(shard);
        root.make_directory(&name)
            .map_err(|error| io_error("make shard directory", error).with_path(root.path().join(name)))?;
    }
    Ok(())
}

/// Makes the parameters file, when all that it stands for is on the disk.
pub(super) fn make_parameters(root: &Root) -> Result<()> {
    let dir = root.path();
    let io = |act| move |error| directory_error(act, dir, error);
    root.sync().map_err(io("sync session directory"))?;
    // Before the parameters: where they are, the directory's own name is known to be on the disk.
    root.sync_name().map_err(io("sync the parent of session directory"))?;
    let json = serde_json::to_string(&Parameters::ours()).expect("a struct of integers and a string");
    let linked = root.put_new(PARAMETERS, format!("{json}\n").as_bytes());
    // If another process was first, what it linked is read back; it may not have come to its sync.
    linked.map_err(io("write the parameters of session store"))?;
    root.sync().map_err(io("sync session directory"))
}

/// A store without one of its shards is a disk that is not mounted, or damage: not a place to log everybody out.
fn check_shards(root: &Root) -> Result<()> {
    for shard in 0..SHARDS {
        let name = shard_name(shard);
        root.check_directory(&name)
            .map_err(|error| io_error("open shard directory", error).with_path(root.path().join(&name)))?;
    }
    Ok(())
}
