//! `sessile verify`: reads every file and lists each that is not a sound session. With `--repair`, damaged files are
//! moved aside, and lost directories and a lost parameters file are recreated; nothing is deleted, and every change is
//! listed.
use crate::args::Verify;
use crate::stat::read_all;
use crate::store::{AnyStore, directory, open_files};
use crate::terminal::{error_chain, json_line, plain, print, spare_path, warn};
use crate::{Access, Failure, Outcome, VerbResult};
use indicatif::HumanCount;
use serde_json::{Value as Json, json};
use sessile::admin::Scanned;
use sessile::file::{Content, ScannedFile};
use sessile::{Absent, Admin, ErrorKind, FileStore, Live, Lookup, PublicId, Record};
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The longest time that a creation takes, unless its process is stopped. A file that is unfinished for longer is
/// listed.
const CREATION: Duration = Duration::from_millis(200);

/// A file that is not a sound session.
struct Finding {
    kind: Kind,
    /// The session whose name the file has; `None` if it is not the name of a session.
    id: Option<PublicId>,
    path: PathBuf,
    moved_to: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The directory or file was missing, and was recreated.
    Lost,
    Damaged,
    Unfinished,
    Temporary,
    /// A link, pipe, directory or device has the name of a session.
    NoFile,
    /// A session that a newer version of this crate has written.
    Newer,
    /// A session in the format of an earlier version.
    Older,
    /// A file that this crate has not made.
    Unknown,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Damaged => "damaged",
            Self::Unfinished => "unfinished",
            Self::Temporary => "temporary",
            Self::NoFile => "no file",
            Self::Newer => "newer",
            Self::Older => "older",
            Self::Unknown => "unknown",
        }
    }

    /// Whether a repair moves the file to the directory `damaged`. Sweeps remove leftovers; files of other versions or
    /// programs stay.
    fn is_movable(self) -> bool {
        matches!(self, Self::Damaged | Self::NoFile)
    }
}

impl Finding {
    fn in_words(&self) -> String {
        // A damaged session is listed by its digest, as in logs, and any other file by its path.
        let name = match self.id {
            Some(id) if self.kind == Kind::Damaged => id.to_string(),
            _ => plain(self.path.display()),
        };
        match &self.moved_to {
            Some(to) => format!("{}: {name}, moved to {}", self.kind.name(), plain(to.display())),
            None if self.kind == Kind::Lost => format!("{}: {name}, recreated", self.kind.name()),
            None => format!("{}: {name}", self.kind.name()),
        }
    }

    fn to_json(&self) -> Json {
        // A JSON string can only have valid UTF-8.
        let text = |path: &Path| path.to_string_lossy().into_owned();
        json!({
            "kind": self.kind.name(),
            "id": self.id.map(|id| id.to_string()),
            "path": text(&self.path),
            "moved_to": self.moved_to.as_deref().map(text),
        })
    }
}

