//! Random damage to a session file: no changed, missing or added byte is ever served as data, and any damaged file can
//! be saved over or deleted without a panic.
use crate::figures::Figures;
use crate::rounds::Rounds;
use crate::support::dice::Dice;
use crate::support::victim::{End, PREFIX, SLOT_MIN, Victim};
use std::path::Path;
use std::time::Duration;
use tempfile::tempdir_in;

trials! {
    a_damaged_file_serves_one_of_its_versions_or_nothing,
}

/// Damages a file of two versions at random: bits, bytes, sectors and slots are changed, lost, moved, or copied from
/// another session file.
fn damaged_at_random(dice: &mut Dice, whole: &[u8], foreign: &[u8]) -> Vec<u8> {
    let mut file = whole.to_vec();
    for _ in 0..=dice.roll(3) {
        let length = file.len();
        // A random offset, mostly in one of the two versions.
        let place = |dice: &mut Dice| match dice.roll(4) {
            0 => dice.below(length),
            _ => (dice.below(2) * SLOT_MIN + dice.below(PREFIX + 160)).min(length - 1),
        };
        // A range that begins there: a few bytes, the rest of a sector, or the rest of a slot.
        let at = if length == 0 { 0 } else { place(dice) };
        let end = match dice.roll(3) {
            0 => at + 1 + dice.below(24),
            1 => (at + 1).next_multiple_of(512),
            _ => (at + 1).next_multiple_of(SLOT_MIN),
        };
        let stretch = at.min(length)..end.min(length);
        match dice.roll(12) {
            _ if length == 0 => file = foreign.to_vec(),
            0..=2 => {
                for _ in 0..=dice.roll(8) {
                    let at = place(dice);
                    file[at] ^= 1 << dice.roll(8);
                }
            }
            3 => file[at] = dice.byte(),
            4 => file[stretch].fill(0),
            5 => file[stretch].fill_with(|| dice.byte()),
            6 => file.truncate(at),
            7 => {
                let grown = [length + dice.below(4096), 2 * length, 4 * length][dice.below(3)].min(16 * 1024);
                file.resize(grown, if dice.roll(2) == 0 { 0 } else { dice.byte() });
            }
            // The same range of another session's file: a sector or a slot.
            8 if stretch.end <= foreign.len() => file[stretch.clone()].copy_from_slice(&foreign[stretch]),
            8 => file = foreign.to_vec(),
            // The same range of the file's other slot.
            9 if length == whole.len() => {
                let slot = dice.below(2);
                let (from, to) = (slot * SLOT_MIN, (1 - slot) * SLOT_MIN);
                let bytes = if dice.roll(2) == 0 { SLOT_MIN } else { dice.below(SLOT_MIN) };
                file.copy_within(from..from + bytes, to);
            }
            9 | 10 => file.rotate_left(length / 2),
            _ => {
                // The first bytes of a tombstone, of a slot with a failed write, or of a slot in another format.
                let magic: &[u8] =
                    [&b"GONE"[..], b"VOID", b"SESS\x03", b"SESS\x01", b"SESS\x00", b"SESS"][dice.below(6)];
                let slot = dice.below(2) * length / 2;
                let bytes = magic.len().min(length - slot);
                file[slot..slot + bytes].copy_from_slice(&magic[..bytes]);
            }
        }
    }
    file
}

/// The names under which results of loads are counted, in the order of [`Want`](crate::support::victim::Want).
const RESULTS: [&str; 6] =
    ["newer versions", "older versions", "damaged", "unknown", "of a newer format", "of an older format"];

fn a_damaged_file_serves_one_of_its_versions_or_nothing(dir: &Path, time: Duration) -> Figures {
    let victim = Victim::at(tempdir_in(dir).unwrap(), 100);
    // The other session has the same size and the same texts. Its file differs only in the bytes that identify the
    // session.
    let foreign = Victim::at(tempdir_in(dir).unwrap(), 100).whole;
    let mut dice = Dice::new(19);
    let rounds = Rounds::new(time, &RESULTS);
    while let Some(case) = rounds.next() {
        let damaged = damaged_at_random(&mut dice, &victim.whole, &foreign);
        let want = victim.want(&damaged);
        let end = if case % 2 == 0 { End::Delete } else { End::Rotate };
        victim.check(&damaged, want, end, &|| format!("case {case}"));
        rounds.count(RESULTS[want as usize], 1);
    }
    rounds.figures()
}
