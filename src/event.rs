//! Events: one callback, which gets the [`PublicId`] of the session concerned, never the secret id.
//!
//! Without an observer, each failure is one line on standard error. A panic in an observer is contained: it reaches
//! neither the request nor the store.
//!
//! # Which observer is told of what
//!
//! | the act | told to the observer of |
//! |---|---|
//! | what requests do: [created](Event::Created), [logged in](Event::LoggedIn), [rotated](Event::Rotated); ids that are refused; failures; [ends](Event::Ended) by [`Session::destroy`](crate::Session::destroy), an expiry setting or [`Sessions::end_session_of`](crate::Sessions::end_session_of); [cut-offs](Event::CutOff) by [`Sessions`](crate::Sessions) | the sessions: [`Sessions::with_observer`](crate::Sessions::with_observer) |
//! | ends that no request asks for: sessions that a sweep, a [`Reaper`](crate::Reaper) or an import removes, [`Admin::delete_by_id`](crate::Admin::delete_by_id), the limit at login; events of the store as a whole | the store: [`FileStoreOptions::observer`](crate::FileStoreOptions::observer), `rows::RowStoreOptions::observer` |
//! | calls of [`Store`](crate::Store) itself | none: the caller has the result |
//!
//! Both may be the same function, which then hears of each act once. A store that
//! [`Sessions::open`](crate::Sessions::open) opens has the observer of these sessions.
//!
//! - **An observer hears its own process.** What another process does, its observer hears; what the command `sessile`
//!   does (a sweep by a timer, say) none does. A program that acts on ends sweeps by a reaper.
//! - **Once at most.** An end is told after it was done, by the process that did it. So the end of a session is not
//!   told if that process is killed in between, if the call failed and is not tried again, or if a server removed a
//!   batch of a sweep and its answer was lost. A program that frees what belongs to sessions also looks for leftovers
//!   now and then.
//! - **No lock is held** while an observer runs, neither a session's nor a user's, so it may use the store. But the
//!   request, the operator's call or the sweep that caused the event waits for it.
use crate::contained::contained;
use crate::error::Error;
use crate::id::PublicId;
use crate::record::Record;
use crate::shown::{shown, with_causes};
use crate::store::{EndReason, EndedSession};
use std::fmt;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// An event of a session or a store. For logs, counters and alarms.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A new session was stored.
    Created {
        /// Its public id.
        id: PublicId,
        /// Its record as it was stored.
        record: &'a Record,
    },
    /// A user has logged in. The record has the user, the time of the login and the device note. (If the login has made
    /// a new session, [`Created`](Self::Created) comes before this.)
    LoggedIn {
        /// The public id that the request presented, whose session got the new id and was ended under the old one.
        /// Usually that of the ended session; the login may have found that session through an id that was moved
        /// before. `None` if the login has made a new session.
        from: Option<PublicId>,
        /// The public id of the session from now on.
        to: PublicId,
        /// The record as it was stored.
        record: &'a Record,
    },
    /// A session moved to a new id without a login; the old id was ended.
    Rotated {
        /// The public id of the session until now.
        from: PublicId,
        /// The public id of the session from now on.
        to: PublicId,
        /// The record as it was stored.
        record: &'a Record,
    },
    /// A session has ended; or it had ended before, and what was left of it was removed. Observed once for each
    /// session, by the observer of the process that has removed it; which observer that is depends on the reason (see
    /// the [module](self)).
    ///
    /// The id is that of the session that was ended: if a rotation had moved the id that the request presented, that of
    /// the successor. If an earlier [`destroy`](crate::Session::destroy) of the same request had failed, and no live
    /// session is found now, it is the id that the request presented, because the store cannot tell which session the
    /// failed attempt has ended.
    Ended {
        /// The public id of the session.
        id: PublicId,
        /// Why it ended.
        reason: EndReason,
        /// Its last record; `None` if it could not be read, or if the store does not give it out.
        record: Option<&'a Record>,
    },
    /// All sessions of a user were ended, or all of the store, by [`Sessions::delete_of`](crate::Sessions::delete_of)
    /// or [`Sessions::delete_all`](crate::Sessions::delete_all): one event for the act. Each of the sessions is
    /// [`Ended`](Self::Ended) once more, for the reason [`EndReason::CutOff`], when a sweep removes its record.
    CutOff {
        /// The user; `None` for all sessions of the store.
        user: Option<User<'a>>,
        /// The session of the user that stays.
        except: Option<PublicId>,
    },
    /// A request presented a session that has expired.
    Expired(PublicId),
    /// A request presented a cookie of the session's name whose value cannot be an id. Observed once a request, however
    /// many such cookies it presents.
    Malformed,
    /// A request presented an id that is not stored: invented, destroyed, rotated or swept. Not observed for an id that
    /// a rotation or a login has moved within the [grace period](crate::Lifetime::grace), because requests beside those
    /// are expected.
    NotFound(PublicId),
    /// A request presented an id that a rotation or a login had moved longer than the [grace
    /// period](crate::Lifetime::grace) ago. Browsers drop such an id with the response of the login or rotation, unless
    /// that was lost; so this may be a copy of a stolen cookie. The request found no session. Observed as long as the
    /// store remembers the moved id; nothing is ended by it.
    Reused {
        /// The public id that the request presented.
        id: PublicId,
        /// The user of the session that the id was moved to; `None` if that has no user or is not live any more.
        user: Option<User<'a>>,
    },
    /// A request presented an id whose stored record fails its checks.
    Damaged(PublicId),
    /// A request failed: its session could not be used or saved, or the handler panicked or returned an error of the
    /// program's own ([`ErrorKind::Handler`](crate::ErrorKind::Handler)); the response reports this. Or a changed
    /// [`Visit`](crate::Visit) was dropped unfinished ([`ErrorKind::Unfinished`](crate::ErrorKind::Unfinished)), and no
    /// response reports that.
    Failed(&'a Error),
    /// The deadline of a session without changes could not be moved; the response was not affected.
    NotRenewed(&'a Error),
    /// Directories and files of a store were accessible to other users, and were made private when the store was
    /// opened.
    ///
    /// Those users may have read accessible files. If they could write, they may have planted files: a forged session,
    /// or an old version of one that was changed or ended since. If those users are not to be trusted, end all
    /// sessions.
    MadePrivate {
        /// The directory of the store.
        path: &'a Path,
        /// The number of directories and files that were accessible.
        count: u64,
        /// The number of those that such users could write to.
        writable: u64,
    },
    /// Everything in a store's directory was removed while the store was open, and the store was recreated; all
    /// sessions are gone. Observed by one of the processes that use the store, and written to standard error as well.
    StoreRecreated {
        /// The store's directory.
        path: &'a Path,
    },
    /// The parameters file of a store with sessions was lost, and was recreated when the store was opened. No session
    /// is of a newer format; other losses are not detected.
    ParametersRecreated {
        /// The store's directory.
        path: &'a Path,
    },
    /// The log of cut-offs of a store is missing or damaged, so no session with a user is found: any of them may have
    /// been ended by [`Store::delete_of`](crate::Store::delete_of). Observed once by each open store. Restore the file
    /// from a backup, or end all sessions by [`Store::delete_all`](crate::Store::delete_all), which makes a new one.
    CutOffsLost {
        /// The log's path.
        path: &'a Path,
        /// The finding: "it is missing" or "it is damaged".
        reason: &'static str,
    },
    /// Missing shard directories were recreated, when the store was opened or within a minute after shards or the store
    /// were recreated. (Some backups leave empty directories out.) Sessions that were in them are gone.
    ShardsRecreated {
        /// The store's directory.
        path: &'a Path,
        /// The names of the shards, in order.
        shards: &'a [String],
    },
}

/// A user's name in an event. Its `Debug` does not show the name, so that an event that is printed whole shows no
/// values of a session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct User<'a>(&'a str);

impl<'a> User<'a> {
    pub(crate) fn new(name: &'a str) -> Self {
        Self(name)
    }

    /// The name that was given to [`login`](crate::Session::login).
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.0
    }
}

