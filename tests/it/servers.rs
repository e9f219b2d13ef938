//! Operations of a handler on its session in a real server, and the visitor's response. The servers are `tiny_http`
//! with several workers, and rouille, on the loopback interface. The promises: the session is saved before the response
//! is sent. If a handler fails, only its operations that change the store at once have an effect. No panic ends a
//! worker. If the save fails, the response has a status that says so.
use crate::support::client::{Browser, Client, PATIENCE, Response};
use crate::support::probe::{Call, Probe};
use crate::support::server::{self, Reply, Running};
use sessile::http::tiny_http::AnyResponse;
use sessile::http::{self, IntoResponse};
use sessile::{
    Cookies, Durability, Error, ErrorKind, Event, FileStore, FileStoreOptions, Lookup, Session, Sessions,
    Store, Token, Verdict,
};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// The number of workers. The tests send more requests at a time, so if a worker died, or waited for another one, not
/// all would be answered.
const WORKERS: usize = 3;

/// The `Sessions` of a program, with its store and the failures that were reported.
struct Site {
    dir: TempDir,
    store: Arc<Probe<FileStore>>,
    sessions: Sessions,
    /// The kinds of the errors that the observer received.
    failures: Arc<Mutex<Vec<ErrorKind>>>,
}

impl Site {
    fn new(options: FileStoreOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Probe::new(options.record_bytes_max(4096).open(dir.path()).unwrap());
        let failures = Arc::new(Mutex::new(Vec::new()));
        let told = failures.clone();
        let sessions =
            Sessions::new(store.clone(), Cookies::plain_http()).unwrap().with_observer(move |event| {
                if let Event::Failed(error) = event {
                    told.lock().unwrap().push(error.kind());
                }
            });
        Self { dir, store, sessions, failures }
    }

    /// A browser with the cookie of a live session, whose entry `n` is 0.
    fn visitor(&self, server: &Running) -> (Browser, Token) {
        let mut session = self.sessions.session([]);
        session.insert("n", 0).unwrap();
        session.save().unwrap();
        let token = session.token().unwrap().unwrap();
        let mut browser = Browser::new(server.address);
        browser.jar.put("session", token.expose());
        (browser, token)
    }

    /// The stored value of the entry `n`; `None` if the session is not stored.
    fn n(&self, token: &Token) -> Option<u64> {
        match self.store.inner.load(token).unwrap() {
            Lookup::Live(live) => live.record.entries().get("n").unwrap().get().unwrap(),
            Lookup::Absent(_) => None,
        }
    }

    fn failures(&self) -> Vec<ErrorKind> {
        std::mem::take(&mut *self.failures.lock().unwrap())
    }
}

/// A response, for either server.
struct Page {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    text: String,
}

fn page(text: impl Into<String>) -> Page {
    Page { status: 200, headers: Vec::new(), text: text.into() }
}

impl IntoResponse<AnyResponse> for Page {
    fn into_response(self) -> AnyResponse {
        let mut response = tiny_http::Response::from_string(self.text).with_status_code(self.status);
        for (name, value) in self.headers {
            response.add_header(tiny_http::Header::from_bytes(name, value).unwrap());
        }
        response.boxed()
    }
}

impl IntoResponse<rouille::Response> for Page {
    fn into_response(self) -> rouille::Response {
        let mut response = rouille::Response::text(self.text).with_status_code(self.status);
        response.headers.extend(self.headers.into_iter().map(|(name, value)| (name.into(), value.into())));
        response
    }
}

/// The program's own error type.
#[derive(Debug)]
enum Oops {
    Mine(u16),
    Session(Error),
}

impl From<Error> for Oops {
    fn from(error: Error) -> Self {
        Self::Session(error)
    }
}

