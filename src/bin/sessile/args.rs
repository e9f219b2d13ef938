//! The command line: verbs and options. No option takes a session's id, because other users can see the arguments of a
//! process.
use clap::{Parser, Subcommand};
use sessile::PublicId;
use std::path::PathBuf;
use std::time::Duration;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed; standard error has the reason
  2  wrong usage
  3  done, but data is missing, damaged or could not be read
  4  another sweep is running; nothing was done

STORE is a directory, or a URL: file:DIR, sqlite:PATH, memory:.

All verbs run safely beside the programs that use the store. Run them as the
owner of the store. Root may run the verbs that only read: stat, count, doctor,
verify without --repair, list, show, export, sweep --dry-run.

With --json, each error is an object on standard error: {\"error\": …}.";

/// Administers a sessile session store.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 80)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) verb: Verb,
    /// Print one JSON object instead of words
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Sweep(Sweep),
    Stat(Stat),
    Verify(Verify),
    List(List),
    /// Print one session as JSON
    #[command(long_about = format!("Print one session as JSON\n\n{ID}"))]
    Show(One),
    /// Delete a session, all of a user, or all, at once in every running server
    #[command(long_about = format!("{DELETE}\n\n{ID}"))]
    Delete(Delete),
    Export(Export),
    Import(Import),
    Count(Count),
    Doctor(Doctor),
    #[cfg(feature = "sqlite")]
    Schema(Schema),
    /// Print a script that completes sessile's arguments in a shell
    #[command(after_help = "\
Example, for bash:
  sessile completions bash >/etc/bash_completion.d/sessile

Exit codes: see sessile --help.")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, of the command or of one verb, for man
    #[command(after_help = "\
Example:
  sessile man >/usr/local/share/man/man1/sessile.1
  sessile man sweep | man -l -

Exit codes: see sessile --help.")]
    Man {
        /// The verb; without one, the whole command
        verb: Option<String>,
    },
}

/// Count the stored sessions, without reading them
///
/// Expired sessions that no sweep has removed yet count, too, and so do moved
/// ids within their grace period. `stat` tells them apart.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sessile count /var/lib/shop/sessions

JSON: sessions.

Exit codes: see sessile --help.")]
pub(crate) struct Count {
    /// The store: a directory, or a URL
    #[arg(value_name = "STORE")]
    pub(crate) place: PathBuf,
}

/// Look for settings that would lose sessions, or let others read them
///
/// Checks the owner and the permissions of the store, its file system with its
/// free space and inodes, the system's limits on watches, the log of cut-offs,
/// and when the store was last swept; of a database file its permissions, its
/// integrity and its free pages. Each finding has its remedy. Reads no
/// session (verify does) and changes nothing. The exit code is 3 if there is a
/// finding.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sessile doctor /var/lib/shop/sessions

JSON: checks (a list of names), findings (a list of check, finding, remedy).

Exit codes: see sessile --help.")]
pub(crate) struct Doctor {
    /// The store: a directory, or a URL
    #[arg(value_name = "STORE")]
    pub(crate) place: PathBuf,
}

/// Print the statements that make the tables of a store in a database
///
/// A store makes its tables itself. The statements are for those who review
/// them, or migrate their databases by a tool.
#[cfg(feature = "sqlite")]
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sessile schema sqlite

JSON: schema.

Exit codes: see sessile --help.")]
pub(crate) struct Schema {
    /// The database
    #[arg(value_parser = ["sqlite"])]
    pub(crate) database: String,
    /// The beginning of the tables' names
    #[arg(long)]
    pub(crate) prefix: Option<String>,
}

/// Remove expired sessions
///
/// Reads the sessions that the expiry index lists as due, and each hour the
/// files of one of 256 directories. A program with a reaper needs no other
/// sweeps.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sessile sweep /var/lib/shop/sessions
  sessile sweep --full --dry-run /var/lib/shop/sessions

Each hour by cron, for a store of the user `shop` (/etc/cron.d/sessile):
  17 * * * *  shop  sessile sweep /var/lib/shop/sessions >/dev/null

JSON: outcome (completed, failed, already_running), examined, removed, cut_off,
renewed, damaged, temporary, unknown, failed, bytes_freed, seconds.

