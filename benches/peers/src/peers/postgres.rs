//! PostgreSQL, if it is installed: a separate server on a Unix socket, one connection a thread, prepared
//! statements. It has its defaults except for the durability: `synchronous_commit` is off for relaxed, which
//! <https://www.postgresql.org/docs/current/wal-async-commit.html> recommends for data that may be lost, and
//! on for power-safe.
//!
//! It refuses to run as the superuser; in that case it runs as the user `postgres`.
use super::server::{self, Server, find};
use crate::peer::{Client, Peer, Setting};
use crate::workload::{Found, Key, micros, text, usual_deadline};
use postgres::{Config, NoTls, Statement};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

pub(crate) struct Postgres {
    setting: Setting,
    config: Config,
    server: Server,
}

/// User and group of `postgres`, which run the server if this process is the superuser.
fn other_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("the list of users");
    let line = users.lines().find_map(|line| line.strip_prefix("postgres:")).expect("a user postgres");
    let mut fields = line.split(':').skip(1).map(|field| field.parse().expect("a number"));
    Some((fields.next().expect("a user"), fields.next().expect("a group")))
}

/// Lets another user traverse the directories above a directory.
fn let_pass(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    for dir in dir.ancestors().skip(1) {
        let mode = dir.metadata().expect("a directory").permissions().mode();
        // Only temporary directories of this tool are changed; all users may traverse those of the system.
        if mode & 0o011 != 0o011
            && dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("peers-"))
        {
            std::fs::set_permissions(dir, PermissionsExt::from_mode(mode | 0o011))
                .expect("a directory of this tool");
        }
    }
}

impl Postgres {
    pub(crate) fn open(setting: Setting) -> Self {
        let user = other_user();
        let run = |program| {
            let mut command = Command::new(find(program).expect("it is installed"));
            command.current_dir(&setting.dir);
            if let Some((user, group)) = user {
                command.uid(user).gid(group);
            }
            command
        };
        let sockets = server::sockets();
        if let Some((user, group)) = user {
            let_pass(&setting.dir);
            for dir in [&setting.dir, sockets.path()] {
                chown(dir, Some(user), Some(group)).expect("a directory of its own");
            }
        }
        let data = setting.dir.join("data");
        let mut init = run("initdb");
        init.args([
            "--username=sessions",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
            "-D",
        ])
        .arg(&data);
        let made = init.stdin(Stdio::null()).output().expect("initdb");
        assert!(made.status.success(), "{init:?}: {}", String::from_utf8_lossy(&made.stderr));
        let mut config = Config::new();
        config.host_path(sockets.path()).user("sessions").dbname("postgres");
        let mut command = run("postgres");
        let commit = if setting.is_power_safe() { "on" } else { "off" };
        command.arg("-D").arg(&data).arg("-k").arg(sockets.path());
        command.args(["-c", "listen_addresses=", "-c", &format!("synchronous_commit={commit}")]);
        let (server, mut connection) = Server::start(&mut command, sockets, || config.connect(NoTls).ok());
        let made = connection.batch_execute(
            "CREATE TABLE sessions (
                 id TEXT PRIMARY KEY, deadline BIGINT NOT NULL, visits BIGINT NOT NULL, payload TEXT NOT NULL);
             CREATE INDEX sessions_by_deadline ON sessions (deadline);",
        );
        made.expect("a table");
        Self { setting, config, server }
    }
}

/// A time as it is stored.
fn integer(time: SystemTime) -> i64 {
    micros(time).try_into().expect("below 2^63")
}

impl Peer for Postgres {
    fn fill(&self, keys: &[Key]) {
        let mut connection = self.config.connect(NoTls).expect("a connection");
        let ids: Vec<&str> = keys.iter().map(text).collect();
        let insert = "INSERT INTO sessions SELECT id, $2, 0, $3 FROM unnest($1::TEXT[]) AS id";
        connection.execute(insert, &[&ids, &integer(usual_deadline()), &self.setting.payload]).expect("rows");
        connection.batch_execute("VACUUM ANALYZE sessions").expect("statistics");
    }
    fn client(&self) -> Box<dyn Client + '_> {
        let mut connection = self.config.connect(NoTls).expect("a connection");
        let mut prepare = |text| connection.prepare(text).expect("a statement");
        let statements = Statements {
            select: prepare("SELECT visits, payload FROM sessions WHERE id = $1 AND deadline > $2"),
            select_for_update: prepare(
                "SELECT visits, payload FROM sessions WHERE id = $1 AND deadline > $2 FOR UPDATE",
            ),
            update: prepare("UPDATE sessions SET visits = $2, payload = $3 WHERE id = $1"),
            insert: prepare("INSERT INTO sessions (id, deadline, visits, payload) VALUES ($1, $2, 0, $3)"),
            delete: prepare("DELETE FROM sessions WHERE id = $1"),
            sweep: prepare("DELETE FROM sessions WHERE deadline <= $1"),
        };
        Box::new(PostgresClient { payload: &self.setting.payload, connection, statements })
    }
    fn server_memory(&self) -> Option<u64> {
        Some(self.server.memory())
    }
}

struct Statements {
    select: Statement,
    select_for_update: Statement,
    update: Statement,
    insert: Statement,
    delete: Statement,
    sweep: Statement,
}

struct PostgresClient<'a> {
    payload: &'a str,
    connection: postgres::Client,
    statements: Statements,
}

impl Client for PostgresClient<'_> {
    fn load(&mut self, key: &Key) -> Option<Found> {
        let now = integer(SystemTime::now());
        let row = self.connection.query_opt(&self.statements.select, &[&text(key), &now]).expect("a look")?;
        let visits: i64 = row.get(0);
        Some(Found { visits: visits.try_into().expect("a count"), bytes: row.get::<_, &str>(1).len() })
    }
    fn update(&mut self, key: &Key) -> bool {
        let now = integer(SystemTime::now());
        let mut transaction = self.connection.transaction().expect("a transaction");
        let row =
            transaction.query_opt(&self.statements.select_for_update, &[&text(key), &now]).expect("a look");
        let Some(row) = row else { return false };
        let (visits, payload): (i64, &str) = (row.get(0), row.get(1));
        let changed = transaction.execute(&self.statements.update, &[&text(key), &(visits + 1), &payload]);
        transaction.commit().expect("a commit");
        changed.expect("an update") == 1
    }
    fn create(&mut self, key: &Key, deadline: SystemTime) -> Key {
        let values: [&(dyn postgres::types::ToSql + Sync); 3] =
            [&text(key), &integer(deadline), &self.payload];
        self.connection.execute(&self.statements.insert, &values).expect("a row");
        *key
    }
    fn delete(&mut self, key: &Key) -> bool {
        self.connection.execute(&self.statements.delete, &[&text(key)]).expect("a deletion") == 1
    }
    fn sweep(&mut self) -> u64 {
        let now = integer(SystemTime::now());
        self.connection.execute(&self.statements.sweep, &[&now]).expect("a deletion")
    }
}
