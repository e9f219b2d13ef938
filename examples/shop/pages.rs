//! The pages of the shop: what they read from the session, and their HTML.
use crate::cart::{Cart, ITEMS_MAX};
use crate::failure::Failure;
use crate::handlers::user;
use crate::html::{Page, escape};
use crate::{Shop, words};
use rouille::Response;
use serde::Serialize;
use sessile::{ErrorKind, PublicId, Session, UserSession};
use std::fmt::Write as _;
use std::time::SystemTime;

/// What each page shows of its session.
struct Visitor {
    user: Option<String>,
    id: Option<PublicId>,
    expiry: String,
    messages: Vec<String>,
    /// The hidden field of each form.
    csrf: String,
}

impl Visitor {
    /// Reads the session, and renews it. Takes the messages, so this is called when nothing else of the page can fail.
    fn of(session: &mut Session) -> sessile::Result<Self> {
        let token = match session.csrf_token() {
            Err(error) if error.kind() == ErrorKind::Gone => return Ok(Self::moved()),
            token => token?,
        };
        let csrf = format!("<input type=\"hidden\" name=\"csrf\" value=\"{token}\">");
        let user = session.user()?;
        // The deadline that the page shows is then the one that its visit has set.
        session.save()?;
        let (id, expiry) = (session.public_id()?, words::expiry(session.remaining()?));
        Ok(Self { user, id, expiry, messages: session.take_flash()?, csrf })
    }

    /// A login in another request has moved the session to an id that this request does not have yet: it was beside
    /// this one, or its answer was lost. Nothing may be stored now, but the visitor can still log in.
    fn moved() -> Self {
        let message = "You have just logged in, in another tab perhaps. Load the page again, or log in here.";
        Self {
            user: None,
            id: None,
            expiry: "now".into(),
            messages: vec![message.into()],
            csrf: String::from("<input type=\"hidden\" name=\"csrf\" value=\"\">"),
        }
    }

    /// A form that has its token, and these parts of its own.
    fn form(&self, action: &str, class: &str, parts: &str) -> String {
        let csrf = &self.csrf;
        format!("<form method=\"post\" action=\"{action}\" class=\"{class}\">{csrf}{parts}</form>\n")
    }

    /// The part of the header for a user.
    fn menu(&self) -> String {
        let Some(user) = &self.user else { return String::new() };
        let user = escape(user);
        let log_out = self.form("/logout", "inline", "<button class=\"quiet\">Log out</button>");
        format!(
            "<nav aria-label=\"Account\"><span class=\"who\">Logged in as <strong id=\"user\">{user}</strong></span>\n\
             <a href=\"/devices\">Devices</a>\n{log_out}</nav>\n"
        )
    }

    /// The box about this session. The line at its end is filled by the script, for a user.
    fn session_box(&self, shop: &Shop) -> String {
        let id = self.id.map(|id| id.to_string()).unwrap_or_default();
        // A long path breaks behind its slashes.
        let (short, place) = (short(&id), escape(&shop.place).replace('/', "/<wbr>"));
        let live = if self.user.is_some() { LIVE } else { "" };
        format!(
            "<section class=\"card session\" aria-labelledby=\"session-title\">\n\
             <h2 id=\"session-title\">This session</h2>\n<dl>\n\
             <div><dt>Public id</dt><dd><code id=\"session-id\" data-id=\"{id}\" title=\"{id}\">{short}</code></dd></div>\n\
             <div><dt>Ends</dt><dd id=\"session-expiry\">{}</dd></div>\n\
             <div><dt>Kept in</dt><dd><code id=\"session-store\">{place}</code></dd></div>\n</dl>\n{live}</section>\n",
            self.expiry
        )
    }
}

/// The line that the script fills. Without a script it is not shown.
const LIVE: &str = "<p id=\"live\" data-state=\"connecting\" role=\"status\" hidden>Connecting…</p>\n";

/// The beginning of a public id, enough to tell a visitor's sessions apart.
fn short(id: &str) -> String {
    format!("{}…", id.chars().take(8).collect::<String>())
}

