//! The frame of every page, and the headers of every response. Knows no session.
use rouille::{Request, Response};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Nothing is loaded from elsewhere, no script and no style is in a page, and no other site shows ours in a frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A page: the name that `data-page` has, its title and its parts. All parts but the title are HTML.
#[derive(Default)]
pub(crate) struct Page<'a> {
    pub(crate) name: &'a str,
    pub(crate) title: &'a str,
    pub(crate) menu: String,
    pub(crate) messages: &'a [String],
    pub(crate) body: String,
    /// Whether the page is narrow: one column of text.
    pub(crate) narrow: bool,
}

impl Page<'_> {
    pub(crate) fn response(&self) -> Response {
        let Self { name, menu, body, .. } = self;
        let title = escape(self.title);
        let narrow = if self.narrow { " class=\"narrow\"" } else { "" };
        let flash = flash(self.messages);
        let html = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} · Corner shop</title>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <link rel=\"stylesheet\" href=\"/style.css\"><link rel=\"icon\" href=\"/icon.svg\">\n\
             <script src=\"/shop.js\" defer></script></head>\n\
             <body>\n<header><div class=\"bar\">\n<a class=\"brand\" href=\"/\">Corner shop</a>\n{menu}</div></header>\n\
             <main data-page=\"{name}\"{narrow}>\n{flash}<h1>{title}</h1>\n{body}</main>\n\
             <footer><p>A demonstration of <strong>sessile</strong>, sessions for synchronous Rust servers.</p></footer>\n\
             </body></html>\n"
        );
        // The page is of one visitor, at one moment: the back button after a logout must not show it.
        Response::html(html).with_unique_header("Cache-Control", "no-store")
    }
}

/// The messages that are shown once. They may have texts of visitors in them.
fn flash(messages: &[String]) -> String {
    if messages.is_empty() {
        return String::new();
    }
    let mut html = String::from("<div id=\"flash\" role=\"status\">\n");
    for message in messages {
        let _ = writeln!(html, "<p>{}</p>", escape(message));
    }
    html + "</div>\n"
}

/// A page for a request that failed. It uses no session, which may be the thing that failed.
pub(crate) fn error_page(title: &str, text: &str) -> Response {
    let body = format!(
        "<section class=\"card\"><p>{}</p>\n<p class=\"way-back\"><a href=\"/\">Back to the shop</a></p></section>\n",
        escape(text)
    );
    Page { name: "error", title, body, narrow: true, ..Page::default() }.response()
}

/// A file that all visitors share. A browser asks whether it has changed, and gets it only then.
pub(crate) fn asset(request: &Request) -> Option<Response> {
    let (kind, text) = match &*request.url() {
        "/style.css" => ("text/css", include_str!("assets/style.css")),
        "/shop.js" => ("text/javascript", include_str!("assets/shop.js")),
        "/icon.svg" => ("image/svg+xml", include_str!("assets/icon.svg")),
        _ => return None,
    };
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let response = Response::from_data(format!("{kind}; charset=utf-8"), text);
    let response = response.with_etag(request, format!("{:016x}", hasher.finish()));
    Some(response.with_unique_header("Cache-Control", "no-cache"))
}

pub(crate) fn with_security_headers(response: Response) -> Response {
    response
        .with_unique_header("Content-Security-Policy", POLICY)
        .with_unique_header("Referrer-Policy", "same-origin")
        .with_unique_header("X-Content-Type-Options", "nosniff")
}

/// Text as it may stand in HTML, also inside of an attribute.
pub(crate) fn escape(text: &str) -> String {
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
