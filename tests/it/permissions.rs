//! Owners and modes. A store is made private again, or accessible to its group. Permissions that cannot be repaired are
//! one error with one remedy. A directory without a store is never changed.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use crate::support::process::{Child, Parent, Start, Worker};
use crate::support::rerun::{again_as_nobody, again_in_mounts, stage};
use crate::support::texts::{append_plus, directory_in_memory, load, path_of, put, record};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use sessile::{
    Admin, Durability, Error, ErrorKind, Event, FileStore, FileStoreOptions, Record, Saved, Store,
    SweepOptions, Token,
};
use std::error::Error as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

pub(crate) const WORKERS: &[(&str, Worker)] = &[("user of a group", user_of_a_group)];

const NOBODY: u32 = 65534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A directory and all files below it. Links are not followed.
fn all(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut at = 0;
    while at < found.len() {
        if found[at].is_dir() && !found[at].is_symlink() {
            found.extend(fs::read_dir(&found[at]).unwrap().map(|name| name.unwrap().path()));
        }
        at += 1;
    }
    found
}

/// Sets one mode for all directories and one for all files, as `chmod -R` does.
fn allow_all(root: &Path, directories: u32, files: u32) {
    for path in all(root).iter().filter(|path| !path.is_symlink()) {
        allow(path, if path.is_dir() { directories } else { files });
    }
}

/// The owner and mode of every file.
fn modes(root: &Path) -> Vec<(PathBuf, u32, u32)> {
    let look = |path: PathBuf| {
        let found = fs::symlink_metadata(&path).unwrap();
        (path, found.uid(), found.mode())
    };
    let mut modes: Vec<_> = all(root).into_iter().map(look).collect();
    modes.sort();
    modes
}

#[track_caller]
fn check_modes(root: &Path, directories: u32, files: u32) {
    for (path, _, mode) in modes(root) {
        let want = if path.is_dir() { directories } else { files };
        assert_eq!(mode & 0o7777, want, "mode of {}", path.display());
    }
}

/// Makes a store with two sessions.
fn made(root: &Path) -> [Saved; 2] {
    let store = FileStore::open(root).unwrap();
    ["old", "other"].map(|text| store.create(&record(text), Durability::Relaxed).unwrap())
}

type Events = Arc<Mutex<Vec<(u64, u64)>>>;

/// Options with an observer, and the events that it receives: the number of files that others had access to, and how
/// many of those they could write to.
fn observed() -> (FileStoreOptions, Events) {
    let events = Events::default();
    let sink = Arc::clone(&events);
    let options = FileStoreOptions::new().watch(false).observer(move |event| {
        let Event::MadePrivate { count, writable, .. } = event else { panic!("{event:?}") };
        sink.lock().unwrap().push((*count, *writable));
    });
    (options, events)
}

// ------------------------------------------------------------------------------------------------ it repairs

#[track_caller]
fn check_repaired(what: &str, open_up: impl FnOnce(&Path, &[Saved; 2]), want: (u64, u64)) {
    let dir = directory_in_memory();
    let root = dir.path().join("store");
    let saved = made(&root);
    open_up(&root, &saved);
    let (options, events) = observed();
    let store = options.open(&root).unwrap_or_else(|error| panic!("{what}: {error}"));
    check_modes(&root, 0o700, 0o600);
    assert_eq!(*events.lock().unwrap(), [want], "{what}");
    for (saved, text) in saved.iter().zip(["old", "other"]) {
        assert_eq!(load(&store, &saved.token).unwrap().as_deref(), Some(text), "{what}");
    }
    drop(store);
    // The next opening reports nothing, because the store is private now.
    let (options, events) = observed();
    options.open(&root).unwrap();
    assert_eq!(*events.lock().unwrap(), [], "{what}");
}

