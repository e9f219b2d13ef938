//! The reasons for which a request gets no page of its own. Each is a page with a way back.
use crate::html;
use rouille::Response;
use sessile::http::IntoResponse;
use sessile::{Error, ErrorKind};

pub(crate) enum Failure {
    /// Something about the request: the status, and the text for the visitor.
    Refused(u16, &'static str),
    /// The form carries no token of this session, so another site may have sent it.
    Forged,
    /// The page is one of a user, and no user is logged in.
    LoggedOut,
    Session(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Session(error)
    }
}

/// The changes of a handler that fails are dropped.
impl IntoResponse<Response> for Failure {
    fn is_error(&self) -> bool {
        true
    }

    /// The observer tells the operator the reason; the visitor gets a status and a hint.
    fn session_error(&self) -> Option<&Error> {
        match self {
            Self::Session(error) => Some(error),
            _ => None,
        }
    }

    fn into_response(self) -> Response {
        let (status, title, text) = match self {
            Self::Refused(404, text) => (404, "No such page", text),
            Self::Refused(status, text) => (status, "That did not work", text),
            Self::Forged => (
                403,
                "This page was out of date",
                "You have logged in or out since it was loaded, or your session has ended. Nothing was changed.",
            ),
            Self::LoggedOut => (403, "You are logged out", "Log in to see your devices and your account."),
            Self::Session(error) => {
                let (title, text) = match error.kind() {
                    ErrorKind::Gone => (
                        "Your session has changed",
                        "Another tab or device has ended or renewed it. Nothing was changed; please try again.",
                    ),
                    ErrorKind::Busy => ("One moment", "The shop is busy. Please try again."),
                    _ => ("Sorry", "Something went wrong in the shop. Please try again later."),
                };
                let plain: Response = error.into_response();
                (plain.status_code, title, text)
            }
        };
        html::error_page(title, text).with_status_code(status)
    }
}
