//! The sessions of a user: each live one is listed, in pages, and one of them can be ended by its public id.
use crate::support::memory::{Stage, on_every_storage, secs, sessions_in, start};
use crate::support::sweeping::{Fixture, HOUR};
use crate::support::texts::{directory_in_memory, record};
use sessile::admin::SweepOptions;
use sessile::{
    Admin, Durability, ErrorKind, FileStore, FileStoreOptions, Lifetime, Page, PublicId, Record, Rotation,
    Saved, Store, Timing, Token, Verdict,
};
use std::collections::BTreeSet;
use std::fs;

on_every_storage! {
    each_live_session_of_a_user_is_listed_and_no_other,
    a_session_that_ended_expired_or_changed_its_user_is_not_listed,
    a_rotated_session_is_listed_once_under_its_new_id,
    pages_are_in_order_and_end_with_the_last_session,
    a_session_that_a_cut_off_has_ended_is_not_listed,
    an_id_that_was_rotated_names_its_successor_within_grace,
    a_listed_session_is_shown_with_its_times_and_its_device,
    one_session_of_a_user_is_ended_by_its_public_id,
    a_stricter_lifetime_lists_no_session_that_it_ends,
    a_users_name_is_compared_as_a_whole,
}

/// A record of a user, which lives for an hour.
fn of_user(user: &str) -> Record {
    let now = start();
    Record::new(now, now + secs(3600)).with_user(user).unwrap()
}

fn log_in(store: &dyn Store, user: &str) -> Saved {
    store.create(&of_user(user), Durability::OfStore).unwrap()
}

/// The ids of all pages of a complete list.
#[track_caller]
fn listed(store: &dyn Store, user: &str) -> Vec<PublicId> {
    let page = store.sessions_of(user, &Page { after: None, limit: usize::MAX }).unwrap();
    assert!(page.complete && page.next.is_none(), "{page:?}");
    page.sessions.iter().map(|session| session.id).collect()
}

fn ids<'a>(sessions: impl IntoIterator<Item = &'a Saved>) -> Vec<PublicId> {
    let mut ids: Vec<_> = sessions.into_iter().map(|saved| saved.live.id).collect();
    ids.sort_unstable();
    ids
}

fn rotate(store: &dyn Store, token: &Token, user: Option<&str>) -> Saved {
    let mut change = |record: &mut Record| {
        user.map_or(Ok(()), |user| record.set_user(user))?;
        Ok(Verdict::Write)
    };
    let how = Durability::OfStore.into();
    store.rotate(token, &mut change, &how).unwrap().unwrap()
}

fn each_live_session_of_a_user_is_listed_and_no_other(stage: &Stage) {
    let (mut ada, mut bob) = (Vec::new(), Vec::new());
    for n in 0..20 {
        ada.push(log_in(&*stage.store, "ada"));
        bob.push(log_in(&*stage.second, "bob"));
        stage.store.create(&record(&n.to_string()), Durability::OfStore).unwrap();
        assert_eq!((listed(&*stage.store, "ada"), listed(&*stage.store, "bob")), (ids(&ada), ids(&bob)));
    }
    assert_eq!(listed(&*stage.second, "ada"), ids(&ada));
    assert_eq!((listed(&*stage.store, "carol"), listed(&*stage.store, "")), (vec![], vec![]));
}

fn a_session_that_ended_expired_or_changed_its_user_is_not_listed(stage: &Stage) {
    let store = &*stage.store;
    let [stays, ended, moved, renamed, expires] = [(); 5].map(|()| log_in(store, "ada"));
    store.delete(&ended.token).unwrap();
    let moved = rotate(store, &moved.token, Some("bob"));
    let mut change = |record: &mut Record| record.set_user("carol").map(|()| Verdict::Write);
    store.update(&renamed.token, &mut change, Durability::OfStore).unwrap().unwrap();
    let mut change = |record: &mut Record| {
        record.set_timing(Timing { deadline: start() + secs(60), ..record.timing() });
        Ok(Verdict::Write)
    };
    store.update(&expires.token, &mut change, Durability::OfStore).unwrap().unwrap();
    stage.clock.advance(secs(60));
    assert_eq!(listed(store, "ada"), ids([&stays]));
    assert_eq!((listed(store, "bob"), listed(store, "carol")), (ids([&moved]), ids([&renamed])));
}

