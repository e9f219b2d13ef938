//! Damage to a session file. A changed, missing or added byte is never served as data. The version in the other slot
//! survives where possible. A save over a damaged file, or its deletion, causes no panic. Random damage is tried by
//! `tests/hammer`.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use crate::support::texts::{append_plus, directory_in_memory, load, path_of, put, record};
use crate::support::victim::{End, PREFIX, SLOT_MIN, Victim, Want};
use sessile::{Absent, Durability, Error, ErrorKind, FileStoreOptions, Lookup, Store};
use std::fs::{self, File};

fn flipped(whole: &[u8], bit: usize) -> Vec<u8> {
    let mut damaged = whole.to_vec();
    damaged[bit / 8] ^= 1 << (bit % 8);
    damaged
}

#[test]
fn a_flipped_bit_costs_at_most_the_version_it_is_in() {
    let victim = Victim::new(100);
    assert_eq!(victim.slot_size(), SLOT_MIN);
    let mut counts = [0; 6];
    for bit in 0..victim.whole.len() * 8 {
        let damaged = flipped(&victim.whole, bit);
        let want = victim.want(&damaged);
        counts[want as usize] += 1;
        let context = || format!("bit {bit}");
        let is_used = (0..2).any(|slot| victim.used(slot).contains(&(bit / 8)));
        if is_used || bit % 8 == 0 {
            victim.check(&damaged, want, End::Delete, &context);
        } else {
            victim.check_load(&damaged, want, &context);
        }
    }
    // Flips each bit of the newer version, except those of its state byte, and those with which it would look like a
    // newer format.
    let of_newer_format = 15;
    assert_eq!(counts[Want::Older as usize], 8 * (victim.used(0).len() - 1) - of_newer_format);
    assert_eq!(counts[Want::NewerFormat as usize], 2 * of_newer_format);
    assert_eq!(counts[Want::Damaged as usize] + counts[Want::Unknown as usize], 0);
}

#[test]
fn a_byte_set_to_zero_costs_at_most_the_version_it_is_in() {
    let victim = Victim::new(100);
    for at in 0..victim.whole.len() {
        let mut damaged = victim.whole.clone();
        damaged[at] = 0;
        victim.check(&damaged, victim.want(&damaged), End::Rotate, &|| format!("byte {at} set to zero"));
    }
}

#[test]
fn damage_to_both_versions_is_damage_and_never_data() {
    let victim = Victim::new(100);
    let (first, second) = (victim.used(0), victim.used(1));
    for step in 0..first.len().min(second.len()) {
        let mut damaged = victim.whole.clone();
        damaged[first.start + step] ^= 0x80;
        damaged[second.end - 1 - step] ^= 0x01;
        victim.check(&damaged, victim.want(&damaged), End::Delete, &|| format!("both slots, step {step}"));
    }
}

#[test]
fn larger_sessions_are_guarded_like_small_ones() {
    let victim = Victim::new(5000);
    assert_eq!(victim.slot_size(), 4 * SLOT_MIN);
    // Flips each bit of the slots' prefixes, and one bit in every fifth byte of the rest.
    let is_prefix = |at: usize| at % victim.slot_size() < PREFIX;
    let bits = (0..victim.whole.len() * 8).filter(|bit| is_prefix(bit / 8) || bit % 39 == 0);
    for bit in bits {
        let damaged = flipped(&victim.whole, bit);
        victim.check(&damaged, victim.want(&damaged), End::Delete, &|| format!("bit {bit}"));
    }
    for length in (0..victim.whole.len()).step_by(61).chain([4096, 8192]) {
        let want = if length < 2 * SLOT_MIN { Want::Unknown } else { Want::Damaged };
        victim.check(&victim.whole[..length], want, End::Delete, &|| format!("cut to {length} bytes"));
    }
}

#[test]
fn a_file_cut_short_at_any_length_holds_no_session() {
    let victim = Victim::new(100);
    for length in 0..victim.whole.len() {
        let damaged = &victim.whole[..length];
        victim.check(damaged, Want::Unknown, End::Delete, &|| format!("cut to {length} bytes"));
    }
}

