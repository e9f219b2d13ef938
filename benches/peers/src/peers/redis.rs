//! Redis, if it is installed: a separate server on a Unix socket, one connection a thread.
//!
//! A session is a hash of its visits and its payload that Redis expires by itself, so there is no sweep to
//! measure. `appendonly yes`; relaxed is `appendfsync everysec`, power-safe `always`, as
//! <https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/> explains them. An update is
//! a script on the server, in one round trip: plain commands would create a session that was ended meanwhile.
use super::server::{self, Server, find};
use crate::peer::{Client, Peer, Setting};
use crate::workload::{Found, Key, Operation, micros, usual_deadline};
use redis::Connection;
use std::process::Command;
use std::time::SystemTime;

pub(crate) struct Redis {
    setting: Setting,
    client: redis::Client,
    server: Server,
}

impl Redis {
    pub(crate) fn open(setting: Setting) -> Self {
        let sockets = server::sockets();
        let socket = sockets.path().join("redis");
        let client = redis::Client::open(format!("unix://{}", socket.display())).expect("an address");
        let mut command = Command::new(find("redis-server").expect("it is installed"));
        let fsync = if setting.is_power_safe() { "always" } else { "everysec" };
        command.args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", fsync]);
        command.arg("--dir").arg(&setting.dir).arg("--unixsocket").arg(&socket);
        let (server, _) = Server::start(&mut command, sockets, || client.get_connection().ok());
        Self { setting, client, server }
    }
}

/// Reads a session, counts a visit and writes the session, if it exists.
const UPDATE: &str = "
    local payload = redis.call('HGET', KEYS[1], 'payload')
    if not payload then return 0 end
    redis.call('HINCRBY', KEYS[1], 'visits', 1)
    redis.call('HSET', KEYS[1], 'payload', payload)
    return 1";

fn make<'a>(
    pipe: &'a mut redis::Pipeline,
    key: &Key,
    deadline: SystemTime,
    payload: &str,
) -> &'a mut redis::Pipeline {
    pipe.cmd("HSET").arg(key).arg("visits").arg(0).arg("payload").arg(payload).ignore();
    pipe.cmd("PEXPIREAT").arg(key).arg(micros(deadline) / 1000).ignore()
}

impl Peer for Redis {
    fn fill(&self, keys: &[Key]) {
        let mut connection = self.client.get_connection().expect("a connection");
        for keys in keys.chunks(1000) {
            let mut pipe = redis::pipe();
            for key in keys {
                make(&mut pipe, key, usual_deadline(), &self.setting.payload);
            }
            pipe.query::<()>(&mut connection).expect("sessions");
        }
    }
    fn client(&self) -> Box<dyn Client + '_> {
        let mut connection = self.client.get_connection().expect("a connection");
        let loaded = redis::cmd("SCRIPT").arg("LOAD").arg(UPDATE).query(&mut connection);
        let update = loaded.expect("a script");
        Box::new(RedisClient { payload: &self.setting.payload, connection, update })
    }
    fn does(&self, operation: Operation) -> bool {
        !matches!(operation, Operation::LoadCached | Operation::Sweep)
    }
    fn server_memory(&self) -> Option<u64> {
        Some(self.server.memory())
    }
}

struct RedisClient<'a> {
    payload: &'a str,
    connection: Connection,
    /// The digest by which the server knows the script.
    update: String,
}

impl Client for RedisClient<'_> {
    fn load(&mut self, key: &Key) -> Option<Found> {
        let found = redis::cmd("HMGET").arg(key).arg("visits").arg("payload").query(&mut self.connection);
        let (visits, payload): (Option<u64>, Option<String>) = found.expect("a look");
        Some(Found { visits: visits?, bytes: payload?.len() })
    }
    fn update(&mut self, key: &Key) -> bool {
        let mut update = redis::cmd("EVALSHA");
        update.arg(&self.update).arg(1).arg(key);
        update.query::<u64>(&mut self.connection).expect("an update") == 1
    }
    fn create(&mut self, key: &Key, deadline: SystemTime) -> Key {
        let mut pipe = redis::pipe();
        make(pipe.atomic(), key, deadline, self.payload)
            .query::<()>(&mut self.connection)
            .expect("a session");
        *key
    }
    fn delete(&mut self, key: &Key) -> bool {
        redis::cmd("DEL").arg(key).query::<u64>(&mut self.connection).expect("a deletion") == 1
    }
    fn sweep(&mut self) -> u64 {
        unreachable!("it does not support this operation")
    }
}
