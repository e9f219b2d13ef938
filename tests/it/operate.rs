//! Sessions that are found, ended, brought in and set aside by the digest of their id.
use crate::support::sweeping::{Fixture, HOUR, RELAXED};
use crate::support::texts::{files_in_shards, load, path_of, record};
use sessile::{Absent, ErrorKind, FileId, Lookup, Record, Store};
use std::fs::{self, File};
use std::thread;

/// A session from elsewhere.
fn session(fixture: &Fixture, text: &str) -> Record {
    let mut record = record(text);
    record.deadline = fixture.store.now() + HOUR;
    record
}

fn text_of(fixture: &Fixture, id: FileId) -> Option<String> {
    match fixture.store.find(&id).unwrap() {
        Lookup::Live(live) => Some(live.record.entries["text"].get().unwrap()),
        Lookup::Absent(_) => None,
    }
}

#[test]
fn a_session_is_found_and_ended_by_its_digest_in_every_open_store() {
    let fixture = Fixture::new();
    let saved = fixture.session(HOUR);
    let other = fixture.another();
    assert_eq!(load(&other, &saved.token).unwrap().as_deref(), Some("text"), "it is in memory now");
    assert_eq!(text_of(&fixture, saved.live.id).as_deref(), Some("text"));
    assert!(fixture.store.end(&saved.live.id).unwrap());
    assert_eq!(load(&other, &saved.token).unwrap(), None);
    assert!(!fixture.store.end(&saved.live.id).unwrap(), "it is gone");
    let gone = fixture.store.find(&saved.live.id).unwrap();
    assert!(matches!(gone, Lookup::Absent(Absent::Unknown(id)) if id == saved.live.id), "{gone:?}");
}

#[test]
fn a_session_is_brought_in_unless_a_live_one_is_there() {
    let fixture = Fixture::new();
    let saved = fixture.session(HOUR);
    let (id, path) = (saved.live.id, fixture.path(&saved));
    let bring_in = |text| fixture.store.bring_in(&id, &session(&fixture, text), RELAXED);
    assert!(!bring_in("live").unwrap());
    assert!(fixture.is_live(&saved));

    fixture.clock.advance(2 * HOUR);
    assert!(bring_in("expired").unwrap());
    assert_eq!(text_of(&fixture, id).as_deref(), Some("expired"));
    assert_eq!(load(&*fixture.store, &saved.token).unwrap().as_deref(), Some("expired"), "by its old secret");

    // As a creation leaves it that is killed before it writes.
    fs::write(&path, "").unwrap();
    let error = bring_in("cut short").unwrap_err();
    let reason = "its creation is under way, or was cut short";
    let want = format!("failed to bring a session in `{}`: {reason}", path.display());
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Busy, want));
    assert!(!fixture.store.end(&id).unwrap(), "there was no live one");
    assert!(bring_in("cut short").unwrap());
    assert_eq!(text_of(&fixture, id).as_deref(), Some("cut short"));

    fs::write(&path, [0xa5; 4096]).unwrap();
    let error = bring_in("damaged").unwrap_err();
    let want = format!("failed to bring a session in `{}`: a damaged file is in its place", path.display());
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Corrupt, want));
    let aside = fixture.store.set_aside(&id).unwrap().expect("it is damaged");
    assert_eq!(fs::read(aside).unwrap(), [0xa5; 4096]);
    assert!(bring_in("room").unwrap());
    assert_eq!(text_of(&fixture, id).as_deref(), Some("room"));
    assert_eq!(files_in_shards(fixture.root()), [path]);
}

#[test]
fn of_several_who_bring_the_same_session_in_one_does_and_none_fails() {
    let fixture = Fixture::new();
    let ids: Vec<FileId> = (0_u32..500).map(|n| FileId::digest(&n.to_le_bytes())).collect();
    let brought_in: usize = thread::scope(|scope| {
        let bring_all_in = || {
            let store = fixture.another();
            let record = session(&fixture, "text");
            ids.iter().filter(|id| store.bring_in(id, &record, RELAXED).unwrap()).count()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(bring_all_in)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(brought_in, 500, "each once");
    assert!(ids.iter().all(|id| text_of(&fixture, *id).as_deref() == Some("text")));
}

#[test]
fn only_what_is_damaged_is_set_aside_and_an_earlier_one_stays() {
    let fixture = Fixture::new();
    let saved = fixture.session(HOUR);
    let (id, path) = (saved.live.id, fixture.path(&saved));
    assert_eq!(fixture.store.set_aside(&id).unwrap(), None);
    assert!(fixture.is_live(&saved));
    let unfinished = FileId::digest(b"unfinished");
    File::create(path_of(fixture.root(), unfinished)).unwrap();
    assert_eq!(fixture.store.set_aside(&unfinished).unwrap(), None, "a session may be on its way there");
    assert_eq!(fixture.store.set_aside(&FileId::digest(b"nobody")).unwrap(), None);
    for n in 0..3_u8 {
        fs::write(&path, [0xa0 + n; 4096]).unwrap();
        let aside = fixture.store.set_aside(&id).unwrap().expect("it is damaged");
        let name = if n == 0 { id.to_string() } else { format!("{id}.{n}") };
        assert_eq!(aside, fixture.root().join("damaged").join(name));
        assert!(!path.exists());
    }
    for n in 0..3_u8 {
        let name = if n == 0 { id.to_string() } else { format!("{id}.{n}") };
        assert_eq!(fs::read(fixture.root().join("damaged").join(name)).unwrap(), [0xa0 + n; 4096]);
    }
}
