//! A handler's access to the entries of its session: the session loads when an entry is first used, notes whether it
//! was read or changed, and checks types and names. `lifecycle` tests how changes are saved.
use crate::support::memory::{Call, Stage, made_up_token, on_every_storage, secs};
use serde::ser::Error as _;
use serde::{Deserialize, Serialize};
use sessile::{
    Destroyed, Durability, Error, ErrorKind, Expiry, Record, Result, Session, Store, Token, Value, Verdict,
};
use std::collections::HashMap;

on_every_storage! {
    opening_a_session_and_noting_changes_is_no_io,
    every_operation_says_whether_it_read_and_whether_it_changed,
    an_operation_on_a_new_session_says_the_same_as_on_a_stored_one,
    data_is_loaded_at_the_first_use_and_once,
    a_load_that_failed_is_an_error_and_is_not_remembered,
    a_missing_entry_is_none,
    an_entry_of_another_type_is_an_error_that_names_both,
    a_field_that_is_missing_is_named_with_its_path_by_every_read,
    names_are_checked_by_every_operation_before_anything_else,
    names_of_up_to_128_bytes_are_allowed,
    a_name_that_would_turn_a_line_of_a_log_is_escaped_in_errors,
    stored_names_with_control_characters_still_load,
    reserved_entries_are_not_seen_among_the_others,
    a_value_that_cannot_be_stored_is_refused_and_changes_nothing,
    a_float_that_is_not_finite_is_refused_and_not_stored_as_null,
    the_handler_sees_its_own_changes_at_once,
    the_handler_sees_what_was_saved_after_a_save,
    take_returns_an_entry_once,
    get_or_insert_keeps_what_is_there,
    clear_drops_everything_without_loading_and_keeps_the_id,
    inserting_the_value_that_is_there_saves_nothing,
    inserting_the_value_that_was_loaded_again_after_a_change_counts,
    update_shows_a_preview_and_applies_at_the_save,
    update_continues_from_other_changes_of_the_request,
    an_update_whose_function_panics_changes_nothing,
    update_now_is_the_truth_and_commits_that_entry_only,
    update_now_includes_earlier_changes_of_the_entry,
    the_test_cookie_works_one_request_later_and_until_it_is_deleted,
    entries_are_the_handlers_view_in_the_order_of_names,
    a_value_that_no_session_has_room_for_is_refused_when_it_is_set,
    a_value_beyond_a_lowered_limit_may_stay_or_become_smaller,
}

/// Saves a session by an earlier request: its entry `n` is 1, `text` is "x". Returns its token.
fn stored(stage: &Stage) -> Token {
    let mut session = stage.others().session([]);
    session.insert("n", 1).unwrap();
    session.insert("text", "x").unwrap();
    session.save().unwrap();
    session.token().unwrap().unwrap()
}

/// The session of a request whose calls of the store are recorded.
fn brought(stage: &Stage, token: &Token) -> Session {
    stage.sessions().session([token.clone()])
}

#[track_caller]
fn number(stage: &Stage, token: &Token, name: &str) -> Option<u64> {
    stage.record(token).entries().get(name).map(|value| value.get().unwrap())
}

fn add_one(n: &mut u64) -> u64 {
    *n += 1;
    *n
}

/// An operation on a session, with its result as a text.
struct Operation {
    name: &'static str,
    run: fn(&mut Session),
    accessed: bool,
    modified: bool,
    loads: bool,
}

const fn operation(name: &'static str, run: fn(&mut Session), flags: [bool; 3]) -> Operation {
    let [accessed, modified, loads] = flags;
    Operation { name, run, accessed, modified, loads }
}