#[test]
fn a_store_that_was_open_to_others_is_made_private_and_told() {
    // The directories of a store: the root, 256 shards, `run` and the indexes. The files: parameters, tag, counters,
    // two files of each index, two sessions, and the log of cut-offs.
    const DIRECTORIES: u64 = 1 + 256 + 3;
    const ALL: u64 = DIRECTORIES + 10;
    check_repaired("fsGroup", |root, _| allow_all(root, 0o2770, 0o660), (ALL, ALL));
    check_repaired("chmod -R 775", |root, _| allow_all(root, 0o775, 0o775), (ALL, ALL));
    check_repaired("chmod -R 777", |root, _| allow_all(root, 0o777, 0o777), (ALL, ALL));
    check_repaired("chmod -R a+rX", |root, _| allow_all(root, 0o755, 0o644), (ALL, 0));
    check_repaired("directories", |root, _| allow_all(root, 0o775, 0o600), (DIRECTORIES, DIRECTORIES));
    check_repaired("the root", |root, _| allow(root, 0o755), (1, 0));
    check_repaired("a shard", |root, _| allow(&root.join("7f"), 0o702), (1, 1));
    check_repaired("the index", |root, _| allow(&root.join("run/due"), 0o720), (1, 1));
    check_repaired("the user index", |root, _| allow(&root.join("run/users"), 0o720), (1, 1));
    let one_session = |root: &Path, saved: &[Saved; 2]| {
        let path = path_of(root, saved[0].live.id);
        allow(&path, 0o640);
        allow(path.parent().unwrap(), 0o770);
    };
    check_repaired("a session in its shard", one_session, (2, 1));
}

/// A link that another user has planted must not decide which file's mode is changed, and a pipe must not block the
/// opening.
#[test]
fn links_pipes_and_strangers_in_an_open_store_are_left_alone() {
    let dir = directory_in_memory();
    let (root, mine, elsewhere) =
        (dir.path().join("store"), dir.path().join("mine"), dir.path().join("elsewhere"));
    made(&root);
    fs::write(&mine, "mine").unwrap();
    fs::create_dir(&elsewhere).unwrap();
    allow_all(&root, 0o777, 0o666);
    symlink(&mine, root.join("7f/01234567890123456789012345678901234567")).unwrap();
    symlink(&elsewhere, root.join("7f/ab")).unwrap();
    symlink(&mine, root.join(".new-0")).unwrap();
    symlink(&elsewhere, root.join("damaged")).unwrap();
    mknodat(CWD, root.join("7f/pipe"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    allow(&root.join("7f/pipe"), 0o666);
    fs::create_dir(root.join("notes")).unwrap();
    let left = [mine, elsewhere, root.join("7f/pipe"), root.join("notes")];
    left.iter().zip([0o644, 0o755, 0o666, 0o777]).for_each(|(path, mode)| allow(path, mode));
    let before = left.each_ref().map(|path| modes(path));
    FileStoreOptions::new().observer(|_| ()).open(&root).unwrap();
    assert_eq!(left.each_ref().map(|path| modes(path)), before);
    assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(root.join("7f")).unwrap().mode() & 0o7777, 0o700);
}

/// One entry of an access control list, in the kernel's encoding: tag, permissions, user.
fn entry(tag: u16, permissions: u16, user: u32) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &user.to_le_bytes()].concat()
}

/// Gives the user nobody access by an access control list, as `setfacl -m u:nobody:rwx` does, and by a default list, as
/// with `-d`.
fn let_nobody_in(path: &Path) {
    let none = u32::MAX;
    let entries = [
        entry(0x01, 7, none),
        entry(0x02, 7, NOBODY),
        entry(0x04, 0, none),
        entry(0x10, 7, none),
        entry(0x20, 0, none),
    ];
    let list = [2_u32.to_le_bytes().to_vec(), entries.concat()].concat();
    let set = |name| setxattr(path, name, &list, XattrFlags::empty()).unwrap();
    set("system.posix_acl_access");
    if path.is_dir() {
        set("system.posix_acl_default");
    }
}

