//! The types that a handler may return, for any server: a response, or a `Result` whose error renders a response too.
//! Knows no server; an adapter implements [`ServerResponse`] for its server's response type.
use crate::error::{Error, ErrorKind};
use crate::shown::causes;
use std::error::Error as StdError;

/// The response type of a server. The adapter for that server implements it.
pub trait ServerResponse: Sized {
    /// The status code of the response.
    fn status(&self) -> u16;

    /// A plain-text response, for a request that failed. Must not panic.
    fn plain_text(status: u16, text: &'static str) -> Self;
}

/// A type that a handler may return to a server with responses of type `R`: a response, or a `Result` of one.
///
/// The error of that `Result` is an [`Error`], a `Box<dyn Error + Send + Sync>` for a handler that meets errors of
/// several kinds, or a type of the program's own that implements this trait:
///
/// ```
/// use sessile::http::{IntoResponse, ServerResponse};
///
/// enum Failure {
///     NoSuchPage,
///     Session(sessile::Error),
/// }
///
/// impl<R: ServerResponse> IntoResponse<R> for Failure {
///     fn is_error(&self) -> bool {
///         true
///     }
///     fn session_error(&self) -> Option<&sessile::Error> {
///         match self {
///             Self::NoSuchPage => None,
///             Self::Session(error) => Some(error),
///         }
///     }
///     fn into_response(self) -> R {
///         match self {
///             Self::NoSuchPage => R::plain_text(404, "there is no such page\n"),
///             Self::Session(error) => error.into_response(),
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "this is what the handler returns",
    note = "a handler returns a response of its server (`{R}`), or a `Result` of one",
    note = "the error of that `Result` is a `sessile::Error`, a `Box<dyn std::error::Error + Send + Sync>` (for which `?` takes any \
            error), or a type of your own that implements `sessile::http::IntoResponse`"
)]
pub trait IntoResponse<R> {
    /// Whether this is an error of the handler. The handler's changes are then dropped.
    fn is_error(&self) -> bool {
        false
    }

    /// The session's error that caused this one, for the observer; the visitor sees no details.
    fn session_error(&self) -> Option<&Error> {
        None
    }

    /// The program's own error that caused this one. The observer gets its text in an [`ErrorKind::Handler`]. Not
    /// called if there is a [`session_error`](Self::session_error).
    fn program_error(&self) -> Option<&(dyn StdError + 'static)> {
        None
    }

    /// Converts this into the response.
    fn into_response(self) -> R;
}

impl<R, T: IntoResponse<R>, E: IntoResponse<R>> IntoResponse<R> for Result<T, E> {
    fn is_error(&self) -> bool {
        self.as_ref().map_or(true, T::is_error)
    }
    fn session_error(&self) -> Option<&Error> {
        match self {
            Ok(response) => response.session_error(),
            Err(error) => error.session_error(),
        }
    }
    fn program_error(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Ok(response) => response.program_error(),
            Err(error) => error.program_error(),
        }
    }
    fn into_response(self) -> R {
        match self {
            Ok(response) => response.into_response(),
            Err(error) => error.into_response(),
        }
    }
}

/// Rendered without details, which are for logs: 409 for a session that is gone, 503 for a busy one and for a store
/// that cannot be reached, 507 for a full disk, else 500.
impl<R: ServerResponse> IntoResponse<R> for Error {
    fn is_error(&self) -> bool {
        true
    }
    fn session_error(&self) -> Option<&Error> {
        Some(self)
    }
    fn into_response(self) -> R {
        failure(&self)
    }
}

/// Rendered without details: with the status of the [`Error`] that it is or that caused it, else as 500.
///
/// The observer gets its text, as [`Event::Failed`](crate::Event::Failed).
impl<R: ServerResponse> IntoResponse<R> for Box<dyn StdError + Send + Sync> {
    fn is_error(&self) -> bool {
        true
    }
    fn session_error(&self) -> Option<&Error> {
        causes(&**self).find_map(|cause| cause.downcast_ref())
    }
    fn program_error(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&**self)
    }
    fn into_response(self) -> R {
        match IntoResponse::<R>::session_error(&self) {
            Some(error) => failure(error),
            None => R::plain_text(500, "The server could not handle your request.\n"),
        }
    }
}

/// The response to a visitor whose session failed: one line; only the observer gets details.
pub(super) fn failure<R: ServerResponse>(error: &Error) -> R {
    let (status, text) = match error.kind() {
        ErrorKind::Gone => {
            (409, "Your session ended or changed while this request was under way. Please try again.\n")
        }
        ErrorKind::TooManySessions => {
            (409, "You are logged in on too many devices. Please log out on one of them.\n")
        }
        ErrorKind::Busy => (503, "Your session is busy. Please try again.\n"),
        ErrorKind::Unavailable => (503, "Your session cannot be reached at the moment. Please try again.\n"),
        ErrorKind::Unanswered => (500, "The server could not find out whether your change was saved.\n"),
        ErrorKind::Full => (507, "The server cannot store your session at the moment.\n"),
        _ => (500, "The server could not handle your session.\n"),
    };
    R::plain_text(status, text)
}
