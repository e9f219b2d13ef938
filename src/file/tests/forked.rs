//! A child is forked while another thread of its parent holds a lock. In the child, nothing releases that lock.
#![expect(unsafe_code, reason = "there is no safe fork")]
use super::*;
use crate::admin::Admin;
use crate::file::read_cache::{Key, Trust};

fn is_refused<T>(result: Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::Forked)
}

#[test]
fn a_child_forked_amid_a_cache_lookup_does_not_hang() {
    type Call = fn(&FileStore, &SessionId) -> bool;
    let calls: [(&str, Call); 9] = [
        ("load", |store, id| is_refused(store.load(&id.to_token()))),
        ("update", |store, id| is_refused(put(store, id, "x", false))),
        ("rotate", |store, id| is_refused(Operation::Rotate.run(store, id, id))),
        ("delete", |store, id| is_refused(store.delete(&id.to_token()))),
        ("delete_of", |store, id| is_refused(store.delete_of("ada", Some(&id.to_token())))),
        ("delete_all", |store, _| is_refused(store.delete_all())),
        ("files", |store, _| store.files().all(is_refused)),
        ("stats", |store, _| store.stats().files.copies == 0),
        ("debug", |store, _| format!("{store:?}").contains("ReadCache")),
    ];
    let dir = directory();
    let store = FileStoreOptions::new().watch(false).open(dir.path()).unwrap();
    let session = SessionId::random().unwrap();
    store.create_file(SessionRef::Id(&session), record("x"), false).unwrap();
    assert_eq!(store.stats().files.copies, 1);
    for (name, call) in calls {
        let (has_it, is_held) = mpsc::channel();
        let (let_go, may_go) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let (store, session) = (&store, &session);
            scope.spawn(move || {
                let cache = store.coherence.cache();
                cache.get(&Key::of(session), |_, _| {
                    has_it.send(()).unwrap();
                    may_go.recv().unwrap();
                    Trust::Yes
                });
            });
            is_held.recv().unwrap();
            // SAFETY: the child makes one call and ends without returning from this function. The allocator handles its
            // own locks on a fork.
            let child = unsafe { libc::fork() };
            assert!(child >= 0, "{}", io::Error::last_os_error());
            if child == 0 {
                // SAFETY: the call only sets a timer, which kills the child if it hangs.
                unsafe { libc::alarm(20) };
                let well = call(store, session);
                // SAFETY: ends the child at once, without running the exit handlers of the parent.
                unsafe { libc::_exit(i32::from(!well)) }
            }
            let mut status = 0;
            // SAFETY: the child belongs to this process, and no other thread waits for it.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            let_go.send(()).unwrap();
            assert!(libc::WIFEXITED(status), "{name} waited in the child");
            assert_eq!(libc::WEXITSTATUS(status), 0, "{name}");
        });
    }
}