/// Whether the user nobody can read a file.
fn nobody_reads(path: &Path) -> bool {
    let mut command = Command::new("setpriv");
    let user = NOBODY.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "cat"]).arg(path);
    command.output().unwrap().status.success()
}

#[test]
fn access_control_lists_let_no_other_user_in() {
    let dir = tempfile::tempdir().unwrap();
    allow(dir.path(), 0o755);
    let root = dir.path().join("store");
    let saved = made(&root);
    for path in all(&root) {
        let_nobody_in(&path);
    }
    let path = path_of(&root, saved[0].live.id);
    assert!(!is_root() || nobody_reads(&path), "the list has no effect here");
    let (options, events) = observed();
    let store = options.open(&root).unwrap();
    assert_eq!(events.lock().unwrap().len(), 1);
    // The default lists of the directories are still there, but give no access to files that are created there.
    let new = store.create(&record("new"), Durability::Relaxed).unwrap();
    put(&store, &saved[1].token, &"grown".repeat(1000), Durability::Relaxed).unwrap().unwrap();
    check_modes(&root, 0o700, 0o600);
    allow(&root, 0o711);
    for saved in [&saved[0], &saved[1], &new] {
        let path = path_of(&root, saved.live.id);
        allow(path.parent().unwrap(), 0o711);
        assert!(!is_root() || !nobody_reads(&path), "{}", path.display());
    }
}

// ---------------------------------------------------------------------------------------------- it refuses

#[track_caller]
fn refusal(options: FileStoreOptions, root: &Path) -> Error {
    let before = root.starts_with("/dev/shm").then(|| modes(root));
    let error = options.open(root).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permissions, "{error:?}");
    assert_eq!(
        before,
        root.starts_with("/dev/shm").then(|| modes(root)),
        "the directory was changed: {error}"
    );
    error
}

/// Runs the shell command that an error message advises.
#[track_caller]
fn obey(error: &Error) {
    let text = error.to_string();
    let (_, command) = text.split_once("to repair all: ").unwrap();
    assert!(Command::new("sh").args(["-ec", command]).status().unwrap().success(), "{command}");
}

#[test]
fn a_directory_without_a_store_is_not_changed_nor_advised_to_be() {
    for mode in [0o777, 0o1777, 0o1700, 0o702, 0o720, 0o775, 0o2770] {
        let dir = directory_in_memory();
        let root = dir.path().join("volume");
        fs::create_dir(&root).unwrap();
        allow(&root, mode);
        let error = refusal(FileStoreOptions::new(), &root);
        let why = if mode == 0o1700 {
            "it is sticky, as directories are that users share"
        } else {
            "other users may write to it"
        };
        let text = format!(
            "failed to open session store `{}`: {why} (mode {mode:04o}); use a directory inside it",
            root.display()
        );
        assert_eq!(error.to_string(), text);
        // A directory inside it, as the error advises, can be opened.
        FileStore::open(root.join("sessions")).unwrap();
        if mode & 0o1002 != 0 {
            let shared = refusal(FileStoreOptions::new().group_access(true), &root);
            assert_eq!(shared.to_string(), text);
        }
    }
    // The same for a directory like `/tmp` that holds a store, which another user may have planted.
    let dir = directory_in_memory();
    let root = dir.path().join("store");
    made(&root);
    allow(&root, 0o1777);
    let error = refusal(FileStoreOptions::new(), &root);
    assert!(error.to_string().ends_with("(mode 1777); use a directory inside it"), "{error}");
    // The same for the real `/tmp` and `/`.
    for (path, group_access) in [("/tmp", false), ("/tmp", true), ("/", false), ("/", true)] {
        let mode = fs::metadata(path).unwrap().mode();
        let error = FileStoreOptions::new().group_access(group_access).open(path).map(drop).unwrap_err();
        let text = error.to_string();
        assert!(["chmod", "chown", "chgrp"].iter().all(|command| !text.contains(command)), "{text}");
        assert!(path == "/" || text.contains("use a directory inside it"), "{text}");
        assert_eq!(fs::metadata(path).unwrap().mode(), mode);
    }
}

