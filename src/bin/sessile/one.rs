//! `sessile show` and `sessile delete`: one session, by its id or by the digest of its id; and the end of all sessions
//! of a user, or of all.
use crate::args::{Delete, One};
use crate::older;
use crate::session_json::SessionJson;
use crate::store::AnyStore;
use crate::terminal::{json_line, json_pretty, plain, print, prompt, warn};
use crate::{Access, Failure, Outcome, VerbResult};
use serde_json::json;
use sessile::{Absent, Lookup, PublicId, SessionId};
use std::io::{self, BufRead, IsTerminal, Read};

/// The name of the environment variable that may hold the id.
const VARIABLE: &str = "SESSILE_ID";

/// The public id of the session that the operator names by id or by digest. If it is a secret id, only its digest is
/// kept.
fn read_session_ref(args: &One) -> Result<PublicId, Failure> {
    if let Some(id) = args.public_id {
        return Ok(id);
    }
    // The input is read as bytes, so that input that is not UTF-8 is refused like any other text that is not an id.
    let bytes = if let Some(value) = std::env::var_os(VARIABLE) {
        value.into_encoded_bytes()
    } else {
        if io::stdin().is_terminal() {
            prompt("the session's id, please:");
        }
        let mut line = Vec::new();
        io::stdin().lock().take(4096).read_until(b'\n', &mut line).map_err(Failure::Input)?;
        line
    };
    // The error does not quote the input, which may be an id with a typing error.
    let text = str::from_utf8(&bytes).map_err(|_| Failure::Usage(NO_ID))?;
    let mut ids = ids_in(text);
    match (ids.next(), ids.next()) {
        (Some(id), None) => Ok(id.public_id()),
        (Some(_), Some(_)) => Err(Failure::Usage("several session ids were given; give one")),
        (None, _) => Err(Failure::Usage(NO_ID)),
    }
}

const NO_ID: &str = "no session id was given: it has 32 characters a-z, 2-7, alone or as name=value";

/// The ids in a line that was copied from a browser: the id alone, `name=value`, or a whole `Cookie` header.
fn ids_in(text: &str) -> impl Iterator<Item = SessionId> {
    text.split(';').filter_map(|part| {
        let value = part.split_once('=').map_or(part, |(_, value)| value).trim();
        SessionId::parse(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
    })
}

fn absence_reason(absent: Absent) -> &'static str {
    match absent {
        Absent::Expired(_) => "expired",
        Absent::Damaged(_) => "damaged",
        Absent::Moved(_) => "moved to another id",
        _ => "not found",
    }
}

pub(crate) fn show(args: &One, json: bool) -> VerbResult {
    let store = AnyStore::open(&args.place, Access::Read)?;
    let id = read_session_ref(args)?;
    match store.admin().load_by_id(&id)? {
        Lookup::Live(live) => {
            let session = SessionJson::of(&live)?;
            print(if json { json_line(&session) } else { json_pretty(&session) })?;
            Ok(Outcome::Ok)
        }
        Lookup::Absent(absent) => {
            if json {
                print(json_line(&json!({"id": id.to_string(), "absent": absence_reason(absent)})))?;
            } else {
                warn(format_args!("no such session: {id} is {}", absence_reason(absent)));
            }
            Ok(Outcome::Findings)
        }
    }
}

pub(crate) fn delete(args: &Delete, json: bool) -> VerbResult {
    let store = AnyStore::open(&args.one.place, Access::Write)?;
    if let Some(age) = args.older_than {
        return older::delete(&store, age, json);
    }
    let store = store.admin();
    if args.all {
        store.delete_all()?;
        print(if json {
            json_line(&json!({"all": true, "ended": true}))
        } else {
            "all sessions ended".into()
        })?;
        return Ok(Outcome::Ok);
    }
    if let Some(user) = &args.user {
        store.delete_of(user, None)?;
        print(if json {
            json_line(&json!({"user": user, "ended": true}))
        } else {
            format!("all sessions of the user ended: {}", plain(user))
        })?;
        return Ok(Outcome::Ok);
    }
    let id = read_session_ref(&args.one)?;
    let ended = store.delete_by_id(&id)?;
    let deleted = ended.is_some();
    if json {
        let ended = ended.map(|ended| ended.id.to_string());
        print(json_line(&json!({"id": id.to_string(), "deleted": deleted, "ended": ended})))?;
    } else if deleted {
        print(format_args!("deleted: {id}"))?;
    } else {
        warn(format_args!("no such session: {id}"));
    }
    Ok(if deleted { Outcome::Ok } else { Outcome::Findings })
}
