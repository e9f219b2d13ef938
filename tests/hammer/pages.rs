//! Pages of sessions beside processes that log in, rotate and log out all the time: each session that lives from before
//! the first page until after the last one is in the pages once, no session is in them twice, and none that had ended
//! before is in them. The pages are those of `sessions_of`, in a store with a cache and in one without, and those of
//! `sessile list`, by the index and by a scan.
//!
//! The user has 2,000 sessions for each second of the trial, and at most 100,000.
use crate::figures::Figures;
use crate::rounds::Rounds;
use crate::stage::{open_in, store_in};
use crate::support::dice::Dice;
use crate::support::process::{Child, Parent, Start, Worker};
use crate::support::texts::record;
use serde_json::Value as Json;
use sessile::{Durability, FileStore, Page, PublicId, Rotation, Saved, Store, Token, Verdict};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

trials! {
    pages_have_each_session_that_stays_once,
    a_page_whose_sessions_have_just_ended_is_not_the_last,
}

pub(crate) const WORKERS: &[(&str, Worker)] = &[("log in and out", log_in_and_out)];

const PROCESSES: u64 = 2;
const USER: &str = "ada";
/// The number of sessions that stay, for each second of the trial, and at most.
const STAY_EACH_SECOND: f64 = 2000.0;
const STAY_MAX: f64 = 100_000.0;
/// The number of sessions that a process holds at the same time.
const HELD: usize = 200;

/// The event that a session of another process is in one list and not in the one before, or the other way round.
const CHANGED: &str = "sessions that came or went between two lists";
/// The event that the command has read all files for a page, in a list of all users' sessions.
const SCANNED: &str = "pages by a scan";
/// The event that a page has no session any more, because they ended while it was printed, and is not the last.
const EMPTIED: &str = "pages whose sessions had just ended";

fn log_in(store: &FileStore) -> Saved {
    store.create(&record("page").with_user(USER).unwrap(), Durability::Relaxed).unwrap()
}

/// A page of ids, and the id after which the next one begins.
type Ids = (Vec<PublicId>, Option<PublicId>);

/// A page of the user's sessions.
fn page_of_store(store: &FileStore, page: &Page) -> Ids {
    let listed = store.sessions_of(USER, page).unwrap();
    assert!(listed.complete, "nothing has spoilt the index");
    (listed.sessions.iter().map(|session| session.id).collect(), listed.next)
}

/// A page that the command prints: of the user, or of all sessions.
fn page_of_command(dir: &Path, of_user: bool, page: &Page) -> Ids {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sessile"));
    command.args(["list", "--json", "--limit", &page.limit.to_string()]).arg(store_in(dir));
    command.args(of_user.then_some(["--user", USER]).into_iter().flatten());
    let after = page.after.map(|id| id.to_string());
    command.args(after.iter().flat_map(|after| ["--after", after]));
    let ran = command.output().unwrap();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{}", String::from_utf8_lossy(&ran.stderr));
    let json: Json = serde_json::from_slice(&ran.stdout).unwrap();
    let id = |text: &Json| text.as_str().map(|text| PublicId::parse(text).unwrap());
    let sessions = json["sessions"].as_array().unwrap();
    (sessions.iter().map(|session| id(&session["id"]).unwrap()).collect(), id(&json["next"]))
}

/// The ids of all pages. Each is greater than the one before, so none is there twice.
fn all_pages(limit: usize, mut page_of: impl FnMut(&Page) -> Ids) -> Vec<PublicId> {
    let (mut page, mut all) = (Page { after: None, limit }, Vec::new());
    loop {
        let (ids, next) = page_of(&page);
        assert!(ids.len() <= limit, "{} sessions on a page of {limit}", ids.len());
        all.extend(ids);
        let Some(next) = next else { break };
        page = page.after(next);
    }
    assert!(all.is_sorted_by(|one, next| one < next), "the pages are not in order, or have a session twice");
    all
}

