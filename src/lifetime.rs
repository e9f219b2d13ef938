//! The lifetime of a session: computes the deadline and the cookie's `Max-Age` from the policy and the session's
//! setting. This module does no I/O and reads no clock.
//!
//! ```text
//! deadline = min(expiry, touched + idle limit, created + absolute limit)
//!   expiry = touched + age           default, browser close
//!            touched + first age     the same, before the second visit of a visitor without a login
//!            touched + duration      Expiry::After
//!            instant                 Expiry::At
//! ```
//!
//! `touched` moves only if that gains at least a *step*: a tenth of the possible gain, and at most 30 days. So the
//! deadline in the store is always the one that the cookie last advertised, and a visitor who reads all day costs a few
//! writes instead of thousands. In exchange, an active visitor may expire up to one step early.
//!
//! Browsers keep no cookie longer than 400 days, whatever its `Max-Age` says (RFC 6265bis section 5.5). So the gain of
//! a renewal is computed for the browser's cookie too, which ends 400 days after `touched` if the deadline is later.
//! The cookie is then sent again in time, even if the deadline cannot move (an absolute limit, a fixed instant).
use crate::clock::{from_micros, micros};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Expiry, Micros, Record, THOUSAND_YEARS, Timing};
use std::time::{Duration, SystemTime};

/// The requests that move the deadline of the session they use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Renewal {
    /// Requests that save a change renew the session.
    #[default]
    OnSave,
    /// Requests that read or save renew the session: a sliding expiry. Implied by an idle limit.
    OnRead,
    /// All requests with the token of a live session renew it, whether they use it or not (Django's
    /// `SESSION_SAVE_EVERY_REQUEST`).
    EveryRequest,
}

/// Whether a renewal moved the deadline, and whether the cookie must be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewed {
    No,
    /// The deadline moved. The browser's cookie need not be sent again.
    Quietly,
    /// The cookie must be sent again.
    WithCookie,
}

impl Renewed {
    pub(crate) fn is_worth_a_write(self) -> bool {
        self != Self::No
    }
}

/// The program's policy: how long sessions live, and which requests renew them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetime {
    age: Duration,
    renewal: Renewal,
    step_percent: u8,
    browser_close: bool,
    idle: Option<Duration>,
    absolute: Option<Duration>,
    future_tolerance: Duration,
    first_age: Option<Duration>,
    grace: Duration,
}

impl Default for Lifetime {
    fn default() -> Self {
        Self {
            age: Duration::from_secs(1_209_600),
            renewal: Renewal::OnSave,
            step_percent: 10,
            browser_close: false,
            idle: None,
            absolute: None,
            future_tolerance: Duration::from_secs(300),
            first_age: None,
            grace: Duration::from_secs(60),
        }
    }
}

/// The longest grace period of an id that was moved.
pub const GRACE_MAX: Duration = Duration::from_secs(600);
/// The longest time that browsers keep a cookie.
const BROWSER_KEEPS: Duration = Duration::from_secs(400 * 86_400);
/// The largest gain in lifetime that a renewal waits for. With 30 days, a visitor who comes at least every 370 days
/// keeps the cookie.
const STEP_MAX: Duration = Duration::from_secs(30 * 86_400);

