//! What happened, in one total order: what was written to the disk, when it was flushed, and what the workload did and was
//! told. Data only; `disk` appends to it, `cut` and `history` read it.
//!
//! **The order is the proof.** A note is written through the same file system that serves the disk, and one thread serves
//! both. So an acknowledgement stands behind every flush that its call waited for, and an intention before every write
//! that its call made.
use crate::doomed::Death;
use crate::filesystem::FileSystem;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// One life of a session, from its creation, or the rotation that began it, to its end. Each has an id of its own.
pub(crate) type Life = u64;
/// One call of the engine.
pub(crate) type Op = u64;
/// Microseconds since 1970.
pub(crate) type Micros = u64;
/// One who makes one call after the other: a thread of the workload.
pub(crate) type Hand = u64;

/// Bit of a call that has a process of its own. Above it is the hand's number, below it that of the call.
const OWN_PROCESS: Op = 1 << 23;

/// What the calls of a hand are counted from.
pub(crate) fn op_before(hand: Hand) -> Op {
    hand << 24
}

/// The call of a hand that a process of its own is to make.
pub(crate) fn in_own_process(op: Op) -> Op {
    op | OWN_PROCESS
}

/// Whether a hand makes a call itself, and it dies with that hand.
pub(crate) fn dies_with(op: Op, hand: Hand) -> bool {
    op & !(OWN_PROCESS - 1) == op_before(hand)
}

/// One thing that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The disk was told to write, and said that it had.
    Write {
        /// Where, in bytes.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// The disk was told to bring all that it had said it had written to where a power cut does not reach it.
    Flush,
    /// The workload said what it does.
    Note {
        /// When it was said.
        at: Micros,
        /// What was said.
        note: Note,
    },
}

/// What the workload says. What begins with "-ing" is said before anything is written, each time the call tries; whoever
/// changes a session that is there says so under its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// A life is to begin.
    Creating {
        /// The call.
        op: Op,
        /// The life.
        life: Life,
        /// When it expires.
        deadline: Micros,
        /// Whether the call promises that a power cut does not undo it.
        power_safe: bool,
    },
    /// A version is to be written.
    Saving {
        /// The call.
        op: Op,
        /// Whose.
        life: Life,
        /// Which one.
        version: u32,
        /// Whether the call promises that a power cut does not undo it.
        power_safe: bool,
    },
    /// A version is to stay as it is, and to be made as safe as the call promises.
    Keeping {
        /// The call.
        op: Op,
        /// Whose.
        life: Life,
        /// Which one.
        version: u32,
        /// Whether the call promises that a power cut does not undo it.
        power_safe: bool,
    },
    /// A life is to go on under another id, as another life.
    Rotating {
        /// The call.
        op: Op,
        /// Whose.
        life: Life,
        /// As which.
        successor: Life,
        /// When that expires.
        deadline: Micros,
    },
    /// A life is to end.
    Ending {
        /// The call.
        op: Op,
        /// Whose.
        life: Life,
    },
    /// The call returned, and had done it. From now on what it promises is owed.
    Done {
        /// The call.
        op: Op,
        /// The file of the life that began, if one did.
        file: Option<[u8; 20]>,
    },
    /// The call returned, and said that there was no such session.
    Missed {
        /// The call.
        op: Op,
    },
    /// The process that was made for the call is no more.
    ReaperStats {
        /// The call.
        op: Op,
        /// Where it died; `None` if it came to its end.
        death: Option<Death>,
    },
    /// The process of a hand is no more, nor is any call that it was making.
    Killed {
        /// The hand.
        hand: Hand,
    },
    /// A reaper has swept.
    Swept {
        /// How many sessions that had expired it removed.
        removed: u64,
    },
}

impl Note {
    /// The call, if it is one's, and the lives that it is about.
    pub(crate) fn about(&self) -> (Option<Op>, Vec<Life>) {
        match *self {
            Self::Creating { op, life, .. }
            | Self::Saving { op, life, .. }
            | Self::Keeping { op, life, .. }
            | Self::Ending { op, life } => (Some(op), vec![life]),
            Self::Rotating { op, life, successor, .. } => (Some(op), vec![life, successor]),
            Self::Done { op, .. } | Self::Missed { op } | Self::ReaperStats { op, .. } => (Some(op), vec![]),
            Self::Killed { .. } | Self::Swept { .. } => (None, vec![]),
        }
    }
}

/// A workload on a disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Recording {
    /// What the disk was formatted with.
    pub(crate) filesystem: FileSystem,
    /// The disk's size.
    pub(crate) bytes: u64,
    /// What was on the disk before the first event: where, and what. Zero elsewhere.
    pub(crate) base: Vec<(u64, Vec<u8>)>,
    /// What happened.
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
    /// The file cannot be read, or is no recording of this version.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("read the recording {}", path.display()))?;
        postcard::from_bytes(&bytes).with_context(|| format!("decode the recording {}", path.display()))
    }

    /// How many writes, flushes and acknowledgements there are.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        self.events.iter().fold((0, 0, 0), |(writes, flushes, done), event| match event {
            Event::Write { .. } => (writes + 1, flushes, done),
            Event::Flush => (writes, flushes + 1, done),
            Event::Note { note: Note::Done { .. }, .. } => (writes, flushes, done + 1),
            Event::Note { .. } => (writes, flushes, done),
        })
    }
}
