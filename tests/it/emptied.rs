//! `rm -rf DIR/*` while servers run: all visitors are logged out, and the servers keep working. Removals during
//! operations are tried by `tests/hammer`.
use crate::support::process::{Child, Parent, Start, Worker};
use crate::support::texts::{directory_in_memory, path_of, put, record, text_of};
use sessile::{
    Admin, Clock, Durability, ErrorKind, Event, FileStore, FileStoreOptions, Lookup, PublicId, Store,
    SweepOptions, Token, Verdict,
};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

pub(crate) const WORKERS: &[(&str, Worker)] = &[("serve in an emptied store", serve)];

const RELAXED: Durability = Durability::Relaxed;
/// The longest time for which a process may use its cache entries after the removal. It checks the generations file
/// once a second; without that check, an entry would be used for a minute.
const NOTICED: Duration = Duration::from_secs(10);

fn options(watches: bool) -> FileStoreOptions {
    FileStoreOptions::new().sync_security_events(false).watch(watches)
}

/// The events that the stores have reported.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    fn options(&self, watches: bool) -> FileStoreOptions {
        let events = Arc::clone(&self.0);
        options(watches).observer(move |event: &Event<'_>| events.lock().unwrap().push(format!("{event:?}")))
    }
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn shown(store: &FileStore, token: &Token) -> String {
    match store.load(token).unwrap() {
        Lookup::Live(live) => text_of(&live.record),
        Lookup::Absent(_) => "absent".into(),
    }
}

fn create(store: &FileStore) -> Token {
    store.create(&record("x"), RELAXED).unwrap().token
}

fn remove(root: &Path, how: &str) {
    let removed = Command::new("sh").args(["-ec", how]).current_dir(root).status().unwrap();
    assert!(removed.success(), "{how}");
}

/// Empties a directory with the usual shell command.
fn empty(root: &Path) {
    remove(root, "rm -rf ./*");
}

fn serve(parent: &Parent) {
    let events = Events::default();
    let options = events.options(parent.argument("WATCHES") == "yes");
    let store = options.open(parent.argument("DIR")).unwrap();
    parent.report("ready");
    loop {
        let line = parent.line();
        match line.split_once(' ').map(|(operation, token)| (operation, Token::parse(token).unwrap())) {
            Some(("load", token)) => parent.report(shown(&store, &token)),
            Some(("end", token)) => parent.report(store.delete(&token).unwrap().is_some()),
            _ if line == "create" => parent.report(create(&store).expose()),
            _ if line == "events" => parent.report(events.take().len()),
            _ => return,
        }
    }
}

fn start(root: &Path, watches: bool, errors: &Path) -> Child {
    let file = fs::File::options().create(true).append(true).open(errors).unwrap();
    let start = Start::of("serve in an emptied store").with("DIR", root).stderr_to(file);
    let child = start.with("WATCHES", if watches { "yes" } else { "no" }).start();
    assert_eq!(child.line(), "ready");
    child
}

fn ask(server: &mut Child, question: &str) -> String {
    server.say(question);
    server.line()
}

fn ask_for(server: &mut Child, token: &str) -> String {
    ask(server, &format!("load {token}"))
}

