//! "Log out everywhere" beside processes that log in, rotate, save and load all the time, with warm caches: no session
//! whose login had returned before is alive afterwards, in any process, nor is a successor of one; what begins
//! afterwards lives, and so does the session that was excepted. Each login counts the sessions of the user, and none is
//! refused, because no more than the limit are ever alive. The list of the user's sessions is complete all the time: it
//! has the session that does not rotate, and in the end, when all processes have stopped, each session that is alive.
use crate::figures::Figures;
use crate::rounds::Rounds;
use crate::stage::{options, store_in};
use crate::support::dice::Dice;
use crate::support::process::{Child, Parent, Start, Worker};
use sessile::file::{AtLimit, Content};
use sessile::store::Rotation;
use sessile::{Durability, FileStore, Lookup, Page, PublicId, Record, Store, Token, Value, Verdict};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

trials! {
    after_a_cut_off_no_session_whose_login_had_returned_lives,
}

pub(crate) const WORKERS: &[(&str, Worker)] = &[("log in all the time", log_in_all_the_time)];

const PROCESSES: usize = 8;
/// The number of sessions that a process uses at the same time.
const HELD: usize = 4;
const USER: &str = "ada";
const CACHE_BYTES: usize = 32 << 20;

/// The event that a cut-off has ended a session which a process had used since its login.
const ENDED: &str = "ended sessions";
/// The event that a rotation returned after the cut-off was called, so that its successor must be dead, too.
const OVERTAKEN: &str = "rotations beside a cut-off";

fn record() -> Record {
    let now = SystemTime::now();
    let mut record = Record::new(now, now + Duration::from_secs(3600));
    record.insert("n", &Value::new(&1).unwrap()).unwrap();
    record
}

/// The store with a limit that is never reached: the sessions of the processes, and those of a login that replaces a
/// dead one which its process has not noticed; two of this process.
fn open(dir: &Path, cache_bytes: usize) -> FileStore {
    let options = options().cache_bytes(cache_bytes);
    options.sessions_per_user(PROCESSES * HELD + 2, AtLimit::Refuse).open(store_in(dir)).unwrap()
}

/// The ids of the sessions that are listed for the user.
fn listed(store: &FileStore) -> BTreeSet<PublicId> {
    let page = store.sessions_of(USER, &Page { after: None, limit: usize::MAX }).unwrap();
    assert!(page.complete, "nothing has spoilt the index");
    page.sessions.iter().map(|session| session.id).collect()
}

/// The ids of the user's sessions, by a scan of all files.
fn scanned(store: &FileStore) -> BTreeSet<PublicId> {
    let of_user = |content| match content {
        Content::Live(live) if live.record.user() == Some(USER) => Some(live.id),
        _ => None,
    };
    store.files().filter_map(|file| of_user(file.unwrap().content)).collect()
}

fn is_alive(store: &FileStore, token: &Token) -> bool {
    matches!(store.load(token).unwrap(), Lookup::Live(_))
}

/// The file to which a process appends each login and rotation that has returned: a line with the number of the login
/// and the token.
struct Returned {
    file: File,
    rest: String,
}

impl Returned {
    fn path(dir: &Path, process: usize) -> PathBuf {
        dir.join(format!("returned-{process}"))
    }

    /// The lines that were appended since the last call.
    fn lines(&mut self) -> Vec<(u64, Token)> {
        let mut text = std::mem::take(&mut self.rest);
        self.file.read_to_string(&mut text).unwrap();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.rest = text.split_off(whole);
        let line = |line: &str| {
            let (login, token) = line.split_once(' ').unwrap();
            (login.parse().unwrap(), Token::parse(token).unwrap())
        };
        text.lines().map(line).collect()
    }
}

