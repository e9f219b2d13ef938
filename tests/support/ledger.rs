//! What was acknowledged, kept outside the store where every process can read it: one small file, changed in
//! place, which a killed process leaves as it is.
//!
//! A test works on *places*. In each place one session lives after the other; each of those is a [`Life`], with a
//! row of its own:
//!
//! ```text
//!    0  the life that is in each of the 384 places, plus one
//! 3072  how many lives each of 57 writers has given
//! 3584  576 cells for whatever a test has to say
//! 8192  rows of 512 bytes: token | life, plus one | ending | ended | highest version acknowledged to each of 57 writers
//! ```
//!
//! A writer writes `ending` before it ends a session, and the rest after the store has answered. So a load may be
//! judged by what its row said before it began, and an absence by what the row says afterwards.
//!
//! **Rows are used again**, or a long run would fill the disk: after [`KEPT`] lives a writer comes back to its first row, and
//! passes over those whose life has not ended. So a life that has no row any more has ended. A row says that it is
//! nobody's before it is made somebody else's, and a reader looks whose it is *after* it has read what it says.
use sessile::Token;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PLACES: u64 = 384;
const GIVEN_AT: u64 = 8 * PLACES;
const CELLS_AT: u64 = GIVEN_AT + 512;
const CELLS: u64 = 576;
const ROWS_AT: u64 = 8192;
const TOKEN: usize = 32;
pub(crate) const WRITERS: usize = 57;
const LIFE: usize = TOKEN;
const ENDING: usize = LIFE + 8;
const ENDED: usize = ENDING + 8;
const VERSIONS: usize = ENDED + 8;
const ROW: usize = 512;
const _: () = assert!(VERSIONS + 8 * WRITERS == ROW && CELLS_AT + 8 * CELLS == ROWS_AT);
const _: () = assert!(8 * WRITERS as u64 <= CELLS_AT - GIVEN_AT);
/// Rows of each writer.
const KEPT: u64 = 4096;

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

    /// Where its row has a field.
    fn at(self, field: usize) -> u64 {
        row_at(self.0 % (KEPT * WRITERS as u64)) + field as u64
    }

    /// What its row says of whose it is.
    fn name(self) -> u64 {
        self.0 + 1
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

impl Row {
    /// What is known of a life whose row is another's.
    const OF_THE_DEAD: Self = Self { ending: true, ended: true, version: 0 };
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

    /// A life that this writer has not given, in whose row nobody lives.
    pub(crate) fn give(&self, writer: usize) -> Life {
        let given = GIVEN_AT + 8 * writer as u64;
        let first = self.get(given);
        let free = |n: &u64| {
            let life = Life::of(writer, *n);
            self.get(life.at(LIFE)) == 0 || self.get(life.at(ENDED)) != 0
        };
        let n = (first..first + KEPT).find(free).expect("not all lives of a writer go on");
        self.set(given, n + 1);
        Life::of(writer, n)
    }

    /// The last life that this writer was [given](Self::give), begun or not.
    pub(crate) fn last_given(&self, writer: usize) -> Option<Life> {
        let last = self.get(GIVEN_AT + 8 * writer as u64).checked_sub(1)?;
        Some(Life::of(writer, last))
    }

    /// A new life, at the version that was acknowledged to its writer.
    pub(crate) fn begin(&self, life: Life, token: &Token, writer: usize, version: u64) {
        self.set(life.at(LIFE), 0);
        let mut row = [0; ROW];
        row[..TOKEN].copy_from_slice(token.expose().as_bytes());
        self.0.write_all_at(&row, life.at(0)).unwrap();
        self.acknowledge(life, writer, version);
        self.set(life.at(LIFE), life.name());
    }

    /// The token of a life that has its row yet.
    #[track_caller]
    pub(crate) fn token(&self, life: Life) -> Token {
        let mut bytes = [0; TOKEN];
        self.0.read_exact_at(&mut bytes, life.at(0)).unwrap();
        assert!(self.has(life), "{life:?} has no row");
        Token::parse(std::str::from_utf8(&bytes).unwrap()).unwrap()
    }

    pub(crate) fn has(&self, life: Life) -> bool {
        self.get(life.at(LIFE)) == life.name()
    }

    /// Every life that has a row.
    pub(crate) fn lives(&self) -> impl Iterator<Item = Life> {
        let rows = (self.0.metadata().unwrap().len().saturating_sub(ROWS_AT)).div_ceil(ROW as u64);
        (0..rows).filter_map(|row| Some(Life(self.get(row_at(row) + LIFE as u64).checked_sub(1)?)))
    }

    pub(crate) fn acknowledge(&self, life: Life, writer: usize, version: u64) {
        self.set(life.at(VERSIONS + 8 * writer), version);
    }

    pub(crate) fn ending(&self, life: Life) {
        self.set(life.at(ENDING), 1);
    }

    pub(crate) fn ended(&self, life: Life) {
        self.set(life.at(ENDED), 1);
    }

    pub(crate) fn row(&self, life: Life) -> Row {
        loop {
            let mut bytes = [0; ROW];
            self.0.read_at(&mut bytes, life.at(0)).unwrap();
            if !self.has(life) {
                return Row::OF_THE_DEAD;
            }
            let word = |at: &[u8]| unsealed(at.try_into().unwrap());
            let [ending, ended] = [ENDING, ENDED].map(|at| word(&bytes[at..at + 8]));
            // Most writers have said nothing of it.
            let versions = bytes[VERSIONS..].chunks_exact(8).filter(|word| **word != [0; 8]);
            let version = versions.map(word).try_fold(0, |most, version| Some(most.max(version?)));
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

    /// Several cells, the first of them, in one call.
    pub(crate) fn set_cells(&self, first: u64, values: &[u64]) {
        assert!(first + values.len() as u64 <= CELLS);
        let bytes: Vec<u8> = values.iter().flat_map(|value| sealed(*value)).collect();
        self.0.write_all_at(&bytes, CELLS_AT + 8 * first).unwrap();
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

fn row_at(row: u64) -> u64 {
    ROWS_AT + row * ROW as u64
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
