//! Counts of a recording: how many operations of each kind were acknowledged, and where processes were killed. A
//! workload that did nothing breaks no promise, so these counts decide whether a result means anything.
use crate::content;
use crate::kill_at_syscall::KillPoint;
use crate::log::{Event, Life, Micros, Note, Op, dies_with};
use crate::workload::LOCK_WAIT;
use std::collections::{HashMap, HashSet};
use std::fmt;

/// Kinds of acknowledged operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A session was created.
    Create,
    /// A version was written.
    Update,
    /// A version was written that certainly needed a larger file.
    Grow,
    /// A version was made durable without a change.
    Keep,
    /// A session was rotated to another id.
    Rotate,
    /// A session was rotated with a grace period, so that its old id is known as moved.
    Move,
    /// A session was rotated with a login.
    LogIn,
    /// A session was deleted.
    Destroy,
    /// All sessions of a user were ended.
    CutOff,
    /// The same while a session of the user was rotated.
    CutOffRotation,
    /// A session was deleted after a relaxed save that certainly needed a larger file.
    DestroyGrown,
    /// A session was deleted that a rotation with a grace period had moved.
    DestroyMoved,
    /// A session was deleted after a process had been killed while it deleted the session.
    DestroyAgain,
    /// A session was deleted while a save held its lock for longer than the wait limit.
    DestroyPassing,
}

impl Kind {
    /// All kinds.
    pub(crate) const ALL: [Self; 14] = [
        Self::Create,
        Self::Update,
        Self::Grow,
        Self::Keep,
        Self::Rotate,
        Self::Move,
        Self::LogIn,
        Self::Destroy,
        Self::CutOff,
        Self::CutOffRotation,
        Self::DestroyGrown,
        Self::DestroyMoved,
        Self::DestroyAgain,
        Self::DestroyPassing,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Grow => "grow",
            Self::Keep => "keep",
            Self::Rotate => "rotate",
            Self::Move => "move",
            Self::LogIn => "login by a moved id",
            Self::Destroy => "destroy",
            Self::CutOff => "cut-off",
            Self::CutOffRotation => "cut-off beside a rotation",
            Self::DestroyGrown => "destroy grown",
            Self::DestroyMoved => "destroy moved",
            Self::DestroyAgain => "destroy again",
            Self::DestroyPassing => "destroy overtaking",
        }
    }
}

/// The acknowledgements among events: the number of the event before which each was noted, and its kind.
pub(crate) fn acknowledged(events: &[Event]) -> Vec<(usize, Kind)> {
    let mut reader = Reader::default();
    let take = |(at, event): (usize, &Event)| match event {
        Event::Note { at: when, note } => reader.take(*when, note).map(|kind| (at + 1, kind)),
        _ => None,
    };
    events.iter().enumerate().filter_map(take).collect()
}

#[derive(Default)]
struct Reader {
    pending: HashMap<Op, (Micros, Note)>,
    /// The lives that a process was deleting when it was killed.
    half_ended: HashSet<Life>,
    /// The number of bytes for which the file of each life has had room so far.
    room: HashMap<Life, usize>,
    /// The lives whose last save was relaxed and needed a larger file.
    grown: HashSet<Life>,
    /// The lives that a rotation with a grace period has begun.
    moved: HashSet<Life>,
    /// The user of each life that a rotation has begun: the first of the lives from which rotations have led to it.
    users: HashMap<Life, Life>,
}

impl Reader {
    /// The kind of the operation that the note acknowledges; `None` if it acknowledges none.
    fn take(&mut self, when: Micros, note: &Note) -> Option<Kind> {
        match *note {
            Note::Done { op, .. } => {
                self.pending.remove(&op).map(|(begun, note)| self.kind(begun, when, &note))
            }
            Note::Missed { op } => self.pending.remove(&op).and(None),
            Note::Exited { op, .. } => self.cut_short(|pending| pending == op),
            Note::Killed { hand } => self.cut_short(|pending| dies_with(pending, hand)),
            Note::Swept { .. } => None,
            Note::Rotating { op, life, successor, .. } => {
                self.users.insert(successor, self.user_of(life));
                self.pending.insert(op, (when, *note));
                None
            }
            Note::Creating { op, .. }
            | Note::Saving { op, .. }
            | Note::Keeping { op, .. }
            | Note::Ending { op, .. }
            | Note::CuttingOff { op, .. } => {
                self.pending.insert(op, (when, *note));
                None
            }
        }
    }

    fn user_of(&self, life: Life) -> Life {
        self.users.get(&life).copied().unwrap_or(life)
    }