impl Lifetime {
    /// Two weeks from the last save, as in Django.
    ///
    /// ```
    /// use sessile::Lifetime;
    /// assert_eq!(Lifetime::new(), Lifetime::default());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The life of a session after its last activity: 1 second to 1,000 years, default two weeks.
    ///
    /// ```
    /// use sessile::Lifetime;
    /// use std::time::Duration;
    /// let lifetime = Lifetime::new().age(Duration::from_secs(30 * 24 * 3600)); // thirty days
    /// # let _ = lifetime;
    /// ```
    #[doc(alias = "SESSION_COOKIE_AGE")]
    #[must_use]
    pub fn age(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// The requests that move the deadline; default [`Renewal::OnSave`].
    ///
    /// ```
    /// use sessile::{Lifetime, Renewal};
    /// let lifetime = Lifetime::new().renewal(Renewal::OnRead); // reading counts as activity
    /// # let _ = lifetime;
    /// ```
    #[doc(alias = "SESSION_SAVE_EVERY_REQUEST")]
    #[must_use]
    pub fn renewal(mut self, renewal: Renewal) -> Self {
        self.renewal = renewal;
        self
    }

    /// The least gain for which a renewal writes and sends a cookie, in percent of the age (or of the idle limit, if
    /// that is shorter): 0..=50, default 10; 0 renews always. An active visitor may expire one step early.
    ///
    /// For every percentage, the step is at most 30 days. Browsers keep no cookie longer than 400 days, so a session of
    /// many years needs a new cookie now and then: any renewing request that comes 30 days or more after the last
    /// cookie gets one. A visitor who stays away for more than 370 days may have lost the cookie.
    ///
    /// ```
    /// use sessile::{Lifetime, Renewal};
    /// use std::time::Duration;
    ///
    /// const DAY: Duration = Duration::from_secs(86_400);
    /// // Reads move the deadline as soon as that gains 2 days of 40.
    /// let lifetime = Lifetime::new().age(40 * DAY).renewal(Renewal::OnRead).renewal_step_percent(5);
    /// # let _ = lifetime;
    /// ```
    #[must_use]
    pub fn renewal_step_percent(mut self, percent: u8) -> Self {
        self.step_percent = percent;
        self
    }

    /// Whether cookies end with the browser by default; default no. The server keeps its age in either case.
    ///
    /// A change of this option reaches the cookie of an existing session at its next save.
    ///
    /// ```
    /// let lifetime = sessile::Lifetime::new().expire_at_browser_close(true);
    /// # let _ = lifetime;
    /// ```
    #[doc(alias = "SESSION_EXPIRE_AT_BROWSER_CLOSE")]
    #[must_use]
    pub fn expire_at_browser_close(mut self, yes: bool) -> Self {
        self.browser_close = yes;
        self
    }

    /// Ends sessions this long after their last activity, reads included: 1 second to 1,000 years, default none.
    ///
    /// ```
    /// use sessile::Lifetime;
    /// use std::time::Duration;
    /// let lifetime = Lifetime::new().idle_limit(Duration::from_secs(15 * 60)); // a quarter of an hour
    /// # let _ = lifetime;
    /// ```
    #[must_use]
    pub fn idle_limit(mut self, limit: Duration) -> Self {
        self.idle = Some(limit);
        self
    }

    /// Ends sessions this long after their creation or last login, whatever the activity: 1 second to 1,000 years,
    /// default none. No save, renewal or rotation extends it.
    ///
    /// ```
    /// use sessile::Lifetime;
    /// use std::time::Duration;
    /// let lifetime = Lifetime::new().absolute_limit(Duration::from_secs(12 * 3600)); // half a day after the login
    /// # let _ = lifetime;
    /// ```
    #[must_use]
    pub fn absolute_limit(mut self, limit: Duration) -> Self {
        self.absolute = Some(limit);
        self
    }

    /// The life of a session whose visitor has come only once and has not logged in, if that is shorter than the
    /// [age](Self::age): 1 second to 1,000 years, default none. For a site whose first page stores something: a crawler
    /// drops the cookie and gets another session with each page, and all of them would be kept for the whole age. At
    /// the second visit, reads included, the session gets its age and the cookie is sent again.
    ///
    /// Applies to [`Expiry::Default`] and [`Expiry::BrowserClose`]; a duration or an instant that the program has set
    /// stays. A shorter first age applies at once, a longer one to new sessions.
    ///
    /// ```
    /// use sessile::Lifetime;
    /// use std::time::Duration;
    /// let lifetime = Lifetime::new().first_age(Duration::from_secs(3600)); // an hour, and then two weeks
    /// # let _ = lifetime;
    /// ```
    #[must_use]
    pub fn first_age(mut self, age: Duration) -> Self {
        self.first_age = Some(age);
        self
    }

    /// How far in the future a record's times may lie, for clocks that disagree: 1 minute or more, default 5 minutes. A
    /// record beyond that counts as expired, so that a clock that went backwards makes no session immortal. The minimum
    /// is a minute, because a save may wait that long for its lock after it has read the clock.
    ///
    /// More than a day is for a board without a clock of its own. It starts in 1970 or at its image's date, and its
    /// clock jumps by years at the next synchronisation. Until then, each session from before the restart lies in the
    /// future and counts as expired; `Duration::MAX` lets all of them live. (Sessions that are made before the
    /// synchronisation expire with it, because their deadline is computed from the wrong time.) In exchange, a session
    /// that was made or renewed while a clock was ahead lives until its deadline by that clock.
    ///
    /// ```
    /// use sessile::Lifetime;
    /// let on_a_board_without_a_clock = Lifetime::new().future_tolerance(std::time::Duration::MAX);
    /// # let _ = on_a_board_without_a_clock;
    /// ```
    #[must_use]
    pub fn future_tolerance(mut self, tolerance: Duration) -> Self {
        self.future_tolerance = tolerance;
        self
    }

    /// How long an id that a login or [`rotate_id`](crate::Session::rotate_id) has replaced is known as moved: at most
    /// 10 minutes, default 60 seconds; zero switches this off.
    ///
    /// A browser sends requests beside each other: while a login is under way, a page of the same visitor may already
    /// be on its way with the old cookie. Without a grace period such a request is that of a stranger. What it stores
    /// makes a session of its own, and if its response is the last to arrive, its cookie replaces that of the login; a
    /// logout finds nothing to end, and a second login leaves the session of the first alive.
    ///
    /// A moved id opens no session. A request that brings one reads none, and its changes are refused with
    /// [`ErrorKind::Gone`] (409; the next request has the new cookie). A [`destroy`](crate::Session::destroy) and a
    /// [`login`](crate::Session::login) go on to the session that was rotated. The grace period should be longer than
    /// the slowest request, because a request that takes longer is a stranger again.
    ///
    /// ```
    /// use sessile::Lifetime;
    /// let slow_pages = Lifetime::new().grace(std::time::Duration::from_secs(180));
    /// # let _ = slow_pages;
    /// ```
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The grace period of an id that was moved.
    pub(crate) fn grace_period(&self) -> Duration {
        self.grace
    }

    /// # Errors
    ///
    /// [`ErrorKind::Config`] names the option that is out of its bounds.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse =
            |reason: String| Err(Error::new(ErrorKind::Config, "set the lifetime").with_reason(reason));
        let spans = [
            ("age", Some(self.age)),
            ("idle limit", self.idle),
            ("absolute limit", self.absolute),
            ("first age", self.first_age),
        ];
        for (name, span) in spans {
            if span.is_some_and(|span| !(Duration::from_secs(1)..=THOUSAND_YEARS).contains(&span)) {
                return refuse(format!("the {name} must be 1 second to 1,000 years"));
            }
        }
        if self.step_percent > 50 {
            return refuse("the renewal step must be 0 to 50 percent".into());
        }
        if self.future_tolerance < Duration::from_secs(60) {
            return refuse("the future tolerance must be 1 minute or more".into());
        }
        if self.grace > GRACE_MAX {
            return refuse("the grace period must be at most 10 minutes".into());
        }
        Ok(())
    }