/// The directory is like an empty volume of a container.
#[test]
fn a_volume_of_another_user_that_all_may_write_to_is_refused() {
    let Some(stage) = stage() else {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("volume")).unwrap();
        allow(&dir.path().join("volume"), 0o777);
        let name = "permissions::a_volume_of_another_user_that_all_may_write_to_is_refused";
        return again_as_nobody(name, dir.path());
    };
    let root = stage.join("volume");
    for group_access in [false, true] {
        let error = refusal(FileStoreOptions::new().group_access(group_access), &root);
        assert!(error.to_string().ends_with("(mode 0777); use a directory inside it"), "{error}");
        FileStore::open(root.join(format!("sessions {group_access}"))).unwrap();
    }
    let error = refusal(FileStoreOptions::new(), Path::new("/"));
    let text = "failed to open session store `/`: it belongs to user 0, this process runs as user ";
    assert!(error.to_string().starts_with(text), "{error}");
    let error = refusal(FileStoreOptions::new().group_access(true), Path::new("/"));
    assert!(error.to_string().ends_with("or use a directory of one of its groups"), "{error}");
}

#[test]
fn anothers_store_is_one_error_with_the_command_that_repairs_it() {
    if !is_root() {
        // Only the superuser can make a directory of another user, but every user can try to use `/`.
        let error = refusal(FileStoreOptions::new(), Path::new("/"));
        assert!(error.to_string().contains("it belongs to user 0"), "{error}");
        return;
    }
    let group = rustix::process::getegid().as_raw();
    for (give_away, count, first, mode) in [
        (&[""; 0][..], 262, "", "0700"),
        (&["7f"][..], 1, "/7f", "0700"),
        (&["00", "7f", "run/due"][..], 3, "", "0700"),
    ] {
        let dir = directory_in_memory();
        let root = dir.path().join("store with a space");
        let saved = made(&root);
        let some: Vec<_> = give_away.iter().map(|name| root.join(name)).collect();
        let given = if some.is_empty() { all(&root) } else { some };
        for path in given {
            chown(path, Some(NOBODY), None).unwrap();
        }
        let error = refusal(FileStoreOptions::new(), &root);
        let text = error.to_string();
        let begin = format!(
            "failed to open session store `{0}`: of its directories and files, {count} cannot be made private by \
             user 0, for instance `{0}{first}",
            root.display()
        );
        let end = format!(
            "(of user 65534, mode {mode}); to repair all: chown -R 0:{group} '{0}' && chmod -R go= '{0}'",
            root.display()
        );
        assert!(text.starts_with(&begin) && text.ends_with(&end), "{text}\n{begin}\n{end}");
        obey(&error);
        let store = FileStore::open(&root).unwrap();
        assert_eq!(load(&store, &saved[0].token).unwrap().as_deref(), Some("old"));
    }
    // In a directory that was open to others there is a file that another user has planted or left. The error names
    // only that file.
    let dir = directory_in_memory();
    let root = dir.path().join("store");
    let saved = made(&root);
    allow_all(&root, 0o770, 0o660);
    chown(path_of(&root, saved[0].live.id), Some(NOBODY), None).unwrap();
    for _ in 0..2 {
        let error = FileStoreOptions::new().observer(|_| ()).open(&root).map(drop).unwrap_err();
        assert!(error.to_string().contains(" files, 1 cannot be made private by user 0"), "{error}");
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o700);
    }
    obey(&FileStore::open(&root).map(drop).unwrap_err());
    FileStore::open(&root).unwrap();
    check_modes(&root, 0o700, 0o600);
}

