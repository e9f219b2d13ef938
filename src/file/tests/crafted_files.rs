//! Crafted files with valid checksums. A visitor who knows a session's id can compute them.
use super::*;
use crate::file::slot::{self, PREFIX_LEN, SLOT_MAX, State};
use std::time::UNIX_EPOCH;

/// The position of the size in a slot.
const SIZE_AT: u64 = 6;

/// A visitor stores a text with the bytes of a valid slot, so that it lies where a slot would begin in a smaller file.
/// Then the disk loses the second half of the session's file.
#[test]
fn a_slot_forged_inside_a_value_is_never_served() {
    let fixture = Fixture::new();
    let session = SessionId::random().unwrap();
    let id = session.public_id();
    // All bytes of the forged slot, and of its prefix, must be valid text. The record has no user, because the digest
    // of a user is seldom text.
    let far_away = UNIX_EPOCH + Duration::from_micros(0x007f_7f7f_7f7f_7f7f);
    let mut forged = Record::new(UNIX_EPOCH + Duration::from_micros(1), far_away);
    // The checksum must be text as well. Of some thousand records, one has such a checksum.
    let likeness = (0_u32..)
        .map(|n| {
            forged.insert("text", &Value::new(&format!("{n:08}")).unwrap()).unwrap();
            let bytes = forged.as_bytes();
            slot::sealed(4, bytes, &id)[..PREFIX_LEN + bytes.len()].to_vec()
        })
        .find_map(|slot| String::from_utf8(slot).ok())
        .unwrap();
    let text_with = |padding: usize, version: u32| {
        format!("{}{likeness}{version}{}", "a".repeat(padding), "b".repeat(500))
    };
    let encoded = slot::encode(
        &record(&text_with(1800, 1)),
        &slot::Header { id: &id, sequence: 1, state: State::WRITTEN, slot_size_min: 0 },
        SLOT_MAX,
    )
    .unwrap()
    .to_vec();
    let magic = encoded.windows(4).rposition(|window| window == b"SESS").unwrap();
    let text = |version| text_with(1800 + SLOT_MIN - magic, version);
    fixture.store.create_file(SessionRef::Id(&session), record(&text(1)), false).unwrap();
    for versions in 1..4 {
        if versions > 1 {
            put(&fixture.store, &session, &text(versions), false).unwrap().unwrap();
        }
        let path = fixture.path(&session);
        let whole = fs::read(&path).unwrap();
        assert_eq!((whole.len(), &whole[SLOT_MIN..SLOT_MIN + 4]), (4 * SLOT_MIN, &b"SESS"[..]));
        // The forged slot is not served if the file has lost its second half, nor if a call returns only the first
        // half.
        let in_part = |n, call: &str| (n == 1 && call == "read").then_some(PAGE);
        let (found, _) = during(in_part, || fixture.text(&session));
        assert_eq!(found, Some(text(versions)));
        fs::write(&path, &whole[..2 * SLOT_MIN]).unwrap();
        let found = fixture.store.load(&session.to_token()).unwrap();
        assert!(matches!(found, Lookup::Absent(Absent::Damaged(_))), "{versions} versions: {found:?}");
        assert!(put(&fixture.store, &session, "x", true).unwrap().is_none());
        fs::write(&path, &whole).unwrap();
    }
}

/// The older slot is not served, and its size does not decide how the file is read.
#[test]
fn a_wrong_size_of_the_older_slot_is_no_unfinished_creation() {
    let fixture = Fixture::new();
    for bit in 0..8 {
        let session = fixture.session(false);
        assert!(Operation::Keep.run(&fixture.store, &session, &session).unwrap(), "synced");
        let file = fs::OpenOptions::new().read(true).write(true).open(fixture.path(&session)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, SIZE_AT).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << bit], SIZE_AT).unwrap();
        assert_eq!(fixture.text(&session).as_deref(), Some("old"), "bit {bit}");
    }
}

/// No number of saves reaches the last sequence.
#[test]
fn a_session_at_the_last_sequence_is_served_and_not_saved() {
    let fixture = Fixture::new();
    let forge = |sequence: u64| {
        let session = fixture.session(false);
        let id = session.public_id();
        let mut bytes = slot::encode(
            &record("old"),
            &slot::Header { id: &id, sequence, state: State::WRITTEN, slot_size_min: 0 },
            SLOT_MAX,
        )
        .unwrap()
        .to_vec();
        bytes.resize(2 * SLOT_MIN, 0);
        fs::write(fixture.path(&session), bytes).unwrap();
        session
    };
    let session = forge(u64::MAX - 2);
    put(&fixture.store, &session, "new", true).unwrap().unwrap();
    assert_eq!(fixture.text(&session).as_deref(), Some("new"));
    for session in [session, forge(u64::MAX - 1)] {
        let before = fixture.text(&session);
        for text in ["more", &big("more")] {
            let error = put(&fixture.store, &session, text, true).unwrap_err();
            let path = fixture.path(&session);
            let want = format!(
                "failed to save session file `{}`: its sequence is one that no save reaches",
                path.display()
            );
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::Corrupt, want));
        }
        assert_eq!(fixture.text(&session), before);
        assert!(fixture.store.delete_file(SessionRef::Id(&session)).unwrap().is_some());
    }
}