    /// The deadline that this lifetime gives to a session with these times and this expiry setting. The present
    /// deadline plays no part.
    pub(crate) fn deadline(&self, timing: &Timing) -> SystemTime {
        let (created, touched) = (micros(timing.created), micros(timing.touched));
        from_micros(self.deadline_micros(timing.expiry, timing.came_once, created, touched))
    }

    fn deadline_micros(&self, expiry: Expiry, came_once: bool, created: u64, touched: u64) -> u64 {
        let expires = match expiry {
            Expiry::Default | Expiry::BrowserClose => {
                let first = self.first_age.filter(|_| came_once);
                later(touched, first.map_or(self.age, |first| first.min(self.age)))
            }
            Expiry::After(age) => later(touched, age),
            Expiry::At(instant) => micros(instant),
        };
        let idle = self.idle.map_or(u64::MAX, |limit| later(touched, limit));
        let absolute = self.absolute.map_or(u64::MAX, |limit| later(created, limit));
        expires.min(idle).min(absolute)
    }

    /// Whether the session has ended at `now`: by its stored deadline, by this lifetime (which may have become stricter
    /// since), or because its times are in the future. Every request that uses its session calls this, so it works with
    /// the stored numbers.
    pub(crate) fn is_over(&self, record: &Record, now: SystemTime) -> bool {
        let (now, expiry, Micros { created, touched, deadline }) =
            (micros(now), record.expiry(), record.micros());
        deadline.min(self.deadline_micros(expiry, record.came_once(), created, touched)) <= now
            || created.max(touched) > later(now, self.future_tolerance)
    }