impl<R> IntoResponse<R> for Oops
where
    Page: IntoResponse<R>,
    Error: IntoResponse<R>,
{
    fn is_error(&self) -> bool {
        true
    }
    fn session_error(&self) -> Option<&Error> {
        match self {
            Self::Mine(_) => None,
            Self::Session(error) => Some(error),
        }
    }
    fn into_response(self) -> R {
        match self {
            Self::Mine(status) => Page { status, ..page("oops") }.into_response(),
            Self::Session(error) => error.into_response(),
        }
    }
}

/// Panics without printing a message.
fn panic_quietly() {
    resume_unwind(Box::new("on purpose"));
}

/// Pages that set a `Cache-Control` header themselves.
fn cached(path: &str, session: &Session) -> Result<Page, Oops> {
    if path == "/unused-public" {
        return Ok(Page { headers: [("Cache-Control", "public")].into(), ..page("") });
    }
    let text = session.get::<u64>("n")?.unwrap_or_default().to_string();
    let headers = match path {
        "/read-no-store" => vec![("Cache-Control", "no-store")],
        _ => vec![("Cache-Control", "public"), ("X-Theirs", "1"), ("cache-control", "max-age=60")],
    };
    Ok(Page { status: 203, headers, ..page(text) })
}

/// The program of every test in this file. The path of a request names the operation on the session.
fn program(site: &Site) -> impl Fn(&str, &mut Session) -> Result<Page, Oops> + Send + Sync + 'static {
    let store = site.store.clone();
    move |path, session| match path {
        "/read" => Ok(page(session.get::<u64>("n")?.unwrap_or_default().to_string())),
        "/insert" => {
            session.insert("n", 1)?;
            Ok(page("inserted"))
        }
        "/insert-too-much" => {
            // Each value alone is within the limit, so the save fails, and not the insertion.
            session.insert("blob", "x".repeat(2500))?;
            session.insert("glob", "x".repeat(2500))?;
            Ok(page("inserted"))
        }
        "/count" => {
            let count = session.update_now("n", |n: &mut u64| {
                *n += 1;
                *n
            })?;
            Ok(page(count.to_string()))
        }
        "/count-at-the-end" => {
            session.update("n", |n: &mut u64| *n += 1)?;
            Ok(page("counted"))
        }
        "/login" => {
            session.login("ada")?;
            Ok(page("welcome"))
        }
        "/logout" => {
            session.destroy()?;
            Ok(page("bye"))
        }
        "/headers" => {
            session.destroy()?;
            let theirs = [("Vary", "Accept"), ("Set-Cookie", "theme=dark"), ("Cache-Control", "max-age=60")];
            Ok(Page { headers: theirs.into(), ..page("headers") })
        }
        "/read-public" | "/read-no-store" | "/unused-public" => cached(path, session),
        "/insert-500" => {
            session.insert("n", 1)?;
            Ok(Page { status: 500, ..page("failed") })
        }
        "/insert-error-418" => {
            session.insert("n", 1)?;
            Err(Oops::Mine(418))
        }
        "/insert-error-200" => {
            session.insert("n", 1)?;
            Err(Oops::Mine(200))
        }
        "/insert-type" => {
            session.insert("m", "text")?;
            session.get::<u64>("m")?;
            Ok(page("never"))
        }
        "/insert-panic" => {
            session.insert("n", 1)?;
            panic_quietly();
            Ok(page("never"))
        }
        "/count-panic" => {
            session.update_now("n", |n: &mut u64| *n += 1)?;
            panic_quietly();
            Ok(page("never"))
        }
        "/logout-panic" => {
            session.destroy()?;
            panic_quietly();
            Ok(page("never"))
        }
        "/update-panic" => {
            // The function runs first for the handler's preview, and then at the save.
            let first = Arc::new(AtomicBool::new(true));
            session.update("n", move |n: &mut u64| {
                *n = 7;
                if !first.swap(false, Ordering::SeqCst) {
                    panic_quietly();
                }
            })?;
            Ok(page("never"))
        }
        "/update-now-panic" => {
            session.update_now("n", |n: &mut u64| {
                *n = 7;
                panic_quietly();
            })?;
            Ok(page("never"))
        }
        "/insert-gone" | "/count-gone" => {
            // Another request logs out while this one runs.
            store.inner.delete(&session.token()?.expect("a live session"))?;
            if path == "/count-gone" {
                session.update_now("n", |n: &mut u64| *n += 1)?;
            }
            session.insert("n", 1)?;
            Ok(page("never"))
        }
        _ => Err(Oops::Mine(404)),
    }
}

