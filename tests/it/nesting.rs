//! Values that nest very deeply. Reading or writing one is an error before the stack is used up, whatever types they
//! consist of. All tests run on a thread whose stack is an eighth of the usual size.
use crate::support::memory::sessions_in;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value as Json, json};
use sessile::value::{DEPTH_MAX, WRAPPERS_MAX};
use sessile::{Error, ErrorKind, FileStore, Record, Session, Store, Value};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// A depth at which a thread with a stack of 2 MiB would overflow if each level took a kilobyte.
const DEEP: usize = 2_000;
/// The size of the stack. In a debug build, the deepest allowed value needs less.
const STACK: usize = 256 << 10;

/// Runs `operation` with a small stack. Its argument is made and dropped with a large one.
fn with_little_stack<T: Send + Sync>(given: T, operation: impl FnOnce(&T) + Send) {
    thread::scope(|scope| {
        let much = thread::Builder::new().stack_size(64 << 20);
        let all = move || {
            let given = &given;
            thread::scope(|scope| {
                let little = thread::Builder::new().stack_size(STACK);
                let done = little.spawn_scoped(scope, move || operation(given)).unwrap().join();
                assert!(done.is_ok());
            });
        };
        assert!(much.spawn_scoped(scope, all).unwrap().join().is_ok());
    });
}

/// A new session of a visitor.
fn session(store: &Arc<FileStore>) -> Session {
    sessions_in(Arc::clone(store)).session([])
}

fn store(dir: &tempfile::TempDir) -> Arc<FileStore> {
    Arc::new(FileStore::open(dir.path()).unwrap())
}

/// A type that contains a value of itself. It serialises to an array, to an object, or only to its content.
trait Nest: Serialize + Send + Sync + Sized {
    fn end() -> Self;
    fn around(inner: Self) -> Self;
    fn nested(levels: usize) -> Self {
        (0..levels).fold(Self::end(), |inner, _| Self::around(inner))
    }
}

macro_rules! nests {
    ($($(#[$derive:meta])* $name:ident { $item:item end: $end:expr; around: |$inner:ident| $around:expr; })*) => {
        $($(#[$derive])* $item
        impl Nest for $name {
            fn end() -> Self { $end }
            fn around($inner: Self) -> Self { $around }
        })*
    };
}

nests! {
    Array { struct Array(Vec<Array>); end: Self(vec![]); around: |inner| Self(vec![inner]); }
    #[derive(Serialize, Deserialize)]
    Variant { enum Variant { End, In(Box<Variant>) } end: Self::End; around: |inner| Self::In(inner.into()); }
    #[derive(Serialize, Deserialize)]
    Tuple { enum Tuple { End, In(u8, Box<Tuple>) } end: Self::End; around: |inner| Self::In(1, inner.into()); }
    #[derive(Serialize, Deserialize)]
    Fields {
        enum Fields { End, In { inner: Box<Fields> } }
        end: Self::End;
        around: |inner| Self::In { inner: inner.into() };
    }
    #[derive(Serialize, Deserialize)]
    List {
        struct List { next: Option<Box<List>> }
        end: Self { next: None };
        around: |inner| Self { next: Some(inner.into()) };
    }
    #[derive(Serialize, Deserialize)]
    Maps {
        struct Maps { by_name: BTreeMap<String, Maps> }
        end: Self { by_name: BTreeMap::new() };
        around: |inner| Self { by_name: BTreeMap::from([("x".into(), inner)]) };
    }
    // The types below add nothing to the stored value, which is `null`.
    #[derive(Serialize, Deserialize)]
    Newtype {
        struct Newtype(Option<Box<Newtype>>);
        end: Self(None);
        around: |inner| Self(Some(inner.into()));
    }
    Somes { struct Somes(Option<Box<Somes>>); end: Self(None); around: |inner| Self(Some(inner.into())); }
    Newtypes {
        struct Newtypes(Option<Box<Newtypes>>);
        end: Self(None);
        around: |inner| Self(Some(inner.into()));
    }
    Key { struct Key(Option<Box<Key>>); end: Self(None); around: |inner| Self(Some(inner.into())); }
    Keyed { struct Keyed(Key); end: Self(Key(None)); around: |inner| Self(Key::around(inner.0)); }
}

impl Serialize for Array {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

impl<'de> Deserialize<'de> for Array {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

impl Serialize for Somes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(inner) => serializer.serialize_some(inner),
            None => serializer.serialize_none(),
        }
    }
}

impl Serialize for Newtypes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(inner) => serializer.serialize_newtype_struct("Newtypes", inner),
            None => serializer.serialize_unit(),
        }
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(inner) => serializer.serialize_newtype_struct("Key", inner),
            None => serializer.serialize_str("key"),
        }
    }
}

impl Serialize for Keyed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(&self.0, 1)])
    }
}

#[track_caller]
fn check_refused<T>(result: Result<T, Error>, kind: ErrorKind, reason: &str) {
    let error = result.map(drop).unwrap_err();
    assert_eq!(error.kind(), kind);
    assert!(error.to_string().ends_with(reason), "{error}");
}

const TOO_DEEP: &str = "nested deeper than 64 levels";
const TOO_WRAPPED: &str = "more than 128 options and newtypes around each other";

#[track_caller]
fn check_insert<T: Nest>(store: &Arc<FileStore>, reason: &str) {
    with_little_stack(T::nested(DEEP), |deep| {
        check_refused(session(store).insert("deep", deep), ErrorKind::Value, reason);
    });
}

