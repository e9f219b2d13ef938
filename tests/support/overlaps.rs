//! Requests of one browser that overlap, in any order of their steps, and what is left of their promises.
//!
//! Each request is sent with the cookie that the browser has at that moment, reads its session, is finished, and its
//! response reaches the browser. Nothing here depends on time: all that happens is within the grace period.
use sessile::{
    Clock, Cookies, ErrorKind, Headers, Lifetime, Lookup, Record, Renewal, Sessions, Store, Token, Visit,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Read,
    Store,
    Rotate,
    Login,
    Logout,
    /// A read that moves the deadline, and so sends the cookie again.
    Renew,
}
use Operation::{Login, Logout, Read, Renew, Rotate, Store as Put};

pub(crate) const OPERATIONS: [Operation; 6] = [Read, Put, Rotate, Login, Logout, Renew];

/// The steps of a request.
const SEND: usize = 0;
const LOAD: usize = 1;
const FINISH: usize = 2;
const DELIVER: usize = 3;
pub(crate) const STEPS: usize = 4;

/// An entry of the session that all begin with, and one of each request that stores.
const CART: &str = "cart";
const NOTES: [&str; 3] = ["note 0", "note 1", "note 2"];

/// Something that a run of overlapping requests has led to. All but the first six cannot be mended by a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Finding {
    /// The browser is logged in after a logout, and no login was beside the logout or after it.
    LoggedInAfterLogout,
    /// The session that a logout named is alive, possibly under an id that a rotation gave it.
    LogoutSpared,
    LoginRefused,
    /// An id from before a login opens a session, or gives its entries to another user's login.
    IdFromBeforeALogin,
    /// A change that was acknowledged is in no live session, and no logout followed it.
    ChangeLost,
    /// The cookie of a login was replaced by that of a request which was finished later and is no login.
    LoginReplacedBy(Operation),
    /// The same by another login beside it.
    LoginReplacedByLogin,
    /// The same by a request that came with the cookie of another login beside it, and rotated that id.
    LoginReplacedByRotationOfAnother,
    /// The cookie of a login was replaced by that of a session that a change made whose own session a logout had ended:
    /// all three were sent before.
    LoginReplacedByStoreAfterLogout,
    /// The cookie of a login was removed by a logout beside it that was finished later.
    LoginRemovedByLogout,
    /// A response that was finished before a login arrived after that of the login.
    LoginOvertaken,
    /// A visitor who was logged in is not, because of a rotation: an older cookie arrived after its new one.
    RotationOvertaken,
    /// An acknowledged change is in a live session that the browser has lost.
    ChangeNotInBrowser,
    /// The same of a request that was sent without a cookie.
    ChangeWithoutCookie,
    /// The login of another user has dropped the change.
    ChangeOfAnotherUser,
}

impl Finding {
    /// Whether a server can do nothing about it.
    pub(crate) fn is_unmendable(self) -> bool {
        !matches!(
            self,
            Self::LoggedInAfterLogout
                | Self::LogoutSpared
                | Self::LoginRefused
                | Self::IdFromBeforeALogin
                | Self::ChangeLost
                | Self::LoginReplacedBy(_)
        )
    }
}

/// A store, and sessions in it of the requests that renew and of those that do not.
pub(crate) struct Site {
    store: Arc<dyn Store>,
    clock: Clock,
    sessions: Sessions,
    renewing: Sessions,
}

impl Site {
    /// A site on this store, whose clock is `clock`.
    pub(crate) fn new(store: Arc<dyn Store>, clock: Clock, grace: Duration) -> Self {
        let lifetime = Lifetime::new().grace(grace);
        let sessions = Sessions::new(store.clone(), Cookies::plain_http()).unwrap().with_observer(|_| {});
        let renewing = lifetime.clone().renewal(Renewal::OnRead).renewal_step_percent(0);
        let renewing = sessions.clone().with_lifetime(renewing).unwrap();
        Self { store, clock, sessions: sessions.with_lifetime(lifetime).unwrap(), renewing }
    }

