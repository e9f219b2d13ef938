//! The engine's law, as a map: a script drives two stores on one directory, one with a cache and one without, with clock
//! steps, re-openings, sweeps and failing calls in between, and whatever can be observed is what a map of the sessions says.
//!
//! Run by `cargo test` (`tests/histories.rs`) and by the fuzzer (`fuzz/fuzz_targets/store_model.rs`).
//!
//! - Without a fault, every answer is exact.
//! - With one, an act may fail; then the session is what [`store`](crate::store) says of that error: at its old version,
//!   or, where the kind leaves it open, at the old or the new one, or ended. Which one is looked up, and is the truth from
//!   then on.
//! - What was ended or has expired never comes back, under any store.
use super::disk::faults::during;
use super::layout::{DUE, SHARDS, shard_name};
use super::{FileStore, FileStoreOptions, SweepOptions};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::id::Token;
use crate::record::Record;
use crate::store::{Durability, Lookup, Saved, Store, Verdict};
use crate::value::Value;
use rustix::io::Errno;
use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// Longer than a copy in memory is trusted without a look.
const TRUST: Duration = Duration::from_secs(61);
const ERRNOS: [Errno; 6] = [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::ACCESS, Errno::ROFS];

/// Which of the two stores acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Cached,
    Bare,
}

/// One line of a script. `at` is a session, by the order in which they were made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Create {
        by: By,
        safe: bool,
        minutes: u8,
    },
    Load {
        by: By,
        at: u8,
    },
    /// With another text of `kilobytes`, which may need a larger file, and, if it is renewed, a later deadline.
    Update {
        by: By,
        at: u8,
        safe: bool,
        kilobytes: u8,
        renew: bool,
    },
    Keep {
        by: By,
        at: u8,
    },
    Rotate {
        by: By,
        at: u8,
    },
    Delete {
        by: By,
        at: u8,
    },
    Advance {
        minutes: u8,
    },
    Sweep {
        by: By,
        full: bool,
    },
    Reopen {
        by: By,
    },
    /// The next act's call of this number fails.
    Fail {
        call: u8,
        errno: u8,
    },
}

impl From<[u8; 4]> for Step {
    fn from([what, at, a, b]: [u8; 4]) -> Self {
        let by = if b & 1 == 0 { By::Cached } else { By::Bare };
        let safe = b & 2 != 0;
        match what % 12 {
            0 => Self::Create { by, safe, minutes: a },
            1 | 2 => Self::Load { by, at },
            3 | 4 => Self::Update { by, at, safe, kilobytes: a % 8, renew: b & 4 != 0 },
            5 => Self::Keep { by, at },
            6 => Self::Rotate { by, at },
            7 => Self::Delete { by, at },
            8 => Self::Advance { minutes: a },
            // All 256 shards are walked, which takes as long as many other lines.
            9 => Self::Sweep { by, full: b & 0x1e == 2 },
            10 => Self::Reopen { by },
            _ => Self::Fail { call: a % 24, errno: b },
        }
    }
}

/// What is known of one session.
#[derive(Clone, Debug)]
struct Known {
    token: Token,
    /// `None` if it was ended: it must never be found again.
    text: Option<String>,
    deadline: SystemTime,
}

struct Model {
    dir: TempDir,
    clock: Clock,
    cached: FileStore,
    bare: FileStore,
    sessions: Vec<Known>,
    /// Makes each version's text different from all others.
    versions: u64,
    fault: Option<(usize, Errno)>,
    /// Whether a fault has met anything: what it left may be found by a sweep.
    has_failed: bool,
}

fn open(dir: &Path, clock: &Clock, by: By) -> FileStore {
    let cache_bytes = if by == By::Cached { 1 << 20 } else { 0 };
    let options = FileStoreOptions::new().cache_bytes(cache_bytes).watch(false).clock(clock.clone());
    options.open(dir).expect("the directory is a store")
}

