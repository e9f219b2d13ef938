//! A backup that is restored while servers run, and the part of a store that a backup may leave out: the directory
//! `run`.
use crate::support::process::{Child, Parent, Start, Worker};
use crate::support::texts::{directory_in_memory, put, record, text_of};
use sessile::{Admin, Clock, Durability, FileStore, FileStoreOptions, Lookup, Store, Token};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

pub(crate) const WORKERS: &[(&str, Worker)] = &[("serve as asked", serve_as_asked)];

const RELAXED: Durability = Durability::Relaxed;
const COUNTERS: &str = "run/generations";
const COUNTERS_BYTES: u64 = (2 << 20) + 4096;
/// How long a process may use a file of counters that was replaced: it checks once a second. The limit is ten times as
/// long for a busy machine, and far less than the minute for which a cached copy is returned without an invalidation.
const NOTICED: Duration = Duration::from_secs(10);

fn options(watches: bool) -> FileStoreOptions {
    FileStoreOptions::new().sync_security_events(false).watch(watches)
}

fn shown(store: &FileStore, token: &Token) -> String {
    match store.load(token).unwrap() {
        Lookup::Live(live) => text_of(&live.record),
        Lookup::Absent(_) => "absent".into(),
    }
}

/// A worker process: a server that loads, saves and ends sessions on request.
fn serve_as_asked(parent: &Parent) {
    let store = options(parent.argument("WATCHES") == "yes").open(parent.argument("DIR")).unwrap();
    parent.report("ready");
    loop {
        let line = parent.line();
        let (operation, token) = line.split_once(' ').unwrap_or((&line, ""));
        let token = Token::parse(token);
        match (operation, &token) {
            ("load", Some(token)) => parent.report(shown(&store, token)),
            ("warm", Some(token)) => {
                let hits = store.stats().hits;
                // The first load may have to read the file; the second one is a hit.
                let texts = [(); 2].map(|()| shown(&store, token));
                assert!(store.stats().hits > hits, "the session is not cached");
                parent.report(&texts[1]);
            }
            ("save", Some(token)) => {
                assert!(put(&store, token, "new", RELAXED).unwrap().is_some());
                parent.report("saved");
            }
            ("end", Some(token)) => {
                assert!(store.delete(token).unwrap().is_some());
                parent.report("ended");
            }
            _ => return,
        }
    }
}

struct Server(Child);

impl Server {
    fn start(root: &Path, watches: bool) -> Self {
        let start = Start::of("serve as asked").with("DIR", root);
        let child = start.with("WATCHES", if watches { "yes" } else { "no" }).start();
        assert_eq!(child.line(), "ready");
        Self(child)
    }
    fn ask(&mut self, operation: &str, token: &Token) -> String {
        self.0.say(format_args!("{operation} {}", token.expose()));
        self.0.line()
    }
    /// Waits until the server returns the new state.
    #[track_caller]
    fn check_notices(&mut self, token: &Token, want: &str, context: &str) {
        let began = Instant::now();
        while self.ask("load", token) != want {
            assert!(began.elapsed() < NOTICED, "{context}: {want:?} does not appear");
            thread::sleep(Duration::from_millis(5));
        }
    }
    fn finish(mut self) {
        self.0.say("end");
        self.0.finish();
    }
}

