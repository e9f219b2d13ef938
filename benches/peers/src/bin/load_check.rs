//! The cost of sessions for a whole server: tiny_http on loopback, many persistent connections, a mix of 90 %
//! reads, 8 % saves, 1 % logins and 1 % logouts, by visitors of which a few are frequent (Zipf, exponent
//! 0.99). Beside it, the same server and the same requests without sessions. Both servers take turns; the
//! figures are medians of the rounds.
//!
//! Clients and server share the machine: the absolute rates do not apply to a real server, the share that
//! sessions take does.
use clap::Parser;
use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};
use serde_json::json;
use sessile::http::tiny_http::serve;
use sessile::reaper::{Reaper, ReaperOptions};
use sessile::{Admin, Cookies, Durability, FileStore, FileStoreOptions, Session, Sessions};
use sessile_peers::{Stop, median, turn};
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tiny_http::{Request, Response, Server};

type Failure = Box<dyn Error + Send + Sync>;

/// Measure the cost of sessions for a whole server
#[derive(Clone, Debug, Parser)]
#[command(
    max_term_width = 80,
    after_help = "\
Example:
  load-check --connections 64 --seconds 5

JSON: one object a line: server (sessions, none), requests_per_s (the median of
the rounds), p50_us, p99_us, requests, failed."
)]
struct Args {
    /// Directory for the sessions [default: the current one]
    #[arg(long, default_value = ".", hide_default_value = true)]
    dir: PathBuf,
    /// Number of visitors
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    visitors: u32,
    /// Number of connections that are open and busy at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
    /// Number of threads with which the server answers
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// How long each server is measured in each round
    #[arg(long, default_value = "2", value_parser = turn)]
    seconds: Duration,
    /// Number of rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Sync each save to the disk before it is answered
    #[arg(long)]
    power_safe: bool,
    /// Print JSON objects instead of a table
    #[arg(long)]
    json: bool,
}

/// A server that answers until it is dropped.
struct Site {
    server: Arc<Server>,
    workers: Vec<thread::JoinHandle<()>>,
}

impl Site {
    fn start(args: &Args, sessions: Option<&Sessions>) -> Result<Self, Failure> {
        let server = Arc::new(Server::http("127.0.0.1:0")?);
        let work = || {
            let (server, sessions) = (Arc::clone(&server), sessions.cloned());
            thread::spawn(move || {
                for request in server.incoming_requests() {
                    // A failure means that the client has closed its connection at the end of its time.
                    let _ = match &sessions {
                        Some(sessions) => serve(sessions, request, page),
                        None => request.respond(text("hello")),
                    };
                }
            })
        };
        let workers = (0..args.workers).map(|_| work()).collect();
        Ok(Self { server, workers })
    }

