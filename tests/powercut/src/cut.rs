//! Places of power cuts, and the content of the disk after each. Both are determined by a recording, a seed and the
//! number of the state, so each state can be reproduced.
//!
//! All flushed writes are there. Of the writes since the last flush, the disk may have kept none, all, some, or some
//! sectors of some. Writes that were kept are applied in the order in which they were written.
use crate::image::Image;
use crate::log::{Event, Recording};
use crate::tally::{Kind, acknowledged};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::fmt;
use std::iter;
use std::ops::Range;

/// Which of the unflushed writes the disk has kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The disk has kept none of them.
    None,
    /// The disk has kept all of them.
    All,
    /// The disk has kept some of them.
    Some,
    /// The disk has kept some of the sectors of some of them.
    Torn,
}

/// The place of a power cut, and what the disk keeps.
#[derive(Debug)]
pub(crate) struct Cut {
    /// The number of the crash state.
    pub(crate) state: u32,
    /// The number of events before the power cut.
    pub(crate) at: usize,
    /// Which of the unflushed writes the disk keeps.
    pub(crate) kept: Kept,
    chance: StdRng,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "state {}, cut after event {}, unflushed writes kept: {:?}", self.state, self.at, self.kept)
    }
}

/// The places of a recording where power cuts are most likely to show a defect.
pub(crate) struct Places {
    events: usize,
    /// The places just after an acknowledgement, by the kind of the operation, so that rare operations are chosen as
    /// often as frequent ones.
    acknowledged: Vec<Vec<usize>>,
    written: Vec<usize>,
    crowded: Vec<usize>,
}

/// The number of unflushed writes from which on it matters which of them are kept.
const UNFLUSHED_MIN: usize = 3;

impl Places {
    /// Finds the places of a recording.
    pub(crate) fn of(recording: &Recording) -> Self {
        let events = &recording.events;
        let mut acknowledged_by_kind = vec![Vec::new(); Kind::ALL.len()];
        for (at, kind) in acknowledged(events) {
            acknowledged_by_kind[kind as usize].push(at);
        }
        acknowledged_by_kind.retain(|places| !places.is_empty());
        let (mut written, mut crowded, mut unflushed) = (Vec::new(), Vec::new(), 0);
        for (at, event) in events.iter().enumerate() {
            match event {
                Event::Write { .. } => {
                    unflushed += 1;
                    written.push(at + 1);
                }
                Event::Flush => unflushed = 0,
                Event::Note { .. } => {}
            }
            if unflushed >= UNFLUSHED_MIN {
                crowded.push(at + 1);
            }
        }
        Self { events: events.len(), acknowledged: acknowledged_by_kind, written, crowded }
    }

    /// The crash state in which the disk keeps all writes, as after a crash of the kernel.
    pub(crate) fn crash(&self, at: usize) -> Cut {
        Cut { state: 0, at: at.min(self.events), kept: Kept::All, chance: StdRng::seed_from_u64(0) }
    }

    /// One of the crash states: half of them while three writes or more are not flushed, a quarter just after an
    /// acknowledgement, an eighth just after a write, and an eighth anywhere.
    pub(crate) fn cut(&self, seed: u64, state: u32) -> Cut {
        let mut chance = StdRng::seed_from_u64(seed ^ (u64::from(state) << 32));
        let list = match chance.random_range(0..8) {
            0..4 => &self.crowded[..],
            4 | 5 if self.acknowledged.is_empty() => &[],
            4 | 5 => &self.acknowledged[chance.random_range(0..self.acknowledged.len())],
            6 => &self.written,
            _ => &[],
        };
        let at = match list.len() {
            0 => chance.random_range(0..=self.events),
            some => list[chance.random_range(0..some)],
        };
        let kept = match chance.random_range(0..20) {
            0..4 => Kept::None,
            4..6 => Kept::All,
            6..10 => Kept::Some,
            _ => Kept::Torn,
        };
        Cut { state, at, kept, chance }
    }
}

/// Builds the images of cuts, which must come in the order of their places.
pub(crate) struct Builder<'a> {
    recording: &'a Recording,
    /// The number of events whose writes are durable in the image.
    settled: usize,
}

impl<'a> Builder<'a> {
    /// Starts with the disk before the first event of the recording. Returns also its image.
    pub(crate) fn new(recording: &'a Recording) -> (Self, Image) {
        let image = Image::from_extents(recording.bytes, &recording.base);
        (Self { recording, settled: 0 }, image)
    }

