//! A thread that saves, deletes, rotates and loads the sessions of a [`Ledger`]. It compares every loaded record with
//! the acknowledgements, of all processes, that the ledger had before the load began.
use super::dice::Dice;
use super::ledger::{Ledger, Life};
use super::process::Parent;
use super::versions;
use sessile::{
    Absent, Admin, Durability, FileStore, Live, Lookup, Record, Store, Timing, Token, Value, Verdict,
};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::{AddAssign, Index, IndexMut};
use std::time::{Duration, SystemTime};

/// What is counted: operations first, then violations of a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Loads,
    /// Loads of sessions that had ended.
    DeadLoads,
    Hits,
    Misses,
    Saves,
    /// Saves that do not fit into the smallest file.
    LargeSaves,
    Ends,
    Rotations,
    /// A load returned an older version than was acknowledged, or than this thread had seen.
    Stale,
    /// A load returned a session whose end had been acknowledged.
    Revived,
    /// A load returned another session's record.
    Foreign,
    /// A session was absent although no operation had begun to end it.
    Lost,
}

use Count::{DeadLoads, Ends, Foreign, LargeSaves, Loads, Lost, Revived, Rotations, Saves, Stale};
pub(crate) const COUNTS: usize = Lost as usize + 1;

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts([u64; COUNTS]);

impl Counts {
    /// The counters as numbers, in the order of [`Count`].
    pub(crate) fn words(self) -> [u64; COUNTS] {
        self.0
    }

    pub(crate) fn of_words(words: impl IntoIterator<Item = u64>) -> Self {
        let mut words = words.into_iter();
        Self(std::array::from_fn(|_| words.next().expect("as many as there are counts")))
    }

    /// Asserts that no promise was violated.
    #[track_caller]
    pub(crate) fn check(&self, context: &str, faults: &[String]) {
        let bad = [Stale, Revived, Foreign, Lost].map(|count| self[count]);
        assert_eq!(bad, [0; 4], "{context}: stale, revived, foreign, lost of {self:?}: {faults:#?}");
    }
}

impl Index<Count> for Counts {
    type Output = u64;
    fn index(&self, count: Count) -> &u64 {
        &self.0[count as usize]
    }
}

impl IndexMut<Count> for Counts {
    fn index_mut(&mut self, count: Count) -> &mut u64 {
        &mut self.0[count as usize]
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.0.iter_mut().zip(more.0).for_each(|(sum, more)| *sum += more);
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [loads, dead, hits, misses, saves, large, ends, rotations, stale, revived, foreign, lost] =
            self.0;
        write!(
            f,
            "{loads} loads ({dead} of ended sessions; {hits} hits, {misses} misses), {saves} saves ({large} large), \
             {ends} ends, {rotations} rotations; {stale} stale, {revived} revived, {foreign} foreign, {lost} lost"
        )
    }
}

/// The number of violations that are described. Further ones are only counted.
const DESCRIBED_MAX: usize = 3;

/// The results of one or several threads.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) counts: Counts,
    /// Descriptions of the first violations.
    pub(crate) faults: Vec<String>,
}

impl Findings {
    pub(crate) fn add(&mut self, more: Self) {
        self.counts += more.counts;
        self.faults.extend(more.faults);
    }

    /// Adds the hit and miss counters of a store whose loads were all made by checkers.
    #[track_caller]
    pub(crate) fn add_stats(&mut self, store: &FileStore) {
        let stats = store.stats();
        self.counts[Count::Hits] += stats.hits;
        self.counts[Count::Misses] += stats.files.misses;
        let answered = self.counts[Count::Hits] + self.counts[Count::Misses];
        assert_eq!(answered, self.counts[Loads], "each load is a hit or a miss");
    }

    pub(crate) fn report_to(&self, parent: &Parent) {
        parent.report(self.counts.words().map(|count| count.to_string()).join(" "));
        self.faults.iter().for_each(|fault| parent.report(fault));
    }

    /// Parses the report of a child process.
    #[track_caller]
    pub(crate) fn of(lines: &[String]) -> Self {
        let [counts, faults @ ..] = lines else { panic!("no findings") };
        let counts = Counts::of_words(counts.split(' ').map(|number| number.parse().unwrap()));
        Self { counts, faults: faults.to_vec() }
    }
}

/// The number of steps in a thousand that save, delete or rotate a session. The others are loads.
#[derive(Clone, Copy)]
pub(crate) struct Mix {
    pub(crate) saves: u64,
    pub(crate) ends: u64,
    pub(crate) rotations: u64,
}

/// The way in which a checker saves.
#[derive(Clone, Copy, Default)]
pub(crate) struct Saving {
    /// One save in eight is power-safe.
    pub(crate) safe: bool,
    /// Each save moves the deadline to a random hour of the next day.
    pub(crate) renews: bool,
    /// One save in three is large, instead of one in twenty, and up to 64 KiB instead of 16 KiB.
    pub(crate) large: bool,
}

