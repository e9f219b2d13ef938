//! Processes that are killed (`kill -9`) while they hold a lock, and the flags that they leave in the session file. The
//! old version is there afterwards, no lock stays held, and the next save is as safe as its caller asked for. Kills at
//! any instant are tried by `tests/hammer`.
use crate::processes::{Operation, files, holder};
use crate::support::versions;
use sessile::{Durability, FileStore, FileStoreOptions, PublicId, Store, Token};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

fn id_of(token: &Token) -> PublicId {
    PublicId::digest(token.expose().as_bytes())
}

/// Opens a store without a cache, which returns what the files contain: a killed process may not have invalidated its
/// last save.
fn open_without_cache(dir: &Path) -> FileStore {
    FileStoreOptions::new().lock_wait(Duration::from_secs(20)).cache_bytes(0).open(dir).unwrap()
}

#[test]
fn a_holder_that_is_killed_leaves_the_old_version_and_no_lock() {
    for operation in Operation::ALL {
        check_killed_holder(operation);
    }
}

#[track_caller]
fn check_killed_holder(operation: Operation) {
    let dir = TempDir::new().unwrap();
    let store = open_without_cache(dir.path());
    let held = store.create(&versions::new(&store, 1, 10), Durability::OfStore).unwrap().token;
    let holder = holder(&dir, &held, operation);
    thread::scope(|scope| {
        // This thread waits as another process would: it polls for the lock while the holder is killed.
        let waiter = scope.spawn(|| versions::save(&store, &held, 1, 10, Durability::OfStore));
        thread::sleep(Duration::from_millis(20));
        assert_eq!(
            versions::stored(&store, &held),
            Some(1),
            "{operation:?}: changed before the change was made"
        );
        assert_eq!(holder.kill(), [""; 0]);
        waiter.join().unwrap();
    });
    assert_eq!(versions::stored(&store, &held), Some(2), "{operation:?}");
    assert_eq!(files(dir.path()).len(), 1, "{operation:?}: no successor");
    assert!(operation.run(&store, &held, || {}).unwrap().is_some(), "{operation:?}");
}

/// Flags of a slot's state byte, and the offset of that byte: see `docs/format.md`.
const DATA_SYNCED: u8 = 1;
const NAME_SYNCED: u8 = 2;
const RETIRING: u8 = 4;
const STATE_AT: usize = 7;
const SLOT: usize = 2048;

/// A killed process may leave any of these flags in the newest slot. The next save must rely only on syncs that the
/// flags state, and must not set flags for syncs that it did not make.
#[test]
fn a_power_safe_save_after_a_kill_ends_synced() {
    let dir = TempDir::new().unwrap();
    let store = open_without_cache(dir.path());
    for left in [0, DATA_SYNCED, NAME_SYNCED, DATA_SYNCED | NAME_SYNCED] {
        for left in [left, left | RETIRING] {
            check_state(&store, left, Durability::PowerSafe, DATA_SYNCED | NAME_SYNCED);
            check_state(&store, left, Durability::Relaxed, left & NAME_SYNCED);
        }
    }
}

#[track_caller]
fn check_state(store: &FileStore, left: u8, how: Durability, want: u8) {
    let token = store.create(&versions::new(store, 1, 10), Durability::Relaxed).unwrap().token;
    versions::save(store, &token, 1, 10, Durability::Relaxed);
    let id = id_of(&token).to_string();
    let path = store.path().join(&id[..2]).join(&id[2..]);
    // The second version is in the second slot. The third one will be in the first slot.
    File::options().write(true).open(&path).unwrap().write_all_at(&[left], (SLOT + STATE_AT) as u64).unwrap();
    versions::save(store, &token, 2, 10, how);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes[STATE_AT], want, "after {left}, {how:?}");
    assert_eq!(versions::stored(store, &token), Some(3), "after {left}, {how:?}");
}
