//! The steps of a model test's script. Four bytes encode a step, and every value of them is a valid step.
use crate::file::disk::faults::{PAGE, SHORT};
use rustix::io::Errno;

/// The error of a call that fails, or how much of its work it does.
pub(super) const FAULTS: [i32; 10] = [
    Errno::IO.raw_os_error(),
    Errno::NOSPC.raw_os_error(),
    Errno::DQUOT.raw_os_error(),
    Errno::MFILE.raw_os_error(),
    Errno::ACCESS.raw_os_error(),
    Errno::ROFS.raw_os_error(),
    Errno::NOMEM.raw_os_error(),
    SHORT,
    PAGE,
    // Once only: it is tried again until it comes to something.
    Errno::INTR.raw_os_error(),
];

/// Which of the four stores on one directory carries out a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::file) enum By {
    /// Its cache holds all sessions.
    Cached,
    /// It has no cache.
    Uncached,
    /// Its cache holds about one session in each part.
    SmallCache,
    /// Its cache holds all sessions; it stands for another process.
    AlsoCached,
}

pub(super) const ALL: [By; 4] = [By::Cached, By::Uncached, By::SmallCache, By::AlsoCached];

/// The changes that an update makes.
#[derive(Clone, Copy, Debug)]
pub(in crate::file) struct Update {
    pub(super) safe: bool,
    /// The size of the new text, which may need a larger file.
    pub(super) kilobytes: u8,
    /// By how many minutes the deadline moves.
    pub(super) renewed_by: i16,
}

/// One line of a script. `at` is a session, by the order in which they were made.
#[derive(Clone, Copy, Debug)]
pub(in crate::file) enum Step {
    Create {
        by: By,
        safe: bool,
        minutes: u8,
    },
    Load {
        by: By,
        at: u8,
    },
    Update {
        by: By,
        at: u8,
        update: Update,
    },
    Keep {
        by: By,
        at: u8,
    },
    /// With a grace period of this many minutes, and with a login or without.
    Rotate {
        by: By,
        at: u8,
        grace: u8,
        logs_in: bool,
    },
    Delete {
        by: By,
        at: u8,
    },
    /// By its file.
    End {
        by: By,
        at: u8,
    },
    /// By its file; also one that was ended.
    BringIn {
        by: By,
        at: u8,
        safe: bool,
    },
    /// All sessions of the user of a session, or all.
    CutOff {
        by: By,
        at: u8,
        all: bool,
    },
    Advance {
        minutes: u8,
    },
    SetBack {
        minutes: u8,
    },
    Sweep {
        by: By,
        full: bool,
    },
    Reopen {
        by: By,
    },
    /// The next operation's call of this number fails, or it and all that follow.
    Fail {
        call: u8,
        fault: u8,
        for_good: bool,
    },
}

impl From<[u8; 4]> for Step {
    fn from([what, at, a, b]: [u8; 4]) -> Self {
        let by = ALL[usize::from(b & 1 | b >> 6 & 2)];
        let safe = b & 2 != 0;
        match what % 16 {
            0 => Self::Create { by, safe, minutes: a },
            1 | 2 => Self::Load { by, at },
            3 | 4 => {
                let renewed_by = match b >> 2 & 3 {
                    1 => 10,
                    2 => -i16::from(a),
                    _ => 0,
                };
                // One in two fits into the smallest slot; some take two calls to be read.
                let kilobytes = [0, 0, 1, 1, 3, 7, 15, 33][usize::from(a % 8)];
                Self::Update { by, at, update: Update { safe, kilobytes, renewed_by } }
            }
            5 => Self::Keep { by, at },
            // A third of them without a grace period.
            6 => Self::Rotate { by, at, grace: if a % 3 == 0 { 0 } else { a % 10 + 1 }, logs_in: b & 2 != 0 },
            7 => Self::Delete { by, at },
            8 => Self::Advance { minutes: a },
            // All shards are walked, which takes as long as many other lines.
            9 => Self::Sweep { by, full: b & 0x1e == 2 },
            10 => Self::Reopen { by },
            12 => Self::CutOff { by, at, all: a >= 200 },
            11 => Self::Fail { call: a % 40, fault: b, for_good: a >= 200 },
            13 => Self::End { by, at },
            14 => Self::BringIn { by, at, safe },
            _ => Self::SetBack { minutes: a % 100 },
        }
    }
}