    fn address(&self) -> SocketAddr {
        self.server.server_addr().to_ip().expect("an IP address")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for _ in &self.workers {
            self.server.unblock();
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

fn text(body: &str) -> Response<io::Cursor<Vec<u8>>> {
    Response::from_string(body)
}

fn page(request: &mut Request, session: &mut Session) -> sessile::Result<Response<io::Cursor<Vec<u8>>>> {
    match request.url() {
        "/login" => {
            session.login("user-1234567")?;
            session.insert("theme", "dark")?;
            session.insert("filler", "x".repeat(400))?;
        }
        "/save" => {
            session.update("visits", |visits: &mut u64| *visits += 1)?;
        }
        "/logout" => {
            session.destroy()?;
        }
        _ => {
            let _: Option<String> = session.get("theme")?;
        }
    }
    Ok(text("hello"))
}

/// The requests of visitors, with their shares in percent.
const PATHS: [(&str, u32); 4] = [("/", 90), ("/save", 8), ("/login", 1), ("/logout", 1)];

fn path(dice: &mut StdRng) -> &'static str {
    let mut rolled = dice.random_range(0..100);
    for (path, percent) in PATHS {
        if rolled < percent {
            return path;
        }
        rolled -= percent;
    }
    unreachable!("the shares add up to a hundred")
}

/// A persistent connection, used by one visitor after the other.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Makes a request and keeps the visitor's cookie up to date. Returns whether it succeeded.
    fn get(&mut self, path: &str, cookie: &mut String) -> io::Result<bool> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (mut line, mut length, mut is_ok) = (String::new(), 0, false);
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let Some((name, value)) = line.split_once(": ") else {
                is_ok = line.split(' ').nth(1) == Some("200");
                continue;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().map_err(io::Error::other)?;
            } else if name.eq_ignore_ascii_case("set-cookie") {
                value.split(';').next().unwrap_or_default().clone_into(cookie);
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(is_ok && body == b"hello")
    }
}

/// Results of all rounds of one server.
#[derive(Debug)]
struct Samples {
    rates: Vec<f64>,
    micros: Histogram<u64>,
    failed: u64,
}

impl Samples {
    fn new() -> Self {
        Self { rates: Vec::new(), micros: Histogram::new(3).expect("three digits"), failed: 0 }
    }
    fn rate(&self) -> f64 {
        median(&self.rates)
    }
}

/// Lets all connections make requests for some time. Each has its own visitors, and keeps their cookies.
fn round(
    args: &Args,
    to: SocketAddr,
    jars: &mut [Vec<String>],
    seed: u64,
    samples: &mut Samples,
) -> Result<(), Failure> {
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let done = thread::scope(|scope| {
        let clients: Vec<_> = jars
            .iter_mut()
            .enumerate()
            .map(|(n, jar)| {
                let stop = &stop;
                scope.spawn(move || -> Result<(Histogram<u64>, u64), Failure> {
                    let mut dice = StdRng::seed_from_u64(seed + n as u64);
                    let visitors = Zipf::new(f64::from(u32::try_from(jar.len())?), 0.99)?;
                    let mut client = Client::connect(to)?;
                    let (mut micros, mut failed) = (Histogram::new(3)?, 0);
                    while !stop.load(Ordering::Relaxed) {
                        #[expect(
                            clippy::cast_possible_truncation,
                            clippy::cast_sign_loss,
                            reason = "an index"
                        )]
                        let visitor = visitors.sample(&mut dice) as usize - 1;
                        let asked = Instant::now();
                        let is_ok = client.get(path(&mut dice), &mut jar[visitor])?;
                        micros.record(asked.elapsed().as_micros().try_into()?)?;
                        failed += u64::from(!is_ok);
                    }
                    Ok((micros, failed))
                })
            })
            .collect();
        thread::sleep(args.seconds);
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("no client panics")).collect::<Vec<_>>()
    });
    let took = began.elapsed();
    let mut requests = 0;
    for of_one in done {
        let (micros, failed) = of_one?;
        requests += u32::try_from(micros.len())?;
        samples.micros.add(micros)?;
        samples.failed += failed;
    }
    samples.rates.push(f64::from(requests) / took.as_secs_f64());
    Ok(())
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let stop = Stop::on_signals()?;
    let dir = tempfile::Builder::new().prefix("load-check-").tempdir_in(&args.dir)?;
    let durability = if args.power_safe { Durability::PowerSafe } else { Durability::Relaxed };
    let store: Arc<FileStore> = Arc::new(FileStoreOptions::new().durability(durability).open(dir.path())?);
    let _reaper = Reaper::start(&store, ReaperOptions::new())?;
    let sessions = Sessions::new(Arc::clone(&store), Cookies::plain_http())?;
    let sites = [Site::start(&args, Some(&sessions))?, Site::start(&args, None)?];
    let mut samples = [Samples::new(), Samples::new()];
    let each = (args.visitors / u32::from(args.connections)).max(1);
    let mut jars = vec![vec![String::new(); usize::try_from(each)?]; args.connections.into()];
    // All visitors are logged in at first.
    let mut client = Client::connect(sites[0].address())?;
    for cookie in jars.iter_mut().flatten() {
        stop.check()?;
        if !client.get("/login", cookie)? || cookie.is_empty() {
            return Err("a visitor could not log in".into());
        }
    }
    for n in 0..args.rounds {
        // Each server is the first one in every other round.
        for turn in 0..sites.len() {
            stop.check()?;
            // Data that the other server has left to be written is not written during this server's time.
            rustix::fs::sync();
            let at = (usize::from(n) + turn) % sites.len();
            round(&args, sites[at].address(), &mut jars, 1000 * u64::from(n), &mut samples[at])?;
        }
    }
    let stats = store.stats();
    for (name, samples) in ["sessions", "none"].into_iter().zip(&samples) {
        let (p50, p99) = (samples.micros.value_at_quantile(0.5), samples.micros.value_at_quantile(0.99));
        let (rate, requests, failed) = (samples.rate(), samples.micros.len(), samples.failed);
        if args.json {
            let line = json!({
                "server": name, "requests_per_s": rate, "p50_us": p50, "p99_us": p99,
                "requests": requests, "failed": failed,
            });
            println!("{line}");
        } else {
            println!(
                "{name:<9} {rate:>8.0} requests/s   p50 {p50:>6} µs   p99 {p99:>6} µs   {requests} requests, {failed} failed"
            );
        }
    }
    if !args.json {
        let share = 100.0 * (1.0 - samples[0].rate() / samples[1].rate());
        println!(
            "sessions take {share:.0} % of the server's rate; {} hits, {} misses",
            stats.hits, stats.files.misses
        );
    }
    if samples.iter().any(|samples| samples.failed > 0) {
        return Err("some requests failed".into());
    }
    Ok(())
}
