//! Concurrent requests of one browser, in any order of their steps. Each request is sent with the cookie that the
//! browser has at that moment, reads its session, is finished, and its response reaches the browser. Afterwards this
//! module checks what became of logins, logouts and changes. Time plays no part: everything happens within the grace
//! period.
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
    /// Reads the session and moves its deadline, so the cookie is sent again.
    Renew,
}
use Operation::{Login, Logout, Read, Renew, Rotate, Store as Put};

pub(crate) const OPERATIONS: [Operation; 6] = [Read, Put, Rotate, Login, Logout, Renew];

/// The numbers of a request's steps.
const SEND: usize = 0;
const LOAD: usize = 1;
const FINISH: usize = 2;
const DELIVER: usize = 3;
pub(crate) const STEPS: usize = 4;

/// The name of the entry that the first session has. Each request that stores sets an entry of its own.
const CART: &str = "cart";
const NOTES: [&str; 3] = ["note 0", "note 1", "note 2"];

/// A result of a run of concurrent requests that some user may not expect. No server can avoid those after the sixth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Finding {
    /// The browser is logged in after a logout, and no login was concurrent to the logout or came after it.
    LoggedInAfterLogout,
    /// The session that a logout should have ended is alive, possibly under an id that a rotation has given to it.
    LogoutSpared,
    LoginRefused,
    /// An id from before a login opens a session, or passes its entries on to the login of another user.
    IdFromBeforeALogin,
    /// A change that was acknowledged is in no live session, and no logout came after it.
    ChangeLost,
    /// The cookie of a login was replaced by that of a request that was finished later and is no login.
    LoginReplacedBy(Operation),
    /// The cookie of a login was replaced by that of a concurrent login.
    LoginReplacedByLogin,
    /// The cookie of a login was replaced by that of a request which was sent with the cookie of another, concurrent
    /// login, and rotated that id.
    LoginReplacedByRotationOfAnother,
    /// The cookie of a login was replaced by that of a new session. A request that stored a change had made it, because
    /// a logout had ended its own session. All three requests were sent before any was finished.
    LoginReplacedByStoreAfterLogout,
    /// The cookie of a login was removed by a concurrent logout that was finished later.
    LoginRemovedByLogout,
    /// A response that was finished before a login reached the browser after the login's response.
    LoginOvertaken,
    /// A visitor who was logged in is not any more, because a rotation gave a new id, and an older cookie reached the
    /// browser after the new one.
    RotationOvertaken,
    /// An acknowledged change is in a live session whose cookie the browser has lost.
    ChangeNotInBrowser,
    /// The same for a change of a request that was sent without a cookie.
    ChangeWithoutCookie,
    /// The login of another user has dropped an acknowledged change.
    ChangeOfAnotherUser,
}

impl Finding {
    /// Whether no server can avoid this.
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

/// A store, with the `Sessions` of requests that renew and of those that do not.
pub(crate) struct Site {
    store: Arc<dyn Store>,
    clock: Clock,
    sessions: Sessions,
    renewing: Sessions,
}

impl Site {
    /// Makes a site with this store, whose clock is `clock`.
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

/// The effect of a response on the browser's cookie.
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

/// The requests of one run, and the order of their steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    /// The user of the first session, which has a cart; `None` for an anonymous visitor.
    pub(crate) begin: Option<&'static str>,
    pub(crate) operations: &'a [Operation],
    /// The user of each request that is a login.
    pub(crate) users: &'a [&'static str],
    /// For each step of the run, the number of the request that takes it.
    pub(crate) order: &'a [usize],
}

/// A request of a run.
struct Request {
    operation: Operation,
    user: &'static str,
    note: &'static str,
    /// For each of its steps, the time at which it is taken: the number of the step in the run.
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

    /// Whether this response reaches the browser after the response of `other`, although this request did not come
    /// after it.
    fn arrives_after(&self, other: &Self) -> bool {
        self.at[DELIVER] > other.at[DELIVER] && self.at[SEND] < other.at[DELIVER]
    }

    fn is_finished_after(&self, other: &Self) -> bool {
        self.at[FINISH] > other.at[FINISH]
    }
}

/// A run after its last step.
struct Outcome<'a> {
    site: &'a Site,
    begin: Option<&'static str>,
    first_id: String,
    requests: Vec<Request>,
    /// The cookie that the browser has at the end.
    jar: Option<String>,
    findings: BTreeSet<Finding>,
}

impl Run<'_> {
    /// Runs the requests, and returns the findings.
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
                // The id of an anonymous visitor never opens the session of a logged-in user.
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

    /// Asserts that the first id opens its session, unless a request that was sent with it has replaced or ended it.
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

    /// The id that the session of `id` has in the end, by rotations that were no logins.
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

    /// Another visitor has the first id, and logs in with it after the run. Nothing that was stored after a login may
    /// be in that session.
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

/// Every order in which this many requests can take their steps.
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
