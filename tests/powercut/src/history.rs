//! The promises that must hold after a power cut. The notes before it tell which sessions ("lives") must be there, with
//! which version at least, and which must not.
//!
//! A session that must be there is *owed*. Each rule restates a promise of the engine:
//!
//! 1. A life is **owed** from the moment a power-safe save of it is acknowledged, at that version or a newer one, until
//!    a relaxed save of it begins. From then on an older version or none may be found, until the next power-safe save
//!    is acknowledged. A rotation owes its successor at every durability.
//! 2. A life is no longer owed once an operation that ends it begins, or its deadline has passed. It is owed again if
//!    the process of that operation has died and a save that began after that is acknowledged. During a rotation the
//!    old life or the new one is owed, at every instant.
//! 3. A life whose end was acknowledged is **never** found again, at any durability.
//! 4. No version is found whose writing had not begun.
//! 5. A cut-off ends every life of its user, also a successor whose rotation goes on beside it. If its process died, it
//!    may take effect at any later time.
use crate::log::{Event, Life, Micros, Note, Op, dies_with};
use crate::operation::GRACE;
use std::collections::{HashMap, HashSet};

/// How a life ended, once that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its session was deleted.
    Deleted,
    /// Its session was rotated to another id.
    Rotated,
    /// The same with a grace period.
    Moved,
    /// A cut-off ended all sessions of its user: an entry in the log. The session's file stays as it was, synced or
    /// not.
    CutOff,
}

impl End {
    /// Whether the end writes to the session's file and syncs it.
    pub(crate) fn is_in_file(self) -> bool {
        self != Self::CutOff
    }

    /// The noun with which a failure names the promise.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Deleted => "end",
            Self::Rotated => "rotation",
            Self::Moved => "move",
            Self::CutOff => "cut-off",
        }
    }
}

/// What the notes say about one life: one session under one id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The public id of the session, once its creation was acknowledged.
    pub(crate) file: Option<[u8; 20]>,
    /// The time at which the session expires.
    pub(crate) deadline: Micros,
    /// The newest version whose writing has begun.
    pub(crate) newest: u32,
    /// The version that must have survived the power cut; `None` if none must.
    pub(crate) owed: Option<u32>,
    /// The newest version whose relaxed save has begun; 0 if there is none.
    relaxed: u32,
    /// Operations other than rotations that began to end the session, and are not known to have failed.
    pub(crate) endings: HashSet<Op>,
    /// Saves that found the session live, each with the ending operations that were over by then.
    survived: Vec<(Op, Vec<Op>)>,
    /// How it ended, if that was acknowledged. A deletion or a rotation of the session itself counts more than a
    /// cut-off, because it also ends the file.
    pub(crate) ended: Option<End>,
    /// The lives to which a rotation of this one has begun.
    pub(crate) successors: Vec<Life>,
    /// The life that a rotation with a grace period, and without a login, has moved to this one. The end of that life
    /// ends this one.
    predecessor: Option<Life>,
    /// Whether a rotation was acknowledged that keeps the mark of the id for longer than the workload runs.
    is_marked: bool,
    /// The user: the first of the lives from which rotations have led to this one.
    user: Life,
}

/// What is known about all lives at one instant.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// All lives, by number.
    pub(crate) lives: HashMap<Life, Known>,
    /// The time of the last note before the power cut, which was not earlier.
    pub(crate) not_before: Micros,
    /// The time of the next note, than which the power cut was not later.
    pub(crate) not_after: Micros,
    /// Operations that have begun and were not acknowledged.
    pending: HashMap<Op, Note>,
    /// Operations whose process ended before they were acknowledged.
    dead: HashSet<Op>,
    /// Cut-offs that have begun, with their users.
    cut_offs: Vec<(Op, Life)>,
    /// The users whose cut-off was acknowledged.
    cut_off: HashSet<Life>,
}

impl History {
    /// What is known after the notes among the first `cut` events.
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

    /// The life with this public id, if its creation was acknowledged.
    pub(crate) fn life_of(&self, file: &[u8; 20]) -> Option<Life> {
        self.lives.iter().find(|(_, known)| known.file.as_ref() == Some(file)).map(|(life, _)| *life)
    }

    /// Whether the session had certainly not expired at the power cut.
    pub(crate) fn was_in_time(&self, known: &Known) -> bool {
        known.deadline > self.not_after
    }

