//! `sessile list`: live sessions in the order of their public ids, all or those of one user, in pages.
use crate::args::List;
use crate::session_json::time_text;
use crate::store::AnyStore;
use crate::terminal::{json_line, plain, print};
use crate::{Access, Failure, Outcome, VerbResult};
use serde_json::{Value as Json, json};
use sessile::admin::{Cursor, Scanned};
use sessile::{Admin, ErrorKind, Live, Lookup, Page, PublicId};
use std::fmt::Write;

/// A page of sessions.
#[derive(Default)]
struct Found {
    sessions: Vec<Live>,
    /// The id after which the next page begins, if there is one. It may be that of a session that has ended since.
    next: Option<PublicId>,
    /// Files that are damaged or could not be read.
    findings: u64,
}

pub(crate) fn list(args: &List, json: bool) -> VerbResult {
    let store = AnyStore::open(&args.place, Access::Read)?;
    let indexed = args.user.as_deref().map(|user| by_index(store.admin(), user, args)).transpose()?.flatten();
    let found = match indexed {
        Some(found) => found,
        None => by_scan(&store, args)?,
    };
    let next = found.next;
    if json {
        let sessions: Vec<Json> = found.sessions.iter().map(to_json).collect();
        print(json_line(&json!({"sessions": sessions, "next": next.map(|id| id.to_string())})))?;
    } else {
        print(in_words(&found.sessions, next).trim_end())?;
    }
    Ok(if found.findings > 0 { Outcome::Findings } else { Outcome::Ok })
}

/// The sessions of a user by the index of users; `None` if the index is not complete.
fn by_index(store: &dyn Admin, user: &str, args: &List) -> Result<Option<Found>, Failure> {
    let page = Page { after: args.after, limit: args.limit() };
    let listed = match store.sessions_of(user, &page) {
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(None),
        listed => listed?,
    };
    if !listed.complete {
        return Ok(None);
    }
    let mut found = Found { next: listed.next, ..Found::default() };
    for session in listed.sessions {
        match store.load_by_id(&session.id)? {
            Lookup::Live(live) if live.record.user() == Some(user) => found.sessions.push(live),
            // It has ended, or has become another user's, since the page was made.
            Lookup::Live(_) | Lookup::Absent(_) => {}
        }
    }
    Ok(Some(found))
}

/// The sessions by a scan, which is in the order of the ids.
fn by_scan(store: &AnyStore, args: &List) -> Result<Found, Failure> {
    let mut found = Found::default();
    let (sessions, findings) = (&mut found.sessions, &mut found.findings);
    let mut bar = store.progress();
    let from = args.after.as_ref().map(Cursor::after);
    let failed = store.scan(from, &mut bar, |bar, scanned| {
        match scanned {
            Scanned::Live(live) if is_asked_for(&live, args) => sessions.push(live),
            Scanned::Damaged(id) => {
                *findings += 1;
                bar.warn(format_args!("damaged, and left out: {id}"));
            }
            _ => {}
        }
        Ok(sessions.len() <= args.limit())
    })?;
    found.findings += failed;
    let has_more = found.sessions.len() > args.limit();
    found.sessions.truncate(args.limit());
    found.next = found.sessions.last().filter(|_| has_more).map(|live| live.id);
    Ok(found)
}

fn is_asked_for(live: &Live, args: &List) -> bool {
    args.user.as_deref().is_none_or(|user| live.record.user() == Some(user))
}

fn to_json(live: &Live) -> Json {
    let timing = live.record.timing();
    json!({
        "id": live.id.to_string(),
        "user": live.record.user(),
        "created": time_text(timing.created),
        "last_seen": time_text(timing.touched),
        "deadline": time_text(timing.deadline),
        "bytes": live.record.as_bytes().len(),
    })
}

/// A line for each session. The user comes last, because it may have spaces, and is escaped.
fn in_words(sessions: &[Live], next: Option<PublicId>) -> String {
    let mut text = String::new();
    for live in sessions {
        let timing = live.record.timing();
        let [created, seen, deadline] = [timing.created, timing.touched, timing.deadline].map(time_text);
        let (bytes, user) = (live.record.as_bytes().len(), live.record.user().map(plain).unwrap_or_default());
        writeln!(text, "{}  {created}  {seen}  {deadline}  {bytes}  {user}", live.id).expect("into a string");
    }
    if let Some(next) = next {
        writeln!(text, "more: --after {next}").expect("into a string");
    }
    if text.is_empty() { "no sessions".to_owned() } else { text }
}
