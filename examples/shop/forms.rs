//! The fields of a form that was sent, and the proof that a page of this session has sent it.
use crate::failure::Failure;
use rouille::Request;
use rouille::input::post::raw_urlencoded_post_input;
use sessile::Session;

/// Longest form, in bytes: several times the longest of ours.
const FORM_BYTES_MAX: usize = 4096;
/// Longest name and longest item, in bytes: the 50 characters that the page asks for, whatever they are.
const TEXT_BYTES_MAX: usize = 200;

pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// The form of a request, if a page of this session has sent it. To be asked before anything is changed.
    pub(crate) fn of(request: &Request, session: &Session) -> Result<Self, Failure> {
        let form = Self::read(request)?;
        if form.is_of(session)? { Ok(form) } else { Err(Failure::Forged) }
    }

    /// The form of a login. It may also come from a session that is gone, if a page of this site has sent it: when a
    /// visitor presses the button twice, the first request has moved the session to a new id, and the browser may
    /// never see the answer. The second one then logs in again.
    pub(crate) fn of_login(request: &Request, session: &Session) -> Result<Self, Failure> {
        let form = Self::read(request)?;
        let may_login = form.is_of(session)? || session.public_id()?.is_none() && is_same_origin(request);
        if may_login { Ok(form) } else { Err(Failure::Forged) }
    }

    fn is_of(&self, session: &Session) -> Result<bool, Failure> {
        let token = self.only("csrf").unwrap_or_default();
        Ok(session.is_csrf_token(token)?)
    }

    fn read(request: &Request) -> Result<Self, Failure> {
        // rouille reads to the end whatever comes: only forms that announce a small end may come.
        let length = request.header("Content-Length").and_then(|length| length.parse::<usize>().ok());
        match (length, request.header("Transfer-Encoding")) {
            (Some(..=FORM_BYTES_MAX), None) => {}
            (Some(_), None) => return Err(Failure::Refused(413, "The form is too large.")),
            _ => return Err(Failure::Refused(411, "The form does not say how long it is.")),
        }
        raw_urlencoded_post_input(request)
            .map(Self)
            .map_err(|_| Failure::Refused(400, "The request has no form that the shop can read."))
    }

    /// The value of a field that came exactly once.
    fn only(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(field, _)| field == name).map(|(_, value)| &**value);
        values.next().filter(|_| values.next().is_none())
    }

    /// The text of a field that a visitor has filled in.
    pub(crate) fn text(&self, name: &str) -> Result<&str, Failure> {
        let refused = |text| Err(Failure::Refused(400, text));
        match self.only(name).map(str::trim) {
            None => refused("A field of the form is missing, or came twice."),
            Some("") => refused("A field of the form is empty."),
            Some(text) if text.len() > TEXT_BYTES_MAX => refused("A field of the form is too long."),
            Some(text) => Ok(text),
        }
    }
}

/// Whether the browser says that a page of this site has sent the form. A request without an `Origin` is not trusted.
fn is_same_origin(request: &Request) -> bool {
    let host = request.header("Host");
    let origin = request.header("Origin").and_then(|origin| origin.split_once("://"));
    origin.is_some_and(|(_, origin)| host == Some(origin))
}