#[test]
fn a_value_nested_2000_deep_is_refused_whatever_it_nests_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    check_insert::<Array>(&store, TOO_DEEP);
    check_insert::<Variant>(&store, TOO_DEEP);
    check_insert::<Tuple>(&store, TOO_DEEP);
    check_insert::<Fields>(&store, TOO_DEEP);
    check_insert::<List>(&store, TOO_DEEP);
    check_insert::<Maps>(&store, TOO_DEEP);
    check_insert::<Newtype>(&store, TOO_WRAPPED);
    check_insert::<Somes>(&store, TOO_WRAPPED);
    check_insert::<Newtypes>(&store, TOO_WRAPPED);
    check_insert::<Keyed>(&store, TOO_WRAPPED);
}

/// Asserts that a value of the largest allowed depth is stored and read back, and that one level more is refused.
#[track_caller]
fn check_deepest<T: Nest + for<'de> Deserialize<'de>>(store: &Arc<FileStore>, levels: usize) {
    with_little_stack([T::nested(levels), T::nested(levels + 1)], |[deepest, too_deep]| {
        let mut session = session(store);
        session.insert("deep", deepest).unwrap();
        session.save().unwrap();
        let token = session.token().unwrap().unwrap();
        let session = sessions_in(Arc::clone(store)).session([token]);
        let read: T = session.get("deep").unwrap().unwrap();
        assert_eq!(Value::new(&read).unwrap(), Value::new(deepest).unwrap());
        assert_eq!(Value::new(too_deep).unwrap_err().kind(), ErrorKind::Value);
    });
}

#[test]
fn the_deepest_value_that_is_allowed_needs_little_stack() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    // The innermost array or object counts as a level, and a variant with two fields as two.
    check_deepest::<Array>(&store, DEPTH_MAX - 1);
    check_deepest::<Variant>(&store, DEPTH_MAX);
    check_deepest::<Tuple>(&store, DEPTH_MAX / 2);
    check_deepest::<Fields>(&store, DEPTH_MAX / 2);
    check_deepest::<List>(&store, DEPTH_MAX - 1);
    check_deepest::<Maps>(&store, DEPTH_MAX / 2 - 1);
    check_deepest::<Newtype>(&store, (WRAPPERS_MAX - 1) / 2);
}

#[test]
fn what_update_and_get_or_insert_make_too_deep_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let mut session = session(&store);
    let deep = || (0..DEEP).fold(Json::Null, |inner, _| Json::Array(vec![inner]));
    let deepen = move |value: &mut Json| *value = deep();
    check_refused(session.get_or_insert("deep", deep()), ErrorKind::Value, TOO_DEEP);
    check_refused(session.update("deep", deepen), ErrorKind::Value, TOO_DEEP);
    check_refused(session.update_now("deep", deepen), ErrorKind::Value, TOO_DEEP);
    assert!(!session.contains("deep").unwrap());
}

/// A type that asks for a value of itself in any case.
#[derive(Debug, Deserialize)]
struct Endless {
    #[expect(dead_code, reason = "it is never read: reading it has no end")]
    inner: Unending,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "it is never read: reading it has no end")]
struct Unending(Option<Box<Unending>>);

#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct UnendingKey(Box<UnendingKey>);

#[derive(Debug)]
struct Newer;

impl<'de> Deserialize<'de> for Newer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Newer;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a newtype of a newtype")
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Newer, D::Error> {
                Newer::deserialize(inner)
            }
        }
        deserializer.deserialize_newtype_struct("Newer", Visitor)
    }
}

#[test]
fn a_type_that_nests_without_end_is_an_error_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    with_little_stack((), |()| {
        let mut session = session(&store);
        session.insert("five", 5).unwrap();
        session.insert("object", json!({"inner": 5})).unwrap();
        session.insert("map", json!({"key": 5})).unwrap();
        check_refused(session.get::<Unending>("five"), ErrorKind::Type, TOO_WRAPPED);
        check_refused(session.get::<Newer>("five"), ErrorKind::Type, TOO_WRAPPED);
        check_refused(session.get::<Endless>("object"), ErrorKind::Type, TOO_WRAPPED);
        check_refused(session.get::<BTreeMap<UnendingKey, u8>>("map"), ErrorKind::Type, TOO_WRAPPED);
    });
}

/// A record in which a value has been replaced by these bytes, as in a crafted file. The values are at the end of a
/// record.
fn crafted(store: &FileStore, value: &[u8]) -> Record {
    let mut record = Record::new(store.now(), store.now() + Duration::from_secs(60));
    // The tag and the length of the text take four bytes.
    record.insert("bomb", &Value::new(&"x".repeat(value.len() - 4)).unwrap()).unwrap();
    let mut bytes = record.as_bytes().to_vec();
    let at = bytes.len() - value.len();
    bytes[at..].copy_from_slice(value);
    let record = Record::from_bytes(&bytes).unwrap();
    assert_eq!(record.entries().get("bomb").unwrap().as_bytes(), value);
    record
}

#[track_caller]
fn check_stored<T: Debug + for<'de> Deserialize<'de>>(store: &Arc<FileStore>, value: &[u8]) {
    let record = crafted(store, value);
    let token = store.create(&record, sessile::Durability::Relaxed).unwrap().token;
    let session = sessions_in(Arc::clone(store)).session([token]);
    let error = session.get::<T>("bomb").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn stored_bytes_that_nest_without_end_are_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    with_little_stack((), |()| {
        for bytes in [[6, 1].repeat(200_000), [7, 1, 1, b'x'].repeat(100_000)] {
            check_stored::<Json>(&store, &bytes);
            check_stored::<u32>(&store, &bytes);
        }
    });
}
