//! `sessile show` and `sessile destroy`: one session, by its id or by the digest of it.
use crate::args::One;
use crate::session_json::SessionJson;
use crate::terminal::{complain, json_line, json_pretty, print};
use crate::{Done, Failure, Outcome, open};
use serde_json::json;
use sessile::{Absent, FileId, FileStore, Lookup, SessionId};
use std::io::{self, BufRead, IsTerminal, Read};

/// The environment variable that may hold the id.
const VARIABLE: &str = "SESSILE_ID";

/// Which session is meant. The id is dropped where it was read, but for its digest, which is all that is needed.
fn which(args: &One) -> Result<FileId, Failure> {
    if let Some(id) = args.file_id {
        return Ok(id);
    }
    // As bytes: what is no text is no id.
    let bytes = if let Some(value) = std::env::var_os(VARIABLE) {
        value.into_encoded_bytes()
    } else {
        if io::stdin().is_terminal() {
            complain("the session's id, please:");
        }
        let mut line = Vec::new();
        io::stdin().lock().take(4096).read_until(b'\n', &mut line).map_err(Failure::Input)?;
        line
    };
    // Without quoting it: it may be somebody's id with a slip in it.
    let id = str::from_utf8(&bytes).ok().and_then(|text| SessionId::parse(text.trim()));
    let id =
        id.ok_or(Failure::Usage("what was given is no session id: those have 32 characters a-z, 2-7"))?;
    Ok(id.file_id())
}

fn why(absent: Absent) -> &'static str {
    match absent {
        Absent::Expired(_) => "expired",
        Absent::Damaged(_) => "damaged",
        Absent::Unknown(_) | Absent::Malformed => "unknown",
    }
}

pub(crate) fn show(args: &One, json: bool) -> Outcome {
    let store: FileStore = open(&args.dir, false)?;
    let id = which(args)?;
    match store.find(&id)? {
        Lookup::Live(live) => {
            let session = SessionJson::of(&live)?;
            print(if json { json_line(&session) } else { json_pretty(&session) })?;
            Ok(Done::Well)
        }
        Lookup::Absent(absent) => {
            if json {
                print(json_line(&json!({"id": id.to_string(), "absent": why(absent)})))?;
            } else {
                complain(format_args!("no such session: {id} is {}", why(absent)));
            }
            Ok(Done::WithFindings)
        }
    }
}

pub(crate) fn destroy(args: &One, json: bool) -> Outcome {
    let store = open(&args.dir, false)?;
    let id = which(args)?;
    let destroyed = store.end(&id)?;
    if json {
        print(json_line(&json!({"id": id.to_string(), "destroyed": destroyed})))?;
    } else if destroyed {
        print(format_args!("destroyed: {id}"))?;
    } else {
        complain(format_args!("no such session: {id}"));
    }
    Ok(if destroyed { Done::Well } else { Done::WithFindings })
}
