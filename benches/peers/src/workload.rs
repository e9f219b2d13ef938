//! The workload of every peer: the same sessions under the same ids, visited in the same order.
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A session's id, as in a cookie: 32 characters.
pub(crate) type Key = [u8; 32];

/// Properties of a loaded session, enough to recognise it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Number of updates.
    pub(crate) visits: u64,
    /// Size of its other content, as stored, in bytes.
    pub(crate) bytes: usize,
}

/// When a write has reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Durability {
    /// Some time after it was acknowledged: it survives a crash of the program, not of the machine.
    Relaxed,
    /// Before it is acknowledged.
    #[value(name = "power_safe")]
    PowerSafe,
    /// Saves as for `Relaxed`, ends before they are acknowledged, and 32 MiB of memory for sessions: sessile
    /// as it is opened without options. Other peers do not take part, and of the operations only the mix.
    Defaults,
}

impl Durability {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relaxed => "relaxed",
            Self::PowerSafe => "power_safe",
            Self::Defaults => "defaults",
        }
    }
}

/// The measured operations on sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Operation {
    /// The life of sessions: 90 % loads from the fastest place that the peer has, 8 % updates, 1 % creations,
    /// 1 % ends, of sessions of which a few are used often (Zipf, exponent 0.99).
    Mix,
    /// Reads a session from the page cache.
    Load,
    /// Reads a session from the program's own memory.
    #[value(name = "load_cached")]
    LoadCached,
    /// Reads a session, changes a number in it, and writes it back, such that concurrent updates lose no
    /// change.
    Update,
    /// Creates a session.
    Create,
    /// Removes a session.
    Delete,
    /// Removes all expired sessions, some thousands among all live ones.
    Sweep,
}

impl Operation {
    pub(crate) const ALL: [Self; 7] =
        [Self::Mix, Self::Load, Self::LoadCached, Self::Update, Self::Create, Self::Delete, Self::Sweep];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mix => "mix",
            Self::Load => "load",
            Self::LoadCached => "load_cached",
            Self::Update => "update",
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Sweep => "sweep",
        }
    }

    /// Whether the durability makes a difference: a load does not write, and a power cut can bring back only
    /// expired sessions after a sweep.
    pub(crate) fn is_durable(self) -> bool {
        !matches!(self, Self::Load | Self::LoadCached | Self::Sweep)
    }
}

/// The characters of an id.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// How long a session lives, unless it is created to be swept.
const TWO_WEEKS: Duration = Duration::from_secs(14 * 86_400);

/// A random id.
pub(crate) fn random_key(dice: &mut StdRng) -> Key {
    std::array::from_fn(|_| ALPHABET[dice.random_range(0..ALPHABET.len())])
}

/// An endless sequence of ids, the same one for the same seed.
pub(crate) fn keys(seed: u64) -> impl Iterator<Item = Key> {
    let mut dice = StdRng::seed_from_u64(seed);
    std::iter::repeat_with(move || random_key(&mut dice))
}

/// An id as text.
pub(crate) fn text(key: &Key) -> &str {
    str::from_utf8(key).expect("its characters are ASCII")
}

/// When a session that is created now expires.
pub(crate) fn usual_deadline() -> SystemTime {
    SystemTime::now() + TWO_WEEKS
}

/// A time as databases store it: microseconds since 1970.
pub(crate) fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).expect("after 1970").as_micros();
    since.try_into().expect("before the year 500,000")
}

/// Content of a session except the visit counter: text that does not compress to nothing.
pub(crate) fn payload(bytes: usize) -> String {
    let mut dice = StdRng::seed_from_u64(5);
    (0..bytes).map(|_| char::from(ALPHABET[dice.random_range(0..ALPHABET.len())])).collect()
}

/// A session as a database without columns stores it: its deadline, the visit counter, the payload.
pub(crate) struct Row;

impl Row {
    const HEAD: usize = 16;

    pub(crate) fn of(deadline: SystemTime, payload: &str) -> Vec<u8> {
        [&micros(deadline).to_be_bytes(), &[0; 8], payload.as_bytes()].concat()
    }
    pub(crate) fn found(row: &[u8]) -> Found {
        Found { visits: Self::number(row, 8), bytes: row.len() - Self::HEAD }
    }
    pub(crate) fn deadline(row: &[u8]) -> u64 {
        Self::number(row, 0)
    }
    pub(crate) fn visit(row: &mut [u8]) {
        let visits = Self::number(row, 8) + 1;
        row[8..16].copy_from_slice(&visits.to_be_bytes());
    }
    /// Key of a session in an index of deadlines, in chronological order.
    pub(crate) fn by_deadline(deadline: u64, key: &Key) -> [u8; 40] {
        let mut entry = [0; 40];
        entry[..8].copy_from_slice(&deadline.to_be_bytes());
        entry[8..].copy_from_slice(key);
        entry
    }
    /// The same, read back.
    pub(crate) fn from_by_deadline(entry: &[u8]) -> (u64, Key) {
        (Self::number(entry, 0), entry[8..40].try_into().expect("an id"))
    }
    fn number(row: &[u8], at: usize) -> u64 {
        u64::from_be_bytes(row[at..at + 8].try_into().expect("eight bytes"))
    }
}
