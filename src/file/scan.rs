//! Reads every file in a store's directory, for sweeps and for administration.
//!
//! Takes no locks and changes no file. A scan beside live servers returns each session that exists from its beginning
//! to its end. A session that is created, removed or rotated meanwhile may be returned or not.
use super::FileStore;
use super::disk::{Directory, Stat};
use super::errors::io_error;
use super::layout::{
    CACHE_TAG, CUT_OFFS, DAMAGED, DUE, GENERATIONS, INDEX, PARAMETERS, RUN, SHARDS, SWEEP, USER_INDEX, USERS,
    bucket_named, ending_at, is_of_user_index, is_shard, is_temporary, session_at, shard_name,
};
use super::session_lock::SessionRef;
use super::slots::View;
use crate::admin::{Cursor, ScanPage, Scanned};
use crate::error::{Error, ErrorKind, Result};
use crate::id::PublicId;
use crate::store::{Live, Moved};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

/// One file of a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScannedFile {
    /// The path of the file.
    pub path: PathBuf,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// The content of the file.
    pub content: Content,
    /// The time of the last write, in seconds since 1970, by the file system's clock.
    pub(super) changed: i64,
}

/// The content of a file of a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Content {
    /// A session.
    Live(Live),
    /// A session whose deadline is reached.
    Expired(Live),
    /// The mark of a session that has moved to another id.
    Moved(Moved),
    /// A session that a cut-off has ended ([`delete_of`](crate::store::Store::delete_of),
    /// [`delete_all`](crate::store::Store::delete_all)); a sweep removes it.
    CutOff(Live),
    /// Bytes in a session's place that fail their checks.
    Damaged(PublicId),
    /// An interrupted creation or deletion of a session; a session that is being created is in this state for a moment.
    Unfinished(PublicId),
    /// A file under a temporary name, of a running operation or of a process that was killed.
    Temporary,
    /// A link, pipe, directory or device in a session's place. Only [`quarantine`](FileStore::quarantine) touches it.
    Foreign(PublicId),
    /// A session that a newer version of this crate wrote. It is never changed.
    Newer(PublicId),
    /// A session that an earlier version of this crate wrote, in a format of its own. It is never changed.
    Older(PublicId),
    /// A file that is not this crate's. It is never changed.
    Unknown,
}

/// An iterator over all files in a store's directory; see [`FileStore::files`].
pub struct Scan<'a> {
    store: &'a FileStore,
    /// The number of the next shard to list.
    shard: u16,
    /// The current shard, and the names in it that were not read yet.
    open: Option<(String, Directory, VecDeque<String>)>,
    /// The files beside the shards that do not belong there.
    strays: VecDeque<Result<ScannedFile>>,
}

#[expect(clippy::cast_possible_truncation, reason = "there are at most 256 shards")]
const LAST_SHARD: u8 = (SHARDS - 1) as u8;

/// The greatest id that a shard can have.
fn last_id_of(shard: u8) -> PublicId {
    let mut bytes = [0xff; PublicId::LEN];
    bytes[0] = shard;
    PublicId::from_bytes(bytes)
}

