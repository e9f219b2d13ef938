//! The user index: the sessions of each user, for lists and limits. It is a hint; the session's file is the authority.
//!
//! 4,096 buckets: append-only files that are made when they are needed. Their bytes are in
//! [`format`](crate::_documentation::format).
//!
//! - **Inserted before the session is created**, under its user's bucket: by a creation with a user, a rotation of a
//!   session with a user, and a save that sets another user. A session without a user costs nothing here.
//! - **Append-only.** Any number of processes append, each under the *shared* lock of the bucket until its session
//!   exists and the session that it replaces has ended. The exclusive lock is taken by compaction and by the count of a
//!   user's sessions (`login_limit`), which wait for no lock while they hold this one. So the shared lock has no place
//!   in the order of locks: it is taken under a session's lock and without.
//! - **A bucket loses its name before its successor can be appended to.** An appender examines the link count under the
//!   lock, and opens the name again if the file has lost it.
//! - **Best effort.** A failed insertion is counted and fails no operation. It makes the index incomplete (`marker`),
//!   and a sweep's walk of all sessions makes it complete again.
//! - **Every entry is checksummed.** Bytes that are no entry are skipped, and make the index incomplete; the walk
//!   writes the bucket anew.
//! - **Readers lock nothing**: a bucket that is compacted meanwhile has all the entries of sessions that existed when
//!   it was opened.
mod bucket;
mod compact;
mod marker;

#[cfg(all(test, not(shuttle)))]
pub(super) use bucket::ENTRY_BYTES;
pub(super) use bucket::{Digest, Entry, bucket_of};
pub(super) use marker::PendingMarker;

use super::disk::{self, Access, Root};
use super::flock::{self, LockedFile, SharedFile};
use super::layout::{USERS, user_bucket_name, user_bucket_named};
use super::run;
use crate::id::PublicId;
use crate::sync::Instant;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The most attempts to append one entry. Each retry means that the bucket was made or compacted in between.
const OPENINGS_MAX: u32 = 8;
/// The longest wait of an appender for the lock of a bucket: a compaction and a count take milliseconds, unless their
/// process is stopped.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// The index of one open store.
#[derive(Debug, Default)]
pub(super) struct UserIndex {
    failures: AtomicU64,
    /// Whether the marker must be removed, and could not be.
    is_marker_wrong: AtomicBool,
    /// The hour of the last walk of this process for a complete index, and one.
    walked: AtomicU64,
}

/// The sessions that the index lists for a user.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// In order, each once.
    pub(super) ids: Vec<PublicId>,
    /// Whether every live session of the user is among them.
    pub(super) is_complete: bool,
    /// Whether the marker says that the index is complete, and a part of the bucket is lost.
    pub(super) is_damaged: bool,
}

/// An entry whose session does not exist yet. Dropped when the session exists and the one that it replaces has ended,
/// or when its creation has failed.
#[must_use = "the bucket must stay locked until the session exists"]
#[derive(Debug)]
pub(super) struct Insertion<'a> {
    index: &'a UserIndex,
    root: &'a Root,
    /// The bucket under its shared lock; `None` if the entry could not be appended.
    lock: Option<SharedFile<File>>,
    /// The bucket that is to be compacted.
    compacts: Option<u16>,
}

impl Drop for Insertion<'_> {
    fn drop(&mut self) {
        let is_listed = self.lock.take().is_some();
        if std::thread::panicking() {
            return;
        }
        if !is_listed {
            // A walk that began before the session existed may have passed its shard.
            self.index.set_incomplete(self.root);
        }
        if let Some(bucket) = self.compacts {
            // A failure is ignored: the next appender that finds it due tries again.
            let _ = compact::compact(self.root, bucket, false, Instant::now());
        }
    }
}

impl UserIndex {
    /// Inserts a session, before it is created. A failure is counted, and makes the index incomplete.
    pub(super) fn insert<'a>(&'a self, root: &'a Root, digest: &Digest, id: PublicId) -> Insertion<'a> {
        if self.is_marker_wrong.load(Ordering::SeqCst) {
            self.set_incomplete(root);
        }
        let bucket = bucket_of(digest);
        if let Ok((lock, is_due)) = append(self, root, bucket, Entry::new(digest, id)) {
            return Insertion { index: self, root, lock: Some(lock), compacts: is_due.then_some(bucket) };
        }
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.set_incomplete(root);
        Insertion { index: self, root, lock: None, compacts: None }
    }

