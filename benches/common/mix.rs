//! The mix: the life of sessions as one order of operations, for any store. Opens none, and measures nothing.
//!
//! Of 1,000 operations 900 load a session and read one entry, 80 change one entry, 10 create a session and 10 end one. The n-th
//! session is used in proportion to n to the power of -0.99, as on web sites. The number of sessions in use never changes: a session
//! that ends gives its place to one that was created.
use parking_lot::{Mutex, RwLock};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};
use std::fmt::Debug;

/// The shares of 1,000 operations; the rest creates and ends sessions, in turn.
const LOADS: u32 = 900;
const UPDATES: u32 = 80;
/// The exponent of the distribution.
const EXPONENT: f64 = 0.99;
/// The length of the order. All threads follow it from different places, and begin again at its end.
const STEPS: usize = 1 << 18;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Load,
    Update,
    /// A creation or an end: each thread does both in turn.
    Turnover,
}

/// The order of operations, each with the place of the session that it uses. It is the same for every store, and made before the
/// measurement, because a random number of this distribution takes as long as a load from memory.
#[derive(Debug)]
pub(crate) struct Order(Vec<(Kind, u32)>);

impl Order {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "places, far below 2^32")]
    pub(crate) fn new(sessions: usize) -> Self {
        let sessions = f64::from(u32::try_from(sessions).expect("far fewer sessions than 2^32"));
        let ranks = Zipf::new(sessions, EXPONENT).expect("a distribution");
        let mut dice = StdRng::seed_from_u64(11);
        let step = |_| {
            let kind = match dice.random_range(0..1000) {
                n if n < LOADS => Kind::Load,
                n if n < LOADS + UPDATES => Kind::Update,
                _ => Kind::Turnover,
            };
            (kind, ranks.sample(&mut dice) as u32 - 1)
        };
        Self((0..STEPS).map(step).collect())
    }
}

/// One thread's way to a store.
pub(crate) trait Client<Id> {
    /// Loads a session and reads one entry. Whether the session is live.
    fn load(&mut self, id: &Id) -> bool;

    /// Changes one entry. Whether the session was live.
    fn update(&mut self, id: &Id) -> bool;

    fn create(&mut self) -> Id;

    /// Whether the session was live.
    fn end(&mut self, id: &Id) -> bool;
}

/// All sessions, which threads use together.
#[derive(Debug)]
pub(crate) struct Population<Id> {
    /// The sessions in use, by their places in the order.
    pub(crate) in_use: Vec<RwLock<Id>>,
    /// Sessions that were created and have no place yet: at most one of each thread.
    pub(crate) created: Mutex<Vec<Id>>,
    pub(crate) ended: Mutex<Vec<Id>>,
}

impl<Id: Clone + Debug + PartialEq> Population<Id> {
    pub(crate) fn new(sessions: impl IntoIterator<Item = Id>) -> Self {
        let in_use = sessions.into_iter().map(RwLock::new).collect();
        Self { in_use, created: Mutex::default(), ended: Mutex::default() }
    }

    /// A thread, which follows the order from step `at`.
    pub(crate) fn worker<'a>(&'a self, order: &'a Order, at: usize) -> Worker<'a, Id> {
        Worker { population: self, order, at: at % order.0.len(), ends_next: false }
    }

    /// The ended sessions that a client finds alive; after this they are forgotten.
    pub(crate) fn take_revived(&self, client: &mut impl Client<Id>) -> Vec<Id> {
        self.ended.lock().drain(..).filter(|id| client.load(id)).collect()
    }

    /// Uses the session of a place. It is live, unless another thread ended it since its id was read.
    fn visit(&self, place: usize, visit: impl FnOnce(&Id) -> bool) {
        let id = self.in_use[place].read().clone();
        if !visit(&id) {
            assert_ne!(*self.in_use[place].read(), id, "a session is lost");
        }
    }
}

/// One thread that follows the order.
#[derive(Debug)]
pub(crate) struct Worker<'a, Id> {
    population: &'a Population<Id>,
    order: &'a Order,
    at: usize,
    ends_next: bool,
}

impl<Id: Clone + Debug + PartialEq> Worker<'_, Id> {
    /// Performs the next operation.
    ///
    /// # Panics
    ///
    /// A session is lost.
    pub(crate) fn step(&mut self, client: &mut impl Client<Id>) {
        let (kind, place) = self.order.0[self.at];
        self.at = (self.at + 1) % self.order.0.len();
        let (place, population) = (place as usize, self.population);
        match kind {
            Kind::Load => population.visit(place, |id| client.load(id)),
            Kind::Update => population.visit(place, |id| client.update(id)),
            Kind::Turnover if self.ends_next => {
                let successor = population.created.lock().pop().expect("this thread created one");
                let ended = std::mem::replace(&mut *population.in_use[place].write(), successor);
                assert!(client.end(&ended), "an end found no session");
                population.ended.lock().push(ended);
            }
            Kind::Turnover => population.created.lock().push(client.create()),
        }
        self.ends_next ^= kind == Kind::Turnover;
    }
}