/// The number of ended sessions that a checker remembers.
const GONE: usize = 4096;

pub(crate) struct Checker<'a> {
    store: &'a FileStore,
    ledger: &'a Ledger,
    writer: usize,
    dice: Dice,
    pub(crate) saving: Saving,
    /// What this thread has seen of each life.
    met: HashMap<Life, Met>,
    /// The life that this thread has last seen in each place.
    last: HashMap<u64, Life>,
    /// Lives that were replaced in their places; at most [`GONE`].
    gone: VecDeque<Life>,
    pub(crate) findings: Findings,
}

struct Met {
    token: Token,
    /// The newest version of the life that this thread has loaded.
    version: u64,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(store: &'a FileStore, ledger: &'a Ledger, writer: usize, seed: u64) -> Self {
        Self {
            store,
            ledger,
            writer,
            dice: Dice::new(seed),
            saving: Saving::default(),
            met: HashMap::new(),
            last: HashMap::new(),
            gone: VecDeque::new(),
            findings: Findings::default(),
        }
    }

    /// Performs one operation in one of these places, mostly in the first few.
    pub(crate) fn step(&mut self, first: u64, places: u64, mix: Mix) {
        let few = if self.dice.roll(2) == 0 { places.min(16) } else { places };
        let place = first + self.dice.roll(few);
        let life = self.life_in(place);
        let mut choice = self.dice.roll(1000);
        let mut is = |share| {
            let is = choice < share;
            choice = choice.wrapping_sub(share);
            is
        };
        if is(mix.saves) {
            self.save(life);
        } else if is(mix.ends) {
            if self.end(life) {
                self.create_in(place);
            }
        } else if is(mix.rotations) {
            self.rotate(place, life);
        } else if is(20) {
            self.load_a_dead_one();
        } else {
            self.load(life);
        }
    }

    /// The life that is in this place now.
    pub(crate) fn life_in(&mut self, place: u64) -> Life {
        let life = self.ledger.life_in(place);
        let before = self.last.insert(place, life);
        self.gone.extend(before.filter(|before| *before != life && self.met.contains_key(before)));
        if self.gone.len() > GONE {
            self.gone.pop_front().map(|forgotten| self.met.remove(&forgotten));
        }
        life
    }

    /// Loads a session that has ended, mostly one that ended recently.
    pub(crate) fn load_a_dead_one(&mut self) {
        let some = self.gone.len() as u64;
        if some > 0 {
            let back = if self.dice.roll(2) == 0 { some.min(8) } else { some };
            let back = usize::try_from(self.dice.roll(back)).unwrap();
            self.load(self.gone[self.gone.len() - 1 - back]);
        }
    }

    pub(crate) fn load(&mut self, life: Life) {
        let before = self.ledger.row(life);
        let store = self.store;
        let found = store.load(&self.met(life).token).unwrap();
        self.count(Loads);
        if before.ended {
            self.count(DeadLoads);
        }
        match found {
            Lookup::Live(Live { record, .. }) => self.judge(life, before, &record),
            Lookup::Absent(Absent::NotFound(_)) => self.judge_absence(life),
            Lookup::Absent(other) => panic!("{other:?}"),
        }
    }

    pub(crate) fn token(&mut self, life: Life) -> Token {
        self.met(life).token.clone()
    }

    /// The version that a load returns now. It is not checked.
    pub(crate) fn peek(&mut self, life: Life) -> Option<u64> {
        self.count(Loads);
        let (store, token) = (self.store, &self.met(life).token);
        versions::stored(store, token)
    }

    /// Saves the next version of a session. Returns whether the session was there.
    pub(crate) fn save(&mut self, life: Life) -> bool {
        let before = self.ledger.row(life);
        let (bytes, how, deadline) = (self.text_bytes(), self.durability(), self.deadline());
        let token = self.met(life).token.clone();
        let mut found = None;
        let change = &mut |record: &mut Record| {
            found = Some(record.clone());
            versions::put(record, versions::of(record) + 1, bytes);
            record.set_timing(Timing { deadline: deadline.unwrap_or(record.deadline()), ..record.timing() });
            Ok(Verdict::Write)
        };
        let saved = self.store.update(&token, change, how).unwrap();
        self.count(Saves);
        if bytes >= 2048 {
            self.count(LargeSaves);
        }
        let Some(saved) = saved else {
            self.judge_absence(life);
            self.ledger.ended(life);
            return false;
        };
        self.ledger.acknowledge(life, self.writer, versions::of(&saved.live.record));
        self.judge(life, before, &found.expect("it was changed"));
        self.met(life).version = versions::of(&saved.live.record);
        true
    }

    /// Deletes a session. Returns whether it was there.
    pub(crate) fn end(&mut self, life: Life) -> bool {
        let token = self.met(life).token.clone();
        self.ledger.ending(life);
        let was_there = self.store.delete(&token).unwrap().is_some();
        self.ledger.ended(life);
        self.count(Ends);
        was_there
    }

