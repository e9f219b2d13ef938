//! Any bytes as a record, and under a slot's valid checksum: they are refused, or every part of the record can be read,
//! and a record that is built from these parts has the same bytes. Each of its values is valid or returns an error.
#![no_main]
use libfuzzer_sys::fuzz_target;
use sessile::file::internals::{decode, sealed};
use sessile::{PublicId, Record};
use std::time::UNIX_EPOCH;

fuzz_target!(|bytes: &[u8]| {
    let id = PublicId::digest(b"a session");
    let found = Record::from_bytes(bytes);
    let in_slot = decode(&sealed(1, bytes, &id), &id);
    let Ok(record) = found else {
        assert!(in_slot.is_err());
        return;
    };
    assert_eq!(in_slot.expect("its checksum is good"), record);
    assert_eq!(record.as_bytes(), bytes);
    let mut again = Record::new(UNIX_EPOCH, UNIX_EPOCH);
    again.extend(record.entries().iter()).expect("it fitted");
    again.set_user(record.user().unwrap_or_default()).expect("it fitted");
    again.set_login(record.login());
    again.set_timing(record.timing());
    again.set_device_note(record.device_note().unwrap_or_default()).expect("it fitted");
    // The digest follows the user in every record that is built; bytes from outside may have another.
    if again.login().user_digest == record.login().user_digest {
        assert_eq!(again.as_bytes(), bytes, "equal content, equal bytes");
    }
    for (name, value) in record.entries().iter() {
        assert_eq!(record.entries().get(name), Some(value));
        let _ = format!("{value:?}");
        if let Ok(json) = value.to_json() {
            // Every value that can be read can be stored, and has one form.
            assert_eq!(value, &sessile::Value::new(&json).expect("it is valid"));
        }
    }
});
