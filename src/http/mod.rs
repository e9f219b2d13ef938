//! The web layer. It takes the values of `Cookie` headers, returns pairs of headers, and does not depend on any server.
//! The modules `tiny_http` and `rouille`, features of the same names, are adapters of 30 to 55 lines of code over one
//! core, [`serve`].
//!
//! # Another server
//!
//! An adapter for a third server takes about 40 lines. It implements [`ServerResponse`] for a wrapper of the server's
//! response, implements [`IntoResponse`] for the types that handlers return, and calls [`serve`]. (Rust's orphan rule
//! requires the wrapper: the program defines neither the trait nor the response.)
//!
//! ```
//! use sessile::http::{self, IntoResponse, ServerResponse};
//! use sessile::{Cookies, FileStore, Session, Sessions};
//! # mod server {
//! #     pub struct Request { pub headers: Vec<(String, String)> }
//! #     pub struct Response { pub status: u16, pub headers: Vec<(String, String)>, pub body: String }
//! # }
//!
//! /// The response of the server, which has public fields `status`, `headers` (pairs of strings) and `body`.
//! struct Reply(server::Response);
//!
//! impl ServerResponse for Reply {
//!     fn status(&self) -> u16 {
//!         self.0.status
//!     }
//!     fn plain_text(status: u16, text: &'static str) -> Self {
//!         let headers = vec![("Content-Type".into(), "text/plain; charset=utf-8".into())];
//!         Self(server::Response { status, headers, body: text.into() })
//!     }
//! }
//!
//! impl IntoResponse<Reply> for server::Response {
//!     fn into_response(self) -> Reply {
//!         Reply(self)
//!     }
//! }
//!
//! fn serve<T: IntoResponse<Reply>>(
//!     sessions: &Sessions,
//!     request: &server::Request,
//!     handler: impl FnOnce(&server::Request, &mut Session) -> T,
//! ) -> server::Response {
//!     // Every `Cookie` line of the request.
//!     let cookies = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Cookie"));
//!     let cookies = cookies.map(|(_, value)| value.as_str());
//!     let (Reply(mut response), headers) = http::serve(sessions, cookies, |session| handler(request, session));
//!     headers.apply_to(&mut response.headers);
//!     response
//! }
//!
//! # let dir = tempfile::tempdir()?;
//! let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
//! let request = server::Request { headers: vec![("cookie".into(), "theme=dark".into())] };
//! let response = serve(&sessions, &request, |_request, session| -> sessile::Result<_> {
//!     let visits = session.update_now("visits", |n: &mut u64| { *n += 1; *n })?;
//!     Ok(server::Response { status: 200, headers: Vec::new(), body: format!("visits: {visits}\n") })
//! });
//! assert_eq!((response.status, &*response.body), (200, "visits: 1\n"));
//! assert!(response.headers[1].1.starts_with("session="));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A program that cannot pass its handler to [`serve`] as one function calls `visit` and `finish` itself:
//!
//! ```
//! use sessile::{Cookies, FileStore, Sessions};
//! # let dir = tempfile::tempdir()?;
//! let store = FileStore::open(dir.path())?;
//! let sessions = Sessions::new(store, Cookies::plain_http())?;
//!
//! // For each request: its Cookie header values in …
//! let mut visit = sessions.visit(["theme=dark; lang=en"]);
//! visit.insert("cart", ["apple"])?;
//! // … and, when the response's status is known, headers for it. `Headers::apply_to` adds them to the response's own.
//! let headers = visit.finish(200)?;
//! assert_eq!(headers[0], ("Vary", "Cookie".into()));
//! assert!(headers[1].1.starts_with("session="));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
mod cookie;
mod handler;
mod headers;
mod into_response;
#[cfg(feature = "rouille")]
pub mod rouille;
#[cfg(feature = "tiny_http")]
pub mod tiny_http;
mod user_sessions;
mod visit;

