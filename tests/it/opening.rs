//! Opening a store makes missing parts, private under any umask. A directory that is not a store of this crate is
//! refused with the reason, and not changed. Sessions that were stored before are there afterwards.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use crate::support::process::{Child, Parent, Start, Worker};
use crate::support::rerun::{again, again_as_nobody, again_in_mounts, stage};
use crate::support::texts::{append_plus, directory_in_memory, load, path_of, put, record};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use sessile::{Durability, Error, ErrorKind, Event, FileStore, FileStoreOptions, Saved, Store};
use std::collections::BTreeMap;
use std::error::Error as _;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const WORKERS: &[(&str, Worker)] = &[("keep open", keep_open)];

const PARAMETERS: &str = "sessile.json";
const OURS: &str = "{\"format\":2,\"shards\":256,\"public_id\":\"blake3-160\",\"cut_offs\":true}\n";

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn shards_of(root: &Path) -> impl Iterator<Item = PathBuf> {
    (0..256).map(|n| root.join(format!("{n:02x}")))
}

/// All files below a directory, each with its mode, including that of its kind, and its contents.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let contents = if kind.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|name| name.unwrap().path()));
            Vec::new()
        } else if kind.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else if kind.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        found.insert(path, (metadata.mode(), contents));
    }
    found
}

/// Makes a store with one session.
fn made(root: &Path) -> Saved {
    FileStore::open(root).unwrap().create(&record("old"), Durability::PowerSafe).unwrap()
}

#[track_caller]
fn check_in_order(root: &Path) {
    assert_eq!(fs::read_to_string(root.join(PARAMETERS)).unwrap(), OURS);
    for shard in shards_of(root) {
        assert!(fs::symlink_metadata(&shard).unwrap().is_dir(), "{}", shard.display());
    }
    let store = FileStore::open(root).unwrap();
    let saved = store.create(&record("x"), Durability::PowerSafe).unwrap();
    assert_eq!(load(&store, &saved.token).unwrap().as_deref(), Some("x"));
    assert!(store.delete(&saved.token).unwrap().is_some());
}

// -------------------------------------------------------------------------------------------------- it makes

#[test]
fn a_new_store_has_the_documented_names_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("sessions");
    let store = FileStore::open(&root).unwrap();
    assert_eq!(store.path(), root);
    // The root, its files, 256 shards, `run`, and in `run` its tag, the counters, the expiry index and the file that
    // sweeps lock, and the user index with its marker and its map.
    assert_eq!(tree(&root).len(), 1 + 2 + 256 + 1 + 4 + 3);
    check_in_order(&root);
}

#[test]
fn directories_are_0700_and_files_0600_under_any_umask() {
    let Some(stage) = stage() else {
        let dir = tempfile::tempdir().unwrap();
        // The test needs a user to whom the mode of that user's own files applies, as it does not to root.
        return again_as_nobody("opening::directories_are_0700_and_files_0600_under_any_umask", dir.path());
    };
    let usual = Mode::from_raw_mode(0o022);
    for umask in [0, 0o077, 0o277, 0o477, 0o777] {
        let root = stage.join(format!("store under {umask:o}"));
        rustix::process::umask(Mode::from_raw_mode(umask));
        let stored = FileStore::open(&root).and_then(|store| {
            let relaxed = store.create(&record("relaxed"), Durability::Relaxed)?;
            let safe = store.create(&record("safe"), Durability::PowerSafe)?;
            put(&store, &safe.token, &"grown".repeat(1000), Durability::Relaxed)?;
            let moved = store.rotate(&relaxed.token, &mut append_plus, &Durability::Relaxed.into())?.unwrap();
            let store = FileStore::open(&root)?;
            Ok((load(&store, &moved.token)?, load(&store, &safe.token)?))
        });
        rustix::process::umask(usual);
        let (moved, grown) = stored.unwrap_or_else(|error| panic!("umask {umask:04o}: {error:?}"));
        assert_eq!((moved.as_deref(), grown), (Some("relaxed+"), Some("grown".repeat(1000))));
        let tree = tree(&root);
        assert_eq!(tree.len(), 1 + 2 + 256 + 1 + 8 + 2);
        for (path, (mode, _)) in tree {
            let want = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode & 0o7777, want, "{} under umask {umask:04o}", path.display());
        }
    }
    // The directory of a store whose creation was interrupted under such a umask.
    let root = stage.join("cut short");
    fs::create_dir(&root).unwrap();
    for (shard, mode) in shards_of(&root).zip([0, 0o500, 0o200, 0o100]) {
        fs::create_dir(&shard).unwrap();
        allow(&shard, mode);
    }
    FileStore::open(&root).unwrap();
    assert!(shards_of(&root).all(|shard| mode_of(&shard) == 0o700));
    check_in_order(&root);
    // The file with the counters was left without its mode, too, which is set after the file is made.
    allow(&root.join(GENERATIONS), 0);
    FileStore::open(&root).unwrap();
    assert_eq!(mode_of(&root.join(GENERATIONS)), 0o600);
}

