//! Stores in a database file: opening one, what `sessile doctor` looks for in it, and `sessile schema`.
use crate::args::Schema;
use crate::doctor::{Examination, little_space, mount_finding};
use crate::store::in_words;
use crate::terminal::{error_chain, json_line, print, warn};
use crate::{Access, Failure, Outcome, VerbResult};
use indicatif::HumanBytes;
use serde_json::json;
use sessile::database::{SqliteOptions, SqliteStore};
use std::path::Path;

/// A part of the pages that are free, and their bytes, above which the file is worth making smaller.
const FREE_PERCENT: u64 = 50;
const FREE_BYTES: u64 = 64 << 20;
/// A log that is larger than this was not moved into the database for long. SQLite does so at 4 MiB.
const LOG_BYTES: u64 = 256 << 20;

/// Opens a store with the highest limits. Changes no permissions, and makes no file but for an import.
pub(crate) fn open(path: &Path, access: Access) -> Result<SqliteStore, Failure> {
    let options = SqliteOptions::new()
        .create(access == Access::Create)
        .keep_modes(true)
        .record_bytes_max(16 << 20)
        .entries_max(1 << 16)
        .known_bytes(0)
        .observer(|event| in_words(event).into_iter().for_each(warn));
    Ok(options.open(path)?)
}

/// Looks for settings of a database file that would lose sessions, and for damage.
pub(crate) fn examine(store: &SqliteStore, seen: &mut Examination) {
    seen.check("opening", None);
    let dir = store.rows().path().parent().expect("a file has a directory");
    seen.check("file system", mount_finding(dir));
    seen.check("space", little_space(dir));
    let found = match store.rows().examine() {
        Ok(found) => found,
        Err(error) => {
            seen.check("integrity", Some((error_chain(&error), RESTORE)));
            return;
        }
    };
    let first =
        found.damage.first().map(|first| format!("{} findings, the first one: {first}", found.damage.len()));
    seen.check("integrity", first.map(|text| (text, RESTORE)));
    let bytes = found.free_pages * found.page_bytes;
    let is_much = bytes > FREE_BYTES && found.free_pages * 100 > found.pages * FREE_PERCENT;
    let text = || format!("{} of {} pages are free, {}", found.free_pages, found.pages, HumanBytes(bytes));
    seen.check(
        "free pages",
        is_much.then(|| (text(), "later sessions use them; to make the file smaller, run VACUUM in it")),
    );
    let text = || format!("the write-ahead log has {}", HumanBytes(found.log_bytes));
    let remedy = "look for a program that reads the file for hours without an end; it keeps SQLite from emptying the log";
    seen.check("log", (found.log_bytes > LOG_BYTES).then(|| (text(), remedy)));
}

const RESTORE: &str =
    "look for the cause (the disk's health, a program that writes there), and restore a backup";

/// Prints the statements that make the tables.
pub(crate) fn schema(args: &Schema, json: bool) -> VerbResult {
    let mut options = SqliteOptions::new();
    if let Some(prefix) = &args.prefix {
        options = options.table_prefix(prefix);
    }
    let schema = options.schema()?;
    if json {
        print(json_line(&json!({"schema": schema})))?;
    } else {
        print(schema.trim_end())?;
    }
    Ok(Outcome::Ok)
}