/// Runs a test with both servers, each with a store of its own.
fn on_both(test: impl Fn(&Site, &Running)) {
    on_both_with(&FileStoreOptions::new(), test);
}

fn on_both_with(options: &FileStoreOptions, test: impl Fn(&Site, &Running)) {
    let site = Site::new(options.clone());
    let handler = program(&site);
    println!("tiny_http:");
    test(
        &site,
        &server::tiny_http(&site.sessions, WORKERS, move |request, session| handler(request.url(), session)),
    );
    let site = Site::new(options.clone());
    let handler = program(&site);
    println!("rouille:");
    test(
        &site,
        &server::rouille(&site.sessions, WORKERS, move |request, session| handler(&request.url(), session)),
    );
}

const BROKEN: &str = "The server could not handle your session.\n";

/// Requests a page that fails, and compares the response: its status, its text, and the headers about the session.
#[track_caller]
fn check_failure(response: &Response, status: u16, text: &str, headers: &[(&str, &str)]) {
    assert_eq!((response.status, response.text()), (status, text));
    let ours = ["Vary", "Set-Cookie", "Cache-Control"];
    let got = ours.iter().flat_map(|name| response.all(name).into_iter().map(|value| (*name, value)));
    assert_eq!(got.collect::<Vec<_>>(), headers);
}

const VARY: (&str, &str) = ("Vary", "Cookie");
const PRIVATE: (&str, &str) = ("Cache-Control", "private");
const NO_STORE: (&str, &str) = ("Cache-Control", "no-store");
const REMOVAL: (&str, &str) = (
    "Set-Cookie",
    "session=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
);

#[test]
fn the_session_is_saved_before_the_response_is_sent() {
    on_both(|site, server| {
        let (browser, token) = site.visitor(server);
        let (open, gate) = channel();
        let gate = Mutex::new(gate);
        site.store.before(move |call| {
            if call == Call::Update {
                gate.lock().unwrap().recv_timeout(PATIENCE).expect("the gate opens");
            }
            Ok(())
        });
        let mut client = Client::connect(server.address);
        let cookie = browser.jar.header().unwrap();
        client.send(format!("GET /insert HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\n\r\n")).unwrap();
        assert!(!client.hears_within(Duration::from_millis(300)), "a response before the save");
        open.send(()).unwrap();
        assert_eq!(client.receive().unwrap().text(), "inserted");
        assert_eq!(site.n(&token), Some(1));
    });
}

#[test]
fn twenty_pipelined_requests_on_one_session_all_count() {
    on_both(|site, server| {
        let (browser, token) = site.visitor(server);
        let cookie = browser.jar.header().unwrap();
        let pipeline = |path: fn(usize) -> &'static str| -> Vec<String> {
            let request = |n| format!("GET {} HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\n\r\n", path(n));
            let mut client = Client::connect(server.address);
            client.send((0..20).map(request).collect::<String>()).unwrap();
            (0..20).map(|_| client.receive().unwrap().text().to_owned()).collect()
        };
        let mut counts: Vec<u64> = pipeline(|_| "/count").iter().map(|text| text.parse().unwrap()).collect();
        counts.sort_unstable();
        assert_eq!(counts, (1..=20).collect::<Vec<_>>(), "each saw a number of its own");
        pipeline(|n| if n % 2 == 0 { "/count" } else { "/count-at-the-end" });
        assert_eq!(site.n(&token), Some(40));
        // The same while requests compete with one that ends the session.
        pipeline(|n| if n == 10 { "/logout" } else { "/count" });
        assert_eq!(site.n(&token), None);
    });
}

