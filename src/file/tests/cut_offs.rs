//! Cut-offs: what they end and what they spare, in every store on the directory, beside every other operation, after
//! every failing call and every kill, and with a log that is torn, damaged, lost, older or replaced.
mod log;

use super::*;
use crate::admin::{Admin, SweepOptions};
use crate::clock::Clock;
use crate::event::Event;
use crate::file::disk::faults::during_with_looks;
use crate::record::Login;
use std::sync::atomic::{AtomicUsize, Ordering};

const HOUR: Duration = Duration::from_secs(3600);

fn of(user: &str) -> Record {
    record("old").with_user(user).unwrap()
}

/// A store with a cache, one with another cache as in another process, and one without: all look at the same sessions.
struct Stores {
    dir: TempDir,
    all: [Arc<FileStore>; 3],
    lost: Arc<AtomicUsize>,
}

impl Stores {
    fn new() -> Self {
        Self::in_dir(directory())
    }

    fn in_dir(dir: TempDir) -> Self {
        let lost = Arc::new(AtomicUsize::new(0));
        let all = [1 << 20, 1 << 20, 0].map(|bytes| {
            let lost = Arc::clone(&lost);
            let options = FileStoreOptions::new().cache_bytes(bytes).watch(false).observer(move |event| {
                lost.fetch_add(usize::from(matches!(event, Event::CutOffsLost { .. })), Ordering::SeqCst);
            });
            Arc::new(options.open(dir.path()).unwrap())
        });
        Self { dir, all, lost }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join(CUT_OFFS)
    }

    /// A session that all stores have loaded.
    fn create(&self, record: &Record) -> Token {
        let token = self.all[0].create(record, Durability::Relaxed).unwrap().token;
        assert_eq!(self.alive(&token), [true; 3]);
        token
    }

    /// In which stores a session is alive, by its token and by its file.
    #[track_caller]
    fn alive(&self, token: &Token) -> [bool; 3] {
        let by_token = [0, 1, 2].map(|n| is_alive(&self.all[n], token));
        let by_id = [0, 1, 2].map(|n| {
            matches!(
                self.all[n].load_by_id(&token.session_id().unwrap().public_id()).unwrap(),
                Lookup::Live(_)
            )
        });
        assert_eq!(by_token, by_id);
        by_token
    }

    /// Takes up changes of the log that were made outside the library, as each store does within a second.
    fn look(&self) {
        self.all.iter().for_each(|store| store.coherence.look_at_cut_offs());
    }
}

#[track_caller]
fn is_alive(store: &FileStore, token: &Token) -> bool {
    match store.load(token).unwrap() {
        Lookup::Live(_) => true,
        Lookup::Absent(Absent::NotFound(_)) => false,
        Lookup::Absent(other) => panic!("it is {other:?}"),
    }
}

fn login(store: &FileStore, token: &Token, user: &str) -> Option<Token> {
    let mut change = |record: &mut Record| {
        record.set_user(user)?;
        Ok(Verdict::Write)
    };
    let how = Rotation::new(Durability::Relaxed).login(user);
    store.rotate(token, &mut change, &how).unwrap().map(|saved| saved.token)
}

fn rotate(store: &FileStore, token: &Token) -> Option<Token> {
    let how = Rotation::default();
    store.rotate(token, &mut |_| Ok(Verdict::Keep), &how).unwrap().map(|saved| saved.token)
}

fn save(store: &FileStore, token: &Token, verdict: Verdict) -> Option<Record> {
    let mut change = |record: &mut Record| {
        record.insert("text", &Value::new("new").unwrap()).unwrap();
        Ok(verdict)
    };
    store.update(token, &mut change, Durability::Relaxed).unwrap().map(|saved| saved.live.record)
}