    /// Whether the end of an earlier life may have ended this one, by the marks of the ids in between.
    pub(crate) fn may_have_been_followed(&self, known: &Known) -> bool {
        let predecessors = std::iter::successors(known.predecessor, |life| self.lives.get(life)?.predecessor);
        predecessors.filter_map(|life| self.lives.get(&life)).any(|before| !before.endings.is_empty())
    }

    /// Whether the id must be reported as moved. (An end that did not wait for the lock removes the mark.)
    pub(crate) fn owes_mark(&self, known: &Known) -> bool {
        known.is_marked && known.endings.is_empty() && !self.may_have_been_followed(known)
    }

    fn take(&mut self, note: &Note) {
        match *note {
            Note::Creating { op, life, deadline, power_safe } => {
                let relaxed = u32::from(!power_safe);
                self.lives
                    .insert(life, Known { deadline, newest: 1, relaxed, user: life, ..Known::default() });
                self.pending.insert(op, *note);
            }
            Note::Saving { op, life, version, power_safe } => {
                let over: Vec<_> = self
                    .lives
                    .get(&life)
                    .map_or_else(Vec::new, |known| known.endings.intersection(&self.dead).copied().collect());
                let known = self.under_lock(life);
                if !over.is_empty() {
                    known.survived.push((op, over));
                }
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
            Note::Rotating { op, life, successor, deadline, grace, login } => {
                let known = self.under_lock(life);
                known.successors.push(successor);
                let user = known.user;
                let predecessor = (grace > 0 && !login).then_some(life);
                let endings = self.cut_offs.iter().filter(|(_, of)| *of == user).map(|(op, _)| *op).collect();
                let ended = self.cut_off.contains(&user).then_some(End::CutOff);
                let known =
                    Known { deadline, newest: 1, user, endings, ended, predecessor, ..Known::default() };
                self.lives.insert(successor, known);
                self.pending.insert(op, *note);
            }
            Note::Ending { op, life } => {
                self.life(life).endings.insert(op);
                self.pending.insert(op, *note);
            }
            Note::CuttingOff { op, user } => {
                self.cut_offs.push((op, user));
                for known in self.lives.values_mut().filter(|known| known.user == user) {
                    known.endings.insert(op);
                }
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
            Note::Exited { op, .. } => self.let_die(|of| of == op),
            Note::Killed { hand } => self.let_die(|op| dies_with(op, hand)),
            Note::Swept { .. } => {}
        }
    }

    /// The process of some operations has died. If one was a cut-off, its entry may be in the log, and take effect
    /// later.
    fn let_die(&mut self, is_dead: impl Fn(Op) -> bool) {
        let dead = self.pending.extract_if(|op, _| is_dead(*op));
        self.dead.extend(dead.filter(|(_, note)| !matches!(note, Note::CuttingOff { .. })).map(|(op, _)| op));
    }

    fn acknowledge(&mut self, begun: &Note, file: Option<[u8; 20]>) {
        match *begun {
            Note::Creating { life, power_safe, .. } => {
                let known = self.life(life);
                known.file = file;
                known.owe(1, power_safe);
            }
            Note::Saving { op, life, version, power_safe } => {
                let known = self.life(life);
                // The engine has checked at the end of the save that the file was still linked.
                if let Some(at) = known.survived.iter().position(|(saved, _)| *saved == op) {
                    let (_, over) = known.survived.swap_remove(at);
                    known.endings.retain(|ending| !over.contains(ending));
                }
                known.owe(version, power_safe);
            }
            Note::Keeping { life, version, power_safe, .. } => {
                self.life(life).owe(version, power_safe);
            }
            Note::Rotating { life, successor, grace, .. } => {
                let known = self.life(life);
                known.ended = Some(if grace > 0 { End::Moved } else { End::Rotated });
                known.is_marked = u128::from(grace) >= GRACE.as_micros();
                let known = self.life(successor);
                known.file = file;
                known.owe(1, true);
            }
            Note::Ending { life, .. } => {
                self.life(life).ended = Some(End::Deleted);
            }
            Note::CuttingOff { user, .. } => {
                self.cut_off.insert(user);
                for known in self.lives.values_mut().filter(|known| known.user == user) {
                    known.ended = known.ended.or(Some(End::CutOff));
                }
            }
            _ => {}
        }
    }

    fn life(&mut self, life: Life) -> &mut Known {
        self.lives.entry(life).or_default()
    }

    /// A save has found the session live, under its lock. So every rotation of it that began before is over, or its
    /// process has died, and it has not ended the session. From now on this life itself must survive.
    fn under_lock(&mut self, life: Life) -> &mut Known {
        let known = self.life(life);
        known.successors.clear();
        known
    }
}

impl Known {
    /// A save of `version` was acknowledged. If a relaxed save began later, this was noted before that save was
    /// acknowledged, and possibly before this note.
    fn owe(&mut self, version: u32, power_safe: bool) {
        if power_safe && self.relaxed <= version {
            self.owed = self.owed.max(Some(version));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{in_own_process, op_before};

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
    fn rotating(op: Op, life: Life, successor: Life, grace: Micros) -> Note {
        Note::Rotating { op, life, successor, deadline: 1000, grace, login: false }
    }
    fn done(op: Op) -> Note {
        Note::Done { op, file: None }
    }

    #[track_caller]
    fn check_owed(notes: &[Note], owed: Option<u32>) {
        assert_eq!(history(notes).lives[&LIFE].owed, owed);
    }

    #[test]
    fn a_session_is_owed_from_a_power_safe_save_to_a_relaxed_one() {
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
        // The relaxed save began after the power-safe one had released its lock, and before the acknowledgement was
        // noted.
        check_owed(&[&created[..], &[saving(2, 2, true), saving(3, 3, false), done(2)]].concat(), None);
        let keeping = Note::Keeping { op: 3, life: LIFE, version: 2, power_safe: true };
        check_owed(&[&created[..], &[saving(2, 2, false), done(2), keeping, done(3)]].concat(), Some(2));
        check_owed(&[creating(1, false), done(1)], None);
    }

    #[test]
    fn only_an_end_of_the_session_itself_ends_its_file() {
        let begun = [creating(1, false), done(1)];
        let rotating = |grace| rotating(2, LIFE, 10, grace);
        let cutting = |op| Note::CuttingOff { op, user: LIFE };
        for (ending, end, is_in_file) in [
            (cutting(2), End::CutOff, false),
            (Note::Ending { op: 2, life: LIFE }, End::Deleted, true),
            (rotating(0), End::Rotated, true),
            (rotating(1), End::Moved, true),
        ] {
            let ended = [&begun[..], &[ending, done(2)]].concat();
            for notes in [&ended, &[&ended[..], &[cutting(3), done(3)]].concat()] {
                let history = history(notes);
                assert_eq!(history.lives[&LIFE].ended, Some(end), "{ending:?}");
                assert_eq!(end.is_in_file(), is_in_file, "{ending:?}");
            }
        }
    }

    #[test]
    fn a_rotation_owes_its_successor_and_ends_its_predecessor() {
        let rotating = rotating(2, LIFE, 10, 0);
        let begun = history(&[creating(1, true), done(1), rotating]);
        assert_eq!((begun.lives[&LIFE].owed, begun.lives[&LIFE].ended.is_some()), (Some(1), false));
        assert_eq!((&begun.lives[&LIFE].successors[..], begun.lives[&10].owed), (&[10][..], None));
        let ended = history(&[creating(1, false), done(1), rotating, done(2)]);
        assert_eq!((ended.lives[&LIFE].ended.is_some(), ended.lives[&10].owed), (true, Some(1)));
        let missed = history(&[creating(1, true), done(1), rotating, Note::Missed { op: 2 }]);
        assert_eq!(missed.lives[&LIFE].ended, None);
        let survived = history(&[creating(1, true), done(1), rotating, saving(3, 2, true)]);
        assert!(survived.lives[&LIFE].successors.is_empty(), "the rotation did not remove it");
    }

    #[test]
    fn an_end_of_a_moved_life_may_be_that_of_its_successor() {
        let grace = u64::try_from(GRACE.as_micros()).unwrap();
        let moving =
            |op, life, login| Note::Rotating { op, life, successor: op, deadline: 500, grace, login };
        let ending = Note::Ending { op: 20, life: LIFE };
        let begun =
            [creating(1, true), done(1), moving(10, LIFE, false), done(10), moving(11, 10, false), done(11)];
        let followed = |notes: &[Note], life| {
            let history = history(notes);
            let known = &history.lives[&life];
            (history.may_have_been_followed(known), history.owes_mark(known))
        };
        assert_eq!((followed(&begun, 10), followed(&begun, 11)), ((false, true), (false, false)));
        let ended = [&begun[..], &[ending]].concat();
        assert_eq!(
            [LIFE, 10, 11].map(|life| followed(&ended, life)),
            [(false, false), (true, false), (true, false)]
        );
        let login = [creating(1, true), done(1), moving(10, LIFE, true), done(10), ending];
        assert_eq!(followed(&login, 10), (false, false), "it does not go on from a login");
        assert!(!followed(&begun[..3], LIFE).1, "not acknowledged");
    }

    #[test]
    fn an_end_counts_once_acknowledged_a_debt_until_it_begins() {
        let ending = Note::Ending { op: 2, life: LIFE };
        let begun = history(&[creating(1, true), done(1), ending]);
        assert_eq!((begun.lives[&LIFE].endings.len(), begun.lives[&LIFE].ended.is_some()), (1, false));
        assert!(history(&[creating(1, true), done(1), ending, done(2)]).lives[&LIFE].ended.is_some());
    }

    #[test]
    fn a_killed_end_is_void_once_a_later_save_is_acknowledged() {
        let (hand, ending) = (3, |op| Note::Ending { op, life: LIFE });
        let dying = op_before(hand) + 1;
        let endings = |notes: &[Note]| history(notes).lives[&LIFE].endings.len();
        let begun = [creating(1, true), done(1), ending(dying)];
        let killed = [&begun[..], &[Note::Killed { hand }]].concat();
        assert_eq!(endings(&killed), 1, "the process may have got that far");
        assert_eq!(endings(&[&killed[..], &[saving(2, 2, true)]].concat()), 1);
        assert_eq!(endings(&[&killed[..], &[saving(2, 2, true), done(2)]].concat()), 0);
        assert_eq!(endings(&[&killed[..], &[saving(2, 2, true), Note::Missed { op: 2 }]].concat()), 1);
        assert_eq!(endings(&[&begun[..], &[saving(2, 2, true), done(2)]].concat()), 1, "the life is live");
        let again = [&killed[..], &[saving(2, 2, true), ending(3), done(2)]].concat();
        assert_eq!(endings(&again), 1, "another process has begun");
        let own = in_own_process(dying);
        let reaped = [ending(own), Note::Killed { hand }, saving(2, 2, true), done(2)];
        assert_eq!(endings(&reaped), 1, "the other process may still run");
        let reaped = [ending(own), Note::Exited { op: own, death: None }, saving(2, 2, true), done(2)];
        assert_eq!(endings(&reaped), 0);
    }

    #[test]
    fn a_cut_off_ends_all_lives_of_its_user_and_no_other() {
        let rotating = |op, life, successor| rotating(op, life, successor, 0);
        let cutting = Note::CuttingOff { op: 7, user: LIFE };
        let ended = |notes: &[Note], life| {
            let known = history(notes).lives[&life].clone();
            (known.ended.is_some(), known.endings.len())
        };
        let other = Note::Creating { op: 5, life: 5, deadline: 1000, power_safe: true };
        let before = [creating(1, true), done(1), other, done(5), rotating(2, LIFE, 2), done(2)];
        let begun = [&before[..], &[cutting]].concat();
        assert_eq!([5, 2].map(|life| ended(&begun, life)), [(false, 0), (false, 1)]);
        let done_too = [&begun[..], &[done(7)]].concat();
        assert_eq!([5, 2].map(|life| ended(&done_too, life)), [(false, 0), (true, 1)]);
        // A rotation at the same time, and one that had looked at the session before.
        for notes in [&begun, &done_too] {
            let later = [&notes[..], &[rotating(3, 2, 3), done(3)]].concat();
            assert_eq!(ended(&later, 3), (notes.len() == done_too.len(), 1));
        }
        // The process of the cut-off died. The cut-off may take effect later, whatever was saved since.
        let died = [&begun[..], &[Note::Exited { op: 7, death: None }]].concat();
        let saved = Note::Saving { op: 8, life: 2, version: 2, power_safe: true };
        assert_eq!(ended(&[&died[..], &[saved, done(8)]].concat(), 2), (false, 1));
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