#[test]
fn a_panicking_handler_is_a_500_and_costs_no_worker() {
    on_both(|site, server| {
        let (mut browser, token) = site.visitor(server);
        for path in ["/insert-panic", "/update-panic", "/update-now-panic"] {
            for _ in 0..=WORKERS {
                check_failure(&browser.get(path), 500, BROKEN, &[VARY, NO_STORE]);
                assert_eq!(site.failures(), [ErrorKind::Panicked], "{path}");
            }
            assert_eq!(browser.get("/read").text(), "0", "{path} left something");
        }
        // The panic has left no lock: other requests save the session at once.
        assert_eq!(browser.get("/count").text(), "1");
        assert_eq!(site.n(&token), Some(1));
        // A new visitor gets no session from a failed request.
        let mut nobody = Browser::new(server.address);
        check_failure(&nobody.get("/insert-panic"), 500, BROKEN, &[VARY, NO_STORE]);
        assert_eq!(nobody.jar.header(), None);
    });
}

#[test]
fn operations_at_once_stay_done_when_the_handler_panics() {
    on_both(|site, server| {
        let (mut browser, token) = site.visitor(server);
        check_failure(&browser.get("/count-panic"), 500, BROKEN, &[VARY, NO_STORE]);
        assert_eq!(site.n(&token), Some(1));
        check_failure(&browser.get("/logout-panic"), 500, BROKEN, &[VARY, REMOVAL, NO_STORE]);
        assert_eq!(site.n(&token), None);
        assert_eq!(browser.jar.header(), None, "the browser forgot it");
        // The handler has created a session before it panicked. Its cookie must arrive.
        check_cookie(&browser.get("/count-panic"));
        assert_eq!(browser.get("/read").text(), "1");
    });
}

#[track_caller]
fn check_cookie(response: &Response) {
    assert_eq!(response.status, 500);
    assert_eq!(response.all("Set-Cookie").len(), 1, "{response:?}");
}

#[test]
fn a_failed_handler_drops_its_changes_at_any_status() {
    on_both(|site, server| {
        let (mut browser, token) = site.visitor(server);
        check_failure(&browser.get("/insert-500"), 500, "failed", &[VARY, PRIVATE]);
        check_failure(&browser.get("/insert-error-418"), 418, "oops", &[VARY, PRIVATE]);
        check_failure(&browser.get("/insert-error-200"), 200, "oops", &[VARY, PRIVATE]);
        check_failure(&browser.get("/insert-type"), 500, BROKEN, &[VARY, PRIVATE]);
        check_failure(&browser.get("/nowhere"), 404, "oops", &[]);
        assert_eq!(site.n(&token), Some(0));
        assert!(!site.store.calls().contains(&Call::Update));
        assert_eq!(site.failures(), [ErrorKind::Type], "the others are the program's own");
        let mut nobody = Browser::new(server.address);
        for path in ["/insert-500", "/insert-error-418", "/insert-error-200", "/insert-type"] {
            assert_eq!(nobody.get(path).all("Set-Cookie"), [""; 0], "{path}");
        }
        assert_eq!(browser.get("/insert").text(), "inserted");
        assert_eq!(site.n(&token), Some(1));
    });
}

const GONE: &str = "Your session ended or changed while this request was under way. Please try again.\n";

#[test]
fn a_session_that_went_away_is_answered_with_409_and_no_cookie() {
    on_both(|site, server| {
        let (mut browser, token) = site.visitor(server);
        check_failure(&browser.get("/insert-gone"), 409, GONE, &[VARY, NO_STORE]);
        assert_eq!(site.failures(), [ErrorKind::Gone]);
        assert_eq!(site.n(&token), None);
        assert_eq!(browser.jar.get("session"), Some(token.expose()), "the response left the cookie alone");
        // The same if the handler returns the error with `?`.
        let (mut browser, token) = site.visitor(server);
        check_failure(&browser.get("/count-gone"), 409, GONE, &[VARY, NO_STORE]);
        assert_eq!(site.failures(), [ErrorKind::Gone]);
        assert_eq!(site.n(&token), None);
    });
}

