//! What is owed after a cut: from the notes before it, which lives must be there, at which version at least, and which must
//! not. Pure.
//!
//! The rules, each of which restates a promise of the engine:
//!
//! 1. A life is **owed** from the moment a power-safe save of it is acknowledged, at that version or a newer one, until a
//!    relaxed save of it begins. From then on an older version may be found, or nothing, until the next power-safe save is
//!    acknowledged. A rotation owes its successor at every durability.
//! 2. It is owed no longer once a call begins that ends it, or its deadline has passed. While a rotation is under way, the
//!    old life or the new one is owed, at every instant.
//! 3. A life whose end was acknowledged is **never** found again, at any durability.
//! 4. No version is found that nobody began to write.
use crate::log::{Event, Life, Micros, Note, Op};
use std::collections::HashMap;

/// What is known of one life.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Its file's digest, once somebody was told.
    pub(crate) file: Option<[u8; 20]>,
    /// When it expires.
    pub(crate) deadline: Micros,
    /// The newest version that somebody began to write.
    pub(crate) newest: u32,
    /// The version that must have survived; `None` if none must.
    pub(crate) owed: Option<u32>,
    /// The newest version that somebody began to write without promising anything; 0 if nobody did.
    relaxed: u32,
    /// Somebody began to end it, other than by a rotation.
    pub(crate) is_ending: bool,
    /// Its end, or its rotation, was acknowledged.
    pub(crate) has_ended: bool,
    /// As which lives somebody began to let it go on.
    pub(crate) successors: Vec<Life>,
}

/// What is known at one instant.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// By life.
    pub(crate) lives: HashMap<Life, Known>,
    /// The last note's time: it was not earlier than that.
    pub(crate) not_before: Micros,
    /// The next note's time: it was not later than that.
    pub(crate) not_after: Micros,
    /// What was begun and not acknowledged.
    pending: HashMap<Op, Note>,
}

impl History {
    /// What the notes among the first `cut` events say.
    pub(crate) fn at(events: &[Event], cut: usize) -> Self {
        let mut history = Self::default();
        let (before, after) = events.split_at(cut);
        for event in before {
            if let Event::Note { at, note } = event {
                history.not_before = *at;
                history.take(note);
            }
        }
        history.not_after = after
            .iter()
            .find_map(|event| if let Event::Note { at, .. } = event { Some(*at) } else { None })
            .unwrap_or(Micros::MAX);
        history
    }

    /// The life that is filed under a digest, if somebody was told.
    pub(crate) fn life_of(&self, file: &[u8; 20]) -> Option<Life> {
        self.lives.iter().find(|(_, known)| known.file.as_ref() == Some(file)).map(|(life, _)| *life)
    }

    /// Whether a life had certainly not expired at the cut.
    pub(crate) fn was_in_time(&self, known: &Known) -> bool {
        known.deadline > self.not_after
    }

    fn take(&mut self, note: &Note) {
        match *note {
            Note::Creating { op, life, deadline, power_safe } => {
                let relaxed = u32::from(!power_safe);
                self.lives.insert(life, Known { deadline, newest: 1, relaxed, ..Known::default() });
                self.pending.insert(op, *note);
            }
            Note::Saving { op, life, version, power_safe } => {
                let known = self.under_lock(life);
                known.newest = known.newest.max(version);
                if !power_safe {
                    known.relaxed = known.relaxed.max(version);
                    known.owed = None;
                }
                self.pending.insert(op, *note);
            }
            Note::Keeping { op, life, .. } => {
                self.under_lock(life);
                self.pending.insert(op, *note);
            }
            Note::Rotating { op, life, successor, deadline } => {
                self.under_lock(life).successors.push(successor);
                self.lives.insert(successor, Known { deadline, newest: 1, ..Known::default() });
                self.pending.insert(op, *note);
            }
            Note::Ending { op, life } => {
                self.life(life).is_ending = true;
                self.pending.insert(op, *note);
            }
            Note::Done { op, file } => {
                if let Some(begun) = self.pending.remove(&op) {
                    self.acknowledge(&begun, file);
                }
            }
            Note::Missed { op } => {
                self.pending.remove(&op);
            }
            Note::Reaped { .. } | Note::Swept { .. } => {}
        }
    }

    fn acknowledge(&mut self, begun: &Note, file: Option<[u8; 20]>) {
        match *begun {
            Note::Creating { life, power_safe, .. } => {
                let known = self.life(life);
                known.file = file;
                known.owe(1, power_safe);
            }
            Note::Saving { life, version, power_safe, .. }
            | Note::Keeping { life, version, power_safe, .. } => {
                self.life(life).owe(version, power_safe);
            }
            Note::Rotating { life, successor, .. } => {
                self.life(life).has_ended = true;
                let known = self.life(successor);
                known.file = file;
                known.owe(1, true);
            }
            Note::Ending { life, .. } => self.life(life).has_ended = true,
            Note::Done { .. } | Note::Missed { .. } | Note::Reaped { .. } | Note::Swept { .. } => {}
        }
    }

