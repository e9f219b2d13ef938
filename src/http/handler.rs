//! What every adapter does around a handler: run it, contain its panics, save before responding, and turn what fails
//! into a status. Knows no server.
use super::{Headers, SaveError, Sessions, Visit};
use crate::contained::contained;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::session::Session;
use std::error::Error as StdError;
use std::iter::successors;

/// Longest text of a handler's error that the observer is told, in characters.
const ERROR_CHARS_MAX: usize = 1000;

/// What a handler made: a response, and whether it is one that keeps the session's changes.
pub(super) struct Handled<R> {
    pub(super) response: R,
    pub(super) status: u16,
    /// False for a handler's error: its changes are dropped, whatever status it is rendered with.
    pub(super) keep: bool,
}

/// What the adapter has to send: the handler's response, or one that says that it failed.
pub(super) struct Answer<R> {
    pub(super) response: Result<R, Failure>,
    pub(super) headers: Headers,
}

/// A request that failed in the session or by a panic.
pub(super) struct Failure {
    pub(super) status: u16,
    /// One line for the visitor; what went wrong in detail is the observer's.
    pub(super) text: &'static str,
}

/// The visit of a request with these `Cookie` lines. A store that is not ours may panic at a token.
pub(super) fn visit<'h>(
    sessions: &Sessions,
    cookies: impl Iterator<Item = &'h str>,
) -> Result<Visit, Failure> {
    contained(|| sessions.visit(cookies)).map_err(|_| {
        let error = panicked("look at the request's cookies");
        sessions.observe(&Event::Failed(&error));
        failure(&error)
    })
}

/// Runs a handler on a visit's session and saves it.
pub(super) fn run<R>(
    visit: Result<Visit, Failure>,
    handler: impl FnOnce(&mut Session) -> Handled<R>,
) -> Answer<R> {
    let mut visit = match visit {
        Ok(visit) => visit,
        Err(failure) => return Answer { response: Err(failure), headers: Headers::default() },
    };
    let Ok(made) = contained(|| handler(&mut visit)) else {
        return fail(&mut visit, panicked("run the handler"));
    };
    if !made.keep {
        return Answer { response: Ok(made.response), headers: visit.discard() };
    }
    let answer = match contained(|| visit.settle(made.status)) {
        Ok(Ok(headers)) => return Answer { response: Ok(made.response), headers },
        Ok(Err(SaveError { error, headers })) => Answer { response: Err(failure(&error)), headers },
        Err(_) => fail(&mut visit, panicked("save session")),
    };
    // The program's code, perhaps; the answer is a failure already.
    let _ = contained(|| drop(made.response));
    answer
}

fn panicked(act: &'static str) -> Error {
    Error::new(ErrorKind::Panicked, act).with_reason("it panicked; its changes were dropped")
}

fn fail<R>(visit: &mut Visit, error: Error) -> Answer<R> {
    let response = Err(failure(&error));
    let SaveError { headers, .. } = visit.fail(error);
    Answer { response, headers }
}

/// The failure of the session that this error is, or that caused it.
pub(super) fn session_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Error> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// Tells the observer why a handler failed: by a failure of the session, or by an error of the program's own.
pub(super) fn observe(
    sessions: &Sessions,
    session_error: Option<&Error>,
    program_error: Option<&(dyn StdError + 'static)>,
) {
    let own = program_error
        .map(|error| Error::new(ErrorKind::Handler, "handle the request").with_reason(text(error)));
    if let Some(error) = session_error.or(own.as_ref()) {
        sessions.observe(&Event::Failed(error));
    }
}

/// An error, its cause, the cause of that, and so on.
fn causes<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    successors(Some(error), |&error| error.source())
}

/// An error's text and those of its causes, in one line without control characters: a visitor may have chosen a part of it.
fn text(error: &(dyn StdError + 'static)) -> String {
    let texts: Vec<_> = causes(error).map(ToString::to_string).collect();
    let mut line = String::new();
    for c in texts.join(": ").chars().take(ERROR_CHARS_MAX) {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// What the visitor is told of a failure.
pub(super) fn failure(error: &Error) -> Failure {
    let (status, text) = match error.kind() {
        ErrorKind::Gone => (409, "Your session ended while this request was under way. Please try again.\n"),
        ErrorKind::Busy => (503, "Your session is busy. Please try again.\n"),
        ErrorKind::Full => (507, "The server cannot store your session at the moment.\n"),
        _ => (500, "The server could not handle your session.\n"),
    };
    Failure { status, text }
}

/// What the visitor is told of a handler's error: as of a failure of the session if that is behind it, and else nothing.
pub(super) fn failure_of(error: &(dyn StdError + 'static)) -> Failure {
    let unknown = Failure { status: 500, text: "The server could not handle your request.\n" };
    session_error(error).map_or(unknown, failure)
}
