//! `sessile stat` and `sessile verify`: both read everything.
use crate::args::{Stat, Verify};
use crate::terminal::{Progress, complain, json_line, plain, print, told};
use crate::{Done, Outcome, open};
use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value as Json, json};
use sessile::file::{Holds, StoredFile};
use sessile::{FileStore, Live, Store, Value};
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Reads every file of a store, beside a progress bar. How many could not be read; that is complained of.
fn read_all(store: &FileStore, mut visit: impl FnMut(StoredFile)) -> u64 {
    let mut files = store.files();
    let mut bar = Progress::of("directories", store.shards().into());
    let mut failed = 0;
    while let Some(file) = files.next() {
        bar.at(files.shards_begun().saturating_sub(1).into());
        match file {
            Ok(file) => visit(file),
            Err(error) => {
                failed += 1;
                bar.complain(told(&error));
            }
        }
    }
    failed
}

// ------------------------------------------------------------------------------------------------------------ stat

/// Bounds of a histogram's bars, and what those below are called.
const BARS: [(u64, &str); 8] = [
    (60, "1 minute"),
    (3600, "1 hour"),
    (6 * 3600, "6 hours"),
    (86_400, "1 day"),
    (3 * 86_400, "3 days"),
    (7 * 86_400, "1 week"),
    (14 * 86_400, "2 weeks"),
    (30 * 86_400, "30 days"),
];

/// How many sessions are below each bound and not below the one before; the last is for all others.
#[derive(Default)]
struct Histogram([u64; BARS.len() + 1]);

impl Histogram {
    fn count(&mut self, duration: Duration) {
        let bar = BARS.iter().position(|(bound, _)| duration < Duration::from_secs(*bound));
        self.0[bar.unwrap_or(BARS.len())] += 1;
    }

    fn to_json(&self) -> Json {
        let bounds = BARS.iter().map(|(bound, _)| Some(*bound)).chain([None]);
        bounds
            .zip(self.0)
            .map(|(bound, sessions)| json!({"below_seconds": bound, "sessions": sessions}))
            .collect()
    }

    /// Bars of up to 40 characters.
    fn draw(&self, title: &str) -> String {
        let most = self.0.iter().copied().max().unwrap_or(0).max(1);
        let mut drawn = format!("\n{title}\n");
        let names = BARS.iter().map(|(_, name)| format!("below {name}")).chain(["more".into()]);
        for (name, sessions) in names.zip(self.0) {
            // Whoever is there at all is to be seen.
            let bar = "#".repeat(usize::try_from((40 * sessions).div_ceil(most)).expect("at most 40"));
            let line = format!("  {name:<14} {:>12}  {bar}", HumanCount(sessions).to_string());
            drawn = drawn + line.trim_end() + "\n";
        }
        drawn
    }
}

#[derive(Default)]
struct Counts {
    live: u64,
    expired: u64,
    damaged: u64,
    unfinished: u64,
    temporary: u64,
    unknown: u64,
    failed: u64,
    bytes: u64,
    logged_in: u64,
    ages: Histogram,
    deadlines: Histogram,
}

impl Counts {
    fn count(&mut self, file: &StoredFile, now: SystemTime) {
        let kind = match &file.holds {
            Holds::Live(Live { record, .. }) => {
                self.logged_in += u64::from(record.user.is_some());
                self.ages.count(now.duration_since(record.created).unwrap_or_default());
                self.deadlines.count(record.deadline.duration_since(now).unwrap_or_default());
                &mut self.live
            }
            Holds::Expired(_) => &mut self.expired,
            Holds::Damaged(_) => &mut self.damaged,
            Holds::Unfinished(_) => &mut self.unfinished,
            Holds::Temporary => &mut self.temporary,
            _ => &mut self.unknown,
        };
        *kind += 1;
        self.bytes += file.bytes;
    }
}

pub(crate) fn stat(args: &Stat, json: bool) -> Outcome {
    let began = Instant::now();
    let store = open(&args.dir, false)?;
    let (mut counts, now) = (Counts::default(), store.now());
    counts.failed = read_all(&store, |file| counts.count(&file, now));
    if json {
        print(json_line(&json!({
            "live": counts.live,
            "expired": counts.expired,
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
    Ok(if counts.failed > 0 { Done::WithFindings } else { Done::Well })
}

fn in_words(counts: &Counts) -> String {
    let mut text = String::new();
    for (count, what) in [
        (counts.live, "live"),
        (counts.logged_in, "of them logged in"),
        (counts.expired, "expired"),
        (counts.damaged, "damaged"),
        (counts.unfinished, "unfinished"),
        (counts.temporary, "temporary"),
        (counts.unknown, "unknown"),
        (counts.failed, "could not be read"),
    ] {
        if count > 0 || what == "live" || what == "expired" {
            writeln!(text, "{:>12} {what}", HumanCount(count).to_string()).expect("into a string");
        }
    }
    writeln!(text, "{:>12} in files", HumanBytes(counts.bytes).to_string()).expect("into a string");
    if counts.live > 0 {
        text += &counts.ages.draw("Live sessions, by the time since they were created");
        text += &counts.deadlines.draw("Live sessions, by the time until they expire");
    }
    text
}

// ---------------------------------------------------------------------------------------------------------- verify

pub(crate) fn verify(args: &Verify, json: bool) -> Outcome {
    let began = Instant::now();
    let store = open(&args.dir, false)?;
    let (mut examined, mut damaged) = (0_u64, Vec::new());
    let mut failed = read_all(&store, |StoredFile { holds, path, .. }| match holds {
        Holds::Live(Live { record, id }) | Holds::Expired(Live { record, id }) => {
            examined += 1;
            if record.entries.values().any(|value| Value::to_json(value).is_err()) {
                damaged.push((id, path));
            }
        }
        Holds::Damaged(id) => {
            examined += 1;
            damaged.push((id, path));
        }
        Holds::Unfinished(_) => examined += 1,
        _ => {}
    });
    let mut found = Vec::new();
    for (id, path) in damaged {
        let moved_to = if args.repair { store.set_aside(&id) } else { Ok(None) };
        let moved_to = moved_to.unwrap_or_else(|error| {
            failed += 1;
            complain(told(&error));
            None
        });
        if !json {
            let moved = moved_to.as_ref().map(|to| format!(", moved to {}", plain(to.display())));
            print(format_args!("damaged: {id}{}", moved.unwrap_or_default()))?;
        }
        // JSON has no other bytes than UTF-8.
        let text = |path: &Path| path.to_string_lossy().into_owned();
        found.push(json!({
            "id": id.to_string(),
            "path": text(&path),
            "moved_to": moved_to.as_deref().map(text),
        }));
    }
    let seconds = began.elapsed().as_secs_f64();
    let is_well = found.is_empty() && failed == 0;
    if json {
        print(json_line(
            &json!({"examined": examined, "damaged": found, "failed": failed, "seconds": seconds}),
        ))?;
    } else {
        print(format_args!(
            "{} sessions examined, {} damaged, {} could not be read; {seconds:.1} s",
            HumanCount(examined),
            HumanCount(found.len() as u64),
            HumanCount(failed),
        ))?;
    }
    Ok(if is_well { Done::Well } else { Done::WithFindings })
}