impl fmt::Debug for User<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({} bytes)", self.0.len())
    }
}

/// The program's observer, or standard error in its place. All events leave the library here.
#[derive(Clone, Default)]
pub(crate) enum Observer {
    #[default]
    StandardError,
    Function(Arc<Observe>),
    /// The observer that is [set](Observer::set) later; standard error until then. All clones get the same.
    Later(Arc<OnceLock<Arc<Observe>>>),
}

type Observe = dyn Fn(&Event<'_>) + Send + Sync;

impl Observer {
    pub(crate) fn new(observer: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        Self::Function(Arc::new(observer))
    }

    /// An observer that is set later.
    pub(crate) fn later() -> Self {
        Self::Later(Arc::default())
    }

    /// Sets an observer that is to be set later, in all of its clones, unless it is set already. Has no effect on
    /// others.
    pub(crate) fn set(&self, observer: &Self) {
        if let (Self::Later(later), Some(function)) = (self, observer.function()) {
            let _ = later.set(Arc::clone(function));
        }
    }

    fn function(&self) -> Option<&Arc<Observe>> {
        match self {
            Self::StandardError => None,
            Self::Function(function) => Some(function),
            Self::Later(later) => later.get(),
        }
    }

    /// Whether the program has an observer.
    pub(crate) fn is_set(&self) -> bool {
        self.function().is_some()
    }

    /// Reports the ends of sessions. A session that was over before has the reason for which it was.
    pub(crate) fn notify_ends<'e>(
        &self,
        ended: impl IntoIterator<Item = &'e EndedSession>,
        reason: EndReason,
    ) {
        for EndedSession { id, record, over } in ended {
            let reason = over.unwrap_or(reason);
            self.notify(&Event::Ended { id: *id, reason, record: record.as_ref() });
        }
    }

    /// Calls the observer and contains its panic. Without an observer, writes failures to standard error.
    pub(crate) fn notify(&self, event: &Event<'_>) {
        match self.function() {
            // The program's own panic hook has reported the panic.
            Some(observer) => drop(contained(|| observer(event))),
            None => event.failure().into_iter().for_each(|line| write_line(&line)),
        }
    }

    /// Calls the observer, and always writes the line to standard error, because the event means that all visitors are
    /// logged out.
    pub(crate) fn notify_and_print(&self, event: &Event<'_>) {
        self.notify(event);
        if self.is_set() {
            event.failure().into_iter().for_each(|line| write_line(&line));
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() { "Observer" } else { "standard error" })
    }
}

