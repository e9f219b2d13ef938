//! `sessile doctor`: looks for settings that would lose sessions, or let others read them. Reads no session and changes
//! nothing.
use crate::args::Doctor;
use crate::store::{AnyStore, is_log_lost};
use crate::terminal::{error_chain, json_line, plain, print};
use crate::{Access, Failure, Outcome, VerbResult};
use indicatif::HumanBytes;
use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;
use serde_json::json;
use sessile::{ErrorKind, FileStore};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A part of the free space or inodes below which saves are about to fail.
const FREE_PERCENT: u64 = 5;
/// Free space below which saves are about to fail, whatever part of the file system it is.
const FREE_BYTES: u64 = 64 << 20;
/// The watches of one store: one for each of its 256 directories, and one for its own.
const WATCHES: u64 = 257;
/// A program with a reaper sweeps every few minutes, and a timer each day at the latest.
const UNSWEPT: Duration = Duration::from_secs(2 * 86_400);

/// A setting that would lose sessions, or let others read them.
struct Finding {
    check: &'static str,
    text: String,
    remedy: &'static str,
}

/// The checks that were made, and their findings.
#[derive(Default)]
pub(crate) struct Examination {
    checks: Vec<&'static str>,
    findings: Vec<Finding>,
}

impl Examination {
    pub(crate) fn check(&mut self, check: &'static str, finding: Option<(String, &'static str)>) {
        if !self.checks.contains(&check) {
            self.checks.push(check);
        }
        self.findings.extend(finding.map(|(text, remedy)| Finding { check, text, remedy }));
    }
}

pub(crate) fn doctor(args: &Doctor, json: bool) -> VerbResult {
    let mut seen = Examination::default();
    let opened = match AnyStore::open(&args.place, Access::Read) {
        // A store that cannot be opened is the finding. What is no store is an error.
        Err(Failure::Store(error)) if is_of_store(error.kind()) => {
            seen.check("opening", Some((error_chain(&error), "see the reason; nothing else was checked")));
            None
        }
        opened => Some(opened?),
    };
    match &opened {
        Some(AnyStore::Files(store)) => examine(store, &mut seen),
        #[cfg(feature = "sqlite")]
        Some(AnyStore::Sqlite(store)) => crate::database::examine(store, &mut seen),
        Some(AnyStore::Other(store)) => {
            let failure = store.health().err();
            seen.check("health", failure.map(|error| (error_chain(&error), "see the reason")));
        }
        None => {}
    }
    let Examination { checks, findings } = &seen;
    if json {
        let findings: Vec<_> = findings
            .iter()
            .map(|Finding { check, text, remedy }| json!({"check": check, "finding": text, "remedy": remedy}))
            .collect();
        print(json_line(&json!({"checks": checks, "findings": findings})))?;
    } else {
        for Finding { check, text, remedy } in findings {
            print(format_args!("{check}: {}; {remedy}", plain(text)))?;
        }
        print(format_args!("{} checked: {} findings", checks.join(", "), findings.len()))?;
    }
    Ok(if findings.is_empty() { Outcome::Ok } else { Outcome::Findings })
}

/// Whether an error of opening is about a store that is there.
fn is_of_store(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Permissions
            | ErrorKind::Corrupt
            | ErrorKind::NewerFormat
            | ErrorKind::OlderFormat
            | ErrorKind::InUse
            | ErrorKind::Unavailable
    )
}

fn examine(store: &FileStore, seen: &mut Examination) {
    let dir = store.path();
    seen.check("opening", None);
    seen.check("permissions", accessible_to_others(dir));
    seen.check("owner", other_owner(dir));
    seen.check("owner", other_owner_inside(dir));
    seen.check("file system", store.uncached_file_system().map(remote));
    seen.check("file system", mount_finding(dir));
    seen.check("space", little_space(dir));
    seen.check("watches", few_watches(Path::new("/proc/sys/fs/inotify")));
    let lost = "no session with a user is found, because the log of cut-offs is lost".to_owned();
    let remedy = "restore the file `cutoffs` from a backup, or end all sessions: sessile delete --all";
    seen.check("cut-offs", is_log_lost().then_some((lost, remedy)));
    seen.check("sweeps", unswept(&dir.join("run/due/sweep"), SystemTime::now()));
    seen.check("damaged", quarantined(&dir.join("damaged")));
}

fn accessible_to_others(dir: &Path) -> Option<(String, &'static str)> {
    let mode = dir.metadata().ok()?.mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        let text = format!("the directory has mode {mode:04o}, so other users may enter it");
        (
            text,
            "chmod -R go= DIRECTORY; a program that opens it does so, too, unless it was told to keep modes",
        )
    })
}

fn other_owner(dir: &Path) -> Option<(String, &'static str)> {
    let (owner, own) = (dir.metadata().ok()?.uid(), geteuid().as_raw());
    (owner != own && own != 0).then(|| {
        let text = format!("the directory belongs to user {owner}, and this command runs as user {own}");
        (text, "run the programs that use it as its owner")
    })
}

/// The first entry of the directory, or of one in it, that has another owner than the directory.
fn other_owner_inside(dir: &Path) -> Option<(String, &'static str)> {
    let owner = dir.metadata().ok()?.uid();
    let mut directories = vec![dir.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).ok()?.flatten() {
            let Ok(stat) = entry.metadata() else { continue };
            if stat.uid() != owner {
                let text = format!(
                    "`{}` belongs to user {}, and the directory to user {owner}",
                    entry.path().display(),
                    stat.uid()
                );
                return Some((text, "chown -R it to the owner; run no program on it as another user"));
            }
            // The files in the 256 directories of sessions are too many to look at.
            if stat.is_dir() && directory_has_few_entries(&entry.path()) {
                directories.push(entry.path());
            }
        }
    }
    None
}

