//! A store that is emptied by `rm -rf DIR/*` while processes and threads use it. One process recreates it, and no
//! session from before comes back.
use crate::figures::Figures;
use crate::rounds::Rounds;
use crate::stage::store_in;
use crate::support::process::{Child, Parent, Start, Worker, hear_from_all};
use crate::support::texts::{load, put, record};
use sessile::{Durability, Event, FileStore, FileStoreOptions, Store, Token, Verdict};
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tempfile::tempdir_in;

trials! {
    of_processes_that_make_the_store_again_at_once_one_says_so,
    no_save_brings_a_session_back_that_was_there_before,
}

pub(crate) const WORKERS: &[(&str, Worker)] =
    &[("serve in a store that is emptied", serve), ("save in stores that are emptied", save)];

const RELAXED: Durability = Durability::Relaxed;

fn options() -> FileStoreOptions {
    FileStoreOptions::new().sync_security_events(false)
}

fn create(store: &FileStore) -> Token {
    store.create(&record("x"), RELAXED).unwrap().token
}

fn shown(store: &FileStore, token: &Token) -> Option<String> {
    load(store, token).unwrap()
}

/// Runs a shell command in the store. Returns whether it succeeded. It may fail, because a session that is created
/// meanwhile keeps its directory from being removed.
fn is_removed(root: &Path, way: &str) -> bool {
    Command::new("sh").args(["-c", way]).current_dir(root).status().unwrap().success()
}

/// The usual command that empties a directory.
const EMPTY: &str = "rm -rf ./*";

/// Starts a worker process without its standard error, on which it prints that it has recreated a store.
fn start(worker: Start, dir: &Path) -> Child {
    worker.stderr_to(File::create(dir.join("errors")).unwrap()).start()
}

/// A worker process: for each order, creates a session, and loads the one that the order names. Reports the number of
/// its events.
fn serve(parent: &Parent) {
    let events = Arc::new(AtomicUsize::new(0));
    let observed = Arc::clone(&events);
    let options = options().watch(false).observer(move |_: &Event<'_>| {
        observed.fetch_add(1, Ordering::SeqCst);
    });
    let store = options.open(parent.argument("DIR")).unwrap();
    parent.report("ready");
    loop {
        match parent.line().as_str() {
            "create" => parent.report(create(&store).expose()),
            "events" => parent.report(events.swap(0, Ordering::SeqCst)),
            "end" => return,
            token => parent.report(format_args!("{:?}", shown(&store, &Token::parse(token).unwrap()))),
        }
    }
}

fn ask(server: &mut Child, question: &str) -> String {
    server.say(question);
    server.line()
}

fn of_processes_that_make_the_store_again_at_once_one_says_so(dir: &Path, time: Duration) -> Figures {
    let root = store_in(dir);
    let mut servers =
        [(); 4].map(|()| start(Start::of("serve in a store that is emptied").with("DIR", &root), dir));
    hear_from_all(&servers, "ready");
    let rounds = Rounds::new(time, &[]);
    while let Some(round) = rounds.next() {
        assert!(is_removed(&root, EMPTY), "round {round}");
        for server in &mut servers {
            server.say("create");
        }
        let tokens: Vec<_> = servers.iter().map(Child::line).collect();
        let events: Vec<usize> =
            servers.iter_mut().map(|server| ask(server, "events").parse().unwrap()).collect();
        assert_eq!(events.iter().sum::<usize>(), 1, "round {round}: {events:?}");
        for token in tokens {
            assert!(servers.iter_mut().all(|server| ask(server, &token) == r#"Some("x")"#), "round {round}");
        }
    }
    for mut server in servers {
        server.say("end");
        server.finish();
    }
    rounds.figures()
}

/// Commands that remove all files one by one, in any order.
const WAYS: [&str; 3] = [EMPTY, "find . -mindepth 1 -delete", "rm -f sessile.json; sleep 0.02; rm -rf ./*"];

/// The files are removed while writers are at any point of a save, of a save that needs a larger file, or of a
/// rotation. Each round has a store of its own.
fn no_save_brings_a_session_back_that_was_there_before(dir: &Path, time: Duration) -> Figures {
    let mut worker = start(Start::of("save in stores that are emptied").with("DIR", dir), dir);
    let rounds = Rounds::new(time, &WAYS);
    while let Some(round) = rounds.next() {
        let way = usize::try_from(round % 3).unwrap();
        worker.say(format_args!("{round} {way}"));
        assert_eq!(worker.line(), "in order", "round {round}: {}", WAYS[way]);
        rounds.count(WAYS[way], 1);
    }
    worker.say("end");
    worker.finish();
    rounds.figures()
}

/// A worker process: runs one round for each order.
fn save(parent: &Parent) {
    loop {
        let order = parent.line();
        let Some((round, way)) = order.split_once(' ') else { return };
        let (round, way): (u64, usize) = (round.parse().unwrap(), way.parse().unwrap());
        let dir = tempdir_in(parent.argument("DIR")).unwrap();
        let mut figures = Figures::default();
        figures.check(|| check_removal(dir.path(), WAYS[way], round % 2 == 0));
        parent.report(if figures.has_faults() { figures.descriptions() } else { "in order".into() });
    }
}

#[track_caller]
fn check_removal(root: &Path, way: &str, watches: bool) {
    let store = options().watch(watches).open(root).unwrap();
    let tokens: Vec<_> = (0..8).map(|_| create(&store)).collect();
    let last = remove_beside_writers(&store, &tokens, way);
    let files = options().watch(false).cache_bytes(0).open(root).unwrap();
    assert!(tokens.iter().chain(&last).all(|token| shown(&files, token).is_none()), "one is back");
    let left = files.files().filter(|file| file.as_ref().unwrap().path.is_file()).count();
    assert_eq!(left, 0, "files are left");
    // Waits until all shards exist.
    for _ in 0..600 {
        let token = create(&store);
        assert_eq!(shown(&files, &token).as_deref(), Some("x"));
    }
}

/// Removes all files while a thread for each session saves that session. Returns the ids that the sessions had at the
/// end.
fn remove_beside_writers(store: &FileStore, tokens: &[Token], way: &str) -> Vec<Token> {
    let (stop, operations) = (AtomicBool::new(false), AtomicUsize::new(0));
    let write = |token: &Token| {
        let mut token = token.clone();
        for n in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            operations.fetch_add(1, Ordering::Relaxed);
            // During the removal, each operation may fail.
            match n % 8 {
                7 => {
                    let moved = store.rotate(&token, &mut |_| Ok(Verdict::Write), &RELAXED.into());
                    token = moved.ok().flatten().map_or(token, |moved| moved.token);
                }
                n => drop(put(store, &token, &"y".repeat(700 << n), RELAXED)),
            }
        }
        token
    };
    thread::scope(|scope| {
        let write = &write;
        let writers: Vec<_> = tokens.iter().map(|token| scope.spawn(move || write(token))).collect();
        while operations.load(Ordering::Relaxed) < 200 {
            thread::yield_now();
        }
        let mut is_done = is_removed(store.path(), way);
        while !is_done {
            is_done = is_removed(store.path(), EMPTY);
        }
        thread::sleep(Duration::from_millis(5));
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    })
}
