//! The resources of an open store are those in its documentation: descriptors, threads, watches, memory; and its
//! statistics are correct.
use crate::support::rerun::{again, stage};
use crate::support::texts::{append_plus, directory_in_memory, load, path_of, put, record};
use sessile::{Admin, Clock, Durability, FileStore, FileStoreOptions, Record, Saved, Store, Token, Value};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const RELAXED: Durability = Durability::Relaxed;

// ------------------------------------------------------------------------------- descriptors, threads, watches

/// The resources that this process has in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Resources {
    descriptors: usize,
    threads: usize,
    watches: usize,
    maps: usize,
}

impl Resources {
    fn now() -> Self {
        let names = |dir: &str| fs::read_dir(dir).unwrap().map(|name| name.unwrap().path());
        let lines = |text: String, what: &str| text.lines().filter(|line| line.contains(what)).count();
        let watches = |path| lines(fs::read_to_string(path).unwrap_or_default(), "inotify wd:");
        Self {
            // The descriptor that lists the directory is left out.
            descriptors: names("/proc/self/fd").count() - 1,
            threads: names("/proc/self/task").count(),
            watches: names("/proc/self/fdinfo").map(watches).sum(),
            maps: lines(fs::read_to_string("/proc/self/maps").unwrap(), "/generations"),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            descriptors: self.descriptors - before.descriptors,
            threads: self.threads - before.threads,
            watches: self.watches - before.watches,
            maps: self.maps - before.maps,
        }
    }
}

/// Waits until the process uses no more than `before`. A thread that was asked to stop ends within a second on an idle
/// machine.
#[track_caller]
fn check_comes_back_to(before: Resources) {
    let began = Instant::now();
    while Resources::now() != before {
        assert!(began.elapsed() < Duration::from_secs(5), "now {:?}, before {before:?}", Resources::now());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_open_store_holds_what_is_documented_and_leaves_nothing() {
    let Some(dir) = stage() else {
        let dir = directory_in_memory();
        let name = "budget::an_open_store_holds_what_is_documented_and_leaves_nothing";
        return again(name, dir.path());
    };
    let root = dir.join("store");
    let shared = || FileStoreOptions::new();
    let costs = |descriptors, threads, watches, maps| Resources { descriptors, threads, watches, maps };
    let before = Resources::now();
    // If the watcher is on by default, a store also has its descriptors, its thread and its watches.
    let (files, threads, watches) = if cfg!(feature = "watch") { (3, 1, 257) } else { (0, 0, 0) };
    // One descriptor is that of a bucket of the expiry index. All sessions here expire in the same hour, so there is
    // one bucket.
    for (options, want) in [
        (shared(), costs(1 + 4 + files, threads, watches, 1)),
        (shared().watch(false), costs(1 + 4, 0, 0, 1)),
        (shared().cache_bytes(0), costs(1 + 4, 0, 0, 0)),
        (shared().watch(false).cache_bytes(0), costs(1 + 4, 0, 0, 0)),
    ] {
        let what = format!("{options:?}");
        let store = options.open(&root).unwrap();
        for _ in 0..20 {
            let saved = store.create(&record("old"), RELAXED).unwrap();
            put(&store, &saved.token, &"grown".repeat(1000), RELAXED).unwrap().unwrap();
            store.rotate(&saved.token, &mut append_plus, &RELAXED.into()).unwrap().unwrap();
        }
        assert_eq!(Resources::now().since(before), want, "{what}");
        drop(store);
        check_comes_back_to(before);
    }
    // Five stores are open at a time, because the system allows a user 128 watchers.
    for _ in 0..10 {
        let stores: Vec<_> = (0..5).map(|_| shared().open(&root).unwrap()).collect();
        #[cfg(feature = "watch")]
        assert!(stores.iter().all(|store| store.watch_error().is_none()));
        assert_eq!(Resources::now().since(before), costs(5 * (4 + files), 5 * threads, 5 * watches, 5));
        drop(stores);
        check_comes_back_to(before);
    }
}

// ------------------------------------------------------------------------------------------------------- memory

/// The bytes of memory of this process that are neither file-backed nor shared.
fn own_memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

/// The contents of the sessions that fill the cache.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// One text of 512 bytes.
    Usual,
    /// One text of 10 KiB.
    Large,
    /// Fifty short names with short values.
    ManyEntries,
    /// One number and nothing else.
    Tiny,
}

impl Shape {
    fn record(self, n: usize) -> Record {
        let now = SystemTime::now();
        let mut record = Record::new(now, now + Duration::from_secs(86_400));
        let mut insert = |name: &str, value: Value| record.insert(name, &value).unwrap();
        match self {
            Self::Usual => insert("text", Value::new(&format!("{n:0512}")).unwrap()),
            Self::Large => insert("text", Value::new(&format!("{n:010240}")).unwrap()),
            Self::ManyEntries => {
                for entry in 0..50 {
                    insert(&format!("entry {entry}"), Value::new(&(n + entry)).unwrap());
                }
            }
            Self::Tiny => insert("n", Value::new(&n).unwrap()),
        }
        record
    }
}

/// The number of sessions in a test: `usual`, or the value of an environment variable.
pub(crate) fn scale(usual: usize) -> usize {
    std::env::var("SESSILE_TEST_SESSIONS")
        .map_or(usual, |text| text.parse().expect("SESSILE_TEST_SESSIONS is a whole number"))
}

/// Creates this many sessions, with two threads. Returns their tokens.
fn fill(root: &Path, shape: Shape, sessions: usize) -> Vec<Token> {
    let store = FileStoreOptions::new().watch(false).cache_bytes(0).open(root).unwrap();
    let some = |first: usize| {
        let numbers = (first..sessions).step_by(2);
        numbers.map(|n| store.create(&shape.record(n), RELAXED).unwrap().token).collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let halves = [0, 1].map(|first| scope.spawn(move || some(first)));
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    })
}