/// A change that a request may make, with its name.
type Change = (&'static str, fn(&mut Session));
/// A change that a request may make, with its name, and the value of the entry `n` afterwards.
type ChangeOfN = (&'static str, fn(&mut Session), u64);

/// The expected flags after an operation: accessed, modified, loaded.
const UNTOUCHED: [bool; 3] = [false, false, false];
const READ: [bool; 3] = [true, false, true];
const WRITE: [bool; 3] = [true, true, true];
const BLIND_WRITE: [bool; 3] = [true, true, false];

const OPERATIONS: &[Operation] = &[
    operation("nothing", |_| (), UNTOUCHED),
    operation("accessed", |s| assert!(!s.accessed()), UNTOUCHED),
    operation("modified", |s| assert!(!s.modified()), UNTOUCHED),
    operation("debug", |s| assert!(format!("{s:?}").starts_with("Session")), UNTOUCHED),
    operation("power_safe", Session::power_safe, UNTOUCHED),
    operation("get", |s| assert_eq!(s.get("n").unwrap(), Some(1)), READ),
    operation("get of a missing", |s| assert_eq!(s.get::<u64>("none").unwrap(), None), READ),
    operation("contains", |s| assert!(s.contains("n").unwrap()), READ),
    operation("names", |s| assert_eq!(s.names().unwrap(), ["n", "text"]), READ),
    operation("is_empty", |s| assert!(!s.is_empty().unwrap()), READ),
    operation("user", |s| assert_eq!(s.user().unwrap(), None), READ),
    operation("public_id", |s| assert!(s.public_id().unwrap().is_some()), READ),
    operation("token", |s| assert!(s.token().unwrap().is_some()), READ),
    operation("expiry", |s| assert_eq!(s.expiry().unwrap(), Expiry::Default), READ),
    operation("deadline", |s| assert!(s.deadline().is_ok()), READ),
    operation("remaining", |s| assert!(s.remaining().is_ok()), READ),
    operation("test_cookie_worked", |s| assert!(!s.test_cookie_worked().unwrap()), READ),
    operation("insert", |s| s.insert("n", 2).unwrap(), WRITE),
    operation("insert of a new", |s| s.insert("new", 2).unwrap(), WRITE),
    operation("insert of the same", |s| s.insert("n", 1).unwrap(), READ),
    operation("remove", |s| assert!(s.remove("n").unwrap()), WRITE),
    operation("remove of a missing", |s| assert!(!s.remove("none").unwrap()), READ),
    operation("take", |s| assert_eq!(s.take("n").unwrap(), Some(1)), WRITE),
    operation("take of a missing", |s| assert_eq!(s.take::<u64>("none").unwrap(), None), READ),
    operation("get_or_insert", |s| assert_eq!(s.get_or_insert("n", 9).unwrap(), 1), READ),
    operation("get_or_insert of a missing", |s| assert_eq!(s.get_or_insert("m", 9).unwrap(), 9), WRITE),
    operation("update", |s| assert!(s.update("n", |n: &mut u64| *n += 1).is_ok()), WRITE),
    operation("update to the same", |s| assert!(s.update("n", |_: &mut u64| ()).is_ok()), WRITE),
    operation("update_now", |s| assert_eq!(s.update_now("n", add_one).unwrap(), 2), WRITE),
    operation("update_now to the same", |s| s.update_now("n", |_: &mut u64| ()).unwrap(), WRITE),
    operation("take_now", |s| assert_eq!(s.take_now("n").unwrap(), Some(1)), WRITE),
    operation("take_now of a missing", |s| assert_eq!(s.take_now::<u64>("none").unwrap(), None), READ),
    operation("get_or_insert_now", |s| assert_eq!(s.get_or_insert_now("n", 9).unwrap(), 1), READ),
    operation("get_or_insert_now, missing", |s| assert_eq!(s.get_or_insert_now("m", 9).unwrap(), 9), WRITE),
    operation("login", |s| s.login("ada").unwrap(), WRITE),
    operation("set_test_cookie", |s| s.set_test_cookie().unwrap(), WRITE),
    operation("delete_test_cookie, not set", |s| s.delete_test_cookie().unwrap(), READ),
    operation("clear", Session::clear, BLIND_WRITE),
    operation("set_expiry", |s| s.set_expiry(Expiry::BrowserClose), BLIND_WRITE),
    operation("rotate_id", Session::rotate_id, [true, false, false]),
    operation("save", |s| s.save().unwrap(), [true, false, false]),
    operation("destroy", |s| assert_eq!(s.destroy().unwrap(), Destroyed::Ended), BLIND_WRITE),
];

fn every_operation_says_whether_it_read_and_whether_it_changed(stage: &Stage) {
    for operation in OPERATIONS {
        let token = stored(stage);
        let mut session = brought(stage, &token);
        stage.rig.calls();
        (operation.run)(&mut session);
        let name = operation.name;
        assert_eq!(session.accessed(), operation.accessed, "accessed after {name}");
        assert_eq!(session.modified(), operation.modified, "modified after {name}");
        let loads = stage.rig.calls().iter().filter(|&&call| call == Call::Load).count();
        assert_eq!(loads, usize::from(operation.loads), "loads of {name}");
    }
}

fn an_operation_on_a_new_session_says_the_same_as_on_a_stored_one(stage: &Stage) {
    for made_up in [false, true] {
        let open = || stage.sessions().session(made_up.then(made_up_token));
        let check = |what: &str, run: &dyn Fn(&mut Session), modified: bool| {
            let mut session = open();
            run(&mut session);
            assert!(session.accessed(), "accessed after {what}");
            assert_eq!(session.modified(), modified, "modified after {what}");
        };
        check("get", &|s| assert_eq!(s.get::<u64>("n").unwrap(), None), false);
        check("contains", &|s| assert!(!s.contains("n").unwrap()), false);
        check("names", &|s| assert!(s.names().unwrap().is_empty()), false);
        check("is_empty", &|s| assert!(s.is_empty().unwrap()), false);
        check("user", &|s| assert_eq!(s.user().unwrap(), None), false);
        check("public_id", &|s| assert_eq!(s.public_id().unwrap(), None), false);
        check("token", &|s| assert_eq!(s.token().unwrap(), None), false);
        check("remove", &|s| assert!(!s.remove("n").unwrap()), false);
        check("take", &|s| assert_eq!(s.take::<u64>("n").unwrap(), None), false);
        check("insert", &|s| s.insert("n", 1).unwrap(), true);
        check("get_or_insert", &|s| assert_eq!(s.get_or_insert("n", 9).unwrap(), 9), true);
        check("update", &|s| assert_eq!(s.update("n", |n: &mut u64| *n += 1).unwrap(), 1), true);
        check("clear", &Session::clear, true);
        check("update_now", &|s| assert_eq!(s.update_now("n", add_one).unwrap(), 1), true);
    }
}

fn opening_a_session_and_noting_changes_is_no_io(stage: &Stage) {
    /// Compiles only if the value can be sent to another thread, as a handler may do with its session.
    fn is_send(_: &impl Send) {}
    let token = stored(stage);
    stage.rig.readings();
    let mut session = brought(stage, &token);
    is_send(&session);
    assert_eq!((session.accessed(), session.modified()), (false, false));
    session.power_safe();
    session.clear();
    session.rotate_id();
    session.set_expiry(Expiry::After(secs(300)));
    assert_eq!(format!("{session:?}"), "Session { id: None, accessed: true, modified: true, .. }");
    drop(session);
    assert_eq!(stage.rig.calls(), []);
    assert_eq!(stage.rig.readings(), 0, "the clock is not asked either");
    assert_eq!(number(stage, &token, "n"), Some(1), "a session that is dropped saves nothing");
}

fn data_is_loaded_at_the_first_use_and_once(stage: &Stage) {
    let token = stored(stage);
    let mut session = brought(stage, &token);
    for _ in 0..3 {
        assert_eq!(session.get("n").unwrap(), Some(1));
        assert_eq!(session.get::<u64>("none").unwrap(), None);
        assert!(session.contains("text").unwrap());
        assert_eq!(session.names().unwrap(), ["n", "text"]);
        assert!(session.deadline().is_ok());
    }
    session.insert("m", 1).unwrap();
    assert_eq!(stage.rig.calls(), [Call::Load]);

    // The result "there is no session" is remembered too, and not looked up again.
    let unknown = brought(stage, &made_up_token());
    for _ in 0..3 {
        assert!(unknown.is_empty().unwrap());
    }
    assert_eq!(stage.rig.calls(), [Call::Load]);

    // A request without a cookie looks nothing up.
    let mut none = stage.sessions().session([]);
    assert!(none.is_empty().unwrap());
    none.save().unwrap();
    assert_eq!(stage.rig.calls(), []);
}

fn a_load_that_failed_is_an_error_and_is_not_remembered(stage: &Stage) {
    for operation in OPERATIONS.iter().filter(|operation| operation.loads) {
        let token = stored(stage);
        let mut session = brought(stage, &token);
        stage.rig.calls();
        stage.rig.fail(Call::Load, 0);
        let error = session.contains("n").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage, "the failure itself, never \"no session\"");
        // The store works again, and the operation succeeds as if nothing had failed.
        (operation.run)(&mut session);
        session.save().unwrap();
        assert_eq!(stage.rig.calls()[..2], [Call::Load, Call::Load], "{}", operation.name);
        session.destroy().unwrap();
    }
    check_failing_load(stage, "get", |s| s.get::<u64>("n").map(drop));
    check_failing_load(stage, "names", |s| s.names().map(drop));
    check_failing_load(stage, "is_empty", |s| s.is_empty().map(drop));
    check_failing_load(stage, "user", |s| s.user().map(drop));
    check_failing_load(stage, "token", |s| s.token().map(drop));
    check_failing_load(stage, "public_id", |s| s.public_id().map(drop));
    check_failing_load(stage, "deadline", |s| s.deadline().map(drop));
    check_failing_load(stage, "remaining", |s| s.remaining().map(drop));
    check_failing_load(stage, "expiry", |s| s.expiry().map(drop));
    check_failing_load(stage, "insert", |s| s.insert("n", 2));
    check_failing_load(stage, "remove", |s| s.remove("n").map(drop));
    check_failing_load(stage, "take", |s| s.take::<u64>("n").map(drop));
    check_failing_load(stage, "get_or_insert", |s| s.get_or_insert("m", 2).map(drop));
    check_failing_load(stage, "update", |s| s.update("n", |n: &mut u64| *n += 1).map(drop));
    check_failing_load(stage, "update_now", |s| s.update_now("n", add_one).map(drop));
    check_failing_load(stage, "login", |s| s.login("ada"));
    check_failing_load(stage, "set_test_cookie", Session::set_test_cookie);
    check_failing_load(stage, "test_cookie_worked", |s| s.test_cookie_worked().map(drop));
}

/// Asserts that the operation fails while the store fails, changes nothing, and leaves nothing to be saved.
#[track_caller]
fn check_failing_load(stage: &Stage, name: &str, run: impl Fn(&mut Session) -> Result<()>) {
    let token = stored(stage);
    let before = stage.record(&token);
    let mut session = brought(stage, &token);
    stage.rig.fail(Call::Load, 0);
    assert_eq!(run(&mut session).unwrap_err().kind(), ErrorKind::Storage, "{name}");
    assert!(session.accessed(), "{name}");
    assert!(!session.modified(), "{name}");
    stage.rig.writes();
    session.save().unwrap();
    assert_eq!(stage.rig.writes(), 0, "{name}");
    assert_eq!(stage.record(&token), before, "{name}");
}

fn a_missing_entry_is_none(stage: &Stage) {
    let token = stored(stage);
    let mut session = brought(stage, &token);
    assert_eq!(session.get::<u64>("none").unwrap(), None);
    assert_eq!(session.get::<Option<u64>>("none").unwrap(), None);
    // An entry whose value is `None` exists.
    session.insert("nothing", None::<u64>).unwrap();
    assert_eq!(session.get::<Option<u64>>("nothing").unwrap(), Some(None));
    assert!(session.contains("nothing").unwrap());
    assert_eq!(session.take::<Option<u64>>("nothing").unwrap(), Some(None));
    assert!(!session.contains("nothing").unwrap());
}

#[track_caller]
fn check_type_error<T: std::fmt::Debug>(result: Result<T>, held: &str, asked: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Type);
    assert_eq!(error.to_string(), format!("failed to read entry `entry`: it holds {held}, not a `{asked}`"));
}

