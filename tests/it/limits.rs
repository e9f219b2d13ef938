//! If a limit is set to a lower value, sessions that exceed it can still be read, and changed in every way that does
//! not make them larger.
use crate::support::memory::{files_but_moved, sessions_in};
use sessile::{
    Durability, Error, ErrorKind, Expiry, FileStore, FileStoreOptions, Lifetime, Lookup, Record, Renewal,
    Session, Store, Token, Value, Verdict,
};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3600);
const BYTES_MAX: usize = 4096;
const ENTRIES_MAX: usize = 3;

/// A store whose limits were lowered, and a session from before.
struct Lowered {
    _dir: TempDir,
    store: Arc<FileStore>,
    token: Token,
}

fn text(letter: &str, bytes: usize) -> String {
    letter.repeat(bytes)
}

impl Lowered {
    /// Makes a session that exceeds both new limits: five entries of 3,000 bytes.
    fn new(options: FileStoreOptions) -> Self {
        let dir = TempDir::new().unwrap();
        let before = sessions_in(FileStore::open(dir.path()).unwrap());
        let mut session = before.session([]);
        for name in ["a", "b", "c", "d", "e"] {
            session.insert(name, text("x", 3000)).unwrap();
        }
        session.save().unwrap();
        let token = session.token().unwrap().unwrap();
        let options = options.record_bytes_max(BYTES_MAX).entries_max(ENTRIES_MAX);
        Self { store: Arc::new(options.open(dir.path()).unwrap()), _dir: dir, token }
    }

    fn session(&self) -> Session {
        sessions_in(Arc::clone(&self.store)).session([self.token.clone()])
    }

    fn record(&self, token: &Token) -> Record {
        match self.store.load(token).unwrap() {
            Lookup::Live(live) => live.record,
            Lookup::Absent(why) => panic!("{why:?}"),
        }
    }
}

/// Runs an operation in stores of all kinds: with and without a cached copy, relaxed and power-safe. Asserts that it
/// succeeds, and the number of entries afterwards.
#[track_caller]
fn check_allowed(operation: fn(&mut Session), entries_left: usize) {
    for (cache, durability) in [(0, Durability::Relaxed), (32 << 20, Durability::PowerSafe)] {
        let lowered = Lowered::new(FileStoreOptions::new().cache_bytes(cache).durability(durability));
        let mut session = lowered.session();
        operation(&mut session);
        session.save().unwrap();
        let token = session.token().unwrap().unwrap();
        assert_eq!(lowered.record(&token).entries().len(), entries_left);
        assert_eq!(files_but_moved(&lowered.store), 1);
    }
}

#[test]
fn a_visitor_beyond_a_lowered_limit_can_do_all_but_grow() {
    check_allowed(|session| assert_eq!(session.get("a").unwrap(), Some(text("x", 3000))), 5);
    check_allowed(|session| session.login("ada").unwrap(), 5);
    check_allowed(|session| session.login(text("u", 256)).unwrap(), 5);
    check_allowed(Session::rotate_id, 5);
    check_allowed(|session| session.set_expiry(Expiry::After(HOUR)), 5);
    check_allowed(Session::power_safe, 5);
    check_allowed(|session| assert!(session.remove("a").unwrap()), 4);
    check_allowed(|session| session.insert("a", "short").unwrap(), 5);
    check_allowed(|session| session.insert("a", text("y", 3000)).unwrap(), 5);
    check_allowed(|session| session.update("a", String::clear).map(drop).unwrap(), 5);
    check_allowed(|session| session.update_now("a", String::clear).unwrap(), 5);
    // One entry is added, and another one of the same size is removed.
    check_allowed(
        |session| {
            session.insert("f", text("x", 3000)).unwrap();
            session.remove("a").unwrap();
        },
        5,
    );
    check_allowed(
        |session| {
            session.clear();
            session.insert("a", 1).unwrap();
        },
        1,
    );
    check_allowed(
        |session| {
            session.login("ada").unwrap();
            session.save().unwrap();
            // The login of another user keeps none of the entries.
            session.login("bob").unwrap();
        },
        0,
    );
}

#[test]
fn a_session_beyond_a_lowered_limit_is_renewed_and_ended() {
    let lowered = Lowered::new(FileStoreOptions::new());
    let step = Lifetime::new().renewal(Renewal::EveryRequest).renewal_step_percent(0);
    let before = lowered.record(&lowered.token).deadline();
    let mut session =
        sessions_in(Arc::clone(&lowered.store)).with_lifetime(step).unwrap().session([lowered.token.clone()]);
    session.save().unwrap();
    assert!(lowered.record(&lowered.token).deadline() > before);
    session.destroy().unwrap();
    assert_eq!(files_but_moved(&lowered.store), 0);
}