#[track_caller]
fn check_finished(what: &str, leave: impl FnOnce(&Path)) {
    let dir = directory_in_memory();
    leave(dir.path());
    FileStore::open(dir.path()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert!(shards_of(dir.path()).all(|shard| mode_of(&shard) == 0o700), "{what}");
    check_in_order(dir.path());
}

#[test]
fn what_an_unfinished_making_left_is_finished() {
    let make = |shards: &mut dyn Iterator<Item = PathBuf>| {
        for shard in shards {
            fs::create_dir(shard).unwrap();
        }
    };
    check_finished("an empty directory", |_| ());
    check_finished("a fresh file system", |root| fs::create_dir(root.join("lost+found")).unwrap());
    check_finished("some shards", |root| make(&mut shards_of(root).step_by(7)));
    check_finished("all shards", |root| make(&mut shards_of(root)));
    check_finished("parameters that have not their name yet", |root| {
        make(&mut shards_of(root));
        fs::create_dir(root.join("lost+found")).unwrap();
        fs::write(root.join(".new-3f8a"), "{\"form").unwrap();
        fs::write(root.join(".new-0"), OURS).unwrap();
    });
}

#[test]
fn a_store_may_be_reached_through_a_link() {
    let dir = directory_in_memory();
    let (root, link) = (dir.path().join("store"), dir.path().join("link"));
    let saved = made(&root);
    symlink(&root, &link).unwrap();
    let store = FileStore::open(&link).unwrap();
    assert_eq!(load(&store, &saved.token).unwrap().as_deref(), Some("old"));
}

#[test]
fn a_relative_path_is_resolved_once() {
    let Some(stage) = stage() else {
        let dir = tempfile::tempdir().unwrap();
        let name = "opening::a_relative_path_is_resolved_once";
        return again(name, dir.path());
    };
    for relative in ["store", "./other", "third/", "deeper/../fourth"] {
        fs::create_dir_all(stage.join("deeper")).unwrap();
        std::env::set_current_dir(&stage).unwrap();
        let store = FileStore::open(relative).unwrap();
        assert_eq!(store.path(), Path::new(relative));
        let saved = store.create(&record("old"), Durability::PowerSafe).unwrap();
        std::env::set_current_dir("/").unwrap();
        let big = "big".repeat(1000);
        put(&store, &saved.token, &big, Durability::PowerSafe).unwrap().unwrap();
        assert_eq!(load(&store, &saved.token).unwrap(), Some(big.clone()));
        assert!(path_of(&stage.join(relative), saved.live.id).exists());
        assert_eq!(load(&FileStore::open(stage.join(relative)).unwrap(), &saved.token).unwrap(), Some(big));
    }
}

/// The parent directory cannot be read by its user. One store is there already, and one is made.
#[test]
fn a_store_is_made_below_a_parent_that_cannot_be_read() {
    let Some(stage) = stage() else {
        let dir = tempfile::tempdir().unwrap();
        return again_as_nobody("opening::a_store_is_made_below_a_parent_that_cannot_be_read", dir.path());
    };
    let parent = stage.join("closed");
    fs::create_dir_all(parent.join("there before")).unwrap();
    allow(&parent, 0o300);
    assert_eq!(fs::read_dir(&parent).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    check_in_order_after_opening(&parent.join("made"));
    allow(&parent, 0o100);
    check_in_order_after_opening(&parent.join("there before"));
    allow(&parent, 0o700);
}

#[track_caller]
fn check_in_order_after_opening(root: &Path) {
    FileStore::open(root).unwrap();
    check_in_order(root);
}

/// The parent is on a file system that cannot sync, such as a read-only image. `/proc` answers in the same way.
#[test]
fn a_store_is_made_on_a_mount_whose_parent_cannot_be_synced() {
    let Some(_) = stage() else {
        let dir = tempfile::tempdir().unwrap();
        let name = "opening::a_store_is_made_on_a_mount_whose_parent_cannot_be_synced";
        let script = "mount -t tmpfs -o mode=0700 none /proc/fs";
        return again_in_mounts(name, dir.path(), "unused", &[script]);
    };
    let refusal = File::open("/proc").unwrap().sync_all().unwrap_err();
    assert_eq!(refusal.kind(), std::io::ErrorKind::InvalidInput, "{refusal}");
    check_in_order_after_opening(Path::new("/proc/fs"));
}

#[test]
fn opening_again_keeps_sessions_and_parameters() {
    let dir = directory_in_memory();
    let root = dir.path().join("store");
    let saved = made(&root);
    let inode = fs::metadata(root.join(PARAMETERS)).unwrap().ino();
    let before = tree(&root);
    for _ in 0..3 {
        let store = FileStore::open(&root).unwrap();
        assert_eq!(load(&store, &saved.token).unwrap().as_deref(), Some("old"));
    }
    assert_eq!(tree(&root), before);
    assert_eq!(fs::metadata(root.join(PARAMETERS)).unwrap().ino(), inode);
    // Without its parameters file, the store looks like one whose creation was interrupted.
    fs::remove_file(root.join(PARAMETERS)).unwrap();
    let store = FileStore::open(&root).unwrap();
    assert_eq!(load(&store, &saved.token).unwrap().as_deref(), Some("old"));
    assert_eq!(tree(&root), before);
}

#[test]
fn all_who_open_a_new_store_at_once_get_the_same_one() {
    const OPENERS: usize = 8;
    for _ in 0..5 {
        let dir = directory_in_memory();
        let root = dir.path().join("store");
        let (start, made) = (Barrier::new(OPENERS), Barrier::new(OPENERS));
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..OPENERS {
                let sender = sender.clone();
                let (root, start, made) = (&root, &start, &made);
                scope.spawn(move || {
                    start.wait();
                    let store = FileStore::open(root);
                    made.wait();
                    let store = store.unwrap();
                    sender.send(store.create(&record("x"), Durability::Relaxed).unwrap().token).unwrap();
                });
            }
        });
        drop(sender);
        let store = FileStore::open(&root).unwrap();
        let tokens: Vec<_> = receiver.iter().collect();
        assert_eq!(tokens.len(), OPENERS);
        for token in tokens {
            assert_eq!(load(&store, &token).unwrap().as_deref(), Some("x"));
        }
        assert_eq!(tree(&root).len(), 1 + 2 + 256 + 1 + 8 + OPENERS, "a temporary file is left");
    }
}

