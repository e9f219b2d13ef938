//! Checks the state of the disk that a power cut has left. Mounts the image, so that the file system replays its
//! journal, opens the store as a program does, and compares its sessions with those that the acknowledgements promise.
use crate::content;
use crate::cut::{Builder, Cut, Places};
use crate::disk::Pages;
use crate::history::{History, Known};
use crate::log::{Life, Micros, Recording};
use crate::operation::GRACE;
use crate::rig::Rig;
use crate::stop;
use anyhow::{Context, Result, anyhow};
use sessile::admin::{SweepOptions, SweepOutcome};
use sessile::file::{Content, ScannedFile};
use sessile::{
    Admin, Clock, Durability, FileStore, FileStoreOptions, Live, Lookup, Moved, PublicId, Record, Rotation,
    Saved, Store, Verdict,
};
use std::collections::HashMap;
use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

/// The store's directory in the file system.
pub(crate) const STORE: &str = "store";
/// The age that leftovers are given, so that a sweep removes them at once.
const LEFT_FOR: Duration = Duration::from_secs(7200);

/// What is checked, and how.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The seed of the crash states. With the number of a state, it determines that state.
    pub(crate) seed: u64,
    /// The number of the first state.
    pub(crate) first: u32,
    /// The number of states to check.
    pub(crate) states: u32,
    /// If given, one state is checked instead: after this number of events the kernel crashes, and the disk keeps all
    /// writes.
    pub(crate) at: Option<usize>,
    /// Number of disks that are checked at the same time.
    pub(crate) lanes: u32,
    /// The check stops at a failure that contains one of these texts.
    pub(crate) until: Vec<String>,
}

/// Results of a check.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Number of states that were checked.
    pub(crate) states: u32,
    /// The states that break a promise: the number of each, the place of its power cut, and the broken promises.
    pub(crate) failures: Vec<(u32, String)>,
    /// The number of sessions that were promised and present, over all states.
    pub(crate) present: u64,
    /// The number of states without unflushed writes, with one, with two, and with more.
    pub(crate) unflushed: [u32; 4],
    /// The number of files in all states whose bytes fail their checks. They break no promise: no version of them was
    /// promised, and none is returned as data.
    pub(crate) damaged: u64,
}

impl Findings {
    /// Adds the results of another check.
    pub(crate) fn add(&mut self, other: Self) {
        self.states += other.states;
        self.failures.extend(other.failures);
        self.failures.sort_unstable();
        self.present += other.present;
        self.unflushed.iter_mut().zip(other.unflushed).for_each(|(sum, more)| *sum += more);
        self.damaged += other.damaged;
    }

    /// Whether a failure was found that contains one of these texts.
    pub(crate) fn show(&self, shown: &[String]) -> bool {
        self.failures.iter().any(|(_, failure)| shows(failure, shown))
    }
}

/// Whether a failure contains one of these texts.
pub(crate) fn shows(failure: &str, shown: &[String]) -> bool {
    shown.iter().any(|text| failure.contains(text))
}

/// Checks the states of a recording, on several disks at the same time.
///
/// # Errors
///
/// A disk cannot be set up. A broken promise is not an error.
pub(crate) fn check(recording: &Recording, plan: &Plan) -> Result<Findings> {
    let places = Places::of(recording);
    let mut cuts: Vec<_> = match plan.at {
        Some(at) => vec![places.crash(at)],
        None => (plan.first..plan.first + plan.states).map(|state| places.cut(plan.seed, state)).collect(),
    };
    cuts.sort_by_key(|cut| cut.at);
    let enough = AtomicBool::new(false);
    let share = cuts.len().div_ceil(plan.lanes.max(1) as usize).max(1);
    thread::scope(|scope| {
        let lanes: Vec<_> = cuts
            .chunks_mut(share)
            .map(|cuts| scope.spawn(|| check_lane(recording, cuts, &plan.until, &enough)))
            .collect();
        let mut findings = Findings::default();
        for lane in lanes {
            findings.add(lane.join().map_err(|_| anyhow!("a thread that checks states panicked"))??);
        }
        Ok(findings)
    })
}

