//! Separate servers: started on a socket in a temporary directory, and stopped when they are dropped.
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Path of a program: in `PATH`, or in Debian's directory of PostgreSQL programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = debian.map(|version| version.path().join("bin"));
    std::env::split_paths(&path).chain(debian).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// A directory for a socket. Not the measured directory: the path of a socket may have only about a hundred
/// characters.
pub(crate) fn sockets() -> TempDir {
    tempfile::Builder::new().prefix("peers-").tempdir().expect("a temporary directory")
}

/// A running server.
pub(crate) struct Server {
    process: Child,
    /// The directory of its socket.
    _sockets: TempDir,
}

impl Server {
    /// Starts it, and tries `connect` until that succeeds.
    pub(crate) fn start<T>(
        command: &mut Command,
        sockets: TempDir,
        mut connect: impl FnMut() -> Option<T>,
    ) -> (Self, T) {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // A signal from the terminal goes to this tool only, which stops the server after its last request.
        let spawned = command.process_group(0).spawn();
        let process = spawned.expect("a server that can be started");
        let mut this = Self { process, _sockets: sockets };
        let began = Instant::now();
        loop {
            if let Some(connection) = connect() {
                return (this, connection);
            }
            let ended = this.process.try_wait().expect("a child of this process");
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "{command:?} does not answer: {ended:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The memory in use by it and its children, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let pid = self.process.id();
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let all = children.split_whitespace().filter_map(|child| child.parse().ok()).chain([pid]);
        all.map(resident).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        // SIGINT: PostgreSQL's "fast" shutdown, which disconnects all clients and removes its shared memory.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let began = Instant::now();
        while let Ok(None) = self.process.try_wait() {
            if began.elapsed() > Duration::from_secs(10) {
                let _ = self.process.kill();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A process's private memory and its share of shared memory, in bytes.
pub(crate) fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kilobytes: u64 = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0);
    kilobytes << 10
}
