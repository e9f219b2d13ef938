//! The size of a session, on the disk and in memory. Memory is measured in a separate process, which opens
//! one peer, creates all sessions and loads each of them once.
use crate::Args;
use crate::peer::Setting;
use crate::peers::PeerName;
use crate::peers::resident;
use crate::workload::{Durability, Operation, payload};
use sessile_peers::Stop;
use std::error::Error;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// Sizes for one peer and session size, in bytes a session.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    pub(crate) who: PeerName,
    pub(crate) bytes: usize,
    pub(crate) disk: u64,
    pub(crate) resident: u64,
}

/// The output of the separate process: bytes on the disk and resident bytes, for all sessions.
///
/// # Errors
///
/// The tool was asked to stop.
pub(crate) fn memory(args: &Args, who: PeerName, dir: &Path, stop: &Stop) -> io::Result<String> {
    let bytes = usize::try_from(args.bytes[0]).expect("at most 7,000");
    let store = dir.join("store");
    let setting = Setting { dir: store.clone(), durability: Durability::Relaxed, payload: payload(bytes) };
    let all = args.keys();
    let peer = who.open(setting);
    let now = || resident(std::process::id()) + peer.server_memory().unwrap_or(0);
    let disk = disk_usage(&store);
    let mut client = peer.client();
    let before = now();
    peer.fill(&all);
    for key in &all {
        stop.check()?;
        let found = if peer.does(Operation::LoadCached) { client.load_cached(key) } else { client.load(key) };
        assert!(found.is_some());
    }
    peer.settle();
    Ok(format!("{} {}", disk_usage(&store).saturating_sub(disk), now().saturating_sub(before)))
}

/// The sizes for all peers except the floor, which has no memory of its own. A peer that fails does not
/// discard the figures of the others.
pub(crate) fn all<'a>(
    args: &'a Args,
    dir: &'a Path,
) -> impl Iterator<Item = Result<Space, Box<dyn Error>>> + 'a {
    let who = || args.who().into_iter().filter(|who| *who != PeerName::Floor);
    let asked = args.bytes.iter().flat_map(move |bytes| who().map(move |who| (*bytes, who)));
    asked.map(move |(bytes, who)| {
        ask(args, dir, bytes, who).map_err(|error| format!("{}: {error}", who.name()).into())
    })
}

fn ask(args: &Args, dir: &Path, bytes: u32, who: PeerName) -> Result<Space, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--memory-of", who.name(), "--sessions", &args.sessions.to_string()]);
    let output = command.args(["--bytes", &bytes.to_string(), "--dir"]).arg(dir).output()?;
    let text = String::from_utf8(output.stdout)?;
    let numbers: Vec<u64> = text.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [disk, resident] = numbers[..] else {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    };
    let sessions = u64::from(args.sessions);
    Ok(Space { who, bytes: usize::try_from(bytes)?, disk: disk / sessions, resident: resident / sessions })
}

/// Bytes of the disk that the files below a directory occupy, in blocks.
fn disk_usage(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a directory that can be listed");
    let usage = |entry: io::Result<std::fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        // A file that was removed meanwhile occupies none.
        let Ok(stat) = path.symlink_metadata() else { return 0 };
        let below = if stat.is_dir() { disk_usage(&path) } else { 0 };
        stat.blocks() * 512 + below
    };
    entries.map(usage).sum()
}
