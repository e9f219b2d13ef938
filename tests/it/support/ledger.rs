//! What was acknowledged, kept outside the store where every process can read it: one small file, changed in
//! place, which a killed process leaves as it is.
//!
//! A test works on *places*. In each place one session lives after the other; each of those is a [`Life`], with a
//! row of its own:
//!
//! ```text
//!    0  the life that is in each of the 384 places, plus one
//! 3072  128 cells for whatever a test has to say
//! 4096  rows of 128 bytes: token | ending | ended | highest version acknowledged to each of ten writers
//! ```
//!
//! A writer writes `ending` before it ends a session, and the rest after the store has answered. So a load may be
//! judged by what its row said before it began, and an absence by what the row says afterwards.
use sessile::Token;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PLACES: u64 = 384;
const CELLS_AT: u64 = 8 * PLACES;
const ROWS_AT: u64 = 4096;
const TOKEN: usize = 32;
const WRITERS: usize = 10;
const ENDING: u64 = TOKEN as u64;
const ENDED: u64 = ENDING + 8;
const VERSIONS: u64 = ENDED + 8;
const ROW: usize = 128;
const _: () = assert!(VERSIONS + 8 * WRITERS as u64 == ROW as u64 && CELLS_AT + 8 * 128 == ROWS_AT);

pub(crate) struct Ledger(File);

/// One session, from its creation or the rotation that led to it, to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Life(pub(crate) u64);

impl Life {
    /// The `n`-th life that this writer may give; no other writer gives it.
    pub(crate) fn of(writer: usize, n: u64) -> Self {
        assert!(writer < WRITERS);
        Self(n * WRITERS as u64 + writer as u64)
    }

    fn at(self) -> u64 {
        ROWS_AT + self.0 * ROW as u64
    }
}

/// What was known of a life at some instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Somebody has set out to end it.
    pub(crate) ending: bool,
    /// Somebody was told that it is gone.
    pub(crate) ended: bool,
    /// The highest version that anybody was told is saved.
    pub(crate) version: u64,
}

impl Ledger {
    pub(crate) fn open(path: &Path) -> Self {
        Self(File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap())
    }

    pub(crate) fn life_in(&self, place: u64) -> Life {
        assert!(place < PLACES);
        Life(self.get(8 * place) - 1)
    }

    pub(crate) fn put_in(&self, place: u64, life: Life) {
        assert!(place < PLACES);
        self.set(8 * place, life.0 + 1);
    }

    /// A new life, at the version that was acknowledged to its writer.
    pub(crate) fn begin(&self, life: Life, token: &Token, writer: usize, version: u64) {
        self.0.write_all_at(token.expose().as_bytes(), life.at()).unwrap();
        self.acknowledge(life, writer, version);
    }

    pub(crate) fn token(&self, life: Life) -> Token {
        let mut bytes = [0; TOKEN];
        self.0.read_exact_at(&mut bytes, life.at()).unwrap();
        Token::parse(std::str::from_utf8(&bytes).unwrap()).unwrap()
    }

    pub(crate) fn has(&self, life: Life) -> bool {
        let mut first = [0];
        self.0.read_at(&mut first, life.at()).unwrap() == 1 && first[0] != 0
    }

    pub(crate) fn acknowledge(&self, life: Life, writer: usize, version: u64) {
        self.set(life.at() + VERSIONS + 8 * writer as u64, version);
    }

    pub(crate) fn ending(&self, life: Life) {
        self.set(life.at() + ENDING, 1);
    }

    pub(crate) fn ended(&self, life: Life) {
        self.set(life.at() + ENDED, 1);
    }

    pub(crate) fn row(&self, life: Life) -> Row {
        loop {
            let mut bytes = [0; ROW];
            // The last row may be shorter.
            self.0.read_at(&mut bytes, life.at()).unwrap();
            let mut words = bytes[TOKEN..].chunks_exact(8).map(|word| unsealed(word.try_into().unwrap()));
            let mut next = || words.next().expect("a row has them all");
            let (ending, ended) = (next(), next());
            let version = (0..WRITERS).map(|_| next()).try_fold(0, |most, version| Some(most.max(version?)));
            if let (Some(ending), Some(ended), Some(version)) = (ending, ended, version) {
                return Row { ending: ending != 0, ended: ended != 0, version };
            }
        }
    }

    /// One of the cells that mean what a test says they do; 0 until it is set.
    pub(crate) fn cell(&self, n: u64) -> u64 {
        self.get(CELLS_AT + 8 * n)
    }

    pub(crate) fn set_cell(&self, n: u64, value: u64) {
        self.set(CELLS_AT + 8 * n, value);
    }

    fn get(&self, at: u64) -> u64 {
        loop {
            let mut bytes = [0; 8];
            self.0.read_at(&mut bytes, at).unwrap();
            if let Some(value) = unsealed(bytes) {
                return value;
            }
        }
    }

    fn set(&self, at: u64, value: u64) {
        self.0.write_all_at(&sealed(value), at).unwrap();
    }
}

/// A number beside its complement: a reading that a writing has passed shows, and is read again.
fn sealed(value: u64) -> [u8; 8] {
    let value = u32::try_from(value).unwrap();
    (u64::from(value) | u64::from(!value) << 32).to_le_bytes()
}

fn unsealed(bytes: [u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(bytes);
    let value = word & 0xffff_ffff;
    (word == 0 || word >> 32 == value ^ 0xffff_ffff).then_some(value)
}
