//! Any bytes as a session's file: what is read of them is a record that was written, or nothing. As they stand, nothing
//! verifies, so a slot of the input is also patched into a good one, at an offset the input chooses.
#![no_main]
use libfuzzer_sys::fuzz_target;
use sessile::file::internals::{decode, encode, newest};
use sessile::{PublicId, Record, Value};
use std::time::{Duration, UNIX_EPOCH};

fn good() -> (Record, Vec<u8>) {
    let mut record = Record::new(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(1));
    record.entries.insert("text".into(), Value::new("good").expect("a value"));
    let slot = encode(&record, &id()).expect("it fits");
    (record, slot)
}

fn id() -> PublicId {
    PublicId::digest(b"a session")
}

fuzz_target!(|bytes: &[u8]| {
    // Nobody can guess a checksum.
    assert!(decode(bytes, &id()).is_err());
    assert!(!matches!(newest(bytes, &id()), Ok(Some(_))));

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
        // Between what the first slot uses and the second slot is what nobody looks at.
        spared = length == 0 || at >= used && at + length <= 2048;
    }
    match newest(&file, &id()) {
        // What is found is what was written, whatever happened to the file.
        Ok(Some(found)) => assert_eq!(*found, record),
        nothing => assert!(!spared, "{nothing:?}, though all of it is there"),
    }
});