fn a_rotated_session_is_listed_once_under_its_new_id(stage: &Stage) {
    let (guest, ada) =
        (stage.store.create(&record("guest"), Durability::OfStore).unwrap(), log_in(&*stage.store, "ada"));
    let ada = rotate(&*stage.store, &ada.token, None);
    assert_eq!(listed(&*stage.store, "ada"), ids([&ada]));
    let guest = rotate(&*stage.store, &guest.token, Some("ada"));
    assert_eq!(listed(&*stage.store, "ada"), ids([&ada, &guest]));
}

fn a_session_that_a_cut_off_has_ended_is_not_listed(stage: &Stage) {
    let [first, second] = [(); 2].map(|()| log_in(&*stage.store, "ada"));
    stage.second.delete_of("ada", Some(&second.token)).unwrap();
    assert_eq!(listed(&*stage.store, "ada"), ids([&second]));
    let sessions = stage.others();
    assert!(sessions.end_session_of("ada", &first.live.id).unwrap().is_none(), "it has ended");
    let third = log_in(&*stage.store, "ada");
    assert_eq!(listed(&*stage.store, "ada"), ids([&second, &third]));
    stage.store.delete_all().unwrap();
    assert_eq!(listed(&*stage.second, "ada"), []);
}

/// A page of devices was shown before the session got another id.
fn an_id_that_was_rotated_names_its_successor_within_grace(stage: &Stage) {
    let sessions = stage.others();
    let moved = |by_login: Option<&'static str>| {
        let old = log_in(&*stage.store, "ada");
        let how = Rotation::new(Durability::OfStore).grace(secs(60));
        let how = by_login.map_or(how, |user| how.login(user));
        let new = stage.store.rotate(&old.token, &mut |_| Ok(Verdict::Keep), &how).unwrap().unwrap();
        assert_eq!(listed(&*stage.store, "ada"), ids([&new]));
        (old.live.id, new)
    };
    let (old, new) = moved(None);
    assert!(sessions.end_session_of("bob", &old).unwrap().is_none());
    assert_eq!(sessions.end_session_of("ada", &old).unwrap(), Some(new.live.id));
    stage.check_absent(&new.token);
    // A login is not followed, as by a logout.
    let (old, new) = moved(Some("ada"));
    assert!(sessions.end_session_of("ada", &old).unwrap().is_none());
    assert!(sessions.end_session_of("ada", &new.live.id).unwrap().is_some());
    // Nor is a rotation whose grace period is over.
    let (old, new) = moved(None);
    stage.clock.advance(secs(60));
    assert!(sessions.end_session_of("ada", &old).unwrap().is_none());
    assert_eq!(listed(&*stage.store, "ada"), ids([&new]));
}

fn pages_are_in_order_and_end_with_the_last_session(stage: &Stage) {
    let all = ids(&(0..10).map(|_| log_in(&*stage.store, "ada")).collect::<Vec<_>>());
    for limit in 1..=11 {
        let (mut page, mut found) = (Page { after: None, limit }, Vec::new());
        loop {
            let listed = stage.store.sessions_of("ada", &page).unwrap();
            assert!(listed.complete && listed.sessions.len() <= limit);
            found.extend(listed.sessions.iter().map(|session| session.id));
            assert!(listed.next.is_none() || listed.sessions.len() == limit, "only the last page is short");
            let Some(next) = listed.next else { break };
            page = page.after(next);
        }
        assert_eq!(found, all, "pages of {limit}");
    }
    // The session that a page begins after may have ended.
    let after = Page::default().after(PublicId::parse(&"7".repeat(40)).unwrap());
    let found: Vec<_> =
        stage.store.sessions_of("ada", &after).unwrap().sessions.iter().map(|session| session.id).collect();
    assert_eq!(found, all.iter().copied().filter(|id| *id > after.after.unwrap()).collect::<Vec<_>>());
}

fn a_listed_session_is_shown_with_its_times_and_its_device(stage: &Stage) {
    let sessions = stage.sessions();
    let mut visit = sessions.session([]);
    visit.login_from("ada", "Firefox on Linux").unwrap();
    visit.save().unwrap();
    let own = visit.public_id().unwrap();
    let other = log_in(&*stage.second, "ada");
    let page = sessions.sessions_of("ada", &Page::default()).unwrap();
    assert!(page.complete && page.sessions.len() == 2);
    let mine: Vec<_> = page.sessions.iter().filter(|session| Some(session.id) == own).collect();
    let [mine] = mine[..] else { panic!("one is the visitor's own: {page:?}") };
    assert_eq!((mine.created, mine.last_login, mine.last_seen), (start(), Some(start()), start()));
    assert_eq!(mine.deadline, visit.deadline().unwrap());
    assert_eq!(mine.device_note.as_deref(), Some("Firefox on Linux"));
    let other = page.sessions.iter().find(|session| session.id == other.live.id).unwrap();
    assert_eq!((other.last_login, other.device_note.as_deref()), (None, None));
}