/// The second half of a test, in a process of its own: the first half has created the `tokens`. Loads far more sessions
/// than fit into the cache, in random order and some of them twice, and saves some. Returns a report of the memory that
/// was used.
fn check_memory(root: &Path, limit: usize, tokens: &[Token]) -> String {
    let store = FileStoreOptions::new().watch(false).cache_bytes(limit).open(root).unwrap();
    let before = own_memory();
    let mut most = 0;
    let mut at = 0;
    for round in 0..tokens.len() + tokens.len() / 2 {
        // The step is a prime number, so the loop visits all sessions.
        at = (at + 1_000_003) % tokens.len();
        assert!(matches!(store.load(&tokens[at]).unwrap(), sessile::Lookup::Live(_)));
        if round % 16 == 0 {
            store.update(&tokens[at], &mut |_| Ok(sessile::Verdict::Write), RELAXED).unwrap().unwrap();
        }
        if round % 1024 == 0 {
            assert!(store.stats().files.copies_bytes <= limit, "{:?}", store.stats());
            most = most.max(own_memory().saturating_sub(before));
        }
    }
    most = most.max(own_memory().saturating_sub(before));
    let stats = store.stats();
    #[expect(clippy::cast_precision_loss, reason = "only for the report")]
    let share = |bytes: usize| bytes as f64 / limit as f64;
    assert!(stats.files.evictions > 0, "all sessions fit: {stats:?}");
    assert!(stats.files.copies_bytes <= limit && share(stats.files.copies_bytes) > 0.9, "{stats:?}");
    assert!(share(most) <= 1.5, "{most} bytes where {limit} are allowed: {:.2}", share(most));
    assert!(share(most) >= 0.5, "{most} bytes where {limit} are allowed: the estimate is far too high");
    format!("{} sessions, limit {limit}: {most} bytes, {:.3} of it; {stats:?}", tokens.len(), share(most))
}

#[track_caller]
fn check_memory_of(shape: Shape, test: &str, sessions: usize, limit: usize) {
    let Some(dir) = stage() else {
        let dir = directory_in_memory();
        let tokens = fill(&dir.path().join("store"), shape, sessions);
        let lines: Vec<_> = tokens.iter().map(Token::expose).collect();
        fs::write(dir.path().join("tokens"), lines.join("\n")).unwrap();
        again(test, dir.path());
        return println!("{shape:?}: {}", fs::read_to_string(dir.path().join("found")).unwrap());
    };
    let lines = fs::read_to_string(dir.join("tokens")).unwrap();
    let tokens: Vec<_> = lines.lines().map(|line| Token::parse(line).unwrap()).collect();
    drop(lines);
    fs::write(dir.join("found"), check_memory(&dir.join("store"), limit, &tokens)).unwrap();
}

