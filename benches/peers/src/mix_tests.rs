//! The mix has the stated shares, and notices a store that loses or revives sessions.
//!
//! The tests are here because `benches/mix.rs`, which includes the mix as well, has no test harness.
use crate::mix::{Client, EXPONENT, Kind, Order, Population, STEPS};
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
        assert!((share / expected - 1.0).abs() < 0.05, "{ranks:?}: {share}, where {expected} is expected");
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
