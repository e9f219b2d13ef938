//! A browser for tests: an HTTP/1.1 client on a socket, which keeps cookies; and a guard that ends a running example
//! program. The client sends exactly the given bytes, so a test can send requests that no client library would send. No
//! wait lasts longer than [`PATIENCE`].
use super::cookie_jar::Jar;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Time after which an answer counts as missing: far more than a loaded machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One connection to a server.
pub(crate) struct Client(BufReader<TcpStream>);

/// A server's response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// All header lines, in order.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(server: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&server, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends these bytes unchanged. A closed connection is an error.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.get_mut().write_all(bytes.as_ref())
    }

    /// Reads one response. A closed connection or a timeout is an error.
    pub(crate) fn receive(&mut self) -> io::Result<Response> {
        loop {
            let response = self.receive_any()?;
            if response.status >= 200 {
                return Ok(response);
            }
        }
    }

    /// Whether a response begins within `wait`. On a slow server a response may come later; so this only shows that a
    /// response *cannot* come yet.
    pub(crate) fn hears_within(&mut self, wait: Duration) -> bool {
        self.0.get_ref().set_read_timeout(Some(wait)).unwrap();
        let heard = self.0.fill_buf().is_ok();
        self.0.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        heard
    }

    /// Reads the head of a response whose body comes in chunks, now and then; see [`chunk`](Self::chunk).
    pub(crate) fn receive_head(&mut self) -> io::Result<Response> {
        let response = self.head()?;
        if response.all("Transfer-Encoding") == ["chunked"] {
            Ok(response)
        } else {
            Err(broken(format!("no chunks: {response:?}")))
        }
    }

    /// Reads the next chunk of a body. The last one is empty.
    pub(crate) fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.line()?;
        let length = u64::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
            .map_err(|error| broken(error.to_string()))?;
        let chunk = self.exactly(length)?;
        let end = self.line()?;
        if end.is_empty() { Ok(chunk) } else { Err(broken(format!("behind a chunk: {end:?}"))) }
    }

    /// Reads the status line and the headers.
    fn head(&mut self) -> io::Result<Response> {
        let line = self.line()?;
        let status = line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1)?.parse().ok())
            .ok_or_else(|| broken(format!("no status line: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| broken(format!("no header line: {line:?}")))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(Response { status, headers, body: Vec::new() })
    }

    fn receive_any(&mut self) -> io::Result<Response> {
        let mut response = self.head()?;
        let status = response.status;
        let chunked =
            response.all("Transfer-Encoding").iter().any(|coding| coding.eq_ignore_ascii_case("chunked"));
        let length = response.all("Content-Length").first().map(|length| length.parse::<u64>());
        response.body = match (status, chunked, length) {
            (..200 | 204 | 304, ..) => Vec::new(),
            (_, true, _) => self.chunks()?,
            (_, false, Some(length)) => self.exactly(length.map_err(|error| broken(error.to_string()))?)?,
            (_, false, None) => self.exactly(u64::MAX)?,
        };
        Ok(response)
    }

    /// Reads a line, without its CR LF.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line)?;
        let line =
            line.strip_suffix(b"\r\n").ok_or_else(|| broken(format!("an unfinished line: {line:?}")))?;
        String::from_utf8(line.to_vec()).map_err(|error| broken(error.to_string()))
    }

    /// Reads this many bytes, or with `u64::MAX` all bytes until the server closes the connection.
    fn exactly(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let got = (&mut self.0).take(length).read_to_end(&mut bytes)?;
        if length != u64::MAX && got as u64 != length {
            return Err(broken(format!("{got} bytes of body where {length} were announced")));
        }
        Ok(bytes)
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend(chunk);
        }
    }
}

fn broken(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Response {
    /// The values of all headers of this name, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A browser on one server: it sends its cookies, and stores those that it receives. Each request uses a new
/// connection.
#[derive(Clone)]
pub(crate) struct Browser {
    pub(crate) server: SocketAddr,
    pub(crate) jar: Jar,
    /// Header lines of each request, each with its CR LF.
    pub(crate) headers: String,
}

impl Browser {
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self { server, jar: Jar::http(), headers: String::new() }
    }

    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, "", "")
    }

    /// Sends a form, encoded as browsers do.
    #[track_caller]
    pub(crate) fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Response {
        let fields = form.iter().map(|(name, value)| format!("{}={}", form_text(name), form_text(value)));
        let body = fields.collect::<Vec<_>>().join("&");
        self.request("POST", path, "Content-Type: application/x-www-form-urlencoded\r\n", &body)
    }

    #[track_caller]
    fn request(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Response {
        let cookie = self.jar.header().map_or_else(String::new, |cookie| format!("Cookie: {cookie}\r\n"));
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let own = &self.headers;
        let mut client = Client::connect(self.server);
        client
            .send(format!(
                "{method} {path} HTTP/1.1\r\nHost: test\r\n{cookie}{own}{headers}{length}\r\n{body}"
            ))
            .unwrap();
        let response = client.receive().unwrap();
        self.jar.receive(response.all("Set-Cookie"));
        response
    }
}

fn form_text(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' => encoded.push(char::from(byte)),
            b' ' => encoded.push('+'),
            other => write!(encoded, "%{other:02X}").unwrap(),
        }
    }
    encoded
}

/// A running example program. It is killed with SIGKILL when this value is dropped.
pub(crate) struct Example {
    child: Child,
    stdout: Receiver<String>,
    pub(crate) server: SocketAddr,
}

impl Example {
    /// Starts `examples/NAME` on any free port with its sessions in `dir`, and waits until it reports that it is ready.
    #[track_caller]
    pub(crate) fn start(name: &str, dir: &Path) -> Self {
        Self::start_with(name, dir, &[])
    }

    /// The same as [`start`](Self::start), with further arguments for the program.
    #[track_caller]
    pub(crate) fn start_with(name: &str, dir: &Path, args: &[&str]) -> Self {
        let dir = ["--dir".as_ref(), dir.as_os_str()];
        Self::run(name, dir.into_iter().chain(args.iter().map(AsRef::as_ref)))
    }

    /// The same as [`start`](Self::start), with these arguments only.
    #[track_caller]
    pub(crate) fn run<'a>(name: &str, args: impl IntoIterator<Item = &'a OsStr>) -> Self {
        let program = Self::program(name);
        let mut child = Command::new(&program)
            .args(["--port", "0"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error} (`cargo build --examples` builds it)", program.display())
            });
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, stdout) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        // The guard is made before any code that may panic, so that the program does not stay.
        let mut example = Self { child, stdout, server: SocketAddr::from(([0; 4], 0)) };
        let line = example.stdout.recv_timeout(PATIENCE).expect("the example reports that it is ready");
        let address =
            line.strip_prefix("listening on http://").unwrap_or_else(|| panic!("it printed {line:?}"));
        example.server = address.parse().unwrap();
        example
    }

    /// The path of an example program. This test runs as `target/PROFILE/deps/it-…`, and `cargo test` has built the
    /// examples in `target/PROFILE/examples`.
    pub(crate) fn program(name: &str) -> PathBuf {
        let this = std::env::current_exe().unwrap();
        this.parent().and_then(Path::parent).unwrap().join("examples").join(name)
    }

    /// Kills the program with SIGKILL. Asserts that it has printed only its first line.
    #[track_caller]
    pub(crate) fn kill(mut self) {
        self.end();
        assert_eq!(self.stdout.iter().collect::<Vec<_>>(), [""; 0], "more than one line on stdout");
    }

    fn end(&mut self) {
        // An error means that the program has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        self.end();
    }
}
