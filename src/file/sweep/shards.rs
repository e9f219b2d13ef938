//! The walk: reads every file of some shards, and examines foreign files beside the shards.
use super::{ALL, EntryOutcome, Pass, SweepPhase};
use crate::clock::micros;
use crate::file::disk::{Access, Directory};
use crate::file::expiry_index::{self, BUCKET_MICROS, Entry};
use crate::file::layout::{SHARDS, ending_at, session_at, shard_name};
use crate::file::scan::{Content, ScannedFile};
use crate::id::PublicId;
use std::collections::HashMap;
use std::ops::ControlFlow::{self, Continue};
use std::time::SystemTime;

/// The part of the index that is held in memory at once, in bytes on the disk; in memory it takes two to three times as
/// much.
const INDEX_BYTES: u64 = 8 << 20;

impl Pass<'_> {
    /// Walks some shards. Returns the number of shards that were walked, in order, and whether the sweep was stopped.
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
                Ok(_) => self.report.unknown += 1,
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
                // A session that could not be inserted again has only its earlier entry, so the bucket of that entry
                // must stay.
                self.walked[usize::from(number)] = listed && index_failures == self.index_failures;
                self.pace.done += 1;
                *walked += 1;
            }
        }
        Continue(())
    }

    /// For each session of some shards: the first bucket that has an entry of the session.
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
                        // Buckets are in ascending order.
                        indexed.entry(id).or_insert(bucket);
                    }
                }
                self.pace.checkpoint(&self.report)?;
            }
        }
        Continue(indexed)
    }

    /// Walks every file of a shard. Returns whether the shard could be listed.
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
                    self.report.examined += 1;
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
                self.report.unknown += 1;
            }
            Content::Temporary => self.remove_temporary(directory, name, file),
            Content::Live(live) => {
                let (deadline, bucket) = (live.record.deadline(), indexed.get(&live.id).copied());
                self.report.examined += 1;
                self.collect_user(live);
                self.insert_if_lost(live.id, deadline, bucket);
                self.count_renewed(deadline, bucket);
            }
            Content::Moved(moved) => {
                self.report.examined += 1;
                self.walk_dead(directory, moved.id, indexed);
            }
            Content::Expired(live) | Content::CutOff(live) => {
                self.report.examined += 1;
                self.collect_user(live);
                self.walk_dead(directory, live.id, indexed);
            }
            Content::Damaged(id) | Content::Unfinished(id) => {
                self.report.examined += 1;
                let _ = self.remove_if_dead(directory, *id, true);
            }
        }
    }

    /// Removes an expired session, or the mark of a moved one, unless it has to stay.
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

    /// Whether the index lacks a session, or has it in too late a bucket. A session in a bucket whose hour is over is
    /// inserted again when that bucket is swept.
    fn is_lost(&self, deadline: SystemTime, bucket: Option<u64>) -> bool {
        let (now, deadline) = (micros(self.now), micros(deadline));
        bucket.is_none_or(|bucket| bucket > expiry_index::bucket_of(deadline, now))
    }

    /// Inserts a session, or a mark, that the index has lost.
    fn insert_if_lost(&mut self, id: PublicId, deadline: SystemTime, bucket: Option<u64>) {
        if self.is_lost(deadline, bucket) {
            self.reinsert(Entry { id, deadline: micros(deadline) });
        }
    }

    /// Counts, in a dry run, a live session that would be inserted again when its bucket is swept.
    fn count_renewed(&mut self, deadline: SystemTime, bucket: Option<u64>) {
        let is_over = |bucket: u64| bucket < micros(self.now) / BUCKET_MICROS;
        if self.options.dry_run && !self.is_lost(deadline, bucket) && bucket.is_some_and(is_over) {
            self.report.renewed += 1;
        }
    }
}
