//! The verb `sessile sweep`.
use crate::args::Sweep;
use crate::store::AnyStore;
use crate::terminal::{Progress, error_chain, json_line, print, warn};
use crate::{Access, Outcome, VerbResult};
use indicatif::{HumanBytes, HumanCount};
use serde_json::json;
use sessile::admin::{SweepOptions, SweepOutcome, SweepPhase, SweepReport};
use std::fmt::Write;
use std::ops::ControlFlow::Continue;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn run(args: &Sweep, json: bool) -> VerbResult {
    let store = AnyStore::open(&args.place, if args.dry_run { Access::Read } else { Access::Write })?;
    let mut options = SweepOptions::new()
        .full(args.full)
        .dry_run(args.dry_run)
        .keep_damaged(DAY * args.keep_damaged.into());
    if let Some(files) = args.max_per_second {
        options = options.per_second(files);
    }
    if let Some(percent) = args.cpu_percent {
        options = options.cpu_percent(percent);
    }
    let mut bar: Option<(SweepPhase, Progress)> = None;
    let report = store.admin().sweep_with(&options, &mut |now| {
        if bar.as_ref().is_none_or(|(phase, _)| *phase != now.phase) {
            // The old progress bar is removed before the new one is made.
            bar = None;
            let begun = match now.phase {
                SweepPhase::Walk => Progress::in_directories(now.total),
                SweepPhase::Due => Progress::of(now.total),
                _ => Progress::counting(),
            };
            bar = Some((now.phase, begun));
        }
        match &mut bar {
            Some((SweepPhase::Walk, bar)) => bar.at_directory(now.done, now.report.files.examined),
            Some((_, bar)) => bar.at(now.done),
            None => {}
        }
        Continue(())
    })?;
    drop(bar);
    for error in &report.errors {
        warn(error_chain(error));
    }
    let line = if json { json_line(&as_json(&report)) } else { summary(&report, args.dry_run) };
    print(line)?;
    Ok(match report.outcome {
        SweepOutcome::AlreadyRunning => Outcome::AlreadyRunning,
        _ if report.failed + report.files.damaged > 0 => Outcome::Findings,
        _ => Outcome::Ok,
    })
}

fn summary(report: &SweepReport, dry_run: bool) -> String {
    if report.outcome == SweepOutcome::AlreadyRunning {
        return "another sweep is running; nothing was done".into();
    }
    let mut line = format!(
        "{} {} of {} sessions, {}",
        if dry_run { "would remove" } else { "removed" },
        HumanCount(report.removed),
        HumanCount(report.files.examined),
        HumanBytes(report.files.bytes_freed),
    );
    for (count, noun) in [
        (report.files.moved, "moved ids"),
        (report.files.cut_off, "cut off"),
        (report.files.renewed, "renewed"),
        (report.files.damaged, "damaged"),
        (report.files.temporary, "leftovers"),
        (report.files.unknown, "unknown"),
        (report.failed, "failed"),
    ] {
        if count > 0 {
            write!(line, "; {} {noun}", HumanCount(count)).expect("into a string");
        }
    }
    format!("{line}; {:.1} s", report.elapsed.as_secs_f64())
}

fn as_json(report: &SweepReport) -> serde_json::Value {
    let outcome = match report.outcome {
        SweepOutcome::AlreadyRunning => "already_running",
        SweepOutcome::Failed => "failed",
        _ => "completed",
    };
    json!({
        "outcome": outcome,
        "examined": report.files.examined,
        "removed": report.removed,
        "moved": report.files.moved,
        "cut_off": report.files.cut_off,
        "renewed": report.files.renewed,
        "damaged": report.files.damaged,
        "temporary": report.files.temporary,
        "unknown": report.files.unknown,
        "failed": report.failed,
        "bytes_freed": report.files.bytes_freed,
        "seconds": report.elapsed.as_secs_f64(),
    })
}
