//! The log of a recording, in one total order: writes to the disk, its flushes, and the operations and
//! acknowledgements of the workload. Data only; `disk` appends to it, `cut` and `history` read it.
//!
//! **The order is the proof.** A note is written through the same file system that serves the disk, and one
//! thread serves both. So an acknowledgement follows every flush that its operation waited for, and an
//! intention precedes every write of its operation.
use crate::filesystem::FileSystem;
use crate::kill_at_syscall::KillPoint;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// One life of a session, from its creation, or the rotation that created it, to its end. Each life has its
/// own session id.
pub(crate) type Life = u64;
/// Number of one operation.
pub(crate) type Op = u64;
/// Microseconds since 1970.
pub(crate) type Micros = u64;
/// A thread of the workload, which makes one call after the other.
pub(crate) type Hand = u64;

/// Bit of an operation that has its own process. Above it is the hand's number, below it the operation's.
const OWN_PROCESS: Op = 1 << 23;

/// The number from which the operations of a hand are counted.
pub(crate) fn op_before(hand: Hand) -> Op {
    hand << 24
}

/// Marks an operation of a hand as one with its own process.
pub(crate) fn in_own_process(op: Op) -> Op {
    op | OWN_PROCESS
}

/// Whether a hand performs an operation itself, so that it dies with that hand.
pub(crate) fn dies_with(op: Op, hand: Hand) -> bool {
    op & !(OWN_PROCESS - 1) == op_before(hand)
}

/// One event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// A write request that the disk has completed.
    Write {
        /// Offset in bytes.
        offset: u64,
        /// The bytes written.
        bytes: Vec<u8>,
    },
    /// A flush: all completed writes before it survive a power cut.
    Flush,
    /// A note of the workload.
    Note {
        /// Time of the note.
        at: Micros,
        /// The note.
        note: Note,
    },
}

/// A note of the workload. Notes that end in "-ing" precede all writes of the operation, once for each
/// attempt. An operation that changes an existing session writes its note under the session's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// A life is about to begin.
    Creating {
        /// The operation.
        op: Op,
        /// The life.
        life: Life,
        /// When it expires.
        deadline: Micros,
        /// Whether the operation promises that a power cut does not undo it.
        power_safe: bool,
    },
    /// A version is about to be written.
    Saving {
        /// The operation.
        op: Op,
        /// The life.
        life: Life,
        /// The version.
        version: u32,
        /// Whether the operation promises that a power cut does not undo it.
        power_safe: bool,
    },
    /// An unchanged version is about to be made as durable as the operation promises.
    Keeping {
        /// The operation.
        op: Op,
        /// The life.
        life: Life,
        /// The version.
        version: u32,
        /// Whether the operation promises that a power cut does not undo it.
        power_safe: bool,
    },
    /// A life is about to continue under another id, as another life.
    Rotating {
        /// The operation.
        op: Op,
        /// The life.
        life: Life,
        /// The new life.
        successor: Life,
        /// When the new life expires.
        deadline: Micros,
        /// How long the old id is known as moved; 0 if it ends at once.
        grace: Micros,
        /// Whether it is a login.
        login: bool,
    },
    /// A life is about to end.
    Ending {
        /// The operation.
        op: Op,
        /// The life.
        life: Life,
    },
    /// All lives of a user are about to end.
    CuttingOff {
        /// The operation.
        op: Op,
        /// The user: the life that was created, of which the others are successors.
        user: Life,
    },
    /// The operation succeeded. From now on its promise is owed.
    Done {
        /// The operation.
        op: Op,
        /// The public id of the life that began, if one did.
        file: Option<[u8; 20]>,
    },
    /// The operation returned that the session does not exist.
    Missed {
        /// The operation.
        op: Op,
    },
    /// The process that was started for the operation has ended.
    Exited {
        /// The operation.
        op: Op,
        /// Where it was killed; `None` if it ran to its end.
        death: Option<KillPoint>,
    },
    /// The process of a hand was killed, and with it any operation in progress.
    Killed {
        /// The hand.
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
    /// The operation, if the note is of one, and its lives.
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
    /// Content of the disk before the first event: offset and bytes. Zero elsewhere.
    pub(crate) base: Vec<(u64, Vec<u8>)>,
    /// The events.
    pub(crate) events: Vec<Event>,
}

impl Recording {
    /// Writes it to a file.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let bytes = postcard::to_stdvec(self).context("encode the recording")?;
        fs::write(path, bytes).with_context(|| format!("write the recording to {}", path.display()))
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not a recording of this version.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("read the recording {}", path.display()))?;
        postcard::from_bytes(&bytes).with_context(|| format!("decode the recording {}", path.display()))
    }

    /// Number of writes, flushes and acknowledgements.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        self.events.iter().fold((0, 0, 0), |(writes, flushes, done), event| match event {
            Event::Write { .. } => (writes + 1, flushes, done),
            Event::Flush => (writes, flushes + 1, done),
            Event::Note { note: Note::Done { .. }, .. } => (writes, flushes, done + 1),
            Event::Note { .. } => (writes, flushes, done),
        })
    }
}
