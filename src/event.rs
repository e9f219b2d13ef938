//! Events: one callback, which gets the [`PublicId`] of the session concerned, never the secret id.
//!
//! Without an observer, each failure is one line on standard error. A panic in an observer is contained: it reaches
//! neither the request nor the store. An observer runs on the thread of the call, after the operation is done, and no
//! lock of the store is held meanwhile that a request could wait for; so it delays its own request or sweep, and no
//! other one. Each event is observed once: also if a save or a logout is tried again after an error.
//!
//! # Ends
//!
//! | a session ends by | heard as | by the observer of |
//! |---|---|---|
//! | [`Session::destroy`](crate::Session::destroy) | [`Ended`](Event::Ended), `Logout` | [`Sessions`](crate::Sessions::with_observer) |
//! | a past expiry that its request sets | `Ended`, `Expired` | `Sessions` |
//! | [`Sessions::end_session_of`](crate::Sessions::end_session_of) | `Ended`, `Remote` | `Sessions` |
//! | a login beyond [`sessions_per_user`](crate::FileStoreOptions::sessions_per_user) | `Ended`, `Limit` | [the store](crate::FileStoreOptions::observer) |
//! | its deadline | `Ended`, `Expired`, when a sweep removes it | [the sweep](crate::SweepOptions::observer), which a [`Reaper`](crate::ReaperOptions::sweep) may run; not by the reaper of [`Sessions::open`](crate::Sessions::open) |
//! | [`Sessions::delete_of`](crate::Sessions::delete_of), [`delete_all`](crate::Sessions::delete_all) | [`CutOff`](Event::CutOff); and each session as `Ended`, `CutOff`, when a sweep removes it | `Sessions`; the sweep |
//! | a login or a rotation that gives it another id | [`LoggedIn`](Event::LoggedIn), [`Rotated`](Event::Rotated) | `Sessions` |
//! | a call of the [`Store`](crate::Store) or [`Admin`](crate::Admin) itself | not heard: the call returns the session | |
//! | another process, or the command `sessile` | not heard here; a [wait](crate::Sessions::wait_ended) notices it | |
//!
//! A sweep is run by one of the processes that use a store, so each removed session is heard in one of them. If that
//! process is killed between the removal and the call of the observer, it is heard nowhere.
use crate::contained::contained;
use crate::error::Error;
use crate::id::PublicId;
use crate::record::Record;
use crate::shown::{shown, with_causes};
use std::fmt;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

/// An event of a session or a store. For logs, counters and alarms.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A new session was stored.
    Created {
        /// Its public id.
        id: PublicId,
        /// Its record.
        record: &'a Record,
    },
    /// A login was saved. The record has the user, and the device note.
    ///
    /// If the session existed, the login has given it a new id; no [`Ended`](Self::Ended) is observed for the old one.
    /// If another user was logged in, that user's entries were dropped. If the session is a new one,
    /// [`Created`](Self::Created) was observed before.
    LoggedIn {
        /// The public id that the request presented. Usually that of the session that was moved; the login may have
        /// found that session through an id that was moved before. `None` if the login has made a new session.
        from: Option<PublicId>,
        /// The public id of the session.
        id: PublicId,
        /// Its record.
        record: &'a Record,
    },
    /// A session moved to a new id, without a login; the old id was ended.
    Rotated {
        /// The public id of the session before.
        from: PublicId,
        /// The public id of the session.
        to: PublicId,
        /// Its record.
        record: &'a Record,
    },
    /// A live session was ended, or a sweep has removed one that was over. See [the table](self#ends) for the ends that
    /// are observed, and where.
    Ended {
        /// The public id of the session that was ended: if a rotation had moved the id that the request presented, that
        /// of the successor. If an earlier [`destroy`](crate::Session::destroy) of the same request had failed, and no
        /// live session is found now, it is the id that the request presented, because the store cannot tell which
        /// session the failed attempt has ended.
        id: PublicId,
        /// Why it was ended.
        reason: EndReason,
        /// The record as it was when the session ended, for a log, and for the resources of the session that the
        /// program is to free. If the store could not read it, the record that the request had loaded; `None` if there
        /// is none.
        record: Option<&'a Record>,
    },
    /// All sessions of a user, or all sessions, were ended at once. This is the only event when they end: a store need
    /// not read them for that. Each of them is observed as [`Ended`](Self::Ended) by the sweep that removes it.
    CutOff {
        /// The user; `None` for all sessions.
        user: Option<User<'a>>,
        /// The session that stays.
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

/// Why a session was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The visitor logged out: [`Session::destroy`](crate::Session::destroy).
    Logout,
    /// The session was ended by its public id, from another device or by an operator's page:
    /// [`Sessions::end_session_of`](crate::Sessions::end_session_of).
    Remote,
    /// The user logged in again and had too many sessions:
    /// [`FileStoreOptions::sessions_per_user`](crate::FileStoreOptions::sessions_per_user).
    Limit,
    /// It has expired, and a sweep has removed it; or the request has set an expiry that is past.
    Expired,
    /// It was ended with all sessions of its user, or with all sessions, and a sweep has removed it. See
    /// [`Event::CutOff`].
    CutOff,
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
pub(crate) struct Observer(Option<Arc<Observe>>);

type Observe = dyn Fn(&Event<'_>) + Send + Sync;

impl Observer {
    pub(crate) fn new(observer: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(observer)))
    }

    /// Calls the observer and contains its panic. Without an observer, writes failures to standard error.
    pub(crate) fn notify(&self, event: &Event<'_>) {
        match &self.0 {
            // The program's own panic hook has reported the panic.
            Some(observer) => drop(contained(|| observer(event))),
            None => event.failure().into_iter().for_each(|line| write_line(&line)),
        }
    }

    /// Calls the observer, and always writes the line to standard error, because the event means that all visitors are
    /// logged out.
    pub(crate) fn notify_and_print(&self, event: &Event<'_>) {
        self.notify(event);
        if self.0.is_some() {
            event.failure().into_iter().for_each(|line| write_line(&line));
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Observer" } else { "standard error" })
    }
}

impl Event<'_> {
    /// The record of the session, of the events that have one.
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = FileStore::open(dir.path())?;
    /// let sessions = Sessions::new(store, Cookies::https())?.with_observer(|event| {
    ///     if let Some(user) = event.record().and_then(|record| record.user()) {
    ///         println!("{user}: {event:?}"); // the Debug of an event shows no values of a session
    ///     }
    /// });
    /// # let _ = sessions;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Created { record, .. } | Self::LoggedIn { record, .. } | Self::Rotated { record, .. } => {
                Some(record)
            }
            Self::Ended { record, .. } => *record,
            _ => None,
        }
    }

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
