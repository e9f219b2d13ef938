//! `sessile export`: all live sessions, one JSON object a line, and a last line that counts them.
use crate::args::Export;
use crate::session_json::{SessionJson, Trailer};
use crate::terminal::{Progress, error_chain, json_line};
use crate::{Access, Outcome, VerbResult, open};
use indicatif::HumanCount;
use serde_json::json;
use sessile::file::Content;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::Instant;

pub(crate) fn export(args: &Export, json: bool) -> VerbResult {
    let began = Instant::now();
    let store = open(&args.dir, Access::Read)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut exported, mut damaged, mut failed) = (0_u64, 0_u64, 0_u64);
    // On a terminal, the sessions and the progress bar would be printed over each other.
    let mut bar = Progress::in_directories(store.shards().into()).unless(io::stdout().is_terminal());
    let mut files = store.files();
    while let Some(file) = files.next() {
        bar.at_directory(files.shards_begun().saturating_sub(1).into(), exported);
        let session = match file.map(|file| file.content) {
            Ok(Content::Live(live)) => SessionJson::of(&live),
            Ok(Content::Damaged(id)) => {
                damaged += 1;
                bar.warn(format_args!("damaged, and left out: {id}"));
                continue;
            }
            Ok(ref content @ (Content::Newer(id) | Content::Older(id))) => {
                failed += 1;
                let version = if matches!(content, Content::Newer(_)) { "a newer" } else { "an earlier" };
                bar.warn(format_args!("written by {version} version of sessile, and left out: {id}"));
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
                bar.warn(error_chain(&error));
            }
        }
    }
    // The last line counts the sessions. An export without it was cut short.
    writeln!(out, "{}", json_line(&Trailer::of(exported)))?;
    out.flush()?;
    drop(bar);
    let seconds = began.elapsed().as_secs_f64();
    // The summary goes to standard error, because standard output has the sessions.
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
    // A failure is ignored, because the sessions were written.
    let _ = writeln!(io::stderr(), "{summary}");
    Ok(if damaged + failed > 0 { Outcome::Findings } else { Outcome::Ok })
}