// ------------------------------------------------------------------------------------------------ it refuses

/// Asserts that opening is refused with this text, in which `DIR` stands for the directory, and that the directory does
/// not change.
#[track_caller]
fn check_refused(prepare: impl FnOnce(&Path), kind: ErrorKind, text: &str, because: Option<&str>) {
    let dir = directory_in_memory();
    let root = dir.path().join("store");
    prepare(&root);
    let before = tree(dir.path());
    let error = refused(&root);
    assert_eq!(error.to_string(), text.replace("DIR", root.to_str().unwrap()), "{error:?}");
    assert_eq!(error.kind(), kind, "{error:?}");
    assert_eq!(error.source().map(ToString::to_string).as_deref(), because, "{error:?}");
    assert_eq!(tree(dir.path()), before, "it was changed: {text}");
}

/// The error of an opening. It must come soon, although a pipe may be in place of a file.
#[track_caller]
fn refused(root: &Path) -> Error {
    let (sender, receiver) = mpsc::channel();
    let path = root.to_owned();
    thread::spawn(move || sender.send(FileStore::open(path).err()).unwrap());
    let answer = receiver.recv_timeout(Duration::from_secs(5));
    let error = answer.unwrap_or_else(|_| panic!("opening {} takes more than 5 seconds", root.display()));
    error.unwrap_or_else(|| panic!("{} was opened", root.display()))
}