    /// Rotates the session in a place to a new id.
    pub(crate) fn rotate(&mut self, place: u64, old: Life) {
        let before = self.ledger.row(old);
        let new = self.ledger.give(self.writer);
        let (bytes, how) = (self.text_bytes(), self.durability());
        let token = self.met(old).token.clone();
        let mut found = None;
        let change = &mut |record: &mut Record| {
            found = Some(record.clone());
            versions::put(record, versions::of(record) + 1, bytes);
            mark(record, new);
            Ok(Verdict::Write)
        };
        self.ledger.ending(old);
        let saved = self.store.rotate(&token, change, &how.into()).unwrap();
        self.count(Rotations);
        if let Some(saved) = saved {
            self.ledger.begin(new, &saved.token, self.writer, versions::of(&saved.live.record));
            // The order matters. If the writer is killed between these steps, at most one life has not ended and is in
            // no place: the last one that the writer was given.
            self.ledger.ended(old);
            self.ledger.put_in(place, new);
            self.judge(old, before, &found.expect("it was changed"));
        } else {
            // Another thread has ended the session, so the new life was never created.
            self.ledger.ended(old);
        }
    }

    pub(crate) fn create_in(&mut self, place: u64) {
        let life = self.ledger.give(self.writer);
        let how = self.durability();
        let mut record = versions::new(self.store, 1, 100);
        mark(&mut record, life);
        let token = self.store.create(&record, how).unwrap().token;
        self.ledger.begin(life, &token, self.writer, 1);
        self.ledger.put_in(place, life);
    }

    /// Checks a record that was loaded after the row `before` was read from the ledger.
    fn judge(&mut self, life: Life, before: super::ledger::Row, record: &Record) {
        let of = marked(record);
        if of != life {
            return self.fault(Foreign, format_args!("{life:?}: a record of {of:?}"));
        }
        let version = versions::of(record);
        let met = self.met(life);
        let seen = met.version;
        met.version = seen.max(version);
        if before.ended {
            self.fault(Revived, format_args!("{life:?}: version {version}, after {before:?}"));
        } else if version < before.version.max(seen) {
            self.fault(Stale, format_args!("{life:?}: version {version}, after {before:?} and {seen}"));
        }
    }

    fn judge_absence(&mut self, life: Life) {
        let after = self.ledger.row(life);
        if !after.ending {
            self.fault(Lost, format_args!("{life:?}: absent, and then {after:?}"));
        }
    }

    fn met(&mut self, life: Life) -> &mut Met {
        let ledger = self.ledger;
        self.met.entry(life).or_insert_with(|| Met { token: ledger.token(life), version: 0 })
    }

    /// The number of bytes of the next text. One in twenty is too large for the smallest file.
    fn text_bytes(&mut self) -> usize {
        let (one_in, sizes) = if self.saving.large { (3, 6) } else { (20, 4) };
        let large = self.dice.roll(one_in) == 0;
        let bytes = if large { 2048 << self.dice.roll(sizes) } else { self.dice.roll(300) };
        usize::try_from(bytes).unwrap()
    }

    fn durability(&mut self) -> Durability {
        if self.saving.safe && self.dice.roll(8) == 0 { Durability::PowerSafe } else { Durability::Relaxed }
    }

    fn deadline(&mut self) -> Option<SystemTime> {
        let hours = 1 + self.dice.roll(24);
        self.saving.renews.then(|| self.store.now() + Duration::from_secs(3600 * hours))
    }

    fn count(&mut self, count: Count) {
        self.findings.counts[count] += 1;
    }

    fn fault(&mut self, count: Count, text: fmt::Arguments<'_>) {
        self.count(count);
        if self.findings.faults.len() < DESCRIBED_MAX {
            self.findings.faults.push(format!("{count:?}: {text}"));
        }
    }
}

/// Writes the number of the life into the record.
fn mark(record: &mut Record, life: Life) {
    record.insert("mark", &Value::new(&life.0).unwrap()).unwrap();
}

/// The life whose number is in the record.
pub(crate) fn marked(record: &Record) -> Life {
    Life(record.entries().get("mark").unwrap().get().unwrap())
}

/// Compares the store with the ledger when no operation is running. Every ended session must be absent, and the session
/// in each place must be at its last acknowledged version.
#[track_caller]
pub(crate) fn check_at_rest(store: &FileStore, ledger: &Ledger, places: u64) {
    for life in ledger.lives().filter(|life| ledger.row(*life).ended) {
        assert_eq!(versions::stored(store, &ledger.token(life)), None, "{life:?} has ended");
    }
    for place in 0..places {
        let life = ledger.life_in(place);
        let row = ledger.row(life);
        assert!(!row.ended, "{life:?} ended without a successor");
        assert_eq!(versions::stored(store, &ledger.token(life)), Some(row.version), "{life:?}: {row:?}");
    }
}
