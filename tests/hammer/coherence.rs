//! Copies in memory are never behind: no load in any process shows less than was acknowledged to any before it began.
//!
//! Mostly loads, of few sessions, nearly all from memory.
use crate::crowd::Crowd;
use crate::figures::Figures;
use crate::support::checker::{Mix, Saving};
use crate::support::process::{Parent, Worker};
use std::path::Path;
use std::time::Duration;

pub(crate) const WORKERS: &[(&str, Worker)] = &[("load and save", work)];

const CROWD: Crowd = Crowd {
    worker: WORKERS[0].0,
    have_caches: &[true, true, false, true],
    threads: 2,
    places: 200,
    mix: Mix { saves: 8, ends: 1, rotations: 1 },
    saving: Saving { safe: false, renews: false, large: false },
    sweeps: false,
};

pub(crate) fn run(dir: &Path, time: Duration) -> Figures {
    let mut figures = CROWD.run(dir, time);
    if !figures.has_faults() && figures.hits * 2 < figures.reads {
        figures.fault("the caches were not in play");
    }
    figures
}

fn work(parent: &Parent) {
    CROWD.work(parent);
}
