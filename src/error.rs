//! The crate's one error: the operation that failed, its object, and the reason.
//!
//! "No such session" is not an error anywhere in this crate: loads return
//! [`Lookup::Absent`](crate::store::Lookup::Absent). An error never contains a session id or a value, and is one line.
//! In a quoted name (of an entry or a file), characters that would end the line, control a terminal or reverse the text
//! are escaped.
use crate::shown::shown;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of failure, for programs. The [`Display`](fmt::Display) text is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused; the cause is in [`source`](StdError::source).
    Io,
    /// No space, no inodes, or a quota is used up. Nothing was lost; saves work again when there is room.
    Full,
    /// A lock was not free within its wait limit; the same call may succeed a moment later.
    Busy,
    /// A function that changes a session asked for another change of the same session (a function given to
    /// [`Session::update_now`](crate::Session::update_now), say). The thread would wait for itself. Trying again cannot
    /// help.
    Reentrant,
    /// The session was live when this request first read it and is not any more, or the request brought an id that a
    /// login or rotation beside it has replaced (see [`Lifetime::grace`](crate::Lifetime::grace)). Nothing was
    /// resurrected, and nothing was saved. A browser that sends the request again sends the new id.
    Gone,
    /// The record would be larger than the store's limit, and larger than before. (A record that was stored under a
    /// higher limit stays.)
    TooLarge,
    /// The session would have more entries than the store's limit, and more than before.
    TooManyEntries,
    /// The user has as many live sessions as the store [allows](crate::FileStoreOptions::sessions_per_user), and the
    /// login was refused. Nothing was changed.
    TooManySessions,
    /// An entry name is empty, longer than 128 bytes, has a control character, or is reserved (begins with `_`).
    Name,
    /// An entry holds a value of another type than the requested one.
    Type,
    /// A value cannot be stored: not representable, or nested too deeply.
    Value,
    /// Stored bytes fail their own checks; retrying cannot help.
    Corrupt,
    /// Data that a newer version of this crate wrote; it is left untouched.
    NewerFormat,
    /// Data that an earlier version of this crate wrote; it is left untouched. `sessile export` of that version and
    /// `sessile import` of this one move the sessions into a new directory.
    OlderFormat,
    /// The directory holds something other than a session store.
    NotASessionStore,
    /// A link, pipe, directory or device is in the place of a file of the store.
    NotASessionFile,
    /// Owner or permissions are not safe for secrets.
    Permissions,
    /// A sync failed and could not be repaired: the change was made (or, for a save, may have been), and may not
    /// survive a power cut. Also, a save that held its lock for long could not find out whether a `delete` had
    /// overtaken it.
    DurabilityUnknown,
    /// The operation was done, but other processes could not be notified (the disk fails). For a minute at most, they
    /// may still serve the version before it from their caches. Repeat a failed `delete`; a repeated change is made
    /// twice. A rotation that fails so has ended the session.
    InvalidationFailed,
    /// Another process has locked the directory of the store, or uses it with an earlier version of this library.
    InUse,
    /// The store was opened before this process was forked; open it after the fork.
    Forked,
    /// The operating system's random generator failed.
    Random,
    /// Options contradict each other or are out of bounds.
    Config,
    /// The cookie would be larger than browsers accept (name and value: 4,096 bytes).
    CookieTooLarge,
    /// Code of the program that the library called panicked: a handler, a function given to
    /// [`Session::update`](crate::Session::update) (nothing was saved), or the progress callback of a sweep.
    Panicked,
    /// A handler returned an error of the program's own; its changes were dropped. The error's text is in the reason.
    Handler,
    /// A [`Visit`](crate::Visit) was dropped with changes that were not saved, or a cookie that was not sent.
    Unfinished,
    /// The store cannot do this at all; retrying cannot help.
    Unsupported,
    /// There is no connection to the server that keeps the sessions. Nothing was sent to it, so nothing was changed;
    /// the same call may succeed later.
    Unavailable,
    /// The server that keeps the sessions did not answer, and cannot be asked what it has done: the change may or may
    /// not be stored. It is not carried out again, because it could then count twice.
    Unanswered,
    /// Another storage (not the file engine) failed; for implementors of [`Store`](crate::store::Store).
    Storage,
}

/// One failure.
///
/// Its text names the operation and its object, in lower case, without a full stop; a cause in the operating system or
/// a library is in [`source`](StdError::source).
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    operation: Cow<'static, str>,
    path: Option<PathBuf>,
    reason: Option<Cow<'static, str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure of `operation`, a phrase that completes "failed to …".
    #[must_use]
    pub fn new(kind: ErrorKind, operation: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { kind, operation: operation.into(), path: None, reason: None, source: None }))
    }

    /// Names the file or directory concerned.
    #[must_use]
    pub fn with_path(mut self, path: impl AsRef<Path>) -> Self {
        self.0.path = Some(path.as_ref().to_owned());
        self
    }

    /// Adds the reason, if there is no other error as the source.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.0.reason = Some(reason.into());
        self
    }

    /// Keeps the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Names the operation more exactly.
    pub(crate) fn with_operation(mut self, operation: String) -> Self {
        self.0.operation = operation.into();
        self
    }

    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file or directory concerned, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}", shown(&self.0.operation))?;
        if let Some(path) = &self.0.path {
            write!(f, " `{}`", shown(path.display()))?;
        }
        if let Some(reason) = &self.0.reason {
            write!(f, ": {}", shown(reason))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.0.kind).field("message", &format_args!("{self}"));
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    #[cfg_attr(miri, ignore = "the system's text is another in Miri")]
    fn a_message_leaves_its_cause_to_source() {
        let error = Error::new(ErrorKind::Full, "save session")
            .with_path("a/b")
            .with_reason("no inodes left")
            .with_source(io::Error::from_raw_os_error(28));
        assert_eq!(error.to_string(), "failed to save session `a/b`: no inodes left");
        assert_eq!(error.source().unwrap().to_string(), "No space left on device (os error 28)");
        assert_eq!(error.kind(), ErrorKind::Full);
        assert_eq!(error.path(), Some(Path::new("a/b")));
    }

    #[test]
    fn an_error_is_one_line_whatever_it_quotes() {
        let hostile = "x\n2026-01-01 admin logged in\u{1b}[2J\u{202e}";
        let error =
            Error::new(ErrorKind::Io, format!("read `{hostile}`")).with_path(hostile).with_reason(hostile);
        let safe = r"x\n2026-01-01 admin logged in\u{1b}[2J\u{202e}";
        let text = format!("failed to read `{safe}` `{safe}`: {safe}");
        assert_eq!(error.to_string(), text);
        assert_eq!(format!("{error:?}"), format!("Error {{ kind: Io, message: {text} }}"));
    }

    #[test]
    fn an_error_is_one_pointer_so_results_stay_small() {
        fn sendable<T: Send + Sync + 'static>() {}
        sendable::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