fn directory_has_few_entries(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.len() != 2)
}

fn remote(name: &'static str) -> (String, &'static str) {
    let text = format!("the store is on {name}, where processes do not see each other's writes in memory");
    (text, "use a local disk: locks and clocks are one host's, and every load reads the file")
}

/// A mount option, or a kind of file system, that loses what was synced.
pub(crate) fn mount_finding(dir: &Path) -> Option<(String, &'static str)> {
    let device = dir.metadata().ok()?.dev();
    let device = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mount_finding_in(&mounts, &device)
}

fn mount_finding_in(mounts: &str, device: &str) -> Option<(String, &'static str)> {
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(device))?;
    let (_, after) = line.split_once(" - ")?;
    let mut fields = after.split(' ');
    let (kind, options) = (fields.next()?, fields.nth(1)?);
    if matches!(kind, "tmpfs" | "ramfs") {
        return Some((
            format!("the store is on {kind}, in memory"),
            "use a disk, or accept that a reboot ends all sessions",
        ));
    }
    let option = options.split(',').find(|option| matches!(*option, "nobarrier" | "barrier=0"))?;
    let text = format!("the file system is mounted with {option}, so a power cut may lose what was synced");
    Some((text, "mount it without that option"))
}

pub(crate) fn little_space(dir: &Path) -> Option<(String, &'static str)> {
    let stat = statvfs(dir).ok()?;
    let (free, size) = (stat.blocks_available(), stat.blocks());
    let bytes = free * stat.fragment_size();
    let is_little = |free: u64, of: u64| of > 0 && free * 100 < of * FREE_PERCENT;
    if bytes < FREE_BYTES || is_little(free, size) && bytes < 16 * FREE_BYTES {
        let text = format!("{} are free; without space no session can be saved", HumanBytes(bytes));
        return Some((text, "make room; sweep expired sessions: sessile sweep --full"));
    }
    let (free, size) = (stat.files_available(), stat.files());
    is_little(free, size).then(|| {
        let text = format!("{free} of {size} inodes are free; each session is a file");
        (text, "make room for files, or make the file system anew with more inodes")
    })
}

fn few_watches(limits: &Path) -> Option<(String, &'static str)> {
    let limit = |name| fs::read_to_string(limits.join(name)).ok()?.trim().parse::<u64>().ok();
    let (watches, instances) = (limit("max_user_watches")?, limit("max_user_instances")?);
    (watches < 4 * WATCHES || instances < 8).then(|| {
        let text = format!(
            "a user may have {watches} watches and {instances} instances of inotify, where each process that \
             watches a store takes {WATCHES} and 1"
        );
        (text, "raise fs.inotify.max_user_watches and max_user_instances by sysctl, or open the store without watch")
    })
}

fn unswept(marker: &Path, now: SystemTime) -> Option<(String, &'static str)> {
    const REMEDY: &str = "start a reaper in one of the programs, or run sessile sweep each hour by a timer";
    let Ok(swept) = marker.metadata().and_then(|stat| stat.modified()) else {
        return Some((
            "the record of sweeps is missing: the store was not swept since it was lost".into(),
            REMEDY,
        ));
    };
    let since = now.duration_since(swept).unwrap_or_default();
    (since > UNSWEPT).then(|| {
        let days = since.as_secs() / 86_400;
        (format!("the store was not swept for {days} days, so expired sessions keep their files"), REMEDY)
    })
}

fn quarantined(dir: &Path) -> Option<(String, &'static str)> {
    let files = fs::read_dir(dir).ok()?.count();
    (files > 0).then(|| {
        let text = format!("{files} damaged files were moved to `{}`", dir.display());
        (text, "look for the cause (the disk's health, a program that writes there), then delete them")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_that_loses_syncs_is_found() {
        let mounts = "\
22 1 253:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,nobarrier
23 1 253:2 / /srv rw,relatime - xfs /dev/vda2 rw,attr2
24 1 0:30 / /dev/shm rw - tmpfs tmpfs rw,size=1g
";
        let text = |device| mount_finding_in(mounts, device).map(|(text, _)| text);
        assert!(text("253:1").unwrap().contains("nobarrier"));
        assert_eq!(text("253:2"), None);
        assert!(text("0:30").unwrap().contains("tmpfs"));
        assert_eq!(text("9:9"), None);
    }

    #[test]
    fn an_old_or_missing_marker_of_sweeps_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let marker = dir.path().join("sweep");
        let now = SystemTime::now();
        assert!(unswept(&marker, now).unwrap().0.contains("missing"));
        fs::write(&marker, "").unwrap();
        assert!(unswept(&marker, now).is_none());
        assert!(unswept(&marker, now + 3 * UNSWEPT).unwrap().0.contains("6 days"));
    }

    #[test]
    fn low_limits_of_watches_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let set = |watches: &str, instances: &str| {
            fs::write(dir.path().join("max_user_watches"), watches).unwrap();
            fs::write(dir.path().join("max_user_instances"), instances).unwrap();
            few_watches(dir.path()).is_some()
        };
        assert!(!set("8192\n", "128\n"));
        assert!(set("300\n", "128\n") && set("8192\n", "1\n"));
    }
}
