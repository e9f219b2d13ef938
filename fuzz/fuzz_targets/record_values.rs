//! Any contents under a valid checksum: a record that is decoded encodes to bytes that decode to the same record, and each
//! of its values is valid or returns an error.
#![no_main]
use libfuzzer_sys::fuzz_target;
use sessile::PublicId;
use sessile::file::internals::{decode, encode, sealed};

const FIELDS: usize = 44;

fuzz_target!(|bytes: &[u8]| {
    let (fields, payload) = bytes.split_at(bytes.len().min(FIELDS));
    let id = PublicId::digest(b"a session");
    let Ok(record) = decode(&sealed(fields, payload, &id), &id) else { return };
    for value in record.entries.values() {
        let _ = format!("{value:?}");
        if let Ok(json) = value.to_json() {
            // Every value that can be read can be stored, and has one form.
            assert_eq!(sessile::Value::new(&json).expect("it is valid"), *value);
        }
    }
    let mut again = encode(&record, &id).expect("it came from a slot");
    again.resize(again.len().next_power_of_two().max(2048), 0);
    assert_eq!(decode(&again, &id).expect("it was just encoded"), record);
});