/// A way of restoring a backup of the counters' file over the one in use, with its name.
type Restoration = (&'static str, fn(&Path));
const RESTORATIONS: [Restoration; 5] = [
    ("as rsync does", |counters| {
        let restored = counters.with_file_name(".generations.x1Y2z3");
        fs::copy(counters, &restored).unwrap();
        fs::rename(restored, counters).unwrap();
    }),
    ("as tar does", |counters| {
        let backup = fs::read(counters).unwrap();
        fs::remove_file(counters).unwrap();
        fs::write(counters, backup).unwrap();
    }),
    ("as cp does", |counters| {
        let backup = counters.with_file_name("backup");
        fs::copy(counters, &backup).unwrap();
        let cp = Command::new("cp").args(["-a", "--remove-destination"]).args([&backup, counters]).status();
        assert!(cp.unwrap().success());
    }),
    ("without them", |counters| fs::remove_file(counters).unwrap()),
    ("without the directory", |counters| fs::remove_dir_all(counters.parent().unwrap()).unwrap()),
];

#[test]
fn all_hear_each_other_again_after_the_counters_were_replaced() {
    for (how, restore) in RESTORATIONS {
        for watches in [false, true] {
            let context = format!("{how}, watched: {watches}");
            let dir = directory_in_memory();
            let root = dir.path().join("store");
            let store = options(false).open(&root).unwrap();
            let tokens = [(); 6].map(|()| store.create(&record("old"), RELAXED).unwrap().token);
            let [saved_before, ended_before, saved_after, ended_after, saved, ended] = &tokens;
            let mut earlier = [(); 2].map(|()| Server::start(&root, watches));
            for token in &tokens {
                assert!(earlier.iter_mut().all(|server| server.ask("warm", token) == "old"), "{context}");
            }
            restore(&root.join(COUNTERS));
            let mut later = Server::start(&root, watches);
            assert!(tokens.iter().all(|token| later.ask("warm", token) == "old"), "{context}");
            let [one, other] = &mut earlier;
            // A server that was started earlier may not have checked the file of the counters yet, and so may not see
            // the change at once. A server that opened the store later does.
            assert_eq!(one.ask("save", saved_before), "saved");
            assert_eq!(later.ask("load", saved_before), "new", "{context}: at once");
            assert_eq!(one.ask("end", ended_before), "ended");
            assert_eq!(later.ask("load", ended_before), "absent", "{context}: at once");
            other.check_notices(saved_before, "new", &context);
            other.check_notices(ended_before, "absent", &context);
            assert_eq!(later.ask("save", saved_after), "saved");
            assert_eq!(later.ask("end", ended_after), "ended");
            for server in [&mut *one, &mut *other] {
                server.check_notices(saved_after, "new", &context);
                server.check_notices(ended_after, "absent", &context);
            }
            // From now on, all servers use the same file of counters.
            for token in [saved, ended] {
                assert!([&mut *one, other, &mut later].map(|server| server.ask("warm", token)) == ["old"; 3]);
            }
            assert_eq!(other.ask("save", saved), "saved");
            assert_eq!([&mut *one, other, &mut later].map(|server| server.ask("load", saved)), ["new"; 3]);
            assert_eq!(one.ask("end", ended), "ended");
            assert_eq!([&mut *one, other, &mut later].map(|server| server.ask("load", ended)), ["absent"; 3]);
            earlier.into_iter().chain([later]).for_each(Server::finish);
        }
    }
}

/// The clock of the store stands still, so only the watcher makes it check the file of the counters.
#[cfg(feature = "watch")]
#[test]
fn a_watcher_hears_that_the_counters_were_replaced() {
    for (how, restore) in RESTORATIONS {
        let dir = directory_in_memory();
        let store = options(true).clock(Clock::manual(SystemTime::now())).open(dir.path()).unwrap();
        assert!(store.watch_error().is_none());
        for _ in 0..2 {
            let token = store.create(&record("old"), RELAXED).unwrap().token;
            assert_eq!(shown(&store, &token), "old");
            restore(&dir.path().join(COUNTERS));
            let later = options(false).open(dir.path()).unwrap();
            put(&later, &token, "new", RELAXED).unwrap().unwrap();
            let began = Instant::now();
            while shown(&store, &token) != "new" {
                assert!(began.elapsed() < NOTICED, "{how}: no invalidation arrives");
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

#[test]
fn a_missing_run_directory_is_recreated_when_it_is_needed() {
    let check = |root: &Path| {
        assert_eq!(fs::metadata(root.join(COUNTERS)).unwrap().len(), COUNTERS_BYTES);
        let tag = fs::read_to_string(root.join("run/CACHEDIR.TAG")).unwrap();
        // Backup programs compare these bytes exactly.
        assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55\n"), "{tag}");
    };
    let dir = directory_in_memory();
    let root = dir.path();
    let clock = Clock::manual(SystemTime::now());
    let store = options(false).clock(clock.clone()).open(root).unwrap();
    let saved = store.create(&record("x"), RELAXED).unwrap();
    check(root);
    // The directory `run` is made again by a save, by a load when a check is due, and by an opening.
    let operations: [&dyn Fn(); 4] = [
        &|| drop(put(&store, &saved.token, "x", RELAXED).unwrap().unwrap()),
        &|| {
            clock.advance(Duration::from_secs(1));
            shown(&store, &saved.token);
        },
        &|| drop(options(false).open(root).unwrap()),
        // A check is also due if the clock was set back.
        &|| {
            clock.set(clock.now() - Duration::from_secs(60));
            shown(&store, &saved.token);
        },
    ];
    for operation in operations {
        fs::remove_dir_all(root.join("run")).unwrap();
        operation();
        check(root);
        assert_eq!(shown(&store, &saved.token), "x");
    }
    // The index is made again, too.
    fs::remove_dir_all(root.join("run")).unwrap();
    store.create(&record("x"), RELAXED).unwrap();
    assert_eq!(store.stats().files.index_failures, 0);
    assert!(root.join("run/due").is_dir() && root.join("run/CACHEDIR.TAG").is_file());
}

#[test]
fn a_backup_without_run_directory_holds_all_sessions() {
    let dir = directory_in_memory();
    let (root, restored) = (dir.path().join("store"), dir.path().join("restored"));
    let store = options(false).open(&root).unwrap();
    let tokens = [(); 20].map(|()| store.create(&record("x"), RELAXED).unwrap().token);
    fs::create_dir(&restored).unwrap();
    let archive = dir.path().join("backup.tar");
    let tar = |arguments: &[&str], at: &Path| {
        let tar = Command::new("tar").args(arguments).arg(&archive).arg("-C").arg(at).arg(".").status();
        assert!(tar.unwrap().success());
    };
    tar(&["--exclude-caches", "-cf"], &root);
    tar(&["-xf"], &restored);
    assert!(!restored.join(COUNTERS).exists() && !restored.join("run/due").exists());
    let store = options(false).open(&restored).unwrap();
    assert!(tokens.iter().all(|token| shown(&store, token) == "x"));
}

/// A store without a cache does not read the counters. Its saves must still be seen by stores that do.
#[test]
fn a_store_without_a_cache_writes_to_restored_counters() {
    for (how, restore) in RESTORATIONS {
        let dir = directory_in_memory();
        let uncached = options(false).cache_bytes(0).open(dir.path()).unwrap();
        let token = uncached.create(&record("old"), RELAXED).unwrap().token;
        restore(&dir.path().join(COUNTERS));
        let shares = options(false).open(dir.path()).unwrap();
        assert_eq!([(); 2].map(|()| shown(&shares, &token)), ["old"; 2]);
        put(&uncached, &token, "new", RELAXED).unwrap().unwrap();
        assert_eq!(shown(&shares, &token), "new", "{how}");
    }
}
