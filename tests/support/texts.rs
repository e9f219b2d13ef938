//! Sessions that hold one text, for tests of the engine itself.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use sessile::{Durability, Lookup, PublicId, Record, Result, Saved, Store, Token, Value, Verdict};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// A directory in memory, where the machine has one: for tests that write a lot and do not depend on the
/// disk.
pub(crate) fn directory_in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(crate) fn record(text: &str) -> Record {
    let now = SystemTime::now();
    let mut record = Record::new(now, now + Duration::from_secs(3600));
    record.insert("text", &Value::new(text).unwrap()).unwrap();
    record
}

pub(crate) fn text_of(record: &Record) -> String {
    record.entries().get("text").unwrap().get().unwrap()
}

/// Path of a session file: the first byte of its digest is the directory.
pub(crate) fn path_of(root: &Path, id: PublicId) -> PathBuf {
    let name = id.to_string();
    root.join(&name[..2]).join(&name[2..])
}

/// The files in the shards of a store: sessions and leftovers of unfinished operations.
pub(crate) fn files_in_shards(root: &Path) -> Vec<PathBuf> {
    let shards = (0..=255_u8).map(|shard| root.join(format!("{shard:02x}")));
    let list = |shard: PathBuf| std::fs::read_dir(shard).into_iter().flatten();
    shards.flat_map(list).map(|name| name.unwrap().path()).collect()
}

/// The text of a session, if it exists.
pub(crate) fn load(store: &impl Store, token: &Token) -> Result<Option<String>> {
    Ok(match store.load(token)? {
        Lookup::Live(live) => Some(text_of(&live.record)),
        Lookup::Absent(_) => None,
    })
}

pub(crate) fn put(store: &impl Store, token: &Token, text: &str, how: Durability) -> Result<Option<Saved>> {
    let mut change = |record: &mut Record| {
        record.insert("text", &Value::new(text)?).unwrap();
        Ok(Verdict::Write)
    };
    store.update(token, &mut change, how)
}

/// A change whose result shows the version it was applied to.
pub(crate) fn append_plus(record: &mut Record) -> Result<Verdict> {
    let text = text_of(record) + "+";
    record.insert("text", &Value::new(&text)?).unwrap();
    Ok(Verdict::Write)
}
