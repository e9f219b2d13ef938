//! Code of the program's that the library calls may panic wherever it is called: that costs one answer at most, never a
//! worker, a lock or a session.
//!
//! It is called by way of observers, handlers, functions given to `update` and `update_now`, the code of the types that
//! they change, responses and their bodies, and stores that are not ours. (A `Clock` is a type of the library's.) What
//! a sweep's progress and a reaper's observer do by a panic, `sweep` and `reaper` have.
use crate::support::client::{Browser, Client};
use crate::support::rerun;
use crate::support::server;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sessile::http::IntoResponse;
use sessile::http::tiny_http::AnyResponse;
use sessile::reaper::{Reaper, ReaperOptions};
use sessile::{
    Change, Cookies, Durability, ErrorKind, FileStore, FileStoreOptions, Guarantees, Lookup, Record, Result,
    Rotation, Saved, Session, Sessions, Store, Token,
};
use std::cell::Cell;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

/// Panics without printing a message.
fn panic_quietly() {
    resume_unwind(Box::new("on purpose"));
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic_quietly();
    }
}

// ------------------------------------------------------------------------------- functions and types, under a lock

thread_local! {
    /// The name of the code in which a [`Trap`] panics; empty for none.
    static TRAP: Cell<&'static str> = const { Cell::new("") };
}

fn step_into(code: &str) {
    if TRAP.get() == code {
        TRAP.set("");
        panic_quietly();
    }
}

/// A number whose trait implementations panic once, in the code that [`TRAP`] names.
#[derive(Debug)]
struct Trap(u64);

impl Default for Trap {
    fn default() -> Self {
        step_into("default");
        Self(0)
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        step_into("drop");
    }
}

impl Serialize for Trap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        step_into("serialize");
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Trap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        step_into("deserialize");
        u64::deserialize(deserializer).map(Self)
    }
}

fn count(trap: &mut Trap) {
    step_into("function");
    trap.0 += 1;
}

/// A captured value whose `Clone` panics once, when it is told to.
struct Captured;

impl Clone for Captured {
    fn clone(&self) -> Self {
        step_into("clone");
        Self
    }
}

#[test]
fn a_panic_in_the_clone_of_an_update_function_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let sessions = Sessions::new(FileStore::open(dir.path()).unwrap(), Cookies::plain_http()).unwrap();
    let mut session = sessions.visit([]);
    let add = || {
        let captured = Captured;
        move |n: &mut u64| {
            let _ = &captured;
            *n += 1;
        }
    };
    TRAP.set("clone");
    assert_eq!(session.update("n", add()).unwrap_err().kind(), ErrorKind::Panicked);
    session.insert("n", 1).unwrap();
    session.save().unwrap();
    session.update("n", add()).unwrap();
    TRAP.set("clone");
    assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Panicked);
    session.save().unwrap();
    let token = session.token().unwrap().unwrap();
    assert_eq!(sessions.session([token]).get("n").unwrap(), Some(2));
}

#[test]
fn a_panic_under_the_lock_writes_and_locks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let open = || FileStoreOptions::new().lock_wait(Duration::from_millis(200)).open(dir.path()).unwrap();
    let sessions = Sessions::new(open(), Cookies::plain_http()).unwrap();
    let mut first = sessions.visit([]);
    first.insert("n", 1).unwrap();
    first.save().unwrap();
    let token = first.token().unwrap().unwrap();
    let others = Sessions::new(open(), Cookies::plain_http()).unwrap();
    let mut stored = 1;
    for code in ["function", "serialize", "deserialize", "drop", "default"] {
        // The default of the type is only asked for if the entry is missing.
        let name = if code == "default" { "missing" } else { "n" };
        let mut session = sessions.session([token.clone()]);
        session.update(name, count).unwrap();
        TRAP.set(code);
        assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Panicked, "save: {code}");
        TRAP.set(code);
        assert_eq!(
            session.update_now(name, count).unwrap_err().kind(),
            ErrorKind::Panicked,
            "update_now: {code}"
        );
        // The caller drops the value that `update` returned.
        if code != "drop" {
            let mut preview = sessions.session([token.clone()]);
            TRAP.set(code);
            let error = preview.update(name, count).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Panicked, "update: {code}");
            assert!(!preview.modified());
        }
        // A new session is made without a lock, from no stored value.
        let mut new = sessions.visit([]);
        TRAP.set(if code == "deserialize" { "default" } else { code });
        assert_eq!(new.update_now(name, count).unwrap_err().kind(), ErrorKind::Panicked, "new: {code}");
        assert_eq!(new.public_id().unwrap(), None);

        let mut other = others.session([token.clone()]);
        assert_eq!(other.get::<u64>("n").unwrap(), Some(stored), "{code} left something");
        assert!(!other.contains("missing").unwrap());
        stored = other
            .update_now("n", |n: &mut u64| {
                *n += 1;
                *n
            })
            .expect("no lock is left");
        session.save().unwrap();
        stored += u64::from(code != "default");
        let last = others.session([token.clone()]);
        assert_eq!(last.get("n").unwrap(), Some(stored), "what waited is saved: {code}");
    }
}

