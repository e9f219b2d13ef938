//! `Debug` shows no secret id and no data of a session, because logs, and the output of a failed `unwrap`, are read by
//! others than the visitor. It shows kinds, counts, sizes, times, names of entries, and digests of ids.
use sessile::{
    Clock, Cookies, Event, FileStoreOptions, Lookup, Record, SaveError, SessionId, Sessions, Store, ValueRef,
};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

const SECRET: &str = "Str0ngSecret";
const NUMBER: u64 = 6_021_407_621;
const USER: &str = "ada.lovelace@example.org";

/// The secret texts, each as a text and as a list of bytes.
struct Secrets(Vec<String>);

impl Secrets {
    fn new(id: &str) -> Self {
        let bytes =
            |text: &str| format!("{:?}", &text.as_bytes()[1..8]).trim_matches(['[', ']']).replace(' ', "");
        let texts = [id, SECRET, USER, &NUMBER.to_string()];
        Self(texts.iter().flat_map(|text| [(*text).to_owned(), bytes(text)]).collect())
    }

    #[track_caller]
    fn check(&self, shown: &dyn Debug, must_show: &str) {
        for text in [format!("{shown:?}"), format!("{shown:#?}")] {
            let dense: String = text.split_whitespace().collect();
            for secret in &self.0 {
                assert!(!dense.contains(secret), "shows {secret}: {text}");
            }
            assert!(dense.contains(must_show), "shows not even {must_show}: {text}");
        }
    }
}

#[test]
fn debug_of_no_public_type_shows_an_id_or_a_value() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(SystemTime::now());
    let store = Arc::new(FileStoreOptions::new().clock(clock.clone()).open(dir.path()).unwrap());
    let told = Arc::new(Mutex::new(Vec::new()));
    let events = told.clone();
    let sessions = Sessions::new(store.clone(), Cookies::plain_http()).unwrap();
    let sessions = sessions.with_observer(move |event: &Event<'_>| {
        events.lock().unwrap().extend([format!("{event:?}"), format!("{event:#?}")]);
    });

    let mut visit = sessions.visit([]);
    visit.insert("password", SECRET).unwrap();
    visit.insert("card", serde_json::json!({ "number": NUMBER, "of": [SECRET] })).unwrap();
    visit.login(USER).unwrap();
    visit.update("hint", |hint: &mut String| SECRET.clone_into(hint)).unwrap();
    visit.save().unwrap();
    let token = visit.token().unwrap().unwrap();
    let id = token.expose().to_owned();
    let secrets = Secrets::new(&id);
    secrets.check(&*visit, "Session");
    secrets.check(&visit, "Visit");
    let headers = visit.finish(200).unwrap();
    assert!(headers[1].1.contains(&id));
    secrets.check(&headers, "Set-Cookie");
    let error = sessions.visit(&*format!("session={id}")).get::<u64>("password").unwrap_err();
    secrets.check(&error, "password");
    secrets.check(&SaveError { error, headers }, "Set-Cookie");

    let session_id = SessionId::parse(&id).unwrap();
    secrets.check(&token, "Token");
    secrets.check(&session_id, "SessionId");
    secrets.check(&session_id.public_id(), &session_id.public_id().to_string());
    let found = store.load(&token).unwrap();
    secrets.check(&found, &session_id.public_id().to_string());
    let Lookup::Live(live) = found else { panic!("it is stored") };
    secrets.check(&live, "Live");
    let record: &Record = &live.record;
    secrets.check(&record, "entries:3");
    secrets.check(&record.entries(), "len:3");
    let value: ValueRef<'_> = record.entries().get("card").unwrap();
    secrets.check(&value, "Value(anobject,");
    secrets.check(&value.to_value(), "Value(anobject,");
    secrets.check(&store.create(record, sessile::Durability::OfStore).unwrap(), "Saved");
    secrets.check(&store.files().map(Result::unwrap).collect::<Vec<_>>(), "Live");
    secrets.check(&store, "FileStore");
    secrets.check(&sessions, "Sessions");

    let mut again = sessions.visit(&*format!("session={id}"));
    again.rotate_id();
    secrets.check(&again.finish(200).unwrap(), "Set-Cookie");
    clock.advance(Duration::from_secs(60));
    let _ = sessions.visit(&*format!("session={id}")).get::<u64>("card");
    let unknown = SessionId::random().unwrap().to_token();
    let _ = sessions.visit(&*format!("session={}", unknown.expose())).get::<u64>("card");
    let told = told.lock().unwrap();
    secrets.check(&*told, "Rotated");
    secrets.check(&*told, "NotFound");
    secrets.check(&*told, "user:Some(User(");
}