#[test]
fn a_locked_session_is_answered_with_503_and_a_logout_passes() {
    on_both_with(&FileStoreOptions::new().lock_wait(Duration::from_millis(50)), |site, server| {
        let (mut browser, token) = site.visitor(server);
        let (report, reported) = channel();
        let (release, released) = channel();
        std::thread::scope(|scope| {
            let other = FileStore::open(site.dir.path()).unwrap();
            let token = token.clone();
            scope.spawn(move || {
                let hold = &mut |_: &mut _| {
                    report.send(()).unwrap();
                    released.recv_timeout(PATIENCE).expect("released");
                    Ok(Verdict::Keep)
                };
                other.update(&token, hold, Durability::OfStore).unwrap();
            });
            reported.recv_timeout(PATIENCE).unwrap();
            let busy = "Your session is busy. Please try again.\n";
            check_failure(&browser.get("/insert"), 503, busy, &[VARY, NO_STORE]);
            assert_eq!(site.failures(), [ErrorKind::Busy]);
            check_failure(&browser.get("/count"), 503, busy, &[VARY, NO_STORE]);
            assert_eq!(site.failures(), [ErrorKind::Busy], "the observer learns what the visitor does not");
            assert_eq!(browser.get("/read").text(), "0", "readers wait for no lock");
            check_failure(&browser.get("/logout"), 200, "bye", &[VARY, REMOVAL, NO_STORE]);
            release.send(()).unwrap();
        });
        assert_eq!(site.n(&token), None);
    });
}

#[test]
fn a_session_that_cannot_be_stored_is_answered_with_507_or_500() {
    on_both(|site, server| {
        let (mut browser, token) = site.visitor(server);
        check_failure(&browser.get("/insert-too-much"), 500, BROKEN, &[VARY, NO_STORE]);
        assert_eq!(site.failures(), [ErrorKind::TooLarge]);
        for (kind, status, text) in [
            (ErrorKind::Full, 507, "The server cannot store your session at the moment.\n"),
            (ErrorKind::Io, 500, BROKEN),
            (ErrorKind::Corrupt, 500, BROKEN),
        ] {
            site.store.before(move |call| match call {
                Call::Update | Call::Create => Err(Error::new(kind, "save session")),
                _ => Ok(()),
            });
            check_failure(&browser.get("/insert"), status, text, &[VARY, NO_STORE]);
            assert_eq!(site.failures(), [kind]);
            check_failure(&browser.get("/count"), status, text, &[VARY, NO_STORE]);
            assert_eq!(site.failures(), [kind]);
            check_failure(&Browser::new(server.address).get("/insert"), status, text, &[VARY, NO_STORE]);
            assert_eq!(site.failures(), [kind]);
            site.store.leave_alone();
        }
        assert_eq!(browser.get("/count").text(), "1");
        assert_eq!(site.n(&token), Some(1));
    });
}

#[test]
fn the_headers_of_the_handler_stay_and_ours_come_behind_them() {
    on_both(|site, server| {
        let (mut browser, _) = site.visitor(server);
        let response = browser.get("/headers");
        assert_eq!(response.all("Vary"), ["Accept", "Cookie"]);
        assert_eq!(response.all("Set-Cookie"), ["theme=dark", REMOVAL.1]);
        assert_eq!(response.all("Cache-Control"), ["no-store"]);
        assert_eq!(browser.jar.header().as_deref(), Some("theme=dark"));
    });
}