fn an_entry_of_another_type_is_an_error_that_names_both(stage: &Stage) {
    let token = stored(stage);
    let mut session = brought(stage, &token);
    let mut check = |value: serde_json::Value, held: &str| {
        session.insert("entry", &value).unwrap();
        check_type_error(
            session.get::<HashMap<u8, u8>>("entry"),
            held,
            std::any::type_name::<HashMap<u8, u8>>(),
        );
    };
    check(true.into(), "a boolean");
    check(7.into(), "an integer");
    check(0.5.into(), "a float");
    check(serde_json::Value::Null, "null");
    check(vec![1].into(), "an array");
    check("seven".into(), "a string");

    check_type_error(session.get::<u64>("entry"), "a string", "u64");
    check_type_error(session.take::<u64>("entry"), "a string", "u64");
    check_type_error(session.get_or_insert("entry", 7_u64), "a string", "u64");
    check_type_error(session.update("entry", |n: &mut u64| *n += 1), "a string", "u64");
    check_type_error(session.update_now("entry", add_one), "a string", "u64");
    assert_eq!(session.get("entry").unwrap(), Some("seven".to_owned()), "it is untouched");

    // An integer outside the range of the requested type is an error of the kind `Type`, too.
    session.insert("entry", -1).unwrap();
    check_type_error(session.get::<u64>("entry"), "an integer", "u64");

    // The entry gets another type between the update and its save.
    let mut session = brought(stage, &token);
    session.update("n", |n: &mut u64| *n += 1).unwrap();
    session.insert("m", 1).unwrap();
    let mut other = stage.others().session([token.clone()]);
    other.insert("n", "one").unwrap();
    other.save().unwrap();
    let error = session.save().unwrap_err();
    assert_eq!(error.to_string(), "failed to read entry `n`: it holds a string, not a `u64`");
    assert_eq!(error.kind(), ErrorKind::Type);
    assert_eq!(number(stage, &token, "m"), None, "nothing was saved");
    session.insert("n", 5).unwrap();
    session.save().unwrap();
    assert_eq!(
        (number(stage, &token, "n"), number(stage, &token, "m")),
        (Some(5), Some(1)),
        "and all is now"
    );
}

