//! The ninth promise of `Store`, and the fourth one with a grace period: tokens that a rotation or a login has moved. A
//! storage mode that knows moved tokens has a line in the list of [`moved_contract`].
use super::{absent, add_one, check_nothing_to_change, create, n, record, refuse, update};
use crate::support::memory::{Stage, made_up_token, secs, start};
use sessile::store::{GRACE_MAX, HOPS_MAX};
use sessile::{
    Absent, Durability, Live, Moved, PublicId, Record, Result, Rotation, Saved, Store, Timing, Token, Verdict,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::time::Duration;

/// Makes a test of each of these promises for one storage mode.
macro_rules! moved_contract {
    ($mode:ident, $stage:expr) => {
        mod $mode {
            use super::*;
            moved_contract! { @ $stage;
                a_moved_token_says_until_when_and_whether_by_a_login,
                a_moved_token_may_be_forgotten_after_its_grace_period,
                without_a_grace_period_a_token_is_not_known_as_moved,
                a_grace_period_is_no_longer_than_the_longest,
                a_moved_token_opens_nothing,
                a_rotation_that_does_not_happen_moves_no_token,
                a_login_moves_the_last_successor_of_rotations,
                a_logout_ends_the_last_successor_of_rotations,
                a_deletion_by_a_moved_id_gives_the_id_of_the_successor,
                neither_a_login_nor_a_logout_follows_a_login,
                a_login_that_does_not_happen_moves_no_successor,
                a_token_is_followed_only_within_the_grace_period_of_each_hop,
                a_successor_that_has_ended_or_expired_is_not_there,
                the_successor_is_found_through_rotations_and_logins,
                no_more_than_32_successors_are_followed,
                a_logout_beside_rotations_leaves_no_live_session,
                of_two_logins_at_once_one_moves_the_session,
                a_login_beside_rotations_is_never_absent,
                updates_beside_a_login_of_a_moved_token_are_not_lost,
            }
        }
    };
    (@ $stage:expr; $($promise:ident,)*) => { $(#[test] fn $promise() { super::$promise(&$stage); })* };
}

moved_contract!(memory, Stage::memory());
moved_contract!(rows, Stage::rows());
moved_contract!(sqlite, Stage::sqlite());
moved_contract!(files_relaxed, Stage::light_files());
moved_contract!(files_power_safe, Stage::files(Durability::PowerSafe));

const GRACE: Duration = secs(60);
const INSTANT: Duration = Duration::from_micros(1);
const JUST_BEFORE: Duration = GRACE.checked_sub(INSTANT).expect("grace is longer");

/// The way in which a session gets its next token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hop {
    Rotate,
    Login,
}
use Hop::{Login, Rotate};

/// The arguments of the rotation. A login is one of the user ada.
fn how(hop: Hop, grace: Duration) -> Rotation<'static> {
    let how = Rotation::new(Durability::OfStore).grace(grace);
    match hop {
        Rotate => how,
        Login => how.login("ada"),
    }
}

fn hop(store: &dyn Store, token: &Token, hop: Hop) -> Result<Option<Saved>> {
    store.rotate(token, &mut add_one, &how(hop, GRACE))
}

/// All tokens of a session that makes these hops, from the first to the live one. Each hop adds one.
fn chain(stage: &Stage, hops: &[Hop]) -> Vec<Token> {
    chain_of(stage, &record(0), hops)
}

/// [`chain`] of a session that begins with this record.
fn chain_of(stage: &Stage, record: &Record, hops: &[Hop]) -> Vec<Token> {
    let mut tokens = vec![create(&*stage.store, record)];
    for (number, &by) in hops.iter().enumerate() {
        // The two openings of the storage are used in turn.
        let store = if number % 2 == 0 { &stage.store } else { &stage.second };
        let last = tokens.last().unwrap();
        tokens.push(hop(&**store, last, by).unwrap().expect("it is live").token);
    }
    tokens
}

fn id_of(token: &Token) -> PublicId {
    PublicId::digest(token.expose().as_bytes())
}

#[track_caller]
fn check_moved(stage: &Stage, token: &Token, by: Hop, until: std::time::SystemTime) {
    for store in [&stage.store, &stage.second] {
        let expected = Moved::new(id_of(token), until, by == Login);
        assert_eq!(absent(&**store, token), Absent::Moved(expected));
    }
}

/// Asserts that of these tokens only `live` opens a session, and that the session has been changed this often.
#[track_caller]
fn check_only(stage: &Stage, tokens: &[Token], live: Option<(&Token, u64)>) {
    for token in tokens.iter().filter(|token| live.is_none_or(|(live, _)| *token != live)) {
        stage.check_absent(token);
    }
    if let Some((live, changes)) = live {
        assert_eq!(n(&stage.record(live)), changes);
    }
}

/// The public id of the session to which this token has moved, and the number of its changes.
#[track_caller]
fn successor(store: &dyn Store, token: &Token) -> Option<(PublicId, u64)> {
    store.successor(token).unwrap().map(|Live { record, id, .. }| (id, n(&record)))
}

fn a_moved_token_says_until_when_and_whether_by_a_login(stage: &Stage) {
    for (number, by) in [Rotate, Login, Rotate].into_iter().enumerate() {
        let tokens = chain(stage, &[by, Rotate]);
        let began = start() + secs(number as u64);
        check_moved(stage, &tokens[0], by, began + GRACE);
        check_moved(stage, &tokens[1], Rotate, began + GRACE);
        check_only(stage, &tokens, Some((&tokens[2], 2)));
        // A rotation whose change keeps the record moves the session, too.
        let kept = stage.store.rotate(&tokens[2], &mut |_| Ok(Verdict::Keep), &how(by, GRACE * 2));
        assert_eq!(n(&kept.unwrap().unwrap().live.record), 2);
        check_moved(stage, &tokens[2], by, began + GRACE * 2);
        stage.clock.set(began + secs(1));
    }
}

fn a_moved_token_may_be_forgotten_after_its_grace_period(stage: &Stage) {
    for by in [Rotate, Login] {
        stage.clock.set(start());
        let tokens = chain(stage, &[by]);
        stage.clock.set(start() + JUST_BEFORE);
        check_moved(stage, &tokens[0], by, start() + GRACE);
        for late in [Duration::ZERO, INSTANT, secs(600)] {
            stage.clock.set(start() + GRACE + late);
            let id = id_of(&tokens[0]);
            match absent(&*stage.store, &tokens[0]) {
                Absent::NotFound(found) => assert_eq!(found, id),
                Absent::Moved(found) => {
                    assert_eq!(found, Moved::new(id, start() + GRACE, by == Login));
                    let expected = (id_of(&tokens[1]), 1);
                    assert_eq!(
                        successor(&*stage.store, &tokens[0]),
                        Some(expected),
                        "as long as it is known"
                    );
                }
                other => panic!("{other:?}"),
            }
            check_nothing_to_change(stage, &tokens[0]);
            check_only(stage, &tokens, Some((&tokens[1], 1)));
        }
    }
}

fn without_a_grace_period_a_token_is_not_known_as_moved(stage: &Stage) {
    for by in [Rotate, Login] {
        let old = create(&*stage.store, &record(0));
        let new = stage.store.rotate(&old, &mut add_one, &how(by, Duration::ZERO)).unwrap().unwrap().token;
        assert_eq!(absent(&*stage.second, &old), Absent::NotFound(id_of(&old)));
        assert!(hop(&*stage.store, &old, Login).unwrap().is_none());
        assert!(stage.store.delete(&old).unwrap().is_none());
        assert_eq!(successor(&*stage.store, &old), None);
        check_only(stage, &[old, new.clone()], Some((&new, 1)));
    }
}

fn a_grace_period_is_no_longer_than_the_longest(stage: &Stage) {
    for grace in [GRACE_MAX, GRACE_MAX + INSTANT, Duration::MAX] {
        let old = create(&*stage.store, &record(0));
        stage.store.rotate(&old, &mut add_one, &how(Rotate, grace)).unwrap().unwrap();
        check_moved(stage, &old, Rotate, start() + GRACE_MAX);
    }
}

fn a_moved_token_opens_nothing(stage: &Stage) {
    for hops in [&[Rotate][..], &[Login], &[Rotate, Rotate], &[Login, Rotate], &[Rotate, Login]] {
        let tokens = chain(stage, hops);
        let (live, moved) = tokens.split_last().unwrap();
        for (token, by) in moved.iter().zip(hops) {
            check_nothing_to_change(stage, token);
            let panics = &mut |_: &mut Record| -> Result<Verdict> { panic!("the change must not be called") };
            let rotated = stage.store.rotate(token, panics, &how(Rotate, GRACE)).unwrap();
            assert!(rotated.is_none(), "a mere rotation follows nothing");
            check_moved(stage, token, *by, start() + GRACE);
        }
        check_only(stage, moved, Some((live, hops.len() as u64)));
    }
}

fn a_rotation_that_does_not_happen_moves_no_token(stage: &Stage) {
    let token = create(&*stage.store, &record(1));
    for by in [Rotate, Login] {
        let how = how(by, GRACE);
        assert!(stage.store.rotate(&token, &mut |_| Ok(Verdict::Abort), &how).unwrap().is_none());
        stage.store.rotate(&token, &mut refuse, &how).unwrap_err();
        let panicking = &mut |_: &mut Record| -> Result<Verdict> {
            std::panic::resume_unwind(Box::new("the change gives up"));
        };
        catch_unwind(AssertUnwindSafe(|| stage.store.rotate(&token, panicking, &how))).unwrap_err();
        assert_eq!(stage.record(&token), record(1));
        assert_eq!(successor(&*stage.store, &token), None);
        assert_eq!(stage.stored(), 1);
    }
    // No session is created under an unknown token either.
    let unknown = made_up_token();
    assert!(hop(&*stage.store, &unknown, Login).unwrap().is_none());
    assert_eq!(absent(&*stage.store, &unknown), Absent::NotFound(id_of(&unknown)));
    let malformed = Token::parse("x").unwrap();
    assert!(hop(&*stage.store, &malformed, Login).unwrap().is_none());
    assert_eq!(successor(&*stage.store, &malformed), None);
}

fn a_login_moves_the_last_successor_of_rotations(stage: &Stage) {
    for hops in 1..4 {
        for at in 0..hops {
            let mut tokens = chain(stage, &vec![Rotate; hops]);
            let live = tokens.last().unwrap().clone();
            update(&*stage.second, &live, add_one).unwrap().unwrap();
            let mut seen = None;
            let saved = stage.store.rotate(
                &tokens[at],
                &mut |record| {
                    seen = Some(n(record));
                    add_one(record)
                },
                &how(Login, GRACE),
            );
            let saved = saved.unwrap().expect("a login follows rotations");
            assert_eq!(seen, Some(hops as u64 + 1), "the change receives the newest version");
            assert_eq!(saved.live.id, id_of(&saved.token));
            check_moved(stage, &live, Login, start() + GRACE);
            for token in &tokens[..hops] {
                check_moved(stage, token, Rotate, start() + GRACE);
            }
            tokens.push(saved.token.clone());
            check_only(stage, &tokens, Some((&saved.token, hops as u64 + 2)));
        }
    }
}

fn a_logout_ends_the_last_successor_of_rotations(stage: &Stage) {
    let bystander = create(&*stage.store, &record(7));
    for hops in 1..4 {
        for at in 0..hops {
            let tokens = chain(stage, &vec![Rotate; hops]);
            let ended = stage.store.delete(&tokens[at]).unwrap();
            assert_eq!(ended, Some(id_of(&tokens[hops])), "a live session was there");
            for token in &tokens[..hops] {
                check_moved(stage, token, Rotate, start() + GRACE);
                assert!(stage.second.delete(token).unwrap().is_none(), "there is none any more");
                assert!(hop(&*stage.store, token, Login).unwrap().is_none());
                assert_eq!(successor(&*stage.store, token), None);
            }
            let last = tokens.last().unwrap();
            assert_eq!(absent(&*stage.store, last), Absent::NotFound(id_of(last)));
            check_only(stage, &tokens, None);
        }
    }
    assert_eq!(n(&stage.record(&bystander)), 7);
}

fn a_deletion_by_a_moved_id_gives_the_id_of_the_successor(stage: &Stage) {
    type Delete = fn(&dyn Store, &Token) -> Option<PublicId>;
    let by_token: Delete = |store, token| store.delete(token).unwrap();
    let of_user: Delete = |store, token| store.delete_session_of("ada", &id_of(token)).unwrap();
    for (name, delete) in [("by token", by_token), ("of a user", of_user)] {
        for (hops, expected) in [
            (&[][..], Some(0)),
            (&[Rotate], Some(1)),
            (&[Rotate, Rotate], Some(2)),
            (&[Rotate, Login], None),
            (&[Login], None),
        ] {
            let mut record = record(0);
            record.set_user("ada").unwrap();
            let tokens = chain_of(stage, &record, hops);
            let ended = delete(&*stage.second, &tokens[0]);
            assert_eq!(ended, expected.map(|at| id_of(&tokens[at])), "{name}, {hops:?}");
            assert_eq!(delete(&*stage.store, &tokens[0]), None, "{name}, {hops:?}: once more");
        }
    }
}

fn neither_a_login_nor_a_logout_follows_a_login(stage: &Stage) {
    for (hops, beyond) in [
        (&[Login][..], 0),
        (&[Login, Rotate], 0),
        (&[Login, Login], 1),
        (&[Rotate, Login], 1),
        (&[Rotate, Rotate, Login], 2),
        (&[Rotate, Login, Rotate], 1),
    ] {
        let tokens = chain(stage, hops);
        let live = tokens.last().unwrap();
        for token in &tokens[..=beyond] {
            let panics = &mut |_: &mut Record| -> Result<Verdict> { panic!("the change must not be called") };
            assert!(stage.store.rotate(token, panics, &how(Login, GRACE)).unwrap().is_none(), "{hops:?}");
            assert!(stage.store.delete(token).unwrap().is_none(), "{hops:?}");
        }
        check_only(stage, &tokens, Some((live, hops.len() as u64)));
    }
}

fn a_login_that_does_not_happen_moves_no_successor(stage: &Stage) {
    let tokens = chain(stage, &[Rotate]);
    let how = how(Login, GRACE);
    assert!(stage.store.rotate(&tokens[0], &mut |_| Ok(Verdict::Abort), &how).unwrap().is_none());
    stage.store.rotate(&tokens[0], &mut refuse, &how).unwrap_err();
    check_only(stage, &tokens, Some((&tokens[1], 1)));
    assert!(update(&*stage.second, &tokens[1], add_one).unwrap().is_some(), "no lock is kept");
}

fn a_token_is_followed_only_within_the_grace_period_of_each_hop(stage: &Stage) {
    let long = GRACE * 2;
    for (graces, late, follows) in [
        ([GRACE, long], JUST_BEFORE, true),
        ([GRACE, long], GRACE, false),
        ([long, GRACE], JUST_BEFORE, true),
        ([long, GRACE], GRACE, false),
    ] {
        for login in [true, false] {
            stage.clock.set(start());
            let mut tokens = vec![create(&*stage.store, &record(0))];
            for grace in graces {
                let saved =
                    stage.store.rotate(tokens.last().unwrap(), &mut add_one, &how(Rotate, grace)).unwrap();
                tokens.push(saved.unwrap().token);
            }
            stage.clock.set(start() + late);
            let found = if login {
                hop(&*stage.second, &tokens[0], Login).unwrap().is_some()
            } else {
                stage.second.delete(&tokens[0]).unwrap().is_some()
            };
            assert_eq!(found, follows, "{graces:?} {late:?} login {login}");
            if !follows {
                check_only(stage, &tokens, Some((&tokens[2], 2)));
            }
        }
    }
}

fn a_successor_that_has_ended_or_expired_is_not_there(stage: &Stage) {
    for hops in [&[Rotate][..], &[Login]] {
        let tokens = chain(stage, hops);
        assert!(stage.store.delete(&tokens[1]).unwrap().is_some());
        check_moved(stage, &tokens[0], hops[0], start() + GRACE);
        assert!(stage.second.delete(&tokens[0]).unwrap().is_none());
        assert!(hop(&*stage.second, &tokens[0], Login).unwrap().is_none());
        assert_eq!(successor(&*stage.second, &tokens[0]), None);
    }
    let tokens = chain(stage, &[Rotate]);
    let expire = |record: &mut Record| {
        record.set_timing(Timing { deadline: start() + secs(10), ..record.timing() });
        Ok(Verdict::Write)
    };
    update(&*stage.store, &tokens[1], expire).unwrap().unwrap();
    stage.clock.set(start() + secs(10));
    assert!(hop(&*stage.store, &tokens[0], Login).unwrap().is_none());
    assert_eq!(successor(&*stage.store, &tokens[0]), None);
    assert!(stage.store.delete(&tokens[0]).unwrap().is_none());
}

fn the_successor_is_found_through_rotations_and_logins(stage: &Stage) {
    for hops in [&[Rotate][..], &[Login], &[Rotate, Login, Login, Rotate], &[Login, Rotate, Rotate]] {
        stage.clock.set(start());
        let tokens = chain(stage, hops);
        let (live, moved) = tokens.split_last().unwrap();
        let before = stage.stored();
        for token in moved {
            for store in [&stage.store, &stage.second] {
                let found = store.successor(token).unwrap().expect("the last one is live");
                assert_eq!((found.id, &found.record), (id_of(live), &stage.record(live)), "{hops:?}");
                assert!(!format!("{found:?}").contains(live.expose()), "the secret is not given out");
            }
        }
        assert_eq!(successor(&*stage.store, live), None, "it is not moved");
        assert_eq!(stage.stored(), before, "nothing is stored");
        // The successor is found with the version that another opening has just saved.
        update(&*stage.second, live, add_one).unwrap().unwrap();
        assert_eq!(successor(&*stage.store, &tokens[0]), Some((id_of(live), hops.len() as u64 + 1)));
    }
    assert_eq!(successor(&*stage.store, &made_up_token()), None);
}

fn no_more_than_32_successors_are_followed(stage: &Stage) {
    assert_eq!(HOPS_MAX, 32);
    let mut tokens = chain(stage, &[Rotate; HOPS_MAX + 1]);
    let live = tokens.last().unwrap().clone();
    assert!(hop(&*stage.store, &tokens[0], Login).unwrap().is_none());
    assert!(stage.store.delete(&tokens[0]).unwrap().is_none());
    assert_eq!(successor(&*stage.store, &tokens[0]), None);
    check_only(stage, &tokens, Some((&live, HOPS_MAX as u64 + 1)));
    // With one hop less, the successor is found.
    assert_eq!(successor(&*stage.store, &tokens[1]), Some((id_of(&live), HOPS_MAX as u64 + 1)));
    let saved = hop(&*stage.store, &tokens[1], Login).unwrap().expect("32 are followed");
    tokens.push(saved.token.clone());
    check_only(stage, &tokens, Some((&saved.token, HOPS_MAX as u64 + 2)));
    let tokens = chain(stage, &[Rotate; HOPS_MAX]);
    assert!(stage.store.delete(&tokens[0]).unwrap().is_some());
    check_only(stage, &tokens, None);
}

/// Rotates a session again and again, from the barrier on, until another operation ends or moves it. Returns all its
/// tokens. They are fewer than the hops that a logout or a login follows.
fn rotated(stage: &Stage, first: &Token, barrier: &Barrier) -> Vec<Token> {
    let mut tokens = vec![first.clone()];
    barrier.wait();
    while tokens.len() < 20 {
        let Some(saved) = hop(&*stage.store, tokens.last().unwrap(), Rotate).unwrap() else { break };
        tokens.push(saved.token);
    }
    tokens
}

fn a_logout_beside_rotations_leaves_no_live_session(stage: &Stage) {
    for round in 0..30 {
        let first = create(&*stage.store, &record(0));
        let barrier = Barrier::new(2);
        let tokens = std::thread::scope(|scope| {
            let rotations = scope.spawn(|| rotated(stage, &first, &barrier));
            barrier.wait();
            (0..round * 50).for_each(|_| std::hint::spin_loop());
            assert!(stage.second.delete(&first).unwrap().is_some(), "a live session was there throughout");
            rotations.join().unwrap()
        });
        check_only(stage, &tokens, None);
    }
    assert_eq!(stage.stored(), 0);
}

fn of_two_logins_at_once_one_moves_the_session(stage: &Stage) {
    for round in 0..30_usize {
        // In one third of the rounds the token opens the session. In the others, the session was moved once or twice.
        let mut tokens = chain(stage, &[Rotate; 2][..round % 3]);
        let first = tokens[0].clone();
        let barrier = Barrier::new(2);
        let log_in = |store: &dyn Store| {
            barrier.wait();
            hop(store, &first, Login).unwrap().map(|saved| saved.token)
        };
        let logins = std::thread::scope(|scope| {
            let other = scope.spawn(|| log_in(&*stage.second));
            [log_in(&*stage.store), other.join().unwrap()]
        });
        let logins: Vec<_> = logins.into_iter().flatten().collect();
        assert_eq!(logins.len(), 1, "the other one does not follow a login");
        let changes = tokens.len() as u64;
        tokens.extend(logins.clone());
        check_only(stage, &tokens, Some((&logins[0], changes)));
    }
}

fn a_login_beside_rotations_is_never_absent(stage: &Stage) {
    for round in 0..30 {
        let first = create(&*stage.store, &record(0));
        let barrier = Barrier::new(2);
        let (mut tokens, login) = std::thread::scope(|scope| {
            let rotations = scope.spawn(|| rotated(stage, &first, &barrier));
            barrier.wait();
            (0..round * 50).for_each(|_| std::hint::spin_loop());
            let login = hop(&*stage.second, &first, Login).unwrap();
            (rotations.join().unwrap(), login.expect("it follows rotations").token)
        });
        let changes = tokens.len() as u64;
        tokens.push(login.clone());
        check_only(stage, &tokens, Some((&login, changes)));
        assert_eq!(successor(&*stage.store, &first), Some((id_of(&login), changes)));
    }
}

fn updates_beside_a_login_of_a_moved_token_are_not_lost(stage: &Stage) {
    for _ in 0..20 {
        let tokens = chain(stage, &[Rotate]);
        let barrier = Barrier::new(2);
        let (login, acknowledged) = std::thread::scope(|scope| {
            let updates = scope.spawn(|| {
                barrier.wait();
                let mut acknowledged = 0;
                while update(&*stage.second, &tokens[1], add_one).unwrap().is_some() {
                    acknowledged += 1;
                }
                acknowledged
            });
            barrier.wait();
            std::thread::yield_now();
            let login = hop(&*stage.store, &tokens[0], Login).unwrap().expect("it follows the rotation");
            (login.token, updates.join().unwrap())
        });
        // The record has the changes of the rotation and of the login, and all acknowledged updates.
        assert_eq!(n(&stage.record(&login)), 2 + acknowledged);
    }
}