    fn record(&self, id: &str) -> Option<Record> {
        match self.store.load(&Token::parse(id).unwrap()).unwrap() {
            Lookup::Live(live) => Some(live.record),
            Lookup::Absent(_) => None,
        }
    }

    fn is_alive(&self, id: &str) -> bool {
        self.record(id).is_some()
    }

    fn has(&self, id: &str, entry: &str) -> bool {
        self.record(id).is_some_and(|record| record.entries().contains(entry))
    }

    fn is_logged_in(&self, id: &str) -> bool {
        self.record(id).is_some_and(|record| record.user().is_some())
    }

    fn visit(&self, operation: Operation, id: Option<&str>) -> Visit {
        let sessions = if operation == Renew { &self.renewing } else { &self.sessions };
        sessions.visit(id.map(|id| format!("session={id}")).as_deref())
    }
}

/// The effect of a response on the cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cookie {
    Kept,
    Id(String),
    Removed,
}

impl Cookie {
    fn of(headers: &Headers) -> Self {
        match headers.iter().find(|(name, _)| *name == "Set-Cookie") {
            None => Self::Kept,
            Some((_, value)) if value.contains("Max-Age=0") => Self::Removed,
            Some((_, value)) => {
                let value = value.strip_prefix("session=").expect("its name");
                Self::Id(value.split(';').next().unwrap_or_default().to_owned())
            }
        }
    }
}

/// The requests of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    /// The user of the session that all begin with, which has a cart; `None` for an anonymous visitor.
    pub(crate) begin: Option<&'static str>,
    pub(crate) operations: &'a [Operation],
    /// The user of each request, if it is a login.
    pub(crate) users: &'a [&'static str],
    /// The request that takes the next step, for each step.
    pub(crate) order: &'a [usize],
}

/// A request of a run.
struct Request {
    operation: Operation,
    user: &'static str,
    note: &'static str,
    /// When it takes each step.
    at: [usize; STEPS],
    sent: Option<String>,
    visit: Option<Visit>,
    saved: Result<(), ErrorKind>,
    cookie: Cookie,
}

impl Request {
    fn is(&self, operation: Operation) -> bool {
        self.operation == operation
    }

    fn finish(&mut self) {
        let mut visit = self.visit.take().expect("it is loaded");
        match self.operation {
            Read | Renew => {}
            Put => visit.insert(self.note, true).unwrap(),
            Rotate => visit.rotate_id(),
            Login => visit.login(self.user).unwrap(),
            Logout => drop(visit.destroy().unwrap()),
        }
        (self.saved, self.cookie) = match visit.finish(200) {
            Ok(headers) => (Ok(()), Cookie::of(&headers)),
            Err(refused) => (Err(refused.error.kind()), Cookie::of(&refused.headers)),
        };
        if let Err(kind) = self.saved {
            assert_eq!((kind, &self.cookie), (ErrorKind::Gone, &Cookie::Kept), "a refusal sends no cookie");
        }
    }

    /// Whether this response reaches the browser after that one, of a request that is not its cause.
    fn arrives_after(&self, other: &Self) -> bool {
        self.at[DELIVER] > other.at[DELIVER] && self.at[SEND] < other.at[DELIVER]
    }

    fn is_finished_after(&self, other: &Self) -> bool {
        self.at[FINISH] > other.at[FINISH]
    }
}

/// A run that is over.
struct Outcome<'a> {
    site: &'a Site,
    begin: Option<&'static str>,
    first_id: String,
    requests: Vec<Request>,
    /// The cookie that the browser has.
    jar: Option<String>,
    findings: BTreeSet<Finding>,
}

