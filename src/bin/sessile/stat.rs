//! `sessile stat`, and the scan of all files that it shares with `sessile verify`.
use crate::args::Stat;
use crate::store::AnyStore;
use crate::terminal::{Progress, error_chain, json_line, print};
use crate::{Access, Outcome, VerbResult};
use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value as Json, json};
use sessile::admin::Scanned;
use sessile::file::{Content, ScannedFile};
use sessile::{FileStore, Record};
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};

/// Reads every file of a store, with a progress bar. Returns the number of files that could not be read; each has a
/// warning.
pub(crate) fn read_all(store: &FileStore, mut visit: impl FnMut(ScannedFile)) -> u64 {
    let mut files = store.files();
    let mut bar = Progress::in_directories(store.shards().into());
    let (mut failed, mut read) = (0, 0);
    while let Some(file) = files.next() {
        bar.at_directory(files.shards_begun().saturating_sub(1).into(), read);
        match file {
            Ok(file) => {
                read += u64::from(matches!(
                    file.content,
                    Content::Live(_) | Content::Expired(_) | Content::CutOff(_)
                ));
                visit(file);
            }
            Err(error) => {
                failed += 1;
                bar.warn(error_chain(&error));
            }
        }
    }
    failed
}

/// The lower bounds of the intervals of a histogram: in seconds, and as a text.
const BOUNDS: [(u64, &str); 9] = [
    (0, "0"),
    (60, "1 minute"),
    (3600, "1 hour"),
    (6 * 3600, "6 hours"),
    (86_400, "1 day"),
    (3 * 86_400, "3 days"),
    (7 * 86_400, "1 week"),
    (14 * 86_400, "2 weeks"),
    (30 * 86_400, "30 days"),
];

/// The number of sessions in each interval, from its bound to the next one. The last interval has no upper bound.
#[derive(Default)]
struct Histogram([u64; BOUNDS.len()]);

impl Histogram {
    fn count(&mut self, duration: Duration) {
        let interval = BOUNDS.iter().rposition(|(bound, _)| duration >= Duration::from_secs(*bound));
        self.0[interval.expect("the first bound is 0")] += 1;
    }

    fn to_json(&self) -> Json {
        let intervals = BOUNDS.iter().zip(BOUNDS.iter().skip(1).map(Some).chain([None])).zip(self.0);
        intervals
            .map(|(((from, _), next), sessions)| {
                json!({"from_seconds": from, "below_seconds": next.map(|(bound, _)| bound), "sessions": sessions})
            })
            .collect()
    }

    /// Draws a bar of up to 40 characters for each interval, and none for an interval without sessions.
    fn draw(&self, title: &str) -> String {
        let most = self.0.iter().copied().max().unwrap_or(0).max(1);
        let mut drawn = format!("\n{title}\n");
        for (n, sessions) in self.0.into_iter().enumerate().filter(|(_, sessions)| *sessions > 0) {
            let name = match (BOUNDS[n].1, BOUNDS.get(n + 1)) {
                (_, Some((_, end))) if n == 0 => format!("below {end}"),
                (begin, Some((_, end))) => format!("{begin} to {end}"),
                (begin, None) => format!("{begin} or more"),
            };
            let bar = "#".repeat(usize::try_from((40 * sessions).div_ceil(most)).expect("at most 40"));
            writeln!(drawn, "  {name:<19} {:>12}  {bar}", HumanCount(sessions).to_string())
                .expect("into a string");
        }
        drawn
    }
}

#[derive(Default)]
struct Counts {
    live: u64,
    expired: u64,
    moved: u64,
    damaged: u64,
    unfinished: u64,
    cut_off: u64,
    temporary: u64,
    unknown: u64,
    failed: u64,
    bytes: u64,
    logged_in: u64,
    ages: Histogram,
    deadlines: Histogram,
}

impl Counts {
    fn count_live(&mut self, record: &Record, now: SystemTime) {
        self.live += 1;
        self.logged_in += u64::from(record.user().is_some());
        self.ages.count(now.duration_since(record.timing().created).unwrap_or_default());
        self.deadlines.count(record.deadline().duration_since(now).unwrap_or_default());
    }

    /// Counts a session of a store that has no files.
    fn count(&mut self, found: &Scanned, now: SystemTime) {
        match found {
            Scanned::Live(live) => self.count_live(&live.record, now),
            Scanned::Expired(_) => self.expired += 1,
            Scanned::CutOff(_) => self.cut_off += 1,
            Scanned::Moved(_) => self.moved += 1,
            Scanned::Damaged(_) => self.damaged += 1,
            _ => self.unknown += 1,
        }
        if let Scanned::Live(live) | Scanned::Expired(live) | Scanned::CutOff(live) = found {
            self.bytes += live.record.as_bytes().len() as u64;
        }
    }

    fn count_file(&mut self, file: &ScannedFile, now: SystemTime) {
        self.bytes += file.bytes;
        let kind = match &file.content {
            Content::Live(live) => return self.count_live(&live.record, now),
            Content::Expired(_) => &mut self.expired,
            Content::Moved(_) => &mut self.moved,
            Content::CutOff(_) => &mut self.cut_off,
            Content::Damaged(_) => &mut self.damaged,
            Content::Unfinished(_) => &mut self.unfinished,
            Content::Temporary => &mut self.temporary,
            _ => &mut self.unknown,
        };
        *kind += 1;
    }
}

pub(crate) fn stat(args: &Stat, json: bool) -> VerbResult {
    let began = Instant::now();
    let store = AnyStore::open(&args.place, Access::Read)?;
    let (mut counts, now) = (Counts::default(), store.admin().now());
    counts.failed = if let AnyStore::Files(files) = &store {
        read_all(files, |file| counts.count_file(&file, now))
    } else {
        store.scan(None, &mut store.progress(), |_, found| {
            counts.count(&found, now);
            Ok(true)
        })?
    };
    if json {
        print(json_line(&json!({
            "live": counts.live,
            "expired": counts.expired,
            "moved": counts.moved,
            "cut_off": counts.cut_off,
            "damaged": counts.damaged,
            "unfinished": counts.unfinished,
            "temporary": counts.temporary,
            "unknown": counts.unknown,
            "failed": counts.failed,
            "bytes": counts.bytes,
            "logged_in": counts.logged_in,
            "ages": counts.ages.to_json(),
            "deadlines": counts.deadlines.to_json(),
            "seconds": began.elapsed().as_secs_f64(),
        })))?;
    } else {
        print(in_words(&counts).trim_end())?;
    }
    Ok(if counts.failed + counts.damaged > 0 { Outcome::Findings } else { Outcome::Ok })
}

fn in_words(counts: &Counts) -> String {
    let mut text = String::new();
    for (count, noun) in [
        (counts.live, "live"),
        (counts.logged_in, "of them logged in"),
        (counts.expired, "expired"),
        (counts.moved, "moved to another id"),
        (counts.cut_off, "cut off"),
        (counts.damaged, "damaged"),
        (counts.unfinished, "unfinished"),
        (counts.temporary, "temporary"),
        (counts.unknown, "unknown"),
        (counts.failed, "could not be read"),
    ] {
        if count > 0 || noun == "live" || noun == "expired" {
            writeln!(text, "{:>12} {noun}", HumanCount(count).to_string()).expect("into a string");
        }
    }
    writeln!(text, "{:>12} in files", HumanBytes(counts.bytes).to_string()).expect("into a string");
    if counts.live > 0 {
        text += &counts.ages.draw("Live sessions, by the time since they were created");
        text += &counts.deadlines.draw("Live sessions, by the time until they expire");
    }
    text
}