/// A cart of two items. A program that did not know currencies stored the second one.
const CART: &str = r#"{"items": [{"price": {"amount": 1, "currency": "EUR"}}, {"price": {"amount": 4711}}]}"#;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Cart {
    items: Vec<Item>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Item {
    price: Price,
}

#[derive(Debug, Serialize, Deserialize)]
struct Price {
    amount: u32,
    currency: String,
}

fn a_field_that_is_missing_is_named_with_its_path_by_every_read(stage: &Stage) {
    let token = stored(stage);
    let mut session = brought(stage, &token);
    session.insert("cart", serde_json::from_str::<serde_json::Value>(CART).unwrap()).unwrap();
    session.save().unwrap();
    let refusals = [
        session.get::<Cart>("cart").map(drop),
        session.take::<Cart>("cart").map(drop),
        session.get_or_insert("cart", Cart::default()).map(drop),
        session.update("cart", |cart: &mut Cart| cart.items.clear()).map(drop),
        session.update_now("cart", |cart: &mut Cart| cart.items.clear()),
    ];
    for refused in refusals {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Type);
        let text = "failed to read entry `cart`: at `items[1].price`: missing field `currency`";
        assert_eq!(error.to_string(), text);
        assert!(!format!("{error:?}").contains("4711"));
    }
    // An entry that cannot be decoded can be replaced and removed.
    session.insert("cart", Cart::default()).unwrap();
    assert!(session.remove("cart").unwrap());
}

