//! In each run, one call of an opening fails, or is the last call of a process that dies. The tests also check the
//! order in which an opening syncs the parts of a store.
use super::*;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

/// The state of the directory when a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// There is no directory.
    New,
    /// The directory is empty.
    Bare,
    /// A complete store.
    Made,
    /// A store that has lost its counters.
    WithoutCounters,
    /// A store that is opened without a cache, so that its counters are not mapped.
    Uncached,
    /// A store that was opened to other users.
    Exposed,
}

impl Condition {
    fn prepare(self) -> TempDir {
        let dir = directory();
        let root = dir.path().join("store");
        match self {
            Self::New => {}
            Self::Bare => fs::create_dir(root).unwrap(),
            Self::Made | Self::Uncached => drop(self.open(&dir).unwrap()),
            Self::Exposed => {
                let store = self.open(&dir).unwrap();
                store.create(&record("x"), Durability::Relaxed).unwrap();
                let bits =
                    |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
                bits(&root, 0o775);
                for shard in fs::read_dir(&root).unwrap().map(|name| name.unwrap().path()) {
                    bits(&shard, 0o775);
                }
            }
            Self::WithoutCounters => {
                drop(self.open(&dir).unwrap());
                fs::remove_dir_all(root.join(RUN)).unwrap();
            }
        }
        dir
    }

    fn open(self, dir: &TempDir) -> Result<FileStore> {
        let options = FileStoreOptions::new().watch(false).observer(|_| ());
        let options = if self == Self::Uncached { options.cache_bytes(0) } else { options };
        options.open(dir.path().join("store"))
    }
}

/// Opens a store once with a fault. Returns the number of calls that were made.
fn open_with_fault(condition: Condition, fault: Fault) {
    let dir = condition.prepare();
    let root = dir.path().join("store");
    let (opened, calls) = during(fault.plan(), || condition.open(&dir));
    let context = format!("{condition:?}, {fault:?}, after calls {calls:?}");
    let failed = calls[fault.call];
    // Hints to the kernel may fail. If the counters' file cannot be opened for writing, it is opened for reading; if it
    // cannot be read, it is made again.
    let is_hint = ["get flags", "set flags", "advise"].contains(&failed);
    // If the parent directory cannot be synced, the whole file system is synced instead.
    let is_closed = ["open parent", "sync parent"].contains(&failed)
        && [Errno::ACCESS, Errno::ROFS].contains(&fault.errno);
    // A directory that its owner may not open is opened once more with `O_PATH`, which needs no permission.
    let is_made = failed == "open directory"
        && fault.errno == Errno::ACCESS
        && calls[fault.call + 1..].starts_with(&["open directory", "change mode"]);
    let is_got_over = is_hint
        || is_closed
        || is_made
        || failed == "open run directory" && fault.errno == Errno::ACCESS
        || failed == "open generations"
            && match fault.errno {
                Errno::ROFS => calls[fault.call - 1] != "open generations",
                Errno::ACCESS => true,
                _ => false,
            };
    match &opened {
        Ok(_) => assert!(is_got_over, "{context}: it opened"),
        Err(error) => {
            assert!(!is_got_over || fault.then == Then::Fails, "{context}: {error}");
            check_error(error, dir.path(), fault.errno, &context);
        }
    }
    drop(opened);
    assert_eq!(descriptors(|open| open.starts_with(&root)), 0, "{context}: a descriptor leaked");
    let is_left = |dir: &Path| {
        fs::read_dir(dir).is_ok_and(|mut names| names.any(|name| is_temporary(&name.unwrap().path())))
    };
    // A file that cannot be removed is left for a sweep.
    let is_removable = fault.then == Then::Works;
    let left = is_left(&root) || is_left(&root.join(RUN));
    assert!(!left || !is_removable, "{context}: a temporary file is left");
    let store =
        condition.open(&dir).unwrap_or_else(|error| panic!("{context}: it cannot be opened again: {error}"));
    store.create_file(SessionRef::Id(&SessionId::random().unwrap()), record("x"), true).unwrap();
}

