//! The mix: the life of sessions as one order of operations, for any store. Opens none, and measures nothing.
//!
//! Of 1,000 operations 900 load a session and read one entry, 80 change one entry, 10 create a session and 10 end one.
//! The n-th session is used in proportion to n to the power of -0.99, as on web sites. The number of sessions in use
//! never changes: a session that ends gives its place to one that was created.
use parking_lot::{Mutex, RwLock};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};
use std::fmt::Debug;

/// The shares of 1,000 operations; the rest creates and ends sessions, in turn.
const LOADS: u32 = 900;
const UPDATES: u32 = 80;
/// The exponent of the distribution.
pub(crate) const EXPONENT: f64 = 0.99;
/// The length of the order. All threads follow it from different places, and begin again at its end.
pub(crate) const STEPS: usize = 1 << 18;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Load,
    Update,
    /// A creation or an end: each thread does both in turn.
    Turnover,
}

/// The order of operations, each with the place of the session that it uses. It is the same for every store, and made
/// before the measurement, because a random number of this distribution takes as long as a load from memory.
#[derive(Debug)]
pub(crate) struct Order(pub(crate) Vec<(Kind, u32)>);

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
    pub(crate) fn visit(&self, place: usize, visit: impl FnOnce(&Id) -> bool) {
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