    /// Locks a user's bucket exclusively, and makes it if it is missing; `None` at the deadline. Until it is dropped,
    /// no session of the bucket's users is being created or rotated. The holder waits for no lock.
    pub(super) fn pause(
        &self,
        root: &Root,
        digest: &Digest,
        deadline: Instant,
    ) -> io::Result<Option<LockedFile>> {
        loop {
            if let Some(file) = open_bucket(self, root, bucket_of(digest), deadline)? {
                let Ok(file) = LockedFile::acquire(file, deadline)? else { return Ok(None) };
                // Compaction may have replaced the file, which then has lost its name.
                if disk::stat(&file)?.links > 0 {
                    return Ok(Some(file));
                }
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
        }
    }

    /// Failed insertions since the store was opened.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Removes the marker of a complete index. If that fails, this process tries again with its next
    /// insertion and its next list.
    pub(super) fn set_incomplete(&self, root: &Root) {
        self.is_marker_wrong.store(marker::remove(root).is_err(), Ordering::SeqCst);
    }

    /// Whether the index lists every live session of every user.
    pub(super) fn is_complete(&self, root: &Root) -> io::Result<bool> {
        if self.is_marker_wrong.load(Ordering::SeqCst) {
            self.set_incomplete(root);
            return Ok(false);
        }
        match root.open_directory(USERS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            opened => marker::is_complete(&opened?),
        }
    }

    /// The sessions that are listed for a user. Some of them may have ended, or be another user's.
    pub(super) fn find(&self, root: &Root, digest: &Digest) -> io::Result<Listed> {
        // The marker is read first: an entry that fails from now on is that of a session that is created from now on.
        let is_marked = self.is_complete(root)?;
        let index = match root.open_directory(USERS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Listed::default()),
            opened => opened?,
        };
        let bucket = bucket_of(digest);
        // Read before the bucket is opened, because it is set after the bucket was made.
        let is_made = if is_marked { marker::is_made(&index, bucket)? } else { None };
        let (bytes, is_there) = match index.open_named(&user_bucket_name(bucket), Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), false),
            opened => (compact::read(&opened?)?, true),
        };
        let (entries, is_sound) = bucket::parse(&bytes);
        let tag = bucket::tag_of(digest);
        let mut ids: Vec<_> =
            entries.into_iter().filter(|entry| entry.tag == tag).map(|entry| entry.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let is_lost = is_made.is_none() || is_made == Some(true) && !is_there;
        let is_complete = is_marked && is_sound && !is_lost;
        Ok(Listed { ids, is_complete, is_damaged: is_marked && !is_complete })
    }

    /// Appends the entries that a bucket lacks, and writes it anew if it is damaged.
    pub(super) fn repair(&self, root: &Root, bucket: u16, entries: &[Entry]) -> io::Result<()> {
        let index = root.open_directory(USERS)?;
        let (mut there, is_sound) = match index.open_named(&user_bucket_name(bucket), Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && entries.is_empty() => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // If the bucket was there and is lost, the walk that is running restores its entries.
                marker::remove_published(root)?;
                marker::make_bucket(root, &index, bucket, Instant::now() + LOCK_WAIT)?;
                (Vec::new(), true)
            }
            opened => bucket::parse(&compact::read(&opened?)?),
        };
        there.sort_unstable();
        for entry in entries {
            if there.binary_search(entry).is_err() {
                append(self, root, bucket, *entry)?;
            }
        }
        if !is_sound && !compact::compact(root, bucket, true, Instant::now() + LOCK_WAIT)? {
            return Err(io::Error::other("the bucket is locked"));
        }
        Ok(())
    }

    /// Repairs every bucket. `found` is sorted.
    pub(super) fn repair_all(&self, root: &Root, found: &[(u16, Entry)]) -> io::Result<()> {
        for (bucket, entries) in by_bucket(found, buckets(root)?) {
            self.repair(root, bucket, &entries)?;
        }
        Ok(())
    }

    /// Whether this process has not yet walked in this hour for a complete index. A walk that cannot complete it,
    /// because a file cannot be read, is not repeated by each sweep.
    pub(super) fn may_walk(&self, hour: u64) -> bool {
        self.walked.swap(hour.saturating_add(1), Ordering::Relaxed) != hour.saturating_add(1)
    }
}

