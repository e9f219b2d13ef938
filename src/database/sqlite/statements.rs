//! The text of the schema and of all statements. No statement inserts *or* replaces, and each that replaces a row names
//! the tag that it replaces, and the cut-offs that the session has survived.
use crate::database::names::Prefix;

/// The version of the tables.
pub(super) const VERSION: i64 = 1;

/// The owner that counts the cut-offs of all users, as SQL has it.
const ALL: &str = "x'00000000000000000000000000000000'";

/// The text of each statement, with the names of this store's tables.
pub(super) struct Statements {
    pub(super) schema: String,
    /// Whether the table `schema` exists, and its version.
    pub(super) has_schema: String,
    pub(super) version: String,
    pub(super) select: String,
    pub(super) scan: String,
    pub(super) of_user: String,
    pub(super) insert: String,
    pub(super) insert_as: String,
    pub(super) swap_in_place: String,
    pub(super) swap: String,
    pub(super) replace_by_moved: String,
    pub(super) remove_seen: String,
    pub(super) remove: String,
    pub(super) count: String,
    pub(super) cut_offs: String,
    pub(super) last_cut_off: String,
    pub(super) cut_off: String,
    pub(super) make_stale: String,
    pub(super) sweeps: Sweeps,
}

/// The statements of sweeps.
pub(super) struct Sweeps {
    pub(super) due: String,
    pub(super) stale: String,
    pub(super) make_swept: String,
    pub(super) cut_off_of_user: String,
    pub(super) cut_off_of_all: String,
    pub(super) remove: String,
}

/// The statements that make the tables. `due` and `owner` are indexed; the exact deadline is not, because most saves
/// move it.
pub(super) fn schema(prefix: &Prefix) -> String {
    let p = prefix.as_str();
    format!(
        "\
CREATE TABLE {p}sessions (
    id       BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 20),
    tag      INTEGER NOT NULL,
    tags     BLOB    NOT NULL CHECK (length(tags) = 64),
    deadline INTEGER NOT NULL,
    due      INTEGER NOT NULL,
    owner    BLOB             CHECK (length(owner) = 16),
    cut_user INTEGER NOT NULL,
    cut_all  INTEGER NOT NULL,
    moved_to BLOB             CHECK (length(moved_to) = 20),
    payload  BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX {p}sessions_due ON {p}sessions (due);
CREATE INDEX {p}sessions_owner ON {p}sessions (owner) WHERE owner IS NOT NULL;
CREATE TABLE {p}cutoffs (
    owner BLOB    NOT NULL PRIMARY KEY CHECK (length(owner) = 16),
    n     INTEGER NOT NULL CHECK (n BETWEEN 0 AND 4294967295),
    at    INTEGER NOT NULL,
    stale INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE {p}schema (version INTEGER NOT NULL) STRICT;
INSERT INTO {p}schema (version) VALUES ({VERSION});
"
    )
}

/// The present number of cut-offs of an owner, which is an expression of SQL.
fn number_of(p: &str, owner: &str) -> String {
    format!("coalesce((SELECT c.n FROM {p}cutoffs AS c WHERE c.owner = {owner}), 0)")
}

impl Statements {
    pub(super) fn new(prefix: &Prefix) -> Self {
        let p = prefix.as_str();
        let (of_owner, of_all) = (number_of(p, "s.owner"), number_of(p, ALL));
        let of_first = number_of(p, "?1");
        let row = format!(
            "SELECT s.id, s.tag, s.tags, s.deadline, s.owner, s.cut_user, s.cut_all, s.moved_to, s.payload, \
             {of_owner}, {of_all} FROM {p}sessions AS s"
        );
        let insert = format!(
            "INSERT INTO {p}sessions \
             (id, tag, tags, deadline, due, owner, moved_to, payload, cut_user, cut_all)"
        );
        let stands = format!("s.cut_user >= {of_owner} AND s.cut_all >= {of_all}");
        let seen = format!("s.id = ?1 AND s.tag = ?2 AND {stands}");
        Self {
            schema: schema(prefix),
            has_schema: format!(
                "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = '{p}schema'"
            ),
            version: format!("SELECT version FROM {p}schema"),
            select: format!("{row} WHERE s.id = ?1"),
            scan: format!("{row} WHERE s.id > ?1 AND length(s.id) = 20 ORDER BY s.id LIMIT ?2"),
            of_user: format!("{row} WHERE s.owner = ?1 AND s.id > ?2 AND length(s.id) = 20 ORDER BY s.id"),
            insert: format!(
                "{insert} VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, {}, {of_all}) \
                 ON CONFLICT (id) DO NOTHING RETURNING cut_user, cut_all",
                number_of(p, "?6")
            ),
            insert_as: format!(
                "{insert} VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
                 ON CONFLICT (id) DO NOTHING RETURNING cut_user, cut_all"
            ),
            swap_in_place: format!(
                "UPDATE {p}sessions AS s SET tag = ?3, tags = ?4, deadline = ?5, cut_user = ?8, cut_all = ?9, \
                 payload = ?10 WHERE {seen} AND s.due = ?6 AND s.owner IS ?7"
            ),
            swap: format!(
                "UPDATE {p}sessions AS s SET tag = ?3, tags = ?4, deadline = ?5, due = ?6, owner = ?7, \
                 cut_user = ?8, cut_all = ?9, payload = ?10 WHERE {seen}"
            ),
            replace_by_moved: format!(
                "UPDATE {p}sessions AS s SET tag = 0, tags = ?3, deadline = ?4, due = ?5, owner = NULL, \
                 cut_user = 0, cut_all = 0, moved_to = ?6, payload = ?7 WHERE {seen}"
            ),
            remove_seen: format!("DELETE FROM {p}sessions AS s WHERE {seen}"),
            remove: format!("DELETE FROM {p}sessions WHERE id = ?1"),
            count: format!("SELECT count(*) FROM {p}sessions"),
            cut_offs: format!("SELECT {of_first}, {of_all}"),
            last_cut_off: format!("SELECT n, at FROM {p}cutoffs WHERE owner = ?1"),
            cut_off: format!(
                "INSERT INTO {p}cutoffs AS c (owner, n, at, stale) VALUES (?1, 1, ?2, 1) \
                 ON CONFLICT (owner) DO UPDATE SET n = c.n + 1, at = max(c.at, excluded.at), stale = c.stale + 1"
            ),
            make_stale: format!(
                "UPDATE {p}cutoffs SET stale = stale + 1 WHERE owner IN (?1, {ALL}) AND n > 0"
            ),
            sweeps: Sweeps::new(p, &stands),
        }
    }
}

impl Sweeps {
    fn new(p: &str, stands: &str) -> Self {
        let ids = format!("SELECT s.id FROM {p}sessions AS s WHERE");
        Self {
            due: format!("{ids} s.due <= ?1 AND s.deadline <= ?1 ORDER BY s.due LIMIT ?2"),
            stale: format!("SELECT owner, n, stale FROM {p}cutoffs WHERE stale > 0"),
            make_swept: format!("UPDATE {p}cutoffs SET stale = 0 WHERE owner = ?1 AND stale = ?2"),
            cut_off_of_user: format!("{ids} s.owner = ?1 AND s.cut_user < ?2 LIMIT ?3"),
            cut_off_of_all: format!("{ids} s.cut_all < ?2 AND s.moved_to IS NULL AND ?1 = ?1 LIMIT ?3"),
            remove: format!(
                "DELETE FROM {p}sessions AS s \
                 WHERE s.id = ?1 AND (s.deadline <= ?2 OR s.moved_to IS NULL AND NOT ({stands}))"
            ),
        }
    }
}