    /// Builds the image that a cut leaves, and returns the number of unflushed writes. Writes to the image since the
    /// last cut are discarded.
    pub(crate) fn build(&mut self, cut: &mut Cut, image: &mut Image) -> usize {
        let mut unflushed = 0;
        image.forget_writes();
        let events = &self.recording.events;
        let flushed = events[..cut.at].iter().rposition(|event| matches!(event, Event::Flush)).unwrap_or(0);
        debug_assert!(cut.at >= self.settled, "cuts come in order");
        for event in &events[self.settled.min(flushed)..flushed] {
            if let Event::Write { offset, bytes } = event {
                image.settle(*offset, bytes);
            }
        }
        self.settled = self.settled.max(flushed);
        let share = cut.chance.random_range(0.1..0.9);
        for event in &events[flushed..cut.at] {
            let Event::Write { offset, bytes } = event else { continue };
            unflushed += 1;
            let whole = 0..bytes.len();
            let parts = match cut.kept {
                Kept::None => vec![],
                Kept::All => iter::once(whole).collect(),
                Kept::Some => {
                    if cut.chance.random_bool(share) {
                        iter::once(whole).collect()
                    } else {
                        vec![]
                    }
                }
                Kept::Torn => self.torn(*offset, bytes.len(), share, &mut cut.chance),
            };
            for part in parts {
                image.write(*offset + part.start as u64, &bytes[part]);
            }
        }
        unflushed
    }

    /// The parts of a write that the disk keeps: none, all, or some of its sectors, either those before one place or
    /// any.
    fn torn(&self, offset: u64, length: usize, share: f64, chance: &mut StdRng) -> Vec<Range<usize>> {
        let sector = self.recording.filesystem.sector_at(offset);
        let sectors = (0..length).step_by(sector).map(|start| start..length.min(start + sector));
        match chance.random_range(0..6) {
            0 => vec![],
            1 => iter::once(0..length).collect(),
            2 | 3 => sectors.take(chance.random_range(0..=length.div_ceil(sector))).collect(),
            _ => sectors.filter(|_| chance.random_bool(share)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filesystem::FileSystem;

    const SECTORS: usize = 4;
    /// The offset of the first write, after the superblock.
    const FIRST: u64 = 4096;

    fn write(sector: u64, byte: u8) -> Event {
        Event::Write { offset: FIRST + sector * 512, bytes: vec![byte; SECTORS * 512] }
    }
    fn recording() -> Recording {
        let events = vec![write(0, 1), Event::Flush, write(0, 2), write(4, 3), Event::Flush, write(8, 4)];
        Recording { filesystem: FileSystem::Ext4, bytes: FIRST + 8192, base: vec![], events }
    }
    fn built(at: usize, kept: Kept, seed: u64) -> Vec<u8> {
        let recording = recording();
        let (mut builder, mut image) = Builder::new(&recording);
        // Cuts at earlier places must not change the result.
        for at in 0..=at {
            let mut cut = Cut { state: 0, at, kept, chance: StdRng::seed_from_u64(seed) };
            builder.build(&mut cut, &mut image);
        }
        image.read(FIRST, 8192).chunks(512).map(|sector| sector[0]).collect()
    }

    #[test]
    fn what_was_flushed_is_there_and_of_the_rest_what_was_kept() {
        assert_eq!(built(1, Kept::None, 0)[..4], [0; 4]);
        assert_eq!(built(1, Kept::All, 0)[..4], [1; 4]);
        assert_eq!(built(4, Kept::None, 0)[..8], [1, 1, 1, 1, 0, 0, 0, 0]);
        assert_eq!(built(5, Kept::None, 0)[..8], [2, 2, 2, 2, 3, 3, 3, 3]);
        assert_eq!(built(6, Kept::None, 0)[8..12], [0; 4]);
        assert_eq!(built(6, Kept::All, 0)[8..12], [4; 4]);
    }

    #[test]
    fn some_writes_are_kept_whole_and_torn_ones_in_part() {
        let whole = |sectors: &[u8]| sectors.iter().all(|sector| *sector == sectors[0]);
        let some: Vec<_> = (0..200).map(|seed| built(4, Kept::Some, seed)).collect();
        assert!(some.iter().all(|disk| whole(&disk[..4]) && whole(&disk[4..8])));
        assert!(some.iter().any(|disk| disk[0] == 1 && disk[4] == 3), "a later write without an earlier one");
        let torn: Vec<_> = (0..200).map(|seed| built(4, Kept::Torn, seed)).collect();
        assert!(torn.iter().any(|disk| !whole(&disk[..4])));
        assert!(torn.iter().all(|disk| disk[..4].iter().all(|sector| [1, 2].contains(sector))));
    }

    #[test]
    fn half_of_the_cuts_are_where_three_writes_are_not_flushed() {
        let events = vec![write(0, 1), Event::Flush, write(0, 2), write(4, 3), write(8, 4), Event::Flush];
        let recording = Recording { events, ..recording() };
        let places = Places::of(&recording);
        assert_eq!(places.crowded, [5]);
        let crowded = (0..800).filter(|state| places.cut(1, *state).at == 5).count();
        assert!((400..700).contains(&crowded), "{crowded}");
    }

    #[test]
    fn a_state_can_be_had_again() {
        let places = Places::of(&recording());
        let again = |state| (places.cut(5, state).at, places.cut(5, state).kept);
        assert!((0..50).all(|state| again(state) == again(state)));
        assert!((0..50).any(|state| again(state) != again(0)));
    }
}
