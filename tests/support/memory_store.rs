//! Sessions in a map: the simplest store that keeps the promises of [`Store`].
use super::cut_offs::{CutOffs, with_number};
use parking_lot::Mutex;
use sessile::store::{EndReason, EndedSession, GRACE_MAX, HOPS_MAX};
use sessile::{
    Absent, Change, Clock, Durability, Error, ErrorKind, Guarantees, Live, Lookup, Moved, Page, PublicId,
    Record, Result, Rotation, Saved, SessionId, Store, Token, UserSession, UserSessions, Verdict,
};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, SystemTime};

/// How long an id is known as moved after its grace period.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// A store with its sessions in a map.
pub(crate) struct MemoryStore {
    places: Mutex<Places>,
    clock: Clock,
}

#[derive(Default)]
struct Places(HashMap<PublicId, Place>, CutOffs);

enum Place {
    Session(Record),
    Moved { to: PublicId, by_login: bool, until: SystemTime },
}

impl MemoryStore {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { places: Mutex::default(), clock }
    }

    /// The number of records, including expired ones, without moved ids.
    pub(crate) fn len(&self) -> usize {
        self.places.lock().0.values().filter(|place| matches!(place, Place::Session(_))).count()
    }
}

impl Places {
    fn live(&self, id: PublicId, now: SystemTime) -> Option<&Record> {
        match self.0.get(&id)? {
            Place::Session(record) => {
                Some(record).filter(|record| !record.is_expired(now) && self.1.standing(record, id).is_some())
            }
            Place::Moved { .. } => None,
        }
    }

    /// Goes from an id to the one that has replaced it, and so on, as long as `follows` allows it. `follows` gets
    /// whether the id was moved by a login, and the end of its grace period. `None` if the last allowed id was moved,
    /// too.
    fn follow(&self, id: PublicId, follows: impl Fn(bool, SystemTime) -> bool) -> Option<PublicId> {
        let mut at = id;
        for _ in 0..=HOPS_MAX {
            match self.0.get(&at) {
                Some(Place::Moved { to, by_login, until }) if follows(*by_login, *until) => at = *to,
                _ => return Some(at),
            }
        }
        None
    }

    /// The id to which rotations have moved this one, within their grace periods: the session that a login or logout
    /// under the old id applies to.
    fn meant(&self, id: PublicId, now: SystemTime) -> Option<PublicId> {
        self.follow(id, |by_login, until| !by_login && Moved::new(id, until, by_login).is_within_grace(now))
    }

    fn insert_new(&mut self, record: Record) -> Result<Saved> {
        let session = SessionId::random()?;
        let id = session.public_id();
        let Entry::Vacant(place) = self.0.entry(id) else {
            return Err(Error::new(ErrorKind::Random, "store a session").with_reason("the id is taken"));
        };
        place.insert(Place::Session(record.clone()));
        Ok(Saved::new(session.to_token(), Live::new(record, id)))
    }

    fn forget_moved(&mut self, now: SystemTime) {
        self.0.retain(|_, place| !matches!(place, Place::Moved { until, .. } if *until + REMEMBERED <= now));
    }
}

fn id_of(token: &Token) -> Option<PublicId> {
    Some(SessionId::parse(token.expose())?.public_id())
}

impl Store for MemoryStore {
    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    fn is_well_formed(&self, token: &Token) -> bool {
        SessionId::parse(token.expose()).is_some()
    }

    fn load(&self, token: &Token) -> Result<Lookup> {
        let Some(id) = id_of(token) else { return Ok(Lookup::Absent(Absent::Malformed)) };
        let places = self.places.lock();
        Ok(match places.0.get(&id) {
            None => Lookup::Absent(Absent::NotFound(id)),
            Some(Place::Session(record)) if record.is_expired(self.now()) => {
                Lookup::Absent(Absent::Expired(id))
            }
            Some(Place::Session(record)) if places.1.standing(record, id).is_none() => {
                Lookup::Absent(Absent::NotFound(id))
            }
            Some(Place::Session(record)) => Lookup::Live(Live::new(record.clone(), id)),
            Some(&Place::Moved { by_login, until, .. }) => {
                Lookup::Absent(Absent::Moved(Moved::new(id, until, by_login)))
            }
        })
    }

    fn create(&self, record: &Record, _how: Durability) -> Result<Saved> {
        let mut places = self.places.lock();
        let record = places.1.begun(record.clone());
        places.insert_new(record)
    }

