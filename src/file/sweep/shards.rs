//! The first part of a sweep, the walk: reads every file of some shards, and examines the files beside the shards.
use super::{ALL, EntryOutcome, Pass};
use crate::admin::SweepPhase;
use crate::clock::micros;
use crate::file::disk::{Access, Directory};
use crate::file::expiry_index::{self, BUCKET_MICROS, Entry};
use crate::file::layout::{SHARDS, ending_at, session_at, shard_name};
use crate::file::scan::{Content, ScannedFile};
use crate::id::PublicId;
use std::collections::HashMap;
use std::ops::ControlFlow::{self, Continue};
use std::time::SystemTime;

/// The number of bytes of the index, as counted on the disk, that the walk holds in memory at once. In memory they take
/// two to three times as much.
const INDEX_BYTES: u64 = 8 << 20;

impl Pass<'_> {
    /// Walks these shards in order. Returns the number of shards that were walked, and `Break` if the sweep was
    /// stopped.
    pub(super) fn walk(&mut self, shards: &[u64]) -> (usize, ControlFlow<()>) {
        let mut walked = 0;
        self.begin_user_walk(shards.len());
        let end = self.walk_all(shards, &mut walked);
        (walked, self.end_user_walk(end))
    }

    fn walk_all(&mut self, shards: &[u64], walked: &mut usize) -> ControlFlow<()> {
        self.pace.begin(SweepPhase::Walk, shards.len() as u64, &self.report)?;
        for stray in self.store.strays(false) {
            match stray {
                Ok(stray) if matches!(stray.content, Content::Temporary) => self.remove_stray(&stray),
                Ok(_) => self.report.files.unknown += 1,
                Err(error) => self.report.fail(error),
            }
        }
        let buckets = self.buckets();
        let size = |bucket: &u64| self.index.stat(&*bucket.to_string()).map_or(0, |stat| stat.bytes);
        let parts = buckets.iter().map(size).sum::<u64>() / INDEX_BYTES + 1;
        let group = usize::try_from(ALL / parts.min(ALL)).expect("at most 256");
        for group in shards.chunks(group) {
            let indexed = self.indexed(&buckets, group)?;
            for &shard in group {
                let number = u16::try_from(shard).expect("below 256");
                let index_failures = self.index_failures;
                let listed = self.walk_shard(&shard_name(number), &indexed)?;
                // If a session could not be inserted again, its earlier entry is its only one. Then the shard does not
                // count as walked, so that the bucket of that entry stays.
                self.walked[usize::from(number)] = listed && index_failures == self.index_failures;
                self.pace.done += 1;
                *walked += 1;
            }
        }
        Continue(())
    }

    /// The sessions of these shards that the index has, each with the number of its earliest bucket.
    fn indexed(&mut self, buckets: &[u64], shards: &[u64]) -> ControlFlow<(), HashMap<PublicId, u64>> {
        let mut indexed = HashMap::new();
        let mut wanted = [false; SHARDS as usize];
        for &shard in shards {
            wanted[usize::try_from(shard).expect("below 256")] = true;
        }
        for &bucket in buckets {
            let Some(mut reader) = self.open_bucket(bucket, Access::Read) else { continue };
            while let Some(entries) = self.next_entries(bucket, &mut reader, &mut false) {
                for (_, Entry { id, .. }) in entries {
                    if wanted[usize::from(id.as_bytes()[0])] {
                        // The buckets are read in ascending order, so the first one is kept.
                        indexed.entry(id).or_insert(bucket);
                    }
                }
                self.pace.checkpoint(&self.report)?;
            }
        }
        Continue(indexed)
    }

    /// Examines every file of a shard. Returns whether the shard could be listed.
    fn walk_shard(&mut self, shard: &str, indexed: &HashMap<PublicId, u64>) -> ControlFlow<(), bool> {
        let (directory, names) = match self.store.list_shard(shard) {
            Ok(listed) => listed,
            Err(error) => {
                self.report.fail(error);
                return Continue(false);
            }
        };
        for name in names {
            match self.store.file_at(shard, &directory, &name) {
                Ok(Some(file)) => match ending_at(shard, &name) {
                    Some(id) if matches!(file.content, Content::Temporary) => {
                        self.finish_delete(&directory, id, &file);
                    }
                    _ => self.walk_file(&directory, &name, &file, indexed),
                },
                Ok(None) => {}
                Err(error) => {
                    self.report.files.examined += 1;
                    self.report.fail(error);
                    session_at(shard, &name).inspect(|id| {
                        self.reinsert_for_next_pass(*id);
                    });
                }
            }
            self.pace.after_file(&self.report)?;
        }
        Continue(true)
    }

    fn walk_file(
        &mut self,
        directory: &Directory,
        name: &str,
        file: &ScannedFile,
        indexed: &HashMap<PublicId, u64>,
    ) {
        match &file.content {
            Content::Foreign(_) | Content::Newer(_) | Content::Older(_) | Content::Unknown => {
                self.report.files.unknown += 1;
            }
            Content::Temporary => self.remove_temporary(directory, name, file),
            Content::Live(live) => {
                let (deadline, bucket) = (live.record.deadline(), indexed.get(&live.id).copied());
                self.report.files.examined += 1;
                self.collect_user(live);
                self.insert_if_lost(live.id, deadline, bucket);
                self.count_renewed(deadline, bucket);
            }
            Content::Moved(moved) => {
                self.report.files.examined += 1;
                self.walk_dead(directory, moved.id, indexed);
            }
            Content::Expired(live) | Content::CutOff(live) => {
                self.report.files.examined += 1;
                self.collect_user(live);
                self.walk_dead(directory, live.id, indexed);
            }
            Content::Damaged(id) | Content::Unfinished(id) => {
                self.report.files.examined += 1;
                let _ = self.remove_if_dead(directory, *id, true);
            }
        }
    }

    /// Removes the file of an expired or moved session. If the file must stay, makes sure that the index has the
    /// session.
    fn walk_dead(&mut self, directory: &Directory, id: PublicId, indexed: &HashMap<PublicId, u64>) {
        let bucket = indexed.get(&id).copied();
        match self.remove_if_dead(directory, id, true) {
            EntryOutcome::Renewed(deadline) => {
                self.insert_if_lost(id, deadline, bucket);
                self.count_renewed(deadline, bucket);
            }
            EntryOutcome::Moved(until) => self.insert_if_lost(id, until, bucket),
            EntryOutcome::Retry => {
                self.reinsert_for_next_pass(id);
            }
            EntryOutcome::Done => {}
        }
    }

    /// Whether the index lacks a session, or has it only in a bucket later than its deadline's. (If the session's
    /// bucket is of an hour that is over, the second part of this sweep inserts the session again.)
    fn is_lost(&self, deadline: SystemTime, bucket: Option<u64>) -> bool {
        let (now, deadline) = (micros(self.now), micros(deadline));
        bucket.is_none_or(|bucket| bucket > expiry_index::bucket_of(deadline, now))
    }

    /// Inserts a session that the index lacks. For a moved session, `deadline` is the end of its grace period.
    fn insert_if_lost(&mut self, id: PublicId, deadline: SystemTime, bucket: Option<u64>) {
        if self.is_lost(deadline, bucket) {
            self.reinsert(Entry { id, deadline: micros(deadline) });
        }
    }

    /// In a dry run, counts a live session that a sweep would insert again, because its bucket's hour is over.
    fn count_renewed(&mut self, deadline: SystemTime, bucket: Option<u64>) {
        let is_over = |bucket: u64| bucket < micros(self.now) / BUCKET_MICROS;
        if self.options.dry_run && !self.is_lost(deadline, bucket) && bucket.is_some_and(is_over) {
            self.report.files.renewed += 1;
        }
    }
}
