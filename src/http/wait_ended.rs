//! Waiting for the end of a session, for a connection that outlives its request: for server-sent events, say.
use super::Sessions;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::id::PublicId;
#[cfg(doc)]
use crate::lifetime::Lifetime;
use crate::session::WaitOutcome;
#[cfg(doc)]
use crate::store::Store;
use std::time::Duration;

impl Sessions {
    /// Waits until a session has ended, in whichever process, or until the timeout is over. For a thread that keeps a
    /// connection open after the request: it learns of the visitor's logout within a second.
    ///
    /// | the session | result |
    /// |---|---|
    /// | has ended: a logout, a limit, [`delete_of`](Self::delete_of), [`delete_all`](Self::delete_all), an operator, a sweep; or there is none of this id | [`Ended`](WaitOutcome::Ended), at once if it was so before the call |
    /// | has expired, by the store's clock and this program's [`Lifetime`] | [`Expired`](WaitOutcome::Expired) |
    /// | was given another id by a login | [`LoggedIn`](WaitOutcome::LoggedIn) |
    /// | was given another id by a mere rotation | the wait goes on with that id |
    /// | is alive when the timeout is over; a timeout of zero is one look | [`TimedOut`](WaitOutcome::TimedOut) |
    /// | may be alive, and [`stop_waiting`](Self::stop_waiting) was called | [`Stopped`](WaitOutcome::Stopped) |
    ///
    /// The session is named by its public id ([`Session::public_id`](crate::Session::public_id)), so no session or
    /// request is borrowed. A wait is no activity of the visitor: it moves no deadline.
    ///
    /// All waits of a program (of all clones of a `Sessions`) share one thread, which exists as long as at least one
    /// call waits. It polls a store of files every 400 ms by its counters in memory, and a store on a server by one
    /// query for each 500 waits every 0.8 s ([`Store::poll`]). The end of a session whose writer was killed, or
    /// whose file another program removed, may be noticed only after ten seconds. If the store answers slowly, ends are
    /// noticed later than a second.
    ///
    /// With the [grace period](Lifetime::grace) switched off, a store does not remember where it has moved an id: the
    /// wait then takes a rotation, and a login, for [`Ended`](WaitOutcome::Ended). So it does if a sweep removes the
    /// moved id before the next poll, which a grace period of a few seconds excludes.
    ///
    /// # Errors
    ///
    /// The store cannot tell whether the session is alive: it failed during the wait, or at its beginning; the call may
    /// be repeated. [`ErrorKind::Unsupported`] if it can never tell. [`ErrorKind::Forked`] in a child of the process
    /// that has waited with these sessions or has opened the store. [`ErrorKind::Io`] if the system can start no thread.
    ///
    /// ```
    /// use sessile::{Cookies, FileStore, Sessions, WaitOutcome};
    /// use std::time::Duration;
    /// # let dir = tempfile::tempdir()?;
    /// let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// let mut session = sessions.visit([]);
    /// session.login("ada")?;
    /// session.save()?;
    /// let id = session.public_id()?.expect("it is stored");
    ///
    /// let waiting = {
    ///     let sessions = sessions.clone();
    ///     std::thread::spawn(move || sessions.wait_ended(&id, Duration::from_secs(30)))
    /// };
    /// session.destroy()?; // in this process or another
    /// assert_eq!(waiting.join().unwrap()?, WaitOutcome::Ended);
    /// # session.finish(200)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_ended(&self, id: &PublicId, timeout: Duration) -> Result<WaitOutcome> {
        self.context.wait_ended(id, timeout)
    }

    /// Stops all waits of [`wait_ended`](Self::wait_ended), for good: those that are waiting, in every clone of these
    /// sessions, return [`WaitOutcome::Stopped`] at once, and so do later ones. For the shutdown of a program.
    ///
    /// ```
    /// use sessile::{Cookies, FileStore, PublicId, Sessions, WaitOutcome};
    /// use std::time::Duration;
    /// # let dir = tempfile::tempdir()?;
    /// let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// sessions.stop_waiting();
    /// let outcome = sessions.wait_ended(&PublicId::digest(b"a token"), Duration::from_secs(30))?;
    /// assert_eq!(outcome, WaitOutcome::Stopped);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stop_waiting(&self) {
        self.context.waits.stop();
    }
}