pub use cookie::{Cookies, SameSite};
pub use handler::serve;
pub use headers::Headers;
pub use into_response::{IntoResponse, ServerResponse};
pub use visit::{SaveError, Visit};

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, User};
use crate::id::Token;
use crate::lifetime::Lifetime;
use crate::reaper::{Reaper, ReaperOptions};
use crate::session::{Context, Session};
use crate::store::Store;
use crate::store_url::StoreUrl;
use cookie::Jar;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The values of a request's `Cookie` header lines: one `&str`, an `Option` of one, or any iterator over them.
///
/// The compiler infers `Form`; it only distinguishes the two implementations.
pub trait CookieHeaders<'h, Form> {
    /// The values, in the order of their lines.
    fn values(self) -> impl Iterator<Item = &'h str>;
}

/// The `Form` of [`CookieHeaders`] for a single header line.
#[derive(Debug)]
pub enum OneLine {}

/// The `Form` of [`CookieHeaders`] for any number of header lines.
#[derive(Debug)]
pub enum ManyLines {}

impl<'h> CookieHeaders<'h, OneLine> for &'h str {
    fn values(self) -> impl Iterator<Item = &'h str> {
        std::iter::once(self)
    }
}

impl<'h, I: IntoIterator<Item = &'h str>> CookieHeaders<'h, ManyLines> for I {
    fn values(self) -> impl Iterator<Item = &'h str> {
        self.into_iter()
    }
}

/// The sessions of a web program: a store, a cookie, a lifetime. Cheap to clone, and shared between threads.
///
/// Code outside of requests (a job, a message from a queue, a command) uses the [`store`](Self::store), and opens a
/// session by its token with [`session`](Self::session).
#[derive(Clone)]
pub struct Sessions {
    context: Arc<Context>,
    jar: Arc<Jar>,
    /// The reaper that [`open`](Self::open) has started; the last clone stops it.
    _reaper: Option<Arc<Reaper>>,
}

impl Sessions {
    /// Opens the store at a path or [URL](crate::store_url), and starts a [`Reaper`] that removes expired sessions. The
    /// reaper ends with the last clone of the result; failures of sweeps are lines on standard error.
    ///
    /// Everything that it does can be done step by step, with options: [`StoreUrl`] or [`FileStore`](crate::FileStore)
    /// opens the store, [`Reaper::start`] starts a reaper, [`new`](Self::new) makes the sessions.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), [`StoreUrl::parse`], [`StoreUrl::open`] and [`Reaper::start`], in this order.
    ///
    /// ```no_run
    /// use sessile::{Cookies, Sessions};
    /// let sessions = Sessions::open("sessions", Cookies::plain_http())?; // made with mode 0700 at the first start
    /// # Ok::<(), sessile::Error>(())
    /// ```
    pub fn open(store: impl AsRef<Path>, cookies: Cookies) -> Result<Self> {
        // The cookies are checked first, so that wrong ones leave no directory behind.
        let jar = Jar::new(cookies)?;
        let observer = Observer::later();
        let store = StoreUrl::parse(store)?.open_observed(observer.clone())?;
        let reaper = Reaper::start(&store, ReaperOptions::new())?;
        let mut sessions =
            Self { _reaper: Some(Arc::new(reaper)), ..Self::of(store, jar, Lifetime::default())? };
        Arc::make_mut(&mut sessions.context).observer = observer;
        Ok(sessions)
    }

