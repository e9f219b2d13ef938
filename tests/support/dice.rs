//! Pseudo-random numbers for tests.
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

/// The same seed gives the same sequence.
pub(crate) struct Dice {
    seed: u64,
    rolled: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, rolled: 0 }
    }

    /// One of the integers 0 to `sides - 1`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.rolled += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, self.rolled).hash(&mut hasher);
        hasher.finish() % sides
    }

    /// The same, as an index.
    pub(crate) fn below(&mut self, sides: usize) -> usize {
        usize::try_from(self.roll(sides as u64)).expect("below a usize")
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.roll(256).to_le_bytes()[0]
    }

    /// Busy-waits for up to `micros_max` microseconds: a sleep takes longer than an update.
    pub(crate) fn pause(&mut self, micros_max: u64) {
        let until = Instant::now() + Duration::from_micros(self.roll(micros_max + 1));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }
}

#[test]
fn the_dice_reach_every_side() {
    let mut dice = Dice::new(1);
    let mut sides = [0; 6];
    for _ in 0..600 {
        sides[dice.below(6)] += 1;
    }
    assert!(sides.iter().all(|count| *count > 50), "{sides:?}");
}