fn names_are_checked_by_every_operation_before_anything_else(stage: &Stage) {
    let long = "n".repeat(129);
    // A name of 128 characters and 129 bytes.
    let long_in_bytes = "n".repeat(127) + "é";
    for (name, reason) in [
        ("", "it is empty"),
        (&long, "it has 129 bytes, the limit is 128"),
        (&long_in_bytes, "it has 129 bytes, the limit is 128"),
        ("a\nb", "it has a control character"),
        ("\0", "it has a control character"),
        ("a\u{9b}31m", "it has a control character"),
        ("_\u{7f}", "it has a control character"),
        ("_", "`_` is reserved, as all that begin with `_`"),
        ("_test", "`_test` is reserved, as all that begin with `_`"),
        ("_\u{202e}\u{2028}", r"`_\u{202e}\u{2028}` is reserved, as all that begin with `_`"),
    ] {
        let mut session = brought(stage, &made_up_token());
        let refusals: [(&str, Result<()>); 8] = [
            ("get", session.get::<u64>(name).map(drop)),
            ("contains", session.contains(name).map(drop)),
            ("insert", session.insert(name, 1)),
            ("remove", session.remove(name).map(drop)),
            ("take", session.take::<u64>(name).map(drop)),
            ("get_or_insert", session.get_or_insert(name, 1).map(drop)),
            ("update", session.update(name, |n: &mut u64| *n += 1).map(drop)),
            ("update_now", session.update_now(name, add_one).map(drop)),
        ];
        for (operation, result) in refusals {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Name, "{operation}");
            assert_eq!(error.to_string(), format!("failed to use an entry name: {reason}"), "{operation}");
        }
        assert!(!session.modified());
        assert_eq!(stage.rig.calls(), [], "a name that cannot be is not looked for");
        session.save().unwrap();
        assert_eq!(stage.stored(), 0);
    }
}

fn a_name_that_would_turn_a_line_of_a_log_is_escaped_in_errors(stage: &Stage) {
    let token = stored(stage);
    let mut session = brought(stage, &token);
    let name = "cart\u{2028}admin\u{202e}";
    session.insert(name, "secret").unwrap();
    let safe = r"cart\u{2028}admin\u{202e}";
    let errors = [
        (session.get::<u64>(name).unwrap_err(), "read"),
        (session.update(name, |n: &mut u64| *n += 1).unwrap_err(), "read"),
        (session.update_now(name, add_one).unwrap_err(), "read"),
        (session.insert(name, f64::NAN).unwrap_err(), "set"),
    ];
    for (error, operation) in errors {
        assert!(error.to_string().starts_with(&format!("failed to {operation} entry `{safe}`: ")), "{error}");
        let debug = format!("{error:?}");
        assert!(debug.contains(safe) && !debug.contains(['\u{2028}', '\u{202e}']), "{debug}");
    }
}

/// An earlier version of this crate allowed names with control characters.
fn stored_names_with_control_characters_still_load(stage: &Stage) {
    let token = stored(stage);
    let mut older = |record: &mut Record| {
        record.insert("a\nb", &Value::new(&1).unwrap()).unwrap();
        Ok(Verdict::Write)
    };
    let saved = stage.rig.update(&token, &mut older, Durability::OfStore);
    assert!(saved.unwrap().is_some());
    let mut session = brought(stage, &token);
    assert_eq!(session.get("n").unwrap(), Some(1));
    assert_eq!(session.names().unwrap(), ["a\nb", "n", "text"]);
    session.insert("n", 2).unwrap();
    session.save().unwrap();
    assert_eq!(number(stage, &token, "n"), Some(2));
    assert_eq!(number(stage, &token, "a\nb"), Some(1), "it is kept until the session is cleared");
    let mut session = brought(stage, &token);
    session.clear();
    assert_eq!(session.names().unwrap(), [""; 0]);
    session.save().unwrap();
    assert!(stage.record(&token).entries().is_empty());
}

fn names_of_up_to_128_bytes_are_allowed(stage: &Stage) {
    let longest = "n".repeat(128);
    for name in
        [&longest, "a", "a_", "__init__".trim_start_matches('_'), " ", "\u{2028}", "../..", "né🦀", "N"]
    {
        let mut session = stage.sessions().session([]);
        session.insert(name, 1).unwrap();
        session.save().unwrap();
        let again = brought(stage, &session.token().unwrap().unwrap());
        assert_eq!(again.get(name).unwrap(), Some(1));
        assert_eq!(again.names().unwrap(), [name]);
    }
}

fn reserved_entries_are_not_seen_among_the_others(stage: &Stage) {
    let mut session = stage.sessions().session([]);
    session.set_test_cookie().unwrap();
    session.save().unwrap();
    let session = brought(stage, &session.token().unwrap().unwrap());
    assert!(session.test_cookie_worked().unwrap());
    assert!(session.names().unwrap().is_empty());
    assert!(session.is_empty().unwrap());
}

struct Unwilling;

impl Serialize for Unwilling {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("not today"))
    }
}

#[track_caller]
fn check_value_error(result: Result<()>) {
    let error: Error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value);
    let text = error.to_string();
    assert!(text.starts_with("failed to set entry `bad`"), "{text}");
}

/// Asserts that a refused value is neither read nor saved.
#[track_caller]
fn check_unchanged(stage: &Stage, session: &mut Session) {
    assert!(!session.modified());
    assert!(!session.contains("bad").unwrap());
    session.save().unwrap();
    assert_eq!(stage.rig.writes(), 0);
}

