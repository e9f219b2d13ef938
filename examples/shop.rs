//! A shop with a login and a cart that survive restarts: rouille, with `?` inside `router!`.
//!
//! ```text
//! cargo run --example shop -- --help
//! ```
use rouille::input::post::PostError;
use rouille::{Request, Response, Server, post_input, router};
use sessile::http::IntoResponse;
use sessile::http::rouille::serve;
use sessile::reaper::{Reaper, ReaperOptions};
use sessile::{Cookies, ErrorKind, Event, FileStore, Lifetime, Renewal, Session, Sessions};
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Requests handled at the same time.
const WORKERS: usize = 8;
/// Longest form, in bytes: several times the longest of ours.
const FORM_BYTES_MAX: usize = 4096;
/// Longest name and longest item, in bytes: the 50 characters that the page asks for, whatever they are.
const TEXT_BYTES_MAX: usize = 200;
const ITEMS_MAX: usize = 50;

const HELP: &str = "\
A small shop with a login and a cart that survive restarts.

Usage: cargo run --example shop -- [OPTIONS]

  --port PORT            where to listen on 127.0.0.1; 0 takes any free port [8001]
  --dir DIR              where the sessions are kept [shop-sessions]
  --age SECONDS          a user who does nothing for that long is logged out [1209600]
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
    let port: u16 = args.opt_value_from_str("--port")?.unwrap_or(8001);
    let dir: PathBuf = args.opt_value_from_str("--dir")?.unwrap_or_else(|| "shop-sessions".into());
    let age: u64 = args.opt_value_from_str("--age")?.unwrap_or(1_209_600);
    let sweep_every: u64 = args.opt_value_from_str("--sweep-every")?.unwrap_or(300);
    if let [unknown, ..] = &*args.finish() {
        return Err(format!("unknown argument {}", unknown.display()).into());
    }

    let store = Arc::new(FileStore::open(dir)?);
    // The server never returns: this sweeps until the process ends, in whatever way.
    let sweeps = ReaperOptions::new().interval(Duration::from_secs(sweep_every));
    let _reaper = Reaper::start(
        &store,
        sweeps.observer(|swept| match swept {
            Ok(report) => report.errors.iter().for_each(complain),
            Err(error) => complain(error),
        }),
    )?;
    // Reading counts as activity.
    let lifetime = Lifetime::new().age(Duration::from_secs(age)).renewal(Renewal::OnRead);
    // Plain HTTP, because this runs on the machine it is tried on. A site uses `Cookies::https()`. Either cookie is
    // SameSite=Lax: other sites cannot make a visitor's browser post our forms in the visitor's name. The name is the
    // shop's own, because a browser sends the cookies of 127.0.0.1 to all programs there, whatever their ports.
    let cookies = Cookies::plain_http().name("shop");
    let sessions = Sessions::new(store, cookies)?.with_lifetime(lifetime)?;
    let sessions = sessions.with_observer(|event| {
        // The visitor learns that something failed; the reason is written here.
        if let Event::Failed(error) = event {
            complain(error);
        }
    });
    let server = Server::new(("127.0.0.1", port), move |request| serve(&sessions, request, handle))?;
    println!("listening on http://{}", server.server_addr());
    server.pool_size(WORKERS).run();
    Ok(())
}

/// Tells the operator.
fn complain(error: &sessile::Error) {
    eprintln!("{error} ({:?})", error.source().map(ToString::to_string));
}

/// One request. It is saved here and not by the adapter, so that a failure to save is a page of the shop, too.
fn handle(request: &Request, session: &mut Session) -> Result<Response, Failure> {
    let response = route(request, session)?;
    if session.modified() {
        session.save()?;
    }
    Ok(response)
}

/// The changes of a handler that fails are dropped.
#[expect(clippy::needless_continue, reason = "there is one inside of `post_input!`")]
fn route(request: &Request, session: &mut Session) -> Result<Response, Failure> {
    router!(request,
        (GET) (/) => { shop(session) },
        (POST) (/login) => {
            check_length(request)?;
            let form = post_input!(request, { user: String })?;
            // The session moves to a new id; a guest's cart comes along, another user's does not.
            session.login(text(&form.user)?)?;
            Ok(Response::redirect_303("/"))
        },
        (POST) (/cart) => {
            check_length(request)?;
            let form = post_input!(request, { item: String })?;
            let item = text(&form.item)?.to_owned();
            // Runs again when the session is saved: of two tabs that add at the same time, both win.
            let cart = session.update("cart", move |cart: &mut Vec<String>| cart.push(item))?;
            if cart.len() > ITEMS_MAX {
                return Err(Failure::Form(400, "the cart is full"));
            }
            Ok(Response::redirect_303("/"))
        },
        (POST) (/logout) => {
            session.destroy()?;
            Ok(Response::redirect_303("/"))
        },
        _ => Err(Failure::Form(404, "there is no such page"))
    )
}