Exit codes: see sessile --help.")]
pub(crate) struct Sweep {
    /// The store: a directory, or a URL
    #[arg(value_name = "STORE")]
    pub(crate) place: PathBuf,
    /// Read every file
    #[arg(long)]
    pub(crate) full: bool,
    /// Count only; remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Read at most N files a second, instead of using a quarter of one core's
    /// time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_per_second: Option<u32>,
    /// Share of one core's time to use, in percent; 100 never sleeps
    #[arg(long, value_name = "PERCENT", conflicts_with = "max_per_second",
          value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) cpu_percent: Option<u16>,
    /// Keep damaged files for DAYS days after they were last written
    #[arg(long, value_name = "DAYS", default_value_t = 14,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) keep_damaged: u16,
}

/// Count sessions and their sizes, ages and deadlines
///
/// Reads every file.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sessile stat /var/lib/shop/sessions

JSON: live, expired, moved, cut_off, damaged, unfinished, temporary, unknown, failed, bytes,
logged_in, ages and deadlines (lists of from_seconds, below_seconds, sessions),
seconds.

Exit codes: see sessile --help.")]
pub(crate) struct Stat {
    /// The store: a directory, or a URL
    #[arg(value_name = "STORE")]
    pub(crate) place: PathBuf,
}

/// Read every file and list each that is not a sound session
///
/// Damaged files are listed by the digest of their session's id, as in logs.
/// All other files are listed by path: lost (and recreated by --repair),
/// unfinished and temporary (left by killed processes; a sweep removes them
/// after an hour), no file (a link, pipe or directory in a session's place),
/// newer (written by a newer version), unknown. The exit code is 3 if any file
/// is listed, repaired or not.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sessile verify /var/lib/shop/sessions
  sessile verify --repair /var/lib/shop/sessions

JSON: examined, found (a list of kind, id, path, moved_to), failed, not_moved,
seconds.

Exit codes: see sessile --help.")]
pub(crate) struct Verify {
    /// The store: a directory, or a URL
    #[arg(value_name = "STORE")]
    pub(crate) place: PathBuf,
    /// Move damaged files, links, pipes and directories in a session's place to
    /// the directory `damaged` of the store; recreate lost directories and a
    /// lost sessile.json; delete nothing
    #[arg(long)]
    pub(crate) repair: bool,
}

/// List live sessions, or those of one user
///
/// A line for each, in the order of the ids: the digest of the id (as in logs),
/// the times at which it was created and last saved, its deadline, its bytes,
/// its user. With --user an index finds the sessions; if it is not complete, and
/// without --user, every file is read. The entries are not shown.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sessile list /var/lib/shop/sessions
  sessile list --user ada /var/lib/shop/sessions
  sessile list --json --limit 1000 /var/lib/shop/sessions

JSON: sessions (a list of id, user, created, last_seen, deadline, bytes), next
(the --after of the next page, or null).

Exit codes: see sessile --help.")]
pub(crate) struct List {
    /// The store: a directory, or a URL
    #[arg(value_name = "STORE")]
    pub(crate) place: PathBuf,
    /// Only the sessions of this user
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Begin after this session, the last of the page before
    #[arg(long, value_name = "ID", value_parser = public_id)]
    pub(crate) after: Option<PublicId>,
    /// List at most N sessions
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
}

impl List {
    pub(crate) fn limit(&self) -> usize {
        usize::try_from(self.limit).expect("a million at most")
    }
}

const ID: &str = "\
The session's id, which is its cookie's value, is read from the environment variable SESSILE_ID or else from \
standard input, alone or as name=value (as copied from a browser), because other users can see the arguments of a \
process.";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sessile show /var/lib/shop/sessions <id.txt

JSON: as a line of export; or id, absent (not found, expired, damaged).

Exit codes: see sessile --help.")]
pub(crate) struct One {
    /// The store: a directory, or a URL
    #[arg(value_name = "STORE")]
    pub(crate) place: PathBuf,
    /// The digest of the session's id, which is no secret: 40 hexadecimal
    /// characters, as in logs and file names
    #[arg(long, value_name = "HEX", value_parser = public_id)]
    pub(crate) public_id: Option<PublicId>,
}

const DELETE: &str = "\
Delete a session, all of a user, or all, at once in every running server

The sessions of a user, and all sessions, are ended by one entry in the log of cut-offs, whatever their number. Those that \
begin afterwards live. A session that is restored from a backup stays ended. `--all` also makes a new log if that is lost.";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  SESSILE_ID=$(cat id.txt) sessile delete /var/lib/shop/sessions
  sessile delete --public-id 0f3a… /var/lib/shop/sessions
  sessile delete --user ada /var/lib/shop/sessions
  sessile delete --all /var/lib/shop/sessions
  sessile delete --older-than 30d /var/lib/shop/sessions

