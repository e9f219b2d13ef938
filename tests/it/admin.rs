//! Sessions that are loaded, deleted, imported and quarantined by their public id.
use crate::support::sweeping::{Fixture, HOUR, RELAXED};
use crate::support::texts::{directory_in_memory, files_in_shards, load, path_of, record};
use sessile::admin::{Scanned, SweepOptions};
use sessile::file::Content;
use sessile::{
    Absent, Admin, Durability, Error, ErrorKind, FileStore, FileStoreOptions, Lookup, PublicId, Record,
    Store, Timing, Verdict,
};
use std::fs::{self, File};
use std::path::Path;
use std::thread;

/// A record with this text. It is imported under an id that this store did not draw.
fn session(fixture: &Fixture, text: &str) -> Record {
    let mut record = record(text);
    record.set_timing(Timing { deadline: fixture.store.now() + HOUR, ..record.timing() });
    record
}

fn text_of(fixture: &Fixture, id: PublicId) -> Option<String> {
    match fixture.store.load_by_id(&id).unwrap() {
        Lookup::Live(live) => Some(live.record.entries().get("text").unwrap().get().unwrap()),
        Lookup::Absent(_) => None,
    }
}

#[test]
fn a_session_is_loaded_and_deleted_by_id_in_every_open_store() {
    let fixture = Fixture::new();
    let saved = fixture.session(HOUR);
    let other = fixture.another();
    assert_eq!(load(&other, &saved.token).unwrap().as_deref(), Some("text"), "it is in memory now");
    assert_eq!(text_of(&fixture, saved.live.id).as_deref(), Some("text"));
    assert_eq!(
        fixture.store.delete_by_id(&saved.live.id).unwrap().map(|ended| ended.id),
        Some(saved.live.id)
    );
    assert_eq!(load(&other, &saved.token).unwrap(), None);
    assert!(fixture.store.delete_by_id(&saved.live.id).unwrap().is_none(), "it is gone");
    let gone = fixture.store.load_by_id(&saved.live.id).unwrap();
    assert!(matches!(gone, Lookup::Absent(Absent::NotFound(id)) if id == saved.live.id), "{gone:?}");
}

#[test]
fn a_session_is_imported_unless_a_live_one_is_there() {
    let fixture = Fixture::new();
    let saved = fixture.session(HOUR);
    let (id, path) = (saved.live.id, fixture.path(&saved));
    let import = |text| fixture.store.import(&id, &session(&fixture, text), RELAXED);
    assert!(!import("live").unwrap());
    assert!(fixture.is_live(&saved));

    fixture.clock.advance(2 * HOUR);
    assert!(import("expired").unwrap());
    assert_eq!(text_of(&fixture, id).as_deref(), Some("expired"));
    assert_eq!(load(&*fixture.store, &saved.token).unwrap().as_deref(), Some("expired"), "by its old secret");

    // The file is empty, as it is when a process is killed between creating it and writing the first version.
    fs::write(&path, "").unwrap();
    let error = import("cut short").unwrap_err();
    let reason = "its creation is running, or was interrupted";
    let want = format!("failed to import session `{}`: {reason}", path.display());
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Busy, want));
    assert!(fixture.store.delete_by_id(&id).unwrap().is_none(), "there was no live one");
    assert!(import("cut short").unwrap());
    assert_eq!(text_of(&fixture, id).as_deref(), Some("cut short"));

    fs::write(&path, [0xa5; 4096]).unwrap();
    let error = import("damaged").unwrap_err();
    let want = format!("failed to import session `{}`: a damaged file is in its place", path.display());
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Corrupt, want));
    let aside = fixture.store.quarantine(&id).unwrap().expect("it is damaged");
    assert_eq!(fs::read(aside).unwrap(), [0xa5; 4096]);
    assert!(import("room").unwrap());
    assert_eq!(text_of(&fixture, id).as_deref(), Some("room"));
    assert_eq!(files_in_shards(fixture.root()), [path]);
}

