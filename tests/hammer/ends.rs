//! Gone is gone, and has one heir at most: rotations and logouts beside loads, saves, saves that grow, renewals and walks
//! of the sweep, on few sessions.
use crate::crowd::Crowd;
use crate::figures::Figures;
use crate::support::checker::{Mix, Saving};
use crate::support::process::{Parent, Worker};
use std::path::Path;
use std::time::Duration;

pub(crate) const WORKERS: &[(&str, Worker)] = &[("end and rotate", work)];

const CROWD: Crowd = Crowd {
    worker: WORKERS[0].0,
    have_caches: &[true, false, true, true],
    threads: 2,
    places: 24,
    mix: Mix { saves: 300, ends: 100, rotations: 100 },
    saving: Saving { safe: true, renews: true, large: false },
    sweeps: true,
};

pub(crate) fn run(dir: &Path, time: Duration) -> Figures {
    CROWD.run(dir, time)
}

fn work(parent: &Parent) {
    CROWD.work(parent);
}