// ------------------------------------------------------------------------------------------------ servers

/// A store that the program has implemented itself. It panics for some tokens.
struct Theirs(FileStore);

impl Store for Theirs {
    fn now(&self) -> SystemTime {
        self.0.now()
    }
    fn is_well_formed(&self, token: &Token) -> bool {
        if token.expose() == "panic" {
            panic_quietly();
        }
        self.0.is_well_formed(token)
    }
    fn load(&self, token: &Token) -> Result<Lookup> {
        self.0.load(token)
    }
    fn create(&self, record: &Record, how: Durability) -> Result<Saved> {
        self.0.create(record, how)
    }
    fn update(&self, token: &Token, change: Change<'_>, how: Durability) -> Result<Option<Saved>> {
        self.0.update(token, change, how)
    }
    fn rotate(&self, token: &Token, change: Change<'_>, how: &Rotation<'_>) -> Result<Option<Saved>> {
        self.0.rotate(token, change, how)
    }
    fn delete(&self, token: &Token) -> Result<Option<sessile::store::Deleted>> {
        self.0.delete(token)
    }
    fn guarantees(&self) -> Guarantees {
        self.0.guarantees()
    }
}

/// A response type of the program. It panics in the method with this name.
struct Mine(&'static str);

impl IntoResponse<AnyResponse> for Mine {
    fn is_error(&self) -> bool {
        if self.0 == "is_error" {
            panic_quietly();
        }
        self.0 == "error"
    }
    fn session_error(&self) -> Option<&sessile::Error> {
        if self.0 == "session_error" {
            panic_quietly();
        }
        None
    }
    fn into_response(self) -> AnyResponse {
        if self.0 == "into_response" {
            panic_quietly();
        }
        let body =
            Body { text: b"ok\n", panics_in: self.0, _bomb: (self.0 == "drop").then(|| PanicsWhenDropped) };
        tiny_http::Response::new(200.into(), Vec::new(), Box::new(body), Some(3), None)
    }
}

struct Body {
    text: &'static [u8],
    panics_in: &'static str,
    _bomb: Option<PanicsWhenDropped>,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.panics_in == "read" {
            panic_quietly();
        }
        self.text.read(buffer)
    }
}

fn own_code(path: &str, session: &mut Session) -> Result<Mine> {
    let bomb = Arc::new(PanicsWhenDropped);
    let count = move |n: &mut u64| {
        let _mine = &bomb;
        *n += 1;
    };
    match path {
        "/captured" => drop(session.update("n", count)?),
        "/captured-and-failed" => {
            session.update("n", count)?;
            return Ok(Mine("error"));
        }
        "/captured-and-panicked" => {
            session.update("n", count)?;
            panic_quietly();
        }
        // The record is too large to be saved, so the handler's response is dropped, and an error is sent.
        "/dropped-unsent" => {
            std::mem::forget(count);
            session.insert("blob", "x".repeat(2 << 20))?;
            return Ok(Mine("drop"));
        }
        _ => std::mem::forget(count),
    }
    Ok(Mine(match path {
        "/is_error" => "is_error",
        "/session_error" => "session_error",
        "/into_response" => "into_response",
        "/read" => "read",
        "/drop" => "drop",
        _ => "",
    }))
}