fn check_lane(
    recording: &Recording,
    cuts: &mut [Cut],
    until: &[String],
    enough: &AtomicBool,
) -> Result<Findings> {
    let below = tempfile::tempdir().context("create a directory for a disk")?;
    let (mut builder, image) = Builder::new(recording);
    let rig = Rig::new(recording.filesystem, image, Pages::Kept, below.path())?;
    let mut findings = Findings::default();
    for cut in cuts {
        stop::ensure_not_stopped()?;
        if enough.load(Ordering::Relaxed) {
            break;
        }
        let unflushed = rig.disk.exchange(|image| builder.build(cut, image))?;
        let history = History::at(&recording.events, cut.at);
        let mut state = State {
            history: &history,
            broken: vec![],
            leftovers: vec![],
            marks: vec![],
            present: 0,
            damaged: 0,
        };
        state.check(&rig)?;
        findings.states += 1;
        findings.unflushed[unflushed.min(3)] += 1;
        findings.present += state.present;
        findings.damaged += state.damaged;
        if !state.broken.is_empty() {
            findings.failures.push((cut.state, format!("{cut}: {}", state.broken.join("; "))));
            enough.fetch_or(findings.show(until), Ordering::Relaxed);
        }
    }
    Ok(findings)
}

/// One state during its check.
struct State<'a> {
    history: &'a History,
    /// The descriptions of the broken promises.
    broken: Vec<String>,
    /// The paths of files that a sweep removes when they are old enough.
    leftovers: Vec<PathBuf>,
    /// The ids that the store reports as moved.
    marks: Vec<Moved>,
    present: u64,
    damaged: u64,
}

/// For each life that was found, its version and its public id.
type Found = HashMap<Life, (u32, PublicId)>;

