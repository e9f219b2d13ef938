//! The engine compared with a map. A script drives four stores on one directory, some with a cache of their own and
//! some without. Its steps are operations by id and by public id, sweeps, new openings and changes of the clock in both
//! directions. Meanwhile calls fail, once or for good, or transfer a part of their bytes. Every result must equal that
//! of a map of the sessions.
//!
//! Run by `cargo test` (`tests/histories.rs`) and by the fuzzer (`fuzz/fuzz_targets/store_model.rs`).
//!
//! - Without a fault, every answer is exact: whole records, and the reason for an absent session. The result of a sweep
//!   is exact as well: afterwards there is a file for each live session, and no other file.
//! - With a fault, an operation may fail. Then the session is in a state that [`store`](crate::store) allows for that
//!   kind of error: at its old version or, where the kind leaves it open, at the old version, at the new version, or
//!   ended. The script reads the session to find out in which of these states it is, and expects that state from then
//!   on. Sweeps are exact again after a whole walk without a fault.
//! - A session that was ended or swept never comes back, in any store, unless it is imported.
mod expected;
mod script;

pub(super) use script::{By, Step, Update};

use super::cut_offs;
use super::disk::{Root, faults::during};
use super::expiry_index::BUCKET_MICROS;
use super::layout::{CUT_OFFS, DUE, SHARDS, SWEEP, USERS, shard_name};
use super::user_index;
use super::{Content, FileStore, FileStoreOptions};
use crate::admin::{Admin, SweepOptions};
use crate::clock::{Clock, micros};
use crate::error::{Error, ErrorKind};
use crate::id::PublicId;
use crate::record::{Record, Timing};
use crate::store::{Absent, Deleted, Durability, Live, Lookup, Page, Rotation, Saved, Store, Verdict};
use crate::value::Value;
use expected::{CutOffs, Expected, Mark};
use rustix::io::Errno;
use script::{ALL, FAULTS};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};
use tempfile::TempDir;

/// A time after which a cached copy is not returned without reading the file.
const TRUST: Duration = Duration::from_secs(61);
/// The time at which each script begins, since 1970.
const BEGIN: Duration = Duration::from_secs(1_700_000_000);
struct Model {
    dir: TempDir,
    clock: Clock,
    stores: [FileStore; ALL.len()],
    sessions: Vec<Expected>,
    /// The number of versions so far. It makes each version's text different from all others.
    versions: u64,
    cut_offs: CutOffs,
    /// The fault of the next operation: the number of the system call that fails, its error number, and whether all
    /// later calls of the operation fail too.
    fault: Option<(usize, i32, bool)>,
    /// Whether a sweep may miss expired sessions: after a failed call, or after the clock was set back, an index entry
    /// may be missing or late.
    is_behind: bool,
}

fn open(dir: &Path, clock: &Clock, by: By) -> Result<FileStore, Error> {
    let cache_bytes = match by {
        By::Cached | By::AlsoCached => 1 << 20,
        By::Uncached => 0,
        By::SmallCache => 32 << 10,
    };
    let options = FileStoreOptions::new().cache_bytes(cache_bytes).watch(false);
    // No operation holds a lock when the next line of a script begins, so a short wait is enough.
    options.lock_wait(Duration::from_millis(5)).clock(clock.clone()).open(dir)
}