fn pages_have_each_session_that_stays_once(dir: &Path, time: Duration) -> Figures {
    let stores = [true, false].map(|has_cache| open_in(dir, has_cache));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "100,000 at most")]
    let count = (time.as_secs_f64() * STAY_EACH_SECOND).clamp(STAY_EACH_SECOND, STAY_MAX) as usize;
    let stay: BTreeSet<_> = (0..count).map(|_| log_in(&stores[0]).live.id).collect();
    let children: Vec<Child> = (0..PROCESSES)
        .map(|n| Start::of("log in and out").with("DIR", dir).with("PROCESS", n.to_string()).start())
        .collect();
    for child in &children {
        assert_eq!(child.line(), "begun");
    }
    let rounds = Rounds::new(time, &[CHANGED, SCANNED]);
    let (mut dice, mut others_before) = (Dice::new(64), BTreeSet::new());
    let mut own = log_in(&stores[1]);
    while let Some(round) = rounds.next() {
        // This process logs out and in, too: it knows which session must not be in the pages.
        let ended = std::mem::replace(&mut own, log_in(&stores[1]));
        assert!(stores[0].delete(&ended.token).unwrap().is_some());
        let limit = (count >> dice.roll(5)) + dice.below(100);
        let found = all_pages(limit, |page| match round % 4 {
            0 => page_of_store(&stores[0], page),
            1 => page_of_store(&stores[1], page),
            2 => page_of_command(dir, true, page),
            _ => {
                rounds.count(SCANNED, 1);
                page_of_command(dir, false, page)
            }
        });
        let found: BTreeSet<_> = found.into_iter().collect();
        let missed = stay.difference(&found).count();
        assert_eq!(missed, 0, "round {round}: sessions missed in pages of {limit}");
        assert!(found.contains(&own.live.id), "round {round}: the last login is missed");
        assert!(!found.contains(&ended.live.id), "round {round}: a session is listed that had ended");
        let others: BTreeSet<_> = found.difference(&stay).copied().collect();
        rounds.count(CHANGED, others.symmetric_difference(&others_before).count() as u64);
        others_before = others;
    }
    for mut child in children {
        child.say("end");
        assert_eq!(child.finish(), [""; 0]);
    }
    rounds.figures()
}

/// Logs in, rotates and logs out until the parent says so.
fn log_in_and_out(parent: &Parent) {
    let dir = Path::new(parent.argument("DIR"));
    let (store, is_over) = (open_in(dir, true), AtomicBool::new(false));
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let (mut dice, mut held) = (Dice::new(640 + parent.number("PROCESS")), Vec::<Token>::new());
            while !is_over.load(Ordering::SeqCst) {
                if held.len() < HELD && dice.roll(3) > 0 {
                    held.push(log_in(&store).token);
                    continue;
                }
                if held.is_empty() {
                    continue;
                }
                let token = held.swap_remove(dice.below(held.len()));
                if dice.roll(4) == 0 {
                    let mut keep = |_: &mut _| Ok(Verdict::Keep);
                    let rotated = store.rotate(&token, &mut keep, &Rotation::default()).unwrap();
                    held.push(rotated.unwrap().token);
                } else {
                    assert!(store.delete(&token).unwrap().is_some());
                }
            }
        });
        parent.report("begun");
        assert_eq!(parent.line(), "end");
        is_over.store(true, Ordering::SeqCst);
        worker.join().unwrap();
    });
}

/// The command reads the ids of a page, and then the sessions. Here most sessions end at once, so that at times the
/// only session of a page has ended in between. The session that stays is the last one of the list.
fn a_page_whose_sessions_have_just_ended_is_not_the_last(dir: &Path, time: Duration) -> Figures {
    const LAST: u8 = 0xc0;
    let stores = [true, false].map(|has_cache| open_in(dir, has_cache));
    let stays =
        std::iter::repeat_with(|| log_in(&stores[0])).find(|saved| saved.live.id.as_bytes()[0] >= LAST);
    let stays = stays.unwrap().live.id;
    let (rounds, is_over) = (Rounds::new(time, &[EMPTIED]), AtomicBool::new(false));
    thread::scope(|scope| {
        for store in &stores {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    assert!(store.delete(&log_in(store).token).unwrap().is_some());
                }
            });
        }
        let _stops = Stops(&is_over);
        while let Some(round) = rounds.next() {
            let found = all_pages(1, |page| {
                let page = page_of_command(dir, true, page);
                rounds.count(EMPTIED, u64::from(page.0.is_empty() && page.1.is_some()));
                page
            });
            assert!(found.contains(&stays), "round {round}: the pages ended too early, after {found:?}");
        }
    });
    rounds.figures()
}

/// Stops the other threads when it is dropped, also by a panic.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