impl Event<'_> {
    /// The line that is written to standard error if there is no observer; `None` if the event is not a failure.
    fn failure(&self) -> Option<String> {
        match self {
            Self::Failed(error) => Some(with_causes(*error)),
            Self::NotRenewed(error) => Some(format!("a deadline was not moved: {}", with_causes(*error))),
            Self::MadePrivate { path, count, writable } => Some(format!(
                "session store `{}` was open to other users and is private again: {count} of its directories and files, of \
                 which they could write to {writable}{}",
                path.display(),
                if *writable > 0 { "; sessions may have been planted there" } else { "" }
            )),
            Self::StoreRecreated { path } => Some(format!(
                "everything in session directory `{}` was removed; the store was recreated, and all sessions are gone",
                path.display()
            )),
            Self::ParametersRecreated { path } => Some(format!(
                "session directory `{}` had sessions and no parameters file `sessile.json`, which was recreated",
                path.display()
            )),
            Self::CutOffsLost { path, reason } => Some(format!(
                "the log of cut-offs `{}` is lost: {reason}; no session with a user is found until it is restored from a \
                 backup, or all sessions are ended (`sessile delete --all`)",
                path.display()
            )),
            Self::ShardsRecreated { path, shards } => Some(format!(
                "session directory `{}` lacked shard directories, which were recreated: {}",
                path.display(),
                shards.join(", ")
            )),
            Self::Created { .. }
            | Self::LoggedIn { .. }
            | Self::Rotated { .. }
            | Self::Ended { .. }
            | Self::CutOff { .. }
            | Self::Expired(_)
            | Self::Malformed
            | Self::NotFound(_)
            | Self::Reused { .. }
            | Self::Damaged(_) => None,
        }
    }
}

/// Writes `sessile: ` and the line to standard error, with its control characters escaped. A closed standard error is
/// not a reason to fail.
pub(crate) fn write_line(line: &str) {
    let _ = writeln!(io::stderr().lock(), "sessile: {}", shown(line));
}