#[test]
fn any_failed_call_of_opening_is_an_error_and_the_next_opens() {
    use Condition::{Bare, Exposed, Made, New, Uncached, WithoutCounters};
    for condition in [New, Bare, Made, WithoutCounters, Uncached, Exposed] {
        let dir = condition.prepare();
        let (opened, calls) = during(|_, _| None, || condition.open(&dir));
        assert_eq!(opened.unwrap().path(), dir.path().join("store"));
        // Only the first and the last call of each kind fail, because there are 256 shards.
        let is_chosen = |n: &usize| !calls[..*n].contains(&calls[*n]) || !calls[n + 1..].contains(&calls[*n]);
        let chosen: Vec<usize> = (0..calls.len()).filter(is_chosen).collect();
        let least = if [New, Bare].contains(&condition) { 25 } else { 8 };
        assert!(chosen.len() >= least, "{condition:?}: {calls:?}");
        for call in chosen {
            for (errno, then) in refusals() {
                // Which error is returned matters for a few calls only; that an error is returned matters for all.
                let is_usual =
                    errno == Errno::IO || ["open generations", "open run directory"].contains(&calls[call]);
                if condition == New || is_usual {
                    open_with_fault(condition, Fault { call, errno, then });
                }
            }
            let dir = condition.prepare();
            let died = dying_in_call(call, || condition.open(&dir));
            let context = format!("{condition:?}, call {call}, {}", calls[call]);
            assert!(died.is_none_or(|opened| opened.is_ok()), "{context}: opening what is left failed");
            condition.open(&dir).unwrap_or_else(|error| panic!("{context}: {error}"));
        }
    }
}

#[test]
fn opening_syncs_the_shards_before_it_names_the_parameters() {
    let dir = directory();
    let (has_it, root) = (Arc::new(Mutex::new(Vec::new())), dir.path().join("store"));
    let (report, path) = (Arc::clone(&has_it), root.join("sessile.json"));
    let watch = move |_, call: &str| {
        if call == "sync root" {
            report.lock().unwrap().push(path.exists());
        }
        None
    };
    let (opened, calls) = during(watch, || FileStore::open(&root));
    opened.unwrap();
    let syncs: Vec<_> =
        calls.into_iter().filter(|call| call.starts_with("sync") || *call == "move file").collect();
    assert_eq!(
        syncs,
        [
            "move file",
            "sync file",
            "move file",
            "sync root",
            "sync parent",
            "sync file",
            "move file",
            "sync root",
            "move file"
        ]
    );
    assert_eq!(*has_it.lock().unwrap(), [false, true]);
}

#[test]
fn where_the_parent_cannot_be_synced_the_file_system_is() {
    for refused in ["open parent", "sync parent"] {
        for errno in [Errno::ACCESS, Errno::PERM, Errno::ROFS, Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP] {
            for condition in [Condition::New, Condition::Bare] {
                let dir = condition.prepare();
                let fail = move |_, call: &'static str| (call == refused).then(|| errno.raw_os_error());
                let (opened, calls) = during(fail, || condition.open(&dir));
                opened.unwrap_or_else(|error| panic!("{condition:?}, {refused}, {errno}: {error}"));
                let order: Vec<_> = calls
                    .into_iter()
                    .filter(|call| {
                        ["sync file system", "move file"].contains(call) || call.ends_with("parent")
                    })
                    .collect();
                // The files that get their names by a rename: the log of cut-offs, the tag of `run`, the parameters and
                // the counters.
                let want = match refused {
                    "open parent" => &[
                        "move file",
                        "move file",
                        "open parent",
                        "sync file system",
                        "move file",
                        "move file",
                    ][..],
                    _ => &[
                        "move file",
                        "move file",
                        "open parent",
                        "sync parent",
                        "sync file system",
                        "move file",
                        "move file",
                    ],
                };
                assert_eq!(order, want, "{condition:?}, {errno}");
            }
        }
    }
}
