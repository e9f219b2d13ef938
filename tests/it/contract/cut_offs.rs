//! The promises of `delete_of` and `delete_all`.
use super::*;
use sessile::Rotation;

fn of(user: &str) -> Record {
    Record::new(start(), start() + HOUR).with_user(user).unwrap()
}

fn is_alive(store: &dyn Store, token: &Token) -> bool {
    match store.load(token).unwrap() {
        Lookup::Live(_) => true,
        Lookup::Absent(Absent::NotFound(_)) => false,
        Lookup::Absent(other) => panic!("it is {other:?}"),
    }
}

/// By both openings of the storage, which agree.
#[track_caller]
fn alive(stage: &Stage, token: &Token) -> bool {
    let [one, other] = [&stage.store, &stage.second].map(|store| is_alive(&**store, token));
    assert_eq!(one, other);
    one
}

fn login(store: &dyn Store, token: &Token, user: &str) -> Option<Token> {
    let mut change = |record: &mut Record| {
        record.set_user(user)?;
        Ok(Verdict::Write)
    };
    let how = Rotation::new(Durability::OfStore).login(user);
    store.rotate(token, &mut change, &how).unwrap().map(|saved| saved.token)
}

fn rotate(store: &dyn Store, token: &Token) -> Option<Token> {
    let how = Rotation::default();
    store.rotate(token, &mut |_| Ok(Verdict::Keep), &how).unwrap().map(|saved| saved.token)
}

pub(super) fn a_cut_off_ends_the_sessions_of_its_user_and_no_others(stage: &Stage) {
    let (store, second) = (&*stage.store, &*stage.second);
    let [ada, moved, bob] = ["ada", "ada", "bob"].map(|user| create(store, &of(user)));
    let moved = rotate(second, &moved).unwrap();
    let anonymous = create(store, &Record::new(start(), start() + HOUR));
    assert!([&ada, &moved, &bob, &anonymous].iter().all(|token| alive(stage, token)));
    let grace = Rotation::default().grace(HOUR);
    let before = create(store, &of("ada"));
    let logged_in =
        second.rotate(&before, &mut |_| Ok(Verdict::Keep), &grace.login("ada")).unwrap().unwrap().token;
    assert!(alive(stage, &logged_in) && store.successor(&before).unwrap().is_some());
    second.delete_of("ada", None).unwrap();
    assert!(!alive(stage, &logged_in));
    for opened in [store, second] {
        assert!(opened.successor(&before).unwrap().is_none(), "its entries are copied into no later login");
    }
    assert_eq!([&ada, &moved, &bob, &anonymous].map(|token| alive(stage, token)), [false, false, true, true]);
    assert!(update(store, &ada, |_| Ok(Verdict::Write)).unwrap().is_none());
    assert!(update(store, &ada, |_| Ok(Verdict::Keep)).unwrap().is_none());
    assert_eq!((rotate(store, &ada), login(store, &moved, "ada")), (None, None));
    assert!(store.delete(&ada).unwrap().is_none(), "no live session was there");
    // Later ones live.
    let [created, logged_in] = [create(store, &of("ada")), login(store, &anonymous, "ada").unwrap()];
    assert!(alive(stage, &created) && alive(stage, &logged_in));
    store.delete_all().unwrap();
    assert!([&created, &logged_in, &bob].iter().all(|token| !alive(stage, token)));
    assert!(alive(stage, &create(store, &of("ada"))));
    assert_eq!(store.delete_of("", None).unwrap_err().kind(), ErrorKind::Value);
}

pub(super) fn the_excepted_session_of_a_cut_off_stays_with_its_successors(stage: &Stage) {
    let (store, second) = (&*stage.store, &*stage.second);
    let [kept, other] = ["ada", "ada"].map(|user| create(store, &of(user)));
    second.delete_of("ada", Some(&kept)).unwrap();
    assert_eq!([&kept, &other].map(|token| alive(stage, token)), [true, false]);
    store.delete_of("ada", Some(&kept)).unwrap();
    update(second, &kept, |_| Ok(Verdict::Keep)).unwrap().unwrap();
    let kept = rotate(store, &kept).unwrap();
    update(second, &kept, |_| Ok(Verdict::Write)).unwrap().unwrap();
    let kept = rotate(second, &kept).unwrap();
    assert!(alive(stage, &kept));
    second.delete_of("ada", None).unwrap();
    assert!(!alive(stage, &kept));
}

pub(super) fn a_session_that_is_not_the_users_cannot_be_excepted(stage: &Stage) {
    let store = &*stage.store;
    let [ada, bob, ended] = ["ada", "bob", "ada"].map(|user| create(store, &of(user)));
    store.delete(&ended).unwrap();
    for token in [&bob, &ended, &made_up_token()] {
        assert_eq!(store.delete_of("ada", Some(token)).unwrap_err().kind(), ErrorKind::Gone);
    }
    assert!(alive(stage, &ada), "none was ended");
    store.delete_of("ada", None).unwrap();
    assert_eq!(store.delete_of("ada", Some(&ada)).unwrap_err().kind(), ErrorKind::Gone);
}

pub(super) fn an_update_or_a_mere_rotation_is_no_login(stage: &Stage) {
    let store = &*stage.store;
    let set = |record: &mut Record| {
        record.set_user("ada")?;
        record.set_login(Login { cut_off: u64::MAX, ..record.login() });
        Ok(Verdict::Write)
    };
    let anonymous = || create(store, &Record::new(start(), start() + HOUR));
    let [by_update, by_rotation] = [anonymous(), anonymous()];
    update(store, &by_update, set).unwrap().unwrap();
    let how = Rotation::default();
    let by_rotation = store.rotate(&by_rotation, &mut { set }, &how).unwrap().unwrap().token;
    assert!(alive(stage, &by_update) && alive(stage, &by_rotation));
    let older = anonymous();
    store.delete_of("ada", None).unwrap();
    update(store, &older, set).unwrap().unwrap();
    assert!([&by_update, &by_rotation, &older].iter().all(|token| !alive(stage, token)));
    // Also for a session whose user before has had more of them.
    for _ in 0..3 {
        store.delete_of("bob", None).unwrap();
    }
    let of_bob = create(store, &of("bob"));
    store.delete_of("ada", None).unwrap();
    update(store, &of_bob, set).unwrap().unwrap();
    assert!(!alive(stage, &of_bob));
}

pub(super) fn of_a_cut_off_and_a_login_at_once_none_that_had_returned_lives(stage: &Stage) {
    for _ in 0..20 {
        let (returned, called) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        let tokens = std::thread::scope(|scope| {
            let logins = scope.spawn(|| {
                let mut tokens = Vec::new();
                while called.load(Ordering::SeqCst) == u64::MAX && tokens.len() < 1000 {
                    tokens.push(create(&*stage.store, &of("ada")));
                    returned.store(tokens.len() as u64, Ordering::SeqCst);
                }
                tokens
            });
            while returned.load(Ordering::SeqCst) < 3 {
                std::thread::yield_now();
            }
            let had_returned = returned.load(Ordering::SeqCst);
            stage.second.delete_of("ada", None).unwrap();
            called.store(had_returned, Ordering::SeqCst);
            logins.join().unwrap()
        });
        let had_returned = usize::try_from(called.into_inner()).unwrap();
        for token in &tokens[..had_returned] {
            assert!(!alive(stage, token));
        }
        for token in &tokens {
            stage.store.delete(token).unwrap();
        }
    }
}