#[test]
fn one_of_several_imports_of_a_session_wins_and_none_fails() {
    let fixture = Fixture::new();
    let ids: Vec<PublicId> = (0_u32..500).map(|n| PublicId::digest(&n.to_le_bytes())).collect();
    let imported: usize = thread::scope(|scope| {
        let bring_all_in = || {
            let store = fixture.another();
            let record = session(&fixture, "text");
            ids.iter().filter(|id| store.import(id, &record, RELAXED).unwrap()).count()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(bring_all_in)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(imported, 500, "each once");
    assert!(ids.iter().all(|id| text_of(&fixture, *id).as_deref() == Some("text")));
}

#[test]
fn only_damaged_files_are_quarantined_and_earlier_ones_stay() {
    let fixture = Fixture::new();
    let saved = fixture.session(HOUR);
    let (id, path) = (saved.live.id, fixture.path(&saved));
    assert_eq!(fixture.store.quarantine(&id).unwrap(), None);
    assert!(fixture.is_live(&saved));
    let unfinished = PublicId::digest(b"unfinished");
    File::create(path_of(fixture.root(), unfinished)).unwrap();
    assert_eq!(fixture.store.quarantine(&unfinished).unwrap(), None, "a session may be on its way there");
    assert_eq!(fixture.store.quarantine(&PublicId::digest(b"unused")).unwrap(), None);
    for n in 0..3_u8 {
        fs::write(&path, [0xa0 + n; 4096]).unwrap();
        let aside = fixture.store.quarantine(&id).unwrap().expect("it is damaged");
        let name = if n == 0 { id.to_string() } else { format!("{id}.{n}") };
        assert_eq!(aside, fixture.root().join("damaged").join(name));
        assert!(!path.exists());
    }
    for n in 0..3_u8 {
        let name = if n == 0 { id.to_string() } else { format!("{id}.{n}") };
        assert_eq!(fs::read(fixture.root().join("damaged").join(name)).unwrap(), [0xa0 + n; 4096]);
    }
}

/// Overwrites the format number of the session's version, as if another version of this crate had written it.
pub(crate) fn set_format(path: &Path, format: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[4] = format;
    fs::write(path, bytes).unwrap();
}

#[test]
fn lost_parameters_are_never_guessed_over_an_older_format() {
    let fixture = Fixture::new();
    let old = fixture.session(HOUR);
    let (path, parameters) = (fixture.path(&old), fixture.root().join("sessile.json"));
    set_format(&path, 1);
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&parameters).unwrap();
    for attempt in [FileStore::repair(fixture.root()).map(drop), FileStore::open(fixture.root()).map(drop)] {
        let error = attempt.unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::OlderFormat, Some(&*path)), "{error}");
        let way = "repair the store with that version, then run `sessile export` of the version of sessile that wrote it, and \
                   `sessile import` of this one into a new directory";
        assert!(error.to_string().ends_with(way), "{error}");
        assert!(!parameters.exists() && fs::read(&path).unwrap() == bytes);
    }
}