#[test]
fn a_page_of_a_session_is_never_in_a_shared_cache() {
    on_both(|site, server| {
        let (mut browser, _) = site.visitor(server);
        let response = browser.get("/read-public");
        assert_eq!((response.status, response.text()), (203, "0"), "status and body stay");
        assert_eq!(response.all("X-Theirs"), ["1"]);
        assert_eq!(response.all("Cache-Control"), ["private"]);
        assert_eq!(browser.get("/read-no-store").all("Cache-Control"), ["no-store"]);
        // If the request has no session, and did not use one, the library adds no header.
        let mut nobody = Browser::new(server.address);
        assert_eq!(nobody.get("/read-public").all("Cache-Control"), ["public", "max-age=60"]);
        assert_eq!(browser.get("/unused-public").all("Cache-Control"), ["public"]);
    });
}

#[test]
fn the_session_is_found_in_whichever_cookie_line_it_comes() {
    on_both(|site, server| {
        let (mut browser, token) = site.visitor(server);
        // In a new session the counter would begin at 1.
        assert_eq!(browser.get("/count").text(), "1");
        let real = format!("session={}", token.expose());
        let unknown = format!("session={}", "a".repeat(32));
        let lines = [
            format!("Cookie: theme=dark\r\nCookie: {real}\r\n"),
            format!("Cookie: {unknown}\r\nX: y\r\ncookie: lang=en; {real}\r\n"),
            format!("COOKIE: session=../x\r\nCookie: \r\nCookie: {unknown}\r\nCookie: {real}\r\n"),
        ];
        for (n, lines) in lines.iter().enumerate() {
            let mut client = Client::connect(server.address);
            client.send(format!("GET /count HTTP/1.1\r\nHost: test\r\n{lines}\r\n")).unwrap();
            assert_eq!(client.receive().unwrap().text(), (n + 2).to_string(), "{lines}");
        }
        assert_eq!(site.n(&token), Some(4));
    });
}

#[test]
fn a_browser_logs_in_and_out_and_keeps_up_with_its_ids() {
    on_both(|site, server| {
        let mut browser = Browser::new(server.address);
        check_failure(&browser.get("/read"), 200, "0", &[VARY]);
        browser.get("/insert");
        let guest = Token::parse(browser.jar.get("session").unwrap()).unwrap();
        browser.get("/login");
        let user = Token::parse(browser.jar.get("session").unwrap()).unwrap();
        assert_ne!(guest, user);
        assert_eq!((site.n(&guest), site.n(&user)), (None, Some(1)));
        browser.get("/logout");
        assert_eq!(browser.jar.header(), None);
        assert_eq!(site.n(&user), None);
    });
}

/// The pages in which the handler uses `?`, in both notations of rouille's macro `router!`.
fn router_of_paths(request: &rouille::Request, session: &mut Session) -> sessile::Result<rouille::Response> {
    rouille::router!(request,
        (GET) (/) => {
            let n: u64 = session.get("n")?.unwrap_or_default();
            Ok(rouille::Response::text(n.to_string()))
        },
        (GET) (/add/{more: u64}) => {
            session.update("n", move |n: &mut u64| *n += more)?;
            Ok(rouille::Response::text("added"))
        },
        (GET) (/wrong) => {
            session.insert("n", 99)?;
            session.get::<String>("n")?;
            Ok(rouille::Response::text("never"))
        },
        _ => Ok(rouille::Response::empty_404())
    )
}

fn router_of_strings(
    request: &rouille::Request,
    session: &mut Session,
) -> sessile::Result<rouille::Response> {
    rouille::router!(request,
        (GET) ["/"] => {
            let n: u64 = session.get("n")?.unwrap_or_default();
            Ok(rouille::Response::text(n.to_string()))
        },
        (GET) ["/add/{more}", more: u64] => {
            session.update("n", move |n: &mut u64| *n += more)?;
            Ok(rouille::Response::text("added"))
        },
        (GET) ["/wrong"] => {
            session.insert("n", 99)?;
            session.get::<String>("n")?;
            Ok(rouille::Response::text("never"))
        },
        _ => Ok(rouille::Response::empty_404())
    )
}