JSON: id, deleted, ended (the public id of the session that was ended, which
differs from id after a rotation; or null). With --user: user, ended (true).
With --all: all, ended. With --older-than: examined, deleted, failed.

Exit codes: see sessile --help.")]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) one: One,
    /// End every session of this user
    #[arg(long, value_name = "NAME", conflicts_with = "public_id")]
    pub(crate) user: Option<String>,
    /// End every session, also those without a user
    #[arg(long, conflicts_with_all = ["public_id", "user"])]
    pub(crate) all: bool,
    /// End every session that was created at least AGE ago, such as 30d, 12h or
    /// 1w 2d. One by one: a session that begins or is rotated meanwhile may stay
    #[arg(long, value_name = "AGE", value_parser = age, conflicts_with_all = ["public_id", "user", "all"])]
    pub(crate) older_than: Option<Duration>,
}

/// An age of at least a second, with days of 24 hours.
fn age(text: &str) -> Result<Duration, String> {
    let span: jiff::Span = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    let relative = jiff::SpanRelativeTo::days_are_24_hours();
    let duration =
        span.to_duration(relative).map_err(|_| "give it in weeks, days, hours, minutes or seconds")?;
    let age = Duration::try_from(duration).map_err(|_| "it must not be negative")?;
    if age < Duration::from_secs(1) { Err("it must be a second or more".into()) } else { Ok(age) }
}

fn public_id(text: &str) -> Result<PublicId, &'static str> {
    PublicId::parse(text).ok_or("it is not 40 characters 0-9, a-f")
}

/// Print all live sessions, one JSON object a line
///
/// The output has the digests of the ids, not the ids, and everything that the
/// sessions hold. Sessions that are created or rotated meanwhile may be missing.
/// The last line counts the sessions: without it, the export was cut short.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sessile export /var/lib/shop/sessions | zstd >sessions.zst

A line: id (the public one), created, touched, deadline, expiry, user, entries;
ends_with_browser, if the cookie ends with the browser by the program's choice;
came_once, if the visitor has come only once and has not logged in.
The last line: sessile_export (1), sessions. With jq: select(.id).
Times are RFC 3339, or microseconds since 1970 beyond the year 9999. With
--json the summary (exported, damaged, failed, seconds) is an object, too; it
goes to standard error.

Exit codes: see sessile --help.")]
pub(crate) struct Export {
    /// The store: a directory, or a URL
    #[arg(value_name = "STORE")]
    pub(crate) place: PathBuf,
}

/// Import exported sessions
///
/// Reads standard input. A session that exists is left alone, unless it has
/// expired; an expired session in the input is skipped. A damaged or unfinished
/// file in a session's place is an error. Names of entries and sizes are not
/// checked against any server's limits. A session that was deleted after the
/// export is live again.
///
/// Wrong lines are listed and the other lines are imported (exit code 3), also
/// if the input ends without the line that counts the sessions. When the disk is
/// full or cannot be written, the import stops (exit code 1). An import can be
/// repeated. It takes about 60 bytes of memory for each session.
///
/// A move from one store to another keeps whole records and ids, so that a
/// visitor notices nothing. While the servers run, export and import; stop them,
/// and do it again with --mirror, which is short; start them on the new store.
/// Without the second pass, changes that were saved after the export are lost,
/// and sessions that ended after it are alive again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  zstd -d <sessions.zst | sessile import /var/lib/shop/sessions
  grep -w ada sessions.jsonl | sessile import --partial /srv/copy
  sessile export /srv/old | sessile import --mirror /srv/new

JSON: imported, existing, replaced, deleted, expired, failed, not_tried, whole (whether the last
line is there and counts all), seconds.

Exit codes: see sessile --help.")]
pub(crate) struct Import {
    /// The store: a directory, which is made if there is none, or a URL
    #[arg(value_name = "STORE")]
    pub(crate) place: PathBuf,
    /// Make each session power-safe before the next
    #[arg(long)]
    pub(crate) power_safe: bool,
    /// Accept a part of an export, or an export of an early version, which lacks
    /// the last line that counts the sessions
    #[arg(long)]
    pub(crate) partial: bool,
    /// Make the store equal to the export, as the second pass of a move: also
    /// replace sessions that are older than in the input, and delete those that
    /// the input does not have. Only with a whole export
    #[arg(long, conflicts_with = "partial")]
    pub(crate) mirror: bool,
}
