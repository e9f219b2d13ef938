//! The steps of a model test's script. Four bytes encode a step, and every value of them is a valid step.
use crate::file::disk::faults::{PAGE, SHORT};
use rustix::io::Errno;

/// The faults of a call: the errno with which it fails, or the amount of its bytes that it transfers.
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
    // The call is interrupted once, and then repeated.
    Errno::INTR.raw_os_error(),
];

/// Which of the four stores on one directory performs a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::file) enum By {
    /// A store whose cache has room for all sessions.
    Cached,
    /// A store without a cache.
    Uncached,
    /// A store whose cache has room for about one session in each segment.
    SmallCache,
    /// Another store with room for all sessions, as in another process.
    AlsoCached,
}

pub(super) const ALL: [By; 4] = [By::Cached, By::Uncached, By::SmallCache, By::AlsoCached];

/// The changes of an update.
#[derive(Clone, Copy, Debug)]
pub(in crate::file) struct Update {
    pub(super) safe: bool,
    /// The size of the new text, in KiB. The session may need a larger file for it.
    pub(super) kilobytes: u8,
    /// The number of minutes by which the deadline is moved.
    pub(super) renewed_by: i16,
}

/// One line of a script. `at` is the number of a session, in the order of creation.
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
    /// A rotation with a grace period of this many minutes, with or without a login.
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
    /// A delete by token or by public id.
    End {
        by: By,
        at: u8,
    },
    /// An import under a session's id, also that of an ended session.
    BringIn {
        by: By,
        at: u8,
        safe: bool,
    },
    /// A cut-off of all sessions of a session's user, or of all sessions.
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
    /// A fault of the next operation: the call with this number fails, alone or with all later calls.
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
                // Half of the texts fit into the smallest slot. The largest need two calls to be read.
                let kilobytes = [0, 0, 1, 1, 3, 7, 15, 33][usize::from(a % 8)];
                Self::Update { by, at, update: Update { safe, kilobytes, renewed_by } }
            }
            5 => Self::Keep { by, at },
            // A third of the rotations have no grace period.
            6 => Self::Rotate { by, at, grace: if a % 3 == 0 { 0 } else { a % 10 + 1 }, logs_in: b & 2 != 0 },
            7 => Self::Delete { by, at },
            8 => Self::Advance { minutes: a },
            // A full sweep walks all shards, which takes as long as many other lines, so it is rare.
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