#[test]
fn an_open_store_on_a_read_only_disk_is_one_error() {
    let Some(root) = stage() else {
        let dir = tempfile::tempdir().unwrap();
        made(&dir.path().join("store"));
        allow_all(&dir.path().join("store"), 0o770, 0o660);
        let name = "permissions::an_open_store_on_a_read_only_disk_is_one_error";
        let script = "mount --bind store store && mount -o remount,bind,ro store";
        return again_in_mounts(name, dir.path(), "store", &[script]);
    };
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let hear = move |event: &Event<'_>| heard.lock().unwrap().push(format!("{event:?}"));
    let error = refusal(FileStoreOptions::new().observer(hear), &root);
    assert_eq!(*events.lock().unwrap(), [""; 0], "no event was observed");
    // After a directory could not be repaired, its files are not tried.
    let tried =
        |path: &&PathBuf| *path == &root || path.is_file() || fs::read_dir(path).unwrap().next().is_none();
    let tried = all(&root).iter().filter(tried).count();
    let text = error.to_string();
    let want = format!("of its directories and files, {tried} cannot be made private by user");
    assert!(tried >= 261 && text.contains(&want), "{text}");
    assert_eq!(error.source().unwrap().to_string(), "Read-only file system (os error 30)");
}

// --------------------------------------------------------------------------------------------- it is a group's

/// The ids of a group, and of three users of whom two are members. No such users need to exist.
const GROUP: u32 = 12_345;
const USERS: [u32; 2] = [12_001, 12_002];
const STRANGER: u32 = 12_003;

/// A directory that other users can access, and in it a copy of this program that they can run.
fn common_place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    allow(dir.path(), 0o755);
    let copy = dir.path().join("tests");
    let exe = std::env::current_exe().unwrap();
    assert!(Command::new("cp").arg(exe).arg(&copy).status().unwrap().success(), "cannot copy this program");
    allow(&copy, 0o755);
    (dir, copy)
}

/// Starts a process of this user. If this process may not change its user, the child runs as the same user.
fn process_of(user: u32, groups: &str, copy: &Path, root: &Path, umask: u32) -> Child {
    let number = user.to_string();
    let other = ["setpriv", "--reuid", &number, "--regid", &number, groups];
    let command = if is_root() { &other[..] } else { &["env"] };
    let start = Start::of("user of a group").with("DIR", root).with("UMASK", umask.to_string());
    start.behind(command, copy).start()
}

fn member(user: u32, copy: &Path, root: &Path, umask: u32) -> Child {
    process_of(user, &format!("--groups={GROUP}"), copy, root, umask)
}

fn user_of_a_group(parent: &Parent) {
    let umask = u32::try_from(parent.number("UMASK")).unwrap();
    rustix::process::umask(Mode::from_raw_mode(umask));
    let options = FileStoreOptions::new().group_access(true).watch(false);
    let store = match options.open(parent.argument("DIR")) {
        Ok(store) => store,
        Err(error) => {
            return parent.report(format!("{error}, {:?}", error.source().map(ToString::to_string)));
        }
    };
    parent.report("open");
    loop {
        let line = parent.line();
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let token = || Token::parse(rest).unwrap();
        match verb {
            "create" => {
                let saved = store.create(&record(rest), Durability::PowerSafe).unwrap();
                parent.report(saved.token.expose());
            }
            "brief" => {
                let now = SystemTime::now();
                let brief = Record::new(now, now + Duration::from_millis(20));
                parent.report(store.create(&brief, Durability::Relaxed).unwrap().token.expose());
            }
            "load" => parent.report(format!("{:?}", load(&store, &token()).unwrap())),
            "plus" => {
                let saved = store.update(&token(), &mut append_plus, Durability::PowerSafe).unwrap();
                parent.report(saved.is_some());
            }
            "grow" => {
                let big = "grown".repeat(1000);
                parent.report(put(&store, &token(), &big, Durability::Relaxed).unwrap().is_some());
            }
            "rotate" => {
                let saved =
                    store.rotate(&token(), &mut append_plus, &Durability::Relaxed.into()).unwrap().unwrap();
                parent.report(saved.token.expose());
            }
            "delete" => parent.report(store.delete(&token()).unwrap().is_some()),
            "sweep" => {
                let report = store.sweep(&SweepOptions::new().full(true)).unwrap();
                assert!(report.errors.is_empty(), "{:?}", report.errors);
                parent.report(report.removed);
            }
            _ => return parent.report(format!("index_failures: {}", store.stats().files.index_failures)),
        }
    }
}