    /// Sessions in `store`, carried by `cookies`, with the default [`Lifetime`].
    ///
    /// Takes a store, or an `Arc` of one that is used elsewhere too (by a reaper, say).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for cookie attributes that are malformed or contradict each other, and if the store does
    /// not [accept](crate::Store::accepts) the lifetime or the cookie's name.
    ///
    /// ```
    /// use sessile::{Cookies, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::https())?;
    /// # let _ = sessions;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(store: impl Store + 'static, cookies: Cookies) -> Result<Self> {
        Self::of(Arc::new(store), Jar::new(cookies)?, Lifetime::default())
    }

    /// The same as [`new`](Self::new), with another lifetime, for a store that does not
    /// [accept](crate::Store::accepts) the default one.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new) and [`with_lifetime`](Self::with_lifetime).
    ///
    /// ```
    /// use sessile::{Cookies, FileStore, Lifetime, Sessions};
    /// use std::time::Duration;
    /// # let dir = tempfile::tempdir()?;
    /// let day = Lifetime::new().age(Duration::from_secs(24 * 3600));
    /// let sessions = Sessions::lasting(day, FileStore::open(dir.path())?, Cookies::https())?;
    /// # let _ = sessions;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lasting(lifetime: Lifetime, store: impl Store + 'static, cookies: Cookies) -> Result<Self> {
        lifetime.check()?;
        Self::of(Arc::new(store), Jar::new(cookies)?, lifetime)
    }

    fn of(store: Arc<dyn Store>, jar: Jar, lifetime: Lifetime) -> Result<Self> {
        store.accepts(&lifetime, jar.name())?;
        let context = Context { store, lifetime, observer: Observer::default() };
        Ok(Self { context: Arc::new(context), jar: Arc::new(jar), _reaper: None })
    }

    /// Sets how long sessions live.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] names the option that is out of its bounds, or says why the store does not
    /// [accept](crate::Store::accepts) the lifetime.
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Sessions};
    /// use sessile::Lifetime;
    /// use std::time::Duration;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = FileStore::open(dir.path())?;
    /// let month = Lifetime::new().age(Duration::from_secs(30 * 24 * 3600));
    /// let sessions = Sessions::new(store, Cookies::https())?.with_lifetime(month)?;
    /// # let _ = sessions;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_lifetime(mut self, lifetime: Lifetime) -> Result<Self> {
        lifetime.check()?;
        self.context.store.accepts(&lifetime, self.jar.name())?;
        Arc::make_mut(&mut self.context).lifetime = lifetime;
        Ok(self)
    }

    /// Calls `observer` for each event of a session, for logs, counters and alarms. It runs on the request's thread, so
    /// it must be short. A panic in it is contained. Without an observer, each failure is one line on standard error.
    ///
    /// Ends that no request asks for, by a sweep say, go to the observer of the store; [`event`](crate::event) has the
    /// list. Only a store that [`open`](Self::open) has opened has this one: the first that one of the clones gets.
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Sessions};
    /// use sessile::Event;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = FileStore::open(dir.path())?;
    /// let sessions = Sessions::new(store, Cookies::https())?.with_observer(|event| match event {
    ///     Event::Failed(error) => eprintln!("a request failed: {error}"),
    ///     Event::Created { id, .. } => println!("new session {id}"), // an id for logs, no secret
    ///     _ => {}
    /// });
    /// # let _ = sessions;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_observer(mut self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        let observer = Observer::new(observer);
        self.context.observer.set(&observer);
        Arc::make_mut(&mut self.context).observer = observer;
        self
    }

    /// The session of a request, from the values of *all* its `Cookie` header lines. Cannot fail and does no I/O: a
    /// request that never uses its session costs only this parsing.
    ///
    /// Takes one header value, an `Option` of one, or any number of them:
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// let visit = sessions.visit("theme=dark; lang=en");
    /// # visit.finish(200)?;
    /// let header: Option<&str> = None; // no Cookie header
    /// let visit = sessions.visit(header);
    /// # visit.finish(200)?;
    /// let visit = sessions.visit(["theme=dark", "lang=en"]); // two Cookie lines
    /// # visit.finish(200)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn visit<'h, Form>(&self, cookie_headers: impl CookieHeaders<'h, Form>) -> Visit {
        let mut visit = Visit::new(self);
        for header in cookie_headers.values() {
            if !self.jar.tokens(header).all(|token| visit.present(token)) {
                break;
            }
        }
        visit
    }

    /// The session of the first live token among `tokens`, or a new session. For code outside of requests, and for
    /// programs that do not carry the token in a cookie. Does no I/O. No response follows, so the program must call
    /// [`save`](Session::save); dropping the session saves nothing, and causes no event.
    ///
    /// The first 64 tokens are read; those that cannot be this store's are dropped. Of the others the first 32 are
    /// kept: four are looked up when the session is first used, and [`Session::destroy`] ends all of them.
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// # let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// let mut session = sessions.session([]); // a new one
    /// session.insert("report", "is being written")?;
    /// session.save()?;
    /// let token = session.token()?; // a secret: keep it where the job can find it
    ///
    /// let mut session = sessions.session(token);
    /// session.insert("report", "is ready")?;
    /// session.save()?;
    /// # assert_eq!(session.get::<String>("report")?.as_deref(), Some("is ready"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn session(&self, tokens: impl IntoIterator<Item = Token>) -> Session {
        let mut session = Session::new(Arc::clone(&self.context));
        tokens.into_iter().all(|token| session.present(Some(token)));
        session
    }

    /// The store.
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// # let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// assert!(sessions.store().guarantees().atomic_update);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.context.store
    }

    /// Ends every session of a user at once, on all devices and in every process: "log out everywhere", after a change
    /// of the password, say. The session of `except`, which is usually that of the request, stays. Sessions whose login
    /// had returned before this was called are ended, also those that a backup brings back later; a login that begins
    /// afterwards is not affected.
    ///
    /// It costs one synced write, whatever the number of sessions. It is one event,
    /// [`Event::CutOff`]; each session is [`Event::Ended`] when a sweep removes its record.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Gone`] if `except` is not a stored, live session of the user (a login that is not saved yet does
    /// not count), or if another request has just given it a new id: nothing was ended. Otherwise those of
    /// [`Store::delete_of`].
    ///
    /// ```
    /// use sessile::{Cookies, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// let (mut phone, mut laptop) = (sessions.visit([]), sessions.visit([]));
    /// for session in [&mut phone, &mut laptop] {
    ///     session.login("ada")?;
    ///     session.save()?;
    /// }
    /// // On the laptop, ada changes her password.
    /// sessions.delete_of("ada", Some(&laptop))?;
    /// let user = |token| sessions.session(token).user();
    /// assert_eq!(user(phone.token()?)?, None);
    /// assert_eq!(user(laptop.token()?)?.as_deref(), Some("ada"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "log_out_everywhere")]
    pub fn delete_of(&self, user: &str, except: Option<&Session>) -> Result<()> {
        let token = match except {
            None => None,
            Some(session) => Some(session.token()?.ok_or_else(|| {
                Error::new(ErrorKind::Gone, "end the sessions of a user")
                    .with_reason("the excepted session is not stored; none was ended")
            })?),
        };
        self.context.store.delete_of(user, token.as_ref())?;
        let except = except.map(Session::public_id).transpose()?.flatten();
        self.observe(&Event::CutOff { user: Some(User::new(user)), except });
        Ok(())
    }

    /// Ends every session at once, also those without a user, in every process; sessions that begin afterwards are not
    /// affected.
    ///
    /// # Errors
    ///
    /// Those of [`Store::delete_all`].
    ///
    /// ```
    /// use sessile::{Cookies, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// let mut visit = sessions.visit([]);
    /// visit.insert("theme", "dark")?;
    /// visit.save()?;
    /// let token = visit.token()?;
    /// sessions.delete_all()?;
    /// assert_eq!(sessions.session(token).get::<String>("theme")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete_all(&self) -> Result<()> {
        self.context.store.delete_all()?;
        self.observe(&Event::CutOff { user: None, except: None });
        Ok(())
    }

    /// How long sessions live.
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Lifetime, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// # let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// assert_eq!(*sessions.lifetime(), Lifetime::default());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn lifetime(&self) -> &Lifetime {
        &self.context.lifetime
    }

    fn observe(&self, event: &Event<'_>) {
        self.context.observe(event);
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("lifetime", &self.context.lifetime)
            .field("cookies", &self.jar)
            .finish_non_exhaustive()
    }
}
