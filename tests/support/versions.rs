//! Records in which every part states the version, so that a mixture of two versions is recognised.
use sessile::{Durability, Live, Lookup, Record, Result, Store, Token, Value, Verdict};
use std::time::Duration;

/// Sets the record to this version, with a text of `text_bytes` bytes.
pub(crate) fn put(record: &mut Record, version: u64, text_bytes: usize) {
    let (number, bytes) = (Value::new(&version).unwrap(), Value::new(&text_bytes).unwrap());
    let text = Value::new(&text(version, text_bytes)).unwrap();
    record.extend([("version", &number), ("bytes", &bytes), ("text", &text)]).unwrap();
}

/// A record of this version that expires in a day.
pub(crate) fn new(store: &impl Store, version: u64, text_bytes: usize) -> Record {
    let mut record = Record::new(store.now(), store.now() + Duration::from_secs(86_400));
    put(&mut record, version, text_bytes);
    record
}

/// A change to the next version.
pub(crate) fn next(text_bytes: usize) -> impl FnMut(&mut Record) -> Result<Verdict> {
    move |record| {
        put(record, of(record) + 1, text_bytes);
        Ok(Verdict::Write)
    }
}

/// Saves the version after `version` of a live session.
#[track_caller]
pub(crate) fn save(store: &impl Store, token: &Token, version: u64, text_bytes: usize, how: Durability) {
    let change = &mut |record: &mut Record| {
        assert_eq!(of(record), version);
        put(record, version + 1, text_bytes);
        Ok(Verdict::Write)
    };
    store.update(token, change, how).unwrap().expect("it is live");
}

/// The version of a record, all parts of which must agree.
#[track_caller]
pub(crate) fn of(record: &Record) -> u64 {
    let version = record.entries().get("version").unwrap().get().unwrap();
    let bytes = record.entries().get("bytes").unwrap().get().unwrap();
    let found: String = record.entries().get("text").unwrap().get().unwrap();
    assert!(found == text(version, bytes), "version {version} of {bytes} bytes is mixed with another");
    version
}

/// The version of a session in a store; `None` if the session is absent because no file is there. Any other
/// reason, damage or expiry, is an error.
#[track_caller]
pub(crate) fn stored(store: &impl Store, token: &Token) -> Option<u64> {
    match store.load(token).unwrap() {
        Lookup::Live(Live { record, .. }) => Some(of(&record)),
        Lookup::Absent(sessile::Absent::NotFound(_)) => None,
        Lookup::Absent(other) => panic!("{other:?}"),
    }
}

fn text(version: u64, bytes: usize) -> String {
    let word = format!("{version},");
    let mut text = word.repeat(bytes / word.len() + 1);
    text.truncate(bytes);
    text
}
