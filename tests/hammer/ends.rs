//! An ended session stays ended and has at most one successor: rotations and logouts beside loads, saves,
//! saves that grow, renewals and sweeps, on a few sessions.
use crate::figures::Figures;
use crate::support::checker::{Mix, Saving};
use crate::support::process::{Parent, Worker};
use crate::workers::{Counters, Workers};
use std::path::Path;
use std::time::Duration;

trials! {
    an_ended_session_stays_ended_and_has_at_most_one_successor,
}

pub(crate) const WORKERS: &[(&str, Worker)] = &[("end and rotate", work)];

const CHECKERS: Workers = Workers {
    worker: WORKERS[0].0,
    have_caches: &[true, false, true, true],
    counters: Counters::Shared,
    threads: 2,
    places: 24,
    mix: Mix { saves: 300, ends: 100, rotations: 100 },
    steps_min: 100,
    saving: Saving { safe: true, renews: true, large: false },
    sweeps: true,
};

fn an_ended_session_stays_ended_and_has_at_most_one_successor(dir: &Path, time: Duration) -> Figures {
    CHECKERS.run(dir, time)
}

fn work(parent: &Parent) {
    CHECKERS.work(parent);
}
