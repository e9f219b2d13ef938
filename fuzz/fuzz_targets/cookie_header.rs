//! Any text as a request's Cookie headers, one a line. It causes no panic, finds no session but the one in the store,
//! and loads only well-formed ids; the response's headers contain no control characters.
#![no_main]
use libfuzzer_sys::fuzz_target;
use sessile::{
    Absent, Change, Cookies, Durability, Guarantees, Live, Lookup, PublicId, Record, Result, Rotation, Saved,
    SessionId, Sessions, Store, Token, Verdict,
};
use sessile::store::Deleted;
use std::cell::RefCell;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The id of the only session.
const OURS: &str = "abcdefghijklmnopqrstuvwxyz234567";

thread_local! { static ASKED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) }; }

/// Has one session, in memory, and notes the tokens that are looked up.
struct One;

impl One {
    fn live() -> Live {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut record = Record::new(now, now + Duration::from_secs(3600));
        record.set_user("ada").expect("a short name");
        Live::new(record, PublicId::digest(OURS.as_bytes()))
    }
}

impl Store for One {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }
    fn is_well_formed(&self, token: &Token) -> bool {
        SessionId::parse(token.expose()).is_some()
    }
    fn load(&self, token: &Token) -> Result<Lookup> {
        ASKED.with_borrow_mut(|asked| asked.push(token.expose().to_owned()));
        Ok(match SessionId::parse(token.expose()) {
            None => Lookup::Absent(Absent::Malformed),
            Some(_) if token.expose() == OURS => Lookup::Live(Self::live()),
            Some(session) => Lookup::Absent(Absent::NotFound(session.public_id())),
        })
    }
    fn create(&self, _: &Record, _: Durability) -> Result<Saved> {
        let token = Token::parse("qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq").expect("an id");
        Ok(Saved::new(token, Self::live()))
    }
    fn update(&self, token: &Token, change: Change<'_>, _: Durability) -> Result<Option<Saved>> {
        let mut record = Self::live().record;
        let aborted = change(&mut record)? == Verdict::Abort;
        Ok((!aborted && token.expose() == OURS).then(|| Saved::new(token.clone(), Self::live())))
    }
    fn rotate(&self, token: &Token, change: Change<'_>, how: &Rotation<'_>) -> Result<Option<Saved>> {
        self.update(token, change, how.durability)
    }
    fn delete(&self, token: &Token) -> Result<Option<Deleted>> {
        Ok((token.expose() == OURS).then(|| Deleted::new(Self::live().id, None)))
    }
    fn guarantees(&self) -> Guarantees {
        Guarantees::all()
    }
}

static SESSIONS: LazyLock<[(&str, Sessions); 2]> = LazyLock::new(|| {
    [("session=", Cookies::plain_http()), ("__Host-session=", Cookies::https())]
        .map(|(name, cookies)| (name, Sessions::new(One, cookies).expect("valid cookie options")))
});

fuzz_target!(|headers: &str| {
    for (name, sessions) in SESSIONS.iter() {
        let mut visit = sessions.visit(headers.split('\n'));
        let user = visit.user().expect("no operation of the store fails");
        // A request without the id, as a cookie of that name, has no user.
        let is_ours = |line: &str| line.contains(name) && line.contains(OURS);
        assert!(user.is_none() || headers.split('\n').any(is_ours), "{user:?}");
        visit.insert("seen", true).expect("there is room");
        let response = visit.finish(200).map_err(|unsaved| unsaved.error).expect("the store does not fail");
        for (name, value) in &response {
            assert!(name.bytes().chain(value.bytes()).all(|c| (b' '..=b'~').contains(&c)), "{name}: {value}");
        }
        // Few ids are loaded, however many the request contains, and only well-formed ones.
        let asked = ASKED.take();
        assert!(asked.len() <= 4, "{} loads", asked.len());
        assert!(asked.iter().all(|token| SessionId::parse(token).is_some()), "{asked:?}");
    }
});