impl FileStore {
    /// Scans all files of the store: first the foreign files beside the shards, then shard by shard. An error concerns
    /// one file or one directory; the scan continues after it.
    pub fn files(&self) -> Scan<'_> {
        Scan { store: self, shard: 0, open: None, strays: self.strays(true).into() }
    }

    /// A page of a scan in the order of the ids; see [`Admin::scan`](crate::Admin::scan).
    pub(super) fn scan_page(&self, from: Option<&Cursor>, limit: usize) -> Result<ScanPage> {
        self.queues.check_process()?;
        let after = from.map(Cursor::to_id).transpose()?;
        let mut page = ScanPage::default();
        let is_full = |page: &ScanPage| page.sessions.len() + page.failures.len() >= limit.max(1);
        let first = after.map_or(0, |id| id.as_bytes()[0]);
        for number in first..=LAST_SHARD {
            // A cursor after the last id of a shard tells that nothing of the shard is left. (If it cannot be listed,
            // the next page must not begin with it again.)
            let last = last_id_of(number);
            if after == Some(last) {
                continue;
            }
            if is_full(&page) {
                return Ok(page);
            }
            let shard = shard_name(number.into());
            let (directory, names) = match self.list_shard(&shard) {
                Ok(listed) => listed,
                Err(error) => {
                    page.failures.push(error);
                    page.next = Some(Cursor::after(&last));
                    continue;
                }
            };
            let mut found: Vec<_> =
                names.iter().filter_map(|name| Some((session_at(&shard, name)?, name))).collect();
            found.retain(|(id, _)| after.is_none_or(|after| *id > after));
            found.sort_unstable();
            for (id, name) in found {
                if is_full(&page) {
                    return Ok(page);
                }
                match self.file_at(&shard, &directory, name) {
                    Ok(file) => Self::add_scanned(file, &mut page),
                    Err(error) => page.failures.push(error),
                }
                page.next = Some(Cursor::after(&id));
            }
        }
        page.next = None;
        Ok(page)
    }

    /// Adds a file to a page, if it has a session, or is in a session's place and cannot be read.
    fn add_scanned(file: Option<ScannedFile>, page: &mut ScanPage) {
        let Some(ScannedFile { path, content, .. }) = file else { return };
        page.sessions.push(match content {
            Content::Live(live) => Scanned::Live(live),
            Content::Expired(live) => Scanned::Expired(live),
            Content::CutOff(live) => Scanned::CutOff(live),
            Content::Moved(moved) => Scanned::Moved(moved),
            Content::Damaged(id) => Scanned::Damaged(id),
            Content::Newer(id) => {
                return page.failures.push(unread(
                    &id,
                    ErrorKind::NewerFormat,
                    "a newer version of sessile wrote it",
                ));
            }
            Content::Older(id) => {
                let reason = "an earlier version of sessile wrote it";
                return page.failures.push(unread(&id, ErrorKind::OlderFormat, reason));
            }
            Content::Foreign(id) => {
                let reason = format!("`{}` is not a file", path.display());
                return page.failures.push(unread(&id, ErrorKind::NotASessionFile, reason));
            }
            Content::Unfinished(_) | Content::Temporary | Content::Unknown => return,
        });
    }

    /// The number of files with names of sessions.
    pub(super) fn count_names(&self) -> Result<u64> {
        let mut count = 0;
        for shard in (0..SHARDS).map(shard_name) {
            let (_, names) = self.list_shard(&shard)?;
            count += names.iter().filter(|name| session_at(&shard, name).is_some()).count() as u64;
        }
        Ok(count)
    }

    /// The number of shards. With [`Scan::shards_begun`], it shows the progress of a scan.
    #[must_use]
    pub fn shards(&self) -> u16 {
        SHARDS
    }

    /// The files beside the shards that do not belong there, and an error for each directory that cannot be listed.
    /// With `examines`, files under the store's own names are examined as well, and those of the wrong kind are
    /// returned.
    pub(super) fn strays(&self, examines: bool) -> Vec<Result<ScannedFile>> {
        let stray = |path: String, is_named_ours: bool| {
            let stat = self.root.stat_with_times(&path).ok();
            let is_ours = is_named_ours && stat.is_some_and(|stat| stat.is_file);
            let content = if is_ours { Content::Temporary } else { Content::Unknown };
            ScannedFile {
                path: self.root.path().join(path),
                bytes: stat.map_or(0, |stat| stat.bytes),
                content,
                changed: stat.map_or(i64::MAX, |stat| stat.changed),
            }
        };
        // A file under a name of the store is in order if it is of the right kind. If `run`, the index or a shard is of
        // another kind, listing it fails, and that is the error.
        let unless = |path: &str, is_ours: fn(Stat) -> bool| match self.root.stat(path) {
            Ok(stat) if is_ours(stat) => None,
            Ok(_) => Some(Ok(stray(path.to_owned(), false))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Err(self.root.error_at("examine file", path, error))),
        };
        let unless_file = |path: &str| if examines { unless(path, |stat| stat.is_file) } else { None };
        let (in_root, root_error) = self.names_or_error(".", self.root.names());
        let in_root = in_root.into_iter().filter_map(|name| match &*name {
            "lost+found" => None,
            _ if is_temporary(&name) => Some(Ok(stray(name, true))),
            _ if is_shard(&name) || name == RUN => None,
            PARAMETERS | CUT_OFFS => unless_file(&name),
            DAMAGED if examines => unless(DAMAGED, |stat| stat.is_directory),
            DAMAGED => None,
            _ => Some(Ok(stray(name, false))),
        });
        let index = self.root.open_directory(DUE).and_then(|index| index.names());
        let (in_index, index_error) = self.names_or_error(DUE, index);
        let in_index = in_index.into_iter().filter_map(|name| {
            let path = format!("{DUE}/{name}");
            match &*name {
                _ if name == SWEEP || bucket_named(&name).is_some() => unless_file(&path),
                _ => Some(Ok(stray(path, false))),
            }
        });
        let run = self.root.open_directory(RUN).and_then(|run| run.names());
        let (in_run, run_error) = self.names_or_error(RUN, run);
        let in_run = in_run.into_iter().filter_map(|name| match &*name {
            INDEX | USER_INDEX => None,
            CACHE_TAG | GENERATIONS => unless_file(&format!("{RUN}/{name}")),
            _ => Some(Ok(stray(format!("{RUN}/{name}"), is_temporary(&name)))),
        });
        let users = self.root.open_directory(USERS).and_then(|users| users.names());
        let (in_users, users_error) = self.names_or_error(USERS, users);
        let in_users = in_users.into_iter().filter_map(|name| match format!("{USERS}/{name}") {
            path if is_of_user_index(&name) => unless_file(&path),
            path => Some(Ok(stray(path, is_temporary(&name)))),
        });
        let errors = root_error.into_iter().chain(run_error).chain(index_error).chain(users_error).map(Err);
        in_root.chain(in_run).chain(in_index).chain(in_users).chain(errors).collect()
    }

    /// The names in a directory beside the shards. On an error, no names, and the error. A missing directory counts as
    /// empty, because it is recreated when it is needed.
    fn names_or_error(
        &self,
        directory: &str,
        names: io::Result<Vec<String>>,
    ) -> (Vec<String>, Option<Error>) {
        match names {
            Ok(names) => (names, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), None),
            Err(error) => (Vec::new(), Some(self.root.error_at("list directory", directory, error))),
        }
    }

    /// Opens a shard and lists its names.
    pub(super) fn list_shard(&self, shard: &str) -> Result<(Directory, Vec<String>)> {
        let error = |operation| {
            let path = self.root.path().join(shard);
            move |error| io_error(operation, error).with_path(path)
        };
        self.queues.check_process()?;
        let directory = match self.root.open_directory(shard) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => self.open_missing_shard(shard)?,
            opened => opened.map_err(error("open shard directory"))?,
        };
        let names = directory.names().map_err(error("list shard directory"))?;
        Ok((directory, names))
    }

    /// Reads the file with this name in a shard; `None` if it was removed meanwhile.
    pub(super) fn file_at(
        &self,
        shard: &str,
        directory: &Directory,
        name: &str,
    ) -> Result<Option<ScannedFile>> {
        let path = self.root.path().join(shard).join(name);
        let stat = match directory.stat_with_times(name) {
            Ok(stat) => stat,
            // The listing has replaced bytes that are not UTF-8, so the file is not found by this name. No file of this
            // crate has such a name.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.contains('\u{fffd}') => {
                return Ok(Some(ScannedFile {
                    path,
                    bytes: 0,
                    content: Content::Unknown,
                    changed: i64::MAX,
                }));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("examine file", error).with_path(path)),
        };
        let content = match session_at(shard, name) {
            Some(id) if !stat.is_file => Content::Foreign(id),
            Some(id) => match self.read(SessionRef::PublicId(id), &id, None) {
                Ok(None) => return Ok(None),
                Ok(Some(View::Valid { newest, .. })) => {
                    let live = Live { record: newest.record, id };
                    if self.is_expired(&live.record) {
                        Content::Expired(live)
                    } else if self.is_cut_off(&live.record, &id)? {
                        Content::CutOff(live)
                    } else {
                        Content::Live(live)
                    }
                }
                Ok(Some(View::Moved(moved))) => Content::Moved(moved.mark.to_moved(id)),
                Ok(Some(View::Damaged)) => Content::Damaged(id),
                Ok(Some(View::Empty)) => Content::Unfinished(id),
                Err(error) if error.kind() == ErrorKind::NewerFormat => Content::Newer(id),
                Err(error) if error.kind() == ErrorKind::OlderFormat => Content::Older(id),
                Err(error) if error.kind() == ErrorKind::NotASessionFile => Content::Foreign(id),
                Err(error) => return Err(error),
            },
            None if stat.is_file && (is_temporary(name) || ending_at(shard, name).is_some()) => {
                Content::Temporary
            }
            _ => Content::Unknown,
        };
        Ok(Some(ScannedFile { path, bytes: stat.bytes, content, changed: stat.changed }))
    }
}

fn unread(id: &PublicId, kind: ErrorKind, reason: impl Into<Cow<'static, str>>) -> Error {
    Error::new(kind, format!("read session {id}")).with_reason(reason)
}

impl Scan<'_> {
    /// The number of [`shards`](FileStore::shards) that this scan has begun.
    #[must_use]
    pub fn shards_begun(&self) -> u16 {
        self.shard
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<ScannedFile>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(stray) = self.strays.pop_front() {
                return Some(stray);
            }
            if let Some((shard, directory, names)) = &mut self.open {
                while let Some(name) = names.pop_front() {
                    if let Some(file) = self.store.file_at(shard, directory, &name).transpose() {
                        return Some(file);
                    }
                }
            }
            if self.shard == SHARDS {
                return None;
            }
            let shard = shard_name(self.shard);
            self.shard += 1;
            self.open = None;
            match self.store.list_shard(&shard) {
                Ok((directory, names)) => self.open = Some((shard, directory, names.into())),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