    fn update(&self, token: &Token, change: Change<'_>, _how: Durability) -> Result<Option<Saved>> {
        let mut places = self.places.lock();
        let Some(id) = id_of(token) else { return Ok(None) };
        let Some(newest) = places.live(id, self.now()) else { return Ok(None) };
        let number = places.1.standing(newest, id).expect("it is live");
        let Some(record) = changed(newest, change)? else { return Ok(None) };
        let record = with_number(record, number);
        places.0.insert(id, Place::Session(record.clone()));
        Ok(Some(Saved::new(token.clone(), Live::new(record, id))))
    }

    fn rotate(&self, token: &Token, change: Change<'_>, how: &Rotation<'_>) -> Result<Option<Saved>> {
        let mut places = self.places.lock();
        let now = self.now();
        let by_login = how.login.is_some();
        let id = id_of(token).and_then(|id| if by_login { places.meant(id, now) } else { Some(id) });
        let Some(id) = id else { return Ok(None) };
        let Some(newest) = places.live(id, now) else { return Ok(None) };
        let number = places.1.standing(newest, id).expect("it is live");
        let Some(record) = changed(newest, change)? else { return Ok(None) };
        let record = if by_login { places.1.begun(record) } else { with_number(record, number) };
        let saved = places.insert_new(record)?;
        places.0.remove(&id);
        if !how.grace.is_zero() {
            let until = now + how.grace.min(GRACE_MAX);
            places.0.insert(id, Place::Moved { to: saved.live.id, by_login, until });
        }
        places.forget_moved(now);
        Ok(Some(saved))
    }

    fn delete(&self, token: &Token) -> Result<Option<PublicId>> {
        self.end(token).map(EndedSession::live_id)
    }

    fn end(&self, token: &Token) -> Result<Option<EndedSession>> {
        let mut places = self.places.lock();
        let now = self.now();
        let Some(id) = id_of(token).and_then(|id| places.meant(id, now)) else { return Ok(None) };
        let Some(Place::Session(record)) = places.0.get(&id) else { return Ok(None) };
        let mut ended = EndedSession::live(id, Some(record.clone()));
        if places.live(id, now).is_none() {
            let is_expired = record.is_expired(now);
            ended.over = Some(if is_expired { EndReason::Expired } else { EndReason::CutOff });
        }
        places.0.remove(&id);
        Ok(Some(ended))
    }

    fn successor(&self, token: &Token) -> Result<Option<Live>> {
        let places = self.places.lock();
        let Some(id) = id_of(token) else { return Ok(None) };
        let last = places.follow(id, |_, _| true).filter(|last| *last != id);
        Ok(last.and_then(|id| Some(Live::new(places.live(id, self.now())?.clone(), id))))
    }

    fn delete_of(&self, user: &str, except: Option<&Token>) -> Result<()> {
        let mut places = self.places.lock();
        let refuse = |kind| Err(Error::new(kind, "end the sessions of a user"));
        let live = |id| places.live(id, self.now()).filter(|record| record.user() == Some(user)).map(|_| id);
        let except = match except.map(|token| id_of(token).and_then(live)) {
            None if user.is_empty() => return refuse(ErrorKind::Value),
            None => None,
            Some(Some(id)) => Some(id),
            Some(None) => return refuse(ErrorKind::Gone),
        };
        places.1.cut(Some(user), except);
        Ok(())
    }

    fn delete_all(&self) -> Result<()> {
        self.places.lock().1.cut(None, None);
        Ok(())
    }

    fn sessions_of(&self, user: &str, page: &Page) -> Result<UserSessions> {
        let places = self.places.lock();
        let mut listed: Vec<_> = places
            .0
            .keys()
            .filter(|id| page.after.is_none_or(|after| after < **id))
            .filter_map(|id| Some(Live::new(places.live(*id, self.now())?.clone(), *id)))
            .filter(|live| live.record.user() == Some(user))
            .map(|live| UserSession::of(&live))
            .collect();
        listed.sort_by_key(|session| session.id);
        UserSessions::page(page, true, listed.into_iter().map(Ok))
    }

    fn delete_session_of(&self, user: &str, id: &PublicId) -> Result<Option<PublicId>> {
        self.end_session_of(user, id).map(EndedSession::live_id)
    }

    fn end_session_of(&self, user: &str, id: &PublicId) -> Result<Option<EndedSession>> {
        let mut places = self.places.lock();
        let Some(id) = places.meant(*id, self.now()) else { return Ok(None) };
        let live = places.live(id, self.now()).filter(|record| record.user() == Some(user)).cloned();
        if live.is_some() {
            places.0.remove(&id);
        }
        Ok(live.map(|record| EndedSession::live(id, Some(record))))
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::all()
    }
}

fn changed(newest: &Record, change: Change<'_>) -> Result<Option<Record>> {
    let mut record = newest.clone();
    Ok(match change(&mut record)? {
        Verdict::Write => Some(record),
        Verdict::Keep => Some(newest.clone()),
        Verdict::Abort => None,
    })
}