fn ask(child: &mut Child, line: &str) -> String {
    child.say(line);
    child.line()
}

#[test]
fn two_users_of_one_group_share_a_store_under_any_umask() {
    let (dir, copy) = common_place();
    for umasks in [[0o022, 0o022], [0o077, 0], [0o027, 0o777], [0o777, 0o077]] {
        let root = dir.path().join(format!("store {umasks:?}"));
        fs::create_dir(&root).unwrap();
        if is_root() {
            chown(&root, Some(USERS[0]), Some(GROUP)).unwrap();
        }
        let [mut first, mut second] = [0, 1].map(|n| {
            let child = member(USERS[n], &copy, &root, umasks[n]);
            assert_eq!(child.line(), "open");
            child
        });
        for turn in 0..2 {
            let (me, other) = if turn == 0 { (&mut first, &mut second) } else { (&mut second, &mut first) };
            let token = ask(me, "create x");
            assert_eq!(ask(other, &format!("load {token}")), "Some(\"x\")");
            assert_eq!(ask(other, &format!("plus {token}")), "true");
            assert_eq!(ask(me, &format!("load {token}")), "Some(\"x+\")");
            assert_eq!(ask(other, &format!("grow {token}")), "true");
            assert_eq!(ask(me, &format!("plus {token}")), "true");
            assert_eq!(
                ask(other, &format!("load {token}")),
                format!("{:?}", Some("grown".repeat(1000) + "+"))
            );
            let moved = ask(me, &format!("rotate {token}"));
            assert_eq!(ask(other, &format!("load {token}")), "None");
            assert_eq!(ask(other, &format!("plus {moved}")), "true");
            let again = ask(other, &format!("rotate {moved}"));
            assert_eq!(ask(other, &format!("delete {again}")), "true");
            let token = ask(me, "create y");
            assert_eq!(ask(other, &format!("delete {token}")), "true");
            assert_eq!(ask(me, &format!("load {token}")), "None");
            ask(me, "brief");
            ask(me, "create stays");
            thread::sleep(Duration::from_millis(40));
            assert_eq!(ask(other, "sweep"), "1", "umasks {umasks:?}, turn {turn}");
            assert_eq!(ask(me, "sweep"), "0");
        }
        for child in [&mut first, &mut second] {
            assert_eq!(ask(child, "end"), "index_failures: 0", "umasks {umasks:?}");
        }
        check_modes(&root, 0o2770, 0o660);
        let group = fs::metadata(&root).unwrap().gid();
        for path in all(&root) {
            assert_eq!(fs::metadata(&path).unwrap().gid(), group, "{}", path.display());
        }
        if is_root() {
            let stranger = process_of(STRANGER, "--clear-groups", &copy, &root, 0o022);
            let text = stranger.line();
            assert!(
                text.starts_with("failed to open session directory") && text.contains("denied"),
                "{text}"
            );
        }
    }
}

