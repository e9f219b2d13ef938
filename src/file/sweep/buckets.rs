//! The second part of a sweep: examines the sessions that the expiry index lists as due, and maintains the index.
use super::{EntryOutcome, Pass};
use crate::admin::SweepPhase;
use crate::clock::micros;
use crate::file::disk::Access;
use crate::file::expiry_index::{self, ENTRY_BYTES, Entry, Reader};
use crate::file::layout::{DUE, bucket_named};
use crate::id::PublicId;
use std::io;
use std::ops::ControlFlow::{self, Continue};

/// The result of examining some entries of a bucket.
struct Swept {
    /// The offsets of the entries whose sessions need no entry any more, or have another one.
    done: Vec<u64>,
    all_done: bool,
}

fn shard_of(entry: &Entry) -> u8 {
    entry.id.as_bytes()[0]
}

impl Pass<'_> {
    pub(super) fn sweep_due(&mut self, hour: u64) -> ControlFlow<()> {
        let buckets: Vec<u64> = self.buckets().into_iter().filter(|bucket| *bucket <= hour).collect();
        let size = |bucket: &u64| self.index.stat(&*bucket.to_string()).map_or(0, |stat| stat.bytes);
        let entries = buckets.iter().map(size).sum::<u64>() / ENTRY_BYTES as u64;
        self.pace.begin(SweepPhase::Due, entries, &self.report)?;
        for bucket in buckets {
            self.sweep_bucket(bucket, bucket < hour)?;
        }
        Continue(())
    }

    /// Examines the due entries of a bucket. Removes the bucket if its hour is over and all entries are done.
    fn sweep_bucket(&mut self, bucket: u64, is_over: bool) -> ControlFlow<()> {
        let access = if self.options.dry_run { Access::Read } else { Access::Write };
        let Some(mut reader) = self.open_bucket(bucket, access) else { return Continue(()) };
        let mut all_done = true;
        while let Some(entries) = self.next_entries(bucket, &mut reader, &mut all_done) {
            let done = self.pace.done + entries.len() as u64;
            all_done &= self.sweep_entries(&reader, entries, is_over)?;
            self.pace.done = done;
            self.pace.checkpoint(&self.report)?;
        }
        if is_over && all_done && !self.options.dry_run {
            self.remove_bucket(bucket, reader);
        }
        Continue(())
    }

    /// Examines those of these entries that are due. Returns whether all of them are done.
    fn sweep_entries(
        &mut self,
        reader: &Reader,
        mut entries: Vec<(u64, Entry)>,
        is_over: bool,
    ) -> ControlFlow<(), bool> {
        // An entry with `DEADLINE_MAX` may have a later deadline, so it is not due before its bucket's hour is over.
        let now = micros(self.now).min(expiry_index::DEADLINE_MAX - 1);
        let walked = self.walked;
        let is_walked = |entry: &Entry| walked[usize::from(shard_of(entry))];
        // In a dry run, the sessions of a walked shard were counted by the walk, and their files are still there. They
        // are not counted again.
        let is_counted = |entry: &Entry| self.options.dry_run && is_walked(entry);
        entries.retain(|(_, entry)| (is_over || entry.deadline <= now) && !is_counted(entry));
        // Sorting puts the entries of one shard together, and within them those of one session, which is examined once.
        entries.sort_unstable_by_key(|(offset, entry)| (entry.id, *offset));
        let mut swept = Swept { done: Vec::new(), all_done: true };
        let mut shards = entries.chunk_by(|(_, a), (_, b)| shard_of(a) == shard_of(b));
        let end = shards.try_for_each(|shard| self.sweep_shard(shard, is_over, &mut swept));
        // If the hour of the bucket is over, the bucket will be removed, so its entries are not erased one by one. If
        // the sweep was stopped, the bucket stays.
        if !is_over || end.is_break() {
            self.erase(reader, swept.done);
        }
        end?;
        Continue(swept.all_done)
    }

    /// Examines the sessions of these entries, which are of one shard and sorted. Adds the result to `swept`.
    fn sweep_shard(&mut self, entries: &[(u64, Entry)], is_over: bool, swept: &mut Swept) -> ControlFlow<()> {
        let is_walked = self.walked[usize::from(shard_of(&entries[0].1))];
        let opened = self.store.open_shard(&entries[0].1.id);
        let shard = opened.map_err(|error| self.report.fail(error)).ok();
        for same in entries.chunk_by(|(_, a), (_, b)| a.id == b.id) {
            let entry = same[0].1;
            let (damaged, unknown) = (self.report.files.damaged, self.report.files.unknown);
            let outcome = match &shard {
                Some(shard) => self.remove_if_dead(shard, entry.id, is_walked),
                None => EntryOutcome::Retry,
            };
            if is_walked {
                // The walk has counted the damaged and unknown files of this shard, so the counts are set back.
                (self.report.files.damaged, self.report.files.unknown) = (damaged, unknown);
            }
            let is_done = match outcome {
                EntryOutcome::Done => true,
                EntryOutcome::Renewed(deadline) => {
                    self.report.files.renewed += 1;
                    self.reinsert(Entry { deadline: micros(deadline), ..entry })
                }
                EntryOutcome::Moved(until) => self.reinsert(Entry { deadline: micros(until), ..entry }),
                // If the bucket's hour is not over, the bucket stays, and so does the entry.
                EntryOutcome::Retry => is_over && self.reinsert_for_next_pass(entry.id),
            };
            swept.all_done &= is_done;
            if is_done {
                swept.done.extend(same.iter().map(|(offset, _)| *offset));
            }
            self.pace.done += same.len() as u64;
            self.pace.after_file(&self.report)?;
        }
        Continue(())
    }

    /// Erases entries that are done, in a bucket that is not removed.
    fn erase(&self, reader: &Reader, mut done: Vec<u64>) {
        if self.options.dry_run {
            return;
        }
        done.sort_unstable();
        // A failure is ignored: the next pass examines these sessions again.
        let _ = expiry_index::erase(&reader.file, &done);
    }

    /// Removes a bucket whose entries are all done.
    fn remove_bucket(&mut self, bucket: u64, mut reader: Reader) {
        if let Err(error) = self.index.unlink(bucket.to_string()) {
            self.report.fail(self.store.root.error_at(
                "remove bucket of expiry index",
                &path_of(bucket),
                error,
            ));
            return;
        }
        // Another process may have appended entries before the bucket lost its name. They are in no other bucket, so
        // they are inserted again.
        while let Some(late) = self.next_entries(bucket, &mut reader, &mut false) {
            for (_, entry) in late {
                self.reinsert(entry);
            }
        }
    }

    /// The numbers of the existing buckets, in ascending order.
    pub(super) fn buckets(&mut self) -> Vec<u64> {
        let names = self.index.names().unwrap_or_else(|error| {
            self.report.fail(self.store.root.error_at("list expiry index", DUE, error));
            Vec::new()
        });
        let mut buckets: Vec<u64> = names.iter().filter_map(|name| bucket_named(name)).collect();
        buckets.sort_unstable();
        buckets
    }

    /// Inserts a session that is locked or cannot be read, so that the next pass examines it. Returns whether that
    /// succeeded.
    pub(super) fn reinsert_for_next_pass(&mut self, id: PublicId) -> bool {
        // The deadline is after this pass began. Otherwise this pass would read the new entry, and insert it once more.
        self.reinsert(Entry { id, deadline: micros(self.now).saturating_add(1) })
    }

    /// Inserts a session in the index again. Returns whether that succeeded; otherwise its earlier entry must stay.
    pub(super) fn reinsert(&mut self, entry: Entry) -> bool {
        if self.options.dry_run {
            return true;
        }
        match self.store.expiry_index.try_insert(&self.store.root, entry, micros(self.now)) {
            Ok(()) => true,
            Err(error) => {
                self.index_failures += 1;
                self.report.fail(self.store.root.error_at("insert session in expiry index", DUE, error));
                false
            }
        }
    }

    pub(super) fn open_bucket(&mut self, bucket: u64, access: Access) -> Option<Reader> {
        match Reader::open(self.index, bucket, access) {
            Ok(reader) => Some(reader),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.report.fail(self.store.root.error_at(
                    "open bucket of expiry index",
                    &path_of(bucket),
                    error,
                ));
                None
            }
        }
    }

    /// The next entries of a bucket. `None` at its end, and after an error, which is reported and sets `all_done` to
    /// false.
    pub(super) fn next_entries(
        &mut self,
        bucket: u64,
        reader: &mut Reader,
        all_done: &mut bool,
    ) -> Option<Vec<(u64, Entry)>> {
        reader.next().unwrap_or_else(|error| {
            self.report.fail(self.store.root.error_at(
                "read bucket of expiry index",
                &path_of(bucket),
                error,
            ));
            *all_done = false;
            None
        })
    }
}

fn path_of(bucket: u64) -> String {
    format!("{DUE}/{bucket}")
}
