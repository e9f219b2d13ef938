//! The user index: a walk inserts the sessions that it lacks, and a walk of all shards makes it complete.
use super::{ALL, Pass};
use crate::file::disk;
use crate::file::layout::USERS;
use crate::file::user_index::{self, Entry, PendingMarker, bucket_of};
use crate::store::Live;
use std::io;
use std::ops::ControlFlow::{self, Break, Continue};

/// The sessions with a user that a walk has found: 30 bytes each.
#[derive(Debug, Default)]
pub(super) struct UserWalk {
    found: Vec<(u16, Entry)>,
    /// The marker of a walk of all shards.
    pending: Option<PendingMarker>,
    /// The failures of the pass before the walk.
    failed_before: u64,
}

impl Pass<'_> {
    /// Whether the index must be made complete by a walk of all shards: it is new or lost, the system was started
    /// again, or an insertion has failed. At most once an hour.
    pub(super) fn needs_user_walk(&mut self, hour: u64) -> bool {
        if self.options.dry_run || disk::boot_id().is_none() {
            return false;
        }
        match self.store.user_index.is_complete(&self.store.root) {
            Ok(is_complete) => !is_complete && self.store.user_index.may_walk(hour),
            Err(error) => {
                self.fail_users("read user index", error);
                false
            }
        }
    }

    /// Begins to collect users, before any session is read.
    pub(super) fn begin_user_walk(&mut self, shards: usize) {
        self.users = UserWalk { failed_before: self.report.failed, ..UserWalk::default() };
        if shards as u64 != ALL || self.options.dry_run {
            return;
        }
        match user_index::begin_walk(&self.store.root) {
            Ok(pending) => self.users.pending = pending,
            Err(error) => self.fail_users("make user index", error),
        }
    }

    /// Collects a session that is or may be alive.
    pub(super) fn collect_user(&mut self, live: &Live) {
        if let Some(digest) = live.record.user_digest().filter(|_| !self.options.dry_run) {
            self.users.found.push((bucket_of(&digest), Entry::new(&digest, live.id)));
        }
    }

    /// Inserts the sessions that the index lacks. After a walk of all shards that could read every session, the index
    /// is complete, unless an insertion of another process has failed meanwhile.
    pub(super) fn end_user_walk(&mut self, end: ControlFlow<()>) -> ControlFlow<()> {
        let UserWalk { mut found, pending, failed_before } = std::mem::take(&mut self.users);
        let end = if end.is_break() { end } else { self.repair_users(&mut found, pending.is_some()) };
        let Some(pending) = pending else { return end };
        if end.is_break() || self.report.failed > failed_before || self.walked.contains(&false) {
            pending.abandon(&self.store.root);
        } else if let Err(error) = user_index::finish_walk(&self.store.root, &pending) {
            pending.abandon(&self.store.root);
            self.fail_users("complete user index", error);
        }
        end
    }

    /// Inserts the sessions that were found, and after a walk of `all` shards also repairs the other buckets.
    fn repair_users(&mut self, found: &mut [(u16, Entry)], all: bool) -> ControlFlow<()> {
        found.sort_unstable();
        let made = if all { user_index::buckets(&self.store.root) } else { Ok(Vec::new()) };
        let made = made.unwrap_or_else(|error| {
            self.fail_users("list user index", error);
            Vec::new()
        });
        for (bucket, entries) in user_index::by_bucket(found, made) {
            if let Err(error) = self.store.user_index.repair(&self.store.root, bucket, &entries) {
                self.fail_users("insert session in user index", error);
            }
            if self.pace.checkpoint(&self.report).is_break() {
                return Break(());
            }
        }
        Continue(())
    }

    fn fail_users(&mut self, operation: &'static str, error: io::Error) {
        self.report.fail(self.store.root.error_at(operation, USERS, error));
    }
}