#[test]
fn the_question_mark_works_inside_of_router_in_both_notations() {
    for router in [router_of_paths, router_of_strings] {
        let site = Site::new(FileStoreOptions::new());
        let server = server::rouille(&site.sessions, WORKERS, router);
        let (mut browser, token) = site.visitor(&server);
        assert_eq!(browser.get("/").text(), "0");
        assert_eq!(browser.get("/add/5").text(), "added");
        check_failure(&browser.get("/wrong"), 500, BROKEN, &[VARY, PRIVATE]);
        assert_eq!(browser.get("/nowhere").status, 404);
        assert_eq!(browser.get("/").text(), "5");
        assert_eq!(site.n(&token), Some(5));
    }
}

/// A handler may return a response without a `Result`.
#[test]
fn a_handler_may_return_a_bare_response() {
    let site = Site::new(FileStoreOptions::new());
    let tiny = server::tiny_http(&site.sessions, 1, |_, session| {
        session.clear();
        tiny_http::Response::empty(204)
    });
    assert_eq!(site.visitor(&tiny).0.get("/").status, 204);
    let rouille = server::rouille(&site.sessions, 1, |_, session| {
        session.clear();
        rouille::Response::empty_204()
    });
    assert_eq!(site.visitor(&rouille).0.get("/").status, 204);
}

// ------------------------------------------------------------------------------------------- errors of any kind

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// An error of the program whose source is an error of the session.
#[derive(Debug)]
struct Wrapped(Error);

impl std::fmt::Display for Wrapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the cart is not there")
    }
}

impl std::error::Error for Wrapped {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Changes the session and then fails with `?`, in the way that the path names.
fn fails(path: &str, session: &mut Session, store: &Probe<FileStore>) -> Result<Page, AnyError> {
    session.insert("n", 1)?;
    match path {
        "/file" => {
            std::fs::read("/nowhere/secret prices")?;
        }
        "/number" => {
            "x".parse::<u64>()?;
        }
        "/text" => return Err("no price\nfor \u{1b}[31m<b>tea</b>".into()),
        "/long" => return Err("x".repeat(10_000).into()),
        "/type" => {
            session.get::<String>("n")?;
        }
        "/gone" => {
            store.inner.delete(&session.token()?.expect("a live session"))?;
            session.update_now("n", |n: &mut u64| *n += 1)?;
        }
        "/busy" => return Err(Box::new(Error::new(ErrorKind::Busy, "save session"))),
        "/away" => return Err(Box::new(Error::new(ErrorKind::Unavailable, "save session"))),
        "/unknown" => return Err(Box::new(Error::new(ErrorKind::Unanswered, "save session"))),
        "/full" => return Err(Box::new(Wrapped(Error::new(ErrorKind::Full, "save session")))),
        _ => return Err(Box::new(Wrapped(Error::new(ErrorKind::Io, "save session")))),
    }
    Ok(page("never"))
}

/// Requests each path. Asserts the status, the text for the visitor, and the text for the observer.
#[track_caller]
fn check_fails(serve: impl Fn(&Sessions, Arc<Probe<FileStore>>) -> Running) {
    const OTHER: &str = "The server could not handle your request.\n";
    const BUSY: &str = "Your session is busy. Please try again.\n";
    const AWAY: &str = "Your session cannot be reached at the moment. Please try again.\n";
    const UNKNOWN: &str = "The server could not find out whether your change was saved.\n";
    const FULL: &str = "The server cannot store your session at the moment.\n";
    let site = Site::new(FileStoreOptions::new());
    let told = Arc::new(Mutex::new(Vec::new()));
    let observed = told.clone();
    let sessions =
        Sessions::new(site.store.clone(), Cookies::plain_http()).unwrap().with_observer(move |event| {
            if let Event::Failed(error) = event {
                observed.lock().unwrap().push((error.kind(), error.to_string()));
            }
        });
    let server = serve(&sessions, site.store.clone());
    let own = |text: &str| (ErrorKind::Handler, format!("failed to handle the request: {text}"));
    let of_session = |kind| (kind, "failed to save session".to_owned());
    for (path, status, text, failure) in [
        ("/file", 500, OTHER, own("No such file or directory (os error 2)")),
        ("/number", 500, OTHER, own("invalid digit found in string")),
        ("/text", 500, OTHER, own("no price\\nfor \\u{1b}[31m<b>tea</b>")),
        ("/long", 500, OTHER, own(&"x".repeat(1000))),
        ("/busy", 503, BUSY, of_session(ErrorKind::Busy)),
        ("/away", 503, AWAY, of_session(ErrorKind::Unavailable)),
        ("/unknown", 500, UNKNOWN, of_session(ErrorKind::Unanswered)),
        ("/full", 507, FULL, of_session(ErrorKind::Full)),
        ("/else", 500, BROKEN, of_session(ErrorKind::Io)),
    ] {
        let (mut browser, token) = site.visitor(&server);
        let response = browser.get(path);
        assert_eq!((response.status, response.text()), (status, text), "{path}");
        assert_eq!(std::mem::take(&mut *told.lock().unwrap()), [failure], "{path}");
        assert_eq!(site.n(&token), Some(0), "{path} changed something");
    }
    for (path, status, text, kind) in
        [("/type", 500, BROKEN, ErrorKind::Type), ("/gone", 409, GONE, ErrorKind::Gone)]
    {
        let response = site.visitor(&server).0.get(path);
        assert_eq!((response.status, response.text()), (status, text), "{path}");
        let kinds: Vec<_> =
            std::mem::take(&mut *told.lock().unwrap()).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [kind], "{path}");
    }
}