fn one_session_of_a_user_is_ended_by_its_public_id(stage: &Stage) {
    let [first, second] = [(); 2].map(|()| log_in(&*stage.store, "ada"));
    let bob = log_in(&*stage.store, "bob");
    let sessions = stage.others();
    // A form can name any session: only the user's own go.
    assert!(sessions.end_session_of("ada", &bob.live.id).unwrap().is_none());
    assert!(sessions.end_session_of("", &bob.live.id).unwrap().is_none());
    assert!(sessions.end_session_of("ada", &PublicId::digest(b"no session")).unwrap().is_none());
    assert_eq!(sessions.end_session_of("ada", &first.live.id).unwrap(), Some(first.live.id));
    assert!(sessions.end_session_of("ada", &first.live.id).unwrap().is_none(), "it is gone");
    stage.check_absent(&first.token);
    assert_eq!((listed(&*stage.store, "ada"), listed(&*stage.store, "bob")), (ids([&second]), ids([&bob])));
    // Once it is another user's, it is not ada's to end.
    let moved = rotate(&*stage.store, &second.token, Some("bob"));
    assert!(sessions.end_session_of("ada", &second.live.id).unwrap().is_none());
    assert!(sessions.end_session_of("ada", &moved.live.id).unwrap().is_none());
    assert_eq!(listed(&*stage.store, "bob"), ids([&bob, &moved]));
}

fn a_stricter_lifetime_lists_no_session_that_it_ends(stage: &Stage) {
    let mut visit = stage.sessions().session([]);
    visit.login("ada").unwrap();
    visit.save().unwrap();
    let strict = Lifetime::new().age(secs(600));
    let strict = stage.sessions_living(strict);
    let page = strict.sessions_of("ada", &Page::default()).unwrap();
    assert_eq!(page.sessions[0].deadline, start() + secs(600));
    stage.clock.advance(secs(600));
    assert_eq!(strict.sessions_of("ada", &Page::default()).unwrap().sessions, []);
    assert_eq!(stage.sessions().sessions_of("ada", &Page::default()).unwrap().sessions.len(), 1);
}

fn a_users_name_is_compared_as_a_whole(stage: &Stage) {
    let names = ["ada", "Ada", "ada ", "ad", "ada\u{0}", "ада", "a\nda"];
    let sessions: Vec<_> = names.iter().map(|name| log_in(&*stage.store, name)).collect();
    for (name, session) in names.iter().zip(&sessions) {
        assert_eq!(listed(&*stage.store, name), ids([session]), "{name:?}");
    }
}

#[test]
fn a_store_that_keeps_no_list_says_so() {
    struct Bare;
    impl Store for Bare {
        fn now(&self) -> std::time::SystemTime {
            start()
        }
        fn is_well_formed(&self, _: &Token) -> bool {
            false
        }
        fn load(&self, _: &Token) -> sessile::Result<sessile::Lookup> {
            Ok(sessile::Lookup::Absent(sessile::Absent::Malformed))
        }
        fn create(&self, _: &Record, _: Durability) -> sessile::Result<Saved> {
            Err(sessile::Error::new(ErrorKind::Storage, "create"))
        }
        fn update(&self, _: &Token, _: sessile::Change<'_>, _: Durability) -> sessile::Result<Option<Saved>> {
            Ok(None)
        }
        fn rotate(
            &self,
            _: &Token,
            _: sessile::Change<'_>,
            _: &Rotation<'_>,
        ) -> sessile::Result<Option<Saved>> {
            Ok(None)
        }
        fn delete(&self, _: &Token) -> sessile::Result<Option<sessile::store::Deleted>> {
            Ok(None)
        }
        fn guarantees(&self) -> sessile::Guarantees {
            sessile::Guarantees::all()
        }
    }
    let sessions = sessions_in(Bare);
    let listed = sessions.sessions_of("ada", &Page::default()).unwrap_err();
    let ended = sessions.end_session_of("ada", &PublicId::digest(b"x")).unwrap_err();
    assert_eq!((listed.kind(), ended.kind()), (ErrorKind::Unsupported, ErrorKind::Unsupported));
    let text = "failed to list the sessions of a user: this kind of store cannot do it";
    assert_eq!(listed.to_string(), text);
}