#[test]
fn a_directory_that_holds_anything_else_is_refused() {
    for name in ["index.html", ".git", "AB", "abc", "0g", "lost", "sessile.json.bak", "new-1", "due "] {
        let text = format!(
            "failed to make a session store in `DIR`: it holds something else (`{name}`); give the store a \
             directory of its own"
        );
        let file = |root: &Path| {
            fs::create_dir(root).unwrap();
            fs::write(root.join(name), "").unwrap();
        };
        check_refused(file, ErrorKind::NotASessionStore, &text, None);
        let directory_among_ours = |root: &Path| {
            fs::create_dir_all(root.join(name)).unwrap();
            shards_of(root).for_each(|shard| fs::create_dir(shard).unwrap());
        };
        check_refused(directory_among_ours, ErrorKind::NotASessionStore, &text, None);
    }
}

/// Makes a store that has these bytes as its parameters file.
fn with_parameters(parameters: &[u8]) -> impl FnOnce(&Path) {
    move |root| {
        made(root);
        fs::write(root.join(PARAMETERS), parameters).unwrap();
    }
}

#[test]
fn a_store_of_a_newer_format_is_refused() {
    for (format, parameters) in [
        ("3", "{\"format\":3,\"shards\":256,\"public_id\":\"blake3-160\"}"),
        ("4", "{\"of\":[\"another\",{\"kind\":null}],\"format\":4}"),
        ("18446744073709551615", "{\"format\":18446744073709551615}"),
    ] {
        let text = format!(
            "failed to read the parameters of session store `DIR/sessile.json`: the store has format \
             {format}, this version knows 2"
        );
        check_refused(with_parameters(parameters.as_bytes()), ErrorKind::NewerFormat, &text, None);
    }
}

#[test]
fn a_store_of_the_earlier_format_is_refused_with_the_way_to_move_it() {
    for parameters in
        ["{\"format\":1,\"shards\":256,\"public_id\":\"blake3-160\"}", "{\"format\":1,\"anything\":\"else\"}"]
    {
        let text = "failed to read the parameters of session store `DIR/sessile.json`: the store has format 1, this \
                    version knows 2; run `sessile export` of the version of sessile that wrote it, and `sessile import` \
                    of this one into a new directory";
        check_refused(with_parameters(parameters.as_bytes()), ErrorKind::OlderFormat, text, None);
    }
}

#[test]
fn parameters_that_are_not_ours_are_refused() {
    let operation = "failed to read the parameters of session store `DIR/sessile.json`";
    let text = format!("{operation}: these are not the parameters of a session store");
    for parameters in [
        "{}",
        "[]",
        "17",
        "null",
        "{\"format\":2}",
        "{\"format\":0,\"shards\":256,\"public_id\":\"blake3-160\"}",
        "{\"format\":-1,\"shards\":256,\"public_id\":\"blake3-160\"}",
        "{\"format\":\"2\",\"shards\":256,\"public_id\":\"blake3-160\"}",
        "{\"format\":2,\"shards\":16,\"public_id\":\"blake3-160\"}",
        "{\"format\":2,\"shards\":256,\"public_id\":\"sha256\"}",
        "{\"format\":2,\"shards\":99999999,\"public_id\":\"blake3-160\"}",
    ] {
        check_refused(with_parameters(parameters.as_bytes()), ErrorKind::NotASessionStore, &text, None);
    }
    let text = format!(
        "{operation}: it holds no JSON; if sessions are beside it, FileStore::repair or `sessile verify --repair` recreates it"
    );
    let operation = &*text;
    let eof = "EOF while parsing a value at line 1 column 0";
    check_refused(with_parameters(b""), ErrorKind::NotASessionStore, operation, Some(eof));
    let because = "expected value at line 1 column 1";
    check_refused(with_parameters(b"<html>"), ErrorKind::NotASessionStore, operation, Some(because));
    check_refused(with_parameters(&[0xff; 64]), ErrorKind::NotASessionStore, operation, Some(because));
    check_refused(with_parameters(&[0; 64]), ErrorKind::NotASessionStore, operation, Some(because));
    let deep = [b"[".repeat(1000), b"]".repeat(1000)].concat();
    let because = "recursion limit exceeded at line 1 column 128";
    check_refused(with_parameters(&deep), ErrorKind::NotASessionStore, operation, Some(because));
}

