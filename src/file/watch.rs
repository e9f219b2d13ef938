//! Changes made by hand: a session's file that is removed or replaced, and not by this library, is announced here.
//!
//! One thread, notify's, hears of names that come and go in the 256 shard directories, and turns them into
//! announcements (`generations`). It is not asked for openings and writes in place, which would cost every load and
//! every save. A file that is written *into* by hand is therefore not noticed.
//!
//! Our own acts announce themselves, and are not to come back as news:
//!
//! | act | events | taken as |
//! |---|---|---|
//! | save | none | |
//! | create | create | nothing: nobody has a copy of what was not there |
//! | grow | create of `.new-…`, its exchange with the session's file, remove of `.new-…` | nothing, see [`Exchanges`] |
//! | delete, rotate, sweep | remove | news, once more than needed: it costs 0.5 µs |
//!
//! Nothing here is needed for correctness among users of the library. Events may be late, or be lost: when the kernel's
//! queue overflows, everything is announced; when a shard directory itself is moved or removed, all of that shard. (A new
//! directory in its place is not watched.)
use super::disk::Root;
use super::generations::{Generations, News};
use super::layout::{SHARDS, TEMPORARY, session_at, shard_name, shard_named};
use crate::error::{Error, ErrorKind, Result};
use crate::id::FileId;
use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{Config, Event, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Watches until it is dropped; its thread ends soon after.
pub(super) struct Watcher {
    _watcher: RecommendedWatcher,
}

impl Watcher {
    /// Starts to watch the shards.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if the user has no inotify instance or watches left, or the system has none.
    pub(super) fn start(root: &Root, generations: Arc<Generations>) -> Result<Self> {
        const ACT: &str = "watch session directory";
        let error = |cause: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Io, ACT)
                .with_path(root.path())
                .with_reason("changes made by hand are noticed within a minute instead of at once")
                .with_source(cause)
        };
        let path = std::path::absolute(root.path()).map_err(|cause| error(cause.into()))?;
        let mut exchanges = Exchanges::default();
        let hear = move |event: notify::Result<Event>| {
            // What cannot be told is told by the next act on the session, or when the copies' time is over.
            let _ = match exchanges.news_of(event) {
                Heard::Nothing => Ok(()),
                Heard::Of(id) => generations.announce(&id, News::Ended).map(drop),
                Heard::OfShard(shard) => generations.announce_shard(shard),
                Heard::Anything => (0..SHARDS).try_for_each(|shard| generations.announce_shard(shard)),
            };
        };
        // Names that come, names that go, names that change.
        let kinds = EventKindMask::CREATE | EventKindMask::REMOVE | EventKindMask::MODIFY_NAME;
        let config = Config::default().with_event_kinds(kinds).with_follow_symlinks(false);
        let mut watcher = RecommendedWatcher::new(hear, config).map_err(|cause| error(cause.into()))?;
        for shard in 0..SHARDS {
            watcher
                .watch(&path.join(shard_name(shard)), RecursiveMode::NonRecursive)
                .map_err(|cause| error(cause.into()))?;
        }
        Ok(Self { _watcher: watcher })
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}

/// What an event says.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    /// This session may have ended, or have been replaced.
    Of(FileId),
    /// Any session of this shard may have.
    OfShard(u16),
    /// Anything may have happened.
    Anything,
}

/// Tells a session's file that this library replaced from one that somebody replaced by hand.
///
/// A save that grows exchanges two names, which the kernel reports as four events: from `.new-…`, to the session's name,
/// from the session's name, to `.new-…`. Where other events come in between, the exchange is taken for a change by hand.
#[derive(Debug, Default)]
struct Exchanges {
    /// The event before was: from `.new-…`, in a rename with this number.
    ours: Option<usize>,
    /// The event before was: to this name, from `.new-…`.
    replaced: Option<PathBuf>,
}

impl Exchanges {
    fn news_of(&mut self, event: notify::Result<Event>) -> Heard {
        let Ok(event) = event else { return Heard::Anything };
        if event.need_rescan() {
            return Heard::Anything;
        }
        let Some(path) = event.paths.first() else { return Heard::Nothing };
        let (ours, replaced) = (self.ours, self.replaced.take());
        match event.kind {
            EventKind::Create(_) => Heard::Nothing,
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
                self.ours = event.tracker().filter(|_| is_temporary(path));
                if replaced.as_ref() == Some(path) { Heard::Nothing } else { changed(path) }
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                if ours.is_none() || event.tracker() != ours {
                    return changed(path);
                }
                self.replaced = Some(path.clone());
                Heard::Nothing
            }
            // A repetition of the two before it.
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {
                self.replaced = replaced;
                Heard::Nothing
            }
            EventKind::Remove(_) => changed(path),
            _ => Heard::Anything,
        }
    }
}

/// What it means that this name came or went.
fn changed(path: &Path) -> Heard {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let (Some(file), Some(parent)) = (name(path), path.parent().and_then(name)) else {
        return Heard::Nothing;
    };
    match session_at(&parent, &file) {
        Some(id) => Heard::Of(id),
        // Perhaps the shard itself.
        None => shard_named(&file).map_or(Heard::Nothing, Heard::OfShard),
    }
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY))
}