/// Begins a walk that makes the index complete, before any session is read; `None` if it cannot be complete here,
/// because the boot's id is unknown.
pub(super) fn begin_walk(root: &Root) -> io::Result<Option<PendingMarker>> {
    make_directory(root)?;
    PendingMarker::write(root)
}

/// Ends a walk that has read every session, and repaired every bucket. Returns whether the index is complete: not if an
/// insertion has failed meanwhile.
pub(super) fn finish_walk(root: &Root, pending: &PendingMarker) -> io::Result<bool> {
    marker::write_map(root, Instant::now() + LOCK_WAIT)?;
    pending.publish(root)
}

/// Compacts a bucket. Returns whether the bucket was written anew.
#[cfg(all(test, not(shuttle)))]
pub(super) fn compact_now(root: &Root, bucket: u16) -> io::Result<bool> {
    compact::compact(root, bucket, false, Instant::now())
}

/// The buckets that have a file.
pub(super) fn buckets(root: &Root) -> io::Result<Vec<u16>> {
    let names = match root.open_directory(USERS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?.names()?,
    };
    Ok(names.iter().filter_map(|name| user_bucket_named(name)).collect())
}

/// The entries of each bucket that has some, and of each other bucket in `all`, none. `found` is sorted.
pub(super) fn by_bucket(found: &[(u16, Entry)], all: Vec<u16>) -> impl Iterator<Item = (u16, Vec<Entry>)> {
    let mut buckets: Vec<u16> = found.iter().map(|(bucket, _)| *bucket).chain(all).collect();
    buckets.sort_unstable();
    buckets.dedup();
    let mut rest = found;
    buckets.into_iter().map(move |bucket| {
        let (of_bucket, others) = rest.split_at(rest.partition_point(|(of, _)| *of <= bucket));
        rest = others;
        (bucket, of_bucket.iter().map(|(_, entry)| *entry).collect())
    })
}

/// Appends an entry. Returns the bucket under its shared lock, and whether it is due for compaction.
fn append(index: &UserIndex, root: &Root, bucket: u16, entry: Entry) -> io::Result<(SharedFile<File>, bool)> {
    let deadline = Instant::now() + LOCK_WAIT;
    for _ in 0..OPENINGS_MAX {
        let Some(file) = open_bucket(index, root, bucket, deadline)? else { continue };
        let Some(file) = flock::share(file, deadline)? else { return Err(io::ErrorKind::TimedOut.into()) };
        let stat = disk::stat(&file)?;
        if stat.links == 0 {
            continue;
        }
        root.sharing().repair_mode(&file, &stat)?;
        disk::append(&file, &entry.to_bytes())?;
        return Ok((file, compact::is_due(stat.bytes)));
    }
    Err(io::Error::other("the bucket was replaced again and again"))
}

/// Opens a bucket; makes it and returns `None` if it is missing.
fn open_bucket(index: &UserIndex, root: &Root, bucket: u16, deadline: Instant) -> io::Result<Option<File>> {
    match root.open_user_bucket(bucket, Access::AppendExisting) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened.map(Some),
    }
    let directory = match root.open_directory(USERS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directory(root)?;
            root.open_directory(USERS)?
        }
        opened => opened?,
    };
    match directory.open_named(&user_bucket_name(bucket), Access::AppendExisting) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if marker::make_bucket(root, &directory, bucket, deadline)? {
                index.set_incomplete(root);
            }
            Ok(None)
        }
        opened => opened.map(Some),
    }
}

/// Makes the directory of the index, below `run`.
pub(super) fn make_directory(root: &Root) -> io::Result<()> {
    run::make(root)?;
    root.make_directory(USERS)
}
