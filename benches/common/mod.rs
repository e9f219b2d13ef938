//! Shared parts of the benchmarks: a store full of equal sessions, raw files of the same shape, a fixed order
//! of visits.
//!
//! Sessions hold 512 bytes of payload. `SESSILE_BENCH_SESSIONS` is their number (default 50,000: more than
//! fit a directory or a small cache, and created in seconds).
#![expect(unreachable_pub, reason = "each benchmark is a separate program that includes this module")]
#![allow(dead_code, reason = "not every benchmark uses all of it")]
use criterion::Criterion;
use rand::SeedableRng;
use rand::distr::{Distribution, Uniform};
use rand::rngs::StdRng;
use rand_distr::Zipf;
use rustix::fs::{Mode, OFlags};
use sessile::{Durability, FileStore, FileStoreOptions, Record, Saved, Store, Token, Value, Verdict};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Short measurements, so that plain `cargo bench` takes minutes; `--measurement-time` sets a longer time.
pub fn criterion() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2))
}

/// Number of sessions in a store.
pub fn sessions() -> usize {
    let text = std::env::var("SESSILE_BENCH_SESSIONS").unwrap_or_else(|_| "50000".into());
    text.parse().expect("SESSILE_BENCH_SESSIONS is a number")
}

/// The directory to measure in: `SESSILE_BENCH_DIR`, or the build directory, which is on a disk (a temporary directory
/// may be in memory).
pub fn directory() -> TempDir {
    let parent = std::env::var_os("SESSILE_BENCH_DIR")
        .map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    tempfile::Builder::new()
        .prefix("sessile-bench-")
        .tempdir_in(parent)
        .expect("a writable directory to measure in")
}

/// A session of eight entries: a login, a cart, a few flags. Names, values and user have about 500 bytes.
pub fn record(store: &(impl Store + ?Sized)) -> Record {
    let now = store.now();
    let mut record = Record::new(now, now + Duration::from_secs(1_209_600));
    record.set_user("user-1234567").expect("a short one");
    let entries = [
        ("cart", Value::new(&["apples", "pears", "quinces", "plums"])),
        ("csrf", Value::new(&"c".repeat(64))),
        ("lang", Value::new("en-GB")),
        ("last_page", Value::new("/catalogue/fruit?page=3")),
        ("seen", Value::new(&[17, 42, 99, 1234, 70_000])),
        ("theme", Value::new("dark")),
        ("visits", Value::new(&1)),
        ("zz_filler", Value::new(&"x".repeat(278))),
    ]
    .map(|(name, value)| (name, value.expect("a value")));
    record.extend(entries.iter().map(|(name, value)| (*name, value))).expect("it fits");
    record
}

/// Changes one entry, as a page does that counts visits, and saves; `None` if the session is not live.
pub fn count_visit(store: &(impl Store + ?Sized), token: &Token, how: Durability) -> Option<Saved> {
    let mut change = |record: &mut Record| {
        let visits: u64 = record.entries().get("visits").expect("it has one").get()?;
        record.insert("visits", &Value::new(&(visits + 1))?)?;
        Ok(Verdict::Write)
    };
    store.update(token, &mut change, how).expect("an update")
}

/// Lets each thread perform this many operations, each with a function of its own that is given the number of the
/// operation. Returns the total time.
pub fn in_threads<F: FnMut(usize)>(
    threads: usize,
    operations: u64,
    operation_of: impl Fn(usize) -> F + Sync,
) -> Duration {
    let start = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let (start, operation_of) = (&start, &operation_of);
        let work = |thread| {
            move || {
                let operation = operation_of(thread);
                start.wait();
                (0..usize::try_from(operations).expect("fits")).for_each(operation);
            }
        };
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(work(thread))).collect();
        start.wait();
        let began = Instant::now();
        for worker in workers {
            worker.join().expect("no operation fails");
        }
        began.elapsed()
    })
}

/// A store full of sessions, and their tokens in a shuffled order. It is created lazily: a benchmark that a
/// filter excludes creates none.
pub struct Full {
    pub store: FileStore,
    pub tokens: Vec<Token>,
    dir: TempDir,
}

impl Full {
    pub fn with(options: FileStoreOptions, sessions: usize, durability: Durability) -> Self {
        let dir = directory();
        let store = options.durability(durability).open(dir.path()).expect("a store");
        let record = record(&store);
        let tokens =
            (0..sessions).map(|_| store.create(&record, durability).expect("a session").token).collect();
        // The sessions are written to the disk before the measurement.
        rustix::fs::sync();
        // The tokens are random, so their order is too: neighbours lie in different shards.
        Self { store, tokens, dir }
    }

    /// The store's directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The root's descriptor and the relative paths of the sessions, in the order of the tokens.
    pub fn paths(&self) -> (OwnedFd, Vec<String>) {
        let root = rustix::fs::open(self.dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        let path = |token: &Token| {
            let hex = sessile::PublicId::digest(token.expose().as_bytes()).to_string();
            format!("{}/{}", &hex[..2], &hex[2..])
        };
        (root.expect("the root"), self.tokens.iter().map(path).collect())
    }
}

/// A long order of visits, the same for every candidate. It is longer than the number of sessions, but does
/// not contain all of them. The tokens lie in memory in this order: a server has just read the token of the
/// request that it looks up.
#[derive(Clone)]
pub struct Visits {
    order: Arc<[Token]>,
    at: usize,
}

impl Visits {
    /// Each session is as likely as any other.
    pub fn uniform(tokens: &[Token]) -> Self {
        Self::of(tokens, Uniform::new(0.0, float(tokens.len())).expect("a range"))
    }

    /// The n-th session is visited in proportion to n to the power of -0.99, as on web sites.
    pub fn zipf(tokens: &[Token]) -> Self {
        let ranks = Zipf::new(float(tokens.len()), 0.99).expect("a distribution");
        Self::of(tokens, ranks.map(|rank| rank - 1.0))
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "indices, far below 2^32")]
    fn of(tokens: &[Token], indices: impl Distribution<f64>) -> Self {
        let (dice, len) = (StdRng::seed_from_u64(1), tokens.len().max(1 << 17));
        let order = indices.sample_iter(dice).take(len).map(|at| tokens[at as usize].clone());
        Self { order: order.collect(), at: 0 }
    }

    /// The same order, from another place.
    pub fn from(&self, at: usize) -> Self {
        Self { order: Arc::clone(&self.order), at }
    }

    pub fn next(&mut self) -> &Token {
        self.at = (self.at + 1) % self.order.len();
        &self.order[self.at]
    }
}

fn float(len: usize) -> f64 {
    u32::try_from(len).expect("far fewer sessions than 2^32").into()
}

/// Visits every index below `len` in turn, in an order without neighbours. Where a sample does not reach all
/// indices, create it outside of the closure that Criterion calls for each sample; otherwise each sample
/// visits the same ones.
pub struct Round {
    at: usize,
    len: usize,
}

impl Round {
    const STEP: usize = 7919;

    pub fn below(len: usize) -> Self {
        assert!(
            !len.is_multiple_of(Self::STEP),
            "{len} sessions cannot all be visited in steps of {}",
            Self::STEP
        );
        Self { at: 0, len }
    }
    pub fn next(&mut self) -> usize {
        // A step that shares no factor with the length reaches every index once a round.
        self.at = (self.at + Self::STEP) % self.len;
        self.at
    }
}