#[test]
fn a_file_of_a_size_that_no_session_has_is_damage() {
    let victim = Victim::new(100);
    let longer = |length: usize| {
        let mut damaged = victim.whole.clone();
        damaged.resize(length, 0);
        damaged
    };
    for length in
        [4097, 4098, 4608, 6144, 8190, 8191, 8192, 8193, 12_288, 16_384, 65_536, 1 << 20, (1 << 20) + 2]
    {
        victim.check(&longer(length), Want::Damaged, End::Delete, &|| format!("{length} bytes"));
    }
    // Each half of the result is a whole session file. Slots are found by their offset alone, so this is one file with
    // other contents.
    let twice = victim.whole.repeat(2);
    victim.check(&twice, Want::Damaged, End::Delete, &|| "twice itself".into());
    victim.check(&[0; 4096], Want::Unknown, End::Delete, &|| "all zero".into());
}

/// A pseudorandom sequence: the same garbage in every run.
fn garbage(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

#[test]
fn garbage_of_any_size_is_no_session() {
    let victim = Victim::new(100);
    for seed in 0..600 {
        let mut next = garbage(seed);
        let length = match seed % 4 {
            // The size is one that a session file may have, or any other.
            0 => [4096, 8192, 16_384][usize::try_from(next() % 3).unwrap()],
            _ => usize::try_from(next() % (16 * 1024 + 1)).unwrap(),
        };
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| next().to_le_bytes()[3]).take(length).collect();
        if seed % 3 == 0 {
            // The prefixes of both slots are valid except for their checksums.
            for slot in 0..2 {
                let at = slot * length / 2;
                let end = (at + PREFIX).min(length);
                bytes[at..end].copy_from_slice(&victim.whole[..end - at]);
            }
            if length.is_power_of_two() {
                bytes[6] = u8::try_from((length / 2).trailing_zeros()).unwrap();
                bytes[length / 2 + 6] = bytes[6];
            }
        }
        let want = if length < 2 * SLOT_MIN { Want::Unknown } else { Want::Damaged };
        victim.check(&bytes, want, End::Delete, &|| format!("seed {seed}, {length} bytes"));
    }
}

/// The file is as a power cut in the middle of a save leaves it.
#[test]
fn a_partial_save_leaves_the_version_before_it_served() {
    let victim = Victim::new(100);
    // The interrupted save has written the first `length` bytes of the second slot.
    put(&victim.store, &victim.token, "next", Durability::PowerSafe).unwrap().unwrap();
    let next = fs::read(&victim.path).unwrap();
    let slot = victim.slot_size();
    let used =
        PREFIX + usize::try_from(u32::from_le_bytes(next[slot + 16..slot + 20].try_into().unwrap())).unwrap();
    for length in 0..=used {
        let mut torn = victim.whole.clone();
        torn[slot..slot + length].copy_from_slice(&next[slot..slot + length]);
        let is_whole = torn[slot..slot + used] == next[slot..slot + used];
        let want = if is_whole { "next" } else { &victim.newer };
        victim.put_file(&torn);
        assert_eq!(load(&victim.store, &victim.token).unwrap().as_deref(), Some(want), "{length} bytes");
        let how = if length % 2 == 0 { Durability::PowerSafe } else { Durability::Relaxed };
        put(&victim.store, &victim.token, "healed", how).unwrap().unwrap();
        // The next save has overwritten the torn slot, so both slots are valid now.
        let healed = fs::read(&victim.path).unwrap();
        let kept = usize::from(is_whole);
        assert_eq!(healed[kept * slot..][8..PREFIX], torn[kept * slot..][8..PREFIX], "{length} bytes");
        assert_eq!(load(&victim.store, &victim.token).unwrap().as_deref(), Some("healed"), "{length} bytes");
    }
}