#[test]
fn a_group_that_the_process_is_not_of_is_refused() {
    let (dir, copy) = common_place();
    let root = dir.path().join("store");
    fs::create_dir(&root).unwrap();
    if !is_root() {
        // This process cannot start one of another user. But it can use a directory of a group that it is no member of.
        let error = refusal(FileStoreOptions::new().group_access(true), Path::new("/"));
        assert!(error.to_string().contains("of which this process is no member"), "{error}");
        return;
    }
    chown(&root, Some(STRANGER), Some(GROUP)).unwrap();
    let text = process_of(STRANGER, "--clear-groups", &copy, &root, 0o022).line();
    let want = format!(
        "failed to open session store `{}`: it belongs to group {GROUP}, of which this process is no member; run \
         the process with that group, or use a directory of one of its groups, None",
        root.display()
    );
    assert_eq!(text, want);
    // A directory of another user can become a group's store if it has the required mode.
    chown(&root, Some(0), Some(GROUP)).unwrap();
    let text = member(USERS[0], &copy, &root, 0o022).line();
    assert!(text.contains("it belongs to user 0, and has not the mode 2770 (but 0755)"), "{text}");
    allow(&root, 0o2775);
    let mut child = member(USERS[0], &copy, &root, 0o022);
    assert_eq!(child.line(), "open");
    ask(&mut child, "create x");
    let mut child = member(USERS[1], &copy, &root, 0o022);
    assert_eq!(child.line(), "open");
    assert_eq!(ask(&mut child, "end"), "index_failures: 0");
    // If one user has closed a shard, opening is an error for the other users, with the remedy.
    allow(&root.join("7f"), 0o700);
    allow(&root.join("80"), 0o2750);
    let text = member(USERS[1], &copy, &root, 0o022).line();
    let want =
        format!("of its directories and files, 2 cannot be made accessible to group {GROUP} by user 12002");
    assert!(text.contains(&want), "{text}");
    let (_, command) = text.split_once("to repair all: ").unwrap();
    let (command, _) = command.rsplit_once(", None").unwrap();
    assert!(Command::new("sh").args(["-ec", command]).status().unwrap().success(), "{command}");
    assert_eq!(member(USERS[1], &copy, &root, 0o022).line(), "open");
    // The shard's owner repairs it by opening the store, without an error.
    allow(&root.join("7f"), 0o700);
    assert_eq!(member(USERS[0], &copy, &root, 0o022).line(), "open");
}

#[test]
fn what_another_member_opened_to_all_users_is_refused() {
    if !is_root() {
        // This process cannot make a directory of another user.
        return check_repaired("a shard", |root, _| allow(&root.join("7f"), 0o702), (1, 1));
    }
    let (dir, copy) = common_place();
    let root = dir.path().join("store");
    fs::create_dir(&root).unwrap();
    chown(&root, Some(USERS[0]), Some(GROUP)).unwrap();
    assert_eq!(member(USERS[0], &copy, &root, 0o022).line(), "open");
    for name in ["7f", "run"] {
        allow(&root.join(name), 0o2775);
        let text = member(USERS[1], &copy, &root, 0o022).line();
        let want = format!("1 cannot be made accessible to group {GROUP} by user {}", USERS[1]);
        assert!(text.contains(&want) && text.contains(&format!("/{name}`")), "{text}");
        // Opening by the owner repairs the mode.
        assert_eq!(member(USERS[0], &copy, &root, 0o022).line(), "open");
        check_modes(&root, 0o2770, 0o660);
    }
}

#[test]
fn a_store_changes_between_its_user_and_its_group_and_back() {
    let dir = directory_in_memory();
    let root = dir.path().join("store");
    let saved = made(&root);
    let all_of_it = u64::try_from(all(&root).len()).unwrap();
    for _ in 0..2 {
        for (group_access, directories, files) in [(true, 0o2770, 0o660), (false, 0o700, 0o600)] {
            let (options, events) = observed();
            let store = options.group_access(group_access).open(&root).unwrap();
            check_modes(&root, directories, files);
            for (saved, text) in saved.iter().zip(["old", "other"]) {
                assert_eq!(load(&store, &saved.token).unwrap().as_deref(), Some(text));
            }
            let want = if group_access { &[][..] } else { &[(all_of_it, all_of_it)] };
            assert_eq!(*events.lock().unwrap(), want, "group access: {group_access}");
        }
    }
    // In a group's store, files to which all users may write are reported, too.
    FileStoreOptions::new().group_access(true).open(&root).unwrap();
    allow(&root, 0o2777);
    allow(&root.join("7f"), 0o2775);
    let (options, events) = observed();
    options.group_access(true).open(&root).unwrap();
    assert_eq!(*events.lock().unwrap(), [(2, 1)]);
    check_modes(&root, 0o2770, 0o660);
}