    /// Handles operations that have ended with their process, without an acknowledgement: notes the lives that they
    /// were deleting or rotating.
    fn cut_short(&mut self, is_dead: impl Fn(Op) -> bool) -> Option<Kind> {
        for (_, (_, note)) in self.pending.extract_if(|op, _| is_dead(*op)) {
            if let Note::Ending { life, .. } | Note::Rotating { life, .. } = note {
                self.half_ended.insert(life);
            }
        }
        None
    }

    fn kind(&mut self, begun: Micros, done: Micros, note: &Note) -> Kind {
        match *note {
            Note::Saving { life, version, power_safe, .. } => {
                // A record takes at most this many bytes more than its body. A file has room for two of them.
                const MORE: usize = 512;
                let body = content::length(life, version);
                let room = self.room.entry(life).or_insert_with(|| room_for(content::length(life, 1) + MORE));
                let grows = room_for(body) > *room;
                *room = room_for(body + MORE).max(*room);
                if grows && !power_safe {
                    self.grown.insert(life);
                } else {
                    self.grown.remove(&life);
                }
                if grows { Kind::Grow } else { Kind::Update }
            }
            Note::Keeping { .. } => Kind::Keep,
            Note::Rotating { login: true, .. } => Kind::LogIn,
            Note::Rotating { grace: 0, .. } => Kind::Rotate,
            Note::Rotating { successor, .. } => {
                self.moved.insert(successor);
                Kind::Move
            }
            Note::CuttingOff { user, .. } => {
                let rotates = |(since, pending): &(Micros, Note)| {
                    matches!(*pending, Note::Rotating { life, .. } if self.user_of(life) == user)
                        && *since <= begun
                };
                if self.pending.values().any(rotates) { Kind::CutOffRotation } else { Kind::CutOff }
            }
            Note::Ending { life, .. } => {
                let waited = u128::from(done - begun) >= LOCK_WAIT.as_micros();
                let held_since = |(since, held): &(Micros, Note)| {
                    matches!(*held, Note::Saving { life: held, .. } if held == life) && *since <= begun
                };
                if waited && self.pending.values().any(held_since) {
                    Kind::DestroyPassing
                } else if self.half_ended.contains(&life) {
                    Kind::DestroyAgain
                } else if self.grown.contains(&life) {
                    Kind::DestroyGrown
                } else if self.moved.contains(&life) {
                    Kind::DestroyMoved
                } else {
                    Kind::Destroy
                }
            }
            _ => Kind::Create,
        }
    }
}

fn room_for(bytes: usize) -> usize {
    bytes.next_power_of_two().max(2048)
}

/// The counts of some recordings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    operations: [usize; Kind::ALL.len()],
    deaths: [usize; KillPoint::ALL.len()],
    survivors: usize,
    swept: u64,
    swept_marks: u64,
}

impl Tally {
    /// The counts of a recording.
    pub(crate) fn of(events: &[Event]) -> Self {
        let mut tally = Self::default();
        for (_, kind) in acknowledged(events) {
            tally.operations[kind as usize] += 1;
        }
        for event in events {
            match event {
                Event::Note { note: Note::Exited { death: Some(death), .. }, .. } => {
                    tally.deaths[*death as usize] += 1;
                }
                Event::Note { note: Note::Exited { death: None, .. }, .. } => tally.survivors += 1,
                Event::Note { note: Note::Swept { removed, moved }, .. } => {
                    tally.swept += removed;
                    tally.swept_marks += moved;
                }
                _ => {}
            }
        }
        tally
    }

    /// Adds the counts of another recording.
    pub(crate) fn add(&mut self, other: &Self) {
        self.operations.iter_mut().zip(other.operations).for_each(|(sum, more)| *sum += more);
        self.deaths.iter_mut().zip(other.deaths).for_each(|(sum, more)| *sum += more);
        self.survivors += other.survivors;
        self.swept += other.swept;
        self.swept_marks += other.swept_marks;
    }