impl Run<'_> {
    /// Runs the requests, and returns what they have led to.
    pub(crate) fn findings(&self, site: &Site) -> BTreeSet<Finding> {
        let mut outcome = self.play(site);
        outcome.judge_logouts();
        outcome.judge_logins();
        outcome.judge_changes();
        outcome.judge_the_old_id();
        outcome.findings
    }

    fn play<'a>(&self, site: &'a Site) -> Outcome<'a> {
        site.clock.set(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let mut visit = site.visit(Put, None);
        visit.insert(CART, true).unwrap();
        if let Some(user) = self.begin {
            visit.login(user).unwrap();
        }
        let Cookie::Id(first_id) = Cookie::of(&visit.finish(200).unwrap()) else { panic!("a new session") };
        site.clock.advance(Duration::from_secs(1));
        let request = |number: usize| Request {
            operation: self.operations[number],
            user: self.users[number],
            note: NOTES[number],
            at: [0; STEPS],
            sent: None,
            visit: None,
            saved: Ok(()),
            cookie: Cookie::Kept,
        };
        let mut outcome = Outcome {
            site,
            begin: self.begin,
            requests: (0..self.operations.len()).map(request).collect(),
            jar: Some(first_id.clone()),
            first_id,
            findings: BTreeSet::new(),
        };
        let mut steps = [0; NOTES.len()];
        for (time, &number) in self.order.iter().enumerate() {
            outcome.step(number, steps[number], time);
            steps[number] += 1;
        }
        outcome.check_the_first_id();
        outcome
    }
}