/// The parameters file is a sparse file of a tebibyte.
#[test]
fn huge_parameters_are_refused_without_reading_them_all() {
    let dir = directory_in_memory();
    let root = dir.path().join("store");
    made(&root);
    File::options().write(true).open(root.join(PARAMETERS)).unwrap().set_len(1 << 40).unwrap();
    let error = refused(&root);
    assert_eq!(error.kind(), ErrorKind::NotASessionStore, "{error:?}");
}

/// Makes a store that has a pipe, a link or a directory in place of one of its files.
fn with_planted(name: &'static str, plant: impl FnOnce(&Path)) -> impl FnOnce(&Path) {
    move |root| {
        made(root);
        let aside = root.parent().unwrap().join("aside");
        fs::rename(root.join(name), &aside).unwrap();
        plant(&root.join(name));
    }
}

const IN_ITS_PLACE: &str = "a link, pipe, directory or device is in its place";

#[test]
fn a_link_or_pipe_in_place_of_the_parameters_is_refused() {
    let text = format!("failed to read the parameters of session store `DIR/sessile.json`: {IN_ITS_PLACE}");
    // The link leads to the right parameters file, which was moved, or to no file.
    let link = with_planted(PARAMETERS, |place| symlink("../aside", place).unwrap());
    let because = "Too many levels of symbolic links (os error 40)";
    check_refused(link, ErrorKind::NotASessionFile, &text, Some(because));
    let link = with_planted(PARAMETERS, |place| symlink("nowhere", place).unwrap());
    check_refused(link, ErrorKind::NotASessionFile, &text, Some(because));
    let directory = with_planted(PARAMETERS, |place| fs::create_dir(place).unwrap());
    check_refused(directory, ErrorKind::NotASessionFile, &text, Some("Is a directory (os error 21)"));
    let pipe = with_planted(PARAMETERS, |place| {
        mknodat(CWD, place, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    });
    check_refused(pipe, ErrorKind::NotASessionFile, &text, Some("Illegal seek (os error 29)"));
}

/// Some backups leave out empty directories, such as shards without sessions.
#[test]
fn missing_shards_are_recreated_at_opening_and_named() {
    for (missing, names) in [(vec!["7f"], "7f"), (vec!["ff", "00", "7f"], "00, 7f, ff")] {
        let dir = directory_in_memory();
        let root = dir.path().join("store");
        made(&root);
        for shard in &missing {
            fs::remove_dir_all(root.join(shard)).unwrap();
        }
        let missing_still = || missing.iter().any(|shard| !root.join(shard).exists());
        // With `create(false)`, the opening recreates nothing.
        let error = FileStoreOptions::new().create(false).open(&root).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        let text = error.to_string();
        assert!(missing_still() && text.starts_with("failed to open shard directory `"), "{text}");
        assert!(
            text.contains("it is lost; FileStore::repair or `sessile verify --repair` recreates it"),
            "{text}"
        );
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&events);
        let observer = move |event: &Event<'_>| told.lock().unwrap().push(format!("{event:?}"));
        let open = || FileStoreOptions::new().observer(observer.clone()).open(&root).unwrap();
        let store = open();
        assert!(missing.iter().all(|shard| mode_of(&root.join(shard)) == 0o700));
        let quoted = names.split(", ").map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        let want = format!("ShardsRecreated {{ path: {root:?}, shards: [{quoted}] }}");
        assert_eq!(*events.lock().unwrap(), [want]);
        drop((store, open()));
        assert_eq!(events.lock().unwrap().len(), 1, "none is missing any more");
        check_in_order(&root);
    }
}

#[test]
fn lost_parameters_are_not_recreated_in_silence() {
    let dir = directory_in_memory();
    let root = dir.path().join("store");
    FileStore::open(&root).unwrap().create(&record("x"), Durability::Relaxed).unwrap();
    fs::remove_file(root.join(PARAMETERS)).unwrap();
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&events);
    let observer = move |event: &Event<'_>| told.lock().unwrap().push(format!("{event:?}"));
    let open = || FileStoreOptions::new().observer(observer.clone()).open(&root).unwrap();
    drop((open(), open()));
    assert_eq!(*events.lock().unwrap(), [format!("ParametersRecreated {{ path: {root:?} }}")]);
}