    /// The required events that have not happened. Whether a deletion meets another one, or a save, is a matter of
    /// chance, so those events are not required.
    pub(crate) fn missing(&self) -> Vec<String> {
        let operations = Kind::ALL.into_iter().take(12).filter(|kind| self.operations[*kind as usize] == 0);
        let deaths = KillPoint::ALL.into_iter().filter(|death| self.deaths[*death as usize] == 0);
        operations
            .map(|kind| format!("no {} was acknowledged", kind.name()))
            .chain(deaths.map(|death| format!("no process was killed at {death}")))
            .chain((self.swept == 0).then(|| "no expired session was swept".to_owned()))
            .chain((self.swept_marks == 0).then(|| "no mark of a moved id was swept".to_owned()))
            .collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operations = Kind::ALL.map(|kind| format!("{} {}", self.operations[kind as usize], kind.name()));
        let deaths = KillPoint::ALL.map(|death| format!("{} {death}", self.deaths[death as usize]));
        let (operations, deaths) = (operations.join(", "), deaths.join(", "));
        write!(
            f,
            "{operations}; killed at {deaths}, not killed {}; {} swept, {} marks",
            self.survivors, self.swept, self.swept_marks
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(notes: &[(Micros, Note)], expected: &[Kind]) {
        let events: Vec<_> = notes.iter().map(|(at, note)| Event::Note { at: *at, note: *note }).collect();
        let kinds: Vec<_> = acknowledged(&events).into_iter().map(|(_, kind)| kind).collect();
        assert_eq!(kinds, expected);
    }
    fn ending(op: Op) -> Note {
        Note::Ending { op, life: 7 }
    }
    fn saving(op: Op, version: u32) -> Note {
        Note::Saving { op, life: 7, version, power_safe: true }
    }
    fn done(op: Op) -> Note {
        Note::Done { op, file: None }
    }

    #[test]
    fn an_end_is_told_by_whom_it_met() {
        let creating = Note::Creating { op: 1, life: 7, deadline: 9, power_safe: true };
        check(&[(1, creating), (2, done(1)), (3, ending(2)), (4, done(2))], &[Kind::Create, Kind::Destroy]);
        let died = Note::Exited { op: 1, death: Some(KillPoint::Fsync) };
        check(&[(1, ending(1)), (2, died), (3, ending(2)), (4, done(2))], &[Kind::DestroyAgain]);
        let passed = [(1, saving(1, 2)), (2, ending(2)), (70_000, done(2)), (90_000, Note::Missed { op: 1 })];
        check(&passed, &[Kind::DestroyPassing]);
        check(&[(1, saving(1, 2)), (2, ending(2)), (9, done(2))], &[Kind::Destroy]);
    }

    #[test]
    fn a_cut_off_within_a_rotation_of_its_user_is_told_from_others() {
        let rotating =
            |op, life, successor| Note::Rotating { op, life, successor, deadline: 9, grace: 0, login: false };
        let cutting = |op, user| Note::CuttingOff { op, user };
        let began = [(1, rotating(1, 7, 8)), (2, done(1)), (3, rotating(2, 8, 9))];
        let (inside, other) = ([(4, cutting(3, 7)), (5, done(3))], [(4, cutting(3, 5)), (5, done(3))]);
        check(&[&began[..], &inside].concat(), &[Kind::Rotate, Kind::CutOffRotation]);
        check(&[&began[..], &other].concat(), &[Kind::Rotate, Kind::CutOff]);
        check(&[&began[..2], &inside].concat(), &[Kind::Rotate, Kind::CutOff]);
        let after = [(3, cutting(3, 7)), (4, rotating(2, 8, 9)), (5, done(3))];
        check(&[&began[..2], &after].concat(), &[Kind::Rotate, Kind::CutOff]);
    }

    #[test]
    fn a_save_grows_the_first_time_it_is_larger() {
        let large = content::longer_than(10_000, 7, 1).unwrap();
        let saves = [(1, saving(1, large)), (2, done(1)), (3, saving(2, large)), (4, done(2))];
        check(&saves, &[Kind::Grow, Kind::Update]);
    }

    #[test]
    fn an_end_after_a_relaxed_growth_is_told_from_others() {
        let large = content::longer_than(10_000, 7, 1).unwrap();
        let grow = |power_safe| Note::Saving { op: 1, life: 7, version: large, power_safe };
        let ended = [(2, done(1)), (3, ending(2)), (4, done(2))];
        check(&[&[(1, grow(false))], &ended[..]].concat(), &[Kind::Grow, Kind::DestroyGrown]);
        check(&[&[(1, grow(true))], &ended[..]].concat(), &[Kind::Grow, Kind::Destroy]);
    }

    #[test]
    fn a_recording_of_nothing_misses_everything() {
        assert_eq!(Tally::default().missing().len(), 12 + KillPoint::ALL.len() + 2);
        let mut tally =
            Tally::of(&[Event::Note { at: 1, note: saving(1, 2) }, Event::Note { at: 2, note: done(1) }]);
        tally.add(&tally.clone());
        assert_eq!(tally.operations[Kind::Update as usize], 2);
        assert!(!tally.missing().contains(&"no update was acknowledged".to_owned()));
    }
}
