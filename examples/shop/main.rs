//! The shop: a whole site on sessile. It has a login, a cart, messages, a page of the user's devices, an action that
//! asks for a fresh login, a box that polls, and a line that tells at once when the session was ended elsewhere. Read
//! `handlers.rs` first; `live.rs` is the only part that knows sockets.
//!
//! ```text
//! cargo run --example shop -- --help
//! ```
mod cart;
mod failure;
mod forms;
mod handlers;
mod html;
mod live;
mod pages;
mod words;

use live::{STREAMS_MAX, Streams};
use rouille::Server;
use sessile::http::rouille::serve;
use sessile::store_url::StoreUrl;
use sessile::{Cookies, Event, Lifetime, Reaper, ReaperOptions, Renewal, Sessions};
use std::error::Error;
use std::ffi::OsString;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Requests that are handled at the same time, besides those that stay open.
const WORKERS: usize = 8;
/// The longest age of a session of a visitor who has come only once: programs that read one page leave many of them.
const FIRST_AGE: Duration = Duration::from_secs(3600);

const HELP: &str = "\
A small shop: login, cart, devices, messages, and sessions that survive restarts.

Usage: cargo run --example shop -- [OPTIONS]

  --port PORT            where to listen on 127.0.0.1; 0 takes any free port [8001]
  --dir DIR              the directory of the sessions [shop-sessions]
  --store URL            the same by URL, instead of --dir: file:DIR, or memory: for sessions that end with the shop
  --age SECONDS          a visitor who does nothing for that long is logged out [1209600]
  --fresh SECONDS        closing the account asks for a login that is no older [300]
  --sweep-every SECONDS  pause between removals of expired sessions [300]
  -h, --help             prints this

When the server is ready it prints one line, `listening on http://127.0.0.1:PORT`.
";

/// What all requests share.
struct Shop {
    sessions: Sessions,
    /// The place of the store, without secrets.
    place: String,
    /// The largest age of a login with which the account may be closed.
    fresh: Duration,
    streams: Arc<Streams>,
}

/// The options of the command line.
struct Options {
    port: u16,
    place: StoreUrl,
    age: Duration,
    fresh: Duration,
    sweep_every: Duration,
}

type Failed = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    let Some(options) = options(pico_args::Arguments::from_env())? else {
        print!("{HELP}");
        return Ok(());
    };
    let store = options.place.open()?;
    // The server never returns: this sweeps until the process ends, in whatever way.
    let sweeps = ReaperOptions::new().interval(options.sweep_every);
    let _reaper = Reaper::start(
        &store,
        sweeps.observer(|swept| match swept {
            Ok(report) => report.errors.iter().for_each(complain),
            Err(error) => complain(error),
        }),
    )?;
    // Reading counts as activity.
    let lifetime = Lifetime::new().age(options.age).renewal(Renewal::OnRead);
    // A hundredth of the age is gained by a renewal at least: the page of devices is no older than that.
    let lifetime = lifetime.first_age(FIRST_AGE.min(options.age)).renewal_step_percent(1);
    // Plain HTTP, because this runs on the machine it is tried on. A site uses `Cookies::https()`. The name is the
    // shop's own, because a browser sends the cookies of 127.0.0.1 to all programs there, whatever their ports.
    let cookies = Cookies::plain_http().name("shop");
    let sessions = Sessions::new(store, cookies)?.with_lifetime(lifetime)?;
    let sessions = sessions.with_observer(|event| {
        // The visitor learns that something failed; the reason is written here.
        if let Event::Failed(error) = event {
            complain(error);
        }
    });
    let (place, fresh) = (options.place.to_string(), options.fresh);
    let shop = Shop { sessions, place, fresh, streams: Arc::default() };
    let server = Server::new(("127.0.0.1", options.port), move |request| {
        let response = serve(&shop.sessions, request, |request, session| shop.handle(request, session));
        html::with_security_headers(response)
    })?;
    let address = server.server_addr();
    std::thread::Builder::new().name("waker".into()).spawn(move || wake_connections(address))?;
    println!("listening on http://{address}");
    server.pool_size(WORKERS + STREAMS_MAX).run();
    Ok(())
}

/// The options; `None` if the help is asked for.
fn options(mut args: pico_args::Arguments) -> Result<Option<Options>, Failed> {
    if args.contains(["-h", "--help"]) {
        return Ok(None);
    }
    let port = args.opt_value_from_str("--port")?.unwrap_or(8001);
    let seconds = |args: &mut pico_args::Arguments, name, usual| -> Result<Duration, Failed> {
        Ok(Duration::from_secs(args.opt_value_from_str(name)?.unwrap_or(usual)))
    };
    let age = seconds(&mut args, "--age", 1_209_600)?;
    let fresh = seconds(&mut args, "--fresh", 300)?;
    let sweep_every = seconds(&mut args, "--sweep-every", 300)?;
    let dir: Option<OsString> = args.opt_value_from_os_str("--dir", |dir| Ok::<_, Failed>(dir.to_owned()))?;
    let store: Option<OsString> =
        args.opt_value_from_os_str("--store", |url| Ok::<_, Failed>(url.to_owned()))?;
    let place = match (store, dir) {
        (Some(_), Some(_)) => return Err("give --store or --dir, not both".into()),
        (Some(url), None) => StoreUrl::parse(url)?,
        // A name such as `memory:` is a directory here.
        (None, dir) => {
            let mut url = OsString::from("file:");
            url.push(dir.unwrap_or_else(|| "shop-sessions".into()));
            StoreUrl::parse(url)?
        }
    };
    if fresh.is_zero() {
        return Err("--fresh is at least 1".into());
    }
    if let [unknown, ..] = &*args.finish() {
        return Err(format!("unknown argument {}", unknown.display()).into());
    }
    Ok(Some(Options { port, place, age, fresh, sweep_every }))
}

/// Opens a connection from time to time. tiny_http 0.12, which is inside of rouille, may count an idle thread for two
/// connections that come at the same moment: the second then waits until a thread becomes free, and browsers keep
/// their connections for minutes. The thread of this connection is free at once. Behind a proxy that opens a
/// connection for each request there is no need for it.
fn wake_connections(server: SocketAddr) {
    loop {
        std::thread::sleep(Duration::from_millis(500));
        drop(TcpStream::connect(server));
    }
}

/// Tells the operator.
fn complain(error: &sessile::Error) {
    eprintln!("{error} ({:?})", error.source().map(ToString::to_string));
}