#[test]
fn what_is_no_directory_in_place_of_a_shard_is_refused() {
    let text = format!("failed to open shard directory `DIR/7f`: {IN_ITS_PLACE}");
    let no_directory = "Not a directory (os error 20)";
    let file = with_planted("7f", |place| fs::write(place, "").unwrap());
    check_refused(file, ErrorKind::NotASessionFile, &text, Some(no_directory));
    let link = with_planted("7f", |place| symlink("../aside", place).unwrap());
    check_refused(link, ErrorKind::NotASessionFile, &text, Some(no_directory));
}

/// A link is not followed while the store is being made either. Another user who can plant a link must not decide where
/// sessions are stored, or whose mode is changed.
#[test]
fn making_a_store_follows_no_link_in_place_of_a_shard() {
    let dir = directory_in_memory();
    let (root, elsewhere) = (dir.path().join("store"), dir.path().join("elsewhere"));
    for path in [&root, &elsewhere] {
        fs::create_dir(path).unwrap();
    }
    allow(&elsewhere, 0o755);
    symlink(&elsewhere, root.join("7f")).unwrap();
    let error = refused(&root);
    assert_eq!(error.kind(), ErrorKind::NotASessionFile, "{error:?}");
    assert_eq!(mode_of(&elsewhere), 0o755);
    assert!(!root.join(PARAMETERS).exists(), "it counts as made");
}

#[test]
fn a_path_that_is_no_directory_is_refused() {
    let missing = Some("No such file or directory (os error 2)");
    let dir = directory_in_memory();
    let error = refused(&dir.path().join("missing/store"));
    let text = format!("failed to create session directory `{}/missing/store`", dir.path().display());
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Io, text));
    assert_eq!(error.source().map(ToString::to_string).as_deref(), missing);
    assert!(!dir.path().join("missing").exists(), "parents are not made");

    let text = "failed to open session directory `DIR`";
    let file = |root: &Path| fs::write(root, "mine").unwrap();
    check_refused(file, ErrorKind::Io, text, Some("Not a directory (os error 20)"));
    let dangling = |root: &Path| symlink("nowhere", root).unwrap();
    check_refused(dangling, ErrorKind::Io, text, missing);
    assert_eq!(refused(Path::new("")).kind(), ErrorKind::Io);
}

#[test]
fn options_out_of_bounds_are_refused_before_anything_is_made() {
    let dir = directory_in_memory();
    let root = dir.path().join("store");
    let options = FileStoreOptions::new;
    let lock_wait = "the lock wait must be 1 ms to 60 s";
    let record_limit = "the record limit must be 2 KiB to 16 MiB";
    let entry_limit = "the entry limit must be 1 to 65,536";
    let (millisecond, minute) = (Duration::from_millis(1), Duration::from_secs(60));
    for (options, reason) in [
        (options().lock_wait(Duration::ZERO), lock_wait),
        (options().lock_wait(Duration::from_nanos(999_999)), lock_wait),
        (options().lock_wait(minute + Duration::from_nanos(1)), lock_wait),
        (options().lock_wait(Duration::MAX), lock_wait),
        (options().record_bytes_max(0), record_limit),
        (options().record_bytes_max(2047), record_limit),
        (options().record_bytes_max((16 << 20) + 1), record_limit),
        (options().record_bytes_max(usize::MAX), record_limit),
        (options().entries_max(0), entry_limit),
        (options().entries_max(65_537), entry_limit),
        (
            options().durability(Durability::OfStore),
            "the store's own durability must be Relaxed or PowerSafe",
        ),
    ] {
        let error = options.open(&root).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(error.to_string(), format!("failed to open session store: {reason}"));
        assert!(!root.exists());
    }
    for options in [
        options().lock_wait(millisecond).record_bytes_max(2048).entries_max(1),
        options().lock_wait(minute).record_bytes_max(16 << 20).entries_max(65_536),
    ] {
        options.open(&root).unwrap();
    }
    check_in_order(&root);
}

// ------------------------------------------------------------------------------------ how the directory is shared