fn after_a_cut_off_no_session_whose_login_had_returned_lives(dir: &Path, time: Duration) -> Figures {
    let stores = [open(dir, CACHE_BYTES), open(dir, 0)];
    let mut children: Vec<Child> = (0..PROCESSES)
        .map(|n| {
            drop(File::create(Returned::path(dir, n)).unwrap());
            Start::of("log in all the time").with("DIR", dir).with("PROCESS", n.to_string()).start()
        })
        .collect();
    let open_returned =
        |n| Returned { file: File::open(Returned::path(dir, n)).unwrap(), rest: String::new() };
    let mut returned: Vec<_> = (0..PROCESSES).map(open_returned).collect();
    let rounds = Rounds::new(time, &[ENDED, OVERTAKEN]);
    let mut dice = Dice::new(48);
    let mut kept = begin(&stores[0]);
    // The tokens of the last logins, and the tokens that must be dead.
    let mut tokens: HashMap<u64, Vec<Token>> = HashMap::new();
    while let Some(round) = rounds.next() {
        dice.pause(3000);
        for (login, token) in returned.iter_mut().flat_map(Returned::lines) {
            tokens.entry(login).or_default().push(token);
        }
        let had_returned: HashSet<u64> = tokens.keys().copied().collect();
        let excepts = dice.roll(2) == 0;
        let by = &stores[usize::try_from(dice.roll(2)).unwrap()];
        if !excepts {
            kept = begin(by);
        }
        by.delete_of(USER, excepts.then_some(&kept)).unwrap();
        if !excepts {
            assert!(stores.iter().all(|store| !is_alive(store, &kept)), "round {round}");
            kept = begin(by);
        }
        let mut overtaken = 0;
        for (login, token) in returned.iter_mut().flat_map(Returned::lines) {
            overtaken += u64::from(had_returned.contains(&login));
            tokens.entry(login).or_default().push(token);
        }
        let dead: Vec<_> =
            tokens.extract_if(|login, _| had_returned.contains(login)).flat_map(|(_, t)| t).collect();
        rounds.count(ENDED, dead.len() as u64);
        rounds.count(OVERTAKEN, overtaken);
        for store in &stores {
            assert!(
                dead.iter().all(|token| !is_alive(store, token)),
                "round {round}: an ended session is alive"
            );
            assert!(is_alive(store, &kept), "round {round}: the session that must live is dead");
            let listed = listed(store);
            let is_listed = |token: &Token| listed.contains(&token.session_id().unwrap().public_id());
            assert!(is_listed(&kept), "round {round}: the session that must live is not listed");
            assert!(!dead.iter().any(is_listed), "round {round}: an ended session is listed");
        }
        let list: Vec<_> = dead.iter().map(|token| format!("-{}\n", token.expose())).collect();
        fs::write(dir.join("check"), list.concat() + &format!("+{}\n", kept.expose())).unwrap();
        for child in &mut children {
            child.say("check");
        }
        for child in &children {
            assert_eq!(child.line(), "as it must be", "round {round}");
        }
    }
    for mut child in children {
        child.say("end");
        assert_eq!(child.finish(), [""; 0]);
    }
    let there = scanned(&stores[0]);
    assert!(there.contains(&kept.session_id().unwrap().public_id()), "a scan has the session that must live");
    for store in &stores {
        assert_eq!(listed(store), there, "at the end");
    }
    rounds.figures()
}

/// Creates a session of the user. Returns its token.
fn begin(store: &FileStore) -> Token {
    store.create(&record().with_user(USER).unwrap(), Durability::Relaxed).unwrap().token
}

fn log_in_all_the_time(parent: &Parent) {
    let dir = Path::new(parent.argument("DIR"));
    let store = open(dir, CACHE_BYTES);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let worker = scope.spawn(|| work(dir, parent.number("PROCESS"), &store, &is_over));
        while parent.line() != "end" {
            let list = fs::read_to_string(dir.join("check")).unwrap();
            let wrong = list.lines().find(|line| {
                let (must_live, token) = line.split_at(1);
                is_alive(&store, &Token::parse(token).unwrap()) != (must_live == "+")
            });
            parent.report(
                wrong.map_or("as it must be".to_owned(), |line| format!("not as it must be: {line}")),
            );
        }
        is_over.store(true, Ordering::SeqCst);
        worker.join().unwrap();
    });
}

fn work(dir: &Path, process: u64, store: &FileStore, is_over: &AtomicBool) {
    let path = Returned::path(dir, usize::try_from(process).unwrap());
    let mut returned = File::options().append(true).open(path).unwrap();
    returned.seek(SeekFrom::End(0)).unwrap();
    let mut say = |login: u64, token: &Token| {
        returned.write_all(format!("{login} {}\n", token.expose()).as_bytes()).unwrap();
    };
    let mut dice = Dice::new(480 + process);
    let mut held: Vec<(u64, Token)> = Vec::new();
    let mut login = process << 40;
    let mut save = |record: &mut Record| {
        record.insert("n", &Value::new(&2).unwrap())?;
        Ok(Verdict::Write)
    };
    while !is_over.load(Ordering::SeqCst) {
        if held.len() < HELD {
            login += 1;
            let token = if dice.roll(2) == 0 {
                begin(store)
            } else {
                let anonymous = store.create(&record(), Durability::Relaxed).unwrap().token;
                let mut set_user = |record: &mut Record| record.set_user(USER).map(|()| Verdict::Write);
                let how = Rotation::new(Durability::Relaxed).login(USER);
                store.rotate(&anonymous, &mut set_user, &how).unwrap().unwrap().token
            };
            say(login, &token);
            held.push((login, token));
            continue;
        }
        let at = usize::try_from(dice.roll(HELD as u64)).unwrap();
        let (login, token) = held[at].clone();
        let next = match dice.roll(8) {
            0 => {
                let rotated = store.rotate(&token, &mut save, &Rotation::default()).unwrap();
                rotated.map(|saved| saved.token).inspect(|token| say(login, token))
            }
            1 | 2 => store.update(&token, &mut save, Durability::Relaxed).unwrap().map(|_| token),
            _ => is_alive(store, &token).then_some(token),
        };
        match next {
            Some(token) => held[at].1 = token,
            None => drop(held.swap_remove(at)),
        }
        dice.pause(100);
    }
}