/// `GET /`
pub(crate) fn shop(shop: &Shop, session: &mut Session) -> Result<Response, Failure> {
    let cart = Cart::of(session)?;
    let visitor = Visitor::of(session)?;
    let log_in = if visitor.user.is_some() { String::new() } else { log_in_card(&visitor) };
    let body = format!(
        "<div class=\"columns\">\n{}<div class=\"side\">\n{log_in}{}</div>\n</div>\n",
        cart_card(&visitor, &cart),
        visitor.session_box(shop)
    );
    let page = Page { name: "shop", title: "Fill your cart", menu: visitor.menu(), body, ..Page::default() };
    Ok(Page { messages: &visitor.messages, ..page }.response())
}

fn log_in_card(visitor: &Visitor) -> String {
    let fields = "<div class=\"field\"><label for=\"login-user\">Your name</label>\n\
                  <input id=\"login-user\" name=\"user\" required maxlength=\"50\" autocomplete=\"username\" \
                  aria-describedby=\"login-hint\"></div>\n<button>Log in</button>";
    format!(
        "<section class=\"card\" aria-labelledby=\"login-title\">\n<h2 id=\"login-title\">Log in</h2>\n{}\
         <p class=\"hint\" id=\"login-hint\">This is a demonstration: any name will do, and no password is asked. \
         Your cart comes along.</p></section>\n",
        visitor.form("/login", "row", fields)
    )
}

fn cart_card(visitor: &Visitor, cart: &Cart) -> String {
    let count = cart.items.len();
    let mut list = String::new();
    for item in &cart.items {
        let name = escape(&item.name);
        let parts = format!(
            "<input type=\"hidden\" name=\"item\" value=\"{}\">\
             <button class=\"quiet\" aria-label=\"Remove {name}\">Remove</button>",
            item.number
        );
        let remove = visitor.form("/cart/remove", "inline", &parts);
        let _ = writeln!(list, "<li><span class=\"name\">{name}</span>{remove}</li>");
    }
    let (heading, list) = if count == 0 {
        (
            "Cart".into(),
            "<p class=\"empty\">Your cart is empty. The items that you add are listed here.</p>\n".into(),
        )
    } else {
        let heading = format!("Cart <span class=\"count\">{}</span>", words::count(count as u64, "item"));
        (heading, format!("<ul id=\"cart\" class=\"list\">\n{list}</ul>\n"))
    };
    let add = if count < ITEMS_MAX {
        let fields = "<div class=\"field\"><label for=\"cart-item\">Item</label>\n\
                      <input id=\"cart-item\" name=\"item\" placeholder=\"Apples, for example\" required \
                      maxlength=\"50\" autocomplete=\"off\"></div>\n<button>Add to cart</button>";
        visitor.form("/cart", "row", fields)
    } else {
        format!("<p class=\"hint\">The cart is full: {ITEMS_MAX} items fit.</p>\n")
    };
    format!(
        "<section class=\"card\" aria-labelledby=\"cart-title\">\n<h2 id=\"cart-title\">{heading}</h2>\n\
         {add}{list}</section>\n"
    )
}

/// `GET /devices`
pub(crate) fn devices(shop: &Shop, session: &mut Session) -> Result<Response, Failure> {
    let user = user(session)?;
    let mut listed = shop.sessions.sessions_of(&user, &sessile::Page::default())?;
    let is_fresh = session.is_fresh(shop.fresh)?;
    let visitor = Visitor::of(session)?;
    // This device first, then the others by their last activity.
    let is_this = |device: &UserSession| Some(device.id) == visitor.id;
    listed.sessions.sort_by_key(|device| (!is_this(device), std::cmp::Reverse(device.last_seen)));
    let mut list = String::new();
    for device in &listed.sessions {
        list += &device_line(&visitor, device, is_this(device));
    }
    let has_more = listed.next.is_some() || !listed.complete;
    let others = if has_more || listed.sessions.iter().any(|device| !is_this(device)) {
        visitor.form(
            "/devices/end-others",
            "end",
            "<button class=\"quiet\">Log out all other devices</button>",
        )
    } else {
        "<p class=\"empty\">You are logged in on no other device.</p>\n".into()
    };
    let more =
        if has_more { "<p class=\"hint\">There may be more devices than are listed here.</p>\n" } else { "" };
    let body = format!(
        "<div class=\"columns\">\n<section class=\"card\" aria-labelledby=\"devices-title\">\n\
         <h2 id=\"devices-title\">Logged in <span class=\"count\">{}</span></h2>\n<ul class=\"list\">\n{list}</ul>\n{more}{others}</section>\n\
         <div class=\"side\">\n{}{}</div>\n</div>\n",
        words::count(listed.sessions.len() as u64, "device"),
        visitor.session_box(shop),
        close_card(&visitor, is_fresh)
    );
    let page = Page { name: "devices", title: "Your devices", menu: visitor.menu(), body, ..Page::default() };
    Ok(Page { messages: &visitor.messages, ..page }.response())
}