#[test]
fn a_cut_off_ends_the_sessions_of_its_user_in_every_store() {
    for by in 0..3 {
        let stores = Stores::new();
        let [ada, also_ada, bob, anonymous] =
            [of("ada"), of("ada"), of("bob"), record("old")].map(|record| stores.create(&record));
        stores.all[by].delete_of("ada", None).unwrap();
        for (token, want) in [(&ada, false), (&also_ada, false), (&bob, true), (&anonymous, true)] {
            assert_eq!(stores.alive(token), [want; 3], "ended by store {by}");
            for store in &stores.all {
                assert_eq!(save(store, token, Verdict::Keep).is_some(), want);
            }
        }
        assert_eq!(save(&stores.all[0], &ada, Verdict::Write), None);
        assert_eq!(rotate(&stores.all[1], &ada), None);
        assert_eq!(login(&stores.all[2], &ada, "ada"), None);
        assert!(stores.all[1].delete(&ada).unwrap().is_none(), "none was there");
        // Those that begin afterwards live, also by a login of a session that is older.
        let later = stores.create(&of("ada"));
        let logged_in = login(&stores.all[1], &anonymous, "ada").unwrap();
        assert_eq!([stores.alive(&later), stores.alive(&logged_in)], [[true; 3]; 2]);
        stores.all[by].delete_all().unwrap();
        for token in [&later, &logged_in, &bob] {
            assert_eq!(stores.alive(token), [false; 3]);
        }
        assert_eq!(stores.alive(&stores.create(&record("old"))), [true; 3]);
        // A store that is opened later, and one that only reads.
        for options in [FileStoreOptions::new(), FileStoreOptions::new().read_only(true)] {
            let opened = options.watch(false).open(stores.dir.path()).unwrap();
            assert!(!is_alive(&opened, &later) && !is_alive(&opened, &bob));
        }
    }
}

#[test]
fn the_excepted_session_lives_on_and_so_do_its_successors() {
    let stores = Stores::new();
    for (by, next) in (0..3).flat_map(|by| (0..3).map(move |next| (by, next))) {
        let [kept, other] = [of("ada"), of("ada")].map(|record| stores.create(&record));
        stores.all[by].delete_of("ada", Some(&kept)).unwrap();
        assert_eq!([stores.alive(&kept), stores.alive(&other)], [[true; 3], [false; 3]]);
        // Again, without a change between them.
        stores.all[next].delete_of("ada", Some(&kept)).unwrap();
        let moved = rotate(&stores.all[next], &kept).unwrap();
        assert_eq!([stores.alive(&kept), stores.alive(&moved)], [[false; 3], [true; 3]]);
        save(&stores.all[by], &moved, Verdict::Write).unwrap();
        let moved = rotate(&stores.all[by], &moved).unwrap();
        assert_eq!(stores.alive(&moved), [true; 3]);
        stores.all[next].delete_of("ada", None).unwrap();
        assert_eq!(stores.alive(&moved), [false; 3]);
    }
}