/// The command `sessile` does not take a store away from its group.
#[test]
fn the_command_leaves_a_groups_store_to_its_group() {
    let dir = directory_in_memory();
    let root = dir.path().join("store");
    drop(FileStoreOptions::new().group_access(true).open(&root).unwrap());
    for verb in ["stat", "sweep", "verify"] {
        let output = Command::new(env!("CARGO_BIN_EXE_sessile")).arg(verb).arg(&root).output().unwrap();
        assert!(output.status.success(), "{verb}: {output:?}");
        check_modes(&root, 0o2770, 0o660);
    }
}

/// The mode of a store's root may have been changed by mistake. The command neither gives other users access because of
/// that, nor takes it from them.
#[test]
fn the_command_changes_no_mode_and_refuses_what_disagrees() {
    for (group_access, name, mode, want) in [
        (false, "", 0o2770, "(2770) it is accessible to group"),
        (false, "7f", 0o755, "(0700) it is private, and 1 of"),
        (true, "", 0o770, "(0770) it is private"),
        (true, "7f", 0o700, "(2770) it is accessible to group"),
    ] {
        let change = |root: &Path| allow(&root.join(name), mode);
        let dir = directory_in_memory();
        let root = dir.path().join("store");
        drop(FileStoreOptions::new().group_access(group_access).open(&root).unwrap());
        change(&root);
        let before = modes(&root);
        for verb in [&["sweep"][..], &["verify", "--repair"], &["delete"], &["import"]] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_sessile"));
            command
                .args(verb)
                .arg(&root)
                .env("SESSILE_ID", "a".repeat(32))
                .stdin(std::process::Stdio::null());
            let output = command.output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(1) && text.contains(want), "{verb:?}: {output:?}");
            assert_eq!(modes(&root), before, "{verb:?}");
        }
        // The remedies in the error: to start the store's program, or to run a command.
        let error = refusal(FileStoreOptions::new().keep_modes(true), &root).to_string();
        let (_, commands) = error.split_once("to make all private: ").unwrap();
        let (private, groups) = commands.split_once("; or, to give all to the group: ").unwrap();
        let command = if group_access { groups } else { private };
        assert!(Command::new("sh").args(["-ec", command]).status().unwrap().success(), "{command}");
        FileStoreOptions::new().keep_modes(true).open(&root).unwrap();
        change(&root);
        FileStoreOptions::new().group_access(group_access).observer(|_| ()).open(&root).unwrap();
        FileStoreOptions::new().keep_modes(true).open(&root).unwrap();
    }
}

#[test]
fn an_exposed_store_is_reported_on_standard_error() {
    let dir = directory_in_memory();
    // The path contains characters that end a line, or reverse its direction.
    let root = dir.path().join("store\u{2028}\u{202e}");
    let errors = dir.path().join("errors");
    drop(FileStoreOptions::new().group_access(true).open(&root).unwrap());
    let open = || {
        let start = Start::of("user of a group").with("DIR", &root).with("UMASK", "0");
        let mut child = start.stderr_to(fs::File::create(&errors).unwrap()).start();
        assert_eq!(child.line(), "open");
        assert_eq!(ask(&mut child, "end"), "index_failures: 0");
        child.finish();
        fs::read_to_string(&errors).unwrap()
    };
    allow(&root.join("7f"), 0o2775);
    let begin = format!(
        "sessile: session store `{}` was open to other users and is private again: ",
        dir.path().join(r"store\u{2028}\u{202e}").display()
    );
    let end = "1 of its directories and files, of which they could write to 0\n";
    assert_eq!(open(), format!("{begin}{end}"));
    allow(&root, 0o2777);
    let end = "3 of its directories and files, of which they could write to 1; sessions may have been planted there\n";
    allow(&root.join("sessile.json"), 0o664);
    allow(&root.join("run/due"), 0o2771);
    assert_eq!(open(), format!("{begin}{end}"));
    assert_eq!(open(), "");
}
