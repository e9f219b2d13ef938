//! `sessile export`: all live sessions, one JSON object a line, and a last line that counts them.
use crate::args::Export;
use crate::session_json::{SessionJson, Trailer};
use crate::store::AnyStore;
use crate::terminal::{error_chain, json_line};
use crate::{Access, Outcome, VerbResult};
use indicatif::HumanCount;
use serde_json::json;
use sessile::admin::Scanned;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::Instant;

pub(crate) fn export(args: &Export, json: bool) -> VerbResult {
    let began = Instant::now();
    let store = AnyStore::open(&args.place, Access::Read)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut exported, mut damaged, mut unreadable) = (0_u64, 0_u64, 0_u64);
    // On a terminal, the sessions and the progress bar would be printed over each other.
    let mut bar = store.progress().unless(io::stdout().is_terminal());
    let failed = store.scan(None, &mut bar, |bar, found| {
        match found {
            Scanned::Live(live) => match SessionJson::of(&live) {
                Ok(session) => {
                    writeln!(out, "{}", json_line(&session))?;
                    exported += 1;
                }
                Err(error) => {
                    unreadable += 1;
                    bar.warn(error_chain(&error));
                }
            },
            Scanned::Damaged(id) => {
                damaged += 1;
                bar.warn(format_args!("damaged, and left out: {id}"));
            }
            // Sessions that are over, and moved ids.
            _ => {}
        }
        Ok(true)
    })?;
    let failed = failed + unreadable;
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
