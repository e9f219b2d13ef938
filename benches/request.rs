//! One request, from its cookie header to its response's header pairs: without a server, and through real
//! servers on loopback.
//!
//! The floor of a request through a server is the same server without sessions.
mod common;

use common::{Full, Round};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sessile::{Cookies, Durability, FileStoreOptions, Session, Sessions};
use std::cell::LazyCell;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

/// How a handler uses its session.
#[derive(Clone, Copy, Debug)]
enum Use {
    Untouched,
    Read,
    Write,
}

const USES: [(&str, Use); 3] = [("untouched", Use::Untouched), ("read", Use::Read), ("write", Use::Write)];

impl Use {
    fn handle(self, session: &mut Session) -> sessile::Result<u64> {
        Ok(match self {
            Self::Untouched => 8,
            Self::Read => session.get("visits")?.unwrap_or(0),
            Self::Write => {
                let visits = session.get("visits")?.unwrap_or(0_u64) + 1;
                session.insert("visits", visits)?;
                visits
            }
        })
    }
}

/// Sessions that are all in memory, and a cookie header for each.
struct Site {
    sessions: Sessions,
    headers: Vec<String>,
    _full: Full,
}

impl Site {
    fn new() -> Self {
        let options = FileStoreOptions::new().cache_bytes(usize::MAX);
        let full = Full::with(options.clone(), common::sessions(), Durability::Relaxed);
        let store = options.durability(Durability::Relaxed).open(full.path()).expect("the same store");
        let sessions = Sessions::new(store, Cookies::plain_http()).expect("options that agree");
        // The header as a browser sends it, with cookies of other origins.
        let header =
            |token: &sessile::Token| format!("theme=dark; session={}; _ga=GA1.1.1234", token.expose());
        let headers: Vec<_> = full.tokens.iter().map(header).collect();
        let this = Self { sessions, headers, _full: full };
        for header in &this.headers {
            assert!(this.visit(header, Use::Read) > 0);
        }
        this
    }

    /// A request without a server. Returns the number of header pairs in its response.
    fn visit(&self, header: &str, what: Use) -> usize {
        let mut visit = self.sessions.visit([header]);
        assert!(what.handle(&mut visit).expect("a session") > 0);
        visit.finish(200).expect("saved").len()
    }
}

/// Measures [`Sessions::visit`], the handler, and `finish`.
fn bare(c: &mut Criterion) {
    let site = LazyCell::new(Site::new);
    let mut group = c.benchmark_group("request-bare");
    for (name, what) in USES {
        let mut round = Round::below(common::sessions());
        group.bench_function(BenchmarkId::new("sessile", name), |b| {
            // Untouched: no header pairs. Otherwise at least a `Vary` and a `Cache-Control`.
            let pairs = site.visit(&site.headers[0], what);
            assert_eq!(pairs > 0, !matches!(what, Use::Untouched), "{name}: {pairs}");
            b.iter(|| black_box(site.visit(&site.headers[round.next()], what)));
        });
    }
    group.finish();
}

/// A persistent connection.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).expect("a server");
        stream.set_nodelay(true).expect("a socket");
        Self(BufReader::new(stream))
    }

    /// Makes a request. Returns the length of the response's body.
    fn get(&mut self, cookie: &str) -> usize {
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).expect("sent");
        let (mut line, mut length) = (String::new(), 0);
        loop {
            line.clear();
            self.0.read_line(&mut line).expect("a response");
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
            assert!(!line.starts_with("HTTP/") || line.contains(" 200 "), "{line}");
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("a body");
        length
    }
}

/// The sessions of a server and how its handler uses them; `None` without sessions.
type Served = Option<(Sessions, Use)>;

/// Servers on loopback that answer until the process ends, because a thread of theirs always waits for
/// requests. The directory of their sessions is removed before.
fn tiny(site: Served) -> SocketAddr {
    let server = tiny_http::Server::http("127.0.0.1:0").expect("a server");
    let address = server.server_addr().to_ip().expect("an IP address");
    thread::spawn(move || {
        for request in server.incoming_requests() {
            let answered = match &site {
                None => request.respond(tiny_http::Response::from_string("hello")),
                Some((sessions, what)) => sessile::http::tiny_http::serve(sessions, request, |_, session| {
                    what.handle(session).map(|_| tiny_http::Response::from_string("hello"))
                }),
            };
            answered.expect("the client waits");
        }
    });
    address
}

fn rouille(site: Served) -> SocketAddr {
    let server = ::rouille::Server::new("127.0.0.1:0", move |request| match &site {
        None => ::rouille::Response::text("hello"),
        Some((sessions, what)) => sessile::http::rouille::serve(sessions, request, |_, session| {
            what.handle(session).map(|_| ::rouille::Response::text("hello"))
        }),
    });
    let server = server.expect("a server");
    let address = server.server_addr();
    thread::spawn(move || server.run());
    address
}

type Start = fn(Served) -> SocketAddr;

/// Measures a request over a persistent connection, by one client.
fn through_servers(c: &mut Criterion) {
    let site = LazyCell::new(Site::new);
    for (name, start) in [("tiny_http", tiny as Start), ("rouille", rouille as Start)] {
        let mut group = c.benchmark_group(format!("request-{name}"));
        let mut measure = |id: BenchmarkId, what: Option<Use>| {
            // One server for all samples.
            let address = LazyCell::new(|| start(what.map(|what| (site.sessions.clone(), what))));
            let mut round = Round::below(common::sessions());
            group.bench_function(id, |b| {
                let mut client = Client::connect(*address);
                assert_eq!(client.get(&site.headers[0]), 5);
                b.iter(|| client.get(&site.headers[round.next()]));
            });
        };
        measure(BenchmarkId::new("floor", "no-session"), None);
        for (what_name, what) in USES {
            measure(BenchmarkId::new("sessile", what_name), Some(what));
        }
        group.finish();
    }
}

criterion_group!(name = benches; config = common::criterion(); targets = bare, through_servers);
criterion_main!(benches);
