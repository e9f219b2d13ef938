//! Cache coherence: no load in any process returns less than was acknowledged to any process before the load
//! began.
//!
//! Mostly loads of a few sessions, nearly all answered from memory.
use crate::figures::Figures;
use crate::support::checker::{Mix, Saving};
use crate::support::process::{Parent, Worker};
use crate::workers::Workers;
use std::path::Path;
use std::time::Duration;

pub(crate) const WORKERS: &[(&str, Worker)] = &[("load and save", work)];

const CHECKERS: Workers = Workers {
    worker: WORKERS[0].0,
    have_caches: &[true, true, false, true],
    threads: 2,
    places: 200,
    mix: Mix { saves: 8, ends: 1, rotations: 1 },
    saving: Saving { safe: false, renews: false, large: false },
    sweeps: false,
};

pub(crate) fn run(dir: &Path, time: Duration) -> Figures {
    let mut figures = CHECKERS.run(dir, time);
    if !figures.has_faults() && figures.hits * 2 < figures.reads {
        figures.fault("the caches answered no load");
    }
    figures
}

fn work(parent: &Parent) {
    CHECKERS.work(parent);
}