impl State<'_> {
    /// Checks the state.
    ///
    /// # Errors
    ///
    /// The disk cannot be unmounted. A broken promise is not an error.
    fn check(&mut self, rig: &Rig) -> Result<()> {
        let mounted = match rig.mount() {
            Ok(mounted) => mounted,
            Err(error) => {
                self.broken.push(format!("{error:#}"));
                return Ok(());
            }
        };
        if let Err(error) = self.examine(mounted.path()) {
            self.broken.push(format!("{error:#}"));
        }
        mounted.unmount()
    }

    fn examine(&mut self, mounted: &Path) -> Result<()> {
        let store = open(&mounted.join(STORE), self.history.not_before)?;
        let found = self.check_files(&store)?;
        self.compare(&found);
        self.compare_marks();
        self.sweep(&store, &found)?;
        goes_on(&store, self.history.not_before)
    }

    /// Checks every session file, and returns the sessions that were found.
    fn check_files(&mut self, store: &FileStore) -> Result<Found> {
        let mut found = Found::new();
        for stored in store.files() {
            let file = stored.context("examine a file of the store")?;
            if matches!(file.content, Content::Damaged(_) | Content::Unfinished(_) | Content::Temporary) {
                self.leftovers.push(file.path.clone());
            }
            match &file.content {
                Content::Live(there) | Content::Expired(there) => match content::verify(&there.record) {
                    Ok((life, version)) => {
                        if let Some((_, other)) = found.insert(life, (version, there.id)) {
                            self.broken
                                .push(format!("life {life:x} is in two files, {other} and {}", there.id));
                        }
                        let is_live = matches!(file.content, Content::Live(_));
                        self.check_version(life, version, is_live, there);
                    }
                    Err(error) => self.broken.push(format!("{} is torn: {error:#}", there.id)),
                },
                Content::Moved(moved) => {
                    self.check_mark(*moved);
                    self.marks.push(*moved);
                }
                // A cut-off has ended the session, even if its file has an older version.
                Content::CutOff(there) => match content::verify(&there.record) {
                    Ok((life, version)) => self.check_version(life, version, false, there),
                    Err(error) => self.broken.push(format!("{} is torn: {error:#}", there.id)),
                },
                Content::Damaged(id) => {
                    self.damaged += 1;
                    self.check_name(*id, "damaged");
                }
                // After a power cut, the name of an ended session may be back, if it leads to a tombstone.
                Content::Unfinished(_) | Content::Temporary => {}
                _ => self.broken.push(format!("{} is not a file that the store creates", name(&file))),
            }
        }
        Ok(found)
    }

    /// Checks a version that was found: its writing must have begun, and the session must not have ended.
    fn check_version(&mut self, life: Life, version: u32, is_live: bool, there: &Live) {
        let Some(known) = self.history.lives.get(&life) else {
            self.broken.push(format!("life {life:x} is there before its creation began"));
            return;
        };
        if known.file.is_some_and(|file| file != *there.id.as_bytes()) {
            self.broken
                .push(format!("life {life:x} is foreign: it is in the file of another one, {}", there.id));
        }
        if version == 0 || version > known.newest {
            self.broken.push(format!("life {life:x} is at {version}, and {} was the newest", known.newest));
        }
        if there.record.deadline() != UNIX_EPOCH + Duration::from_micros(known.deadline) {
            self.broken.push(format!("life {life:x} has a different deadline than it was given"));
        }
        // A session that had expired and was swept may be back, because it has still expired.
        if let Some(end) = known.ended.filter(|_| is_live) {
            let end = end.name();
            self.broken.push(format!("life {life:x} is back at {version}: its {end} was acknowledged"));
        }
    }

    /// Checks that the id of a life is reported as moved only if its rotation has begun.
    fn check_mark(&mut self, moved: Moved) {
        let life = self.history.life_of(moved.id.as_bytes());
        let Some((life, known)) = life.map(|life| (life, &self.history.lives[&life])) else { return };
        if known.ended.is_none() && known.successors.is_empty() {
            self.broken.push(format!("life {life:x} is moved, and no rotation of it has begun"));
        }
    }

    /// Checks that the id of each life whose rotation was acknowledged is reported as moved.
    fn compare_marks(&mut self) {
        for (life, known) in self.history.lives.iter().filter(|(_, known)| self.history.owes_mark(known)) {
            let is_there = |file: [u8; 20]| self.marks.iter().any(|moved| *moved.id.as_bytes() == file);
            if !known.file.is_none_or(is_there) {
                self.broken.push(format!("the mark of life {life:x} is lost: its move was acknowledged"));
            }
        }
    }

    /// Checks that a damaged file does not have the name of a session whose deletion or rotation was acknowledged. (The
    /// file of a session that only a cut-off has ended was perhaps never synced.)
    fn check_name(&mut self, id: PublicId, what: &str) {
        let Some(life) = self.history.life_of(id.as_bytes()) else { return };
        if let Some(end) = self.history.lives[&life].ended.filter(|end| end.is_in_file()) {
            let end = end.name();
            self.broken
                .push(format!("the name of life {life:x} is back, {what}: its {end} was acknowledged"));
        }
    }

    /// Checks that every promised session is present.
    fn compare(&mut self, found: &Found) {
        for (life, known) in &self.history.lives {
            let Some(owed) = self.owed(known) else { continue };
            let there = found.get(life).is_some_and(|(version, _)| *version >= owed);
            let rotated = known.successors.iter().any(|successor| found.contains_key(successor));
            if there || rotated {
                self.present += 1;
                continue;
            }
            let instead =
                found.get(life).map_or("it is gone".into(), |(version, _)| format!("it is at {version}"));
            self.broken
                .push(format!("life {life:x} is lost: version {owed} was acknowledged, and {instead}"));
        }
    }

    fn owed(&self, known: &Known) -> Option<u32> {
        let gone = known.ended.is_some()
            || !known.endings.is_empty()
            || !self.history.was_in_time(known)
            || self.history.may_have_been_followed(known);
        known.owed.filter(|_| !gone)
    }

    /// Sweeps once. Checks that all sessions that have not expired are still there, and that no other file is.
    fn sweep(&mut self, store: &FileStore, found: &Found) -> Result<()> {
        self.leftovers.iter().try_for_each(|path| age(path))?;
        let options = SweepOptions::new().full(true).cpu_percent(100).keep_damaged(Duration::from_secs(3600));
        let report = store.sweep(&options).context("sweep the store")?;
        if report.outcome != SweepOutcome::Completed || report.failed > 0 {
            self.broken.push(format!("the sweep ended {:?} with {:?}", report.outcome, report.errors));
        }
        let now = UNIX_EPOCH + Duration::from_micros(self.history.not_before);
        let is_in_time = |moved: &Moved| moved.until > now;
        let (mut left, mut marks) = (Found::new(), 0);
        for file in store.files() {
            let file = file.context("examine a file after the sweep")?;
            if let Content::Live(live) = &file.content {
                let (life, version) = content::identify(&live.record)?;
                left.insert(life, (version, live.id));
            } else if let Content::Moved(moved) = &file.content
                && is_in_time(moved)
            {
                marks += 1;
            } else {
                self.broken.push(format!("the sweep left {}: {:?}", name(&file), file.content));
            }
        }
        if marks != self.marks.iter().filter(|moved| is_in_time(moved)).count() {
            self.broken.push("the sweep removed the mark of a moved id within its grace period".into());
        }
        for (life, (version, id)) in found {
            let known = self.history.lives.get(life);
            let is_live = known.is_some_and(|known| known.deadline > self.history.not_before);
            if is_live && left.get(life) != Some(&(*version, *id)) {
                self.broken.push(format!("the sweep removed life {life:x}, which had not expired"));
            }
        }
        Ok(())
    }
}