#[test]
fn no_code_of_the_program_costs_a_worker() {
    let dir = tempfile::tempdir().unwrap();
    let store = Theirs(FileStore::open(dir.path()).unwrap());
    let sessions = Sessions::new(store, Cookies::plain_http()).unwrap();
    let sessions = sessions.with_observer(|_| panic_quietly());
    // The server has one worker thread. If that thread dies, no further request is answered.
    let server = server::tiny_http(&sessions, 1, |request, session| own_code(request.url(), session));
    let check = |path: &str, cookie: &str, status: u16| {
        let mut client = Client::connect(server.address);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\n\r\n")).unwrap();
        let answer = client.receive().map(|response| response.status);
        assert_eq!(answer.unwrap_or_else(|error| panic!("{path}: {error}")), status, "{path}");
        assert_eq!(Browser::new(server.address).get("/").text(), "ok\n", "the worker goes on after {path}");
    };
    check("/", "session=no!id", 200);
    check("/", "session=panic", 500);
    check("/captured", "", 200);
    check("/captured-and-failed", "", 200);
    check("/captured-and-panicked", "", 500);
    check("/dropped-unsent", "", 500);
    for path in ["/is_error", "/session_error", "/into_response"] {
        check(path, "", 500);
    }
    // The response has begun, so no other one can be sent. `tiny_http` leaves the connection open, and the client
    // waits.
    for path in ["/read", "/drop"] {
        let mut client = Client::connect(server.address);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).unwrap();
        client.hears_within(Duration::from_millis(300));
        assert_eq!(Browser::new(server.address).get("/").text(), "ok\n", "the worker goes on after {path}");
    }
}

// ------------------------------------------------------------------------------------- standard output and error

/// A server whose observer prints events. It runs until its standard input ends.
fn print_and_serve(dir: &Path) -> ! {
    let sessions = Sessions::new(FileStore::open(dir).unwrap(), Cookies::plain_http()).unwrap();
    let sessions = sessions.with_observer(|event| {
        println!("{event:?}");
        eprintln!("{event:?}");
    });
    let server = server::tiny_http(&sessions, 1, |_, session| {
        session.get::<u64>("n").map(|n| tiny_http::Response::from_string(format!("{n:?}")))
    });
    println!("\nlistening on {}", server.address);
    let _ = io::stdin().read(&mut [0]);
    std::process::exit(0);
}

#[test]
fn a_server_whose_observer_prints_to_closed_pipes_goes_on() {
    if let Some(dir) = rerun::stage() {
        print_and_serve(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let name = "program_code::a_server_whose_observer_prints_to_closed_pipes_goes_on";
    let mut command = rerun::command(name, dir.path());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(io::Result::ok);
    let address = lines.find_map(|line| line.strip_prefix("listening on ")?.parse::<SocketAddr>().ok());
    let address = address.expect("the server says where it listens");
    drop((lines, child.stderr.take()));
    for _ in 0..3 {
        for header in ["session=x", "session=abcdefghijklmnopqrstuvwxyz234567"] {
            let mut client = Client::connect(address);
            client.send(format!("GET / HTTP/1.1\r\nHost: test\r\nCookie: {header}\r\n\r\n")).unwrap();
            assert_eq!(client.receive().expect("an answer").text(), "None", "{header}");
        }
    }
    assert_eq!(child.try_wait().unwrap(), None, "it runs");
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// Sweeps a store whose index is a file in place of a directory, without an observer. Prints how often the sweep
/// failed.
fn fail_to_sweep(dir: &Path) {
    let store = Arc::new(FileStore::open(dir).unwrap());
    fs::remove_dir_all(dir.join("run/due")).unwrap();
    fs::write(dir.join("run/due"), "no directory").unwrap();
    let reaper = Reaper::start(&store, ReaperOptions::new().interval(Duration::from_millis(100))).unwrap();
    thread::sleep(Duration::from_millis(500));
    println!("\nerrors: {}", reaper.close().errors);
}

#[test]
fn a_reaper_without_an_observer_reports_on_standard_error() {
    if let Some(dir) = rerun::stage() {
        return fail_to_sweep(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let name = "program_code::a_reaper_without_an_observer_reports_on_standard_error";
    let output = rerun::command(name, dir.path()).output().unwrap();
    let said = |bytes: &[u8], start: &str| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.lines().filter_map(|line| Some(line.strip_prefix(start)?.to_owned())).collect::<Vec<_>>()
    };
    let errors: usize = said(&output.stdout, "errors: ")[0].parse().unwrap();
    let lines = said(&output.stderr, "sessile: ");
    assert!(errors > 0 && lines.len() == errors, "{errors} errors, and {lines:?}");
    assert!(
        lines.iter().all(|line| line.contains("failed to open expiry index") && line.contains("/due")),
        "{lines:?}"
    );
}