#[test]
fn another_sessions_file_under_a_name_is_not_that_session() {
    let dir = directory_in_memory();
    let store = FileStoreOptions::new().cache_bytes(0).open(dir.path()).unwrap();
    for is_link in [false, true] {
        for deleted_before in [false, true] {
            let context = format!("hard link: {is_link}, deleted before: {deleted_before}");
            let original = store.create(&record("original"), Durability::PowerSafe).unwrap();
            let other = store.create(&record("other"), Durability::PowerSafe).unwrap();
            let (from, to) = (path_of(dir.path(), original.live.id), path_of(dir.path(), other.live.id));
            if deleted_before {
                assert!(store.delete(&other.token).unwrap().is_some());
            } else {
                fs::remove_file(&to).unwrap();
            }
            if is_link {
                fs::hard_link(&from, &to).unwrap();
            } else {
                fs::copy(&from, &to).unwrap();
            }

            let found = store.load(&other.token).unwrap();
            let Lookup::Absent(Absent::Damaged(id)) = found else { panic!("{context}: {found:?}") };
            assert_eq!(id, other.live.id, "{context}");
            for how in [Durability::Relaxed, Durability::PowerSafe] {
                assert!(store.update(&other.token, &mut append_plus, how).unwrap().is_none(), "{context}");
                assert!(
                    store.rotate(&other.token, &mut append_plus, &how.into()).unwrap().is_none(),
                    "{context}"
                );
            }
            assert_eq!(load(&store, &original.token).unwrap().as_deref(), Some("original"), "{context}");
            assert!(store.delete(&other.token).unwrap().is_none(), "{context}: no live session was there");
            assert!(!to.exists(), "{context}");

            assert_eq!(load(&store, &original.token).unwrap().as_deref(), Some("original"), "{context}");
            put(&store, &original.token, "next", Durability::PowerSafe).unwrap().unwrap();
            assert_eq!(load(&store, &original.token).unwrap().as_deref(), Some("next"), "{context}");
            assert!(store.delete(&original.token).unwrap().is_some(), "{context}");
        }
    }
}

/// Some backup programs make hard links instead of copies.
#[test]
fn a_hard_link_elsewhere_disturbs_no_session() {
    let dir = directory_in_memory();
    let (root, backup) = (dir.path().join("store"), dir.path().join("backup"));
    let store = FileStoreOptions::new().cache_bytes(0).open(&root).unwrap();
    let saved = store.create(&record("old"), Durability::Relaxed).unwrap();
    let big = "big".repeat(SLOT_MIN);
    for text in ["new", &big] {
        fs::hard_link(path_of(&root, saved.live.id), &backup).unwrap();
        put(&store, &saved.token, text, Durability::PowerSafe).unwrap().unwrap();
        assert_eq!(load(&store, &saved.token).unwrap().as_deref(), Some(text));
        fs::remove_file(&backup).unwrap();
    }
    fs::hard_link(path_of(&root, saved.live.id), &backup).unwrap();
    assert!(store.delete(&saved.token).unwrap().is_some());
    // The backup is restored by another program. The session has ended, and stays ended: the backup is a link to the
    // file that has the tombstone.
    fs::rename(&backup, path_of(&root, saved.live.id)).unwrap();
    assert_eq!(load(&store, &saved.token).unwrap(), None);
}

#[track_caller]
fn check_too_large<T: std::fmt::Debug>(result: Result<T, Error>, victim: &Victim) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let path = victim.path.display();
    let want = format!("failed to read session file `{path}`: it is larger than the file of any session");
    assert_eq!(error.to_string(), want);
}

/// The session file is a sparse file of a tebibyte. If it were read into memory, the process would be killed.
#[test]
fn a_huge_file_allocates_nothing_and_can_be_deleted() {
    let victim = Victim::new(100);
    File::options().write(true).open(&victim.path).unwrap().set_len(1 << 40).unwrap();
    check_too_large(victim.store.load(&victim.token), &victim);
    check_too_large(put(&victim.store, &victim.token, "x", Durability::Relaxed), &victim);
    check_too_large(
        victim.store.rotate(&victim.token, &mut append_plus, &Durability::Relaxed.into()),
        &victim,
    );
    // A logout succeeds whatever the file contains.
    victim.store.delete(&victim.token).unwrap();
    assert_eq!(load(&victim.store, &victim.token).unwrap(), None);
    assert!(!victim.path.exists());
}

/// If the option is set to a lower limit, larger sessions can still be read.
#[test]
fn a_file_is_read_whatever_the_record_limit_is_now() {
    let victim = Victim::new(5000);
    for limit in [2048, 4096, 4097, 16 << 20] {
        let options = FileStoreOptions::new().cache_bytes(0).record_bytes_max(limit);
        let store = options.open(victim.store.path()).unwrap();
        assert_eq!(load(&store, &victim.token).unwrap().as_ref(), Some(&victim.newer), "{limit}");
    }
}
