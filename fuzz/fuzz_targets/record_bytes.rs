//! Any bytes as a session file: reading them returns a record that was written, or none, and a mark that was written,
//! or none. Random bytes never pass the checksum, so the input is also patched into a good file, and into that of a
//! moved session, at an offset that the input chooses.
#![no_main]
use libfuzzer_sys::fuzz_target;
use sessile::file::internals::{decode, encode, encode_moved, moved, newest};
use sessile::{PublicId, Record, Value};
use std::time::{Duration, UNIX_EPOCH};

fn good() -> (Record, Vec<u8>) {
    let mut record = Record::new(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(1));
    record.insert("text", &Value::new("good").expect("a value")).expect("it fits");
    let slot = encode(&record, &id()).expect("it fits");
    (record, slot)
}

fn id() -> PublicId {
    PublicId::digest(b"a session")
}

fuzz_target!(|bytes: &[u8]| {
    // Random bytes do not pass the checksum.
    assert!(decode(bytes, &id()).is_err());
    assert!(!matches!(newest(bytes, &id()), Ok(Some(_))));
    assert!(!matches!(moved(bytes, &id()), Ok(Some(_))));

    let (record, slot) = good();
    let mut file = slot.clone();
    file.resize(2 * 2048, 0);
    let used = slot.len();
    let mut spared = true;
    if let Some((at, patch)) = bytes.split_first_chunk::<2>() {
        let at = usize::from(u16::from_le_bytes(*at)) % file.len();
        let patched = &mut file[at..];
        let length = patched.len().min(patch.len());
        patched[..length].copy_from_slice(&patch[..length]);
        // The bytes between the used part of the first slot and the second slot are never read.
        spared = length == 0 || at >= used && at + length <= 2048;
    }
    // A mark in the second slot, beside the version before it: the one that was written, or a tombstone, whatever was
    // changed in its slot.
    let mark = (PublicId::digest(b"the next one"), 1_700_000_000_000_000, true);
    let mut of_moved = slot.clone();
    of_moved.resize(2048, 0);
    of_moved.extend(encode_moved(&mark.0, mark.1, mark.2, &id()));
    if let Some((at, patch)) = bytes.split_first_chunk::<2>() {
        // Its magic stays: without it, nothing says that the session has moved.
        let at = 2052 + usize::from(u16::from_le_bytes(*at)) % 2044;
        let length = (4096 - at).min(patch.len());
        of_moved[at..at + length].copy_from_slice(&patch[..length]);
    }
    assert!(matches!(newest(&of_moved, &id()), Ok(None)), "a version behind a mark");
    assert!(matches!(moved(&of_moved, &id()), Ok(found) if found.is_none_or(|found| found == mark)));

    match newest(&file, &id()) {
        // A record that is found is the one that was written, however the file was changed.
        Ok(Some(found)) => assert_eq!(found, record),
        nothing => assert!(!spared, "{nothing:?}, although no used byte was changed"),
    }
});
