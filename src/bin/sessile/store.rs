//! The store that a verb works on: a directory, or any other place that has a URL.
use crate::terminal::{Progress, error_chain, spare_path, warn};
use crate::{Access, Failure};
use sessile::admin::{Cursor, Scanned};
use sessile::store_url::StoreUrl;
use sessile::{Admin, Event, FileStore, FileStoreOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The sessions that one page of a scan has, about.
const PAGE: usize = 1000;

/// An open store, which programs may be using.
pub(crate) enum AnyStore {
    Files(Box<FileStore>),
    #[cfg(feature = "sqlite")]
    Sqlite(Box<sessile::database::SqliteStore>),
    Other(Arc<dyn Admin>),
}

impl AnyStore {
    /// Opens a store.
    pub(crate) fn open(place: &Path, access: Access) -> Result<Self, Failure> {
        let url = StoreUrl::parse(place)?;
        if let Some(dir) = url.path() {
            return Ok(Self::Files(Box::new(open_files(dir, access)?)));
        }
        #[cfg(feature = "sqlite")]
        if let Some(path) = url.sqlite_path() {
            return Ok(Self::Sqlite(Box::new(crate::database::open(path, access)?)));
        }
        Ok(Self::Other(url.open()?))
    }

    pub(crate) fn admin(&self) -> &dyn Admin {
        match self {
            Self::Files(store) => &**store,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(store) => &**store,
            Self::Other(store) => store,
        }
    }

    /// Reads all sessions after a cursor, page by page. Returns the number of sessions and directories that could not
    /// be read; each has a warning. `visit` returns whether the scan goes on after its page.
    pub(crate) fn scan(
        &self,
        mut from: Option<Cursor>,
        bar: &mut Progress,
        mut visit: impl FnMut(&Progress, Scanned) -> Result<bool, Failure>,
    ) -> Result<u64, Failure> {
        let (mut done, mut failed) = (0, 0);
        loop {
            let page = self.admin().scan(from.as_ref(), PAGE)?;
            for error in &page.failures {
                failed += 1;
                bar.warn(error_chain(error));
            }
            let mut goes_on = true;
            for found in page.sessions {
                done += 1;
                bar.at(done);
                goes_on &= visit(bar, found)?;
            }
            from = page.next.filter(|_| goes_on);
            if from.is_none() {
                return Ok(failed);
            }
        }
    }

    /// A bar for a scan of all sessions. If they cannot be counted, it shows no total.
    pub(crate) fn progress(&self) -> Progress {
        self.admin().count().map_or_else(|_| Progress::counting(), Progress::of)
    }
}

/// Opens a store of files with the highest limits, on any file system.
pub(crate) fn open_files(dir: &Path, access: Access) -> Result<FileStore, Failure> {
    spare_path(dir);
    let options = FileStoreOptions::new()
        .create(access == Access::Create)
        .read_only(access == Access::Read)
        .keep_modes(true)
        .cache_bytes(0)
        .watch(false)
        .record_bytes_max(16 << 20)
        .entries_max(1 << 16)
        .observer(|event| in_words(event).into_iter().for_each(warn));
    let opened = options.clone().open(dir)?;
    if access != Access::Create {
        return Ok(opened);
    }
    // If a store is emptied during an import, that is an error, and the store is not recreated. So it is opened again,
    // without the option to create it.
    drop(opened);
    Ok(options.create(false).open(dir)?)
}

/// The directory of a store of files; `None` for other stores.
pub(crate) fn directory(place: &Path) -> Result<Option<PathBuf>, Failure> {
    Ok(StoreUrl::parse(place)?.path().map(Path::to_owned))
}

/// Whether the store that was opened has lost its log of cut-offs.
static LOG_IS_LOST: AtomicBool = AtomicBool::new(false);

pub(crate) fn is_log_lost() -> bool {
    LOG_IS_LOST.load(Ordering::Relaxed)
}

/// The text of an event, for operators; `None` for the end of a session, which the verb itself has asked for.
pub(crate) fn in_words(event: &Event<'_>) -> Option<String> {
    Some(match event {
        Event::Ended { .. } => return None,
        Event::ShardsRecreated { path, shards } => format!(
            "session directory `{}` lacked shard directories, which were recreated: {}",
            path.display(),
            shards.join(", ")
        ),
        Event::ParametersRecreated { path } => format!(
            "session directory `{}` had sessions and no parameters file `sessile.json`, which was recreated",
            path.display()
        ),
        Event::CutOffsLost { path, reason } => {
            LOG_IS_LOST.store(true, Ordering::Relaxed);
            format!(
                "the log of cut-offs `{}` is lost: {reason}; no session with a user is found until it is restored from a backup, \
                 or all sessions are ended (`sessile delete --all`)",
                path.display()
            )
        }
        other => format!("{other:?}"),
    })
}