pub(crate) fn verify(args: &Verify, json: bool) -> VerbResult {
    let began = Instant::now();
    let Some(dir) = directory(&args.place)? else { return verify_other(args, json) };
    spare_path(&dir);
    // The repair comes first, because a store without its directories or its parameters file cannot be opened.
    let made = if args.repair { FileStore::repair(&dir)? } else { Vec::new() };
    let lost = |path| Finding { kind: Kind::Lost, id: None, path, moved_to: None };
    let mut findings: Vec<_> = made.into_iter().map(lost).collect();
    let store = open_files(&dir, if args.repair { Access::Write } else { Access::Read })?;
    let (mut examined, mut moved) = (0_u64, 0_u64);
    let mut failed = read_all(&store, |file| {
        examined += u64::from(is_of_session(&file.content));
        moved += u64::from(matches!(file.content, Content::Moved(_)));
        findings.extend(finding(file));
    });
    failed += look_again(&store, &mut findings);
    let not_moved = if args.repair { move_aside(&store, &mut findings) } else { 0 };
    if !json {
        for finding in &findings {
            print(finding.in_words())?;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    if json {
        let found: Vec<_> = findings.iter().map(Finding::to_json).collect();
        print(json_line(&json!({
            "examined": examined,
            "moved": moved,
            "found": found,
            "failed": failed,
            "not_moved": not_moved,
            "seconds": seconds,
        })))?;
    } else {
        let damaged = findings.iter().filter(|found| found.kind == Kind::Damaged).count();
        let mut summary = format!(
            "{} sessions examined, {} damaged, {} other findings, {} could not be read",
            HumanCount(examined),
            HumanCount(damaged as u64),
            HumanCount((findings.len() - damaged) as u64),
            HumanCount(failed),
        );
        if moved > 0 {
            write!(summary, ", {} moved to another id", HumanCount(moved)).expect("into a string");
        }
        if not_moved > 0 {
            write!(summary, ", {} could not be moved", HumanCount(not_moved)).expect("into a string");
        }
        print(format_args!("{summary}; {seconds:.1} s"))?;
    }
    Ok(match findings.is_empty() && failed == 0 {
        _ if not_moved > 0 => Outcome::Incomplete,
        true if !crate::store::is_log_lost() => Outcome::Ok,
        _ => Outcome::Findings,
    })
}

/// A store without files has sessions only.
fn verify_other(args: &Verify, json: bool) -> VerbResult {
    if args.repair {
        return Err(Failure::Usage("--repair works on stores of files only"));
    }
    let began = Instant::now();
    let store = AnyStore::open(&args.place, Access::Read)?;
    let (mut examined, mut moved, mut damaged) = (0_u64, 0_u64, Vec::new());
    let failed = store.scan(None, &mut store.progress(), |_, found| {
        let is_sound = match &found {
            Scanned::Live(live) | Scanned::Expired(live) | Scanned::CutOff(live) => is_sound(&live.record),
            Scanned::Damaged(_) => false,
            _ => true,
        };
        *if matches!(found, Scanned::Moved(_)) { &mut moved } else { &mut examined } += 1;
        if !is_sound {
            damaged.push(found.id().to_string());
        }
        Ok(true)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    if json {
        let found: Vec<_> = damaged.iter().map(|id| json!({"kind": "damaged", "id": id})).collect();
        print(json_line(&json!({
            "examined": examined, "moved": moved, "found": found, "failed": failed, "seconds": seconds,
        })))?;
    } else {
        for id in &damaged {
            print(format_args!("damaged: {id}"))?;
        }
        let (examined, damaged, failed) =
            (HumanCount(examined), HumanCount(damaged.len() as u64), HumanCount(failed));
        print(format_args!(
            "{examined} sessions examined, {damaged} damaged, {failed} could not be read; {seconds:.1} s"
        ))?;
    }
    Ok(if damaged.is_empty() && failed == 0 { Outcome::Ok } else { Outcome::Findings })
}

fn is_sound(record: &Record) -> bool {
    record.entries().iter().all(|(_, value)| value.to_json().is_ok())
}

fn is_of_session(content: &Content) -> bool {
    matches!(
        content,
        Content::Live(_)
            | Content::CutOff(_)
            | Content::Expired(_)
            | Content::Damaged(_)
            | Content::Unfinished(_)
    )
}

fn finding(file: ScannedFile) -> Option<Finding> {
    let (kind, id) = match file.content {
        Content::Live(Live { record, id, .. })
        | Content::CutOff(Live { record, id, .. })
        | Content::Expired(Live { record, id, .. }) => {
            return (!is_sound(&record)).then_some(Finding {
                kind: Kind::Damaged,
                id: Some(id),
                path: file.path,
                moved_to: None,
            });
        }
        Content::Moved(_) => return None,
        Content::Damaged(id) => (Kind::Damaged, Some(id)),
        Content::Unfinished(id) => (Kind::Unfinished, Some(id)),
        Content::Temporary => (Kind::Temporary, None),
        Content::Foreign(id) => (Kind::NoFile, Some(id)),
        Content::Newer(id) => (Kind::Newer, Some(id)),
        Content::Older(id) => (Kind::Older, Some(id)),
        _ => (Kind::Unknown, None),
    };
    Some(Finding { kind, id, path: file.path, moved_to: None })
}

/// Reads the unfinished files once more, and removes from the findings those that were in the middle of an operation.
/// Returns the number of files that could not be read.
fn look_again(store: &FileStore, findings: &mut Vec<Finding>) -> u64 {
    let is_in_progress = |finding: &Finding| matches!(finding.kind, Kind::Unfinished | Kind::Temporary);
    if findings.iter().any(is_in_progress) {
        thread::sleep(CREATION);
    }
    let mut failed = 0;
    findings.retain(|finding| {
        if !is_in_progress(finding) {
            return true;
        }
        match finding.id.map(|id| store.load_by_id(&id)) {
            Some(Ok(Lookup::Live(_) | Lookup::Absent(Absent::Expired(_) | Absent::Moved(_)))) => false,
            Some(Err(error)) => {
                failed += 1;
                warn(error_chain(&error));
                true
            }
            _ => {
                let there = finding.path.symlink_metadata();
                !there.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            }
        }
    });
    failed
}

/// Moves the files of all movable findings to the directory `damaged`. Returns the number that could not be moved.
/// After a failure of the disk it stops, because the others would fail as well.
fn move_aside(store: &FileStore, findings: &mut [Finding]) -> u64 {
    let mut movable: Vec<_> = findings.iter_mut().filter(|finding| finding.kind.is_movable()).collect();
    let mut failed = 0;
    let total = movable.len();
    for (n, finding) in movable.iter_mut().enumerate() {
        let Some(id) = finding.id else { continue };
        match store.quarantine(&id) {
            Ok(moved_to) => finding.moved_to = moved_to,
            Err(error) => {
                failed += 1;
                warn(error_chain(&error));
                if !matches!(
                    error.kind(),
                    ErrorKind::Busy
                        | ErrorKind::NotASessionFile
                        | ErrorKind::NewerFormat
                        | ErrorKind::OlderFormat
                ) {
                    let rest = (total - n - 1) as u64;
                    if rest > 0 {
                        warn(format_args!("{} more were not moved", HumanCount(rest)));
                    }
                    return failed + rest;
                }
            }
        }
    }
    failed
}
