//! Embedded sessions for synchronous Rust servers: one directory is the database, there is no service to run.
//!
//! A program that embeds [tiny_http](https://docs.rs/tiny_http) or [rouille](https://docs.rs/rouille) gets sessions
//! that survive a restart and a crash, shared safely by its threads and by all processes of the host. They behave like
//! those of Django's session framework, without the faults that Django's users live with.
//!
#![cfg_attr(feature = "tiny_http", doc = "```no_run")]
#![cfg_attr(not(feature = "tiny_http"), doc = "```ignore")]
//! use sessile::http::tiny_http::serve;
//! use sessile::{Cookies, Sessions};
//! use tiny_http::{Response, Server};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//!     let sessions = Sessions::open("sessions", Cookies::plain_http())?; // behind HTTPS: Cookies::https()
//!     for request in Server::http("127.0.0.1:8000")?.incoming_requests() {
//!         let answered = serve(&sessions, request, |_request, session| -> sessile::Result<_> {
//!             let visits = session.update_now("visits", |n: &mut u64| {
//!                 *n += 1;
//!                 *n
//!             })?;
//!             Ok(Response::from_string(format!("visits: {visits}\n")))
//!         });
//!         answered.unwrap_or_else(|error| eprintln!("could not send a response: {error}"));
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Limits
//!
//! Not for asynchronous servers (it blocks), not for several hosts (its locks and its clock are one host's), not a
//! general database (a session is a small dictionary, 1 MiB at most by default), and not an authentication library: it
//! remembers the user that logged in; the program checks passwords.
//!
//! # Where to read next
//!
//! | module | is about |
//! |---|---|
//! | [`session`] | [`Session`]: the dictionary, saving, `login`, `rotate_id`, `destroy`, expiry |
//! | [`http`] | [`Sessions`], [`Visit`], [`Cookies`]; `serve`; the adapters `tiny_http` and `rouille`, a feature each |
//! | [`mod@file`] | [`FileStore`], [`FileStoreOptions`]: the engine |
//! | [`admin`], [`reaper`] | [`Admin`]: sweeps, scans, counts of any store; the [`Reaper`] |
//! | [`lifetime`] | [`Lifetime`], [`Renewal`], [`Expiry`] |
//! | [`store`] | [`Store`]: the promises of every storage mode, [`Durability`] |
//! | [`store_url`] | stores by URL |
//! | `rows` (a feature) | stores on servers: `Rows` for back ends, `RowStore`, and `MemoryStore` for tests |
//! | `database` (a feature) | stores in a database: `SqliteStore` |
//! | [`event`] | [`Event`]: the events that a program can observe |
//! | [`error`] | [`Error`], [`ErrorKind`] |
//! | [`value`], [`record`], [`id`], [`clock`] | basic types |
//! | [`_documentation`] | the [guide] with recipes; [design], [format], [testing] |
//!
//! [guide]: _documentation::guide
//! [design]: _documentation::design
//! [format]: _documentation::format
//! [testing]: _documentation::testing
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(doc)]
#[path = "documentation.rs"]
pub mod _documentation;
pub mod admin;
pub mod clock;
mod contained;
#[cfg(all(feature = "sqlite", not(all(test, shuttle))))]
pub mod database;
pub mod error;
pub mod event;
pub mod file;
mod file_system;
mod fork;
pub mod http;
pub mod id;
pub mod lifetime;
mod queue;
mod random;
pub mod reaper;
pub mod record;
// The proofs replace the clock, which is in the signatures of this module.
#[cfg(all(feature = "rows", not(all(test, shuttle))))]
pub mod rows;
pub mod session;
mod shown;
pub mod store;
pub mod store_url;
mod sync;
pub mod value;

pub use crate::admin::{Admin, Stats, SweepOptions, SweepReport};
pub use crate::clock::Clock;
pub use crate::error::{Error, ErrorKind, Result};
pub use crate::event::Event;
pub use crate::file::{FileStore, FileStoreOptions};
pub use crate::http::{CookieHeaders, Cookies, Headers, SameSite, SaveError, Sessions, Visit};
pub use crate::id::{PublicId, SessionId, Token};
pub use crate::lifetime::{Lifetime, Renewal};
pub use crate::reaper::{Reaper, ReaperOptions};
pub use crate::record::{Entries, Expiry, Record, Timing};
pub use crate::session::{Destroyed, Session, WaitOutcome};
pub use crate::store::{
    Absent, Change, Durability, Guarantees, Live, Lookup, Moved, Page, Rotation, Saved, Store, UserSession,
    UserSessions, Verdict,
};
pub use crate::value::{Value, ValueRef};

/// The README's programs are compiled as documentation tests, if the features that they need are on.
#[cfg(all(doctest, feature = "tiny_http", feature = "rouille"))]
#[doc = include_str!("../README.md")]
struct Readme;