#[test]
fn a_site_goes_on_after_its_store_was_emptied() {
    for watches in [false, true] {
        let dir = directory_in_memory();
        let (root, errors) = (dir.path().join("store"), dir.path().join("errors"));
        let mut servers = [(); 3].map(|()| start(&root, watches, &errors));
        let tokens: Vec<_> = (0..20).map(|_| ask(&mut servers[0], "create")).collect();
        for server in &mut servers {
            for token in tokens.iter().chain(&tokens) {
                assert_eq!(ask_for(server, token), "x");
            }
        }
        empty(&root);
        let began = Instant::now();
        for server in &mut servers {
            for token in &tokens {
                while ask_for(server, token) != "absent" {
                    assert!(began.elapsed() < NOTICED, "a session is still served from a cache");
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
        // Another server starts.
        let later = start(&root, watches, &errors);
        let [a, b, c] = servers;
        let mut servers = [a, b, c, later];
        for n in 0..servers.len() {
            let token = ask(&mut servers[n], "create");
            assert!(servers.iter_mut().all(|server| ask_for(server, &token) == "x"));
            assert_eq!(ask(&mut servers[(n + 1) % 4], &format!("end {token}")), "true");
            assert!(servers.iter_mut().all(|server| ask_for(server, &token) == "absent"));
        }
        assert!(tokens.iter().all(|token| ask_for(&mut servers[3], token) == "absent"));
        let events: usize =
            servers.iter_mut().map(|server| ask(server, "events").parse::<usize>().unwrap()).sum();
        assert_eq!(events, 1);
        for mut server in servers {
            server.say("end");
            server.finish();
        }
        let line = format!(
            "sessile: everything in session directory `{}` was removed; the store was recreated, and all sessions are gone\n",
            root.display()
        );
        assert_eq!(fs::read_to_string(&errors).unwrap(), line);
    }
}

type Operation = fn(&FileStore, &Token);

/// The operations. In each case, one of them is the first to find the store emptied.
const OPERATIONS: [(&str, Operation); 9] = [
    ("load", |store, token| assert_eq!(shown(store, token), "absent")),
    ("save", |store, token| assert!(put(store, token, "y", RELAXED).unwrap().is_none())),
    ("power-safe save", |store, token| {
        assert!(put(store, token, "y", Durability::PowerSafe).unwrap().is_none());
    }),
    ("rotate", |store, token| {
        assert!(store.rotate(token, &mut |_| Ok(Verdict::Write), &RELAXED.into()).unwrap().is_none());
    }),
    ("delete", |store, token| assert!(store.delete(token).unwrap().is_none())),
    ("create", |store, _| assert_eq!(shown(store, &create(store)), "x")),
    ("power-safe create", |store, _| {
        store.create(&record("x"), Durability::PowerSafe).unwrap();
    }),
    ("sweep", |store, _| {
        let report = store.sweep(&SweepOptions::new().full(true)).unwrap();
        assert_eq!((report.failed, report.files.examined), (0, 0));
    }),
    ("walk", |store, _| {
        assert_eq!(store.files().filter(|file| file.as_ref().unwrap().path.is_file()).count(), 0);
    }),
];

#[test]
fn whatever_act_meets_an_emptied_store_makes_it_again() {
    for cache_bytes in [1 << 20, 0] {
        for (name, operation) in OPERATIONS {
            for how in ["rm -rf ./*", "rm -rf ./* .[!.]*", "rm -rf ?? sessile.json"] {
                let context = format!("{name}, cache of {cache_bytes}, {how}");
                let dir = directory_in_memory();
                let events = Events::default();
                // The cache entries of this store become invalid with that operation, although the clock stands still,
                // so that no check is due.
                let clock = Clock::manual(SystemTime::now());
                let store =
                    events.options(false).cache_bytes(cache_bytes).clock(clock).open(dir.path()).unwrap();
                let (token, other) = (create(&store), create(&store));
                if name == "load" {
                    // The operation uses the id of a session that is not cached.
                    remove(dir.path(), how);
                    assert!(store.load(&Token::parse(&"a".repeat(32)).unwrap()).is_ok(), "{context}");
                } else {
                    remove(dir.path(), how);
                }
                operation(&store, &token);
                let want = format!("StoreRecreated {{ path: {:?} }}", dir.path());
                assert_eq!(events.take(), [want], "{context}");
                assert_eq!([shown(&store, &token), shown(&store, &other)], ["absent", "absent"], "{context}");
                let token = create(&store);
                assert_eq!(shown(&store, &token), "x", "{context}");
                drop(store);
                let store = options(false).create(false).cache_bytes(cache_bytes).open(dir.path()).unwrap();
                assert_eq!(shown(&store, &token), "x", "{context}");
            }
        }
    }
}

#[test]
fn a_removal_that_goes_on_after_the_recreation_is_no_error() {
    let dir = directory_in_memory();
    let open = || options(false).cache_bytes(0).observer(|_| ()).open(dir.path()).unwrap();
    let remove_shard_of = |store: &FileStore| {
        let saved = store.create(&record("x"), RELAXED).unwrap();
        let shard = path_of(dir.path(), saved.live.id).parent().unwrap().to_owned();
        fs::remove_dir_all(shard).unwrap();
        store.load(&saved.token)
    };
    let store = open();
    assert_eq!(remove_shard_of(&store).unwrap_err().kind(), ErrorKind::Io, "a single missing shard");
    // The same, in a store whose opening has recreated the missing shards.
    let opened = open();
    empty(dir.path());
    create(&store);
    for store in [&store, &opened] {
        for _ in 0..3 {
            let found = remove_shard_of(store).unwrap();
            assert!(matches!(found, Lookup::Absent(_)), "{found:?}");
        }
    }
}

#[test]
fn no_shard_is_recreated_in_silence_after_an_opening() {
    let dir = directory_in_memory();
    drop(options(false).open(dir.path()).unwrap());
    let events = Events::default();
    let want = |shards: &str| [format!("ShardsRecreated {{ path: {:?}, shards: [{shards}] }}", dir.path())];
    remove(dir.path(), "rmdir 77");
    let store = events.options(false).open(dir.path()).unwrap();
    assert_eq!(events.take(), want(r#""77""#));
    remove(dir.path(), "rmdir 88 99");
    assert!(matches!(store.load_by_id(&PublicId::parse(&"8".repeat(40)).unwrap()), Ok(Lookup::Absent(_))));
    assert_eq!(events.take(), want(r#""88", "99""#));
}

/// If the number of shards has not changed for some seconds, the removal has ended, although it has left some.
#[test]
fn a_store_is_not_recreated_while_shards_are_left() {
    let dir = directory_in_memory();
    let store = options(false).cache_bytes(0).open(dir.path()).unwrap();
    let saved = store.create(&record("x"), RELAXED).unwrap();
    let file = path_of(dir.path(), saved.live.id);
    let shard = file.parent().unwrap().file_name().unwrap().to_str().unwrap();
    remove(dir.path(), &format!("mv {shard} run; rm -rf ?? sessile.json; mv run/{shard} ."));
    let began = Instant::now();
    // Some of the new sessions belong to the shard that is left, and can be created.
    let mut refused = 0;
    while refused == 0 || !dir.path().join("sessile.json").exists() {
        if let Err(error) = store.create(&record("x"), RELAXED) {
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            refused += 1;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "the site does not recover");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(began.elapsed() > Duration::from_secs(1), "recreated while the removal may still run");
    assert_eq!(shown(&store, &saved.token), "x");
}

#[cfg(feature = "watch")]
#[test]
fn a_shard_that_is_recreated_is_watched_again() {
    let dir = directory_in_memory();
    let store = options(true).open(dir.path()).unwrap();
    assert!(store.watch_error().is_none());
    for round in 0..3 {
        empty(dir.path());
        // The other store notices it when a load checks the generations file, which happens once a second.
        let began = Instant::now();
        loop {
            let saved = store.create(&record("x"), RELAXED).unwrap();
            assert_eq!(shown(&store, &saved.token), "x");
            fs::remove_file(path_of(dir.path(), saved.live.id)).unwrap();
            thread::sleep(Duration::from_millis(100));
            if shown(&store, &saved.token) == "absent" {
                break;
            }
            assert!(began.elapsed() < NOTICED, "round {round}: a change outside the library is not noticed");
        }
    }
}

#[test]
fn a_program_that_is_to_make_nothing_makes_no_store_again() {
    let dir = directory_in_memory();
    drop(options(false).open(dir.path()).unwrap());
    let store = options(false).create(false).open(dir.path()).unwrap();
    empty(dir.path());
    let error = store.create(&record("x"), RELAXED).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(!dir.path().join("sessile.json").exists());
}

#[test]
fn a_store_that_is_only_read_makes_nothing_again() {
    // In the second case one shard, `run` and the parameters file are missing. A store that may write would take a lock
    // on `run`, and make that directory for it.
    for how in ["rm -rf ./*", "rm -rf 77 run sessile.json"] {
        let dir = directory_in_memory();
        drop(options(false).open(dir.path()).unwrap());
        let events = Events::default();
        let store = events.options(false).read_only(true).open(dir.path()).unwrap();
        remove(dir.path(), how);
        let names = || fs::read_dir(dir.path()).unwrap().count();
        let before = names();
        let id = PublicId::parse(&"7".repeat(40)).unwrap();
        assert_eq!(store.load_by_id(&id).unwrap_err().kind(), ErrorKind::Io, "{how}");
        assert_eq!((names(), events.take()), (before, vec![]), "{how}");
    }
}
