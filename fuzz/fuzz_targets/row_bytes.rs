//! Any bytes as the row of a session on a server: reading them returns the record that was written, or an error. Random
//! bytes never pass the checksum, so the input is also patched into a good row, at an offset that the input chooses,
//! and appended to it or cut from it.
#![no_main]
use libfuzzer_sys::fuzz_target;
use sessile::rows::{Tags, decode, encode};
use sessile::{PublicId, Record, Value};
use std::time::{Duration, UNIX_EPOCH};

fn good() -> Record {
    let mut record = Record::new(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(1));
    record.insert("text", &Value::new("good").expect("a value")).expect("it fits");
    record
}

fuzz_target!(|bytes: &[u8]| {
    let (id, other) = (PublicId::digest(b"a session"), PublicId::digest(b"another"));
    assert!(decode(&id, bytes).is_err());
    let record = good();
    let row = encode(&id, &record);
    assert!(decode(&other, &row).is_err());
    let mut patched = row.clone();
    if let Some((at, patch)) = bytes.split_first_chunk::<2>() {
        let at = usize::from(u16::from_le_bytes(*at)) % (row.len() + 1);
        patched.truncate(at);
        patched.extend_from_slice(patch);
        if at + patch.len() < row.len() && patch.first().is_some_and(|first| first & 1 == 0) {
            patched.extend_from_slice(&row[at + patch.len()..]);
        }
    }
    match decode(&id, &patched) {
        Ok(found) => assert!(patched == row && found == record),
        Err(_) => assert!(patched != row),
    }
    if let Some((tags, _)) = bytes.split_first_chunk::<64>() {
        assert_eq!(Tags::from_bytes(tags).to_bytes(), *tags);
    }
});