thread_local! {
    /// A store without sessions, left by the last script: making one takes longer than most scripts.
    static EMPTY: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

fn directory() -> TempDir {
    // What a real disk makes of a sync is not the matter here.
    let new = || tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    EMPTY.take().unwrap_or_else(|| new().expect("a temporary directory"))
}

fn text_of(record: &Record) -> String {
    record.entries["text"].get().expect("a text")
}

/// Runs a script.
///
/// # Panics
///
/// If anything differs from what the map says.
pub(super) fn run(script: &[Step]) {
    let dir = directory();
    let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let (cached, bare) = (open(dir.path(), &clock, By::Cached), open(dir.path(), &clock, By::Bare));
    let (sessions, versions, fault, has_failed) = (Vec::new(), 0, None, false);
    let mut model = Model { dir, clock, cached, bare, sessions, versions, fault, has_failed };
    for step in script {
        model.step(*step);
    }
    model.fault = None;
    for at in 0..model.sessions.len() {
        model.check(at);
    }
    // Somebody who comes later sees the same.
    model.cached = open(model.dir.path(), &model.clock, By::Cached);
    (0..model.sessions.len()).for_each(|at| model.check(at));
    model.clear();
}

impl Model {
    /// Leaves an empty store for the next script.
    fn clear(self) {
        for known in &self.sessions {
            self.bare.delete(&known.token).expect("no fault is left");
        }
        if self.has_failed {
            // What a failed act left, under a name that it had not told anybody or a temporary one.
            for shard in (0..SHARDS).map(shard_name) {
                let files = fs::read_dir(self.dir.path().join(shard)).expect("a shard");
                files.for_each(|file| fs::remove_file(file.expect("a name").path()).expect("a file"));
            }
        }
        let due = fs::remove_dir_all(self.dir.path().join(DUE));
        assert!(due.is_ok() || self.sessions.is_empty() || self.has_failed, "{due:?}");
        EMPTY.set(Some(self.dir));
    }

    fn store(&self, by: By) -> &FileStore {
        match by {
            By::Cached => &self.cached,
            By::Bare => &self.bare,
        }
    }

    /// Lets one store act, with the fault that is due, if any.
    fn act<R>(&mut self, by: By, act: impl FnOnce(&FileStore) -> Result<R, Error>) -> Result<R, Error> {
        let Some((call, errno)) = self.fault.take() else {
            let done = act(self.store(by));
            return Ok(done.unwrap_or_else(|error| panic!("{by:?} failed without a fault: {error}")));
        };
        let fail = move |n, _: &str| (n == call).then_some(errno.raw_os_error());
        let (done, calls) = during(fail, || act(self.store(by)));
        // An act that makes fewer calls has no excuse.
        self.has_failed |= calls.len() > call;
        assert!(done.is_ok() || calls.len() > call, "{by:?} failed before the fault: {:?}", done.err());
        if done.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unannounced) {
            // For a minute others may not see what was changed.
            self.clock.advance(TRUST);
        }
        done
    }

    fn index(&self, at: u8) -> Option<usize> {
        (!self.sessions.is_empty()).then(|| usize::from(at) % self.sessions.len())
    }

    fn is_live(&self, at: usize) -> bool {
        self.sessions[at].text.is_some() && self.sessions[at].deadline > self.clock.now()
    }

    fn text(&mut self, kilobytes: u8) -> String {
        self.versions += 1;
        format!("{} ", self.versions).repeat(1 + usize::from(kilobytes) * 1024 / 8)
    }

    fn record(&mut self, minutes: u8) -> Record {
        let now = self.clock.now();
        let mut record = Record::new(now, now + Duration::from_secs(60 * (1 + u64::from(minutes))));
        let text = self.text(0);
        record.entries.insert("text".into(), Value::new(&text).expect("a value"));
        record
    }

    /// Both stores find what the map says.
    #[track_caller]
    fn check(&self, at: usize) {
        let known = &self.sessions[at];
        let want = known.text.as_ref().filter(|_| self.is_live(at));
        for by in [By::Cached, By::Bare] {
            let found = match self.store(by).load(&known.token) {
                Ok(Lookup::Live(live)) => Some(live.record),
                Ok(Lookup::Absent(_)) => None,
                Err(error) => panic!("session {at} cannot be loaded by {by:?}: {error}"),
            };
            assert_eq!(
                found.as_ref().map(|record| text_of(record)).as_ref(),
                want,
                "session {at}, by {by:?}"
            );
            assert!(found.is_none_or(|record| record.deadline == known.deadline), "session {at}, by {by:?}");
        }
    }

    /// After an error: which of these is it? A session that has ended since stays so.
    #[track_caller]
    fn resolve(&mut self, at: usize, error: &Error, candidates: &[(Option<String>, SystemTime)]) {
        let found = match self.bare.load(&self.sessions[at].token) {
            Ok(Lookup::Live(live)) => (Some(text_of(&live.record)), live.record.deadline),
            Ok(Lookup::Absent(_)) => (None, UNIX_EPOCH),
            Err(error) => panic!("session {at} cannot be loaded: {error}"),
        };
        let is_expired = |deadline: SystemTime| deadline <= self.clock.now();
        let fits = |(text, deadline): &(Option<String>, SystemTime)| {
            found == (text.clone(), *deadline)
                || found.0.is_none() && (text.is_none() || is_expired(*deadline))
        };
        let chosen = candidates.iter().find(|candidate| fits(candidate));
        let (text, deadline) =
            chosen.unwrap_or_else(|| panic!("session {at} is at {found:?} after {error}")).clone();
        self.sessions[at].text = text;
        self.sessions[at].deadline = deadline;
        self.check(at);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Create { by, safe, minutes } => {
                let record = self.record(minutes);
                // Nobody was told the id of one that failed.
                if let Ok(Saved { token, live }) = self.act(by, |store| store.create(&record, how(safe))) {
                    let (text, deadline) = (Some(text_of(&live.record)), live.record.deadline);
                    self.sessions.push(Known { token, text, deadline });
                    self.check(self.sessions.len() - 1);
                }
            }
            Step::Load { by, at } => {
                let Some(at) = self.index(at) else { return };
                let token = self.sessions[at].token.clone();
                match self.act(by, |store| store.load(&token)) {
                    Ok(Lookup::Live(live)) => {
                        assert!(self.is_live(at), "session {at} is alive");
                        assert_eq!(Some(text_of(&live.record)), self.sessions[at].text, "session {at}");
                    }
                    Ok(Lookup::Absent(why)) => assert!(!self.is_live(at), "session {at} is {why:?}"),
                    Err(_) => {}
                }
                self.check(at);
            }
            Step::Update { by, at, safe, kilobytes, renew } => self.update(by, at, safe, kilobytes, renew),
            Step::Keep { by, at } => {
                let Some(at) = self.index(at) else { return };
                let token = self.sessions[at].token.clone();
                let mut change = |record: &mut Record| {
                    record.entries.clear();
                    Ok(Verdict::Keep)
                };
                if let Ok(kept) =
                    self.act(by, |store| store.update(&token, &mut change, Durability::PowerSafe))
                {
                    assert_eq!(kept.is_some(), self.is_live(at), "session {at}");
                    let text = kept.map(|saved| text_of(&saved.live.record));
                    assert!(text.is_none() || text == self.sessions[at].text, "session {at}: {text:?}");
                }
                self.check(at);
            }
            Step::Rotate { by, at } => self.rotate(by, at),
            Step::Delete { by, at } => {
                let Some(at) = self.index(at) else { return };
                let (token, was_live) = (self.sessions[at].token.clone(), self.is_live(at));
                let old = (self.sessions[at].text.clone(), self.sessions[at].deadline);
                match self.act(by, |store| store.delete(&token)) {
                    Ok(was_there) => {
                        // Where it could not be read it was removed all the same.
                        assert!(was_there == was_live || self.has_failed, "session {at}");
                        self.sessions[at].text = None;
                        self.check(at);
                    }
                    Err(error) => self.resolve(at, &error, &[(None, old.1), old.clone()]),
                }
            }
            Step::Advance { minutes } => self.clock.advance(Duration::from_secs(97 * u64::from(minutes))),
            Step::Sweep { by, full } => {
                let options = SweepOptions::new().core_share_percent(100).full(full);
                let due = (0..self.sessions.len()).filter(|at| !self.is_live(*at)).count();
                if let Ok(report) = self.act(by, |store| store.sweep(&options)) {
                    assert!(
                        report.removed <= due as u64 || self.has_failed,
                        "{report:?}, where {due} were due"
                    );
                    assert!(report.failed == 0 || self.has_failed, "{report:?}");
                    assert_eq!((report.damaged, report.unknown), (0, 0), "{report:?}");
                    if full && !self.has_failed {
                        let live = (0..self.sessions.len()).filter(|at| self.is_live(*at)).count();
                        let files = self.bare.files().count();
                        assert_eq!(files, live, "after {report:?}");
                    }
                }
                (0..self.sessions.len()).for_each(|at| self.check(at));
            }
            Step::Reopen { by } => {
                let store = open(self.dir.path(), &self.clock, by);
                match by {
                    By::Cached => self.cached = store,
                    By::Bare => self.bare = store,
                }
            }
            Step::Fail { call, errno } => {
                self.fault = Some((call.into(), ERRNOS[usize::from(errno) % ERRNOS.len()]));
            }
        }
    }

    fn update(&mut self, by: By, at: u8, safe: bool, kilobytes: u8, renew: bool) {
        let Some(at) = self.index(at) else { return };
        let (old, text) = (self.sessions[at].clone(), self.text(kilobytes));
        let deadline = if renew { old.deadline + Duration::from_secs(600) } else { old.deadline };
        let mut change = |record: &mut Record| {
            assert_eq!(Some(text_of(record)), old.text, "what is changed is the newest version");
            record.entries.insert("text".into(), Value::new(&text)?);
            record.deadline = deadline;
            Ok(Verdict::Write)
        };
        match self.act(by, |store| store.update(&old.token, &mut change, how(safe))) {
            Ok(saved) => {
                assert_eq!(saved.is_some(), self.is_live(at), "session {at}");
                if let Some(saved) = saved {
                    assert_eq!(text_of(&saved.live.record), text, "session {at}");
                    self.sessions[at] = Known { text: Some(text), deadline, ..old };
                }
                self.check(at);
            }
            Err(error) => {
                let mut candidates = vec![(old.text, old.deadline)];
                if matches!(error.kind(), ErrorKind::DurabilityUnknown | ErrorKind::Unannounced) {
                    candidates.push((Some(text), deadline));
                }
                self.resolve(at, &error, &candidates);
            }
        }
    }

    fn rotate(&mut self, by: By, at: u8) {
        let Some(at) = self.index(at) else { return };
        let (old, text) = (self.sessions[at].clone(), self.text(0));
        let mut change = |record: &mut Record| {
            record.entries.insert("text".into(), Value::new(&text)?);
            Ok(Verdict::Write)
        };
        match self.act(by, |store| store.rotate(&old.token, &mut change, Durability::Relaxed)) {
            Ok(Some(Saved { token, .. })) => {
                assert!(self.is_live(at), "session {at} was dead");
                self.sessions[at].text = None;
                self.sessions.push(Known { token, text: Some(text), deadline: old.deadline });
                self.check(self.sessions.len() - 1);
            }
            Ok(None) => assert!(!self.is_live(at), "session {at} was alive"),
            Err(error) => self.resolve(at, &error, &[(old.text.clone(), old.deadline), (None, old.deadline)]),
        }
        self.check(at);
    }
}

fn how(safe: bool) -> Durability {
    if safe { Durability::PowerSafe } else { Durability::Relaxed }
}