/// A file in the earlier format is in the store if an old backup is restored after the store was migrated.
#[test]
fn a_session_of_the_earlier_format_is_never_damage() {
    let fixture = Fixture::new();
    let saved = fixture.session(HOUR);
    let (id, path) = (saved.live.id, fixture.path(&saved));
    set_format(&path, 1);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(fixture.store.quarantine(&id).unwrap_err().kind(), ErrorKind::OlderFormat);
    let kinds = [
        fixture.store.load(&saved.token).map(drop),
        fixture.store.load_by_id(&id).map(drop),
        fixture.store.delete(&saved.token).map(drop),
        fixture.store.delete_by_id(&id).map(drop),
        fixture.store.import(&id, &saved.live.record, Durability::Relaxed).map(drop),
    ];
    for result in kinds {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::OlderFormat);
    }
    let contents: Vec<_> = fixture.store.files().map(|file| file.unwrap().content).collect();
    assert!(
        contents.iter().any(|content| matches!(content, Content::Older(found) if *found == id)),
        "{contents:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn lost_parameters_are_never_guessed_over_a_newer_format() {
    let fixture = Fixture::new();
    let (old, new) = (fixture.session(HOUR), fixture.session(HOUR));
    let parameters = fixture.root().join("sessile.json");
    let wanted = fs::read(&parameters).unwrap();
    set_format(&fixture.path(&new), 9);
    fs::remove_file(&parameters).unwrap();
    for attempt in [FileStore::repair(fixture.root()).map(drop), FileStore::open(fixture.root()).map(drop)] {
        let error = attempt.unwrap_err();
        assert_eq!(
            (error.kind(), error.path()),
            (ErrorKind::NewerFormat, Some(&*fixture.path(&new))),
            "{error}"
        );
        assert!(!parameters.exists());
    }
    // The parameters file itself states another format.
    fs::write(&parameters, r#"{"format":3}"#).unwrap();
    assert_eq!(FileStore::repair(fixture.root()).unwrap_err().kind(), ErrorKind::NewerFormat);
    assert_eq!(fs::read(&parameters).unwrap(), br#"{"format":3}"#);
    fs::remove_file(&parameters).unwrap();

    fs::remove_file(fixture.path(&new)).unwrap();
    let error = FileStoreOptions::new().create(false).open(fixture.root()).unwrap_err();
    let text = "its sessions are there, and its parameters file `sessile.json` is lost; recreate that with \
                FileStore::repair or `sessile verify --repair`";
    assert_eq!(
        (error.kind(), error.to_string().ends_with(text)),
        (ErrorKind::NotASessionStore, true),
        "{error}"
    );
    assert_eq!(FileStore::repair(fixture.root()).unwrap(), [&*parameters]);
    assert_eq!(fs::read(&parameters).unwrap(), wanted);
    assert!(FileStore::repair(fixture.root()).unwrap().is_empty());
    assert!(fixture.is_live(&old));
}

#[test]
fn a_store_whose_parameters_are_recreated_forgets_no_walk() {
    let fixture = Fixture::new();
    fixture.session(HOUR);
    let walked = || fs::read(fixture.root().join("run/due/sweep")).unwrap();
    let before = walked();
    fixture.clock.advance(5 * HOUR);
    for repairs in [true, false] {
        fs::remove_file(fixture.root().join("sessile.json")).unwrap();
        if repairs {
            FileStore::repair(fixture.root()).unwrap();
        } else {
            fixture.another();
        }
        assert_eq!(walked(), before, "hours that nothing has walked would be skipped");
    }
}

#[test]
fn a_read_only_store_refuses_every_change() {
    let fixture = Fixture::new();
    let (saved, damaged) = (fixture.session(HOUR), fixture.session(HOUR));
    fs::write(fixture.path(&damaged), [7; 4096]).unwrap();
    let files = || files_in_shards(fixture.root());
    let before = files();
    let options = FileStoreOptions::new().clock(fixture.clock.clone()).watch(false).read_only(true);
    let store = options.open(fixture.root()).unwrap();
    let mut keep = |_: &mut Record| Ok(Verdict::Write);
    let id = saved.live.id;
    let refused: [Result<(), Error>; 9] = [
        store.create(&session(&fixture, "new"), RELAXED).map(drop),
        store.update(&saved.token, &mut keep, RELAXED).map(drop),
        store.rotate(&saved.token, &mut keep, &RELAXED.into()).map(drop),
        store.delete(&saved.token).map(drop),
        store.delete_by_id(&id).map(drop),
        store.import(&PublicId::digest(b"new"), &session(&fixture, "new"), RELAXED).map(drop),
        store.import(&id, &session(&fixture, "there"), RELAXED).map(drop),
        store.quarantine(&damaged.live.id).map(drop),
        store.sweep(&SweepOptions::new()).map(drop),
    ];
    let text = format!(
        "failed to change session store `{}`: it was opened with read_only",
        fixture.root().display()
    );
    for refused in refused {
        let error = refused.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Config, text.clone()));
    }
    assert_eq!(files(), before);
    assert_eq!(load(&store, &saved.token).unwrap().as_deref(), Some("text"));
    assert_eq!(store.sweep(&SweepOptions::new().dry_run(true).full(true)).unwrap().files.examined, 2);
    // A store notices the changes of another process at once.
    fixture.store.delete(&saved.token).unwrap();
    assert_eq!(load(&store, &saved.token).unwrap(), None);
    fs::remove_dir_all(fixture.root().join("run/due")).unwrap();
    let error = store.sweep(&SweepOptions::new().dry_run(true)).unwrap_err();
    assert!(error.to_string().ends_with("it is lost; a sweep without dry run recreates it"), "{error}");
    let nowhere = fixture.root().join("nowhere");
    assert!(FileStoreOptions::new().read_only(true).open(&nowhere).is_err() && !nowhere.exists());
}