#[test]
fn a_session_that_is_not_the_users_is_no_exception_and_none_is_ended() {
    let stores = Stores::new();
    let [ada, bob, ended, deleted] =
        [of("ada"), of("bob"), of("eve"), of("ada")].map(|record| stores.create(&record));
    stores.all[0].delete_of("eve", None).unwrap();
    stores.all[0].delete(&deleted).unwrap();
    let expired = {
        let now = SystemTime::now();
        let record = Record::new(now - HOUR, now).with_user("ada").unwrap();
        stores.all[0].create(&record, Durability::Relaxed).unwrap().token
    };
    let never = SessionId::random().unwrap().to_token();
    for (user, token) in
        [("ada", &bob), ("ada", &never), ("ada", &deleted), ("ada", &expired), ("eve", &ended)]
    {
        for store in &stores.all {
            let error = store.delete_of(user, Some(token)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Gone, "{error}");
        }
    }
    assert_eq!(stores.alive(&ada), [true; 3]);
    assert_eq!(stores.all[0].delete_of("", None).unwrap_err().kind(), ErrorKind::Value);
    assert_eq!(stores.alive(&ada), [true; 3], "no user is not every user");
    let read_only = FileStoreOptions::new().read_only(true).open(stores.dir.path()).unwrap();
    assert_eq!(read_only.delete_of("ada", None).unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(read_only.delete_all().unwrap_err().kind(), ErrorKind::Config);
}

/// The promise: a session whose login had returned is dead, one whose login begins afterwards lives.
#[test]
fn a_cut_off_in_any_call_of_any_operation_ends_what_it_must() {
    type Act = fn(&FileStore, &Token) -> Option<Token>;
    let acts: [(&str, Act); 5] = [
        ("save", |store, token| save(store, token, Verdict::Write).map(|_| token.clone())),
        ("keep", |store, token| save(store, token, Verdict::Keep).map(|_| token.clone())),
        ("rotate", rotate),
        ("login", |store, token| login(store, token, "ada")),
        ("create", |store, _| Some(store.create(&of("ada"), Durability::PowerSafe).unwrap().token)),
    ];
    let stores = Stores::new();
    for ((name, act), by, all) in acts
        .into_iter()
        .flat_map(|act| (0..3).map(move |by| (act, by)))
        .flat_map(|(act, by)| [false, true].map(|all| (act, by, all)))
    {
        for call in 0.. {
            let before = stores.create(&of("ada"));
            let cutter = Arc::clone(&stores.all[(by + 1) % 3]);
            let cut = move |n, _: &str| {
                if n == call {
                    let cutter = Arc::clone(&cutter);
                    let cut = move || if all { cutter.delete_all() } else { cutter.delete_of("ada", None) };
                    thread::spawn(cut).join().unwrap().unwrap();
                }
                None
            };
            let (made, calls) = during_with_looks(cut, || act(&stores.all[by], &before));
            if calls.len() <= call {
                break;
            }
            let context = format!("{name} by store {by}, in call {call} of {calls:?}");
            assert_eq!(stores.alive(&before), [false; 3], "{context}");
            if let Some(made) = made {
                let alive = stores.alive(&made);
                assert!(alive == [true; 3] || alive == [false; 3], "{context}: {alive:?}");
                // What had begun before the cut-off is ended by it: its number was read before.
                if ["login", "create"].contains(&name) && alive == [true; 3] {
                    assert!(call == 0, "{context}: its number was read before");
                }
                // Rotations and saves had a session that the cut-off ends.
                assert!(["login", "create"].contains(&name) || alive == [false; 3], "{context}");
                stores.all[0].delete_of("ada", None).unwrap();
                assert_eq!(stores.alive(&made), [false; 3], "{context}");
            }
        }
    }
}

#[test]
fn a_cut_off_that_excepts_a_session_spares_its_login_in_any_call() {
    let stores = Stores::new();
    let impatient = FileStoreOptions::new().watch(false).lock_wait(Duration::from_millis(1));
    let cutter = Arc::new(impatient.open(stores.dir.path()).unwrap());
    for by in 0..3 {
        let mut done = 0;
        for call in 0.. {
            let [kept, other] = [of("ada"), of("ada")].map(|record| stores.create(&record));
            let (cutter, excepted, report) = (Arc::clone(&cutter), kept.clone(), Arc::new(Mutex::new(None)));
            let reported = Arc::clone(&report);
            let cut = move |n, _: &str| {
                if n == call {
                    let (cutter, kept) = (Arc::clone(&cutter), excepted.clone());
                    let cut = thread::spawn(move || cutter.delete_of("ada", Some(&kept))).join().unwrap();
                    *reported.lock().unwrap() = Some(cut);
                }
                None
            };
            let (made, calls) = during_with_looks(cut, || login(&stores.all[by], &kept, "ada"));
            let Some(cut) = report.lock().unwrap().take() else { break };
            let context = format!("store {by}, in call {call} of {calls:?}: {cut:?}");
            let is_refused = |kind| matches!(kind, ErrorKind::Busy | ErrorKind::Gone);
            assert!(cut.as_ref().is_ok() || is_refused(cut.as_ref().unwrap_err().kind()), "{context}");
            done += usize::from(cut.is_ok());
            assert_eq!(stores.alive(&made.unwrap()), [true; 3], "{context}");
            assert_eq!(
                [stores.alive(&kept), stores.alive(&other)],
                [[false; 3], [cut.is_err(); 3]],
                "{context}"
            );
        }
        assert!(done > 0, "no cut-off came before the lock");
    }
}

/// The other side: every operation in any call of a cut-off.
#[test]
fn any_operation_in_any_call_of_a_cut_off_ends_well() {
    type Act = fn(&FileStore, &Token) -> Option<Token>;
    let acts: [(&str, Act); 3] = [
        ("save", |store, token| save(store, token, Verdict::Write).map(|_| token.clone())),
        ("rotate", rotate),
        ("login", |store, token| login(store, token, "ada")),
    ];
    let stores = Stores::new();
    for (((name, act), by), excepts) in acts
        .into_iter()
        .flat_map(|act| (0..3).map(move |by| (act, by)))
        .flat_map(|act| [false, true].map(|excepts| (act, excepts)))
    {
        for call in 0.. {
            let [kept, other] = [of("ada"), of("ada")].map(|record| stores.create(&record));
            let made = Arc::new(Mutex::new(None));
            let (actor, token, report) =
                (Arc::clone(&stores.all[(by + 1) % 3]), other.clone(), Arc::clone(&made));
            let run = move |n, _: &str| {
                if n == call {
                    let (actor, token) = (Arc::clone(&actor), token.clone());
                    *report.lock().unwrap() =
                        Some(thread::spawn(move || act(&actor, &token)).join().unwrap());
                }
                None
            };
            let except = excepts.then_some(&kept);
            let (cut, calls) = during_with_looks(run, || stores.all[by].delete_of("ada", except));
            cut.unwrap();
            let Some(made) = made.lock().unwrap().take() else { break };
            let context = format!("{name} in call {call} of {calls:?}");
            assert_eq!(stores.alive(&other), [false; 3], "{context}");
            assert_eq!(stores.alive(&kept), [excepts; 3], "{context}");
            if let Some(made) = made {
                let alive = stores.alive(&made);
                assert!(alive == [false; 3] || name == "login" && alive == [true; 3], "{context}: {alive:?}");
            }
        }
    }
}

#[test]
fn whichever_call_of_a_cut_off_fails_all_stores_agree() {
    let stores = Stores::new();
    for (by, (errno, then)) in (0..3).flat_map(|by| refusals().map(move |refusal| (by, refusal))) {
        for call in 0.. {
            let [kept, other] = [of("ada"), of("ada")].map(|record| stores.create(&record));
            let fault = Fault { call, errno, then };
            let (cut, calls) =
                during_with_looks(fault.plan(), || stores.all[by].delete_of("ada", Some(&kept)));
            if calls.len() <= call {
                cut.unwrap();
                break;
            }
            let context = format!("by store {by}, {fault:?}, after {calls:?}: {cut:?}");
            stores.look();
            let alive = [stores.alive(&kept), stores.alive(&other)];
            match cut {
                Ok(()) => assert_eq!(alive, [[true; 3], [false; 3]], "{context}"),
                Err(error) => {
                    assert!(
                        alive == [[true; 3]; 2] || alive == [[true; 3], [false; 3]],
                        "{context}: {alive:?}"
                    );
                    let is_over = may_be_visible(error.kind());
                    assert!(!is_over || alive[1] == [false; 3], "{context}: {alive:?}");
                }
            }
            // The log is in order.
            stores.all[(by + 1) % 3]
                .delete_of("ada", None)
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!([stores.alive(&kept), stores.alive(&other)], [[false; 3]; 2], "{context}");
            assert_eq!(stores.lost.load(Ordering::SeqCst), 0, "{context}");
        }
    }
}

#[test]
fn a_process_that_dies_in_a_cut_off_leaves_old_or_new() {
    let stores = Stores::new();
    for call in 0.. {
        let [kept, other] = [of("ada"), of("ada")].map(|record| stores.create(&record));
        let dying = FileStoreOptions::new().watch(false).open(stores.dir.path()).unwrap();
        let done = dying_in_call(call, || dying.delete_of("ada", Some(&kept)));
        stores.look();
        let alive = stores.alive(&other);
        assert!(alive == [true; 3] || alive == [false; 3], "killed in call {call}: {alive:?}");
        assert_eq!(stores.alive(&kept), [true; 3], "killed in call {call}");
        stores.all[call % 3].delete_of("ada", None).unwrap();
        assert_eq!([stores.alive(&kept), stores.alive(&other)], [[false; 3]; 2], "killed in call {call}");
        if let Some(done) = done {
            done.unwrap();
            break;
        }
    }
}

#[test]
fn a_torn_last_entry_is_ignored_and_cut_off() {
    for torn in 1..=64 {
        let stores = Stores::new();
        let ada = stores.create(&of("ada"));
        stores.all[0].delete_of("bob", None).unwrap();
        let whole = fs::read(stores.log()).unwrap();
        stores.all[1].delete_of("ada", None).unwrap();
        let mut bytes = fs::read(stores.log()).unwrap();
        if torn == 64 {
            // All of its bytes, and some are wrong.
            bytes[whole.len() + 20] ^= 1;
        } else {
            bytes.truncate(whole.len() + torn);
        }
        fs::write(stores.log(), &bytes).unwrap();
        let stores = Stores::in_dir(stores.dir);
        assert_eq!(stores.alive(&ada), [true; 3], "{torn} bytes");
        let bob = stores.create(&of("bob"));
        stores.all[torn % 3].delete_of("bob", None).unwrap();
        assert_eq!([stores.alive(&ada), stores.alive(&bob)], [[true; 3], [false; 3]], "{torn} bytes");
        assert_eq!(fs::read(stores.log()).unwrap().len(), whole.len() + 64, "{torn} bytes");
        assert_eq!(stores.lost.load(Ordering::SeqCst), 0);
    }
}

/// A way to lose a log that has three entries: the reason that is reported, whether open stores notice (they read what
/// they have not read yet), and the deed.
type Loss = (&'static str, bool, fn(&Path));

const LOSSES: [Loss; 6] = [
    ("it is missing", true, |log| fs::remove_file(log).unwrap()),
    ("it is damaged", false, |log| flip(log, 70)),
    ("it is damaged", false, |log| flip(log, 64 + 64 + 10)),
    ("it is damaged", false, |log| flip(log, 20)),
    ("it is damaged", true, |log| fs::write(log, "").unwrap()),
    ("it is damaged", true, |log| {
        let mut bytes = fs::read(log).unwrap();
        // An entry twice.
        let entry = bytes[64..128].to_vec();
        bytes.extend([entry.clone(), entry].concat());
        fs::write(log, bytes).unwrap();
    }),
];

fn flip(log: &Path, at: usize) {
    let mut bytes = fs::read(log).unwrap();
    bytes[at] ^= 1;
    fs::write(log, bytes).unwrap();
}

#[test]
fn without_the_whole_log_no_session_with_a_user_is_found() {
    for (reason, is_noticed, lose) in LOSSES {
        for reopens in [!is_noticed, true] {
            let stores = Stores::new();
            let [ada, anonymous, bob] =
                [of("ada"), record("old"), of("bob")].map(|record| stores.create(&record));
            for user in ["bob", "eve", "mallory"] {
                stores.all[0].delete_of(user, None).unwrap();
            }
            let whole = fs::read(stores.log()).unwrap();
            lose(&stores.log());
            let stores = if reopens { Stores::in_dir(stores.dir) } else { stores };
            stores.look();
            assert_eq!([stores.alive(&ada), stores.alive(&anonymous)], [[false; 3], [true; 3]], "{reason}");
            assert_eq!(stores.lost.load(Ordering::SeqCst), 3, "each store says so once");
            for store in &stores.all {
                assert_eq!((save(store, &ada, Verdict::Keep), rotate(store, &ada)), (None, None));
                let error = store.delete_of("ada", None).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                let text = format!(
                    "failed to end the sessions of a user, because of the log of cut-offs `{}`: {reason}, so no session with a \
                     user is found; restore it from a backup, or end all sessions, with FileStore::delete_all or `sessile \
                     delete --all`",
                    stores.log().display()
                );
                assert_eq!(error.to_string(), text);
                // A login that no load would find is refused.
                let made = store.create(&of("eve"), Durability::Relaxed);
                assert_eq!(made.unwrap_err().kind(), ErrorKind::Corrupt);
                // A sweep removes nothing that a restored log would bring back.
                let report = store.sweep(&SweepOptions::new().cpu_percent(100).full(true)).unwrap();
                assert_eq!((report.removed, report.failed), (0, 0));
            }
            // Restored.
            fs::write(stores.log(), &whole).unwrap();
            stores.look();
            assert_eq!([stores.alive(&ada), stores.alive(&anonymous)], [[true; 3]; 2], "{reason}");
            assert_eq!(stores.alive(&bob), [false; 3]);
            // Or all are ended.
            lose(&stores.log());
            let stores = if reopens { Stores::in_dir(stores.dir) } else { stores };
            stores.look();
            stores.all[1].delete_all().unwrap();
            assert_eq!([stores.alive(&ada), stores.alive(&anonymous)], [[false; 3]; 2], "{reason}");
            let again = stores.create(&of("ada"));
            stores.all[2].delete_of("ada", None).unwrap();
            assert_eq!(stores.alive(&again), [false; 3]);
        }
    }
}

#[test]
fn a_session_restored_from_before_its_cut_off_stays_dead() {
    let stores = Stores::new();
    let ada = stores.create(&of("ada"));
    let path = stores.dir.path().join(SessionPath::of(&ada.session_id().unwrap().public_id()).as_str());
    let backup = fs::read(&path).unwrap();
    stores.all[0].delete_of("ada", None).unwrap();
    // Many later ones, so that the log is rewritten.
    let before = fs::metadata(stores.log()).unwrap().len();
    for n in 0..100 {
        stores.all[n % 3].delete_of("bob", None).unwrap();
    }
    let after = fs::metadata(stores.log()).unwrap().len();
    assert!(after < before + 64 * 50, "{after} bytes: it was not rewritten");
    let report = stores.all[0].sweep(&SweepOptions::new().cpu_percent(100).full(true)).unwrap();
    assert_eq!((report.removed, report.files.cut_off), (1, 1));
    assert!(!path.exists());
    fs::write(&path, backup).unwrap();
    assert_eq!(stores.alive(&ada), [false; 3]);
    let stores = Stores::in_dir(stores.dir);
    assert_eq!(stores.alive(&ada), [false; 3]);
}

/// The clock is later than all numbers of the entries that were lost.
#[test]
fn a_cut_off_after_an_older_log_was_restored_ends_all_that_it_must() {
    let stores = Stores::new();
    let backup = fs::read(stores.log()).unwrap();
    stores.all[0].delete_of("ada", None).unwrap();
    let ada = stores.create(&of("ada"));
    fs::write(stores.log(), backup).unwrap();
    stores.look();
    assert_eq!(stores.alive(&ada), [true; 3]);
    stores.all[1].delete_of("ada", None).unwrap();
    assert_eq!(stores.alive(&ada), [false; 3]);
}

#[test]
fn cut_offs_are_seen_through_counters_that_were_replaced() {
    for remove in [true, false] {
        let stores = Stores::new();
        let ada = stores.create(&of("ada"));
        let counters = stores.dir.path().join(GENERATIONS_PATH);
        let backup = fs::read(&counters).unwrap();
        fs::remove_file(&counters).unwrap();
        if !remove {
            fs::write(&counters, backup).unwrap();
        }
        stores.all[0].delete_of("ada", None).unwrap();
        // As each process does within a second.
        stores.all.iter().for_each(|store| store.coherence.check_shared_files_now());
        assert_eq!(stores.alive(&ada), [false; 3]);
        let later = stores.create(&of("ada"));
        stores.all[1].delete_of("ada", None).unwrap();
        assert_eq!(stores.alive(&later), [false; 3]);
    }
}

#[test]
fn one_cut_off_does_not_empty_the_cache() {
    let stores = Stores::new();
    let tokens: Vec<_> = (0..50).map(|n| stores.create(&of(&format!("user {n}")))).collect();
    stores.all[2].delete_of("user 7", None).unwrap();
    let reads = |store: &FileStore| {
        let (alive, calls) =
            during(|_, _| None, || tokens.iter().filter(|token| is_alive(store, token)).count());
        (alive, calls.iter().filter(|call| **call == "open session").count())
    };
    assert_eq!(reads(&stores.all[0]), (49, 1), "only the file of the session that was ended is read");
    assert_eq!(reads(&stores.all[0]), (49, 1), "it is not kept");
    let (_, calls) = during_with_looks(|_, _| None, || is_alive(&stores.all[0], &tokens[8]));
    assert!(calls.is_empty(), "{calls:?}");
}

#[test]
fn an_imported_session_is_ended_by_the_cut_offs_after_its_login() {
    let dir = directory();
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let store = FileStoreOptions::new().watch(false).clock(clock.clone()).open(dir.path()).unwrap();
    let start = clock.now();
    let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
    let begun = |created: u64, login: Option<u64>, user: &str| {
        let mut record = Record::new(at(created), at(10_000)).with_user(user).unwrap();
        record.set_login(Login { at: login.map(at), cut_off: u64::MAX, user_digest: None });
        record
    };
    clock.set(at(10));
    store.delete_of("ada", None).unwrap();
    clock.set(at(20));
    store.delete_of("bob", None).unwrap();
    for (record, want) in [
        (begun(5, None, "ada"), false),
        (begun(15, None, "ada"), true),
        (begun(5, Some(15), "ada"), true),
        (begun(5, Some(9), "ada"), false),
        (begun(15, None, "bob"), false),
        (begun(5, None, "eve"), true),
    ] {
        let session = SessionId::random().unwrap();
        assert!(store.import(&session.public_id(), &record, Durability::Relaxed).unwrap());
        assert_eq!(is_alive(&store, &session.to_token()), want, "{record:?}");
        // Those that come later end it.
        clock.advance(Duration::from_secs(60));
        if record.user() == Some("eve") {
            store.delete_all().unwrap();
            assert!(!is_alive(&store, &session.to_token()));
        }
    }
}

#[test]
fn a_store_of_an_earlier_version_gets_its_log_when_it_is_opened() {
    let stores = Stores::new();
    let ada = stores.create(&of("ada"));
    let parameters = stores.dir.path().join("sessile.json");
    fs::write(&parameters, "{\"format\":2,\"shards\":256,\"public_id\":\"blake3-160\"}\n").unwrap();
    fs::remove_file(stores.log()).unwrap();
    let dir = stores.dir;
    drop(stores.all);
    let read_only = FileStoreOptions::new().read_only(true).open(dir.path()).unwrap();
    assert!(is_alive(&read_only, &ada));
    assert!(!dir.path().join(CUT_OFFS).exists());
    let stores = Stores::in_dir(dir);
    assert_eq!(stores.alive(&ada), [true; 3]);
    assert!(fs::read_to_string(&parameters).unwrap().contains("\"cut_offs\":true"));
    stores.all[0].delete_of("ada", None).unwrap();
    assert_eq!(stores.alive(&ada), [false; 3]);
    assert_eq!(stores.lost.load(Ordering::SeqCst), 0);
}

#[test]
fn after_a_failed_sync_the_log_is_in_another_file() {
    let stores = Stores::new();
    let ada = stores.create(&of("ada"));
    let inode = || fs::metadata(stores.log()).unwrap().ino();
    stores.all[0].delete_of("bob", None).unwrap();
    let before = inode();
    let (cut, calls) = during(failing_syncs(|n| n == 0, &[]), || stores.all[0].delete_of("ada", None));
    cut.unwrap();
    assert_eq!(calls.iter().filter(|call| **call == "sync file").count(), 2, "{calls:?}");
    assert_ne!(inode(), before);
    assert_eq!(stores.alive(&ada), [false; 3]);
    // If it cannot be rewritten, the next cut-off does it, also in another process.
    let eve = stores.create(&of("eve"));
    let before = inode();
    let (cut, _) = during(failing_syncs(|_| true, &[]), || stores.all[0].delete_of("eve", None));
    assert_eq!(cut.unwrap_err().kind(), ErrorKind::DurabilityUnknown);
    assert_eq!(stores.alive(&eve), [false; 3]);
    assert_eq!(inode(), before);
    stores.all[1].delete_of("bob", None).unwrap();
    assert_ne!(inode(), before);
    let stores = Stores::in_dir(stores.dir);
    assert_eq!([stores.alive(&eve), stores.alive(&ada)], [[false; 3]; 2]);
}

#[test]
fn a_cut_off_waits_for_the_log_as_long_as_for_a_session() {
    let fixture = Fixture::with(FileStoreOptions::new().lock_wait(Duration::from_millis(5)));
    let log = fs::OpenOptions::new().write(true).open(fixture.dir.path().join(CUT_OFFS)).unwrap();
    let held = LockedFile::acquire(log, Instant::now()).unwrap().unwrap();
    let error = fixture.store.delete_of("ada", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    drop(held);
    fixture.store.delete_of("ada", None).unwrap();
    fixture.check_nothing_is_held("a cut-off");
}