fn a_value_that_cannot_be_stored_is_refused_and_changes_nothing(stage: &Stage) {
    let token = stored(stage);
    let mut session = brought(stage, &token);
    check_value_error(session.insert("bad", Unwilling));
    check_value_error(session.insert("bad", HashMap::from([((1, 2), 3)])));
    check_value_error(session.insert("bad", u128::MAX));
    let deep = (0..65).fold(serde_json::json!(1), |inner, _| serde_json::json!([inner]));
    check_value_error(session.insert("bad", &deep));
    check_value_error(session.get_or_insert("bad", deep.clone()).map(drop));
    let deepen = move |value: &mut serde_json::Value| value.clone_from(&deep);
    check_value_error(session.update("bad", deepen.clone()).map(drop));
    check_value_error(session.update_now("bad", deepen));
    check_unchanged(stage, &mut session);
}

fn a_float_that_is_not_finite_is_refused_and_not_stored_as_null(stage: &Stage) {
    let token = stored(stage);
    let mut session = brought(stage, &token);
    for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        check_value_error(session.insert("bad", float));
        check_value_error(session.insert("bad", HashMap::from([("deep", vec![Some(float)])])));
        check_value_error(session.update("bad", move |n: &mut f64| *n = float).map(drop));
        check_value_error(session.update_now("bad", |n: &mut f64| *n = float));
    }
    check_value_error(session.insert("bad", f32::NAN));
    check_unchanged(stage, &mut session);
    for float in [0.0, -0.0, f64::MIN_POSITIVE, f64::MAX, 0.1] {
        session.insert("good", float).unwrap();
        assert_eq!(session.get("good").unwrap(), Some(float));
    }
    session.insert("good", None::<f64>).unwrap();
    assert_eq!(session.get::<Option<f64>>("good").unwrap(), Some(None));
}

fn the_handler_sees_its_own_changes_at_once(stage: &Stage) {
    let token = stored(stage);
    let mut session = brought(stage, &token);
    session.insert("n", 5).unwrap();
    session.insert("m", vec!["a"]).unwrap();
    session.remove("text").unwrap();
    assert_eq!(session.get("n").unwrap(), Some(5));
    assert_eq!(session.get("m").unwrap(), Some(vec!["a".to_owned()]));
    assert_eq!(session.get::<String>("text").unwrap(), None);
    assert_eq!(session.names().unwrap(), ["m", "n"]);
    session.remove("m").unwrap();
    session.remove("n").unwrap();
    assert!(session.is_empty().unwrap());
    session.insert("text", "y").unwrap();
    assert_eq!(session.names().unwrap(), ["text"]);
    assert_eq!(number(stage, &token, "n"), Some(1), "and no other request sees it yet");
}

fn the_handler_sees_what_was_saved_after_a_save(stage: &Stage) {
    let token = stored(stage);
    let mut session = brought(stage, &token);
    assert_eq!(session.update("n", |n: &mut u64| *n += 1).unwrap(), 2);
    let mut other = stage.others().session([token]);
    other.insert("n", 10).unwrap();
    other.insert("m", 3).unwrap();
    other.save().unwrap();
    assert_eq!(session.get::<u64>("m").unwrap(), None, "what was loaded stays as it was loaded");
    session.save().unwrap();
    assert_eq!(session.get("n").unwrap(), Some(11), "after the save it is what the save made of it");
    assert_eq!(session.get("m").unwrap(), Some(3));
}

fn take_returns_an_entry_once(stage: &Stage) {
    let token = stored(stage);
    let mut session = brought(stage, &token);
    assert_eq!(session.take("n").unwrap(), Some(1));
    assert_eq!(session.take::<u64>("n").unwrap(), None);
    session.save().unwrap();
    assert_eq!(number(stage, &token, "n"), None);
}

fn get_or_insert_keeps_what_is_there(stage: &Stage) {
    let token = stored(stage);
    let mut session = brought(stage, &token);
    assert_eq!(session.get_or_insert("n", 9).unwrap(), 1);
    assert_eq!(session.get_or_insert("m", 9).unwrap(), 9);
    assert_eq!(session.get_or_insert("m", 10).unwrap(), 9);
    session.save().unwrap();
    assert_eq!((number(stage, &token, "n"), number(stage, &token, "m")), (Some(1), Some(9)));
}

fn clear_drops_everything_without_loading_and_keeps_the_id(stage: &Stage) {
    let token = stored(stage);
    let mut session = brought(stage, &token);
    session.clear();
    assert_eq!(stage.rig.calls(), []);
    assert!(session.is_empty().unwrap());
    assert_eq!(session.get::<u64>("n").unwrap(), None);
    assert!(!session.remove("n").unwrap(), "what was cleared is not there");
    session.insert("after", 1).unwrap();
    assert_eq!(session.names().unwrap(), ["after"]);
    session.save().unwrap();
    assert_eq!(session.token().unwrap(), Some(token.clone()), "the id is kept");
    assert_eq!(stage.record(&token).entries().names().collect::<Vec<_>>(), ["after"]);
}

fn inserting_the_value_that_is_there_saves_nothing(stage: &Stage) {
    let token = stored(stage);
    let mut session = brought(stage, &token);
    session.insert("n", 1_u8).unwrap();
    session.insert("text", "x".to_owned()).unwrap();
    session.save().unwrap();
    assert_eq!(stage.rig.calls(), [Call::Load]);
    // Setting an entry to a value with the same JSON changes nothing. A value of another kind is a change.
    session.insert("n", 1.0).unwrap();
    assert!(session.modified());
}

