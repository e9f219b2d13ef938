//! Counts a visitor's visits, across restarts: tiny_http with several worker threads.
//!
//! ```text
//! cargo run --example visits -- --help
//! ```
use sessile::http::tiny_http::serve;
use sessile::reaper::{Reaper, ReaperOptions};
use sessile::{Cookies, Event, FileStore, Lifetime, Session, Sessions};
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tiny_http::{Header, Method, Request, Response, Server};

type Body = Response<std::io::Cursor<Vec<u8>>>;

const HELP: &str = "\
Counts a visitor's visits, across restarts.

Usage: cargo run --example visits -- [OPTIONS]

  --port PORT            where to listen on 127.0.0.1; 0 takes any free port [8000]
  --dir DIR              where the sessions are kept [visits-sessions]
  --workers N            threads that answer requests [4]
  --age SECONDS          a visitor who stays away that long is forgotten [1209600]
  --sweep-every SECONDS  pause between removals of expired session files [300]
  -h, --help             prints this

When the server is ready it prints one line, `listening on http://127.0.0.1:PORT`.
";

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut args = pico_args::Arguments::from_env();
    if args.contains(["-h", "--help"]) {
        print!("{HELP}");
        return Ok(());
    }
    let port: u16 = args.opt_value_from_str("--port")?.unwrap_or(8000);
    let dir: PathBuf = args.opt_value_from_str("--dir")?.unwrap_or_else(|| "visits-sessions".into());
    let workers: usize = args.opt_value_from_str("--workers")?.unwrap_or(4);
    let age: u64 = args.opt_value_from_str("--age")?.unwrap_or(1_209_600);
    let sweep_every: u64 = args.opt_value_from_str("--sweep-every")?.unwrap_or(300);
    if let [unknown, ..] = &*args.finish() {
        return Err(format!("unknown argument {}", unknown.display()).into());
    }

    let store = Arc::new(FileStore::open(dir)?);
    // Sweeps until it is dropped, or the process ends in whatever way.
    let sweeps = ReaperOptions::new().interval(Duration::from_secs(sweep_every));
    let _reaper = Reaper::start(
        &store,
        sweeps.observer(|swept| match swept {
            Ok(report) => report.errors.iter().for_each(complain),
            Err(error) => complain(error),
        }),
    )?;
    // Plain HTTP, because this runs on the machine it is tried on. A site uses `Cookies::https()`. A name of its own,
    // because a browser sends the cookies of 127.0.0.1 to all programs there, whatever their ports.
    let sessions = Sessions::new(store, Cookies::plain_http().name("visits"))?
        .with_lifetime(Lifetime::new().age(Duration::from_secs(age)))?
        .with_observer(|event| {
            // The visitor learns that something failed; the reason is written here.
            if let Event::Failed(error) = event {
                complain(error);
            }
        });
    let server = Server::http(("127.0.0.1", port))?;
    println!("listening on http://{}", server.server_addr());

    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                for request in server.incoming_requests() {
                    let answered = serve(&sessions, request, page);
                    answered.unwrap_or_else(|error| eprintln!("could not send a response: {error}"));
                }
            });
        }
    });
    Ok(())
}

/// Tells the operator.
fn complain(error: &sessile::Error) {
    eprintln!("{error} ({:?})", error.source().map(ToString::to_string));
}

/// One request. An error of the session is answered by the adapter.
fn page(request: &mut Request, session: &mut Session) -> sessile::Result<Body> {
    match (request.method(), request.url()) {
        (Method::Get, "/") => {
            // In the store and at once: two tabs that load together are two visits.
            let visits = session.update_now("visits", |n: &mut u64| {
                *n += 1;
                *n
            })?;
            Ok(html(&format!("<h1>visits: {visits}</h1>\n<p><a href=\"/reset\">forget me</a></p>")))
        }
        // A link or a prefetch changes nothing.
        (Method::Get, "/reset") => Ok(html(RESET)),
        // The cookie is SameSite=Lax: no other site can make a visitor's browser post this in the visitor's name.
        (Method::Post, "/reset") => {
            session.destroy()?;
            let home = Header::from_bytes("Location", "/forgotten").expect("a constant header");
            Ok(html("").with_status_code(303).with_header(home))
        }
        (Method::Get, "/forgotten") => Ok(html("<h1>forgotten</h1>\n<p><a href=\"/\">start again</a></p>")),
        _ => {
            Ok(html("<h1>not found</h1>\n<p><a href=\"/\">back to the visits</a></p>").with_status_code(404))
        }
    }
}

const RESET: &str = r#"<h1>forget me?</h1>
<form method="post" action="/reset"><button>forget my visits</button></form>
<p><a href="/">no, go on counting</a></p>"#;

fn html(body: &str) -> Body {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>visits</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <style>body {{ font: 1.2rem system-ui; margin: 4rem auto; max-width: 30rem; padding: 0 1rem }}</style>\n\
         {body}\n</html>\n"
    );
    let kind = Header::from_bytes("Content-Type", "text/html; charset=utf-8").expect("a constant header");
    Response::from_string(page).with_header(kind)
}