const SHORT_WAIT: Duration = Duration::from_millis(60);
/// The time in which an operation must return on a busy machine.
const SOON: Duration = Duration::from_secs(10);
/// The sizes of the caches: one store has a cache, and one has none.
const CACHES: [usize; 2] = [32 << 20, 0];

/// Options without a watcher, because it plays no part in these tests.
fn with_cache(cache_bytes: usize) -> FileStoreOptions {
    FileStoreOptions::new().watch(false).cache_bytes(cache_bytes).lock_wait(SHORT_WAIT)
}

fn keep_open(parent: &Parent) {
    let cache_bytes = usize::try_from(parent.number("CACHE")).unwrap();
    let store = with_cache(cache_bytes).open(parent.argument("DIR")).unwrap();
    parent.report("open");
    parent.line();
    drop(store);
    parent.report("closed");
}

/// Starts another process that has the store open.
fn kept_open(root: &Path, cache_bytes: usize) -> Child {
    let child = Start::of("keep open").with("DIR", root).with("CACHE", cache_bytes.to_string()).start();
    assert_eq!(child.line(), "open");
    child
}

#[test]
fn a_store_whose_directory_is_locked_opens_when_it_is_free() {
    let dir = directory_in_memory();
    let root = dir.path().join("store");
    drop(with_cache(0).open(&root).unwrap());
    for cache_bytes in CACHES {
        let locked = File::open(&root).unwrap();
        locked.lock().unwrap();
        let began = Instant::now();
        let error = with_cache(cache_bytes).open(&root).unwrap_err();
        let took = began.elapsed();
        assert!((SHORT_WAIT..SOON).contains(&took), "refused after {took:?}: {error}");
        assert_eq!((error.kind(), error.path()), (ErrorKind::InUse, Some(&*root)));
        let text = "another process has locked the directory";
        assert_eq!(error.to_string(), format!("failed to open session store `{}`: {text}", root.display()));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| with_cache(cache_bytes).lock_wait(6 * SOON).open(&root).map(drop));
            thread::sleep(Duration::from_millis(50));
            assert!(!waiting.is_finished(), "it was not kept waiting");
            drop(locked);
            let began = Instant::now();
            waiting.join().unwrap().unwrap();
            assert!(began.elapsed() < SOON);
        });
    }
}

#[test]
fn any_number_of_handles_and_processes_share_a_store() {
    let dir = directory_in_memory();
    let sharing = [CACHES, CACHES].concat();
    let open = |cache_bytes: &usize| with_cache(*cache_bytes).open(dir.path()).unwrap();
    let stores: Vec<_> = sharing.iter().map(open).collect();
    let children: Vec<_> = sharing.iter().map(|cache_bytes| kept_open(dir.path(), *cache_bytes)).collect();
    let saved = stores[0].create(&record("old"), Durability::Relaxed).unwrap();
    for (n, writer) in stores.iter().enumerate() {
        put(writer, &saved.token, &format!("by {n}"), Durability::Relaxed).unwrap().unwrap();
        for reader in &stores {
            for _ in 0..2 {
                assert_eq!(load(reader, &saved.token).unwrap(), Some(format!("by {n}")));
            }
        }
    }
    drop(children);
}

// ------------------------------------------------------------------------------------------------- the counters' file

const GENERATIONS: &str = "run/generations";
const GENERATIONS_BYTES: u64 = (2 << 20) + 4096;

