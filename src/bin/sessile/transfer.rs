//! `sessile export` and `sessile import`: all live sessions, one JSON object a line.
use crate::args::{Export, Import};
use crate::session_json::SessionJson;
use crate::{Done, Failure, Outcome, complain, open, print, progress, told};
use indicatif::HumanCount;
use serde_json::json;
use sessile::file::Holds;
use sessile::{Durability, FileStore, Store};
use std::io::{self, BufRead, BufWriter, Write};
use std::time::Instant;

pub(crate) fn export(args: &Export, json: bool) -> Outcome {
    let began = Instant::now();
    let store = open(&args.dir, false)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut exported, mut damaged, mut failed) = (0_u64, 0_u64, 0_u64);
    let bar = progress("directories", store.shards().into());
    let mut files = store.files();
    while let Some(file) = files.next() {
        bar.set_position(files.shards_begun().saturating_sub(1).into());
        let session = match file.map(|file| file.holds) {
            Ok(Holds::Live(live)) => SessionJson::of(&live),
            Ok(Holds::Damaged(id)) => {
                damaged += 1;
                complain(format_args!("damaged, and left out: {id}"));
                continue;
            }
            Ok(_) => continue,
            Err(error) => Err(error),
        };
        match session {
            Ok(session) => {
                serde_json::to_writer(&mut out, &session).map_err(io::Error::from)?;
                out.write_all(b"\n")?;
                exported += 1;
            }
            Err(error) => {
                failed += 1;
                complain(told(&error));
            }
        }
    }
    out.flush()?;
    bar.finish_and_clear();
    let seconds = began.elapsed().as_secs_f64();
    // Standard output has the sessions.
    let summary = if json {
        json!({"exported": exported, "damaged": damaged, "failed": failed, "seconds": seconds}).to_string()
    } else {
        format!(
            "{} sessions exported, {} damaged, {} could not be read; {seconds:.1} s",
            HumanCount(exported),
            HumanCount(damaged),
            HumanCount(failed),
        )
    };
    writeln!(io::stderr(), "{summary}")?;
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
    for (line, number) in io::stdin().lock().lines().zip(1_u64..) {
        let line = line.map_err(Failure::Input)?;
        if line.trim().is_empty() {
            continue;
        }
        match import_one(&store, &line, how) {
            Ok(Imported::Yes) => imported += 1,
            Ok(Imported::Existing) => existing += 1,
            Ok(Imported::Expired) => expired += 1,
            Err(error) => {
                failed += 1;
                complain(format_args!("line {number}: {error}"));
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    if json {
        print(json!({
            "imported": imported,
            "existing": existing,
            "expired": expired,
            "failed": failed,
            "seconds": seconds,
        }))?;
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

fn import_one(store: &FileStore, line: &str, how: Durability) -> Result<Imported, String> {
    let session: SessionJson = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let (id, record) = session.into_record()?;
    if record.is_expired(store.now()) {
        return Ok(Imported::Expired);
    }
    let imported = store.bring_in(&id, &record, how).map_err(|error| told(&error))?;
    Ok(if imported { Imported::Yes } else { Imported::Existing })
}
