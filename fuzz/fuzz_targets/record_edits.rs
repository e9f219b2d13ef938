//! Changes of a record's entries, four bytes each, beside a map that is changed alike: both hold the same after each
//! change, and a record that is built at once from the map has the same bytes.
#![no_main]
use libfuzzer_sys::fuzz_target;
use sessile::{Record, Value};
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

fuzz_target!(|bytes: &[u8]| {
    let mut record = Record::new(UNIX_EPOCH, UNIX_EPOCH);
    let mut map: BTreeMap<String, Value> = BTreeMap::new();
    for [operation, name, length, more] in bytes.as_chunks().0.iter().copied() {
        // Few names, so that changes meet; some are the beginning of others, one is empty.
        let named =
            |name: u8| "aß🦀b".chars().cycle().skip(usize::from(name % 4)).take(usize::from(name / 4 % 4));
        let (name, other): (String, String) = (named(name).collect(), named(more).collect());
        let value = Value::new(&"x".repeat(length.into())).expect("a value");
        match operation % 6 {
            0 | 1 => {
                record.insert(&name, &value).expect("it fits");
                map.insert(name, value);
            }
            2 => assert_eq!(record.remove(&name), map.remove(&name).is_some()),
            3 => {
                record.extend([(&*other, &value), (&*name, &value)]).expect("it fits");
                map.extend([(other, value.clone()), (name, value)]);
            }
            4 => record.set_user(&name).expect("a short one"),
            _ => record.set_device_note(&other).expect("a short one"),
        }
        assert!(record.entries().iter().eq(map.iter().map(|(name, value)| (&**name, value.into()))));
    }
    assert_eq!(Record::from_bytes(record.as_bytes()).expect("it was built"), record);
    let mut other = Record::new(UNIX_EPOCH, UNIX_EPOCH);
    other.extend(map.iter().map(|(name, value)| (&**name, value))).expect("it fits");
    other.set_user(record.user().unwrap_or_default()).expect("it fitted");
    other.set_device_note(record.device_note().unwrap_or_default()).expect("it fitted");
    assert_eq!(other.as_bytes(), record.as_bytes());
});