    /// Whether a login may lie this far in the future and count as fresh. More than an hour is no difference of clocks,
    /// whatever the program tolerates for the life of its sessions.
    pub(crate) fn tolerates_login(&self, future: Duration) -> bool {
        future <= self.future_tolerance.min(Duration::from_secs(3600))
    }

    /// The stored deadline, or an earlier one if this lifetime has become stricter since.
    pub(crate) fn current_deadline(&self, timing: &Timing) -> SystemTime {
        timing.deadline.min(self.deadline(timing))
    }

    /// Moves `touched` and the deadline if that gains a step, if the cookie's end with the browser has been switched on
    /// or off, or if this is the second visit.
    pub(crate) fn renew(&self, timing: &mut Timing, now: SystemTime) -> Renewed {
        let [created, touched, stored, sent] =
            [timing.created, timing.touched, timing.deadline, now].map(micros);
        let deadline = self.deadline_micros(timing.expiry, false, created, sent);
        let current = stored.min(self.deadline_micros(timing.expiry, timing.came_once, created, touched));
        let gained = deadline.saturating_sub(current);
        let kept = if self.is_browser_bound(timing.expiry) {
            gained
        } else {
            // The time that a new cookie adds to the cookie's life in the browser.
            let end = |sent, deadline| later(sent, BROWSER_KEEPS).min(deadline);
            end(sent, deadline).saturating_sub(end(touched, current))
        };
        let gained = gained.max(kept);
        let worth_it = gained > 0 && Duration::from_micros(gained) >= self.step(timing.expiry);
        let other_cookie = timing.ends_with_browser != self.ends_with_browser(timing.expiry);
        if !worth_it && !other_cookie && !timing.came_once {
            return Renewed::No;
        }
        timing.came_once = false;
        timing.touched = now;
        timing.deadline = from_micros(deadline);
        timing.ends_with_browser = self.ends_with_browser(timing.expiry);
        // A cookie that ends with the browser states no deadline, so a moved deadline need not be sent.
        if other_cookie || !self.is_browser_bound(timing.expiry) {
            Renewed::WithCookie
        } else {
            Renewed::Quietly
        }
    }

    /// Gives the session a new setting. This counts as activity, and moves the deadline even by less than a step.
    pub(crate) fn apply(&self, timing: &mut Timing, expiry: Expiry, now: SystemTime) {
        timing.expiry = expiry;
        timing.ends_with_browser = self.ends_with_browser(expiry);
        timing.touched = now;
        timing.deadline = self.deadline(timing);
    }

    /// Whether a new session, with or without a user, is that of a visitor who has come only once.
    pub(crate) fn comes_once(&self, has_user: bool) -> bool {
        self.first_age.is_some() && !has_user
    }

