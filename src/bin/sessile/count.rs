//! `sessile count`: the number of stored sessions.
use crate::args::Count;
use crate::store::AnyStore;
use crate::terminal::{json_line, print};
use crate::{Access, Outcome, VerbResult};
use serde_json::json;

pub(crate) fn count(args: &Count, json: bool) -> VerbResult {
    let sessions = AnyStore::open(&args.place, Access::Read)?.admin().count()?;
    print(if json { json_line(&json!({"sessions": sessions})) } else { sessions.to_string() })?;
    Ok(Outcome::Ok)
}