    fn life(&mut self, life: Life) -> &mut Known {
        self.lives.entry(life).or_default()
    }

    /// Somebody found the life alive under its lock: whoever began to rotate it before is done, or dead, and did not
    /// remove it. From now on it is owed itself.
    fn under_lock(&mut self, life: Life) -> &mut Known {
        let known = self.life(life);
        known.successors.clear();
        known
    }
}

impl Known {
    /// A save of `version` was acknowledged. That a relaxed one began later is noted before that one was acknowledged, and
    /// maybe before this one was.
    fn owe(&mut self, version: u32, power_safe: bool) {
        if power_safe && self.relaxed <= version {
            self.owed = self.owed.max(Some(version));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Life = 9;

    fn history(notes: &[Note]) -> History {
        let events: Vec<_> =
            notes.iter().zip(1..).map(|(note, at)| Event::Note { at, note: *note }).collect();
        History::at(&events, events.len())
    }
    fn creating(op: Op, power_safe: bool) -> Note {
        Note::Creating { op, life: LIFE, deadline: 1000, power_safe }
    }
    fn saving(op: Op, version: u32, power_safe: bool) -> Note {
        Note::Saving { op, life: LIFE, version, power_safe }
    }
    fn done(op: Op) -> Note {
        Note::Done { op, file: None }
    }

    #[track_caller]
    fn check_owed(notes: &[Note], owed: Option<u32>) {
        assert_eq!(history(notes).lives[&LIFE].owed, owed);
    }

    #[test]
    fn a_life_is_owed_from_an_acknowledged_power_safe_save_until_a_relaxed_one_begins() {
        let created = [creating(1, true), done(1)];
        check_owed(&created[..1], None);
        check_owed(&created, Some(1));
        check_owed(&[&created[..], &[saving(2, 2, true)]].concat(), Some(1));
        check_owed(&[&created[..], &[saving(2, 2, true), done(2)]].concat(), Some(2));
        check_owed(&[&created[..], &[saving(2, 2, false)]].concat(), None);
        check_owed(&[&created[..], &[saving(2, 2, false), done(2), saving(3, 3, true)]].concat(), None);
        check_owed(
            &[&created[..], &[saving(2, 2, false), done(2), saving(3, 3, true), done(3)]].concat(),
            Some(3),
        );
        // The relaxed save began after the power-safe one had given back its lock, and before it could say so.
        check_owed(&[&created[..], &[saving(2, 2, true), saving(3, 3, false), done(2)]].concat(), None);
        let keeping = Note::Keeping { op: 3, life: LIFE, version: 2, power_safe: true };
        check_owed(&[&created[..], &[saving(2, 2, false), done(2), keeping, done(3)]].concat(), Some(2));
        check_owed(&[creating(1, false), done(1)], None);
    }

    #[test]
    fn a_rotation_owes_its_successor_and_ends_its_predecessor() {
        let rotating = Note::Rotating { op: 2, life: LIFE, successor: 10, deadline: 500 };
        let begun = history(&[creating(1, true), done(1), rotating]);
        assert_eq!((begun.lives[&LIFE].owed, begun.lives[&LIFE].has_ended), (Some(1), false));
        assert_eq!((&begun.lives[&LIFE].successors[..], begun.lives[&10].owed), (&[10][..], None));
        let ended = history(&[creating(1, false), done(1), rotating, done(2)]);
        assert_eq!((ended.lives[&LIFE].has_ended, ended.lives[&10].owed), (true, Some(1)));
        let missed = history(&[creating(1, true), done(1), rotating, Note::Missed { op: 2 }]);
        assert!(!missed.lives[&LIFE].has_ended);
        let survived = history(&[creating(1, true), done(1), rotating, saving(3, 2, true)]);
        assert!(survived.lives[&LIFE].successors.is_empty(), "the rotation did not remove it");
    }

    #[test]
    fn an_end_counts_when_it_is_acknowledged_and_a_debt_ends_when_it_begins() {
        let ending = Note::Ending { op: 2, life: LIFE };
        let begun = history(&[creating(1, true), done(1), ending]);
        assert_eq!((begun.lives[&LIFE].is_ending, begun.lives[&LIFE].has_ended), (true, false));
        assert!(history(&[creating(1, true), done(1), ending, done(2)]).lives[&LIFE].has_ended);
    }

    #[test]
    fn the_time_of_a_cut_lies_between_two_notes() {
        let notes = [creating(1, true), done(1), saving(2, 2, true)];
        let events: Vec<_> =
            notes.iter().zip(1..).map(|(note, at)| Event::Note { at, note: *note }).collect();
        let cut = History::at(&events, 2);
        assert_eq!((cut.not_before, cut.not_after, cut.lives[&LIFE].newest), (2, 3, 1));
        assert_eq!(History::at(&events, 3).not_after, Micros::MAX);
    }
}