thread_local! {
    /// A store without sessions that the last script has left. Making a new one takes longer than most scripts.
    static EMPTY: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

fn directory() -> TempDir {
    // The store is in memory, for speed: these tests check the contents of files, and not of a disk after a power cut.
    let new = || tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    EMPTY.take().unwrap_or_else(|| new().expect("a temporary directory"))
}

/// Runs a script.
///
/// # Panics
///
/// If a result differs from that of the map.
pub(super) fn run(script: &[Step]) {
    let dir = directory();
    let clock = Clock::manual(UNIX_EPOCH + BEGIN);
    let stores = ALL.map(|by| open(dir.path(), &clock, by).expect("the directory is a store"));
    let (sessions, versions, fault, is_behind) = (Vec::new(), 0, None, false);
    let cut_offs = CutOffs::default();
    let mut model = Model { dir, clock, stores, sessions, versions, cut_offs, fault, is_behind };
    for step in script {
        model.step(*step);
    }
    model.fault = None;
    for at in 0..model.sessions.len() {
        model.check(at);
    }
    // A store that is opened later must have the same results.
    model.step(Step::Reopen { by: By::Cached });
    for at in 0..model.sessions.len() {
        model.check(at);
    }
    model.check_lists();
    model.clear();
}

impl Model {
    /// Empties the store and leaves it for the next script.
    fn clear(self) {
        for shard in (0..SHARDS).map(shard_name) {
            let shard = self.dir.path().join(shard);
            // Most shards have no file. Listing a shard is as fast as asking for its number of names.
            for file in fs::read_dir(shard).expect("a shard") {
                fs::remove_file(file.expect("a name").path()).expect("a file");
            }
        }
        fs::remove_file(self.dir.path().join(CUT_OFFS)).expect("the log of cut-offs");
        let root = Root::open(self.dir.path()).expect("the store's directory");
        cut_offs::CutOffs::make(&root, 0).expect("a log without entries");
        fs::remove_dir_all(self.dir.path().join(USERS)).expect("the user index");
        if let Some(pending) = user_index::begin_walk(&root).expect("a user index") {
            user_index::finish_walk(&root, &pending).expect("a complete user index");
        }
        let index = self.dir.path().join(DUE);
        for bucket in fs::read_dir(&index).expect("the index") {
            fs::remove_file(bucket.expect("a name").path()).expect("a bucket");
        }
        // Records the hour of the last walk, as the creation of a store does. Otherwise the first sweep of each script
        // would walk all shards.
        let walked = micros(UNIX_EPOCH + BEGIN) / BUCKET_MICROS;
        fs::write(index.join(SWEEP), format!("{walked:20}\n")).expect("the note of the last walk");
        EMPTY.set(Some(self.dir));
    }

    fn store(&self, by: By) -> &FileStore {
        &self.stores[by as usize]
    }

    /// Runs an operation with the fault that the script has set, if any. Returns also whether a call failed.
    fn with_fault<R>(
        &mut self,
        operation: impl FnOnce(&Self) -> Result<R, Error>,
    ) -> (Result<R, Error>, bool) {
        let Some((due, fault, for_good)) = self.fault.take() else { return (operation(self), false) };
        let for_good = for_good && fault != Errno::INTR.raw_os_error();
        let fails = move |n, _: &str| (n == due || for_good && n > due).then_some(fault);
        let (done, calls) = during(fails, || operation(self));
        let is_not_invalidated = |error: &Error| error.kind() == ErrorKind::InvalidationFailed || for_good;
        if done.as_ref().is_err_and(is_not_invalidated) {
            // If the invalidation failed, other stores may return the old version for a minute.
            self.clock.advance(TRUST);
        }
        (done, calls.len() > due)
    }

    /// Runs an operation on one store, with the fault that the script has set, if any.
    fn perform<R>(
        &mut self,
        by: By,
        operation: impl FnOnce(&FileStore) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let (done, met) = self.with_fault(|model| operation(model.store(by)));
        self.is_behind |= met;
        if let Err(error) = &done {
            // If no call failed, the operation must not fail.
            assert!(met, "{by:?} failed without a fault: {error}");
        }
        done
    }

    fn index(&self, at: u8) -> Option<usize> {
        (!self.sessions.is_empty()).then(|| usize::from(at) % self.sessions.len())
    }

    fn live(&self, at: usize) -> Option<&Record> {
        let record = self.sessions[at].record.as_ref()?;
        (record.deadline() > self.clock.now() && !self.cut_offs.has_ended(record)).then_some(record)
    }

    fn is_live(&self, at: usize) -> bool {
        self.live(at).is_some()
    }

    fn text(&mut self, kilobytes: u8) -> Value {
        self.versions += 1;
        let text = format!("{} ", self.versions);
        Value::new(&text.repeat(1 + usize::from(kilobytes) * 1024 / text.len())).expect("a value")
    }

    fn record(&mut self, minutes: u8) -> Record {
        let now = self.clock.now();
        let mut record = Record::new(now, now + Duration::from_secs(60 * (1 + u64::from(minutes))));
        if minutes % 2 == 1 {
            record.set_user(&format!("user {minutes}")).expect("a short one");
        }
        record.insert("text", &self.text(0)).expect("it fits");
        record
    }

    /// The session that a logout or a login by the token of this one applies to.
    fn follow(&self, mut at: usize) -> usize {
        while let Some(mark @ Mark { by_login: false, successor: Some(next), .. }) = self.sessions[at].mark
            && mark.is_within_grace(self.clock.now())
        {
            at = next;
        }
        at
    }

    /// After a fault, a mark may be gone: a logout removes a file that cannot be read.
    fn check_marks(&mut self) {
        for at in 0..self.sessions.len() {
            if self.sessions[at].mark.is_some()
                && let Ok(Lookup::Absent(Absent::NotFound(_))) =
                    self.store(By::Uncached).load(&self.sessions[at].token)
            {
                self.sessions[at].mark = None;
            }
            self.check(at);
        }
    }

    fn know(&mut self, saved: Saved) {
        let record = saved.live.record.clone();
        let (token, id, indexed) = (saved.token, saved.live.id, record.deadline());
        self.sessions.push(Expected { token, id, record: Some(record), indexed, mark: None });
        self.check(self.sessions.len() - 1);
    }

    /// Asserts that a load has returned the record of the map, or the right reason for its absence.
    #[track_caller]
    fn check_found(&self, at: usize, found: &Lookup, context: &str) {
        let known = &self.sessions[at];
        match found {
            Lookup::Live(Live { record, id }) => {
                assert_eq!(self.live(at), Some(record), "session {at}, {context}");
                assert_eq!(*id, known.id, "session {at}, {context}");
            }
            Lookup::Absent(Absent::Expired(id)) => {
                let record = known.record.as_ref();
                let has_expired = record.is_some_and(|record| record.deadline() <= self.clock.now());
                assert!(has_expired, "session {at} expired, {context}");
                assert_eq!(*id, known.id, "session {at}, {context}");
            }
            Lookup::Absent(Absent::NotFound(id)) => {
                assert_eq!(known.mark, None, "session {at} is unknown, {context}");
                let is_ended = known.record.as_ref().is_none_or(|record| self.cut_offs.has_ended(record));
                assert!(is_ended, "session {at} is unknown, {context}");
                assert_eq!(*id, known.id, "session {at}, {context}");
            }
            Lookup::Absent(Absent::Moved(moved)) => {
                assert_eq!((&known.record, moved.id), (&None, known.id), "session {at}, {context}");
                let mark = known.mark.map(|mark| (mark.until, mark.by_login));
                assert_eq!(mark, Some((moved.until, moved.by_login)), "session {at}, {context}");
            }
            Lookup::Absent(other) => panic!("session {at} is {other:?}, {context}"),
        }
    }

    /// Asserts that all stores have the session as the map has it, by secret id and by public id.
    #[track_caller]
    fn check(&self, at: usize) {
        let Expected { token, id, .. } = &self.sessions[at];
        for by in ALL {
            let found = self.store(by).load(token);
            let found = found.unwrap_or_else(|error| panic!("{by:?} cannot load session {at}: {error}"));
            self.check_found(at, &found, &format!("by {by:?}"));
        }
        let found = self.store(By::Uncached).load_by_id(id);
        self.check_found(at, &found.unwrap_or_else(|error| panic!("session {at}: {error}")), "by its file");
    }

    /// After an error, finds out which of the candidates the store has, and expects that one from then on. An ended
    /// session must stay ended.
    #[track_caller]
    fn resolve(&mut self, at: usize, error: &Error, candidates: Vec<Option<Record>>) {
        let (now, token) = (self.clock.now(), self.sessions[at].token.clone());
        let is_live = |record: &Record| record.deadline() > now;
        let found =
            self.store(By::Uncached).load(&token).unwrap_or_else(|error| panic!("session {at}: {error}"));
        if let Lookup::Absent(Absent::Moved(moved)) = &found {
            assert!(candidates.contains(&None), "session {at} is {found:?} after {error}");
            if self.sessions[at].mark.is_none() {
                // The rotation failed after it had written its mark. Its successor, if there is one, was not
                // acknowledged.
                let mark = Mark { until: moved.until, by_login: moved.by_login, successor: None };
                (self.sessions[at].record, self.sessions[at].mark) = (None, Some(mark));
                self.store(By::Uncached).delete(&token).expect("no fault is left");
            }
            return self.check(at);
        }
        let mut fits = candidates.into_iter().filter(|candidate| match (&found, candidate) {
            (Lookup::Live(live), Some(record)) => is_live(record) && live.record == *record,
            (Lookup::Absent(Absent::NotFound(_)), None) => true,
            // A session that a cut-off has ended is not found. Its file may still be there, and is then found as
            // expired after its deadline; or a sweep has removed it.
            (Lookup::Absent(Absent::NotFound(_)), Some(record)) => self.cut_offs.has_ended(record),
            (Lookup::Absent(Absent::Expired(_)), Some(record)) => !is_live(record),
            _ => false,
        });
        let chosen = fits.next().unwrap_or_else(|| panic!("session {at} is {found:?} after {error}"));
        if fits.next().is_some_and(|other| other != chosen) {
            // Both candidates have expired, or a cut-off has ended them. Which one is stored does not show now, so the
            // session is ended.
            self.store(By::Uncached).delete(&token).expect("no fault is left");
            self.sessions[at].record = None;
        } else {
            self.sessions[at].record = chosen;
        }
        self.check(at);
    }

    fn import(&mut self, by: By, at: u8, safe: bool) {
        let Some(at) = self.index(at) else { return };
        let (id, mut record) = (self.sessions[at].id, self.record(at.to_le_bytes()[0]));
        record.set_cut_off(self.cut_offs.at_login(&record));
        let is_marked = self.sessions[at].mark.is_some_and(|mark| mark.is_within_grace(self.clock.now()));
        let was_live = self.is_live(at) || is_marked;
        if self.is_behind && !was_live {
            // An end that failed may have left the file under the session's name, which would keep the import from
            // using it.
            self.store(By::Uncached).delete_by_id(&id).expect("no fault is met");
            self.sessions[at].record = None;
        }
        let old = self.sessions[at].record.clone();
        match self.perform(by, |store| store.import(&id, &record, how(safe))) {
            Ok(imported) => {
                assert_eq!(imported, !was_live, "session {at}");
                if imported {
                    self.sessions[at].indexed = record.deadline();
                    // The cut-off is later than the present time, because the clock was set back, so it has ended the
                    // session.
                    self.cut_offs.files += usize::from(self.cut_offs.has_ended(&record));
                    self.sessions[at].record = Some(record);
                    self.sessions[at].mark = None;
                }
                self.check(at);
            }
            Err(error) => {
                // The import may have removed an expired session, or a mark, before it failed.
                let found = self.store(By::Uncached).load(&self.sessions[at].token);
                if !matches!(found, Ok(Lookup::Absent(Absent::Moved(_)))) {
                    self.sessions[at].mark = None;
                } else if old.is_none() {
                    return self.check(at);
                }
                let mut candidates = vec![old];
                self.cut_offs.files += usize::from(self.cut_offs.has_ended(&record));
                candidates.extend((!was_live).then_some([None, Some(record)]).into_iter().flatten());
                self.resolve(at, &error, candidates);
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Create { by, safe, minutes } => {
                let record = self.record(minutes);
                // If the creation fails, its id was not acknowledged.
                if let Ok(saved) = self.perform(by, |store| store.create(&record, how(safe))) {
                    let mut record = record;
                    record.set_cut_off(self.cut_offs.last);
                    assert_eq!(saved.live.record, record);
                    self.know(saved);
                }
            }
            Step::Load { by, at } => {
                let Some(at) = self.index(at) else { return };
                let token = self.sessions[at].token.clone();
                if let Ok(found) = self.perform(by, |store| store.load(&token)) {
                    self.check_found(at, &found, &format!("by {by:?}"));
                }
                self.check(at);
            }
            Step::Update { by, at, update } => self.update(by, at, update),
            Step::Keep { by, at } => {
                let Some(at) = self.index(at) else { return };
                let token = self.sessions[at].token.clone();
                let mut change = |record: &mut Record| {
                    record.clear();
                    Ok(Verdict::Keep)
                };
                if let Ok(kept) =
                    self.perform(by, |store| store.update(&token, &mut change, Durability::PowerSafe))
                {
                    assert_eq!(kept.as_ref().map(|saved| &saved.live.record), self.live(at), "session {at}");
                }
                self.check(at);
            }
            Step::Rotate { by, at, grace, logs_in } => {
                let how = Rotation::default().grace(Duration::from_secs(60 * u64::from(grace)));
                self.rotate(by, at, &if logs_in { how.login("ada") } else { how });
            }
            Step::Delete { by, at } => {
                let Some(at) = self.index(at) else { return };
                let token = self.sessions[at].token.clone();
                self.end(by, at, |store| store.delete(&token));
            }
            Step::End { by, at } => {
                let Some(at) = self.index(at) else { return };
                let id = self.sessions[at].id;
                self.end(by, at, |store| store.delete_by_id(&id));
            }
            Step::BringIn { by, at, safe } => self.import(by, at, safe),
            Step::CutOff { by, at, all } => self.cut_off(by, at, all),
            Step::Advance { minutes } => self.clock.advance(Duration::from_secs(97 * u64::from(minutes))),
            Step::SetBack { minutes } => {
                self.clock.set(self.clock.now() - Duration::from_secs(97 * u64::from(minutes)));
                self.is_behind = true;
            }
            Step::Sweep { by, full } => self.sweep(by, full),
            Step::Reopen { by } => {
                let (store, met) = self.with_fault(|model| open(model.dir.path(), &model.clock, by));
                match store {
                    Ok(store) => self.stores[by as usize] = store,
                    Err(error) => assert!(met, "{by:?} cannot open it: {error}"),
                }
            }
            Step::Fail { call, fault, for_good } => {
                self.fault = Some((call.into(), FAULTS[usize::from(fault) % FAULTS.len()], for_good));
            }
        }
    }

    fn update(&mut self, by: By, at: u8, Update { safe, kilobytes, renewed_by }: Update) {
        let Some(at) = self.index(at) else { return };
        let (token, old, text) =
            (self.sessions[at].token.clone(), self.live(at).cloned(), self.text(kilobytes));
        let changed = old.clone().map(|mut record| {
            let by = Duration::from_secs(60 * u64::from(renewed_by.unsigned_abs()));
            let deadline = if renewed_by < 0 { record.deadline() - by } else { record.deadline() + by };
            record.set_timing(Timing { deadline, touched: self.clock.now(), ..record.timing() });
            record.insert("text", &text).expect("it fits");
            record
        });
        let mut change = |record: &mut Record| {
            assert_eq!(Some(&*record), old.as_ref(), "what is changed is the newest version");
            record.clone_from(changed.as_ref().expect("what is changed is alive"));
            Ok(Verdict::Write)
        };
        match self.perform(by, |store| store.update(&token, &mut change, how(safe))) {
            Ok(saved) => {
                assert_eq!(saved.as_ref().map(|saved| &saved.live.record), changed.as_ref(), "session {at}");
                if let Some(changed) = changed {
                    self.sessions[at].save_deadline(changed.deadline(), self.clock.now());
                    self.sessions[at].record = Some(changed);
                }
                self.check(at);
            }
            Err(error) => {
                let mut candidates = vec![self.sessions[at].record.clone()];
                if matches!(error.kind(), ErrorKind::DurabilityUnknown | ErrorKind::InvalidationFailed) {
                    candidates.extend(changed.map(Some));
                }
                self.resolve(at, &error, candidates);
            }
        }
    }

    fn cut_off(&mut self, by: By, at: u8, all: bool) {
        let Some(at) = self.index(at) else { return };
        let user = self.sessions[at].record.as_ref().and_then(Record::user).map(str::to_owned);
        if user.is_none() && !all {
            return;
        }
        let user = user.filter(|_| !all);
        let now = micros(self.clock.now());
        let number = now.max(self.cut_offs.last + 1);
        let done = self.perform(by, |store| match &user {
            Some(user) => store.delete_of(user, None),
            None => store.delete_all(),
        });
        // A new session carries the number of the last cut-off, which tells whether the entry was written.
        let probe = self.record(2);
        let probe = self.store(By::Uncached).create(&probe, Durability::Relaxed).expect("no fault is left");
        self.store(By::Uncached).delete(&probe.token).expect("no fault is left");
        self.cut_offs.last = probe.live.record.login().cut_off;
        assert!(done.is_err() || self.cut_offs.last == number, "cut-off {number}");
        if self.cut_offs.last == number {
            self.cut_offs.put(user, now);
        }
        if done.is_err() {
            // Other stores may notice the entry a second later.
            self.stores.iter().for_each(|store| store.coherence.look_at_cut_offs());
        }
        let ended = self.sessions.iter().filter_map(|session| session.record.as_ref());
        self.cut_offs.files += ended.filter(|record| self.cut_offs.has_ended(record)).count();
        (0..self.sessions.len()).for_each(|at| self.check(at));
    }

    fn rotate(&mut self, by: By, at: u8, how: &Rotation<'_>) {
        let Some(named) = self.index(at) else { return };
        // A login under a moved token applies to the session that the token has moved to.
        let at = if how.login.is_some() { self.follow(named) } else { named };
        let token = self.sessions[named].token.clone();
        let (old, text) = (self.live(at).cloned(), self.text(0));
        let mut change = |record: &mut Record| {
            assert_eq!(Some(&*record), old.as_ref(), "what moves is the newest version");
            record.insert("text", &text).expect("it fits");
            Ok(Verdict::Write)
        };
        let has_fault = self.fault.is_some();
        match self.perform(by, |store| store.rotate(&token, &mut change, how)) {
            Ok(Some(saved)) => {
                let moved = old.map(|mut record| {
                    record.insert("text", &text).expect("it fits");
                    if how.login.is_some() {
                        record.set_cut_off(self.cut_offs.last);
                    }
                    record
                });
                assert_eq!(Some(&saved.live.record), moved.as_ref(), "session {at}");
                self.sessions[at].record = None;
                let until = self.clock.now() + how.grace;
                let mark =
                    Mark { until, by_login: how.login.is_some(), successor: Some(self.sessions.len()) };
                if !how.grace.is_zero() {
                    self.sessions[at].mark = Some(mark);
                    self.sessions[at].save_deadline(until, self.clock.now());
                }
                self.know(saved);
            }
            Ok(None) => assert_eq!(old, None, "session {at} was alive"),
            Err(error) => self.resolve(at, &error, vec![self.sessions[at].record.clone(), None]),
        }
        if has_fault {
            // If the mark could not be written, the rotation has ended the old session.
            self.check_marks();
        }
        self.check(at);
    }

    fn end(&mut self, by: By, at: usize, end: impl FnOnce(&FileStore) -> Result<Option<Deleted>, Error>) {
        let named = at;
        let at = self.follow(named);
        let (was_live, old) = (self.is_live(at), self.sessions[at].record.clone());
        let has_fault = self.fault.is_some();
        match self.perform(by, end) {
            Ok(ended) => {
                let ended = ended.map(|ended| ended.id);
                // After a fault the result may be `None`: the file was removed although it could not be read, or the
                // mark was, and its successor was not found.
                let expected = was_live.then_some(self.sessions[at].id);
                assert!(ended == expected || has_fault, "session {at}: {ended:?}");
                let is_live =
                    matches!(self.store(By::Uncached).load(&self.sessions[at].token), Ok(Lookup::Live(_)));
                if !(has_fault && at != named && is_live) {
                    self.sessions[at].record = None;
                }
            }
            Err(error) => self.resolve(at, &error, vec![old, None]),
        }
        if has_fault {
            self.check_marks();
        }
        self.check(at);
    }

    fn sweep(&mut self, by: By, full: bool) {
        let options = SweepOptions::new().cpu_percent(100).full(full);
        let had_fault = self.fault.is_some();
        // A load does not tell whether a session that a cut-off has ended still has its file.
        let has_expired = |record: &Record| record.deadline() <= self.clock.now();
        let expired: Vec<_> = (0..self.sessions.len())
            .filter(|at| self.sessions[*at].record.as_ref().is_some_and(has_expired))
            .collect();
        let is_over = |known: &Expected, now| known.mark.is_some_and(|mark| !mark.is_within_grace(now));
        let report = self.perform(by, |store| store.sweep(&options));
        if let Ok(report) = &report {
            let most = if self.is_behind { usize::MAX } else { expired.len() + self.cut_offs.files };
            assert!(report.removed <= most as u64, "{report:?}, where {expired:?} had expired");
            let over = self.sessions.iter().filter(|known| is_over(known, self.clock.now())).count();
            assert!(report.files.moved <= over as u64, "{report:?}, where {over} marks were over");
            assert!(report.failed == 0 || had_fault, "{report:?}");
            assert!(report.files.damaged == 0 && (report.files.unknown == 0 || had_fault), "{report:?}");
        }
        let now = self.clock.now();
        let mut left = 0;
        for at in expired {
            let found = self.store(By::Uncached).load(&self.sessions[at].token).expect("no fault is left");
            if matches!(found, Lookup::Absent(Absent::NotFound(_))) {
                self.sessions[at].record = None;
            } else {
                let is_due = self.sessions[at].indexed <= now;
                assert!(!is_due || self.is_behind, "session {at} had expired, and was left by {report:?}");
                left += 1;
            }
        }
        for at in 0..self.sessions.len() {
            if !is_over(&self.sessions[at], now) {
                continue;
            }
            let found = self.store(By::Uncached).load(&self.sessions[at].token).expect("no fault is left");
            if matches!(found, Lookup::Absent(Absent::NotFound(_))) {
                self.sessions[at].mark = None;
            } else {
                let is_due = self.sessions[at].indexed <= now;
                assert!(!is_due || self.is_behind, "the mark of session {at} was left by {report:?}");
            }
        }
        if report.is_ok() && !had_fault {
            for known in self.sessions.iter_mut().filter(|known| known.indexed <= now) {
                known.indexed = known.examined_at();
            }
        }
        if full && report.is_ok() && !had_fault {
            self.remove_leftovers();
            self.is_behind = false;
            self.cut_offs.files = 0;
        }
        if !self.is_behind {
            let files = self.store(By::Uncached).files().map(|file| file.expect("no fault is left").content);
            let (mut there, mut marked, mut expired) = (Vec::new(), Vec::new(), 0);
            for holds in files {
                match holds {
                    Content::Live(live) => there.push(live.id),
                    Content::Expired(_) => expired += 1,
                    Content::Moved(moved) => marked.push(moved.id),
                    // A sweep of due sessions leaves the file of a session that a cut-off has ended.
                    Content::CutOff(_) if self.cut_offs.files > 0 => {}
                    other => panic!("after {report:?} there is {other:?}"),
                }
            }
            assert_eq!(expired, left, "after {report:?}");
            let live = (0..self.sessions.len()).filter(|at| self.is_live(*at));
            let mut live: Vec<_> = live.map(|at| self.sessions[at].id).collect();
            there.sort_unstable();
            live.sort_unstable();
            assert_eq!(there, live, "after {report:?}");
            let marks = self.sessions.iter().filter(|known| known.mark.is_some());
            let mut marks: Vec<_> = marks.map(|known| known.id).collect();
            marked.sort_unstable();
            marks.sort_unstable();
            assert_eq!(marked, marks, "after {report:?}");
        }
        (0..self.sessions.len()).for_each(|at| self.check(at));
    }

    /// Removes the files that failed operations have left: those that are too young for a sweep, and those under a name
    /// that was not acknowledged. Each session that is listed for a user is live and this user's, as far as it is
    /// known, and a complete list has all of them.
    fn check_lists(&self) {
        let live =
            (0..self.sessions.len()).filter_map(|at| Some((self.sessions[at].id, self.live(at)?.user()?)));
        let live: BTreeSet<_> = live.collect();
        for user in live.iter().map(|(_, user)| *user).collect::<BTreeSet<_>>() {
            let page = Page { after: None, limit: usize::MAX };
            let page = self.store(By::Uncached).sessions_of(user, &page).expect("no fault is left");
            let listed: BTreeSet<_> = page.sessions.iter().map(|session| session.id).collect();
            let known = listed.iter().filter(|id| self.sessions.iter().any(|known| known.id == **id));
            known.for_each(|id| assert!(live.contains(&(*id, user)), "{id} is listed for {user:?}"));
            let is_listed = |(id, of): &(PublicId, &str)| *of != user || listed.contains(id);
            assert!(!page.complete || live.iter().all(is_listed), "{user:?} has {live:?}, and {page:?}");
        }
    }

    fn remove_leftovers(&self) {
        let files: Vec<_> =
            self.store(By::Uncached).files().map(|file| file.expect("no fault is left")).collect();
        for file in files {
            let is_leftover = match &file.content {
                Content::Live(live) => !self.sessions.iter().any(|known| known.id == live.id),
                Content::Unfinished(_) | Content::Temporary => true,
                _ => false,
            };
            if is_leftover {
                fs::remove_file(file.path).expect("a file");
            }
        }
    }
}

fn how(safe: bool) -> Durability {
    if safe { Durability::PowerSafe } else { Durability::Relaxed }
}
