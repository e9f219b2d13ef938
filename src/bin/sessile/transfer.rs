//! `sessile export` and `sessile import`: all live sessions, one JSON object a line.
use crate::args::{Export, Import};
use crate::session_json::SessionJson;
use crate::terminal::{Progress, json_line, print, told};
use crate::{Done, Failure, Outcome, open};
use indicatif::HumanCount;
use serde_json::json;
use sessile::file::Holds;
use sessile::{Durability, FileStore, Store};
use std::io::{self, BufRead, BufWriter, IsTerminal, Read, Write};
use std::time::Instant;

pub(crate) fn export(args: &Export, json: bool) -> Outcome {
    let began = Instant::now();
    let store = open(&args.dir, false)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut exported, mut damaged, mut failed) = (0_u64, 0_u64, 0_u64);
    // On a terminal, the sessions would run through the bar.
    let mut bar = Progress::of("directories", store.shards().into()).unless(io::stdout().is_terminal());
    let mut files = store.files();
    while let Some(file) = files.next() {
        bar.at(files.shards_begun().saturating_sub(1).into());
        let session = match file.map(|file| file.holds) {
            Ok(Holds::Live(live)) => SessionJson::of(&live),
            Ok(Holds::Damaged(id)) => {
                damaged += 1;
                bar.complain(format_args!("damaged, and left out: {id}"));
                continue;
            }
            Ok(_) => continue,
            Err(error) => Err(error),
        };
        match session {
            Ok(session) => {
                writeln!(out, "{}", json_line(&session))?;
                exported += 1;
            }
            Err(error) => {
                failed += 1;
                bar.complain(told(&error));
            }
        }
    }
    out.flush()?;
    drop(bar);
    let seconds = began.elapsed().as_secs_f64();
    // Standard output has the sessions.
    let summary = if json {
        json_line(&json!({"exported": exported, "damaged": damaged, "failed": failed, "seconds": seconds}))
    } else {
        format!(
            "{} sessions exported, {} damaged, {} could not be read; {seconds:.1} s",
            HumanCount(exported),
            HumanCount(damaged),
            HumanCount(failed),
        )
    };
    // If it cannot be said, the sessions are written all the same.
    let _ = writeln!(io::stderr(), "{summary}");
    Ok(if damaged + failed > 0 { Done::WithFindings } else { Done::Well })
}

/// What became of a line.
enum Imported {
    Yes,
    Existing,
    Expired,
}

pub(crate) fn import(args: &Import, json: bool) -> Outcome {
    let began = Instant::now();
    let store = open(&args.dir, true)?;
    let how = if args.power_safe { Durability::PowerSafe } else { Durability::Relaxed };
    let (mut imported, mut existing, mut expired, mut failed) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut input = io::stdin().lock();
    let mut bar = Progress::counting("lines").unless(io::stdin().is_terminal());
    let mut line = Vec::new();
    for number in 1_u64.. {
        let outcome = match read_line(&mut input, &mut line).map_err(Failure::Input)? {
            Line::End => break,
            Line::TooLong => Err("it is longer than any session is".into()),
            Line::Read if line.trim_ascii().is_empty() => continue,
            Line::Read => import_one(&store, &line, how),
        };
        match outcome {
            Ok(Imported::Yes) => imported += 1,
            Ok(Imported::Existing) => existing += 1,
            Ok(Imported::Expired) => expired += 1,
            Err(error) => {
                failed += 1;
                bar.complain(format_args!("line {number}: {error}"));
            }
        }
        bar.at(number);
    }
    drop(bar);
    let seconds = began.elapsed().as_secs_f64();
    if json {
        print(json_line(&json!({
            "imported": imported,
            "existing": existing,
            "expired": expired,
            "failed": failed,
            "seconds": seconds,
        })))?;
    } else {
        print(format_args!(
            "{} sessions imported, {} were there, {} had expired, {} failed; {seconds:.1} s",
            HumanCount(imported),
            HumanCount(existing),
            HumanCount(expired),
            HumanCount(failed),
        ))?;
    }
    Ok(if failed > 0 { Done::WithFindings } else { Done::Well })
}

/// What was read.
enum Line {
    Read,
    TooLong,
    End,
}

/// Longest line, in bytes: the largest record, each byte of it in the longest form that JSON has.
const LINE_BYTES_MAX: u64 = 128 << 20;

fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    let read = input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', line)?;
    Ok(if read == 0 {
        Line::End
    } else if read as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") {
        input.skip_until(b'\n')?;
        Line::TooLong
    } else {
        Line::Read
    })
}

fn import_one(store: &FileStore, line: &[u8], how: Durability) -> Result<Imported, String> {
    let session: SessionJson =
        serde_json::from_slice(line.trim_ascii()).map_err(|error| unreadable(&error))?;
    let (id, record) = session.into_record()?;
    if record.is_expired(store.now()) {
        return Ok(Imported::Expired);
    }
    let imported = store.bring_in(&id, &record, how).map_err(|error| told(&error))?;
    Ok(if imported { Imported::Yes } else { Imported::Existing })
}

/// Why a line is no session: where, and without what stands there, which may be a secret.
fn unreadable(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.truncate(text.strip_suffix(&place).map_or(text.len(), str::len));
    for wrong in ["invalid type: ", "invalid value: "] {
        if text.starts_with(wrong)
            && let Some(expected) = text.rfind(", expected ")
        {
            text.replace_range(wrong.len() - 2..expected, "");
        }
    }
    format!("column {}: {text}", error.column())
}