#[test]
fn an_error_of_any_kind_is_500_and_the_observer_gets_its_text() {
    check_fails(|sessions, store| {
        server::tiny_http(sessions, WORKERS, move |request, session| fails(request.url(), session, &store))
    });
    check_fails(|sessions, store| {
        server::rouille(sessions, WORKERS, move |request, session| fails(&request.url(), session, &store))
    });
}

type Handled = Result<Reply, Box<dyn std::error::Error + Send + Sync>>;

/// Sends a request through an adapter that the program has written. Asserts the status, and whether the handler's
/// change was saved.
#[track_caller]
fn check_own_adapter(handler: fn(&mut Session) -> Handled, status: u16, is_saved: bool) {
    let dir = TempDir::new().unwrap();
    let sessions = Sessions::new(FileStore::open(dir.path()).unwrap(), Cookies::plain_http()).unwrap();
    let sessions = sessions.with_observer(|_| {});
    let (Reply(answered, text), headers) = http::serve(&sessions, "theme=dark", |session| {
        session.insert("n", 1).unwrap();
        handler(session)
    });
    assert_eq!(answered, status, "{text}");
    assert_eq!(headers.iter().any(|(name, _)| *name == "Set-Cookie"), is_saved, "{text}");
    assert!(headers.contains(&("Vary", "Cookie".into())), "{text}");
}

#[test]
fn an_adapter_of_the_programs_own_saves_and_answers_failures() {
    check_own_adapter(|_| Ok(Reply(200, "fine")), 200, true);
    check_own_adapter(|_| Ok(Reply(404, "no such page")), 404, true);
    check_own_adapter(|_| Ok(Reply(502, "bad gateway")), 502, false);
    check_own_adapter(|_| Err("no price for tea".into()), 500, false);
    check_own_adapter(|_| Err(Error::new(ErrorKind::Gone, "save session").into()), 409, false);
    check_own_adapter(|_| resume_unwind(Box::new("on purpose")), 500, false);
    check_own_adapter(|session| Ok(Reply(200, session.insert("", 1).map(|()| "")?)), 500, false);
    let too_large = |session: &mut Session| -> Handled {
        session.insert("a", "x".repeat(1 << 19))?;
        session.insert("b", "x".repeat(1 << 19))?;
        Ok(Reply(200, "fine"))
    };
    check_own_adapter(too_large, 500, false);
}