/// Why there is no page: something about the request, or a failure of the session.
enum Failure {
    Form(u16, &'static str),
    Session(sessile::Error),
}

impl From<PostError> for Failure {
    fn from(_: PostError) -> Self {
        Self::Form(400, "a field of the form is missing, or came twice")
    }
}

impl From<sessile::Error> for Failure {
    fn from(error: sessile::Error) -> Self {
        Self::Session(error)
    }
}

impl IntoResponse<Response> for Failure {
    fn is_error(&self) -> bool {
        true
    }
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::Form(status, text) => (status, text),
            // The visitor gets a status and a hint, the operator the reason.
            Self::Session(error) => {
                complain(&error);
                let hint = match error.kind() {
                    ErrorKind::Gone => "your session ended meanwhile, please try again",
                    ErrorKind::Busy => "the shop is busy, please try again",
                    _ => "something went wrong in the shop",
                };
                let plain: Response = error.into_response();
                (plain.status_code, hint)
            }
        };
        let body = format!("<section><p>{text}</p>\n<a href=\"/\">back to the shop</a></section>");
        html(&body).with_status_code(status)
    }
}

/// `post_input!` reads to the end whatever comes: only forms that announce a small end may come.
fn check_length(request: &Request) -> Result<(), Failure> {
    let length = request.header("Content-Length").and_then(|length| length.parse::<usize>().ok());
    match (length, request.header("Transfer-Encoding")) {
        (Some(..=FORM_BYTES_MAX), None) => Ok(()),
        (Some(_), None) => Err(Failure::Form(413, "the form is too large")),
        _ => Err(Failure::Form(411, "the form does not say how long it is")),
    }
}

fn text(field: &str) -> Result<&str, Failure> {
    match field.trim() {
        "" => Err(Failure::Form(400, "a field of the form is empty")),
        text if text.len() > TEXT_BYTES_MAX => Err(Failure::Form(400, "a field of the form is too long")),
        text => Ok(text),
    }
}

fn shop(session: &Session) -> Result<Response, Failure> {
    let user = session.user()?;
    let cart: Vec<String> = session.get("cart")?.unwrap_or_default();

    let name = escape(user.as_deref().unwrap_or("nobody yet"));
    let items = if cart.is_empty() { "nothing yet".into() } else { escape(&cart.join(", ")) };
    let account = if user.is_some() { LOGOUT } else { LOGIN };
    Ok(html(&format!(
        "<section><p>user: {name}</p>\n{account}</section>\n\
         <section><p>cart: {items}</p>\n{ADD}</section>"
    )))
}

/// A page of the shop.
fn html(body: &str) -> Response {
    Response::html(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>shop</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <style>{STYLE}</style></head>\n\
         <body><main>\n<h1>A small shop</h1>\n{body}\n</main></body></html>\n"
    ))
}

const LOGIN: &str = r#"<form method="post" action="/login">
<input name="user" placeholder="your name" aria-label="your name" required maxlength="50">
<button>log in</button></form>
"#;
const LOGOUT: &str = r#"<form method="post" action="/logout"><button class="quiet">log out</button></form>
"#;
const ADD: &str = r#"<form method="post" action="/cart">
<input name="item" placeholder="an apple, say" aria-label="item" required maxlength="50">
<button>add to cart</button></form>
"#;

const STYLE: &str = "
* { box-sizing: border-box }
body { margin: 0; padding: 1rem; background: #f3f1ec; color: #22302b }
body { font: 1.05rem/1.5 system-ui, sans-serif }
main { max-width: 34rem; margin: 6vh auto }
h1 { font-size: 1.7rem; margin: 0 0 1rem }
section { background: #fff; border-radius: .75rem; padding: 1.25rem; margin: 0 0 1rem }
section { box-shadow: 0 1px 4px #0002 }
p { margin: 0 0 1rem; overflow-wrap: anywhere }
form { display: flex; flex-wrap: wrap; gap: .6rem }
input, button { font: inherit; padding: .5rem .9rem; border: 1px solid #b9c2bd; border-radius: .5rem }
input { flex: 1 1 12rem; min-width: 0 }
button { background: #1f6f54; border-color: #1f6f54; color: #fff; cursor: pointer }
button.quiet { background: none; color: #1f6f54 }
";

/// Text as it may stand in HTML, also inside of an attribute.
fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}
