//! Makes a recording: a disk, a file system, a store on it and the workload. It kills and stops the workload's
//! processes, and at times makes the kernel write data back.
use crate::check::STORE;
use crate::disk::Pages;
use crate::filesystem::FileSystem;
use crate::image::Image;
use crate::log::{Note, Recording};
use crate::operation::{Call, Notes, Operation};
use crate::rig::Rig;
use crate::stop;
use crate::tally::Tally;
use crate::workload::{Level, Scene, THREADS, hand_of};
use crate::write_back::begin_write_back;
use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rustix::fs::syncfs;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

/// The number of processes that run at the same time.
const PROCESSES: usize = 3;

/// How much longer than requested a workload runs, at most, until every required event has happened.
const PATIENCE: Duration = Duration::from_secs(12);

/// Parameters of a recording.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    /// The file system to format the disk with.
    pub(crate) filesystem: FileSystem,
    /// The durability of most saves.
    pub(crate) durability: Level,
    /// The time for which the workload runs.
    pub(crate) time: Duration,
    /// The seed of the workload. The scheduling of processes adds other chances.
    pub(crate) seed: u64,
}

/// Records a workload.
///
/// # Errors
///
/// The disk cannot be set up, or a process of the workload failed.
pub(crate) fn record(script: Script) -> Result<Recording> {
    let below = tempfile::tempdir().context("create a directory for the disk")?;
    let memory = tempfile::tempdir_in("/dev/shm").context("create a directory in memory")?;
    let formatted = memory.path().join("formatted");
    script.filesystem.make(&formatted)?;
    let image = Image::new(fs::read(&formatted).context("read the new file system")?);
    fs::remove_file(&formatted).context("remove the new file system's file")?;
    let rig = Rig::new(script.filesystem, image, Pages::Direct, below.path())?;
    let mounted = rig.mount()?;
    let root = File::open(mounted.path()).context("open the mounted file system")?;
    syncfs(&root).context("sync the mounted file system")?;
    let base = {
        let mut contents = rig.disk.contents();
        contents.image.settle_all();
        contents.events = Some(Vec::new());
        contents.image.extents()
    };
    let scene = Scene {
        store: mounted.path().join(STORE),
        table: memory.path().to_owned(),
        notes: rig.disk.notes(),
        durability: script.durability,
    };
    let has_all = || {
        let contents = rig.disk.contents();
        contents.events.as_ref().is_none_or(|events| Tally::of(events).missing().is_empty())
    };
    let worked = work(script, &scene, &root, &has_all);
    let events = rig.disk.contents().events.take().unwrap_or_default();
    worked?;
    Ok(Recording { filesystem: script.filesystem, bytes: script.filesystem.bytes(), base, events })
}

/// Runs the workload for its time, and longer on a busy machine, until `has_all` says that all required events have
/// happened.
fn work(script: Script, scene: &Scene, root: &File, has_all: &dyn Fn() -> bool) -> Result<()> {
    let mut chance = StdRng::seed_from_u64(script.seed);
    let notes = Notes::open(&scene.notes)?;
    let mut processes = Processes { scene, notes, seed: script.seed, started: 0, children: Vec::new() };
    // One session is promised from the beginning.
    let first = scene.make()?;
    let operation = Operation::Create(Duration::from_secs(3600));
    first.perform(Call { operation, op: 1, life: 0, power_safe: true })?;
    drop(first);
    for _ in 0..PROCESSES {
        processes.start()?;
    }
    let began = Instant::now();
    while began.elapsed() < script.time || began.elapsed() < script.time + PATIENCE && !has_all() {
        thread::sleep(Duration::from_millis(chance.random_range(5..60)));
        processes.check()?;
        stop::ensure_not_stopped()?;
        match chance.random_range(0..12) {
            0..3 => processes.kill(chance.random_range(0..PROCESSES))?,
            3 => processes.stop_for_a_while(chance.random_range(0..PROCESSES))?,
            4 => syncfs(root).context("write the file system back")?,
            5..7 => {
                some_files(&scene.store, 8..=30, &mut chance).for_each(|file| drop(begin_write_back(&file)));
            }
            7..10 => {
                some_files(&scene.store, 1..=6, &mut chance).for_each(|file| drop(file.sync_data()));
            }
            _ => {}
        }
    }
    processes.check()
}

/// Some session files, in random order. They are either written back as the kernel would, without a flush, so that
/// unsynced saves reach the disk in part and may be lost from it; or synced, as a program does that copies files, which
/// makes the file system write down its state of their names.
fn some_files(store: &Path, count: RangeInclusive<usize>, chance: &mut StdRng) -> impl Iterator<Item = File> {
    let shards = fs::read_dir(store).into_iter().flatten().flatten();
    let files = shards.flat_map(|shard| fs::read_dir(shard.path()).into_iter().flatten().flatten());
    let mut paths: Vec<_> = files.map(|file| file.path()).collect();
    paths.shuffle(chance);
    paths.truncate(chance.random_range(count));
    // Other processes may have removed some of these files.
    paths.into_iter().filter_map(|path| File::open(path).ok())
}

/// The processes of the workload. They are killed when this value is dropped.
struct Processes<'a> {
    scene: &'a Scene,
    notes: Notes,
    seed: u64,
    started: u32,
    /// The running processes, each with its number.
    children: Vec<(u32, Child)>,
}

impl Processes<'_> {
    fn start(&mut self) -> Result<()> {
        self.started += 1;
        let mut command = self.scene.command("worker")?;
        command.args(["--number", &self.started.to_string(), "--seed", &self.seed.to_string()]);
        self.children.push((self.started, command.spawn().context("start a process of the workload")?));
        Ok(())
    }

    /// Checks that no process has ended by itself.
    fn check(&mut self) -> Result<()> {
        for (_, child) in &mut self.children {
            if let Some(status) = child.try_wait().context("check a process of the workload")? {
                bail!("a process of the workload failed: {status}, signal {:?}", status.signal());
            }
        }
        Ok(())
    }

    fn kill(&mut self, which: usize) -> Result<()> {
        let (number, mut child) = self.children.swap_remove(which);
        let killed = child.kill();
        let waited = child.wait();
        let status = killed.and(waited).context("kill a process of the workload")?;
        // The process may have failed since the last check.
        ensure!(status.signal() == Some(libc::SIGKILL), "a process of the workload failed: {status}");
        (0..THREADS).for_each(|thread| self.notes.say(Note::Killed { hand: hand_of(number, thread) }));
        self.start()
    }

    /// Stops a process for longer than the wait limit of the others.
    fn stop_for_a_while(&mut self, which: usize) -> Result<()> {
        let pid = Pid::from_child(&self.children[which].1);
        kill_process(pid, Signal::STOP).context("stop a process of the workload")?;
        thread::sleep(Duration::from_millis(100));
        kill_process(pid, Signal::CONT).context("continue a process of the workload")
    }
}

impl Drop for Processes<'_> {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
