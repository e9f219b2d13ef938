//! The log of a recording, in one total order: writes to the disk, its flushes, and the operations and acknowledgements
//! of the workload. Data only; `disk` appends to it, `cut` and `history` read it.
//!
//! **The order is the proof.** A note is written through the same file system that serves the disk, and one thread
//! serves both. So an acknowledgement follows every flush that its operation waited for, and an intention precedes
//! every write of its operation.
use crate::filesystem::FileSystem;
use crate::kill_at_syscall::KillPoint;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// One life of a session, from its creation, or the rotation that created it, to its end. Each life has its own session
/// id.
pub(crate) type Life = u64;
/// The number of an operation.
pub(crate) type Op = u64;
/// Microseconds since 1970.
pub(crate) type Micros = u64;
/// A thread of the workload, which makes one call after the other.
pub(crate) type Hand = u64;

/// The bit in the number of an operation that has a process of its own. The bits above are the number of the hand,
/// those below count its operations.
const OWN_PROCESS: Op = 1 << 23;

/// The number after which the operations of a hand are counted.
pub(crate) fn op_before(hand: Hand) -> Op {
    hand << 24
}

/// The number of an operation of a hand, with the bit for a process of its own.
pub(crate) fn in_own_process(op: Op) -> Op {
    op | OWN_PROCESS
}

/// Whether an operation runs in the process of this hand, so that it dies with the hand.
pub(crate) fn dies_with(op: Op, hand: Hand) -> bool {
    op & !(OWN_PROCESS - 1) == op_before(hand)
}

/// An event of a recording.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// A write request that the disk has completed.
    Write {
        /// The offset of the write, in bytes.
        offset: u64,
        /// The bytes that were written.
        bytes: Vec<u8>,
    },
    /// A flush: all completed writes before it survive a power cut.
    Flush,
    /// A note that the workload has written.
    Note {
        /// The time of the note.
        at: Micros,
        /// The contents of the note.
        note: Note,
    },
}

/// A note of the workload. A note whose name ends in "-ing" is written before the operation writes anything, once for
/// each attempt. An operation that changes an existing session writes its note under the session's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// A session is about to be created.
    Creating {
        /// The number of the operation.
        op: Op,
        /// The number of the life.
        life: Life,
        /// The time at which the session expires.
        deadline: Micros,
        /// Whether the operation promises that a power cut does not undo it.
        power_safe: bool,
    },
    /// A version is about to be written.
    Saving {
        /// The number of the operation.
        op: Op,
        /// The number of the life.
        life: Life,
        /// The number of the version.
        version: u32,
        /// Whether the operation promises that a power cut does not undo it.
        power_safe: bool,
    },
    /// An unchanged version is about to be made as durable as the operation promises.
    Keeping {
        /// The number of the operation.
        op: Op,
        /// The number of the life.
        life: Life,
        /// The number of the version.
        version: u32,
        /// Whether the operation promises that a power cut does not undo it.
        power_safe: bool,
    },
    /// A session is about to get another id, and so another life.
    Rotating {
        /// The number of the operation.
        op: Op,
        /// The number of the life.
        life: Life,
        /// The number of the new life.
        successor: Life,
        /// When the new life expires.
        deadline: Micros,
        /// How long the old id is known as moved; 0 if it ends at once.
        grace: Micros,
        /// Whether it is a login.
        login: bool,
    },
    /// A session is about to be ended.
    Ending {
        /// The number of the operation.
        op: Op,
        /// The number of the life.
        life: Life,
    },
    /// All sessions of a user are about to be ended.
    CuttingOff {
        /// The number of the operation.
        op: Op,
        /// The user: the life that was created, of which the others are successors.
        user: Life,
    },
    /// The operation has succeeded. From now on its promise must be kept.
    Done {
        /// The number of the operation.
        op: Op,
        /// The public id of the life that began, if one did.
        file: Option<[u8; 20]>,
    },
    /// The operation has returned that the session does not exist.
    Missed {
        /// The number of the operation.
        op: Op,
    },
    /// The process that was started for the operation has ended.
    Exited {
        /// The number of the operation.
        op: Op,
        /// Where it was killed; `None` if it ran to its end.
        death: Option<KillPoint>,
    },
    /// The process of a hand was killed, and with it any operation in progress.
    Killed {
        /// The number of the hand, a thread of the workload.
        hand: Hand,
    },
    /// A reaper has swept.
    Swept {
        /// Number of expired sessions that it removed.
        removed: u64,
        /// Number of marks of moved ids that it removed.
        moved: u64,
    },
}

impl Note {
    /// The operation that the note is about, if there is one, and the lives in it.
    pub(crate) fn about(&self) -> (Option<Op>, Vec<Life>) {
        match *self {
            Self::Creating { op, life, .. }
            | Self::Saving { op, life, .. }
            | Self::Keeping { op, life, .. }
            | Self::Ending { op, life } => (Some(op), vec![life]),
            Self::Rotating { op, life, successor, .. } => (Some(op), vec![life, successor]),
            Self::CuttingOff { op, user } => (Some(op), vec![user]),
            Self::Done { op, .. } | Self::Missed { op } | Self::Exited { op, .. } => (Some(op), vec![]),
            Self::Killed { .. } | Self::Swept { .. } => (None, vec![]),
        }
    }
}

/// A recorded workload on a disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Recording {
    /// The file system on the disk.
    pub(crate) filesystem: FileSystem,
    /// The disk's size.
    pub(crate) bytes: u64,
    /// The bytes of the disk before the first event, with their offsets. All other bytes are zero.
    pub(crate) base: Vec<(u64, Vec<u8>)>,
    /// The events.
    pub(crate) events: Vec<Event>,
}

impl Recording {
    /// Writes the recording to a file.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let bytes = postcard::to_stdvec(self).context("encode the recording")?;
        fs::write(path, bytes).with_context(|| format!("write the recording to {}", path.display()))
    }

    /// Reads a file that [`save`](Self::save) has written.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not a recording of this version.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("read the recording {}", path.display()))?;
        postcard::from_bytes(&bytes).with_context(|| format!("decode the recording {}", path.display()))
    }

    /// The numbers of writes, of flushes and of acknowledgements.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        self.events.iter().fold((0, 0, 0), |(writes, flushes, done), event| match event {
            Event::Write { .. } => (writes + 1, flushes, done),
            Event::Flush => (writes, flushes + 1, done),
            Event::Note { note: Note::Done { .. }, .. } => (writes, flushes, done + 1),
            Event::Note { .. } => (writes, flushes, done),
        })
    }
}