// ----------------------------------------------------------------------------------- the index of a store in files

/// A fixture with three sessions of "ada", and their ids.
fn with_three() -> (Fixture, Vec<PublicId>) {
    let fixture = Fixture::new();
    let three = [(); 3].map(|()| create(&fixture, "ada"));
    let three = ids(&three);
    assert_eq!(listed(&*fixture.store, "ada"), three);
    (fixture, three)
}

fn create(fixture: &Fixture, user: &str) -> Saved {
    let now = fixture.clock.now();
    let record = Record::new(now, now + 24 * HOUR).with_user(user).unwrap();
    fixture.store.create(&record, Durability::Relaxed).unwrap()
}

/// What is listed now, and whether the list is complete.
fn hinted(store: &FileStore) -> (Vec<PublicId>, bool) {
    let page = store.sessions_of("ada", &Page::default()).unwrap();
    (page.sessions.iter().map(|session| session.id).collect(), page.complete)
}

/// The one bucket that has an entry.
fn bucket(fixture: &Fixture) -> std::path::PathBuf {
    let names = fs::read_dir(fixture.root().join("run/users")).unwrap().map(|name| name.unwrap());
    let buckets: Vec<_> = names.filter(|name| name.file_name().len() == 3).collect();
    assert_eq!(buckets.len(), 1, "{buckets:?}");
    buckets[0].path()
}