#[cfg(test)]
#[allow(
    dead_code,
    reason = "`benches/mix.rs` has no harness: these tests run with `benches/peers`, which includes this file too"
)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const SESSIONS: usize = 1000;

    /// A store that counts its calls, and can fail to do its work.
    #[derive(Default)]
    struct Fake {
        live: HashSet<u32>,
        next: u32,
        calls: [u32; 4],
        keeps_ended: bool,
        loses_created: bool,
    }

    impl Fake {
        fn is_live(&mut self, id: u32, call: usize) -> bool {
            self.calls[call] += 1;
            self.live.contains(&id)
        }
    }

    impl Client<u32> for Fake {
        fn load(&mut self, id: &u32) -> bool {
            self.is_live(*id, 0)
        }
        fn update(&mut self, id: &u32) -> bool {
            self.is_live(*id, 1)
        }
        fn create(&mut self) -> u32 {
            self.calls[2] += 1;
            self.next += 1;
            if !self.loses_created {
                self.live.insert(self.next);
            }
            self.next
        }
        fn end(&mut self, id: &u32) -> bool {
            let was_live = self.is_live(*id, 3);
            if !self.keeps_ended {
                self.live.remove(id);
            }
            was_live
        }
    }

    fn float(count: usize) -> f64 {
        u32::try_from(count).unwrap().into()
    }

    /// A store with sessions after this many operations of one thread.
    fn used(fake: Fake, steps: usize) -> (Fake, Population<u32>) {
        let mut fake = Fake { next: 999, ..fake };
        fake.live.extend(0..1000);
        let population = Population::new(0..1000);
        let order = Order::new(SESSIONS);
        let mut worker = population.worker(&order, 0);
        (0..steps).for_each(|_| worker.step(&mut fake));
        (fake, population)
    }

    #[test]
    fn of_1000_operations_900_load_80_update_10_create_10_end() {
        let (fake, _) = used(Fake::default(), STEPS);
        let [loads, updates, creations, ends] = fake.calls.map(|calls| f64::from(calls) / float(STEPS));
        for (share, expected) in [(loads, 0.9), (updates, 0.08), (creations, 0.01), (ends, 0.01)] {
            assert!((share - expected).abs() < 0.002, "{share}, where {expected} is expected");
        }
        assert!(fake.calls[2] - fake.calls[3] <= 1, "{:?}", fake.calls);
    }

    #[test]
    fn a_session_is_used_in_proportion_to_its_rank_to_the_minus_099() {
        let mut uses = vec![0; SESSIONS];
        Order::new(SESSIONS).0.iter().for_each(|(_, place)| uses[*place as usize] += 1);
        let weight = |rank: usize| float(rank).powf(-EXPONENT);
        let sum: f64 = (1..=SESSIONS).map(weight).sum();
        for ranks in [1..2, 2..3, 10..11, 11..101, 101..SESSIONS + 1] {
            let share = float(uses[ranks.start - 1..ranks.end - 1].iter().sum()) / float(STEPS);
            let expected = ranks.clone().map(weight).sum::<f64>() / sum;
            assert!(
                (share / expected - 1.0).abs() < 0.05,
                "{ranks:?}: {share}, where {expected} is expected"
            );
        }
    }

    #[test]
    fn each_kind_of_operation_uses_sessions_alike() {
        // Of each kind, a hot session has about its share: kind and place are drawn independently.
        let order = Order::new(SESSIONS);
        for kind in [Kind::Load, Kind::Update, Kind::Turnover] {
            let of_kind = || order.0.iter().filter(|(other, _)| *other == kind);
            let first = float(of_kind().filter(|(_, place)| *place == 0).count()) / float(of_kind().count());
            assert!((0.10..0.17).contains(&first), "{kind:?}: {first}");
        }
    }

    #[test]
    fn the_number_of_sessions_in_use_does_not_change() {
        let (mut fake, population) = used(Fake::default(), STEPS);
        assert_eq!(population.in_use.len(), SESSIONS);
        assert_eq!(fake.live.len(), SESSIONS + population.created.lock().len());
        assert!(population.ended.lock().len() > 1000);
        assert_eq!(population.take_revived(&mut fake), [0; 0]);
    }

    #[test]
    fn an_end_that_does_not_end_is_noticed() {
        let (mut fake, population) = used(Fake { keeps_ended: true, ..Fake::default() }, 5000);
        let ended = population.ended.lock().clone();
        assert!(!ended.is_empty());
        assert_eq!(population.take_revived(&mut fake), ended);
    }

    #[test]
    #[should_panic(expected = "a session is lost")]
    fn a_created_session_that_is_lost_is_noticed() {
        used(Fake { loses_created: true, ..Fake::default() }, STEPS);
    }

    #[test]
    fn a_session_that_another_thread_ended_meanwhile_is_no_loss() {
        let population = Population::new([1, 2]);
        population.visit(1, |id| {
            *population.in_use[1].write() = 3;
            assert_eq!(*id, 2);
            false
        });
    }
}