/// Holds however many entries a segment of the cache has: its array and its index have room for some more.
#[test]
fn a_cached_session_takes_its_record_a_fifth_and_128_bytes() {
    let dir = directory_in_memory();
    let store = FileStoreOptions::new().watch(false).cache_bytes(SMALL_LIMIT).open(dir.path()).unwrap();
    for n in 0..6_000 {
        let record = Shape::Usual.record(n);
        store.create(&record, RELAXED).unwrap();
        let stats = store.stats();
        assert_eq!(stats.files.copies, n + 1);
        // 20 sessions for each of the 64 segments. With fewer, a segment's own size counts for more.
        if n >= 1_280 {
            let most = stats.files.copies * (record.as_bytes().len() * 6 / 5 + 128);
            assert!(stats.files.copies_bytes <= most, "more than {most}: {stats:?}");
        }
    }
}

const SMALL_LIMIT: usize = 8 << 20;

/// With a million sessions the test is run manually, in a release build: `SESSILE_TEST_SESSIONS=1000000`. It needs 4 GB
/// of disk space.
#[test]
fn a_full_cache_stays_within_the_memory_limit() {
    let name = "budget::a_full_cache_stays_within_the_memory_limit";
    let sessions = scale(30_000);
    // With enough sessions to fill it, the default limit is tested; otherwise a smaller one.
    let limit = if sessions < 100_000 { SMALL_LIMIT } else { 32 << 20 };
    check_memory_of(Shape::Usual, name, sessions, limit);
}

#[test]
fn cached_large_sessions_stay_within_the_memory_limit() {
    let name = "budget::cached_large_sessions_stay_within_the_memory_limit";
    check_memory_of(Shape::Large, name, 2_500, SMALL_LIMIT);
}

#[test]
fn cached_sessions_of_many_entries_stay_within_the_limit() {
    let name = "budget::cached_sessions_of_many_entries_stay_within_the_limit";
    check_memory_of(Shape::ManyEntries, name, 16_000, SMALL_LIMIT);
}

#[test]
fn cached_tiny_sessions_stay_within_the_memory_limit() {
    let name = "budget::cached_tiny_sessions_stay_within_the_memory_limit";
    check_memory_of(Shape::Tiny, name, 30_000, SMALL_LIMIT);
}

#[test]
fn a_session_larger_than_its_part_is_served_uncached() {
    let dir = directory_in_memory();
    // A cache of this size has one segment, of half the size. The other half is reserved for the growth of the segment.
    let open = |bytes| FileStoreOptions::new().watch(false).cache_bytes(bytes).open(dir.path()).unwrap();
    let (store, reader) = (open(2 * 9500), open(2 * 9500));
    let fits = "x".repeat(7000);
    let does_not = "x".repeat(9000);
    let saved = store.create(&record(&fits), RELAXED).unwrap();
    assert_eq!(store.stats().files.copies, 1);
    for (text, kept) in [(&does_not, 0), (&fits, 1), (&does_not, 0), (&fits, 1)] {
        put(&store, &saved.token, text, RELAXED).unwrap().unwrap();
        assert_eq!(store.stats().files.copies, kept, "after the save");
        for reader in [&store, &reader] {
            for _ in 0..3 {
                assert_eq!(load(reader, &saved.token).unwrap().as_ref(), Some(text));
                assert_eq!(reader.stats().files.copies, kept);
            }
        }
    }
    assert_eq!((store.stats().files.evictions, reader.stats().files.evictions), (0, 0));
    assert!(store.delete(&saved.token).unwrap().is_some());
    assert_eq!(load(&reader, &saved.token).unwrap(), None);
    assert_eq!((store.stats().files.copies_bytes, reader.stats().files.copies_bytes), (0, 0));
}

// --------------------------------------------------------------------------------------------------- statistics

/// The statistics of a store without those in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    hits: u64,
    misses: u64,
    invalidations: u64,
    evictions: u64,
    copies: usize,
}

fn counts(store: &FileStore) -> Counts {
    let stats = store.stats();
    assert_eq!(stats.files.copies == 0, stats.files.copies_bytes == 0, "{stats:?}");
    Counts {
        hits: stats.hits,
        misses: stats.files.misses,
        invalidations: stats.files.invalidations,
        evictions: stats.files.evictions,
        copies: stats.files.copies,
    }
}

/// Two stores on one directory with one clock, and a session.
struct Pair {
    _dir: tempfile::TempDir,
    root: std::path::PathBuf,
    clock: Clock,
    mine: FileStore,
    other: FileStore,
    saved: Saved,
}