#[test]
fn a_damaged_index_is_incomplete_until_a_sweep_has_walked() {
    type Damage = (&'static str, fn(&Fixture), usize);
    let cases: [Damage; 9] = [
        ("index removed", |fixture| fs::remove_dir_all(fixture.root().join("run/users")).unwrap(), 0),
        ("run removed", |fixture| fs::remove_dir_all(fixture.root().join("run")).unwrap(), 0),
        ("bucket removed", |fixture| fs::remove_file(bucket(fixture)).unwrap(), 0),
        ("map removed", |fixture| fs::remove_file(fixture.root().join("run/users/made")).unwrap(), 3),
        ("marker removed", |fixture| fs::remove_file(fixture.root().join("run/users/complete")).unwrap(), 3),
        (
            "marker of another boot",
            |fixture| {
                let path = fixture.root().join("run/users/complete");
                let text = fs::read_to_string(&path).unwrap();
                let first = if text.starts_with('0') { "1" } else { "0" };
                fs::write(path, format!("{first}{}", &text[1..])).unwrap();
            },
            3,
        ),
        (
            "copied",
            |fixture| {
                let (index, copy) = (fixture.root().join("run/users"), fixture.root().join("run/copy"));
                fs::create_dir(&copy).unwrap();
                for name in fs::read_dir(&index).unwrap().map(|name| name.unwrap().file_name()) {
                    fs::copy(index.join(&name), copy.join(&name)).unwrap();
                }
                fs::rename(&index, fixture.root().join("damaged")).unwrap();
                fs::rename(&copy, &index).unwrap();
            },
            3,
        ),
        (
            "an entry damaged",
            |fixture| {
                let mut bytes = fs::read(bucket(fixture)).unwrap();
                bytes[40] ^= 1;
                fs::write(bucket(fixture), bytes).unwrap();
            },
            2,
        ),
        (
            "zeros appended",
            |fixture| {
                let bytes = [fs::read(bucket(fixture)).unwrap(), vec![0; 40]].concat();
                fs::write(bucket(fixture), bytes).unwrap();
            },
            3,
        ),
    ];
    for (name, damage, left) in cases {
        let (fixture, three) = with_three();
        damage(&fixture);
        let (found, is_complete) = hinted(&fixture.store);
        assert!(!is_complete && found.len() == left && found.iter().all(|id| three.contains(id)), "{name}");
        // A login beside the damage is listed.
        let fourth = create(&fixture, "ada");
        assert!(hinted(&fixture.store).0.contains(&fourth.live.id) && !hinted(&fixture.store).1, "{name}");
        let report = fixture.sweep();
        assert_eq!((report.failed, report.removed), (0, 0), "{name}: {report:?}");
        let four: BTreeSet<_> = three.iter().copied().chain([fourth.live.id]).collect();
        assert_eq!(hinted(&fixture.store), (four.into_iter().collect(), true), "{name}");
        assert_eq!(fixture.sweep().files.examined, 0, "{name}: the next sweep walks no more");
    }
}

#[test]
fn a_restored_store_lists_all_sessions_after_a_sweep() {
    let (fixture, three) = with_three();
    let restored = directory_in_memory();
    // A backup has the session files, the parameters and the log of cut-offs, and not `run`.
    for path in fs::read_dir(fixture.root()).unwrap().map(|file| file.unwrap().path()) {
        let to = restored.path().join(path.file_name().unwrap());
        match path.is_dir() {
            true if path.ends_with("run") => {}
            true => {
                fs::create_dir(&to).unwrap();
                for file in fs::read_dir(&path).unwrap().map(|file| file.unwrap().path()) {
                    fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
                }
            }
            false => drop(fs::copy(&path, to).unwrap()),
        }
    }
    let store = FileStoreOptions::new().clock(fixture.clock.clone()).open(restored.path()).unwrap();
    assert_eq!(hinted(&store), (vec![], false));
    store.sweep(&SweepOptions::new().cpu_percent(100)).unwrap();
    assert_eq!(hinted(&store), (three, true));
}

#[test]
fn a_truncated_bucket_is_completed_by_the_walks_of_256_hours() {
    let (fixture, three) = with_three();
    // A whole entry less: only a session that is not listed can show it.
    let bytes = fs::read(bucket(&fixture)).unwrap();
    fs::write(bucket(&fixture), &bytes[..64]).unwrap();
    let mut found = 0;
    for _ in 0..256 {
        fixture.clock.advance(HOUR / 12);
        fixture.sweep_with(SweepOptions::new().full(true));
        found = hinted(&fixture.store).0.len();
        if found == 3 {
            break;
        }
    }
    assert_eq!((found, hinted(&fixture.store)), (3, (three, true)));
}

#[test]
fn a_sweep_that_cannot_complete_the_index_walks_once_an_hour() {
    let (fixture, _) = with_three();
    let obstacle = fixture.root().join("run/users/fff");
    fs::create_dir(&obstacle).unwrap();
    fs::remove_file(fixture.root().join("run/users/complete")).unwrap();
    let report = fixture.sweep();
    assert!(report.files.examined == 3 && report.failed > 0, "{report:?}");
    assert_eq!(fixture.sweep().files.examined, 0);
    assert!(!hinted(&fixture.store).1);
    fs::remove_dir(obstacle).unwrap();
    fixture.clock.advance(HOUR);
    assert_eq!(fixture.sweep().files.examined, 3);
    assert!(hinted(&fixture.store).1);
}

#[test]
fn a_dry_run_and_a_read_only_store_leave_the_index_alone() {
    let (fixture, three) = with_three();
    fs::remove_file(bucket(&fixture)).unwrap();
    let before = names(&fixture);
    let read_only =
        FileStoreOptions::new().read_only(true).clock(fixture.clock.clone()).open(fixture.root()).unwrap();
    assert_eq!(hinted(&read_only), (vec![], false));
    let report = fixture.sweep_with(SweepOptions::new().full(true).dry_run(true));
    assert_eq!((report.files.examined, report.failed), (3, 0));
    assert_eq!(names(&fixture), before);
    fixture.sweep_with(SweepOptions::new().full(true));
    assert_eq!(hinted(&read_only), (three, true));
}

fn names(fixture: &Fixture) -> BTreeSet<std::ffi::OsString> {
    let names = fs::read_dir(fixture.root().join("run/users")).unwrap();
    names.map(|name| name.unwrap().file_name()).collect()
}

#[test]
fn sessions_without_a_user_touch_no_index() {
    let fixture = Fixture::new();
    let before = names(&fixture);
    let mut session = fixture.session(HOUR);
    for _ in 0..3 {
        session = rotate(&*fixture.store, &session.token, None);
        fixture.renew(&session.token, HOUR);
    }
    fixture.store.delete(&session.token).unwrap();
    assert_eq!(names(&fixture), before);
}

#[test]
fn foreign_and_left_files_in_the_index_are_told_apart() {
    let (fixture, _) = with_three();
    let index = fixture.root().join("run/users");
    fs::write(index.join("notes.txt"), "mine").unwrap();
    fs::write(index.join(".new-00ff"), "left").unwrap();
    let paths: Vec<_> = fixture
        .store
        .files()
        .map(|file| file.unwrap())
        .filter(|file| file.path.starts_with(&index))
        .map(|file| (file.path.file_name().unwrap().to_owned(), file.content))
        .collect();
    let shown: BTreeSet<_> = paths.iter().map(|(name, content)| format!("{name:?} {content:?}")).collect();
    assert_eq!(shown, BTreeSet::from(["\".new-00ff\" Temporary".into(), "\"notes.txt\" Unknown".into()]));
}