impl Outcome<'_> {
    fn step(&mut self, number: usize, step: usize, time: usize) {
        let request = &mut self.requests[number];
        request.at[step] = time;
        match step {
            SEND => request.sent.clone_from(&self.jar),
            LOAD => {
                let visit = self.site.visit(request.operation, request.sent.as_deref());
                visit.user().unwrap();
                request.visit = Some(visit);
            }
            FINISH => {
                request.finish();
                if let (Login, Ok(()), Cookie::Id(id)) = (request.operation, request.saved, &request.cookie) {
                    let record = self.site.record(id).expect("an acknowledged login is alive");
                    assert_eq!(record.user(), Some(request.user));
                }
                // An anonymous visitor's id never opens the session of a logged-in user.
                if self.begin.is_none() && self.site.is_logged_in(&self.first_id) {
                    self.findings.insert(Finding::IdFromBeforeALogin);
                }
            }
            _ => match &request.cookie {
                Cookie::Kept => {}
                Cookie::Id(id) => self.jar = Some(id.clone()),
                Cookie::Removed => self.jar = None,
            },
        }
    }

    /// It is alive unless a request that was sent with it has replaced or ended it.
    fn check_the_first_id(&self) {
        let ended = self.requests.iter().any(|request| {
            [Rotate, Login, Logout].contains(&request.operation)
                && request.sent.as_ref() == Some(&self.first_id)
        });
        assert_eq!(self.site.is_alive(&self.first_id), !ended, "the first id");
    }

    fn all(&self, operation: Operation) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(move |request| request.is(operation))
    }

    /// The id that mere rotations have given to the session of `id` in the end.
    fn rotated<'a>(&'a self, id: &'a str) -> &'a str {
        let next = self.all(Rotate).find_map(|request| match &request.cookie {
            Cookie::Id(new) if request.sent.as_deref() == Some(id) && new != id => Some(new),
            _ => None,
        });
        next.map_or(id, |next| self.rotated(next))
    }

    fn judge_logouts(&mut self) {
        let logged_in = self.jar.as_deref().is_some_and(|id| self.site.is_logged_in(id));
        let mut found = Vec::new();
        for logout in self.all(Logout) {
            let Some(named) = &logout.sent else { continue };
            let beside = self.all(Login).any(|login| login.at[DELIVER] > logout.at[SEND]);
            if logged_in && !beside {
                found.push(Finding::LoggedInAfterLogout);
            }
            if self.site.is_alive(self.rotated(named)) {
                found.push(Finding::LogoutSpared);
            }
        }
        self.findings.extend(found);
    }

    fn judge_logins(&mut self) {
        let mut found = Vec::new();
        for login in self.all(Login) {
            let (Ok(()), Cookie::Id(id)) = (login.saved, &login.cookie) else {
                found.push(Finding::LoginRefused);
                continue;
            };
            if login.sent.as_deref().is_some_and(|sent| self.site.is_alive(sent)) {
                found.push(Finding::IdFromBeforeALogin);
            }
            for other in self.requests.iter().filter(|other| other.arrives_after(login)) {
                let later = other.is_finished_after(login);
                found.extend(match &other.cookie {
                    Cookie::Id(new) if new != id && later => Some(self.replaced_by(login, other)),
                    Cookie::Removed if later => Some(Finding::LoginRemovedByLogout),
                    Cookie::Id(new) if new != id => Some(Finding::LoginOvertaken),
                    Cookie::Removed => Some(Finding::LoginOvertaken),
                    Cookie::Kept | Cookie::Id(_) => None,
                });
            }
        }
        let jar_logged_in = self.jar.as_deref().is_some_and(|id| self.site.is_logged_in(id));
        let neither = self.all(Login).chain(self.all(Logout)).next().is_none();
        if self.begin.is_some() && neither && !jar_logged_in {
            found.push(Finding::RotationOvertaken);
        }
        self.findings.extend(found);
    }

    fn replaced_by(&self, login: &Request, other: &Request) -> Finding {
        let logout_before = self.all(Logout).any(|logout| other.is_finished_after(logout));
        let beside = self.all(Login).any(|another| match &another.cookie {
            Cookie::Id(id) => another.note != login.note && other.sent.as_ref() == Some(id),
            Cookie::Kept | Cookie::Removed => false,
        });
        match other.operation {
            Login => Finding::LoginReplacedByLogin,
            Put if logout_before => Finding::LoginReplacedByStoreAfterLogout,
            Rotate | Renew if beside => Finding::LoginReplacedByRotationOfAnother,
            operation => Finding::LoginReplacedBy(operation),
        }
    }

    fn judge_changes(&mut self) {
        let mut ids = vec![self.first_id.as_str()];
        for request in &self.requests {
            if let Cookie::Id(id) = &request.cookie {
                ids.push(id);
            }
        }
        let users: BTreeSet<_> = self.all(Login).map(|login| login.user).chain(self.begin).collect();
        let stored = self.all(Put).filter(|request| request.saved.is_ok());
        let mut changes: Vec<_> = stored.map(|put| (put.note, Some(put), put.sent.is_some())).collect();
        changes.push((CART, None, true));
        let mut found = Vec::new();
        for (name, put, with_cookie) in changes {
            let ended = self.all(Logout).any(|out| put.is_none_or(|put| out.is_finished_after(put)));
            let in_browser = self.jar.as_deref().is_some_and(|id| self.site.has(id, name));
            if ended || in_browser {
                continue;
            }
            found.push(if !ids.iter().any(|id| self.site.has(id, name)) {
                if users.len() > 1 { Finding::ChangeOfAnotherUser } else { Finding::ChangeLost }
            } else if with_cookie {
                Finding::ChangeNotInBrowser
            } else {
                Finding::ChangeWithoutCookie
            });
        }
        self.findings.extend(found);
    }

    /// The first id in the hands of another visitor, who logs in with it in the end. It gives nothing that was stored
    /// after a login.
    fn judge_the_old_id(&mut self) {
        let last = self.rotated(&self.first_id);
        let anonymous = self.site.record(last).is_some_and(|record| record.user().is_none());
        let mut session = self.site.sessions.session(Token::parse(&self.first_id));
        session.login("mallory").unwrap();
        session.save().unwrap();
        if !session.is_empty().unwrap() && !anonymous {
            self.findings.insert(Finding::IdFromBeforeALogin);
        }
    }
}

/// Every order of the steps of this many requests.
pub(crate) fn orders(requests: usize) -> Vec<Vec<usize>> {
    fn extend(order: &mut Vec<usize>, left: &mut [usize], all: &mut Vec<Vec<usize>>) {
        if left.iter().all(|left| *left == 0) {
            all.push(order.clone());
        }
        for number in 0..left.len() {
            if left[number] > 0 {
                left[number] -= 1;
                order.push(number);
                extend(order, left, all);
                order.pop();
                left[number] += 1;
            }
        }
    }
    let mut all = Vec::new();
    extend(&mut Vec::new(), &mut vec![STEPS; requests], &mut all);
    all
}
