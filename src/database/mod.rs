//! Sessions in a database.
//!
//! [`SqliteStore`] keeps all sessions in one file, which all processes of a host may share. It is a
//! [`RowStore`](crate::rows::RowStore), so the promises and rules are those of [`rows`](crate::rows).
//!
//! ```
//! use sessile::database::SqliteStore;
//! use sessile::{Cookies, Sessions};
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("sessions.db");
//! let sessions = Sessions::new(SqliteStore::open(path)?, Cookies::plain_http())?;
//! let mut session = sessions.visit([]);
//! session.insert("theme", "dark")?;
//! session.save()?;
//! # assert_eq!(sessions.session(session.token()?).get::<String>("theme")?.as_deref(), Some("dark"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is stored
//!
//! Three tables, whose names begin with a prefix: `sessions`, one row for each session or moved id; `cutoffs`, one row
//! for each user whose sessions were all ended at once, and one for all users; `schema`, the version of the tables. The
//! [statements](SqliteOptions::schema) that make them are printed by `sessile schema sqlite`.
//!
//! A user's name is in no column: `owner` is a digest. It is in the record, as everything else of the session is, which
//! is neither encrypted nor meant for statements of other programs: a reader of the file can read all sessions, but
//! not open one, because the ids are digests.
//!
//! # Dialects
//!
//! What all databases have in common is in this module: the columns of a row and which of them are believed, the names
//! of the tables. A dialect has the text of its statements, and a connection that runs them.
mod columns;
mod names;
mod sqlite;

pub use sqlite::{SqliteExamination, SqliteOptions, SqliteRows, SqliteStore};