impl Pair {
    fn new(options: &FileStoreOptions) -> Self {
        let dir = directory_in_memory();
        let clock = Clock::manual(SystemTime::now());
        let open = || options.clone().watch(false).clock(clock.clone()).open(dir.path()).unwrap();
        let (mine, other) = (open(), open());
        let saved = mine.create(&record("old"), RELAXED).unwrap();
        Self { root: dir.path().to_owned(), _dir: dir, clock, mine, other, saved }
    }
    fn token(&self) -> &Token {
        &self.saved.token
    }
    fn load(&self) -> Option<String> {
        load(&self.mine, self.token()).unwrap()
    }
    fn save(&self, by: &FileStore) {
        put(by, self.token(), "new", RELAXED).unwrap();
    }
    fn grow(&self, by: &FileStore) {
        put(by, self.token(), &"grown".repeat(1000), RELAXED).unwrap();
    }
    fn rotate(&self, by: &FileStore) {
        by.rotate(self.token(), &mut append_plus, &RELAXED.into()).unwrap();
    }
    fn delete(&self, by: &FileStore) {
        by.delete(self.token()).unwrap();
    }
    fn remove_externally(&self) {
        fs::remove_file(path_of(&self.root, self.saved.live.id)).unwrap();
    }
    fn age(&self, by: Duration) {
        self.clock.advance(by);
    }
}