fn inserting_the_value_that_was_loaded_again_after_a_change_counts(stage: &Stage) {
    let changes: [Change; 4] = [
        ("insert", |s| s.insert("n", 7).unwrap()),
        ("remove", |s| assert!(s.remove("n").unwrap())),
        ("update", |s| assert!(s.update("n", |n: &mut u64| *n += 1).is_ok())),
        ("clear", Session::clear),
    ];
    for (name, change) in changes {
        let token = stored(stage);
        let mut session = brought(stage, &token);
        assert_eq!(session.get("n").unwrap(), Some(1));
        change(&mut session);
        session.insert("n", 1).unwrap();
        let mut other = stage.others().session([token.clone()]);
        other.insert("n", 40).unwrap();
        other.save().unwrap();
        session.save().unwrap();
        assert_eq!(number(stage, &token, "n"), Some(1), "after {name}, the last word is the insert");
    }
}

fn update_shows_a_preview_and_applies_at_the_save(stage: &Stage) {
    let token = stored(stage);
    let mut session = brought(stage, &token);
    // The function of an update may move a captured value into the entry: it need not be `FnMut`.
    let item = "apple".to_owned();
    assert_eq!(session.update("cart", move |cart: &mut Vec<String>| cart.push(item)).unwrap(), ["apple"]);
    assert_eq!(session.update("n", |n: &mut u64| *n += 1).unwrap(), 2);
    assert_eq!(session.update("n", |n: &mut u64| *n *= 2).unwrap(), 4, "the second continues from the first");
    assert_eq!(session.get("n").unwrap(), Some(4));
    assert_eq!(number(stage, &token, "n"), Some(1), "all this is a preview");
    let mut other = stage.others().session([token.clone()]);
    other.insert("n", 20).unwrap();
    other.insert("cart", ["pear"]).unwrap();
    other.save().unwrap();
    session.save().unwrap();
    assert_eq!(number(stage, &token, "n"), Some(42), "both functions, in their order, on what was there");
    let cart = stage.record(&token).entries().get("cart").unwrap().get::<Vec<String>>().unwrap();
    assert_eq!(cart, ["pear", "apple"]);
    session.save().unwrap();
    assert_eq!(number(stage, &token, "n"), Some(42), "and once");
}

fn update_continues_from_other_changes_of_the_request(stage: &Stage) {
    let changes: [ChangeOfN; 4] = [
        ("insert", |s| s.insert("n", 7).unwrap(), 8),
        ("remove", |s| assert!(s.remove("n").unwrap()), 1),
        ("clear", Session::clear, 1),
        ("update_now", |s| assert_eq!(s.update_now("n", add_one).unwrap(), 2), 3),
    ];
    for (name, change, result) in changes {
        let token = stored(stage);
        let mut session = brought(stage, &token);
        change(&mut session);
        assert_eq!(session.update("n", |n: &mut u64| *n += 1).unwrap(), result, "preview after {name}");
        session.save().unwrap();
        assert_eq!(number(stage, &token, "n"), Some(result), "stored after {name}");
    }
}

fn an_update_whose_function_panics_changes_nothing(stage: &Stage) {
    let token = stored(stage);
    let mut session = brought(stage, &token);
    let give_up = |n: &mut u64| {
        *n = 99;
        std::panic::resume_unwind(Box::new("the function gives up"))
    };
    assert_eq!(session.update("n", give_up).unwrap_err().kind(), ErrorKind::Panicked);
    let error = session.update_now("n", give_up).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    let want = "failed to update an entry of the session: the function given for it, or its type's own code, panicked; \
                nothing was saved";
    assert_eq!(error.to_string(), want);
    assert!(!session.modified());
    assert_eq!(session.get("n").unwrap(), Some(1));
    // The function does not panic on the value that the request has read, but on the one that is stored at the save.
    session
        .update("n", |n: &mut u64| {
            if *n > 5 {
                std::panic::resume_unwind(Box::new("too many"))
            }
        })
        .unwrap();
    let mut other = stage.others().session([token.clone()]);
    other.insert("n", 6).unwrap();
    other.save().unwrap();
    assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Panicked);
    assert_eq!(number(stage, &token, "n"), Some(6));
    session.insert("n", 2).unwrap();
    session.save().unwrap();
    assert_eq!(number(stage, &token, "n"), Some(2), "the session is as usable as before");
}

fn update_now_is_the_truth_and_commits_that_entry_only(stage: &Stage) {
    let token = stored(stage);
    let mut session = brought(stage, &token);
    session.insert("m", 5).unwrap();
    session.remove("text").unwrap();
    assert_eq!(session.get("n").unwrap(), Some(1));
    let mut other = stage.others().session([token.clone()]);
    assert_eq!(other.update_now("n", add_one).unwrap(), 2);
    assert_eq!(session.update_now("n", add_one).unwrap(), 3, "what others did is counted");
    assert_eq!(session.get("n").unwrap(), Some(3), "and seen");
    let record = stage.record(&token);
    assert_eq!(record.entries().get("n").unwrap().get::<u64>().unwrap(), 3, "it is stored at once");
    assert_eq!(record.entries().names().collect::<Vec<_>>(), ["n", "text"], "and nothing else is");
    assert_eq!(session.names().unwrap(), ["m", "n"], "the other changes still wait");
    session.save().unwrap();
    assert_eq!(stage.record(&token).entries().names().collect::<Vec<_>>(), ["m", "n"]);
    assert_eq!(number(stage, &token, "n"), Some(3), "the save does not count again");
}