fn resize(path: &Path, bytes: u64) {
    File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

/// The sizes that the file of the counters may have; `None` if it is missing.
const DAMAGES: [Option<u64>; 6] =
    [None, Some(0), Some(1), Some(GENERATIONS_BYTES - 1), Some(GENERATIONS_BYTES + 1), Some(1 << 40)];

fn damage(root: &Path, bytes: Option<u64>) {
    let path = root.join(GENERATIONS);
    match bytes {
        Some(bytes) => resize(&path, bytes),
        None => fs::remove_file(path).unwrap(),
    }
}

#[test]
fn missing_or_misshapen_counters_are_recreated() {
    for bytes in DAMAGES {
        for cache_bytes in CACHES {
            let dir = directory_in_memory();
            let root = dir.path().join("store");
            let saved = made(&root);
            damage(&root, bytes);
            let open = |cache_bytes| with_cache(cache_bytes).open(&root).unwrap();
            let stores = [open(cache_bytes), open(CACHES[0])];
            let made = fs::metadata(root.join(GENERATIONS)).unwrap();
            assert_eq!((made.len(), made.mode() & 0o7777), (GENERATIONS_BYTES, 0o600), "{bytes:?}");
            for store in &stores {
                assert_eq!(load(store, &saved.token).unwrap().as_deref(), Some("old"));
            }
            // Each process sees the saves of the other.
            for (writer, reader, text) in [(0, 1, "new"), (1, 0, "newer")] {
                put(&stores[writer], &saved.token, text, Durability::Relaxed).unwrap().unwrap();
                assert_eq!(load(&stores[reader], &saved.token).unwrap().as_deref(), Some(text), "{bytes:?}");
            }
            drop(stores);
            check_in_order(&root);
        }
    }
}

/// The damaged file is replaced by another file. A process that has mapped the damaged one switches to the new one, and
/// is not killed if the old one is shortened again.
#[test]
fn damaged_counters_are_replaced_under_a_running_process() {
    for bytes in DAMAGES {
        for cache_bytes in CACHES {
            let dir = directory_in_memory();
            let root = dir.path().join("store");
            let saved = made(&root);
            let mut child = kept_open(&root, cache_bytes);
            let aside = dir.path().join("aside");
            fs::hard_link(root.join(GENERATIONS), &aside).unwrap();
            damage(&root, bytes);
            let store = with_cache(CACHES[0]).open(&root).unwrap();
            assert_eq!(load(&store, &saved.token).unwrap().as_deref(), Some("old"), "{bytes:?}");
            let [made, left] = [root.join(GENERATIONS), aside].map(|path| fs::metadata(path).unwrap());
            assert_eq!((made.len(), left.len()), (GENERATIONS_BYTES, bytes.unwrap_or(GENERATIONS_BYTES)));
            assert_ne!(made.ino(), left.ino(), "{bytes:?}");
            child.say("close");
            child.finish();
        }
    }
}

#[test]
fn a_link_pipe_or_directory_in_place_of_the_counters_is_refused() {
    let operation = "failed to open the generations of session store `DIR/run/generations`";
    let text = format!("{operation}: {IN_ITS_PLACE}");
    // The link leads to the right file, which was moved, to no file, or to another file.
    let because = "Too many levels of symbolic links (os error 40)";
    for target in ["../aside", "nowhere", "sessile.json"] {
        let link = with_planted(GENERATIONS, |place| symlink(target, place).unwrap());
        check_refused(link, ErrorKind::NotASessionFile, &text, Some(because));
    }
    let directory = with_planted(GENERATIONS, |place| fs::create_dir(place).unwrap());
    check_refused(directory, ErrorKind::NotASessionFile, &text, Some("Is a directory (os error 21)"));
    let no_file = "No such device or address (os error 6)";
    let pipe = with_planted(GENERATIONS, |place| {
        mknodat(CWD, place, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    });
    check_refused(pipe, ErrorKind::NotASessionFile, &text, Some(no_file));
    let socket = with_planted(GENERATIONS, |place| {
        drop(std::os::unix::net::UnixListener::bind(place).unwrap());
    });
    check_refused(socket, ErrorKind::NotASessionFile, &text, Some(no_file));
}

/// The other file is linked by a hard link: the user that made the link has chosen the file.
#[test]
fn another_file_in_place_of_the_counters_keeps_its_contents() {
    for contents in [b"another user's".to_vec(), vec![7; 3 << 20]] {
        let dir = directory_in_memory();
        let (root, other) = (dir.path().join("store"), dir.path().join("another user's"));
        let saved = made(&root);
        fs::write(&other, &contents).unwrap();
        allow(&other, 0o644);
        fs::remove_file(root.join(GENERATIONS)).unwrap();
        fs::hard_link(&other, root.join(GENERATIONS)).unwrap();
        let store = FileStore::open(&root).unwrap();
        put(&store, &saved.token, "new", Durability::Relaxed).unwrap().unwrap();
        assert!(fs::read(&other).unwrap() == contents, "{} bytes were changed", contents.len());
        assert_eq!(mode_of(&other), 0o644);
        assert_eq!(load(&store, &saved.token).unwrap().as_deref(), Some("new"));
    }
}
