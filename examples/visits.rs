//! Counts a visitor's visits, across restarts: tiny_http with several worker threads.
//!
//! ```text
//! cargo run --example visits -- [--port 8000] [--dir visits-sessions] [--workers 4]
//! ```
//!
//! `--port 0` takes any free port. When the server is ready it prints one line, `listening on http://127.0.0.1:PORT`.
use sessile::http::tiny_http::serve;
use sessile::{Cookies, Event, FileStore, Session, Sessions};
use std::error::Error;
use std::path::PathBuf;
use tiny_http::{Header, Request, Response, Server};

type Body = Response<std::io::Cursor<Vec<u8>>>;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut args = pico_args::Arguments::from_env();
    let port: u16 = args.opt_value_from_str("--port")?.unwrap_or(8000);
    let dir: PathBuf = args.opt_value_from_str("--dir")?.unwrap_or_else(|| "visits-sessions".into());
    let workers: usize = args.opt_value_from_str("--workers")?.unwrap_or(4);
    if let [unknown, ..] = &*args.finish() {
        return Err(format!("unknown argument {}", unknown.display()).into());
    }

    // Plain HTTP, because this runs on the machine it is tried on. A site uses `Cookies::https()`.
    // The visitor is told that something failed; what it was is told here.
    let sessions = Sessions::new(FileStore::open(dir)?, Cookies::plain_http())?.with_observer(|event| {
        if let Event::Failed(error) = event {
            eprintln!("{error} ({:?})", error.source().map(ToString::to_string));
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

/// One request. An error of the session is answered by the adapter.
fn page(request: &mut Request, session: &mut Session) -> sessile::Result<Body> {
    match request.url() {
        "/" => {
            // In the store and at once: two tabs that load together are two visits.
            let visits = session.update_now("visits", |n: &mut u64| {
                *n += 1;
                *n
            })?;
            Ok(html(&format!("<h1>visits: {visits}</h1>\n<p><a href=\"/reset\">forget me</a></p>")))
        }
        "/reset" => {
            session.destroy()?;
            Ok(html("<h1>forgotten</h1>\n<p><a href=\"/\">start again</a></p>"))
        }
        _ => Ok(html("<h1>not found</h1>").with_status_code(404)),
    }
}

fn html(body: &str) -> Body {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>visits</title>\n\
         <style>body {{ font: 1.2rem system-ui; margin: 4rem auto; max-width: 30rem }}</style>\n{body}\n</html>\n"
    );
    let kind = Header::from_bytes("Content-Type", "text/html; charset=utf-8").expect("a constant header");
    Response::from_string(page).with_header(kind)
}
