//! A child that was forked while a store was open can neither use its copy of the store nor disturb the parent.
use crate::support::rerun::{again, stage};
use sessile::{Durability, ErrorKind, FileStore, FileStoreOptions, Lookup, Record, Result, Store, Verdict};
use std::fs::File;
use std::time::Duration;

#[test]
fn a_forked_child_is_refused_every_call() {
    let Some(stage) = stage() else {
        // The test runs in a process of its own. The child of a process with many threads has only one of them, and a
        // copy of all their locks.
        let dir = tempfile::tempdir().unwrap();
        let name = "forked::a_forked_child_is_refused_every_call";
        return again(name, dir.path());
    };
    for watch in [false, true] {
        let dir = stage.join(format!("{watch}"));
        let store = FileStoreOptions::new().watch(watch).open(&dir).unwrap();
        // An open store has its root locked.
        let is_free = || File::open(&dir).unwrap().try_lock().is_ok();
        let record = Record::new(store.now(), store.now() + Duration::from_secs(3600));
        let token = store.create(&record, Durability::OfStore).unwrap().token;
        let (store, refused) = in_child(store, |store| {
            let results: [Result<()>; 5] = [
                store.load(&token).map(drop),
                store.create(&record, Durability::OfStore).map(drop),
                store.update(&token, &mut |_| Ok(Verdict::Write), Durability::OfStore).map(drop),
                store.rotate(&token, &mut |_| Ok(Verdict::Write), &Durability::OfStore.into()).map(drop),
                store.delete(&token).map(drop),
            ];
            results.iter().all(|result| result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Forked))
        });
        assert!(refused, "every call is refused, watched: {watch}");
        // The child has dropped its copy of the store. The parent's store is still open, and works.
        assert!(!is_free(), "watched: {watch}");
        assert!(matches!(store.load(&token).unwrap(), Lookup::Live(_)));
        assert!(store.delete(&token).unwrap().is_some());
        drop(store);
        assert!(is_free(), "watched: {watch}");
    }
}

/// Runs `operation` in a forked child, which then drops its copy of the store. Returns whether `operation` and the drop
/// succeeded.
#[expect(unsafe_code, reason = "there is no safe fork")]
fn in_child(store: FileStore, operation: impl FnOnce(&FileStore) -> bool) -> (FileStore, bool) {
    // SAFETY: no other thread of this process holds a lock, because the test runs alone in it; and the child ends
    // without returning from this function.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", std::io::Error::last_os_error()),
        0 => {
            let well = operation(&store);
            drop(store);
            // SAFETY: ends the child at once, without running the exit handlers that the parent has registered.
            unsafe { libc::_exit(i32::from(!well)) }
        }
        child => {
            let child = rustix::process::Pid::from_raw(child).unwrap();
            let ended = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty());
            (store, ended.unwrap().unwrap().1.exit_status() == Some(0))
        }
    }
}