/// Opens the store, with its clock at this time. Creates it if the power was cut before it existed.
fn open(path: &Path, at: Micros) -> Result<FileStore> {
    FileStoreOptions::new()
        .cache_bytes(0)
        .clock(Clock::manual(UNIX_EPOCH + Duration::from_micros(at)))
        .open(path)
        .context("open the store after the cut")
}

/// Checks that the store can be used: a session can be created, loaded and deleted.
fn goes_on(store: &FileStore, at: Micros) -> Result<()> {
    let now = UNIX_EPOCH + Duration::from_micros(at);
    let mut record = Record::new(now, now + Duration::from_secs(600));
    content::fill(&mut record, Life::MAX, 1)?;
    let saved = store.create(&record, Durability::PowerSafe).context("create a session after the cut")?;
    let found = store.load(&saved.token).context("load a session after the cut")?;
    let Lookup::Live(live) = found else { return Err(anyhow!("a session created after the cut is absent")) };
    content::verify(&live.record).context("read a session created after the cut")?;
    store.delete(&saved.token).context("delete a session after the cut")?;
    let moved = store.create(&record, Durability::PowerSafe).context("create a session to be moved")?;
    store.update(&moved.token, &mut |_| Ok(Verdict::Write), Durability::PowerSafe).context("save it")?;
    stays_dead_if_damaged(store, &moved)
}

/// Damages the mark of a moved session. Checks that the version before the mark is not returned.
fn stays_dead_if_damaged(store: &FileStore, session: &Saved) -> Result<()> {
    let how = Rotation::new(Durability::PowerSafe).grace(GRACE);
    let moved = store.rotate(&session.token, &mut |_| Ok(Verdict::Keep), &how).context("move a session")?;
    let successor = moved.ok_or_else(|| anyhow!("a session to be moved is absent"))?;
    let name = session.live.id.to_string();
    let path = store.path().join(&name[..2]).join(&name[2..]);
    let mut bytes = fs::read(&path).context("read the file of a moved session")?;
    let slot = bytes.len() / 2;
    let at = [0, slot].into_iter().find(|at| bytes[*at..].starts_with(b"MOVE")).context("find the mark")?;
    bytes[at..at + 4].fill(0xff);
    fs::write(&path, bytes).context("damage the mark of a moved session")?;
    if let Lookup::Live(_) = store.load(&session.token).context("load a session by a damaged mark")? {
        return Err(anyhow!("a moved session is back behind its damaged mark"));
    }
    store.delete(&session.token).context("delete a damaged mark")?;
    store.delete(&successor.token).context("delete a moved session").map(drop)
}

/// Sets an old modification time on a leftover.
fn age(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("open the leftover {}", path.display()))?;
    let written = file.metadata().and_then(|metadata| metadata.modified());
    let written = written.with_context(|| format!("examine the leftover {}", path.display()))?;
    file.set_times(FileTimes::new().set_modified(written - LEFT_FOR))
        .with_context(|| format!("age the leftover {}", path.display()))
}

fn name(file: &ScannedFile) -> String {
    let mut parts = file.path.iter().rev().take(2).map(|part| part.to_string_lossy());
    let last = parts.next().unwrap_or_default();
    parts.next().map_or(last.to_string(), |shard| format!("{shard}/{last}"))
}