fn update_now_includes_earlier_changes_of_the_entry(stage: &Stage) {
    let changes: [ChangeOfN; 5] = [
        ("insert", |s| s.insert("n", 7).unwrap(), 8),
        ("remove", |s| assert!(s.remove("n").unwrap()), 1),
        ("update", |s| assert!(s.update("n", |n: &mut u64| *n += 10).is_ok()), 31),
        ("clear", Session::clear, 1),
        ("clear and insert", |s| (s.clear(), s.insert("n", 4).unwrap()).1, 5),
    ];
    for (name, change, result) in changes {
        let token = stored(stage);
        let mut session = brought(stage, &token);
        change(&mut session);
        let mut other = stage.others().session([token.clone()]);
        other.insert("n", 20).unwrap();
        other.save().unwrap();
        assert_eq!(session.update_now("n", add_one).unwrap(), result, "after {name}");
        assert_eq!(session.get("n").unwrap(), Some(result), "seen after {name}");
        assert_eq!(number(stage, &token, "n"), Some(result), "stored after {name}");
        session.save().unwrap();
        assert_eq!(number(stage, &token, "n"), Some(result), "still after the save, after {name}");
    }
}

fn the_test_cookie_works_one_request_later_and_until_it_is_deleted(stage: &Stage) {
    let mut session = stage.sessions().session([]);
    assert!(!session.test_cookie_worked().unwrap());
    session.set_test_cookie().unwrap();
    session.save().unwrap();
    let token = session.token().unwrap().unwrap();
    let mut session = brought(stage, &token);
    assert!(session.test_cookie_worked().unwrap());
    session.delete_test_cookie().unwrap();
    assert!(!session.test_cookie_worked().unwrap());
    session.save().unwrap();
    assert!(!brought(stage, &token).test_cookie_worked().unwrap());
    assert_eq!(stage.stored(), 1, "the session is kept");
}

fn entries_are_the_handlers_view_in_the_order_of_names(stage: &Stage) {
    let shown = |session: &Session| {
        let entries = session.entries().unwrap().into_iter();
        entries.map(|(name, value)| format!("{name}={}", value.to_json().unwrap())).collect::<Vec<_>>()
    };
    let token = stored(stage);
    let mut session = brought(stage, &token);
    assert_eq!(shown(&session), ["n=1", "text=\"x\""]);
    session.set_test_cookie().unwrap();
    session.insert("z", true).unwrap();
    session.insert("a", [1, 2]).unwrap();
    session.update("n", |n: &mut u64| *n += 1).unwrap();
    session.remove("text").unwrap();
    assert_eq!(shown(&session), ["a=[1,2]", "n=2", "z=true"], "reserved ones are not shown");
    session.clear();
    assert_eq!(shown(&session), [""; 0]);
    assert_eq!(shown(&stage.sessions().session([])), [""; 0]);
    let session = brought(stage, &token);
    stage.rig.fail(Call::Load, 0);
    assert_eq!(session.entries().unwrap_err().kind(), ErrorKind::Storage);
}

fn a_value_that_no_session_has_room_for_is_refused_when_it_is_set(stage: &Stage) {
    stage.rig.limit_records(4096);
    let mut session = brought(stage, &stored(stage));
    let check = |result: Result<()>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        let reason = "the value alone has 4097 bytes, where a session has at most 4096";
        assert_eq!(error.to_string(), format!("failed to set entry `text`: {reason}"));
    };
    // The encoding takes 3 bytes besides the text: for its type and its length.
    let (text, longer) = ("x".repeat(4093), "x".repeat(4094));
    session.insert("text", &text).unwrap();
    session.remove("text").unwrap();
    check(session.insert("text", &longer));
    check(session.get_or_insert("text", longer.clone()).map(drop));
    check(session.update("text", move |text: &mut String| text.clone_from(&longer)).map(drop));
    assert!(!session.contains("text").unwrap(), "nothing was changed");
    session.insert("text", text).unwrap();
}

/// The limit may have been lowered since the value was stored. Then the store decides, which accepts changes that make
/// the session smaller.
fn a_value_beyond_a_lowered_limit_may_stay_or_become_smaller(stage: &Stage) {
    let token = stored(stage);
    let mut session = brought(stage, &token);
    session.insert("text", "x".repeat(6000)).unwrap();
    session.save().unwrap();
    stage.rig.limit_records(4096);
    let mut session = brought(stage, &token);
    session.insert("text", "x".repeat(6000)).unwrap();
    session.insert("text", "x".repeat(5000)).unwrap();
    session.save().unwrap();
    assert_eq!(session.insert("text", "x".repeat(6000)).unwrap_err().kind(), ErrorKind::TooLarge);
}