    /// Whether this lifetime renews the session of a request that has saved or read it.
    pub(crate) fn renews(&self, saved: bool, read: bool) -> bool {
        match self.renewal {
            Renewal::EveryRequest => true,
            Renewal::OnRead => saved || read,
            Renewal::OnSave => saved || (read && self.idle.is_some()),
        }
    }

    /// Whether the cookie of a session with this expiry setting ends when the browser is closed.
    pub(crate) fn is_browser_bound(&self, expiry: Expiry) -> bool {
        expiry == Expiry::BrowserClose || self.ends_with_browser(expiry)
    }

    /// Whether it is this lifetime that makes the cookie of such a session end when the browser is closed.
    fn ends_with_browser(&self, expiry: Expiry) -> bool {
        expiry == Expiry::Default && self.browser_close
    }

    /// The smallest gain in lifetime for which a session is saved: a share of the most that activity can gain.
    fn step(&self, expiry: Expiry) -> Duration {
        let window = match expiry {
            Expiry::After(age) => age,
            Expiry::Default | Expiry::BrowserClose | Expiry::At(_) => self.age,
        };
        let share = self.idle.map_or(window, |idle| idle.min(window)) * u32::from(self.step_percent) / 100;
        share.min(STEP_MAX)
    }
}

/// `time + span` in microseconds, or the latest time that can be stored.
fn later(time: u64, span: Duration) -> u64 {
    time.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(secs)
    }
    fn timing(lifetime: &Lifetime, expiry: Expiry, now: SystemTime) -> Timing {
        let mut timing = Timing::new(now, now);
        lifetime.apply(&mut timing, expiry, now);
        timing
    }

    fn is_over(lifetime: &Lifetime, timing: &Timing, now: SystemTime) -> bool {
        lifetime.is_over(&Record::new(now, now).with_timing(*timing), now)
    }

    #[track_caller]
    fn check_deadline(lifetime: &Lifetime, expiry: Expiry, want: SystemTime) {
        let timing = Timing { created: at(1000), touched: at(2000), expiry, ..Timing::new(at(0), at(0)) };
        assert_eq!(lifetime.deadline(&timing), want);
    }

    #[test]
    fn the_deadline_is_the_earliest_of_expiry_idle_and_absolute() {
        let plain = Lifetime::new();
        check_deadline(&plain, Expiry::Default, at(2000 + 1_209_600));
        check_deadline(&plain, Expiry::BrowserClose, at(2000 + 1_209_600));
        check_deadline(&plain, Expiry::After(Duration::from_secs(300)), at(2300));
        check_deadline(&plain, Expiry::At(at(5)), at(5));
        let idle = Lifetime::new().idle_limit(Duration::from_secs(100));
        check_deadline(&idle, Expiry::Default, at(2100));
        check_deadline(&idle, Expiry::At(at(2050)), at(2050));
        let both = idle.absolute_limit(Duration::from_secs(1050));
        check_deadline(&both, Expiry::Default, at(2050));
        check_deadline(&plain, Expiry::After(Duration::MAX), from_micros(u64::MAX));
    }

    #[test]
    fn renewal_moves_the_deadline_only_when_that_gains_a_tenth() {
        let lifetime = Lifetime::new().age(DAY * 10);
        let mut session = timing(&lifetime, Expiry::Default, at(0));
        assert!(!lifetime.renew(&mut session, at(86_399)).is_worth_a_write());
        assert_eq!(session.touched, at(0));
        assert!(lifetime.renew(&mut session, at(86_400)).is_worth_a_write());
        assert_eq!((session.touched, session.deadline), (at(86_400), at(11 * 86_400)));
    }

    #[test]
    fn the_step_follows_a_short_setting_and_a_short_idle_limit() {
        let lifetime = Lifetime::new();
        let mut short = timing(&lifetime, Expiry::After(Duration::from_secs(300)), at(0));
        assert!(!lifetime.renew(&mut short, at(29)).is_worth_a_write());
        assert!(lifetime.renew(&mut short, at(30)).is_worth_a_write());
        let idle = Lifetime::new().idle_limit(Duration::from_secs(600));
        let mut session = timing(&idle, Expiry::Default, at(0));
        assert!(!idle.renew(&mut session, at(59)).is_worth_a_write());
        assert!(idle.renew(&mut session, at(60)).is_worth_a_write());
    }

    #[test]
    fn a_step_of_zero_renews_always_but_not_twice_in_one_instant() {
        let lifetime = Lifetime::new().renewal_step_percent(0);
        let mut session = timing(&lifetime, Expiry::Default, at(0));
        assert!(!lifetime.renew(&mut session, at(0)).is_worth_a_write());
        assert!(lifetime.renew(&mut session, at(1)).is_worth_a_write());
    }

    /// A browser that comes every `gap` for 60 times, or until the server says that the session is over: it has the
    /// cookie each time until the last step, though it drops it after 400 days at the latest. Returns how often the
    /// cookie was sent.
    #[track_caller]
    fn check_kept(lifetime: &Lifetime, expiry: Expiry, gap: Duration) -> u32 {
        let keeps = |timing: &Timing, now| {
            let max_age = timing.deadline.duration_since(now).unwrap().min(DAY * 400);
            now + max_age
        };
        let mut now = at(1_700_000_000);
        let mut session = timing(lifetime, expiry, now);
        let mut kept_until = keeps(&session, now);
        let mut sent = 0;
        for visit in 0..60 {
            now += gap;
            if is_over(lifetime, &session, now) {
                break;
            }
            // The session may end one renewal step early, as always.
            let last_step = session.deadline - lifetime.step(expiry) < kept_until;
            assert!(
                now < kept_until || last_step,
                "visit {visit} of one each {gap:?}: {lifetime:?}, {expiry:?}"
            );
            if lifetime.renew(&mut session, now).is_worth_a_write() {
                kept_until = keeps(&session, now);
                sent += 1;
            }
        }
        sent
    }

    #[test]
    #[cfg_attr(miri, ignore = "years of visits are too many steps for Miri, and all of them are safe code")]
    fn an_active_visitor_never_loses_the_cookie_to_400_days() {
        for days in [400, 1, 30, 300, 4_000, 399, 401, 500, 4_015, 36_500, 365_000] {
            let age = DAY * days;
            for percent in [10, 0, 1, 50] {
                for gap in [370, 7, 29, 30, 31, 100, 200, 369, 1].map(|days| DAY * days) {
                    let policy = Lifetime::new().age(age).renewal_step_percent(percent);
                    check_kept(&policy, Expiry::Default, gap);
                    check_kept(&policy, Expiry::At(at(1_700_000_000) + age), gap);
                    check_kept(&policy.clone().absolute_limit(age), Expiry::Default, gap);
                    check_kept(&policy.clone().idle_limit(age), Expiry::Default, gap);
                    check_kept(&Lifetime::new().renewal_step_percent(percent), Expiry::After(age), gap);
                }
            }
        }
        // The cookie is not sent more often than needed: in 420 days of weekly visits, once each 35 days, whatever the
        // deadline does.
        let decades = Lifetime::new().age(DAY * 10_000);
        assert_eq!(check_kept(&decades, Expiry::Default, DAY * 7), 12);
        assert_eq!(check_kept(&decades.absolute_limit(DAY * 10_000), Expiry::Default, DAY * 7), 12);
    }

    #[test]
    fn the_step_is_at_most_30_days() {
        let lifetime = Lifetime::new().age(DAY * 5_000).renewal_step_percent(50);
        let mut session = timing(&lifetime, Expiry::Default, at(0));
        assert!(!lifetime.renew(&mut session, at(30 * 86_400 - 1)).is_worth_a_write());
        assert!(lifetime.renew(&mut session, at(30 * 86_400)).is_worth_a_write());
    }

    #[test]
    fn the_absolute_limit_and_a_fixed_instant_are_never_extended() {
        let lifetime = Lifetime::new().absolute_limit(DAY).renewal_step_percent(0);
        let mut session = timing(&lifetime, Expiry::Default, at(0));
        assert!(!lifetime.renew(&mut session, at(80_000)).is_worth_a_write());
        assert_eq!(session.deadline, at(86_400));
        let mut fixed = timing(&lifetime, Expiry::At(at(500)), at(0));
        assert!(!lifetime.renew(&mut fixed, at(400)).is_worth_a_write());
    }

    #[test]
    fn a_stricter_policy_ends_sessions_stored_under_a_laxer_one() {
        let session = timing(&Lifetime::new(), Expiry::Default, at(0));
        assert!(!is_over(&Lifetime::new(), &session, at(4000)));
        assert!(is_over(&Lifetime::new().idle_limit(Duration::from_secs(3600)), &session, at(4000)));
        assert!(is_over(&Lifetime::new().age(Duration::from_secs(3600)), &session, at(4000)));
    }

    #[test]
    fn a_session_of_a_laxer_policy_is_renewed_under_the_stricter_one() {
        let mut session = timing(&Lifetime::new(), Expiry::Default, at(0));
        let strict = Lifetime::new().idle_limit(Duration::from_secs(1800));
        assert_eq!(strict.current_deadline(&session), at(1800));
        assert!(strict.renew(&mut session, at(600)).is_worth_a_write());
        assert_eq!((session.touched, session.deadline), (at(600), at(2400)));
    }

    #[test]
    fn times_in_the_future_make_no_session_immortal() {
        let session = timing(&Lifetime::new(), Expiry::Default, at(10_000));
        assert!(!is_over(&Lifetime::new(), &session, at(10_000 - 300)));
        assert!(is_over(&Lifetime::new(), &session, at(10_000 - 301)));
    }

    #[test]
    fn a_board_without_a_clock_may_tolerate_any_future() {
        let session = timing(&Lifetime::new(), Expiry::Default, at(1_700_000_000));
        let board = Lifetime::new().future_tolerance(Duration::MAX);
        for now in [0, 1, 1_000_000_000, 1_699_999_999, 1_700_000_000] {
            assert!(!is_over(&board, &session, at(now)), "{now}");
        }
        assert!(is_over(&board, &session, session.deadline), "it ends as all do");
        assert!(is_over(&Lifetime::new().future_tolerance(DAY), &session, at(0)));
    }

    #[test]
    fn a_change_of_browser_close_is_one_renewal_with_a_cookie() {
        let [off, on] = [false, true].map(|yes| Lifetime::new().expire_at_browser_close(yes));
        let mut session = timing(&off, Expiry::Default, at(0));
        for (policy, want) in [
            (&off, Renewed::No),
            (&on, Renewed::WithCookie),
            (&on, Renewed::No),
            (&off, Renewed::WithCookie),
            (&off, Renewed::No),
        ] {
            assert_eq!(policy.renew(&mut session, at(1)), want, "{policy:?}");
        }
        // The setting of the session itself takes precedence over the program's option.
        for expiry in [Expiry::BrowserClose, Expiry::After(DAY), Expiry::At(at(9))] {
            let mut session = timing(&off, expiry, at(0));
            assert_eq!(on.renew(&mut session, at(1)), Renewed::No, "{expiry:?}");
        }
    }

    #[test]
    fn a_session_is_over_at_its_deadline_and_not_before() {
        let session = timing(&Lifetime::new(), Expiry::Default, at(0));
        let deadline = at(1_209_600);
        assert_eq!(session.deadline, deadline);
        assert!(!is_over(&Lifetime::new(), &session, deadline - Duration::from_micros(1)));
        assert!(is_over(&Lifetime::new(), &session, deadline));
        // A recent login and a recent activity: either may be in the future.
        for (created, touched) in [(at(10_000), at(0)), (at(0), at(10_000))] {
            let session = Timing { created, touched, ..session };
            assert!(is_over(&Lifetime::new(), &session, at(10_000 - 301)));
            assert!(!is_over(&Lifetime::new(), &session, at(10_000 - 300)));
        }
    }

    #[test]
    fn the_policy_says_which_requests_renew() {
        let idle = Lifetime::new().idle_limit(DAY);
        // The answers for a request that neither reads nor saves, that reads, that saves, and that does both.
        for (lifetime, want) in [
            (Lifetime::new(), [false, false, true, true]),
            (idle.clone(), [false, true, true, true]),
            (Lifetime::new().renewal(Renewal::OnRead), [false, true, true, true]),
            (idle.renewal(Renewal::EveryRequest), [true; 4]),
            (Lifetime::new().renewal(Renewal::EveryRequest), [true; 4]),
        ] {
            let renews = [(false, false), (false, true), (true, false), (true, true)]
                .map(|(saved, read)| lifetime.renews(saved, read));
            assert_eq!(renews, want, "{lifetime:?}");
        }
    }

    #[test]
    fn the_setting_or_the_program_ends_a_cookie_with_the_browser() {
        for (program, own) in [(false, [false, false, false, true]), (true, [true, false, false, true])] {
            let lifetime = Lifetime::new().expire_at_browser_close(program);
            let settings = [Expiry::Default, Expiry::After(DAY), Expiry::At(at(1)), Expiry::BrowserClose];
            assert_eq!(settings.map(|setting| lifetime.is_browser_bound(setting)), own, "{program}");
        }
    }

    #[test]
    fn options_are_allowed_up_to_their_bounds() {
        let (second, moment) = (Duration::from_secs(1), Duration::from_nanos(1));
        let new = Lifetime::new;
        for set in [Lifetime::age, Lifetime::idle_limit, Lifetime::absolute_limit] {
            for span in [second, Duration::from_secs(31_536_000_000)] {
                assert!(set(new(), span).check().is_ok());
            }
            for span in [second.saturating_sub(moment), THOUSAND_YEARS + moment] {
                assert!(set(new(), span).check().is_err());
            }
        }
        let minute = Duration::from_secs(60);
        for (tolerance, allowed) in [
            (minute.saturating_sub(moment), false),
            (minute, true),
            (DAY + moment, true),
            (Duration::MAX, true),
        ] {
            assert_eq!(new().future_tolerance(tolerance).check().is_ok(), allowed, "{tolerance:?}");
        }
        for (grace, allowed) in [
            (Duration::ZERO, true),
            (minute * 10, true),
            (minute * 10 + moment, false),
            (Duration::MAX, false),
        ] {
            assert_eq!(new().grace(grace).check().is_ok(), allowed, "{grace:?}");
        }
        assert_eq!(new().grace_period(), minute);
        assert!(new().renewal_step_percent(50).check().is_ok());
        let mut session = timing(&new(), Expiry::After(DAY), at(0));
        assert!(!new().renewal_step_percent(50).renew(&mut session, at(43_199)).is_worth_a_write());
        assert!(new().renewal_step_percent(50).renew(&mut session, at(43_200)).is_worth_a_write());
    }

    #[test]
    fn options_out_of_bounds_are_refused_by_name() {
        let check = |lifetime: Lifetime| lifetime.check().unwrap_err().to_string();
        assert!(check(Lifetime::new().age(Duration::ZERO)).contains("the age must be"));
        assert!(check(Lifetime::new().idle_limit(Duration::MAX)).contains("the idle limit must be"));
        assert!(check(Lifetime::new().absolute_limit(Duration::ZERO)).contains("the absolute limit must be"));
        assert!(check(Lifetime::new().renewal_step_percent(51)).contains("step"));
        assert!(check(Lifetime::new().future_tolerance(Duration::ZERO)).contains("tolerance"));
        assert!(
            check(Lifetime::new().grace(Duration::MAX))
                .contains("the grace period must be at most 10 minutes")
        );
        assert!(Lifetime::new().check().is_ok());
    }
}
