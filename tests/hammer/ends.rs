//! An ended session stays ended and has at most one successor: rotations and logouts beside loads, saves,
//! saves that grow, renewals and sweeps, on a few sessions.
use crate::figures::Figures;
use crate::support::checker::{Mix, Saving};
use crate::support::process::{Parent, Worker};
use crate::workers::Workers;
use std::path::Path;
use std::time::Duration;

pub(crate) const WORKERS: &[(&str, Worker)] = &[("end and rotate", work)];

const CHECKERS: Workers = Workers {
    worker: WORKERS[0].0,
    have_caches: &[true, false, true, true],
    threads: 2,
    places: 24,
    mix: Mix { saves: 300, ends: 100, rotations: 100 },
    saving: Saving { safe: true, renews: true, large: false },
    sweeps: true,
};

pub(crate) fn run(dir: &Path, time: Duration) -> Figures {
    CHECKERS.run(dir, time)
}

fn work(parent: &Parent) {
    CHECKERS.work(parent);
}
