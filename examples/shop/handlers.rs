//! The routes of the shop, and what each does with the session.
use crate::Shop;
use crate::cart::Cart;
use crate::failure::Failure;
use crate::forms::Form;
use crate::{html, live, pages, words};
use rouille::{Request, Response, router};
use sessile::{PublicId, Session};

type Answer = Result<Response, Failure>;

impl Shop {
    /// One request. It is saved here and not by the adapter, so that a failure to save is a page of the shop, too.
    pub(crate) fn handle(&self, request: &Request, session: &mut Session) -> Answer {
        let response = self.route(request, session)?;
        if session.modified() {
            session.save()?;
        }
        Ok(response)
    }

    fn route(&self, request: &Request, session: &mut Session) -> Answer {
        router!(request,
            (GET) (/) => { pages::shop(self, session) },
            (GET) (/devices) => { pages::devices(self, session) },
            (GET) (/confirm) => { pages::confirm(self, session, None) },
            (GET) (/status) => { pages::status(session) },
            (GET) (/live) => { self.live(session) },
            (POST) (/login) => { log_in(request, session) },
            (POST) (/logout) => { log_out(request, session) },
            (POST) (/cart) => { add_item(request, session) },
            (POST) (/cart/remove) => { remove_item(request, session) },
            (POST) (/devices/end) => { self.end_device(request, session) },
            (POST) (/devices/end-others) => { self.end_other_devices(request, session) },
            (POST) (/account/close) => { self.close_account(request, session) },
            (POST) (/confirm) => { self.confirm(request, session) },
            // Files use no session.
            _ => html::asset(request).ok_or(Failure::Refused(404, "There is no page at this address."))
        )
    }

    /// The stream is no activity of the visitor, and begins when the request is over.
    fn live(&self, session: &mut Session) -> Answer {
        session.passive();
        Ok(match (session.user()?, session.public_id()?) {
            (Some(_), Some(id)) => live::stream(&self.sessions, &self.streams, id),
            _ => live::ended(),
        })
    }

    /// Ends one device of the user. The id comes from a form: a session of another user is left alone.
    fn end_device(&self, request: &Request, session: &mut Session) -> Answer {
        let user = user(session)?;
        let form = Form::of(request, session)?;
        let id = PublicId::parse(form.text("id")?);
        let id = id.ok_or(Failure::Refused(400, "The form names no device."))?;
        if session.public_id()? == Some(id) {
            return end_this_device(session);
        }
        let ended = self.sessions.end_session_of(&user, &id)?;
        session.flash(if ended.is_some() {
            "The device is logged out."
        } else {
            "That device is logged out already."
        })?;
        Ok(Response::redirect_303("/devices"))
    }

    fn end_other_devices(&self, request: &Request, session: &mut Session) -> Answer {
        let user = user(session)?;
        Form::of(request, session)?;
        self.sessions.delete_of(&user, Some(session))?;
        session.flash("All other devices are logged out.")?;
        Ok(Response::redirect_303("/devices"))
    }

    /// The dangerous action: it asks for a login that is a few minutes old at most, however long the session has been
    /// in use.
    fn close_account(&self, request: &Request, session: &mut Session) -> Answer {
        let user = user(session)?;
        Form::of(request, session)?;
        if !session.is_fresh(self.fresh)? {
            return Ok(Response::redirect_303("/confirm"));
        }
        self.sessions.delete_of(&user, None)?;
        // This session has ended with the others, and its cart. `destroy` removes the cookie as well.
        session.destroy()?;
        session.flash("Your account is closed: the cart is empty, and all devices are logged out.")?;
        Ok(Response::redirect_303("/"))
    }

    /// The login before a dangerous action: of the same user, whose session and cart stay.
    fn confirm(&self, request: &Request, session: &mut Session) -> Answer {
        let form = Form::of_login(request, session)?;
        let name = form.text("user")?;
        if session.user()?.is_some_and(|user| user != name) {
            let page =
                pages::confirm(self, session, Some("This is not the name that you are logged in with."))?;
            return Ok(page.with_status_code(403));
        }
        session.login_from(name, &device(request))?;
        session.flash("Thank you. You can close your account now.")?;
        Ok(Response::redirect_303("/devices"))
    }
}

/// The user who is logged in.
pub(crate) fn user(session: &Session) -> Result<String, Failure> {
    session.user()?.ok_or(Failure::LoggedOut)
}

/// The browser and the system, for the page of devices.
fn device(request: &Request) -> String {
    words::device(request.header("User-Agent").unwrap_or_default())
}

/// A demonstration: a site checks a password here.
fn log_in(request: &Request, session: &mut Session) -> Answer {
    let form = Form::of_login(request, session)?;
    let name = form.text("user")?;
    // The session moves to a new id; a guest's cart comes along, another user's does not.
    session.login_from(name, &device(request))?;
    session.flash(format!("Welcome, {name}."))?;
    Ok(Response::redirect_303("/"))
}

fn log_out(request: &Request, session: &mut Session) -> Answer {
    // The button was pressed twice, or the session has ended: there is nothing that a forged form could end.
    if session.user()?.is_none() {
        return Ok(Response::redirect_303("/"));
    }
    Form::of(request, session)?;
    end_this_device(session)
}

fn end_this_device(session: &mut Session) -> Answer {
    // The session has ended on the disk when this returns. The message begins a new one, of a guest.
    session.destroy()?;
    session.flash("You are logged out.")?;
    Ok(Response::redirect_303("/"))
}

fn add_item(request: &Request, session: &mut Session) -> Answer {
    let form = Form::of(request, session)?;
    let item = form.text("item")?;
    if !Cart::add(session, item)? {
        return Err(Failure::Refused(400, "The cart is full."));
    }
    session.flash(format!("{item} is in your cart."))?;
    Ok(Response::redirect_303("/"))
}

fn remove_item(request: &Request, session: &mut Session) -> Answer {
    let form = Form::of(request, session)?;
    let number = form.text("item")?.parse();
    let number = number.map_err(|_| Failure::Refused(400, "The form names no item."))?;
    // A second click finds the item gone, and says nothing: the first one has its message.
    if let Some(item) = Cart::remove(session, number)? {
        session.flash(format!("{} is no longer in your cart.", item.name))?;
    }
    Ok(Response::redirect_303("/"))
}
