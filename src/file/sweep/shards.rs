//! The walk: every file of some shards, and what lies beside the shards.
use super::{ALL, Became, Pass, SweepPhase};
use crate::clock::micros;
use crate::file::disk::{Access, Directory};
use crate::file::due::{self, BUCKET_MICROS, Entry};
use crate::file::layout::{SHARDS, ending_at, session_at, shard_name};
use crate::file::walk::{Content, ScannedFile};
use crate::id::PublicId;
use std::collections::HashMap;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

/// How much of the index is held in memory at once, as it lies on the disk: two to three times as much in memory.
const FILED_BYTES: u64 = 8 << 20;

impl Pass<'_> {
    /// Looks at some shards. How many of the first of them were looked at; and whether it was told to stop.
    pub(super) fn walk(&mut self, shards: &[u64]) -> (usize, ControlFlow<()>) {
        let mut seen = [false; SHARDS as usize];
        let end = self.walk_all(shards, &mut seen);
        let is_seen = |shard: &&u64| seen[usize::try_from(**shard).expect("below 256")];
        (shards.iter().take_while(is_seen).count(), end)
    }

    fn walk_all(&mut self, shards: &[u64], seen: &mut [bool; SHARDS as usize]) -> ControlFlow<()> {
        self.pace.begin(SweepPhase::Walk, shards.len() as u64, &self.report)?;
        for stray in self.store.strays(false) {
            match stray {
                Ok(stray) if matches!(stray.content, Content::Temporary) => self.clear_stray(&stray),
                Ok(_) => self.report.unknown += 1,
                Err(error) => self.report.fail(error),
            }
        }
        let buckets = self.buckets();
        let size = |bucket: &u64| self.index.stat(bucket.to_string()).map_or(0, |stat| stat.bytes);
        let parts = buckets.iter().map(size).sum::<u64>() / FILED_BYTES + 1;
        let group = usize::try_from(ALL / parts.min(ALL)).expect("at most 256");
        for group in shards.chunks(group) {
            let filed = self.filed(&buckets, group)?;
            let (walked, end) = self.together(group, |pass, &shard| {
                let number = u16::try_from(shard).expect("below 256");
                let index_failures = pass.index_failures;
                match pass.walk_shard(&shard_name(number), &filed) {
                    Continue(listed) => {
                        pass.pace.done.fetch_add(1, Relaxed);
                        // What could not be filed anew has only the entry it had: its bucket must stay.
                        (Some((number, listed && index_failures == pass.index_failures)), Continue(()))
                    }
                    Break(()) => (None, Break(())),
                }
            });
            for (shard, is_walked) in walked.into_iter().flatten() {
                self.walked[usize::from(shard)] = is_walked;
                seen[usize::from(shard)] = true;
            }
            end?;
        }
        Continue(())
    }

    /// In which bucket each session of some shards is filed first.
    fn filed(&mut self, buckets: &[u64], shards: &[u64]) -> ControlFlow<(), HashMap<PublicId, u64>> {
        let mut filed = HashMap::new();
        let mut wanted = [false; SHARDS as usize];
        for &shard in shards {
            wanted[usize::try_from(shard).expect("below 256")] = true;
        }
        for &bucket in buckets {
            let Some(mut reader) = self.open_bucket(bucket, Access::Read) else { continue };
            while let Some(entries) = self.next_entries(bucket, &mut reader, &mut false) {
                for (_, Entry { id, .. }) in entries {
                    if wanted[usize::from(id.as_bytes()[0])] {
                        // They come in ascending order.
                        filed.entry(id).or_insert(bucket);
                    }
                }
                self.pace.step(&self.report)?;
            }
        }
        Continue(filed)
    }

    /// Looks at every file of a shard. Whether it could be listed.
    fn walk_shard(&mut self, shard: &str, filed: &HashMap<PublicId, u64>) -> ControlFlow<(), bool> {
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
                        self.finish_end(&directory, id, &file);
                    }
                    _ => self.walk_past(&directory, &name, &file, filed),
                },
                Ok(None) => {}
                Err(error) => {
                    self.report.examined += 1;
                    self.report.fail(error);
                    session_at(shard, &name).inspect(|id| {
                        self.refile_for_next_pass(*id);
                    });
                }
            }
            self.pace.file(&self.report)?;
        }
        Continue(true)
    }

    fn walk_past(
        &mut self,
        directory: &Directory,
        name: &str,
        file: &ScannedFile,
        filed: &HashMap<PublicId, u64>,
    ) {
        match &file.content {
            Content::Foreign(_) | Content::Newer(_) | Content::Unknown => self.report.unknown += 1,
            Content::Temporary => self.clear_temporary(directory, name, file),
            Content::Live(live) => {
                self.report.examined += 1;
                self.file_if_lost(live.id, live.record.deadline, filed.get(&live.id).copied());
            }
            Content::Expired(live) => {
                self.report.examined += 1;
                match self.end(directory, live.id, true) {
                    Became::Renewed(deadline) => {
                        self.file_if_lost(live.id, deadline, filed.get(&live.id).copied());
                    }
                    Became::Later => {
                        self.refile_for_next_pass(live.id);
                    }
                    Became::Done => {}
                }
            }
            Content::Damaged(id) | Content::Unfinished(id) => {
                self.report.examined += 1;
                let _ = self.end(directory, *id, true);
            }
        }
    }

    /// Files a live session that the index does not have, or has too late. One in a bucket whose hour is over is filed anew
    /// when that bucket is swept.
    fn file_if_lost(&mut self, id: PublicId, deadline: SystemTime, filed: Option<u64>) {
        let (now, deadline) = (micros(self.now), micros(deadline));
        if filed.is_none_or(|filed| filed > due::bucket_of(deadline, now)) {
            self.refile(Entry { id, deadline });
        } else if self.options.dry_run && filed.is_some_and(|filed| filed < now / BUCKET_MICROS) {
            self.report.renewed += 1;
        }
    }
}
