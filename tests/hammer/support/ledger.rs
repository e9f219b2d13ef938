//! A record of all acknowledgements, kept outside the store in one small file that every process can read. The file is
//! changed in place, so a killed process leaves it intact.
//!
//! A test works on *places*. In each place sessions live one after the other; each session is a [`Life`] and has its
//! own row:
//!
//! ```text
//!    0  the life that is in each of the 384 places, plus one
//! 3072  how many lives each of 57 writers has given
//! 3584  576 cells, whose meaning the test defines
//! 8192  rows of 512 bytes: token | life, plus one | ending | ended | highest version acknowledged to each writer
//! ```
//!
//! A writer sets `ending` before it ends a session, and the other fields after the store has answered. So a load is
//! checked against the row as read before the load began, and an absence against the row as read afterwards.
//!
//! **Rows are reused**; otherwise a long run would fill the disk. After [`KEPT`] lives a writer returns to its first
//! row and skips rows whose life has not ended, so a life without a row has ended. A row is marked as unowned before it
//! gets a new owner, and a reader checks the owner *after* it has read the fields.
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
/// The number of rows that each writer has in the ledger.
const KEPT: u64 = 4096;

pub(crate) struct Ledger(File);

/// The number of one session, from its creation, by a login or a rotation, to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Life(pub(crate) u64);

impl Life {
    /// The `n`-th life of this writer. No other writer uses it.
    pub(crate) fn of(writer: usize, n: u64) -> Self {
        assert!(writer < WRITERS);
        Self(n * WRITERS as u64 + writer as u64)
    }

    /// The offset, in the file, of a field of the life's row.
    fn at(self, field: usize) -> u64 {
        row_at(self.0 % (KEPT * WRITERS as u64)) + field as u64
    }

    /// The owner field of the life's row.
    fn name(self) -> u64 {
        self.0 + 1
    }
}

/// What the ledger has about a life at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// An operation that ends the session has begun.
    pub(crate) ending: bool,
    /// The end of the session was acknowledged.
    pub(crate) ended: bool,
    /// The highest version whose save was acknowledged.
    pub(crate) version: u64,
}

impl Row {
    /// The row of a life that has ended, after another life has got its row.
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

    /// Gives the writer a life that it has not used, in a row that is free.
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

    /// The last life that this writer was [given](Self::give), whether its session was created or not.
    pub(crate) fn last_given(&self, writer: usize) -> Option<Life> {
        let last = self.get(GIVEN_AT + 8 * writer as u64).checked_sub(1)?;
        Some(Life::of(writer, last))
    }

    /// Writes the row of a life, at the version that was acknowledged to its writer.
    pub(crate) fn begin(&self, life: Life, token: &Token, writer: usize, version: u64) {
        self.set(life.at(LIFE), 0);
        let mut row = [0; ROW];
        row[..TOKEN].copy_from_slice(token.expose().as_bytes());
        self.0.write_all_at(&row, life.at(0)).unwrap();
        self.acknowledge(life, writer, version);
        self.set(life.at(LIFE), life.name());
    }

    /// The token of a life that still has its row.
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

    /// All lives that have a row.
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
            // Most writers have acknowledged no version of the session.
            let versions = bytes[VERSIONS..].chunks_exact(8).filter(|word| **word != [0; 8]);
            let version = versions.map(word).try_fold(0, |most, version| Some(most.max(version?)));
            if let (Some(ending), Some(ended), Some(version)) = (ending, ended, version) {
                return Row { ending: ending != 0, ended: ended != 0, version };
            }
        }
    }

    /// The value of a cell, which has a meaning in the test only; 0 until it is set.
    pub(crate) fn cell(&self, n: u64) -> u64 {
        self.get(CELLS_AT + 8 * n)
    }

    pub(crate) fn set_cell(&self, n: u64, value: u64) {
        self.set(CELLS_AT + 8 * n, value);
    }

    /// Sets several cells, from `first` on, with one write.
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

/// A number followed by its complement. A reader recognises a half written number, and reads again.
fn sealed(value: u64) -> [u8; 8] {
    let value = u32::try_from(value).unwrap();
    (u64::from(value) | u64::from(!value) << 32).to_le_bytes()
}

fn unsealed(bytes: [u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(bytes);
    let value = word & 0xffff_ffff;
    (word == 0 || word >> 32 == value ^ 0xffff_ffff).then_some(value)
}