/// The name of an operation, the operation, and the counts that the store that created the session then has: hits,
/// misses, invalidations, cached records.
type Case = (&'static str, Operation, [u64; 4]);
type Operation = fn(&Pair);

#[track_caller]
fn check_counts(options: &FileStoreOptions, cases: &[Case]) {
    for &(what, operation, [hits, misses, invalidations, copies]) in cases {
        let pair = Pair::new(options);
        operation(&pair);
        let want = Counts { hits, misses, invalidations, copies: copies.try_into().unwrap(), evictions: 0 };
        assert_eq!(counts(&pair.mine), want, "{what}, {options:?}");
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Each operation happens to a session that the store has cached. The counts are those after the next load.
const OPERATIONS: &[Case] = &[
    // The counts: hits, misses, invalidations, cached records.
    ("nothing", |_| (), [0, 0, 0, 1]),
    ("a load", |p| drop(p.load()), [1, 0, 0, 1]),
    ("three loads", |p| drop([p.load(), p.load(), p.load()]), [3, 0, 0, 1]),
    ("a load by another", |p| drop(load(&p.other, p.token())), [0, 0, 0, 1]),
    ("a malformed id", |p| drop(load(&p.mine, &Token::parse("no-id").unwrap())), [0, 0, 0, 1]),
    (
        "an unknown id, twice",
        |p| {
            let unknown = sessile::SessionId::random().unwrap().to_token();
            drop([load(&p.mine, &unknown), load(&p.mine, &unknown)]);
        },
        [0, 2, 0, 1],
    ),
    (
        "an own save",
        |p| {
            p.save(&p.mine);
            drop(p.load());
        },
        [1, 0, 0, 1],
    ),
    (
        "an own growing save",
        |p| {
            p.grow(&p.mine);
            drop(p.load());
        },
        [1, 0, 0, 1],
    ),
    (
        "a save by the other handle, then one more load",
        |p| {
            p.save(&p.other);
            drop([p.load(), p.load()]);
        },
        [1, 1, 1, 1],
    ),
    (
        "a growing save by the other handle",
        |p| {
            p.grow(&p.other);
            drop(p.load());
        },
        [0, 1, 1, 1],
    ),
    (
        "an own save after one by the other handle",
        |p| {
            p.save(&p.other);
            p.save(&p.mine);
            drop(p.load());
        },
        [1, 0, 0, 1],
    ),
    (
        "another's save that changes nothing: it is looked at",
        |p| {
            p.other.update(p.token(), &mut |_| Ok(sessile::Verdict::Keep), RELAXED).unwrap();
            drop(p.load());
        },
        [0, 1, 1, 1],
    ),
    (
        "an own deletion",
        |p| {
            p.delete(&p.mine);
            drop(p.load());
        },
        [0, 1, 0, 0],
    ),
    (
        "a deletion by the other handle, then one more load",
        |p| {
            p.delete(&p.other);
            drop([p.load(), p.load()]);
        },
        [0, 2, 1, 0],
    ),
    (
        "an own rotation: the successor is cached",
        |p| {
            p.rotate(&p.mine);
            drop(p.load());
        },
        [0, 1, 0, 1],
    ),
    (
        "a rotation by the other handle",
        |p| {
            p.rotate(&p.other);
            drop(p.load());
        },
        [0, 1, 1, 0],
    ),
    (
        "a removal outside the library",
        |p| {
            p.remove_externally();
            drop(p.load());
        },
        [1, 0, 0, 1],
    ),
    (
        "a minute",
        |p| {
            p.age(MINUTE);
            drop([p.load(), p.load()]);
        },
        [1, 1, 1, 1],
    ),
    (
        "its deadline: the load that finds it reached reads the file and caches nothing",
        |p| {
            p.age(MINUTE);
            drop(p.load());
            p.age(58 * MINUTE + MINUTE / 2);
            drop(p.load());
            p.age(MINUTE / 2 + Duration::from_secs(1));
            assert_eq!(p.load(), None);
        },
        [0, 3, 3, 0],
    ),
];

#[test]
fn statistics_count_what_happened() {
    check_counts(&FileStoreOptions::new(), OPERATIONS);
}

#[test]
fn without_a_cache_every_load_is_a_miss_and_everything_works() {
    let options = FileStoreOptions::new().cache_bytes(0);
    // Without a cache, each load is a miss: as many as the hits and misses with a cache together.
    let cases: Vec<Case> = OPERATIONS
        .iter()
        .map(|&(what, operation, [hits, misses, ..])| (what, operation, [0, hits + misses, 0, 0]))
        .collect();
    check_counts(&options, &cases);
    let pair = Pair::new(&options);
    assert_eq!(pair.load().as_deref(), Some("old"));
    pair.save(&pair.other);
    assert_eq!(pair.load().as_deref(), Some("new"));
    pair.grow(&pair.mine);
    assert_eq!(load(&pair.other, pair.token()).unwrap(), Some("grown".repeat(1000)));
    let moved = pair.other.rotate(pair.token(), &mut append_plus, &RELAXED.into()).unwrap().unwrap();
    assert_eq!(pair.load(), None);
    assert_eq!(load(&pair.mine, &moved.token).unwrap(), Some("grown".repeat(1000) + "+"));
    assert!(pair.other.delete(&moved.token).unwrap().is_some());
    assert_eq!(load(&pair.mine, &moved.token).unwrap(), None);
    assert_eq!((pair.mine.stats().hits, pair.mine.stats().files.copies), (0, 0));
}

/// Several sessions share a counter in the generations file, so the invalidation of one applies to all of them.
#[test]
fn a_save_costs_sessions_of_the_same_counter_one_read() {
    let cell = |saved: &Saved| {
        let bytes = saved.live.id.as_bytes();
        (bytes[0], u16::from_le_bytes([bytes[2], bytes[3]]) % 512)
    };
    let pair = Pair::new(&FileStoreOptions::new());
    // Of 2,000 sessions, about fifteen pairs share one of the 131,072 counters.
    let mut cells = std::collections::HashMap::new();
    let found = std::iter::repeat_with(|| pair.mine.create(&record("old"), RELAXED).unwrap())
        .find_map(|saved| cells.insert(cell(&saved), saved.clone()).map(|before| (before, saved)));
    let (one, neighbour) = found.unwrap();
    let stranger = cells.into_values().find(|saved| cell(saved) != cell(&one)).unwrap();
    put(&pair.other, &one.token, "new", RELAXED).unwrap().unwrap();
    for (saved, text, looks) in
        [(&neighbour, "old", 1), (&neighbour, "old", 0), (&stranger, "old", 0), (&one, "new", 1)]
    {
        let before = counts(&pair.mine);
        assert_eq!(load(&pair.mine, &saved.token).unwrap().as_deref(), Some(text));
        let want = Counts {
            hits: before.hits + (1 - looks),
            misses: before.misses + looks,
            invalidations: before.invalidations + looks,
            ..before
        };
        assert_eq!(counts(&pair.mine), want);
    }
}

#[test]
fn evictions_are_counted_one_by_one_and_leave_the_rest() {
    let dir = directory_in_memory();
    let store = FileStoreOptions::new().watch(false).cache_bytes(256 << 10).open(dir.path()).unwrap();
    let saved: Vec<_> = (0..1000).map(|_| store.create(&record("x"), RELAXED).unwrap()).collect();
    let made = counts(&store);
    assert_eq!((made.hits, made.misses, made.invalidations), (0, 0, 0));
    assert!(made.evictions > 0 && made.copies > 0, "{made:?}");
    assert_eq!(made.evictions + made.copies as u64, 1000);
    // Each further miss evicts one entry, because its record needs the room.
    for saved in &saved {
        assert_eq!(load(&store, &saved.token).unwrap().as_deref(), Some("x"));
    }
    let read = counts(&store);
    assert_eq!((read.hits + read.misses, read.invalidations), (1000, 0));
    assert_eq!(read.evictions + read.copies as u64, 1000 + read.misses);
}