#[track_caller]
fn check_refused(lowered: &Lowered, kind: ErrorKind, reason: &str, operation: fn(&mut Session)) {
    for transfer in
        [|_: &mut Session| (), Session::rotate_id, |session: &mut Session| session.login("ada").unwrap()]
    {
        let before = lowered.record(&lowered.token);
        let mut session = lowered.session();
        transfer(&mut session);
        operation(&mut session);
        let error = session.save().unwrap_err();
        let text = format!("failed to encode session record: {reason}");
        assert!(error.kind() == kind && error.to_string().starts_with(&text), "{error}");
        assert_eq!(lowered.record(&lowered.token), before, "the old version stands");
        assert_eq!(files_but_moved(&lowered.store), 1);
    }
}

#[test]
fn only_what_grows_beyond_a_lowered_limit_is_refused() {
    let lowered = Lowered::new(FileStoreOptions::new());
    let grows = "it grows, where the limit is 4096 bytes and";
    let many = "6 entries, where the limit is 3 and 5 were stored";
    check_refused(&lowered, ErrorKind::TooManyEntries, many, |session| session.insert("f", 1).unwrap());
    check_refused(&lowered, ErrorKind::TooLarge, grows, |session| {
        session.insert("a", text("y", 3001)).unwrap();
    });
    check_refused(&lowered, ErrorKind::TooLarge, grows, |session| {
        session.remove("a").unwrap();
        session.insert("b", text("y", 6100)).unwrap();
    });
    // An additional entry is refused, even if the session gets smaller.
    check_refused(&lowered, ErrorKind::TooManyEntries, many, |session| {
        session.insert("a", 1).unwrap();
        session.insert("f", 1).unwrap();
    });

    // After the session has become smaller, it cannot grow to its earlier size again.
    let mut session = lowered.session();
    for name in ["a", "b", "c"] {
        assert!(session.remove(name).unwrap());
    }
    session.save().unwrap();
    check_refused(&lowered, ErrorKind::TooLarge, grows, |session| {
        session.insert("a", text("x", 3000)).unwrap();
    });
    let mut session = lowered.session();
    session.remove("d").unwrap();
    session.save().unwrap();
    // After the session is within the limits, it cannot exceed them again.
    let mut session = lowered.session();
    session.insert("a", text("x", 3000)).unwrap();
    let error = session.save().unwrap_err().to_string();
    assert!(error.ends_with(" bytes, where the limit is 4096"), "{error}");
    let mut session = lowered.session();
    session.insert("a", text("x", 500)).unwrap();
    session.insert("b", 1).unwrap();
    session.save().unwrap();
    check_refused(&lowered, ErrorKind::TooManyEntries, "4 entries, where the limit is 3", |session| {
        session.insert("c", 1).unwrap();
    });
}

/// The user's name does not count towards the limit, so a login is not refused because of the session's size.
#[test]
fn a_login_is_not_refused_for_the_size_of_what_was_stored() {
    let dir = TempDir::new().unwrap();
    let options = FileStoreOptions::new().record_bytes_max(BYTES_MAX);
    let store = Arc::new(options.open(dir.path()).unwrap());
    let stored = |bytes: usize| -> Result<Session, Error> {
        let mut session = sessions_in(Arc::clone(&store)).session([]);
        session.insert("a", text("x", bytes)).unwrap();
        session.save().map(|()| session)
    };
    let most = (3900..BYTES_MAX).take_while(|bytes| stored(*bytes).is_ok()).last().unwrap();
    let mut session = sessions_in(Arc::clone(&store)).session([]);
    session.insert("a", text("x", most)).unwrap();
    session.login("ada").unwrap();
    session.save().unwrap();
    let mut session = stored(most).unwrap();
    session.login(text("u", 256)).unwrap();
    session.save().unwrap();
    assert_eq!(session.user().unwrap(), Some(text("u", 256)));
    session.insert("a", text("x", most + 1)).unwrap();
    assert_eq!(session.save().unwrap_err().kind(), ErrorKind::TooLarge);
}

#[test]
fn a_new_session_is_within_the_limits() {
    let lowered = Lowered::new(FileStoreOptions::new());
    let beyond = lowered.record(&lowered.token);
    let created = lowered.store.create(&beyond, Durability::OfStore);
    assert_eq!(created.unwrap_err().kind(), ErrorKind::TooManyEntries);
    let mut large = Record::new(lowered.store.now(), lowered.store.now() + HOUR);
    large.insert("a", &Value::new(&text("x", 5000)).unwrap()).unwrap();
    let created = lowered.store.create(&large, Durability::OfStore);
    assert_eq!(created.unwrap_err().kind(), ErrorKind::TooLarge);
    // A rotation that keeps the record is not refused, and keeps the entries.
    let moved = lowered.store.rotate(&lowered.token, &mut |_| Ok(Verdict::Keep), &Durability::OfStore.into());
    assert_eq!(lowered.record(&moved.unwrap().unwrap().token), beyond);
}
