//! A forked child that inherits an open store can neither use it nor harm its parent.
use crate::support::rerun::{again, stage};
use sessile::{
    Coherence, Durability, ErrorKind, FileStore, FileStoreOptions, Lookup, Record, Result, Store, Verdict,
};
use std::time::Duration;

#[test]
fn a_forked_child_is_refused_every_call_and_does_its_parent_no_harm() {
    let Some(stage) = stage() else {
        // In a separate process: the child of a process with many threads has only one of them, but all their
        // locks.
        let dir = tempfile::tempdir().unwrap();
        let name = "forked::a_forked_child_is_refused_every_call_and_does_its_parent_no_harm";
        return again(name, dir.path());
    };
    for (watch, coherence) in [(false, Coherence::Shared), (true, Coherence::Shared), (false, Coherence::Off)]
    {
        let dir = stage.join(format!("{watch} {coherence:?}"));
        let open = |coherence| {
            let options = FileStoreOptions::new().lock_wait(Duration::from_millis(10));
            options.watch(watch).coherence(coherence).open(&dir)
        };
        let store = open(coherence).unwrap();
        let record = Record::new(store.now(), store.now() + Duration::from_secs(3600));
        let token = store.create(&record, Durability::OfStore).unwrap().token;
        let (store, refused) = in_child(store, |store| {
            let results: [Result<()>; 5] = [
                store.load(&token).map(drop),
                store.create(&record, Durability::OfStore).map(drop),
                store.update(&token, &mut |_| Ok(Verdict::Write), Durability::OfStore).map(drop),
                store.rotate(&token, &mut |_| Ok(Verdict::Write), Durability::OfStore).map(drop),
                store.delete(&token).map(drop),
            ];
            results.iter().all(|result| result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Forked))
        });
        assert!(refused, "every call is refused: {coherence:?}, watched: {watch}");
        // The child has dropped its copy of the store. The parent's store is still in use, and works.
        let alone = open(Coherence::Off).map(drop).unwrap_err();
        assert_eq!(alone.kind(), ErrorKind::InUse, "{coherence:?}, watched: {watch}");
        assert!(matches!(store.load(&token).unwrap(), Lookup::Live(_)));
        assert!(store.delete(&token).unwrap());
        drop(store);
        open(Coherence::Off).unwrap();
    }
}

/// Runs `act` in a forked child, which then drops its copy of the store. Returns whether `act` and the drop
/// succeeded.
#[expect(unsafe_code, reason = "there is no safe fork")]
fn in_child(store: FileStore, act: impl FnOnce(&FileStore) -> bool) -> (FileStore, bool) {
    // SAFETY: no other thread of this process holds a lock (the test runs alone in it), and the child exits
    // without returning from here.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", std::io::Error::last_os_error()),
        0 => {
            let well = act(&store);
            drop(store);
            // SAFETY: exits the child at once, without running the exit handlers that the parent has
            // registered.
            unsafe { libc::_exit(i32::from(!well)) }
        }
        child => {
            let child = rustix::process::Pid::from_raw(child).unwrap();
            let ended = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty());
            (store, ended.unwrap().unwrap().1.exit_status() == Some(0))
        }
    }
}