/// Scans to the end. Returns the ids in their order, and the number of failures.
#[track_caller]
fn scan(store: &FileStore, limit: usize) -> (Vec<PublicId>, usize) {
    let (mut ids, mut failures, mut from) = (Vec::new(), 0, None);
    for _ in 0..5000 {
        let page = store.scan(from.as_ref(), limit).unwrap();
        assert!(page.sessions.len() + page.failures.len() <= limit.max(1));
        ids.extend(page.sessions.iter().map(Scanned::id));
        failures += page.failures.len();
        from = page.next;
        if from.is_none() {
            return (ids, failures);
        }
    }
    panic!("the scan does not end, by {limit}");
}

#[test]
fn a_scan_goes_on_after_what_it_cannot_read() {
    let fixture = Fixture::new();
    fixture.sessions(300, HOUR);
    let shard = |number: u8| fixture.root().join(format!("{number:02x}"));
    // A directory in the place of a session, and one of a version that is not known.
    let foreign = PublicId::digest(b"foreign");
    fs::create_dir(path_of(fixture.root(), foreign)).unwrap();
    let newer = fixture.session(HOUR);
    set_format(&fixture.path(&newer), 9);
    let unlisted = [0x00, 0x01, 0x02, 0x7f, 0xfe, 0xff];
    let is_listed = |id: &PublicId| !unlisted.contains(&id.as_bytes()[0]);
    let (all, failures) = scan(&fixture.store, 1000);
    assert_eq!((all.len(), failures), (300, 2));
    for number in unlisted {
        fs::rename(shard(number), fixture.root().join(format!("{number:02x}.aside"))).unwrap();
        fs::write(shard(number), "no directory").unwrap();
    }
    let listed: Vec<_> = all.into_iter().filter(is_listed).collect();
    let unread = [foreign, newer.live.id].iter().filter(|id| is_listed(id)).count();
    for limit in [0, 1, 2, 7, 1000] {
        assert_eq!(scan(&fixture.store, limit), (listed.clone(), unlisted.len() + unread), "by {limit}");
    }
    let counts = fixture.store.count_by_state().unwrap();
    assert_eq!((counts.live, counts.failed), (listed.len() as u64, (unlisted.len() + unread) as u64));
    assert!(fixture.store.count().is_err(), "a count that leaves sessions out would be wrong");
    // No shard can be listed.
    for number in 0..=255 {
        if shard(number).is_dir() {
            fs::rename(shard(number), fixture.root().join(format!("{number:02x}.aside"))).unwrap();
            fs::write(shard(number), "no directory").unwrap();
        }
    }
    for limit in [1, 7, 255, 256, 1000] {
        assert_eq!(scan(&fixture.store, limit), (Vec::new(), 256), "by {limit}");
    }
}

#[test]
fn a_store_whose_directory_is_gone_is_not_healthy() {
    let dir = directory_in_memory();
    let fixture = Fixture::at(&dir.path().join("store"));
    fixture.store.health().unwrap();
    let refused = fixture.store.stats().refused;
    fs::remove_dir_all(fixture.root()).unwrap();
    assert!(fixture.store.health().is_err());
    assert_eq!(fixture.store.stats().refused, refused + 1);
}