fn device_line(visitor: &Visitor, device: &UserSession, is_this: bool) -> String {
    let id = device.id.to_string();
    let ago = |time: SystemTime| words::ago(time.elapsed().unwrap_or_default());
    // The note comes from the visitor.
    let note = escape(device.device_note.as_deref().unwrap_or("Unknown browser"));
    let (class, badge) =
        if is_this { (" this", " <span class=\"badge\">this device</span>") } else { ("", "") };
    // The time of the last renewal: an activity that moves the deadline by too little leaves it as it is.
    let seen = if is_this { "Active now".into() } else { format!("Last seen {}", ago(device.last_seen)) };
    let logged_in = device.last_login.map(|time| format!(" · logged in {}", ago(time))).unwrap_or_default();
    let parts = format!(
        "<input type=\"hidden\" name=\"id\" value=\"{id}\">\
         <button class=\"quiet\" aria-label=\"Log out {note}, session {short}\">Log out</button>",
        short = short(&id)
    );
    format!(
        "<li class=\"device{class}\" data-id=\"{id}\"><div><p class=\"name\">{note}{badge}</p>\n\
         <p class=\"hint\">{seen}{logged_in} · <code title=\"{id}\">{}</code></p></div>\n{}</li>\n",
        short(&id),
        visitor.form("/devices/end", "inline", &parts)
    )
}

fn close_card(visitor: &Visitor, is_fresh: bool) -> String {
    let note = if is_fresh { "" } else { " You will be asked to log in again." };
    format!(
        "<section class=\"card\" aria-labelledby=\"close-title\">\n<h2 id=\"close-title\">Close the account</h2>\n\
         <p>Empties your cart and logs you out on all devices.{note}</p>\n{}</section>\n",
        visitor.form("/account/close", "end", "<button class=\"danger\">Close my account</button>")
    )
}

/// `GET /confirm`, and the page again if the form was wrong.
pub(crate) fn confirm(shop: &Shop, session: &mut Session, wrong: Option<&str>) -> Result<Response, Failure> {
    let user = escape(&user(session)?);
    let visitor = Visitor::of(session)?;
    let alert =
        wrong.map(|text| format!("<p class=\"error\" id=\"confirm-error\" role=\"alert\">{text}</p>\n"));
    let invalid = if wrong.is_some() {
        " aria-invalid=\"true\" aria-describedby=\"confirm-error\" autofocus"
    } else {
        ""
    };
    let fields = format!(
        "<div class=\"field\"><label for=\"confirm-user\">Your name</label>\n\
         <input id=\"confirm-user\" name=\"user\" required maxlength=\"50\" autocomplete=\"off\"{invalid}></div>\n\
         <button>Confirm</button>"
    );
    let body = format!(
        "<section class=\"card\">\n<p>You can close your account within {} after a login. Log in once more as \
         <strong>{user}</strong>.</p>\n<p class=\"hint\">This is a demonstration: type your name. A site asks for the \
         password.</p>\n\
         {}{}<p class=\"way-back\"><a href=\"/devices\">Back to your devices</a></p></section>\n",
        words::span(shop.fresh),
        alert.unwrap_or_default(),
        visitor.form("/confirm", "row", &fields)
    );
    let page =
        Page { name: "confirm", title: "Is it still you?", menu: visitor.menu(), body, ..Page::default() };
    Ok(Page { messages: &visitor.messages, narrow: true, ..page }.response())
}

/// The answer to the script of the page, each few seconds.
#[derive(Serialize)]
struct Status {
    user: Option<String>,
    id: Option<String>,
    expiry: Option<String>,
}

/// `GET /status`. A page that is left open does not keep its session alive, and a visitor without a session gets none.
pub(crate) fn status(session: &mut Session) -> Result<Response, Failure> {
    session.passive();
    let id = session.public_id()?.map(|id| id.to_string());
    let expiry = if id.is_some() { Some(words::expiry(session.remaining()?)) } else { None };
    let status = Status { user: session.user()?, id, expiry };
    Ok(Response::json(&status).with_unique_header("Cache-Control", "no-store"))
}
