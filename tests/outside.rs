//! The crate as another package sees it. README.md as a new user follows it: each block of dependencies and the program behind
//! it make a package outside of this repository, which is built as printed; the first program is also run and asked. And the
//! compiler's advice where a handler returns something else than an adapter takes.
//!
//! A binary of its own, because cargo runs one test binary after the other: a compiler at work would slow down the tests of `it`
//! that measure time. Builds offline, with the versions of this repository's lock file, which built this test too. Only two
//! things differ from the page: `sessile` also has a `path`, and the program that is run gets a free port.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long the program may take until it listens, and until it answers.
const PATIENCE: Duration = Duration::from_secs(30);
/// The address in the printed programs.
const PRINTED: &str = "127.0.0.1:8000";
const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// A block of dependencies, and the program that is printed behind it.
struct Printed {
    dependencies: String,
    program: String,
}

/// Each program of the page, with the block of dependencies that stands before it.
fn printed(page: &str) -> Vec<Printed> {
    let mut found = Vec::new();
    let mut dependencies = None;
    // Between two fences: the language in the first line, then the block.
    for block in page.split("\n```").skip(1).step_by(2) {
        let (language, text) = block.split_once('\n').unwrap();
        if language == "toml" && text.starts_with("[dependencies]\n") {
            dependencies = Some(text.to_owned());
        } else if language.starts_with("rust") && text.contains("\nfn main()") {
            let dependencies = dependencies.take().expect("a block of dependencies before each program");
            found.push(Printed { dependencies, program: text.to_owned() });
        }
    }
    found
}

/// Makes a package of it and builds it: the program's path, or what the compiler says against it.
#[track_caller]
fn build(dir: &Path, name: &str, printed: &Printed) -> Result<PathBuf, String> {
    let version = "sessile = { version = ";
    assert!(printed.dependencies.contains(version), "{}", printed.dependencies);
    let from_here = format!("sessile = {{ path = {REPOSITORY:?}, version = ");
    let mut manifest = format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n");
    manifest += &printed.dependencies.replace(version, &from_here);
    // In a directory below another package, cargo would ask that package's workspace.
    manifest += "\n\n[workspace]\n";
    fs::create_dir(dir.join("src")).unwrap();
    fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    fs::write(dir.join("src/main.rs"), &printed.program).unwrap();
    fs::copy(Path::new(REPOSITORY).join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    // Kept, so that the dependencies are built once.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--offline", "--target-dir"])
        .arg(&target)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(built.stderr).unwrap();
    let is_fine = built.status.success() && !said.contains("src/main.rs");
    if is_fine { Ok(target.join("debug").join(name)) } else { Err(said) }
}

#[track_caller]
fn builds(dir: &Path, name: &str, printed: &Printed) -> PathBuf {
    let built = build(dir, name, printed);
    built.unwrap_or_else(|said| {
        panic!("with\n{}the program has warnings or errors:\n{said}", printed.dependencies)
    })
}

/// A program that is killed when this is dropped.
struct Running(Child);

impl Running {
    #[track_caller]
    fn start(program: &Path, dir: &Path, server: SocketAddr) -> Self {
        let mut running = Self(Command::new(program).current_dir(dir).spawn().unwrap());
        let began = Instant::now();
        while TcpStream::connect(server).is_err() {
            assert_eq!(running.0.try_wait().unwrap(), None, "the program has ended");
            assert!(began.elapsed() < PATIENCE, "the program does not listen");
            sleep(Duration::from_millis(10));
        }
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it is dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks for the page with this cookie. All that the server answers.
fn ask(server: SocketAddr, cookie: &str) -> String {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{cookie}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_readmes_programs_build_as_printed_and_the_first_serves() {
    let page = fs::read_to_string(Path::new(REPOSITORY).join("README.md")).unwrap();
    let mut programs = printed(&page);
    assert_eq!(programs.len(), 2, "one with tiny_http, one with rouille");
    let dirs: Vec<TempDir> = programs.iter().map(|_| tempfile::tempdir().unwrap()).collect();
    builds(dirs[1].path(), "second", &programs[1]);

    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = free.local_addr().unwrap();
    let first = &mut programs[0].program;
    assert_eq!(first.matches(PRINTED).count(), 1, "{first}");
    *first = first.replace(PRINTED, &server.to_string());
    let program = builds(dirs[0].path(), "first", &programs[0]);
    drop(free);

    let running = Running::start(&program, dirs[0].path(), server);
    let answer = ask(server, "");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("visits: 1\n"), "{answer}");
    // A browser keeps this cookie and sends it back by plain HTTP.
    let header = answer.lines().find_map(|line| line.strip_prefix("Set-Cookie: ")).expect("a cookie");
    assert!(!header.contains("Secure"), "{header}");
    let cookie = format!("Cookie: {}\r\n", header.split(';').next().unwrap());
    assert!(ask(server, &cookie).ends_with("visits: 2\n"));
    drop(running);

    let _again = Running::start(&program, dirs[0].path(), server);
    assert!(ask(server, &cookie).ends_with("visits: 3\n"), "it goes on counting");
}

#[test]
fn the_compiler_says_what_a_handler_may_return() {
    let page = fs::read_to_string(Path::new(REPOSITORY).join("README.md")).unwrap();
    let printed = printed(&page);
    for (printed, response, right, wrong) in [
        (
            &printed[0],
            "Response<Box<",
            "Ok(Response::from_string(format!(\"visits: {visits}\\n\")))",
            "Ok(visits)",
        ),
        (&printed[1], "Response`", "-> sessile::Result<_>", "-> Result<_, String>"),
    ] {
        assert_eq!(printed.program.matches(right).count(), 1, "{}", printed.program);
        // `?` takes no error of the session for a `String`: what is asked is the adapter's opinion.
        let program = printed.program.replace(right, wrong).replace('?', ".unwrap()");
        let dir = tempfile::tempdir().unwrap();
        let printed = Printed { dependencies: printed.dependencies.clone(), program };
        let said = build(dir.path(), "wrong", &printed).expect_err("a handler of another type");
        let response = format!("a response of its server (`{response}");
        let parts = [
            "a handler cannot return `",
            &response,
            "Box<dyn std::error::Error + Send + Sync>",
            "`sessile::http::IntoResponse`",
        ];
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
}

/// A heading's anchor: lower case, hyphens for spaces, no other signs.
fn anchor(heading: &str) -> String {
    let letters = heading.trim().chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    letters.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// crates.io and docs.rs show the page without the repository around it.
#[test]
fn every_link_of_the_readme_leads_somewhere_without_the_repository() {
    let page = fs::read_to_string(Path::new(REPOSITORY).join("README.md")).unwrap();
    let anchors: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect();
    let targets: Vec<_> = page.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(targets.len() > 5, "{targets:?}");
    for target in targets {
        let leads = match target.strip_prefix('#') {
            Some(anchor) => anchors.iter().any(|known| known == anchor),
            None => target.starts_with("https://"),
        };
        assert!(leads, "{target} leads nowhere");
        // The package's files are shown there by their paths.
        if let Some(file) = target.strip_prefix("https://docs.rs/crate/sessile/latest/source/") {
            assert!(Path::new(REPOSITORY).join(file).is_file(), "{target}");
        }
        if let Some(module) = target.strip_prefix("https://docs.rs/sessile/latest/sessile/") {
            let module = module.split('/').next().unwrap();
            let files = [format!("src/{module}.rs"), format!("src/{module}/mod.rs")];
            assert!(files.iter().any(|file| Path::new(REPOSITORY).join(file).is_file()), "{target}");
        }
    }
}
